//! TLS on the server's own sockets: the codec between a socket and the protocol, and the certificates.
//!
//! rustls is the protocol; here is what a reactor needs around it. A [`TlsSession`] is one connection's: bytes in,
//! bytes out, no socket. A [`TlsAcceptor`] is the server's: it makes the sessions of all reactors, out of one
//! configuration with one key for tickets, so a client resumes on whichever reactor it comes to.
//!
//! In a build without the feature `tls` no [`TlsSession`] can be made, so the compiler removes every branch that needs
//! one. Of all other code only the configuration asks how we were built: it refuses what cannot be had. What is done
//! with a session's bytes, [`super::Transport`] says.
//!
//! In reading order: `certificate` reads of a certificate what rustls does not tell; `session` is the codec; `acceptor`
//! loads files and makes sessions; `absent` is all of it in a build without.
//!
//! Invariant: no plaintext of a session leaves before its handshake is over, and none after its close_notify.
//!
//! Next: `certificate`, what a certificate says.

#![cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nothing is encrypted"))]

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod acceptor;
#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "tls")]
mod session;

use std::collections::TryReserveError;
use std::fmt;
use std::time::Duration;

#[cfg(not(feature = "tls"))]
pub use absent::{ClientCertificate, Handshakes, TlsAcceptor, TlsSession};
#[cfg(feature = "tls")]
pub use {
    acceptor::TlsAcceptor,
    session::{ClientCertificate, Handshakes, TlsSession},
};

/// The longest record that rustls takes, with its header: 2^14 bytes and what encryption may add in TLS 1.2 (RFC 5246
/// 6.2.3).
pub const RECORD_MOST: usize = 5 + (1 << 14) + 2048;

/// The most ciphertext that a session keeps because its end has not come: a record, or in the handshake a message of
/// several. What may be long there is a client's certificate with its chain, of which five with RSA keys of 4096 bits
/// take 8 KiB; rustls itself would take 64 KiB.
pub const PARTIAL_MOST: usize = 32 << 10;

/// What a session takes at least of the socket behind what it has kept, however little room there is for plaintext.
pub const READ_LEAST: usize = 4 << 10;

/// The most that a session of ours holds: rustls's state with two ciphers and a client's certificates (3 KiB, and the
/// chain once more), ciphertext, and plaintext for which there was no room.
pub const SESSION_MOST: usize = (4 << 10) + 2 * PARTIAL_MOST + PARTIAL_MOST + READ_LEAST;

/// Plaintext that is encrypted at once: as much as the socket takes in one write.
pub const SEAL_MOST: usize = 64 << 10;

/// What a reactor keeps of [`TlsScratch`] for its next session.
const SCRATCH_KEPT: usize = 128 << 10;

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before TLS comes a header that is not encrypted (the PROXY protocol). What comes is passed through.
    Preface,
    /// The handshake.
    ShakingHands,
    /// Messages go both ways.
    Established,
    /// The peer speaks no TLS but text, an HTTP request perhaps. It is passed through, and so is the answer.
    PlainText,
    /// The peer broke a rule of TLS. What it still sends is passed through, to be thrown away.
    Failed,
    /// We have said close_notify, and hear no more: the same.
    Ended,
}

/// Storage of a reactor in which its sessions decrypt and encrypt, so that none of them has to own it.
#[derive(Debug, Default)]
pub struct TlsScratch {
    /// Ciphertext as it was read.
    pub incoming: Vec<u8>,
    /// Ciphertext to be written.
    pub outgoing: Outgoing,
}

/// Bytes to be written, in storage that stays.
#[derive(Debug, Default)]
pub struct Outgoing {
    storage: Vec<u8>,
    len: usize,
}

impl TlsScratch {
    /// The most that one holds between two visits.
    pub const MOST: usize = if cfg!(feature = "tls") { 2 * SCRATCH_KEPT } else { 0 };

    /// `incoming` has at least so many bytes then.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn make_room(&mut self, bytes: usize) -> Result<(), TryReserveError> {
        grow(&mut self.incoming, bytes)
    }

    /// Gives storage back that one long flight left behind.
    pub fn trim(&mut self) {
        if self.incoming.capacity() > SCRATCH_KEPT {
            self.incoming = Vec::new();
        }
        self.outgoing.len = 0;
        if self.outgoing.storage.capacity() > SCRATCH_KEPT {
            self.outgoing.storage = Vec::new();
        }
    }
}

impl Outgoing {
    /// What stands in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[..self.len]
    }

    /// Whether nothing does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// What is free behind that.
    pub fn free(&mut self) -> &mut [u8] {
        &mut self.storage[self.len..]
    }

    /// At least so many bytes are free then.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), TryReserveError> {
        grow(&mut self.storage, self.len + bytes)
    }

    /// So many of the free bytes were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// Appends bytes as they are.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TryReserveError> {
        self.reserve(bytes.len())?;
        self.free()[..bytes.len()].copy_from_slice(bytes);
        self.wrote(bytes.len());
        Ok(())
    }
}

fn grow(storage: &mut Vec<u8>, bytes: usize) -> Result<(), TryReserveError> {
    if storage.len() < bytes {
        storage.try_reserve_exact(bytes - storage.len())?;
        storage.resize(bytes, 0);
    }
    Ok(())
}

/// Why there is no TLS: one line, which names the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError(pub(crate) String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// A certificate that is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// The file from which it was read.
    pub file: String,
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// When it expires, in seconds of 1970.
    pub not_after: i64,
    /// What was wrong with it when it was read, if no client takes it, or soon none will.
    pub warning: Option<String>,
}

/// Below this a certificate that expires is a warning: a renewal that runs by itself does so at a third of 90 days.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

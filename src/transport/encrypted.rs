//! What a transport does where its socket is encrypted: reading, sealing, and the last words.
//!
//! Joins the two facts of each kind: what is known of the socket, and what the session holds. The bytes are
//! [`super::tls`]'s, the socket's calls those of [`Transport`]. Reading has a call of its own
//! ([`Transport::read_encrypted`]), so that the plain one need not ask. Called by [`crate::connection`] and by the
//! shard.
//!
//! Invariant: while the session has something for the reader, [`Transport::has_readable`] says so.
//!
//! Next: [`crate::transport::network`]: which addresses the limits count as one.

use std::io;
use std::time::Instant;

use super::out_buffer::BufferPool;
use super::tls::{Phase, SEAL_MOST, TlsScratch, TlsSession};
use super::{Inbound, Stream, Transport};

/// What was read by way of a TLS session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Decrypted {
    /// Bytes of plaintext.
    pub plain: usize,
    /// Bytes that the socket gave.
    pub wire: usize,
}

impl<S: Stream> Transport<S> {
    /// From now on what is read is decrypted, and what is sent is encrypted.
    pub fn encrypt(&mut self, session: TlsSession) {
        // A reply past the cork would leave as it is.
        self.is_gated = true;
        self.tls = Some(session);
        self.note_session();
    }

    /// How far the TLS session is; `None` without one.
    #[inline]
    #[must_use]
    pub fn tls_phase(&self) -> Option<Phase> {
        self.tls.as_ref().map(TlsSession::phase)
    }

    /// The TLS session, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_ref()
    }

    /// The preface is over, and this stands behind it: TLS begins.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn begin_tls(&mut self, behind: &[u8]) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            session.begin(behind)?;
            self.note_session();
        }
        Ok(())
    }

    /// One read of plaintext, if there may be some and there is room for it: of what waits in the session, or else of
    /// the socket. What the session has to say, as in the handshake, is sent.
    ///
    /// # Errors
    ///
    /// What ended the connection; of kind [`io::ErrorKind::InvalidData`] if the peer broke a rule of TLS. The alert
    /// that says so is sent all the same.
    pub fn read_encrypted(
        &mut self,
        room: &mut [u8],
        now: Instant,
        pool: &mut BufferPool,
    ) -> io::Result<Decrypted> {
        let Some(session) = self.tls.as_mut().filter(|_| !room.is_empty()) else {
            return Ok(Decrypted::default());
        };
        let waited = session.take_waiting(room);
        let read = if waited > 0 {
            Ok(Decrypted { plain: waited, wire: 0 })
        } else {
            let mut scratch = std::mem::take(&mut pool.tls);
            let read = self.read_records(room, &mut scratch);
            // Of a failed session that is the alert, and whether it leaves changes nothing.
            let sent = match scratch.outgoing.is_empty() {
                true => Ok(()),
                false => self.send_as_it_is(scratch.outgoing.bytes(), now, pool),
            };
            scratch.trim();
            pool.tls = scratch;
            read.and_then(|read| sent.map(|()| read))
        };
        self.note_session();
        read
    }

    fn read_records(&mut self, room: &mut [u8], scratch: &mut TlsScratch) -> io::Result<Decrypted> {
        let nothing = Decrypted::default();
        let Some(session) = &self.tls else { return Ok(nothing) };
        let (begin, most) = session.prepare_read(room.len(), scratch)?;
        let mut wire = 0;
        if self.has_readable() && self.inbound != Inbound::Decrypted {
            let outcome = self.stream.read(&mut scratch.incoming[begin..most]);
            wire = self.has_read(outcome, most - begin)?;
        }
        let Some(session) = &mut self.tls else { return Ok(nothing) };
        if wire == 0 && !session.has_waiting() {
            return Ok(nothing);
        }
        let plain = session.receive(begin + wire, room, scratch)?;
        Ok(Decrypted { plain, wire })
    }

    /// Joins what is known of the socket with what the session holds.
    fn note_session(&mut self) {
        let Some(session) = &self.tls else { return };
        self.inbound = match (session.has_waiting(), self.inbound) {
            (true, Inbound::Exhausted) => Inbound::Decrypted,
            // The end is read once more, behind the plaintext.
            (true, Inbound::Ended) => Inbound::Final,
            (false, Inbound::Decrypted) => Inbound::Exhausted,
            (_, noted) => noted,
        };
        if session.has_ended() && !session.has_waiting() && self.inbound != Inbound::Broken {
            self.inbound = Inbound::Ended;
        }
    }

    // "Cold", so that the plain path, of which this is a branch, keeps its registers.
    #[cold]
    #[inline(never)]
    pub(super) fn send_encrypted(
        &mut self,
        bytes: &[u8],
        now: Instant,
        pool: &mut BufferPool,
    ) -> io::Result<()> {
        self.seal(bytes, pool, |transport, bytes, pool| transport.send_as_it_is(bytes, now, pool))
    }

    /// Encrypts, and has `pass_on` send or hold what comes of it.
    pub(super) fn seal(
        &mut self,
        bytes: &[u8],
        pool: &mut BufferPool,
        pass_on: impl Fn(&mut Self, &[u8], &mut BufferPool) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut scratch = std::mem::take(&mut pool.tls);
        let sealed = bytes.chunks(SEAL_MOST).try_for_each(|bytes| {
            let Some(session) = &mut self.tls else { return Ok(()) };
            session.seal(bytes, &mut scratch.outgoing)?;
            let passed_on = pass_on(self, scratch.outgoing.bytes(), pool);
            scratch.outgoing.clear();
            passed_on
        });
        scratch.trim();
        pool.tls = scratch;
        sealed
    }

    /// Whether the session has its last words to say yet.
    #[must_use]
    pub fn owes_goodbye(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::owes_goodbye)
    }

    /// The stream has ended in another way than by our own words: close_notify would say that it is whole.
    #[inline]
    pub fn abandon_goodbye(&mut self) {
        if let Some(session) = &mut self.tls {
            session.abandon();
        }
    }

    /// Says close_notify, which may become backlog. Behind it nothing is sent.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    #[cold]
    pub fn say_goodbye(&mut self, now: Instant, pool: &mut BufferPool) -> io::Result<()> {
        let Some(session) = &mut self.tls else { return Ok(()) };
        let mut scratch = std::mem::take(&mut pool.tls);
        let said = session
            .say_goodbye(&mut scratch.outgoing)
            .and_then(|()| self.send_as_it_is(scratch.outgoing.bytes(), now, pool));
        scratch.trim();
        pool.tls = scratch;
        said
    }
}

//! TLS in a build without the feature: there is no session, and nothing that makes one.
//!
//! Next: [`crate::transport::out_buffer`]: bytes that wait.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;

use super::{Outgoing, Phase, ShownCertificate, TlsError, TlsScratch};
use crate::config::TlsFiles;

/// There is none.
#[derive(Debug)]
pub enum TlsSession {}

/// There is none.
#[derive(Debug)]
pub enum TlsAcceptor {}

/// Counts nothing.
#[derive(Debug, Default)]
pub struct Handshakes {
    _of_nothing: (),
}

impl Handshakes {
    /// Does nothing.
    pub fn begin_turn(&mut self) {}

    /// There is none to be taken.
    pub fn take(&mut self, _limit: usize) -> bool {
        true
    }
}

/// There is none.
#[derive(Debug, Clone, Copy)]
pub struct ClientCertificate<'a>(Infallible, PhantomData<&'a str>);

impl<'a> ClientCertificate<'a> {
    /// Cannot be called.
    #[must_use]
    pub fn subject(self) -> &'a str {
        match self.0 {}
    }
}

impl TlsAcceptor {
    /// Loads nothing.
    ///
    /// # Errors
    ///
    /// Always: the configuration has refused it before.
    pub fn load(_files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
        Err(TlsError("this build has no TLS: it needs the cargo feature \"tls\"".to_owned()))
    }

    /// Cannot be called.
    ///
    /// # Errors
    ///
    /// None.
    pub fn reload(&self) -> Result<(), TlsError> {
        match *self {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    ///
    /// None.
    pub fn session(&self) -> io::Result<TlsSession> {
        match *self {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn shown(&self) -> Vec<ShownCertificate> {
        match *self {}
    }
}

impl TlsSession {
    /// Cannot be called; nor can those below.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match *self {}
    }

    /// See [`Self::phase`].
    pub fn await_preface(&mut self) {
        match *self {}
    }

    /// See [`Self::phase`].
    ///
    /// # Errors
    ///
    /// None.
    pub fn begin(&mut self, _behind: &[u8]) -> io::Result<()> {
        match *self {}
    }

    /// See [`Self::phase`].
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        match *self {}
    }

    /// See [`Self::phase`].
    #[must_use]
    pub fn client_certificate(&self) -> Option<ClientCertificate<'_>> {
        match *self {}
    }

    /// See [`Self::phase`].
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        match *self {}
    }

    /// See [`Self::phase`].
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match *self {}
    }

    /// See [`Self::phase`].
    #[must_use]
    pub fn is_amid_record(&self) -> bool {
        match *self {}
    }

    /// See [`Self::phase`].
    #[must_use]
    pub fn owes_goodbye(&self) -> bool {
        match *self {}
    }

    /// See [`Self::phase`].
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match *self {}
    }

    /// See [`Self::phase`].
    pub fn take_waiting(&mut self, _room: &mut [u8]) -> usize {
        match *self {}
    }

    /// See [`Self::phase`].
    ///
    /// # Errors
    ///
    /// None.
    pub fn prepare_read(&self, _room: usize, _: &mut TlsScratch) -> io::Result<(usize, usize)> {
        match *self {}
    }

    /// See [`Self::phase`].
    ///
    /// # Errors
    ///
    /// None.
    pub fn receive(&mut self, _: usize, _: &mut [u8], _: &mut TlsScratch) -> io::Result<usize> {
        match *self {}
    }

    /// See [`Self::phase`].
    ///
    /// # Errors
    ///
    /// None.
    pub fn seal(&mut self, _plain: &[u8], _out: &mut Outgoing) -> io::Result<()> {
        match *self {}
    }

    /// See [`Self::phase`].
    pub fn abandon(&mut self) {
        match *self {}
    }

    /// See [`Self::phase`].
    ///
    /// # Errors
    ///
    /// None.
    pub fn say_goodbye(&mut self, _out: &mut Outgoing) -> io::Result<()> {
        match *self {}
    }
}

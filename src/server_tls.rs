//! The certificates of a server: loaded when it starts, and anew when it is told to.
//!
//! What is loaded, and how, is [`crate::transport::tls`]'s; when, is the owner's to say: the daemon does it at SIGHUP. Called
//! by `server.rs`.
//!
//! Invariant: a reload that fails changes nothing.
//!
//! Next: [`crate::server`], which starts one reactor a core, and this.

use std::sync::Arc;

use crate::config::TlsFiles;
use crate::transport::tls::{ShownCertificate, TlsAcceptor, TlsError};

/// What makes the TLS sessions of a server, if there are any.
pub(crate) fn load(files: &TlsFiles) -> Result<Option<Arc<TlsAcceptor>>, TlsError> {
    if files.is_used() { TlsAcceptor::load(files).map(|tls| Some(Arc::new(tls))) } else { Ok(None) }
}

/// The certificates that a server shows to its clients: [`crate::ServerHandle::certificates`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificates(pub(crate) Option<Arc<TlsAcceptor>>);

impl Certificates {
    /// Whether there are any: whether the server speaks TLS.
    #[must_use]
    pub fn are_used(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the files of [`crate::Config::tls`] again. Who connects from now on gets what they have; open connections go
    /// on as they are. Blocks as long as the files take.
    ///
    /// # Errors
    ///
    /// What is wrong with a file: then the former certificates stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.0.as_deref().map_or(Ok(()), TlsAcceptor::reload)
    }

    /// What is shown now, in the order of [`TlsFiles::certfiles`].
    #[must_use]
    pub fn shown(&self) -> Vec<ShownCertificate> {
        self.0.as_deref().map_or_else(Vec::new, TlsAcceptor::shown)
    }
}

//! The certificates of a server: loaded when it starts, and anew when it is told to.
//!
//! What is loaded, and how, is [`crate::transport::tls`]'s; when, is the owner's to say: the daemon does it at SIGHUP.
//! Called by `server.rs`.
//!
//! Invariant: a reload that fails changes nothing.
//!
//! Next: [`crate::serve_error`]: why there is no server.

use std::sync::Arc;

use crate::config::TlsFiles;
use crate::transport::tls::{ShownCertificate, TlsAcceptor, TlsError};

/// The certificates that a server shows to its clients: [`crate::ServerHandle::certificates`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificates(pub(crate) Option<Arc<TlsAcceptor>>);

impl Certificates {
    /// Reads the files as a server does that starts with them: so a program can look at them before. Without a
    /// certificate in `files` there is nothing to read.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with one of them.
    pub fn load(files: &TlsFiles) -> Result<Certificates, TlsError> {
        if !files.is_used() {
            return Ok(Certificates(None));
        }
        TlsAcceptor::load(files).map(|tls| Certificates(Some(Arc::new(tls))))
    }

    /// Whether there are any: whether the server speaks TLS.
    #[must_use]
    pub fn are_used(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the files of [`crate::Config::tls`] again. Who connects from now on gets what they have; open connections
    /// go on as they are. Blocks as long as the files take.
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

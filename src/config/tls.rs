//! From which files TLS is made, and whom it asks for a certificate. The names and meanings of the options are
//! Uvicorn's; several pairs are ours.
//!
//! Reads no file: [`crate::transport`] does, when the server starts and when it is told to load them anew. Given by
//! [`super::Config::tls`].
//!
//! Invariant: there are as many key files as certificate files, or none.
//!
//! Next: [`crate::token`]: the name of one connection among many.

use std::path::PathBuf;

use super::{ConfigError, refuse};

/// The most pairs. Each is compared with the name that a client asks for, at each handshake: 64 of them take a tenth of
/// what its signature does.
const PAIRS_MOST: usize = 64;

/// Of `--ssl-certfile`.
pub const CERTFILES_ALLOWED: &str = "a list of at most 64 paths of PEM files, one for each key";

/// Whether clients are asked for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    None,
    /// They are, and may have none. One that is shown has to be valid.
    Optional,
    /// Who has none is turned away.
    Required,
}

/// The files of TLS. Without a certificate nothing is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Certificates, each with its chain: PEM. Which of several is shown depends on the name for which a client asks (SNI);
    /// the first is for all other names, and for clients that ask for none.
    pub certfiles: Vec<PathBuf>,
    /// Their private keys, in the same order: PEM, without a passphrase. Empty: each stands in the certificate's file.
    pub keyfiles: Vec<PathBuf>,
    /// Authorities that vouch for clients: PEM.
    pub ca_certs: Option<PathBuf>,
    /// Whether clients are asked for certificates.
    pub cert_reqs: ClientCertificates,
}

impl TlsFiles {
    /// Whether anything is to be encrypted.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.certfiles.is_empty()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let list = |paths: &[PathBuf]| {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            paths.join(",")
        };
        let (certfiles, keyfiles) = (list(&self.certfiles), list(&self.keyfiles));
        if self.is_used() && !cfg!(feature = "tls") {
            const ALLOWED: &str = "available in this build: it needs the cargo feature \"tls\"";
            return refuse("ssl-certfile", &certfiles, ALLOWED);
        }
        if self.certfiles.len() > PAIRS_MOST {
            return refuse("ssl-certfile", &certfiles, CERTFILES_ALLOWED);
        }
        if !self.keyfiles.is_empty() && self.keyfiles.len() != self.certfiles.len() {
            return refuse("ssl-keyfile", &keyfiles, "one path for each of --ssl-certfile");
        }
        match &self.ca_certs {
            Some(path) if !self.is_used() => {
                refuse("ssl-ca-certs", &path.display(), "of use without --ssl-certfile")
            }
            None if self.cert_reqs != ClientCertificates::None => {
                let number = self.cert_reqs as u8;
                refuse("ssl-cert-reqs", &number, "of use without --ssl-ca-certs")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: &TlsFiles) -> Option<&'static str> {
        files.validate().err().map(|error| error.option)
    }

    #[test]
    fn files_that_do_not_go_together_are_refused() {
        let is_built = cfg!(feature = "tls");
        let path = |name: &str| PathBuf::from(name);
        let mut files = TlsFiles::default();
        assert_eq!((files.is_used(), refused(&files)), (false, None));
        files.cert_reqs = ClientCertificates::Optional;
        assert_eq!(refused(&files), Some("ssl-cert-reqs"));
        files.ca_certs = Some(path("ca.pem"));
        assert_eq!(refused(&files), Some("ssl-ca-certs"), "nothing is encrypted");
        files.certfiles = vec![path("a.pem"), path("b.pem")];
        assert_eq!(refused(&files), (!is_built).then_some("ssl-certfile"));
        files.keyfiles = vec![path("a.key")];
        let wanted = if is_built { "ssl-keyfile" } else { "ssl-certfile" };
        assert_eq!(refused(&files), Some(wanted));
        files.keyfiles = vec![path("a.key"), path("b.key")];
        assert_eq!(refused(&files), (!is_built).then_some("ssl-certfile"));
        files.certfiles = vec![path("a.pem"); PAIRS_MOST + 1];
        assert_eq!(refused(&files), Some("ssl-certfile"));
    }
}

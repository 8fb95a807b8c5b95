//! The server's side of TLS: certificates from files, and a session for each connection that is accepted.
//!
//! All reactors share one [`TlsAcceptor`], so a ticket that one of them has issued resumes a session on any other. A
//! reload swaps the whole configuration: sessions that there are go on with the old one. Reads files when it is asked to,
//! never while it accepts. Called by `server.rs` to load and to reload, by the listeners for each connection.
//!
//! Invariant: there is always a whole configuration. Files that cannot be used change nothing.
//!
//! Next: `absent`, all of this in a build without.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ParsedCertificate, ProducesTickets,
    ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use super::certificate::Certificate;
use super::session::TlsSession;
use super::{EXPIRES_SOON, ShownCertificate, TlsError};
use crate::config::{ClientCertificates, TlsFiles};

/// The one protocol that is spoken within (RFC 7301; the name is IANA's).
const ALPN: &[u8] = b"http/1.1";

/// The longest file of certificates or keys: as rustls's own for a list of all authorities of the web (200 KiB), ten
/// times over. A path that leads to something else is told, and not read to its end.
const FILE_MOST: u64 = 2 << 20;

/// Makes the sessions of a server.
#[derive(Debug)]
pub struct TlsAcceptor {
    files: TlsFiles,
    current: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    config: Arc<ServerConfig>,
    shown: Vec<ShownCertificate>,
}

impl TlsAcceptor {
    /// Loads what the files have.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with one of them.
    pub fn load(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
        let ticketer = ring::Ticketer::new().map_err(|error| no_tickets(&error))?;
        let current = RwLock::new(Current::load(files, ticketer)?);
        Ok(TlsAcceptor { files: files.clone(), current })
    }

    /// Loads the files anew: connections that come from now on get what they have.
    ///
    /// # Errors
    ///
    /// As those of [`Self::load`]. Then the former certificates stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        let former = self.current().config.ticketer.clone();
        let ticketer = match self.files.cert_reqs {
            ClientCertificates::None => former,
            // A ticket stands for the client's certificate, which the new authorities may not vouch for.
            ClientCertificates::Optional | ClientCertificates::Required => {
                ring::Ticketer::new().map_err(|error| no_tickets(&error))?
            }
        };
        let loaded = Current::load(&self.files, ticketer)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// A session for a connection that was accepted.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn session(&self) -> io::Result<TlsSession> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsSession::new(current.config.clone()).map_err(io::Error::other)
    }

    /// The certificates that are shown now.
    #[must_use]
    pub fn shown(&self) -> Vec<ShownCertificate> {
        self.current().shown
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn no_tickets(error: &rustls::Error) -> TlsError {
    TlsError(format!("cannot make a key for TLS tickets: {error}"))
}

impl Current {
    fn load(files: &TlsFiles, ticketer: Arc<dyn ProducesTickets>) -> Result<Current, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut pairs = Vec::with_capacity(files.certfiles.len());
        let mut shown = Vec::with_capacity(files.certfiles.len());
        for (at, certfile) in files.certfiles.iter().enumerate() {
            // As Uvicorn's: without a file of its own the key stands with the certificate.
            let keyfile = files.keyfiles.get(at).unwrap_or(certfile);
            pairs.push(Arc::new(load_pair(certfile, keyfile, &provider)?));
            shown.push(look_at(certfile, &pairs[at])?);
        }
        let verifier = verifier(files, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError(format!("cannot use TLS: {error}")))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(ByName(pairs)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ticketer = ticketer;
        // Tickets hold all that there is to resume: nothing is stored here, for any client.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // RFC 8446 8: early data may be replayed.
        config.max_early_data_size = 0;
        Ok(Current { config: Arc::new(config), shown })
    }
}

/// Who may connect, by certificate.
fn verifier(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (Some(path), true) = (&files.ca_certs, files.cert_reqs != ClientCertificates::None) else {
        return Ok(Arc::new(NoClientAuth));
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, "--ssl-ca-certs")? {
        roots.add(authority).map_err(|error| wrong("--ssl-ca-certs", path, &error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match files.cert_reqs {
        ClientCertificates::Required => builder,
        ClientCertificates::None | ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    let verifier = builder.build().map_err(|error| wrong("--ssl-ca-certs", path, &error))?;
    Ok(verifier)
}

fn wrong(option: &str, path: &Path, what: &dyn Display) -> TlsError {
    TlsError(format!("{option} {}: {what}", path.display().to_string().escape_debug()))
}

/// What a file has.
fn read(path: &Path, option: &str) -> Result<Vec<u8>, TlsError> {
    let wrong = |error: &dyn Display| wrong(option, path, error);
    let length = fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if length > FILE_MOST {
        return Err(wrong(&format!("has {length} bytes, and may have {FILE_MOST}")));
    }
    fs::read(path).map_err(|error| wrong(&error))
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, option)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(option, path, &not_pem(&error)))?;
    match found.is_empty() {
        true => Err(wrong(option, path, &"has no certificate (-----BEGIN CERTIFICATE-----)")),
        false => Ok(found),
    }
}

fn not_pem(error: &pem::Error) -> String {
    format!("is damaged: {error}")
}

fn load_pair(
    certfile: &Path,
    keyfile: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certfile, "--ssl-certfile")?;
    let wrong_key = |what: &dyn Display| wrong("--ssl-keyfile", keyfile, what);
    let text = read(keyfile, "--ssl-keyfile")?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(&text) => {
            wrong_key(&"has a key under a passphrase, which nobody could enter here: take that off")
        }
        pem::Error::NoItemsFound => wrong_key(&"has no private key (-----BEGIN PRIVATE KEY-----)"),
        error => wrong_key(&not_pem(&error)),
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        wrong_key(&format!("has a key that cannot be used (RSA, ECDSA or Ed25519 can): {error}"))
    })?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // A key that cannot tell its public half is not known not to fit.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(pair)
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let certfile = certfile.display().to_string();
            let certfile = certfile.escape_debug();
            Err(wrong_key(&format!("is not the key of the certificate in {certfile}")))
        }
        Err(error) => Err(wrong("--ssl-certfile", certfile, &error)),
    }
}

fn is_encrypted(text: &[u8]) -> bool {
    let has = |mark: &[u8]| text.windows(mark.len()).any(|window| window == mark);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// What is told of a certificate; the log has the warning too.
fn look_at(certfile: &Path, pair: &CertifiedKey) -> Result<ShownCertificate, TlsError> {
    let first = pair.cert.first().and_then(|der| Certificate::read(der));
    let Some(Certificate { subject, not_before, not_after }) = first else {
        return Err(wrong("--ssl-certfile", certfile, &"is no certificate that can be read"));
    };
    let file = certfile.display().to_string();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let name = file.escape_debug();
    let date = |at: i64| {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(at.try_into().unwrap_or_default()));
        at.map_or_else(|| "later".to_owned(), httpdate_of)
    };
    let warning = if now >= not_after {
        let date = date(not_after);
        Some(format!("certificate {name} has expired: {date}; clients refuse it"))
    } else if now + EXPIRES_SOON.as_secs() as i64 >= not_after {
        Some(format!("certificate {name} expires soon: {}", date(not_after)))
    } else if now < not_before {
        Some(format!("certificate {name} is not valid yet, but from {} on", date(not_before)))
    } else {
        None
    };
    if let Some(warning) = &warning {
        log::warn!("{warning}");
    }
    Ok(ShownCertificate { file, subject, not_after, warning })
}

fn httpdate_of(at: SystemTime) -> String {
    httpdate::fmt_http_date(at)
}

/// Chooses the pair by the name for which the client asks (SNI, RFC 6066 3): the first that has the name and a key that
/// the client can verify; the first of all, if none has the name.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let can_verify = |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(schemes).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| {
            let has_name = |pair: &&Arc<CertifiedKey>| {
                let parsed = pair.cert.first().map(ParsedCertificate::try_from);
                matches!(parsed, Some(Ok(certificate)) if verify_server_name(&certificate, &name).is_ok())
            };
            // One alone has no other beside it, whatever its name.
            if self.0.len() == 1 { None } else { self.0.iter().filter(has_name).find(can_verify) }
        });
        named.or_else(|| self.0.iter().find(can_verify)).or(self.0.first()).cloned()
    }
}

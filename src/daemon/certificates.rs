//! What is told of the certificates: at the start, when they are loaded anew, and by `--check-config`.
//!
//! Loads nothing itself: the server has. Called by `main.rs`, by its thread for signals, and by `checking`.
//!
//! Invariant: after a reload the log says which certificates are shown from now on.
//!
//! Next: `listening`: where the server listens.

use std::time::UNIX_EPOCH;

use log::Level;
use revolve::{Certificates, ShownCertificate};

/// What is shown to clients, and until when.
pub(crate) fn tell(certificates: &Certificates) {
    for certificate in certificates.shown() {
        log::info!("{}", line(&certificate));
    }
}

/// The same with the warnings, which the server logs itself when it loads them.
pub(crate) fn lines(certificates: &Certificates) -> Vec<(Level, String)> {
    let mut lines = Vec::new();
    for certificate in certificates.shown() {
        lines.push((Level::Info, line(&certificate)));
        lines.extend(certificate.warning.map(|warning| (Level::Warn, warning)));
    }
    lines
}

fn line(certificate: &ShownCertificate) -> String {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() as i64;
    let days = (certificate.not_after - now).div_euclid(86_400).max(0);
    let (file, subject) = (certificate.file.escape_debug(), certificate.subject.escape_debug());
    format!("TLS: {file} is of {subject}, and valid for {days} days")
}

/// Loads them anew, or says why the former ones stay.
pub(crate) fn reload(certificates: &Certificates) {
    match certificates.reload() {
        Ok(()) => {
            log::info!("SIGHUP: the certificates are loaded anew");
            tell(certificates);
        }
        Err(error) => log::error!("SIGHUP: the former certificates stay: {error}"),
    }
}

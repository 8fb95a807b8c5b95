//! What the log tells of the certificates: at the start, and when they are loaded anew.
//!
//! Loads nothing itself: the server has. Called by `main.rs`, and by its thread for signals.
//!
//! Invariant: after a reload the log says which certificates are shown from now on.
//!
//! Next: `listening`: where the server listens.

use std::time::UNIX_EPOCH;

use revolve::{Certificates, ShownCertificate};

/// What is shown to clients, and until when.
pub(crate) fn tell(certificates: &Certificates) {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() as i64;
    for ShownCertificate { file, subject, not_after } in certificates.shown() {
        let days = (not_after - now).div_euclid(86_400).max(0);
        log::info!(
            "TLS: {} is of {}, and valid for {days} days",
            file.escape_debug(),
            subject.escape_debug()
        );
    }
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

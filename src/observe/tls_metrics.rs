//! The part of the metrics page that tells of TLS; nothing of it stands on the page of a server without.
//!
//! Renders what the reactors have counted, and until when the certificates are valid. Counts nothing. Called by
//! `server_status.rs`.
//!
//! Invariant: label values are the operator's own paths, or come from closed sets.
//!
//! Next: [`crate::observe::page`]: the same figures in a browser.

use std::sync::Arc;

use super::metrics::{Page, ReactorMetrics};
use crate::transport::tls::ShownCertificate;

/// Appends it.
pub fn render(shown: &[ShownCertificate], reactors: &[Arc<ReactorMetrics>], out: &mut String) {
    let mut page = Page(std::mem::take(out));
    let name = "revolve_tls_handshakes_total";
    page.family(name, "counter", "TLS handshakes, in full or of a session that was resumed.");
    for (number, reactor) in reactors.iter().enumerate() {
        let cells = [("full", &reactor.tls_handshakes), ("resumed", &reactor.tls_resumed)];
        for (kind, cell) in cells {
            let labels = format_args!("reactor=\"{number}\",kind=\"{kind}\"");
            page.sample(name, labels, cell.get());
        }
    }
    let name = "revolve_tls_failures_total";
    page.family(name, "counter", "TLS handshakes that failed.");
    for (number, reactor) in reactors.iter().enumerate() {
        page.sample(name, format_args!("reactor=\"{number}\""), reactor.tls_failures.get());
    }
    let name = "revolve_tls_certificate_expiry_seconds";
    page.family(name, "gauge", "When a certificate expires, in seconds of 1970.");
    for certificate in shown {
        let file = escaped(&certificate.file);
        page.sample(name, format_args!("file=\"{file}\""), certificate.not_after);
    }
    *out = page.0;
}

/// A label's value in Prometheus' text format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_of_handshakes_and_of_certificates() {
        let reactor = Arc::new(ReactorMetrics::default());
        reactor.tls_handshakes.add(3);
        reactor.tls_resumed.add(2);
        reactor.tls_failures.add(1);
        let file = "/etc/a \"b\"\\c.pem".to_owned();
        let (subject, not_after) = ("CN=a".to_owned(), 1_900_000_000);
        let shown = ShownCertificate { file, subject, not_after, warning: None };
        let mut page = String::from("before\n");
        render(&[shown], &[reactor], &mut page);
        for line in [
            "before",
            "# TYPE revolve_tls_handshakes_total counter",
            "revolve_tls_handshakes_total{reactor=\"0\",kind=\"full\"} 3",
            "revolve_tls_handshakes_total{reactor=\"0\",kind=\"resumed\"} 2",
            "revolve_tls_failures_total{reactor=\"0\"} 1",
            "revolve_tls_certificate_expiry_seconds{file=\"/etc/a \\\"b\\\"\\\\c.pem\"} 1900000000",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }
}

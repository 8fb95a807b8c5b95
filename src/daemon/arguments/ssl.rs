//! The rows of TLS in the table of options: certificates, keys, and what clients show.
//!
//! Values alone. Their names are Uvicorn's. Called by `options`, which has them in its table.
//!
//! Next: `options`: the table of them all.

use revolve::config::CERTFILES_ALLOWED;

use super::row::{Live, NotAllowed, Row, Takes, store};
use super::settings;
use super::values::{meant, path, paths, show_paths, word_for, words};

pub(super) const CERTFILE: Row = Row {
    group: "TLS",
    name: "ssl-certfile",
    takes: Takes::Values("PATH", CERTFILES_ALLOWED),
    about: "Certificates, each with its chain; clients get the one of the name that they ask \
            for (needs the cargo feature tls)",
    live: Live::No,
    set: |s, text| {
        s.config.tls.certfiles.extend(paths(text).ok_or(NotAllowed)?);
        Ok(())
    },
    show: |s| show_paths(&s.config.tls.certfiles),
};

pub(super) const KEYFILE: Row = Row {
    group: "TLS",
    name: "ssl-keyfile",
    takes: Takes::Values("PATH", "a list of as many paths of PEM files"),
    about: "Its key, PEM, if that is not in the same file; one for each certificate",
    live: Live::No,
    set: |s, text| {
        s.config.tls.keyfiles.extend(paths(text).ok_or(NotAllowed)?);
        Ok(())
    },
    show: |s| show_paths(&s.config.tls.keyfiles),
};

pub(super) const CA_CERTS: Row = Row {
    group: "TLS",
    name: "ssl-ca-certs",
    takes: Takes::Value("PATH", "the path of a PEM file"),
    about: "Authorities that vouch for clients",
    live: Live::No,
    set: |s, text| store(&mut s.config.tls.ca_certs, path(text).map(Some)),
    show: |s| show_paths(s.config.tls.ca_certs.as_slice()),
};

pub(super) const CERT_REQS: Row = Row {
    group: "TLS",
    name: "ssl-cert-reqs",
    takes: Takes::Word { of: &words(&settings::CERT_REQS) },
    about: "Whether clients show certificates: 0 no, 1 if they have one, 2 always",
    live: Live::No,
    set: |s, text| store(&mut s.config.tls.cert_reqs, meant(&settings::CERT_REQS, text)),
    show: |s| word_for(&settings::CERT_REQS, s.config.tls.cert_reqs),
};

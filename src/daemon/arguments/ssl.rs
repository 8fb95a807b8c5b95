//! The rows of TLS in the table of options: certificates, keys, what clients show, and what is not encrypted.
//!
//! Values alone. The names are Uvicorn's where it has the option. Called by `options`, which has them in its table.
//!
//! Next: `tasks`: those of tasks.

use revolve::config::CERTFILES_ALLOWED;

use super::row::{Live, NotAllowed, Row, TRUTHS, Takes, store};
use super::settings;
use super::values::{
    PASSED_ALLOWED, meant, number, passed, path, paths, show_passed, show_paths, word_for, words,
};

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

pub(super) const PLAIN_PORT: Row = Row {
    group: "TLS",
    name: "plain-port",
    takes: Takes::Value("N", "a number from 0 to 65535"),
    about: "A port beside --port, of the same hosts, without TLS",
    live: Live::No,
    set: |s, text| store(&mut s.plain_port, number(text).map(Some)),
    show: |s| s.plain_port.map_or("none".to_owned(), |port| port.to_string()),
};

pub(super) const PLAIN_FD: Row = Row {
    group: "TLS",
    name: "plain-fd",
    takes: Takes::Values("N", PASSED_ALLOWED),
    about: "As --fd, and beside what else there is, without TLS",
    live: Live::No,
    set: |s, text| {
        s.passed_plain.extend(passed(text).ok_or(NotAllowed)?);
        Ok(())
    },
    show: |s| show_passed(&s.passed_plain),
};

pub(super) const ADMIN: Row = Row {
    group: "TLS",
    name: "ssl-admin",
    takes: Takes::Nothing,
    about: "Whether --admin speaks TLS too, if it is no Unix socket",
    live: Live::No,
    set: |s, text| store(&mut s.config.admin_tls, meant(&TRUTHS, text)),
    show: |s| if s.config.admin_tls { "on" } else { "off" }.to_owned(),
};

//! The rows of proxies in the table of options: who may say for whom a request is, and how.
//!
//! Values alone. Called by `options`, which has them in its table.
//!
//! Next: `options`: the table of them all.

use revolve::config::{PROXIES_ALLOWED, TrustedProxies};

use super::row::{Live, NotAllowed, Row, TRUTHS, Takes};
use super::settings::PROXY_HEADERS as FIELDS;
use super::values::{meant, word_for, words};

pub(super) const PROTOCOL: Row = Row {
    group: "Proxies",
    name: "proxy-protocol",
    takes: Takes::Truth,
    about: "Proxies begin with a PROXY header, version 1 or 2",
    live: Live::No,
    set: |s, text| {
        s.config.proxy_protocol = meant(&TRUTHS, text).ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| s.config.proxy_protocol.to_string(),
};

pub(super) const HEADERS: Row = Row {
    group: "Proxies",
    name: "proxy-headers",
    takes: Takes::Word { of: &words(&FIELDS) },
    about: "The field in which proxies tell for whom a request is",
    live: Live::No,
    set: |s, text| {
        s.config.proxy_headers = meant(&FIELDS, text).ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| word_for(&FIELDS, s.config.proxy_headers),
};

pub(super) const ALLOWED_IPS: Row = Row {
    group: "Proxies",
    name: "forwarded-allow-ips",
    takes: Takes::Value("LIST", PROXIES_ALLOWED),
    about: "The proxies that are believed",
    live: Live::Yes,
    set: |s, text| {
        s.config.forwarded_allow_ips = TrustedProxies::parse(text).ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| s.config.forwarded_allow_ips.to_string(),
};

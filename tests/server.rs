//! The whole server over real sockets: in-process servers on free loopback ports, spoken to with
//! tungstenite's client and with bytes.
//!
//! One module a subject. Nothing here measures speed or asserts that something took a certain
//! time: reads have a generous timeout, and what happens on its own is waited for. What a shard
//! does in every order of events is `tests/simulation`'s, other people's clients are
//! `tests/foreign`'s, the command line is the daemon's. Run by `cargo test`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so")]

/// A directory of its own beside this file, which `mod client;` alone would not look into.
mod server {
    mod client;
    mod gate;

    mod admin;
    mod admission;
    mod application;
    mod broadcast;
    #[cfg(feature = "deflate")]
    mod compression;
    mod contained;
    mod counter;
    mod directed;
    mod drain;
    mod dropped;
    mod echo;
    mod figures;
    mod held_up;
    mod http;
    mod keeping;
    mod limits;
    mod live_settings;
    mod liveness;
    mod metrics;
    mod offload;
    mod pressure;
    mod proxies;
    mod questions;
    mod requests;
    mod response_fields;
    mod resume;
    mod sessions;
    mod store;
    mod takeover;
    mod tasks;
    mod timers;
    #[cfg(feature = "tls")]
    mod tls;
    mod unix;
}

//! Which settings a running server takes anew.
//!
//! Those that are read where they are used, and from which nothing has been made: no thread, no socket, no table, no
//! storage of a bounded size. Changes no server: `live_settings.rs` does.
//!
//! Next: `tls`: from which files TLS is made.

use super::Config;

impl Config {
    /// These settings, with those of `newer` that a running server takes ([`crate::LiveSettings::change`]).
    #[must_use]
    pub fn with_live_of(&self, newer: &Config) -> Config {
        let mut config = self.clone();
        // A socket that was let in while none were counted has no permit, and could not be counted later.
        if let (Some(_), Some(limit)) = (config.limit_concurrency, newer.limit_concurrency) {
            config.limit_concurrency = Some(limit);
        }
        config.limit_per_ip = newer.limit_per_ip;
        config.limit_sessions_per_ip = newer.limit_sessions_per_ip;
        config.allowed_origins = newer.allowed_origins.clone();
        config.ws_subprotocols = newer.ws_subprotocols.clone();
        config.response_fields = newer.response_fields.clone();
        config.forwarded_allow_ips = newer.forwarded_allow_ips.clone();
        config.timeout_handshake = newer.timeout_handshake;
        config.timeout_keep_alive = newer.timeout_keep_alive;
        config.timeout_graceful_shutdown = newer.timeout_graceful_shutdown;
        config.drain_over = newer.drain_over;
        config.access_log = newer.access_log;
        config.page = newer.page;
        config.page_for = newer.page_for;
        config.metrics = newer.metrics;
        config
    }
}

//! Changing the settings of a running server.
//!
//! What can change is shared by all reactors; each takes it up at the beginning of its next turn, for which it is woken.
//! Reads no file and no environment: the daemon does, at SIGHUP. Which settings can change, `config/live.rs` says.
//!
//! Invariant: what holds is valid, whatever was asked for.
//!
//! Next: [`crate::liveness`]: whether reactors still turn.

use std::sync::Arc;

use crate::config::{Config, ConfigError};
use crate::mailbox::MailSender;
use crate::server_status::ServerStatus;
use crate::transport::socket::Socket;

/// The way to the settings of a running server, from any thread.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    pub(crate) senders: Arc<[MailSender<Socket>]>,
    pub(crate) status: Arc<ServerStatus>,
    /// Those of the start.
    pub(crate) first: Arc<Config>,
}

impl LiveSettings {
    /// What holds now.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.status.newer_config().1.unwrap_or_else(|| self.first.clone())
    }

    /// Takes from `newer` what a running server can take, and leaves everything else as it is. Returns at once; each
    /// reactor has them from its next turn on, and is woken for it.
    ///
    /// These are taken: the limits of connections (`limit_concurrency` only where there was one), of addresses and of
    /// new sessions, origins, subprotocols, header fields, trusted proxies, the times of requests and of the drain, the
    /// page, metrics and the access log. A connection keeps the deadline that it has.
    ///
    /// ```
    /// use revolve::{AllowedOrigins, Config, Echo, Origin, Server};
    ///
    /// let server = Server::builder().port(0).serve(|_| Echo)?;
    /// let settings = server.live_settings();
    /// let origin = Origin::parse("https://example.com").unwrap();
    /// let allowed_origins = AllowedOrigins::Only(vec![origin]);
    /// settings.change(&Config { allowed_origins, ..(*settings.config()).clone() })?;
    /// # server.shutdown();
    /// # server.join();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What would hold is not valid. Then nothing changes.
    pub fn change(&self, newer: &Config) -> Result<(), ConfigError> {
        self.status.change_config(|now| {
            let config = now.unwrap_or(&self.first).with_live_of(newer);
            config.validate().map(|()| config)
        })?;
        self.senders.iter().for_each(MailSender::wake);
        Ok(())
    }
}

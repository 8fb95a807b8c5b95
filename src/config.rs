//! Every setting and every bound of a server, in one place, each with its reason and default.
//!
//! [`Config`] is what an operator chooses; [`Limits`] is what the design chose, kept as values so
//! that a test can make them small. Neither reads arguments nor the environment: the daemon's
//! command line does that. Called by `server.rs`; everything below only reads. The protocol, which stands
//! above and knows no server, is given what it needs of them as a [`ProtocolLimits`].
//!
//! Invariant: after [`Config::validate`] no value is one on which a reactor could stall or grow
//! without bound.
//!
//! Next: `address`: where a server listens. Then `bounds`, `limits`, `origins`, `proxies`, `subprotocols`,
//! `response_fields`, `storage`, `live` and `tls`.

mod address;
pub mod bounds;
mod limits;
mod live;
mod origins;
mod proxies;
mod response_fields;
mod storage;
mod subprotocols;
mod tls;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::thread;
use std::time::Duration;

pub use address::{Address, Inherited, UNIX_PATH_ALLOWED, UnixPath};
pub use limits::Limits;
pub use origins::{AllowedOrigins, ORIGINS_ALLOWED, Origin};
pub use proxies::{PROXIES_ALLOWED, TrustedProxies};
pub use response_fields::{FIELD_ALLOWED, InvalidField, ResponseFields};
pub(crate) use response_fields::{check_value, push_field};
pub use storage::{
    NODE_ALLOWED, REDIS_TIMEOUT, REDIS_TTL_LEAST, STORE_ALLOWED, STORE_PREFIX_ALLOWED,
    StoreLocation, StoreSync,
};
pub use subprotocols::{SUBPROTOCOLS_ALLOWED, Subprotocols};
pub use tls::{CERTFILES_ALLOWED, ClientCertificates, TlsFiles};

use crate::protocol::ProtocolLimits;
pub use crate::protocol::forwarded::ProxyHeaders;
use crate::resp::ServerAddress;

/// Paths that have an answer of their own whatever the settings are, so none of them can be
/// [`Config::ws_path`]. (`/` has one too, and can: a request says which of the two it wants.)
pub(crate) const RESERVED_PATHS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/ws/stats"];

/// Which session ids a client may resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionIds {
    /// Any well-formed id: an unknown one starts a session of that name at 0. What the Django
    /// service does, and what a trusted front end that chooses the ids needs.
    #[default]
    Any,
    /// Only ids that this server issued and still knows; an unknown one is answered with a new
    /// session under a fresh id. A chosen id can be guessed or planted, an issued one cannot.
    Issued,
}

/// How many new sessions an address may make: so many at once, and as many again in each window,
/// one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRate {
    /// How many.
    pub sessions: NonZeroU32,
    /// In what time: from 1 second to a day.
    pub window: Duration,
}

impl SessionRate {
    /// The window where none is said.
    pub const WINDOW: Duration = Duration::from_secs(60);
}

impl fmt::Display for SessionRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sessions, self.window.as_secs_f64())
    }
}

/// Who may see the live page and the figures behind it, which show inner state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageFor {
    /// Peers on the loopback interface or on a Unix socket, under a name that only this machine has.
    #[default]
    Loopback,
    /// Anyone who can reach the port.
    Any,
}

/// What an operator chooses. The defaults are those of the daemon, which took Uvicorn's where it
/// has the option.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen: TCP addresses and Unix sockets, one at least. Default `127.0.0.1:8000`: open
    /// to the machine alone until told otherwise.
    pub listen: Vec<Address>,
    /// Where to listen without TLS, if the addresses of [`Self::listen`] speak it. Default nowhere else.
    pub listen_plain: Vec<Address>,
    /// An address for operators: `/healthz`, `/readyz`, `/metrics` and the live page are there, and no longer
    /// at the addresses of [`Self::listen`]; nothing else is. Default none.
    pub admin: Option<Address>,
    /// Whether the proxies of [`Self::forwarded_allow_ips`] begin each connection with a header of the PROXY
    /// protocol. Default off.
    pub proxy_protocol: bool,
    /// In which field those proxies tell for whom they send a request. Default in none.
    pub proxy_headers: ProxyHeaders,
    /// Whom to believe that. Default this machine: the loopback addresses and Unix sockets.
    pub forwarded_allow_ips: TrustedProxies,
    /// Whether [`Self::admin`] speaks TLS, if it is a TCP address. Default no.
    pub admin_tls: bool,
    /// From which files TLS is made. With a certificate the TCP addresses of [`Self::listen`] speak TLS, and nothing
    /// else; Unix sockets do not. Default none. Only in a build with the cargo feature `tls`.
    pub tls: TlsFiles,
    /// Number of reactors, a thread each. Default: the cores this process may use.
    pub workers: NonZeroUsize,
    /// Connections that the kernel queues for us before they are accepted, per listener.
    /// Default 2048; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Path of the WebSocket endpoint. Default `/ws/chat/`; also answered without its last slash.
    /// At `/` a plain request still gets the live page, if that is for its peer.
    /// One that ends in `/*`, such as `/rooms/*`, takes in all paths below; which of them exist is
    /// for the application to say ([`crate::Application::on_upgrade`]).
    pub ws_path: String,
    /// Largest message in bytes, after reassembly. Default 16 MiB. A larger one closes with 1009.
    pub ws_max_size: usize,
    /// Whether permessage-deflate (RFC 7692) is agreed to where a client offers it. Default off, and
    /// on only in a build with the cargo feature `deflate`: it takes bandwidth off the wire and puts
    /// some 10 µs of CPU on each message that it makes smaller.
    pub ws_per_message_deflate: bool,
    /// Time between pings. Default 20 s; `None` sends none.
    pub ws_ping_interval: Option<Duration>,
    /// Time a pong may take before the connection is closed. Default 20 s; `None` waits for ever.
    pub ws_ping_timeout: Option<Duration>,
    /// From which pages a browser may connect. Default [`AllowedOrigins::Any`].
    pub allowed_origins: AllowedOrigins,
    /// Which subprotocol a WebSocket opens in where the application chooses none. Default
    /// [`Subprotocols::None`].
    pub ws_subprotocols: Subprotocols,
    /// Header fields that every response has, besides its own. Default none.
    pub response_fields: ResponseFields,
    /// How long a session outlives its last connection. Default one hour.
    pub session_ttl: Duration,
    /// Sessions kept without a connection, over all reactors, each of which has an equal share, and
    /// one at least; beyond it the longest detached one leaves. (Sessions with a connection are bounded by the
    /// connections.) Default 1,000,000.
    pub max_sessions: usize,
    /// Which ids may be resumed. Default [`SessionIds::Any`].
    pub session_ids: SessionIds,
    /// Where sessions are stored, so that they outlive the process. Default [`StoreLocation::None`].
    pub store: StoreLocation,
    /// When a stored session is safe from a loss of power, and whether replies wait for that. Default
    /// [`StoreSync::Always`].
    pub store_sync: StoreSync,
    /// How long the store may take to make a change safe. Default 30 s: longer than a busy disk takes. Then the server
    /// ends with an error, as it does when a write or a sync fails: replies cannot be held for ever. With a Redis it
    /// does not end: those who wait are disconnected (1013), and [`REDIS_TIMEOUT`] is a better value.
    pub store_timeout: Duration,
    /// Whether a store that is damaged is repaired: what is behind the damage is given up. Default off: then the server
    /// does not start, and says what a repair would cost. Without a store it means nothing.
    pub store_repair: bool,
    /// What stands before the name of each key and channel in a Redis. Default `revolve:`. Servers with the same one
    /// share their sessions.
    pub store_prefix: String,
    /// Replicas of the Redis that must have what has changed before a reply leaves. Default 0: a failover may lose the
    /// counts of the last moments.
    pub store_replicas: usize,
    /// Whether a server starts without its Redis, and waits for it; upgrades get 503 until it is there. Default on. If
    /// not, it does not start.
    pub store_wait: bool,
    /// The name of this server among those that share a Redis. Default: a random one, another at each start. Two that
    /// run must not have the same: neither would be told when the other takes a session.
    pub node: Option<String>,
    /// The Redis by which workers of Celery or RQ get tasks ([`crate::Context::enqueue`]). Default none. A change to it
    /// at run time changes nothing.
    pub broker: Option<ServerAddress>,
    /// For how long a task waits for the broker to be there; then it is not sent, and whoever has asked is told so.
    /// Default 5 s: a Redis that restarts is back by then.
    pub broker_timeout: Duration,
    /// WebSocket connections at most, over all reactors; beyond it upgrades get 503. Sockets of
    /// every kind are at most twice as many, and some for refusals ([`Limits::socket_margin`]).
    /// Default: no limit but the process's file descriptors.
    pub limit_concurrency: Option<NonZeroUsize>,
    /// Sockets at most from one address, over all reactors, whatever they are used for; beyond it
    /// 429. Default: no limit, for behind a proxy all clients have one address. An IPv4 address
    /// counts alone, of an IPv6 one the first 64 bits.
    pub limit_per_ip: Option<NonZeroUsize>,
    /// New sessions at most from one address, over all reactors; beyond it 429. What counts is an
    /// upgrade that creates a session, not one that finds its own. Addresses count as in
    /// [`Self::limit_per_ip`]. Default: no limit, for stress tools and proxies have one address.
    pub limit_sessions_per_ip: Option<SessionRate>,
    /// Time a request head may take, counted from the accept (or from the previous response) and
    /// not from its last byte. Default 10 s. A slower one gets 408.
    pub timeout_handshake: Duration,
    /// Time that a connection which has had a response may wait for its next request. Default 5 s, as
    /// Uvicorn's. Then it is closed.
    pub timeout_keep_alive: Duration,
    /// Time a drain may take before what is left is cut. Default 10 s.
    pub timeout_graceful_shutdown: Duration,
    /// Over which time a drain spreads its goodbyes, so that not all clients come back in one second. Less than
    /// [`Self::timeout_graceful_shutdown`]. Default 0: as fast as the sockets take them.
    pub drain_over: Duration,
    /// High-water mark in bytes of what waits for one socket. Default 1 MiB. Above it we stop
    /// reading from that peer, and what a timer, a job, a post, another connection or a broadcast sends to
    /// it closes it with 1008. One callback may queue a cork and one message more
    /// ([`crate::Context::send_text`] has the rule).
    pub max_send_buffer: usize,
    /// Threads for what applications off-load ([`crate::Context::offload`]), over all reactors;
    /// none is started before the first job. Default 4: enough to wait for a database, few enough
    /// not to take the cores from the reactors. While each of them is held by a job and others wait, more are
    /// added ([`Limits::offload_threads_extra`]).
    pub offload_threads: NonZeroUsize,
    /// A turn that takes at least this long is counted, and the callback that held it is named in the log.
    /// Default 250 ms, which is longer than a busy machine makes a thread wait, and more than a
    /// callback should ever take; `None` does not look.
    pub slow_turn: Option<Duration>,
    /// Whether each connection's open and close is logged. Default on.
    pub access_log: bool,
    /// Whether `/` is the live page and `/ws/stats` its figures. Default on.
    pub page: bool,
    /// Who may see them. Default [`PageFor::Loopback`].
    pub page_for: PageFor,
    /// Whether `/metrics` answers; if not, it is 404. Default on. The page has some kilobytes a
    /// reactor, for a request of 40 bytes.
    pub metrics: bool,
    /// Bounds that the design chose.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)).into()],
            listen_plain: Vec::new(),
            admin: None,
            proxy_protocol: false,
            proxy_headers: ProxyHeaders::Off,
            forwarded_allow_ips: TrustedProxies::default(),
            admin_tls: false,
            tls: TlsFiles::default(),
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            backlog: 2048,
            ws_path: "/ws/chat/".to_owned(),
            ws_max_size: 16 << 20,
            ws_per_message_deflate: false,
            ws_ping_interval: Some(Duration::from_secs(20)),
            ws_ping_timeout: Some(Duration::from_secs(20)),
            allowed_origins: AllowedOrigins::Any,
            ws_subprotocols: Subprotocols::None,
            response_fields: ResponseFields::default(),
            session_ttl: Duration::from_secs(3600),
            max_sessions: 1_000_000,
            session_ids: SessionIds::Any,
            store: StoreLocation::None,
            store_sync: StoreSync::Always,
            store_timeout: Duration::from_secs(30),
            store_repair: false,
            store_prefix: "revolve:".to_owned(),
            store_replicas: 0,
            store_wait: true,
            node: None,
            broker: None,
            broker_timeout: Duration::from_secs(5),
            limit_concurrency: None,
            limit_per_ip: None,
            limit_sessions_per_ip: None,
            timeout_handshake: Duration::from_secs(10),
            timeout_keep_alive: Duration::from_secs(5),
            timeout_graceful_shutdown: Duration::from_secs(10),
            drain_over: Duration::ZERO,
            max_send_buffer: 1 << 20,
            offload_threads: const { NonZeroUsize::new(4).unwrap() },
            slow_turn: Some(Duration::from_millis(250)),
            access_log: true,
            page: true,
            page_for: PageFor::Loopback,
            metrics: true,
            limits: Limits::default(),
        }
    }
}

/// What [`Config::most_sockets`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MostSockets {
    /// So many are let in.
    pub admitted: usize,
    /// So many are held, with those that are being told that they are too many.
    pub refused: usize,
}

/// A setting out of its bounds: names the option, the value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The field, spelled as the daemon's option without its dashes.
    pub option: &'static str,
    /// The value that was refused.
    pub value: String,
    /// What is allowed, as the end of a sentence.
    pub allowed: &'static str,
}

fn refuse(
    option: &'static str,
    value: &dyn ToString,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    Err(ConfigError { option, value: value.to_string(), allowed })
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}: {:?} is not {}", self.option, self.value, self.allowed)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// How many sessions a reactor keeps without a connection: its share of [`Self::max_sessions`],
    /// and one at least.
    #[must_use]
    pub(crate) fn sessions_of(&self, reactor: usize) -> usize {
        let workers = self.workers.get();
        let share =
            self.max_sessions / workers + usize::from(reactor < self.max_sessions % workers);
        share.max(1)
    }

    /// How many all of them keep: `max_sessions`, or one a reactor if those are more.
    #[must_use]
    pub fn sessions_kept(&self) -> usize {
        self.max_sessions.max(self.workers.get())
    }

    /// Whether this peer is a proxy that may say for whom it speaks.
    #[must_use]
    pub(crate) fn speaks_for_others(&self, peer: Option<IpAddr>) -> bool {
        let is_asked = self.proxy_protocol || self.proxy_headers != ProxyHeaders::Off;
        is_asked && self.forwarded_allow_ips.contain(peer)
    }

    /// How many sockets there may be, if that is bounded: twice as many as WebSockets, because one
    /// that is closing, or has not asked yet, has no place among those; and a margin.
    #[must_use]
    pub fn most_sockets(&self) -> Option<MostSockets> {
        let limit = self.limit_concurrency?;
        let margin = self.limits.socket_margin;
        let admitted = limit.get().saturating_mul(2).saturating_add(margin);
        Some(MostSockets { admitted, refused: admitted.saturating_add(margin) })
    }

    /// Checks every value that a type does not already bound.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_addresses()?;
        self.validate_path()?;
        self.validate_numbers()?;
        self.validate_times()?;
        self.validate_store()?;
        self.tls.validate()?;
        self.limits.validate()
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return refuse("listen", &"", "one address at least");
        }
        for address in &self.listen_plain {
            let option = match address {
                Address::Inherited(_) => "plain-fd",
                Address::Tcp(_) | Address::Unix(_) => "plain-port",
            };
            if !self.tls.is_used() {
                return refuse(option, address, "of use without --ssl-certfile");
            }
            let picks = address.tcp().is_some_and(|address| address.port() == 0);
            if self.listen.contains(address) && !picks {
                return refuse(option, address, "another address than those that speak TLS");
            }
        }
        if self.admin_tls && !(self.tls.is_used() && self.admin.is_some()) {
            return refuse("ssl-admin", &true, "of use without --admin and --ssl-certfile");
        }
        let listen = self.listen.iter().chain(&self.listen_plain).map(|address| ("uds", address));
        for (option, address) in listen.chain(self.admin.iter().map(|address| ("admin", address))) {
            if let Address::Unix(unix) = address
                && !unix.is_valid()
            {
                return refuse(option, unix, UNIX_PATH_ALLOWED);
            }
        }
        Ok(())
    }

    fn validate_path(&self) -> Result<(), ConfigError> {
        let path = &self.ws_path;
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'*');
        // What stands before the asterisk is a whole part of the path.
        let fixed = if path.ends_with("/*") { &path[..path.len() - 1] } else { path };
        let is_path = path.starts_with('/') && fixed.bytes().all(plain);
        if !is_path || !bounds::WS_PATH.range.contains(&path.len()) {
            return refuse("ws-path", path, bounds::WS_PATH.allowed);
        }
        // With a slash behind it too, for that is also answered without.
        if RESERVED_PATHS.contains(&path.strip_suffix('/').unwrap_or(path)) {
            return refuse(
                "ws-path",
                path,
                "free: /healthz, /readyz, /metrics and /ws/stats have answers of their own",
            );
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), ConfigError> {
        bounds::WORKERS.check("workers", self.workers.get())?;
        bounds::OFFLOAD_THREADS.check("offload-threads", self.offload_threads.get())?;
        bounds::BACKLOG.check("backlog", self.backlog as usize)?;
        bounds::WS_MAX_SIZE.check("ws-max-size", self.ws_max_size)?;
        if self.ws_per_message_deflate && !cfg!(feature = "deflate") {
            return refuse(
                "ws-per-message-deflate",
                &self.ws_per_message_deflate,
                "available in this build: it needs the cargo feature \"deflate\"",
            );
        }
        bounds::MAX_SEND_BUFFER.check("max-send-buffer", self.max_send_buffer)?;
        bounds::MAX_SESSIONS.check("max-sessions", self.max_sessions)?;
        if self.allowed_origins == AllowedOrigins::Only(Vec::new()) {
            return refuse("allowed-origins", &"", ORIGINS_ALLOWED);
        }
        if !self.ws_subprotocols.is_valid() {
            return refuse("ws-subprotocols", &self.ws_subprotocols, SUBPROTOCOLS_ALLOWED);
        }
        if !self.response_fields.is_valid() {
            let bytes = self.response_fields.lines().len();
            return refuse("header", &format!("{bytes} bytes"), FIELD_ALLOWED);
        }
        Ok(())
    }

    fn validate_store(&self) -> Result<(), ConfigError> {
        if !self.store.is_valid() {
            return refuse("store", &self.store, STORE_ALLOWED);
        }
        if let StoreSync::Every(time) = self.store_sync
            && !bounds::STORE_SYNC.range.contains(&time)
        {
            return refuse("store-sync", &self.store_sync, bounds::STORE_SYNC.allowed);
        }
        bounds::STORE_TIMEOUT.check("store-timeout", self.store_timeout)?;
        bounds::BROKER_TIMEOUT.check("broker-timeout", self.broker_timeout)?;
        if !storage::is_prefix(&self.store_prefix) {
            return refuse("store-prefix", &self.store_prefix, STORE_PREFIX_ALLOWED);
        }
        if let Some(node) = self.node.as_ref().filter(|node| !storage::is_node(node)) {
            return refuse("node", node, NODE_ALLOWED);
        }
        bounds::STORE_REPLICAS.check("store-replicas", self.store_replicas)?;
        if self.store.is_shared() && self.session_ttl < REDIS_TTL_LEAST {
            let allowed = "at least 10 seconds, which a store in Redis needs";
            return refuse("session-ttl", &self.session_ttl.as_secs_f64(), allowed);
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        if let Some(time) = self.slow_turn
            && !bounds::SLOW_TURN.range.contains(&time)
        {
            return refuse("slow-turn-ms", &time.as_millis(), bounds::SLOW_TURN.allowed);
        }
        for (option, value) in
            [("ws-ping-interval", self.ws_ping_interval), ("ws-ping-timeout", self.ws_ping_timeout)]
        {
            if let Some(value) = value {
                bounds::INTERVAL.check(option, value)?;
            }
        }
        if let Some(rate) = self.limit_sessions_per_ip
            && !bounds::LIMIT_SESSIONS_PER_IP.range.contains(&rate.window)
        {
            let allowed = bounds::LIMIT_SESSIONS_PER_IP.allowed;
            return refuse("limit-sessions-per-ip", &rate, allowed);
        }
        bounds::SESSION_TTL.check("session-ttl", self.session_ttl)?;
        bounds::REQUEST_TIMEOUT.check("timeout-handshake", self.timeout_handshake)?;
        bounds::REQUEST_TIMEOUT.check("timeout-keep-alive", self.timeout_keep_alive)?;
        let drain = self.timeout_graceful_shutdown;
        bounds::UP_TO_A_DAY.check("timeout-graceful-shutdown", drain)?;
        match self.drain_over.is_zero() || self.drain_over < drain {
            true => Ok(()),
            false => refuse("drain-over", &self.drain_over.as_secs_f64(), bounds::DRAIN_OVER),
        }
    }
}

impl From<&Config> for ProtocolLimits {
    /// What the protocol needs of all this.
    fn from(config: &Config) -> ProtocolLimits {
        ProtocolLimits {
            head_bytes: config.limits.head_bytes,
            target_bytes: config.limits.target_bytes,
            message_bytes: config.ws_max_size,
            handshake_timeout: config.timeout_handshake,
            keep_alive_timeout: config.timeout_keep_alive,
            ping_interval: config.ws_ping_interval,
            ping_timeout: config.ws_ping_timeout,
            message_timeout: config.limits.message_timeout,
            close_timeout: config.limits.close_timeout,
            linger: config.limits.linger,
            linger_bytes: config.limits.linger_bytes,
            deflate_bytes_least: config.limits.deflate_bytes_least,
            deflate_windows_most: config.limits.deflate_windows_most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_refusal_names_option_value_and_what_is_allowed() {
        let config = Config { ws_path: "chat".to_owned(), ..Config::default() };
        let line = config.validate().unwrap_err().to_string();
        assert!(line.starts_with("--ws-path: \"chat\" is not a path"), "{line}");
    }

    #[test]
    fn an_asterisk_stands_for_the_rest_of_a_path() {
        let is_valid = |path: &str| {
            Config { ws_path: path.to_owned(), ..Config::default() }.validate().is_ok()
        };
        for path in ["/", "/*", "/rooms/*", "/a"] {
            assert!(is_valid(path), "{path}");
        }
        for path in ["*", "/rooms*", "/*/rooms", "/rooms/**", ""] {
            assert!(!is_valid(path), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_taken_is_not_the_websockets() {
        for path in RESERVED_PATHS {
            for path in [path.to_owned(), format!("{path}/")] {
                let config = Config { ws_path: path.clone(), ..Config::default() };
                let line = config.validate().unwrap_err().to_string();
                assert!(line.contains(&format!("{path:?} is not free: ")), "{line}");
                assert!(RESERVED_PATHS.iter().all(|path| line.contains(path)), "{line}");
            }
            // These hide nothing.
            for path in [format!("{path}/*"), format!("{path}/x"), format!("{path}x")] {
                assert!(Config { ws_path: path, ..Config::default() }.validate().is_ok());
            }
        }
    }

    #[test]
    fn the_shares_of_sessions_are_as_many_as_are_kept() {
        for (max_sessions, workers, kept) in
            [(1, 1, 1), (1, 2, 2), (5, 2, 5), (7, 3, 7), (2, 5, 5), (1_000_000, 3, 1_000_000)]
        {
            let workers = NonZeroUsize::new(workers).unwrap();
            let config = Config { max_sessions, workers, ..Config::default() };
            let shares = (0..workers.get()).map(|reactor| config.sessions_of(reactor));
            assert_eq!(shares.clone().sum::<usize>(), kept);
            assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1, "equal shares");
            assert_eq!(config.sessions_kept(), kept);
        }
    }

    #[test]
    fn names_in_a_store_have_bounds() {
        let shared =
            || Config { store: StoreLocation::parse("redis://host").unwrap(), ..Config::default() };
        assert_eq!(shared().validate(), Ok(()));
        let node = |text: &str| Some(text.to_owned());
        let prefix = |text: &str| text.to_owned();
        for (config, option) in [
            (Config { node: node(""), ..shared() }, "node"),
            (Config { node: node("a b"), ..shared() }, "node"),
            (Config { node: node(&"n".repeat(65)), ..shared() }, "node"),
            (Config { store_prefix: prefix("a b"), ..shared() }, "store-prefix"),
            (Config { store_prefix: "p".repeat(65), ..shared() }, "store-prefix"),
            (Config { store_replicas: 17, ..shared() }, "store-replicas"),
            (Config { session_ttl: Duration::from_secs(9), ..shared() }, "session-ttl"),
        ] {
            assert_eq!(config.validate().unwrap_err().option, option);
        }
        let config = Config { node: node("web-1.eu"), store_prefix: prefix(""), ..shared() };
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn zero_never_means_unlimited() {
        for config in [
            Config { ws_max_size: 0, ..Config::default() },
            Config { max_send_buffer: 0, ..Config::default() },
            Config { max_sessions: 0, ..Config::default() },
            Config { timeout_handshake: Duration::ZERO, ..Config::default() },
            Config { timeout_keep_alive: Duration::ZERO, ..Config::default() },
            Config { store_timeout: Duration::ZERO, ..Config::default() },
            Config { store_sync: StoreSync::Every(Duration::ZERO), ..Config::default() },
            Config { allowed_origins: AllowedOrigins::Only(vec![]), ..Config::default() },
            Config { listen: Vec::new(), ..Config::default() },
            Config {
                listen: vec![UnixPath { path: "s".into(), mode: Some(0o1000) }.into()],
                ..Config::default()
            },
        ] {
            assert!(config.validate().is_err());
        }
    }
}

//! What the program says of itself at its start: what was started, where, within what limits, how to stop it.
//!
//! Makes lines and logs none: `main.rs` does, and prints the same for `--check-config`. Knows of the machine
//! what it is told.
//!
//! Next: `reloading`: settings that change while it runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use log::Level;
use revolve::config::{Address, AllowedOrigins, Config, Origin, PageFor, SessionIds};
use revolve::memory::{Bytes, Fitting, MemoryBound};
use revolve::{StoreLocation, StoreSync};

use super::arguments::{App, seconds};
use super::shortages::{Machine, shortages};

/// What is to be introduced.
pub(crate) struct Introduction<'a> {
    pub(crate) config: &'a Config,
    pub(crate) app: App,
    pub(crate) heartbeat: Option<Duration>,
    /// Where it listens, without TLS beside that, and for operators.
    pub(crate) listening: &'a [Address],
    pub(crate) plain: &'a [Address],
    pub(crate) admin: Option<&'a Address>,
    pub(crate) machine: &'a Machine,
}

impl Introduction<'_> {
    /// The lines, each with its level.
    pub(crate) fn lines(&self) -> Vec<(Level, String)> {
        let config = self.config;
        let mut lines = Lines { config, lines: Vec::new() };
        let reactors = plural(config.workers.get(), "reactor");
        let app = match (self.app, self.heartbeat) {
            (App::Counter, Some(time)) => {
                format!("counter with a heartbeat every {} s", seconds(time))
            }
            (App::Counter, None) => "counter without heartbeat".to_owned(),
            (App::Echo, _) => "echo".to_owned(),
            (App::Tasks, _) => "tasks for workers".to_owned(),
        };
        lines.info(format!("revolve {}: {reactors}, {app}", env!("CARGO_PKG_VERSION")));
        let speaks_tls = config.tls.is_used();
        for address in self.listening {
            lines.tell_address(address, speaks_tls);
        }
        for address in self.plain {
            lines.tell_address(address, false);
        }
        if let Some(address) = self.admin {
            let speaks_tls = config.admin_tls && address.tcp().is_some();
            let over = if speaks_tls { " over TLS" } else { "" };
            lines.info(format!("admin on {address}{over}: {}", own_paths(config)));
            lines.tell_page(address, scheme(speaks_tls, "http"));
        }
        lines.tell_limits();
        lines.tell_store();
        lines.tell_broker();
        lines.tell_origins();
        lines.tell_memory_bound(self.machine);
        let listening = [self.listening, self.plain].concat();
        for shortage in shortages(config, &listening, self.machine) {
            lines.warn(shortage);
        }
        lines.info(format!(
            "to stop: Ctrl-C or SIGTERM, which drains for at most {} s; a second one ends at once",
            seconds(config.timeout_graceful_shutdown)
        ));
        lines.lines
    }
}

struct Lines<'a> {
    config: &'a Config,
    lines: Vec<(Level, String)>,
}

impl Lines<'_> {
    fn info(&mut self, line: impl Into<String>) {
        self.lines.push((Level::Info, line.into()));
    }

    fn warn(&mut self, line: impl Into<String>) {
        self.lines.push((Level::Warn, line.into()));
    }

    /// What is at an address.
    fn tell_address(&mut self, bound: &Address, speaks_tls: bool) {
        let config = self.config;
        let websocket = match bound.tcp().map(reachable) {
            Some(near) => format!("{}://{near}{}", scheme(speaks_tls, "ws"), config.ws_path),
            None => format!("WebSockets at {}", config.ws_path),
        };
        if config.admin.is_some() {
            return self.info(format!("listening on {bound}: {websocket}"));
        }
        self.info(format!("listening on {bound}: {websocket} (also {})", own_paths(config)));
        self.tell_page(bound, scheme(speaks_tls, "http"));
    }

    /// Where the live page is, and for whom.
    fn tell_page(&mut self, bound: &Address, scheme: &str) {
        let config = self.config;
        let near = bound.tcp().map(reachable);
        let page = match near {
            Some(near) => format!("{scheme}://{near}/"),
            None => format!("/ on {bound}"),
        };
        match (config.page, config.page_for) {
            (false, _) => {}
            (true, PageFor::Any) => {
                self.info(format!("live page: {page} (for anyone: --page-for any)"));
            }
            (true, PageFor::Loopback) if near.is_none_or(|near| near.ip().is_loopback()) => {
                self.info(format!("live page: {page} (for this machine alone)"));
            }
            // Nobody reaches such an address from a loopback one.
            (true, PageFor::Loopback) => {
                self.info("live page: not on this address unless --page-for any");
            }
        }
    }

    fn tell_limits(&mut self) {
        let config = self.config;
        if config.ws_per_message_deflate {
            self.info("permessage-deflate: agreed to where a client offers it");
        }
        let sessions = match config.session_ids {
            SessionIds::Any => "under any id",
            SessionIds::Issued => "under issued ids only",
        };
        let connections = match config.limit_concurrency {
            Some(limit) => format!("at most {}", plural(limit.get(), "connection")),
            None => "connections unlimited".to_owned(),
        };
        self.info(format!(
            "limits: messages {} bytes, send buffer {} bytes, {connections}, {} for {} s {sessions}",
            config.ws_max_size,
            config.max_send_buffer,
            plural(config.sessions_kept(), "session"),
            seconds(config.session_ttl),
        ));
    }

    /// Where sessions are stored, and what that promises.
    fn tell_store(&mut self) {
        let config = self.config;
        if config.store.is_shared() {
            self.info(format!(
                "sessions: stored in {}; a reply leaves when its session is there",
                config.store
            ));
        } else if config.store != StoreLocation::None {
            let promise = match config.store_sync {
                StoreSync::Always => "a reply leaves when its session is on the disk".to_owned(),
                StoreSync::Every(time) => {
                    format!(
                        "sessions are on the disk at most {} ms after they are written",
                        time.as_millis()
                    )
                }
            };
            self.info(format!("sessions: stored in {}; {promise}", config.store));
        }
    }

    fn tell_broker(&mut self) {
        if let Some(broker) = &self.config.broker {
            self.info(format!("tasks: workers take them from {broker}"));
        }
    }

    fn tell_origins(&mut self) {
        match &self.config.allowed_origins {
            AllowedOrigins::Any => self.info(
                "origins: pages of any site may connect; --allowed-origins names those that may",
            ),
            AllowedOrigins::Only(origins) => {
                let origins: Vec<_> = origins.iter().map(Origin::to_string).collect();
                let origins = origins.join(", ");
                self.info(format!("origins: pages of {origins} may connect, of others not"));
            }
        }
    }

    /// The most memory that connections and sessions can take; a warning if the machine has less.
    fn tell_memory_bound(&mut self, machine: &Machine) {
        let config = self.config;
        let Some(bound) = MemoryBound::of::<()>(config, machine.descriptors) else {
            return self.info(
                "memory: without a bound, as connections have none; --limit-concurrency sets one",
            );
        };
        self.info(format!(
            "memory: connections and sessions take at most {bound}; less with a lower --ws-max-size, \
             --max-send-buffer, --limit-concurrency or --max-sessions"
        ));
        if let Some(warning) = memory_shortage(config, machine) {
            self.warn(format!("memory: {warning}"));
        }
    }
}

/// That the machine has less memory than connections and sessions can take, if it is so.
fn memory_shortage(config: &Config, machine: &Machine) -> Option<String> {
    let bound = MemoryBound::of::<()>(config, machine.descriptors)?;
    let available = machine.memory.filter(|available| bound.total() > available.bytes)?;
    Some(format!(
        "that is more than the {} of {}: {}",
        Bytes(available.bytes),
        available.of,
        advice(config, machine.descriptors, available.bytes)
    ))
}

/// What there is too little of, for settings that a server has got while it runs.
pub(crate) fn new_shortages(
    (before, now): (&Config, &Config),
    listening: &[Address],
    machine: &Machine,
) -> Vec<String> {
    let all = |config: &Config| {
        let bound = MemoryBound::of::<()>(config, machine.descriptors);
        let memory = memory_shortage(config, machine).zip(bound);
        let memory = memory.map(|(line, bound)| format!("memory: now at most {bound}; {line}"));
        let mut lines = shortages(config, listening, machine);
        lines.extend(memory);
        lines
    };
    let known = all(before);
    all(now).into_iter().filter(|line| !known.contains(line)).collect()
}

/// `wss` for `ws` and `https` for `http`, at an address that speaks TLS.
fn scheme(speaks_tls: bool, plain: &'static str) -> &'static str {
    match (speaks_tls, plain) {
        (false, plain) => plain,
        (true, "ws") => "wss",
        (true, _) => "https",
    }
}

/// The paths that have an answer of the server's own, but for the page's.
fn own_paths(config: &Config) -> &'static str {
    if config.metrics { "/healthz, /readyz, /metrics" } else { "/healthz, /readyz" }
}

/// A number of things, in words.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The address as this machine can reach it: "every interface" is none to connect to.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// The options with which the bound on memory would fit into so many bytes.
fn advice(config: &Config, descriptors: Option<usize>, room: usize) -> String {
    let without_sessions = Config { max_sessions: 1, ..config.clone() };
    let fitting = Fitting::into::<()>(config, descriptors, room);
    let Some(Fitting { limit_concurrency, bytes }) = fitting else {
        return match Fitting::into::<()>(&without_sessions, descriptors, room) {
            Some(_) => "a lower --max-sessions is needed",
            None => "fewer --workers and a lower --limit-concurrency are needed",
        }
        .to_owned();
    };
    let mut options = String::new();
    if config.limit_concurrency.is_none_or(|limit| limit.get() != limit_concurrency) {
        options = format!("--limit-concurrency {limit_concurrency} ");
    }
    for (name, value) in
        [("ws-max-size", config.ws_max_size), ("max-send-buffer", config.max_send_buffer)]
    {
        if let Some(bytes) = bytes.filter(|&bytes| bytes < value) {
            options.push_str(&format!("--{name} {bytes} "));
        }
    }
    format!("{options}would fit")
}

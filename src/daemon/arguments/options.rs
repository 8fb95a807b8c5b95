//! The table of options: what can be set, under which name, to which values, and how each is shown.
//!
//! Reads no argument and no variable, and says nothing by itself. Called by `usage` for the help and the
//! errors, and by `given` to set what was given.
//!
//! Invariant: [`OPTIONS`] is the only list of options. Parsing, the environment, `--help` and the
//! errors are all drawn from it; defaults come from [`Settings::default`].
//!
//! Next: `toml`: the part of TOML that a file of them has.

use std::time::Duration;

use revolve::config::{
    Address, AllowedOrigins, FIELD_ALLOWED, NODE_ALLOWED, ORIGINS_ALLOWED, Origin, STORE_ALLOWED,
    STORE_PREFIX_ALLOWED, SUBPROTOCOLS_ALLOWED, StoreLocation, Subprotocols, UNIX_PATH_ALLOWED,
    UnixPath, bounds,
};

use super::proxies;
use super::row::{Live, NotAllowed, Row, TRUTHS, Takes, store};
use super::settings::{APPS, FORMATS, LEVELS, PAGE_FOR, SESSION_IDS};
use super::ssl;
use super::tasks;
use super::values::{
    Host, PASSED_ALLOWED, admin, hosts, meant, node, number, origins, passed, path, seconds,
    session_rate, show_passed, show_time_or_off, store_sync, time, time_or_auto, time_or_off,
    word_for, words,
};

const ADMIN_ALLOWED: &str = "an address with a port such as 127.0.0.1:9000, or unix: and a path such as unix:/run/admin.sock:600";
const HOSTS_ALLOWED: &str = "a list of IP addresses and names such as 127.0.0.1,::1,localhost";
const INTERVAL: Takes = Takes::Value("SECS", bounds::INTERVAL.allowed);

/// All of them, as the help lists them.
pub(super) static OPTIONS: &[Row] = &[
    Row {
        group: "Configuration",
        name: "config",
        takes: Takes::Value("FILE", "a path"),
        about: "Options in TOML, named as here; flags and variables win over it",
        live: Live::No,
        set: |s, text| store(&mut s.config_file, path(text).map(Some)),
        show: |s| s.config_file.as_ref().map_or("none".to_owned(), |p| p.display().to_string()),
    },
    Row {
        group: "Listening",
        name: "host",
        takes: Takes::Values("HOST", HOSTS_ALLOWED),
        about: "Addresses or names to listen on; also given several times. 0.0.0.0 is all IPv4 \
                addresses, :: all of both families",
        live: Live::No,
        set: |s, text| {
            s.hosts.extend(hosts(text).ok_or(NotAllowed)?);
            Ok(())
        },
        show: |s| match &s.hosts[..] {
            [] => "127.0.0.1".to_owned(),
            hosts => hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(","),
        },
    },
    Row {
        group: "Listening",
        name: "port",
        takes: Takes::Value("N", "a number from 0 to 65535"),
        about: "Port of all hosts; 0 picks a free one and prints it",
        live: Live::No,
        set: |s, text| store(&mut s.port, number(text)),
        show: |s| s.port.to_string(),
    },
    Row {
        group: "Listening",
        name: "uds",
        takes: Takes::Value("PATH[:MODE]", UNIX_PATH_ALLOWED),
        about: "Unix socket to listen on, instead of host and port",
        live: Live::No,
        set: |s, text| store(&mut s.uds, UnixPath::parse(text).map(Some)),
        show: |s| s.uds.as_ref().map_or("none".to_owned(), UnixPath::to_string),
    },
    Row {
        group: "Listening",
        name: "fd",
        takes: Takes::Values("N", PASSED_ALLOWED),
        about: "Listen on sockets that were passed: 0, or of LISTEN_FDS by number or name",
        live: Live::No,
        set: |s, text| {
            s.passed.extend(passed(text).ok_or(NotAllowed)?);
            Ok(())
        },
        show: |s| show_passed(&s.passed),
    },
    Row {
        group: "Listening",
        name: "admin",
        takes: Takes::Value("ADDRESS", ADMIN_ALLOWED),
        about: "/healthz, /readyz, /metrics and the page are there, and nowhere else",
        live: Live::No,
        set: |s, text| store(&mut s.config.admin, admin(text).map(Some)),
        show: |s| match &s.config.admin {
            None => "none".to_owned(),
            Some(Address::Unix(path)) => format!("unix:{path}"),
            Some(address) => address.to_string(),
        },
    },
    Row {
        group: "Listening",
        name: "workers",
        takes: Takes::Value("N", bounds::WORKERS.allowed),
        about: "Reactors, a thread each; if not given, one a core",
        live: Live::No,
        set: |s, text| store(&mut s.config.workers, number(text)),
        show: |s| s.config.workers.to_string(),
    },
    Row {
        group: "Listening",
        name: "backlog",
        takes: Takes::Value("N", bounds::BACKLOG.allowed),
        about: "Connections waiting to be accepted",
        live: Live::No,
        set: |s, text| store(&mut s.config.backlog, number(text)),
        show: |s| s.config.backlog.to_string(),
    },
    ssl::CERTFILE,
    ssl::KEYFILE,
    ssl::CA_CERTS,
    ssl::CERT_REQS,
    ssl::PLAIN_PORT,
    ssl::PLAIN_FD,
    ssl::ADMIN,
    Row {
        group: "WebSocket",
        name: "ws-path",
        takes: Takes::Value("PATH", bounds::WS_PATH.allowed),
        about: "Its path; / shares with the page, /* takes in all below",
        live: Live::No,
        set: |s, text| store(&mut s.config.ws_path, Some(text.to_owned())),
        show: |s| s.config.ws_path.clone(),
    },
    Row {
        group: "WebSocket",
        name: "ws-max-size",
        takes: Takes::Value("BYTES", bounds::WS_MAX_SIZE.allowed),
        about: "Largest message; a larger one gets 1009",
        live: Live::No,
        set: |s, text| store(&mut s.config.ws_max_size, number(text)),
        show: |s| s.config.ws_max_size.to_string(),
    },
    Row {
        group: "WebSocket",
        name: "ws-per-message-deflate",
        takes: Takes::Truth,
        about: "Compress: less bandwidth, more CPU (needs the cargo feature deflate)",
        live: Live::No,
        set: |s, text| store(&mut s.config.ws_per_message_deflate, meant(&TRUTHS, text)),
        show: |s| s.config.ws_per_message_deflate.to_string(),
    },
    Row {
        group: "WebSocket",
        name: "ws-ping-interval",
        takes: INTERVAL,
        about: "Time between pings; 0 sends none",
        live: Live::No,
        set: |s, text| store(&mut s.config.ws_ping_interval, time_or_off(text)),
        show: |s| show_time_or_off(s.config.ws_ping_interval),
    },
    Row {
        group: "WebSocket",
        name: "ws-ping-timeout",
        takes: INTERVAL,
        about: "Time a pong may take; 0 waits for ever",
        live: Live::No,
        set: |s, text| store(&mut s.config.ws_ping_timeout, time_or_off(text)),
        show: |s| show_time_or_off(s.config.ws_ping_timeout),
    },
    Row {
        group: "WebSocket",
        name: "allowed-origins",
        takes: Takes::Value("LIST", ORIGINS_ALLOWED),
        about: "Pages that may connect; others get 403",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.allowed_origins, origins(text)),
        show: |s| match &s.config.allowed_origins {
            AllowedOrigins::Any => "any".to_owned(),
            AllowedOrigins::Only(these) => {
                these.iter().map(Origin::to_string).collect::<Vec<_>>().join(",")
            }
        },
    },
    Row {
        group: "WebSocket",
        name: "ws-subprotocols",
        takes: Takes::Value("LIST", SUBPROTOCOLS_ALLOWED),
        about: "The first of these that a client offers, or any",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.ws_subprotocols, Subprotocols::parse(text)),
        show: |s| s.config.ws_subprotocols.to_string(),
    },
    Row {
        group: "Application",
        name: "app",
        takes: Takes::Word { of: &words(&APPS) },
        about: "Count each session's messages, or echo",
        live: Live::No,
        set: |s, text| store(&mut s.app, meant(&APPS, text)),
        show: |s| word_for(&APPS, s.app),
    },
    Row {
        group: "Application",
        name: "heartbeat",
        takes: INTERVAL,
        about: "Time between timestamps; 0 sends none",
        live: Live::No,
        // Config does not know this one, so its bounds are checked here.
        set: |s, text| {
            let bounded =
                |time: &Option<_>| time.is_none_or(|t| bounds::INTERVAL.range.contains(&t));
            store(&mut s.heartbeat, time_or_off(text).filter(bounded))
        },
        show: |s| show_time_or_off(s.heartbeat),
    },
    Row {
        group: "Application",
        name: "offload-threads",
        takes: Takes::Value("N", bounds::OFFLOAD_THREADS.allowed),
        about: "Threads for off-loaded work, at first use",
        live: Live::No,
        set: |s, text| store(&mut s.config.offload_threads, number(text)),
        show: |s| s.config.offload_threads.to_string(),
    },
    Row {
        group: "Application",
        name: "slow-turn-ms",
        takes: Takes::Value("N", bounds::SLOW_TURN.allowed),
        about: "A turn as long as this is explained; 0 is off",
        live: Live::No,
        set: |s, text| {
            let time = number(text).map(Duration::from_millis);
            store(&mut s.config.slow_turn, time.map(|t| (!t.is_zero()).then_some(t)))
        },
        show: |s| s.config.slow_turn.map_or(0, |time| time.as_millis()).to_string(),
    },
    Row {
        group: "Sessions",
        name: "session-ids",
        takes: Takes::Word { of: &words(&SESSION_IDS) },
        about: "Resume any id, or only ids we issued",
        live: Live::No,
        set: |s, text| store(&mut s.config.session_ids, meant(&SESSION_IDS, text)),
        show: |s| word_for(&SESSION_IDS, s.config.session_ids),
    },
    Row {
        group: "Sessions",
        name: "session-ttl",
        takes: Takes::Value("SECS", bounds::SESSION_TTL.allowed),
        about: "Time a session outlives its connection",
        live: Live::No,
        set: |s, text| store(&mut s.config.session_ttl, time(text)),
        show: |s| seconds(s.config.session_ttl),
    },
    Row {
        group: "Sessions",
        name: "max-sessions",
        takes: Takes::Value("N", bounds::MAX_SESSIONS.allowed),
        about: "Sessions kept; then the longest away goes",
        live: Live::No,
        set: |s, text| store(&mut s.config.max_sessions, number(text)),
        show: |s| s.config.max_sessions.to_string(),
    },
    Row {
        group: "Sessions",
        name: "store",
        takes: Takes::Value("WHERE", STORE_ALLOWED),
        about: "Keep sessions across restarts, in this directory, or in a Redis that servers share",
        live: Live::No,
        set: |s, text| store(&mut s.config.store, StoreLocation::parse(text)),
        show: |s| s.config.store.to_string(),
    },
    Row {
        group: "Sessions",
        name: "store-sync",
        takes: Takes::Value("always|MS", bounds::STORE_SYNC.allowed),
        about: "When they are on the disk: before the reply, or so many milliseconds after it",
        live: Live::No,
        set: |s, text| store(&mut s.config.store_sync, store_sync(text)),
        show: |s| s.config.store_sync.to_string(),
    },
    Row {
        group: "Sessions",
        name: "store-timeout",
        takes: Takes::Value("auto|SECS", bounds::STORE_TIMEOUT.allowed),
        about: "Time the disk may take; then the server ends. Time Redis may take. auto: 30, Redis 2",
        live: Live::No,
        set: |s, text| store(&mut s.store_timeout, time_or_auto(text)),
        show: |s| s.store_timeout.map_or("auto".to_owned(), seconds),
    },
    Row {
        group: "Sessions",
        name: "store-repair",
        takes: Takes::Truth,
        about: "Give up what is damaged of the store, and start",
        live: Live::No,
        set: |s, text| store(&mut s.config.store_repair, meant(&TRUTHS, text)),
        show: |s| s.config.store_repair.to_string(),
    },
    Row {
        group: "Sessions",
        name: "store-wait",
        takes: Takes::Truth,
        about: "Start without Redis, and wait for it",
        live: Live::No,
        set: |s, text| store(&mut s.config.store_wait, meant(&TRUTHS, text)),
        show: |s| s.config.store_wait.to_string(),
    },
    Row {
        group: "Sessions",
        name: "store-prefix",
        takes: Takes::Value("TEXT", STORE_PREFIX_ALLOWED),
        about: "What keys in Redis begin with; servers with the same share sessions",
        live: Live::No,
        set: |s, text| store(&mut s.config.store_prefix, Some(text.to_owned())),
        show: |s| s.config.store_prefix.clone(),
    },
    Row {
        group: "Sessions",
        name: "store-replicas",
        takes: Takes::Value("N", bounds::STORE_REPLICAS.allowed),
        about: "Replicas of Redis that must have a count before its reply leaves",
        live: Live::No,
        set: |s, text| store(&mut s.config.store_replicas, number(text)),
        show: |s| s.config.store_replicas.to_string(),
    },
    Row {
        group: "Sessions",
        name: "node",
        takes: Takes::Value("NAME", NODE_ALLOWED),
        about: "Name of this server among those that share a Redis",
        live: Live::No,
        set: |s, text| store(&mut s.config.node, Some(node(text))),
        show: |s| s.config.node.clone().unwrap_or("random".to_owned()),
    },
    tasks::BROKER,
    tasks::BROKER_TIMEOUT,
    tasks::NAMES,
    tasks::WORKERS,
    tasks::QUEUE,
    tasks::TIMEOUT,
    Row {
        group: "Limits",
        name: "limit-concurrency",
        takes: Takes::Value("N", "a number of at least 1"),
        about: "Connections at most; beyond it 503",
        live: Live::WhereSet,
        set: |s, text| store(&mut s.config.limit_concurrency, number(text).map(Some)),
        show: |s| s.config.limit_concurrency.map_or("none".to_owned(), |n| n.to_string()),
    },
    Row {
        group: "Limits",
        name: "limit-per-ip",
        takes: Takes::Value("N", "a number of at least 1"),
        about: "Sockets at most from an address; beyond it 429",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.limit_per_ip, number(text).map(Some)),
        show: |s| s.config.limit_per_ip.map_or("none".to_owned(), |n| n.to_string()),
    },
    Row {
        group: "Limits",
        name: "limit-sessions-per-ip",
        takes: Takes::Value("N[/SECS]", bounds::LIMIT_SESSIONS_PER_IP.allowed),
        about: "New sessions at most from an address in so many seconds (60 if not said); beyond \
                it 429",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.limit_sessions_per_ip, session_rate(text).map(Some)),
        show: |s| s.config.limit_sessions_per_ip.map_or("none".to_owned(), |r| r.to_string()),
    },
    Row {
        group: "Limits",
        name: "timeout-handshake",
        takes: Takes::Value("SECS", bounds::REQUEST_TIMEOUT.allowed),
        about: "Time a request head may take; then 408",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.timeout_handshake, time(text)),
        show: |s| seconds(s.config.timeout_handshake),
    },
    Row {
        group: "Limits",
        name: "timeout-keep-alive",
        takes: Takes::Value("SECS", bounds::REQUEST_TIMEOUT.allowed),
        about: "Time from a response to the next request",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.timeout_keep_alive, time(text)),
        show: |s| seconds(s.config.timeout_keep_alive),
    },
    Row {
        group: "Limits",
        name: "max-send-buffer",
        takes: Takes::Value("BYTES", bounds::MAX_SEND_BUFFER.allowed),
        about: "Unsent bytes before we stop reading",
        live: Live::No,
        set: |s, text| store(&mut s.config.max_send_buffer, number(text)),
        show: |s| s.config.max_send_buffer.to_string(),
    },
    proxies::PROTOCOL,
    proxies::HEADERS,
    proxies::ALLOWED_IPS,
    Row {
        group: "Pages",
        name: "page",
        takes: Takes::Nothing,
        about: "A client and the reactors, live, at /",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.page, meant(&TRUTHS, text)),
        show: |s| if s.config.page { "on" } else { "off" }.to_owned(),
    },
    Row {
        group: "Pages",
        name: "page-for",
        takes: Takes::Word { of: &words(&PAGE_FOR) },
        about: "Who may see it: it shows inner state",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.page_for, meant(&PAGE_FOR, text)),
        show: |s| word_for(&PAGE_FOR, s.config.page_for),
    },
    Row {
        group: "Pages",
        name: "metrics",
        takes: Takes::Nothing,
        about: "Prometheus text at /metrics; without it 404",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.metrics, meant(&TRUTHS, text)),
        show: |s| if s.config.metrics { "on" } else { "off" }.to_owned(),
    },
    Row {
        group: "Pages",
        name: "header",
        takes: Takes::Values("NAME:VALUE", FIELD_ALLOWED),
        about: "A header field of every response; also given several times",
        live: Live::Yes,
        set: |s, text| s.config.response_fields.add_line(text).map_err(|_| NotAllowed),
        show: |s| s.config.response_fields.to_string(),
    },
    Row {
        group: "Stopping",
        name: "timeout-graceful-shutdown",
        takes: Takes::Value("SECS", bounds::UP_TO_A_DAY.allowed),
        about: "Time a drain may take; then the rest is cut",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.timeout_graceful_shutdown, time(text)),
        show: |s| seconds(s.config.timeout_graceful_shutdown),
    },
    Row {
        group: "Stopping",
        name: "drain-over",
        takes: Takes::Value("SECS", bounds::DRAIN_OVER),
        about: "Time over which its goodbyes are spread",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.drain_over, time(text)),
        show: |s| seconds(s.config.drain_over),
    },
    Row {
        group: "Logging",
        name: "log-level",
        takes: Takes::Word { of: &words(&LEVELS) },
        about: "Least level that is logged",
        live: Live::Yes,
        set: |s, text| store(&mut s.log_level, meant(&LEVELS, text)),
        show: |s| word_for(&LEVELS, s.log_level),
    },
    Row {
        group: "Logging",
        name: "log-format",
        takes: Takes::Word { of: &words(&FORMATS) },
        about: "For people, or one object a line",
        live: Live::No,
        set: |s, text| store(&mut s.log_format, meant(&FORMATS, text)),
        show: |s| word_for(&FORMATS, s.log_format),
    },
    Row {
        group: "Logging",
        name: "log-file",
        takes: Takes::Value("PATH", "a path"),
        about: "File to log to, instead of stderr; SIGHUP opens it anew",
        live: Live::WhereSet,
        set: |s, text| store(&mut s.log_file, path(text).map(Some)),
        show: |s| s.log_file.as_ref().map_or("none".to_owned(), |p| p.display().to_string()),
    },
    Row {
        group: "Logging",
        name: "access-log",
        takes: Takes::Nothing,
        about: "A line at each connection's open and close",
        live: Live::Yes,
        set: |s, text| store(&mut s.config.access_log, meant(&TRUTHS, text)),
        show: |s| if s.config.access_log { "on" } else { "off" }.to_owned(),
    },
];

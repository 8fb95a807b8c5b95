//! The `revolve` program: the library's server with a command line, signals and a log.
//!
//! It decides nothing about connections, sessions or protocols. The operating system calls it.
//!
//! Invariant: every way out has an exit code of its own. 0: served and drained, or printed what was
//! asked for. 1: the environment, a store that failed, or a dead reactor. 2: usage. 128 + n: signal n, when it came a second
//! time.
//!
//! Next: `daemon`: its parts.

mod daemon;

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use revolve::config::{Address, AllowedOrigins, Config, Origin, PageFor, SessionIds};
use revolve::memory::{Bytes, Fitting, MemoryBound};
use revolve::{
    Application, Certificates, Counter, Echo, ReactorStart, ServeError, Server, ServerHandle,
    ShutdownTrigger, StoreLocation, StoreSync, check_store, dump_store,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use daemon::arguments::{App, Command, LookAtStore, Settings, seconds};
use daemon::logger::{FLUSH_TIMEOUT, Format, LogQueue};

/// Served, drained, printed.
const DONE: u8 = 0;
/// What we were run in does not allow it, or a reactor died.
const FAILED: u8 = 1;
/// The command line does not allow it.
const MISUSED: u8 = 2;

/// Signals closer together than this are one stroke: GNU `timeout` and process supervisors send
/// one to the process and one to its group, a terminal and a wrapper both pass on a Ctrl-C.
const ONE_STROKE: Duration = Duration::from_millis(50);

/// What we listen to. The first two end us. The others would by default, and some tools send them to
/// a service to have it load its settings or open its log anew: we have nothing of either.
const SIGNALS: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];

/// What "at once" leaves for lines already logged.
const LAST_FLUSH: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let status = match daemon::arguments::parse(env::args_os().skip(1), env::vars_os()) {
        Ok(Command::Run(settings)) => run(*settings),
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Look(what, directory)) => look_at_store(what, &directory),
        Err(error) => refuse(Format::Text, &error, MISUSED),
    };
    ExitCode::from(status)
}

/// To stdout. A reader who has had enough (`revolve --help | head -1`) is no failure.
fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            refuse(Format::Text, &format!("cannot write to stdout: {error}"), FAILED)
        }
        _ => DONE,
    }
}

/// One line that says why there is no server: for a person, unless the log is for programs.
fn refuse(format: Format, why: &dyn Display, status: u8) -> u8 {
    match format {
        // A stderr that is gone cannot be told about.
        Format::Text => writeln!(io::stderr(), "revolve: {why}").unwrap_or_default(),
        Format::Json => log::error!("{why}"),
    }
    status
}

/// What is found goes to stdout; why there is nothing, or that something is damaged, to stderr.
fn look_at_store(what: LookAtStore, directory: &Path) -> u8 {
    let failed = |why: &dyn Display| refuse(Format::Text, why, FAILED);
    match what {
        LookAtStore::Check => match check_store(directory) {
            Ok(check) if check.is_damaged() => failed(&check),
            Ok(check) => print(&format!("{check}\n")),
            Err(error) => failed(&error),
        },
        LookAtStore::Dump => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            match dump_store(directory, &mut out) {
                Ok(None) => DONE,
                Ok(Some(damage)) => failed(&damage),
                Err(error) => failed(&error),
            }
        }
    }
}

fn run(settings: Settings) -> u8 {
    // Before anything is opened that could be taken for one of them, and before there is a second thread.
    let passed = daemon::passed::Passed::from_environment();
    let descriptors = daemon::inherited::raise_descriptor_limit();
    let log = match daemon::logger::install(settings.log_level, settings.log_format) {
        Ok(log) => log,
        Err(error) => {
            return refuse(Format::Text, &format!("cannot start the log: {error}"), FAILED);
        }
    };
    daemon::logger::log_panics();
    // Even a panic here leaves its line in the log before the process ends.
    let status =
        panic::catch_unwind(AssertUnwindSafe(|| serve(settings, passed, descriptors, &log)));
    log.flush(FLUSH_TIMEOUT);
    status.unwrap_or(FAILED)
}

fn serve(
    settings: Settings,
    passed: Result<daemon::passed::Passed, String>,
    descriptors: Option<usize>,
    log: &LogQueue,
) -> u8 {
    let mut passed = match passed {
        Ok(passed) => passed,
        Err(error) => return refuse(settings.log_format, &error, FAILED),
    };
    let listen = daemon::listening::addresses(&settings, &mut passed);
    let Settings { mut config, app, heartbeat, log_format: format, .. } = settings;
    match listen {
        Ok(listen) => config.listen = listen,
        Err(error) => return refuse(format, &error, FAILED),
    }
    match passed.left() {
        0 => {}
        left => log::warn!("{} passed and not listened on; see --fd", plural(left, "socket")),
    }
    // Before the first connection, so that no signal finds the default action; and before they are
    // let through, so that one which has waited does not either.
    let signals = Signals::new(SIGNALS).and_then(|signals| {
        daemon::inherited::unblock(&SIGNALS)?;
        Ok(signals)
    });
    let signals = match signals {
        Ok(signals) => signals,
        Err(error) => return refuse(format, &ServeError::Start(error), FAILED),
    };
    let daemon = Daemon { config, app, heartbeat, format, descriptors, log: log.clone() };
    match app {
        App::Counter => daemon.run(signals, move |_| Counter::new(heartbeat)),
        App::Echo => daemon.run(signals, |_| Echo),
    }
}

/// What it was asked to be, and what it has found.
struct Daemon {
    config: Config,
    app: App,
    heartbeat: Option<Duration>,
    format: Format,
    descriptors: Option<usize>,
    log: LogQueue,
}

impl Daemon {
    fn run<A: Application>(
        self,
        signals: Signals,
        make: impl Fn(ReactorStart<A>) -> A + Send + Sync + 'static,
    ) -> u8 {
        let Daemon { config, app, heartbeat, format, descriptors, log } = self;
        let builder = Server::builder().config(config.clone()).dropped_log_lines(log.dropped());
        let server = match builder.serve(make) {
            Ok(server) => server,
            Err(error @ ServeError::Config(_)) => return refuse(format, &error, MISUSED),
            Err(error) => return refuse(format, &error, FAILED),
        };
        let bound = (server.addresses(), server.admin_address());
        introduce(&config, app, heartbeat, bound, descriptors);
        daemon::certificates::tell(&server.certificates());
        let drain = seconds(config.timeout_graceful_shutdown);
        let told = Told { trigger: server.shutdown_trigger(), certificates: server.certificates() };
        match watch(signals, told, drain, log) {
            Ok(()) => wait(server),
            Err(error) => {
                refuse(format, &format!("cannot start the signal thread: {error}"), FAILED)
            }
        }
    }
}

/// What was started, where, within what limits, and how to stop it.
fn introduce(
    config: &Config,
    app: App,
    heartbeat: Option<Duration>,
    (bound, admin): (&[Address], Option<&Address>),
    descriptors: Option<usize>,
) {
    let reactors = plural(config.workers.get(), "reactor");
    let app = match (app, heartbeat) {
        (App::Counter, Some(time)) => format!("counter with a heartbeat every {} s", seconds(time)),
        (App::Counter, None) => "counter without heartbeat".to_owned(),
        (App::Echo, _) => "echo".to_owned(),
    };
    let sessions = match config.session_ids {
        SessionIds::Any => "under any id",
        SessionIds::Issued => "under issued ids only",
    };
    let connections = match config.limit_concurrency {
        Some(limit) => format!("at most {}", plural(limit.get(), "connection")),
        None => "connections unlimited".to_owned(),
    };
    log::info!("revolve {}: {reactors}, {app}", env!("CARGO_PKG_VERSION"));
    for address in bound {
        tell_address(config, address);
    }
    if let Some(address) = admin {
        log::info!("admin on {address}: {}", own_paths(config));
        tell_page(config, address, "http");
    }
    if config.ws_per_message_deflate {
        log::info!("permessage-deflate: agreed to where a client offers it");
    }
    log::info!(
        "limits: messages {} bytes, send buffer {} bytes, {connections}, {} for {} s {sessions}",
        config.ws_max_size,
        config.max_send_buffer,
        plural(config.sessions_kept(), "session"),
        seconds(config.session_ttl),
    );
    tell_store(config);
    match &config.allowed_origins {
        AllowedOrigins::Any => log::info!(
            "origins: pages of any site may connect; --allowed-origins names those that may"
        ),
        AllowedOrigins::Only(origins) => {
            let origins: Vec<_> = origins.iter().map(Origin::to_string).collect();
            log::info!("origins: pages of {} may connect, of others not", origins.join(", "));
        }
    }
    tell_memory_bound(config, descriptors);
    log::info!(
        "to stop: Ctrl-C or SIGTERM, which drains for at most {} s; a second one ends at once",
        seconds(config.timeout_graceful_shutdown)
    );
}

/// Where sessions are stored, and what that promises.
fn tell_store(config: &Config) {
    if config.store != StoreLocation::None {
        let promise = match config.store_sync {
            StoreSync::Always => "a reply leaves when its session is on the disk".to_owned(),
            StoreSync::Every(time) => {
                format!(
                    "sessions are on the disk at most {} ms after they are written",
                    time.as_millis()
                )
            }
        };
        log::info!("sessions: stored in {}; {promise}", config.store);
    }
}

/// What is at an address.
fn tell_address(config: &Config, bound: &Address) {
    let websocket = match bound.tcp().map(reachable) {
        Some(near) => format!("{}://{near}{}", scheme(config, "ws"), config.ws_path),
        None => format!("WebSockets at {}", config.ws_path),
    };
    if config.admin.is_some() {
        return log::info!("listening on {bound}: {websocket}");
    }
    log::info!("listening on {bound}: {websocket} (also {})", own_paths(config));
    tell_page(config, bound, scheme(config, "http"));
}

/// `wss` for `ws` and `https` for `http`, where TCP addresses for everybody speak TLS.
fn scheme(config: &Config, plain: &'static str) -> &'static str {
    match (config.tls.is_used(), plain) {
        (false, plain) => plain,
        (true, "ws") => "wss",
        (true, _) => "https",
    }
}

/// The paths that have an answer of the server's own, but for the page's.
fn own_paths(config: &Config) -> &'static str {
    if config.metrics { "/healthz, /readyz, /metrics" } else { "/healthz, /readyz" }
}

/// Where the live page is, and for whom.
fn tell_page(config: &Config, bound: &Address, scheme: &str) {
    let near = bound.tcp().map(reachable);
    let page = match near {
        Some(near) => format!("{scheme}://{near}/"),
        None => format!("/ on {bound}"),
    };
    match (config.page, config.page_for) {
        (false, _) => {}
        (true, PageFor::Any) => log::info!("live page: {page} (for anyone: --page-for any)"),
        (true, PageFor::Loopback) if near.is_none_or(|near| near.ip().is_loopback()) => {
            log::info!("live page: {page} (for this machine alone)");
        }
        // Nobody reaches such an address from a loopback one.
        (true, PageFor::Loopback) => {
            log::info!("live page: not on this address unless --page-for any");
        }
    }
}

/// A number of things, in words.
fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The most memory that connections and sessions can take; a warning if the machine has less.
fn tell_memory_bound(config: &Config, descriptors: Option<usize>) {
    match MemoryBound::of::<()>(config, descriptors) {
        Some(bound) => {
            log::info!(
                "memory: connections and sessions take at most {bound}; less with a lower --ws-max-size, \
                 --max-send-buffer, --limit-concurrency or --max-sessions"
            );
            if let Some(available) = daemon::available::memory()
                && bound.total() > available.bytes
            {
                log::warn!(
                    "memory: that is more than the {} of {}: {}",
                    Bytes(available.bytes),
                    available.of,
                    advice(config, descriptors, available.bytes)
                );
            }
        }
        None => log::info!(
            "memory: without a bound, as connections have none; --limit-concurrency sets one"
        ),
    }
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

/// Whom signals are passed on to.
struct Told {
    trigger: ShutdownTrigger,
    certificates: Certificates,
}

/// Starts the thread that turns the first signal that is to end us into a drain and the second into
/// the end.
fn watch(
    mut signals: Signals,
    Told { trigger, certificates }: Told,
    drain: String,
    log: LogQueue,
) -> io::Result<()> {
    let watch = move || {
        let mut begun: Option<Instant> = None;
        for signal in signals.forever() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            match begun {
                _ if signal == SIGHUP && certificates.are_used() => {
                    daemon::certificates::reload(&certificates)
                }
                _ if signal != SIGTERM && signal != SIGINT => {
                    log::warn!("{name}: ignored; settings are read once, at the start");
                }
                None => {
                    begun = Some(Instant::now());
                    log::info!("{name}: draining, at most {drain} s");
                    trigger.begin();
                }
                Some(begun) if begun.elapsed() < ONE_STROKE => {
                    log::debug!("{name}: taken for the same stroke");
                }
                Some(_) => {
                    log::warn!("{name} again: ending at once");
                    log.flush(LAST_FLUSH);
                    // No destructors, no exit handlers: whatever hangs, this does not.
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        }
    };
    thread::Builder::new().name("revolve-signal".to_owned()).spawn(watch).map(drop)
}

/// Serves until it has been told to stop and has drained.
fn wait<A: Application>(server: ServerHandle<A>) -> u8 {
    let summary = server.join();
    log::info!(
        "stopped: {} closed, {} cut, {:.3} s",
        plural(summary.closed as usize, "connection"),
        summary.cut,
        summary.duration.as_secs_f64()
    );
    if summary.failed > 0 {
        log::error!("{} ended by an error of the system", plural(summary.failed, "reactor"));
    }
    if summary.panicked > 0 {
        log::error!("{} ended by a panic", plural(summary.panicked, "reactor"));
    }
    // The log has said why, where a store has failed.
    let is_sound = summary.failed + summary.panicked == 0 && summary.store_failure.is_none();
    if is_sound { DONE } else { FAILED }
}

//! The `revolve` program: the library's server with a command line, signals and a log.
//!
//! It decides nothing about connections, sessions or protocols. The operating system calls it.
//!
//! Invariant: every way out has an exit code of its own. 0: served and drained, or printed what was asked for. 1: the
//! environment, a store that failed, or a dead reactor. 2: usage. 128 + n: signal n, when it came a second time.
//!
//! Next: `daemon`: its parts.

mod daemon;

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use log::Level;
use revolve::config::{Address, Config};
use revolve::{
    Application, Certificates, Counter, Echo, ReactorStart, ServeError, Server, ServerHandle,
    ShutdownTrigger, Tasks, check_store, dump_store,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use daemon::arguments::{
    App, Command, Loaded, LookAtStore, Settings, TaskSettings, UsageError, seconds,
};
use daemon::introduction::{Introduction, plural};
use daemon::log_output::LogOutput;
use daemon::logger::{FLUSH_TIMEOUT, Format, LogQueue};
use daemon::passed::Passed;
use daemon::reloading::Reloading;
use daemon::shortages::Machine;
use daemon::supervisor::Supervisor;

/// Served, drained, printed.
const DONE: u8 = 0;
/// What we were run in does not allow it, or a reactor died.
const FAILED: u8 = 1;
/// The command line does not allow it.
const MISUSED: u8 = 2;

/// Signals closer together than this are one stroke: GNU `timeout` and process supervisors send
/// one to the process and one to its group, a terminal and a wrapper both pass on a Ctrl-C.
const ONE_STROKE: Duration = Duration::from_millis(50);

/// What we listen to. The first two end us. At the third we read the settings and open the log anew. The others would
/// end us by default, and some tools send them to a service for the same: we do nothing then.
const SIGNALS: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];

/// What "at once" leaves for lines already logged.
const LAST_FLUSH: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let status = match read_settings(daemon::config_file::read) {
        Ok(Command::Run(loaded)) => run(*loaded),
        Ok(Command::Check(loaded)) => check(&loaded.settings),
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Look(what, directory)) => look_at_store(what, &directory),
        Err(error) => refuse(Format::Text, &error, MISUSED),
    };
    ExitCode::from(status)
}

/// From the arguments, the environment and the file that these name, as it is now.
fn read_settings(read: fn(&Path) -> io::Result<String>) -> Result<Command, UsageError> {
    daemon::arguments::parse(env::args_os().skip(1), env::vars_os(), read)
}

/// What a server with these settings would say, to stdout; why there would be none, to stderr.
fn check(settings: &Settings) -> u8 {
    let passed = Passed::from_environment();
    let machine = Machine::look(daemon::inherited::raise_descriptor_limit());
    match daemon::checking::check(settings, passed, &machine) {
        Ok(lines) => {
            let told = lines.into_iter().map(|(level, line)| match level {
                Level::Warn => format!("warning: {line}\n"),
                _ => format!("{line}\n"),
            });
            let what = "this configuration can be used; the server would say\n\n".to_owned();
            print(&[what].into_iter().chain(told).collect::<String>())
        }
        Err(error) => refuse(Format::Text, &error, FAILED),
    }
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

fn run(loaded: Loaded) -> u8 {
    // Before anything is opened that could be taken for one of them, and before there is a second thread.
    let passed = Passed::from_environment();
    let descriptors = daemon::inherited::raise_descriptor_limit();
    let Settings { log_level, log_format, log_file, .. } = &loaded.settings;
    let output = match LogOutput::open(log_file.as_deref()) {
        Ok(output) => output,
        Err(error) => {
            let path = log_file.as_deref().unwrap_or(Path::new("")).display();
            let why = format!("cannot open the log file {path}: {error}");
            return refuse(Format::Text, &why, FAILED);
        }
    };
    let log = match daemon::logger::install(*log_level, *log_format, output) {
        Ok(log) => log,
        Err(error) => {
            return refuse(Format::Text, &format!("cannot start the log: {error}"), FAILED);
        }
    };
    daemon::logger::log_panics();
    // Even a panic here leaves its line in the log before the process ends.
    let status = panic::catch_unwind(AssertUnwindSafe(|| serve(loaded, passed, descriptors, &log)));
    log.flush(FLUSH_TIMEOUT);
    status.unwrap_or(FAILED)
}

fn serve(
    loaded: Loaded,
    passed: Result<Passed, String>,
    descriptors: Option<usize>,
    log: &LogQueue,
) -> u8 {
    let format = loaded.settings.log_format;
    let mut passed = match passed {
        Ok(passed) => passed,
        Err(error) => return refuse(format, &error, FAILED),
    };
    let mut config = loaded.settings.config.clone();
    match daemon::listening::addresses(&loaded.settings, &mut passed) {
        Ok((listen, plain)) => (config.listen, config.listen_plain) = (listen, plain),
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
    let Settings { app, heartbeat, .. } = loaded.settings;
    let tasks = loaded.settings.tasks.clone();
    let daemon = Daemon { config, loaded, descriptors, log: log.clone() };
    match app {
        App::Counter => daemon.run(signals, move |_| Counter::new(heartbeat)),
        App::Echo => daemon.run(signals, |_| Echo),
        App::Tasks => {
            let TaskSettings { names, workers, queue, timeout } = tasks;
            let tasks = Tasks::new(names, timeout).workers(workers);
            let tasks = queue.iter().fold(tasks, |tasks, queue| tasks.queue(queue));
            daemon.run(signals, move |_| tasks.clone())
        }
    }
}

/// What it was asked to be, and what it has found.
struct Daemon {
    config: Config,
    loaded: Loaded,
    descriptors: Option<usize>,
    log: LogQueue,
}

impl Daemon {
    fn run<A: Application>(
        self,
        signals: Signals,
        make: impl Fn(ReactorStart<A>) -> A + Send + Sync + 'static,
    ) -> u8 {
        let Daemon { config, loaded, descriptors, log } = self;
        let Settings { app, heartbeat, log_format: format, .. } = loaded.settings;
        let builder = Server::builder().config(config.clone()).dropped_log_lines(log.dropped());
        let server = match builder.serve(make) {
            Ok(server) => server,
            Err(error @ ServeError::Config(_)) => return refuse(format, &error, MISUSED),
            Err(error) => return refuse(format, &error, FAILED),
        };
        let machine = Machine::look(descriptors);
        let (listening, admin) = (server.addresses(), server.admin_address());
        let plain = server.plain_addresses();
        let introduction = Introduction {
            config: &config,
            app,
            heartbeat,
            listening,
            plain,
            admin,
            machine: &machine,
        };
        for (level, line) in introduction.lines() {
            log::log!(level, "{line}");
        }
        daemon::certificates::tell(&server.certificates());
        let supervisor = Supervisor::from_environment();
        let watch = Watch {
            trigger: server.shutdown_trigger(),
            serving: serving(&server),
            supervisor: supervisor.clone(),
            certificates: server.certificates(),
            reloading: Reloading {
                now: loaded,
                settings: server.live_settings(),
                log,
                machine,
                listening: [listening, plain].concat(),
            },
        };
        if let Err(error) = watch.start(signals).and_then(|()| supervisor.watch(server.liveness()))
        {
            return refuse(format, &format!("cannot start the signal thread: {error}"), FAILED);
        }
        supervisor.ready(&serving(&server));
        wait(server)
    }
}

/// The line of the supervisor's status.
fn serving<A: Application>(server: &ServerHandle<A>) -> String {
    let listening = server.addresses().iter().chain(server.plain_addresses());
    let listening: Vec<_> = listening.map(Address::to_string).collect();
    format!("serving on {}", listening.join(", "))
}

/// What the thread needs that waits for signals.
struct Watch {
    trigger: ShutdownTrigger,
    serving: String,
    supervisor: Supervisor,
    certificates: Certificates,
    reloading: Reloading,
}

impl Watch {
    fn start(self, mut signals: Signals) -> io::Result<()> {
        let watch = move || self.watch(&mut signals);
        thread::Builder::new().name("revolve-signal".to_owned()).spawn(watch).map(drop)
    }

    /// Turns the first signal that is to end us into a drain and the second into the end.
    fn watch(mut self, signals: &mut Signals) {
        let mut begun: Option<Instant> = None;
        for signal in signals.forever() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            match begun {
                None if signal == SIGHUP => self.reload(),
                Some(_) if signal == SIGHUP => {
                    self.reloading.reopen_log();
                    log::warn!("{name}: no settings are read while the server drains");
                }
                _ if signal != SIGTERM && signal != SIGINT => {
                    log::warn!("{name}: ignored; SIGHUP has the settings read anew");
                }
                None => {
                    begun = Some(Instant::now());
                    self.drain(name);
                }
                Some(begun) if begun.elapsed() < ONE_STROKE => {
                    log::debug!("{name}: taken for the same stroke");
                }
                Some(_) => {
                    log::warn!("{name} again: ending at once");
                    self.reloading.log.flush(LAST_FLUSH);
                    // No destructors, no exit handlers: whatever hangs, this does not.
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        }
    }

    fn drain(&self, name: &str) {
        let config = self.reloading.settings.config();
        let most = seconds(config.timeout_graceful_shutdown);
        let pace = match config.drain_over {
            Duration::ZERO => String::new(),
            over => format!(", goodbyes over {} s", seconds(over)),
        };
        let line = format!("draining, at most {most} s{pace}");
        log::info!("{name}: {line}");
        self.trigger.begin();
        self.supervisor.stopping(&line);
    }

    fn reload(&mut self) {
        self.supervisor.reloading();
        match read_settings(daemon::config_file::read_again) {
            Ok(Command::Run(loaded)) => self.reloading.reload(Ok(*loaded)),
            Err(error) => self.reloading.reload(Err(error)),
            // The arguments are those that have started the server.
            Ok(_) => {}
        }
        if self.certificates.are_used() {
            daemon::certificates::reload(&self.certificates);
        }
        self.supervisor.ready(&self.serving);
    }
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

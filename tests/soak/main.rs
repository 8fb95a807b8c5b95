//! The chaos soak: thousands of clients against the daemon on four reactors. They connect, count,
//! vanish, reset, stall, come back and take over at random, each held to a model of its own
//! session: every count that was acknowledged is there after every resume, and none is skipped or
//! repeated. In the end the daemon's memory and descriptors are where they were at the start, its
//! gauges at 0, and its tables hold exactly the sessions that counted.
//!
//! With `--crashes` the daemon stores its sessions, and is killed every few seconds, in the middle of it all. It
//! starts again on the same store, with another number of reactors, and everybody comes back.
//!
//! ```text
//! cargo test --release --test soak -- [--minutes N | --seconds N] [--clients N] [--seed N] [--crashes]
//! ```
//!
//! Not a part of a plain `cargo test`: it takes a minute at least (`tests/run --only soak`). It
//! measures no speed. A client that is told something wrong prints its history and the seed; the
//! seed decides what each client does, while threads and sockets decide when.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it is surprised")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test's report")]

mod crowd;
mod daemon;
mod person;

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "its client bytes are used here, its machine is not"
)]
#[path = "../simulation/pieces.rs"]
mod simulation;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crowd::Crowd;
use daemon::{Daemon, Metrics};

const REACTORS: usize = 4;

/// Seconds between pings, and that a pong may take: short, so that stalling clients meet them.
const PING_INTERVAL: u64 = 5;
const PING_TIMEOUT: u64 = 10;

/// How long a daemon lives that is killed.
const CRASH_EVERY: Duration = Duration::from_secs(4);

/// What memory may have grown by, in bytes: the spare buffers that a reactor may keep for its next
/// burst (`transport/out_buffer.rs` bounds them at 4 MiB), and as much again for the allocator's holes.
const GROWTH_MOST: u64 = 2 * REACTORS as u64 * (4 << 20);

struct Options {
    lasts: Duration,
    clients: usize,
    seed: u64,
    crashes: bool,
}

fn options() -> Options {
    let mut options = Options {
        lasts: Duration::from_secs(60),
        clients: 2000,
        seed: Instant::now().elapsed().subsec_nanos().into(),
        crashes: false,
    };
    options.seed ^= u64::from(std::process::id()) << 20;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--minutes" => options.lasts = Duration::from_secs(60 * number()),
            "--seconds" => options.lasts = Duration::from_secs(number()),
            "--clients" => options.clients = number() as usize,
            "--seed" => options.seed = number(),
            "--crashes" => options.crashes = true,
            _ => panic!(
                "{argument}? It takes --minutes, --seconds, --clients, --seed and --crashes."
            ),
        }
    }
    options
}

/// What must not have changed between two moments at which nobody is connected.
struct Rest {
    memory: u64,
    descriptors: usize,
}

impl Rest {
    /// Everybody leaves; the daemon notices.
    fn of(crowd: &mut Crowd, daemon: &Daemon) -> (Rest, Metrics) {
        crowd.dismiss();
        let metrics = daemon.quiet_metrics();
        let rest = Rest { memory: daemon.memory(), descriptors: daemon.descriptors() };
        (rest, metrics)
    }
}

/// A daemon with so many reactors, and these options besides.
fn start(reactors: usize, more: &[(&str, String)]) -> Daemon {
    let options = [
        ("--workers", reactors.to_string()),
        ("--ws-ping-interval", PING_INTERVAL.to_string()),
        ("--ws-ping-timeout", PING_TIMEOUT.to_string()),
        ("--heartbeat", "3".to_owned()),
        ("--timeout-handshake", "60".to_owned()),
    ];
    Daemon::start(&[&options[..], more].concat())
}

/// Everybody counts while the daemon is killed and started again; whether nothing was lost.
fn crash(Options { lasts, clients, seed, .. }: Options) -> bool {
    let directory = std::env::temp_dir().join(format!("revolve-soak-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the store");
    let store = [("--store", format!("file:{}", directory.display()))];
    let mut daemon = start(REACTORS, &store);
    let mut crowd = Crowd::new(daemon.address, clients, seed);
    let mut crashes = 0;
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        crowd.mill(CRASH_EVERY);
        daemon.kill();
        // What they had said, and were not told of, may have been counted.
        crowd.dismiss();
        crashes += 1;
        daemon = start(1 + crashes % REACTORS, &store);
        crowd.move_to(daemon.address);
    }
    crowd.audit();
    println!("{crashes} crashes  {}", crowd.tally());
    let kept = daemon.quiet_metrics().sum("revolve_sessions_detached");
    let owed = crowd.sessions();
    let complaints = daemon.complaints();
    let code = daemon.stop();
    let _ = std::fs::remove_dir_all(&directory);
    println!("sessions: {kept} kept of {owed} that counted; exit code {code:?}; {complaints:?}");
    kept == owed && owed > 0 && crashes > 1 && code == Some(0) && complaints.is_empty()
}

fn main() -> ExitCode {
    let options = options();
    let Options { lasts, clients, seed, crashes } = options;
    let minutes = lasts.as_secs_f64() / 60.0;
    println!("soak: {clients} clients, {REACTORS} reactors, {minutes:.1} minutes, --seed {seed}");
    if crashes {
        return if crash(options) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let daemon = start(REACTORS, &[]);
    let mut crowd = Crowd::new(daemon.address, clients, seed);
    // What is allocated once is allocated now, and does not count as growth.
    crowd.mill((lasts / 6).min(Duration::from_secs(60)));
    let (start, _) = Rest::of(&mut crowd, &daemon);
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        crowd.mill((lasts - begun.elapsed()).min(Duration::from_secs(60)));
        println!("{:>4} s  {}", begun.elapsed().as_secs(), crowd.tally());
    }
    // Everyone comes once more, to hear its count.
    crowd.dismiss();
    crowd.audit();
    let (end, metrics) = Rest::of(&mut crowd, &daemon);

    let mut failures = crowd.check_rich();
    let mut require = |holds: bool, what: String| {
        println!("{}  {what}", if holds { "ok    " } else { "FAILED" });
        failures += usize::from(!holds);
    };
    let (counted, quits) = (crowd.counted(), crowd.quits());
    let received = metrics.sum("ws_total_messages_total");
    require(
        (counted..=counted + quits).contains(&received),
        format!("messages: {received} received, {counted} counted, {quits} quits said"),
    );
    let kept = metrics.sum("revolve_sessions_detached");
    let owed = crowd.sessions();
    require(kept == owed, format!("sessions: {kept} kept of {owed} that counted"));
    for gauge in ["ws_active_connections", "revolve_websockets", "revolve_sessions_live"] {
        let value = metrics.sum(gauge);
        require(value == 0, format!("{gauge}: {value}"));
    }
    let handed = |way: &str| metrics.sum(&format!("revolve_hand_overs_{way}_total"));
    require(
        handed("out") == handed("in") && handed("in") > 0,
        format!("hand-overs: {} out, {} in", handed("out"), handed("in")),
    );
    require(
        end.descriptors == start.descriptors,
        format!("descriptors: {} at the start, {} at the end", start.descriptors, end.descriptors),
    );
    let kib = |bytes: u64| bytes / 1024;
    require(
        end.memory <= start.memory + GROWTH_MOST,
        format!(
            "memory: {} KiB at the start, {} KiB at the end",
            kib(start.memory),
            kib(end.memory)
        ),
    );
    let complaints = daemon.complaints();
    require(complaints.is_empty(), format!("complaints of the daemon: {complaints:?}"));
    let code = daemon.stop();
    require(code == Some(0), format!("exit code: {code:?}"));
    if failures > 0 {
        println!("{failures} failures; --seed {seed}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

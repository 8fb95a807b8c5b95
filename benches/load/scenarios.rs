//! The scenarios: what is asked of a server, and which figures come of it.
//!
//! Each run starts a server of its own, drives it with a `Client`, and ends it; nothing is carried
//! from one run to the next. It prints nothing: `main.rs` interleaves the runs and `report.rs` shows
//! them. The hand-over storm is in `storm.rs`.

use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Client, Letters, Script};
use crate::cpu::{Cores, Memory, Reading, file_limit};
use crate::pacing::Paced;
use crate::reconnects::Reconnects;
use crate::servers::{Flavour, Kind, Running, Server};

/// One figure of a scenario: a row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
}

const fn metric(title: &'static str, unit: &'static str) -> Metric {
    Metric { title, unit, more_is_better: false }
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// Connections, bytes a message, messages in flight on each connection.
    Counting(usize, usize, usize),
    /// The same of ASCII and of three-byte characters.
    Text(usize, usize, usize),
    /// Connections, bytes a message.
    Echo(usize, usize),
    Churn,
    Resume,
    Storm,
    Reactors,
    Broadcast,
    Idle,
    /// Messages a second over 64 connections.
    OpenLoop(u32),
}

pub(crate) struct Scenario {
    /// For `--only` and the file of results.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) metrics: &'static [Metric],
    /// At most this many repetitions: what hardly varies, or takes long, needs fewer.
    pub(crate) repetitions: usize,
    work: Work,
}

const MESSAGE: &str = "CPU µs a message";
const CONNECTION: &str = "CPU µs a connection";
/// What a text costs beside as many bytes of ASCII, in the same round.
const TIMES: &str = "× ASCII";

macro_rules! scenario {
    ($name:literal, $work:expr, $repetitions:literal, $about:literal, [$($metric:expr),+ $(,)?]) => {
        Scenario {
            name: $name,
            about: $about,
            metrics: &[$($metric),+],
            repetitions: $repetitions,
            work: $work,
        }
    };
}

/// In the order of every table.
pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(
        "pingpong-1-16",
        Work::Counting(1, 16, 1),
        99,
        "1 connection, 16 B, one at a time",
        [metric("ping-pong, 1 connection, 16 B", MESSAGE)]
    ),
    scenario!(
        "pingpong-1-1k",
        Work::Counting(1, 1024, 1),
        99,
        "the same, 1 KiB",
        [metric("ping-pong, 1 connection, 1 KiB", MESSAGE)]
    ),
    scenario!(
        "pingpong-64-16",
        Work::Counting(64, 16, 1),
        99,
        "64 connections, 16 B",
        [metric("ping-pong, 64 connections, 16 B", MESSAGE)]
    ),
    scenario!(
        "pingpong-64-1k",
        Work::Counting(64, 1024, 1),
        99,
        "64 connections, 1 KiB",
        [metric("ping-pong, 64 connections, 1 KiB", MESSAGE)]
    ),
    scenario!(
        "pingpong-1000-16",
        Work::Counting(1000, 16, 1),
        99,
        "1,000 connections, 16 B",
        [metric("ping-pong, 1,000 connections, 16 B", MESSAGE)]
    ),
    scenario!(
        "pingpong-1000-1k",
        Work::Counting(1000, 1024, 1),
        99,
        "1,000 connections, 1 KiB",
        [metric("ping-pong, 1,000 connections, 1 KiB", MESSAGE)]
    ),
    scenario!(
        "pingpong-15000-16",
        Work::Counting(15_000, 16, 1),
        3,
        "15,000 connections, 16 B: what a message costs must not grow with them",
        [metric("ping-pong, 15,000 connections, 16 B", MESSAGE)]
    ),
    scenario!(
        "pipeline-16",
        Work::Counting(64, 16, 16),
        99,
        "64 connections, 16 messages a write",
        [metric("pipelined, 64 connections × 16 messages", MESSAGE)]
    ),
    scenario!(
        "pipeline-64",
        Work::Counting(64, 16, 64),
        99,
        "64 connections, 64 messages a write",
        [metric("pipelined, 64 connections × 64 messages", MESSAGE)]
    ),
    scenario!(
        "text-pipeline",
        Work::Text(64, 1024, 16),
        99,
        "64 connections, 16 messages of 1 KiB a write: ASCII, and three-byte characters",
        [
            metric("pipelined, 64 connections × 16 messages of 1 KiB, ASCII", MESSAGE),
            metric(
                "pipelined, 64 connections × 16 messages of 1 KiB, three-byte characters",
                MESSAGE
            ),
            metric(
                "pipelined, 64 connections × 16 messages of 1 KiB, three-byte characters",
                TIMES
            ),
        ]
    ),
    scenario!(
        "text-pingpong",
        Work::Text(64, 16, 1),
        99,
        "64 connections, 16 B: the same",
        [
            metric("ping-pong, 64 connections, 16 B, ASCII", MESSAGE),
            metric("ping-pong, 64 connections, 16 B, three-byte characters", MESSAGE),
            metric("ping-pong, 64 connections, 16 B, three-byte characters", TIMES),
        ]
    ),
    scenario!(
        "echo-64k",
        Work::Echo(16, 64 * 1024),
        99,
        "64 KiB binary, 16 connections",
        [
            metric("echo of 64 KiB", MESSAGE),
            Metric {
                title: "echo of 64 KiB, one way",
                unit: "GB a second of CPU",
                more_is_better: true
            },
        ]
    ),
    scenario!(
        "echo-1m",
        Work::Echo(4, 1024 * 1024),
        99,
        "1 MiB binary, 4 connections",
        [
            metric("echo of 1 MiB", MESSAGE),
            Metric {
                title: "echo of 1 MiB, one way",
                unit: "GB a second of CPU",
                more_is_better: true
            },
        ]
    ),
    scenario!(
        "churn",
        Work::Churn,
        99,
        "connect, one message, close, from 64 places",
        [metric("connect, message, close", CONNECTION)]
    ),
    scenario!(
        "resume",
        Work::Resume,
        99,
        "1,000 sessions resumed by id with 1 and 4 reactors (revolve)",
        [
            metric("new session, 1 reactor", CONNECTION),
            metric("resumed by id, 1 reactor", CONNECTION),
            metric("new session, 4 reactors", CONNECTION),
            metric("resumed by id, 4 reactors", CONNECTION),
            metric("price of a hand-over", "CPU µs"),
        ]
    ),
    scenario!(
        "storm",
        Work::Storm,
        99,
        "256 clients reconnect at once, 4 reactors: how others fare meanwhile (revolve)",
        [
            metric("storm of new sessions", CONNECTION),
            metric("storm of resumes, ids of all 4 reactors", CONNECTION),
            metric("storm of resumes, ids of one reactor", CONNECTION),
            metric("a hand-over in the storm, ids of all", "CPU µs"),
            metric("a hand-over in the storm, ids of one", "CPU µs"),
            metric("hand-overs taken in a turn, ids of all", "a turn of reactor 0"),
            metric("hand-overs taken in a turn, ids of one", "a turn of its owner"),
            metric("bystanders, storm of new sessions: p50", "µs"),
            metric("bystanders, storm of new sessions: p99", "µs"),
            metric("bystanders, ids of all: p50", "µs"),
            metric("bystanders, ids of all: p99", "µs"),
            metric("bystanders on the owner, ids of one: p50", "µs"),
            metric("bystanders on the owner, ids of one: p99", "µs"),
            metric("bystanders on the others, ids of one: p50", "µs"),
            metric("bystanders on the others, ids of one: p99", "µs"),
        ]
    ),
    scenario!(
        "reactors",
        Work::Reactors,
        99,
        "ping-pong of 1,000 connections with 1 and 2 reactors on one core (revolve)",
        [metric("1,000 connections, 1 reactor", MESSAGE), metric("the same, 2 reactors", MESSAGE)]
    ),
    scenario!(
        "broadcast",
        Work::Broadcast,
        3,
        "a heartbeat a second to 10,000 connections (floor, revolve)",
        [metric("broadcast to 10,000", "CPU µs a recipient")]
    ),
    scenario!(
        "idle",
        Work::Idle,
        3,
        "10,000 connections that have sent a message each",
        [
            metric("idle connection, resident", "bytes"),
            metric("idle connection, anonymous", "bytes"),
            metric("10,000 idle, pings every 20 s", "% of a core"),
        ]
    ),
    scenario!(
        "open-5k",
        Work::OpenLoop(5_000),
        99,
        "5,000 messages a second, come what may",
        [
            metric("5,000 messages a second: p50", "µs"),
            metric("5,000 messages a second: p99", "µs"),
            metric("5,000 messages a second: p99.9", "µs"),
            metric("5,000 messages a second", MESSAGE),
        ]
    ),
    scenario!(
        "open-40k",
        Work::OpenLoop(40_000),
        99,
        "40,000 messages a second, the same",
        [
            metric("40,000 messages a second: p50", "µs"),
            metric("40,000 messages a second: p99", "µs"),
            metric("40,000 messages a second: p99.9", "µs"),
            metric("40,000 messages a second", MESSAGE),
        ]
    ),
];

/// How long and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) cores: Option<Cores>,
    pub(crate) quick: bool,
}

impl Setting {
    pub(crate) fn span(self) -> Duration {
        Duration::from_millis(if self.quick { 300 } else { 1000 })
    }

    pub(crate) fn warm_up(self) -> Duration {
        Duration::from_millis(if self.quick { 100 } else { 300 })
    }
}

/// The figures of one run, in the order of the scenario's metrics; NaN where there is none.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) values: Vec<f64>,
    /// Of the time that the server wanted to run, the share that other programs had its core.
    pub(crate) waited: f64,
}

impl Scenario {
    pub(crate) fn applies_to(&self, server: &Server) -> bool {
        match self.work {
            Work::Resume | Work::Storm | Work::Reactors => server.kind == Kind::Revolve,
            Work::Broadcast => matches!(server.kind, Kind::Floor | Kind::Revolve),
            // More than a core of it can do.
            Work::OpenLoop(10_000..) | Work::Counting(10_000.., ..) => {
                server.kind != Kind::Reference
            }
            _ => true,
        }
    }

    /// One run with a fresh server.
    pub(crate) fn run(&self, server: &Server, setting: Setting) -> Result<Outcome> {
        let run = Run { server, setting };
        match self.work {
            Work::Counting(connections, size, depth) => {
                run.counting(connections, &run.script(size, depth), 1)
            }
            Work::Text(connections, size, depth) => run.text(connections, size, depth),
            Work::Echo(connections, size) => run.echo(connections, size),
            Work::Churn => {
                let (cost, waited) = run.churn(1, 0)?;
                Ok(Outcome { values: vec![cost], waited })
            }
            Work::Resume => run.resume(),
            Work::Storm => run.least_disturbed(|| run.storm()),
            Work::Reactors => {
                let script = run.script(16, 1);
                let (one, two) = (run.counting(1000, &script, 1)?, run.counting(1000, &script, 2)?);
                let values = vec![one.values[0], two.values[0]];
                Ok(Outcome { values, waited: one.waited.max(two.waited) })
            }
            Work::Broadcast => run.broadcast(),
            Work::Idle => run.idle(),
            Work::OpenLoop(rate) => run.least_disturbed(|| run.open_loop(rate)),
        }
    }
}

/// Connections under way at once in the churn.
const PLACES: usize = 64;

#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    server: &'a Server,
    pub(crate) setting: Setting,
}

impl Run<'_> {
    pub(crate) fn start(&self, flavour: Flavour<'_>) -> Result<(Running, Client)> {
        let running = self.server.start(flavour, self.setting.cores)?;
        let client = Client::new(running.address)?;
        Ok((running, client))
    }

    pub(crate) fn script(&self, size: usize, depth: usize) -> Script {
        Script::counted(size, depth, Letters::Ascii, self.server.kind)
    }

    fn counting(&self, connections: usize, script: &Script, workers: usize) -> Result<Outcome> {
        needs_files(connections)?;
        let (running, mut client) = self.start(Flavour { workers, ..Flavour::default() })?;
        told(&running, || {
            client.open(connections, script)?;
            let (cost, waited) = self.closed_loop(&running, &mut client, script)?;
            Ok(Outcome { values: vec![cost], waited })
        })
    }

    /// The same messages of ASCII and of other text, one after the other on two fresh servers.
    fn text(&self, connections: usize, size: usize, depth: usize) -> Result<Outcome> {
        let other = Script::counted(size, depth, Letters::ThreeBytes, self.server.kind);
        let ascii = self.counting(connections, &self.script(size, depth), 1)?;
        let other = self.counting(connections, &other, 1)?;
        let (a, b) = (ascii.values[0], other.values[0]);
        Ok(Outcome { values: vec![a, b, b / a], waited: ascii.waited.max(other.waited) })
    }

    fn echo(&self, connections: usize, size: usize) -> Result<Outcome> {
        let script = Script::echoed(size, self.server.kind);
        let (running, mut client) = self.start(Flavour { echo: true, ..Flavour::default() })?;
        told(&running, || {
            client.open(connections, &script)?;
            let (cost, waited) = self.closed_loop(&running, &mut client, &script)?;
            // Bytes a nanosecond are gigabytes a second.
            Ok(Outcome { values: vec![cost, size as f64 / (cost * 1e3)], waited })
        })
    }

    /// CPU µs a message and the share waited, after a warm-up.
    fn closed_loop(
        &self,
        running: &Running,
        client: &mut Client,
        script: &Script,
    ) -> Result<(f64, f64)> {
        client.closed_loop(script, self.setting.warm_up())?;
        let before = settled(running)?;
        let messages = client.closed_loop(script, self.setting.span())?;
        let used = settled(running)?.since(before);
        Ok((micros(used, messages), share_waited(used)))
    }

    /// Connect, one message, close, from `PLACES` places at once. With `sessions`, each connect resumes
    /// one of that many sessions. Returns CPU µs a connection and the share waited.
    fn churn(&self, workers: usize, sessions: usize) -> Result<(f64, f64)> {
        let script = self.script(16, 1);
        let (running, mut client) = self.start(Flavour { workers, ..Flavour::default() })?;
        let ids = (0..sessions).map(|n| format!("bench-{n}")).collect();
        let mut reconnects = Reconnects::new(PLACES, ids);
        told(&running, || {
            // The warm-up also makes the sessions, so that every later connect finds one.
            reconnects.run(&mut client, &script, self.setting.warm_up())?;
            let before = settled(&running)?;
            let done = reconnects.run(&mut client, &script, self.setting.span())?;
            let used = settled(&running)?.since(before);
            Ok((micros(used, done), share_waited(used)))
        })
    }

    fn resume(&self) -> Result<Outcome> {
        const SESSIONS: usize = 1000;
        let (new_1, a) = self.churn(1, 0)?;
        let (resumed_1, b) = self.churn(1, SESSIONS)?;
        let (new_4, c) = self.churn(4, 0)?;
        let (resumed_4, d) = self.churn(4, SESSIONS)?;
        // A new session is never handed over, so what four reactors cost by themselves is in
        // `new_4`. Of the resumed, three in four are accepted by a reactor that is not the owner.
        let hand_over = ((resumed_4 - new_4) - (resumed_1 - new_1)) / 0.75;
        let values = vec![new_1, resumed_1, new_4, resumed_4, hand_over];
        Ok(Outcome { values, waited: a.max(b).max(c).max(d) })
    }

    fn broadcast(&self) -> Result<Outcome> {
        const RECIPIENTS: usize = 10_000;
        needs_files(RECIPIENTS)?;
        let beats = if self.setting.quick { 3 } else { 6 };
        let script = self.script(16, 1);
        let flavour = Flavour { heartbeat: Some(1), ping: Some(0), ..Flavour::default() };
        let (running, mut client) = self.start(flavour)?;
        told(&running, || {
            client.open(RECIPIENTS, &script)?;
            between_beats(&mut client, &script)?;
            client.connections().for_each(|connection| connection.beats = 0);
            let before = Reading::of(running.pid())?;
            client.idle(&script, Duration::from_secs(beats))?;
            let used = Reading::of(running.pid())?.since(before);
            let (mut total, mut least, mut most) = (0, u64::MAX, 0);
            for connection in client.connections() {
                total += connection.beats;
                least = least.min(connection.beats);
                most = most.max(connection.beats);
            }
            if least + 1 < beats || most > beats + 1 {
                return Err(format!("{least} to {most} heartbeats in {beats} s").into());
            }
            Ok(Outcome { values: vec![micros(used, total)], waited: share_waited(used) })
        })
    }

    fn idle(&self) -> Result<Outcome> {
        const CONNECTIONS: usize = 10_000;
        needs_files(CONNECTIONS)?;
        let script = self.script(16, 1);
        let pings = matches!(self.server.kind, Kind::Revolve | Kind::Reference);
        // The short one is for the quick look; the figure is brought to 20 s either way.
        let interval = if self.setting.quick { 5 } else { 20 };
        let flavour = Flavour { heartbeat: Some(0), ping: Some(interval), ..Flavour::default() };
        let (running, mut client) = self.start(flavour)?;
        told(&running, || {
            // What the first connections bring in (code, tables, arenas) is not theirs.
            client.open(64, &script)?;
            client.closed_loop(&script, Duration::from_millis(50))?;
            client.close_all(&script)?;
            let mut client = Client::new(running.address)?;
            std::thread::sleep(Duration::from_millis(200));
            let before = Memory::of(running.pid())?;
            client.open(CONNECTIONS, &script)?;
            client.closed_loop(&script, Duration::ZERO)?;
            client.idle(&script, Duration::from_millis(500))?;
            let after = Memory::of(running.pid())?;
            let each =
                |before: u64, after: u64| (after as f64 - before as f64) / CONNECTIONS as f64;
            let resident = each(before.resident, after.resident);
            let anonymous = each(before.anonymous, after.anonymous);
            let mut share = f64::NAN;
            let mut waited = 0.0;
            if pings {
                // From one ping of a connection to its next: each is pinged once in this time.
                let start = Reading::of(running.pid())?;
                client.idle(&script, Duration::from_secs(interval))?;
                let used = Reading::of(running.pid())?.since(start);
                waited = share_waited(used);
                if client.connections().map(|connection| connection.pings).sum::<u64>() > 0 {
                    share = used.run_ns as f64 / 20e9 * 100.0;
                }
            }
            Ok(Outcome { values: vec![resident, anonymous, share], waited })
        })
    }

    /// A latency, unlike CPU time, is as much the neighbours' as the server's: a run in which the
    /// client or the server had to wait for its core is made again, and the quietest one counts.
    fn least_disturbed(&self, run: impl Fn() -> Result<Outcome>) -> Result<Outcome> {
        let mut best = run()?;
        for _ in 0..if self.setting.quick { 0 } else { 2 } {
            if best.waited < 0.01 {
                break;
            }
            let again = run()?;
            if again.waited < best.waited {
                best = again;
            }
        }
        Ok(best)
    }

    /// Messages at fixed times over 64 connections: see `Paced`.
    fn open_loop(&self, rate: u32) -> Result<Outcome> {
        const CONNECTIONS: usize = 64;
        let script = self.script(16, 1);
        let (running, mut client) = self.start(Flavour::default())?;
        told(&running, || {
            client.open(CONNECTIONS, &script)?;
            client.closed_loop(&script, self.setting.warm_up())?;
            let client_before = Reading::of(std::process::id())?;
            let before = settled(&running)?;
            let mut paced = Paced::begin(rate, self.setting.span() * 2, CONNECTIONS, 1)?;
            while !paced.step(&mut client, &script, |_| 0)? {}
            let used = settled(&running)?.since(before);
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|at| paced.micros_at(0, at));
            let values = vec![p50, p99, p999, micros(used, paced.total())];
            let client_used = Reading::of(std::process::id())?.since(client_before);
            Ok(Outcome { values, waited: share_waited(used).max(share_waited(client_used)) })
        })
    }
}

/// Waits for the quiet after a heartbeat, so that a span of whole seconds holds whole heartbeats.
/// A server that spreads its heartbeats over the second has no such quiet; it need not have one.
fn between_beats(client: &mut Client, script: &Script) -> Result<()> {
    let give_up = Instant::now() + Duration::from_secs(4);
    let mut last = None;
    while Instant::now() < give_up {
        client.turn(Some(Duration::from_millis(20)), script, |_, progress| {
            if progress.beats > 0 {
                last = Some(Instant::now());
            }
            Ok(())
        })?;
        if last.is_some_and(|at| at.elapsed() > Duration::from_millis(250)) {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads the server's CPU time once it sleeps: see `Reading::run_ns`.
pub(crate) fn settled(running: &Running) -> Result<Reading> {
    std::thread::sleep(Duration::from_millis(5));
    Reading::of(running.pid())
}

pub(crate) fn micros(used: Reading, events: u64) -> f64 {
    used.run_ns as f64 / 1e3 / events as f64
}

pub(crate) fn share_waited(used: Reading) -> f64 {
    used.wait_ns as f64 / (used.run_ns + used.wait_ns).max(1) as f64
}

/// Adds the server's last words to an error.
pub(crate) fn told<T>(running: &Running, run: impl FnOnce() -> Result<T>) -> Result<T> {
    run().map_err(|error| format!("{error}{}", running.words()).into())
}

fn needs_files(connections: usize) -> Result<()> {
    let (needed, limit) = (connections + 100, file_limit());
    if needed <= limit {
        return Ok(());
    }
    Err(format!("it needs {needed} open files, the limit is {limit}").into())
}

//! What a store costs: revolve without one, with one that is waited for, and with one that is not, on the disk of the
//! target directory; beside Redis with `appendfsync always`, the usual way to the same promise.
//!
//! The disk is measured first, because a reply that waits for a sync is no faster than the sync. Rounds are interleaved:
//! each form of each server once, then all again. The store's thread has the core of its reactor to share, as the whole
//! server has in every run of this bench. Redis is driven by `redis-benchmark`, which comes with it. Called by `main`.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::client::{Client, Letters, Script};
use crate::cpu::Reading;
use crate::pacing::Paced;
use crate::report::{Report, median};
use crate::scenarios::{Setting, micros, settled, told};
use crate::servers::{Flavour, Kind, Server, Store, launcher};

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// So many connections, each with so many messages in flight: as fast as it goes.
    Closed(usize, usize),
    /// So many messages a second over 64 connections, come what may: how long a reply takes when nothing is at its limit.
    Open(u32),
}

const LOADS: [Load; 5] = [
    Load::Open(5_000),
    Load::Closed(64, 1),
    Load::Closed(1000, 1),
    Load::Closed(64, 16),
    Load::Closed(1, 64),
];

/// Connections of an open load.
const OPEN_CONNECTIONS: usize = 64;

impl Load {
    /// Connections, and messages that each has in flight.
    pub(crate) fn shape(self) -> (usize, usize) {
        match self {
            Load::Closed(connections, depth) => (connections, depth),
            Load::Open(_) => (OPEN_CONNECTIONS, 1),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Load::Open(rate) => write!(f, "{rate} a second over {OPEN_CONNECTIONS} connections"),
            Load::Closed(1, 1) => write!(f, "1 connection"),
            Load::Closed(1, depth) => write!(f, "1 connection × {depth}"),
            Load::Closed(connections, 1) => write!(f, "{connections} connections"),
            Load::Closed(connections, depth) => write!(f, "{connections} connections × {depth}"),
        }
    }
}

/// What `--store-sync` is given; `None` is no store.
const FORMS: [(&str, Option<&str>); 3] =
    [("no store", None), ("`always`", Some("always")), ("`50` ms", Some("50"))];

const REDIS: &str = "Redis, `appendfsync always`";

/// What one run has shown.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    /// Sessions that one sync made safe, and the mean of the syncs.
    sessions_a_sync: Option<f64>,
    sync_us: Option<f64>,
}

/// All runs of one line of the table.
struct Line {
    load: Load,
    server: &'static str,
    runs: Vec<Run>,
    /// Why there are none.
    absent: Option<String>,
}

/// Measures, and gives the table as Markdown.
pub(crate) fn measure(
    revolve: &Server,
    setting: Setting,
    rounds: usize,
    scratch: &Path,
) -> Result<String> {
    fs::create_dir_all(scratch)?;
    let scratch = fs::canonicalize(scratch)?;
    let syncs = syncs_of_the_disk(&scratch, setting)?;
    let mut lines: Vec<Line> = Vec::new();
    for load in LOADS {
        let names = FORMS.iter().map(|(name, _)| *name).chain([REDIS]);
        lines.extend(names.map(|server| Line { load, server, runs: Vec::new(), absent: None }));
    }
    for round in 1..=rounds {
        for line in &mut lines {
            eprintln!("round {round}: {}, {}", line.load, line.server);
            let place = Place::new(&scratch)?;
            let form = FORMS.iter().find(|(name, _)| *name == line.server);
            let outcome = match form {
                Some((_, sync)) => run_revolve(revolve, setting, line.load, *sync, &place),
                None => run_redis(setting, line.load, &place),
            };
            match outcome {
                Ok(run) => line.runs.push(run),
                Err(error) => line.absent = error.to_string().lines().next().map(str::to_owned),
            }
        }
    }
    let mut text = table(&lines);
    text.push_str(&format!(
        "\nMedians of {rounds} interleaved rounds. A sync of this disk (512 bytes behind a file's zeros, {}): \
         {:.0} µs in the middle, {:.0} µs for 99 of 100. In brackets the ratio to no store, within a round.\n\n",
        file_system(&scratch), syncs.0, syncs.1
    ));
    let report = Report::new(&[], &[], rounds, setting.quick);
    report.circumstances().iter().take(2).for_each(|line| text.push_str(&format!("{line}  \n")));
    Ok(text)
}

/// A directory of a run's own; it goes with the value.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(scratch: &Path) -> Result<Place> {
        let place = scratch.join(format!("store-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place)?;
        Ok(Place(place))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What fdatasync takes behind a write of one sector into storage that is there: the middle and the 99th of 100, in µs.
fn syncs_of_the_disk(scratch: &Path, setting: Setting) -> Result<(f64, f64)> {
    const SECTOR: [u8; 512] = [7; 512];
    let place = Place::new(scratch)?;
    let times = if setting.quick { 200 } else { 2000 };
    let mut file = File::create(place.0.join("sectors"))?;
    file.write_all(&vec![0; SECTOR.len() * times])?;
    file.sync_all()?;
    drop(file);
    let mut file = File::options().write(true).open(place.0.join("sectors"))?;
    let mut took = Histogram::<u64>::new(3)?;
    for _ in 0..times {
        file.write_all(&SECTOR)?;
        let begun = Instant::now();
        file.sync_data()?;
        took.record(begun.elapsed().as_nanos() as u64)?;
    }
    let micros = |share| took.value_at_quantile(share) as f64 / 1e3;
    Ok((micros(0.5), micros(0.99)))
}

/// The kind of the file system, for who compares.
fn file_system(scratch: &Path) -> String {
    let output = Command::new("df").arg("--output=fstype").arg(scratch).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let name = text.ok().and_then(|text| text.lines().last().map(|name| name.trim().to_owned()));
    name.unwrap_or_else(|| "an unknown file system".to_owned())
}

// ---- revolve ----

fn run_revolve(
    revolve: &Server,
    setting: Setting,
    load: Load,
    sync: Option<&str>,
    place: &Place,
) -> Result<Run> {
    let store = sync.map(|sync| Store { directory: &place.0, sync });
    let running = revolve.start(Flavour { store, ..Flavour::default() }, setting.cores)?;
    let mut client = Client::new(running.address)?;
    let (connections, depth) = load.shape();
    let script = Script::counted(16, depth, Letters::Ascii, Kind::Revolve);
    told(&running, || {
        client.open(connections, &script)?;
        timed(&mut client, &script, setting.warm_up())?;
        let earlier = Stored::read(running.address)?;
        let before = settled(&running)?;
        let Measured { answered, span, micros_at: [p50_us, p99_us] } = match load {
            Load::Closed(..) => timed(&mut client, &script, setting.span() * 2)?,
            Load::Open(rate) => paced(&mut client, &script, rate, setting.span() * 2)?,
        };
        let used = settled(&running)?.since(before);
        let later = Stored::read(running.address)?;
        let since = later.since(&earlier);
        Ok(Run {
            per_second: answered as f64 / span.as_secs_f64(),
            p50_us,
            p99_us,
            cpu_us: micros(used, answered),
            sessions_a_sync: (since.syncs > 0.0).then(|| since.sessions / since.syncs),
            sync_us: (since.syncs > 0.0).then(|| since.sync_seconds * 1e6 / since.syncs),
        })
    })
}

/// What the client has seen.
pub(crate) struct Measured {
    pub(crate) answered: u64,
    pub(crate) span: Duration,
    /// How long a batch of messages took, in the middle and for 99 of 100.
    pub(crate) micros_at: [f64; 2],
}

/// Messages at fixed times.
pub(crate) fn paced(
    client: &mut Client,
    script: &Script,
    rate: u32,
    span: Duration,
) -> Result<Measured> {
    let begun = Instant::now();
    let mut paced = Paced::begin(rate, span, OPEN_CONNECTIONS, 1)?;
    while !paced.step(client, script, |_| 0)? {}
    let micros_at = [0.5, 0.99].map(|share| paced.micros_at(0, share));
    Ok(Measured { answered: paced.total(), span: begun.elapsed(), micros_at })
}

/// Every connection sends a batch when the one before it is answered, for `span`; then what is owed is waited for. The
/// client never sleeps, for the reason at `Client::closed_loop`.
fn timed(client: &mut Client, script: &Script, span: Duration) -> Result<Measured> {
    timed_with(client, script, span, Duration::ZERO)
}

/// The same with a client that sleeps for up to so long, if nothing has come.
pub(crate) fn timed_with(
    client: &mut Client,
    script: &Script,
    span: Duration,
    sleep: Duration,
) -> Result<Measured> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let mut latencies = Histogram::<u64>::new(3)?;
    let (begun, mut under_way, mut answered) = (Instant::now(), 0, 0);
    for connection in client.connections() {
        connection.due.push_back(Instant::now());
        connection.send(script)?;
        under_way += 1;
    }
    let mut end = begun;
    while under_way > 0 {
        let now = Instant::now();
        if now > begun + span + PATIENCE {
            return Err(format!("{under_way} batches were not answered").into());
        }
        client.turn(Some(sleep), script, |connection, progress| {
            answered += progress.replies;
            if progress.replies == 0 || connection.owed > 0 {
                return Ok(());
            }
            let now = Instant::now();
            let sent = connection.due.pop_front().ok_or("a reply too many")?;
            latencies.record((now - sent).as_nanos() as u64)?;
            end = now;
            if now < begun + span {
                connection.due.push_back(now);
                return connection.send(script);
            }
            under_way -= 1;
            Ok(())
        })?;
    }
    let micros_at = [0.5, 0.99].map(|share| latencies.value_at_quantile(share) as f64 / 1e3);
    Ok(Measured { answered, span: end - begun, micros_at })
}

/// What `/metrics` tells of the store; all zero without one.
pub(crate) struct Stored {
    pub(crate) sessions: f64,
    pub(crate) syncs: f64,
    pub(crate) sync_seconds: f64,
}

impl Stored {
    pub(crate) fn read(address: SocketAddr) -> Result<Stored> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let figure = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
        };
        Ok(Stored {
            sessions: figure("revolve_store_sessions_total"),
            syncs: figure("revolve_store_syncs_total"),
            sync_seconds: figure("revolve_store_sync_seconds_sum"),
        })
    }

    pub(crate) fn since(&self, earlier: &Stored) -> Stored {
        Stored {
            sessions: self.sessions - earlier.sessions,
            syncs: self.syncs - earlier.syncs,
            sync_seconds: self.sync_seconds - earlier.sync_seconds,
        }
    }
}

// ---- Redis ----

/// A started Redis. Dropping it kills it.
struct Redis(Child);

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// INCR over as many connections, each with as many commands in a pipeline, on a key of many.
fn run_redis(setting: Setting, load: Load, place: &Place) -> Result<Run> {
    let Load::Closed(connections, depth) = load else {
        return Err("its bench sends no open load".into());
    };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let redis = launcher(setting.cores)
        .args(["redis-server", "--bind", "127.0.0.1", "--port", &port, "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
        .arg(&place.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let redis = Redis(redis.map_err(|error| format!("redis-server: {error}"))?);
    let give_up = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        if Instant::now() > give_up {
            return Err("redis-server does not answer, or is not installed".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let commands = if setting.quick { 20_000 } else { 100_000 };
    let before = Reading::of(redis.0.id())?;
    let [c, n, p] = [connections, commands, depth].map(|number| number.to_string());
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &port, "-c", &c, "-n", &n, "-P", &p])
        .args(["-r", "1000", "--csv", "INCR", "session:__rand_int__"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("redis-benchmark: {error}"))?;
    let used = Reading::of(redis.0.id())?.since(before);
    let text = String::from_utf8_lossy(&output.stdout);
    // Of the last line: the command, then commands a second, and ms: average, least, p50, p95, p99, most.
    let last = text.lines().last().unwrap_or_default();
    let fields: Vec<f64> =
        last.split(',').filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    let [per_second, _, _, p50, _, p99, _] = fields[..] else {
        return Err(format!("redis-benchmark: {last}").into());
    };
    Ok(Run {
        per_second,
        p50_us: p50 * 1e3,
        p99_us: p99 * 1e3,
        cpu_us: micros(used, commands as u64),
        ..Run::default()
    })
}

// ---- the table ----

/// The middle of values in any order.
pub(crate) fn median_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| load | server | counts a second | p50 µs | p99 µs | CPU µs a count | sessions a sync | a sync, µs |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for line in lines {
        text.push_str(&format!("| {} | {} |", line.load, line.server));
        let Some(per_second) = middle_of(line, |run| Some(run.per_second)) else {
            text.push_str(&format!(" {} | | | | | |\n", line.absent.as_deref().unwrap_or("–")));
            continue;
        };
        let baseline = lines.iter().find(|other| other.load == line.load).unwrap_or(line);
        let is_baseline = baseline.server == line.server;
        let ratio = |of: fn(&Run) -> f64| {
            let pairs = line.runs.iter().zip(&baseline.runs);
            let ratio = median_of(pairs.map(|(own, other)| of(own) / of(other)));
            ratio
                .filter(|_| !is_baseline)
                .map(|ratio| format!(" ({ratio:.2}×)"))
                .unwrap_or_default()
        };
        let number = |of: fn(&Run) -> Option<f64>, digits: usize| {
            middle_of(line, of).map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        text.push_str(&format!(
            " {per_second:.0}{} | {} | {} | {}{} | {} | {} |\n",
            ratio(|run| run.per_second),
            number(|run| Some(run.p50_us), 0),
            number(|run| Some(run.p99_us), 0),
            number(|run| Some(run.cpu_us), 2),
            ratio(|run| run.cpu_us),
            number(|run| run.sessions_a_sync, 1),
            number(|run| run.sync_us, 0),
        ));
    }
    text
}

fn middle_of(line: &Line, of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    median_of(line.runs.iter().filter_map(of))
}

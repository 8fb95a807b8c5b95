//! What sessions in a Redis cost that several nodes share: counts a second through the one connection that a node has to it,
//! how long a count takes beside Redis' own round trip, and how long a session takes to move to another node.
//!
//! Redis runs on the client's core, so that the server has its own, as it has where Redis is another machine. The client
//! therefore sleeps while it waits, but for the load of one connection. Rounds are interleaved, as in `durability`, from which
//! the loads are. Called by `main`.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use revolve::resp::{ConnectOptions, Connection, Pipeline, ServerAddress};
use tungstenite::{Message, WebSocket};

use crate::Result;
use crate::client::{Client, Letters, Script};
use crate::cpu::Reading;
use crate::durability::{Load, Measured, Place, Stored, median_of, paced, timed_with};
use crate::report::Report;
use crate::scenarios::{Setting, micros, settled, told};
use crate::servers::{Flavour, Kind, Running, Server, launcher};

const LOADS: [Load; 5] = [
    Load::Closed(1, 1),
    Load::Open(5_000),
    Load::Closed(64, 1),
    Load::Closed(1000, 1),
    Load::Closed(1000, 4),
];

/// How Redis keeps what it is told; `None` is no store.
const FORMS: [(&str, Option<&[&str]>); 4] = [
    ("no store", None),
    ("Redis, memory alone", Some(&["--appendonly", "no"])),
    ("Redis, `everysec`", Some(&["--appendonly", "yes", "--appendfsync", "everysec"])),
    ("Redis, `always`", Some(&["--appendonly", "yes", "--appendfsync", "always"])),
];

/// Takeovers in one round.
const TAKEOVERS: usize = 200;

/// Round trips that show how fast Redis is.
const ROUND_TRIPS: usize = 2000;

/// How long the client sleeps if nothing has come, where it does.
const SLEEP: Duration = Duration::from_millis(1);

/// So long nothing takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// What one run has shown, in the order of the columns.
type Figures = [Option<f64>; 8];

/// All runs of one line of the table.
struct Line {
    load: Load,
    form: usize,
    runs: Vec<Figures>,
    absent: Option<String>,
}

/// Measures, and gives the tables as Markdown.
pub(crate) fn measure(
    revolve: &Server,
    setting: Setting,
    rounds: usize,
    scratch: &Path,
) -> Result<String> {
    fs::create_dir_all(scratch)?;
    let scratch = fs::canonicalize(scratch)?;
    let mut lines: Vec<Line> = Vec::new();
    for load in LOADS {
        let forms = 0..FORMS.len();
        lines.extend(forms.map(|form| Line { load, form, runs: Vec::new(), absent: None }));
    }
    let mut moves: Vec<Figures> = Vec::new();
    for round in 1..=rounds {
        for line in &mut lines {
            eprintln!("round {round}: {}, {}", line.load, FORMS[line.form].0);
            match run(revolve, setting, line, &scratch) {
                Ok(figures) => line.runs.push(figures),
                Err(error) => line.absent = error.to_string().lines().next().map(str::to_owned),
            }
        }
        eprintln!("round {round}: takeovers");
        moves.push(takeovers(revolve, setting, &scratch)?);
    }
    let mut text = table(&lines);
    let [first, first_99, closed, closed_99, ..] = middles(&moves);
    text.push_str(&format!(
        "\nA takeover by another node, {TAKEOVERS} a round: from connect to the first count there {first} ms in the middle \
         and {first_99} ms for 99 of 100; until the older connection has its 4001 {closed} ms and {closed_99} ms.\n\n\
         Medians of {rounds} interleaved rounds. One reactor and the store's threads have one core, the client and Redis share the \
         other. A round trip is that of all batches that wait, as one pipeline.\n\n"
    ));
    let report = Report::new(&[], &[], rounds, setting.quick);
    report.circumstances().iter().take(2).for_each(|line| text.push_str(&format!("{line}  \n")));
    Ok(text)
}

/// A started Redis. Dropping it kills it.
struct Redis {
    child: Child,
    port: u16,
    _place: Place,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    fn start(options: &[&str], scratch: &Path) -> Result<Redis> {
        let place = Place::new(scratch)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // On the core of this program, which it inherits: another machine in all that matters to the server.
        let child = launcher(None)
            .args(["redis-server", "--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--dir"])
            .arg(place.path())
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server: {error}"))?;
        let redis = Redis { child, port, _place: place };
        let give_up = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > give_up {
                return Err("redis-server does not answer, or is not installed".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    fn address(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// What one SET takes that is waited for, in the middle, in µs.
    fn round_trip_us(&self) -> Result<f64> {
        let options = ConnectOptions {
            connect_timeout: PATIENCE,
            reply_timeout: PATIENCE,
            client_name: "bench".to_owned(),
            reply_bytes_most: 1 << 20,
        };
        let mut connection =
            Connection::connect(&ServerAddress::parse(&self.address())?, &options)?;
        let (mut pipeline, mut took) = (Pipeline::new(), Histogram::<u64>::new(3)?);
        pipeline.push(["SET", "bench", "1"]);
        for _ in 0..ROUND_TRIPS {
            let begun = Instant::now();
            connection.exchange(&pipeline)?;
            took.record(begun.elapsed().as_nanos() as u64)?;
        }
        Ok(took.value_at_quantile(0.5) as f64 / 1e3)
    }
}

fn run(revolve: &Server, setting: Setting, line: &Line, scratch: &Path) -> Result<Figures> {
    let options = FORMS[line.form].1;
    let redis = options.map(|options| Redis::start(options, scratch)).transpose()?;
    let round_trip = redis.as_ref().map(Redis::round_trip_us).transpose()?;
    let address = redis.as_ref().map(Redis::address);
    let flavour = Flavour { redis: address.as_deref(), ..Flavour::default() };
    let running = revolve.start(flavour, setting.cores)?;
    let reading = || redis.as_ref().map(|redis| Reading::of(redis.child.id())).transpose();
    let mut client = Client::new(running.address)?;
    let (connections, depth) = line.load.shape();
    // With one connection its waking would be measured; with many it would keep Redis from its core.
    let sleep = if connections > 1 { SLEEP } else { Duration::ZERO };
    let script = Script::counted(16, depth, Letters::Ascii, Kind::Revolve);
    told(&running, || {
        client.open(connections, &script)?;
        timed_with(&mut client, &script, setting.warm_up(), sleep)?;
        let (stored, of_redis) = (Stored::read(running.address)?, reading()?);
        let before = settled(&running)?;
        let Measured { answered, span, micros_at: [p50, p99] } = match line.load {
            Load::Closed(..) => timed_with(&mut client, &script, setting.span() * 2, sleep)?,
            Load::Open(rate) => paced(&mut client, &script, rate, setting.span() * 2)?,
        };
        let used = settled(&running)?.since(before);
        let of_redis = reading()?.zip(of_redis).map(|(later, earlier)| later.since(earlier));
        let since = Stored::read(running.address)?.since(&stored);
        Ok([
            Some(answered as f64 / span.as_secs_f64()),
            Some(p50),
            Some(p99),
            round_trip,
            Some(micros(used, answered)),
            of_redis.map(|used| micros(used, answered)),
            (since.syncs > 0.0).then(|| since.sessions / since.syncs),
            (since.syncs > 0.0).then(|| since.sync_seconds * 1e6 / since.syncs),
        ])
    })
}

type Socket = WebSocket<TcpStream>;

fn connect(address: SocketAddr, id: &str) -> Result<Socket> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let url = format!("ws://{address}/ws/chat/?session_id={id}");
    let (socket, _) = tungstenite::client(url, stream).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Sends a message, and waits for its count.
fn count(socket: &mut Socket) -> Result<()> {
    socket.send(Message::text("x"))?;
    loop {
        if socket.read()?.to_text().is_ok_and(|text| text.starts_with("{\"count\"")) {
            return Ok(());
        }
    }
}

/// One client that goes to and fro between two nodes: how long until it counts there, and until what it has left is closed.
fn takeovers(revolve: &Server, setting: Setting, scratch: &Path) -> Result<Figures> {
    let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"], scratch)?;
    let address = redis.address();
    let flavour = Flavour { redis: Some(&address), ..Flavour::default() };
    let nodes: Vec<Running> =
        (0..2).map(|_| revolve.start(flavour, setting.cores)).collect::<Result<_>>()?;
    let [mut until_count, mut until_closed] = [Histogram::<u64>::new(3)?, Histogram::new(3)?];
    let mut older = connect(nodes[0].address, "s")?;
    count(&mut older)?;
    for turn in 1..=TAKEOVERS {
        let begun = Instant::now();
        let mut newer = connect(nodes[turn % 2].address, "s")?;
        count(&mut newer)?;
        until_count.record(begun.elapsed().as_nanos() as u64)?;
        while !matches!(older.read()?, Message::Close(Some(frame)) if u16::from(frame.code) == 4001)
        {
        }
        until_closed.record(begun.elapsed().as_nanos() as u64)?;
        let _ = older.get_mut().flush();
        older = newer;
    }
    let ms = |took: &Histogram<u64>, share| Some(took.value_at_quantile(share) as f64 / 1e6);
    let [count_50, count_99] = [0.5, 0.99].map(|share| ms(&until_count, share));
    let [closed_50, closed_99] = [0.5, 0.99].map(|share| ms(&until_closed, share));
    Ok([count_50, count_99, closed_50, closed_99, None, None, None, None])
}

/// The middle of each figure; a dash, if there is none.
fn middles(runs: &[Figures]) -> [String; 8] {
    let mut at = 0..;
    [(); 8].map(|()| {
        let column = at.next().unwrap_or(0);
        let middle = median_of(runs.iter().filter_map(|run| run[column]));
        middle.map_or_else(
            || "–".to_owned(),
            |value| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") },
        )
    })
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| load | store | counts a second | p50 µs | p99 µs | a SET at Redis, µs | CPU µs a count | CPU µs of Redis | sessions a round trip | a round trip, µs |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for line in lines {
        let name = FORMS[line.form].0;
        match &line.absent {
            Some(why) => {
                text.push_str(&format!("| {} | {name} | {why} | | | | | | | |\n", line.load))
            }
            None => {
                let cells = middles(&line.runs).join(" | ");
                text.push_str(&format!("| {} | {name} | {cells} |\n", line.load));
            }
        }
    }
    text
}

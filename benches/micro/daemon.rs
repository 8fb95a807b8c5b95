//! The daemon itself under callgrind: instructions a message, kernel excluded.
//!
//! Each scenario runs twice, the second time with more messages, and the difference is divided by
//! theirs: so start, handshakes and end cancel. How many events a poll returns is the machine's
//! affair, so these figures vary by a few percent; the gate is the shard in memory (`turn/…`).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::callgrind;
use crate::cases::client_frame;

/// Connections, messages in flight on each, messages of 16 bytes; label, and the daemon's application.
struct Scenario {
    label: &'static str,
    application: &'static str,
    connections: usize,
    depth: usize,
    size: usize,
    /// Rounds in the shorter run; the longer one has three times as many.
    rounds: usize,
}

const SCENARIOS: &[Scenario] = &[
    scenario("ping-pong, 64 connections", "counter", 64, 1, 16, 100),
    scenario("ping-pong, 1000 connections", "counter", 1000, 1, 16, 10),
    scenario("pipelined, 64 x 16", "counter", 64, 16, 16, 50),
    scenario("pipelined, 64 x 64", "counter", 64, 64, 16, 20),
    scenario("echo of 64 KiB", "echo", 16, 1, 64 << 10, 20),
    scenario("echo of 1 MiB", "echo", 4, 1, 1 << 20, 5),
];

const fn scenario(
    label: &'static str,
    application: &'static str,
    connections: usize,
    depth: usize,
    size: usize,
    rounds: usize,
) -> Scenario {
    Scenario { label, application, connections, depth, size, rounds }
}

pub(crate) fn measure(told: Option<PathBuf>) -> Result<()> {
    let built = option_env!("CARGO_BIN_EXE_revolve").map(PathBuf::from);
    let daemon = told.or(built).ok_or("which daemon? --revolve PATH")?;
    for scenario in SCENARIOS {
        let (short, long) = (scenario.rounds, 3 * scenario.rounds);
        let before = scenario.run(&daemon, short)?;
        let after = scenario.run(&daemon, long)?;
        let messages = (long - short) * scenario.connections * scenario.depth;
        let each = (after - before) as f64 / messages as f64;
        println!("{:<32} {each:>10.0} instructions a message", scenario.label);
    }
    println!("the traces of the last runs are in {}", callgrind::scratch()?.display());
    Ok(())
}

impl Scenario {
    /// One life of a daemon; returns the instructions of all of it.
    fn run(&self, daemon: &PathBuf, rounds: usize) -> Result<u64> {
        let name = self.label.replace([' ', ','], "-");
        let trace = callgrind::scratch()?.join(format!("{name}.{rounds}"));
        let mut child = callgrind::command(&trace, &[])
            .arg(daemon)
            .args(["--port", "0", "--workers", "1", "--no-access-log", "--heartbeat", "0"])
            .args(["--ws-ping-interval", "3600", "--app", self.application])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let outcome = address(&mut child).and_then(|address| self.drive(&address, rounds));
        // SIGTERM, for which std has no name: an orderly end writes the trace.
        let pid = child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = child.wait()?;
        outcome?;
        if !status.success() {
            return Err(format!("the daemon ended with {status}").into());
        }
        callgrind::total(&fs::read_to_string(&trace)?).ok_or_else(|| "an empty trace".into())
    }

    /// Each connection sends its next batch when the one before is answered.
    fn drive(&self, address: &str, rounds: usize) -> Result<()> {
        let first = if self.application == "echo" { 0x82 } else { 0x81 };
        let batch = client_frame(first, &vec![b'a'; self.size]).repeat(self.depth);
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(open(address)?);
        }
        std::thread::scope(|scope| {
            // Large echoes are written by another thread, or both ends would wait for each other.
            for round in 0..rounds {
                let writers: Vec<_> = connections
                    .iter()
                    .filter(|_| self.size > 1024)
                    .map(|stream| scope.spawn(|| (&*stream).write_all(&batch)))
                    .collect();
                for stream in connections.iter().filter(|_| self.size <= 1024 && round == 0) {
                    (&*stream).write_all(&batch)?;
                }
                for stream in &connections {
                    let is_last = round + 1 == rounds;
                    (0..self.depth).try_for_each(|_| read_frame(stream))?;
                    if self.size <= 1024 && !is_last {
                        (&*stream).write_all(&batch)?;
                    }
                }
                for writer in writers {
                    writer.join().map_err(|_| "a writer panicked")??;
                }
            }
            Ok(())
        })
    }
}

/// Waits for the line that names the address, and leaves a thread reading the rest.
fn address(child: &mut Child) -> Result<String> {
    let mut lines = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
    let found = lines.by_ref().map_while(std::io::Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("ws://")?;
        Some(rest.split_once('/')?.0.to_owned())
    });
    std::thread::spawn(move || lines.for_each(drop));
    found.ok_or_else(|| "the daemon did not start".into())
}

fn open(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /ws/chat/ HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    if head.starts_with(b"HTTP/1.1 101 ") { Ok(stream) } else { Err("no upgrade".into()) }
}

/// Reads one frame of the server's and throws it away.
fn read_frame(mut stream: &TcpStream) -> Result<()> {
    let mut header = [0; 2];
    stream.read_exact(&mut header)?;
    let mut long = [0; 8];
    let length = match header[1] {
        126 => {
            stream.read_exact(&mut long[6..])?;
            u64::from_be_bytes(long)
        }
        127 => {
            stream.read_exact(&mut long)?;
            u64::from_be_bytes(long)
        }
        short => u64::from(short),
    };
    let copied = std::io::copy(&mut stream.take(length), &mut std::io::sink())?;
    if copied == length { Ok(()) } else { Err("the daemon hung up".into()) }
}

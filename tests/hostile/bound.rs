//! The hard bound: everything filled to its limit takes no more memory than the daemon says at its
//! start.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::client::{BINARY, PING, Raw, frame, metric, upgrade};
use crate::daemon::Daemon;
use revolve::Config;
use revolve::memory::MemoryBound;

const DESCRIPTORS: usize = 80;
const MESSAGE: usize = 1 << 20;
const BACKLOG: usize = 512 << 10;
const SESSIONS: usize = 4000;

/// What a client does to hold as much as it can.
struct Hog {
    stream: TcpStream,
    /// First this, once.
    first: Vec<u8>,
    /// Then this, over and over.
    then: Vec<u8>,
    sent: usize,
}

impl Hog {
    /// An open WebSocket whose kernel buffers are small, so that ours fill soon; the daemon's end
    /// has a small one too, because the kernel sizes it by the segments that the peer announces.
    fn new(daemon: &Daemon, first: Vec<u8>, then: Vec<u8>) -> Hog {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_send_buffer_size(64 << 10).unwrap();
        socket.set_tcp_mss(1024).unwrap();
        socket.connect(&daemon.address.into()).unwrap();
        let mut raw = Raw::new(socket.into());
        raw.send(upgrade(""));
        assert_eq!(raw.head().status, 101);
        raw.stream.set_nonblocking(true).unwrap();
        Hog { stream: raw.stream, first, then, sent: 0 }
    }

    /// Writes as much as is taken now. It never reads.
    fn push(&mut self) {
        loop {
            let rest = match self.sent.checked_sub(self.first.len()) {
                None => &self.first[self.sent..],
                Some(past) => &self.then[past % self.then.len()..],
            };
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error} after {}", self.sent),
            }
        }
    }
}

/// Fills the table of sessions with ids of the longest kind, each of which has counted.
fn fill_sessions(daemon: &Daemon) {
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in 0..SESSIONS / 4 {
                    let id = format!("{part}-{number:0>126}");
                    let mut raw = daemon.connect();
                    raw.send(
                        [upgrade(&format!("session_id={id}")).into_bytes(), frame(0x81, "x")]
                            .concat(),
                    );
                    assert_eq!(raw.head().status, 101);
                    assert_eq!(raw.text(), r#"{"count": 1}"#);
                    raw.reset();
                }
            });
        }
    });
}

/// Starts a daemon, fills it with such hogs, and compares.
fn fill(app: &str, first: &[u8], then: &[u8], each: usize) {
    let config = Config {
        workers: NonZeroUsize::new(2).unwrap(),
        ws_max_size: MESSAGE,
        max_send_buffer: BACKLOG,
        max_sessions: SESSIONS,
        limit_per_ip: NonZeroUsize::new(1_000_000),
        ..Config::default()
    };
    let bound = MemoryBound::of::<()>(&config, Some(DESCRIPTORS)).unwrap();
    let (message, backlog, sessions) =
        (MESSAGE.to_string(), BACKLOG.to_string(), SESSIONS.to_string());
    let daemon = Daemon::start(
        Some(DESCRIPTORS),
        &[
            "--app",
            app,
            "--workers",
            "2",
            "--ws-max-size",
            &message,
            "--max-send-buffer",
            &backlog,
            "--max-sessions",
            &sessions,
            "--limit-per-ip",
            "1000000",
            "--no-access-log",
        ],
    );
    let page = || daemon.page(&mut daemon.connect());
    page();
    let before = daemon.resident();
    if app == "counter" {
        fill_sessions(&daemon);
        daemon.wait_for(&mut daemon.connect(), "revolve_connections", |n| n == 1);
    }
    let mut hogs: Vec<_> =
        (0..DESCRIPTORS - 20).map(|_| Hog::new(&daemon, first.to_vec(), then.to_vec())).collect();
    // Until the daemon reads from none of them any more: asked of it, because the kernel goes on
    // taking from them, for its own buffer, until those that were filled first have stalled.
    let (mut read, mut quiet, begin) = (0, Instant::now(), Instant::now());
    while quiet.elapsed() < Duration::from_secs(1) {
        hogs.iter_mut().for_each(Hog::push);
        let now = metric(&page(), "revolve_bytes_in_total", "");
        // More than what asking costs.
        if now > read + 100 {
            quiet = Instant::now();
        }
        read = now;
        assert!(begin.elapsed() < Duration::from_secs(120), "it reads on and on");
        thread::sleep(Duration::from_millis(5));
    }
    let page = page();
    assert_eq!(metric(&page, "revolve_websockets", "") as usize, hogs.len(), "all are inside");
    if app == "counter" {
        assert_eq!(metric(&page, "revolve_sessions_detached", "") as usize, SESSIONS);
    }
    let grown = daemon.resident_most() - before;
    println!("{app}: grown by {grown} bytes; at most {bound}");
    assert!(grown * 5 <= bound.total() * 6, "{grown} bytes, more than 1.2 times {bound}");
    // Or nothing was filled at all.
    assert!(grown >= hogs.len() * each, "{grown} bytes for {} hogs of {each}", hogs.len());
    drop(hogs);
    let log = daemon.stop();
    assert!(log.contains(&format!("take at most {bound}; less with")), "{log}");
}

#[test]
fn everything_at_its_limit_stays_within_what_is_printed() {
    // A message but for its last byte; and then pings, whose pongs nobody reads.
    let unfinished = frame(BINARY & 0x0f, vec![7; MESSAGE - 1]);
    fill("counter", &unfinished, &frame(PING, [7; 125]), MESSAGE + BACKLOG);
    // Echoes of the largest kind, which nobody reads.
    fill("echo", b"", &frame(BINARY, vec![7; MESSAGE]), MESSAGE);
}

//! Step 6 of 7: deadlines, and how to close a connection without losing the last words.
//!
//! ```text
//! cargo run --example 06_deadlines_and_last_words                # port 9106, 5000 ms of silence
//! cargo run --example 06_deadlines_and_last_words -- 9106 5000 abrupt
//! nc 127.0.0.1 9106                         # lines come back; say nothing for five seconds
//! head -c 4000000 /dev/zero | nc 127.0.0.1 9106     # a line without an end
//! ```
//!
//! The loop is step 4's. New are two questions: *when* does a connection end that does nothing, and
//! *how*. A deadline is a field of the connection. The heap holds only hints ("look at this one
//! then"), so a deadline that moves with every line costs nothing: its old hint fires too early,
//! and is entered again. To close, the server says why (`bye`), writes what is queued, and closes its
//! half of the stream (a FIN: the peer reads the end behind the last words). Then it discards what still
//! comes until the peer's FIN. This is called *lingering*. A socket that is closed with unread bytes
//! in it sends a reset instead of a FIN, and a reset may destroy what the peer has not read yet. With
//! `abrupt` the server closes at once, and `nc` may report "Connection reset by peer".
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const CONNECTIONS_MAX: usize = 1000;
const SHARE: usize = 4096;
const LINE_MAX: usize = 1024;

/// How long a peer may take to read our last words, and how much more of its is discarded.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;

/// The states of a connection. It moves in this order, and never back.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    /// Nothing more is answered. What is queued leaves, then our half of the stream is closed.
    Flushing,
    /// Our half is closed. What comes is discarded.
    Lingering {
        bytes_left: usize,
    },
}

enum Rest {
    Blocked,
    Spent,
}

struct Connection {
    stream: TcpStream,
    state: State,
    line: Vec<u8>,
    backlog: Vec<u8>,
    is_queued: bool,
    /// When to act if nothing happens before. This is the truth.
    deadline: Instant,
    /// The time of its one valid entry in the heap. Any other entry for its key is stale.
    hint: Instant,
}

/// What the server is told at the start.
struct Rules {
    silence: Duration,
    is_abrupt: bool,
}

type Hints = BinaryHeap<Reverse<(Instant, usize)>>;

fn main() -> Result<(), Box<dyn Error>> {
    let argument = |at| std::env::args().nth(at);
    let port: u16 = argument(1).unwrap_or("9106".to_owned()).parse()?;
    let silence = Duration::from_millis(argument(2).unwrap_or("5000".to_owned()).parse()?);
    let rules = Rules { silence, is_abrupt: argument(3).is_some_and(|word| word == "abrupt") };
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("tcp://{} (Ctrl-C ends it)", listener.local_addr()?);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut connections, mut hints) = (Slab::new(), Hints::new());
    let (mut ready, mut this_turn) = (Vec::new(), Vec::new());
    loop {
        // Until the first hint; not at all, if a connection waits for its next share.
        let until_hint = |Reverse((at, _)): &Reverse<(Instant, usize)>| {
            at.saturating_duration_since(Instant::now())
        };
        let timeout = match ready.is_empty() {
            true => hints.peek().map(until_hint),
            false => Some(Duration::ZERO),
        };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = Instant::now(); // once a turn
        for event in &events {
            match event.token() {
                LISTENER => {
                    let deadline = now + rules.silence;
                    accept(&listener, &mut connections, poll.registry(), deadline, &mut hints);
                }
                Token(key) => enqueue(key, &mut connections, &mut ready),
            }
        }
        std::mem::swap(&mut ready, &mut this_turn);
        for key in this_turn.drain(..) {
            let Some(connection) = connections.get_mut(key) else { continue };
            connection.is_queued = false;
            match connection.visit(now, &rules) {
                Ok(Rest::Blocked) => connection.enter_hint(key, &mut hints),
                Ok(Rest::Spent) => {
                    connection.enter_hint(key, &mut hints);
                    enqueue(key, &mut connections, &mut ready);
                }
                Err(why) => {
                    println!("#{key}: {why}");
                    connections.remove(key);
                }
            }
        }
        // Behind the visits: a line that is here already is read before its sender is found late.
        while let Some(&Reverse((at, key))) = hints.peek()
            && at <= now
        {
            hints.pop();
            let Some(connection) = connections.get_mut(key) else { continue };
            if connection.hint != at {
                continue; // stale: it was for an earlier deadline, or for the slot's former tenant
            }
            if connection.deadline <= now {
                if connection.state != State::Open {
                    println!("#{key}: its time to read the last words is over");
                    connections.remove(key);
                    continue;
                }
                connection.bye("silent for too long", now);
            }
            // It has moved, or there are last words to write: look again then.
            connection.hint = connection.deadline;
            hints.push(Reverse((connection.hint, key)));
            enqueue(key, &mut connections, &mut ready); // costs a visit, at worst for nothing
        }
    }
}

fn enqueue(key: usize, connections: &mut Slab<Connection>, ready: &mut Vec<usize>) {
    if let Some(connection) = connections.get_mut(key)
        && !std::mem::replace(&mut connection.is_queued, true)
    {
        ready.push(key);
    }
}

/// Empties the accept queue, as step 3 does, and gives each connection its first deadline.
fn accept(
    listener: &TcpListener,
    connections: &mut Slab<Connection>,
    registry: &Registry,
    deadline: Instant,
    hints: &mut Hints,
) {
    let both = Interest::READABLE | Interest::WRITABLE;
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return,
                ErrorKind::ConnectionAborted | ErrorKind::Interrupted => continue,
                _ => return eprintln!("cannot accept: {error}"),
            },
        };
        if connections.len() == CONNECTIONS_MAX {
            continue;
        }
        let place = connections.vacant_entry();
        match registry.register(&mut stream, Token(place.key()), both) {
            Ok(()) => {
                hints.push(Reverse((deadline, place.key())));
                let (line, backlog, state) = (Vec::new(), Vec::new(), State::Open);
                let (is_queued, hint) = (false, deadline);
                place.insert(Connection {
                    stream,
                    state,
                    line,
                    backlog,
                    is_queued,
                    deadline,
                    hint,
                });
            }
            Err(error) => eprintln!("cannot watch a connection: {error}"),
        }
    }
}

impl Connection {
    /// A deadline that has come nearer needs an earlier hint; one that has moved away does not.
    fn enter_hint(&mut self, key: usize, hints: &mut Hints) {
        if self.deadline < self.hint {
            self.hint = self.deadline;
            hints.push(Reverse((self.hint, key)));
        }
    }

    /// Queues the last words.
    fn bye(&mut self, why: &str, now: Instant) {
        self.backlog.extend_from_slice(format!("bye: {why}\n").as_bytes());
        (self.state, self.deadline) = (State::Flushing, now + LINGER);
    }

    /// Writes what waits and reads what is there, up to its share. An error says why it is over.
    fn visit(&mut self, now: Instant, rules: &Rules) -> io::Result<Rest> {
        let mut share = SHARE;
        while share > 0 {
            match self.step(&mut share, now, rules) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Rest::Blocked),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(Rest::Spent)
    }

    /// One write if something waits; else the half-close if that is due; else one read.
    fn step(&mut self, share: &mut usize, now: Instant, rules: &Rules) -> io::Result<()> {
        if !self.backlog.is_empty() {
            return match self.stream.write(&self.backlog)? {
                0 => Err(ErrorKind::WriteZero.into()),
                count => {
                    self.backlog.drain(..count);
                    Ok(())
                }
            };
        }
        if self.state == State::Flushing {
            if rules.is_abrupt {
                return Err(io::Error::other("closed at once, whatever is unread"));
            }
            self.stream.shutdown(Shutdown::Write)?;
            self.state = State::Lingering { bytes_left: LINGER_BYTES };
        }
        let mut buffer = [0; SHARE];
        let count = self.stream.read(&mut buffer[..*share])?;
        *share -= count;
        match (&mut self.state, count) {
            (State::Open, 0) => self.bye("the end of your stream", now), // it may still read
            (_, 0) => return Err(io::Error::other("closed by both sides")),
            (State::Lingering { bytes_left }, _) => match bytes_left.checked_sub(count) {
                Some(left) => *bytes_left = left,
                None => return Err(io::Error::other("still sends, and has sent enough")),
            },
            _ => self.take(&buffer[..count], now, rules),
        }
        Ok(())
    }

    /// Answers whole lines. A line that does not end ends the connection.
    fn take(&mut self, bytes: &[u8], now: Instant, rules: &Rules) {
        for &byte in bytes {
            self.line.push(byte);
            if byte == b'\n' {
                self.backlog.append(&mut self.line);
                self.deadline = now + rules.silence;
            } else if self.line.len() == LINE_MAX {
                return self.bye("a line is too long", now);
            }
        }
    }
}

// What is still wrong with it, and where it is put right:
//
// - A heap costs more with each connection, and each entry is 24 bytes. A wheel of 512 slots, 50 ms
//   each, enters a hint with one push: src/connection/timer_wheel.rs.
// - After a pause of the whole process all are overdue at once, and those whose lines are not among the
//   first 256 events are closed before they are read. `note_full_poll` in src/shard/connection_set.rs.
// - A peer that reads nothing is only found silent. A backlog that does not move needs a deadline of
//   its own: `stalled_since` in src/transport/out_buffer.rs.
// - A server has many reasons to close, in many places, and must count and log each end once. There is
//   one way out of Open: `leave_open` in src/shard/closing.rs. The states of leaving, for WebSockets:
//   `Closing` in src/protocol/endpoint.rs.
// - One core: 07_two_loops.rs.

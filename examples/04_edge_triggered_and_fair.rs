//! Step 4 of 7: a share for each connection, and the mistake that comes with it.
//!
//! ```text
//! cargo run --example 04_edge_triggered_and_fair              # a port can follow
//! cargo run --example 04_edge_triggered_and_fair -- 9104 lose-wakeups
//! nc 127.0.0.1 9104                                           # and type "hello, event loop"
//! ```
//!
//! To be fair, a loop stops serving a connection before the connection is done: here after 8
//! bytes, few enough to watch by hand. But an edge is reported once, and the bytes that
//! are left have had theirs. A loop that stops early and does not remember it sleeps although bytes
//! are unread, until the peer happens to send more. That is the *lost wakeup*: run it with `lose-wakeups`, and `hello, e` is
//! all that comes back. Press Enter, which is an edge, and the next 8 follow.
//!
//! The fix is in the type. Every stop is a [`Rest`], and each has one thing that ends it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const CONNECTIONS_MAX: usize = 1000;

/// What a connection may read in one turn. A server for use takes some thousand bytes.
const SHARE: usize = 8;

/// Why a connection stopped, and so what has to bring it back.
enum Rest {
    /// The socket said `WouldBlock`: the kernel's next edge.
    Blocked,
    /// Its share of this turn is used up: the ready queue, next turn.
    Spent,
}

struct Connection {
    stream: TcpStream,
    backlog: Vec<u8>,
    /// True exactly when it stands in the ready queue: however many reasons, one place.
    is_queued: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9104".to_owned()).parse()?;
    let loses_wakeups = std::env::args().nth(2).is_some_and(|word| word == "lose-wakeups");
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("tcp://{} (Ctrl-C ends it)", listener.local_addr()?);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = Slab::new();
    let (mut ready, mut this_turn) = (Vec::new(), Vec::new());
    loop {
        // If a connection waits for the next turn, the poll must not sleep: zero, not none.
        let timeout = if ready.is_empty() { None } else { Some(Duration::ZERO) };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        // First everything is noted, then each connection is served: the order of events decides nothing.
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &mut connections, poll.registry()),
                Token(key) => enqueue(key, &mut connections, &mut ready),
            }
        }
        // Taken whole: who queues again from here on is served next turn, behind the others.
        std::mem::swap(&mut ready, &mut this_turn);
        for key in this_turn.drain(..) {
            let Some(connection) = connections.get_mut(key) else { continue };
            connection.is_queued = false;
            match connection.visit() {
                Ok(Rest::Blocked) => {}
                Ok(Rest::Spent) if loses_wakeups => println!("#{key}: spent, and forgotten"),
                Ok(Rest::Spent) => {
                    println!("#{key}: spent, next turn");
                    enqueue(key, &mut connections, &mut ready);
                }
                Err(why) => {
                    println!("#{key}: {why}");
                    connections.remove(key);
                }
            }
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

/// Empties the accept queue, as step 3 does.
fn accept(listener: &TcpListener, connections: &mut Slab<Connection>, registry: &Registry) {
    let both = Interest::READABLE | Interest::WRITABLE;
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return,
                // That one is gone already, and the next may be there.
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
                place.insert(Connection { stream, backlog: Vec::new(), is_queued: false });
            }
            Err(error) => eprintln!("cannot watch a connection: {error}"),
        }
    }
}

impl Connection {
    /// Writes what waits and reads what is there, up to its share. An error says why it is over.
    fn visit(&mut self) -> io::Result<Rest> {
        let mut share = SHARE;
        loop {
            match self.step(&mut share) {
                Ok(()) if share == 0 && self.backlog.is_empty() => return Ok(Rest::Spent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Rest::Blocked),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// One write, if something waits; else one read, out of the share.
    fn step(&mut self, share: &mut usize) -> io::Result<()> {
        if self.backlog.is_empty() {
            let mut buffer = [0; SHARE];
            match self.stream.read(&mut buffer[..*share])? {
                0 => return Err(io::Error::other("has left")),
                count => {
                    *share -= count;
                    self.backlog.extend_from_slice(&buffer[..count]);
                }
            }
        } else {
            match self.stream.write(&self.backlog)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => drop(self.backlog.drain(..count)),
            }
        }
        Ok(())
    }
}

// What is still wrong with it, and where it is put right:
//
// - It has two rests, because it has two reasons to stop. A backlog that may grow needs a third
//   (`Throttled`), the end a fourth. The whole table: `Rest` in src/connection/mod.rs. It is checked
//   for every connection, after every turn of the simulation: src/shard/invariants.rs.
// - Only reading has its share. A thousand connections in the accept queue are accepted in one
//   turn, and all others wait. `accepts_per_turn` in src/config/limits.rs, and src/shard/accepting.rs.
// - A key in `ready` may outlive its connection, and then means the place's next tenant. Here that
//   costs a visit for nothing (a *spurious* event, which every visit must bear); src/connection/ready.rs asks
//   for the generation, too.
// - Bytes are not messages yet: 05_frames_in_place.rs.
// - Silence, goodbyes, more than one core: src/connection/timer_wheel.rs, src/shard/drain.rs, src/server.rs.

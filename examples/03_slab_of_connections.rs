//! Step 3 of 7: connections with a place of their own, and with room for what waits.
//!
//! ```text
//! cargo run --example 03_slab_of_connections   # a port can follow, as before
//! nc 127.0.0.1 9103                            # in as many terminals as you like
//! ```
//!
//! A slab hands out places, and a place is the token: from event to connection is one look. What
//! the socket does not take waits in the connection's *backlog*. As long as something waits, nothing
//! more is read from that peer (*backpressure*). So the peer's own kernel makes it wait, and a backlog
//! never holds more than one read. Sockets are registered once, for both directions. Interest is never
//! changed, so it need not be remembered.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

/// No place in a slab; those count from 0.
const LISTENER: Token = Token(usize::MAX);

/// Under the usual limit of 1024 descriptors, so that `accept` does not run into it.
const CONNECTIONS_MAX: usize = 1000;

struct Connection {
    stream: TcpStream,
    /// Read and not yet sent back.
    backlog: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9103".to_owned()).parse()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("tcp://{} (Ctrl-C ends it)", listener.local_addr()?);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = Slab::new();
    // One for all: only one connection is being read at any time.
    let mut buffer = [0; 4096];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let Token(key) = event.token();
            if event.token() == LISTENER {
                accept(&listener, &mut connections, poll.registry());
            } else if let Some(connection) = connections.get_mut(key)
                && let Err(why) = connection.pump(&mut buffer)
            {
                println!("#{key}: {why}");
                connections.remove(key);
            }
        }
    }
}

/// Empties the accept queue. A connection over the limit is closed at once.
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
            Ok(()) => drop(place.insert(Connection { stream, backlog: Vec::new() })),
            Err(error) => eprintln!("cannot watch a connection: {error}"),
        }
    }
}

impl Connection {
    /// Writes what waits and reads what is there, in turn, until the socket says `WouldBlock` to
    /// one of them: whichever it is, an edge will come for it. An error says why it is over.
    fn pump(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            match self.step(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// One write, if something waits; else one read.
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.backlog.is_empty() {
            match self.stream.read(buffer)? {
                0 => return Err(io::Error::other("has left")),
                count => self.backlog.extend_from_slice(&buffer[..count]),
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
// - `pump` stops only where the socket stops it. A client that sends as fast as it reads never
//   stops it, and all others starve: 04_edge_triggered_and_fair.rs, and `Limits` in src/config/limits.rs.
// - A slot is used again, and its number then means another connection. Nothing here keeps a number
//   for long enough to be wrong; timers and session tables do. src/token.rs.
// - A backlog keeps its storage when it is empty: ten thousand idle clients, 40 MB. src/transport/out_buffer.rs
//   lends storage out of a pool, for as long as something waits.
// - Closing a socket that holds unread bytes sends a reset, which may overtake our last words.
//   `Lingering` in src/protocol/endpoint.rs.
// - Silent clients are kept for ever, and a thousand of them fill the server. src/connection/timer_wheel.rs.

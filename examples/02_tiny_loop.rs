//! Step 2 of 7: an event loop. One thread that sleeps on every socket at once.
//!
//! ```text
//! cargo run --example 02_tiny_loop   # a port can follow: … 02_tiny_loop -- 9102
//! nc 127.0.0.1 9102                  # in as many terminals as you like
//! ```
//!
//! `poll` returns when some sockets are *ready*, and names them by the *token* under which each was
//! registered. No other call may wait, so every socket is non-blocking: it returns `WouldBlock`
//! where it would have slept. mio reports *edges*: that bytes came is reported once, so reading
//! goes on until `WouldBlock`. mio's documentation calls that draining readiness.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9102".to_owned()).parse()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("tcp://{} (Ctrl-C ends it)", listener.local_addr()?);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut clients: HashMap<Token, TcpStream> = HashMap::new();
    let mut next_token = 1;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Some(mut stream) = accept(&listener) {
                    let token = Token(next_token);
                    next_token += 1;
                    match poll.registry().register(&mut stream, token, Interest::READABLE) {
                        Ok(()) => drop(clients.insert(token, stream)),
                        Err(error) => eprintln!("cannot watch a connection: {error}"),
                    }
                }
            } else if let Some(stream) = clients.get_mut(&event.token())
                && let Err(why) = echo(stream)
            {
                println!("{}: {why}", event.token().0);
                clients.remove(&event.token()); // dropped is closed, and closed is deregistered
            }
        }
    }
}

/// The next connection in the queue; `None` when it is empty, which an edge will end.
fn accept(listener: &TcpListener) -> Option<TcpStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Some(stream),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return None,
                // That one is gone already, and the next may be there.
                ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                _ => {
                    eprintln!("cannot accept: {error}");
                    return None;
                }
            },
        }
    }
}

/// Sends back all that is there. An error says why this was the last time.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("has left")),
            // A full socket ends the connection: waiting for room would stop all other clients.
            Ok(count) => stream.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

// What is still wrong with it, and where it is put right:
//
// - A client that reads more slowly than it sends is cut off, as soon as the kernel's buffers are
//   full. What does not fit has to wait, in a buffer of ours, for *writable*: 03_slab_of_connections.rs,
//   and src/transport/out_buffer.rs.
// - A table is searched for every event, though we chose the tokens ourselves: they can be places.
//   src/connection/slab.rs, src/token.rs.
// - `echo` goes on for as long as its client does. One that never pauses has the loop to itself:
//   04_edge_triggered_and_fair.rs, and `Spent` in src/connection/mod.rs.
// - One failed `accept` (EMFILE: no descriptor left) forgets the edge. Clients in the queue are not
//   seen before the next one arrives. `Listening::Paused` in src/shard/lifecycle.rs.
// - A silent client is kept for ever, and none is told when the process ends.
//   src/connection/timer_wheel.rs, src/shard/drain.rs.

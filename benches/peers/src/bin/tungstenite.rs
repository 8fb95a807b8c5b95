//! tungstenite's own `WebSocket` on mio: what one gets by using the published type as it stands.
//!
//! Tuned: small read buffers, `write` for each reply of an event and one `flush` at its end. It has
//! no sessions, limits or timers. The load bench starts it.

use std::io::{self, ErrorKind};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use revolve_bench_peers::{Options, accept_all, count_text, listen};
use slab::Slab;
use tungstenite::handshake::server::{NoCallback, ServerHandshake};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket, accept_with_config};

type Handshake = MidHandshake<ServerHandshake<TcpStream, NoCallback>>;

const LISTENER: Token = Token(usize::MAX);

enum Connection {
    /// Until the first readable event: a handshake begun earlier would only hear `WouldBlock`.
    Accepted(TcpStream),
    Handshaking(Box<Handshake>),
    Open(Box<WebSocket<TcpStream>>, u64),
    Ended,
}

fn main() -> io::Result<()> {
    let options = Options::from_arguments();
    let config = WebSocketConfig::default().read_buffer_size(options.read_buffer());
    let mut listener = TcpListener::from_std(listen()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            let token = event.token();
            if token == LISTENER {
                accept_all(&listener, &poll, &mut connections, Connection::Accepted)?;
            } else if let Some(slot) = connections.get_mut(token.0) {
                let before = std::mem::replace(slot, Connection::Ended);
                let after = match before {
                    Connection::Accepted(_) if !event.is_readable() => before,
                    _ => step(before, config, options.echo),
                };
                match after {
                    Connection::Ended => drop(connections.remove(token.0)),
                    after => *slot = after,
                }
            }
        }
    }
}

/// One event of one connection. Every arm reads until `WouldBlock`: the next edge brings it back.
fn step(connection: Connection, config: WebSocketConfig, echo: bool) -> Connection {
    let handshake = match connection {
        Connection::Accepted(stream) => accept_with_config(stream, Some(config)),
        Connection::Handshaking(handshake) => handshake.handshake(),
        Connection::Open(mut socket, mut count) => {
            return match serve(&mut socket, &mut count, echo) {
                Ok(()) => Connection::Open(socket, count),
                Err(_) => Connection::Ended,
            };
        }
        Connection::Ended => return Connection::Ended,
    };
    match handshake {
        Ok(socket) => step(Connection::Open(Box::new(socket), 0), config, echo),
        Err(HandshakeError::Interrupted(middle)) => Connection::Handshaking(Box::new(middle)),
        Err(HandshakeError::Failure(_)) => Connection::Ended,
    }
}

fn serve(
    socket: &mut WebSocket<TcpStream>,
    count: &mut u64,
    echo: bool,
) -> tungstenite::Result<()> {
    // What the socket did not take at the last event goes first; while it is full, nothing is read.
    if !flush(socket)? {
        return Ok(());
    }
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                *count += 1;
                let reply = if echo { message } else { Message::text(count_text(*count)) };
                match socket.write(reply) {
                    Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    result => result?,
                }
            }
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                return flush(socket).map(drop);
            }
            Err(error) => return Err(error),
        }
    }
}

/// True once nothing is left to write.
fn flush(socket: &mut WebSocket<TcpStream>) -> tungstenite::Result<bool> {
    match socket.flush() {
        Ok(()) => Ok(true),
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

//! Step 5 of 7: messages. A WebSocket echo that reads every frame where the kernel put it.
//!
//! ```text
//! cargo run --example 05_frames_in_place   # a port can follow
//! websocat ws://127.0.0.1:9105/            # what you type comes back
//! ```
//!
//! The loop is step 4's. New is what lies between reading and writing: there is *one* receive
//! buffer for all connections; a frame's header is parsed in it, its payload unmasked in it, and
//! the answer written from it. Only what is not whole yet, the *tail*, is copied to its connection
//! until the rest comes. All answers of a visit leave in one write.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::error::Error;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

const LISTENER: Token = Token(usize::MAX);
const CONNECTIONS_MAX: usize = 1000;

/// The receive buffer, and so what a visit reads at most.
const BUFFER_BYTES: usize = 64 << 10;

/// A frame must fit into the buffer whole, header (14 bytes at most) and all: so there is always
/// room behind a tail, and a tail always grows into something.
const PAYLOAD_MAX: u64 = BUFFER_BYTES as u64 - 14;
const HEAD_MAX: usize = 8 << 10;

enum Rest {
    /// The socket said `WouldBlock`: the kernel's next edge.
    Blocked,
    /// It has had its share: the ready queue, next turn.
    Spent,
}

/// What the next bytes are.
enum Stage {
    Request,
    Frames,
    /// Ignored: our last bytes are queued.
    Goodbye,
}

struct Connection {
    stream: TcpStream,
    stage: Stage,
    tail: Vec<u8>,
    backlog: Vec<u8>,
    is_queued: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9105".to_owned()).parse()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("ws://{}/ (Ctrl-C ends it)", listener.local_addr()?);
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections = Slab::new();
    let (mut ready, mut this_turn) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let timeout = if ready.is_empty() { None } else { Some(Duration::ZERO) };
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &mut connections, poll.registry()),
                Token(key) => enqueue(key, &mut connections, &mut ready),
            }
        }
        std::mem::swap(&mut ready, &mut this_turn);
        for key in this_turn.drain(..) {
            let Some(connection) = connections.get_mut(key) else { continue };
            connection.is_queued = false;
            match connection.visit(&mut buffer) {
                Ok(Rest::Blocked) => {}
                Ok(Rest::Spent) => enqueue(key, &mut connections, &mut ready),
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
                let (tail, backlog) = (Vec::new(), Vec::new());
                let stage = Stage::Request;
                place.insert(Connection { stream, stage, tail, backlog, is_queued: false });
            }
            Err(error) => eprintln!("cannot watch a connection: {error}"),
        }
    }
}

impl Connection {
    /// Writes what waits, reads once, takes what is whole, writes once. An error says why it is
    /// over.
    fn visit(&mut self, buffer: &mut [u8]) -> io::Result<Rest> {
        if !self.flush()? {
            return Ok(Rest::Blocked);
        }
        let kept = self.tail.len();
        let count = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(io::Error::other("has left")),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Rest::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Rest::Spent),
            Err(error) => return Err(error),
        };
        buffer[..kept].copy_from_slice(&self.tail);
        let input = &mut buffer[..kept + count];
        let taken = self.take(input);
        self.tail = input[taken..].to_vec();
        Ok(if self.flush()? { Rest::Spent } else { Rest::Blocked })
    }

    /// Takes from the input what is whole, answers it, and says how many bytes that was.
    fn take(&mut self, input: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let length = match self.stage {
                Stage::Request => match answer_request(&input[at..], &mut self.backlog) {
                    Ok(0) => return at,
                    Ok(length) => {
                        self.stage = Stage::Frames;
                        length
                    }
                    Err(status) => {
                        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
                        self.backlog.extend_from_slice(head.as_bytes());
                        self.stage = Stage::Goodbye;
                        0
                    }
                },
                Stage::Frames => match answer_frame(&mut input[at..], &mut self.backlog) {
                    Ok(0) => return at,
                    Ok(length) => length,
                    Err(code) => {
                        let code = u16::from(code).to_be_bytes();
                        encode(OpCode::Control(Control::Close), &code, &mut self.backlog);
                        self.stage = Stage::Goodbye;
                        0
                    }
                },
                Stage::Goodbye => return input.len(),
            };
            at += length;
        }
    }

    /// Writes what waits; false if the socket did not take all of it, and an edge will come.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.backlog.is_empty() {
            match self.stream.write(&self.backlog) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.stage {
            Stage::Goodbye => Err(io::Error::other("was told goodbye")),
            Stage::Request | Stage::Frames => Ok(true),
        }
    }
}

/// The opening handshake (RFC 6455 4.2): the length of the request, 0 while it is not whole.
fn answer_request(received: &[u8], out: &mut Vec<u8>) -> Result<usize, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if received.len() < HEAD_MAX => return Ok(0),
        Ok(_) => return Err("431 Request Header Fields Too Large"),
        Err(_) => return Err("400 Bad Request"),
    };
    let header = |name: &str| {
        let mut all =
            request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        all.next().map_or(&b""[..], |header| header.value)
    };
    if request.method != Some("GET")
        || !header("Upgrade").eq_ignore_ascii_case(b"websocket")
        || header("Sec-WebSocket-Version") != b"13"
        || header("Sec-WebSocket-Key").len() != 24
    {
        return Err("426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13");
    }
    let accept = derive_accept_key(header("Sec-WebSocket-Key"));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    Ok(length)
}

/// Answers the frame at the start of `input`: its length, 0 while it is not whole. An error is the
/// code of the Close that answers it.
fn answer_frame(input: &mut [u8], out: &mut Vec<u8>) -> Result<usize, CloseCode> {
    let mut cursor = Cursor::new(&*input);
    // It refuses reserved opcodes. The other rules are for its caller to check.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| CloseCode::Protocol)?;
    let start = cursor.position() as usize;
    let Some((header, length)) = parsed else { return Ok(0) };
    let has_reserved_bits = header.rsv1 || header.rsv2 || header.rsv3;
    let mask = header.mask.filter(|_| !has_reserved_bits).ok_or(CloseCode::Protocol)?;
    match header.opcode {
        OpCode::Control(_) if !header.is_final || length > 125 => return Err(CloseCode::Protocol),
        OpCode::Data(kind) if !header.is_final || kind == Data::Continue => {
            return Err(CloseCode::Unsupported); // see below
        }
        _ if length > PAYLOAD_MAX => return Err(CloseCode::Size),
        _ => {}
    }
    let end = start + length as usize;
    let Some(payload) = input.get_mut(start..end) else { return Ok(0) };
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    match (header.opcode, &*payload) {
        (OpCode::Control(Control::Pong), _) => {}
        (OpCode::Control(Control::Ping), _) => encode(OpCode::Control(Control::Pong), payload, out),
        (OpCode::Control(Control::Close), []) => return Err(CloseCode::Normal),
        (OpCode::Control(Control::Close), [high, low, ..]) => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            return Err(if code.is_allowed() { code } else { CloseCode::Protocol });
        }
        (OpCode::Control(_), _) => return Err(CloseCode::Protocol),
        (OpCode::Data(Data::Text), _) if std::str::from_utf8(payload).is_err() => {
            return Err(CloseCode::Invalid);
        }
        (OpCode::Data(_), _) => encode(header.opcode, payload, out),
    }
    Ok(end)
}

/// A whole frame of ours: final, and not masked (RFC 6455 5.1).
fn encode(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    if header.format(payload.len() as u64, out).is_ok() {
        out.extend_from_slice(payload);
    }
}

// What is still wrong with it, and where it is put right:
//
// - A message in fragments is refused (1003), and so is one larger than the buffer (1009). Both
//   need memory that grows with what has *arrived*: src/protocol/reassembly.rs.
// - Some rules are not checked: a length in its shortest form, a token list in `Upgrade`, a key that
//   is base64. src/protocol/frame.rs, src/protocol/handshake.rs; tests/conformance has the list.
// - It reads twice for every message, the second time to hear `WouldBlock`. A short read says the
//   same, with one exception that has cost others a leak: `Inbound::Final` in src/transport/mod.rs.
// - It can be tested through a socket only, because the protocol is not apart from the connection.
//   src/protocol/ has bytes in, bytes and events out, and is tested cut at every position.
// - The closing handshake is half of one: no answer to our Close is waited for, and a reset may
//   overtake it. No peer is ever too slow, too silent or too late. 06_deadlines_and_last_words.rs;
//   src/protocol/endpoint.rs, src/shard/deadlines.rs, src/connection/timer_wheel.rs.
// - An application would have to be written into `answer_frame`: src/application/mod.rs. Who it talks
//   to is forgotten with the connection: src/session/table.rs.

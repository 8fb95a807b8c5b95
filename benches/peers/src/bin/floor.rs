//! The floor: what any server on epoll must pay, and nothing else.
//!
//! One `recv` into a buffer of the loop, a walk over the frame headers, one `send` of as many
//! constant replies (`{"count": 1}`). It does not unmask, check, count, limit or time anything; a
//! client must know this, and the load bench, its only caller, does. With `--echo` the payload goes
//! back still masked, as it comes, behind a server's header. The distance of a server to this
//! program is what can still be removed from that server.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::Instant;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use revolve_bench_peers::{Options, accept_all, listen};
use slab::Slab;
use tungstenite::handshake::derive_accept_key;

/// One receive: more than a socket holds of small messages, and still in the second-level cache.
const BUFFER: usize = 256 * 1024;
/// The same in echo mode: 1 MiB messages whole. Sending each part as it comes was measured to cost
/// more, in calls and wake-ups, than waiting for the rest.
const ECHO_BUFFER: usize = 1024 * 1024 + 64 * 1024;
/// Room before the bytes received: a frame header cut off by the last receive is put back here.
const HEADROOM: usize = 16;
const REPLY: &[u8] = b"\x81\x0c{\"count\": 1}";
const LISTENER: Token = Token(usize::MAX);

/// An idle connection is this and no more.
struct Connection {
    stream: TcpStream,
    open: bool,
    rest: Option<Box<Rest>>,
}

/// What a connection has only while a receive or a send ended in the middle of something.
#[derive(Default)]
struct Rest {
    /// An incomplete request or frame header.
    head: Vec<u8>,
    /// Bytes of the current frame's payload that are still to come.
    payload: usize,
    /// Whether the current frame is a close frame.
    closing: bool,
    /// Bytes that the socket did not take; nothing is read until they are gone.
    out: Vec<u8>,
    /// The receive buffer with the beginning of an echo in it: the loop goes on with another one.
    held: Option<Held>,
}

/// `bytes[from..to]` is to go back, once the frame that it ends with is complete.
struct Held {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

struct Loop {
    echo: bool,
    input: Vec<u8>,
    /// Receive buffers in nobody's hands (echo mode).
    spare: Vec<Vec<u8>>,
    /// As many replies as one buffer can hold messages.
    replies: Vec<u8>,
}

fn main() -> io::Result<()> {
    let options = Options::from_arguments();
    let mut listener = TcpListener::from_std(listen()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Slab<Connection> = Slab::new();
    let mut state = Loop {
        echo: options.echo,
        input: vec![0; HEADROOM + if options.echo { ECHO_BUFFER } else { BUFFER }],
        spare: Vec::new(),
        replies: REPLY.repeat((HEADROOM + BUFFER) / 6 + 1),
    };
    let mut beat = options.heartbeat.map(|every| Instant::now() + every);

    loop {
        let timeout = beat.map(|at| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept_all(&listener, &poll, &mut connections, Connection::new)?;
            } else if let Some(connection) = connections.get_mut(event.token().0)
                && state.serve(connection, event.is_readable()).is_err()
            {
                // Dropping the socket also takes it out of epoll.
                connections.remove(event.token().0);
            }
        }
        if let (Some(at), Some(every)) = (beat, options.heartbeat)
            && Instant::now() >= at
        {
            beat = Some(at + every);
            for (_, connection) in connections.iter_mut().filter(|(_, c)| c.open) {
                // The bench's clients read; a floor that queued for those who do not would not be one.
                let _ = connection.stream.write(HEARTBEAT);
            }
        }
    }
}

/// The same length as revolve's `{"ts": "2026-11-23T12:00:00.123456"}`.
const HEARTBEAT: &[u8] = b"\x81\x24{\"ts\": \"2026-01-01T00:00:00.000000\"}";

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Connection { stream, open: false, rest: None }
    }
}

impl Loop {
    /// Everything that one event of a connection asks for; an error ends the connection.
    fn serve(&mut self, connection: &mut Connection, readable: bool) -> io::Result<()> {
        let Connection { stream, open, rest } = connection;
        let blocked = rest.as_ref().is_some_and(|rest| !rest.out.is_empty());
        if !readable && !blocked {
            return Ok(());
        }
        loop {
            if let Some(waiting) = rest
                && !waiting.out.is_empty()
            {
                let sent = write(stream, &waiting.out)?;
                waiting.out.drain(..sent);
                if !waiting.out.is_empty() {
                    return Ok(());
                }
            }
            // Unboxed at once: `unwrap_or_default()` would allocate a box on every event.
            let mut rest_now = rest.take().map_or_else(Rest::default, |boxed| *boxed);
            let (mut from, mut to) = (HEADROOM, HEADROOM);
            if let Some(held) = rest_now.held.take() {
                self.spare.push(std::mem::replace(&mut self.input, held.bytes));
                (from, to) = (held.from, held.to);
            }
            let space = self.input.len() - to;
            let received = match stream.read(&mut self.input[to..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if to > from {
                        self.hold(&mut rest_now, from, to);
                    }
                    *rest = (!rest_now.is_empty()).then(|| Box::new(rest_now));
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let end = to + received;
            let mut at = to;
            if !*open {
                let bytes = &self.input[HEADROOM..end];
                let before = rest_now.head.len();
                let length = if before == 0 {
                    upgrade(stream, bytes)?
                } else {
                    rest_now.head.extend_from_slice(bytes);
                    upgrade(stream, &rest_now.head)?
                };
                let Some(length) = length else {
                    if before == 0 {
                        rest_now.head.extend_from_slice(bytes);
                    }
                    *rest = Some(Box::new(rest_now));
                    return Ok(());
                };
                *open = true;
                at = HEADROOM + length - before;
            } else if !rest_now.head.is_empty() {
                at = HEADROOM - rest_now.head.len();
                self.input[at..HEADROOM].copy_from_slice(&rest_now.head);
            }
            if from == to {
                (from, to) = (at, at);
            }
            rest_now.head.clear();
            let closed = self.frames(stream, (from, to), at..end, &mut rest_now)?;
            if closed {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if !rest_now.is_empty() {
                *rest = Some(Box::new(rest_now));
            }
            if received < space {
                return Ok(());
            }
        }
    }

    /// Leaves the receive buffer with a connection whose echo is not complete.
    fn hold(&mut self, rest: &mut Rest, from: usize, to: usize) {
        let size = self.input.len();
        let other = self.spare.pop().unwrap_or_else(|| vec![0; size]);
        rest.held = Some(Held { bytes: std::mem::replace(&mut self.input, other), from, to });
    }

    /// Walks the frames in `input[at..end]` and answers them with one send. True after a close.
    /// In echo mode `input[from..to]` is what goes back.
    fn frames(
        &mut self,
        stream: &mut TcpStream,
        (mut from, mut to): (usize, usize),
        Range { start: mut at, end }: Range<usize>,
        rest: &mut Rest,
    ) -> io::Result<bool> {
        // `input[from..done]` holds complete echoes only.
        let (mut replies, mut closed, mut done) = (0, false, from);
        while at < end {
            if rest.payload == 0 {
                let Some((header, length)) = header(&self.input[at..end]) else {
                    rest.head.extend_from_slice(&self.input[at..end]);
                    break;
                };
                rest.closing = self.input[at] & 0x0f == 8;
                rest.payload = length;
                if self.echo {
                    // The server's header is the client's without the mask bit and the key.
                    self.input[at + 1] &= 0x7f;
                    if from == to {
                        (from, to, done) = (at + 4, at + 4, at + 4);
                    }
                    self.input.copy_within(at..at + header - 4, to);
                    to += header - 4;
                }
                at += header;
            }
            let here = rest.payload.min(end - at);
            if self.echo {
                if to != at {
                    self.input.copy_within(at..at + here, to);
                }
                to += here;
            }
            at += here;
            rest.payload -= here;
            if rest.payload == 0 {
                closed |= rest.closing;
                replies += usize::from(!rest.closing);
                done = to;
            }
        }
        let hold = self.echo && rest.payload > 0 && rest.payload <= self.input.len() - to;
        let out = match self.echo {
            true => &self.input[from..if hold { done } else { to }],
            false => &self.replies[..replies * REPLY.len()],
        };
        if !out.is_empty() {
            let sent = write(stream, out)?;
            rest.out.extend_from_slice(&out[sent..]);
        }
        if hold {
            self.hold(rest, done, to);
        }
        if closed {
            // 1000, whatever the client's code was; in echo mode its own frame went back above.
            let close: &[u8] = if self.echo { b"" } else { b"\x88\x02\x03\xe8" };
            write(stream, close)?;
        }
        Ok(closed)
    }
}

impl Rest {
    fn is_empty(&self) -> bool {
        let Self { head, payload, out, held, .. } = self;
        head.is_empty() && *payload == 0 && out.is_empty() && held.is_none()
    }
}

/// The lengths of a masked frame's header and payload, once the header is complete.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let short = usize::from(*bytes.get(1)? & 0x7f);
    let (header, length) = match short {
        126 => (8, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (14, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        _ => (6, short),
    };
    (bytes.len() >= header).then_some((header, length))
}

/// Answers a complete request head; says where it ends.
fn upgrade(stream: &mut TcpStream, head: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&head[..end]).map_err(|_| ErrorKind::InvalidData)?;
    let key = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .ok_or(ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.1.trim().as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    match write(stream, response.as_bytes())? == response.len() {
        true => Ok(Some(end + 4)),
        false => Err(ErrorKind::WriteZero.into()),
    }
}

/// Writes what the socket takes at once; a short count means that it is full.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

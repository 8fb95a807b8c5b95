//! The load client: one mio loop that sends prepared frames and checks every reply.
//!
//! It is made to be light, because it shares a machine with what it measures: frames are masked
//! once, one receive buffer serves all connections, replies are walked by their headers and compared
//! in place. It is no general client: it knows the replies that it expects, and anything else is an
//! error of the run. The scenarios drive it, some through `pacing.rs` and `reconnects.rs`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Result;
use crate::servers::Kind;

const BUFFER: usize = 256 * 1024;
/// The key of RFC 6455's example, and the answer that it has there.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A masked close frame, 1000. A mask of zeros is a mask.
const CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";
/// Connections being opened at once: no listen queue overflows, no server is idle.
const OPENING: usize = 128;
/// Local addresses to connect from: each has ports of its own, so churn never runs out of them.
const SOURCES: usize = 32;
/// How long a server may stay silent when something is owed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a connection sends at a time, and what must come back.
pub(crate) struct Script {
    /// Prepared, masked frames; a connection sends them in turn.
    batches: Vec<Vec<u8>>,
    /// Messages, and so replies, in each batch.
    depth: u64,
    replies: Replies,
}

/// What the messages of a counting script are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Letters {
    Ascii,
    /// Hiragana: three bytes each in UTF-8.
    ThreeBytes,
}

impl Letters {
    /// So many bytes of text. What three does not divide ends in ASCII.
    fn text(self, bytes: usize) -> String {
        let latin = ('a'..='z').cycle();
        match self {
            Self::Ascii => latin.take(bytes).collect(),
            Self::ThreeBytes => {
                let letters = ('ぁ'..='ん').cycle().take(bytes / 3);
                letters.chain(latin.take(bytes % 3)).collect()
            }
        }
    }
}

enum Replies {
    /// `{"count": N}`, counting up on each connection.
    Counted,
    /// The floor's one answer.
    Constant,
    /// Payloads, the n-th batch's (one message) being the n-th.
    Echoed(Vec<Vec<u8>>),
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

impl Script {
    /// `depth` text messages of `size` bytes in one write.
    pub(crate) fn counted(size: usize, depth: usize, letters: Letters, server: Kind) -> Self {
        let batch = frame(1, letters.text(size).as_bytes()).repeat(depth);
        let replies = match server {
            Kind::Floor => Replies::Constant,
            Kind::Revolve | Kind::Peer | Kind::Reference => Replies::Counted,
        };
        Self { batches: vec![batch], depth: depth as u64, replies }
    }

    /// One binary message of `size` bytes. Four different ones in turn: a reply that is swapped with
    /// its neighbour's shows.
    pub(crate) fn echoed(size: usize, server: Kind) -> Self {
        let payload = |n: usize| (0..size).map(move |i| (i * 31 + i / 251 + n * 7) as u8);
        let payloads: Vec<Vec<u8>> = (0..4).map(|n| payload(n).collect()).collect();
        let batches = payloads.iter().map(|payload| frame(2, payload)).collect();
        let returned = |payload: Vec<u8>| match server {
            // It returns what is on the wire.
            Kind::Floor => mask(&payload),
            Kind::Revolve | Kind::Peer | Kind::Reference => payload,
        };
        let replies = Replies::Echoed(payloads.into_iter().map(returned).collect());
        Self { batches, depth: 1, replies }
    }
}

fn mask(payload: &[u8]) -> Vec<u8> {
    payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}

/// A final, masked frame.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend_from_slice(&mask(payload));
    frame
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    /// Our close frame is sent; the server's and its end of file are awaited.
    Closing,
    /// Both close frames have passed; its end of file is awaited.
    Closed,
}

pub(crate) struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// The caller's number for it.
    pub(crate) number: usize,
    /// The count of the last reply. A resumed session begins with what it had.
    pub(crate) count: u64,
    /// Messages sent and not yet answered.
    pub(crate) owed: u64,
    /// Heartbeats seen.
    pub(crate) beats: u64,
    /// Pings answered.
    pub(crate) pings: u64,
    /// When messages were due that are not yet answered (open loop only).
    pub(crate) due: VecDeque<Instant>,
    batches_sent: usize,
    /// Batches asked for while an earlier one was still on its way out.
    batches_waiting: usize,
    /// How much of the batch before is out, when the socket did not take it whole.
    partial: Option<usize>,
    /// The upgrade request, pongs and the close frame.
    raw: Vec<u8>,
    /// The incomplete head or frame at the end of the last receive.
    carry: Vec<u8>,
    /// Inside an echo: which payload, and how much of it has been compared.
    inside: Option<(usize, usize)>,
    /// Echoes complete.
    echoes: usize,
}

/// What one event brought, to the scenario's closure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// It has just been opened.
    pub(crate) opened: bool,
    /// Messages answered by this event.
    pub(crate) replies: u64,
    /// Heartbeats in this event.
    pub(crate) beats: u64,
    /// It has ended as it should: both close frames, then the server's end of file.
    pub(crate) ended: bool,
}

pub(crate) struct Client {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    address: SocketAddr,
    connections: Vec<Option<Connection>>,
    connects: usize,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER],
            address,
            connections: Vec::new(),
            connects: 0,
        })
    }

    /// From now on a turn handles at most so many events.
    pub(crate) fn limit_events(&mut self, most: usize) {
        self.events = Events::with_capacity(most);
    }

    /// Begins one more connection, in a free place: `number` is the caller's, `count` what its
    /// session has counted so far, `query` the end of the request target.
    pub(crate) fn connect(&mut self, number: usize, count: u64, query: &str) -> Result<()> {
        let slot = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connect_in(slot, number, count, query)
    }

    fn connect_in(&mut self, slot: usize, number: usize, count: u64, query: &str) -> Result<()> {
        let source = Ipv4Addr::new(127, 0, 0, 2 + (self.connects % SOURCES) as u8);
        self.connects += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(source, 0)))?;
        match socket.connect(&self.address.into()) {
            // 115 is EINPROGRESS, for which std has no name yet.
            Err(e) if e.kind() != ErrorKind::WouldBlock && e.raw_os_error() != Some(115) => {
                return Err(format!("connect: {e}").into());
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot), interest)?;
        let request = format!(
            "GET /ws/chat/{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.address
        );
        self.connections[slot] = Some(Connection {
            stream,
            phase: Phase::Connecting,
            number,
            count,
            owed: 0,
            beats: 0,
            pings: 0,
            due: VecDeque::new(),
            batches_sent: 0,
            batches_waiting: 0,
            partial: None,
            raw: request.into_bytes(),
            carry: Vec::new(),
            inside: None,
            echoes: 0,
        });
        Ok(())
    }

    /// Opens `wanted` connections and returns when all of them are open.
    pub(crate) fn open(&mut self, wanted: usize, script: &Script) -> Result<()> {
        self.open_as(wanted, script, |_| String::new())
    }

    /// The same; the n-th asks for the target that ends in `query(n)`.
    pub(crate) fn open_as(
        &mut self,
        wanted: usize,
        script: &Script,
        query: impl Fn(usize) -> String,
    ) -> Result<()> {
        let (mut begun, mut open) = (0, 0);
        let mut deadline = Instant::now() + PATIENCE;
        while open < wanted {
            while begun < wanted && begun - open < OPENING {
                self.connections.push(None);
                self.connect_in(self.connections.len() - 1, begun, 0, &query(begun))?;
                begun += 1;
            }
            let before = open;
            self.turn(Some(Duration::from_millis(100)), script, |_, progress| {
                open += usize::from(progress.opened);
                Ok(())
            })?;
            if open > before {
                deadline = Instant::now() + PATIENCE;
            } else if Instant::now() > deadline {
                return Err(format!("only {open} of {wanted} connections were opened").into());
            }
        }
        Ok(())
    }

    pub(crate) fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.iter_mut().flatten()
    }

    /// The connection that `open` opened as its n-th.
    pub(crate) fn get(&mut self, n: usize) -> Option<&mut Connection> {
        self.connections.get_mut(n)?.as_mut()
    }

    /// Waits for events and acts on each; the closure hears what each event brought.
    pub(crate) fn turn(
        &mut self,
        timeout: Option<Duration>,
        script: &Script,
        mut then: impl FnMut(&mut Connection, Progress) -> Result<()>,
    ) -> Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let slot = event.token().0;
            let Some(connection) = &mut self.connections[slot] else { continue };
            let mut progress = Progress::default();
            if event.is_writable() {
                connection.flush(script)?;
            }
            if event.is_readable() || event.is_read_closed() {
                connection.receive(
                    &mut self.buffer,
                    event.is_read_closed(),
                    script,
                    &mut progress,
                )?;
            }
            then(connection, progress)?;
            if progress.ended {
                // Dropping the socket takes it out of epoll, too.
                self.connections[slot] = None;
            }
        }
        Ok(())
    }

    /// Every connection sends a batch when the one before it is answered, for `span`; then what is
    /// owed is waited for. Returns the number of messages answered.
    ///
    /// It never sleeps: a sleeping client on the same machine is woken by the server's `send`, with
    /// an interrupt to the other core that the server would pay for (measured: 15 µs a message with
    /// one connection). No server pays that for a client behind a network.
    pub(crate) fn closed_loop(&mut self, script: &Script, span: Duration) -> Result<u64> {
        let (start, mut answered, mut sent) = (Instant::now(), 0, 0);
        for connection in self.connections.iter_mut().flatten() {
            connection.send(script)?;
            sent += script.depth;
        }
        let mut silent_since = start;
        while answered < sent {
            let now = Instant::now();
            let (before, stop) = (answered, now - start >= span);
            self.turn(Some(Duration::ZERO), script, |connection, progress| {
                answered += progress.replies;
                if progress.replies > 0 && connection.owed == 0 && !stop {
                    connection.send(script)?;
                    sent += script.depth;
                }
                Ok(())
            })?;
            if answered > before {
                silent_since = now;
            } else if now - silent_since > PATIENCE {
                return Err(format!("{} of {sent} replies are lost", sent - answered).into());
            }
        }
        Ok(answered)
    }

    /// Answers pings and reads heartbeats for `span`; nothing is sent.
    pub(crate) fn idle(&mut self, script: &Script, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.turn(Some(left), script, |_, _| Ok(()))?;
        }
        Ok(())
    }

    /// Closes every connection in the proper way and waits for their end.
    pub(crate) fn close_all(&mut self, script: &Script) -> Result<()> {
        let mut left = 0;
        for connection in self.connections.iter_mut().flatten() {
            connection.close(script)?;
            left += 1;
        }
        let deadline = Instant::now() + PATIENCE;
        while left > 0 {
            self.turn(Some(Duration::from_millis(100)), script, |_, progress| {
                left -= usize::from(progress.ended);
                Ok(())
            })?;
            if Instant::now() > deadline {
                return Err(format!("{left} connections were not closed").into());
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Sends the next batch, or queues it behind one that the socket has not yet taken.
    pub(crate) fn send(&mut self, script: &Script) -> Result<()> {
        self.owed += script.depth;
        self.batches_waiting += 1;
        self.flush(script)
    }

    /// Sends our close frame.
    pub(crate) fn close(&mut self, script: &Script) -> Result<()> {
        self.phase = Phase::Closing;
        self.raw.extend_from_slice(CLOSE);
        self.flush(script)
    }

    /// Writes what the socket takes.
    fn flush(&mut self, script: &Script) -> Result<()> {
        if self.phase == Phase::Connecting {
            if let Some(error) = self.stream.take_error()? {
                return Err(format!("connect: {error}").into());
            }
            if self.stream.peer_addr().is_err() {
                return Ok(());
            }
            self.phase = Phase::Upgrading;
        }
        while self.partial.is_some() || self.batches_waiting > 0 {
            let start = self.partial.unwrap_or_else(|| {
                self.batches_waiting -= 1;
                self.batches_sent += 1;
                0
            });
            let batch = &script.batches[(self.batches_sent - 1) % script.batches.len()];
            let end = write(&mut self.stream, batch, start)?;
            self.partial = (end < batch.len()).then_some(end);
            if self.partial.is_some() {
                return Ok(());
            }
        }
        if !self.raw.is_empty() {
            let end = write(&mut self.stream, &self.raw, 0)?;
            self.raw.drain(..end);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        ending: bool,
        script: &Script,
        progress: &mut Progress,
    ) -> Result<()> {
        loop {
            let received = match self.stream.read(buffer) {
                Ok(0) if self.phase == Phase::Closed => {
                    progress.ended = true;
                    return Ok(());
                }
                Ok(0) => {
                    let owed = self.owed;
                    return Err(format!("the server hung up ({owed} replies owed)").into());
                }
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // A server may reset a closed connection instead of ending it.
                Err(_) if self.phase == Phase::Closed => {
                    progress.ended = true;
                    return Ok(());
                }
                Err(error) => return Err(format!("receive: {error}").into()),
            };
            self.absorb(&buffer[..received], script, progress)?;
            // A short read is a drained socket, unless its end is waiting behind it.
            if received < buffer.len() && !ending {
                return Ok(());
            }
        }
    }

    fn absorb(&mut self, bytes: &[u8], script: &Script, progress: &mut Progress) -> Result<()> {
        let mut at = 0;
        if self.phase == Phase::Upgrading {
            let before = self.carry.len();
            self.carry.extend_from_slice(bytes);
            let Some(end) = self.carry.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            let head = &self.carry[..end];
            let accepted = head.windows(ACCEPT.len()).any(|part| part == ACCEPT);
            if !head.starts_with(b"HTTP/1.1 101 ") || !accepted {
                let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
                return Err(format!("upgrade: {}", String::from_utf8_lossy(line)).into());
            }
            at = end + 4 - before;
            self.carry = Vec::new();
            self.phase = Phase::Open;
            progress.opened = true;
        }
        while at < bytes.len() {
            if let Some((which, compared)) = self.inside {
                let Replies::Echoed(payloads) = &script.replies else { unreachable!() };
                let rest = &payloads[which][compared..];
                let here = rest.len().min(bytes.len() - at);
                if rest[..here] != bytes[at..at + here] {
                    return Err(format!("echo {} differs", self.echoes).into());
                }
                at += here;
                self.inside = Some((which, compared + here));
                if here == rest.len() {
                    self.inside = None;
                    self.echoes += 1;
                    self.answered(progress)?;
                }
            } else if self.carry.is_empty() {
                let left = &bytes[at..];
                match self.start(left, script, progress)? {
                    Some(used) => at += used,
                    None => {
                        self.carry.extend_from_slice(left);
                        return Ok(());
                    }
                }
            } else {
                // Byte by byte, but only for the one frame that a receive has cut in two.
                self.carry.push(bytes[at]);
                at += 1;
                let carry = std::mem::take(&mut self.carry);
                if self.start(&carry, script, progress)?.is_none() {
                    self.carry = carry;
                }
            }
        }
        Ok(())
    }

    /// Takes the frame at the beginning of `bytes`: a short one whole, of an echo only the header.
    /// Returns how much it took; `None` asks for more bytes.
    #[inline]
    fn start(
        &mut self,
        bytes: &[u8],
        script: &Script,
        progress: &mut Progress,
    ) -> Result<Option<usize>> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err(format!("a bad frame header: {first:#04x} {second:#04x}").into());
        }
        let (header, length) = match second {
            126 if bytes.len() < 4 => return Ok(None),
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 if bytes.len() < 10 => return Ok(None),
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into()?) as usize),
            short => (2, usize::from(short)),
        };
        let opcode = first & 0x0f;
        if let (2, Replies::Echoed(payloads)) = (opcode, &script.replies) {
            let which = self.echoes % payloads.len();
            if length != payloads[which].len() {
                return Err(format!("an echo of {length} bytes").into());
            }
            self.inside = Some((which, 0));
            return Ok(Some(header));
        }
        if length > 125 {
            return Err(format!("a reply of {length} bytes").into());
        }
        let Some(payload) = bytes.get(header..header + length) else { return Ok(None) };
        match opcode {
            1 => self.text(payload, script, progress)?,
            9 => {
                self.pings += 1;
                let mut pong = vec![0x8a, 0x80 | length as u8, 0, 0, 0, 0];
                pong.extend_from_slice(payload);
                self.raw.extend_from_slice(&pong);
                self.flush(script)?;
            }
            8 if self.phase == Phase::Closing => self.phase = Phase::Closed,
            8 => return Err("the server closed the connection".into()),
            _ => return Err(format!("an unexpected frame, opcode {opcode}").into()),
        }
        Ok(Some(header + length))
    }

    #[inline]
    fn text(&mut self, payload: &[u8], script: &Script, progress: &mut Progress) -> Result<()> {
        let number = payload.strip_prefix(b"{\"count\": ").and_then(|rest| rest.strip_suffix(b"}"));
        let Some(digits) = number else {
            if payload.starts_with(b"{\"ts\"") {
                self.beats += 1;
                progress.beats += 1;
                return Ok(());
            }
            return Err(format!("a reply {:?}", String::from_utf8_lossy(payload)).into());
        };
        let number = digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit.wrapping_sub(b'0')));
        let expected = match script.replies {
            Replies::Constant => 1,
            _ => self.count + 1,
        };
        if number != expected {
            return Err(format!("count {number} where {expected} was expected").into());
        }
        self.count += 1;
        self.answered(progress)
    }

    fn answered(&mut self, progress: &mut Progress) -> Result<()> {
        progress.replies += 1;
        self.owed = self.owed.checked_sub(1).ok_or("a reply that nobody asked for")?;
        Ok(())
    }
}

/// Writes `bytes[start..]`; returns where the socket stopped taking them.
fn write(stream: &mut TcpStream, bytes: &[u8], start: usize) -> Result<usize> {
    let mut end = start;
    while end < bytes.len() {
        match stream.write(&bytes[end..]) {
            Ok(count) => end += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(format!("send: {error}").into()),
        }
    }
    Ok(end)
}

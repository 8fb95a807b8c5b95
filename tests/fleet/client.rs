//! A client that counts, and hops between nodes: behind the balancer, and directly. What it is told goes into its ledger.
//!
//! It leaves when it likes, when it is closed, and when nothing comes. Of the connections that it has left it keeps some, and
//! sends on them behind its back: a node that does not know yet that the session is another's must not count that. Called by
//! `crowd`.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tungstenite::handshake::HandshakeError;
use tungstenite::{Error, Message, WebSocket};

use crate::crowd::Totals;
use crate::ledger::{Ledger, Violation};
use crate::node::NAME_FIELD;

/// A client that has heard nothing for so long goes elsewhere.
const ANSWER_MOST: Duration = Duration::from_secs(2);

/// So long it listens on a connection that it has left.
const GLANCE: Duration = Duration::from_millis(10);

/// Connections that it has left, and still has.
const OLDER_MOST: usize = 2;

/// A place to connect to, and what is sent there first.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) preamble: &'static str,
}

/// Why nothing more comes on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A Close with this code.
    Closed(u16),
    /// Nothing in time.
    Silent,
    /// No connection, or no more.
    Broken,
    /// An upgrade was refused.
    Refused(u16),
}

type Socket = WebSocket<TcpStream>;

/// xorshift64: hops need not be hard to guess.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One of this many numbers, from 0.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % count
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) doors: Arc<Vec<Door>>,
    pub(crate) totals: Arc<Totals>,
    /// Whether a failover may lose counts.
    pub(crate) may_lose: bool,
    pub(crate) random: Random,
    pub(crate) ledger: Ledger,
    pub(crate) node: Option<String>,
    pub(crate) older: Vec<Socket>,
}

impl Client {
    /// Counts and hops until it is told that it is over. Then it looks where its session stands.
    pub(crate) fn live(mut self, is_over: &AtomicBool) -> Ledger {
        let lived = self.until(is_over).and_then(|()| self.look_at_the_end());
        if let Err(violation) = lived {
            self.totals.note_violation(format!("{}: {violation}", self.id));
        }
        self.ledger
    }

    fn until(&mut self, is_over: &AtomicBool) -> Result<(), Violation> {
        while !is_over.load(Ordering::Acquire) {
            let mut socket = match self.connect() {
                Ok((socket, count)) => {
                    self.enter(count)?;
                    socket
                }
                Err(end) => {
                    self.totals.note_end(end);
                    self.rest(50, 200);
                    continue;
                }
            };
            self.listen_to_older()?;
            for _ in 0..=self.random.below(12) {
                if is_over.load(Ordering::Acquire) {
                    break;
                }
                let messages = 1 + self.random.below(3);
                if let Some(end) = self.count(&mut socket, messages)? {
                    self.totals.note_end(end);
                    break;
                }
                self.rest(30, 120);
            }
            if self.older.len() < OLDER_MOST && self.random.below(2) == 0 {
                self.older.push(socket);
            }
        }
        Ok(())
    }

    fn rest(&mut self, least_ms: u64, most_ms: u64) {
        let ms = least_ms + self.random.below(most_ms - least_ms);
        thread::sleep(Duration::from_millis(ms));
    }

    /// Connects anywhere; what the hello says.
    fn connect(&mut self) -> Result<(Socket, u64), End> {
        let door = &self.doors[self.random.below(self.doors.len() as u64) as usize];
        let (mut socket, node) = upgrade(door, &self.id)?;
        let count = next_count(&mut socket)?;
        if let Some(node) = node {
            if self.node.as_ref().is_some_and(|former| *former != node) {
                self.totals.crossings.fetch_add(1, Ordering::Relaxed);
            }
            self.node = Some(node);
        }
        Ok((socket, count))
    }

    fn enter(&mut self, count: u64) -> Result<(), Violation> {
        if self.may_lose {
            self.ledger.hello_behind_failover(count);
            return Ok(());
        }
        self.ledger.hello(count)
    }

    /// Sends messages and waits for their answers; why it has ended, if it has.
    fn count(&mut self, socket: &mut Socket, messages: u64) -> Result<Option<End>, Violation> {
        for _ in 0..messages {
            // Also if it fails: some of it may be on its way.
            self.ledger.sent();
            if socket.send(Message::text("x")).is_err() {
                return Ok(Some(End::Broken));
            }
        }
        for _ in 0..messages {
            match next_count(socket) {
                Ok(count) => self.ledger.answered(count)?,
                Err(end) => return Ok(Some(end)),
            }
            self.totals.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Sends on what it has left, and hears what comes there.
    fn listen_to_older(&mut self) -> Result<(), Violation> {
        for mut socket in std::mem::take(&mut self.older) {
            let _ = socket.get_ref().set_read_timeout(Some(GLANCE));
            // One that has ended says so when it is read.
            let _ = socket.send(Message::text("x"));
            loop {
                match next_count(&mut socket) {
                    // A failover may have lost what it was told.
                    Ok(_) if self.may_lose => {}
                    Ok(count) => self.ledger.answered_late(count)?,
                    Err(End::Silent) => {
                        self.older.push(socket);
                        break;
                    }
                    Err(end) => {
                        self.totals.note_older_end(end);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn look_at_the_end(&mut self) -> Result<(), Violation> {
        for _ in 0..200 {
            match self.connect() {
                Ok((_, count)) => {
                    self.enter(count)?;
                    self.listen_to_older()?;
                    let acknowledged = self.ledger.acknowledgements();
                    if acknowledged > count {
                        return Err(Violation::Lost { acknowledged, found: count });
                    }
                    return Ok(());
                }
                Err(_) => self.rest(50, 200),
            }
        }
        self.totals.note_violation(format!("{}: no node serves", self.id));
        Ok(())
    }
}

/// A WebSocket of this session; and the node that has it, if it says so.
fn upgrade(door: &Door, id: &str) -> Result<(Socket, Option<String>), End> {
    let Door { host, port, preamble } = door;
    let mut addresses = (host.as_str(), *port).to_socket_addrs().map_err(|_| End::Broken)?;
    let address = addresses.next().ok_or(End::Broken)?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MOST).map_err(|_| End::Broken)?;
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(ANSWER_MOST)).map_err(|_| End::Broken)?;
    }
    let _ = stream.set_nodelay(true);
    std::io::Write::write_all(&mut stream, preamble.as_bytes()).map_err(|_| End::Broken)?;
    let request = format!("ws://{host}:{port}/ws/chat/?session_id={id}&hello=1");
    match tungstenite::client(request, stream) {
        Ok((socket, response)) => {
            let node = response.headers().get(NAME_FIELD).and_then(|name| name.to_str().ok());
            Ok((socket, node.map(str::to_owned)))
        }
        Err(HandshakeError::Interrupted(_)) => Err(End::Silent),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            Err(End::Refused(response.status().as_u16()))
        }
        Err(HandshakeError::Failure(_)) => Err(End::Broken),
    }
}

/// The next count that it is told: in a hello, or for a message.
fn next_count(socket: &mut Socket) -> Result<u64, End> {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                if let Some(count) = count_in(&text) {
                    return Ok(count);
                }
            }
            Ok(Message::Close(Some(frame))) => {
                // The answer to it is on its way already, or nobody wants it.
                let _ = socket.flush();
                return Err(End::Closed(frame.code.into()));
            }
            Ok(_) => {}
            Err(Error::Io(error)) if matches!(error.kind(), WouldBlock | TimedOut) => {
                return Err(End::Silent);
            }
            Err(_) => return Err(End::Broken),
        }
    }
}

/// A heartbeat has none.
fn count_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("\"count\":")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

//! One stream, one endpoint, and what is known of their readiness.
//!
//! [`Connection::fill`] and [`Connection::flush`] are the only places that read and write a
//! socket. Neither loops until the kernel is tired: each stops at its share, and what it leaves
//! behind is written down in [`Inbound`], in `writable` and, for the whole visit, in [`Rest`].
//! Decides nothing about protocol or sessions; the shard does.
//!
//! Invariant: a connection never rests without a waker (the table at [`Rest`]).
//!
//! Next: [`crate::connections`], where all of them live.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use crate::config::Config;
use crate::door::Place;
use crate::out_buffer::{BufferPool, OutBuffer};
use crate::picture::Tile;
use crate::protocol::endpoint::{Closing, Endpoint};
use crate::ready::Mark;
use crate::session::SessionSlot;
use crate::timer::Tick;
use crate::token::{ConnectionId, Peer};

/// What a connection needs of a socket; in tests, of a script.
pub trait Stream: io::Read + io::Write {
    /// Ends our half of the stream; the peer's goes on.
    ///
    /// # Errors
    ///
    /// When the socket is gone.
    fn half_close(&mut self) -> io::Result<()>;
}

impl Stream for mio::net::TcpStream {
    fn half_close(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Why a connection stopped, and so what brings it back. Edge-triggered readiness is lost if one
/// stops early and forgets it; therefore every stop yields one of these, and each has exactly one
/// waker. A deadline stands behind every one but `Ended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The socket said `WouldBlock`, or gave a short read: the kernel's next edge.
    Blocked,
    /// Its share of the turn is used up: the ready queue, next turn.
    Spent,
    /// Its backlog is above the high-water mark, and we do not read: its own flush, when the
    /// socket takes bytes again and the backlog falls below the low-water mark.
    Throttled,
    /// It waits for as many off-loaded jobs as it may, and we do not read: an answer, in the
    /// mailbox.
    Parked,
    /// Closed, failed or timed out: the reaper, at the end of this turn.
    Ended,
}

/// What is known of the stream's reading side. In order: an edge takes it forward, never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inbound {
    /// Nothing there; an edge will tell.
    Drained,
    /// An edge said there is something, and no short read has said otherwise since.
    Readable,
    /// The same, and the peer's FIN is already behind it: a short read does not mean drained, for
    /// there will be no further edge.
    Final,
    /// The FIN has been read.
    Ended,
}

/// What a connection has to do with a session.
#[derive(Debug, Clone, Copy)]
pub enum Attachment {
    /// It has had none: it has not upgraded, or it watched.
    Never,
    /// It is open, and speaks for this one.
    Live(LiveSession),
    /// It is open, and speaks for nobody: it is told what the reactors do (`shard/watching.rs`).
    Watching,
    /// It was open, and spoke for a session.
    Former,
}

/// The session of an open connection.
#[derive(Debug, Clone, Copy)]
pub struct LiveSession {
    /// Where the session is.
    pub slot: SessionSlot,
    /// Whether it was there before.
    pub is_resumed: bool,
    /// When the WebSocket opened, in nanoseconds since the shard began.
    pub since: u64,
    /// Messages received so far.
    pub messages: u64,
    /// Bytes of frames taken so far.
    pub bytes_in: u64,
    /// Bytes queued before the first frame of ours, which are not the WebSocket's.
    pub bytes_out_before: u64,
}

/// What stands in the receive buffer.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// What an earlier visit had left.
    pub kept: usize,
    /// Bytes just read, behind it.
    pub read: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    /// Its name.
    pub id: ConnectionId,
    /// Who is at the other end.
    pub peer: Peer,
    /// Its place among the sockets, if those are counted; given back when it is dropped.
    pub place: Option<Place>,
    /// The protocol's state.
    pub endpoint: Endpoint,
    /// The session, while the WebSocket is open.
    pub attachment: Attachment,
    /// What waits for the socket.
    pub backlog: OutBuffer,
    /// Bytes read and not yet taken: an incomplete head or frame header, or what a used-up share
    /// left.
    #[expect(clippy::box_collection, reason = "one word in each connection, for what few have")]
    tail: Option<Box<Vec<u8>>>,
    inbound: Inbound,
    writable: bool,
    /// Whether it is to be visited.
    pub mark: Mark,
    /// Why it last stopped.
    pub rest: Rest,
    /// The tick of its live entry in the timer wheel.
    pub alarm: Option<Tick>,
    /// Bytes queued.
    pub bytes_out: u64,
}

impl<S: Stream> Connection<S> {
    /// A connection that has yet to send its first request.
    #[must_use]
    pub fn new(stream: S, id: ConnectionId, peer: SocketAddr, deadline: Instant) -> Self {
        Connection {
            stream,
            id,
            peer: peer.into(),
            place: None,
            endpoint: Endpoint::new(deadline),
            attachment: Attachment::Never,
            backlog: OutBuffer::default(),
            tail: None,
            inbound: Inbound::Drained,
            // True of every fresh socket; if not, the first write will tell.
            writable: true,
            mark: Mark::default(),
            rest: Rest::Blocked,
            alarm: None,
            bytes_out: 0,
        }
    }

    /// Takes note of an edge. Acting on it is for the turn.
    pub fn note(&mut self, readable: bool, writable: bool, read_closed: bool) {
        self.writable |= writable;
        let noted = match (read_closed, readable) {
            (true, _) => Inbound::Final,
            (false, true) => Inbound::Readable,
            (false, false) => Inbound::Drained,
        };
        self.inbound = self.inbound.max(noted);
    }

    /// What is known of the reading side.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        self.inbound
    }

    /// Whether the peer's FIN has come: it will send no more than what is here already.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.inbound, Inbound::Final | Inbound::Ended)
    }

    /// Whether nothing is left to be done for it: nothing to read, nothing to write, no reason for
    /// another visit, and it was read all along.
    #[inline]
    #[must_use]
    pub fn is_at_ease(&self) -> bool {
        self.inbound == Inbound::Drained
            && self.backlog.is_empty()
            && !self.mark.is_set()
            && matches!(self.rest, Rest::Blocked | Rest::Spent)
    }

    /// Whether the socket took all that it was last offered.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Bytes that were read and that nobody has taken yet.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.len())
    }

    /// The stream, to register it.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Puts the tail and what the socket has behind it into `buffer`, with one read at most.
    ///
    /// # Errors
    ///
    /// What ended the connection: a reset, mostly.
    #[inline(always)]
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Filled> {
        let kept = match self.tail.take() {
            Some(tail) => {
                buffer[..tail.len()].copy_from_slice(&tail);
                tail.len()
            }
            None => 0,
        };
        let mut filled = Filled { kept, read: 0 };
        let has_some = matches!(self.inbound, Inbound::Readable | Inbound::Final);
        if kept == buffer.len() || !has_some {
            return Ok(filled);
        }
        let room = &mut buffer[kept..];
        match self.stream.read(room) {
            Ok(0) => self.inbound = Inbound::Ended,
            Ok(count) => {
                // A short read means drained: no second one just to hear `WouldBlock`.
                if count < room.len() && self.inbound == Inbound::Readable {
                    self.inbound = Inbound::Drained;
                }
                filled.read = count;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.inbound = Inbound::Drained;
            }
            // The visit ends with `inbound` still readable, so it comes again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(filled)
    }

    /// Keeps what is left of the input for the next visit.
    #[inline(always)]
    pub fn keep(&mut self, rest: &[u8]) {
        debug_assert!(self.tail.is_none());
        if !rest.is_empty() {
            self.tail = Some(Box::new(rest.to_vec()));
        }
    }

    /// Sends, as far as the socket takes it now; the rest joins the backlog.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], now: Instant, pool: &mut BufferPool) -> io::Result<()> {
        self.bytes_out += bytes.len() as u64;
        let mut sent = 0;
        if self.writable && self.backlog.is_empty() && !bytes.is_empty() {
            sent = write_once(&mut self.stream, bytes, &mut self.writable)?;
        }
        if sent < bytes.len() {
            self.backlog.push(&bytes[sent..], now, pool);
        }
        Ok(())
    }

    /// Writes from the backlog until it is empty, the socket is full, or `share` bytes have left.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    pub fn flush(
        &mut self,
        mut share: usize,
        now: Instant,
        pool: &mut BufferPool,
    ) -> io::Result<()> {
        while self.writable && share > 0 && !self.backlog.is_empty() {
            let front = self.backlog.front();
            let offered = &front[..front.len().min(share)];
            let count = write_once(&mut self.stream, offered, &mut self.writable)?;
            share -= count;
            self.backlog.advance(count, now, pool);
        }
        Ok(())
    }

    /// When the shard has to look at this connection, whatever happens.
    #[inline(always)]
    #[must_use]
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        let protocol = self.endpoint.deadline(config);
        if self.backlog.is_empty() && self.rest != Rest::Parked {
            return protocol;
        }
        self.deadline_with_backlog(protocol, config)
    }

    fn deadline_with_backlog(&self, protocol: Option<Instant>, config: &Config) -> Option<Instant> {
        let stall = match self.endpoint {
            // Our last words have a time of their own, whether or not the peer moves.
            Endpoint::Closing(_) | Endpoint::Closed => None,
            Endpoint::Handshaking(_) | Endpoint::Open(_) => {
                self.backlog.stalled_since().map(|since| since + config.limits.send_stall)
            }
        };
        match (protocol, stall) {
            (Some(_), stall) if self.is_deaf() => stall,
            (Some(protocol), Some(stall)) => Some(protocol.min(stall)),
            (protocol, stall) => protocol.or(stall),
        }
    }

    /// Whether the peer may say what it likes, because we do not read: no pong could be seen, nor
    /// the end of a message.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        matches!(self.rest, Rest::Throttled | Rest::Parked)
            && matches!(self.endpoint, Endpoint::Open(_))
    }

    /// Lets go of the session, if it has one, or stops watching; tells what it was.
    pub fn detach(&mut self) -> Attachment {
        let after = match self.attachment {
            Attachment::Live(_) => Attachment::Former,
            Attachment::Watching => Attachment::Never,
            before => before,
        };
        std::mem::replace(&mut self.attachment, after)
    }

    /// Whether it has, or had, a session.
    #[must_use]
    pub fn has_had_session(&self) -> bool {
        matches!(self.attachment, Attachment::Live(_) | Attachment::Former)
    }

    /// What a picture of the slab shows of it.
    #[must_use]
    pub fn tile(&self) -> Tile {
        match (&self.endpoint, self.attachment) {
            (Endpoint::Handshaking(_), _) => Tile::Handshaking,
            (Endpoint::Open(_), Attachment::Watching) => Tile::Watching,
            (Endpoint::Open(_), _) if self.rest == Rest::Throttled => Tile::Throttled,
            (Endpoint::Open(_), _) => Tile::Open,
            (Endpoint::Closing(_) | Endpoint::Closed, _) => Tile::Closing,
        }
    }

    /// Whether all that it is to be told has been told: it waits for a request, or lingers.
    #[must_use]
    pub fn owes_nothing(&self) -> bool {
        let is_waiting = matches!(
            self.endpoint,
            Endpoint::Handshaking(_) | Endpoint::Closing(Closing::Lingering { .. })
        );
        is_waiting && self.backlog.is_empty()
    }

    /// Bytes of storage that it holds beside its slot: the input not yet taken, the unfinished
    /// message, and the backlog.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.capacity());
        tail + self.endpoint.held_bytes() + self.backlog.storage()
    }

    /// Everything a hand-over takes along; the rest of the connection is dropped.
    #[must_use]
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.backlog.to_vec())
    }
}

/// One `write`, and what it says of the socket. A short one means full, as `WouldBlock` does: the
/// kernel has taken note that we want an edge.
fn write_once<S: Stream>(stream: &mut S, bytes: &[u8], writable: &mut bool) -> io::Result<usize> {
    match stream.write(bytes) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(count) => {
            *writable = count == bytes.len();
            Ok(count)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *writable = false;
            Ok(0)
        }
        // Still writable: the flush loop, or the next visit, tries again.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

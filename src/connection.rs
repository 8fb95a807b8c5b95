//! One line, one endpoint, and why they rest.
//!
//! What a visit reads it gets from [`Connection::fill`] or [`Connection::fill_past`]; what the
//! line leaves behind is written down there, and for the whole visit in [`Rest`]. Decides nothing
//! about protocol or sessions; the shard does.
//!
//! Invariant: a connection never rests without a waker (the table at [`Rest`]).
//!
//! Next: [`crate::connections`], where all of them live.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::config::Config;
use crate::door::Place;
use crate::line::{Inbound, Line, Stream};
use crate::picture::Tile;
use crate::protocol::endpoint::{Closing, Endpoint};
use crate::ready::Mark;
use crate::session::SessionSlot;
use crate::timer::Tick;
use crate::token::{ConnectionId, Peer};

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

/// The same, and what went past it.
#[derive(Debug, Clone, Copy)]
pub struct FilledPast {
    /// Bytes of a payload that were read where they go.
    pub past: usize,
    /// What stands in the receive buffer.
    pub filled: Filled,
}

/// One connection.
#[derive(Debug)]
pub struct Connection<S> {
    /// Its socket, and what waits for that.
    pub line: Line<S>,
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
    /// Bytes read and not yet taken: an incomplete head or frame header, or what a used-up share
    /// left.
    #[expect(clippy::box_collection, reason = "one word in each connection, for what few have")]
    tail: Option<Box<Vec<u8>>>,
    /// Whether it is to be visited.
    pub mark: Mark,
    /// Why it last stopped.
    pub rest: Rest,
    /// The tick of its live entry in the timer wheel.
    pub alarm: Option<Tick>,
}

impl<S: Stream> Connection<S> {
    /// A connection that has yet to send its first request.
    #[must_use]
    pub fn new(stream: S, id: ConnectionId, peer: SocketAddr, deadline: Instant) -> Self {
        Connection {
            line: Line::new(stream),
            id,
            peer: peer.into(),
            place: None,
            endpoint: Endpoint::new(deadline),
            attachment: Attachment::Never,
            tail: None,
            mark: Mark::default(),
            rest: Rest::Blocked,
            alarm: None,
        }
    }

    /// Whether nothing is left to be done for it: nothing to read, nothing to write, no reason for
    /// another visit, and it was read all along.
    #[inline]
    #[must_use]
    pub fn is_at_ease(&self) -> bool {
        self.line.inbound() == Inbound::Drained
            && self.line.backlog.is_empty()
            && !self.mark.is_set()
            && matches!(self.rest, Rest::Blocked | Rest::Spent)
    }

    /// Bytes that were read and that nobody has taken yet.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.len())
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
        let read = self.line.read(&mut buffer[kept..])?;
        Ok(Filled { kept, read })
    }

    /// [`Self::fill`] in the middle of a message: the rest of a long payload is read where it goes,
    /// and what comes behind it into `buffer`.
    ///
    /// # Errors
    ///
    /// As those of [`Self::fill`].
    pub fn fill_past(&mut self, buffer: &mut [u8], config: &Config) -> io::Result<FilledPast> {
        if let Endpoint::Open(open) = &mut self.endpoint
            && let Some(room) = open.payload_room(config)
        {
            debug_assert!(self.tail.is_none(), "what stands behind a header is of its payload");
            let most = room.len();
            let count = self.line.read_both(room, buffer)?;
            let past = count.min(most);
            open.has_read_payload(past);
            let filled = Filled { kept: 0, read: count - past };
            return Ok(FilledPast { past, filled });
        }
        self.fill(buffer).map(|filled| FilledPast { past: 0, filled })
    }

    /// Whether it is in the middle of a message.
    #[inline(always)]
    pub fn is_amid_message(&self) -> bool {
        matches!(&self.endpoint, Endpoint::Open(open) if open.is_amid_message())
    }

    /// Keeps what is left of the input for the next visit.
    #[inline(always)]
    pub fn keep(&mut self, rest: &[u8]) {
        debug_assert!(self.tail.is_none());
        if !rest.is_empty() {
            self.tail = Some(Box::new(rest.to_vec()));
        }
    }

    /// When the shard has to look at this connection, whatever happens.
    #[inline(always)]
    #[must_use]
    pub fn deadline(&self, config: &Config) -> Option<Instant> {
        let protocol = self.endpoint.deadline(config);
        if self.line.backlog.is_empty() && self.rest != Rest::Parked {
            return protocol;
        }
        self.deadline_with_backlog(protocol, config)
    }

    fn deadline_with_backlog(&self, protocol: Option<Instant>, config: &Config) -> Option<Instant> {
        let stall = match self.endpoint {
            // Our last words have a time of their own, whether or not the peer moves.
            Endpoint::Closing(_) | Endpoint::Closed => None,
            Endpoint::Handshaking(_) | Endpoint::Open(_) => {
                self.line.backlog.stalled_since().map(|since| since + config.limits.send_stall)
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
        is_waiting && self.line.backlog.is_empty()
    }

    /// Bytes of storage that it holds beside its slot: the input not yet taken, the unfinished
    /// message, and the backlog.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.capacity());
        tail + self.endpoint.held_bytes() + self.line.backlog.storage()
    }
}

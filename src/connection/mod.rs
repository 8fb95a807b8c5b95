//! One connection: a transport, an endpoint, and why they rest.
//!
//! A visit reads through [`Connection::fill`] or [`Connection::fill_past`]. What the transport leaves
//! behind is recorded there; why the whole visit stopped is recorded in [`Rest`]. Decides nothing about
//! protocol or sessions; the shard does. [`timer_wheel`] says when to look at a connection although nothing
//! happened, [`slab`] holds all connections of a reactor, [`ready`] those to visit in the next turn,
//! [`by_slot`] what is kept beside them for some.
//!
//! Invariant: a connection never rests without a waker (the table at [`Rest`]).
//!
//! Next: [`crate::connection::timer_wheel`]: when to look at one although nothing happened.

pub mod by_slot;
pub mod ready;
pub mod slab;
pub mod timer_wheel;

use std::io;
use std::time::Instant;

use crate::config::{Config, Limits};
use crate::connection::ready::Mark;
use crate::connection::timer_wheel::Tick;
use crate::protocol::ProtocolLimits;
use crate::protocol::endpoint::{Closing, Endpoint};
use crate::protocol::message::SPARE_BYTES;
use crate::session::SessionSlot;
use crate::token::{Entrance, LocalId, Peer, Visitor};
use crate::transport::connection_limiter::{LimitReached, Permit};
use crate::transport::out_buffer::BufferPool;
use crate::transport::tls::TlsSession;
use crate::transport::{HangUp, Inbound, Stream, Transport};

/// Why a connection stopped, and so what brings it back. Edge-triggered readiness is lost if one
/// stops early and forgets it; therefore every stop yields one of these, and each has exactly one
/// waker. Most have a deadline besides (ARCHITECTURE.md says which).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The socket said `WouldBlock`, or gave a short read: the kernel's next edge.
    Blocked,
    /// Its share of the turn is used up: the ready queue, next turn.
    Spent,
    /// Its backlog is above the high-water mark, and we do not read: its own flush, when the
    /// socket takes bytes again and the backlog falls below the low-water mark.
    Throttled,
    /// It waits for as many off-loaded jobs as it may, for the answer to its request, or for its session, which is
    /// claimed, and we do not read: an answer, in the mailbox. An edge that tells that the peer has hung up ends it before
    /// ([`Connection::look_for_hang_up`]), and so it does one that is waiting.
    Parked,
    /// It is to be handed over, and the owner's mailbox is full; or it has sent something to others,
    /// and too much is under way. We do not read: what waits (`shard/deliveries.rs`) is tried again each turn,
    /// and, while a mailbox is full, each millisecond.
    Waiting,
    /// What it is to be told must not leave before its session is stored, and we do not read: the store's
    /// mail. An edge that tells that the peer has hung up ends it before, as one that is parked.
    Committing,
    /// Closed, failed or timed out: the reaper, at the end of this turn.
    Ended,
}

impl Rest {
    /// Whether a connection that rests so is not read until something else than its socket allows it.
    #[inline]
    #[must_use]
    pub fn is_unread(self) -> bool {
        matches!(self, Rest::Parked | Rest::Waiting | Rest::Committing)
    }
}

/// What a connection has to do with a session.
#[derive(Debug, Clone, Copy)]
pub enum Attachment {
    /// It has had none: it has not upgraded, or it watched.
    Never,
    /// It is open, and speaks for this one.
    Live(LiveSession),
    /// It is open, and has no session: it is told what the reactors do (`shard/watching.rs`).
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

/// How a visit reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// Into the receive buffer, as much as fits: it is between two messages.
    Whole,
    /// The same, but it is amid a message, of which a long payload would go past the buffer.
    Amid,
    /// A payload has gone past the buffer, and the next message's may too. So a visit between the two
    /// messages reads no more than 4 KiB. The visit after that reads the rest where it goes, if the
    /// reactor has storage at hand, as it mostly has. Then 4 KiB are copied instead of 64, which saves
    /// 7 µs of an echoed megabyte's 260.
    Long,
    /// By way of its TLS session, always: into the receive buffer, whose size is enough for a record.
    Encrypted,
}

/// Bytes read of a message that may be long: its header and little of its payload, or all of it if it
/// is short after all.
const BEGINNING: usize = 4 << 10;

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
    pub transport: Transport<S>,
    /// Its name.
    pub id: LocalId,
    /// Who is at the other end.
    pub(crate) peer: Peer,
    /// Where it came in.
    pub(crate) entrance: Entrance,
    /// Its permit among the sockets, and its place among the open WebSockets, if those are limited;
    /// given back when it is dropped.
    pub permit: Option<Permit>,
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
    intake: Intake,
    /// How many times its deadline was put off, because there was unread input.
    put_off: u8,
    /// The tick of its live entry in the timer wheel.
    pub alarm: Option<Tick>,
}

impl<S: Stream> Connection<S> {
    /// A connection that has yet to send its first request.
    #[must_use]
    pub fn new(stream: S, id: LocalId, peer: Peer, deadline: Instant) -> Self {
        Connection {
            transport: Transport::new(stream),
            id,
            peer,
            entrance: Entrance::Public,
            permit: None,
            endpoint: Endpoint::new(deadline),
            attachment: Attachment::Never,
            tail: None,
            mark: Mark::default(),
            rest: Rest::Blocked,
            intake: Intake::Whole,
            put_off: 0,
            alarm: None,
        }
    }

    /// Who sends its requests, and where.
    #[must_use]
    pub fn visitor(&self) -> Visitor {
        Visitor { peer: self.peer, entrance: self.entrance }
    }

    /// Whether nothing is left to be done for it: nothing to read, nothing to write, no reason for
    /// another visit, and it was read all along.
    #[inline]
    #[must_use]
    pub fn is_at_ease(&self) -> bool {
        self.transport.inbound() == Inbound::Exhausted
            && self.transport.backlog.is_empty()
            && !self.mark.is_set()
            && matches!(self.rest, Rest::Blocked | Rest::Spent)
    }

    /// Bytes that were read and have not been taken yet.
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
        let read = self.transport.read(&mut buffer[kept..])?;
        Ok(Filled { kept, read })
    }

    /// [`Self::fill`] where it [`Self::reads_past`]: the rest of a long payload is read where it
    /// goes, and what comes behind it into `buffer`.
    ///
    /// # Errors
    ///
    /// As those of [`Self::fill`].
    pub fn fill_past(
        &mut self,
        buffer: &mut [u8],
        limits: &ProtocolLimits,
    ) -> io::Result<FilledPast> {
        if let Endpoint::Open(open) = &mut self.endpoint
            && let Some(room) = open.payload_room(limits)
        {
            debug_assert!(self.tail.is_none(), "what stands behind a header is of its payload");
            let most = room.len();
            let count = self.transport.read_both(room, buffer)?;
            let past = count.min(most);
            open.note_read_payload(past);
            // Without storage at hand the beginning would be read by itself for nothing.
            self.intake = match self.endpoint.held_bytes() <= SPARE_BYTES {
                true => Intake::Long,
                false => Intake::Amid,
            };
            let filled = Filled { kept: 0, read: count - past };
            return Ok(FilledPast { past, filled });
        }
        let mut most = buffer.len();
        if !self.is_amid_message() {
            self.intake = Intake::Whole;
            most = most.min(self.tail_bytes() + BEGINNING);
        }
        self.fill(&mut buffer[..most]).map(|filled| FilledPast { past: 0, filled })
    }

    /// From now on it is encrypted.
    pub fn encrypt(&mut self, session: TlsSession) {
        self.transport.encrypt(session);
        self.intake = Intake::Encrypted;
    }

    /// [`Self::fill`] where it is encrypted: what the session has to say is sent. A part of a record that has come is a
    /// sign of life, as a part of a frame is.
    ///
    /// # Errors
    ///
    /// As those of [`Transport::read_encrypted`].
    pub fn fill_encrypted(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        limits: &ProtocolLimits,
        pool: &mut BufferPool,
    ) -> io::Result<Filled> {
        let tail = self.take_tail();
        let kept = tail.len();
        buffer[..kept].copy_from_slice(&tail);
        let read = self.transport.read_encrypted(&mut buffer[kept..], now, pool)?;
        if read.wire > 0 && self.transport.tls().is_some_and(TlsSession::is_amid_record) {
            self.endpoint.note_alive(now, limits);
        }
        Ok(Filled { kept, read: read.plain })
    }

    /// Whether more than the receive buffer may be needed to read it. To ask this of a byte, and not
    /// the endpoint whether it is amid a message, saves three instructions a visit.
    #[inline(always)]
    #[must_use]
    pub fn reads_past(&self) -> bool {
        self.intake != Intake::Whole
    }

    /// Whether it is in the middle of a message.
    #[must_use]
    pub fn is_amid_message(&self) -> bool {
        matches!(&self.endpoint, Endpoint::Open(open) if open.is_amid_message())
    }

    /// Whether a frame has begun and is not whole, given what is left of the input.
    #[must_use]
    pub fn is_amid_frame(&self, left: &[u8]) -> bool {
        match &self.endpoint {
            Endpoint::Open(open) => !left.is_empty() || open.owed_bytes() > 0,
            _ => false,
        }
    }

    /// Takes note of where the input ended: amid a message or between two.
    pub fn note_intake(&mut self) {
        self.intake = match (self.intake, self.is_amid_message()) {
            (Intake::Whole, true) => Intake::Amid,
            (Intake::Amid, false) => Intake::Whole,
            (same, _) => same,
        };
    }

    /// So much of what was kept is not to be heard again.
    pub fn skip(&mut self, bytes: usize) {
        if let Some(tail) = &mut self.tail {
            tail.drain(..bytes.min(tail.len()));
            if tail.is_empty() {
                self.tail = None;
            }
        }
    }

    /// Takes out what was kept.
    pub fn take_tail(&mut self) -> Vec<u8> {
        self.tail.take().map_or_else(Vec::new, |tail| *tail)
    }

    /// Whether the WebSocket is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.endpoint, Endpoint::Open(_))
    }

    /// Whether more than the high-water mark waits for its peer. Then it is not heard, and what is sent to
    /// it outside of its own visit ends it. One rule for all of that: timers, answers of off-loaded jobs,
    /// broadcasts. The length of what is sent does not count: it is not the peer's fault.
    #[must_use]
    pub fn is_above_mark(&self, config: &Config) -> bool {
        self.transport.backlog.len() > config.max_send_buffer
    }

    /// Keeps what is left of the input for the next visit.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    #[inline(always)]
    pub fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        debug_assert!(self.tail.is_none());
        if !rest.is_empty() {
            let mut tail = Vec::new();
            tail.try_reserve_exact(rest.len())?;
            tail.extend_from_slice(rest);
            self.tail = Some(Box::new(tail));
        }
        Ok(())
    }

    /// When the shard has to look at this connection, whatever happens.
    #[inline(always)]
    #[must_use]
    pub fn deadline(&self, limits: &ProtocolLimits, config: &Config) -> Option<Instant> {
        let protocol = self.endpoint.deadline(limits);
        if self.transport.backlog.is_empty() && !self.rest.is_unread() {
            return protocol;
        }
        self.deadline_with_backlog(protocol, config)
    }

    fn deadline_with_backlog(&self, protocol: Option<Instant>, config: &Config) -> Option<Instant> {
        let stall = match self.endpoint {
            // Our last words have a time of their own, whether or not the peer moves.
            Endpoint::Closing(_) | Endpoint::Closed => None,
            Endpoint::Handshaking(_) | Endpoint::Pending(_) | Endpoint::Open(_) => {
                self.transport.backlog.stalled_since().map(|since| since + config.limits.send_stall)
            }
        };
        match (protocol, stall) {
            (Some(_), stall) if self.is_deaf() => stall,
            (Some(protocol), Some(stall)) => Some(protocol.min(stall)),
            (protocol, stall) => protocol.or(stall),
        }
    }

    /// Whether the connection is open and not read. Then neither a pong nor the end of a message can
    /// be seen, so the peer must not be judged by them.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        (self.rest == Rest::Throttled || self.rest.is_unread()) && self.is_open()
    }

    /// Whether the peer of a connection that is not read has hung up. Where only the peer's half has
    /// ended, that is so behind all that the peer said before; and of an open WebSocket alone, because a
    /// client that has ended its half may still get the answer to its request.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    pub fn look_for_hang_up(&mut self) -> io::Result<HangUp> {
        match self.transport.inbound() {
            Inbound::Broken => Ok(HangUp::Broken),
            _ if !self.is_open() || self.has_kept_input() => Ok(HangUp::NotYet),
            _ => self.transport.look_for_hang_up(),
        }
    }

    /// All input has been read: what is due from now on may be put off anew.
    #[inline]
    pub fn note_all_heard(&mut self) {
        self.put_off = 0;
    }

    /// Whether its next visit finds input: in the socket, or left over by one whose share was used up.
    #[must_use]
    pub fn has_unheard_input(&self) -> bool {
        self.rest == Rest::Spent && (self.transport.has_readable() || self.has_kept_input())
    }

    /// Whether some of what was read is still to be heard: a tail, or the rest of a message that inflates.
    pub fn has_kept_input(&self) -> bool {
        self.tail.is_some() || matches!(&self.endpoint, Endpoint::Open(open) if open.is_inflating())
    }

    /// Whether what is due is put off, because the next visit finds input: by a tick each time, and by
    /// [`Limits::overdue_ticks`] at the most until all input has been read.
    pub fn is_put_off(&mut self, limits: &Limits) -> bool {
        let is_put_off = self.has_unheard_input() && self.put_off < limits.overdue_ticks;
        self.put_off += u8::from(is_put_off);
        is_put_off
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

    /// Takes a place among the open WebSockets.
    ///
    /// # Errors
    ///
    /// [`LimitReached::Concurrency`], if they are limited and all places are taken.
    pub fn take_place(&mut self, config: &Config) -> Result<(), LimitReached> {
        match &mut self.permit {
            Some(permit) => permit.take_place(config),
            None => {
                debug_assert!(config.limit_concurrency.is_none(), "a limit, and no permit");
                Ok(())
            }
        }
    }

    /// Passes its place, if it has one, on to the connection that takes over its session.
    pub fn pass_place(&mut self, newer: &mut Connection<S>) {
        if let (Some(older), Some(newer)) = (&mut self.permit, &mut newer.permit) {
            older.pass_place(newer);
        }
    }

    /// Gives its place back, if it has one.
    pub fn return_place(&mut self) {
        if let Some(permit) = &mut self.permit {
            permit.return_place();
        }
    }

    /// Whether it has, or had, a session.
    #[must_use]
    pub fn has_had_session(&self) -> bool {
        matches!(self.attachment, Attachment::Live(_) | Attachment::Former)
    }

    /// Whether all that it is to be told has been told: it waits for a request, or lingers.
    #[must_use]
    pub fn owes_nothing(&self) -> bool {
        let is_waiting = matches!(
            self.endpoint,
            Endpoint::Handshaking(_) | Endpoint::Closing(Closing::Lingering { .. })
        );
        is_waiting && self.transport.backlog.is_empty()
    }

    /// Bytes of storage that it holds beside its slot: the input not yet taken, the unfinished
    /// message, and the backlog.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.capacity());
        let tls = self.transport.tls().map_or(0, TlsSession::held_bytes);
        tail + tls + self.endpoint.held_bytes() + self.transport.backlog.storage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::endpoint::Event;
    use crate::protocol::message::Scratch;
    use crate::transport::Edge;
    use std::io::{Read, Write};

    /// Has said all that it will say, and tells how much of it each read asked for.
    struct Asked {
        said: Vec<u8>,
        reads: Vec<usize>,
    }

    impl Read for Asked {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads.push(buffer.len());
            let count = self.said.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.said[..count]);
            self.said.drain(..count);
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }
    }

    impl Write for Asked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Asked {
        fn half_close(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn peek(&mut self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("it is read")
        }
    }

    /// A binary message of zeros, in one frame of which the mask is zero.
    fn frame(length: usize) -> Vec<u8> {
        let mut frame = match u16::try_from(length) {
            Ok(length) => [&[0x82, 0xfe][..], &length.to_be_bytes()].concat(),
            Err(_) => [&[0x82, 0xff][..], &(length as u64).to_be_bytes()].concat(),
        };
        frame.resize(frame.len() + 4 + length, 0);
        frame
    }

    #[test]
    fn behind_a_long_message_the_beginning_of_the_next_is_read_by_itself() {
        const ROOM: usize = 64 << 10;
        let (now, limits) = (Instant::now(), ProtocolLimits::from(&Config::default()));
        let peer = Peer::Unix;
        let id = LocalId { index: 0, generation: std::num::NonZeroU32::MIN };
        let stream = Asked { said: Vec::new(), reads: Vec::new() };
        let mut connection = Connection::new(stream, id, peer, now);
        connection.endpoint.open(None, now, &limits);
        let (mut buffer, mut scratch, mut out) = (vec![0; ROOM], Scratch::default(), Vec::new());
        // What is said, what the first read asks for, and what the visit behind it is.
        for (length, first, after) in [
            (1000, ROOM, Intake::Whole),
            (100_000, ROOM, Intake::Long),
            (300_000, BEGINNING, Intake::Long),
            (1 << 20, BEGINNING, Intake::Long),
            (1000, BEGINNING, Intake::Whole),
            (1000, ROOM, Intake::Whole),
            // More than the storage that the reactor keeps.
            (2 << 20, ROOM, Intake::Whole),
            // Amid a message, and too little of it is to come to be read past the buffer.
            (ROOM, ROOM, Intake::Whole),
        ] {
            connection.transport.stream_mut().said = frame(length);
            connection.transport.note(Edge { readable: true, ..Edge::default() });
            let mut heard = Vec::new();
            while connection.transport.has_readable() {
                let Filled { kept, read } = match connection.reads_past() {
                    true => connection.fill_past(&mut buffer, &limits).unwrap().filled,
                    false => connection.fill(&mut buffer).unwrap(),
                };
                let (input, mut at) = (&mut buffer[..kept + read], 0);
                let Endpoint::Open(open) = &mut connection.endpoint else { panic!("closed") };
                while let Some(Event::Message(message)) =
                    open.next(input, &mut at, &mut scratch, &limits, now, &mut out).unwrap()
                {
                    heard.push(message.as_bytes().len());
                }
                assert_eq!(at, input.len());
                connection.note_intake();
                assert!(connection.reads_past() || !connection.is_amid_message());
            }
            assert_eq!(heard, [length]);
            let reads = std::mem::take(&mut connection.transport.stream_mut().reads);
            assert_eq!((reads[0], connection.intake), (first, after), "{length}");
        }
    }
}

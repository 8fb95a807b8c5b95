//! One socket: what is known of its readiness, and what waits for it.
//!
//! [`Transport::read`], [`Transport::send`] and their like are the only places that read and write a
//! socket. None of them loops until `WouldBlock`: each stops at its share, and records what it leaves
//! behind in [`Inbound`] and in `writable`. Knows no protocol. [`socket`] is the operating system's
//! stream, [`tls`] what may stand between it and the protocol, [`out_buffer`] holds bytes that wait for it, `encrypted` is a
//! transport with TLS in it, [`network`] says which addresses count as one,
//! [`connection_limiter`] counts sockets, [`unix_listener`] and [`listener`] open those that listen.
//!
//! Invariant: a call whose answer is known is not made. After a short read nothing is read, and after
//! a short write nothing is written, before the next edge.
//!
//! # Where the codec is
//!
//! Without TLS what the socket gives is what the protocol reads. With TLS ([`tls`]) two facts are made of each of three,
//! all in [`Transport`]; nothing outside of it reads the socket, writes it, or ends its half:
//!
//! - **Readable** is "the socket may give something", or "the session holds plaintext", for which no edge comes:
//!   [`Inbound::Decrypted`] is the second without the first. A short read of the socket says nothing of the plaintext,
//!   and none of plaintext of the socket. [`Inbound::Ended`] comes behind the plaintext, whatever the socket has said.
//! - **Backlog** is bytes that the socket has not taken: ciphertext, encrypted before it waits. What a handshake has to
//!   send belongs to it too, so it may grow by a read ([`Transport::read_encrypted`]).
//! - **Half-closing** waits until close_notify has left ([`Transport::say_goodbye`]), which is backlog.
//!
//! A hand-over ([`Transport::into_parts`]) moves the socket, the backlog and the session.
//!
//! Next: [`crate::transport::socket`]: the descriptor.

pub mod connection_limiter;
mod encrypted;
pub mod listener;
pub mod network;
pub mod out_buffer;
pub mod socket;
pub mod tls;
pub mod unix_listener;

use std::collections::TryReserveError;
use std::io;
use std::time::Instant;

#[cfg(feature = "internals")]
pub use crate::transport::encrypted::Decrypted;
use crate::transport::out_buffer::{BufferPool, OutBuffer, Stage};
use crate::transport::tls::TlsSession;

/// What a connection needs of a socket; in tests, of a script.
pub trait Stream: io::Read + io::Write {
    /// Ends our half of the stream; the peer's goes on.
    ///
    /// # Errors
    ///
    /// When the socket is gone.
    fn half_close(&mut self) -> io::Result<()>;

    /// Reads into `room`, and leaves what it has read in the stream.
    ///
    /// # Errors
    ///
    /// As those of a read.
    fn peek(&mut self, room: &mut [u8]) -> io::Result<usize>;

    /// Reads into `first`, and behind that into `second`. A stream that has no call for this reads into
    /// one piece of storage and copies.
    ///
    /// # Errors
    ///
    /// As those of a read.
    fn read_both(&mut self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        let mut joined = vec![0; first.len() + second.len()];
        let count = self.read(&mut joined)?;
        let (to_first, to_second) = joined.split_at(first.len());
        first.copy_from_slice(to_first);
        second.copy_from_slice(to_second);
        Ok(count)
    }

    /// Writes `first`, and behind that `second`. A stream that has no call for this joins them first.
    ///
    /// # Errors
    ///
    /// As those of a write.
    fn write_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        self.write(&[first, second].concat())
    }
}

/// What a poll reports of a socket.
#[derive(Debug, Default, Clone, Copy)]
pub struct Edge {
    /// There is something to read.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer has ended its half, or is gone.
    pub read_closed: bool,
    /// There is urgent data (RFC 9293 3.8.5) in what is to be read.
    pub urgent: bool,
    /// The connection is broken: then `read_closed` is set too, and nothing can be sent either.
    pub reset: bool,
}

impl Edge {
    /// Whether there is anything to report.
    #[must_use]
    pub fn any(self) -> bool {
        self.readable || self.writable || self.read_closed || self.urgent
    }
}

/// What is known of the stream's reading side. In order: an edge takes it forward, never back, but for
/// one that says that the connection is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inbound {
    /// The socket is empty; an edge will report the next bytes.
    Exhausted,
    /// The socket is empty, and the TLS session is not: what it holds no edge will report.
    Decrypted,
    /// An edge said there is something, and no short read has said otherwise since.
    Readable,
    /// The same, and there is urgent data in it. A read stops at the urgent mark, so a short read does
    /// not mean empty: what stands behind the mark was there before the edge was reported. Only
    /// `WouldBlock` means empty.
    Urgent,
    /// The same as `Readable`, and the peer's FIN stands behind it. After a short read the FIN is still
    /// to be read, and no further edge will come for it.
    Final,
    /// An edge said that the connection is broken. Bytes that came before may still be there; behind
    /// them a read fails.
    Broken,
    /// The FIN has been read.
    Ended,
}

/// What is known, without reading, of the end of a stream that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// The peer is there; or there is something to read before its end.
    NotYet,
    /// The peer has ended its half, and all that it said has been read.
    Ended,
    /// The connection is broken.
    Broken,
}

/// Where a callback's longest replies leave, without a copy.
pub(crate) trait Outlet {
    /// Sends what stands in `cork`, and `payload` behind it, as far as the socket takes that now;
    /// what it does not take is what stands in `cork` afterwards. How many bytes have left.
    ///
    /// # Errors
    ///
    /// When there is no memory for the rest of `payload`: then that does not stand in `cork`. How
    /// many bytes have left all the same.
    fn send_past(&mut self, cork: &mut Vec<u8>, payload: &[u8]) -> Result<usize, usize>;

    /// Sends nothing more: the stream has a hole. The next [`Transport::send`] fails.
    fn cut(&mut self);

    /// Bytes that wait for the socket, without those in the cork.
    fn backlog_bytes(&self) -> usize;

    /// Whether the socket has taken all that it was offered, and is not known to be full.
    fn takes_more(&self) -> bool;
}

/// A socket, and what waits for it.
#[derive(Debug)]
pub struct Transport<S> {
    stream: S,
    /// What is between the socket and the protocol, if it is encrypted. No room is taken for it in a build without TLS.
    tls: Option<TlsSession>,
    /// What waits for the socket.
    pub backlog: OutBuffer,
    inbound: Inbound,
    writable: bool,
    /// Whether something is missing in what was sent; then `writable` is false.
    is_cut: bool,
    /// Whether replies may have to wait for a store: then none leaves past the cork.
    is_gated: bool,
    /// Bytes that have left or wait: not those that were discarded, nor those of a failed write.
    pub bytes_out: u64,
}

impl<S: Stream> Transport<S> {
    /// Of a socket of which no edge is known yet.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Transport {
            stream,
            tls: None,
            backlog: OutBuffer::default(),
            inbound: Inbound::Exhausted,
            // True of every fresh socket; if not, the first write will tell.
            writable: true,
            is_cut: false,
            is_gated: false,
            bytes_out: 0,
        }
    }

    /// Takes note of an edge. Acting on it is for the turn.
    #[inline]
    pub fn note(&mut self, edge: Edge) {
        self.writable |= edge.writable;
        let noted = match edge {
            Edge { read_closed: true, .. } => return self.note_end(edge.reset),
            Edge { urgent: true, .. } => Inbound::Urgent,
            Edge { readable: true, .. } => Inbound::Readable,
            _ => Inbound::Exhausted,
        };
        self.inbound = self.inbound.max(noted);
    }

    #[cold]
    fn note_end(&mut self, reset: bool) {
        self.inbound = match reset {
            // Even if its FIN has been read: nothing can be sent any more.
            true => Inbound::Broken,
            false => self.inbound.max(Inbound::Final),
        };
    }

    /// What is known of the reading side.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        self.inbound
    }

    /// Whether the peer's FIN has come: it will send no more than what is here already.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.inbound, Inbound::Final | Inbound::Broken | Inbound::Ended)
    }

    /// Whether the peer has hung up, for a connection that is not read. Where a FIN has come, this looks
    /// whether something stands before it; so it is asked when the connection stops being read, and
    /// at its edges, not all the time.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    pub fn look_for_hang_up(&mut self) -> io::Result<HangUp> {
        match self.inbound {
            Inbound::Exhausted | Inbound::Decrypted | Inbound::Readable | Inbound::Urgent => {
                return Ok(HangUp::NotYet);
            }
            Inbound::Broken => return Ok(HangUp::Broken),
            Inbound::Ended => return Ok(HangUp::Ended),
            Inbound::Final => {}
        }
        if self.tls.as_ref().is_some_and(TlsSession::has_waiting) {
            return Ok(HangUp::NotYet);
        }
        match self.stream.peek(&mut [0]) {
            Ok(0) => {
                self.inbound = Inbound::Ended;
                Ok(HangUp::Ended)
            }
            Ok(_) => Ok(HangUp::NotYet),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.inbound = Inbound::Exhausted;
                Ok(HangUp::NotYet)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there may be something to read.
    #[inline]
    #[must_use]
    pub fn has_readable(&self) -> bool {
        matches!(
            self.inbound,
            Inbound::Decrypted
                | Inbound::Readable
                | Inbound::Urgent
                | Inbound::Final
                | Inbound::Broken
        )
    }

    /// Whether the socket took all that it was last offered.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Ends our half of the stream, once nothing waits for the socket.
    ///
    /// # Errors
    ///
    /// When the socket is gone.
    pub fn half_close(&mut self) -> io::Result<()> {
        self.stream.half_close()
    }

    /// The socket, for its registration.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// One read, if there may be something and there is room for it.
    ///
    /// # Errors
    ///
    /// What ended the connection: a reset, mostly.
    #[inline(always)]
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() || !self.has_readable() {
            return Ok(0);
        }
        let outcome = self.stream.read(room);
        self.has_read(outcome, room.len())
    }

    /// The same into two pieces, the first of which is full before the second gets a byte.
    ///
    /// # Errors
    ///
    /// As those of [`Self::read`].
    pub fn read_both(&mut self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        let room = first.len() + second.len();
        if room == 0 || !self.has_readable() {
            return Ok(0);
        }
        let outcome = self.stream.read_both(first, second);
        self.has_read(outcome, room)
    }

    /// What a read says of the socket.
    #[inline(always)]
    fn has_read(&mut self, outcome: io::Result<usize>, room: usize) -> io::Result<usize> {
        match outcome {
            Ok(0) => self.inbound = Inbound::Ended,
            Ok(count) => {
                // A short read means empty: no second one just to hear `WouldBlock`. (On Linux: a
                // read of several pieces fills one after the other, a signal ends none that has got
                // something, and what comes meanwhile brings an edge of its own. One peer is an
                // exception: a process on a Unix socket that passes descriptors with its bytes. A
                // read stops behind those, so what it sent next is read at its next edge, which our
                // ping brings at the latest. It delays itself alone.)
                if count < room && self.inbound == Inbound::Readable {
                    self.inbound = Inbound::Exhausted;
                }
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.inbound = Inbound::Exhausted;
            }
            // The visit ends with `inbound` still readable, so it comes again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(0)
    }

    /// Sends, as far as the socket takes it now; the rest joins the backlog.
    ///
    /// # Errors
    ///
    /// What ended the connection; of kind [`io::ErrorKind::OutOfMemory`] if it was that the rest could
    /// not be kept.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], now: Instant, pool: &mut BufferPool) -> io::Result<()> {
        if self.tls.is_some() {
            return self.send_encrypted(bytes, now, pool);
        }
        self.send_as_it_is(bytes, now, pool)
    }

    #[inline(always)]
    fn send_as_it_is(
        &mut self,
        bytes: &[u8],
        now: Instant,
        pool: &mut BufferPool,
    ) -> io::Result<()> {
        self.bytes_out += bytes.len() as u64;
        let mut sent = 0;
        if self.writable && self.backlog.is_empty() && !bytes.is_empty() {
            let outcome = self.stream.write(bytes);
            sent = match has_written(outcome, bytes.len(), &mut self.writable) {
                Ok(sent) => sent,
                Err(error) => return Err(self.take_back(bytes, error)),
            };
        }
        if sent < bytes.len() {
            self.let_wait(&bytes[sent..], now, pool)?;
        }
        Ok(())
    }

    /// From now on all that callbacks say comes by the cork, however long it is.
    pub fn gate(&mut self) {
        self.is_gated = true;
    }

    /// Lets bytes wait until this batch is stored.
    ///
    /// # Errors
    ///
    /// As those of [`Self::send`].
    pub fn hold(
        &mut self,
        bytes: &[u8],
        stage: Stage,
        now: Instant,
        pool: &mut BufferPool,
    ) -> io::Result<()> {
        let hold = |transport: &mut Self, bytes: &[u8], pool: &mut BufferPool| {
            transport.bytes_out += bytes.len() as u64;
            transport.queue(bytes, |backlog| backlog.push_held(bytes, stage, now, pool))
        };
        match self.tls {
            Some(_) => self.seal(bytes, pool, hold),
            None => hold(self, bytes, pool),
        }
    }

    /// What is held will not leave. How many bytes that were.
    pub fn drop_held(&mut self, pool: &mut BufferPool) -> usize {
        let dropped = self.backlog.drop_held(pool);
        self.bytes_out -= dropped as u64;
        dropped
    }

    /// Queues bytes, which are counted already; those for which there is no memory are not any more.
    fn let_wait(&mut self, bytes: &[u8], now: Instant, pool: &mut BufferPool) -> io::Result<()> {
        self.queue(bytes, |backlog| backlog.push(bytes, now, pool))
    }

    fn queue(
        &mut self,
        bytes: &[u8],
        push: impl FnOnce(&mut OutBuffer) -> Result<(), TryReserveError>,
    ) -> io::Result<()> {
        let before = self.backlog.len();
        let kept = match self.is_cut {
            // That there was no memory has been told when it was cut.
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => push(&mut self.backlog).map_err(io::Error::from),
        };
        kept.inspect_err(|_| {
            let queued = self.backlog.len() - before;
            self.bytes_out -= (bytes.len() - queued) as u64;
        })
    }

    /// What a failed write was to send has not been sent. Out of the way, where it is rare: to count
    /// behind each write would cost it three instructions.
    #[cold]
    #[inline(never)]
    fn take_back(&mut self, bytes: &[u8], error: io::Error) -> io::Error {
        self.bytes_out -= bytes.len() as u64;
        error
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
        while self.writable && share > 0 && self.backlog.has_free() {
            let front = self.backlog.front();
            let offered = &front[..front.len().min(share)];
            let outcome = self.stream.write(offered);
            let count = has_written(outcome, offered.len(), &mut self.writable)?;
            share -= count;
            self.backlog.advance(count, now, pool);
        }
        Ok(())
    }

    /// Lets bytes wait that another reactor's transport of this socket had not sent.
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn inherit(
        &mut self,
        unsent: &[u8],
        now: Instant,
        pool: &mut BufferPool,
    ) -> io::Result<()> {
        self.bytes_out += unsent.len() as u64;
        self.let_wait(unsent, now, pool)
    }

    /// Throws away what waits, and says how many bytes that were.
    pub fn discard(&mut self, pool: &mut BufferPool) -> usize {
        let discarded = self.backlog.len();
        self.bytes_out -= discarded as u64;
        self.backlog.clear(pool);
        discarded
    }

    /// Bytes that the socket has taken.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.bytes_out - self.backlog.len() as u64
    }

    /// The socket, what has not left, and what is between the socket and the protocol.
    ///
    /// # Errors
    ///
    /// When there is no memory for the second as one piece.
    pub fn into_parts(self) -> io::Result<(S, Vec<u8>, Option<TlsSession>)> {
        let unsent = self.backlog.to_vec()?;
        Ok((self.stream, unsent, self.tls))
    }
}

impl<S: Stream> Outlet for Transport<S> {
    fn send_past(&mut self, cork: &mut Vec<u8>, payload: &[u8]) -> Result<usize, usize> {
        let mut sent = 0;
        if self.writable && self.backlog.is_empty() && !self.is_gated {
            let outcome = self.stream.write_both(cork, payload);
            // An error comes again when the cork is written, and there is somebody who hears it.
            sent = has_written(outcome, cork.len() + payload.len(), &mut self.writable)
                .unwrap_or_default();
        }
        self.bytes_out += sent as u64;
        let of_cork = sent.min(cork.len());
        cork.drain(..of_cork);
        let rest = &payload[sent - of_cork..];
        // No more than that: storage in which nothing stands may be filled unasked.
        if cork.try_reserve_exact(rest.len()).is_err() {
            return Err(sent);
        }
        cork.extend_from_slice(rest);
        Ok(sent)
    }

    fn cut(&mut self) {
        (self.is_cut, self.writable) = (true, false);
    }

    fn backlog_bytes(&self) -> usize {
        self.backlog.len()
    }

    fn takes_more(&self) -> bool {
        self.writable && self.backlog.is_empty()
    }
}

/// What a write of `offered` bytes says of the socket. A short one means full, as `WouldBlock`
/// does: the kernel has taken note that we want an edge.
#[inline(always)]
fn has_written(
    outcome: io::Result<usize>,
    offered: usize,
    writable: &mut bool,
) -> io::Result<usize> {
    match outcome {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(count) => {
            *writable = count == offered;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Takes and gives as much as it is told to.
    struct Doled {
        input: Vec<u8>,
        output: Vec<u8>,
        room: usize,
        fails: bool,
    }

    impl Read for Doled {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.input.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.input[..count]);
            self.input.drain(..count);
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }
    }

    impl Write for Doled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.fails {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = self.room.min(bytes.len());
            self.output.extend_from_slice(&bytes[..count]);
            self.room -= count;
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Doled {
        fn half_close(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn peek(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let count = self.input.len().min(room.len());
            room[..count].copy_from_slice(&self.input[..count]);
            Ok(count)
        }
    }

    fn line(input: &[u8], room: usize) -> Transport<Doled> {
        Transport::new(Doled { input: input.to_vec(), output: Vec::new(), room, fails: false })
    }

    #[test]
    fn a_read_into_two_pieces_fills_the_first_one_first() {
        for length in 0..8 {
            let mut line = line(&b"abcdefgh"[..length], 0);
            line.note(Edge { readable: true, ..Edge::default() });
            let (mut first, mut second) = ([0; 3], [0; 4]);
            let count = line.read_both(&mut first, &mut second).unwrap();
            assert_eq!(count, length.min(7));
            assert_eq!([&first[..], &second].concat()[..count], b"abcdefgh"[..count]);
            let is_short = length < 7;
            assert_eq!(line.inbound() == Inbound::Exhausted, is_short, "{length}");
        }
    }

    #[test]
    fn a_hang_up_is_seen_behind_what_was_read_and_nothing_is_lost_for_it() {
        let fin = Edge { readable: true, read_closed: true, ..Edge::default() };
        let mut line = line(b"ab", 0);
        assert_eq!(line.look_for_hang_up().unwrap(), HangUp::NotYet);
        line.note(fin);
        for _ in 0..2 {
            assert_eq!(
                line.look_for_hang_up().unwrap(),
                HangUp::NotYet,
                "two bytes stand before it"
            );
        }
        let mut room = [0; 8];
        assert_eq!((line.read(&mut room).unwrap(), &room[..2]), (2, &b"ab"[..]));
        assert_eq!(line.look_for_hang_up().unwrap(), HangUp::Ended);
        assert_eq!(line.inbound(), Inbound::Ended);
        line.note(Edge { reset: true, ..fin });
        assert_eq!(line.look_for_hang_up().unwrap(), HangUp::Broken, "and then it was reset");
        assert!(line.has_ended() && line.has_readable());
    }

    #[test]
    fn what_does_not_leave_past_the_cork_stands_in_it() {
        for room in 0..=10 {
            let mut line = line(b"", room);
            let mut cork = b"cork".to_vec();
            assert_eq!(line.send_past(&mut cork, b"payload"), Ok(room));
            assert!(!line.is_writable(), "{room}: a short write");
            assert_eq!([&line.stream.output[..], &cork].concat(), b"corkpayload");
            assert_eq!(line.bytes_out, room as u64);
        }
        let mut line = line(b"", 11);
        let mut cork = b"cork".to_vec();
        assert_eq!(line.send_past(&mut cork, b"payload"), Ok(11));
        assert!(cork.is_empty() && line.is_writable());
    }

    #[test]
    fn nothing_overtakes_the_backlog_and_an_error_is_left_to_who_can_hear_it() {
        let mut pool = BufferPool::default();
        let now = Instant::now();
        let mut line = line(b"", 1);
        line.send(b"first", now, &mut pool).unwrap();
        line.note(Edge { writable: true, ..Edge::default() });
        line.stream.room = 100;
        let mut cork = b"cork".to_vec();
        assert_eq!(line.send_past(&mut cork, b"payload"), Ok(0));
        assert_eq!(cork, b"corkpayload");
        line.flush(100, now, &mut pool).unwrap();
        line.stream.fails = true;
        assert_eq!(line.send_past(&mut cork, b"!"), Ok(0));
        assert_eq!(cork, b"corkpayload!");
        assert!(line.send(&cork, now, &mut pool).is_err());
    }

    #[test]
    fn nothing_is_sent_behind_a_hole() {
        let mut pool = BufferPool::default();
        let now = Instant::now();
        let mut line = line(b"", 100);
        line.cut();
        let error = line.send(b"a Close", now, &mut pool).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(line.stream.output.is_empty() && line.backlog.is_empty());
        assert_eq!(line.bytes_out, 0, "what will never leave is not counted");
    }
}

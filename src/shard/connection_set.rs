//! The connections of a shard, and everything that brings one back: the ready queue, the timer wheel,
//! the reaper's list.
//!
//! [`ConnectionSet::settle`] is the end of everything that is done for a connection: it finds the
//! [`Rest`] that fits, and so the waker. Knows no session, no application and no other reactor. Called by
//! all steps of a turn.
//!
//! Invariant: a connection that was settled has the waker that its [`Rest`] names, and an alarm for its
//! deadline.
//!
//! Next: `runtime`, which owns the application.

use std::io;
use std::time::Instant;

use super::turn::{Setup, Turn};
use crate::config::Config;
use crate::connection::ready::ReadyQueue;
use crate::connection::slab::Connections;
use crate::connection::timer_wheel::{Due, Slot, TimerWheel};
use crate::connection::{Attachment, Connection, Rest};
use crate::observe::snapshot::Outgoing;
use crate::protocol::endpoint::{Endpoint, QueueLeft, Unread};
use crate::token::LocalId;
use crate::transport::out_buffer::BufferPool;
use crate::transport::tls::{Handshakes, TlsSession};
use crate::transport::{Edge, HangUp, Inbound, Stream};

/// What a visit has left of the connection's share of the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Something, or there was no visit: an edge will report more input.
    Left,
    /// Nothing: it goes on in the next turn.
    UsedUp,
}

/// Whether a connection may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Its backlog is within the mark.
    Enough,
    /// So much waits to be sent to it that it is not to be read now.
    None,
    /// Its backlog was above the high-water mark, and has just fallen to the low-water mark: the
    /// application is told before the connection is read.
    Regained,
}

/// The connections of a reactor, and what brings each of them back.
pub(super) struct ConnectionSet<S> {
    pub(super) slab: Connections<S>,
    pub(super) pool: BufferPool,
    ready: ReadyQueue,
    wheel: TimerWheel,
    /// Alarms that have gone off, and whose connections have not been looked at yet.
    due: Due,
    /// The connections that the reaper takes out at the end of this turn.
    ended: Vec<LocalId>,
    /// What is about to be written to a connection outside its own visit.
    pub(super) aside: Vec<u8>,
    /// How many sockets may have an edge that no poll has reported yet; 0 while polls are not full.
    untold: usize,
    /// Steps of TLS handshakes in this turn.
    handshakes: Handshakes,
}

impl<S: Stream> ConnectionSet<S> {
    pub(super) fn new(now: Instant) -> Self {
        ConnectionSet {
            slab: Connections::default(),
            pool: BufferPool::default(),
            ready: ReadyQueue::default(),
            wheel: TimerWheel::new(now),
            due: Due::default(),
            ended: Vec::new(),
            aside: Vec::new(),
            untold: 0,
            handshakes: Handshakes::default(),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: LocalId) -> Option<&mut Connection<S>> {
        self.slab.get_mut(id)
    }

    #[inline]
    pub(super) fn get(&self, id: LocalId) -> Option<&Connection<S>> {
        self.slab.get(id)
    }

    // ---- what the poll reported ----

    /// Takes note of an edge on a connection's socket.
    #[inline]
    pub(super) fn note_edge(&mut self, id: LocalId, edge: Edge) {
        // The socket may have been closed in an earlier turn, after the kernel had queued this edge.
        if let Some(connection) = self.slab.get_mut(id) {
            connection.transport.note(edge);
            self.ready.push(id, &mut connection.mark);
        }
    }

    /// Takes note that a poll reported as many events as it can at once, `edges` of them of
    /// connections.
    #[cold]
    pub(super) fn note_full_poll(&mut self, edges: usize) {
        if self.untold == 0 {
            self.untold = self.slab.len();
        }
        self.untold = self.untold.saturating_sub(edges);
    }

    /// Takes note that a poll reported all there was to report.
    #[inline]
    pub(super) fn note_whole_poll(&mut self) {
        self.untold = 0;
    }

    /// Whether there may be edges that no poll has reported: no connection is judged late meanwhile.
    pub(super) fn has_untold_edges(&self) -> bool {
        self.untold > 0
    }

    // ---- which connections are next ----

    /// Whether a connection is to be visited.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Moves the connections to visit in this turn into `queue`, which must be empty.
    pub(super) fn take_ready(&mut self, queue: &mut Vec<LocalId>) {
        self.ready.take(queue);
        self.handshakes.begin_turn();
    }

    /// Has a connection visited in the next turn.
    pub(super) fn queue(&mut self, id: LocalId) {
        if let Some(connection) = self.slab.get_mut(id) {
            self.ready.push(id, &mut connection.mark);
        }
    }

    /// Collects the alarms that have gone off.
    pub(super) fn advance_wheel(&mut self, now: Instant) {
        self.wheel.advance(now, &mut self.due);
    }

    /// The next alarm that has gone off: its slot, and the connection there whose deadline it is for.
    /// A slot may be vacant, or have another tenant by now.
    pub(super) fn next_due(&mut self) -> Option<(Slot, Option<LocalId>)> {
        let (slot, tick) = self.due.pop_front()?;
        let id = self.slab.tenant(slot as usize);
        let connection = id.and_then(|id| self.slab.get_mut(id));
        let is_its = connection.filter(|connection| connection.alarm == Some(tick));
        Some((
            slot,
            is_its.map(|connection| {
                connection.alarm = None;
                connection.id
            }),
        ))
    }

    /// Whether alarms have gone off that nobody has looked at.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When the next alarm goes off.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.wheel.next_at()
    }

    /// Whether one more step of a TLS handshake may be taken in this turn, and then it is counted. Who is refused keeps
    /// what there is to read, and is visited again in the next turn.
    pub(super) fn take_handshake_share(&mut self, turn: &Turn<'_>) -> bool {
        self.handshakes.take(turn.setup.config.limits.handshakes_per_turn)
    }

    /// Has the wheel go off for a slot in which no connection is.
    pub(super) fn schedule_vacant(&mut self, slot: Slot, at: Instant) {
        self.wheel.schedule(slot, at);
    }

    /// Sees to it that a connection is looked at when its deadline has come.
    pub(super) fn set_alarm(&mut self, id: LocalId, turn: &Turn<'_>) {
        if let Some(connection) = self.slab.get_mut(id) {
            set_alarm(connection, &mut self.wheel, turn.setup);
        }
    }

    /// Takes over for a new connection the alarm that the former one of its slot left in the wheel.
    pub(super) fn inherit_alarm(&mut self, id: LocalId) {
        let alarm = self.slab.take_left_alarm(id).filter(|&tick| self.wheel.is_to_come(tick));
        if let Some(connection) = self.slab.get_mut(id) {
            connection.alarm = alarm;
        }
    }

    // ---- the end of what was done for a connection ----

    /// Ends anything that may have changed a connection. Our half of the stream is closed when its last
    /// words have left. A connection that is over goes to the reaper; any other gets a [`Rest`] and an
    /// alarm.
    pub(super) fn settle(&mut self, id: LocalId, share: Share, turn: &mut Turn<'_>) {
        let Some(connection) = self.slab.get_mut(id) else { return };
        if connection.rest.is_unread() || connection.rest == Rest::Ended {
            return self.settle_unread(id, turn);
        }
        let config = &turn.setup.config;
        if connection.transport.owes_goodbye() {
            say_goodbye_at_end(connection, &mut self.pool, turn);
        }
        let queued = connection.transport.backlog.len();
        let has_readable = connection.transport.has_readable();
        let unread = if has_readable { Unread::Perhaps } else { Unread::Nothing };
        if queued == 0
            && connection.endpoint.queue_has_left(unread, turn.now, &turn.setup.protocol_limits)
                == QueueLeft::HalfClose
        {
            let peer_is_done = connection.transport.inbound() == Inbound::Ended;
            if peer_is_done || connection.transport.half_close().is_err() {
                connection.endpoint = Endpoint::Closed;
            }
        }
        if let Endpoint::Closed = connection.endpoint {
            connection.rest = Rest::Ended;
            let discarded = connection.transport.discard(&mut self.pool);
            self.ended.push(id);
            turn.tell(|trace| trace.discarded(id, discarded));
            return;
        }
        if queued > 0 && connection.is_open() && connection.transport.backlog.held() > 0 {
            note_level(connection, config);
            return self.stop_for_store(id, turn);
        }
        let can_flush = queued > 0
            && connection.transport.is_writable()
            && connection.transport.backlog.has_free();
        let is_throttled = queued > 0 && {
            note_level(connection, config);
            let mark = config.max_send_buffer;
            // What is held waits for the store, and not for the peer.
            let offered = queued - connection.transport.backlog.held();
            offered > if connection.rest == Rest::Throttled { mark / 2 } else { mark }
        };
        let goes_on = share == Share::UsedUp || has_readable;
        let rest = if can_flush || (!is_throttled && goes_on) {
            self.ready.push(id, &mut connection.mark);
            Rest::Spent
        } else if connection.mark.is_set() {
            Rest::Spent
        } else if is_throttled {
            Rest::Throttled
        } else {
            connection.note_all_heard();
            Rest::Blocked
        };
        if connection.rest == Rest::Throttled && rest != Rest::Throttled {
            connection.endpoint.listened_again(turn.now, &turn.setup.protocol_limits);
        }
        if rest == Rest::Throttled {
            connection.endpoint.stopped_listening();
        }
        connection.rest = rest;
        set_alarm(connection, &mut self.wheel, turn.setup);
    }

    /// Something of an open connection is held: it is not read until that leaves.
    #[inline(never)]
    fn stop_for_store(&mut self, id: LocalId, turn: &Turn<'_>) {
        self.stop_reading(id, Rest::Committing);
        self.settle_unread(id, turn);
    }

    /// The same for a connection that is not read: it keeps its rest, whatever there is to read.
    #[cold]
    fn settle_unread(&mut self, id: LocalId, turn: &Turn<'_>) {
        let Some(connection) = self.slab.get_mut(id) else { return };
        if connection.rest == Rest::Ended {
            return;
        }
        note_level(connection, &turn.setup.config);
        if connection.transport.is_writable() && connection.transport.backlog.has_free() {
            self.ready.push(id, &mut connection.mark);
        }
        set_alarm(connection, &mut self.wheel, turn.setup);
    }

    /// The visit of a connection that is not read: it only writes, and says whether the peer has hung
    /// up. One that has ended does nothing.
    ///
    /// # Errors
    ///
    /// When the socket failed.
    #[cold]
    pub(super) fn visit_unread(&mut self, id: LocalId, turn: &Turn<'_>) -> io::Result<UnreadVisit> {
        let nothing = UnreadVisit { hang_up: HangUp::NotYet, flushed: Flushed::Otherwise };
        let Some(connection) = self.slab.get_mut(id) else { return Ok(nothing) };
        if connection.rest == Rest::Ended {
            return Ok(nothing);
        }
        let flushed = flush(connection, &mut self.pool, turn)?;
        let hang_up = match connection.look_for_hang_up() {
            // A signal: the next visit looks.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.ready.push(id, &mut connection.mark);
                HangUp::NotYet
            }
            hang_up => hang_up?,
        };
        self.settle_unread(id, turn);
        Ok(UnreadVisit { hang_up, flushed })
    }

    /// A connection is not read any more. If its peer has hung up already, no edge will come for that: a
    /// visit looks.
    pub(super) fn stop_reading(&mut self, id: LocalId, rest: Rest) {
        if let Some(connection) = self.slab.get_mut(id) {
            connection.rest = rest;
            connection.endpoint.stopped_listening();
            if connection.transport.has_ended() {
                self.ready.push(id, &mut connection.mark);
            }
        }
    }

    /// Flushes the backlog of a connection, and says whether the connection is to be read then.
    ///
    /// # Errors
    ///
    /// When the socket failed.
    #[cold]
    pub(super) fn make_room(&mut self, id: LocalId, turn: &Turn<'_>) -> io::Result<Room> {
        let Some(connection) = self.slab.get_mut(id) else { return Ok(Room::None) };
        let config = &turn.setup.config;
        let before = connection.transport.backlog.len();
        let flushed = flush(connection, &mut self.pool, turn)?;
        if connection.transport.backlog.len() < before {
            connection.endpoint.note_alive(turn.now, &turn.setup.protocol_limits);
        }
        if flushed == Flushed::ToLowWaterMark {
            return Ok(Room::Regained);
        }
        let mark = match connection.rest {
            Rest::Throttled => config.max_send_buffer / 2,
            _ => config.max_send_buffer,
        };
        let backlog = &connection.transport.backlog;
        Ok(if backlog.len() - backlog.held() <= mark { Room::Enough } else { Room::None })
    }

    /// Writes what stands aside to a connection, and settles it.
    ///
    /// # Errors
    ///
    /// When what was to be sent could be neither sent nor kept.
    pub(super) fn send_aside(&mut self, id: LocalId, turn: &mut Turn<'_>) -> io::Result<()> {
        let Some(connection) = self.slab.get_mut(id) else { return Ok(()) };
        let before = Outgoing::of(&connection.transport);
        let sent = connection.transport.send(&self.aside, turn.now, &mut self.pool);
        turn.tell(|trace| trace.said_aside(id, before, Outgoing::of(&connection.transport)));
        turn.setup.metrics.bytes_out.add(self.aside.len() as u64);
        self.aside.clear();
        sent?;
        self.settle(id, Share::Left, turn);
        Ok(())
    }

    /// Stops reading from a connection until one of its jobs is done.
    pub(super) fn park(&mut self, id: LocalId) {
        self.stop_reading(id, Rest::Parked);
    }

    /// Reads again from a connection that was not read, unless what it is to be told is held.
    pub(super) fn unpark(&mut self, id: LocalId, turn: &Turn<'_>) {
        if let Some(connection) = self.slab.get_mut(id) {
            if connection.is_open() && connection.transport.backlog.held() > 0 {
                connection.rest = Rest::Committing;
                return;
            }
            connection.rest = Rest::Spent;
            connection.endpoint.listened_again(turn.now, &turn.setup.protocol_limits);
        }
    }

    /// Lets go of a connection without further words.
    pub(super) fn cut(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        if let Some(connection) = self.slab.get_mut(id)
            && connection.rest != Rest::Ended
        {
            connection.endpoint = Endpoint::Closed;
            // It waits for nothing any more.
            connection.rest = Rest::Spent;
            self.settle(id, Share::Left, turn);
        }
    }

    /// Takes out the connections that have ended, and tells `note` of each.
    #[inline]
    pub(super) fn reap(&mut self, turn: &mut Turn<'_>, note: impl FnMut(&Connection<S>)) {
        if !self.ended.is_empty() {
            self.reap_ended(turn, note);
        }
    }

    #[inline(never)]
    fn reap_ended(&mut self, turn: &mut Turn<'_>, mut note: impl FnMut(&Connection<S>)) {
        for id in std::mem::take(&mut self.ended) {
            if let Some(connection) = self.slab.remove(id) {
                debug_assert!(
                    matches!(connection.attachment, Attachment::Never | Attachment::Former),
                    "its session was let go of"
                );
                note(&connection);
                turn.tell(|trace| trace.reaped(id));
            }
        }
    }

    /// Gives storage back that one large message left behind.
    pub(super) fn trim(&mut self, kept_bytes: usize) {
        if self.aside.capacity() > kept_bytes {
            self.aside = Vec::new();
        }
    }

    // ---- for tests, and for the invariants ----

    /// Entries in the timer wheel, stale ones included.
    #[cfg(feature = "internals")]
    pub(super) fn alarms(&self) -> usize {
        self.wheel.entries()
    }

    /// Checks what must hold of a connection between two turns, as far as it is known here.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub(super) fn check(&self, connection: &Connection<S>, setup: &Setup) {
        let config = &setup.config;
        let id = connection.id;
        assert!(self.ended.is_empty(), "the reaper has been");
        let transport = &connection.transport;
        let can_write = transport.backlog.has_free() && transport.is_writable();
        match connection.rest {
            Rest::Blocked => {
                assert!(!transport.has_readable(), "{id}: blocked, with something to read");
                let waits = transport.tls().is_some_and(TlsSession::has_waiting);
                assert!(!waits, "{id}: blocked, with plaintext in its TLS session");
                let is_inflating =
                    matches!(&connection.endpoint, Endpoint::Open(open) if open.is_inflating());
                assert!(!is_inflating, "{id}: blocked, with a message to inflate");
                assert!(!can_write, "{id}: blocked, with something to write and room for it");
            }
            Rest::Spent => assert!(self.ready.contains(id), "{id}: spent and not queued"),
            Rest::Throttled => {
                let low_water_mark = config.max_send_buffer / 2;
                let is_above = transport.backlog.len() > low_water_mark;
                assert!(is_above, "{id}: throttled below the low-water mark");
                assert!(!transport.is_writable(), "{id}: throttled, with room to write");
            }
            Rest::Parked | Rest::Waiting | Rest::Committing => {
                let is_queued = self.ready.contains(id);
                assert!(!can_write || is_queued, "{id}: not read, with something to write");
                let is_over = match transport.inbound() {
                    Inbound::Broken => true,
                    Inbound::Ended => connection.is_open() && !connection.has_kept_input(),
                    _ => false,
                };
                assert!(!is_over || is_queued, "{id}: not read, and its peer has hung up");
            }
            Rest::Ended => panic!("{id}: ended and not reaped"),
        }
        if matches!(connection.attachment, Attachment::Live(_)) {
            let is_high = transport.backlog.is_high();
            let is_above = connection.is_above_mark(config);
            assert!(
                is_high || !is_above,
                "{id}: above the high-water mark, and nobody knows of it"
            );
            let is_low = transport.backlog.len() <= config.max_send_buffer / 2;
            assert!(!is_high || !is_low, "{id}: at the low-water mark, and nobody was told");
        }
        assert!(
            connection.reads_past() || !connection.is_amid_message(),
            "{id}: amid a message, and read as if it were not"
        );
        // A deadline stands behind every rest that has one to give.
        if let Some(deadline) = connection.deadline(&setup.protocol_limits, config) {
            // One that had passed already was entered at the wheel's next tick.
            let latest = self.wheel.tick_of(deadline) + 1;
            // An alarm is in the wheel, or has gone off and waits for its share of a turn.
            let is_set =
                |tick| self.wheel.holds(id.index, tick) || self.due.contains(id.index, tick);
            assert!(
                connection.alarm.is_some_and(|tick| tick <= latest && is_set(tick)),
                "{id}: a deadline without an alarm"
            );
        }
    }
}

/// What the visit of a connection that is not read has found.
pub(super) struct UnreadVisit {
    pub(super) hang_up: HangUp,
    pub(super) flushed: Flushed,
}

/// What a flush has done to a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// It has been above the high-water mark, and is at the low-water mark or below it from now on.
    ToLowWaterMark,
    /// Nothing of the kind.
    Otherwise,
}

/// Flushes the backlog of a connection: the one place where a backlog shrinks, other than at its end.
fn flush<S: Stream>(
    connection: &mut Connection<S>,
    pool: &mut BufferPool,
    turn: &Turn<'_>,
) -> io::Result<Flushed> {
    let config = &turn.setup.config;
    let transport = &mut connection.transport;
    let was_high = transport.backlog.is_high();
    transport.flush(config.limits.flush_bytes_per_turn, turn.now, pool)?;
    if !was_high || transport.backlog.len() > config.max_send_buffer / 2 {
        return Ok(Flushed::Otherwise);
    }
    transport.backlog.note_low();
    Ok(Flushed::ToLowWaterMark)
}

/// Says what a TLS session has to say last, once all else has left. If it can be neither sent nor kept, the
/// connection is over.
#[cold]
fn say_goodbye_at_end<S: Stream>(
    connection: &mut Connection<S>,
    pool: &mut BufferPool,
    turn: &mut Turn<'_>,
) {
    let is_over = matches!(connection.endpoint, Endpoint::Closed);
    let is_end = connection.endpoint.is_flushing() || is_over;
    if !is_end || !connection.transport.backlog.is_empty() {
        return;
    }
    let before = Outgoing::of(&connection.transport);
    if connection.transport.say_goodbye(turn.now, pool).is_err() {
        connection.endpoint = Endpoint::Closed;
    }
    let after = Outgoing::of(&connection.transport);
    turn.tell(|trace| trace.said_aside(connection.id, before, after));
}

/// Takes note of a backlog above the high-water mark, if the application is to be told when it falls.
fn note_level<S: Stream>(connection: &mut Connection<S>, config: &Config) {
    if connection.is_above_mark(config) && matches!(connection.attachment, Attachment::Live(_)) {
        connection.transport.backlog.note_high();
    }
}

/// Writes the cork to `connection`, which filled it.
///
/// # Errors
///
/// When it could be neither sent nor kept.
#[inline(always)]
pub(super) fn uncork<S: Stream>(
    connection: &mut Connection<S>,
    cork: &mut Vec<u8>,
    pool: &mut BufferPool,
    turn: &Turn<'_>,
) -> io::Result<()> {
    if cork.is_empty() {
        return Ok(());
    }
    // Counted first: a client that has an answer finds it in the metrics.
    turn.setup.metrics.bytes_out.add(cork.len() as u64);
    let sent = connection.transport.send(cork, turn.now, pool);
    cork.clear();
    sent
}

/// Sees to it that a connection is looked at when its deadline has come.
#[inline(always)]
fn set_alarm<S: Stream>(connection: &mut Connection<S>, wheel: &mut TimerWheel, setup: &Setup) {
    if let Some(deadline) = connection.deadline(&setup.protocol_limits, &setup.config) {
        let is_set = connection.alarm.is_some_and(|tick| wheel.covers(tick, deadline));
        if !is_set {
            connection.alarm = Some(wheel.schedule(connection.id.index, deadline));
        }
    }
}

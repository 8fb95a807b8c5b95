//! Everything one thread owns, and its turn.
//!
//! There is no poll in here and no clock: `reactor.rs` notes what is ready and calls
//! [`Shard::turn`] with the time, and so does the simulation. The parts, in the order of a
//! connection's life: `accepting`, `mail` (between reactors), `visit` (one connection's share of a
//! turn), `refusals` (which of them the log tells), `upgrade`, `newcomers` (new sessions), `callbacks`
//! (timers and off-loaded jobs), `closing`, `fanout` (broadcasts), `watchers`
//! (the live page's figures), `drain`; then `slow_turn`, which finds out whose callback made a turn slow,
//! `invariants`, which says in one place what must hold between turns, and `snapshot` and `turn_trace`,
//! which tell a turn to whoever listens.
//!
//! Invariant: between two turns every connection rests, and its [`Rest`] tells what wakes it.
//!
//! Next: its parts, from `accepting` on.

mod accepting;

mod callbacks;
mod closing;
mod drain;
mod fanout;
mod invariants;
mod mail;
mod newcomers;
mod refusals;
mod slow_turn;
mod snapshot;
mod turn_trace;
mod upgrade;
mod visit;
mod watchers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::application::{Application, Broadcast, Commands};
use crate::config::Config;
use crate::connection::ready::ReadyQueue;
use crate::connection::slab::Connections;
use crate::connection::timer_wheel::{Slot, Tick, TimerWheel};
use crate::connection::{Attachment, Connection, Rest};
use crate::environment::Environment;
use crate::observe::metrics::{ReactorMetrics, ServerStatus};
use crate::protocol::deflate::Deflater;
use crate::protocol::endpoint::{Endpoint, QueueLeft};
use crate::protocol::message::Scratch;
use crate::session::{IdSource, SessionTable};
use crate::token::ConnectionId;
use crate::transport::out_buffer::BufferPool;
use crate::transport::{Edge, Inbound, Stream};

use accepting::Listening;
pub use drain::DrainOutcome;
use drain::Lifecycle;
use mail::Outbox;
use newcomers::Evictions;
use refusals::Refusals;
use slow_turn::SlowTurnDetector;
use turn_trace::{TurnTrace, Woken};
use watchers::Watching;

/// Pause before mail that found a full box is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Storage beyond this that a turn leaves in a shared buffer goes back to the allocator: one
/// large message must not be held for ever by each reactor it passed.
const KEPT_BYTES: usize = 1 << 20;

/// One reactor's connections, sessions, timers and application.
pub struct Shard<A: Application, E: Environment> {
    reactor: usize,
    beginning: Instant,
    config: Arc<Config>,
    status: Arc<ServerStatus>,
    /// Our own cells of it.
    metrics: Arc<ReactorMetrics>,
    application: A,
    connections: Connections<E::Stream>,
    sessions: SessionTable<A::Session>,
    evictions: Evictions,
    ids: IdSource,
    wheel: TimerWheel,
    ready: ReadyQueue,
    listening: Listening,
    /// Which reactor gets the next connection that is spread.
    spread_to: usize,
    has_mail: bool,
    outbox: Outbox<E::Stream>,
    /// Frames on their way to all connections of this reactor; `fanout_at` is the next slot that
    /// gets the first of them.
    broadcasts: VecDeque<Broadcast>,
    fanout_at: usize,
    watching: Watching,
    lifecycle: Lifecycle,
    /// Connections that have upgraded and are still held.
    websockets: usize,
    /// Who lets go at the end of this turn.
    ended: Vec<ConnectionId>,
    refusals: Refusals,
    /// What this turn did, while somebody listens.
    trace: Option<Box<TurnTrace>>,
    woken: Woken,

    // Storage that every connection uses in its turn, so that none has to own it.
    receive_buffer: Box<[u8]>,
    cork: Vec<u8>,
    scratch: Scratch,
    deflater: Deflater,
    /// What is written to a connection outside its own visit.
    aside: Vec<u8>,
    pool: BufferPool,
    commands: Commands<A>,
    slow_turns: SlowTurnDetector,
    turn_queue: Vec<ConnectionId>,
    /// Alarms that have gone off, and whose connections have not been looked at yet.
    due: VecDeque<(Slot, Tick)>,
    /// How many sockets may have an edge that no poll has told yet; 0 while polls are not full.
    untold: usize,
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// A shard that begins at `now`, number `reactor` of `config.workers`.
    #[must_use]
    pub fn new(
        reactor: usize,
        config: Arc<Config>,
        status: Arc<ServerStatus>,
        application: A,
        now: Instant,
    ) -> Self {
        let workers = config.workers.get();
        // Each reactor bounds its own share; ids spread evenly, and nothing is shared to count.
        let capacity = config.sessions_of(reactor);
        let receive_buffer = vec![0; config.limits.receive_buffer_bytes].into_boxed_slice();
        let mut shard = Shard {
            reactor,
            beginning: now,
            sessions: SessionTable::new(capacity, config.session_ttl, config.session_ids, now),
            evictions: Evictions::default(),
            ids: IdSource::new(reactor, workers),
            wheel: TimerWheel::new(now),
            ready: ReadyQueue::default(),
            listening: Listening::Idle,
            spread_to: reactor,
            has_mail: false,
            outbox: Outbox::new(workers),
            broadcasts: VecDeque::new(),
            fanout_at: 0,
            watching: Watching::new(workers, now),
            lifecycle: Lifecycle::Running,
            websockets: 0,
            ended: Vec::new(),
            refusals: Refusals::default(),
            trace: None,
            woken: Woken::default(),
            receive_buffer,
            cork: Vec::with_capacity(config.limits.cork_bytes),
            scratch: Scratch::default(),
            deflater: Deflater::new(&config.limits),
            aside: Vec::new(),
            pool: BufferPool::default(),
            commands: Commands::new(now, &config.limits),
            slow_turns: SlowTurnDetector::default(),
            turn_queue: Vec::new(),
            due: VecDeque::new(),
            untold: 0,
            connections: Connections::default(),
            config,
            metrics: status.reactor(reactor).clone(),
            status,
            application,
        };
        shard.start();
        shard
    }

    /// Takes note of an edge on a connection's socket.
    #[inline]
    pub fn note_connection(&mut self, id: ConnectionId, edge: Edge) {
        // The socket may have been closed in an earlier turn, after the kernel had queued this edge.
        if let Some(connection) = self.connections.get_mut(id) {
            connection.transport.note(edge);
            self.ready.push(id, &mut connection.mark);
        }
    }

    /// Takes note that a poll told as many events as it can at once, so many of them of connections.
    ///
    /// It may have left edges untold. After a pause of the whole process they are those of peers who
    /// spoke in time, so no deadline is judged before all have been told: when a poll is not full, or
    /// when as many edges were told as there are connections, for the kernel tells of those that are
    /// ready one after the other.
    #[cold]
    pub fn note_full_poll(&mut self, edges: usize) {
        if self.untold == 0 {
            self.untold = self.connections.len();
        }
        self.untold = self.untold.saturating_sub(edges);
    }

    /// Takes note that a poll told all there was to tell.
    #[inline]
    pub fn note_whole_poll(&mut self) {
        self.untold = 0;
    }

    /// Takes note that there is mail.
    pub fn note_mail(&mut self) {
        self.has_mail = true;
        self.woken.by_mail = true;
    }

    /// One turn. Every step is bounded: by the shares in [`crate::config::Limits`], or by what was
    /// queued when it began.
    // Into the loop, which is its one caller in a program: that saves some forty instructions a turn.
    #[inline(always)]
    pub fn turn(&mut self, now: Instant, env: &mut E) {
        self.commands.now = now;
        self.begin_trace();
        self.slow_turns.begin_turn(now);
        let expires = self.sessions.next_expiry().is_some_and(|at| at <= now);
        if expires {
            self.sessions.note_time(now);
        }
        self.step(env, |shard, env| shard.take_mail(now, env));
        self.accept(now, env);

        // Taken out for the length of the visits, so that they can be borrowed apart from the rest.
        let mut turn_queue = std::mem::take(&mut self.turn_queue);
        let mut buffer = std::mem::take(&mut self.receive_buffer);
        self.ready.take(&mut turn_queue);
        let is_observed = self.slow_turns.is_timing() || self.trace.is_some();
        let (visits, last) = (turn_queue.len(), turn_queue.last().copied());
        for id in turn_queue.drain(..) {
            if is_observed {
                self.before_visit(id, env);
            }
            self.visit(id, &mut buffer, now, env);
            if is_observed {
                self.after_visit(id, &buffer, env);
            }
            self.forward_commands(Some(id), env);
        }
        self.slow_turns.heard(self.metrics.messages.get(), visits as u32, last);
        self.receive_buffer = buffer;
        self.turn_queue = turn_queue;

        // Behind the visits: what is there is heard before anybody is judged late.
        self.step(env, |shard, _| shard.fire_timers(expires, now));
        self.fire_application_timers(now, env);
        self.step(env, |shard, _| shard.fan_out(now));
        self.look(now, env);
        self.step(env, |shard, _| shard.sweep(now));
        // What was commanded outside a visit: at a timer or a deadline, in a broadcast or the drain.
        self.forward_commands(None, env);
        self.send_mail(now, env);
        self.reap();
        self.end_drain(now, env);
        self.publish();
    }

    /// How long the poll may sleep. `None`: until something happens.
    #[must_use]
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        // While so much mail waits for room in others' boxes that nobody here is read, to turn at once
        // would be to spin on somebody else's progress.
        let can_act = !self.is_outbox_full() && !self.ready.is_empty();
        let can_call = self.commands.timers.has_due() && !self.is_congested();
        if can_act
            || can_call
            || self.commands.has_outgoing
            || self.has_mail
            || !self.due.is_empty()
            || !self.broadcasts.is_empty()
            || self.listening.is_ready(now)
            || self.is_sweeping()
            || self.watching.is_drawing()
        {
            return Some(Duration::ZERO);
        }
        let mut next = self.wheel.next_at();
        let mut consider = |at: Option<Instant>| {
            next = match (next, at) {
                (Some(next), Some(at)) => Some(next.min(at)),
                (next, at) => next.or(at),
            };
        };
        // While it is congested, what is due is not called, and no timer is worth waking up for.
        if !self.is_congested() {
            consider(self.commands.timers.next_at());
        }
        consider(self.watching.next_look());
        consider(self.sessions.next_expiry());
        consider(self.listening.resumes_at());
        consider(self.drain_deadline(now));
        consider(self.outbox.waits_for_room().then(|| now + RETRY));
        next.map(|next| next.saturating_duration_since(now))
    }

    /// Whether nobody is read, because what was read before has not been delivered: as much mail to
    /// full boxes, or as many broadcasts, as may be under way. Long before that, those who broadcast
    /// are not read (`mail.rs`).
    fn is_congested(&self) -> bool {
        let broadcasts = self.broadcasts.len();
        let is_full = broadcasts > 0 && broadcasts >= self.config.limits.broadcasts_queued;
        is_full || self.is_outbox_full()
    }

    fn is_outbox_full(&self) -> bool {
        self.outbox.len() >= self.config.limits.outbox_most
    }

    /// For whoever wants to know what a visit does, or how long it takes.
    #[cold]
    fn before_visit(&mut self, id: ConnectionId, env: &mut E) {
        self.tell_visit(id);
        if self.slow_turns.is_timing() {
            self.slow_turns.begin(env.clock());
        }
    }

    #[cold]
    fn after_visit(&mut self, id: ConnectionId, buffer: &[u8], env: &mut E) {
        if self.slow_turns.is_timing() {
            self.slow_turns.heard(self.metrics.messages.get(), 1, Some(id));
            self.slow_turns.end(env.clock());
        }
        self.tell_visited(buffer);
    }

    /// Does a part of a turn; while slow turns are looked into, with an eye on the clock.
    #[inline(always)]
    fn step(&mut self, env: &mut E, part: impl FnOnce(&mut Self, &mut E)) {
        let is_timed = self.slow_turns.is_timing();
        if is_timed {
            self.slow_turns.begin(env.clock());
        }
        // In one place, so that it becomes a part of the turn in the compiler's eyes too.
        part(self, env);
        if is_timed {
            self.slow_turns.end(env.clock());
        }
    }

    fn fire_timers(&mut self, expires: bool, now: Instant) {
        if self.untold > 0 {
            return;
        }
        if expires {
            let before = self.sessions.totals().expired;
            self.sessions.expire(now, self.config.limits.expiries_per_turn);
            let expired = self.sessions.totals().expired - before;
            self.tell(|trace| trace.expired(expired));
        }
        self.wheel.advance(now, &mut self.due);
        for _ in 0..self.config.limits.alarms_per_turn {
            let Some((slot, tick)) = self.due.pop_front() else { break };
            let Some(id) = self.connections.tenant(slot as usize) else {
                self.on_vacant_alarm(slot, now);
                continue;
            };
            if let Some(connection) = self.connections.get_mut(id)
                && connection.alarm == Some(tick)
            {
                connection.alarm = None;
                self.tell_alarm(id);
                self.on_deadline(id, now);
                self.tell_visited(&[]);
            }
        }
    }

    /// Sees a connection off after anything that may have changed it: half-close when its last
    /// words have left, the reaper when it is over, else a [`Rest`] and an alarm. `more` says that
    /// its own share was used up.
    fn settle(&mut self, id: ConnectionId, more: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if matches!(connection.rest, Rest::Parked | Rest::Waiting | Rest::Ended) {
            return self.settle_parked(id);
        }
        let queued = connection.transport.backlog.len();
        let has_readable = connection.transport.has_readable();
        let limits = &self.config.limits;
        if queued == 0
            && connection.endpoint.queue_has_left(!has_readable, now, limits)
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
            self.tell(|trace| trace.discarded(id, discarded));
            return;
        }
        let can_flush = queued > 0 && connection.transport.is_writable();
        let is_throttled = queued > 0 && {
            let mark = self.config.max_send_buffer;
            queued > if connection.rest == Rest::Throttled { mark / 2 } else { mark }
        };
        let rest = if can_flush || (!is_throttled && (more || has_readable)) {
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
            connection.endpoint.listened_again(now, &self.config);
        }
        if rest == Rest::Throttled {
            connection.endpoint.stopped_listening();
        }
        connection.rest = rest;
        set_alarm(connection, &mut self.wheel, &self.config);
    }

    fn reap(&mut self) {
        for id in std::mem::take(&mut self.ended) {
            if let Some(connection) = self.connections.remove(id) {
                debug_assert!(
                    matches!(connection.attachment, Attachment::Never | Attachment::Former),
                    "its session was let go of"
                );
                self.note_reaped(&connection);
                self.tell(|trace| trace.reaped(id));
            }
        }
        for storage in [&mut self.cork, &mut self.aside] {
            if storage.capacity() > KEPT_BYTES {
                *storage = Vec::new();
            }
        }
        self.scratch.trim(KEPT_BYTES);
        self.deflater.trim(KEPT_BYTES);
    }

    fn publish(&mut self) {
        let metrics = &self.metrics;
        metrics.bytes_out.add(std::mem::take(&mut self.commands.past_cork));
        metrics.connections.set(self.connections.len() as u64);
        metrics.sessions_live.set(self.sessions.attached() as u64);
        metrics.sessions_detached.set(self.sessions.detached() as u64);
        metrics.offloads_under_way.set(self.commands.jobs.len() as u64);
        let totals = self.sessions.totals();
        metrics.expiries.set(totals.expired);
        metrics.evictions.set(totals.evicted);
    }

    /// Bytes of storage that its connections hold beside their slots: for tests.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.connections.iter().map(Connection::held_bytes).sum()
    }

    /// Entries in its timer wheel, stale ones included: for tests.
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.wheel.entries()
    }

    /// The sessions this shard owns, with their counts: for tests.
    pub fn session_counts(&self) -> Vec<(String, u64)> {
        self.sessions.counts().map(|(id, count)| (id.text().as_str().to_owned(), count)).collect()
    }
}

/// Sees to it that a connection is looked at when its deadline has come.
#[inline(always)]
fn set_alarm<S: Stream>(connection: &mut Connection<S>, wheel: &mut TimerWheel, config: &Config) {
    if let Some(deadline) = connection.deadline(config) {
        let is_set = connection.alarm.is_some_and(|tick| wheel.covers(tick, deadline));
        if !is_set {
            connection.alarm = Some(wheel.schedule(connection.id.index, deadline));
        }
    }
}

//! Everything one thread owns, and its turn.
//!
//! There is no poll in here and no clock: `reactor.rs` notes what is ready and calls
//! [`Shard::turn`] with the time, and so does the simulation.
//!
//! The files in reading order; each uses only those before it. What every step is given:
//!
//! - `refusals`, `evictions`: which refusals the log tells, and which sessions that left early;
//! - `observer`: all that observes and decides nothing; `turn`: the time, the settings, the observer.
//!
//! The parts, each of which owns its data:
//!
//! - `connection_set`: the slab, the ready queue, the timer wheel;
//! - `runtime`: the application and its sessions; `shared_sessions`: what else becomes of those that machines share;
//! - `deliveries`: mail that waits for room, and broadcasts under way;
//! - `lifecycle`: the state of the accept queue, and of the drain;
//! - `pending`: requests whose answer is awaited; `claims`: those whose session is being claimed; `commits`: what is
//!   known of the store;
//! - `parts`: all of them side by side, and the watchers of the live page; `observing`: what the
//!   observer is shown of them.
//!
//! The steps, and what several steps need:
//!
//! - `sessions`: what connections do to the sessions, and who is told when one ends; `restoring`: those that a store
//!   had;
//! - `closing`, `refreshing`, `committing`, `disowning`, `awaiting`, `refusing`: how a WebSocket ends, how sessions get to
//!   the store and what waits for that, what is another machine's, and how a request waits for its answer or is refused;
//! - `callbacks`: timers and off-loaded jobs; `direct`: what is for one connection;
//!   `fanout`: broadcasts; `posts`: what other threads want done;
//! - `relayed`: for whom a proxy speaks; `upgrade`, `claiming`, `watching`, `plain_requests`, `requests`: what a
//!   request leads to;
//! - `encrypted`: what TLS makes of a connection's input; `visit`: one connection's share of a turn;
//! - `accepting`, `mail`: where connections come from; `deadlines`, `drain`: how they end;
//! - `invariants`: what must hold between turns, in one place.
//!
//! Invariant: between two turns every connection rests, and its [`Rest`](crate::connection::Rest) tells
//! what wakes it.
//!
//! Next: its parts, from `refusals` on.

mod accepting;
mod awaiting;
mod callbacks;
mod claiming;
mod claims;
mod closing;
mod commits;
mod committing;
mod connection_set;
mod deadlines;
mod deliveries;
mod direct;
mod disowning;
mod drain;
mod encrypted;
mod evictions;
mod fanout;
mod invariants;
mod lifecycle;
mod mail;
mod observer;
mod observing;
mod parts;
mod pending;
mod plain_requests;
mod posts;
mod refreshing;
mod refusals;
mod refusing;
mod relayed;
mod requests;
mod restoring;
mod runtime;
mod sessions;
mod shared_sessions;
mod turn;
mod upgrade;
mod visit;
mod watching;

pub(crate) use claims::CLAIMS_MOST;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::application::{Application, Hosted};
use crate::config::Config;
#[cfg(feature = "internals")]
use crate::connection::{Attachment, Connection};
use crate::contained::{Panicked, take_drop_panics};
use crate::environment::Environment;
use crate::protocol::ProtocolLimits;
use crate::server_status::ServerStatus;
use crate::token::LocalId;
#[cfg(feature = "internals")]
use crate::token::Peer;
use crate::transport::Edge;

pub use lifecycle::DrainOutcome;
use observer::Observer;
use parts::Parts;
use turn::{Setup, Turn};

/// Storage beyond this that a turn leaves in a shared buffer goes back to the allocator: one
/// large message must not be held for ever by each reactor it passed.
const KEPT_BYTES: usize = 1 << 20;

/// One reactor's connections, sessions, timers and application.
pub struct Shard<A: Application, E: Environment> {
    setup: Setup,
    parts: Parts<A, E>,
    observer: Observer,
    /// Where every visit reads to, so that no connection has to own it.
    receive_buffer: Box<[u8]>,
    /// The connections that are visited in this turn.
    turn_queue: Vec<LocalId>,
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// A shard that begins at `now`, number `reactor` of `config.workers`, and calls `on_start`.
    ///
    /// # Errors
    ///
    /// The application panicked.
    pub fn start(
        reactor: usize,
        config: Arc<Config>,
        status: Arc<ServerStatus>,
        hosted: Hosted<A>,
        now: Instant,
    ) -> Result<Self, Panicked> {
        let receive_buffer = vec![0; config.limits.receive_buffer_bytes].into_boxed_slice();
        let metrics = status.reactor(reactor).clone();
        let protocol_limits = ProtocolLimits::from(&*config);
        let (beginning, config_changes) = (now, 0);
        let setup =
            Setup { reactor, beginning, config, config_changes, protocol_limits, status, metrics };
        let mut parts = Parts::new(hosted, &setup, now);
        parts.start(&setup)?;
        let observer = Observer::default();
        Ok(Shard { setup, parts, observer, receive_buffer, turn_queue: Vec::new() })
    }

    /// Takes note of an edge on a connection's socket.
    #[inline]
    pub fn note_connection(&mut self, id: LocalId, edge: Edge) {
        self.parts.connections.note_edge(id, edge);
    }

    /// Takes note that a poll reported as many events as it can at once, `edges` of them of
    /// connections.
    ///
    /// There may be edges that it has not reported. After a pause of the whole process these may be
    /// of peers that answered in time. So no deadline is checked before all edges have been reported.
    /// They have when a poll is not full, or when as many edges were reported as there are
    /// connections, because the kernel reports ready sockets in turn.
    #[cold]
    pub fn note_full_poll(&mut self, edges: usize) {
        self.parts.connections.note_full_poll(edges);
    }

    /// Takes note that a poll reported all there was to report.
    #[inline]
    pub fn note_whole_poll(&mut self) {
        self.parts.connections.note_whole_poll();
    }

    /// Takes note of an edge on the listener.
    pub fn note_listener(&mut self) {
        self.parts.lifecycle.note_listener();
        self.observer.woken.by_listener = true;
    }

    /// Takes note that there is mail, that something was posted, or that the settings have changed: the next turn
    /// has the new ones from its beginning.
    pub fn note_mail(&mut self) {
        if self.setup.status.config_changes() != self.setup.config_changes {
            self.setup.take_newer_config();
        }
        self.parts.deliveries.has_mail = true;
        self.parts.deliveries.has_posts = !self.parts.posts.is_empty();
        self.observer.woken.by_mail = true;
    }

    /// One turn. Every step is bounded: by the shares in [`crate::config::Limits`], or by what was
    /// queued when it began.
    // Inlined into the loop, its one caller in a program: that saves some forty instructions a turn.
    #[inline(always)]
    pub fn turn(&mut self, now: Instant, env: &mut E) {
        let Shard { setup, parts, observer, receive_buffer, turn_queue } = self;
        observer.begin_turn(now);
        let turn = &mut Turn { now, setup, observer };
        parts.runtime.commands.now = now;
        let has_expired = parts.runtime.note_time(now);

        turn.begin_step(env);
        parts.take_mail(turn, env);
        turn.end_step(env);
        parts.forward_commands(None, turn, env);
        parts.take_posts(turn, env);
        parts.accept(turn, env);

        parts.connections.take_ready(turn_queue);
        let observes_visits = turn.observer.observes_visits();
        let (visits, last) = (turn_queue.len() as u32, turn_queue.last().copied());
        for id in turn_queue.drain(..) {
            if observes_visits {
                parts.before_visit(id, turn, env);
            }
            parts.visit(id, receive_buffer, turn, env);
            if observes_visits {
                parts.after_visit(id, receive_buffer, turn, env);
            }
            parts.forward_commands(Some(id), turn, env);
        }
        turn.observer.slow_turns.heard(setup.metrics.messages.get(), visits, last);

        // After the visits: input that has come is read before a connection is judged late.
        turn.begin_step(env);
        if has_expired {
            parts.expire_sessions(turn);
        }
        parts.fire_alarms(turn);
        turn.end_step(env);
        parts.fire_application_timers(turn, env);
        turn.begin_step(env);
        parts.fan_out(turn);
        turn.end_step(env);
        parts.look(turn, env);
        turn.begin_step(env);
        parts.sweep(turn, env);
        turn.end_step(env);
        parts.forget_ended(turn);
        if parts.commits.is_shared() {
            parts.go_on_with_claims(turn, env);
        }
        // What was commanded by then: at a timer or a deadline, in a broadcast or the drain.
        parts.forward_commands(None, turn, env);
        parts.send_mail(turn, env);
        parts.reap(turn);
        parts.send_batch(turn, env);
        parts.end_drain(turn, env);
        parts.trim();
        parts.publish(setup);
    }

    /// How long the poll may sleep. `None`: until something happens.
    #[must_use]
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        self.parts.timeout(now, &self.setup)
    }

    /// How the shard ended, once it has.
    #[must_use]
    pub fn outcome(&self) -> Option<DrainOutcome> {
        self.parts.lifecycle.outcome()
    }

    /// The turn that has just ended, at `now`, took longer than [`crate::Config::slow_turn`].
    #[cold]
    pub fn note_slow_turn(&mut self, took: Duration, now: Instant) {
        self.observer.note_slow_turn(took, now, &self.setup);
    }

    /// Ends the trace of a turn for which the poll slept from `asleep` to `woken`, and which ended
    /// at `done`: its lines go to the log. For the owner of the clock.
    #[inline]
    pub fn tell_turn(&mut self, asleep: Instant, woken: Instant, done: Instant) {
        let Some(trace) = &mut self.observer.trace else { return };
        trace.waiting_mail(self.parts.deliveries.len());
        let (slept, busy) = (woken.duration_since(asleep), done.duration_since(woken));
        self.observer.log_trace(slept, busy, &self.setup);
        self.observer.woken.at_once = self.timeout(done) == Some(Duration::ZERO);
    }

    /// Checks every invariant of the shard. Costs as much as there are connections: the simulation calls
    /// it after every turn.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn invariants(&self) {
        self.parts.invariants(&self.setup);
    }

    /// Jobs that a drain waits for: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn awaited_jobs(&self) -> usize {
        self.parts.runtime.commands.jobs.awaited()
    }

    /// Posts of its callbacks that wait for room: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn waiting_posts(&self) -> usize {
        self.parts.deliveries.waiting_posts()
    }

    /// Its application: for tests of that.
    pub fn application_mut(&mut self) -> &mut A {
        self.parts.runtime.application_mut()
    }

    /// Bytes of storage that its connections hold beside their slots: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.parts.connections.slab.iter().map(|connection| connection.held_bytes()).sum()
    }

    /// Who has an open WebSocket with a session, and how many bytes wait for each: for tests.
    #[cfg(feature = "internals")]
    pub fn backlogs(&self) -> impl Iterator<Item = (Peer, usize)> {
        let live = |connection: &&Connection<E::Stream>| {
            matches!(connection.attachment, Attachment::Live(_))
        };
        let connections = self.parts.connections.slab.iter().filter(live);
        connections.map(|connection| (connection.peer, connection.transport.backlog.len()))
    }

    /// Entries in its timer wheel, stale ones included: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.parts.connections.alarms()
    }

    /// The settings that it has: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// The sessions this shard owns, with their counts: for tests.
    #[cfg(feature = "internals")]
    pub fn session_counts(&self) -> Vec<(String, u64)> {
        let counts = self.parts.runtime.sessions.counts();
        counts.map(|(id, count)| (id.text().as_str().to_owned(), count)).collect()
    }
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// When the next turn has to be, whatever happens; `None` if only an event can cause one.
    fn timeout(&self, now: Instant, setup: &Setup) -> Option<Duration> {
        let Parts { connections, runtime, deliveries, lifecycle, watchers, .. } = self;
        let limits = &setup.config.limits;
        let timers = &runtime.commands.timers;
        let is_congested = deliveries.is_congested(limits);
        // While too much mail waits for room in other reactors' mailboxes, no connection here is read.
        // A turn at once would be a busy loop until those reactors take some.
        let can_act = !deliveries.is_full(limits) && connections.has_ready();
        let can_call = timers.has_due() && !is_congested;
        if can_act
            || can_call
            || runtime.commands.has_outgoing
            || deliveries.has_mail
            || (deliveries.has_posts && !deliveries.is_congested_by_mail(limits))
            || connections.has_due()
            || !deliveries.broadcasts.is_empty()
            || watchers.is_drawing()
            || (!lifecycle.is_at_rest() && self.goes_on(now))
            || (runtime.is_stored && self.has_store_to_do(is_congested))
        {
            return Some(Duration::ZERO);
        }
        let mut next = connections.next_alarm();
        // While the reactor is congested no timer's callback is called and no session expires, so neither
        // need wake it.
        if !is_congested {
            next = earlier(next, timers.next_at());
            if !runtime.is_stored || !runtime.expiry_waits() {
                next = earlier(next, runtime.sessions.next_expiry());
            }
        }
        let is_usual = watchers.next_look().is_none()
            && lifecycle.is_at_rest()
            && !deliveries.waits_for_room()
            && !runtime.is_stored;
        if !is_usual {
            next = earlier(next, self.next_rarely(now, setup));
        }
        next.map(|next| next.saturating_duration_since(now))
    }

    /// Whether something is to be done in the next turn for the store, or because it has answered.
    #[inline(never)]
    fn has_store_to_do(&self, is_congested: bool) -> bool {
        let Parts { runtime, commits, claims, .. } = self;
        // What an application says then could not be delivered.
        let can_call = !is_congested && (claims.has_answers() || runtime.can_evict());
        self.has_something_to_send() || can_call || commits.refresh.is_under_way()
    }

    /// Whether there is more to accept, to drain or to end.
    #[cold]
    fn goes_on(&self, now: Instant) -> bool {
        let lifecycle = &self.lifecycle;
        lifecycle.may_accept(now) || self.may_sweep(now) || lifecycle.ends_sessions
    }

    /// When something has to be done that mostly has not. Asked for only if there may be something: to put these answers
    /// of "never" together took 17 instructions of each turn.
    #[inline(never)]
    fn next_rarely(&self, now: Instant, setup: &Setup) -> Option<Instant> {
        let Parts { runtime, deliveries, lifecycle, watchers, commits, .. } = self;
        let config = &setup.config;
        [
            watchers.next_look(),
            lifecycle.resumes_at(),
            self.drain_deadline(now, config),
            deliveries.retries_at(now),
            runtime.is_stored.then(|| commits.due(config.store_timeout)).flatten(),
            commits.is_shared().then_some(commits.refresh.next),
        ]
        .into_iter()
        .fold(None, earlier)
    }

    /// Gives storage back that one large message left behind.
    fn trim(&mut self) {
        self.runtime.trim(KEPT_BYTES);
        self.connections.trim(KEPT_BYTES);
    }

    /// Writes the figures that the turn has changed where others read them.
    fn publish(&mut self, setup: &Setup) {
        let Parts { connections, runtime, .. } = self;
        let metrics = &setup.metrics;
        metrics.panics.add(take_drop_panics());
        metrics.bytes_out.add(std::mem::take(&mut runtime.commands.past_cork));
        metrics.connections.set(connections.slab.len() as u64);
        metrics.sessions_live.set(runtime.sessions.attached() as u64);
        metrics.sessions_detached.set(runtime.sessions.detached() as u64);
        metrics.offloads_under_way.set(runtime.commands.jobs.len() as u64);
        let totals = runtime.sessions.totals();
        metrics.expiries.set(totals.expired);
        metrics.evictions.set(totals.evicted);
    }
}

/// The earlier of two times, either of which may be never.
#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

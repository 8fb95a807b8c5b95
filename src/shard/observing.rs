//! How a turn is observed: what the observer is shown of the other parts, by `&`.
//!
//! A visit is looked at before and after, and told by the difference. Changes nothing but the observer.
//! Called by the turn, around visits, alarms and callbacks that no message causes.
//!
//! Next: `sessions`: what connections do to them, and who is told when one ends.

use std::time::{Duration, Instant};

use super::observer::Observer;
use super::parts::Parts;
use super::turn::{Setup, Turn};
use crate::application::Application;
use crate::connection::{Attachment, Connection};
use crate::environment::Environment;
use crate::observe::snapshot::{OpenSnapshot, Outgoing, Snapshot};
use crate::observe::turn_trace::{TARGET, TurnTrace, Why};
use crate::protocol::endpoint::Endpoint;
use crate::token::LocalId;
use crate::transport::Stream;

impl Observer {
    /// A turn begins.
    #[inline]
    pub(super) fn begin_turn(&mut self, now: Instant) {
        // Only the level, which is one load. Whether the logger takes this target is asked after that.
        if log::max_level() == log::LevelFilter::Trace {
            self.begin_trace();
        }
        self.slow_turns.begin_turn(now);
    }

    #[cold]
    fn begin_trace(&mut self) {
        let is_heard = log::log_enabled!(target: TARGET, log::Level::Trace);
        let woken = std::mem::take(&mut self.woken);
        self.trace = is_heard.then(|| Box::new(TurnTrace::new(woken)));
    }

    /// A turn has ended for which the poll `slept`, and which took `busy`: its lines go to the log.
    #[cold]
    pub(super) fn log_trace(&mut self, slept: Duration, busy: Duration, setup: &Setup) {
        let Some(trace) = self.trace.take() else { return };
        for line in trace.lines(setup.metrics.turns.get(), slept, busy) {
            log::trace!(target: TARGET, reactor = setup.reactor; "{line}");
        }
    }

    /// A turn that ended at `now` took longer than [`crate::Config::slow_turn`].
    #[cold]
    pub(super) fn note_slow_turn(&mut self, took: Duration, now: Instant, setup: &Setup) {
        setup.metrics.slow_turns.add(1);
        let cause = self.slow_turns.cause(took, now);
        let Some(untold) = self.slow_turns.take_untold(cause, now) else { return };
        let untold = match untold {
            0 => String::new(),
            more => format!(" ({more} more slow turns since the last such line)"),
        };
        log::warn!(
            reactor = setup.reactor, milliseconds = took.as_millis() as u64;
            "a turn took {} ms: {cause}{untold}", took.as_millis()
        );
    }
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Looks at a connection before something is done for it.
    #[inline]
    pub(super) fn observe(&self, id: LocalId, why: Why, turn: &mut Turn<'_>) {
        if let Some(trace) = &mut turn.observer.trace
            && let Some(before) = self.snapshot(id, turn.setup)
        {
            trace.begin_visit(id, before, why);
        }
    }

    /// Looks at it again afterwards, and tells the difference; what was read stands in
    /// `receive_buffer`.
    #[inline]
    pub(super) fn observed(&self, receive_buffer: &[u8], turn: &mut Turn<'_>) {
        if let Some(trace) = &mut turn.observer.trace {
            let look = |id| self.snapshot(id, turn.setup);
            trace.end_visit(look, receive_buffer, turn.setup.config.limits.cork_bytes);
        }
    }

    /// Before a visit: both the trace and the slow-turn detector look.
    #[cold]
    pub(super) fn before_visit(&self, id: LocalId, turn: &mut Turn<'_>, env: &mut E) {
        self.observe(id, Why::Ready, turn);
        turn.begin_step(env);
    }

    /// After a visit.
    #[cold]
    pub(super) fn after_visit(
        &self,
        id: LocalId,
        receive_buffer: &[u8],
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        if turn.observer.slow_turns.is_timing() {
            turn.observer.slow_turns.heard(turn.setup.metrics.messages.get(), 1, Some(id));
            turn.end_step(env);
        }
        self.observed(receive_buffer, turn);
    }

    /// Tells what was written to a connection that leaves this shard in the middle of its visit.
    #[inline]
    pub(super) fn tell_written(&self, id: LocalId, turn: &mut Turn<'_>) {
        if let Some(trace) = &mut turn.observer.trace
            && let Some(connection) = self.connections.get(id)
        {
            let after = Outgoing::of(&connection.transport);
            trace.written(id, after, turn.setup.config.limits.cork_bytes);
        }
    }

    /// What has been sent to a connection so far, if a trace is kept: before it is sent something outside of
    /// a visit, for [`Self::tell_said`].
    #[inline]
    pub(super) fn outgoing_if_traced(&self, id: LocalId, turn: &Turn<'_>) -> Option<Outgoing> {
        turn.observer.trace.as_ref()?;
        self.connections.get(id).map(|connection| Outgoing::of(&connection.transport))
    }

    /// Tells what was sent since. How a connection closed is told by the step that closed it.
    #[inline]
    pub(super) fn tell_said(&self, id: LocalId, before: Option<Outgoing>, turn: &mut Turn<'_>) {
        if let Some(before) = before
            && let Some(connection) = self.connections.get(id).filter(|c| c.is_open())
        {
            let after = Outgoing::of(&connection.transport);
            turn.tell(|trace| trace.said_aside(id, before, after));
        }
    }

    /// Bytes that have left a slice of the connections, from this slot on, if a trace is kept: before a
    /// broadcast is written to these, for [`Self::tell_fanned_out`].
    #[inline]
    pub(super) fn left_if_traced(&self, from: usize, turn: &Turn<'_>) -> Option<u64> {
        turn.observer.trace.is_some().then(|| self.left_from(from, turn))
    }

    /// Tells what was written of a broadcast of `bytes` to the slots from `from` to `to`.
    #[inline]
    pub(super) fn tell_fanned_out(
        &self,
        left_before: Option<u64>,
        bytes: usize,
        (from, to): (usize, usize),
        turn: &mut Turn<'_>,
    ) {
        if let Some(left_before) = left_before {
            let written = self.left_from(from, turn).saturating_sub(left_before);
            let slots = self.connections.slab.slots();
            turn.tell(|trace| trace.fanned_out(bytes, from..to, slots, written));
        }
    }

    #[cold]
    fn left_from(&self, from: usize, turn: &Turn<'_>) -> u64 {
        let slice = turn.setup.config.limits.broadcast_slice;
        let connections = self.connections.slab.iter_from(from).take(slice);
        connections.map(|connection| connection.transport.left()).sum()
    }

    #[cold]
    fn snapshot(&self, id: LocalId, setup: &Setup) -> Option<Snapshot> {
        let connection = self.connections.get(id)?;
        let mut snapshot = Snapshot::of(connection, setup.metrics.bytes_in.get());
        snapshot.open = self.open_snapshot(connection);
        Some(snapshot)
    }

    fn open_snapshot<S: Stream>(&self, connection: &Connection<S>) -> Option<OpenSnapshot> {
        let (Attachment::Live(live), Endpoint::Open(open)) =
            (&connection.attachment, &connection.endpoint)
        else {
            return None;
        };
        let session = self.runtime.sessions.in_slot(live.slot, connection.id)?;
        Some(OpenSnapshot {
            messages: live.messages,
            taken: live.bytes_in,
            owed: open.owed_bytes(),
            count: session.count(),
        })
    }
}

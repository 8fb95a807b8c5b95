//! Going away: no new connections, a Close for everyone, time for the answers, and an end.
//!
//! Next: [`crate::shard::slow_turn`]: what if somebody holds all of this up.

use std::time::{Duration, Instant};

use super::Shard;
use super::accepting::Listening;
use super::closing::CloseCause;
use super::turn_trace::TurnTrace;
use crate::application::Application;
use crate::connection::{Connection, Rest};
use crate::environment::Environment;
use crate::protocol::endpoint::Endpoint;
use crate::protocol::head::Rejection;
use crate::token::ConnectionId;

/// Where a shard is in its life.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lifecycle {
    Running,
    /// Connections in slots below `next` have been told goodbye.
    Draining {
        next: usize,
        since: Instant,
        /// WebSockets let go of since then.
        released: u64,
        /// Those among them that never answered.
        cut: u64,
    },
    /// Its WebSockets are gone, another reactor's are not: until then `/readyz` is answered here
    /// too, on the connections that were open before.
    Drained {
        outcome: DrainOutcome,
        until: Instant,
    },
    /// Nobody's WebSockets are left. Connections that other reactors handed over before they said so
    /// are in the mailbox, and get their answer.
    Leaving {
        outcome: DrainOutcome,
        until: Instant,
    },
    Ended(DrainOutcome),
}

/// How often a drained shard looks whether the others are.
const LOOK: Duration = Duration::from_millis(10);

/// How a drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainOutcome {
    /// WebSockets that were closed in good order.
    pub closed: u64,
    /// WebSockets that did not answer our Close, or were still there when the time was up.
    pub cut: u64,
    /// How long it took.
    pub duration: Duration,
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Starts to go away.
    pub(super) fn begin_drain(&mut self, now: Instant) {
        if let Lifecycle::Running = self.lifecycle {
            self.status.begin_drain(now);
            self.tell(TurnTrace::draining);
            self.lifecycle = Lifecycle::Draining { next: 0, since: now, released: 0, cut: 0 };
            // Who is in the accept queue was told that it is connected: it gets an answer.
            self.listening = match self.listening {
                Listening::Closed => Listening::Closed,
                _ => Listening::LastCall,
            };
        }
    }

    /// How the shard ended, once it has.
    #[must_use]
    pub fn outcome(&self) -> Option<DrainOutcome> {
        match self.lifecycle {
            Lifecycle::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Draining { .. })
    }

    /// Whether connections are left that have not been told goodbye.
    pub(super) fn is_sweeping(&self) -> bool {
        match self.lifecycle {
            Lifecycle::Draining { next, .. } => self.connections.next_from(next).is_some(),
            _ => false,
        }
    }

    /// When the drain wants a turn, whatever else happens.
    pub(super) fn drain_deadline(&self, now: Instant) -> Option<Instant> {
        match self.lifecycle {
            Lifecycle::Draining { since, .. } => {
                Some(since + self.config.timeout_graceful_shutdown)
            }
            Lifecycle::Drained { until, .. } | Lifecycle::Leaving { until, .. } => {
                Some(until.min(now + LOOK))
            }
            Lifecycle::Running | Lifecycle::Ended(_) => None,
        }
    }

    /// Notes a connection that the reaper let go of.
    pub(super) fn note_reaped(&mut self, connection: &Connection<E::Stream>) {
        if let Lifecycle::Draining { released, .. } = &mut self.lifecycle
            && connection.has_had_session()
        {
            *released += 1;
        }
    }

    /// Notes a WebSocket that did not answer our Close in time.
    pub(super) fn note_cut(&mut self) {
        if let Lifecycle::Draining { cut, .. } = &mut self.lifecycle {
            *cut += 1;
        }
    }

    /// Tells a slice of the connections goodbye.
    #[inline]
    pub(super) fn sweep(&mut self, now: Instant) {
        if let Lifecycle::Draining { next, .. } = self.lifecycle {
            self.sweep_from(next, now);
        }
    }

    #[cold]
    fn sweep_from(&mut self, from: usize, now: Instant) {
        let mut at = from;
        for _ in 0..self.config.limits.goodbyes_per_turn {
            let Some(id) = self.connections.next_from(at) else { break };
            at = id.index as usize + 1;
            self.say_goodbye(id, now);
        }
        self.tell(|trace| trace.swept(from, at));
        if let Lifecycle::Draining { next, .. } = &mut self.lifecycle {
            *next = at;
        }
    }

    /// Ends the drain, if it is time. It is checked last, behind the reaper and the mail, so that a
    /// condition which becomes true in this turn ends the drain in this turn.
    #[inline]
    pub(super) fn end_drain(&mut self, now: Instant, env: &mut E) {
        if !matches!(self.lifecycle, Lifecycle::Running | Lifecycle::Ended(_)) {
            self.end_drain_if_due(now, env);
        }
    }

    #[cold]
    fn end_drain_if_due(&mut self, now: Instant, env: &mut E) {
        if let Lifecycle::Draining { since, released, cut, .. } = self.lifecycle {
            let until = since + self.config.timeout_graceful_shutdown;
            let (closed, duration) = (released - cut, now.saturating_duration_since(since));
            if self.is_time_up(until, now) {
                let left = self.connections.iter().filter(|c| c.has_had_session()).count();
                let cut = cut + left as u64;
                self.status.note_drained();
                return self.end(DrainOutcome { closed, cut, duration }, now, env);
            }
            if self.is_sweeping() || !self.is_at_rest() {
                return;
            }
            let outcome = DrainOutcome { closed, cut, duration };
            self.lifecycle = Lifecycle::Drained { outcome, until };
            self.status.note_drained();
        }
        match self.lifecycle {
            Lifecycle::Drained { outcome, until } if self.is_time_up(until, now) => {
                self.end(outcome, now, env);
            }
            Lifecycle::Drained { outcome, until } if self.status.is_drained() => {
                // What the others sent was in the box before they were done; its edge may still be
                // on the way.
                self.has_mail = true;
                self.lifecycle = Lifecycle::Leaving { outcome, until };
            }
            Lifecycle::Leaving { outcome, until }
                if self.is_time_up(until, now) || self.is_at_rest() =>
            {
                self.end(outcome, now, env);
            }
            _ => {}
        }
    }

    /// As with any deadline: what has been said in time is heard first.
    fn is_time_up(&self, until: Instant, now: Instant) -> bool {
        now >= until && self.untold == 0
    }

    /// Whether nobody here is owed anything, and nobody is on the way in.
    fn is_at_rest(&self) -> bool {
        matches!(self.listening, Listening::Closed)
            && !self.outbox.waits_for_room()
            && !self.has_mail
            // What `on_close` off-loaded is done too: it may be what keeps a session.
            && self.commands.jobs.len() == 0
            && self.connections.iter().all(|c| !c.has_had_session() && c.owes_nothing())
    }

    /// Lets go of everything.
    fn end(&mut self, outcome: DrainOutcome, now: Instant, env: &mut E) {
        if !matches!(self.listening, Listening::Closed) {
            env.stop_listening();
            self.listening = Listening::Closed;
        }
        self.release_all(now);
        // A connection on its way to a reactor whose box stayed full: its socket closes here.
        self.outbox.clear();
        self.lifecycle = Lifecycle::Ended(outcome);
    }

    fn say_goodbye(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let (Rest::Waiting, Endpoint::Handshaking(_)) = (connection.rest, &connection.endpoint) {
            return self.refuse_waiting(id, Rejection::Draining, now);
        }
        if let Endpoint::Open(_) = connection.endpoint {
            if self.commands.jobs.of(id) > 0 {
                // It is told when it has its answers, and heard no more until then.
                self.park(id);
                return self.settle(id, false, now);
            }
            self.leave_aside(id, CloseCause::goodbye(), now);
        }
    }

    /// Drops every connection that is left; applications still hear of it.
    fn release_all(&mut self, now: Instant) {
        let left: Vec<ConnectionId> =
            self.connections.iter().map(|connection| connection.id).collect();
        for id in left {
            self.lose(id, now);
        }
        self.reap();
    }
}

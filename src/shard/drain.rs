//! The drain: no new connections, a Close to every client, time for the answers, and an end.
//!
//! How far it has come is kept by [`Lifecycle`](super::lifecycle::Lifecycle). Called by the turn.
//!
//! Invariant: a condition which becomes true in a turn ends the drain in that turn.
//!
//! Next: `invariants`: what must hold, whatever happened.

use std::time::Instant;

use super::connection_set::Share;
use super::lifecycle::{DrainOutcome, Pace, Phase, WORDS_MOST, Words};
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::config::Config;
use crate::connection::Rest;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::protocol::endpoint::Endpoint;
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Whether connections are left that have not been told goodbye.
    pub(super) fn is_sweeping(&self) -> bool {
        match self.lifecycle.phase {
            Phase::Draining { next, .. } => self.connections.slab.next_from(next).is_some(),
            _ => false,
        }
    }

    /// Whether some of them can be told now.
    #[inline]
    pub(super) fn may_sweep(&self, now: Instant) -> bool {
        match self.lifecycle.phase {
            Phase::Draining { words, .. } => self.may_sweep_behind(words, now),
            _ => false,
        }
    }

    #[cold]
    fn may_sweep_behind(&self, words: Words, now: Instant) -> bool {
        match words {
            Words::Ours => !self.deliveries.waits_for_room(),
            Words::Theirs => false,
            Words::InMail | Words::Behind(_) => {
                let is_due = |pace: Pace| pace.next_at() <= now;
                self.lifecycle.pace().is_none_or(is_due) && self.is_sweeping()
            }
        }
    }

    /// When the drain wants a turn, whatever else happens.
    pub(super) fn drain_deadline(&self, now: Instant, config: &Config) -> Option<Instant> {
        let end = self.lifecycle.drain_deadline(now, config.timeout_graceful_shutdown)?;
        let goodbye = self.lifecycle.pace().filter(|_| self.is_sweeping()).map(Pace::next_at);
        Some(goodbye.map_or(end, |goodbye| goodbye.min(end)))
    }

    /// Tells a slice of the connections goodbye, when what was to be said before has been.
    #[inline]
    pub(super) fn sweep(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if let Phase::Draining { next, words, since, .. } = self.lifecycle.phase {
            self.sweep_behind((next, words), since, turn, env);
        }
    }

    #[cold]
    fn sweep_behind(
        &mut self,
        (next, words): (usize, Words),
        since: Instant,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        match words {
            Words::Behind(broadcasts) if self.deliveries.fanned_out >= broadcasts => {
                self.sweep_from(next, turn);
            }
            Words::Behind(_) => {}
            words => self.await_words(words, since, turn, env),
        }
    }

    /// All that the applications of all reactors have to say before the first goodbye is to reach the clients before
    /// it, and so is what was broadcast before the drain began.
    #[cold]
    fn await_words(&mut self, words: Words, since: Instant, turn: &mut Turn<'_>, env: &mut E) {
        let status = &turn.setup.status;
        let mut words = words;
        if words == Words::Ours && !self.deliveries.waits_for_room() {
            words = Words::Theirs;
            if status.note_announced() {
                (0..turn.setup.config.workers.get()).for_each(|reactor| env.wake(reactor));
            }
        }
        let is_late = turn.now >= since + WORDS_MOST;
        if is_late || (words == Words::InMail && !self.deliveries.has_mail) {
            words = Words::Behind(self.deliveries.broadcasts_taken());
        } else if words == Words::Theirs && status.is_announced() {
            // It is in the box; its edge may still be on the way.
            self.deliveries.has_mail = true;
            words = Words::InMail;
        }
        self.lifecycle.set_words(words);
    }

    #[cold]
    fn sweep_from(&mut self, from: usize, turn: &mut Turn<'_>) {
        let config = &turn.setup.config;
        let connections = self.connections.slab.len();
        let first = || Pace::new(turn.now, config.drain_over, connections);
        let mut kept = self.lifecycle.pace().unwrap_or_else(first);
        let due = kept.due(turn.now, config.limits.goodbyes_per_turn);
        let mut at = from;
        for _ in 0..due {
            let Some(id) = self.connections.slab.next_from(at) else { break };
            at = id.index as usize + 1;
            kept.said += 1;
            self.say_goodbye(id, turn);
        }
        if at > from {
            turn.tell(|trace| trace.swept(from, at));
        }
        if let Phase::Draining { next, pace, .. } = &mut self.lifecycle.phase {
            (*next, *pace) = (at, Some(kept));
        }
    }

    fn say_goodbye(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        match (connection.rest, &connection.endpoint) {
            (Rest::Waiting, Endpoint::Handshaking(_)) | (_, Endpoint::Pending(_)) => {
                return self.refuse_waiting(id, Rejection::Draining, turn);
            }
            _ => {}
        }
        if let Endpoint::Open(_) = connection.endpoint {
            if self.runtime.commands.jobs.of(id) > 0 {
                // It gets its Close when its jobs are answered, and is not read until then.
                self.connections.park(id);
                return self.connections.settle(id, Share::Left, turn);
            }
            self.leave_aside(id, self.lifecycle.goodbye(), turn);
        }
    }

    /// Takes out the connections that have ended, and counts those that a drain has let go.
    #[inline]
    pub(super) fn reap(&mut self, turn: &mut Turn<'_>) {
        let Parts { connections, lifecycle, .. } = self;
        connections.reap(turn, |connection| {
            if connection.has_had_session() {
                lifecycle.note_released();
            }
        });
    }

    /// Ends the drain, if it is time. It is checked last, behind the reaper and the mail.
    #[inline]
    pub(super) fn end_drain(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if !matches!(self.lifecycle.phase, Phase::Running | Phase::Ended(_)) {
            self.end_drain_if_due(turn, env);
        }
    }

    #[cold]
    fn end_drain_if_due(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let status = &turn.setup.status;
        if let Phase::Abandoned = self.lifecycle.phase {
            let left = self.connections.slab.iter().filter(|c| c.has_had_session()).count();
            status.note_drained();
            let outcome = DrainOutcome { cut: left as u64, ..DrainOutcome::default() };
            return self.end(outcome, turn, env);
        }
        if let Phase::Draining { since, released, cut, words, .. } = self.lifecycle.phase {
            let until = since + turn.setup.config.timeout_graceful_shutdown;
            let (closed, duration) = (released - cut, turn.now.saturating_duration_since(since));
            if self.is_time_up(until, turn) {
                let left = self.connections.slab.iter().filter(|c| c.has_had_session());
                let (parted, others): (Vec<_>, Vec<_>) =
                    left.partition(|connection| connection.endpoint.has_parted());
                let (closed, cut) = (closed + parted.len() as u64, cut + others.len() as u64);
                status.note_drained();
                return self.end(DrainOutcome { closed, cut, duration }, turn, env);
            }
            let has_announced = words != Words::Ours;
            if self.is_sweeping() || !has_announced || !self.is_at_rest(turn, env) {
                return;
            }
            let outcome = DrainOutcome { closed, cut, duration };
            self.lifecycle.phase = Phase::Drained { outcome, until };
            status.note_drained();
        }
        let phase = self.lifecycle.phase;
        match phase {
            Phase::Drained { outcome, until } if self.is_time_up(until, turn) => {
                self.end(outcome, turn, env);
            }
            Phase::Drained { outcome, until } if status.is_drained() => {
                // What the others sent was in the box before they were done; its edge may still be
                // on the way.
                self.deliveries.has_mail = true;
                self.lifecycle.phase = Phase::Leaving { outcome, until };
            }
            Phase::Leaving { outcome, until }
                if self.is_time_up(until, turn) || self.is_at_rest(turn, env) =>
            {
                self.end(outcome, turn, env);
            }
            _ => {}
        }
    }

    /// As with any deadline: input that came in time is read first.
    fn is_time_up(&self, until: Instant, turn: &Turn<'_>) -> bool {
        turn.now >= until && !self.connections.has_untold_edges()
    }

    /// Whether no client here is owed anything, and none is on the way in. When that is so the sessions end, a share
    /// in each turn.
    fn is_at_rest(&mut self, turn: &mut Turn<'_>, env: &mut E) -> bool {
        // The first costs nothing, and is false for most of a drain.
        let has_left = turn.setup.metrics.websockets.get() == 0
            && self.lifecycle.has_stopped_listening()
            && !self.deliveries.waits_for_room()
            && !self.deliveries.has_mail
            // What `on_close` off-loaded is done too: it may be what keeps a session.
            && self.runtime.commands.jobs.awaited() == 0
            && !(self.runtime.is_stored && self.waits_for_store())
            && !self.waits_for_a_connection();
        self.lifecycle.ends_sessions = false;
        if has_left {
            let share = turn.setup.config.limits.expiries_per_turn;
            self.lifecycle.ends_sessions = self.runtime.end_sessions(share, turn);
            self.forward_commands(None, turn, env);
        }
        // What that has off-loaded is waited for.
        has_left && !self.lifecycle.ends_sessions && self.runtime.commands.jobs.awaited() == 0
    }

    /// Whether a client here is owed something. Looked for from the connection on that was found the last
    /// time: while that one is still to be waited for, which takes seconds if it does not answer, a turn
    /// costs nothing for all the others, however many only wait for a request.
    fn waits_for_a_connection(&mut self) -> bool {
        let (slab, from) = (&self.connections.slab, self.lifecycle.waits_for);
        let before = slab.iter().take_while(|connection| (connection.id.index as usize) < from);
        let mut all = slab.iter_from(from).chain(before);
        let found =
            all.find(|connection| connection.has_had_session() || !connection.owes_nothing());
        let Some(connection) = found else { return false };
        self.lifecycle.waits_for = connection.id.index as usize;
        true
    }

    /// Ends all connections that are left; the application gets its `on_close` for each. One that is
    /// still open (it waits for a job that has not returned, say) is told goodbye, as far as its socket
    /// takes that now.
    fn end(&mut self, outcome: DrainOutcome, turn: &mut Turn<'_>, env: &mut E) {
        self.lifecycle.stop_listening(env);
        let left: Vec<LocalId> =
            self.connections.slab.iter().map(|connection| connection.id).collect();
        for id in left {
            if self.connections.get(id).is_some_and(|connection| connection.is_open()) {
                self.leave_aside(id, self.lifecycle.last_goodbye(), turn);
                self.connections.cut(id, turn);
            } else {
                self.lose(id, turn);
            }
        }
        self.forget_ended(turn);
        self.forget_lost_claims(turn);
        self.reap(turn);
        // There is no time left for shares.
        self.runtime.end_sessions(usize::MAX, turn);
        self.send_last_batch(turn, env);
        // What `on_close` off-loaded just now is begun if a thread is free. Nobody waits for it.
        self.forward_commands(None, turn, env);
        self.runtime.commands.jobs.cancel_all();
        // A connection on its way to a reactor whose box stayed full: its socket closes here.
        self.deliveries.clear();
        self.posts.close();
        self.lifecycle.phase = Phase::Ended(outcome);
    }
}

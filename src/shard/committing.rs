//! Changed sessions on their way to the store, and the connections that wait until they are safe.
//!
//! With a store that is waited for ([`Storing::BeforeReplies`](crate::application::Storing)) no reply leaves before its
//! session is stored. What a callback or a visit has said is held in the connection's backlog, and so is all that is
//! queued behind it: a pong, a broadcast, a Close. One batch of sessions is under way at a time; what changes meanwhile
//! is the next batch. So batches grow with the load, and no timer collects them. A reply waits for two batches at most.
//! Stores nothing: the environment passes batches on to the store's thread, which answers by mail.
//!
//! Invariant: bytes that depend on a session that differs from what is stored of it do not leave. Each connection that
//! holds bytes stands in [`Commits`](super::commits::Commits), under the batch that it waits for.
//!
//! Next: `disowning`: sessions that are not this node's any more.

use std::time::{Duration, Instant};

use super::commits::{UnderWay, Waiting};
use super::parts::Parts;
use super::turn::Turn;
use crate::application::{Application, SavedState};
use crate::connection::{Attachment, Rest};
use crate::contained::guard;
use crate::environment::Environment;
use crate::session::SessionSlot;
use crate::session::changes::Gone;
use crate::store::{Batch, BatchLimits, Change, CommitBatch, NotTaken, Presence, Record, State};
use crate::token::LocalId;
use crate::transport::out_buffer::Stage;

/// What the log says of a session that is stored without its state.
const NOT_STORED: &str =
    "the state of a session was not stored: the application panicked, or it is too large";

/// If a deadline is found missed by so much, the process is taken to have been stopped: 250 ms, as much as a turn may
/// take before it counts as slow.
const PAUSE_LEAST: Duration = Duration::from_millis(250);

/// Whether what a connection has said just now is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Leaves,
    IsHeld,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// For which batch the replies of a session wait.
    fn stage_of(&self, slot: SessionSlot) -> Option<Stage> {
        if self.runtime.changes.has(slot) {
            Some(Stage::Collected)
        } else if self.commits.is_under_way(slot) {
            Some(Stage::UnderWay)
        } else {
            None
        }
    }

    /// A callback for this connection has returned, which may have changed its session. What stands in the cork is held,
    /// if it must not leave before that is stored.
    #[inline(never)]
    pub(super) fn end_stored_call(&mut self, id: LocalId, turn: &mut Turn<'_>) -> Reply {
        let Some(connection) = self.connections.get(id) else { return Reply::Leaves };
        let Attachment::Live(live) = connection.attachment else { return Reply::Leaves };
        self.runtime.note_change(live.slot, id);
        if !self.commits.hold_replies() {
            return Reply::Leaves;
        }
        // What it says of that waits for it, too.
        self.forget_session_if_asked(live.slot, id);
        let Some(stage) = self.stage_of(live.slot) else { return Reply::Leaves };
        if self.runtime.cork.is_empty() {
            return Reply::Leaves;
        }
        let Parts { connections, runtime, commits, .. } = self;
        let Some(connection) = connections.slab.get_mut(id) else { return Reply::Leaves };
        let number = commits.number_of(stage);
        turn.tell(|trace| trace.held_for(id, number));
        turn.setup.metrics.bytes_out.add(runtime.cork.len() as u64);
        turn.setup.metrics.replies_held.add(1);
        let pool = &mut connections.pool;
        let held = connection.transport.hold(&runtime.cork, stage, turn.now, pool);
        runtime.cork.clear();
        runtime.trim_cork(&turn.setup.config.limits);
        let backlog = &connection.transport.backlog;
        let session = commits
            .is_shared()
            .then(|| runtime.sessions.in_slot(live.slot, id).map(|session| session.id().clone()));
        let waiting = Waiting { connection: id, session: session.flatten() };
        match (stage, &mut commits.under_way) {
            (Stage::UnderWay, Some(batch)) if !backlog.is_held_for(Stage::Collected) => {
                batch.waiting.push(waiting);
            }
            _ => commits.waiting.push(waiting),
        }
        if let Err(error) = held {
            self.lose_to(id, &error, turn);
        }
        Reply::IsHeld
    }

    /// Sends what has changed to the store, if it has answered the batch before.
    #[inline]
    pub(super) fn send_batch(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.runtime.is_stored {
            self.send_or_wait(turn, env);
        }
    }

    #[inline(never)]
    fn send_or_wait(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.commits.is_shared() {
            self.refresh_some(turn);
        }
        if self.commits.is_busy() {
            match self.commits.due(turn.setup.config.store_timeout) {
                Some(due) if turn.now >= due => self.give_up_if_late(due, turn, env),
                _ => {}
            }
        } else if self.has_something_to_send() {
            self.send_changes(turn, env);
        }
        if self.commits.is_shared() {
            self.evict_some(turn);
        }
        let waiting = self.commits.waiting_connections();
        turn.setup.metrics.waits_for_store.set(waiting as u64);
    }

    /// Whether a batch could be sent now. Not before all that was claimed with the last one is in the table: what is told
    /// of those sessions is told behind it.
    pub(super) fn has_something_to_send(&self) -> bool {
        let has_changed = !self.runtime.changes.is_empty() || self.claims.has_unsent();
        has_changed && !self.commits.is_busy() && !self.claims.has_answers()
    }

    /// Whether something is not stored yet.
    pub(super) fn waits_for_store(&self) -> bool {
        !self.runtime.changes.is_empty()
            || self.commits.is_busy()
            || self.claims.has_unsent()
            || self.claims.has_answers()
    }

    /// Sends what is left when the shard ends, whether or not the store has answered.
    pub(super) fn send_last_batch(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if !self.runtime.changes.is_empty() && turn.setup.status.store_failure().is_none() {
            self.send_changes(turn, env);
        }
    }

    /// The store should have answered by now.
    #[cold]
    fn give_up_if_late(&mut self, due: Instant, turn: &mut Turn<'_>, env: &mut E) {
        // After a pause of the whole process the store is to have its time once more.
        if turn.now.saturating_duration_since(due) >= PAUSE_LEAST {
            self.commits.under_way.iter_mut().for_each(|batch| batch.since = turn.now);
            return;
        }
        let seconds = turn.setup.config.store_timeout.as_secs_f64();
        turn.setup.status.fail_store(&format!(
            "the store has not answered for {seconds} s: its disk hangs, or is too slow; nothing that was \
             acknowledged is lost; start again, with a longer --store-timeout if the disk is to have more time"
        ));
        (0..turn.setup.config.workers.get()).for_each(|reactor| env.wake(reactor));
    }

    #[inline(never)]
    fn send_changes(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let collected = self.runtime.changes.take();
        let mut pieces = vec![Batch::new(self.commits.limits)];
        for Gone { id, generation } in collected.gone {
            let change = Change::Forget { id, generation };
            add(&mut pieces, self.commits.limits, &change, turn);
        }
        let wall_clock_ms = env.wall_clock_ms();
        for &slot in &collected.slots {
            if let Some(record) = self.record(slot, wall_clock_ms, turn) {
                add(&mut pieces, self.commits.limits, &Change::Save(record), turn);
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        self.commits.sent += 1;
        let number = self.commits.sent;
        let waiting = std::mem::take(&mut self.commits.waiting);
        for waiting in &waiting {
            if let Some(connection) = self.connections.get_mut(waiting.connection) {
                connection.transport.backlog.batch_leaves();
            }
        }
        let (since, sessions, forgotten) = (turn.now, collected.known, collected.forgotten);
        self.commits.under_way = Some(UnderWay { number, since, sessions, forgotten, waiting });
        let claims = self.claims.take_unsent();
        let batch = CommitBatch { number, pieces, claims };
        turn.tell(|trace| trace.batch_sent(number, batch.claims.len()));
        env.commit(batch);
    }

    /// A session as it is to be stored, if it is.
    fn record(
        &mut self,
        slot: SessionSlot,
        wall_clock_ms: u64,
        turn: &mut Turn<'_>,
    ) -> Option<Record> {
        // Reckoned from now, and not from when the shard began: the wall clock may have been set since then.
        let at_ms = |at: Instant| {
            let ago = turn.now.saturating_duration_since(at).as_millis() as u64;
            wall_clock_ms.saturating_sub(ago)
        };
        let sessions = &self.runtime.sessions;
        let ownership = self.runtime.changes.owned.of(slot);
        let (kept, generation, token) = match self.commits.is_shared() {
            true => {
                let kept = sessions.named(slot)?;
                debug_assert!(ownership.is_some(), "a session that was not claimed");
                let ownership = ownership?;
                (kept, ownership.generation, ownership.token)
            }
            false => (sessions.kept(slot)?, 1, 0),
        };
        let presence = match kept.left {
            None => Presence::Attached,
            Some(at) => Presence::Left { at_ms: at_ms(at) },
        };
        let (id, count) = (kept.session.id().clone(), kept.session.count());
        let state = match guard(|| A::save(kept.session.state())) {
            Ok(saved) => saved,
            Err(_) => {
                turn.note_lost_state(&id, NOT_STORED);
                None
            }
        };
        let state =
            state.map(|SavedState { version, bytes }| State { version, bytes: bytes.into() });
        Some(Record { id, generation, token, count, state, presence })
    }

    /// The store has a batch: what waited for it leaves.
    pub(super) fn take_stored(&mut self, number: u64, turn: &mut Turn<'_>) {
        if self.is_stored(number, turn) {
            self.release_batch(turn);
        }
    }

    /// Whether it is the batch under way that the store has.
    pub(super) fn is_stored(&self, number: u64, turn: &mut Turn<'_>) -> bool {
        let Some(batch) = &self.commits.under_way else {
            debug_assert!(false, "a batch is stored once");
            return false;
        };
        debug_assert_eq!(batch.number, number);
        turn.tell(|trace| trace.batch_stored(number));
        true
    }

    /// What waited for the batch under way leaves. The next one can be sent.
    pub(super) fn release_batch(&mut self, turn: &mut Turn<'_>) {
        let batch = self.commits.under_way.take();
        for waiting in batch.into_iter().flat_map(|batch| batch.waiting) {
            self.release_replies(waiting.connection, turn);
        }
    }

    pub(super) fn release_replies(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let backlog = &mut connection.transport.backlog;
        if !backlog.is_held_for(Stage::UnderWay) {
            return;
        }
        backlog.batch_is_stored(turn.now);
        let is_free = backlog.held() == 0;
        if connection.rest == Rest::Committing && is_free {
            self.connections.unpark(id, turn);
        }
        self.connections.queue(id);
        // From now on the peer can be late to take them.
        self.connections.set_alarm(id, turn);
    }
}

/// Adds a change to the last piece, or to a new one.
fn add(pieces: &mut Vec<Batch>, limits: BatchLimits, change: &Change, turn: &mut Turn<'_>) {
    let Some(last) = pieces.last_mut() else { return };
    match last.push(change) {
        Ok(()) => {}
        Err(NotTaken::BatchFull) => {
            let mut next = Batch::new(limits);
            // `Options::check`: a batch has room for the largest change.
            let added = next.push(change);
            debug_assert_eq!(added, Ok(()));
            pieces.push(next);
        }
        Err(NotTaken::StateTooLarge) => {
            // Its count is stored all the same.
            if let Change::Save(record) = change {
                turn.note_lost_state(&record.id, NOT_STORED);
                let record = Record { state: None, ..record.clone() };
                add(pieces, limits, &Change::Save(record), turn);
            }
        }
    }
}

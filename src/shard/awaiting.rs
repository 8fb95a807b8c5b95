//! How the answer to a request is awaited, and what happens when it has come.
//!
//! A connection that waits so is [`Endpoint::Pending`] and parked: its request is kept as it came, and
//! nothing more of it is read. When its job is done, the request is read again from its first byte, as
//! after a hand-over, and this time what followed the job decides it (`requests`). Calls no application,
//! except that a session may end when it is held no more. Called by `requests` and `mail`, and by the
//! steps in which such a request ends.
//!
//! Invariant: a request stands here from the time when its answer is awaited until it is answered or its
//! connection is gone; meanwhile the session that it names is held.
//!
//! Next: `refusing`: how a request ends that is not accepted.

use std::time::Instant;

use super::connection_set::Share;
use super::parts::Parts;
use super::pending::PendingRequest;
use super::turn::Turn;
use crate::application::{Application, Deferred};
use crate::application::{Owner, Undo, Whose};
use crate::connection::Rest;
use crate::environment::Environment;
use crate::observe::turn_trace::Why;
use crate::offload::PoolFull;
use crate::protocol::endpoint::Endpoint;
use crate::session::SessionId;
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Has a request decided by a job. The connection is not read until then.
    ///
    /// # Errors
    ///
    /// When as many jobs are under way as may be.
    pub(super) fn await_answer(
        &mut self,
        id: LocalId,
        session: Option<SessionId>,
        deferred: Deferred<A>,
        turn: &mut Turn<'_>,
    ) -> Result<(), PoolFull> {
        self.runtime.commands.jobs.add_for_request(id, deferred)?;
        self.runtime.commands.has_outgoing = true;
        let by = self.stand_among_pending(id, session, turn);
        turn.tell(|trace| trace.deferred(id));
        if let Some(connection) = self.connections.get_mut(id) {
            connection.endpoint.await_answer(by);
        }
        self.connections.park(id);
        Ok(())
    }

    /// A request waits, or is asked once more, and holds the session that it names. Returns when it has to be answered.
    pub(super) fn stand_among_pending(
        &mut self,
        id: LocalId,
        session: Option<SessionId>,
        turn: &Turn<'_>,
    ) -> Instant {
        // If the answer was to ask once more, it keeps its place and its deadline: it came no later for that.
        let by = self.pending.deadline(id).unwrap_or_else(|| {
            let by = turn.now + turn.setup.protocol_limits.handshake_timeout;
            let (connection, session) = (id, session.clone());
            self.pending.push(PendingRequest {
                connection,
                session,
                holds: false,
                by,
                is_outrun: false,
                undos: Vec::new(),
            });
            by
        });
        if let Some(session) = session {
            self.hold_for_pending(&session, turn);
        }
        by
    }

    /// Sees to it that a session which is there stays for all requests that wait and name it.
    pub(super) fn hold_for_pending(&mut self, session: &SessionId, turn: &Turn<'_>) {
        let sessions = &mut self.runtime.sessions;
        self.pending.hold(session, |session| sessions.hold(session, turn.now));
    }

    /// The job that decides a request is done: the request is read again, in this turn if the reactor
    /// reads at all.
    pub(super) fn read_again(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.endpoint, Endpoint::Pending(_)) {
            return;
        }
        connection.endpoint.read_again(turn.now, &turn.setup.protocol_limits);
        self.observe(id, Why::Call("its answer has come"), turn);
        self.connections.unpark(id, turn);
        self.connections.settle(id, Share::UsedUp, turn);
        self.observed(&[], turn);
    }

    /// The answer to a question has come, and this gives back what it has taken: kept until the WebSocket
    /// opens, or given back at once if nobody waits for the answer any more.
    pub(super) fn keep_undo(&mut self, whose: Whose, undo: Undo<A>) {
        let kept = match whose {
            Whose::Of(Owner::Request(id)) => self.pending.keep_undo(id, undo),
            Whose::Of(_) | Whose::Nobodys { .. } => Err(undo),
        };
        if let Err(undo) = kept {
            self.deliveries.undo(vec![undo]);
        }
    }

    /// A request waits no more, whatever became of it: the session that it held is let go of, and so is
    /// the job, if it is not done.
    #[inline]
    pub(super) fn forget_pending(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        if !self.pending.is_empty() {
            self.forget_one_pending(id, turn);
        }
    }

    /// Requests wait no more of which the connection has ended in this turn. Before the commands of the turn
    /// are forwarded, because a session may end by it.
    #[inline]
    pub(super) fn forget_ended(&mut self, turn: &mut Turn<'_>) {
        if !self.pending.is_empty() {
            self.forget_all_ended(turn);
        }
    }

    #[cold]
    fn forget_all_ended(&mut self, turn: &mut Turn<'_>) {
        let has_ended = |id: &LocalId| {
            self.connections.get(*id).is_none_or(|connection| connection.rest == Rest::Ended)
        };
        for id in self.pending.connections().filter(has_ended).collect::<Vec<_>>() {
            self.forget_one_pending(id, turn);
        }
    }

    #[cold]
    fn forget_one_pending(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let Some(request) = self.pending.take(id) else { return };
        self.forget_jobs(id, turn);
        self.deliveries.undo(request.undos);
        if let Some(session) = request.session.filter(|_| request.holds) {
            self.release_session(&session, turn);
        }
    }
}

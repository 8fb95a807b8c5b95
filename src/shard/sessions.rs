//! What connections and requests do to the sessions of this shard, and who is told when one ends.
//!
//! The table does it; here the application is told of each session that ends by it
//! ([`Application::on_session_end`]), and the log of those that had to leave early. Closes no connection.
//! Called by `closing`, `awaiting` and `upgrade`, and by the turn; never inside of a callback.
//!
//! Invariant: a session that ends while the server runs is told to the application exactly once, and what
//! that commands is forwarded in the same turn.
//!
//! Next: `restoring`: those that a store had.

use super::evictions::REPORT_SLOT;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::environment::Environment;
use crate::session::{Attached, Joining, NotAttached, SessionId, SessionSlot};
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Attaches a connection to the session that it asked for, or to a new one.
    ///
    /// # Errors
    ///
    /// When no fresh id can be made, or the application panicked over the state of a new session.
    pub(super) fn attach_session(
        &mut self,
        requested: Option<&SessionId>,
        connection: (LocalId, Joining),
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> Result<Attached, NotAttached> {
        let attached = self.runtime.attach(requested, connection, turn, |room| env.random(room));
        self.note_session_ends(turn);
        attached
    }

    /// A connection lets go of its session.
    pub(super) fn detach_session(&mut self, slot: SessionSlot, id: LocalId, turn: &mut Turn<'_>) {
        self.runtime.detach(slot, id, turn);
        self.note_session_ends(turn);
    }

    /// A newer connection takes the session of this one over.
    pub(super) fn displace_session(&mut self, slot: SessionSlot, id: LocalId, turn: &mut Turn<'_>) {
        self.runtime.displace(slot, id, turn);
        self.note_session_ends(turn);
    }

    /// If the callback that has just returned has asked for it, the session of this connection is forgotten.
    /// The requests that wait for it hold nothing from now on.
    #[inline]
    pub(super) fn forget_session_if_asked(&mut self, slot: SessionSlot, id: LocalId) {
        let Parts { runtime, pending, .. } = self;
        if std::mem::take(&mut runtime.commands.forgets_session)
            && let Some(session) = runtime.sessions.forget(slot, id)
        {
            pending.let_go(session);
            if runtime.is_stored {
                runtime.changes.note_forgotten(slot, session);
            }
        }
    }

    /// A request that held a session waits no more.
    pub(super) fn release_session(&mut self, session: &SessionId, turn: &mut Turn<'_>) {
        self.runtime.release(session, turn);
        self.note_session_ends(turn);
    }

    /// Lets a share of the sessions expire whose time is over. While the reactor is congested they wait:
    /// what the application sends then could not be delivered.
    pub(super) fn expire_sessions(&mut self, turn: &mut Turn<'_>) {
        let limits = &turn.setup.config.limits;
        if self.connections.has_untold_edges() || self.deliveries.is_congested(limits) {
            return;
        }
        let before = self.runtime.sessions.totals().expired;
        self.runtime.expire(limits.expiries_per_turn, turn);
        let expired = self.runtime.sessions.totals().expired - before;
        turn.tell(|trace| trace.expired(expired));
        self.note_session_ends(turn);
    }

    /// Takes what the application has for all connections here, and sees to it that the log tells of it if a
    /// session left early just now.
    pub(super) fn note_session_ends(&mut self, turn: &mut Turn<'_>) {
        self.take_commands_for_all();
        let evicted = self.runtime.sessions.totals().evicted;
        if let Some(at) = turn.observer.evictions.note(evicted, turn.now) {
            self.connections.schedule_vacant(REPORT_SLOT, at);
        }
    }
}

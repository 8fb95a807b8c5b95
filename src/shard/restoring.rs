//! The sessions that come back from the store when a server starts.
//!
//! They come when the store has been read, in the order in which they were left, and go into the table a share a turn.
//! Until the last is there, this reactor refuses upgrades (503, with `Retry-After`), for a session that is not there yet
//! would be made anew; plain requests are answered, and `/readyz` says 503. Reads no store: `server_store.rs` does.
//! Called when mail is taken.
//!
//! Invariant: no connection has a session before all sessions are there.
//!
//! Next: `closing`: the first of the steps, because all others may lead to it.

use super::commits::Restoring;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::environment::Environment;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Takes a share of the sessions into the table, if they have come.
    #[cold]
    pub(super) fn restore_some(&mut self, turn: &mut Turn<'_>) {
        if let Restoring::Awaited(inbox) = &self.restoring
            && let Some(sessions) = inbox.receive()
        {
            self.restoring = Restoring::UnderWay(sessions.into_iter());
        }
        let Parts { restoring, runtime, .. } = self;
        let Restoring::UnderWay(sessions) = restoring else { return };
        let share = turn.setup.config.limits.restores_per_turn;
        let before = sessions.len();
        for recovered in sessions.by_ref().take(share) {
            runtime.restore(recovered, turn);
        }
        let restored = before - sessions.len();
        turn.tell(|trace| trace.restored(restored));
        if sessions.len() == 0 {
            self.restoring = Restoring::Done;
            turn.setup.status.note_restored();
        }
        self.note_session_ends(turn);
    }
}

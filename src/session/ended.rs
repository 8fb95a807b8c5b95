//! A session that is no more: what is left of it, and why it ended.
//!
//! Ends nothing: the table does. Made by that, and given to the application by the shard.
//!
//! Invariant: it is not in a table any more, so nothing can count in it.
//!
//! Next: `one`: a session that is there.

use std::fmt;

use super::id::{SessionId, SessionSlot};
use crate::contained::Contained;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// It had no connection for [`crate::Config::session_ttl`].
    Expired,
    /// It had no connection, and the table was full ([`crate::Config::max_sessions`]): the one that had been
    /// without a connection for the longest time left first.
    Evicted,
    /// Its connection has left, and it was not to be kept: it had counted nothing and its state was not
    /// touched, or the time to live is 0.
    NotKept,
    /// The application had it forgotten ([`crate::Context::forget_session`]), and its connection has left.
    Forgotten,
    /// The server ends.
    ServerEnded,
}

/// A session that is no more, for [`crate::Application::on_session_end`].
pub struct EndedSession<T> {
    pub(super) id: SessionId,
    pub(super) count: u64,
    pub(super) state: Contained<T>,
    pub(super) reason: SessionEnd,
    /// Whether anything was lost with it: else no store has it.
    pub(super) was_worth_keeping: bool,
    /// Where it was in its table.
    pub(super) slot: SessionSlot,
}

impl<T> EndedSession<T> {
    /// Its id, as [`crate::Context::session_id`] told it. From now on the id may name a new session.
    #[must_use]
    pub fn session_id(&self) -> String {
        self.id.text().as_str().to_owned()
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn was_worth_keeping(&self) -> bool {
        self.was_worth_keeping
    }

    pub(crate) fn slot(&self) -> SessionSlot {
        self.slot
    }

    /// How many messages it had counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Why it ended.
    #[must_use]
    pub fn reason(&self) -> SessionEnd {
        self.reason
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &T {
        self.state.get()
    }

    /// Its state, to keep.
    #[must_use]
    pub fn into_state(self) -> T {
        match self.state.into_inner() {
            Some(state) => state,
            None => unreachable!("it is taken out with all around it"),
        }
    }
}

impl<T> fmt::Debug for EndedSession<T> {
    /// Of the id no more than a log may show, and nothing of the state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndedSession")
            .field("id", &self.id)
            .field("count", &self.count)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

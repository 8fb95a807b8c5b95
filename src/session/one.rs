//! One session: the count, the state, and what the table notes of it.
//!
//! Knows neither its connections nor the table. Lent to the application through `Context`; kept by the table.
//!
//! Invariant: a session that has counted, or whose state was lent out to be changed, is worth keeping.
//!
//! Next: `sharers`: the connections of a session that several share.

use super::ended::{EndedSession, SessionEnd};
use super::id::SessionId;
use crate::contained::Contained;

/// One session: the server's count, and the application's state.
#[derive(Debug)]
pub struct Session<T> {
    pub(super) id: SessionId,
    pub(super) count: u64,
    pub(super) is_touched: bool,
    /// Its id names it no more: it is not in the index, and ends with its connection.
    pub(super) is_forgotten: bool,
    /// The connections that speak for it beside the first. Here and not in the table's entry, as the next one is,
    /// because here it takes no room: the fields before it do not fill their words.
    pub(super) others: u16,
    /// Requests for it that wait for an answer: until they have it, the session stays.
    pub(super) holds: u32,
    pub(super) state: Contained<T>,
}

impl<T> Session<T> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// How many messages it has counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts one more message and returns the count.
    #[inline]
    pub fn count_message(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The application's state.
    #[must_use]
    pub fn state(&self) -> &T {
        self.state.get()
    }

    /// The application's state, to change: from here on the session is worth keeping.
    pub fn state_mut(&mut self) -> &mut T {
        self.is_touched = true;
        self.state.get_mut()
    }

    /// How many connections speak for it, if one does.
    #[must_use]
    pub fn connections(&self) -> usize {
        1 + usize::from(self.others)
    }

    /// Whether anything would be lost with it. One that was only opened is not kept, so that
    /// connecting alone cannot push other people's sessions out of the table.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.count > 0 || self.is_touched
    }

    #[inline(always)]
    pub(super) fn into_ended(self, reason: SessionEnd) -> EndedSession<T> {
        let Session { id, count, state, .. } = self;
        EndedSession { id, count, state, reason }
    }
}

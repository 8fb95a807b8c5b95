//! One session: the count, the state, and what the table notes of it.
//!
//! Knows neither its connections nor the table. Lent to the application through `Context`; kept by the table.
//!
//! Invariant: a session that has counted, or whose state was lent out to be changed, is worth keeping.
//!
//! Next: `index`: which session an id names.

use super::ended::{EndedSession, SessionEnd};
use super::id::{SessionId, SessionSlot};
use crate::contained::Contained;

/// One session: the server's count, and the application's state.
#[derive(Debug)]
pub struct Session<T> {
    pub(super) id: SessionId,
    pub(super) count: u64,
    pub(super) standing: Standing,
    /// The connections that speak for it beside the first. Here and not in the table's entry, as the next one is,
    /// because here they take no room: the seven bytes of the three fill the last word of the id.
    pub(super) others: u16,
    /// Requests for it that wait for an answer: until they have it, the session stays.
    pub(super) holds: u32,
    pub(super) state: Contained<T>,
}

/// What is to become of a session without a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was opened; if it has not counted either, it goes.
    Opened,
    /// Its state was lent out to be changed: it stays.
    Touched,
    /// The same, and it was not lent out since it was last sent to the store.
    Stored,
    /// It goes. Its id names it no more: it is not in the index, and ends with its last connection.
    Forgotten,
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
        if matches!(self.standing, Standing::Opened | Standing::Stored) {
            self.standing = Standing::Touched;
        }
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
        self.count > 0 || matches!(self.standing, Standing::Touched | Standing::Stored)
    }

    /// Whether it has counted more than `before`, or its state was lent out to be changed since this was last
    /// asked. One that was forgotten is stored no more, whatever it counts.
    pub fn take_change(&mut self, before: u64) -> bool {
        if self.standing == Standing::Forgotten {
            return false;
        }
        let was_lent = self.standing == Standing::Touched;
        if was_lent {
            self.standing = Standing::Stored;
        }
        was_lent || self.count != before
    }

    /// Whether the application had it forgotten.
    pub(super) fn is_forgotten(&self) -> bool {
        self.standing == Standing::Forgotten
    }

    #[inline(always)]
    pub(super) fn into_ended(self, slot: SessionSlot, reason: SessionEnd) -> EndedSession<T> {
        let was_worth_keeping = self.is_worth_keeping();
        let Session { id, count, state, .. } = self;
        EndedSession { id, count, state, reason, was_worth_keeping, slot }
    }
}

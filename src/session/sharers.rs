//! The connections of sessions that several share.
//!
//! A session with one connection is not here: its entry in the table names that. Knows no session, only its
//! place. Called by the table.
//!
//! Invariant: who shares is not alone: each session here has two connections or more.
//!
//! Next: `keyed_hash`: by what an id is found.

use std::collections::HashMap;

use crate::token::LocalId;

/// How a connection gets a session that others speak for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Alone: the others have left it to this one.
    TakesOver,
    /// Beside them.
    Shares,
}

/// By the place of their session, those who share it.
#[derive(Debug, Default)]
pub(super) struct Sharers {
    /// In the order of coming.
    of: HashMap<u32, Vec<LocalId>>,
    /// All of them, but for one of each session.
    others: usize,
}

impl Sharers {
    /// Those who share the session in `slot`.
    pub(super) fn of(&self, slot: u32) -> &[LocalId] {
        self.of.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// Whether `connection` is one of them. Few applications share sessions, so this is out of the way of a
    /// message.
    #[cold]
    pub(super) fn has(&self, slot: u32, connection: LocalId) -> bool {
        self.of(slot).contains(&connection)
    }

    /// `connection` joins those who share the session; or `alone`, who had it.
    pub(super) fn join(&mut self, slot: u32, alone: Option<LocalId>, connection: LocalId) {
        let sharers = self.of.entry(slot).or_default();
        sharers.extend(alone);
        sharers.push(connection);
        self.others += 1;
    }

    /// `connection` leaves the session to the others. Returns who has it alone from now on, if one does.
    pub(super) fn leave(&mut self, slot: u32, connection: LocalId) -> Option<LocalId> {
        let sharers = self.of.get_mut(&slot)?;
        sharers.retain(|&sharer| sharer != connection);
        self.others -= 1;
        let &[last] = &**sharers else { return None };
        self.of.remove(&slot);
        Some(last)
    }

    /// How many there are, but for one of each session.
    pub(super) fn others(&self) -> usize {
        self.others
    }

    /// Checks what is counted; there are `sessions` that are shared.
    ///
    /// # Panics
    ///
    /// If it is wrong.
    pub(super) fn invariants(&self, sessions: usize) {
        assert_eq!(self.of.len(), sessions, "a session has ended, and is shared");
        assert!(self.of.values().all(|sharers| sharers.len() > 1), "one alone shares nothing");
        let others: usize = self.of.values().map(|sharers| sharers.len() - 1).sum();
        assert_eq!(others, self.others);
    }
}

//! Which of a table's sessions are this node's, and by which claim: of use with a store that several machines share.
//!
//! Beside the table and not in it, so that a session costs nothing more where there is no such store. Asks no store:
//! the shard does. Kept with the changes (`changes`), which tell the store by which claim they are made.
//!
//! Invariant: while sessions are shared, each one in the table has an entry here; it is taken out with it.
//!
//! Next: `changes`: what the store has not been sent.

use super::id::SessionSlot;

/// By what a session is this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ownership {
    /// What the store gave it last. A commit with a smaller one than the store has is refused.
    pub generation: u64,
    /// The claim, which is never another one's.
    pub token: u64,
}

/// Of all sessions of a table.
#[derive(Debug, Default)]
pub struct Ownerships {
    /// By slot. A generation of 0, which no store gives, is none.
    by_slot: Vec<Ownership>,
    is_shared: bool,
}

impl Ownerships {
    /// Of sessions that are shared between machines, or not.
    #[must_use]
    pub fn new(is_shared: bool) -> Ownerships {
        Ownerships { by_slot: Vec::new(), is_shared }
    }

    /// Whether a session has to be claimed.
    #[inline]
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// One beyond the last slot that has had an entry.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.by_slot.len()
    }

    /// Of the session in this slot.
    #[must_use]
    pub fn of(&self, slot: SessionSlot) -> Option<Ownership> {
        self.by_slot.get(slot.0 as usize).copied().filter(|ownership| ownership.generation > 0)
    }

    /// The session in this slot is this node's.
    pub fn set(&mut self, slot: SessionSlot, ownership: Ownership) {
        let index = slot.0 as usize;
        if index >= self.by_slot.len() {
            self.by_slot.resize(index + 1, Ownership::default());
        }
        self.by_slot[index] = ownership;
    }

    /// There is no session in this slot any more.
    pub fn remove(&mut self, slot: SessionSlot) {
        if let Some(ownership) = self.by_slot.get_mut(slot.0 as usize) {
            *ownership = Ownership::default();
        }
    }
}

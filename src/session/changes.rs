//! What has changed in the sessions of a table since it was last sent to the store.
//!
//! Sessions by their slot, each once, however often it changed; and the ids that name no session any more. What a
//! session is like is looked up when a batch is made (`shard/commits.rs`). Stores nothing. Kept by the shard's
//! runtime, and empty in a server without a store.
//!
//! Invariant: a session that differs from what was last sent of it stands here.
//!
//! Next: [`crate::store`]: where sessions outlive the process.

use std::collections::HashSet;

use super::id::{SessionId, SessionSlot};

/// Ids of sessions that are no more, beyond which none is to be begun until the store has taken them: 65,536, which are
/// 10 MiB at the most. While a store is slow, clients that begin sessions in a full table would else add to them without
/// end.
pub const GONE_MOST: usize = 1 << 16;

/// Changes that were not sent yet.
#[derive(Debug, Default)]
pub struct Changes {
    /// In the order of their first change.
    slots: Vec<SessionSlot>,
    known: HashSet<SessionSlot>,
    gone: Vec<SessionId>,
}

/// Changes that are to be sent together.
#[derive(Debug, Default)]
pub struct Collected {
    /// Sessions that are to be stored as they are now. One may have ended meanwhile; then its slot is vacant or has
    /// another tenant, which changes nothing: that one stands here for itself, or is stored once more.
    pub slots: Vec<SessionSlot>,
    /// The same, to look one up.
    pub known: HashSet<SessionSlot>,
    /// Ids of sessions that are to be forgotten, before those in `slots` are stored: one may have the same id.
    pub gone: Vec<SessionId>,
}

impl Changes {
    /// A session has changed.
    pub fn note(&mut self, slot: SessionSlot) {
        if self.known.insert(slot) {
            self.slots.push(slot);
        }
    }

    /// A session is no more.
    pub fn note_gone(&mut self, id: &SessionId) {
        self.gone.push(id.clone());
    }

    /// The id of a session names it no more: what its connection is told now waits for that, too.
    pub fn note_forgotten(&mut self, slot: SessionSlot, id: &SessionId) {
        self.note(slot);
        self.note_gone(id);
    }

    /// Whether this session has changed.
    #[must_use]
    pub fn has(&self, slot: SessionSlot) -> bool {
        self.known.contains(&slot)
    }

    /// Whether no session is to be begun now, because each may end another one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.gone.len() >= GONE_MOST
    }

    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.gone.is_empty()
    }

    /// Takes all of it.
    #[must_use]
    pub fn take(&mut self) -> Collected {
        let Changes { slots, known, gone } = std::mem::take(self);
        Collected { slots, known, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stands_here_once_and_ids_that_are_gone_are_bounded() {
        let mut changes = Changes::default();
        let id = SessionId::parse("a").unwrap();
        changes.note(SessionSlot(3));
        changes.note(SessionSlot(1));
        changes.note(SessionSlot(3));
        changes.note_forgotten(SessionSlot(4), &id);
        assert!(changes.has(SessionSlot(4)) && !changes.has(SessionSlot(2)));
        let collected = changes.take();
        assert_eq!(collected.slots, [SessionSlot(3), SessionSlot(1), SessionSlot(4)]);
        assert_eq!(collected.gone, std::slice::from_ref(&id));
        assert!(changes.is_empty());
        (1..GONE_MOST).for_each(|_| changes.note_gone(&id));
        assert!(!changes.is_full());
        changes.note_gone(&id);
        assert!(changes.is_full());
    }
}

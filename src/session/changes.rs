//! What has changed in the sessions of a table since it was last sent to the store.
//!
//! Sessions by their slot, each once, however often it changed; and the ids that name no session any more. What a
//! session is like is looked up when a batch is made (`shard/commits.rs`). Stores nothing. Kept by the shard's
//! runtime, and empty in a server without a store.
//!
//! Invariant: a session that differs from what was last sent of it stands here.
//!
//! Next: [`crate::store`]: where sessions outlive the process.

use std::collections::{HashMap, HashSet};
use std::mem::take;

use super::id::{SessionId, SessionSlot};
use super::ownership::Ownerships;

/// Ids of sessions that are no more, beyond which none is to be begun until the store has taken them: 65,536, which are
/// 12 MiB at the most, and with a store that several machines share, where each stands here twice, 25. While a store is
/// slow, clients that begin sessions in a full table would else add to them without end.
pub const GONE_MOST: usize = 1 << 16;

/// Changes that were not sent yet.
#[derive(Debug, Default)]
pub struct Changes {
    /// In the order of their first change.
    slots: Vec<SessionSlot>,
    known: HashSet<SessionSlot>,
    /// Sessions that their connections go on with, though their ids name them no more.
    forgotten: Vec<SessionSlot>,
    gone: Vec<Gone>,
    /// Where an id stands in there, if several machines share the store. The file store goes by the order, and may be told
    /// twice.
    gone_at: HashMap<SessionId, usize>,
    /// By what the sessions are this node's, if several machines share them.
    pub owned: Ownerships,
}

/// A session that is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its id.
    pub id: SessionId,
    /// The greatest generation that is meant. 0 if it is not to be forgotten after all.
    pub generation: u64,
}

/// Changes that are to be sent together.
#[derive(Debug, Default)]
pub struct Collected {
    /// Sessions that are to be stored as they are now. One may have ended meanwhile; then its slot is vacant or has
    /// another tenant, which changes nothing: that one stands here for itself, or is stored once more.
    pub slots: Vec<SessionSlot>,
    /// The same, to look one up.
    pub known: HashSet<SessionSlot>,
    /// Those of them that were forgotten.
    pub forgotten: Vec<SessionSlot>,
    /// Sessions that are to be forgotten, before those in `slots` are stored: one may have the same id.
    pub gone: Vec<Gone>,
}

impl Changes {
    /// None yet, of sessions that several machines share, or not.
    #[must_use]
    pub fn new(is_shared: bool) -> Changes {
        Changes { owned: Ownerships::new(is_shared), ..Changes::default() }
    }

    /// A session has changed.
    pub fn note(&mut self, slot: SessionSlot) {
        if self.known.insert(slot) {
            self.slots.push(slot);
        }
    }

    /// A session is no more.
    pub fn note_gone(&mut self, slot: SessionSlot, id: &SessionId) {
        // The file store goes by the order of changes.
        let generation = match self.owned.is_shared() {
            true => self.owned.of(slot).map_or(0, |ownership| ownership.generation),
            false => u64::MAX,
        };
        self.note_gone_of(id, generation);
    }

    /// The same by its generation.
    pub fn note_gone_of(&mut self, id: &SessionId, generation: u64) {
        if self.owned.is_shared() {
            if let Some(&at) = self.gone_at.get(id) {
                self.gone[at].generation = self.gone[at].generation.max(generation);
                return;
            }
            self.gone_at.insert(id.clone(), self.gone.len());
        }
        self.gone.push(Gone { id: id.clone(), generation });
    }

    /// Of which generation the session called `id` was that the store is to be told is no more, if there is one.
    #[must_use]
    pub fn gone(&self, id: &SessionId) -> Option<u64> {
        let generation = self.gone[*self.gone_at.get(id)?].generation;
        (generation > 0).then_some(generation)
    }

    /// If so, it has this generation by now.
    pub fn raise_gone(&mut self, id: &SessionId, generation: u64) {
        if self.gone(id).is_some() {
            self.note_gone_of(id, generation);
        }
    }

    /// The store need not be told: another node has it.
    pub fn take_back_gone(&mut self, id: &SessionId) {
        if let Some(&at) = self.gone_at.get(id) {
            self.gone[at].generation = 0;
        }
    }

    /// The id of a session names it no more: what its connection is told now waits for that, too.
    pub fn note_forgotten(&mut self, slot: SessionSlot, id: &SessionId) {
        self.note(slot);
        self.note_gone(slot, id);
        self.forgotten.push(slot);
    }

    /// The sessions that were forgotten. One may have ended meanwhile.
    #[must_use]
    pub fn forgotten(&self) -> &[SessionSlot] {
        &self.forgotten
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
        let Changes { slots, known, forgotten, gone, gone_at, .. } = self;
        *gone_at = HashMap::new();
        let (slots, known, mut gone) = (take(slots), take(known), take(gone));
        gone.retain(|gone| gone.generation > 0);
        Collected { slots, known, forgotten: take(forgotten), gone }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ownership::Ownership;
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
        assert_eq!(collected.gone, [Gone { id: id.clone(), generation: u64::MAX }]);
        assert!(changes.is_empty());
        let mut changes = Changes::new(true);
        let ids = (0..).map(|n| SessionId::parse(&format!("s{n}")).unwrap());
        ids.take(GONE_MOST - 1).for_each(|id| changes.note_gone(SessionSlot(0), &id));
        changes.note_gone(SessionSlot(0), &SessionId::parse("s0").unwrap());
        assert!(!changes.is_full(), "one of them twice");
        changes.note_gone(SessionSlot(0), &id);
        assert!(changes.is_full());
    }

    #[test]
    fn what_is_gone_has_the_generation_that_its_owner_had_last() {
        let mut changes = Changes::new(true);
        let [a, b] = ["a", "b"].map(|text| SessionId::parse(text).unwrap());
        changes.owned.set(SessionSlot(2), Ownership { generation: 5, token: 1 });
        changes.note_gone(SessionSlot(2), &a);
        changes.raise_gone(&a, 7);
        changes.raise_gone(&a, 6);
        changes.raise_gone(&b, 9);
        assert_eq!((changes.gone(&a), changes.gone(&b)), (Some(7), None));
        changes.note_gone(SessionSlot(0), &b);
        assert_eq!(changes.gone(&b), None, "it was nobody's");
        changes.note_gone_of(&b, 3);
        changes.take_back_gone(&b);
        assert_eq!(changes.take().gone, [Gone { id: a, generation: 7 }]);
        assert_eq!(changes.owned.of(SessionSlot(2)).map(|owned| owned.token), Some(1));
        changes.owned.remove(SessionSlot(2));
        assert_eq!((changes.owned.of(SessionSlot(2)), changes.owned.slots()), (None, 3));
    }
}

//! What becomes of the sessions of a reactor where several machines share them: loaded, renewed, given up, made room of.
//!
//! The table does it, and the ownerships beside it are kept in step. Asks no store, and knows no connections. Called by
//! `claiming`, `disowning` and `committing`.
//!
//! Invariant: no session leaves the table early or late before the store was sent what it has changed: what is held for it
//! would leave, and be stored nowhere.
//!
//! Next: `deliveries`: what is on its way to others.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use super::runtime::{Runtime, note_end, tell_end};
use super::turn::Turn;
use crate::application::Application;
use crate::session::{Ownership, SessionId, SessionSlot};
use crate::store::Claimed;
use crate::token::LocalId;

impl<A: Application> Runtime<A> {
    /// By what the session called `id` is this node's, if it is in the table.
    pub(super) fn ownership_of(&self, id: &SessionId) -> Option<Ownership> {
        self.changes.owned.of(self.sessions.slot_of(id)?)
    }

    /// A fresh id of this reactor.
    ///
    /// # Errors
    ///
    /// When `random` fails.
    pub(super) fn draw_id(
        &mut self,
        mut random: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<SessionId> {
        self.ids.next(&mut random)
    }

    /// The store has given a session of ours a greater generation.
    pub(super) fn regenerate(&mut self, id: &SessionId, generation: u64) {
        self.changes.raise_gone(id, generation);
        let Some(slot) = self.sessions.slot_of(id) else { return };
        if let Some(ownership) = self.changes.owned.of(slot) {
            let generation = generation.max(ownership.generation);
            self.changes.owned.set(slot, Ownership { generation, ..ownership });
        }
    }

    /// A session was claimed. If it is here with the generation that the store had, nobody else has had it meanwhile, and
    /// it goes on as it is. `false` if it is here and somebody may have had it.
    ///
    /// A store that has an older count of the same generation has lost some, because a replica that was behind has taken
    /// over: what is here is stored again. Of one that has another generation nothing is known, also if that is smaller.
    pub(super) fn renew(&mut self, id: &SessionId, claimed: &Claimed, now: Instant) -> bool {
        let Some(slot) = self.sessions.slot_of(id) else { return true };
        let (Some(ours), Some(kept)) = (self.changes.owned.of(slot), self.sessions.named(slot))
        else {
            return false;
        };
        let count = kept.session.count();
        if claimed.former != ours.generation || claimed.count > count {
            return false;
        }
        self.changes.owned.set(slot, claimed.ownership());
        self.sessions.renew(slot, now);
        if claimed.count < count {
            self.changes.note(slot);
        }
        true
    }

    /// Puts a session into the table as the store has it.
    pub(super) fn load(&mut self, id: &SessionId, claimed: Claimed, turn: &mut Turn<'_>) {
        let ownership = claimed.ownership();
        let stored = (id.clone(), claimed.count);
        if let Some(slot) = self.put_back(stored, claimed.state, turn.now, turn) {
            self.changes.owned.set(slot, ownership);
        }
    }

    /// A session is not this node's any more.
    pub(super) fn disown(&mut self, slot: SessionSlot, turn: &mut Turn<'_>) {
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        sessions.disown(slot, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
    }

    /// The ids of the sessions in these slots, also of those that were forgotten.
    pub(super) fn ids_in(&self, slots: &HashSet<SessionSlot>) -> HashSet<SessionId> {
        let sessions = slots.iter().filter_map(|&slot| self.sessions.id_in(slot));
        sessions.cloned().collect()
    }

    /// The connections of those of these sessions that were forgotten, and of which the store has not said that it has
    /// forgotten them too: in the batch that is `under_way`, or later.
    pub(super) fn speakers_of_forgotten(
        &self,
        ids: &HashSet<SessionId>,
        under_way: &[SessionSlot],
    ) -> Vec<LocalId> {
        let sessions = &self.sessions;
        // Its slot may have another tenant by now.
        let is_one = |slot: &&SessionSlot| {
            let id = sessions.id_in(**slot).filter(|_| sessions.named(**slot).is_none());
            id.is_some_and(|id| ids.contains(id))
        };
        let forgotten = under_way.iter().chain(self.changes.forgotten()).filter(is_one);
        forgotten.flat_map(|&slot| sessions.speakers_of(slot)).copied().collect()
    }

    /// Lets `most` sessions expire whose time is over, of which the store was sent all.
    #[cold]
    #[inline(never)]
    pub(super) fn expire_shared(&mut self, most: usize, turn: &mut Turn<'_>) {
        for _ in 0..most {
            let before = self.sessions.detached();
            if self.sessions.oldest().is_none_or(|oldest| self.changes.has(oldest)) {
                return;
            }
            let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
            sessions.expire(turn.now, 1, |ended| {
                note_end(&ended, *is_stored, changes);
                tell_end(application, commands, ended, turn);
            });
            if self.sessions.detached() == before {
                return;
            }
        }
    }

    /// Whether no session expires now, because the store was not sent all of the oldest.
    #[inline(never)]
    pub(super) fn expiry_waits(&self) -> bool {
        self.changes.owned.is_shared()
            && self.sessions.oldest().is_some_and(|oldest| self.changes.has(oldest))
    }

    /// Whether a session has to leave because there are too many, and can.
    pub(super) fn can_evict(&self) -> bool {
        self.sessions.has_too_many()
            && self.sessions.oldest().is_some_and(|oldest| !self.changes.has(oldest))
    }

    /// The session leaves that has been without a connection for the longest time.
    pub(super) fn evict(&mut self, turn: &mut Turn<'_>) {
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        sessions.evict_oldest(|ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
    }
}

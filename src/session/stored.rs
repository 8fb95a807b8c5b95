//! What a table has for the store, and what it is given back from there.
//!
//! Looks a session up as it is to be stored, and puts one into the table that was stored. Stores nothing. Called by the
//! shard's runtime, in a server with a store.
//!
//! Invariant: a session that was stored is worth keeping, whatever it has counted.
//!
//! Next: [`crate::session::ownership`]: whose a session is.

use std::ops::Range;
use std::slice;
use std::time::Instant;

use super::ended::{EndedSession, SessionEnd};
use super::id::{SessionId, SessionSlot};
use super::one::{Session, Standing};
use super::table::{Entry, OtherUse, Presence, SessionTable, Use};
use crate::contained::Contained;
use crate::token::LocalId;

/// A session as it is to be stored.
#[derive(Debug)]
pub struct Kept<'a, T> {
    /// The session.
    pub session: &'a Session<T>,
    /// Since when nobody speaks for it, if nobody does.
    pub left: Option<Instant>,
}

impl<T: Default> SessionTable<T> {
    /// The session in `slot`, if it is to be stored: it is worth keeping, and was not forgotten.
    #[must_use]
    pub fn kept(&self, slot: SessionSlot) -> Option<Kept<'_, T>> {
        self.named(slot).filter(|kept| kept.session.is_worth_keeping())
    }

    /// The same, whether or not it is worth keeping.
    #[must_use]
    pub fn named(&self, slot: SessionSlot) -> Option<Kept<'_, T>> {
        let Entry { session, presence } = self.entries.get(slot.0 as usize)?;
        if session.is_unnamed() {
            return None;
        }
        let left = match presence {
            Presence::InUse(_) => None,
            Presence::Detached { since, .. } => Some(self.time(*since)),
        };
        Some(Kept { session, left })
    }

    /// Puts a session into the table that was left at `since`, by nobody who is there now: behind those that were left
    /// before it. No other is called so.
    pub fn restore(
        &mut self,
        (id, count): (SessionId, u64),
        state: T,
        since: Instant,
        ended: impl FnMut(EndedSession<T>),
    ) -> Option<SessionSlot> {
        let hash = self.hash(&id);
        if self.find_by(hash, &id).is_some() {
            debug_assert!(false, "a store has each session once");
            return None;
        }
        let (standing, state) = (Standing::Stored, Contained::new(state));
        let session = Session { id, count, standing, others: 0, holds: 0, state };
        let since = self.stamp(since);
        let presence = Presence::Detached { since, older: None, newer: None };
        let slot = self.entries.insert(Entry { session, presence }) as u32;
        let (entries, hasher) = (&self.entries, self.hasher);
        self.index.insert(hash, slot, |at| hasher.of(entries[at as usize].session.id.bytes()));
        self.stand_behind(slot, since, ended);
        Some(SessionSlot(slot))
    }

    // ---- where several machines share the sessions ----

    /// From now on those that are too many leave when [`Self::evict_oldest`] is called: not before the store has what
    /// they have changed.
    pub fn evict_late(&mut self) {
        (self.late_capacity, self.capacity) = (self.capacity, usize::MAX);
    }

    /// Where the session called `id` is.
    #[must_use]
    pub fn slot_of(&self, id: &SessionId) -> Option<SessionSlot> {
        self.find(id).map(SessionSlot)
    }

    /// The id of the session in `slot`, also of one that it names no more.
    #[must_use]
    pub fn id_in(&self, slot: SessionSlot) -> Option<&SessionId> {
        Some(&self.entries.get(slot.0 as usize)?.session.id)
    }

    /// The connections that speak for the session in `slot`, in the order of coming.
    #[must_use]
    pub fn speakers_of(&self, slot: SessionSlot) -> &[LocalId] {
        let SessionSlot(slot) = slot;
        let Some(entry) = self.entries.get(slot as usize) else { return &[] };
        match &entry.presence {
            Presence::InUse(Use::Attached(connection)) => slice::from_ref(connection),
            Presence::InUse(Use::Other(OtherUse::Shared)) => self.sharers.of(slot),
            Presence::InUse(Use::Other(OtherUse::Held(_))) | Presence::Detached { .. } => &[],
        }
    }

    /// The session without a connection that is the next to expire, and to leave if there are too many.
    #[must_use]
    pub fn oldest(&self) -> Option<SessionSlot> {
        self.oldest.map(|link| SessionSlot(link.get() - 1))
    }

    /// Whether there are more sessions without a connection than there may be.
    #[must_use]
    pub fn has_too_many(&self) -> bool {
        self.detached > self.late_capacity
    }

    /// The oldest leaves, to make room.
    pub fn evict_oldest(&mut self, ended: impl FnMut(EndedSession<T>)) {
        if let Some(SessionSlot(oldest)) = self.oldest() {
            self.end(oldest, SessionEnd::Evicted, ended);
        }
    }

    /// Those in these slots that somebody speaks for, and that an id names.
    pub fn attached_in(&self, slots: Range<usize>) -> impl Iterator<Item = SessionSlot> {
        slots.filter_map(|index| {
            let Entry { session, presence } = self.entries.get(index)?;
            let is_one = presence.is_attached() && !session.is_unnamed();
            is_one.then_some(SessionSlot(index as u32))
        })
    }

    /// The store says that the session in `slot` goes on: if nobody speaks for it, its time to live begins anew.
    pub fn renew(&mut self, slot: SessionSlot, now: Instant) {
        let SessionSlot(slot) = slot;
        if let Some(Presence::Detached { .. }) =
            self.entries.get(slot as usize).map(|entry| entry.presence)
        {
            self.unlink(slot);
            let since = self.stamp(now);
            self.stand_behind(slot, since, |_| {});
        }
    }

    /// The session in `slot` is not this node's any more: no id names it, no request holds it, and it ends with the
    /// last connection that speaks for it; at once if none does.
    pub fn disown(&mut self, slot: SessionSlot, ended: impl FnMut(EndedSession<T>)) {
        let SessionSlot(slot) = slot;
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        if entry.session.is_unnamed() {
            return;
        }
        (entry.session.standing, entry.session.holds) = (Standing::Disowned, 0);
        let presence = entry.presence;
        self.unname(slot);
        match presence {
            Presence::InUse(Use::Attached(_) | Use::Other(OtherUse::Shared)) => {}
            Presence::InUse(Use::Other(OtherUse::Held(_))) => {
                self.held -= 1;
                self.end(slot, SessionEnd::Moved, ended);
            }
            Presence::Detached { .. } => self.end(slot, SessionEnd::Moved, ended),
        }
    }
}

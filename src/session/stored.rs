//! What a table has for the store, and what it is given back from there.
//!
//! Looks a session up as it is to be stored, and puts one into the table that was stored. Stores nothing. Called by the
//! shard's runtime, in a server with a store.
//!
//! Invariant: a session that was stored is worth keeping, whatever it has counted.
//!
//! Next: [`crate::session::changes`]: what the store has not been sent.

use std::time::Instant;

use super::ended::EndedSession;
use super::id::{SessionId, SessionSlot};
use super::one::{Session, Standing};
use super::table::{Entry, Presence, SessionTable};
use crate::contained::Contained;

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
        let Entry { session, presence } = self.entries.get(slot.0 as usize)?;
        if session.is_forgotten() || !session.is_worth_keeping() {
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
    ) {
        let hash = self.hash(&id);
        if self.find_by(hash, &id).is_some() {
            debug_assert!(false, "a store has each session once");
            return;
        }
        let (standing, state) = (Standing::Stored, Contained::new(state));
        let session = Session { id, count, standing, others: 0, holds: 0, state };
        let since = self.stamp(since);
        let presence = Presence::Detached { since, older: None, newer: None };
        let slot = self.entries.insert(Entry { session, presence }) as u32;
        let (entries, hasher) = (&self.entries, self.hasher);
        self.index.insert(hash, slot, |at| hasher.of(entries[at as usize].session.id.bytes()));
        self.stand_behind(slot, since, ended);
    }
}

//! What holds of a session table between any two calls, checked one by one.
//!
//! Costs as much as there are sessions. Changes nothing. Called by tests, by the simulation after each turn, and by fuzz
//! targets.
//!
//! Next: `stored`: what of it goes to a store, and comes back.

use super::table::{OtherUse, Presence, SessionTable, Use};

impl<T: Default> SessionTable<T> {
    /// Checks the invariant that the head of `table.rs` states, and that the index agrees.
    ///
    /// # Panics
    ///
    /// If it does not hold.
    pub fn invariants(&self) {
        assert!(self.detached <= self.capacity);
        let mut listed = 0;
        let (mut at, mut older) = (self.oldest, None);
        while let Some(link) = at {
            let Presence::Detached { older: back, newer, .. } =
                self.entries[link.get() as usize - 1].presence
            else {
                panic!("a session that is in use stands in the list of the detached");
            };
            assert_eq!(back, older);
            (at, older) = (newer, Some(link));
            listed += 1;
        }
        assert_eq!(self.newest, older);
        assert_eq!(listed, self.detached);
        let (mut held, mut named, mut shared) = (0, 0, 0);
        for (slot, entry) in &self.entries {
            let is_named = self.find(&entry.session.id) == Some(slot as u32);
            assert_eq!(is_named, !entry.session.is_unnamed());
            named += usize::from(is_named);
            let is_attached = entry.presence.is_attached();
            let is_over = entry.session.is_unnamed();
            assert!(!is_over || is_attached && entry.session.holds == 0, "a forgotten one is kept");
            match entry.presence {
                Presence::InUse(Use::Attached(_)) => {}
                Presence::InUse(Use::Other(OtherUse::Shared)) => {
                    let sharers = self.sharers.of(slot as u32).len();
                    assert_eq!(sharers, entry.session.connections());
                    shared += 1;
                }
                Presence::InUse(Use::Other(OtherUse::Held(_))) => {
                    assert!(entry.session.holds > 0, "held by nobody");
                    held += 1;
                }
                Presence::Detached { .. } => {}
            }
        }
        assert_eq!(held, self.held);
        self.sharers.invariants(shared);
        assert_eq!(self.index.len(), named);
    }
}

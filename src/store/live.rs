//! What the entries of a log add up to: the last record of each session that was not forgotten.
//!
//! Takes entries in the order of the log. Reads no file, and no clock: whoever asks what has expired says what the time
//! is. Filled by the recovery with everything, and by a compaction with a part of it.
//!
//! Invariant: of each id there is one entry at most, and the index leads to it.
//!
//! Next: `replay`: reading a log into this.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::record::{Entry, Presence, Record};
use crate::session::SessionId;

/// A session of the log.
#[derive(Debug)]
pub struct LiveEntry {
    /// Its last record.
    pub record: Record,
    /// Which change of the log that was.
    pub order: u64,
    /// Starts before it: an attached one counts as left at the next.
    starts_before: u32,
}

impl LiveEntry {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        // The id is counted as if it were a long one's text: it is beside the record then.
        let beside = self.record.state.as_ref().map_or(0, |state| state.bytes.len());
        size_of::<LiveEntry>() + 2 * size_of::<u32>() + 24 + beside
    }
}

/// The sessions of a log.
#[derive(Debug, Default)]
pub struct Live {
    entries: Vec<LiveEntry>,
    /// Places in `entries`, by hash of the id. Keyed, because clients may choose ids.
    index: HashTable<u32>,
    hasher: RandomState,
    starts: Vec<u64>,
    changes: u64,
    /// Order of the last entry of a base's batch.
    base_order: u64,
    bytes: usize,
}

impl Live {
    /// Takes an entry, if it is about a session that is `wanted`.
    pub fn apply(&mut self, entry: Entry<'_>, wanted: impl FnOnce(&SessionId) -> bool) {
        match entry {
            Entry::Save(saved) => {
                let order = match saved.order {
                    Some(distance) => {
                        self.base_order = self.base_order.wrapping_add(distance);
                        self.base_order
                    }
                    None => self.next_order(),
                };
                if wanted(&saved.id) {
                    let starts_before = self.starts.len() as u32;
                    let record = saved.into_record();
                    self.put(LiveEntry { record, order, starts_before });
                }
            }
            Entry::Forget { id, generation } => {
                self.next_order();
                if let Some(place) = self.place(&id)
                    && self.entries[place].record.generation <= generation
                {
                    self.remove(place);
                }
            }
            Entry::Start { at_ms } => {
                self.next_order();
                self.starts.push(at_ms);
            }
            Entry::Unknown => {
                self.next_order();
            }
        }
    }

    /// A batch of a base begins: its first entry has its order from 0.
    pub fn begin_base_batch(&mut self) {
        self.base_order = 0;
    }

    /// A base has been read, which stands for so many changes.
    pub fn end_base(&mut self, changes: u64) {
        self.changes = changes;
    }

    /// Changes so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[cfg(any(test, feature = "internals"))]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops those that are not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(&SessionId) -> bool) {
        for place in (0..self.entries.len()).rev() {
            if !wanted(&self.entries[place].record.id) {
                self.remove(place);
            }
        }
    }

    /// All of them, in no order; each has left if a start came behind it.
    #[must_use]
    pub fn into_entries(self) -> Vec<LiveEntry> {
        let Live { mut entries, starts, .. } = self;
        for entry in &mut entries {
            if let (Presence::Attached, Some(&at_ms)) =
                (entry.record.presence, starts.get(entry.starts_before as usize))
            {
                entry.record.presence = Presence::Left { at_ms };
            }
        }
        entries
    }

    /// What there is of this session.
    #[must_use]
    pub fn find(&self, id: &SessionId) -> Option<&LiveEntry> {
        self.place(id).map(|place| &self.entries[place])
    }

    fn next_order(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    fn place(&self, id: &SessionId) -> Option<usize> {
        let hash = self.hasher.hash_one(id);
        let is_it = |place: &u32| self.entries[*place as usize].record.id == *id;
        self.index.find(hash, is_it).map(|place| *place as usize)
    }

    fn put(&mut self, entry: LiveEntry) {
        self.bytes += entry.bytes();
        if let Some(place) = self.place(&entry.record.id) {
            self.bytes -= self.entries[place].bytes();
            self.entries[place] = entry;
            return;
        }
        let hash = self.hasher.hash_one(&entry.record.id);
        let place = self.entries.len() as u32;
        self.entries.push(entry);
        let Live { entries, index, hasher, .. } = self;
        index.insert_unique(hash, place, |place| {
            hasher.hash_one(&entries[*place as usize].record.id)
        });
    }

    /// The last entry takes the place of the one that goes.
    fn remove(&mut self, place: usize) {
        let last = self.entries.len() - 1;
        let hash_of = |place: usize| self.hasher.hash_one(&self.entries[place].record.id);
        let (gone, moved) = (hash_of(place), hash_of(last));
        if let Ok(found) = self.index.find_entry(gone, |found| *found as usize == place) {
            found.remove();
        }
        if let Some(found) = self.index.find_mut(moved, |found| *found as usize == last) {
            *found = place as u32;
        }
        let entry = self.entries.swap_remove(place);
        self.bytes -= entry.bytes();
    }
}

/// Whether a session that was left at `left_at_ms` has expired at `now_ms`.
#[must_use]
pub fn has_expired(left_at_ms: u64, now_ms: u64, ttl_ms: u64) -> bool {
    now_ms.saturating_sub(left_at_ms) >= ttl_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{self, Saved};

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    fn save(name: &str, generation: u64, presence: Presence) -> Entry<'static> {
        let state = Some((1, &b"12345"[..]));
        Entry::Save(Saved { id: id(name), generation, count: 1, state, presence, order: None })
    }

    fn forget(name: &str, generation: u64) -> Entry<'static> {
        Entry::Forget { id: id(name), generation }
    }

    fn live(entries: Vec<Entry<'_>>) -> Live {
        let mut live = Live::default();
        entries.into_iter().for_each(|entry| live.apply(entry, |_| true));
        live
    }

    fn names(live: Live) -> Vec<(String, Presence, u64)> {
        let entries = live.into_entries().into_iter();
        let mut names: Vec<_> = entries
            .map(|entry| {
                let id = entry.record.id.text().as_str().to_owned();
                (id, entry.record.presence, entry.order)
            })
            .collect();
        names.sort_by_key(|(_, _, order)| *order);
        names
    }

    const ATTACHED: Presence = Presence::Attached;

    #[test]
    fn the_last_record_counts_and_an_old_one_is_not_what_forgets_a_new_one() {
        let left = Presence::Left { at_ms: 7 };
        let entries = vec![
            save("a", 1, ATTACHED),
            save("b", 5, ATTACHED),
            save("a", 1, left),
            forget("b", 4),
            save("c", 1, ATTACHED),
            forget("c", 1),
            forget("nobody", 9),
        ];
        let live = live(entries);
        assert_eq!(live.changes(), 7);
        assert_eq!(names(live), [("b".into(), ATTACHED, 2), ("a".into(), left, 3)]);
    }

    #[test]
    fn who_was_attached_has_left_at_the_first_start_behind() {
        let start = |at_ms| Entry::Start { at_ms };
        let entries = vec![
            start(10),
            save("a", 1, ATTACHED),
            start(20),
            save("b", 1, ATTACHED),
            start(30),
            save("c", 1, ATTACHED),
        ];
        let left = |at_ms| Presence::Left { at_ms };
        assert_eq!(
            names(live(entries)),
            [("a".into(), left(20), 2), ("b".into(), left(30), 4), ("c".into(), ATTACHED, 6)]
        );
    }

    #[test]
    fn what_goes_leaves_the_others_to_be_found_and_the_memory_counted() {
        let mut live = Live::default();
        for number in 0..1000 {
            live.apply(save(&format!("s{number}"), 1, ATTACHED), |_| true);
        }
        let each = live.bytes() / 1000;
        live.retain(|id| id.text().as_str().ends_with('7'));
        assert_eq!((live.len(), live.bytes()), (100, 100 * each));
        for number in 0..1000 {
            let is_there = live.place(&id(&format!("s{number}"))).is_some();
            assert_eq!(is_there, number % 10 == 7, "s{number}");
            live.apply(forget(&format!("s{number}"), 1), |_| true);
        }
        assert!(live.is_empty() && live.bytes() == 0);
    }

    #[test]
    fn a_base_keeps_the_order_of_the_log() {
        let mut bytes = Vec::new();
        let mut live = Live::default();
        let mut last = 0;
        for order in [3, 70, 71] {
            let Entry::Save(saved) = save(&format!("s{order}"), 1, ATTACHED) else { return };
            record::encode_save(&saved.into_record(), Some(order - last), &mut bytes);
            last = order;
        }
        let mut rest = &bytes[..];
        live.begin_base_batch();
        while let Some(entry) = record::decode(&mut rest).unwrap() {
            live.apply(entry, |_| true);
        }
        live.end_base(100);
        live.apply(save("s70", 1, ATTACHED), |_| true);
        let orders: Vec<_> = names(live).into_iter().map(|(_, _, order)| order).collect();
        assert_eq!(orders, [3, 71, 101]);
    }

    #[test]
    fn time_to_live_ends_at_its_last_millisecond_and_a_clock_set_back_ends_none() {
        assert!(!has_expired(1000, 1099, 100));
        assert!(has_expired(1000, 1100, 100));
        assert!(!has_expired(1000, 0, 100));
        assert!(!has_expired(0, u64::MAX - 1, u64::MAX));
    }
}

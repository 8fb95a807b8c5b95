//! Which session an id names: places in the table by the hash of the id.
//!
//! In stripes, by some bits of the hash. A hash table that has no room left moves all that it holds at once: with
//! ten million sessions that was a turn of a second. A stripe holds a five hundredth of them, and so a turn moves no
//! more than that. When a crowd of sessions has gone, each stripe gives its storage back with its last place.
//!
//! Stores no id: what is compared and hashed, the caller says. Called by the table.
//!
//! Invariant: a place stands in the stripe that the hash of its id chooses, once.
//!
//! Next: `sharers`: the connections of a session that several share.

use hashbrown::HashTable;

/// How many there are. 512: with ten million sessions a stripe moves twenty thousand at a time, some two million
/// instructions, half as many again as a turn's share of sessions that expire takes; and the stripes themselves are
/// 16 KiB.
const STRIPES: usize = 512;

/// Bits of the hash that are used for neither the place in a stripe (the lowest) nor the tag there (the
/// highest).
const SHIFT: u32 = 40;

/// A stripe with room for no more than this keeps it. 28, which are 180 bytes: where few sessions come and go, each
/// would give back what the next one asks for.
const KEPT: usize = 28;

/// The places of all sessions that an id names.
#[derive(Debug)]
pub(super) struct Index {
    stripes: Box<[HashTable<u32>; STRIPES]>,
}

impl Index {
    /// Of an empty table.
    pub(super) fn new() -> Self {
        Index { stripes: Box::new([const { HashTable::new() }; STRIPES]) }
    }

    /// The place with this hash for which `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.stripes[stripe_of(hash)].find(hash, |&place| is_it(place)).copied()
    }

    /// Adds a place that is not there. If others must move for it, `hash_of` says where to.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, place: u32, hash_of: impl Fn(u32) -> u64) {
        self.stripes[stripe_of(hash)].insert_unique(hash, place, |&place| hash_of(place));
    }

    /// Takes a place out. A stripe of which that was the last one gives its storage back. It does not before:
    /// all stripes would move what they hold at nearly the same time.
    #[inline(always)]
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        let stripe = &mut self.stripes[stripe_of(hash)];
        if let Ok(entry) = stripe.find_entry(hash, |&at| at == place) {
            entry.remove();
            if stripe.is_empty() && stripe.capacity() > KEPT {
                *stripe = HashTable::new();
            }
        }
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(HashTable::len).sum()
    }

    /// For how many there is room: for tests.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.stripes.iter().map(HashTable::capacity).sum()
    }
}

fn stripe_of(hash: u64) -> usize {
    (hash >> SHIFT) as usize % STRIPES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spread over all bits.
    fn hash_of(place: u32) -> u64 {
        u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    #[test]
    fn what_was_added_is_found_until_it_is_taken_out_and_room_is_given_back() {
        const MANY: u32 = 100_000;
        let mut index = Index::new();
        for place in 0..MANY {
            index.insert(hash_of(place), place, hash_of);
        }
        assert_eq!(index.len(), MANY as usize);
        let most = index.capacity();
        let stays = |place: &u32| place.is_multiple_of(1000);
        for place in 0..MANY {
            assert_eq!(index.find(hash_of(place), |at| at == place), Some(place));
            if !stays(&place) {
                index.remove(hash_of(place), place);
                assert_eq!(index.find(hash_of(place), |at| at == place), None);
            }
        }
        assert_eq!(index.len(), MANY as usize / 1000);
        assert!((0..MANY).filter(stays).all(|at| index.find(hash_of(at), |it| it == at).is_some()));
        assert!(index.capacity() < most / 4, "most stripes are empty");
        (0..MANY).filter(stays).for_each(|place| index.remove(hash_of(place), place));
        assert_eq!((index.len(), index.capacity()), (0, 0));
    }

    #[test]
    fn no_stripe_holds_much_more_than_its_share() {
        let mut index = Index::new();
        for place in 0..100_000 {
            index.insert(hash_of(place), place, hash_of);
        }
        let most = index.stripes.iter().map(HashTable::len).max();
        assert!(most.is_some_and(|most| most < 2 * 100_000 / STRIPES), "{most:?}");
    }
}

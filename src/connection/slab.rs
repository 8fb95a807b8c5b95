//! The slab of connections: ids to connections and back, and no way to reach a slot's former
//! tenant. Of that one only the alarm is left, for the next.
//!
//! Which slots are in use stands in a bit each, with bits above them for what is not empty, so a walk over
//! the connections costs as much as there are connections, however many there once were. Called by the shard.
//!
//! Invariant: an id finds the connection it was made for, or nothing; a slot's bit is set exactly while
//! a connection is in it.
//!
//! Next: [`crate::connection::ready`]: which of them to visit.

use std::num::NonZeroU32;

use slab::Slab;

use crate::connection::Connection;
use crate::connection::timer_wheel::Tick;
use crate::token::LocalId;
use crate::transport::Stream;

/// All connections of one reactor.
#[derive(Debug)]
pub struct Connections<S> {
    slab: Slab<Connection<S>>,
    generation: NonZeroU32,
    occupied: SlotSet,
    left_alarms: LeftAlarms,
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Connections {
            slab: Slab::new(),
            generation: NonZeroU32::MIN,
            occupied: SlotSet::default(),
            left_alarms: LeftAlarms::default(),
        }
    }
}

impl<S: Stream> Connections<S> {
    /// Adds the connection that `make` makes of its id.
    pub fn insert(&mut self, make: impl FnOnce(LocalId) -> Connection<S>) -> LocalId {
        let entry = self.slab.vacant_entry();
        // A process has far fewer than 2^32 descriptors.
        let id = LocalId { index: entry.key() as u32, generation: self.generation };
        // After 2^32 connections generations come round; none of that age is still referred to.
        self.generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        entry.insert(make(id));
        self.occupied.insert(id.index as usize);
        id
    }

    /// The connection called `id`, unless it has gone.
    #[inline]
    pub fn get_mut(&mut self, id: LocalId) -> Option<&mut Connection<S>> {
        let connection = self.slab.get_mut(id.index as usize)?;
        // The slot is the index: what is left to compare is the tenant.
        (connection.id.generation == id.generation).then_some(connection)
    }

    /// The same, to look at.
    #[must_use]
    pub fn get(&self, id: LocalId) -> Option<&Connection<S>> {
        self.slab.get(id.index as usize).filter(|connection| connection.id == id)
    }

    /// Two connections at once, unless one of them has gone.
    pub fn pair_mut(
        &mut self,
        one: LocalId,
        other: LocalId,
    ) -> Option<(&mut Connection<S>, &mut Connection<S>)> {
        if one.index == other.index {
            return None;
        }
        let pair = self.slab.get2_mut(one.index as usize, other.index as usize)?;
        (pair.0.id == one && pair.1.id == other).then_some(pair)
    }

    /// Takes it out.
    pub fn remove(&mut self, id: LocalId) -> Option<Connection<S>> {
        let alarm = self.get_mut(id)?.alarm;
        let index = id.index as usize;
        self.left_alarms.leave(index, alarm);
        self.occupied.remove(index);
        self.slab.try_remove(index)
    }

    /// The alarm that the former tenant of this slot left behind, which may have gone off since.
    pub fn take_left_alarm(&mut self, id: LocalId) -> Option<Tick> {
        self.left_alarms.take(id.index as usize)
    }

    /// The connection that lives in a slot now.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Connection<S>> {
        self.slab.get(index)
    }

    /// Who lives in a slot now.
    #[must_use]
    pub fn tenant(&self, index: usize) -> Option<LocalId> {
        self.at(index).map(|connection| connection.id)
    }

    /// The first connection in a slot not below `slot`: one step of a walk over all of them, which
    /// can be interrupted for a turn and go on from the slot behind the last one.
    #[must_use]
    pub fn next_from(&self, slot: usize) -> Option<LocalId> {
        self.tenant(self.occupied.next_from(slot)?)
    }

    /// One more than the highest slot in use.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.occupied.last().map_or(0, |slot| slot + 1)
    }

    /// How many there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All of them, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<S>> {
        self.iter_from(0)
    }

    /// Those in a slot not below `slot`.
    pub fn iter_from(&self, mut slot: usize) -> impl Iterator<Item = &Connection<S>> {
        std::iter::from_fn(move || {
            let found = self.occupied.next_from(slot)?;
            slot = found + 1;
            self.at(found)
        })
    }
}

/// How many slots share a block of left alarms: 2 KiB.
const ALARMS_PER_BLOCK: usize = 512;

/// By slot, what was entered in the timer wheel for its former tenant; 0, which no entry has, if nothing
/// was. A block is made when the first tenant of its slots goes, so connections that all stay open pay
/// nothing for it, and no removal pays for more than a block. (One vector that grew with the slab was 8
/// bytes an idle connection.)
#[derive(Debug, Default)]
struct LeftAlarms {
    blocks: Vec<Option<Box<[Tick; ALARMS_PER_BLOCK]>>>,
}

impl LeftAlarms {
    fn leave(&mut self, slot: usize, alarm: Option<Tick>) {
        let block = slot / ALARMS_PER_BLOCK;
        if block >= self.blocks.len() {
            self.blocks.resize_with(block + 1, || None);
        }
        match (&mut self.blocks[block], alarm) {
            (Some(alarms), alarm) => alarms[slot % ALARMS_PER_BLOCK] = alarm.unwrap_or(0),
            (None, None) => {}
            (vacant @ None, Some(alarm)) => {
                let alarms = vacant.insert(Box::new([0; ALARMS_PER_BLOCK]));
                alarms[slot % ALARMS_PER_BLOCK] = alarm;
            }
        }
    }

    fn take(&mut self, slot: usize) -> Option<Tick> {
        let alarms = self.blocks.get_mut(slot / ALARMS_PER_BLOCK)?.as_mut()?;
        let left = std::mem::take(&mut alarms[slot % ALARMS_PER_BLOCK]);
        (left > 0).then_some(left)
    }
}

/// How many levels of bits there are. With four, a word of the last stands for 16 million slots, so in practice
/// that is one word.
const LEVELS: usize = 4;

/// A set of slots: a bit for each, and in each further level a bit for each word of the one below that has
/// one set. The next slot in use, and the last one, are found in some seven words, however many vacant ones
/// lie between. (To walk the slab itself, as `Slab::iter` does, took a step for each slot that was ever in
/// use; with two levels, a million vacant slots were 244 words.)
#[derive(Debug, Default)]
struct SlotSet {
    levels: [Vec<u64>; LEVELS],
}

impl SlotSet {
    fn insert(&mut self, slot: usize) {
        let mut at = slot;
        for words in &mut self.levels {
            let word = at / 64;
            if word >= words.len() {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (at % 64);
            at = word;
        }
    }

    fn remove(&mut self, slot: usize) {
        let mut at = slot;
        for words in &mut self.levels {
            let word = at / 64;
            let Some(bits) = words.get_mut(word) else { return };
            *bits &= !(1 << (at % 64));
            if *bits != 0 {
                return;
            }
            at = word;
        }
    }

    /// The least slot in the set that is not below `slot`.
    #[inline]
    fn next_from(&self, slot: usize) -> Option<usize> {
        // In a walk over many it is nearly always in the same word as the one before.
        let word = slot / 64;
        match next_bit(self.levels[0].get(word)?, slot % 64) {
            Some(found) => Some(word * 64 + found),
            None => self.next_from_above(word + 1),
        }
    }

    /// The least slot in the words of the first level from `at` on.
    #[inline(never)]
    fn next_from_above(&self, mut at: usize) -> Option<usize> {
        for (level, words) in self.levels.iter().enumerate().skip(1) {
            let word = at / 64;
            // Beyond the last word of a level nothing is.
            if let Some(found) = next_bit(words.get(word)?, at % 64) {
                return Some(self.below(level, word * 64 + found, u64::trailing_zeros));
            }
            at = word + 1;
        }
        let last = self.levels.last()?;
        let word = at + last.get(at..)?.iter().position(|bits| *bits != 0)?;
        let found = last[word].trailing_zeros() as usize;
        Some(self.below(LEVELS - 1, word * 64 + found, u64::trailing_zeros))
    }

    fn last(&self) -> Option<usize> {
        let words = self.levels.last()?;
        let word = words.iter().rposition(|bits| *bits != 0)?;
        Some(self.below(LEVELS - 1, word * 64 + words[word].ilog2() as usize, u64::ilog2))
    }

    /// The slot to which the bit `at` of a level leads, if in each word below it `choose` finds the way.
    fn below(&self, level: usize, at: usize, choose: impl Fn(u64) -> u32) -> usize {
        self.levels[..level].iter().rev().fold(at, |at, words| at * 64 + choose(words[at]) as usize)
    }
}

/// The lowest bit set in `bits` that is not below `start`, which is below 64.
fn next_bit(bits: &u64, start: usize) -> Option<usize> {
    let rest = bits & (u64::MAX << start);
    (rest != 0).then(|| rest.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::SlotSet;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_of_slots_finds_what_a_tree_finds() {
        let (mut set, mut tree, mut seed) = (SlotSet::default(), BTreeSet::new(), 7u64);
        for round in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Near each other, at the borders of words, and far apart.
            let most = [70, 300, 5000, 1_000_000, 40_000_000][round / 100 % 5];
            let slot = (seed >> 33) as usize % most;
            match seed >> 32 & 1 {
                0 => {
                    set.insert(slot);
                    tree.insert(slot);
                }
                _ => {
                    set.remove(slot);
                    tree.remove(&slot);
                }
            }
            for from in [0, slot, slot + 1, slot / 64 * 64, 2 * slot, 999_999, 39_999_999] {
                assert_eq!(set.next_from(from), tree.range(from..).next().copied(), "{from}");
            }
            assert_eq!(set.last(), tree.last().copied());
        }
        for slot in tree {
            set.remove(slot);
        }
        assert_eq!((set.next_from(0), set.last()), (None, None));
    }
}

//! What is kept for some of the connections, found by their slots.
//!
//! Neither hashed nor compared: an index, and a box for what is there. A hash table that has no room left moves all
//! that it holds in one turn; this one grows by a pointer for each slot. Knows no connection. Used by what keeps
//! something for the application: its timers, and its own state of a connection.
//!
//! Invariant: as many boxes are there as are counted.
//!
//! Next: [`crate::json`]: JSON as text.

use crate::connection::timer_wheel::Slot;

/// At most one value for each slot.
#[derive(Debug)]
pub struct BySlot<T> {
    slots: Vec<Option<Box<T>>>,
    count: usize,
}

impl<T> Default for BySlot<T> {
    fn default() -> Self {
        BySlot { slots: Vec::new(), count: 0 }
    }
}

impl<T> BySlot<T> {
    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// What is kept for a slot.
    #[inline]
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// The same, to change.
    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// What is kept for a slot, or what `make` makes.
    pub fn get_or_insert_with(&mut self, slot: Slot, make: impl FnOnce() -> T) -> &mut T {
        let index = slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        let count = &mut self.count;
        self.slots[index].get_or_insert_with(|| {
            *count += 1;
            Box::new(make())
        })
    }

    /// Takes out what is kept for a slot.
    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        // The pointers stay, also when none is left: a single connection in a high slot that comes and goes would
        // have all of them made anew each time.
        let removed = self.slots.get_mut(slot as usize)?.take()?;
        self.count -= 1;
        Some(*removed)
    }

    /// All that are there, with their slots. Costs as much as there are slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(slot, kept)| Some((slot as Slot, kept.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_until_it_is_taken_out() {
        let mut by_slot = BySlot::default();
        assert!(by_slot.get(3).is_none() && by_slot.remove(3).is_none());
        *by_slot.get_or_insert_with(3, || 30) += 1;
        *by_slot.get_or_insert_with(3, || 50) += 1;
        by_slot.get_or_insert_with(0, || 5);
        assert_eq!((by_slot.get(3), by_slot.get(1), by_slot.get(9)), (Some(&32), None, None));
        assert_eq!(by_slot.iter().collect::<Vec<_>>(), [(0, &5), (3, &32)]);
        assert_eq!((by_slot.len(), by_slot.remove(3), by_slot.remove(3)), (2, Some(32), None));
        assert_eq!(by_slot.get_mut(0), Some(&mut 5));
        assert_eq!(by_slot.remove(0), Some(5));
        assert!(by_slot.is_empty() && by_slot.iter().next().is_none());
    }
}

//! The connections that have something to do this turn.
//!
//! Each at most once, however many reasons it has; taken whole at the start of a turn, so that
//! one that queues itself again (its share was used up) waits for the next turn and a busy one
//! cannot starve the rest. Knows nothing of why.
//!
//! Invariant: `marks[index]` is the generation queued for that slot, or 0 for none.
//!
//! Next: [`crate::door`]: who gets in at all.

use crate::token::ConnectionId;

/// The queue.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    queue: Vec<ConnectionId>,
    marks: Vec<u32>,
}

impl ReadyQueue {
    /// Adds `id`, unless it is there.
    #[inline]
    pub fn push(&mut self, id: ConnectionId) {
        let index = id.index as usize;
        if index >= self.marks.len() {
            self.marks.resize(index + 1, 0);
        }
        let generation = id.generation.get();
        if self.marks[index] != generation {
            self.marks[index] = generation;
            self.queue.push(id);
        }
    }

    /// Moves everything queued into `turn`, which must be empty, in the order of arrival.
    pub fn take(&mut self, turn: &mut Vec<ConnectionId>) {
        debug_assert!(turn.is_empty());
        std::mem::swap(&mut self.queue, turn);
        for id in turn.iter() {
            let mark = &mut self.marks[id.index as usize];
            // A newer tenant of the slot may have been queued behind an ended one.
            if *mark == id.generation.get() {
                *mark = 0;
            }
        }
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether `id` is queued.
    #[must_use]
    pub fn contains(&self, id: ConnectionId) -> bool {
        self.marks.get(id.index as usize) == Some(&id.generation.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn id(index: u32, generation: u32) -> ConnectionId {
        ConnectionId { index, generation: NonZeroU32::new(generation).unwrap() }
    }

    #[test]
    fn each_once_in_order_of_arrival() {
        let mut ready = ReadyQueue::default();
        for queued in [id(3, 1), id(1, 2), id(3, 1)] {
            ready.push(queued);
        }
        let mut turn = Vec::new();
        ready.take(&mut turn);
        assert_eq!(turn, [id(3, 1), id(1, 2)]);
        assert!(ready.is_empty() && !ready.contains(id(3, 1)));
    }

    #[test]
    fn a_new_tenant_is_queued_beside_the_old_one() {
        let mut ready = ReadyQueue::default();
        ready.push(id(0, 1));
        ready.push(id(0, 2));
        assert!(ready.contains(id(0, 2)));
        let mut turn = Vec::new();
        ready.take(&mut turn);
        assert_eq!(turn, [id(0, 1), id(0, 2)]);
        ready.push(id(0, 2));
        assert!(ready.contains(id(0, 2)));
    }
}

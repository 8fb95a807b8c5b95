//! The connections that have something to do this turn.
//!
//! Each stands there at most once, whatever the number of its reasons. A turn takes the queue whole
//! before its first visit. A connection that queues itself again, because its share was used up, waits
//! for the next turn: so a busy one cannot starve the rest. Whether a connection is queued stands in
//! the connection itself, as a [`Mark`], which is in the cache when it is asked for. Knows no reasons.
//!
//! Invariant: a connection's mark is set exactly while its id is queued, or was taken and its visit
//! has not begun.
//!
//! Next: [`crate::connection::by_slot`]: what is kept for some of them.

use crate::token::LocalId;

/// The queue.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    queue: Vec<LocalId>,
}

/// Whether a connection is to be visited: kept by the connection.
#[derive(Debug, Default)]
pub struct Mark {
    is_set: bool,
}

impl Mark {
    /// Whether it is.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.is_set
    }

    /// The visit begins: what happens from here on is a reason for another one.
    pub fn clear(&mut self) {
        self.is_set = false;
    }
}

impl ReadyQueue {
    /// Adds `id`, unless its mark says that it is there.
    #[inline]
    pub fn push(&mut self, id: LocalId, mark: &mut Mark) {
        if !mark.is_set {
            mark.is_set = true;
            self.queue.push(id);
        }
    }

    /// Moves everything queued into `turn`, which must be empty, in the order of arrival.
    pub fn take(&mut self, turn: &mut Vec<LocalId>) {
        debug_assert!(turn.is_empty());
        std::mem::swap(&mut self.queue, turn);
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether `id` is queued: for those who check marks.
    #[must_use]
    pub fn contains(&self, id: LocalId) -> bool {
        self.queue.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn id(index: u32) -> LocalId {
        LocalId { index, generation: NonZeroU32::MIN }
    }

    #[test]
    fn each_once_in_order_of_arrival() {
        let mut ready = ReadyQueue::default();
        let (mut one, mut three) = (Mark::default(), Mark::default());
        ready.push(id(3), &mut three);
        ready.push(id(1), &mut one);
        ready.push(id(3), &mut three);
        let mut turn = Vec::new();
        ready.take(&mut turn);
        assert_eq!(turn, [id(3), id(1)]);
        assert!(ready.is_empty() && !ready.contains(id(3)));
    }

    #[test]
    fn who_is_about_to_be_visited_is_queued_again_by_the_visit_alone() {
        let mut ready = ReadyQueue::default();
        let mut mark = Mark::default();
        ready.push(id(0), &mut mark);
        ready.take(&mut Vec::new());
        ready.push(id(0), &mut mark);
        assert!(ready.is_empty(), "its visit is still to come");
        mark.clear();
        ready.push(id(0), &mut mark);
        assert!(ready.contains(id(0)));
    }
}

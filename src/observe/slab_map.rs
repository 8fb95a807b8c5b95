//! The map of one slab: what each slot is doing, as runs of equal slots.
//!
//! It is what a reactor sends to another one that has watchers (`shard/watching.rs`), small enough
//! for mail: ten thousand open connections in a row are one number. Built a stretch at a time, so
//! that no turn is held up by it.
//!
//! Invariant: the lengths of the runs add up to the slots drawn, and no two neighbours are equal.
//!
//! Next: [`crate::observe::metrics`]: numbers instead of a map.

use std::sync::Arc;

use crate::connection::{Attachment, Connection, Rest};
use crate::protocol::endpoint::Endpoint;
use crate::transport::Stream;

/// What a slot shows. The numbers are part of what `/ws/stats` sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Nobody lives there.
    Vacant = 0,
    /// Waiting for a request head.
    Handshaking = 1,
    /// A WebSocket with its session.
    Open = 2,
    /// The same, not read from because it does not read either.
    Throttled = 3,
    /// Last words, half-close, linger.
    Closing = 4,
    /// Somebody who watches the reactors.
    Watching = 5,
    /// A WebSocket that is not read, because a reply of it is held until its session is stored.
    Held = 6,
}

impl SlotState {
    /// Of the slot that this connection is in.
    #[must_use]
    pub fn of<S: Stream>(connection: &Connection<S>) -> SlotState {
        match (&connection.endpoint, connection.attachment) {
            (Endpoint::Handshaking(_) | Endpoint::Pending(_), _) => SlotState::Handshaking,
            (Endpoint::Open(_), Attachment::Watching) => SlotState::Watching,
            (Endpoint::Open(_), _) => match connection.rest {
                Rest::Throttled => SlotState::Throttled,
                Rest::Committing => SlotState::Held,
                _ => SlotState::Open,
            },
            (Endpoint::Closing(_) | Endpoint::Closed, _) => SlotState::Closing,
        }
    }
}

/// Bits of a run that hold the state; its length stands above them.
const STATE_BITS: u32 = 3;
const _: () = assert!((SlotState::Held as u32) < 1 << STATE_BITS);

/// A slab map that is being drawn.
#[derive(Debug, Default)]
pub struct SlabMapBuilder {
    runs: Vec<u32>,
    drawn: usize,
}

impl SlabMapBuilder {
    /// Adds the next slots, which are all alike.
    pub fn push_run(&mut self, state: SlotState, slots: usize) {
        if slots == 0 {
            return;
        }
        let state = state as u32;
        self.drawn += slots;
        // A run cannot overflow: it is bounded by `Limits::slab_map_slots`, far below 2^29.
        let length = (slots as u32) << STATE_BITS;
        match self.runs.last_mut() {
            Some(run) if *run & ((1 << STATE_BITS) - 1) == state => *run += length,
            _ => self.runs.push(length | state),
        }
    }

    /// How many slots it has.
    #[must_use]
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// The slab map, of a slab that has `slots` of them.
    #[must_use]
    pub fn finish(self, reactor: usize, slots: usize) -> SlabMap {
        SlabMap { reactor, slots, runs: self.runs.into() }
    }
}

/// One reactor's slab; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlabMap {
    /// Whose it is.
    pub reactor: usize,
    /// Slots of the slab, of which the slab map may show only the first.
    pub slots: usize,
    /// Length times eight plus state, for each run.
    pub runs: Arc<[u32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_equal_are_one_run() {
        let mut builder = SlabMapBuilder::default();
        for (state, times) in [
            (SlotState::Open, 10_000),
            (SlotState::Vacant, 1),
            (SlotState::Open, 2),
            (SlotState::Watching, 1),
        ] {
            for _ in 0..times {
                builder.push_run(state, 1);
            }
        }
        builder.push_run(SlotState::Watching, 2);
        builder.push_run(SlotState::Open, 0);
        builder.push_run(SlotState::Vacant, 500);
        assert_eq!(builder.drawn(), 10_506);
        let slab_map = builder.finish(1, 10_506);
        let runs = [10_000 << 3 | 2, 1 << 3, 2 << 3 | 2, 3 << 3 | 5, 500 << 3];
        assert_eq!(*slab_map.runs, runs);
        let drawn: u32 = slab_map.runs.iter().map(|run| run >> STATE_BITS).sum();
        assert_eq!(drawn as usize, slab_map.slots);
    }

    #[test]
    fn an_empty_slab_has_no_runs() {
        assert!(SlabMapBuilder::default().finish(0, 0).runs.is_empty());
    }
}

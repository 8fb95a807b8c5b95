//! A picture of one slab: what each slot is doing, as runs of equal slots.
//!
//! It is what a reactor tells another that has somebody watching (`shard/watching.rs`), small enough
//! for mail: ten thousand open connections in a row are one number. Drawn a stretch at a time, so
//! that no turn is held up by it. Knows no connection; `connection.rs` says which [`Tile`] one is.
//!
//! Invariant: the lengths of the runs add up to the slots drawn, and no two neighbours are equal.
//!
//! Next: [`crate::connection`], the heart of it: why one stops, and what wakes it.

use std::sync::Arc;

/// What a slot shows. The numbers are part of what `/ws/stats` sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tile {
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
}

/// Bits of a run that hold its tile; the length stands above them.
const TILE_BITS: u32 = 3;
const _: () = assert!((Tile::Watching as u32) < 1 << TILE_BITS);

/// A picture that is being drawn.
#[derive(Debug, Default)]
pub struct Sketch {
    runs: Vec<u32>,
    drawn: usize,
}

impl Sketch {
    /// Adds the next slot.
    pub fn push(&mut self, tile: Tile) {
        let tile = tile as u32;
        self.drawn += 1;
        match self.runs.last_mut() {
            // A run cannot overflow: it is bounded by `Limits::picture_slots`, far below 2^29.
            Some(run) if *run & ((1 << TILE_BITS) - 1) == tile => *run += 1 << TILE_BITS,
            _ => self.runs.push(1 << TILE_BITS | tile),
        }
    }

    /// How many slots it has.
    #[must_use]
    pub fn drawn(&self) -> usize {
        self.drawn
    }

    /// The picture, of a slab that has `slots` of them.
    #[must_use]
    pub fn finish(self, reactor: usize, slots: usize) -> Picture {
        Picture { reactor, slots, runs: self.runs.into() }
    }
}

/// One reactor's slab; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Whose it is.
    pub reactor: usize,
    /// Slots of the slab, of which the picture may show only the first.
    pub slots: usize,
    /// Length times eight plus tile, for each run.
    pub runs: Arc<[u32]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_equal_are_one_run() {
        let mut sketch = Sketch::default();
        for (tile, times) in
            [(Tile::Open, 10_000), (Tile::Vacant, 1), (Tile::Open, 2), (Tile::Watching, 1)]
        {
            for _ in 0..times {
                sketch.push(tile);
            }
        }
        assert_eq!(sketch.drawn(), 10_004);
        let picture = sketch.finish(1, 10_004);
        assert_eq!(*picture.runs, [10_000 << 3 | 2, 1 << 3, 2 << 3 | 2, 1 << 3 | 5]);
        let drawn: u32 = picture.runs.iter().map(|run| run >> TILE_BITS).sum();
        assert_eq!(drawn as usize, picture.slots);
    }

    #[test]
    fn an_empty_slab_has_no_runs() {
        assert!(Sketch::default().finish(0, 0).runs.is_empty());
    }
}

//! A number that one thread writes and any other reads: what metrics are made of.
//!
//! Counts nothing itself. Used by reactors, by the store's threads and by that of the tasks.
//!
//! Invariant: it has one writer.
//!
//! Next: [`crate::session`]: what outlives a connection.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; for its one writer.
    #[inline]
    pub fn add(&self, amount: u64) {
        // Not `fetch_add`: with one writer a load and a store cannot lose an update, and need no
        // locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Sets; for its one writer.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads; for anyone.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

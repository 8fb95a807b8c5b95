//! What a store's thread counts, for the metrics page and the live page.
//!
//! Cells that one thread writes and any other reads. Renders nothing: `observe/metrics.rs` does. Made with the server's
//! status, whether there is a store or not.
//!
//! Invariant: a number only grows, but for those that tell what is there now.
//!
//! Next: `thread`: who counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Figures;
use super::claim::Outcome;

/// Upper bounds of the histogram of syncs, in microseconds: from a good solid-state disk to one that hangs.
pub const SYNC_BOUNDS_US: [u64; 12] =
    [100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// A number that one thread writes.
#[derive(Debug, Default)]
pub struct StoreCell(AtomicU64);

impl StoreCell {
    fn add(&self, amount: u64) {
        // One writer, so nothing is lost between the two.
        self.0.store(self.0.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Batches of reactors that were stored.
    pub commits: StoreCell,
    /// Sessions in them.
    pub sessions: StoreCell,
    /// Syncs, each for one batch or several.
    pub syncs: StoreCell,
    /// What they took altogether, in nanoseconds.
    pub sync_ns: StoreCell,
    syncs_by_time: [StoreCell; SYNC_BOUNDS_US.len() + 1],
    /// Bytes written for batches.
    pub bytes: StoreCell,
    /// Bytes of live sessions at the last compaction.
    pub live_bytes: StoreCell,
    /// Segments that were not compacted yet, the one in use included.
    pub segments: StoreCell,
    /// Compactions.
    pub compactions: StoreCell,
    /// Sessions that the start found, and what that took in nanoseconds.
    pub recovered: StoreCell,
    /// See `recovered`.
    pub recovery_ns: StoreCell,
    /// What there is to count of a store that several machines share, and only there.
    pub shared: SharedMetrics,
}

/// What is counted of a store that several machines share. Its round trips are counted as syncs: to whoever waits for a
/// reply they are the same.
#[derive(Debug, Default)]
pub struct SharedMetrics {
    /// 1 if there is one.
    pub is_used: StoreCell,
    /// 1 if it can be had.
    pub is_available: StoreCell,
    /// Connections that were made to it, for batches.
    pub connections: StoreCell,
    /// Sessions of which nothing was stored, because another claim has them.
    pub refused: StoreCell,
    /// Takeovers that it has told of.
    pub takeovers: StoreCell,
    /// Batches that were not answered in time.
    pub unavailable: StoreCell,
    /// Sessions that were claimed.
    pub claims: StoreCell,
}

impl SharedMetrics {
    /// There is such a store; it cannot be had yet.
    pub fn note_use(&self) {
        self.is_used.set(1);
    }

    pub(crate) fn note_availability(&self, is_available: bool) {
        self.is_available.set(u64::from(is_available));
    }

    pub(super) fn note_connection(&self) {
        self.connections.add(1);
    }

    pub(super) fn note_takeover(&self) {
        self.takeovers.add(1);
    }

    pub(super) fn note_outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { taken_over, claimed, .. } => {
                self.refused.add(taken_over.len() as u64);
                self.claims.add(claimed.len() as u64);
            }
            Outcome::Unavailable { .. } => self.unavailable.add(1),
        }
    }
}

impl StoreMetrics {
    /// A reactor's batch was written.
    pub(super) fn note_commit(&self, sessions: u64) {
        self.commits.add(1);
        self.sessions.add(sessions);
    }

    /// So many batches with so many sessions were stored together.
    pub(super) fn note_group(&self, batches: u64, sessions: u64) {
        self.commits.add(batches);
        self.sessions.add(sessions);
    }

    /// A sync is over.
    pub fn note_sync(&self, took: Duration) {
        self.syncs.add(1);
        self.sync_ns.add(took.as_nanos() as u64);
        let us = took.as_micros() as u64;
        let bucket = SYNC_BOUNDS_US.iter().position(|&bound| us <= bound);
        self.syncs_by_time[bucket.unwrap_or(SYNC_BOUNDS_US.len())].add(1);
    }

    /// What the store tells of itself.
    pub(super) fn note_figures(&self, figures: Figures) {
        self.bytes.set(figures.bytes_appended);
        self.segments.set(figures.segments);
        self.compactions.set(figures.compactions);
        self.live_bytes.set(figures.live_bytes);
    }

    /// The start has found so many sessions.
    pub fn note_recovery(&self, sessions: u64, took: Duration) {
        self.recovered.set(sessions);
        self.recovery_ns.set(took.as_nanos() as u64);
    }

    /// Syncs by the bound under which they stayed; those behind the last bound come last.
    pub fn syncs_by_time(&self) -> impl Iterator<Item = u64> {
        self.syncs_by_time.iter().map(StoreCell::get)
    }
}

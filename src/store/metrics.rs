//! What a store's thread counts, for the metrics page and the live page.
//!
//! Cells that one thread writes and any other reads. Renders nothing: `observe/metrics.rs` does. Made with the server's
//! status, whether there is a store or not.
//!
//! Invariant: a number only grows, but for those that tell what is there now.
//!
//! Next: `thread`: who counts.

use std::time::Duration;

use super::Figures;
use super::claim::Outcome;
use crate::one_writer_cell::Cell;

/// Upper bounds of the histogram of syncs, in microseconds: from a good solid-state disk to one that hangs.
pub const SYNC_BOUNDS_US: [u64; 12] =
    [100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// All of them.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Batches of reactors that were stored.
    pub commits: Cell,
    /// Sessions in them.
    pub sessions: Cell,
    /// Syncs, each for one batch or several.
    pub syncs: Cell,
    /// What they took altogether, in nanoseconds.
    pub sync_ns: Cell,
    syncs_by_time: [Cell; SYNC_BOUNDS_US.len() + 1],
    /// Bytes written for batches.
    pub bytes: Cell,
    /// Bytes of live sessions at the last compaction.
    pub live_bytes: Cell,
    /// Segments that were not compacted yet, the one in use included.
    pub segments: Cell,
    /// Compactions.
    pub compactions: Cell,
    /// Sessions that the start found, and what that took in nanoseconds.
    pub recovered: Cell,
    /// See `recovered`.
    pub recovery_ns: Cell,
    /// What there is to count of a store that several machines share, and only there.
    pub shared: SharedMetrics,
}

/// What is counted of a store that several machines share. Its round trips are counted as syncs: to whoever waits for a
/// reply they are the same.
#[derive(Debug, Default)]
pub struct SharedMetrics {
    /// 1 if there is one.
    pub is_used: Cell,
    /// 1 if it can be had.
    pub is_available: Cell,
    /// Connections that were made to it, for batches.
    pub connections: Cell,
    /// Sessions of which nothing was stored, because another claim has them.
    pub refused: Cell,
    /// Takeovers that it has told of.
    pub takeovers: Cell,
    /// Batches that were not answered in time.
    pub unavailable: Cell,
    /// Sessions that were claimed.
    pub claims: Cell,
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
        self.syncs_by_time.iter().map(Cell::get)
    }
}

//! What the broker's thread counts, for the metrics page.
//!
//! Cells that one thread writes and any other reads. Renders nothing: `observe/task_metrics.rs` does. Made with the
//! server's status, whether there is a broker or not.
//!
//! Invariant: a number only grows, but for those that tell what is there now.
//!
//! Next: `tracked`: one task under way.

use std::time::Duration;

use super::outcome::TaskOutcome;
use crate::one_writer_cell::Cell;

/// Upper bounds of the histogram of round trips, in milliseconds: from a worker that had nothing else to do to one that
/// computes for minutes.
pub const ROUND_TRIP_BOUNDS_MS: [u64; 14] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 20_000, 60_000, 300_000];

/// What the metrics call the outcomes, in the order of [`TaskMetrics::outcomes`].
pub const OUTCOMES: [&str; 8] = [
    "success",
    "failure",
    "revoked",
    "timed_out",
    "too_large",
    "unreadable",
    "not_sent",
    "maybe_sent",
];

/// All of them.
#[derive(Debug, Default)]
pub struct TaskMetrics {
    /// 1 if there is a broker.
    pub is_used: Cell,
    /// 1 if it can be had.
    pub is_available: Cell,
    /// Times that it was connected to.
    pub connections: Cell,
    /// Tasks that the broker has taken.
    pub sent: Cell,
    /// Tasks that it has not answered yet.
    pub under_way: Cell,
    /// Tasks that nobody waited for any more.
    pub abandoned: Cell,
    /// Tasks that were taken back: a worker that has not begun one does not.
    pub taken_back: Cell,
    /// How many have ended like each of [`OUTCOMES`].
    pub outcomes: [Cell; OUTCOMES.len()],
    /// What those that a worker has answered took altogether, in nanoseconds.
    pub round_trip_ns: Cell,
    round_trips: [Cell; ROUND_TRIP_BOUNDS_MS.len() + 1],
}

impl TaskMetrics {
    /// There is a broker; it cannot be had yet.
    pub fn note_use(&self) {
        self.is_used.set(1);
    }

    pub(super) fn note_outcome(&self, outcome: &TaskOutcome, took: Duration) {
        let (place, is_answered) = match outcome {
            TaskOutcome::Success(_) => (0, true),
            TaskOutcome::Failure { .. } => (1, true),
            TaskOutcome::Revoked => (2, true),
            TaskOutcome::TimedOut => (3, false),
            TaskOutcome::TooLarge { .. } => (4, true),
            TaskOutcome::Unreadable(_) => (5, true),
            TaskOutcome::NotSent(_) => (6, false),
            TaskOutcome::MaybeSent(_) => (7, false),
        };
        self.outcomes[place].add(1);
        if is_answered {
            self.round_trip_ns.add(took.as_nanos() as u64);
            let ms = took.as_millis() as u64;
            let bucket = ROUND_TRIP_BOUNDS_MS.iter().position(|&bound| ms < bound);
            self.round_trips[bucket.unwrap_or(ROUND_TRIP_BOUNDS_MS.len())].add(1);
        }
    }

    /// Round trips by the bound under which they stayed; those behind the last bound come last.
    pub fn round_trips(&self) -> impl Iterator<Item = u64> {
        self.round_trips.iter().map(Cell::get)
    }
}

//! What the log says of sessions that had to leave early, because the table was full.
//!
//! A full table lets the longest detached session go for each new one that is detached
//! (`session/table.rs`). That is counted where it happens; here it is told, once a minute. Limits
//! nothing. Called where a session is detached, and when the alarm for the line goes off.
//!
//! Next: `observer`: all that observes.

use std::time::{Duration, Instant};

use crate::connection::timer_wheel::Slot;

/// Time from the first session that left early to the line that tells of it, and of all others
/// since.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// The wheel's slot for that line: no connection has it, for a process has fewer descriptors.
pub(super) const REPORT_SLOT: Slot = Slot::MAX;

/// What is still to be told of sessions that left early.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    told: u64,
    report_at: Option<Instant>,
}

impl Evictions {
    /// Takes note that so many have left early since the beginning. If that is news: when an alarm for
    /// the line is to go off in [`REPORT_SLOT`].
    pub(super) fn note(&mut self, evicted: u64, now: Instant) -> Option<Instant> {
        if evicted <= self.told || self.report_at.is_some() {
            return None;
        }
        self.report_at = Some(now + REPORT_AFTER);
        self.report_at
    }

    /// The alarm went off. If it was early, because the wheel reaches less far than that: when it is
    /// to go off again.
    #[cold]
    pub(super) fn report(&mut self, evicted: u64, reactor: usize, now: Instant) -> Option<Instant> {
        let at = self.report_at?;
        if now < at {
            return Some(at);
        }
        let count = evicted - self.told;
        (self.told, self.report_at) = (evicted, None);
        log::warn!(
            reactor = reactor;
            "sessions that left early within a minute, because the table is full: {count}; raise \
             --max-sessions, or bound each address's new ones with --limit-sessions-per-ip"
        );
        None
    }
}

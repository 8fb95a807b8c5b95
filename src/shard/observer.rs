//! All that observes a shard and decides nothing: the trace, the slow-turn detector, and what the log
//! is told of refusals and of sessions that left early.
//!
//! The shard lends it to every step as a part of the [`Turn`](super::turn::Turn). It is told what
//! happened; what it must see for itself it is shown by `&` (`observing.rs`). Delete its calls, and a
//! turn does the same.
//!
//! Next: `turn`: what every step knows.

use super::evictions::Evictions;
use super::refusals::Refusals;
use crate::observe::slow_turn::SlowTurnDetector;
use crate::observe::turn_trace::{TurnTrace, Woken};

/// What observes a shard.
#[derive(Default)]
pub(super) struct Observer {
    /// What this turn did, while the log's level asks for it.
    pub(super) trace: Option<Box<TurnTrace>>,
    /// What woke the poll for the next turn, as far as it is known.
    pub(super) woken: Woken,
    pub(super) slow_turns: SlowTurnDetector,
    pub(super) refusals: Refusals,
    pub(super) evictions: Evictions,
}

impl Observer {
    /// Whether each visit is looked at, and not just the turn.
    #[inline]
    pub(super) fn observes_visits(&self) -> bool {
        self.slow_turns.is_timing() || self.trace.is_some()
    }
}

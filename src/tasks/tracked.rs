//! One task under way: what it waits for, and when it is looked at next.
//!
//! Says nothing to the broker, and knows no other task. Called by `in_flight`.
//!
//! Invariant: it is looked at by its deadline at the latest.
//!
//! Next: `in_flight`: all of them.

use std::time::{Duration, Instant};

use super::order::TaskOrder;
use super::outcome::TaskId;
use super::task::Protocol;

/// How soon the result of a job of RQ is asked for first. A worker of RQ forks for each job, which takes longer.
const POLL_LEAST: Duration = Duration::from_millis(5);

/// And the longest pause between two looks.
pub(super) const POLL_MOST: Duration = Duration::from_millis(500);

/// The pause before the next look, as a part of how long the job has taken: so a result is late by a 16th of that.
const POLL_SHARE: u32 = 16;

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// For the connections.
    Waiting,
    /// For the word that its result's channel is listened to.
    Subscribing,
    /// For the broker's word that it is in its queue.
    Sending,
    /// For its result.
    Queued,
    /// For its result, if it was sent at all: why that is not known.
    Unsure(String),
}

/// A task under way.
pub(super) struct Tracked {
    pub(super) reactor: usize,
    pub(super) order: TaskOrder,
    pub(super) id: TaskId,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// When it is looked at next.
    pub(super) due: Instant,
    /// Whether the answer to the last look for its result is still to come.
    pub(super) is_asked_for: bool,
}

impl Tracked {
    pub(super) fn is_of_celery(&self) -> bool {
        matches!(self.order.task.protocol, Protocol::Celery(_))
    }

    /// Whether a worker may have it.
    pub(super) fn may_be_sent(&self) -> bool {
        matches!(self.stage, Stage::Sending | Stage::Queued | Stage::Unsure(_))
    }

    /// When it is looked at next, if nothing comes before.
    pub(super) fn next_look(&self, send_timeout: Duration, now: Instant) -> Instant {
        match self.stage {
            Stage::Waiting | Stage::Subscribing => self.deadline.min(self.since + send_timeout),
            Stage::Sending | Stage::Queued | Stage::Unsure(_) if self.is_of_celery() => {
                self.deadline
            }
            Stage::Sending | Stage::Queued | Stage::Unsure(_) => {
                let pause = (now - self.since) / POLL_SHARE;
                self.deadline.min(now + pause.clamp(POLL_LEAST, POLL_MOST))
            }
        }
    }
}

//! A task on its way from a reactor to the broker, and its result on the way back.
//!
//! To the reactor it is an off-loaded job like another one (`application/jobs.rs`): its result is a [`Finished`] with
//! the number of the job. The two sides share the job's [`Progress`], by which the reactor says that nobody waits any
//! more. Sends nothing. Made by `application/jobs.rs`.
//!
//! Invariant: an order is answered once, whether anybody still waits or not: so its reactor has its slot back.
//!
//! Next: `celery`: what is said to workers of Celery.

use std::fmt;
use std::sync::Arc;

use super::outcome::{TaskId, TaskOutcome, TaskResult};
use super::task::Task;
use crate::offload::{Finished, JobId, Progress, boxed};

/// A task, and the job of its reactor that it is.
pub struct TaskOrder {
    pub(crate) id: JobId,
    pub(crate) task: Box<Task>,
    pub(crate) progress: Arc<Progress>,
}

impl TaskOrder {
    /// What is to be done.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Whether nobody waits for the result any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.progress.is_cancelled()
    }

    /// Whether a worker is to do it even if nobody waits for the result.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.task.outlives && !self.progress.is_revoked()
    }

    /// What becomes of it where the broker's thread does not take it.
    #[must_use]
    pub fn refuse(self) -> Finished {
        let why = "the thread of the broker has ended".to_owned();
        self.answer(TaskResult { id: TaskId::NONE, outcome: TaskOutcome::NotSent(why) })
    }

    /// Its result, for the reactor.
    #[must_use]
    pub fn answer(self, result: TaskResult) -> Finished {
        Finished { id: self.id, value: Some(boxed(result)) }
    }

    /// Gives the reactor its slot back, since nobody waits for the result.
    #[must_use]
    pub fn release(self) -> Finished {
        debug_assert!(self.is_abandoned(), "somebody waits for the result");
        Finished { id: self.id, value: Some(boxed(())) }
    }
}

impl fmt::Debug for TaskOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskOrder").field(&self.id).field(&self.task.name()).finish()
    }
}

//! A task on its way from a reactor to the broker, and its result on the way back.
//!
//! To the reactor it is an off-loaded job like another one (`application/jobs.rs`): its result is a [`Finished`] with
//! the number of the job. The two sides share the job's [`Progress`], by which the reactor says that nobody waits any
//! more. Sends nothing. Made by `application/jobs.rs`.
//!
//! Invariant: an order is answered once, unless its reactor has given it up.
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
        self.progress.is_given_up()
    }

    /// Whether a worker is to do it even if nobody waits for the result.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.task.outlives && !self.progress.is_revoked()
    }

    /// What becomes of it where the broker's thread does not take it; `None` as for [`Self::answer`].
    #[must_use]
    pub fn refuse(self) -> Option<Finished> {
        let why = "as many tasks are under way as may be".to_owned();
        self.answer(TaskResult { id: TaskId::NONE, outcome: TaskOutcome::NotSent(why) })
    }

    /// Its result, for the reactor; `None` if that has given it up.
    #[must_use]
    pub fn answer(self, result: TaskResult) -> Option<Finished> {
        self.progress.answer(self.id, Some(boxed(result)))
    }
}

impl fmt::Debug for TaskOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskOrder").field(&self.id).field(&self.task.name()).finish()
    }
}

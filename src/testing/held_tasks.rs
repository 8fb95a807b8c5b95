//! Tasks for workers that have no result yet, where no worker is.
//!
//! Whoever tests says how each ends. Knows no shard but by its number. Part of the machine.
//!
//! Invariant: a task ends once.
//!
//! Next: `machine`: what shards run on.

use std::ops::Deref;
use std::time::Instant;

use crate::offload::Finished;
use crate::tasks::{TaskId, TaskOrder, TaskOutcome, TaskResult};

/// One of them.
#[derive(Debug)]
pub struct HeldTask {
    /// Whose it is.
    pub shard: usize,
    /// What is to be done.
    pub order: TaskOrder,
    /// When it is answered as late.
    pub deadline: Instant,
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub struct HeldTasks {
    held: Vec<HeldTask>,
    /// How many have ended, which names them.
    ended: u64,
}

impl Deref for HeldTasks {
    type Target = [HeldTask];

    fn deref(&self) -> &[HeldTask] {
        &self.held
    }
}

impl HeldTasks {
    /// A shard has enqueued this.
    pub fn hold(&mut self, shard: usize, order: TaskOrder, now: Instant) {
        let deadline = now + order.task().time_to_answer();
        self.held.push(HeldTask { shard, order, deadline });
    }

    /// The task at this place has ended like this: what its shard is to be told, if that still waits.
    #[must_use]
    pub fn finish(&mut self, index: usize, outcome: TaskOutcome) -> Option<(usize, Finished)> {
        let HeldTask { shard, order, .. } = self.held.remove(index);
        self.ended += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.ended.to_be_bytes());
        let id = TaskId::from_random(bytes);
        Some((shard, order.answer(TaskResult { id, outcome })?))
    }

    /// Lets go of those that nobody waits for, and that no worker is to do.
    pub fn let_go(&mut self) {
        self.held.retain(|held| held.order.goes_on() || !held.order.is_abandoned());
    }

    /// One whose time is over.
    #[must_use]
    pub fn late(&self, now: Instant) -> Option<usize> {
        self.held.iter().position(|held| held.deadline <= now)
    }
}

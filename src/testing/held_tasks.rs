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
use crate::tasks::{Task, TaskId, TaskOrder, TaskOutcome, TaskResult};

/// One of them.
#[derive(Debug)]
pub struct HeldTask {
    /// Whose it is.
    pub shard: usize,
    /// What is to be done.
    pub task: Task,
    /// Who waits for the result, if anybody does: that shard has its slot back otherwise.
    pub order: Option<TaskOrder>,
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
        let (task, order) = (order.task().clone(), Some(order));
        self.held.push(HeldTask { shard, task, order, deadline });
    }

    /// The task at this place has ended like this: what its shard is to be told, if that still waits.
    #[must_use]
    pub fn finish(&mut self, index: usize, outcome: TaskOutcome) -> Option<(usize, Finished)> {
        let HeldTask { shard, order, .. } = self.held.remove(index);
        self.ended += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.ended.to_be_bytes());
        let id = TaskId::from_random(bytes);
        Some((shard, order?.answer(TaskResult { id, outcome })))
    }

    /// Gives the shards the slots back of those that nobody waits for: what each is to be told. A task stays, if a
    /// worker is to do it all the same.
    #[must_use]
    pub fn let_go(&mut self) -> Vec<(usize, Finished)> {
        let mut released = Vec::new();
        self.held.retain_mut(|held| {
            let Some(order) = held.order.take_if(|order| order.is_abandoned()) else { return true };
            let goes_on = order.goes_on();
            released.push((held.shard, order.release()));
            goes_on
        });
        released
    }

    /// One whose time is over.
    #[must_use]
    pub fn late(&self, now: Instant) -> Option<usize> {
        self.held.iter().position(|held| held.deadline <= now)
    }
}

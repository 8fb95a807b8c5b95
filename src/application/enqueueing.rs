//! How a callback hands a task to a worker of Celery or RQ.
//!
//! As `offloading`, with another doer: only notes what is asked for, and the shard sends it to the broker's thread when
//! the callback has returned. Called by applications.
//!
//! Invariant: what is noted here is a message that a worker can read, and is sent in the same turn.
//!
//! Next: `kept`: what is kept for each connection.

use super::admission::Source;
use super::jobs::{Delivery, JobHandle};
use super::{Application, Commands, Context, ReactorContext};
#[cfg(doc)]
use crate::config::Limits;
use crate::offload::PoolFull;
use crate::tasks::{EnqueueError, Task, TaskResult};

fn full(error: PoolFull) -> EnqueueError {
    EnqueueError::Full { most: error.most }
}

impl<A: Application> Commands<A> {
    fn check_task(&self, task: &Task) -> Result<(), EnqueueError> {
        let bytes_most = self.task_bytes.ok_or(EnqueueError::NoBroker)?;
        task.check(bytes_most).map_err(EnqueueError::Invalid)
    }
}

impl<A: Application> Context<'_, A> {
    /// Hands a task to a worker of Celery or RQ, and runs `done` here with what becomes of it: its result, its
    /// failure, or that there was none in time. Needs a broker ([`crate::Config::broker`]).
    ///
    /// In order and parked as [`Self::offload`]: what one connection off-loads and enqueues is answered in the order of
    /// asking, and while it waits for [`Limits::offloads_per_connection`] answers, no more is read from it. If the
    /// WebSocket has closed by then, `done` is dropped and not called, and the task is taken back, if no worker has
    /// begun it ([`Task::outlives_connection`] leaves it). [`Self::cancel_job`] takes it back too.
    ///
    /// What becomes of it is known within the task's timeout, whatever becomes of worker and broker; in order, `done`
    /// waits for what was asked before. No task is sent twice.
    ///
    /// ```
    /// use std::time::Duration;
    /// use revolve::testing::TestServer;
    /// use revolve::{Application, Config, Context, Message, ServerAddress, Task, TaskOutcome};
    ///
    /// struct Adder;
    /// impl Application for Adder {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(numbers) = message else { return cx.close(1003, "text only") };
    ///         let task = Task::celery("app.tasks.add").args_json(numbers).timeout(Duration::from_secs(5));
    ///         let taken = cx.enqueue(task, |_, cx, result| match result.outcome {
    ///             TaskOutcome::Success(sum) => cx.send_text(&sum),
    ///             other => cx.send_text(&format!("error: {other}")),
    ///         });
    ///         if let Err(error) = taken {
    ///             cx.send_text(&format!("error: {error}"));
    ///         }
    ///     }
    /// }
    ///
    /// // In a test no broker is needed, and this is the worker.
    /// let broker = ServerAddress::parse("redis://127.0.0.1/0").ok();
    /// let server = TestServer::with_config(Config { broker, ..Config::default() }, |_| Adder);
    /// server.set_worker(|task| TaskOutcome::Success(format!("{} of {}", task.name(), task.args())));
    /// let client = server.connect("");
    /// client.send_text("[2, 3]");
    /// assert_eq!(client.text(), "app.tasks.add of [2, 3]");
    /// client.send_text("[2, 3");
    /// assert_eq!(client.text(), "error: the arguments are not JSON at byte 5");
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no broker, when the reactor has [`Limits::tasks_per_reactor`] tasks under way, or when
    /// no worker could read the task. Nothing is sent then.
    pub fn enqueue(
        &mut self,
        task: Task,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, TaskResult) + 'static,
    ) -> Result<JobHandle, EnqueueError> {
        self.hand_over(Delivery::InOrder, task, done)
    }

    /// [`Self::enqueue`] without the order: `done` is called as soon as the worker has answered, whatever else this
    /// connection waits for, and no other answer waits for it. It counts for the same limits.
    ///
    /// # Errors
    ///
    /// As [`Self::enqueue`].
    pub fn enqueue_unordered(
        &mut self,
        task: Task,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, TaskResult) + 'static,
    ) -> Result<JobHandle, EnqueueError> {
        self.hand_over(Delivery::AtOnce, task, done)
    }

    fn hand_over(
        &mut self,
        delivery: Delivery,
        task: Task,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, TaskResult) + 'static,
    ) -> Result<JobHandle, EnqueueError> {
        self.commands.check_task(&task)?;
        let source = Source::Worker(Box::new(task));
        let added = self.commands.jobs.add(self.connection, delivery, source, done);
        let handle = added.map_err(full)?;
        self.commands.has_outgoing = true;
        self.commands.pause |= self.commands.jobs.is_busy(self.connection);
        Ok(handle)
    }
}

impl<A: Application> ReactorContext<'_, A> {
    /// Hands a task to a worker, and runs `done` here, as [`Context::enqueue`] does.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn enqueue(
        &mut self,
        task: Task,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, TaskResult) + 'static,
    ) -> Result<JobHandle, EnqueueError> {
        self.hand_over(Delivery::InOrder, task, done)
    }

    /// [`Self::enqueue`] without the order, as [`Context::enqueue_unordered`].
    ///
    /// # Errors
    ///
    /// As that.
    pub fn enqueue_unordered(
        &mut self,
        task: Task,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, TaskResult) + 'static,
    ) -> Result<JobHandle, EnqueueError> {
        self.hand_over(Delivery::AtOnce, task, done)
    }

    fn hand_over(
        &mut self,
        delivery: Delivery,
        task: Task,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, TaskResult) + 'static,
    ) -> Result<JobHandle, EnqueueError> {
        self.commands.check_task(&task)?;
        let source = Source::Worker(Box::new(task));
        let added = self.commands.jobs.add_for_reactor(delivery, source, done);
        let handle = added.map_err(full)?;
        self.commands.has_outgoing = true;
        Ok(handle)
    }
}

//! Tasks for workers of Celery and RQ: handed over by Redis, and their results on the way back.
//!
//! For the reactor a task is an off-loaded job, which no thread here does. [`task`] is what an application asks for,
//! [`outcome`] what becomes of it, and [`order`] what travels between the two. [`celery`] writes and reads what its
//! workers understand; with [`inflate`] for a part of it, so does [`rq`]. [`metrics`] is what is counted. `tracked` is
//! one task under way, and [`in_flight`] has all tasks under way: what to say to the broker, and what its answers mean.
//! These are sans-IO. [`link`] has the connections, and [`thread`] turns them. `docs/tasks.md` has the worker's side.
//!
//! Not here: other brokers than Redis, other serializers than JSON, chords and chains, and a scheduler.
//!
//! Invariant: a task is answered once within its timeout, or its reactor has given it up; it is sent at most once.
//!
//! Next: `task`: what is to be done.

pub mod celery;
pub mod in_flight;
pub mod inflate;
pub mod link;
pub mod metrics;
pub mod order;
pub mod outcome;
pub mod rq;
pub mod task;
pub mod thread;
mod tracked;

pub use order::TaskOrder;
pub use outcome::{TaskId, TaskOutcome, TaskResult};
pub use task::{CeleryTask, EnqueueError, InvalidTask, RqTask, Task};

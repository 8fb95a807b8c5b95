//! Work that must not hold a reactor, and the threads that do it.
//!
//! [`Job`] and [`Finished`] are what crosses between a reactor and a thread: a closure there, its
//! value back. [`Pool`] runs jobs; it knows nothing of reactors, and delivering what a job returned
//! is part of what it is given to run. Who asked for a job, and what follows it, stays with the
//! reactor (`application/jobs.rs`). Called by the reactor's environment; in tests, one without threads
//! runs jobs itself.
//!
//! Invariant: a job that was taken yields exactly one [`Finished`], even if it panics, unless the
//! server has ended.
//!
//! Next: [`crate::application`], which asks for all of this.

use std::any::Any;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::contained::{Contained, guard};

/// Names a job among those that its reactor has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobId(pub(crate) u32);

/// What a job returns: whatever type the application chose.
pub(crate) type Value = Contained<Box<dyn Any + Send>>;

/// What a job does.
pub(crate) type Work = Contained<Box<dyn FnOnce() -> Value + Send>>;

/// Work of which the value is of any type.
pub(crate) fn in_a_box<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Work {
    let work = || {
        let value: Box<dyn Any + Send> = Box::new(work());
        Contained::new(value)
    };
    Contained::new(Box::new(work))
}

/// Work on its way to a thread.
pub struct Job {
    pub(crate) id: JobId,
    pub(crate) work: Work,
}

impl Job {
    /// Does the work, here and now.
    #[must_use]
    pub fn run(self) -> Finished {
        let value = self.work.into_inner().and_then(|work| guard(work).ok());
        Finished { id: self.id, value }
    }

    /// What becomes of a job that nobody could run.
    #[must_use]
    pub fn fail(self) -> Finished {
        Finished { id: self.id, value: None }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Job").field(&self.id).finish()
    }
}

/// A job that is done, on its way back.
#[derive(Debug)]
pub struct Finished {
    pub(crate) id: JobId,
    /// `None` if it panicked, or could not be run.
    pub(crate) value: Option<Value>,
}

/// The answer to one job too many: so many are under way for this reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFull {
    /// How many there may be at once ([`crate::config::Limits::offloads_per_reactor`]).
    pub most: usize,
}

impl fmt::Display for PoolFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} off-loaded jobs are under way already: try again later", self.most)
    }
}

impl std::error::Error for PoolFull {}

/// Threads that run what would block a reactor. There are none before the first task.
#[derive(Debug)]
pub struct Pool<T> {
    threads: NonZeroUsize,
    capacity: usize,
    /// What is done with a task: a job is run, and what it returned is delivered.
    run: fn(T),
    /// The way to the threads, once there are any; `None` if the system gave us none.
    sender: OnceLock<Option<Sender<T>>>,
    /// Tasks that still wait are not begun any more.
    is_over: Arc<AtomicBool>,
}

impl<T: Send + 'static> Pool<T> {
    /// A pool of so many threads, with room for `capacity` tasks that wait for one.
    #[must_use]
    pub fn new(threads: NonZeroUsize, capacity: usize, run: fn(T)) -> Self {
        Pool { threads, capacity, run, sender: OnceLock::new(), is_over: Arc::default() }
    }

    /// Takes a task, and returns at once.
    ///
    /// # Errors
    ///
    /// The task itself, when all room is taken or the system gave us no thread.
    pub fn take(&self, task: T) -> Result<(), T> {
        match self.sender.get_or_init(|| self.start()) {
            Some(sender) => sender.try_send(task).map_err(TrySendError::into_inner),
            None => Err(task),
        }
    }

    fn start(&self) -> Option<Sender<T>> {
        let (sender, receiver) = bounded(self.capacity);
        let mut started = 0;
        for number in 0..self.threads.get() {
            let (run, tasks, is_over) = (self.run, receiver.clone(), self.is_over.clone());
            let work = move || {
                while let Ok(task) = tasks.recv()
                    && !is_over.load(Ordering::Relaxed)
                {
                    run(task);
                }
            };
            match thread::Builder::new().name(format!("offload-{number}")).spawn(work) {
                Ok(_) => started += 1,
                Err(error) => {
                    log::error!("{started} of {} off-load threads started: {error}", self.threads);
                    break;
                }
            }
        }
        (started > 0).then_some(sender)
    }
}

impl<T> Drop for Pool<T> {
    /// Nobody waits for what is left. A task that is running is not interrupted.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(10);

    type Task = Box<dyn FnOnce() + Send>;

    fn pool(threads: usize, capacity: usize) -> Pool<Task> {
        Pool::new(NonZeroUsize::new(threads).unwrap(), capacity, |task| task())
    }

    #[test]
    fn no_thread_before_the_first_task_and_never_more_than_asked_for() {
        let pool = pool(2, 100);
        assert!(pool.sender.get().is_none());
        let (name, names) = unbounded();
        for _ in 0..50 {
            let name = name.clone();
            let task = move || name.send(thread::current().name().map(str::to_owned)).unwrap();
            assert!(pool.take(Box::new(task)).is_ok());
        }
        for _ in 0..50 {
            let name = names.recv_timeout(PATIENCE).unwrap().unwrap();
            assert!(["offload-0", "offload-1"].contains(&&*name), "{name}");
        }
    }

    #[test]
    fn a_full_pool_gives_the_task_back() {
        let pool = pool(1, 1);
        let (running, is_running) = unbounded();
        let (let_go, wait) = bounded::<()>(0);
        let blocked = move || {
            running.send(()).unwrap();
            let _ = wait.recv();
        };
        assert!(pool.take(Box::new(blocked)).is_ok());
        is_running.recv_timeout(PATIENCE).unwrap();
        assert!(pool.take(Box::new(|| ())).is_ok());
        assert!(pool.take(Box::new(|| ())).is_err());
        drop(let_go);
    }

    #[test]
    fn a_pool_that_is_dropped_begins_nothing_more() {
        let pool = pool(1, 10);
        let (running, is_running) = unbounded();
        let (let_go, wait) = bounded::<()>(0);
        let begun = running.clone();
        let blocked = move || {
            begun.send("first").unwrap();
            let _ = wait.recv();
        };
        assert!(pool.take(Box::new(blocked)).is_ok());
        assert_eq!(is_running.recv_timeout(PATIENCE), Ok("first"));
        assert!(pool.take(Box::new(move || running.send("second").unwrap())).is_ok());
        drop(pool);
        drop(let_go);
        // The thread lets go of the second task, and so of its sender, without running it.
        assert!(is_running.recv_timeout(PATIENCE).is_err_and(|error| error.is_disconnected()));
    }

    #[test]
    fn a_job_that_panics_is_finished_all_the_same() {
        let work = in_a_box(|| -> () { std::panic::panic_any("as planned") });
        let job = Job { id: JobId(3), work };
        let finished = job.run();
        assert_eq!((finished.id, finished.value.is_none()), (JobId(3), true));
    }
}

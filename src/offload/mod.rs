//! Work that must not hold a reactor: what crosses between a reactor and the threads that do it.
//!
//! [`Job`] is a closure on its way to a thread, [`Finished`] its value on the way back. Both sides share
//! the job's [`Progress`]: the reactor can cancel the job, or give up waiting for it. `pool` has the
//! threads. Who asked for a job, and what follows it, stays with the reactor (`application/jobs.rs`).
//! Called by that, and by the reactor's environment; in tests, one without threads runs jobs itself.
//!
//! Invariant: a job that was taken ends in one of two ways, and one exchange decides in which: it yields
//! exactly one [`Finished`], even if it panics, or its reactor has given it up and gets nothing. (A server
//! that has ended gets nothing either.)
//!
//! Next: [`crate::offload::pool`]: the threads.

pub mod pool;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::contained::{Contained, guard};

/// Names a job among those that its reactor has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobId(pub(crate) u32);

/// What a job returns: whatever type the application chose.
pub(crate) type Value = Contained<Box<dyn Any + Send>>;

/// What a job does.
pub(crate) type Work = Contained<Box<dyn FnOnce(&Cancellation) -> Value + Send>>;

/// Work of which the value is of any type.
pub(crate) fn in_a_box<T: Send + 'static>(
    work: impl FnOnce(&Cancellation) -> T + Send + 'static,
) -> Work {
    Contained::new(Box::new(|cancellation: &Cancellation| boxed(work(cancellation))))
}

/// A value of whatever type the application chose.
pub(crate) fn boxed<T: Send + 'static>(value: T) -> Value {
    let value: Box<dyn Any + Send> = Box::new(value);
    Contained::new(value)
}

/// What [`boxed`] was given. What follows a job is of the type that the job returns, so there is always some.
pub(crate) fn unboxed<T: 'static>(value: Value) -> Option<T> {
    value.into_inner()?.downcast().ok().map(|value| *value)
}

/// A thread runs it.
const BEGUN: u8 = 1;
/// Nobody waits for its value any more.
const CANCELLED: u8 = 2;
/// It has returned, and its answer is on the way or has come. Excludes [`GIVEN_UP`].
const RETURNED: u8 = 4;
/// Its reactor has taken its slot back: there will be no answer. Excludes [`RETURNED`].
const GIVEN_UP: u8 = 8;
/// Who asked for it has taken it back: a thread that has not begun it does not.
const REVOKED: u8 = 16;

/// How far a job is: shared by its reactor and by the thread that runs it.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    fn is(&self, any_of: u8) -> bool {
        self.0.load(Ordering::Acquire) & any_of != 0
    }

    /// A thread begins it; not, if it was taken back before.
    fn begin(&self) -> bool {
        let begun = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |progress| {
            (progress & REVOKED == 0 || progress & BEGUN != 0).then_some(progress | BEGUN)
        });
        begun.is_ok()
    }

    /// Nobody waits for its value any more: the job can see that, and need not.
    pub(crate) fn cancel(&self) {
        self.0.fetch_or(CANCELLED, Ordering::AcqRel);
    }

    /// Who asked for it takes it back: as [`Self::cancel`], and a thread need not begin it.
    pub(crate) fn revoke(&self) {
        self.0.fetch_or(CANCELLED | REVOKED, Ordering::AcqRel);
    }

    /// Whether it was taken back.
    pub(crate) fn is_revoked(&self) -> bool {
        self.is(REVOKED)
    }

    /// It has returned this; `None` if its reactor has given it up, and takes no answer any more.
    #[must_use]
    pub(crate) fn answer(&self, id: JobId, value: Option<Value>) -> Option<Finished> {
        self.end(RETURNED).then_some(Finished { id, value })
    }

    /// Whether its reactor has taken its slot back.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is(GIVEN_UP)
    }

    /// Whether nobody waits for its value any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is(CANCELLED | GIVEN_UP)
    }

    /// Whether a thread runs it now, and its reactor has not given it up.
    pub(crate) fn is_running(&self) -> bool {
        self.is(BEGUN) && !self.is(RETURNED | GIVEN_UP)
    }

    /// The job is over for its reactor; whether the caller is the one that decided how.
    fn end(&self, how: u8) -> bool {
        let ended = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |progress| {
            (progress & (RETURNED | GIVEN_UP) == 0).then_some(progress | how)
        });
        ended.is_ok()
    }

    /// Takes its slot back; whether that was in time. If not, its answer is on the way.
    #[must_use]
    pub(crate) fn give_up(&self) -> bool {
        self.end(GIVEN_UP)
    }
}

/// Tells a job whether anybody still waits for it ([`crate::Context::offload_cancellable`]). Clones tell
/// the same, so parts of a job on other threads can ask too.
#[derive(Debug, Clone)]
pub struct Cancellation(Arc<Progress>);

impl Cancellation {
    /// Whether what the job returns would be dropped: its connection has gone, or has taken it back
    /// ([`crate::Context::cancel_job`]), or the server has ended.
    /// Once true it stays true. To ask costs a load, so a job may ask in each round of a loop; a job that
    /// sleeps or waits is not woken by it.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Work on its way to a thread.
pub struct Job {
    pub(crate) id: JobId,
    pub(crate) work: Work,
    pub(crate) progress: Arc<Progress>,
}

impl Job {
    /// A thread has taken it: from now on its reactor may give it up. [`Self::run`] does this too.
    pub fn begin(&self) {
        let _ = self.progress.begin();
    }

    /// Whether a thread has taken it.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.progress.is(BEGUN)
    }

    /// Whether nobody waits for its value any more.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.progress.is(CANCELLED)
    }

    /// Whether its reactor has taken its slot back.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.progress.is_given_up()
    }

    /// Does the work, here and now, unless it was taken back before it began. `None` if its reactor has given
    /// it up: then nothing is to be sent to it, because there may be no room for that.
    #[must_use]
    pub fn run(self) -> Option<Finished> {
        if !self.progress.begin() {
            return self.fail();
        }
        let cancellation = Cancellation(self.progress.clone());
        let value = self.work.into_inner().and_then(|work| guard(|| work(&cancellation)).ok());
        self.progress.answer(self.id, value)
    }

    /// What becomes of a job that nobody could run; `None` as for [`Self::run`].
    #[must_use]
    pub fn fail(self) -> Option<Finished> {
        self.progress.answer(self.id, None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    fn job(id: u32, work: Work) -> (Job, Arc<Progress>) {
        let progress = Arc::<Progress>::default();
        (Job { id: JobId(id), work, progress: progress.clone() }, progress)
    }

    #[test]
    fn a_job_that_panics_is_finished_all_the_same() {
        let (job, _) = job(3, in_a_box(|_| -> () { std::panic::panic_any("as planned") }));
        let finished = job.run().unwrap();
        assert_eq!((finished.id, finished.value.is_none()), (JobId(3), true));
    }

    #[test]
    fn a_job_sees_that_nobody_waits_and_is_run_all_the_same() {
        for (cancels, gives_up) in [(false, false), (true, false), (false, true), (true, true)] {
            let (job, progress) = job(0, in_a_box(Cancellation::is_requested));
            if cancels {
                progress.cancel();
            }
            assert!(!gives_up || progress.give_up());
            assert_eq!((job.is_cancelled(), job.is_given_up()), (cancels, gives_up));
            let finished = job.run();
            assert_eq!(finished.is_none(), gives_up, "one that was given up sends nothing");
            if let Some(finished) = finished {
                let value = finished.value.and_then(Contained::into_inner);
                let seen = value.and_then(|value| value.downcast::<bool>().ok());
                assert_eq!(seen.as_deref(), Some(&cancels));
                assert!(!progress.give_up(), "too late");
            }
        }
    }

    #[test]
    fn one_that_was_taken_back_is_not_begun_and_one_that_has_begun_goes_on() {
        for begins_before in [false, true] {
            let (job, progress) = job(0, in_a_box(Cancellation::is_requested));
            if begins_before {
                job.begin();
            }
            progress.revoke();
            job.begin();
            assert_eq!(job.has_begun(), begins_before);
            let finished = job.run().unwrap();
            let seen = finished.value.and_then(Contained::into_inner);
            let seen = seen.and_then(|value| value.downcast::<bool>().ok());
            assert_eq!(seen.as_deref(), begins_before.then_some(&true));
        }
    }

    #[test]
    fn of_the_thread_and_the_reactor_exactly_one_decides() {
        for _ in 0..200 {
            let (job, progress) = job(0, in_a_box(|_| ()));
            let start = Arc::new(Barrier::new(2));
            let thread = {
                let start = start.clone();
                thread::spawn(move || {
                    start.wait();
                    job.run().is_some()
                })
            };
            start.wait();
            let was_given_up = progress.give_up();
            assert_ne!(thread.join().unwrap(), was_given_up);
        }
    }

    #[test]
    fn only_one_that_a_thread_has_taken_is_running() {
        let (job, progress) = job(0, in_a_box(|_| ()));
        assert!(!progress.is_running() && !job.has_begun());
        job.begin();
        assert!(progress.is_running() && job.has_begun());
        assert!(job.fail().is_some() && !progress.is_running());
    }
}

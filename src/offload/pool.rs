//! The threads that do off-loaded work. More are added while tasks wait and none is taken, so jobs that
//! do not return do not hold all others.
//!
//! Knows nothing of reactors and of jobs: it is given tasks and what to do with one. There is no thread
//! before the first task. The usual threads stay; those that were added end when they have had nothing to
//! do for a while. A task that finds no idle thread has the pool watched: one more thread, which ends
//! when every task has found a thread, looks once in a while whether any was taken, and if not adds one.
//! So this works when no further task comes, and costs nothing while there are idle threads. Made by
//! `server.rs`; called by each reactor's environment, which never waits here.
//!
//! Invariant: while more tasks wait than threads are idle, the pool is watched. Whoever makes that true
//! (a task comes, a thread takes one or ends) looks afterwards, and starts the watch if there is none. The
//! counts and the channel are sequentially consistent, so of two that act at one moment one sees the other.
//!
//! Next: [`crate::tasks`]: work for other programs.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{io, thread};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::config::Config;

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Threads that stay, once they have started ([`crate::Config::offload_threads`]).
    pub threads: NonZeroUsize,
    /// Threads that may be added ([`crate::Limits::offload_threads_extra`]).
    pub extra: usize,
    /// Tasks that may wait for a thread.
    pub tasks: usize,
    /// For how long tasks wait, and none is taken, before a thread is added
    /// ([`crate::Limits::offload_stall`]).
    pub stall: Duration,
    /// For how long a thread that was added waits for another task ([`crate::Limits::offload_idle`]).
    pub idle: Duration,
}

impl PoolLimits {
    /// Those of a server. Each reactor bounds the jobs that it has under way, so there is always room enough.
    #[must_use]
    pub fn of(config: &Config) -> PoolLimits {
        PoolLimits {
            threads: config.offload_threads,
            extra: config.limits.offload_threads_extra,
            tasks: config.workers.get() * config.limits.offloads_per_reactor,
            stall: config.limits.offload_stall,
            idle: config.limits.offload_idle,
        }
    }

    fn most(&self) -> usize {
        self.threads.get() + self.extra
    }
}

/// What a pool tells of itself: for the metrics.
#[derive(Debug, Default)]
pub struct PoolFigures {
    threads: AtomicUsize,
    threads_most: AtomicUsize,
    late: AtomicU64,
}

impl PoolFigures {
    /// Threads now.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// Threads that there may be.
    #[must_use]
    pub fn threads_most(&self) -> usize {
        self.threads_most.load(Ordering::Relaxed)
    }

    /// Tasks that have returned so far after they had been given up.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// One more task has.
    pub fn note_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    /// Who asked for it was told.
    Told,
    /// Who asked for it has given it up before.
    Late,
}

/// Threads that run what would block a reactor.
#[derive(Debug)]
pub struct Pool<T> {
    limits: PoolLimits,
    figures: Arc<PoolFigures>,
    /// What is done with a task: a job is run, and what it returned is delivered.
    run: fn(T) -> TaskEnd,
    /// The way to the threads, once there are any; `None` if the system gave us none.
    started: OnceLock<Option<Started<T>>>,
}

/// The pool's end of what it shares with its threads. When it goes, tasks that still wait are not begun
/// any more, and a task that is running is not interrupted.
#[derive(Debug)]
struct Started<T> {
    /// Goes first: a thread that takes a task looks whether it is there.
    _alive: Sender<Infallible>,
    sender: Sender<T>,
    crew: Arc<Crew<T>>,
}

/// What all threads of a pool share.
#[derive(Debug)]
struct Crew<T> {
    limits: PoolLimits,
    figures: Arc<PoolFigures>,
    run: fn(T) -> TaskEnd,
    tasks: Receiver<T>,
    /// Nothing is sent: it is disconnected when the pool has gone.
    alive: Receiver<Infallible>,
    /// Threads that wait for a task, or are about to: each can take one.
    idle: AtomicUsize,
    /// Tasks taken so far.
    taken: AtomicUsize,
    is_watched: AtomicBool,
}

/// Whether a thread stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Usual,
    Extra,
}

/// What came of adding a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// It is the first beyond the usual ones.
    Begun,
    /// There were others.
    GoesOn,
    /// There are as many as may be.
    Exhausted,
    /// The system gave us none.
    Failed,
}

impl<T: Send + 'static> Pool<T> {
    /// A pool with these bounds, which tells of itself in `figures`.
    #[must_use]
    pub fn new(limits: PoolLimits, figures: Arc<PoolFigures>, run: fn(T) -> TaskEnd) -> Self {
        figures.threads_most.store(limits.most(), Ordering::Relaxed);
        Pool { limits, figures, run, started: OnceLock::new() }
    }

    /// Takes a task, and returns at once.
    ///
    /// # Errors
    ///
    /// The task itself, when all room is taken or the system gave us no thread.
    pub fn take(&self, task: T) -> Result<(), T> {
        let Some(started) = self.started.get_or_init(|| self.start()) else { return Err(task) };
        started.sender.try_send(task).map_err(TrySendError::into_inner)?;
        started.crew.watch_if_needed();
        Ok(())
    }

    fn start(&self) -> Option<Started<T>> {
        let (sender, tasks) = bounded(self.limits.tasks);
        let (_alive, alive) = bounded(0);
        let crew = Arc::new(Crew {
            limits: self.limits,
            figures: self.figures.clone(),
            run: self.run,
            tasks,
            alive,
            idle: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            is_watched: AtomicBool::new(false),
        });
        let threads = self.limits.threads;
        for number in 0..threads.get() {
            if let Err(error) = crew.add(Role::Usual) {
                log::error!("{number} of {threads} off-load threads started: {error}");
                break;
            }
        }
        (self.figures.threads() > 0).then_some(Started { _alive, sender, crew })
    }
}

impl<T: Send + 'static> Crew<T> {
    fn is_over(&self) -> bool {
        self.alive.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Starts a thread that runs tasks.
    fn add(self: &Arc<Self>, role: Role) -> io::Result<()> {
        // Counted before it runs, so that a task that comes meanwhile knows of it.
        self.idle.fetch_add(1, Ordering::SeqCst);
        let number = self.figures.threads.fetch_add(1, Ordering::Relaxed);
        let crew = self.clone();
        let spawned =
            thread::Builder::new().name(format!("offload-{number}")).spawn(move || crew.work(role));
        if spawned.is_err() {
            self.idle.fetch_sub(1, Ordering::SeqCst);
            self.figures.threads.fetch_sub(1, Ordering::Relaxed);
        }
        spawned.map(drop)
    }

    /// What a thread does: tasks, one after the other. It is counted as idle when this begins.
    fn work(self: Arc<Self>, role: Role) {
        loop {
            let task = match role {
                Role::Usual => self.tasks.recv().ok(),
                Role::Extra => self.tasks.recv_timeout(self.limits.idle).ok(),
            };
            self.idle.fetch_sub(1, Ordering::SeqCst);
            match task {
                _ if self.is_over() => break,
                Some(task) => {
                    self.taken.fetch_add(1, Ordering::SeqCst);
                    self.watch_if_needed();
                    if (self.run)(task) == TaskEnd::Late {
                        self.figures.note_late();
                    }
                }
                // A task that came in this moment may have counted on this thread.
                None if !self.tasks.is_empty() => {}
                None => break,
            }
            self.idle.fetch_add(1, Ordering::SeqCst);
        }
        self.figures.threads.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether more tasks wait than threads do.
    fn has_waiting(&self) -> bool {
        self.tasks.len() > self.idle.load(Ordering::SeqCst)
    }

    /// Sees to it that tasks which no thread is about to take do not wait for ever.
    fn watch_if_needed(self: &Arc<Self>) {
        if !self.has_waiting() || self.is_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let crew = self.clone();
        let watch = thread::Builder::new().name("offload-watch".into()).spawn(move || crew.watch());
        if let Err(error) = watch {
            self.is_watched.store(false, Ordering::SeqCst);
            log::warn!("off-loaded jobs wait for a thread, and nobody watches: {error}");
        }
    }

    /// Adds a thread each time that no task was taken for [`PoolLimits::stall`], until none waits.
    fn watch(self: Arc<Self>) {
        let mut told = None;
        loop {
            let taken = self.taken.load(Ordering::SeqCst);
            if self.alive.recv_timeout(self.limits.stall) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            if !self.has_waiting() {
                self.is_watched.store(false, Ordering::SeqCst);
                // One that came before the line above has left the watch to this thread.
                if !self.has_waiting() || self.is_watched.swap(true, Ordering::SeqCst) {
                    return;
                }
            } else if self.taken.load(Ordering::SeqCst) == taken {
                let growth = self.grow();
                if told != Some(growth) {
                    self.tell(growth);
                    told = Some(growth);
                }
            }
        }
    }

    fn grow(self: &Arc<Self>) -> Growth {
        let threads = self.figures.threads();
        if threads >= self.limits.most() {
            return Growth::Exhausted;
        }
        match self.add(Role::Extra) {
            Err(_) => Growth::Failed,
            Ok(()) if threads > self.limits.threads.get() => Growth::GoesOn,
            Ok(()) => Growth::Begun,
        }
    }

    fn tell(&self, growth: Growth) {
        let (stall, most) = (self.limits.stall.as_secs_f64(), self.limits.most());
        match growth {
            Growth::GoesOn => {}
            Growth::Begun => log::warn!(
                "off-loaded jobs wait, and no thread has taken one for {stall} s: each of the {} \
                 threads is held by a job. Threads are added, up to {most}. Look for jobs that wait \
                 without a time-out (a lock, a query, a connection), or raise --offload-threads",
                self.limits.threads
            ),
            Growth::Exhausted => log::error!(
                "off-loaded jobs wait, and each of the {most} threads that there may be is held by a \
                 job: none is begun until one returns. Look for jobs that wait without a time-out"
            ),
            Growth::Failed => log::error!(
                "off-loaded jobs wait, each of the {} threads is held by a job, and the system gives \
                 us no more. Look for jobs that wait without a time-out",
                self.figures.threads()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_secs(86_400);
    const SOON: Duration = Duration::from_millis(20);

    type Task = Box<dyn FnOnce() + Send>;

    fn limits(threads: usize, tasks: usize) -> PoolLimits {
        let threads = NonZeroUsize::new(threads).unwrap();
        PoolLimits { threads, extra: 0, tasks, stall: NEVER, idle: NEVER }
    }

    fn pool(limits: PoolLimits) -> Pool<Task> {
        Pool::new(limits, Arc::default(), |task| {
            task();
            TaskEnd::Told
        })
    }

    fn take(pool: &Pool<Task>, task: impl FnOnce() + Send + 'static) -> bool {
        pool.take(Box::new(task)).is_ok()
    }

    fn eventually(what: &str, is_true: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_true() {
            assert!(Instant::now() < end, "never: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn no_thread_before_the_first_task_and_never_more_than_asked_for() {
        let pool = pool(limits(2, 100));
        assert_eq!((pool.figures.threads(), pool.figures.threads_most()), (0, 2));
        let (name, names) = unbounded();
        for _ in 0..50 {
            let name = name.clone();
            let task = move || name.send(thread::current().name().map(str::to_owned)).unwrap();
            assert!(take(&pool, task));
        }
        for _ in 0..50 {
            let name = names.recv_timeout(PATIENCE).unwrap().unwrap();
            assert!(["offload-0", "offload-1"].contains(&&*name), "{name}");
        }
        assert_eq!(pool.figures.threads(), 2);
    }

    #[test]
    fn a_full_pool_gives_the_task_back() {
        let pool = pool(limits(1, 1));
        let (running, is_running) = unbounded();
        let (let_go, wait) = bounded::<()>(0);
        let blocked = move || {
            running.send(()).unwrap();
            let _ = wait.recv();
        };
        assert!(take(&pool, blocked));
        is_running.recv_timeout(PATIENCE).unwrap();
        assert!(take(&pool, || ()));
        assert!(!take(&pool, || ()));
        drop(let_go);
    }

    #[test]
    fn a_pool_that_is_dropped_begins_nothing_more() {
        let pool = pool(limits(1, 10));
        let (running, is_running) = unbounded();
        let (let_go, wait) = bounded::<()>(0);
        let begun = running.clone();
        let blocked = move || {
            begun.send("first").unwrap();
            let _ = wait.recv();
        };
        assert!(take(&pool, blocked));
        assert_eq!(is_running.recv_timeout(PATIENCE), Ok("first"));
        assert!(take(&pool, move || running.send("second").unwrap()));
        drop(pool);
        drop(let_go);
        // The thread lets go of the second task, and so of its sender, without running it.
        assert!(is_running.recv_timeout(PATIENCE).is_err_and(|error| error.is_disconnected()));
    }

    /// Each of the usual threads is stuck, and one task waits: it is run, though no further task comes.
    #[test]
    fn a_task_behind_stuck_ones_is_run_although_no_other_comes() {
        let pool = pool(PoolLimits { extra: 3, stall: SOON, idle: SOON, ..limits(2, 10) });
        let (let_go, wait) = bounded::<()>(0);
        let (done, is_done) = unbounded();
        for _ in 0..4 {
            let wait = wait.clone();
            assert!(take(&pool, move || {
                let _ = wait.recv();
            }));
        }
        let signal = done.clone();
        assert!(take(&pool, move || signal.send(()).unwrap()));
        is_done.recv_timeout(PATIENCE).expect("a thread was added for it");
        assert!(pool.figures.threads() <= pool.figures.threads_most());
        // When they return, the threads that were added end, and the usual ones do not.
        drop(let_go);
        let figures = pool.figures.clone();
        eventually("the added threads end", || figures.threads() == 2);
        assert!(take(&pool, move || done.send(()).unwrap()));
        is_done.recv_timeout(PATIENCE).expect("the usual threads are there");
    }

    #[test]
    fn there_are_never_more_threads_than_may_be_and_what_waits_is_run_later() {
        let pool = pool(PoolLimits { extra: 1, stall: SOON, idle: SOON, ..limits(1, 10) });
        let (let_go, wait) = bounded::<()>(0);
        let (begun, has_begun) = unbounded();
        for _ in 0..5 {
            let (wait, begun) = (wait.clone(), begun.clone());
            assert!(take(&pool, move || {
                begun.send(()).unwrap();
                let _ = wait.recv();
            }));
        }
        for _ in 0..2 {
            has_begun.recv_timeout(PATIENCE).unwrap();
        }
        assert!(has_begun.recv_timeout(5 * SOON).is_err(), "a third thread");
        drop(let_go);
        for _ in 0..3 {
            has_begun.recv_timeout(PATIENCE).unwrap();
        }
    }

    /// Threads that end and tasks that come at one moment: none is forgotten.
    #[test]
    fn no_task_is_forgotten_while_threads_come_and_go() {
        let stall = Duration::from_millis(1);
        let pool = pool(PoolLimits { extra: 4, stall, idle: stall, ..limits(1, 1000) });
        let (done, is_done) = unbounded();
        for round in 0..60 {
            let tasks = 1 + round % 7;
            for _ in 0..tasks {
                let done = done.clone();
                assert!(take(&pool, move || {
                    thread::sleep(Duration::from_millis(2));
                    done.send(()).unwrap();
                }));
            }
            for _ in 0..tasks {
                is_done.recv_timeout(PATIENCE).expect("each task is run");
            }
        }
    }

    #[test]
    fn a_task_that_was_given_up_is_counted_when_it_returns() {
        let pool = Pool::new(limits(1, 10), Arc::default(), |(): ()| TaskEnd::Late);
        assert!(pool.take(()).is_ok());
        let figures = pool.figures.clone();
        eventually("it returns", || figures.late() == 1);
    }
}

//! Off-loaded jobs, from the reactor's side: which connection waits for which, and what follows.
//!
//! What is to be done stays here, on the reactor, and so need not be `Send`; only the job itself and
//! its value travel. A question to another reactor is a job too, which that reactor does, and so is a
//! task, which a worker does. A job whose connection has gone, or was taken back, is an orphan: it is
//! cancelled, and when it has run for [`Limits::offload_orphan_timeout`] since then, it is given up. A task
//! is not: the broker's thread sees that it is cancelled, and answers at once, or when it is in its queue
//! if it outlives its connection. Runs nothing and delivers nothing: the shard does, and asks here whose
//! turn it is.
//!
//! Invariant: an entry stays until its job's one [`Finished`] has come, or the job is given up. An owner
//! gets the answers of its ordered jobs in the order in which it asked, and each other one at once. While
//! there are orphans, a time is set at which they are looked at.
//!
//! Next: `offloading`: how a callback asks for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::admission::{Decision, Deferred, Source};
use super::question::Question;
use super::{Application, Context, ReactorContext};
use crate::config::Limits;
use crate::contained::Contained;
use crate::offload::{Finished, Job, JobId, PoolFull, Progress, Value, unboxed};
use crate::tasks::TaskOrder;
use crate::token::LocalId;

type ForConnection<A> = Contained<Box<dyn FnOnce(&mut A, &mut Context<'_, A>, Value)>>;
type ForReactor<A> = Contained<Box<dyn FnOnce(&mut A, &mut ReactorContext<'_, A>, Value)>>;

/// When the answer to a job is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Behind the answers to the ordered jobs that its owner asked for before.
    InOrder,
    /// As soon as it is there.
    AtOnce,
}

/// What follows a job.
enum Continuation<A: Application> {
    OfConnection(LocalId, ForConnection<A>),
    OfRequest(LocalId, Decision<A>),
    OfReactor(ForReactor<A>),
    /// Nothing: its connection has gone, or it was taken back. So the value is dropped.
    Orphan(Orphan),
}

/// A job that nobody will be called with.
struct Orphan {
    former: Former,
    /// When it was first seen running as an orphan. One that waits for a thread is not given up: it
    /// holds none, and what `on_close` has saved is to be run.
    running_since: Option<Instant>,
}

/// How often orphans are looked at in the time that one has. 8: then a job is given up an eighth later at
/// the most, and two if a thread took it after its connection had gone; a look costs as much as there are
/// jobs.
const LOOKS: u32 = 8;

/// Who asked for an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    /// A WebSocket that has closed. A drain waits for it: what `on_close` has off-loaded may be what keeps
    /// a session.
    Connection,
    /// A request that has been refused meanwhile, or whose client has left; or who asked took it back; or a
    /// task that no worker is to do any more. Nobody misses it.
    Nobody,
}

/// Names a job that was off-loaded, for [`Context::cancel_job`]. It names no other job of its server, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobHandle {
    key: usize,
    serial: u64,
}

/// Who does a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doer {
    /// A thread of the pool, which is held for as long as the job runs.
    Pool,
    /// Another reactor, which answers in one of its turns.
    Reactor,
    /// A worker of Celery or RQ, if nobody takes the task back before it is sent.
    Worker { outlives_connection: bool },
}

impl Doer {
    fn is_worker(self) -> bool {
        matches!(self, Doer::Worker { .. })
    }
}

struct Entry<A: Application> {
    serial: u64,
    doer: Doer,
    continuation: Continuation<A>,
    delivery: Delivery,
    progress: Arc<Progress>,
    /// The value that waits for its turn, or `Some(None)` for a job that failed.
    outcome: Option<Option<Value>>,
}

/// Who asked for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Connection(LocalId),
    /// A connection that waits for the answer to its request.
    Request(LocalId),
    Reactor,
}

/// Whose job it was that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Of(Owner),
    /// Its connection is gone, or it was taken back.
    Nobodys {
        has_failed: bool,
    },
}

/// What is to be done now.
pub(crate) enum Due<A: Application> {
    OfConnection(ForConnection<A>, Value),
    OfRequest(Decision<A>, Value),
    OfReactor(ForReactor<A>, Value),
    /// The job panicked, or could not be run.
    Failed,
}

/// All jobs of one reactor that are under way.
pub(crate) struct Jobs<A: Application> {
    entries: Slab<Entry<A>>,
    /// The keys of a connection's entries, in the order of asking.
    of_connections: HashMap<LocalId, VecDeque<usize>>,
    of_reactor: VecDeque<usize>,
    /// Jobs that have not left for the pool yet.
    outgoing: Vec<Job>,
    /// Questions that have not left yet, each with the reactor that is asked.
    questions: Vec<(usize, Question<A>)>,
    /// Tasks that have not left yet.
    orders: Vec<TaskOrder>,
    /// Those that have taken a job back: an answer of theirs that waited behind it may be due.
    released: Vec<Owner>,
    /// The handle of the last job: the reactor's number, and behind it how many jobs it has had.
    serial: u64,
    /// How many of the entries are orphans that nobody misses.
    unwanted: usize,
    /// When the orphans are looked at; there is an alarm for it.
    look_at: Option<Instant>,
    /// The same, while that alarm is not set yet.
    unscheduled: Option<Instant>,
    /// How many of the entries a worker does.
    tasks: usize,
    most: usize,
    most_tasks: usize,
    most_per_connection: usize,
    orphan_timeout: Duration,
}

/// What a look at the orphans has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Jobs that were given up.
    pub(crate) given_up: usize,
    /// When to look again, if there are orphans left.
    pub(crate) again_at: Option<Instant>,
}

impl<A: Application> Jobs<A> {
    pub(crate) fn new(reactor: usize, limits: &Limits) -> Self {
        Jobs {
            entries: Slab::new(),
            of_connections: HashMap::new(),
            of_reactor: VecDeque::new(),
            outgoing: Vec::new(),
            questions: Vec::new(),
            orders: Vec::new(),
            released: Vec::new(),
            // So no two reactors give one handle.
            serial: (reactor as u64) << 48,
            unwanted: 0,
            look_at: None,
            unscheduled: None,
            tasks: 0,
            most: limits.offloads_per_reactor,
            most_tasks: limits.tasks_per_reactor,
            most_per_connection: limits.offloads_per_connection,
            orphan_timeout: limits.offload_orphan_timeout,
        }
    }

    /// Takes a job of a connection's, or a task.
    pub(crate) fn add<T: 'static>(
        &mut self,
        id: LocalId,
        delivery: Delivery,
        source: Source<A>,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        let done = move |application: &mut A, cx: &mut Context<'_, A>, value: Value| {
            if let Some(value) = unboxed(value) {
                done(application, cx, value);
            }
        };
        let continuation = Continuation::OfConnection(id, Contained::new(Box::new(done)));
        let handle = self.insert(continuation, delivery, source)?;
        self.of_connections.entry(id).or_default().push_back(handle.key);
        Ok(handle)
    }

    /// Takes the job that decides a connection's request.
    pub(crate) fn add_for_request(
        &mut self,
        id: LocalId,
        Deferred { source, decision }: Deferred<A>,
    ) -> Result<(), PoolFull> {
        let continuation = Continuation::OfRequest(id, decision);
        let handle = self.insert(continuation, Delivery::InOrder, source)?;
        self.of_connections.entry(id).or_default().push_back(handle.key);
        Ok(())
    }

    /// Takes a job of the reactor's own, or a task.
    pub(crate) fn add_for_reactor<T: 'static>(
        &mut self,
        delivery: Delivery,
        source: Source<A>,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        let done = move |application: &mut A, cx: &mut ReactorContext<'_, A>, value: Value| {
            if let Some(value) = unboxed(value) {
                done(application, cx, value);
            }
        };
        let continuation = Continuation::OfReactor(Contained::new(Box::new(done)));
        let handle = self.insert(continuation, delivery, source)?;
        self.of_reactor.push_back(handle.key);
        Ok(handle)
    }

    fn insert(
        &mut self,
        continuation: Continuation<A>,
        delivery: Delivery,
        source: Source<A>,
    ) -> Result<JobHandle, PoolFull> {
        let (under_way, most) = match source {
            Source::Worker(_) => (self.tasks, self.most_tasks),
            Source::Job(_) | Source::Reactor(..) => (self.entries.len() - self.tasks, self.most),
        };
        if under_way >= most {
            return Err(PoolFull { most });
        }
        let progress = Arc::<Progress>::default();
        self.serial += 1;
        let serial = self.serial;
        let doer = match &source {
            Source::Job(_) => Doer::Pool,
            Source::Reactor(..) => Doer::Reactor,
            Source::Worker(task) => Doer::Worker { outlives_connection: task.outlives },
        };
        let (progress_here, outcome) = (progress.clone(), None);
        let entry =
            Entry { serial, doer, continuation, delivery, progress: progress_here, outcome };
        self.tasks += usize::from(doer.is_worker());
        let key = self.entries.insert(entry);
        // There are at most `most` entries, and `Config::validate` bounds that.
        let id = JobId(key as u32);
        match source {
            Source::Job(work) => self.outgoing.push(Job { id, work, progress }),
            Source::Reactor(reactor, ask) => {
                self.questions.push((reactor, Question { id, ask, progress }));
            }
            Source::Worker(task) => self.orders.push(TaskOrder { id, task, progress }),
        }
        Ok(JobHandle { key, serial })
    }

    /// The jobs that are to leave for the pool.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.outgoing)
    }

    /// The questions that are to leave, each for the reactor that is asked.
    pub(crate) fn take_questions(&mut self) -> Vec<(usize, Question<A>)> {
        std::mem::take(&mut self.questions)
    }

    /// The tasks that are to leave for the broker.
    pub(crate) fn take_orders(&mut self) -> Vec<TaskOrder> {
        std::mem::take(&mut self.orders)
    }

    /// Those of which an answer may be due, because a job that it waited behind was taken back.
    pub(crate) fn take_released(&mut self) -> Vec<Owner> {
        std::mem::take(&mut self.released)
    }

    /// Takes a job back that this owner asked for: what follows it is dropped, and it counts for its owner no
    /// more. Whether it was still to be answered.
    pub(crate) fn cancel(&mut self, owner: Owner, handle: JobHandle, now: Instant) -> bool {
        let JobHandle { key, serial } = handle;
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.serial == serial) else {
            return false;
        };
        let queue = match (&entry.continuation, owner) {
            (Continuation::OfConnection(id, _), Owner::Connection(asks)) if *id == asks => {
                self.of_connections.get_mut(id)
            }
            (Continuation::OfReactor(_), Owner::Reactor) => Some(&mut self.of_reactor),
            _ => None,
        };
        let Some(queue) = queue else { return false };
        queue.retain(|&other| other != key);
        if let Owner::Connection(id) = owner
            && queue.is_empty()
        {
            self.of_connections.remove(&id);
        }
        entry.progress.revoke();
        // What has not left yet is never answered.
        let jobs = self.outgoing.extract_if(.., |job| job.id.0 as usize == key).count();
        let orders = self.orders.extract_if(.., |order| order.id.0 as usize == key).count();
        if entry.outcome.is_some() || jobs + orders > 0 {
            self.remove(key);
        } else {
            self.make_orphan(key, Former::Nobody, now);
        }
        self.released.push(owner);
        true
    }

    /// Nobody waits any more for the job of this entry, which is under way.
    fn make_orphan(&mut self, key: usize, former: Former, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let running_since = entry.progress.is_running().then_some(now);
        entry.continuation = Continuation::Orphan(Orphan { former, running_since });
        self.unwanted += usize::from(former == Former::Nobody);
        if self.look_at.is_none() {
            self.look_at = Some(now + self.orphan_timeout / LOOKS);
            self.unscheduled = self.look_at;
        }
    }

    /// Takes note of a job that is done: whose it was.
    pub(crate) fn finish(&mut self, finished: Finished) -> Whose {
        let key = finished.id.0 as usize;
        let Some(entry) = self.entries.get_mut(key) else {
            debug_assert!(false, "a job is finished once");
            return Whose::Nobodys { has_failed: false };
        };
        // One that was taken back before a thread took it was not run, and so has not failed.
        let has_failed = finished.value.is_none() && !entry.progress.is_revoked();
        entry.outcome = Some(finished.value);
        match entry.continuation {
            Continuation::OfConnection(id, _) => Whose::Of(Owner::Connection(id)),
            Continuation::OfRequest(id, _) => Whose::Of(Owner::Request(id)),
            Continuation::OfReactor(_) => Whose::Of(Owner::Reactor),
            Continuation::Orphan(_) => {
                self.remove_orphan(key);
                Whose::Nobodys { has_failed }
            }
        }
    }

    fn remove(&mut self, key: usize) -> Option<Entry<A>> {
        let entry = self.entries.try_remove(key)?;
        self.tasks -= usize::from(entry.doer.is_worker());
        Some(entry)
    }

    fn remove_orphan(&mut self, key: usize) {
        if let Some(Entry { continuation: Continuation::Orphan(orphan), .. }) = self.remove(key) {
            self.unwanted -= usize::from(orphan.former == Former::Nobody);
        }
    }

    /// Where in `queue` the next answer stands that can be delivered: of the ordered jobs none while the
    /// first of them is under way, whatever has come of later ones.
    fn first_due(entries: &Slab<Entry<A>>, queue: &VecDeque<usize>) -> Option<usize> {
        let mut waits_for_ordered = false;
        queue.iter().position(|&key| {
            let Some(entry) = entries.get(key) else { return false };
            let may_be_next = entry.delivery == Delivery::AtOnce || !waits_for_ordered;
            waits_for_ordered |= entry.delivery == Delivery::InOrder;
            may_be_next && entry.outcome.is_some()
        })
    }

    /// What `owner` is to be called with next, if an answer can be delivered.
    pub(crate) fn next_due(&mut self, owner: Owner) -> Option<Due<A>> {
        let queue = match owner {
            Owner::Connection(id) | Owner::Request(id) => self.of_connections.get_mut(&id)?,
            Owner::Reactor => &mut self.of_reactor,
        };
        let key = queue.remove(Self::first_due(&self.entries, queue)?)?;
        if let Owner::Connection(id) | Owner::Request(id) = owner
            && queue.is_empty()
        {
            self.of_connections.remove(&id);
        }
        let Entry { continuation, outcome, .. } = self.remove(key)?;
        Some(match (continuation, outcome.flatten()) {
            (Continuation::OfConnection(_, done), Some(value)) => Due::OfConnection(done, value),
            (Continuation::OfRequest(_, decision), Some(value)) => Due::OfRequest(decision, value),
            (Continuation::OfReactor(done), Some(value)) => Due::OfReactor(done, value),
            (_, None) | (Continuation::Orphan(_), _) => Due::Failed,
        })
    }

    /// A connection has closed, or its request waits no more: what its jobs return is of no interest any more.
    pub(crate) fn forget(&mut self, id: LocalId, now: Instant) {
        if self.of_connections.is_empty() {
            return;
        }
        for key in self.of_connections.remove(&id).unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            // What a reactor has not answered holds no thread: its slot is free at once.
            let is_unheard = entry.doer == Doer::Reactor && entry.progress.give_up();
            if entry.outcome.is_some() || is_unheard {
                self.remove(key);
                continue;
            }
            entry.progress.cancel();
            let former = match (&entry.continuation, entry.doer) {
                (Continuation::OfRequest(..), _)
                | (_, Doer::Worker { outlives_connection: false }) => Former::Nobody,
                _ => Former::Connection,
            };
            self.make_orphan(key, former, now);
        }
    }

    /// When an alarm is to go off for [`Self::look_at_orphans`], if there are orphans and it is not set yet.
    #[must_use]
    pub(crate) fn take_unscheduled(&mut self) -> Option<Instant> {
        self.unscheduled.take()
    }

    /// Gives up the orphans that have run for too long, if it is time to look at them.
    pub(crate) fn look_at_orphans(&mut self, now: Instant) -> Look {
        if self.look_at.is_none_or(|at| now < at) {
            // The alarm was early, because the wheel reaches less far than that.
            return Look { given_up: 0, again_at: self.look_at };
        }
        let mut given_up = Vec::new();
        self.look_at = None;
        for (key, entry) in &mut self.entries {
            let Continuation::Orphan(orphan) = &mut entry.continuation else { continue };
            if orphan.running_since.is_none() && entry.progress.is_running() {
                orphan.running_since = Some(now);
            }
            let is_late =
                orphan.running_since.is_some_and(|since| now >= since + self.orphan_timeout);
            // If it has returned in this very moment, its answer is on the way, and frees the slot.
            if is_late && entry.progress.give_up() {
                given_up.push(key);
            } else {
                self.look_at = Some(now + self.orphan_timeout / LOOKS);
            }
        }
        for &key in &given_up {
            self.remove_orphan(key);
        }
        Look { given_up: given_up.len(), again_at: self.look_at }
    }

    /// The reactor ends: nobody waits for any job.
    pub(crate) fn cancel_all(&self) {
        for (_, entry) in &self.entries {
            entry.progress.cancel();
        }
    }

    /// How many jobs a connection waits for.
    pub(crate) fn of(&self, id: LocalId) -> usize {
        self.of_connections.get(&id).map_or(0, VecDeque::len)
    }

    /// Whether a connection waits for so many that it is to ask for no more.
    pub(crate) fn is_busy(&self, id: LocalId) -> bool {
        self.of(id) >= self.most_per_connection
    }

    /// How many jobs a drain waits for: not for those that were to decide an upgrade, nor for those that
    /// were given up.
    pub(crate) fn awaited(&self) -> usize {
        self.entries.len() - self.unwanted
    }

    /// How many more jobs there may be.
    pub(crate) fn left(&self) -> usize {
        self.most.saturating_sub(self.entries.len() - self.tasks)
    }

    /// How many jobs are under way, those included that nobody waits for.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Checks the invariant at the head of this file.
    ///
    /// # Panics
    ///
    /// If it does not hold.
    pub(crate) fn invariants(&self) {
        let mut waited_for = self.of_reactor.len();
        for (id, queue) in &self.of_connections {
            assert!(!queue.is_empty(), "{id}: waits for nothing");
            waited_for += queue.len();
            // The answer to a request is taken by the next visit, which the reactor may not make yet.
            let is_request =
                |key: usize| matches!(self.entries[key].continuation, Continuation::OfRequest(..));
            let due = Self::first_due(&self.entries, queue).map(|at| queue[at]);
            assert!(due.is_none_or(is_request), "{id}: an answer was not delivered");
        }
        let due = Self::first_due(&self.entries, &self.of_reactor);
        assert_eq!(due, None, "an answer was not delivered to the reactor");
        let orphans = || {
            self.entries.iter().filter_map(|(_, entry)| match &entry.continuation {
                Continuation::Orphan(orphan) => Some((orphan, &entry.progress)),
                _ => None,
            })
        };
        let unwanted = orphans().filter(|(orphan, _)| orphan.former == Former::Nobody).count();
        assert_eq!(self.unwanted, unwanted);
        let tasks = self.entries.iter().filter(|(_, entry)| entry.doer.is_worker()).count();
        assert_eq!(self.tasks, tasks);
        assert_eq!(self.entries.len(), waited_for + orphans().count(), "each is somebody's");
        assert!(orphans().next().is_none() || self.look_at.is_some(), "an orphan is forgotten");
        assert_eq!(self.unscheduled, None, "no alarm is set for the orphans");
        assert!(self.outgoing.is_empty(), "jobs have left for the pool");
        assert!(self.questions.is_empty(), "questions have left");
        assert!(self.orders.is_empty(), "tasks have left for the broker");
        assert!(self.released.is_empty(), "those behind a job that was taken back were looked at");
    }
}

impl<A: Application> Drop for Jobs<A> {
    /// However the reactor ended.
    fn drop(&mut self) {
        self.cancel_all();
    }
}

impl<A: Application> fmt::Debug for Jobs<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("under_way", &self.entries.len()).finish_non_exhaustive()
    }
}

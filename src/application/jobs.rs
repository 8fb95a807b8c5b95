//! Off-loaded jobs, from the reactor's side: which connection waits for which, and what follows.
//!
//! What is to be done stays here, on the reactor, and so need not be `Send`; only the job itself and
//! its value travel. Runs nothing and delivers nothing: the shard does, and asks here whose turn
//! it is.
//!
//! Invariant: an entry stays until its job's one [`Finished`] has come; what its owner gets, it gets
//! in the order in which it asked.
//!
//! Next: `kept`: what is kept for each connection.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use slab::Slab;

use super::admission::{Deferred, ForUpgrade};
use super::{Application, Context, ReactorContext};
use crate::config::Limits;
use crate::contained::Contained;
use crate::offload::{Finished, Job, JobId, PoolFull, Value, Work, in_a_box};
use crate::token::LocalId;

type ForConnection<A> = Contained<Box<dyn FnOnce(&mut A, &mut Context<'_, A>, Value)>>;
type ForReactor<A> = Contained<Box<dyn FnOnce(&mut A, &mut ReactorContext<'_, A>, Value)>>;

/// What follows a job.
enum Continuation<A: Application> {
    OfConnection(LocalId, ForConnection<A>),
    OfUpgrade(LocalId, ForUpgrade<A>),
    OfReactor(ForReactor<A>),
    /// Its connection has closed: the value is dropped.
    Nobody,
    /// It was to decide an upgrade that has been refused meanwhile: not even its end is waited for.
    Unwanted,
}

struct Entry<A: Application> {
    continuation: Continuation<A>,
    /// The value that waits for its turn, or `Some(None)` for a job that failed.
    outcome: Option<Option<Value>>,
}

/// Who asked for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Connection(LocalId),
    /// A connection that waits for the answer to its upgrade.
    Upgrade(LocalId),
    Reactor,
}

/// What is to be done now.
pub(crate) enum Due<A: Application> {
    OfConnection(ForConnection<A>, Value),
    OfUpgrade(ForUpgrade<A>, Value),
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
    /// How many of the entries are of no interest to anybody.
    unwanted: usize,
    most: usize,
    most_per_connection: usize,
}

impl<A: Application> Jobs<A> {
    pub(crate) fn new(limits: &Limits) -> Self {
        Jobs {
            entries: Slab::new(),
            of_connections: HashMap::new(),
            of_reactor: VecDeque::new(),
            outgoing: Vec::new(),
            unwanted: 0,
            most: limits.offloads_per_reactor,
            most_per_connection: limits.offloads_per_connection,
        }
    }

    /// Takes a job of a connection's.
    pub(crate) fn add<T: Send + 'static>(
        &mut self,
        id: LocalId,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<(), PoolFull> {
        let done = move |application: &mut A, cx: &mut Context<'_, A>, value: Value| {
            if let Some(Ok(value)) = value.into_inner().map(|value| value.downcast::<T>()) {
                done(application, cx, *value);
            }
        };
        let work = in_a_box(job);
        let key =
            self.insert(Continuation::OfConnection(id, Contained::new(Box::new(done))), work)?;
        self.of_connections.entry(id).or_default().push_back(key);
        Ok(())
    }

    /// Takes the job that decides a connection's upgrade.
    pub(crate) fn add_for_upgrade(
        &mut self,
        id: LocalId,
        Deferred { work, done }: Deferred<A>,
    ) -> Result<(), PoolFull> {
        let key = self.insert(Continuation::OfUpgrade(id, done), work)?;
        self.of_connections.entry(id).or_default().push_back(key);
        Ok(())
    }

    /// Takes a job of the reactor's own.
    pub(crate) fn add_for_reactor<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<(), PoolFull> {
        let done = move |application: &mut A, cx: &mut ReactorContext<'_, A>, value: Value| {
            if let Some(Ok(value)) = value.into_inner().map(|value| value.downcast::<T>()) {
                done(application, cx, *value);
            }
        };
        let work = in_a_box(job);
        let key = self.insert(Continuation::OfReactor(Contained::new(Box::new(done))), work)?;
        self.of_reactor.push_back(key);
        Ok(())
    }

    fn insert(&mut self, continuation: Continuation<A>, work: Work) -> Result<usize, PoolFull> {
        if self.entries.len() >= self.most {
            return Err(PoolFull { most: self.most });
        }
        let key = self.entries.insert(Entry { continuation, outcome: None });
        // There are at most `most` entries, and `Config::validate` bounds that.
        let id = JobId(key as u32);
        self.outgoing.push(Job { id, work });
        Ok(key)
    }

    /// The jobs that are to leave for the pool.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.outgoing)
    }

    /// Takes note of a job that is done; its owner, if there still is one.
    pub(crate) fn finish(&mut self, finished: Finished) -> Option<Owner> {
        let key = finished.id.0 as usize;
        let Some(entry) = self.entries.get_mut(key) else {
            debug_assert!(false, "a job is finished once");
            return None;
        };
        entry.outcome = Some(finished.value);
        match entry.continuation {
            Continuation::OfConnection(id, _) => Some(Owner::Connection(id)),
            Continuation::OfUpgrade(id, _) => Some(Owner::Upgrade(id)),
            Continuation::OfReactor(_) => Some(Owner::Reactor),
            Continuation::Nobody => {
                self.entries.remove(key);
                None
            }
            Continuation::Unwanted => {
                self.entries.remove(key);
                self.unwanted -= 1;
                None
            }
        }
    }

    /// What `owner` is to be called with next: nothing while the first job that it waits for is
    /// under way, whatever has come of later ones.
    pub(crate) fn next_due(&mut self, owner: Owner) -> Option<Due<A>> {
        let queue = match owner {
            Owner::Connection(id) | Owner::Upgrade(id) => self.of_connections.get_mut(&id)?,
            Owner::Reactor => &mut self.of_reactor,
        };
        let &key = queue.front()?;
        self.entries.get(key)?.outcome.as_ref()?;
        queue.pop_front();
        if let Owner::Connection(id) | Owner::Upgrade(id) = owner
            && queue.is_empty()
        {
            self.of_connections.remove(&id);
        }
        let Entry { continuation, outcome } = self.entries.try_remove(key)?;
        Some(match (continuation, outcome.flatten()) {
            (Continuation::OfConnection(_, done), Some(value)) => Due::OfConnection(done, value),
            (Continuation::OfUpgrade(_, done), Some(value)) => Due::OfUpgrade(done, value),
            (Continuation::OfReactor(done), Some(value)) => Due::OfReactor(done, value),
            (_, None) | (Continuation::Nobody | Continuation::Unwanted, _) => Due::Failed,
        })
    }

    /// A connection has closed: what its jobs return is of no interest any more.
    pub(crate) fn forget(&mut self, id: LocalId) {
        if self.of_connections.is_empty() {
            return;
        }
        for key in self.of_connections.remove(&id).unwrap_or_default() {
            if self.entries.get(key).is_some_and(|entry| entry.outcome.is_some()) {
                self.entries.remove(key);
            } else if let Some(entry) = self.entries.get_mut(key) {
                let decides = matches!(entry.continuation, Continuation::OfUpgrade(..));
                self.unwanted += usize::from(decides);
                entry.continuation =
                    if decides { Continuation::Unwanted } else { Continuation::Nobody };
            }
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

    /// How many jobs a drain waits for: what `on_close` has off-loaded may be what keeps a session, but
    /// what was to decide an upgrade is not missed.
    pub(crate) fn awaited(&self) -> usize {
        self.entries.len() - self.unwanted
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
            let first = queue.front().map(|&key| &self.entries[key]);
            // The answer to an upgrade is taken by the next visit, which the reactor may not make yet.
            let may_wait = first.is_some_and(|entry| {
                entry.outcome.is_none() || matches!(entry.continuation, Continuation::OfUpgrade(..))
            });
            assert!(may_wait, "{id}: an answer was not delivered");
        }
        let of = |is: fn(&Continuation<A>) -> bool| {
            self.entries.iter().filter(|(_, entry)| is(&entry.continuation)).count()
        };
        let orphans = of(|continuation| matches!(continuation, Continuation::Nobody));
        let unwanted = of(|continuation| matches!(continuation, Continuation::Unwanted));
        assert_eq!(self.unwanted, unwanted);
        assert_eq!(self.entries.len(), waited_for + orphans + unwanted, "each is somebody's");
        assert!(self.outgoing.is_empty(), "jobs have left for the pool");
    }
}

impl<A: Application> fmt::Debug for Jobs<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("under_way", &self.entries.len()).finish_non_exhaustive()
    }
}

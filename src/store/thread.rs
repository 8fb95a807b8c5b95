//! The store's thread: it takes what the reactors have changed, makes it safe, and tells them.
//!
//! One thread for all reactors, because one sync serves all that was written before it. It takes all batches that wait,
//! writes them, syncs once, and answers each. What comes meanwhile is the next group: groups grow with the load, and no
//! timer collects them. Where replies do not wait for the store ([`StoreSync::Every`]), a batch is answered when it is
//! written, and the sync comes later. Jobs of the store run on two more threads. Knows no mailbox: it is given a closure
//! with which to answer. Made by `server_store.rs`.
//!
//! Invariant: a reactor is told of a batch when all of it is safe, or, if it need not be, written. After a failure no
//! reactor is told of anything, and nothing is tried again.
//!
//! Next: `inspect`: a look at a log from outside.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::batch::CommitBatch;
use super::error::StoreError;
use super::metrics::StoreMetrics;
use super::{Store, UPKEEP_LABELS, Upkeep};
use crate::config::StoreSync;
use crate::contained::guard;

/// Batches that a reactor has here at most: the one under way, and the one with which it ends.
const BATCHES_MOST: usize = 2;

/// The way to the store for reactors. Cheap to clone; when the last one is gone, the store is closed.
#[derive(Debug, Clone)]
pub struct CommitSender(Sender<(usize, CommitBatch)>);

/// The other end.
#[derive(Debug)]
pub struct CommitReceiver(Receiver<(usize, CommitBatch)>);

/// A channel for so many reactors.
#[must_use]
pub fn commit_channel(reactors: usize) -> (CommitSender, CommitReceiver) {
    let (sender, receiver) = bounded(BATCHES_MOST * reactors);
    (CommitSender(sender), CommitReceiver(receiver))
}

impl CommitSender {
    /// Passes a batch of this reactor on. Never waits: there is room for all that may be under way.
    pub fn send(&self, reactor: usize, batch: CommitBatch) {
        let sent = self.0.try_send((reactor, batch));
        // To a thread that has failed nothing is sent: it has said so, and nobody is told that this is safe.
        debug_assert!(!matches!(sent, Err(TrySendError::Full(_))), "too many batches under way");
    }
}

/// How the thread speaks to others.
pub struct Reports {
    /// This reactor's batch of this number is safe.
    pub stored: Box<dyn Fn(usize, u64) + Send>,
    /// Nothing is stored any more: why, in one line. Called once at the most.
    pub failed: Box<dyn FnOnce(&str) + Send>,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

/// The running thread.
#[derive(Debug)]
pub struct StoreThread {
    thread: JoinHandle<()>,
    /// Something comes when all is safe; the end, if that failed.
    is_safe: Receiver<()>,
}

/// How the thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreEnd {
    /// Everything is safe.
    Safe,
    /// It has failed, and said why.
    Failed,
    /// The last sync has not returned in time.
    Hangs,
}

impl StoreThread {
    /// Starts it, with a store that is open.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub fn start(
        store: Box<dyn Store>,
        commits: CommitReceiver,
        sync: StoreSync,
        metrics: Arc<StoreMetrics>,
        reports: Reports,
    ) -> io::Result<StoreThread> {
        let upkeep = UpkeepThreads::start()?;
        let (safe, is_safe) = bounded(1);
        let every = match sync {
            StoreSync::Always => None,
            StoreSync::Every(time) => Some(time),
        };
        let Reports { stored, failed } = reports;
        let writer = Writer { store, commits: commits.0, every, unsynced: None, metrics, stored };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            // A panic is a defect; whoever waits for an answer is to be told of it all the same.
            let outcome = guard(move || writer.run(upkeep, &safe));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed(&error.to_string()),
                Err(_) => failed("the store's thread panicked"),
            }
        })?;
        Ok(StoreThread { thread, is_safe })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits, when no [`CommitSender`] is left, until all is safe; for `most` at the most. Then until the store is
    /// closed, which takes as long as a compaction that is under way, and as long at the most.
    #[must_use]
    pub fn join(self, most: Duration) -> StoreEnd {
        match self.is_safe.recv_timeout(most) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let _ = self.thread.join();
                return StoreEnd::Failed;
            }
            Err(RecvTimeoutError::Timeout) => return StoreEnd::Hangs,
        }
        // What is not closed is found at the next start as after a crash, and is whole.
        if let Err(RecvTimeoutError::Timeout) = self.is_safe.recv_timeout(most) {
            log::warn!("the store was not closed: a compaction takes too long");
            return StoreEnd::Safe;
        }
        let _ = self.thread.join();
        StoreEnd::Safe
    }
}

/// The store, and what was not synced yet.
struct Writer {
    store: Box<dyn Store>,
    commits: Receiver<(usize, CommitBatch)>,
    /// How long what was written may stay unsynced, if answers do not wait for that.
    every: Option<Duration>,
    /// Since when something is.
    unsynced: Option<Instant>,
    metrics: Arc<StoreMetrics>,
    stored: Box<dyn Fn(usize, u64) + Send>,
}

/// What the thread woke for.
enum Woken {
    Batch(usize, CommitBatch),
    /// What was written has to be synced now.
    SyncDue,
    /// No reactor is left.
    End,
}

impl Writer {
    fn run(mut self, upkeep: UpkeepThreads, safe: &Sender<()>) -> Result<(), StoreError> {
        self.metrics.note_figures(self.store.figures());
        let mut group = Vec::new();
        loop {
            match self.wait() {
                Woken::Batch(reactor, batch) => group.push((reactor, batch)),
                Woken::SyncDue => {
                    self.sync()?;
                    continue;
                }
                Woken::End => break,
            }
            group.extend(self.commits.try_iter());
            self.write(&mut group)?;
            let jobs = self.store.upkeep(now_ms());
            upkeep.take(jobs);
            self.metrics.note_figures(self.store.figures());
        }
        self.sync()?;
        let _ = safe.send(());
        upkeep.join();
        self.store.close(now_ms())
    }

    fn wait(&self) -> Woken {
        let due = self.unsynced.zip(self.every).map(|(since, every)| since + every);
        let received = match due {
            None => self.commits.recv().map_err(|_| RecvTimeoutError::Disconnected),
            // However many batches wait, what is due is synced first.
            Some(due) if due <= Instant::now() => Err(RecvTimeoutError::Timeout),
            Some(due) => self.commits.recv_deadline(due),
        };
        match received {
            Ok((reactor, batch)) => Woken::Batch(reactor, batch),
            Err(RecvTimeoutError::Timeout) => Woken::SyncDue,
            Err(RecvTimeoutError::Disconnected) => Woken::End,
        }
    }

    /// Writes a group, syncs it if it is waited for, and answers.
    fn write(&mut self, group: &mut Vec<(usize, CommitBatch)>) -> Result<(), StoreError> {
        let at_ms = now_ms();
        for (_, batch) in group.iter_mut() {
            let sessions = batch.pieces.iter().map(|piece| u64::from(piece.changes())).sum();
            for piece in &mut batch.pieces {
                self.store.append(piece, at_ms)?;
                self.unsynced.get_or_insert_with(Instant::now);
            }
            self.metrics.note_commit(sessions);
        }
        if self.every.is_none() {
            self.sync()?;
        }
        for (reactor, CommitBatch { number, .. }) in group.drain(..) {
            (self.stored)(reactor, number);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced.is_some() {
            let begun = Instant::now();
            self.store.sync()?;
            self.metrics.note_sync(begun.elapsed());
            self.unsynced = None;
        }
        Ok(())
    }
}

/// The wall clock, which may jump: [`crate::store`] says what that leads to.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// The threads for the jobs of a store, one for each kind: a compaction takes seconds, and no segment is to be made late
/// for it.
struct UpkeepThreads {
    jobs: [Sender<Upkeep>; UPKEEP_LABELS.len()],
    threads: [JoinHandle<()>; UPKEEP_LABELS.len()],
}

impl UpkeepThreads {
    fn start() -> io::Result<UpkeepThreads> {
        let (room, room_thread) = UpkeepThreads::start_one(UPKEEP_LABELS[0])?;
        let (compaction, compaction_thread) = UpkeepThreads::start_one(UPKEEP_LABELS[1])?;
        Ok(UpkeepThreads { jobs: [room, compaction], threads: [room_thread, compaction_thread] })
    }

    fn start_one(label: &str) -> io::Result<(Sender<Upkeep>, JoinHandle<()>)> {
        // A store gives out one job of a kind at a time.
        let (sender, receiver) = bounded::<Upkeep>(1);
        let thread = thread::Builder::new().name(format!("store-{label}")).spawn(move || {
            for job in receiver {
                job();
            }
        })?;
        Ok((sender, thread))
    }

    fn take(&self, jobs: [Option<Upkeep>; UPKEEP_LABELS.len()]) {
        for (sender, job) in self.jobs.iter().zip(jobs) {
            // One that is not taken is dropped, which the store sees.
            let _ = job.map(|job| sender.try_send(job));
        }
    }

    fn join(self) {
        let UpkeepThreads { jobs, threads } = self;
        drop(jobs);
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

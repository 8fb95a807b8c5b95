//! The thread that asks Redis: it takes the reactors' batches, sends them, and tells what came of them.
//!
//! One thread and one connection for all reactors. All batches that wait are one pipeline, so it grows with the load.
//! Any trouble with Redis ends the connection: the next one is made at once, then after longer and longer pauses, and
//! what is unanswered is sent again, as a later attempt. A batch whose time is over is told as unavailable. While
//! nothing is asked, Redis is tried once a second. Knows no mailbox: it is given closures with which to answer. Made by
//! `server_store.rs`.
//!
//! A batch may wait for `--store-timeout` since the thread has seen it, which it does every 100 ms, but for the moments
//! in which it connects: half of that time at the most. Only the system's resolver takes what it takes.
//!
//! Invariant: a reactor is told of each of its batches once, and of a later one not before an earlier one.
//!
//! Next: [`crate::connection`]: a transport, an endpoint, and why they rest.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::RedisOptions;
use super::calls::Caller;
use super::link::{Link, eviction_warning};
use super::scripts::Scripts;
use super::takeovers::{Takeovers, TellTakeover};
use super::trouble::Trouble;
use super::unanswered::{Settled, Unanswered};
use crate::contained::guard;
use crate::resp::Pipeline;
use crate::resp::availability::Availability;
use crate::resp::backoff::Backoff;
use crate::store::batch::CommitBatch;
use crate::store::claim::Outcome;
use crate::store::metrics::StoreMetrics;
use crate::store::record::Malformed;
use crate::store::thread::{CommitReceiver, StoreEnd};

/// How long Redis may be left alone.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// For how long one step of connecting may take at most.
const CONNECT_MOST: Duration = Duration::from_secs(1);

/// Tells a reactor how its batch has ended.
pub type TellOutcome = Box<dyn Fn(usize, Outcome) + Send>;

/// Tells whether Redis can be had, and why not.
pub type TellAvailability = Box<dyn Fn(bool, &str) + Send>;

/// How the threads speak to others.
pub struct SharedReports {
    /// This reactor's batch has ended like this.
    pub settled: TellOutcome,
    /// Another node has this session; if this node has it, it is this reactor's.
    pub taken_over: TellTakeover,
    /// Whether Redis can be had, and why not: when that changes, and every few seconds while it cannot.
    pub availability: TellAvailability,
    /// The thread has ended, which is a defect: why. No batch is answered any more.
    pub failed: Box<dyn FnOnce(&str) + Send>,
}

impl fmt::Debug for SharedReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReports").finish_non_exhaustive()
    }
}

/// The running threads.
#[derive(Debug)]
pub struct RedisThreads {
    requests: JoinHandle<()>,
    takeovers: JoinHandle<()>,
    /// Ends with the thread.
    has_ended: Receiver<()>,
}

impl RedisThreads {
    /// Starts them. They connect when they can.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub fn start(
        options: RedisOptions,
        commits: CommitReceiver,
        reactors: usize,
        metrics: Arc<StoreMetrics>,
        reports: SharedReports,
    ) -> io::Result<RedisThreads> {
        metrics.shared.note_use();
        let SharedReports { settled, taken_over, availability, failed } = reports;
        let is_over = Arc::new(AtomicBool::new(false));
        let takeovers = Takeovers {
            options: options.clone(),
            reactors,
            tell: taken_over,
            metrics: metrics.clone(),
            is_over: is_over.clone(),
        };
        let takeovers = takeovers.start()?;
        let end_of_takeovers = EndsTakeovers(is_over);
        let (running, has_ended) = bounded::<()>(0);
        let requests = Requests::new(options, commits, metrics, (settled, availability));
        let requests = thread::Builder::new().name("store".to_owned()).spawn(move || {
            let (_running, _end_of_takeovers) = (running, end_of_takeovers);
            // A panic is a defect; whoever waits for an answer is to be told of it all the same.
            match guard(move || requests.run()) {
                Ok(Ok(())) => {}
                Ok(Err(Malformed)) => failed("a batch cannot be read"),
                Err(_) => failed("the store's thread panicked"),
            }
        })?;
        Ok(RedisThreads { requests, takeovers, has_ended })
    }

    /// Whether they have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.requests.is_finished()
    }

    /// Waits, when no [`crate::store::thread::CommitSender`] is left, until each batch is answered, for `most` at the
    /// most.
    #[must_use]
    pub fn join(self, most: Duration) -> StoreEnd {
        if let Err(RecvTimeoutError::Timeout) = self.has_ended.recv_timeout(most) {
            return StoreEnd::Hangs;
        }
        let _ = self.requests.join();
        // It ends in a moment, or hangs in the system's resolver: nobody has to wait for that.
        drop(self.takeovers);
        StoreEnd::Safe
    }
}

/// Ends the other thread when it is dropped.
struct EndsTakeovers(Arc<AtomicBool>);

impl Drop for EndsTakeovers {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

type Answers = (TellOutcome, TellAvailability);

/// The thread's own.
struct Requests {
    options: RedisOptions,
    scripts: Scripts,
    commits: Receiver<(usize, CommitBatch)>,
    unanswered: Unanswered,
    pipeline: Pipeline,
    connecting: Connecting,
    link: Option<Link>,
    /// When Redis has answered last.
    heard: Instant,
    availability: Availability,
    /// What was said of batches that were given up, so that it is not said of each.
    given_up: Availability,
    metrics: Arc<StoreMetrics>,
    answers: Answers,
    /// No reactor is left.
    is_over: bool,
}

/// When to connect.
struct Connecting {
    /// Connections that were tried.
    attempts: u64,
    backoff: Backoff,
    /// The policy that was complained of last.
    policy: Option<String>,
}

impl Requests {
    fn new(
        options: RedisOptions,
        commits: CommitReceiver,
        metrics: Arc<StoreMetrics>,
        answers: Answers,
    ) -> Requests {
        let now = Instant::now();
        Requests {
            options,
            scripts: Scripts::new(),
            commits: commits.into_inner(),
            unanswered: Unanswered::new(),
            pipeline: Pipeline::new(),
            connecting: Connecting { attempts: 0, backoff: Backoff::new(now), policy: None },
            link: None,
            heard: now,
            availability: Availability::default(),
            given_up: Availability::default(),
            metrics,
            answers,
            is_over: false,
        }
    }

    fn run(mut self) -> Result<(), Malformed> {
        while !(self.is_over && self.unanswered.is_empty()) {
            self.receive();
            self.expire();
            let now = Instant::now();
            if self.link.is_none() && self.connecting.backoff.next() <= now {
                self.connect();
            } else if self.link.is_some() && !self.unanswered.is_empty() {
                self.ask()?;
            } else if self.link.is_some() && self.heard + PROBE_AFTER <= now {
                self.probe();
            }
        }
        Ok(())
    }

    /// Takes the batches that have come; waits for the first one until something else is due.
    fn receive(&mut self) {
        let due = match &self.link {
            Some(_) if self.unanswered.is_empty() => self.heard + PROBE_AFTER,
            Some(_) => Instant::now(),
            None => {
                let deadline = self.unanswered.next_deadline();
                let next = self.connecting.backoff.next();
                deadline.map_or(next, |deadline| next.min(deadline))
            }
        };
        if self.is_over {
            // Nothing comes any more; what waits still does.
            if !self.unanswered.is_empty() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            return;
        }
        let first = match self.commits.recv_deadline(due) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.is_over = true;
                None
            }
        };
        let deadline = Instant::now() + self.options.timeout;
        for (reactor, batch) in first.into_iter().chain(self.commits.try_iter()) {
            self.unanswered.receive(reactor, batch, deadline);
        }
    }

    fn expire(&mut self) {
        let expired = self.unanswered.expire(Instant::now());
        if expired.is_empty() {
            return;
        }
        let why = self.availability.to_string();
        // First, so that whoever is told of the batch does not come again at once.
        self.tell(false, &why);
        if self.is_over {
            log::warn!("store: what the last turns have changed may not be stored: {why}");
        }
        self.answer(expired);
    }

    fn answer(&self, outcomes: Vec<(usize, Outcome)>) {
        for (reactor, outcome) in outcomes {
            self.metrics.shared.note_outcome(&outcome);
            (self.answers.0)(reactor, outcome);
        }
    }

    fn tell(&mut self, is_available: bool, why: &str) {
        self.metrics.shared.note_availability(is_available);
        if self.availability.note(is_available, why, Instant::now()) {
            (self.answers.1)(is_available, why);
        }
    }

    /// For how long one of the steps of connecting may take: connect, load, try, ask for the policy. All of them leave
    /// half of the time of a batch that comes meanwhile.
    fn connect_timeout(&self) -> Duration {
        let most = CONNECT_MOST.min(self.options.timeout / 8);
        let deadline = self.unanswered.next_deadline();
        let left = deadline.map_or(most, |at| at.saturating_duration_since(Instant::now()));
        most.min(left).max(Duration::from_millis(10))
    }

    fn connect(&mut self) {
        self.connecting.attempts += 1;
        let (attempt, timeout) = (self.connecting.attempts, self.connect_timeout());
        match Link::connect(&self.options, &self.scripts, attempt, timeout) {
            Ok(mut link) => {
                self.metrics.shared.note_connection();
                let policy = link.eviction_policy(timeout);
                self.link = Some(link);
                self.heard = Instant::now();
                match policy {
                    Ok(policy) => self.judge(policy),
                    Err(trouble) => return self.give_up(&trouble),
                }
                self.tell(true, "");
            }
            Err(trouble) => {
                self.connecting.backoff.put_off(Instant::now());
                self.tell(false, &trouble.to_string());
            }
        }
    }

    /// One line for a policy that drops sessions; not again at each connection.
    fn judge(&mut self, policy: Option<String>) {
        if policy == self.connecting.policy {
            return;
        }
        if let Some(warning) = policy.as_deref().and_then(eviction_warning) {
            log::warn!("store: {}: {warning}", self.options.address);
        }
        self.connecting.policy = policy;
    }

    /// The connection is of no use any more. Whether Redis is away shows when the next one is made.
    fn give_up(&mut self, trouble: &Trouble) {
        self.link = None;
        log::debug!("store: {}: connection given up: {trouble}", self.options.address);
        self.connecting.backoff.put_off(Instant::now());
        self.availability.expect(trouble.to_string());
    }

    /// Sends all that waits, and takes what is answered.
    fn ask(&mut self) -> Result<(), Malformed> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let begun = Instant::now();
        let Some(deadline) = self.unanswered.next_deadline() else { return Ok(()) };
        let (options, scripts) = (&self.options, &self.scripts);
        let caller = Caller { options, scripts, attempt: link.attempt };
        let sessions = self.unanswered.write(&caller, begun, &mut self.pipeline)?;
        if self.pipeline.is_empty() {
            // Batches without a call are safe as they are, and say nothing of Redis.
            let settled = self.unanswered.settle(Vec::new());
            self.answer(settled.outcomes);
            return Ok(());
        }
        let (commits, mut arrived) = (&self.commits, Vec::new());
        let replies = link.exchange(&self.pipeline, deadline, || {
            let seen = Instant::now();
            arrived.extend(commits.try_iter().map(|(reactor, batch)| (reactor, batch, seen)));
        });
        let settled = match replies {
            Ok(replies) => self.unanswered.settle(replies),
            Err(error) => {
                Settled { outcomes: Vec::new(), trouble: Some(error.into()), given_up: None }
            }
        };
        for (reactor, batch, seen) in arrived {
            self.unanswered.receive(reactor, batch, seen + self.options.timeout);
        }
        self.heard = Instant::now();
        if let Some(why) = settled.given_up.map(|trouble| trouble.to_string())
            && self.given_up.note(false, &why, self.heard)
        {
            log::warn!("store: {}: {why}; what was asked is given up", self.options.address);
        }
        match settled.trouble {
            Some(trouble) => self.give_up(&trouble),
            None => {
                self.connecting.backoff.note_success();
                self.availability.forget();
                self.metrics.note_sync(begun.elapsed());
                let is_stored =
                    |outcome: &&(usize, Outcome)| matches!(outcome.1, Outcome::Stored { .. });
                let stored = settled.outcomes.iter().filter(is_stored).count();
                self.metrics.note_group(stored as u64, sessions);
                self.tell(true, "");
            }
        }
        self.answer(settled.outcomes);
        Ok(())
    }

    fn probe(&mut self) {
        let timeout = CONNECT_MOST.min(self.options.timeout / 2);
        let Some(link) = &mut self.link else { return };
        let tried = link.probe(&self.options, timeout);
        self.heard = Instant::now();
        match tried {
            Ok(()) => {
                self.connecting.backoff.note_success();
                self.tell(true, "");
            }
            Err(trouble) => self.give_up(&trouble),
        }
    }
}

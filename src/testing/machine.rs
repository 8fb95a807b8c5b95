//! Several shards on one kernel of memory: accept queues, mailboxes, wires, a pool without threads,
//! and time. A shard gets a turn only when a kernel would wake it, and its invariants are checked
//! after each.
//!
//! Knows no clients and checks nothing of what they are told; `checks` has what must be true of the rest. The test kit
//! runs on it, without faults; so do the simulation, the torture and the fuzz target for shards, which plan faults.
//!
//! Next: `checks`: what must be true of it.

mod checks;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::mem::take;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::faults::{Call, ECONNABORTED, Fault, Faults};
use super::held_tasks::HeldTasks;
use super::wire::{Scripted, Wire, Written};
use crate::application::{Application, Hosted, ReactorStart, Remote, Storing, Wake};
use crate::config::Config;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::inbox::{InboxSender, inbox};
use crate::mailbox::Mail;
use crate::observe::metrics::ReactorMetrics;
use crate::offload::Job;
use crate::offload::pool::PoolFigures;
use crate::server_status::ServerStatus;
use crate::server_store::by_owner;
use crate::shard::Shard;
use crate::store::{Batch, CommitBatch, Outcome, Recovered, Takeover};
use crate::tasks::{TaskOrder, TaskOutcome};
use crate::token::{LocalId, Peer};
use crate::transport::listener::Accepted;
use crate::transport::tls::TlsAcceptor;

type TestMail = Mail<Scripted>;

/// What the environments of all shards share: accept queues, mailboxes, and the pool.
#[derive(Debug, Default)]
pub struct Net {
    /// Who waits to be accepted, by shard.
    pub queues: Vec<VecDeque<(Scripted, Peer)>>,
    listening: Vec<bool>,
    /// An edge on a listener that has not been delivered.
    arrivals: Vec<bool>,
    boxes: Vec<VecDeque<TestMail>>,
    answers: Vec<VecDeque<TestMail>>,
    wakes: Vec<bool>,
    box_capacity: usize,
    ended: Vec<bool>,
    /// Accepts that fail before the next one succeeds.
    pub accept_errors: VecDeque<i32>,
    /// Jobs that were off-loaded and have not returned, each with its shard, in the order in which
    /// they came. Those that were given up are among them.
    pub jobs: Vec<(usize, Job)>,
    /// Whether a job waits for [`Job::begin`]; if not, a thread takes each at once.
    pub jobs_wait: bool,
    /// Tasks that were enqueued and have no result, in the order in which they came.
    pub tasks: HeldTasks,
    /// Batches that the store has not taken yet, each with its shard: one of each shard at the most.
    pub batches: Vec<(usize, CommitBatch)>,
    /// What the wall clock said when the machine began: it may be set.
    pub beginning_ms: u64,
    beginning: Option<Instant>,
    figures: Arc<PoolFigures>,
    random: u64,
    /// Mails that found a full box.
    pub full_boxes: u64,
    /// What makes TLS sessions, if any of the wires is encrypted.
    pub tls: Option<Arc<TlsAcceptor>>,
    faults: Faults,
}

/// The wall clock where nobody sets it: in 2027.
pub const BEGINNING_MS: u64 = 1_800_000_000_000;

impl Net {
    fn new(workers: usize, box_capacity: usize, now: Instant, faults: Faults) -> Net {
        Net {
            queues: (0..workers).map(|_| VecDeque::new()).collect(),
            listening: vec![true; workers],
            arrivals: vec![false; workers],
            boxes: (0..workers).map(|_| VecDeque::new()).collect(),
            answers: (0..workers).map(|_| VecDeque::new()).collect(),
            wakes: vec![false; workers],
            ended: vec![false; workers],
            box_capacity,
            beginning_ms: BEGINNING_MS,
            beginning: Some(now),
            faults,
            ..Net::default()
        }
    }

    /// The time by the wall clock.
    #[must_use]
    pub fn wall_clock_ms(&self, now: Instant) -> u64 {
        let since = self.beginning.map_or(Duration::ZERO, |beginning| now - beginning);
        self.beginning_ms + since.as_millis() as u64
    }

    /// Runs the job at this place in [`Self::jobs`], and sends its value home.
    pub fn run_job(&mut self, index: usize) {
        let (shard, job) = self.jobs.remove(index);
        let Some(finished) = job.run() else { return self.figures.note_late() };
        self.tell(shard, Mail::Finished(finished));
    }

    /// The task at this place in [`Self::tasks`] has ended like this, which its shard is told.
    pub fn finish_task(&mut self, index: usize, outcome: TaskOutcome) {
        if let Some((shard, finished)) = self.tasks.finish(index, outcome) {
            self.tell(shard, Mail::Finished(finished));
        }
    }

    /// Answers the tasks whose time is over, and lets go of those that nobody waits for; whether there were any.
    pub fn expire_tasks(&mut self, now: Instant) -> bool {
        let mut acted = self.let_go_of_tasks();
        while let Some(late) = self.tasks.late(now) {
            self.finish_task(late, TaskOutcome::TimedOut);
            acted = true;
        }
        acted
    }

    /// Gives the shards the slots back of tasks that nobody waits for; whether there were any.
    pub fn let_go_of_tasks(&mut self) -> bool {
        let released = self.tasks.let_go().into_iter();
        released.map(|(shard, finished)| self.tell(shard, Mail::Finished(finished))).count() > 0
    }

    /// The batch at this place in [`Self::batches`] is safe, which its shard is told. What was in it.
    pub fn store_batch(&mut self, index: usize) -> Vec<Batch> {
        let (shard, CommitBatch { number, pieces, .. }) = self.batches.remove(index);
        self.tell(shard, Mail::Stored(number));
        pieces
    }

    /// The store that several machines share tells a shard how its batch has ended.
    pub fn settle(&mut self, shard: usize, outcome: Outcome) {
        self.tell(shard, Mail::Settled(outcome));
    }

    /// The same of a session that another node has.
    pub fn take_over(&mut self, shard: usize, takeover: Takeover) {
        self.tell(shard, Mail::TakenOver(takeover));
    }

    fn tell(&mut self, shard: usize, mail: TestMail) {
        if !self.ended[shard] {
            self.answers[shard].push_back(mail);
            self.wakes[shard] = true;
        }
    }

    /// Runs the jobs that have been off-loaded; whether there were any.
    pub fn run_jobs(&mut self) -> bool {
        let has_run = !self.jobs.is_empty();
        while !self.jobs.is_empty() {
            self.run_job(0);
        }
        has_run
    }
}

/// One shard's view of it.
#[derive(Debug)]
pub struct MachineEnvironment {
    shard: usize,
    net: Rc<RefCell<Net>>,
    /// When the turn under way began.
    now: Instant,
}

impl Environment for MachineEnvironment {
    type Stream = Scripted;

    fn accept(&mut self) -> io::Result<Accepted<Scripted>> {
        let mut net = self.net.borrow_mut();
        let fault = net.faults.strike(Call::Accept);
        if net.queues[self.shard].is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(errno) = net.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        match fault {
            Some(Fault::Errno(errno)) => {
                if errno == ECONNABORTED {
                    // That connection is gone: the kernel has taken it out of the queue.
                    net.queues[self.shard].pop_front();
                }
                return Err(io::Error::from_raw_os_error(errno));
            }
            Some(Fault::Later) => {
                net.arrivals[self.shard] = true;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            _ => {}
        }
        let next = net.queues[self.shard].pop_front();
        let accepted = next.map(Accepted::from);
        let mut accepted = accepted.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?;
        if accepted.stream.0.borrow().is_encrypted {
            accepted.tls = net.tls.as_deref().map(TlsAcceptor::session).transpose()?;
        }
        Ok(accepted)
    }

    fn stop_listening(&mut self) {
        self.net.borrow_mut().listening[self.shard] = false;
        self.net.borrow_mut().queues[self.shard].clear();
    }

    fn register(&mut self, stream: &mut Scripted, id: LocalId) -> io::Result<()> {
        if let Some(Fault::Errno(errno)) = self.net.borrow().faults.strike(Call::Register) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        assert!(stream.0.borrow().registered.is_none(), "registered twice");
        stream.0.borrow_mut().register(self.shard, id);
        Ok(())
    }

    fn deregister(&mut self, stream: &mut Scripted) -> io::Result<()> {
        if let Some(Fault::Errno(errno)) = self.net.borrow().faults.strike(Call::Deregister) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let left = stream.0.borrow_mut().registered.take();
        assert_eq!(left.map(|(shard, _)| shard), Some(self.shard));
        Ok(())
    }

    fn send(&mut self, reactor: usize, mail: TestMail) -> Result<(), TestMail> {
        assert_ne!(reactor, self.shard, "mail to oneself");
        let mut net = self.net.borrow_mut();
        let is_struck = net.faults.strike(Call::Send) == Some(Fault::Full);
        if net.ended[reactor] {
            // To nobody: a channel without a receiver drops what is put into it.
            return Ok(());
        }
        if is_struck || net.boxes[reactor].len() >= net.box_capacity {
            net.full_boxes += 1;
            return Err(mail);
        }
        net.boxes[reactor].push_back(mail);
        net.wakes[reactor] = true;
        Ok(())
    }

    fn wake(&mut self, reactor: usize) {
        self.net.borrow_mut().wakes[reactor] = true;
    }

    fn has_room(&self, reactor: usize) -> bool {
        let net = self.net.borrow();
        net.ended[reactor] || net.boxes[reactor].len() < net.box_capacity
    }

    fn receive(&mut self) -> Option<TestMail> {
        let mut net = self.net.borrow_mut();
        let answer = net.answers[self.shard].pop_front();
        answer.or_else(|| net.boxes[self.shard].pop_front())
    }

    fn clock(&mut self) -> Instant {
        // A turn takes no time here.
        self.now
    }

    fn offload(&mut self, job: Job) -> Result<(), Job> {
        let mut net = self.net.borrow_mut();
        if net.faults.strike(Call::Offload).is_some() {
            return Err(job);
        }
        if !net.jobs_wait {
            job.begin();
        }
        net.jobs.push((self.shard, job));
        Ok(())
    }

    fn enqueue(&mut self, order: TaskOrder) -> Result<(), TaskOrder> {
        let mut net = self.net.borrow_mut();
        if net.faults.strike(Call::Enqueue).is_some() {
            return Err(order);
        }
        net.tasks.hold(self.shard, order, self.now);
        Ok(())
    }

    fn commit(&mut self, batch: CommitBatch) {
        let mut net = self.net.borrow_mut();
        let is_under_way = |(shard, _): &&(usize, CommitBatch)| *shard == self.shard;
        let under_way = net.batches.iter().filter(is_under_way).count();
        // The second is the one with which the shard ends.
        assert!(under_way < 2, "three are under way");
        net.batches.push((self.shard, batch));
    }

    fn wall_clock_ms(&mut self) -> u64 {
        self.net.borrow().wall_clock_ms(self.now)
    }

    fn random(&mut self, room: &mut [u8]) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        if let Some(Fault::Errno(errno)) = net.faults.strike(Call::Random) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        room.fill_with(|| {
            // splitmix64 (<https://prng.di.unimi.it/splitmix64.c>): a seed decides everything.
            net.random = net.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = net.random;
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) as u8
        });
        Ok(())
    }
}

struct Station<A: Application> {
    shard: Shard<A, MachineEnvironment>,
    environment: MachineEnvironment,
    /// When its poll returns without an event.
    wakes_at: Option<Instant>,
    /// When its last turn ended.
    asleep_since: Instant,
    /// The wires that have an edge for it, in the order of the edges.
    ready: VecDeque<usize>,
    ended: bool,
}

/// Looks at a machine, at the shard of it that has turned, and at what had been written before.
pub type AfterTurn<A> = Rc<dyn Fn(&Machine<A>, usize, Written)>;

/// The shards, and all that is outside of them but the clients.
pub struct Machine<A: Application> {
    /// What time it is. Passes when it is changed, and never otherwise.
    pub now: Instant,
    /// What is between the shards and the clients.
    pub net: Rc<RefCell<Net>>,
    /// What the shards count.
    pub status: Arc<ServerStatus>,
    stations: Vec<Station<A>>,
    /// The way in for other threads.
    pub remote: Remote<A>,
    /// Where each shard waits for the sessions that were stored.
    restore: Vec<InboxSender<Vec<Recovered>>>,
    /// To which shards something was posted since their last turn.
    posted: Arc<[AtomicBool]>,
    wires: Vec<Rc<RefCell<Wire>>>,
    events_per_poll: usize,
    is_limited: bool,
    /// Turns so far.
    pub turns: u64,
    /// Looks at each turn once it is over.
    pub after_turn: Option<AfterTurn<A>>,
}

impl<A: Application> Machine<A> {
    /// Shards with an application each, and mailboxes of `box_capacity`; their randomness begins
    /// with `random`.
    pub fn new(
        config: &Arc<Config>,
        box_capacity: usize,
        random: u64,
        faults: Faults,
        make: impl Fn(ReactorStart<A>) -> A,
    ) -> Machine<A> {
        let network = (box_capacity, Storing::Nothing);
        Machine::storing(config, network, random, faults, make)
    }

    /// The same, with a store: no shard has its sessions before [`Self::recover`] was called; unless several machines
    /// share it.
    pub fn storing(
        config: &Arc<Config>,
        (box_capacity, storing): (usize, Storing),
        random: u64,
        faults: Faults,
        make: impl Fn(ReactorStart<A>) -> A,
    ) -> Machine<A> {
        let workers = config.workers.get();
        let status = Arc::new(ServerStatus::new(workers, Rejection::LABELS, Arc::default()));
        let now = Instant::now();
        let net = Net::new(workers, box_capacity, now, faults);
        let net = Net { figures: status.pool().clone(), random, ..net };
        let net = Rc::new(RefCell::new(net));
        let posted: Arc<[AtomicBool]> = (0..workers).map(|_| AtomicBool::new(false)).collect();
        let wakes = (0..workers).map(|number| -> Wake {
            let posted = posted.clone();
            Box::new(move || posted[number].store(true, Ordering::Release))
        });
        let (remote, posts) = Remote::new(box_capacity, wakes);
        let mut restore = Vec::new();
        let is_recovered = !matches!(storing, Storing::Nothing | Storing::Shared);
        if is_recovered {
            status.expect_sessions();
        }
        let station = |(number, posts)| {
            let (config, status) = (config.clone(), status.clone());
            let application = make(ReactorStart { reactor: number, remote: remote.clone() });
            let recovered = is_recovered.then(|| {
                let (sender, recovered) = inbox(1);
                restore.push(sender);
                recovered
            });
            let remote = remote.clone();
            let hosted = Hosted { application, posts, remote, storing, recovered };
            let shard = Shard::start(number, config, status, hosted, now);
            let shard = shard.unwrap_or_else(|_| panic!("`on_start` of reactor {number} panicked"));
            let wakes_at = shard.timeout(now).map(|sleep| now + sleep);
            let environment = MachineEnvironment { shard: number, net: net.clone(), now };
            Station {
                shard,
                environment,
                wakes_at,
                asleep_since: now,
                ready: VecDeque::new(),
                ended: false,
            }
        };
        let stations = posts.into_iter().enumerate().map(station).collect();
        Machine {
            now,
            net,
            status,
            stations,
            remote,
            restore,
            posted,
            wires: Vec::new(),
            events_per_poll: config.limits.events_per_poll,
            is_limited: config.limit_concurrency.is_some(),
            turns: 0,
            after_turn: None,
        }
    }

    /// The store was read: each shard is given the sessions that it owns.
    ///
    /// # Panics
    ///
    /// If that was done before.
    pub fn recover(&mut self, sessions: Vec<Recovered>) {
        let shares = by_owner(sessions, self.restore.len().max(1));
        for (at, (share, sender)) in shares.into_iter().zip(self.restore.drain(..)).enumerate() {
            assert!(sender.send(share).is_ok(), "a start has sessions once");
            self.net.borrow_mut().wakes[at] = true;
        }
    }

    /// The shards.
    pub fn shards(&self) -> impl Iterator<Item = &Shard<A, MachineEnvironment>> {
        self.stations.iter().map(|station| &station.shard)
    }

    /// How many shards there are: one at least.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// The application of a shard.
    pub fn application_mut(&mut self, at: usize) -> &mut A {
        self.stations[at].shard.application_mut()
    }

    /// A client connects to a shard's listener.
    pub fn connect(&mut self, at: usize, wire: &Rc<RefCell<Wire>>, peer: impl Into<Peer>) {
        let mut net = self.net.borrow_mut();
        wire.borrow_mut().faults = net.faults.clone();
        net.queues[at].push_back((Scripted(wire.clone()), peer.into()));
        net.arrivals[at] = true;
        self.wires.push(wire.clone());
    }

    /// Gives a shard its turn, if a poll would return: for an event, or because its time is up.
    pub fn turn_if_woken(&mut self, at: usize) -> bool {
        let station = &mut self.stations[at];
        if station.ended {
            return false;
        }
        let is_due = station.wakes_at.is_some_and(|when| when <= self.now);
        // A timer that has ended a sleep takes a place in the poll's list, as the listener and the waker do.
        let mut others = usize::from(is_due && station.asleep_since < self.now);
        let mut net = self.net.borrow_mut();
        if std::mem::take(&mut net.arrivals[at]) && net.listening[at] {
            station.shard.note_listener();
            others += 1;
        }
        if std::mem::take(&mut net.wakes[at]) | self.posted[at].swap(false, Ordering::Acquire) {
            station.shard.note_mail();
            others += 1;
        }
        drop(net);
        // As epoll does: so many at the most, in the order in which they became ready.
        let has_edge = |wire: &Rc<RefCell<Wire>>| {
            let wire = wire.borrow();
            wire.edge.any() && wire.registered.is_some_and(|(shard, _)| shard == at)
        };
        station.ready.retain(|&index| has_edge(&self.wires[index]));
        for (index, wire) in self.wires.iter().enumerate() {
            if has_edge(wire) && !station.ready.contains(&index) {
                station.ready.push_back(index);
            }
        }
        let places = self.events_per_poll.saturating_sub(others);
        let edges = station.ready.len().min(places);
        for index in station.ready.drain(..edges) {
            let mut wire = self.wires[index].borrow_mut();
            if let Some((_, id)) = wire.registered {
                station.shard.note_connection(id, wire.take_edge());
            }
        }
        if edges == 0 && others == 0 && !is_due {
            return false;
        }
        match edges < places {
            true => station.shard.note_whole_poll(),
            false => station.shard.note_full_poll(edges),
        }
        let before = self.wires.iter().map(|wire| wire.borrow().written).sum();
        self.status.reactor(at).turn(0);
        station.environment.now = self.now;
        station.shard.turn(self.now, &mut station.environment);
        station.shard.tell_turn(station.asleep_since, self.now, self.now);
        station.asleep_since = self.now;
        self.turns += 1;
        if station.shard.outcome().is_some() {
            station.ended = true;
            self.net.borrow_mut().ended[at] = true;
            // The receiver goes with its reactor, and what it had not read with it: when nobody borrows the net.
            let _unread = take(&mut self.net.borrow_mut().boxes[at]);
            let _answers = take(&mut self.net.borrow_mut().answers[at]);
        }
        station.wakes_at = station.shard.timeout(self.now).map(|sleep| self.now + sleep);
        if !station.ended {
            station.shard.invariants();
        }
        let held = self.status.reactor(at).connections.get();
        let watched = |wire: &&Rc<RefCell<Wire>>| {
            wire.borrow().registered.is_some_and(|(shard, _)| shard == at)
        };
        assert_eq!(self.wires.iter().filter(watched).count() as u64, held, "slab = registrations");
        self.check_places();
        if let Some(look) = self.after_turn.clone() {
            look(self, at, before);
        }
        true
    }

    /// What has been written to all sockets so far.
    #[must_use]
    pub fn written(&self) -> Written {
        self.wires.iter().map(|wire| wire.borrow().written).sum()
    }

    /// When the next shard wants a turn even if nothing happens.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Instant> {
        let running = self.stations.iter().filter(|station| !station.ended);
        running.filter_map(|station| station.wakes_at).min()
    }

    /// Lets the clients act and gives turns, until neither has anything to do without time passing.
    /// `act` lets each client do what it can, and jobs be done; it says whether any did, or was.
    ///
    /// # Panics
    ///
    /// If that never comes.
    pub fn quiet(&mut self, mut act: impl FnMut() -> bool) {
        for _ in 0..20_000 {
            let mut acted = act();
            for at in 0..self.stations.len() {
                acted |= self.turn_if_woken(at);
            }
            if !acted {
                // A shard that tries a full mailbox again in a millisecond is quiet, not at rest.
                if !self.retries_soon() {
                    return;
                }
                self.now += Duration::from_millis(1);
            }
        }
        panic!("the machine does not come to rest");
    }

    fn retries_soon(&self) -> bool {
        self.wakes_at().is_some_and(|at| at <= self.now + Duration::from_millis(2))
    }

    /// Everything ends where it stands, as at a power loss: nothing is said, and no callback is called. What the store
    /// has not taken is lost.
    pub fn crash(&mut self) {
        self.stations.clear();
        let mut net = self.net.borrow_mut();
        net.queues.iter_mut().for_each(VecDeque::clear);
        net.boxes.iter_mut().for_each(VecDeque::clear);
        net.jobs.clear();
        net.tasks = HeldTasks::default();
        net.batches.clear();
    }

    /// Tells every shard to go away.
    pub fn shut_down(&mut self) {
        self.status.begin_drain(self.now);
        self.wake_all();
    }

    /// Wakes every shard, so that it looks at what all share.
    pub fn wake_all(&self) {
        self.net.borrow_mut().wakes.fill(true);
    }

    /// Whether every shard has gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.stations.iter().all(|station| station.ended)
    }

    /// The sum of one cell over all shards.
    pub fn sum(&self, cell: impl Fn(&ReactorMetrics) -> u64) -> u64 {
        (0..self.stations.len()).map(|at| cell(self.status.reactor(at))).sum()
    }
}

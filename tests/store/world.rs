//! A server's use of a store, by a seed: batches, syncs, jobs, faults, crashes and starts, against the model.

use std::sync::{Arc, Mutex, MutexGuard};

use revolve::session::SessionId;
use revolve::store::disk::Disk;
use revolve::store::replay::{Layout, Replay};
use revolve::store::{
    Batch, BatchLimits, Change, FileStore, OpenError, Opening, Options, Presence, Record, State,
    Store, StoreError,
};
use revolve::testing::faults::{EINTR, EIO, ENOSPC};
use revolve::testing::simulated_disk::{Blow, SimulatedDisk};

use super::chance::Chance;
use super::model::{Model, Sent};

/// Small, so that a few batches fill a segment, and a few sessions the memory of a compaction.
pub const OPTIONS: Options = Options {
    segment_bytes: 4096,
    batch: BatchLimits { batch_bytes: 1024, state_bytes: 200 },
    ttl_ms: u64::MAX,
    compaction_bytes: 1500,
};

const FIRST_MS: u64 = 1_800_000_000_000;

/// What a run has met.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    pub batches: u64,
    pub starts: u64,
    pub torn: u64,
    pub lost_batches: u64,
    pub compactions: u64,
    pub failed_compactions: u64,
    pub appends_while_compacting: u64,
    pub failed_calls: u64,
    pub crashed_starts: u64,
    pub crashed_compactions: u64,
    pub expired: u64,
    pub recovered: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.batches += other.batches;
        self.starts += other.starts;
        self.torn += other.torn;
        self.lost_batches += other.lost_batches;
        self.compactions += other.compactions;
        self.failed_compactions += other.failed_compactions;
        self.appends_while_compacting += other.appends_while_compacting;
        self.failed_calls += other.failed_calls;
        self.crashed_starts += other.crashed_starts;
        self.crashed_compactions += other.crashed_compactions;
        self.expired += other.expired;
        self.recovered += other.recovered;
    }

    pub fn assert_rich(&self) {
        let Totals { batches, starts, torn, lost_batches, compactions, .. } = *self;
        assert!(batches > 10_000 && starts > 3_000, "{self:?}");
        assert!(torn > 200 && lost_batches > 500 && compactions > 500, "{self:?}");
        assert!(self.failed_compactions > 50 && self.appends_while_compacting > 200, "{self:?}");
        assert!(self.failed_calls > 100 && self.crashed_starts > 200, "{self:?}");
        assert!(self.crashed_compactions > 50 && self.expired > 100, "{self:?}");
        assert!(self.recovered > 5_000, "{self:?}");
    }
}

/// The store, and what was asked of it. Shared, because an append can come in the middle of a compaction.
pub struct Server<D: Disk> {
    store: Option<FileStore<D>>,
    pub model: Model,
    chance: Chance,
    count: u64,
    generation: u64,
    pub now_ms: u64,
    pub totals: Totals,
}

impl<D: Disk> Server<D> {
    fn change(&mut self) -> Change {
        let name = format!("s{}", self.chance.within(0, 11));
        let id = SessionId::parse(&name).expect("a name");
        if self.chance.percent(12) {
            let generation = self.generation - self.chance.within(0, 1) as u64;
            return Change::Forget { id, generation };
        }
        if self.chance.percent(10) {
            self.generation += 1;
        }
        self.count += 1;
        let length = self.chance.pick(&[0, 7, 30, 200]);
        let state = self.chance.percent(50).then(|| State {
            version: self.chance.within(0, 300) as u32,
            bytes: (0..length).map(|_| self.chance.next() as u8).collect(),
        });
        let presence = match self.chance.percent(40) {
            true => Presence::Attached,
            false => Presence::Left { at_ms: self.now_ms - self.chance.within(0, 2) as u64 },
        };
        Change::Save(Record { id, generation: self.generation, count: self.count, state, presence })
    }

    /// Appends a batch; whether the store took it.
    pub fn append(&mut self) -> Result<(), StoreError> {
        let Some(mut store) = self.store.take() else { return Ok(()) };
        let mut batch = Batch::new(OPTIONS.batch);
        let mut changes = Vec::new();
        for _ in 0..self.chance.within(1, 4) {
            let change = self.change();
            if batch.push(&change).is_ok() {
                changes.push(change);
            }
        }
        self.model.send(Sent { at_ms: self.now_ms, is_start: false, changes });
        let appended = store.append(&mut batch, self.now_ms);
        if let Ok(sequence) = &appended {
            assert_eq!(*sequence, self.model.sent.len() as u64);
            self.totals.batches += 1;
        }
        self.store = Some(store);
        appended.map(|_| ())
    }

    pub fn sync(&mut self) -> Result<(), StoreError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let through = store.sync()?;
        assert_eq!(through, self.model.sent.len() as u64);
        self.model.acknowledge(through);
        Ok(())
    }

    pub fn store(&mut self) -> Option<&mut FileStore<D>> {
        self.store.as_mut()
    }
}

/// A disk under a server. `wrap` may put something between them.
pub struct World<D: Disk> {
    pub disk: SimulatedDisk,
    wrap: fn(SimulatedDisk) -> D,
    server: Arc<Mutex<Server<D>>>,
    chance: Chance,
    options: Options,
    /// Whether the clock may be set back.
    jumps: bool,
    /// Whether all failures are planned, and none is left to chance.
    is_planned: bool,
}

impl<D: Disk + 'static> World<D>
where
    D::File: 'static,
    D::Lock: 'static,
{
    pub fn new(seed: u64, wrap: fn(SimulatedDisk) -> D) -> Self {
        let mut chance = Chance(seed);
        // One in three has sessions that expire, and a clock that can be relied on; the others have a clock that jumps.
        let expires = seed.is_multiple_of(3);
        let options = Options { ttl_ms: if expires { 400 } else { u64::MAX }, ..OPTIONS };
        let server = Server {
            store: None,
            model: Model::default(),
            chance: Chance(chance.next()),
            count: 0,
            generation: 1,
            now_ms: FIRST_MS,
            totals: Totals::default(),
        };
        let disk = SimulatedDisk::new(chance.next());
        let server = Arc::new(Mutex::new(server));
        World { disk, wrap, server, chance, options, jumps: !expires, is_planned: false }
    }

    /// A life in which nothing fails but the calls with these numbers.
    pub fn planned(seed: u64, blows: &[(u64, Blow)], wrap: fn(SimulatedDisk) -> D) -> Self {
        let world = World { is_planned: true, ..World::new(seed, wrap) };
        blows.iter().for_each(|(call, blow)| world.disk.strike(*call, *blow));
        world
    }

    fn calm(&self) {
        if !self.is_planned {
            self.disk.calm();
        }
    }

    pub fn server(&self) -> MutexGuard<'_, Server<D>> {
        self.server.lock().expect("no test has panicked")
    }

    fn pass_time(&mut self) {
        let jumps = self.jumps && self.chance.percent(5);
        let mut server = self.server.lock().expect("no test has panicked");
        server.now_ms += self.chance.within(0, 20) as u64;
        if jumps {
            server.now_ms = FIRST_MS + self.chance.within(0, 5_000) as u64;
        }
    }

    /// Starts the server; a start may be interrupted, and is tried again then.
    pub fn start(&mut self) {
        loop {
            self.pass_time();
            self.disk = self.disk.restarted();
            self.probe();
            if self.chance.percent(25) && !self.is_planned {
                let blow = self.chance.pick(&[Blow::PowerLoss, Blow::Kill, Blow::Errno(EIO)]);
                self.strike_within(30, blow);
            }
            match self.open() {
                Ok(()) => return,
                Err(OpenError::Failed(_)) => {
                    self.server().totals.crashed_starts += 1;
                }
                Err(other) => panic!("{other}"),
            }
            self.end();
        }
    }

    /// Looks how far the log goes, before anything is done about it.
    fn probe(&mut self) {
        let disk = (self.wrap)(self.disk.onlooker());
        let layout = Layout::read(&disk).expect("a directory can be listed");
        let replay = Replay::read(&disk, layout).unwrap_or_else(|error| panic!("{error}"));
        assert!(replay.damage.is_none(), "{}", replay.damage.expect("it is there"));
        let mut server = self.server();
        let lost = server.model.sent.len() as u64 + 1 - replay.next_sequence;
        server.totals.torn += u64::from(replay.torn_end.is_some());
        server.totals.lost_batches += lost;
        server.model.cut(replay.next_sequence - 1);
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let options = self.options;
        let now_ms = self.server().now_ms;
        let before = self.server().model.sent.len() as u64;
        self.server().model.send(Sent { at_ms: now_ms, is_start: true, changes: Vec::new() });
        let opening = Opening { options, now_ms, repair: false };
        let opened = FileStore::open((self.wrap)(self.disk.clone()), opening);
        let (store, recovery) = opened?;
        let mut server = self.server();
        assert_eq!(recovery.report.last_sequence, before);
        let start = server.model.sent.pop().expect("it was sent");
        server.model.check(&recovery, now_ms, options.ttl_ms);
        server.model.send(start);
        server.model.acknowledge(before + 1);
        server.totals.starts += 1;
        server.totals.expired += recovery.report.expired;
        server.totals.recovered += recovery.report.sessions;
        server.store = Some(store);
        Ok(())
    }

    /// Ends the process, if it has not ended; with or without the power.
    pub fn end(&mut self) {
        self.calm();
        if !self.disk.is_down() {
            if self.chance.percent(50) { self.disk.crash() } else { self.disk.kill() }
        }
        let store = self.server().store.take();
        drop(store);
    }

    fn strike_within(&mut self, calls: usize, blow: Blow) {
        let nth = self.disk.calls() + self.chance.within(0, calls) as u64;
        self.disk.strike(nth, blow);
    }

    /// A step of a server's life.
    pub fn step(&mut self) {
        self.pass_time();
        let (calls, faults) = (
            self.disk.calls(),
            [
                Blow::Errno(EIO),
                Blow::Errno(ENOSPC),
                Blow::Errno(EINTR),
                Blow::Short,
                Blow::PowerLoss,
                Blow::Kill,
            ],
        );
        if self.chance.percent(8) && !self.is_planned {
            let blow = self.chance.pick(&faults);
            self.strike_within(8, blow);
        }
        let outcome = match self.chance.within(0, 99) {
            0..=54 => self.server().append(),
            55..=84 => self.server().sync(),
            85..=90 => self.preallocate(),
            91..=97 => {
                let is_struck = self.chance.percent(30) && !self.is_planned;
                let blow = is_struck.then(|| self.chance.pick(&faults));
                self.compact(blow)
            }
            98 => self.close(),
            _ => {
                self.end();
                Ok(())
            }
        };
        assert!(self.disk.calls() >= calls);
        match outcome {
            Err(StoreError::Failed(_)) => {
                self.server().totals.failed_calls += 1;
                self.expect_poisoned();
                self.end();
            }
            Err(other) => panic!("{other}"),
            Ok(()) if self.disk.is_down() => self.end(),
            Ok(()) => {}
        }
        if self.server().store.is_none() {
            self.start();
        }
    }

    /// After a failure nothing is tried any more.
    fn expect_poisoned(&mut self) {
        let calls = self.disk.calls();
        let mut server = self.server();
        let sent = server.model.sent.len();
        let refused = server.append();
        server.model.sent.truncate(sent);
        if server.store.is_some() {
            assert!(matches!(refused, Err(StoreError::Poisoned(_))), "{refused:?}");
            assert!(matches!(server.sync(), Err(StoreError::Poisoned(_))));
        }
        assert_eq!(self.disk.calls(), calls, "something was tried after a failure");
    }

    fn preallocate(&mut self) -> Result<(), StoreError> {
        let job = self.server().store().and_then(FileStore::preallocation);
        // One in five is lost, as if its thread had never been started; the log does without.
        if let Some(job) = job
            && self.chance.percent(80)
            && let Err(failure) = job.run()
            && !self.disk.is_down()
        {
            // The log does not depend on it.
            assert!(failure.error.raw_os_error().is_some(), "{failure}");
        }
        Ok(())
    }

    /// Compacts, with appends in the middle, and a failure if that is wanted.
    fn compact(&mut self, blow: Option<Blow>) -> Result<(), StoreError> {
        let now_ms = self.server().now_ms;
        let Some(job) = self.server().store().and_then(|store| store.compaction(now_ms)) else {
            return Ok(());
        };
        let second = self.server().store().and_then(|store| store.compaction(now_ms));
        assert!(second.is_none(), "two compactions at a time");
        for _ in 0..self.chance.within(0, 3) {
            let server = self.server.clone();
            self.disk.before(self.disk.calls() + self.chance.within(0, 60) as u64, move || {
                // One append does not come in the middle of another.
                let Ok(mut server) = server.try_lock() else { return };
                server.totals.appends_while_compacting += 1;
                // What fails here is met again by the next step: the store is poisoned.
                let _ = server.append().and_then(|()| server.sync());
            });
        }
        if let Some(blow) = blow {
            self.strike_within(80, blow);
        }
        let compacted = job.run();
        self.disk.unhook();
        self.calm();
        let is_down = self.disk.is_down();
        let mut server = self.server();
        match compacted {
            Ok(_) => server.totals.compactions += 1,
            Err(error) if is_down => {
                assert!(matches!(error, StoreError::Failed(_)), "{error}");
                server.totals.crashed_compactions += 1;
            }
            Err(StoreError::Failed(_)) => server.totals.failed_compactions += 1,
            Err(other) => panic!("{other}"),
        }
        // An append in the middle may have been the one that was struck.
        if is_down { Ok(()) } else { server.sync_or_failed() }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let now_ms = self.server().now_ms;
        let Some(store) = self.server().store.take() else { return Ok(()) };
        self.server().model.send(Sent { at_ms: now_ms, is_start: false, changes: Vec::new() });
        if store.close(now_ms).is_ok() {
            let mut server = self.server();
            let sent = server.model.sent.len() as u64;
            server.model.acknowledge(sent);
        }
        self.end();
        Ok(())
    }

    /// Runs all jobs until none is offered; then the log has the size that it may have.
    pub fn settle(&mut self) {
        self.disk.calm();
        let now_ms = self.server().now_ms;
        // After a failure the next compaction is offered when another segment is full; so fill some.
        for _ in 0..100 {
            let mut server = self.server();
            server.append().and_then(|()| server.sync()).unwrap_or_else(|error| panic!("{error}"));
            let job = server.store().and_then(|store| store.compaction(now_ms));
            drop(server);
            if let Some(job) = job {
                job.run().unwrap_or_else(|error| panic!("{error}"));
            }
        }
        let job = self.server().store().and_then(FileStore::preallocation);
        if let Some(job) = job {
            job.run().unwrap_or_else(|error| panic!("{error}"));
        }
        let figures = self.server().store().map(FileStore::figures).unwrap_or_default();
        let segments = 7 * OPTIONS.segment_bytes;
        let most = 3 * figures.live_bytes + segments;
        let used = self.disk.used();
        assert!(used <= most, "{used} bytes on the disk, {most} at most: {figures:?}");
    }
}

impl<D: Disk> Server<D> {
    /// A failure that came while a job ran shows now.
    fn sync_or_failed(&mut self) -> Result<(), StoreError> {
        match self.sync() {
            Err(StoreError::Poisoned(failure)) => Err(StoreError::Failed(failure)),
            other => other,
        }
    }
}

/// A life of so many steps.
pub fn run<D: Disk + 'static>(seed: u64, steps: usize, wrap: fn(SimulatedDisk) -> D) -> Totals
where
    D::File: 'static,
    D::Lock: 'static,
{
    let mut world = World::new(seed, wrap);
    world.start();
    for _ in 0..steps {
        world.step();
    }
    world.settle();
    world.end();
    world.start();
    world.server().totals.clone()
}

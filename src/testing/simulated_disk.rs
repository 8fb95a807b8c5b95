//! A disk in memory that loses power: what was not synced is there afterwards, or not, sector by sector.
//!
//! It has one directory. A handle belongs to a run: after [`SimulatedDisk::crash`] or [`SimulatedDisk::kill`] the old
//! handles fail, as a dead process calls nothing, and [`SimulatedDisk::restarted`] gives new ones. Every call is counted;
//! any can fail, or be the one at which the power goes. A seed decides what is lost, so a run can be repeated.
//!
//! Harsher than most file systems: operations on the directory are lost each for itself, in no order; of a sector that
//! was written several times any version may be found; a file that is being made longer may have any of its lengths.
//! After a sync that failed, what it should have written is in the cache and counts as clean, as on Linux.
//!
//! Next: `main.rs`, the program around it all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::faults::{EIO, ENOSPC};
use crate::store::disk::{Disk, DiskFile};

/// What is written whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// How a call ends that is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// With this errno, having done nothing; a sync or a write may have done a part.
    Errno(i32),
    /// A read or a write does a part. Others are not struck.
    Short,
    /// The power goes while it is under way.
    PowerLoss,
    /// The process is killed when it is done.
    Kill,
}

/// What the disk does not do, although it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It is honest.
    None,
    /// Syncing data.
    SyncData,
    /// Syncing the directory.
    SyncDirectory,
}

/// A disk; clones are the same one, of the same run.
#[derive(Clone)]
pub struct SimulatedDisk {
    world: Arc<Mutex<World>>,
    run: u64,
    is_onlooker: bool,
}

type Hook = Box<dyn FnOnce() + Send>;

struct World {
    chance: u64,
    run: u64,
    is_down: bool,
    is_locked: bool,
    inodes: Vec<Inode>,
    /// As programs see it.
    names: BTreeMap<String, usize>,
    /// As it is on the disk.
    durable_names: BTreeMap<String, usize>,
    pending: Vec<DirectoryChange>,
    calls: u64,
    blows: BTreeMap<u64, Blow>,
    hooks: BTreeMap<u64, Hook>,
    capacity: u64,
    lie: Lie,
}

#[derive(Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// What each sector was since the last sync, oldest first.
    versions: BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>>,
    /// What the length was since then.
    lengths: Vec<usize>,
}

enum DirectoryChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String, usize),
}

impl Inode {
    fn note(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            let sector_bytes = sector_of(&self.data, sector);
            self.versions.entry(sector).or_default().push(sector_bytes);
        }
        self.lengths.push(self.data.len());
    }

    fn make_durable(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.versions) {
            if let Some(last) = versions.last() {
                put_sector(&mut self.durable, sector, last);
            }
        }
        self.durable.resize(self.data.len(), 0);
        self.lengths.clear();
    }
}

fn sector_of(data: &[u8], sector: usize) -> [u8; SECTOR_BYTES] {
    let mut bytes = [0; SECTOR_BYTES];
    let begin = (sector * SECTOR_BYTES).min(data.len());
    let end = (begin + SECTOR_BYTES).min(data.len());
    bytes[..end - begin].copy_from_slice(&data[begin..end]);
    bytes
}

fn put_sector(data: &mut Vec<u8>, sector: usize, bytes: &[u8; SECTOR_BYTES]) {
    let begin = sector * SECTOR_BYTES;
    if data.len() < begin + SECTOR_BYTES {
        data.resize(begin + SECTOR_BYTES, 0);
    }
    data[begin..begin + SECTOR_BYTES].copy_from_slice(bytes);
}

impl World {
    /// splitmix64
    fn chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_of(&mut self, count: usize) -> usize {
        (self.chance() % count.max(1) as u64) as usize
    }

    /// Of the sectors of a file that were not synced, each becomes one of what it was.
    fn settle(&mut self, place: usize, keeps_cache: bool) {
        let versions = std::mem::take(&mut self.inodes[place].versions);
        for (sector, versions) in versions {
            let which = self.one_of(versions.len() + 1);
            // The first is what was there before.
            if let Some(version) = which.checked_sub(1).and_then(|which| versions.get(which)) {
                put_sector(&mut self.inodes[place].durable, sector, version);
            }
        }
        let lengths = std::mem::take(&mut self.inodes[place].lengths);
        let which = self.one_of(lengths.len() + 1);
        if let Some(length) = which.checked_sub(1).and_then(|which| lengths.get(which)) {
            self.inodes[place].durable.resize(*length, 0);
        }
        if !keeps_cache {
            let durable = self.inodes[place].durable.clone();
            self.inodes[place].data = durable;
        }
    }

    fn settle_names(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            if self.chance().is_multiple_of(2) {
                apply(&mut self.durable_names, change);
            }
        }
    }

    fn lose_power(&mut self) {
        for place in 0..self.inodes.len() {
            self.settle(place, false);
        }
        self.settle_names();
        self.names = self.durable_names.clone();
        self.stop();
    }

    fn stop(&mut self) {
        self.is_down = true;
        self.is_locked = false;
        self.hooks.clear();
    }

    fn used(&self) -> u64 {
        let linked: BTreeSet<_> = self.names.values().collect();
        linked.iter().map(|place| self.inodes[**place].data.len() as u64).sum()
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: DirectoryChange) {
    match change {
        DirectoryChange::Create(name, place) => drop(names.insert(name, place)),
        DirectoryChange::Rename(from, to, place) => {
            if names.get(&from) == Some(&place) {
                names.remove(&from);
            }
            names.insert(to, place);
        }
        DirectoryChange::Remove(name, place) => {
            if names.get(&name) == Some(&place) {
                names.remove(&name);
            }
        }
    }
}

/// What is left of a call that was counted.
struct Turn<'a> {
    world: MutexGuard<'a, World>,
    blow: Option<Blow>,
}

impl Turn<'_> {
    /// Ends the call: as its blow says, or as it went.
    fn end<T>(mut self, outcome: io::Result<T>) -> io::Result<T> {
        match self.blow {
            Some(Blow::PowerLoss) => self.world.lose_power(),
            Some(Blow::Kill) => self.world.stop(),
            Some(Blow::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Blow::Short) | None => return outcome,
        }
        Err(gone())
    }

    fn is_refused(&self) -> bool {
        matches!(self.blow, Some(Blow::Errno(_)))
    }
}

fn gone() -> io::Error {
    io::Error::other("the process is gone")
}

impl SimulatedDisk {
    /// An empty directory. `seed` decides what gets lost.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = World {
            chance: seed,
            run: 0,
            is_down: false,
            is_locked: false,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            calls: 0,
            blows: BTreeMap::new(),
            hooks: BTreeMap::new(),
            capacity: u64::MAX,
            lie: Lie::None,
        };
        SimulatedDisk { world: Arc::new(Mutex::new(world)), run: 0, is_onlooker: false }
    }

    /// From here on it does not do something that it says it does.
    pub fn lie(&self, lie: Lie) {
        self.world().lie = lie;
    }

    /// From here on there is room for so many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = bytes;
    }

    /// Calls so far, over all runs.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// The call of this number is struck.
    pub fn strike(&self, call: u64, blow: Blow) {
        self.world().blows.insert(call, blow);
    }

    /// Before the call of this number, `hook` is run. It may use the disk.
    pub fn before(&self, call: u64, hook: impl FnOnce() + Send + 'static) {
        self.world().hooks.insert(call, Box::new(hook));
    }

    /// No call is struck any more.
    pub fn calm(&self) {
        self.world().blows.clear();
    }

    /// No hook is run any more.
    pub fn unhook(&self) {
        self.world().hooks.clear();
    }

    /// Whether the power went, or the process was killed.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.world().is_down
    }

    /// The power goes.
    pub fn crash(&self) {
        self.world().lose_power();
    }

    /// The process ends; what it has written stays in the cache.
    pub fn kill(&self) {
        self.world().stop();
    }

    /// The disk for the next run.
    #[must_use]
    pub fn restarted(&self) -> SimulatedDisk {
        let mut world = self.world();
        world.is_down = false;
        world.is_locked = false;
        world.run += 1;
        SimulatedDisk { world: self.world.clone(), run: world.run, is_onlooker: false }
    }

    /// The same disk for somebody whose calls are not counted, and do not fail.
    #[must_use]
    pub fn onlooker(&self) -> SimulatedDisk {
        SimulatedDisk { is_onlooker: true, ..self.clone() }
    }

    /// Names and contents of all files.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.world();
        let files = world.names.iter();
        files.map(|(name, place)| (name.clone(), world.inodes[*place].data.clone())).collect()
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut world = self.world();
        let (data, durable) = (content.to_vec(), content.to_vec());
        world.inodes.push(Inode { data, durable, ..Inode::default() });
        let place = world.inodes.len() - 1;
        world.names.insert(name.to_owned(), place);
        world.durable_names.insert(name.to_owned(), place);
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.world().used()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> io::Result<Turn<'_>> {
        let mut world = self.world();
        if self.is_onlooker {
            return Ok(Turn { world, blow: None });
        }
        let number = world.calls;
        if let Some(hook) = world.hooks.remove(&number) {
            drop(world);
            hook();
            world = self.world();
        }
        if world.is_down || world.run != self.run {
            return Err(gone());
        }
        let number = world.calls;
        world.calls += 1;
        let blow = world.blows.remove(&number);
        Ok(Turn { world, blow })
    }

    fn file(&self, name: &str) -> io::Result<SimulatedFile> {
        let turn = self.turn()?;
        let place = turn.world.names.get(name).copied();
        let opened = place.ok_or(ErrorKind::NotFound.into());
        let place = turn.end(opened)?;
        Ok(SimulatedFile { disk: self.clone(), place })
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;
    type Lock = SimulatedLock;

    fn list(&self) -> io::Result<Vec<String>> {
        let turn = self.turn()?;
        let names = turn.world.names.keys().cloned().collect();
        turn.end(Ok(names))
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let mut turn = self.turn()?;
        if turn.world.names.contains_key(name) {
            return turn.end(Err(ErrorKind::AlreadyExists.into()));
        }
        let place = turn.world.inodes.len();
        if !turn.is_refused() {
            turn.world.inodes.push(Inode::default());
            turn.world.names.insert(name.to_owned(), place);
            turn.world.pending.push(DirectoryChange::Create(name.to_owned(), place));
        }
        turn.end(Ok(()))?;
        Ok(SimulatedFile { disk: self.clone(), place })
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        self.file(name)
    }

    fn open_to_read(&self, name: &str) -> io::Result<SimulatedFile> {
        self.file(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut turn = self.turn()?;
        let Some(place) = turn.world.names.get(from).copied() else {
            return turn.end(Err(ErrorKind::NotFound.into()));
        };
        if !turn.is_refused() {
            let rename = || DirectoryChange::Rename(from.to_owned(), to.to_owned(), place);
            apply(&mut turn.world.names, rename());
            turn.world.pending.push(rename());
        }
        turn.end(Ok(()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut turn = self.turn()?;
        let Some(place) = turn.world.names.get(name).copied() else {
            return turn.end(Err(ErrorKind::NotFound.into()));
        };
        if !turn.is_refused() {
            turn.world.names.remove(name);
            turn.world.pending.push(DirectoryChange::Remove(name.to_owned(), place));
        }
        turn.end(Ok(()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut turn = self.turn()?;
        if turn.blow.is_none() && turn.world.lie != Lie::SyncDirectory {
            turn.world.durable_names = turn.world.names.clone();
            turn.world.pending.clear();
        }
        turn.end(Ok(()))
    }

    fn lock(&self, name: &str) -> io::Result<Option<SimulatedLock>> {
        let mut turn = self.turn()?;
        let mut is_ours = false;
        if !turn.is_refused() {
            if !turn.world.names.contains_key(name) {
                let place = turn.world.inodes.len();
                turn.world.inodes.push(Inode::default());
                turn.world.names.insert(name.to_owned(), place);
                turn.world.pending.push(DirectoryChange::Create(name.to_owned(), place));
            }
            is_ours = !turn.world.is_locked;
            turn.world.is_locked = true;
        }
        turn.end(Ok(()))?;
        Ok(is_ours.then(|| SimulatedLock(self.clone())))
    }

    fn random(&self) -> io::Result<u64> {
        let mut turn = self.turn()?;
        let number = turn.world.chance();
        turn.end(Ok(number))
    }

    fn path(&self, name: &str) -> String {
        format!("simulated/{name}")
    }
}

/// Its lock.
pub struct SimulatedLock(SimulatedDisk);

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut world = self.0.world();
        if world.run == self.0.run {
            world.is_locked = false;
        }
    }
}

/// One of its files.
pub struct SimulatedFile {
    disk: SimulatedDisk,
    place: usize,
}

impl SimulatedFile {
    /// How much of `length` a call does.
    fn part(turn: &mut Turn<'_>, length: usize) -> usize {
        match turn.blow {
            None => length,
            Some(Blow::Short) => (1 + turn.world.one_of(length.max(1))).min(length),
            Some(Blow::Errno(EIO) | Blow::PowerLoss) => turn.world.one_of(length + 1),
            Some(Blow::Errno(_)) => 0,
            Some(Blow::Kill) => length,
        }
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut turn = self.disk.turn()?;
        let data = &turn.world.inodes[self.place].data;
        let begin = (offset as usize).min(data.len());
        let length = buffer.len().min(data.len() - begin);
        let length = Self::part(&mut turn, length);
        let data = &turn.world.inodes[self.place].data;
        buffer[..length].copy_from_slice(&data[begin..begin + length]);
        turn.end(Ok(length))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut turn = self.disk.turn()?;
        let (begin, length) = (offset as usize, Self::part(&mut turn, bytes.len()));
        let longer = (begin + length).saturating_sub(turn.world.inodes[self.place].data.len());
        if longer > 0 && turn.world.used() + longer as u64 > turn.world.capacity {
            return turn.end(Err(io::Error::from_raw_os_error(ENOSPC)));
        }
        if length > 0 {
            let inode = &mut turn.world.inodes[self.place];
            if inode.data.len() < begin + length {
                inode.data.resize(begin + length, 0);
            }
            inode.data[begin..begin + length].copy_from_slice(&bytes[..length]);
            inode.note(begin, begin + length);
        }
        turn.end(Ok(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut turn = self.disk.turn()?;
        match turn.blow {
            // Before the power goes it has written some.
            Some(Blow::PowerLoss) => {}
            Some(Blow::Errno(_)) => turn.world.settle(self.place, true),
            _ if turn.world.lie == Lie::SyncData => {}
            _ => turn.world.inodes[self.place].make_durable(),
        }
        turn.end(Ok(()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut turn = self.disk.turn()?;
        if !turn.is_refused() {
            let inode = &mut turn.world.inodes[self.place];
            let before = inode.data.len();
            inode.data.resize(len as usize, 0);
            let (from, to) = (before.min(len as usize), before.max(len as usize));
            inode.note(from, to);
        }
        turn.end(Ok(()))
    }

    fn size(&self) -> io::Result<u64> {
        let turn = self.disk.turn()?;
        let size = turn.world.inodes[self.place].data.len() as u64;
        turn.end(Ok(size))
    }
}

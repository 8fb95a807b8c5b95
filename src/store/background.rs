//! What is made in advance, on a thread of its own: the next segment, and the reserve for a compaction.
//!
//! The *reserve* is a file of zeros into which a compaction writes. A disk that is full takes no new file, but it takes
//! what overwrites an old one; so a start on a full disk can compact, and has room again. It is as large as everything
//! that the log could hold live at most: an eighth more than the base, for the fields that a record may gain, and half
//! as much again as the segments, of which the one in use and the next one are counted as full. It is made larger
//! before each new segment is, so when there is no room for both, the room for the compaction is there already.
//! (On a file system that copies on write, such as btrfs or ZFS, overwriting takes new room as well. There a full disk
//! has to be given some.)
//!
//! Knows nothing of what is in a segment. The log asks for a job and gives it to a thread; if it needs the segment
//! before a thread has begun, it makes it itself.
//!
//! Invariant: one segment is made at a time, and the reserve is used by one at a time.
//!
//! Next: `compaction`: what the reserve is for.

use std::fmt;
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Options;
use super::disk::{Disk, DiskFile, failed, write_zeros};
use super::error::Failure;
use super::segment::{RESERVE_NAME, Segment};

/// What the log and its jobs share.
pub(super) struct Background<D: Disk> {
    pub(super) disk: D,
    pub(super) options: Options,
    /// Held for its drop. Here, so that a job which is still under way when the log is given up keeps others out.
    _lock: D::Lock,
    spare: Mutex<Spare<D::File>>,
    spare_changed: Condvar,
    /// The right to use the reserve.
    reserve: Mutex<()>,
}

/// The segment behind the one in use.
enum Spare<F> {
    /// Nobody was asked to make it.
    Unwanted,
    /// There is a job, which nobody has begun, for the segment of this number.
    Offered(u64),
    /// Somebody is making it.
    Making,
    /// It is there.
    Ready(Segment<F>),
    /// It could not be made.
    Failed,
}

/// What a new segment needs to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Its number.
    pub(super) number: u64,
    /// How large the reserve has to be, with it.
    pub(super) reserve_bytes: u64,
}

/// How large the reserve has to be for a base of `base_bytes` and segments of `segment_bytes` altogether.
pub(super) fn reserve_bytes(base_bytes: u64, segment_bytes: u64) -> u64 {
    base_bytes + base_bytes / 8 + segment_bytes + segment_bytes / 2
}

impl<D: Disk> Background<D> {
    pub(super) fn new(disk: D, options: Options, lock: D::Lock) -> Self {
        Background {
            disk,
            options,
            _lock: lock,
            spare: Mutex::new(Spare::Unwanted),
            spare_changed: Condvar::new(),
            reserve: Mutex::new(()),
        }
    }

    /// A job that makes the segment, if nobody was given it.
    pub(super) fn offer(self: &Arc<Self>, wanted: Wanted) -> Option<Preallocation<D>> {
        let mut spare = self.spare();
        if !matches!(*spare, Spare::Unwanted) {
            return None;
        }
        *spare = Spare::Offered(wanted.number);
        Some(Preallocation { background: self.clone(), wanted })
    }

    /// After a failure: the job can be offered again.
    pub(super) fn offer_again(&self) {
        let mut spare = self.spare();
        if matches!(*spare, Spare::Failed) {
            *spare = Spare::Unwanted;
        }
    }

    /// The segment: at once, if it is there; else when whoever is making it has done so, or from here.
    pub(super) fn take(&self, wanted: Wanted) -> Result<Segment<D::File>, Failure> {
        let mut spare = self.spare();
        while matches!(*spare, Spare::Making) {
            let woken = self.spare_changed.wait(spare);
            spare = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if let Spare::Ready(segment) = mem::replace(&mut *spare, Spare::Unwanted) {
            return Ok(segment);
        }
        drop(spare);
        self.make(wanted)
    }

    /// Makes the segment now, while nobody else can have been asked to.
    pub(super) fn prepare(&self, wanted: Wanted) -> Result<(), Failure> {
        let made = self.make(wanted)?;
        *self.spare() = Spare::Ready(made);
        Ok(())
    }

    fn make(&self, wanted: Wanted) -> Result<Segment<D::File>, Failure> {
        // While a compaction uses the reserve, it has what it needs.
        if let Some(guard) = self.try_reserve() {
            self.enlarge_reserve(&guard, wanted.reserve_bytes)?;
        }
        Segment::make(&self.disk, wanted.number, self.options.segment_bytes)
    }

    /// Waits until nobody else uses the reserve.
    pub(super) fn reserve(&self) -> MutexGuard<'_, ()> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_reserve(&self) -> Option<MutexGuard<'_, ()>> {
        match self.reserve.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Makes the reserve so large, if it is smaller.
    pub(super) fn enlarge_reserve(
        &self,
        _: &MutexGuard<'_, ()>,
        bytes: u64,
    ) -> Result<(), Failure> {
        let failed = failed(&self.disk, RESERVE_NAME, "making room for compactions");
        let (file, is_new) = open_reserve(&self.disk).map_err(&failed)?;
        let before = file.size().map_err(&failed)?;
        if before >= bytes {
            return Ok(());
        }
        let filled = write_zeros(&file, before, bytes).and_then(|()| file.sync_data());
        if let Err(error) = filled {
            // What others may need more than half a reserve.
            let _ = file.set_len(before);
            return Err(failed(error));
        }
        if is_new {
            self.disk.sync_directory().map_err(&failed)?;
        }
        Ok(())
    }

    fn spare(&self) -> MutexGuard<'_, Spare<D::File>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reserve, and whether it is new.
pub(super) fn open_reserve<D: Disk>(disk: &D) -> io::Result<(D::File, bool)> {
    match disk.open(RESERVE_NAME) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((disk.create(RESERVE_NAME)?, true)),
        opened => Ok((opened?, false)),
    }
}

/// A job: to make the next segment. For a thread that may wait for the disk.
pub struct Preallocation<D: Disk> {
    background: Arc<Background<D>>,
    wanted: Wanted,
}

impl<D: Disk> Preallocation<D> {
    /// Makes it, unless the log could not wait and has made it itself.
    ///
    /// # Errors
    ///
    /// If the file system fails. The log tries again when it needs the segment.
    pub fn run(self) -> Result<(), Failure> {
        let Preallocation { background, wanted } = self;
        let mut spare = background.spare();
        if !matches!(*spare, Spare::Offered(number) if number == wanted.number) {
            return Ok(());
        }
        *spare = Spare::Making;
        drop(spare);
        let outcome = Outcome { background: &background, spare: Spare::Failed };
        outcome.of(background.make(wanted))
    }
}

impl<D: Disk> fmt::Debug for Preallocation<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preallocation").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// What becomes of the spare: known to whoever waits for it even if the thread panics.
struct Outcome<'b, D: Disk> {
    background: &'b Background<D>,
    spare: Spare<D::File>,
}

impl<D: Disk> Outcome<'_, D> {
    fn of(mut self, made: Result<Segment<D::File>, Failure>) -> Result<(), Failure> {
        self.spare = Spare::Ready(made?);
        Ok(())
    }
}

impl<D: Disk> Drop for Outcome<'_, D> {
    fn drop(&mut self) {
        *self.background.spare() = mem::replace(&mut self.spare, Spare::Failed);
        self.background.spare_changed.notify_all();
    }
}

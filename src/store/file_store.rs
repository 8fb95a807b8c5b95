//! The log: opening it, appending to it, syncing it.
//!
//! A write goes into storage that is there already, so a batch is one write and one sync of its data. A log has one
//! owner, and is used by one thread; two jobs that it gives out are for other threads. Reads no clock: it is told the
//! time.
//!
//! Invariant: after a write or a sync that failed nothing is written any more, and nothing is reported as synced.
//!
//! Next: `metrics`: what is counted of it.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;

use super::background::{Background, Preallocation, Wanted, reserve_bytes};
use super::batch::{Batch, Numbers};
use super::compaction::{Compacted, Compaction, Progress, ProgressCell, Scope};
use super::disk::{Disk, DiskFile, failed, write_full};
use super::error::{Damage, Failure, OpenError, StoreError};
use super::record::encode_start;
use super::recovery::{Cut, Recovery, mend, recovered, repair_base};
use super::replay::{Layout, Place, Replay, read_header};
use super::segment::{DATA_BEGIN, FileHeader, LOCK_NAME, Name, Segment, segment_name};
use super::{Figures, Options, Store, UPKEEP_LABELS, Upkeep};

/// An open log.
pub struct FileStore<D: Disk> {
    background: Arc<Background<D>>,
    active: Segment<D::File>,
    /// The number of the first batch in it.
    active_first: u64,
    /// Where the next batch goes in it.
    offset: u64,
    /// The last batch that was written, and the last of those that were synced.
    written: u64,
    synced: u64,
    /// Segments before the active one that no base stands for yet: numbers and lengths.
    closed: Vec<(u64, u64)>,
    /// The base: the last segment for which it stands, and its length.
    base: Option<(u64, u64)>,
    progress: ProgressCell,
    /// Closed segments at the last compaction that failed.
    closed_at_failure: Option<u64>,
    failure: Option<Failure>,
    figures: Figures,
}

impl<D: Disk> fmt::Debug for FileStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("figures", &self.figures).finish_non_exhaustive()
    }
}

/// What opening needs to be told.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// See [`Options`].
    pub options: Options,
    /// The time, in milliseconds of 1970.
    pub now_ms: u64,
    /// Whether to give up what is damaged.
    pub repair: bool,
}

impl<D: Disk> FileStore<D> {
    /// Opens the log in a directory, or begins one in an empty directory. What it holds is recovered first.
    ///
    /// # Errors
    ///
    /// If it cannot be owned, read to its end, or appended to. Nothing was changed then that a later attempt needs.
    pub fn open(disk: D, opening: Opening) -> Result<(FileStore<D>, Recovery), OpenError> {
        let Opening { options, now_ms, repair } = opening;
        options.check().map_err(OpenError::BadOptions)?;
        let lock = own(&disk)?;
        let (replay, repaired) = read(&disk, repair)?;
        mend(&disk, &replay)?;
        let cut = replay.end.zip(replay.torn_end).map(|(end, torn_end)| Cut {
            path: disk.path(&segment_name(end.segment)),
            offset: end.offset,
            bytes: torn_end - end.offset,
        });
        if let Some(Cut { path, offset, bytes }) = &cut {
            log::warn!(
                "{path}: {bytes} bytes at byte {offset} had not been written whole, and are cut"
            );
        }
        let tail = Tail::of(&disk, &replay)?;
        let base = replay.layout.base.zip(replay.base.map(|base| base.end));
        let written = replay.next_sequence - 1;
        let active_first =
            if replay.end.is_some() { replay.end_first_sequence } else { written + 1 };
        let mut recovery = recovered(replay, now_ms, options.ttl_ms);
        recovery.report.cut = cut;
        recovery.report.repaired = repaired;
        let Tail { active, offset, closed } = tail;
        let background = Arc::new(Background::new(disk, options, lock));
        let mut store = FileStore {
            active: match active {
                Some(active) => active,
                None => Self::first_segment(&background, base)?,
            },
            background,
            active_first,
            offset,
            written,
            synced: written,
            closed,
            base,
            progress: ProgressCell::default(),
            closed_at_failure: None,
            failure: None,
            figures: Figures {
                live_bytes: base.map_or(0, |(_, bytes)| bytes),
                ..Figures::default()
            },
        };
        store.start(now_ms)?;
        Ok((store, recovery))
    }

    fn first_segment(
        background: &Background<D>,
        base: Option<(u64, u64)>,
    ) -> Result<Segment<D::File>, Failure> {
        let number = base.map_or(0, |(covers, _)| covers) + 1;
        Segment::make(&background.disk, number, background.options.segment_bytes)
    }

    /// Writes that the store was opened, and makes the next segment. A disk without room for that is compacted first.
    fn start(&mut self, now_ms: u64) -> Result<(), OpenError> {
        let mut batch = Batch::new(self.background.options.batch);
        let started = batch.add(|out| encode_start(now_ms, out));
        debug_assert!(started.is_ok(), "the options leave room for it");
        let has_room = self.offset + batch.bytes() as u64 <= self.active.bytes;
        match self.background.prepare(self.wanted()) {
            Err(failure) if failure.is_full() => {
                log::warn!("compacting first: {failure}");
                match self.compact_all(now_ms) {
                    // Until the active segment is full it can be served.
                    Err(failure) if failure.is_full() && has_room && self.is_active_in_use()? => {
                        log::warn!("there is no room for the next segment: {failure}");
                    }
                    compacted => compacted?,
                }
            }
            prepared => prepared?,
        }
        let appended = self.append(&mut batch, now_ms).and_then(|_| self.sync());
        appended.map(|_| ()).map_err(into_open_error)
    }

    /// Compacts everything, the active segment included, into the reserve, and begins a new segment in the room that
    /// this frees.
    fn compact_all(&mut self, now_ms: u64) -> Result<(), OpenError> {
        let active_first = std::mem::replace(&mut self.active_first, self.written + 1);
        self.closed.push((self.active.number, self.active.bytes));
        let scope = self.scope(now_ms, None);
        let job = Compaction::new(self.background.clone(), self.progress.clone(), scope);
        if let Err(error) = job.run() {
            self.closed.pop();
            self.active_first = active_first;
            return Err(into_open_error(error));
        }
        self.absorb();
        let number = self.active.number + 1;
        let Options { segment_bytes, .. } = self.background.options;
        self.active = Segment::make(&self.background.disk, number, segment_bytes)?;
        self.offset = DATA_BEGIN;
        Ok(())
    }

    /// Whether the active segment is a part of the log, and no base stands for it. As the directory says: a compaction
    /// may have failed behind its rename.
    fn is_active_in_use(&self) -> Result<bool, OpenError> {
        let layout = list(&self.background.disk)?;
        Ok(layout.base.is_none_or(|covers| covers < self.active.number))
    }

    /// A job that makes the next segment, when there is none: to be run soon, on a thread that may wait for the disk.
    /// Without it an append makes the segment, and takes so much longer.
    #[must_use]
    pub fn preallocation(&mut self) -> Option<Preallocation<D>> {
        self.absorb();
        self.background.offer(self.wanted())
    }

    /// A job that compacts, when the log has grown enough: to be run on a thread of its own. There is one at a time.
    #[must_use]
    pub fn compaction(&mut self, now_ms: u64) -> Option<Compaction<D>> {
        self.absorb();
        let is_idle = matches!(*self.progress.get(), Progress::Idle);
        let has_just_failed =
            self.closed_at_failure == self.closed.last().map(|(number, _)| *number);
        if !is_idle || !self.is_compaction_due() || has_just_failed {
            return None;
        }
        let others = self.active.bytes + self.background.options.segment_bytes;
        let scope = self.scope(now_ms, Some(others));
        Some(Compaction::new(self.background.clone(), self.progress.clone(), scope))
    }

    /// What was done since the store was opened, and how large it is.
    #[must_use]
    pub fn figures(&mut self) -> Figures {
        self.absorb();
        Figures { segments: self.closed.len() as u64 + 1, ..self.figures }
    }

    /// Writes what the time is, syncs, and gives the log up. Then the next start knows that nothing is missing.
    ///
    /// # Errors
    ///
    /// As for any other batch.
    pub fn close(mut self, now_ms: u64) -> Result<(), StoreError> {
        self.append(&mut Batch::new(self.background.options.batch), now_ms)?;
        self.sync().map(|_| ())
    }

    /// At three tenths: then the closed segments, the base and the reserve for them are less than three times what is
    /// live, and each byte is written anew some four times.
    fn is_compaction_due(&self) -> bool {
        let closed: u64 = self.closed.iter().map(|(_, bytes)| bytes).sum();
        let live = self.base.map_or(0, |(_, bytes)| bytes);
        closed > 0 && closed > live / 10 * 3
    }

    fn scope(&self, now_ms: u64, other_bytes: Option<u64>) -> Scope {
        let segments = self.closed.iter().map(|(number, _)| *number).collect();
        let last_sequence = self.active_first - 1;
        let base = self.base.map(|(covers, _)| covers);
        Scope { base, segments, last_sequence, other_bytes, now_ms }
    }
}

impl<D: Disk> FileStore<D> {
    /// Takes note of what the jobs have done.
    fn absorb(&mut self) {
        let mut progress = self.progress.get();
        match *progress {
            Progress::Idle | Progress::Running => return,
            Progress::Failed => {
                self.closed_at_failure = self.closed.last().map(|(number, _)| *number);
            }
            Progress::Done(done) => {
                self.base = Some((done.covers, done.bytes));
                self.closed.retain(|(number, _)| *number > done.covers);
                self.figures.compactions += 1;
                self.figures.live_bytes = done.bytes;
                // There may be room now for the segment that could not be made.
                self.background.offer_again();
            }
        }
        *progress = Progress::Idle;
    }

    /// The next segment, and the room for a compaction of all that there is then.
    fn wanted(&self) -> Wanted {
        let closed: u64 = self.closed.iter().map(|(_, bytes)| bytes).sum();
        let segments = closed + self.active.bytes + self.background.options.segment_bytes;
        let base = self.base.map_or(0, |(_, bytes)| bytes);
        Wanted { number: self.active.number + 1, reserve_bytes: reserve_bytes(base, segments) }
    }

    /// Goes over to the next segment. What is behind is synced before, so that what is not synced is in one file.
    fn roll(&mut self) -> Result<(), Failure> {
        self.sync_active()?;
        let next = self.background.take(self.wanted())?;
        let full = std::mem::replace(&mut self.active, next);
        self.closed.push((full.number, full.bytes));
        self.active_first = self.written + 1;
        self.offset = DATA_BEGIN;
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), Failure> {
        if self.synced < self.written {
            let name = segment_name(self.active.number);
            let failed = failed(&self.background.disk, &name, "syncing it");
            self.active.file.sync_data().map_err(failed)?;
            self.synced = self.written;
        }
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch, at_ms: u64) -> Result<(), Failure> {
        if self.offset + batch.bytes() as u64 > self.active.bytes {
            self.roll()?;
        }
        let numbers = Numbers { sequence: self.written + 1, synced_through: self.synced, at_ms };
        let bytes = batch.sealed(self.active.nonce, numbers);
        let length = bytes.len() as u64;
        let name = segment_name(self.active.number);
        let failed = failed(&self.background.disk, &name, "writing to it");
        write_full(&self.active.file, bytes, self.offset).map_err(failed)?;
        self.offset += length;
        self.written += 1;
        self.figures.batches += 1;
        self.figures.bytes_appended += length;
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), |failure| Err(StoreError::Poisoned(failure)))
    }

    fn poisoned(&mut self, failure: Failure) -> StoreError {
        self.failure = Some(failure.clone());
        StoreError::Failed(failure)
    }
}

impl<D: Disk> Store for FileStore<D> {
    fn append(&mut self, batch: &mut Batch, now_ms: u64) -> Result<u64, StoreError> {
        self.check()?;
        self.absorb();
        let most = self.background.options.batch.batch_bytes;
        if batch.bytes() > most {
            return Err(StoreError::TooLarge { bytes: batch.bytes(), most });
        }
        self.write(batch, now_ms).map_err(|failure| self.poisoned(failure))?;
        Ok(self.written)
    }

    fn sync(&mut self) -> Result<u64, StoreError> {
        self.check()?;
        self.sync_active().map_err(|failure| self.poisoned(failure))?;
        Ok(self.synced)
    }

    fn upkeep(&mut self, now_ms: u64) -> [Option<Upkeep>; UPKEEP_LABELS.len()] {
        let room = self.preallocation().map(|job| -> Upkeep {
            Box::new(move || {
                if let Err(failure) = job.run() {
                    log::warn!("the store has made no room in advance: {failure}");
                }
            })
        });
        let compaction = self.compaction(now_ms).map(|job| -> Upkeep {
            Box::new(move || match job.run() {
                Ok(Compacted { bytes, records, .. }) => {
                    log::debug!("the store was compacted: {records} sessions in {bytes} bytes");
                }
                Err(error) => log::warn!("the store was not compacted, and goes on: {error}"),
            })
        });
        [room, compaction]
    }

    fn figures(&mut self) -> Figures {
        FileStore::figures(self)
    }

    fn close(self: Box<Self>, now_ms: u64) -> Result<(), StoreError> {
        FileStore::close(*self, now_ms)
    }
}

/// Where appending goes on.
struct Tail<F> {
    /// The last segment that is in use, if there is one.
    active: Option<Segment<F>>,
    offset: u64,
    closed: Vec<(u64, u64)>,
}

impl<F: DiskFile> Tail<F> {
    fn of<D: Disk<File = F>>(disk: &D, replay: &Replay) -> Result<Tail<F>, OpenError> {
        let Some(Place { segment: number, offset }) = replay.end else {
            return Ok(Tail { active: None, offset: DATA_BEGIN, closed: Vec::new() });
        };
        let mut closed = Vec::new();
        for &number in replay.layout.segments.iter().filter(|closed| **closed < number) {
            let name = segment_name(number);
            let failed = failed(disk, &name, "reading its length");
            let size = disk.open_to_read(&name).and_then(|file| file.size());
            closed.push((number, size.map_err(failed)?));
        }
        let name = segment_name(number);
        let failed = failed(disk, &name, "opening it");
        let file = disk.open(&name).map_err(&failed)?;
        let bytes = file.size().map_err(&failed)?;
        let header = read_header(disk, &name, &file, Name::Segment(number))?;
        let Some(FileHeader { nonce, .. }) = header else {
            return Err(failed(ErrorKind::InvalidData.into()).into());
        };
        Ok(Tail { active: Some(Segment { number, file, nonce, bytes }), offset, closed })
    }
}

/// Makes sure that the directory is a store's or empty, and that nobody else has it.
fn own<D: Disk>(disk: &D) -> Result<D::Lock, OpenError> {
    let layout = list(disk)?;
    if let (false, Some(found)) = (layout.is_a_store, layout.foreign) {
        return Err(OpenError::NotAStore { path: disk.path(""), found });
    }
    let lock = disk.lock(LOCK_NAME).map_err(failed(disk, LOCK_NAME, "locking it"))?;
    lock.ok_or_else(|| OpenError::SecondOwner { path: disk.path(LOCK_NAME) })
}

/// Lists a store's directory.
pub(super) fn list<D: Disk>(disk: &D) -> Result<Layout, OpenError> {
    Layout::read(disk).map_err(|error| match error.kind() {
        ErrorKind::NotFound => OpenError::NoDirectory { path: disk.path("") },
        ErrorKind::NotADirectory => OpenError::NotADirectory { path: disk.path("") },
        _ => failed(disk, "", "listing it")(error).into(),
    })
}

/// Reads the log, and repairs it first if that is wanted and needed: then what was damaged comes with it.
fn read<D: Disk>(disk: &D, repair: bool) -> Result<(Replay, Option<Damage>), OpenError> {
    let replay = Replay::read(disk, list(disk)?)?;
    match replay.damage.clone() {
        None => Ok((replay, None)),
        Some(damage) if repair => {
            log::warn!("repairing: {damage}");
            repair_base(disk, &replay)?;
            mend(disk, &replay)?;
            // From the files alone, so that this start sees what the next one will.
            let again = Replay::read(disk, list(disk)?)?;
            match again.damage {
                Some(damage) => Err(OpenError::Damage(damage)),
                None => Ok((again, Some(damage))),
            }
        }
        Some(damage) => Err(OpenError::Damage(damage)),
    }
}

fn into_open_error(error: StoreError) -> OpenError {
    match error {
        StoreError::Failed(failure) | StoreError::Poisoned(failure) => OpenError::Failed(failure),
        StoreError::Damage(damage) => OpenError::Damage(damage),
        StoreError::TooLarge { .. } => OpenError::BadOptions("a batch has no room for anything"),
    }
}

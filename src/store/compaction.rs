//! Compaction: what is live in the base and the closed segments becomes a new base, and they go.
//!
//! The last record of each session is kept, unless it was forgotten or has expired. Runs on a thread of its own, beside
//! appends into the segment in use. Its memory is bounded: it goes over the files once for each part of the sessions, by a
//! keyed hash of their ids, and a part that turns out too large is halved.
//!
//! The new base is written into the reserve, synced, and then renamed; its name says for which segments it stands. Only
//! when the directory is synced are those removed. A crash before the rename leaves a reserve with other content, and
//! one after it leaves files for which a base stands, which the next start removes.
//!
//! Invariant: a base has every session that the files before it had, in the order of the log by its fields.
//!
//! Next: `file_store`: the log that is appended to.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::background::{Background, open_reserve, reserve_bytes};
use super::batch::{BYTES_MOST, Batch, BatchLimits, Nonce, Numbers};
use super::disk::{Disk, DiskFile, failed, remove_if_there, write_full};
use super::error::{Damage, Failure, OpenError, StoreError};
use super::live::{Live, LiveEntry, has_expired};
use super::record::{Presence, encode_save};
use super::replay::{entries, walk_base, walk_segment};
use super::segment::{BaseHeader, DATA_BEGIN, FileHeader, RESERVE_NAME, base_name, segment_name};
use crate::session::SessionId;

/// A batch of a base is written when it has so many bytes.
const BASE_BATCH_BYTES: usize = 64 << 10;

/// What a compaction has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The last segment for which the base stands.
    pub covers: u64,
    /// Length of the base.
    pub bytes: u64,
    /// Sessions in it.
    pub records: u64,
    /// Sessions that had expired.
    pub expired: u64,
}

/// Where a compaction stands, for the log.
#[derive(Debug, Default)]
pub(super) enum Progress {
    /// None is under way.
    #[default]
    Idle,
    /// A job was given out.
    Running,
    /// It has failed, or its job was dropped.
    Failed,
    /// It has ended.
    Done(Compacted),
}

/// Shared by the log and its job.
#[derive(Debug, Clone, Default)]
pub(super) struct ProgressCell(Arc<Mutex<Progress>>);

impl ProgressCell {
    pub(super) fn get(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be compacted.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// The base, if there is one.
    pub(super) base: Option<u64>,
    /// The segments behind it, none missing, all synced; not empty.
    pub(super) segments: Vec<u64>,
    /// The last batch in them.
    pub(super) last_sequence: u64,
    /// Segments that are in use besides, in bytes; `None` if no room is to be kept for the next compaction yet.
    pub(super) other_bytes: Option<u64>,
    /// The time, in milliseconds of 1970.
    pub(super) now_ms: u64,
}

/// A job: to compact. For a thread that may wait for the disk, and of its own: it takes seconds.
pub struct Compaction<D: Disk> {
    background: Arc<Background<D>>,
    progress: ProgressCell,
    scope: Scope,
    /// From here on the log may have given out the next job, whose progress this one has no say in.
    has_ended: bool,
}

impl<D: Disk> fmt::Debug for Compaction<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compaction").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl<D: Disk> Drop for Compaction<D> {
    fn drop(&mut self) {
        if !self.has_ended {
            *self.progress.get() = Progress::Failed;
        }
    }
}

impl<D: Disk> Compaction<D> {
    pub(super) fn new(
        background: Arc<Background<D>>,
        progress: ProgressCell,
        scope: Scope,
    ) -> Self {
        *progress.get() = Progress::Running;
        Compaction { background, progress, scope, has_ended: false }
    }

    /// Compacts.
    ///
    /// # Errors
    ///
    /// If the file system fails, or what is to be compacted is damaged. The log is what it was, and goes on; it offers
    /// the next compaction when another segment is full.
    pub fn run(mut self) -> Result<Compacted, StoreError> {
        let background = self.background.clone();
        let disk = &background.disk;
        let guard = background.reserve();
        let compacted = self.write_base()?;
        let name = base_name(compacted.covers);
        let failed = failed(disk, &name, "giving it its name");
        disk.rename(RESERVE_NAME, &name).map_err(&failed)?;
        disk.sync_directory().map_err(&failed)?;
        self.remove_old();
        if let Some(other_bytes) = self.scope.other_bytes
            && let Err(failure) =
                self.background.enlarge_reserve(&guard, reserve_bytes(compacted.bytes, other_bytes))
        {
            log::warn!("no room is kept for the next compaction: {failure}");
        }
        self.has_ended = true;
        *self.progress.get() = Progress::Done(compacted);
        Ok(compacted)
    }

    /// What stays behind is removed at the next start.
    fn remove_old(&self) {
        let disk = &self.background.disk;
        let base = self.scope.base.map(base_name);
        let names = self.scope.segments.iter().map(|number| segment_name(*number)).chain(base);
        for name in names {
            if let Err(error) = remove_if_there(disk, &name) {
                log::warn!("{}", super::disk::failed(disk, &name, "removing it")(error));
            }
        }
    }

    /// Writes all that is live into the reserve.
    fn write_base(&self) -> Result<Compacted, StoreError> {
        let disk = &self.background.disk;
        let failed = failed(disk, RESERVE_NAME, "compacting into it");
        let (file, _) = open_reserve(disk).map_err(&failed)?;
        let nonce = Nonce(disk.random().map_err(&failed)?);
        let key = disk.random().map_err(&failed)?;
        let mut writer = BaseWriter::new(&file, nonce);
        let mut expired = 0;
        let mut part = Part { key, from: 0, to: u64::MAX };
        let last = loop {
            let pass = self.read_part(part)?;
            part.to = pass.to;
            let now_ms = self.scope.now_ms.max(pass.last_at_ms);
            writer.at_ms = pass.last_at_ms;
            let changes = pass.live.changes();
            // A batch has its records in order, and so has a pass, but not two of them.
            writer.flush().map_err(&failed)?;
            let mut live = pass.live.into_entries();
            live.sort_unstable_by_key(|entry| entry.order);
            for entry in live {
                match entry.record.presence {
                    Presence::Left { at_ms }
                        if has_expired(at_ms, now_ms, self.background.options.ttl_ms) =>
                    {
                        expired += 1;
                    }
                    _ => writer.put(&entry).map_err(&failed)?,
                }
            }
            match part.next() {
                Some(next) => part = next,
                None => break (pass.last_at_ms, changes),
            }
        };
        let covers = self.scope.segments.last().copied().unwrap_or_default();
        let (last_at_ms, changes) = last;
        let last_sequence = self.scope.last_sequence;
        let base = BaseHeader { last_sequence, last_at_ms, changes, end: 0, records: 0 };
        let BaseHeader { end, records, .. } = writer.finish(covers, base).map_err(&failed)?;
        Ok(Compacted { covers, bytes: end, records, expired })
    }

    /// Reads the sessions of a part, and makes it smaller if they are too many.
    fn read_part(&self, part: Part) -> Result<Pass, StoreError> {
        let disk = &self.background.disk;
        let most = self.background.options.compaction_bytes;
        let mut pass = Pass { live: Live::default(), to: part.to, last_at_ms: 0 };
        let Pass { live, to, last_at_ms } = &mut pass;
        let mut expected = 1;
        if let Some(covers) = self.scope.base {
            let (base, gaps) = walk_base(disk, covers, &mut |_, header, body| {
                live.begin_base_batch();
                entries(header, body, |entry| live.apply(entry, |id| part.has(id, *to)))?;
                *to = part.halved_until(live, *to, most);
                Ok(())
            })
            .map_err(read_failed)?;
            let (Some(base), []) = (base, &gaps[..]) else {
                let offset = gaps.first().map_or(0, |gap| gap.from);
                return Err(damage(disk.path(&base_name(covers)), offset));
            };
            live.end_base(base.changes);
            *last_at_ms = base.last_at_ms;
            expected = base.last_sequence + 1;
        }
        let mut stop = None;
        for &number in &self.scope.segments {
            let before = expected;
            let stopped = walk_segment(disk, number, &mut expected, &mut |_, header, body| {
                entries(header, body, |entry| live.apply(entry, |id| part.has(id, *to)))?;
                *last_at_ms = header.at_ms;
                *to = part.halved_until(live, *to, most);
                Ok(())
            });
            let offset = stopped.map_err(read_failed)?.offset;
            if expected > before || stop.is_none() {
                stop = Some((number, offset));
            }
        }
        match stop {
            Some((number, offset)) if expected != self.scope.last_sequence + 1 => {
                Err(damage(disk.path(&segment_name(number)), offset))
            }
            _ => Ok(pass),
        }
    }
}

fn damage(path: String, offset: u64) -> StoreError {
    let what = "a batch before it or here is unreadable, which was synced";
    StoreError::Damage(Damage { path, offset, what, batches: 0, sessions: 0 })
}

fn read_failed(error: OpenError) -> StoreError {
    match error {
        OpenError::Failed(failure) => StoreError::Failed(failure),
        OpenError::Damage(damage) => StoreError::Damage(damage),
        other => StoreError::Failed(Failure {
            path: String::new(),
            doing: "compacting",
            error: Arc::new(io::Error::other(other.to_string())),
        }),
    }
}

/// The sessions that are dealt with at once: those whose ids have a hash from here to there.
#[derive(Debug, Clone, Copy)]
struct Part {
    key: u64,
    from: u64,
    to: u64,
}

/// What was read of a part.
struct Pass {
    live: Live,
    /// Where the part ends: earlier than asked for, if it was too large.
    to: u64,
    last_at_ms: u64,
}

impl Part {
    /// Keyed, because clients may choose ids: else they could have them all in one part.
    fn hash(&self, id: &SessionId) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        id.hash(&mut hasher);
        hasher.finish()
    }

    fn has(&self, id: &SessionId, to: u64) -> bool {
        (self.from..=to).contains(&self.hash(id))
    }

    /// Drops the later half of the part until the rest takes no more than `most`, or is one
    /// session; where it ends then.
    fn halved_until(&self, live: &mut Live, mut to: u64, most: usize) -> u64 {
        while live.bytes() > most && live.len() > 1 && to > self.from {
            to = self.from + (to - self.from) / 2;
            live.retain(|id| self.hash(id) <= to);
        }
        to
    }

    /// All that is behind this one.
    fn next(&self) -> Option<Part> {
        Some(Part { from: self.to.checked_add(1)?, to: u64::MAX, ..*self })
    }
}

/// Writes a base.
struct BaseWriter<'f, F> {
    file: &'f F,
    nonce: Nonce,
    offset: u64,
    batch: Batch,
    /// Order of the last record in the batch.
    last_order: u64,
    batches: u64,
    records: u64,
    at_ms: u64,
}

impl<'f, F: DiskFile> BaseWriter<'f, F> {
    fn new(file: &'f F, nonce: Nonce) -> Self {
        // A record is as long as it was in its segment, about, and that may have had other limits.
        let limits = BatchLimits { batch_bytes: BYTES_MOST, state_bytes: BYTES_MOST };
        BaseWriter {
            file,
            nonce,
            offset: DATA_BEGIN,
            batch: Batch::new(limits),
            last_order: 0,
            batches: 0,
            records: 0,
            at_ms: 0,
        }
    }

    fn put(&mut self, entry: &LiveEntry) -> io::Result<()> {
        let distance = entry.order - self.last_order;
        let put = self.batch.add(|out| encode_save(&entry.record, Some(distance), out));
        if put.is_err() {
            return Err(io::Error::other("a record is too large for any batch"));
        }
        self.last_order = entry.order;
        self.records += 1;
        if self.batch.bytes() >= BASE_BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.batches += 1;
            let numbers = Numbers { sequence: self.batches, synced_through: 0, at_ms: self.at_ms };
            let bytes = self.batch.sealed(self.nonce, numbers);
            write_full(self.file, bytes, self.offset)?;
            self.offset += bytes.len() as u64;
        }
        self.batch.clear();
        self.last_order = 0;
        Ok(())
    }

    /// Writes the header, gives back what is not used, and syncs.
    fn finish(mut self, covers: u64, base: BaseHeader) -> io::Result<BaseHeader> {
        self.flush()?;
        let base = BaseHeader { end: self.offset, records: self.records, ..base };
        let header = FileHeader { nonce: self.nonce, number: covers, base: Some(base) };
        write_full(self.file, &header.encoded(), 0)?;
        self.file.set_len(self.offset)?;
        self.file.sync_data()?;
        Ok(base)
    }
}

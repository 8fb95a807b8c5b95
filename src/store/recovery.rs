//! Makes a log that was read one that can be appended to: cuts a torn end, and repairs damage if that is wanted.
//!
//! Also says what a recovery gave back. Every step may be interrupted by a power loss and is then done again at the next
//! start. Called when a store is opened.
//!
//! Invariant: before anything new is written, what was read is on the disk, and what was cut is not.
//!
//! What was read may still have been in the page cache alone: the process was killed between a write and its sync, or
//! ended because a sync failed, after which Linux takes the pages for clean although the disk does not have them. So all
//! batches of which the log does not prove that they were synced are written again, and then synced.
//!
//! Next: `background`: what is made in advance.

use std::fmt;

use super::batch::{BYTES_MOST, BatchHeader, HEADER_BYTES, Nonce, seal};
use super::disk::{Disk, DiskFile, failed, read_full, remove_if_there, write_full, write_zeros};
use super::error::{Damage, Failure, OpenError};
use super::live::{Live, LiveEntry, has_expired};
use super::record::{Presence, Record};
use super::replay::{Figures, Gap, Place, Replay, read_header};
use super::segment::{BaseHeader, DATA_BEGIN, FileHeader, Name, base_name, segment_name};

/// A session that was recovered. Nobody is attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its last record; one that was attached has left when the store was opened next.
    pub record: Record,
    /// When it was left, in milliseconds of 1970.
    pub left_at_ms: u64,
    /// How long ago that is. So much of its time to live is over.
    pub age_ms: u64,
}

/// What a torn end was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: String,
    /// Where the log ends now.
    pub offset: u64,
    /// Bytes up to the last that was not zero.
    pub bytes: u64,
}

/// What opening a store has met.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    not(feature = "internals"),
    expect(dead_code, reason = "revolve's own tests read the rest")
)]
pub struct Report {
    /// Sessions that were recovered.
    pub sessions: u64,
    /// Sessions whose time to live was over.
    pub expired: u64,
    /// Batches that were read.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments, without those that a base stands for.
    pub segments: u64,
    /// The number of the last batch.
    pub last_sequence: u64,
    /// When it was written, in milliseconds of 1970; `None` in an empty log.
    pub last_at_ms: Option<u64>,
    /// How long ago that was; zero if the clock was set back.
    pub downtime_ms: u64,
    /// What was torn, and is cut.
    pub cut: Option<Cut>,
    /// What was damaged, and is repaired.
    pub repaired: Option<Damage>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sessions, expired, batches, changes, bytes, .. } = self;
        write!(
            f,
            "{sessions} sessions recovered and {expired} expired, of {changes} changes in {batches} batches, {bytes} bytes"
        )?;
        if let Some(Cut { path, offset, bytes }) = &self.cut {
            write!(
                f,
                "; {path}: {bytes} bytes at byte {offset} were not written whole, and are cut"
            )?;
        }
        Ok(())
    }
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Its sessions, in the order in which they were left.
    pub sessions: Vec<Recovered>,
    /// What else is to be said.
    pub report: Report,
}

/// Makes the log one that can be appended to, from the end that was read on.
pub(super) fn mend<D: Disk>(disk: &D, replay: &Replay) -> Result<(), OpenError> {
    let directory = failed(disk, "", "syncing the directory");
    // The base that was found may stand in the page cache alone: it has to be on the disk before what it stands for goes.
    disk.sync_directory().map_err(&directory)?;
    for name in &replay.layout.obsolete {
        remove_if_there(disk, name).map_err(failed(disk, name, "removing it"))?;
    }
    if let Some(end) = replay.end {
        mend_end(disk, replay, end)?;
    }
    // Those behind the end hold nothing, or what is given up. From the last one on, so that there is no gap.
    let kept = replay.end.map_or(0, |end| end.segment);
    for number in replay.layout.segments.iter().rev().filter(|number| **number > kept) {
        let name = segment_name(*number);
        remove_if_there(disk, &name).map_err(failed(disk, &name, "removing it"))?;
    }
    disk.sync_directory().map_err(&directory)?;
    Ok(())
}

fn mend_end<D: Disk>(disk: &D, replay: &Replay, end: Place) -> Result<(), Failure> {
    let name = segment_name(end.segment);
    let failed = failed(disk, &name, "writing its end again");
    let file = disk.open(&name).map_err(&failed)?;
    if let Some(doubt) = replay.doubt {
        write_again(&file, doubt.offset, end.offset).map_err(&failed)?;
    }
    if let Some(torn_end) = replay.torn_end {
        write_zeros(&file, end.offset, torn_end).map_err(&failed)?;
    }
    file.sync_data().map_err(&failed)
}

/// Writes what stands there.
fn write_again(file: &impl DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    const CHUNK: u64 = 256 << 10;
    let mut chunk = vec![0; CHUNK.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let length = CHUNK.min(to - at) as usize;
        if read_full(file, &mut chunk[..length], at)? < length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        write_full(file, &chunk[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Gives up what of the base cannot be read, so that the rest can. What is damaged behind it is cut by [`mend`].
pub(super) fn repair_base<D: Disk>(disk: &D, replay: &Replay) -> Result<(), OpenError> {
    let Some(covers) = replay.layout.base else { return Ok(()) };
    if replay.gaps.is_empty() {
        return Ok(());
    }
    let name = base_name(covers);
    let failed = failed(disk, &name, "repairing it");
    let file = disk.open(&name).map_err(&failed)?;
    match read_header(disk, &name, &file, Name::Base(covers))? {
        Some(header) => {
            for gap in &replay.gaps {
                fill(&file, &header, *gap).map_err(&failed)?;
            }
        }
        None => {
            let last_sequence = replay.first_sequence(disk)?.unwrap_or(1).saturating_sub(1);
            let base = Some(BaseHeader { last_sequence, end: DATA_BEGIN, ..BaseHeader::default() });
            let nonce = Nonce(disk.random().map_err(&failed)?);
            let header = FileHeader { nonce, number: covers, base };
            write_full(&file, &header.encoded(), 0).map_err(&failed)?;
            file.set_len(DATA_BEGIN).map_err(&failed)?;
        }
    }
    Ok(file.sync_data().map_err(&failed)?)
}

/// Writes batches without changes over a gap. Only the last one can be too short for that: then the base ends before it.
fn fill(file: &impl DiskFile, header: &FileHeader, gap: Gap) -> std::io::Result<()> {
    let (most, least) = (BYTES_MOST as u64, HEADER_BYTES as u64);
    if gap.to - gap.from < least {
        let base = header.base.map(|base| BaseHeader { end: gap.from, ..base });
        return write_full(file, &FileHeader { base, ..*header }.encoded(), 0);
    }
    let mut at = gap.from;
    while at < gap.to {
        let left = gap.to - at;
        // So that what is left over has room for a header.
        let length = if left > most { most.min(left - least) } else { left };
        let mut filler = vec![0; length as usize];
        let length = (length - least) as u32;
        let filling = BatchHeader { length, changes: 0, sequence: 0, synced_through: 0, at_ms: 0 };
        seal(&mut filler, header.nonce, &filling);
        write_full(file, &filler, at)?;
        at += filler.len() as u64;
    }
    Ok(())
}

/// What the log gives back at `now_ms`. A clock that was set back ends no session's time: it goes on from where the log
/// ends.
pub(super) fn recovered(replay: Replay, now_ms: u64, ttl_ms: u64) -> Recovery {
    let Replay { live, layout, figures, next_sequence, .. } = replay;
    let Figures { batches, changes, bytes, last_at_ms, .. } = figures;
    let now_ms = now_ms.max(last_at_ms.unwrap_or(0));
    let all = live.len() as u64;
    let sessions = sessions_of(live, now_ms, ttl_ms);
    let report = Report {
        sessions: sessions.len() as u64,
        expired: all - sessions.len() as u64,
        batches,
        changes,
        bytes,
        segments: layout.segments.len() as u64,
        last_sequence: next_sequence - 1,
        last_at_ms,
        downtime_ms: last_at_ms.map_or(0, |last| now_ms - last),
        cut: None,
        repaired: None,
    };
    Recovery { sessions, report }
}

/// The sessions whose time is not over at `now_ms`, in the order in which they were left. Nobody is attached to them now.
#[must_use]
pub fn sessions_of(live: Live, now_ms: u64, ttl_ms: u64) -> Vec<Recovered> {
    let mut entries = live.into_entries();
    for entry in &mut entries {
        if entry.record.presence == Presence::Attached {
            entry.record.presence = Presence::Left { at_ms: now_ms };
        }
    }
    let left_at = |record: &Record| match record.presence {
        Presence::Left { at_ms } => at_ms,
        Presence::Attached => now_ms,
    };
    entries.retain(|entry| !has_expired(left_at(&entry.record), now_ms, ttl_ms));
    entries.sort_unstable_by_key(|entry| (left_at(&entry.record), entry.order));
    let recovered = |entry: LiveEntry| {
        let left_at_ms = left_at(&entry.record);
        let age_ms = now_ms.saturating_sub(left_at_ms);
        Recovered { record: entry.record, left_at_ms, age_ms }
    };
    entries.into_iter().map(recovered).collect()
}

//! Reads a log from its beginning to its end, and says where the end is and whether anything is damaged.
//!
//! Changes no file. A place that cannot be read is the torn end of the log, unless a batch behind it says that what
//! stood there had been synced: a power loss may keep a later sector and lose an earlier one, of what was not synced.
//! Called by the recovery, which then mends, and by the inspection, which does not.
//!
//! Invariant: what is applied is a prefix of the log, batch by batch, without a gap; in a base, which has no order,
//! every batch that can be read.
//!
//! Next: `recovery`: what is done about it.

use std::collections::{HashSet, VecDeque};
use std::io;

use super::batch::{BatchHeader, HEADER_BYTES};
use super::disk::{Disk, DiskFile, failed};
use super::error::{Damage, Failure, OpenError};
use super::live::Live;
use super::reader::{Found, Reader};
use super::record::{Entry, Malformed, decode};
use super::segment::{
    BadHeader, BaseHeader, DATA_BEGIN, FORMAT_VERSION, FileHeader, LOCK_NAME, Name, RESERVE_NAME,
    base_name, parse_name, segment_name,
};
use crate::session::SessionId;

/// The files of a directory, by what they are.
#[derive(Debug, Default)]
pub struct Layout {
    /// The base that counts: that of the greatest number.
    pub base: Option<u64>,
    /// The segments behind it, in order.
    pub segments: Vec<u64>,
    /// Files that were being made, or for which the base stands.
    pub obsolete: Vec<String>,
    /// Whether there is the lock file.
    pub is_a_store: bool,
    /// A file that no store has made.
    pub foreign: Option<String>,
    /// Whether there is a reserve.
    pub has_reserve: bool,
}

impl Layout {
    /// Lists the directory.
    ///
    /// # Errors
    ///
    /// If it cannot be listed.
    pub fn read(disk: &impl Disk) -> io::Result<Layout> {
        let mut names = disk.list()?;
        names.sort();
        let mut layout = Layout::default();
        let parsed: Vec<_> = names.iter().map(|name| (name, parse_name(name))).collect();
        let bases = parsed.iter().filter_map(|(_, parsed)| match parsed {
            Some(Name::Base(covers)) => Some(*covers),
            _ => None,
        });
        layout.base = bases.max();
        for (name, parsed) in parsed {
            match parsed {
                Some(Name::Base(covers)) if layout.base == Some(covers) => {}
                Some(Name::Segment(number)) if layout.base.is_none_or(|covers| number > covers) => {
                    layout.segments.push(number);
                }
                Some(_) => layout.obsolete.push(name.clone()),
                None if name == LOCK_NAME => layout.is_a_store = true,
                None if name == RESERVE_NAME => layout.has_reserve = true,
                // The root of a file system has this one, and a mount point is a good place for a store.
                None if name == "lost+found" => {}
                None => layout.foreign = Some(name.clone()),
            }
        }
        layout.segments.sort_unstable();
        Ok(layout)
    }
}

/// A part of a base that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Its first byte.
    pub from: u64,
    /// The byte behind it.
    pub to: u64,
}

/// Calls `visit` with each entry of a batch.
///
/// # Errors
///
/// If they are not what the header says.
pub fn entries<'a>(
    header: &BatchHeader,
    body: &'a [u8],
    mut visit: impl FnMut(Entry<'a>),
) -> Result<(), Malformed> {
    // One without changes fills what a repair gave up, or tells the time; its bytes say nothing.
    if header.changes == 0 {
        return Ok(());
    }
    let mut rest = body;
    for _ in 0..header.changes {
        visit(decode(&mut rest)?.ok_or(Malformed)?);
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// Reads a file's header; `None` if it is broken, or that of another file.
pub(super) fn read_header<D: Disk>(
    disk: &D,
    name: &str,
    file: &D::File,
    expected: Name,
) -> Result<Option<FileHeader>, OpenError> {
    let header = match FileHeader::read(file) {
        Ok(header) => header,
        Err(BadHeader::Broken) => return Ok(None),
        Err(BadHeader::Version(found)) => {
            return Err(OpenError::Version { path: disk.path(name), found, known: FORMAT_VERSION });
        }
        Err(BadHeader::Io(error)) => {
            return Err(failed(disk, name, "reading its header")(error).into());
        }
    };
    let is = match header.base {
        None => Name::Segment(header.number),
        Some(_) => Name::Base(header.number),
    };
    Ok((is == expected).then_some(header))
}

/// What is done with a batch: the byte at which it begins, its header, its entries.
pub(super) type Visit<'v> = dyn FnMut(u64, &BatchHeader, &[u8]) -> Result<(), Malformed> + 'v;

/// Calls `visit` with each batch of a base; what the header says, and what could not be read.
pub(super) fn walk_base<D: Disk>(
    disk: &D,
    covers: u64,
    visit: &mut Visit<'_>,
) -> Result<(Option<BaseHeader>, Vec<Gap>), OpenError> {
    let name = base_name(covers);
    let failed = failed(disk, &name, "reading it");
    let file = disk.open_to_read(&name).map_err(&failed)?;
    let header = read_header(disk, &name, &file, Name::Base(covers))?;
    let Some((FileHeader { nonce, .. }, base)) = header.and_then(|h| Some((h, h.base?))) else {
        let to = file.size().map_err(&failed)?;
        return Ok((None, vec![Gap { from: 0, to }]));
    };
    let mut gaps = Vec::new();
    let mut reader = Reader::new(&file, nonce, base.end);
    let mut offset = DATA_BEGIN;
    while offset < base.end {
        match reader.at(offset).map_err(&failed)? {
            Found::Batch(header, body) if visit(offset, &header, body).is_ok() => {
                offset += header.batch_bytes() as u64;
            }
            _ => {
                // Nothing shorter than a header has stood there.
                let next = reader.search(offset + HEADER_BYTES as u64).map_err(&failed)?;
                let to = next.unwrap_or(base.end);
                gaps.push(Gap { from: offset, to });
                offset = to;
            }
        }
    }
    Ok((Some(base), gaps))
}

/// Where the reading of a segment stopped.
pub(super) struct Stop {
    /// Behind its last batch; 0 if not even the header could be read.
    pub(super) offset: u64,
    /// Whether a whole batch stands there that is not understood.
    pub(super) is_malformed: bool,
}

/// Calls `visit` with the batches of a segment, from number `expected` on and without a gap.
pub(super) fn walk_segment<D: Disk>(
    disk: &D,
    number: u64,
    expected: &mut u64,
    visit: &mut Visit<'_>,
) -> Result<Stop, OpenError> {
    let name = segment_name(number);
    let failed = failed(disk, &name, "reading it");
    let file = disk.open_to_read(&name).map_err(&failed)?;
    let Some(header) = read_header(disk, &name, &file, Name::Segment(number))? else {
        return Ok(Stop { offset: 0, is_malformed: false });
    };
    let mut reader = Reader::new(&file, header.nonce, file.size().map_err(&failed)?);
    let mut offset = DATA_BEGIN;
    loop {
        let is_malformed = match reader.at(offset).map_err(&failed)? {
            Found::Batch(header, body) if header.sequence == *expected => {
                if visit(offset, &header, body).is_ok() {
                    *expected += 1;
                    offset += header.batch_bytes() as u64;
                    continue;
                }
                true
            }
            _ => false,
        };
        return Ok(Stop { offset, is_malformed });
    }
}

/// A place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment.
    pub segment: u64,
    /// The byte.
    pub offset: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Figures {
    /// Batches.
    pub batches: u64,
    /// Entries in them.
    pub changes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Times that the store was opened.
    pub starts: u64,
    /// When the last batch was written, in milliseconds of 1970.
    pub last_at_ms: Option<u64>,
}

impl Figures {
    fn add(&mut self, header: &BatchHeader) {
        self.batches += 1;
        self.changes += u64::from(header.changes);
        self.bytes += header.batch_bytes() as u64;
    }
}

/// A log that was read.
#[derive(Debug)]
pub struct Replay {
    /// Its sessions.
    pub live: Live,
    /// The files.
    pub layout: Layout,
    /// What the base says; `None` without one, or if it cannot be read.
    pub base: Option<BaseHeader>,
    /// What of the base cannot be read.
    pub gaps: Vec<Gap>,
    /// Where the log ends: behind its last batch, or at the damage. `None` if there is no segment that can be used.
    pub end: Option<Place>,
    /// The number of the first batch in the segment of `end`, be it there or yet to come.
    pub end_first_sequence: u64,
    /// The first batch that may not have been synced.
    pub doubt: Option<Place>,
    /// The number of the next batch.
    pub next_sequence: u64,
    /// Where what was torn at the end stops, in the segment of `end`.
    pub torn_end: Option<u64>,
    /// What is damaged.
    pub damage: Option<Damage>,
    /// What was read.
    pub figures: Figures,
}

impl Replay {
    /// Reads the log of a directory.
    ///
    /// # Errors
    ///
    /// If the file system fails, or for a file of another format version. Damage is no error here.
    pub fn read<D: Disk>(disk: &D, layout: Layout) -> Result<Replay, OpenError> {
        let mut replay = Replay {
            live: Live::default(),
            layout,
            base: None,
            gaps: Vec::new(),
            end: None,
            end_first_sequence: 1,
            doubt: None,
            next_sequence: 1,
            torn_end: None,
            damage: None,
            figures: Figures::default(),
        };
        replay.read_base(disk)?;
        let mut doubts = VecDeque::new();
        let mut wrong = None;
        for place in 0..replay.layout.segments.len() {
            wrong = match replay.missing_before(disk, place)? {
                None => replay.read_segment(disk, replay.layout.segments[place], &mut doubts)?,
                missing => missing,
            };
            if wrong.is_some() {
                break;
            }
        }
        replay.doubt = doubts.front().map(|(_, place)| *place);
        replay.judge_end(disk, wrong)?;
        Ok(replay)
    }

    fn read_base<D: Disk>(&mut self, disk: &D) -> Result<(), OpenError> {
        let Some(covers) = self.layout.base else { return Ok(()) };
        let Replay { live, figures, .. } = self;
        let (base, gaps) = walk_base(disk, covers, &mut |_, header, body| {
            live.begin_base_batch();
            figures.add(header);
            entries(header, body, |entry| live.apply(entry, |_| true))
        })?;
        match base {
            Some(base) => {
                self.live.end_base(base.changes);
                self.next_sequence = base.last_sequence + 1;
                self.figures.last_at_ms = Some(base.last_at_ms);
            }
            // Which batch comes next is not known any more: what the first segment begins with.
            None => self.next_sequence = self.first_sequence(disk)?.unwrap_or(1),
        }
        if let Some(gap) = gaps.first() {
            let lost = base.map_or(0, |base| base.records).saturating_sub(self.live.len() as u64);
            self.damage = Some(Damage {
                path: disk.path(&base_name(covers)),
                offset: gap.from,
                what: match base {
                    None => "its header, and with it all its sessions",
                    Some(_) => "sessions in it are unreadable",
                },
                batches: 0,
                sessions: lost,
            });
        }
        self.base = base;
        self.gaps = gaps;
        Ok(())
    }

    /// The number of the first batch behind the base.
    pub(super) fn first_sequence<D: Disk>(&self, disk: &D) -> Result<Option<u64>, OpenError> {
        let Some(&number) = self.layout.segments.first() else { return Ok(None) };
        let name = segment_name(number);
        let failed = failed(disk, &name, "reading it");
        let file = disk.open_to_read(&name).map_err(&failed)?;
        let Some(header) = read_header(disk, &name, &file, Name::Segment(number))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&file, header.nonce, file.size().map_err(&failed)?);
        match reader.at(DATA_BEGIN).map_err(&failed)? {
            Found::Batch(header, _) => Ok(Some(header.sequence)),
            Found::Nothing => Ok(None),
        }
    }

    /// What is wrong if the segment at this place does not follow the one before it. Segments that were never used may
    /// have any numbers: they were made in advance, and their removal was under way.
    fn missing_before<D: Disk>(
        &mut self,
        disk: &D,
        place: usize,
    ) -> Result<Option<Stopped>, OpenError> {
        let follows = match place.checked_sub(1) {
            None => self.layout.base.unwrap_or(0),
            Some(before) => self.layout.segments[before],
        };
        let due = follows + 1;
        if self.layout.segments[place] == due {
            return Ok(None);
        }
        for &number in &self.layout.segments[place..] {
            if !is_unused(disk, number)? {
                let place = Place { segment: due, offset: 0 };
                return Ok(Some(Stopped::Damaged(place, "this file is missing")));
            }
        }
        Ok(Some(Stopped::Unused))
    }

    /// Reads on in a segment; what is wrong with it, if its end is not simply where it stops.
    fn read_segment<D: Disk>(
        &mut self,
        disk: &D,
        number: u64,
        doubts: &mut VecDeque<(u64, Place)>,
    ) -> Result<Option<Stopped>, OpenError> {
        let Replay { live, figures, next_sequence, .. } = self;
        let first = *next_sequence;
        let mut is_first = true;
        let stop = walk_segment(disk, number, next_sequence, &mut |offset, header, body| {
            figures.add(header);
            figures.last_at_ms = Some(header.at_ms);
            entries(header, body, |entry| {
                figures.starts += u64::from(matches!(entry, Entry::Start { .. }));
                live.apply(entry, |_| true);
            })?;
            // A segment is synced before the next one is used.
            if std::mem::take(&mut is_first) {
                doubts.clear();
            }
            doubts.push_back((header.sequence, Place { segment: number, offset }));
            while doubts.front().is_some_and(|(sequence, _)| *sequence <= header.synced_through) {
                doubts.pop_front();
            }
            Ok(())
        })?;
        let Stop { offset, is_malformed } = stop;
        let place = Place { segment: number, offset };
        if offset == 0 {
            let is_unused = is_unused(disk, number)?;
            return Ok((!is_unused).then_some(Stopped::Damaged(place, "its header is unreadable")));
        }
        if self.end.is_none() || self.next_sequence > first {
            self.end = Some(place);
            self.end_first_sequence = first;
        }
        let what = "a batch is whole, and yet not understood";
        Ok(is_malformed.then_some(Stopped::Damaged(place, what)))
    }

    /// Looks at what is behind the end: whether it is damage, and what that costs.
    fn judge_end<D: Disk>(&mut self, disk: &D, stopped: Option<Stopped>) -> Result<(), OpenError> {
        let wrong = match stopped {
            Some(Stopped::Damaged(place, what)) => Some((place, what)),
            Some(Stopped::Unused) | None => None,
        };
        let Some(begin) = self.end.or(wrong.map(|(place, _)| place)) else { return Ok(()) };
        let mut behind = Behind { next_sequence: self.next_sequence, ..Behind::default() };
        for &number in self.layout.segments.iter().filter(|number| **number >= begin.segment) {
            let from = if number == begin.segment { begin.offset } else { DATA_BEGIN };
            let torn_end = behind.read(disk, number, from)?;
            if self.end.is_some_and(|end| end.segment == number) {
                self.torn_end = torn_end;
            }
        }
        // Behind zeros the next batch is due in the next segment.
        let follower = self.layout.segments.iter().find(|number| **number > begin.segment);
        let place = match follower {
            Some(&segment) if self.torn_end.is_none() => Place { segment, offset: DATA_BEGIN },
            _ => begin,
        };
        let proven = (place, "a batch is unreadable, which a later one says had been synced");
        let wrong = wrong.or(behind.is_proof.then_some(proven));
        if let Some((place, what)) = wrong {
            let costs = (behind.batches, behind.sessions.len() as u64);
            let path = disk.path(&segment_name(place.segment));
            let here = Damage { path, offset: place.offset, what, batches: 0, sessions: 0 };
            // If the base is damaged as well, that is the first place; the costs are added up.
            let first = self.damage.take().unwrap_or(here);
            let (batches, sessions) = (first.batches + costs.0, first.sessions + costs.1);
            self.damage = Some(Damage { batches, sessions, ..first });
        }
        Ok(())
    }
}

/// Why the reading ended before the last segment was read.
enum Stopped {
    /// Something is wrong there.
    Damaged(Place, &'static str),
    /// All that follow were never used.
    Unused,
}

/// Whether nothing was ever written behind the header of a segment.
fn is_unused<D: Disk>(disk: &D, number: u64) -> Result<bool, Failure> {
    let name = segment_name(number);
    let failed = failed(disk, &name, "reading it");
    let file = disk.open_to_read(&name).map_err(&failed)?;
    let size = file.size().map_err(&failed)?;
    // Zeros are found without the nonce.
    let mut reader = Reader::new(&file, super::batch::Nonce(0), size);
    Ok(reader.written_end(DATA_BEGIN).map_err(&failed)?.is_none())
}

/// What can be read behind the end of the log.
#[derive(Default)]
struct Behind {
    next_sequence: u64,
    batches: u64,
    sessions: HashSet<SessionId>,
    /// Whether one of the batches says that the one at the end had been synced.
    is_proof: bool,
}

impl Behind {
    /// Looks through a segment; where the last byte ends that is not zero.
    fn read<D: Disk>(
        &mut self,
        disk: &D,
        number: u64,
        from: u64,
    ) -> Result<Option<u64>, OpenError> {
        let name = segment_name(number);
        let failed = failed(disk, &name, "reading it");
        let file = disk.open_to_read(&name).map_err(&failed)?;
        let Some(header) = read_header(disk, &name, &file, Name::Segment(number))? else {
            return Ok(None);
        };
        let mut reader = Reader::new(&file, header.nonce, file.size().map_err(&failed)?);
        let torn_end = reader.written_end(from).map_err(&failed)?;
        let mut offset = from;
        while torn_end.is_some()
            && let Some(at) = reader.search(offset).map_err(&failed)?
        {
            offset = at + 1;
            if let Found::Batch(header, body) = reader.at(at).map_err(&failed)? {
                offset = at + header.batch_bytes() as u64;
                self.batches += 1;
                self.is_proof |= header.synced_through >= self.next_sequence;
                // What is not understood names no session.
                let _ = entries(&header, body, |entry| match entry {
                    Entry::Save(saved) => drop(self.sessions.insert(saved.id)),
                    Entry::Forget { id, .. } => drop(self.sessions.insert(id)),
                    Entry::Start { .. } | Entry::Unknown => {}
                });
            }
        }
        Ok(torn_end)
    }
}

//! The files of a log: their names, their headers, and how a segment is made.
//!
//! A *segment* is storage for batches, made in advance: zeros on the disk, so that appending to it changes no table of
//! the file system. A *base* is what a compaction has made of all files before it. Both begin with a header in a sector
//! of its own, which says with a checksum what the file is. Reads no batches. Called by whoever opens or makes a file.
//!
//! Invariant: a file that bears its name has been synced under another one before.
//!
//! Next: `reader`: the batches in them.

use std::io;

use super::batch::{Nonce, read_u32, read_u64};
use super::disk::{Disk, DiskFile, failed, read_full, remove_if_there, write_full, write_zeros};
use super::error::Failure;

/// The version of all that is written.
pub const FORMAT_VERSION: u32 = 1;

/// Where batches begin: behind the header's sector, so that no append touches the header.
pub const DATA_BEGIN: u64 = 512;

/// Whose presence says that a directory is a store's; it is locked while the store is open.
pub const LOCK_NAME: &str = "revolve.lock";

/// The file that has the room for the next compaction.
pub const RESERVE_NAME: &str = "reserve";

const MAGIC: [u8; 8] = *b"rvlvstor";
const HEADER_BYTES: usize = 88;
const SEGMENT: u32 = 1;
const BASE: u32 = 2;

/// A name that a store gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Segment of this number.
    Segment(u64),
    /// What stands for the segments up to this number.
    Base(u64),
    /// A file that was being made.
    Unfinished,
}

/// What the name of a file says; `None` if it is none that a store gives to its log.
#[must_use]
pub fn parse_name(name: &str) -> Option<Name> {
    let (stem, end) = name.split_once('.')?;
    let (kind, number) = stem.split_once('-')?;
    let is_number = number.len() == 16 && !number.contains('+');
    let number = u64::from_str_radix(number, 16).ok().filter(|_| is_number)?;
    match (kind, end) {
        ("segment", "log") => Some(Name::Segment(number)),
        ("base", "log") => Some(Name::Base(number)),
        ("segment", "log.new") => Some(Name::Unfinished),
        _ => None,
    }
}

/// The name of a segment.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("segment-{number:016x}.log")
}

/// The name of a base.
#[must_use]
pub fn base_name(covers: u64) -> String {
    format!("base-{covers:016x}.log")
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Secret of the file.
    pub nonce: Nonce,
    /// A segment's number; the number of the last segment that a base covers.
    pub number: u64,
    /// What a base says besides.
    pub base: Option<BaseHeader>,
}

/// What the header of a base says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BaseHeader {
    /// The last batch that it covers.
    pub last_sequence: u64,
    /// When that one was written.
    pub last_at_ms: u64,
    /// Changes in all that it covers.
    pub changes: u64,
    /// Where its batches end: all up to there must be readable.
    pub end: u64,
    /// Sessions in it.
    pub records: u64,
}

/// Why a header says nothing.
#[derive(Debug)]
pub enum BadHeader {
    /// It cannot be read: damaged, or none.
    Broken,
    /// Of another format version.
    Version(u32),
    /// The file system failed.
    Io(io::Error),
}

impl FileHeader {
    /// Its bytes.
    #[must_use]
    pub fn encoded(&self) -> [u8; HEADER_BYTES] {
        let base = self.base.unwrap_or_default();
        let kind = if self.base.is_some() { BASE } else { SEGMENT };
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&kind.to_le_bytes());
        let words = [
            self.nonce.0,
            self.number,
            base.last_sequence,
            base.last_at_ms,
            base.changes,
            base.end,
            base.records,
        ];
        for (place, word) in bytes[16..72].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a file's header.
    ///
    /// # Errors
    ///
    /// If there is none that this version understands.
    pub fn read(file: &impl DiskFile) -> Result<FileHeader, BadHeader> {
        let mut bytes = [0; HEADER_BYTES];
        let length = read_full(file, &mut bytes, 0).map_err(BadHeader::Io)?;
        if length < HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(BadHeader::Broken);
        }
        // The version stands in front of the checksum for good: another version may have another header.
        let version = read_u32(&bytes, 8);
        if version != FORMAT_VERSION {
            return Err(BadHeader::Version(version));
        }
        let is_whole =
            crc32fast::hash(&bytes[..HEADER_BYTES - 4]) == read_u32(&bytes, HEADER_BYTES - 4);
        let base = match read_u32(&bytes, 12) {
            _ if !is_whole => return Err(BadHeader::Broken),
            SEGMENT => None,
            BASE => Some(BaseHeader {
                last_sequence: read_u64(&bytes, 32),
                last_at_ms: read_u64(&bytes, 40),
                changes: read_u64(&bytes, 48),
                end: read_u64(&bytes, 56),
                records: read_u64(&bytes, 64),
            }),
            _ => return Err(BadHeader::Broken),
        };
        Ok(FileHeader { nonce: Nonce(read_u64(&bytes, 16)), number: read_u64(&bytes, 24), base })
    }
}

/// A segment that can be appended to.
#[derive(Debug)]
pub struct Segment<F> {
    /// Its number.
    pub number: u64,
    /// The file.
    pub file: F,
    /// Its secret.
    pub nonce: Nonce,
    /// Its length.
    pub bytes: u64,
}

impl<F: DiskFile> Segment<F> {
    /// Makes an empty one: zeros, synced, under its name.
    ///
    /// # Errors
    ///
    /// If the file system fails; what was made so far is removed at the next start.
    pub fn make<D: Disk<File = F>>(disk: &D, number: u64, bytes: u64) -> Result<Self, Failure> {
        let name = segment_name(number);
        let unfinished = format!("{name}.new");
        let failed = failed(disk, &name, "making a segment");
        let nonce = Nonce(disk.random().map_err(&failed)?);
        remove_if_there(disk, &unfinished).map_err(&failed)?;
        let file = disk.create(&unfinished).map_err(&failed)?;
        let filled = write_full(&file, &FileHeader { nonce, number, base: None }.encoded(), 0)
            .and_then(|()| write_zeros(&file, HEADER_BYTES as u64, bytes))
            .and_then(|()| file.sync_data());
        if let Err(error) = filled {
            // Half a segment would take the room that a compaction may need.
            let _ = disk.remove(&unfinished);
            return Err(failed(error));
        }
        disk.rename(&unfinished, &name).map_err(&failed)?;
        disk.sync_directory().map_err(&failed)?;
        Ok(Segment { number, file, nonce, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_given() {
        assert_eq!(parse_name(&segment_name(0x12)), Some(Name::Segment(0x12)));
        assert_eq!(parse_name(&base_name(u64::MAX)), Some(Name::Base(u64::MAX)));
        assert_eq!(parse_name("segment-0000000000000001.log.new"), Some(Name::Unfinished));
        for other in [
            "",
            "reserve",
            "revolve.lock",
            "segment-1.log",
            "segment-+000000000000001.log",
            "segment-000000000000000g.log",
            "base-0000000000000001.log.new",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}

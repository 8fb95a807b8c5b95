//! The unit of writing: changes that are stored together or not at all, under one checksum.
//!
//! ```text
//!  0  mark            u32   half of the file's nonce
//!  4  checksum        u32   CRC-32 of all that follows, seeded with the other half
//!  8  length          u32   bytes of the entries
//! 12  changes         u32   how many entries there are
//! 16  sequence        u64   number of the batch, from 1, without gaps
//! 24  synced through  u64   the last batch that was known to be synced when this one was written
//! 32  written at      u64   wall-clock time, in milliseconds of 1970
//! 40  the entries
//! ```
//!
//! The nonce is random and differs from file to file, so neither bytes of another file nor bytes that a client has
//! chosen pass for a batch. Knows no file. Made by whoever has changes to store; given its numbers by the log.
//!
//! Invariant: a batch is at most as long as its limits say, and never longer than [`BYTES_MOST`].
//!
//! Next: `segment`: the files that hold them.

use super::record::{self, Change};

/// Bytes in front of the entries.
pub const HEADER_BYTES: usize = 40;

/// Bytes that a batch can have, whatever the options: what a reader needs memory for.
pub const BYTES_MOST: usize = 8 << 20;

/// Secret of a file, by which its batches are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub u64);

impl Nonce {
    /// How each batch begins. Not zero: zeros are storage that was never written.
    #[must_use]
    pub fn mark(self) -> u32 {
        (self.0 as u32).max(1)
    }

    fn checksum(self, covered: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial((self.0 >> 32) as u32);
        hasher.update(covered);
        hasher.finalize()
    }
}

/// What stands in front of the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes of the entries.
    pub length: u32,
    /// How many there are.
    pub changes: u32,
    /// Number of the batch.
    pub sequence: u64,
    /// The last batch that was known to be synced.
    pub synced_through: u64,
    /// When it was written, in milliseconds of 1970.
    pub at_ms: u64,
}

impl BatchHeader {
    /// Reads what may be a header; `None` without the mark, or for a length that cannot be.
    #[must_use]
    pub fn read(bytes: &[u8], nonce: Nonce) -> Option<BatchHeader> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let length = read_u32(bytes, 8);
        if read_u32(bytes, 0) != nonce.mark() || length as usize > BYTES_MOST - HEADER_BYTES {
            return None;
        }
        Some(BatchHeader {
            length,
            changes: read_u32(bytes, 12),
            sequence: read_u64(bytes, 16),
            synced_through: read_u64(bytes, 24),
            at_ms: read_u64(bytes, 32),
        })
    }

    /// Bytes of the whole batch.
    #[must_use]
    pub fn batch_bytes(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }
}

/// Fills in the header of `batch`, of which only the entries stand.
pub fn seal(batch: &mut [u8], nonce: Nonce, header: &BatchHeader) {
    batch[0..4].copy_from_slice(&nonce.mark().to_le_bytes());
    batch[8..12].copy_from_slice(&header.length.to_le_bytes());
    batch[12..16].copy_from_slice(&header.changes.to_le_bytes());
    batch[16..24].copy_from_slice(&header.sequence.to_le_bytes());
    batch[24..32].copy_from_slice(&header.synced_through.to_le_bytes());
    batch[32..40].copy_from_slice(&header.at_ms.to_le_bytes());
    let checksum = nonce.checksum(&batch[8..]);
    batch[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Whether the checksum is right. `batch` is all of it, and nothing else.
#[must_use]
pub fn is_whole(batch: &[u8], nonce: Nonce) -> bool {
    batch.len() >= HEADER_BYTES && read_u32(batch, 4) == nonce.checksum(&batch[8..])
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// What a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of the whole batch.
    pub batch_bytes: usize,
    /// Bytes of one session's state.
    pub state_bytes: usize,
}

/// Why a change is not in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// There is no room for it: append this batch, and put it into the next.
    BatchFull,
    /// Its state is larger than one may be: no batch takes it.
    StateTooLarge,
}

/// Changes of one reactor that are made safe together: it is told of all of them at once.
#[derive(Debug)]
pub struct CommitBatch {
    /// Number of the batch on its reactor, from 1.
    pub number: u64,
    /// Its changes in order, in as many batches as their limit asks for. None, if nothing of what has changed is to be
    /// stored.
    pub pieces: Vec<Batch>,
}

/// Changes to be stored together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Room for the header, and the entries.
    bytes: Vec<u8>,
    changes: u32,
    limits: BatchLimits,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Batch {
        Batch { bytes: vec![0; HEADER_BYTES], changes: 0, limits }
    }

    /// Adds a change behind those that it has.
    ///
    /// # Errors
    ///
    /// If it is too large, or there is no room; then the batch is what it was.
    pub fn push(&mut self, change: &Change) -> Result<(), NotTaken> {
        if let Change::Save(record) = change
            && record
                .state
                .as_ref()
                .is_some_and(|state| state.bytes.len() > self.limits.state_bytes)
        {
            return Err(NotTaken::StateTooLarge);
        }
        self.add(|out| record::encode(change, out))
    }

    /// Adds the entry that `write` appends.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), NotTaken> {
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() > self.limits.batch_bytes {
            self.bytes.truncate(before);
            return Err(NotTaken::BatchFull);
        }
        self.changes += 1;
        Ok(())
    }

    /// Takes everything out; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.changes = 0;
    }

    /// What stands in it, one behind the other: for [`record::decode`].
    #[must_use]
    pub fn entries(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// How many changes there are.
    #[must_use]
    pub fn changes(&self) -> u32 {
        self.changes
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes that it takes in the log.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its bytes with a header, which says besides what it says itself when it was written, and where.
    pub(super) fn sealed(&mut self, nonce: Nonce, numbers: Numbers) -> &[u8] {
        let Numbers { sequence, synced_through, at_ms } = numbers;
        let length = (self.bytes.len() - HEADER_BYTES) as u32;
        let changes = self.changes;
        let header = BatchHeader { length, changes, sequence, synced_through, at_ms };
        seal(&mut self.bytes, nonce, &header);
        &self.bytes
    }
}

/// What the log gives a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) sequence: u64,
    pub(super) synced_through: u64,
    pub(super) at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionId;
    use crate::store::record::{Presence, Record, State};

    fn save(state_bytes: usize) -> Change {
        let state = Some(State { version: 1, bytes: vec![0; state_bytes].into() });
        let id = SessionId::parse("a").unwrap();
        Change::Save(Record { id, generation: 1, count: 1, state, presence: Presence::Attached })
    }

    #[test]
    fn a_batch_has_limits() {
        let mut batch = Batch::new(BatchLimits { batch_bytes: 200, state_bytes: 100 });
        assert_eq!(batch.push(&save(101)), Err(NotTaken::StateTooLarge));
        assert_eq!(batch.push(&save(100)), Ok(()));
        let bytes = batch.bytes();
        assert_eq!(batch.push(&save(100)), Err(NotTaken::BatchFull));
        assert_eq!((batch.bytes(), batch.changes()), (bytes, 1));
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.push(&save(100)), Ok(()));
        assert_eq!(batch.bytes(), bytes);
    }

    #[test]
    fn any_flipped_bit_is_noticed_and_so_is_another_nonce() {
        let mut batch = Batch::new(BatchLimits { batch_bytes: 200, state_bytes: 100 });
        batch.push(&save(10)).unwrap();
        let nonce = Nonce(0x0123_4567_89ab_cdef);
        let numbers = Numbers { sequence: 3, synced_through: 2, at_ms: 1 };
        let mut bytes = batch.sealed(nonce, numbers).to_vec();
        let header = BatchHeader::read(&bytes, nonce).unwrap();
        assert_eq!((header.sequence, header.synced_through, header.at_ms), (3, 2, 1));
        assert_eq!((header.batch_bytes(), header.changes), (bytes.len(), 1));
        assert!(is_whole(&bytes, nonce));
        assert!(!is_whole(&bytes, Nonce(nonce.0 ^ 1 << 63)));
        assert_eq!(BatchHeader::read(&bytes, Nonce(nonce.0 ^ 1)), None);
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let is_marked = BatchHeader::read(&bytes, nonce)
                .is_some_and(|header| header.batch_bytes() == bytes.len());
            assert!(!is_marked || !is_whole(&bytes, nonce), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_ne!(Nonce(0).mark(), 0);
    }
}

//! The batches of one file, read in order, and what stands behind the last one.
//!
//! Reads in windows, so a file of any length takes the memory of its largest batch. Judges each place of one file and
//! nothing beyond: what an unreadable place means for the log is the replay's to say.
//!
//! Invariant: a batch that is given out had the mark and the checksum of its file.
//!
//! Next: `live`: what the entries add up to.

use std::io;

use super::batch::{BatchHeader, HEADER_BYTES, Nonce, is_whole};
use super::disk::{DiskFile, read_full};

/// Bytes that are read at once, where no batch is longer.
const WINDOW_BYTES: usize = 256 << 10;

/// What stands at an offset.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A batch, whole: its header and its entries.
    Batch(BatchHeader, &'a [u8]),
    /// Anything else.
    Nothing,
}

/// Reads one file.
#[derive(Debug)]
pub struct Reader<'f, F> {
    file: &'f F,
    nonce: Nonce,
    /// Where the batches end at the latest.
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'f, F: DiskFile> Reader<'f, F> {
    /// Reads `file` up to `end`.
    pub fn new(file: &'f F, nonce: Nonce, end: u64) -> Self {
        Reader { file, nonce, end, window: Vec::new(), window_at: 0 }
    }

    /// What is at `offset`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn at(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let nonce = self.nonce;
        let Some(header) = BatchHeader::read(self.load(offset, HEADER_BYTES)?, nonce) else {
            return Ok(Found::Nothing);
        };
        let batch = self.load(offset, header.batch_bytes())?;
        if batch.len() < header.batch_bytes() || !is_whole(batch, nonce) {
            return Ok(Found::Nothing);
        }
        Ok(Found::Batch(header, &batch[HEADER_BYTES..]))
    }

    /// The first place at `offset` or behind it where a whole batch begins, at whatever byte.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn search(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        let mark = self.nonce.mark().to_le_bytes();
        loop {
            let bytes = self.load_some(offset)?;
            if bytes.len() < HEADER_BYTES {
                return Ok(None);
            }
            let begins = bytes.windows(mark.len()).position(|bytes| bytes == mark);
            match begins {
                // A mark may begin in the last bytes of the window.
                None => offset += (bytes.len() - (mark.len() - 1)) as u64,
                Some(at) => {
                    offset += at as u64;
                    if let Found::Batch(..) = self.at(offset)? {
                        return Ok(Some(offset));
                    }
                    offset += 1;
                }
            }
        }
    }

    /// Where the last byte that is not zero ends, behind `offset`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn written_end(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        let mut written = None;
        loop {
            let bytes = self.load_some(offset)?;
            if bytes.is_empty() {
                return Ok(written);
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                written = Some(offset + last as u64 + 1);
            }
            offset += bytes.len() as u64;
        }
    }

    /// What the window has from `offset` on; if that is nothing, a new window. Empty at the end.
    fn load_some(&mut self, offset: u64) -> io::Result<&[u8]> {
        let least = HEADER_BYTES.min(self.end.saturating_sub(offset) as usize);
        if !self.has(offset, least.max(1)) {
            self.fill(offset, WINDOW_BYTES)?;
        }
        let begin = (offset - self.window_at) as usize;
        Ok(self.window.get(begin..).unwrap_or_default())
    }

    /// `length` bytes from `offset` on; fewer at the end.
    fn load(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        if !self.has(offset, length) {
            self.fill(offset, length.max(WINDOW_BYTES))?;
        }
        let begin = (offset - self.window_at) as usize;
        let bytes = self.window.get(begin..).unwrap_or_default();
        Ok(&bytes[..length.min(bytes.len())])
    }

    fn has(&self, offset: u64, length: usize) -> bool {
        offset >= self.window_at
            && offset + length as u64 <= self.window_at + self.window.len() as u64
    }

    fn fill(&mut self, offset: u64, length: usize) -> io::Result<()> {
        let length = length.min(self.end.saturating_sub(offset) as usize);
        self.window_at = offset;
        // Kept as it is where nothing needs to be added: all of it is read over.
        self.window.resize(length, 0);
        let read = read_full(self.file, &mut self.window, offset);
        // A window of bytes that were not read must not be found again.
        self.window.truncate(*read.as_ref().unwrap_or(&0));
        read.map(|_| ())
    }
}

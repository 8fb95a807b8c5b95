//! Storage for a message that arrives in pieces, into which a socket can be read.
//!
//! Reading needs bytes that are there, so what is to be read to is zeroed first, once: how much of it
//! has been filled is counted beside. So storage that one message has left can take the next one as it
//! is: the reactor keeps a few, and a message of a megabyte then costs no page of fresh memory. Grows
//! and counts; who may grow it how far is [`super::message`]'s to say.
//!
//! Growing can fail: what a peer sends must not end the process. The system has fresh storage full of
//! zeros (`vec![0; n]`), but asking for that ends the process when it fails, and a trial allocation
//! before it would be a race with the other reactors. In return growth need not copy: the system moves
//! large storage to a larger place by its page table. Counting a message of 16 MiB took 7.0 ms of CPU
//! and 37 MB with zeros from the system, and takes 4.5 ms and 20 MB so; one of 4 MiB 1.2 and 0.8 ms.
//!
//! Where a message begins in its storage decides how fast the kernel copies it on some processors: [`LEAD`].
//!
//! Invariant: what stands behind [`Reassembly::bytes`], an earlier message maybe, is never shown, nor is what
//! stands before it.
//!
//! Next: [`crate::protocol::message`], which puts frames together.

use std::collections::TryReserveError;

/// Bytes that stay free before a long message: half a page.
///
/// The kernel copies between a socket's pages and this storage by `rep movsb`. On AMD's Zen 4 that takes seven
/// times as long if, pages left aside, the destination is 1 to 15 bytes further than the source (a megabyte:
/// 320 µs instead of 46). That is no rare accident: the allocator puts large storage 16 bytes behind a page's
/// beginning, and the kernel begins a fresh page with what is written. After one reply (a header of 10 bytes
/// and a megabyte) the next payload goes 20 bytes behind a page's beginning, which is 4 further than its
/// source. Half a page away from there is farthest from all that. The echo of a megabyte takes 69 to 87 % of the
/// CPU that it took without (docs/performance.md). Where `rep movsb` minds no such thing, nothing changes.
pub const LEAD: usize = 2 << 10;

/// Bytes from which on a message is long enough for that: from there on payload is read past the receive
/// buffer.
const LED_FROM: usize = 16 << 10;

/// Bytes gathered, and the storage that they are in.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// Its length is what has been written to, by this message or by an earlier one.
    storage: Vec<u8>,
    /// Where the message begins: 0, or [`LEAD`].
    start: usize,
    filled: usize,
}

impl Reassembly {
    /// What has been gathered.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end()]
    }

    /// What has been gathered since there were `start` bytes.
    pub fn bytes_from(&mut self, start: usize) -> &mut [u8] {
        let end = self.end();
        &mut self.storage[self.start + start..end]
    }

    /// Bytes gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether none are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Bytes of storage that a message can take. What stays free before it is not counted.
    #[must_use]
    pub fn storage_bytes(&self) -> usize {
        self.storage.capacity() - self.start
    }

    fn end(&self) -> usize {
        self.start + self.filled
    }

    /// Bytes that it can take without growing.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.storage.capacity() - self.end()
    }

    /// Forgets what was gathered and keeps the storage.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Sees to it that there is room for `wanted` bytes. The storage doubles, as `Vec`'s own would,
    /// so that a million fragments of a byte cost twenty copies and not a million (CVE-2026-48779
    /// pinned fifteen bytes for each); but it grows by no more than `most`.
    ///
    /// # Errors
    ///
    /// When there is no memory for it. What was gathered is still there.
    pub fn make_room(&mut self, wanted: usize, most: usize) -> Result<(), TryReserveError> {
        if self.room_bytes() >= wanted {
            return Ok(());
        }
        let more = self.filled.min(most).max(wanted);
        // What an earlier message has left behind the end need not be moved.
        self.storage.truncate(self.end());
        if self.start > 0 || self.filled.saturating_add(more) < LED_FROM {
            return self.storage.try_reserve_exact(more);
        }
        self.storage.try_reserve_exact(more.saturating_add(LEAD))?;
        self.storage.resize(self.filled + LEAD, 0);
        self.storage.copy_within(..self.filled, LEAD);
        self.start = LEAD;
        Ok(())
    }

    /// Where the next bytes belong, at most `most` of them, as far as there is room.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let start = self.end();
        let end = self.storage.capacity().min(start.saturating_add(most));
        if self.storage.len() < end {
            // Within the capacity, so without an allocation.
            self.storage.resize(end, 0);
        }
        &mut self.storage[start..end]
    }

    /// The first `count` bytes of [`Self::room`] have been written to.
    pub fn fill(&mut self, count: usize) {
        debug_assert!(count <= self.room_bytes());
        self.filled += count;
    }

    /// Appends; there must be room.
    pub fn push(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room_bytes());
        let end = self.end();
        let known = bytes.len().min(self.storage.len() - end);
        let (over, behind) = bytes.split_at(known);
        self.storage[end..end + known].copy_from_slice(over);
        self.storage.extend_from_slice(behind);
        self.filled += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_used_again_and_what_stood_in_it_is_not_seen() {
        let mut reassembly = Reassembly::default();
        reassembly.make_room(4, 100).unwrap();
        reassembly.push(b"abcd");
        reassembly.make_room(1, 3).unwrap();
        assert_eq!((reassembly.len(), reassembly.room_bytes()), (4, 3), "most is most");
        reassembly.room(2).copy_from_slice(b"ef");
        reassembly.fill(2);
        assert_eq!(reassembly.bytes(), b"abcdef");
        assert_eq!(reassembly.bytes_from(3), b"def");
        let before = reassembly.storage_bytes();
        reassembly.clear();
        assert!(reassembly.is_empty() && reassembly.bytes().is_empty());
        reassembly.make_room(7, 7).unwrap();
        reassembly.push(b"g");
        assert_eq!((reassembly.bytes(), reassembly.storage_bytes()), (&b"g"[..], before));
        // Over what stood there, and behind it.
        reassembly.push(b"hijklm");
        assert_eq!(reassembly.bytes(), b"ghijklm");
        assert_eq!(reassembly.storage_bytes(), before);
    }

    #[test]
    fn what_cannot_be_had_is_refused_and_takes_nothing_away() {
        let mut reassembly = Reassembly::default();
        reassembly.make_room(3, 100).unwrap();
        reassembly.push(b"abc");
        for impossible in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 64] {
            assert!(reassembly.make_room(impossible, impossible).is_err(), "{impossible}");
            assert_eq!(reassembly.bytes(), b"abc");
        }
        reassembly.make_room(3, 100).unwrap();
        reassembly.push(b"def");
        assert_eq!(reassembly.bytes(), b"abcdef");
    }

    #[test]
    fn no_more_is_written_to_than_is_asked_for() {
        let mut reassembly = Reassembly::default();
        reassembly.make_room(1 << 20, 1 << 20).unwrap();
        assert_eq!(reassembly.room(1000).len(), 1000);
        assert_eq!(reassembly.storage.len(), LEAD + 1000);
        reassembly.fill(300);
        assert_eq!(reassembly.room(1000), [0; 1000]);
        assert_eq!(reassembly.storage.len(), LEAD + 1300);
    }

    #[test]
    fn what_becomes_long_moves_back_once_and_stays_what_it_was() {
        let mut reassembly = Reassembly::default();
        let mut expected = Vec::new();
        for round in 0..40_000_u32 {
            reassembly.make_room(3, usize::MAX).unwrap();
            let piece = &round.to_le_bytes()[..3];
            reassembly.push(piece);
            expected.extend_from_slice(piece);
            assert_eq!(
                reassembly.start,
                if reassembly.storage_bytes() < LED_FROM { 0 } else { LEAD }
            );
            assert_eq!(reassembly.len(), expected.len());
            if round.is_multiple_of(1000) {
                assert_eq!(reassembly.bytes(), expected);
            }
        }
        assert_eq!(reassembly.bytes_from(30_000), &expected[30_000..]);
        assert_eq!(reassembly.storage.capacity(), reassembly.storage_bytes() + LEAD);
        // The next message in the same storage stands where this one stood.
        reassembly.clear();
        reassembly.push(b"next");
        assert_eq!(
            (reassembly.bytes(), &reassembly.storage[LEAD..][..4]),
            (&b"next"[..], &b"next"[..])
        );
        let room = reassembly.room_bytes();
        reassembly.room(usize::MAX)[room - 1] = 7;
        assert_eq!(reassembly.storage_bytes(), room + 4);
    }

    #[test]
    fn growth_doubles() {
        let mut reassembly = Reassembly::default();
        let mut growths = 0;
        for _ in 0..100_000 {
            let before = reassembly.storage_bytes();
            reassembly.make_room(1, usize::MAX).unwrap();
            reassembly.push(b"x");
            growths += usize::from(reassembly.storage_bytes() != before);
            assert!(reassembly.storage_bytes() <= 2 * reassembly.len());
        }
        assert!(growths < 20, "{growths}");
    }
}

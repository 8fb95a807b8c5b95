//! Storage for a message that arrives in pieces, into which a socket can be read.
//!
//! Reading needs bytes that are there, so all of the storage is, from its first growth on; how much
//! of it has been written to is counted beside. So storage that one message has left can take the
//! next one as it is: the reactor keeps a few, and a message of a megabyte then costs no page of fresh
//! memory. Grows and counts; who may grow it how far is [`super::message`]'s to say.
//!
//! Invariant: what stands behind [`Gathered::bytes`], an earlier message maybe, is shown to nobody.
//!
//! Next: [`crate::protocol::message`], which puts frames together.

/// Bytes gathered, and the storage that they are in.
#[derive(Debug, Default)]
pub struct Gathered {
    storage: Vec<u8>,
    filled: usize,
}

impl Gathered {
    /// What has been gathered.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.storage[..self.filled]
    }

    /// What has been gathered since there were `start` bytes.
    pub fn bytes_from(&mut self, start: usize) -> &mut [u8] {
        &mut self.storage[start..self.filled]
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

    /// Bytes of storage.
    #[must_use]
    pub fn storage_bytes(&self) -> usize {
        self.storage.capacity()
    }

    /// Bytes that it can take without growing.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.storage.len() - self.filled
    }

    /// Forgets what was gathered and keeps the storage.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Sees to it that there is room for `wanted` bytes. The storage doubles, as `Vec`'s own would,
    /// so that a million fragments of a byte cost twenty copies and not a million (CVE-2026-48779
    /// pinned fifteen bytes for each); but it grows by no more than `most`.
    pub fn make_room(&mut self, wanted: usize, most: usize) {
        if self.room_bytes() >= wanted {
            return;
        }
        let more = self.filled.min(most).max(wanted);
        // Fresh memory is zero as it comes; to extend the old would be to zero it by hand.
        let mut storage = vec![0; self.filled + more];
        storage[..self.filled].copy_from_slice(self.bytes());
        self.storage = storage;
    }

    /// Where the next bytes belong, at most `most` of them.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let end = self.storage.len().min(self.filled.saturating_add(most));
        &mut self.storage[self.filled..end]
    }

    /// The first `count` bytes of [`Self::room`] have been written to.
    pub fn fill(&mut self, count: usize) {
        debug_assert!(count <= self.room_bytes());
        self.filled += count;
    }

    /// Appends; there must be room.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.fill(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_used_again_and_what_stood_in_it_is_not_seen() {
        let mut gathered = Gathered::default();
        gathered.make_room(4, 100);
        gathered.push(b"abcd");
        gathered.make_room(1, 3);
        assert_eq!((gathered.len(), gathered.room_bytes()), (4, 3), "most is most");
        gathered.room(2).copy_from_slice(b"ef");
        gathered.fill(2);
        assert_eq!(gathered.bytes(), b"abcdef");
        assert_eq!(gathered.bytes_from(3), b"def");
        let before = gathered.storage_bytes();
        gathered.clear();
        assert!(gathered.is_empty() && gathered.bytes().is_empty());
        gathered.make_room(7, 7);
        gathered.push(b"g");
        assert_eq!((gathered.bytes(), gathered.storage_bytes()), (&b"g"[..], before));
    }

    #[test]
    fn growth_doubles() {
        let mut gathered = Gathered::default();
        let mut growths = 0;
        for _ in 0..100_000 {
            let before = gathered.storage_bytes();
            gathered.make_room(1, usize::MAX);
            gathered.push(b"x");
            growths += usize::from(gathered.storage_bytes() != before);
            assert!(gathered.storage_bytes() <= 2 * gathered.len());
        }
        assert!(growths < 20, "{growths}");
    }
}

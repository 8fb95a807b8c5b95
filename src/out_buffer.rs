//! Bytes that wait for one socket to take them.
//!
//! An idle connection has none and owns none: the storage is borrowed from the reactor's
//! [`BufferPool`] with the first byte that has to wait, and goes back with the last one that left.
//! Writes nothing itself; the connection does.
//!
//! Invariant: storage is held exactly while bytes are queued.

use std::time::Instant;

/// The queue. Eight bytes while empty.
#[derive(Debug, Default)]
pub struct OutBuffer {
    queued: Option<Box<Queued>>,
}

#[derive(Debug)]
struct Queued {
    bytes: Vec<u8>,
    /// Where the first unsent byte is. A partial write moves this and not the bytes.
    start: usize,
    /// When the socket last took a byte, or the queue last was empty.
    progress: Instant,
}

/// Storage for [`OutBuffer`]s, kept warm between uses.
#[derive(Debug, Default)]
pub struct BufferPool {
    // Boxed as the queues hold them, so that lending one allocates nothing.
    #[expect(clippy::vec_box, reason = "the box itself is what is lent")]
    spare: Vec<Box<Queued>>,
}

/// Spare buffers kept at most, and the largest one kept: together they bound what a past burst
/// leaves behind at 4 MiB a reactor.
const SPARE_MOST: usize = 64;
const SPARE_BYTES_MOST: usize = 64 << 10;

impl OutBuffer {
    /// Bytes queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.bytes.len() - queued.start)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_none()
    }

    /// What to write next, all of it; empty if nothing waits.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        self.queued.as_ref().map_or(&[], |queued| &queued.bytes[queued.start..])
    }

    /// Since when no byte has left, if any wait.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        self.queued.as_ref().map(|queued| queued.progress)
    }

    /// Appends.
    pub fn push(&mut self, bytes: &[u8], now: Instant, pool: &mut BufferPool) {
        if bytes.is_empty() {
            return;
        }
        let queued = self.queued.get_or_insert_with(|| pool.take(now));
        // Before storage grows, the room of what has left is used again.
        if queued.start > 0 && queued.bytes.capacity() - queued.bytes.len() < bytes.len() {
            queued.bytes.drain(..queued.start);
            queued.start = 0;
        }
        queued.bytes.extend_from_slice(bytes);
    }

    /// Notes that the socket took `count` bytes of [`Self::front`].
    pub fn advance(&mut self, count: usize, now: Instant, pool: &mut BufferPool) {
        let Some(queued) = &mut self.queued else {
            debug_assert_eq!(count, 0, "nothing was queued");
            return;
        };
        queued.start += count;
        debug_assert!(queued.start <= queued.bytes.len());
        if queued.start == queued.bytes.len() {
            self.clear(pool);
        } else if count > 0 {
            queued.progress = now;
        }
    }

    /// Drops what waits, and gives the storage back.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        if let Some(queued) = self.queued.take() {
            pool.put_back(queued);
        }
    }
}

impl BufferPool {
    fn take(&mut self, now: Instant) -> Box<Queued> {
        match self.spare.pop() {
            Some(mut queued) => {
                queued.progress = now;
                queued
            }
            None => Box::new(Queued { bytes: Vec::new(), start: 0, progress: now }),
        }
    }

    fn put_back(&mut self, mut queued: Box<Queued>) {
        if self.spare.len() < SPARE_MOST && queued.bytes.capacity() <= SPARE_BYTES_MOST {
            queued.bytes.clear();
            queued.start = 0;
            self.spare.push(queued);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn storage_is_held_exactly_while_bytes_wait() {
        let (mut buffer, mut pool) = (OutBuffer::default(), BufferPool::default());
        let now = Instant::now();
        assert!(buffer.is_empty());
        buffer.push(b"", now, &mut pool);
        assert!(buffer.is_empty());
        buffer.push(b"hello", now, &mut pool);
        let later = now + Duration::from_secs(1);
        buffer.advance(2, later, &mut pool);
        assert_eq!((buffer.front(), buffer.stalled_since()), (&b"llo"[..], Some(later)));
        buffer.push(b"!", later, &mut pool);
        assert_eq!((buffer.front(), buffer.len()), (&b"llo!"[..], 4));
        buffer.advance(4, later, &mut pool);
        assert!(buffer.is_empty());
        assert_eq!(pool.spare.len(), 1);
        buffer.push(b"again", later, &mut pool);
        assert_eq!((buffer.front(), pool.spare.len()), (&b"again"[..], 0));
    }

    #[test]
    fn room_of_what_left_is_used_before_storage_grows() {
        let (mut buffer, mut pool) = (OutBuffer::default(), BufferPool::default());
        let now = Instant::now();
        for _ in 0..1000 {
            buffer.push(&[1; 64], now, &mut pool);
            buffer.advance(63, now, &mut pool);
        }
        assert_eq!(buffer.len(), 1000);
        assert!(buffer.queued.unwrap().bytes.capacity() < 8192);
    }

    #[test]
    fn a_burst_leaves_little_behind() {
        let mut pool = BufferPool::default();
        let now = Instant::now();
        let mut buffer = OutBuffer::default();
        buffer.push(&vec![0; 1 << 20], now, &mut pool);
        buffer.clear(&mut pool);
        assert!(pool.spare.is_empty());
    }
}

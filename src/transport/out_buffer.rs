//! Bytes that wait for one socket to take them.
//!
//! An idle connection has none and owns none: the storage is borrowed from the reactor's
//! [`BufferPool`] with the first byte that has to wait, and goes back with the last one that left.
//! It is a row of chunks: a long queue is never copied to make room, gives storage back as it
//! leaves, and owns little more than it holds. Writes nothing itself; the transport does.
//!
//! Growing can fail, for a peer decides how long a queue gets. The caller of `push` then ends that
//! connection.
//!
//! The end of a queue may be *held*: bytes that must not leave before a batch of sessions is stored, and all
//! that is queued behind them. One batch is under way at a time, and one is collected meanwhile; so there are
//! two stages ([`Stage`]).
//!
//! Invariant: storage is held exactly while bytes are queued, and is at most [`SLACK`] more. Held bytes are
//! the last of the queue: first those of the batch under way, then those of the one that is collected.
//!
//! Next: `encrypted`: a transport with TLS in it.

use std::collections::{TryReserveError, VecDeque};
use std::time::Instant;

use crate::transport::tls::TlsScratch;

/// Bytes of a chunk, and so of the longest single write from a queue. 32 KiB: the copy into the
/// kernel outweighs the call.
const CHUNK: usize = 32 << 10;

/// How much more storage than bytes a queue holds at most: what has left of its first chunk, and
/// what is free in its last.
pub const SLACK: usize = 2 * CHUNK;

/// The queue. Eight bytes while empty.
#[derive(Debug, Default)]
pub struct OutBuffer {
    queued: Option<Box<Queued>>,
}

#[derive(Debug)]
struct Queued {
    /// None is empty; all but the last are full.
    chunks: VecDeque<Vec<u8>>,
    /// Where the first unsent byte is in the first chunk. A partial write moves this and not the
    /// bytes.
    start: usize,
    /// Bytes unsent.
    len: usize,
    /// When the socket last took a byte, or the queue last was empty.
    progress: Instant,
    level: Level,
    /// Bytes that wait for the batch under way.
    held_under_way: usize,
    /// Bytes behind those, which wait for the batch that is collected.
    held_collected: usize,
}

/// For which batch bytes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The one that the store has.
    UnderWay,
    /// The one that is collected.
    Collected,
}

/// Whether a queue has been above the high-water mark, and not fallen to the low-water mark since. It
/// stands with the bytes, so that a connection of which nothing waits has no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Normal,
    High,
}

/// Storage for [`OutBuffer`]s, kept warm between uses.
#[derive(Debug, Default)]
pub struct BufferPool {
    // Boxed as the queues hold them, each with one chunk, so that lending one allocates nothing.
    #[expect(clippy::vec_box, reason = "the box itself is what is lent")]
    spare: Vec<Box<Queued>>,
    /// Where the TLS sessions of the reactor decrypt and encrypt: nothing without TLS.
    pub tls: TlsScratch,
}

/// Spare queues kept at most: 2 MiB a reactor are what a past burst leaves behind.
const SPARE_MOST: usize = 64;

/// What a [`BufferPool`] holds at most, in bytes.
pub const POOL: usize = SPARE_MOST * (CHUNK + 256) + TlsScratch::MOST;

impl OutBuffer {
    /// Bytes queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.len)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_none()
    }

    /// What to write next; empty if nothing waits that may leave. There may be more behind it.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        let first = self.queued.as_ref().and_then(|queued| Some((queued.chunks.front()?, queued)));
        first.map_or(&[], |(chunk, queued)| {
            let front = &chunk[queued.start..];
            &front[..front.len().min(queued.free())]
        })
    }

    /// Whether anything waits that may leave.
    #[must_use]
    pub fn has_free(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.free() > 0)
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.held())
    }

    /// Whether bytes are held for this batch.
    #[must_use]
    pub fn is_held_for(&self, stage: Stage) -> bool {
        self.queued.as_ref().is_some_and(|queued| match stage {
            Stage::UnderWay => queued.held_under_way > 0,
            Stage::Collected => queued.held_collected > 0,
        })
    }

    /// The batch that was collected is under way now. A second call changes nothing.
    pub fn batch_leaves(&mut self) {
        if let Some(queued) = &mut self.queued {
            let collected = std::mem::take(&mut queued.held_collected);
            debug_assert!(
                collected == 0 || queued.held_under_way == 0,
                "one batch is under way at a time"
            );
            queued.held_under_way += collected;
        }
    }

    /// The batch under way is stored: what was held for it may leave.
    pub fn batch_is_stored(&mut self, now: Instant) {
        if let Some(queued) = &mut self.queued
            && queued.held_under_way > 0
        {
            queued.held_under_way = 0;
            // The socket was not offered them before.
            queued.progress = now;
        }
    }

    /// What is held is not to leave at all. How many bytes that were.
    pub fn drop_held(&mut self, pool: &mut BufferPool) -> usize {
        let Some(queued) = &mut self.queued else { return 0 };
        let dropped = queued.held();
        (queued.held_under_way, queued.held_collected) = (0, 0);
        queued.len -= dropped;
        if queued.len == 0 {
            self.clear(pool);
            return dropped;
        }
        let mut left = dropped;
        while left > 0
            && let Some(last) = queued.chunks.back_mut()
        {
            let cut = left.min(last.len());
            last.truncate(last.len() - cut);
            left -= cut;
            if last.is_empty() {
                queued.chunks.pop_back();
            }
        }
        dropped
    }

    /// All that waits, as one piece.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    pub fn to_vec(&self) -> Result<Vec<u8>, TryReserveError> {
        let mut all = Vec::new();
        if let Some(queued) = &self.queued {
            debug_assert_eq!(queued.held(), 0, "what is held is not handed over");
            all.try_reserve_exact(queued.len)?;
            all.extend_from_slice(self.front());
            queued.chunks.iter().skip(1).for_each(|chunk| all.extend_from_slice(chunk));
        }
        Ok(all)
    }

    /// Bytes of storage held.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn storage(&self) -> usize {
        self.queued.as_ref().map_or(0, |queued| queued.chunks.iter().map(Vec::capacity).sum())
    }

    /// Since when no byte has left, if any wait that may.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Instant> {
        self.queued.as_ref().filter(|queued| queued.free() > 0).map(|queued| queued.progress)
    }

    /// Whether it has been above the high-water mark, and is not known to have fallen to the low-water
    /// mark since.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.queued.as_ref().is_some_and(|queued| queued.level == Level::High)
    }

    /// Notes that it is above the high-water mark.
    pub fn note_high(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.level = Level::High;
        }
    }

    /// Notes that it has fallen to the low-water mark.
    pub fn note_low(&mut self) {
        if let Some(queued) = &mut self.queued {
            queued.level = Level::Normal;
        }
    }

    /// Appends. Behind bytes that are held these are held too, for the same batch as the last of them.
    ///
    /// # Errors
    ///
    /// When there is no memory for all of it. How much of it is queued then is not said: the stream
    /// has a hole, and the connection is over.
    pub fn push(
        &mut self,
        bytes: &[u8],
        now: Instant,
        pool: &mut BufferPool,
    ) -> Result<(), TryReserveError> {
        self.append(bytes, None, now, pool)
    }

    /// Appends bytes that are held, until this batch is stored. None are to be held for the batch under way
    /// behind some for the one that is collected: those wait for it too.
    ///
    /// # Errors
    ///
    /// As those of [`Self::push`].
    pub fn push_held(
        &mut self,
        bytes: &[u8],
        stage: Stage,
        now: Instant,
        pool: &mut BufferPool,
    ) -> Result<(), TryReserveError> {
        self.append(bytes, Some(stage), now, pool)
    }

    /// Appends bytes that wait for the later of this batch and the one that the bytes before them wait for.
    fn append(
        &mut self,
        bytes: &[u8],
        stage: Option<Stage>,
        now: Instant,
        pool: &mut BufferPool,
    ) -> Result<(), TryReserveError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let queued = self.queued.get_or_insert_with(|| pool.take(now));
        queued.push(bytes)?;
        if stage == Some(Stage::Collected) || queued.held_collected > 0 {
            queued.held_collected += bytes.len();
        } else if stage == Some(Stage::UnderWay) || queued.held_under_way > 0 {
            queued.held_under_way += bytes.len();
        }
        Ok(())
    }

    /// Notes that the socket took `count` bytes of [`Self::front`].
    pub fn advance(&mut self, count: usize, now: Instant, pool: &mut BufferPool) {
        let Some(queued) = &mut self.queued else {
            debug_assert_eq!(count, 0, "nothing was queued");
            return;
        };
        debug_assert!(queued.start + count <= queued.chunks.front().map_or(0, Vec::len));
        debug_assert!(count <= queued.free(), "what is held has left");
        queued.start += count;
        queued.len -= count;
        if queued.len == 0 {
            self.clear(pool);
        } else if count > 0 {
            queued.progress = now;
            if queued.chunks.front().is_some_and(|chunk| chunk.len() == queued.start) {
                queued.chunks.pop_front();
                queued.start = 0;
            }
        }
    }

    /// Drops what waits, and gives the storage back.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        if let Some(queued) = self.queued.take() {
            pool.put_back(queued);
        }
    }
}

impl Queued {
    fn held(&self) -> usize {
        self.held_under_way + self.held_collected
    }

    fn free(&self) -> usize {
        self.len - self.held()
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), TryReserveError> {
        // Before the only chunk grows, the room of what has left is used again, if that is the
        // larger part: so no byte is moved more often than another one leaves.
        if let (1, Some(only)) = (self.chunks.len(), self.chunks.front_mut())
            && only.capacity() - only.len() < bytes.len()
            && self.start >= only.len() - self.start
        {
            only.drain(..self.start);
            self.start = 0;
        }
        while !bytes.is_empty() {
            let taken = match self.chunks.back_mut() {
                Some(last) if last.len() < CHUNK => append(last, bytes)?,
                _ => {
                    let mut next = Vec::new();
                    let taken = append(&mut next, bytes)?;
                    self.chunks.try_reserve(1)?;
                    self.chunks.push_back(next);
                    taken
                }
            };
            self.len += taken;
            bytes = &bytes[taken..];
        }
        Ok(())
    }
}

/// Appends what the chunk has room for; its storage doubles, and never passes [`CHUNK`].
fn append(chunk: &mut Vec<u8>, bytes: &[u8]) -> Result<usize, TryReserveError> {
    let room = CHUNK - chunk.len();
    let taken = bytes.len().min(room);
    if chunk.capacity() - chunk.len() < taken {
        chunk.try_reserve_exact(chunk.len().clamp(taken, room))?;
    }
    chunk.extend_from_slice(&bytes[..taken]);
    Ok(taken)
}

impl BufferPool {
    fn take(&mut self, now: Instant) -> Box<Queued> {
        match self.spare.pop() {
            Some(mut queued) => {
                queued.progress = now;
                queued
            }
            None => {
                let chunks = VecDeque::with_capacity(1);
                Box::new(Queued {
                    chunks,
                    start: 0,
                    len: 0,
                    progress: now,
                    level: Level::Normal,
                    held_under_way: 0,
                    held_collected: 0,
                })
            }
        }
    }

    fn put_back(&mut self, mut queued: Box<Queued>) {
        if self.spare.len() < SPARE_MOST {
            queued.chunks.truncate(1);
            queued.chunks.shrink_to(4);
            queued.chunks.iter_mut().for_each(Vec::clear);
            (queued.start, queued.len, queued.level) = (0, 0, Level::Normal);
            (queued.held_under_way, queued.held_collected) = (0, 0);
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
        buffer.push(b"", now, &mut pool).unwrap();
        assert!(buffer.is_empty());
        buffer.push(b"hello", now, &mut pool).unwrap();
        let later = now + Duration::from_secs(1);
        buffer.advance(2, later, &mut pool);
        assert_eq!((buffer.front(), buffer.stalled_since()), (&b"llo"[..], Some(later)));
        buffer.push(b"!", later, &mut pool).unwrap();
        assert_eq!((buffer.front(), buffer.len()), (&b"llo!"[..], 4));
        buffer.advance(4, later, &mut pool);
        assert!(buffer.is_empty());
        assert_eq!(pool.spare.len(), 1);
        buffer.push(b"again", later, &mut pool).unwrap();
        assert_eq!((buffer.front(), pool.spare.len()), (&b"again"[..], 0));
    }

    #[test]
    fn what_is_held_leaves_batch_by_batch_and_nothing_overtakes_it() {
        use Stage::{Collected, UnderWay};
        let (mut buffer, mut pool) = (OutBuffer::default(), BufferPool::default());
        let now = Instant::now();
        buffer.push(b"before ", now, &mut pool).unwrap();
        buffer.push_held(b"one ", Collected, now, &mut pool).unwrap();
        buffer.push(b"pong ", now, &mut pool).unwrap();
        assert_eq!((buffer.front(), buffer.held()), (&b"before "[..], 9));
        buffer.batch_leaves();
        buffer.push(b"more ", now, &mut pool).unwrap();
        assert!(buffer.is_held_for(UnderWay) && !buffer.is_held_for(Collected));
        buffer.push_held(b"two ", Collected, now, &mut pool).unwrap();
        // The session of the first is stored by the second batch too.
        buffer.push_held(b"three ", UnderWay, now, &mut pool).unwrap();
        buffer.advance(7, now, &mut pool);
        assert_eq!(
            (buffer.front(), buffer.stalled_since(), buffer.has_free()),
            (&b""[..], None, false)
        );
        let later = now + Duration::from_secs(1);
        buffer.batch_is_stored(later);
        assert_eq!((buffer.front(), buffer.stalled_since()), (&b"one pong more "[..], Some(later)));
        buffer.advance(4, later, &mut pool);
        buffer.batch_leaves();
        buffer.batch_is_stored(later);
        assert_eq!(buffer.front(), b"pong more two three ");
        assert_eq!(buffer.held(), 0);
        buffer.clear(&mut pool);
        buffer.push_held(b"again", UnderWay, later, &mut pool).unwrap();
        assert_eq!((buffer.front(), buffer.len()), (&b""[..], 5));
    }

    #[test]
    fn what_is_held_can_be_dropped_and_the_rest_leaves() {
        use Stage::{Collected, UnderWay};
        let (mut buffer, mut pool) = (OutBuffer::default(), BufferPool::default());
        let now = Instant::now();
        assert_eq!(buffer.drop_held(&mut pool), 0);
        buffer.push(&vec![1; CHUNK - 1], now, &mut pool).unwrap();
        buffer.advance(10, now, &mut pool);
        assert_eq!(buffer.drop_held(&mut pool), 0);
        buffer.push_held(&vec![2; CHUNK], UnderWay, now, &mut pool).unwrap();
        buffer.push_held(&vec![3; 2 * CHUNK], Collected, now, &mut pool).unwrap();
        buffer.push(b"behind", now, &mut pool).unwrap();
        assert_eq!(buffer.drop_held(&mut pool), 3 * CHUNK + 6);
        assert_eq!((buffer.len(), buffer.held()), (CHUNK - 11, 0));
        buffer.push(b"more", now, &mut pool).unwrap();
        let all = [&[1; CHUNK - 11][..], b"more"].concat();
        assert!(buffer.to_vec().unwrap() == all && buffer.storage() <= all.len() + SLACK);
        buffer.clear(&mut pool);
        buffer.push_held(b"all of it", UnderWay, now, &mut pool).unwrap();
        assert_eq!((buffer.drop_held(&mut pool), buffer.is_empty()), (9, true));
    }

    #[test]
    fn room_of_what_left_is_used_before_storage_grows() {
        let (mut buffer, mut pool) = (OutBuffer::default(), BufferPool::default());
        let now = Instant::now();
        for _ in 0..1000 {
            buffer.push(&[1; 64], now, &mut pool).unwrap();
            buffer.advance(63, now, &mut pool);
        }
        assert_eq!(buffer.len(), 1000);
        assert!(buffer.storage() < 8192);
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came_and_storage_stays_close() {
        let (mut buffer, mut pool) = (OutBuffer::default(), BufferPool::default());
        let now = Instant::now();
        let (mut pushed, mut left, mut seed) = (0usize, 0usize, 1u64);
        for round in 0..3000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Up for a while, then down.
            let largest = if round < 1500 { 9000 } else { 900 };
            let bytes: Vec<u8> =
                (0..(seed >> 33) as usize % largest).map(|n| (pushed + n) as u8).collect();
            buffer.push(&bytes, now, &mut pool).unwrap();
            pushed += bytes.len();
            let taken = (seed >> 20) as usize % 4000;
            let front = buffer.front();
            let taken = taken.min(front.len());
            for (at, byte) in front[..taken].iter().enumerate() {
                assert_eq!(*byte, (left + at) as u8);
            }
            buffer.advance(taken, now, &mut pool);
            left += taken;
            assert_eq!(buffer.len(), pushed - left);
            assert!(buffer.storage() <= buffer.len() + SLACK, "round {round}");
        }
        let all = buffer.to_vec().unwrap();
        assert!(all.len() > CHUNK, "this was too easy");
        assert!(all.iter().enumerate().all(|(at, byte)| *byte == (left + at) as u8));
    }

    #[test]
    fn a_burst_leaves_little_behind() {
        let mut pool = BufferPool::default();
        let now = Instant::now();
        let mut buffers: Vec<_> = (0..SPARE_MOST + 10).map(|_| OutBuffer::default()).collect();
        for buffer in &mut buffers {
            buffer.push(&vec![0; 1 << 20], now, &mut pool).unwrap();
        }
        buffers.iter_mut().for_each(|buffer| buffer.clear(&mut pool));
        let queues = pool.spare.iter();
        let bytes: usize = queues.flat_map(|queued| &queued.chunks).map(Vec::capacity).sum();
        assert!(pool.spare.len() == SPARE_MOST && bytes <= POOL, "{bytes}");
    }
}

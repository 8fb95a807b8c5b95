//! Inflating whole messages, a share at a time, with one decompressor a reactor.
//!
//! Sixteen KiB can inflate to sixteen MiB, and sixteen MiB of nothing but code tables take a second
//! and a half to read: so neither the wire nor the result bounds the work. A visit's *share* does.
//! A message that needs more than one share is long. Long messages take turns in a *lane*: the reactor
//! inflates one of them at a time, and the others wait as they came. So no more than one half-inflated
//! message is in memory, whatever the peers send. Short messages do not wait for the lane.
//!
//! Invariant: what is inflated never takes more storage than the limit for a message and one byte.
//!
//! Next: `deflater`, what goes out.

use std::rc::Rc;

use flate2::{Decompress, FlushDecompress, Status};

use super::{DeflateParams, Inflation};
use crate::protocol::frame::Violation;

/// What is put behind a deflated message before it is inflated: the four bytes that its sender left
/// out (RFC 7692 7.2.2), then a final empty block. With that a message is whole exactly if its last
/// DEFLATE stream ends at the last of these bytes.
const TAIL: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// Bytes given to the decompressor at once, so also the most by which a share can be overdrawn. They
/// inflate to at most a MiB.
const STEP: usize = 1024;

/// What a byte read costs of the share, if a byte written costs 1. Measured: a byte of code tables
/// takes 90 ns to read, a byte of text 1 to 3 ns to write.
const INPUT_WEIGHT: usize = 16;

/// Storage that a message begins with; it doubles from there.
const FIRST_STORAGE: usize = 4096;

/// The decompressor of a reactor, and its lane. Costs some 40 KiB once it has been used. Inflates
/// nothing until it is granted a share.
#[derive(Debug, Default)]
pub struct Inflater {
    idle: Option<Decompress>,
    /// The message in the lane holds a second reference. So the lane is free again when that is
    /// dropped, whatever becomes of the connection.
    lane: Rc<()>,
    share: usize,
    whole_share: usize,
}

/// How far a message that waits is inflated. Kept beside its deflated bytes.
#[derive(Debug, Default)]
pub struct Progress {
    under_way: Option<Box<UnderWay>>,
    /// A whole share was not enough: without the lane there is no use in trying.
    is_long: bool,
}

/// A message of which some is inflated.
#[derive(Debug)]
struct UnderWay {
    stream: Decompress,
    /// Bytes read of the message and of [`TAIL`] behind it.
    taken: usize,
    inflated: Vec<u8>,
    lane: Option<Rc<()>>,
}

impl Inflater {
    /// Begins the next connection's visit: it has this share.
    pub fn grant_share(&mut self, share: usize) {
        (self.share, self.whole_share) = (share, share);
    }

    fn lane_is_free(&self) -> bool {
        Rc::strong_count(&self.lane) == 1
    }

    /// Inflates the message `deflated` as far as the share goes; the whole of it then stands in
    /// `assembled`.
    ///
    /// # Errors
    ///
    /// [`Violation::NotDeflate`], [`Violation::TooBig`] at the first byte beyond `max_size`, or
    /// [`Violation::OutOfMemory`].
    pub fn advance(
        &mut self,
        _params: DeflateParams,
        progress: &mut Progress,
        deflated: &[u8],
        max_size: usize,
        assembled: &mut Vec<u8>,
    ) -> Result<Inflation, Violation> {
        if self.share == 0 {
            return Ok(Inflation::InPart);
        }
        let mut under_way = match progress.under_way.take() {
            Some(under_way) => *under_way,
            None if progress.is_long && !self.lane_is_free() => return Ok(Inflation::InPart),
            None => self.begin(assembled),
        };
        let had_whole_share = self.share == self.whole_share;
        if under_way.advance(deflated, max_size, &mut self.share)? == Inflation::Whole {
            *assembled = under_way.inflated;
            self.idle = Some(under_way.stream);
            return Ok(Inflation::Whole);
        }
        if under_way.lane.is_none() && self.lane_is_free() {
            under_way.lane = Some(self.lane.clone());
        }
        if under_way.lane.is_some() {
            progress.under_way = Some(Box::new(under_way));
        } else {
            // It starts over when it is its turn: to keep what half of them have become is what the
            // lane is there to avoid.
            progress.is_long = had_whole_share;
            *assembled = under_way.inflated;
            self.idle = Some(under_way.stream);
        }
        Ok(Inflation::InPart)
    }

    fn begin(&mut self, assembled: &mut Vec<u8>) -> UnderWay {
        let mut stream = self.idle.take().unwrap_or_else(|| Decompress::new(false));
        stream.reset(false);
        let mut inflated = std::mem::take(assembled);
        inflated.clear();
        UnderWay { stream, taken: 0, inflated, lane: None }
    }
}

impl Progress {
    /// What there is of the message so far.
    #[must_use]
    pub fn inflated(&self) -> &[u8] {
        self.under_way.as_ref().map_or(&[], |under_way| &under_way.inflated)
    }

    /// Bytes of storage held for it.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.under_way.as_ref().map_or(0, |under_way| under_way.inflated.capacity())
    }

    /// Leaves the lane to others, and what was inflated with it.
    pub fn give_up(&mut self) {
        self.under_way = None;
    }
}

impl UnderWay {
    fn advance(
        &mut self,
        deflated: &[u8],
        max_size: usize,
        share: &mut usize,
    ) -> Result<Inflation, Violation> {
        let end = deflated.len() + TAIL.len();
        while *share > 0 {
            let rest = match self.taken.checked_sub(deflated.len()) {
                None => &deflated[self.taken..],
                Some(taken_of_tail) => &TAIL[taken_of_tail..],
            };
            let offered = &rest[..rest.len().min(STEP)];
            self.make_room(max_size)?;
            let (taken, length) = (self.stream.total_in(), self.inflated.len());
            let status = self
                .stream
                .decompress_vec(offered, &mut self.inflated, FlushDecompress::None)
                .map_err(|_| Violation::NotDeflate)?;
            let taken = (self.stream.total_in() - taken) as usize;
            let written = self.inflated.len() - length;
            self.taken += taken;
            if self.inflated.len() > max_size {
                return Err(Violation::TooBig);
            }
            *share = share.saturating_sub(INPUT_WEIGHT * taken + written);
            match status {
                Status::StreamEnd if self.taken == end => return Ok(Inflation::Whole),
                // A block may say that it is the last and not be the message's (RFC 7692 7.2.1): the
                // next begins at the next byte. It cannot look back over the end.
                Status::StreamEnd => self.stream.reset(false),
                // The message ends in the middle of a block.
                _ if taken == 0 && written == 0 => return Err(Violation::NotDeflate),
                _ => {}
            }
        }
        Ok(Inflation::InPart)
    }

    /// Room for one byte at least, and never for more than one byte too many.
    fn make_room(&mut self, max_size: usize) -> Result<(), Violation> {
        let length = self.inflated.len();
        if length < self.inflated.capacity() {
            return Ok(());
        }
        let more = length.max(FIRST_STORAGE).min(max_size + 1 - length);
        self.inflated.try_reserve_exact(more).map_err(|_| Violation::OutOfMemory)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::super::params::tests::params;
    use super::*;

    const MIB: usize = 1 << 20;
    const SHARE: usize = 512 << 10;

    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut stream = Compress::new(Compression::best(), false);
        let mut out = Vec::with_capacity(message.len() + message.len() / 8 + 64);
        stream.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(stream.total_in(), message.len() as u64);
        out.truncate(out.len() - 4);
        out
    }

    /// Bytes that do not compress (splitmix64).
    pub(in super::super) fn noise(count: usize) -> Vec<u8> {
        let byte = |at: u64| {
            let mut z = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
        };
        (1..=count as u64).map(byte).collect()
    }

    /// Fields of so many bits each, the lowest first (RFC 1951 3.1.1), over and over.
    fn bits(fields: &[(u32, u32)], times: usize) -> Vec<u8> {
        let (mut out, mut held, mut count) = (Vec::new(), 0u64, 0);
        for (value, width) in fields.repeat(times) {
            held |= u64::from(value) << count;
            count += width;
            while count >= 8 {
                out.push(held as u8);
                held >>= 8;
                count -= 8;
            }
        }
        if count > 0 {
            out.push(held as u8);
        }
        out
    }

    /// Blocks of nothing but a code table: that of block type 2 with the end-of-block code alone.
    fn empty_tables(times: usize) -> Vec<u8> {
        let mut fields = vec![(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)];
        // Lengths of the codes for code lengths: 1 bit for "1" and for "many zeros".
        let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1];
        fields.extend(order.map(|symbol| (u32::from(symbol == 18 || symbol == 1), 3)));
        // 138 zeros and 118 zeros, for the literals; 1 for end-of-block; 1 for the one distance.
        fields.extend([(1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)]);
        bits(&fields, times)
    }

    /// Inflates it, in as many visits as it takes; how many, and what came out.
    fn inflate_with(
        inflater: &mut Inflater,
        deflated: &[u8],
        max_size: usize,
    ) -> (usize, Result<Vec<u8>, Violation>) {
        let (mut progress, mut message) = (Progress::default(), Vec::new());
        for visit in 1.. {
            inflater.grant_share(SHARE);
            let advanced =
                inflater.advance(params(), &mut progress, deflated, max_size, &mut message);
            assert!(progress.held_bytes() <= max_size + 1);
            assert!(message.capacity() <= max_size.max(FIRST_STORAGE) + 1);
            match advanced {
                Ok(Inflation::Whole) => return (visit, Ok(message)),
                Ok(Inflation::InPart) => {}
                Err(violation) => return (visit, Err(violation)),
            }
        }
        unreachable!()
    }

    fn inflate(deflated: &[u8], max_size: usize) -> (usize, Result<Vec<u8>, Violation>) {
        inflate_with(&mut Inflater::default(), deflated, max_size)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692 7.2.3.1 to 7.2.3.6.
        for (deflated, message) in [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], "Hello"),
            (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], "Hello"),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], "Hello"),
            (
                &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
                "Hello",
            ),
            (&[0x00], ""),
        ] {
            assert_eq!(inflate(deflated, 5), (1, Ok(message.into())), "{deflated:x?}");
        }
        // The second "Hello" of 7.2.3.2 looks back into the first, which is forgotten.
        let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(inflate(&second, 5), (1, Err(Violation::NotDeflate)));
    }

    #[test]
    fn a_message_that_is_cut_short_or_goes_on_is_none() {
        let digits: String = (0..1000).map(|n| n.to_string()).collect();
        for message in [&b"Hello"[..], b"abcabcabcabcabcabc", digits.as_bytes()] {
            let whole = deflated(message);
            assert_eq!(inflate(&whole, 4000).1.unwrap(), message);
            for cut in 0..whole.len() {
                let cut_short = inflate(&whole[..cut], 4000).1;
                assert_eq!(cut_short, Err(Violation::NotDeflate), "at {cut} of {}", whole.len());
            }
            for more in [&[0xff][..], &[0x00], &TAIL[..4], &[0, 0xff, 0xff]] {
                let longer = [&whole, more].concat();
                assert_eq!(inflate(&longer, 4000).1, Err(Violation::NotDeflate), "{more:x?}");
            }
        }
    }

    #[test]
    fn several_streams_in_one_message_and_none_looks_back() {
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let thrice = [&last[..], &last, &last, &[0x00]].concat();
        assert_eq!(inflate(&thrice, 100).1.unwrap(), b"HelloHelloHello");
        assert_eq!(inflate(&thrice, 14).1, Err(Violation::TooBig));
        // "Hello" by a look back of 5 (7.2.3.2), behind an end.
        let back = [&last[..], &[0xf2, 0x00, 0x11, 0x00, 0x00]].concat();
        assert_eq!(inflate(&back, 100).1, Err(Violation::NotDeflate));
    }

    #[test]
    fn the_limit_bites_at_the_byte_that_passes_it() {
        for size in [0, 1, 100, FIRST_STORAGE, 3 * FIRST_STORAGE + 7] {
            let deflated = deflated(&vec![b'x'; size]);
            assert_eq!(inflate(&deflated, size).1.unwrap(), vec![b'x'; size], "{size}");
            if size > 0 {
                assert_eq!(inflate(&deflated, size - 1).1, Err(Violation::TooBig), "{size}");
            }
        }
    }

    #[test]
    fn a_bomb_takes_its_share_of_a_visit_and_its_limit_of_memory() {
        let bomb = deflated(&vec![0; 16 * MIB]);
        assert!(bomb.len() < 17_000, "{}", bomb.len());
        let (visits, inflated) = inflate(&bomb, 16 * MIB);
        assert_eq!(inflated.unwrap().len(), 16 * MIB);
        // A KiB read makes a MiB, which is two shares.
        assert!(visits >= 15, "{visits}");
        let (visits, inflated) = inflate(&bomb, 16 * MIB - 1);
        assert_eq!((visits >= 15, inflated), (true, Err(Violation::TooBig)));
        // What inflates to a bomb is a small message.
        let nested = deflated(&bomb);
        assert_eq!(inflate(&nested, 20_000).1.unwrap(), bomb);
    }

    #[test]
    fn what_inflates_to_nothing_takes_its_share_too() {
        let read_a_visit = SHARE / INPUT_WEIGHT + STEP;
        for (what, endless) in [
            ("stored", [0, 0, 0, 0xff, 0xff].repeat(MIB / 5)),
            // So many that they end with a byte.
            ("fixed", bits(&[(0, 1), (1, 2), (0, 7)], (MIB * 8 / 10) & !3)),
            ("tables", empty_tables((MIB * 8 / 90) & !3)),
            ("ends", [0x03, 0x00].repeat(MIB / 2)),
        ] {
            let message = [&endless[..], &[0x00]].concat();
            let (visits, inflated) = inflate(&message, MIB);
            assert!(visits >= message.len() / read_a_visit, "{what}: {visits} visits");
            assert!(inflated.is_ok_and(|inflated| inflated.is_empty()), "{what}");
        }
    }

    #[test]
    fn long_messages_take_turns_and_short_ones_pass_by() {
        let mut inflater = Inflater::default();
        let long = deflated(&vec![b'l'; 4 * MIB]);
        let short = deflated(b"short");
        let (mut first, mut second) = (Progress::default(), Progress::default());
        let mut message = Vec::new();
        let mut visit = |progress: &mut Progress, deflated: &[u8]| {
            inflater.grant_share(SHARE);
            let inflation =
                inflater.advance(params(), progress, deflated, 4 * MIB, &mut message).unwrap();
            (inflation == Inflation::Whole).then(|| std::mem::take(&mut message))
        };
        assert_eq!(visit(&mut first, &long), None);
        assert!(first.held_bytes() > 0);
        for _ in 0..10 {
            assert_eq!(visit(&mut second, &long), None);
            assert_eq!(second.held_bytes(), 0, "one of them at a time");
            assert_eq!(visit(&mut Progress::default(), &short), Some(b"short".to_vec()));
        }
        // The message in the lane goes on, and frees the lane when it is done…
        let whole = std::iter::repeat_with(|| visit(&mut first, &long)).find_map(|whole| whole);
        assert_eq!(whole.unwrap().len(), 4 * MIB);
        assert_eq!(visit(&mut second, &long), None);
        assert!(second.held_bytes() > 0);
        // …or when it gives up, or its connection ends.
        second.give_up();
        let mut third = Progress::default();
        assert_eq!(visit(&mut third, &long), None);
        assert!(third.held_bytes() > 0);
        drop(third);
        let whole = std::iter::repeat_with(|| visit(&mut second, &long)).find_map(|whole| whole);
        assert_eq!(whole.unwrap().len(), 4 * MIB);
    }

    #[test]
    fn a_share_is_one_for_all_messages_of_a_visit() {
        let mut inflater = Inflater::default();
        let message = deflated(&vec![b'm'; 100_000]);
        let mut inflated = Vec::new();
        inflater.grant_share(SHARE);
        let mut count = 0;
        while inflater
            .advance(params(), &mut Progress::default(), &message, MIB, &mut inflated)
            .unwrap()
            == Inflation::Whole
        {
            count += 1;
        }
        assert_eq!(count, 5, "of 100,000 each, and 512 KiB in all");
    }

    #[test]
    fn random_bytes_end_and_keep_to_the_limit() {
        let noise = noise(50_000);
        let mut inflater = Inflater::default();
        for start in 0..2000 {
            let message = &noise[start..start + start % 300];
            if let Ok(inflated) = inflate_with(&mut inflater, message, 10_000).1 {
                assert!(inflated.len() <= 10_000);
            }
        }
    }
}

//! Conversations, drawn from a seed: what a client sends, how large a message may be, and where
//! the stream is cut. Half of them are right; the others were right until something was done to
//! them. Knows nothing of who will read them.

use super::frames::{ClientFrame, LengthForm};
use super::random::Random;

/// One of them.
pub(crate) struct Conversation {
    pub(crate) bytes: Vec<u8>,
    /// Where it is cut, in rising order; some cuts may be at the same place.
    pub(crate) cuts: Vec<usize>,
    pub(crate) max_size: usize,
}

/// On both sides of every boundary that the length field has, and of our own fast path.
const SIZES: [usize; 14] = [0, 1, 2, 7, 8, 9, 124, 125, 126, 127, 128, 65_535, 65_536, 70_000];

/// One character of each length in UTF-8, and those at the edges of the lengths.
const CHARACTERS: [char; 10] =
    ['a', '\u{7f}', '\u{80}', 'é', '\u{7ff}', '\u{800}', '€', '\u{ffff}', '😀', '\u{10ffff}'];

/// What no UTF-8 may contain: a lone continuation, overlong forms, a surrogate, beyond U+10FFFF,
/// a beginning without its end, bytes that never occur (RFC 3629).
const NOT_UTF8: [&[u8]; 9] = [
    b"\x80",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xe2\x82",
    b"\xff",
    b"\xfe",
];

/// Codes that may not stand in a Close (RFC 6455 7.4), next to some that may.
const CLOSE_CODES: [u16; 21] = [
    0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1014, 1015, 1016, 2999, 3000,
    3999, 4000, 4999, 5000, 65_535,
];

impl Conversation {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let mut frames = Vec::new();
        let mut largest = 0;
        for _ in 0..=random.below(6) {
            largest = largest.max(add_message(&mut frames, random));
        }
        end(&mut frames, random);
        let is_mutated = random.once_in(2);
        if is_mutated {
            for _ in 0..=random.below(2) {
                mutate_frame(&mut frames, random);
            }
        }
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for frame in &frames {
            starts.push(bytes.len());
            frame.write(&mut bytes);
        }
        if is_mutated && random.once_in(2) {
            mutate_bytes(&mut bytes, &starts, random);
        }
        let max_size = match random.below(8) {
            // The limit is reached, and passed by one.
            0 | 1 => largest.max(1),
            2 => (largest.max(2)) - 1,
            3 => 1 + random.below(200),
            _ => 1 << 17,
        };
        let cuts = cuts(bytes.len(), &starts, random);
        Conversation { bytes, cuts, max_size }
    }

    /// The stretches between the cuts.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let mut from = 0;
        ends.map(move |to| &self.bytes[std::mem::replace(&mut from, to)..to])
    }
}

/// A size near a boundary or anywhere; seldom a large one, for they take their time.
fn size(random: &mut Random) -> usize {
    match random.below(40) {
        0 => random.pick(&SIZES),
        1 => random.below(70_001),
        2..=9 => random.pick(&SIZES[..11]),
        10..=19 => random.below(300),
        _ => random.below(20),
    }
}

pub(crate) fn text(size: usize, random: &mut Random) -> String {
    let mut text = String::with_capacity(size);
    let is_plain = random.once_in(3);
    while text.len() < size {
        let next = if is_plain { 'x' } else { random.pick(&CHARACTERS) };
        // What does not fit in any more is filled up with what does.
        text.push(if text.len() + next.len_utf8() > size { '.' } else { next });
    }
    text
}

/// Adds a message in one to six fragments, cut anywhere, with control frames in between; returns
/// its size.
fn add_message(frames: &mut Vec<ClientFrame>, random: &mut Random) -> usize {
    let size = size(random);
    let (opcode, payload) = if random.once_in(2) {
        (0x1, text(size, random).into_bytes())
    } else {
        (0x2, random.bytes(size))
    };
    let mut ends: Vec<usize> = match random.below(3) {
        0 => (0..random.below(6)).map(|_| random.below(size + 1)).collect(),
        _ => Vec::new(),
    };
    ends.sort_unstable();
    ends.push(size);
    let last = ends.len() - 1;
    let mut from = 0;
    for (number, to) in ends.into_iter().enumerate() {
        let opcode = if number == 0 { opcode } else { 0x0 };
        let fin = if number == last { 0x80 } else { 0 };
        let payload = payload[from..to].to_vec();
        frames.push(ClientFrame::new(fin | opcode, payload, random.mask()));
        from = to;
        while random.once_in(6) {
            let opcode = random.pick(&[0x89, 0x8a]);
            let size = random.pick(&[0, 1, 4, 5, 124, 125]);
            frames.push(ClientFrame::new(opcode, random.bytes(size), random.mask()));
        }
    }
    size
}

/// Ends a conversation: with a Close and perhaps words behind it, or with nothing.
fn end(frames: &mut Vec<ClientFrame>, random: &mut Random) {
    if random.once_in(4) {
        return;
    }
    let payload = match random.below(3) {
        0 => Vec::new(),
        _ => {
            let code = random.pick(&[1000u16, 1001, 1011, 1012, 3000, 4999]);
            let size = random.pick(&[0, 0, 3, 122, 123]);
            [&code.to_be_bytes(), text(size, random).as_bytes()].concat()
        }
    };
    frames.push(ClientFrame::new(0x88, payload, random.mask()));
    if random.once_in(3) {
        add_message(frames, random);
    }
}

/// Does something to one frame, or to the order of them, that makes the whole wrong; now and then
/// it stays right.
fn mutate_frame(frames: &mut Vec<ClientFrame>, random: &mut Random) {
    let at = random.below(frames.len());
    let frame = &mut frames[at];
    match random.below(15) {
        0 => frame.first ^= random.pick(&[0x10, 0x20, 0x40, 0x70]),
        1 => frame.first = frame.first & 0xf0 | random.below(16) as u8,
        2 => frame.first ^= 0x80,
        3 => frame.mask = None,
        4 => frame.form = random.pick(&[LengthForm::SixteenBits, LengthForm::SixtyFourBits]),
        5 => {
            frame.form = LengthForm::SixtyFourBits;
            frame.declared = Some(random.next() | 1 << 63);
        }
        6 => {
            let length = frame.payload.len() as u64;
            let other = [length + 1, length.saturating_sub(1), 126, 0xffff, 0x1_0000, 1 << 40];
            frame.declared = Some(random.pick(&other));
        }
        7 => {
            let twin = frame.clone();
            frames.insert(at, twin);
        }
        8 if frames.len() > 1 => {
            frames.remove(at);
        }
        9 => {
            let other = random.below(frames.len());
            frames.swap(at, other);
        }
        10 | 11 => {
            // Somewhere in the payload, and of text if there is any.
            let text = frames.iter().position(|frame| frame.first & 0x0f == 1).unwrap_or(at);
            let payload = &mut frames[text].payload;
            let from = random.below(payload.len() + 1);
            let to = (from + random.below(3)).min(payload.len());
            payload.splice(from..to, random.pick(&NOT_UTF8).iter().copied());
        }
        12 | 13 => {
            let code = random.pick(&CLOSE_CODES).to_be_bytes();
            let reason: &[u8] = if random.once_in(3) { random.pick(&NOT_UTF8) } else { b"bye" };
            let payload = match random.below(4) {
                0 => vec![3],
                _ => [&code, reason].concat(),
            };
            frames.insert(at, ClientFrame::new(0x88, payload, random.mask()));
        }
        _ => {
            let size = random.pick(&[126, 127, 200]);
            let first = random.pick(&[0x88, 0x89, 0x8a, 0x09]);
            frames.insert(at, ClientFrame::new(first, random.bytes(size), random.mask()));
        }
    }
}

/// Does something to the stream that knows no frames; at headers more often than they are long.
fn mutate_bytes(bytes: &mut Vec<u8>, starts: &[usize], random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = match random.below(2) {
        0 => random.below(bytes.len()),
        _ => (random.pick(starts) + random.below(14)).min(bytes.len() - 1),
    };
    let to = (at + 1 + random.below(20)).min(bytes.len());
    match random.below(6) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 => bytes.extend_from_within(at..to),
        4 => {
            bytes.drain(at..to);
        }
        _ => {
            let noise = random.bytes(to - at);
            bytes.splice(at..at, noise);
        }
    }
}

fn cuts(length: usize, starts: &[usize], random: &mut Random) -> Vec<usize> {
    let mut cuts: Vec<usize> = match random.below(5) {
        0 => Vec::new(),
        // Byte by byte, as far as that is quick.
        1 => (1..length.min(1500)).collect(),
        2 => (0..random.below(12)).map(|_| random.below(length + 1)).collect(),
        3 => (0..length).step_by(1 + random.below(4096).max(length / 200)).collect(),
        // In and around the headers.
        _ => starts.iter().map(|start| (start + random.below(15)).min(length)).collect(),
    };
    cuts.sort_unstable();
    cuts
}

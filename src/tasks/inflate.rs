//! Inflates what RQ has deflated: the traceback of a job that has failed.
//!
//! Sans-IO, and a hundred lines instead of two crates: the default build has none for it, and a traceback has some
//! hundred bytes, so speed is of no matter (RFC 1950, RFC 1951; the codes are decoded bit by bit, as in zlib's `puff`).
//! The checksum is not looked at: TCP has one, and a wrong message would be shown, no more. Called by `rq`.
//!
//! Invariant: what comes out is no longer than the caller allows, whatever comes in.
//!
//! Next: `rq`: what is said to workers of RQ.

/// Bits of a code at most.
const CODE_BITS: usize = 15;

const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
const LENGTH_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
    2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_BITS: [u8; 30] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13,
];
/// In which order the lengths of the codes for lengths stand.
const LENGTHS_ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// What a zlib stream inflates to, if it is one and that is at most so many bytes.
#[must_use]
pub fn inflate(zlib: &[u8], most: usize) -> Option<Vec<u8>> {
    let (header, deflated) = zlib.split_at_checked(2)?;
    let is_zlib = header[0] & 0x0f == 8
        && header[1] & 0x20 == 0
        && u16::from_be_bytes([header[0], header[1]]).is_multiple_of(31);
    if !is_zlib {
        return None;
    }
    let mut inflating = Inflating { bits: Bits { bytes: deflated, at: 0 }, out: Vec::new(), most };
    loop {
        let is_last = inflating.bits.take(1)? == 1;
        match inflating.bits.take(2)? {
            0 => inflating.stored()?,
            1 => inflating.fixed()?,
            2 => inflating.dynamic()?,
            _ => return None,
        }
        if is_last {
            return Some(inflating.out);
        }
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that were taken.
    at: usize,
}

impl Bits<'_> {
    /// The next bits, the lowest first.
    fn take(&mut self, count: u8) -> Option<u16> {
        let mut value = 0;
        for number in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value |= u16::from(byte >> (self.at % 8) & 1) << number;
            self.at += 1;
        }
        Some(value)
    }
}

/// A Huffman code: how many symbols have a code of each length, and the symbols in the order of their codes.
struct Code {
    counts: [u16; CODE_BITS + 1],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Code {
        let mut counts = [0; CODE_BITS + 1];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        let mut symbols = Vec::with_capacity(lengths.len());
        for length in 1..=CODE_BITS {
            let of_length = (0u16..).zip(lengths).filter(|(_, own)| usize::from(**own) == length);
            symbols.extend(of_length.map(|(symbol, _)| symbol));
        }
        Code { counts, symbols }
    }

    fn next(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for length in 1..=CODE_BITS {
            code |= u32::from(bits.take(1)?);
            let count = u32::from(self.counts[length]);
            // More codes of a length than there can be are never reached: the first ones are taken.
            if let Some(place) = code.checked_sub(first).filter(|place| *place < count) {
                return self.symbols.get((index + place) as usize).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

struct Inflating<'a> {
    bits: Bits<'a>,
    out: Vec<u8>,
    most: usize,
}

impl Inflating<'_> {
    fn put(&mut self, byte: u8) -> Option<()> {
        if self.out.len() == self.most {
            return None;
        }
        self.out.push(byte);
        Some(())
    }

    fn stored(&mut self) -> Option<()> {
        self.bits.at = self.bits.at.next_multiple_of(8);
        let (length, complement) = (self.bits.take(16)?, self.bits.take(16)?);
        if length != !complement {
            return None;
        }
        for _ in 0..length {
            let byte = self.bits.take(8)?;
            self.put(byte as u8)?;
        }
        Some(())
    }

    fn fixed(&mut self) -> Option<()> {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.codes(&Code::new(&lengths), &Code::new(&[5; 30]))
    }

    fn dynamic(&mut self) -> Option<()> {
        let literals = usize::from(self.bits.take(5)?) + 257;
        let distances = usize::from(self.bits.take(5)?) + 1;
        let given = usize::from(self.bits.take(4)?) + 4;
        let mut lengths = [0; 19];
        for &place in &LENGTHS_ORDER[..given] {
            lengths[place] = self.bits.take(3)? as u8;
        }
        let code = Code::new(&lengths);
        let mut lengths: Vec<u8> = Vec::with_capacity(literals + distances);
        while lengths.len() < literals + distances {
            let (length, times) = match code.next(&mut self.bits)? {
                16 => (*lengths.last()?, 3 + self.bits.take(2)?),
                17 => (0, 3 + self.bits.take(3)?),
                18 => (0, 11 + self.bits.take(7)?),
                length => (length as u8, 1),
            };
            lengths.extend(std::iter::repeat_n(length, times.into()));
        }
        // One that repeats beyond the end says more than there is.
        if lengths.len() > literals + distances {
            return None;
        }
        let (literals, distances) = lengths.split_at(literals);
        self.codes(&Code::new(literals), &Code::new(distances))
    }

    fn codes(&mut self, literals: &Code, distances: &Code) -> Option<()> {
        loop {
            match literals.next(&mut self.bits)? {
                256 => return Some(()),
                literal @ 0..=255 => self.put(literal as u8)?,
                symbol => {
                    let place = usize::from(symbol - 257);
                    let more = self.bits.take(*LENGTH_BITS.get(place)?)?;
                    let length = LENGTH_BASE[place] + more;
                    let place = usize::from(distances.next(&mut self.bits)?);
                    let more = self.bits.take(*DISTANCE_BITS.get(place)?)?;
                    let distance = usize::from(DISTANCE_BASE[place]) + usize::from(more);
                    for _ in 0..length {
                        let from = self.out.len().checked_sub(distance)?;
                        self.put(self.out[from])?;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::inflate;

    /// By Python's `zlib.compress` of this text, with levels 0, 9, and with fixed codes.
    #[test]
    fn what_zlib_has_deflated_is_as_it_was_and_no_longer_than_may_be() {
        let text = b"Traceback\nTraceback\nValueError: no, no, no";
        for deflated in [STORED, FIXED, DYNAMIC.0] {
            let text: &[u8] = if deflated == DYNAMIC.0 { DYNAMIC.1 } else { text };
            assert_eq!(inflate(deflated, text.len()).as_deref(), Some(text));
            assert_eq!(inflate(deflated, text.len() - 1), None);
            // Of each piece of it, and with each byte changed, something comes of it, or nothing.
            for end in 0..deflated.len() {
                let _ = inflate(&deflated[..end], 1000);
            }
            for at in 0..deflated.len() {
                for change in 1..=255 {
                    let mut changed = deflated.to_vec();
                    changed[at] ^= change;
                    assert!(inflate(&changed, 1000).is_none_or(|out| out.len() <= 1000));
                }
            }
        }
        assert_eq!(inflate(b"", 9), None);
        assert_eq!(inflate(b"no zlib at all", 9), None);
    }

    const STORED: &[u8] = b"\x78\x01\x01\x2a\x00\xd5\xff\x54\x72\x61\x63\x65\x62\x61\x63\x6b\x0a\x54\x72\x61\x63\x65\x62\x61\
        \x63\x6b\x0a\x56\x61\x6c\x75\x65\x45\x72\x72\x6f\x72\x3a\x20\x6e\x6f\x2c\x20\x6e\x6f\x2c\x20\x6e\
        \x6f\x44\x83\x0e\xa5";
    const FIXED: &[u8] = b"\x78\x01\x0b\x29\x4a\x4c\x4e\x4d\x4a\x4c\xce\xe6\x0a\x81\xb3\xc2\x12\x73\x4a\x53\x5d\x8b\x8a\xf2\
        \x8b\xac\x14\xf2\xf2\x75\xa0\x18\x00\x44\x83\x0e\xa5";
    const DYNAMIC: (&[u8], &[u8]) = (
        b"\x78\xda\x75\x90\x49\x0e\xc3\x20\x0c\x45\xaf\xc2\x11\x98\x6c\xe0\x00\xe9\x3d\xaa\x8a\x05\x52\x44\
        \x25\x2b\xbd\x7f\x24\x86\xe2\x10\xb2\xf9\xe0\xc7\xf7\x84\x32\xee\x95\xf6\x28\x8a\x50\x3c\x7e\x94\
        \xc5\x46\xf4\x25\xb1\xa7\xfc\x27\xed\xb0\xd6\x3c\xf8\x0a\x4e\x59\x1c\xf4\xfe\xc4\x12\xd4\x47\x6e\
        \xe7\x05\x0b\x5f\x74\x28\x68\x48\xa3\x97\xc2\x56\x23\x6b\x5c\xaf\xdd\x50\x23\xae\x97\x51\xbb\x4d\
        \x07\xd9\xb8\x47\xb4\x52\xdf\xa6\x79\xae\xda\x59\x33\xa2\x0b\x8b\x2d\xc6\x8f\xd6\x24\x8f\x1e\xa5\
        \x63\x53\x0f\x01\xd0\xd3\x92\xc1\xc1\x44\xd0\xc1\x62\x99\x9a\x6e\x14\xef\xd9\x33\xc0\x1b\x2d\xed\
        \x54\xa6\x9f\x0a\xc0\x9c\x19\x3f\xb1\x63",
        b"137File\x20File\x20return\x20Error\x20line\x20return\x20return\x20443File\x20return\x20Error\x20line\x20File\x20in\x20t\
          raceFile\x20Error\x20File\x20return\x20line\x20return\x20File\x20line\x20return\x20return\x20line\x20line\x20line\x20re\
          turn\x20in\x20traceFile\x20426Error\x20line\x20Error\x20in\x20traceError\x20Error\x20Error\x20return\x20Error\x20in\x20\
          trace290return\x20866402File\x20line\x20return\x20Error\x20in\x20traceError\x20Error\x20in\x20tracereturn\x206\
          79line\x20return\x20return\x20File\x20File\x20Error\x20868607Error\x20line\x20line\x20line\x20552return\x20in\x20tra\
          ce975return\x20in\x20trace675Error\x20return\x20Error\x20line\x20531return\x20File\x20in\x20trace583204retu\
          rn\x20in\x20tracein\x20trace1553",
    );
}

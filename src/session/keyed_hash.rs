//! SipHash-1-3 over the bytes of a session's id, under a key that nobody outside knows.
//!
//! Clients may choose ids, so the hash must be one that they can neither aim at nor learn. This is the one of the
//! standard library, for bytes that are there whole: without the buffer of its `Hasher`, which takes them in
//! pieces, an id of 16 bytes takes 105 instructions instead of 170. Hashes and nothing else. Called by the table.
//! (Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.)
//!
//! Invariant: the value is that of `std::hash::DefaultHasher`, where the key is the same.
//!
//! Next: [`crate::session::table`]: one reactor's share of all sessions.

use std::hash::{BuildHasher, RandomState};

/// A key for SipHash-1-3.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyedHash([u64; 2]);

impl KeyedHash {
    /// Under a key of 128 random bits.
    pub(super) fn random() -> Self {
        // Two outputs of a keyed pseudo-random function, whose key is the system's randomness: the way to
        // that which needs neither the environment nor an error.
        let source = RandomState::new();
        KeyedHash([source.hash_one(0_u8), source.hash_one(1_u8)])
    }

    /// The hash of these bytes.
    #[inline]
    pub(super) fn of(self, bytes: &[u8]) -> u64 {
        if let Ok(sixteen) = bytes.try_into() {
            return self.of_sixteen(sixteen);
        }
        let mut state = self.begin();
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            absorb(&mut state, u64::from_le_bytes(*word));
        }
        // The last word: what is left, and the length modulo 256 in its top byte.
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        end(state, (bytes.len() as u64) << 56 | last)
    }

    /// The same, of as many as an id has that the server has chosen: without a loop.
    #[inline(always)]
    fn of_sixteen(self, bytes: &[u8; 16]) -> u64 {
        let mut state = self.begin();
        let both = u128::from_le_bytes(*bytes);
        absorb(&mut state, both as u64);
        absorb(&mut state, (both >> 64) as u64);
        end(state, 16 << 56)
    }

    #[inline(always)]
    fn begin(self) -> [u64; 4] {
        let KeyedHash([low, high]) = self;
        [
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ]
    }
}

#[inline(always)]
fn end(mut state: [u64; 4], last: u64) -> u64 {
    absorb(&mut state, last);
    state[2] ^= 0xff;
    (0..3).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    state[0] ^= word;
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    #[test]
    fn it_is_the_hash_of_the_standard_library() {
        // Its default hasher has a key of zeros.
        let bytes: Vec<u8> =
            (0..=255).map(|byte: u8| byte.wrapping_mul(37)).cycle().take(600).collect();
        for length in 0..bytes.len() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&bytes[..length]);
            assert_eq!(KeyedHash([0, 0]).of(&bytes[..length]), hasher.finish(), "{length}");
        }
    }

    /// Of 00, 01, .. so many bytes, under the key 00, 01, .., 0f: by another implementation, in Python.
    const VECTORS: [(usize, [u8; 8]); 6] = [
        (0, [0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab]),
        (1, [0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9]),
        (2, [0x4d, 0xd4, 0xc7, 0x4d, 0x02, 0x9b, 0xcb, 0x82]),
        (3, [0xfb, 0xf7, 0xdd, 0xe7, 0xb8, 0x0a, 0xf8, 0x8b]),
        (8, [0x8e, 0x9a, 0x29, 0x8d, 0x11, 0x95, 0x90, 0x36]),
        (16, [0x66, 0x8b, 0x90, 0x7d, 0x1a, 0xdd, 0x4f, 0xcc]),
    ];

    #[test]
    fn the_key_goes_where_it_belongs() {
        let key = KeyedHash([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let input: Vec<u8> = (0..16).collect();
        for (length, expected) in VECTORS {
            assert_eq!(key.of(&input[..length]).to_le_bytes(), expected, "{length}");
        }
    }

    #[test]
    fn two_tables_have_two_keys() {
        let (one, other) = (KeyedHash::random(), KeyedHash::random());
        assert_ne!(one.of(b"alice"), other.of(b"alice"));
    }
}

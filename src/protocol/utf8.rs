//! UTF-8: whether a text is, and how far one is that has not all arrived (RFC 6455 8.1, RFC 3629).
//!
//! simdutf8 checks texts of 64 bytes or more with the vector instructions that the processor turns out to
//! have, and leaves shorter ones to the standard library. Called by `message`.
//!
//! Invariant: nothing is called text that the standard library would not call so.
//!
//! Next: [`crate::protocol::deflate`], compression; or, in a first reading,
//! [`crate::protocol::reassembly`], what a long message collects in.

use super::frame::Violation;

/// The text that these bytes are.
///
/// # Errors
///
/// [`Violation::NotUtf8`].
#[inline]
pub fn text(bytes: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Violation::NotUtf8)
}

/// How many of these bytes, of which more are to come, are whole characters: all, or all but the three that
/// may have begun the next one.
///
/// # Errors
///
/// [`Violation::NotUtf8`], if no bytes that may come make a text of them.
pub fn whole_characters(bytes: &[u8]) -> Result<usize, Violation> {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(Violation::NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use std::str;

    use super::*;

    /// What the standard library says.
    fn expected(bytes: &[u8]) -> (bool, Option<usize>) {
        match str::from_utf8(bytes) {
            Ok(_) => (true, Some(bytes.len())),
            Err(error) => (false, error.error_len().is_none().then(|| error.valid_up_to())),
        }
    }

    fn check(bytes: &[u8]) {
        let (is_text, whole) = expected(bytes);
        assert_eq!(text(bytes).ok(), str::from_utf8(bytes).ok(), "{bytes:x?}");
        assert_eq!(text(bytes).is_ok(), is_text);
        assert_eq!(whole_characters(bytes).ok(), whole, "{bytes:x?}");
    }

    /// Each way to be wrong (RFC 3629 3 and 4), and the characters next to it.
    const PIECES: [&[u8]; 22] = [
        b"a",
        b"\x7f",
        b"\xc2\x80",
        b"\xdf\xbf",
        b"\xe0\xa0\x80",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbf",
        b"\xf0\x90\x80\x80",
        b"\xf4\x8f\xbf\xbf",
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xff",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ];

    #[test]
    fn every_piece_at_every_place_is_judged_as_the_standard_library_does() {
        for fill in ["x", "ä", "語", "😀"] {
            for piece in PIECES {
                for before in 0..70 {
                    for after in [0, 1, 2, 3, 61, 64, 65] {
                        let text = [
                            &*fill.repeat(before).into_bytes(),
                            piece,
                            &fill.repeat(after).into_bytes(),
                        ]
                        .concat();
                        check(&text);
                    }
                }
            }
        }
    }

    #[test]
    fn a_text_may_be_cut_anywhere() {
        let text = "Grüße, 世界 😀! ".repeat(20);
        for end in 0..=text.len() {
            check(&text.as_bytes()[..end]);
            let whole = whole_characters(&text.as_bytes()[..end]).unwrap();
            assert!(text.is_char_boundary(whole) && end - whole < 4);
        }
    }
}

//! What a text message is joined of: text, and numbers that are written where they go.
//!
//! Of numbers below a hundred million eight digits are reckoned at once, and those not needed are cut off. Beside
//! formatting into a buffer and copying that, it saves 19 of the 252 instructions that a message takes (`turn/64x64`).
//! Larger ones are formatted by the standard library.
//! Called by [`Context::send_text_parts`](super::Context::send_text_parts).
//!
//! Invariant: what is written of a part is no longer than the part says.
//!
//! Next: `long_way`: messages that are not short, and the bound of what is sent.

use std::borrow::Cow;

/// Digits that are reckoned at once.
const AT_ONCE: usize = 8;

/// The least number that has more.
const TOO_LONG: u64 = 100_000_000;

/// Bytes that [`TextPart::append`] may write behind the part before it takes them back.
pub(super) const BEHIND_MOST: usize = AT_ONCE - 1;

/// A part of a text message.
///
/// ```
/// # fn on_message(cx: &mut revolve::Context<'_, revolve::Echo>) {
/// let count = cx.count_message();
/// cx.send_text_parts([r#"{"count": "#.into(), count.into(), "}".into()]);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextPart<'a> {
    /// Text.
    Text(&'a str),
    /// A number, in decimal.
    Number(u64),
}

impl<'a> From<&'a str> for TextPart<'a> {
    #[inline(always)]
    fn from(text: &'a str) -> Self {
        TextPart::Text(text)
    }
}

impl<'a> From<&'a String> for TextPart<'a> {
    fn from(text: &'a String) -> Self {
        TextPart::Text(text)
    }
}

impl From<u64> for TextPart<'_> {
    #[inline(always)]
    fn from(number: u64) -> Self {
        TextPart::Number(number)
    }
}

impl<'a> TextPart<'a> {
    /// How many bytes it has, or a few more if it is a number.
    #[inline(always)]
    pub(super) fn length_most(self) -> usize {
        match self {
            TextPart::Text(text) => text.len(),
            TextPart::Number(0..TOO_LONG) => AT_ONCE,
            // u64::MAX has so many.
            TextPart::Number(_) => 20,
        }
    }

    /// Writes it behind what stands there.
    #[inline(always)]
    pub(super) fn append(self, to: &mut Vec<u8>) {
        match self {
            TextPart::Text(text) => to.extend_from_slice(text.as_bytes()),
            TextPart::Number(number @ 0..TOO_LONG) => {
                let (digits, zero_bits) = eight_digits(number);
                to.extend_from_slice(&(digits >> zero_bits).to_le_bytes());
                to.truncate(to.len() - zero_bits as usize / 8);
            }
            TextPart::Number(number) => append_long(number, to),
        }
    }

    /// As text of its own.
    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            TextPart::Text(text) => text.into(),
            TextPart::Number(number) => number.to_string().into(),
        }
    }
}

#[cold]
fn append_long(number: u64, to: &mut Vec<u8>) {
    to.extend_from_slice(number.to_string().as_bytes());
}

/// The eight digits of a number below a hundred million as bytes, the first one lowest; and the bits of the zeros that it
/// begins with, to which the last digit does not belong.
///
/// Two numbers of four digits, four of two, eight of one: each step divides all of them by one multiplication.
/// (Source: Paul Khuong, "How to print integers really fast", 2011.)
#[inline(always)]
fn eight_digits(number: u64) -> (u64, u32) {
    debug_assert!(number < TOO_LONG);
    // 32 bits are enough, and are divided in fewer instructions.
    let short = number as u32;
    let fours = u64::from(short / 10_000) | u64::from(short % 10_000) << 32;
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let pairs = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    let digits = tens | (pairs - 10 * tens) << 8;
    let zero_bits = (digits | 1 << 56).trailing_zeros() & !7;
    (digits | 0x3030_3030_3030_3030, zero_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(part: TextPart<'_>) -> String {
        let mut bytes = b"before".to_vec();
        part.append(&mut bytes);
        assert!(bytes.len() - 6 <= part.length_most());
        let text = String::from_utf8(bytes).unwrap();
        text.strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn a_number_is_written_as_the_standard_library_does() {
        let mut numbers: Vec<u64> = (0..100_000).collect();
        for power in 0..20 {
            let ten = 10_u64.pow(power);
            numbers.extend([ten - 1, ten, ten + 1, ten.saturating_mul(9), 3 * (ten / 2)]);
        }
        // Each pair of digits in each place.
        for pair in 0..10_000 {
            numbers.extend([pair * 10_000, pair * 10_000 + 9_999, 12_340_000 + pair]);
        }
        numbers.extend([u64::MAX, u64::from(u32::MAX), TOO_LONG - 1, TOO_LONG]);
        for number in numbers {
            assert_eq!(written(number.into()), number.to_string());
            assert_eq!(TextPart::from(number).text(), number.to_string());
        }
    }

    #[test]
    fn text_is_written_as_it_is() {
        for text in ["", "a", "語", "0012"] {
            assert_eq!((written(text.into()), &*TextPart::from(text).text()), (text.into(), text));
        }
    }
}

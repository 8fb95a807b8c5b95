//! One frame: its header checked, its payload unmasked in place, and frames of ours encoded.
//!
//! Layout and opcodes are tungstenite's ([`FrameHeader`], [`OpCode`]); what a server must refuse
//! in them is ours, because `FrameHeader::parse` refuses reserved opcodes and nothing else. Knows
//! one frame at a time: order, size and text belong to [`super::message`], its only caller on the
//! way in. On the way out the application's context and the endpoint encode here.
//!
//! Invariant: a [`FrameHead`] that exists has passed every check that the header alone allows.
//!
//! Next: [`crate::protocol::utf8`], whether it is text.

use std::fmt;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest payload of a control frame (RFC 6455 5.5), and of the short form of a length.
pub const MAX_SHORT: usize = 125;

/// Longest header that a client may send: two bytes, a 64-bit length, a mask.
pub const MAX_HEADER: usize = 14;

/// A rule of RFC 6455 that a peer broke, or a limit of ours that it passed; each knows the close
/// code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// 5.1: a client's frame MUST be masked.
    Unmasked,
    /// 5.2: RSV bits MUST be 0 unless an extension gave them a meaning.
    ReservedBits,
    /// 5.2: opcodes 3–7 and B–F are reserved.
    ReservedOpcode,
    /// 5.5: control frames MUST NOT be fragmented.
    FragmentedControl,
    /// 5.5: control frames MUST have a payload of 125 bytes or less.
    LongControl,
    /// 5.2: the minimal number of bytes MUST be used for the length, its top bit MUST be 0.
    BadLength,
    /// 5.4: a continuation frame outside a message.
    LoneContinuation,
    /// 5.4: a new data frame inside a fragmented message.
    InterleavedMessage,
    /// 5.5.1, 7.4: a close payload of one byte, or a code that must not be sent.
    BadCloseCode,
    /// 5.6, 8.1: text, or a close reason, that is not UTF-8.
    NotUtf8,
    /// RFC 7692 7.2.2: a message that says it is deflated, and is not.
    NotDeflate,
    /// A message larger than `--ws-max-size`.
    TooBig,
    /// A message still unfinished at its deadline.
    MessageTimeout,
    /// A message within the limit for which there is no memory.
    OutOfMemory,
}

/// The reason in the Close that ends a connection for want of memory.
pub const OUT_OF_MEMORY: &str = "out of memory: try again later";

impl Violation {
    /// The code of the close frame that answers it (RFC 6455 7.4.1).
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            // 1007 is for "data within a message that was not consistent with the type of the
            // message": the frames of one that does not inflate are in order, its content is not.
            Violation::NotUtf8 | Violation::NotDeflate => CloseCode::Invalid,
            Violation::TooBig => CloseCode::Size,
            // Not 1009: the message is one that we take, and its sender may send it again when others
            // have left. 1013 is for "a temporary condition".
            Violation::OutOfMemory => CloseCode::Again,
            Violation::MessageTimeout => CloseCode::Policy,
            _ => CloseCode::Protocol,
        }
    }

    /// The reason in that frame.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Violation::Unmasked => "a client's frames must be masked",
            Violation::ReservedBits => "reserved bits are set",
            Violation::ReservedOpcode => "reserved opcode",
            Violation::FragmentedControl => "a control frame must not be fragmented",
            Violation::LongControl => "a control frame carries at most 125 bytes",
            Violation::BadLength => "the length is not in its shortest form",
            Violation::LoneContinuation => "continuation without a message",
            Violation::InterleavedMessage => "new message inside a fragmented one",
            Violation::BadCloseCode => "invalid close code",
            Violation::NotUtf8 => "invalid UTF-8",
            Violation::NotDeflate => "invalid compressed data",
            Violation::TooBig => "message too big",
            Violation::MessageTimeout => "message took too long",
            Violation::OutOfMemory => OUT_OF_MEMORY,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Violation {}

/// Whether an endpoint may say this code (RFC 6455 7.4, and IANA's registry of close codes, which has
/// grown since): 1004, 1005, 1006 and 1015 are never sent, nor is what nobody has registered.
#[must_use]
pub fn may_be_sent(code: CloseCode) -> bool {
    // tungstenite knows those of the RFC, 1012 and 1013. 1014 is "Bad Gateway".
    code.is_allowed() || code == CloseCode::Bad(1014)
}

/// A frame header that passed the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Data or control; never a reserved one.
    pub opcode: OpCode,
    /// Whether the message ends with this frame.
    pub is_final: bool,
    /// Whether RSV1 is set: the message that begins here is deflated (RFC 7692 6).
    pub rsv1: bool,
    /// What the payload is masked with.
    pub mask: [u8; 4],
    /// Payload bytes that follow.
    pub length: u64,
    /// Bytes of the header itself.
    pub header_bytes: usize,
}

/// Whether the peer may set RSV1 where a message begins: if compression was agreed on (RFC 7692 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rsv1 {
    /// It may.
    Allowed,
    /// It breaks the protocol with it (RFC 6455 5.2).
    Forbidden,
}

/// Reads the header at the start of `input`; `None` while it is incomplete.
///
/// # Errors
///
/// Whatever the bytes present already show, even when the header is not complete.
pub fn decode(input: &[u8], allowed: Rsv1) -> Result<Option<FrameHead>, Violation> {
    let Some(&first) = input.first() else { return Ok(None) };
    let rsv1 = first & 0x70 == 0x40;
    if first & 0x70 != 0 && !(rsv1 && allowed == Rsv1::Allowed && matches!(first & 0x0f, 0x1 | 0x2))
    {
        return Err(Violation::ReservedBits);
    }
    let opcode = OpCode::from(first & 0x0f);
    let is_control = match opcode {
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(Violation::ReservedOpcode);
        }
        OpCode::Control(_) => true,
        OpCode::Data(_) => false,
    };
    if is_control && first & 0x80 == 0 {
        return Err(Violation::FragmentedControl);
    }
    let Some(&second) = input.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let short_length = usize::from(second & 0x7f);
    if is_control && short_length > MAX_SHORT {
        return Err(Violation::LongControl);
    }
    let mut cursor = Cursor::new(input);
    let (header, length) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        // The only error it knows is the opcode, which was judged above.
        Err(_) => return Err(Violation::ReservedOpcode),
    };
    let minimal = match short_length {
        126 => 126..=0xffff,
        127 => 0x1_0000..=u64::MAX >> 1,
        _ => 0..=125,
    };
    if !minimal.contains(&length) {
        return Err(Violation::BadLength);
    }
    let mask = header.mask.ok_or(Violation::Unmasked)?;
    // A header is at most 14 bytes.
    let header_bytes = cursor.position() as usize;
    Ok(Some(FrameHead { opcode, is_final: header.is_final, rsv1, mask, length, header_bytes }))
}

/// Room for the payload of a short frame with zeros behind it.
pub type ShortRoom = [[u8; 16]; 8];

/// The payload of the commonest frame, unmasked.
#[derive(Debug, Clone, Copy)]
pub struct ShortFrame<'a> {
    /// Text, or binary.
    pub is_text: bool,
    /// The payload and zeros: 64 bytes, or 128.
    pub padded: &'a [u8],
    /// Bytes of the payload alone.
    pub length: usize,
}

/// Takes the commonest frame from `input[*at..]` if it stands there whole: a final text or binary
/// frame, masked, of at most `longest` and at most 125 bytes. `None` says nothing about the input.
///
/// It has a path of its own because that pays: [`decode`] takes 280 instructions, this 60 with the
/// unmasking. All that such a frame could break is excluded by its form, but for order, size and
/// UTF-8, which are [`super::message`]'s to check as ever.
///
/// It unmasks into `room` and not in place, which costs the same: in the receive buffer a frame
/// begins anywhere and ends where the next one begins. Here it stands where words begin, with zeros behind
/// it, so that what looks at it next can take it by vectors.
#[inline(always)]
pub fn take_short<'a>(
    input: &[u8],
    at: &mut usize,
    longest: usize,
    room: &'a mut ShortRoom,
) -> Option<ShortFrame<'a>> {
    let [first @ (0x81 | 0x82), second @ 0x80..=0xfd, a, b, c, d, rest @ ..] = input.get(*at..)?
    else {
        return None;
    };
    let length = usize::from(second & 0x7f);
    let payload = rest.get(..length).filter(|_| length <= longest)?;
    *at += 6 + length;
    let mask = [*a, *b, *c, *d];
    let key = mask_word(mask);
    // Up to what vectors take at once: a text of 16 bytes is checked faster with 48 zeros than without.
    let (first_half, second_half) = room.split_at_mut(4);
    first_half.copy_from_slice(&[[0; 16]; 4]);
    if length > 64 {
        second_half.copy_from_slice(&[[0; 16]; 4]);
    }
    let (blocks, rest) = payload.as_chunks::<16>();
    let wide_key = u128::from(key) << 64 | u128::from(key);
    for (from, to) in blocks.iter().zip(room.iter_mut()) {
        *to = (u128::from_ne_bytes(*from) ^ wide_key).to_ne_bytes();
    }
    if !rest.is_empty() {
        let mut last = [0; 16];
        let (words, bytes) = rest.as_chunks::<8>();
        let (unmasked, _) = last.as_chunks_mut::<8>();
        if let [word] = words {
            unmasked[0] = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        for (at, byte) in bytes.iter().enumerate() {
            unmasked[words.len()][at] = byte ^ mask[at & 3];
        }
        room[blocks.len()] = last;
    }
    let padded = if length <= 64 { room[..4].as_flattened() } else { room.as_flattened() };
    Some(ShortFrame { is_text: *first == 0x81, padded, length })
}

/// The mask, twice.
#[inline(always)]
fn mask_word(mask: [u8; 4]) -> u64 {
    u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001
}

/// Unmasks in place (RFC 6455 5.3); `mask[0]` belongs to the first byte of `payload`.
#[inline]
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let key = mask_word(mask);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[at & 3];
    }
}

/// The mask as it applies after `consumed` bytes of the payload.
#[must_use]
pub fn rotated(mut mask: [u8; 4], consumed: usize) -> [u8; 4] {
    mask.rotate_left(consumed & 3);
    mask
}

/// Appends a whole frame of ours: final, unmasked (RFC 6455 5.1: a server MUST NOT mask).
#[inline]
pub fn encode(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    encode_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends the header of a frame of ours.
#[inline]
pub fn encode_header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    if length <= MAX_SHORT {
        // The compiler knows MAX_SHORT fits in a byte; so does this cast.
        out.extend_from_slice(&[0x80 | u8::from(opcode), length as u8]);
    } else {
        encode_long_header(opcode, length, out);
    }
}

/// The short frame of ours that begins there and was encoded as an empty one gets the length that it has.
#[inline(always)]
pub fn set_short_length(out: &mut [u8], begin: usize) {
    let length = out.len() - begin - 2;
    debug_assert!(length <= MAX_SHORT, "{length} bytes");
    if let Some(second) = out.get_mut(begin + 1) {
        *second = length as u8;
    }
}

#[cold]
fn encode_long_header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, is_final: true, ..FrameHeader::default() };
    let written = header.format(length as u64, out);
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
}

/// Appends a Close frame. A reason longer than the 123 bytes a control frame has room for is cut
/// at a character boundary.
pub fn encode_close(code: CloseCode, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(MAX_SHORT - 2)];
    encode_header(OpCode::Control(Control::Close), 2 + reason.len(), out);
    out.extend_from_slice(&u16::from(code).to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, length: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend_from_slice(length);
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn every_cut_of_a_header_waits_for_more() {
        for length in [&[5u8][..], &[126, 1, 0], &[127, 0, 0, 0, 0, 0, 1, 0, 0]] {
            let bytes = masked(0x82, length);
            for cut in 0..bytes.len() {
                assert_eq!(
                    decode(&bytes[..cut], Rsv1::Forbidden),
                    Ok(None),
                    "{length:?} cut at {cut}"
                );
            }
            let head = decode(&bytes, Rsv1::Forbidden).unwrap().unwrap();
            assert_eq!(head.header_bytes, bytes.len());
            assert_eq!(head.mask, [1, 2, 3, 4]);
        }
    }

    #[test]
    fn what_the_header_shows_is_refused_at_the_header() {
        for (bytes, expected) in [
            (&[0xc1][..], Violation::ReservedBits),
            (&[0xa1], Violation::ReservedBits),
            (&[0x91], Violation::ReservedBits),
            (&[0x83], Violation::ReservedOpcode),
            (&[0x8b], Violation::ReservedOpcode),
            (&[0x09], Violation::FragmentedControl),
            (&[0x81, 0x05], Violation::Unmasked),
            (&[0x89, 0xfe], Violation::LongControl),
        ] {
            assert_eq!(decode(bytes, Rsv1::Forbidden), Err(expected), "{bytes:x?}");
        }
        for length in [
            &[126u8, 0, 125][..],
            &[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            &[127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let bytes = masked(0x81, length);
            assert_eq!(decode(&bytes, Rsv1::Forbidden), Err(Violation::BadLength), "{length:x?}");
        }
    }

    #[test]
    fn rsv1_may_be_set_where_a_message_begins_and_only_by_who_deflates() {
        for first in 0..=u8::MAX {
            let begins_deflated = matches!(first & 0x7f, 0x41 | 0x42);
            if first & 0x70 == 0 {
                continue;
            }
            let bytes = masked(first, &[0]);
            assert_eq!(
                decode(&bytes, Rsv1::Forbidden),
                Err(Violation::ReservedBits),
                "{first:#04x}"
            );
            match decode(&bytes, Rsv1::Allowed) {
                Ok(Some(head)) => assert!(head.rsv1 && begins_deflated, "{first:#04x}"),
                Err(Violation::ReservedBits) => assert!(!begins_deflated, "{first:#04x}"),
                other => panic!("{first:#04x}: {other:?}"),
            }
        }
    }

    #[test]
    fn unmasking_in_pieces_equals_unmasking_whole() {
        let mask = [0xde, 0xad, 0xbe, 0xef];
        let clear: Vec<u8> = (0..100).collect();
        let mut whole = clear.clone();
        unmask(&mut whole, mask);
        for cut in 0..clear.len() {
            let mut pieces = whole.clone();
            let (left, right) = pieces.split_at_mut(cut);
            unmask(left, mask);
            unmask(right, rotated(mask, cut));
            assert_eq!(pieces, clear, "cut at {cut}");
        }
    }

    #[test]
    fn our_headers_are_tungstenites() {
        for length in [0usize, 125, 126, 65_535, 65_536] {
            let opcode = OpCode::Data(Data::Text);
            let mut ours = Vec::new();
            encode_header(opcode, length, &mut ours);
            let mut theirs = Vec::new();
            let header = FrameHeader { opcode, ..FrameHeader::default() };
            header.format(length as u64, &mut theirs).unwrap();
            assert_eq!(ours, theirs, "{length}");
        }
    }

    #[test]
    fn the_codes_that_may_be_sent_are_those_of_the_registry() {
        for code in 0..=u16::MAX {
            let registered = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(may_be_sent(CloseCode::from(code)), registered, "{code}");
            assert_eq!(u16::from(CloseCode::from(code)), code);
        }
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        encode_close(CloseCode::Normal, &"é".repeat(100), &mut out);
        assert_eq!(out[1], 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}

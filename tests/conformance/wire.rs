//! What stands on the wire, written down and read again with RFC 6455 5.2 alone: frames of a
//! client, and what a server wrote. Uses nothing of the crate under test, and judges nothing but
//! a server frame that no server may send.

/// FIN, the three RSV bits, and the opcodes, as they stand in the first byte (RFC 6455 5.2).
pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;
pub(crate) const RSV2: u8 = 0x20;
pub(crate) const RSV3: u8 = 0x10;
pub(crate) const CONTINUE: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The mask of the RFC's own example (5.7).
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Bytes before the payload of a masked frame of up to 125, and of up to 65,535 bytes.
pub(crate) const SHORT_HEADER: usize = 2 + 4;
pub(crate) const MEDIUM_HEADER: usize = 2 + 2 + 4;
pub(crate) const LONG_HEADER: usize = 2 + 8 + 4;

/// A client's frame with this first byte, masked, its length in the shortest form.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    masked_with(MASK, first, payload)
}

pub(crate) fn masked_with(mask: [u8; 4], first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = payload.len();
    let mut bytes = match length {
        0..=125 => vec![first, 0x80 | length as u8],
        126..=0xffff => [&[first, 0x80 | 126], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, 0x80 | 127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A masked header with the length field as given, so also in a wrong form; no payload.
pub(crate) fn header(first: u8, length_field: &[u8]) -> Vec<u8> {
    let mut bytes = [&[first], length_field, &MASK].concat();
    bytes[1] |= 0x80;
    bytes
}

pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, text)
}

pub(crate) fn binary(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | BINARY, bytes)
}

pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | PING, payload)
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | PONG, payload)
}

pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

/// A message in fragments: the first byte's opcode, then continuations.
pub(crate) fn fragments<'a>(
    opcode: u8,
    payloads: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Vec<u8>> {
    let payloads: Vec<_> = payloads.into_iter().collect();
    let last = payloads.len() - 1;
    let first_byte =
        |at| if at == 0 { opcode } else { CONTINUE } | if at == last { FIN } else { 0 };
    payloads.iter().enumerate().map(|(at, payload)| frame(first_byte(at), payload)).collect()
}

/// What a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// Its code; the reason is free.
    Close(Option<u16>),
    /// A message with RSV1 (RFC 7692 6), inflated.
    Deflated(Box<Reply>),
}

#[cfg(feature = "deflate")]
fn inflated(payload: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut whole = Vec::new();
    // What RFC 7692 7.2.2 puts behind it, and a last block, so that the reader sees an end.
    let stream = [payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut reader = flate2::read::DeflateDecoder::new(&stream[..]);
    reader.read_to_end(&mut whole).expect("a server deflates as RFC 7692 7.2.1 says");
    whole
}

#[cfg(not(feature = "deflate"))]
fn inflated(_payload: &[u8]) -> Vec<u8> {
    panic!("a server that cannot deflate has done so");
}

/// A deflated message as a client sends it: blocks that store (RFC 1951 3.2.4), without the last four
/// bytes of the empty one behind them.
pub(crate) fn deflated(message: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in message.as_ref().chunks(0xffff) {
        let length = piece.len() as u16;
        bytes.push(0);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes.push(0);
    bytes
}

/// The letter "a", `258 * times + 1` times over, deflated to 13 bits for each 258: a block of fixed
/// codes (RFC 1951 3.2.6) with the letter, and then "258 from 1 back" over and over.
pub(crate) fn bomb(times: usize) -> Vec<u8> {
    // Codes are packed from their highest bit on, so they are turned around here; the rest is not.
    let code = |bits: u32, width: u32| (bits.reverse_bits() >> (32 - width), width);
    let mut fields = vec![(0, 1), (1, 2), code(0x30 + u32::from(b'a'), 8)];
    fields.extend([code(0b1100_0101, 8), code(0, 5)].repeat(times));
    // The end of the block, and what a flush begins with: an empty block that stores.
    fields.extend([code(0, 7), (0, 3)]);
    let (mut bytes, mut held, mut count) = (Vec::new(), 0, 0);
    for (bits, width) in fields {
        held |= bits << count;
        count += width;
        while count >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes.push(held as u8);
    }
    bytes
}

/// Reads one of a server's frames from the start of `bytes`, and how long it is; `None` while it
/// is incomplete.
pub(crate) fn read_reply(bytes: &[u8]) -> Option<(Reply, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server must not mask (5.1)");
    let (length, header) = match second {
        126 => (usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize, 10),
        short => (usize::from(short), 2),
    };
    let shortest = if length <= 125 { 2 } else { if length <= 0xffff { 4 } else { 10 } };
    assert_eq!(header, shortest, "the length is not in its shortest form (5.2)");
    let payload = bytes.get(header..header + length)?;
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8 (5.6, 5.5.1)");
    let reply = match first {
        0x81 => Reply::Text(utf8(payload)),
        0x82 => Reply::Binary(payload.to_vec()),
        0xc1 => Reply::Deflated(Box::new(Reply::Text(utf8(&inflated(payload))))),
        0xc2 => Reply::Deflated(Box::new(Reply::Binary(inflated(payload)))),
        0x8a => Reply::Pong(payload.to_vec()),
        0x88 if payload.is_empty() => Reply::Close(None),
        0x88 => {
            assert!(length <= 125, "a control frame has at most 125 bytes (5.5)");
            utf8(&payload[2..]);
            Reply::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code)))
        }
        other => panic!("no frame of an echo server starts with {other:#04x}"),
    };
    Some((reply, header + length))
}

/// Reads all of a server's frames; nothing may be left over.
pub(crate) fn read_replies(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (reply, length) = read_reply(bytes).expect("a whole frame");
        replies.push(reply);
        bytes = &bytes[length..];
    }
    replies
}

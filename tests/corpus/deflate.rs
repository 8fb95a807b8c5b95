//! permessage-deflate: offers, frames that are deflated, and messages there and back.
//!
//! Input: a byte that says which of the four, three bytes of settings, then an extension field, a
//! deflated payload, a stream of frames, or a message.

use std::time::Instant;

use flate2::{Decompress, FlushDecompress, Status};
use revolve::config::Config;
use revolve::protocol::ProtocolLimits;
use revolve::protocol::deflate::{
    DeflateParams, DeflateWriter, Deflater, MalformedOffer, negotiate,
};
use revolve::protocol::frame::Violation;
use revolve::protocol::head::{Request, header_slots};
use revolve::protocol::message::{Message, Received, Receiver, Scratch};
use tungstenite::protocol::frame::coding::Data;

use super::oracle::frames::{ClientFrame, FrameFacts};

pub(crate) fn run(data: &[u8]) {
    let Some((&[what, settings @ ..], rest)) = data.split_first_chunk::<4>() else { return };
    match what % 4 {
        0 => check_offer(rest),
        1 => check_payload(settings, rest),
        2 => check_frames(settings, rest),
        _ => check_message(settings, rest),
    }
}

// ---- offers ----

/// What these extension fields lead to: what is agreed on, and how it is told.
fn agree(fields: &[&str]) -> Option<Result<Option<(DeflateParams, String)>, MalformedOffer>> {
    let mut head = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
    for field in fields {
        head += &format!("Sec-WebSocket-Extensions: {field}\r\n");
    }
    head += "\r\n";
    let mut slots = header_slots();
    let request =
        Request::parse(head.as_bytes(), &mut slots, &ProtocolLimits::from(&Config::default()))
            .ok()?;
    Some(negotiate(&request).map(|agreed| {
        agreed.map(|params| {
            let mut told = Vec::new();
            params.write_field(&mut told);
            (params, String::from_utf8(told).expect("a field is ASCII"))
        })
    }))
}

fn check_offer(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if text.bytes().any(|byte| !matches!(byte, b' '..=b'~' | b'\t' | b'\n')) {
        return;
    }
    let fields: Vec<&str> = text.split('\n').collect();
    let Some(agreed) = agree(&fields) else { return };
    let expected = fields.iter().map(|field| read_plainly(field)).collect::<Option<Vec<_>>>();
    let expected = expected.map(|offers| offers.into_iter().flatten().find_map(acceptable));
    let told = agreed.map(|agreed| agreed.map(|(_, told)| told));
    match (told, expected) {
        (Err(MalformedOffer), None) | (Ok(None), Some(None)) => {}
        (Ok(Some(told)), Some(Some(window))) => {
            let window = window.map_or(String::new(), |n| format!("; server_max_window_bits={n}"));
            let always = "Sec-WebSocket-Extensions: permessage-deflate; \
                          server_no_context_takeover; client_no_context_takeover";
            assert_eq!(told, format!("{always}{window}\r\n"));
        }
        (told, expected) => panic!("{told:?}, and should be {expected:?}"),
    }
}

type PlainOffer = (String, Vec<(String, Option<String>)>);

/// A field's offers, character by character, as the grammar of RFC 6455 9.1 has it; `None` if it
/// has none of this kind.
fn read_plainly(field: &str) -> Option<Vec<PlainOffer>> {
    let mut rest = field.chars().peekable();
    let mut offers = Vec::new();
    loop {
        while rest.next_if(|&c| " \t,".contains(c)).is_some() {}
        if rest.peek().is_none() {
            return (!offers.is_empty()).then_some(offers);
        }
        let name = token(&mut rest)?;
        let mut parameters = Vec::new();
        loop {
            match rest.next() {
                Some(';') => {
                    blanks(&mut rest);
                    let name = token(&mut rest)?;
                    let value = match rest.next_if_eq(&'=') {
                        None => None,
                        Some(_) => {
                            blanks(&mut rest);
                            Some(value(&mut rest)?)
                        }
                    };
                    parameters.push((name, value));
                }
                Some(',') | None => break,
                Some(_) => return None,
            }
        }
        offers.push((name, parameters));
    }
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn blanks(rest: &mut Rest<'_>) {
    while rest.next_if(|&c| " \t".contains(c)).is_some() {}
}

fn is_in_tokens(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A token, and the blanks behind it.
fn token(rest: &mut Rest<'_>) -> Option<String> {
    let mut token = String::new();
    while let Some(c) = rest.next_if(|&c| is_in_tokens(c)) {
        token.push(c);
    }
    blanks(rest);
    (!token.is_empty()).then_some(token)
}

/// A token, or a quoted string that means one, and the blanks behind it.
fn value(rest: &mut Rest<'_>) -> Option<String> {
    if rest.next_if_eq(&'"').is_none() {
        return token(rest);
    }
    let mut meant = String::new();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => meant.push(rest.next()?),
            c => meant.push(c),
        }
    }
    blanks(rest);
    (!meant.is_empty() && meant.chars().all(is_in_tokens)).then_some(meant)
}

/// RFC 7692 7.1: whether an offer may be accepted; then the window that it asks of us, if any.
fn acceptable((name, parameters): PlainOffer) -> Option<Option<u8>> {
    if name != "permessage-deflate" {
        return None;
    }
    let mut names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < parameters.len() {
        return None;
    }
    let bits = |value: &str| (8..=15u8).find(|bits| bits.to_string() == value);
    let mut window = None;
    for (name, value) in &parameters {
        match (name.as_str(), value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None)
            | ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => _ = bits(value)?,
            ("server_max_window_bits", Some(value)) => window = Some(bits(value)?),
            _ => return None,
        }
    }
    Some(window)
}

/// Parameters with a window of so many bits.
fn params(bits: u8) -> DeflateParams {
    let offer = format!("permessage-deflate; server_max_window_bits={bits}");
    let agreed = agree(&[&offer]).expect("it is a request").expect("it is well-formed");
    agreed.expect("it is acceptable").0
}

// ---- inflating ----

const INFLATE_SHARES: [usize; 4] = [1, 100, 5000, 1 << 20];
const MAX_SIZES: [usize; 4] = [16, 300, 4096, 1 << 16];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Control,
    Close,
}

/// What a receiver makes of a stream that is cut into pieces so long, with such a share a visit.
fn receive(
    stream: &[u8],
    piece: usize,
    share: usize,
    max_size: usize,
) -> (Vec<Seen>, Option<Violation>) {
    let mut scratch = Scratch::default();
    let mut receiver = Receiver::new(Some(params(15)));
    let (mut tail, mut seen) = (Vec::new(), Vec::new());
    let now = Instant::now();
    let mut pieces = stream.chunks(piece);
    let mut arrived = 0;
    let mut visits = 0;
    loop {
        // As a connection does: nothing is read while a message waits to be inflated.
        if !receiver.is_inflating() {
            let Some(piece) = pieces.next() else { return (seen, None) };
            tail.extend_from_slice(piece);
            arrived += piece.len();
        }
        visits += 1;
        assert!(visits < 10_000_000, "it does not get on");
        scratch.grant_share(share);
        let mut at = 0;
        loop {
            match receiver.next(&mut tail, &mut at, &mut scratch, max_size, now) {
                Ok(None) | Ok(Some(Received::Inflating)) => break,
                Ok(Some(Received::Message(Message::Text(text)))) => {
                    assert!(text.len() <= max_size);
                    seen.push(Seen::Text(text.to_owned()));
                }
                Ok(Some(Received::Message(Message::Binary(bytes)))) => {
                    assert!(bytes.len() <= max_size);
                    seen.push(Seen::Binary(bytes.to_vec()));
                }
                Ok(Some(Received::Ping(_) | Received::Pong)) => seen.push(Seen::Control),
                Ok(Some(Received::Close(_))) => {
                    seen.push(Seen::Close);
                    return (seen, None);
                }
                Err(violation) => return (seen, Some(violation)),
            }
        }
        tail.drain(..at);
        // What has arrived, growth that may double it, and what it has become.
        assert!(receiver.held_bytes() <= 2 * arrived + 4096.max(max_size + 1), "it takes too much");
    }
}

/// A deflated message, in one go and into as much room as there may be.
fn inflate_plainly(deflated: &[u8], max_size: usize) -> Result<Vec<u8>, Violation> {
    let input = [deflated, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut stream = Decompress::new(false);
    let mut inflated = Vec::with_capacity(max_size + 1);
    let mut taken = 0;
    loop {
        let before = (stream.total_in(), inflated.len());
        let status = stream.decompress_vec(&input[taken..], &mut inflated, FlushDecompress::None);
        taken += (stream.total_in() - before.0) as usize;
        if inflated.len() > max_size {
            return Err(Violation::TooBig);
        }
        match status.map_err(|_| Violation::NotDeflate)? {
            Status::StreamEnd if taken == input.len() => return Ok(inflated),
            Status::StreamEnd => stream.reset(false),
            _ if (stream.total_in(), inflated.len()) == before => {
                return Err(Violation::NotDeflate);
            }
            _ => {}
        }
    }
}

fn check_payload([limits, shape, split]: [u8; 3], deflated: &[u8]) {
    let max_size = MAX_SIZES[usize::from(limits) % 4];
    let share = INFLATE_SHARES[usize::from(limits) / 4 % 4];
    let is_text = shape & 1 == 1;
    let opcode = if is_text { 0x41 } else { 0x42 };
    let mut stream = Vec::new();
    let whole = |first, part: &[u8]| ClientFrame::new(first, part.to_vec(), [0; 4]);
    if shape & 2 == 0 {
        whole(0x80 | opcode, deflated).write(&mut stream);
    } else {
        let (begin, end) = deflated.split_at(usize::from(split).min(deflated.len()));
        whole(opcode, begin).write(&mut stream);
        whole(0x80, end).write(&mut stream);
    }
    let piece = if shape & 4 == 0 { stream.len() } else { usize::from(split) + 1 };
    let (seen, violation) = receive(&stream, piece, share, max_size);
    // What is too large on the wire already is said before it is read.
    if violation == Some(Violation::TooBig) && deflated.len() > max_size {
        return;
    }
    match (inflate_plainly(deflated, max_size), violation) {
        (Ok(inflated), None) if is_text => {
            let text = String::from_utf8(inflated).expect("it was let pass as UTF-8");
            assert_eq!(seen, [Seen::Text(text)]);
        }
        (Ok(inflated), None) => assert_eq!(seen, [Seen::Binary(inflated)]),
        (Ok(inflated), Some(Violation::NotUtf8)) if is_text => {
            assert!(std::str::from_utf8(&inflated).is_err());
        }
        // Which of two faults is met first depends on where the message was cut.
        (Err(_), Some(Violation::NotUtf8)) if is_text => {}
        (Err(Violation::TooBig), Some(Violation::NotDeflate)) => {}
        (Err(expected), Some(violation)) if expected == violation => {}
        (expected, violation) => panic!("{violation:?}, and should be {expected:?}"),
    }
}

fn check_frames([limits, piece, share]: [u8; 3], stream: &[u8]) {
    if stream.is_empty() {
        return;
    }
    let max_size = MAX_SIZES[usize::from(limits) % 4];
    let at_once = receive(stream, stream.len(), 1 << 30, max_size);
    let share = INFLATE_SHARES[usize::from(share) % 4];
    let in_pieces = receive(stream, usize::from(piece) + 1, share, max_size);
    assert_eq!(at_once.0, in_pieces.0, "cuts make a difference");
    let is_early = [at_once.1, in_pieces.1].contains(&Some(Violation::NotUtf8));
    assert!(at_once.1 == in_pieces.1 || is_early, "{:?} or {:?}", at_once.1, in_pieces.1);
}

// ---- there and back ----

fn check_message([bits, times, cut]: [u8; 3], seed: &[u8]) {
    let bits = 8 + bits % 8;
    // Long enough for the largest window to matter, now and then.
    let payload = seed.repeat(1 + usize::from(times) * usize::from(times) / 64);
    let limits =
        ProtocolLimits { deflate_bytes_least: 1, ..ProtocolLimits::from(&Config::default()) };
    let mut deflater = Deflater::new(&limits);
    let (begin, end) = payload.split_at(usize::from(cut).min(payload.len()));
    let mut out = Vec::new();
    let mut deflate_writer =
        DeflateWriter::new(Some(params(bits)), &mut deflater).expect("it was agreed");
    deflate_writer.encode(Data::Binary, &[begin, end], &mut out);
    deflate_writer.encode(Data::Binary, &[&payload], &mut out);
    let frames: Vec<FrameFacts> = FrameFacts::all(&out).collect();
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert!(frame.is_whole && frame.is_final() && !frame.is_padded());
        match frame.first {
            0x82 => assert_eq!(frame.payload, payload),
            0xc2 => {
                assert!(frame.payload.len() < payload.len(), "it did not shrink");
                let inflated = inflate_within(&frame.payload, bits, payload.len());
                assert_eq!(inflated, payload);
            }
            other => panic!("a frame that starts with {other:#x}"),
        }
    }
}

/// As a client does that has no larger window than it asked us to keep to. (zlib has none of 2^8
/// bytes.)
fn inflate_within(deflated: &[u8], bits: u8, length: usize) -> Vec<u8> {
    let mut stream = Decompress::new_with_window_bits(false, bits.max(9));
    let mut inflated = Vec::with_capacity(length + 1);
    let input = [deflated, &[0, 0, 0xff, 0xff]].concat();
    stream
        .decompress_vec(&input, &mut inflated, FlushDecompress::Sync)
        .expect("what we deflate inflates");
    assert_eq!(stream.total_in(), input.len() as u64);
    inflated
}

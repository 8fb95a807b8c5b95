//! Compression's own oracle is the other half of it: what flate2 deflates, in whatever manner a
//! client may choose, comes out of our endpoint as it went in, and what we deflate comes out of
//! flate2. (Tungstenite does not compress.) Damaged messages have no reference but themselves: they
//! must mean the same however they are cut, and however small the share is in which they inflate.

use std::time::Instant;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use revolve::config::Config;
use revolve::protocol::ProtocolLimits;
use revolve::protocol::deflate::{self, DeflateParams, DeflateWriter, Deflater};
use revolve::protocol::endpoint::{Endpoint, Event};
use revolve::protocol::head::{self, Request};
use revolve::protocol::message::{Message, Scratch};
use tungstenite::protocol::frame::coding::Data;

use crate::comparison::conversation::text;
use crate::comparison::frames::{ClientFrame, FrameFacts};
use crate::comparison::random::Random;
use crate::for_each_seed;

const RSV1: u8 = 0x40;
const MAX_SIZE: usize = 200_000;

/// What a client and we agree on, through the handshake as everyone does.
fn params(offer: &str) -> DeflateParams {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
    let mut slots = head::header_slots();
    let limits = ProtocolLimits::from(&Config::default());
    let request = Request::parse(head.as_bytes(), &mut slots, &limits);
    deflate::negotiate(&request.expect("a request")).expect("well-formed").expect("agreed")
}

/// A message: text or not, and its bytes.
type Said = (bool, Vec<u8>);

fn something(random: &mut Random) -> Said {
    let size = match random.below(10) {
        0 => random.below(70_000),
        1..=4 => random.below(3000),
        _ => random.below(40),
    };
    match random.below(3) {
        0 => (true, text(size, random).into_bytes()),
        1 => (false, random.bytes(size)),
        // With something to look back to, near and far.
        _ => {
            let word = random.bytes(1 + size / 7);
            (false, word.iter().copied().cycle().take(size).collect())
        }
    }
}

/// Deflates as RFC 7692 7.2.1 allows: any level, any window, flushed anywhere in any manner, and now
/// and then ended.
fn deflated(message: &[u8], random: &mut Random) -> Vec<u8> {
    let (level, window) = (random.below(10) as u32, 9 + random.below(7) as u8);
    let mut stream = Compress::new_with_window_bits(Compression::new(level), false, window);
    let mut out = Vec::with_capacity(2 * message.len() + 10_000);
    let mut rest = message;
    while !rest.is_empty() && random.once_in(2) {
        let (piece, behind) = rest.split_at(random.below(rest.len() + 1));
        let flush = random.pick(&[
            FlushCompress::None,
            FlushCompress::Partial,
            FlushCompress::Sync,
            FlushCompress::Full,
            FlushCompress::Finish,
        ]);
        stream.compress_vec(piece, &mut out, flush).expect("flate2 deflates");
        if flush == FlushCompress::Finish {
            stream.reset();
        }
        rest = behind;
    }
    stream.compress_vec(rest, &mut out, FlushCompress::Sync).expect("flate2 deflates");
    // zlib has nothing to add where it has just flushed; a message ends with an empty block (7.2.1).
    if !out.ends_with(&[0, 0, 0xff, 0xff]) {
        out.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    }
    out.truncate(out.len() - 4);
    out
}

/// Frames of a message in fragments cut anywhere, with pings in between.
fn frames(first: u8, payload: &[u8], random: &mut Random, out: &mut Vec<u8>) {
    let mut cuts: Vec<usize> =
        (0..random.pick(&[0, 0, 1, 5])).map(|_| random.below(payload.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut from, mut opcode) = (0, first);
    for to in cuts {
        ClientFrame::new(opcode, payload[from..to].to_vec(), random.mask()).write(out);
        if random.once_in(3) {
            ClientFrame::new(0x89, random.bytes(3), random.mask()).write(out);
        }
        (from, opcode) = (to, 0);
    }
    ClientFrame::new(opcode | 0x80, payload[from..].to_vec(), random.mask()).write(out);
}

/// What our endpoint makes of a stream in these pieces, inflating so much at a time; the code of the
/// Close, if it ends with one. (What is neither DEFLATE nor UTF-8 is told by whichever shows first.)
fn heard<'p>(pieces: impl Iterator<Item = &'p [u8]>, share: usize) -> (Vec<Said>, Result<(), u16>) {
    let limits =
        ProtocolLimits { message_bytes: MAX_SIZE, ..ProtocolLimits::from(&Config::default()) };
    let now = Instant::now();
    let mut endpoint = Endpoint::new(now);
    endpoint.open(Some(params("permessage-deflate")), now, &limits);
    let Endpoint::Open(open) = &mut endpoint else { panic!("it was opened") };
    let mut scratch = Scratch::default();
    scratch.grant_share(share);
    let (mut tail, mut out, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        tail.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match open.next(&mut tail, &mut at, &mut scratch, &limits, now, &mut out) {
                Ok(None) => break,
                Ok(Some(Event::Message(Message::Text(text)))) => {
                    heard.push((true, text.as_bytes().to_vec()));
                }
                Ok(Some(Event::Message(Message::Binary(bytes)))) => {
                    heard.push((false, bytes.to_vec()));
                }
                Ok(Some(Event::Inflating)) => scratch.grant_share(share),
                Ok(Some(Event::Control)) => {}
                Ok(Some(Event::PeerClosed(code))) => panic!("a Close out of nowhere: {code}"),
                Err(violation) => return (heard, Err(violation.close_code().into())),
            }
        }
        tail.drain(..at);
    }
    (heard, Ok(()))
}

fn pieces<'s>(stream: &'s [u8], random: &mut Random) -> Vec<&'s [u8]> {
    let size = random.pick(&[1, 7, 100, 5000, usize::MAX / 2]).max(stream.len() / 5000);
    stream.chunks(size.max(1)).collect()
}

/// From a share that is used up by a byte, to one that is never.
const SHARES: [usize; 4] = [1, 1000, 50_000, usize::MAX];

#[test]
fn what_flate2_deflates_comes_out_as_it_went_in() {
    for_each_seed("what_flate2_deflates_comes_out_as_it_went_in", 1000, |seed| {
        let random = &mut Random::new(seed);
        let (mut said, mut stream) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(5) {
            let (is_text, message) = something(random);
            let opcode = if is_text { 0x1 } else { 0x2 };
            if random.once_in(4) {
                frames(opcode, &message, random, &mut stream);
            } else {
                frames(opcode | RSV1, &deflated(&message, random), random, &mut stream);
            }
            said.push((is_text, message));
        }
        let share = random.pick(&SHARES);
        let (heard, end) = heard(pieces(&stream, random).into_iter(), share);
        match end {
            Ok(()) if heard == said => Ok(()),
            _ => Err(format!("{end:?} after {} of {} messages", heard.len(), said.len())),
        }
    });
}

#[test]
fn damage_means_the_same_however_it_is_cut_and_inflated() {
    let mut ends = std::collections::BTreeMap::new();
    for_each_seed("damage_means_the_same_however_it_is_cut_and_inflated", 2000, |seed| {
        let random = &mut Random::new(seed);
        let (is_text, message) = something(random);
        let mut payload = deflated(&message, random);
        match random.below(3) {
            0 => payload.truncate(random.below(payload.len())),
            1 => {
                let size = 1 + random.below(300);
                payload = random.bytes(size);
            }
            _ => {
                for _ in 0..=random.below(3) {
                    let at = random.below(payload.len());
                    payload[at] ^= 1 << random.below(8);
                }
            }
        }
        let mut stream = Vec::new();
        frames(if is_text { 0x41 } else { 0x42 }, &payload, random, &mut stream);
        let first = heard(std::iter::once(&stream[..]), usize::MAX);
        for share in SHARES {
            let again = heard(pieces(&stream, random).into_iter(), share);
            if again != first {
                return Err(format!("{:?} and {:?} with a share of {share}", first.1, again.1));
            }
        }
        *ends.entry(format!("{:?}", first.1)).or_insert(0) += 1;
        Ok(())
    });
    println!("ends: {ends:?}");
    assert!(std::env::var_os("REVOLVE_SEED").is_some() || ends.len() == 2, "{ends:?}");
}

#[test]
fn what_we_deflate_comes_out_of_flate2() {
    let limits =
        ProtocolLimits { deflate_bytes_least: 1, ..ProtocolLimits::from(&Config::default()) };
    let mut deflater = Deflater::new(&limits);
    for_each_seed("what_we_deflate_comes_out_of_flate2", 1000, |seed| {
        let random = &mut Random::new(seed);
        let bits = 9 + random.below(7) as u8;
        let params = params(&format!("permessage-deflate; server_max_window_bits={bits}"));
        let (mut said, mut written) = (Vec::new(), Vec::new());
        for _ in 0..=random.below(5) {
            let (is_text, message) = something(random);
            let kind = if is_text { Data::Text } else { Data::Binary };
            let parts = message.split_at(random.below(message.len() + 1));
            let mut deflate_writer =
                DeflateWriter::new(Some(params), &mut deflater).expect("agreed");
            let before = written.len();
            deflate_writer.encode(kind, &[parts.0, parts.1], &mut written);
            assert!(written.len() - before <= message.len() + 10, "it grew");
            said.push((is_text, message));
        }
        // With a window of just so many bits: to look back further is an error.
        let mut stream = Decompress::new_with_window_bits(false, bits);
        let heard: Vec<Said> = FrameFacts::all(&written)
            .map(|frame| {
                let is_text = frame.first & 0x0f == 0x1;
                if frame.first & RSV1 == 0 {
                    return (is_text, frame.payload);
                }
                let mut message = Vec::with_capacity(MAX_SIZE);
                let whole = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
                stream.reset(false);
                stream
                    .decompress_vec(&whole, &mut message, FlushDecompress::Sync)
                    .expect("flate2 inflates");
                assert_eq!(stream.total_in(), whole.len() as u64);
                assert!(frame.payload.len() < message.len(), "it did not shrink");
                (is_text, message)
            })
            .collect();
        if heard == said { Ok(()) } else { Err("something else came out".to_owned()) }
    });
}

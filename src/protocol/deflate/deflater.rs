//! Deflating whole messages of ours, with one compressor a reactor.
//!
//! A message is deflated in pieces as long as the window that was agreed on. After each piece the
//! compressor forgets, so it never looks back further than the window. Therefore one compressor serves
//! windows of all sizes, also of 2^8 bytes, which zlib does not offer. At the end of each piece it is
//! also checked whether the message shrinks.
//!
//! Invariant: what goes out deflated is smaller than what it stands for.
//!
//! Next: `absent`: the same names in a build without the feature.

use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress, Status};
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::{DeflateParams, Deflation, RSV1};
use crate::protocol::frame;
use crate::protocol::limits::ProtocolLimits;

/// zlib-rs's second level. Measured on JSON, a MiB of it: 16 % in 2.5 ms; the first level makes it
/// 22 % in 1.7 ms, the sixth (zlib's default) 14 % in 6.8 ms.
const LEVEL: Compression = Compression::new(2);

/// DEFLATE's own (RFC 1951 2).
const LARGEST_WINDOW: usize = 1 << 15;

/// What each flush ends with, and the last one of a message leaves out (RFC 7692 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// The compressor of a reactor. Costs some 350 KiB once it has been used.
#[derive(Debug)]
pub struct Deflater {
    stream: Option<Compress>,
    deflated: Vec<u8>,
    joined: Vec<u8>,
    /// The broadcast under way.
    for_all: Option<ForAll>,
    bytes_least: usize,
    windows_most: usize,
}

/// A frame for many, as it came, and deflated if that made it smaller.
#[derive(Debug)]
struct ForAll {
    plain: Arc<Vec<u8>>,
    deflated: Option<Vec<u8>>,
}

/// One connection's way to say things deflated.
#[derive(Debug)]
pub struct DeflateWriter<'a> {
    params: DeflateParams,
    deflater: &'a mut Deflater,
}

impl<'a> DeflateWriter<'a> {
    /// `None` without parameters.
    pub fn new(params: Option<DeflateParams>, deflater: &'a mut Deflater) -> Option<Self> {
        params.map(|params| DeflateWriter { params, deflater })
    }

    /// The same for less long.
    pub fn reborrow(&mut self) -> DeflateWriter<'_> {
        DeflateWriter { params: self.params, deflater: self.deflater }
    }

    /// Appends a message, its parts joined: deflated if that makes it smaller, else as it is.
    pub fn encode(&mut self, kind: Data, parts: &[&[u8]], out: &mut Vec<u8>) {
        if self.encode_smaller(kind, parts, out) == Deflation::Declined {
            frame::encode_header(OpCode::Data(kind), length_of(parts), out);
            parts.iter().for_each(|part| out.extend_from_slice(part));
        }
    }

    /// Appends a message, its parts joined, if deflating makes it smaller and there is memory for
    /// that.
    pub fn encode_smaller(&mut self, kind: Data, parts: &[&[u8]], out: &mut Vec<u8>) -> Deflation {
        let DeflateWriter { params, deflater } = self;
        let window = params.window_bytes();
        let length = length_of(parts);
        if !deflater.is_worth_it(length, window) {
            return Deflation::Declined;
        }
        let mut joined = std::mem::take(&mut deflater.joined);
        joined.clear();
        let payload = match parts {
            [whole] => Some(*whole),
            _ => joined.try_reserve(length).is_ok().then(|| {
                parts.iter().for_each(|part| joined.extend_from_slice(part));
                &joined[..]
            }),
        };
        let deflated = payload.and_then(|payload| deflater.deflate(payload, window));
        let deflation = match deflated {
            Some(deflated) if out.try_reserve_exact(frame::MAX_HEADER + deflated.len()).is_ok() => {
                encode_deflated(kind, deflated, out);
                Deflation::Appended
            }
            _ => Deflation::Declined,
        };
        deflater.joined = joined;
        deflation
    }
}

impl Deflater {
    /// Of a reactor that deflates within these limits.
    #[must_use]
    pub fn new(limits: &ProtocolLimits) -> Self {
        Deflater {
            stream: None,
            deflated: Vec::new(),
            joined: Vec::new(),
            for_all: None,
            bytes_least: limits.deflate_bytes_least,
            windows_most: limits.deflate_windows_most,
        }
    }

    /// Whether a message of that length is deflated at all.
    fn is_worth_it(&self, length: usize, window: usize) -> bool {
        (self.bytes_least..=window * self.windows_most).contains(&length)
    }

    /// The payload as RFC 7692 7.2.1 makes it; `None` if it is to go plain.
    fn deflate(&mut self, payload: &[u8], window: usize) -> Option<&[u8]> {
        if !self.is_worth_it(payload.len(), window) {
            return None;
        }
        let stream = self.stream.get_or_insert_with(|| Compress::new(LEVEL, false));
        stream.reset();
        self.deflated.clear();
        self.deflated.try_reserve(payload.len()).ok()?;
        let mut read = 0;
        for piece in payload.chunks(window) {
            let status = stream.compress_vec(piece, &mut self.deflated, FlushCompress::Full);
            debug_assert!(matches!(status, Ok(Status::Ok)), "{status:?}");
            read += piece.len();
            // Less than an eighth saved is not worth inflating. With that much saved there was room
            // left, which is how zlib says that a flush is complete.
            if status.is_err() || self.deflated.len() > read - read / 8 {
                return None;
            }
        }
        self.deflated.strip_suffix(&FLUSHED)
    }

    /// A broadcast, as the connections with these parameters get it: a whole plain frame comes in, and
    /// is deflated once for all of them, by the first.
    pub fn for_all<'a>(&'a mut self, params: DeflateParams, plain: &'a Arc<Vec<u8>>) -> &'a [u8] {
        let Some((kind, payload)) = opened(plain) else { return plain };
        // Deflated with the largest window, so not for those for whom that is too large. (A window
        // larger than the message is not.)
        let window = params.window_bytes();
        if window < LARGEST_WINDOW && window < payload.len() {
            return plain;
        }
        let is_known = |known: &ForAll| Arc::ptr_eq(&known.plain, plain);
        if !self.for_all.as_ref().is_some_and(is_known) {
            let deflated = self.deflate(payload, LARGEST_WINDOW).and_then(|deflated| {
                let mut out = Vec::new();
                out.try_reserve_exact(frame::MAX_HEADER + deflated.len()).ok()?;
                encode_deflated(kind, deflated, &mut out);
                Some(out)
            });
            self.for_all = Some(ForAll { plain: plain.clone(), deflated });
        }
        match &self.for_all {
            Some(ForAll { deflated: Some(deflated), .. }) => deflated,
            _ => plain,
        }
    }

    /// The broadcast is over.
    pub fn forget_broadcast(&mut self) {
        self.for_all = None;
    }

    /// Gives back storage of more than `kept` bytes.
    pub fn trim(&mut self, kept: usize) {
        for storage in [&mut self.deflated, &mut self.joined] {
            if storage.capacity() > kept {
                *storage = Vec::new();
            }
        }
    }
}

fn length_of(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

/// Kind and payload of a whole plain frame of ours.
fn opened(frame: &[u8]) -> Option<(Data, &[u8])> {
    let kind = match OpCode::from(frame.first()? & 0x0f) {
        OpCode::Data(kind) => kind,
        OpCode::Control(_) => return None,
    };
    let header = match frame.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    Some((kind, frame.get(header..)?))
}

fn encode_deflated(kind: Data, deflated: &[u8], out: &mut Vec<u8>) {
    let first = out.len();
    frame::encode(OpCode::Data(kind), deflated, out);
    out[first] |= RSV1;
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    use super::super::inflater::tests::noise;
    use super::super::params::tests::{params, params_with_window};
    use super::*;

    fn deflater() -> Deflater {
        Deflater::new(&ProtocolLimits::FOR_TESTS)
    }

    fn json(size: usize) -> Vec<u8> {
        let rows =
            (0..).map(|n| format!(r#"{{"id": {n}, "at": {}, "on": true}}, "#, n * 7919 % 1000));
        let mut text = String::new();
        rows.take_while(|row| {
            text += row;
            text.len() < size
        })
        .for_each(drop);
        text.truncate(size);
        text.into_bytes()
    }

    /// What it inflates to with a window of just so many bits; looking back further is an error.
    fn inflated(deflated: &[u8], bits: u8) -> Vec<u8> {
        let mut stream = Decompress::new_with_window_bits(false, bits);
        let mut out = Vec::with_capacity(2 << 20);
        stream
            .decompress_vec(&[deflated, &FLUSHED].concat(), &mut out, FlushDecompress::Sync)
            .unwrap();
        assert_eq!(stream.total_in(), deflated.len() as u64 + 4);
        out
    }

    #[test]
    fn every_window_is_kept_to() {
        let mut deflater = deflater();
        for bits in 8..=15 {
            let window = 1 << bits;
            let params = params_with_window(bits);
            assert_eq!(params.window_bytes(), window);
            for size in [1024, window - 1, window, window + 1, 5 * window + 3, 32 * window] {
                if size < 1024 {
                    continue;
                }
                let message = json(size);
                let deflated = deflater.deflate(&message, window).unwrap().to_vec();
                assert!(deflated.len() < size * 3 / 4, "{size} became {}", deflated.len());
                assert_eq!(inflated(&deflated, bits.max(9)), message, "{bits} bits, {size}");
                // Each piece as if the others were not there: so none looks into another.
                deflater.bytes_least = 0;
                let mut pieces = Vec::new();
                for piece in message.chunks(window) {
                    match deflater.deflate(piece, window) {
                        Some(deflated) => pieces.extend_from_slice(deflated),
                        None => pieces.clear(),
                    }
                    pieces.extend_from_slice(&FLUSHED);
                }
                deflater.bytes_least = 1024;
                if message.len().is_multiple_of(window) {
                    assert_eq!(pieces, [&deflated[..], &FLUSHED].concat(), "{bits} bits, {size}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_gain_goes_plain() {
        let mut deflater = deflater();
        let noise = noise(100_000);
        let mut goes = |message: &[u8], window| deflater.deflate(message, window).is_some();
        assert!(!goes(b"", LARGEST_WINDOW));
        assert!(!goes(&json(1023), LARGEST_WINDOW), "too short");
        assert!(goes(&json(1024), LARGEST_WINDOW));
        assert!(goes(&json(1 << 20), LARGEST_WINDOW));
        assert!(!goes(&json((1 << 20) + 1), LARGEST_WINDOW), "too long");
        assert!(goes(&json(32 << 8), 1 << 8));
        assert!(!goes(&json((32 << 8) + 1), 1 << 8), "too long for its window");
        for size in [1024, 5000, 40_000, 100_000] {
            assert!(!goes(&noise[..size], LARGEST_WINDOW), "{size} of noise");
        }
        // It is seen after the first window: what stands behind it is not looked at.
        assert!(!goes(&[&noise[..LARGEST_WINDOW], &json(100_000)].concat(), LARGEST_WINDOW));
        assert!(goes(&json(5000), LARGEST_WINDOW), "and the next is none the worse for it");
    }

    #[test]
    fn a_message_leaves_as_one_frame_whatever_its_parts() {
        let mut deflater = deflater();
        let message = json(3000);
        let mut out = b"before".to_vec();
        let mut deflate_writer = DeflateWriter::new(Some(params()), &mut deflater).unwrap();
        deflate_writer.encode(Data::Text, &[&message], &mut out);
        let whole = out.split_off(6);
        deflate_writer.encode(Data::Text, &[&message[..1], b"", &message[1..]], &mut out);
        assert_eq!(out[6..], whole);
        assert_eq!(whole[..2], [0x80 | RSV1 | 0x1, 126]);
        assert_eq!(whole.len(), 4 + usize::from(u16::from_be_bytes([whole[2], whole[3]])));
        assert_eq!(inflated(&whole[4..], 15), message);
        out.clear();
        deflate_writer.encode(Data::Binary, &[b"sh", b"ort"], &mut out);
        assert_eq!(out, b"\x82\x05short");
        assert!(DeflateWriter::new(None, &mut deflater).is_none());
    }

    #[test]
    fn a_broadcast_is_deflated_once() {
        let mut deflater = deflater();
        for (kind, size) in [(Data::Text, 2000), (Data::Binary, 100_000)] {
            let message = json(size);
            let mut frame = Vec::new();
            frame::encode(OpCode::Data(kind), &message, &mut frame);
            let frame = Arc::new(frame);
            let deflated = deflater.for_all(params(), &frame).to_vec();
            assert_eq!(deflated[0], 0x80 | RSV1 | u8::from(OpCode::Data(kind)));
            let header = if deflated[1] == 126 { 4 } else { 10 };
            assert_eq!(inflated(&deflated[header..], 15), message);
            // By the address: it is the same one.
            let first = deflater.for_all(params(), &frame).as_ptr();
            assert_eq!(deflater.for_all(params_with_window(15), &frame).as_ptr(), first);
            // A window that is smaller than the message: plain.
            assert_eq!(deflater.for_all(params_with_window(9), &frame), &frame[..]);
            assert_eq!(
                deflater.for_all(params_with_window(11), &frame)[0] & RSV1 != 0,
                size == 2000
            );
            deflater.forget_broadcast();
        }
        let mut short = Vec::new();
        frame::encode(OpCode::Data(Data::Text), b"short", &mut short);
        let short = Arc::new(short);
        assert_eq!(deflater.for_all(params(), &short), &short[..]);
    }

    #[test]
    fn storage_of_a_large_message_is_given_back() {
        let mut deflater = deflater();
        deflater.deflate(&json(1 << 20), LARGEST_WINDOW).unwrap();
        deflater.trim(1 << 20);
        assert!(deflater.deflated.capacity() > 0);
        deflater.trim(1000);
        assert_eq!(deflater.deflated.capacity(), 0);
    }
}

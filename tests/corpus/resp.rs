//! Replies of a server, cut anywhere, against a reader that is plainer: it has all bytes, and calls itself. Commands, which
//! are replies to a decoder. Addresses.
//!
//! Input: two bytes of the largest reply, two that say how the stream is cut, then the stream.

use revolve::resp::decoder::{DEPTH_MOST, Decoder, LINE_MOST, Malformed};
use revolve::resp::{Pipeline, Reply, ServerAddress, ServerError};

use super::frames::cuts;

pub(crate) fn run(data: &[u8]) {
    let Some((&[high, low, style, seed], bytes)) = data.split_first_chunk() else { return };
    let most = usize::from(u16::from_be_bytes([high, low]));
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts(bytes.len(), style, seed) {
        pieces.push(&bytes[from..cut.max(from)]);
        from = cut.max(from);
    }
    pieces.push(&bytes[from..]);
    let whole = decoded(&[bytes], most);
    assert_eq!(decoded(&pieces, most), whole, "the cuts {:?} matter", pieces);
    let (replies, malformed) = read_plainly(bytes, most);
    assert_eq!((&whole.0, whole.1.is_some()), (&replies, malformed), "two readers differ");
    check_commands(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_address(text);
    }
}

fn decoded(pieces: &[&[u8]], most: usize) -> (Vec<Reply>, Option<Malformed>) {
    let mut decoder = Decoder::new(most);
    let mut replies = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_reply() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(malformed) => {
                    assert_eq!(decoder.next_reply(), Err(malformed), "an error goes away");
                    return (replies, Some(malformed));
                }
            }
        }
    }
    (replies, None)
}

/// Why there is no value.
enum Nothing {
    /// It is not there yet.
    Yet,
    /// It never will be.
    Ever,
}

/// The replies, and whether what stands behind them is none.
fn read_plainly(bytes: &[u8], most: usize) -> (Vec<Reply>, bool) {
    let mut replies = Vec::new();
    let mut rest = bytes;
    loop {
        let mut left = most;
        let mut reader = Reader { rest, left: &mut left };
        match reader.reply() {
            Ok(reply) => replies.push(reply),
            Err(nothing) => return (replies, matches!(nothing, Nothing::Ever)),
        }
        rest = reader.rest;
    }
}

struct Reader<'b, 'l> {
    rest: &'b [u8],
    left: &'l mut usize,
}

impl<'b> Reader<'b, '_> {
    fn reply(&mut self) -> Result<Reply, Nothing> {
        self.value(0)
    }

    fn value(&mut self, depth: usize) -> Result<Reply, Nothing> {
        let &kind = self.rest.first().ok_or(Nothing::Yet)?;
        if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
            return Err(Nothing::Ever);
        }
        let line = self.line()?;
        if depth == 0 {
            self.charge(size_of::<Reply>())?;
        }
        if kind == b'+' || kind == b'-' {
            self.charge(line.len())?;
            let error = || Reply::Error(ServerError::from_line(line));
            return Ok(if kind == b'+' { Reply::Simple(line.to_vec()) } else { error() });
        }
        // The form is the one that a number is written in.
        let text = std::str::from_utf8(line).map_err(|_| Nothing::Ever)?;
        let number: i64 = text.parse().map_err(|_| Nothing::Ever)?;
        if number.to_string() != text {
            return Err(Nothing::Ever);
        }
        if kind == b':' {
            return Ok(Reply::Integer(number));
        }
        if number == -1 {
            return Ok(Reply::Null);
        }
        let length = usize::try_from(number).map_err(|_| Nothing::Ever)?;
        if kind == b'$' { self.string(length) } else { self.array(length, depth) }
    }

    fn line(&mut self) -> Result<&'b [u8], Nothing> {
        let line = &self.rest[1..];
        let end = line.iter().position(|&byte| byte == b'\n');
        // With its CR.
        if end.unwrap_or(line.len()) > LINE_MOST + 1 {
            return Err(Nothing::Ever);
        }
        let end = end.ok_or(Nothing::Yet)?;
        self.rest = &line[end + 1..];
        let line = line[..end].strip_suffix(b"\r").ok_or(Nothing::Ever)?;
        if line.contains(&b'\r') { Err(Nothing::Ever) } else { Ok(line) }
    }

    fn string(&mut self, length: usize) -> Result<Reply, Nothing> {
        self.charge(length)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(Nothing::Yet)?;
        let (end, rest) = rest.split_at_checked(2).ok_or(Nothing::Yet)?;
        if end != b"\r\n" {
            return Err(Nothing::Ever);
        }
        self.rest = rest;
        Ok(Reply::Bulk(string.to_vec()))
    }

    fn array(&mut self, length: usize, depth: usize) -> Result<Reply, Nothing> {
        if depth == DEPTH_MOST {
            return Err(Nothing::Ever);
        }
        self.charge(length.saturating_mul(size_of::<Reply>()))?;
        (0..length).map(|_| self.value(depth + 1)).collect::<Result<_, _>>().map(Reply::Array)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Nothing> {
        *self.left = self.left.checked_sub(bytes).ok_or(Nothing::Ever)?;
        Ok(())
    }
}

/// A command with any parts is read as an array of these.
fn check_commands(bytes: &[u8]) {
    let mut pipeline = Pipeline::new();
    let commands: Vec<Vec<&[u8]>> = bytes
        .split(|&byte| byte == b'*')
        .map(|command| command.split(|&byte| byte == b'$').collect())
        .collect();
    for command in &commands {
        pipeline.push(command);
    }
    assert_eq!(pipeline.len(), commands.len());
    let string = |part: &&[u8]| Reply::Bulk(part.to_vec());
    let expected: Vec<Reply> =
        commands.iter().map(|command| Reply::Array(command.iter().map(string).collect())).collect();
    assert_eq!(decoded(&[pipeline.as_bytes()], usize::MAX), (expected, None));
}

/// What is shown of an address is one line; if nobody is named in it, it is that address.
fn check_address(text: &str) {
    match ServerAddress::parse(text) {
        Ok(address) => {
            let shown = address.to_string();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            let is_plain = text.chars().all(|c| c.is_ascii_graphic() && !"\\'\"".contains(c));
            if is_plain && address.credentials().is_none() {
                let again = ServerAddress::parse(&shown);
                assert_eq!(again.ok(), Some(address), "{text:?} is shown as {shown:?}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

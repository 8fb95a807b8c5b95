//! Reads replies from bytes that are cut anywhere.
//!
//! Sans-IO: `connection` and `subscriber` feed it what they read. Nothing is read twice, whatever the cuts: a line is
//! searched on from where the last search ended, and the arrays around the next value wait on a stack. A length is
//! checked against the limits when it is read, before anything is reserved for what it announces. Accepted is what
//! RESP2 says, and numbers in one form only (no plus sign, no leading zeros): another form is no server that we know.
//!
//! Invariant: the replies, and the error behind them, are the same however the bytes were cut. After an error there is
//! nothing but that error: where the next reply would begin is not known.
//!
//! Next: `script`: a script and its name.

use std::fmt;
use std::mem;
use std::ops::Range;

use super::reply::{Reply, ServerError};

/// Bytes of a line at most, without its end. Lines are numbers, words and the texts of errors; the longest of those,
/// which quote a script's error, have some hundred.
pub const LINE_MOST: usize = 4096;

/// Arrays in arrays at most. XREAD's answer has five (streams, stream, entries, entry, fields), our scripts' two. A
/// value inside of more than this is built, and dropped, by functions that call themselves.
pub const DEPTH_MOST: usize = 8;

/// What an element takes besides its bytes: without it, four bytes a piece would become a reply of ten times their
/// size.
const ELEMENT_BYTES: usize = size_of::<Reply>();

/// Bytes of storage that an empty decoder keeps. Most replies are short; one long one need not stay.
const SPARE_MOST: usize = 64 << 10;

/// Bytes that are no RESP2, or more than was to be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No reply begins with this byte.
    Kind(u8),
    /// What should be a number or a length is none.
    Number,
    /// A line has a CR or an LF inside.
    Line,
    /// A line has more than [`LINE_MOST`] bytes.
    LineTooLong,
    /// A string does not end where its length says.
    StringEnd,
    /// Arrays in more than [`DEPTH_MOST`] arrays.
    TooDeep,
    /// A reply would take more memory than a reply may.
    TooLarge,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Kind(byte) => {
                write!(f, "a reply begins with '{}', which is not RESP2", byte.escape_ascii())
            }
            Malformed::Number => f.write_str("a reply has a number that is none"),
            Malformed::Line => f.write_str("a reply has a line break inside of a line"),
            Malformed::LineTooLong => write!(f, "a reply has a line of over {LINE_MOST} bytes"),
            Malformed::StringEnd => f.write_str("a reply has a string that is longer than it says"),
            Malformed::TooDeep => write!(f, "a reply has arrays in over {DEPTH_MOST} arrays"),
            Malformed::TooLarge => f.write_str("a reply is larger than any that was asked for"),
        }
    }
}

impl std::error::Error for Malformed {}

/// An array of which elements are missing.
struct OpenArray {
    elements: Vec<Reply>,
    missing: usize,
}

/// What a line says.
enum Step {
    /// A value is whole.
    Whole(Reply),
    /// An array, a string or nothing more begins: look again.
    Begun,
    /// There are not enough bytes yet.
    Short,
}

/// Bytes on their way to becoming replies.
pub struct Decoder {
    /// Memory that one reply may take.
    reply_bytes_most: usize,
    buffer: Vec<u8>,
    /// Where the next value begins.
    at: usize,
    /// Up to where the line that begins there has no end.
    searched: usize,
    /// The length of the string that begins there.
    string: Option<usize>,
    /// A string of more bytes than this is passed over.
    string_most: usize,
    /// What of a string that is passed over has not come yet, and its length.
    passed_over: Option<(usize, usize)>,
    /// The arrays around it, the outermost first.
    open: Vec<OpenArray>,
    /// What the reply under way takes, with all that was announced.
    taken: usize,
    failed: Option<Malformed>,
}

impl fmt::Debug for Decoder {
    /// Without the content: it may be a session's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.buffer.len() - self.at;
        write!(f, "Decoder({waiting} bytes wait, in {} arrays)", self.open.len())
    }
}

impl Decoder {
    /// A decoder of replies of which each takes at most so much memory.
    #[must_use]
    pub fn new(reply_bytes_most: usize) -> Decoder {
        Decoder {
            reply_bytes_most,
            buffer: Vec::new(),
            at: 0,
            searched: 0,
            string: None,
            string_most: usize::MAX,
            passed_over: None,
            open: Vec::new(),
            taken: 0,
            failed: None,
        }
    }

    /// From now on a string of more bytes than this is not kept: in its place stands [`Reply::TooLong`].
    #[must_use]
    pub fn passing_over(self, string_most: usize) -> Decoder {
        Decoder { string_most, ..self }
    }

    /// Takes the next bytes. The caller takes all replies out before it feeds more, so that what waits here is never
    /// more than the reply under way and what was fed last.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..mem::take(&mut self.at));
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing has come behind the last reply.
    #[must_use]
    pub fn is_between_replies(&self) -> bool {
        self.at == self.buffer.len()
            && self.open.is_empty()
            && self.string.is_none()
            && self.passed_over.is_none()
    }

    /// The next reply, if it is there as a whole.
    ///
    /// # Errors
    ///
    /// If the bytes are none; then always.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, Malformed> {
        if let Some(malformed) = self.failed {
            return Err(malformed);
        }
        let next = self.advance();
        if let Err(malformed) = next {
            // What was fed is of no use any more.
            let empty = Decoder::new(self.reply_bytes_most).passing_over(self.string_most);
            *self = Decoder { failed: Some(malformed), ..empty };
        }
        next
    }

    fn advance(&mut self) -> Result<Option<Reply>, Malformed> {
        loop {
            match self.step()? {
                Step::Short => return Ok(None),
                Step::Begun => {}
                Step::Whole(value) => {
                    if let Some(reply) = self.put(value) {
                        self.taken = 0;
                        self.give_back();
                        return Ok(Some(reply));
                    }
                }
            }
        }
    }

    /// Puts a value where it belongs; the reply, if that is whole now.
    fn put(&mut self, mut value: Reply) -> Option<Reply> {
        while let Some(innermost) = self.open.last_mut() {
            innermost.elements.push(value);
            innermost.missing -= 1;
            if innermost.missing > 0 {
                return None;
            }
            value = Reply::Array(self.open.pop()?.elements);
        }
        Some(value)
    }

    fn step(&mut self) -> Result<Step, Malformed> {
        if let Some(length) = self.string {
            return self.string_of(length);
        }
        if let Some((missing, length)) = self.passed_over {
            return self.pass_over(missing, length);
        }
        let Some(&kind) = self.buffer.get(self.at) else { return Ok(Step::Short) };
        if !b"+-:$*".contains(&kind) {
            return Err(Malformed::Kind(kind));
        }
        let Some(line) = self.line()? else { return Ok(Step::Short) };
        let (begin, end) = (line.start, line.end);
        if self.open.is_empty() {
            self.charge(ELEMENT_BYTES)?;
        }
        match kind {
            b'+' | b'-' => {
                self.charge(end - begin)?;
                let text = &self.buffer[line];
                Ok(Step::Whole(match kind {
                    b'+' => Reply::Simple(text.to_vec()),
                    _ => Reply::Error(ServerError::from_line(text)),
                }))
            }
            b':' => {
                let number = decimal(&self.buffer[line]).ok_or(Malformed::Number)?;
                Ok(Step::Whole(Reply::Integer(number)))
            }
            _ => {
                let Some(length) = self.length(line)? else { return Ok(Step::Whole(Reply::Null)) };
                if kind == b'$' { self.begin_string(length) } else { self.begin_array(length) }
            }
        }
    }

    /// The line that begins here, without its first byte and its end; the next value begins behind it.
    fn line(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let begin = self.at + 1;
        let from = begin + self.searched;
        let found = self.buffer[from..].iter().position(|&byte| byte == b'\n');
        // With the CR, which is the last byte before the LF.
        let length = found.map_or(self.buffer.len(), |found| from + found) - begin;
        if length > LINE_MOST + 1 {
            return Err(Malformed::LineTooLong);
        }
        if found.is_none() {
            self.searched = length;
            return Ok(None);
        }
        let Some((b'\r', line)) = self.buffer[begin..begin + length].split_last() else {
            return Err(Malformed::Line);
        };
        if line.contains(&b'\r') {
            return Err(Malformed::Line);
        }
        (self.at, self.searched) = (begin + length + 1, 0);
        Ok(Some(begin..begin + length - 1))
    }

    /// The length that a line tells; `None` for what is not there.
    fn length(&self, line: Range<usize>) -> Result<Option<usize>, Malformed> {
        match decimal(&self.buffer[line]) {
            Some(-1) => Ok(None),
            Some(length) => usize::try_from(length).map(Some).map_err(|_| Malformed::Number),
            None => Err(Malformed::Number),
        }
    }

    fn begin_string(&mut self, length: usize) -> Result<Step, Malformed> {
        // If long ones are passed over, so is one that does not fit any more into what a reply may take.
        let passes_over = self.string_most < usize::MAX;
        let fits = self.taken.saturating_add(length) <= self.reply_bytes_most;
        if length > self.string_most || passes_over && !fits {
            self.passed_over = Some((length, length));
            return Ok(Step::Begun);
        }
        self.charge(length)?;
        self.string = Some(length);
        Ok(Step::Begun)
    }

    fn string_of(&mut self, length: usize) -> Result<Step, Malformed> {
        let bytes = &self.buffer[self.at..];
        // No overflow: it is below the limit of a reply.
        if bytes.len() < length + 2 {
            return Ok(Step::Short);
        }
        let (string, rest) = bytes.split_at(length);
        if !rest.starts_with(b"\r\n") {
            return Err(Malformed::StringEnd);
        }
        let string = string.to_vec();
        self.string = None;
        self.at += length + 2;
        Ok(Step::Whole(Reply::Bulk(string)))
    }

    /// Drops what has come of a string that is not kept; `missing` of its `length` bytes have not.
    fn pass_over(&mut self, missing: usize, length: usize) -> Result<Step, Malformed> {
        let dropped = missing.min(self.buffer.len() - self.at);
        self.at += dropped;
        self.passed_over = Some((missing - dropped, length));
        let end = &self.buffer[self.at..];
        if missing > dropped || end.len() < 2 {
            return Ok(Step::Short);
        }
        if !end.starts_with(b"\r\n") {
            return Err(Malformed::StringEnd);
        }
        self.passed_over = None;
        self.at += 2;
        Ok(Step::Whole(Reply::TooLong(length)))
    }

    fn begin_array(&mut self, length: usize) -> Result<Step, Malformed> {
        if self.open.len() == DEPTH_MOST {
            return Err(Malformed::TooDeep);
        }
        if length == 0 {
            return Ok(Step::Whole(Reply::Array(Vec::new())));
        }
        self.charge(length.saturating_mul(ELEMENT_BYTES))?;
        // It is charged, so this is no more than a reply may take.
        let elements = Vec::with_capacity(length);
        self.open.push(OpenArray { elements, missing: length });
        Ok(Step::Begun)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.reply_bytes_most { Err(Malformed::TooLarge) } else { Ok(()) }
    }

    fn give_back(&mut self) {
        if self.at == self.buffer.len() {
            self.at = 0;
            self.buffer.clear();
            self.buffer.shrink_to(SPARE_MOST);
        }
    }
}

/// A decimal number in its one form.
fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_one_form = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if is_one_form { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough for whatever is not about the limit.
    const MOST: usize = 1 << 20;

    /// What comes out when the bytes are fed in these pieces.
    fn decoded<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Vec<Reply>, Option<Malformed>) {
        let mut decoder = Decoder::new(MOST);
        let mut replies = Vec::new();
        for piece in pieces {
            decoder.feed(piece);
            loop {
                match decoder.next_reply() {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(malformed) => return (replies, Some(malformed)),
                }
            }
        }
        (replies, None)
    }

    /// Whole, byte by byte, and cut once at every position.
    fn decoded_in_every_way(bytes: &[u8]) -> (Vec<Reply>, Option<Malformed>) {
        let whole = decoded([bytes]);
        assert_eq!(decoded(bytes.chunks(1)), whole, "byte by byte: {}", bytes.escape_ascii());
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(decoded([first, second]), whole, "cut at {cut}: {}", bytes.escape_ascii());
        }
        whole
    }

    fn simple(text: &str) -> Reply {
        Reply::Simple(text.into())
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn error(text: &str) -> Reply {
        Reply::Error(ServerError::from_line(text.as_bytes()))
    }

    #[test]
    fn each_kind_is_read_however_it_is_cut() {
        let int = Reply::Integer;
        for (bytes, reply) in [
            ("+OK\r\n", simple("OK")),
            ("+\r\n", simple("")),
            ("-ERR no\r\n", error("ERR no")),
            (":0\r\n", int(0)),
            (":-1\r\n", int(-1)),
            (":9223372036854775807\r\n", int(i64::MAX)),
            (":-9223372036854775808\r\n", int(i64::MIN)),
            ("$0\r\n\r\n", bulk("")),
            ("$2\r\n\r\n\r\n", bulk("\r\n")),
            ("$12\r\n$3\r\nab\r\n*1\r\n\r\n", bulk("$3\r\nab\r\n*1\r\n")),
            ("$-1\r\n", Reply::Null),
            ("*-1\r\n", Reply::Null),
            ("*0\r\n", Reply::Array(vec![])),
            ("*2\r\n:1\r\n$1\r\na\r\n", Reply::Array(vec![int(1), bulk("a")])),
            (
                "*3\r\n*0\r\n*2\r\n-OOM x\r\n$-1\r\n+b\r\n",
                Reply::Array(vec![
                    Reply::Array(vec![]),
                    Reply::Array(vec![error("OOM x"), Reply::Null]),
                    simple("b"),
                ]),
            ),
        ] {
            assert_eq!(decoded_in_every_way(bytes.as_bytes()), (vec![reply], None), "{bytes:?}");
        }
    }

    #[test]
    fn replies_follow_each_other_and_the_last_may_be_missing() {
        let bytes = b"+OK\r\n*2\r\n:1\r\n*1\r\n$1\r\nx\r\n$3\r\nabc\r\n:7\r\n*2\r\n:1\r\n";
        let inner = Reply::Array(vec![bulk("x")]);
        let array = Reply::Array(vec![Reply::Integer(1), inner]);
        let expected = vec![simple("OK"), array, bulk("abc"), Reply::Integer(7)];
        assert_eq!(decoded_in_every_way(bytes), (expected, None));
    }

    #[test]
    fn what_is_no_resp2_is_refused_however_it_is_cut() {
        for (bytes, malformed) in [
            ("x", Malformed::Kind(b'x')),
            ("\r\n", Malformed::Kind(b'\r')),
            // RESP3.
            ("_\r\n", Malformed::Kind(b'_')),
            ("%1\r\n+a\r\n:1\r\n", Malformed::Kind(b'%')),
            (">2\r\n", Malformed::Kind(b'>')),
            ("*1\r\n,1.5\r\n", Malformed::Kind(b',')),
            ("+a\rb\r\n", Malformed::Line),
            ("+a\n", Malformed::Line),
            ("+\n", Malformed::Line),
            ("+a\nb\r\n", Malformed::Line),
            (":\r\n", Malformed::Number),
            (":-\r\n", Malformed::Number),
            (":-0\r\n", Malformed::Number),
            (":+1\r\n", Malformed::Number),
            (":01\r\n", Malformed::Number),
            (": 1\r\n", Malformed::Number),
            (":1 \r\n", Malformed::Number),
            (":1.0\r\n", Malformed::Number),
            (":9223372036854775808\r\n", Malformed::Number),
            (":\u{663}\r\n", Malformed::Number),
            ("$\r\n", Malformed::Number),
            ("$-2\r\n", Malformed::Number),
            ("$?\r\n", Malformed::Number),
            ("*-2\r\n", Malformed::Number),
            ("$99999999999999999999\r\n", Malformed::Number),
            ("$1\r\nab\r\n", Malformed::StringEnd),
            ("$1\r\na\n\r", Malformed::StringEnd),
            ("$9223372036854775807\r\n", Malformed::TooLarge),
            ("*9223372036854775807\r\n", Malformed::TooLarge),
            ("*1000000\r\n", Malformed::TooLarge),
        ] {
            let (replies, found) = decoded_in_every_way(bytes.as_bytes());
            assert_eq!((replies.len(), found), (0, Some(malformed)), "{bytes:?}");
            // What came before it counts.
            let (replies, found) = decoded_in_every_way(format!("+OK\r\n{bytes}").as_bytes());
            assert_eq!((replies.len(), found), (1, Some(malformed)), "{bytes:?}");
        }
    }

    #[test]
    fn after_an_error_there_is_nothing_but_that_error() {
        let mut decoder = Decoder::new(MOST);
        decoder.feed(b"x+OK\r\n");
        assert_eq!(decoder.next_reply(), Err(Malformed::Kind(b'x')));
        decoder.feed(b"+OK\r\n");
        assert_eq!(decoder.next_reply(), Err(Malformed::Kind(b'x')));
    }

    #[test]
    fn a_line_has_a_longest() {
        let line = |length: usize| format!("+{}\r\n", "a".repeat(length));
        let (replies, found) = decoded([line(LINE_MOST).as_bytes()]);
        assert_eq!((replies.len(), found), (1, None));
        let long = line(LINE_MOST + 1);
        let too_long = (vec![], Some(Malformed::LineTooLong));
        assert_eq!(decoded([long.as_bytes()]), too_long);
        assert_eq!(decoded(long.as_bytes().chunks(1)), too_long);
        // One without an end is refused when it is too long, and not kept until it ends.
        let endless = "+".to_owned() + &"a".repeat(LINE_MOST + 2);
        assert_eq!(decoded(endless.as_bytes().chunks(1)), too_long);
    }

    #[test]
    fn arrays_have_a_deepest() {
        let nested = |depth: usize| "*1\r\n".repeat(depth) + ":1\r\n";
        let (replies, found) = decoded_in_every_way(nested(DEPTH_MOST).as_bytes());
        assert_eq!((replies.len(), found), (1, None));
        let (replies, found) = decoded_in_every_way(nested(DEPTH_MOST + 1).as_bytes());
        assert_eq!((replies.len(), found), (0, Some(Malformed::TooDeep)));
    }

    #[test]
    fn a_reply_has_a_largest_and_each_reply_anew() {
        let mut decoder = Decoder::new(1000);
        // A string alone: its bytes, and one element.
        let fits = 1000 - ELEMENT_BYTES;
        let string = |length: usize| format!("${length}\r\n{}\r\n", "a".repeat(length));
        for _ in 0..5 {
            decoder.feed(string(fits).as_bytes());
            assert!(matches!(decoder.next_reply(), Ok(Some(Reply::Bulk(b))) if b.len() == fits));
        }
        // At its length, before a byte of it has come.
        decoder.feed(format!("${}\r\n", fits + 1).as_bytes());
        assert_eq!(decoder.next_reply(), Err(Malformed::TooLarge));

        // The sum over all of it counts, with what was announced.
        let mut decoder = Decoder::new(1000);
        decoder.feed(b"*3\r\n$400\r\n");
        decoder.feed(&[b'a'; 400]);
        decoder.feed(b"\r\n$300\r\n");
        assert_eq!(decoder.next_reply(), Ok(None));
        decoder.feed(&[b'a'; 300]);
        decoder.feed(b"\r\n$300\r\n");
        assert_eq!(decoder.next_reply(), Err(Malformed::TooLarge));

        // So do elements without a byte, and arrays in arrays: each is charged for what it announces.
        let most = (1000 - ELEMENT_BYTES) / ELEMENT_BYTES;
        let mut decoder = Decoder::new(1000);
        decoder.feed(format!("*{most}\r\n").as_bytes());
        assert_eq!(decoder.next_reply(), Ok(None));
        decoder.feed(b"*1\r\n");
        assert_eq!(decoder.next_reply(), Err(Malformed::TooLarge));
    }

    #[test]
    fn it_says_whether_something_is_under_way_and_keeps_little() {
        let mut decoder = Decoder::new(MOST);
        assert!(decoder.is_between_replies());
        for piece in ["*", "1\r", "\n", "$1\r\n", "a", "\r"] {
            decoder.feed(piece.as_bytes());
            assert_eq!(decoder.next_reply(), Ok(None));
            assert!(!decoder.is_between_replies(), "{piece:?}");
        }
        decoder.feed(b"\n");
        assert!(decoder.next_reply().is_ok_and(|reply| reply.is_some()));
        assert!(decoder.is_between_replies());
        decoder.feed(b"$500000\r\n");
        decoder.feed(&[b'a'; 500_000]);
        decoder.feed(b"\r\n");
        assert!(decoder.next_reply().is_ok_and(|reply| reply.is_some()));
        assert!(decoder.buffer.capacity() <= SPARE_MOST);
    }
}

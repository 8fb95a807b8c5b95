//! The HTTP request head: where it ends, what it says, and what is wrong with it.
//!
//! Finding the end is ours, because it decides how long a hostile peer may keep us guessing; the
//! grammar is httparse's, but for target and host, which are [`super::target`]'s. Nothing here
//! routes, answers or reads a socket: [`super::handshake`] judges an upgrade, and the caller answers.
//! Called by the endpoint with whatever has arrived.
//!
//! Invariant: a head is parsed once, when it is complete, and every byte of it was checked once
//! (CVE-2023-43669 was a head parsed anew for each packet). If content is waited for, it is parsed once
//! more, when all of that is there.
//!
//! Next: [`crate::protocol::handshake`], which judges what was parsed here.

use std::mem::MaybeUninit;

use super::limits::ProtocolLimits;
use super::target::{self, BadTarget, Target};

/// Header fields a head may have. A browser sends about 15.
pub const MAX_HEADERS: usize = 100;

/// Room for the fields of one head, on the caller's stack, uninitialised until parsed.
pub type HeaderSlots<'a> = [MaybeUninit<httparse::Header<'a>>; MAX_HEADERS];

/// Fresh room for [`Request::parse`].
#[must_use]
pub fn header_slots<'a>() -> HeaderSlots<'a> {
    [const { MaybeUninit::uninit() }; MAX_HEADERS]
}

/// What is wrong with a request head, whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It is not HTTP: grammar, a bare LF, a control byte, a byte above ASCII outside of a field value
    /// (RFC 9112 2.2, 3, 5).
    Malformed,
    /// No Host, more than one, or one that is no host (RFC 9112 3.2).
    BadHost,
    /// Where the content ends is not clear (RFC 9112 6.3).
    BadFraming,
    /// The request target is longer than the limit.
    TargetTooLong,
    /// The head is larger than the limit.
    TooLarge,
    /// More fields than [`MAX_HEADERS`].
    TooManyHeaders,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    HttpVersion,
}

impl From<BadTarget> for HeadError {
    fn from(bad: BadTarget) -> HeadError {
        match bad {
            BadTarget::Form => HeadError::Malformed,
            BadTarget::Authority => HeadError::BadHost,
        }
    }
}

/// What stands before and behind the target in a request's first line, at most: the longest method
/// registered has 16 letters, and "GET " with " HTTP/1.1" has 13.
const METHOD_AND_VERSION: usize = 16;

/// Which part of a head its next byte belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// The request line.
    #[default]
    RequestLine,
    /// A field line in which all bytes so far are ASCII.
    Field,
    /// The value of a field, and it has bytes above ASCII.
    OpaqueValue,
}

/// Says where the head that starts `received` ends, or that it has not yet.
///
/// `scanned` bytes of it were looked at by earlier calls, which have left `part` (the default
/// belongs to the first call); the rest is checked here, each byte once. So the verdict is that of the
/// first byte that shows one, however the head was cut on its way.
///
/// RFC 9110 2.5: a request of a later HTTP/1 is read as the latest one we know. So a minor version
/// of 2 to 9 becomes 1 in `received`; httparse knows no others than 0 and 1.
///
/// # Errors
///
/// A byte that no head may have, or a head past its bounds: at the first byte that shows it.
pub fn find_end(
    received: &mut [u8],
    scanned: usize,
    part: &mut Part,
    limits: &ProtocolLimits,
) -> Result<Option<usize>, HeadError> {
    let line_most = limits.target_bytes + METHOD_AND_VERSION;
    let mut at = scanned;
    let mut skips = at > 0 && received[at - 1] != b'\r';
    while at < received.len() {
        if skips {
            // Up to the next bound, characters that are allowed anywhere are passed over many at a
            // time: a head of 640 bytes took 22,500 instructions one by one, and takes 3,300 so.
            let bound = if *part == Part::RequestLine { line_most } else { usize::MAX };
            let bound = bound.min(limits.head_bytes - 1).clamp(at, received.len());
            at += match part {
                Part::OpaqueValue => value_characters(&received[at..bound]),
                Part::RequestLine | Part::Field => visible_characters(&received[at..bound]),
            };
            skips = false;
        }
        let Some(&byte) = received.get(at) else { break };
        if *part == Part::RequestLine && at >= line_most && byte != b'\r' {
            return Err(HeadError::TargetTooLong);
        }
        let after_cr = at > 0 && received[at - 1] == b'\r';
        match byte {
            b'\n' if after_cr => {
                if at >= 3 && received[at - 3..at - 1] == *b"\r\n" {
                    return Ok(Some(at + 1));
                }
                skips = true;
            }
            // RFC 9112 2.2 lets a server take a bare LF as a line end, and makes a bare CR
            // invalid; two readings of one head are how requests get smuggled, so: neither.
            _ if after_cr => return Err(HeadError::Malformed),
            b' '..=b'~' if at > 0 => {}
            b'\r' if at > 0 => {
                if *part == Part::RequestLine {
                    lower_minor_version(&mut received[..at]);
                }
                *part = Part::Field;
            }
            b'\t' if at > 0 => skips = true,
            // The first byte of a method is a letter: a TLS hello, random bytes and an answer
            // meant for someone else end here.
            b'A'..=b'Z' | b'a'..=b'z' => skips = true,
            // RFC 9110 5.5: such bytes are opaque data in a value. In a request line and in a name
            // they break the grammar (RFC 9112 3, RFC 9110 5.1).
            0x80.. if is_in_value(*part, &received[..at]) => {
                *part = Part::OpaqueValue;
                skips = true;
            }
            _ => return Err(HeadError::Malformed),
        }
        at += 1;
        // No end yet, and no room for one.
        if at >= limits.head_bytes {
            return Err(HeadError::TooLarge);
        }
    }
    Ok(None)
}

/// How many of the first bytes are visible characters or spaces.
fn visible_characters(bytes: &[u8]) -> usize {
    leading(bytes, |byte| (b' '..=b'~').contains(&byte))
}

/// The same for a value that has bytes above ASCII.
fn value_characters(bytes: &[u8]) -> usize {
    leading(bytes, |byte| (byte >= b' ') & (byte != 0x7f))
}

/// How many of the first bytes are allowed.
#[inline(always)]
fn leading(bytes: &[u8], is_allowed: impl Fn(u8) -> bool) -> usize {
    // Without a way out in the middle, so that the compiler takes the eight at once.
    let all_allowed =
        |chunk: &&[u8; 8]| chunk.iter().fold(true, |all, byte| all & is_allowed(*byte));
    let (chunks, _) = bytes.as_chunks::<8>();
    let whole = 8 * chunks.iter().take_while(all_allowed).count();
    whole + bytes[whole..].iter().take_while(|byte| is_allowed(**byte)).count()
}

/// Whether what follows `so_far` belongs to the value of a field. To look for the colon only where a
/// byte above ASCII stands, and to remember it up to the line's end, costs other heads nothing.
#[cold]
fn is_in_value(part: Part, so_far: &[u8]) -> bool {
    match part {
        Part::RequestLine => false,
        Part::Field => {
            let line = so_far.rsplit(|&byte| byte == b'\n').next();
            line.is_some_and(|line| line.contains(&b':'))
        }
        Part::OpaqueValue => true,
    }
}

/// Makes the version of a request line 1.1 if it is a later 1.
fn lower_minor_version(line: &mut [u8]) {
    if let [.., b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9'] = line {
        *minor = b'1';
    }
}

/// The empty lines that a client may send before its request (RFC 9112 2.2), in bytes.
#[must_use]
pub fn leading_empty_lines(received: &[u8]) -> usize {
    received.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

/// A request whose head is complete and consistent. Borrows the bytes it came in.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// The method as sent; methods are case-sensitive (RFC 9110 9.1).
    pub method: &'b str,
    /// The server that the request is for, with its port if one is named: the authority of an
    /// absolute-form target, else the Host field. Empty if neither says anything.
    pub host: &'b [u8],
    /// Path of the target, undecoded; `*` for an OPTIONS that asks about the server.
    pub path: &'b str,
    /// What stands behind the first `?`, undecoded; empty if there is none.
    pub query: &'b str,
    /// Whether the request is HTTP/1.0.
    pub http_1_0: bool,
    /// The header fields in the order sent.
    pub headers: &'h [httparse::Header<'b>],
    /// What content follows the head. Whether there may be any is decided after its route is known.
    pub content: Content,
}

/// The content of a request, as its head frames it (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// None.
    None,
    /// So many bytes, one at least.
    Length(u64),
    /// It has a transfer coding. Where it ends is said in the content itself, which is never read here.
    Coded,
}

impl<'h, 'b> Request<'h, 'b> {
    /// Parses a complete head, as [`find_end`] delimits it.
    ///
    /// # Errors
    ///
    /// All of [`HeadError`] but [`HeadError::TooLarge`].
    pub fn parse(
        head: &'b [u8],
        slots: &'h mut HeaderSlots<'b>,
        limits: &ProtocolLimits,
    ) -> Result<Self, HeadError> {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, slots) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::Malformed),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
            // The preface of HTTP/2 ("PRI * HTTP/2.0") ends here.
            Err(httparse::Error::Version) => return Err(HeadError::HttpVersion),
            Err(_) => return Err(HeadError::Malformed),
        }
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(HeadError::Malformed);
        };
        let headers: &'h [httparse::Header<'b>] = parsed.headers;
        if target.len() > limits.target_bytes {
            return Err(HeadError::TargetTooLong);
        }
        let http_1_0 = version == 0;
        let field = single_host(headers, http_1_0)?;
        let Target { host, path, query } = Target::parse(method, target, field)?;
        let content = content(headers)?;
        Ok(Request { method, host, path, query, http_1_0, headers, content })
    }

    /// Values of all fields called `name`, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + 'a {
        field_values(self.headers, name)
    }

    /// Whether a comma-separated list field has `token`, in whatever case (RFC 9110 5.6.1).
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| {
            value
                .split(|&b| b == b',')
                .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    }

    /// Whether content follows the head.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.content != Content::None
    }

    /// Whether the client waits to be told that it may send the content. RFC 9110 10.1.1: of an HTTP/1.0
    /// client that is ignored.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        !self.http_1_0 && self.has_token("expect", "100-continue")
    }

    /// Whether the connection may serve another request (RFC 9112 9.3).
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        if self.http_1_0 {
            self.has_token("connection", "keep-alive")
        } else {
            !self.has_token("connection", "close")
        }
    }
}

fn field_values<'a, 'b>(
    headers: &'a [httparse::Header<'b>],
    name: &'a str,
) -> impl Iterator<Item = &'b [u8]> + 'a {
    headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

/// RFC 9112 3.2: a 1.1 request without Host, or any with more than one or an invalid one, is 400,
/// whatever its target says. An empty one is valid: it is sent where the target has no authority.
fn single_host<'b>(
    headers: &[httparse::Header<'b>],
    http_1_0: bool,
) -> Result<&'b [u8], HeadError> {
    let mut hosts = field_values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.is_empty() || target::is_host(host) => Ok(host),
        (None, _) if http_1_0 => Ok(b""),
        _ => Err(HeadError::BadHost),
    }
}

/// What content follows. Two lengths that differ, or a length that is no number, are refused
/// here: how far the content reaches must never be a matter of opinion (RFC 9112 6.3).
fn content(headers: &[httparse::Header<'_>]) -> Result<Content, HeadError> {
    let is_coded = field_values(headers, "transfer-encoding").next().is_some();
    let mut length = None;
    for value in field_values(headers, "content-length") {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if !digits || value.len() > 18 || length.is_some_and(|first| first != value) {
            return Err(HeadError::BadFraming);
        }
        length = Some(value);
    }
    // The length does not count beside a coding (RFC 9112 6.3, rule 3).
    if is_coded {
        return Ok(Content::Coded);
    }
    let digits = length.unwrap_or_default();
    // 18 digits at most, so that fits.
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(if number == 0 { Content::None } else { Content::Length(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        find_end(&mut bytes.to_vec(), 0, &mut Part::default(), &ProtocolLimits::FOR_TESTS)
    }

    /// The verdict where the head arrives in pieces of so many bytes.
    fn end_in_steps(
        head: &[u8],
        step: usize,
        limits: &ProtocolLimits,
    ) -> Result<Option<usize>, HeadError> {
        let (mut received, mut part) = (Vec::new(), Part::default());
        for piece in head.chunks(step) {
            let scanned = received.len();
            received.extend_from_slice(piece);
            let verdict = find_end(&mut received, scanned, &mut part, limits);
            if verdict != Ok(None) {
                return verdict;
            }
        }
        Ok(None)
    }

    fn parsed<T>(head: &str, look: impl FnOnce(&Request<'_, '_>) -> T) -> Result<T, HeadError> {
        let mut slots = header_slots();
        Request::parse(head.as_bytes(), &mut slots, &ProtocolLimits::FOR_TESTS).map(|r| look(&r))
    }

    #[test]
    fn the_end_is_found_wherever_the_head_is_cut() {
        let head = b"GET /ws/chat/ HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..head.len() {
            let (mut received, mut part) = (head.to_vec(), Part::default());
            let limits = ProtocolLimits::FOR_TESTS;
            assert_eq!(find_end(&mut received[..cut], 0, &mut part, &limits), Ok(None), "{cut}");
            let whole = find_end(&mut received, cut, &mut part, &limits);
            assert_eq!(whole, Ok(Some(head.len())), "resumed at {cut}");
        }
    }

    #[test]
    fn a_byte_that_no_head_has_is_refused_at_once() {
        for bytes in [
            &b"\x16\x03\x01\x02"[..], // a TLS hello
            b"GET / HTTP/1.1\n",      // bare LF, RFC 9112 2.2
            b"GET /\rX",              // bare CR
            b"GET /\0",
            b"GET /\x7f",
            b"GET /caf\xe9",
            b"GET / HTTP/1.1\r\nna\xef",
            b"GET / HTTP/1.1\r\nA: \xff\r\n\xff",
            b"GET / HTTP/1.1\r\nA: b\r\n \xff",
            b"GET / HTTP/1.1\r\nA: \xff\x7f",
            b"GET / HTTP/1.1\r\nA: \xff\x1f",
            b"GET / HTTP/1.1\r\nA: \xff\n",
            b" GET",
            b"\r\nGET",
        ] {
            let refused = Err(HeadError::Malformed);
            assert_eq!(end(bytes), refused, "{bytes:?}");
            // The byte before shows nothing yet.
            assert_eq!(end(&bytes[..bytes.len() - 1]).is_err(), bytes[0] < b'A', "{bytes:?}");
            for step in 1..bytes.len() {
                assert_eq!(
                    end_in_steps(bytes, step, &ProtocolLimits::FOR_TESTS),
                    refused,
                    "{bytes:?}"
                );
            }
        }
    }

    #[test]
    fn values_may_have_any_byte_above_ascii() {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ".to_vec();
        head.extend(0x80..=0xff);
        head.extend_from_slice("; sid=7\r\nX: \u{fc}ber\r\nLast: y\r\n\r\n".as_bytes());
        for step in 1..=head.len() {
            let end = end_in_steps(&head, step, &ProtocolLimits::FOR_TESTS);
            assert_eq!(end, Ok(Some(head.len())), "{step}");
        }
        let mut slots = header_slots();
        let request = Request::parse(&head, &mut slots, &ProtocolLimits::FOR_TESTS).unwrap();
        let cookie = request.values("cookie").next().unwrap();
        assert!(cookie.iter().copied().take(128).eq(0x80..=0xff) && cookie.ends_with(b"; sid=7"));
        assert_eq!(request.values("x").next(), Some("\u{fc}ber".as_bytes()));
        assert_eq!(request.values("last").next(), Some(&b"y"[..]));
    }

    #[test]
    fn bounds_are_told_apart() {
        let limits = ProtocolLimits::FOR_TESTS;
        let long_target = format!("GET /{}", "a".repeat(limits.target_bytes + 20));
        assert_eq!(end(long_target.as_bytes()), Err(HeadError::TargetTooLong));
        let long_head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(limits.head_bytes));
        assert_eq!(end(long_head.as_bytes()), Err(HeadError::TooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(parsed(&many, |_| ()), Err(HeadError::TooManyHeaders));
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_head_was_cut() {
        let limits =
            ProtocolLimits { head_bytes: 200, target_bytes: 50, ..ProtocolLimits::FOR_TESTS };
        let line = "GET / HTTP/1.1\r\n";
        for (head, expected) in [
            (format!("GET /{}", "a".repeat(300)), Err(HeadError::TargetTooLong)),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(300)), Err(HeadError::TargetTooLong)),
            (format!("{line}X: {}\r\n\r\n", "a".repeat(300)), Err(HeadError::TooLarge)),
            (format!("{line}X: {}\n", "a".repeat(300)), Err(HeadError::TooLarge)),
            (format!("{line}X: \n{}", "a".repeat(300)), Err(HeadError::Malformed)),
            (format!("{line}X: {}\r\n\r\n", "a".repeat(200 - 16 - 7)), Ok(Some(200))),
            (format!("{line}X: {}\r\n\r\n", "a".repeat(201 - 16 - 7)), Err(HeadError::TooLarge)),
        ] {
            for step in [1, 2, 3, 50, 70, 199, head.len()] {
                let verdict = end_in_steps(head.as_bytes(), step, &limits);
                assert_eq!(verdict, expected, "{head:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_counted() {
        assert_eq!(leading_empty_lines(b"\r\n\r\nGET"), 4);
        assert_eq!(leading_empty_lines(b"\rGET"), 0);
        assert_eq!(leading_empty_lines(b""), 0);
    }

    #[test]
    fn there_is_one_host_field_and_it_names_a_host() {
        for (host, ok) in [
            ("Host: a\r\n", true),
            ("Host: [::1]:8000\r\n", true),
            ("Host: \r\n", true),
            ("", false),
            ("Host: a\r\nHost: a\r\n", false),
            ("Host: a\r\nHost: \r\n", false),
            ("Host: u@a\r\n", false),
            ("Host: a, b\r\n", false),
        ] {
            for target in ["/", "http://a/", "*"] {
                let head = format!("OPTIONS {target} HTTP/1.1\r\n{host}\r\n");
                let expected = if ok { Ok(()) } else { Err(HeadError::BadHost) };
                assert_eq!(parsed(&head, |_| ()), expected, "{target} {host:?}");
            }
        }
    }

    #[test]
    fn an_absolute_target_says_whose_request_it_is() {
        let head = "GET WSS://Chat.example:443?session_id=a HTTP/1.1\r\nHost: elsewhere\r\n\r\n";
        let found = parsed(head, |r| (r.host.to_vec(), r.path.to_owned(), r.query.to_owned()));
        let host = b"Chat.example:443".to_vec();
        assert_eq!(found, Ok((host, "/".to_owned(), "session_id=a".to_owned())));
        let probe = "GET http://a/healthz HTTP/1.0\r\n\r\n";
        assert_eq!(parsed(probe, |r| r.path.to_owned()), Ok("/healthz".to_owned()));
    }

    #[test]
    fn bodies_are_recognised_and_ambiguous_ones_refused() {
        for (fields, expected) in [
            ("", Ok(Content::None)),
            ("Content-Length: 0\r\n", Ok(Content::None)),
            ("Content-Length: 000\r\n", Ok(Content::None)),
            ("Content-Length: 5\r\n", Ok(Content::Length(5))),
            ("Content-Length: 0032\r\nContent-Length: 0032\r\n", Ok(Content::Length(32))),
            ("Content-Length: 999999999999999999\r\n", Ok(Content::Length(10_u64.pow(18) - 1))),
            ("Content-Length: 1000000000000000000\r\n", Err(HeadError::BadFraming)),
            ("Transfer-Encoding: chunked\r\n", Ok(Content::Coded)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Ok(Content::Coded)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(HeadError::BadFraming)),
            ("Content-Length: -1\r\n", Err(HeadError::BadFraming)),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(parsed(&head, |r| r.content), expected, "{fields:?}");
        }
    }

    #[test]
    fn folded_and_spaced_fields_are_refused() {
        for fields in ["A: b\r\n c\r\n", "A : b\r\n", ": b\r\n"] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(parsed(&head, |_| ()), Err(HeadError::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn versions() {
        let preface = "PRI * HTTP/2.0\r\n\r\n";
        assert_eq!(parsed(preface, |_| ()), Err(HeadError::HttpVersion));
        let old = "GET / HTTP/1.0\r\n\r\n";
        assert_eq!(parsed(old, |r| (r.http_1_0, r.keeps_alive())), Ok((true, false)));
        let new = "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n";
        assert_eq!(parsed(new, |r| r.keeps_alive()), Ok(false));
    }

    #[test]
    fn a_later_minor_version_is_read_as_the_latest_known() {
        for (version, expected) in [
            ("HTTP/1.0", Ok((true, false))),
            ("HTTP/1.1", Ok((false, true))),
            ("HTTP/1.2", Ok((false, true))),
            ("HTTP/1.9", Ok((false, true))),
            ("HTTP/1.10", Err(HeadError::Malformed)),
            ("HTTP/1.", Err(HeadError::HttpVersion)),
            ("HTTP/1", Err(HeadError::HttpVersion)),
            ("HTTP/0.9", Err(HeadError::HttpVersion)),
            ("HTTP/2.0", Err(HeadError::HttpVersion)),
            ("HTTP/2.2", Err(HeadError::HttpVersion)),
            ("http/1.2", Err(HeadError::HttpVersion)),
        ] {
            let head = format!("GET / {version}\r\nHost: a\r\nX: HTTP/1.2\r\n\r\n");
            for step in [1, 5, head.len()] {
                let mut received = head.clone().into_bytes();
                let mut part = Part::default();
                for upto in (1..=head.len()).filter(|n| n % step == 0 || *n == head.len()) {
                    let scanned = (upto - 1) / step * step;
                    let _ = find_end(
                        &mut received[..upto],
                        scanned,
                        &mut part,
                        &ProtocolLimits::FOR_TESTS,
                    );
                }
                let head = String::from_utf8(received).unwrap();
                assert!(head.ends_with("X: HTTP/1.2\r\n\r\n"), "{head}");
                let found = parsed(&head, |r| (r.http_1_0, r.keeps_alive()));
                assert_eq!(found, expected, "{version}");
            }
        }
    }
}

//! The HTTP request head: where it ends, what it says, and why it is refused.
//!
//! Finding the end is ours, because it decides how long a hostile peer may keep us guessing; the
//! grammar is httparse's, but for target and host, which are [`super::target`]'s. Nothing here
//! routes, answers or reads a socket: [`super::handshake`] judges an upgrade, `http.rs` and the shard
//! answer. Called by the endpoint with whatever has arrived.
//!
//! Invariant: a head is parsed once, when it is complete, and every byte of it was checked once
//! (CVE-2023-43669 was a head parsed anew for each packet).
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

/// Why a request is answered with an error, each reason with one status. The connection closes
/// after every one of them; the reason is a metric label, so the set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The head is not HTTP: grammar, a bare LF, a control byte, a byte above ASCII outside of a
    /// field value (RFC 9112 2.2, 3, 5).
    MalformedHead,
    /// No Host, more than one, or one that is no host (RFC 9112 3.2).
    BadHost,
    /// Content on a request that has none, or framing that does not parse (RFC 9112 6.3).
    UnexpectedBody,
    /// An upgrade to a WebSocket whose `Connection` field does not say so (RFC 6455 4.2.1).
    BadUpgrade,
    /// `Sec-WebSocket-Key` missing, repeated, or not 16 bytes of base64 (RFC 6455 4.2.1).
    BadKey,
    /// `Sec-WebSocket-Extensions` breaks the grammar (RFC 6455 9.1).
    BadExtensions,
    /// `session_id` has other characters than `A–Z a–z 0–9 - . _ ~`, or more than 128.
    BadSessionId,
    /// No such path.
    NotFound,
    /// The path exists, but not for this method; the text is the `Allow` field.
    MethodNotAllowed(&'static str),
    /// The head did not arrive in time.
    HeadTimeout,
    /// The request target is longer than the limit.
    TargetTooLong,
    /// A request for the WebSocket path that asks for no WebSocket.
    UpgradeRequired,
    /// A WebSocket version other than 13 (RFC 6455 4.4).
    VersionNotOffered,
    /// The head is larger than the limit.
    HeadTooLarge,
    /// More fields than [`MAX_HEADERS`].
    TooManyHeaders,
    /// Not HTTP/1.1 (nor, for plain requests, HTTP/1.0).
    HttpVersion,
    /// `--limit-concurrency` is reached.
    LimitConcurrency,
    /// No fresh session id can be made: the system has no randomness.
    NoSessionId,
    /// The server is going away.
    Draining,
    /// The client had ended its stream before it got to a session that is there already: a newer
    /// connection may have it, or may have been told how far it had counted.
    Superseded,
    /// A browser's page from elsewhere than `--allowed-origins` (RFC 6455 10.2).
    OriginNotAllowed,
    /// `--limit-per-ip` is reached by the client's address.
    LimitPerIp,
    /// `--limit-sessions-per-ip` is reached by the client's address.
    LimitSessionsPerIp {
        /// Seconds until it may make the next one.
        retry_after: u64,
    },
    /// The page and its figures are for this machine alone, and the peer is not on it.
    NotForPeer,
    /// They were asked for by a page of another origin, or under another machine's name.
    ForeignOrigin,
    /// As many watch this reactor as may.
    TooManyWatchers,
    /// The reactor that owns the session did not take the connection in time: its mailbox was full.
    OwnerBusy,
}

impl Rejection {
    /// One of each, for the metrics page.
    pub const ALL: [Rejection; 27] = [
        Rejection::MalformedHead,
        Rejection::BadHost,
        Rejection::UnexpectedBody,
        Rejection::BadUpgrade,
        Rejection::BadKey,
        Rejection::BadSessionId,
        Rejection::NotFound,
        Rejection::MethodNotAllowed("GET"),
        Rejection::HeadTimeout,
        Rejection::TargetTooLong,
        Rejection::UpgradeRequired,
        Rejection::VersionNotOffered,
        Rejection::HeadTooLarge,
        Rejection::TooManyHeaders,
        Rejection::HttpVersion,
        Rejection::LimitConcurrency,
        Rejection::NoSessionId,
        Rejection::Draining,
        Rejection::Superseded,
        Rejection::OriginNotAllowed,
        Rejection::LimitPerIp,
        Rejection::NotForPeer,
        Rejection::ForeignOrigin,
        Rejection::TooManyWatchers,
        Rejection::BadExtensions,
        Rejection::OwnerBusy,
        Rejection::LimitSessionsPerIp { retry_after: 1 },
    ];

    /// Place in [`Self::ALL`], so in a table of counters.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Rejection::MalformedHead => 0,
            Rejection::BadHost => 1,
            Rejection::UnexpectedBody => 2,
            Rejection::BadUpgrade => 3,
            Rejection::BadKey => 4,
            Rejection::BadSessionId => 5,
            Rejection::NotFound => 6,
            Rejection::MethodNotAllowed(_) => 7,
            Rejection::HeadTimeout => 8,
            Rejection::TargetTooLong => 9,
            Rejection::UpgradeRequired => 10,
            Rejection::VersionNotOffered => 11,
            Rejection::HeadTooLarge => 12,
            Rejection::TooManyHeaders => 13,
            Rejection::HttpVersion => 14,
            Rejection::LimitConcurrency => 15,
            Rejection::NoSessionId => 16,
            Rejection::Draining => 17,
            Rejection::Superseded => 18,
            Rejection::OriginNotAllowed => 19,
            Rejection::LimitPerIp => 20,
            Rejection::NotForPeer => 21,
            Rejection::ForeignOrigin => 22,
            Rejection::TooManyWatchers => 23,
            Rejection::BadExtensions => 24,
            Rejection::OwnerBusy => 25,
            Rejection::LimitSessionsPerIp { .. } => 26,
        }
    }

    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Rejection::MalformedHead => "malformed_head",
            Rejection::BadHost => "bad_host",
            Rejection::UnexpectedBody => "unexpected_body",
            Rejection::BadUpgrade => "bad_upgrade",
            Rejection::BadKey => "bad_key",
            Rejection::BadSessionId => "bad_session_id",
            Rejection::NotFound => "not_found",
            Rejection::MethodNotAllowed(_) => "method_not_allowed",
            Rejection::HeadTimeout => "head_timeout",
            Rejection::TargetTooLong => "target_too_long",
            Rejection::UpgradeRequired => "upgrade_required",
            Rejection::VersionNotOffered => "version_not_offered",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::TooManyHeaders => "too_many_headers",
            Rejection::HttpVersion => "http_version",
            Rejection::LimitConcurrency => "limit_concurrency",
            Rejection::NoSessionId => "no_session_id",
            Rejection::Draining => "draining",
            Rejection::Superseded => "superseded",
            Rejection::OriginNotAllowed => "origin_not_allowed",
            Rejection::LimitPerIp => "limit_per_ip",
            Rejection::NotForPeer => "not_for_peer",
            Rejection::ForeignOrigin => "foreign_origin",
            Rejection::TooManyWatchers => "too_many_watchers",
            Rejection::BadExtensions => "bad_extensions",
            Rejection::OwnerBusy => "owner_busy",
            Rejection::LimitSessionsPerIp { .. } => "limit_sessions_per_ip",
        }
    }

    /// Status code and reason phrase, as they stand in the status line.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Rejection::MalformedHead
            | Rejection::BadHost
            | Rejection::UnexpectedBody
            | Rejection::BadUpgrade
            | Rejection::BadKey
            | Rejection::BadExtensions
            | Rejection::BadSessionId => "400 Bad Request",
            Rejection::OriginNotAllowed | Rejection::NotForPeer | Rejection::ForeignOrigin => {
                "403 Forbidden"
            }
            Rejection::NotFound => "404 Not Found",
            Rejection::MethodNotAllowed(_) => "405 Method Not Allowed",
            Rejection::HeadTimeout => "408 Request Timeout",
            Rejection::Superseded => "409 Conflict",
            Rejection::TargetTooLong => "414 URI Too Long",
            Rejection::UpgradeRequired | Rejection::VersionNotOffered => "426 Upgrade Required",
            Rejection::LimitPerIp | Rejection::LimitSessionsPerIp { .. } => "429 Too Many Requests",
            Rejection::HeadTooLarge | Rejection::TooManyHeaders => {
                "431 Request Header Fields Too Large"
            }
            Rejection::LimitConcurrency
            | Rejection::NoSessionId
            | Rejection::Draining
            | Rejection::TooManyWatchers
            | Rejection::OwnerBusy => "503 Service Unavailable",
            Rejection::HttpVersion => "505 HTTP Version Not Supported",
        }
    }

    /// One line for the person at the other end: what to change.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Rejection::MalformedHead => "the request head is not valid HTTP/1.1",
            Rejection::BadHost => "exactly one valid Host field is needed",
            Rejection::UnexpectedBody => "a request to this server has no content",
            Rejection::BadUpgrade => "needed: Upgrade: websocket and Connection: Upgrade",
            Rejection::BadKey => "needed: one Sec-WebSocket-Key of 16 bytes in base64",
            Rejection::BadExtensions => {
                "Sec-WebSocket-Extensions does not follow RFC 6455, section 9.1"
            }
            Rejection::BadSessionId => {
                "session_id takes 1 to 128 characters of A-Z a-z 0-9 - . _ ~"
            }
            Rejection::NotFound => "no such path",
            Rejection::MethodNotAllowed(_) => "this path does not answer that method",
            Rejection::HeadTimeout => "the request head took too long",
            Rejection::TargetTooLong => "the request target is too long",
            Rejection::UpgradeRequired => "this path speaks WebSocket: connect with ws://",
            Rejection::VersionNotOffered => "WebSocket version 13 is spoken here",
            Rejection::HeadTooLarge => "the request head is too large",
            Rejection::TooManyHeaders => "the request has too many header fields",
            Rejection::HttpVersion => "HTTP/1.1 is spoken here",
            Rejection::LimitConcurrency => "too many connections: try again later",
            Rejection::NoSessionId => "no session can be made now: try again later",
            Rejection::Draining => "the server is going away: connect anew",
            Rejection::Superseded => "this connection had ended before it got to its session",
            Rejection::OriginNotAllowed => "pages of this origin may not connect",
            Rejection::LimitPerIp => "too many connections from this address: close some",
            Rejection::LimitSessionsPerIp { .. } => {
                "too many new sessions from this address: resume one, or try again later"
            }
            Rejection::NotForPeer => {
                "only for this machine: revolve --page-for any opens it to all"
            }
            Rejection::ForeignOrigin => {
                "not for other sites, nor under a name other than localhost or an IP address"
            }
            Rejection::TooManyWatchers => "too many watch already: try again later",
            Rejection::OwnerBusy => "the event loop that has this session is busy: try again later",
        }
    }
}

impl From<BadTarget> for Rejection {
    fn from(bad: BadTarget) -> Rejection {
        match bad {
            BadTarget::Form => Rejection::MalformedHead,
            BadTarget::Authority => Rejection::BadHost,
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
) -> Result<Option<usize>, Rejection> {
    let line_most = limits.target_bytes + METHOD_AND_VERSION;
    let mut at = scanned;
    let mut skips = at > 0 && received[at - 1] != b'\r';
    while at < received.len() {
        if skips {
            // Up to the next bound, characters that are allowed anywhere are passed over many at a
            // time: a head of 640 bytes took 22,500 instructions one by one, and takes 4,500 so. The
            // last bytes before the one that ends such a run, up to 7, are looked at one by one.
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
            return Err(Rejection::TargetTooLong);
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
            _ if after_cr => return Err(Rejection::MalformedHead),
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
            _ => return Err(Rejection::MalformedHead),
        }
        at += 1;
        // No end yet, and no room for one.
        if at >= limits.head_bytes {
            return Err(Rejection::HeadTooLarge);
        }
    }
    Ok(None)
}

/// How many of the first bytes are visible characters or spaces, a few at the end aside.
fn visible_characters(bytes: &[u8]) -> usize {
    // Without a way out in the middle, so that the compiler takes the eight at once.
    let all_visible =
        |chunk: &&[u8; 8]| chunk.iter().fold(true, |all, byte| all & (b' '..=b'~').contains(byte));
    let (chunks, _) = bytes.as_chunks::<8>();
    8 * chunks.iter().take_while(all_visible).count()
}

/// The same for a value that has bytes above ASCII.
fn value_characters(bytes: &[u8]) -> usize {
    let all_allowed = |chunk: &&[u8; 8]| {
        chunk.iter().fold(true, |all, byte| all & (*byte >= b' ') & (*byte != 0x7f))
    };
    let (chunks, _) = bytes.as_chunks::<8>();
    8 * chunks.iter().take_while(all_allowed).count()
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
    /// Whether content follows the head: such a request is refused, after its route is known.
    pub has_body: bool,
}

impl<'h, 'b> Request<'h, 'b> {
    /// Parses a complete head, as [`find_end`] delimits it.
    ///
    /// # Errors
    ///
    /// [`Rejection::MalformedHead`], [`Rejection::TooManyHeaders`], [`Rejection::HttpVersion`],
    /// [`Rejection::TargetTooLong`], [`Rejection::BadHost`], [`Rejection::UnexpectedBody`] (for
    /// ambiguous framing only).
    pub fn parse(
        head: &'b [u8],
        slots: &'h mut HeaderSlots<'b>,
        limits: &ProtocolLimits,
    ) -> Result<Self, Rejection> {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, slots) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Rejection::MalformedHead),
            Err(httparse::Error::TooManyHeaders) => return Err(Rejection::TooManyHeaders),
            // The preface of HTTP/2 ("PRI * HTTP/2.0") ends here.
            Err(httparse::Error::Version) => return Err(Rejection::HttpVersion),
            Err(_) => return Err(Rejection::MalformedHead),
        }
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(Rejection::MalformedHead);
        };
        let headers: &'h [httparse::Header<'b>] = parsed.headers;
        if target.len() > limits.target_bytes {
            return Err(Rejection::TargetTooLong);
        }
        let http_1_0 = version == 0;
        let field = single_host(headers, http_1_0)?;
        let Target { host, path, query } = Target::parse(method, target, field)?;
        let has_body = has_body(headers)?;
        Ok(Request { method, host, path, query, http_1_0, headers, has_body })
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
    optional: bool,
) -> Result<&'b [u8], Rejection> {
    let mut hosts = field_values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.is_empty() || target::is_host(host) => Ok(host),
        (None, _) if optional => Ok(b""),
        _ => Err(Rejection::BadHost),
    }
}

/// Whether content follows. Two lengths that differ, or a length that is no number, are refused
/// here: how far the content reaches must never be a matter of opinion (RFC 9112 6.3).
fn has_body(headers: &[httparse::Header<'_>]) -> Result<bool, Rejection> {
    let chunked = field_values(headers, "transfer-encoding").next().is_some();
    let mut length = None;
    for value in field_values(headers, "content-length") {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if !digits || value.len() > 18 || length.is_some_and(|first| first != value) {
            return Err(Rejection::UnexpectedBody);
        }
        length = Some(value);
    }
    Ok(chunked || length.is_some_and(|digits| digits.iter().any(|&b| b != b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        find_end(&mut bytes.to_vec(), 0, &mut Part::default(), &ProtocolLimits::FOR_TESTS)
    }

    /// The verdict where the head arrives in pieces of so many bytes.
    fn end_in_steps(
        head: &[u8],
        step: usize,
        limits: &ProtocolLimits,
    ) -> Result<Option<usize>, Rejection> {
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

    fn parsed<T>(head: &str, look: impl FnOnce(&Request<'_, '_>) -> T) -> Result<T, Rejection> {
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
            let refused = Err(Rejection::MalformedHead);
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
        assert_eq!(end(long_target.as_bytes()), Err(Rejection::TargetTooLong));
        let long_head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(limits.head_bytes));
        assert_eq!(end(long_head.as_bytes()), Err(Rejection::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(parsed(&many, |_| ()), Err(Rejection::TooManyHeaders));
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_head_was_cut() {
        let limits =
            ProtocolLimits { head_bytes: 200, target_bytes: 50, ..ProtocolLimits::FOR_TESTS };
        let line = "GET / HTTP/1.1\r\n";
        for (head, expected) in [
            (format!("GET /{}", "a".repeat(300)), Err(Rejection::TargetTooLong)),
            (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(300)), Err(Rejection::TargetTooLong)),
            (format!("{line}X: {}\r\n\r\n", "a".repeat(300)), Err(Rejection::HeadTooLarge)),
            (format!("{line}X: {}\n", "a".repeat(300)), Err(Rejection::HeadTooLarge)),
            (format!("{line}X: \n{}", "a".repeat(300)), Err(Rejection::MalformedHead)),
            (format!("{line}X: {}\r\n\r\n", "a".repeat(200 - 16 - 7)), Ok(Some(200))),
            (
                format!("{line}X: {}\r\n\r\n", "a".repeat(201 - 16 - 7)),
                Err(Rejection::HeadTooLarge),
            ),
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
                let expected = if ok { Ok(()) } else { Err(Rejection::BadHost) };
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
            ("", Ok(false)),
            ("Content-Length: 0\r\n", Ok(false)),
            ("Content-Length: 5\r\n", Ok(true)),
            ("Transfer-Encoding: chunked\r\n", Ok(true)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(Rejection::UnexpectedBody)),
            ("Content-Length: -1\r\n", Err(Rejection::UnexpectedBody)),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(parsed(&head, |r| r.has_body), expected, "{fields:?}");
        }
    }

    #[test]
    fn folded_and_spaced_fields_are_refused() {
        for fields in ["A: b\r\n c\r\n", "A : b\r\n", ": b\r\n"] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(parsed(&head, |_| ()), Err(Rejection::MalformedHead), "{fields:?}");
        }
    }

    #[test]
    fn versions() {
        let preface = "PRI * HTTP/2.0\r\n\r\n";
        assert_eq!(parsed(preface, |_| ()), Err(Rejection::HttpVersion));
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
            ("HTTP/1.10", Err(Rejection::MalformedHead)),
            ("HTTP/1.", Err(Rejection::HttpVersion)),
            ("HTTP/1", Err(Rejection::HttpVersion)),
            ("HTTP/0.9", Err(Rejection::HttpVersion)),
            ("HTTP/2.0", Err(Rejection::HttpVersion)),
            ("HTTP/2.2", Err(Rejection::HttpVersion)),
            ("http/1.2", Err(Rejection::HttpVersion)),
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

    #[test]
    fn every_rejection_knows_its_place() {
        for (at, rejection) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(rejection.index(), at);
        }
    }
}

//! The HTTP request head: where it ends, what it says, and why it is refused.
//!
//! Finding the end is ours, because it decides how long a hostile peer may keep us guessing; the
//! grammar is httparse's. Nothing here routes, answers or reads a socket: [`super::handshake`]
//! judges an upgrade, `http.rs` and the shard answer. Called by the endpoint with whatever has
//! arrived.
//!
//! Invariant: a head is parsed once, when it is complete, and every byte of it was checked once
//! (CVE-2023-43669 was a head parsed anew for each packet).
//!
//! Next: [`crate::protocol::handshake`], which judges what was parsed here.

use std::mem::MaybeUninit;

use crate::config::Limits;

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
    /// The head is not HTTP: grammar, a bare LF, a control or non-ASCII byte (RFC 9112 2.2, 5).
    MalformedHead,
    /// No Host, more than one, or one that is no host (RFC 9112 3.2).
    BadHost,
    /// Content on a request that has none, or framing that does not parse (RFC 9112 6.3).
    UnexpectedBody,
    /// An upgrade whose `Upgrade` or `Connection` field does not ask for a WebSocket
    /// (RFC 6455 4.2.1).
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
    /// A plain request for the WebSocket path.
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

/// What stands before and behind the target in a request's first line, at most: the longest method
/// registered has 16 letters, and "GET " with " HTTP/1.1" has 13.
const METHOD_AND_VERSION: usize = 16;

/// Says where the head that starts `received` ends, or that it has not yet.
///
/// `scanned` bytes of it were looked at by earlier calls; the rest is checked here, each byte once.
/// So the verdict is that of the first byte that shows one, however the head was cut on its way.
///
/// # Errors
///
/// A byte that no head may have, or a head past its bounds: at the first byte that shows it.
pub fn find_end(
    received: &[u8],
    scanned: usize,
    limits: &Limits,
) -> Result<Option<usize>, Rejection> {
    let line_most = limits.target_bytes + METHOD_AND_VERSION;
    // A first line that had not ended by then would have been refused by then.
    let mut in_first_line = scanned <= line_most && !received[..scanned].contains(&b'\r');
    let mut at = scanned;
    while at < received.len() {
        let after_cr = at > 0 && received[at - 1] == b'\r';
        if at > 0 && !after_cr {
            // Up to the next bound, characters that are allowed anywhere are passed over many at a
            // time: a head of 640 bytes took 22,500 instructions one by one, and takes 6,100 so.
            let bound = if in_first_line { line_most } else { usize::MAX };
            let bound = bound.min(limits.head_bytes - 1).clamp(at, received.len());
            at += visible_characters(&received[at..bound]);
        }
        let Some(&byte) = received.get(at) else { break };
        if in_first_line && at >= line_most && byte != b'\r' {
            return Err(Rejection::TargetTooLong);
        }
        match byte {
            b'\n' if after_cr => {
                if at >= 3 && received[at - 3..at - 1] == *b"\r\n" {
                    return Ok(Some(at + 1));
                }
            }
            // RFC 9112 2.2 lets a server take a bare LF as a line end, and makes a bare CR
            // invalid; two readings of one head are how requests get smuggled, so: neither.
            _ if after_cr => return Err(Rejection::MalformedHead),
            b'\r' if at > 0 => in_first_line = false,
            b' '..=b'~' | b'\t' if at > 0 => {}
            // The first byte of a method is a letter: a TLS hello, random bytes and an answer
            // meant for someone else end here.
            b'A'..=b'Z' | b'a'..=b'z' => {}
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
    /// Path of the target, undecoded.
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
        limits: &Limits,
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
        let host = single_host(headers, http_1_0)?;
        let origin_form = origin_form(target, host)?;
        let (path, query) = origin_form.split_once('?').unwrap_or((origin_form, ""));
        let has_body = has_body(headers)?;
        Ok(Request { method, path, query, http_1_0, headers, has_body })
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

/// RFC 9112 3.2: a 1.1 request without Host, or any with more than one or an invalid one, is 400.
fn single_host<'b>(
    headers: &[httparse::Header<'b>],
    optional: bool,
) -> Result<&'b [u8], Rejection> {
    let mut hosts = field_values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(host),
        (None, _) if optional => Ok(b""),
        _ => Err(Rejection::BadHost),
    }
}

/// `uri-host [ ":" port ]` of RFC 3986 3.2.2, without user information.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|&b| b == b':') {
        // The last colon of a bare IPv6 literal lies inside its brackets.
        Some(colon) if host.last() != Some(&b']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, &b""[..]),
    };
    let bracketed = name.len() > 2 && name.first() == Some(&b'[') && name.last() == Some(&b']');
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b);
    let name_ok = if bracketed {
        name[1..name.len() - 1].iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b))
    } else {
        !name.is_empty() && name.iter().all(plain)
    };
    name_ok && port.iter().all(u8::is_ascii_digit)
}

/// Strips the authority of an absolute-form target, which a server must accept (RFC 9112 3.2.2),
/// but only where it is the very host that the Host field names: we are nobody's proxy.
fn origin_form<'b>(target: &'b str, host: &[u8]) -> Result<&'b str, Rejection> {
    if target.starts_with('/') {
        return Ok(target);
    }
    let rest = target.strip_prefix("http://").ok_or(Rejection::MalformedHead)?;
    let slash = rest.find('/').ok_or(Rejection::MalformedHead)?;
    let (authority, path) = rest.split_at(slash);
    if authority.as_bytes().eq_ignore_ascii_case(host) { Ok(path) } else { Err(Rejection::BadHost) }
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
        find_end(bytes, 0, &Limits::default())
    }

    fn parsed<T>(head: &str, look: impl FnOnce(&Request<'_, '_>) -> T) -> Result<T, Rejection> {
        let mut slots = header_slots();
        Request::parse(head.as_bytes(), &mut slots, &Limits::default()).map(|r| look(&r))
    }

    #[test]
    fn the_end_is_found_wherever_the_head_is_cut() {
        let head = b"GET /ws/chat/ HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(end(&head[..cut]), Ok(None), "cut at {cut}");
            let whole = find_end(head, cut, &Limits::default());
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
            b"GET /caf\xc3\xa9",
            b" GET",
            b"\r\nGET",
        ] {
            assert_eq!(end(bytes), Err(Rejection::MalformedHead), "{bytes:?}");
        }
    }

    #[test]
    fn bounds_are_told_apart() {
        let limits = Limits::default();
        let long_target = format!("GET /{}", "a".repeat(limits.target_bytes + 20));
        assert_eq!(end(long_target.as_bytes()), Err(Rejection::TargetTooLong));
        let long_head = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(limits.head_bytes));
        assert_eq!(end(long_head.as_bytes()), Err(Rejection::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(parsed(&many, |_| ()), Err(Rejection::TooManyHeaders));
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_head_was_cut() {
        let limits = Limits { head_bytes: 200, target_bytes: 50, ..Limits::default() };
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
            assert_eq!(find_end(head.as_bytes(), 0, &limits), expected, "{head:?}");
            for step in [1, 2, 3, 50, 70, 199] {
                let mut scanned = 0;
                let mut ends = (1..=head.len()).filter(|n| n % step == 0 || *n == head.len());
                let verdict = ends.find_map(|upto| {
                    let verdict = find_end(&head.as_bytes()[..upto], scanned, &limits);
                    scanned = upto;
                    (verdict != Ok(None)).then_some(verdict)
                });
                assert_eq!(verdict, Some(expected), "{head:?} in steps of {step}");
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
    fn path_and_query_are_split_once() {
        let line = "GET /ws/chat/?session_id=a?b HTTP/1.1\r\nHost: a:80\r\n\r\n";
        let found = parsed(line, |r| (r.path.to_owned(), r.query.to_owned()));
        assert_eq!(found, Ok(("/ws/chat/".to_owned(), "session_id=a?b".to_owned())));
        let absolute = "GET http://A:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n";
        assert_eq!(parsed(absolute, |r| r.path.to_owned()), Ok("/x".to_owned()));
    }

    #[test]
    fn hosts_are_judged() {
        for (host, ok) in [
            ("Host: a\r\n", true),
            ("Host: [::1]:8000\r\n", true),
            ("Host: [::1]\r\n", true),
            ("Host: 127.0.0.1:8000\r\n", true),
            ("", false),
            ("Host: \r\n", false),
            ("Host: a\r\nHost: a\r\n", false),
            ("Host: u@a\r\n", false),
            ("Host: a b\r\n", false),
            ("Host: a:x\r\n", false),
            ("Host: a/b\r\n", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\n{host}\r\n");
            assert_eq!(parsed(&head, |_| ()).is_ok(), ok, "{host:?}");
        }
        let other = "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(parsed(other, |_| ()), Err(Rejection::BadHost));
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
    fn every_rejection_knows_its_place() {
        for (at, rejection) in Rejection::ALL.into_iter().enumerate() {
            assert_eq!(rejection.index(), at);
        }
    }
}

//! What a request is for: the host, the path and the query that its target and its Host field name.
//!
//! A target has one of four forms (RFC 9112 3.2): `/path?query`; an absolute URI, which every server
//! has to accept; `*`, for OPTIONS alone; and the authority of a CONNECT, which we do not serve.
//! Called by `head` with fields that are known to be single; [`parameter`] and [`percent_decoded`] by
//! modules that read a query. Decides on no route.
//!
//! Next: [`crate::protocol::head`], the lines around it.

/// The schemes of absolute targets that mean us: those of HTTP, and of WebSockets, which some clients
/// copy from their URI.
const SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// Why a target cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadTarget {
    /// It has none of the forms that we serve.
    Form,
    /// Its authority is no host.
    Authority,
}

/// What a request is for. Borrows the bytes that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'b> {
    /// Host and port, as far as anything names them.
    pub host: &'b [u8],
    /// The path, undecoded; `*` for a question about the whole server.
    pub path: &'b str,
    /// What stands behind the first `?`, undecoded; empty if there is none.
    pub query: &'b str,
}

impl<'b> Target<'b> {
    /// Reads the target of a request line, of a request with this Host field.
    ///
    /// The authority of an absolute URI need not be the Host field's: "the origin server MUST ignore
    /// the received Host header field (if any) and instead use the host information of the
    /// request-target" (RFC 9112 3.2.2). No route depends on the host. What does, the live page's
    /// admission, looks at both.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(method: &str, target: &'b str, host: &'b [u8]) -> Result<Self, BadTarget> {
        if target.starts_with('/') {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            return Ok(Target { host, path, query });
        }
        if target == "*" && method == "OPTIONS" {
            return Ok(Target { host, path: target, query: "" });
        }
        let (scheme, rest) = target.split_once("://").ok_or(BadTarget::Form)?;
        if !SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(BadTarget::Form);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        // RFC 9110 4.2.1 and 4.2.4: without a host, or with user information, it is an error.
        if !is_host(authority.as_bytes()) {
            return Err(BadTarget::Authority);
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match (path, method) {
            // RFC 9112 3.2.4: what the last proxy sends on as `*`.
            ("", "OPTIONS") if query.is_empty() => "*",
            ("", _) => "/",
            (path, _) => path,
        };
        Ok(Target { host: authority.as_bytes(), path, query })
    }
}

/// Whether this is `uri-host [ ":" port ]` of RFC 3986 3.2.2: a name or an address, and no user
/// information.
#[must_use]
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|&b| b == b':') {
        // The last colon of a bare IPv6 literal lies inside its brackets.
        Some(colon) if host.last() != Some(&b']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, &b""[..]),
    };
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b);
    let name_ok = match name {
        [b'[', literal @ .., b']'] => is_address(literal),
        _ => !name.is_empty() && name.iter().all(plain),
    };
    name_ok && port.iter().all(u8::is_ascii_digit)
}

/// What stands between brackets: an IPv6 address, perhaps with the zone of a link-local one. RFC 6874
/// writes `%25eth0`; people and several clients write `%eth0`, as RFC 4007 does.
fn is_address(literal: &[u8]) -> bool {
    let percent = literal.iter().position(|&b| b == b'%').unwrap_or(literal.len());
    let (address, zone) = literal.split_at(percent);
    let in_zone = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%".contains(b);
    !address.is_empty()
        && address.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b))
        && (zone.is_empty() || (zone.len() > 1 && zone.iter().all(in_zone)))
}

/// The value of the first parameter of a query with this name, undecoded; empty if it has no `=`.
#[must_use]
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// The bytes that percent-encoded text stands for (RFC 3986 2.1), and a `None` for a percent sign
/// without two hexadecimal digits behind it. A plus sign is a plus sign: to read it as a space is a
/// rule of HTML forms. Whether the bytes are UTF-8, and how many there may be, is for the caller.
pub fn percent_decoded(text: &str) -> impl Iterator<Item = Option<u8>> {
    let mut bytes = text.bytes();
    std::iter::from_fn(move || {
        let byte = bytes.next()?;
        if byte != b'%' {
            return Some(Some(byte));
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        Some(digit().zip(digit()).map(|(high, low)| (high * 16 + low) as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        for (target, expected) in [
            ("/", ("field", "/", "")),
            ("/ws/chat/?session_id=a?b", ("field", "/ws/chat/", "session_id=a?b")),
            ("//a/b", ("field", "//a/b", "")),
            ("/?x=http://b/", ("field", "/", "x=http://b/")),
            ("http://a/x", ("a", "/x", "")),
            ("HTTP://A:80/x?y", ("A:80", "/x", "y")),
            ("https://a:443/x", ("a:443", "/x", "")),
            ("ws://127.0.0.1/ws/chat/", ("127.0.0.1", "/ws/chat/", "")),
            ("WsS://a/ws?x=/?", ("a", "/ws", "x=/?")),
            ("ws://a", ("a", "/", "")),
            ("ws://a?x=1", ("a", "/", "x=1")),
            ("ws://a:?x=1", ("a:", "/", "x=1")),
            ("ws://[::1]:8000?", ("[::1]:8000", "/", "")),
            ("http://[fe80::1%25eth0]/x", ("[fe80::1%25eth0]", "/x", "")),
            ("http://a//b", ("a", "//b", "")),
        ] {
            let (host, path, query) = expected;
            let expected = Ok(Target { host: host.as_bytes(), path, query });
            assert_eq!(Target::parse("GET", target, b"field"), expected, "{target}");
        }
    }

    #[test]
    fn the_asterisk_is_for_options() {
        let whole = |host| Ok(Target { host, path: "*", query: "" });
        assert_eq!(Target::parse("OPTIONS", "*", b"a"), whole(b"a"));
        assert_eq!(Target::parse("OPTIONS", "http://b", b"a"), whole(b"b"));
        let root = Target { host: b"b", path: "/", query: "x" };
        assert_eq!(Target::parse("OPTIONS", "http://b?x", b"a"), Ok(root));
        for method in ["GET", "HEAD", "POST", "options"] {
            let refused = Err(BadTarget::Form);
            assert_eq!(Target::parse(method, "*", b"a"), refused, "{method}");
        }
        assert_eq!(Target::parse("OPTIONS", "**", b"a"), Err(BadTarget::Form));
    }

    #[test]
    fn what_has_no_such_form_is_refused() {
        for (target, expected) in [
            ("ws/chat/", BadTarget::Form),
            ("", BadTarget::Form),
            ("?x", BadTarget::Form),
            ("a:80", BadTarget::Form),
            ("http:/a/x", BadTarget::Form),
            ("ftp://a/x", BadTarget::Form),
            ("wsx://a/x", BadTarget::Form),
            ("://a/x", BadTarget::Form),
            ("http://", BadTarget::Authority),
            ("http:///x", BadTarget::Authority),
            ("http://?x", BadTarget::Authority),
            ("http://user@a/x", BadTarget::Authority),
            ("http://user:pass@a/x", BadTarget::Authority),
            ("http://a:b/x", BadTarget::Authority),
            ("http://a#x", BadTarget::Authority),
            ("http://a\\b/x", BadTarget::Authority),
        ] {
            assert_eq!(Target::parse("GET", target, b"a"), Err(expected), "{target}");
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts() {
        for (query, value) in [
            ("a=1", Some("1")),
            ("b=2&a=%31&a=3", Some("%31")),
            ("a=1=2", Some("1=2")),
            ("a", Some("")),
            ("a=", Some("")),
            ("b&a&c", Some("")),
            ("aa=1", None),
            ("A=1", None),
            ("%61=1", None),
            ("", None),
        ] {
            assert_eq!(parameter(query, "a"), value, "{query}");
        }
    }

    #[test]
    fn a_percent_sign_and_two_digits_stand_for_a_byte() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("a~b", Some(b"a~b")),
            ("a%7eb%7E", Some(b"a~b~")),
            ("a+b", Some(b"a+b")),
            ("%FF%00", Some(b"\xff\x00")),
            ("%2525", Some(b"%25")),
            ("\u{fc}", Some(b"\xc3\xbc")),
            ("%", None),
            ("a%2", None),
            ("a%zz", None),
            ("%+1", None),
            ("%%41", None),
            ("%\u{fc}", None),
        ] {
            let decoded: Option<Vec<u8>> = percent_decoded(text).collect();
            assert_eq!(decoded.as_deref(), bytes, "{text}");
        }
    }

    #[test]
    fn hosts_are_judged() {
        for host in [
            "a",
            "a:",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
            "[fe80::1%25eth0]",
            "[fe80::1%25eth0]:8000",
            "[fe80::1%eth0]:8000",
            "[fe80::1%25en%2D0]",
            "[fe80::1%3]",
            "xn--mnchen-3ya.example",
            "under_score.example.",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "u@a",
            "a b",
            "a:x",
            "a/b",
            "a?b",
            "[]",
            "[",
            "]",
            "[::1",
            "::1]",
            "[%25eth0]",
            "[fe80::1%]",
            "[fe80::1%25e/0]",
            "[fe80::1%25e]0]",
            "[::1]x",
            "m\u{fc}nchen.example",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"\xff"));
    }
}

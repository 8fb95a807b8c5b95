//! Which pages may connect: `--allowed-origins`, and how an `Origin` field is compared with it.
//!
//! Values and comparisons only; `shard/requests.rs` asks at each upgrade.
//!
//! Invariant: a pattern matches whole labels of a host name, never a part of one, so
//! `https://*.example.com` does not let `https://evilexample.com` in.
//!
//! Next: `proxies`: which peers speak for others.

use std::fmt;

/// What `--allowed-origins` takes, as the end of a sentence.
pub const ORIGINS_ALLOWED: &str = "a list of origins such as https://example.com, \
     https://*.example.com:8443, file:// or null; to allow any origin, leave the option out";

/// From which pages a browser may connect. Pages of any site can open a WebSocket to any server,
/// and the browser sends that server's cookies along: only the Origin field tells them apart
/// (RFC 6455 10.2, "cross-site WebSocket hijacking").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowedOrigins {
    /// From any: right where the session id is the only credential.
    #[default]
    Any,
    /// Only from these; a browser elsewhere gets 403.
    Only(Vec<Origin>),
}

impl AllowedOrigins {
    /// Whether a page may connect whose request has these `Origin` fields. A request without one is no
    /// browser's (RFC 6455 4.2.1, item 7): its sender could as well have sent one that is allowed, so
    /// it is let in. Two of them are no browser's either, and one too many.
    pub fn allow<'a>(&self, mut fields: impl Iterator<Item = &'a [u8]>) -> bool {
        let AllowedOrigins::Only(origins) = self else { return true };
        match (fields.next(), fields.next()) {
            (None, _) => true,
            (Some(value), None) => origins.iter().any(|origin| origin.is(value)),
            (Some(_), Some(_)) => false,
        }
    }
}

/// Where a page comes from, as a browser writes it: `https://example.com`,
/// `http://localhost:3000`, `file://` (web views), or `null` for a page without an origin
/// (RFC 6454 6.1).
///
/// `https://*.example.com` stands for all subdomains, of any depth, and not for `example.com`
/// itself, as in certificates (RFC 6125 6.4.3) and in Content-Security-Policy. To allow both,
/// name both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Box<str>);

/// What stands for one or more labels in front of a domain.
const SUBDOMAINS: &str = "://*.";

impl Origin {
    /// Reads `null`, `scheme://host[:port]` or `scheme://*.host[:port]`, without a path. The port that
    /// a scheme implies is left out, as browsers do. A host may be missing where the scheme is not one
    /// of HTTP's: `file://`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Origin> {
        if text == "null" {
            return Some(Origin(text.into()));
        }
        let (scheme, host) = text.split_once("://")?;
        let in_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let starts_well = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        if !starts_well || !scheme.bytes().all(in_scheme) {
            return None;
        }
        let is_http = ["http", "https", "ws", "wss"].iter().any(|s| s.eq_ignore_ascii_case(scheme));
        if host.is_empty() && !is_http {
            return Some(Origin(text.into()));
        }
        let is_pattern = host.starts_with("*.");
        let domain = host.strip_prefix("*.").unwrap_or(host);
        let (name, port) = match domain.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (domain, None),
        };
        // RFC 3986 3.2.2, in which brackets and colons are an IPv6 literal's; an address has no
        // subdomains. A name that begins with a dot is no browser's, and would match nothing.
        let in_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let in_literal = |b: u8| b.is_ascii_hexdigit() || b":.".contains(&b);
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_host = match literal {
            Some(literal) => !is_pattern && !literal.is_empty() && literal.bytes().all(in_literal),
            None => !name.is_empty() && name.bytes().all(in_name),
        };
        if !is_host
            || (name.starts_with('.') && (is_http || is_pattern))
            || port.is_some_and(|port| port.parse::<u16>().is_err())
        {
            return None;
        }
        let is_implied = |port: &str| match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => port == "80",
            "https" | "wss" => port == "443",
            _ => false,
        };
        let implied = port.filter(|port| is_implied(port)).map_or(0, |port| port.len() + 1);
        Some(Origin(text[..text.len() - implied].into()))
    }

    /// Whether this stands for what an Origin field says; neither scheme nor host minds the case.
    #[must_use]
    pub(crate) fn is(&self, field: &[u8]) -> bool {
        let Some((scheme, domain)) = self.0.split_once(SUBDOMAINS) else {
            return self.0.as_bytes().eq_ignore_ascii_case(field);
        };
        // From the end of the scheme to the dot before the domain: labels, and nothing that could
        // end a host or begin a port.
        let labels = strip_prefix(field, scheme.as_bytes())
            .and_then(|rest| strip_prefix(rest, b"://"))
            .and_then(|rest| strip_suffix(rest, domain.as_bytes()))
            .and_then(|rest| rest.strip_suffix(b"."));
        let is_label = |label: &[u8]| {
            let in_label = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
            !label.is_empty() && label.iter().all(in_label)
        };
        labels.is_some_and(|labels| labels.split(|&b| b == b'.').all(is_label))
    }
}

fn strip_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn strip_suffix<'a>(text: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let (rest, end) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    end.eq_ignore_ascii_case(suffix).then_some(rest)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        for (text, expected) in [
            ("null", Some("null")),
            ("https://example.com", Some("https://example.com")),
            ("https://example.com:443", Some("https://example.com")),
            ("HTTP://a:80", Some("HTTP://a")),
            ("http://a:443", Some("http://a:443")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[::1]", Some("http://[::1]")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("chrome-extension://abcdef", Some("chrome-extension://abcdef")),
            ("file://", Some("file://")),
            ("qrc://", Some("qrc://")),
            ("app://.", Some("app://.")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("https://*.example.com", Some("https://*.example.com")),
            ("https://*.example.com:8443", Some("https://*.example.com:8443")),
            ("https://*.example.com:443", Some("https://*.example.com")),
            ("http://*.localhost:3000", Some("http://*.localhost:3000")),
            ("", None),
            ("*", None),
            ("*.example.com", None),
            ("example.com", None),
            ("file:", None),
            ("file:///", None),
            ("file:///home/me/page.html", None),
            ("https://", None),
            ("HTTPS://", None),
            ("https://:80", None),
            ("https://a:", None),
            ("https://a:65536", None),
            ("https://a/", None),
            ("https://u@a", None),
            ("https://a b", None),
            ("https://*", None),
            ("https://*.", None),
            ("https://*:8443", None),
            ("https://*example.com", None),
            ("https://**.example.com", None),
            ("https://*.*.example.com", None),
            ("https://a.*.example.com", None),
            ("https://*.[::1]", None),
            ("https://[]", None),
            ("https://[::1", None),
            // As Django and Channels write "a domain and its subdomains": it would match nothing.
            ("https://.example.com", None),
            ("https://*..example.com", None),
            ("*://example.com", None),
            ("1a://b", None),
            ("https://caf\u{e9}", None),
        ] {
            let shown = Origin::parse(text).map(|origin| origin.to_string());
            assert_eq!(shown.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_star_stands_for_whole_labels_and_at_least_one() {
        let pattern = Origin::parse("https://*.Example.com").unwrap();
        for field in [
            "https://a.example.com",
            "https://a.b.c.example.com",
            "HTTPS://CHAT.EXAMPLE.COM",
            "https://xn--caf-dma.example.com",
            "https://a_b.example.com",
        ] {
            assert!(pattern.is(field.as_bytes()), "{field}");
        }
        for field in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://.a.example.com",
            "https://evilexample.com",
            "https://a.example.com.evil.net",
            "https://a.example.com:8443",
            "https://a.example.com/",
            "https://evil.net/a.example.com",
            "https://evil.net?.example.com",
            "https://evil.net#.example.com",
            "https://evil.net:80.example.com",
            "https://user@a.example.com",
            "https://evil.net\\.example.com",
            "https://a b.example.com",
            "https://caf\u{e9}.example.com",
            "http://a.example.com",
            "https://*.example.com/x",
            "https://*.example.com",
            "a.example.com",
            "https://a.example.co",
            "null",
            "",
        ] {
            assert!(!pattern.is(field.as_bytes()), "{field}");
        }
        let with_port = Origin::parse("http://*.localhost:3000").unwrap();
        for (field, expected) in [
            ("http://a.localhost:3000", true),
            ("http://a.localhost:3001", false),
            ("http://a.localhost", false),
            ("http://localhost:3000", false),
            ("http://a.localhost:13000", false),
        ] {
            assert_eq!(with_port.is(field.as_bytes()), expected, "{field}");
        }
    }

    #[test]
    fn origins_are_matched_whole() {
        let origins = ["https://example.com", "http://localhost:3000", "null"];
        let origins = origins.map(|text| Origin::parse(text).unwrap());
        let allowed = AllowedOrigins::Only(origins.to_vec());
        for (fields, expected) in [
            (&[][..], true),
            (&["https://example.com"], true),
            (&["HTTPS://Example.COM"], true),
            (&["http://localhost:3000"], true),
            (&["null"], true),
            (&[""], false),
            (&["https://example.com.evil.net"], false),
            (&["https://evil.net/https://example.com"], false),
            (&["https://example.com:8443"], false),
            (&["http://example.com"], false),
            (&["https://sub.example.com"], false),
            (&["https://example.co"], false),
            (&["https://example.com https://evil.net"], false),
            (&["https://example.com", "https://example.com"], false),
            (&["http://localhost"], false),
        ] {
            let values = || fields.iter().map(|field| field.as_bytes());
            assert_eq!(allowed.allow(values()), expected, "{fields:?}");
            assert!(AllowedOrigins::Any.allow(values()), "{fields:?}");
        }
    }

    #[test]
    fn a_page_from_a_file_is_itself_alone() {
        let file = Origin::parse("file://").unwrap();
        assert!(file.is(b"file://") && file.is(b"FILE://"));
        for field in ["file:///", "file://evil.example", "file:", "null", ""] {
            assert!(!file.is(field.as_bytes()), "{field}");
        }
    }
}

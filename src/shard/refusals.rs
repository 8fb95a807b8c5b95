//! Which refusals are told at the log's default level, and how often.
//!
//! Most refusals are of no interest to the operator: they are counted, told to the client, and logged
//! at debug level. Those that have a [`Rejection::remedy`] usually come from a setting, a proxy or a
//! client's library that has to be changed. So they are logged with the fields that decide, Origin and
//! Host. Answers nothing: `refusing` does, which calls this.
//!
//! Invariant: a peer causes at most one line a second and reason, with at most [`SHOWN`] bytes of
//! each field, escaped.
//!
//! Next: `evictions`, which the log tells too.

use std::time::{Duration, Instant};

use crate::http::Rejection;
use crate::token::{LocalId, Peer};

/// Time between two lines of one reason.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes of a field that are shown. 128: more than a host name in use has.
const SHOWN: usize = 128;

/// When each was told last.
#[derive(Debug)]
pub(super) struct Refusals([Told; Rejection::COUNT]);

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    last: Option<Instant>,
    /// How many were not told since.
    untold: u64,
}

/// The connection that is refused, and where it is.
pub(super) struct Refused {
    pub(super) connection: LocalId,
    pub(super) peer: Peer,
    pub(super) reactor: usize,
}

// By hand, because arrays have a default up to a length of 32 only.
impl Default for Refusals {
    fn default() -> Self {
        Refusals([Told::default(); Rejection::COUNT])
    }
}

impl Refusals {
    /// Tells of a request that is refused, if it is one of those that are told. `head` is what came of
    /// it.
    #[cold]
    pub(super) fn tell(&mut self, who: &Refused, rejection: Rejection, head: &[u8], now: Instant) {
        let Some((remedy, untold)) = self.note(rejection, now) else { return };
        let origin = shown(field(head, "origin"));
        let host = shown(authority(head).or_else(|| field(head, "host")));
        let more = match untold {
            0 => String::new(),
            count => format!(" (and {count} more since this was last told)"),
        };
        log::info!(
            connection:% = who.connection,
            reactor = who.reactor,
            peer:% = who.peer,
            reason = rejection.label(),
            origin = origin.as_str(),
            host = host.as_str();
            "request refused with {}: {}{remedy}{more}",
            rejection.status(), rejection.advice()
        );
    }

    /// Notes a refusal. If it is to be told: what can be done, and how many of the kind were not told
    /// since the last one that was.
    fn note(&mut self, rejection: Rejection, now: Instant) -> Option<(&'static str, u64)> {
        let remedy = rejection.remedy()?;
        let told = &mut self.0[rejection.index()];
        if told.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            told.untold += 1;
            return None;
        }
        told.last = Some(now);
        Some((remedy, std::mem::take(&mut told.untold)))
    }
}

/// The value of the first field of this name. Reads the bytes as they came, because a head with a bad
/// Host is not parsed to its end.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).skip(1);
    lines.by_ref().take_while(|line| !line.is_empty()).find_map(|line| {
        let (field, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The host and port in a target in absolute form, which count in place of Host (RFC 9112 3.2.2).
fn authority(head: &[u8]) -> Option<&[u8]> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let target = line.split(|&byte| byte == b' ').nth(1)?;
    let scheme_end = target.windows(3).position(|bytes| bytes == b"://")?;
    let authority = match target.first() {
        // A path; what looks like a scheme stands in its query.
        Some(b'/') => return None,
        _ => &target[scheme_end + 3..],
    };
    authority.split(|byte| b"/?".contains(byte)).next()
}

/// A value as a log may show it; empty if there is none.
fn shown(value: Option<&[u8]>) -> String {
    let value = value.unwrap_or_default();
    let end = if value.len() > SHOWN { "…" } else { "" };
    format!("{}{end}", value[..value.len().min(SHOWN)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_and_then_one_a_second_with_the_number_of_those_that_were_not() {
        let mut refusals = Refusals::default();
        let begin = Instant::now();
        let mut note = |rejection, ms| {
            let told = refusals.note(rejection, begin + Duration::from_millis(ms));
            told.map(|(_, untold)| untold)
        };
        assert_eq!(note(Rejection::BadKey, 0), Some(0));
        for ms in [0, 1, 500, 999] {
            assert_eq!(note(Rejection::BadKey, ms), None);
        }
        // Each reason has a time of its own.
        assert_eq!(note(Rejection::OriginNotAllowed, 999), Some(0));
        assert_eq!(note(Rejection::BadKey, 1000), Some(4));
        assert_eq!(note(Rejection::BadKey, 1999), None);
        assert_eq!(note(Rejection::BadKey, 60_000), Some(1));
        assert_eq!(note(Rejection::BadKey, 61_000), Some(0));
        // The rest never is.
        assert_eq!(note(Rejection::NotFound, 0), None);
        assert_eq!(note(Rejection::NotFound, 99_000), None);
    }

    #[test]
    fn a_field_is_shown_escaped_and_cut() {
        let shown_origin = |fields: &[u8]| {
            let head = [b"GET / HTTP/1.1\r\n", fields, b"\r\n\r\nOrigin: behind"].concat();
            shown(field(&head, "origin"))
        };
        assert_eq!(
            shown_origin(b"Host: a\r\norigin:https://a.example \r\nOrigin: b"),
            "https://a.example"
        );
        assert_eq!(shown_origin(b"X-Origin: a\r\nOrigins: b"), "");
        assert_eq!(shown_origin(b"Host: a"), "", "what stands behind the head is not it");
        assert_eq!(shown_origin(b"Origin: \x1b[2J\" \\ \xff\x00"), r#"\x1b[2J\" \\ \xff\x00"#);
        assert_eq!(shown_origin(&[&b"Origin: "[..], &[b'x'; SHOWN]].concat()), "x".repeat(SHOWN));
        let cut = shown_origin(&[&b"Origin: "[..], &[b'\xe9'; SHOWN + 1]].concat());
        assert_eq!(cut, format!("{}…", "\\xe9".repeat(SHOWN)));
        assert_eq!(shown(field(b"", "origin")), "");
    }

    #[test]
    fn the_host_that_was_looked_at_is_shown() {
        let shown = |target: &str| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: field\r\n\r\n");
            shown(authority(head.as_bytes()))
        };
        for target in ["http://a:1", "http://a:1/x", "http://a:1?x=/"] {
            assert_eq!(shown(target), "a:1", "{target}");
        }
        for target in ["/", "/?next=http://a:1/", "*", ""] {
            assert_eq!(shown(target), "", "{target}");
        }
        assert_eq!(authority(b""), None);
    }
}

//! What a request says, as an application may look at it: an upgrade's head, or a whole plain request.
//!
//! [`RequestHead`] lends out target, fields and cookies. [`super::Upgrade`] and [`HttpRequest`] have the
//! same methods, and both lead here. Parses no head and answers nothing. Made by the shard for the
//! length of a callback.
//!
//! Invariant: nothing is lent out but what the peer sent; only [`RequestHead::parameter`] decodes, once.
//!
//! Next: `response`: what an application may answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Once;

use super::tell_misuse;
use crate::protocol::head::Request;
use crate::protocol::target;
use crate::token::Peer;

/// The head of a request.
#[derive(Clone, Copy)]
pub(crate) struct RequestHead<'a>(pub(crate) &'a Request<'a, 'a>);

impl<'a> RequestHead<'a> {
    pub(super) fn path(self) -> &'a str {
        self.0.path
    }

    pub(super) fn query(self) -> &'a str {
        self.0.query
    }

    pub(super) fn parameter(self, name: &str) -> Option<Cow<'a, str>> {
        let value = target::parameter(self.query(), name)?;
        if !value.contains('%') {
            return Some(Cow::Borrowed(value));
        }
        let decoded = target::percent_decoded(value).collect::<Option<Vec<u8>>>()?;
        String::from_utf8(decoded).ok().map(Cow::Owned)
    }

    pub(super) fn header(self, name: &str) -> Option<&'a str> {
        self.values(name).next().and_then(text)
    }

    pub(super) fn headers(self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.raw_headers().filter_map(|(name, value)| Some((name, text(value)?)))
    }

    pub(super) fn raw_headers(self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.0.headers.iter().map(|field| (field.name, field.value))
    }

    pub(super) fn cookie(self, name: &str) -> Option<&'a str> {
        let pairs = self.values("cookie").flat_map(|value| value.split(|&byte| byte == b';'));
        let mut values = pairs
            .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next().and_then(text)
    }

    /// The values of the fields with this name, in the order sent.
    pub(super) fn values<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let fields = self.0.headers.iter();
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// The content of a request, as far as the application reads any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestBody<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// There is some, and [`super::Application::READS_BODIES`] is not set.
    Unread,
}

/// A plain HTTP request, as [`super::Application::on_request`] sees it: whole, and in order.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    pub(crate) head: RequestHead<'a>,
    pub(crate) body: RequestBody<'a>,
    pub(crate) peer: Peer,
}

impl<'a> HttpRequest<'a> {
    /// The method, as sent: methods are case-sensitive (RFC 9110 9.1). HEAD is answered as GET is: the
    /// server leaves the content out.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.head.0.method
    }

    /// The path of the target, as sent: not decoded, and `..` is two dots.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// What stands behind the first `?` of the target, as sent; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        self.head.query()
    }

    /// The first parameter of the query with this name, percent-decoded once (RFC 3986 2.1). `None` if
    /// there is none, if it is not percent-encoded text, or what it decodes to is no UTF-8.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.head.parameter(name)
    }

    /// The first header field with this name, in whatever case. `None` if there is none, or if it is
    /// no UTF-8; [`Self::raw_headers`] has that one too.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.header(name)
    }

    /// The header fields of which the values are UTF-8, in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.head.headers()
    }

    /// All header fields, in the order sent. A value may have any bytes above ASCII (RFC 9110 5.5:
    /// they are opaque), so it need not be UTF-8; control characters, tabs aside, it has not.
    pub fn raw_headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.head.raw_headers()
    }

    /// The value of a cookie (RFC 6265 5.4), as sent; `None` if that is no UTF-8. What other cookies
    /// are does not matter.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.head.cookie(name)
    }

    /// The content: at most [`crate::Limits::request_body_bytes`] bytes, which may be any. Empty if the
    /// request has none.
    ///
    /// Also empty if [`super::Application::READS_BODIES`] is not set: then no content is read. The log
    /// tells once of an application that asks for content all the same.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        match self.body {
            RequestBody::Whole(bytes) => bytes,
            RequestBody::Unread => {
                static TOLD: Once = Once::new();
                let what = "body() is empty, because Application::READS_BODIES is not set";
                tell_misuse(&TOLD, format_args!("{what}"));
                &[]
            }
        }
    }

    /// The content as text; `None` if it is no UTF-8.
    #[must_use]
    pub fn body_text(&self) -> Option<&'a str> {
        text(self.body())
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl fmt::Debug for HttpRequest<'_> {
    /// Without query, headers and content: there are secrets in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &format_args!("{}", self.peer))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::protocol::ProtocolLimits;
    use crate::protocol::head::header_slots;

    #[test]
    fn a_plain_request_is_lent_out_as_an_upgrade_is() {
        let head = b"POST /a%2Fb/..?x=%41%2541&y HTTP/1.1\r\nHost: a\r\nX-Name: \xff\r\n\
                     Cookie: sid=7; b=\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n";
        let mut slots = header_slots();
        let limits = ProtocolLimits::from(&Config::default());
        let parsed = Request::parse(head, &mut slots, &limits).unwrap();
        let body = RequestBody::Whole(b"a\xff\0");
        let request = HttpRequest { head: RequestHead(&parsed), body, peer: Peer::Unix };
        assert_eq!((request.method(), request.path()), ("POST", "/a%2Fb/.."));
        assert_eq!(request.query(), "x=%41%2541&y");
        assert_eq!(request.parameter("x").as_deref(), Some("A%41"), "decoded once");
        assert_eq!(request.parameter("y").as_deref(), Some(""));
        assert_eq!(request.header("content-TYPE"), Some("text/plain"));
        assert_eq!((request.header("x-name"), request.header("z")), (None, None));
        assert_eq!(request.raw_headers().count(), request.headers().count() + 1);
        assert_eq!((request.cookie("sid"), request.cookie("b")), (Some("7"), Some("")));
        assert_eq!((request.body(), request.body_text()), (&b"a\xff\0"[..], None));
        let unread = HttpRequest { body: RequestBody::Unread, ..request };
        assert_eq!((unread.body(), unread.body_text()), (&b""[..], Some("")));
        let shown = format!("{request:?}");
        assert!(!shown.contains("sid") && !shown.contains("%41"), "{shown}");
    }
}

//! What an application may say in plain HTTP, and what it may not.
//!
//! [`HttpResponse`] answers a plain request. [`super::Refusal`] and [`super::Acceptance`] take their header fields and
//! content types through the same checks (`config/response_fields.rs`). A status that is none, or content behind a
//! status that has none, does not compile. Writes nothing to a connection: `http` does.
//!
//! Invariant: what gets into a response's head is a token or one line of visible ASCII, and is none of
//! the fields that frame the response.
//!
//! Next: `metrics`: what an application counts.

use std::borrow::Cow;
use std::fmt;

use crate::config::{InvalidField, check_value, push_field};
use crate::json::JsonString;

/// What a plain text is labelled with.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// JSON has no charset parameter (RFC 8259 11).
const JSON: &str = "application/json";

/// A response to a plain request ([`super::Application::on_request`]).
///
/// ```
/// use revolve::HttpResponse;
///
/// let taken = HttpResponse::json::<201>(r#"{"id": 7}"#).header("Location", "/orders/7")?;
/// let wrong = HttpResponse::json_error::<400>("the amount is no number");
/// # Ok::<(), revolve::InvalidField>(())
/// ```
///
/// Neither an informational status nor one beyond 599 is a response:
///
/// ```compile_fail
/// let response = revolve::HttpResponse::text::<101>("switch!");
/// ```
///
/// Nor is there content behind a status that has none:
///
/// ```compile_fail
/// let response = revolve::HttpResponse::text::<204>("nothing to say");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) content: ResponseContent,
    /// Whole lines.
    pub(crate) fields: String,
    /// Whether `Cache-Control` is among them.
    pub(crate) caching: Caching,
}

/// The content of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ResponseContent {
    /// None, and no length either (RFC 9110 8.6).
    Impossible,
    /// None, and that is told: a length of 0.
    Empty,
    /// These bytes, of this type.
    Bytes { kind: Cow<'static, str>, bytes: Cow<'static, [u8]> },
}

/// Who says how long a response may be kept by caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caching {
    /// The server: not at all.
    Forbidden,
    /// The application, in a field of its own.
    Chosen,
}

impl HttpResponse {
    /// With `STATUS`, from 200 to 599, and no content.
    pub fn empty<const STATUS: u16>() -> Self {
        const { assert!(STATUS >= 200 && STATUS <= 599, "a response has a status from 200 to 599") };
        let content = match STATUS {
            // RFC 9112 6.3: these two end with their head. A 205 does not, so it says that it has nothing.
            204 | 304 => ResponseContent::Impossible,
            _ => ResponseContent::Empty,
        };
        let caching = Caching::Forbidden;
        HttpResponse { status: STATUS, content, fields: String::new(), caching }
    }

    /// With `STATUS`, from 200 to 599, and content of a type such as `image/png`. The statuses 204, 205
    /// and 304 have no content, and do not compile here.
    ///
    /// # Errors
    ///
    /// [`InvalidField::Value`], if the type could not stand in a head.
    pub fn bytes<const STATUS: u16>(
        content_type: impl Into<Cow<'static, str>>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, InvalidField> {
        let kind = content_type.into();
        check_content_type(&kind)?;
        Ok(HttpResponse::with_content::<STATUS>(kind, bytes.into()))
    }

    /// With `STATUS`, as [`Self::bytes`], and a text: `text/plain; charset=utf-8`.
    pub fn text<const STATUS: u16>(text: impl Into<Cow<'static, str>>) -> Self {
        HttpResponse::with_content::<STATUS>(TEXT.into(), into_bytes(text.into()))
    }

    /// With `STATUS`, as [`Self::bytes`], and a text that is JSON already: `application/json`. It is sent
    /// as it is, and not checked.
    pub fn json<const STATUS: u16>(json: impl Into<Cow<'static, str>>) -> Self {
        HttpResponse::with_content::<STATUS>(JSON.into(), into_bytes(json.into()))
    }

    /// With `STATUS`, as [`Self::bytes`], and `{"error": "…"}`, in which `message` is escaped.
    pub fn json_error<const STATUS: u16>(message: &str) -> Self {
        HttpResponse::json::<STATUS>(error_in_json(message))
    }

    fn with_content<const STATUS: u16>(kind: Cow<'static, str>, bytes: Cow<'static, [u8]>) -> Self {
        const { assert!(may_have_content(STATUS), "a response with this status has no content") };
        let content = ResponseContent::Bytes { kind, bytes };
        HttpResponse { content, ..HttpResponse::empty::<STATUS>() }
    }

    /// With a header field. What frames the response is the server's: `Content-Length`, `Content-Type`,
    /// `Connection`, `Date` and the like. Without a `Cache-Control` of the application's, no cache may keep
    /// the response (`no-store`).
    ///
    /// # Errors
    ///
    /// [`InvalidField`], which as a [`NoResponse`] is a 500; so `?` does what is right.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidField> {
        push_field(name, value, &mut self.fields)?;
        if name.eq_ignore_ascii_case("cache-control") {
            self.caching = Caching::Chosen;
        }
        Ok(self)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// RFC 9110 15.3.5, 15.3.6 and 15.4.5: these three have none.
const fn may_have_content(status: u16) -> bool {
    !matches!(status, 204 | 205 | 304)
}

fn into_bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Why an application has no response to a plain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoResponse {
    /// It has nothing at this path: the server answers 404 and closes the connection, as it does without an
    /// application.
    NotFound,
    /// It set a header field that is none. The client gets 500, and the log tells what was wrong.
    InvalidField(InvalidField),
    /// It has one later: only [`super::ReactorContext::respond_later`] and
    /// [`super::ReactorContext::ask_to_respond`] make this.
    Follows(AnswerFollows),
}

/// Stands in [`NoResponse::Follows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerFollows(pub(super) ());

impl From<InvalidField> for NoResponse {
    fn from(error: InvalidField) -> NoResponse {
        NoResponse::InvalidField(error)
    }
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoResponse::NotFound => f.write_str("the application has nothing at this path"),
            NoResponse::InvalidField(error) => error.fmt(f),
            NoResponse::Follows(_) => f.write_str("the application has a response later"),
        }
    }
}

impl std::error::Error for NoResponse {}

/// Checks a content type, as the value of any field, and that there is one.
///
/// # Errors
///
/// [`InvalidField::Value`].
pub(super) fn check_content_type(kind: &str) -> Result<(), InvalidField> {
    match kind.is_empty() {
        true => Err(InvalidField::Value),
        false => check_value(kind),
    }
}

/// `{"error": "…"}`.
pub(super) fn error_in_json(message: &str) -> String {
    format!(r#"{{"error": {}}}"#, JsonString(message))
}

/// The reason phrase of a status (RFC 9110 15; RFC 6585; RFC 7725); `None` for one without a name.
pub(crate) fn reason_phrase(status: u16) -> Option<&'static str> {
    Some(match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_json_is_one_string_whatever_is_in_it() {
        for (message, json) in [
            ("no such order", r#"{"error": "no such order"}"#),
            ("", r#"{"error": ""}"#),
            ("a \"b\" \\ c", r#"{"error": "a \"b\" \\ c"}"#),
            ("\n\r\t\0\x1f", r#"{"error": "\n\r\t\u0000\u001f"}"#),
            ("</script>&", r#"{"error": "\u003c/script\u003e\u0026"}"#),
            ("Zürich \u{2028}", r#"{"error": "Zürich \u2028"}"#),
        ] {
            assert_eq!(error_in_json(message), json);
        }
    }

    #[test]
    fn a_status_without_content_says_no_length() {
        assert_eq!(HttpResponse::empty::<204>().content, ResponseContent::Impossible);
        assert_eq!(HttpResponse::empty::<304>().content, ResponseContent::Impossible);
        assert_eq!(HttpResponse::empty::<205>().content, ResponseContent::Empty);
        assert_eq!(HttpResponse::empty::<200>().content, ResponseContent::Empty);
        assert_eq!(HttpResponse::empty::<599>().status(), 599);
    }

    #[test]
    fn a_content_type_is_one_line() {
        for (kind, expected) in [
            ("image/png", Ok(())),
            ("text/html; charset=utf-8", Ok(())),
            ("", Err(InvalidField::Value)),
            ("text/html\r\nSet-Cookie: a", Err(InvalidField::Value)),
            ("text/html\n", Err(InvalidField::Value)),
            ("te\0xt", Err(InvalidField::Value)),
        ] {
            let response = HttpResponse::bytes::<200>(kind, &b"x"[..]).map(drop);
            assert_eq!(response, expected, "{kind:?}");
        }
    }

    #[test]
    fn a_cache_is_told_by_the_application_or_by_the_server() {
        let response = HttpResponse::text::<200>("a");
        assert_eq!(response.caching, Caching::Forbidden);
        let response = response.header("CACHE-control", "max-age=60").unwrap();
        assert_eq!(response.caching, Caching::Chosen);
        assert_eq!(response.fields, "CACHE-control: max-age=60\r\n");
        assert_eq!(response.header("Date", "now"), Err(InvalidField::Reserved));
    }
}

//! Header fields that responses have besides the server's own: what may stand in one, and those of `--header`.
//!
//! Writes to no connection: `http` does, and the shard for a 101. Called by the code that makes a
//! [`crate::Config`], and by `application` for the fields of an application.
//!
//! Invariant: what has become a line is a token, a colon and one line of visible ASCII, and is none of the
//! fields that frame a response.
//!
//! Next: `storage`: where sessions are stored.

use std::fmt;

use super::subprotocols::is_token;

/// What `--header` takes, as the end of a sentence.
pub const FIELD_ALLOWED: &str = "a header field such as X-Robots-Tag:noindex that is not the server's own, \
                                 and all of them together at most 2048 bytes";

/// Bytes of all lines. Proxies have room for a response's head of 4 KiB (nginx, `proxy_buffer_size`), and half of it
/// is left to the server and the application.
const BYTES_MOST: usize = 2048;

/// A header field that would not be one, or not the application's to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidField {
    /// The name is no token (RFC 9110 5.1).
    Name,
    /// The value has a byte other than visible ASCII, spaces and tabs: with a line end in it, what
    /// follows would be fields of somebody else's making (CWE-113). Or it is an empty content type.
    Value,
    /// The field is the handshake's own, the session's, or one that frames the response.
    Reserved,
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidField::Name => "the name of a header field is letters, digits and hyphens",
            InvalidField::Value => "the value of a header field is one line of visible ASCII",
            InvalidField::Reserved => "this header field is set by the server",
        })
    }
}

impl std::error::Error for InvalidField {}

/// Fields that frame the response, or that every 101 has.
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "upgrade",
    "x-session-id",
    "x-session-resumed",
];

/// Fields of which a response has one at most, and some responses have one: an application may know better, and a
/// field that all responses have cannot.
const OF_SOME_RESPONSES: [&str; 3] = ["allow", "cache-control", "retry-after"];

/// What the names of the handshake's own fields begin with (RFC 6455 11.3).
const HANDSHAKES: &str = "sec-websocket-";

/// Appends a header field as a whole line.
///
/// # Errors
///
/// Why it is none.
pub(crate) fn push_field(name: &str, value: &str, out: &mut String) -> Result<(), InvalidField> {
    if !is_token(name.as_bytes()) {
        return Err(InvalidField::Name);
    }
    let is_handshakes = name
        .get(..HANDSHAKES.len())
        .is_some_and(|beginning| beginning.eq_ignore_ascii_case(HANDSHAKES));
    if is_handshakes || is_one_of(name, &RESERVED) {
        return Err(InvalidField::Reserved);
    }
    check_value(value)?;
    let parts = [name, ": ", value, "\r\n"];
    out.reserve(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.push_str(part);
    }
    Ok(())
}

fn is_one_of(name: &str, known: &[&str]) -> bool {
    known.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Checks the value of a field.
///
/// # Errors
///
/// [`InvalidField::Value`].
pub(crate) fn check_value(value: &str) -> Result<(), InvalidField> {
    match value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
        true => Ok(()),
        false => Err(InvalidField::Value),
    }
}

/// Header fields that every response has, of the server's own pages, of an application, refusals and 101s.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseFields {
    /// Whole lines.
    lines: String,
}

impl ResponseFields {
    /// Adds a field behind those that are there. One of the same name stays, as with `Set-Cookie`.
    ///
    /// # Errors
    ///
    /// Why it is none, or the server's own. How long all may be is told by [`crate::Config::validate`].
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), InvalidField> {
        if is_one_of(name, &OF_SOME_RESPONSES) {
            return Err(InvalidField::Reserved);
        }
        push_field(name, value, &mut self.lines)
    }

    /// Adds a name, a colon and a value, with blanks around it or none.
    ///
    /// # Errors
    ///
    /// As [`Self::add`]; [`InvalidField::Name`] without a colon.
    pub fn add_line(&mut self, line: &str) -> Result<(), InvalidField> {
        let (name, value) = line.split_once(':').ok_or(InvalidField::Name)?;
        self.add(name, value.trim_matches([' ', '\t']))
    }

    /// As they stand in a head.
    pub(crate) fn lines(&self) -> &str {
        &self.lines
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.lines.len() <= BYTES_MOST
    }
}

impl fmt::Display for ResponseFields {
    /// The fields with commas between them, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines.trim_end() {
            "" => f.write_str("none"),
            lines => f.write_str(&lines.replace("\r\n", ", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_name_a_colon_and_a_value() {
        for (text, line) in [
            ("X-Frame-Options:DENY", "X-Frame-Options: DENY\r\n"),
            ("Server: \t one two ", "Server: one two\r\n"),
            ("X-Url:https://a:8/", "X-Url: https://a:8/\r\n"),
            ("X-Empty:", "X-Empty: \r\n"),
        ] {
            let mut fields = ResponseFields::default();
            assert_eq!(fields.add_line(text), Ok(()), "{text}");
            assert_eq!(fields.lines(), line);
        }
        for (text, error) in [
            ("", InvalidField::Name),
            ("X-Frame-Options", InvalidField::Name),
            (":DENY", InvalidField::Name),
            ("X Frame:DENY", InvalidField::Name),
            ("X-Frame :DENY", InvalidField::Name),
            ("X\r\nY:DENY", InvalidField::Name),
            ("X:a\r\nSet-Cookie: b", InvalidField::Value),
            ("X:a\n", InvalidField::Value),
            ("X:gr\u{fc}ezi", InvalidField::Value),
            ("Connection:close", InvalidField::Reserved),
            ("content-LENGTH:0", InvalidField::Reserved),
            ("Sec-WebSocket-Accept:x", InvalidField::Reserved),
            ("X-Session-Id:x", InvalidField::Reserved),
            ("Cache-Control:public", InvalidField::Reserved),
        ] {
            let mut fields = ResponseFields::default();
            assert_eq!(fields.add_line(text), Err(error), "{text:?}");
            assert_eq!(fields.lines(), "");
        }
    }

    #[test]
    fn fields_stay_in_their_order_and_have_a_bound_together() {
        let mut fields = ResponseFields::default();
        assert_eq!(fields.to_string(), "none");
        fields.add("X-A", "1").unwrap();
        fields.add("X-A", "2").unwrap();
        assert_eq!(fields.lines(), "X-A: 1\r\nX-A: 2\r\n");
        assert_eq!(fields.to_string(), "X-A: 1, X-A: 2");
        let rest = BYTES_MOST - fields.lines().len() - "X-B: \r\n".len();
        fields.add("X-B", &"b".repeat(rest)).unwrap();
        assert!(fields.is_valid());
        fields.add("C", "").unwrap();
        assert!(!fields.is_valid());
    }
}

//! Reads JSON that others wrote: whether a text is JSON, and the members of its outermost object.
//!
//! Sans-IO. What stands inside a value is checked and not kept: a value is a piece of the text that was given. So no
//! memory is taken for what a worker or a client has made of it, but for one string that is asked for. Numbers are not
//! read. Writes nothing. Called by `crate::tasks`, for arguments and results, and by the application of the daemon that
//! hands tasks to workers, for its messages.
//!
//! Invariant: a value that is returned is whole JSON of RFC 8259, in at most [`DEPTH_MOST`] arrays and objects.
//!
//! Next: [`crate::wall_clock`]: the time in texts.

use std::fmt;

/// Arrays and objects in each other at most. Python's own reader ends at some thousand; nobody nests arguments so.
pub const DEPTH_MOST: usize = 128;

/// A text that is not JSON, and where that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// How many bytes stand before.
    pub at: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON at byte {}", self.at)
    }
}

impl std::error::Error for JsonError {}

/// Which kind a value is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// `null`
    Null,
    /// Another one.
    Other,
}

/// A value, as a piece of the text in which it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// The one value of which a text consists.
    ///
    /// # Errors
    ///
    /// If it is not JSON.
    pub fn parse(text: &'a str) -> Result<Value<'a>, JsonError> {
        let mut scanner = Scanner { text, at: 0 };
        let value = scanner.value()?;
        scanner.space();
        if scanner.at < text.len() { Err(scanner.error()) } else { Ok(value) }
    }

    /// As it stands in the text.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Of which kind it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'n') => Kind::Null,
            _ => Kind::Other,
        }
    }

    /// The members of an object, in their order, each with its name as it reads; nothing for another value.
    pub fn members(self) -> impl Iterator<Item = (String, Value<'a>)> {
        let mut scanner = Scanner { text: self.0, at: usize::from(self.kind() == Kind::Object) };
        let is_object = self.kind() == Kind::Object;
        std::iter::from_fn(move || {
            if !is_object {
                return None;
            }
            scanner.skip(b',');
            let name = scanner.value().ok()?.string()?;
            scanner.skip(b':');
            Some((name, scanner.value().ok()?))
        })
    }

    /// The last member of this name: of several that is the one that Python takes.
    #[must_use]
    pub fn member(self, name: &str) -> Option<Value<'a>> {
        self.members().filter(|(other, _)| other == name).last().map(|(_, value)| value)
    }

    /// The elements of an array, in their order; nothing for another value.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let is_array = self.kind() == Kind::Array;
        let mut scanner = Scanner { text: self.0, at: usize::from(is_array) };
        std::iter::from_fn(move || {
            if !is_array {
                return None;
            }
            scanner.skip(b',');
            scanner.value().ok()
        })
    }

    /// What a string says; `None` for another value. Half of a pair of surrogates reads as U+FFFD.
    #[must_use]
    pub fn string(self) -> Option<String> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        let mut said = String::with_capacity(inner.len());
        let mut rest = inner;
        while let Some(at) = rest.find('\\') {
            said.push_str(&rest[..at]);
            let escape = *rest.as_bytes().get(at + 1)?;
            rest = &rest[at + 2..];
            said.push(match escape {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let (c, taken) = unicode(rest);
                    rest = &rest[taken..];
                    c
                }
                other => char::from(other),
            });
        }
        said.push_str(rest);
        Some(said)
    }
}

/// The character behind `\u`, and of how many bytes it consists.
fn unicode(rest: &str) -> (char, usize) {
    let unit = |from: usize| {
        let digits = rest.get(from..from + 4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, rest.len().min(4)) };
    let second = if rest[4..].starts_with("\\u") { unit(6) } else { None };
    match (char::from_u32(first.into()), second) {
        (Some(c), _) => (c, 4),
        (None, Some(second)) => match char::decode_utf16([first, second]).next() {
            Some(Ok(c)) => (c, 10),
            _ => (char::REPLACEMENT_CHARACTER, 4),
        },
        (None, None) => (char::REPLACEMENT_CHARACTER, 4),
    }
}

/// Goes through a text from the left to the right, once.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// What stands around the place where the scanner is, the innermost last.
struct Around {
    /// A bit for each: whether it is an object.
    is_object: u128,
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn error(&self) -> JsonError {
        JsonError { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Passes over this byte, and the space around it, if it is there; whether it is.
    fn skip(&mut self, byte: u8) -> bool {
        self.space();
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        self.space();
        is_there
    }

    /// Passes over a value. No function calls itself for what stands inside: a peer decides how deep that is.
    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.space();
        let (begin, mut around) = (self.at, Around { is_object: 0, depth: 0 });
        loop {
            let has_begun = self.begin(&mut around)?;
            if !has_begun {
                self.end(&mut around)?;
            }
            if around.depth == 0 {
                return Ok(Value(&self.text[begin..self.at]));
            }
            // A member's name stands before its value.
            if around.is_object & 1 == 1 {
                self.space();
                self.string()?;
                if !self.skip(b':') {
                    return Err(self.error());
                }
            }
            self.space();
        }
    }

    /// A value begins here: whether it has something inside.
    fn begin(&mut self, around: &mut Around) -> Result<bool, JsonError> {
        match self.peek() {
            Some(open @ (b'{' | b'[')) => {
                if around.depth == DEPTH_MOST {
                    return Err(self.error());
                }
                self.at += 1;
                self.space();
                let close = if open == b'{' { b'}' } else { b']' };
                if self.peek() == Some(close) {
                    self.at += 1;
                    return Ok(false);
                }
                around.is_object = around.is_object << 1 | u128::from(open == b'{');
                around.depth += 1;
                return Ok(true);
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        }
        Ok(false)
    }

    /// A value has ended: goes on to the next one, or out of all that end with it.
    fn end(&mut self, around: &mut Around) -> Result<(), JsonError> {
        while around.depth > 0 {
            self.space();
            match (self.peek(), around.is_object & 1 == 1) {
                (Some(b','), _) => {
                    self.at += 1;
                    return Ok(());
                }
                (Some(b'}'), true) | (Some(b']'), false) => self.at += 1,
                _ => return Err(self.error()),
            }
            around.is_object >>= 1;
            around.depth -= 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.error());
        }
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                None | Some(..=0x1f) => return Err(self.error()),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.error());
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.error()),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == begin { Err(self.error()) } else { Ok(()) }
    }

    /// Not NaN and Infinity, which Python writes: they are not JSON, and a browser does not read them.
    fn word(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        for word in ["null", "true", "false"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        Err(self.error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_is_taken_and_what_is_not_is_refused_where_it_shows() {
        for text in [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "12.5e+3",
            "1E9",
            "\"\"",
            "\"a\\u00fc\\n\\\"\"",
            "[]",
            "[ ]",
            "{}",
            "{ }",
            "[1, [2, {\"a\": [3]}], \"x\"]",
            "{\"a\": {}, \"b\" : [ ] }",
            "\t[\n1\r,\n2 ] ",
            "\"ü𝄞\"",
        ] {
            assert!(Value::parse(text).is_ok(), "{text}: {:?}", Value::parse(text));
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
        for (text, at) in [
            ("", 0),
            (" ", 1),
            ("nul", 0),
            ("NaN", 0),
            ("[Infinity]", 1),
            ("-Infinity", 1),
            ("01", 1),
            ("1.", 2),
            ("1e", 2),
            ("+1", 0),
            (".5", 0),
            ("\"", 1),
            ("\"\n\"", 1),
            ("\"\\x\"", 2),
            ("\"\\u12g4\"", 5),
            ("[", 1),
            ("[1", 2),
            ("[1,]", 3),
            ("[,1]", 1),
            ("[1 2]", 3),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("[1}", 2),
            ("{\"a\":1]", 6),
            ("1 2", 2),
            ("]", 0),
            ("[]]", 2),
            ("{,}", 1),
            ("'a'", 0),
        ] {
            assert_eq!(Value::parse(text), Err(JsonError { at }), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_is_as_deep_as_may_be_and_not_deeper() {
        let nested = |depth: usize, open: &str, close: &str| {
            format!("{}1{}", open.repeat(depth), close.repeat(depth))
        };
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let each = if open.len() > 5 { 2 } else { 1 };
            assert!(Value::parse(&nested(DEPTH_MOST / each, open, close)).is_ok(), "{open}");
            assert!(Value::parse(&nested(DEPTH_MOST / each + 1, open, close)).is_err(), "{open}");
        }
        // However deep it is, nothing overflows.
        assert!(Value::parse(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn members_and_elements_are_pieces_of_the_text() {
        let text = " {\"a\" : [1, {\"b\":2}], \"c\\u0064\":\"x\\ty\" , \"a\": null} ";
        let value = Value::parse(text).unwrap();
        let members: Vec<_> = value.members().map(|(name, value)| (name, value.text())).collect();
        let expected = [("a", "[1, {\"b\":2}]"), ("cd", "\"x\\ty\""), ("a", "null")]
            .map(|(n, v)| (n.to_owned(), v));
        assert_eq!(members, expected);
        assert_eq!(value.member("a").unwrap().kind(), Kind::Null, "the last one");
        assert_eq!(value.member("cd").unwrap().string().unwrap(), "x\ty");
        assert_eq!(value.member("x"), None);
        // The space behind a value is no part of it.
        for text in ["[ ]", "{ }", "[1 ]", "1", "\"\""] {
            assert_eq!(Value::parse(&format!(" {text} \n")).unwrap().text(), text);
        }
        let list = Value::parse("[1 , \"a]\", [2,3], {}]").unwrap();
        let elements: Vec<_> = list.elements().map(Value::text).collect();
        assert_eq!(elements, ["1", "\"a]\"", "[2,3]", "{}"]);
        for other in ["1", "\"{}\"", "[]", "{}", "null"] {
            let value = Value::parse(other).unwrap();
            assert_eq!((value.members().count(), value.elements().count()), (0, 0), "{other}");
        }
    }

    #[test]
    fn a_string_reads_as_python_writes_it() {
        for (json, said) in [
            (r#""no ü""#, "no ü"),
            (r#""no \u00fc \"x\" \\ \/""#, "no ü \"x\" \\ /"),
            (r#""\ud834\udd1e!""#, "𝄞!"),
            (r#""\ud834""#, "\u{fffd}"),
            (r#""\ud834x\udd1e""#, "\u{fffd}x\u{fffd}"),
            (r#""\ud834\u0041""#, "\u{fffd}A"),
            (r#""\b\f\n\r\t""#, "\u{8}\u{c}\n\r\t"),
        ] {
            assert_eq!(Value::parse(json).unwrap().string().unwrap(), said, "{json}");
        }
        assert_eq!(Value::parse("1").unwrap().string(), None);
    }
}

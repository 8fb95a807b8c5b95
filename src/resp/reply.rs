//! What a server says: a reply, and the kinds of its errors.
//!
//! Values only; `decoder` makes them. An error's kind is the first word of its text, as every server writes it: what
//! the callers decide by. Its text is for people, and is cleaned for a line of the log.
//!
//! Invariant: the text of an error has no control characters.
//!
//! Next: `decoder`: bytes, cut anywhere.

use std::fmt;

/// What a server answers to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A word: OK, say.
    Simple(Vec<u8>),
    /// It has not done it, and says why.
    Error(ServerError),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// There is nothing. A missing array is the same.
    Null,
    /// A string that was passed over, because it has more bytes than are kept: so many.
    TooLong(usize),
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// The bytes of a word or a string.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Simple(bytes) | Reply::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Reply::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements.
    #[must_use]
    pub fn array(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The error, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<&ServerError> {
        match self {
            Reply::Error(error) => Some(error),
            _ => None,
        }
    }

    /// Whether it is an error of this kind.
    #[must_use]
    pub fn is_error(&self, kind: ErrorKind) -> bool {
        self.error().is_some_and(|error| error.kind == kind)
    }
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// NOSCRIPT: the server does not know the script; it has not been run.
    NoScript,
    /// READONLY: this server is a replica.
    ReadOnly,
    /// OOM: its memory is full, and it drops nothing.
    OutOfMemory,
    /// WRONGPASS or NOAUTH: the password is wrong, or there is none.
    NotAuthenticated,
    /// NOPERM: the user may not do this.
    NotPermitted,
    /// LOADING: it is reading its data after a start.
    Loading,
    /// MASTERDOWN: a replica that has lost its primary, and serves nothing without it.
    MasterDown,
    /// NOREPLICAS: fewer replicas follow it than its settings want.
    NoReplicas,
    /// BUSY: a script has been running for too long.
    Busy,
    /// MISCONF: it cannot write its own files, and takes no writes.
    NotPersisting,
    /// Another one.
    Other,
}

impl ErrorKind {
    fn of_word(word: &[u8]) -> ErrorKind {
        match word {
            b"NOSCRIPT" => ErrorKind::NoScript,
            b"READONLY" => ErrorKind::ReadOnly,
            b"OOM" => ErrorKind::OutOfMemory,
            b"WRONGPASS" | b"NOAUTH" => ErrorKind::NotAuthenticated,
            b"NOPERM" => ErrorKind::NotPermitted,
            b"LOADING" => ErrorKind::Loading,
            b"MASTERDOWN" => ErrorKind::MasterDown,
            b"NOREPLICAS" => ErrorKind::NoReplicas,
            b"BUSY" => ErrorKind::Busy,
            b"MISCONF" => ErrorKind::NotPersisting,
            _ => ErrorKind::Other,
        }
    }
}

/// An error, as the server has told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    kind: ErrorKind,
    text: Box<str>,
}

impl ServerError {
    /// Reads the line behind the minus sign.
    #[must_use]
    pub fn from_line(line: &[u8]) -> ServerError {
        let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        ServerError { kind: ErrorKind::of_word(word), text: text.chars().map(shown).collect() }
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same up to what it quotes: servers repeat the arguments of a command that they do not know, and those of
    /// AUTH are a secret.
    #[must_use]
    pub(super) fn without_quotes(&self) -> ServerError {
        let text = self.text.split(['\'', '"', '`', ':']).next().unwrap_or_default();
        ServerError { kind: self.kind, text: text.trim_end().into() }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_of_the_kind_that_its_first_word_says() {
        for (line, kind) in [
            ("NOSCRIPT No matching script. Please use EVAL.", ErrorKind::NoScript),
            ("READONLY You can't write against a read only replica.", ErrorKind::ReadOnly),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::OutOfMemory),
            ("WRONGPASS invalid username-password pair", ErrorKind::NotAuthenticated),
            ("NOAUTH Authentication required.", ErrorKind::NotAuthenticated),
            ("NOPERM this user has no permissions", ErrorKind::NotPermitted),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Loading),
            ("MASTERDOWN Link with MASTER is down", ErrorKind::MasterDown),
            ("NOREPLICAS Not enough good replicas to write.", ErrorKind::NoReplicas),
            ("BUSY Redis is busy running a script.", ErrorKind::Busy),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::NotPersisting),
            ("OOM", ErrorKind::OutOfMemory),
            ("ERR OOM", ErrorKind::Other),
            ("oom x", ErrorKind::Other),
            ("BUSYGROUP Consumer Group name already exists", ErrorKind::Other),
            ("", ErrorKind::Other),
        ] {
            let error = ServerError::from_line(line.as_bytes());
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, line));
        }
    }

    #[test]
    fn a_text_breaks_no_line_and_need_not_be_utf8() {
        let error = ServerError::from_line(b"ERR \x1b[31m\x00\t\xff\x7f end");
        assert_eq!(error.to_string(), "ERR \u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}\u{fffd} end");
        assert!(!error.to_string().chars().any(char::is_control));
    }

    #[test]
    fn what_is_quoted_can_be_left_out() {
        for (line, shown) in [
            (
                "ERR unknown command 'AUTH', with args beginning with: 'hunter2'",
                "ERR unknown command",
            ),
            (
                "ERR unknown command `AUTH`, with args beginning with: `hunter2`,",
                "ERR unknown command",
            ),
            (
                "WRONGPASS invalid username-password pair",
                "WRONGPASS invalid username-password pair",
            ),
        ] {
            let error = ServerError::from_line(line.as_bytes());
            let left = error.without_quotes();
            assert_eq!((left.kind(), left.to_string().as_str()), (error.kind(), shown));
        }
    }
}

//! The name of a session: what it may be, what it is worth, and which reactor owns it.
//!
//! Pure, but for fresh ids, which are drawn from a generator that the caller brings. Called by the table,
//! and by the shard for each upgrade.
//!
//! Invariant: an id is a secret; no more of it than [`SessionId::prefix`] gets into a log.
//!
//! Next: [`crate::session::rate`]: how many new sessions an address may make.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;

use crate::protocol::target::{parameter, percent_decoded};

/// Longest session id, in characters.
pub const ID_MOST: usize = 128;

/// Characters of an id that may be logged, at most; and never more than half of it. An id is a secret:
/// who knows it can take the session, and who knows most of it can guess the rest.
const PREFIX: usize = 8;

/// Name of a session: 1 to 128 of the characters that RFC 3986 calls unreserved.
///
/// The 22 characters of base64url that we issue (128 random bits) are kept as 16 bytes, which
/// halves what a parked session costs; so is any other text of that form, so that the mapping
/// stays one to one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Compact([u8; 16]),
    Named(Box<str>),
}

impl Hash for Form {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(match self {
            Form::Compact(bytes) => bytes,
            Form::Named(text) => text.as_bytes(),
        });
    }
}

/// Place of a session in the table of its reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionSlot(pub(super) u32);

/// Text of a [`SessionId`], wherever it is kept.
pub struct SessionIdText<'a>(TextForm<'a>);

enum TextForm<'a> {
    Compact([u8; 22]),
    Named(&'a str),
}

impl SessionIdText<'_> {
    /// The id as it stands in a query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Base64 is ASCII, so this is never the empty text.
            TextForm::Compact(text) => std::str::from_utf8(text).unwrap_or_default(),
            TextForm::Named(text) => text,
        }
    }
}

/// A text that is no session id: it has other characters than `A–Z a–z 0–9 - . _ ~`, or more than 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSessionId;

impl SessionId {
    /// The session that a query names: its first `session_id`, unless that is empty.
    ///
    /// # Errors
    ///
    /// For a value that, percent-decoded, is no id.
    pub fn from_query(query: &str) -> Result<Option<SessionId>, BadSessionId> {
        let named = parameter(query, "session_id").filter(|value| !value.is_empty());
        let Some(value) = named else { return Ok(None) };
        let mut room = [0; ID_MOST];
        let text = decoded_into(&mut room, value).ok_or(BadSessionId)?;
        SessionId::parse(text).map(Some)
    }

    /// Reads an id.
    ///
    /// # Errors
    ///
    /// For other characters or another length.
    pub fn parse(text: &str) -> Result<SessionId, BadSessionId> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if text.is_empty() || text.len() > ID_MOST || !text.bytes().all(unreserved) {
            return Err(BadSessionId);
        }
        let mut compact = [0; 16];
        // The decoder refuses stray bits at the end, so what decodes encodes to the same text.
        let is_compact = text.len() == 22
            && data_encoding::BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut compact).is_ok();
        Ok(SessionId(if is_compact { Form::Compact(compact) } else { Form::Named(text.into()) }))
    }

    /// What it is hashed by: its bytes alone, as they are kept. A text of 16 characters may have those of
    /// another id, which is no more than a collision.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Compact(bytes) => bytes,
            Form::Named(text) => text.as_bytes(),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn text(&self) -> SessionIdText<'_> {
        SessionIdText(match &self.0 {
            Form::Compact(bytes) => {
                let mut text = [0; 22];
                data_encoding::BASE64URL_NOPAD.encode_mut(bytes, &mut text);
                TextForm::Compact(text)
            }
            Form::Named(text) => TextForm::Named(text),
        })
    }

    /// The first eight characters, or the first half of an id that is shorter than sixteen; for logs.
    #[must_use]
    pub fn prefix(&self) -> String {
        let text = self.text();
        let text = text.as_str();
        text.chars().take(PREFIX.min(text.len() / 2)).collect()
    }
}

impl fmt::Debug for SessionId {
    /// Shows no more than a log may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.prefix())
    }
}

/// Which of `workers` reactors owns the session called `id`: FNV-1a, 64 bits, modulo `workers`.
///
/// Fixed for good, so that a balancer in front, a client library and a restarted server agree.
/// A client that may choose ids can choose the reactor too; it gains a place among many, not a session.
/// (Source: <http://www.isthe.com/chongo/tech/comp/fnv/>.)
///
/// ```
/// assert_eq!(revolve::owner_of("alice", 4), 3);
/// assert_eq!(revolve::owner_of("anything", 1), 0);
/// ```
#[must_use]
pub fn owner_of(id: &str, workers: usize) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash % workers.max(1) as u64) as usize
}

/// `None` if it is not percent-encoded text, is too long for an id, or is no UTF-8.
fn decoded_into<'r>(room: &'r mut [u8; ID_MOST], value: &str) -> Option<&'r str> {
    let mut length = 0;
    for byte in percent_decoded(value) {
        *room.get_mut(length)? = byte?;
        length += 1;
    }
    std::str::from_utf8(&room[..length]).ok()
}

/// Fresh ids that a given reactor owns.
#[derive(Debug)]
pub struct IdSource {
    reactor: usize,
    workers: usize,
    random: [u8; 1024],
    used: usize,
}

impl IdSource {
    /// Ids for `reactor` of `workers`.
    #[must_use]
    pub fn new(reactor: usize, workers: usize) -> Self {
        IdSource { reactor, workers, random: [0; 1024], used: 1024 }
    }

    /// Draws until the id's owner is this reactor: `workers` draws on the average. `fill` is the
    /// system's generator, asked for 64 ids at a time.
    ///
    /// # Errors
    ///
    /// When `fill` fails.
    pub fn next(
        &mut self,
        mut fill: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<SessionId> {
        loop {
            if self.used == self.random.len() {
                fill(&mut self.random)?;
                self.used = 0;
            }
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&self.random[self.used..self.used + 16]);
            self.used += 16;
            let id = SessionId(Form::Compact(bytes));
            if owner_of(id.text().as_str(), self.workers) == self.reactor {
                return Ok(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    #[test]
    fn ids_are_what_the_query_may_carry() {
        for good in ["a", "A-z.0_~", "0123456789012345678901", &"x".repeat(128)] {
            assert_eq!(id(good).text().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "é", "a\0", &"x".repeat(129)] {
            assert_eq!(SessionId::parse(bad), Err(BadSessionId), "{bad:?}");
        }
        assert_eq!(size_of::<SessionId>(), 24);
        assert_eq!(format!("{:?}", id("0123456789abcdef")), "SessionId(01234567…)");
    }

    #[test]
    fn of_an_id_at_most_eight_characters_are_shown_and_never_more_than_half() {
        for length in 1..=ID_MOST {
            let text: String = ('a'..='z').cycle().take(length).collect();
            let shown = id(&text).prefix();
            assert!(text.starts_with(&shown));
            assert_eq!(shown.len(), 8.min(length / 2), "of {length}");
        }
    }

    #[test]
    fn the_owner_is_fixed_for_good() {
        // The test vectors of FNV-1a's authors.
        assert_eq!(owner_of("", usize::MAX), 0xcbf2_9ce4_8422_2325);
        assert_eq!(owner_of("foobar", usize::MAX), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn queries_are_read() {
        let requested = |query| SessionId::from_query(query).unwrap();
        for nobody in ["", "x=1&hello=1", "session_id", "session_id=", "session_id=&session_id=a"] {
            assert_eq!(requested(nobody), None, "{nobody}");
        }
        assert_eq!(requested("x=1&session_id=a%7eb&session_id=c"), Some(id("a~b")));
        for bad in ["a%", "a%2", "a%zz", "a%20b", "a+b", "%ff", &"%61".repeat(129)] {
            let query = format!("session_id={bad}");
            assert_eq!(SessionId::from_query(&query), Err(BadSessionId), "{bad}");
        }
        assert!(SessionId::from_query(&format!("session_id={}", "%61".repeat(128))).is_ok());
    }

    #[test]
    fn fresh_ids_belong_to_the_reactor_that_issued_them() {
        let mut byte = 0u8;
        let mut fill = |room: &mut [u8]| {
            room.fill_with(|| {
                byte = byte.wrapping_mul(13).wrapping_add(7);
                byte
            });
            Ok(())
        };
        for reactor in 0..5 {
            let mut source = IdSource::new(reactor, 5);
            for _ in 0..10 {
                let id = source.next(&mut fill).unwrap();
                assert_eq!(owner_of(id.text().as_str(), 5), reactor);
                assert_eq!(id.text().as_str().len(), 22);
            }
        }
        let failing = |_: &mut [u8]| Err(io::Error::other("no entropy"));
        assert!(IdSource::new(0, 1).next(failing).is_err());
    }
}

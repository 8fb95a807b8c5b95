//! A session as it is stored, what can happen to one, and the one codec of both.
//!
//! An entry is a kind and fields; a field is a tag, a length and so many bytes. A reader skips fields and kinds that it
//! does not know, so the next version can add some; what it skipped it does not write again when it compacts. Integers
//! are little-endian without their leading zero bytes. Knows neither batches nor files. Called by the batch, and by
//! whoever reads one.
//!
//! Invariant: what is decoded and encoded again are the same bytes, but for what was skipped.
//!
//! Next: `error`: what can go wrong.

use std::fmt;

use crate::session::SessionId;

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub id: SessionId,
    /// Which session of this name it is: a later one has a greater number.
    pub generation: u64,
    /// Messages that it has counted.
    pub count: u64,
    /// What the application wants to keep of its own state.
    pub state: Option<State>,
    /// Whether a connection speaks for it.
    pub presence: Presence,
}

/// An application's state, as it has written it.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// The application's own version of the bytes.
    pub version: u32,
    /// Known to the application alone.
    pub bytes: Box<[u8]>,
}

impl fmt::Debug for State {
    /// Its length: the content is the application's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State(version {}, {} bytes)", self.version, self.bytes.len())
    }
}

/// Whether a connection speaks for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// One does; so its time to live does not run, until the process ends: then it counts as left at the next start.
    Attached,
    /// None does, since then, in milliseconds of 1970.
    Left {
        /// When it was left.
        at_ms: u64,
    },
}

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is like this now. The last one of an id counts, whatever its generation.
    Save(Record),
    /// It is no more. Without effect on a later session of its name, which has a greater generation.
    Forget {
        /// Its name.
        id: SessionId,
        /// Which session of this name is meant, with those before it.
        generation: u64,
    },
}

/// An entry that was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A session is like this.
    Save(Saved<'a>),
    /// [`Change::Forget`].
    Forget {
        /// Its name.
        id: SessionId,
        /// The greatest generation that is meant.
        generation: u64,
    },
    /// A process has opened the store: who was attached before is not any more.
    Start {
        /// When, in milliseconds of 1970.
        at_ms: u64,
    },
    /// Of a later version.
    Unknown,
}

/// A [`Record`], of which the state is still where it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Saved<'a> {
    /// See [`Record`].
    pub id: SessionId,
    /// See [`Record`].
    pub generation: u64,
    /// See [`Record`].
    pub count: u64,
    /// See [`State`].
    pub state: Option<(u32, &'a [u8])>,
    /// See [`Record`].
    pub presence: Presence,
    /// In a base file: how many changes came after the one before it, in the log from which it was made.
    pub order: Option<u64>,
}

impl Saved<'_> {
    /// The record, with a state of its own.
    #[must_use]
    pub fn into_record(self) -> Record {
        let state = self.state.map(|(version, bytes)| State { version, bytes: bytes.into() });
        let Saved { id, generation, count, presence, .. } = self;
        Record { id, generation, count, state, presence }
    }
}

/// Bytes that are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

const SAVE: u8 = 1;
const FORGET: u8 = 2;
const START: u8 = 3;

const ID: u8 = 1;
const GENERATION: u8 = 2;
const COUNT: u8 = 3;
const STATE_VERSION: u8 = 4;
const STATE: u8 = 5;
const LEFT_AT: u8 = 6;
const STARTED_AT: u8 = 7;
const ORDER: u8 = 8;
/// The greatest tag that this version knows.
const LAST_TAG: u8 = ORDER;

/// Appends a change.
pub fn encode(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Save(record) => encode_save(record, None, out),
        Change::Forget { id, generation } => prefixed(out, |out| {
            out.push(FORGET);
            field(out, ID, id.text().as_str().as_bytes());
            integer(out, GENERATION, *generation);
        }),
    }
}

/// Appends a record, with its order in a base file.
pub fn encode_save(record: &Record, order: Option<u64>, out: &mut Vec<u8>) {
    prefixed(out, |out| {
        out.push(SAVE);
        field(out, ID, record.id.text().as_str().as_bytes());
        integer(out, GENERATION, record.generation);
        integer(out, COUNT, record.count);
        if let Some(state) = &record.state {
            integer(out, STATE_VERSION, u64::from(state.version));
            field(out, STATE, &state.bytes);
        }
        if let Presence::Left { at_ms } = record.presence {
            integer(out, LEFT_AT, at_ms);
        }
        if let Some(order) = order {
            integer(out, ORDER, order);
        }
    });
}

/// Appends that a process has opened the store.
pub fn encode_start(at_ms: u64, out: &mut Vec<u8>) {
    prefixed(out, |out| {
        out.push(START);
        integer(out, STARTED_AT, at_ms);
    });
}

/// Reads the first entry of `bytes` and takes it off; `None` at their end.
///
/// # Errors
///
/// For bytes that are no entry; nothing behind them can be read then.
pub fn decode<'a>(bytes: &mut &'a [u8]) -> Result<Option<Entry<'a>>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let body = take_prefixed(bytes)?;
    let (&kind, mut body) = body.split_first().ok_or(Malformed)?;
    if !(SAVE..=START).contains(&kind) {
        return Ok(Some(Entry::Unknown));
    }
    let mut fields = [None; LAST_TAG as usize + 1];
    while let Some((&tag, rest)) = body.split_first() {
        body = rest;
        let value = take_prefixed(&mut body)?;
        // Those without a place are of a later version.
        if let Some(place) = fields.get_mut(usize::from(tag))
            && place.replace(value).is_some()
        {
            return Err(Malformed);
        }
    }
    let number = |tag: u8| read_integer(fields[usize::from(tag)].ok_or(Malformed)?);
    Ok(Some(match kind {
        SAVE => Entry::Save(saved(&fields)?),
        FORGET => {
            Entry::Forget { id: read_id(fields[ID as usize])?, generation: number(GENERATION)? }
        }
        _ => Entry::Start { at_ms: number(STARTED_AT)? },
    }))
}

fn saved<'a>(fields: &[Option<&'a [u8]>; LAST_TAG as usize + 1]) -> Result<Saved<'a>, Malformed> {
    let field = |tag: u8| fields[usize::from(tag)];
    let state = match (field(STATE_VERSION), field(STATE)) {
        (None, None) => None,
        (Some(version), Some(bytes)) => {
            Some((u32::try_from(read_integer(version)?).map_err(|_| Malformed)?, bytes))
        }
        _ => return Err(Malformed),
    };
    Ok(Saved {
        id: read_id(field(ID))?,
        generation: read_integer(field(GENERATION).ok_or(Malformed)?)?,
        count: read_integer(field(COUNT).ok_or(Malformed)?)?,
        state,
        presence: match field(LEFT_AT) {
            None => Presence::Attached,
            Some(at) => Presence::Left { at_ms: read_integer(at)? },
        },
        order: field(ORDER).map(read_integer).transpose()?,
    })
}

fn read_id(field: Option<&[u8]>) -> Result<SessionId, Malformed> {
    let text = std::str::from_utf8(field.ok_or(Malformed)?).map_err(|_| Malformed)?;
    SessionId::parse(text).map_err(|_| Malformed)
}

fn read_integer(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut word = [0; 8];
    // One form for each number: no zero byte at its end.
    if bytes.last() == Some(&0) {
        return Err(Malformed);
    }
    word.get_mut(..bytes.len()).ok_or(Malformed)?.copy_from_slice(bytes);
    Ok(u64::from_le_bytes(word))
}

fn integer(out: &mut Vec<u8>, tag: u8, value: u64) {
    let significant = (u64::BITS - value.leading_zeros()).div_ceil(8) as usize;
    field(out, tag, &value.to_le_bytes()[..significant]);
}

fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    put_length(out, value.len());
    out.extend_from_slice(value);
}

/// What `write` appends, behind its length.
fn prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    write(out);
    let end = out.len();
    put_length(out, end - begin);
    let length_bytes = out.len() - end;
    out[begin..].rotate_right(length_bytes);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Takes a length, and as many bytes.
fn take_prefixed<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let mut length = 0;
    // Four groups are 256 MiB, which no batch reaches.
    for group in 0..4 {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            // One form for each length: no empty group at its end.
            if byte == 0 && group > 0 {
                return Err(Malformed);
            }
            let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
            *bytes = rest;
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record {
            id: SessionId::parse(name).unwrap(),
            generation: 0x0100,
            count: 0,
            state: Some(State { version: u32::MAX, bytes: Box::from(*b"\0state\0") }),
            presence: Presence::Left { at_ms: u64::MAX },
        }
    }

    fn encoded(change: &Change) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(change, &mut bytes);
        bytes
    }

    fn changes() -> Vec<Change> {
        let bare = Record { state: None, presence: Presence::Attached, ..record("b.-_~") };
        let compact = Record { count: u64::MAX, ..record("0123456789012345678901") };
        let large = State { version: 0, bytes: vec![7; 70_000].into() };
        vec![
            Change::Save(record("a")),
            Change::Save(bare.clone()),
            Change::Save(compact),
            Change::Save(Record { state: Some(large), ..bare }),
            Change::Forget { id: SessionId::parse(&"x".repeat(128)).unwrap(), generation: 255 },
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for change in changes() {
            let bytes = encoded(&change);
            let mut rest = &bytes[..];
            let again = match decode(&mut rest).unwrap().unwrap() {
                Entry::Save(saved) => Change::Save(saved.into_record()),
                Entry::Forget { id, generation } => Change::Forget { id, generation },
                other => panic!("{other:?}"),
            };
            assert_eq!(again, change);
            assert_eq!(decode(&mut rest), Ok(None));
        }
        let mut bytes = Vec::new();
        encode_start(1234, &mut bytes);
        encode_save(&record("a"), Some(9), &mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(decode(&mut rest), Ok(Some(Entry::Start { at_ms: 1234 })));
        let Ok(Some(Entry::Save(saved))) = decode(&mut rest) else { panic!("{rest:?}") };
        assert_eq!((saved.order, rest), (Some(9), &[][..]));
    }

    #[test]
    fn a_usual_record_is_small() {
        let usual = Record {
            id: SessionId::parse("AAECAwQFBgcICQoLDA0ODw").unwrap(),
            generation: 1,
            count: 1000,
            state: None,
            presence: Presence::Left { at_ms: 1_800_000_000_000 },
        };
        assert_eq!(encoded(&Change::Save(usual)).len(), 41);
    }

    #[test]
    fn cut_anywhere_it_is_refused() {
        for change in changes() {
            let bytes = encoded(&change);
            for length in 1..bytes.len().min(300) {
                assert_eq!(decode(&mut &bytes[..length]), Err(Malformed), "{length} of {change:?}");
            }
        }
    }

    #[test]
    fn what_is_unknown_is_skipped() {
        for change in changes() {
            let bytes = encoded(&change);
            let mut plain = &bytes[..];
            let expected = decode(&mut plain);
            let mut body = &bytes[..];
            let body = take_prefixed(&mut body).unwrap();
            let mut longer = Vec::new();
            prefixed(&mut longer, |out| {
                out.push(body[0]);
                field(out, 0, b"unknown");
                field(out, 200, &[9; 200]);
                out.extend_from_slice(&body[1..]);
                field(out, LAST_TAG + 1, b"");
            });
            assert_eq!(decode(&mut &longer[..]), expected);
        }
        let mut other = Vec::new();
        prefixed(&mut other, |out| out.extend_from_slice(&[77, ID, 255, 1, 2]));
        encode_start(5, &mut other);
        let mut rest = &other[..];
        assert_eq!(decode(&mut rest), Ok(Some(Entry::Unknown)));
        assert_eq!(decode(&mut rest), Ok(Some(Entry::Start { at_ms: 5 })));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let save = |write: fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            prefixed(&mut bytes, |out| {
                out.push(SAVE);
                field(out, ID, b"a");
                integer(out, GENERATION, 1);
                write(out);
            });
            bytes
        };
        let good = save(|out| integer(out, COUNT, 1));
        assert!(decode(&mut &good[..]).is_ok());
        for bad in [
            save(|_| {}),
            save(|out| field(out, COUNT, &[1; 9])),
            save(|out| field(out, COUNT, &[1, 0])),
            save(|out| (0..2).for_each(|_| integer(out, COUNT, 1))),
            save(|out| {
                integer(out, COUNT, 1);
                field(out, STATE, b"without a version");
            }),
            save(|out| {
                integer(out, COUNT, 1);
                integer(out, STATE_VERSION, 1 << 32);
                field(out, STATE, b"");
            }),
            // No kind; a length that does not end; one with an empty group; one that leads too far.
            vec![0],
            vec![0x80, 0x80, 0x80, 0x80, 1],
            vec![0x82, 0, START, 0],
            vec![3, START, STARTED_AT],
        ] {
            assert_eq!(decode(&mut &bad[..]), Err(Malformed), "{bad:?}");
        }
        let mut nameless = Vec::new();
        prefixed(&mut nameless, |out| {
            out.push(FORGET);
            field(out, ID, b"a b");
            integer(out, GENERATION, 1);
        });
        assert_eq!(decode(&mut &nameless[..]), Err(Malformed));
    }
}

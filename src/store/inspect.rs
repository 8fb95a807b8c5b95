//! A look at a log without owning it: what is in it, and whether it can be read.
//!
//! Changes nothing, takes no lock, and works beside a running server. What that one is just writing seems unfinished,
//! and is the end of the log then; what it is just compacting may vanish, so a look that meets something strange is
//! taken again. Called by the commands `check` and `dump`.
//!
//! Invariant: what is called damage was seen twice.
//!
//! Next: [`crate::connection`]: a transport, an endpoint, and why they rest.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use super::disk::Disk;
use super::error::{Damage, OpenError};
use super::file_store::list;
use super::live::LiveEntry;
use super::record::Presence;
use super::replay::Replay;

/// Looks that are taken at most, at a log that is never the same.
const LOOKS_MOST: usize = 10;

/// What a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The directory.
    pub path: String,
    /// Whether there is a base.
    pub has_base: bool,
    /// Segments behind it.
    pub segments: u64,
    /// Batches in all of them.
    pub batches: u64,
    /// Changes in those.
    pub changes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sessions that were not forgotten, be they expired or not.
    pub sessions: u64,
    /// Bytes behind the last batch that are not zero: it is being written, or was not written whole.
    pub unfinished_bytes: u64,
    /// What is damaged.
    pub damage: Option<Damage>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { path, segments, batches, changes, bytes, sessions, .. } = self;
        let base = if self.has_base { "a base and " } else { "" };
        write!(
            f,
            "{path}: {sessions} sessions, of {changes} changes in {batches} batches, {bytes} bytes, in \
             {base}{segments} segments; {} bytes unfinished; ",
            self.unfinished_bytes
        )?;
        match &self.damage {
            None => write!(f, "no damage"),
            Some(damage) => write!(f, "{damage}"),
        }
    }
}

/// Looks at a log.
///
/// # Errors
///
/// If it cannot be read at all. Damage is no error: it is part of what is found.
pub fn check(disk: &impl Disk) -> Result<Check, OpenError> {
    let replay = look(disk)?;
    let torn = replay.end.zip(replay.torn_end);
    Ok(Check {
        path: disk.path(""),
        has_base: replay.layout.base.is_some(),
        segments: replay.layout.segments.len() as u64,
        batches: replay.figures.batches,
        changes: replay.figures.changes,
        bytes: replay.figures.bytes,
        sessions: replay.live.len() as u64,
        unfinished_bytes: torn.map_or(0, |(end, torn_end)| torn_end - end.offset),
        damage: replay.damage,
    })
}

/// Why a log was not dumped.
#[derive(Debug)]
pub enum DumpError {
    /// It cannot be read.
    Open(OpenError),
    /// It could not be written to where it was to go.
    Output(io::Error),
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpError::Open(error) => error.fmt(f),
            DumpError::Output(error) => write!(f, "while writing the sessions: {error}"),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        DumpError::Output(error)
    }
}

/// Writes the sessions of a log, one JSON object a line, in the order of their last changes; what is damaged, if
/// anything is: then they are those that could be read. The ids are whole: who has them can take the sessions.
///
/// # Errors
///
/// If the log cannot be read at all, or the output takes no more.
pub fn dump(disk: &impl Disk, out: &mut dyn Write) -> Result<Option<Damage>, DumpError> {
    let replay = look(disk).map_err(DumpError::Open)?;
    let mut entries = replay.live.into_entries();
    entries.sort_unstable_by_key(|entry| entry.order);
    for entry in &entries {
        write_json(entry, out)?;
    }
    out.flush()?;
    Ok(replay.damage)
}

/// Ids are made of letters, digits, `-._~`, so they need no escapes.
fn write_json(entry: &LiveEntry, out: &mut dyn Write) -> io::Result<()> {
    let record = &entry.record;
    write!(
        out,
        "{{\"id\":\"{}\",\"generation\":{},\"count\":{}",
        record.id.text().as_str(),
        record.generation,
        record.count
    )?;
    if let Some(state) = &record.state {
        write!(out, ",\"state_version\":{}", state.version)?;
        match std::str::from_utf8(&state.bytes) {
            Ok(text) => {
                write!(out, ",\"state\":\"")?;
                write_escaped(text, out)?;
                write!(out, "\"")?;
            }
            Err(_) => {
                let text = data_encoding::BASE64.encode(&state.bytes);
                write!(out, ",\"state_base64\":\"{text}\"")?;
            }
        }
    }
    match record.presence {
        Presence::Attached => writeln!(out, ",\"left_at\":null}}"),
        Presence::Left { at_ms } => writeln!(out, ",\"left_at\":{at_ms}}}"),
    }
}

fn write_escaped(text: &str, out: &mut dyn Write) -> io::Result<()> {
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c))?,
            c => write!(out, "{c}")?,
        }
    }
    Ok(())
}

/// Reads a log that may be changing.
fn look(disk: &impl Disk) -> Result<Replay, OpenError> {
    let mut seen: Option<Damage> = None;
    for _ in 0..LOOKS_MOST {
        let layout = list(disk)?;
        if let (false, Some(found)) = (layout.is_a_store, &layout.foreign) {
            return Err(OpenError::NotAStore { path: disk.path(""), found: found.clone() });
        }
        match Replay::read(disk, layout) {
            // Compacted meanwhile.
            Err(OpenError::Failed(failure)) if failure.error.kind() == ErrorKind::NotFound => {}
            // A batch that was being written when it was read, and those behind it that were written since.
            Ok(replay) if replay.damage.is_some() && seen != replay.damage => {
                seen = replay.damage;
            }
            other => return other,
        }
    }
    Replay::read(disk, list(disk)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionId;
    use crate::store::live::Live;
    use crate::store::record::{Entry, Saved};

    #[test]
    fn a_session_is_one_line_of_json() {
        let line = |state, presence| {
            let mut live = Live::default();
            let id = SessionId::parse("a~b").unwrap();
            let saved = Saved { id, generation: 2, count: u64::MAX, state, presence, order: None };
            live.apply(Entry::Save(saved), |_| true);
            let mut out = Vec::new();
            write_json(&live.into_entries()[0], &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let begin = "{\"id\":\"a~b\",\"generation\":2,\"count\":18446744073709551615";
        assert_eq!(line(None, Presence::Attached), format!("{begin},\"left_at\":null}}\n"));
        let text = line(Some((1, "é\"\\\n\u{7f}".as_bytes())), Presence::Left { at_ms: 5 });
        let state = "\"state\":\"é\\\"\\\\\\u000a\\u007f\"";
        assert_eq!(text, format!("{begin},\"state_version\":1,{state},\"left_at\":5}}\n"));
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["state"], "é\"\\\n\u{7f}");
        let bytes = line(Some((0, &[0xff, 0xfe])), Presence::Attached);
        assert!(bytes.contains("\"state_base64\":\"//4=\""), "{bytes}");
    }
}

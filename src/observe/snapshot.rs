//! One connection, looked at before its visit and after it; and what the difference tells.
//!
//! Knows frames by what is left of them in the receive buffer: payloads are unmasked in place,
//! headers are not touched. Changes nothing. Called by `turn_trace`, while the level is trace.
//!
//! Invariant: what it says is made of kinds and sizes; no payload gets into a text.
//!
//! Next: `turn_trace`, which tells what was seen.

use std::fmt::{self, Write as _};
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::connection::{Connection, Rest};
use crate::protocol::endpoint::{Closing, Endpoint};
use crate::transport::{Inbound, Stream, Transport};

/// Runs of like frames that are told of one visit.
const RUNS_MAX: usize = 6;

/// What has left a connection, and what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) left: u64,
    pub(crate) backlog: usize,
    /// Of the backlog, what must not leave before its session is stored.
    pub(crate) held: usize,
    pub(crate) is_writable: bool,
    /// By TLS: then what it has to say itself leaves in writes of its own.
    pub(crate) is_encrypted: bool,
}

impl Outgoing {
    pub(crate) fn of<S: Stream>(transport: &Transport<S>) -> Outgoing {
        let (left, backlog) = (transport.left(), transport.backlog.len());
        let held = transport.backlog.held();
        let (is_writable, is_encrypted) = (transport.is_writable(), transport.tls().is_some());
        Outgoing { left, backlog, held, is_writable, is_encrypted }
    }

    /// What was written between then and now, while `discarded` bytes were thrown away. If nothing
    /// waited before and there was less to say than `cork_bytes`, that was one write and no more: a
    /// full cork is written in mid-visit.
    pub(crate) fn written_since(
        self,
        before: Outgoing,
        discarded: usize,
        cork_bytes: usize,
    ) -> Option<String> {
        let written = self.written(before, discarded, cork_bytes);
        if self.held == 0 || self.held == before.held {
            return written;
        }
        let held = format!("{} held", Bytes(self.held as u64));
        Some(written.map_or(held.clone(), |written| format!("{written}, {held}")))
    }

    fn written(self, before: Outgoing, discarded: usize, cork_bytes: usize) -> Option<String> {
        let left = self.left.saturating_sub(before.left);
        let backlog = self.backlog - self.held;
        // All that there was to write, then and since.
        let offered = left + backlog as u64 + discarded as u64;
        let is_one_write = before.backlog == 0 && offered < cork_bytes as u64 && !self.is_encrypted;
        let how = if is_one_write { "in one write" } else { "written" };
        let waiting = Bytes(backlog as u64);
        match offered {
            0 => None,
            // It is told as discarded.
            _ if left == 0 && backlog == 0 && before.backlog > 0 => None,
            _ if backlog == 0 => Some(format!("{} {how}", Bytes(left))),
            // A share is used up, or a signal came in between.
            _ if self.is_writable => Some(format!("{} {how}, {waiting} wait", Bytes(left))),
            _ => Some(format!("{} {how}, the socket is full, {waiting} wait", Bytes(left))),
        }
    }
}

/// What can be seen of a connection from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    rest: Rest,
    inbound: Inbound,
    pub(crate) outgoing: Outgoing,
    is_closing: bool,
    pub(crate) is_lingering: bool,
    tail: usize,
    bytes_in: u64,
    /// Of its WebSocket, while it is open.
    pub(crate) open: Option<OpenSnapshot>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenSnapshot {
    /// Messages received, and bytes of frames taken.
    pub(crate) messages: u64,
    pub(crate) taken: u64,
    /// Bytes that the payload of the frame under way still wants.
    pub(crate) owed: u64,
    /// Messages that the session has counted.
    pub(crate) count: u64,
}

impl Snapshot {
    /// `bytes_in` is what the reactor has read: over a visit, from the visited alone.
    pub(crate) fn of<S: Stream>(connection: &Connection<S>, bytes_in: u64) -> Snapshot {
        Snapshot {
            rest: connection.rest,
            inbound: connection.transport.inbound(),
            outgoing: Outgoing::of(&connection.transport),
            is_closing: matches!(connection.endpoint, Endpoint::Closing(_)),
            is_lingering: matches!(
                connection.endpoint,
                Endpoint::Closing(Closing::Lingering { .. })
            ),
            tail: connection.tail_bytes(),
            bytes_in,
            open: None,
        }
    }

    /// Whether it rests as it did before, and has not ended.
    pub(crate) fn rests_as(&self, before: &Snapshot) -> bool {
        self.rest == before.rest && self.rest != Rest::Ended
    }

    pub(crate) fn why_visited(&self) -> &'static str {
        let Outgoing { is_writable, backlog, .. } = self.outgoing;
        match (self.rest, self.inbound) {
            (Rest::Spent, _) => "goes on",
            (Rest::Throttled, _) if is_writable => "writable again",
            (_, Inbound::Final) => "readable to its end",
            (_, Inbound::Readable | Inbound::Urgent) => "readable",
            _ if is_writable && backlog > 0 => "writable",
            _ => "spurious event",
        }
    }

    pub(crate) fn read_since(&self, before: &Snapshot) -> Option<String> {
        let was_readable =
            matches!(before.inbound, Inbound::Readable | Inbound::Urgent | Inbound::Final);
        match self.bytes_in - before.bytes_in {
            0 if self.inbound == Inbound::Ended && before.inbound != Inbound::Ended => {
                Some("end of stream".to_owned())
            }
            0 if self.inbound == Inbound::Exhausted && was_readable => {
                Some("nothing to read".to_owned())
            }
            0 => None,
            read => Some(format!("{} read", Bytes(read))),
        }
    }

    pub(crate) fn why_it_rests(&self) -> String {
        let rest = match self.rest {
            Rest::Blocked => "blocked",
            Rest::Spent => "spent: goes on next turn",
            Rest::Throttled => "throttled: not read until its backlog shrinks",
            Rest::Parked => "parked: not read until a job of its is done",
            Rest::Committing => "committing: not read until its session is stored",
            Rest::Waiting => "waiting: not read until what waits is delivered",
            Rest::Ended => "ended",
        };
        match self.tail as u64 {
            0 => rest.to_owned(),
            tail => format!("{} kept; {rest}", Bytes(tail)),
        }
    }
}

impl Snapshot {
    /// The frames that were taken since, read off the receive buffer, and how far the session has
    /// counted with them. `taken_at_close` is what a WebSocket that closed meanwhile had taken, and
    /// `past` how much of a payload was read past the buffer.
    pub(crate) fn frames_since(
        &self,
        before: &Snapshot,
        taken_at_close: Option<u64>,
        past: u64,
        receive_buffer: &[u8],
    ) -> Option<String> {
        let filled = before.tail as u64 + (self.bytes_in - before.bytes_in).checked_sub(past)?;
        let consumed = receive_buffer.get(..filled.saturating_sub(self.tail as u64) as usize)?;
        let frames = match (before.open, self.open) {
            (Some(before), after) => {
                let taken = after.map(|after| after.taken).or(taken_at_close)?;
                consumed.get(..taken.checked_sub(before.taken)?.checked_sub(past)? as usize)?
            }
            // What stands before the first frame is the request.
            (None, Some(after)) => {
                consumed.get(consumed.len().checked_sub(after.taken as usize)?..)?
            }
            // Between our Close and the peer's, or past both.
            (None, None) if before.is_closing && !consumed.is_empty() => {
                return Some("thrown away".to_owned());
            }
            (None, None) => return None,
        };
        let mut text = Runs::of(past, frames, before.open.map_or(0, |open| open.owed))?;
        let messages_before = before.open.map_or(0, |open| open.messages);
        if let Some(after) = self.open
            && after.messages > messages_before
            && after.count > 0
        {
            let _ = write!(text, " → count {}", after.count);
        }
        Some(text)
    }
}

/// Like frames in a row.
struct Runs {
    runs: Vec<(&'static str, u64, u64)>,
    untold: u64,
}

impl Runs {
    /// What stands in `taken`, behind the `owed` bytes that end a frame begun earlier and of which
    /// so many went `past` it; `None` if nothing does. Every header in it has passed the checks, and
    /// none is cut.
    fn of(past: u64, taken: &[u8], owed: u64) -> Option<String> {
        let mut runs = Runs { runs: Vec::new(), untold: 0 };
        let owed_here = owed.saturating_sub(past).min(taken.len() as u64);
        if past + owed_here > 0 {
            runs.add("more of a frame", past + owed_here);
        }
        let mut at = owed_here as usize;
        while at < taken.len() {
            let mut cursor = Cursor::new(&taken[at..]);
            let Ok(Some((header, length))) = FrameHeader::parse(&mut cursor) else { break };
            at += cursor.position() as usize;
            let here = length.min((taken.len() - at) as u64);
            let name = if here < length { "beginning of a frame" } else { frame_name(&header) };
            runs.add(name, here);
            at += here as usize;
        }
        (!runs.runs.is_empty()).then(|| runs.to_string())
    }

    fn add(&mut self, name: &'static str, bytes: u64) {
        let is_full = self.runs.len() == RUNS_MAX;
        match self.runs.last_mut() {
            Some((last, count, sum)) if *last == name && self.untold == 0 => {
                *count += 1;
                *sum += bytes;
            }
            _ if is_full => self.untold += 1,
            _ => self.runs.push((name, 1, bytes)),
        }
    }
}

fn frame_name(header: &FrameHeader) -> &'static str {
    // RFC 7692 6: set on the first frame of a message that is compressed, and on no other.
    if header.rsv1 {
        return match (header.opcode, header.is_final) {
            (OpCode::Data(Data::Text), true) => "compressed text",
            (OpCode::Data(Data::Text), false) => "compressed text fragment",
            (_, true) => "compressed binary",
            (_, false) => "compressed binary fragment",
        };
    }
    match (header.opcode, header.is_final) {
        (OpCode::Data(Data::Text), true) => "text",
        (OpCode::Data(Data::Text), false) => "text fragment",
        (OpCode::Data(Data::Binary), true) => "binary",
        (OpCode::Data(Data::Binary), false) => "binary fragment",
        (OpCode::Data(_), true) => "last fragment",
        (OpCode::Data(_), false) => "fragment",
        (OpCode::Control(Control::Ping), _) => "ping",
        (OpCode::Control(Control::Pong), _) => "pong",
        (OpCode::Control(_), _) => "close",
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mark = "";
        for &(name, count, bytes) in &self.runs {
            match count {
                1 => write!(f, "{mark}{name} {}", Bytes(bytes))?,
                _ => write!(f, "{mark}{count} × {name}, {} in all", Bytes(bytes))?,
            }
            mark = ", ";
        }
        match self.untold {
            0 => Ok(()),
            untold => write!(f, ", {untold} more"),
        }
    }
}

/// `14 B`, `70.1 kB`, `16.8 MB`.
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..10_000 => write!(f, "{bytes} B"),
            bytes @ ..10_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes => write!(f, "{:.1} MB", bytes as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with this first byte and payload length.
    fn frame(first: u8, length: u16) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 126];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes.resize(8 + usize::from(length), 0x81);
        bytes
    }

    fn told(frames: &[Vec<u8>], owed: u64) -> String {
        Runs::of(0, &frames.concat(), owed).unwrap_or_default()
    }

    #[test]
    fn frames_are_told_by_kind_and_size() {
        for (first, name) in [
            (0x81, "text"),
            (0x01, "text fragment"),
            (0x82, "binary"),
            (0x02, "binary fragment"),
            (0x00, "fragment"),
            (0x80, "last fragment"),
            (0x88, "close"),
            (0x89, "ping"),
            (0x8a, "pong"),
            (0xc1, "compressed text"),
            (0x41, "compressed text fragment"),
            (0xc2, "compressed binary"),
            (0x42, "compressed binary fragment"),
        ] {
            assert_eq!(told(&[frame(first, 5)], 0), format!("{name} 5 B"));
        }
        assert_eq!(told(&[], 0), "");
    }

    #[test]
    fn like_frames_are_told_together_and_a_crowd_by_number() {
        let texts = [frame(0x81, 5), frame(0x81, 7), frame(0x89, 0), frame(0x81, 1)];
        assert_eq!(told(&texts, 0), "2 × text, 12 B in all, ping 0 B, text 1 B");
        let crowd: Vec<Vec<u8>> =
            (0..10).map(|at| frame(if at % 2 == 0 { 0x81 } else { 0x82 }, 1)).collect();
        let told = told(&crowd, 0);
        assert!(told.ends_with("text 1 B, binary 1 B, 4 more"), "{told}");
    }

    /// Payload looks like frame headers here: it must not be taken for some.
    #[test]
    fn a_frame_in_pieces_is_told_piece_by_piece() {
        let whole = frame(0x82, 1000);
        assert_eq!(told(&[whole[..500].to_vec()], 0), "beginning of a frame 492 B");
        assert_eq!(told(&[whole[500..700].to_vec()], 508), "more of a frame 200 B");
        let rest = [whole[700..].to_vec(), frame(0x81, 2)];
        assert_eq!(told(&rest, 308), "more of a frame 308 B, text 2 B");
        // The same when 200 of them, or all, were read past the buffer.
        let past = |past, rest: &[Vec<u8>]| Runs::of(past, &rest.concat(), 308).unwrap();
        let cut = [whole[900..].to_vec(), frame(0x81, 2)];
        assert_eq!(past(200, &cut), "more of a frame 308 B, text 2 B");
        assert_eq!(past(308, &cut[1..]), "more of a frame 308 B, text 2 B");
        assert_eq!(past(300, &[]), "more of a frame 300 B");
    }

    const IDLE: Outgoing =
        Outgoing { left: 100, backlog: 0, held: 0, is_writable: true, is_encrypted: false };

    fn resting(rest: Rest) -> Snapshot {
        Snapshot {
            rest,
            inbound: Inbound::Exhausted,
            outgoing: IDLE,
            is_closing: false,
            is_lingering: false,
            tail: 0,
            bytes_in: 0,
            open: None,
        }
    }

    #[test]
    fn one_write_is_called_so_only_where_it_was_one() {
        let before = IDLE;
        let told = |left, backlog, before: Outgoing| {
            let left = before.left + left;
            let after = Outgoing { left, backlog, is_writable: backlog == 0, ..IDLE };
            after.written_since(before, 0, 1000)
        };
        assert_eq!(told(0, 0, before), None);
        assert_eq!(told(14, 0, before).unwrap(), "14 B in one write");
        assert_eq!(told(9, 5, before).unwrap(), "9 B in one write, the socket is full, 5 B wait");
        assert_eq!(told(1000, 0, before).unwrap(), "1000 B written");
        let before = Outgoing { backlog: 30, ..before };
        assert_eq!(told(44, 0, before).unwrap(), "44 B written");
        assert_eq!(told(20, 10, before).unwrap(), "20 B written, the socket is full, 10 B wait");
    }

    #[test]
    fn what_was_discarded_was_not_written() {
        let before = Outgoing { backlog: 66_900, ..IDLE };
        let told = |left, discarded, before: Outgoing| {
            let left = before.left + left;
            let after = Outgoing { left, ..IDLE };
            after.written_since(before, discarded, 1000)
        };
        assert_eq!(told(0, 66_900, before), None);
        assert_eq!(told(900, 66_000, before).unwrap(), "900 B written");
        // A share of a reply left, and then the connection was cut.
        assert_eq!(told(9, 5, IDLE).unwrap(), "9 B in one write");
        assert_eq!(told(0, 5, IDLE).unwrap(), "0 B in one write");
    }

    #[test]
    fn why_it_is_visited_and_why_it_rests() {
        let blocked = resting(Rest::Blocked);
        for (snapshot, why) in [
            (blocked, "spurious event"),
            (Snapshot { inbound: Inbound::Readable, ..blocked }, "readable"),
            (Snapshot { inbound: Inbound::Final, ..blocked }, "readable to its end"),
            (Snapshot { outgoing: Outgoing { backlog: 1, ..IDLE }, ..blocked }, "writable"),
            (resting(Rest::Spent), "goes on"),
            (resting(Rest::Throttled), "writable again"),
        ] {
            assert_eq!(snapshot.why_visited(), why, "{snapshot:?}");
        }
        assert_eq!(Snapshot { tail: 3, ..blocked }.why_it_rests(), "3 B kept; blocked");
        assert!(resting(Rest::Throttled).why_it_rests().starts_with("throttled"));
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(9999, "9999 B"), (10_000, "10.0 kB"), (65_536, "65.5 kB"), (16 << 20, "16.8 MB")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}

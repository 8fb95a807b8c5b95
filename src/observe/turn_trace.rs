//! A turn, told: the line or the handful of lines that `--log-level trace` has for each.
//!
//! What is rare (an accept, a takeover, a close, an alarm) is noted by the step of the turn in which it
//! happens. What happens for every message is not noted. A visit is described from outside instead: a
//! [`Snapshot`] from before it is compared with one from after it, and the receive buffer is walked over
//! once more, where the headers of the frames still stand. So the path of a message has no hook. Without
//! a trace a turn costs one look at the log's level, and a visit two looks at an empty option. Decides
//! nothing, and the shard never reads it. Called by `shard/observing.rs`, and by the steps.
//!
//! Invariant: a trace is made of kinds, sizes and words of our own, never of what a peer wrote, and
//! has at most [`LINES_MAX`] lines besides its heading and the count of the rest.
//!
//! Next: `slow_turn`: which callback held the reactor.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::snapshot::{Bytes, Outgoing, Snapshot};
use crate::application::{CloseReason, Side};
use crate::token::{LocalId, Peer};

/// The target of the lines.
pub(crate) const TARGET: &str = "revolve::turn";

/// Lines told of one turn: a handful to read. Of the others the number is told.
const LINES_MAX: usize = 16;

/// What has happened so far in this turn.
#[derive(Debug, Default)]
pub(crate) struct TurnTrace {
    lines: Vec<TraceLine>,
    /// What found no room among the lines.
    untold: usize,
    /// Connections visited.
    ready: usize,
    woken: Woken,
    visit: Option<Visit>,
}

/// Why the poll returned, besides for connections; as far as that is known.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Woken {
    pub(crate) by_listener: bool,
    pub(crate) by_mail: bool,
    /// The turn before left something to do, so the poll did not sleep.
    pub(crate) at_once: bool,
}

/// Why a connection is being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is ready; its state says for what.
    Ready,
    /// Its alarm went off.
    Alarm,
    /// A callback that no message causes.
    Call(&'static str),
    /// What was told of it last goes on.
    More,
}

/// All that is told of one connection at one time, or one thing that is about none.
#[derive(Debug)]
struct TraceLine {
    about: Option<LocalId>,
    /// Why it is its turn.
    head: String,
    facts: Vec<String>,
}

/// The visit under way.
#[derive(Debug)]
struct Visit {
    line: usize,
    id: LocalId,
    before: Snapshot,
    /// Bytes of frames that its WebSocket had taken when it closed in mid-visit.
    taken_at_close: Option<u64>,
    why: Why,
    /// Bytes of a payload that were read past the receive buffer.
    past: u64,
    /// Bytes of its backlog that were thrown away.
    discarded: usize,
}

impl TurnTrace {
    /// An empty trace of a turn that `woken` woke.
    #[must_use]
    pub(crate) fn new(woken: Woken) -> Self {
        TurnTrace { woken, ..TurnTrace::default() }
    }
}

// ---- what the shard has to tell ----

impl TurnTrace {
    pub(crate) fn reactor_timer(&mut self) {
        self.note(format_args!("a timer of the reactor's"));
    }

    /// So much mail waits for a full mailbox.
    pub(crate) fn waiting_mail(&mut self, mails: usize) {
        if mails > 0 {
            self.note(format_args!("mail that waits for a full mailbox: {mails}"));
        }
    }

    pub(crate) fn off_loaded(&mut self, jobs: usize) {
        self.note(format_args!("off-loaded jobs: {jobs}"));
    }

    pub(crate) fn enqueued(&mut self, tasks: usize) {
        self.note(format_args!("tasks for workers: {tasks}"));
    }

    pub(crate) fn batch_sent(&mut self, number: u64, claims: usize) {
        self.note(format_args!("changed sessions sent to the store: commit {number}"));
        if claims > 0 {
            self.note(format_args!("sessions claimed with it: {claims}"));
        }
    }

    pub(crate) fn batch_stored(&mut self, number: u64) {
        self.note(format_args!("committed {number}"));
    }

    pub(crate) fn batch_is_lost(&mut self, number: u64) {
        self.note(format_args!("the store has not answered: commit {number}"));
    }

    /// Its session is to be claimed.
    pub(crate) fn claims(&mut self, id: LocalId) {
        self.fact(id, format_args!("parked: its session is claimed"));
    }

    /// What it is to be told waits for this batch.
    pub(crate) fn held_for(&mut self, id: LocalId, number: u64) {
        self.fact(id, format_args!("held for commit {number}"));
    }

    pub(crate) fn gave_up(&mut self, jobs: usize) {
        self.note(format_args!("off-loaded jobs that nobody waits for any more: {jobs}"));
    }

    pub(crate) fn expired(&mut self, sessions: u64) {
        if sessions > 0 {
            self.note(format_args!("sessions expired: {sessions}"));
        }
    }

    pub(crate) fn restored(&mut self, sessions: usize) {
        if sessions > 0 {
            self.note(format_args!("sessions from the store: {sessions}"));
        }
    }

    pub(crate) fn paused(&mut self) {
        self.note(format_args!("no descriptor left: accepting pauses"));
    }

    pub(crate) fn dropped(&mut self, peer: Peer, status: &str) {
        self.note(format_args!("{peer} is closed, too many sockets: {status}"));
    }

    pub(crate) fn spread(&mut self, reactor: usize) {
        self.note(format_args!("accepted a connection from unix:, for reactor {reactor}"));
    }

    pub(crate) fn draining(&mut self) {
        self.note(format_args!("told to go away: the drain begins"));
    }

    pub(crate) fn swept(&mut self, from: usize, to: usize) {
        if from < to {
            self.note(format_args!("goodbye (1001) to who is in slots {from} to {}", to - 1));
        }
    }

    pub(crate) fn broadcast(&mut self, bytes: usize) {
        self.note(format_args!("a broadcast of {} is queued", Bytes(bytes as u64)));
    }

    /// A slice of a broadcast was written to these slots.
    pub(crate) fn fanned_out(
        &mut self,
        bytes: usize,
        to: Range<usize>,
        slots: usize,
        written: u64,
    ) {
        if let Some(last) = to.clone().last() {
            let (bytes, written, from) = (Bytes(bytes as u64), Bytes(written), to.start);
            self.note(format_args!(
                "a broadcast of {bytes} to slots {from} to {last} of {slots}: {written} written"
            ));
        }
    }

    /// A connection came: from the listener, or from another reactor with what that had read.
    pub(crate) fn adopted(&mut self, id: LocalId, peer: Peer, received: usize) {
        match received as u64 {
            0 => self.head(id, format_args!("accepted from {peer}")),
            bytes => self.head(id, format_args!("handed to us by mail with {}", Bytes(bytes))),
        }
    }

    pub(crate) fn answered(&mut self, id: LocalId) {
        self.fact(id, format_args!("a request answered"));
    }

    pub(crate) fn deferred(&mut self, id: LocalId) {
        self.fact(id, format_args!("the application answers later"));
    }

    pub(crate) fn refused(&mut self, id: LocalId, status: &str) {
        self.fact(id, format_args!("refused: {status}"));
    }

    pub(crate) fn refused_by_application(&mut self, id: LocalId, status: u16) {
        self.fact(id, format_args!("refused by the application: {status}"));
    }

    pub(crate) fn handed_over(&mut self, id: LocalId, owner: usize, received: usize) {
        let received = Bytes(received as u64);
        self.fact(id, format_args!("handed over to reactor {owner}, with {received}"));
    }

    pub(crate) fn taken_over(&mut self, id: LocalId, older: LocalId) {
        self.fact(id, format_args!("takes its session over from #{older}"));
    }

    pub(crate) fn opened(&mut self, id: LocalId, resumed: bool, count: u64) {
        let session = if resumed { "resumed" } else { "new" };
        self.fact(id, format_args!("upgrade: {session} session, count {count}"));
    }

    pub(crate) fn watches(&mut self, id: LocalId) {
        self.fact(id, format_args!("upgrade: watches the reactors"));
    }

    pub(crate) fn looks(&mut self) {
        self.note(format_args!("a look at all reactors, for who watches"));
    }

    pub(crate) fn drew(&mut self, from: usize, to: usize, slots: usize) {
        if from < to {
            self.note(format_args!("a map of slots {from} to {} of {slots}", to - 1));
        }
    }

    pub(crate) fn read_past(&mut self, bytes: usize) {
        if let Some(visit) = &mut self.visit {
            visit.past = bytes as u64;
        }
    }

    pub(crate) fn closed(&mut self, id: LocalId, reason: CloseReason, taken: u64) {
        if let Some(visit) = self.visit.as_mut().filter(|visit| visit.id == id) {
            visit.taken_at_close = Some(taken);
        }
        let side = match reason.side {
            Side::Client => "the peer",
            Side::Server => "us",
        };
        self.fact(id, format_args!("closed by {side}: {}", reason.code));
    }

    /// The application is told that most of what waited for a connection has left.
    pub(crate) fn backlog_low(&mut self, id: LocalId) {
        self.fact(id, format_args!("told that its backlog is low"));
    }

    pub(crate) fn reaped(&mut self, id: LocalId) {
        self.fact(id, format_args!("let go of"));
    }

    pub(crate) fn lost(&mut self, id: LocalId) {
        self.fact(id, format_args!("lost"));
    }

    /// What waited for a connection that has ended was thrown away.
    pub(crate) fn discarded(&mut self, id: LocalId, bytes: usize) {
        if bytes > 0 {
            if let Some(visit) = self.visit.as_mut().filter(|visit| visit.id == id) {
                visit.discarded += bytes;
            }
            self.fact(id, format_args!("{} discarded", Bytes(bytes as u64)));
        }
    }

    /// Something was said to a connection by others than itself.
    pub(crate) fn said_aside(&mut self, id: LocalId, before: Outgoing, after: Outgoing) {
        // If it is being visited, that is found in the difference that its visit makes.
        if before != after
            && self.visit.as_ref().is_none_or(|visit| visit.id != id)
            && let Some(written) = after.written_since(before, 0, usize::MAX)
        {
            self.fact(id, format_args!("{written}"));
        }
    }
}

// ---- how it becomes text ----

impl TurnTrace {
    pub(crate) fn note(&mut self, fact: fmt::Arguments<'_>) {
        if let Some(line) = self.line(None) {
            line.head = fact.to_string();
        }
    }

    fn head(&mut self, id: LocalId, head: fmt::Arguments<'_>) {
        if let Some(line) = self.line(Some(id)) {
            line.head = head.to_string();
        }
    }

    /// Joins what is being told of that connection, if it is being told of.
    pub(crate) fn fact(&mut self, id: LocalId, fact: fmt::Arguments<'_>) {
        let visited = self.visit.as_ref().filter(|visit| visit.id == id).map(|visit| visit.line);
        let last = self.lines.len().checked_sub(1);
        let told = visited.or(last.filter(|&last| self.lines[last].about == Some(id)));
        let line = match told {
            Some(told) => self.lines.get_mut(told),
            None => self.line(Some(id)),
        };
        if let Some(line) = line {
            line.facts.push(fact.to_string());
        }
    }

    /// A new line, if there is room.
    fn line(&mut self, about: Option<LocalId>) -> Option<&mut TraceLine> {
        if self.lines.len() == LINES_MAX {
            self.untold += 1;
            return None;
        }
        self.lines.push(TraceLine { about, head: String::new(), facts: Vec::new() });
        self.lines.last_mut()
    }

    pub(crate) fn begin_visit(&mut self, id: LocalId, before: Snapshot, why: Why) {
        self.ready += usize::from(why == Why::Ready);
        self.visit = None;
        let last = self.lines.len().checked_sub(1);
        let last = last.filter(|&last| self.lines[last].about == Some(id));
        let told = match last.filter(|_| why == Why::More) {
            Some(told) => told,
            None => {
                let Some(line) = self.line(Some(id)) else { return };
                let head = match why {
                    Why::Ready => before.why_visited(),
                    Why::Alarm => "alarm",
                    Why::Call(name) => name,
                    Why::More => "",
                };
                line.head = head.to_owned();
                self.lines.len() - 1
            }
        };
        let (taken_at_close, past, discarded) = (None, 0, 0);
        self.visit = Some(Visit { line: told, id, before, taken_at_close, why, past, discarded });
    }

    /// Ends the visit under way. Puts what was read before the facts that were told meanwhile, and what
    /// was written behind. `look` tells how the connection is now; what was read stands in
    /// `receive_buffer`.
    pub(crate) fn end_visit(
        &mut self,
        look: impl FnOnce(LocalId) -> Option<Snapshot>,
        receive_buffer: &[u8],
        cork_bytes: usize,
    ) {
        let Some(visit) = &self.visit.take() else { return };
        let after = look(visit.id);
        let Some(line) = self.lines.get_mut(visit.line) else { return };
        // One that was handed over has told where it went.
        let Some(after) = after else { return };
        let mut facts: Vec<String> = Vec::new();
        facts.extend(after.read_since(&visit.before));
        let Visit { before, taken_at_close, past, .. } = visit;
        facts.extend(after.frames_since(before, *taken_at_close, *past, receive_buffer));
        facts.append(&mut line.facts);
        let outgoing = (before.outgoing, after.outgoing);
        facts.extend(outgoing.1.written_since(outgoing.0, visit.discarded, cork_bytes));
        if after.is_lingering && !visit.before.is_lingering {
            facts.push("our half is closed".to_owned());
        }
        if facts.is_empty() && visit.why == Why::Alarm && after.rests_as(before) {
            facts.push("nothing due".to_owned());
        }
        facts.push(after.why_it_rests());
        line.facts = facts;
    }

    /// What was written to a connection that leaves its shard in the middle of its visit.
    pub(crate) fn written(&mut self, id: LocalId, after: Outgoing, cork_bytes: usize) {
        let Some(visit) = self.visit.as_ref().filter(|visit| visit.id == id) else { return };
        let before = visit.before.outgoing;
        if let Some(written) = after.written_since(before, visit.discarded, cork_bytes) {
            self.fact(id, format_args!("{written}"));
        }
    }

    /// What woke the poll, and how many connections were visited, as far as there were some.
    fn why_it_turned(&self) -> String {
        let Woken { by_listener, by_mail, at_once } = self.woken;
        let woken = match (by_listener, by_mail) {
            (true, true) => "woken by the listener and by mail",
            (true, false) => "woken by the listener",
            (false, true) => "woken by mail",
            (false, false) if self.ready > 0 => return format!("{} ready", self.ready),
            (false, false) if at_once => "goes on from the last turn",
            (false, false) => "woken by a timer",
        };
        match self.ready {
            0 => woken.to_owned(),
            ready => format!("{woken}, {ready} ready"),
        }
    }

    /// One line, if there is only one; else a heading, and the lines indented below it. A turn in
    /// which nothing happened is not told.
    pub(crate) fn lines(self, turn: u64, slept: Duration, busy: Duration) -> Vec<String> {
        let (slept, busy) = (Span(slept), Span(busy));
        let why = self.why_it_turned();
        let heading = format!("turn {turn}: slept {slept}, {why}, busy {busy}");
        match &self.lines[..] {
            [] => Vec::new(),
            [only] => vec![format!("{heading}: {only}")],
            told => {
                let mut lines = vec![heading];
                lines.extend(told.iter().map(|line| format!("  {line}")));
                if self.untold > 0 {
                    lines.push(format!("  and {} more", self.untold));
                }
                lines
            }
        }
    }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut mark = "";
        if let Some(id) = self.about {
            write!(f, "#{id}")?;
            mark = " ";
        }
        if !self.head.is_empty() {
            write!(f, "{mark}{}", self.head)?;
        }
        mark = ": ";
        for fact in &self.facts {
            write!(f, "{mark}{fact}")?;
            mark = "; ";
        }
        Ok(())
    }
}

/// `41 µs`, `3.1 ms`, `25.6 s`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            micros @ ..1000 => write!(f, "{micros} µs"),
            micros @ ..1_000_000 => write!(f, "{:.1} ms", micros as f64 / 1e3),
            micros => write!(f, "{:.1} s", micros as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::num::NonZeroU32;

    fn id(index: u32) -> LocalId {
        LocalId { index, generation: NonZeroU32::MIN }
    }

    fn outgoing(left: u64, backlog: usize) -> Outgoing {
        let is_writable = backlog == 0;
        Outgoing { left, backlog, held: 0, is_writable, is_encrypted: false }
    }

    fn lines(trace: TurnTrace) -> Vec<String> {
        trace.lines(812, Duration::from_micros(3100), Duration::from_micros(41))
    }

    #[test]
    fn a_beat_is_one_line_and_several_are_indented() {
        let heading = "turn 812: slept 3.1 ms, woken by a timer, busy 41 µs";
        assert!(lines(TurnTrace::default()).is_empty());
        let mut trace = TurnTrace::default();
        let peer = SocketAddr::from(([127, 0, 0, 1], 4711)).into();
        trace.adopted(id(3), peer, 0);
        assert_eq!(lines(trace), [format!("{heading}: #3.1 accepted from 127.0.0.1:4711")]);
        let mut trace = TurnTrace::default();
        trace.adopted(id(3), peer, 0);
        trace.adopted(id(4), peer, 70_000);
        trace.reactor_timer();
        assert_eq!(
            lines(trace),
            [
                heading,
                "  #3.1 accepted from 127.0.0.1:4711",
                "  #4.1 handed to us by mail with 70.0 kB",
                "  a timer of the reactor's",
            ]
        );
    }

    #[test]
    fn facts_join_the_connection_that_is_being_told_of() {
        let mut trace = TurnTrace::default();
        trace.head(id(1), format_args!("alarm"));
        trace.closed(id(1), CloseReason { code: 1011, side: Side::Server }, 0);
        trace.said_aside(id(1), outgoing(0, 0), outgoing(6, 20));
        trace.said_aside(id(2), outgoing(0, 0), outgoing(2, 0));
        trace.said_aside(id(2), outgoing(2, 0), outgoing(2, 0));
        trace.said_aside(id(3), outgoing(2, 50), outgoing(2, 76));
        trace.lost(id(1));
        trace.discarded(id(1), 20);
        trace.discarded(id(1), 0);
        assert_eq!(
            lines(trace)[1..],
            [
                "  #1.1 alarm: closed by us: 1011; 6 B in one write, the socket is full, 20 B wait",
                "  #2.1: 2 B in one write",
                "  #3.1: 0 B written, the socket is full, 76 B wait",
                "  #1.1: lost; 20 B discarded",
            ]
        );
    }

    #[test]
    fn a_turn_says_what_woke_it() {
        let why = |by_listener, by_mail, at_once, ready| {
            let woken = Woken { by_listener, by_mail, at_once };
            TurnTrace { woken, ready, ..TurnTrace::default() }.why_it_turned()
        };
        assert_eq!(why(true, false, false, 0), "woken by the listener");
        assert_eq!(why(false, true, true, 0), "woken by mail");
        assert_eq!(why(true, true, false, 3), "woken by the listener and by mail, 3 ready");
        assert_eq!(why(false, false, false, 0), "woken by a timer");
        assert_eq!(why(false, false, true, 0), "goes on from the last turn");
        assert_eq!(why(false, false, true, 2), "2 ready");
    }

    #[test]
    fn a_crowded_turn_is_told_by_number() {
        let mut trace = TurnTrace::default();
        for index in 0..1000 {
            trace.lost(id(index));
        }
        let lines = lines(trace);
        assert_eq!(lines.len(), 1 + LINES_MAX + 1);
        assert_eq!(lines[LINES_MAX + 1], format!("  and {} more", 1000 - LINES_MAX));
    }

    #[test]
    fn times_are_short() {
        for (micros, text) in
            [(0, "0 µs"), (999, "999 µs"), (3100, "3.1 ms"), (25_600_000, "25.6 s")]
        {
            assert_eq!(Span(Duration::from_micros(micros)).to_string(), text);
        }
    }
}

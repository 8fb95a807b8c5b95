//! How connections end: a WebSocket's last words, its session's release, and lost sockets.
//!
//! [`Parts::leave_open`] is the one way out of Open. A connection that goes it has its `on_close`, lets
//! go of its session and its place (or leaves both to the connection that displaces it), and is counted
//! and logged, exactly once. (A watcher has none of these, and is only forgotten.) Called by every
//! other step.
//!
//! Invariant: a connection that is no longer open has neither session nor timers nor jobs, and nothing is
//! kept for it.
//!
//! Next: `refreshing`: which sessions are stored although nothing has changed.

use std::io;
use std::time::Duration;

use tungstenite::protocol::frame::coding::CloseCode;

use super::connection_set::{ConnectionSet, Share, uncork};
use super::evictions::REPORT_SLOT;
use super::parts::Parts;
use super::runtime::{Callee, CloseCause};
use super::turn::{Outcome, Turn};
use crate::application::{Application, CloseReason, Side};
use crate::connection::timer_wheel::Slot;
use crate::connection::{Attachment, LiveSession, Rest};
use crate::environment::Environment;
use crate::observe::slow_turn::Callback;
use crate::protocol::endpoint::{Closing, Endpoint};
use crate::protocol::frame::Violation;
use crate::token::LocalId;

/// The wheel's slot for the look at jobs whose connections have gone: as [`REPORT_SLOT`], it is no
/// connection's.
pub(super) const ORPHANS_SLOT: Slot = REPORT_SLOT - 1;

/// Where the last frame of a WebSocket is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastWords {
    /// Into the cork, behind what was said in this visit.
    Cork,
    /// Aside, for the caller to write.
    Aside,
    /// Nowhere: the socket takes no more.
    Unsaid,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Ends the WebSocket in mid-visit: what it says last joins the cork.
    pub(super) fn leave_in_visit(&mut self, id: LocalId, cause: CloseCause, turn: &mut Turn<'_>) {
        self.leave_open(id, cause, LastWords::Cork, turn);
    }

    /// Ends a WebSocket outside its own visit, and settles it.
    pub(super) fn leave_aside(&mut self, id: LocalId, cause: CloseCause, turn: &mut Turn<'_>) {
        self.leave_open(id, cause, LastWords::Aside, turn);
        self.send_aside(id, turn);
    }

    /// Ends a WebSocket outside of its own visit, without a word: the caller says something else.
    pub(super) fn leave_unsaid(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        self.leave_open(id, CloseCause::Lost, LastWords::Unsaid, turn);
    }

    /// Takes a connection out of Open.
    fn leave_open(
        &mut self,
        id: LocalId,
        cause: CloseCause,
        last_words: LastWords,
        turn: &mut Turn<'_>,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let former = connection.detach();
        if let Attachment::Never | Attachment::Former = former {
            return;
        }
        if connection.rest.is_unread() {
            // What was not read of it meanwhile is read now: its Close may be in it.
            connection.rest = Rest::Spent;
            self.connections.queue(id);
        }
        let is_displaced = matches!(cause, CloseCause::Displaced);
        let (reason, said) = self.say_close(id, cause, last_words, turn);
        let Attachment::Live(live) = former else {
            log::debug!(
                connection:% = id, reactor = turn.setup.reactor, code = reason.code;
                "watches no more"
            );
            turn.tell(|trace| trace.closed(id, reason, 0));
            return self.watchers.remove(id);
        };
        self.log_close(id, &live, reason, said, turn);
        turn.tell(|trace| trace.closed(id, reason, live.bytes_in));
        self.call_on_close(id, &live, reason, turn);
        self.runtime.commands.timers.forget(id);
        self.runtime.commands.kept.forget(id);
        self.forget_jobs(id, turn);
        self.forget_session_if_asked(live.slot, id);
        if is_displaced {
            self.displace_session(live.slot, id, turn);
        } else {
            self.detach_session(live.slot, id, turn);
        }
        // A displaced one has passed it on, unless others of its session did.
        if let Some(connection) = self.connections.get_mut(id) {
            connection.return_place();
        }
        let metrics = &turn.setup.metrics;
        metrics.closed(reason);
        // One writer: this thread counted it in.
        metrics.websockets.set(metrics.websockets.get().saturating_sub(1));
    }

    /// Puts the last frame where it belongs, and moves the endpoint on. Returns how the WebSocket ended,
    /// and how many bytes wait to be written there, that frame among them.
    fn say_close(
        &mut self,
        id: LocalId,
        cause: CloseCause,
        last_words: LastWords,
        turn: &Turn<'_>,
    ) -> (CloseReason, usize) {
        let mut nowhere = Vec::new();
        let ConnectionSet { slab, aside, .. } = &mut self.connections;
        let out = match last_words {
            LastWords::Cork => &mut self.runtime.cork,
            LastWords::Aside => aside,
            LastWords::Unsaid => &mut nowhere,
        };
        let (now, limits) = (turn.now, &turn.setup.protocol_limits);
        let mut reason = CloseReason { code: CloseCode::Abnormal.into(), side: Side::Client };
        let Some(connection) = slab.get_mut(id) else { return (reason, 0) };
        let endpoint = &mut connection.endpoint;
        match cause {
            CloseCause::Answered(code) => {
                endpoint.part(now, limits);
                reason.code = code.into();
            }
            CloseCause::Lost => endpoint.finish(now, limits),
            CloseCause::Displaced => {
                let code = CloseCode::Library(4001);
                endpoint.close(code, "session taken over", now, limits, out);
                reason = CloseReason { code: code.into(), side: Side::Server };
            }
            CloseCause::Ours(code, text) => {
                endpoint.close(code, &text, now, limits, out);
                reason = CloseReason { code: code.into(), side: Side::Server };
            }
            CloseCause::Failed(code, text) => {
                endpoint.fail(code, &text, now, limits, out);
                reason = CloseReason { code: code.into(), side: Side::Server };
            }
        }
        (reason, out.len())
    }

    fn call_on_close(
        &mut self,
        id: LocalId,
        live: &LiveSession,
        reason: CloseReason,
        turn: &mut Turn<'_>,
    ) {
        if self.runtime.commands.is_before_open {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (session, is_resumed) = (live.slot, live.is_resumed);
        let callee = Callee { id, peer: &connection.peer, session, is_resumed, outlet: None };
        if self.runtime.is_stored {
            self.runtime.note_count(session, id);
        }
        let called = self.runtime.invoke(callee, |application, cx, _| {
            application.on_close(cx, reason);
        });
        let Some(outcome) = called else { return };
        if self.runtime.is_stored {
            self.runtime.note_change(session, id);
        }
        turn.observer.slow_turns.called(Callback::Close, 1, Some(id));
        // It is closing already.
        let _ = self.runtime.take_ending();
        if outcome.is_err() {
            turn.note_panic(id, Outcome::Nothing);
        }
    }

    /// Nobody is called any more with what a connection's jobs return.
    pub(super) fn forget_jobs(&mut self, id: LocalId, turn: &Turn<'_>) {
        self.runtime.commands.jobs.forget(id, turn.now);
        self.schedule_look_at_orphans();
    }

    /// Sees to it that jobs are looked at that nobody waits for any more.
    #[inline]
    pub(super) fn schedule_look_at_orphans(&mut self) {
        if let Some(at) = self.runtime.commands.jobs.take_unscheduled() {
            self.connections.schedule_vacant(ORPHANS_SLOT, at);
        }
    }

    /// Writes the cork to the connection that filled it. If it can be neither sent nor kept, the
    /// connection ends.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub(super) fn uncork(&mut self, id: LocalId, turn: &mut Turn<'_>) -> Result<(), Lost> {
        let Parts { connections, runtime, .. } = self;
        let Some(connection) = connections.slab.get_mut(id) else {
            return if runtime.cork.is_empty() { Ok(()) } else { Err(Lost) };
        };
        let sent = uncork(connection, &mut runtime.cork, &mut connections.pool, turn);
        runtime.trim_cork(&turn.setup.config.limits);
        sent.map_err(|error| {
            self.lose_to(id, &error, turn);
            Lost
        })
    }

    /// Writes the cork to a connection outside of its own visit, and settles it.
    pub(super) fn uncork_and_settle(&mut self, id: LocalId, share: Share, turn: &mut Turn<'_>) {
        if self.uncork(id, turn).is_ok() {
            self.connections.settle(id, share, turn);
        }
    }

    /// Writes what stands aside to a connection, and settles it.
    pub(super) fn send_aside(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        if let Err(error) = self.connections.send_aside(id, turn) {
            self.lose_to(id, &error, turn);
        }
    }

    /// What was to be sent could be neither sent nor kept.
    #[cold]
    pub(super) fn lose_to(&mut self, id: LocalId, error: &io::Error, turn: &mut Turn<'_>) {
        if error.kind() == io::ErrorKind::OutOfMemory {
            turn.note_out_of_memory(id);
        }
        self.lose(id, turn);
    }

    /// The socket failed: nothing can be said any more.
    pub(super) fn lose(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        turn.tell(|trace| trace.lost(id));
        self.claims.note_loss();
        if let Some(connection) = self.connections.get_mut(id) {
            connection.transport.abandon_goodbye();
        }
        self.leave_open(id, CloseCause::Lost, LastWords::Unsaid, turn);
        self.connections.cut(id, turn);
    }

    /// The peer will send no more, and all that it sent was taken.
    pub(super) fn end_of_stream(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match &connection.endpoint {
            Endpoint::Open(_) => {
                self.leave_open(id, CloseCause::Lost, LastWords::Unsaid, turn);
            }
            // The peer's half is closed, and we may still have something to say: `printf … | nc` must
            // get its answer.
            Endpoint::Handshaking(_)
            | Endpoint::Pending(_)
            | Endpoint::Closing(Closing::AwaitingEcho { .. }) => {
                connection.endpoint.finish(turn.now, &turn.setup.protocol_limits);
            }
            Endpoint::Closing(Closing::Lingering { .. }) => connection.endpoint = Endpoint::Closed,
            Endpoint::Closing(Closing::Flushing { .. }) | Endpoint::Closed => {}
        }
        self.connections.settle(id, Share::Left, turn);
    }

    fn log_close(
        &mut self,
        id: LocalId,
        live: &LiveSession,
        reason: CloseReason,
        said: usize,
        turn: &Turn<'_>,
    ) {
        let config = &turn.setup.config;
        if !config.access_log {
            return;
        }
        let Some(connection) = self.connections.get(id) else { return };
        let Some(session) = self.runtime.sessions.in_slot(live.slot, id) else { return };
        let opened = turn.setup.beginning + Duration::from_nanos(live.since);
        let seconds = turn.now.saturating_duration_since(opened).as_secs_f64();
        // What stands in the cork is counted when it is written, which is after this line.
        let bytes_out =
            (connection.transport.bytes_out + said as u64).saturating_sub(live.bytes_out_before);
        log::info!(
            target: "revolve::access",
            connection:% = id,
            session = session.id().prefix().as_str(),
            reactor = turn.setup.reactor,
            peer:% = connection.peer,
            path = config.ws_path.as_str(),
            resumed = live.is_resumed,
            count = session.count(),
            seconds = seconds,
            messages = live.messages,
            bytes_in = live.bytes_in,
            bytes_out = bytes_out,
            code = reason.code,
            side = reason.side.label();
            "WebSocket closed"
        );
    }
}

/// The connection has ended.
pub(super) struct Lost;

/// What a broken rule or a passed limit leads to.
pub(super) fn cause_of(id: LocalId, violation: Violation, turn: &mut Turn<'_>) -> CloseCause {
    if violation == Violation::OutOfMemory {
        turn.note_out_of_memory(id);
    }
    CloseCause::Failed(violation.close_code(), violation.reason().into())
}

//! How connections end: a WebSocket's last words, its session's release, and lost sockets.
//!
//! [`Shard::leave_open`] is the one way out of Open. Whoever goes it has its `on_close`, lets go of
//! its session and its place (or leaves both to the connection that displaces it), and is counted and
//! logged, exactly once. (A watcher has none of these, and is only forgotten.)
//!
//! Next: [`crate::shard::fanout`]: one message for everybody.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;

use super::slow_turn::Callback;
use super::snapshot::Outgoing;
use super::{Shard, set_alarm};
use crate::application::{Application, CloseReason, Context, Side};
use crate::connection::{Attachment, LiveSession, Rest};
use crate::environment::Environment;
use crate::protocol::endpoint::{Closing, Endpoint, TimeoutEvent};
use crate::protocol::frame::Violation;
use crate::protocol::head::Rejection;
use crate::token::ConnectionId;

/// Why a WebSocket stops being open.
pub(super) enum CloseCause {
    /// The peer's Close came and was answered.
    Answered(CloseCode),
    /// The stream ended, or broke, without one.
    Lost,
    /// We say Close, and wait for the peer's.
    Ours(CloseCode, Cow<'static, str>),
    /// A newer connection takes over what it holds: its session, and its place under the limit.
    Displaced,
    /// We say Close, and nothing the peer sends counts any more.
    Failed(CloseCode, &'static str),
}

impl CloseCause {
    /// What everyone is told when the server goes away.
    pub(super) fn goodbye() -> CloseCause {
        CloseCause::Ours(CloseCode::Away, "server is going away".into())
    }
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Takes a connection out of Open. Its last frame is appended to `out`, which the caller
    /// writes.
    pub(super) fn leave_open(
        &mut self,
        id: ConnectionId,
        cause: CloseCause,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let Shard { connections, config, ready, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return };
        let former = connection.detach();
        if let Attachment::Never | Attachment::Former = former {
            return;
        }
        if matches!(connection.rest, Rest::Parked | Rest::Waiting) {
            // What was not read of it meanwhile is read now: its Close may be in it.
            connection.rest = Rest::Spent;
            ready.push(id, &mut connection.mark);
        }
        let limits = &config.limits;
        let is_displaced = matches!(cause, CloseCause::Displaced);
        let reason = match cause {
            CloseCause::Answered(code) => {
                connection.endpoint.part(now, limits);
                CloseReason { code: code.into(), side: Side::Client }
            }
            CloseCause::Lost => {
                connection.endpoint.finish(now, limits);
                CloseReason { code: CloseCode::Abnormal.into(), side: Side::Client }
            }
            CloseCause::Displaced => {
                let code = CloseCode::Library(4001);
                connection.endpoint.close(code, "session taken over", now, limits, out);
                CloseReason { code: code.into(), side: Side::Server }
            }
            CloseCause::Ours(code, text) => {
                connection.endpoint.close(code, &text, now, limits, out);
                CloseReason { code: code.into(), side: Side::Server }
            }
            CloseCause::Failed(code, text) => {
                connection.endpoint.fail(code, text, now, limits, out);
                CloseReason { code: code.into(), side: Side::Server }
            }
        };
        let Attachment::Live(attachment) = former else {
            return self.unwatch(id, reason);
        };
        self.log_close(id, &attachment, reason, now, out.len());
        self.tell(|trace| trace.closed(id, reason, attachment.bytes_in));
        self.call_on_close(id, &attachment, reason);
        self.commands.timers.forget(id);
        self.commands.jobs.forget(id);
        if !is_displaced {
            self.sessions.detach(attachment.slot, id, now);
            self.note_evictions(now);
            if let Some(connection) = self.connections.get_mut(id) {
                connection.return_place();
            }
        }
        let metrics = &self.metrics;
        metrics.closed(reason);
        // One writer: this thread counted it in.
        metrics.websockets.set(metrics.websockets.get().saturating_sub(1));
    }

    fn call_on_close(&mut self, id: ConnectionId, attachment: &LiveSession, reason: CloseReason) {
        let Shard { connections, sessions, application, commands, slow_turns, .. } = self;
        let (Some(connection), Some(session)) =
            (connections.get_mut(id), sessions.of_connection(attachment.slot, id))
        else {
            return;
        };
        let mut nowhere = Vec::new();
        let mut cx = Context {
            session,
            cork: &mut nowhere,
            outlet: None,
            deflate_writer: None,
            commands,
            connection: id,
            peer: &connection.peer,
            is_resumed: attachment.is_resumed,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| application.on_close(&mut cx, reason)));
        slow_turns.called(Callback::Close, 1, Some(id));
        // It is closing already.
        commands.forget_close();
        if outcome.is_err() {
            self.note_panic(id);
        }
    }

    /// Ends a WebSocket outside its own visit, and settles it.
    pub(super) fn leave_aside(&mut self, id: ConnectionId, cause: CloseCause, now: Instant) {
        let mut aside = std::mem::take(&mut self.aside);
        self.leave_open(id, cause, now, &mut aside);
        self.aside = aside;
        self.send_aside(id, now);
    }

    /// Writes what stands aside to a connection, and settles it.
    pub(super) fn send_aside(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let before = Outgoing::of(&connection.transport);
        let sent = connection.transport.send(&self.aside, now, &mut self.pool);
        if let Some(trace) = &mut self.trace {
            trace.said_aside(id, before, Outgoing::of(&connection.transport));
        }
        self.metrics.bytes_out.add(self.aside.len() as u64);
        self.aside.clear();
        match sent {
            Ok(()) => self.settle(id, false, now),
            Err(error) => self.lose_to(id, &error, now),
        }
    }

    /// What was to be sent could be neither sent nor kept.
    #[cold]
    pub(super) fn lose_to(&mut self, id: ConnectionId, error: &io::Error, now: Instant) {
        if error.kind() == io::ErrorKind::OutOfMemory {
            self.note_out_of_memory(id);
        }
        self.lose(id, now);
    }

    /// A connection ends because there is no memory for what it sends, or for what it is sent.
    #[cold]
    pub(super) fn note_out_of_memory(&mut self, id: ConnectionId) {
        let ended = &self.metrics.out_of_memory;
        // At the first and at every 1000th: whoever sends large messages comes back.
        if ended.get().is_multiple_of(1000) {
            log::warn!(
                connection:% = id, reactor = self.reactor;
                "out of memory: a connection was closed; lower --limit-concurrency, --ws-max-size or \
                 --max-send-buffer"
            );
        }
        ended.add(1);
    }

    /// What a broken rule or a passed limit leads to.
    pub(super) fn cause_of(&mut self, id: ConnectionId, violation: Violation) -> CloseCause {
        if violation == Violation::OutOfMemory {
            self.note_out_of_memory(id);
        }
        CloseCause::Failed(violation.close_code(), violation.reason())
    }

    /// The socket failed: nothing can be said any more.
    pub(super) fn lose(&mut self, id: ConnectionId, now: Instant) {
        self.tell(|trace| trace.lost(id));
        let mut nowhere = Vec::new();
        self.leave_open(id, CloseCause::Lost, now, &mut nowhere);
        self.cut(id, now);
    }

    /// Lets go of a connection without further words.
    fn cut(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.endpoint = Endpoint::Closed;
            // It waits for nothing any more.
            connection.rest = Rest::Spent;
            self.settle(id, false, now);
        }
    }

    /// The peer will send no more, and all that it sent was taken.
    pub(super) fn end_of_stream(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match &connection.endpoint {
            Endpoint::Open(_) => {
                let mut nowhere = Vec::new();
                self.leave_open(id, CloseCause::Lost, now, &mut nowhere);
            }
            // Its half is closed, ours may still have something to say: `printf … | nc` must get
            // its answer.
            Endpoint::Handshaking(_) | Endpoint::Closing(Closing::AwaitingEcho { .. }) => {
                connection.endpoint.finish(now, &self.config.limits);
            }
            Endpoint::Closing(Closing::Lingering { .. }) => connection.endpoint = Endpoint::Closed,
            Endpoint::Closing(Closing::Flushing { .. }) | Endpoint::Closed => {}
        }
        self.settle(id, false, now);
    }

    /// Looks at a connection whose alarm went off.
    pub(super) fn on_deadline(&mut self, id: ConnectionId, now: Instant) {
        let is_congested = self.is_congested();
        let Some(connection) = self.connections.get_mut(id) else { return };
        let stalled = connection
            .transport
            .backlog
            .stalled_since()
            .is_some_and(|since| now >= since + self.config.limits.send_stall);
        match connection.endpoint {
            Endpoint::Open(_) if stalled => {
                let cause = CloseCause::Failed(CloseCode::Policy, "slow consumer");
                return self.leave_aside(id, cause, now);
            }
            Endpoint::Handshaking(_) if stalled => return self.cut(id, now),
            _ => {}
        }
        if connection.is_deaf() {
            // We do not read, so we cannot know whether the pong has come.
            return self.settle(id, false, now);
        }
        let timeout = connection.endpoint.on_deadline(now, &self.config, &mut self.aside);
        if matches!(timeout, TimeoutEvent::None | TimeoutEvent::Pinged) {
            connection.note_all_heard();
            return self.send_aside(id, now);
        }
        // The unread input may contain what was due: the pong, the rest of a head, the Close. While
        // nobody is read at all, that is not the peer's fault.
        if is_congested && connection.has_unheard_input()
            || connection.is_put_off(&self.config.limits)
        {
            return set_alarm(connection, &mut self.wheel, &self.config);
        }
        match timeout {
            TimeoutEvent::None | TimeoutEvent::Pinged => {}
            TimeoutEvent::HeadLate(_) if connection.rest == Rest::Waiting => {
                self.refuse_waiting(id, Rejection::OwnerBusy, now);
            }
            TimeoutEvent::HeadLate(rejection) => {
                self.reject(id, rejection, true, now);
                if self.uncork(id, now) {
                    self.settle(id, false, now);
                }
            }
            TimeoutEvent::Silent => {
                self.metrics.silent.add(1);
                self.cut(id, now);
            }
            TimeoutEvent::MessageLate(violation) => {
                let cause = self.cause_of(id, violation);
                self.leave_aside(id, cause, now);
            }
            // As Python's websockets, which Uvicorn uses, says it.
            TimeoutEvent::PongLate => {
                let cause = CloseCause::Failed(CloseCode::Error, "keepalive ping timeout");
                self.leave_aside(id, cause, now);
            }
            TimeoutEvent::Over => {
                let has_goodbye = matches!(
                    connection.endpoint,
                    Endpoint::Closing(Closing::Lingering { .. }) | Endpoint::Handshaking(_)
                );
                if !has_goodbye && connection.has_had_session() {
                    self.note_cut();
                }
                self.cut(id, now);
            }
        }
    }

    /// A callback panicked; the panic hook has said where.
    pub(super) fn note_panic(&mut self, id: ConnectionId) {
        self.metrics.panics.add(1);
        self.commands.forget_close();
        log::error!(
            connection:% = id, reactor = self.reactor;
            "the application panicked: its connection ends with 1011"
        );
    }

    fn log_close(
        &mut self,
        id: ConnectionId,
        attachment: &LiveSession,
        reason: CloseReason,
        now: Instant,
        last_words: usize,
    ) {
        if !self.config.access_log {
            return;
        }
        let (Some(connection), Some(session)) =
            (self.connections.get_mut(id), self.sessions.of_connection(attachment.slot, id))
        else {
            return;
        };
        let opened = self.beginning + Duration::from_nanos(attachment.since);
        let seconds = now.saturating_duration_since(opened).as_secs_f64();
        // What stands in the cork is counted when it is written, which is after this line.
        let bytes_out = (connection.transport.bytes_out + last_words as u64)
            .saturating_sub(attachment.bytes_out_before);
        log::info!(
            target: "revolve::access",
            connection:% = id,
            session = session.id().prefix().as_str(),
            reactor = self.reactor,
            peer:% = connection.peer,
            path = self.config.ws_path.as_str(),
            resumed = attachment.is_resumed,
            count = session.count(),
            seconds = seconds,
            messages = attachment.messages,
            bytes_in = attachment.bytes_in,
            bytes_out = bytes_out,
            code = reason.code,
            side = reason.side.label();
            "WebSocket closed"
        );
    }
}

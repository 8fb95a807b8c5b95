//! How a request becomes a session's connection: here, or on the reactor that owns the session.
//!
//! Next: [`crate::shard::newcomers`]: how many new sessions there may be.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::Shard;
use super::closing::CloseCause;
use super::slow_turn::Callback;
use crate::application::{Acceptance, Application, Refusal, Upgrade};
use crate::connection::{Attachment, LiveSession};
use crate::environment::Environment;
use crate::http;
use crate::mailbox::{Handoff, Mail};
use crate::protocol::deflate::DeflateParams;
use crate::protocol::frame;
use crate::protocol::handshake::{self, Accept};
use crate::protocol::head::{Rejection, Request};
use crate::session::{Attached, SessionRequest};
use crate::token::ConnectionId;

/// Who is to be let in.
pub(super) struct PendingUpgrade<A: Application> {
    pub(super) accept: Accept,
    pub(super) params: Option<DeflateParams>,
    pub(super) requested: SessionRequest,
    pub(super) acceptance: Acceptance<A>,
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Sends a connection to the reactor that owns its session: the socket, what was read from
    /// it from its request on, and the responses that have not left yet. Here it is forgotten at
    /// once; there it is read from the start, as if it had just been accepted.
    pub(super) fn hand_over(
        &mut self,
        id: ConnectionId,
        owner: usize,
        received: &[u8],
        now: Instant,
        env: &mut E,
    ) {
        if !self.uncork(id, now) {
            return;
        }
        self.tell_written(id);
        let Some(mut connection) = self.connections.remove(id) else { return };
        if let Err(error) = env.deregister(connection.transport.stream_mut()) {
            log::warn!(reactor = self.reactor; "cannot hand a connection over: {error}");
            return;
        }
        self.metrics.handed_over(owner);
        self.tell(|trace| trace.handed_over(id, owner, received.len()));
        let peer = connection.peer;
        let deadline = connection
            .endpoint
            .deadline(&self.config)
            .unwrap_or(now + self.config.timeout_handshake);
        let permit = connection.permit.take();
        let packed = connection.transport.into_parts().and_then(|(stream, unsent)| {
            let mut copied = Vec::new();
            copied.try_reserve_exact(received.len())?;
            copied.extend_from_slice(received);
            Ok(Handoff { stream, peer, received: copied, unsent, deadline, permit })
        });
        match packed {
            Ok(handoff) => self.post(owner, Mail::HandOver(handoff), env),
            // It has left this reactor already, and its socket is closed with it.
            Err(_) => self.note_out_of_memory(id),
        }
    }

    /// Whether the application lets it in.
    pub(super) fn ask_application(
        &mut self,
        id: ConnectionId,
        request: &Request<'_, '_>,
        requested: &SessionRequest,
        now: Instant,
    ) -> Result<Acceptance<A>, Refusal> {
        let Shard { connections, sessions, application, slow_turns, config, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return Ok(Acceptance::default()) };
        let session_id = requested.id.as_ref();
        let upgrade = Upgrade {
            request,
            peer: connection.peer,
            now,
            session_id,
            session: session_id.and_then(|id| sessions.peek(id, now)),
        };
        let answer = catch_unwind(AssertUnwindSafe(|| application.on_upgrade(&upgrade)));
        slow_turns.called(Callback::Upgrade, 1, Some(id));
        let Ok(answer) = answer else {
            self.note_panic(id);
            return Err(Refusal::new::<500>("internal error"));
        };
        let mut acceptance = answer?;
        // RFC 6455 4.2.2: only what this client offers may be chosen, not what another one did.
        if let Some(chosen) = &acceptance.subprotocol
            && !upgrade.subprotocols().any(|offered| offered == chosen)
        {
            debug_assert!(false, "a subprotocol that was not offered");
            acceptance.subprotocol = None;
        }
        if acceptance.subprotocol.is_none() {
            let chosen = config.ws_subprotocols.choose(|| upgrade.subprotocols());
            acceptance.subprotocol = chosen.map(|name| name.to_owned().into());
        }
        Ok(acceptance)
    }

    /// Answers with the application's refusal; the connection closes after it.
    pub(super) fn turn_away(&mut self, id: ConnectionId, refusal: &Refusal, now: Instant) {
        self.metrics.refused.add(1);
        self.tell(|trace| trace.refused_by_application(id, refusal.status));
        http::turn_away(refusal, &mut self.cork);
        if let Some(connection) = self.connections.get_mut(id) {
            log::debug!(
                connection:% = id, reactor = self.reactor;
                "{}: refused by the application: {} {}",
                connection.peer, refusal.status, refusal.reason
            );
            connection.endpoint.finish(now, &self.config.limits);
        }
    }

    /// Makes a connection that of a session of ours.
    pub(super) fn upgrade(
        &mut self,
        id: ConnectionId,
        pending: PendingUpgrade<A>,
        now: Instant,
        env: &mut E,
    ) {
        let requested = &pending.requested;
        // The request that is answered last is not always the one that the client sent last. A client
        // may give up on a busy reactor and connect again by way of another one. If its old request
        // were served now, it would displace the client's new connection, or its frames would count
        // after the client was told a count. A client that gave up has ended that stream, so a request
        // whose stream has ended may not take over a session.
        let has_ended =
            self.connections.get_mut(id).is_some_and(|connection| connection.transport.has_ended());
        if has_ended && requested.id.as_ref().is_some_and(|id| self.sessions.contains(id)) {
            return self.reject(id, Rejection::Superseded, true, now);
        }
        let is_newcomer = match self.count_newcomer(id, requested, now) {
            Ok(is_newcomer) => is_newcomer,
            Err(rejection) => return self.reject(id, rejection, true, now),
        };
        // One live connection a session, and the newer one wins. The older one's `on_close` comes
        // before the newer one's `on_open`. What it held, the session and its place under the limit,
        // goes to the newer one and is never free in between: nobody else can have the place, and the
        // table cannot drop a session that has counted nothing yet, or is not kept without a
        // connection, or has no room.
        if let Some(older) = requested.id.as_ref().and_then(|id| self.sessions.connection_of(id)) {
            self.metrics.takeovers.add(1);
            self.tell(|trace| trace.taken_over(id, older));
            self.leave_aside(older, CloseCause::Displaced, now);
        } else {
            let limit = self.config.limit_concurrency.map_or(usize::MAX, std::num::NonZero::get);
            if !self.status.admit(limit) {
                if is_newcomer {
                    self.uncount_newcomer(id);
                }
                return self.reject(id, Rejection::LimitConcurrency, true, now);
            }
        }
        let Shard { sessions, ids, .. } = self;
        let fresh = || ids.next(|room| env.random(room));
        match sessions.attach(requested.id.as_ref(), id, now, fresh) {
            Err(rejection) => {
                self.status.release();
                if is_newcomer {
                    self.uncount_newcomer(id);
                }
                self.reject(id, rejection, true, now);
            }
            Ok(attached) => self.open(id, pending, attached, now),
        }
    }

    /// Makes a WebSocket of a connection that has its session: answers 101, and calls the application.
    fn open(
        &mut self,
        id: ConnectionId,
        mut pending: PendingUpgrade<A>,
        attached: Attached,
        now: Instant,
    ) {
        let (opening, resumed) = (pending.acceptance.opening.take(), attached.resumed);
        if !self.answer_upgrade(id, pending, attached, now) {
            return;
        }
        self.metrics.websockets.add(1);
        self.metrics.resumes.add(u64::from(resumed));
        self.websockets += 1;
        self.log_open(id);
        self.call(id, Callback::Open, now, |application, cx| {
            if let Some(opening) = opening {
                opening(application, cx);
            }
            application.on_open(cx);
        });
    }

    /// Writes the response to the cork, and the greeting if the client has asked for it. From here on
    /// the connection is an open WebSocket. Whether connection and session were there.
    fn answer_upgrade(
        &mut self,
        id: ConnectionId,
        PendingUpgrade { accept, params, requested, acceptance }: PendingUpgrade<A>,
        Attached { slot, resumed }: Attached,
        now: Instant,
    ) -> bool {
        let Shard { connections, sessions, cork, config, trace, beginning, .. } = self;
        let (Some(connection), Some(session)) =
            (connections.get_mut(id), sessions.of_connection(slot, id))
        else {
            debug_assert!(false, "both were there a moment ago");
            return false;
        };
        connection.endpoint.open(params, now, config);
        if let Some(trace) = trace {
            trace.opened(id, resumed, session.count());
        }
        let text = session.id().text();
        let mut digits = itoa::Buffer::new();
        let count = digits.format(session.count());
        let resumed_text = if resumed { "true" } else { "false" };
        handshake::begin_response(&accept, cork);
        for (name, value) in [
            ("X-Session-Id: ", text.as_str()),
            ("X-Session-Resumed: ", resumed_text),
            ("X-Session-Count: ", count),
        ] {
            for part in [name, value, "\r\n"] {
                cork.extend_from_slice(part.as_bytes());
            }
        }
        if let Some(params) = params {
            params.write_field(cork);
        }
        if let Some(chosen) = acceptance.subprotocol {
            for part in ["Sec-WebSocket-Protocol: ", &chosen, "\r\n"] {
                cork.extend_from_slice(part.as_bytes());
            }
        }
        cork.extend_from_slice(acceptance.fields.as_bytes());
        handshake::end_response(cork);
        connection.attachment = Attachment::Live(LiveSession {
            slot,
            is_resumed: resumed,
            since: now.saturating_duration_since(*beginning).as_nanos() as u64,
            messages: 0,
            bytes_in: 0,
            bytes_out_before: connection.transport.bytes_out + cork.len() as u64,
        });
        if requested.hello {
            let id = text.as_str();
            let hello =
                format!(r#"{{"session_id": "{id}", "count": {count}, "resumed": {resumed_text}}}"#);
            frame::encode(OpCode::Data(Data::Text), hello.as_bytes(), cork);
        }
        true
    }

    /// One line for the access log.
    fn log_open(&mut self, id: ConnectionId) {
        if !self.config.access_log {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Attachment::Live(attachment) = connection.attachment else { return };
        let Some(session) = self.sessions.of_connection(attachment.slot, id) else { return };
        log::info!(
            target: "revolve::access",
            connection:% = id,
            session = session.id().prefix().as_str(),
            reactor = self.reactor,
            peer:% = connection.peer,
            path = self.config.ws_path.as_str(),
            resumed = attachment.is_resumed,
            count = session.count();
            "WebSocket accepted"
        );
    }
}

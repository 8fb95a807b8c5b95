//! How a request becomes a session's connection: here, or on the reactor that owns the session.
//!
//! Parses nothing: `requests` has. Called by that, and by `mail` for connections that waited to be
//! handed over.
//!
//! Invariant: a session has one live connection at most, and the newer one has it; unless the newer one
//! shares it.
//!
//! Next: `claiming`: the same where several machines share the sessions.

use super::claims::AcceptedUpgrade;
use super::parts::Parts;
use super::runtime::{Asked, CloseCause, Wanted};
use super::turn::{Outcome, Turn};
use crate::application::{
    Answer, Application, Decision, Due, KeepRequest, NotOpening, Owner, Refusal, Terms,
};
use crate::config::ProxyHeaders;
use crate::connection::{Attachment, LiveSession};
use crate::contained::{Contained, Panicked};
use crate::environment::Environment;
use crate::http::{Body, Rejection};
use crate::mailbox::{Handoff, Mail};
use crate::observe::slow_turn::Callback;
use crate::protocol::handshake;
use crate::protocol::head::Request;
use crate::session::{Attached, Joining, NotAttached, SessionId, SessionSlot};
use crate::token::{LocalId, Visitor};
use crate::transport::tls::TlsSession;

/// Whether an upgrade was counted as a new session of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newcomer {
    Counted,
    /// It finds its session, or there is no such limit.
    NotCounted,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Sends a connection to the reactor that owns its session: the socket, what was read from
    /// it from its request on, and the responses that have not left yet. Here it is forgotten at
    /// once; there it is read from the start, as if it had just been accepted.
    pub(super) fn hand_over(
        &mut self,
        id: LocalId,
        owner: usize,
        received: &[u8],
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        if self.uncork(id, turn).is_err() {
            return;
        }
        self.tell_written(id, turn);
        let Some(mut connection) = self.connections.slab.remove(id) else { return };
        if let Err(error) = env.deregister(connection.transport.stream_mut()) {
            log::warn!(reactor = turn.setup.reactor; "cannot hand a connection over: {error}");
            return;
        }
        turn.setup.metrics.handed_over(owner);
        turn.tell(|trace| trace.handed_over(id, owner, received.len()));
        let Visitor { peer, entrance } = connection.visitor();
        let config = &turn.setup.config;
        let deadline = connection
            .endpoint
            .deadline(&turn.setup.protocol_limits)
            .unwrap_or(turn.now + config.timeout_handshake);
        let permit = connection.permit.take();
        let packed = connection.transport.into_parts().and_then(|(stream, unsent, tls)| {
            let mut copied = Vec::new();
            copied.try_reserve_exact(received.len())?;
            copied.extend_from_slice(received);
            let received = copied;
            Ok(Handoff { stream, peer, entrance, received, unsent, deadline, tls, permit })
        });
        match packed {
            Ok(handoff) => self.deliveries.post(owner, Mail::HandOver(handoff), env),
            // It has left this reactor already, and its socket is closed with it.
            Err(_) => turn.note_out_of_memory(id),
        }
    }

    /// Asks the application whether the WebSocket may open.
    ///
    /// # Errors
    ///
    /// Its refusal.
    pub(super) fn ask_application(
        &mut self,
        id: LocalId,
        request: &Request<'_, '_>,
        session_id: Option<&SessionId>,
        turn: &mut Turn<'_>,
    ) -> Result<Answer<A>, Refusal> {
        let Some(connection) = self.connections.slab.get(id) else {
            return Ok(Answer::Now(Terms::default()));
        };
        let certificate = connection.transport.tls().and_then(TlsSession::client_certificate);
        let asked = Asked { request, session_id, peer: connection.peer, certificate };
        let subprotocols = &turn.setup.config.ws_subprotocols;
        let done = match self.runtime.commands.jobs.next_due(Owner::Request(id)) {
            None => None,
            Some(Due::OfRequest(Decision::OfUpgrade(done), value)) => Some((done, value)),
            // The job panicked, or there was no thread for it.
            Some(_) => return Err(self.fail_upgrade(id, turn)),
        };
        let callback = if done.is_some() { Callback::Answer } else { Callback::Upgrade };
        let mut answer = self.runtime.ask(asked, done, turn.now, subprotocols);
        if !self.pending.is_empty()
            && let Ok(Ok(Answer::Now(terms))) = &mut answer
        {
            let undos = self.pending.take_undos(id);
            if !undos.is_empty() {
                terms.undo_unless_open(undos);
            }
        }
        turn.observer.slow_turns.called(callback, 1, Some(id));
        answer.unwrap_or_else(|Panicked| Err(self.fail_upgrade(id, turn)))
    }

    /// The application panicked over an upgrade.
    fn fail_upgrade(&mut self, id: LocalId, turn: &mut Turn<'_>) -> Refusal {
        let _ = self.runtime.take_ending();
        turn.note_panic(id, Outcome::Refuses);
        Refusal::new::<500>("internal error")
    }

    /// Makes a connection that of a session of ours.
    pub(super) fn upgrade(
        &mut self,
        id: LocalId,
        accepted: AcceptedUpgrade<A>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        match self.claim(id, &accepted, turn, env) {
            Ok(attached) => self.open(id, accepted, attached, turn),
            Err(rejection) => self.refuse_accepted(id, accepted, rejection, turn),
        }
    }

    /// Refuses an upgrade that the application has accepted.
    pub(super) fn refuse_accepted(
        &mut self,
        id: LocalId,
        accepted: AcceptedUpgrade<A>,
        rejection: Rejection,
        turn: &mut Turn<'_>,
    ) {
        self.refuse(id, rejection, Body::Sent, turn);
        self.call_not_opening(id, accepted.terms.not_opening, turn);
    }

    /// An upgrade that the application has accepted does not open: it gives back what it has taken for that, if anything.
    pub(super) fn call_not_opening(
        &mut self,
        id: LocalId,
        not_opening: Option<NotOpening<A>>,
        turn: &mut Turn<'_>,
    ) {
        let Some(not_opening) = not_opening else { return };
        // A panic is counted and told there, and ends nothing more than this connection.
        let _ = self.call_for_reactor(turn.setup, |application, cx| {
            if let Some(not_opening) = not_opening.into_inner() {
                not_opening(application, cx);
            }
        });
        turn.observer.slow_turns.called(Callback::NotOpening, 1, Some(id));
    }

    /// Takes hold of the session that a request asks for, and of a place under the limits.
    ///
    /// # Errors
    ///
    /// Why there is none for it; then it holds nothing.
    fn claim(
        &mut self,
        id: LocalId,
        accepted: &AcceptedUpgrade<A>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> Result<Attached, Rejection> {
        let joining = accepted.terms.joining;
        let wanted = match (&accepted.session_id, accepted.claimed) {
            (None, _) => Wanted::New,
            (Some(id), Some(claimed)) if claimed.is_drawn => Wanted::Drawn(id),
            (Some(id), _) => Wanted::Named(id),
        };
        let session_id = wanted.id();
        // The request that is answered last is not always the one that the client sent last. A client
        // may give up on a busy reactor and connect again by way of another one. If its old request
        // were served now, it would displace the client's new connection, or its frames would count
        // after the client was told a count. A client that gave up has ended that stream, so a request
        // whose stream has ended may not take over a session.
        let has_ended =
            self.connections.get(id).is_some_and(|connection| connection.transport.has_ended());
        if has_ended && session_id.is_some_and(|id| self.runtime.sessions.contains(id)) {
            return Err(Rejection::Superseded);
        }
        // Nor may one that waited while a newer one has begun to share it.
        if joining == Joining::TakesOver && self.pending.is_outrun(id) {
            return Err(Rejection::Overtaken);
        }
        if turn.setup.config.proxy_headers != ProxyHeaders::Off {
            self.count_address(id, turn)?;
        }
        if self.runtime.is_stored && self.runtime.changes.is_full() {
            return Err(Rejection::OwnerBusy);
        }
        let newcomer = self.count_newcomer(id, session_id, turn)?;
        let claimed = self.claim_place((id, joining), session_id, turn).and_then(|()| {
            self.attach_session(wanted, (id, joining), turn, env).map_err(|error| {
                if let NotAttached::Panicked = error {
                    turn.note_panic(id, Outcome::Refuses);
                }
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.return_place();
                }
                error.into()
            })
        });
        if claimed.is_err() && newcomer == Newcomer::Counted {
            self.uncount_newcomer(id, turn);
        }
        if let Ok(attached) = &claimed {
            if let Some(claimed) = accepted.claimed {
                self.runtime.changes.owned.set(attached.slot, claimed.ownership);
            }
            // One that was claimed has overtaken others already, when it began to wait for its claim.
            let outruns = accepted.claimed.is_none().then_some(joining);
            self.overtake((id, outruns), attached.slot, turn);
        }
        // It has its session as a connection now, or will never have it.
        self.forget_pending(id, turn);
        claimed
    }

    /// Refuses the requests for the same session that came before this one and wait for their answer: were
    /// they accepted later, they would displace a newer connection. If this one shares the session, they may
    /// still do so too, but not take it over. For those that came after it, the session stays: that alone without
    /// `outruns`.
    fn overtake(
        &mut self,
        (newer, outruns): (LocalId, Option<Joining>),
        slot: SessionSlot,
        turn: &mut Turn<'_>,
    ) {
        if self.pending.is_empty() {
            return;
        }
        // Its own: the one that it named may not have been taken up.
        let Some(session) = self.runtime.sessions.in_slot(slot, newer) else { return };
        let session_id = session.id().clone();
        if let Some(joining) = outruns {
            self.outrun_older((newer, joining), &session_id, turn);
        }
        self.hold_for_pending(&session_id, turn);
    }

    /// The first half of that, for a session that may not be here yet.
    pub(super) fn outrun_older(
        &mut self,
        (newer, joining): (LocalId, Joining),
        session_id: &SessionId,
        turn: &mut Turn<'_>,
    ) {
        match joining {
            Joining::Shares => self.pending.outrun(session_id, newer),
            Joining::TakesOver => {
                for older in self.pending.before(session_id, newer) {
                    self.refuse_waiting(older, Rejection::Overtaken, turn);
                }
            }
        }
    }

    /// The place under the limit, and who has to go for it. Unless the newer connection shares the session, it
    /// takes that over: the older one's `on_close` comes before the newer one's `on_open`. The session and the
    /// place go to the newer connection and are never free in between. So no other client can take the place,
    /// and the table cannot drop a session that has counted nothing yet, or is not kept without a connection,
    /// or has no room.
    fn claim_place(
        &mut self,
        (id, joining): (LocalId, Joining),
        session_id: Option<&SessionId>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let config = &turn.setup.config;
        let older = session_id.map_or(&[][..], |id| self.runtime.sessions.connections_of(id));
        if joining == Joining::Shares && older.len() >= config.limits.connections_per_session {
            return Err(Rejection::LimitPerSession);
        }
        if joining == Joining::Shares || older.is_empty() {
            return match self.connections.get_mut(id) {
                Some(connection) => Ok(connection.take_place(config)?),
                None => Ok(()),
            };
        }
        let older = older.to_vec();
        if let Some((first, newer)) = self.connections.slab.pair_mut(older[0], id) {
            first.pass_place(newer);
        }
        for older in older {
            turn.setup.metrics.takeovers.add(1);
            turn.tell(|trace| trace.taken_over(id, older));
            self.leave_aside(older, CloseCause::Displaced, turn);
        }
        Ok(())
    }

    /// Counts the session that an upgrade is about to create against its address, if it creates one and
    /// there is such a limit.
    ///
    /// # Errors
    ///
    /// When the address has made as many lately as it may.
    fn count_newcomer(
        &mut self,
        id: LocalId,
        session_id: Option<&SessionId>,
        turn: &Turn<'_>,
    ) -> Result<Newcomer, Rejection> {
        let Some(rate) = turn.setup.config.limit_sessions_per_ip else {
            return Ok(Newcomer::NotCounted);
        };
        let Some(connection) = self.connections.get(id) else { return Ok(Newcomer::NotCounted) };
        if session_id.is_some_and(|id| self.runtime.sessions.peek(id, turn.now).is_some()) {
            return Ok(Newcomer::NotCounted);
        }
        // A peer without an address has no share of its own that it could use up.
        let Some(ip) = connection.peer.ip() else { return Ok(Newcomer::NotCounted) };
        turn.setup.status.session_rates().count(ip, rate, turn.now)?;
        Ok(Newcomer::Counted)
    }

    /// It was refused after all, for another reason.
    fn uncount_newcomer(&mut self, id: LocalId, turn: &Turn<'_>) {
        if let Some(rate) = turn.setup.config.limit_sessions_per_ip
            && let Some(ip) = self.connections.get(id).and_then(|connection| connection.peer.ip())
        {
            turn.setup.status.session_rates().uncount(ip, rate);
        }
    }

    /// Makes a WebSocket of a connection that has its session: answers 101, and calls the application.
    fn open(
        &mut self,
        id: LocalId,
        mut accepted: AcceptedUpgrade<A>,
        attached: Attached,
        turn: &mut Turn<'_>,
    ) {
        let opening = accepted.terms.opening.take();
        let not_opening = accepted.terms.not_opening.take();
        let request = std::mem::replace(&mut accepted.terms.request, KeepRequest::No);
        if let KeepRequest::Kept(request) = request {
            self.runtime.commands.kept.keep_request(id, request);
        }
        self.answer_upgrade(id, accepted, attached, turn);
        turn.setup.metrics.websockets.add(1);
        turn.setup.metrics.resumes.add(u64::from(attached.resumed));
        self.log_open(id, turn);
        self.runtime.commands.is_before_open = true;
        self.call(id, Callback::Open, turn, |application, cx| {
            if let Some(opening) = opening.and_then(Contained::into_inner) {
                opening(application, cx);
            }
            cx.commands.is_before_open = false;
            application.on_open(cx);
        });
        // It panicked over what was to be done before: to the application this one has never been open.
        if std::mem::take(&mut self.runtime.commands.is_before_open) {
            self.call_not_opening(id, not_opening, turn);
        }
    }

    /// Writes the response to the cork. From here on the connection is an open WebSocket.
    fn answer_upgrade(
        &mut self,
        id: LocalId,
        AcceptedUpgrade { accept, params, terms, .. }: AcceptedUpgrade<A>,
        Attached { slot, resumed }: Attached,
        turn: &mut Turn<'_>,
    ) {
        let Parts { connections, runtime, .. } = self;
        let cork = &mut runtime.cork;
        let (Some(connection), Some(session)) =
            (connections.get_mut(id), runtime.sessions.in_slot(slot, id))
        else {
            debug_assert!(false, "both were there a moment ago");
            return;
        };
        connection.endpoint.open(params, turn.now, &turn.setup.protocol_limits);
        turn.tell(|trace| trace.opened(id, resumed, session.count()));
        let text = session.id().text();
        let resumed_text = if resumed { "true" } else { "false" };
        handshake::begin_response(&accept, cork);
        for (name, value) in
            [("X-Session-Id: ", text.as_str()), ("X-Session-Resumed: ", resumed_text)]
        {
            for part in [name, value, "\r\n"] {
                cork.extend_from_slice(part.as_bytes());
            }
        }
        cork.extend_from_slice(terms.fields.as_bytes());
        cork.extend_from_slice(turn.setup.config.response_fields.lines().as_bytes());
        if let Some(params) = params {
            params.write_field(cork);
        }
        if let Some(chosen) = terms.subprotocol {
            for part in ["Sec-WebSocket-Protocol: ", &chosen, "\r\n"] {
                cork.extend_from_slice(part.as_bytes());
            }
        }
        handshake::end_response(cork);
        connection.attachment = Attachment::Live(LiveSession {
            slot,
            is_resumed: resumed,
            since: turn.now.saturating_duration_since(turn.setup.beginning).as_nanos() as u64,
            messages: 0,
            bytes_in: 0,
            bytes_out_before: connection.transport.bytes_out + cork.len() as u64,
        });
    }

    /// One line for the access log.
    fn log_open(&self, id: LocalId, turn: &Turn<'_>) {
        if !turn.setup.config.access_log {
            return;
        }
        let Some(connection) = self.connections.get(id) else { return };
        let Attachment::Live(live) = connection.attachment else { return };
        let Some(session) = self.runtime.sessions.in_slot(live.slot, id) else { return };
        log::info!(
            target: "revolve::access",
            connection:% = id,
            session = session.id().prefix().as_str(),
            reactor = turn.setup.reactor,
            peer:% = connection.peer,
            path = turn.setup.config.ws_path.as_str(),
            resumed = live.is_resumed,
            count = session.count();
            "WebSocket accepted"
        );
    }
}

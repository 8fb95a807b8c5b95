//! How a request is refused: an answer with an error, and the end of the connection behind it.
//!
//! Decides nothing: the step that refuses has a [`Rejection`], or the application's [`Refusal`]. What the
//! log tells of refusals is chosen by `refusals`. Called by all steps before a WebSocket is open.
//!
//! Invariant: behind a refusal nothing more of the connection is read as a request.
//!
//! Next: `callbacks`: where the application is called.

use super::parts::Parts;
use super::refusals::Refused;
use super::turn::Turn;
use crate::application::{Application, Refusal};
use crate::connection::Rest;
use crate::environment::Environment;
use crate::http::{self, Body, Rejection};
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Answers with an error, for the caller to write; the connection closes after it.
    pub(super) fn refuse(
        &mut self,
        id: LocalId,
        rejection: Rejection,
        body: Body,
        turn: &mut Turn<'_>,
    ) {
        self.end_request(id, rejection, turn);
        http::refuse(rejection, body, &turn.setup.config, &mut self.runtime.cork);
    }

    /// A request is refused, for the caller to say so: it is counted, and its connection is to close.
    fn end_request(&mut self, id: LocalId, rejection: Rejection, turn: &mut Turn<'_>) {
        turn.setup.metrics.rejected(rejection.index());
        turn.tell(|trace| trace.refused(id, rejection.status()));
        self.forget_pending(id, turn);
        if let Some(connection) = self.connections.get_mut(id) {
            log::debug!(
                connection:% = id, reactor = turn.setup.reactor;
                "{}: refused: {}", connection.peer, rejection.advice()
            );
            connection.endpoint.finish(turn.now, &turn.setup.protocol_limits);
        }
    }

    /// The same for a request of which `head` is what came: the log may tell of it.
    pub(super) fn refuse_request(
        &mut self,
        id: LocalId,
        rejection: Rejection,
        head: &[u8],
        turn: &mut Turn<'_>,
    ) {
        if let Some(connection) = self.connections.get(id) {
            let reactor = turn.setup.reactor;
            let who = Refused { connection: id, peer: connection.peer, reactor };
            turn.observer.refusals.tell(&who, rejection, head, turn.now);
        }
        // A HEAD is known by its first bytes, even where the rest of it is no request.
        let body = if head.starts_with(b"HEAD ") { Body::Omitted } else { Body::Sent };
        self.refuse(id, rejection, body, turn);
    }

    /// The same outside of a visit: the answer is written, and the connection settled.
    pub(super) fn refuse_aside(&mut self, id: LocalId, rejection: Rejection, turn: &mut Turn<'_>) {
        self.end_request(id, rejection, turn);
        http::refuse(rejection, Body::Sent, &turn.setup.config, &mut self.connections.aside);
        self.send_aside(id, turn);
    }

    /// The same for a connection that waits to be handed over, or for its answer. In the queue for a
    /// hand-over its id stays, and is passed over there: to look for it would make many refusals in one
    /// turn cost their square.
    pub(super) fn refuse_waiting(
        &mut self,
        id: LocalId,
        rejection: Rejection,
        turn: &mut Turn<'_>,
    ) {
        self.claims.note_loss();
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.rest = Rest::Spent;
        // Its request is answered; what stands behind it is not read any more.
        drop(connection.take_tail());
        self.refuse_aside(id, rejection, turn);
    }

    /// Answers an upgrade with the application's refusal; the connection closes after it.
    pub(super) fn refuse_upgrade(&mut self, id: LocalId, refusal: &Refusal, turn: &mut Turn<'_>) {
        turn.setup.metrics.refused.add(1);
        turn.tell(|trace| trace.refused_by_application(id, refusal.status));
        self.forget_pending(id, turn);
        http::refuse_upgrade(refusal, &turn.setup.config, &mut self.runtime.cork);
        if let Some(connection) = self.connections.get_mut(id) {
            log::debug!(
                connection:% = id, reactor = turn.setup.reactor;
                "{}: refused by the application: {} {}",
                // It may be of several lines.
                connection.peer, refusal.status, refusal.reason.text().escape_debug()
            );
            connection.endpoint.finish(turn.now, &turn.setup.protocol_limits);
        }
    }
}

//! What a request leads to: a page, the application's response, a WebSocket here or on another reactor,
//! or a refusal.
//!
//! Parses with `protocol/`, routes with `http/`, and calls the step that does what was asked for. Called
//! by `visit` for a connection that is not yet open.
//!
//! Invariant: a request is answered once, where its session lives.
//!
//! Next: `encrypted`: input that is decrypted first.

use super::claims::AcceptedUpgrade;
use super::parts::Parts;
use super::plain_requests::Responded;
use super::relayed::{Preface, client_of};
use super::turn::{Setup, Turn};
use crate::application::{Answer, Application, Deferred, Refusal};
use crate::config::ProxyHeaders;
use crate::connection::Rest;
use crate::environment::Environment;
use crate::http::{self, Body, Persistence, Rejection, Route};
use crate::protocol::deflate;
use crate::protocol::endpoint::Endpoint;
use crate::protocol::handshake::{self, Accept};
use crate::protocol::head::{self, Request};
use crate::session::{SessionId, owner_of};
use crate::token::LocalId;

/// What a request led to.
enum Answered<A: Application> {
    NotYet,
    /// A response is written.
    Plain {
        length: usize,
        persistence: Persistence,
    },
    Upgrade(usize, AcceptedUpgrade<A>),
    /// The application decides it on another thread; it may ask for this session.
    Later(Deferred<A>, Option<SessionId>),
    /// A WebSocket without a session, for the figures of the live page.
    Watch {
        length: usize,
        accept: Accept,
    },
    /// The application says no.
    Refused(Refusal),
    /// The session lives on that reactor.
    Elsewhere(usize),
}

/// What became of the input that stands where a request is expected.
pub(super) enum Served {
    /// There is no whole request in it.
    NeedMore,
    /// One was answered; what follows is read in the state that the endpoint has now.
    Answered,
    /// The rest waits: the share is used up, or the connection is not to be read now.
    Wait,
    /// The connection has left this shard.
    Gone,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Serves one request, if a whole one is there. `at` is where it begins in the input.
    // Inlined it would make each visit that ends a WebSocket set up the stack that a request needs: 32 instructions.
    #[inline(never)]
    pub(super) fn serve_request(
        &mut self,
        id: LocalId,
        input: &mut [u8],
        at: &mut usize,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> Served {
        if self.awaits_proxy_header(id) {
            return match self.read_proxy_header(id, input, at, turn) {
                // A further call reads the request, as behind an answered one.
                Preface::Done => Served::Answered,
                Preface::NeedMore => Served::NeedMore,
            };
        }
        *at += head::leading_empty_lines(&input[*at..]);
        let received = &mut input[*at..];
        if received.is_empty() || *received == *b"\r" {
            return Served::NeedMore;
        }
        match self.answer_client(id, received, turn) {
            Ok(Answered::NotYet) => Served::NeedMore,
            Ok(Answered::Plain { length, persistence }) => {
                *at += length;
                self.end_response(id, persistence, turn)
            }
            Ok(Answered::Elsewhere(owner)) if !self.deliveries.has_room_at(owner, env) => {
                self.deliveries.wait_for_owner(id, owner, &mut self.connections);
                Served::Wait
            }
            Ok(Answered::Elsewhere(owner)) => {
                self.hand_over(id, owner, &input[*at..], turn, env);
                Served::Gone
            }
            Ok(Answered::Watch { length, accept }) => {
                *at += length;
                self.watch(id, &accept, turn);
                Served::Answered
            }
            Ok(Answered::Upgrade(length, accepted)) => {
                *at += self.upgrade_or_claim(id, length, accepted, (turn, env));
                // It waits for its session, or may have off-loaded as much as it may in `on_open` already.
                match self.connections.get(id) {
                    Some(connection) if connection.rest == Rest::Parked => Served::Wait,
                    _ => Served::Answered,
                }
            }
            Ok(Answered::Later(deferred, session)) => {
                match self.await_answer(id, session, deferred, turn) {
                    Ok(()) => Served::Wait,
                    Err(_) => {
                        self.refuse(id, Rejection::AdmissionBusy, Body::Sent, turn);
                        Served::Answered
                    }
                }
            }
            Ok(Answered::Refused(refusal)) => {
                self.refuse_upgrade(id, &refusal, turn);
                Served::Answered
            }
            Err(rejection) => {
                // A record of a handshake, of any version (RFC 8446 5.1).
                let is_hello = input[*at..].starts_with(&[22, 3]);
                let rejection = if is_hello { Rejection::TlsOnPlain } else { rejection };
                self.refuse_request(id, rejection, &input[*at..], turn);
                Served::Answered
            }
        }
    }

    /// A response to a plain request stands in the cork.
    fn end_response(
        &mut self,
        id: LocalId,
        persistence: Persistence,
        turn: &mut Turn<'_>,
    ) -> Served {
        turn.tell(|trace| trace.answered(id));
        let Some(connection) = self.connections.get_mut(id) else { return Served::Gone };
        let (config, limits) = (&turn.setup.config, &turn.setup.protocol_limits);
        match persistence {
            Persistence::KeepAlive => connection.endpoint.await_request(turn.now, limits),
            Persistence::Close => connection.endpoint.finish(turn.now, limits),
        }
        // A page of metrics is a thousand times the work of a message: a cork of them a turn.
        let is_full = self.runtime.cork.len() >= config.limits.cork_bytes;
        if is_full { Served::Wait } else { Served::Answered }
    }

    /// [`Self::answer`], as of the client for whom a proxy sends the request. The connection is the
    /// client's from then on, unless a further request may come: its own fields say who sends that.
    fn answer_client(
        &mut self,
        id: LocalId,
        received: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Result<Answered<A>, Rejection> {
        let direct = self.connections.get(id).map(|connection| connection.peer);
        let answered = self.answer(id, received, turn);
        let is_the_clients = matches!(
            answered,
            Ok(Answered::Upgrade(..) | Answered::Watch { .. } | Answered::Refused(_)) | Err(_)
        );
        if !is_the_clients
            && turn.setup.config.proxy_headers != ProxyHeaders::Off
            && let (Some(connection), Some(direct)) = (self.connections.get_mut(id), direct)
        {
            connection.peer = direct;
        }
        answered
    }

    /// Whether WebSockets open now.
    ///
    /// # Errors
    ///
    /// Why none does.
    #[inline]
    fn may_upgrade(&self, setup: &Setup) -> Result<(), Rejection> {
        if setup.status.draining_since().is_some() {
            return Err(Rejection::Draining);
        }
        if !self.restoring.is_done() {
            return Err(Rejection::Recovering);
        }
        Ok(())
    }

    /// Reads the request at the start of `received` and decides what becomes of it.
    fn answer(
        &mut self,
        id: LocalId,
        received: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Result<Answered<A>, Rejection> {
        let setup = turn.setup;
        let config = &setup.config;
        let Some(connection) = self.connections.get_mut(id) else { return Ok(Answered::NotYet) };
        let Endpoint::Handshaking(handshaking) = &mut connection.endpoint else {
            return Ok(Answered::NotYet);
        };
        let Some(length) = handshaking.head_end(received, turn.now, &setup.protocol_limits)? else {
            return Ok(Answered::NotYet);
        };
        let mut slots = head::header_slots();
        let (head, behind) = received.split_at(length);
        let request = Request::parse(head, &mut slots, &setup.protocol_limits)?;
        connection.peer = client_of(&request, connection.visitor(), config);
        let visitor = connection.visitor();
        if http::leads_to_application(request.path, visitor, config) {
            let responded = self.respond(id, &request, (length, behind), turn)?;
            return Ok(match responded {
                Responded::NotYet => Answered::NotYet,
                Responded::Now { content, persistence } => {
                    Answered::Plain { length: length + content, persistence }
                }
                Responded::Later(deferred) => Answered::Later(deferred, None),
            });
        }
        let cork = &mut self.runtime.cork;
        if request.method == "OPTIONS" {
            let persistence = http::tell_methods(&request, visitor, config, cork)?;
            return Ok(Answered::Plain { length, persistence });
        }
        let route = Route::of(&request, visitor, config)?;
        if !matches!(route, Route::WebSocket | Route::Figures) {
            let persistence = route.respond(&request, &setup.status, config, turn.now, cork)?;
            return Ok(Answered::Plain { length, persistence });
        }
        let accept = handshake::judge(&request)?;
        self.may_upgrade(setup)?;
        if route == Route::Figures {
            // Its origin was `Route::of`'s to judge.
            return Ok(Answered::Watch { length, accept });
        }
        // The live page goes on meanwhile: it tells of that.
        if setup.status.is_store_away() {
            return Err(Rejection::StoreAway);
        }
        if !config.allowed_origins.allow(request.values("origin")) {
            return Err(Rejection::OriginNotAllowed);
        }
        let params = match config.ws_per_message_deflate {
            true => deflate::negotiate(&request)?,
            false => None,
        };
        let session_id = SessionId::from_query(request.query)?;
        let owner = session_id
            .as_ref()
            .map_or(setup.reactor, |id| owner_of(id.text().as_str(), config.workers.get()));
        if owner != setup.reactor {
            return Ok(Answered::Elsewhere(owner));
        }
        Ok(match self.ask_application(id, &request, session_id.as_ref(), turn) {
            Ok(Answer::Now(terms)) => {
                Answered::Upgrade(length, AcceptedUpgrade::new((accept, params, session_id), terms))
            }
            Ok(Answer::Later(deferred)) => Answered::Later(deferred, session_id),
            Err(refusal) => Answered::Refused(refusal),
        })
    }
}

//! Plain requests that the application answers: their content, the call, and the response.
//!
//! A request stands whole in the receive buffer when the application is asked. Until then it is kept as
//! an unfinished head is, in the connection's tail, so it takes no other storage and meets the head's
//! deadline. Routes nothing: `requests` has. Called by that.
//!
//! Invariant: a response is made of a request that is whole, or its connection closes behind it.
//!
//! Next: `requests`: what a request leads to.

use super::parts::Parts;
use super::turn::Turn;
use crate::application::{
    Application, Deferred, HttpRequest, NoResponse, RequestBody, RequestHead,
};
use crate::environment::Environment;
use crate::http::{self, Persistence, Rejection};
use crate::protocol::endpoint::Endpoint;
use crate::protocol::head::{Content, Request};
use crate::token::LocalId;

/// What became of a plain request.
pub(super) enum Responded<A: Application> {
    /// Its content is not whole: that is waited for.
    NotYet,
    /// The response stands in the cork. So many bytes of content were read with the request.
    Now { content: usize, persistence: Persistence },
    /// The response comes later.
    Later(Deferred<A>),
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Has the application answer a request of which `head` bytes are its head, and `behind` is what has
    /// come behind that.
    ///
    /// # Errors
    ///
    /// Why there is no response of the application's.
    pub(super) fn respond(
        &mut self,
        id: LocalId,
        request: &Request<'_, '_>,
        (head, behind): (usize, &[u8]),
        turn: &mut Turn<'_>,
    ) -> Result<Responded<A>, Rejection> {
        let (body, content) = match request.content {
            Content::None => (RequestBody::Whole(&[]), 0),
            _ if !A::READS_BODIES => (RequestBody::Unread, 0),
            _ => {
                let length = http::content_length(request, &turn.setup.config)?;
                let Some(body) = behind.get(..length) else {
                    self.await_content(id, (head, length));
                    // RFC 9110 10.1.1: a client that has begun to send is not waiting to be told.
                    if behind.is_empty() && request.expects_continue() {
                        self.runtime.cork.extend_from_slice(http::CONTINUE);
                    }
                    return Ok(Responded::NotYet);
                };
                (RequestBody::Whole(body), length)
            }
        };
        let Some(connection) = self.connections.get(id) else { return Ok(Responded::NotYet) };
        let asked = HttpRequest { head: RequestHead(request), body, peer: connection.peer };
        // One that another callback has left behind is none of this request.
        self.runtime.commands.deferred_response = None;
        let called = self.call_for_request(id, &asked, turn);
        let deferred = self.runtime.commands.deferred_response.take();
        let response = match called {
            Ok(Ok(response)) => response,
            Ok(Err(NoResponse::Follows(_))) => {
                return deferred.map(Responded::Later).ok_or_else(|| {
                    let reactor = turn.setup.reactor;
                    log::error!(reactor = reactor; "a request gets 500: no response follows");
                    Rejection::InternalError
                });
            }
            Ok(Err(NoResponse::NotFound)) => return Err(Rejection::NotFound),
            Ok(Err(NoResponse::InvalidField(error))) => {
                log::error!(reactor = turn.setup.reactor; "a request gets 500: {error}");
                return Err(Rejection::InternalError);
            }
            Err(_) => return Err(Rejection::InternalError),
        };
        match http::respond(&asked, &response, &turn.setup.config, &mut self.runtime.cork) {
            Ok(persistence) => {
                self.forget_pending(id, turn);
                Ok(Responded::Now { content, persistence })
            }
            Err(_) => {
                turn.note_out_of_memory(id);
                Err(Rejection::InternalError)
            }
        }
    }

    fn await_content(&mut self, id: LocalId, (head, length): (usize, usize)) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Endpoint::Handshaking(handshaking) = &mut connection.endpoint
        {
            handshaking.await_content(head, length);
        }
    }
}

//! One connection's share of a turn: flush what waits, read once, take what is there, write once.
//!
//! The path of a message is [`Shard::visit`] → [`Shard::converse`] → the application → the cork →
//! one write. Everything that is not that path leaves these functions early, as a [`Step`].
//!
//! Next: `refusals`, for a request that is refused.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tungstenite::protocol::frame::coding::CloseCode;

use super::Shard;
use super::closing::CloseCause;
use super::upgrade::PendingUpgrade;
use crate::application::{Application, Context, Refusal};
use crate::config::Config;
use crate::connection::{Attachment, Connection, Filled, FilledPast, Rest};
use crate::environment::Environment;
use crate::http::{self, Route};
use crate::observe::metrics::ReactorMetrics;
use crate::protocol::deflate::{self, DeflateWriter};
use crate::protocol::endpoint::{Endpoint, Event};
use crate::protocol::frame::Violation;
use crate::protocol::handshake::{self, Accept};
use crate::protocol::head::{self, Rejection, Request};
use crate::session::{SessionRequest, owner_of};
use crate::token::ConnectionId;
use crate::transport::out_buffer::BufferPool;
use crate::transport::{Inbound, Stream};

/// What became of a stretch of input.
pub(super) enum Step {
    /// Nothing: this is no WebSocket, or not any more.
    NotOpen,
    /// The endpoint changed; what follows is read in its new state.
    Again,
    /// The input is taken to its end, and whole messages were all that was in it, or it was empty:
    /// the endpoint is as it was.
    AllTaken,
    /// The rest of the input is not whole.
    NeedMore,
    /// The share is used up, or the backlog is over its mark: the rest of the input waits.
    Wait,
    /// The connection has left this shard.
    Gone,
}

/// Why a conversation stopped.
enum Pause {
    AllTaken,
    NeedMore,
    Share,
    CorkFull,
    Command,
    PeerClosed(CloseCode),
    Broken(Violation),
}

/// What a request led to.
enum Answered<A: Application> {
    NotYet,
    /// A response is written; whether the connection is kept.
    Plain {
        length: usize,
        keeps: bool,
    },
    Upgrade(usize, PendingUpgrade<A>),
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

impl<A: Application, E: Environment> Shard<A, E> {
    /// Gives a ready connection its share.
    // Into the turn, its one caller.
    #[inline(always)]
    pub(super) fn visit(&mut self, id: ConnectionId, buffer: &mut [u8], now: Instant, env: &mut E) {
        let is_congested = self.is_congested();
        // An id in the ready queue may have outlived its connection.
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.mark.clear();
        if matches!(connection.rest, Rest::Parked | Rest::Waiting | Rest::Ended) {
            return self.visit_parked(id, now);
        }
        if is_congested || !connection.transport.backlog.is_empty() {
            match make_room(connection, &self.config, &mut self.pool, now) {
                Err(_) => return self.lose(id, now),
                Ok(true) if !is_congested => {}
                Ok(has_room) => return self.settle(id, has_room, now),
            }
        }
        if connection.reads_past() {
            return self.visit_long(id, buffer, now, env);
        }
        match connection.fill(buffer) {
            Ok(Filled { kept, read }) => {
                self.metrics.bytes_in.add(read as u64);
                self.scratch.grant_share(self.config.limits.inflate_per_turn);
                self.take_input(id, &mut buffer[..kept + read], read, now, env);
            }
            Err(_) => self.lose(id, now),
        }
    }

    /// The same in the middle of a message, and where one is expected of which the payload is to be
    /// read past the buffer.
    #[inline(never)]
    fn visit_long(&mut self, id: ConnectionId, buffer: &mut [u8], now: Instant, env: &mut E) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Ok(FilledPast { past, filled }) = connection.fill_past(buffer, &self.config) else {
            return self.lose(id, now);
        };
        if let Attachment::Live(attachment) = &mut connection.attachment {
            attachment.bytes_in += past as u64;
        }
        if past > 0 {
            connection.endpoint.note_alive(now, &self.config);
        }
        self.tell(|trace| trace.read_past(past));
        self.metrics.bytes_in.add((past + filled.read) as u64);
        self.scratch.grant_share(self.config.limits.inflate_per_turn);
        let input = &mut buffer[..filled.kept + filled.read];
        self.take_input(id, input, past + filled.read, now, env);
    }

    /// Takes the input as far as it goes, writes what it caused, and settles the connection. `read` is
    /// how many bytes of it are new.
    #[inline(always)]
    fn take_input(
        &mut self,
        id: ConnectionId,
        input: &mut [u8],
        read: usize,
        now: Instant,
        env: &mut E,
    ) {
        let mut at = 0;
        let mut frames = self.config.limits.frames_per_turn;
        let mut requests = 0;
        let mut is_as_it_was = true;
        let step = loop {
            let step = match self.converse(id, input, &mut at, &mut frames) {
                Step::NotOpen => self.arrive_or_leave(id, input, &mut at, &mut requests, now, env),
                step => step,
            };
            match step {
                // It has upgraded, or is closing: other deadlines.
                Step::Again => is_as_it_was = false,
                Step::Gone => return,
                Step::AllTaken | Step::NeedMore | Step::NotOpen | Step::Wait => break step,
            }
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let sent = uncork(connection, &mut self.cork, &self.metrics, &mut self.pool, now);
        if let Err(error) = sent {
            return self.lose_to(id, &error, now);
        }
        // The usual end. The connection is in the state in which it was before the visit, so its
        // deadline has not moved and its alarm is set: it need not be settled. That took 100
        // instructions a visit.
        if is_as_it_was && matches!(step, Step::AllTaken) && connection.is_at_ease() {
            connection.rest = Rest::Blocked;
            return;
        }
        if !matches!(connection.endpoint, Endpoint::Closed) {
            if read > 0 && matches!(step, Step::NeedMore) && connection.is_amid_frame(&input[at..])
            {
                connection.endpoint.note_alive(now, &self.config);
            }
            if let Err(error) = connection.keep(&input[at..]) {
                return self.lose_to(id, &error, now);
            }
            connection.note_intake();
        }
        let must_wait = matches!(step, Step::Wait);
        if connection.transport.inbound() == Inbound::Ended && !must_wait {
            return self.end_of_stream(id, now);
        }
        self.settle(id, must_wait, now);
    }

    /// Takes input before a WebSocket is open, or when it is no longer. Kept out of the way of the
    /// visits that find messages, as are the requests.
    #[inline(never)]
    fn arrive_or_leave(
        &mut self,
        id: ConnectionId,
        input: &mut [u8],
        at: &mut usize,
        requests: &mut usize,
        now: Instant,
        env: &mut E,
    ) -> Step {
        let Some(connection) = self.connections.get_mut(id) else { return Step::Gone };
        match &mut connection.endpoint {
            Endpoint::Open(_) => Step::NotOpen,
            Endpoint::Handshaking(_) if *requests == self.config.limits.requests_per_turn => {
                Step::Wait
            }
            Endpoint::Handshaking(_) => {
                *requests += 1;
                self.serve_request(id, input, at, now, env)
            }
            Endpoint::Closing(_) => {
                let endpoint = &mut connection.endpoint;
                match endpoint.discard(input, at, &mut self.scratch, &self.config, now) {
                    true => Step::Again,
                    false => Step::NeedMore,
                }
            }
            Endpoint::Closed => Step::NeedMore,
        }
    }

    /// Writes the cork to the connection that filled it; false if that was the end of it.
    pub(super) fn uncork(&mut self, id: ConnectionId, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return self.cork.is_empty() };
        let sent = uncork(connection, &mut self.cork, &self.metrics, &mut self.pool, now);
        if let Err(error) = &sent {
            self.lose_to(id, error, now);
        }
        sent.is_ok()
    }

    /// The hot path: frames to messages to the application, until the input or the share ends.
    ///
    /// Not inlined, so that the loop has the registers to itself; and with no more arguments than
    /// there are registers for, which is why the time is looked up.
    #[inline(never)]
    fn converse(
        &mut self,
        id: ConnectionId,
        input: &mut [u8],
        at: &mut usize,
        frames: &mut usize,
    ) -> Step {
        let Shard {
            connections,
            sessions,
            application,
            cork,
            commands,
            scratch,
            deflater,
            config,
            ..
        } = self;
        let Some(connection) = connections.get_mut(id) else { return Step::Gone };
        let (Endpoint::Open(open), Attachment::Live(attachment)) =
            (&mut connection.endpoint, &mut connection.attachment)
        else {
            return match connection.endpoint {
                Endpoint::Open(_) => self.hear_watcher(id, input, at, frames, self.commands.now),
                _ => Step::NotOpen,
            };
        };
        let Some(session) = sessions.of_connection(attachment.slot, id) else {
            debug_assert!(false, "a displaced connection is closed before it is visited");
            return Step::NeedMore;
        };
        let mut cx: Context<'_, A> = Context {
            session,
            cork,
            outlet: Some(&mut connection.transport),
            deflate_writer: DeflateWriter::new(open.params(), deflater),
            commands,
            connection: id,
            peer: &connection.peer,
            is_resumed: attachment.is_resumed,
        };
        let begin = *at;
        let mut messages = 0;
        // One guard around the whole stretch: a panic ends this connection whichever message it
        // struck at, and a guard a message would keep the callback from being inlined.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut is_plain = true;
            while *frames > 0 {
                // Nearly every visit ends so.
                if *at == input.len() && !open.has_more() {
                    return if is_plain { Pause::AllTaken } else { Pause::NeedMore };
                }
                *frames -= 1;
                // The commonest message is asked for by itself: to wrap it as one of the things
                // that may come next, and to unwrap it, costs half of what it costs to take it.
                let message = match open.next_short(input, at, scratch, config) {
                    Some(Ok(message)) => message,
                    Some(Err(violation)) => return Pause::Broken(violation),
                    None => {
                        let was_amid_message = open.is_amid_message();
                        match open.next(input, at, scratch, config, cx.commands.now, cx.cork) {
                            Ok(Some(Event::Message(message))) => {
                                is_plain &= !was_amid_message;
                                message
                            }
                            Ok(Some(Event::Control))
                                if cx.cork.len() < config.limits.cork_bytes =>
                            {
                                is_plain = false;
                                continue;
                            }
                            Ok(Some(Event::Control)) => return Pause::CorkFull,
                            Ok(Some(Event::Inflating)) => return Pause::Share,
                            Ok(Some(Event::PeerClosed(code))) => return Pause::PeerClosed(code),
                            Ok(None) => return Pause::NeedMore,
                            Err(violation) => return Pause::Broken(violation),
                        }
                    }
                };
                messages += 1;
                application.on_message(&mut cx, message);
                if cx.commands.pause {
                    return Pause::Command;
                }
                if cx.cork.len() >= config.limits.cork_bytes {
                    return Pause::CorkFull;
                }
            }
            Pause::Share
        }));
        let now = cx.commands.now;
        attachment.messages += messages;
        attachment.bytes_in += (*at - begin) as u64;
        self.metrics.messages.add(messages);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(_) => {
                let _ = self.apply(id, false, now);
                return Step::Again;
            }
        };
        let cause = match outcome {
            Pause::AllTaken => return Step::AllTaken,
            Pause::NeedMore => return Step::NeedMore,
            Pause::Share => return Step::Wait,
            Pause::CorkFull => return self.uncork_in_visit(id, now),
            Pause::Command => {
                let is_parked = self.apply(id, true, now);
                return if is_parked { Step::Wait } else { Step::Again };
            }
            Pause::PeerClosed(code) => CloseCause::Answered(code),
            Pause::Broken(violation) => self.cause_of(id, violation),
        };
        self.leave_in_visit(id, cause, now);
        Step::Again
    }

    /// Ends the WebSocket in mid-visit: what it says last joins the cork.
    pub(super) fn leave_in_visit(&mut self, id: ConnectionId, cause: CloseCause, now: Instant) {
        let mut cork = std::mem::take(&mut self.cork);
        self.leave_open(id, cause, now, &mut cork);
        self.cork = cork;
    }

    /// Serves one request, if a whole one is there.
    fn serve_request(
        &mut self,
        id: ConnectionId,
        input: &mut [u8],
        at: &mut usize,
        now: Instant,
        env: &mut E,
    ) -> Step {
        *at += head::leading_empty_lines(&input[*at..]);
        let received = &mut input[*at..];
        if received.is_empty() || *received == *b"\r" {
            return Step::NeedMore;
        }
        match self.answer(id, received, now) {
            Ok(Answered::NotYet) => Step::NeedMore,
            Ok(Answered::Plain { length, keeps }) => {
                *at += length;
                self.tell(|trace| trace.answered(id));
                let Some(connection) = self.connections.get_mut(id) else { return Step::Gone };
                if keeps {
                    connection.endpoint.await_request(now, &self.config);
                } else {
                    connection.endpoint.finish(now, &self.config.limits);
                }
                // A page of metrics is a thousand times the work of a message: a cork of them a turn.
                let is_full = self.cork.len() >= self.config.limits.cork_bytes;
                if is_full { Step::Wait } else { Step::Again }
            }
            Ok(Answered::Elsewhere(owner)) if !self.has_room_at(owner, env) => {
                self.wait_for_owner(id, owner);
                Step::Wait
            }
            Ok(Answered::Elsewhere(owner)) => {
                self.hand_over(id, owner, &input[*at..], now, env);
                Step::Gone
            }
            Ok(Answered::Watch { length, accept }) => {
                *at += length;
                self.watch(id, &accept, now);
                Step::Again
            }
            Ok(Answered::Upgrade(length, pending)) => {
                *at += length;
                self.upgrade(id, pending, now, env);
                // It may have off-loaded as much as it may in `on_open` already.
                match self.connections.get_mut(id) {
                    Some(connection) if connection.rest == Rest::Parked => Step::Wait,
                    _ => Step::Again,
                }
            }
            Ok(Answered::Refused(refusal)) => {
                self.turn_away(id, &refusal, now);
                Step::Again
            }
            Err(rejection) => {
                // A HEAD is known by its first bytes, even where the rest of it is no request.
                let with_body = !input[*at..].starts_with(b"HEAD ");
                self.tell_refusal(id, rejection, &input[*at..], now);
                self.reject(id, rejection, with_body, now);
                Step::Again
            }
        }
    }

    /// Writes a full cork in mid-visit; the visit goes on if the socket keeps up.
    pub(super) fn uncork_in_visit(&mut self, id: ConnectionId, now: Instant) -> Step {
        if !self.uncork(id, now) {
            return Step::Gone;
        }
        match self.connections.get_mut(id) {
            Some(connection)
                if connection.transport.backlog.len() <= self.config.max_send_buffer =>
            {
                Step::Again
            }
            _ => Step::Wait,
        }
    }

    /// Reads the request at the start of `received` and decides what becomes of it.
    fn answer(
        &mut self,
        id: ConnectionId,
        received: &mut [u8],
        now: Instant,
    ) -> Result<Answered<A>, Rejection> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(Answered::NotYet) };
        let Endpoint::Handshaking(handshaking) = &mut connection.endpoint else {
            return Ok(Answered::NotYet);
        };
        let Some(length) = handshaking.head_end(received, now, &self.config)? else {
            return Ok(Answered::NotYet);
        };
        let mut slots = head::header_slots();
        let request = Request::parse(&received[..length], &mut slots, &self.config.limits)?;
        if request.method == "OPTIONS" {
            let Shard { connections, config, cork, .. } = self;
            let Some(connection) = connections.get_mut(id) else { return Ok(Answered::NotYet) };
            let keeps = http::tell_methods(&request, connection.peer, config, cork)?;
            return Ok(Answered::Plain { length, keeps });
        }
        let route = Route::of(&request, connection.peer, &self.config)?;
        if !matches!(route, Route::WebSocket | Route::Figures) {
            let Shard { status, config, cork, .. } = self;
            let keeps = http::respond(route, &request, status, config, now, cork)?;
            return Ok(Answered::Plain { length, keeps });
        }
        let accept = handshake::judge(&request)?;
        if self.status.draining_since().is_some() {
            return Err(Rejection::Draining);
        }
        if route == Route::Figures {
            // Its origin was `Route::of`'s to judge.
            return Ok(Answered::Watch { length, accept });
        }
        if !handshake::is_origin_allowed(&request, &self.config.allowed_origins) {
            return Err(Rejection::OriginNotAllowed);
        }
        let params = match self.config.ws_per_message_deflate {
            true => deflate::negotiate(&request)?,
            false => None,
        };
        let requested = SessionRequest::from_query(request.query)?;
        let owner = requested
            .id
            .as_ref()
            .map_or(self.reactor, |id| owner_of(id.text().as_str(), self.config.workers.get()));
        if owner != self.reactor {
            return Ok(Answered::Elsewhere(owner));
        }
        Ok(match self.ask_application(id, &request, &requested, now) {
            Ok(acceptance) => {
                Answered::Upgrade(length, PendingUpgrade { accept, params, requested, acceptance })
            }
            Err(refusal) => Answered::Refused(refusal),
        })
    }

    /// Answers with an error; the connection closes after it.
    pub(super) fn reject(
        &mut self,
        id: ConnectionId,
        rejection: Rejection,
        with_body: bool,
        now: Instant,
    ) {
        self.metrics.rejected(rejection);
        self.tell(|trace| trace.refused(id, rejection));
        http::refuse(rejection, with_body, &mut self.cork);
        if let Some(connection) = self.connections.get_mut(id) {
            log::debug!(
                connection:% = id, reactor = self.reactor;
                "{}: refused: {}", connection.peer, rejection.advice()
            );
            connection.endpoint.finish(now, &self.config.limits);
        }
    }
}

/// Writes the cork to `connection`, which filled it.
#[inline(always)]
fn uncork<S: Stream>(
    connection: &mut Connection<S>,
    cork: &mut Vec<u8>,
    metrics: &ReactorMetrics,
    pool: &mut BufferPool,
    now: Instant,
) -> io::Result<()> {
    if cork.is_empty() {
        return Ok(());
    }
    // Counted first: whoever has an answer finds it in the metrics.
    metrics.bytes_out.add(cork.len() as u64);
    let sent = connection.transport.send(cork, now, pool);
    cork.clear();
    sent
}

/// Flushes what waits for `connection`; false if so much is left that it is not to be read now.
#[cold]
fn make_room<S: Stream>(
    connection: &mut Connection<S>,
    config: &Config,
    pool: &mut BufferPool,
    now: Instant,
) -> io::Result<bool> {
    let before = connection.transport.backlog.len();
    connection.transport.flush(config.limits.flush_bytes_per_turn, now, pool)?;
    if connection.transport.backlog.len() < before {
        connection.endpoint.note_alive(now, config);
    }
    let mark = match connection.rest {
        Rest::Throttled => config.max_send_buffer / 2,
        _ => config.max_send_buffer,
    };
    Ok(connection.transport.backlog.len() <= mark)
}

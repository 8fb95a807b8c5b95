//! One connection's share of a turn: flush what waits, read once, take what is there, write once.
//!
//! The path of a message is [`Parts::visit`] → [`Parts::converse`] → [`take_frames`] → the application →
//! the cork → one write. Everything that is not that path leaves these functions early, as a [`Taken`].
//! Called by the turn.
//!
//! Invariant: a visit reads once, writes the cork once unless it gets full, and leaves the connection
//! with its rest and its alarm.
//!
//! Next: `accepting`: where connections come from.

use tungstenite::protocol::frame::coding::CloseCode;

use super::callbacks::Reading;
use super::closing::{Lost, cause_of};
use super::committing::Reply;
use super::connection_set::{Flushed, Room, Share, uncork};
use super::parts::Parts;
use super::requests::Served;
use super::runtime::{Callee, CloseCause};
use super::turn::Turn;
use crate::application::{Application, Context};
use crate::connection::{Attachment, Filled, FilledPast, Rest};
use crate::contained::Panicked;
use crate::environment::Environment;
use crate::protocol::endpoint::{Discarded, Endpoint, Event, Open};
use crate::protocol::frame::Violation;
use crate::protocol::message::{Message, Scratch};
use crate::token::LocalId;
use crate::transport::{HangUp, Inbound};

/// What a visit has read, and how far it is taken.
struct Input<'a> {
    /// Unmasked in place as it is taken.
    bytes: &'a mut [u8],
    /// Where what is not taken begins.
    at: usize,
    /// How many of the bytes are new.
    read: usize,
    /// Frames that may still be taken in this turn.
    frames: usize,
    /// Requests that may still be answered in this turn.
    requests: usize,
    /// Messages taken by the conversation under way.
    messages: u64,
}

/// What became of a stretch of input.
enum Taken {
    /// None was taken: this is no WebSocket, or not any more.
    NotOpen,
    /// The endpoint changed; what follows is read in its new state.
    Again,
    /// The input is taken to its end. It was empty, or held whole messages and nothing else: the
    /// endpoint is as it was.
    All,
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
    /// A message came from a watcher, whose messages no application takes.
    Unheard,
}

/// The recipient of the messages of an open connection.
trait Recipient {
    /// Where answers collect, its own and those to control frames.
    fn cork(&mut self) -> &mut Vec<u8>;

    /// Takes a message; `Some` if no more is to be taken now.
    fn hear(&mut self, message: Message<'_>) -> Option<Pause>;
}

/// The application.
struct Conversation<'a, 'c, A: Application> {
    application: &'a mut A,
    cx: &'a mut Context<'c, A>,
}

impl<A: Application> Recipient for Conversation<'_, '_, A> {
    #[inline(always)]
    fn cork(&mut self) -> &mut Vec<u8> {
        self.cx.cork
    }

    #[inline(always)]
    fn hear(&mut self, message: Message<'_>) -> Option<Pause> {
        self.application.on_message(self.cx, message);
        self.cx.commands.pause.then_some(Pause::Command)
    }
}

/// No application: the connection is a watcher, and is not to send messages.
struct Nobody<'a>(&'a mut Vec<u8>);

impl Recipient for Nobody<'_> {
    fn cork(&mut self) -> &mut Vec<u8> {
        self.0
    }

    fn hear(&mut self, _: Message<'_>) -> Option<Pause> {
        Some(Pause::Unheard)
    }
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Gives a ready connection its share.
    // Inlined into the turn, its one caller.
    #[inline(always)]
    pub(super) fn visit(
        &mut self,
        id: LocalId,
        buffer: &mut [u8],
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        let limits = &turn.setup.config.limits;
        let is_congested = self.deliveries.is_congested(limits);
        // An id in the ready queue may have outlived its connection.
        let Some(mut connection) = self.connections.slab.get_mut(id) else { return };
        connection.mark.clear();
        if connection.rest.is_unread() || connection.rest == Rest::Ended {
            return self.visit_unread(id, turn);
        }
        if is_congested || !connection.transport.backlog.is_empty() {
            match self.connections.make_room(id, turn) {
                Err(_) => return self.lose(id, turn),
                Ok(Room::Enough) if !is_congested => {}
                // Congested: it goes on when others have taken what is under way.
                Ok(Room::Enough) => return self.connections.settle(id, Share::UsedUp, turn),
                Ok(Room::None) => return self.connections.settle(id, Share::Left, turn),
                Ok(Room::Regained) => return self.tell_backlog_low(id, turn),
            }
            let Some(same) = self.connections.slab.get_mut(id) else { return };
            connection = same;
        }
        if connection.reads_past() {
            return self.visit_long(id, buffer, turn, env);
        }
        match connection.fill(buffer) {
            Ok(Filled { kept, read }) => {
                turn.setup.metrics.bytes_in.add(read as u64);
                self.take_input(id, &mut buffer[..kept + read], read, turn, env);
            }
            Err(_) => self.lose(id, turn),
        }
    }

    /// The visit of a connection that is not read. It only writes, and looks whether the peer has hung
    /// up: for a client that has gone, nobody need wait until a job returns.
    #[cold]
    fn visit_unread(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        match self.connections.visit_unread(id, turn) {
            Err(_) => self.lose(id, turn),
            Ok(unread) => match unread.hang_up {
                HangUp::Ended => self.end_of_stream(id, turn),
                HangUp::Broken => self.lose(id, turn),
                HangUp::NotYet if unread.flushed == Flushed::ToLowWaterMark => {
                    self.tell_backlog_low(id, turn);
                }
                HangUp::NotYet => {}
            },
        }
    }

    /// The visit in the middle of a message, or before one whose payload may be read past the buffer.
    #[inline(never)]
    fn visit_long(&mut self, id: LocalId, buffer: &mut [u8], turn: &mut Turn<'_>, env: &mut E) {
        let limits = &turn.setup.protocol_limits;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.transport.tls().is_some() {
            let Some(Filled { kept, read }) = self.fill_encrypted(id, buffer, turn) else { return };
            return self.take_input(id, &mut buffer[..kept + read], read, turn, env);
        }
        let Ok(FilledPast { past, filled }) = connection.fill_past(buffer, limits) else {
            return self.lose(id, turn);
        };
        if let Attachment::Live(live) = &mut connection.attachment {
            live.bytes_in += past as u64;
        }
        if past > 0 {
            connection.endpoint.note_alive(turn.now, limits);
        }
        turn.tell(|trace| trace.read_past(past));
        turn.setup.metrics.bytes_in.add((past + filled.read) as u64);
        let bytes = &mut buffer[..filled.kept + filled.read];
        self.take_input(id, bytes, past + filled.read, turn, env);
    }

    /// Takes the input as far as it goes, writes what it caused, and settles the connection. `read` is
    /// how many bytes of it are new.
    #[inline(always)]
    fn take_input(
        &mut self,
        id: LocalId,
        bytes: &mut [u8],
        read: usize,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        let limits = &turn.setup.config.limits;
        self.runtime.scratch.grant_share(limits.inflate_per_turn);
        let (frames, requests) = (limits.frames_per_turn, limits.requests_per_turn);
        let mut input = Input { bytes, at: 0, read, frames, requests, messages: 0 };
        let mut is_as_it_was = true;
        let step = loop {
            let step = match self.converse(id, &mut input, turn) {
                Taken::NotOpen => self.arrive_or_leave(id, &mut input, turn, env),
                step => step,
            };
            match step {
                // It has upgraded, or is closing: other deadlines.
                Taken::Again => is_as_it_was = false,
                Taken::Gone => return,
                Taken::All | Taken::NeedMore | Taken::NotOpen | Taken::Wait => break step,
            }
        };
        let Parts { connections, runtime, .. } = self;
        let Some(connection) = connections.slab.get_mut(id) else { return };
        let sent = uncork(connection, &mut runtime.cork, &mut connections.pool, turn);
        if let Err(error) = sent {
            runtime.trim_cork(&turn.setup.config.limits);
            return self.lose_to(id, &error, turn);
        }
        // The usual end. The connection is in the state in which it was before the visit, so its
        // deadline has not moved and its alarm is set. To settle it all the same took 100 instructions
        // a visit.
        if is_as_it_was && matches!(step, Taken::All) && connection.is_at_ease() {
            connection.rest = Rest::Blocked;
            return;
        }
        self.end_visit(id, &input, step, turn);
    }

    /// Keeps what is left of the input, and settles the connection.
    #[inline(always)]
    fn end_visit(&mut self, id: LocalId, input: &Input<'_>, step: Taken, turn: &mut Turn<'_>) {
        self.runtime.trim_cork(&turn.setup.config.limits);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let left = &input.bytes[input.at..];
        if !matches!(connection.endpoint, Endpoint::Closed) {
            if input.read > 0 && matches!(step, Taken::NeedMore) && connection.is_amid_frame(left) {
                connection.endpoint.note_alive(turn.now, &turn.setup.protocol_limits);
            }
            if let Err(error) = connection.keep(left) {
                return self.lose_to(id, &error, turn);
            }
            connection.note_intake();
        }
        let share = if matches!(step, Taken::Wait) { Share::UsedUp } else { Share::Left };
        if connection.transport.inbound() == Inbound::Ended && share == Share::Left {
            return self.end_of_stream(id, turn);
        }
        self.connections.settle(id, share, turn);
    }

    /// Takes input before a WebSocket is open, or when it is no longer. A function of its own, so that
    /// visits that find messages do not pay for it.
    #[inline(never)]
    fn arrive_or_leave(
        &mut self,
        id: LocalId,
        input: &mut Input<'_>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> Taken {
        let Some(connection) = self.connections.get_mut(id) else { return Taken::Gone };
        match &mut connection.endpoint {
            Endpoint::Open(_) => Taken::NotOpen,
            Endpoint::Handshaking(_) if input.requests == 0 => Taken::Wait,
            Endpoint::Handshaking(_) => {
                input.requests -= 1;
                match self.serve_request(id, input.bytes, &mut input.at, turn, env) {
                    Served::NeedMore => Taken::NeedMore,
                    Served::Answered => Taken::Again,
                    Served::Wait => Taken::Wait,
                    Served::Gone => Taken::Gone,
                }
            }
            Endpoint::Closing(_) => {
                let (endpoint, scratch) = (&mut connection.endpoint, &mut self.runtime.scratch);
                let (limits, now) = (&turn.setup.protocol_limits, turn.now);
                match endpoint.discard(input.bytes, &mut input.at, scratch, limits, now) {
                    Discarded::UpToNextState => Taken::Again,
                    Discarded::All => Taken::NeedMore,
                }
            }
            // One that awaits its answer is parked, so it is not read.
            Endpoint::Pending(_) | Endpoint::Closed => Taken::NeedMore,
        }
    }

    /// The hot path: frames to messages to the application, until the input or the share ends.
    // Not inlined, so that the loop has the registers to itself.
    #[inline(never)]
    fn converse(&mut self, id: LocalId, input: &mut Input<'_>, turn: &mut Turn<'_>) -> Taken {
        let Parts { connections, runtime, .. } = self;
        let Some(connection) = connections.slab.get_mut(id) else { return Taken::Gone };
        let Endpoint::Open(open) = &mut connection.endpoint else { return Taken::NotOpen };
        let Attachment::Live(live) = &mut connection.attachment else {
            return self.hear_watcher(id, input, turn);
        };
        if runtime.is_stored {
            runtime.note_count(live.slot, id);
        }
        let callee = Callee {
            id,
            peer: &connection.peer,
            session: live.slot,
            is_resumed: live.is_resumed,
            outlet: Some((&mut connection.transport, open.params())),
        };
        let begin = input.at;
        input.messages = 0;
        // One guard around all these messages: a panic ends this connection at whichever message it
        // came, and a guard for each message would keep the callback from being inlined.
        let called = runtime.invoke(callee, |application, cx, scratch| {
            take_frames(open, input, scratch, &mut Conversation { application, cx }, turn)
        });
        live.messages += input.messages;
        live.bytes_in += (input.at - begin) as u64;
        turn.setup.metrics.messages.add(input.messages);
        if self.runtime.is_stored {
            return self.end_stored_conversation(id, called, turn);
        }
        self.end_conversation(id, called, turn)
    }

    #[inline(always)]
    fn end_conversation(
        &mut self,
        id: LocalId,
        called: Option<Result<Pause, Panicked>>,
        turn: &mut Turn<'_>,
    ) -> Taken {
        match called {
            Some(Ok(Pause::AllTaken)) => Taken::All,
            Some(Ok(pause)) => self.pause(id, pause, turn),
            Some(Err(_)) => {
                self.end_panicked(id, turn);
                Taken::Again
            }
            None => {
                debug_assert!(false, "a displaced connection is closed before it is visited");
                Taken::NeedMore
            }
        }
    }

    /// The same where sessions are stored. If the replies are held, no more is heard until they leave.
    #[inline(never)]
    fn end_stored_conversation(
        &mut self,
        id: LocalId,
        called: Option<Result<Pause, Panicked>>,
        turn: &mut Turn<'_>,
    ) -> Taken {
        let reply = self.end_stored_call(id, turn);
        let taken = self.end_conversation(id, called, turn);
        let is_open = self.connections.get(id).is_some_and(|connection| connection.is_open());
        match (taken, reply) {
            (Taken::Again, Reply::IsHeld) if is_open => Taken::Wait,
            (taken, _) => taken,
        }
    }

    /// Takes what a watcher sends.
    #[cold]
    fn hear_watcher(&mut self, id: LocalId, input: &mut Input<'_>, turn: &mut Turn<'_>) -> Taken {
        let Parts { connections, runtime, .. } = self;
        let Some(connection) = connections.slab.get_mut(id) else { return Taken::Gone };
        let Endpoint::Open(open) = &mut connection.endpoint else { return Taken::NotOpen };
        let mut nobody = Nobody(&mut runtime.cork);
        let pause = take_frames(open, input, &mut runtime.scratch, &mut nobody, turn);
        self.pause(id, pause, turn)
    }

    /// What is to be done where a conversation stopped.
    #[inline(never)]
    fn pause(&mut self, id: LocalId, pause: Pause, turn: &mut Turn<'_>) -> Taken {
        let cause = match pause {
            Pause::AllTaken => return Taken::All,
            Pause::NeedMore => return Taken::NeedMore,
            Pause::Share => return Taken::Wait,
            Pause::CorkFull => return self.uncork_in_visit(id, turn),
            Pause::Command => {
                return match self.apply_commands(id, turn) {
                    Reading::Stops => Taken::Wait,
                    Reading::GoesOn if self.is_full_of_replies(id, turn) => {
                        self.uncork_in_visit(id, turn)
                    }
                    Reading::GoesOn => Taken::Again,
                };
            }
            Pause::PeerClosed(code) => CloseCause::Answered(code),
            Pause::Broken(violation) => cause_of(id, violation, turn),
            Pause::Unheard => {
                CloseCause::Ours(CloseCode::Unsupported, "this path only tells".into())
            }
        };
        self.leave_in_visit(id, cause, turn);
        Taken::Again
    }

    /// Whether the cork has to be written before a connection that is still open is heard again.
    fn is_full_of_replies(&self, id: LocalId, turn: &Turn<'_>) -> bool {
        self.runtime.cork.len() >= turn.setup.config.limits.cork_bytes
            && self.connections.get(id).is_some_and(|connection| connection.is_open())
    }

    /// Writes a full cork in mid-visit; the visit goes on if the socket keeps up.
    fn uncork_in_visit(&mut self, id: LocalId, turn: &mut Turn<'_>) -> Taken {
        if let Err(Lost) = self.uncork(id, turn) {
            return Taken::Gone;
        }
        let mark = turn.setup.config.max_send_buffer;
        match self.connections.get(id) {
            Some(connection) if connection.transport.backlog.len() <= mark => Taken::Again,
            _ => Taken::Wait,
        }
    }
}

/// Takes frames from the input until it, or the connection's share, ends.
#[inline(always)]
fn take_frames(
    open: &mut Open,
    input: &mut Input<'_>,
    scratch: &mut Scratch,
    recipient: &mut impl Recipient,
    turn: &Turn<'_>,
) -> Pause {
    let limits = &turn.setup.protocol_limits;
    let cork_bytes = turn.setup.config.limits.cork_bytes;
    let mut is_plain = true;
    while input.frames > 0 {
        // Nearly every visit ends so.
        if input.at == input.bytes.len() && !open.has_more() {
            return if is_plain { Pause::AllTaken } else { Pause::NeedMore };
        }
        input.frames -= 1;
        // The commonest message has a call of its own: to wrap it as an event, and to unwrap that,
        // costs half of what it costs to take the message.
        let message = match open.next_short(input.bytes, &mut input.at, scratch, limits) {
            Some(Ok(message)) => message,
            Some(Err(violation)) => return Pause::Broken(violation),
            None => {
                let was_amid_message = open.is_amid_message();
                let (bytes, at, cork) = (&mut *input.bytes, &mut input.at, recipient.cork());
                match open.next(bytes, at, scratch, limits, turn.now, cork) {
                    Ok(Some(Event::Message(message))) => {
                        is_plain &= !was_amid_message;
                        message
                    }
                    Ok(Some(Event::Control)) if recipient.cork().len() < cork_bytes => {
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
        input.messages += 1;
        if let Some(pause) = recipient.hear(message) {
            return pause;
        }
        if recipient.cork().len() >= cork_bytes {
            return Pause::CorkFull;
        }
    }
    Pause::Share
}

//! What is for one connection: frames and closes from others.
//!
//! Finds the connection, or the reactor where it is to be looked for. Encodes nothing. Called by `fanout`
//! for what callbacks here have sent, by `mail` for what comes from other reactors, and by `posts`.
//!
//! Invariant: what is for one connection is delivered once, or counted as delivered to nobody.
//!
//! Next: `fanout`: what is for all.

use std::slice;

use super::connection_set::Share;
use super::parts::Parts;
use super::runtime::CloseCause;
use super::turn::Turn;
use crate::application::{Application, Broadcast, Direct, Directed, Recipient, To};
use crate::connection::Attachment;
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::protocol::endpoint::Endpoint;
use crate::session::owner_of;
use crate::token::LocalId;

/// Where a recipient is.
pub(super) enum Whereabouts {
    /// Here, under this name.
    Here(LocalId),
    /// Here: several that share a session, in the order of coming.
    AllOf(Vec<LocalId>),
    /// If anywhere, on that reactor.
    Elsewhere(usize),
    Nowhere,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Delivers what a callback here has sent to one connection, or sends it on its way.
    pub(super) fn direct(&mut self, direct: Direct, turn: &mut Turn<'_>, env: &mut E) {
        match self.find(&direct.to, turn) {
            Whereabouts::Elsewhere(reactor) => {
                self.deliveries.post(reactor, Mail::Direct(direct), env);
            }
            found => self.deliver_there(&found, &direct.what, turn),
        }
    }

    /// Delivers what has come from another reactor.
    pub(super) fn take_direct(&mut self, direct: Direct, turn: &mut Turn<'_>) {
        let found = self.find(&direct.to, turn);
        self.deliver_there(&found, &direct.what, turn);
    }

    /// Where a recipient is.
    pub(super) fn find(&self, recipient: &Recipient, turn: &Turn<'_>) -> Whereabouts {
        let (reactors, here) = (turn.setup.config.workers.get(), turn.setup.reactor);
        let (reactor, ids) = match &recipient.0 {
            To::Connection(id) => (id.reactor(), slice::from_ref(&id.local)),
            To::Session(session) => {
                let owner = owner_of(session.text().as_str(), reactors);
                (owner, self.runtime.sessions.connections_of(session))
            }
            To::Nobody => return Whereabouts::Nowhere,
        };
        if reactor != here {
            // An id of another server's may name a reactor that this one has not.
            return match reactor < reactors {
                true => Whereabouts::Elsewhere(reactor),
                false => Whereabouts::Nowhere,
            };
        }
        match ids {
            &[id] if self.is_listening(id) => Whereabouts::Here(id),
            // Those who speak for a session are open.
            [_, _, ..] => Whereabouts::AllOf(ids.to_vec()),
            _ => Whereabouts::Nowhere,
        }
    }

    /// Whether a connection is an open WebSocket of the application's: watchers are not.
    fn is_listening(&self, id: LocalId) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            connection.is_open() && matches!(connection.attachment, Attachment::Live(_))
        })
    }

    fn deliver_there(&mut self, found: &Whereabouts, what: &Directed, turn: &mut Turn<'_>) {
        match found {
            Whereabouts::Here(id) => self.deliver(*id, what, turn),
            Whereabouts::AllOf(ids) => ids.iter().for_each(|&id| self.deliver(id, what, turn)),
            Whereabouts::Elsewhere(_) | Whereabouts::Nowhere => note_undelivered(turn),
        }
    }

    fn deliver(&mut self, id: LocalId, what: &Directed, turn: &mut Turn<'_>) {
        match what {
            Directed::Frame(frame) => {
                let before = self.outgoing_if_traced(id, turn);
                self.send_frame(id, frame, turn);
                self.runtime.deflater.forget_broadcast();
                self.tell_said(id, before, turn);
            }
            Directed::Close(code, reason) => {
                self.leave_aside(id, CloseCause::Ours(*code, reason.clone().into()), turn);
            }
        }
    }

    /// Writes a frame of others to a connection, if it is open and has a session: the application has
    /// nothing to do with watchers.
    pub(super) fn send_frame(&mut self, id: LocalId, frame: &Broadcast, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.slab.get_mut(id) else { return };
        let (Endpoint::Open(open), Attachment::Live(_)) =
            (&connection.endpoint, connection.attachment)
        else {
            return;
        };
        let frame = match open.params() {
            None => &frame[..],
            Some(params) => self.runtime.deflater.for_all(params, frame),
        };
        if connection.is_above_mark(&turn.setup.config) {
            // Dropping the frame would leave a hole in an ordered stream without a word
            // (workadventure/workadventure#6125), so the connection ends instead.
            return self.leave_aside(id, CloseCause::slow_consumer(), turn);
        }
        let sent = connection.transport.send(frame, turn.now, &mut self.connections.pool);
        turn.setup.metrics.bytes_out.add(frame.len() as u64);
        match sent {
            Ok(()) => self.connections.settle(id, Share::Left, turn),
            Err(error) => self.lose_to(id, &error, turn),
        }
    }
}

/// There was nobody for what was for one connection.
#[cold]
pub(super) fn note_undelivered(turn: &Turn<'_>) {
    turn.setup.metrics.undelivered.add(1);
}

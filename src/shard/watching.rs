//! WebSockets that are told what the reactors do: the figures of the live page.
//!
//! A watcher is a connection like any other of the reactor that accepted it: pings, deadlines,
//! backpressure and the drain are those of every WebSocket. It has no session, and the application
//! is not told of it. The list of watchers and the result of the last look are kept by
//! [`Watchers`](crate::observe::watchers::Watchers). Takes no lock, and does nothing while there is no
//! watcher. Called by `requests` and by the turn.
//!
//! Invariant: a watcher that does not read misses frames; it never has two waiting.
//!
//! Next: `plain_requests`: requests that the application answers.

use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::connection::Attachment;
use crate::environment::Environment;
use crate::http::{Body, Rejection};
use crate::mailbox::Mail;
use crate::observe::slab_map::SlotState;
use crate::observe::turn_trace::TurnTrace;
use crate::protocol::frame;
use crate::protocol::handshake::{self, Accept};
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Makes a connection one that watches.
    pub(super) fn watch(&mut self, id: LocalId, accept: &Accept, turn: &mut Turn<'_>) {
        let config = &turn.setup.config;
        if self.watchers.told().len() >= config.limits.watchers {
            return self.refuse(id, Rejection::TooManyWatchers, Body::Sent, turn);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        // What is told is mostly a slab map, which is compact already: no parameters for deflate.
        connection.endpoint.open(None, turn.now, &turn.setup.protocol_limits);
        connection.attachment = Attachment::Watching;
        let cork = &mut self.runtime.cork;
        handshake::begin_response(accept, cork);
        cork.extend_from_slice(config.response_fields.lines().as_bytes());
        handshake::end_response(cork);
        log::debug!(connection:% = id, reactor = turn.setup.reactor; "{} watches", connection.peer);
        turn.tell(|trace| trace.watches(id));
        self.watchers.add(id, turn.now, &config.limits);
    }

    /// A turn's worth of watching.
    #[inline]
    pub(super) fn look(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.watchers.is_drawing() || self.watchers.next_look().is_some() {
            self.look_around(turn, env);
        }
    }

    #[cold]
    fn look_around(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.watchers.next_look().is_some_and(|at| at <= turn.now) {
            // A reactor that has not answered by now is shown as one that does not.
            if self.watchers.owes_frame() {
                self.send_figures(turn);
            }
            // The last watcher may have been lost with that frame.
            if !self.watchers.told().is_empty() {
                self.ask_all(turn, env);
            }
        }
        self.draw(turn, env);
        if self.watchers.owes_frame() && self.watchers.has_all_answers() {
            self.send_figures(turn);
        }
    }

    fn ask_all(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let here = turn.setup.reactor;
        turn.tell(TurnTrace::looks);
        let mut is_here_asked = false;
        self.watchers.look(turn.now, &turn.setup.config.limits, |reactor| {
            if reactor == here {
                is_here_asked = true;
                return Ok(());
            }
            // If the mailbox is full, it is not sent: other mail matters more.
            env.send(reactor, Mail::Look { asker: here })
        });
        if is_here_asked {
            self.watchers.ask(here);
        }
    }

    /// Draws a slice of this slab, and sends the map to all who asked once it is whole.
    fn draw(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if !self.watchers.is_drawing() {
            return;
        }
        let limits = &turn.setup.config.limits;
        let slab = &self.connections.slab;
        let slots = slab.slots();
        let builder = self.watchers.builder();
        let end = slots.min(limits.slab_map_slots);
        let from = builder.drawn();
        let mut share = limits.look_slice;
        // Vacant slots are not looked at one by one, however many a former crowd has left.
        while share > 0 && builder.drawn() < end {
            let at = builder.drawn();
            let Some(state) = slab.at(at).map(SlotState::of) else {
                let next = slab.next_from(at).map_or(end, |id| end.min(id.index as usize));
                builder.push_run(SlotState::Vacant, next - at);
                share -= 1;
                continue;
            };
            let others = at + 1..end.min(at + share);
            let same = others.take_while(|&slot| slab.at(slot).map(SlotState::of) == Some(state));
            let length = 1 + same.count();
            builder.push_run(state, length);
            share -= length;
        }
        let stop = builder.drawn();
        let is_whole = stop >= end;
        turn.tell(|trace| trace.drew(from, stop, slots));
        if !is_whole {
            return;
        }
        let here = turn.setup.reactor;
        let (slab_map, askers) = self.watchers.finish(here, slots);
        for asker in askers {
            if asker == here {
                self.watchers.note(slab_map.clone());
            } else {
                self.deliveries.post(asker, Mail::Seen(slab_map.clone()), env);
            }
        }
    }

    /// Sends what is known of all reactors to all that watch here and have read the last frame.
    fn send_figures(&mut self, turn: &mut Turn<'_>) {
        let text = {
            let status = &turn.setup.status;
            self.watchers.take_figures(status.reactors(), status.store(), turn.now)
        };
        let mut encoded = Vec::with_capacity(frame::MAX_HEADER + text.len());
        frame::encode(OpCode::Data(Data::Text), text.as_bytes(), &mut encoded);
        for id in self.watchers.told().to_vec() {
            let connection = self.connections.get(id);
            if connection.is_some_and(|connection| connection.transport.backlog.is_empty()) {
                self.connections.aside.extend_from_slice(&encoded);
                self.send_aside(id, turn);
            }
        }
    }
}

//! Broadcasts: one encoding, every open connection, a slice a turn.
//!
//! Frames are taken one after the other, so each connection gets them in the order in which this
//! reactor did.
//!
//! Next: [`crate::shard::watching`]: those who are told what all of this does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tungstenite::protocol::frame::coding::CloseCode;

use super::Shard;
use super::closing::Leaving;
use super::story::Story;
use crate::application::{Application, ReactorContext};
use crate::connection::Attachment;
use crate::host::Host;
use crate::mailbox::Mail;
use crate::protocol::endpoint::Endpoint;

impl<A: Application, H: Host> Shard<A, H> {
    /// Calls the application's `on_tick`.
    pub(super) fn tick(&mut self, now: Instant) {
        let interval = self.application.tick_interval();
        // From now and not from the tick that was due: a reactor that was held up skips beats, it
        // does not make up for them.
        self.next_tick = interval.map(|interval| now + interval);
        let mut cx = ReactorContext { wishes: &mut self.wishes, reactor: self.reactor };
        let application = &mut self.application;
        let outcome = catch_unwind(AssertUnwindSafe(|| application.on_tick(&mut cx, now)));
        self.tell(Story::ticked);
        if outcome.is_err() {
            self.metrics.panics.add(1);
            log::error!(reactor = self.reactor; "the application panicked in on_tick");
        }
        self.broadcasts.extend(self.wishes.to_reactor.drain(..));
    }

    /// Sends the broadcasts that callbacks asked for on their way.
    #[inline]
    pub(super) fn forward_wishes(&mut self, host: &mut H) {
        if !self.wishes.to_all.is_empty() {
            self.forward_broadcasts(host);
        }
    }

    #[cold]
    fn forward_broadcasts(&mut self, host: &mut H) {
        let frames = std::mem::take(&mut self.wishes.to_all);
        let here = self.reactor;
        for frame in frames {
            for reactor in (0..self.config.workers.get()).filter(|&other| other != here) {
                self.post(reactor, Mail::Broadcast(frame.clone()), host);
            }
            self.tell(|story| story.broadcast(frame.len()));
            self.broadcasts.push_back(frame);
        }
    }

    /// Writes a slice of the broadcast under way.
    pub(super) fn fan_out(&mut self, now: Instant) {
        let Some(frame) = self.broadcasts.front().cloned() else { return };
        let end = self.connections.slots();
        let stop = end.min(self.fanout_at + self.config.limits.broadcast_slice);
        let from = self.fanout_at;
        self.tell(|story| story.fanned_out(frame.len(), from, stop, end));
        for index in from..stop {
            let Some(id) = self.connections.tenant(index) else { continue };
            let Some(connection) = self.connections.get_mut(id) else { continue };
            // Open, and not somebody who watches the reactors: the application has no part in that.
            if !matches!(connection.attachment, Attachment::Live(_)) {
                continue;
            }
            let Endpoint::Open(open) = &connection.endpoint else { continue };
            let frame = match open.agreement() {
                None => &frame[..],
                Some(agreement) => self.deflater.for_all(agreement, &frame),
            };
            // The size of the frame is not the fault of those who hear it: it counts only behind
            // something that they have not taken.
            let waiting = connection.backlog.len();
            if waiting > 0 && waiting + frame.len() > self.config.max_send_buffer {
                // Dropping the frame would leave a hole in an ordered stream without a word
                // (workadventure/workadventure#6125), so the connection ends instead.
                let leaving = Leaving::Failed(CloseCode::Policy, "slow consumer");
                self.leave_aside(id, leaving, now);
                continue;
            }
            let sent = connection.send(frame, now, &mut self.pool);
            self.metrics.bytes_out.add(frame.len() as u64);
            match sent {
                Ok(()) => self.settle(id, false, now),
                Err(_) => self.lose(id, now),
            }
        }
        self.fanout_at = stop;
        if stop == end {
            self.broadcasts.pop_front();
            self.deflater.forget_broadcast();
            self.fanout_at = 0;
        }
    }
}

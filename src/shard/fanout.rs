//! Broadcasts: one encoding, every open connection, a slice a turn.
//!
//! Frames are taken one after the other, so each connection gets them in the order in which this
//! reactor did.
//!
//! Next: [`crate::shard::watchers`]: those who are told what all of this does.

use std::time::Instant;

use tungstenite::protocol::frame::coding::CloseCode;

use super::Shard;
use super::closing::CloseCause;
use crate::application::Application;
use crate::connection::Attachment;
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::protocol::endpoint::Endpoint;
use crate::token::ConnectionId;

impl<A: Application, E: Environment> Shard<A, E> {
    /// Sends the broadcasts and the jobs that callbacks asked for on their way; those of a visit, if
    /// `visited` is a connection.
    #[inline]
    pub(super) fn forward_commands(&mut self, visited: Option<ConnectionId>, env: &mut E) {
        if self.commands.has_outgoing {
            self.forward(visited, env);
        }
    }

    #[cold]
    fn forward(&mut self, visited: Option<ConnectionId>, env: &mut E) {
        // A job that nobody takes ends its connection, and `on_close` may give commands too.
        while std::mem::take(&mut self.commands.has_outgoing) {
            let has_broadcast = !self.commands.to_all.is_empty();
            self.forward_broadcasts(env);
            if let Some(id) = visited.filter(|_| has_broadcast) {
                self.hold_broadcaster(id);
            }
            self.forward_jobs(env);
        }
    }

    fn forward_jobs(&mut self, env: &mut E) {
        let jobs = self.commands.jobs.take_outgoing();
        if jobs.is_empty() {
            return;
        }
        self.tell(|trace| trace.off_loaded(jobs.len()));
        for job in jobs {
            self.metrics.offloads.add(1);
            if let Err(job) = env.offload(job) {
                self.take_finished(job.fail(), self.commands.now);
            }
        }
    }

    fn forward_broadcasts(&mut self, env: &mut E) {
        let frames = std::mem::take(&mut self.commands.to_all);
        let here = self.reactor;
        for frame in frames {
            for reactor in (0..self.config.workers.get()).filter(|&other| other != here) {
                self.post(reactor, Mail::Broadcast(frame.clone()), env);
            }
            self.tell(|trace| trace.broadcast(frame.len()));
            self.broadcasts.push_back(frame);
        }
    }

    /// Writes a slice of the broadcast under way.
    pub(super) fn fan_out(&mut self, now: Instant) {
        let Some(frame) = self.broadcasts.front().cloned() else { return };
        let from = self.fanout_at;
        let left_before = self.tell_left(from);
        for _ in 0..self.config.limits.broadcast_slice {
            let Some(id) = self.connections.next_from(self.fanout_at) else { break };
            self.fanout_at = id.index as usize + 1;
            let Some(connection) = self.connections.get_mut(id) else { continue };
            // Open, and not somebody who watches the reactors: the application has no part in that.
            if !matches!(connection.attachment, Attachment::Live(_)) {
                continue;
            }
            let Endpoint::Open(open) = &connection.endpoint else { continue };
            let frame = match open.params() {
                None => &frame[..],
                Some(params) => self.deflater.for_all(params, &frame),
            };
            // The size of the frame is not the fault of those who hear it: it counts only behind
            // something that they have not taken.
            let waiting = connection.transport.backlog.len();
            if waiting > 0 && waiting + frame.len() > self.config.max_send_buffer {
                // Dropping the frame would leave a hole in an ordered stream without a word
                // (workadventure/workadventure#6125), so the connection ends instead.
                let cause = CloseCause::Failed(CloseCode::Policy, "slow consumer");
                self.leave_aside(id, cause, now);
                continue;
            }
            let sent = connection.transport.send(frame, now, &mut self.pool);
            self.metrics.bytes_out.add(frame.len() as u64);
            match sent {
                Ok(()) => self.settle(id, false, now),
                Err(error) => self.lose_to(id, &error, now),
            }
        }
        let stop = self.fanout_at;
        self.tell_fanned_out(left_before, frame.len(), from, stop);
        if self.connections.next_from(stop).is_none() {
            self.broadcasts.pop_front();
            self.deflater.forget_broadcast();
            self.fanout_at = 0;
        }
    }
}

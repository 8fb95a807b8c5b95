//! What callbacks send elsewhere: jobs for the pool, and broadcasts. A broadcast is encoded once and
//! written to every open connection, a slice of them in each turn.
//!
//! Frames are taken one after the other, so each connection gets them in the order in which this
//! reactor did. Decides nothing about who may broadcast. Called by the turn.
//!
//! Invariant: a connection gets every broadcast that was made while it was open, or it is closed.
//!
//! Next: `upgrade`: how connections become WebSockets.

use super::connection_set::Share;
use super::parts::Parts;
use super::runtime::CloseCause;
use super::turn::Turn;
use crate::application::{Application, Broadcast};
use crate::connection::Attachment;
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::protocol::endpoint::Endpoint;
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Sends the broadcasts and the jobs that callbacks asked for on their way; those of a visit, if
    /// `visited` is a connection.
    #[inline]
    pub(super) fn forward_commands(
        &mut self,
        visited: Option<LocalId>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        if self.runtime.commands.has_outgoing {
            self.forward(visited, turn, env);
        }
    }

    #[cold]
    fn forward(&mut self, visited: Option<LocalId>, turn: &mut Turn<'_>, env: &mut E) {
        // A job that the pool does not take ends its connection, and `on_close` may give commands too.
        while std::mem::take(&mut self.runtime.commands.has_outgoing) {
            let has_broadcast = !self.runtime.commands.to_all.is_empty();
            self.forward_broadcasts(turn, env);
            if let Some(id) = visited.filter(|_| has_broadcast) {
                let Parts { deliveries, connections, .. } = self;
                deliveries.hold_broadcaster(id, connections, &turn.setup.config.limits);
            }
            self.forward_jobs(turn, env);
        }
    }

    fn forward_jobs(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let jobs = self.runtime.commands.jobs.take_outgoing();
        if jobs.is_empty() {
            return;
        }
        turn.tell(|trace| trace.off_loaded(jobs.len()));
        for job in jobs {
            turn.setup.metrics.offloads.add(1);
            if let Err(job) = env.offload(job)
                && let Some(finished) = job.fail()
            {
                self.take_finished(finished, turn);
            }
        }
    }

    fn forward_broadcasts(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let here = turn.setup.reactor;
        for frame in std::mem::take(&mut self.runtime.commands.to_all) {
            for reactor in (0..turn.setup.config.workers.get()).filter(|&other| other != here) {
                self.deliveries.post(reactor, Mail::Broadcast(frame.clone()), env);
            }
            turn.tell(|trace| trace.broadcast(frame.len()));
            self.deliveries.broadcasts.push_back(frame);
        }
    }

    /// Writes a slice of the broadcast under way.
    pub(super) fn fan_out(&mut self, turn: &mut Turn<'_>) {
        let Some(frame) = self.deliveries.broadcasts.front().cloned() else { return };
        let from = self.deliveries.fanout_at;
        let left_before = self.left_if_traced(from, turn);
        for _ in 0..turn.setup.config.limits.broadcast_slice {
            let Some(id) = self.connections.slab.next_from(self.deliveries.fanout_at) else {
                break;
            };
            self.deliveries.fanout_at = id.index as usize + 1;
            self.send_broadcast(id, &frame, turn);
        }
        let stop = self.deliveries.fanout_at;
        self.tell_fanned_out(left_before, frame.len(), (from, stop), turn);
        if self.connections.slab.next_from(stop).is_none() {
            self.deliveries.broadcasts.pop_front();
            self.runtime.deflater.forget_broadcast();
            self.deliveries.fanout_at = 0;
        }
    }

    /// Writes a broadcast to one connection, if it is open and has a session: the application has
    /// nothing to do with watchers.
    fn send_broadcast(&mut self, id: LocalId, frame: &Broadcast, turn: &mut Turn<'_>) {
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
        // The size of the frame is not the recipient's fault: it counts only behind something that
        // the recipient has not taken.
        let waiting = connection.transport.backlog.len();
        if waiting > 0 && waiting + frame.len() > turn.setup.config.max_send_buffer {
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

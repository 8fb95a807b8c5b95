//! What callbacks send elsewhere: jobs for the pool, what is for one connection or one reactor, and broadcasts.
//! A broadcast is encoded once and written to every open connection, a slice of them in each turn.
//!
//! Frames are taken one after the other, so each connection gets them in the order in which this
//! reactor did. Decides nothing about who may broadcast. Called by the turn.
//!
//! Invariant: a connection gets every broadcast that was made while it was open, or it is closed.
//!
//! Next: `posts`: what other threads and reactors want done.

use super::parts::Parts;
use super::turn::Turn;
use crate::application::{Application, Post};
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::tasks::TaskOrder;
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Sends on its way what callbacks have for others, and the jobs that they asked for; of a visit, if
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
            let commands = &self.runtime.commands;
            let has_sent = !commands.to_all.is_empty()
                || !commands.directs.is_empty()
                || !commands.posts.is_empty();
            self.forward_broadcasts(turn, env);
            for direct in std::mem::take(&mut self.runtime.commands.directs) {
                self.direct(direct, turn, env);
            }
            self.deliveries.post_to_reactors(std::mem::take(&mut self.runtime.commands.posts));
            if let Some(id) = visited.filter(|_| has_sent) {
                let Parts { deliveries, connections, .. } = self;
                deliveries.hold_sender(id, connections, &turn.setup.config.limits);
            }
            self.forward_jobs(turn, env);
            if std::mem::take(&mut self.runtime.commands.shut_down) {
                shut_down(turn, env);
            }
        }
    }

    fn forward_jobs(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let asker = turn.setup.reactor;
        let questions = self.runtime.commands.jobs.take_questions().into_iter();
        let posts =
            questions.map(|(reactor, question)| (reactor, Post::Question { asker, question }));
        self.deliveries.post_to_reactors(posts.collect());
        for owner in self.runtime.commands.jobs.take_released() {
            self.deliver_answers(owner, turn);
        }
        self.schedule_look_at_orphans();
        self.forward_tasks(turn, env);
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

    fn forward_tasks(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let orders = self.runtime.commands.jobs.take_orders();
        if !orders.is_empty() {
            self.send_tasks(orders, turn, env);
        }
    }

    /// On its own, so that turns without a task do not pay for it.
    #[inline(never)]
    fn send_tasks(&mut self, orders: Vec<TaskOrder>, turn: &mut Turn<'_>, env: &mut E) {
        turn.tell(|trace| trace.enqueued(orders.len()));
        for order in orders {
            if let Err(order) = env.enqueue(order) {
                self.take_finished(order.refuse(), turn);
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
    #[inline]
    pub(super) fn fan_out(&mut self, turn: &mut Turn<'_>) {
        if !self.deliveries.broadcasts.is_empty() {
            self.write_slice(turn);
        }
    }

    #[inline(never)]
    fn write_slice(&mut self, turn: &mut Turn<'_>) {
        let Some(frame) = self.deliveries.broadcasts.front().cloned() else { return };
        let from = self.deliveries.fanout_at;
        let left_before = self.left_if_traced(from, turn);
        for _ in 0..turn.setup.config.limits.broadcast_slice {
            let Some(id) = self.connections.slab.next_from(self.deliveries.fanout_at) else {
                break;
            };
            self.deliveries.fanout_at = id.index as usize + 1;
            self.send_frame(id, &frame, turn);
        }
        let stop = self.deliveries.fanout_at;
        self.tell_fanned_out(left_before, frame.len(), (from, stop), turn);
        if self.connections.slab.next_from(stop).is_none() {
            self.deliveries.broadcasts.pop_front();
            self.deliveries.fanned_out += 1;
            self.runtime.deflater.forget_broadcast();
            self.deliveries.fanout_at = 0;
        }
    }
}

/// Begins the drain of the server: a shared value, and a wake for each reactor, this one included.
fn shut_down(turn: &Turn<'_>, env: &mut impl Environment) {
    turn.setup.status.begin_drain(turn.now);
    (0..turn.setup.config.workers.get()).for_each(|reactor| env.wake(reactor));
}

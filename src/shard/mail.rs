//! Mail from other reactors, and what is done for connections that waited to send some.
//!
//! What waits is kept by [`Deliveries`](super::deliveries::Deliveries). Called by the turn.
//!
//! Invariant: a turn takes a share of the mail, and never more broadcasts than it has room for.
//!
//! Next: `deadlines`: what happens because time has passed.

use super::accepting::Arrival;
use super::connection_set::Share;
use super::lifecycle::Drain;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::connection::Rest;
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::observe::slow_turn::Callback;
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Reads a share of the mail.
    #[inline]
    pub(super) fn take_mail(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.deliveries.has_mail {
            self.read_mail(turn, env);
        }
    }

    #[inline(never)]
    fn read_mail(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        // A wake without mail says that there is something new in what all reactors share.
        if turn.setup.status.store_failure().is_some() {
            self.lifecycle.abandon(turn);
        }
        if turn.setup.status.draining_since().is_some() {
            self.begin_drain(turn, env);
        }
        if !self.restoring.is_done() {
            self.restore_some(turn);
        }
        let limits = &turn.setup.config.limits;
        let mut share = limits.mails_per_turn;
        while share > 0 {
            share -= 1;
            // Broadcasts are taken no faster than they are written here, so the mailbox fills, and
            // a reactor that sends too many has to wait. Writing waits for nobody, so this ends.
            if self.deliveries.broadcasts.len() >= limits.broadcasts_queued {
                return;
            }
            match env.receive() {
                None => {
                    self.deliveries.has_mail = self.restoring.is_under_way();
                    return;
                }
                Some(Mail::HandOver(handoff)) => {
                    turn.setup.metrics.hand_overs_in.add(1);
                    let _ = self.adopt(handoff, Arrival::HandedOver, turn, env);
                }
                // An answer takes nothing of the share: otherwise many answers could keep out all
                // other mail. Their number is bounded, because no job leaves for the pool in this step.
                Some(Mail::Finished(finished)) => {
                    share += 1;
                    self.take_finished(finished, turn);
                }
                Some(Mail::Stored(number)) => self.take_stored(number, turn),
                Some(Mail::Settled(outcome)) => self.take_outcome(outcome, turn),
                Some(Mail::TakenOver(takeover)) => self.take_takeover(takeover, turn),
                Some(Mail::Broadcast(frame)) => {
                    turn.tell(|trace| trace.broadcast(frame.len()));
                    self.deliveries.broadcasts.push_back(frame);
                }
                Some(Mail::Direct(direct)) => self.take_direct(direct, turn),
                Some(Mail::Look { asker }) => self.watchers.ask(asker),
                Some(Mail::Seen(slab_map)) => self.watchers.note(slab_map),
            }
        }
    }

    /// Starts to go away, if it has not begun yet. What the application says about it reaches the clients
    /// before their goodbye does.
    fn begin_drain(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.lifecycle.begin_drain(turn) == Drain::UnderWay {
            return;
        }
        let _ = self.call_for_reactor(turn.setup, |application, cx| application.on_drain(cx));
        turn.observer.slow_turns.called(Callback::Drain, 1, None);
        self.forward_commands(None, turn, env);
    }

    /// Tries again what found a full box, each reactor's in order.
    #[inline]
    pub(super) fn send_mail(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.deliveries.has_waiting() {
            self.send_waiting(turn, env);
        }
    }

    #[cold]
    fn send_waiting(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        self.deliveries.send_posts();
        for reactor in 0..turn.setup.config.workers.get() {
            self.deliveries.send_waiting(reactor, env);
            while let Some(id) = self.deliveries.next_hand_over(reactor, env) {
                // It may have been refused or closed meanwhile, or have failed in this very turn.
                if let Some(connection) = self.connections.get_mut(id)
                    && connection.rest == Rest::Waiting
                {
                    connection.rest = Rest::Spent;
                    let received = connection.take_tail();
                    self.hand_over(id, reactor, &received, turn, env);
                }
            }
        }
        for id in self.deliveries.take_senders(&turn.setup.config.limits) {
            self.hear_again(id, turn);
        }
    }

    fn hear_again(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let connection = self.connections.get(id);
        if connection.is_some_and(|connection| connection.rest == Rest::Waiting) {
            self.connections.unpark(id, turn);
            self.connections.settle(id, Share::UsedUp, turn);
        }
    }
}

//! Mail between reactors: what is taken from the own mailbox, and what waits for room in another's.
//!
//! When a reactor's mailbox is full (it is held up by a callback, or gets more hand-overs than it can
//! take), the connection that is to be handed over rests where it is, and so does one that has broadcast
//! something, until what waits has been delivered. The others go on, as long as no more than
//! [`crate::config::Limits::outbox_most`] mails wait.
//! Called by the turn, and by whoever has something to send.
//!
//! Invariant: mail to one reactor is delivered in order; every connection that rests as
//! [`Rest::Waiting`] stands here. (What stands here may have been closed meanwhile.)
//!
//! Next: [`crate::shard::visit`]: a connection's first visit.

use std::collections::VecDeque;
use std::time::Instant;

use super::Shard;
use crate::application::Application;
use crate::connection::Rest;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::mailbox::Mail;
use crate::token::ConnectionId;

/// What waits for room in other reactors' mailboxes.
#[derive(Debug)]
pub(super) struct Outbox<S> {
    /// By destination, mail that found a full box.
    mails: Box<[VecDeque<Mail<S>>]>,
    /// How many those are.
    count: usize,
    /// The same and the connections that wait: one look tells whether there is anything to do.
    waiting: usize,
    /// By destination, connections that are to be handed over, in the order in which they asked.
    hand_overs: Box<[VecDeque<ConnectionId>]>,
    /// Connections that have broadcast something, and are heard again when nothing waits.
    broadcasters: Vec<ConnectionId>,
}

impl<S> Outbox<S> {
    pub(super) fn new(reactors: usize) -> Self {
        Outbox {
            mails: (0..reactors).map(|_| VecDeque::new()).collect(),
            count: 0,
            waiting: 0,
            hand_overs: (0..reactors).map(|_| VecDeque::new()).collect(),
            broadcasters: Vec::new(),
        }
    }

    /// Mails that wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether no mail waits.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether another reactor's room is waited for, by mail or by a connection.
    pub(super) fn waits_for_room(&self) -> bool {
        self.waiting > self.broadcasters.len()
    }

    /// Checks that what is counted is there.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub(super) fn invariants(&self) {
        assert_eq!(self.count, self.mails.iter().map(VecDeque::len).sum::<usize>());
        let hand_overs = self.hand_overs.iter().map(VecDeque::len).sum::<usize>();
        assert_eq!(self.waiting, self.count + hand_overs + self.broadcasters.len());
    }

    /// Whether a connection waits here.
    pub(super) fn holds(&self, id: ConnectionId) -> bool {
        self.broadcasters.contains(&id)
            || self.hand_overs.iter().any(|waiting| waiting.contains(&id))
    }

    fn push(&mut self, reactor: usize, mail: Mail<S>) {
        self.mails[reactor].push_back(mail);
        self.count += 1;
        self.waiting += 1;
    }

    /// Drops all mail: a socket in it closes.
    pub(super) fn clear(&mut self) {
        self.mails.iter_mut().for_each(VecDeque::clear);
        self.waiting -= self.count;
        self.count = 0;
    }
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Reads a share of the mail.
    pub(super) fn take_mail(&mut self, now: Instant, env: &mut E) {
        if !self.has_mail {
            return;
        }
        // A wake without mail says that there is something new in what all reactors share.
        if self.status.draining_since().is_some() {
            self.begin_drain(now);
        }
        let mut share = self.config.limits.mails_per_turn;
        while share > 0 {
            share -= 1;
            // Broadcasts are taken no faster than they are written here, so the mailbox fills, and
            // who sends too many has to wait. Writing waits for nobody, so this ends.
            if self.broadcasts.len() >= self.config.limits.broadcasts_queued {
                return;
            }
            match env.receive() {
                None => {
                    self.has_mail = false;
                    return;
                }
                Some(Mail::HandOver(handoff)) => {
                    self.metrics.hand_overs_in.add(1);
                    let _ = self.adopt(handoff, now, env);
                }
                // Not off the share, or with as many answers in each turn nothing else would be taken.
                // They are bounded by themselves: no new job leaves for the pool before the turn ends.
                Some(Mail::Finished(finished)) => {
                    share += 1;
                    self.take_finished(finished, now);
                }
                Some(Mail::Broadcast(frame)) => {
                    self.tell(|trace| trace.broadcast(frame.len()));
                    self.broadcasts.push_back(frame);
                }
                Some(Mail::Look { asker }) => self.watching.ask(asker),
                Some(Mail::Seen(slab_map)) => self.watching.note(slab_map),
            }
        }
    }

    /// Sends mail, behind whatever is still waiting to be sent to that reactor.
    pub(super) fn post(&mut self, reactor: usize, mail: Mail<E::Stream>, env: &mut E) {
        let refused = match self.outbox.mails[reactor].is_empty() {
            true => env.send(reactor, mail),
            false => Err(mail),
        };
        if let Err(mail) = refused {
            self.outbox.push(reactor, mail);
        }
    }

    /// Whether a connection can be handed over to `owner` now, and nobody asked before.
    pub(super) fn has_room_at(&self, owner: usize, env: &E) -> bool {
        self.outbox.mails[owner].is_empty()
            && self.outbox.hand_overs[owner].is_empty()
            && env.has_room(owner)
    }

    /// Lets a connection wait until it can be handed over to `owner`. Meanwhile it is not read, and
    /// the deadline of its request stands.
    pub(super) fn wait_for_owner(&mut self, id: ConnectionId, owner: usize) {
        let Shard { connections, outbox, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return };
        connection.rest = Rest::Waiting;
        let asked = &mut outbox.hand_overs[owner];
        asked.push_back(id);
        outbox.waiting += 1;
        // Ids of connections that have gone are let go of before they are the larger part.
        if asked.len() > 2 * connections.len() + 64 {
            let before = asked.len();
            asked.retain(|&id| connections.get_mut(id).is_some_and(|c| c.rest == Rest::Waiting));
            outbox.waiting -= before - asked.len();
        }
    }

    /// Lets a connection that has just broadcast something wait, if there is more under way than
    /// can be delivered now: each has one visit's broadcasts under way at the most.
    pub(super) fn hold_broadcaster(&mut self, id: ConnectionId) {
        if self.are_broadcasts_delivered() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(id)
            && !matches!(connection.rest, Rest::Parked | Rest::Waiting | Rest::Ended)
            && connection.is_open()
        {
            connection.rest = Rest::Waiting;
            connection.endpoint.stopped_listening();
            self.outbox.broadcasters.push(id);
            self.outbox.waiting += 1;
        }
    }

    fn are_broadcasts_delivered(&self) -> bool {
        self.outbox.is_empty() && self.broadcasts.len() <= self.config.limits.broadcasts_queued / 2
    }

    /// Tries again what found a full box, each reactor's in order.
    #[inline]
    pub(super) fn send_mail(&mut self, now: Instant, env: &mut E) {
        if self.outbox.waiting > 0 {
            self.send_waiting(now, env);
        }
    }

    #[cold]
    fn send_waiting(&mut self, now: Instant, env: &mut E) {
        for reactor in 0..self.outbox.mails.len() {
            while let Some(mail) = self.outbox.mails[reactor].pop_front() {
                if let Err(mail) = env.send(reactor, mail) {
                    self.outbox.mails[reactor].push_front(mail);
                    break;
                }
                self.outbox.count -= 1;
                self.outbox.waiting -= 1;
            }
            while self.outbox.mails[reactor].is_empty()
                && env.has_room(reactor)
                && let Some(id) = self.outbox.hand_overs[reactor].pop_front()
            {
                self.outbox.waiting -= 1;
                // It may have been refused or closed meanwhile, or have failed in this very turn.
                if let Some(connection) = self.connections.get_mut(id)
                    && connection.rest == Rest::Waiting
                {
                    connection.rest = Rest::Spent;
                    let received = connection.take_tail();
                    self.hand_over(id, reactor, &received, now, env);
                }
            }
        }
        if self.are_broadcasts_delivered() {
            let broadcasters = std::mem::take(&mut self.outbox.broadcasters);
            self.outbox.waiting -= broadcasters.len();
            for id in broadcasters {
                self.hear_again(id, now);
            }
        }
    }

    fn hear_again(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.rest == Rest::Waiting {
            connection.rest = Rest::Spent;
            connection.endpoint.listened_again(now, &self.protocol_limits);
            self.settle(id, true, now);
        }
    }

    /// Refuses the request of a connection that waits to be handed over. Its id stays in the queue, and
    /// is passed over there: to look for it would make many refusals in one turn cost their square.
    pub(super) fn refuse_waiting(&mut self, id: ConnectionId, why: Rejection, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.rest = Rest::Spent;
        // Its request is answered; what stands behind it is not read any more.
        drop(connection.take_tail());
        self.refuse(id, why, true, now);
        if self.uncork(id, now) {
            self.settle(id, false, now);
        }
    }
}

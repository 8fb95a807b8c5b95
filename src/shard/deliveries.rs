//! What is on its way to others: mail that waits for room in another reactor's mailbox, connections
//! that wait for it, broadcasts that are being written to the connections here, and what callbacks here have
//! posted to reactors.
//!
//! A reactor's mailbox is full when a callback holds that reactor up, or when it gets more hand-overs
//! than it can take. Then a connection that is to be handed over rests where it is. A connection that
//! has broadcast something rests until what waits has been delivered. The others go on, as long as fewer
//! than [`crate::config::Limits::mails_waiting_most`] mails wait. Reads no mail (`mail` does) and writes to no
//! connection (`fanout` does). Called by those two, and by every step that has something to send.
//!
//! Invariant: mail to one reactor is delivered in order; every connection that rests as
//! [`Rest::Waiting`] stands here. (What stands here may have been closed meanwhile.)
//!
//! Next: `lifecycle`: how long the shard takes in connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::connection_set::ConnectionSet;
use crate::application::{Application, Broadcast, Post, PostOutbox, Remote, Undo};
use crate::config::Limits;
use crate::connection::Rest;
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::token::LocalId;
use crate::transport::Stream;

/// Pause before mail that found a full box is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// What a reactor has to deliver: to others, and to all of its own connections.
pub(super) struct Deliveries<A: Application, S> {
    /// Whether the own mailbox has mail.
    pub(super) has_mail: bool,
    /// Whether other threads have posted something.
    pub(super) has_posts: bool,
    /// By destination, mail that found a full box.
    mails: Box<[VecDeque<Mail<S>>]>,
    /// How many mails these are.
    count: usize,
    /// What callbacks here want done on reactors, and what of it found a full box.
    posts: PostOutbox<A>,
    /// These mails and posts, and the connections that wait: one number says whether there is anything to
    /// do.
    waiting: usize,
    /// By destination, connections that are to be handed over, in the order in which they asked.
    hand_overs: Box<[VecDeque<LocalId>]>,
    /// Which reactor gets the next connection that is spread.
    spread_to: usize,
    /// Connections that have sent something to others, and are heard again when nothing waits.
    senders: Vec<LocalId>,
    /// Frames on their way to all connections of this reactor.
    pub(super) broadcasts: VecDeque<Broadcast>,
    /// How many broadcasts have been written to all that were to get them.
    pub(super) fanned_out: u64,
    /// The next slot that gets the first of them.
    pub(super) fanout_at: usize,
}

impl<A: Application, S: Stream> Deliveries<A, S> {
    pub(super) fn new(here: usize, reactors: usize, remote: Remote<A>) -> Self {
        Deliveries {
            has_mail: false,
            has_posts: false,
            mails: (0..reactors).map(|_| VecDeque::new()).collect(),
            count: 0,
            posts: PostOutbox::new(remote),
            waiting: 0,
            hand_overs: (0..reactors).map(|_| VecDeque::new()).collect(),
            spread_to: here,
            senders: Vec::new(),
            broadcasts: VecDeque::new(),
            fanned_out: 0,
            fanout_at: 0,
        }
    }

    /// Mails that wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether another reactor's room is waited for, by mail or by a connection.
    pub(super) fn waits_for_room(&self) -> bool {
        self.waiting > self.senders.len()
    }

    /// Whether anything waits.
    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// When what waits for room is tried again.
    pub(super) fn retries_at(&self, now: Instant) -> Option<Instant> {
        self.waits_for_room().then(|| now + RETRY)
    }

    /// Whether so much mail, or so many posts, wait that no connection is read until some have left.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.count.max(self.posts.len()) >= limits.mails_waiting_most
    }

    /// Sends what callbacks here have posted, behind what is still waiting to be sent to those reactors.
    pub(super) fn post_to_reactors(&mut self, posts: Vec<(usize, Post<A>)>) {
        self.waiting -= self.posts.len();
        for (reactor, post) in posts {
            self.posts.send(reactor, post);
        }
        self.waiting += self.posts.len();
    }

    /// Gives back what questions have taken on other reactors.
    pub(super) fn undo(&mut self, undos: Vec<Undo<A>>) {
        let posts = undos.into_iter().map(|undo| (undo.reactor, Post::ToReactor(undo.post)));
        self.post_to_reactors(posts.collect());
    }

    /// Sends the posts that wait, as far as there is room.
    pub(super) fn send_posts(&mut self) {
        self.waiting -= self.posts.len();
        self.posts.send_waiting();
        self.waiting += self.posts.len();
    }

    /// Posts that wait for room: for tests.
    #[cfg(feature = "internals")]
    pub(super) fn waiting_posts(&self) -> usize {
        self.posts.len()
    }

    /// Whether no connection is read, because what was read before has not been delivered: as much mail or
    /// as many posts to full boxes, or as many broadcasts, as may be under way. Long before that, the
    /// connections that broadcast are not read ([`Self::hold_sender`]).
    #[inline]
    pub(super) fn is_congested(&self, limits: &Limits) -> bool {
        // Asked in each visit: nearly always nothing is under way.
        (self.waiting > 0 || !self.broadcasts.is_empty())
            && (self.is_congested_by_mail(limits) || self.is_full(limits))
    }

    /// The same without the posts. Others take this reactor's mail whatever else they wait for, so this
    /// ends.
    pub(super) fn is_congested_by_mail(&self, limits: &Limits) -> bool {
        let broadcasts = self.broadcasts.len();
        (broadcasts > 0 && broadcasts >= limits.broadcasts_queued)
            || self.count >= limits.mails_waiting_most
    }

    /// How many broadcasts there have been so far, those under way included.
    pub(super) fn broadcasts_taken(&self) -> u64 {
        self.fanned_out + self.broadcasts.len() as u64
    }

    /// Sends mail, behind what is still waiting to be sent to that reactor.
    pub(super) fn post(
        &mut self,
        reactor: usize,
        mail: Mail<S>,
        env: &mut impl Environment<Stream = S>,
    ) {
        let refused = match self.mails[reactor].is_empty() {
            true => env.send(reactor, mail),
            false => Err(mail),
        };
        if let Err(mail) = refused {
            self.mails[reactor].push_back(mail);
            self.count += 1;
            self.waiting += 1;
        }
    }

    /// Sends what waits for one reactor, as far as there is room.
    pub(super) fn send_waiting(&mut self, reactor: usize, env: &mut impl Environment<Stream = S>) {
        while let Some(mail) = self.mails[reactor].pop_front() {
            if let Err(mail) = env.send(reactor, mail) {
                self.mails[reactor].push_front(mail);
                break;
            }
            self.count -= 1;
            self.waiting -= 1;
        }
    }

    /// Whether a connection can be handed over to `owner` now, and no other one waits for that.
    pub(super) fn has_room_at(&self, owner: usize, env: &impl Environment) -> bool {
        self.hand_overs[owner].is_empty() && self.has_room_for_waiting(owner, env)
    }

    fn has_room_for_waiting(&self, owner: usize, env: &impl Environment) -> bool {
        self.mails[owner].is_empty() && env.has_room(owner)
    }

    /// Which other reactor is to serve a connection from a listener that only this one, `here`, has: each
    /// in its turn. `None` if it is this one's turn, or if that one's mailbox is full.
    pub(super) fn next_to_spread_to(
        &mut self,
        here: usize,
        env: &impl Environment,
    ) -> Option<usize> {
        let reactor = self.spread_to;
        self.spread_to = (reactor + 1) % self.mails.len();
        (reactor != here && self.has_room_at(reactor, env)).then_some(reactor)
    }

    /// Lets a connection wait until it can be handed over to `owner`. Meanwhile it is not read, and
    /// the deadline of its request stands.
    pub(super) fn wait_for_owner(
        &mut self,
        id: LocalId,
        owner: usize,
        connections: &mut ConnectionSet<S>,
    ) {
        connections.stop_reading(id, Rest::Waiting);
        let asked = &mut self.hand_overs[owner];
        asked.push_back(id);
        self.waiting += 1;
        // Ids of connections that have gone are let go of before they are the larger part.
        if asked.len() > 2 * connections.slab.len() + 64 {
            let before = asked.len();
            asked.retain(|&id| connections.get_mut(id).is_some_and(|c| c.rest == Rest::Waiting));
            self.waiting -= before - asked.len();
        }
    }

    /// The next connection that can be handed over to `owner` now. It may have been refused or closed
    /// since it asked.
    pub(super) fn next_hand_over(
        &mut self,
        owner: usize,
        env: &impl Environment,
    ) -> Option<LocalId> {
        if !self.has_room_for_waiting(owner, env) {
            return None;
        }
        let id = self.hand_overs[owner].pop_front()?;
        self.waiting -= 1;
        Some(id)
    }

    /// Lets a connection that has just broadcast something wait, if there is more under way than
    /// can be delivered now: each has one visit's broadcasts under way at the most.
    pub(super) fn hold_sender(
        &mut self,
        id: LocalId,
        connections: &mut ConnectionSet<S>,
        limits: &Limits,
    ) {
        if self.are_broadcasts_delivered(limits) {
            return;
        }
        if let Some(connection) = connections.get(id)
            && !(connection.rest.is_unread() || connection.rest == Rest::Ended)
            && connection.is_open()
        {
            connections.stop_reading(id, Rest::Waiting);
            self.senders.push(id);
            self.waiting += 1;
        }
    }

    /// The connections that are heard again, because what they have broadcast is delivered. They may
    /// have been closed since.
    pub(super) fn take_senders(&mut self, limits: &Limits) -> Vec<LocalId> {
        if !self.are_broadcasts_delivered(limits) {
            return Vec::new();
        }
        let senders = std::mem::take(&mut self.senders);
        self.waiting -= senders.len();
        senders
    }

    fn are_broadcasts_delivered(&self, limits: &Limits) -> bool {
        self.count + self.posts.len() == 0 && self.broadcasts.len() <= limits.broadcasts_queued / 2
    }

    /// Drops all mail, and all posts: a socket in a mail closes.
    pub(super) fn clear(&mut self) {
        self.mails.iter_mut().for_each(VecDeque::clear);
        self.waiting -= self.count + self.posts.len();
        self.count = 0;
        self.posts.clear();
    }

    /// Checks that what is counted is there.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub(super) fn invariants(&self) {
        assert_eq!(self.count, self.mails.iter().map(VecDeque::len).sum::<usize>());
        let hand_overs = self.hand_overs.iter().map(VecDeque::len).sum::<usize>();
        self.posts.invariants();
        assert_eq!(self.waiting, self.count + self.posts.len() + hand_overs + self.senders.len());
    }

    /// Whether a connection waits here.
    pub(super) fn holds(&self, id: LocalId) -> bool {
        self.senders.contains(&id) || self.hand_overs.iter().any(|waiting| waiting.contains(&id))
    }
}

//! The upgrades of which the session is being claimed in a store that several machines share.
//!
//! Knows what the application has decided, in the order of asking, and what the store has answered; does nothing with
//! it: `claiming` does. Of no use with another store, and empty there.
//!
//! Invariant: each claim has a number of its own, which no other claim of this node has had. An upgrade stands here once,
//! until it has its answer or its connection is gone.
//!
//! Next: `commits`: what is known of the store.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::application::{Application, Terms};
use crate::protocol::deflate::DeflateParams;
use crate::protocol::handshake::Accept;
use crate::session::{Ownership, SessionId};
use crate::store::{Claim, Claimed};
use crate::token::LocalId;

/// Upgrades that wait at the most. 4096: more than come in the time of a store's answer, and a few MiB. Those beyond it are
/// told to come again.
pub(crate) const CLAIMS_MOST: usize = 4096;

/// Where the number of the reactor stands in that of a claim: 1024 reactors at the most, and 2^54 claims of each.
const REACTOR_SHIFT: u32 = 54;

/// An upgrade that the application has accepted.
pub(super) struct AcceptedUpgrade<A: Application> {
    pub(super) accept: Accept,
    pub(super) params: Option<DeflateParams>,
    pub(super) session_id: Option<SessionId>,
    pub(super) terms: Terms<A>,
    /// By what the session is this node's, if it had to be claimed.
    pub(super) claimed: Option<ClaimedSession>,
    /// How long the request is that still stands in the input, because the application may be asked once more.
    pub(super) unread: usize,
    /// The generation of the session that the application has seen, if it has seen one.
    pub(super) seen_generation: Option<u64>,
}

impl<A: Application> AcceptedUpgrade<A> {
    /// As the application has accepted it, of a session that is not claimed.
    pub(super) fn new(
        (accept, params, session_id): (Accept, Option<DeflateParams>, Option<SessionId>),
        terms: Terms<A>,
    ) -> Self {
        AcceptedUpgrade {
            accept,
            params,
            session_id,
            terms,
            claimed: None,
            unread: 0,
            seen_generation: None,
        }
    }
}

/// A session that was claimed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimedSession {
    pub(super) ownership: Ownership,
    /// Whether its id was drawn here, and not named by the client.
    pub(super) is_drawn: bool,
}

/// A session that was claimed for a connection about which the application is asked once more.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) session: SessionId,
    pub(super) claimed: ClaimedSession,
}

/// A claim, and the upgrade that it is for.
pub(super) struct Claiming<A: Application> {
    pub(super) session: SessionId,
    /// Whether the id was drawn here, and not named by the client.
    pub(super) is_drawn: bool,
    /// `None` if the connection is gone, and the claim is under way all the same.
    pub(super) upgrade: Option<(LocalId, AcceptedUpgrade<A>)>,
    /// Whether the store has it.
    pub(super) is_sent: bool,
    /// The generation with which another node has claimed the session meanwhile; 0 if none has said so.
    pub(super) overtaken_by: u64,
}

/// All of them.
pub(super) struct Claims<A: Application> {
    /// By their numbers, which grow.
    all: BTreeMap<u64, Claiming<A>>,
    /// Those that the store does not have yet.
    unsent: Vec<Claim>,
    /// What the store has answered, for shares of turns.
    answers: VecDeque<Claimed>,
    last_token: Option<u64>,
    /// What was claimed for those about whom the application is asked once more.
    granted: HashMap<LocalId, Granted>,
    /// Whether one of the connections may have ended.
    may_have_lost: bool,
}

impl<A: Application> Default for Claims<A> {
    fn default() -> Self {
        Claims {
            all: BTreeMap::new(),
            unsent: Vec::new(),
            answers: VecDeque::new(),
            last_token: None,
            granted: HashMap::new(),
            may_have_lost: false,
        }
    }
}

impl<A: Application> Claims<A> {
    /// A connection has ended, which may have waited for one.
    pub(super) fn note_loss(&mut self) {
        self.may_have_lost |= !self.all.is_empty();
    }

    /// Whether one has.
    pub(super) fn may_have_lost(&self) -> bool {
        self.may_have_lost
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= CLAIMS_MOST
    }

    /// Whether there is something to send.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether answers have come that nobody has looked at.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether numbers can be given. Else the first one is to be [`Self::begin`].
    pub(super) fn has_begun(&self) -> bool {
        self.last_token.is_some()
    }

    /// Numbers of this reactor, from somewhere: a process that is started again under the name of its node does not give
    /// them anew.
    pub(super) fn begin(&mut self, reactor: usize, random: u64) {
        let from = random & ((1 << REACTOR_SHIFT) - 1);
        self.last_token = Some(((reactor as u64) << REACTOR_SHIFT) | (from >> 1));
    }

    /// A session is to be claimed for this upgrade.
    pub(super) fn push(
        &mut self,
        (session, is_drawn): (SessionId, bool),
        upgrade: (LocalId, AcceptedUpgrade<A>),
    ) {
        let token = self.last_token.unwrap_or_default() + 1;
        self.last_token = Some(token);
        self.unsent.push(Claim { token, id: session.clone() });
        let upgrade = Some(upgrade);
        let claiming = Claiming { session, is_drawn, upgrade, is_sent: false, overtaken_by: 0 };
        self.all.insert(token, claiming);
    }

    /// What is to be sent.
    pub(super) fn take_unsent(&mut self) -> Vec<Claim> {
        for claim in &self.unsent {
            if let Some(claiming) = self.all.get_mut(&claim.token) {
                claiming.is_sent = true;
            }
        }
        std::mem::take(&mut self.unsent)
    }

    /// The store has answered these.
    pub(super) fn note_answers(&mut self, answers: Vec<Claimed>) {
        self.answers.extend(answers);
    }

    /// The application is to be asked once more about a connection that was claimed this session for.
    pub(super) fn grant(&mut self, connection: LocalId, granted: Granted) {
        self.granted.insert(connection, granted);
    }

    /// What was claimed for a connection, if anything was.
    pub(super) fn take_granted(&mut self, connection: LocalId) -> Option<Granted> {
        if self.granted.is_empty() { None } else { self.granted.remove(&connection) }
    }

    /// Whether the application is to be asked once more about a connection.
    pub(super) fn is_granted(&self, connection: LocalId) -> bool {
        self.granted.contains_key(&connection)
    }

    /// Nothing is kept for those that ask for no session any more.
    pub(super) fn keep_granted(&mut self, asks: impl Fn(LocalId) -> bool) {
        self.granted.retain(|connection, _| asks(*connection));
    }

    /// The next answer, and whose it is.
    pub(super) fn next_answer(&mut self) -> Option<(Claimed, Claiming<A>)> {
        loop {
            let answer = self.answers.pop_front()?;
            if let Some(claiming) = self.all.remove(&answer.token) {
                return Some((answer, claiming));
            }
            debug_assert!(false, "a claim is answered once");
        }
    }

    /// The upgrades of which the claim was sent and has got no answer, or, if `all`, all that wait.
    pub(super) fn take_unanswered(&mut self, all: bool) -> Vec<(LocalId, AcceptedUpgrade<A>)> {
        if all {
            self.unsent.clear();
        }
        let is_taken = |claiming: &Claiming<A>| all || claiming.is_sent;
        let taken = self.all.extract_if(.., |_, claiming| is_taken(claiming));
        taken.filter_map(|(_, claiming)| claiming.upgrade).collect()
    }

    /// Another node has this session, with this generation: so nobody here gets it with a smaller one.
    pub(super) fn note_takeover(&mut self, session: &SessionId, generation: u64) {
        let same = self.all.values_mut().filter(|claiming| claiming.session == *session);
        same.for_each(|claiming| {
            claiming.overtaken_by = claiming.overtaken_by.max(generation);
        });
    }

    /// Takes out the upgrades whose connections do not wait any more. A claim that the store does not have is not made;
    /// of one that it has the answer is still to come.
    pub(super) fn take_lost(
        &mut self,
        waits: impl Fn(LocalId) -> bool,
    ) -> Vec<(LocalId, AcceptedUpgrade<A>)> {
        self.may_have_lost = false;
        let (mut lost, mut not_made) = (Vec::new(), HashSet::new());
        for (token, claiming) in &mut self.all {
            if claiming.upgrade.as_ref().is_some_and(|(connection, _)| !waits(*connection)) {
                lost.extend(claiming.upgrade.take());
                if !claiming.is_sent {
                    not_made.insert(*token);
                }
            }
        }
        if !not_made.is_empty() {
            self.unsent.retain(|claim| !not_made.contains(&claim.token));
            self.all.retain(|token, _| !not_made.contains(token));
        }
        lost
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = LocalId> {
        let upgrades = self.all.values().filter_map(|claiming| claiming.upgrade.as_ref());
        upgrades.map(|(connection, _)| *connection)
    }

    pub(super) fn contains(&self, connection: LocalId) -> bool {
        self.connections().any(|waiting| waiting == connection)
    }

    /// Checks that each claim is sent or is to be sent.
    ///
    /// # Panics
    ///
    /// If one is not.
    pub(super) fn invariants(&self) {
        let sent = self.all.values().filter(|claiming| claiming.is_sent).count();
        assert_eq!(sent + self.unsent.len(), self.all.len(), "a claim that nobody will send");
        let mut seen = HashSet::new();
        assert!(self.connections().all(|waiting| seen.insert(waiting)), "it waits twice");
    }
}

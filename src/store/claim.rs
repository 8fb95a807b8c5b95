//! What a reactor asks of a store that several machines share, and what it hears.
//!
//! Such a store is an arbiter: it says which node has a session. A *generation* is a number that the store gives a
//! session with each claim, and a smaller one is refused from then on. A *token* is the number of one claim on one
//! node; it is never used again. Claims travel with a batch, behind its changes, so a claim never overtakes a commit of
//! the same session. Values only. Made by a shard and by the store's thread.
//!
//! Invariant: each claim is answered once, with the batch that it came with.
//!
//! Next: `error`: what can go wrong.

use crate::session::{Ownership, SessionId};

use super::record::State;

/// A client has come with this session: it is to be this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The number of this claim on this node.
    pub token: u64,
    /// The session.
    pub id: SessionId,
}

/// The session is this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Which claim this answers.
    pub token: u64,
    /// What commits of the session carry from now on.
    pub generation: u64,
    /// The generation before; 0 if the store had none. If it is what this node has of the session, nobody else had it
    /// meanwhile, and what is in memory here is not older than what is stored. It is newer if some of it was not sent
    /// yet, or if the store has failed over to a replica that was behind: then it is stored again before anybody is
    /// told.
    pub former: u64,
    /// Messages that are stored as counted; 0 for a session that the store does not know.
    pub count: u64,
    /// What the application has stored.
    pub state: Option<State>,
    /// Whether the store had it: a count was committed before.
    pub is_known: bool,
}

impl Claimed {
    /// By what the session is this node's from now on.
    #[must_use]
    pub fn ownership(&self) -> Ownership {
        Ownership { generation: self.generation, token: self.token }
    }
}

/// How a batch has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is safe, but for what is named here.
    Stored {
        /// Its number.
        number: u64,
        /// Sessions of which nothing was stored, because another claim has them.
        taken_over: Vec<SessionId>,
        /// Sessions whose commits carry this generation from now on.
        regenerated: Vec<(SessionId, u64)>,
        /// Its claims.
        claimed: Vec<Claimed>,
    },
    /// The store has not answered in time. Nobody knows what of it was stored; none of its claims was answered.
    Unavailable {
        /// Its number.
        number: u64,
    },
}

/// Another node has claimed a session, with this generation: told by the store at once, and by the next commit for
/// sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The session.
    pub id: SessionId,
    /// The generation of the other node.
    pub generation: u64,
}

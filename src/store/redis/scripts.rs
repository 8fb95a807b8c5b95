//! The three scripts that Redis runs: claim, commit and forget.
//!
//! What each does is said in its own file, beside this one; `tests/generations` has them as a model of which every state is
//! visited, and `tests/redis` compares the two. Texts only. Called by `calls` and `link`.
//!
//! Invariant: a script changes the record of a session as a whole, or not at all: Redis runs nothing beside it.
//!
//! Next: `trouble`: why there is no answer.

use crate::resp::Script;

/// A client has come with a session: it is this node's from now on.
#[must_use]
pub fn claim() -> Script {
    Script::new(include_str!("claim.lua"))
}

/// Stores sessions, each if it is still this node's.
#[must_use]
pub fn commit() -> Script {
    Script::new(include_str!("commit.lua"))
}

/// A session ends.
#[must_use]
pub fn forget() -> Script {
    Script::new(include_str!("forget.lua"))
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Scripts {
    /// See [`claim`].
    pub claim: Script,
    /// See [`commit`].
    pub commit: Script,
    /// See [`forget`].
    pub forget: Script,
}

impl Scripts {
    /// With their names, which are computed.
    #[must_use]
    pub fn new() -> Scripts {
        Scripts { claim: claim(), commit: commit(), forget: forget() }
    }

    /// For [`crate::resp::Connection::load`].
    #[must_use]
    pub fn all(&self) -> [&Script; 3] {
        [&self.claim, &self.commit, &self.forget]
    }
}

impl Default for Scripts {
    fn default() -> Self {
        Scripts::new()
    }
}

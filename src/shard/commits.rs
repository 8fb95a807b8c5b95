//! What a shard knows of its store: the batch that is under way there, who waits for it, and the sessions that come back.
//!
//! Values that are noted and asked. Sends nothing and holds no reply: `committing` does; and `restoring` takes the
//! sessions. Kept among the parts, and of no use in a server without a store.
//!
//! Invariant: one batch is under way at a time.
//!
//! Next: `parts`: all of them together.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};
use std::vec;

use crate::application::Storing;
use crate::inbox::Inbox;
use crate::session::SessionSlot;
use crate::store::{BatchLimits, Recovered};
use crate::token::LocalId;
use crate::transport::out_buffer::Stage;

/// The batch that the store has.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) number: u64,
    /// Since when the store has had it; or since the process was found to have been stopped meanwhile.
    pub(super) since: Instant,
    pub(super) sessions: HashSet<SessionSlot>,
    pub(super) waiting: Vec<LocalId>,
}

/// What waits for the store.
#[derive(Debug)]
pub(super) struct Commits {
    pub(super) storing: Storing,
    pub(super) under_way: Option<UnderWay>,
    /// Connections that wait for the batch that is collected. One may stand here twice, or be gone.
    pub(super) waiting: Vec<LocalId>,
    pub(super) sent: u64,
    pub(super) limits: BatchLimits,
}

impl Commits {
    pub(super) fn new(storing: Storing, limits: BatchLimits) -> Self {
        Commits { storing, under_way: None, waiting: Vec::new(), sent: 0, limits }
    }

    /// Whether replies wait for the store.
    #[inline]
    pub(super) fn hold_replies(&self) -> bool {
        self.storing == Storing::BeforeReplies
    }

    /// Whether a batch is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn is_under_way(&self, slot: SessionSlot) -> bool {
        self.under_way.as_ref().is_some_and(|batch| batch.sessions.contains(&slot))
    }

    /// The number of the batch that is under way, or of the next one.
    pub(super) fn number_of(&self, stage: Stage) -> u64 {
        match stage {
            Stage::UnderWay => self.sent,
            Stage::Collected => self.sent + 1,
        }
    }

    /// When the store has to have answered.
    pub(super) fn due(&self, timeout: Duration) -> Option<Instant> {
        self.under_way.as_ref().map(|batch| batch.since + timeout)
    }

    /// How many connections wait, about: one may be gone.
    pub(super) fn waiting_connections(&self) -> usize {
        self.waiting.len() + self.under_way.as_ref().map_or(0, |batch| batch.waiting.len())
    }

    /// Whether this connection waits: for those who check.
    pub(super) fn knows(&self, id: LocalId, stage: Stage) -> bool {
        match stage {
            Stage::Collected => self.waiting.contains(&id),
            Stage::UnderWay => {
                self.under_way.as_ref().is_some_and(|batch| batch.waiting.contains(&id))
            }
        }
    }
}

/// How far the sessions that were stored have come back.
pub(super) enum Restoring {
    /// They are read from the store.
    Awaited(Inbox<Vec<Recovered>>),
    /// Those that are not in the table yet.
    UnderWay(vec::IntoIter<Recovered>),
    /// They are there, or there is no store.
    Done,
}

impl fmt::Debug for Restoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Restoring::Awaited(_) => "Awaited",
            Restoring::UnderWay(_) => "UnderWay",
            Restoring::Done => "Done",
        })
    }
}

impl Restoring {
    /// Whether all sessions are there.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Restoring::Done)
    }

    /// Whether there is something to do at once.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Restoring::UnderWay(_))
    }
}

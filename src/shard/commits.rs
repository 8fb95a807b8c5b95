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
use crate::session::{SessionId, SessionSlot};
use crate::store::{BatchLimits, Recovered};
use crate::token::LocalId;
use crate::transport::out_buffer::Stage;

/// A connection that waits until its session is stored.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) connection: LocalId,
    /// Which session that is; `None` where nobody asks, because a store that has a batch has all of it.
    pub(super) session: Option<SessionId>,
}

/// Where the round is in which sessions are stored again.
#[derive(Debug)]
pub(super) struct Refresh {
    /// When the next step begins.
    pub(super) next: Instant,
    /// The slot that is next in this step, and the one before which it ends.
    pub(super) at: usize,
    pub(super) until: usize,
    pub(super) steps_left: u32,
}

impl Refresh {
    /// Whether a step has not come to its end.
    pub(super) fn is_under_way(&self) -> bool {
        self.at < self.until
    }
}

/// The batch that the store has.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) number: u64,
    /// Since when the store has had it; or since the process was found to have been stopped meanwhile.
    pub(super) since: Instant,
    pub(super) sessions: HashSet<SessionSlot>,
    /// Those of them that were forgotten.
    pub(super) forgotten: Vec<SessionSlot>,
    pub(super) waiting: Vec<Waiting>,
}

/// What waits for the store.
#[derive(Debug)]
pub(super) struct Commits {
    pub(super) storing: Storing,
    pub(super) under_way: Option<UnderWay>,
    /// Connections that wait for the batch that is collected. One may stand here twice, or be gone.
    pub(super) waiting: Vec<Waiting>,
    pub(super) sent: u64,
    pub(super) limits: BatchLimits,
    /// Of use where several machines share the sessions.
    pub(super) refresh: Refresh,
}

impl Commits {
    pub(super) fn new(storing: Storing, limits: BatchLimits, now: Instant) -> Self {
        let refresh = Refresh { next: now, at: 0, until: 0, steps_left: 0 };
        Commits { storing, under_way: None, waiting: Vec::new(), sent: 0, limits, refresh }
    }

    /// Whether replies wait for the store.
    #[inline]
    pub(super) fn hold_replies(&self) -> bool {
        matches!(self.storing, Storing::BeforeReplies | Storing::Shared)
    }

    /// Whether sessions have to be claimed.
    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        self.storing.is_shared()
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

    /// When the store has to have answered, if the time is kept here: whoever asks one that several machines share says
    /// himself that it does not answer.
    pub(super) fn due(&self, timeout: Duration) -> Option<Instant> {
        if self.is_shared() {
            return None;
        }
        self.under_way.as_ref().map(|batch| batch.since + timeout)
    }

    /// Takes out those who wait for one of these sessions.
    pub(super) fn take_waiting_for(&mut self, ids: &HashSet<SessionId>) -> Vec<LocalId> {
        let under_way = self.under_way.as_mut().map(|batch| &mut batch.waiting);
        let mut taken = Vec::new();
        for waiting in [Some(&mut self.waiting), under_way].into_iter().flatten() {
            let concerns = |waiting: &mut Waiting| {
                waiting.session.as_ref().is_some_and(|session| ids.contains(session))
            };
            taken.extend(waiting.extract_if(.., concerns).map(|waiting| waiting.connection));
        }
        taken
    }

    /// How many connections wait, about: one may be gone.
    pub(super) fn waiting_connections(&self) -> usize {
        self.waiting.len() + self.under_way.as_ref().map_or(0, |batch| batch.waiting.len())
    }

    /// Whether this connection waits: for those who check.
    pub(super) fn knows(&self, id: LocalId, stage: Stage) -> bool {
        let waiting = match stage {
            Stage::Collected => Some(&self.waiting),
            Stage::UnderWay => self.under_way.as_ref().map(|batch| &batch.waiting),
        };
        waiting.is_some_and(|waiting| waiting.iter().any(|waiting| waiting.connection == id))
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

//! What is known of the accept queue, and how far a drain has come.
//!
//! Accepts no connection and sends no goodbye: `accepting` and `drain` do. Called by those two, and by
//! steps that count what a drain reports.
//!
//! Invariant: a shard goes through the phases in their order; once the listener is closed it stays so.
//!
//! Next: `pending`: requests that wait for their answer.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;

use super::runtime::CloseCause;
use super::turn::Turn;
use crate::environment::Environment;
use crate::observe::turn_trace::TurnTrace;

/// How often a drained shard looks whether the others are.
const LOOK: Duration = Duration::from_millis(10);

/// How a drain went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainOutcome {
    /// WebSockets that were closed in good order.
    pub closed: u64,
    /// WebSockets that did not answer our Close, or were still there when the time was up.
    pub cut: u64,
    /// How long it took.
    pub duration: Duration,
}

/// What is known of the accept queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listening {
    /// Empty when last looked at; an edge will report the next connection.
    Idle,
    /// There may be more.
    Ready,
    /// The process is out of descriptors or memory. The queue is looked at again at `until`: its edge
    /// is not lost, it is remembered here.
    Paused { until: Instant },
    /// Draining: what is in the queue is taken, then the listener closes.
    LastCall,
    /// Over.
    Closed,
}

/// How long the first goodbye waits for what other reactors have to say before it. 1 s: only a reactor that a callback
/// holds up takes so long.
pub(super) const WORDS_MOST: Duration = Duration::from_secs(1);

/// What the first goodbye waits for: what the applications of all reactors have to say before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Words {
    /// What was said here has not all been sent to the others.
    Ours,
    /// Others have not sent theirs.
    Theirs,
    /// It is in the mailbox.
    InMail,
    /// So many broadcasts come first.
    Behind(u64),
}

impl Words {
    /// Whether all of it is here.
    pub(super) fn are_said(self) -> bool {
        matches!(self, Words::Behind(_))
    }
}

/// How the goodbyes of a drain are spread over [`crate::Config::drain_over`]: evenly, by the number of connections that
/// there were at the first. Where some have left by themselves, or others have come, it is over sooner, and never later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    begun: Instant,
    over: Duration,
    /// Connections at the first goodbye.
    connections: usize,
    /// Goodbyes so far.
    pub(super) said: usize,
}

impl Pace {
    pub(super) fn new(begun: Instant, over: Duration, connections: usize) -> Pace {
        Pace { begun, over, connections, said: 0 }
    }

    /// When the next goodbye is due.
    pub(super) fn next_at(self) -> Instant {
        let said = self.said.min(self.connections) as u128;
        let nanoseconds = self.over.as_nanos() * said / (self.connections as u128).max(1);
        self.begun + Duration::from_nanos(nanoseconds as u64)
    }

    /// How many goodbyes are due now.
    pub(super) fn due(mut self, now: Instant, most: usize) -> usize {
        let before = self.said;
        while self.said - before < most && self.next_at() <= now {
            self.said += 1;
        }
        self.said - before
    }
}

/// Where a shard is in its life.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Running,
    /// Connections in slots below `next` have been told goodbye.
    Draining {
        next: usize,
        words: Words,
        since: Instant,
        /// How fast; not before the first.
        pace: Option<Pace>,
        /// WebSockets let go of since then.
        released: u64,
        /// Those among them that never answered.
        cut: u64,
    },
    /// Its WebSockets are gone, another reactor's are not: until then `/readyz` is answered here
    /// too, on the connections that were open before.
    Drained {
        outcome: DrainOutcome,
        until: Instant,
    },
    /// No reactor has WebSockets left. Connections that others handed over before they said so are in
    /// the mailbox, and get their answer.
    Leaving {
        outcome: DrainOutcome,
        until: Instant,
    },
    /// The store has failed: nothing more is said, and the shard ends in this turn.
    Abandoned,
    Ended(DrainOutcome),
}

/// Where a shard is between its first connection and its last.
pub(super) struct Lifecycle {
    pub(super) listening: Listening,
    pub(super) phase: Phase,
    /// What every client is told when the server goes away.
    goodbye: Cow<'static, str>,
    /// The slot of the connection for which a drain last had to wait.
    pub(super) waits_for: usize,
    /// Whether sessions are left that end with the server, in the next turns.
    pub(super) ends_sessions: bool,
}

/// Whether a shard has begun to drain just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    Begun,
    /// It had, before.
    UnderWay,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let goodbye = "server is going away".into();
        Lifecycle {
            listening: Listening::Idle,
            phase: Phase::Running,
            goodbye,
            waits_for: 0,
            ends_sessions: false,
        }
    }

    /// Takes note of an edge on the listener.
    pub(super) fn note_listener(&mut self) {
        if let Listening::Idle = self.listening {
            self.listening = Listening::Ready;
        }
    }

    /// Whether the accept queue is to be looked at.
    pub(super) fn may_accept(&self, now: Instant) -> bool {
        match self.listening {
            Listening::Ready | Listening::LastCall => true,
            Listening::Paused { until } => until <= now,
            Listening::Idle | Listening::Closed => false,
        }
    }

    /// Whether a turn has nothing to do for it: nobody waits to be accepted, and nothing is drained.
    #[inline]
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(
            (self.phase, self.listening),
            (Phase::Running, Listening::Idle | Listening::Closed)
        ) && !self.ends_sessions
    }

    /// When accepting resumes that pauses now.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        match self.listening {
            Listening::Paused { until } => Some(until),
            _ => None,
        }
    }

    /// Closes the listener for good.
    pub(super) fn stop_listening(&mut self, env: &mut impl Environment) {
        if !self.has_stopped_listening() {
            env.stop_listening();
            self.listening = Listening::Closed;
        }
    }

    pub(super) fn has_stopped_listening(&self) -> bool {
        matches!(self.listening, Listening::Closed)
    }

    /// Starts to go away.
    pub(super) fn begin_drain(&mut self, turn: &mut Turn<'_>) -> Drain {
        let Phase::Running = self.phase else { return Drain::UnderWay };
        turn.setup.status.begin_drain(turn.now);
        turn.tell(TurnTrace::draining);
        let words = Words::Ours;
        let (next, since, pace) = (0, turn.now, None);
        self.phase = Phase::Draining { next, words, since, pace, released: 0, cut: 0 };
        // A client in the accept queue was told that it is connected: it gets an answer.
        if !self.has_stopped_listening() {
            self.listening = Listening::LastCall;
        }
        Drain::Begun
    }

    /// Ends in this turn, because what clients would be told cannot be stored.
    pub(super) fn abandon(&mut self, turn: &mut Turn<'_>) {
        turn.setup.status.begin_drain(turn.now);
        if self.outcome().is_none() {
            self.phase = Phase::Abandoned;
        }
    }

    /// What every client is told when the server goes away.
    pub(super) fn goodbye(&self) -> CloseCause {
        CloseCause::Ours(CloseCode::Away, self.goodbye.clone())
    }

    /// The same in the moment in which its socket is closed: no answer is waited for.
    pub(super) fn last_goodbye(&self) -> CloseCause {
        CloseCause::Failed(CloseCode::Away, self.goodbye.clone())
    }

    /// From now on they are told this.
    pub(super) fn set_goodbye(&mut self, reason: String) {
        self.goodbye = reason.into();
    }

    /// What is awaited before the first goodbye.
    pub(super) fn set_words(&mut self, next: Words) {
        if let Phase::Draining { words, .. } = &mut self.phase {
            *words = next;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// How fast goodbyes are said, from the first on.
    pub(super) fn pace(&self) -> Option<Pace> {
        match self.phase {
            Phase::Draining { pace, .. } => pace,
            _ => None,
        }
    }

    /// Whether the connection in this slot has had its turn to be told goodbye.
    pub(super) fn has_passed(&self, slot: u32) -> bool {
        matches!(self.phase, Phase::Draining { next, .. } if (slot as usize) < next)
    }

    /// How the shard ended, once it has.
    pub(super) fn outcome(&self) -> Option<DrainOutcome> {
        match self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// When the drain wants a turn, whatever else happens.
    #[inline]
    pub(super) fn drain_deadline(
        &self,
        now: Instant,
        timeout_graceful_shutdown: Duration,
    ) -> Option<Instant> {
        match self.phase {
            Phase::Draining { since, words, .. } => {
                let end = since + timeout_graceful_shutdown;
                Some(if words.are_said() { end } else { end.min(since + WORDS_MOST) })
            }
            Phase::Drained { until, .. } | Phase::Leaving { until, .. } => {
                Some(until.min(now + LOOK))
            }
            Phase::Running | Phase::Abandoned | Phase::Ended(_) => None,
        }
    }

    /// Counts a WebSocket that the reaper let go of.
    pub(super) fn note_released(&mut self) {
        if let Phase::Draining { released, .. } = &mut self.phase {
            *released += 1;
        }
    }

    /// Counts a WebSocket that did not answer our Close in time.
    pub(super) fn note_cut(&mut self) {
        if let Phase::Draining { cut, .. } = &mut self.phase {
            *cut += 1;
        }
    }
}

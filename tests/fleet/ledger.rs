//! What one session's client was told, and what that rules out.
//!
//! A count is acknowledged when a client has read it. A message of which the answer was lost may have counted or not: the
//! next hello tells. From a hello on only the connection that got it counts: what was sent on older ones, and is answered
//! behind it, must have been counted before.
//!
//! Knows no sockets. Called by `client`.

use std::collections::BTreeSet;
use std::fmt;

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A count was acknowledged, and the session stands before it.
    Lost { acknowledged: u64, found: u64 },
    /// The session has counted more than was sent.
    TooMany { most: u64, found: u64 },
    /// This count was acknowledged before, or on a connection whose session had been taken over when it was counted.
    Twice(u64),
    /// The newest connection leaves counts out.
    Gap { expected: u64, found: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { acknowledged, found } => {
                write!(f, "{acknowledged} was acknowledged, and the session stands at {found}")
            }
            Violation::TooMany { most, found } => {
                write!(f, "at most {most} can have counted, and the session stands at {found}")
            }
            Violation::Twice(count) => write!(f, "{count} was acknowledged twice"),
            Violation::Gap { expected, found } => write!(f, "{found} where {expected} is next"),
        }
    }
}

/// Of one session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeSet<u64>,
    /// Where the newest connection began.
    began: u64,
    /// What it was told last.
    stands: u64,
    /// Messages on it without an answer.
    unanswered: u64,
    /// Counts that were acknowledged, and that a failover has lost.
    pub(crate) lost: u64,
}

impl Ledger {
    /// A new connection has the session, which stands at this count.
    pub(crate) fn hello(&mut self, count: u64) -> Result<(), Violation> {
        let acknowledged = self.acknowledged.last().copied().unwrap_or(0).max(self.stands);
        if count < acknowledged {
            return Err(Violation::Lost { acknowledged, found: count });
        }
        let most = self.stands + self.unanswered;
        if count > most {
            return Err(Violation::TooMany { most, found: count });
        }
        self.begin(count);
        Ok(())
    }

    /// The same, where a failover may lose counts: those are noted.
    pub(crate) fn hello_behind_failover(&mut self, count: u64) {
        self.lost += self.acknowledged.split_off(&(count + 1)).len() as u64;
        self.begin(count);
    }

    fn begin(&mut self, count: u64) {
        (self.began, self.stands, self.unanswered) = (count, count, 0);
    }

    /// The newest connection has sent a message.
    pub(crate) fn sent(&mut self) {
        self.unanswered += 1;
    }

    /// The newest connection was told this count.
    pub(crate) fn answered(&mut self, count: u64) -> Result<(), Violation> {
        if self.unanswered == 0 || count != self.stands + 1 {
            return Err(Violation::Gap { expected: self.stands + 1, found: count });
        }
        (self.stands, self.unanswered) = (count, self.unanswered - 1);
        self.acknowledge(count)
    }

    /// An older connection was told this count.
    pub(crate) fn answered_late(&mut self, count: u64) -> Result<(), Violation> {
        if count > self.began {
            return Err(Violation::Twice(count));
        }
        self.acknowledge(count)
    }

    fn acknowledge(&mut self, count: u64) -> Result<(), Violation> {
        if self.acknowledged.insert(count) { Ok(()) } else { Err(Violation::Twice(count)) }
    }

    /// Counts that were acknowledged.
    pub(crate) fn acknowledgements(&self) -> u64 {
        self.acknowledged.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three messages, of which two were answered.
    fn two_of_three() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.hello(0).unwrap();
        for count in 1..=2 {
            ledger.sent();
            ledger.answered(count).unwrap();
        }
        ledger.sent();
        ledger
    }

    #[test]
    fn what_had_no_answer_may_have_counted_or_not() {
        for (count, expected) in [
            (1, Err(Violation::Lost { acknowledged: 2, found: 1 })),
            (2, Ok(())),
            (3, Ok(())),
            (4, Err(Violation::TooMany { most: 3, found: 4 })),
        ] {
            assert_eq!(two_of_three().hello(count), expected);
        }
    }

    #[test]
    fn an_older_connection_is_told_only_what_was_counted_before_the_newer_one() {
        let mut ledger = two_of_three();
        ledger.hello(3).unwrap();
        assert_eq!(ledger.clone().answered_late(3), Ok(()));
        assert_eq!(ledger.answered_late(4), Err(Violation::Twice(4)));
        ledger.sent();
        ledger.answered(4).unwrap();
        assert_eq!(ledger.answered_late(4), Err(Violation::Twice(4)));
        assert_eq!(ledger.answered_late(2), Err(Violation::Twice(2)));
        assert_eq!(ledger.acknowledgements(), 3);
    }

    #[test]
    fn counts_grow_by_one_and_only_for_what_was_sent() {
        let mut ledger = two_of_three();
        assert_eq!(ledger.clone().answered(2), Err(Violation::Gap { expected: 3, found: 2 }));
        assert_eq!(ledger.clone().answered(4), Err(Violation::Gap { expected: 3, found: 4 }));
        ledger.answered(3).unwrap();
        assert_eq!(ledger.answered(4), Err(Violation::Gap { expected: 4, found: 4 }));
    }

    #[test]
    fn what_a_failover_loses_is_counted() {
        let mut ledger = two_of_three();
        ledger.hello_behind_failover(1);
        assert_eq!(ledger.lost, 1);
        ledger.sent();
        assert_eq!(ledger.answered(2), Ok(()));
        ledger.hello_behind_failover(9);
        assert_eq!(ledger.lost, 1);
    }
}

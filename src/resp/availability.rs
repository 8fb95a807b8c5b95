//! Whether Redis can be had, told when that changes, and again now and then while it cannot.
//!
//! Decides nothing; keeps the last thing that was told. Called by the threads of a store and of a broker.
//!
//! Invariant: of two tellings that follow each other, either something differs, or some seconds have passed.
//!
//! Next: `backoff`: when to connect again.

use std::fmt;
use std::time::{Duration, Instant};

/// How often the same is told again, while Redis is away.
pub const SAID_AGAIN: Duration = Duration::from_secs(5);

/// What was told last.
#[derive(Debug, Default)]
pub struct Availability {
    told: Option<Told>,
    /// What has gone wrong since, and need not mean that it is away.
    suspected: Option<String>,
}

#[derive(Debug)]
struct Told {
    is_available: bool,
    why: String,
    at: Instant,
}

impl Availability {
    /// It can be had, or cannot, and why. Whether that is to be told.
    pub fn note(&mut self, is_available: bool, why: &str, now: Instant) -> bool {
        let is_told = self.told.as_ref().is_some_and(|told| {
            let is_fresh = now.saturating_duration_since(told.at) < SAID_AGAIN;
            told.is_available == is_available && (is_available || told.why == why && is_fresh)
        });
        if !is_told {
            self.told = Some(Told { is_available, why: why.to_owned(), at: now });
        }
        !is_told
    }

    /// All is well.
    pub fn forget(&mut self) {
        self.suspected = None;
    }

    /// This has gone wrong: what is told, if it turns out that it is away.
    pub fn expect(&mut self, why: String) {
        self.suspected = Some(why);
    }
}

/// Why it cannot be had, as far as is known.
impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.told, &self.suspected) {
            (Some(told), _) if !told.is_available => f.write_str(&told.why),
            (_, Some(why)) => f.write_str(why),
            _ => f.write_str("no answer in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_again_after_some_seconds_and_only_while_it_is_bad() {
        let (mut availability, begun) = (Availability::default(), Instant::now());
        let mut told = |seconds, is_available, why: &str| {
            availability.note(is_available, why, begun + Duration::from_secs(seconds))
        };
        assert!(told(0, false, "a"));
        assert!(!told(1, false, "a"));
        assert!(told(1, false, "b"));
        assert!(!told(5, false, "b"));
        assert!(told(6, false, "b"));
        assert!(told(7, true, ""));
        assert!(!told(100, true, ""));
        assert!(told(101, false, "b"));
    }
}

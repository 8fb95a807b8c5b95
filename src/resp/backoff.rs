//! When to connect again: at once behind a connection that has served, then after longer and longer pauses.
//!
//! Connects nothing, and looks at no clock. Called by the threads that keep a connection to a server.
//!
//! Invariant: the pause is none, or from [`LEAST`] to [`MOST`].
//!
//! Next: [`crate::config`]: the server around all this, every setting and bound.

use std::time::{Duration, Instant};

/// The pause behind the second attempt; it doubles.
const LEAST: Duration = Duration::from_millis(50);

/// And the longest.
pub const MOST: Duration = Duration::from_secs(1);

/// The next attempt.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pause: Duration,
    next: Instant,
}

impl Backoff {
    /// The first attempt is due now.
    #[must_use]
    pub fn new(now: Instant) -> Backoff {
        Backoff { pause: Duration::ZERO, next: now }
    }

    /// When the next attempt is due.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.next
    }

    /// There is no connection any more, or none was made.
    pub fn put_off(&mut self, now: Instant) {
        self.next = now + self.pause;
        self.pause = (self.pause * 2).clamp(LEAST, MOST);
    }

    /// The connection serves: behind it the next attempt is made at once.
    pub fn note_success(&mut self) {
        self.pause = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_begin_anew_behind_a_success() {
        let now = Instant::now();
        let mut backoff = Backoff::new(now);
        assert_eq!(backoff.next(), now);
        let mut pauses = |times| {
            let pauses = (0..times).map(|_| {
                backoff.put_off(now);
                (backoff.next() - now).as_millis()
            });
            let pauses: Vec<_> = pauses.collect();
            backoff.note_success();
            pauses
        };
        assert_eq!(pauses(8), [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pauses(2), [0, 50]);
    }
}

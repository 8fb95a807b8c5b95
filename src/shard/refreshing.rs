//! Sessions that somebody speaks for are stored again before their time is over in a store that several machines share.
//!
//! There a record lives as long as a session may be left; each commit and claim begins that anew. A client that says
//! nothing commits nothing. So all slots of the table are looked at in a round, which takes a quarter of the time to live,
//! in steps of equal times; those that are attached count as changed. Sends nothing: `committing` does, by which it is
//! called once a turn.
//!
//! Invariant: a session that was attached all along is committed before a third of its time to live has passed, as long as
//! the store answers.
//!
//! Next: `committing`: how sessions get to the store.

use std::time::{Duration, Instant};

use super::commits::Refresh;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::environment::Environment;

/// Steps of a round.
const STEPS: u32 = 16;

/// Rounds in a time to live.
const ROUNDS: u32 = 4;

/// Time between two steps.
pub(super) fn step_time(session_ttl: Duration) -> Duration {
    // A setting of 0 keeps nothing, and is not to keep the reactor busy.
    (session_ttl / (ROUNDS * STEPS)).max(Duration::from_millis(1))
}

impl Refresh {
    /// How far the round is to come with the step that begins now, at `now`, in a table of so many slots.
    fn step(&mut self, slots: usize, now: Instant, time: Duration) {
        if self.steps_left == 0 {
            (self.at, self.until, self.steps_left) = (0, 0, STEPS);
        }
        // The table may have grown meanwhile: the round takes no longer for that.
        let left = slots.saturating_sub(self.until);
        self.until += left.div_ceil(self.steps_left as usize);
        self.steps_left -= 1;
        self.next = now + time;
    }
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Looks at a share of the slots, if a step is under way or due.
    pub(super) fn refresh_some(&mut self, turn: &Turn<'_>) {
        let (runtime, refresh) = (&mut self.runtime, &mut self.commits.refresh);
        if !refresh.is_under_way() && turn.now >= refresh.next {
            let time = step_time(turn.setup.config.session_ttl);
            refresh.step(runtime.changes.owned.slots(), turn.now, time);
        }
        let end = refresh.until.min(refresh.at + turn.setup.config.limits.expiries_per_turn);
        let slots = refresh.at..end;
        refresh.at = end;
        for slot in runtime.sessions.attached_in(slots) {
            runtime.changes.note(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_its_steps_however_much_the_table_grows() {
        let begin = Instant::now();
        let mut refresh = Refresh { next: begin, at: 0, until: 0, steps_left: 0 };
        let time = Duration::from_secs(10);
        for round in 0..3 {
            let mut slots = 100;
            for step in 1..=STEPS {
                slots *= 2;
                let now = begin + time * (round * STEPS + step - 1);
                refresh.step(slots, now, time);
                assert_eq!(refresh.next, now + time);
                assert_eq!(refresh.until == slots, step == STEPS, "{step}: {refresh:?}");
                refresh.at = refresh.until;
            }
        }
        refresh.step(0, begin, time);
        assert!(!refresh.is_under_way());
        assert_eq!(step_time(Duration::from_secs(64)), Duration::from_secs(1));
        assert_eq!(step_time(Duration::ZERO), Duration::from_millis(1));
    }
}

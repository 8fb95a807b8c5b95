//! A coarse, lazy timer wheel: the deadlines of a hundred thousand connections for a few
//! instructions each.
//!
//! An entry is a hint: "look at this connection about then". The connection's own deadline is the
//! truth. So a deadline that moves later costs nothing (the hint fires, finds it too early, and is
//! set anew), and a connection has one live entry at a time. Fires nothing itself: it returns who
//! to look at. Called by the shard.
//!
//! Invariant: an entry fires at the first `advance` at or after its tick, never before.

use std::time::{Duration, Instant};

use crate::token::ConnectionId;

/// Length of a tick. No deadline here is one that a person could tell from one 50 ms later.
pub const TICK: Duration = Duration::from_millis(50);

/// Slots in the wheel: 25.6 s, so the default ping interval needs one hop.
const SLOTS: usize = 512;

/// Number of a tick since the wheel's beginning; 32 bits last six years.
pub type Tick = u32;

/// The wheel.
#[derive(Debug)]
pub struct TimerWheel {
    beginning: Instant,
    /// The next tick to fire. All entries lie in `next..next + SLOTS`.
    next: Tick,
    slots: Box<[Vec<ConnectionId>]>,
    /// A bit for each slot that has entries, so that a long sleep is found in eight words.
    occupied: [u64; SLOTS / 64],
}

impl TimerWheel {
    /// An empty wheel whose tick 0 ends at `beginning`.
    #[must_use]
    pub fn new(beginning: Instant) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        TimerWheel { beginning, next: 1, slots, occupied: [0; SLOTS / 64] }
    }

    /// Enters a hint for `deadline`, and returns the tick at which it fires: that of the deadline,
    /// or the last one on the wheel if the deadline lies beyond.
    pub fn schedule(&mut self, id: ConnectionId, deadline: Instant) -> Tick {
        let tick = self.tick_of(deadline);
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(id);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        tick
    }

    /// The tick that an entry for `deadline` would get now.
    #[must_use]
    pub fn tick_of(&self, deadline: Instant) -> Tick {
        let exact = deadline.saturating_duration_since(self.beginning).as_nanos();
        let tick = exact.div_ceil(TICK.as_nanos()).min(Tick::MAX.into()) as Tick;
        tick.clamp(self.next, self.next + SLOTS as Tick - 1)
    }

    /// Takes every entry whose tick has passed at `now`, with its tick: whoever has been
    /// scheduled anew since then recognises by it that the entry is stale.
    pub fn advance(&mut self, now: Instant, due: &mut impl Extend<(ConnectionId, Tick)>) {
        let passed = now.saturating_duration_since(self.beginning).as_nanos() / TICK.as_nanos();
        let passed = passed.min((Tick::MAX - SLOTS as Tick).into()) as Tick;
        while let Some(tick) = self.first_occupied().filter(|&tick| tick <= passed) {
            let slot = tick as usize % SLOTS;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            // The slot's storage goes too: entries cluster, and the crest of the wave must not
            // leave its high-water mark in every slot it passes.
            due.extend(std::mem::take(&mut self.slots[slot]).into_iter().map(|id| (id, tick)));
            self.next = tick + 1;
        }
        self.next = self.next.max(passed + 1);
    }

    /// Whether an entry for `id` at `tick` is still to fire.
    #[must_use]
    pub fn holds(&self, id: ConnectionId, tick: Tick) -> bool {
        tick >= self.next && self.slots[tick as usize % SLOTS].contains(&id)
    }

    /// When a tick fires.
    #[must_use]
    pub fn at(&self, tick: Tick) -> Instant {
        self.beginning + TICK * tick
    }

    /// When [`Self::advance`] next has something to return.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.first_occupied().map(|tick| self.at(tick))
    }

    fn first_occupied(&self) -> Option<Tick> {
        let start = self.next as usize % SLOTS;
        // The first word once from `start` on, then every word, ending with the first one's rest.
        let words = self.occupied.len();
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied[index];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some(self.next + ahead as Tick);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: NonZeroU32::MIN }
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let beginning = Instant::now();
        let mut seed = 1u64;
        for round in 0..200 {
            let mut wheel = TimerWheel::new(beginning);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = beginning + Duration::from_millis(seed >> 48);
            let mut due = Vec::new();
            wheel.advance(start, &mut due);
            let deadline = start + Duration::from_millis((seed >> 20) % 25_000);
            wheel.schedule(id(round), deadline);
            let fires = wheel.next_at().unwrap();
            assert!(fires >= deadline && fires < deadline + TICK * 2, "round {round}");
            wheel.advance(fires - Duration::from_nanos(1), &mut due);
            assert!(due.is_empty());
            wheel.advance(fires, &mut due);
            assert_eq!(due.len(), 1);
            assert_eq!(wheel.next_at(), None);
        }
    }

    #[test]
    fn a_deadline_beyond_the_wheel_fires_at_its_edge() {
        let beginning = Instant::now();
        let mut wheel = TimerWheel::new(beginning);
        let tick = wheel.schedule(id(0), beginning + Duration::from_secs(3600));
        assert_eq!(tick as usize, SLOTS);
    }

    #[test]
    fn a_long_sleep_fires_everything_once_in_order() {
        let beginning = Instant::now();
        let mut wheel = TimerWheel::new(beginning);
        for at in 0..500u32 {
            wheel.schedule(id(at), beginning + TICK * (at + 1));
        }
        let mut due = Vec::new();
        wheel.advance(beginning + Duration::from_secs(100), &mut due);
        let indices: Vec<u32> = due.iter().map(|(id, _)| id.index).collect();
        assert_eq!(indices, (0..500).collect::<Vec<_>>());
        // And the wheel goes on from there.
        let tick = wheel.schedule(id(9), beginning + Duration::from_secs(100) + TICK);
        assert_eq!(tick, 2001);
    }
}

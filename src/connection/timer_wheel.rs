//! A coarse, lazy timer wheel: the deadlines of a hundred thousand connections for a few
//! instructions each.
//!
//! An entry is a hint: "look at the connection in this slot, about then". The connection's own
//! deadline decides. So a deadline that moves later costs nothing: the hint fires too early, and is set
//! anew. A connection has one live entry at a time, and the next tenant of a slot takes its
//! predecessor's over, so clients that come and go do not fill the wheel. Fires nothing itself: it
//! returns which slots to look at. Called by the shard.
//!
//! Invariant: an entry fires at the first `advance` at or after its tick, never before. What a turn asks in which
//! nothing is due, whether a tick has passed and when the next entry fires, is reckoned beforehand.
//!
//! Next: [`crate::connection::slab`], where all connections are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Length of a tick. No deadline here is one that a person could tell from one 50 ms later.
pub const TICK: Duration = Duration::from_millis(50);

/// Buckets in the wheel, one a tick: 25.6 s, so the default ping interval needs one hop.
const BUCKETS: usize = 512;

/// Slot of a connection: the index in its id.
pub type Slot = u32;

/// Number of a tick since the wheel's beginning; 32 bits last six years.
pub type Tick = u32;

/// Entries whose tick has passed and that nobody has looked at yet, in the order of their ticks. A bucket gets
/// here as it is: a million entries that fire at once cost the turn in which they do no more than one.
#[derive(Debug, Default)]
pub struct Due {
    /// The first bucket, of which something is left; empty if there is none.
    first: Vec<Slot>,
    /// How many of it have been taken.
    taken: usize,
    tick: Tick,
    later: VecDeque<(Tick, Vec<Slot>)>,
}

impl Due {
    fn add(&mut self, tenants: Vec<Slot>, tick: Tick) {
        if self.is_empty() {
            (self.first, self.tick) = (tenants, tick);
        } else if !tenants.is_empty() {
            self.later.push_back((tick, tenants));
        }
    }

    /// The first entry.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<(Slot, Tick)> {
        self.first.get(self.taken).map(|tenant| (*tenant, self.tick))
    }

    /// Takes the first entry.
    #[inline]
    pub fn pop_front(&mut self) -> Option<(Slot, Tick)> {
        let first = self.front()?;
        self.taken += 1;
        if self.taken == self.first.len() {
            self.go_to_next();
        }
        Some(first)
    }

    #[inline(never)]
    fn go_to_next(&mut self) {
        (self.tick, self.first) = self.later.pop_front().unwrap_or_default();
        self.taken = 0;
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// How many there are: for those who check.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() - self.taken
            + self.later.iter().map(|(_, tenants)| tenants.len()).sum::<usize>()
    }

    /// Whether there is this one: for those who check.
    #[must_use]
    pub fn contains(&self, tenant: Slot, tick: Tick) -> bool {
        let later = self.later.iter().map(|(tick, tenants)| (*tick, &**tenants));
        let mut all = std::iter::once((self.tick, &self.first[self.taken..])).chain(later);
        all.any(|(at, tenants)| at == tick && tenants.contains(&tenant))
    }
}

/// The wheel.
#[derive(Debug)]
pub struct TimerWheel {
    beginning: Instant,
    /// The next tick to fire. All entries lie in `next..next + BUCKETS`.
    next: Tick,
    /// When that is.
    next_passes: Instant,
    /// The tick of the earliest entry, and when it fires.
    first: Option<(Tick, Instant)>,
    buckets: Box<[Vec<Slot>]>,
    /// By bucket, the latest time that is too early for its entries: one tick before they fire. So
    /// whether an entry is early enough is a comparison, which every visit makes; to reckon the
    /// time of a tick took 45 instructions each.
    too_early: Box<[Instant]>,
    /// A bit for each bucket that has entries, so that a long sleep is found in eight words.
    occupied: [u64; BUCKETS / 64],
}

impl TimerWheel {
    /// An empty wheel whose tick 0 ends at `beginning`.
    #[must_use]
    pub fn new(beginning: Instant) -> Self {
        let buckets = (0..BUCKETS).map(|_| Vec::new()).collect();
        // Bucket 0 has tick 512; its first round has no tick 0.
        let round = (1..=BUCKETS as Tick).map(|tick| beginning + TICK * (tick - 1));
        let mut too_early: Box<[Instant]> = round.collect();
        too_early.rotate_right(1);
        TimerWheel {
            beginning,
            next: 1,
            next_passes: beginning + TICK,
            first: None,
            buckets,
            too_early,
            occupied: [0; BUCKETS / 64],
        }
    }

    /// Enters a hint to look at `tenant`'s slot at `deadline`, and returns the tick at which it fires:
    /// that of the deadline, or the last one on the wheel if the deadline lies beyond.
    pub fn schedule(&mut self, tenant: Slot, deadline: Instant) -> Tick {
        let tick = self.tick_of(deadline);
        let bucket = tick as usize % BUCKETS;
        self.buckets[bucket].push(tenant);
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        if self.first.is_none_or(|(first, _)| tick < first) {
            self.first = Some((tick, self.at(tick)));
        }
        tick
    }

    /// The tick that an entry for `deadline` would get now.
    #[must_use]
    pub fn tick_of(&self, deadline: Instant) -> Tick {
        let tick = self.ticks(deadline + TICK - Duration::from_nanos(1));
        tick.clamp(self.next, self.next + BUCKETS as Tick - 1)
    }

    /// Takes every entry whose tick has passed at `now`, with its tick. By the tick a connection that
    /// has been scheduled anew recognises that the entry is stale.
    #[inline]
    pub fn advance(&mut self, now: Instant, due: &mut Due) {
        // Twenty times a second at most: in most turns no tick has passed.
        if now >= self.next_passes {
            self.pass_ticks(now, due);
        }
    }

    #[inline(never)]
    fn pass_ticks(&mut self, now: Instant, due: &mut Due) {
        let passed = self.ticks(now).min(Tick::MAX - BUCKETS as Tick);
        while let Some(tick) = self.first_occupied().filter(|&tick| tick <= passed) {
            let bucket = tick as usize % BUCKETS;
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            // With its storage. Entries cluster, and otherwise every bucket that a large cluster passes
            // would keep storage for all of it.
            due.add(std::mem::take(&mut self.buckets[bucket]), tick);
            self.go_to(tick + 1);
        }
        self.go_to(passed + 1);
        self.next_passes = self.at(self.next);
        self.first = self.first_occupied().map(|tick| (tick, self.at(tick)));
    }

    /// Lets the ticks before `next` be over: their buckets begin another round.
    fn go_to(&mut self, next: Tick) {
        for tick in self.next.max(next.saturating_sub(BUCKETS as Tick))..next {
            self.too_early[tick as usize % BUCKETS] = self.at(tick + BUCKETS as Tick - 1);
        }
        self.next = self.next.max(next);
    }

    /// Whether an entry at `tick` fires early enough for `deadline`: at most a tick after it, or
    /// it has fired already.
    #[inline]
    #[must_use]
    pub fn covers(&self, tick: Tick, deadline: Instant) -> bool {
        tick < self.next || self.too_early[tick as usize % BUCKETS] < deadline
    }

    /// Entries that are still to fire, stale ones included.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    /// Whether entries at `tick` are still to fire.
    #[must_use]
    pub fn is_to_come(&self, tick: Tick) -> bool {
        tick >= self.next
    }

    /// Whether an entry for `tenant`'s slot at `tick` is still to fire.
    #[must_use]
    pub fn holds(&self, tenant: Slot, tick: Tick) -> bool {
        self.is_to_come(tick) && self.buckets[tick as usize % BUCKETS].contains(&tenant)
    }

    /// Whole ticks from the beginning to `time`.
    fn ticks(&self, time: Instant) -> Tick {
        const PER_SECOND: u64 = 1_000_000_000 / TICK.as_nanos() as u64;
        const {
            assert!(PER_SECOND * TICK.as_nanos() as u64 == 1_000_000_000, "a tick divides a second")
        };
        let passed = time.saturating_duration_since(self.beginning);
        let parts = passed.subsec_nanos() / TICK.subsec_nanos();
        let ticks = passed.as_secs().saturating_mul(PER_SECOND).saturating_add(parts.into());
        ticks.min(Tick::MAX.into()) as Tick
    }

    /// When a tick fires.
    #[must_use]
    pub fn at(&self, tick: Tick) -> Instant {
        self.beginning + TICK * tick
    }

    /// When [`Self::advance`] next has something to return.
    #[inline]
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.first.map(|(_, at)| at)
    }

    fn first_occupied(&self) -> Option<Tick> {
        let start = self.next as usize % BUCKETS;
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
                let bucket = index * 64 + word.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some(self.next + ahead as Tick);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let beginning = Instant::now();
        let mut seed = 1u64;
        for round in 0..200 {
            let mut wheel = TimerWheel::new(beginning);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = beginning + Duration::from_millis(seed >> 48);
            let mut due = Due::default();
            wheel.advance(start, &mut due);
            let deadline = start + Duration::from_millis((seed >> 20) % 25_000);
            wheel.schedule(round, deadline);
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
        let tick = wheel.schedule(0, beginning + Duration::from_secs(3600));
        assert_eq!(tick as usize, BUCKETS);
    }

    #[test]
    fn a_long_sleep_fires_everything_once_in_order() {
        let beginning = Instant::now();
        let mut wheel = TimerWheel::new(beginning);
        for at in 0..500u32 {
            wheel.schedule(at, beginning + TICK * (at + 1));
        }
        let mut due = Due::default();
        wheel.advance(beginning + Duration::from_secs(100), &mut due);
        assert!(due.contains(499, 500) && !due.contains(499, 499));
        for at in 0..500 {
            assert_eq!((due.len(), due.front()), (500 - at as usize, Some((at, at + 1))));
            assert_eq!(due.pop_front(), Some((at, at + 1)));
            assert!(!due.contains(at, at + 1));
        }
        assert!(due.is_empty() && due.pop_front().is_none());
        // And the wheel goes on from there.
        let tick = wheel.schedule(9, beginning + Duration::from_secs(100) + TICK);
        assert_eq!(tick, 2001);
    }
}

//! The timers that applications have set: for which connection, under which key, and when.
//!
//! A connection's timers have hints in a wheel of their own, so they fire up to a tick late, and a
//! connection without timers costs nothing. A reactor's timers are few and exact. Makes no call: it says
//! what is due, one timer at a time, so that the shard can stop at its share. Filled through `Context` and
//! `ReactorContext`; asked by the shard.
//!
//! Invariant: a timer fires once, at its time or later, unless it is set anew, cancelled, or its
//! connection closes first. Each connection's timers have one live hint, and it comes no later than a
//! tick after their earliest timer, or, if that has passed, than the wheel's next tick.
//!
//! Next: [`crate::apps`]: whole applications.

use std::fmt;
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::connection::by_slot::BySlot;
use crate::connection::timer_wheel::{self, Due, Tick, TimerWheel};
use crate::token::LocalId;

/// Beyond this a timer is as good as never: an `Instant` need not reach further.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The answer to one timer too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTimers {
    /// How many there may be at once ([`Limits::timers_per_connection`], or
    /// [`Limits::timers_per_reactor`]).
    pub most: usize,
}

impl fmt::Display for TooManyTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} timers are set already: cancel one, or set one of theirs anew", self.most)
    }
}

impl std::error::Error for TooManyTimers {}

/// Why a connection's timer was not set ([`crate::Context::set_timer`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetTimerError {
    /// The connection has as many as it may.
    TooMany(TooManyTimers),
    /// It could never fire: the WebSocket is over (this is its `on_close`), or is about to be, because
    /// the application has just closed it.
    Closed,
}

impl From<TooManyTimers> for SetTimerError {
    fn from(error: TooManyTimers) -> Self {
        SetTimerError::TooMany(error)
    }
}

impl fmt::Display for SetTimerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetTimerError::TooMany(error) => error.fmt(f),
            SetTimerError::Closed => {
                f.write_str("the WebSocket is closed: no timer of its can fire")
            }
        }
    }
}

impl std::error::Error for SetTimerError {}

#[derive(Debug, Clone, Copy)]
struct Timer {
    key: u64,
    at: Instant,
}

/// The timers of a slot's tenant. The entry outlives the last timer, and the tenant, until its hint
/// fires. So an application that sets and cancels all the time does not leave a hint in the wheel each
/// time, and neither do clients that come and go.
#[derive(Debug)]
struct ConnectionTimers {
    tenant: LocalId,
    timers: Vec<Timer>,
    /// The tick of the live hint: in the wheel, or among those due.
    hint: Tick,
}

/// The shortest time for which a reactor's own timer is set: a millisecond. One of zero that its callback
/// sets anew would hold the turn for ever, because in a turn the time stands still.
const REACTOR_LEAST: Duration = Duration::from_millis(1);

/// All timers of one reactor's application.
#[derive(Debug)]
pub struct ApplicationTimers {
    connections: BySlot<ConnectionTimers>,
    wheel: TimerWheel,
    /// Hints in the wheel and among those due.
    hints: usize,
    /// Hints that have fired and were not looked at yet.
    due: Due,
    of_reactor: Vec<Timer>,
    /// When the earliest of those is due.
    reactor_at: Option<Instant>,
    most_per_connection: usize,
    most_per_reactor: usize,
    /// For how long unread input puts off what is due.
    overdue: Duration,
}

impl ApplicationTimers {
    /// None yet.
    #[must_use]
    pub fn new(now: Instant, limits: &Limits) -> Self {
        ApplicationTimers {
            connections: BySlot::default(),
            wheel: TimerWheel::new(now),
            hints: 0,
            due: Due::default(),
            of_reactor: Vec::new(),
            reactor_at: None,
            most_per_connection: limits.timers_per_connection,
            most_per_reactor: limits.timers_per_reactor,
            overdue: timer_wheel::TICK * u32::from(limits.overdue_ticks),
        }
    }

    /// Sets a connection's timer, or sets it anew if it has one with this `key`.
    ///
    /// # Errors
    ///
    /// When the connection has as many as it may.
    pub fn set(
        &mut self,
        id: LocalId,
        key: u64,
        after: Duration,
        now: Instant,
    ) -> Result<(), TooManyTimers> {
        let at = later(now, after);
        if self.hints == 0 {
            // The wheel stood still while it was empty.
            self.wheel.advance(now, &mut self.due);
        }
        let ApplicationTimers { wheel, hints, .. } = self;
        let mut hint = |at| {
            *hints += 1;
            wheel.schedule(id.index, at)
        };
        let timers_of = self.connections.get_or_insert_with(id.index, || ConnectionTimers {
            tenant: id,
            timers: Vec::new(),
            hint: hint(at),
        });
        timers_of.tenant = id;
        set(&mut timers_of.timers, key, at, self.most_per_connection)?;
        // An earlier hint serves: it finds nothing due, and is entered anew.
        if self.wheel.at(timers_of.hint) >= at + timer_wheel::TICK {
            self.hints += 1;
            timers_of.hint = self.wheel.schedule(id.index, at);
        }
        Ok(())
    }

    /// Forgets a connection's timer; whether there was one.
    pub fn cancel(&mut self, id: LocalId, key: u64) -> bool {
        self.of(id).is_some_and(|timers_of| cancel(&mut timers_of.timers, key))
    }

    /// Forgets all timers of a connection, which has closed.
    pub fn forget(&mut self, id: LocalId) {
        // An application without timers pays for no more than this comparison.
        if !self.connections.is_empty()
            && let Some(timers_of) = self.of(id)
        {
            timers_of.timers = Vec::new();
        }
    }

    fn of(&mut self, id: LocalId) -> Option<&mut ConnectionTimers> {
        self.connections.get_mut(id.index).filter(|timers_of| timers_of.tenant == id)
    }

    /// Sets a timer of the reactor's own, or sets it anew; for [`REACTOR_LEAST`] from now at the earliest.
    ///
    /// # Errors
    ///
    /// When the reactor has as many as it may.
    pub fn set_for_reactor(
        &mut self,
        key: u64,
        after: Duration,
        now: Instant,
    ) -> Result<(), TooManyTimers> {
        let at = later(now, after.max(REACTOR_LEAST));
        let set = set(&mut self.of_reactor, key, at, self.most_per_reactor);
        self.find_reactor_at();
        set
    }

    /// Forgets a timer of the reactor's own; whether there was one.
    pub fn cancel_for_reactor(&mut self, key: u64) -> bool {
        let was_set = cancel(&mut self.of_reactor, key);
        self.find_reactor_at();
        was_set
    }

    /// Whether the reactor has a timer with this key.
    #[must_use]
    pub fn is_set_for_reactor(&self, key: u64) -> bool {
        self.of_reactor.iter().any(|timer| timer.key == key)
    }

    fn find_reactor_at(&mut self) {
        self.reactor_at = earliest(&self.of_reactor).map(|(_, timer)| timer.at);
    }

    /// Whether there may be something due: a quick look, for every turn.
    #[inline]
    #[must_use]
    pub fn may_be_due(&self, now: Instant) -> bool {
        self.hints > 0 || self.reactor_at.is_some_and(|at| at <= now)
    }

    /// Takes note of what is due at `now`. Nothing is lost if nobody asks for it yet.
    pub fn advance(&mut self, now: Instant) {
        if self.hints > 0 {
            self.wheel.advance(now, &mut self.due);
        }
    }

    /// The next timer that is due: it is no longer set. Looks at up to `share` hints, and takes
    /// off of it those it looked at. Of one connection the earliest comes first. Those of one that has
    /// unread input, as `is_unheard` says, are put off by a tick each time, and by
    /// [`Limits::overdue_ticks`] at the most: what its peer has said already may set them anew.
    pub fn next_due(
        &mut self,
        now: Instant,
        share: &mut usize,
        is_unheard: impl Fn(LocalId) -> bool,
    ) -> Option<(LocalId, u64)> {
        while *share > 0
            && let Some((slot, tick)) = self.due.front()
        {
            *share -= 1;
            if let Some(timers_of) = self.connections.get_mut(slot)
                && timers_of.hint == tick
            {
                match earliest(&timers_of.timers) {
                    Some((_, timer))
                        if timer.at <= now
                            && now < timer.at + self.overdue
                            && is_unheard(timers_of.tenant) =>
                    {
                        self.hints += 1;
                        timers_of.hint = self.wheel.schedule(slot, now);
                    }
                    Some((index, timer)) if timer.at <= now => {
                        timers_of.timers.remove(index);
                        return Some((timers_of.tenant, timer.key));
                    }
                    Some((_, timer)) => {
                        self.hints += 1;
                        timers_of.hint = self.wheel.schedule(slot, timer.at);
                    }
                    None => {
                        self.connections.remove(slot);
                    }
                }
            }
            self.due.pop_front();
            self.hints -= 1;
        }
        None
    }

    /// The next timer of the reactor's own that is due: it is no longer set.
    pub fn next_due_for_reactor(&mut self, now: Instant) -> Option<u64> {
        let (index, timer) = earliest(&self.of_reactor).filter(|(_, timer)| timer.at <= now)?;
        self.of_reactor.remove(index);
        self.find_reactor_at();
        Some(timer.key)
    }

    /// Whether hints were left over by a share that was used up.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When [`Self::advance`] and the questions behind it next have an answer.
    #[inline]
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        if self.hints == 0 {
            return self.reactor_at;
        }
        [self.wheel.next_at(), self.reactor_at].into_iter().flatten().min()
    }

    /// The connections that have timers.
    pub fn connections(&self) -> impl Iterator<Item = LocalId> {
        let with_timers =
            self.connections.iter().filter(|(_, timers_of)| !timers_of.timers.is_empty());
        with_timers.map(|(_, timers_of)| timers_of.tenant)
    }

    /// Checks the second half of the invariant at the head of this file.
    ///
    /// # Panics
    ///
    /// If it does not hold.
    pub fn invariants(&self) {
        for (slot, timers_of) in self.connections.iter() {
            let id = timers_of.tenant;
            let is_due = self.due.contains(slot, timers_of.hint);
            assert!(
                is_due || self.wheel.holds(slot, timers_of.hint),
                "{id}: timers without a hint"
            );
            if let Some((_, timer)) = earliest(&timers_of.timers) {
                // One that had passed already was entered at the wheel's next tick.
                let latest = self.wheel.tick_of(timer.at) + 1;
                assert!(is_due || timers_of.hint <= latest, "{id}: a timer behind its hint");
            }
            assert!(timers_of.timers.len() <= self.most_per_connection);
        }
        assert!(self.of_reactor.len() <= self.most_per_reactor);
        assert_eq!(self.reactor_at, earliest(&self.of_reactor).map(|(_, timer)| timer.at));
        assert_eq!(self.hints, self.wheel.entries() + self.due.len(), "hints are counted");
    }
}

/// Never `now` itself: a timer does not fire in the turn that set it, so none can hold a turn.
fn later(now: Instant, after: Duration) -> Instant {
    now + after.clamp(Duration::from_nanos(1), LONGEST)
}

fn set(timers: &mut Vec<Timer>, key: u64, at: Instant, most: usize) -> Result<(), TooManyTimers> {
    // Set anew, it also moves behind those that were set before it.
    cancel(timers, key);
    if timers.len() >= most {
        return Err(TooManyTimers { most });
    }
    timers.push(Timer { key, at });
    Ok(())
}

fn cancel(timers: &mut Vec<Timer>, key: u64) -> bool {
    let found = timers.iter().position(|timer| timer.key == key);
    found.map(|index| timers.remove(index)).is_some()
}

/// The one that is due first; of several for one time, the one that was set first.
fn earliest(timers: &[Timer]) -> Option<(usize, Timer)> {
    timers.iter().copied().enumerate().min_by_key(|(_, timer)| timer.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(index: u32) -> LocalId {
        LocalId { index, generation: NonZeroU32::MIN }
    }

    fn new(now: Instant) -> ApplicationTimers {
        let limits =
            Limits { timers_per_connection: 3, timers_per_reactor: 2, ..Limits::default() };
        ApplicationTimers::new(now, &limits)
    }

    /// Everything that is due at `now`, looked at in shares of one.
    fn due(timers: &mut ApplicationTimers, now: Instant) -> Vec<(u32, u64)> {
        let mut fired = Vec::new();
        timers.advance(now);
        while timers.has_due() {
            timers.invariants();
            let next = timers.next_due(now, &mut 1, |_| false);
            fired.extend(next.map(|(id, key)| (id.index, key)));
        }
        timers.invariants();
        fired
    }

    #[test]
    fn each_fires_once_in_order_and_never_early() {
        let start = Instant::now();
        let mut timers = new(start);
        for (key, seconds) in [(1, 3), (2, 1), (3, 1)] {
            timers.set(id(7), key, SECOND * seconds, start).unwrap();
        }
        assert_eq!(due(&mut timers, start + SECOND - Duration::from_nanos(1)), []);
        assert_eq!(due(&mut timers, start + SECOND + timer_wheel::TICK), [(7, 2), (7, 3)]);
        assert_eq!(due(&mut timers, start + 4 * SECOND), [(7, 1)]);
        assert_eq!(due(&mut timers, start + 400 * SECOND), []);
        assert_eq!((timers.next_at(), timers.connections.len()), (None, 0));
    }

    #[test]
    fn set_anew_it_fires_at_the_new_time_only() {
        let start = Instant::now();
        let mut timers = new(start);
        for step in 0..100 {
            let now = start + SECOND * step;
            assert_eq!(due(&mut timers, now), []);
            // Later each time, as an idle time-out is; and once earlier.
            let after = if step == 99 { SECOND } else { 30 * SECOND };
            timers.set(id(0), 5, after, now).unwrap();
        }
        assert_eq!(due(&mut timers, start + 101 * SECOND), [(0, 5)]);
        assert_eq!(due(&mut timers, start + 1000 * SECOND), []);
    }

    #[test]
    fn unread_input_puts_it_off_and_not_for_ever() {
        let start = Instant::now();
        let mut timers = new(start);
        timers.set(id(0), 1, SECOND, start).unwrap();
        timers.set(id(1), 2, SECOND, start).unwrap();
        let ticks = u32::from(Limits::default().overdue_ticks);
        let mut fired = Vec::new();
        for tick in 0..=ticks + 1 {
            let now = start + SECOND + timer_wheel::TICK * tick;
            timers.advance(now);
            let mut share = 10;
            while let Some((id, _)) = timers.next_due(now, &mut share, |id| id.index == 0) {
                fired.push((tick, id.index));
            }
            timers.invariants();
            // It is looked at once a tick, and not all the time.
            assert!(!timers.has_due() && share >= 7, "{share}");
        }
        let [(first, 1), (last, 0)] = fired[..] else { panic!("{fired:?}") };
        assert!(first <= 1 && last >= ticks, "{fired:?}");
    }

    #[test]
    fn one_too_many_is_an_answer_and_setting_anew_is_not_one_more() {
        let now = Instant::now();
        let mut timers = new(now);
        for key in [1, 2, 3, 1, 2, 3] {
            timers.set(id(0), key, SECOND, now).unwrap();
        }
        assert_eq!(timers.set(id(0), 4, SECOND, now), Err(TooManyTimers { most: 3 }));
        assert!(timers.cancel(id(0), 2) && !timers.cancel(id(0), 2));
        timers.set(id(0), 4, SECOND, now).unwrap();
        assert_eq!(due(&mut timers, now + 2 * SECOND), [(0, 1), (0, 3), (0, 4)]);
    }

    #[test]
    fn a_connection_that_closes_takes_its_timers_along() {
        let now = Instant::now();
        let mut timers = new(now);
        timers.set(id(0), 1, SECOND, now).unwrap();
        timers.forget(id(0));
        let next = LocalId { generation: NonZeroU32::new(2).unwrap(), ..id(0) };
        timers.set(next, 2, SECOND, now).unwrap();
        assert_eq!(due(&mut timers, now + 2 * SECOND), [(0, 2)]);
    }

    #[test]
    fn setting_and_cancelling_coming_and_going_leaves_no_trail_in_the_wheel() {
        let now = Instant::now();
        let mut timers = new(now);
        for _ in 0..1000 {
            timers.set(id(0), 1, 10 * SECOND, now).unwrap();
            timers.cancel(id(0), 1);
        }
        for generation in 2..1000 {
            let generation = NonZeroU32::new(generation).unwrap();
            let next = LocalId { generation, ..id(0) };
            timers.set(next, 1, 10 * SECOND, now).unwrap();
            timers.forget(next);
        }
        timers.advance(now + 20 * SECOND);
        assert_eq!(timers.due.len(), 1);
    }

    #[test]
    fn no_time_is_too_long_or_too_short() {
        let now = Instant::now();
        let mut timers = new(now);
        timers.set(id(0), 1, Duration::MAX, now).unwrap();
        timers.set(id(0), 2, Duration::ZERO, now).unwrap();
        assert_eq!(due(&mut timers, now), [], "not in the turn that set it");
        assert_eq!(due(&mut timers, now + timer_wheel::TICK), [(0, 2)]);
    }

    #[test]
    fn a_reactors_timers_are_exact() {
        let now = Instant::now();
        let mut timers = new(now);
        let millisecond = Duration::from_millis(1);
        timers.set_for_reactor(1, 3 * millisecond, now).unwrap();
        timers.set_for_reactor(2, millisecond, now).unwrap();
        assert_eq!(timers.set_for_reactor(3, SECOND, now), Err(TooManyTimers { most: 2 }));
        assert_eq!(timers.next_at(), Some(now + millisecond));
        assert_eq!(timers.next_due_for_reactor(now), None);
        assert!(timers.is_set_for_reactor(2));
        assert_eq!(timers.next_due_for_reactor(now + SECOND), Some(2));
        assert!(!timers.is_set_for_reactor(2));
        assert!(timers.cancel_for_reactor(1));
        assert_eq!(timers.next_due_for_reactor(now + SECOND), None);
    }
}

//! What ends a reactor's sleep when nothing else does: a timer among the descriptors of its poll.
//!
//! A time-out of the poll would do the same. But for that the kernel starts and cancels a timer in each sleep, and with
//! one connection in ping-pong there is a sleep for each message: it cost 1.08 times the CPU time of the floor so with
//! messages of 16 bytes, and costs 1.03 times; 1.11 and 1.02 with 1 KiB (medians of five runs of 12 rounds, in turn with
//! the other, of `cargo bench --bench load`). A timer that is left set costs nothing until it fires.
//!
//! Linux alone has it as a descriptor. Elsewhere the poll gets its time-out. What is due, and when, is for the shard to
//! say; a sleep that ends too early is a turn in which nothing is due. Called by `reactor.rs`.
//!
//! Invariant: while the poll sleeps without a time-out, the timer is set for no later than [`LATE_MOST`] behind the
//! deadline, if there is one. A thread that was stopped while it set the timer sleeps longer, once.
//!
//! Next: [`crate::reactor`], the loop.

use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

/// The timer is set in whole milliseconds, upwards, as the time-out of a poll is. So deadlines that follow each other
/// closely, as those of sessions that were left in one moment, are due in one turn and not in one each.
const GRAIN: Duration = Duration::from_millis(1);

/// How late it may fire: a grain, and as much again for what passes between reading the clock and setting it.
const LATE_MOST: Duration = Duration::from_millis(2);

/// A timer that a poll tells of, and when it fires.
#[derive(Debug)]
pub struct SleepTimer {
    timer: Timer,
    /// The latest that it may be; `None` if it is not set.
    fires_at: Option<Instant>,
}

impl SleepTimer {
    /// A timer that is not set, and of which the poll tells under this token.
    ///
    /// # Errors
    ///
    /// When the system is out of descriptors or memory.
    pub fn new(registry: &Registry, token: Token) -> io::Result<SleepTimer> {
        Ok(SleepTimer { timer: Timer::new(registry, token)?, fires_at: None })
    }

    /// The time-out of a poll that may sleep for as long as `longest` from `now` on, which is `None` if the timer ends
    /// that sleep. It is set only if it would fire too late: one that is set for a deadline that has moved away since
    /// fires in vain, once, which is cheaper than to set it in each turn.
    #[inline]
    pub fn time_out(&mut self, now: Instant, longest: Option<Duration>) -> Option<Duration> {
        // With zero the poll does not sleep.
        let Some(after) = longest.filter(|after| !after.is_zero()) else { return longest };
        let latest = now.checked_add(after).and_then(|deadline| deadline.checked_add(LATE_MOST));
        let Some(latest) = latest else { return longest };
        let ends_sleep = self.fires_at.is_some_and(|at| at <= latest) || self.set(after);
        if ends_sleep { None } else { longest }
    }

    /// Whether it could be set. The clock is read behind that: if the thread has stood still since `after` was reckoned,
    /// the timer is as much too late, and the next turn has to see it.
    #[cold]
    fn set(&mut self, after: Duration) -> bool {
        let grain = GRAIN.subsec_nanos();
        let up = (grain - after.subsec_nanos() % grain) % grain;
        let after = after.saturating_add(Duration::from_nanos(up.into()));
        let is_set = self.timer.set(after);
        if is_set {
            self.fires_at = Instant::now().checked_add(after);
        }
        is_set
    }

    /// The poll has told of it.
    pub fn fired(&mut self) {
        self.fires_at = None;
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use on_linux::Timer;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod on_linux {
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Interest, Registry, Token};
    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

    /// It is never read: to set it clears what a read would, and the poll tells of each time that it fires.
    #[derive(Debug)]
    pub(super) struct Timer(OwnedFd);

    impl Timer {
        pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Timer> {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            // The clock of `Instant`: what has fired is due.
            let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
            registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Timer(timer))
        }

        /// Zero would mean never, and does not come.
        pub(super) fn set(&self, after: Duration) -> bool {
            debug_assert!(!after.is_zero(), "a timer that never fires ends no sleep");
            let Ok(it_value) = Timespec::try_from(after) else { return false };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once).is_ok()
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use elsewhere::Timer;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod elsewhere {
    use std::io;
    use std::time::Duration;

    use mio::{Registry, Token};

    /// There is none, so it cannot be set.
    #[derive(Debug)]
    pub(super) struct Timer;

    impl Timer {
        pub(super) fn new(_: &Registry, _: Token) -> io::Result<Timer> {
            Ok(Timer)
        }

        pub(super) fn set(&self, _: Duration) -> bool {
            false
        }
    }
}

#[cfg(test)]
#[cfg(any(target_os = "linux", target_os = "android"))]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    const TOKEN: Token = Token(2);

    struct Sleeper {
        poll: Poll,
        timer: SleepTimer,
    }

    impl Sleeper {
        fn new() -> Sleeper {
            let poll = Poll::new().unwrap();
            let timer = SleepTimer::new(poll.registry(), TOKEN).unwrap();
            Sleeper { poll, timer }
        }

        /// Asks the poll, which may sleep so long, until the timer has fired; when it began and ended.
        fn sleep(&mut self, longest: Duration) -> (Instant, Instant) {
            let mut events = Events::with_capacity(8);
            let began = Instant::now();
            assert_eq!(self.timer.time_out(began, Some(longest)), None);
            while events.is_empty() {
                // A signal may end it sooner.
                let _ = self.poll.poll(&mut events, None);
            }
            assert!(events.iter().all(|event| event.token() == TOKEN));
            self.timer.fired();
            (began, Instant::now())
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_fires_again_and_again_without_being_read_and_never_early() {
        let mut sleeper = Sleeper::new();
        for ms in [1, 20, 1, 3] {
            let (began, ended) = sleeper.sleep(ms * MS);
            assert!(ended - began >= ms * MS, "{ms} ms: {:?}", ended - began);
        }
        // And not at all if it is not set.
        let mut events = Events::with_capacity(8);
        sleeper.poll.poll(&mut events, Some(5 * MS)).unwrap();
        assert!(events.is_empty());
    }

    #[test]
    fn an_earlier_deadline_sets_it_and_a_later_one_leaves_it() {
        let mut sleeper = Sleeper::new();
        let (now, hour) = (Instant::now(), 3_600_000 * MS);
        let mut set_for = |longest| {
            assert_eq!(sleeper.timer.time_out(now, Some(longest)), None);
            sleeper.timer.fires_at.unwrap()
        };
        let two_hours = set_for(2 * hour);
        assert!(two_hours >= now + 2 * hour);
        let one_hour = set_for(hour);
        assert!(one_hour >= now + hour && one_hour < two_hours);
        assert_eq!(set_for(3 * hour), one_hour);
        assert!(set_for(hour / 2) < one_hour);
        // Whatever it was set for: it ends the sleep.
        sleeper.sleep(MS);
        assert_eq!(sleeper.timer.fires_at, None);
    }

    #[test]
    fn deadlines_of_one_moment_share_it_and_one_that_is_too_late_is_set_anew() {
        let mut sleeper = Sleeper::new();
        let (now, second) = (Instant::now(), 1000 * MS);
        // A deadline a little before what it is set for is not worth a call.
        sleeper.timer.fires_at = Some(now + second);
        for earlier in [MS / 2, MS, LATE_MOST] {
            assert_eq!(sleeper.timer.time_out(now, Some(second - earlier)), None);
            assert_eq!(sleeper.timer.fires_at, Some(now + second), "{earlier:?}");
        }
        // As if the thread had been stopped for an hour between the clock and the call.
        sleeper.timer.fires_at = Some(now + 3_600 * second);
        assert_eq!(sleeper.timer.time_out(now, Some(second)), None);
        assert!(sleeper.timer.fires_at.unwrap() < now + 3_600 * second);
    }

    #[test]
    fn what_needs_no_timer_goes_to_the_poll_as_it_is() {
        let mut sleeper = Sleeper::new();
        let now = Instant::now();
        for longest in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            assert_eq!(sleeper.timer.time_out(now, longest), longest);
            assert_eq!(sleeper.timer.fires_at, None);
        }
    }
}

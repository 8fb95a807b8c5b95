//! Which callback held the reactor and made a turn slow.
//!
//! That a turn was slow is known from the two readings of the clock that each turn has anyway. Which
//! callback it was is known too if only one ran in it. If several did, the steps of the turns that
//! follow are timed one by one for a minute, so that the one that blocks is named when it does so
//! again. Until then only a few counters are kept: reading the clock at each visit would cost more than
//! the rest of many visits.
//!
//! Changes nothing in what the shard does. A callback that never returns is not found here: its
//! reactor's `revolve_turns_total` stands still.
//!
//! Next: [`crate::server_status`]: what the reactors share.

use std::fmt;
use std::time::{Duration, Instant};

use crate::token::LocalId;

/// How long steps are timed after a turn that was slow for an unknown reason.
const WATCHFUL: Duration = Duration::from_secs(60);

/// Time between two lines in the log; what they leave out they count.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The callbacks of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callback {
    Upgrade,
    NotOpening,
    Request,
    Open,
    Message,
    Close,
    Timer,
    ReactorTimer,
    Answer,
    Post,
    SessionEnd,
    Drain,
    BacklogLow,
}

impl Callback {
    const ALL: [(Callback, &'static str); 13] = [
        (Callback::Upgrade, "on_upgrade"),
        (Callback::NotOpening, "what follows an upgrade that was not to be"),
        (Callback::Request, "on_request"),
        (Callback::Open, "on_open"),
        (Callback::Message, "on_message"),
        (Callback::Close, "on_close"),
        (Callback::Timer, "on_timer"),
        (Callback::ReactorTimer, "on_reactor_timer"),
        (Callback::Answer, "what follows an off-loaded job"),
        (Callback::Post, "a post"),
        (Callback::SessionEnd, "on_session_end"),
        (Callback::Drain, "on_drain"),
        (Callback::BacklogLow, "on_backlog_low"),
    ];

    /// What the log calls it.
    pub(crate) fn name(self) -> &'static str {
        Callback::ALL[self as usize].1
    }

    fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// The callbacks that ran in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Which ones: bits of [`Callback`].
    kinds: u16,
    /// How many; the messages of one visit count once.
    count: u32,
    /// Whom the last one was for.
    last: Option<LocalId>,
}

impl Calls {
    fn and(self, later: Calls) -> Calls {
        Calls {
            kinds: self.kinds | later.kinds,
            count: self.count + later.count,
            last: later.last.or(self.last),
        }
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = Callback::ALL.iter().filter(|(callback, _)| self.kinds & callback.bit() != 0);
        for (index, (_, name)) in ran.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { " or " })?;
        }
        match (self.count, self.last) {
            (0 | 1, Some(id)) => write!(f, " of connection {id}"),
            (0 | 1, None) => Ok(()),
            (count, Some(id)) => write!(f, " ({count} calls, the last for connection {id})"),
            (count, None) => write!(f, " ({count} calls)"),
        }
    }
}

/// What is known of a slow turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// These callbacks held the reactor for so long.
    Known(Calls, Duration),
    /// One of so many callbacks.
    OneOf(u32),
    /// No callback ran.
    NotTheApplication,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Known(calls, took) => write!(
                f,
                "{calls} held the reactor for {} ms; what takes long belongs into Context::offload",
                took.as_millis()
            ),
            Cause::OneOf(count) => write!(
                f,
                "one of {count} callbacks held the reactor; if it happens again in the next {} s, \
                 it will be named",
                WATCHFUL.as_secs()
            ),
            Cause::NotTheApplication => {
                write!(f, "no callback ran in it; the machine may be short of processor time")
            }
        }
    }
}

/// The last line in the log.
#[derive(Debug, Clone, Copy)]
struct LastLine {
    at: Instant,
    /// Whether it told whose callback held the reactor.
    is_named: bool,
}

/// What one shard keeps in order to name a culprit.
#[derive(Debug, Default)]
pub(crate) struct SlowTurnDetector {
    /// Since the turn began, or the step that is being timed.
    calls: Calls,
    /// The messages that are in them, or in those of earlier turns.
    messages: u64,
    /// While steps are timed.
    until: Option<Instant>,
    /// The step that is being timed: when it began, and what had run before it in this turn.
    step: Option<(Instant, Calls)>,
    /// The slowest step of this turn.
    slowest: Option<(Calls, Duration)>,
    last_line: Option<LastLine>,
    /// Slow turns since then.
    untold: u64,
}

impl SlowTurnDetector {
    /// A turn begins at `now`.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.calls = Calls::default();
        self.slowest = None;
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
    }

    /// A callback has run, so many times; `last` is whom it was for in the end. The messages of one
    /// visit count once.
    pub(crate) fn called(&mut self, callback: Callback, count: u32, last: Option<LocalId>) {
        self.calls = self.calls.and(Calls { kinds: callback.bit(), count, last });
    }

    /// Of these `visits`, some may have brought messages: `messages` is how many there were ever.
    #[inline]
    pub(crate) fn heard(&mut self, messages: u64, visits: u32, last: Option<LocalId>) {
        if messages > self.messages {
            self.messages = messages;
            self.called(Callback::Message, visits, last);
        }
    }

    /// Whether the steps of this turn are timed.
    #[inline]
    pub(crate) fn is_timing(&self) -> bool {
        self.until.is_some()
    }

    /// A step of the turn begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.step = Some((now, std::mem::take(&mut self.calls)));
    }

    /// The step that began last has ended.
    pub(crate) fn end(&mut self, now: Instant) {
        let Some((began, before)) = self.step.take() else { return };
        let took = now.saturating_duration_since(began);
        if self.calls.count > 0 && self.slowest.is_none_or(|(_, slowest)| took > slowest) {
            self.slowest = Some((self.calls, took));
        }
        self.calls = before.and(self.calls);
    }

    /// Why the turn that has just ended took so long.
    pub(crate) fn cause(&mut self, took: Duration, now: Instant) -> Cause {
        match (self.slowest, self.calls.count) {
            (Some((calls, step)), _) if step > took / 2 => Cause::Known(calls, step),
            (_, 0) => Cause::NotTheApplication,
            (_, 1) => Cause::Known(self.calls, took),
            (_, count) => {
                self.until = Some(now + WATCHFUL);
                Cause::OneOf(count)
            }
        }
    }

    /// The number of slow turns that the log has not heard of, if it is to hear of this one: now and
    /// then, and always if now there is a name to what had none. Otherwise this one is added to them.
    pub(crate) fn take_untold(&mut self, cause: Cause, now: Instant) -> Option<u64> {
        let is_named = matches!(cause, Cause::Known(..));
        let is_news = self.last_line.is_none_or(|last| {
            now.saturating_duration_since(last.at) >= LINE_INTERVAL || (is_named && !last.is_named)
        });
        if !is_news {
            self.untold += 1;
            return None;
        }
        self.last_line = Some(LastLine { at: now, is_named });
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const MS: Duration = Duration::from_millis(1);

    fn id(index: u32) -> LocalId {
        LocalId { index, generation: NonZeroU32::MIN }
    }

    #[test]
    fn each_callback_has_its_own_name() {
        for (number, (callback, name)) in Callback::ALL.into_iter().enumerate() {
            assert_eq!((callback as usize, callback.name()), (number, name));
        }
    }

    #[test]
    fn a_lone_callback_is_named_at_once() {
        let now = Instant::now();
        let mut slow_turns = SlowTurnDetector::default();
        slow_turns.begin_turn(now);
        slow_turns.called(Callback::Message, 1, Some(id(7)));
        let cause = slow_turns.cause(512 * MS, now);
        assert_eq!(
            cause.to_string(),
            "on_message of connection 7.1 held the reactor for 512 ms; \
             what takes long belongs into Context::offload"
        );
        assert_eq!(slow_turns.until, None, "there is nothing more to find out");
    }

    #[test]
    fn one_of_several_is_named_when_it_blocks_again() {
        let mut now = Instant::now();
        let mut slow_turns = SlowTurnDetector::default();
        slow_turns.begin_turn(now);
        for index in 0..3 {
            slow_turns.called(Callback::Message, 1, Some(id(index)));
        }
        assert!(!slow_turns.is_timing(), "the clock is not read without a reason");
        assert_eq!(slow_turns.cause(300 * MS, now), Cause::OneOf(3));
        slow_turns.begin_turn(now);
        assert!(slow_turns.is_timing());
        for (index, took) in [(0, 5), (1, 290), (2, 5)] {
            slow_turns.begin(now);
            slow_turns.called(Callback::Open, 1, Some(id(index)));
            slow_turns.called(Callback::Message, 1, Some(id(index)));
            now += took * MS;
            slow_turns.end(now);
        }
        let cause = slow_turns.cause(300 * MS, now);
        assert!(
            cause.to_string().starts_with(
                "on_open or on_message (2 calls, the last for connection 1.1) \
                 held the reactor for 290 ms"
            ),
            "{cause}"
        );
        // In time it stops looking so closely.
        slow_turns.begin_turn(now + 2 * WATCHFUL);
        assert!(!slow_turns.is_timing());
    }

    #[test]
    fn nobody_is_accused_of_what_nobody_did() {
        let now = Instant::now();
        let mut slow_turns = SlowTurnDetector::default();
        slow_turns.begin_turn(now);
        assert_eq!(slow_turns.cause(400 * MS, now), Cause::NotTheApplication);
        assert_eq!(slow_turns.until, None);
    }

    #[test]
    fn lines_are_rare_and_a_name_is_news() {
        let now = Instant::now();
        let mut slow_turns = SlowTurnDetector::default();
        let named = Cause::Known(Calls::default(), MS);
        assert_eq!(slow_turns.take_untold(Cause::OneOf(2), now), Some(0));
        assert_eq!(slow_turns.take_untold(Cause::OneOf(2), now + MS), None);
        assert_eq!(slow_turns.take_untold(named, now + 2 * MS), Some(1));
        for _ in 0..5 {
            assert_eq!(slow_turns.take_untold(named, now + 3 * MS), None);
        }
        assert_eq!(slow_turns.take_untold(named, now + 2 * LINE_INTERVAL), Some(5));
    }
}

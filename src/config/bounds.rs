//! The range of each setting, and the text that says it: the one place where both stand.
//!
//! [`super::Config::validate`] compares with the ranges; the errors and the daemon's command line show the
//! texts. A setting whose type bounds it already, such as a port, has no entry. Reads no text and holds
//! no default.
//!
//! Invariant: a text names the two ends of its range.
//!
//! Next: `limits`: what the design chose.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigError, refuse};

/// Which values a setting may have.
#[derive(Debug)]
pub struct Bounds<T> {
    /// From the least value to the greatest.
    pub range: RangeInclusive<T>,
    /// The same, as the end of the sentence "… is not".
    pub allowed: &'static str,
}

/// The longest time of most settings.
const DAY: Duration = Duration::from_secs(86_400);

/// The shortest time of a setting that cannot be 0: there 0 means "never", or is refused.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Of [`super::Config::workers`].
pub const WORKERS: Bounds<usize> = Bounds { range: 1..=1024, allowed: "a number from 1 to 1024" };

/// Of [`super::Config::backlog`].
pub const BACKLOG: Bounds<usize> =
    Bounds { range: 1..=65_535, allowed: "a number from 1 to 65535" };

/// Of [`super::Config::ws_path`]: how many bytes it may have.
pub const WS_PATH: Bounds<usize> = Bounds {
    range: 1..=1024,
    allowed: "a path: a slash and at most 1023 further visible ASCII characters other than \
              ? # % *, but for /* as its end",
};

/// Of [`super::Config::ws_max_size`]. A GiB fits the 31-bit lengths that some clients have; 0 must not
/// come to mean "no limit" (CVE-2026-44545).
pub const WS_MAX_SIZE: Bounds<usize> =
    Bounds { range: 1..=1 << 30, allowed: "a size from 1 to 1073741824 bytes" };

/// Of [`super::Config::ws_ping_interval`], [`super::Config::ws_ping_timeout`], and the heartbeat of the
/// daemon's counter, unless they are off.
pub const INTERVAL: Bounds<Duration> =
    Bounds { range: MILLISECOND..=DAY, allowed: "0 or a time from 0.001 to 86400 seconds" };

/// Of [`super::Config::offload_threads`].
pub const OFFLOAD_THREADS: Bounds<usize> =
    Bounds { range: 1..=1024, allowed: "a number from 1 to 1024" };

/// Of [`super::Config::slow_turn`], unless it is off.
pub const SLOW_TURN: Bounds<Duration> = Bounds {
    range: MILLISECOND..=Duration::from_secs(3600),
    allowed: "0 or a number of milliseconds from 1 to 3600000",
};

/// Of [`super::Config::session_ttl`].
pub const SESSION_TTL: Bounds<Duration> = Bounds {
    range: Duration::ZERO..=Duration::from_secs(365 * 86_400),
    allowed: "a time from 0 to 31536000 seconds",
};

/// Of [`super::Config::max_sessions`].
pub const MAX_SESSIONS: Bounds<usize> =
    Bounds { range: 1..=u32::MAX as usize / 2, allowed: "a number from 1 to 2147483647" };

/// Of [`super::Config::store_sync`], unless it is always.
pub const STORE_SYNC: Bounds<Duration> = Bounds {
    range: MILLISECOND..=Duration::from_secs(60),
    allowed: "always or a number of milliseconds from 1 to 60000",
};

/// Of [`super::Config::store_timeout`]. At least so long as a disk may take that wakes from its sleep.
pub const STORE_TIMEOUT: Bounds<Duration> =
    Bounds { range: Duration::from_secs(1)..=DAY, allowed: "a time from 1 to 86400 seconds" };

/// Of [`super::Config::broker_timeout`].
pub const BROKER_TIMEOUT: Bounds<Duration> =
    Bounds { range: MILLISECOND..=DAY, allowed: "a time from 0.001 to 86400 seconds" };

/// Of [`super::Config::store_replicas`].
pub const STORE_REPLICAS: Bounds<usize> =
    Bounds { range: 0..=16, allowed: "a number from 0 to 16" };

/// Of [`super::Config::limit_sessions_per_ip`]: the range is its window's, the text tells of all of it.
pub const LIMIT_SESSIONS_PER_IP: Bounds<Duration> = Bounds {
    range: Duration::from_secs(1)..=DAY,
    allowed: "a number of at least 1, or a number and 1 to 86400 seconds such as 100/60",
};

/// Of [`super::Config::timeout_handshake`] and [`super::Config::timeout_keep_alive`].
pub const REQUEST_TIMEOUT: Bounds<Duration> =
    Bounds { range: MILLISECOND..=DAY, allowed: "a time from 0.001 to 86400 seconds" };

/// Of [`super::Config::max_send_buffer`].
pub const MAX_SEND_BUFFER: Bounds<usize> =
    Bounds { range: 1024..=1 << 30, allowed: "a size from 1024 to 1073741824 bytes" };

/// Of [`super::Config::drain_over`]: behind the last goodbye there has to be time for its answer.
pub const DRAIN_OVER: &str =
    "0 or a time in seconds that is less than that of --timeout-graceful-shutdown";

/// Of [`super::Config::timeout_graceful_shutdown`], and of the times in [`super::Limits`]. Each is added
/// to an `Instant`, which overflows long before `Duration::MAX`.
pub const UP_TO_A_DAY: Bounds<Duration> =
    Bounds { range: Duration::ZERO..=DAY, allowed: "a time from 0 to 86400 seconds" };

impl Bounds<usize> {
    pub(super) fn check(&self, option: &'static str, value: usize) -> Result<(), ConfigError> {
        match self.range.contains(&value) {
            true => Ok(()),
            false => refuse(option, &value, self.allowed),
        }
    }
}

impl Bounds<Duration> {
    pub(super) fn check(&self, option: &'static str, value: Duration) -> Result<(), ConfigError> {
        match self.range.contains(&value) {
            true => Ok(()),
            false => refuse(option, &value.as_secs_f64(), self.allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_name_the_ends() {
        for numbers in
            [WORKERS, BACKLOG, WS_MAX_SIZE, OFFLOAD_THREADS, MAX_SESSIONS, MAX_SEND_BUFFER]
        {
            let (least, most) = numbers.range.into_inner();
            let ends = format!(" from {least} to {most}");
            assert!(numbers.allowed.contains(&ends), "{ends}: {}", numbers.allowed);
        }
        let all_times = [
            INTERVAL,
            SESSION_TTL,
            STORE_TIMEOUT,
            LIMIT_SESSIONS_PER_IP,
            REQUEST_TIMEOUT,
            UP_TO_A_DAY,
        ];
        for times in all_times {
            let (least, most) = times.range.into_inner();
            let ends = format!(" {} to {} seconds", least.as_secs_f64(), most.as_secs_f64());
            assert!(times.allowed.contains(&ends), "{ends}: {}", times.allowed);
        }
        for times in [SLOW_TURN, STORE_SYNC] {
            let (least, most) = times.range.into_inner();
            let ends = format!(" milliseconds from {} to {}", least.as_millis(), most.as_millis());
            assert!(times.allowed.ends_with(&ends), "{ends}: {}", times.allowed);
        }
        let behind_the_slash = format!(" at most {} further ", WS_PATH.range.end() - 1);
        assert!(WS_PATH.allowed.contains(&behind_the_slash), "{}", WS_PATH.allowed);
    }

    #[test]
    fn the_ends_are_inside_and_what_is_beyond_them_is_not() {
        for (value, is_inside) in [(0, false), (1, true), (1024, true), (1025, false)] {
            assert_eq!(WORKERS.check("workers", value).is_ok(), is_inside, "{value}");
        }
        let nanosecond = Duration::from_nanos(1);
        let inside = |time| INTERVAL.check("ws-ping-interval", time).is_ok();
        assert!(inside(MILLISECOND) && inside(DAY));
        assert!(!inside(MILLISECOND - nanosecond) && !inside(DAY + nanosecond));
    }
}

//! The wall-clock time, within the years that its texts can hold.
//!
//! A machine's wall clock may say anything: 1970 at boot, 2106 with an empty battery. Our texts (the
//! Date field, the heartbeat, the log) hold the years 1970 to 9999, and the crates that write them
//! panic beyond. So everything that writes a date asks here. What has to happen at some time goes by
//! the monotonic clock, [`std::time::Instant`], which has no such years.
//!
//! Next: [`crate::offload`]: work that takes too long for a turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, in seconds since 1970.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// Now; the nearest time that a text can hold, if the clock says something else.
#[must_use]
pub fn now() -> SystemTime {
    within_bounds(SystemTime::now())
}

pub(crate) fn within_bounds(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_becomes_one_that_every_text_can_hold() {
        let second = Duration::from_secs(1);
        let century = Duration::from_secs(3_155_760_000);
        let last = UNIX_EPOCH + LAST;
        let nanosecond = Duration::from_nanos(1);
        for (time, shown) in [
            (UNIX_EPOCH - 100 * century, "1970-01-01T00:00:00"),
            (UNIX_EPOCH - nanosecond, "1970-01-01T00:00:00"),
            (UNIX_EPOCH, "1970-01-01T00:00:00"),
            (UNIX_EPOCH + second, "1970-01-01T00:00:01"),
            (last - second, "9999-12-31T23:59:58"),
            (last, "9999-12-31T23:59:59"),
            (last + nanosecond, "9999-12-31T23:59:59"),
            (last + second, "9999-12-31T23:59:59"),
            (last + 20 * century, "9999-12-31T23:59:59"),
        ] {
            let time = within_bounds(time);
            assert!(humantime::format_rfc3339_micros(time).to_string().starts_with(shown));
            assert!(humantime::format_rfc3339_millis(time).to_string().starts_with(shown));
            assert!(httpdate::fmt_http_date(time).ends_with(" GMT"));
        }
        let usual = UNIX_EPOCH + Duration::from_micros(1_796_040_000_123_456);
        assert_eq!(within_bounds(usual), usual);
    }
}

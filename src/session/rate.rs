//! How many new sessions each address has made lately, for `--limit-sessions-per-ip`.
//!
//! A token bucket for each address: so many sessions at once, and as many again in each window, one by
//! one. Touched by all reactors, at most once for a new session (twice if it is then refused for
//! another reason), never for a message or a resumed session. Writes no answer. Called by the shard.
//!
//! **Memory** is fixed, [`SessionRates::BYTES`], whatever addresses come: a hash with a secret key
//! gives each address a set of eight places. If all are taken, the address that would be forgotten
//! soonest loses its place: one that owes nothing any more if there is one, else the one that has
//! made the fewest sessions lately. An address that has reached its limit is therefore the last to
//! be forgotten. A client with so many addresses that they push each other out has as many limits
//! anyway.
//!
//! Next: [`crate::session::ended`]: what is left of a session that is no more.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::SessionRate;
use crate::transport::network::{Network, STRIPES, Striped};

/// Sets in a stripe.
const SETS: usize = 128;

/// Places in a set.
const PLACES: usize = 8;

type Set = [Option<Entry>; PLACES];

/// An address that has made sessions.
#[derive(Debug, Clone, Copy)]
struct Entry {
    network: Network,
    /// When it will owe nothing any more: each session moves this on by the window's share of one.
    clear_at: Instant,
}

/// The table.
#[derive(Debug, Default)]
pub struct SessionRates {
    /// Keyed, so that nobody can choose addresses that share a set with somebody else's.
    hasher: RandomState,
    /// Allocated on first use; never if the option is off.
    stripes: Striped<Vec<Set>>,
}

/// An address has made as many sessions as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManySessions {
    /// Seconds until it may make the next one.
    pub retry_after: u64,
}

impl SessionRates {
    /// What it holds at most, in bytes.
    pub const BYTES: usize = STRIPES * SETS * size_of::<Set>();

    /// Counts a new session of `peer`'s address.
    ///
    /// # Errors
    ///
    /// If it is one too many; then it is not counted.
    pub fn count(
        &self,
        peer: IpAddr,
        rate: SessionRate,
        now: Instant,
    ) -> Result<(), TooManySessions> {
        let (each, burst) = shares(rate);
        self.with_set(peer, |set, network| {
            let place = place_of(set, network);
            let owed_until = match set[place] {
                Some(entry) if entry.network == network => entry.clear_at.max(now),
                _ => now,
            };
            let clear_at = owed_until + each;
            let wait = clear_at.saturating_duration_since(now + burst);
            if !wait.is_zero() {
                // In whole seconds (RFC 9110 10.2.3), and not too early.
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                return Err(TooManySessions { retry_after: seconds });
            }
            set[place] = Some(Entry { network, clear_at });
            Ok(())
        })
    }

    /// Takes a session back that was counted and then not made.
    pub fn uncount(&self, peer: IpAddr, rate: SessionRate) {
        let (each, _) = shares(rate);
        self.with_set(peer, |set, network| {
            for entry in set.iter_mut().flatten().filter(|entry| entry.network == network) {
                entry.clear_at = entry.clear_at.checked_sub(each).unwrap_or(entry.clear_at);
            }
        });
    }

    /// Addresses that have a place in the table.
    #[cfg(test)]
    fn entries(&self) -> usize {
        self.stripes.parts().map(|sets| sets.iter().flatten().flatten().count()).sum()
    }

    fn with_set<T>(&self, peer: IpAddr, act: impl FnOnce(&mut Set, Network) -> T) -> T {
        let network = Network::of(peer);
        let hash = self.hasher.hash_one(network) as usize;
        let mut sets = self.stripes.lock(hash);
        if sets.is_empty() {
            sets.reserve_exact(SETS);
            sets.resize(SETS, [None; PLACES]);
        }
        act(&mut sets[hash / STRIPES % SETS], network)
    }
}

/// The time that one session costs, and the most that may be owed: the number of sessions times that,
/// which rounding may make a little less than the window.
fn shares(rate: SessionRate) -> (Duration, Duration) {
    let each = (rate.window / rate.sessions.get()).max(Duration::from_nanos(1));
    (each, each * rate.sessions.get())
}

/// Its own place; or a free one; or that of the address that would be forgotten soonest.
fn place_of(set: &Set, network: Network) -> usize {
    let own = |entry: &Option<Entry>| entry.is_some_and(|entry| entry.network == network);
    let soonest = || {
        // `None` is the least of all.
        let clear_at = |(_, entry): &(usize, &Option<Entry>)| entry.map(|entry| entry.clear_at);
        set.iter().enumerate().min_by_key(clear_at).map_or(0, |(place, _)| place)
    };
    set.iter().position(own).unwrap_or_else(soonest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rate(sessions: u32, seconds: u64) -> SessionRate {
        SessionRate {
            sessions: NonZeroU32::new(sessions).unwrap(),
            window: Duration::from_secs(seconds),
        }
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn so_many_at_once_and_then_one_each_share_of_the_window() {
        let (rates, rate, now) = (SessionRates::default(), rate(3, 60), Instant::now());
        let ask = |after| rates.count(address(1), rate, now + Duration::from_millis(after));
        let refused = |retry_after| Err(TooManySessions { retry_after });
        for _ in 0..3 {
            assert_eq!(ask(0), Ok(()));
        }
        assert_eq!(ask(0), refused(20));
        // To be refused costs nothing, however often.
        assert_eq!(ask(19_001), refused(1));
        assert_eq!(ask(20_000), Ok(()));
        assert_eq!(ask(20_000), refused(20));
        assert_eq!(rates.count(address(2), rate, now), Ok(()), "nobody else's limit");
        // A window later all is as at the beginning, and no better.
        for _ in 0..3 {
            assert_eq!(ask(200_000), Ok(()));
        }
        assert_eq!(ask(200_000), refused(20));
    }

    #[test]
    fn what_was_not_made_does_not_count() {
        let (rates, rate, now) = (SessionRates::default(), rate(2, 60), Instant::now());
        for _ in 0..10 {
            rates.count(address(1), rate, now).unwrap();
            rates.uncount(address(1), rate);
        }
        rates.count(address(1), rate, now).unwrap();
        rates.count(address(1), rate, now).unwrap();
        assert!(rates.count(address(1), rate, now).is_err());
        // Of an address that is not there there is nothing to take back.
        rates.uncount(address(2), rate);
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let (rates, rate, now) = (SessionRates::default(), rate(1, 60), Instant::now());
        let ask = |text: &str| rates.count(text.parse().unwrap(), rate, now);
        assert!(ask("2001:db8::1").is_ok() && ask("2001:db8::2").is_err());
        assert!(ask("2001:db8:0:1::1").is_ok());
        assert!(ask("192.0.2.1").is_ok() && ask("::ffff:192.0.2.1").is_err());
    }

    #[test]
    fn the_largest_rates_are_kept() {
        let (rates, now) = (SessionRates::default(), Instant::now());
        for rate in [rate(u32::MAX, 1), rate(7, 86_400), rate(1_000_000, 86_400)] {
            let most = rate.sessions.get().min(5000);
            let rates = SessionRates::default();
            assert!((0..most).all(|_| rates.count(address(1), rate, now).is_ok()), "{rate}");
        }
        let rate = rate(5000, 7);
        assert!((0..5000).all(|_| rates.count(address(1), rate, now).is_ok()));
        assert!(rates.count(address(1), rate, now).is_err());
    }

    #[test]
    fn whatever_addresses_come_memory_is_bounded_and_who_is_at_its_limit_stays() {
        let (rates, rate, now) = (SessionRates::default(), rate(100, 60), Instant::now());
        let flooder = address(1);
        while rates.count(flooder, rate, now).is_ok() {}
        let places = STRIPES * SETS * PLACES;
        for number in 0..3 * places as u32 {
            let _ = rates.count(address(0x0b00_0000 + number), rate, now);
        }
        assert!(rates.entries() <= places);
        assert!(rates.entries() > places / 2, "a hash that spreads fills most sets");
        let held: usize =
            rates.stripes.parts().map(|sets| sets.capacity() * size_of::<Set>()).sum();
        assert_eq!(held, SessionRates::BYTES);
        assert!(rates.count(flooder, rate, now).is_err(), "forgotten for those who made one each");
        // A window later its place is anybody's.
        let later = now + Duration::from_secs(61);
        for number in 0..3 * places as u32 {
            let _ = rates.count(address(0x0c00_0000 + number), rate, later);
        }
        assert!(rates.count(flooder, rate, later).is_ok());
    }

    #[test]
    fn without_use_there_is_no_storage() {
        let rates = SessionRates::default();
        assert!(rates.stripes.parts().all(|sets| sets.capacity() == 0));
    }

    #[test]
    fn many_threads_make_no_more_than_the_limit() {
        let (rates, rate, now) = (SessionRates::default(), rate(1000, 3600), Instant::now());
        let made: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| rates.count(address(1), rate, now).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(made, 1000);
    }
}

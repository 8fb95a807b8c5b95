//! How many sockets there may be, in all and from each address, and how many open WebSockets.
//!
//! Where sockets are limited, each accepted one gets a [`Permit`] and keeps it, on whichever reactor it
//! is, until it is dropped. The limiter is touched by all reactors, at accept and close, and when a
//! WebSocket opens and closes; never for a message. There is one atomic number for the sockets and one
//! for the WebSockets, and a lock over a 64th of the addresses, held for one look-up. Decides whether a
//! socket is served, refused or closed; writes no answer. Called by the shard; `--limit-per-ip` and
//! `--limit-concurrency` are its settings.
//!
//! Sockets are limited besides WebSockets, because a peer that wants to use up our descriptors need not
//! finish a single handshake (slowloris).
//!
//! Invariants: an address stands in the table exactly while it has a socket here, so the table has no
//! more entries than there are sockets. Under `--limit-concurrency` as many places are taken as
//! WebSockets are open; without it none are.
//!
//! Next: [`crate::transport::unix_listener`]: where sockets come from, under a path.

use std::collections::HashMap;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;
use crate::token::Peer;
use crate::transport::network::{Network, Striped};

/// Counts of the sockets that are held, and of the WebSockets among them.
#[derive(Debug, Default)]
pub struct ConnectionLimiter {
    sockets: AtomicUsize,
    /// Places taken; 0 without `--limit-concurrency`.
    websockets: AtomicUsize,
    /// How many sockets each has, if addresses are counted.
    networks: Striped<HashMap<Network, usize>>,
}

/// The right of one socket to be held, and of its WebSocket to be open. Dropping it gives both back.
/// One word, because every connection has room for one.
#[derive(Debug)]
pub struct Permit(Box<Inside>);

#[derive(Debug)]
struct Inside {
    limiter: Arc<ConnectionLimiter>,
    /// If addresses are counted.
    network: Option<Network>,
    /// Whether it has a place among the WebSockets.
    has_place: bool,
}

/// Which bound a socket is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// That of all sockets, which follows from `--limit-concurrency`.
    Concurrency,
    /// `--limit-per-ip`.
    PerIp,
}

/// What becomes of a socket that has just been accepted.
#[derive(Debug)]
pub enum Admission {
    /// It may speak. Without a limit there are no permits.
    Granted(Option<Permit>),
    /// It is told why not, with time to read it.
    Refused(Permit, LimitReached),
    /// There is not even room for that: it is closed without a word.
    Dropped(LimitReached),
}

impl ConnectionLimiter {
    /// Lets a socket from `peer` in, or not.
    ///
    /// An address may have as many sockets as `--limit-per-ip` says, and as many again that are
    /// being refused: an answer takes a descriptor until the client has read it. The same with all
    /// sockets and [`Config::most_sockets`]. So both are bounded in every case, and a client that is
    /// one too many usually gets an answer. A peer without an address counts among all sockets only.
    #[must_use]
    pub fn admit(self: &Arc<Self>, peer: Peer, config: &Config) -> Admission {
        let counted = config.limit_per_ip.map(NonZeroUsize::get).zip(peer.ip());
        let sockets = config.most_sockets();
        if counted.is_none() && sockets.is_none() {
            return Admission::Granted(None);
        }
        let most = sockets.map_or(usize::MAX, |sockets| sockets.refused);
        let step = |inside: usize| (inside < most).then_some(inside + 1);
        let Ok(inside) = self.sockets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
        else {
            return Admission::Dropped(LimitReached::Concurrency);
        };
        let mut permit =
            Permit(Box::new(Inside { limiter: self.clone(), network: None, has_place: false }));
        let mut reached =
            sockets.filter(|sockets| inside >= sockets.admitted).map(|_| LimitReached::Concurrency);
        if let Some((limit, ip)) = counted {
            let network = Network::of(ip);
            let mut counts = self.networks.lock(network.stripe());
            let count = counts.entry(network).or_insert(0);
            if *count >= limit.saturating_mul(2) {
                // What was counted in all is given back with `permit`.
                return Admission::Dropped(LimitReached::PerIp);
            }
            if *count >= limit {
                reached = Some(LimitReached::PerIp);
            }
            *count += 1;
            permit.0.network = Some(network);
        }
        match reached {
            Some(limit) => Admission::Refused(permit, limit),
            None => Admission::Granted(Some(permit)),
        }
    }

    /// Counts a socket against an address that was not known when it was let in, unless it is counted
    /// against one already.
    ///
    /// # Errors
    ///
    /// The address has as many as `--limit-per-ip` says. Then the socket is not counted against it, so
    /// what bounds those that are being refused is the limit of all sockets.
    pub fn count_address(
        self: &Arc<Self>,
        permit: &mut Option<Permit>,
        peer: Peer,
        config: &Config,
    ) -> Result<(), LimitReached> {
        let counted = config.limit_per_ip.map(NonZeroUsize::get).zip(peer.ip());
        let Some((limit, ip)) = counted else { return Ok(()) };
        let permit = permit.get_or_insert_with(|| {
            self.sockets.fetch_add(1, Ordering::Relaxed);
            Permit(Box::new(Inside { limiter: self.clone(), network: None, has_place: false }))
        });
        if permit.0.network.is_some() {
            return Ok(());
        }
        let network = Network::of(ip);
        let mut counts = self.networks.lock(network.stripe());
        if counts.get(&network).is_some_and(|count| *count >= limit) {
            return Err(LimitReached::PerIp);
        }
        *counts.entry(network).or_insert(0) += 1;
        permit.0.network = Some(network);
        Ok(())
    }

    /// Sockets inside, and addresses that have one, if they are counted: for tests.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let networks = self.networks.parts().map(|counts| counts.len()).sum();
        (self.sockets.load(Ordering::Relaxed), networks)
    }

    /// Places that open WebSockets have: for tests.
    #[must_use]
    pub fn places_taken(&self) -> usize {
        self.websockets.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Takes a place for the WebSocket that is about to open. Without `--limit-concurrency` there is
    /// room for all, and nothing is counted.
    ///
    /// # Errors
    ///
    /// [`LimitReached::Concurrency`], if all places are taken.
    pub fn take_place(&mut self, config: &Config) -> Result<(), LimitReached> {
        let Some(limit) = config.limit_concurrency else { return Ok(()) };
        let Inside { limiter, has_place, .. } = &mut *self.0;
        debug_assert!(!*has_place, "a socket has one WebSocket");
        let step = |open: usize| (open < limit.get()).then_some(open + 1);
        let taken = limiter.websockets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        *has_place = taken.is_ok();
        taken.map(|_| ()).map_err(|_| LimitReached::Concurrency)
    }

    /// Passes the place, if it has one, on to `newer`. It is not free in between.
    pub fn pass_place(&mut self, newer: &mut Permit) {
        debug_assert!(!newer.0.has_place, "a socket has one WebSocket");
        newer.0.has_place = mem::take(&mut self.0.has_place);
    }

    /// Gives the place back, if it has one.
    pub fn return_place(&mut self) {
        if mem::take(&mut self.0.has_place) {
            self.0.limiter.websockets.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.return_place();
        let Inside { limiter, network, .. } = &*self.0;
        limiter.sockets.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = *network else { return };
        let mut counts = limiter.networks.lock(network.stripe());
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use std::net::SocketAddr;

    fn limited(per_ip: Option<usize>, concurrency: Option<usize>) -> Config {
        Config {
            limit_per_ip: per_ip.and_then(NonZeroUsize::new),
            limit_concurrency: concurrency.and_then(NonZeroUsize::new),
            limits: Limits { socket_margin: 3, ..Limits::default() },
            ..Config::default()
        }
    }

    fn enter(limiter: &Arc<ConnectionLimiter>, peer: &str, config: &Config) -> Admission {
        limiter.admit(SocketAddr::new(peer.parse().unwrap(), 1).into(), config)
    }

    #[test]
    fn an_address_is_welcome_then_refused_then_dropped_and_welcome_again() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(Some(2), None));
        let mut inside = Vec::new();
        for _ in 0..2 {
            let Admission::Granted(permit) = enter(&limiter, "10.0.0.1", &config) else { panic!() };
            inside.push(permit);
        }
        for _ in 0..2 {
            let refused = enter(&limiter, "10.0.0.1", &config);
            let Admission::Refused(permit, LimitReached::PerIp) = refused else { panic!() };
            inside.push(Some(permit));
        }
        for _ in 0..10 {
            let dropped = enter(&limiter, "10.0.0.1", &config);
            assert!(matches!(dropped, Admission::Dropped(LimitReached::PerIp)));
            assert_eq!(limiter.counts(), (4, 1));
        }
        assert!(matches!(enter(&limiter, "10.0.0.2", &config), Admission::Granted(Some(_))));
        inside.truncate(1);
        assert!(matches!(enter(&limiter, "10.0.0.1", &config), Admission::Granted(Some(_))));
        inside.clear();
        assert_eq!(limiter.counts(), (0, 0), "who has left leaves nothing behind");
    }

    #[test]
    fn an_address_that_is_told_later_counts_as_one_that_was_known() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(Some(2), None));
        let peer: Peer = SocketAddr::from(([10, 0, 0, 1], 1)).into();
        let mut permits: [Option<Permit>; 3] = [None, None, None];
        let [first, second, third] = &mut permits;
        assert_eq!(limiter.count_address(first, peer, &config), Ok(()));
        assert_eq!(limiter.count_address(first, peer, &config), Ok(()), "counted once");
        assert_eq!(limiter.count_address(second, peer, &config), Ok(()));
        let refused = limiter.count_address(third, peer, &config);
        assert_eq!(refused, Err(LimitReached::PerIp));
        assert!(matches!(enter(&limiter, "10.0.0.1", &config), Admission::Refused(..)));
        assert_eq!(limiter.count_address(third, Peer::Unix, &config), Ok(()));
        assert_eq!(limiter.counts(), (3, 1));
        *first = None;
        assert_eq!(limiter.count_address(third, peer, &config), Ok(()));
        permits = [None, None, None];
        drop(permits);
        assert_eq!(limiter.counts(), (0, 0));
        let mut none = None;
        assert_eq!(limiter.count_address(&mut none, peer, &limited(None, None)), Ok(()));
        assert!(none.is_none(), "without limits nothing is counted");
    }

    #[test]
    fn peers_without_an_address_share_none() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let per_address = limited(Some(1), None);
        for _ in 0..10 {
            let admission = limiter.admit(Peer::Unix, &per_address);
            assert!(matches!(admission, Admission::Granted(None)));
        }
        // Among all sockets each of them counts.
        let both = limited(Some(1), Some(2));
        let inside: Vec<_> = (0..2 * 2 + 3)
            .map(|_| match limiter.admit(Peer::Unix, &both) {
                Admission::Granted(Some(permit)) => permit,
                other => panic!("{other:?}"),
            })
            .collect();
        let refused = limiter.admit(Peer::Unix, &both);
        assert!(matches!(refused, Admission::Refused(_, LimitReached::Concurrency)));
        drop((inside, refused));
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[test]
    fn all_sockets_have_a_limit_of_their_own() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(None, Some(2)));
        let mut inside: Vec<_> = (0..2 * 2 + 3)
            .map(|_| match enter(&limiter, "::1", &config) {
                Admission::Granted(permit) => permit,
                other => panic!("{other:?}"),
            })
            .collect();
        for _ in 0..3 {
            let refused = enter(&limiter, "::1", &config);
            let Admission::Refused(permit, LimitReached::Concurrency) = refused else { panic!() };
            inside.push(Some(permit));
        }
        for _ in 0..3 {
            let dropped = enter(&limiter, "::1", &config);
            assert!(matches!(dropped, Admission::Dropped(LimitReached::Concurrency)));
        }
        assert_eq!(limiter.counts(), (10, 0));
        inside.clear();
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(None, None));
        let admission = enter(&limiter, "10.0.0.1", &config);
        assert!(matches!(admission, Admission::Granted(None)));
        assert_eq!(limiter.counts(), (0, 0));
        // With a limit on addresses alone there is a permit, and no number of places.
        let mut permit = permitted(&limiter, &limited(Some(9), None));
        assert_eq!(permit.take_place(&limited(Some(9), None)), Ok(()));
        assert_eq!(limiter.places_taken(), 0);
    }

    fn permitted(limiter: &Arc<ConnectionLimiter>, config: &Config) -> Permit {
        match enter(limiter, "10.0.0.1", config) {
            Admission::Granted(Some(permit)) => permit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn there_are_as_many_places_as_the_limit_says() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(None, Some(2)));
        let [mut a, mut b, mut c] = std::array::from_fn(|_| permitted(&limiter, &config));
        let full = Err(LimitReached::Concurrency);
        assert_eq!((a.take_place(&config), b.take_place(&config)), (Ok(()), Ok(())));
        assert_eq!((c.take_place(&config), limiter.places_taken()), (full, 2));
        a.return_place();
        a.return_place();
        assert_eq!(limiter.places_taken(), 1, "given back once");
        assert_eq!((c.take_place(&config), a.take_place(&config)), (Ok(()), full));
    }

    #[test]
    fn a_place_is_passed_on_and_given_back_by_whoever_has_it_last() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(None, Some(1)));
        let [mut older, mut newer] = std::array::from_fn(|_| permitted(&limiter, &config));
        older.take_place(&config).unwrap();
        older.pass_place(&mut newer);
        assert_eq!(limiter.places_taken(), 1);
        older.return_place();
        drop(older);
        assert_eq!(limiter.places_taken(), 1, "it is the newer one's");
        drop(newer);
        assert_eq!(limiter.places_taken(), 0, "given back with the permit");
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[test]
    fn a_permit_takes_the_least_that_an_allocator_gives() {
        assert!(size_of::<Inside>() <= 24);
    }

    #[test]
    fn many_threads_never_exceed_the_limit_and_leave_nothing_behind() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(Some(5), None));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2000 {
                        let admission = enter(&limiter, "10.0.0.1", &config);
                        let (sockets, _) = limiter.counts();
                        // A socket that is being refused is counted for a moment, one a thread.
                        assert!(sockets <= 10 + 4, "{sockets} in round {round}");
                        drop(admission);
                    }
                });
            }
        });
        assert_eq!(limiter.counts(), (0, 0));
    }
}

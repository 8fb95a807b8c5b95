//! How many sockets there may be, in all and from each address.
//!
//! Every accepted socket gets a [`Permit`] and keeps it, on whichever reactor it is, until it is
//! dropped. Touched at accept and close and never in between, by all reactors: one atomic number,
//! and a lock over a 64th of the addresses, held for one look-up. Decides whether a socket is served,
//! refused or closed; writes no answer. Called by the shard; `--limit-per-ip` and
//! `--limit-concurrency` are its settings.
//!
//! What counts is the socket and not the WebSocket: to use up our descriptors, a peer need not finish
//! a single handshake (slowloris).
//!
//! Invariant: an address stands in the table exactly while it has a socket here, so the table has no
//! more entries than there are sockets.
//!
//! Next: [`crate::transport::listener`]: where sockets come from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::protocol::head::Rejection;
use crate::token::Peer;

/// Parts of the table, each with a lock of its own: two reactors seldom meet at one.
const STRIPES: usize = 64;

/// Who counts as one: an IPv4 address, or the first 64 bits of an IPv6 one.
///
/// A single host is given a /64 at least and may take any of its 2^64 addresses (RFC 7421), so to
/// count those would be no limit; a site with a /48 has 65,536 times the limit. IPv4 in IPv6
/// clothes is IPv4: mapped (RFC 4291 2.5.5.2), or translated under the well-known prefix
/// 64:ff9b::/96 (RFC 6052), where all of it would share one /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4(u32),
    V6(u64),
}

impl Network {
    pub(crate) fn of(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(v4) => Network::V4(v4.to_bits()),
            IpAddr::V6(v6) => Network::of_v6(v6),
        }
    }

    fn of_v6(address: Ipv6Addr) -> Network {
        let bits = address.to_bits();
        let is_translated = bits >> 32 == 0x0064_ff9b << 64;
        if is_translated || address.to_ipv4_mapped().is_some() {
            // The last 32 bits, in both forms.
            return Network::V4(bits as u32);
        }
        Network::V6((bits >> 64) as u64)
    }

    /// Any spread will do, for only the lock depends on it; the table's own hash is keyed.
    fn stripe(self) -> usize {
        let bits = match self {
            Network::V4(bits) => u64::from(bits),
            Network::V6(bits) => bits,
        };
        (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % STRIPES
    }
}

/// Counts of the sockets that are held.
#[derive(Debug)]
pub struct ConnectionLimiter {
    sockets: AtomicUsize,
    networks: [Mutex<HashMap<Network, usize>>; STRIPES],
}

/// The right of one socket to be held. Dropping it gives it back. One word, because every connection
/// has room for one.
#[derive(Debug)]
pub struct Permit(Box<Inside>);

#[derive(Debug)]
struct Inside {
    limiter: Arc<ConnectionLimiter>,
    /// If addresses are counted.
    network: Option<Network>,
}

/// What becomes of a socket that has just been accepted.
#[derive(Debug)]
pub enum Admission {
    /// It may speak. Without a limit there are no permits.
    Granted(Option<Permit>),
    /// It is told why not, with time to read it.
    Refused(Permit, Rejection),
    /// There is not even room for that: it is closed without a word.
    Dropped(Rejection),
}

impl Default for ConnectionLimiter {
    fn default() -> Self {
        ConnectionLimiter {
            sockets: AtomicUsize::new(0),
            networks: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl ConnectionLimiter {
    /// Lets a socket from `peer` in, or not.
    ///
    /// An address may have as many sockets as `--limit-per-ip` says, and as many again that are
    /// being refused: an answer takes a descriptor until the client has read it. The same with all
    /// sockets and [`Config::most_sockets`]. So both are bounded for good, and who is one too many
    /// usually hears of it. A peer without an address counts among all sockets only.
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
            return Admission::Dropped(Rejection::LimitConcurrency);
        };
        let mut permit = Permit(Box::new(Inside { limiter: self.clone(), network: None }));
        let mut refusal = sockets
            .filter(|sockets| inside >= sockets.admitted)
            .map(|_| Rejection::LimitConcurrency);
        if let Some((limit, ip)) = counted {
            let network = Network::of(ip);
            let mut counts = self.stripe(network);
            let count = counts.entry(network).or_insert(0);
            if *count >= limit.saturating_mul(2) {
                // What was counted in all is given back with `permit`.
                return Admission::Dropped(Rejection::LimitPerIp);
            }
            if *count >= limit {
                refusal = Some(Rejection::LimitPerIp);
            }
            *count += 1;
            permit.0.network = Some(network);
        }
        match refusal {
            Some(rejection) => Admission::Refused(permit, rejection),
            None => Admission::Granted(Some(permit)),
        }
    }

    /// Sockets inside, and addresses that have one, if they are counted: for tests.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let networks = self.networks.iter().map(|stripe| lock(stripe).len()).sum();
        (self.sockets.load(Ordering::Relaxed), networks)
    }

    fn stripe(&self, network: Network) -> MutexGuard<'_, HashMap<Network, usize>> {
        lock(&self.networks[network.stripe()])
    }
}

/// Nothing in here panics while it holds a lock; if it did, the counts would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Inside { limiter, network } = &*self.0;
        limiter.sockets.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = *network else { return };
        let mut counts = limiter.stripe(network);
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
            let Admission::Refused(permit, Rejection::LimitPerIp) = refused else { panic!() };
            inside.push(Some(permit));
        }
        for _ in 0..10 {
            let dropped = enter(&limiter, "10.0.0.1", &config);
            assert!(matches!(dropped, Admission::Dropped(Rejection::LimitPerIp)));
            assert_eq!(limiter.counts(), (4, 1));
        }
        assert!(matches!(enter(&limiter, "10.0.0.2", &config), Admission::Granted(Some(_))));
        inside.truncate(1);
        assert!(matches!(enter(&limiter, "10.0.0.1", &config), Admission::Granted(Some(_))));
        inside.clear();
        assert_eq!(limiter.counts(), (0, 0), "who has left leaves nothing behind");
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
        assert!(matches!(refused, Admission::Refused(_, Rejection::LimitConcurrency)));
        drop((inside, refused));
        assert_eq!(limiter.counts(), (0, 0));
    }

    #[test]
    fn what_is_one_address_and_what_is_not() {
        let same =
            |a: &str, b: &str| Network::of(a.parse().unwrap()) == Network::of(b.parse().unwrap());
        assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(same("10.0.0.1", "64:ff9b::10.0.0.1"));
        assert!(!same("64:ff9b::10.0.0.1", "64:ff9b::10.0.0.2"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
        // No IPv6 network is mistaken for an IPv4 address.
        assert!(!same("0.0.0.1", "::1"));
        assert!(!same("::", "0.0.0.0"));
    }

    #[test]
    fn the_house_has_a_limit_of_its_own() {
        let (limiter, config) = (Arc::new(ConnectionLimiter::default()), limited(None, Some(2)));
        let mut inside: Vec<_> = (0..2 * 2 + 3)
            .map(|_| match enter(&limiter, "::1", &config) {
                Admission::Granted(permit) => permit,
                other => panic!("{other:?}"),
            })
            .collect();
        for _ in 0..3 {
            let refused = enter(&limiter, "::1", &config);
            let Admission::Refused(permit, Rejection::LimitConcurrency) = refused else { panic!() };
            inside.push(Some(permit));
        }
        for _ in 0..3 {
            let dropped = enter(&limiter, "::1", &config);
            assert!(matches!(dropped, Admission::Dropped(Rejection::LimitConcurrency)));
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
                        // Whoever is being turned away stands on the threshold for a moment.
                        assert!(sockets <= 10 + 4, "{sockets} in round {round}");
                        drop(admission);
                    }
                });
            }
        });
        assert_eq!(limiter.counts(), (0, 0));
    }
}

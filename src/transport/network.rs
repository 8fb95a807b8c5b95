//! Which addresses count as one, and tables by address that all reactors share.
//!
//! Counts nothing and limits nothing: the limiter of connections and `session/rate.rs` do, each with a
//! table of its own.
//!
//! Invariant: a lock is held for one look-up and never while another one is waited for, so no reactor
//! waits for longer than a look-up takes.
//!
//! Next: [`crate::transport::connection_limiter`]: how many sockets there may be.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts of a table.
pub(crate) const STRIPES: usize = 64;

/// What counts as one: an IPv4 address, or the first 64 bits of an IPv6 one.
///
/// A single host is given a /64 at least and may take any of its 2^64 addresses (RFC 7421). So a limit
/// for each of these would not limit it. A site with a /48 has 65,536 times the limit. An IPv4 address
/// that is written as an IPv6 one counts as the IPv4 address. It may be mapped (RFC 4291 2.5.5.2), or
/// translated under the well-known prefix 64:ff9b::/96 (RFC 6052), where all share one /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4(u32),
    V6([u8; 8]),
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
        Network::V6(((bits >> 64) as u64).to_be_bytes())
    }

    /// For [`Striped::lock`], where only the lock depends on it, so any spread will do.
    pub(crate) fn stripe(self) -> usize {
        let bits = match self {
            Network::V4(bits) => u64::from(bits),
            Network::V6(bytes) => u64::from_be_bytes(bytes),
        };
        (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
    }
}

/// A table in parts, each with a lock of its own: two reactors seldom meet at one.
#[derive(Debug)]
pub(crate) struct Striped<T>([Mutex<T>; STRIPES]);

impl<T: Default> Default for Striped<T> {
    fn default() -> Self {
        Striped(std::array::from_fn(|_| Mutex::default()))
    }
}

impl<T> Striped<T> {
    /// The part that a hash belongs to.
    pub(crate) fn lock(&self, hash: usize) -> MutexGuard<'_, T> {
        lock(&self.0[hash % STRIPES])
    }

    /// All of them, one after the other.
    pub(crate) fn parts(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(lock)
    }
}

/// Nobody panics while it holds a lock; if it did, what the table holds would still be whole.
fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn one_part_does_not_wait_for_another() {
        let table: Striped<u32> = Striped::default();
        let mut held = table.lock(0);
        *held = 1;
        *table.lock(STRIPES + 1) = 2;
        drop(held);
        let parts: Vec<u32> = table.parts().map(|part| *part).collect();
        assert_eq!((parts.len(), &parts[..3]), (STRIPES, &[1, 2, 0][..]));
    }
}

//! Which peers are proxies that are believed when they say for whom they speak.
//!
//! Reads no header; `protocol` does. Called by the code that makes a [`crate::Config`], and by the shard.
//!
//! Invariant: an IPv4 address is the same whether or not it is written as a mapped one.
//!
//! Next: `subprotocols`: in which subprotocol they speak.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a list of proxies has to be, as the end of a sentence.
pub const PROXIES_ALLOWED: &str =
    "* or a list of addresses, networks and unix, such as 10.0.0.0/8,::1,unix";

/// Addresses whose first bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// An address, or an address, a slash and a number of bits; the other bits are 0.
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
        };
        let network = Network { address, bits };
        let rest = network.first_bits(address).filter(|_| bits <= most)?;
        let is_plain = address.to_canonical() == address;
        (is_plain && rest == whole(address)).then_some(network)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4()
            && self.first_bits(ip).is_some_and(|bits| Some(bits) == self.first_bits(self.address))
    }

    fn first_bits(&self, ip: IpAddr) -> Option<u128> {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let cut = u32::from(most - self.bits.min(most));
        Some((whole(ip).checked_shr(cut).unwrap_or(0)).checked_shl(cut).unwrap_or(0))
    }
}

fn whole(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The proxies that are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    unix: bool,
    any: bool,
}

impl Default for TrustedProxies {
    /// This machine: the loopback addresses and Unix sockets.
    fn default() -> Self {
        let networks = vec![
            Network { address: Ipv4Addr::new(127, 0, 0, 0).into(), bits: 8 },
            Network { address: Ipv6Addr::LOCALHOST.into(), bits: 128 },
        ];
        TrustedProxies { networks, unix: true, any: false }
    }
}

impl TrustedProxies {
    /// Reads `*`, which is everybody, or a list of addresses, networks and the word `unix`, which is
    /// peers on Unix sockets. Blanks are allowed around the commas.
    #[must_use]
    pub fn parse(text: &str) -> Option<TrustedProxies> {
        let mut proxies = TrustedProxies { networks: Vec::new(), unix: false, any: false };
        if text.trim() == "*" {
            return Some(TrustedProxies { any: true, ..proxies });
        }
        for one in text.split(',').map(str::trim) {
            match one.eq_ignore_ascii_case("unix") {
                true => proxies.unix = true,
                false => proxies.networks.push(Network::parse(one)?),
            }
        }
        Some(proxies)
    }

    /// Whether a peer is one of them; `None` is one without an address, on a Unix socket.
    #[must_use]
    pub fn contain(&self, peer: Option<IpAddr>) -> bool {
        self.any
            || match peer.map(|ip| ip.to_canonical()) {
                None => self.unix,
                Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            }
    }
}

impl fmt::Display for TrustedProxies {
    /// As [`TrustedProxies::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any {
            return f.write_str("*");
        }
        for (at, Network { address, bits }) in self.networks.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match *bits == if address.is_ipv4() { 32 } else { 128 } {
                true => write!(f, "{comma}{address}")?,
                false => write!(f, "{comma}{address}/{bits}")?,
            }
        }
        match (self.unix, self.networks.is_empty()) {
            (true, true) => f.write_str("unix"),
            (true, false) => f.write_str(",unix"),
            (false, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(list: &str, peer: &str) -> bool {
        TrustedProxies::parse(list).unwrap().contain(peer.parse().ok())
    }

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        for (list, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..], "11.0.0.0"),
            ("192.0.2.7", &["192.0.2.7"], "192.0.2.6"),
            ("192.0.2.4/31", &["192.0.2.4", "192.0.2.5"], "192.0.2.6"),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], "::1"),
            ("::/0", &["::", "ffff::"], "10.0.0.1"),
            ("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], "2001:db9::"),
            ("::1", &["::1"], "::2"),
            ("10.0.0.1, ::1 ,unix", &["10.0.0.1", "::1", "unix"], "10.0.0.2"),
            ("*", &["10.0.0.1", "::1", "unix"], ""),
        ] {
            for peer in inside {
                assert!(contain(list, peer), "{peer} in {list}");
            }
            assert!(outside.is_empty() || !contain(list, outside), "{outside} in {list}");
            assert_eq!(contain(list, "unix"), list.contains("unix") || list == "*");
            let read = TrustedProxies::parse(list).unwrap();
            assert_eq!(TrustedProxies::parse(&read.to_string()), Some(read), "{list}");
        }
    }

    #[test]
    fn by_default_it_is_this_machine() {
        let default = TrustedProxies::default();
        assert_eq!(default.to_string(), "127.0.0.0/8,::1,unix");
        assert_eq!(TrustedProxies::parse(&default.to_string()), Some(default));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "a",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.1,",
            "*,10.0.0.1",
            "::ffff:10.0.0.1",
            "10.0.0.0/8/8",
            "10.0.0.1:80",
        ] {
            assert_eq!(TrustedProxies::parse(bad), None, "{bad:?}");
        }
    }
}

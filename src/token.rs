//! The name of a connection: slot and generation in one word; and who its peer is, in three.
//!
//! The name is what the poll hands back as a token, what the ready queue and the session table
//! hold instead of a reference, and what the log calls a connection. (The timer wheel holds the slot
//! alone: its entries are hints.) Slots are reused; generations are not (CVE-2020-35681 was one
//! request's scope read by another).
//!
//! Invariant: two connections of one reactor never have equal ids.
//!
//! Next: [`crate::transport`]: the socket behind the name.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;

use mio::Token;

/// Names one connection of one reactor, for as long as anything may still refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Slot in the slab.
    pub(crate) index: u32,
    /// Which tenant of that slot; never 0, so an `Option` of this type is no larger.
    pub(crate) generation: NonZeroU32,
}

impl ConnectionId {
    /// The name of a connection that does not exist: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub const fn new(index: u32, generation: NonZeroU32) -> ConnectionId {
        ConnectionId { index, generation }
    }

    /// The token under which its socket is registered.
    #[must_use]
    pub(crate) fn token(self) -> Token {
        // usize has 64 bits on every platform that has enough sockets to matter; elsewhere the
        // compiler stops here.
        const { assert!(usize::BITS == 64, "tokens carry slot and generation: 64 bits") };
        Token((self.generation.get() as usize) << 32 | self.index as usize)
    }

    /// The id in a token; `None` for the reactor's own tokens, whose generation is 0.
    #[must_use]
    pub(crate) fn from_token(Token(value): Token) -> Option<ConnectionId> {
        let generation = NonZeroU32::new((value >> 32) as u32)?;
        Some(ConnectionId { index: value as u32, generation })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP.
    Ip(IpPeer),
    /// Over a Unix socket: a process of this machine, without an address of its own. Limits that
    /// count addresses do not count it, for to them all such peers would be one.
    Unix,
}

/// An IP address and a port in 24 bytes, where std's take 32. What is left out is the flow label of
/// IPv6, which says nothing about who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpPeer {
    scope: u32,
    port: u16,
    ip: IpAddr,
}

impl Peer {
    /// Its address without the port, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Ip(peer) => Some(peer.ip),
            Peer::Unix => None,
        }
    }

    /// Its address with the port, if it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let Peer::Ip(IpPeer { scope, port, ip }) = *self else { return None };
        Some(match ip {
            IpAddr::V4(v4) => SocketAddrV4::new(v4, port).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
        })
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        Peer::Ip(IpPeer { scope, port: address.port(), ip: address.ip() })
    }
}

impl fmt::Display for Peer {
    /// The address, or `unix:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => f.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_the_id_there_and_back() {
        for (index, generation) in [(0, 1), (7, 3), (u32::MAX, u32::MAX)] {
            let generation = NonZeroU32::new(generation).unwrap();
            let id = ConnectionId { index, generation };
            assert_eq!(ConnectionId::from_token(id.token()), Some(id));
        }
        assert_eq!(ConnectionId::from_token(Token(1)), None);
    }

    #[test]
    fn a_peer_is_the_address_it_was_made_of() {
        for text in ["127.0.0.1:80", "[::1]:8000", "[fe80::1%7]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let peer = Peer::from(address);
            assert_eq!((peer.address(), peer.to_string()), (Some(address), text.to_owned()));
            assert_eq!(peer.ip(), Some(address.ip()));
        }
        assert_eq!(size_of::<Peer>(), 24);
    }

    #[test]
    fn a_peer_on_a_unix_socket_has_no_address() {
        assert_eq!((Peer::Unix.ip(), Peer::Unix.address()), (None, None));
        assert_eq!(Peer::Unix.to_string(), "unix:");
    }
}

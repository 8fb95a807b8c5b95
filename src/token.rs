//! The names of a connection: on its reactor, slot and generation in one word, and in its server, with the
//! reactor's number; who its peer is, in three words; and by which entrance it came.
//!
//! The name on its reactor is what the poll hands back as a token, what the ready queue and the session table
//! hold instead of a reference, and what the log calls a connection. (The timer wheel holds the slot
//! alone: its entries are hints.) Slots are reused; generations are not (CVE-2020-35681 was one
//! request's scope read by another).
//!
//! Invariant: two connections of one server never have equal ids.
//!
//! Next: [`crate::transport`]: the socket behind the name.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;
use std::str::FromStr;

use mio::Token;

/// Names one connection of one reactor, for as long as anything may still refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId {
    /// Slot in the slab.
    pub(crate) index: u32,
    /// Which tenant of that slot; never 0, so an `Option` of this type is no larger.
    pub(crate) generation: NonZeroU32,
}

impl LocalId {
    /// The name of a connection that does not exist: for tests.
    #[cfg(feature = "internals")]
    #[must_use]
    pub const fn new(index: u32, generation: NonZeroU32) -> LocalId {
        LocalId { index, generation }
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
    pub(crate) fn from_token(Token(value): Token) -> Option<LocalId> {
        let generation = NonZeroU32::new((value >> 32) as u32)?;
        Some(LocalId { index: value as u32, generation })
    }
}

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Names one connection of a server, for as long as anything may still refer to it: no other connection
/// of that server ever has the same name. An open WebSocket keeps its name for life.
///
/// It is written as text and read from it, so that a page of the application's can name a connection. The order
/// of two names means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(crate) reactor: u16,
    pub(crate) local: LocalId,
}

impl ConnectionId {
    pub(crate) fn new(reactor: usize, local: LocalId) -> ConnectionId {
        // `Config::validate` bounds the number of reactors at 1024.
        ConnectionId { reactor: reactor as u16, local }
    }

    /// The reactor on which the connection is, from 0.
    #[must_use]
    pub fn reactor(self) -> usize {
        usize::from(self.reactor)
    }
}

impl fmt::Display for ConnectionId {
    /// The reactor's number, and behind a slash what the log calls the connection there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.reactor, self.local)
    }
}

/// A text is not the name of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidConnectionId;

impl fmt::Display for InvalidConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the name of a connection: it is written as 0/7.42")
    }
}

impl std::error::Error for InvalidConnectionId {}

impl FromStr for ConnectionId {
    type Err = InvalidConnectionId;

    /// Reads what [`Display`](fmt::Display) writes. Whether there is such a connection is not known here.
    fn from_str(text: &str) -> Result<ConnectionId, InvalidConnectionId> {
        let parsed = || {
            let (reactor, local) = text.split_once('/')?;
            let (index, generation) = local.split_once('.')?;
            let local =
                LocalId { index: index.parse().ok()?, generation: generation.parse().ok()? };
            Some(ConnectionId { reactor: reactor.parse().ok()?, local })
        };
        // Numbers may be written in several ways; a name in one.
        parsed().filter(|id| id.to_string() == text).ok_or(InvalidConnectionId)
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

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entrance {
    /// Where the server listens for everybody.
    #[default]
    Public,
    /// There too, by a proxy that has to say first for whom it speaks (the PROXY protocol).
    BehindProxy,
    /// At the address for operators alone ([`crate::Config::admin`]).
    Admin,
}

/// Who sends a request, and where.
#[derive(Debug, Clone, Copy)]
pub struct Visitor {
    /// Who is at the other end.
    pub peer: Peer,
    /// Where the connection came in.
    pub entrance: Entrance,
}

impl From<SocketAddr> for Visitor {
    /// One of the public.
    fn from(address: SocketAddr) -> Visitor {
        Visitor { peer: address.into(), entrance: Entrance::Public }
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
            let id = LocalId { index, generation };
            assert_eq!(LocalId::from_token(id.token()), Some(id));
        }
        assert_eq!(LocalId::from_token(Token(1)), None);
    }

    #[test]
    fn a_connection_is_called_by_its_reactor_and_what_the_log_calls_it_there() {
        let generation = NonZeroU32::new(3).unwrap();
        let local = LocalId { index: 7, generation };
        let id = ConnectionId::new(2, local);
        assert_eq!((id.to_string(), id.reactor()), ("2/7.3".to_owned(), 2));
        assert_ne!(id, ConnectionId::new(1, local));
        assert_eq!("2/7.3".parse(), Ok(id));
        for text in ["", "2", "2/7", "/7.3", "2/7.0", "2/07.3", "+2/7.3", "2/7.3 ", "70000/7.3"] {
            assert_eq!(text.parse::<ConnectionId>(), Err(InvalidConnectionId), "{text:?}");
        }
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

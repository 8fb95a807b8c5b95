//! Listening sockets: one a reactor, on one port, the kernel dealing out connections
//! (SO_REUSEPORT).
//!
//! Accepting, and when to pause, is the shard's business. Called once, by `server.rs`.
//!
//! Next: [`crate::reactor`], the loop.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// Binds `count` listeners to `address` and says which port they got.
///
/// The first socket is bound without SO_REUSEPORT, so that a port in use is an error even if
/// whoever uses it would share (another revolve, say); only then is it opened to the others.
///
/// # Errors
///
/// What `socket(2)`, `bind(2)` or `listen(2)` say.
pub fn bind(
    address: SocketAddr,
    backlog: u32,
    count: usize,
) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&bound.into())?;
        sockets.push(next);
    }
    // None listens before all are bound, so there is no moment at which some reactors miss out.
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    let listeners =
        sockets.into_iter().map(|socket| TcpListener::from_std(StdListener::from(socket)));
    Ok((listeners.collect(), bound))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the former server's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it, so it costs one call a listener and none a connection. The
    // cork decides what leaves together; Nagle's algorithm would only add a delayed ACK to it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn listeners_share_a_port_that_nobody_else_can_take() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listeners, bound) = bind(any, 16, 3).unwrap();
        assert_eq!(listeners.len(), 3);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), bound);
        }
        assert_eq!(bind(bound, 16, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(bind(bound, 16, 1).is_ok());
    }
}

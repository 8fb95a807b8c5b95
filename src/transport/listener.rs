//! Listening sockets. Of a TCP address each reactor has one, on one port, and the kernel deals out
//! connections (SO_REUSEPORT). Of a Unix path, where there is no such thing, and of a socket that the
//! process was given, the first reactor has the only one; its shard spreads what it accepts.
//!
//! When to accept, and when to pause, is the shard's business. Bound once, by `server.rs`.
//!
//! Invariant: an address has one server. SO_REUSEPORT is set on a socket only once the port is
//! this server's: `bind` says how.
//!
//! Next: [`crate::contained`]: what belongs to the application, and may panic.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener as UnixStdListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, ipproto, sockopt};

use crate::config::{Address, Inherited};
use crate::token::{Entrance, Peer};
use crate::transport::socket;
use crate::transport::tls::TlsAcceptor;
use crate::transport::tls::TlsSession;
use crate::transport::unix_listener::UnixListener;

/// How often a step is tried that a rival at the same instant can make fail: see [`patiently`].
const ATTEMPTS: u32 = 20;

/// What an IPv6 socket takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    One,
    /// IPv4 too, under addresses that are mapped (RFC 4291 2.5.5.2).
    Both,
}

/// `::` stands for all addresses of this machine. IPv4 is left out if the list has an IPv4 address of
/// that port, which would be taken twice.
fn families_of(address: SocketAddr, all: &[Address]) -> Families {
    let is_beside = |other: SocketAddr| other.is_ipv4() && other.port() == address.port();
    let stands_alone = !all.iter().filter_map(Address::tcp).any(is_beside);
    match address.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if stands_alone => Families::Both,
        _ => Families::One,
    }
}

/// A connection that has been accepted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Its socket.
    pub stream: S,
    /// Who is at the other end.
    pub peer: Peer,
    /// Where it came in.
    pub entrance: Entrance,
    /// Its listener is the only one of that address, so what comes by it is for all reactors.
    pub is_for_all: bool,
    /// What is between the socket and the protocol, if it is encrypted.
    pub tls: Option<TlsSession>,
}

impl<S> From<(S, Peer)> for Accepted<S> {
    /// By a listener of the usual kind, for everybody.
    fn from((stream, peer): (S, Peer)) -> Accepted<S> {
        let is_for_all = peer == Peer::Unix;
        Accepted { stream, peer, entrance: Entrance::Public, is_for_all, tls: None }
    }
}

/// A socket that listens.
#[derive(Debug)]
enum Listener {
    /// One for each reactor.
    Tcp(TcpListener),
    /// The only one of its path.
    Unix(UnixListener),
    /// The same, of a socket that the process was given.
    InheritedTcp(TcpListener),
    InheritedUnix(mio::net::UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Accepted<socket::Socket>> {
        Ok(match self {
            Listener::Tcp(listener) => accept_tcp(listener)?.into(),
            Listener::Unix(listener) => (listener.accept()?, Peer::Unix).into(),
            Listener::InheritedTcp(listener) => {
                Accepted { is_for_all: true, ..accept_tcp(listener)?.into() }
            }
            Listener::InheritedUnix(listener) => {
                (socket::Socket::from(listener.accept()?.0), Peer::Unix).into()
            }
        })
    }

    /// Of a socket that the process was given.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is no stream socket that listens.
    fn inherit(inherited: &Inherited) -> io::Result<(Listener, Address)> {
        let socket = inherited.socket().try_clone_to_owned()?;
        let Some(address) = listens(socket.as_fd()) else {
            let why = "it is no stream socket that listens";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(match &address {
            Address::Unix(_) => {
                let listener = mio::net::UnixListener::from_std(UnixStdListener::from(socket));
                (Listener::InheritedUnix(listener), address)
            }
            _ => {
                sockopt::set_tcp_nodelay(&socket, true)?;
                let listener = TcpListener::from_std(StdListener::from(socket));
                (Listener::InheritedTcp(listener), address)
            }
        })
    }
}

/// The listeners of one reactor.
#[derive(Debug, Default)]
pub struct Listeners {
    listeners: Vec<Listening>,
    /// Which one is asked next.
    next: usize,
    /// What makes the TLS sessions, if there are any.
    tls: Option<Arc<TlsAcceptor>>,
}

/// One of them, and what comes in there.
#[derive(Debug)]
struct Listening {
    listener: Listener,
    entrance: Entrance,
    /// Of TCP alone, and where there is a certificate.
    speaks_tls: bool,
}

impl From<Listener> for Listening {
    /// For everybody, encrypted where that can be.
    fn from(listener: Listener) -> Listening {
        Listening { listener, entrance: Entrance::Public, speaks_tls: true }
    }
}

impl Listeners {
    /// Binds every address, and gives each reactor its listeners. With them come the addresses that
    /// they got, in the order given. TCP addresses with port 0 get the same free port.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had, and why. Then nothing listens.
    pub fn bind(
        addresses: &[Address],
        backlog: u32,
        reactors: usize,
    ) -> Result<(Vec<Listeners>, Vec<Address>), (Address, io::Error)> {
        let takes_any_port =
            |failed: &Address| failed.tcp().is_some_and(|address| address.port() == 0);
        // A port that is free at one address may be taken at the next.
        for _ in 1..ATTEMPTS {
            match Listeners::bind_once(addresses, backlog, reactors) {
                Err((address, error))
                    if error.kind() == io::ErrorKind::AddrInUse && takes_any_port(&address) => {}
                outcome => return outcome,
            }
        }
        Listeners::bind_once(addresses, backlog, reactors)
    }

    fn bind_once(
        addresses: &[Address],
        backlog: u32,
        reactors: usize,
    ) -> Result<(Vec<Listeners>, Vec<Address>), (Address, io::Error)> {
        let mut of_reactors: Vec<_> = (0..reactors).map(|_| Listeners::default()).collect();
        let mut bound = Vec::with_capacity(addresses.len());
        let mut picked = None;
        for address in addresses {
            let failed = |error| (address.clone(), error);
            match address {
                Address::Tcp(tcp) => {
                    let families = families_of(*tcp, addresses);
                    let mut wanted = *tcp;
                    if let (0, Some(port)) = (tcp.port(), picked) {
                        wanted.set_port(port);
                    }
                    let (listeners, got) =
                        bind(wanted, families, backlog, reactors).map_err(failed)?;
                    if tcp.port() == 0 {
                        picked = Some(got.port());
                    }
                    for (own, listener) in of_reactors.iter_mut().zip(listeners) {
                        own.listeners.push(Listener::Tcp(listener).into());
                    }
                    bound.push(Address::Tcp(got));
                }
                Address::Inherited(inherited) => {
                    let (listener, address) = Listener::inherit(inherited).map_err(failed)?;
                    if let Some(first) = of_reactors.first_mut() {
                        first.listeners.push(listener.into());
                    }
                    bound.push(address);
                }
                Address::Unix(path) => {
                    let listener = UnixListener::bind(path, backlog).map_err(failed)?;
                    if let Some(first) = of_reactors.first_mut() {
                        first.listeners.push(Listener::Unix(listener).into());
                    }
                    bound.push(address.clone());
                }
            }
        }
        Ok((of_reactors, bound))
    }

    /// Takes in others, at which this comes in.
    pub fn add(&mut self, others: Listeners, entrance: Entrance, speaks_tls: bool) {
        let others = others.listeners.into_iter();
        self.listeners.extend(others.map(|other| Listening { entrance, speaks_tls, ..other }));
    }

    /// From now on those that speak TLS do it by this; without, none does.
    pub fn speak_tls_by(&mut self, acceptor: Option<Arc<TlsAcceptor>>) {
        self.tls = acceptor;
    }

    /// Asks for an edge under `token` when one of them has a connection.
    ///
    /// # Errors
    ///
    /// When the kernel has no room for it.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        for Listening { listener, .. } in &mut self.listeners {
            match listener {
                Listener::Tcp(listener) | Listener::InheritedTcp(listener) => {
                    registry.register(listener, token, Interest::READABLE)
                }
                Listener::Unix(listener) => listener.register(registry, token),
                Listener::InheritedUnix(listener) => {
                    registry.register(listener, token, Interest::READABLE)
                }
            }?;
        }
        Ok(())
    }

    /// The next connection, of each listener in its turn: so a storm on one address does not keep
    /// those out who connect to another.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when none of them has one; whatever `accept(2)` says.
    pub fn accept(&mut self) -> io::Result<Accepted<socket::Socket>> {
        for _ in 0..self.listeners.len() {
            let at = self.next;
            self.next = (at + 1) % self.listeners.len();
            let Listening { listener, entrance, speaks_tls } = &mut self.listeners[at];
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(accepted) => {
                    let is_encrypted = *speaks_tls && accepted.peer != Peer::Unix;
                    let acceptor = self.tls.as_deref().filter(|_| is_encrypted);
                    let tls = acceptor.map(TlsAcceptor::session).transpose()?;
                    return Ok(Accepted { entrance: *entrance, tls, ..accepted });
                }
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Stops listening: the kernel forgets closed sockets, and the file of a Unix path goes. A socket that
    /// the process was given goes on for whoever else has it.
    pub fn close(&mut self) {
        self.listeners.clear();
    }
}

fn accept_tcp(listener: &TcpListener) -> io::Result<(socket::Socket, Peer)> {
    let (stream, mut address) = listener.accept()?;
    // An IPv4 client of `::` is the same peer as one of `0.0.0.0`.
    address.set_ip(address.ip().to_canonical());
    Ok((stream.into(), address.into()))
}

/// Where a socket listens, if it is a TCP or a Unix stream socket that does.
fn listens(socket: BorrowedFd<'_>) -> Option<Address> {
    let is_stream = sockopt::socket_type(socket) == Ok(SocketType::STREAM);
    let address = rustix::net::getsockname(socket).ok().and_then(address_of);
    address.filter(|_| is_stream && is_listening(socket))
}

/// None of another family. A Unix socket without a path, or with an abstract name, is displayed as `unix:`.
fn address_of(name: SocketAddrAny) -> Option<Address> {
    if let Ok(tcp) = SocketAddr::try_from(name.clone()) {
        return Some(tcp.into());
    }
    let unix = SocketAddrUnix::try_from(name).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(unix.path_bytes().unwrap_or_default())).into())
}

#[cfg(not(target_vendor = "apple"))]
fn is_listening(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// Apple's systems cannot be asked; `accept` will tell.
#[cfg(target_vendor = "apple")]
fn is_listening(_: BorrowedFd<'_>) -> bool {
    true
}

/// Binds `count` listeners to `address` and says which port they got.
///
/// The first socket is bound, *and listens*, without SO_REUSEPORT; only then is it opened to its
/// siblings. Bound alone it would not keep the port: Linux lets two sockets with SO_REUSEADDR
/// bind one port while neither listens, so two servers that start at one moment would both pass
/// and both serve. Once one listens without SO_REUSEPORT, another server's `bind` or `listen`
/// fails, and stays so: another server too asks with a first socket that does not share.
///
/// Connections that arrive before the siblings listen wait in the first one's queue.
///
/// # Errors
///
/// What `socket(2)`, `bind(2)` or `listen(2)` say.
fn bind(
    address: SocketAddr,
    families: Families,
    backlog: u32,
    count: usize,
) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let first = patiently(|| {
        let socket = tcp_socket(address, families)?;
        // This fails if another server listens, and then it is in vain to try again.
        rustix::net::bind(&socket, &address)?;
        Ok(listen(socket, backlog))
    })?;
    let bound = first.local_addr()?;
    // One reactor alone has no siblings, and shares with nobody.
    if count > 1 {
        sockopt::set_socket_reuseport(&first, true)?;
    }
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(patiently(|| {
            let next = tcp_socket(bound, families)?;
            sockopt::set_socket_reuseport(&next, true)?;
            let outcome = rustix::net::bind(&next, &bound).map_err(io::Error::from);
            Ok(outcome.and_then(|()| listen(next, backlog)))
        })?);
    }
    Ok((sockets.into_iter().map(TcpListener::from_std).collect(), bound))
}

fn listen(socket: StdListener, backlog: i32) -> io::Result<StdListener> {
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Tries a step again whose inner result is EADDRINUSE.
///
/// Linux marks a socket as listening before it looks for rivals. So a rival's `listen` that is about
/// to fail makes, for an instant, our `listen` and the siblings' `bind` fail too. Of two servers that
/// call `listen` at the same instant, both can be refused. When a step is tried again, either that
/// instant is over, or `bind` finds that the other server listens.
fn patiently(
    mut step: impl FnMut() -> io::Result<io::Result<StdListener>>,
) -> io::Result<StdListener> {
    for _ in 1..ATTEMPTS {
        match step()? {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                thread::sleep(Duration::from_millis(1));
            }
            outcome => return outcome,
        }
    }
    step()?
}

/// One that will listen: std's type is a name for the descriptor until then.
fn tcp_socket(address: SocketAddr, families: Families) -> io::Result<StdListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket::open(family, Some(ipproto::TCP))?;
    // A restart must not wait for the former server's connections to leave TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, families == Families::One)?;
    }
    // Accepted sockets inherit it, so it costs one call a listener and none a connection. The
    // cork decides what leaves together; Nagle's algorithm would only add a delayed ACK to it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    let socket = StdListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::fd::OwnedFd;
    use std::sync::Barrier;

    /// An address of this machine on which no other test connects or listens, so that a port found
    /// free there stays free.
    fn own_address(number: u8) -> IpAddr {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        if cfg!(target_os = "linux") {
            IpAddr::from([127, 64 + number, high, low])
        } else {
            Ipv4Addr::LOCALHOST.into()
        }
    }

    fn bind_one(
        address: SocketAddr,
        backlog: u32,
        count: usize,
    ) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
        bind(address, Families::One, backlog, count)
    }

    fn free_port(host: IpAddr) -> SocketAddr {
        bind_one((host, 0).into(), 16, 1).unwrap().1
    }

    #[test]
    fn listeners_share_a_port_that_nobody_else_can_take() {
        for host in [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            if host.is_ipv6() && StdListener::bind((host, 0)).is_err() {
                continue; // This machine has no IPv6.
            }
            for count in [1, 2, 3, 16] {
                let (listeners, bound) = bind_one((host, 0).into(), 16, count).unwrap();
                assert_eq!(listeners.len(), count);
                for listener in &listeners {
                    assert_eq!(listener.local_addr().unwrap(), bound);
                }
                for rival in [1, 3] {
                    let error = bind_one(bound, 16, rival).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{rival} against {count}");
                }
                drop(listeners);
                assert!(bind_one(bound, 16, count).is_ok());
            }
        }
    }

    #[test]
    fn each_listener_of_a_reactor_is_asked_in_its_turn() {
        use std::os::unix::net::UnixStream;
        let path = std::env::temp_dir().join(format!("revolve-turns-{}", std::process::id()));
        let asked = [Address::Tcp((own_address(8), 0).into()), Address::from(path.clone())];
        let (mut reactors, bound) = Listeners::bind(&asked, 16, 2).unwrap();
        let mut first = reactors.remove(0);
        assert_eq!(reactors[0].listeners.len(), 1, "a path has one listener");
        // One address alone, or the second reactor would get some of these.
        drop(reactors);
        let tcp = bound[0].tcp().unwrap();
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(TcpStream::connect(tcp).unwrap());
        }
        let _other = (UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap());
        let mut accepted = Vec::new();
        let give_up = std::time::Instant::now() + Duration::from_secs(10);
        while accepted.len() < 6 {
            assert!(std::time::Instant::now() < give_up);
            match first.accept() {
                Ok(found) => accepted.push(found.peer),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        let unix = accepted.iter().rposition(|peer| *peer == Peer::Unix).unwrap();
        assert!(unix <= 3, "behind as many of the other: {accepted:?}");
        first.close();
        assert!(first.accept().is_err() && !path.exists() && TcpStream::connect(tcp).is_err());
    }

    #[test]
    fn addresses_with_port_0_get_the_same_port() {
        let hosts = [own_address(20), own_address(21), own_address(22)];
        let asked = hosts.map(|host| Address::Tcp((host, 0).into()));
        let (_listeners, bound) = Listeners::bind(&asked, 16, 2).unwrap();
        let ports: Vec<_> = bound.iter().map(|address| address.tcp().unwrap().port()).collect();
        assert!(ports[0] > 0 && ports.iter().all(|port| *port == ports[0]), "{bound:?}");
        for address in bound {
            TcpStream::connect(address.tcp().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_port_that_is_taken_at_one_address_is_not_picked_for_all() {
        let (first, second) = (own_address(23), own_address(24));
        if first == second {
            return; // Such addresses are Linux's.
        }
        // The kernel may pick any free port of the first address, and some of these are taken at the second:
        // one in 30 or so, so that it picks such a one sooner or later.
        let asked = [Address::Tcp((first, 0).into()), Address::Tcp((second, 0).into())];
        let held: Vec<_> = (0..500).map(|_| StdListener::bind((second, 0)).unwrap()).collect();
        for _ in 0..100 {
            let (_listeners, bound) = Listeners::bind(&asked, 16, 1).unwrap();
            let port = bound[1].tcp().unwrap().port();
            assert_eq!(bound[0].tcp().unwrap().port(), port);
            assert!(held.iter().all(|held| held.local_addr().unwrap().port() != port));
        }
        // One that was named is not changed.
        let named = [(first, 0).into(), held[0].local_addr().unwrap()].map(Address::Tcp);
        let (address, error) = Listeners::bind(&named, 16, 1).unwrap_err();
        assert_eq!((address, error.kind()), (named[1].clone(), io::ErrorKind::AddrInUse));
    }

    #[test]
    fn the_address_of_all_takes_both_families_in() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        if StdListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            return; // This machine has no IPv6.
        }
        let peer_of = |listeners: &mut [Listeners], client: TcpStream| {
            let own = client.local_addr().unwrap();
            loop {
                for listeners in listeners.iter_mut() {
                    match listeners.accept() {
                        Ok(found) if found.peer.address() == Some(own) => return found.peer,
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    }
                }
            }
        };
        let (mut both, bound) = Listeners::bind(&[any.into()], 16, 2).unwrap();
        let port = bound[0].tcp().unwrap().port();
        for host in [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let peer = peer_of(&mut both, TcpStream::connect((host, port)).unwrap());
            assert_eq!(peer.ip(), Some(host), "not a mapped one");
        }
        drop(both);
        // Beside an IPv4 address of the same port it is of IPv6 alone.
        let own = SocketAddr::from((own_address(25), 0));
        let (mut beside, bound) = Listeners::bind(&[any.into(), own.into()], 16, 2).unwrap();
        let (v6, v4) = (bound[0].tcp().unwrap(), bound[1].tcp().unwrap());
        assert_eq!(v6.port(), v4.port());
        peer_of(&mut beside, TcpStream::connect(v4).unwrap());
        peer_of(&mut beside, TcpStream::connect((Ipv6Addr::LOCALHOST, v6.port())).unwrap());
    }

    #[test]
    fn a_socket_that_was_given_is_accepted_from_for_all() {
        let tcp = StdListener::bind((own_address(26), 0)).unwrap();
        let at = tcp.local_addr().unwrap();
        let path = std::env::temp_dir().join(format!("revolve-given-{}", std::process::id()));
        let unix = UnixStdListener::bind(&path).unwrap();
        let given = [Address::from(tcp), Address::from(unix)];
        let (mut reactors, bound) = Listeners::bind(&given, 16, 2).unwrap();
        assert_eq!(bound, [Address::from(at), Address::from(path.clone())]);
        assert!(reactors[1].listeners.is_empty());
        let mut accept = || loop {
            match reactors[0].accept() {
                Ok(accepted) => return accepted,
                // It does not block.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        let client = TcpStream::connect(at).unwrap();
        let found = accept();
        assert_eq!(found.peer.address(), Some(client.local_addr().unwrap()));
        assert!(found.is_for_all);
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let found = accept();
        assert!(found.peer == Peer::Unix && found.is_for_all);
        reactors[0].close();
        // Its giver has it still.
        let Address::Inherited(inherited) = &given[0] else { panic!("it was given") };
        assert_eq!(listens(inherited.socket()), Some(Address::from(at)));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let datagrams = std::net::UdpSocket::bind((own_address(27), 0)).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for socket in [OwnedFd::from(stream), datagrams.into(), file.into()] {
            let given = [Inherited::new(socket, "5").into()];
            let (address, error) = Listeners::bind(&given, 16, 2).unwrap_err();
            assert_eq!(address.to_string(), "descriptor 5");
            assert_eq!(error.to_string(), "it is no stream socket that listens");
        }
    }

    #[test]
    fn of_two_servers_that_ask_at_one_moment_one_gets_the_port() {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        for (number, (count, rival_count)) in [(1, 1), (1, 4), (3, 3)].into_iter().enumerate() {
            for is_wildcard in [false, true] {
                let address = free_port(own_address(number as u8));
                // A server on all addresses is a rival of one on a single address.
                let rival = if is_wildcard { (any, address.port()).into() } else { address };
                let start = Barrier::new(2);
                let ask = |address, count| {
                    start.wait();
                    let outcome = bind_one(address, 16, count);
                    // Who got it keeps it until the other has asked.
                    start.wait();
                    outcome
                };
                for round in 0..200 {
                    let (one, other) = thread::scope(|scope| {
                        let other = scope.spawn(|| ask(rival, rival_count));
                        (ask(address, count), other.join().unwrap())
                    });
                    let (won, lost) = match (one, other) {
                        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
                        (one, other) => panic!("round {round}: {one:?} and {other:?}"),
                    };
                    assert_eq!(lost.kind(), io::ErrorKind::AddrInUse, "round {round}");
                    drop(won);
                }
            }
        }
    }

    #[test]
    fn while_the_first_listens_alone_no_rival_gets_in() {
        // The moments of `bind`, one by one: what a rival does in between fails.
        let in_use = |outcome: io::Result<()>| {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        };
        let first = tcp_socket((own_address(9), 0).into(), Families::One).unwrap();
        let bind_to = |socket: &StdListener, address: SocketAddr| {
            rustix::net::bind(socket, &address).map_err(io::Error::from)
        };
        let share = |socket: &StdListener| sockopt::set_socket_reuseport(socket, true).unwrap();
        bind_to(&first, (own_address(9), 0).into()).unwrap();
        let first = listen(first, 16).unwrap();
        let address = first.local_addr().unwrap();
        in_use(bind_one(address, 16, 2).map(drop));
        let sharing = tcp_socket(address, Families::One).unwrap();
        share(&sharing);
        in_use(bind_to(&sharing, address));
        share(&first);
        // A server's first socket does not share, so it is refused here too.
        in_use(bind_one(address, 16, 2).map(drop));
        let sibling = tcp_socket(address, Families::One).unwrap();
        share(&sibling);
        bind_to(&sibling, address).unwrap();
        in_use(bind_one(address, 16, 2).map(drop));
        listen(sibling, 16).unwrap();
    }
}

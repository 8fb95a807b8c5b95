//! The operating system's stream: a TCP or a Unix socket, connected and non-blocking.
//!
//! Once it is connected, a stream socket is a stream socket: recv(2), send(2), readv(2), writev(2),
//! shutdown(2) and poll are the same calls for both families, and the kernel finds the family by the
//! descriptor. So there is one type, no branch in front of any call, and no room taken for a mark:
//! an enum of both would make each connection's slot larger by 8 bytes. Which family it is, the
//! connection's [`crate::token::Peer`] says. Connects none; the listeners open theirs by [`open`].
//!
//! Invariant: the descriptor is a stream socket.
//!
//! Next: [`crate::transport::tls`]: what may stand between it and the protocol.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType};

use super::Stream;

/// A peer that is gone is an error and not a signal. Where there is no such flag, the socket has it as an option.
#[cfg(not(target_vendor = "apple"))]
const WITHOUT_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const WITHOUT_SIGNAL: SendFlags = SendFlags::empty();

/// A new stream socket, which no child process inherits.
///
/// # Errors
///
/// What `socket(2)` says.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn open(family: AddressFamily, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    use rustix::net::SocketFlags;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)?)
}

/// Where the flag cannot be asked for at once, and there is none for [`WITHOUT_SIGNAL`].
#[cfg(target_vendor = "apple")]
pub(super) fn open(family: AddressFamily, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(family, SocketType::STREAM, protocol)?;
    rustix::io::ioctl_fioclex(&socket)?;
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// A connected socket of either family.
#[derive(Debug)]
// mio's type for TCP is what holds the descriptor. None of its calls that are used here is one that
// only TCP has, and it is the one of the two types that sends with MSG_NOSIGNAL in every version. recv and
// send are rustix's, which on Linux are the system calls themselves: the C library's are cancellation points
// of its threads, which nobody here cancels, and take 50 instructions more each (740 a message of the daemon's
// ping-pong with them, 639 without).
pub struct Socket(TcpStream);

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        Socket(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Socket {
        Socket(TcpStream::from(OwnedFd::from(stream)))
    }
}

impl Read for Socket {
    #[inline(always)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(&self.0, buffer, RecvFlags::empty())?;
        Ok(count)
    }
}

impl Write for Socket {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, WITHOUT_SIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    fn half_close(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    fn peek(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.peek(room)
    }

    fn read_both(&mut self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        self.0.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])
    }

    fn write_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        self.0.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
    }
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        self.0.register(registry, token, what)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, what: Interest) -> io::Result<()> {
        self.0.reregister(registry, token, what)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};
    use std::os::unix::net::UnixStream as StdUnixStream;

    /// A socket and its peer, of each family.
    fn pairs() -> [(Socket, Box<dyn Peer>); 2] {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (unix, unix_peer) = StdUnixStream::pair().unwrap();
        unix.set_nonblocking(true).unwrap();
        [
            (Socket::from(TcpStream::from_std(ours)), Box::new(peer)),
            (Socket::from(UnixStream::from_std(unix)), Box::new(unix_peer)),
        ]
    }

    trait Peer: Read + Write {}
    impl<T: Read + Write> Peer for T {}

    #[test]
    fn no_child_inherits_a_socket_that_is_opened() {
        for family in [AddressFamily::INET, AddressFamily::UNIX] {
            let socket = open(family, None).unwrap();
            let flags = rustix::io::fcntl_getfd(&socket).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "{family:?}");
        }
    }

    #[test]
    fn both_families_are_read_written_and_half_closed_alike() {
        for (mut socket, mut peer) in pairs() {
            let empty = socket.read(&mut [0; 8]).unwrap_err();
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            peer.write_all(b"abcdef").unwrap();
            let (mut first, mut second) = ([0; 4], [0; 4]);
            let count = loop {
                match socket.read_both(&mut first, &mut second) {
                    Ok(count) => break count,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!((count, &first, &second[..2]), (6, b"abcd", &b"ef"[..]));
            let empty = socket.peek(&mut [0; 8]).unwrap_err();
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            peer.write_all(b"xy").unwrap();
            for read in [Socket::peek, Socket::peek, Socket::read] {
                let mut room = [0; 1];
                while let Err(error) = read(&mut socket, &mut room) {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                }
                assert_eq!(room, *b"x", "a look leaves it there");
            }
            assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
            assert_eq!(socket.write(b"gh").unwrap(), 2);
            assert_eq!(socket.write_both(b"ij", b"kl").unwrap(), 4);
            socket.half_close().unwrap();
            let mut told = String::new();
            peer.read_to_string(&mut told).unwrap();
            assert_eq!(told, "ghijkl");
            drop(peer);
            // The peer is gone: an end or an error, and no signal.
            while let Err(error) = socket.read(&mut [0; 8])
                && error.kind() == io::ErrorKind::WouldBlock
            {}
            assert!(socket.write(b"m").is_err());
        }
    }
}

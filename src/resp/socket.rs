//! The operating system's stream to a server: TCP or a Unix path, blocking, with a time for each call.
//!
//! Resolves, connects, reads and writes; knows no protocol. A call is given the moment until which it may wait, so a
//! peer that sends a byte now and then does not prolong it. Only the resolver has times of its own: the system offers
//! no other. Called by `connection`.
//!
//! Invariant: no call but the resolver's waits past its deadline by more than a tick of the kernel's clock.
//!
//! Next: `error`: what can go wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::address::Place;

/// The shortest time that a socket can be told to wait: to it, none at all means for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// A connected stream.
#[derive(Debug)]
pub struct Socket(Stream);

/// The operating system's stream.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to one of the addresses that a place has.
    ///
    /// # Errors
    ///
    /// If the name has no address, or none of them answers in time: what the last one said.
    pub fn connect(place: &Place, deadline: Instant) -> io::Result<Socket> {
        match place {
            Place::Tcp { host, port } => {
                let addresses = (host.as_str(), *port).to_socket_addrs()?;
                let mut refused =
                    io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in addresses {
                    match connect_tcp(&address, deadline) {
                        Ok(stream) => return Ok(Socket(Stream::Tcp(stream))),
                        Err(error) => refused = error,
                    }
                }
                Err(refused)
            }
            Place::Unix(path) => Ok(Socket(Stream::Unix(connect_unix(path, deadline)?))),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// The stream's, and [`io::ErrorKind::TimedOut`]. How much was written is not known then.
    pub fn write_all(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = left(deadline)?;
            let written = match &mut self.0 {
                Stream::Tcp(stream) => {
                    stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes))
                }
                Stream::Unix(stream) => {
                    stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes))
                }
            };
            match or_timed_out(written)? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(count) => bytes = &bytes[count..],
                None => {}
            }
        }
        Ok(())
    }

    /// Reads what there is, or waits for it; 0 is the end.
    ///
    /// # Errors
    ///
    /// The stream's, and [`io::ErrorKind::TimedOut`].
    pub fn read(&mut self, room: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = left(deadline)?;
            let read = match &mut self.0 {
                Stream::Tcp(stream) => {
                    stream.set_read_timeout(Some(left)).and_then(|()| stream.read(room))
                }
                Stream::Unix(stream) => {
                    stream.set_read_timeout(Some(left)).and_then(|()| stream.read(room))
                }
            };
            if let Some(count) = or_timed_out(read)? {
                return Ok(count);
            }
        }
    }

    /// What it consists of.
    pub(super) fn into_stream(self) -> Stream {
        self.0
    }

    /// Ends both directions. What is under way in the kernel may still reach the peer.
    pub fn shut_down(&self) {
        // One that has ended already says so: all the same to us.
        let _ = match &self.0 {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

fn connect_tcp(address: &SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, left(deadline)?)?;
    // A batch is one write, and its answer is waited for.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Not by std's call: that one waits for as long as the listener's queue is full. On Linux the time to send bounds that
/// wait too (socket(7), SO_SNDTIMEO); elsewhere a full queue refuses at once.
fn connect_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

/// How long there is still to wait.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        None => Err(io::ErrorKind::TimedOut.into()),
        Some(left) => Ok(left.max(SHORTEST)),
    }
}

/// One name for what systems call a time-out; `None` for a call that a signal has ended.
fn or_timed_out(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::ErrorKind::TimedOut.into())
        }
        Err(error) => Err(error),
    }
}

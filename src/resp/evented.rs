//! A connection that never waits, for a thread that has a poll: commands go out, and replies come in, as the socket
//! can.
//!
//! It is made by [`Connection::connect`], which waits, on some other thread. Registered once, for both directions and
//! edge-triggered, as all sockets here: so it is read until there is nothing more, and what the socket does not take is
//! kept until it is writable. Knows no command, and not which reply belongs to which. Called by the broker's thread.
//!
//! Invariant: what was sent leaves in this order, and a reply is returned once.
//!
//! Next: `availability`: what is told of a server.

use std::io::{self, Read, Write};

use mio::event::Source;
use mio::{Interest, Registry, Token};

use super::connection::{Connection, of_io};
use super::decoder::Decoder;
use super::error::ConnectionError;
use super::pipeline::Pipeline;
use super::reply::Reply;
use super::socket;

/// Bytes that one read may take.
const READ_BYTES: usize = 16 << 10;

/// Reads of a turn: 1 MiB. So a string that is passed over, however long it is, does not keep others waiting.
const READS_PER_TURN: usize = 64;

/// Bytes of storage for what waits that are kept when nothing does.
const SPARE_MOST: usize = 64 << 10;

#[derive(Debug)]
enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

/// A connection that never waits.
#[derive(Debug)]
pub struct Evented {
    stream: Stream,
    decoder: Decoder,
    room: Vec<u8>,
    /// What the socket has not taken, from `written` on.
    unsent: Vec<u8>,
    written: usize,
    /// Reads that are left of this turn.
    reads: usize,
    /// Whether the socket had no more when it was read last.
    is_dry: bool,
}

impl Evented {
    /// A connection that was made, of which the edges are told to `registry` from now on. Replies are read by
    /// `decoder`.
    ///
    /// # Errors
    ///
    /// If the system does not let it be registered.
    pub fn new(
        connection: Connection,
        decoder: Decoder,
        (registry, token): (&Registry, Token),
    ) -> Result<Evented, ConnectionError> {
        let stream = Stream::new(connection.into_socket().into_stream());
        let mut stream = stream.map_err(ConnectionError::Io)?;
        let registered = match &mut stream {
            Stream::Tcp(stream) => register(stream, registry, token),
            Stream::Unix(stream) => register(stream, registry, token),
        };
        registered.map_err(ConnectionError::Io)?;
        let (room, unsent) = (vec![0; READ_BYTES], Vec::new());
        Ok(Evented { stream, decoder, room, unsent, written: 0, reads: 0, is_dry: false })
    }

    /// From now on there is a whole share to be read again, and the socket may have more.
    pub fn begin_turn(&mut self) {
        (self.reads, self.is_dry) = (READS_PER_TURN, false);
    }

    /// Whether anything has come in this turn.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        READS_PER_TURN - self.reads > usize::from(self.is_dry)
    }

    /// Whether the socket may have more, of which no edge will tell.
    #[must_use]
    pub fn may_have_more(&self) -> bool {
        !self.is_dry
    }

    /// Bytes that the socket has not taken yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent.len() - self.written
    }

    /// Sends commands, behind what has not left yet.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn send(&mut self, pipeline: &Pipeline) -> Result<(), ConnectionError> {
        self.unsent.extend_from_slice(pipeline.as_bytes());
        self.flush()
    }

    /// Sends what has not left yet, as far as the socket takes it.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.written < self.unsent.len() {
            match self.stream.write(&self.unsent[self.written..]) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(error)),
            }
        }
        self.written = 0;
        self.unsent.clear();
        self.unsent.shrink_to(SPARE_MOST);
        Ok(())
    }

    /// The next reply; `None` if the socket has no more, or the turn's share is used up ([`Self::may_have_more`]).
    ///
    /// # Errors
    ///
    /// If the connection fails, or what comes is no reply.
    pub fn receive(&mut self) -> Result<Option<Reply>, ConnectionError> {
        loop {
            match self.decoder.next_reply() {
                Ok(Some(reply)) => return Ok(Some(reply)),
                Ok(None) => {}
                Err(malformed) => return Err(ConnectionError::Malformed(malformed)),
            }
            if self.is_dry || self.reads == 0 {
                return Ok(None);
            }
            self.reads -= 1;
            match self.stream.read(&mut self.room) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => self.decoder.feed(&self.room[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_dry = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(error)),
            }
        }
    }
}

fn register(stream: &mut impl Source, registry: &Registry, token: Token) -> io::Result<()> {
    registry.register(stream, token, Interest::READABLE.add(Interest::WRITABLE))
}

impl Stream {
    fn new(stream: socket::Stream) -> io::Result<Stream> {
        Ok(match stream {
            socket::Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Tcp(mio::net::TcpStream::from_std(stream))
            }
            socket::Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Stream::Unix(mio::net::UnixStream::from_std(stream))
            }
        })
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(room),
            Stream::Unix(stream) => stream.read(room),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}

//! A stream in memory: what a kernel does between two ends, with its edges.
//!
//! Edges are given as sparingly as epoll gives them: one for bytes that arrive, one for the FIN,
//! one for a reset, one for room after a write that found none. A planned failure leaves the
//! stream as a kernel would: what it held back comes with an edge. Knows no protocol.
//!
//! Next: [`crate::testing::held_tasks`]: tasks for workers, where no worker is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::faults::{Call, EINTR, ENOBUFS, ENOMEM, Fault, Faults};
use crate::token::LocalId;
use crate::transport::{Edge, Stream};

/// Both directions of one connection, and what the server's end has been told.
#[derive(Debug, Default)]
pub struct Wire {
    /// Towards the server.
    pub up: VecDeque<u8>,
    /// Of them, how many stand before the urgent mark, if there is one.
    urgent: Option<usize>,
    /// The client has ended its half.
    pub fin: bool,
    /// The client has reset the connection.
    pub reset: bool,
    /// Towards the client.
    pub down: VecDeque<u8>,
    /// How many bytes `down` may hold: the socket's send buffer.
    room: usize,
    /// A write found too little room, so room to come is an edge.
    wants_room: bool,
    /// Where the server has registered it.
    pub registered: Option<(usize, LocalId)>,
    /// The edge that has not been delivered yet.
    pub edge: Edge,
    /// The server has ended its half.
    pub server_fin: bool,
    /// The server has dropped its end.
    pub closed: bool,
    /// Reads and writes still to be interrupted by a signal.
    interruptions: usize,
    /// What the server has written so far.
    pub written: Written,
    /// What else is to fail.
    pub faults: Faults,
    /// It comes in where TLS is spoken, if the machine speaks it.
    pub is_encrypted: bool,
}

/// What has been written to sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Writes, whatever came of them.
    pub writes: usize,
    /// Bytes that were taken.
    pub bytes: u64,
}

impl std::iter::Sum for Written {
    fn sum<I: Iterator<Item = Written>>(all: I) -> Written {
        all.fold(Written::default(), |sum, one| Written {
            writes: sum.writes + one.writes,
            bytes: sum.bytes + one.bytes,
        })
    }
}

impl Wire {
    /// A wire whose server side can send `room` bytes ahead, and is interrupted so many times.
    #[must_use]
    pub fn new(room: usize, interruptions: usize) -> Wire {
        Wire { room, interruptions, ..Wire::default() }
    }

    /// The client sends.
    ///
    /// # Panics
    ///
    /// If it has ended its half before.
    pub fn send(&mut self, bytes: &[u8]) {
        assert!(!self.fin && !self.reset, "a client that has left sends nothing");
        if !bytes.is_empty() {
            self.up.extend(bytes);
            self.edge.readable = true;
            // epoll reports a socket's whole state with each edge.
            self.edge.writable |= self.down.len() < self.room;
        }
    }

    /// The client sends a byte of urgent data, unless an earlier one waits to be passed. A read does not
    /// return it, and stops before it (tcp(7), "Out-of-band data").
    ///
    /// # Panics
    ///
    /// If it has ended its half before.
    pub fn send_urgent(&mut self) {
        assert!(!self.fin && !self.reset, "a client that has left sends nothing");
        self.urgent.get_or_insert(self.up.len());
        self.edge.urgent = true;
        self.edge.writable |= self.down.len() < self.room;
    }

    /// The client ends its half.
    pub fn end(&mut self) {
        self.fin = true;
        self.edge.readable = true;
        self.edge.read_closed = true;
    }

    /// The same, if there is still somebody to hear it.
    pub fn end_if_open(&mut self) {
        if !self.fin && !self.closed && !self.reset {
            self.end();
        }
    }

    /// The client is gone.
    pub fn reset(&mut self) {
        self.reset = true;
        self.up.clear();
        self.urgent = None;
        self.down.clear();
        self.edge =
            Edge { readable: true, writable: true, read_closed: true, urgent: false, reset: true };
    }

    /// Whether there is something for the client to read.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.down.is_empty()
    }

    /// Whether the server has ended its half, or is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.server_fin || self.closed
    }

    /// The client reads up to `most` bytes.
    pub fn receive(&mut self, most: usize) -> Vec<u8> {
        let taken: Vec<u8> = self.down.drain(..most.min(self.down.len())).collect();
        if self.wants_room && self.down.len() < self.room {
            self.wants_room = false;
            self.edge.writable = true;
        }
        taken
    }

    /// What a poll reports now. Like epoll's, the report is of the state at that moment.
    pub fn take_edge(&mut self) -> Edge {
        let mut edge = std::mem::take(&mut self.edge);
        edge.writable &= self.reset || self.down.len() < self.room;
        edge.urgent = self.urgent.is_some();
        self.wants_room &= !edge.writable;
        edge
    }

    /// What registering reports at once.
    pub fn register(&mut self, shard: usize, id: LocalId) {
        self.registered = Some((shard, id));
        self.wants_room = false;
        self.edge = Edge {
            readable: !self.up.is_empty() || self.fin || self.reset,
            writable: self.down.len() < self.room || self.reset,
            read_closed: self.fin || self.reset,
            urgent: self.urgent.is_some(),
            reset: self.reset,
        };
    }
}

/// The server's end.
#[derive(Debug)]
pub struct Scripted(pub Rc<RefCell<Wire>>);

impl Scripted {
    fn interrupted(wire: &mut Wire) -> io::Result<()> {
        if wire.interruptions > 0 && wire.up.len() % 3 == 1 {
            wire.interruptions -= 1;
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    /// An errno, and what it says of the stream.
    fn failed(wire: &mut Wire, errno: i32) -> io::Error {
        // A signal, or a kernel short of memory, leaves the stream as it was.
        if ![EINTR, ENOBUFS, ENOMEM].contains(&errno) {
            wire.reset();
        }
        io::Error::from_raw_os_error(errno)
    }
}

impl io::Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let wire = &mut *wire;
        Scripted::interrupted(wire)?;
        let fault = wire.faults.strike(Call::Read);
        if wire.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut most = buffer.len();
        match fault {
            None | Some(Fault::Full) => {}
            Some(Fault::Errno(errno)) => return Err(Scripted::failed(wire, errno)),
            Some(Fault::Later) => {
                wire.edge.readable = true;
                wire.edge.read_closed |= wire.fin;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Some(Fault::OneByte) if wire.up.len() > 1 => {
                most = 1;
                wire.edge.readable = true;
                wire.edge.read_closed |= wire.fin;
            }
            Some(Fault::OneByte) => {}
            Some(Fault::Zero) => {
                wire.up.clear();
                wire.urgent = None;
                wire.fin = true;
            }
        }
        // At the mark itself the urgent byte is passed over.
        wire.urgent = wire.urgent.filter(|&before| before > 0);
        if wire.up.is_empty() {
            return if wire.fin { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = most.min(wire.up.len()).min(wire.urgent.unwrap_or(usize::MAX));
        wire.urgent = wire.urgent.map(|before| before - count);
        for (slot, byte) in buffer.iter_mut().zip(wire.up.drain(..count)) {
            *slot = byte;
        }
        Ok(count)
    }
}

impl io::Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let wire = &mut *wire;
        wire.written.writes += 1;
        Scripted::interrupted(wire)?;
        let fault = wire.faults.strike(Call::Write);
        assert!(!wire.server_fin, "a write after the half-close");
        assert!(!wire.wants_room || wire.reset, "a write to a socket known to be full");
        if wire.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut room = wire.room.saturating_sub(wire.down.len());
        match fault {
            None | Some(Fault::Full) => {}
            Some(Fault::Errno(errno)) => return Err(Scripted::failed(wire, errno)),
            // The room that there is comes a moment later.
            Some(Fault::Later) => room = 0,
            Some(Fault::OneByte) => room = room.min(1),
            Some(Fault::Zero) => return Ok(0),
        }
        if fault.is_some() && room < bytes.len() {
            wire.edge.writable = true;
        }
        let count = bytes.len().min(room);
        wire.wants_room = count < bytes.len();
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.written.bytes += count as u64;
        wire.down.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Scripted {
    fn peek(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let wire = &mut *wire;
        match wire.faults.strike(Call::Peek) {
            Some(Fault::Errno(errno)) => return Err(Scripted::failed(wire, errno)),
            Some(Fault::Later) => {
                wire.edge.readable = true;
                wire.edge.read_closed |= wire.fin;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            _ => {}
        }
        if wire.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if wire.up.is_empty() && !wire.fin {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = room.len().min(wire.up.len());
        room.iter_mut().zip(&wire.up).for_each(|(slot, byte)| *slot = *byte);
        Ok(count)
    }

    fn half_close(&mut self) -> io::Result<()> {
        let mut wire = self.0.borrow_mut();
        if let Some(Fault::Errno(errno)) = wire.faults.strike(Call::HalfClose) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if wire.reset {
            return Err(io::ErrorKind::NotConnected.into());
        }
        wire.server_fin = true;
        Ok(())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let mut wire = self.0.borrow_mut();
        wire.closed = true;
        if !wire.up.is_empty() {
            // Closing a socket with unread bytes in it sends a reset, and a reset may overtake
            // what was still on its way to the peer.
            wire.down.clear();
        }
        wire.registered = None;
        wire.edge = Edge::default();
    }
}

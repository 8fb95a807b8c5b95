//! The protocol without its sockets: bytes and `Instant`s in; bytes, events and a deadline out.
//!
//! Nothing here does I/O, reads a clock or knows that connections come in thousands, so all of it
//! is tested with literal bytes: whole, byte by byte, and cut at every position. In reading order:
//! [`target`], [`head`] and [`handshake`] turn a request into an open connection, [`frame`] reads and writes one
//! frame, [`deflate`] is compression (to be skipped at first), [`reassembly`] is what long messages
//! collect in, [`message`] turns frames into
//! messages, and [`endpoint`] is the state machine around all of it and the only face that the rest
//! of the crate drives.
//!
//! Next: [`crate::protocol::target`], the first thing that a peer says.

pub mod deflate;
pub mod endpoint;
pub mod frame;
pub mod handshake;
pub mod head;
pub mod message;
pub mod reassembly;
pub mod target;

//! The protocol without its sockets: bytes and `Instant`s in; bytes, events and a deadline out.
//!
//! Nothing here does I/O, reads a clock or knows that connections come in thousands, so all of it
//! is tested with literal bytes: whole, byte by byte, and cut at every position. Nothing here knows
//! the server around it either, neither its settings nor what it answers to a bad request.
//!
//! In reading order:
//!
//! - [`limits`] are the bounds that all parts are given;
//! - [`proxy_header`] and [`forwarded`] say for whom a proxy speaks;
//! - [`target`], [`head`] and [`handshake`] turn a request into an open connection;
//! - [`frame`] reads and writes one frame;
//! - [`utf8`] says whether bytes are text;
//! - [`deflate`] is compression (to be skipped at first);
//! - [`reassembly`] is what long messages collect in;
//! - [`message`] turns frames into messages;
//! - [`endpoint`] is the state machine around all of it, and what the rest of the crate calls.
//!
//! Invariant: no file of this folder uses anything of the crate outside of it.
//!
//! Next: [`crate::protocol::limits`]: how much, and how long.

pub mod deflate;
pub mod endpoint;
pub mod forwarded;
pub mod frame;
pub mod handshake;
pub mod head;
pub mod limits;
pub mod message;
pub mod proxy_header;
pub mod reassembly;
pub mod target;
pub mod utf8;

pub use limits::ProtocolLimits;

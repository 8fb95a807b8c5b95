//! permessage-deflate (RFC 7692): what is agreed on, and messages inflated and deflated.
//!
//! Both ends always agree to forget each message once it is over ("no context takeover"). Therefore
//! compression costs a silent connection nothing: no state outlives a message. A reactor has one
//! [`Inflater`] and one [`Deflater`] for all its connections, and a connection has [`DeflateParams`], a
//! byte. The price is a worse ratio for many small messages that are alike. DEFLATE itself (RFC 1951) is
//! flate2's; what a peer may make it cost is bounded here.
//!
//! In a build without the feature `deflate` no [`DeflateParams`] can be made, so the compiler removes
//! every branch that needs one. Of all other code only the configuration asks how we were built: it
//! refuses what cannot be had. Frames and messages are `frame.rs`'s and `message.rs`'s.
//!
//! In reading order: `offers` reads what a client offers and `params` what of it is taken;
//! `inflater` and `deflater` are the two directions; `absent` is all of it in a build without.
//!
//! Invariant: a message is deflated, and is inflated, only where parameters were agreed on.
//!
//! Next: `offers`, the grammar of the field.

#[cfg(not(feature = "deflate"))]
mod absent;
#[cfg(feature = "deflate")]
mod deflater;
#[cfg(feature = "deflate")]
mod inflater;
#[cfg(feature = "deflate")]
mod offers;
#[cfg(feature = "deflate")]
mod params;

#[cfg(not(feature = "deflate"))]
pub use absent::{DeflateParams, DeflateWriter, Deflater, Inflater, Progress, negotiate};
#[cfg(feature = "deflate")]
pub use {
    deflater::{DeflateWriter, Deflater},
    inflater::{Inflater, Progress},
    params::{DeflateParams, negotiate},
};

use super::limits::ProtocolLimits;

/// `Sec-WebSocket-Extensions` breaks the grammar (RFC 6455 9.1): then the handshake fails, whatever
/// else was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedOffer;

/// How far a message is inflated when the share of a visit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "nothing is inflated"))]
pub enum Inflation {
    /// The whole of it stands in the storage for it.
    Whole,
    /// The share is used up, or the lane is taken: it goes on at the next visit.
    InPart,
}

/// What became of a message that was to be made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "nothing is deflated"))]
pub enum Deflation {
    /// Its frame is appended, deflated.
    Appended,
    /// It would not be smaller, or there is no memory for it: nothing is appended.
    Declined,
}

/// The bit in a frame's first byte that says "deflated" on the first frame of a message, and that
/// no other frame may have (RFC 7692 6).
#[cfg(feature = "deflate")]
pub const RSV1: u8 = 0x40;

/// What a message of `max_size` bytes may take on the wire. DEFLATE makes larger what it cannot
/// compress: by one part in 3,000 as zlib is usually set, by one in 400 as Python's `websockets` sets
/// it, and at worst, with the codes that need no table, by one in eight.
#[must_use]
pub fn most_on_the_wire(max_size: usize) -> usize {
    max_size + max_size / 8 + 64
}

/// Bytes that a reactor that agrees to deflate may hold for it, beside the message that it is looking
/// at.
#[must_use]
pub fn most_held(limits: &ProtocolLimits) -> usize {
    // A long message half inflated, and its storage being copied as it grows; then the state of one
    // compressor and of two decompressors, and three of our messages: one joined from its parts, one
    // deflated, and a broadcast.
    let ours = limits.deflate_windows_most << 15;
    2 * (limits.message_bytes + 1) + 3 * ours + (1 << 19)
}

//! The bounds of a conversation: sizes and times, which the other parts are given.
//!
//! Plain values, so that the protocol depends on no server's settings. It decides none of them: the
//! server's configuration has their defaults and their reasons, checks them, and makes one of these
//! for each reactor. Read by everything else in this folder.
//!
//! Invariant, which the maker keeps: every time can be added to an `Instant`, and no size that a
//! message or a head needs is 0.
//!
//! Next: [`crate::protocol::proxy_header`], the first thing that a peer may say.

use std::time::Duration;

/// What bounds a connection's requests, messages and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolLimits {
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Bytes of a message, after reassembly.
    pub message_bytes: usize,
    /// Time for a request head, from its first byte or from the accept.
    pub handshake_timeout: Duration,
    /// Time that a connection which has had a response may wait for its next request.
    pub keep_alive_timeout: Duration,
    /// Time between pings; `None` sends none.
    pub ping_interval: Option<Duration>,
    /// Time for a pong; `None` waits for ever.
    pub ping_timeout: Option<Duration>,
    /// Time for an unfinished message, from its first frame's header.
    pub message_timeout: Duration,
    /// Time for the peer's answer to our Close, and for the peer to take our last bytes.
    pub close_timeout: Duration,
    /// Time that is read on after our half-close.
    pub linger: Duration,
    /// Bytes that are thrown away in that time.
    pub linger_bytes: usize,
    /// Bytes below which a message is not deflated.
    pub deflate_bytes_least: usize,
    /// Windows (32 KiB, if the client does not ask for less) beyond which a message is not deflated.
    pub deflate_windows_most: usize,
}

#[cfg(test)]
impl ProtocolLimits {
    /// Those of the unit tests in this folder.
    pub(in crate::protocol) const FOR_TESTS: ProtocolLimits = ProtocolLimits {
        head_bytes: 16 << 10,
        target_bytes: 4 << 10,
        message_bytes: 16 << 20,
        handshake_timeout: Duration::from_secs(10),
        keep_alive_timeout: Duration::from_secs(5),
        ping_interval: Some(Duration::from_secs(20)),
        ping_timeout: Some(Duration::from_secs(20)),
        message_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_secs(5),
        linger: Duration::from_secs(5),
        linger_bytes: 64 << 20,
        deflate_bytes_least: 1024,
        deflate_windows_most: 32,
    };
}

//! A client of Redis and Valkey: RESP2, the protocol that both speak to everyone.
//!
//! For threads of their own; a reactor never calls this. The protocol is sans-IO: [`reply`] is what a server says,
//! [`decoder`] reads it from bytes that are cut anywhere, [`script`] is a Lua script with its name, and [`pipeline`]
//! writes commands. Around it, [`address`] says where a server is and who we are there, [`socket`] is the operating
//! system's stream, [`error`] is what can go wrong, [`connection`] asks and waits for the answers, and [`subscriber`]
//! listens. [`evented`] does both without waiting, for a thread that has a poll. [`availability`] keeps what was told
//! of a server.
//!
//! Not here: RESP3 (its attributes and pushes are not needed), Redis Cluster, TLS, and what is stored in a
//! server. After any error a connection is of no use, and the caller makes another one ([`backoff`] says when).
//!
//! A server is trusted with what we store there, and with nothing else. What it sends is checked and bounded before it
//! takes memory, and its texts cannot break a line of the log.
//!
//! Invariant: the nth reply belongs to the nth command, or there is an error and the connection is of no use.
//!
//! Next: [`crate::resp::reply`]: what a server says.

pub mod address;
pub mod availability;
pub mod backoff;
pub mod connection;
pub mod decoder;
pub mod error;
pub mod evented;
pub mod pipeline;
pub mod reply;
pub mod script;
pub mod socket;
pub mod subscriber;

pub use address::{AddressError, ServerAddress};
pub use connection::{ConnectOptions, Connection};
#[cfg(feature = "internals")]
pub use decoder::{Decoder, Malformed};
pub use error::ConnectionError;
pub use pipeline::Pipeline;
pub use reply::Reply;
#[cfg(feature = "internals")]
pub use reply::{ErrorKind, ServerError};
pub use script::Script;
pub use subscriber::{Event, Subscriber};

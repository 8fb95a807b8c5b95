//! Sessions in a Redis that several nodes share.
//!
//! Redis is the arbiter: whoever claims a session there gets a generation for it, and commits of a smaller one are
//! refused. `tests/generations` shows why that is safe, whatever is lost, delayed, sent twice, or stops. Here is the
//! way to it. `scripts` are the three things that are asked of Redis, and `trouble` is why there is no answer. `calls`
//! writes a batch as calls of them, and reads what they answer; `unanswered` has the batches that wait for it. Both are
//! sans-IO. `link` is the connection on which they go. `takeovers` is a thread that hears which sessions other nodes
//! have claimed, and `requests` the one that asks.
//!
//! ```text
//!   <prefix>session:<id>   a hash: generation, node, token, attempt, from; count, version, state
//!   <prefix>probe:<node>   written when a node connects, and while it is idle: whether Redis takes writes
//!   <prefix>node:<node>    a channel: "<generation> <id>", published when another node has claimed the session
//! ```
//!
//! All keys have a time to live. What an operator has to know of Redis' own settings is in `docs/redis.md`.
//!
//! Invariant: a batch is answered once: when all that it asks is done and on as many replicas as is wanted, or when its
//! time is over.
//!
//! Next: `scripts`: what is asked of Redis.

pub mod calls;
pub mod link;
pub mod requests;
pub mod scripts;
pub mod takeovers;
pub mod trouble;
pub mod unanswered;

use std::time::Duration;

use crate::resp::ServerAddress;
use crate::session::SessionId;

/// Which Redis, and what is wanted of it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Where it is, and who we are there.
    pub address: ServerAddress,
    /// Before the name of each key and channel.
    pub prefix: String,
    /// The name of this node: no other that is running has it.
    pub node: String,
    /// How long a session lives that nobody commits, in milliseconds.
    pub ttl_ms: u64,
    /// For how long a batch may be without an answer.
    pub timeout: Duration,
    /// Replicas that must have what a batch has changed before it is answered.
    pub replicas: u32,
}

impl RedisOptions {
    /// The key of a session.
    #[must_use]
    pub fn key(&self, id: &SessionId) -> String {
        format!("{}session:{}", self.prefix, id.text().as_str())
    }

    /// What stands before a node's name in that of its channel.
    #[must_use]
    pub fn channel_prefix(&self) -> String {
        format!("{}node:", self.prefix)
    }

    /// The channel on which this node is told of takeovers.
    #[must_use]
    pub fn channel(&self) -> String {
        format!("{}{}", self.channel_prefix(), self.node)
    }

    /// The key by which is tried whether Redis takes writes.
    #[must_use]
    pub fn probe_key(&self) -> String {
        format!("{}probe:{}", self.prefix, self.node)
    }
}

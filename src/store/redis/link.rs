//! The connection to Redis on which batches go, and what is tried before the first one does.
//!
//! A server that answers PING may still take no writes: it is a replica, its memory is full, its disk is, too few
//! replicas follow. So a key is written, as often as it connects, and while it is idle. Decides nothing about when to
//! connect. Called by `requests`.
//!
//! Invariant: a link that is made knows the scripts, and has taken a write.
//!
//! Next: `takeovers`: what other nodes have claimed.

use std::time::{Duration, Instant};

use super::RedisOptions;
use super::scripts::Scripts;
use super::trouble::Trouble;
use super::unanswered::{of_wait, push_wait};
use crate::resp::{ConnectOptions, Connection, ConnectionError, Pipeline, Reply};

/// Memory that one reply may take. The largest is that to a claim, with a state: of another node, which may have other
/// limits.
pub const REPLY_BYTES_MOST: usize = 8 << 20;

/// For how long the key stays that is written to try whether Redis takes writes.
const PROBE_MS: &str = "60000";

/// A connection that serves.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    /// The number of the connection: what is sent again is sent on a later one.
    pub attempt: u64,
}

impl Link {
    /// Connects, makes the scripts known, and tries a write. Each of these may take `timeout`.
    ///
    /// # Errors
    ///
    /// What is wrong with the server.
    pub fn connect(
        options: &RedisOptions,
        scripts: &Scripts,
        attempt: u64,
        timeout: Duration,
    ) -> Result<Link, Trouble> {
        let connection =
            Connection::connect(&options.address, &connect_options(options, "store", timeout))?;
        let mut link = Link { connection, attempt };
        link.connection.load(&scripts.all())?;
        link.probe(options, timeout)?;
        Ok(link)
    }

    /// Tries a write, and whether replicas get it.
    ///
    /// # Errors
    ///
    /// What is wrong with the server.
    pub fn probe(&mut self, options: &RedisOptions, timeout: Duration) -> Result<(), Trouble> {
        let mut pipeline = Pipeline::new();
        pipeline.push(["SET", &options.probe_key(), "1", "PX", PROBE_MS]);
        if options.replicas > 0 {
            push_wait(&mut pipeline, options.replicas, timeout);
        }
        let deadline = Instant::now() + timeout;
        let mut replies = self.exchange(&pipeline, deadline, || {})?.into_iter();
        match replies.next() {
            Some(Reply::Error(error)) => {
                return Err(ConnectionError::Refused { command: "SET", error }.into());
            }
            Some(reply) if reply.bytes() == Some(b"OK") => {}
            _ => return Err(ConnectionError::Unexpected.into()),
        }
        if options.replicas > 0 { of_wait(replies.next(), options.replicas) } else { Ok(()) }
    }

    /// What Redis drops when its memory is full, if it tells us.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn eviction_policy(&mut self, timeout: Duration) -> Result<Option<String>, Trouble> {
        let mut pipeline = Pipeline::new();
        pipeline.push(["CONFIG", "GET", "maxmemory-policy"]);
        let replies = self.exchange(&pipeline, Instant::now() + timeout, || {})?;
        // One that does not let us ask says nothing.
        let policy = replies.first().and_then(Reply::array).and_then(|answer| answer.get(1));
        let policy = policy.and_then(Reply::bytes);
        Ok(policy.map(|policy| String::from_utf8_lossy(policy).escape_debug().to_string()))
    }

    /// Sends a pipeline and waits for all replies; `meanwhile` runs now and then.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn exchange(
        &mut self,
        pipeline: &Pipeline,
        deadline: Instant,
        meanwhile: impl FnMut(),
    ) -> Result<Vec<Reply>, ConnectionError> {
        self.connection.exchange_while(pipeline, deadline, meanwhile)
    }
}

/// How a connection of this node is made.
#[must_use]
pub fn connect_options(options: &RedisOptions, what: &str, timeout: Duration) -> ConnectOptions {
    ConnectOptions {
        connect_timeout: timeout,
        reply_timeout: timeout,
        client_name: format!("revolve-{what}-{}", options.node),
        reply_bytes_most: REPLY_BYTES_MOST,
    }
}

/// What is wrong with this policy, in one line: every session has a time to live, so each that drops anything drops
/// them.
#[must_use]
pub fn eviction_warning(policy: &str) -> Option<String> {
    if policy == "noeviction" {
        return None;
    }
    Some(format!(
        "Redis drops sessions when its memory is full: set its maxmemory-policy to noeviction \
         (it is {policy})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_but_one_drops_sessions() {
        assert_eq!(eviction_warning("noeviction"), None);
        for policy in ["allkeys-lru", "allkeys-lfu", "volatile-ttl", "volatile-random", "new"] {
            assert!(eviction_warning(policy).is_some_and(|line| line.contains(policy)));
        }
    }
}

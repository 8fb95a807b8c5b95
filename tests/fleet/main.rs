//! Several daemons on one Redis, behind a balancer, and all that may go wrong among them: real `redis-server`, `haproxy` and
//! `nginx`, with the configurations of `packaging/`.
//!
//! `ledger.rs` is what must hold, whatever happens: no count that a client was told is lost, and none is told twice. `client.rs`
//! is a client that hops between the nodes and keeps that ledger, `crowd.rs` many of them. `node.rs` is a daemon, `wire.rs` its
//! way to Redis, which can be cut, and `balancer.rs` what stands in front. `balanced.rs` and `failover.rs` are the tests.
//!
//! Not a part of a plain `cargo test`, because it needs programs: `tests/run --only fleet` installs them and runs this.
//! A test that does not find one fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so")]
#![allow(clippy::print_stdout, reason = "a test's report")]

mod balanced;
mod balancer;
mod client;
mod crowd;
mod failover;
mod ledger;
mod node;
#[allow(dead_code, reason = "some of it is for the tests of the client of Redis")]
#[path = "../redis/server.rs"]
mod server;
mod wire;

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// So long nothing takes: only a defect is waited for until then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Addresses that this process has given away.
static GIVEN: AtomicU8 = AtomicU8::new(1);

/// A loopback address of its own, for one program: whatever runs beside this, all ports are free there.
pub(crate) fn own_host() -> String {
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    // Those of `server.rs` begin at 127.64.
    format!("127.{}.{low}.{number}", 1 + high % 63)
}

/// Waits for something that nobody announces.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

//! The client of Redis, and the scripts of sessions on several machines, against a real `redis-server`.
//!
//! `client.rs` is what `src/resp` promises: commands, errors of each kind, what happens when a server does not answer, and
//! messages. `scripts.rs` runs the scripts of `src/store/redis` and compares each answer with that of the model,
//! of which every state is visited there; and it runs them from many connections at once. `node.rs` is the store's threads as
//! one server has them, `store.rs` what they do on a good day, `faults.rs` on all others, and `speed.rs` how much in what
//! time; `daemon.rs` is the program around them, and `two_daemons.rs` two of it. `server.rs` starts the servers.
//!
//! Not a part of a plain `cargo test`, because it needs a program: `tests/run --only redis` installs that and runs this. A
//! test that finds no server fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so")]
#![allow(clippy::print_stdout, reason = "a test's report")]

mod client;
mod daemon;
mod faults;
mod node;
mod scripts;
mod server;
mod speed;
mod store;
mod two_daemons;

#[allow(dead_code, reason = "some of it is for the search")]
#[path = "../generations/record.rs"]
mod record;

/// Generations and counts: as wide as they are.
type Number = u64;

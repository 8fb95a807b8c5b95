//! Hostile input: for each kind the answer, that the slot, the buffers and the session are given
//! back, and that well-behaved connections of the same reactor go on meanwhile.
//!
//! One module a subject. Most run a whole shard with scripted streams and virtual time (`harness.rs`),
//! at the default settings and with both applications of the daemon; there a bystander's wait is
//! counted in turns, so a loaded machine changes nothing. Where the kernel is part of the answer,
//! they run servers over sockets, or the daemon as a process (`daemon.rs`). What each frame and each
//! byte of it is answered with is `tests/conformance`'s; every order of events, `tests/simulation`'s.
//!
//! README.md shows the table, input by input, and a test here keeps it true.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so")]
#![allow(clippy::print_stdout, reason = "a test's report")]

/// Runs each case with both applications of the daemon.
macro_rules! with_both_applications {
    ($($case:ident),+ $(,)?) => {
        mod counter {
            $(#[test] fn $case() { super::$case::<revolve::Counter>(); })+
        }
        mod echo {
            $(#[test] fn $case() { super::$case::<revolve::Echo>(); })+
        }
    };
}

#[path = "../server/client.rs"]
#[allow(dead_code, reason = "not every helper of the other tests is needed here")]
mod client;

mod daemon;
mod harness;

#[cfg(feature = "deflate")]
mod bombs;
// These two look at the daemon through /proc.
#[cfg(target_os = "linux")]
mod bound;
mod crowd;
mod deaf;
#[cfg(target_os = "linux")]
mod descriptors;
mod floods;
mod frames;
mod guessing;
mod head;
mod origins;
mod table;
mod vanish;

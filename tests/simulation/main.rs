//! The simulation: several shards, hundreds of scripted clients, no socket, no clock, no thread.
//!
//! A seed decides everything: who connects where, how streams are cut, when the socket is full,
//! when a peer resets, falls silent or takes a session over, in which order shards turn, and how
//! full mailboxes are. A shard gets a turn only when a kernel would wake it, so an edge that is
//! forgotten stays forgotten and shows up as a client that waits for ever.
//!
//! After every turn the shard's invariants are checked; all along, the recorder (`recorder.rs`)
//! checks counts and fencing; at the end `world.rs` checks that nothing is stuck, lost or
//! reordered. What it does not do: real sockets (`tests/server.rs`).
//!
//! A failing seed prints itself. To replay it: `REVOLVE_SEED=n cargo test --test simulation`

#![allow(clippy::expect_used, reason = "a client that cannot read an answer has found a defect")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test's report")]
#![allow(unreachable_pub, reason = "`pub` says which items the other files here use")]

mod clients;
#[path = "pieces.rs"]
mod pieces;
mod torture;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of an ordinary run; `REVOLVE_SEEDS=100000` makes a long one.
const SEEDS: u64 = 1000;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is not a number")))
}

#[test]
fn every_seed_ends_well() {
    pieces::recorder::hide_planned_panics();
    if let Some(seed) = number_from("REVOLVE_SEED") {
        let totals = world::run(seed, true);
        println!("seed {seed}: {totals:?}");
        return;
    }
    let mut totals = world::Totals::default();
    let seeds = number_from("REVOLVE_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| world::run(seed, false))) {
            Ok(seen) => totals.add(&seen),
            Err(panic) => {
                eprintln!("\nseed {seed} failed: REVOLVE_SEED={seed} cargo test --test simulation");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seeds} seeds: {totals:?}");
    // A simulation in which nothing happens proves nothing.
    totals.assert_rich();
}

#[test]
fn a_seed_replays_to_the_letter() {
    assert_eq!(world::run(7, false), world::run(7, false));
}

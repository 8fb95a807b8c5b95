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
mod recorder;
mod streams;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The whole run's only source of chance (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `least` to `most`, both included.
    pub fn within(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    /// True in `percent` of the cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.within(0, choices.len() - 1)]
    }
}

/// Seeds of an ordinary run; `REVOLVE_SEEDS=100000` makes a long one.
const SEEDS: u64 = 1000;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is not a number")))
}

/// The panics that clients ask for are part of the plan; all others are printed.
fn hide_planned_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&recorder::PLANNED) {
            print(info);
        }
    }));
}

#[test]
fn every_seed_ends_well() {
    hide_planned_panics();
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

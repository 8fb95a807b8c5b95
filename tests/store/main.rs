//! The file store: on a disk in memory that loses power, tears, fails and lies; and on a real one.
//!
//! A seed decides what a server asks of its store, what fails, when the power goes and what is lost then. After each
//! start the sessions that were recovered are compared with a model (`model.rs`). `torture.rs` has one script, in which
//! each call fails in each way; `damage.rs` has flipped bits and torn ends, `full.rs` full disks, `format.rs` a file that
//! must remain readable, `real.rs` a directory. `speed.rs` measures, when asked.
//!
//! A failing seed prints itself. To replay it: `REVOLVE_SEED=n cargo test --test store every_seed`

#![allow(clippy::expect_used, reason = "what cannot be opened or made is a defect found")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test's report")]
#![allow(unreachable_pub, reason = "`pub` says which items the other files here use")]

#[path = "../simulation/chance.rs"]
mod chance;
mod damage;
mod format;
mod full;
mod model;
mod real;
mod speed;
mod stage;
mod torture;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use revolve::testing::simulated_disk::{Lie, SimulatedDisk};

/// Seeds of an ordinary run; `REVOLVE_SEEDS=100000` makes a long one.
const SEEDS: u64 = 1000;

/// Steps in the life of a server.
const STEPS: usize = 150;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is not a number")))
}

#[test]
fn every_seed_ends_well() {
    if let Some(seed) = number_from("REVOLVE_SEED") {
        println!("seed {seed}: {:?}", world::run(seed, STEPS, |disk| disk));
        return;
    }
    let mut totals = world::Totals::default();
    let seeds = number_from("REVOLVE_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| world::run(seed, STEPS, |disk| disk))) {
            Ok(seen) => totals.add(&seen),
            Err(panic) => {
                eprintln!(
                    "\nseed {seed} failed: REVOLVE_SEED={seed} cargo test --test store every_seed"
                );
                resume_unwind(panic);
            }
        }
    }
    println!("{seeds} seeds: {totals:?}");
    // A simulation in which nothing happens proves nothing.
    totals.assert_rich();
}

#[test]
fn a_seed_replays_to_the_letter() {
    assert_eq!(world::run(7, STEPS, |disk| disk), world::run(7, STEPS, |disk| disk));
}

/// How many of some seeds find something on a disk that lies.
fn found_with(lie: Lie) -> usize {
    let lying: fn(SimulatedDisk) -> SimulatedDisk = match lie {
        Lie::None => |disk| disk,
        Lie::SyncData => |disk| {
            disk.lie(Lie::SyncData);
            disk
        },
        Lie::SyncDirectory => |disk| {
            disk.lie(Lie::SyncDirectory);
            disk
        },
    };
    let failed = |seed| catch_unwind(AssertUnwindSafe(|| world::run(seed, STEPS, lying))).is_err();
    (0..20).filter(|seed| failed(*seed)).count()
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    assert_eq!(found_with(Lie::None), 0);
    assert!(found_with(Lie::SyncData) > 15);
    assert!(found_with(Lie::SyncDirectory) > 15);
}

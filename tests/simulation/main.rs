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
//! In `crashes.rs` the server ends at any moment, and the next one starts on what its disk has kept. In `shared.rs`
//! several servers share their sessions on one store (`arbiter.rs`).
//!
//! On the same machine `torture.rs` plays one conversation over and over, in which each system call
//! fails once.
//!
//! A failing seed prints itself. To replay it, with every turn told:
//! `REVOLVE_SEED=n cargo test --test simulation every_seed -- --nocapture`

#![allow(clippy::expect_used, reason = "a client that cannot read an answer has found a defect")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test's report")]
#![allow(unreachable_pub, reason = "`pub` says which items the other files here use")]

mod arbiter;
mod clients;
mod crashes;
mod drain_over;
mod held_up;
mod parked;
mod pause;
mod pending;
#[path = "pieces.rs"]
mod pieces;
mod shared;
mod spread;
mod stage;
mod stale_upgrades;
mod stored;
mod told;
mod torture;
mod trace_capture;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

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
        trace_capture::listen(|shard, line| println!("{shard}: {line}"));
        let totals = world::run(seed);
        println!("seed {seed}: {totals:?}");
        return;
    }
    let mut totals = world::Totals::default();
    let seeds = number_from("REVOLVE_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| world::run(seed))) {
            Ok(seen) => totals.add(&seen),
            Err(panic) => {
                eprintln!(
                    "\nseed {seed} failed: REVOLVE_SEED={seed} cargo test --test simulation every_seed"
                );
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
    pieces::recorder::hide_planned_panics();
    assert_eq!(world::run(7), world::run(7));
}

/// Every word that traces have here: whatever else stood in one, a peer would have put there.
const WORDS: &str = "\
    a accepted accepting again alarm all an and answer any answered answers application at away backlog \
    beginning begins binary blocked box broadcast busy by changed close closed come commit committed committing compressed count delivered \
    descriptor discarded done drain due end ended event expired for fragment frame from full go goes \
    goodbye half handed has held \
    in is its job jobs kB kept last later left let listener loaded look lost low mail mailbox many map mails more ms new \
    next no \
    nobody not nothing of off on one our over parked pauses peer ping pong post queued reactor \
    reactors read readable ready refused request resumed room s say session sessions shrinks \
    sent slept slots socket sockets spent spurious store stored stream takes tasks text that the throttled thrown timer to told too \
    turn until upgrade us wait waiting waits watches what who with woken workers writable write written B Bad Conflict Content \
    Error Found Internal Large Length Many Not Request Requests Required Server Service Timeout Too Unavailable Upgrade";

/// What a few seeds suffice to hear.
const PHRASES: [&str; 45] = [
    "changed sessions sent to the store: commit ",
    "held for commit ",
    "committed ",
    "committing: not read until its session is stored",
    "the application answers later",
    "its answer has come",
    "accepted from",
    "handed over to reactor",
    "handed to us by mail",
    "mail that waits",
    "new session",
    "resumed session",
    "takes its session over",
    "refused",
    "→ count",
    "last fragment",
    "in one write",
    "the socket is full",
    "spent",
    "throttled",
    "told that its backlog is low",
    "spurious event",
    "alarm",
    "a broadcast of",
    "watches the reactors",
    "a look at all reactors",
    "a map of slots",
    "closed by the peer",
    "closed by us",
    "the drain begins",
    "a timer of the reactor's",
    "on_timer",
    "a post: ",
    "off-loaded jobs: ",
    "tasks for workers: ",
    "an off-loaded job is done",
    "off-loaded jobs that nobody waits for any more: ",
    "parked: ",
    "nothing due",
    "discarded",
    "woken by the listener",
    "woken by mail",
    "woken by a timer",
    "goes on from the last turn",
    "waiting: ",
];

/// The trace of every turn, as `--log-level trace` tells it.
#[test]
fn every_turn_is_told_in_words_of_our_own() {
    pieces::recorder::hide_planned_panics();
    let lines = Rc::new(RefCell::new(Vec::new()));
    let hearing = lines.clone();
    trace_capture::listen(move |_, line| hearing.borrow_mut().push(line.to_owned()));
    let words: HashSet<&str> = WORDS.split_whitespace().collect();
    let mut unheard = BTreeSet::from(PHRASES);
    for seed in 0..60 {
        world::run(seed);
        for line in lines.borrow_mut().drain(..) {
            unheard.retain(|phrase| !line.contains(phrase));
            for word in line.split(|c: char| !c.is_ascii_alphabetic()) {
                assert!(word.is_empty() || words.contains(word), "{word:?} in {line:?}");
            }
        }
    }
    trace_capture::stop();
    assert!(unheard.is_empty(), "never told: {unheard:?}");
}

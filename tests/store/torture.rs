//! Nth-call torture: one life of a server, in which a call of its store fails; each call, in each way.
//!
//! The life is led once without a failure; that tells how many calls there are. Then it is led again for each of them,
//! and for pairs: a first failure, and a loss of power at any of the calls behind it, most of which are those of the
//! start after the first. A call that is interrupted or does a part is done in full, and nobody notices.
//!
//! To replay the one that fails: the test prints `REVOLVE_BLOWS=…`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use revolve::testing::faults::{EINTR, EIO, ENOSPC};
use revolve::testing::simulated_disk::{Blow, SimulatedDisk};

use super::world::{Totals, World};

const SEED: u64 = 13;

/// Steps of the life: enough for two compactions.
const STEPS: usize = 90;

/// Calls behind the first failure of a pair that are tried: those of a start, and some more.
const BEHIND: u64 = 45;

const WAYS: [Blow; 6] = [
    Blow::PowerLoss,
    Blow::Kill,
    Blow::Errno(EIO),
    Blow::Errno(ENOSPC),
    Blow::Errno(EINTR),
    Blow::Short,
];

/// Leads the life; how many calls it took, and what it met.
fn lead(blows: &[(u64, Blow)]) -> (u64, Totals) {
    let mut world: World<SimulatedDisk> = World::planned(SEED, blows, |disk| disk);
    world.start();
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
    world.start();
    let calls = world.disk.calls();
    let totals = world.server().totals.clone();
    (calls, totals)
}

fn lead_or_tell(blows: &[(u64, Blow)]) -> Totals {
    match catch_unwind(AssertUnwindSafe(|| lead(blows))) {
        Ok((_, totals)) => totals,
        Err(panic) => {
            let told: Vec<String> = blows
                .iter()
                .map(|(call, blow)| {
                    let way = WAYS.iter().position(|way| way == blow).unwrap_or_default();
                    format!("{call}:{way}")
                })
                .collect();
            let told = told.join(",");
            eprintln!("\nREVOLVE_BLOWS={told} cargo test --test store every_call");
            resume_unwind(panic);
        }
    }
}

fn planned() -> Option<Vec<(u64, Blow)>> {
    let text = std::env::var("REVOLVE_BLOWS").ok()?;
    let blow = |text: &str| {
        let (call, way) = text.split_once(':')?;
        Some((call.parse().ok()?, *WAYS.get(way.parse::<usize>().ok()?)?))
    };
    Some(text.split(',').map(|text| blow(text).expect("call:way,…")).collect())
}

#[test]
fn every_call_may_fail_in_every_way() {
    if let Some(blows) = planned() {
        println!("{:?}", lead_or_tell(&blows));
        return;
    }
    let (calls, undisturbed) = lead(&[]);
    assert!(undisturbed.compactions >= 2 && undisturbed.starts >= 4, "{undisturbed:?}");
    assert!(calls > 250, "{calls} calls");
    let mut met = Totals::default();
    for call in 0..calls {
        for blow in WAYS {
            let totals = lead_or_tell(&[(call, blow)]);
            if blow == Blow::Short {
                // What a later loss of power takes is another matter.
                let noticed = |totals: &Totals| Totals {
                    torn: 0,
                    lost_batches: 0,
                    recovered: 0,
                    ..totals.clone()
                };
                assert_eq!(noticed(&totals), noticed(&undisturbed), "call {call}");
            }
            met.add(&totals);
        }
    }
    println!("{calls} calls: {met:?}");
    assert!(met.failed_calls > 100 && met.crashed_starts > 100, "{met:?}");
    assert!(met.failed_compactions > 100 && met.crashed_compactions > 50, "{met:?}");
}

#[test]
fn power_may_go_at_any_call_of_the_start_after_a_failure() {
    let (calls, _) = lead(&[]);
    let mut met = Totals::default();
    for call in 0..calls {
        // Each first failure with a third of what can follow it; its neighbours have the others.
        for behind in (1 + call % 3..BEHIND).step_by(3) {
            for blow in [Blow::Kill, Blow::Errno(EIO)] {
                met.add(&lead_or_tell(&[(call, blow), (call + behind, Blow::PowerLoss)]));
            }
        }
    }
    println!("{calls} calls: {met:?}");
    assert!(met.crashed_starts > 1000, "{met:?}");
}

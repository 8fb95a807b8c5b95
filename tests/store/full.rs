//! A full disk: nothing that was acknowledged is lost, and a start makes room.

use std::collections::BTreeMap;

use revolve::store::{FileStore, OpenError, StoreError};
use revolve::testing::faults::{EIO, ENOSPC};
use revolve::testing::simulated_disk::{Blow, SimulatedDisk};

use super::chance::Chance;
use super::stage::{NOW_MS, commit, counts, open, save};

/// Runs what is offered; whether a compaction was.
fn run_jobs(store: &mut FileStore<SimulatedDisk>) -> bool {
    // Both may find no room; the log goes on as long as it can.
    if let Some(job) = store.preallocation() {
        let _ = job.run();
    }
    let job = store.compaction(NOW_MS);
    let is_due = job.is_some();
    if let Some(job) = job {
        let _ = job.run();
    }
    is_due
}

/// Sessions that change over and over: most of a log is garbage. Its jobs are never run, so the disk gets full of it.
#[test]
fn a_disk_full_of_garbage_is_made_room_on_by_a_start() {
    for capacity in [20_000, 30_001, 43_210, 64_000] {
        let disk = SimulatedDisk::new(1);
        disk.set_capacity(capacity);
        let mut chance = Chance(capacity);
        let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
        let (mut count, mut was_full) = (0, 0);
        let mut run = disk.clone();
        while was_full < 6 {
            let (mut store, recovery) =
                open(run.clone()).unwrap_or_else(|error| panic!("{capacity}, {was_full}: {error}"));
            for (name, recovered) in counts(&recovery) {
                assert!(recovered >= acknowledged[&name], "{name}: {recovered}");
            }
            assert!(recovery.sessions.len() >= acknowledged.len());
            if let Some(job) = store.preallocation() {
                let _ = job.run();
            }
            let before = count;
            loop {
                count += 1;
                let name = format!("s{}", chance.within(0, 4));
                acknowledged.entry(name.clone()).or_default();
                match commit(&mut store, &[save(&name, count, 190)]) {
                    Ok(_) => drop(acknowledged.insert(name, count)),
                    Err(StoreError::Failed(failure)) => {
                        assert!(failure.is_full(), "{failure}");
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
                assert!(count - before < 5_000, "it is never full");
            }
            assert!(count > before + 1, "a start has made no room at all");
            was_full += 1;
            disk.kill();
            drop(store);
            run = disk.restarted();
        }
    }
}

/// The start that makes room may fail itself, at any call.
#[test]
fn a_start_on_a_full_disk_may_fail_at_any_call() {
    let disk = SimulatedDisk::new(4);
    disk.set_capacity(30_001);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    let mut last = 0;
    for count in 1.. {
        match commit(&mut store, &[save("s", count, 190)]) {
            Ok(_) => last = count,
            Err(_) => break,
        }
    }
    let files = disk.files();
    let full = |seed| {
        let disk = SimulatedDisk::new(seed);
        files.iter().for_each(|(name, content)| disk.put(name, content));
        disk.set_capacity(30_001);
        disk
    };
    let whole = full(0);
    assert!(open(whole.clone()).is_ok());
    let (mut opened, mut failed) = (0, 0);
    for call in 0..whole.calls() {
        for blow in [Blow::Errno(ENOSPC), Blow::Errno(EIO), Blow::PowerLoss, Blow::Kill] {
            let disk = full(call);
            disk.strike(call, blow);
            let mut last = last;
            match open(disk.clone()) {
                Ok((mut store, recovery)) => {
                    opened += 1;
                    assert!(counts(&recovery)[0].1 >= last, "call {call}, {blow:?}");
                    while last < 10_000
                        && let Ok(_) = commit(&mut store, &[save("s", last + 1, 190)])
                    {
                        last += 1;
                    }
                }
                Err(error) => {
                    failed += 1;
                    assert!(
                        matches!(error, OpenError::Failed(_)),
                        "call {call}, {blow:?}: {error}"
                    );
                }
            }
            disk.crash();
            let again = open(disk.restarted());
            let (_, recovery) = again.unwrap_or_else(|e| panic!("call {call}, {blow:?}: {e}"));
            assert!(
                counts(&recovery)[0].1 >= last,
                "call {call}, {blow:?}: {last} was acknowledged"
            );
        }
    }
    assert!(opened > 5 && failed > 100, "{opened} opened, {failed} failed");
}

/// With its jobs run, a log of garbage never fills a disk that has room for what is live.
#[test]
fn with_its_jobs_run_garbage_fills_no_disk() {
    let disk = SimulatedDisk::new(2);
    disk.set_capacity(8 * 4096 + 3 * 2000);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    let mut compactions = 0;
    for count in 0..3_000 {
        let name = format!("s{}", count % 5);
        commit(&mut store, &[save(&name, count, 190)]).unwrap_or_else(|e| panic!("{count}: {e}"));
        compactions += usize::from(run_jobs(&mut store));
    }
    assert!(compactions > 50, "{compactions} compactions");
    assert_eq!(store.figures().compactions, compactions as u64);
}

/// When all is live, there is no room to be made; with more of it, everything is there.
#[test]
fn a_disk_full_of_sessions_needs_more_room_and_loses_nothing() {
    let disk = SimulatedDisk::new(3);
    disk.set_capacity(60_000);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    let mut acknowledged = 0;
    let mut run = disk.clone();
    for _ in 0..4 {
        loop {
            run_jobs(&mut store);
            match commit(&mut store, &[save(&format!("s{acknowledged}"), 1, 150)]) {
                Ok(_) => acknowledged += 1,
                Err(StoreError::Failed(failure)) if failure.is_full() => break,
                Err(other) => panic!("{other}"),
            }
            assert!(acknowledged < 1_000, "it is never full");
        }
        disk.kill();
        drop(store);
        run = run.restarted();
        let (again, recovery) = match open(run.clone()) {
            Ok(opened) => opened,
            Err(OpenError::Failed(failure)) => {
                assert!(failure.is_full() && failure.to_string().contains("free some space"));
                disk.set_capacity(120_000);
                run = run.restarted();
                open(run.clone()).unwrap_or_else(|error| panic!("with more room: {error}"))
            }
            Err(other) => panic!("{other}"),
        };
        assert!(
            recovery.sessions.len() >= acknowledged,
            "{} of {acknowledged}",
            recovery.sessions.len()
        );
        acknowledged = recovery.sessions.len();
        store = again;
    }
}

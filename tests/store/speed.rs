//! Measures, and asserts nothing: `cargo test --release --test store speed -- --ignored --nocapture`, of which the
//! directory is that for temporary files (`TMPDIR`).

use std::fs;
use std::time::{Duration, Instant};

use revolve::session::SessionId;
use revolve::store::disk::{Disk, DiskFile};
use revolve::store::{Batch, Change, FileStore, Opening, Options, Presence, Record, Store};

use super::chance::Chance;
use super::real::{Scratch, spawn_jobs};
use super::stage::NOW_MS;

fn change(chance: &mut Chance, number: u64) -> Change {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    let id = SessionId::parse(&id_text(&bytes)).expect("a name");
    let count = chance.next() % 100_000;
    let presence = Presence::Left { at_ms: NOW_MS + number % 1000 };
    Change::Save(Record { id, generation: 1_800_000_000_000_000, count, state: None, presence })
}

/// 22 characters of base64url, as fresh ids have them.
fn id_text(bytes: &[u8; 16]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: u128 = u128::from_be_bytes(*bytes);
    let letter = |place: u32| {
        let shift = 128 - 6 * (i64::from(place) + 1);
        let six = if shift >= 0 { bits >> shift } else { bits << -shift };
        char::from(LETTERS[(six & 63) as usize])
    };
    (0..22).map(letter).collect()
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    println!("{what}: median {:?}, 99 % {:?}, {} times", at(50), at(99), times.len());
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Processor time of this process, in hundredths of a second: what a busy machine does not falsify.
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[test]
#[ignore = "measures"]
fn speed_of_a_batch() {
    let scratch = Scratch::new();
    let opening = Opening { options: Options::default(), now_ms: NOW_MS, repair: false };
    let begin = Instant::now();
    let (mut store, _) = FileStore::open(scratch.directory(), opening).expect("it is empty");
    println!("first start: {:?}", begin.elapsed());
    let mut chance = Chance(1);
    let (mut writes, mut syncs, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let mut threads = Vec::new();
    for _ in 0..5_000 {
        let mut batch = Batch::new(Options::default().batch);
        for _ in 0..64 {
            let number = chance.next() % 200_000;
            batch.push(&change(&mut chance, number)).expect("it is small");
        }
        let begin = Instant::now();
        store.append(&mut batch, NOW_MS).expect("nothing fails");
        writes.push(begin.elapsed());
        let begin_of_sync = Instant::now();
        store.sync().expect("nothing fails");
        syncs.push(begin_of_sync.elapsed());
        both.push(begin.elapsed());
        spawn_jobs(&mut store, &mut threads);
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no job has failed"));
    told("append of 64 sessions", writes);
    told("sync", syncs);
    told("both", both);
    println!("{:?}", store.figures());

    let file = scratch.directory().create("plain").expect("there is room");
    file.write_at(&vec![0; 16 << 20], 0).expect("there is room");
    file.sync_data().expect("nothing fails");
    let mut times = Vec::new();
    for number in 0..5_000 {
        file.write_at(&[1; 3000], number * 3000).expect("there is room");
        let begin = Instant::now();
        file.sync_data().expect("nothing fails");
        times.push(begin.elapsed());
    }
    told("fdatasync alone, of 3,000 bytes in a file that is filled", times);
}

#[test]
#[ignore = "measures"]
fn speed_of_a_recovery() {
    let scratch = Scratch::new();
    let opening = Opening { options: Options::default(), now_ms: NOW_MS, repair: false };
    let (mut store, _) = FileStore::open(scratch.directory(), opening).expect("it is empty");
    let mut chance = Chance(2);
    let mut threads = Vec::new();
    for first in (0..1_000_000).step_by(500) {
        let mut batch = Batch::new(Options::default().batch);
        for number in first..first + 500 {
            batch.push(&change(&mut chance, number)).expect("it is small");
        }
        store.append(&mut batch, NOW_MS).expect("nothing fails");
        if let Some(job) = store.preallocation() {
            threads.push(std::thread::spawn(move || job.run().expect("there is room")));
        }
    }
    store.close(NOW_MS).expect("nothing fails");
    threads.into_iter().for_each(|thread| thread.join().expect("no job has failed"));
    let measure = |what: &str| {
        let before = peak_kib();
        let processor_before = processor_time();
        let begin = Instant::now();
        let (store, recovery) = FileStore::open(scratch.directory(), opening).expect("a store");
        let took = begin.elapsed();
        println!(
            "{what}: {} sessions in {took:?}, processor {}0 ms; {} bytes; peak {} KiB before, {} KiB after",
            recovery.sessions.len(),
            processor_time() - processor_before,
            recovery.report.bytes,
            before,
            peak_kib()
        );
        store
    };
    let mut store = measure("from segments");
    if let Some(job) = store.compaction(NOW_MS) {
        let (begin, processor_before) = (Instant::now(), processor_time());
        let compacted = job.run().expect("nothing is damaged");
        let processor = processor_time() - processor_before;
        println!(
            "compaction: {compacted:?} in {:?}, processor {processor}0 ms; peak {} KiB",
            begin.elapsed(),
            peak_kib()
        );
    }
    drop(store);
    drop(measure("from a base"));
}

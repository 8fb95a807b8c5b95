//! Damage is refused and can be repaired; a torn end is neither.
//!
//! The log of these tests has a base, closed segments and an active one. Each of its bytes is flipped, each of its files
//! is taken away, and its end is cut at each byte.

use std::collections::BTreeMap;

use revolve::store::inspect::{check, dump};
use revolve::store::segment::{DATA_BEGIN, segment_name};
use revolve::store::{FileStore, OpenError, Recovery};
use revolve::testing::simulated_disk::SimulatedDisk;

use super::stage::{append, commit, counts, open, open_with, save};
use super::world::OPTIONS;

type Files = BTreeMap<String, Vec<u8>>;

/// Sessions of the log, as of each batch.
struct Log {
    files: Files,
    /// By the number of the last batch.
    counts: BTreeMap<u64, BTreeMap<String, u64>>,
    last: u64,
}

/// A log with a base, closed segments and an active one, closed in order.
fn log() -> Log {
    let disk = SimulatedDisk::new(1);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    let (mut sessions, mut by_batch) = (BTreeMap::new(), BTreeMap::new());
    let mut last = 1;
    by_batch.insert(last, sessions.clone());
    for number in 0..54 {
        let name = format!("s{}", number % 13);
        last = commit(&mut store, &[save(&name, number, 150)]).expect("nothing fails");
        sessions.insert(name, number);
        by_batch.insert(last, sessions.clone());
        if number == 28 {
            compact(&mut store);
        }
    }
    by_batch.insert(last + 1, sessions);
    store.close(super::stage::NOW_MS).expect("nothing fails");
    let files = disk.files();
    let count = |begin: &str| files.keys().filter(|name| name.starts_with(begin)).count();
    assert!(count("base-") == 1 && count("segment-") == 3, "{:?}", files.keys());
    Log { files, counts: by_batch, last: last + 1 }
}

fn compact(store: &mut FileStore<SimulatedDisk>) {
    let job = store.compaction(super::stage::NOW_MS).expect("one is due");
    job.run().expect("nothing fails");
}

fn disk_with(files: &Files) -> SimulatedDisk {
    let disk = SimulatedDisk::new(2);
    files.iter().for_each(|(name, content)| disk.put(name, content));
    disk
}

fn as_map(recovery: &Recovery) -> BTreeMap<String, u64> {
    counts(recovery).into_iter().collect()
}

/// Repairs, and checks that what is left is the log as it was at some batch; or, if the base was damaged, a part of it.
fn repair(log: &Log, disk: &SimulatedDisk, what: &str) {
    let (store, recovery) = open_with(disk.restarted(), OPTIONS, true).expect("it is repaired");
    let report = &recovery.report;
    let damage = report.repaired.as_ref().unwrap_or_else(|| panic!("{what}: nothing was repaired"));
    let expected = &log.counts[&report.last_sequence];
    let left = as_map(&recovery);
    if damage.path.contains("base-") {
        let is_part = left.iter().all(|(name, count)| expected[name] == *count);
        assert!(is_part, "{what}: {left:?} of {expected:?}");
    } else {
        assert_eq!(&left, expected, "{what}");
        assert!(damage.batches <= log.last - report.last_sequence, "{what}: {damage:?}");
    }
    drop(store);
    let (store, again) = open(disk.restarted()).expect("it stays repaired");
    assert_eq!(as_map(&again), left, "{what}");
    drop(store);
}

#[test]
fn a_bit_flipped_in_what_was_synced_is_refused_by_name_and_can_be_repaired() {
    let log = log();
    let (mut refused, mut harmless) = (0, 0);
    for (name, content) in log.files.iter().filter(|(name, _)| name.contains(".log")) {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (0..used + 20).filter(|at| *at < content.len()) {
            let mut files = log.files.clone();
            files.get_mut(name).expect("it is there")[at] ^= 1 << (at % 8);
            let disk = disk_with(&files);
            let what = format!("byte {at} of {name}");
            match open(disk.clone()) {
                Err(OpenError::Damage(damage)) => {
                    refused += 1;
                    assert!(damage.path.ends_with(name), "{what}: {damage}");
                    assert!(damage.offset <= at as u64, "{what}: {damage}");
                    if at % 7 == 0 {
                        repair(&log, &disk, &what);
                    }
                }
                Err(OpenError::Version { path, .. }) => {
                    assert!(path.ends_with(name) && (8..12).contains(&at), "{what}");
                }
                Err(other) => panic!("{what}: {other}"),
                // Where nothing is read, or in the very last batch: it has no changes, and nothing behind it proves it.
                Ok((_, recovery)) => {
                    harmless += 1;
                    let is_in_data = at as u64 >= DATA_BEGIN && at < used;
                    let is_end = recovery.report.last_sequence + 1 == log.last;
                    assert!(!is_in_data || is_end, "{what} was not noticed");
                    assert_eq!(as_map(&recovery), log.counts[&log.last], "{what}");
                }
            }
        }
    }
    assert!(refused > 5_000 && harmless > 1_000, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_file_that_is_missing_is_refused() {
    let log = log();
    let names = log.files.keys().filter(|name| name.contains(".log"));
    let last = names.clone().next_back().expect("a segment").clone();
    for name in names.filter(|name| **name != last) {
        let mut files = log.files.clone();
        files.remove(name);
        let disk = disk_with(&files);
        match open(disk.clone()) {
            Err(OpenError::Damage(damage)) => assert!(damage.path.contains("segment-"), "{damage}"),
            other => panic!("without {name}: {:?}", other.map(|_| ())),
        }
        if !name.contains("base-") {
            repair(&log, &disk, &format!("without {name}"));
        }
    }
}

/// A log of which the last three batches are not synced; where each of these begins, and the end.
fn unsynced() -> (SimulatedDisk, Vec<usize>) {
    let disk = SimulatedDisk::new(3);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    commit(&mut store, &[save("a", 1, 0)]).expect("nothing fails");
    let written = |disk: &SimulatedDisk| {
        let content = &disk.files()[&segment_name(1)];
        content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    };
    let mut ends = vec![written(&disk)];
    for number in 2..5 {
        append(&mut store, &[save("a", number, 100)]).expect("nothing fails");
        ends.push(written(&disk));
    }
    disk.kill();
    (disk, ends)
}

#[test]
fn an_end_that_is_torn_at_any_byte_is_cut_and_told() {
    let (disk, ends) = unsynced();
    let files = disk.files();
    for hole in [1, 100, usize::MAX] {
        for at in ends[0]..ends[3] {
            let mut files = files.clone();
            let content = files.get_mut(&segment_name(1)).expect("it is there");
            let end = at.saturating_add(hole).min(content.len());
            // A hole in the middle, with what comes behind it, or nothing up to the end.
            content[at..end].fill(0);
            let disk = disk_with(&files);
            let found = check(&disk).expect("it can be read");
            assert_eq!(found.damage, None, "byte {at}");
            let (store, recovery) = open(disk.clone()).unwrap_or_else(|e| panic!("byte {at}: {e}"));
            let count = ends.iter().rposition(|end| *end <= at).map_or(0, |place| place as u64 + 1);
            // A hole where a zero was is none.
            let count = if files[&segment_name(1)] == disk.onlooker().files()[&segment_name(1)] {
                4
            } else {
                count
            };
            let recovered = counts(&recovery)[0].1;
            assert!(
                recovered == count || recovered == 4 && hole == 1,
                "byte {at}: {recovered}, not {count}"
            );
            let told = recovery.report.cut.map(|cut| (cut.offset, cut.bytes));
            assert_eq!(told.map_or(0, |(_, bytes)| bytes), found.unfinished_bytes, "byte {at}");
            drop(store);
        }
    }
}

/// A batch behind the torn one must not be found again behind what takes the torn one's place.
#[test]
fn what_is_cut_does_not_come_back() {
    let disk = SimulatedDisk::new(4);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    commit(&mut store, &[save("a", 1, 0)]).expect("nothing fails");
    let content = disk.files()[&segment_name(1)].clone();
    let begin = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // As long as the batch that says that the store was opened: that is what takes its place.
    let torn = revolve::store::Change::Forget {
        id: revolve::session::SessionId::parse("abcd").expect("a name"),
        generation: 0,
    };
    append(&mut store, &[torn]).expect("nothing fails");
    append(&mut store, &[save("a", 99, 0)]).expect("nothing fails");
    disk.kill();
    drop(store);
    let mut files = disk.files();
    files.get_mut(&segment_name(1)).expect("it is there")[begin + 41] ^= 1;
    let disk = disk_with(&files);
    let (store, recovery) = open(disk.clone()).expect("it is a torn end");
    assert_eq!(counts(&recovery), [("a".to_owned(), 1)]);
    let start = disk.files()[&segment_name(1)][begin..].to_vec();
    let length = start.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let stale = files[&segment_name(1)][begin + length..].iter().position(|byte| *byte != 0);
    assert_eq!(stale, Some(0), "the test no longer has two batches of one length");
    disk.kill();
    drop(store);
    let (_, recovery) = open(disk.restarted()).expect("nothing is wrong");
    assert_eq!(counts(&recovery), [("a".to_owned(), 1)]);
    assert_eq!(recovery.report.last_sequence, 3);
}

#[test]
fn a_look_tells_of_damage_and_shows_what_can_be_read() {
    let log = log();
    let disk = disk_with(&log.files);
    let found = check(&disk).expect("it can be read");
    assert_eq!((found.sessions, &found.damage, found.has_base), (13, &None, true));
    assert!(found.to_string().contains("13 sessions") && found.to_string().contains("no damage"));
    let mut out = Vec::new();
    assert_eq!(dump(&disk, &mut out).expect("it can be read"), None);
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    assert_eq!(text.lines().count(), 13);
    assert!(text.lines().all(|line| line.starts_with("{\"id\":\"s") && line.ends_with('}')));
    assert_eq!(disk.files(), log.files, "a look changes nothing");

    let mut files = log.files.clone();
    let second = files.keys().filter(|name| name.starts_with("segment-")).nth(1).cloned();
    files.get_mut(&second.expect("there are three")).expect("it is there")
        [DATA_BEGIN as usize + 50] ^= 1;
    let disk = disk_with(&files);
    let found = check(&disk).expect("it can be read");
    let damage = found.damage.expect("it is damaged");
    assert!(damage.batches > 0 && damage.sessions > 0, "{damage}");
    assert_eq!(dump(&disk, &mut Vec::new()).expect("it can be read"), Some(damage));
}

#[test]
fn another_format_version_is_refused_and_so_is_a_directory_with_other_files() {
    let log = log();
    let name = segment_name(3);
    let mut files = log.files.clone();
    let name = files.keys().find(|found| found.starts_with("segment-")).cloned().unwrap_or(name);
    files.get_mut(&name).expect("it is there")[8] = 2;
    match open(disk_with(&files)) {
        Err(OpenError::Version { path, found: 2, known: 1 }) => assert!(path.ends_with(&name)),
        other => panic!("{:?}", other.map(|_| ())),
    }
    let other = SimulatedDisk::new(5);
    other.put("letter.txt", b"dear");
    match open(other.clone()) {
        Err(OpenError::NotAStore { found, .. }) => assert_eq!(found, "letter.txt"),
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert!(matches!(check(&other), Err(OpenError::NotAStore { .. })));
    assert_eq!(other.files().len(), 1, "something was made in somebody else's directory");
    // The root of a file system is a good place.
    let root = SimulatedDisk::new(6);
    root.put("lost+found", b"");
    assert!(open(root).is_ok());
}

#[test]
fn there_is_one_owner() {
    let disk = SimulatedDisk::new(7);
    let first = open(disk.clone()).expect("it is new");
    match open(disk.clone()) {
        Err(OpenError::SecondOwner { path }) => assert!(path.ends_with("revolve.lock")),
        other => panic!("{:?}", other.map(|_| ())),
    }
    drop(first);
    assert!(open(disk).is_ok());
}

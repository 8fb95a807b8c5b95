//! What this version writes, the next ones have to read: a log of format version 1 is kept under `v1`.
//!
//! It has a base, a segment, every kind of entry, and a field and a kind that this version does not know. It is made
//! by `REVOLVE_WRITE_V1=1 cargo test --test store v1`, and never again once a release has written this format.

use std::fs;
use std::path::{Path, PathBuf};

use revolve::session::SessionId;
use revolve::store::batch::{BatchHeader, HEADER_BYTES, seal};
use revolve::store::inspect::{check, dump};
use revolve::store::segment::{DATA_BEGIN, FileHeader, segment_name};
use revolve::store::{Change, Directory, Options, Presence, Record, State};
use revolve::testing::simulated_disk::SimulatedDisk;

use super::stage::{NOW_MS, commit, open, open_with, save};
use super::world::OPTIONS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/v1")
}

const EXPECTED: &str = r#"{"id":"s14","generation":1,"count":14,"state_version":1,"state":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","left_at":1800000000000}
{"id":"AAECAwQFBgcICQoLDA0ODw","generation":1800000000000000,"count":18446744073709551615,"state_version":4294967295,"state_base64":"/wD+","left_at":null}
{"id":"a-b.c_d~e","generation":0,"count":0,"left_at":1800000000001}
{"id":"of-a-later-version","generation":3,"count":5,"left_at":null}
"#;

/// A batch of a later version: an entry of an unknown kind, and a record with an unknown field.
fn later_version() -> (u32, Vec<u8>) {
    let unknown = [&[5, 99][..], b"what"].concat();
    let id = b"of-a-later-version";
    let mut record = vec![1, 1, id.len() as u8];
    record.extend_from_slice(id);
    record.extend_from_slice(&[2, 1, 3, 3, 1, 5, 77, 3, b'n', b'e', b'w']);
    let mut entries = unknown;
    entries.push(record.len() as u8);
    entries.extend_from_slice(&record);
    (2, entries)
}

fn write() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let (mut store, _) = open(disk.clone()).expect("it is new");
    let forget =
        |name: &str| Change::Forget { id: SessionId::parse(name).expect("a name"), generation: 1 };
    for number in 0..15 {
        commit(&mut store, &[save(&format!("s{number}"), number, 100)]).expect("nothing fails");
    }
    for number in 0..14 {
        commit(&mut store, &[forget(&format!("s{number}"))]).expect("nothing fails");
    }
    while store.figures().segments < 2 {
        commit(&mut store, &[save("s14", 14, 100)]).expect("nothing fails");
    }
    store.compaction(NOW_MS).expect("one is due").run().expect("nothing fails");
    let state = Some(State { version: u32::MAX, bytes: [0xff, 0, 0xfe].into() });
    let records = [
        ("AAECAwQFBgcICQoLDA0ODw", 1_800_000_000_000_000, u64::MAX, state, Presence::Attached),
        ("a-b.c_d~e", 0, 0, None, Presence::Left { at_ms: NOW_MS + 1 }),
    ];
    for (name, generation, count, state, presence) in records {
        let id = SessionId::parse(name).expect("a name");
        let record = Record { id, generation, count, state, presence };
        commit(&mut store, &[Change::Save(record)]).expect("nothing fails");
    }
    let last = commit(&mut store, &[save("gone", 1, 0), forget("gone")]).expect("nothing fails");
    disk.kill();
    drop(store);
    append_later_version(&disk, last + 1);
    disk
}

/// Behind the last batch, whose number is one less.
fn append_later_version(disk: &SimulatedDisk, sequence: u64) {
    let files = disk.files();
    let is_active = |name: &&String| {
        name.starts_with("segment-")
            && files[*name][DATA_BEGIN as usize..].iter().any(|byte| *byte != 0)
    };
    let name = files.keys().rfind(is_active).expect("a segment");
    let mut content = files[name].clone();
    let disk_file = {
        use revolve::store::disk::Disk;
        disk.onlooker().open(name).expect("it is there")
    };
    let FileHeader { nonce, .. } = FileHeader::read(&disk_file).expect("it is ours");
    let at = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (changes, entries) = later_version();
    let mut batch = vec![0; HEADER_BYTES];
    batch.extend_from_slice(&entries);
    let length = entries.len() as u32;
    let synced_through = sequence - 1;
    seal(
        &mut batch,
        nonce,
        &BatchHeader { length, changes, sequence, synced_through, at_ms: NOW_MS },
    );
    content[at..at + batch.len()].copy_from_slice(&batch);
    disk.put(name, &content);
}

#[test]
fn a_log_of_v1_is_read() {
    if std::env::var_os("REVOLVE_WRITE_V1").is_some() {
        fs::create_dir_all(folder()).expect("a folder can be made");
        for (name, content) in write().files() {
            if name.ends_with(".log") {
                fs::write(folder().join(name), content).expect("a file can be written");
            }
        }
    }
    let kept = Directory::new(&folder());
    let mut out = Vec::new();
    assert_eq!(dump(&kept, &mut out).expect("it can be read"), None);
    assert_eq!(String::from_utf8(out).expect("JSON is UTF-8"), EXPECTED);
    let found = check(&kept).expect("it can be read");
    assert!(found.has_base && found.segments == 1 && found.sessions == 4, "{found}");

    // And it can be opened, with other options than those with which it was made.
    let disk = SimulatedDisk::new(2);
    for entry in fs::read_dir(folder()).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        disk.put(&name, &fs::read(path).expect("it can be read"));
    }
    let options = Options { segment_bytes: 8192, ..OPTIONS };
    let (mut store, recovery) = open_with(disk.clone(), options, false).expect("it is a store");
    assert_eq!(recovery.sessions.len(), 4);
    // It goes on in the segment that is there, and then in longer ones; compacted, it is the same.
    while store.figures().segments < 2 {
        commit(&mut store, &[save("s14", 15, 100)]).expect("nothing fails");
    }
    store.compaction(NOW_MS).expect("one is due").run().expect("nothing fails");
    let mut out = Vec::new();
    dump(&disk, &mut out).expect("it can be read");
    assert_eq!(String::from_utf8(out).expect("JSON is UTF-8").lines().count(), 4);
    assert!(!disk.files().contains_key(&segment_name(1)));
}

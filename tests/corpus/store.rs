//! The file store: any bytes as entries, any bytes as a segment or a base, and any life of a log on a disk that loses power.
//!
//! Input: a byte that says which, then the entries; or the content of a file behind a header that is right; or what
//! happens, two bytes a step.

use std::collections::BTreeMap;

use revolve::session::SessionId;
use revolve::store::batch::Nonce;
use revolve::store::inspect::{check, dump};
use revolve::store::record::{self, Entry};
use revolve::store::segment::{BaseHeader, DATA_BEGIN, FileHeader, base_name, segment_name};
use revolve::store::{
    Batch, BatchLimits, Change, FileStore, OpenError, Opening, Options, Presence, Record, Store,
};
use revolve::testing::faults::{EIO, ENOSPC};
use revolve::testing::simulated_disk::{Blow, SimulatedDisk};

const OPTIONS: Options = Options {
    segment_bytes: 2048,
    batch: BatchLimits { batch_bytes: 512, state_bytes: 100 },
    ttl_ms: u64::MAX,
    compaction_bytes: 1000,
};

pub(crate) fn run(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    match which % 4 {
        0 => check_entries(rest),
        1 => check_file(rest, false),
        2 => check_file(rest, true),
        _ => check_life(rest),
    }
}

/// What is decoded and encoded again is decoded to the same.
fn check_entries(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(entry)) = record::decode(&mut rest) {
        let mut again = Vec::new();
        match entry {
            Entry::Save(saved) => {
                let order = saved.order;
                let record = saved.into_record();
                record::encode_save(&record, order, &mut again);
                let Ok(Some(Entry::Save(saved))) = record::decode(&mut &again[..]) else {
                    panic!("a record that was encoded is none");
                };
                assert_eq!((saved.order, saved.into_record()), (order, record));
            }
            Entry::Forget { id, generation } => {
                record::encode(&Change::Forget { id: id.clone(), generation }, &mut again);
                let read = record::decode(&mut &again[..]);
                assert_eq!(read, Ok(Some(Entry::Forget { id, generation })));
            }
            Entry::Start { at_ms } => {
                record::encode_start(at_ms, &mut again);
                assert_eq!(record::decode(&mut &again[..]), Ok(Some(Entry::Start { at_ms })));
            }
            Entry::Unknown => {}
        }
    }
}

fn opening(repair: bool) -> Opening {
    Opening { options: OPTIONS, now_ms: 1000, repair }
}

/// A file with any content is read, refused, or repaired; what was opened once is opened again. The checksums are made
/// right where a batch has the mark, or hardly any input would get through.
fn check_file(content: &[u8], is_base: bool) {
    let nonce = Nonce(0x0123_4567_89ab_cdef);
    let mut data = content.to_vec();
    seal_what_is_marked(&mut data, nonce);
    let base = is_base.then(|| BaseHeader {
        last_sequence: 5,
        last_at_ms: 900,
        changes: 50,
        end: DATA_BEGIN + data.len() as u64,
        records: 3,
    });
    let mut file = FileHeader { nonce, number: 1, base }.encoded().to_vec();
    file.resize(DATA_BEGIN as usize, 0);
    file.extend_from_slice(&data);
    if !is_base {
        file.resize(file.len().max(2048), 0);
    }
    let disk = SimulatedDisk::new(1);
    disk.put(&if is_base { base_name(1) } else { segment_name(1) }, &file);
    let found = check(&disk).expect("nothing fails");
    let mut out = Vec::new();
    assert_eq!(dump(&disk, &mut out).expect("nothing fails"), found.damage);
    let opened = match FileStore::open(disk.clone(), opening(false)) {
        Ok((_, recovery)) => recovery,
        Err(OpenError::Damage(damage)) => {
            assert_eq!(Some(damage), found.damage);
            let repaired = FileStore::open(disk.restarted(), opening(true));
            repaired.unwrap_or_else(|error| panic!("{error}")).1
        }
        Err(other) => panic!("{other}"),
    };
    let again = FileStore::open(disk.restarted(), opening(false));
    let (_, again) = again.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(names(&again.sessions), names(&opened.sessions));
}

fn names(sessions: &[revolve::store::Recovered]) -> Vec<(SessionId, u64)> {
    let mut names: Vec<_> =
        sessions.iter().map(|s| (s.record.id.clone(), s.record.count)).collect();
    names.sort_by_key(|(id, _)| id.text().as_str().to_owned());
    names
}

fn seal_what_is_marked(data: &mut [u8], nonce: Nonce) {
    use revolve::store::batch::{BatchHeader, seal};
    let mut at = 0;
    while at + 40 <= data.len() {
        // A byte that says so stands for the mark, which no fuzzer would find.
        if data[at] == b'#' {
            data[at..at + 4].copy_from_slice(&nonce.mark().to_le_bytes());
        }
        let header = BatchHeader::read(&data[at..], nonce);
        match header.filter(|header| at + header.batch_bytes() <= data.len()) {
            Some(header) => {
                let end = at + header.batch_bytes();
                seal(&mut data[at..end], nonce, &header);
                at = end;
            }
            None => at += 1,
        }
    }
}

/// Counts go up; what was synced is there after whatever happens.
fn check_life(steps: &[u8]) {
    let disk = SimulatedDisk::new(steps.len() as u64);
    let mut run = disk.clone();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut sent = acknowledged.clone();
    let mut store = None;
    let mut count = 0;
    for step in steps.chunks_exact(2) {
        let (what, which) = (step[0], step[1]);
        let Some(open) = &mut store else {
            run = disk.restarted();
            if what.is_multiple_of(4) {
                disk.strike(disk.calls() + u64::from(which % 40), Blow::PowerLoss);
            }
            if let Ok((opened, recovery)) = FileStore::open(run.clone(), opening(false)) {
                let counts: BTreeMap<_, _> = names(&recovery.sessions)
                    .into_iter()
                    .map(|(id, count)| (id.text().as_str().to_owned(), count))
                    .collect();
                for (name, least) in &acknowledged {
                    let recovered = counts.get(name).copied().unwrap_or(0);
                    assert!((*least..=sent[name]).contains(&recovered), "{name}: {recovered}");
                }
                // What was lost is not sent any more.
                sent = counts.clone();
                acknowledged = counts;
                store = Some(opened);
            }
            continue;
        };
        let done: Result<(), ()> = match what % 8 {
            0..=3 => {
                count += 1;
                let name = format!("s{}", which % 9);
                let id = SessionId::parse(&name).expect("a name");
                let presence = Presence::Left { at_ms: u64::from(which) };
                let record = Record { id, generation: 1, count, state: None, presence };
                let mut batch = Batch::new(OPTIONS.batch);
                batch.push(&Change::Save(record)).expect("it is small");
                sent.insert(name.clone(), count);
                acknowledged.entry(name).or_default();
                open.append(&mut batch, u64::from(which)).map(drop).map_err(drop)
            }
            4 => {
                let synced = open.sync().map(drop).map_err(drop);
                if synced.is_ok() {
                    let written = sent.clone();
                    acknowledged.iter_mut().for_each(|(name, count)| {
                        *count = written.get(name).copied().unwrap_or(*count);
                    });
                }
                synced
            }
            5 => open
                .preallocation()
                .map(revolve::store::Preallocation::run)
                .transpose()
                .map(drop)
                .map_err(drop),
            6 => {
                if let Some(job) = open.compaction(1000) {
                    // It may fail, and the log goes on.
                    let _ = job.run();
                }
                Ok(())
            }
            _ => {
                let blow = match which % 4 {
                    0 => Blow::PowerLoss,
                    1 => Blow::Kill,
                    2 => Blow::Errno(EIO),
                    _ => Blow::Errno(ENOSPC),
                };
                disk.strike(disk.calls() + u64::from(which / 4), blow);
                Ok(())
            }
        };
        if done.is_err() || disk.is_down() {
            if which.is_multiple_of(2) {
                disk.crash()
            } else {
                disk.kill()
            }
            disk.calm();
            store = None;
        }
    }
    drop(run);
}

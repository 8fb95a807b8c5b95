//! A store whose batches a test writes one by one.

use revolve::session::SessionId;
use revolve::store::disk::Disk;
use revolve::store::{
    Batch, Change, FileStore, OpenError, Opening, Options, Presence, Record, Recovery, State,
    Store, StoreError,
};

use super::world::OPTIONS;

pub const NOW_MS: u64 = 1_800_000_000_000;

pub fn save(name: &str, count: u64, state_bytes: usize) -> Change {
    let state =
        (state_bytes > 0).then(|| State { version: 1, bytes: vec![b'x'; state_bytes].into() });
    let id = SessionId::parse(name).expect("a name");
    Change::Save(Record {
        id,
        generation: 1,
        count,
        state,
        presence: Presence::Left { at_ms: NOW_MS },
    })
}

pub fn open_with<D: Disk>(
    disk: D,
    options: Options,
    repair: bool,
) -> Result<(FileStore<D>, Recovery), OpenError> {
    FileStore::open(disk, Opening { options, now_ms: NOW_MS, repair })
}

pub fn open<D: Disk>(disk: D) -> Result<(FileStore<D>, Recovery), OpenError> {
    open_with(disk, OPTIONS, false)
}

/// Appends one batch, without a sync.
pub fn append<D: Disk>(store: &mut FileStore<D>, changes: &[Change]) -> Result<u64, StoreError> {
    let mut batch = Batch::new(OPTIONS.batch);
    changes.iter().for_each(|change| batch.push(change).expect("it is small"));
    store.append(&mut batch, NOW_MS)
}

/// Appends one batch, and syncs.
pub fn commit<D: Disk>(store: &mut FileStore<D>, changes: &[Change]) -> Result<u64, StoreError> {
    append(store, changes)?;
    store.sync()
}

/// What was recovered: names and counts, by name.
pub fn counts(recovery: &Recovery) -> Vec<(String, u64)> {
    let sessions = recovery.sessions.iter();
    let mut counts: Vec<(String, u64)> = sessions
        .map(|session| (session.record.id.text().as_str().to_owned(), session.record.count))
        .collect();
    counts.sort();
    counts
}

//! The same on a directory of the file system, with the jobs on threads.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use revolve::store::inspect::{check, dump};
use revolve::store::{Directory, FileStore, OpenError};

use super::stage::{NOW_MS, commit, counts, open, save};

/// A directory that is gone when this is.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("revolve-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory can be made");
        Scratch(path)
    }

    pub fn directory(&self) -> Directory {
        Directory::new(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Gives what is offered to threads.
pub fn spawn_jobs(store: &mut FileStore<Directory>, threads: &mut Vec<thread::JoinHandle<()>>) {
    if let Some(job) = store.preallocation() {
        threads.push(thread::spawn(move || job.run().expect("there is room")));
    }
    if let Some(job) = store.compaction(NOW_MS) {
        threads.push(thread::spawn(move || {
            job.run().expect("nothing is damaged");
        }));
    }
}

#[test]
fn a_log_lives_in_a_directory_with_jobs_on_threads_and_looks_from_outside() {
    let scratch = Scratch::new();
    let (mut store, recovery) = open(scratch.directory()).expect("it is empty");
    assert!(recovery.sessions.is_empty() && recovery.report.last_at_ms.is_none());
    let looker = {
        let directory = scratch.directory();
        thread::spawn(move || {
            for _ in 0..50 {
                let found = check(&directory).expect("it can be read");
                assert_eq!(found.damage, None);
                assert_eq!(dump(&directory, &mut Vec::new()).expect("it can be read"), None);
            }
        })
    };
    let mut threads = Vec::new();
    for count in 0..2_000 {
        let name = format!("s{}", count % 20);
        commit(&mut store, &[save(&name, count, 150)]).expect("nothing fails");
        spawn_jobs(&mut store, &mut threads);
    }
    looker.join().expect("no look has found damage");
    threads.into_iter().for_each(|thread| thread.join().expect("no job has failed"));
    let figures = store.figures();
    assert!(figures.compactions > 3 && figures.batches == 2_001, "{figures:?}");

    match open(scratch.directory()) {
        Err(OpenError::SecondOwner { path }) => assert!(path.ends_with("revolve.lock")),
        other => panic!("{:?}", other.map(|_| ())),
    }
    store.close(NOW_MS + 5).expect("nothing fails");
    let (store, recovery) = open(scratch.directory()).expect("it is a store");
    let expected: Vec<u64> = (1980..2000).collect();
    let mut found: Vec<u64> = counts(&recovery).into_iter().map(|(_, count)| count).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(recovery.report.last_at_ms, Some(NOW_MS + 5));
    drop(store);

    let modes = fs::read_dir(&scratch.0).expect("it is there").map(|entry| {
        let metadata = entry.expect("it can be read").metadata().expect("it is there");
        metadata.permissions().mode() & 0o777
    });
    assert!(modes.into_iter().all(|mode| mode == 0o600), "others can read session ids");
}

#[test]
fn what_is_wrong_with_a_directory_is_said() {
    let scratch = Scratch::new();
    let text = |path: &Path| match open(Directory::new(path)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{path:?} was opened"),
    };
    let missing = text(&scratch.0.join("missing"));
    assert!(
        missing.contains("missing: there is no such directory; create it: mkdir -m 700"),
        "{missing}"
    );
    let file = scratch.0.join("file");
    fs::write(&file, b"").expect("a file can be written");
    assert!(text(&file).contains("file: this is no directory"));
    assert!(text(&scratch.0).contains("has other files, such as file, and no store"));
    let kernel = text(Path::new("/proc/self"));
    assert!(kernel.contains("/proc/self"), "{kernel}");
    symlink(&file, scratch.0.join("revolve.lock")).expect("a link can be made");
    assert!(open(scratch.directory()).is_ok(), "with a lock file it is a store");
}

//! What a store asks of a file system: one directory, and the files in it.
//!
//! A trait, so that the simulation can put a disk under the store that loses, tears and fails. Here too are the few
//! loops over its calls that everybody needs. Decides nothing about names or contents. Called by every part that
//! touches a file.
//!
//! Invariant: only a write is continued, after EINTR or when it was short. A sync is never repeated: after one that
//! failed, Linux takes the pages for clean, so a second one would report success for what is lost.
//!
//! Next: `directory`: the real one.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::error::Failure;

/// A directory with files. All threads of a store use it at the same time.
pub trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Holds the lock, until it is dropped or the process ends.
    type Lock: Send + Sync;

    /// The names in it, in any order.
    ///
    /// # Errors
    ///
    /// Those of the system, as for all others here.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file, for reading and writing. One of that name is an error.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// A file that is there, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// The same, for reading alone.
    fn open_to_read(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name; one that has it already is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when the names are as durable as the files' contents are after `sync_data`.
    fn sync_directory(&self) -> io::Result<()>;
    /// Makes the lock file if it is not there, and takes the lock; `None` if another process has it.
    fn lock(&self, name: &str) -> io::Result<Option<Self::Lock>>;
    /// A random number, for nonces and hash keys.
    fn random(&self) -> io::Result<u64>;
    /// How a file is called in messages; for the empty name, the directory.
    fn path(&self, name: &str) -> String;
}

/// A file. All calls take `&self`, as the system's do.
pub trait DiskFile: Send + Sync {
    /// Reads into `buffer`; 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// Those of the system, as for all others here.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Returns when what was written is on the disk.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or makes it longer by a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Its length.
    fn size(&self) -> io::Result<u64>;
}

/// What a failure of `name` is called.
pub(super) fn failed<D: Disk>(
    disk: &D,
    name: &str,
    doing: &'static str,
) -> impl Fn(io::Error) -> Failure {
    let path = disk.path(name);
    move |error| Failure { path: path.clone(), doing, error: Arc::new(error) }
}

/// Reads until `buffer` is full or the file ends; how much was read.
pub(super) fn read_full(file: &impl DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes`.
pub(super) fn write_full(file: &impl DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes zeros from one offset to another. As content and not as a hole: a hole has no room on the disk, and writing
/// into one changes the file system's own tables, which a sync would then have to write too.
pub(super) fn write_zeros(file: &impl DiskFile, from: u64, to: u64) -> io::Result<()> {
    const CHUNK: u64 = 256 << 10;
    let zeros = vec![0; CHUNK.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let length = CHUNK.min(to - at) as usize;
        write_full(file, &zeros[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Removes a file, which may be gone already.
pub(super) fn remove_if_there<D: Disk>(disk: &D, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

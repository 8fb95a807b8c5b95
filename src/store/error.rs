//! What can go wrong with a store: one line each, which names the file and says what to do.
//!
//! Knows no file system. Made wherever a file is used; shown to the operator by the caller.
//!
//! Invariant: a text is one line, and holds no session's id.
//!
//! Next: `disk`: what a store asks of a file system.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// A call of the file system that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The file or directory.
    pub path: String,
    /// What was being done with it, as in "while …".
    pub doing: &'static str,
    /// What the system said.
    pub error: Arc<io::Error>,
}

impl Failure {
    /// Whether there was no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { path, doing, error } = self;
        write!(f, "{path}: while {doing}: {error}")?;
        let advice = match error.kind() {
            _ if self.is_full() => {
                "free some space on this file system, or give it more; then start again: nothing that was \
                 acknowledged is lost, and a start compacts the store"
            }
            ErrorKind::PermissionDenied => "give the server's user the right to read and write it",
            ErrorKind::ReadOnlyFilesystem => {
                "mount the file system for writing, or name another directory"
            }
            _ => return Ok(()),
        };
        write!(f, "; {advice}")
    }
}

/// A place in the log that cannot be read, although it had been written and synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: String,
    /// The byte at which what is unreadable begins.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// Batches behind it that can be read, which a repair gives up.
    pub batches: u64,
    /// Sessions in them, which a repair sets back to what is in front of the place.
    pub sessions: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { path, offset, what, batches, sessions } = self;
        write!(
            f,
            "{path}: damaged at byte {offset}: {what}; restore the directory from a copy, or repair it (--store-repair): \
             that gives up what is unreadable, and {batches} readable batches behind it with the newest \
             changes of {sessions} sessions"
        )
    }
}

/// Why a store cannot be opened.
#[derive(Debug, Clone)]
pub enum OpenError {
    /// The options contradict each other: how.
    BadOptions(&'static str),
    /// There is no such directory.
    NoDirectory {
        /// Its path.
        path: String,
    },
    /// Something else has that name.
    NotADirectory {
        /// Its path.
        path: String,
    },
    /// It has files, and no store.
    NotAStore {
        /// Its path.
        path: String,
        /// One of the files.
        found: String,
    },
    /// Another process has it open.
    SecondOwner {
        /// The lock's path.
        path: String,
    },
    /// A file of another format version.
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It cannot be read to its end.
    Damage(Damage),
    /// The file system failed.
    Failed(Failure),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::BadOptions(how) => write!(f, "the store's options: {how}"),
            OpenError::NoDirectory { path } => {
                write!(f, "{path}: there is no such directory; create it: mkdir -m 700 {path}")
            }
            OpenError::NotADirectory { path } => {
                write!(f, "{path}: this is no directory; name one for the store")
            }
            OpenError::NotAStore { path, found } => write!(
                f,
                "{path}: this directory has other files, such as {found}, and no store; name an empty one"
            ),
            OpenError::SecondOwner { path } => write!(
                f,
                "{path}: another process has this store open; stop it first, or name another directory"
            ),
            OpenError::Version { path, found, known } => write!(
                f,
                "{path}: format version {found}, and this program knows {known} only; start the program \
                 that wrote it, or name another directory"
            ),
            OpenError::Damage(damage) => damage.fmt(f),
            OpenError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl OpenError {
    /// Whether there was no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, OpenError::Failed(failure) if failure.is_full())
    }
}

impl std::error::Error for OpenError {}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        OpenError::Failed(failure)
    }
}

/// Why something was not stored.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// The file system failed. The store takes nothing any more.
    Failed(Failure),
    /// It failed before; nothing was tried.
    Poisoned(Failure),
    /// The batch is larger than a batch of this store may be; nothing was written, and others may follow.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most that there may be.
        most: usize,
    },
    /// A compaction met damage. It has changed nothing.
    Damage(Damage),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Failed(failure) => failure.fmt(f),
            StoreError::Poisoned(failure) => {
                write!(f, "nothing is stored since a failure; {failure}")
            }
            StoreError::TooLarge { bytes, most } => {
                write!(f, "a batch of {bytes} bytes, and the store takes {most} at most")
            }
            StoreError::Damage(damage) => damage.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        StoreError::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_line_that_says_what_to_do() {
        let failed = |kind: ErrorKind| {
            let error = Arc::new(io::Error::from(kind));
            Failure { path: "/d/f".to_owned(), doing: "writing", error }
        };
        let path = || "/d/f".to_owned();
        let damage = Damage { path: path(), offset: 512, what: "torn", batches: 2, sessions: 3 };
        for (text, advice) in [
            (OpenError::NoDirectory { path: path() }.to_string(), "mkdir -m 700 /d/f"),
            (OpenError::NotADirectory { path: path() }.to_string(), "name one"),
            (OpenError::NotAStore { path: path(), found: "x".into() }.to_string(), "an empty one"),
            (OpenError::SecondOwner { path: path() }.to_string(), "stop it first"),
            (OpenError::Version { path: path(), found: 2, known: 1 }.to_string(), "version 2"),
            (OpenError::Damage(damage.clone()).to_string(), "repair it"),
            (StoreError::Damage(damage).to_string(), "3 sessions"),
            (OpenError::from(failed(ErrorKind::StorageFull)).to_string(), "free some space"),
            (StoreError::from(failed(ErrorKind::PermissionDenied)).to_string(), "the right to"),
            (StoreError::Poisoned(failed(ErrorKind::ReadOnlyFilesystem)).to_string(), "mount"),
        ] {
            assert!(text.contains("/d/f") && text.contains(advice), "{text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}

//! The file store: sessions that outlive the process and the machine, in an append-only log of its own.
//!
//! The session table is in memory anyway, so what is needed is a log: a change is one record at its end, and a start
//! reads it from the beginning. Changes come in *batches*; a batch is one write into storage that is there already, and
//! one sync.
//!
//! ```text
//!   base-0…4.log      what was live in segments 1 to 4, made by a compaction
//!   segment-0…5.log   closed: full, and synced
//!   segment-0…6.log   active: batches, and zeros behind them
//!   segment-0…7.log   made in advance
//!   reserve           room for the next base, so that a full disk can be compacted
//!   revolve.lock      locked by the owner
//! ```
//!
//! # What it promises
//!
//! When [`Store::sync`] has returned, everything that was appended survives a power loss, if the disk honours flushes
//! and writes a sector of 512 bytes whole or not at all. What was appended and not synced survives the end of the
//! process, and of a power loss its beginning: the log is read up to the first batch that is not there in full. If a
//! call fails, the store takes nothing any more, and the process has to end: after a sync that failed, a second one
//! would report success for what is lost.
//!
//! A power loss may keep a later sector and lose an earlier one of what was not synced. So that this is not taken for
//! damage, nor damage for this, each batch says up to which one the log was synced when it was written. Batch N is
//! unreadable and a later one says that N had been synced: then this is *damage*, and the store is not opened without
//! an order to repair it. Otherwise it is the torn end of the log, and is cut.
//!
//! # Size
//!
//! On the disk a log takes at most three times what is live (base, closed segments and reserve), and eight segments
//! (the active one, the next, one that is closed, and their share of the reserve), as long as its jobs are run when
//! they are offered.
//!
//! # Time
//!
//! A store reads no clock: it is given the wall-clock time in milliseconds of 1970. That clock may jump. One set
//! forward by an hour ends a detached session an hour early, if the store is opened or compacted then. One set back by
//! an hour lets it live an hour longer: no time that has passed is less than zero, and the log's last time counts where
//! the clock says less. Nobody who is attached is affected. A session that was attached when the process ended counts
//! as left at the next start; at the start after that its time to live goes on, and does not begin again.
//!
//! # Parts
//!
//! [`record`] is a session as it is stored, and the codec; [`claim`] what a store of several machines is asked;
//! [`error`] what can go wrong; [`disk`] what is asked of a file system, and [`directory`] the real one (the simulated
//! one is in `src/testing`). [`batch`] is the unit of writing, [`segment`] the files, [`reader`] the batches of one.
//! [`live`] is what entries add up to; [`replay`] reads a log, and [`recovery`] makes it one that can be appended to.
//! `background` makes segments in advance, `compaction` merges them; [`file_store`] is the log itself. [`metrics`] are
//! what [`thread`] counts, which runs a store; [`inspect`] looks at a log from outside. [`redis`] is the other kind of
//! store, which several machines share: no log of ours, and none of the above but records, claims and the channel from
//! the reactors.
//!
//! Next: [`crate::store::record`]: what is stored.

mod background;
pub mod batch;
pub mod claim;
mod compaction;
pub mod directory;
pub mod disk;
pub mod error;
pub mod file_store;
pub mod inspect;
pub mod live;
pub mod metrics;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod redis;
pub mod replay;
pub mod segment;
pub mod thread;

#[cfg(feature = "internals")]
pub use background::Preallocation;
pub use batch::{Batch, BatchLimits, CommitBatch, NotTaken};
pub use claim::{Claim, Claimed, Outcome, Takeover};
#[cfg(feature = "internals")]
pub use compaction::{Compacted, Compaction};
pub use directory::Directory;
#[cfg(feature = "internals")]
pub use error::{Damage, Failure};
pub use error::{OpenError, StoreError};
pub use file_store::{FileStore, Opening};
pub use record::{Change, Presence, Record, State};
#[cfg(feature = "internals")]
pub use recovery::{Cut, Report};
pub use recovery::{Recovered, Recovery};

/// A job that a store has for a thread which may wait: nobody waits for it.
pub type Upkeep = Box<dyn FnOnce() + Send>;

/// What keeps batches. Used by one thread, which may wait for it. [`FileStore`] is the first; nothing here says that it
/// writes files.
pub trait Store: Send {
    /// Writes a batch behind those before it, at this time in milliseconds of 1970; its number. It is not safe yet.
    ///
    /// # Errors
    ///
    /// If it could not be written: then nothing is written any more. One that is too large is refused without more.
    fn append(&mut self, batch: &mut Batch, now_ms: u64) -> Result<u64, StoreError>;

    /// Makes all batches safe that were appended; the number of the last.
    ///
    /// # Errors
    ///
    /// If that failed: then nobody knows which of them are safe, and nothing is written any more.
    fn sync(&mut self) -> Result<u64, StoreError>;

    /// Jobs that are due now, each for a thread of its own kind ([`UPKEEP_LABELS`]): of one kind there is one at a
    /// time.
    fn upkeep(&mut self, now_ms: u64) -> [Option<Upkeep>; UPKEEP_LABELS.len()];

    /// What was done since the store was opened.
    fn figures(&mut self) -> Figures;

    /// Makes all of it safe, and gives it up. Its jobs have ended.
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    fn close(self: Box<Self>, now_ms: u64) -> Result<(), StoreError>;
}

/// What the kinds of jobs are called.
pub const UPKEEP_LABELS: [&str; 2] = ["room", "compaction"];

/// The sizes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Length of a segment. Large enough that making one is rare; small enough that a small store stays small.
    pub segment_bytes: u64,
    /// What a batch may hold.
    pub batch: BatchLimits,
    /// How long a session lives that nobody is attached to, in milliseconds; `u64::MAX` for ever.
    pub ttl_ms: u64,
    /// Memory that a compaction takes for sessions. With less it reads the log more often.
    pub compaction_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 16 << 20,
            batch: BatchLimits { batch_bytes: 1 << 20, state_bytes: 64 << 10 },
            ttl_ms: u64::MAX,
            compaction_bytes: 64 << 20,
        }
    }
}

impl Options {
    /// Whether they fit together.
    ///
    /// # Errors
    ///
    /// What does not.
    pub fn check(&self) -> Result<(), &'static str> {
        // Of a record without state: the longest id, the numbers, and what stands in front of each.
        const RECORD_BYTES: usize = 256;
        let BatchLimits { batch_bytes, state_bytes } = self.batch;
        if batch_bytes > batch::BYTES_MOST / 2 {
            return Err("a batch may have 4 MiB at most");
        }
        if batch_bytes < batch::HEADER_BYTES + RECORD_BYTES + state_bytes {
            return Err("a batch has no room for a session with the largest state");
        }
        if self.segment_bytes < segment::DATA_BEGIN + batch_bytes as u64 {
            return Err("a segment has no room for the largest batch");
        }
        Ok(())
    }
}

/// What a store has done, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Batches that were appended.
    pub batches: u64,
    /// Their bytes.
    pub bytes_appended: u64,
    /// Segments that no base stands for.
    pub segments: u64,
    /// Compactions that have ended.
    pub compactions: u64,
    /// What was live at the last compaction, in bytes.
    pub live_bytes: u64,
}

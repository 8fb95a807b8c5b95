//! A server's store: what reactors need of it before it is open, opening it, and its end.
//!
//! The reactors run while the store is read, and refuse upgrades meanwhile (`shard/restoring.rs`). What it held goes to
//! the reactor that owns it by the number of workers of today: the log knows nothing of those. Decides nothing about
//! sessions. Called by `server.rs`; and by the daemon, to look at a store without a server.
//!
//! Invariant: a session that was stored goes to the reactor on which its id is looked for.
//!
//! Next: `shared`: the threads of a store that several machines share.

mod shared;

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::application::Storing;
use crate::config::{Config, StoreLocation, StoreSync};
use crate::inbox::{Inbox, InboxSender, inbox};
use crate::mailbox::MailSender;
use crate::server_status::ServerStatus;
use crate::session::owner_of;
use crate::store::inspect::{self, Check};
use crate::store::redis::requests::RedisThreads;
use crate::store::thread::{
    CommitReceiver, CommitSender, Reports, StoreEnd, StoreThread, commit_channel, now_ms,
};
use crate::store::{
    BatchLimits, Directory, FileStore, OpenError, Opening, Options, Recovered, Recovery, Store,
};

/// What [`check_store`] has found; shown as one line.
#[derive(Debug)]
pub struct StoreCheck(Check);

impl StoreCheck {
    /// Whether a server would refuse to start on it, unless it is to repair it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.0.damage.is_some()
    }

    /// How many sessions can be read, those included whose time is over.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.0.sessions
    }
}

impl fmt::Display for StoreCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a store cannot be looked at, or cannot be opened: one line that names the file, and says what to do.
#[derive(Debug)]
pub struct StoreAccessError(Box<dyn Error + Send + Sync>);

impl fmt::Display for StoreAccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for StoreAccessError {}

impl StoreAccessError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        StoreAccessError(Box::new(error))
    }

    pub(crate) fn of_line(line: String) -> Self {
        StoreAccessError(line.into())
    }
}

/// Looks whether the store in a directory can be read. Changes nothing, and works beside a running server.
///
/// # Errors
///
/// If it cannot be read at all. Damage is part of what is found.
pub fn check_store(directory: &Path) -> Result<StoreCheck, StoreAccessError> {
    inspect::check(&Directory::new(directory)).map(StoreCheck).map_err(StoreAccessError::new)
}

/// Writes the sessions of the store in a directory, one JSON object a line. Their ids are whole: who has one can take
/// the session. Changes nothing, and works beside a running server. What is damaged, if anything is: then these are the
/// sessions that could be read.
///
/// # Errors
///
/// If it cannot be read at all, or `out` takes no more.
pub fn dump_store(
    directory: &Path,
    out: &mut dyn Write,
) -> Result<Option<String>, StoreAccessError> {
    let dumped = inspect::dump(&Directory::new(directory), out);
    let damage = dumped.map_err(StoreAccessError::new)?;
    Ok(damage.map(|damage| damage.to_string()))
}

/// How often a start looks whether all reactors have their sessions.
const LOOK: Duration = Duration::from_millis(1);

/// Why there is no store.
#[derive(Debug)]
pub(crate) enum NoStore {
    /// It cannot be opened.
    Open(OpenError),
    /// It does not serve, and is not to be waited for.
    Away(String),
    /// The system has no threads left.
    Thread(std::io::Error),
}

/// A reactor's ends of the store.
#[derive(Debug)]
pub(crate) struct ReactorEnds {
    pub(crate) storing: Storing,
    /// Where changes go.
    pub(crate) commits: Option<CommitSender>,
    /// Where sessions come from, once.
    pub(crate) recovered: Option<Inbox<Vec<Recovered>>>,
}

/// A store that is not open yet.
#[derive(Debug)]
pub(crate) struct UnopenedStore {
    location: StoreLocation,
    commits: (CommitSender, CommitReceiver),
    recovered: Vec<InboxSender<Vec<Recovered>>>,
}

impl UnopenedStore {
    /// The store that the settings name, if they name one.
    pub(crate) fn of(config: &Config, status: &ServerStatus) -> Option<UnopenedStore> {
        match &config.store {
            StoreLocation::None => return None,
            StoreLocation::File(_) => status.expect_sessions(),
            StoreLocation::Redis(_) => status.expect_shared_store(),
        }
        let commits = commit_channel(config.workers.get());
        Some(UnopenedStore { location: config.store.clone(), commits, recovered: Vec::new() })
    }

    /// The ends of the next reactor.
    pub(crate) fn next_ends(store: &mut Option<UnopenedStore>, config: &Config) -> ReactorEnds {
        let Some(store) = store else {
            return ReactorEnds { storing: Storing::Nothing, commits: None, recovered: None };
        };
        let commits = Some(store.commits.0.clone());
        if store.location.is_shared() {
            return ReactorEnds { storing: Storing::Shared, commits, recovered: None };
        }
        let (sender, recovered) = inbox(1);
        store.recovered.push(sender);
        let storing = match config.store_sync {
            StoreSync::Always => Storing::BeforeReplies,
            StoreSync::Every(_) => Storing::BehindReplies,
        };
        ReactorEnds { storing, commits, recovered: Some(recovered) }
    }

    /// Opens it, gives each reactor its sessions, if they are stored here, and starts the threads that store what the
    /// reactors change.
    ///
    /// # Errors
    ///
    /// Why there is none. Then nothing is left running of it.
    pub(crate) fn open<S: Send + 'static>(
        self,
        config: &Config,
        status: &Arc<ServerStatus>,
        mail: &Arc<[MailSender<S>]>,
    ) -> Result<ServerStore, NoStore> {
        let (begun, timeout) = (Instant::now(), config.store_timeout);
        let UnopenedStore { location, commits: (_, receiver), recovered } = self;
        let directory = match location {
            StoreLocation::File(directory) => directory,
            StoreLocation::Redis(address) => {
                let threads = shared::start(&address, config, receiver, status, mail)?;
                return Ok(ServerStore { threads: Threads::Shared(threads), timeout });
            }
            // Of none there is no value of this type.
            StoreLocation::None => PathBuf::new(),
        };
        let opening =
            Opening { options: options(config), now_ms: now_ms(), repair: config.store_repair };
        let (store, recovery) =
            FileStore::open(Directory::new(&directory), opening).map_err(NoStore::Open)?;
        let Recovery { sessions, report } = recovery;
        log::info!("store: {}: {report}", directory.display());
        let reports = reports(status, mail);
        let (store, sync): (Box<dyn Store>, _) = (Box::new(store), config.store_sync);
        let metrics = status.store_metrics().clone();
        let thread =
            StoreThread::start(store, receiver, sync, metrics, reports).map_err(NoStore::Thread)?;
        let count = sessions.len() as u64;
        for ((share, sender), mail) in
            by_owner(sessions, recovered.len()).into_iter().zip(&recovered).zip(mail.iter())
        {
            // To one that has ended nothing is sent: it says why itself.
            let _ = sender.send(share);
            mail.wake();
        }
        while status.is_recovering()
            && status.store_failure().is_none()
            && status.draining_since().is_none()
        {
            thread::sleep(LOOK);
        }
        status.store_metrics().note_recovery(count, begun.elapsed());
        Ok(ServerStore { threads: Threads::File(thread), timeout })
    }
}

fn options(config: &Config) -> Options {
    let ttl_ms = u64::try_from(config.session_ttl.as_millis()).unwrap_or(u64::MAX);
    let batch = BatchLimits {
        batch_bytes: config.limits.store_batch_bytes,
        state_bytes: config.limits.stored_state_bytes,
    };
    Options { batch, ttl_ms, ..Options::default() }
}

fn reports<S: Send + 'static>(status: &Arc<ServerStatus>, mail: &Arc<[MailSender<S>]>) -> Reports {
    let (answers, failures, status) = (mail.clone(), mail.clone(), status.clone());
    Reports {
        stored: Box::new(move |reactor, number| answers[reactor].send_stored(number)),
        failed: Box::new(move |why| {
            status.fail_store(why);
            failures.iter().for_each(MailSender::wake);
        }),
    }
}

/// The sessions of each reactor, in their order.
pub(crate) fn by_owner(sessions: Vec<Recovered>, reactors: usize) -> Vec<Vec<Recovered>> {
    let mut shares: Vec<Vec<Recovered>> = (0..reactors).map(|_| Vec::new()).collect();
    for recovered in sessions {
        let owner = owner_of(recovered.record.id.text().as_str(), reactors);
        shares[owner].push(recovered);
    }
    shares
}

/// A store that is open, or on its way, and its threads.
#[derive(Debug)]
pub(crate) struct ServerStore {
    threads: Threads,
    timeout: Duration,
}

#[derive(Debug)]
enum Threads {
    File(StoreThread),
    Shared(RedisThreads),
}

impl ServerStore {
    /// Whether its thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.threads {
            Threads::File(thread) => thread.has_ended(),
            Threads::Shared(threads) => threads.has_ended(),
        }
    }

    /// Waits, when the reactors have ended, until all is safe and the store is closed. After a failure there is nothing
    /// to wait for.
    pub(crate) fn join(self, status: &ServerStatus) {
        if status.store_failure().is_some() {
            return;
        }
        let seconds = self.timeout.as_secs_f64();
        match self.threads {
            Threads::File(thread) => {
                if thread.join(self.timeout) == StoreEnd::Hangs {
                    status.fail_store(&format!(
                        "what the last turns have changed was not stored within {seconds} s (--store-timeout)"
                    ));
                }
            }
            Threads::Shared(threads) => {
                // A batch may come while it connects, and then has its own time.
                if threads.join(2 * self.timeout) == StoreEnd::Hangs {
                    log::warn!("store: what the last turns have changed may not be stored");
                }
            }
        }
    }
}

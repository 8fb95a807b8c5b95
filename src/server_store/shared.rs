//! The threads of a store that several machines share: what they are told of the settings, whom they tell what, and the
//! start without a Redis.
//!
//! Decides nothing about sessions. Called by `server_store.rs`.
//!
//! Invariant: while the store is away, the status says so.
//!
//! Next: [`crate::server_tasks`]: what the reactors of a server need of a broker.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use super::NoStore;
use crate::config::Config;
use crate::mailbox::MailSender;
use crate::resp::ServerAddress;
use crate::server_status::ServerStatus;
use crate::store::redis::RedisOptions;
use crate::store::redis::requests::{RedisThreads, SharedReports};
use crate::store::thread::CommitReceiver;

/// Starts them. If the server is not to wait for its Redis, only one that serves will do.
///
/// # Errors
///
/// If there are no threads left, or there is no Redis.
pub(super) fn start<S: Send + 'static>(
    address: &ServerAddress,
    config: &Config,
    commits: CommitReceiver,
    status: &Arc<ServerStatus>,
    mail: &Arc<[MailSender<S>]>,
) -> Result<RedisThreads, NoStore> {
    let options = options(address, config).map_err(NoStore::Thread)?;
    log::info!("store: {address}: this is node {}", options.node);
    let (first, is_there) = mpsc::channel();
    let reports = reports(address, status, mail, first);
    let metrics = status.store_metrics().clone();
    let threads = RedisThreads::start(options, commits, mail.len(), metrics, reports);
    let threads = threads.map_err(NoStore::Thread)?;
    if config.store_wait {
        drop(is_there);
    } else if let Ok(Err(why)) = is_there.recv() {
        // Behind a panic of the thread nothing comes: the status has the reason.
        return Err(NoStore::Away(format!("{address}: {why}")));
    }
    Ok(threads)
}

fn options(address: &ServerAddress, config: &Config) -> io::Result<RedisOptions> {
    let node = match &config.node {
        Some(node) => node.clone(),
        None => {
            let mut bytes = [0; 6];
            getrandom::fill(&mut bytes).map_err(io::Error::from)?;
            data_encoding::HEXLOWER.encode(&bytes)
        }
    };
    Ok(RedisOptions {
        address: address.clone(),
        prefix: config.store_prefix.clone(),
        node,
        ttl_ms: u64::try_from(config.session_ttl.as_millis()).unwrap_or(u64::MAX),
        timeout: config.store_timeout,
        replicas: u32::try_from(config.store_replicas).unwrap_or(u32::MAX),
    })
}

fn reports<S: Send + 'static>(
    address: &ServerAddress,
    status: &Arc<ServerStatus>,
    mail: &Arc<[MailSender<S>]>,
    first: mpsc::Sender<Result<(), String>>,
) -> SharedReports {
    let (answers, takeovers, failures) = (mail.clone(), mail.clone(), mail.clone());
    let (of_availability, of_failure) = (status.clone(), status.clone());
    let address = address.clone();
    SharedReports {
        settled: Box::new(move |reactor, outcome| answers[reactor].send_outcome(outcome)),
        // One that finds no room is found out by the next commit of the session.
        taken_over: Box::new(move |reactor, takeover| {
            let _ = takeovers[reactor].send_takeover(takeover);
        }),
        availability: Box::new(move |is_available, why| {
            // First: whoever has waited for this tells that it serves.
            of_availability.note_store_away(!is_available);
            let told = if is_available { Ok(()) } else { Err(why.to_owned()) };
            // Nobody listens any more once the server has started.
            let decides = first.send(told).is_ok();
            if is_available {
                log::info!("store: {address}: it serves");
            } else if !decides {
                log::warn!("store: {address}: {why}; upgrades get 503 until it serves");
            }
        }),
        failed: Box::new(move |why| {
            of_failure.note_store_away(true);
            of_failure.store_metrics().shared.note_availability(false);
            of_failure.fail_store(why);
            failures.iter().for_each(MailSender::wake);
        }),
    }
}

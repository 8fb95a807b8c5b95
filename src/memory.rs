//! The most memory that connections and sessions can take, reckoned from the settings.
//!
//! Nothing here limits anything: each term is the sum of limits that other files keep, and says which. Not counted: the
//! program itself, the log's queue, what an application holds beyond its session's own size (its timers, off-loaded
//! jobs, metrics and responses to plain requests), and the kernel's socket buffers. The daemon prints the sum at its
//! start; a test fills everything to its limit and compares.
//!
//! Invariant: a term is an upper bound of what its limits allow, never an estimate of what is usual.
//!
//! Next: [`crate::sleep_timer`]: what ends a sleep.

use std::fmt;
use std::fs;
use std::num::NonZeroUsize;

use crate::application::storage_of_cork;
use crate::config::{Config, StoreLocation};
use crate::connection::Connection;
use crate::connection::timer_wheel::{Slot, Tick};
use crate::mailbox::Mail;
use crate::observe::page;
use crate::protocol::{ProtocolLimits, deflate, frame, message, reassembly};
use crate::session::changes::GONE_MOST;
use crate::session::rate::SessionRates;
use crate::session::{Ownership, SessionId, SessionTable};
use crate::shard::CLAIMS_MOST;
use crate::token::LocalId;
use crate::transport::out_buffer;
use crate::transport::socket::Socket;
use crate::transport::tls;

/// One reactor's part of the page of metrics, the longest page there is.
const METRICS_BYTES: usize = 8 << 10;

/// One reactor's numbers in what a watcher is told.
const FIGURES_BYTES: usize = 2 << 10;

/// The store's numbers there.
const STORE_FIGURES_BYTES: usize = 512;

/// One session in a batch for the store, without its state.
const RECORD_BYTES: usize = 512;

/// An upgrade whose session is claimed: two ids, and the fields of the daemon's applications.
const CLAIM_BYTES: usize = 2 << 10;

/// What a reactor has more where several machines share the sessions: upgrades whose sessions are claimed, with what
/// the application has accepted (shard/claims.rs); and an index of the ids of sessions that are no more, which has each
/// once more (session/changes.rs).
const SHARING: usize = CLAIMS_MOST * CLAIM_BYTES + GONE_MOST * 2 * size_of::<(SessionId, usize)>();

/// What a message that is not finished costs beside its bytes, and an allocation its allocator.
const BOOKKEEPING: usize = 256;

/// The bound and its terms, all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// How many connections there can be.
    pub connections: usize,
    /// What each of them can hold.
    pub per_connection: usize,
    /// How many sessions there can be without a connection.
    pub sessions: usize,
    /// What each of them holds.
    pub per_session: usize,
    /// How many reactors there are.
    pub reactors: usize,
    /// What each of them holds for all its connections.
    pub per_reactor: usize,
}

/// What the live page's watchers cost a reactor.
fn watching(config: &Config) -> usize {
    let (limits, reactors) = (&config.limits, config.workers.get());
    // What a watcher is told at the most: of each reactor a slab in which no two neighbours are
    // alike, its numbers, and its hand-overs to each other; and the store's numbers (page/figures.rs).
    let slab_map = limits.slab_map_slots;
    let figures = STORE_FIGURES_BYTES + reactors * (3 * slab_map + FIGURES_BYTES + 21 * reactors);
    // That in a backlog for each watcher, as text, which doubles when it grows, and encoded;
    // the slab maps of all reactors, and this one's, which doubles too (observe/watchers.rs).
    (limits.watchers + 3) * figures + (reactors + 3) * size_of::<u32>() * slab_map
}

impl MemoryBound {
    /// Reckons the bound for an application whose sessions hold a `T` and that sends no message longer
    /// than [`Config::ws_max_size`], as those of the daemon send none.
    ///
    /// `descriptors` is how many the process may open ([`descriptor_limit`]). `None` if neither
    /// that nor `--limit-concurrency` bounds the connections.
    #[must_use]
    pub fn of<T: Default>(config: &Config, descriptors: Option<usize>) -> Option<MemoryBound> {
        let limits = &config.limits;
        let reactors = config.workers.get();
        let sockets = config.most_sockets().map(|sockets| sockets.refused);
        let connections = match (sockets, descriptors) {
            (Some(sockets), Some(descriptors)) => sockets.min(descriptors),
            (sockets, descriptors) => sockets.or(descriptors)?,
        };

        // The longest thing that is said to one connection: the echo of the longest message, the
        // page of metrics, or the live page, of which the head is a small part. Before its payload stands a
        // header, or what stays free there.
        let (longest, deflating) = match config.ws_per_message_deflate {
            true => (
                deflate::most_on_the_wire(config.ws_max_size),
                deflate::most_held(&ProtocolLimits::from(config)),
            ),
            false => (config.ws_max_size, 0),
        };
        let message = longest + frame::MAX_HEADER.max(reassembly::LEAD);
        let page =
            if config.page { page::html(&config.ws_path).len() + BOOKKEEPING * 8 } else { 0 };
        let metrics = if config.metrics { (reactors + 1) * METRICS_BYTES } else { 0 };
        let reply = message.max(metrics).max(page);
        let stores = config.store != StoreLocation::None;
        // By what each session is this node's, in a table beside that of the sessions (session/ownership.rs).
        let owned = if config.store.is_shared() { size_of::<Ownership>() } else { 0 };
        let held = [
            // A message of which the end has not come. Its storage never passes `ws_max_size`, or
            // what a deflated one of that size may take on the wire
            // (protocol/message.rs); or the longest reply, that waits to be sent. Not both: while
            // a message is unfinished there is no reply to it, and no other can have come.
            reply,
            // The backlog up to the high-water mark, and what one callback can add beside its last
            // message: the storage of a cork (application/long_way.rs).
            config.max_send_buffer + storage_of_cork(limits),
            // Storage of the backlog in which nothing stands.
            out_buffer::SLACK + BOOKKEEPING,
            // What a used-up share leaves of one read, or a request that is not whole (shard/visit.rs).
            limits.receive_buffer_bytes,
            // Its TLS session (transport/tls/session.rs).
            if config.tls.is_used() { tls::SESSION_MOST } else { 0 },
            // Its session on the way to the store (shard/committing.rs).
            if stores { limits.stored_state_bytes + RECORD_BYTES } else { 0 },
            // The address in the connection limiter's table, which grows by doubling.
            if config.limit_per_ip.is_some() { 128 } else { 0 },
        ];

        // A slab, and what goes with its slots, doubles when it grows and never shrinks; and all
        // connections may meet at each of the reactors, one after the other. The slot of the
        // session that a connection is attached to goes with it.
        let ids = size_of::<LocalId>();
        let slot = [
            size_of::<Connection<Socket>>() + size_of::<usize>(),
            // Ready now, ready next turn, its mark, due, ended (shard/mod.rs, shard/connection_set.rs).
            5 * ids,
            // Alarms: the live one, and those that an earlier one made stale, of which a wheel's
            // round has room for a few (connection/timer_wheel.rs); and what a former tenant leaves.
            17 * size_of::<Slot>() + size_of::<Tick>() + 1,
            SessionTable::<T>::SLOT_BYTES,
            owned,
            // Whether it is in use: a bit, and its part of a bit (connection/slab.rs).
            1,
        ];
        let per_slot = 2 * slot.iter().sum::<usize>();

        let per_reactor = [
            if config.page { watching(config) } else { 0 },
            limits.receive_buffer_bytes,
            // The addresses that have made sessions: a table that all reactors share, here in parts.
            match config.limit_sessions_per_ip {
                Some(_) => SessionRates::BYTES.div_ceil(reactors),
                None => 0,
            },
            // The cork, which is copied when it grows. It is full when it holds `cork_bytes`; but of one
            // callback it holds all that may wait for the peer, and one message more.
            2 * (config.max_send_buffer + storage_of_cork(limits) + reply),
            // The message that an application is looking at, and storage being copied as it grows.
            2 * config.ws_max_size,
            // What is kept for the next long ones.
            message::SPARE_MOST * (message::SPARE_BYTES.min(longest) + reassembly::LEAD),
            deflating,
            out_buffer::POOL,
            // Ids of sessions that are no more, for the store.
            if stores { GONE_MOST * SessionTable::<T>::BESIDE_SLOT_BYTES * 2 } else { 0 },
            if config.store.is_shared() { SHARING } else { 0 },
            // Mail, and broadcasts under way; of the daemon's applications these are heartbeats.
            (limits.mailbox_capacity + limits.mails_waiting_most) * size_of::<Mail<Socket>>(),
            (limits.mailbox_capacity + limits.broadcasts_queued) * BOOKKEEPING,
            BOOKKEEPING * 1024,
        ];
        Some(MemoryBound {
            connections,
            per_connection: held.iter().sum::<usize>() + reactors * per_slot,
            sessions: config.sessions_kept(),
            per_session: 2 * (SessionTable::<T>::SLOT_BYTES + owned)
                + SessionTable::<T>::BESIDE_SLOT_BYTES,
            reactors,
            per_reactor: per_reactor.iter().sum(),
        })
    }

    /// The bound, in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        let terms = [
            (self.connections, self.per_connection),
            (self.sessions, self.per_session),
            (self.reactors, self.per_reactor),
        ];
        terms.iter().fold(0, |sum, (many, each)| sum.saturating_add(many.saturating_mul(*each)))
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let term = |count, what, each| {
            let s = if count == 1 { "" } else { "s" };
            format!("{count} {what}{s} of {}", Bytes(each))
        };
        write!(
            f,
            "{} ({}, {}, {})",
            Bytes(self.total()),
            term(self.connections, "connection", self.per_connection),
            term(self.sessions, "session", self.per_session),
            term(self.reactors, "reactor", self.per_reactor),
        )
    }
}

/// Settings with which the bound is no more than a given room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitting {
    /// The most [`Config::limit_concurrency`].
    pub limit_concurrency: usize,
    /// The most bytes of a message and of a send buffer, if those have to be less than they are.
    pub bytes: Option<usize>,
}

impl Fitting {
    /// What to set so that the bound is at most `room`: the number of connections alone, if at least
    /// a hundred remain (or as many as are allowed now); else shorter messages too. `None` if not even
    /// messages of 64 KiB would do.
    #[must_use]
    pub fn into<T: Default>(
        config: &Config,
        descriptors: Option<usize>,
        room: usize,
    ) -> Option<Fitting> {
        let limit = config.limit_concurrency.map(NonZeroUsize::get);
        let most = limit.or(descriptors).unwrap_or(1 << 32);
        let enough = most.min(100);
        [None, Some(1 << 20), Some(64 << 10)].into_iter().find_map(|bytes| {
            let longest = bytes.unwrap_or(usize::MAX);
            let fits = |limit| {
                let config = Config {
                    limit_concurrency: NonZeroUsize::new(limit),
                    ws_max_size: config.ws_max_size.min(longest),
                    max_send_buffer: config.max_send_buffer.min(longest),
                    ..config.clone()
                };
                MemoryBound::of::<T>(&config, descriptors).is_some_and(|b| b.total() <= room)
            };
            if !fits(enough) {
                return None;
            }
            // The bound grows with the limit, so: bisection between one that fits and one that is not
            // asked for.
            let (mut least, mut beyond) = (enough, most.saturating_add(1));
            while beyond - least > 1 {
                let middle = least + (beyond - least) / 2;
                *(if fits(middle) { &mut least } else { &mut beyond }) = middle;
            }
            Some(Fitting { limit_concurrency: least, bytes })
        })
    }
}

/// A size for people: three digits or so, and a unit.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 10 << 10 {
            return write!(f, "{} bytes", self.0);
        }
        let (mut size, mut unit) = (self.0 as f64 / 1024.0, 0);
        while size >= 1000.0 && unit + 1 < UNITS.len() {
            size /= 1024.0;
            unit += 1;
        }
        write!(f, "{size:.1} {}", UNITS[unit])
    }
}

/// How many descriptors this process may have open, if the system says so where Linux does.
///
/// It is the soft limit as it stands. A server never changes it; the daemon raises it to the hard one
/// when it starts.
#[must_use]
pub fn descriptor_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    soft_limit(&limits)
}

/// `Max open files            1024                 524288               files`
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::{CloseReason, Side};
    use crate::config::{SessionRate, bounds};
    use crate::http::Rejection;
    use crate::observe::metrics::ServerMetrics;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    #[test]
    fn the_limit_is_read_as_linux_writes_it() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95902                95902                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit("Max open files            unlimited   unlimited   files"), None);
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn connections_are_bounded_by_whichever_is_less() {
        let limited =
            |limit| Config { limit_concurrency: NonZeroUsize::new(limit), ..Config::default() };
        let connections = |config: &Config, descriptors| {
            MemoryBound::of::<()>(config, descriptors).map(|bound| bound.connections)
        };
        assert_eq!(connections(&limited(0), None), None);
        assert_eq!(connections(&limited(0), Some(1024)), Some(1024));
        assert_eq!(connections(&limited(100), Some(1024)), Some(100 * 2 + 256 * 2));
        assert_eq!(connections(&limited(1000), Some(1024)), Some(1024));
        assert_eq!(connections(&limited(1000), None), Some(1000 * 2 + 256 * 2));
    }

    #[test]
    fn no_setting_overflows_it() {
        let config = Config {
            ws_max_size: *bounds::WS_MAX_SIZE.range.end(),
            max_send_buffer: *bounds::MAX_SEND_BUFFER.range.end(),
            max_sessions: *bounds::MAX_SESSIONS.range.end(),
            workers: NonZeroUsize::new(*bounds::WORKERS.range.end()).unwrap(),
            ..Config::default()
        };
        config.validate().unwrap();
        let bound = MemoryBound::of::<()>(&config, Some(usize::MAX)).unwrap();
        assert_eq!(bound.total(), usize::MAX);
    }

    #[test]
    fn the_table_of_session_rates_counts_if_there_is_one() {
        let config = |limit_sessions_per_ip| Config {
            limit_sessions_per_ip,
            workers: NonZeroUsize::new(4).unwrap(),
            ..Config::default()
        };
        let total = |config| MemoryBound::of::<()>(&config, Some(1024)).unwrap().total();
        let rate = SessionRate { sessions: std::num::NonZeroU32::MIN, window: SessionRate::WINDOW };
        assert_eq!(total(config(Some(rate))) - total(config(None)), SessionRates::BYTES);
        assert_eq!(SessionRates::BYTES, 2 << 20, "as tests/hostile/README.md says");
    }

    #[test]
    fn it_reads_as_a_sentence() {
        let bound = MemoryBound {
            connections: 1024,
            per_connection: 17 << 20,
            sessions: 1_000_000,
            per_session: 300,
            reactors: 2,
            per_reactor: 70 << 20,
        };
        assert_eq!(
            bound.to_string(),
            "17.4 GiB (1024 connections of 17.0 MiB, 1000000 sessions of 300 bytes, \
             2 reactors of 70.0 MiB)"
        );
        let one = MemoryBound { connections: 1, sessions: 1, reactors: 1, ..bound };
        assert_eq!(
            one.to_string(),
            "87.0 MiB (1 connection of 17.0 MiB, 1 session of 300 bytes, 1 reactor of 70.0 MiB)"
        );
    }

    #[test]
    fn what_would_fit_fits_and_no_more_would() {
        let total = |config: &Config, fitting: Fitting, limit| {
            let bytes = fitting.bytes.unwrap_or(usize::MAX);
            let config = Config {
                limit_concurrency: NonZeroUsize::new(limit),
                ws_max_size: config.ws_max_size.min(bytes),
                max_send_buffer: config.max_send_buffer.min(bytes),
                ..config.clone()
            };
            MemoryBound::of::<()>(&config, Some(1 << 20)).unwrap().total()
        };
        let config = Config { workers: NonZeroUsize::new(2).unwrap(), ..Config::default() };
        let small = Config { ws_max_size: 1 << 14, max_send_buffer: 1 << 14, ..config.clone() };
        for (config, room, bytes) in [
            (&config, 64 << 30, None),
            (&config, 8 << 30, Some(1 << 20)),
            (&config, 1 << 30, Some(64 << 10)),
            (&small, 8 << 30, None),
        ] {
            let fitting = Fitting::into::<()>(config, Some(1 << 20), room).unwrap();
            assert_eq!(fitting.bytes, bytes, "{room}");
            assert!(fitting.limit_concurrency >= 100);
            assert!(total(config, fitting, fitting.limit_concurrency) <= room);
            assert!(total(config, fitting, fitting.limit_concurrency + 1) > room, "{fitting:?}");
        }
        assert_eq!(Fitting::into::<()>(&config, Some(1 << 20), 1 << 20), None);
        // With more room than is ever needed it is what the descriptors allow.
        let all = Fitting::into::<()>(&small, Some(1000), usize::MAX).unwrap();
        assert_eq!((all.limit_concurrency, all.bytes), (1000, None));
        // A limit that there is already is never raised.
        let few = Config { limit_concurrency: NonZeroUsize::new(50), ..config };
        let fitting = Fitting::into::<()>(&few, Some(1 << 20), 8 << 30).unwrap();
        assert_eq!((fitting.limit_concurrency, fitting.bytes), (50, Some(1 << 20)));
    }

    /// Review: `--limit-concurrency 18446744073709551615` on a small machine.
    #[test]
    fn the_largest_limit_does_not_overflow() {
        let config =
            Config { limit_concurrency: NonZeroUsize::new(usize::MAX), ..Config::default() };
        config.validate().unwrap();
        assert!(Fitting::into::<()>(&config, Some(1 << 20), 64 << 30).is_some());
    }

    #[test]
    fn figures_are_no_longer_than_reckoned() {
        use crate::observe::slab_map::{SlabMapBuilder, SlotState};
        use crate::store::metrics::StoreMetrics;
        let (reactors, slots) = (3, 1000);
        let metrics = ServerMetrics::new(reactors, Rejection::LABELS, Default::default());
        for (number, reactor) in metrics.reactors().iter().enumerate() {
            for code in 1000..=5000 {
                for side in [Side::Client, Side::Server] {
                    reactor.closed(CloseReason { code, side });
                }
            }
            reactor.turns.set(u64::MAX);
            reactor.handed_over(number);
        }
        let slab_maps = (0..reactors).map(|reactor| {
            let mut builder = SlabMapBuilder::default();
            for slot in 0..slots {
                let state = [SlotState::Watching, SlotState::Throttled][slot % 2];
                builder.push_run(state, 1);
            }
            Some(builder.finish(reactor, slots))
        });
        let text = {
            let (reactors, store) = (metrics.reactors(), StoreMetrics::default());
            let StoreMetrics {
                commits,
                sessions,
                syncs,
                sync_ns,
                bytes,
                segments,
                compactions,
                ..
            } = &store;
            for cell in [commits, sessions, syncs, sync_ns, bytes, segments, compactions] {
                cell.set(u64::MAX);
            }
            page::figures::json(reactors, Some(&store), u64::MAX, Duration::MAX, slab_maps)
        };
        let reckoned = STORE_FIGURES_BYTES + reactors * (3 * slots + FIGURES_BYTES + 21 * reactors);
        assert!(text.len() < reckoned, "{} of {reckoned}", text.len());
    }

    #[test]
    fn the_page_of_metrics_is_no_longer_than_reckoned() {
        for reactors in [1, 2, 50] {
            let page = ServerMetrics::new(reactors, Rejection::LABELS, Default::default())
                .render(Duration::ZERO);
            // With room for larger numbers than 0.
            let reckoned = (reactors + 1) * METRICS_BYTES;
            assert!(page.len() * 5 / 4 < reckoned, "{} of {reckoned}", page.len());
        }
    }
}

//! The parts of a shard, side by side.
//!
//! What one part can do alone is its own method. What needs several is a method of [`Parts`], in the
//! files that follow (`closing` to `drain`). Decides nothing itself. Made and kept by `mod.rs`.
//!
//! Next: `observing`: how a turn is watched without being touched.

use std::time::Instant;

use super::commits::{Commits, Restoring};
use super::connection_set::ConnectionSet;
use super::deliveries::Deliveries;
use super::lifecycle::Lifecycle;
use super::pending::PendingRequests;
use super::runtime::Runtime;
use super::turn::Setup;
use crate::application::{Application, Hosted, Posts, Storing};
use crate::environment::Environment;
use crate::observe::watchers::Watchers;
use crate::store::BatchLimits;

/// All that a shard owns and that is not lent to every step.
pub(super) struct Parts<A: Application, E: Environment> {
    pub(super) connections: ConnectionSet<E::Stream>,
    pub(super) runtime: Runtime<A>,
    /// What other threads and reactors want done.
    pub(super) posts: Posts<A>,
    pub(super) deliveries: Deliveries<A, E::Stream>,
    pub(super) lifecycle: Lifecycle,
    pub(super) watchers: Watchers,
    pub(super) pending: PendingRequests<A>,
    pub(super) commits: Commits,
    pub(super) restoring: Restoring,
}

impl<A: Application, E: Environment> Parts<A, E> {
    pub(super) fn new(hosted: Hosted<A>, setup: &Setup, now: Instant) -> Self {
        let Hosted { application, posts, remote, storing, recovered } = hosted;
        let limits = BatchLimits {
            batch_bytes: setup.config.limits.store_batch_bytes,
            state_bytes: setup.config.limits.stored_state_bytes,
        };
        let reactors = setup.config.workers.get();
        Parts {
            connections: ConnectionSet::new(now),
            runtime: Runtime::new(application, storing != Storing::Nothing, setup),
            posts,
            deliveries: Deliveries::new(setup.reactor, reactors, remote),
            lifecycle: Lifecycle::new(),
            watchers: Watchers::new(reactors, now),
            pending: PendingRequests::default(),
            commits: Commits::new(storing, limits),
            restoring: recovered.map_or(Restoring::Done, Restoring::Awaited),
        }
    }

    /// Takes what a callback has commanded for all connections of this reactor.
    pub(super) fn take_commands_for_all(&mut self) {
        let Parts { runtime, deliveries, lifecycle, .. } = self;
        deliveries.broadcasts.extend(runtime.commands.to_reactor.drain(..));
        if let Some(goodbye) = runtime.commands.goodbye.take() {
            lifecycle.set_goodbye(goodbye);
        }
    }
}

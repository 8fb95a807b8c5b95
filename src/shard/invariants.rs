//! What must hold between turns, in one place.
//!
//! Called by the simulation and by the test kit, after every turn.
//!
//! Next: [`crate::memory`]: what all of this can cost at most.

use super::parts::Parts;
use super::turn::Setup;
use crate::application::{Application, storage_of_cork};
use crate::connection::{Attachment, Connection, Rest};
use crate::environment::Environment;
use crate::protocol::endpoint::Endpoint;
use crate::token::LocalId;
use crate::transport::out_buffer::Stage;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Checks every invariant of the shard, connection by connection. Costs as much as there are
    /// connections.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub(super) fn invariants(&self, setup: &Setup) {
        let (mut attached, mut watchers) = (0, 0);
        for connection in self.connections.slab.iter() {
            self.connections.check(connection, setup);
            self.check(connection);
            attached += usize::from(matches!(connection.attachment, Attachment::Live(_)));
            watchers += usize::from(matches!(connection.attachment, Attachment::Watching));
        }
        let sessions = &self.runtime.sessions;
        assert_eq!(sessions.speakers(), attached, "each has a session, alone or with others");
        assert_eq!(setup.metrics.websockets.get(), attached as u64);
        self.watchers.invariants(watchers);
        self.deliveries.invariants();
        let is_said = self.runtime.cork.is_empty() && self.connections.aside.is_empty();
        assert!(is_said, "what was said was sent");
        let storage = storage_of_cork(&setup.config.limits);
        assert!(
            self.runtime.cork.capacity() <= storage,
            "what the cork had grown by was given back"
        );
        let commands = &self.runtime.commands;
        let are_applied = commands.ending.is_none()
            && !commands.pause
            && !commands.forgets_session
            && !commands.has_outgoing;
        let have_left = commands.to_all.is_empty()
            && commands.to_reactor.is_empty()
            && commands.directs.is_empty()
            && commands.posts.is_empty()
            && commands.goodbye.is_none();
        assert!(are_applied && have_left, "commands were applied");
        commands.jobs.invariants();
        commands.timers.invariants();
        let is_live = |id: LocalId| {
            let connection = self.connections.get(id);
            connection.is_some_and(|c| matches!(c.attachment, Attachment::Live(_)))
        };
        let have_ended = "a timer, or what was kept, outlived its connection";
        assert!(commands.timers.connections().all(is_live), "{have_ended}");
        assert!(commands.kept.connections().all(is_live), "{have_ended}");
        let is_there = |id| self.connections.get(id).is_some();
        assert!(self.pending.connections().all(is_there), "a request outlived its connection");
        sessions.invariants();
        self.claims.invariants();
        assert!(self.claims.connections().all(is_there), "an upgrade outlived its connection");
    }

    /// What must hold of a connection and of the parts that know it.
    fn check(&self, connection: &Connection<E::Stream>) {
        let id = connection.id;
        let jobs = self.runtime.commands.jobs.of(id);
        let backlog = &connection.transport.backlog;
        let is_claiming = self.claims.contains(id);
        // The table at `Rest`: each stop has its waker. Those of the other stops are the set's.
        match connection.rest {
            Rest::Parked => assert!(jobs > 0 || is_claiming, "{id}: parked, and no answer comes"),
            Rest::Waiting => assert!(self.deliveries.holds(id), "{id}: waits for nothing"),
            Rest::Committing => assert!(backlog.held() > 0, "{id}: waits for no commit"),
            _ => {}
        }
        for stage in [Stage::UnderWay, Stage::Collected] {
            let is_known = !backlog.is_held_for(stage) || self.commits.knows(id, stage);
            assert!(is_known, "{id}: held, and nobody will let it go: {stage:?}");
        }
        let is_read = connection.is_open() && !connection.rest.is_unread();
        assert!(!is_read || backlog.held() == 0, "{id}: read, while its replies are held");
        // Exactly while open, it speaks for a session or watches.
        let has_session = matches!(connection.attachment, Attachment::Live(_));
        let watches = matches!(connection.attachment, Attachment::Watching);
        let is_open = matches!(connection.endpoint, Endpoint::Open(_));
        let awaits_answer = matches!(connection.endpoint, Endpoint::Pending(_));
        assert!(!awaits_answer || connection.rest == Rest::Parked, "{id}: read, without an answer");
        let is_pending = self.pending.contains(id);
        assert!(is_pending || is_claiming || !awaits_answer, "{id}: waits, and nobody knows of it");
        assert!(!is_claiming || awaits_answer && !is_pending, "{id}: claims, and does not wait");
        let is_asked_again = is_pending && self.claims.is_granted(id);
        assert!(!is_pending || jobs == 1 || is_asked_again, "{id}: waits for one answer");
        assert_eq!(has_session || watches, is_open, "{id}: a session while open");
        assert_eq!(self.watchers.told().contains(&id), watches, "{id}: told while it watches");
        assert!(is_open || is_pending || jobs == 0, "{id}: waits, and is not open");
    }
}

//! New sessions: whether an address may make another one, and what the log says of those that
//! had to leave for them.
//!
//! A full table lets the longest detached session go for each new one that is detached
//! (`session/mod.rs`). That is counted where it happens; here it is told, once a minute.
//!
//! Next: [`crate::shard::callbacks`]: what is called that no message causes.

use std::time::{Duration, Instant};

use super::Shard;
use crate::application::Application;
use crate::connection::timer_wheel::Slot;
use crate::environment::Environment;
use crate::protocol::head::Rejection;
use crate::session::SessionRequest;
use crate::token::ConnectionId;

/// Time from the first session that left early to the line that tells of it, and of all others
/// since.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// The wheel's slot for that line: no connection has it, for a process has fewer descriptors.
const REPORT_SLOT: Slot = Slot::MAX;

/// What is still to be told of sessions that left early.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    told: u64,
    report_at: Option<Instant>,
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Counts the session that an upgrade is about to create against its address, and says whether
    /// it did: not if it finds a session, or if there is no such limit.
    pub(super) fn count_newcomer(
        &mut self,
        id: ConnectionId,
        requested: &SessionRequest,
        now: Instant,
    ) -> Result<bool, Rejection> {
        let Some(rate) = self.config.limit_sessions_per_ip else { return Ok(false) };
        let Some(connection) = self.connections.get_mut(id) else { return Ok(false) };
        if requested.id.as_ref().is_some_and(|id| self.sessions.peek(id, now).is_some()) {
            return Ok(false);
        }
        // A peer without an address has no share of its own that it could use up.
        let Some(ip) = connection.peer.ip() else { return Ok(false) };
        self.status.session_rates().count(ip, rate, now).map(|()| true)
    }

    /// It was refused after all, for another reason.
    pub(super) fn uncount_newcomer(&mut self, id: ConnectionId) {
        if let Some(rate) = self.config.limit_sessions_per_ip
            && let Some(ip) = self.connections.get_mut(id).and_then(|c| c.peer.ip())
        {
            self.status.session_rates().uncount(ip, rate);
        }
    }

    /// Sees to it that it is told if a session left early just now.
    pub(super) fn note_evictions(&mut self, now: Instant) {
        let Evictions { told, report_at } = &mut self.evictions;
        if self.sessions.totals().evicted > *told && report_at.is_none() {
            let at = now + REPORT_AFTER;
            *report_at = Some(at);
            self.wheel.schedule(REPORT_SLOT, at);
        }
    }

    /// An alarm went off in a slot in which no connection is.
    #[cold]
    pub(super) fn on_vacant_alarm(&mut self, slot: Slot, now: Instant) {
        let Evictions { told, report_at } = &mut self.evictions;
        let Some(at) = report_at.filter(|_| slot == REPORT_SLOT) else { return };
        if now < at {
            // The wheel reaches less far than that.
            self.wheel.schedule(REPORT_SLOT, at);
            return;
        }
        let evicted = self.sessions.totals().evicted;
        let count = evicted - *told;
        (*told, *report_at) = (evicted, None);
        log::warn!(
            reactor = self.reactor;
            "sessions that left early within a minute, because the table is full: {count}; raise \
             --max-sessions, or bound each address's new ones with --limit-sessions-per-ip"
        );
    }
}

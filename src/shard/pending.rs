//! The requests of which the answer is awaited, because the application decides them on another thread.
//!
//! Knows who waits and for which session, and what was taken elsewhere for them; does nothing for them:
//! `awaiting` does. Called by that, and by `upgrade`, which must know of requests that a newer one overtakes.
//!
//! Invariant: they stand in the order in which they came, one for each connection. What was taken for one that
//! does not open is given back.
//!
//! Next: `commits`: what is known of the store.

use std::time::Instant;

use crate::application::{Application, Undo};
use crate::session::SessionId;
use crate::token::LocalId;

/// The requests that wait: no more than there may be jobs
/// ([`crate::config::Limits::offloads_per_reactor`]).
pub(super) struct PendingRequests<A: Application>(Vec<PendingRequest<A>>);

/// One of them.
pub(super) struct PendingRequest<A: Application> {
    pub(super) connection: LocalId,
    /// The session that it names.
    pub(super) session: Option<SessionId>,
    /// Whether there was such a session when it came, so that it is held.
    pub(super) holds: bool,
    /// When waiting ends, however often the answer was to ask once more.
    pub(super) by: Instant,
    /// Whether a newer connection shares that session by now: this one may not take it over any more.
    pub(super) is_outrun: bool,
    /// What gives back what was taken for it, on the reactors that were asked: one for each question.
    pub(super) undos: Vec<Undo<A>>,
}

impl<A: Application> Default for PendingRequests<A> {
    fn default() -> Self {
        PendingRequests(Vec::new())
    }
}

impl<A: Application> PendingRequests<A> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, connection: LocalId) -> bool {
        self.connections().any(|waiting| waiting == connection)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = LocalId> {
        self.0.iter().map(|request| request.connection)
    }

    /// The connections that asked for this session before `newer` did; all, if that does not wait.
    pub(super) fn before(&self, session: &SessionId, newer: LocalId) -> Vec<LocalId> {
        let earlier = self.0.iter().take_while(|request| request.connection != newer);
        let same = earlier.filter(|request| request.session.as_ref() == Some(session));
        same.map(|request| request.connection).collect()
    }

    /// A newer connection has begun to share this session.
    pub(super) fn outrun(&mut self, session: &SessionId, newer: LocalId) {
        let earlier = self.0.iter_mut().take_while(|request| request.connection != newer);
        let same = earlier.filter(|request| request.session.as_ref() == Some(session));
        same.for_each(|request| request.is_outrun = true);
    }

    /// Whether a newer connection shares the session that the request of this one waits for.
    pub(super) fn is_outrun(&self, connection: LocalId) -> bool {
        self.0.iter().any(|request| request.connection == connection && request.is_outrun)
    }

    /// Holds this session for those that ask for it and do not hold it yet: it may be newer than their
    /// requests.
    pub(super) fn hold(&mut self, session: &SessionId, mut hold: impl FnMut(&SessionId) -> bool) {
        let same = self.0.iter_mut().filter(|request| request.session.as_ref() == Some(session));
        for request in same.filter(|request| !request.holds) {
            request.holds = hold(session);
        }
    }

    /// This session is forgotten: they hold it no more.
    pub(super) fn let_go(&mut self, session: &SessionId) {
        let same = self.0.iter_mut().filter(|request| request.session.as_ref() == Some(session));
        same.for_each(|request| request.holds = false);
    }

    /// When the request of this connection is late, if it waits.
    pub(super) fn deadline(&self, connection: LocalId) -> Option<Instant> {
        let mut requests = self.0.iter();
        requests.find(|request| request.connection == connection).map(|request| request.by)
    }

    /// Something was taken for the request of this connection; gives `undo` back if it waits no more.
    pub(super) fn keep_undo(&mut self, connection: LocalId, undo: Undo<A>) -> Result<(), Undo<A>> {
        match self.0.iter_mut().find(|request| request.connection == connection) {
            Some(request) => {
                request.undos.push(undo);
                Ok(())
            }
            None => Err(undo),
        }
    }

    /// What was taken for the request of this connection; from here on it is the caller's to give back.
    pub(super) fn take_undos(&mut self, connection: LocalId) -> Vec<Undo<A>> {
        let request = self.0.iter_mut().find(|request| request.connection == connection);
        request.map(|request| std::mem::take(&mut request.undos)).unwrap_or_default()
    }

    pub(super) fn push(&mut self, request: PendingRequest<A>) {
        self.0.push(request);
    }

    /// A connection's request waits no more.
    pub(super) fn take(&mut self, connection: LocalId) -> Option<PendingRequest<A>> {
        let at = self.0.iter().position(|request| request.connection == connection)?;
        Some(self.0.remove(at))
    }
}

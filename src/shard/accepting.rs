//! Where connections come from: the listener; and how one is taken in, new or handed over.
//!
//! Whether a socket may stay is for the connection limiter to say. Called by the turn, and by `mail` for
//! connections that other reactors hand over.
//!
//! Invariant: a connection that was taken in is watched by the poll, or closed.
//!
//! Next: `mail`: the other way in.

use std::io;

use super::connection_set::Share;
use super::lifecycle::Listening;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::connection::Connection;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::mailbox::{Handoff, Mail};
use crate::observe::turn_trace::{TurnTrace, Why};
use crate::token::{Entrance, LocalId, Peer};
use crate::transport::Edge;
use crate::transport::connection_limiter::Admission;
use crate::transport::listener::Accepted;
use crate::transport::tls::TlsSession;

/// What an error of `accept(2)` is about.
enum AcceptFailure {
    QueueEmpty,
    /// That one connection: it is gone already (accept(2), "Error handling").
    OneConnection,
    /// The process or the system.
    OutOfResources,
}

fn classify(error: &io::Error) -> AcceptFailure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::WouldBlock => AcceptFailure::QueueEmpty,
        Kind::Interrupted
        | Kind::ConnectionAborted
        | Kind::ConnectionReset
        | Kind::NotConnected
        | Kind::NetworkDown
        | Kind::NetworkUnreachable
        | Kind::HostUnreachable => AcceptFailure::OneConnection,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM; and for any other error a pause is better than a busy loop.
        _ => AcceptFailure::OutOfResources,
    }
}

/// How a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// From the listener.
    Accepted,
    /// By mail from another reactor, which may have been a while ago.
    HandedOver,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Accepts a share of the queue.
    #[inline]
    pub(super) fn accept(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.lifecycle.may_accept(turn.now) {
            self.accept_share(turn, env);
        }
    }

    #[inline(never)]
    fn accept_share(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if let Listening::Paused { .. } = self.lifecycle.listening {
            self.lifecycle.listening = Listening::Ready;
        }
        for _ in 0..turn.setup.config.limits.accepts_per_turn {
            match env.accept() {
                Ok(accepted) => self.take_in(accepted, turn, env),
                Err(error) => match classify(&error) {
                    AcceptFailure::OneConnection => {}
                    AcceptFailure::QueueEmpty => return self.end_of_queue(env),
                    AcceptFailure::OutOfResources => {
                        return self.pause_accepting(&error, turn, env);
                    }
                },
            }
        }
    }

    /// A connection has been accepted; whether it may stay is for the limiter to say.
    fn take_in(&mut self, accepted: Accepted<E::Stream>, turn: &mut Turn<'_>, env: &mut E) {
        let Accepted { stream, peer, entrance, is_for_all, mut tls } = accepted;
        let setup = turn.setup;
        setup.metrics.accepts.add(1);
        let limiter = setup.status.connection_limiter();
        // Who watches the server has no address to count: else the limit of an address that a proxy and a
        // scraper share would shut out the one that tells of it.
        // Nor has a proxy one that speaks for others: they are counted when it has said who they are.
        let is_relay = setup.config.speaks_for_others(peer.ip());
        let (counted, entrance) = match entrance {
            Entrance::Public if is_relay && setup.config.proxy_protocol => {
                // The header comes first, and is not encrypted.
                tls.iter_mut().for_each(TlsSession::await_preface);
                (Peer::Unix, Entrance::BehindProxy)
            }
            Entrance::Public if !is_relay => (peer, entrance),
            _ => (Peer::Unix, entrance),
        };
        let (permit, refusal) = match limiter.admit(counted, &setup.config) {
            Admission::Granted(permit) => (permit, None),
            Admission::Refused(permit, limit) if tls.is_none() => (Some(permit), Some(limit)),
            // A refusal that is encrypted would cost the handshake, and that is most of what a connection costs.
            Admission::Refused(_, limit) | Admission::Dropped(limit) => {
                let rejection = Rejection::from(limit);
                turn.tell(|trace| trace.dropped(peer, rejection.status()));
                return setup.metrics.rejected(rejection.index());
            }
        };
        let deadline = turn.now + setup.config.timeout_handshake;
        let (received, unsent) = (Vec::new(), Vec::new());
        let handoff = Handoff { stream, peer, entrance, received, unsent, deadline, tls, permit };
        // In a drain it is served here, because the others may have ended by then.
        if is_for_all
            && refusal.is_none()
            && self.lifecycle.is_running()
            && let Some(reactor) = self.deliveries.next_to_spread_to(setup.reactor, env)
        {
            setup.metrics.handed_over(reactor);
            turn.tell(|trace| trace.spread(reactor));
            return self.deliveries.post(reactor, Mail::HandOver(handoff), env);
        }
        let Some(id) = self.adopt(handoff, Arrival::Accepted, turn, env) else { return };
        // The request would not change the answer, so it is not waited for.
        if let Some(limit) = refusal {
            self.observe(id, Why::More, turn);
            self.refuse_aside(id, limit.into(), turn);
            self.observed(&[], turn);
        }
    }

    fn end_of_queue(&mut self, env: &mut E) {
        match self.lifecycle.listening {
            Listening::LastCall => self.lifecycle.stop_listening(env),
            _ => self.lifecycle.listening = Listening::Idle,
        }
    }

    fn pause_accepting(&mut self, error: &io::Error, turn: &mut Turn<'_>, env: &mut E) {
        if let Listening::LastCall = self.lifecycle.listening {
            // A server that goes away does not wait for descriptors.
            return self.lifecycle.stop_listening(env);
        }
        let accept_pause = turn.setup.config.limits.accept_pause;
        let pauses = &turn.setup.metrics.accept_pauses;
        // One line at the first pause and at every 600th (a minute's worth): a server short of
        // descriptors must not also fill the disk.
        if pauses.get().is_multiple_of(600) {
            log::warn!(
                reactor = turn.setup.reactor;
                "cannot accept connections: {error}; trying again every {} ms",
                accept_pause.as_millis()
            );
        }
        pauses.add(1);
        self.lifecycle.listening = Listening::Paused { until: turn.now + accept_pause };
        turn.tell(TurnTrace::paused);
    }

    /// Takes in a connection, new or handed over; `None` if it cannot be watched.
    pub(super) fn adopt(
        &mut self,
        handoff: Handoff<E::Stream>,
        arrival: Arrival,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> Option<LocalId> {
        let Handoff { stream, peer, entrance, received, unsent, deadline, tls, permit } = handoff;
        let slab = &mut self.connections.slab;
        let id = slab.insert(|id| Connection::new(stream, id, peer, deadline));
        self.connections.inherit_alarm(id);
        let connection = self.connections.slab.get_mut(id)?;
        (connection.entrance, connection.permit) = (entrance, permit);
        if self.commits.hold_replies() {
            connection.transport.gate();
        }
        if let Some(session) = tls {
            connection.encrypt(session);
        }
        if let Err(error) = env.register(connection.transport.stream_mut(), id) {
            log::warn!(reactor = turn.setup.reactor; "cannot watch a connection: {error}");
            self.connections.slab.remove(id);
            return None;
        }
        let pool = &mut self.connections.pool;
        let kept = connection.transport.inherit(&unsent, turn.now, pool);
        if let Err(error) = kept.and_then(|()| connection.keep(&received)) {
            self.lose_to(id, &error, turn);
            return None;
        }
        // A connection that was handed over is looked at this turn, and read: its peer may have left
        // meanwhile (see `upgrade`), or its deadline may be near, and what it has said in time is heard
        // first. So is one that comes in a drain: there may be no further poll to bring its edge. All
        // others have an edge to come.
        let is_visited_now = arrival == Arrival::HandedOver || !self.lifecycle.is_running();
        if is_visited_now {
            connection.transport.note(Edge { readable: true, writable: true, ..Edge::default() });
        }
        turn.tell(|trace| trace.adopted(id, peer, received.len()));
        let share = if is_visited_now { Share::UsedUp } else { Share::Left };
        self.connections.settle(id, share, turn);
        Some(id)
    }
}

//! Where connections come from: the listener; and how one is taken in, new or handed over.
//!
//! Next: [`crate::shard::mail`]: the other way in.

use std::io;
use std::time::Instant;

use super::Shard;
use super::drain::Lifecycle;
use super::turn_trace::TurnTrace;
use crate::application::Application;
use crate::connection::Connection;
use crate::environment::Environment;
use crate::mailbox::{Handoff, Mail};
use crate::token::{ConnectionId, Peer};
use crate::transport::Edge;
use crate::transport::connection_limiter::Admission;

/// What is known of the accept queue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listening {
    /// Empty when last looked at; an edge will tell.
    Idle,
    /// There may be more.
    Ready,
    /// The process is out of descriptors or memory: looked at again then. The edge is not lost,
    /// it is remembered here.
    Paused { until: Instant },
    /// Draining: what is in the queue is taken, then the listener closes.
    LastCall,
    /// Over.
    Closed,
}

impl Listening {
    pub(super) fn is_ready(self, now: Instant) -> bool {
        match self {
            Listening::Ready | Listening::LastCall => true,
            Listening::Paused { until } => until <= now,
            Listening::Idle | Listening::Closed => false,
        }
    }

    pub(super) fn resumes_at(self) -> Option<Instant> {
        match self {
            Listening::Paused { until } => Some(until),
            _ => None,
        }
    }
}

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
        // EMFILE, ENFILE, ENOBUFS, ENOMEM; and what nobody foresaw had better not spin.
        _ => AcceptFailure::OutOfResources,
    }
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Takes note of an edge on the listener.
    pub fn note_listener(&mut self) {
        if let Listening::Idle = self.listening {
            self.listening = Listening::Ready;
        }
        self.woken.by_listener = true;
    }

    /// Accepts a share of the queue.
    pub(super) fn accept(&mut self, now: Instant, env: &mut E) {
        if !self.listening.is_ready(now) {
            return;
        }
        if let Listening::Paused { .. } = self.listening {
            self.listening = Listening::Ready;
        }
        for _ in 0..self.config.limits.accepts_per_turn {
            match env.accept() {
                Ok((stream, peer)) => self.let_in(stream, peer, now, env),
                Err(error) => match classify(&error) {
                    AcceptFailure::OneConnection => {}
                    AcceptFailure::QueueEmpty => {
                        self.end_of_queue(env);
                        return;
                    }
                    AcceptFailure::OutOfResources => {
                        self.pause_accepting(&error, now, env);
                        return;
                    }
                },
            }
        }
    }

    /// A connection has been accepted; whether it may stay is for the limiter to say.
    fn let_in(&mut self, stream: E::Stream, peer: Peer, now: Instant, env: &mut E) {
        self.metrics.accepts.add(1);
        let (permit, refusal) = match self.status.connection_limiter().admit(peer, &self.config) {
            Admission::Granted(permit) => (permit, None),
            Admission::Refused(permit, rejection) => (Some(permit), Some(rejection)),
            Admission::Dropped(rejection) => {
                self.tell(|trace| trace.turned_away(peer, rejection));
                return self.metrics.rejected(rejection);
            }
        };
        let deadline = now + self.config.timeout_handshake;
        let (received, unsent) = (Vec::new(), Vec::new());
        let handoff = Handoff { stream, peer, received, unsent, deadline, permit };
        if peer == Peer::Unix
            && refusal.is_none()
            && let Some(reactor) = self.next_to_spread_to(env)
        {
            self.metrics.handed_over(reactor);
            self.tell(|trace| trace.spread(reactor));
            return self.post(reactor, Mail::HandOver(handoff), env);
        }
        let Some(id) = self.adopt(handoff, now, env) else { return };
        // Its request would change nothing, so it is not waited for.
        if let Some(rejection) = refusal {
            self.tell_more(id);
            self.reject(id, rejection, true, now);
            if self.uncork(id, now) {
                self.settle(id, false, now);
            }
            self.tell_visited(&[]);
        }
    }

    /// Which other reactor is to serve a connection from a listener that only this reactor has, each
    /// in its turn. `None` if it is this one's turn, if that one's mailbox is full, or in a drain,
    /// because the others may have ended by then.
    fn next_to_spread_to(&mut self, env: &E) -> Option<usize> {
        let reactor = self.spread_to;
        self.spread_to = (reactor + 1) % self.config.workers.get();
        let is_other = reactor != self.reactor && matches!(self.lifecycle, Lifecycle::Running);
        (is_other && self.has_room_at(reactor, env)).then_some(reactor)
    }

    fn end_of_queue(&mut self, env: &mut E) {
        self.listening = match self.listening {
            Listening::LastCall => {
                env.stop_listening();
                Listening::Closed
            }
            _ => Listening::Idle,
        };
    }

    fn pause_accepting(&mut self, error: &io::Error, now: Instant, env: &mut E) {
        if let Listening::LastCall = self.listening {
            // Nobody waits for room in a server that is leaving.
            env.stop_listening();
            self.listening = Listening::Closed;
            return;
        }
        let pauses = &self.metrics.accept_pauses;
        // One line at the first pause and at every 600th (a minute's worth): a server short of
        // descriptors must not also fill the disk.
        if pauses.get().is_multiple_of(600) {
            log::warn!(
                reactor = self.reactor;
                "cannot accept connections: {error}; trying again every {} ms",
                self.config.limits.accept_pause.as_millis()
            );
        }
        pauses.add(1);
        self.listening = Listening::Paused { until: now + self.config.limits.accept_pause };
        self.tell(TurnTrace::paused);
    }

    /// Takes in a connection, new or handed over; `None` if it cannot be watched.
    pub(super) fn adopt(
        &mut self,
        handoff: Handoff<E::Stream>,
        now: Instant,
        env: &mut E,
    ) -> Option<ConnectionId> {
        let Handoff { stream, peer, received, unsent, deadline, permit } = handoff;
        let id = self.connections.insert(|id| Connection::new(stream, id, peer, deadline));
        let alarm =
            self.connections.take_left_alarm(id).filter(|&tick| self.wheel.is_to_come(tick));
        let connection = self.connections.get_mut(id)?;
        connection.alarm = alarm;
        connection.permit = permit;
        if let Err(error) = env.register(connection.transport.stream_mut(), id) {
            log::warn!(reactor = self.reactor; "cannot watch a connection: {error}");
            self.connections.remove(id);
            return None;
        }
        let kept = connection.transport.inherit(&unsent, now, &mut self.pool);
        if let Err(error) = kept.and_then(|()| connection.keep(&received)) {
            self.lose_to(id, &error, now);
            return None;
        }
        // A connection that was handed over is looked at this turn, and read, because its peer may
        // have left meanwhile (see `upgrade`). So is one that comes in a drain: there may be no
        // further poll to bring its edge. Of all others an edge will tell.
        let at_once = !received.is_empty() || !matches!(self.lifecycle, Lifecycle::Running);
        if at_once {
            connection.transport.note(Edge { readable: true, writable: true, ..Edge::default() });
        }
        self.tell(|trace| trace.adopted(id, peer, received.len()));
        self.settle(id, at_once, now);
        Some(id)
    }
}

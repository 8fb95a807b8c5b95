//! Where connections come from: the listener; and how one is taken in, new or handed over.
//!
//! Next: [`crate::shard::mail`]: the other way in.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::Shard;
use super::drain::Lifecycle;
use super::story::Story;
use crate::application::Application;
use crate::connection::Connection;
use crate::door::Admission;
use crate::host::Host;
use crate::line::Edge;
use crate::mailbox::Parcel;
use crate::token::ConnectionId;

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

impl<A: Application, H: Host> Shard<A, H> {
    /// Takes note of an edge on the listener.
    pub fn note_listener(&mut self) {
        if let Listening::Idle = self.listening {
            self.listening = Listening::Ready;
        }
        self.woken.by_listener = true;
    }

    /// Accepts a share of the queue.
    pub(super) fn accept(&mut self, now: Instant, host: &mut H) {
        if !self.listening.is_ready(now) {
            return;
        }
        if let Listening::Paused { .. } = self.listening {
            self.listening = Listening::Ready;
        }
        for _ in 0..self.config.limits.accepts_per_turn {
            match host.accept() {
                Ok((stream, peer)) => self.let_in(stream, peer, now, host),
                Err(error) => match classify(&error) {
                    AcceptFailure::OneConnection => {}
                    AcceptFailure::QueueEmpty => {
                        self.end_of_queue(host);
                        return;
                    }
                    AcceptFailure::OutOfResources => {
                        self.pause_accepting(&error, now, host);
                        return;
                    }
                },
            }
        }
    }

    /// A connection has been accepted; whether it may stay is for the door to say.
    fn let_in(&mut self, stream: H::Stream, peer: SocketAddr, now: Instant, host: &mut H) {
        self.metrics.accepts.add(1);
        let (place, refusal) = match self.status.door().enter(peer.ip(), &self.config) {
            Admission::Welcome(place) => (place, None),
            Admission::Refused(place, rejection) => (Some(place), Some(rejection)),
            Admission::Dropped(rejection) => {
                self.tell(|story| story.turned_away(peer, rejection));
                return self.metrics.rejected(rejection);
            }
        };
        let deadline = now + self.config.timeout_handshake;
        let (received, unsent) = (Vec::new(), Vec::new());
        let parcel = Parcel { stream, peer, received, unsent, deadline, place };
        let Some(id) = self.adopt(parcel, now, host) else { return };
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

    fn end_of_queue(&mut self, host: &mut H) {
        self.listening = match self.listening {
            Listening::LastCall => {
                host.stop_listening();
                Listening::Closed
            }
            _ => Listening::Idle,
        };
    }

    fn pause_accepting(&mut self, error: &io::Error, now: Instant, host: &mut H) {
        if let Listening::LastCall = self.listening {
            // Nobody waits for room in a server that is leaving.
            host.stop_listening();
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
        self.tell(Story::paused);
    }

    /// Takes in a connection, new or handed over; `None` if it cannot be watched.
    pub(super) fn adopt(
        &mut self,
        parcel: Parcel<H::Stream>,
        now: Instant,
        host: &mut H,
    ) -> Option<ConnectionId> {
        let Parcel { stream, peer, received, unsent, deadline, place } = parcel;
        let id = self.connections.insert(|id| Connection::new(stream, id, peer, deadline));
        let alarm =
            self.connections.take_left_alarm(id).filter(|&tick| self.wheel.is_to_come(tick));
        let connection = self.connections.get_mut(id)?;
        connection.alarm = alarm;
        connection.place = place;
        if let Err(error) = host.register(connection.line.stream_mut(), id) {
            log::warn!(reactor = self.reactor; "cannot watch a connection: {error}");
            self.connections.remove(id);
            return None;
        }
        let kept = connection.line.inherit(&unsent, now, &mut self.pool);
        if let Err(error) = kept.and_then(|()| connection.keep(&received)) {
            self.lose_to(id, &error, now);
            return None;
        }
        // A connection that was handed over is looked at this turn, and read, because its peer may
        // have left meanwhile (see `upgrade`). So is one that comes in a drain: there may be no
        // further poll to bring its edge. Of all others an edge will tell.
        let at_once = !received.is_empty() || !matches!(self.lifecycle, Lifecycle::Running);
        if at_once {
            connection.line.note(Edge { readable: true, writable: true, ..Edge::default() });
        }
        self.tell(|story| story.adopted(id, peer, received.len()));
        self.settle(id, at_once, now);
        Some(id)
    }
}

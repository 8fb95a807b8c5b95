//! Callbacks that no event on a socket causes: the start, timers, and answers of off-loaded jobs.
//!
//! [`Shard::call`] is to them what a visit is to messages: what they say collects in the cork and
//! leaves in one write, and the commands they give are applied when they have returned.
//!
//! Next: [`crate::shard::closing`]: how all that ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tungstenite::protocol::frame::coding::CloseCode;

use super::closing::CloseCause;
use super::slow_turn::Callback;
use super::turn_trace::TurnTrace;
use super::{Shard, set_alarm};
use crate::application::{Application, Context, Due, Owner, ReactorContext};
use crate::connection::{Attachment, Rest};
use crate::environment::Environment;
use crate::offload::Finished;
use crate::protocol::deflate::DeflateWriter;
use crate::protocol::endpoint::Endpoint;
use crate::token::ConnectionId;

impl<A: Application, E: Environment> Shard<A, E> {
    /// Calls `on_start`.
    pub(super) fn start(&mut self) {
        self.call_for_reactor(|application, cx| application.on_start(cx));
    }

    /// Calls whoever's timers are due, a share of them.
    #[inline]
    pub(super) fn fire_application_timers(&mut self, now: Instant, env: &mut E) {
        if self.commands.timers.may_be_due(now) {
            self.fire_due(now, env);
        }
    }

    #[inline(never)]
    fn fire_due(&mut self, now: Instant, env: &mut E) {
        self.commands.timers.advance(now);
        // What they broadcast could not be delivered now; called later, they are not lost.
        if self.is_congested() {
            return;
        }
        while let Some(key) = self.commands.timers.next_due_for_reactor(now) {
            self.step(env, |shard, _| {
                let has_returned =
                    shard.call_for_reactor(|application, cx| application.on_reactor_timer(cx, key));
                if !has_returned && !shard.commands.timers.is_set_for_reactor(key) {
                    log::error!(
                        reactor = shard.reactor;
                        "timer {key} of reactor {} will not fire again: its callback panicked before \
                         it set the timer anew",
                        shard.reactor
                    );
                }
                shard.tell(TurnTrace::reactor_timer);
                shard.slow_turns.called(Callback::ReactorTimer, 1, None);
            });
        }
        // A connection's timer may be set anew by what its peer has said already.
        if self.untold > 0 {
            return;
        }
        let mut share = self.config.limits.timers_per_turn;
        while let Some((id, key)) = self.next_timer(now, &mut share) {
            self.step(env, |shard, _| shard.fire(id, key, now));
        }
    }

    fn next_timer(&mut self, now: Instant, share: &mut usize) -> Option<(ConnectionId, u64)> {
        let connections = &self.connections;
        // Who has closed has no timers.
        let is_unheard = |id: ConnectionId| {
            let connection = connections.at(id.index as usize);
            connection.is_some_and(|connection| connection.has_unheard_input())
        };
        self.commands.timers.next_due(now, share, is_unheard)
    }

    fn fire(&mut self, id: ConnectionId, key: u64, now: Instant) {
        self.tell_call(id, "timer");
        self.call(id, Callback::Timer, now, |application, cx| application.on_timer(cx, key));
        if self.is_overfed(id) {
            self.cork.clear();
            let cause = CloseCause::Failed(CloseCode::Policy, "slow consumer");
            self.leave_aside(id, cause, now);
        } else {
            self.uncork_called(id, false, now);
        }
        self.tell_visited(&[]);
    }

    /// Writes what callbacks have said to a connection, and settles it.
    fn uncork_called(&mut self, id: ConnectionId, more: bool, now: Instant) {
        if self.uncork(id, now) {
            self.settle(id, more, now);
        }
    }

    /// A job is done: whoever waits for it is called, unless it still waits for an earlier one.
    pub(super) fn take_finished(&mut self, finished: Finished, now: Instant) {
        let id = match self.commands.jobs.finish(finished) {
            Some(Owner::Connection(id)) => id,
            Some(Owner::Reactor) => return self.answer_reactor(),
            None => return,
        };
        self.tell_call(id, "an off-loaded job is done");
        while let Some(due) = self.commands.jobs.next_due(Owner::Connection(id)) {
            if let Due::OfConnection(done, value) = due {
                self.call(id, Callback::Answer, now, |application, cx| {
                    done(application, cx, value);
                });
            } else {
                self.note_panic(id);
                let cause = CloseCause::Failed(CloseCode::Error, "internal error");
                self.leave_in_visit(id, cause, now);
            }
        }
        let waits = self.commands.jobs.of(id) > 0;
        if self.is_draining() && !waits {
            // Its goodbye was put off until it had its answers.
            self.leave_in_visit(id, CloseCause::goodbye(), now);
        }
        let is_silenced = self.commands.jobs.is_busy(id) || (self.is_draining() && waits);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let resumes = connection.rest == Rest::Parked && !is_silenced;
        if resumes {
            connection.rest = Rest::Spent;
            connection.endpoint.listened_again(now, &self.protocol_limits);
        }
        self.uncork_called(id, resumes, now);
        self.tell_visited(&[]);
    }

    fn answer_reactor(&mut self) {
        while let Some(due) = self.commands.jobs.next_due(Owner::Reactor) {
            if let Due::OfReactor(done, value) = due {
                self.call_for_reactor(|application, cx| done(application, cx, value));
                self.slow_turns.called(Callback::Answer, 1, None);
            } else {
                self.note_reactor_panic();
            }
        }
    }

    /// Calls the application for an open connection, for anything but messages. What it says stays in the
    /// cork, for the caller to write.
    pub(super) fn call(
        &mut self,
        id: ConnectionId,
        name: Callback,
        now: Instant,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>),
    ) {
        let Shard {
            connections, sessions, application, cork, commands, slow_turns, deflater, ..
        } = self;
        let Some(connection) = connections.get_mut(id) else { return };
        let (Endpoint::Open(open), Attachment::Live(attachment)) =
            (&connection.endpoint, connection.attachment)
        else {
            return;
        };
        let Some(session) = sessions.of_connection(attachment.slot, id) else { return };
        let mut cx = Context {
            session,
            cork,
            outlet: Some(&mut connection.transport),
            deflate_writer: DeflateWriter::new(open.params(), deflater),
            commands,
            connection: id,
            peer: &connection.peer,
            is_resumed: attachment.is_resumed,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| callback(application, &mut cx)));
        slow_turns.called(name, 1, Some(id));
        let _ = self.apply(id, outcome.is_ok(), now);
    }

    /// Applies the commands of a callback for its connection; or ends that, if the callback panicked.
    /// Whether nothing more is to be read from it in this visit.
    pub(super) fn apply(&mut self, id: ConnectionId, returned: bool, now: Instant) -> bool {
        let cause = if !returned {
            self.note_panic(id);
            CloseCause::Failed(CloseCode::Error, "internal error")
        } else if std::mem::take(&mut self.commands.pause) {
            if std::mem::take(&mut self.commands.is_out_of_memory) {
                self.note_out_of_memory(id);
            }
            match self.commands.close.take() {
                Some((code, reason)) => CloseCause::Ours(code, reason.into()),
                None => {
                    self.park(id);
                    return true;
                }
            }
        } else {
            return false;
        };
        self.leave_in_visit(id, cause, now);
        false
    }

    /// Stops reading from a connection until one of its jobs is done.
    pub(super) fn park(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.rest = Rest::Parked;
            connection.endpoint.stopped_listening();
        }
    }

    /// Gives a parked connection its share, which is to write; one that has ended has none.
    #[cold]
    pub(super) fn visit_parked(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let share = self.config.limits.flush_bytes_per_turn;
        if connection.rest == Rest::Ended {
            return;
        }
        match connection.transport.flush(share, now, &mut self.pool) {
            Ok(()) => self.settle_parked(id),
            Err(_) => self.lose(id, now),
        }
    }

    /// Sees off a parked connection: it stays parked, whatever there is to read.
    #[cold]
    pub(super) fn settle_parked(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.rest == Rest::Ended {
            return;
        }
        if connection.transport.is_writable() && !connection.transport.backlog.is_empty() {
            self.ready.push(id, &mut connection.mark);
        }
        set_alarm(connection, &mut self.wheel, &self.protocol_limits, &self.config);
    }

    /// Whether what stands in the cork is too much for a peer that has not taken what it was sent
    /// before. As with a broadcast, the size of what nobody asked for is not its fault, but silence
    /// about a hole in its stream would be ours.
    fn is_overfed(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let waiting = connection.transport.backlog.len();
        matches!(connection.endpoint, Endpoint::Open(_))
            && !self.cork.is_empty()
            && waiting > 0
            && waiting + self.cork.len() > self.config.max_send_buffer
    }

    /// Calls the application for no connection in particular; whether it returned.
    fn call_for_reactor(
        &mut self,
        callback: impl FnOnce(&mut A, &mut ReactorContext<'_, A>),
    ) -> bool {
        let mut cx = ReactorContext { commands: &mut self.commands, reactor: self.reactor };
        let application = &mut self.application;
        let outcome = catch_unwind(AssertUnwindSafe(|| callback(application, &mut cx)));
        if outcome.is_err() {
            self.note_reactor_panic();
        }
        self.broadcasts.extend(self.commands.to_reactor.drain(..));
        outcome.is_ok()
    }

    fn note_reactor_panic(&mut self) {
        self.metrics.panics.add(1);
        log::error!(reactor = self.reactor; "the application panicked, outside of any connection");
    }
}

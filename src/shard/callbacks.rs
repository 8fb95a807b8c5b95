//! Callbacks that no message causes: the start, opening, timers, plain requests, answers of off-loaded
//! jobs, posts, and a backlog that has fallen.
//!
//! [`Parts::call`] is to them what a visit is to messages: what they say collects in the cork and
//! leaves in one write, and the commands they give are applied when they have returned. Called by the
//! turn (timers), by `mail` (answers), by `posts`, by `upgrade` (`on_open`), by `plain_requests`, and by
//! `visit` (`on_backlog_low`).
//!
//! Invariant: when a callback has returned, its commands for its connection have been applied, and
//! nothing that it has said was added to more than may wait for the peer.
//!
//! Next: `direct`: what is for one other connection.

use super::connection_set::Share;
use super::parts::Parts;
use super::runtime::{Callee, CloseCause, Next, note_reactor_panic};
use super::turn::{Outcome, Setup, Turn};
use crate::application::{
    Application, Context, Decision, Due, HttpRequest, HttpResponse, NoResponse, NotQueued, Owner,
    ReactorContext, Undo, Whose,
};
use crate::connection::{Attachment, Rest};
use crate::contained::Panicked;
use crate::environment::Environment;
use crate::observe::slow_turn::Callback;
use crate::observe::turn_trace::{TurnTrace, Why};
use crate::offload::Finished;
use crate::protocol::endpoint::Endpoint;
use crate::token::LocalId;

/// Whether the visit of a connection goes on behind a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    GoesOn,
    /// Nothing more is to be read from it in this visit.
    Stops,
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Calls `on_start`.
    ///
    /// # Errors
    ///
    /// It panicked.
    pub(super) fn start(&mut self, setup: &Setup) -> Result<(), Panicked> {
        self.call_for_reactor(setup, |application, cx| application.on_start(cx))
    }

    /// Calls the application's timers that are due, a share of them.
    #[inline]
    pub(super) fn fire_application_timers(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.runtime.commands.timers.may_be_due(turn.now) {
            self.fire_due(turn, env);
        }
    }

    #[inline(never)]
    fn fire_due(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let limits = &turn.setup.config.limits;
        self.runtime.commands.timers.advance(turn.now);
        // What they broadcast could not be delivered now; called later, they are not lost.
        if self.deliveries.is_congested(limits) {
            return;
        }
        while let Some(key) = self.runtime.commands.timers.next_due_for_reactor(turn.now) {
            turn.begin_step(env);
            self.fire_for_reactor(key, turn);
            turn.end_step(env);
        }
        // A connection's timer may be set anew by what its peer has said already.
        if self.connections.has_untold_edges() {
            return;
        }
        let mut share = limits.timers_per_turn;
        while let Some((id, key)) = self.next_timer(&mut share, turn) {
            turn.begin_step(env);
            self.fire(id, key, turn);
            turn.end_step(env);
        }
    }

    fn fire_for_reactor(&mut self, key: u64, turn: &mut Turn<'_>) {
        let reactor = turn.setup.reactor;
        let called = self.call_for_reactor(turn.setup, |application, cx| {
            application.on_reactor_timer(cx, key);
        });
        if called.is_err() && !self.runtime.commands.timers.is_set_for_reactor(key) {
            log::error!(
                reactor = reactor;
                "timer {key} of reactor {reactor} will not fire again: its callback panicked before \
                 it set the timer anew"
            );
        }
        turn.tell(TurnTrace::reactor_timer);
        turn.observer.slow_turns.called(Callback::ReactorTimer, 1, None);
    }

    fn next_timer(&mut self, share: &mut usize, turn: &Turn<'_>) -> Option<(LocalId, u64)> {
        let slab = &self.connections.slab;
        // One that has closed has no timers.
        let is_unheard = |id: LocalId| {
            let connection = slab.at(id.index as usize);
            connection.is_some_and(|connection| connection.has_unheard_input())
        };
        self.runtime.commands.timers.next_due(turn.now, share, is_unheard)
    }

    fn fire(&mut self, id: LocalId, key: u64, turn: &mut Turn<'_>) {
        self.call_aside(id, Callback::Timer, turn, |application, cx| application.on_timer(cx, key));
    }

    /// Calls the application for an open connection outside of its own visit, and writes what it says.
    pub(super) fn call_aside(
        &mut self,
        id: LocalId,
        name: Callback,
        turn: &mut Turn<'_>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>),
    ) {
        self.observe(id, Why::Call(name.name()), turn);
        self.call(id, name, turn, callback);
        self.uncork_and_settle(id, Share::Left, turn);
        self.observed(&[], turn);
    }

    /// The backlog of a connection has been above the high-water mark, and has fallen to the low-water
    /// mark in this visit. The application is told, if the connection is still open. It is read at the
    /// next visit, as it is then: the callback may have closed it, or filled its backlog again.
    #[cold]
    #[inline(never)]
    pub(super) fn tell_backlog_low(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        if self.connections.get(id).is_some_and(|connection| connection.is_open()) {
            turn.tell(|trace| trace.backlog_low(id));
        }
        self.call(id, Callback::BacklogLow, turn, |application, cx| application.on_backlog_low(cx));
        self.uncork_and_settle(id, Share::UsedUp, turn);
    }

    /// A job is done: the callback that waits for it is called, unless it still waits for an earlier
    /// one.
    pub(super) fn take_finished(&mut self, finished: Finished, turn: &mut Turn<'_>) {
        self.take_answer(finished, None, turn);
    }

    /// The same for a question to another reactor: `undo` gives back what it has taken there, if nothing comes of
    /// it.
    pub(super) fn take_answer(
        &mut self,
        finished: Finished,
        undo: Option<Undo<A>>,
        turn: &mut Turn<'_>,
    ) {
        let whose = self.runtime.commands.jobs.finish(finished);
        if let Some(undo) = undo {
            self.keep_undo(whose, undo);
        }
        match whose {
            Whose::Of(owner) => self.deliver_answers(owner, turn),
            // Its connection is gone, so nothing ends; but a job that panics is a defect.
            Whose::Nobodys { has_failed: true } => note_reactor_panic(turn.setup),
            Whose::Nobodys { has_failed: false } => {}
        }
    }

    /// Calls the application with the answers of jobs that are due to this one.
    pub(super) fn deliver_answers(&mut self, owner: Owner, turn: &mut Turn<'_>) {
        match owner {
            Owner::Connection(id) => self.answer_connection(id, turn),
            Owner::Request(id) => self.read_again(id, turn),
            Owner::Reactor => self.answer_reactor(turn),
        }
    }

    fn answer_connection(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        self.observe(id, Why::Call("an off-loaded job is done"), turn);
        while let Some(due) = self.runtime.commands.jobs.next_due(Owner::Connection(id)) {
            if let Due::OfConnection(done, value) = due {
                self.call(id, Callback::Answer, turn, |application, cx| {
                    if let Some(done) = done.into_inner() {
                        done(application, cx, value);
                    }
                });
            } else {
                self.end_panicked(id, turn);
            }
        }
        let waits = self.runtime.commands.jobs.of(id) > 0;
        let is_due_to_leave = self.lifecycle.has_passed(id.index);
        if is_due_to_leave && !waits {
            // Its goodbye was put off until it had its answers.
            self.leave_in_visit(id, self.lifecycle.goodbye(), turn);
        }
        let is_silenced = self.runtime.commands.jobs.is_busy(id) || (is_due_to_leave && waits);
        let Some(connection) = self.connections.get(id) else { return };
        let mut share = Share::Left;
        if connection.rest == Rest::Parked && !is_silenced {
            self.connections.unpark(id, turn);
            share = Share::UsedUp;
        }
        self.uncork_and_settle(id, share, turn);
        self.observed(&[], turn);
    }

    fn answer_reactor(&mut self, turn: &mut Turn<'_>) {
        while let Some(due) = self.runtime.commands.jobs.next_due(Owner::Reactor) {
            if let Due::OfReactor(done, value) = due {
                let _ = self.call_for_reactor(turn.setup, |application, cx| {
                    if let Some(done) = done.into_inner() {
                        done(application, cx, value);
                    }
                });
                turn.observer.slow_turns.called(Callback::Answer, 1, None);
            } else {
                note_reactor_panic(turn.setup);
            }
        }
    }

    /// Calls the application for an open connection, for anything but messages. What it says stays in the
    /// cork, for the caller to write. A peer above the high-water mark gets none of it, and is closed
    /// instead: to drop it without a word would leave a hole in the stream.
    pub(super) fn call(
        &mut self,
        id: LocalId,
        name: Callback,
        turn: &mut Turn<'_>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>),
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let (Endpoint::Open(open), Attachment::Live(live)) =
            (&connection.endpoint, connection.attachment)
        else {
            return;
        };
        let callee = Callee {
            id,
            peer: &connection.peer,
            session: live.slot,
            is_resumed: live.is_resumed,
            outlet: Some((&mut connection.transport, open.params())),
        };
        let before = self.runtime.cork.len();
        if self.runtime.is_stored {
            self.runtime.note_count(live.slot, id);
        }
        let called = self.runtime.invoke(callee, |application, cx, _| callback(application, cx));
        let Some(outcome) = called else { return };
        // Nothing of the cork has left meanwhile: it stands behind a backlog.
        if connection.is_above_mark(&turn.setup.config) && self.runtime.cork.len() > before {
            self.runtime.commands.end_unqueued(NotQueued::SlowConsumer, before);
        }
        turn.observer.slow_turns.called(name, 1, Some(id));
        // Before a command ends it: then it has no session any more that could be asked for.
        if self.runtime.is_stored {
            let _ = self.end_stored_call(id, turn);
        }
        match outcome {
            Ok(()) => {
                let _ = self.apply_commands(id, turn);
            }
            Err(Panicked) => self.end_panicked(id, turn),
        }
    }

    /// Applies what the callbacks of a visit have commanded for its connection.
    pub(super) fn apply_commands(&mut self, id: LocalId, turn: &mut Turn<'_>) -> Reading {
        if self.runtime.commands.forgets_session
            && let Some(connection) = self.connections.get(id)
            && let Attachment::Live(live) = connection.attachment
        {
            self.forget_session_if_asked(live.slot, id);
        }
        match self.runtime.next(id, turn) {
            Next::Continue => Reading::GoesOn,
            Next::Park => {
                self.connections.park(id);
                Reading::Stops
            }
            Next::Close(cause) => {
                self.leave_in_visit(id, cause, turn);
                Reading::GoesOn
            }
        }
    }

    /// A callback of this connection panicked, or a job of its: it ends.
    #[cold]
    pub(super) fn end_panicked(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let _ = self.runtime.take_ending();
        turn.note_panic(id, Outcome::Closes);
        self.leave_in_visit(id, CloseCause::panicked(), turn);
    }

    /// Calls the application for no connection in particular.
    pub(super) fn call_for_reactor(
        &mut self,
        setup: &Setup,
        callback: impl FnOnce(&mut A, &mut ReactorContext<'_, A>),
    ) -> Result<(), Panicked> {
        let outcome = self.invoke_for_reactor(setup, callback);
        if outcome.is_err() {
            note_reactor_panic(setup);
        }
        outcome
    }

    /// The same; what a panic means is the caller's to tell.
    pub(super) fn invoke_for_reactor<R>(
        &mut self,
        setup: &Setup,
        callback: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> R,
    ) -> Result<R, Panicked> {
        let outcome = self.runtime.invoke_for_reactor(setup, callback);
        self.take_commands_for_all();
        outcome
    }

    /// Asks the application for the response to a plain request, or, if that was off-loaded and is done, what
    /// follows from it.
    ///
    /// # Errors
    ///
    /// It panicked, or what was off-loaded did. That is counted and told; the request is the caller's to
    /// refuse.
    pub(super) fn call_for_request(
        &mut self,
        id: LocalId,
        request: &HttpRequest<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Result<HttpResponse, NoResponse>, Panicked> {
        let (name, called) = match self.runtime.commands.jobs.next_due(Owner::Request(id)) {
            None => (
                Callback::Request,
                self.invoke_for_reactor(turn.setup, |application, cx| {
                    application.on_request(cx, request)
                }),
            ),
            Some(Due::OfRequest(Decision::OfPlain(done), value)) => (
                Callback::Answer,
                self.invoke_for_reactor(turn.setup, |application, cx| match done.into_inner() {
                    Some(done) => done(application, cx, request, value),
                    None => Err(NoResponse::NotFound),
                }),
            ),
            // The job panicked, or there was no thread for it.
            Some(_) => (Callback::Answer, Err(Panicked)),
        };
        turn.observer.slow_turns.called(name, 1, Some(id));
        if called.is_err() {
            turn.setup.metrics.panics.add(1);
            log::error!(
                connection:% = id, reactor = turn.setup.reactor;
                "the application panicked over a request, which gets 500"
            );
        }
        called
    }
}

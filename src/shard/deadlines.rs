//! Deadlines: connections whose alarm went off, and jobs that are given up.
//!
//! An alarm is a hint to look; whether something is due, the endpoint says. The application's timers
//! are not in here, nor are sessions that expire: `callbacks` and `sessions` have them. Called by the
//! turn, after the visits: input that has come is read before a connection is judged late.
//!
//! Invariant: while a connection may have input that has not been read, it is not judged late. This
//! lasts a bounded time.
//!
//! Next: `drain`: how all connections end.

use super::closing::{ORPHANS_SLOT, cause_of};
use super::connection_set::Share;
use super::evictions::REPORT_SLOT;
use super::parts::Parts;
use super::runtime::CloseCause;
use super::turn::Turn;
use crate::application::{Application, Look};
use crate::connection::timer_wheel::Slot;
use crate::connection::{Connection, Rest};
use crate::environment::Environment;
use crate::http::Rejection;
use crate::observe::turn_trace::Why;
use crate::protocol::endpoint::{Endpoint, TimeoutEvent};
use crate::token::LocalId;
use crate::transport::Stream;
use tungstenite::protocol::frame::coding::CloseCode;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Looks at a share of the connections whose alarm went off.
    // In most turns none has: to find that out costs less than a call.
    #[inline(always)]
    pub(super) fn fire_alarms(&mut self, turn: &mut Turn<'_>) {
        if self.connections.has_untold_edges() {
            return;
        }
        self.connections.advance_wheel(turn.now);
        if self.connections.has_due() {
            self.fire_due_alarms(turn);
        }
    }

    #[inline(never)]
    fn fire_due_alarms(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..turn.setup.config.limits.alarms_per_turn {
            let Some((slot, connection)) = self.connections.next_due() else { break };
            match connection {
                Some(id) => {
                    self.observe(id, Why::Alarm, turn);
                    self.on_deadline(id, turn);
                    self.observed(&[], turn);
                }
                None => self.on_vacant_alarm(slot, turn),
            }
        }
    }

    /// An alarm went off for no connection.
    fn on_vacant_alarm(&mut self, slot: Slot, turn: &mut Turn<'_>) {
        match slot {
            REPORT_SLOT => self.report_evictions(turn),
            ORPHANS_SLOT => self.give_up_orphans(turn),
            _ => {}
        }
    }

    fn report_evictions(&mut self, turn: &mut Turn<'_>) {
        let evicted = self.runtime.sessions.totals().evicted;
        let (evictions, reactor) = (&mut turn.observer.evictions, turn.setup.reactor);
        if let Some(at) = evictions.report(evicted, reactor, turn.now) {
            self.connections.schedule_vacant(REPORT_SLOT, at);
        }
    }

    /// Gives up jobs that have run for too long since their connections went: they take no slot from others
    /// any more.
    fn give_up_orphans(&mut self, turn: &mut Turn<'_>) {
        let Look { given_up, again_at } = self.runtime.commands.jobs.look_at_orphans(turn.now);
        if let Some(at) = again_at {
            self.connections.schedule_vacant(ORPHANS_SLOT, at);
        }
        if given_up == 0 {
            return;
        }
        turn.tell(|trace| trace.gave_up(given_up));
        turn.setup.metrics.offloads_given_up.add(given_up as u64);
        let seconds = turn.setup.config.limits.offload_orphan_timeout.as_secs_f64();
        log::warn!(
            reactor = turn.setup.reactor;
            "off-loaded jobs that have run for {seconds} s since their clients left were given up: \
             {given_up}. Each holds its thread until it returns: look for jobs that wait without a \
             time-out, or that could ask whether they are cancelled"
        );
    }

    /// Looks at a connection whose alarm went off.
    fn on_deadline(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let config = &turn.setup.config;
        let is_congested = self.deliveries.is_congested(&config.limits);
        let Some(connection) = self.connections.slab.get_mut(id) else { return };
        if has_stalled(connection, turn) {
            match connection.endpoint {
                Endpoint::Open(_) => {
                    return self.leave_aside(id, CloseCause::slow_consumer(), turn);
                }
                Endpoint::Handshaking(_) | Endpoint::Pending(_) => {
                    return self.cut_stalled(id, turn);
                }
                _ => {}
            }
        }
        if connection.is_deaf() {
            // We do not read, so we cannot know whether the pong has come.
            return self.connections.settle(id, Share::Left, turn);
        }
        let aside = &mut self.connections.aside;
        let timeout = connection.endpoint.on_deadline(turn.now, &turn.setup.protocol_limits, aside);
        if matches!(timeout, TimeoutEvent::None | TimeoutEvent::Pinged) {
            connection.note_all_heard();
            return self.send_aside(id, turn);
        }
        // The unread input may contain what was due: the pong, the rest of a head, the Close; and the
        // mailbox may have the answer to a request. While
        // the reactor is congested it reads no connection, which is not the peer's fault.
        let is_unheard =
            connection.has_unheard_input() || matches!(connection.endpoint, Endpoint::Pending(_));
        if is_congested && is_unheard || connection.is_put_off(&config.limits) {
            return self.connections.set_alarm(id, turn);
        }
        self.end_late(id, timeout, turn);
    }

    /// A connection takes nothing that has no session yet.
    #[cold]
    #[inline(never)]
    fn cut_stalled(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        self.claims.note_loss();
        self.connections.cut(id, turn);
    }

    /// The application, or the store, has not answered what a request has asked of it.
    #[cold]
    #[inline(never)]
    fn refuse_late(&mut self, id: LocalId, turn: &mut Turn<'_>) {
        let rejection = match self.claims.contains(id) {
            true => Rejection::StoreAway,
            false => Rejection::AdmissionBusy,
        };
        self.refuse_waiting(id, rejection, turn);
    }

    /// Ends a connection because what was due has not come.
    fn end_late(&mut self, id: LocalId, timeout: TimeoutEvent, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        match timeout {
            TimeoutEvent::None | TimeoutEvent::Pinged => {}
            TimeoutEvent::HeadLate if connection.rest == Rest::Waiting => {
                self.refuse_waiting(id, Rejection::OwnerBusy, turn);
            }
            TimeoutEvent::HeadLate => self.refuse_aside(id, Rejection::HeadTimeout, turn),
            TimeoutEvent::BodyLate => self.refuse_aside(id, Rejection::BodyTimeout, turn),
            TimeoutEvent::AnswerLate => self.refuse_late(id, turn),
            TimeoutEvent::Silent => {
                turn.setup.metrics.silent.add(1);
                self.connections.cut(id, turn);
            }
            TimeoutEvent::MessageLate(violation) => {
                let cause = cause_of(id, violation, turn);
                self.leave_aside(id, cause, turn);
            }
            // The text is that of Python's websockets, which Uvicorn uses.
            TimeoutEvent::PongLate => {
                let cause = CloseCause::Failed(CloseCode::Error, "keepalive ping timeout".into());
                self.leave_aside(id, cause, turn);
            }
            TimeoutEvent::Over => {
                if connection.has_had_session() && !connection.endpoint.has_parted() {
                    self.lifecycle.note_cut();
                }
                self.connections.cut(id, turn);
            }
        }
    }
}

/// Whether the peer has taken nothing of what waits for it for too long.
fn has_stalled<S: Stream>(connection: &Connection<S>, turn: &Turn<'_>) -> bool {
    let stalled_since = connection.transport.backlog.stalled_since();
    stalled_since.is_some_and(|since| turn.now >= since + turn.setup.config.limits.send_stall)
}

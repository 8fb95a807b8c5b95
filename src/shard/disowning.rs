//! Sessions that are not this node's any more, in a store that several machines share.
//!
//! Another node has claimed one, or nobody knows what was stored of it. Then nothing of what its connections here are still
//! to be told leaves: it may never have been stored. They are closed, and the session leaves the table; the store is told
//! nothing, for it has the session. Called with the outcomes of batches and with takeovers.
//!
//! Invariant: what was held for a session that is disowned is never sent, by whichever connection.
//!
//! Next: `awaiting`: a request that waits for its answer.

use std::collections::HashSet;

use tungstenite::protocol::frame::coding::CloseCode;

use super::parts::Parts;
use super::runtime::CloseCause;
use super::turn::Turn;
use crate::application::Application;
use crate::connection::Attachment;
use crate::environment::Environment;
use crate::http::{self, Body, Rejection};
use crate::session::SessionId;
use crate::token::LocalId;

/// Why a session is not this node's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Another node has it.
    TakenOver,
    /// The store has not answered in time.
    Unavailable,
}

impl Why {
    /// What a client is told.
    fn cause(self) -> CloseCause {
        match self {
            Why::TakenOver => {
                CloseCause::Ours(CloseCode::Library(4001), "session taken over".into())
            }
            Why::Unavailable => CloseCause::Ours(CloseCode::Again, "try again later".into()),
        }
    }

    /// What one is told that has not heard yet that its WebSocket is open.
    fn rejection(self) -> Rejection {
        match self {
            Why::TakenOver => Rejection::Overtaken,
            Why::Unavailable => Rejection::StoreAway,
        }
    }
}

impl<A: Application, E: Environment> Parts<A, E> {
    /// Gives these sessions up, with all connections that wait for them to be stored.
    pub(super) fn disown(&mut self, ids: &HashSet<SessionId>, why: Why, turn: &mut Turn<'_>) {
        if ids.is_empty() {
            return;
        }
        // Those that have left their session, and are still to be told something of it.
        let mut concerned = self.commits.take_waiting_for(ids);
        // One that was forgotten here, and taken over elsewhere before the store was told, goes on there: not here too.
        let under_way = self.commits.under_way.as_ref().map(|batch| &batch.forgotten[..]);
        concerned.extend(self.runtime.speakers_of_forgotten(ids, under_way.unwrap_or_default()));
        let mut in_order: Vec<&SessionId> = ids.iter().collect();
        in_order.sort_by_key(|id| self.runtime.sessions.slot_of(id).map(|slot| slot.index()));
        for id in in_order {
            self.runtime.changes.take_back_gone(id);
            let Some(slot) = self.runtime.sessions.slot_of(id) else { continue };
            concerned.extend_from_slice(self.runtime.sessions.speakers_of(slot));
            self.pending.let_go(id);
            self.runtime.disown(slot, turn);
        }
        for id in concerned {
            self.part_with(id, why, turn);
        }
        self.note_session_ends(turn);
    }

    /// Closes a connection of which the session is not this node's any more, or was not when it left it. What is held of
    /// it does not leave.
    pub(super) fn part_with(&mut self, id: LocalId, why: Why, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.slab.get_mut(id) else { return };
        let dropped = connection.transport.drop_held(&mut self.connections.pool);
        match connection.attachment {
            Attachment::Live(live) if connection.transport.bytes_out < live.bytes_out_before => {
                // The 101 was among it.
                self.leave_unsaid(id, turn);
                turn.setup.metrics.rejected(why.rejection().index());
                let config = &turn.setup.config;
                http::refuse(why.rejection(), Body::Sent, config, &mut self.connections.aside);
                self.send_aside(id, turn);
            }
            Attachment::Live(_) => {
                if why == Why::TakenOver {
                    turn.setup.metrics.takeovers.add(1);
                }
                self.leave_aside(id, why.cause(), turn);
            }
            // Its Close was among it.
            _ if dropped > 0 => self.lose(id, turn),
            _ => {}
        }
    }
}

//! How a connection gets its session where several machines share them: the store is asked first.
//!
//! An upgrade that the application has accepted is parked, and its session claimed with the next batch, also one whose id
//! was just drawn. When the store has answered, the session is in the table as the store has it, or as it is here if
//! nobody else has had it meanwhile; then the upgrade goes on as any other (`upgrade`). So what an older connection says
//! that is displaced elsewhere is never acknowledged, and what is stored is never older than what a client was told.
//! Sends nothing: claims ride in the batches of `committing`. Called by `requests` and `mail`.
//!
//! Invariant: a session that has a connection here was claimed, and each connection that waits for a claim gets its answer
//! with that of the batch.
//!
//! Next: `watching`: WebSockets without a session.

use std::collections::HashSet;

use super::claims::{AcceptedUpgrade, ClaimedSession, Claiming, Granted};
use super::connection_set::Share;
use super::disowning::Why;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::{Application, Seen};
use crate::config::SessionIds;
use crate::connection::Attachment;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::observe::turn_trace;
use crate::protocol::endpoint::Endpoint;
use crate::session::{Joining, NotAttached, SessionId};
use crate::store::{Claimed, Outcome, Takeover};
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Opens a WebSocket that the application has accepted; if its session has to be claimed, not before that is done.
    /// Returns how much of the input was taken: nothing of it, if the application may have to be asked once more.
    #[inline]
    pub(super) fn upgrade_or_claim(
        &mut self,
        id: LocalId,
        length: usize,
        accepted: AcceptedUpgrade<A>,
        (turn, env): (&mut Turn<'_>, &mut E),
    ) -> usize {
        if self.commits.is_shared() {
            return self.upgrade_shared(id, length, accepted, (turn, env));
        }
        self.upgrade(id, accepted, turn, env);
        length
    }

    fn upgrade_shared(
        &mut self,
        id: LocalId,
        length: usize,
        mut accepted: AcceptedUpgrade<A>,
        (turn, env): (&mut Turn<'_>, &mut E),
    ) -> usize {
        if let Some(Granted { session, claimed }) = self.claims.take_granted(id) {
            if self.runtime.ownership_of(&session) != Some(claimed.ownership) {
                // Another node has claimed it meanwhile. To claim it again would have the two go on in turns.
                self.refuse_accepted(id, accepted, Rejection::Overtaken, turn);
                return length;
            }
            accepted.session_id = Some(session);
            accepted.claimed = Some(claimed);
            self.upgrade(id, accepted, turn, env);
            return length;
        }
        let is_kept = accepted.terms.seen != Seen::Nothing;
        if is_kept {
            accepted.unread = length;
            let ownership =
                accepted.session_id.as_ref().and_then(|id| self.runtime.ownership_of(id));
            accepted.seen_generation = ownership.map(|ownership| ownership.generation);
        }
        let is_parked = self.claim_session(id, accepted, turn, env);
        if is_kept && is_parked { 0 } else { length }
    }

    /// Parks an upgrade until the store has said that its session is this node's. Whether it did, and has not refused it.
    fn claim_session(
        &mut self,
        id: LocalId,
        accepted: AcceptedUpgrade<A>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> bool {
        let wanted = self.wanted_session(id, &accepted, turn, env);
        let is_parked = wanted.is_ok();
        match wanted {
            Ok(wanted) => self.park_for_claim(id, wanted, accepted, turn),
            Err(rejection) => self.refuse_accepted(id, accepted, rejection, turn),
        }
        is_parked
    }

    /// The session that is to be claimed for an upgrade, and whether its id was drawn here.
    ///
    /// # Errors
    ///
    /// Why none is to be.
    fn wanted_session(
        &mut self,
        id: LocalId,
        accepted: &AcceptedUpgrade<A>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) -> Result<(SessionId, bool), Rejection> {
        let Some(connection) = self.connections.get(id) else { return Err(Rejection::StoreAway) };
        // As in `upgrade`; only that nobody here knows whether there is such a session.
        if connection.transport.has_ended() && accepted.session_id.is_some() {
            return Err(Rejection::Superseded);
        }
        if accepted.terms.joining == Joining::TakesOver && self.pending.is_outrun(id) {
            return Err(Rejection::Overtaken);
        }
        if turn.setup.status.is_store_away() {
            return Err(Rejection::StoreAway);
        }
        if self.claims.is_full() || self.runtime.changes.is_full() {
            return Err(Rejection::OwnerBusy);
        }
        let no_id = |_| Rejection::from(NotAttached::NoId);
        if !self.claims.has_begun() {
            let mut random = [0; 8];
            env.random(&mut random).map_err(no_id)?;
            self.claims.begin(turn.setup.reactor, u64::from_le_bytes(random));
        }
        match &accepted.session_id {
            Some(named) => Ok((named.clone(), false)),
            None => {
                let drawn = self.runtime.draw_id(|room| env.random(room)).map_err(no_id)?;
                Ok((drawn, true))
            }
        }
    }

    fn park_for_claim(
        &mut self,
        id: LocalId,
        (session, is_drawn): (SessionId, bool),
        accepted: AcceptedUpgrade<A>,
        turn: &mut Turn<'_>,
    ) {
        // If its answer was awaited, it came no later for that.
        let by = self.pending.deadline(id);
        let by = by.unwrap_or_else(|| turn.now + turn.setup.protocol_limits.handshake_timeout);
        if !is_drawn {
            self.outrun_older((id, accepted.terms.joining), &session, turn);
        }
        self.forget_pending(id, turn);
        self.claims.push((session, is_drawn), (id, accepted));
        turn.tell(|trace| trace.claims(id));
        if let Some(connection) = self.connections.get_mut(id) {
            connection.endpoint.await_answer(by);
        }
        self.connections.park(id);
    }

    /// Upgrades wait no more of which the connection has gone, or was refused, in this turn; and a share of the WebSockets
    /// opens whose claims were answered. Before the commands of the turn are forwarded, and only where
    /// several machines share the sessions.
    #[inline(never)]
    pub(super) fn go_on_with_claims(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        turn.begin_step(env);
        self.forget_lost_claims(turn);
        let connections = &self.connections;
        self.claims.keep_granted(|id| {
            let connection = connections.get(id);
            connection.is_some_and(|c| {
                matches!(c.endpoint, Endpoint::Handshaking(_) | Endpoint::Pending(_))
            })
        });
        if self.claims.has_answers() {
            self.take_some_claimed(turn, env);
            // To open one may have ended another.
            self.forget_lost_claims(turn);
        }
        turn.end_step(env);
    }

    /// The first half of that.
    pub(super) fn forget_lost_claims(&mut self, turn: &mut Turn<'_>) {
        if self.claims.may_have_lost() {
            self.forget_lost(turn);
        }
    }

    #[cold]
    #[inline(never)]
    fn forget_lost(&mut self, turn: &mut Turn<'_>) {
        let connections = &self.connections;
        let lost = self.claims.take_lost(|id| {
            let connection = connections.get(id);
            connection.is_some_and(|c| matches!(c.endpoint, Endpoint::Pending(_)))
        });
        for (id, accepted) in lost {
            self.call_not_opening(id, accepted.terms.not_opening, turn);
        }
    }

    /// A batch has ended: what waited for it leaves, or never will.
    pub(super) fn take_outcome(&mut self, outcome: Outcome, turn: &mut Turn<'_>) {
        match outcome {
            Outcome::Stored { number, taken_over, regenerated, claimed } => {
                if !self.is_stored(number, turn) {
                    return;
                }
                for (id, generation) in regenerated {
                    self.runtime.regenerate(&id, generation);
                }
                self.claims.note_answers(claimed);
                // While the batch stands there: it has those who wait for it.
                self.disown(&taken_over.into_iter().collect(), Why::TakenOver, turn);
                self.release_batch(turn);
            }
            Outcome::Unavailable { number } => {
                let Some(batch) = &self.commits.under_way else {
                    return debug_assert!(false, "a batch ends once");
                };
                debug_assert_eq!(batch.number, number);
                turn.tell(|trace| trace.batch_is_lost(number));
                let ids = self.runtime.ids_in(&batch.sessions);
                self.disown(&ids, Why::Unavailable, turn);
                let batch = self.commits.under_way.take();
                for waiting in batch.into_iter().flat_map(|batch| batch.waiting) {
                    self.part_with(waiting.connection, Why::Unavailable, turn);
                }
                let is_away = turn.setup.status.is_store_away();
                let unanswered = self.claims.take_unanswered(is_away);
                self.refuse_unanswered(unanswered, turn);
            }
        }
    }

    /// Another node has a session.
    pub(super) fn take_takeover(&mut self, takeover: Takeover, turn: &mut Turn<'_>) {
        let Takeover { id, generation } = takeover;
        self.claims.note_takeover(&id, generation);
        if self.runtime.ownership_of(&id).is_some_and(|ours| ours.generation < generation) {
            self.disown(&HashSet::from([id]), Why::TakenOver, turn);
        }
    }

    fn take_some_claimed(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let limits = &turn.setup.config.limits;
        if self.deliveries.is_congested(limits) {
            return;
        }
        for _ in 0..limits.mails_per_turn {
            let Some((claimed, claiming)) = self.claims.next_answer() else { break };
            self.take_one_claimed(claimed, claiming, turn, env);
        }
        if !self.claims.has_answers() {
            // Each claim is answered with its batch: there are none.
            let unanswered = self.claims.take_unanswered(false);
            debug_assert!(unanswered.is_empty(), "claims that were not answered");
            self.refuse_unanswered(unanswered, turn);
        }
    }

    fn refuse_unanswered(
        &mut self,
        unanswered: Vec<(LocalId, AcceptedUpgrade<A>)>,
        turn: &mut Turn<'_>,
    ) {
        for (id, accepted) in unanswered {
            self.refuse_claimed(id, accepted, Rejection::StoreAway, turn);
        }
    }

    fn refuse_claimed(
        &mut self,
        id: LocalId,
        accepted: AcceptedUpgrade<A>,
        rejection: Rejection,
        turn: &mut Turn<'_>,
    ) {
        self.refuse_waiting(id, rejection, turn);
        self.call_not_opening(id, accepted.terms.not_opening, turn);
    }

    /// The session of an upgrade is this node's.
    fn take_one_claimed(
        &mut self,
        claimed: Claimed,
        claiming: Claiming<A>,
        turn: &mut Turn<'_>,
        env: &mut E,
    ) {
        let Claiming { session, is_drawn, upgrade, overtaken_by, .. } = claiming;
        let generation = claimed.generation;
        if let Some(gone) = self.runtime.changes.gone(&session) {
            // It was forgotten while the claim was under way: now the store is told so, and asked again behind that. If
            // another node has had it meanwhile, the store says that what is to be forgotten is not this any more.
            if claimed.former <= gone {
                self.runtime.changes.raise_gone(&session, claimed.generation);
            }
            if let Some(upgrade) = upgrade {
                self.claims.push((session, is_drawn), upgrade);
            }
            return;
        }
        let was_here = self.runtime.sessions.slot_of(&session).is_some();
        let is_same = self.runtime.renew(&session, &claimed, turn.now);
        if !is_same {
            self.disown(&HashSet::from([session.clone()]), Why::TakenOver, turn);
        }
        if overtaken_by > claimed.generation {
            // Another node was faster to claim it again than we to hear of ours.
            self.disown(&HashSet::from([session]), Why::TakenOver, turn);
            if let Some((id, accepted)) = upgrade {
                self.refuse_claimed(id, accepted, Rejection::Overtaken, turn);
            }
            return;
        }
        let is_known = claimed.is_known;
        match upgrade {
            None => {}
            Some((id, accepted)) if turn.setup.status.draining_since().is_some() => {
                self.refuse_claimed(id, accepted, Rejection::Draining, turn);
            }
            Some((id, accepted)) => {
                let wanted = (session.clone(), is_drawn);
                let is_as_seen = match accepted.terms.seen {
                    Seen::Nothing => true,
                    Seen::None => !was_here && !claimed.is_known,
                    // If another connection here has claimed it meanwhile, it may be asked in vain.
                    Seen::Session => {
                        was_here && is_same && accepted.seen_generation == Some(claimed.former)
                    }
                };
                self.open_claimed((id, accepted), wanted, (claimed, is_as_seen), (turn, env));
            }
        }
        if !is_known && self.runtime.sessions.slot_of(&session).is_none() {
            // Nothing came of it: the store need not keep it.
            self.runtime.changes.note_gone_of(&session, generation);
        }
    }

    /// Goes on with an upgrade, with the session as the store has it if this node has none.
    fn open_claimed(
        &mut self,
        (id, mut accepted): (LocalId, AcceptedUpgrade<A>),
        (session, is_drawn): (SessionId, bool),
        (claimed, is_as_seen): (Claimed, bool),
        (turn, env): (&mut Turn<'_>, &mut E),
    ) {
        let ownership = claimed.ownership();
        let is_here = self.runtime.sessions.slot_of(&session).is_some();
        if !is_here && claimed.is_known {
            self.runtime.load(&session, claimed, turn);
        } else if is_as_seen
            && !is_here
            && !is_drawn
            && turn.setup.config.session_ids != SessionIds::Any
        {
            // The client does not name its session, and there is none by that name.
            match self.runtime.draw_id(|room| env.random(room)) {
                Ok(drawn) => self.claims.push((drawn, true), (id, accepted)),
                Err(_) => self.refuse_claimed(id, accepted, Rejection::NoSessionId, turn),
            }
            return;
        }
        let claimed = ClaimedSession { ownership, is_drawn };
        if !is_as_seen {
            return self.ask_once_more((id, accepted), Granted { session, claimed }, turn);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.endpoint.read_again(turn.now, &turn.setup.protocol_limits);
        connection.skip(accepted.unread);
        self.observe(id, turn_trace::Why::Call("its answer has come"), turn);
        self.connections.unpark(id, turn);
        accepted.session_id = Some(session);
        accepted.claimed = Some(claimed);
        self.upgrade(id, accepted, turn, env);
        if let Some(connection) = self.connections.get_mut(id)
            && let Attachment::Never = connection.attachment
        {
            // It was refused; what stands behind the request is not read any more.
            drop(connection.take_tail());
        }
        self.uncork_and_settle(id, Share::UsedUp, turn);
        self.observed(&[], turn);
    }

    /// The application has accepted an upgrade without having seen the session that was claimed for it: what it has
    /// accepted is given back, and it is asked again.
    fn ask_once_more(
        &mut self,
        (id, accepted): (LocalId, AcceptedUpgrade<A>),
        granted: Granted,
        turn: &mut Turn<'_>,
    ) {
        self.call_not_opening(id, accepted.terms.not_opening, turn);
        // If there is none any more, it asks as if it came now.
        if self.runtime.sessions.slot_of(&granted.session).is_some() {
            // It neither expires nor makes room for another one meanwhile.
            self.stand_among_pending(id, Some(granted.session.clone()), turn);
            self.claims.grant(id, granted);
        }
        self.read_again(id, turn);
    }
}

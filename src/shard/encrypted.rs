//! The input of a connection that is encrypted: what a visit reads, and what a handshake leads to.
//!
//! The codec is [`crate::transport::tls`]'s. Here its handshakes get their share of a turn, and their outcome is counted
//! and told. Called by `visit`, which takes the input from here on as it takes any other.
//!
//! Invariant: a handshake that is not taken up in this turn is taken up in the next.
//!
//! Next: `visit`: a connection's share of a turn.

use std::io;

use super::connection_set::Share;
use super::parts::Parts;
use super::turn::Turn;
use crate::application::Application;
use crate::connection::Filled;
use crate::environment::Environment;
use crate::http::Rejection;
use crate::token::LocalId;
use crate::transport::tls::{Phase, TlsSession};

impl<A: Application, E: Environment> Parts<A, E> {
    /// Reads and decrypts; `None` if the connection is settled already, or has ended.
    pub(super) fn fill_encrypted(
        &mut self,
        id: LocalId,
        buffer: &mut [u8],
        turn: &mut Turn<'_>,
    ) -> Option<Filled> {
        let phase = self.connections.get(id)?.transport.tls_phase();
        // A storm of handshakes, each of which takes a hundred times what a message does, leaves room for those that
        // talk.
        if phase == Some(Phase::ShakingHands) && !self.connections.take_handshake_share(turn) {
            self.connections.settle(id, Share::UsedUp, turn);
            return None;
        }
        let connection = self.connections.slab.get_mut(id)?;
        let (limits, pool) = (&turn.setup.protocol_limits, &mut self.connections.pool);
        let filled = connection.fill_encrypted(buffer, turn.now, limits, pool);
        let is_new =
            phase == Some(Phase::ShakingHands) && connection.transport.tls_phase() != phase;
        match filled {
            Ok(filled) => {
                turn.setup.metrics.bytes_in.add(filled.read as u64);
                if is_new {
                    self.note_handshake(id, &buffer[filled.kept..filled.kept + filled.read], turn);
                }
                Some(filled)
            }
            Err(error) => {
                // Where the socket failed, not even the alert is on its way.
                let has_failed = connection.transport.tls_phase() == Some(Phase::Failed);
                match is_new && has_failed {
                    true => self.fail_handshake(id, &error, turn),
                    false => self.lose_to(id, &error, turn),
                }
                None
            }
        }
    }

    /// The handshake is over, or there is none to come.
    #[cold]
    fn note_handshake(&mut self, id: LocalId, input: &[u8], turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        match connection.transport.tls_phase() {
            Some(Phase::Established) => {
                let is_resumed = connection.transport.tls().is_some_and(TlsSession::is_resumed);
                let metrics = &turn.setup.metrics;
                let count = match is_resumed {
                    true => &metrics.tls_resumed,
                    false => &metrics.tls_handshakes,
                };
                count.add(1);
            }
            Some(Phase::PlainText) => self.refuse_request(id, Rejection::PlainOnTls, input, turn),
            _ => {}
        }
    }

    /// The handshake failed. The alert that says so is on its way; a reset must not overtake it.
    #[cold]
    fn fail_handshake(&mut self, id: LocalId, error: &io::Error, turn: &mut Turn<'_>) {
        turn.setup.metrics.tls_failures.add(1);
        let Some(connection) = self.connections.get_mut(id) else { return };
        log::debug!(
            connection:% = id, reactor = turn.setup.reactor;
            "{}: no TLS: {error}", connection.peer
        );
        connection.endpoint.finish(turn.now, &turn.setup.protocol_limits);
        self.connections.settle(id, Share::Left, turn);
    }
}

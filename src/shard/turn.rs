//! What every step of a turn is given: the time, the settings, the observer.
//!
//! A step gets these as one value, and the environment beside it only if it may touch that. So a
//! signature without `env` says that the step accepts nothing, sends no mail and starts no job.
//! Calls no step: `mod.rs` makes it, and each step lends it to the next.
//!
//! Invariant: all that happens in one turn happens at the same `now`.
//!
//! Next: `connection_set`: the first of the parts that work with it.

use std::sync::Arc;
use std::time::Instant;

use super::observer::Observer;
use crate::config::Config;
use crate::environment::Environment;
use crate::observe::metrics::ReactorMetrics;
use crate::observe::turn_trace::TurnTrace;
use crate::protocol::ProtocolLimits;
use crate::server_status::ServerStatus;
use crate::session::SessionId;
use crate::token::LocalId;

/// What does not change during a turn.
pub(super) struct Setup {
    /// Its reactor's number.
    pub(super) reactor: usize,
    /// When it began.
    pub(super) beginning: Instant,
    pub(super) config: Arc<Config>,
    /// The number of its last change that is in it.
    pub(super) config_changes: u64,
    /// What the protocol needs of it.
    pub(super) protocol_limits: ProtocolLimits,
    pub(super) status: Arc<ServerStatus>,
    /// Its own cells of the status.
    pub(super) metrics: Arc<ReactorMetrics>,
}

impl Setup {
    /// Takes the settings that have changed since.
    #[cold]
    pub(super) fn take_newer_config(&mut self) {
        let (changes, newer) = self.status.newer_config();
        self.config_changes = changes;
        if let Some(config) = newer {
            self.protocol_limits = ProtocolLimits::from(&*config);
            self.config = config;
        }
    }
}

/// What a callback that panicked costs its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is closed.
    Closes,
    /// Its upgrade is refused.
    Refuses,
    /// Nothing more: it was `on_close`.
    Nothing,
}

/// One turn.
pub(super) struct Turn<'a> {
    /// When it began.
    pub(super) now: Instant,
    pub(super) setup: &'a Setup,
    pub(super) observer: &'a mut Observer,
}

impl Turn<'_> {
    /// Notes something in the trace, if one is kept; nothing that every message does.
    #[inline]
    pub(super) fn tell(&mut self, note: impl FnOnce(&mut TurnTrace)) {
        if let Some(trace) = &mut self.observer.trace {
            note(trace);
        }
    }

    /// A step begins in which callbacks may run. It is timed while the cause of slow turns is sought.
    #[inline]
    pub(super) fn begin_step(&mut self, env: &mut impl Environment) {
        if self.observer.slow_turns.is_timing() {
            self.observer.slow_turns.begin(env.clock());
        }
    }

    /// That step has ended.
    #[inline]
    pub(super) fn end_step(&mut self, env: &mut impl Environment) {
        if self.observer.slow_turns.is_timing() {
            self.observer.slow_turns.end(env.clock());
        }
    }

    /// A callback of this connection panicked. The panic hook has logged where.
    #[cold]
    pub(super) fn note_panic(&mut self, id: LocalId, outcome: Outcome) {
        self.setup.metrics.panics.add(1);
        let outcome = match outcome {
            Outcome::Closes => "its connection ends with 1011",
            Outcome::Refuses => "its upgrade gets 500",
            Outcome::Nothing => "its connection had ended",
        };
        log::error!(
            connection:% = id, reactor = self.setup.reactor; "the application panicked: {outcome}"
        );
    }

    /// The state of a session cannot be stored, or not be read when it comes back; its count can.
    #[cold]
    pub(super) fn note_lost_state(&mut self, id: &SessionId, why: &str) {
        self.setup.metrics.panics.add(1);
        log::error!(session = id.prefix().as_str(), reactor = self.setup.reactor; "{why}");
    }

    /// A connection ends because there is no memory for what it sends, or for what it is sent.
    #[cold]
    pub(super) fn note_out_of_memory(&mut self, id: LocalId) {
        let ended = &self.setup.metrics.out_of_memory;
        // At the first and at every 1000th: a peer that sends large messages comes back.
        if ended.get().is_multiple_of(1000) {
            log::warn!(
                connection:% = id, reactor = self.setup.reactor;
                "out of memory: a connection was closed; lower --limit-concurrency, --ws-max-size or \
                 --max-send-buffer"
            );
        }
        ended.add(1);
    }
}

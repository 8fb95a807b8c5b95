//! The figures of the live page: who watches, and how a reactor learns what the others are doing.
//!
//! A watcher is a connection like any other of the reactor that accepted it: pings, deadlines,
//! backpressure and the drain are those of every WebSocket. It speaks for no session, and no
//! application hears of it. While there is one, its reactor *looks* once a second: it asks all
//! reactors by mail for a map of their slabs, each draws its own in its own turns, and from the
//! answers and everybody's counters one frame is made for all who watch here. No lock, and nothing at
//! all while nobody watches.
//!
//! Invariant: a reactor is asked again only when it has answered, so a look adds one mail at most to
//! any box; and a watcher that does not read misses frames, it never has two waiting.
//!
//! Next: [`crate::shard::drain`]: the last message for everybody.

use std::time::Instant;

use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use super::Shard;
use super::closing::CloseCause;
use super::turn_trace::TurnTrace;
use super::visit::Step;
use crate::application::{Application, CloseReason};
use crate::config::Limits;
use crate::connection::{Attachment, Connection};
use crate::environment::Environment;
use crate::mailbox::Mail;
use crate::observe::page::figures;
use crate::observe::slab_map::{SlabMap, SlabMapBuilder, SlotState};
use crate::protocol::endpoint::{Endpoint, Event};
use crate::protocol::frame;
use crate::protocol::handshake::{self, Accept};
use crate::protocol::head::Rejection;
use crate::token::ConnectionId;

/// What one shard has to do with watching: as the one whose watchers are told, and as one that is
/// looked at.
#[derive(Debug)]
pub(super) struct Watching {
    began: Instant,
    watchers: Vec<ConnectionId>,
    /// When the reactors are asked again; while somebody watches.
    next_look: Option<Instant>,
    /// When they were last asked: not sooner than an interval ago, however often watchers come and
    /// go.
    last_look: Option<Instant>,
    looks: u64,
    /// Whether the watchers still have to be told what came of the last look.
    owes_frame: bool,
    answers: Box<[Answer]>,
    /// Reactors that want a map of this one.
    askers: Vec<usize>,
    /// That map, as far as it is drawn.
    builder: SlabMapBuilder,
}

/// One reactor's answer to the last look.
#[derive(Debug, Clone, Default)]
struct Answer {
    is_awaited: bool,
    slab_map: Option<SlabMap>,
}

impl Watching {
    pub(super) fn new(reactors: usize, now: Instant) -> Self {
        Watching {
            began: now,
            watchers: Vec::new(),
            next_look: None,
            last_look: None,
            looks: 0,
            owes_frame: false,
            answers: vec![Answer::default(); reactors].into(),
            askers: Vec::new(),
            builder: SlabMapBuilder::default(),
        }
    }

    /// Takes note that a reactor wants a slab map.
    pub(super) fn ask(&mut self, asker: usize) {
        self.askers.push(asker);
    }

    /// Takes a slab map in. One that was asked for before the last look is as good.
    pub(super) fn note(&mut self, slab_map: SlabMap) {
        let answer = &mut self.answers[slab_map.reactor];
        answer.is_awaited = false;
        answer.slab_map = self.owes_frame.then_some(slab_map);
    }

    /// Whether a slab map is wanted that is not finished.
    pub(super) fn is_drawing(&self) -> bool {
        !self.askers.is_empty()
    }

    /// When the reactors are asked again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    fn add(&mut self, id: ConnectionId, now: Instant, limits: &Limits) {
        self.watchers.push(id);
        let soonest = self.last_look.map_or(now, |last| now.max(last + limits.look_interval));
        self.next_look.get_or_insert(soonest);
    }

    fn remove(&mut self, id: ConnectionId) {
        self.watchers.retain(|&watcher| watcher != id);
        if self.watchers.is_empty() {
            self.next_look = None;
            self.owes_frame = false;
            self.answers.iter_mut().for_each(|answer| answer.slab_map = None);
        }
    }

    /// Whether a connection is among those who are told.
    pub(super) fn is_told(&self, id: ConnectionId) -> bool {
        self.watchers.contains(&id)
    }

    pub(super) fn invariants(&self, watchers: usize) {
        assert_eq!(self.watchers.len(), watchers, "everyone who watches is told, once");
        assert_eq!(self.next_look.is_some(), watchers > 0, "a look while somebody watches");
        assert!(!self.owes_frame || watchers > 0, "a frame is owed to somebody");
    }
}

impl<A: Application, E: Environment> Shard<A, E> {
    /// Makes a connection one that watches.
    pub(super) fn watch(&mut self, id: ConnectionId, accept: &Accept, now: Instant) {
        if self.watching.watchers.len() >= self.config.limits.watchers {
            return self.reject(id, Rejection::TooManyWatchers, true, now);
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        // What is told is mostly a slab map, which is compact already: no parameters for deflate.
        connection.endpoint.open(None, now, &self.config);
        connection.attachment = Attachment::Watching;
        handshake::begin_response(accept, &mut self.cork);
        handshake::end_response(&mut self.cork);
        log::debug!(connection:% = id, reactor = self.reactor; "{} watches", connection.peer);
        self.tell(|trace| trace.watches(id));
        self.watching.add(id, now, &self.config.limits);
    }

    /// Forgets a watcher that is no longer open.
    pub(super) fn unwatch(&mut self, id: ConnectionId, reason: CloseReason) {
        log::debug!(
            connection:% = id, reactor = self.reactor, code = reason.code;
            "watches no more"
        );
        self.tell(|trace| trace.closed(id, reason, 0));
        self.watching.remove(id);
    }

    /// Takes what a watcher sends: control frames. It has nothing to say.
    #[cold]
    pub(super) fn hear_watcher(
        &mut self,
        id: ConnectionId,
        input: &mut [u8],
        at: &mut usize,
        frames: &mut usize,
        now: Instant,
    ) -> Step {
        let Shard { connections, cork, scratch, config, .. } = self;
        let Some(connection) = connections.get_mut(id) else { return Step::Gone };
        let (Endpoint::Open(open), Attachment::Watching) =
            (&mut connection.endpoint, connection.attachment)
        else {
            debug_assert!(false, "an open connection has a session, or watches");
            return Step::NeedMore;
        };
        let cause = loop {
            if *frames == 0 {
                return Step::Wait;
            }
            *frames -= 1;
            match open.next(input, at, scratch, config, now, cork) {
                Ok(Some(Event::Message(_))) => {
                    break CloseCause::Ours(CloseCode::Unsupported, "this path only tells".into());
                }
                Ok(Some(Event::Control)) if cork.len() >= config.limits.cork_bytes => {
                    return self.uncork_in_visit(id, now);
                }
                Ok(Some(Event::Control)) => {}
                Ok(Some(Event::Inflating)) => return Step::Wait,
                Ok(Some(Event::PeerClosed(code))) => break CloseCause::Answered(code),
                Ok(None) => return Step::NeedMore,
                Err(violation) => break self.cause_of(id, violation),
            }
        };
        self.leave_in_visit(id, cause, now);
        Step::Again
    }

    /// A turn's worth of watching.
    #[inline]
    pub(super) fn look(&mut self, now: Instant, env: &mut E) {
        if self.watching.is_drawing() || self.watching.next_look.is_some() {
            self.look_around(now, env);
        }
    }

    #[cold]
    fn look_around(&mut self, now: Instant, env: &mut E) {
        if self.watching.next_look.is_some_and(|at| at <= now) {
            // Whoever has not answered by now is shown as one that does not: a reactor that is held
            // up is what one watches for.
            if self.watching.owes_frame {
                self.send_figures(now);
            }
            // The last watcher may have been lost with that frame.
            if !self.watching.watchers.is_empty() {
                self.ask_all(now, env);
            }
        }
        self.draw(env);
        let Watching { owes_frame, answers, .. } = &self.watching;
        if *owes_frame && !answers.iter().any(|answer| answer.is_awaited) {
            self.send_figures(now);
        }
    }

    fn ask_all(&mut self, now: Instant, env: &mut E) {
        let here = self.reactor;
        self.tell(TurnTrace::looks);
        let watching = &mut self.watching;
        watching.last_look = Some(now);
        watching.next_look = Some(now + self.config.limits.look_interval);
        watching.looks += 1;
        watching.owes_frame = true;
        for (reactor, answer) in watching.answers.iter_mut().enumerate() {
            answer.slab_map = None;
            if answer.is_awaited {
                continue;
            }
            answer.is_awaited = if reactor == here {
                watching.askers.push(here);
                true
            } else {
                // Into a full box it is not pressed: there are better uses for it.
                env.send(reactor, Mail::Look { asker: here }).is_ok()
            };
        }
    }

    /// Draws a slice of this slab, and sends the map to all who asked once it is whole.
    fn draw(&mut self, env: &mut E) {
        if !self.watching.is_drawing() {
            return;
        }
        let limits = &self.config.limits;
        let builder = &mut self.watching.builder;
        let slots = self.connections.slots();
        let end = slots.min(limits.slab_map_slots);
        let stop = end.min(builder.drawn() + limits.look_slice);
        let from = builder.drawn();
        for index in from..stop {
            builder.push(self.connections.at(index).map_or(SlotState::Vacant, SlotState::of));
        }
        let is_whole = builder.drawn() >= end;
        if let Some(trace) = &mut self.trace {
            trace.drew(from, stop, slots);
        }
        if !is_whole {
            return;
        }
        let builder = std::mem::take(builder);
        // The slab may have become shorter on the way.
        let slots = slots.max(builder.drawn());
        let slab_map = builder.finish(self.reactor, slots);
        for asker in std::mem::take(&mut self.watching.askers) {
            if asker == self.reactor {
                self.watching.note(slab_map.clone());
            } else {
                self.post(asker, Mail::Seen(slab_map.clone()), env);
            }
        }
    }

    /// Sends what is known of all reactors to everyone who watches here and has read the last.
    fn send_figures(&mut self, now: Instant) {
        let Watching { began, looks, answers, owes_frame, watchers, .. } = &mut self.watching;
        *owes_frame = false;
        let uptime = now.saturating_duration_since(*began);
        let slab_maps = answers.iter_mut().map(|answer| answer.slab_map.take());
        let text = figures::json(self.status.reactors(), *looks, uptime, slab_maps);
        let mut encoded = Vec::with_capacity(frame::MAX_HEADER + text.len());
        frame::encode(OpCode::Data(Data::Text), text.as_bytes(), &mut encoded);
        for id in watchers.clone() {
            let has_read = |connection: &mut Connection<_>| connection.transport.backlog.is_empty();
            if self.connections.get_mut(id).is_some_and(has_read) {
                self.aside.extend_from_slice(&encoded);
                self.send_aside(id, now);
            }
        }
    }
}

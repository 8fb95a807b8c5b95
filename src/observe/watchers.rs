//! Who watches a reactor on the live page, and what is known of the other reactors.
//!
//! While a reactor has watchers it *looks* once a second: it asks all reactors by mail for a map of
//! their slabs. Each draws its own in its own turns. One frame is made of the answers and of all
//! reactors' counters, for all who watch here. Sends nothing: `shard/watching.rs` does, and calls this.
//!
//! Invariant: a reactor is asked again only when it has answered, so a look adds one mail at most to
//! any box.
//!
//! Next: `snapshot`: one connection, before a visit and after it.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Limits;
use crate::observe::metrics::ReactorMetrics;
use crate::observe::page::figures;
use crate::observe::slab_map::{SlabMap, SlabMapBuilder};
use crate::store::metrics::StoreMetrics;
use crate::token::LocalId;

/// What one shard has to do with watching: as the one whose watchers are told, and as one that is
/// looked at.
#[derive(Debug)]
pub(crate) struct Watchers {
    began: Instant,
    told: Vec<LocalId>,
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

impl Watchers {
    /// Nobody watches yet.
    #[must_use]
    pub(crate) fn new(reactors: usize, now: Instant) -> Self {
        Watchers {
            began: now,
            told: Vec::new(),
            next_look: None,
            last_look: None,
            looks: 0,
            owes_frame: false,
            answers: vec![Answer::default(); reactors].into(),
            askers: Vec::new(),
            builder: SlabMapBuilder::default(),
        }
    }

    // ---- as the one whose watchers are told ----

    /// A connection watches from now on.
    pub(crate) fn add(&mut self, id: LocalId, now: Instant, limits: &Limits) {
        self.told.push(id);
        let soonest = self.last_look.map_or(now, |last| now.max(last + limits.look_interval));
        self.next_look.get_or_insert(soonest);
    }

    /// It watches no more.
    pub(crate) fn remove(&mut self, id: LocalId) {
        self.told.retain(|&watcher| watcher != id);
        if self.told.is_empty() {
            self.next_look = None;
            self.owes_frame = false;
            self.answers.iter_mut().for_each(|answer| answer.slab_map = None);
        }
    }

    /// The connections that watch.
    #[must_use]
    pub(crate) fn told(&self) -> &[LocalId] {
        &self.told
    }

    /// When the reactors are asked again; `None` while nobody watches.
    #[must_use]
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// The reactors are asked now: `ask` sends the question to one of them, unless its box is full.
    pub(crate) fn look<Full>(
        &mut self,
        now: Instant,
        limits: &Limits,
        mut ask: impl FnMut(usize) -> Result<(), Full>,
    ) {
        self.last_look = Some(now);
        self.next_look = Some(now + limits.look_interval);
        self.looks += 1;
        self.owes_frame = true;
        for (reactor, answer) in self.answers.iter_mut().enumerate() {
            answer.slab_map = None;
            if !answer.is_awaited {
                answer.is_awaited = ask(reactor).is_ok();
            }
        }
    }

    /// Takes a slab map in. One that was asked for before the last look is as good.
    pub(crate) fn note(&mut self, slab_map: SlabMap) {
        let answer = &mut self.answers[slab_map.reactor];
        answer.is_awaited = false;
        answer.slab_map = self.owes_frame.then_some(slab_map);
    }

    /// Whether the watchers still have to be told what came of the last look.
    #[must_use]
    pub(crate) fn owes_frame(&self) -> bool {
        self.owes_frame
    }

    /// Whether all reactors that were asked have answered.
    #[must_use]
    pub(crate) fn has_all_answers(&self) -> bool {
        !self.answers.iter().any(|answer| answer.is_awaited)
    }

    /// The text of the frame that is owed: what is known of all reactors, and of the store. A reactor that has not
    /// answered is shown as one that does not: one that is held up is what people watch for.
    pub(crate) fn take_figures(
        &mut self,
        reactors: &[Arc<ReactorMetrics>],
        store: Option<&StoreMetrics>,
        now: Instant,
    ) -> String {
        self.owes_frame = false;
        let uptime = now.saturating_duration_since(self.began);
        let slab_maps = self.answers.iter_mut().map(|answer| answer.slab_map.take());
        figures::json(reactors, store, self.looks, uptime, slab_maps)
    }

    // ---- as the one that is looked at ----

    /// Takes note that a reactor wants a slab map.
    pub(crate) fn ask(&mut self, asker: usize) {
        self.askers.push(asker);
    }

    /// Whether a slab map is wanted that is not finished.
    #[must_use]
    pub(crate) fn is_drawing(&self) -> bool {
        !self.askers.is_empty()
    }

    /// The map that is being drawn.
    pub(crate) fn builder(&mut self) -> &mut SlabMapBuilder {
        &mut self.builder
    }

    /// The finished map, and the reactors that want it.
    pub(crate) fn finish(&mut self, reactor: usize, slots: usize) -> (SlabMap, Vec<usize>) {
        let builder = std::mem::take(&mut self.builder);
        // The slab may have become shorter on the way.
        let slots = slots.max(builder.drawn());
        (builder.finish(reactor, slots), std::mem::take(&mut self.askers))
    }

    /// Checks that it agrees with the slab, in which so many connections watch.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub(crate) fn invariants(&self, watchers: usize) {
        assert_eq!(self.told.len(), watchers, "everyone who watches is told, once");
        assert_eq!(self.next_look.is_some(), watchers > 0, "a look while somebody watches");
        assert!(!self.owes_frame || watchers > 0, "a frame is owed to somebody");
    }
}

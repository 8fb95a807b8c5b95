//! What the store does: the three scripts (`src/store/redis/*.lua`), each as a function of the stored record.
//!
//! `tests/redis` runs the same calls through these and through the scripts on a real server, and compares. Each rule can
//! be taken out, so that the search shows what it is for. Knows no nodes and no network.

use super::Number;

/// The rules that make it safe. All are on in the scripts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// A commit of a smaller generation is refused.
    pub(crate) fence: bool,
    /// What is sent again is told from what another owner sends, and from what arrives late.
    pub(crate) tokens: bool,
    /// A generation is no less than the store's time.
    pub(crate) clock: bool,
    /// The first commit on another connection gets a new generation.
    pub(crate) attempts: bool,
    /// What is forgotten leaves a tombstone.
    pub(crate) tombstones: bool,
    /// A node replies to its client when the store has answered, not before.
    pub(crate) gate: bool,
    /// A node that is told of a takeover looks at the generation.
    pub(crate) notices_have_generations: bool,
    /// When a node that comes back to a session trusts what it has of it in memory.
    pub(crate) trust: Trust,
    /// What is in memory and newer is told a client when it is stored again, not before.
    pub(crate) stores_again: bool,
    /// The store answers when its replica has it too (WAIT 1).
    pub(crate) wait: bool,
}

/// When what is in memory is taken to be no older than what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Never: it is not used.
    Never,
    /// If the generation before the claim is the one that the node has.
    OfFormer,
    /// Whenever there is something.
    Always,
}

impl Rules {
    /// As it is made, without a replica to wait for.
    pub(crate) const ALL: Rules = Rules {
        fence: true,
        tokens: true,
        clock: true,
        attempts: true,
        tombstones: true,
        gate: true,
        notices_have_generations: true,
        trust: Trust::OfFormer,
        stores_again: true,
        wait: false,
    };
}

/// One session as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) generation: Number,
    /// Whom the next claim tells; a tombstone has none.
    pub(crate) node: Option<u8>,
    /// The claim that it belongs to, and the last attempt of that.
    pub(crate) token: Option<u8>,
    pub(crate) attempt: u8,
    /// The generation that its owner had when a commit got it a new one; 0 after a claim.
    pub(crate) from: Number,
    /// `None`: nothing was committed yet. That is a count of 0.
    pub(crate) count: Option<Number>,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Caller {
    pub(crate) node: u8,
    /// The client's coming: another one each time.
    pub(crate) token: u8,
    /// Which of the node's connections to the store it is: what is sent again is sent on a later one.
    pub(crate) attempt: u8,
}

impl Caller {
    /// Whether this call, or a later one for the same claim, has been here before: it was delayed.
    fn is_late(&self, record: &Record) -> bool {
        record.token == Some(self.token) && record.attempt >= self.attempt
    }
}

/// What an owner knows of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Known {
    pub(crate) generation: Number,
    pub(crate) count: Number,
}

/// What claim and commit answer, and whom they tell of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) generation: Number,
    /// Of a claim: the generation before it; 0 if there was none, or the claim is late.
    pub(crate) former: Number,
    pub(crate) count: Option<Number>,
    /// The node that is told that it is not the owner any more.
    pub(crate) told: Option<u8>,
}

fn next_generation(rules: Rules, after: Number, clock: Number) -> Number {
    if rules.clock { clock.max(after + 1) } else { after + 1 }
}

/// `claim.lua`
pub(crate) fn claim(
    stored: &mut Option<Record>,
    rules: Rules,
    caller: Caller,
    clock: Number,
) -> Owned {
    let former = stored.as_ref().map_or(0, |record| record.generation);
    let count = stored.as_ref().and_then(|record| record.count);
    if rules.tokens && stored.as_ref().is_some_and(|record| caller.is_late(record)) {
        return Owned { generation: former, former: 0, count, told: None };
    }
    let generation = next_generation(rules, former, clock);
    let told = own(stored, caller, 0, generation, count);
    Owned { generation, former, count, told }
}

/// Writes the record of a new owner; whom that displaces.
fn own(
    stored: &mut Option<Record>,
    caller: Caller,
    from: Number,
    generation: Number,
    count: Option<Number>,
) -> Option<u8> {
    let former = stored.take().and_then(|record| record.node);
    *stored = Some(Record {
        generation,
        node: Some(caller.node),
        token: Some(caller.token),
        attempt: caller.attempt,
        from,
        count,
    });
    former.filter(|&node| node != caller.node)
}

/// `commit.lua`, for one session of the batch; `None` if the session has been taken over.
pub(crate) fn commit(
    stored: &mut Option<Record>,
    rules: Rules,
    caller: Caller,
    clock: Number,
    known: Known,
) -> Option<Owned> {
    let (mine, count) = (known.generation, Some(known.count));
    let generation = stored.as_ref().map_or(0, |record| record.generation);
    let same = Owned { generation: mine, former: 0, count, told: None };
    if let Some(record) = stored {
        let is_on = !rules.attempts || record.attempt == caller.attempt;
        if generation == mine && is_on || generation > mine && !rules.fence {
            record.count = count;
            return Some(same);
        }
        if generation > mine && (record.from != mine || !rules.tokens) {
            return None;
        }
        if rules.tokens && caller.is_late(record) {
            return None;
        }
    }
    if !rules.attempts {
        own(stored, caller, 0, mine, count);
        return Some(same);
    }
    let generation = next_generation(rules, generation.max(mine), clock);
    let told = own(stored, caller, mine, generation, count);
    Some(Owned { generation, former: 0, count, told })
}

/// `forget.lua`; whether it is forgotten, and not taken over.
pub(crate) fn forget(stored: &mut Option<Record>, rules: Rules, generation: Number) -> bool {
    let is_taken_over = |record: &Record| {
        let is_own_tombstone = record.node.is_none() && record.generation == generation + 1;
        record.generation > generation && !is_own_tombstone
    };
    if stored.as_ref().is_some_and(is_taken_over) {
        return false;
    }
    *stored = rules.tombstones.then_some(Record {
        generation: generation + 1,
        node: None,
        token: None,
        attempt: 0,
        from: 0,
        count: None,
    });
    true
}

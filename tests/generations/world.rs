//! Two nodes, one session, one store with a replica, and everything that can go wrong between them.
//!
//! A *state* is what each of them knows, and the messages that are under way; a *step* is one thing that happens. A message
//! arrives at any time, in any order, or never: so lost and delayed messages need no steps of their own, and neither does a
//! pause: nothing makes a node move. Doubled ones are those that a node sends again, on its next connection, while the first
//! is still under way. Only what TCP rules out is left out: an answer comes on the connection of its request, and a request
//! does not reach a server that was started later.
//!
//! Beside the state stands a *ledger*, which no part of the system can see: what clients have been told. It says when
//! something is wrong.

use std::collections::BTreeSet;
use std::fmt;

use super::Number;
use super::record::{self, Caller, Known, Owned, Record, Rules, Trust};

/// How often each thing happens at most: what makes the states finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Bounds {
    /// A client comes to a node.
    pub(crate) claims: u8,
    /// It sends a message.
    pub(crate) counts: u8,
    /// A node drops what it has: it ends, or gives a client up that waited for too long.
    pub(crate) crashes: u8,
    /// A node loses its connection to the store, and makes another one.
    pub(crate) cuts: u8,
    /// The replica becomes the store. (At once behind the last write: the store is started again, and has lost nothing.)
    pub(crate) failovers: u8,
    /// The record is gone: FLUSHALL, or its time was over.
    pub(crate) flushes: u8,
    /// The application forgets the session.
    pub(crate) forgets: u8,
    /// The store's clock is set back.
    pub(crate) clock_jumps: u8,
}

/// What is promised when the store fails over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// What the replica did not have is gone; nothing else is.
    UpToTheReplica,
    /// Nothing is gone.
    Everything,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Two messages were answered with the same count.
    CountedTwice,
    /// A client has been told a count, and the store has a smaller one.
    WentBack,
    /// A session that was forgotten is there again.
    CameBack,
    /// A node has told its client that a newer connection has the session (4001), and there is none.
    FalseTakeover,
    /// A node goes on with what it has in memory of a session, and something newer is stored.
    Stale,
}

/// What a node is about to do with its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Doing {
    Nothing,
    /// A reply waits for the store.
    Committing,
    /// What a client that has come is to be told waits for the store: it has lost some of it.
    StoringAgain,
    Forgetting,
}

/// A session on a node, with a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    claim: u8,
    known: Known,
    doing: Doing,
    /// For the ledger: which session of this id it is, and how often it had changed hands by then.
    life: u8,
    changes: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Node {
    /// Its connection to the store; they are numbered.
    connection: u8,
    is_cut: bool,
    /// The claim that a client waits for.
    claiming: Option<u8>,
    owner: Option<Owner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Request {
    Claim { token: u8 },
    Commit { token: u8, known: Known, life: u8 },
    Forget { generation: Number },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Answer {
    Claimed { token: u8, generation: Number, former: Number, count: Number },
    Committed { known: Known, generation: Option<Number> },
    Forgotten { generation: Number },
}

/// What the ledger knows of an answer: of which session it tells, and how often by then something had been lost, and the
/// session had changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Told {
    life: u8,
    losses: u8,
    changes: u8,
    /// For WAIT: how much was stored by then.
    version: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Request {
        node: u8,
        connection: u8,
        request: Request,
    },
    Answer {
        node: u8,
        answer: Answer,
        told: Told,
    },
    /// Published: another node has the session, with this generation.
    Notice {
        node: u8,
        generation: Number,
    },
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    ClientComes(u8),
    ClientSends(u8),
    Forgets(u8),
    Crashes(u8),
    IsCut(u8),
    ConnectsAgain(u8),
    Arrives(Delivery),
    Replicates,
    FailsOver,
    IsFlushed,
    ClockGoesBack,
}

/// A message that arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery(Message);

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Request { node, connection, request } => {
                write!(f, "at the store, from node {node} by connection {connection}: {request:?}")
            }
            Message::Answer { node, answer, .. } => write!(f, "at node {node}: {answer:?}"),
            Message::Notice { node, generation } => {
                write!(f, "at node {node}: a notice of generation {generation}")
            }
        }
    }
}

/// What is stored on one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Kept {
    record: Option<Record>,
    /// For the ledger: which session of this id it is, the claim that has it, and how often another one has got it.
    life: u8,
    holder: Option<u8>,
    changes: u8,
    /// For WAIT: how often something was stored.
    version: u8,
}

impl Kept {
    fn pass_to(&mut self, claim: u8) {
        if self.holder != Some(claim) {
            self.changes += 1;
        }
        self.holder = Some(claim);
    }

    fn count(&self) -> Number {
        self.record.as_ref().and_then(|record| record.count).unwrap_or(0)
    }
}

/// What clients have been told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Ledger {
    /// Which session of this id there is.
    life: u8,
    /// The counts that messages of it were answered with, a bit each.
    acknowledged: u32,
    /// The greatest count that a client knows.
    greatest: Number,
    /// How often something was lost, and what was left then.
    losses: u8,
    left: Number,
    /// Whether a claim or a tombstone may have been among that.
    has_lost_more: bool,
}

impl Ledger {
    /// Whether a client that hears this count now may rely on it.
    fn counts(&self, told: Told, count: Number) -> bool {
        told.life == self.life && (told.losses == self.losses || count <= self.left)
    }

    /// A client hears what was counted before it came.
    fn tell(&mut self, told: Told, count: Number) {
        if self.counts(told, count) {
            self.greatest = self.greatest.max(count);
        }
    }

    fn acknowledge(&mut self, told: Told, count: Number) -> Result<(), Violation> {
        if !self.counts(told, count) {
            return Ok(());
        }
        if self.acknowledged & (1 << count) != 0 {
            return Err(Violation::CountedTwice);
        }
        self.acknowledged |= 1 << count;
        self.greatest = self.greatest.max(count);
        Ok(())
    }

    fn lose(&mut self, left: Number) {
        self.losses += 1;
        self.left = left;
        self.has_lost_more = true;
        self.greatest = self.greatest.min(left);
        self.acknowledged &= (2 << left) - 1;
    }

    /// Another session of this id: nothing of it was told yet, as far as the ledger knows.
    fn begin(&mut self, life: u8) {
        let Ledger { losses, has_lost_more, .. } = *self;
        *self = Ledger { life, losses, has_lost_more, ..Ledger::default() };
    }
}

/// A state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    nodes: [Node; 2],
    store: Kept,
    replica: Kept,
    clock: Number,
    under_way: BTreeSet<Message>,
    next_token: u8,
    left: Bounds,
    ledger: Ledger,
}

/// What is the same in all states of a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Laws {
    pub(crate) rules: Rules,
    pub(crate) promise: Promise,
}

impl World {
    pub(crate) fn new(bounds: Bounds) -> World {
        World {
            nodes: Default::default(),
            store: Kept::default(),
            replica: Kept::default(),
            clock: 0,
            under_way: BTreeSet::new(),
            next_token: 1,
            left: bounds,
            ledger: Ledger::default(),
        }
    }

    /// Everything that can happen now.
    pub(crate) fn steps(&self, laws: Laws) -> Vec<Step> {
        // WAIT: an answer leaves when the replica has what was stored by then.
        let is_held = |message: &&Message| match message {
            Message::Answer { told, .. } => laws.rules.wait && told.version > self.replica.version,
            _ => false,
        };
        let messages = self.under_way.iter().filter(|message| !is_held(message));
        let mut steps: Vec<Step> =
            messages.map(|&message| Step::Arrives(Delivery(message))).collect();
        for (number, node) in (0..).zip(&self.nodes) {
            let idle = node.owner.as_ref().is_some_and(|owner| owner.doing == Doing::Nothing);
            let is_forgetting =
                node.owner.as_ref().is_some_and(|owner| owner.doing == Doing::Forgetting);
            let is_anything = node.owner.is_some() || node.claiming.is_some();
            let steps_of_node = [
                // One claim of a session at a time, and none before it is forgotten.
                (
                    self.left.claims > 0
                        && node.claiming.is_none()
                        && !is_forgetting
                        && !node.is_cut,
                    Step::ClientComes(number),
                ),
                (self.left.counts > 0 && idle && !node.is_cut, Step::ClientSends(number)),
                (self.left.forgets > 0 && idle && !node.is_cut, Step::Forgets(number)),
                (self.left.crashes > 0 && is_anything, Step::Crashes(number)),
                (self.left.cuts > 0 && is_anything && !node.is_cut, Step::IsCut(number)),
                (node.is_cut, Step::ConnectsAgain(number)),
            ];
            steps.extend(steps_of_node.into_iter().filter(|(can, _)| *can).map(|(_, step)| step));
        }
        let can_fail = self.left.failovers > 0;
        let steps_of_store = [
            // Without a use of it, a replica is only more states.
            ((can_fail || laws.rules.wait) && self.replica != self.store, Step::Replicates),
            (can_fail, Step::FailsOver),
            (self.left.flushes > 0 && self.store.record.is_some(), Step::IsFlushed),
            (self.left.clock_jumps > 0 && self.clock > 0, Step::ClockGoesBack),
        ];
        steps.extend(steps_of_store.into_iter().filter(|(can, _)| *can).map(|(_, step)| step));
        steps
    }

    /// The state behind a step.
    pub(crate) fn after(&self, laws: Laws, step: Step) -> Result<World, Violation> {
        let mut world = self.clone();
        match step {
            Step::ClientComes(node) => world.client_comes(node),
            Step::ClientSends(node) => world.client_sends(laws, node)?,
            Step::Forgets(node) => world.forget(node),
            Step::Crashes(node) => {
                world.left.crashes -= 1;
                let node = &mut world.nodes[usize::from(node)];
                (node.claiming, node.owner) = (None, None);
            }
            Step::IsCut(node) => {
                world.left.cuts -= 1;
                world.nodes[usize::from(node)].is_cut = true;
            }
            Step::ConnectsAgain(node) => world.connect_again(node),
            Step::Arrives(Delivery(message)) => {
                world.under_way.remove(&message);
                world.take(laws, message)?;
            }
            Step::Replicates => world.replica = world.store.clone(),
            Step::FailsOver => world.fail_over(laws),
            Step::IsFlushed => {
                world.left.flushes -= 1;
                (world.store, world.replica) = (Kept::default(), Kept::default());
                world.ledger.lose(0);
            }
            Step::ClockGoesBack => {
                world.left.clock_jumps -= 1;
                world.clock = 0;
            }
        }
        // Without the gate that does not hold for a moment; what comes of it is that two replies are the same.
        if laws.rules.gate {
            world.check()?;
        }
        world.drop_what_nobody_waits_for();
        Ok(world)
    }

    fn take(&mut self, laws: Laws, message: Message) -> Result<(), Violation> {
        match message {
            Message::Request { node, connection, request } => {
                self.execute(laws, node, connection, request)
            }
            Message::Answer { node, answer, told } => self.take_answer(laws, node, answer, told),
            Message::Notice { node, generation } => self.take_notice(laws, node, generation),
        }
    }

    /// The greatest count that a client knows.
    pub(crate) fn greatest_told(&self) -> Number {
        self.ledger.greatest
    }

    /// What clients know is in the store.
    fn check(&self) -> Result<(), Violation> {
        if self.ledger.greatest > self.store.count() {
            return Err(Violation::WentBack);
        }
        Ok(())
    }

    /// An answer that its node does not wait for now it will never wait for: counts grow, and tokens do not come again.
    fn drop_what_nobody_waits_for(&mut self) {
        let nodes = &self.nodes;
        self.under_way.retain(|message| match message {
            Message::Answer { node, answer, .. } => nodes[usize::from(*node)].waits_for(answer),
            _ => true,
        });
    }

    // ---- what nodes do ----

    fn send(&mut self, node: u8, request: Request) {
        let connection = self.nodes[usize::from(node)].connection;
        self.under_way.insert(Message::Request { node, connection, request });
    }

    fn client_comes(&mut self, node: u8) {
        self.left.claims -= 1;
        let token = self.next_token;
        self.next_token += 1;
        self.nodes[usize::from(node)].claiming = Some(token);
        self.send(node, Request::Claim { token });
    }

    fn client_sends(&mut self, laws: Laws, node: u8) -> Result<(), Violation> {
        self.left.counts -= 1;
        let Some(owner) = &mut self.nodes[usize::from(node)].owner else { return Ok(()) };
        owner.known.count += 1;
        owner.doing = Doing::Committing;
        let (known, life) = (owner.known, owner.life);
        let request = owner.request();
        if !laws.rules.gate {
            let told = Told { life, losses: self.ledger.losses, changes: 0, version: 0 };
            self.ledger.acknowledge(told, known.count)?;
        }
        request.into_iter().for_each(|request| self.send(node, request));
        Ok(())
    }

    fn forget(&mut self, node: u8) {
        self.left.forgets -= 1;
        let Some(owner) = &mut self.nodes[usize::from(node)].owner else { return };
        owner.doing = Doing::Forgetting;
        let request = Request::Forget { generation: owner.known.generation };
        self.send(node, request);
    }

    /// What was asked on the former connection, and not answered, is asked again.
    fn connect_again(&mut self, number: u8) {
        let node = &mut self.nodes[usize::from(number)];
        node.is_cut = false;
        node.connection += 1;
        let claim = node.claiming.map(|token| Request::Claim { token });
        let requests = [claim, node.owner.as_ref().and_then(Owner::request)];
        let is_of_it =
            |message: &Message| matches!(message, Message::Answer { node, .. } if *node == number);
        self.under_way.retain(|message| !is_of_it(message));
        requests.into_iter().flatten().for_each(|request| self.send(number, request));
    }

    fn take_answer(
        &mut self,
        laws: Laws,
        number: u8,
        answer: Answer,
        told: Told,
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[usize::from(number)];
        if let Answer::Claimed { token, generation, former, count } = answer {
            node.claiming = None;
            // What it has in memory stays, if that is not older. (A commit that is under way is answered before: a claim
            // stands behind it.) It may be newer, behind a failover: then it is stored again, and told when it is.
            let in_memory = node.owner.as_ref().filter(|owner| owner.doing == Doing::Nothing);
            let is_trusted = |owner: &&Owner| match laws.rules.trust {
                Trust::Never => false,
                Trust::OfFormer => owner.known.generation == former,
                Trust::Always => true,
            };
            if in_memory.filter(is_trusted).is_some_and(|owner| owner.known.count < count) {
                return Err(Violation::Stale);
            }
            let newer = in_memory
                .filter(is_trusted)
                .map(|owner| owner.known.count)
                .filter(|&newer| newer > count);
            let doing = if newer.is_some() && laws.rules.stores_again {
                Doing::StoringAgain
            } else {
                Doing::Nothing
            };
            // An older connection of this node gets its 4001 here, and what it waits for is dropped.
            let known = Known { generation, count: newer.unwrap_or(count) };
            let Told { life, changes, .. } = told;
            let owner = Owner { claim: token, known, doing, life, changes };
            let request = owner.request();
            node.owner = Some(owner);
            match request {
                Some(request) => self.send(number, request),
                None => self.ledger.tell(told, known.count),
            }
            return Ok(());
        }
        let Some(owner) = &mut node.owner else { return Ok(()) };
        let count = owner.known.count;
        match answer {
            Answer::Committed { generation: Some(generation), .. } => {
                owner.known.generation = generation;
                let was_doing = std::mem::replace(&mut owner.doing, Doing::Nothing);
                if was_doing == Doing::StoringAgain {
                    self.ledger.tell(told, count);
                } else if laws.rules.gate {
                    self.ledger.acknowledge(told, count)?;
                }
            }
            Answer::Committed { generation: None, .. } => self.close(number)?,
            Answer::Forgotten { .. } | Answer::Claimed { .. } => node.owner = None,
        }
        Ok(())
    }

    fn take_notice(&mut self, laws: Laws, number: u8, generation: Number) -> Result<(), Violation> {
        let owner = &self.nodes[usize::from(number)].owner;
        let is_newer = owner.as_ref().is_some_and(|owner| owner.known.generation < generation);
        if owner.is_some() && (is_newer || !laws.rules.notices_have_generations) {
            self.close(number)?;
        }
        Ok(())
    }

    /// Says 4001 to the client.
    fn close(&mut self, number: u8) -> Result<(), Violation> {
        let owner = self.nodes[usize::from(number)].owner.take();
        let has_changed = owner.is_none_or(|owner| owner.changes != self.store.changes);
        // If the claim that took it over was lost, there was one all the same.
        if !has_changed && !self.ledger.has_lost_more {
            return Err(Violation::FalseTakeover);
        }
        Ok(())
    }

    // ---- what the store does ----

    fn execute(
        &mut self,
        laws: Laws,
        node: u8,
        connection: u8,
        request: Request,
    ) -> Result<(), Violation> {
        let (rules, clock) = (laws.rules, self.clock + 1);
        let caller = |token| Caller { node, token, attempt: connection };
        let kept = &mut self.store;
        let before = kept.record.clone();
        let mut notice = None;
        let answer = match request {
            Request::Claim { token } => {
                let Owned { generation, former, count, told } =
                    record::claim(&mut kept.record, rules, caller(token), clock);
                let had_count = before.as_ref().is_some_and(|record| record.count.is_some());
                // What was lost may be a tombstone.
                if had_count && kept.life < self.ledger.life && !self.ledger.has_lost_more {
                    return Err(Violation::CameBack);
                }
                kept.life = self.ledger.life;
                if before != kept.record {
                    kept.pass_to(token);
                }
                notice = told.map(|node| Message::Notice { node, generation });
                let count = count.unwrap_or(0);
                Answer::Claimed { token, generation, former, count }
            }
            Request::Commit { token, known, life } => {
                let owned = record::commit(&mut kept.record, rules, caller(token), clock, known);
                if before != kept.record {
                    kept.life = life;
                    kept.pass_to(token);
                    // That an older one was forgotten had been lost, and is so again.
                    if life > self.ledger.life {
                        self.ledger.begin(life);
                    }
                }
                let generation = owned.as_ref().map(|owned| owned.generation);
                notice = owned.and_then(|Owned { generation, told, .. }| {
                    told.map(|node| Message::Notice { node, generation })
                });
                Answer::Committed { known, generation }
            }
            Request::Forget { generation } => {
                if record::forget(&mut kept.record, rules, generation) {
                    self.ledger.begin(self.ledger.life + 1);
                }
                Answer::Forgotten { generation }
            }
        };
        let generation = |record: &Option<Record>| record.as_ref().map(|record| record.generation);
        if rules.clock && generation(&before) != generation(&self.store.record) {
            self.clock = clock;
        }
        self.under_way.extend(notice);
        if rules.wait && before != self.store.record {
            self.store.version += 1;
        }
        if self.nodes[usize::from(node)].connection == connection {
            let life = match request {
                Request::Commit { life, .. } => life,
                _ => self.ledger.life,
            };
            let Kept { changes, version, .. } = self.store;
            let told = Told { life, losses: self.ledger.losses, changes, version };
            self.under_way.insert(Message::Answer { node, answer, told });
        }
        Ok(())
    }

    fn fail_over(&mut self, laws: Laws) {
        self.left.failovers -= 1;
        self.ledger.has_lost_more |= self.store != self.replica;
        self.store = self.replica.clone();
        if laws.promise == Promise::UpToTheReplica {
            if self.ledger.life != self.store.life {
                self.ledger.begin(self.store.life);
            }
            self.ledger.lose(self.store.count());
        }
        // Whoever was connected is not any more. What was under way to the former server never arrives, and what it has
        // not sent it never sends.
        self.nodes.iter_mut().for_each(|node| node.is_cut = true);
        let version = self.store.version;
        self.under_way.retain(|message| match message {
            Message::Request { .. } => false,
            Message::Answer { told, .. } => told.version <= version,
            Message::Notice { .. } => true,
        });
    }
}

impl Node {
    fn waits_for(&self, answer: &Answer) -> bool {
        if let Answer::Claimed { token, .. } = answer {
            return self.claiming == Some(*token);
        }
        let Some(owner) = &self.owner else { return false };
        match *answer {
            Answer::Claimed { .. } => false,
            Answer::Committed { known, .. } => {
                matches!(owner.doing, Doing::Committing | Doing::StoringAgain)
                    && known == owner.known
            }
            Answer::Forgotten { generation } => {
                owner.doing == Doing::Forgetting && generation == owner.known.generation
            }
        }
    }
}

impl Owner {
    /// What it asks of the store.
    fn request(&self) -> Option<Request> {
        let (known, life) = (self.known, self.life);
        match self.doing {
            Doing::Nothing => None,
            Doing::Committing | Doing::StoringAgain => {
                Some(Request::Commit { token: self.claim, known, life })
            }
            Doing::Forgetting => Some(Request::Forget { generation: known.generation }),
        }
    }
}

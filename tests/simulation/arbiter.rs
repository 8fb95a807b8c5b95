//! The store that several nodes share, and each node's way to it.
//!
//! What it does is what the exhaustive model does (`tests/generations/record.rs`), for any number of sessions; beside
//! that it keeps the states, and the times to live. A [`Link`] stands for the thread of a node: it sends what the
//! shards ask for over a connection, of which requests and answers are delayed; one that is cut loses what is under way,
//! asks again on the next one, and what was sent before may still arrive.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use revolve::session::{SessionId, owner_of};
use revolve::store::record::{Entry, decode};
use revolve::store::{Claim, Claimed, CommitBatch, Outcome, State, Takeover};

use super::pieces::chance::Chance;
use super::pieces::machine::Net;

#[path = "../generations/record.rs"]
#[allow(dead_code, reason = "the model looks at some of it")]
mod record;

pub(crate) use record::Rules;
use record::{Caller, Known, Record};

/// Generations and counts.
type Number = u64;

/// What is asked for one session.
#[derive(Debug, Clone)]
pub enum Request {
    Commit { id: SessionId, token: u64, known: (u64, u64), state: Option<State> },
    Forget { id: SessionId, generation: u64 },
    Claim(Claim),
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    Stored,
    Regenerated(SessionId, u64),
    TakenOver(SessionId),
    Claimed(Claimed),
}

/// A takeover, and which node is to be told of it.
pub type Notice = (u8, Takeover);

#[derive(Debug, Default)]
struct Kept {
    record: Option<Record>,
    state: Option<State>,
    until: Option<Instant>,
    /// The claims of this session, for numbers as small as the model's.
    tokens: Vec<u64>,
}

#[derive(Debug)]
pub struct Arbiter {
    rules: Rules,
    ttl: Duration,
    kept: BTreeMap<String, Kept>,
    /// In µs; each call takes some.
    clock: u64,
    pub refused: u64,
    pub regenerated: u64,
}

impl Arbiter {
    pub(crate) fn new(rules: Rules, ttl: Duration) -> Arbiter {
        let (kept, clock) = (BTreeMap::new(), 1_800_000_000_000_000);
        Arbiter { rules, ttl, kept, clock, refused: 0, regenerated: 0 }
    }

    /// What is stored of a session, if anything was counted in it.
    pub fn stored(&self, id: &str) -> Option<(u64, Option<&State>)> {
        let kept = self.kept.get(id)?;
        Some((kept.record.as_ref()?.count?, kept.state.as_ref()))
    }

    /// FLUSHALL.
    pub fn flush(&mut self) {
        self.kept.values_mut().for_each(|kept| (kept.record, kept.state) = (None, None));
    }

    /// Does what a node asks over its connection of this number.
    pub fn execute(
        &mut self,
        (node, attempt): (u8, u8),
        request: &Request,
        now: Instant,
    ) -> (Answer, Option<Notice>) {
        self.clock += 7;
        let (Request::Commit { id, .. }
        | Request::Forget { id, .. }
        | Request::Claim(Claim { id, .. })) = request;
        let (rules, clock, until) = (self.rules, self.clock, now.checked_add(self.ttl));
        let kept = self.kept.entry(id.text().as_str().to_owned()).or_default();
        if kept.until.is_some_and(|until| until <= now) {
            (kept.record, kept.state) = (None, None);
        }
        let former = kept.record.as_ref().map_or(0, |record| record.generation);
        let takeover = |told: Option<u8>, generation| {
            told.map(|node| (node, Takeover { id: id.clone(), generation }))
        };
        match request {
            Request::Claim(claim) => {
                let caller = Caller { node, token: kept.number_of(claim.token), attempt };
                let owned = record::claim(&mut kept.record, rules, caller, clock);
                kept.until = until;
                let claimed = Claimed {
                    token: claim.token,
                    generation: owned.generation,
                    former,
                    count: owned.count.unwrap_or(0),
                    state: kept.state.clone(),
                    is_known: owned.count.is_some(),
                };
                (Answer::Claimed(claimed), takeover(owned.told, owned.generation))
            }
            Request::Commit { token, known: (generation, count), state, .. } => {
                let caller = Caller { node, token: kept.number_of(*token), attempt };
                let known = Known { generation: *generation, count: *count };
                let Some(owned) = record::commit(&mut kept.record, rules, caller, clock, known)
                else {
                    self.refused += 1;
                    return (Answer::TakenOver(id.clone()), None);
                };
                (kept.state, kept.until) = (state.clone(), until);
                if owned.generation == *generation {
                    return (Answer::Stored, takeover(owned.told, owned.generation));
                }
                self.regenerated += 1;
                let answer = Answer::Regenerated(id.clone(), owned.generation);
                (answer, takeover(owned.told, owned.generation))
            }
            Request::Forget { generation, .. } => {
                if !record::forget(&mut kept.record, rules, *generation) {
                    self.refused += 1;
                    return (Answer::TakenOver(id.clone()), None);
                }
                (kept.state, kept.until) = (None, until);
                (Answer::Stored, None)
            }
        }
    }
}

impl Kept {
    fn number_of(&mut self, token: u64) -> u8 {
        let known = self.tokens.iter().position(|&known| known == token);
        let at = known.unwrap_or_else(|| {
            self.tokens.push(token);
            self.tokens.len() - 1
        });
        u8::try_from(at).expect("so many claims of one session are not made in a run")
    }
}

/// A batch that a shard waits for.
#[derive(Debug)]
struct Flight {
    number: u64,
    requests: Vec<Request>,
    answers: Vec<Option<Answer>>,
}

/// Which request of which flight.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    number: u64,
    at: usize,
}

/// A node's way to the store.
#[derive(Debug)]
pub struct Link {
    node: u8,
    /// The number of its connection.
    attempt: u8,
    flights: BTreeMap<usize, Flight>,
    /// Requests on their way.
    up: VecDeque<(Place, Request)>,
    /// Answers on their way.
    down: VecDeque<(Place, Answer)>,
    /// Whether a batch is answered before it is stored, which must not be.
    pub answers_early: bool,
    pub is_away: bool,
}

impl Link {
    pub fn new(node: u8, answers_early: bool) -> Link {
        Link {
            node,
            attempt: 1,
            flights: BTreeMap::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            answers_early,
            is_away: false,
        }
    }

    /// Takes the batches that shards have sent. Whether there were any.
    pub fn take(&mut self, net: &mut Net) -> bool {
        let mut has_taken = false;
        let mut at = 0;
        while at < net.batches.len() {
            let shard = net.batches[at].0;
            if self.flights.contains_key(&shard) {
                at += 1;
                continue;
            }
            has_taken = true;
            let (_, batch) = net.batches.remove(at);
            self.begin(shard, batch, net);
        }
        has_taken
    }

    fn begin(&mut self, shard: usize, batch: CommitBatch, net: &mut Net) {
        let CommitBatch { number, pieces, claims } = batch;
        let mut requests = Vec::new();
        for piece in &pieces {
            let mut entries = piece.entries();
            while let Some(entry) = decode(&mut entries).expect("what was encoded") {
                requests.push(match entry {
                    Entry::Save(saved) => {
                        let record = saved.into_record();
                        assert!(record.generation > 0 && record.token > 0, "{record:?}");
                        let known = (record.generation, record.count);
                        let (id, token, state) = (record.id, record.token, record.state);
                        Request::Commit { id, token, known, state }
                    }
                    Entry::Forget { id, generation } => Request::Forget { id, generation },
                    other => panic!("{other:?} is not a reactor's to write"),
                });
            }
        }
        let is_early = self.answers_early && claims.is_empty();
        requests.extend(claims.into_iter().map(Request::Claim));
        let flight = Flight { number, answers: vec![None; requests.len()], requests };
        for (at, request) in flight.requests.iter().enumerate() {
            self.up.push_back((Place { shard, number, at }, request.clone()));
        }
        if is_early || flight.requests.is_empty() {
            net.settle(shard, outcome(number, Vec::new()));
        } else {
            self.flights.insert(shard, flight);
        }
    }

    /// The first request arrives. Whether there was one.
    pub fn deliver(
        &mut self,
        arbiter: &mut Arbiter,
        now: Instant,
        notices: &mut Vec<Notice>,
    ) -> bool {
        if self.is_away {
            return false;
        }
        let Some((place, request)) = self.up.pop_front() else { return false };
        let (answer, notice) = arbiter.execute((self.node, self.attempt), &request, now);
        self.down.push_back((place, answer));
        notices.extend(notice);
        true
    }

    /// The first answer arrives. Whether there was one.
    pub fn receive(&mut self, net: &mut Net) -> bool {
        let Some((place, answer)) = self.down.pop_front() else { return false };
        let Some(flight) = self.flights.get_mut(&place.shard) else { return true };
        if flight.number == place.number {
            flight.answers[place.at] = Some(answer);
            if flight.answers.iter().all(Option::is_some) {
                let flight = self.flights.remove(&place.shard).expect("it was there");
                let answers = flight.answers.into_iter().flatten().collect();
                net.settle(place.shard, outcome(flight.number, answers));
            }
        }
        true
    }

    /// The connection is cut, and another one made. What was under way on the former one.
    pub fn cut(&mut self) -> Vec<(u8, u8, Request)> {
        let former = self.attempt;
        self.attempt = self.attempt.checked_add(1).expect("a run has few of them");
        self.down.clear();
        let late = self.up.drain(..).map(|(_, request)| (self.node, former, request)).collect();
        for (&shard, flight) in &self.flights {
            let Flight { number, requests, answers } = flight;
            for (at, request) in
                requests.iter().enumerate().filter(|(at, _)| answers[*at].is_none())
            {
                self.up.push_back((Place { shard, number: *number, at }, request.clone()));
            }
        }
        late
    }

    /// The time of one batch, or of all, is over. Whether there was any.
    pub fn give_up(&mut self, net: &mut Net, chance: Option<&mut Chance>) -> bool {
        let mut shards: Vec<usize> = self.flights.keys().copied().collect();
        if let (Some(chance), Some(last)) = (chance, shards.len().checked_sub(1)) {
            shards = vec![shards[chance.within(0, last)]];
        }
        for &shard in &shards {
            if let Some(Flight { number, .. }) = self.flights.remove(&shard) {
                net.settle(shard, Outcome::Unavailable { number });
            }
        }
        !shards.is_empty()
    }

    /// What is left of it when its node has gone.
    pub fn into_late(self) -> Vec<(u8, u8, Request)> {
        let Link { node, attempt, up, .. } = self;
        up.into_iter().map(|(_, request)| (node, attempt, request)).collect()
    }
}

/// A notice reaches its node.
pub fn notify(takeover: Takeover, workers: usize, net: &mut Net) {
    let owner = owner_of(takeover.id.text().as_str(), workers);
    net.take_over(owner, takeover);
}

fn outcome(number: u64, answers: Vec<Answer>) -> Outcome {
    let (mut taken_over, mut regenerated, mut claimed) = (Vec::new(), Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Answer::Stored => {}
            Answer::Regenerated(id, generation) => regenerated.push((id, generation)),
            Answer::TakenOver(id) => taken_over.push(id),
            Answer::Claimed(claim) => claimed.push(claim),
        }
    }
    Outcome::Stored { number, taken_over, regenerated, claimed }
}

//! The store's threads as one server has them, with reactors that a test plays: it sends their batches, and reads what they
//! are told.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use revolve::resp::ServerAddress;
use revolve::session::SessionId;
use revolve::store::metrics::StoreMetrics;
use revolve::store::redis::RedisOptions;
use revolve::store::redis::requests::{RedisThreads, SharedReports};
use revolve::store::thread::{CommitSender, StoreEnd, commit_channel};
use revolve::store::{
    Batch, BatchLimits, Change, Claim, Claimed, CommitBatch, Outcome, Presence, Record, State,
    Takeover,
};

/// So long nothing takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Reactors of each node.
pub(crate) const REACTORS: usize = 2;

/// What reactors are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Settled(usize, Outcome),
    TakenOver(usize, Takeover),
    Available,
    Away(String),
    Failed(String),
}

pub(crate) struct Node {
    pub(crate) metrics: Arc<StoreMetrics>,
    sender: CommitSender,
    told: Receiver<Told>,
    threads: RedisThreads,
    batches: u64,
}

/// For a node of this name.
pub(crate) fn options(address: ServerAddress, name: &str) -> RedisOptions {
    RedisOptions {
        address,
        prefix: "test:".to_owned(),
        node: name.to_owned(),
        ttl_ms: 3_600_000,
        timeout: PATIENCE,
        replicas: 0,
    }
}

impl Node {
    pub(crate) fn start(options: RedisOptions) -> Node {
        let (sender, commits) = commit_channel(REACTORS);
        let (teller, told) = mpsc::channel();
        let [settled, taken_over, availability, failed] = [0; 4].map(|_| teller.clone());
        // A test that has ended hears nothing.
        let reports = SharedReports {
            settled: Box::new(move |reactor, outcome| {
                let _ = settled.send(Told::Settled(reactor, outcome));
            }),
            taken_over: Box::new(move |reactor, takeover| {
                let _ = taken_over.send(Told::TakenOver(reactor, takeover));
            }),
            availability: Box::new(move |is_available, why| {
                let told = if is_available { Told::Available } else { Told::Away(why.to_owned()) };
                let _ = availability.send(told);
            }),
            failed: Box::new(move |why| {
                let _ = failed.send(Told::Failed(why.to_owned()));
            }),
        };
        let metrics = Arc::<StoreMetrics>::default();
        let threads =
            RedisThreads::start(options, commits, REACTORS, metrics.clone(), reports).unwrap();
        Node { metrics, sender, told, threads, batches: 0 }
    }

    /// One that serves.
    pub(crate) fn serving(options: RedisOptions) -> Node {
        let node = Node::start(options);
        node.wait_for(|told| *told == Told::Available);
        node
    }

    /// The first thing of this kind that is told; what is told before it is dropped.
    pub(crate) fn wait_for(&self, mut is_it: impl FnMut(&Told) -> bool) -> Told {
        let mut passed = Vec::new();
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(told) if is_it(&told) => return told,
                Ok(told) => passed.push(told),
                Err(error) => panic!("{error}; {passed:?}"),
            }
        }
    }

    /// Waits until it is told that the store is away, for this reason.
    pub(crate) fn wait_until_away(&self, why: &str) {
        self.wait_for(|told| matches!(told, Told::Away(said) if said.contains(why)));
    }

    pub(crate) fn wait_until_available(&self) {
        self.wait_for(|told| *told == Told::Available);
    }

    /// Sends a batch of this reactor; its number.
    pub(crate) fn send(&mut self, reactor: usize, changes: &[Change], claims: Vec<Claim>) -> u64 {
        self.batches += 1;
        let mut piece = Batch::new(BatchLimits { batch_bytes: 4 << 20, state_bytes: 64 << 10 });
        changes.iter().for_each(|change| piece.push(change).unwrap());
        let batch = CommitBatch { number: self.batches, pieces: vec![piece], claims };
        self.sender.send(reactor, batch);
        self.batches
    }

    /// How the batch that was sent last has ended.
    pub(crate) fn outcome(&self) -> Outcome {
        let is_it = |outcome: &Outcome| match outcome {
            Outcome::Stored { number, .. } | Outcome::Unavailable { number } => {
                *number == self.batches
            }
        };
        match self.wait_for(|told| matches!(told, Told::Settled(_, outcome) if is_it(outcome))) {
            Told::Settled(_, outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn claim(&mut self, token: u64, name: &str) -> Claimed {
        self.send(0, &[], vec![Claim { token, id: id(name) }]);
        match self.outcome() {
            Outcome::Stored { claimed, .. } => claimed.into_iter().next().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Commits this count; under which generation it is stored, if it is.
    pub(crate) fn commit(&mut self, owned: &mut Owned, count: u64) -> Committed {
        self.send(0, &[owned.saved(count)], vec![]);
        match self.outcome() {
            Outcome::Unavailable { .. } => Committed::Unavailable,
            Outcome::Stored { taken_over, .. } if !taken_over.is_empty() => {
                assert_eq!(taken_over, [owned.id.clone()]);
                Committed::TakenOver
            }
            Outcome::Stored { regenerated, .. } => match &regenerated[..] {
                [] => Committed::Stored,
                [(_, generation)] => {
                    assert!(*generation > owned.generation);
                    owned.generation = *generation;
                    Committed::Regenerated
                }
                other => panic!("{other:?}"),
            },
        }
    }

    /// Ends it, as when its reactors have ended.
    pub(crate) fn end(self) -> (StoreEnd, Receiver<Told>) {
        drop(self.sender);
        (self.threads.join(PATIENCE), self.told)
    }
}

/// What a node has of a session.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) id: SessionId,
    pub(crate) token: u64,
    pub(crate) generation: u64,
}

impl Owned {
    pub(crate) fn new(name: &str, claimed: &Claimed) -> Owned {
        Owned { id: id(name), token: claimed.token, generation: claimed.generation }
    }

    pub(crate) fn saved(&self, count: u64) -> Change {
        Change::Save(Record {
            id: self.id.clone(),
            generation: self.generation,
            token: self.token,
            count,
            state: Some(state(count)),
            presence: Presence::Attached,
        })
    }
}

/// A state that belongs to this count and to no other.
pub(crate) fn state(count: u64) -> State {
    State { version: (count % 3) as u32, bytes: count.to_string().into_bytes().into() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committed {
    Stored,
    Regenerated,
    TakenOver,
    Unavailable,
}

pub(crate) fn id(name: &str) -> SessionId {
    SessionId::parse(name).unwrap()
}

//! The ledger of sessions: which have begun, how far each has counted, and how each has ended.
//!
//! Kept by the recorder. Each session has a number of its own, which is its state: so two that have the same
//! id, one after the other, are told apart.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use revolve::session::owner_of;
use revolve::{EndedSession, SessionEnd};

use super::machine::Machine;
use super::recorder::Recorder;

thread_local! {
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// A session's number: never the same twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

impl Default for Number {
    fn default() -> Self {
        LAST.set(LAST.get() + 1);
        Number(LAST.get())
    }
}

#[derive(Debug)]
struct Session {
    id: String,
    count: u64,
    /// The clients that speak for it now.
    speakers: Vec<SocketAddr>,
    is_forgotten: bool,
}

/// All sessions of one run.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Those that have begun and not ended.
    sessions: BTreeMap<Number, Session>,
    pub expired: u64,
    pub evicted: u64,
    pub not_kept: u64,
    pub forgotten: u64,
    pub with_server: u64,
    /// Whether the server has begun to end.
    pub may_end_with_server: bool,
}

impl Ledger {
    /// A client has opened with this session; only one that shares it may find others there. Returns how
    /// many have it now.
    pub fn open(
        &mut self,
        number: Number,
        (who, is_sharing): (SocketAddr, bool),
        told: (&str, u64, bool),
    ) -> usize {
        let (id, count, is_resumed) = told;
        if is_resumed {
            let known = self.sessions.get_mut(&number).expect("a session came back that had ended");
            assert!(!known.is_forgotten, "a session came back that was forgotten");
            assert_eq!((&*known.id, known.count), (id, count), "it came back as another one");
            assert!(is_sharing || known.speakers.is_empty(), "two connections of one session");
            known.speakers.push(who);
            known.speakers.len()
        } else {
            assert_eq!(count, 0, "a new session has counted");
            assert_eq!(self.named(id), None, "two sessions have one id");
            let speakers = vec![who];
            let session = Session { id: id.to_owned(), count, speakers, is_forgotten: false };
            let before = self.sessions.insert(number, session);
            assert!(before.is_none(), "a session began twice");
            1
        }
    }

    /// A message was counted.
    pub fn count(&mut self, number: Number, count: u64) {
        let session = self.sessions.get_mut(&number).expect("a session counts that has ended");
        assert_eq!(count, session.count + 1, "a count was skipped or repeated");
        session.count = count;
    }

    /// Whether this client speaks for this session.
    pub fn is_speaker(&self, number: Number, who: SocketAddr) -> bool {
        self.sessions.get(&number).is_some_and(|session| session.speakers.contains(&who))
    }

    /// A client speaks for this session no more. Returns how many did, this one among them.
    pub fn close(&mut self, number: Number, who: SocketAddr) -> usize {
        assert!(self.is_speaker(number, who), "a close for a connection that was not live");
        let session = self.sessions.get_mut(&number).expect("it has a speaker");
        let before = session.speakers.len();
        session.speakers.retain(|&speaker| speaker != who);
        before
    }

    /// The application has it forgotten.
    pub fn forget(&mut self, number: Number) {
        let session =
            self.sessions.get_mut(&number).expect("a session is forgotten that has ended");
        session.is_forgotten = true;
    }

    /// Whether it is there, and its id names it.
    pub fn is_named(&self, number: Number) -> bool {
        self.sessions.get(&number).is_some_and(|session| !session.is_forgotten)
    }

    /// The clients that speak for this session.
    pub fn speakers_of(&self, number: Number) -> impl Iterator<Item = SocketAddr> {
        self.sessions.get(&number).into_iter().flat_map(|session| session.speakers.iter().copied())
    }

    /// The clients that have a connection.
    pub fn speakers(&self) -> impl Iterator<Item = SocketAddr> {
        self.sessions.values().flat_map(|session| session.speakers.iter().copied())
    }

    /// The ids that name a session with a connection, in an order that a seed decides.
    pub fn live_ids(&self) -> Vec<String> {
        let live = self.sessions.values().filter(|session| !session.speakers.is_empty());
        let mut ids: Vec<_> = live
            .filter(|session| !session.is_forgotten)
            .map(|session| session.id.clone())
            .collect();
        ids.sort();
        ids
    }

    /// A session has ended; `forgets` is whether those that have counted something may, in this run.
    pub fn end(&mut self, ended: &EndedSession<Number>, forgets: bool) {
        let session = self.sessions.remove(ended.state()).expect("a session ended twice");
        let last = (ended.session_id(), ended.count());
        assert_eq!(last, (session.id, session.count), "it ended as another one");
        assert_eq!(session.speakers, [], "a session ended under its connection");
        let is_forgotten = ended.reason() == SessionEnd::Forgotten;
        assert_eq!(is_forgotten, session.is_forgotten, "ended as {:?}", ended.reason());
        match ended.reason() {
            SessionEnd::NotKept => {
                assert!(forgets || session.count == 0, "it was worth keeping");
                self.not_kept += 1;
            }
            SessionEnd::Expired => {
                assert!(forgets && session.count > 0, "it was not to expire");
                self.expired += 1;
            }
            SessionEnd::Evicted => {
                assert!(forgets && session.count > 0, "there was room for it");
                self.evicted += 1;
            }
            SessionEnd::Forgotten => self.forgotten += 1,
            SessionEnd::ServerEnded => {
                assert!(self.may_end_with_server, "the server goes on");
                self.with_server += 1;
            }
            reason => panic!("ended as {reason:?}"),
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many have ended.
    pub fn ended(&self) -> u64 {
        self.expired + self.evicted + self.not_kept + self.forgotten + self.with_server
    }

    /// The session that has this id.
    fn named(&self, id: &str) -> Option<Number> {
        let mut named =
            self.sessions.iter().filter(|(_, session)| session.id == id && !session.is_forgotten);
        named.next().map(|(number, _)| *number)
    }

    /// Every session that has begun and not ended is in its owner's table, with its count, and no other. One
    /// that was forgotten has no name there, and is there for its connection alone.
    pub fn check(&self, machine: &Machine<Recorder>) {
        let mut kept = Vec::new();
        for (at, shard) in machine.shards().enumerate() {
            for (id, count) in shard.session_counts() {
                assert_eq!(owner_of(&id, machine.len()), at, "a session in the wrong table");
                kept.push((id, count));
            }
        }
        let is_alone = |s: &Session| s.is_forgotten && s.speakers.is_empty();
        assert!(!self.sessions.values().any(is_alone), "forgotten, and not ended");
        let known = self.sessions.values().filter(|session| !session.is_forgotten);
        let mut known: Vec<_> = known.map(|session| (session.id.clone(), session.count)).collect();
        kept.sort();
        known.sort();
        assert_eq!(kept, known, "sessions are neither kept nor ended");
    }
}

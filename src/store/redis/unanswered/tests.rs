//! Batches to bytes, replies to outcomes: whole, and with each reply replaced by what else may come.

use super::*;
use crate::resp::{ErrorKind, ServerAddress, ServerError};
use crate::session::SessionId;
use crate::store::batch::{Batch, BatchLimits};
use crate::store::claim::{Claim, Claimed};
use crate::store::record::{Change, Presence, Record, State};
use crate::store::redis::RedisOptions;
use crate::store::redis::calls::SESSIONS_A_CALL;
use crate::store::redis::scripts::Scripts;

/// What a server may say instead of what a script answers, and what that is.
const ERRORS: [(&str, ErrorKind); 7] = [
    ("NOSCRIPT No matching script", ErrorKind::NoScript),
    ("LOADING Redis is loading the dataset in memory", ErrorKind::Loading),
    ("OOM command not allowed when used memory > 'maxmemory'", ErrorKind::OutOfMemory),
    ("READONLY You can't write against a read only replica", ErrorKind::ReadOnly),
    ("NOAUTH Authentication required", ErrorKind::NotAuthenticated),
    ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::NotPersisting),
    ("NOREPLICAS Not enough good replicas to write", ErrorKind::NoReplicas),
];

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn options(replicas: u32) -> RedisOptions {
    RedisOptions {
        address: ServerAddress::parse("redis://host").unwrap(),
        prefix: "p:".to_owned(),
        node: "n".to_owned(),
        ttl_ms: 60_000,
        timeout: Duration::from_secs(2),
        replicas,
    }
}

fn save(name: &str, generation: u64, state: Option<State>) -> Change {
    Change::Save(Record {
        id: id(name),
        generation,
        token: 9,
        count: 3,
        state,
        presence: Presence::Attached,
    })
}

fn batch(number: u64, changes: &[Change], claims: &[(u64, &str)]) -> CommitBatch {
    let mut piece = Batch::new(BatchLimits { batch_bytes: 1 << 20, state_bytes: 1 << 10 });
    changes.iter().for_each(|change| piece.push(change).unwrap());
    let claim = |&(token, name): &(u64, &str)| Claim { token, id: id(name) };
    let claims = claims.iter().map(claim).collect();
    CommitBatch { number, pieces: vec![piece], claims }
}

/// The batches of two reactors, written by the store's thread on its first connection: of reactor 0 a session with a state,
/// one that is forgotten, one that is saved behind that, and a claim; of reactor 1 a claim.
struct Written {
    unanswered: Unanswered,
    begun: Instant,
}

fn written(replicas: u32) -> Written {
    let (mut unanswered, begun) = (Unanswered::new(), Instant::now());
    let state = Some(State { version: 7, bytes: Box::new(*b"\r\n\xff") });
    let forget = Change::Forget { id: id("b"), generation: 20 };
    let changes = [save("a", 10, state), forget, save("c", 30, None)];
    let deadline = begun + Duration::from_secs(2);
    unanswered.receive(0, batch(1, &changes, &[(5, "d")]), deadline);
    unanswered.receive(1, batch(4, &[], &[(6, "e")]), deadline);
    let mut written = Written { unanswered, begun };
    written.write(replicas, 1);
    written
}

impl Written {
    fn write(&mut self, replicas: u32, attempt: u64) -> Pipeline {
        let (options, scripts) = (options(replicas), Scripts::new());
        let caller = Caller { options: &options, scripts: &scripts, attempt };
        let mut pipeline = Pipeline::new();
        self.unanswered.write(&caller, self.begun, &mut pipeline).unwrap();
        pipeline
    }
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.into())
}

/// What Redis answers to [`written`], if all goes well.
fn replies() -> Vec<Reply> {
    let claimed = |fields: [Reply; 5]| Reply::Array(fields.into());
    vec![
        Reply::Array(vec![Reply::Integer(1)]),
        bulk("S"),
        Reply::Array(vec![bulk("31")]),
        claimed([bulk("40"), bulk("39"), bulk("12"), bulk("7"), bulk("xyz")]),
        claimed([bulk("50"), bulk("0"), Reply::Null, Reply::Null, Reply::Null]),
    ]
}

fn outcomes() -> [(usize, Outcome); 2] {
    let state = Some(State { version: 7, bytes: Box::new(*b"xyz") });
    let known = Claimed { token: 5, generation: 40, former: 39, count: 12, state, is_known: true };
    let new =
        Claimed { token: 6, generation: 50, former: 0, count: 0, state: None, is_known: false };
    let first = Outcome::Stored {
        number: 1,
        taken_over: vec![],
        regenerated: vec![(id("c"), 31)],
        claimed: vec![known],
    };
    let second =
        Outcome::Stored { number: 4, taken_over: vec![], regenerated: vec![], claimed: vec![new] };
    [(0, first), (1, second)]
}

fn commands(pipeline: &Pipeline) -> Vec<Vec<String>> {
    let mut decoder = crate::resp::Decoder::new(8 << 20);
    decoder.feed(pipeline.as_bytes());
    let mut commands = Vec::new();
    while let Some(command) = decoder.next_reply().unwrap() {
        let part = |part: &Reply| String::from_utf8_lossy(part.bytes().unwrap()).into_owned();
        commands.push(command.array().unwrap().iter().map(part).collect());
    }
    commands
}

#[test]
fn changes_keep_their_order_and_claims_stand_behind_them() {
    let pipeline = written(2).write(2, 3);
    let scripts = Scripts::new();
    let [claim, commit, forget] =
        [&scripts.claim, &scripts.commit, &scripts.forget].map(|script| script.name());
    let own = ["n", "3", "60000", "p:node:"];
    let call = |script: &str, key: &str, rest: &[&str]| -> Vec<String> {
        [&["EVALSHA", script, "1", key], rest].concat().into_iter().map(str::to_owned).collect()
    };
    let commit = |key: &str, session: [&str; 6]| call(commit, key, &[&own[..], &session].concat());
    let claim = |name: &str, token: &str| {
        let key = format!("p:session:{name}");
        call(claim, &key, &["n", token, "3", "60000", "p:node:", name])
    };
    let wait = ["WAIT", "2", "1600"].map(str::to_owned).to_vec();
    assert_eq!(
        commands(&pipeline),
        [
            commit("p:session:a", ["a", "9", "10", "3", "7", "\r\n\u{fffd}"]),
            call(forget, "p:session:b", &["20", "3600000"]),
            commit("p:session:c", ["c", "9", "30", "3", "", ""]),
            claim("d", "5"),
            claim("e", "6"),
            wait,
        ]
    );
}

#[test]
fn replies_are_outcomes() {
    let Written { mut unanswered, .. } = written(0);
    let settled = unanswered.settle(replies());
    assert_eq!(settled.outcomes, outcomes());
    assert!(settled.trouble.is_none() && unanswered.is_empty());
}

#[test]
fn what_was_taken_over_is_named() {
    let Written { mut unanswered, .. } = written(0);
    let mut replies = replies();
    replies[0] = Reply::Array(vec![Reply::Integer(0)]);
    replies[1] = bulk("T");
    let settled = unanswered.settle(replies);
    let Outcome::Stored { taken_over, .. } = &settled.outcomes[0].1 else { panic!() };
    assert_eq!(taken_over, &[id("a"), id("b")]);
    assert_eq!(settled.outcomes[1], outcomes()[1]);
}

/// An error is that of one batch: the others are settled, and it waits, to be sent again.
#[test]
fn each_reply_may_be_an_error_and_is_asked_for_again() {
    for at in 0..5 {
        for (line, kind) in ERRORS {
            let mut written = written(0);
            let mut wrong = replies();
            wrong[at] = Reply::Error(ServerError::from_line(line.as_bytes()));
            let settled = written.unanswered.settle(wrong);
            let (other, own) = if at < 4 { (1, 0..4) } else { (0, 4..5) };
            assert_eq!(settled.outcomes, [outcomes()[other].clone()], "{at}, {line}");
            let trouble = settled.trouble.unwrap();
            assert!(matches!(
                &trouble,
                Trouble::Connection(ConnectionError::Refused { error, .. }) if error.kind() == kind
            ));
            let line = trouble.to_string();
            assert!(line.contains(line.split(' ').next().unwrap()) && !line.contains('\n'));
            // The same calls, as the next attempt.
            assert_eq!(written.write(0, 2).len(), own.len(), "{at}, {line}");
            let settled = written.unanswered.settle(replies()[own].to_vec());
            assert_eq!(settled.outcomes, [outcomes()[1 - other].clone()], "{at}, {line}");
            assert!(written.unanswered.is_empty());
        }
    }
}

/// What would be refused again is not asked again, and does not cost the others their connection.
#[test]
fn what_is_wrong_with_one_batch_alone_ends_it() {
    for at in 0..5 {
        let mut written = written(0);
        let mut wrong = replies();
        let line = b"WRONGTYPE Operation against a key holding the wrong kind of value";
        wrong[at] = Reply::Error(ServerError::from_line(line));
        let settled = written.unanswered.settle(wrong);
        let mut expected = outcomes();
        match at {
            0..4 => expected[0].1 = Outcome::Unavailable { number: 1 },
            _ => expected[1].1 = Outcome::Unavailable { number: 4 },
        }
        assert_eq!(settled.outcomes, expected);
        assert!(settled.trouble.is_none() && written.unanswered.is_empty());
        assert!(settled.given_up.unwrap().to_string().contains("WRONGTYPE"));
    }
}

/// Whatever a script does not answer settles nothing.
#[test]
fn each_reply_may_be_of_another_form() {
    let strange = || {
        let long = "99999999999999999999999";
        [
            Reply::Null,
            Reply::Integer(2),
            Reply::Integer(-1),
            Reply::Array(vec![]),
            bulk("X"),
            Reply::Array(vec![Reply::Integer(1), Reply::Integer(1)]),
            Reply::Array(vec![Reply::Integer(7)]),
            Reply::Array(vec![bulk("+7")]),
            Reply::Array(vec![bulk(long)]),
            Reply::Array(vec![Reply::Null; 5]),
            Reply::Array(vec![bulk("1"), bulk("0"), Reply::Null, bulk("1"), Reply::Null]),
            Reply::Array(vec![bulk("1"), bulk("0"), bulk("1"), bulk(long), bulk("s")]),
            Reply::Array(vec![bulk("1"), bulk("-1"), bulk("1"), bulk("1"), bulk("s")]),
        ]
    };
    for at in 0..5 {
        for (number, reply) in strange().into_iter().enumerate() {
            let mut written = written(0);
            let mut wrong = replies();
            wrong[at] = reply;
            let settled = written.unanswered.settle(wrong);
            assert!(settled.trouble.is_some(), "{at}, {number}");
            assert_eq!(settled.outcomes.len(), 1, "{at}, {number}");
            assert!(!written.unanswered.is_empty());
        }
    }
}

#[test]
fn missing_replies_settle_nothing_and_further_ones_are_trouble() {
    for count in 0..5 {
        let mut written = written(0);
        let settled = written.unanswered.settle(replies()[..count].to_vec());
        assert_eq!(settled.outcomes, outcomes()[..usize::from(count >= 4)], "{count}");
        assert!(settled.trouble.is_some());
    }
    let mut written = written(0);
    let more = [replies(), vec![Reply::Integer(1)]].concat();
    assert!(written.unanswered.settle(more).trouble.is_some());
}

#[test]
fn nothing_is_settled_before_replicas_have_it() {
    let error = ServerError::from_line(b"ERR WAIT cannot be used with replica instances");
    for wait in [Reply::Integer(0), Reply::Integer(1), Reply::Null, Reply::Error(error)] {
        let mut written = written(2);
        let settled = written.unanswered.settle([replies(), vec![wait]].concat());
        assert!(settled.outcomes.is_empty());
        assert!(settled.trouble.is_some());
        // All of it again.
        assert_eq!(written.write(2, 2).len(), 6);
        let settled = written.unanswered.settle([replies(), vec![Reply::Integer(3)]].concat());
        assert_eq!(settled.outcomes, outcomes());
    }
    let mut written = written(2);
    let settled = written.unanswered.settle([replies(), vec![Reply::Integer(1)]].concat());
    let line = settled.trouble.unwrap().to_string();
    assert_eq!(line, "1 of 2 replicas have acknowledged (--store-replicas)");
}

#[test]
fn a_batch_whose_time_is_over_has_an_outcome_and_no_other() {
    let mut written = written(0);
    let Written { unanswered, begun } = &mut written;
    assert_eq!(unanswered.next_deadline(), Some(*begun + Duration::from_secs(2)));
    assert!(unanswered.expire(*begun + Duration::from_millis(1999)).is_empty());
    let over = unanswered.expire(*begun + Duration::from_secs(2));
    let expected =
        [(0, Outcome::Unavailable { number: 1 }), (1, Outcome::Unavailable { number: 4 })];
    assert_eq!(over, expected);
    assert!(unanswered.is_empty() && unanswered.next_deadline().is_none());
    // Nothing is asked any more, not even for replicas.
    assert!(written.write(2, 2).is_empty());
}

/// Else the first one, sent again, would overwrite what the second one has stored.
#[test]
fn the_second_batch_of_a_reactor_waits_for_the_first() {
    let mut written = written(0);
    let later = written.begun + Duration::from_secs(3);
    written.unanswered.receive(1, batch(5, &[save("e", 50, None)], &[]), later);
    assert_eq!(written.write(0, 1).len(), 5);
    let settled = written.unanswered.settle(replies());
    assert_eq!(settled.outcomes, outcomes());
    assert_eq!(written.write(0, 1).len(), 1);
    // Also if the first one had no answer.
    written.unanswered.receive(0, batch(2, &[], &[(7, "f")]), later);
    written.unanswered.receive(0, batch(3, &[], &[(8, "f")]), later);
    assert_eq!(written.write(0, 2).len(), 2);
}

#[test]
fn a_call_has_its_most_sessions_and_an_empty_batch_has_none() {
    let names: Vec<String> = (0..=2 * SESSIONS_A_CALL).map(|number| format!("s{number}")).collect();
    let changes: Vec<Change> = names.iter().map(|name| save(name, 1, None)).collect();
    let mut unanswered = Unanswered::new();
    let begun = Instant::now();
    unanswered.receive(0, batch(1, &changes, &[]), begun);
    unanswered.receive(1, batch(1, &[], &[]), begun);
    let mut written = Written { unanswered, begun };
    let pipeline = written.write(0, 1);
    let keys: Vec<String> = commands(&pipeline).iter().map(|call| call[2].clone()).collect();
    assert_eq!(keys, ["512", "512", "1"]);
    let stored = |count| Reply::Array(vec![Reply::Integer(1); count]);
    let settled = written.unanswered.settle(vec![stored(512), stored(512), stored(1)]);
    assert_eq!(settled.outcomes.len(), 2);
    assert!(settled.trouble.is_none());
}

//! The scripts of sessions on several machines, on a real server: each answer against the model's, and all of them from many
//! connections at once.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use revolve::resp::script::Calling;
use revolve::resp::{Connection, Event, Pipeline, Reply, Script, Subscriber};
use revolve::store::redis::scripts;

use crate::Number;
use crate::record::{self, Caller, Known, Owned, Record, Rules};
use crate::server::{Redis, ask, bulk, ok, options};

/// Longer than any test.
const TTL_MS: Number = 3_600_000;

struct Scripts {
    claim: Script,
    commit: Script,
    forget: Script,
}

impl Scripts {
    fn new() -> Scripts {
        Scripts { claim: scripts::claim(), commit: scripts::commit(), forget: scripts::forget() }
    }

    fn claim(
        &self,
        connection: &mut Connection,
        key: &str,
        caller: Caller,
    ) -> (Number, Option<Number>) {
        let (generation, _, count) = self.claim_with_former(connection, key, caller);
        (generation, count)
    }

    /// The generation, the one before, and the count.
    fn claim_with_former(
        &self,
        connection: &mut Connection,
        key: &str,
        caller: Caller,
    ) -> (Number, Number, Option<Number>) {
        let reply = connection.run(&self.claim, 1, |call| {
            call.add(key);
            call.add_number(caller.node.into());
            call.add_number(caller.token.into());
            call.add_number(caller.attempt.into());
            call.add_number(TTL_MS);
            call.add("node:");
            call.add(key);
        });
        match reply.unwrap() {
            Reply::Array(answer) => match &answer[..] {
                [generation, former, count, version, state] => {
                    // The state goes with the count, and its version with both.
                    assert_eq!(count.bytes().map(state_of), state.bytes().map(<[u8]>::to_vec));
                    assert_eq!(number(count).map(|count| count % 3), number(version));
                    (number(generation).unwrap(), number(former).unwrap(), number(count))
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// For each session the generation under which it is stored, if it is.
    fn commit_batch(
        &self,
        connection: &mut Connection,
        (node, attempt): (u8, u8),
        batch: &[(&str, u8, Known)],
    ) -> Vec<Option<Number>> {
        let mut pipeline = Pipeline::new();
        pipeline.push_script(&self.commit, Calling::ByName, batch.len(), |call| {
            batch.iter().for_each(|(key, ..)| call.add(key));
            call.add_number(node.into());
            call.add_number(attempt.into());
            call.add_number(TTL_MS);
            call.add("node:");
            for (key, token, known) in batch {
                call.add(key);
                call.add_number((*token).into());
                call.add_number(known.generation);
                call.add_number(known.count);
                call.add_number(known.count % 3);
                call.add(state_of(known.count.to_string().as_bytes()));
            }
        });
        let replies = connection.exchange(&pipeline).unwrap();
        let [Reply::Array(answers)] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(answers.len(), batch.len());
        let of_answer = |(answer, (.., known)): (&Reply, &(&str, u8, Known))| match answer {
            Reply::Integer(0) => None,
            Reply::Integer(1) => Some(known.generation),
            new => Some(number(new).unwrap()),
        };
        answers.iter().zip(batch).map(of_answer).collect()
    }

    fn commit(
        &self,
        connection: &mut Connection,
        key: &str,
        caller: Caller,
        known: Known,
    ) -> Option<Number> {
        let batch = [(key, caller.token, known)];
        self.commit_batch(connection, (caller.node, caller.attempt), &batch)[0]
    }

    fn forget(&self, connection: &mut Connection, key: &str, generation: Number) -> bool {
        let reply = connection.run(&self.forget, 1, |call| {
            call.add(key);
            call.add_number(generation);
            call.add_number(TTL_MS);
        });
        match reply.unwrap().bytes() {
            Some(b"S") => true,
            Some(b"T") => false,
            other => panic!("{other:?}"),
        }
    }
}

/// A state that belongs to this count and to no other.
fn state_of(count: &[u8]) -> Vec<u8> {
    [b"state\r\n\xff", count].concat()
}

fn number(reply: &Reply) -> Option<Number> {
    let text = reply.bytes()?;
    Some(std::str::from_utf8(text).unwrap().parse().unwrap())
}

/// What is stored, as the model has it.
fn stored(connection: &mut Connection, key: &str) -> Option<Record> {
    let fields = ["generation", "node", "token", "attempt", "from", "count"];
    let reply = ask(connection, &[&["HMGET", key][..], &fields].concat());
    let fields: Vec<Option<Number>> = reply.array().unwrap().iter().map(number).collect();
    let small = |field: Option<Number>| field.map(|number| number.try_into().unwrap());
    Some(Record {
        generation: fields[0]?,
        node: small(fields[1]),
        token: small(fields[2]),
        attempt: small(fields[3]).unwrap_or(0),
        from: fields[4].unwrap_or(0),
        count: fields[5],
    })
}

fn time_us(connection: &mut Connection) -> Number {
    let reply = ask(connection, &["TIME"]);
    let parts: Vec<Number> = reply.array().unwrap().iter().filter_map(number).collect();
    parts[0] * 1_000_000 + parts[1]
}

/// A generation is the clock's, unless the record's is greater already; the model is told what the clock said.
fn clock_of(generation: Number, times: (Number, Number)) -> Number {
    if (times.0..=times.1).contains(&generation) { generation } else { times.0 }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Calls in any order, with generations that owners have, had, or never had; behind each, answer and record are the model's.
#[test]
fn each_script_does_what_the_model_does() {
    let server = Redis::start(&[]);
    let (mut connection, scripts) = (server.connect(), Scripts::new());
    connection.load(&[&scripts.commit]).unwrap();
    let mut outcomes = std::collections::BTreeMap::new();
    for seed in 0..60 {
        let random = &mut Random(seed);
        let key = format!("session:{seed}");
        let mut model: Option<Record> = None;
        let mut generations: Vec<Number> = vec![1];
        for _ in 0..50 {
            let (node, token) = (random.below(2) as u8, random.below(3) as u8);
            let caller = Caller { node, token, attempt: random.below(3) as u8 };
            let mut generation = generations[random.below(generations.len() as u64) as usize];
            // Far behind the clock: as if that had gone back since.
            if random.below(20) == 0 {
                generation += 3_600_000_000;
            }
            let known = Known { generation, count: random.below(100) };
            let began = time_us(&mut connection);
            let call = random.below(8);
            let outcome = match call {
                0..=2 => {
                    let answer = scripts.claim_with_former(&mut connection, &key, caller);
                    let (generation, _, count) = answer;
                    generations.push(generation);
                    let clock = clock_of(generation, (began, time_us(&mut connection)));
                    let expected = record::claim(&mut model, Rules::ALL, caller, clock);
                    let Owned { generation, former, count: its_count, .. } = expected;
                    assert_eq!(answer, (generation, former, its_count), "seed {seed}");
                    format!("claim, {}", if count.is_some() { "with a count" } else { "new" })
                }
                3..=6 => {
                    let generation = scripts.commit(&mut connection, &key, caller, known);
                    generations.extend(generation);
                    let times = (began, time_us(&mut connection));
                    let clock = clock_of(generation.unwrap_or(0), times);
                    let expected = record::commit(&mut model, Rules::ALL, caller, clock, known);
                    let expected = expected.map(|owned| owned.generation);
                    assert_eq!(generation, expected, "seed {seed}");
                    match generation {
                        None => "commit, taken over",
                        Some(same) if same == known.generation => "commit, stored",
                        Some(_) => "commit, stored under a new generation",
                    }
                    .to_owned()
                }
                _ if random.below(3) == 0 => {
                    assert!(ask(&mut connection, &["DEL", &key]).integer().is_some());
                    model = None;
                    "lost".to_owned()
                }
                _ => {
                    let is_forgotten = scripts.forget(&mut connection, &key, generation);
                    let expected = record::forget(&mut model, Rules::ALL, generation);
                    assert_eq!(is_forgotten, expected, "seed {seed}");
                    format!("forget, {is_forgotten}")
                }
            };
            assert_eq!(stored(&mut connection, &key), model, "seed {seed}: {outcome}");
            if model.is_some() {
                let left = ask(&mut connection, &["PTTL", &key]).integer().unwrap();
                assert!(left > 0, "seed {seed}: {outcome}: a record that never goes");
            }
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
    }
    println!("{outcomes:?}");
    // Every answer that a script has was given.
    assert_eq!(outcomes.len(), 8, "{outcomes:?}");
}

/// A batch is stored session by session: one that was taken over keeps no other from being stored.
#[test]
fn of_a_batch_each_session_is_judged_alone() {
    let server = Redis::start(&[]);
    let (mut connection, scripts) = (server.connect(), Scripts::new());
    connection.load(&[&scripts.commit]).unwrap();
    let keys: Vec<String> = (0..512).map(|number| format!("session:{number}")).collect();
    let (mine, others) = ((1, 0), Caller { node: 2, token: 2, attempt: 0 });
    let caller = Caller { node: 1, token: 1, attempt: 0 };
    let mut batch = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let (generation, _) = scripts.claim(&mut connection, key, caller);
        batch.push((key.as_str(), 1, Known { generation, count: number as Number }));
        if number % 3 == 1 {
            scripts.claim(&mut connection, key, others);
        } else if number % 3 == 2 {
            ask(&mut connection, &["DEL", key]);
        }
    }
    let answers = scripts.commit_batch(&mut connection, mine, &batch);
    for (number, (key, _, known)) in batch.iter().enumerate() {
        let record = stored(&mut connection, key).unwrap();
        match number % 3 {
            0 => assert_eq!(answers[number], Some(known.generation), "{key}"),
            1 => assert_eq!(answers[number], None, "{key}"),
            _ => assert!(answers[number] > Some(known.generation), "{key}"),
        }
        assert_eq!(record.count, (number % 3 != 1).then_some(known.count), "{key}");
        assert_eq!(record.token, Some(if number % 3 == 1 { 2 } else { 1 }), "{key}");
    }
}

/// The former owner's node is told, with the generation that it has to compare; nobody is told of its own claim.
#[test]
fn a_takeover_is_told_to_the_node_that_has_the_session() {
    let server = Redis::start(&[]);
    let (mut connection, scripts) = (server.connect(), Scripts::new());
    connection.load(&[&scripts.commit]).unwrap();
    let mut subscriber = Subscriber::connect(&server.address("", ""), &options()).unwrap();
    subscriber.subscribe(&["node:1", "node:2"]).unwrap();
    let patience = options().reply_timeout;
    let mut next = || subscriber.next_event(patience).unwrap();
    assert_eq!(next(), Some(Event::Subscribed(b"node:1".to_vec())));
    assert_eq!(next(), Some(Event::Subscribed(b"node:2".to_vec())));
    let caller = |node, token| Caller { node, token, attempt: 0 };
    let told = |node: u8, generation: Number| {
        let channel = format!("node:{node}").into_bytes();
        Some(Event::Message { channel, payload: format!("{generation} key").into_bytes() })
    };
    scripts.claim(&mut connection, "key", caller(1, 1));
    scripts.claim(&mut connection, "key", caller(1, 2));
    let (second, _) = scripts.claim(&mut connection, "key", caller(2, 3));
    assert_eq!(next(), told(1, second));
    // It is late: an answer, and nobody is told again.
    assert_eq!(scripts.claim(&mut connection, "key", caller(2, 3)), (second, None));
    // Node 1 has had a greater one, of which the store knows nothing any more.
    let known = Known { generation: second + 1, count: 7 };
    let third = scripts.commit(&mut connection, "key", caller(1, 4), known).unwrap();
    assert!(third > second + 1);
    assert_eq!(next(), told(2, third));
    // A tombstone belongs to nobody.
    assert!(scripts.forget(&mut connection, "key", third));
    // It is sent again after a cut: the tombstone is its own.
    assert!(scripts.forget(&mut connection, "key", third));
    assert!(!scripts.forget(&mut connection, "key", third - 1));
    scripts.claim(&mut connection, "key", caller(2, 5));
    assert!(!scripts.forget(&mut connection, "key", third), "node 2 has it");
    ask(&mut connection, &["PUBLISH", "node:1", "the end"]);
    let end = Event::Message { channel: b"node:1".to_vec(), payload: b"the end".to_vec() };
    assert_eq!(next(), Some(end));
}

/// Nodes that take one session from each other all the time, and count whenever they think that it is theirs. Whatever was
/// acknowledged was acknowledged once, and is stored.
#[test]
fn nodes_that_take_a_session_from_each_other_never_count_the_same() {
    const NODES: u8 = 4;
    const CLAIMS: u8 = 60;
    let server = Redis::start(&[]);
    let scripts = Scripts::new();
    server.connect().load(&[&scripts.commit]).unwrap();
    let start = Barrier::new(usize::from(NODES));
    let node = |node: u8| {
        let mut connection = server.connect();
        let (mut acknowledged, mut refused) = (Vec::new(), 0_u64);
        start.wait();
        for token in 0..CLAIMS {
            let caller = Caller { node, token: node * CLAIMS + token, attempt: token };
            let (generation, count) = scripts.claim(&mut connection, "key", caller);
            let mut known = Known { generation, count: count.unwrap_or(0) };
            for _ in 0..20 {
                known.count += 1;
                if scripts.commit(&mut connection, "key", caller, known) != Some(generation) {
                    refused += 1;
                    break;
                }
                acknowledged.push(known.count);
            }
        }
        (acknowledged, refused)
    };
    let results: Vec<(Vec<Number>, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..NODES).map(|number| scope.spawn(move || node(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused: u64 = results.iter().map(|(_, refused)| refused).sum();
    let mut all: Vec<Number> = results.into_iter().flat_map(|(counts, _)| counts).collect();
    all.sort_unstable();
    println!("{} acknowledged, {refused} refused", all.len());
    // Each count from 1 on, once: no gap either, because a commit that is stored is acknowledged here.
    assert_eq!(all, (1..=all.len() as Number).collect::<Vec<_>>());
    let last = stored(&mut server.connect(), "key").and_then(|record| record.count);
    assert_eq!(last, Some(all.len() as Number));
    assert!(refused > 0, "they never met");
}

/// A record goes when its time is over, and with it what the generation was; the next one is greater all the same.
#[test]
fn a_session_whose_time_is_over_begins_again_under_a_greater_generation() {
    let server = Redis::start(&[]);
    let (mut connection, scripts) = (server.connect(), Scripts::new());
    connection.load(&[&scripts.commit]).unwrap();
    let caller = |token| Caller { node: 1, token, attempt: 0 };
    let expire = |connection: &mut Connection| {
        assert_eq!(ask(connection, &["PEXPIRE", "key", "1"]), Reply::Integer(1));
        while ask(connection, &["EXISTS", "key"]) != Reply::Integer(0) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    let (first, _) = scripts.claim(&mut connection, "key", caller(1));
    let known = Known { generation: first, count: 3 };
    assert_eq!(scripts.commit(&mut connection, "key", caller(1), known), Some(first));
    expire(&mut connection);
    let (second, count) = scripts.claim(&mut connection, "key", caller(2));
    assert!(second > first && count.is_none());
    assert_eq!(scripts.commit(&mut connection, "key", caller(1), known), None);
    assert_eq!(ask(&mut connection, &["HGET", "key", "count"]), Reply::Null);
    // If nobody has claimed it meanwhile, its owner goes on with what it has.
    expire(&mut connection);
    let known = Known { generation: second, count: 4 };
    let third = scripts.commit(&mut connection, "key", caller(2), known);
    assert!(third > Some(second));
    assert_eq!(ask(&mut connection, &["HGET", "key", "count"]), bulk("4"));
}

/// A replica that has not heard of a takeover becomes the primary. Both nodes think that they are the owner; whichever commits
/// first there goes on, and the other one is refused.
#[test]
fn behind_a_failover_one_of_two_owners_goes_on() {
    let scripts = Scripts::new();
    for a_is_first in [true, false] {
        let (old, new) = (Redis::start(&[]), Redis::start(&[]));
        let mut replica = new.connect();
        assert_eq!(ask(&mut replica, &["REPLICAOF", old.host(), "6379"]), ok());
        let mut connection = old.connect();
        connection.load(&[&scripts.commit]).unwrap();
        let caller = |node, attempt| Caller { node, token: node, attempt };
        let (first, _) = scripts.claim(&mut connection, "key", caller(1, 0));
        let known = Known { generation: first, count: 1 };
        assert_eq!(scripts.commit(&mut connection, "key", caller(1, 0), known), Some(first));
        // As `--store-replicas 1` waits; so this count must not be lost.
        while ask(&mut connection, &["WAIT", "1", "100"]) != Reply::Integer(1) {}
        assert_eq!(ask(&mut replica, &["REPLICAOF", "NO", "ONE"]), ok());
        let (second, count) = scripts.claim(&mut connection, "key", caller(2, 0));
        assert_eq!(count, Some(1));
        let known = Known { generation: second, count: 2 };
        assert_eq!(scripts.commit(&mut connection, "key", caller(2, 0), known), Some(second));

        replica.load(&[&scripts.commit]).unwrap();
        let mut commit = |node: u8, generation, count| {
            let known = Known { generation, count };
            scripts.commit(&mut replica, "key", caller(node, 1), known)
        };
        let (a, b) = ((1, first, 2), (2, second, 3));
        let (winner, loser) = if a_is_first { (a, b) } else { (b, a) };
        let generation = commit(winner.0, winner.1, winner.2).expect("the first one goes on");
        assert!(generation > second);
        assert_eq!(commit(loser.0, loser.1, loser.2), None);
        assert_eq!(commit(winner.0, generation, winner.2 + 1), Some(generation));
        let record = stored(&mut replica, "key").unwrap();
        assert_eq!((record.count, record.node), (Some(winner.2 + 1), Some(winner.0)));
    }
}

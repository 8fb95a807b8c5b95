//! The store's threads, when Redis ends, hangs, refuses or forgets; and when it comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use revolve::resp::ServerAddress;
use revolve::store::redis::RedisOptions;
use revolve::store::redis::link::{Link, eviction_warning};
use revolve::store::redis::scripts::Scripts;
use revolve::store::thread::StoreEnd;
use revolve::store::{Change, Claim, Outcome};

use crate::node::{Committed, Node, Owned, PATIENCE, Told, id, options, state};
use crate::server::{Redis, ask, ok};

/// So short that a test can wait for its end.
const SHORT: Duration = Duration::from_secs(1);

fn impatient(server: &Redis) -> RedisOptions {
    RedisOptions { timeout: SHORT, ..options(server.address("", ""), "a") }
}

#[test]
fn what_was_answered_survives_a_kill_and_what_was_not_is_asked_again() {
    let mut server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut node = Node::serving(options(server.address("", ""), "a"));
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    for count in 1..=20 {
        assert_eq!(node.commit(&mut owned, count), Committed::Stored);
    }
    server.end();
    node.send(0, &[owned.saved(21)], vec![Claim { token: 2, id: id("t") }]);
    node.wait_until_away("no connection");
    assert_eq!(node.metrics.shared.is_available.get(), 0);
    server.start_again();
    // On another connection, so under another generation.
    let Outcome::Stored { regenerated, claimed, .. } = node.outcome() else { panic!() };
    assert_eq!(regenerated.len(), 1);
    assert_eq!((claimed[0].token, claimed[0].is_known), (2, false));
    owned.generation = regenerated[0].1;
    assert_eq!(node.commit(&mut owned, 22), Committed::Stored);
    let claimed = node.claim(3, "s");
    assert_eq!((claimed.count, claimed.state), (22, Some(state(22))));
    assert_eq!(node.metrics.shared.is_available.get(), 1);
    assert!(node.metrics.shared.connections.get() >= 2);
}

#[test]
fn a_redis_that_hangs_is_away_until_it_goes_on() {
    let server = Redis::start(&[]);
    let mut node = Node::serving(impatient(&server));
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    server.signal("-STOP");
    node.send(0, &[owned.saved(1)], vec![]);
    // First that, so that nobody comes again at once.
    node.wait_until_away("no answer in time");
    let told = node.wait_for(|told| matches!(told, Told::Settled(..)));
    assert_eq!(told, Told::Settled(0, Outcome::Unavailable { number: 2 }));
    // One that comes meanwhile has its own time, and no answer either.
    node.send(1, &[], vec![Claim { token: 2, id: id("t") }]);
    assert_eq!(node.outcome(), Outcome::Unavailable { number: 3 });
    server.signal("-CONT");
    node.wait_until_available();
    // Nobody knows what was stored: the claim tells.
    let claimed = node.claim(3, "s");
    assert!(claimed.count <= 1);
    owned = Owned::new("s", &claimed);
    assert_eq!(node.commit(&mut owned, 2), Committed::Stored);
    assert_eq!(node.metrics.shared.unavailable.get(), 2);
}

#[test]
fn an_idle_node_notices_that_redis_hangs() {
    let server = Redis::start(&[]);
    let node = Node::serving(impatient(&server));
    server.signal("-STOP");
    node.wait_until_away("");
    server.signal("-CONT");
    node.wait_until_available();
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_is_found_without_a_restart() {
    let server = Redis::start(&["--requirepass", "right"]);
    let node = Node::start(options(server.address(":wrong@", ""), "a"));
    node.wait_until_away("WRONGPASS");
    let none = Node::start(options(server.address("", ""), "b"));
    none.wait_until_away("NOAUTH");
    let mut right = Node::serving(options(server.address(":right@", ""), "c"));
    right.claim(1, "s");
    let mut connection = crate::server::connect(&server.address(":right@", ""));
    assert_eq!(ask(&mut connection, &["CONFIG", "SET", "requirepass", "wrong"]), ok());
    node.wait_until_available();
}

#[test]
fn full_memory_is_told_and_is_over_when_there_is_room() {
    let server = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let mut node = Node::serving(impatient(&server));
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    let mut connection = server.connect();
    assert_eq!(ask(&mut connection, &["CONFIG", "SET", "maxmemory", "1"]), ok());
    assert_eq!(node.commit(&mut owned, 1), Committed::Unavailable);
    node.wait_until_away("raise maxmemory");
    let late = Node::start(options(server.address("", ""), "b"));
    late.wait_until_away("SET is refused: OOM");
    assert_eq!(ask(&mut connection, &["CONFIG", "SET", "maxmemory", "0"]), ok());
    node.wait_until_available();
    late.wait_until_available();
    assert_eq!(node.commit(&mut owned, 1), Committed::Regenerated);
}

#[test]
fn a_replica_is_told_and_serves_when_it_is_the_primary() {
    let (primary, second) = (Redis::start(&[]), Redis::start(&[]));
    let mut connection = second.connect();
    assert_eq!(ask(&mut connection, &["REPLICAOF", primary.host(), "6379"]), ok());
    let mut node = Node::start(options(second.address("", ""), "a"));
    node.wait_until_away("connect to the primary");
    assert_eq!(ask(&mut connection, &["REPLICAOF", "NO", "ONE"]), ok());
    node.wait_until_available();
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    // And it becomes one while it is in use.
    assert_eq!(ask(&mut connection, &["REPLICAOF", primary.host(), "6379"]), ok());
    node.send(0, &[owned.saved(1)], vec![]);
    node.wait_until_away("READONLY");
    assert_eq!(ask(&mut connection, &["REPLICAOF", "NO", "ONE"]), ok());
    assert!(matches!(node.outcome(), Outcome::Stored { .. }));
    owned = Owned::new("s", &node.claim(2, "s"));
    assert!(matches!(node.commit(&mut owned, 2), Committed::Stored));
}

#[test]
fn scripts_that_were_flushed_are_loaded_again() {
    let server = Redis::start(&[]);
    let mut node = Node::serving(options(server.address("", ""), "a"));
    let mut connection = server.connect();
    for token in 1..=5 {
        assert_eq!(ask(&mut connection, &["SCRIPT", "FLUSH"]), ok());
        let claimed = node.claim(token, "s");
        assert_eq!(claimed.count, token - 1);
        assert_eq!(ask(&mut connection, &["SCRIPT", "FLUSH"]), ok());
        let mut owned = Owned::new("s", &claimed);
        assert_eq!(node.commit(&mut owned, token), Committed::Regenerated);
    }
}

#[test]
fn behind_a_flush_an_owner_goes_on_and_a_client_that_comes_begins_anew() {
    let server = Redis::start(&[]);
    let mut node = Node::serving(options(server.address("", ""), "a"));
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    assert_eq!(node.commit(&mut owned, 1), Committed::Stored);
    assert_eq!(ask(&mut server.connect(), &["FLUSHALL"]), ok());
    assert_eq!(node.commit(&mut owned, 2), Committed::Regenerated);
    assert_eq!(node.claim(2, "s").count, 2);
    assert_eq!(ask(&mut server.connect(), &["FLUSHALL"]), ok());
    let claimed = node.claim(3, "s");
    assert_eq!((claimed.former, claimed.count, claimed.is_known), (0, 0, false));
    assert!(claimed.generation > owned.generation);
}

#[test]
fn nothing_is_answered_before_the_replica_has_it() {
    let (primary, second) = (Redis::start(&[]), Redis::start(&[]));
    let own = RedisOptions { replicas: 1, ..impatient(&primary) };
    let mut node = Node::start(own);
    node.wait_until_away("0 of 1 replicas");
    let mut replica = second.connect();
    assert_eq!(ask(&mut replica, &["REPLICAOF", primary.host(), "6379"]), ok());
    node.wait_until_available();
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    for count in 1..=20 {
        assert_eq!(node.commit(&mut owned, count), Committed::Stored);
        let stored = ask(&mut replica, &["HGET", "test:session:s", "count"]);
        assert_eq!(stored, crate::server::bulk(&count.to_string()));
    }
    // One that hangs has it not.
    second.signal("-STOP");
    assert_eq!(node.commit(&mut owned, 21), Committed::Unavailable);
    node.wait_until_away("0 of 1 replicas");
    second.signal("-CONT");
    node.wait_until_available();
    assert!(node.claim(2, "s").count >= 20);
}

#[test]
fn takeovers_are_heard_again_when_the_subscriber_was_cut() {
    let mut server = Redis::start(&[]);
    let mut nodes = ["a", "b"].map(|name| Node::serving(options(server.address("", ""), name)));
    let mut connection = server.connect();
    for token in 1..=3 {
        server.wait_until(|_| {
            let reply = ask(&mut connection, &["PUBSUB", "NUMSUB", "test:node:a"]);
            reply.array().unwrap()[1].integer() == Some(1)
        });
        nodes[0].claim(token, "s");
        let generation = nodes[1].claim(100 + token, "s").generation;
        let told = nodes[0].wait_for(|told| matches!(told, Told::TakenOver(..)));
        let Told::TakenOver(_, takeover) = told else { panic!() };
        assert_eq!(takeover.generation, generation);
        let killed = ask(&mut connection, &["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert!(killed.integer().unwrap() >= 1);
    }
}

#[test]
fn a_policy_that_drops_sessions_is_found_out_if_redis_tells() {
    let server = Redis::start(&["--maxmemory-policy", "volatile-lru"]);
    let mut connection = server.connect();
    let user = ["ACL", "SETUSER", "me", "on", ">pw", "~*", "&*", "+@all", "-config"];
    assert_eq!(ask(&mut connection, &user), ok());
    let policy = |credentials: &str| {
        let options = options(server.address(credentials, ""), "a");
        let mut link = Link::connect(&options, &Scripts::new(), 1, PATIENCE).unwrap();
        link.eviction_policy(PATIENCE).unwrap()
    };
    assert_eq!(policy("").as_deref(), Some("volatile-lru"));
    assert!(eviction_warning("volatile-lru").is_some());
    assert_eq!(policy("me:pw@"), None);
}

#[test]
fn it_ends_when_the_reactors_have_and_redis_does_not_answer() {
    let server = Redis::start(&[]);
    // One of a batch that waits, one of a node that is idle, one that never was connected.
    let mut busy = Node::serving(impatient(&server));
    let idle = Node::serving(options(server.address("", ""), "b"));
    let nowhere = ServerAddress::parse("redis://127.0.0.1:1").unwrap();
    let lost = Node::start(options(nowhere, "c"));
    server.signal("-STOP");
    busy.send(0, &[], vec![Claim { token: 1, id: id("s") }]);
    busy.send(0, &[], vec![Claim { token: 2, id: id("s") }]);
    let (end, told) = busy.end();
    assert_eq!(end, StoreEnd::Safe);
    let settled: Vec<Told> = told.iter().filter(|told| matches!(told, Told::Settled(..))).collect();
    let unavailable = |number| Told::Settled(0, Outcome::Unavailable { number });
    assert_eq!(settled, [unavailable(1), unavailable(2)]);
    assert_eq!(idle.end().0, StoreEnd::Safe);
    assert_eq!(lost.end().0, StoreEnd::Safe);
}

/// Two nodes that take a session from each other and count, while their connections are cut all the time: no count is
/// acknowledged twice, and none that was is lost.
#[test]
fn under_cuts_no_count_is_acknowledged_twice() {
    const ROUNDS: u64 = 150;
    let server = Redis::start(&[]);
    let is_over = AtomicBool::new(false);
    let node = |number: u64| {
        let name = ["a", "b"][number as usize];
        let mut node = Node::serving(options(server.address("", ""), name));
        let (mut acknowledged, mut refused) = (Vec::new(), 0_u64);
        for round in 0..ROUNDS {
            let claimed = node.claim(1000 * number + round + 1, "s");
            assert_eq!(claimed.state, claimed.is_known.then(|| state(claimed.count)));
            let (mut owned, mut count) = (Owned::new("s", &claimed), claimed.count);
            for _ in 0..5 {
                count += 1;
                match node.commit(&mut owned, count) {
                    Committed::Stored | Committed::Regenerated => acknowledged.push(count),
                    Committed::TakenOver => {
                        refused += 1;
                        break;
                    }
                    Committed::Unavailable => panic!("it is there"),
                }
            }
        }
        (acknowledged, refused, node.metrics.shared.connections.get())
    };
    let results: Vec<(Vec<u64>, u64, u64)> = thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connect();
            while !is_over.load(Ordering::Relaxed) {
                ask(&mut connection, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                thread::sleep(Duration::from_millis(7));
            }
        });
        let nodes: Vec<_> = (0..2).map(|number| scope.spawn(move || node(number))).collect();
        let results = nodes.into_iter().map(|node| node.join());
        let results: Vec<_> = results.collect();
        is_over.store(true, Ordering::Relaxed);
        results.into_iter().map(Result::unwrap).collect()
    });
    let all: Vec<u64> = results.iter().flat_map(|(counts, ..)| counts.clone()).collect();
    let refused: u64 = results.iter().map(|(_, refused, _)| refused).sum();
    let connections: u64 = results.iter().map(|(.., connections)| connections).sum();
    println!("{} acknowledged, {refused} refused, {connections} connections", all.len());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "twice");
    assert!(connections > 4, "nothing was cut");
    let mut last = Node::serving(options(server.address("", ""), "c"));
    assert!(last.claim(1, "s").count >= *all.iter().max().unwrap());
}

/// A key that is no session of ours, under the name of one: its batch has no answer, and all others do.
#[test]
fn what_redis_refuses_in_one_batch_keeps_no_other_from_its_answer() {
    let server = Redis::start(&[]);
    let mut node = Node::serving(impatient(&server));
    assert_eq!(ask(&mut server.connect(), &["SET", "test:session:s", "mine"]), ok());
    for token in (1..20).step_by(2) {
        let wrong = node.send(0, &[], vec![Claim { token, id: id("s") }]);
        let unavailable = Told::Settled(0, Outcome::Unavailable { number: wrong });
        node.wait_for(|told| *told == unavailable);
        node.send(1, &[], vec![Claim { token: token + 1, id: id("t") }]);
        assert!(matches!(node.outcome(), Outcome::Stored { .. }));
    }
    assert_eq!(node.metrics.shared.connections.get(), 1);
}

/// What docs/operations.md says that a user needs: it is enough, and without any of it the reason is told.
#[test]
fn a_user_needs_these_rights_and_no_others() {
    const RIGHTS: [&str; 13] = [
        "+evalsha",
        "+script|load",
        "+set",
        "+hmget",
        "+hset",
        "+del",
        "+pexpire",
        "+time",
        "+publish",
        "+subscribe",
        "+ping",
        "+wait",
        "+select",
    ];
    let mut server = Redis::start(&[]);
    let mut connection = server.connect();
    let user = ["ACL", "SETUSER", "me", "on", ">pw", "~test:*", "&test:*", "-@all"];
    assert_eq!(ask(&mut connection, &[&user[..], &RIGHTS].concat()), ok());
    let own = options(server.address("me:pw@", ""), "a");
    let mut node = Node::serving(RedisOptions { timeout: SHORT, ..own });
    server.wait_until(|_| {
        let reply = ask(&mut connection, &["PUBSUB", "NUMSUB", "test:node:a"]);
        reply.array().unwrap()[1].integer() == Some(1)
    });
    let mut other = Node::serving(options(server.address("me:pw@", ""), "b"));
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    assert_eq!(node.commit(&mut owned, 1), Committed::Stored);
    assert_eq!(other.claim(2, "s").count, 1);
    node.wait_for(|told| matches!(told, Told::TakenOver(..)));
    let forget = Change::Forget { id: id("t"), generation: 1 };
    node.send(0, &[forget], vec![]);
    assert!(matches!(node.outcome(), Outcome::Stored { .. }));
    let mut set = |right: &str| {
        assert_eq!(ask(&mut connection, &["ACL", "SETUSER", "me", right]), ok());
    };
    set("-evalsha");
    node.send(0, &[], vec![Claim { token: 3, id: id("u") }]);
    node.wait_until_away("NOPERM");
    assert!(matches!(node.outcome(), Outcome::Unavailable { .. }));
    set("+evalsha");
    node.wait_until_available();
    // The script itself may run; what it asks is no fault of the server.
    set("-hset");
    node.send(0, &[], vec![Claim { token: 4, id: id("u") }]);
    assert!(matches!(node.outcome(), Outcome::Unavailable { .. }));
    set("+hset");
    set("-set");
    node.wait_until_away("NOPERM");
    set("+set");
    node.wait_until_available();
}

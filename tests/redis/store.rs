//! The store's threads of two nodes, on a Redis that is there.

use revolve::session::owner_of;
use revolve::store::thread::StoreEnd;
use revolve::store::{Change, Claim, Outcome, Takeover};

use crate::node::{Committed, Node, Owned, REACTORS, Told, id, options, state};
use crate::server::{Redis, ask};

fn two_nodes(server: &Redis) -> [Node; 2] {
    ["a", "b"].map(|name| Node::serving(options(server.address("", ""), name)))
}

/// Waits until the node hears what is published for it.
fn wait_until_it_listens(server: &mut Redis, channel: &str) {
    let mut connection = server.connect();
    server.wait_until(|_| {
        let reply = ask(&mut connection, &["PUBSUB", "NUMSUB", channel]);
        reply.array().unwrap()[1].integer() == Some(1)
    });
}

#[test]
fn a_session_moves_from_node_to_node_with_its_count_and_its_state() {
    let mut server = Redis::start(&[]);
    let [mut a, mut b] = two_nodes(&server);
    wait_until_it_listens(&mut server, "test:node:a");
    let claimed = a.claim(1, "s");
    assert!(!claimed.is_known && claimed.state.is_none());
    assert_eq!((claimed.former, claimed.count), (0, 0));
    let mut on_a = Owned::new("s", &claimed);
    assert_eq!(a.commit(&mut on_a, 1), Committed::Stored);
    assert_eq!(a.commit(&mut on_a, 2), Committed::Stored);

    let claimed = b.claim(2, "s");
    assert!(claimed.is_known && claimed.generation > on_a.generation);
    assert_eq!((claimed.former, claimed.count), (on_a.generation, 2));
    assert_eq!(claimed.state, Some(state(2)));
    let takeover = Takeover { id: id("s"), generation: claimed.generation };
    let told = a.wait_for(|told| matches!(told, Told::TakenOver(..)));
    assert_eq!(told, Told::TakenOver(owner_of("s", REACTORS), takeover));

    let mut on_b = Owned::new("s", &claimed);
    assert_eq!(a.commit(&mut on_a, 3), Committed::TakenOver);
    assert_eq!(b.commit(&mut on_b, 3), Committed::Stored);
    // It comes again to the node that has it.
    let again = b.claim(3, "s");
    assert_eq!((again.former, again.count), (on_b.generation, 3));
    assert_eq!(again.state, Some(state(3)));
    assert_eq!(a.metrics.shared.takeovers.get(), 1);
    assert_eq!(a.metrics.shared.refused.get(), 1);
    assert_eq!((b.metrics.shared.claims.get(), b.metrics.sessions.get()), (2, 1));
    for node in [a, b] {
        assert_eq!(node.end().0, StoreEnd::Safe);
    }
}

#[test]
fn a_session_that_is_forgotten_begins_again() {
    let server = Redis::start(&[]);
    let [mut a, mut b] = two_nodes(&server);
    let mut on_a = Owned::new("s", &a.claim(1, "s"));
    assert_eq!(a.commit(&mut on_a, 7), Committed::Stored);
    let forget = |generation| Change::Forget { id: id("s"), generation };
    a.send(1, &[on_a.saved(8), forget(on_a.generation)], vec![Claim { token: 2, id: id("s") }]);
    let Outcome::Stored { taken_over, claimed, .. } = a.outcome() else { panic!() };
    assert!(taken_over.is_empty() && !claimed[0].is_known);
    assert!(claimed[0].former > on_a.generation, "a tombstone is no former owner");
    // What arrives late does not bring it back, and forgets nobody else's.
    assert_eq!(a.commit(&mut on_a, 9), Committed::TakenOver);
    let mut on_b = Owned::new("s", &b.claim(3, "s"));
    assert_eq!(b.commit(&mut on_b, 1), Committed::Stored);
    a.send(0, &[forget(claimed[0].generation)], vec![]);
    let Outcome::Stored { taken_over, .. } = a.outcome() else { panic!() };
    assert_eq!(taken_over, [id("s")]);
    assert_eq!(b.claim(4, "s").count, 1);
}

#[test]
fn a_session_without_a_state_has_none() {
    let server = Redis::start(&[]);
    let mut node = Node::serving(options(server.unix_address(), "a"));
    let owned = Owned::new("s", &node.claim(1, "s"));
    let Change::Save(mut record) = owned.saved(5) else { panic!() };
    record.state = None;
    node.send(0, &[Change::Save(record)], vec![]);
    assert!(matches!(node.outcome(), Outcome::Stored { .. }));
    let claimed = node.claim(2, "s");
    assert_eq!((claimed.count, claimed.state, claimed.is_known), (5, None, true));
}

#[test]
fn every_key_begins_with_the_prefix_and_has_a_time_to_live() {
    let server = Redis::start(&[]);
    let mut node = Node::serving(options(server.address("", "/1"), "a"));
    let mut owned = Owned::new("s", &node.claim(1, "s"));
    node.claim(2, "t");
    assert_eq!(node.commit(&mut owned, 1), Committed::Stored);
    node.send(0, &[Change::Forget { id: id("u"), generation: 1 }], vec![]);
    assert!(matches!(node.outcome(), Outcome::Stored { .. }));
    let mut connection = crate::server::connect(&server.address("", "/1"));
    let keys = ask(&mut connection, &["KEYS", "*"]);
    let mut names: Vec<String> = keys
        .array()
        .unwrap()
        .iter()
        .map(|key| String::from_utf8(key.bytes().unwrap().to_vec()).unwrap())
        .collect();
    names.sort();
    let expected = ["test:probe:a", "test:session:s", "test:session:t", "test:session:u"];
    assert_eq!(names, expected);
    for name in &names {
        assert!(ask(&mut connection, &["PTTL", name]).integer().unwrap() > 0, "{name}");
    }
}

//! A primary that dies, and a replica that takes its place by hand (`REPLICAOF NO ONE`): with `--store-replicas 1` nothing
//! acknowledged is lost, and without what the replica did not have.

use crate::client::Door;
use crate::crowd::Crowd;
use crate::node::{Front, Node};
use crate::server::{Redis, ask, bulk, ok};
use crate::wait_until;
use crate::wire::{Weather, Wire};

const CLIENTS: usize = 60;

const MORE: u64 = 1000;

/// A replica of the Redis at this host, which has all that was written until now.
fn replica_of(host: &str) -> Redis {
    let replica = Redis::start(&["--replicaof", &format!("{host} 6379")]);
    let mut connection = replica.connect();
    wait_until("the replica follows", || {
        let role = ask(&mut connection, &["ROLE"]);
        role.array().is_some_and(|role| role.get(3) == Some(&bulk("connected")))
    });
    replica
}

fn promote(replica: &Redis) {
    assert_eq!(ask(&mut replica.connect(), &["REPLICAOF", "NO", "ONE"]), ok());
}

struct Pair {
    nodes: [Node; 2],
    wires: [Wire; 2],
    crowd: Crowd,
}

impl Pair {
    fn start(primary: &Redis, replicas: &str) -> Pair {
        let wires = [0; 2].map(|_| Wire::to(primary.host()));
        let options = ["--store-timeout", "1", "--store-replicas", replicas];
        let nodes =
            [0, 1].map(|place| Node::start(place, wires[place].host(), Front::Fields, &options));
        let doors = nodes.each_ref().map(|node| Door {
            host: node.host.clone(),
            port: node.port,
            preamble: "",
        });
        let crowd = Crowd::start(CLIENTS, doors.into(), replicas == "0");
        crowd.count_on(MORE);
        Pair { nodes, wires, crowd }
    }

    /// As an address that is moved to the new primary.
    fn lead_to(&self, primary: &Redis) {
        self.wires.iter().for_each(|wire| wire.lead_to(primary.host()));
        self.nodes.iter().for_each(|node| node.wait_until_ready(true));
        self.crowd.count_on(MORE);
    }
}

#[test]
fn with_a_replica_that_is_waited_for_nothing_acknowledged_is_lost() {
    let mut primary = Redis::start(&[]);
    let replica = replica_of(primary.host());
    let pair = Pair::start(&primary, "1");
    // It hangs: nothing is acknowledged that it does not have.
    replica.signal("-STOP");
    pair.crowd.wait_until_turned_away(CLIENTS as u64);
    replica.signal("-CONT");
    pair.nodes.iter().for_each(|node| node.wait_until_ready(true));
    pair.crowd.count_on(MORE);
    // And the primary dies, in the middle of everything.
    primary.end();
    promote(&replica);
    let _next = replica_of(replica.host());
    pair.lead_to(&replica);
    let sum = pair.crowd.end();
    println!("--store-replicas 1: {sum}");
    assert_eq!(sum.lost, 0);
}

#[test]
fn without_one_a_failover_loses_no_more_than_what_the_replica_did_not_have() {
    let mut primary = Redis::start(&[]);
    let way = Wire::to(primary.host());
    let replica = replica_of(way.host());
    let pair = Pair::start(&primary, "0");
    way.set(Weather::Silent);
    let acknowledged = || pair.crowd.totals.acknowledged.load(std::sync::atomic::Ordering::Relaxed);
    let before = acknowledged();
    pair.crowd.count_on(MORE);
    primary.end();
    let behind = acknowledged() - before;
    promote(&replica);
    pair.lead_to(&replica);
    let sum = pair.crowd.end();
    println!("--store-replicas 0: {sum}; the replica was {behind} counts behind");
    // What was on its way to it when it was cut off is not known here: some hundred at the most.
    assert!(sum.lost <= behind + CLIENTS as u64 * 3, "{sum}; {behind}");
}

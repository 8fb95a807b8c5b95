//! Two nodes behind HAProxy and behind nginx, 500 clients that count and hop, and each thing in turn that may go wrong.
//!
//! What is asserted: nothing acknowledged is lost or acknowledged twice, everything goes on afterwards, and what happened
//! did happen. No time is.

use std::time::Duration;

use crate::balancer::{self, Balancer};
use crate::client::Door;
use crate::crowd::{Crowd, Sum};
use crate::node::{Front, Node};
use crate::server::Redis;
use crate::wire::{Weather, Wire};

const CLIENTS: usize = 500;

/// Takeovers by another node, at the least.
const CROSSINGS: u64 = 1000;

/// Counts that show that it goes on.
const MORE: u64 = 8000;

struct Fleet {
    crowd: Crowd,
    balancer: Balancer,
    /// Whether the balancer asks for `/readyz`, and tells what it thinks.
    is_checked: bool,
    nodes: [Node; 2],
    wires: [Wire; 2],
    redis: Redis,
}

impl Fleet {
    fn start(front: Front, balancer: fn(&[&Node]) -> Balancer) -> Fleet {
        let redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let wires = [0; 2].map(|_| Wire::to(redis.host()));
        let nodes = [0, 1]
            .map(|place| Node::start(place, wires[place].host(), front, &["--store-timeout", "1"]));
        let (balancer, is_checked) = (balancer(&[&nodes[0], &nodes[1]]), front == Front::Proxy);
        let behind = Door { host: balancer.host.clone(), port: balancer::PORT, preamble: "" };
        let direct = nodes.each_ref().map(|node| Door {
            host: node.host.clone(),
            port: node.port,
            preamble: front.preamble(),
        });
        // Half of the time behind the balancer.
        let [a, b] = direct;
        let doors = vec![behind.clone(), behind, a, b];
        let crowd = Crowd::start(CLIENTS, doors, false);
        let fleet = Fleet { crowd, balancer, is_checked, nodes, wires, redis };
        fleet.crowd.count_on(MORE);
        fleet
    }

    /// One node stops and does not know it; the other one takes its sessions. Then it wakes.
    fn pause(&self, place: usize) {
        self.nodes[place].signal("-STOP");
        // Clients leave it, and are counted elsewhere.
        self.wait_until_in(place, false);
        self.crowd.count_on(2 * MORE);
        self.nodes[place].signal("-CONT");
        self.wait_until_in(place, true);
        self.crowd.count_on(MORE);
    }

    fn wait_until_in(&self, place: usize, is_in: bool) {
        if self.is_checked {
            self.balancer.wait_until_in(self.nodes[place].name, is_in);
        }
    }

    fn kill_node(&mut self, place: usize) {
        self.nodes[place].kill();
        self.crowd.count_on(MORE);
        self.nodes[place].start_again();
        self.crowd.count_on(MORE);
    }

    fn kill_redis(&mut self) {
        self.redis.end();
        self.crowd.wait_until_turned_away(CLIENTS as u64);
        self.redis.start_again();
        self.wait_until_all_serve();
    }

    /// All that one node's way to Redis can do to it.
    fn storm(&self, place: usize) {
        let (wire, node) = (&self.wires[place], &self.nodes[place]);
        for weather in [Weather::Cut, Weather::Silent] {
            wire.set(weather);
            node.wait_until_ready(false);
            self.crowd.count_on(MORE);
            wire.set(Weather::Fair);
            self.wait_until_all_serve();
        }
        wire.set(Weather::Slow(Duration::from_millis(30)));
        self.crowd.count_on(MORE);
        // What was sent is cut in two, again and again: nobody knows what of it was done.
        let before = wire.halved();
        for bytes in [100_000, 20_000, 50_000] {
            wire.set(Weather::Halved(bytes));
            self.crowd.count_on(MORE);
        }
        assert!(wire.halved() > before);
        wire.set(Weather::Fair);
        self.wait_until_all_serve();
    }

    fn wait_until_all_serve(&self) {
        self.nodes.iter().for_each(|node| node.wait_until_ready(true));
        self.crowd.count_on(MORE);
    }

    /// One node drains, as for a new release.
    fn drain(&mut self, place: usize) {
        self.wait_until_in(place, true);
        self.nodes[place].signal("-TERM");
        let status = self.nodes[place].ended();
        assert_eq!(status.code(), Some(0));
        self.wait_until_in(place, false);
        self.crowd.count_on(MORE);
        self.nodes[place].start_again();
        self.wait_until_in(place, true);
        self.crowd.count_on(MORE);
    }

    fn end(self) -> Sum {
        self.crowd.wait_for_crossings(CROSSINGS);
        let sum = self.crowd.end();
        println!("{sum}");
        // Some of what was left behind was told who has the session now.
        assert!(sum.ended("left, Closed(4001)") > 0, "{sum}");
        for node in &self.nodes {
            println!(
                "{}: {} claims, {} refused, {} takeovers heard of, {} batches without an answer",
                node.name,
                node.metric("revolve_store_claims_total"),
                node.metric("revolve_store_refused_total"),
                node.metric("revolve_store_takeovers_total"),
                node.metric("revolve_store_unavailable_total"),
            );
        }
        for node in &self.nodes {
            let said = node.said();
            assert!(!said.contains("panicked"), "{said}");
        }
        assert_eq!((sum.clients, sum.lost), (CLIENTS, 0));
        sum
    }
}

#[test]
fn behind_haproxy_nothing_acknowledged_is_lost_or_counted_twice() {
    let mut fleet = Fleet::start(Front::Proxy, Balancer::haproxy);
    fleet.pause(0);
    fleet.kill_node(0);
    fleet.kill_redis();
    fleet.storm(0);
    fleet.drain(1);
    fleet.end();
}

#[test]
fn behind_nginx_nothing_acknowledged_is_lost_or_counted_twice() {
    let mut fleet = Fleet::start(Front::Fields, Balancer::nginx);
    fleet.pause(1);
    fleet.kill_node(1);
    fleet.storm(1);
    fleet.drain(0);
    fleet.end();
}

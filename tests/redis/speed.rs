//! How many sessions one connection stores a second. Prints; compares nothing, for machines differ.
//!
//! `cargo test --release --locked --test redis -- --ignored --nocapture speed`

use std::time::{Duration, Instant};

use revolve::store::redis::calls::SESSIONS_A_CALL;
use revolve::store::{Change, Claim, Outcome};

use crate::node::{Node, Owned, id, options};
use crate::server::Redis;

/// How long one figure is measured.
const MEASURED: Duration = Duration::from_secs(5);

fn measure(what: &str, server: &Redis, sessions: usize) {
    let address = if what == "unix" { server.unix_address() } else { server.address("", "") };
    let mut node = Node::serving(options(address, what));
    let names: Vec<String> = (0..sessions).map(|number| format!("{what}.{number}")).collect();
    let claims = (1..).zip(&names).map(|(token, name)| Claim { token, id: id(name) }).collect();
    node.send(0, &[], claims);
    let Outcome::Stored { claimed, .. } = node.outcome() else { panic!("claims") };
    let owned: Vec<Owned> =
        names.iter().zip(&claimed).map(|(name, claimed)| Owned::new(name, claimed)).collect();
    let (begun, mut batches) = (Instant::now(), 0_u64);
    while begun.elapsed() < MEASURED {
        batches += 1;
        let changes: Vec<Change> = owned.iter().map(|owned| owned.saved(batches)).collect();
        node.send(0, &changes, vec![]);
        let Outcome::Stored { taken_over, regenerated, .. } = node.outcome() else { panic!() };
        assert!(taken_over.is_empty() && regenerated.is_empty());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let commits = batches as f64 * sessions as f64;
    println!(
        "{what}: {sessions} sessions a batch, {SESSIONS_A_CALL} a call at most: {:.0} commits/s, \
         {:.0} batches/s, {:.0} us a batch, {:.0} us of it at Redis and on the way",
        commits / seconds,
        batches as f64 / seconds,
        1e6 * seconds / batches as f64,
        node.metrics.sync_ns.get() as f64 / 1e3 / node.metrics.syncs.get() as f64,
    );
}

#[test]
#[ignore = "takes half a minute, and prints figures"]
fn speed_of_one_connection() {
    let server = Redis::start(&[]);
    for sessions in [1, 32, 512, 1000, 4096] {
        measure("tcp", &server, sessions);
    }
    measure("unix", &server, 1000);
    let server = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    measure("fsync", &server, 1000);
}

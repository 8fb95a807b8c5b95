//! Why no interleaving lets two nodes acknowledge one count: sessions on several machines, as a small model of which every
//! state is visited.
//!
//! Several nodes share one store. Whoever claims a session gets a *generation* for it, greater than all before; what a node
//! commits carries its generation, and the store refuses a smaller one than it has. No reply leaves a node before the store
//! has what it says. So a node that was paused, cut off or taken over harms nobody: its commit is refused, and its replies
//! have not left. There is no lock, no lease, and nobody has to find out who is dead.
//!
//! The first commit on another connection to the store gets a new generation as well: behind a failover the store may know
//! the former owner only, and what was sent on the former connection may still arrive. Nothing has to be done when a node
//! connects again: what was not answered is sent again, and each session gets its generation when it has something to commit.
//! What the search takes for granted is that a node has one commit of a session under way at a time, that a token is used
//! for one claim only, and that the connections of a node are numbered upwards.
//!
//! `record.rs` has the store's three operations, as the scripts in `src/store/redis` do them; `tests/redis` compares the two on a
//! real server. `world.rs` is two nodes, one session, one store, the messages between them, and what can go wrong.
//! `search.rs` visits everything that can happen within bounds, without a limit of depth. Here stands what must never be
//! found; and that it is found, in a few steps, when one of the rules is taken out: what each rule is for.
//!
//! What it does not show: times (a claim that its node has given up can still arrive, and displace a newer one; that is safe,
//! but for nothing), more than two nodes, and that a script runs as a whole (the server promises that, and `tests/redis`
//! tries it).
//!
//! `cargo test --test generations -- --nocapture` prints how many states there are, and the steps to what goes wrong
//! without a rule.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test stops where it is surprised, and reports"
)]

mod record;
mod search;
mod world;

use record::{Rules, Trust};
use search::{Found, search};
use world::{Bounds, Laws, Promise, Violation};

/// Generations and counts. Small, so that a state is.
type Number = u8;

fn searched(what: &str, bounds: Bounds, laws: Laws) -> Found {
    let found = search(bounds, laws);
    println!("{what}: {found}");
    found
}

/// Nothing goes wrong, and everything that a client sends can be acknowledged.
fn is_safe(what: &str, bounds: Bounds, laws: Laws) {
    let found = searched(what, bounds, laws);
    assert!(found.violation.is_none(), "{what}: {found}");
    assert_eq!(found.greatest_told, bounds.counts, "{what}: nothing happens in there");
    assert!(found.states > 1000, "{what}: {found}");
}

/// This goes wrong.
fn goes_wrong(what: &str, bounds: Bounds, laws: Laws, expected: &[Violation]) {
    let found = searched(what, bounds, laws);
    let violation = found.violation.as_ref().map(|(violation, _)| *violation);
    assert!(violation.is_some_and(|found| expected.contains(&found)), "{what}: {found}");
}

fn with(rules: Rules) -> Laws {
    Laws { rules, promise: Promise::UpToTheReplica }
}

const ALL: Rules = Rules::ALL;
const NONE: Bounds = Bounds {
    claims: 0,
    counts: 0,
    crashes: 0,
    cuts: 0,
    failovers: 0,
    flushes: 0,
    forgets: 0,
    clock_jumps: 0,
};

const TAKEOVERS: Bounds = Bounds { claims: 3, counts: 3, crashes: 1, ..NONE };
const CUTS: Bounds = Bounds { claims: 2, counts: 2, cuts: 2, ..NONE };
const FAILOVER: Bounds = Bounds { claims: 2, counts: 3, failovers: 1, ..NONE };
const FLUSH: Bounds = Bounds { claims: 2, counts: 3, flushes: 1, ..NONE };
const FORGETTING: Bounds = Bounds { claims: 2, counts: 2, cuts: 2, forgets: 1, ..NONE };

// ---- what must not be found ----

#[test]
fn takeovers_are_safe() {
    is_safe("takeovers", TAKEOVERS, with(ALL));
}

#[test]
fn cut_connections_are_safe() {
    is_safe("cuts", CUTS, with(ALL));
}

#[test]
fn forgetting_is_safe() {
    is_safe("forgetting", FORGETTING, with(ALL));
}

/// The replica that takes over may be behind: what it did not have is gone, and nothing else is.
#[test]
fn a_failover_loses_what_the_replica_did_not_have_and_nothing_else() {
    is_safe("failover", FAILOVER, with(ALL));
}

/// As a record whose time is over while its owner still speaks.
#[test]
fn a_flush_loses_what_there_was_and_nothing_that_comes_after_it() {
    is_safe("flush", FLUSH, with(ALL));
}

#[test]
fn a_clock_that_goes_back_harms_nobody() {
    is_safe("clock", Bounds { clock_jumps: 1, ..TAKEOVERS }, with(ALL));
}

/// All of it together, a little of each. One message more takes ten times as long: `GENERATIONS_DEEP=1` for those who wait.
#[test]
fn everything_at_once_is_safe() {
    let counts = 1 + u8::from(std::env::var_os("GENERATIONS_DEEP").is_some());
    let once = Bounds { claims: 2, counts, cuts: 1, ..NONE };
    let failover = Bounds { failovers: 1, ..once };
    is_safe("crash, cut and failover", Bounds { crashes: 1, ..failover }, with(ALL));
    is_safe("cut, failover and forgetting", Bounds { forgets: 1, ..failover }, with(ALL));
    is_safe("cut, flush and forgetting", Bounds { flushes: 1, forgets: 1, ..once }, with(ALL));
}

/// `--store-replicas 1`: no answer leaves the store before its replica has what it says. That is so for claims too: a
/// client is told its count when it connects.
#[test]
fn with_a_replica_to_wait_for_a_failover_loses_nothing() {
    let rules = Rules { wait: true, ..ALL };
    is_safe("waiting", FAILOVER, Laws { rules, promise: Promise::Everything });
}

// ---- what each rule is for ----

/// Two nodes that both think that they own the session count the same.
#[test]
fn without_the_fence_two_nodes_acknowledge_one_count() {
    // What is in memory would be wrong as well, and in fewer steps.
    let rules = Rules { fence: false, trust: Trust::Never, ..ALL };
    goes_wrong("no fence", TAKEOVERS, with(rules), &[Violation::CountedTwice]);
}

/// The reply has left when the commit is refused.
#[test]
fn without_the_gate_two_nodes_acknowledge_one_count() {
    let rules = Rules { gate: false, ..ALL };
    goes_wrong("no gate", TAKEOVERS, with(rules), &[Violation::CountedTwice]);
}

/// A claim that was sent twice displaces the client that it was for.
#[test]
fn without_tokens_a_claim_displaces_itself() {
    let rules = Rules { tokens: false, ..ALL };
    goes_wrong("no tokens", CUTS, with(rules), &[Violation::FalseTakeover]);
}

/// A node that comes back to a session, and goes on with what it has in memory: meanwhile another one has counted.
#[test]
fn without_the_former_generation_a_node_goes_on_with_what_is_not_stored() {
    let rules = Rules { trust: Trust::Always, ..ALL };
    goes_wrong("no former", TAKEOVERS, with(rules), &[Violation::Stale]);
}

/// Behind a failover a node has more of its session in memory than the store has, and tells it to a client; then it dies.
#[test]
fn without_storing_it_again_a_client_is_told_what_the_store_has_lost() {
    let rules = Rules { stores_again: false, ..ALL };
    goes_wrong("not stored again", FAILOVER, with(rules), &[Violation::WentBack]);
}

/// A node that comes back to a session is told late that it had been displaced before.
#[test]
fn without_a_generation_a_late_notice_displaces_the_newer_client() {
    let rules = Rules { notices_have_generations: false, ..ALL };
    goes_wrong("plain notices", TAKEOVERS, with(rules), &[Violation::FalseTakeover]);
}

/// A commit of which the answer was lost is sent again, and then something newer; then the first one arrives. It has the
/// same generation, so the fence does not stop it.
#[test]
fn without_a_generation_for_each_connection_a_late_commit_takes_counts_back() {
    let rules = Rules { attempts: false, ..ALL };
    goes_wrong("no attempts, cut", CUTS, with(rules), &[Violation::WentBack]);
}

/// The replica has not heard of the takeover. Both nodes go on, and the newer one overwrites what the older one has
/// acknowledged since. A fence alone ("a smaller generation is refused") does not help: the record's is the older one's.
#[test]
fn without_a_generation_for_each_connection_a_failover_makes_two_owners() {
    let rules = Rules { attempts: false, ..ALL };
    let expected = [Violation::CountedTwice, Violation::WentBack];
    goes_wrong("no attempts, failover", FAILOVER, with(rules), &expected);
}

/// A generation that only counts on from the record is given twice, if the record was lost.
#[test]
fn without_the_clock_two_owners_have_one_generation() {
    let rules = Rules { clock: false, ..ALL };
    let expected = [Violation::CountedTwice, Violation::WentBack];
    goes_wrong("no clock, flush", FLUSH, with(rules), &expected);
    goes_wrong("no clock, failover", FAILOVER, with(rules), &expected);
}

/// What the node has sent on its former connection arrives behind its farewell.
#[test]
fn without_tombstones_a_forgotten_session_comes_back() {
    let rules = Rules { tombstones: false, ..ALL };
    goes_wrong("no tombstones", FORGETTING, with(rules), &[Violation::CameBack]);
}

// ---- what is not promised ----

#[test]
fn a_failover_loses_what_was_acknowledged_and_not_replicated() {
    let laws = Laws { rules: ALL, promise: Promise::Everything };
    goes_wrong("no replica", FAILOVER, laws, &[Violation::WentBack, Violation::CountedTwice]);
}

/// One of the two alone does no harm, as shown above. So the clocks of a primary and its replicas have to agree better than
/// a failover takes: within a second, say.
#[test]
fn a_loss_and_a_clock_that_goes_back_together_lose_what_is_acknowledged_later() {
    let bounds = Bounds { clock_jumps: 1, ..FLUSH };
    let expected = [Violation::CountedTwice, Violation::WentBack];
    goes_wrong("flush and clock", bounds, with(ALL), &expected);
}

//! Peers that send and never read: throttled, then told 1008, then let go with data unsent.

use std::time::Duration;

use crate::client::{BINARY, CLOSE, PING, TEXT, frame, get};
use crate::harness::{BYSTANDERS, Harness, ROOM, Stranger, Talks, defaults};
use revolve::Config;
use revolve::transport::out_buffer::SLACK;

with_both_applications! {
    a_peer_that_never_reads_is_throttled_told_and_let_go,
    one_that_reads_when_it_is_told_hears_everything,
    a_hundred_of_them_hold_no_more_than_a_hundred_shares,
    one_that_pings_and_never_reads,
    one_that_asks_for_pages_and_never_reads,
}

const STALL: Duration = Duration::from_secs(20);
const LAST_WORDS: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(100);
const SLOW_CONSUMER: &str = "code=\"1008\",side=\"server\"";

/// What one peer may hold: the backlog up to its mark, a cork and a reply beyond it, storage with
/// nothing in it, and the input that was read and not taken.
fn share(config: &Config, reply: usize) -> usize {
    let limits = &config.limits;
    config.max_send_buffer + limits.cork_bytes + reply + SLACK + limits.receive_buffer_bytes
}

/// Sends for as long as the server reads.
fn flood<A: Talks>(harness: &mut Harness<A>, stranger: &Stranger, one: &[u8]) {
    for _ in 0..10_000 {
        while stranger.unread_by_server() < 128 << 10 {
            stranger.send(one);
        }
        let unread = stranger.unread_by_server();
        harness.quick_turn();
        if stranger.unread_by_server() == unread {
            return;
        }
    }
    panic!("the server reads on and on");
}

/// A message, and the longest reply to one like it.
fn message<A: Talks>() -> (Vec<u8>, usize) {
    if A::COUNTS { (frame(TEXT, ""), 100) } else { (frame(BINARY, vec![7; 10_000]), 10_010) }
}

fn a_peer_that_never_reads_is_throttled_told_and_let_go<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let deaf = harness.open("session_id=deaf");
    harness.begin_watch();
    let (one, reply) = message::<A>();
    flood(&mut harness, &deaf, &one);
    let held = harness.shard.held_bytes();
    assert!(held > harness.config.max_send_buffer, "{held}: the mark was passed");
    assert!(held <= share(&harness.config, reply), "{held}");
    // From here on it is not read at all.
    let unread = deaf.unread_by_server();
    harness.pass(STALL - TICK - Duration::from_secs(1));
    assert_eq!(deaf.unread_by_server(), unread);
    assert_eq!(harness.metric("revolve_closed_total", SLOW_CONSUMER), 0);
    harness.pass(Duration::from_secs(1) + 3 * TICK);
    assert_eq!(harness.metric("revolve_closed_total", SLOW_CONSUMER), 1);
    assert_eq!(harness.metrics().websockets.get(), BYSTANDERS as u64, "its place is free already");
    assert!(!deaf.is_released(), "it has a moment to read it");
    harness.pass(LAST_WORDS);
    // CVE-2024-22201: not even unsent data keeps the descriptor.
    assert!(deaf.is_released());
    harness.only_bystanders_are_left();
    assert_eq!(harness.metrics().sessions_detached.get(), u64::from(A::COUNTS));
    harness.bystanders_went_on();
}

fn one_that_reads_when_it_is_told_hears_everything<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut late = harness.open("");
    let (one, _) = message::<A>();
    flood(&mut harness, &late, &one);
    harness.pass(STALL + TICK);
    assert_eq!(harness.metric("revolve_closed_total", SLOW_CONSUMER), 1);
    harness.begin_watch();
    let mut replies = 0;
    loop {
        harness.turn();
        match late.frame() {
            Some((CLOSE, payload)) => {
                assert_eq!(payload, [&[0x03, 0xf0][..], b"slow consumer"].concat());
                break;
            }
            // Of each turn one piece comes through, and it may hold many replies.
            Some((TEXT | BINARY, payload)) if !payload.starts_with(b"{\"ts\"") => {
                replies += 1;
                assert!(!A::COUNTS || payload == A::reply("", replies).as_bytes());
            }
            Some(_) => {}
            None => assert!(!late.is_released(), "after {replies} replies"),
        }
    }
    let messages = harness.metrics().messages.get();
    assert!(replies > 100 && replies < messages, "{replies} of {messages}");
    late.hang_up();
    harness.turns(10);
    assert!(late.is_released());
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn a_hundred_of_them_hold_no_more_than_a_hundred_shares<A: Talks>() {
    const MANY: usize = 100;
    let mut harness = Harness::<A>::with(Config { max_send_buffer: 64 << 10, ..defaults() });
    let deaf: Vec<_> = (0..MANY).map(|_| harness.open("")).collect();
    harness.begin_watch();
    let (one, reply) = message::<A>();
    for stranger in &deaf {
        flood(&mut harness, stranger, &one);
    }
    let held = harness.shard.held_bytes();
    assert!(held > MANY * (64 << 10) && held <= MANY * share(&harness.config, reply), "{held}");
    harness.pass(STALL + LAST_WORDS + 2 * TICK);
    assert!(deaf.iter().all(Stranger::is_released));
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn one_that_pings_and_never_reads<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let deaf = harness.open("");
    harness.begin_watch();
    flood(&mut harness, &deaf, &frame(PING, [7; 125]));
    let held = harness.shard.held_bytes();
    assert!(held <= share(&harness.config, 127), "{held}");
    harness.pass(STALL + LAST_WORDS + 2 * TICK);
    assert!(deaf.is_released());
    assert_eq!(harness.metric("revolve_closed_total", SLOW_CONSUMER), 1);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn one_that_asks_for_pages_and_never_reads<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let deaf = harness.connect();
    harness.begin_watch();
    harness.turns(2);
    flood(&mut harness, &deaf, get("/metrics").as_bytes());
    let held = harness.shard.held_bytes();
    assert!(held > ROOM && held <= share(&harness.config, 16 << 10), "{held}");
    harness.pass(STALL + 2 * TICK);
    assert!(deaf.is_released(), "without last words");
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

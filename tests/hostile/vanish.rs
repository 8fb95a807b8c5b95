//! Peers that are gone, or half gone: no pong, no echo of a Close, a reset or an end of stream at
//! any byte. The slot is given back, and the session is kept until its time is over.

use std::time::Duration;

use crate::client::{PING, TEXT, close, close_payload, frame, get, upgrade};
use crate::harness::{BYSTANDERS, Harness, Stranger, Talks, defaults};
use revolve::{Config, Limits};

with_both_applications! {
    a_watcher_that_vanishes_while_it_is_told,
    a_half_open_peer_is_let_go_and_its_session_waits,
    one_that_does_not_echo_a_close,
    a_reset_at_any_byte,
    an_end_of_stream_at_any_byte,
    a_reset_at_any_station_of_leaving,
}

const TTL: Duration = Duration::from_secs(3600);
const TICK: Duration = Duration::from_millis(100);

/// The socket of the last one who watches fails when a late map is sent, at the moment of the
/// next look: nobody is left to look for.
fn a_watcher_that_vanishes_while_it_is_told<A: Talks>() {
    let mut harness = Harness::<A>::with(Config {
        // A map takes several looks.
        limits: Limits {
            look_slice: 1,
            look_interval: Duration::from_millis(3),
            ..Limits::default()
        },
        ..defaults()
    });
    let mut watcher = harness.connect_from("127.0.0.1".parse().unwrap());
    watcher.send(upgrade("").replace("/ws/chat/", "/ws/stats"));
    harness.turns(20);
    let told = watcher.text();
    assert!(told.starts_with("HTTP/1.1 101 ") && told.contains("\"reactors\""), "{told}");
    // No edge tells of it before the write does.
    watcher.wire.borrow_mut().reset = true;
    harness.turns(20);
    assert!(watcher.is_released());
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn a_half_open_peer_is_let_go_and_its_session_waits<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut gone = harness.open_and_talk("session_id=gone");
    harness.begin_watch();
    harness.pass(Duration::from_secs(20) + TICK);
    assert_eq!(gone.frame(), Some((PING, Vec::new())));
    harness.pass(Duration::from_secs(20) - 3 * TICK);
    assert!(!gone.is_half_closed(), "it has twenty seconds to answer");
    harness.pass(4 * TICK);
    // The counter has told it the time meanwhile; then this.
    let last = std::iter::from_fn(|| gone.frame()).last().unwrap();
    assert_eq!(last.1, close_payload(1011, "keepalive ping timeout"));
    assert_eq!(harness.metrics().websockets.get(), BYSTANDERS as u64);
    harness.pass(Duration::from_secs(5) + TICK);
    assert!(gone.is_released());
    harness.only_bystanders_are_left();
    let kept = u64::from(A::COUNTS);
    assert_eq!(harness.metrics().sessions_detached.get(), kept);
    // It is there until its time is over, counted from when it left.
    harness.pass(Duration::from_secs(60));
    let mut back = harness.open("session_id=gone");
    back.send(frame(TEXT, "back"));
    harness.turn();
    let nth = 1 + kept;
    assert_eq!(back.frame(), Some((TEXT, A::reply("back", nth).into_bytes())));
    back.reset();
    harness.turns(2);
    harness.pass(TTL - TICK);
    assert_eq!(harness.metrics().sessions_detached.get(), kept);
    harness.pass(3 * TICK);
    assert_eq!(harness.metrics().sessions_detached.get(), 0);
    assert_eq!(harness.metrics().expiries.get(), kept);
    harness.bystanders_went_on();
}

fn one_that_does_not_echo_a_close<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut mute = harness.open_and_talk("session_id=same");
    harness.begin_watch();
    // The server closes it, because a newer one takes its session over.
    let mut newer = harness.open("session_id=same");
    assert_eq!(mute.closed_with(4001), "session taken over");
    assert!(!mute.is_half_closed(), "it may still answer");
    // It pretends to be busy: what it sends is read past and buys no time.
    for _ in 0..49 {
        mute.send(frame(TEXT, "busy"));
        harness.pass(TICK);
    }
    assert!(!mute.is_released());
    harness.pass(3 * TICK);
    assert!(mute.is_released());
    assert_eq!(mute.frame(), None);
    newer.send(frame(TEXT, "mine"));
    harness.turn();
    let nth = 1 + u64::from(A::COUNTS);
    assert_eq!(newer.frame(), Some((TEXT, A::reply("mine", nth).into_bytes())));
    newer.reset();
    harness.turns(2);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

/// A conversation, and the byte from which on its session is worth keeping.
fn conversation() -> (Vec<u8>, usize) {
    let before = [get("/healthz"), upgrade("session_id=dropper")].concat().into_bytes();
    let counted = [before, frame(TEXT, "hello")].concat();
    let kept = counted.len();
    let rest = [
        frame(0x01, "unfini"),
        frame(PING, "ping"),
        frame(0x80, "shed"),
        frame(0x82, [7; 300]),
        frame(0x88, close_payload(1000, "bye")),
    ];
    ([counted, rest.concat()].concat(), kept)
}

fn leaves_at_any_byte<A: Talks>(leave: fn(&Stranger), after: usize) {
    let (whole, counted) = conversation();
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    let mut is_kept = false;
    for cut in 0..=whole.len() {
        // With what it has sent, or a moment later.
        for later in [false, true] {
            let stranger = harness.connect();
            harness.turn();
            stranger.send(&whole[..cut]);
            if later {
                harness.turn();
            }
            leave(&stranger);
            harness.turns(after);
            assert!(stranger.is_released(), "cut at {cut}");
            harness.only_bystanders_are_left();
            // A reset takes with it what nobody had read; from then on it is for the session's time.
            let is_read = later || !stranger.wire.borrow().reset;
            is_kept |= A::COUNTS && is_read && cut >= counted;
            let detached = harness.metrics().sessions_detached.get();
            assert_eq!(detached, u64::from(is_kept), "cut at {cut}");
        }
    }
    harness.bystanders_went_on();
}

fn a_reset_at_any_byte<A: Talks>() {
    leaves_at_any_byte::<A>(Stranger::reset, 1);
}

fn an_end_of_stream_at_any_byte<A: Talks>() {
    leaves_at_any_byte::<A>(Stranger::hang_up, 2);
}

fn a_reset_at_any_station_of_leaving<A: Talks>() {
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    for round in 0..6 {
        let session = format!("session_id=leaver-{round}");
        let mut stranger = harness.open_and_talk(&session);
        let mut newer = None;
        match round {
            // Its Close is answered: we linger.
            0 => stranger.send(close(1000)),
            // A rule is broken: we linger.
            1 => stranger.send([0xff, 0xff]),
            // Our Close waits for its echo.
            2 => newer = Some(harness.open(&session)),
            // A refused upgrade: we linger.
            3 => {
                stranger.reset();
                stranger = harness.connect();
                stranger.send(upgrade("session_id=%20"));
            }
            // Its Close stands behind a backlog: we do not even read it.
            4 => {
                stranger.send(frame(PING, [7; 125]).repeat(20_000));
                harness.turns(50);
                stranger.send(close(1000));
            }
            // Nothing is under way.
            _ => {}
        }
        harness.turns(2);
        stranger.reset();
        harness.turn();
        assert!(stranger.is_released(), "round {round}");
        if let Some(newer) = newer {
            newer.reset();
            harness.turn();
        }
        harness.only_bystanders_are_left();
    }
    harness.bystanders_went_on();
}

//! Peers that are gone, or half gone: no pong, no echo of a Close, a reset or an end of stream at
//! any byte. The slot is given back, and the session is kept until its time is over.

use std::time::Duration;

use crate::client::{PING, TEXT, close, close_payload, frame, get, upgrade};
use crate::yard::{BYSTANDERS, Stranger, Talks, Yard, defaults};
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

/// The socket of the last one who watches fails when a late picture is sent, at the moment of the
/// next look: nobody is left to look for.
fn a_watcher_that_vanishes_while_it_is_told<A: Talks>() {
    let mut yard = Yard::<A>::with(Config {
        // A picture takes several looks.
        limits: Limits {
            look_slice: 1,
            look_interval: Duration::from_millis(3),
            ..Limits::default()
        },
        ..defaults()
    });
    let mut watcher = yard.connect_from("127.0.0.1".parse().unwrap());
    watcher.send(upgrade("").replace("/ws/chat/", "/ws/stats"));
    yard.turns(20);
    let told = watcher.text();
    assert!(told.starts_with("HTTP/1.1 101 ") && told.contains("\"reactors\""), "{told}");
    // No edge tells of it before the write does.
    watcher.wire.borrow_mut().reset = true;
    yard.turns(20);
    assert!(watcher.is_released());
    yard.only_bystanders_are_left();
    yard.bystanders_went_on();
}

fn a_half_open_peer_is_let_go_and_its_session_waits<A: Talks>() {
    let mut yard = Yard::<A>::new();
    let mut gone = yard.open_and_talk("session_id=gone");
    yard.begin_watch();
    yard.pass(Duration::from_secs(20) + TICK);
    assert_eq!(gone.frame(), Some((PING, Vec::new())));
    yard.pass(Duration::from_secs(20) - 3 * TICK);
    assert!(!gone.is_half_closed(), "it has twenty seconds to answer");
    yard.pass(4 * TICK);
    // The counter has told it the time meanwhile; then this.
    let last = std::iter::from_fn(|| gone.frame()).last().unwrap();
    assert_eq!(last.1, close_payload(1011, "keepalive ping timeout"));
    assert_eq!(yard.metrics().websockets.get(), BYSTANDERS as u64);
    yard.pass(Duration::from_secs(5) + TICK);
    assert!(gone.is_released());
    yard.only_bystanders_are_left();
    let kept = u64::from(A::COUNTS);
    assert_eq!(yard.metrics().sessions_detached.get(), kept);
    // It is there until its time is over, counted from when it left.
    yard.pass(Duration::from_secs(60));
    let mut back = yard.open("session_id=gone");
    back.send(frame(TEXT, "back"));
    yard.turn();
    let nth = 1 + kept;
    assert_eq!(back.frame(), Some((TEXT, A::reply("back", nth).into_bytes())));
    back.reset();
    yard.turns(2);
    yard.pass(TTL - TICK);
    assert_eq!(yard.metrics().sessions_detached.get(), kept);
    yard.pass(3 * TICK);
    assert_eq!(yard.metrics().sessions_detached.get(), 0);
    assert_eq!(yard.metrics().expiries.get(), kept);
    yard.bystanders_went_on();
}

fn one_that_does_not_echo_a_close<A: Talks>() {
    let mut yard = Yard::<A>::new();
    let mut mute = yard.open_and_talk("session_id=same");
    yard.begin_watch();
    // The server closes it, because a newer one takes its session over.
    let mut newer = yard.open("session_id=same");
    assert_eq!(mute.closed_with(4001), "session taken over");
    assert!(!mute.is_half_closed(), "it may still answer");
    // It pretends to be busy: what it sends is read past and buys no time.
    for _ in 0..49 {
        mute.send(frame(TEXT, "busy"));
        yard.pass(TICK);
    }
    assert!(!mute.is_released());
    yard.pass(3 * TICK);
    assert!(mute.is_released());
    assert_eq!(mute.frame(), None);
    newer.send(frame(TEXT, "mine"));
    yard.turn();
    let nth = 1 + u64::from(A::COUNTS);
    assert_eq!(newer.frame(), Some((TEXT, A::reply("mine", nth).into_bytes())));
    newer.reset();
    yard.turns(2);
    yard.only_bystanders_are_left();
    yard.bystanders_went_on();
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
    let mut yard = Yard::<A>::new();
    yard.begin_watch();
    let mut is_kept = false;
    for cut in 0..=whole.len() {
        // With what it has sent, or a moment later.
        for later in [false, true] {
            let stranger = yard.connect();
            yard.turn();
            stranger.send(&whole[..cut]);
            if later {
                yard.turn();
            }
            leave(&stranger);
            yard.turns(after);
            assert!(stranger.is_released(), "cut at {cut}");
            yard.only_bystanders_are_left();
            // A reset takes with it what nobody had read; from then on it is for the session's time.
            let is_read = later || !stranger.wire.borrow().reset;
            is_kept |= A::COUNTS && is_read && cut >= counted;
            let detached = yard.metrics().sessions_detached.get();
            assert_eq!(detached, u64::from(is_kept), "cut at {cut}");
        }
    }
    yard.bystanders_went_on();
}

fn a_reset_at_any_byte<A: Talks>() {
    leaves_at_any_byte::<A>(Stranger::reset, 1);
}

fn an_end_of_stream_at_any_byte<A: Talks>() {
    leaves_at_any_byte::<A>(Stranger::hang_up, 2);
}

fn a_reset_at_any_station_of_leaving<A: Talks>() {
    let mut yard = Yard::<A>::new();
    yard.begin_watch();
    for round in 0..6 {
        let session = format!("session_id=leaver-{round}");
        let mut stranger = yard.open_and_talk(&session);
        let mut newer = None;
        match round {
            // Its Close is answered: we linger.
            0 => stranger.send(close(1000)),
            // A rule is broken: we linger.
            1 => stranger.send([0xff, 0xff]),
            // Our Close waits for its echo.
            2 => newer = Some(yard.open(&session)),
            // A refused upgrade: we linger.
            3 => {
                stranger.reset();
                stranger = yard.connect();
                stranger.send(upgrade("session_id=%20"));
            }
            // Its Close stands behind a backlog: we do not even read it.
            4 => {
                stranger.send(frame(PING, [7; 125]).repeat(20_000));
                yard.turns(50);
                stranger.send(close(1000));
            }
            // Nothing is under way.
            _ => {}
        }
        yard.turns(2);
        stranger.reset();
        yard.turn();
        assert!(stranger.is_released(), "round {round}");
        if let Some(newer) = newer {
            newer.reset();
            yard.turn();
        }
        yard.only_bystanders_are_left();
    }
    yard.bystanders_went_on();
}

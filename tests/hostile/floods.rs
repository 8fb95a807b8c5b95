//! As much as a peer can send: fragments without end, tiny ones, empty ones, pings, pongs, messages.
//! Each turn takes one read from each of them, so the others are served in every turn.
//!
//! There is no limit to the number of fragments, and none is needed: they are no more than their
//! bytes here. A message is one piece of storage that grows with what has arrived, twice as large at
//! most; an empty fragment adds nothing to it; and the age of an unfinished message has a limit.

use std::time::Duration;

use crate::client::{BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame, get};
use revolve::Config;
use revolve::protocol::message::LONG_READ;

use crate::harness::{self, BYSTANDERS, Harness, Stranger, Talks};

with_both_applications! {
    every_flood_has_its_share_and_no_more,
    pages_have_a_share_of_their_own,
    fragments_of_a_byte_cost_what_they_weigh,
    empty_fragments_hold_nothing_and_have_a_deadline,
    a_message_without_end_has_a_deadline,
    a_long_frame_is_no_silence,
    a_long_binary_frame_is_no_silence_either,
    who_reads_slowly_is_there,
    who_comes_and_goes_fills_nothing,
}

const CONTINUE: u8 = 0x00;
/// The most that one read takes of short messages.
const SHARE: u64 = (64 << 10) + 64;

/// Sends `bytes` over and over until so much waits.
fn fill(stranger: &Stranger, bytes: &[u8], most: usize) {
    while stranger.unread_by_server() < most {
        stranger.send(bytes);
    }
}

fn every_flood_has_its_share_and_no_more<A: Talks>() {
    const FLOODERS: u64 = 4;
    let begun = frame(BINARY & 0x0f, "");
    for (what, first, one, past) in [
        ("empty fragments", &begun[..], frame(CONTINUE, ""), 0),
        ("fragments of a byte", &begun, frame(CONTINUE, "x"), 0),
        ("pings", b"", frame(PING, ""), 0),
        ("long pings", b"", frame(PING, [7; 125]), 0),
        ("pongs", b"", frame(PONG, ""), 0),
        ("empty messages", b"", frame(TEXT, ""), 0),
        ("small messages", b"", frame(TEXT, "hello"), 0),
        ("large messages", b"", frame(BINARY, vec![7; 60_000]), 60_000),
        ("long messages", b"", frame(BINARY, vec![7; 1 << 20]), LONG_READ as u64),
    ] {
        let mut harness = Harness::<A>::new();
        let mut strangers: Vec<_> = (0..FLOODERS).map(|_| harness.open("")).collect();
        strangers.iter().for_each(|stranger| stranger.send(first));
        harness.turn();
        harness.begin_watch();
        // Of a long payload more is taken, past the receive buffer.
        let share = SHARE + past;
        for _ in 0..(100 * SHARE / share) {
            for stranger in &mut strangers {
                fill(stranger, &one, 2 * share as usize);
                stranger.read();
                stranger.heard.clear();
            }
            let before = (harness.metrics().bytes_in.get(), harness.metrics().messages.get());
            harness.turn();
            let bytes = harness.metrics().bytes_in.get() - before.0;
            let messages = harness.metrics().messages.get() - before.1;
            let talk = BYSTANDERS as u64 * 20;
            assert!(bytes <= FLOODERS * share + talk, "{what}: {bytes} bytes in a turn");
            let most = FLOODERS * harness.config.limits.frames_per_turn as u64;
            assert!(messages <= most + BYSTANDERS as u64, "{what}: {messages} messages in a turn");
            // What is kept between turns is the backlog, which has its mark, one share each and what
            // it makes of it, and of an unfinished message at most twice what came of it: a seventh,
            // for the rest are headers.
            let held = harness.shard.held_bytes() as u64;
            let arrived = harness.metrics().bytes_in.get() / 7;
            let most = harness.config.max_send_buffer as u64 + 4 * share;
            assert!(held <= FLOODERS * most + 2 * arrived, "{what}: {held} bytes held");
        }
        harness.bystanders_went_on();
        assert_eq!(harness.metrics().websockets.get(), FLOODERS + BYSTANDERS as u64, "{what}");
        strangers.iter().for_each(Stranger::reset);
        harness.turns(2);
        harness.only_bystanders_are_left();
    }
}

/// The page of metrics is the most that a few bytes can ask for.
fn pages_have_a_share_of_their_own<A: Talks>() {
    const FLOODERS: u64 = 4;
    let mut harness = Harness::<A>::new();
    let mut strangers: Vec<_> = (0..FLOODERS).map(|_| harness.connect()).collect();
    harness.turns(2);
    harness.begin_watch();
    let page = harness.status.metrics_page(harness.now).len() as u64;
    for _ in 0..100 {
        for stranger in &mut strangers {
            fill(stranger, get("/metrics").as_bytes(), SHARE as usize);
            stranger.read();
            stranger.heard.clear();
        }
        let before = harness.metrics().bytes_out.get();
        harness.turn();
        let sent = harness.metrics().bytes_out.get() - before;
        // A cork of them, and the one that made it full, with its head and larger numbers.
        let most = FLOODERS * (SHARE + page + 2000);
        assert!(sent <= most + BYSTANDERS as u64 * 30, "{sent} bytes of pages in a turn");
    }
    harness.bystanders_went_on();
    strangers.iter().for_each(Stranger::reset);
    harness.turns(2);
    harness.only_bystanders_are_left();
}

/// CVE-2026-48779: there, 0.87 MB of such fragments held 13.5 MB.
fn fragments_of_a_byte_cost_what_they_weigh<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut stranger = harness.open("");
    stranger.send(frame(BINARY & 0x0f, "x"));
    harness.turn();
    harness.begin_watch();
    let one = frame(CONTINUE, "x");
    let (mut sent, mut growths, mut before) = (1, 0, 0);
    while sent < 500_000 {
        for _ in 0..9000 {
            stranger.send(&one);
            sent += 1;
        }
        harness.turn();
        let held = harness.shard.held_bytes();
        assert!(held <= 2 * sent, "{held} bytes held for {sent}");
        growths += usize::from(held != before);
        before = held;
    }
    // Were each one copied to make room for the next, storage would change every turn.
    assert!(growths <= 20, "{growths} growths");
    // And it is a message after all.
    stranger.send(frame(0x80, "x"));
    for _ in 0..30 {
        harness.turn();
        stranger.read();
    }
    let expected = if A::COUNTS { 2 + A::reply("", 1).len() } else { 10 + sent + 1 };
    assert_eq!(stranger.heard.len(), expected);
    stranger.reset();
    harness.turns(2);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

/// Sends something every half second until it is told to stop; returns after how long that was, and
/// what it was told.
fn until_told<A: Talks>(
    harness: &mut Harness<A>,
    stranger: &mut Stranger,
    bytes: &[u8],
) -> (Duration, Vec<u8>) {
    let begin = harness.elapsed();
    for _ in 0..200 {
        stranger.send(bytes);
        harness.pass(Duration::from_millis(500));
        assert!(harness.shard.held_bytes() <= 1000);
        while let Some((first, payload)) = stranger.frame() {
            match first {
                // Who is silent answers nothing.
                PING if bytes.is_empty() => {}
                PING => stranger.send(frame(PONG, payload)),
                CLOSE => return (harness.elapsed() - begin, payload),
                // The counter tells the time.
                _ => assert!(payload.starts_with(b"{\"ts\""), "{payload:?}"),
            }
        }
    }
    panic!("it goes on for ever");
}

fn deadline<A: Talks>(begin: &[u8], go_on: &[u8], seconds: u64, code: u16, reason: &str) {
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    let mut stranger = harness.open_and_talk("session_id=endless");
    stranger.send(begin);
    let (late, told) = until_told(&mut harness, &mut stranger, go_on);
    assert_eq!(told, close_payload(code, reason));
    let limit = Duration::from_secs(seconds);
    assert!(late >= limit && late < limit + Duration::from_secs(1), "{late:?}");
    assert!(stranger.is_half_closed());
    let label = format!("code=\"{code}\",side=\"server\"");
    assert_eq!(harness.metric("revolve_closed_total", &label), 1);
    harness.pass(Duration::from_millis(5100));
    assert!(stranger.is_released());
    harness.only_bystanders_are_left();
    assert_eq!(harness.metrics().sessions_detached.get(), u64::from(A::COUNTS));
    harness.bystanders_went_on();
}

const LATE: (u64, u16, &str) = (60, 1008, "message took too long");

fn empty_fragments_hold_nothing_and_have_a_deadline<A: Talks>() {
    let (seconds, code, reason) = LATE;
    let (begin, go_on) = (frame(TEXT & 0x0f, ""), frame(CONTINUE, "").repeat(100));
    deadline::<A>(&begin, &go_on, seconds, code, reason);
}

fn a_message_without_end_has_a_deadline<A: Talks>() {
    let (seconds, code, reason) = LATE;
    deadline::<A>(&frame(TEXT & 0x0f, "x"), &frame(CONTINUE, "x"), seconds, code, reason);
    // In the middle of one frame no ping can be answered: bytes of it are as good.
    let begin = &frame(BINARY, "x".repeat(2000))[..8];
    deadline::<A>(begin, b"x", seconds, code, reason);
    deadline::<A>(begin, b"", 40, 1011, "keepalive ping timeout");
}

/// Pings every second, each of which wants its pong within a second.
fn impatient() -> Config {
    let second = Some(Duration::from_secs(1));
    Config { ws_ping_interval: second, ws_ping_timeout: second, ..harness::defaults() }
}

/// Sends bytes at 200 kB a second, and takes what is answered; pings and heartbeats left out.
fn answers_to<A: Talks>(
    harness: &mut Harness<A>,
    stranger: &mut Stranger,
    bytes: &[u8],
) -> Vec<(u8, Vec<u8>)> {
    for piece in bytes.chunks(20_000) {
        stranger.send(piece);
        harness.pass(Duration::from_millis(100));
    }
    let mut told = Vec::new();
    for _ in 0..100 {
        told.extend(stranger.frame());
        harness.quick_turn();
    }
    told.retain(|(first, payload)| *first != PING && !payload.starts_with(b"{\"ts\""));
    told
}

/// One frame of a megabyte at 200 kB a second: five pings come meanwhile.
fn a_long_frame_is_no_silence<A: Talks>() {
    let mut harness = Harness::<A>::with(impatient());
    harness.begin_watch();
    let mut stranger = harness.open_and_talk("session_id=slow");
    let said = "x".repeat(1_000_000);
    let told = answers_to(&mut harness, &mut stranger, &frame(TEXT, &said));
    assert!(told == [(TEXT, A::reply(&said, 2).into_bytes())], "{:?}", told.last());
    stranger.reset();
    harness.turns(2);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

/// The same in binary, which has nothing to check: it is read past the receive buffer, on another way
/// than text.
fn a_long_binary_frame_is_no_silence_either<A: Talks>() {
    let mut harness = Harness::<A>::with(impatient());
    harness.begin_watch();
    let mut stranger = harness.open_and_talk("session_id=slow");
    let told = answers_to(&mut harness, &mut stranger, &frame(BINARY, vec![7; 1_000_000]));
    assert_eq!(told.len(), 1);
    assert_ne!(told[0].0, 0x88, "{:?}", String::from_utf8_lossy(&told[0].1));
    stranger.reset();
    harness.turns(2);
}

/// A peer that reads a megabyte at 80 kB a second meets each ping late, for it stands behind what was
/// said before. That its socket takes bytes shows that it is there.
fn who_reads_slowly_is_there<A: Talks>() {
    let mut harness = Harness::<A>::with(impatient());
    harness.begin_watch();
    let mut stranger = harness.open_and_talk("session_id=slow");
    // Pongs are small, and these are answered with as much.
    let ping = frame(PING, "x".repeat(125));
    let count = 1_000_000 / 127;
    stranger.send(ping.repeat(count));
    let mut pongs = 0;
    while pongs < count {
        harness.pass(Duration::from_millis(100));
        let some = stranger.wire.borrow_mut().receive(8000);
        assert!(!some.is_empty(), "{pongs} of {count}");
        stranger.heard.extend(some);
        while let Some((first, payload)) = stranger.frame_heard() {
            match first {
                PONG => pongs += 1,
                PING => stranger.send(frame(PONG, payload)),
                _ => assert!(payload.starts_with(b"{\"ts\""), "{first:x} {payload:?}"),
            }
        }
    }
    stranger.reset();
    harness.turns(2);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn who_comes_and_goes_fills_nothing<A: Talks>() {
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    for round in 0..3000 {
        let stranger = harness.connect();
        if round % 3 == 0 {
            stranger.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        } else if round % 3 == 1 {
            stranger.send(crate::client::upgrade(""));
        }
        harness.quick_turn();
        harness.quick_turn();
        stranger.reset();
    }
    harness.turns(2);
    // The deadlines of those who have left are not kept until they pass.
    let alarms = harness.shard.alarms();
    assert!(alarms <= 20 * (BYSTANDERS + 4), "{alarms} alarms");
    harness.only_bystanders_are_left();
    assert_eq!(harness.metrics().sessions_detached.get(), 0);
    harness.bystanders_went_on();
}

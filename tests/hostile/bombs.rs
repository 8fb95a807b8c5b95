//! Deflated messages that are small on the wire and large, or slow, behind it. What inflating one of
//! them takes and holds is `src/protocol/deflate`'s own tests' business; here it is what it does to
//! the others of a reactor.

use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use revolve::{Config, Counter, Echo};

use crate::client::{BINARY, CLOSE, PING, PONG, TEXT, close, frame, upgrade};
use crate::harness::{Harness, ROOM, Stranger, Talks, defaults};

with_both_applications! {
    a_bomb_is_told_1009_while_it_inflates,
    what_inflates_to_nothing_is_one_visit_at_a_time,
    a_bomber_that_leaves_makes_room,
}

const RSV1: u8 = 0x40;
const LARGEST: usize = 16 << 20;
const MIB: usize = 1 << 20;

fn deflating<A: Talks>() -> Harness<A> {
    Harness::with(Config { ws_per_message_deflate: true, ..defaults() })
}

/// A message as DEFLATE at its best makes it, in one frame.
fn deflated(kind: u8, message: &[u8]) -> Vec<u8> {
    let mut stream = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(message.len() + 1000);
    stream.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
    frame(kind | RSV1, &out[..out.len() - 4])
}

/// Somebody who compresses.
#[track_caller]
fn open<A: Talks>(harness: &mut Harness<A>, query: &str) -> Stranger {
    let mut stranger = harness.connect();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let request = upgrade(query);
    stranger.send([request.trim_end(), "\r\n", offer].concat());
    harness.turns(2);
    let head = stranger.text();
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(agreed), "{head}");
    stranger.heard.clear();
    stranger
}

/// Turns until somebody has heard something; how many.
#[track_caller]
fn turns_until_heard<A: Talks>(harness: &mut Harness<A>, stranger: &mut Stranger) -> usize {
    for turn in 1..10_000 {
        harness.quick_turn();
        if !stranger.read().is_empty() {
            return turn;
        }
    }
    panic!("nothing was ever heard");
}

/// Each turn of it: says something deflated, and hears the answer.
struct Compressing(Stranger, u64);

impl Compressing {
    fn turn<A: Talks>(&mut self, harness: &mut Harness<A>) {
        self.1 += 1;
        let said = format!("deflated, number {}", self.1);
        self.0.send(deflated(TEXT, said.as_bytes()));
        harness.quick_turn();
        let reply = A::reply(&said, self.1).into_bytes();
        assert_eq!(self.0.frame(), Some((TEXT, reply)), "in the very turn");
    }
}

fn a_bomb_is_told_1009_while_it_inflates<A: Talks>() {
    let bomb = deflated(BINARY, &vec![0; LARGEST + 1]);
    assert!(bomb.len() < 17 << 10, "{}", bomb.len());
    let mut harness = deflating::<A>();
    let mut bomber = open(&mut harness, "session_id=bomber");
    let mut compressing = Compressing(open(&mut harness, "session_id=compressing"), 0);
    harness.begin_watch();
    bomber.send(&bomb);
    let mut turns = 0;
    while bomber.read().is_empty() {
        compressing.turn(&mut harness);
        turns += 1;
        assert!(harness.shard.held_bytes() <= LARGEST + 1 + bomb.len());
        assert!(turns < 1000);
    }
    // A MiB a turn at most: it was seen in the middle of it, and not behind.
    assert!(turns >= 15, "{turns}");
    assert_eq!(bomber.closed_with(1009), "message too big");
    assert_eq!(harness.shard.held_bytes(), 0);
    bomber.hang_up();
    compressing.0.send(close(1000));
    compressing.0.hang_up();
    harness.turns(3);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn what_inflates_to_nothing_is_one_visit_at_a_time<A: Talks>() {
    let mut harness = deflating::<A>();
    harness.begin_watch();
    // Blocks that store nothing, and streams that end at once; a KiB more than 16 visits' worth.
    for (what, block) in [("stored", &[0, 0, 0, 0xff, 0xff][..]), ("ends", &[0x03, 0x00])] {
        let mut slow = open(&mut harness, &format!("session_id={what}"));
        let visit = harness.config.limits.inflate_per_turn / 16;
        let message = [block.repeat(17 * visit / block.len()), vec![0x00]].concat();
        slow.send(frame(BINARY | RSV1, &message));
        let received = message.len().div_ceil(harness.config.limits.receive_buffer_bytes);
        let turns = turns_until_heard(&mut harness, &mut slow);
        assert!((received + 10..received + 100).contains(&turns), "{what}: {turns} turns");
        let reply = if A::COUNTS { A::reply("", 1).into_bytes() } else { Vec::new() };
        let kind = if A::COUNTS { TEXT } else { BINARY };
        assert_eq!(slow.frame(), Some((kind, reply)));
        assert_eq!(harness.shard.held_bytes(), 0);
    }
    // And beyond what 16 MiB may take on the wire it is refused at the header.
    let mut endless = open(&mut harness, "");
    let too_long = (LARGEST + LARGEST / 8 + 65) as u64;
    endless.send([&[BINARY | RSV1, 0xff][..], &too_long.to_be_bytes(), &[0; 4]].concat());
    harness.turn();
    endless.closed_with(1009);
    harness.bystanders_went_on();
}

/// With the counter, whose replies are short: so whatever is held, is held for what was received.
#[test]
fn fifty_bombs_hold_what_was_sent_and_one_of_what_they_are() {
    const MANY: usize = 50;
    let mut harness = deflating::<Counter>();
    let bomb = deflated(BINARY, &vec![0; 4 * MIB]);
    let mut bombers: Vec<_> =
        (0..MANY).map(|n| open(&mut harness, &format!("session_id=bomber-{n}"))).collect();
    let mut compressing = Compressing(open(&mut harness, "session_id=compressing"), 0);
    harness.begin_watch();
    for bomber in &bombers {
        bomber.send([&bomb[..], &frame(PING, "behind it")].concat());
    }
    let mut most = 0;
    let mut answered = 0;
    for _ in 0..100 * MANY {
        compressing.turn(&mut harness);
        most = most.max(harness.shard.held_bytes());
        for bomber in &mut bombers {
            while let Some((first, payload)) = bomber.frame() {
                match first {
                    PONG => answered += 1,
                    TEXT => assert_eq!(payload, Counter::reply("", 1).into_bytes()),
                    _ => panic!("{first:#x}"),
                }
            }
        }
        if answered == MANY {
            break;
        }
    }
    assert_eq!(answered, MANY, "each had its turn");
    // Storage doubles as it grows.
    let bound = MANY * (bomb.len() + 100) + 2 * 4 * MIB;
    assert!(most > 2 * MIB && most <= bound, "{most} of {bound}");
    harness.bystanders_went_on();
}

fn a_bomber_that_leaves_makes_room<A: Talks>() {
    let bomb = deflated(BINARY, &vec![0; LARGEST]);
    let mut harness = deflating::<A>();
    harness.begin_watch();
    // Whatever becomes of the one that is in the middle of it, the next one's comes out.
    for (what, leave) in [
        ("resets", Stranger::reset as fn(&Stranger)),
        ("says Close", |stranger| stranger.send(close(1000))),
        ("breaks a rule", |stranger| stranger.send(frame(0x83, ""))),
    ] {
        let first = open(&mut harness, "");
        first.send(&bomb);
        harness.turns(5);
        assert!(harness.shard.held_bytes() > MIB, "{what}");
        let mut next = open(&mut harness, "");
        next.send(deflated(BINARY, &vec![0; 2 * MIB]));
        harness.turns(5);
        assert_eq!(next.frame(), None, "it waits");
        leave(&first);
        turns_until_heard(&mut harness, &mut next);
        next.send(close(1000));
        let its_close = (0..10_000).find(|_| {
            harness.quick_turn();
            next.frame().is_some_and(|(kind, _)| kind == CLOSE)
        });
        assert!(its_close.is_some(), "{what}");
        next.hang_up();
        first.hang_up();
    }
    // Some hear echoes of 16 MiB that they do not take.
    harness.pass(Duration::from_secs(60));
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

/// One that has us inflate and stops to take what we say lets the others by.
#[test]
fn a_deaf_bomber_makes_room() {
    let mut harness = Harness::<Echo>::with(Config {
        ws_per_message_deflate: true,
        ws_ping_interval: Some(Duration::from_secs(1)),
        ..defaults()
    });
    let deaf = open(&mut harness, "");
    let mut next = open(&mut harness, "");
    // An echo, of 10 bytes of header, that leaves the backlog at its mark and not above.
    deaf.send(frame(BINARY, vec![7; harness.config.max_send_buffer + ROOM - 10]));
    harness.pass(Duration::from_millis(900));
    deaf.send(deflated(BINARY, &vec![7; LARGEST]));
    harness.turns(3);
    let held = harness.shard.held_bytes();
    assert!(held > harness.config.max_send_buffer + MIB, "{held}: it is inflating");
    // The ping is what is too much; from here on it is not read.
    harness.pass(Duration::from_millis(300));
    let held = harness.shard.held_bytes();
    assert!(held < harness.config.max_send_buffer + MIB, "{held}: it has begun anew");
    harness.begin_watch();
    next.send(deflated(BINARY, &vec![0; 2 * MIB]));
    let turns = turns_until_heard(&mut harness, &mut next);
    assert!(turns < 20, "{turns}");
    harness.turns(5);
    harness.bystanders_went_on();
}

/// What has been received and not inflated yet hides what stands behind it, a pong for one.
#[test]
fn a_message_that_takes_its_time_is_not_taken_for_silence() {
    let mut harness = Harness::<Counter>::with(Config {
        ws_per_message_deflate: true,
        ws_ping_interval: Some(Duration::from_millis(200)),
        ws_ping_timeout: Some(Duration::from_millis(200)),
        ..defaults()
    });
    let mut slow = open(&mut harness, "");
    slow.send(deflated(BINARY, &vec![0; LARGEST]));
    // A turn a tick: it takes one and a half seconds. Then it goes on for as long.
    let (mut pings, mut replies) = (0, Vec::new());
    for _ in 0..40 {
        harness.pass(Duration::from_millis(100));
        while let Some((kind, payload)) = slow.frame() {
            match kind {
                PING => slow.send(frame(PONG, payload)),
                _ => replies.push((kind, payload, pings)),
            }
            pings += u32::from(kind == PING);
        }
    }
    let [(TEXT, reply, pings_before)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(*reply, Counter::reply("", 1).into_bytes());
    assert!(*pings_before >= 1 && pings >= 5, "{pings_before} of {pings}");
    assert!(!slow.is_half_closed());
}

/// After our own Close a bomb is one more thing that is not listened to.
#[test]
fn a_bomb_does_not_hold_up_a_close() {
    let mut harness = deflating::<Echo>();
    let mut bomber = open(&mut harness, "session_id=taken-over");
    bomber.send(deflated(BINARY, &vec![0; LARGEST]));
    harness.turns(3);
    let _newer = open(&mut harness, "session_id=taken-over");
    assert_eq!(bomber.closed_with(4001), "session taken over");
    bomber.send(close(4001));
    harness.turns(3);
    assert!(bomber.is_released());
    assert_eq!(harness.shard.held_bytes(), 0);
}

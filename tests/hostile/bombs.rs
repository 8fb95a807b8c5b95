//! Deflated messages that are small on the wire and large, or slow, behind it. What inflating one of
//! them takes and holds is `src/protocol/deflate`'s own tests' business; here it is what it does to
//! the others of a reactor.

use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};
use revolve::{Config, Counter, Echo};

use crate::client::{BINARY, CLOSE, PING, PONG, TEXT, close, frame, upgrade};
use crate::yard::{ROOM, Stranger, Talks, Yard, defaults};

with_both_applications! {
    a_bomb_is_told_1009_while_it_inflates,
    what_inflates_to_nothing_is_one_visit_at_a_time,
    a_bomber_that_leaves_makes_room,
}

const RSV1: u8 = 0x40;
const LARGEST: usize = 16 << 20;
const MIB: usize = 1 << 20;

fn deflating<A: Talks>() -> Yard<A> {
    Yard::with(Config { ws_per_message_deflate: true, ..defaults() })
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
fn open<A: Talks>(yard: &mut Yard<A>, query: &str) -> Stranger {
    let mut stranger = yard.connect();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let request = upgrade(query);
    stranger.send([request.trim_end(), "\r\n", offer].concat());
    yard.turns(2);
    let head = stranger.text();
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(agreed), "{head}");
    stranger.heard.clear();
    stranger
}

/// Turns until somebody has heard something; how many.
#[track_caller]
fn turns_until_heard<A: Talks>(yard: &mut Yard<A>, stranger: &mut Stranger) -> usize {
    for turn in 1..10_000 {
        yard.quick_turn();
        if !stranger.read().is_empty() {
            return turn;
        }
    }
    panic!("nothing was ever heard");
}

/// Each turn of it: says something deflated, and hears the answer.
struct Compressing(Stranger, u64);

impl Compressing {
    fn turn<A: Talks>(&mut self, yard: &mut Yard<A>) {
        self.1 += 1;
        let said = format!("deflated, number {}", self.1);
        self.0.send(deflated(TEXT, said.as_bytes()));
        yard.quick_turn();
        let reply = A::reply(&said, self.1).into_bytes();
        assert_eq!(self.0.frame(), Some((TEXT, reply)), "in the very turn");
    }
}

fn a_bomb_is_told_1009_while_it_inflates<A: Talks>() {
    let bomb = deflated(BINARY, &vec![0; LARGEST + 1]);
    assert!(bomb.len() < 17 << 10, "{}", bomb.len());
    let mut yard = deflating::<A>();
    let mut bomber = open(&mut yard, "session_id=bomber");
    let mut compressing = Compressing(open(&mut yard, "session_id=compressing"), 0);
    yard.begin_watch();
    bomber.send(&bomb);
    let mut turns = 0;
    while bomber.read().is_empty() {
        compressing.turn(&mut yard);
        turns += 1;
        assert!(yard.shard.held_bytes() <= LARGEST + 1 + bomb.len());
        assert!(turns < 1000);
    }
    // A MiB a turn at most: it was seen in the middle of it, and not behind.
    assert!(turns >= 15, "{turns}");
    assert_eq!(bomber.closed_with(1009), "message too big");
    assert_eq!(yard.shard.held_bytes(), 0);
    bomber.hang_up();
    compressing.0.send(close(1000));
    compressing.0.hang_up();
    yard.turns(3);
    yard.only_bystanders_are_left();
    yard.bystanders_went_on();
}

fn what_inflates_to_nothing_is_one_visit_at_a_time<A: Talks>() {
    let mut yard = deflating::<A>();
    yard.begin_watch();
    // Blocks that store nothing, and streams that end at once; a KiB more than 16 visits' worth.
    for (what, block) in [("stored", &[0, 0, 0, 0xff, 0xff][..]), ("ends", &[0x03, 0x00])] {
        let mut slow = open(&mut yard, &format!("session_id={what}"));
        let visit = yard.config.limits.inflate_per_turn / 16;
        let message = [block.repeat(17 * visit / block.len()), vec![0x00]].concat();
        slow.send(frame(BINARY | RSV1, &message));
        let received = message.len().div_ceil(yard.config.limits.receive_buffer_bytes);
        let turns = turns_until_heard(&mut yard, &mut slow);
        assert!((received + 10..received + 100).contains(&turns), "{what}: {turns} turns");
        let reply = if A::COUNTS { A::reply("", 1).into_bytes() } else { Vec::new() };
        let kind = if A::COUNTS { TEXT } else { BINARY };
        assert_eq!(slow.frame(), Some((kind, reply)));
        assert_eq!(yard.shard.held_bytes(), 0);
    }
    // And beyond what 16 MiB may take on the wire it is refused at the header.
    let mut endless = open(&mut yard, "");
    let too_long = (LARGEST + LARGEST / 8 + 65) as u64;
    endless.send([&[BINARY | RSV1, 0xff][..], &too_long.to_be_bytes(), &[0; 4]].concat());
    yard.turn();
    endless.closed_with(1009);
    yard.bystanders_went_on();
}

/// With the counter, whose replies are short: so whatever is held, is held for what was received.
#[test]
fn fifty_bombs_hold_what_was_sent_and_one_of_what_they_are() {
    const MANY: usize = 50;
    let mut yard = deflating::<Counter>();
    let bomb = deflated(BINARY, &vec![0; 4 * MIB]);
    let mut bombers: Vec<_> =
        (0..MANY).map(|n| open(&mut yard, &format!("session_id=bomber-{n}"))).collect();
    let mut compressing = Compressing(open(&mut yard, "session_id=compressing"), 0);
    yard.begin_watch();
    for bomber in &bombers {
        bomber.send([&bomb[..], &frame(PING, "behind it")].concat());
    }
    let mut most = 0;
    let mut answered = 0;
    for _ in 0..100 * MANY {
        compressing.turn(&mut yard);
        most = most.max(yard.shard.held_bytes());
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
    yard.bystanders_went_on();
}

fn a_bomber_that_leaves_makes_room<A: Talks>() {
    let bomb = deflated(BINARY, &vec![0; LARGEST]);
    let mut yard = deflating::<A>();
    yard.begin_watch();
    // Whatever becomes of the one that is in the middle of it, the next one's comes out.
    for (what, leave) in [
        ("resets", Stranger::reset as fn(&Stranger)),
        ("says Close", |stranger| stranger.send(close(1000))),
        ("breaks a rule", |stranger| stranger.send(frame(0x83, ""))),
    ] {
        let first = open(&mut yard, "");
        first.send(&bomb);
        yard.turns(5);
        assert!(yard.shard.held_bytes() > MIB, "{what}");
        let mut next = open(&mut yard, "");
        next.send(deflated(BINARY, &vec![0; 2 * MIB]));
        yard.turns(5);
        assert_eq!(next.frame(), None, "it waits");
        leave(&first);
        turns_until_heard(&mut yard, &mut next);
        next.send(close(1000));
        let its_close = (0..10_000).find(|_| {
            yard.quick_turn();
            next.frame().is_some_and(|(kind, _)| kind == CLOSE)
        });
        assert!(its_close.is_some(), "{what}");
        next.hang_up();
        first.hang_up();
    }
    // Some hear echoes of 16 MiB that they do not take.
    yard.pass(Duration::from_secs(60));
    yard.only_bystanders_are_left();
    yard.bystanders_went_on();
}

/// One that has us inflate and stops to take what we say lets the others by.
#[test]
fn a_deaf_bomber_makes_room() {
    let mut yard = Yard::<Echo>::with(Config {
        ws_per_message_deflate: true,
        ws_ping_interval: Some(Duration::from_secs(1)),
        ..defaults()
    });
    let deaf = open(&mut yard, "");
    let mut next = open(&mut yard, "");
    // An echo, of 10 bytes of header, that leaves the backlog at its mark and not above.
    deaf.send(frame(BINARY, vec![7; yard.config.max_send_buffer + ROOM - 10]));
    yard.pass(Duration::from_millis(900));
    deaf.send(deflated(BINARY, &vec![7; LARGEST]));
    yard.turns(3);
    let held = yard.shard.held_bytes();
    assert!(held > yard.config.max_send_buffer + MIB, "{held}: it is inflating");
    // The ping is what is too much; from here on it is not read.
    yard.pass(Duration::from_millis(300));
    let held = yard.shard.held_bytes();
    assert!(held < yard.config.max_send_buffer + MIB, "{held}: it has begun anew");
    yard.begin_watch();
    next.send(deflated(BINARY, &vec![0; 2 * MIB]));
    let turns = turns_until_heard(&mut yard, &mut next);
    assert!(turns < 20, "{turns}");
    yard.turns(5);
    yard.bystanders_went_on();
}

/// What has been received and not inflated yet hides what stands behind it, a pong for one.
#[test]
fn a_message_that_takes_its_time_is_not_taken_for_silence() {
    let mut yard = Yard::<Counter>::with(Config {
        ws_per_message_deflate: true,
        ws_ping_interval: Some(Duration::from_millis(200)),
        ws_ping_timeout: Some(Duration::from_millis(200)),
        ..defaults()
    });
    let mut slow = open(&mut yard, "");
    slow.send(deflated(BINARY, &vec![0; LARGEST]));
    // A turn a tick: it takes one and a half seconds. Then it goes on for as long.
    let (mut pings, mut replies) = (0, Vec::new());
    for _ in 0..40 {
        yard.pass(Duration::from_millis(100));
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
    let mut yard = deflating::<Echo>();
    let mut bomber = open(&mut yard, "session_id=taken-over");
    bomber.send(deflated(BINARY, &vec![0; LARGEST]));
    yard.turns(3);
    let _newer = open(&mut yard, "session_id=taken-over");
    assert_eq!(bomber.closed_with(4001), "session taken over");
    bomber.send(close(4001));
    yard.turns(3);
    assert!(bomber.is_half_closed());
    assert_eq!(yard.shard.held_bytes(), 0);
}

//! Frames that break a rule, and messages that are wrong or too large. Which byte shows it is
//! `tests/conformance`'s business; here it is what becomes of the connection.

use std::time::Duration;

use crate::client::{BINARY, CLOSE, PING, TEXT, close, close_payload, frame};
use crate::harness::{Harness, Talks};

with_both_applications! {
    a_broken_rule_ends_the_connection_at_once,
    nothing_is_reserved_for_what_a_header_declares,
    wrong_text_ends_at_its_first_wrong_byte,
    so_does_wrong_text_that_is_read_past_the_receive_buffer,
}

const CONTINUE: u8 = 0x00;
const FIN: u8 = 0x80;
const LARGEST: usize = 16 << 20;

/// A header that declares so many bytes in 64 bits, with its mask.
fn declares(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// What is sent up to the byte that shows it, and the code of the Close that answers it.
fn table() -> Vec<(&'static str, Vec<u8>, u16)> {
    let begun = frame(TEXT & !FIN, "begun");
    let then = |bytes: &[u8]| [&begun[..], bytes].concat();
    vec![
        ("unmasked", vec![0x81, 0x05], 1002),
        ("RSV1 without an extension", vec![0xc1], 1002),
        ("RSV2", vec![0xa2], 1002),
        ("RSV3 on a ping", vec![0x99], 1002),
        ("a reserved data opcode", vec![0x83], 1002),
        ("a reserved control opcode", vec![0x8b], 1002),
        ("a fragmented ping", vec![0x09], 1002),
        ("a fragmented Close", vec![0x08], 1002),
        ("a ping of 126 bytes", vec![0x89, 0xfe], 1002),
        ("a Close of 64 KiB", vec![0x88, 0xff], 1002),
        ("a continuation of nothing", frame(FIN | CONTINUE, "")[..6].to_vec(), 1002),
        ("a message inside of another", then(&frame(TEXT, "x")[..6]), 1002),
        ("the top bit of the length", declares(BINARY, 1 << 63), 1002),
        ("all bits of the length", declares(BINARY, u64::MAX), 1002),
        ("a length longer than it must be", declares(BINARY, 5), 1002),
        ("a Close of one byte", frame(CLOSE, [3]), 1002),
        ("code 999", close(999), 1002),
        ("code 1004", close(1004), 1002),
        ("code 1005", close(1005), 1002),
        ("code 1006", close(1006), 1002),
        ("code 1015", close(1015), 1002),
        ("code 2999", close(2999), 1002),
        ("code 65535", close(65_535), 1002),
        ("a reason that is no UTF-8", frame(CLOSE, [3, 0xe8, 0xff]), 1007),
        ("text that is no UTF-8", frame(TEXT, [0xff]), 1007),
        ("an overlong form", frame(TEXT, [0xc0, 0xaf]), 1007),
        ("a surrogate", frame(TEXT, [0xed, 0xa0, 0x80]), 1007),
        ("text that ends in mid-character", frame(TEXT, [0xe2, 0x82]), 1007),
        ("one byte too many declared", declares(BINARY, LARGEST as u64 + 1), 1009),
        ("2^62 bytes declared", declares(BINARY, 1 << 62), 1009),
        ("2^63 - 1 bytes declared", declares(TEXT, (1 << 63) - 1), 1009),
        ("one byte too many in sum", then(&declares(CONTINUE, LARGEST as u64 - 4)), 1009),
        ("2^63 - 1 bytes in sum", then(&declares(FIN, (1 << 63) - 1)), 1009),
    ]
}

fn a_broken_rule_ends_the_connection_at_once<A: Talks>() {
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    for (number, (what, bytes, code)) in table().into_iter().enumerate() {
        let mut stranger = harness.open_and_talk(&format!("session_id=frames-{number}"));
        stranger.send(&bytes);
        harness.turn();
        let reason = stranger.closed_with(code);
        assert!(!reason.is_empty(), "{what}");
        assert!(stranger.is_half_closed(), "{what}");
        // What it goes on to send is read past, and answered by nothing: no message, no pong.
        stranger.send([frame(TEXT, "still here"), frame(PING, "?"), close(1000)].concat());
        harness.turns(3);
        assert_eq!(stranger.frame(), None, "{what}");
        assert_eq!(harness.shard.held_bytes(), 0, "{what}");
        // Of those who leave at once nothing is left at once; the others have five seconds.
        if number % 2 == 0 {
            stranger.hang_up();
            harness.turns(2);
        } else {
            harness.pass(Duration::from_millis(5100));
        }
        assert!(stranger.is_released(), "{what}");
        harness.only_bystanders_are_left();
        // What was counted before is kept.
        let kept = if A::COUNTS { number + 1 } else { 0 };
        assert_eq!(harness.metrics().sessions_detached.get(), kept as u64, "{what}");
    }
    for code in [1002, 1007, 1009] {
        let many = table().iter().filter(|(_, _, one)| *one == code).count() as u64;
        let label = format!("code=\"{code}\",side=\"server\"");
        assert_eq!(harness.metric("revolve_closed_total", &label), many);
    }
    harness.bystanders_went_on();
}

fn nothing_is_reserved_for_what_a_header_declares<A: Talks>() {
    const MANY: usize = 500;
    let mut harness = Harness::<A>::new();
    let strangers: Vec<_> = (0..MANY).map(|_| harness.open("")).collect();
    harness.begin_watch();
    // As much as is allowed, so that it is no error: 8 GiB in all.
    for stranger in &strangers {
        stranger.send(declares(BINARY, LARGEST as u64));
    }
    harness.turns(10);
    assert_eq!(harness.shard.held_bytes(), 0);
    // And then only for what comes: at most twice as much.
    for stranger in &strangers {
        stranger.send([7; 1000]);
    }
    harness.turns(10);
    let held = harness.shard.held_bytes();
    assert!((MANY * 1000..=MANY * 2000).contains(&held), "{held}");
    for stranger in &strangers {
        stranger.reset();
    }
    harness.turns(2);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn wrong_text_ends_at_its_first_wrong_byte<A: Talks>() {
    // A euro sign over three fragments and two pings, but for its last byte.
    let whole = [
        frame(TEXT & !FIN, [b'a', 0xe2]),
        frame(PING, ""),
        frame(CONTINUE, [0x82]),
        frame(PING, ""),
        frame(CONTINUE, [0x28, b'b', b'c', b'd']),
    ]
    .concat();
    let wrong = whole.len() - 4;
    // Unmasked it is 0x28; and the mask has begun anew with the frame.
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    for step in [1, 2, 3, wrong, whole.len()] {
        let mut stranger = harness.open("");
        let (before, behind) = whole.split_at(wrong);
        for piece in before.chunks(step) {
            stranger.send(piece);
            harness.turn();
        }
        let pongs = std::iter::from_fn(|| stranger.frame()).count();
        assert_eq!(pongs, 2, "so far it was text");
        stranger.send(&behind[..1]);
        harness.turn();
        assert_eq!(stranger.closed_with(1007), "invalid UTF-8");
        stranger.reset();
        harness.turns(2);
        harness.only_bystanders_are_left();
    }
    assert_eq!(close_payload(1007, "").len(), 2);
    harness.bystanders_went_on();
}

fn so_does_wrong_text_that_is_read_past_the_receive_buffer<A: Talks>() {
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    for already in [20_000, 100_000, 500_000] {
        let mut stranger = harness.open("");
        stranger.send(declares(TEXT, 1 << 20));
        for piece in "€".repeat(already / 3).as_bytes().chunks(40_000) {
            stranger.send(piece);
            harness.turn();
        }
        // All that is there goes past the buffer, and the frame goes on.
        stranger.send(b"a piece \xff, and more to come");
        harness.turn();
        assert_eq!(stranger.closed_with(1007), "invalid UTF-8", "after {already}");
        stranger.reset();
        harness.turns(2);
        harness.only_bystanders_are_left();
    }
    harness.bystanders_went_on();
}

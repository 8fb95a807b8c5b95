//! The cases, in the order of Autobahn's groups, and with its numbers where a case is one of its;
//! ours have a word for a number. What Autobahn does by chopping the same bytes in other places is
//! no case of its own here, for every case is cut everywhere. UTF-8, closing and sizes (groups 6,
//! 7, and 9 with 10) have files of their own.

use crate::case::{Case, case};
use crate::wire::{
    BINARY, CLOSE, CONTINUE, FIN, LONG_HEADER, MEDIUM_HEADER, PING, PONG, RSV1, RSV2, RSV3,
    SHORT_HEADER, TEXT, binary, close, fragments, frame, header, masked_with, ping, pong, text,
};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    [
        handshake(),
        framing(),
        pings_and_pongs(),
        reserved_bits(),
        opcodes(),
        fragmentation(),
        crate::utf8::all(),
        crate::closing::all(),
        crate::sizes::all(),
        extensions(),
        crate::deflate::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `size` bytes of text.
pub(crate) fn letters(size: usize) -> String {
    "the quick brown fox jumps over the lazy dog, ".chars().cycle().take(size).collect()
}

fn handshake() -> Vec<Case> {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    vec![
        case("handshake.1", "4.2.2", "the accept key of the RFC's example").echoes_text("a"),
        case("handshake.2", "4.2.2", "a subprotocol is offered, none is taken")
            .with_field("Sec-WebSocket-Protocol: chat, superchat")
            .echoes_text("a"),
        case("handshake.3", "4.2.1", "tokens in a list and in any case")
            .with_head("Connection: Upgrade", "Connection: keep-alive, UPGRADE")
            .with_head("Upgrade: websocket", "Upgrade: WebSocket")
            .echoes_text("a"),
        case("handshake.4", "4.2.1", "no Upgrade")
            .with_head("Upgrade: websocket\r\n", "")
            .refused_with(426, "\r\nUpgrade: websocket\r\n"),
        case("handshake.5", "4.2.1", "an Upgrade to something else")
            .with_head("Upgrade: websocket", "Upgrade: h2c")
            .refused_with(426, "\r\nUpgrade: websocket\r\n"),
        case("handshake.6", "4.2.1", "Connection without Upgrade")
            .with_head("Connection: Upgrade", "Connection: keep-alive")
            .refused_with(400, "\r\nConnection: close\r\n"),
        case("handshake.7", "4.2.1", "no key")
            .with_head(key, "")
            .refused_with(400, "\r\nConnection: close\r\n"),
        case("handshake.8", "4.2.1", "a key of 15 bytes")
            .with_head("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j")
            .refused_with(400, "\r\nConnection: close\r\n"),
        case("handshake.9", "4.2.1", "two keys")
            .with_head(key, &key.repeat(2))
            .refused_with(400, "\r\nConnection: close\r\n"),
        case("handshake.10", "4.2.1", "POST")
            .with_head("GET", "POST")
            .refused_with(405, "\r\nAllow: GET, OPTIONS\r\n"),
        case("handshake.11", "4.2.1", "HTTP/1.0")
            .with_head("HTTP/1.1", "HTTP/1.0")
            .refused_with(505, "\r\nConnection: close\r\n"),
        case("handshake.12", "4.4", "version 8")
            .with_head("Version: 13", "Version: 8")
            .refused_with(426, "\r\nSec-WebSocket-Version: 13\r\n"),
        case("handshake.13", "4.4", "no version")
            .with_head("Sec-WebSocket-Version: 13\r\n", "")
            .refused_with(426, "\r\nSec-WebSocket-Version: 13\r\n"),
    ]
}

/// Autobahn's group 1, the RFC's examples, the length field and the mask.
fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, size) in [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().enumerate() {
        let (n, letters) = (number + 1, letters(size));
        let what = |kind| format!("{size} bytes of {kind}");
        cases.push(case(format!("1.1.{n}"), "5.6", what("text")).echoes_text(&letters));
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        cases.push(case(format!("1.2.{n}"), "5.6", what("bytes")).echoes_binary(&bytes));
    }
    cases.extend([
        case("example.1", "5.3", "the RFC's masked \"Hello\", byte for byte (5.7)")
            .sends([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58])
            .hears_text("Hello"),
        case("example.2", "5.4", "the RFC's fragmented \"Hello\" (5.7), masked")
            .sends(frame(TEXT, "Hel"))
            .sends(frame(FIN | CONTINUE, "lo"))
            .hears_text("Hello"),
        case("example.3", "5.2 length", "256 bytes behind a 16-bit length (5.7)")
            .sends(header(FIN | BINARY, &[126, 0x01, 0x00]))
            .sends(&binary([7; 256])[MEDIUM_HEADER..])
            .hears_binary([7; 256]),
        case("example.4", "5.2 length", "64 KiB behind a 64-bit length (5.7)")
            .sends(header(FIN | BINARY, &[127, 0, 0, 0, 0, 0, 1, 0, 0]))
            .sends(&binary([7; 65_536])[LONG_HEADER..])
            .hears_binary([7; 65_536]),
        case("length.1", "5.2 length", "125 in 16 bits").breaks(
            1002,
            [header(FIN | BINARY, &[126, 0, 125]), vec![0; 125]].concat(),
            MEDIUM_HEADER,
        ),
        case("length.2", "5.2 length", "0 in 16 bits").breaks(
            1002,
            header(FIN | TEXT, &[126, 0, 0]),
            MEDIUM_HEADER,
        ),
        case("length.3", "5.2 length", "65535 in 64 bits").breaks(
            1002,
            header(FIN | BINARY, &[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            LONG_HEADER,
        ),
        case("length.4", "5.2 length", "5 in 64 bits").breaks(
            1002,
            header(FIN | TEXT, &[127, 0, 0, 0, 0, 0, 0, 0, 5]),
            LONG_HEADER,
        ),
        case("length.5", "5.2 length", "the top bit of 64").breaks(
            1002,
            header(FIN | BINARY, &[127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            LONG_HEADER,
        ),
        case("length.6", "5.2 length", "all bits of 64").breaks(
            1002,
            header(FIN | BINARY, &[127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            LONG_HEADER,
        ),
        case("mask.1", "5.1", "unmasked text").breaks(
            1002,
            [0x81, 0x05, 72, 101, 108, 108, 111],
            2,
        ),
        case("mask.2", "5.1", "unmasked and empty").breaks(1002, [0x82, 0x00], 2),
        case("mask.3", "5.1", "an unmasked ping behind a masked one")
            .sends(ping("a"))
            .hears_pong("a")
            .breaks(1002, [0x89, 0x01, b'b'], 2),
        case("mask.4", "5.1", "an unmasked Close").breaks(1002, [0x88, 0x02, 0x03, 0xe8], 2),
        case("mask.5", "5.1", "an unmasked second fragment").sends(frame(TEXT, "a")).breaks(
            1002,
            [0x80, 0x01, b'b'],
            2,
        ),
        case("mask.6", "5.3", "a mask of zeros")
            .sends(masked_with([0; 4], FIN | TEXT, "in the clear"))
            .hears_text("in the clear"),
        case("mask.7", "5.3", "another mask for each fragment, of lengths that are no fours")
            .sends(masked_with([1, 2, 3, 4], TEXT, "abcde"))
            .sends(masked_with([0xff; 4], CONTINUE, "fgh"))
            .sends(masked_with([0x80, 0, 0x80, 0], FIN | CONTINUE, "ijklmno"))
            .hears_text("abcdefghijklmno"),
    ]);
    // One frame for each remainder of four and of eight, for the mask goes round.
    for size in 1..=17 {
        let bytes: Vec<u8> = (100..100 + size).collect();
        cases.push(
            case(format!("mask-size.{size}"), "5.3", format!("a mask over {size} bytes"))
                .echoes_binary(&bytes),
        );
    }
    cases
}

/// Autobahn's group 2.
fn pings_and_pongs() -> Vec<Case> {
    let odd_bytes = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    let ten = || (0..10).map(|n| format!("payload-{n}"));
    let flood = ten()
        .fold(case("2.10", "5.5.2", "ten pings, ten pongs in order"), |case, payload| {
            case.sends(ping(&payload)).hears_pong(payload)
        });
    let flood_inside = ten().fold(
        case("ping.1", "5.5.2", "ten pings inside a fragmented message").sends(frame(TEXT, "a")),
        |case, payload| case.sends(ping(&payload)).hears_pong(payload),
    );
    vec![
        case("2.1", "5.5.2", "an empty ping").sends(ping("")).hears_pong(""),
        case("2.2", "5.5.2", "a ping with text")
            .sends(ping("Hello, world!"))
            .hears_pong("Hello, world!"),
        case("2.3", "5.5.2", "a ping with bytes that are no text")
            .sends(ping(odd_bytes))
            .hears_pong(odd_bytes),
        case("2.4", "5.5.2", "a ping with 125 bytes")
            .sends(ping([0xfe; 125]))
            .hears_pong([0xfe; 125]),
        // Its second byte says so: no length behind it would be short enough.
        case("2.5", "5.5", "a ping with 126 bytes").breaks(1002, ping([0xfe; 126]), 2),
        case("2.6", "5.5.2", "a ping with 125 bytes and a message behind it")
            .sends(ping([0xfe; 125]))
            .hears_pong([0xfe; 125])
            .echoes_text("a"),
        case("2.7", "5.5.3", "an empty pong that nobody asked for").sends(pong("")),
        case("2.8", "5.5.3", "a pong with a payload that nobody asked for")
            .sends(pong("unsolicited")),
        case("2.9", "5.5.3", "such a pong, then a ping")
            .sends(pong("unsolicited"))
            .sends(ping("ping"))
            .hears_pong("ping"),
        flood,
        flood_inside.sends(frame(FIN | CONTINUE, "b")).hears_text("ab"),
        case("ping.2", "5.5", "a pong with 126 bytes").breaks(1002, pong([0; 126]), 2),
        case("ping.3", "5.5", "a Close with 126 bytes").breaks(1002, close(1000, [b'x'; 124]), 2),
        case("ping.4", "5.5", "a ping that says 64 bits of length").breaks(
            1002,
            header(FIN | PING, &[127, 0, 0, 0, 0, 0, 1, 0, 0]),
            2,
        ),
    ]
}

/// Autobahn's group 3. Its number for RSV reads the three bits as one: 1 is RSV3.
fn reserved_bits() -> Vec<Case> {
    let first = |what: &str, byte: u8, id: &str| {
        case(id, "5.2 RSV", what).breaks(1002, frame(byte, "Hello"), 1)
    };
    let second = |what: &str, byte: u8, id: &str| {
        case(id, "5.2 RSV", what)
            .echoes_text("Hello")
            .breaks(1002, frame(byte, "Hello"), 1)
            .then(ping(""))
    };
    vec![
        first("RSV3 on text", FIN | RSV3 | TEXT, "3.1"),
        second("RSV2 on the second text", FIN | RSV2 | TEXT, "3.2"),
        second("RSV2 and RSV3 on the second text", FIN | RSV2 | RSV3 | TEXT, "3.3"),
        second("RSV1 on the second text", FIN | RSV1 | TEXT, "3.4"),
        first("RSV1 and RSV3 on bytes", FIN | RSV1 | RSV3 | BINARY, "3.5"),
        first("RSV1 and RSV2 on a ping", FIN | RSV1 | RSV2 | PING, "3.6"),
        first("all three on a Close", FIN | RSV1 | RSV2 | RSV3 | CLOSE, "3.7"),
        case("rsv.1", "5.2 RSV", "RSV1 on a continuation").sends(frame(TEXT, "a")).breaks(
            1002,
            frame(FIN | RSV1 | CONTINUE, "b"),
            1,
        ),
    ]
}

/// Autobahn's group 4.
fn opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, opcodes) in [(1, 0x3..=0x7), (2, 0xb..=0xf)] {
        for (number, opcode) in opcodes.enumerate() {
            let id = format!("4.{group}.{}", number + 1);
            let what = format!("opcode {opcode:#x}");
            let begun = case(id, "5.2 opcode", &what);
            let wrong = frame(FIN | opcode, "reserved opcode");
            // Autobahn's own mixture: alone and empty, with a payload, behind a good message.
            cases.push(match number {
                0 => begun.breaks(1002, frame(FIN | opcode, ""), 1),
                1 => begun.breaks(1002, wrong, 1),
                _ => begun.echoes_text("Hello").breaks(1002, wrong, 1).then(ping("")),
            });
        }
    }
    for opcode in [0x3, 0x7] {
        cases.push(
            case(format!("opcode.{opcode}"), "5.2 opcode", format!("fragment {opcode:#x}")).breaks(
                1002,
                frame(opcode, "a"),
                1,
            ),
        );
    }
    cases
}

/// Autobahn's group 5.
fn fragmentation() -> Vec<Case> {
    let lone = |fin: u8| frame(fin | CONTINUE, "non-continuation payload");
    let pieces = |from: usize| {
        let all: [&[u8]; 5] =
            [b"fragment1", b"fragment2", b"fragment3", b"fragment4", b"fragment5"];
        fragments(TEXT, all)[from..].to_vec()
    };
    let all_five = "fragment1fragment2fragment3fragment4fragment5";
    let two: [&[u8]; 2] = [b"fragment1", b"fragment2"];
    let mut cases = vec![
        case("5.1", "5.5", "a ping in two fragments").breaks(1002, frame(PING, "fragment1"), 1),
        case("5.2", "5.5", "a pong in two fragments").breaks(1002, frame(PONG, "fragment1"), 1),
        case("fragments.1", "5.5", "a Close in two fragments").breaks(
            1002,
            frame(CLOSE, [0x03, 0xe8]),
            1,
        ),
        case("5.3", "5.4", "text in two fragments")
            .sends_all(fragments(TEXT, two))
            .hears_text("fragment1fragment2"),
        case("5.6", "5.4", "a ping between the fragments")
            .sends(frame(TEXT, "fragment1"))
            .sends(ping("ping payload"))
            .hears_pong("ping payload")
            .sends(frame(FIN | CONTINUE, "fragment2"))
            .hears_text("fragment1fragment2"),
        case("5.9", "5.4", "a final continuation of nothing, then text")
            .breaks(1002, lone(FIN), SHORT_HEADER)
            .then(text("Hello")),
        case("5.12", "5.4", "a continuation of nothing, then text")
            .breaks(1002, lone(0), SHORT_HEADER)
            .then(text("Hello")),
        case("5.15", "5.4", "a continuation behind the last one")
            .sends_all(fragments(TEXT, two))
            .hears_text("fragment1fragment2")
            .breaks(1002, lone(0), SHORT_HEADER)
            .then(text("Hello")),
        case("5.16", "5.4", "a continuation of nothing, then a fragmented text")
            .breaks(1002, lone(0), SHORT_HEADER)
            .then(fragments(TEXT, two).concat()),
        case("5.17", "5.4", "a final continuation of nothing, then a fragmented text")
            .breaks(1002, lone(FIN), SHORT_HEADER)
            .then(fragments(TEXT, two).concat()),
        case("5.18", "5.4", "text inside of text").sends(frame(TEXT, "fragment1")).breaks(
            1002,
            text("fragment2"),
            SHORT_HEADER,
        ),
        case("fragments.2", "5.4", "bytes inside of text, to be continued")
            .sends(frame(TEXT, "fragment1"))
            .breaks(1002, frame(BINARY, "fragment2"), SHORT_HEADER),
        case("5.19", "5.4", "two pings among five fragments")
            .sends_all(pieces(0).into_iter().take(2))
            .sends(ping("pongme 1!"))
            .hears_pong("pongme 1!")
            .sends_all(pieces(2).into_iter().take(2))
            .sends(ping("pongme 2!"))
            .hears_pong("pongme 2!")
            .sends_all(pieces(4))
            .hears_text(all_five),
        case("fragments.3", "5.4", "a pong and a Close among the fragments")
            .sends_all(pieces(0).into_iter().take(2))
            .sends(pong("still here"))
            .closes(close(1000, ""), Some(1000))
            .then(pieces(2).concat()),
        case("fragments.4", "5.4", "bytes in a hundred fragments of one")
            .sends_all(fragments(BINARY, [7u8; 100].chunks(1)))
            .hears_binary([7; 100]),
        case("fragments.5", "5.4", "a message in an empty last fragment")
            .sends_all(fragments(BINARY, [&b"all of it"[..], b""]))
            .hears_binary(*b"all of it"),
        case("fragments.6", "5.4", "two fragmented messages, one behind the other")
            .sends_all(fragments(TEXT, two))
            .hears_text("fragment1fragment2")
            .sends_all(fragments(BINARY, two))
            .hears_binary(*b"fragment1fragment2"),
    ];
    // A fragment ends and the next begins on each side of every boundary of the length field.
    for (number, size) in [125, 126, 127, 65_535, 65_536].into_iter().enumerate() {
        let letters = letters(2 * size);
        cases.push(
            case(format!("fragments.{}", 7 + number), "5.4", format!("two fragments of {size}"))
                .sends_all(fragments(TEXT, letters.as_bytes().chunks(size)))
                .hears_text(letters),
        );
    }
    cases
}

/// None is spoken: none is agreed to, and the bits that one would have given a meaning have none.
fn extensions() -> Vec<Case> {
    let offer = |number: u8, what: &str, offer: &str| {
        case(format!("extension.{number}"), "9.1", what)
            .with_field(&format!("Sec-WebSocket-Extensions: {offer}"))
    };
    let usual = "permessage-deflate; client_max_window_bits";
    // "Hello" as RFC 7692 7.2.3.1 compresses it.
    let compressed = frame(FIN | RSV1 | TEXT, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    vec![
        offer(1, "compression is offered, and not taken", usual).echoes_text("Hello"),
        offer(2, "a compressed message all the same", usual).breaks(1002, &compressed, 1),
        offer(3, "the second message is compressed", usual).echoes_text("Hello").breaks(
            1002,
            &compressed,
            1,
        ),
        offer(4, "something nobody knows", "x-made-up; a=\"1, 2\", permessage-deflate")
            .echoes_text("Hello"),
        offer(5, "two offers in two fields", &format!("{usual}\r\nSec-WebSocket-Extensions: a"))
            .echoes_text("Hello"),
        offer(6, "an offer that does not parse", ";;=,\"").echoes_text("Hello"),
        case("extension.7", "9.1", "compressed without an offer").breaks(1002, &compressed, 1),
    ]
}

//! Messages of every size come back as they were sent: the three forms of a length, fragments,
//! what is larger than the receive buffer, the cork and the high-water mark; and the limit.

use std::net::TcpStream;

use super::client::{BINARY, PING, PONG, Running, TEXT, config, frame, plain_frame};
use revolve::Config;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

const SIZES: [usize; 15] = [
    0,
    1,
    124,
    125,
    126,
    127,
    1000,
    65_535,
    65_536,
    65_537,
    200_000,
    1 << 20,
    (1 << 20) + 1,
    (16 << 20) - 1,
    16 << 20,
];

/// Bytes of which no two stretches are alike, so that a piece that is lost, doubled or swapped
/// shows; ASCII, so that they are text as well.
fn payload(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    let mut number = 10_000_000u32;
    while bytes.len() < size {
        bytes.extend(number.to_string().bytes());
        number += 1;
    }
    bytes.truncate(size);
    bytes
}

fn expect(client: &mut WebSocket<TcpStream>, expected: &Message) {
    let got = client.read().unwrap();
    // Not `assert_eq!`: nobody wants to read 16 MiB.
    assert!(got == *expected, "{} bytes came for {}", got.len(), expected.len());
}

#[test]
fn text_and_binary_of_every_size_come_back() {
    let server = Running::echo(config(1));
    let (mut client, _) = server.client("");
    for size in SIZES {
        let bytes = payload(size);
        for message in
            [Message::text(String::from_utf8(bytes.clone()).unwrap()), Message::binary(bytes)]
        {
            client.send(message.clone()).unwrap();
            expect(&mut client, &message);
        }
    }
}

#[test]
fn fragments_come_back_whole() {
    let server = Running::echo(config(1));
    let (mut client, _) = server.client("");
    for (size, fragment) in
        [(0, 1), (1, 1), (10, 1), (1000, 7), (70_000, 125), (1 << 20, 65_536), (16 << 20, 1 << 20)]
    {
        let bytes = payload(size);
        for kind in [Data::Text, Data::Binary] {
            let mut opcode = OpCode::Data(kind);
            for piece in bytes.chunks(fragment) {
                let fragment = Frame::message(piece.to_vec(), opcode, false);
                client.write(Message::Frame(fragment)).unwrap();
                opcode = OpCode::Data(Data::Continue);
            }
            // The end may be empty, and then so may the beginning have been.
            let end = Frame::message(Vec::new(), opcode, true);
            client.send(Message::Frame(end)).unwrap();
            let expected = match kind {
                Data::Text => Message::text(String::from_utf8(bytes.clone()).unwrap()),
                _ => Message::binary(bytes.clone()),
            };
            expect(&mut client, &expected);
        }
    }
}

#[test]
fn characters_may_be_cut_between_fragments() {
    let server = Running::echo(config(1));
    let mut raw = server.open("");
    let text = "aé€😀".repeat(20);
    for (n, byte) in text.bytes().enumerate() {
        raw.send(frame(u8::from(n == 0), [byte]));
        raw.send(frame(PING, [n as u8]));
        raw.exactly(plain_frame(PONG, [n as u8]));
    }
    raw.send(frame(0x80, ""));
    assert_eq!(raw.text(), text);
}

#[test]
fn many_sizes_in_one_stream_keep_their_order() {
    let server = Running::echo(config(1));
    let mut raw = server.open("");
    let bytes = payload(3000);
    let mut stream = Vec::new();
    for size in 0..300 {
        stream.extend(frame(TEXT, &bytes[..size]));
        stream.extend(frame(BINARY, &bytes[size..2 * size]));
        stream.extend(frame(PING, &bytes[..size.min(125)]));
    }
    // In pieces that fit nothing.
    for piece in stream.chunks(997) {
        raw.send(piece);
    }
    for size in 0..300 {
        raw.exactly(plain_frame(TEXT, &bytes[..size]));
        raw.exactly(plain_frame(BINARY, &bytes[size..2 * size]));
        raw.exactly(plain_frame(PONG, &bytes[..size.min(125)]));
    }
}

#[test]
fn a_larger_one_is_refused_at_its_header() {
    let server = Running::echo(config(1));
    let mut raw = server.open("");
    let mut header = vec![BINARY, 0xff];
    header.extend(((16u64 << 20) + 1).to_be_bytes());
    header.extend([0; 4]);
    raw.send(header);
    assert_eq!(raw.close(), (1009, "message too big".to_owned()));
    raw.at_end();
}

#[test]
fn the_limit_holds_for_the_sum_of_the_fragments() {
    let server = Running::echo(Config { ws_max_size: 1000, ..config(1) });
    let mut raw = server.open("");
    raw.send(frame(0x02, payload(600)));
    raw.send(frame(0x80, payload(400)));
    raw.exactly(plain_frame(BINARY, [payload(600), payload(400)].concat()));
    raw.send(frame(0x02, payload(600)));
    raw.send(frame(0x80, payload(401)));
    assert_eq!(raw.close(), (1009, "message too big".to_owned()));
    raw.at_end();
}

#[test]
fn text_that_is_none_is_1007() {
    let server = Running::echo(config(1));
    let mut raw = server.open("");
    raw.send(frame(BINARY, [0xff]));
    raw.exactly(plain_frame(BINARY, [0xff]));
    raw.send(frame(TEXT, [0xff]));
    assert_eq!(raw.close(), (1007, "invalid UTF-8".to_owned()));
    raw.at_end();
}

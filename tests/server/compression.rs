//! Compression beside no compression: on the same reactors, in the same broadcast, in one session.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::client::{Raw, Running, TEXT, config, frame, plain_frame, upgrade};
use revolve::{Application, Config, Context, Message};

const RSV1: u8 = 0x40;
const USUAL: &str = "permessage-deflate; client_max_window_bits";

/// Everyone hears what anyone says.
struct Town;

impl Application for Town {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text(text) => cx.broadcast_text(text),
            Message::Binary(bytes) => cx.broadcast_binary(bytes),
        }
    }
}

/// Says more than it is told: from `on_open`, in parts, and for each message twice as much.
struct Talker;

impl Application for Talker {
    type Session = ();
    type Connection = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        cx.send_text_parts(["welcome, ".into(), (&rows(3000)).into(), "; ".into()]);
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        cx.send_binary(message.as_bytes());
        cx.send_binary(message.as_bytes());
    }
}

fn rows(size: usize) -> String {
    let rows = (0..).map(|n| format!(r#"{{"id": {n}, "at": {}}}, "#, n * 7919 % 1000));
    rows.flat_map(|row| row.into_bytes()).take(size).map(char::from).collect()
}

fn deflating(workers: usize) -> Config {
    Config { ws_per_message_deflate: true, ..config(workers) }
}

/// An open WebSocket that has offered this, and been answered with some parameters.
fn open(server: &Running, query: &str, offer: &str) -> Raw {
    let mut raw = server.connect();
    let field = format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n");
    raw.send(upgrade(query).replace("\r\n\r\n", &field));
    let head = raw.head();
    assert_eq!(head.status, 101);
    assert!(head.field("sec-websocket-extensions").starts_with("permessage-deflate; "), "{head:?}");
    raw
}

/// A text as a client deflates it.
fn deflated(text: &str) -> Vec<u8> {
    let mut stream = Compress::new(Compression::default(), false);
    let mut out = Vec::with_capacity(text.len() + 1000);
    stream.compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
    frame(TEXT | RSV1, &out[..out.len() - 4])
}

/// The next message, and whether it came deflated.
#[track_caller]
fn hears(raw: &mut Raw, bits: u8) -> (bool, Vec<u8>) {
    let got = raw.frame();
    if got.first & RSV1 == 0 {
        return (false, got.payload);
    }
    let mut message = Vec::with_capacity(2 << 20);
    let whole = [&got.payload[..], &[0, 0, 0xff, 0xff]].concat();
    let mut stream = Decompress::new_with_window_bits(false, bits);
    stream.decompress_vec(&whole, &mut message, FlushDecompress::Sync).unwrap();
    (true, message)
}

#[test]
fn a_broadcast_reaches_everyone_as_they_agreed() {
    let server = Running::new(deflating(3), |_| Town);
    let mut plain: Vec<_> = (0..6).map(|_| server.open("")).collect();
    let mut deflate: Vec<_> = (0..6).map(|_| open(&server, "", USUAL)).collect();
    let narrow = "permessage-deflate; server_max_window_bits=11";
    let mut narrow: Vec<_> = (0..6).map(|_| open(&server, "", narrow)).collect();
    let texts = [rows(20_000), rows(2000), "short".to_owned(), rows(50_000)];
    for text in &texts {
        deflate[0].send(deflated(text));
    }
    for text in &texts {
        for raw in &mut plain {
            raw.exactly(plain_frame(TEXT, text));
        }
        for raw in &mut deflate {
            assert_eq!(hears(raw, 15), (text.len() >= 1024, text.clone().into_bytes()));
        }
        // One deflated form serves all; it is not for those whose window is too small for it.
        let fits = (1024..=1 << 11).contains(&text.len());
        for raw in &mut narrow {
            assert_eq!(hears(raw, 11), (fits, text.clone().into_bytes()));
        }
    }
}

#[test]
fn every_way_to_say_something_is_deflated() {
    let server = Running::new(deflating(1), |_| Talker);
    let welcome = format!("welcome, {}; ", rows(3000)).into_bytes();
    for bits in [8, 9, 12, 15] {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let mut raw = open(&server, "", &offer);
        let inflates = u8::max(bits, 9);
        assert_eq!(hears(&mut raw, inflates), (true, welcome.clone()));
        for said in [rows(1024), "short".to_owned(), rows(8000)] {
            raw.send(frame(TEXT, &said));
            raw.send(deflated(&said));
            for _ in 0..4 {
                let expected = (said.len() >= 1024, said.clone().into_bytes());
                assert_eq!(hears(&mut raw, inflates), expected, "{bits} bits");
            }
        }
    }
    let mut plain = server.open("");
    assert_eq!(plain.frame().payload, welcome);
}

#[test]
fn the_hello_is_too_short_to_be_deflated() {
    let server = Running::counter(deflating(2));
    let id = "x".repeat(128);
    let mut raw = open(&server, &format!("session_id={id}&hello=1"), USUAL);
    let hello = format!(r#"{{"session_id": "{id}", "count": 0, "resumed": false}}"#);
    raw.exactly(plain_frame(TEXT, hello));
}

#[test]
fn one_session_with_compression_and_without() {
    let server = Running::counter(deflating(4));
    for round in 0..20 {
        let query = "session_id=both";
        let mut raw = match round % 2 {
            0 => server.open(query),
            _ => open(&server, query, USUAL),
        };
        raw.send(match round % 2 {
            0 => frame(TEXT, rows(5000)),
            _ => deflated(&rows(5000)),
        });
        assert_eq!(raw.text(), format!("{{\"count\": {}}}", round + 1));
    }
}

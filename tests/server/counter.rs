//! The default application, byte for byte what the Django service sends.

use std::time::Duration;

use super::client::{BINARY, CLOSE, Running, TEXT, close, close_payload, config, frame};
use super::client::{plain_frame, session_of};
use revolve::Counter;

#[test]
fn it_counts_and_says_goodbye_byte_for_byte() {
    let server = Running::counter(config(1));
    let mut raw = server.open("");
    raw.say("hello");
    raw.exactly(b"\x81\x0c{\"count\": 1}");
    raw.send(frame(BINARY, [0, 159, 255]));
    raw.exactly(b"\x81\x0c{\"count\": 2}");
    raw.say("");
    raw.exactly(b"\x81\x0c{\"count\": 3}");
    // Near misses are messages like any other, and so is `quit` in binary.
    for near in [" quit", "quits", "Quit", "quit now"] {
        raw.say(near);
    }
    raw.send(frame(BINARY, "quit"));
    for count in 4..=8 {
        raw.exactly(plain_frame(TEXT, format!("{{\"count\": {count}}}")));
    }
    raw.say("quit \r\n");
    raw.exactly(b"\x81\x19{\"bye\": true, \"total\": 8}");
    raw.exactly(b"\x88\x17\x03\xe8quit command received");
    raw.send(close(1000));
    raw.at_end();
}

#[test]
fn tungstenite_sees_the_same() {
    let server = Running::counter(config(1));
    let (mut client, response) = server.client("");
    assert!(!session_of(&response).1);
    client.send("hello".into()).unwrap();
    assert_eq!(client.read().unwrap(), r#"{"count": 1}"#.into());
    client.send("quit".into()).unwrap();
    assert_eq!(client.read().unwrap(), r#"{"bye": true, "total": 1}"#.into());
    let tungstenite::Message::Close(Some(close)) = client.read().unwrap() else {
        panic!("no close");
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "quit command received"));
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn what_comes_behind_quit_is_not_counted() {
    let server = Running::counter(config(1));
    let mut raw = server.open("session_id=q");
    let hello = frame(TEXT, "hello");
    raw.send([&hello[..], &frame(TEXT, "quit"), &hello, &hello].concat());
    assert_eq!(raw.text(), r#"{"count": 1}"#);
    assert_eq!(raw.text(), r#"{"bye": true, "total": 1}"#);
    assert_eq!(raw.close(), (1000, "quit command received".to_owned()));
    raw.send([&hello[..], &frame(CLOSE, close_payload(1000, "bye"))].concat());
    raw.at_end();
    let (_, head) = server.open_with_head("session_id=q");
    assert_eq!(head.session(), ("q", true, 1));
}

#[test]
fn ten_thousand_in_one_go_are_answered_in_order() {
    let server = Running::counter(config(1));
    let mut raw = server.open("");
    // Some 110 KB in, 160 KB out: several receive buffers and several corks.
    raw.send(frame(TEXT, "hello").repeat(10_000));
    for count in 1..=10_000 {
        assert_eq!(raw.text(), format!("{{\"count\": {count}}}"));
    }
}

#[test]
fn the_heart_beats_on_every_reactor() {
    let beat = Some(Duration::from_millis(20));
    let server = Running::new(config(4), move |_| Counter::new(beat));
    let mut raws: Vec<_> = (0..16).map(|n| server.open(&format!("session_id=heart-{n}"))).collect();
    for raw in &mut raws {
        let (first, second) = (raw.text(), raw.text());
        for time in [&first, &second] {
            let digits = time.strip_prefix(r#"{"ts": ""#).and_then(|t| t.strip_suffix(r#""}"#));
            let shape: String = digits
                .unwrap_or_else(|| panic!("{time}"))
                .chars()
                .map(|c| if c.is_ascii_digit() { '0' } else { c })
                .collect();
            assert_eq!(shape, "0000-00-00T00:00:00.000000");
        }
        assert!(first < second, "{first} {second}");
    }
}

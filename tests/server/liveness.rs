//! Pings: who answers stays, who does not is let go, and a client's own pings are answered.

use std::time::Duration;

use super::client::{PING, PONG, Running, config, frame, plain_frame};
use revolve::Config;
use tungstenite::Message;

fn watchful(interval: u64, timeout: u64) -> Config {
    Config {
        ws_ping_interval: Some(Duration::from_millis(interval)),
        ws_ping_timeout: Some(Duration::from_millis(timeout)),
        ..config(2)
    }
}

#[test]
fn who_answers_stays() {
    let server = Running::counter(watchful(60, 8000));
    let mut raw = server.open("");
    for _ in 0..5 {
        raw.exactly(plain_frame(PING, ""));
        raw.send(frame(PONG, ""));
    }
    raw.say("x");
    loop {
        let got = raw.frame();
        if got.first != PING {
            assert_eq!(got.payload, br#"{"count": 1}"#);
            break;
        }
    }
    assert_eq!(server.metric("revolve_closed_total", ""), 0);
}

#[test]
fn who_does_not_is_let_go() {
    let server = Running::counter(watchful(50, 150));
    let mut silent = server.open("session_id=silent");
    // One that talks, but never pongs, is not alive either: it may be a program gone astray.
    let mut talker = server.open("session_id=talker");
    talker.say("x");
    assert_eq!(talker.text(), r#"{"count": 1}"#);
    for raw in [&mut silent, &mut talker] {
        raw.exactly(plain_frame(PING, ""));
        assert_eq!(raw.close(), (1011, "keepalive ping timeout".to_owned()));
        raw.at_end();
    }
    assert_eq!(server.metric("revolve_closed_total", "code=\"1011\",side=\"server\""), 2);
    // Its session is as if it had left.
    server.wait_for("revolve_sessions_detached", "", 1);
    assert_eq!(server.open_with_head("session_id=talker").1.session().2, 1);
}

#[test]
fn without_a_timeout_pings_go_on_unanswered() {
    let config = Config { ws_ping_timeout: None, ..watchful(50, 1) };
    let server = Running::counter(config);
    let mut raw = server.open("");
    for _ in 0..4 {
        raw.exactly(plain_frame(PING, ""));
    }
    raw.say("x");
    while raw.frame().first == PING {}
}

#[test]
fn tungstenite_answers_by_itself() {
    let server = Running::counter(watchful(60, 8000));
    let (mut client, _) = server.client("");
    for _ in 0..4 {
        assert_eq!(client.read().unwrap(), Message::Ping("".into()));
    }
    client.send("x".into()).unwrap();
    while client.read().unwrap().is_ping() {}
    assert_eq!(server.metric("ws_active_connections", ""), 1);
}

#[test]
fn a_clients_pings_are_answered_in_their_order() {
    let server = Running::counter(config(1));
    let mut raw = server.open("");
    let longest = "p".repeat(125);
    let pings: Vec<u8> = ["", "1", &longest]
        .into_iter()
        .flat_map(|payload| [frame(PING, payload), frame(PONG, "unasked")].concat())
        .collect();
    raw.send([pings, frame(0x81, "x")].concat());
    for payload in ["", "1", &longest] {
        raw.exactly(plain_frame(PONG, payload));
    }
    assert_eq!(raw.text(), r#"{"count": 1}"#);
}

//! What a client may ask for in the query, and what the 101 and the hello tell it.
//!
//! How long sessions are kept is `keeping.rs`'.

use super::client::{Running, config, eventually, get, upgrade};
use tungstenite::handshake::derive_accept_key;

/// Counts one message and leaves; returns once the server has noticed.
fn count_one_and_leave(server: &Running, query: &str) {
    let before = server.metric("revolve_websockets", "");
    let mut raw = server.open(query);
    raw.say("hello");
    raw.text();
    drop(raw);
    server.wait_for("revolve_websockets", "", before);
}

#[test]
fn without_an_id_a_new_session_gets_one() {
    let server = Running::counter(config(2));
    for query in ["", "other=1", "hello=0", "session=a", "Session_id=a"] {
        let (mut raw, head) = server.open_with_head(query);
        let (id, resumed, count) = head.session();
        assert_eq!((id.len(), resumed, count), (22, false, 0), "{query}");
        // No hello: the first frame answers the first message.
        raw.say("x");
        assert_eq!(raw.text(), r#"{"count": 1}"#);
    }
}

#[test]
fn issued_ids_differ_and_find_their_session() {
    let server = Running::counter(config(4));
    let mut ids = Vec::new();
    for _ in 0..20 {
        let (mut raw, head) = server.open_with_head("");
        raw.say("x");
        raw.text();
        ids.push(head.session().0.to_owned());
    }
    for id in &ids {
        let (_, head) = server.open_with_head(&format!("session_id={id}"));
        assert_eq!(head.session(), (id.as_str(), true, 1));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[test]
fn an_empty_id_asks_for_a_hello() {
    let server = Running::counter(config(2));
    for query in ["session_id=", "session_id", "a=b&session_id=&session_id=later"] {
        let (mut raw, head) = server.open_with_head(query);
        let id = head.session().0;
        assert_eq!(id.len(), 22, "{query}");
        let hello = format!(r#"{{"session_id": "{id}", "count": 0, "resumed": false}}"#);
        assert_eq!(raw.text(), hello);
        raw.say("x");
        assert_eq!(raw.text(), r#"{"count": 1}"#);
    }
}

#[test]
fn a_given_id_names_the_session() {
    let server = Running::counter(config(4));
    let longest = "x".repeat(128);
    for (n, id) in ["a", "A-z.0_~", "-", longest.as_str()].into_iter().enumerate() {
        let query = format!("n={n}&session_id={id}");
        let (_, head) = server.open_with_head(&query);
        assert_eq!(head.session(), (id, false, 0));
    }
    server.wait_for("revolve_websockets", "", 0);
    // The first one counts, percent-encoding is undone, and both spellings are one session.
    count_one_and_leave(&server, "session_id=a%7Eb&session_id=c");
    let (_, head) = server.open_with_head("session_id=a~b");
    assert_eq!(head.session(), ("a~b", true, 1));
}

#[test]
fn hello_is_told_on_any_connect() {
    let server = Running::counter(config(4));
    let hello = |query: &str| server.open(query).text();
    let told = hello("session_id=h&hello=1");
    assert_eq!(told, r#"{"session_id": "h", "count": 0, "resumed": false}"#);
    server.wait_for("revolve_websockets", "", 0);
    count_one_and_leave(&server, "session_id=h");
    let told = hello("hello=1&session_id=h");
    assert_eq!(told, r#"{"session_id": "h", "count": 1, "resumed": true}"#);
}

#[test]
fn a_client_whose_reply_was_lost_learns_that_it_was_counted() {
    let server = Running::counter(config(4));
    for n in 0..20 {
        let query = format!("session_id=lost-{n}");
        let mut raw = server.open(&query);
        raw.say("one");
        raw.text();
        raw.say("two");
        eventually("the second is counted", || {
            server.metric("ws_total_messages_total", "") == 2 * n + 2
        });
        raw.reset();
        assert_eq!(server.open_with_head(&query).1.session().2, 2);
    }
}

#[test]
fn no_id_is_400() {
    let server = Running::counter(config(2));
    let too_long = "x".repeat(129);
    let bad = ["a%20b", "a+b", "a/b", "%", "a%2", "a%zz", "%C3%A9", "%00", "a;b", "\"", &too_long];
    for id in bad {
        let response = server.refused(&format!("session_id={id}"));
        assert_eq!(response.head.status, 400, "{id}");
        assert_eq!(response.head.field("connection"), "close");
        let advice = "session_id takes 1 to 128 characters of A-Z a-z 0-9 - . _ ~\n";
        assert_eq!(response.body, advice, "{id}");
        assert_eq!(response.head.field("x-session-id"), "");
    }
    server.wait_for("revolve_rejected_total", "bad_session_id", bad.len() as u64);
    assert_eq!(server.metric("revolve_sessions_live", ""), 0);
}

#[test]
fn the_101_is_what_the_rfc_asks_for() {
    let server = Running::counter(config(1));
    let (_raw, head) = server.open_with_head("session_id=a");
    assert_eq!(head.field("upgrade"), "websocket");
    assert_eq!(head.field("connection"), "Upgrade");
    let accept = derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(head.field("sec-websocket-accept"), accept);
    // Neither was offered, so neither may be chosen.
    assert_eq!(head.field("sec-websocket-protocol"), "");
    assert_eq!(head.field("sec-websocket-extensions"), "");
}

#[test]
fn the_path_may_lack_its_last_slash() {
    let server = Running::counter(config(1));
    let mut raw = server.connect();
    raw.send(upgrade("session_id=s").replace("/ws/chat/?", "/ws/chat?"));
    assert_eq!(raw.head().session().0, "s");
    // And nothing else.
    let mut raw = server.connect();
    raw.send(upgrade("").replace("/ws/chat/?", "/ws/chat/x"));
    assert_eq!(raw.response().head.status, 404);
}

#[test]
fn upgrades_that_break_a_rule_are_told_which() {
    let server = Running::counter(config(1));
    let good = upgrade("");
    for (find, replace, status) in [
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", 426),
        ("Connection: Upgrade\r\n", "Connection: keep-alive\r\n", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
        ("Version: 13", "Version: 8", 426),
        ("GET ", "POST ", 405),
        ("HTTP/1.1", "HTTP/1.0", 505),
        ("Host: localhost\r\n", "", 400),
        ("Host: localhost\r\n", "Host: localhost\r\nContent-Length: 5\r\n", 400),
    ] {
        let mut raw = server.connect();
        raw.send(good.replacen(find, replace, 1));
        let response = raw.response();
        assert_eq!(response.head.status, status, "{find:?} -> {replace:?}");
        if status == 426 {
            assert_eq!(response.head.field("sec-websocket-version"), "13");
        }
        raw.at_end();
    }
    let mut raw = server.connect();
    raw.send(get("/healthz"));
    assert_eq!(raw.response().head.status, 200, "and the server is well");
}

//! Which sessions are kept, how long, and how many.

use std::time::Duration;

use super::client::{Running, config};
use revolve::{Config, SessionIds};

/// Connects, counts so many messages and leaves; returns the id once the server has noticed.
fn visit(server: &Running, query: &str, messages: usize) -> String {
    let before = server.metric("revolve_websockets", "");
    let (mut raw, head) = server.open_with_head(query);
    for _ in 0..messages {
        raw.say("hello");
        raw.text();
    }
    drop(raw);
    server.wait_for("revolve_websockets", "", before);
    head.session().0.to_owned()
}

/// What a connect finds: whether the session was there, and its count.
fn found(server: &Running, id: &str) -> (bool, u64) {
    let (_raw, head) = server.open_with_head(&format!("session_id={id}"));
    let (_, resumed, count) = head.session();
    (resumed, count)
}

#[test]
fn strict_mode_takes_up_only_what_was_issued() {
    let server = Running::counter(Config { session_ids: SessionIds::Issued, ..config(4) });
    for n in 0..20 {
        let chosen = format!("chosen-{n}");
        let (mut raw, head) = server.open_with_head(&format!("session_id={chosen}&hello=1"));
        let (id, resumed, count) = head.session();
        assert_ne!(id, chosen);
        assert_eq!((id.len(), resumed, count), (22, false, 0));
        let hello = format!(r#"{{"session_id": "{id}", "count": 0, "resumed": false}}"#);
        assert_eq!(raw.text(), hello);
        raw.say("x");
        raw.text();
        // The one issued is found, while its connection still stands; the chosen one never.
        let (_raw, again) = server.open_with_head(&format!("session_id={id}"));
        assert_eq!(again.session(), (id, true, 1));
        assert_eq!(found(&server, &chosen), (false, 0));
    }
    // What looks like an issued id is not one.
    assert_eq!(found(&server, "AAAAAAAAAAAAAAAAAAAAAA"), (false, 0));
}

#[test]
fn a_session_lives_on_for_its_time() {
    let ttl = Duration::from_millis(200);
    let server = Running::counter(Config { session_ttl: ttl, ..config(2) });
    // The time does not run while somebody is there.
    let mut raw = server.open("session_id=here");
    raw.say("hello");
    raw.text();
    visit(&server, "session_id=gone", 3);
    server.wait_for("revolve_expiries_total", "", 1);
    assert_eq!(server.metric("revolve_sessions_detached", ""), 0);
    assert_eq!(found(&server, "gone"), (false, 0));
    raw.say("hello");
    assert_eq!(raw.text(), r#"{"count": 2}"#);
}

#[test]
fn the_time_begins_anew_with_each_disconnect() {
    let server = Running::counter(Config { session_ttl: Duration::from_secs(60), ..config(2) });
    for count in 1..=5 {
        visit(&server, "session_id=again", 1);
        assert_eq!(found(&server, "again"), (true, count));
        server.wait_for("revolve_websockets", "", 0);
    }
    assert_eq!(server.metric("revolve_expiries_total", ""), 0);
}

#[test]
fn a_ttl_of_zero_keeps_nothing() {
    let server = Running::counter(Config { session_ttl: Duration::ZERO, ..config(1) });
    visit(&server, "session_id=z", 5);
    assert_eq!(found(&server, "z"), (false, 0));
}

#[test]
fn a_full_table_lets_the_longest_gone_leave() {
    let server = Running::counter(Config { max_sessions: 3, ..config(1) });
    for name in ["a", "b", "c"] {
        visit(&server, &format!("session_id={name}"), 1);
    }
    // "a" comes back: now "b" is the longest gone, and makes room.
    visit(&server, "session_id=a", 1);
    visit(&server, "session_id=d", 1);
    server.wait_for("revolve_evictions_total", "", 1);
    assert_eq!(server.metric("revolve_sessions_detached", ""), 3);
    for (name, expected) in [("a", (true, 2)), ("c", (true, 1)), ("d", (true, 1))] {
        assert_eq!(found(&server, name), expected, "{name}");
        server.wait_for("revolve_websockets", "", 0);
    }
    // Looked for last, because looking makes a session of that name.
    assert_eq!(found(&server, "b"), (false, 0));
}

#[test]
fn nobody_who_is_there_has_to_leave() {
    // The bound is on sessions without a connection; those with one are bounded by connections.
    let server = Running::counter(Config { max_sessions: 2, ..config(1) });
    let mut raws: Vec<_> = (0..5).map(|n| server.open(&format!("session_id={n}"))).collect();
    for raw in &mut raws {
        raw.say("hello");
        assert_eq!(raw.text(), r#"{"count": 1}"#);
    }
    assert_eq!(server.metric("revolve_sessions_live", ""), 5);
    assert_eq!(server.metric("revolve_evictions_total", ""), 0);
    // They leave one after the other: the last two to leave are kept.
    for (left, raw) in (0..5).rev().zip(raws) {
        drop(raw);
        server.wait_for("revolve_websockets", "", left);
    }
    server.wait_for("revolve_evictions_total", "", 3);
    assert_eq!(server.metric("revolve_sessions_detached", ""), 2);
    assert_eq!(found(&server, "4"), (true, 1));
    assert_eq!(found(&server, "0"), (false, 0));
}

#[test]
fn connecting_alone_pushes_nobody_out() {
    let server = Running::counter(Config { max_sessions: 3, ..config(1) });
    visit(&server, "session_id=precious", 7);
    for n in 0..50 {
        visit(&server, &format!("session_id=churn-{n}"), 0);
    }
    assert_eq!(server.metric("revolve_evictions_total", ""), 0);
    assert_eq!(found(&server, "precious"), (true, 7));
}

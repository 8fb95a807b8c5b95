//! Clients that vanish, at every stage and in every way: nothing is left of them, and nobody else
//! notices.

use super::client::{CLOSE, PING, Raw, Running, TEXT, close_payload, config, frame, get, upgrade};

/// The ways to vanish.
const WAYS: [fn(Raw); 3] = [
    drop,
    Raw::reset,
    // Its half ends first, what the server says to that is read, and then it leaves.
    |raw| {
        raw.half_close();
        raw.gone();
    },
];

#[test]
fn sockets_may_drop_at_every_byte_of_a_connection() {
    let server = Running::counter(config(4));
    let mut witness = server.open("session_id=witness");
    let whole = [
        get("/healthz").into_bytes(),
        upgrade("session_id=dropper").into_bytes(),
        frame(TEXT, "hello"),
        frame(0x01, "unfini"),
        frame(PING, "ping"),
        frame(0x80, "shed"),
        frame(CLOSE, close_payload(1000, "bye")),
    ]
    .concat();
    for (round, cut) in (0..=whole.len()).enumerate() {
        let mut raw = server.connect();
        raw.send(&whole[..cut]);
        WAYS[round % WAYS.len()](raw);
        if round % 25 == 0 {
            witness.say("x");
            witness.text();
        }
    }
    server.wait_for("revolve_connections", "", 1);
    server.wait_for("revolve_websockets", "", 1);
    server.wait_for("revolve_sessions_live", "", 1);
    assert_eq!(server.metric("revolve_panics_total", ""), 0);
    assert_eq!(server.metric("ws_active_connections", ""), 1);
    drop(witness);
    let mut raw = server.open("session_id=dropper");
    raw.say("x");
    assert!(raw.text().starts_with(r#"{"count": "#));
}

#[test]
fn sockets_may_drop_before_they_read_their_answer() {
    let server = Running::counter(config(4));
    for round in 0..60 {
        let mut raw = server.connect();
        raw.send(upgrade(&format!("session_id=gone-{round}")));
        raw.send(frame(TEXT, "hello").repeat(round * 10));
        if round % 2 == 0 {
            raw.head();
        }
        WAYS[round % WAYS.len()](raw);
    }
    server.wait_for("revolve_connections", "", 0);
    server.wait_for("revolve_websockets", "", 0);
    server.wait_for("revolve_sessions_live", "", 0);
}

#[test]
fn a_storm_of_connects_leaves_nothing_behind() {
    let server = Running::counter(config(2));
    for round in 0..20 {
        let raws: Vec<_> = (0..50).map(|_| server.connect()).collect();
        for raw in raws {
            WAYS[round % 2](raw);
        }
    }
    server.wait_for("revolve_connections", "", 0);
    let mut raw = server.open("");
    raw.say("x");
    assert_eq!(raw.text(), r#"{"count": 1}"#);
}

#[test]
fn a_client_that_ends_its_half_still_gets_its_replies() {
    let server = Running::counter(config(1));
    let mut raw = server.open("");
    raw.send(frame(TEXT, "hello").repeat(5000));
    raw.half_close();
    for count in 1..=5000 {
        assert_eq!(raw.text(), format!("{{\"count\": {count}}}"));
    }
    raw.at_end();
    server.wait_for("revolve_closed_total", "code=\"1006\",side=\"client\"", 1);
}

#[test]
fn a_clients_close_is_answered_with_its_code() {
    let server = Running::counter(config(1));
    for (payload, answer, label) in [
        (close_payload(1000, "done"), close_payload(1000, ""), "1000"),
        (close_payload(1001, ""), close_payload(1001, ""), "1001"),
        (close_payload(4321, "mine"), close_payload(4321, ""), "4xxx"),
        (vec![], vec![], "1005"),
    ] {
        let mut raw = server.open("");
        raw.send(frame(CLOSE, &payload));
        let got = raw.frame();
        assert_eq!((got.first, got.payload), (CLOSE, answer));
        // The server ends its half first (RFC 6455 7.1.1), and does not wait for ever for ours.
        raw.at_end();
        let label = format!("code=\"{label}\",side=\"client\"");
        assert_eq!(server.metric("revolve_closed_total", &label), 1);
    }
    server.wait_for("revolve_connections", "", 0);
}

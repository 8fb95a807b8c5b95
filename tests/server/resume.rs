//! A reconnect finds its count, whichever reactor it lands on and however its bytes arrive.

use std::collections::HashMap;

use super::client::{Running, TEXT, config, count_of, frame, get, session_of, upgrade};
use revolve::Config;
use tungstenite::Message;

/// A thousand connects over these ids, each of which must find the count that the last one left.
/// Some say goodbye, some vanish, some are still there when their successor comes.
fn thousand_reconnects(server: &Running, ids: &[String], counts: &mut HashMap<String, u64>) {
    let mut held = HashMap::new();
    for round in 0..1000 {
        // 7 and the number of ids have no common factor: all get their turn, none in a row.
        let id = &ids[round * 7 % ids.len()];
        let expected = counts.entry(id.clone()).or_default();
        let (mut client, response) = server.client(&format!("session_id={id}"));
        assert_eq!(session_of(&response), (id.clone(), *expected > 0, *expected), "round {round}");
        for _ in 0..=round % 3 {
            *expected += 1;
            assert_eq!(count_of(&mut client), *expected, "round {round}");
        }
        match round % 5 {
            0 => {
                client.close(None).unwrap();
                while client.read().is_ok() {}
            }
            1 | 2 => drop(client),
            _ => drop(held.insert(id.clone(), client)),
        }
    }
    let out = server.metric("revolve_hand_overs_out_total", "");
    assert_eq!(server.metric("revolve_hand_overs_in_total", ""), out);
    // Three in four land elsewhere, by the kernel's hash; a tenth would already be a wonder.
    assert!(out > 100, "{out} hand-overs");
}

#[test]
fn a_thousand_reconnects_with_chosen_ids_find_their_counts() {
    let server = Running::counter(config(4));
    let ids: Vec<String> = (0..50).map(|n| format!("client-{n}")).collect();
    thousand_reconnects(&server, &ids, &mut HashMap::new());
}

#[test]
fn a_thousand_reconnects_with_issued_ids_find_their_counts() {
    let server = Running::counter(config(4));
    let mut counts = HashMap::new();
    let ids: Vec<String> = (0..50)
        .map(|_| {
            let (mut client, response) = server.client("");
            let id = session_of(&response).0;
            counts.insert(id.clone(), count_of(&mut client));
            id
        })
        .collect();
    // A new session needs no hand-over: its id is chosen so that it lives where it landed.
    assert_eq!(server.metric("revolve_hand_overs_out_total", ""), 0);
    thousand_reconnects(&server, &ids, &mut counts);
}

#[test]
fn frames_in_the_packet_of_the_upgrade_are_counted() {
    let server = Running::counter(config(4));
    for n in 0..50 {
        let mut raw = server.connect();
        let frames = frame(TEXT, "hello").repeat(3);
        raw.send([upgrade(&format!("session_id=eager-{n}")).as_bytes(), &frames].concat());
        assert_eq!(raw.head().session().2, 0);
        for count in 1..=3 {
            assert_eq!(raw.text(), format!("{{\"count\": {count}}}"));
        }
    }
    assert!(server.metric("revolve_hand_overs_in_total", "") > 0);
}

#[test]
fn frames_that_follow_at_once_are_counted() {
    // The second packet may find the connection on the one reactor, on the other, or on its way.
    let server = Running::counter(config(4));
    for n in 0..100 {
        let mut raw = server.connect();
        raw.send(upgrade(&format!("session_id=quick-{n}")));
        raw.send(frame(TEXT, "hello"));
        raw.send(frame(TEXT, "hello"));
        raw.half_close();
        raw.head();
        assert_eq!(raw.text(), r#"{"count": 1}"#);
        assert_eq!(raw.text(), r#"{"count": 2}"#);
        raw.at_end();
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = Running::counter(config(4));
    for n in 0..20 {
        let mut raw = server.connect();
        let bytes =
            [upgrade(&format!("session_id=slow-{n}")).as_bytes(), &frame(TEXT, "hello")].concat();
        for byte in bytes {
            raw.send([byte]);
        }
        assert_eq!(raw.head().session(), (format!("slow-{n}").as_str(), false, 0));
        assert_eq!(raw.text(), r#"{"count": 1}"#);
    }
    assert!(server.metric("revolve_hand_overs_in_total", "") > 0);
}

#[test]
fn requests_before_the_upgrade_are_answered_before_it() {
    let server = Running::counter(config(4));
    for n in 0..30 {
        let mut raw = server.connect();
        let requests = get("/healthz") + &get("/readyz") + &upgrade(&format!("session_id=p-{n}"));
        raw.send([requests.as_bytes(), &frame(TEXT, "hello")].concat());
        assert_eq!(raw.response().body, r#"{"status": "ok"}"#);
        assert_eq!(raw.response().body, r#"{"ready": true}"#);
        assert_eq!(raw.head().status, 101);
        assert_eq!(raw.text(), r#"{"count": 1}"#);
    }
    assert!(server.metric("revolve_hand_overs_in_total", "") > 0);
}

#[test]
fn a_hand_over_carries_the_responses_that_have_not_left() {
    const PAGES: u64 = 400;
    // High enough that what waits never stops the reading; the client reads nothing.
    let server = Running::counter(Config { max_send_buffer: 1 << 30, ..config(4) });
    let page = server.metrics().len() as u64;
    let mut handed_over = 0;
    while handed_over == 0 {
        let mut raw = server.connect_narrow();
        let requests = get("/metrics").repeat(PAGES as usize) + &upgrade("session_id=carried");
        raw.send([requests.as_bytes(), &frame(TEXT, "hello")].concat());
        // Counted on the other side, while most of the pages are still here: the kernel has room
        // for 4 MB at most (tcp_wmem), and they are more.
        assert!(page * PAGES > 6 << 20, "a page has {page} bytes");
        let counted = server.metric("ws_total_messages_total", "") + 1;
        server.wait_for("ws_total_messages_total", "", counted);
        for _ in 0..PAGES {
            let body = raw.response().body;
            assert!(body.starts_with("# HELP ws_active_connections "), "{}", &body[..100]);
        }
        let (_, resumed, count) = raw.head().session();
        assert_eq!((resumed, count), (counted > 1, counted - 1));
        assert_eq!(raw.text(), format!("{{\"count\": {counted}}}"));
        // One in four lands where its session lives, and then there was nothing to carry.
        handed_over = server.metric("revolve_hand_overs_in_total", "");
    }
}

#[test]
fn what_stands_behind_a_refused_upgrade_is_discarded() {
    let server = Running::counter(config(4));
    for n in 0..20 {
        let mut raw = server.connect();
        let refused = upgrade("session_id=%20");
        let behind = upgrade(&format!("session_id=behind-{n}")).repeat(2);
        let garbage: Vec<u8> = (0..3000u32).map(|i| ((i * 7919) >> 3) as u8).collect();
        raw.send([refused.as_bytes(), behind.as_bytes(), &garbage].concat());
        assert_eq!(raw.response().head.status, 400);
        raw.at_end();
    }
    server.wait_for("revolve_connections", "", 0);
    assert_eq!(server.metric("revolve_rejected_total", ""), 20);
    assert_eq!(server.metric("revolve_rejected_total", "bad_session_id"), 20);
    assert_eq!(server.metric("revolve_closed_total", ""), 0, "none of them became a WebSocket");
}

#[test]
fn a_second_upgrade_in_a_websocket_is_no_frame() {
    let server = Running::counter(config(1));
    let mut raw = server.connect();
    raw.send(upgrade("session_id=twice").repeat(2));
    assert_eq!(raw.head().status, 101);
    // "G" sets a reserved bit.
    assert_eq!(raw.close(), (1002, "reserved bits are set".to_owned()));
    raw.at_end();
}

#[test]
fn ids_of_other_connections_do_not_get_mixed_up() {
    // Many at once, on all reactors, each with a count of its own.
    let server = Running::counter(config(4));
    let mut clients: Vec<_> =
        (0..64).map(|n| server.client(&format!("session_id=mix-{n}")).0).collect();
    for round in 1..=10u64 {
        for (n, client) in clients.iter_mut().enumerate() {
            for _ in 0..=n % 3 {
                client.send(Message::text("x")).unwrap();
            }
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let each = n as u64 % 3 + 1;
            for count in (round - 1) * each + 1..=round * each {
                let reply = client.read().unwrap();
                assert_eq!(reply, Message::text(format!("{{\"count\": {count}}}")));
            }
        }
    }
}

//! Bounds that bite: slow heads, idle connections, unfinished messages, and too many WebSockets.

use std::num::NonZeroUsize;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use super::client::{Raw, Running, TEXT, config, frame, get, upgrade};
use revolve::{Config, Limits};

fn limited(workers: usize, limit: usize) -> Config {
    Config { limit_concurrency: NonZeroUsize::new(limit), ..config(workers) }
}

#[test]
fn a_slow_head_is_408() {
    let timeout = Duration::from_millis(300);
    let server = Running::counter(Config { timeout_handshake: timeout, ..config(2) });
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send(&upgrade("")[..50]);
    // One byte every now and then moves nothing: the clock runs from the accept.
    let mut dripping = server.connect();
    dripping.send("GET /");
    let response = loop {
        match dripping.stream.peek(&mut [0]) {
            Ok(_) => break dripping.response(),
            Err(_) => {
                dripping.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                dripping.send("X");
            }
        }
    };
    assert_eq!(response.head.status, 408);
    let response = half.response();
    assert_eq!(response.head.status, 408);
    assert_eq!(response.body, "the request head took too long\n");
    half.at_end();
    // It asked for nothing, and gets no answer.
    silent.at_end();
    assert_eq!(server.metric("revolve_rejected_total", "head_timeout"), 2);
    assert_eq!(server.metric("revolve_silent_total", ""), 1);
}

#[test]
fn silence_between_requests_ends_a_kept_connection_without_a_word() {
    let timeout = Duration::from_millis(200);
    let server = Running::counter(Config { timeout_keep_alive: timeout, ..config(1) });
    let mut raw = server.connect();
    raw.send(get("/healthz"));
    raw.response();
    raw.at_end();
    assert_eq!(server.metric("revolve_rejected_total", ""), 0);
}

#[test]
fn an_unfinished_message_has_a_deadline() {
    let limits = Limits { message_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Running::counter(Config { limits, ..config(1) });
    let mut whole = server.open("");
    let mut fragments = server.open("");
    fragments.send(frame(0x01, "begun"));
    let mut cut = server.open("");
    cut.send(&frame(TEXT, "x".repeat(200))[..100]);
    for raw in [&mut fragments, &mut cut] {
        assert_eq!(raw.close(), (1008, "message took too long".to_owned()));
        raw.at_end();
    }
    whole.say("x");
    assert_eq!(whole.text(), r#"{"count": 1}"#);
}

#[test]
fn the_limit_on_websockets_is_exact_over_all_reactors() {
    const LIMIT: usize = 40;
    const CALLERS: usize = 8;
    const EACH: usize = 12;
    let server = Arc::new(Running::counter(limited(4, LIMIT)));
    let barrier = Arc::new(Barrier::new(CALLERS));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (server, barrier) = (server.clone(), barrier.clone());
            thread::spawn(move || {
                let mut raws: Vec<_> = (0..EACH).map(|_| server.connect()).collect();
                barrier.wait();
                for (n, raw) in raws.iter_mut().enumerate() {
                    raw.send(upgrade(&format!("session_id=l-{caller}-{n}")));
                }
                raws.retain_mut(|raw| match raw.head().status {
                    101 => true,
                    503 => false,
                    status => panic!("{status}"),
                });
                raws
            })
        })
        .collect();
    let mut inside: Vec<Raw> =
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    assert_eq!(inside.len(), LIMIT);
    assert_eq!(server.metric("ws_active_connections", ""), LIMIT as u64);
    let refused = (CALLERS * EACH - LIMIT) as u64;
    assert_eq!(server.metric("revolve_rejected_total", "limit_concurrency"), refused);
    let response = server.refused("");
    assert_eq!((response.head.status, response.head.field("retry-after")), (503, "1"));
    assert_eq!(response.body, "too many connections: try again later\n");
    // Plain requests are not WebSockets.
    let mut probe = server.connect();
    probe.send(get("/healthz"));
    assert_eq!(probe.response().head.status, 200);
    // Who leaves makes room for as many.
    inside.truncate(LIMIT - 10);
    server.wait_for("ws_active_connections", "", LIMIT as u64 - 10);
    for _ in 0..10 {
        inside.push(server.open(""));
    }
    assert_eq!(server.refused("").head.status, 503);
    for raw in &mut inside {
        raw.say("x");
        assert_eq!(raw.text(), r#"{"count": 1}"#);
    }
}

#[test]
fn a_takeover_at_the_limit_is_admitted() {
    let server = Running::counter(limited(4, 3));
    let mut first = server.open("session_id=a");
    first.say("x");
    first.text();
    let (_second, _third) = (server.open("session_id=b"), server.open("session_id=c"));
    for _ in 0..10 {
        assert_eq!(server.refused("session_id=d").head.status, 503);
        let (mut newer, head) = server.open_with_head("session_id=a");
        assert!(head.session().1);
        assert_eq!(first.close(), (4001, "session taken over".to_owned()));
        newer.say("x");
        newer.text();
        first = newer;
    }
    assert_eq!(server.metric("ws_active_connections", ""), 3);
}

#[test]
fn a_refused_upgrade_takes_no_place() {
    let server = Running::counter(limited(2, 1));
    for _ in 0..20 {
        assert_eq!(server.refused("session_id=%20").head.status, 400);
    }
    let mut raw = server.open("");
    raw.say("x");
    assert_eq!(raw.text(), r#"{"count": 1}"#);
}

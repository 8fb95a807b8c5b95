//! The live page and its figures: who gets them, what they say, and what they leave alone.

use std::num::NonZeroUsize;
use std::time::Duration;
use std::{iter, thread};

use revolve::{Config, Counter, Limits, PageFor};
use serde_json::Value;

use super::client::{
    PING, PONG, Raw, Running, TEXT, close, config, eventually, frame, get, metric, upgrade,
};

/// An upgrade on the figures' path.
fn watching(host: &str, more: &str) -> String {
    let head = upgrade("").replace("/ws/chat/?", "/ws/stats");
    head.replace("Host: localhost\r\n", &format!("Host: {host}\r\n{more}"))
}

/// Somebody who watches.
fn watch(server: &Running) -> Raw {
    let mut raw = server.connect();
    raw.send(watching("localhost", ""));
    let head = raw.head();
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.field("x-session-id"), "", "a watcher has no session");
    raw
}

/// A look every few milliseconds: nobody here waits for seconds.
fn hasty(workers: usize) -> Config {
    let limits = Limits { look_interval: Duration::from_millis(5), ..Limits::default() };
    Config { limits, ..config(workers) }
}

fn figures(raw: &mut Raw) -> Value {
    serde_json::from_str(&raw.text()).unwrap()
}

/// A number of all reactors together.
fn sum(frame: &Value, key: &str) -> u64 {
    let reactors = frame["reactors"].as_array().unwrap();
    reactors.iter().map(|reactor| reactor[key].as_u64().unwrap()).sum()
}

/// How many slots of all slabs show this tile; `None` if a reactor has not answered.
fn tiles(frame: &Value, tile: u64) -> Option<u64> {
    let runs =
        frame["reactors"].as_array().unwrap().iter().map(|reactor| reactor["runs"].as_array());
    let of_tile = |run: &Value| run.as_u64().filter(|run| run & 7 == tile).map(|run| run >> 3);
    runs.map(|runs| Some(runs?.iter().filter_map(of_tile).sum::<u64>())).sum()
}

const HANDSHAKING: u64 = 1;
const OPEN: u64 = 2;
const THROTTLED: u64 = 3;
const CLOSING: u64 = 4;
const WATCHING: u64 = 5;

/// Reads on until the figures are as they must become.
#[track_caller]
fn until(raw: &mut Raw, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let mut frame = Value::Null;
    eventually(what, || {
        frame = figures(raw);
        holds(&frame)
    });
    frame
}

#[test]
fn the_figures_are_those_of_the_metrics() {
    let server = Running::counter(hasty(3));
    let mut watcher = watch(&server);
    let mut raws: Vec<_> = (0..30).map(|n| server.open(&format!("session_id=f-{n}"))).collect();
    for (n, raw) in raws.iter_mut().enumerate() {
        for _ in 0..n {
            raw.say("hello");
            raw.text();
        }
    }
    for raw in &mut raws[20..] {
        raw.send(close(3000));
        raw.close();
    }
    let newer = server.open("session_id=f-7");
    raws[7].close();
    raws.truncate(20);
    let keys = [
        ("websockets", "revolve_websockets"),
        ("connections", "revolve_connections"),
        ("sessions_live", "revolve_sessions_live"),
        ("sessions_detached", "revolve_sessions_detached"),
        ("messages", "revolve_messages_total"),
        ("accepts", "revolve_accepts_total"),
        ("resumes", "revolve_resumes_total"),
        ("takeovers", "revolve_takeovers_total"),
        ("hand_overs_in", "revolve_hand_overs_in_total"),
        ("hand_overs_out", "revolve_hand_overs_out_total"),
        ("bytes_in", "revolve_bytes_in_total"),
    ];
    // A map may be drawn in a turn of which the figures are written at its end: then the next frame agrees.
    let frame = until(&mut watcher, "19 and the newer one are open, as the metrics say", |frame| {
        let page = server.metrics();
        tiles(frame, OPEN) == Some(20)
            && tiles(frame, CLOSING) == Some(1)
            && keys.iter().all(|(key, name)| sum(frame, key) == metric(&page, name, ""))
    });

    for reactor in frame["reactors"].as_array().unwrap() {
        let to = reactor["hand_overs_to"].as_array().unwrap();
        assert_eq!(to.len(), 3);
        let out: u64 = to.iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(out, reactor["hand_overs_out"].as_u64().unwrap());
    }
    let entries = |reactor: &Value| reactor["closed"].as_array().unwrap().clone();
    let mut closed: Vec<Value> =
        frame["reactors"].as_array().unwrap().iter().flat_map(entries).collect();
    closed.sort_by_key(ToString::to_string);
    let of = |code: &str| -> u64 {
        let entries = closed.iter().filter(|entry| entry[0] == code);
        entries.map(|entry| entry[2].as_u64().unwrap()).sum()
    };
    assert_eq!((of("3xxx"), of("4001")), (10, 1));
    assert!(
        closed.iter().all(|entry| (entry[1] == "server") == (entry[0] == "4001")),
        "{closed:?}"
    );
    drop(newer);
}

#[test]
fn every_tile_is_seen() {
    let server = Running::echo(Config { max_send_buffer: 16 << 10, ..hasty(2) });
    let mut watcher = watch(&server);
    let silent: Vec<_> = (0..5).map(|_| server.connect()).collect();
    let open: Vec<_> = (0..7).map(|_| server.open("")).collect();
    let mut flooder = server.connect_narrow();
    flooder.send(upgrade(""));
    flooder.head();
    flooder.flood(&frame(TEXT, "x".repeat(1000)), 64 << 20);
    let mut parting = server.open("");
    parting.send([0xff, 0xff]);
    let seen = |frame: &Value| {
        [HANDSHAKING, OPEN, THROTTLED, CLOSING, WATCHING].map(|tile| tiles(frame, tile))
    };
    until(&mut watcher, "each connection is its tile", |frame| {
        seen(frame) == [5, 7, 1, 1, 1].map(Some)
    });
    drop((silent, flooder, parting));
    // Slots that are free again stay in the slab map only below one that is taken.
    until(&mut watcher, "they are gone", |frame| seen(frame) == [0, 7, 0, 0, 1].map(Some));
    drop(open);
}

#[test]
fn a_map_is_drawn_in_slices_and_is_bounded() {
    let limits = Limits { look_slice: 7, slab_map_slots: 50, ..hasty(1).limits };
    let server = Running::counter(Config { limits, ..config(1) });
    let mut watcher = watch(&server);
    let _open: Vec<_> = (0..60).map(|_| server.open("")).collect();
    let frame = until(&mut watcher, "61 slots", |frame| sum(frame, "slots") == 61);
    let shown = [OPEN, WATCHING].map(|tile| tiles(&frame, tile).unwrap());
    assert_eq!(shown, [49, 1]);
}

#[test]
fn watching_is_no_session_and_no_websocket_of_a_users() {
    let limit = NonZeroUsize::new(1);
    let heartbeat = Some(Duration::from_millis(1));
    let config = Config { limit_concurrency: limit, ..hasty(2) };
    let server = Running::new(config, move |_| Counter::new(heartbeat));
    let mut watchers: Vec<_> = (0..5).map(|_| watch(&server)).collect();
    let mut user = server.open("session_id=");
    for watcher in &mut watchers {
        // Frames of figures, one after the other, and no heartbeat among them.
        let looks: Vec<_> = (0..5).map(|_| figures(watcher)["looks"].as_u64().unwrap()).collect();
        assert!(looks.is_sorted_by(|a, b| a < b), "{looks:?}");
        watcher.send(frame(PING, "still there"));
        let is_pong = |raw: &mut Raw| {
            let frame = raw.frame();
            (frame.first == PONG).then_some(frame.payload)
        };
        let pong = iter::repeat_with(|| is_pong(watcher)).take(1000).flatten().next();
        assert_eq!(pong.as_deref(), Some(&b"still there"[..]));
    }
    user.text();
    for (name, expected) in [
        ("ws_active_connections", 1),
        ("revolve_websockets", 1),
        ("revolve_sessions_live", 1),
        ("revolve_closed_total", 0),
        ("revolve_messages_total", 0),
        ("revolve_connections", 6),
    ] {
        assert_eq!(server.metric(name, ""), expected, "{name}");
    }
    drop(watchers);
    server.wait_for("revolve_connections", "", 1);
    assert_eq!(server.metric("revolve_closed_total", ""), 0);
    drop(user);
}

#[test]
fn nobody_watches_so_nobody_turns() {
    let server = Running::counter(hasty(2));
    let mut watcher = watch(&server);
    let _idle: Vec<_> = (0..10).map(|_| server.open("")).collect();
    for _ in 0..10 {
        figures(&mut watcher);
    }
    watcher.send(close(1000));
    drop(watcher);
    let mut before = 0;
    eventually("the loops come to rest", || {
        thread::sleep(Duration::from_millis(200));
        let now = server.metric("revolve_turns_total", "");
        std::mem::replace(&mut before, now) == now
    });
}

#[test]
fn who_does_not_read_misses_frames_and_has_none_waiting() {
    let limits = Limits { look_interval: Duration::from_millis(1), ..Limits::default() };
    let server = Running::counter(Config { limits, ..config(8) });
    let mut slow = server.connect_narrow();
    slow.send(watching("localhost", ""));
    assert_eq!(slow.head().status, 101);
    let mut steady = watch(&server);
    // What it has not read stands in buffers of the kernel, some megabytes; then nothing more comes.
    for _ in 0..2000 {
        figures(&mut steady);
    }
    let last = figures(&mut steady)["looks"].as_u64().unwrap();
    let mut looks = vec![figures(&mut slow)["looks"].as_u64().unwrap()];
    eventually("it has caught up", || {
        looks.push(figures(&mut slow)["looks"].as_u64().unwrap());
        looks.last() >= Some(&last)
    });
    assert!(looks.is_sorted_by(|a, b| a < b));
    assert!((looks.len() as u64) < last, "none was skipped: {last}");
}

#[test]
fn a_message_from_a_watcher_ends_it() {
    let server = Running::counter(config(1));
    let mut watcher = watch(&server);
    figures(&mut watcher);
    watcher.say("hello");
    assert_eq!(watcher.close(), (1003, "this path only tells".to_owned()));
    watcher.send(close(1003));
    watcher.at_end();
    assert_eq!(server.metric("revolve_messages_total", ""), 0);
}

#[test]
fn a_handful_may_watch() {
    let most = Limits::default().watchers;
    let server = Running::counter(config(1));
    let watchers: Vec<_> = (0..most).map(|_| watch(&server)).collect();
    let mut raw = server.connect();
    raw.send(watching("localhost", ""));
    let refused = raw.response();
    assert_eq!((refused.head.status, refused.head.field("retry-after")), (503, "1"));
    assert_eq!(server.metric("revolve_rejected_total", "too_many_watchers"), 1);
    drop(watchers);
    server.wait_for("revolve_connections", "", 0);
    watch(&server);
}

#[test]
fn watchers_are_told_to_go() {
    let server = Running::counter(config(2));
    let mut watchers: Vec<_> = (0..4).map(|_| watch(&server)).collect();
    server.handle().shutdown();
    for watcher in &mut watchers {
        let code = loop {
            let frame = watcher.frame();
            if frame.first != TEXT {
                break frame.payload;
            }
        };
        assert_eq!(code[..2], 1001u16.to_be_bytes());
        watcher.send(close(1001));
        watcher.at_end();
    }
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (0, 0, 0));
}

#[test]
fn the_page_is_there_for_this_machine() {
    let server = Running::counter(Config { ws_path: "/chat\"/".to_owned(), ..config(1) });
    let mut raw = server.connect();
    raw.send(get("/"));
    let page = raw.response();
    assert_eq!(
        (page.head.status, page.head.field("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let policy = page.head.field("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(page.head.field(name), value);
    }
    assert!(page.body.contains("data-ws-path=\"/chat&quot;/\""));
    raw.send(get("/").replace("GET", "HEAD"));
    let head = raw.head();
    assert_eq!(head.field("content-length"), page.body.len().to_string());
    raw.send(get("/").replace("GET", "POST"));
    assert_eq!(raw.response().head.status, 405);
    // And what is not the page has none of its fields.
    let mut raw = server.connect();
    raw.send(get("/healthz"));
    assert_eq!(raw.response().head.field("content-security-policy"), "");
}

#[test]
fn neither_is_there_for_others() {
    let foreign = "Origin: http://evil.example\r\n";
    let server = Running::counter(config(1));
    for (host, more, status) in [
        ("rebound.example", "", 403),
        ("127.0.0.1", "X-Forwarded-For: 192.0.2.1\r\n", 403),
        ("127.0.0.1", foreign, 403),
        ("localhost", "", 200),
        ("127.0.0.1:8000", "Origin: http://127.0.0.1:8000\r\n", 200),
    ] {
        let mut raw = server.connect();
        raw.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"));
        assert_eq!(raw.response().head.status, status, "{host} {more}");
        let mut raw = server.connect();
        raw.send(watching(host, more));
        let expected = if status == 200 { 101 } else { status };
        assert_eq!(raw.head().status, expected, "{host} {more}");
    }
    let open = Running::counter(Config { page_for: PageFor::Any, ..config(1) });
    for (more, status) in [("", 101), (foreign, 403), ("Via: 1.1 proxy\r\n", 101)] {
        let mut raw = open.connect();
        raw.send(watching("rebound.example", more));
        assert_eq!(raw.head().status, status, "{more}");
    }
    let off = Running::counter(Config { page: false, ..config(1) });
    for request in [get("/"), watching("localhost", "")] {
        let mut raw = off.connect();
        raw.send(request);
        assert_eq!(raw.response().body, "no such path\n");
    }
}

#[test]
fn a_plain_request_for_the_figures_is_told_what_they_are() {
    let server = Running::counter(config(1));
    let mut raw = server.connect();
    raw.send(get("/ws/stats"));
    assert_eq!(raw.response().head.status, 426);
}

//! The page of metrics agrees with what happened, and with itself.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::Duration;

use super::client::{Raw, Running, close, config, eventually, get, metric};

/// Connects that are refused, counted messages, endings of every kind; then the sums.
#[test]
fn what_happened_is_what_the_page_says() {
    let server = Running::counter(config(4));
    let (opens, counted) = (Cell::new(0), Cell::new(0));
    let open = |query: &str, count: u64| -> Raw {
        let mut raw = server.open(query);
        for _ in 0..count {
            raw.say("hello");
            raw.text();
        }
        opens.set(opens.get() + 1);
        counted.set(counted.get() + count);
        raw
    };
    let stay: Vec<_> = (0..5).map(|n| open(&format!("session_id=stay-{n}"), n)).collect();
    for n in 0..6 {
        let mut raw = open(&format!("session_id=close-{n}"), 1);
        raw.send(close(1000));
        raw.close();
    }
    for n in 0..7 {
        drop(open(&format!("session_id=vanish-{n}"), 2));
    }
    for n in 0..3 {
        let mut raw = open(&format!("session_id=quit-{n}"), 1);
        raw.say("quit");
        raw.text();
        raw.close();
    }
    let mut older = open("session_id=twice", 1);
    let newer = open("session_id=twice", 1);
    older.close();
    let mut wrong = open("session_id=wrong", 0);
    wrong.send([0xff, 0xff]);
    assert_eq!(wrong.close().0, 1002);
    for _ in 0..4 {
        server.refused("session_id=%20");
    }
    drop((older, wrong));
    // Those that stay, the newer one, and nothing else.
    server.wait_for("revolve_connections", "", 6);

    // A quit is a message, though the session does not count it.
    let (opened, messages) = (opens.get(), counted.get() + 3);
    let page = server.metrics();
    let value = |name: &str, label: &str| metric(&page, name, label);
    assert_eq!(value("ws_active_connections", ""), 6);
    assert_eq!(value("revolve_websockets", ""), 6);
    assert_eq!(value("revolve_sessions_live", ""), 6);
    assert_eq!(opened - value("revolve_closed_total", ""), 6, "opens less closes");
    assert_eq!(value("revolve_closed_total", "code=\"1000\",side=\"client\""), 6);
    assert_eq!(value("revolve_closed_total", "code=\"1006\",side=\"client\""), 7);
    assert_eq!(value("revolve_closed_total", "code=\"1000\",side=\"server\""), 3);
    assert_eq!(value("revolve_closed_total", "code=\"4001\",side=\"server\""), 1);
    assert_eq!(value("revolve_closed_total", "code=\"1002\",side=\"server\""), 1);
    assert_eq!(value("ws_error_count_total", ""), 1);
    assert_eq!(value("ws_total_messages_total", ""), messages);
    assert_eq!(value("revolve_messages_total", ""), messages);
    assert_eq!(value("revolve_takeovers_total", ""), 1);
    assert_eq!(value("revolve_resumes_total", ""), 1);
    // All that counted and left: closed, vanished, quit.
    assert_eq!(value("revolve_sessions_detached", ""), 6 + 7 + 3);
    assert_eq!(value("revolve_rejected_total", ""), 4);
    assert_eq!(value("revolve_accepts_total", ""), opened + 4);
    let out = value("revolve_hand_overs_out_total", "");
    assert_eq!(value("revolve_hand_overs_in_total", ""), out);
    assert!(out <= opened);
    assert_eq!(value("revolve_evictions_total", "") + value("revolve_expiries_total", ""), 0);
    assert_eq!(value("revolve_panics_total", ""), 0);
    drop((stay, newer));
    server.wait_for("revolve_connections", "", 0);
    assert_eq!(server.metric("revolve_closed_total", ""), opened);
    server.wait_for("revolve_sessions_live", "", 0);
}

#[test]
fn bytes_are_counted_both_ways() {
    let server = Running::echo(config(1));
    let (mut raw, _) = server.open_with_head("");
    let before = ["in", "out"].map(|way| server.metric(&format!("revolve_bytes_{way}_total"), ""));
    raw.say(&"x".repeat(1000));
    raw.text();
    // 8 and 4 bytes of header. What is sent is counted when it has left.
    server.wait_for("revolve_bytes_in_total", "", before[0] + 1008);
    server.wait_for("revolve_bytes_out_total", "", before[1] + 1004);
}

#[test]
fn the_page_is_well_formed() {
    let server = Running::counter(config(3));
    let mut raw = server.connect();
    raw.send(get("/metrics"));
    let page = raw.response().body;
    assert!(page.ends_with('\n'));
    let mut types = HashMap::new();
    let mut helped = HashSet::new();
    let mut samples = HashSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name), "{line}");
            assert!(text.ends_with('.'), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name) && types.insert(name, kind).is_none(), "{line}");
            // What ends in _total counts, and what counts ends in _total.
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(samples.insert(sample), "{line}: twice");
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
            let name = sample.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|f| types.contains_key(f)))
                .unwrap_or(name);
            assert!(types.contains_key(family), "{line}");
        }
    }
}

#[test]
fn the_loop_sleeps_when_nobody_wants_anything() {
    let server = Running::counter(config(2));
    let _raws: Vec<_> = (0..10).map(|_| server.open("")).collect();
    let turns = |page: &str| metric(page, "revolve_turns_total", "");
    // Until nothing is left to be settled.
    let mut before = 0;
    eventually("the loops come to rest", || {
        thread::sleep(Duration::from_millis(200));
        let now = turns(&server.metrics());
        std::mem::replace(&mut before, now) == now
    });
}

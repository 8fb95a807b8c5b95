//! Peers that do not read: they are throttled, nobody else is, and in the end they are let go.

use std::mem;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::client::{BINARY, Frame, PING, PONG, Raw, Running, TEXT, config, eventually, frame};
use super::client::{get, upgrade};
use revolve::{Config, Limits};

/// An open WebSocket of a client with a small window.
fn narrow(server: &Running, query: &str) -> Raw {
    let mut raw = server.connect_narrow();
    raw.send(upgrade(query));
    assert_eq!(raw.head().status, 101);
    raw
}

fn with_stall(send_stall: Duration) -> Config {
    let limits = Limits { send_stall, ..Limits::default() };
    Config { max_send_buffer: 64 << 10, limits, ..config(1) }
}

#[test]
fn one_that_never_reads_is_throttled_and_then_let_go() {
    let server = Running::echo(with_stall(Duration::from_secs(1)));
    let mut talkers: Vec<_> = (0..5).map(|_| server.open("")).collect();
    let mut deaf = narrow(&server, "session_id=deaf");
    // Some 4 MB of echoes fit into what the kernel holds for the one direction, and as much of
    // the messages into the other. A server that went on reading would take it all.
    let most = 64 << 20;
    let taken = deaf.flood(&frame(BINARY, vec![7; 16 << 10]), most);
    assert!(taken < most, "the server took {taken} bytes from one who does not read");
    for round in 0..50 {
        for talker in &mut talkers {
            talker.say(&format!("round {round}"));
            assert_eq!(talker.text(), format!("round {round}"));
        }
    }
    // Then it is closed, as what it is, and all that it held is given back.
    server.wait_for("revolve_closed_total", "code=\"1008\",side=\"server\"", 1);
    server.wait_for("revolve_connections", "", 5);
    server.wait_for("revolve_sessions_live", "", 5);
    assert_eq!(server.metric("ws_error_count_total", ""), 1);
    deaf.gone();
}

#[test]
fn one_that_reads_after_all_gets_everything() {
    // No stall in this test: what is throttled is woken by its own flush, again and again.
    const MESSAGES: usize = 600;
    let server = Running::echo(with_stall(Duration::from_secs(60)));
    let mut slow = narrow(&server, "");
    let mut sender = slow.twin();
    let sending = thread::spawn(move || {
        for n in 0..MESSAGES {
            sender.send(frame(TEXT, format!("{n} ").repeat(4000)));
        }
    });
    // Until nothing moves any more: the backlog is above its mark.
    let mut before = u64::MAX;
    eventually("the server stops reading", || {
        thread::sleep(Duration::from_millis(50));
        let now = server.metric("revolve_bytes_in_total", "");
        mem::replace(&mut before, now) == now
    });
    assert!(server.metric("ws_total_messages_total", "") < MESSAGES as u64);
    for n in 0..MESSAGES {
        let text = slow.text();
        assert!(text == format!("{n} ").repeat(4000), "{n}: {}", &text[..20]);
    }
    sending.join().unwrap();
}

#[test]
fn a_deaf_http_client_is_let_go_as_well() {
    let server = Running::echo(with_stall(Duration::from_millis(500)));
    let mut deaf = server.connect_narrow();
    let taken = deaf.flood(get("/metrics").as_bytes(), 64 << 20);
    assert!(taken < 64 << 20);
    server.wait_for("revolve_connections", "", 0);
    deaf.gone();
}

#[test]
fn a_throttled_client_is_not_held_to_a_pong_that_nobody_read() {
    // A client that sends much, reads nothing for a while, and then everything. Its answer to the
    // first ping stands behind its messages, and those the server does not read meanwhile: the
    // time in which nobody listened is not the client's.
    const MESSAGES: usize = 1000;
    let server = Running::echo(Config {
        ws_ping_interval: Some(Duration::from_millis(200)),
        ws_ping_timeout: Some(Duration::from_secs(2)),
        ..with_stall(Duration::from_secs(60))
    });
    let mut slow = narrow(&server, "");
    assert_eq!(slow.frame().first, PING);
    let mut sender = slow.twin();
    let (heard, pings) = channel();
    let sending = thread::spawn(move || {
        for _ in 0..MESSAGES {
            sender.send(frame(BINARY, [7; 16 << 10]));
        }
        for () in pings {
            sender.send(frame(PONG, ""));
        }
    });
    heard.send(()).unwrap();
    thread::sleep(Duration::from_millis(2500));
    let mut echoes = 0;
    while echoes < MESSAGES {
        let Frame { first, payload } = slow.frame();
        match first {
            BINARY => echoes += 1,
            PING => heard.send(()).unwrap(),
            _ => panic!("{first:#x} after {echoes}: {}", String::from_utf8_lossy(&payload)),
        }
    }
    drop(heard);
    sending.join().unwrap();
}

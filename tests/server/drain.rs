//! Going away: 1001 for everyone, replies in flight, the probes' answer, and the summary.

use std::time::Duration;

use super::client::{Running, TEXT, close, config, frame, get, plain_frame, upgrade};
use super::gate::Gate;
use revolve::{Application, Config, Context, Limits, Message, ReactorContext};

fn going_away() -> (u16, String) {
    (1001, "server is going away".to_owned())
}

/// Nothing but the drain's own limit ends what does not answer.
fn patient(workers: usize) -> Config {
    let limits = Limits { close_timeout: Duration::from_secs(60), ..Limits::default() };
    Config { limits, timeout_graceful_shutdown: Duration::from_secs(60), ..config(workers) }
}

#[test]
fn without_connections_it_just_ends() {
    let summary = Running::counter(config(4)).shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (0, 0, 0));
}

#[test]
fn everyone_is_told_and_counted() {
    let server = Running::counter(patient(4));
    let mut raws: Vec<_> = (0..300).map(|n| server.open(&format!("session_id=d-{n}"))).collect();
    server.handle().shutdown();
    server.handle().trigger().begin();
    for raw in &mut raws {
        assert_eq!(raw.close(), going_away());
        raw.send(close(1001));
        raw.at_end();
    }
    drop(raws);
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (300, 0, 0));
}

/// Both have said Close then, so nothing of theirs can come: there is nothing to linger for.
#[test]
fn who_answers_and_keeps_the_socket_open_does_not_hold_it() {
    let limits = Limits { linger: Duration::from_secs(60), ..Limits::default() };
    let timeout_graceful_shutdown = Duration::from_secs(5);
    let server = Running::counter(Config { limits, timeout_graceful_shutdown, ..patient(2) });
    let mut raws: Vec<_> = (0..50).map(|_| server.open("")).collect();
    server.handle().shutdown();
    for raw in &mut raws {
        assert_eq!(raw.close(), going_away());
        raw.send(close(1001));
    }
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (50, 0, 0));
    for raw in &mut raws {
        raw.at_end();
    }
}

#[test]
fn replies_in_flight_go_out_first() {
    let server = Running::counter(patient(2));
    let mut raws: Vec<_> = (0..20).map(|_| server.open("")).collect();
    for raw in &mut raws {
        raw.send(frame(TEXT, "hello").repeat(500));
    }
    server.wait_for("ws_total_messages_total", "", 10_000);
    server.handle().shutdown();
    for raw in &mut raws {
        for count in 1..=500 {
            assert_eq!(raw.text(), format!("{{\"count\": {count}}}"));
        }
        assert_eq!(raw.close(), going_away());
        raw.send(close(1001));
        raw.at_end();
    }
}

#[test]
fn a_large_reply_in_flight_goes_out_first() {
    let server = Running::echo(Config { max_send_buffer: 16 << 20, ..patient(1) });
    let mut raw = server.connect_narrow();
    raw.send(upgrade(""));
    assert_eq!(raw.head().status, 101);
    let payload = vec![b'x'; 8 << 20];
    raw.send(frame(TEXT, &payload));
    server.wait_for("ws_total_messages_total", "", 1);
    server.handle().shutdown();
    let got = raw.frame();
    assert!(got.first == TEXT && got.payload == payload, "{} bytes", got.payload.len());
    assert_eq!(raw.close(), going_away());
    raw.send(close(1001));
    raw.at_end();
    assert_eq!(server.shut_down().closed, 1);
}

#[test]
fn probes_are_told_on_a_kept_connection() {
    let server = Running::counter(patient(4));
    let mut probes: Vec<_> = (0..12).map(|_| server.connect()).collect();
    for probe in &mut probes {
        probe.send(get("/readyz"));
        assert_eq!(probe.response().head.status, 200);
    }
    // One on each reactor that has not answered its 1001 keeps the drain from ending.
    let mut held: Vec<_> = (0..32).map(|n| server.open(&format!("session_id=p-{n}"))).collect();
    server.handle().shutdown();
    for raw in &mut held {
        assert_eq!(raw.close(), going_away());
    }
    for probe in &mut probes {
        probe.send(get("/readyz") + &get("/healthz"));
        let response = probe.response();
        assert_eq!(response.head.status, 503);
        assert_eq!(response.body, r#"{"ready": false}"#);
        assert_eq!(probe.response().head.status, 200, "alive it is");
        // Nobody new gets in, not even where a connection stands already.
        probe.send(upgrade(""));
        let response = probe.response();
        assert_eq!(response.head.status, 503);
        assert_eq!(response.body, "the server is going away: connect anew\n");
    }
    for raw in &mut held {
        raw.send(close(1001));
    }
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut), (32, 0));
}

#[test]
fn who_never_answers_is_cut_when_the_time_is_up() {
    let graceful = Duration::from_millis(300);
    let server = Running::counter(Config { timeout_graceful_shutdown: graceful, ..patient(4) });
    let mut silent: Vec<_> = (0..7).map(|n| server.open(&format!("session_id=s-{n}"))).collect();
    let mut polite = server.open("");
    server.handle().shutdown();
    for raw in &mut silent {
        assert_eq!(raw.close(), going_away());
    }
    assert_eq!(polite.close(), going_away());
    polite.send(close(1001));
    drop(polite);
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (1, 7, 0));
    assert!(summary.duration >= graceful, "{:?}", summary.duration);
    silent.into_iter().for_each(super::client::Raw::gone);
}

#[test]
fn who_does_not_answer_within_the_close_timeout_is_cut_as_well() {
    let limits = Limits { close_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Running::counter(Config { limits, ..patient(1) });
    let mut silent = server.open("");
    server.handle().shutdown();
    assert_eq!(silent.close(), going_away());
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut), (0, 1), "that was no good order");
    silent.gone();
}

/// It has been told why it failed, and is read on so that no reset overtakes that.
#[test]
fn who_lingers_is_waited_for_and_counted() {
    let limits = Limits { linger: Duration::from_secs(1), ..Limits::default() };
    let server = Running::counter(Config { limits, ..patient(2) });
    let mut raw = server.open("");
    raw.send(plain_frame(TEXT, "not masked"));
    assert_eq!(raw.close().0, 1002);
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut), (1, 0));
    raw.at_end();
}

#[test]
fn half_made_requests_do_not_hold_it() {
    let server = Running::counter(patient(2));
    let raws: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let mut halves: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for half in &mut halves {
        half.send(&upgrade("")[..100]);
    }
    server.wait_for("revolve_connections", "", 20);
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut), (0, 0));
    raws.into_iter().chain(halves).for_each(super::client::Raw::gone);
}

#[test]
fn who_is_in_the_accept_queue_gets_an_answer() {
    // The reactor is held, so that it finds a connection with its request and the order to go away at
    // once.
    let (server, key) = Gate::serve(patient(1));
    let mut holder = server.open("");
    key.hold(&mut holder);
    let mut raw = server.connect();
    raw.send(get("/readyz"));
    server.handle().shutdown();
    key.let_go();
    assert_eq!(raw.response().head.status, 503);
}

#[test]
fn the_port_is_free_afterwards() {
    let server = Running::counter(config(4));
    let address = server.address;
    let mut raw = server.open("");
    raw.say("hello");
    raw.text();
    server.handle().shutdown();
    assert_eq!(raw.close(), going_away());
    raw.send(close(1001));
    server.shut_down();
    let next = Running::counter(Config { listen: vec![address.into()], ..config(4) });
    assert_eq!(next.address, address);
    next.open("");
}

#[test]
fn two_servers_live_side_by_side() {
    let one = Running::counter(config(2));
    let other = Running::echo(config(2));
    assert_ne!(one.address, other.address);
    let (mut counted, mut echoed) = (one.open("session_id=same"), other.open("session_id=same"));
    counted.say("a");
    echoed.say("b");
    assert_eq!((counted.text(), echoed.text()), (r#"{"count": 1}"#.to_owned(), "b".to_owned()));
    assert_eq!(one.metric("ws_total_messages_total", ""), 1);
    // The end of the one is nothing to the other.
    one.handle().shutdown();
    assert_eq!(counted.close(), going_away());
    drop(counted);
    assert_eq!(one.shut_down().panicked, 0);
    echoed.say("still here");
    assert_eq!(echoed.text(), "still here");
    let mut probe = other.connect();
    probe.send(get("/readyz"));
    assert_eq!(probe.response().head.status, 200);
}

/// A callback ends the server; each reactor's application has the word first.
struct Polite;

impl Application for Polite {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        cx.send_text("as you wish");
        cx.shut_down();
        cx.shut_down();
    }

    fn on_drain(&mut self, cx: &mut ReactorContext<'_, Self>) {
        cx.send_text_to_all(&format!("from reactor {}", cx.reactor()));
        cx.set_goodbye("back in five minutes");
    }
}

#[test]
fn a_callback_may_end_it_and_the_application_has_the_last_word() {
    let server = Running::new(patient(4), |_| Polite);
    let mut raws: Vec<_> = (0..40).map(|n| server.open(&format!("session_id=p-{n}"))).collect();
    raws[7].say("go");
    assert_eq!(raws[7].text(), "as you wish");
    for (n, raw) in raws.iter_mut().enumerate() {
        let owner = revolve::owner_of(&format!("p-{n}"), 4);
        assert_eq!(raw.text(), format!("from reactor {owner}"));
        assert_eq!(raw.close(), (1001, "back in five minutes".to_owned()));
        raw.send(close(1001));
        raw.at_end();
    }
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (40, 0, 0));
}

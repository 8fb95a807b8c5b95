//! One live connection a session: the newer one wins, and the older one cannot count any more.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::client::{Raw, Running, TEXT, close, config, frame, get, upgrade};
use super::gate::Gate;
use revolve::session::owner_of;
use revolve::{Application, CloseReason, Config, Context, Limits, Message, SessionIds};

fn taken_over() -> (u16, String) {
    (4001, "session taken over".to_owned())
}

#[test]
fn the_older_one_is_told_and_the_newer_one_goes_on() {
    let server = Running::counter(config(4));
    for n in 0..20 {
        let query = format!("session_id=t-{n}");
        let mut older = server.open(&query);
        older.say("1");
        assert_eq!(older.text(), r#"{"count": 1}"#);
        let (mut newer, head) = server.open_with_head(&query);
        assert_eq!(head.session(), (format!("t-{n}").as_str(), true, 1));
        assert_eq!(older.close(), taken_over());
        // What it says now counts for nobody.
        older.say("late");
        older.say("quit");
        newer.say("2");
        assert_eq!(newer.text(), r#"{"count": 2}"#);
        older.send(close(4001));
        older.at_end();
        newer.say("3");
        assert_eq!(newer.text(), r#"{"count": 3}"#);
    }
    assert_eq!(server.metric("revolve_takeovers_total", ""), 20);
    server.wait_for("revolve_closed_total", "code=\"4001\",side=\"server\"", 20);
}

/// Opens a session, has it count `messages`, and takes it over twice: with its id and its count. The
/// connection that has it in the end.
fn take_over(server: &Running, query: &str, messages: u64) -> Raw {
    let (mut older, head) = server.open_with_head(query);
    let id = head.session().0.to_owned();
    for count in 1..=messages {
        older.say("hello");
        assert_eq!(older.text(), format!("{{\"count\": {count}}}"));
    }
    for _ in 0..2 {
        let (newer, head) = server.open_with_head(&format!("session_id={id}"));
        assert_eq!(head.session(), (id.as_str(), true, messages));
        assert_eq!(older.close(), taken_over());
        older = newer;
    }
    older
}

#[test]
fn it_makes_nothing_absent_not_even_for_a_moment() {
    let ttl = Duration::from_secs(3600);
    for (session_ids, session_ttl, messages) in [
        // One that has counted nothing yet is not kept without a connection.
        (SessionIds::Issued, ttl, 0),
        (SessionIds::Any, ttl, 0),
        // Nor is any, with a time to live of zero.
        (SessionIds::Any, Duration::ZERO, 1),
        (SessionIds::Issued, Duration::ZERO, 3),
    ] {
        for workers in [1, 3] {
            let server = Running::counter(Config { session_ids, session_ttl, ..config(workers) });
            take_over(&server, "", messages);
        }
    }
}

#[test]
fn it_pushes_nobody_out_of_a_full_table() {
    let server = Running::counter(Config { max_sessions: 1, ..config(1) });
    let mut away = server.open("session_id=away");
    away.say("hello");
    away.text();
    away.send(close(1000));
    assert_eq!(away.close().0, 1000);
    server.wait_for("revolve_sessions_detached", "", 1);
    let _here = take_over(&server, "session_id=here", 2);
    assert_eq!(server.metric("revolve_evictions_total", ""), 0);
    assert_eq!(server.open_with_head("session_id=away").1.session(), ("away", true, 1));
}

#[test]
fn it_needs_no_second_place_under_the_limit() {
    let limit_concurrency = NonZeroUsize::new(1);
    let server = Running::counter(Config { limit_concurrency, ..config(2) });
    let mut older = server.open("session_id=s");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Others wait for the place all the time.
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(server.refused("session_id=other").head.status, 503);
                }
            });
        }
        for _ in 0..300 {
            let mut newer = server.connect();
            newer.send(upgrade("session_id=s"));
            assert_eq!(newer.head().status, 101);
            assert_eq!(older.close(), taken_over());
            older = newer;
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn frames_already_in_flight_count_before_it_or_not_at_all() {
    // Few frames a turn, so that a takeover strikes in the middle of a burst.
    let limits = Limits { frames_per_turn: 8, ..Limits::default() };
    let server = Running::counter(Config { limits, ..config(4) });
    for n in 0..40 {
        let query = format!("session_id=flight-{n}");
        let mut older = server.open(&query);
        let burst = frame(TEXT, "hello").repeat(1000);
        let mut newer = server.connect();
        if n % 2 == 0 {
            older.send(&burst);
            newer.send(upgrade(&query));
        } else {
            newer.send(upgrade(&query));
            older.send(&burst);
        }
        let counted = newer.head().session().2;
        // Each message that was counted was answered, in order, before the Close.
        for count in 1..=counted {
            assert_eq!(older.text(), format!("{{\"count\": {count}}}"));
        }
        assert_eq!(older.close(), taken_over());
        newer.say("mine");
        assert_eq!(newer.text(), format!("{{\"count\": {}}}", counted + 1));
    }
}

#[test]
fn no_count_is_given_twice() {
    const RIVALS: u64 = 6;
    const ROUNDS: u64 = 40;
    let server = Arc::new(Running::counter(config(4)));
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let server = server.clone();
            thread::spawn(move || {
                let mut counts = Vec::new();
                for _ in 0..ROUNDS {
                    let mut raw = server.open("session_id=prize");
                    raw.say("mine");
                    let frame = raw.frame();
                    if frame.first == TEXT {
                        let text = String::from_utf8(frame.payload).unwrap();
                        let digits = text.trim_start_matches(r#"{"count": "#);
                        counts.push(digits.trim_end_matches('}').parse::<u64>().unwrap());
                    }
                }
                counts
            })
        })
        .collect();
    let mut counts: Vec<_> = rivals.into_iter().flat_map(|rival| rival.join().unwrap()).collect();
    counts.sort_unstable();
    let total = counts.len() as u64;
    assert_eq!(counts, (1..=total).collect::<Vec<_>>());
    // The last of them may have been displaced before it counted, but somebody counted.
    assert!(total > 0);
}

#[test]
fn one_that_vanished_unnoticed_is_taken_over_too() {
    // It ends its half in silence at the moment its successor comes: whether the server hears of
    // the one or the other first, the count is right.
    let server = Running::counter(config(4));
    for n in 0..50 {
        let query = format!("session_id=v-{n}");
        let mut older = server.open(&query);
        older.say("1");
        older.text();
        let mut newer = server.connect();
        if n % 2 == 0 {
            older.reset();
        } else {
            older.half_close();
        }
        newer.send(upgrade(&query));
        assert_eq!(newer.head().session().2, 1);
    }
}

// --- what an application sees ----------------------------------------------------------------

type Story = Arc<Mutex<Vec<String>>>;

struct Chronicler(Story);

impl Chronicler {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Application for Chronicler {
    type Session = u32;
    type Connection = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        *cx.session_mut() += 1;
        self.note(format!("{} opens as {}", cx.connection_id(), cx.session()));
        let name = cx.connection_id().to_string();
        cx.send_text(&name);
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
        self.note(format!("{} speaks", cx.connection_id()));
        cx.count_message();
        cx.send_text("heard");
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        let CloseReason { code, side } = reason;
        self.note(format!("{} closes as {}: {code} {side:?}", cx.connection_id(), cx.session()));
    }
}

#[test]
fn the_older_one_closes_before_the_newer_one_opens() {
    let story = Story::default();
    let heard = story.clone();
    let server = Running::new(config(4), move |_| Chronicler(story.clone()));
    let mut older = server.open("session_id=s");
    let first = older.text();
    older.say("x");
    older.text();
    let mut newer = server.open("session_id=s");
    let second = newer.text();
    older.say("too late");
    newer.say("x");
    newer.text();
    let lines = heard.lock().unwrap().clone();
    let expected = [
        format!("{first} opens as 1"),
        format!("{first} speaks"),
        format!("{first} closes as 1: 4001 Server"),
        format!("{second} opens as 2"),
        format!("{second} speaks"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_takeover_from_a_dead_socket_loses_none_of_the_newer_ones_responses() {
    // The reactor is held while three things happen, so that it finds them in this order: a
    // request and an upgrade in one packet, then the reset of the connection that holds the
    // session. Writing the 4001 then fails, in the middle of the newer one's visit.
    let (server, gate) = Gate::serve(config(1));
    let mut keeper = server.open("");
    let older = server.open("session_id=s");
    let mut newer = server.connect();
    newer.send(get("/healthz"));
    newer.response();
    gate.hold(&mut keeper);
    newer.send(get("/readyz") + &upgrade("session_id=s"));
    older.reset();
    gate.let_go();
    assert_eq!(newer.response().body, r#"{"ready": true}"#);
    assert_eq!(newer.head().status, 101);
}

#[test]
fn who_has_left_already_takes_nothing_over() {
    // The owner is held while clients ask for a session that has a connection, and leave again:
    // some wait in its accept queue, some are handed over to it by the other reactor. When it gets
    // to them they are the past of their client, however late they come.
    let (server, gate) = Gate::serve(config(2));
    let mine = |n: &u32| owner_of(&format!("s-{n}"), 2) == 0;
    let names: Vec<String> = (0..).filter(mine).take(2).map(|n| format!("s-{n}")).collect();
    let mut keeper = server.open(&format!("session_id={}", names[0]));
    let mut holder = server.open(&format!("session_id={}", names[1]));
    let before = server.metric("revolve_hand_overs_out_total", "reactor=\"1\"");
    gate.hold(&mut keeper);
    // So many that some land on either reactor, whatever the kernel deals.
    let gone = 40;
    for _ in 0..gone {
        let mut raw = server.connect();
        raw.send(upgrade(&format!("session_id={}", names[1])));
        drop(raw);
    }
    gate.let_go();
    server.wait_for("revolve_rejected_total", "reason=\"superseded\"", gone);
    assert!(server.metric("revolve_hand_overs_out_total", "reactor=\"1\"") > before);
    assert_eq!(server.metric("revolve_takeovers_total", ""), 0);
    holder.say("still here");
    assert_eq!(holder.text(), "heard");
}

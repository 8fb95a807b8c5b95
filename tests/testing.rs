//! The test kit (`revolve::testing`), tested as it is meant to be used: on applications, the chat of
//! `examples/` among them.
//!
//! Nothing here has a socket, waits for a clock or starts a thread.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use revolve::testing::{Received, TestServer};
use revolve::{
    Acceptance, Application, CloseReason, Config, Context, Counter, Echo, Message, Refusal, Side,
    Upgrade,
};

#[path = "../examples/chat.rs"]
#[allow(dead_code, reason = "its `main` is for those who run it")]
mod chat;

const SECOND: Duration = Duration::from_secs(1);

fn closed(code: u16, reason: &str) -> Option<Received> {
    Some(Received::Closed { code, reason: reason.to_owned() })
}

// --- the applications of the daemon, and of examples/ ----------------------------------------

#[test]
fn the_chat_carries_what_one_says_to_all_and_keeps_names() {
    let server = TestServer::new(|| chat::Chat);
    let ann = server.connect("session_id=ann-4711");
    assert_eq!(ann.text(), "* guest-50000 joined");
    ann.send_text("/nick Ann");
    assert_eq!(ann.text(), "* guest-50000 is now Ann");
    // On the other reactor.
    let bob = server.connect("session_id=bob-4711");
    for client in [&ann, &bob] {
        assert_eq!(client.text(), "* guest-50001 joined");
    }
    bob.send_text("hello");
    for client in [&ann, &bob] {
        assert_eq!(client.text(), "guest-50001: hello");
    }
    bob.send_text("/nick ");
    assert_eq!(bob.text(), "* a nick has at least one letter");
    assert_eq!(ann.receive(), None, "that was for bob alone");
    ann.disconnect();
    assert_eq!(bob.text(), "* Ann left");
    let ann = server.connect("session_id=ann-4711");
    assert_eq!(ann.text(), "* Ann is back");
    ann.send_binary(&[1]);
    assert_eq!(ann.receive(), closed(1003, "text only, please"));
    assert_eq!([bob.text(), bob.text()], ["* Ann is back", "* Ann left"]);
}

#[test]
fn the_counter_counts_on_whichever_reactor_and_until_the_session_expires() {
    let workers = NonZeroUsize::new(4).unwrap();
    let config = Config { workers, session_ttl: 60 * SECOND, ..Config::default() };
    let server = TestServer::with_config(config, || Counter::new(Some(30 * SECOND)));
    for count in 1..=8 {
        let client = server.connect("session_id=alice");
        assert_eq!(client.header("X-Session-Resumed").unwrap(), (count > 1).to_string());
        client.send_text("hello");
        assert_eq!(client.text(), format!("{{\"count\": {count}}}"));
        client.close(1000, "");
        assert_eq!(client.receive(), closed(1000, ""));
    }
    server.advance(59 * SECOND);
    let client = server.connect("session_id=alice");
    assert_eq!(client.header("x-session-count").unwrap(), "8");
    client.send_text("quit");
    assert_eq!(client.text(), r#"{"bye": true, "total": 8}"#);
    assert_eq!(client.receive(), closed(1000, "quit command received"));
    server.advance(61 * SECOND);
    let client = server.connect("session_id=alice");
    assert_eq!(client.header("X-Session-Count").unwrap(), "0");
    // The heartbeat comes when it is due, as often as it is.
    server.advance(60 * SECOND);
    for _ in 0..2 {
        assert!(client.text().starts_with("{\"ts\": "));
    }
    assert_eq!(client.receive(), None);
}

#[test]
fn an_idle_client_answers_pings_and_stays() {
    let server = TestServer::new(|| Echo);
    let client = server.connect("");
    server.advance(3600 * SECOND);
    assert_eq!(client.receive(), None);
    client.send_binary(&[0, 159, 255]);
    assert_eq!(client.receive(), Some(Received::Binary(vec![0, 159, 255])));
    let large = "x".repeat(1 << 20);
    client.send_text(&large);
    assert_eq!(client.text(), large);
}

#[test]
fn a_newer_connection_takes_the_session_over() {
    let server = TestServer::new(|| Echo);
    let id = server.connect("").session_id();
    let older = server.connect(&format!("session_id={id}"));
    let newer = server.connect(&format!("session_id={id}"));
    assert_eq!(older.receive(), closed(4001, "session taken over"));
    newer.send_text("still here");
    assert_eq!(newer.text(), "still here");
}

// --- an application that uses everything -----------------------------------------------------

/// What it has been called with.
type Diary = Rc<RefCell<Vec<String>>>;

/// Looks words up, elsewhere, for those who are let in.
struct Lookup {
    diary: Diary,
}

impl Application for Lookup {
    type Session = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        if upgrade.header("Authorization").is_none() {
            let refusal = Refusal::new::<401>("who are you?");
            return Err(refusal.header("WWW-Authenticate", "Bearer")?);
        }
        Ok(upgrade.accept().subprotocol(upgrade.choose_subprotocol(&["lookup.v1"])))
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        cx.set_timer(30 * SECOND, 1).unwrap();
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, key: u64) {
        cx.send_text(&format!("timer {key}"));
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(word) = message else { return };
        let word = word.to_owned();
        let job = move || {
            assert_ne!(word, "panic", "as asked");
            word.to_uppercase()
        };
        let done = |lookup: &mut Self, cx: &mut Context<'_, Self>, found: String| {
            lookup.diary.borrow_mut().push(found.clone());
            cx.send_text(&found);
        };
        if cx.offload(job, done).is_err() {
            cx.send_text("busy");
        }
    }

    fn on_close(&mut self, _cx: &mut Context<'_, Self>, reason: CloseReason) {
        self.diary.borrow_mut().push(format!("{reason:?}"));
    }
}

fn lookup() -> (TestServer<Lookup>, Diary) {
    let diary = Diary::default();
    let server = TestServer::new(|| Lookup { diary: diary.clone() });
    (server, diary)
}

fn enter(server: &TestServer<Lookup>) -> revolve::testing::TestClient<Lookup> {
    server.request().header("Authorization", "Bearer x").connect().unwrap()
}

#[test]
fn a_refusal_is_an_answer_and_an_acceptance_has_its_subprotocol() {
    let (server, _) = lookup();
    let refused = server.request().connect().err().unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (401, "who are you?\n"));
    assert!(refused.headers.contains(&("WWW-Authenticate".to_owned(), "Bearer".to_owned())));
    let elsewhere = server.request().path("/nowhere").connect().err().unwrap();
    assert_eq!(elsewhere.status, 404);
    let request = server.request().header("Authorization", "x").query("a=b");
    let client = request.subprotocols(&["lookup.v2", "lookup.v1"]).connect().unwrap();
    assert_eq!(client.header("Sec-WebSocket-Protocol").as_deref(), Some("lookup.v1"));
    let page = server.metrics();
    assert!(page.contains("revolve_rejected_total{reactor=\"0\",reason=\"application\"} 1"));
}

#[test]
fn timers_fire_when_time_has_passed_and_not_before() {
    let (server, _) = lookup();
    let client = enter(&server);
    server.advance(29 * SECOND);
    assert_eq!(client.receive(), None);
    server.advance(2 * SECOND);
    assert_eq!(client.text(), "timer 1");
    server.advance(60 * SECOND);
    assert_eq!(client.receive(), None, "once");
}

#[test]
fn jobs_are_run_at_once_or_when_they_are_told_to_and_answered_in_order() {
    let (server, diary) = lookup();
    let client = enter(&server);
    client.send_text("a");
    assert_eq!(client.text(), "A");
    server.hold_jobs();
    for word in ["b", "c", "d"] {
        client.send_text(word);
    }
    assert_eq!((server.held_jobs(), client.receive()), (3, None));
    server.run_job(2);
    server.run_job(1);
    assert_eq!(client.receive(), None, "b is still under way");
    server.run_job(0);
    assert_eq!([client.text(), client.text(), client.text()], ["B", "C", "D"]);
    // Of one that has left nobody is told.
    client.send_text("e");
    client.disconnect();
    server.run_job(0);
    let lost = CloseReason { code: 1006, side: Side::Client };
    assert_eq!(*diary.borrow(), ["A", "B", "C", "D", &format!("{lost:?}")]);
}

#[test]
fn a_job_that_panics_closes_its_connection() {
    let (server, _) = lookup();
    let (client, witness) = (enter(&server), enter(&server));
    client.send_text("panic");
    assert_eq!(client.receive(), closed(1011, "internal error"));
    witness.send_text("still here");
    assert_eq!(witness.text(), "STILL HERE");
}

#[test]
fn a_drain_says_goodbye_and_waits_for_jobs() {
    let (server, _) = lookup();
    server.hold_jobs();
    let (idle, waiting) = (enter(&server), enter(&server));
    waiting.send_text("a");
    server.shut_down();
    assert_eq!(idle.receive(), closed(1001, "server is going away"));
    assert_eq!((waiting.receive(), server.has_ended()), (None, false));
    server.run_job(0);
    assert_eq!(waiting.text(), "A");
    assert_eq!(waiting.receive(), closed(1001, "server is going away"));
    server.advance(SECOND);
    assert!(server.has_ended());
}

#[test]
fn a_job_that_never_returns_does_not_hold_the_drain_for_ever() {
    let (server, diary) = lookup();
    server.hold_jobs();
    let client = enter(&server);
    client.send_text("a");
    server.shut_down();
    server.advance(Config::default().timeout_graceful_shutdown);
    assert!(server.has_ended());
    assert_eq!(client.receive(), closed(1006, ""));
    assert_eq!(diary.borrow().len(), 1, "`on_close` is called all the same");
}

//! An application of which everything panics that can: what it calls, what it makes, what it drops. Each
//! panic costs the connection for which it happened, or nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::{Running, config, eventually, upgrade};
use revolve::{
    Acceptance, Application, Config, Context, EndedSession, Message, ReactorContext, ReactorStart,
    Refusal, ServeError, Server, SessionIds, Upgrade,
};

/// Panics when it is dropped.
#[derive(Default)]
struct Fragile(bool);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.0, "as planned: dropped");
    }
}

/// A panic is raised with this, and dropping that panics again.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("as planned: a payload");
    }
}

/// Sessions made so far.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Whether it panics when it is dropped, and when it is told to have ended.
struct State(Fragile, bool);

impl Default for State {
    fn default() -> Self {
        // The first one of all.
        assert_ne!(MADE.fetch_add(1, Ordering::Relaxed), 0, "as planned: a session's state");
        State(Fragile(false), false)
    }
}

struct Wild;

impl Application for Wild {
    type Session = State;
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let fragile = Fragile(upgrade.parameter("opening").is_some());
        Ok(upgrade.accept().then(move |_, _| std::mem::forget(fragile)))
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        match text {
            "fragile session" => cx.session_mut().0.0 = true,
            "fragile end" => cx.session_mut().1 = true,
            "payload" => std::panic::panic_any(Payload),
            "value" | "continuation" | "job" => {
                let (value, done) = (Fragile(text == "value"), Fragile(text == "continuation"));
                let payload = text == "job";
                let job = move || {
                    std::thread::sleep(Duration::from_millis(200));
                    if payload {
                        std::panic::panic_any(Payload);
                    }
                    value
                };
                cx.offload(job, move |_, _, value| std::mem::forget((value, done))).unwrap();
                // Nobody waits for it: the connection is gone first.
                if !payload {
                    cx.close(1000, "bye");
                }
            }
            _ => {
                cx.count_message();
            }
        }
        cx.send_text(text);
    }

    fn on_session_end(&mut self, _: &mut ReactorContext<'_, Self>, session: EndedSession<State>) {
        assert!(!session.state().1, "as planned: on_session_end");
    }
}

#[test]
fn whatever_panics_ends_one_connection_at_most() {
    let config = Config {
        session_ttl: Duration::from_millis(200),
        session_ids: SessionIds::Any,
        limit_concurrency: std::num::NonZeroUsize::new(2),
        ..config(1)
    };
    let server = Running::new(config, |_| Wild);
    let panics = |expected: u64| {
        eventually("the panics are counted", || {
            server.metric("revolve_panics_total", "") == expected
        });
    };
    // The state of a session cannot be made: that upgrade is refused, and holds no place.
    let mut raw = server.connect();
    raw.send(upgrade("session_id=first"));
    assert_eq!(raw.response().head.status, 500);
    panics(1);
    let mut witness = server.open("session_id=witness");
    let mut hears = || {
        witness.say("still here");
        assert_eq!(witness.text(), "still here");
    };
    // A closure that is dropped unused, because there is no room.
    let held = server.open("");
    let mut raw = server.connect();
    raw.send(upgrade("opening=fragile"));
    assert_eq!(raw.response().head.status, 503);
    panics(2);
    hears();
    drop(held);
    server.wait_for("revolve_websockets", "", 1);
    // A panic whose payload panics too.
    let mut raw = server.open("");
    raw.say("payload");
    assert_eq!(raw.close().0, 1011);
    panics(3);
    hears();
    raw.gone();
    server.wait_for("revolve_websockets", "", 1);
    // Values and closures of jobs that nobody waits for any more.
    for (count, word) in [(4, "value"), (5, "continuation")] {
        let mut raw = server.open("");
        raw.say(word);
        assert_eq!((raw.text(), raw.close().0), (word.to_owned(), 1000));
        panics(count);
        hears();
        raw.gone();
        server.wait_for("revolve_websockets", "", 1);
    }
    // A job that panics with such a payload: its thread goes on, its connection ends.
    let mut raw = server.open("");
    raw.say("job");
    assert_eq!((raw.text(), raw.close().0), ("job".to_owned(), 1011));
    panics(6);
    hears();
    raw.gone();
    // A session that expires.
    let mut raw = server.open("session_id=fragile");
    raw.say("fragile session");
    assert_eq!(raw.text(), "fragile session");
    drop(raw);
    panics(7);
    hears();
    // Another one, over which the callback panics that is told of it.
    let mut raw = server.open("session_id=fragile-end");
    raw.say("fragile end");
    assert_eq!(raw.text(), "fragile end");
    drop(raw);
    panics(8);
    hears();
}

/// Panics at its start, on one of two reactors.
struct Unborn;

impl Application for Unborn {
    type Session = ();
    type Connection = ();

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        assert_ne!(cx.reactor(), 1, "as planned: on_start");
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

#[test]
fn an_application_that_cannot_be_made_serves_nobody_and_leaves_nothing() {
    let start =
        |make: fn(ReactorStart<Unborn>) -> Unborn| Server::builder().config(config(2)).serve(make);
    for make in [|_| Unborn, |_| panic!("as planned: make")] {
        let error = start(make).expect_err("it panicked");
        assert!(matches!(error, ServeError::Application), "{error:?}");
        assert_eq!(error.to_string(), "cannot start: the application panicked");
    }
    // The port is free again: nothing of the server is left.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = vec![super::client::on_port(port)];
    let on_port = |make: fn(ReactorStart<Unborn>) -> Unborn, workers| {
        let config = Config { listen: listen.clone(), ..config(workers) };
        Server::builder().config(config).serve(make)
    };
    assert!(on_port(|_| Unborn, 2).is_err());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "it listens");
    let server = on_port(|_| Unborn, 1).expect("with one reactor it starts");
    assert!(!server.has_ended());
    server.shutdown();
    eventually("it has ended", || server.has_ended());
    let summary = server.join();
    assert_eq!((summary.panicked, summary.failed), (0, 0));
}

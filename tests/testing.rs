//! The test kit (`revolve::testing`), tested as it is meant to be used: on applications, the chat of
//! `examples/` among them.
//!
//! Nothing here has a socket, waits for a clock or starts a thread.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::cell::{Cell, RefCell};
use std::num::{NonZeroU32, NonZeroUsize};
use std::rc::Rc;
use std::time::Duration;

use revolve::testing::{Received, Refused, TestServer};
use revolve::{
    Acceptance, Application, CloseReason, Config, Context, Counter, Echo, EndedSession, Message,
    ReactorContext, Refusal, SessionIds, SessionRate, Side, Subprotocol, Upgrade,
};

#[path = "../examples/chat.rs"]
#[allow(dead_code, reason = "its `main` is for those who run it")]
mod chat;

const SECOND: Duration = Duration::from_secs(1);

thread_local! {
    /// What this thread's server has logged at the default level.
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct LogCapture;

impl log::Log for LogCapture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info && metadata.target().starts_with("revolve::shard")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LOGGED.with_borrow_mut(|logged| logged.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn listen() {
    // Whoever was first has set it.
    let _ = log::set_logger(&LogCapture);
    log::set_max_level(log::LevelFilter::Info);
    logged();
}

fn logged() -> Vec<String> {
    LOGGED.take()
}

fn closed(code: u16, reason: &str) -> Option<Received> {
    Some(Received::Closed { code, reason: reason.to_owned() })
}

// --- sessions: how many, from whom --------------------------------------------------------------

#[test]
fn sessions_that_leave_early_are_told_once_a_minute() {
    listen();
    let config = Config { workers: NonZeroUsize::MIN, max_sessions: 3, ..Config::default() };
    let server = TestServer::with_config(config, |_| Counter::new(None));
    let make = |count| {
        for _ in 0..count {
            let client = server.connect("");
            client.send_text("hello");
            client.disconnect();
        }
    };
    make(3);
    server.advance(200 * SECOND);
    assert_eq!(logged(), Vec::<String>::new(), "a full table is no reason to say anything");
    make(1);
    server.advance(30 * SECOND);
    make(4);
    server.advance(29 * SECOND);
    assert_eq!(logged(), Vec::<String>::new());
    server.advance(SECOND + SECOND / 10);
    let told = |count| {
        vec![format!(
            "sessions that left early within a minute, because the table is full: {count}; raise \
             --max-sessions, or bound each address's new ones with --limit-sessions-per-ip"
        )]
    };
    assert_eq!(logged(), told(5));
    // While it does not happen, nothing is told.
    server.advance(600 * SECOND);
    assert_eq!(logged(), Vec::<String>::new());
    make(2);
    server.advance(61 * SECOND);
    assert_eq!(logged(), told(2));
    assert!(
        server.metrics().contains("revolve_evictions_total{reactor=\"0\",reason=\"table_full\"} 7")
    );
}

/// Notes what happens to its connections and sessions, in order.
#[derive(Clone, Default)]
struct Register(Rc<RefCell<Vec<String>>>);

impl Register {
    fn note(&self, line: String) {
        self.0.borrow_mut().push(line);
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

impl Application for Register {
    type Session = String;

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let answer = |upgrade: &Upgrade<'_, Self>| match upgrade.parameter("as").as_deref() {
            Some("nobody") => Err(Refusal::new::<403>("nobody")),
            _ => Ok(upgrade.accept()),
        };
        match upgrade.parameter("later") {
            Some(_) => upgrade.defer(|| (), move |_, upgrade, ()| answer(upgrade)),
            None => answer(upgrade),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        match text {
            "forget" => cx.forget_session(),
            "forget twice and close" => {
                cx.forget_session();
                cx.forget_session();
                cx.close(4000, "logged out");
            }
            "forget and panic" => {
                cx.forget_session();
                panic!("as planned");
            }
            "look up and forget" => {
                let taken = cx.offload(|| (), |_, cx, ()| cx.send_text("found"));
                assert!(taken.is_ok());
                cx.forget_session();
            }
            "forget at the end" => cx.session_mut().push('!'),
            _ => {
                let count = cx.count_message();
                cx.session_mut().push_str(text);
                cx.send_text(&format!("{count} {}", cx.session()));
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        self.note(format!("{} closes: {}", cx.session_id(), reason.code));
        if cx.session().contains('!') {
            cx.forget_session();
        }
    }

    fn on_session_end(&mut self, _: &mut ReactorContext<'_, Self>, session: EndedSession<String>) {
        let (id, count, reason) = (session.session_id(), session.count(), session.reason());
        self.note(format!("{id} ends: {reason:?}, {count}, {:?}", session.into_state()));
    }
}

fn register(config: Config) -> (Register, TestServer<Register>) {
    let register = Register::default();
    let config = Config { workers: NonZeroUsize::MIN, ..config };
    (register.clone(), TestServer::with_config(config, move |_| register.clone()))
}

#[test]
fn each_session_ends_once_behind_the_close_that_ends_it() {
    let ttl = 100 * SECOND;
    let (register, server) =
        register(Config { session_ttl: ttl, max_sessions: 1, ..Config::default() });
    let visit = |name: &str, words: &[&str]| {
        let client = server.connect(&format!("session_id={name}"));
        words.iter().for_each(|word| client.send_text(word));
        client.disconnect();
    };
    // Nothing in it is worth keeping.
    visit("a", &[]);
    assert_eq!(register.take(), ["a closes: 1006", "a ends: NotKept, 0, \"\""]);
    visit("b", &["x", "y"]);
    assert_eq!(register.take(), ["b closes: 1006"]);
    // The table has room for one.
    visit("c", &["z"]);
    assert_eq!(register.take(), ["c closes: 1006", "b ends: Evicted, 2, \"xy\""]);
    server.advance(ttl - SECOND);
    assert_eq!(register.take(), [""; 0]);
    server.advance(5 * SECOND);
    assert_eq!(register.take(), ["c ends: Expired, 1, \"z\""]);
    // A takeover ends none, and neither does the end of the server.
    let _older = server.connect("session_id=d");
    let newer = server.connect("session_id=d");
    newer.send_text("w");
    assert_eq!(register.take(), ["d closes: 4001"]);
    server.shut_down();
    server.advance(30 * SECOND);
    assert_eq!(register.take(), ["d closes: 1001"]);
}

#[test]
fn a_session_that_a_request_waits_for_ends_when_it_waits_no_more() {
    let (register, server) = register(Config { session_ttl: Duration::ZERO, ..Config::default() });
    let client = server.connect("session_id=a");
    client.send_text("x");
    client.disconnect();
    assert_eq!(register.take(), ["a closes: 1006", "a ends: NotKept, 1, \"x\""]);
    let client = server.connect("session_id=b");
    client.send_text("y");
    let refused = server.request().query("session_id=b&later=1&as=nobody").connect();
    assert_eq!(refused.err().map(|refused| refused.status), Some(403));
    assert_eq!(register.take(), [""; 0]);
    client.disconnect();
    assert_eq!(register.take(), ["b closes: 1006", "b ends: NotKept, 1, \"y\""]);
}

#[test]
fn a_session_that_is_forgotten_is_found_by_nobody_and_ends_with_its_connection() {
    let (register, server) = register(Config::default());
    let resumed = |client: &revolve::testing::TestClient<Register>| {
        client.header("X-Session-Resumed") == Some("true".to_owned())
    };
    let older = server.connect("session_id=a");
    for (word, answer) in [("x", "1 x"), ("forget", ""), ("forget", ""), ("y", "2 xy")] {
        older.send_text(word);
        if !answer.is_empty() {
            assert_eq!(older.text(), answer, "it goes on");
        }
    }
    // It takes nothing over, and nothing is left of it.
    let newer = server.connect("session_id=a");
    assert!(!resumed(&newer));
    newer.send_text("z");
    older.send_text("w");
    assert_eq!((newer.text(), older.text()), ("1 z".to_owned(), "3 xyw".to_owned()));
    assert_eq!(register.take(), [""; 0]);
    older.disconnect();
    assert_eq!(register.take(), ["a closes: 1006", "a ends: Forgotten, 3, \"xyw\""]);
    assert!(resumed(&server.connect("session_id=a")), "the other one");
    assert_eq!(register.take(), ["a closes: 4001"]);
    // However its connection ends.
    for (word, code) in [("forget twice and close", 4000), ("forget and panic", 1011)] {
        let query = format!("session_id=b{code}");
        let client = server.connect(&query);
        client.send_text("x");
        client.send_text(word);
        assert!(!resumed(&server.connect(&query)), "{word}");
        let expected =
            [format!("b{code} closes: {code}"), format!("b{code} ends: Forgotten, 1, \"x\"")];
        assert_eq!(register.take()[..2], expected);
    }
    // In `on_close`, even where another one takes over: that one gets a new session.
    let older = server.connect("session_id=c");
    older.send_text("forget at the end");
    let newer = server.connect("session_id=c");
    assert_eq!(register.take()[..2], ["c closes: 4001", "c ends: Forgotten, 0, \"!\""]);
    assert!(!resumed(&newer));
    newer.send_text("x");
    assert_eq!(newer.text(), "1 x");
}

#[test]
fn who_has_its_session_forgotten_is_read_on_unless_it_waits_for_a_job() {
    let limits = revolve::Limits { offloads_per_connection: 1, ..revolve::Limits::default() };
    let (register, server) = register(Config { limits, ..Config::default() });
    server.hold_jobs();
    let client = server.connect("session_id=a");
    client.send_text("forget");
    client.send_text("x");
    assert_eq!(client.text(), "1 x");
    client.send_text("look up and forget");
    client.send_text("y");
    assert_eq!(client.receive(), None);
    server.run_job(0);
    assert_eq!((client.text(), client.text()), ("found".to_owned(), "2 xy".to_owned()));
    assert_eq!(register.take(), [""; 0]);
}

fn retry_after(refused: &Refused) -> Option<&str> {
    let found = refused.headers.iter().find(|(name, _)| name == "Retry-After");
    found.map(|(_, value)| value.as_str())
}

#[test]
fn an_address_makes_so_many_sessions_and_resumes_as_many_as_it_likes() {
    let limit_sessions_per_ip =
        Some(SessionRate { sessions: NonZeroU32::new(3).unwrap(), window: 60 * SECOND });
    let workers = NonZeroUsize::new(2).unwrap();
    for session_ids in [SessionIds::Any, SessionIds::Issued] {
        let config = Config { limit_sessions_per_ip, workers, session_ids, ..Config::default() };
        let server = TestServer::with_config(config, |_| Counter::new(None));
        // Whichever reactor they come to, and whatever they ask for.
        let clients: Vec<_> = ["", "session_id=&hello=1", "session_id=chosen"]
            .map(|query| server.connect(query))
            .into();
        for query in ["", "session_id=", "session_id=another", "hello=1"] {
            let refused = server.request().query(query).connect().err().unwrap();
            assert_eq!((refused.status, retry_after(&refused)), (429, Some("20")));
            assert_eq!(
                refused.body,
                "too many new sessions from this address: resume one, or try again later\n"
            );
        }
        // To resume, and to take over, makes no session.
        for client in &clients {
            client.send_text("hello");
            let id = client.session_id();
            for _ in 0..10 {
                server.connect(&format!("session_id={id}"));
            }
        }
        // Another address has its own.
        let other = "192.0.2.7:1".parse().unwrap();
        assert!(server.request().peer(other).connect().is_ok());
        // What is refused later does not count, and the next third of the minute is for one more.
        server.advance(20 * SECOND);
        assert!(server.request().connect().is_ok());
        let refused = server.request().connect().err().unwrap();
        assert_eq!((refused.status, retry_after(&refused)), (429, Some("20")));
        let rejected = "reason=\"limit_sessions_per_ip\"} ";
        let total: u64 = server
            .metrics()
            .lines()
            .filter_map(|line| line.split_once(rejected)?.1.parse::<u64>().ok())
            .sum();
        assert_eq!(total, 5);
    }
}

#[test]
fn an_upgrade_that_finds_no_place_has_made_no_session() {
    let config = Config {
        limit_concurrency: NonZeroUsize::new(1),
        limit_sessions_per_ip: Some(SessionRate {
            sessions: NonZeroU32::new(2).unwrap(),
            window: 60 * SECOND,
        }),
        ..Config::default()
    };
    let server = TestServer::with_config(config, |_| Counter::new(None));
    let first = server.connect("");
    for _ in 0..10 {
        assert_eq!(server.request().connect().err().unwrap().status, 503);
    }
    first.disconnect();
    server.connect("").disconnect();
    assert_eq!(server.request().connect().err().unwrap().status, 429);
}

// --- the applications of the daemon, and of examples/ ----------------------------------------

#[test]
fn the_chat_carries_what_one_says_to_all_and_keeps_names() {
    let server = TestServer::new(|_| chat::Chat);
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
    let server = TestServer::with_config(config, |_| Counter::new(Some(30 * SECOND)));
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
    let server = TestServer::new(|_| Echo);
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
    let server = TestServer::new(|_| Echo);
    let id = server.connect("").session_id();
    let older = server.connect(&format!("session_id={id}"));
    let newer = server.connect(&format!("session_id={id}"));
    assert_eq!(older.receive(), closed(4001, "session taken over"));
    newer.send_text("still here");
    assert_eq!(newer.text(), "still here");
}

// --- an application that tells the count of a session before it opens --------------------------

/// Counts, and tells in the 101 what it knows then of the session and of `hello`.
struct Teller;

impl Application for Teller {
    type Session = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let count = upgrade.session_count();
        let hello = upgrade.parameter("hello");
        Ok(upgrade
            .accept()
            .header("X-Count", &format!("{count:?}"))?
            .header("X-Hello", &format!("{hello:?}"))?
            .then(move |_, cx| {
                assert_eq!((cx.is_resumed(), cx.count()), (count.is_some(), count.unwrap_or(0)));
            }))
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
        let count = cx.count_message();
        cx.send_text(&count.to_string());
    }
}

fn tells(client: &revolve::testing::TestClient<Teller>, count: &str) {
    assert_eq!(client.header("X-Count").as_deref(), Some(count));
}

#[test]
fn the_count_of_a_session_is_known_before_it_opens() {
    for session_ids in [SessionIds::Any, SessionIds::Issued] {
        let workers = NonZeroUsize::new(3).unwrap();
        let config = Config { workers, session_ids, session_ttl: 60 * SECOND, ..Config::default() };
        let server = TestServer::with_config(config, |_| Teller);
        let first = server.connect("session_id=chosen");
        tells(&first, "None");
        let query = format!("session_id={}", first.session_id());
        // There, and it has counted nothing.
        let second = server.connect(&query);
        tells(&second, "Some(0)");
        for count in ["1", "2"] {
            second.send_text("x");
            assert_eq!(second.text(), count);
        }
        // A takeover.
        let third = server.connect(&query);
        tells(&third, "Some(2)");
        assert_eq!(second.receive(), closed(4001, "session taken over"));
        third.send_text("x");
        assert_eq!(third.text(), "3");
        third.disconnect();
        server.advance(59 * SECOND);
        let fourth = server.connect(&query);
        tells(&fourth, "Some(3)");
        fourth.disconnect();
        server.advance(61 * SECOND);
        tells(&server.connect(&query), "None");
        tells(&server.connect(""), "None");
    }
}

#[test]
fn hello_is_a_parameter_like_others() {
    let server = TestServer::new(|_| Teller);
    for (query, expected) in
        [("hello=1", "Some(\"1\")"), ("hello=%31", "Some(\"1\")"), ("", "None")]
    {
        let client = server.connect(query);
        assert_eq!(client.header("X-Hello").as_deref(), Some(expected));
        assert_eq!((client.header("X-Session-Count"), client.receive()), (None, None));
    }
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
    let server = TestServer::new(|_| Lookup { diary: diary.clone() });
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

/// Closes with whatever code it is told, and speaks a subprotocol that nobody has offered.
struct Careless;

impl Application for Careless {
    type Session = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        // It keeps what one client has offered for all the others.
        thread_local! { static KEPT: Cell<Option<Subprotocol>> = const { Cell::new(None) }; }
        let kept = KEPT.get().or(upgrade.choose_subprotocol(&["chat"]));
        KEPT.set(kept);
        Ok(upgrade.accept().subprotocol(kept))
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(code) = message else { return };
        cx.close(code.parse().unwrap(), "as told");
        cx.count_message();
        cx.broadcast_text("still here");
    }
}

#[test]
fn wrong_use_has_an_outcome_of_its_own_and_the_callback_goes_on() {
    let server = TestServer::new(|_| Careless);
    let witness = server.connect("");
    for (code, said) in [
        (1000, 1000),
        (1004, 1011),
        (1005, 1011),
        (1006, 1011),
        (1010, 1011),
        (1015, 1011),
        (1016, 1011),
        (2999, 1011),
        (3000, 3000),
        (4999, 4999),
        (5000, 1011),
        (999, 1011),
        (0, 1011),
        (u16::MAX, 1011),
    ] {
        let client = server.connect("");
        client.send_text(&code.to_string());
        assert_eq!(client.receive(), closed(said, "as told"), "{code}");
        assert_eq!(witness.text(), "still here", "{code}");
    }
    let spoken = |offered: &str| {
        let client = server.request().subprotocols(&[offered]).connect();
        client.ok().and_then(|client| client.header("Sec-WebSocket-Protocol"))
    };
    assert_eq!(spoken("chat").as_deref(), Some("chat"));
    // tungstenite refuses a 101 without a subprotocol that it has asked for.
    assert_eq!(spoken("mqtt"), None);
}

/// Sets a timer of its own with no time at all, again and again.
struct Hasty(Rc<Cell<u64>>);

impl Application for Hasty {
    type Session = ();

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        cx.set_timer(Duration::ZERO, 0).unwrap();
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, _: u64) {
        self.0.set(self.0.get() + 1);
        cx.set_timer(Duration::ZERO, 0).unwrap();
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
        let _ = cx.offload(|| panic!("as planned: for nobody"), |_, _, ()| ());
    }
}

#[test]
fn a_timer_of_no_time_holds_no_reactor() {
    let fired = Rc::new(Cell::new(0));
    let config = Config { workers: NonZeroUsize::MIN, ..Config::default() };
    let server = TestServer::with_config(config, |_| Hasty(fired.clone()));
    let before = fired.get();
    server.advance(SECOND);
    let times = fired.get() - before;
    assert!((1..=1000).contains(&times), "{times} times in a second");
    // And a job of a connection that has gone is counted when it panics.
    server.connect("").disconnect();
    assert!(server.metrics().contains("revolve_panics_total{reactor=\"0\"} 1\n"));
}

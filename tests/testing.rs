//! The test kit (`revolve::testing`), tested as it is meant to be used: on applications, the chat of
//! `examples/` among them.
//!
//! Nothing here has a socket, waits for a clock or starts a thread.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::cell::{Cell, RefCell};
use std::num::{NonZeroU32, NonZeroUsize};
use std::rc::Rc;
use std::time::Duration;

use revolve::testing::{Received, Refused, TestServer, TestStore};
use revolve::{
    Acceptance, Application, Cancellation, CloseReason, Config, Context, Counter, CounterMetric,
    Echo, EndedSession, GaugeMetric, HttpRequest, HttpResponse, InvalidMetric, Limits, Message,
    NoResponse, ReactorContext, Recipient, Refusal, SessionIds, SessionRate, SetTimerError, Side,
    StoreSync, Subprotocol, Subprotocols, TooManyTimers, Upgrade,
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

// --- what a connection keeps ---------------------------------------------------------------------

/// Tells what it was opened with, and how many messages this connection and this session have sent.
struct Journal;

thread_local! {
    static DROPPED: Cell<u32> = const { Cell::new(0) };
}

#[derive(Default)]
struct Page(u64);

impl Drop for Page {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

impl Application for Journal {
    type Session = u64;
    type Connection = Page;

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let accepted = upgrade.accept();
        Ok(if upgrade.parameter("keep").is_some() { accepted.keep_request() } else { accepted })
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        if message == Message::Text("request") {
            let told = cx.request().map(|request| {
                format!("{} {} {:?}", request.path(), request.query(), request.subprotocol())
            });
            return cx.send_text(&told.unwrap_or_default());
        }
        *cx.session_mut() += 1;
        cx.connection_mut().0 += 1;
        let (page, session) = (cx.connection_mut().0, *cx.session());
        cx.send_text(&format!("{page} {session}"));
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
        // It is still there.
        assert!(cx.connection_mut().0 > 0 || cx.request().is_none());
    }
}

#[test]
fn a_connection_has_a_state_of_its_own_which_ends_with_it() {
    let server = TestServer::new(|_| Journal);
    let ann = server.connect("session_id=ann");
    for count in 1..=3 {
        ann.send_text("dear diary");
        assert_eq!(ann.text(), format!("{count} {count}"));
    }
    let bob = server.connect("session_id=bob");
    bob.send_text("dear diary");
    assert_eq!((bob.text(), DROPPED.get()), ("1 1".to_owned(), 0));
    // Taken over: the session goes on, the connection's state does not.
    let newer = server.connect("session_id=ann");
    assert_eq!(DROPPED.get(), 1);
    newer.send_text("dear diary");
    assert_eq!(newer.text(), "1 4");
    newer.disconnect();
    bob.close(1000, "");
    assert_eq!(DROPPED.get(), 3);
    // One that was never asked for is never made.
    let quiet = server.connect("session_id=quiet&nothing");
    quiet.send_text("request");
    assert_eq!(quiet.text(), "");
}

#[test]
fn a_connection_keeps_its_request_if_it_is_to() {
    let ws_subprotocols = Subprotocols::parse("diary.v2, diary.v1").unwrap();
    let config = Config { ws_path: "/rooms/*".to_owned(), ws_subprotocols, ..Config::default() };
    let server = TestServer::with_config(config, |_| Journal);
    let request = server.request().path("/rooms/7").query("keep=1&session_id=ann");
    let ann = request.subprotocols(&["diary.v1"]).connect().unwrap();
    ann.send_text("request");
    assert_eq!(ann.text(), r#"/rooms/7 keep=1&session_id=ann Some("diary.v1")"#);
    let bob = server.request().path("/rooms/7").connect().unwrap();
    bob.send_text("request");
    assert_eq!(bob.text(), "");
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
    type Connection = ();

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
    // A takeover ends none.
    let _older = server.connect("session_id=d");
    let newer = server.connect("session_id=d");
    newer.send_text("w");
    assert_eq!(register.take(), ["d closes: 4001"]);
    server.shut_down();
    server.advance(30 * SECOND);
    assert_eq!(register.take(), ["d closes: 1001", "d ends: ServerEnded, 1, \"w\""]);
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
        client.header("X-Session-Resumed") == Some("true")
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

// --- sessions that several connections share ----------------------------------------------------

/// Says to all tabs of a session what one says, with the count and how many they are. `?alone` takes the session
/// over; `?later` is decided by a job.
struct Tabs;

impl Tabs {
    fn admit(upgrade: &Upgrade<'_, Self>) -> Acceptance<Self> {
        let acceptance = upgrade.accept();
        if upgrade.parameter("alone").is_some() { acceptance } else { acceptance.share() }
    }
}

impl Application for Tabs {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        match upgrade.parameter("later") {
            Some(_) => upgrade.defer(|| (), |_, upgrade, ()| Ok(Tabs::admit(upgrade))),
            None => Ok(Tabs::admit(upgrade)),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let all = Recipient::session(&cx.session_id());
        match message {
            Message::Text("out") => cx.close_other(all, 4005, "out, all of you"),
            Message::Text("forget") => cx.forget_session(),
            Message::Text(text) => {
                let (count, tabs) = (cx.count_message(), cx.session_connections());
                cx.send_text_to(all, &format!("{text} {count} {tabs}"));
            }
            Message::Binary(_) => {}
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        let words = format!("closed {} {}", reason.code, cx.session_connections());
        cx.send_text_to(Recipient::session("keeper"), &words);
    }
}

fn tabs(limits: Limits) -> TestServer<Tabs> {
    TestServer::with_config(Config { limits, ..Config::default() }, |_| Tabs)
}

#[test]
fn tabs_of_one_session_count_together_and_hear_the_same() {
    let server = tabs(Limits::default());
    let keeper = server.connect("session_id=keeper");
    let all: Vec<_> = (0..3).map(|_| server.connect("session_id=ann")).collect();
    assert_eq!(all[0].header("X-Session-Resumed"), Some("false"));
    assert_eq!(all[2].header("X-Session-Resumed"), Some("true"));
    for (n, tab) in (1..).zip(&all) {
        tab.send_text("hello");
        all.iter().for_each(|tab| assert_eq!(tab.text(), format!("hello {n} 3")));
    }
    all[0].disconnect();
    assert_eq!(keeper.text(), "closed 1006 3");
    all[1].send_text("left");
    all[1..].iter().for_each(|tab| assert_eq!(tab.text(), "left 4 2"));
    // One that does not share takes it over from all.
    let alone = server.connect("session_id=ann&alone=1");
    for (tab, left) in all[1..].iter().zip([2, 1]) {
        assert!(matches!(tab.receive(), Some(Received::Closed { code: 4001, .. })));
        assert_eq!(keeper.text(), format!("closed 4001 {left}"));
    }
    alone.send_text("mine");
    assert_eq!(alone.text(), "mine 5 1");
    // The one that comes decides: it joins one that had it alone.
    let joined = server.connect("session_id=ann");
    alone.send_text("ours");
    [&alone, &joined].iter().for_each(|tab| assert_eq!(tab.text(), "ours 6 2"));
    alone.send_text("out");
    for tab in [alone, joined] {
        assert!(matches!(tab.receive(), Some(Received::Closed { code: 4005, .. })));
    }
    // It is resumed as any other.
    let again = server.connect("session_id=ann");
    again.send_text("back");
    assert_eq!(again.text(), "back 7 1");
    assert!(server.metrics().contains("revolve_takeovers_total{reactor="));
}

#[test]
fn a_session_has_so_many_tabs_and_no_more() {
    let server = tabs(Limits { connections_per_session: 2, ..Limits::default() });
    let all: Vec<_> = (0..2).map(|_| server.connect("session_id=ann")).collect();
    let refused = server.request().query("session_id=ann").connect().unwrap_err();
    assert_eq!((refused.status, refused.body.contains("close some")), (429, true));
    // The others are not concerned, and a takeover is no further one.
    all[0].send_text("here");
    all.iter().for_each(|tab| assert_eq!(tab.text(), "here 1 2"));
    server.connect("session_id=bob");
    let alone = server.connect("session_id=ann&alone=1");
    alone.send_text("mine");
    assert_eq!(alone.text(), "mine 2 1");
}

#[test]
fn tabs_take_places_and_a_takeover_gives_all_but_one_back() {
    let config = Config { limit_concurrency: NonZeroUsize::new(3), ..Config::default() };
    let server = TestServer::with_config(config, |_| Tabs);
    let _all: Vec<_> = (0..3).map(|_| server.connect("session_id=ann")).collect();
    let is_full = |query: &str| server.request().query(query).connect().is_err();
    assert!(is_full("session_id=ann") && is_full("session_id=bob"));
    let _alone = server.connect("session_id=ann&alone=1");
    let _others = [server.connect("session_id=bob"), server.connect("session_id=cat")];
    assert!(is_full("session_id=dan"));
}

#[test]
fn a_request_that_waits_may_join_those_who_came_later_and_not_displace_them() {
    let server = tabs(Limits::default());
    server.hold_jobs();
    let decided = |query| {
        let waiting = server.request().query(query).begin();
        let tab = server.connect("session_id=ann");
        server.run_job(0);
        (waiting.answer().map_err(|refused| refused.status), tab)
    };
    let (joined, tab) = decided("session_id=ann&later=1");
    let joined = joined.unwrap();
    tab.send_text("both");
    [&tab, &joined].iter().for_each(|tab| assert_eq!(tab.text(), "both 1 2"));
    let (refused, tab) = decided("session_id=ann&later=1&alone=1");
    assert_eq!(refused.unwrap_err(), 409);
    tab.send_text("all three");
    [&joined, &tab].iter().for_each(|tab| assert_eq!(tab.text(), "all three 2 3"));
}

#[test]
fn a_tab_that_logs_out_takes_its_session_along() {
    let server = tabs(Limits::default());
    let (ann, other) = (server.connect("session_id=ann"), server.connect("session_id=ann"));
    ann.send_text("hello");
    ann.send_text("forget");
    let next = server.connect("session_id=ann");
    assert_eq!(next.header("X-Session-Resumed"), Some("false"));
    next.send_text("new");
    assert_eq!(next.text(), "new 1 1");
    // What is for the session's id is for the new one.
    other.send_text("old");
    assert_eq!(next.text(), "old 2 2");
}

// --- upgrades that are accepted and do not open -----------------------------------------------

/// Counts what becomes of the upgrades that it accepts. Asked for `later`, it lets a job decide; asked for
/// `panics`, it panics when the WebSocket does not open.
#[derive(Default)]
struct Doorkeeper {
    accepted: u32,
    opened: u32,
    not_opened: u32,
}

impl Doorkeeper {
    fn admit(&mut self, upgrade: &Upgrade<'_, Self>) -> Acceptance<Self> {
        self.accepted += 1;
        let panics = upgrade.parameter("panics").is_some();
        upgrade.accept().otherwise(move |doorkeeper, cx| {
            doorkeeper.not_opened += 1;
            assert!(!panics, "as it was asked to");
            cx.broadcast_text("somebody found no place");
            cx.set_timer(SECOND, 7).unwrap();
        })
    }
}

impl Application for Doorkeeper {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        match upgrade.parameter("later") {
            Some(_) => {
                upgrade.defer(|| (), |keeper: &mut Self, upgrade, ()| Ok(keeper.admit(upgrade)))
            }
            None => Ok(self.admit(upgrade)),
        }
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>) {
        self.opened += 1;
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        cx.send_text_to_all(&format!("timer {key}"));
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text("cancel") => assert!(cx.cancel_reactor_timer(9)),
            // The timer is the reactor's, so it outlives this connection.
            _ => cx.set_reactor_timer(SECOND, 9).unwrap(),
        }
    }
}

fn one_place() -> TestServer<Doorkeeper> {
    let workers = NonZeroUsize::MIN;
    let config = Config { workers, limit_concurrency: NonZeroUsize::new(1), ..Config::default() };
    TestServer::with_config(config, |_| Doorkeeper::default())
}

#[test]
fn an_accepted_upgrade_that_does_not_open_is_followed_by_what_undoes_it() {
    for query in ["", "later=1"] {
        let server = one_place();
        let first = server.connect(query);
        let fates = |keeper: &mut Doorkeeper| (keeper.accepted, keeper.opened, keeper.not_opened);
        assert_eq!(server.application(0, fates), (1, 1, 0));
        assert_eq!(server.request().query(query).connect().err().unwrap().status, 503);
        assert_eq!(server.application(0, fates), (2, 1, 1));
        assert_eq!(first.text(), "somebody found no place");
        server.advance(SECOND);
        assert_eq!(first.text(), "timer 7");
    }
}

#[test]
fn what_undoes_an_upgrade_may_panic() {
    let server = one_place();
    let first = server.connect("");
    assert_eq!(server.request().query("panics=1").connect().err().unwrap().status, 503);
    assert!(server.metrics().contains("revolve_panics_total{reactor=\"0\"} 1\n"));
    assert_eq!(first.receive(), None);
    first.disconnect();
    assert!(server.request().connect().is_ok());
}

#[test]
fn a_connection_sets_timers_of_its_reactor_and_they_outlive_it() {
    let workers = NonZeroUsize::MIN;
    let config = Config { workers, ..Config::default() };
    let server = TestServer::with_config(config, |_| Doorkeeper::default());
    let (ann, bob) = (server.connect(""), server.connect(""));
    ann.send_text("set it");
    ann.disconnect();
    server.advance(SECOND);
    assert_eq!(bob.text(), "timer 9");
    bob.send_text("set it");
    bob.send_text("cancel");
    server.advance(SECOND);
    assert_eq!(bob.receive(), None);
}

#[test]
#[should_panic(expected = "reactor 2 of 2")]
fn a_look_at_the_application_of_a_reactor_that_is_not_there() {
    TestServer::new(|_| Echo).application(2, |_| ());
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
    type Connection = ();

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
    assert_eq!(client.header("X-Count"), Some(count));
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
        assert_eq!(client.header("X-Hello"), Some(expected));
        assert_eq!((client.header("X-Session-Count"), client.receive()), (None, None));
    }
}

// --- plain requests, and metrics of the application's ----------------------------------------

/// Takes orders, and tells everyone who listens.
#[derive(Default)]
struct Shop {
    metrics: Option<(CounterMetric, GaugeMetric)>,
    faults: Rc<RefCell<Vec<InvalidMetric>>>,
}

impl Application for Shop {
    type Session = ();
    type Connection = ();
    const READS_BODIES: bool = true;

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        let taken = cx.counter("shop_orders_total", "Orders taken.").unwrap();
        self.metrics = Some((taken, cx.gauge("shop_last_bytes", "Length of the last.").unwrap()));
        let faults = [
            cx.gauge("shop_orders_total", "Orders taken.").err(),
            cx.counter("shop_orders", "Orders taken.").err(),
            cx.gauge("revolve_orders", "Orders taken.").err(),
            cx.gauge("shop orders", "Orders taken.").err(),
        ];
        self.faults.borrow_mut().extend(faults.into_iter().flatten());
    }

    fn on_request(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        match (request.method(), request.path()) {
            ("POST", "/orders") => {
                let Some(order) = request.body_text() else {
                    return Ok(HttpResponse::json_error::<400>("an order is a \"text\""));
                };
                let (taken, last) = self.metrics.as_ref().unwrap();
                taken.add(1);
                last.set(order.len() as i64);
                let note = request.parameter("note").unwrap_or_default();
                cx.broadcast_text(&format!("{order} ({note})"));
                let by = request.peer().to_string();
                Ok(HttpResponse::json::<201>(r#"{"taken": true}"#).header("X-By", &by)?)
            }
            ("GET" | "HEAD", "/orders") => Ok(HttpResponse::text::<200>("none left")),
            ("GET", "/image") => Ok(HttpResponse::bytes::<200>("image/png", &b"\x89PNG\xff"[..])?),
            _ => Err(NoResponse::NotFound),
        }
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

#[test]
fn plain_requests_are_answered_without_sockets() {
    let server = TestServer::new(|_| Shop::default());
    let clients = [server.connect("session_id=a"), server.connect("session_id=b")];
    let order = |body: &[u8]| {
        let request = server.http_request("POST", "/orders?note=no%20ice").body(body);
        request.header("Expect", "100-continue").peer("192.0.2.7:80".parse().unwrap()).send()
    };
    let taken = order(b"two teas");
    assert_eq!((taken.status, taken.text()), (201, r#"{"taken": true}"#));
    assert_eq!(taken.header("x-by"), Some("192.0.2.7:80"));
    for client in &clients {
        assert_eq!(client.text(), "two teas (no ice)", "whichever reactor it is on");
    }
    let wrong = order(b"\xff");
    assert_eq!((wrong.status, wrong.text()), (400, r#"{"error": "an order is a \"text\""}"#));
    assert_eq!(wrong.header("Content-Type"), Some("application/json"));
    assert_eq!(order(&[b'x'; 32 << 10]).status, 201);
    assert_eq!(order(&[b'x'; (32 << 10) + 1]).status, 413);
    let image = server.http_request("GET", "/image").send();
    assert_eq!(
        (image.body.as_slice(), image.header("date").is_some()),
        (&b"\x89PNG\xff"[..], true)
    );
    let head = server.http_request("HEAD", "/orders").send();
    assert_eq!((head.header("content-length"), head.body.len()), (Some("9"), 0));
    let nothing = server.http_request("GET", "/nothing").send();
    assert_eq!((nothing.status, nothing.text()), (404, "no such path\n"));
    // A connection of its own for each, and none is left.
    assert!(server.metrics().contains("\nrevolve_connections{reactor=\"0\"} 1\n"));
}

#[test]
fn metrics_of_the_application_stand_behind_the_servers() {
    let faults = Rc::<RefCell<Vec<InvalidMetric>>>::default();
    let copy = faults.clone();
    let server = TestServer::new(move |_| Shop { metrics: None, faults: copy.clone() });
    for _ in 0..5 {
        server.http_request("POST", "/orders").body("tea").send();
    }
    let page = server.metrics();
    let (_, own) = page.split_once("# HELP shop_last_bytes ").unwrap();
    let expected = "Length of the last.\n# TYPE shop_last_bytes gauge\n\
                    shop_last_bytes{reactor=\"0\"} 3\nshop_last_bytes{reactor=\"1\"} 3\n\
                    # HELP shop_orders_total Orders taken.\n# TYPE shop_orders_total counter\n\
                    shop_orders_total{reactor=\"0\"} 3\nshop_orders_total{reactor=\"1\"} 2\n";
    assert_eq!(own, expected);
    let scraped = server.http_request("GET", "/metrics").send();
    assert!(scraped.text().ends_with(expected), "{}", scraped.text());
    let expected = [
        InvalidMetric::Conflict("shop_orders_total"),
        InvalidMetric::Suffix("shop_orders"),
        InvalidMetric::Reserved("revolve_orders"),
        InvalidMetric::Name("shop orders"),
    ];
    assert_eq!(*faults.borrow(), [expected, expected].concat(), "on each reactor");
}

#[test]
fn a_request_must_fit_into_the_receive_buffer() {
    let limits = Limits { request_body_bytes: (48 << 10) + 65, ..Limits::default() };
    let error = Config { limits, ..Config::default() }.validate().unwrap_err();
    assert_eq!(error.option, "limits.request_body_bytes");
    let limits = Limits { request_body_bytes: (48 << 10) + 64, ..Limits::default() };
    assert_eq!(Config { limits, ..Config::default() }.validate(), Ok(()));
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
    type Connection = ();

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
    assert_eq!(client.header("Sec-WebSocket-Protocol"), Some("lookup.v1"));
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
    assert_eq!(client.receive(), closed(1001, "server is going away"));
    let told = CloseReason { code: 1001, side: Side::Server };
    assert_eq!(*diary.borrow(), [format!("{told:?}")], "`on_close` is called all the same");
}

/// Off-loads in each way, and gives commands where they can do nothing any more.
struct Errands {
    seen: Rc<RefCell<Vec<String>>>,
}

impl Application for Errands {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let word = text.to_owned();
        let job = move |cancellation: &Cancellation| (word, cancellation.is_requested());
        let done =
            |_: &mut Self, cx: &mut Context<'_, Self>, (word, is_cancelled): (String, bool)| {
                assert!(!is_cancelled, "there is somebody");
                cx.send_text(&word);
            };
        let taken = match text {
            "close" => {
                cx.close(1000, "");
                let set = cx.set_timer(SECOND, 1);
                return self.seen.borrow_mut().push(format!("{set:?}"));
            }
            loose if loose.starts_with("loose") => cx.offload_unordered(job, done),
            _ => cx.offload_cancellable(job, done),
        };
        if let Err(error) = taken {
            cx.send_text(&error.to_string());
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
        cx.close(1000, "nobody hears it");
        cx.send_text("nor this");
        let set = cx.set_timer(SECOND, 1);
        self.seen.borrow_mut().push(format!("{set:?}"));
    }

    fn on_timer(&mut self, _: &mut Context<'_, Self>, _: u64) {
        panic!("it was an error");
    }
}

fn errands(config: Config) -> (TestServer<Errands>, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::<RefCell<Vec<String>>>::default();
    let config = Config { workers: NonZeroUsize::MIN, ..config };
    let server = TestServer::with_config(config, |_| Errands { seen: seen.clone() });
    (server, seen)
}

#[test]
fn a_timer_that_cannot_fire_is_an_error() {
    let (server, seen) = errands(Config::default());
    let client = server.connect("");
    client.send_text("close");
    assert_eq!(client.receive(), closed(1000, ""));
    server.connect("").disconnect();
    server.advance(60 * SECOND);
    assert_eq!(*seen.borrow(), ["Err(Closed)"; 3]);
    let text = SetTimerError::Closed.to_string();
    assert_eq!(text, "the WebSocket is closed: no timer of its can fire");
    let many = SetTimerError::TooMany(TooManyTimers { most: 3 }).to_string();
    assert!(many.starts_with("3 timers are set already"), "{many}");
}

#[test]
fn held_jobs_are_run_in_any_order_and_answered_as_they_were_asked_for() {
    let (server, _) = errands(Config::default());
    server.hold_jobs();
    let client = server.connect("");
    for word in ["a", "loose b", "c", "loose d"] {
        client.send_text(word);
    }
    for index in [3, 2, 1] {
        server.run_job(index);
    }
    let loose = [client.text(), client.text()];
    assert_eq!((loose, client.receive()), (["loose d".to_owned(), "loose b".to_owned()], None));
    server.run_job(0);
    assert_eq!([client.text(), client.text()], ["a", "c"]);
}

#[test]
fn a_held_job_of_one_that_has_left_is_given_up_in_time() {
    let limits = Limits { offloads_per_reactor: 1, ..Limits::default() };
    let (server, _) = errands(Config { limits, ..Config::default() });
    server.hold_jobs();
    let (leaver, other) = (server.connect(""), server.connect(""));
    leaver.send_text("a");
    leaver.disconnect();
    other.send_text("b");
    assert_eq!(other.text(), "1 off-loaded jobs are under way already: try again later");
    server.advance(5 * Limits::default().offload_orphan_timeout / 4);
    assert!(server.metrics().contains("\nrevolve_offloads_stuck 1\n"));
    other.send_text("b");
    assert_eq!(server.held_jobs(), 2, "the one that was given up has not returned");
    for _ in 0..2 {
        server.run_job(0);
    }
    assert_eq!(other.text(), "b");
    assert!(server.metrics().contains("\nrevolve_offloads_stuck 0\n"));
}

/// Closes with whatever code it is told, and speaks a subprotocol that nobody has offered.
struct Careless;

impl Application for Careless {
    type Session = ();
    type Connection = ();

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
        client.ok().and_then(|client| client.header("Sec-WebSocket-Protocol").map(str::to_owned))
    };
    assert_eq!(spoken("chat").as_deref(), Some("chat"));
    // tungstenite refuses a 101 without a subprotocol that it has asked for.
    assert_eq!(spoken("mqtt"), None);
}

/// Sets a timer of its own with no time at all, again and again.
struct Hasty(Rc<Cell<u64>>);

impl Application for Hasty {
    type Session = ();
    type Connection = ();

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

// --- sessions that outlive a server ---

fn counter_with(store: &TestStore, config: Config) -> TestServer<Counter> {
    TestServer::with_store(config, store, |_| Counter::new(None))
}

fn count(number: u64) -> String {
    format!("{{\"count\": {number}}}")
}

#[test]
fn a_store_that_does_not_answer_ends_the_server_and_nobody_is_told() {
    let store = TestStore::new();
    let server = counter_with(&store, Config::default());
    let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
    ann.send_text("hello");
    assert_eq!(ann.text(), count(1));
    server.hold_store();
    ann.send_text("hello again");
    server.advance(29 * SECOND);
    // Who waits for nothing is served.
    assert!(!server.has_ended() && server.connect("session_id=cyd").receive().is_none());
    server.advance(2 * SECOND);
    assert!(server.has_ended());
    for client in [ann, bob] {
        let end = client.receive();
        assert!(matches!(end, Some(Received::Closed { .. })), "{end:?}");
    }
    assert_eq!(store.count("ann"), Some(1));
}

#[test]
fn a_drain_waits_until_all_is_stored() {
    let store = TestStore::new();
    let server = counter_with(&store, Config::default());
    let ann = server.connect("session_id=ann");
    server.hold_store();
    ann.send_text("hello");
    server.shut_down();
    server.advance(SECOND);
    assert!(!server.has_ended());
    server.release_store();
    server.advance(SECOND);
    assert!(server.has_ended());
    assert_eq!(ann.text(), count(1));
    assert_eq!(
        (ann.receive(), store.count("ann")),
        (closed(1001, "server is going away"), Some(1))
    );
}

#[test]
fn what_does_not_wait_is_stored_with_the_drain_however_slow_the_store_is() {
    let store = TestStore::new();
    let store_sync = StoreSync::Every(SECOND);
    let server = counter_with(&store, Config { store_sync, ..Config::default() });
    let ann = server.connect("session_id=ann");
    server.hold_store();
    for number in 1..=3 {
        ann.send_text("hello");
        assert_eq!(ann.text(), count(number));
    }
    server.shut_down();
    // Its time is up, and what is not stored is sent with the end.
    server.advance(11 * SECOND);
    assert!(server.has_ended());
    server.release_store();
    assert_eq!(store.count("ann"), Some(3));
}

#[test]
fn a_session_has_the_rest_of_its_time_after_a_restart() {
    let session_ttl = 100 * SECOND;
    let config = || Config { session_ttl, ..Config::default() };
    let store = TestStore::new();
    let server = counter_with(&store, config());
    for name in ["ann", "bob"] {
        let client = server.connect(&format!("session_id={name}"));
        client.send_text("hello");
        assert_eq!(client.text(), count(1));
        client.disconnect();
        server.advance(40 * SECOND);
    }
    server.crash();
    // Ann left 80 s ago, and Bob 40.
    let server = counter_with(&store, config());
    server.advance(30 * SECOND);
    let next = |name: &str| {
        let client = server.connect(&format!("session_id={name}"));
        client.send_text("hello");
        client.text()
    };
    assert_eq!((next("ann"), next("bob")), (count(1), count(2)));
    // Those who are there when it ends are as if they had left at the next start.
    server.crash();
    store.advance(1000 * SECOND);
    let server = counter_with(&store, config());
    server.advance(99 * SECOND);
    let client = server.connect("session_id=bob");
    client.send_text("hello");
    assert_eq!(client.text(), count(3));
}

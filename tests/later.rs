//! Answers that come later, from a thread or from another reactor; jobs that are taken back; and what is
//! done at the very end. With the test kit.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use revolve::testing::{Received, TestServer};
use revolve::{
    Acceptance, Application, CloseReason, Config, ConnectionId, Context, EndedSession, HttpRequest,
    HttpResponse, JobHandle, Limits, Message, NoResponse, ReactorContext, Refusal, SessionEnd,
    Upgrade,
};

const REACTORS: usize = 3;

fn config() -> Config {
    Config { workers: NonZeroUsize::new(REACTORS).unwrap(), ..Config::default() }
}

fn metric(server: &TestServer<impl Application>, name: &str) -> u64 {
    let page = server.metrics();
    let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// A house with seats, which reactor 0 counts.
#[derive(Default)]
struct House {
    taken: u64,
    kept: Option<NoResponse>,
}

impl House {
    /// Adds up what each reactor has, from this one on.
    fn sum_from(
        cx: &mut ReactorContext<'_, Self>,
        reactor: usize,
        sum: u64,
    ) -> Result<HttpResponse, NoResponse> {
        if reactor == cx.reactors() {
            return Ok(HttpResponse::text::<200>(sum.to_string()));
        }
        cx.ask_to_respond(
            reactor,
            move |house, cx| {
                assert_eq!(cx.reactor(), reactor);
                house.taken
            },
            move |_, cx, _, taken| House::sum_from(cx, reactor + 1, sum + taken),
        )
    }
}

impl Application for House {
    type Session = ();
    type Connection = ();
    const READS_BODIES: bool = true;

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let wish = upgrade.parameter("wish").unwrap_or_default().into_owned();
        let reactor = if wish == "nobody" { upgrade.reactors() } else { 0 };
        let here = upgrade.reactor();
        upgrade.ask(
            reactor,
            move |house, cx| {
                assert_eq!(cx.reactor(), 0);
                assert_ne!(wish, "panic", "as planned");
                house.taken += 1;
                house.taken
            },
            move |_, upgrade, number| {
                assert_eq!(upgrade.reactor(), here);
                match number {
                    1..=2 => Ok(upgrade.accept().header("X-Seat", &number.to_string())?),
                    _ => Err(Refusal::new::<503>("no seat")),
                }
            },
        )
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        cx.post_all(|house, _| house.taken += 10);
    }

    fn on_request(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        match request.path() {
            "/sum" => House::sum_from(cx, 0, 0),
            "/length" => {
                let length = request.body().len();
                cx.respond_later(
                    move || length,
                    |_, _, request, length| {
                        assert_eq!(request.body().len(), length, "the same request");
                        Ok(HttpResponse::text::<200>(length.to_string()))
                    },
                )
            }
            "/nothing" => cx.respond_later(|| (), |_, _, _, ()| Err(NoResponse::NotFound)),
            "/panic" => cx.respond_later(|| panic!("as planned"), |_, _, _, ()| unreachable!()),
            "/bad/question" => {
                cx.ask_to_respond(1, |_, _| panic!("as planned"), |_, _, _, ()| unreachable!())
            }
            "/bad/reactor" => cx.ask_to_respond(9, |_, _| (), |_, _, _, ()| unreachable!()),
            "/changed/mind" => {
                let later = cx.respond_later(|| (), |_, _, _, ()| unreachable!());
                self.kept = later.err();
                Ok(HttpResponse::text::<200>("now"))
            }
            // What only a context can make is kept, and used for another request.
            "/kept" => Err(self.kept.unwrap()),
            _ => Err(NoResponse::NotFound),
        }
    }
}

#[test]
fn an_upgrade_is_decided_by_what_another_reactor_knows() {
    let server = TestServer::with_config(config(), |_| House::default());
    for (at, seat) in [(0, Some("1")), (2, Some("2")), (1, None)] {
        let answer = server.request().reactor(at).connect();
        match (answer, seat) {
            (Ok(client), Some(seat)) => assert_eq!(client.header("X-Seat"), Some(seat)),
            (Err(refused), None) => assert_eq!(refused.status, 503),
            (answer, seat) => panic!("{answer:?} instead of {seat:?}"),
        }
    }
    assert_eq!(server.application(0, |house| house.taken), 3);
    assert_eq!(metric(&server, "revolve_offloads_under_way"), 0);
}

#[test]
fn a_question_that_panics_costs_its_request_and_is_counted_once() {
    let server = TestServer::with_config(config(), |_| House::default());
    let witness = server.connect("");
    for (count, wish) in [(1, "panic"), (2, "nobody")] {
        let refused = server.request().query(&format!("wish={wish}")).connect().unwrap_err();
        assert_eq!((refused.status, metric(&server, "revolve_panics_total")), (500, count));
    }
    assert_eq!(server.application(0, |house| house.taken), 1);
    assert!(server.connect("").receive().is_none() && witness.receive().is_none());
}

#[test]
fn a_plain_request_is_answered_by_threads_and_by_all_reactors() {
    let server = TestServer::with_config(config(), |_| House::default());
    server.connect("").send_text("ten more everywhere");
    let get = |path: &str| server.http_request("GET", path);
    for reactor in 0..REACTORS {
        assert_eq!(get("/sum").reactor(reactor).send().text(), "31");
    }
    let response = server.http_request("POST", "/length").body("a body").send();
    assert_eq!((response.status, response.text()), (200, "6"));
    let response = server.http_request("HEAD", "/sum").send();
    let length = response.header("content-length");
    assert_eq!((response.status, length, response.body.len()), (200, Some("2"), 0));
    assert_eq!(get("/nothing").send().status, 404);
    assert_eq!(metric(&server, "revolve_panics_total"), 0);
    for path in ["/panic", "/bad/question", "/bad/reactor"] {
        let before = metric(&server, "revolve_panics_total");
        let status = get(path).send().status;
        let panics = metric(&server, "revolve_panics_total") - before;
        assert_eq!((status, panics), (500, 1), "{path}");
    }
    let mind = get("/changed/mind").reactor(1).send();
    assert_eq!((mind.status, mind.text()), (200, "now"));
    assert_eq!(get("/kept").reactor(1).send().status, 500, "no response follows");
    assert_eq!(metric(&server, "revolve_offloads_under_way"), 0);
}

#[test]
fn a_response_that_cannot_come_is_an_answer_too() {
    let limits = Limits { offloads_per_reactor: 1, ..Limits::default() };
    let server = TestServer::with_config(Config { limits, ..config() }, |_| House::default());
    server.hold_jobs();
    let busy = server.http_request("POST", "/length").body("a").reactor(1).begin();
    assert!(!busy.is_answered());
    let refused = server.http_request("POST", "/length").body("a").reactor(1).send();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    // Its client leaves: the job is told, and its slot is given back when it returns.
    busy.disconnect();
    server.run_job(0);
    let late = server.http_request("POST", "/length").body("a").reactor(1).begin();
    assert!(!late.is_answered());
    server.advance(config().timeout_handshake + Duration::from_secs(1));
    assert_eq!(late.answer().status, 503);
    server.run_job(0);
    assert_eq!(metric(&server, "revolve_offloads_under_way"), 0);
    let drained = server.http_request("POST", "/length").body("a").begin();
    server.shut_down();
    assert_eq!(drained.answer().status, 503);
    server.advance(Duration::from_secs(1));
    assert!(server.has_ended(), "nobody waits for that job");
}

/// Off-loads what it is told, and takes it back.
struct Desk {
    ran: Arc<AtomicU64>,
    handles: Rc<RefCell<Vec<JobHandle>>>,
}

impl Application for Desk {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        if let Some(at) = text.strip_prefix("not ") {
            let handle = self.handles.borrow()[at.parse::<usize>().unwrap()];
            let was_awaited = cx.cancel_job(handle);
            return cx.send_text(&was_awaited.to_string());
        }
        let (word, ran) = (text.to_owned(), self.ran.clone());
        let job = move || {
            ran.fetch_add(1, Ordering::Relaxed);
            word
        };
        let taken = cx.offload(job, |_, cx, word| cx.send_text(&word)).unwrap();
        self.handles.borrow_mut().push(taken);
        if text == "and not" {
            assert!(cx.cancel_job(taken));
        }
    }
}

fn desk(limits: Limits) -> (TestServer<Desk>, Arc<AtomicU64>) {
    let (ran, handles) = (Arc::new(AtomicU64::new(0)), Rc::default());
    let config = Config { workers: NonZeroUsize::MIN, limits, ..Config::default() };
    let make = |_| Desk { ran: ran.clone(), handles: Rc::clone(&handles) };
    (TestServer::with_config(config, make), ran.clone())
}

fn text(text: &str) -> Option<Received> {
    Some(Received::Text(text.to_owned()))
}

#[test]
fn who_waits_behind_a_job_that_is_taken_back_waits_no_more() {
    let (server, _) = desk(Limits::default());
    server.hold_jobs();
    let client = server.connect("");
    for word in ["a", "b", "c"] {
        client.send_text(word);
    }
    server.run_job(1);
    assert_eq!(client.receive(), None, "a is under way");
    client.send_text("not 0");
    assert_eq!((client.text(), client.text()), ("true".to_owned(), "b".to_owned()));
    // Once is enough, and what has been answered cannot be taken back.
    for at in [0, 1] {
        client.send_text(&format!("not {at}"));
        assert_eq!(client.text(), "false");
    }
    // Nor can another client take it back.
    let other = server.connect("");
    other.send_text("not 2");
    assert_eq!(other.text(), "false");
    (0..server.held_jobs()).for_each(|_| server.run_job(0));
    assert_eq!((client.receive(), client.receive()), (text("c"), None));
    // The slot of the first one has a new tenant by now: the old handle does not name it.
    client.send_text("d");
    client.send_text("not 0");
    assert_eq!(client.text(), "false");
    server.run_job(0);
    assert_eq!(client.receive(), text("d"));
    assert_eq!(metric(&server, "revolve_offloads_under_way"), 0);
}

#[test]
fn a_job_that_is_taken_back_at_once_never_runs() {
    let (server, ran) = desk(Limits::default());
    let client = server.connect("");
    client.send_text("and not");
    client.send_text("other");
    assert_eq!((client.receive(), client.receive()), (text("other"), None));
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn a_job_that_is_taken_back_frees_its_place_for_the_next_one() {
    let limits = Limits { offloads_per_connection: 2, ..Limits::default() };
    let (server, ran) = desk(limits);
    server.hold_jobs();
    let client = server.connect("");
    client.send_text("a");
    client.send_text("not 0");
    for word in ["b", "c"] {
        client.send_text(word);
    }
    assert_eq!((client.receive(), server.held_jobs()), (text("true"), 3));
    // With two under way it is not read.
    client.send_text("not 1");
    assert_eq!(client.receive(), None);
    server.run_job(2);
    server.run_job(1);
    assert_eq!([client.text(), client.text(), client.text()], ["b", "c", "false"]);
    // The first one runs to its end, for nobody; a drain would not wait for it.
    server.shut_down();
    server.advance(Duration::from_secs(1));
    assert!(server.has_ended());
    server.run_job(0);
    assert_eq!(ran.load(Ordering::Relaxed), 3);
}

/// Off-loads for its reactor, and takes back all but the last.
#[derive(Default)]
struct Poll {
    last: Option<JobHandle>,
    answered: Vec<u64>,
}

impl Application for Poll {
    type Session = ();
    type Connection = ();

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        for number in 0..3 {
            if let Some(former) = self.last.take() {
                assert!(cx.cancel_job(former));
                assert!(!cx.cancel_job(former));
            }
            let job = move || number;
            self.last = cx.offload(job, |poll, _, number| poll.answered.push(number)).ok();
        }
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

#[test]
fn a_reactor_takes_its_jobs_back_too() {
    let server = TestServer::new(|_| Poll::default());
    server.advance(Duration::from_secs(1));
    assert_eq!(server.application(1, |poll| poll.answered.clone()), [2]);
}

/// Keeps in a store what sessions have said.
#[derive(Clone, Default)]
struct Archive {
    stored: Rc<RefCell<Vec<(String, SessionEnd)>>>,
}

impl Application for Archive {
    type Session = String;
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text("who") => {
                let name = cx.connection_id().to_string();
                cx.send_text(&name);
            }
            Message::Text(name) if name.contains('/') => {
                let to: ConnectionId = name.parse().unwrap();
                cx.close_other(to, 4000, "go");
            }
            Message::Text(text) => cx.session_mut().push_str(text),
            Message::Binary(_) => {}
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
        cx.session_mut().push('.');
    }

    fn on_session_end(&mut self, cx: &mut ReactorContext<'_, Self>, session: EndedSession<String>) {
        let reason = session.reason();
        let state = session.into_state();
        let stored =
            cx.offload(move || state, move |archive, _, state| archive.store(state, reason));
        stored.unwrap();
    }
}

impl Archive {
    fn store(&mut self, state: String, reason: SessionEnd) {
        self.stored.borrow_mut().push((state, reason));
    }
}

#[test]
fn sessions_that_are_left_end_with_the_server_which_waits_for_what_that_off_loads() {
    let archive = Archive::default();
    let server = TestServer::with_config(config(), |_| archive.clone());
    let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
    ann.send_text("a");
    bob.send_text("b");
    ann.close(1000, "");
    server.hold_jobs();
    server.shut_down();
    server.advance(Duration::from_secs(1));
    assert_eq!((bob.close_code(), server.held_jobs()), (Some(1001), 2));
    assert!(!server.has_ended(), "it waits for the store");
    (0..2).for_each(|_| server.run_job(0));
    server.advance(Duration::from_secs(1));
    assert!(server.has_ended());
    let mut stored = archive.stored.borrow().clone();
    stored.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = ["a.", "b."].map(|text| (text.to_owned(), SessionEnd::ServerEnded));
    assert_eq!(stored, expected);
}

#[test]
fn a_drain_that_has_no_time_left_ends_the_sessions_all_the_same() {
    let archive = Archive::default();
    let timeout_graceful_shutdown = Duration::from_secs(1);
    let config = Config { timeout_graceful_shutdown, ..config() };
    let server = TestServer::with_config(config, |_| archive.clone());
    let client = server.connect("");
    client.send_text("a");
    client.stop_reading();
    server.shut_down();
    server.advance(2 * timeout_graceful_shutdown);
    assert!(server.has_ended());
    assert_eq!(archive.stored.borrow().len(), 0, "nobody is told what it off-loaded");
    assert_eq!(metric(&server, "revolve_sessions_detached"), 0);
}

#[test]
fn a_connection_is_named_on_a_page_and_reached_by_that_name() {
    let server = TestServer::with_config(config(), |_| Archive::default());
    let (ann, bob) = (server.request().reactor(2).connect().unwrap(), server.connect(""));
    ann.send_text("who");
    let name = ann.text();
    assert!(name.starts_with("2/"), "{name}: it was accepted there");
    assert_eq!(ann.close_code(), None);
    bob.send_text(&name);
    assert_eq!((ann.close_code(), bob.close_code()), (Some(4000), None));
}

/// Says what it has to say at the end, in every way that there is.
struct Farewell;

impl Application for Farewell {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        cx.broadcast_text("news");
        cx.shut_down();
    }

    fn on_drain(&mut self, cx: &mut ReactorContext<'_, Self>) {
        cx.send_text_to_all("first");
        cx.broadcast_text(&format!("second, says {}", cx.reactor()));
        cx.send_text_to_all("third");
    }
}

#[test]
fn all_that_is_said_at_the_beginning_of_a_drain_comes_before_the_goodbye() {
    for reactors in [1, 2, 3] {
        let workers = NonZeroUsize::new(reactors).unwrap();
        let config = Config { workers, ..Config::default() };
        let server = TestServer::with_config(config, |_| Farewell);
        let clients: Vec<_> =
            (0..reactors).map(|at| server.request().reactor(at).connect().unwrap()).collect();
        clients[0].send_text("end");
        for client in &clients {
            let mut heard: Vec<String> = Vec::new();
            while let Some(Received::Text(text)) = client.receive() {
                heard.push(text);
            }
            let mut expected = vec!["first".to_owned(), "news".to_owned(), "third".to_owned()];
            expected.extend((0..reactors).map(|reactor| format!("second, says {reactor}")));
            heard.sort();
            expected.sort();
            assert_eq!(heard, expected, "{reactors} reactors");
        }
        server.advance(Duration::from_secs(1));
        assert!(server.has_ended());
    }
}

/// Never decides.
struct Undecided;

impl Undecided {
    fn again(upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        upgrade.defer(|| (), |_, upgrade, ()| Undecided::again(upgrade))
    }
}

impl Application for Undecided {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        Undecided::again(upgrade)
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

#[test]
fn an_answer_that_asks_once_more_and_once_more_is_late_as_any_other() {
    let server = TestServer::with_config(config(), |_| Undecided);
    server.hold_jobs();
    let upgrade = server.request().begin();
    let mut seconds = 0;
    while !upgrade.is_answered() {
        server.advance(Duration::from_secs(1));
        (0..server.held_jobs()).for_each(|_| server.run_job(0));
        seconds += 1;
        assert!(seconds <= config().timeout_handshake.as_secs() + 1, "for ever");
    }
    assert_eq!(upgrade.answer().unwrap_err().status, 503);
    assert_eq!(metric(&server, "revolve_offloads_under_way"), 0);
}

/// Notes which of its callbacks are called; `then` panics, or `on_open`.
#[derive(Clone, Default)]
struct Fragile(Rc<RefCell<Vec<&'static str>>>);

impl Application for Fragile {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let panics = upgrade.parameter("then").is_some();
        let accepted = upgrade.accept().then(move |_, _| assert!(!panics, "as planned"));
        Ok(accepted.otherwise(|fragile, _| fragile.0.borrow_mut().push("otherwise")))
    }

    fn on_open(&mut self, _: &mut Context<'_, Self>) {
        self.0.borrow_mut().push("open");
        panic!("as planned");
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}

    fn on_close(&mut self, _: &mut Context<'_, Self>, _: CloseReason) {
        self.0.borrow_mut().push("close");
    }

    fn on_session_end(&mut self, _: &mut ReactorContext<'_, Self>, _: EndedSession<()>) {
        self.0.borrow_mut().push("end");
    }
}

#[test]
fn one_that_panics_before_its_on_open_has_no_on_close() {
    for (query, called) in
        [("then=1", vec!["end", "otherwise"]), ("", vec!["open", "close", "end"])]
    {
        let fragile = Fragile::default();
        let server = TestServer::with_config(config(), |_| fragile.clone());
        let client = server.connect(query);
        assert_eq!(client.close_code(), Some(1011));
        assert_eq!(*fragile.0.borrow(), called, "{query}");
        assert_eq!(metric(&server, "revolve_panics_total"), 1);
        assert_eq!(metric(&server, "revolve_websockets"), 0);
    }
}

#[test]
fn a_client_with_a_small_buffer_connects_and_one_message_may_be_long() {
    let server = TestServer::with_config(config(), |_| revolve::Echo);
    assert_eq!(server.request().receive_buffer(100).connect().unwrap().receive(), None);
    let config = Config { ws_max_size: 40 << 20, ..config() };
    let server = TestServer::with_config(config, |_| revolve::Echo);
    let client = server.connect("");
    client.send_binary(&vec![7; 20 << 20]);
    assert!(matches!(client.receive(), Some(Received::Binary(bytes)) if bytes.len() == 20 << 20));
}

/// Reactor 0 counts seats; each upgrade takes one there, and what becomes of it is noted.
#[derive(Default)]
struct Theatre {
    seats: u64,
    given_back: Vec<u64>,
}

impl Theatre {
    fn decide(upgrade: &Upgrade<'_, Self>, seat: u64) -> Result<Acceptance<Self>, Refusal> {
        match upgrade.parameter("wish").as_deref() {
            Some("no") => Err(Refusal::new::<403>("as you wish")),
            Some("panic") => panic!("as planned"),
            Some("panic later") => Ok(upgrade.accept().then(|_, _| panic!("as planned"))),
            Some("both") => Ok(upgrade.accept().otherwise(|_, _| panic!("as planned"))),
            Some("wait") => upgrade.defer(|| (), |_, upgrade, ()| Ok(upgrade.accept())),
            Some("twice") => upgrade.ask_with_undo(
                0,
                |theatre, _| theatre.take(),
                |theatre, _, seat| theatre.given_back.push(seat),
                |_, _, _| Err(Refusal::new::<403>("neither")),
            ),
            _ => Ok(upgrade.accept().header("X-Seat", &seat.to_string())?),
        }
    }

    fn take(&mut self) -> u64 {
        self.seats += 1;
        self.seats
    }
}

impl Application for Theatre {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let panics = upgrade.parameter("wish").as_deref() == Some("panic there");
        upgrade.ask_with_undo(
            0,
            move |theatre, _| {
                assert!(!panics, "as planned");
                theatre.take()
            },
            |theatre, cx, seat| {
                assert_eq!(cx.reactor(), 0);
                theatre.given_back.push(seat);
            },
            |_, upgrade, seat| Theatre::decide(upgrade, seat),
        )
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

/// A theatre in which one client sits already, of two that the server has room for.
fn theatre() -> TestServer<Theatre> {
    let limit_concurrency = NonZeroUsize::new(2);
    let server =
        TestServer::with_config(Config { limit_concurrency, ..config() }, |_| Theatre::default());
    server.hold_jobs();
    assert_eq!(server.connect("session_id=first").header("X-Seat"), Some("1"));
    server
}

fn given_back(server: &TestServer<Theatre>) -> Vec<u64> {
    server.application(0, |theatre| theatre.given_back.clone())
}

#[test]
fn what_a_question_took_is_given_back_unless_the_websocket_opens() {
    for (wish, status, seats) in [
        ("", 101, vec![]),
        ("no", 403, vec![2]),
        ("twice", 403, vec![2, 3]),
        ("panic", 500, vec![2]),
        ("panic%20later", 101, vec![2]),
        // What panicked has taken nothing, as far as anybody knows.
        ("panic%20there", 500, vec![]),
    ] {
        for reactor in 0..REACTORS {
            let server = theatre();
            let request = server.request().query(&format!("wish={wish}")).reactor(reactor);
            let answer = request.connect();
            let told = answer.as_ref().map_or_else(|refused| refused.status, |_| 101);
            assert_eq!((told, given_back(&server)), (status, seats.clone()), "{wish}");
            drop(answer);
            server.shut_down();
            assert_eq!(given_back(&server), seats, "once, and not at the end");
        }
    }
}

#[test]
fn it_is_given_back_when_the_server_has_no_room_and_whatever_otherwise_does() {
    for wish in ["", "both"] {
        let server = theatre();
        let second = server.connect("session_id=second");
        let refused = server.request().query(&format!("wish={wish}")).connect().unwrap_err();
        assert_eq!((refused.status, given_back(&server)), (503, vec![3]));
        second.disconnect();
    }
}

#[test]
fn it_is_given_back_when_the_client_leaves_or_the_answer_is_late_or_overtaken() {
    let waiting = |server: &TestServer<Theatre>| {
        let upgrade = server.request().query("session_id=a&wish=wait").begin();
        assert_eq!((server.held_jobs(), upgrade.is_answered()), (1, false));
        assert_eq!(given_back(server), []);
        upgrade
    };
    let server = theatre();
    waiting(&server).disconnect();
    assert_eq!(given_back(&server), [2]);

    let server = theatre();
    let upgrade = waiting(&server);
    server.advance(config().timeout_handshake + Duration::from_secs(1));
    assert_eq!((upgrade.answer().unwrap_err().status, given_back(&server)), (503, vec![2]));

    let server = theatre();
    let upgrade = waiting(&server);
    let newer = server.connect("session_id=a");
    assert_eq!((upgrade.answer().unwrap_err().status, given_back(&server)), (409, vec![2]));
    server.run_job(0);
    assert_eq!((newer.header("X-Seat"), given_back(&server)), (Some("3"), vec![2]));
}

//! What an application sends to a peer that does not take it: bounded wherever it is sent, and told to
//! the application when it has left.
//!
//! On the test kit, so without sockets and without waiting. Real sockets: `tests/server/pressure.rs`; in
//! all orders: `tests/simulation`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use revolve::testing::{ConnectionClosed, Received, TestClient, TestServer};
use revolve::{
    Application, CloseReason, Config, Context, Limits, Message, ReactorContext, Recipient, Side,
};

/// The high-water mark here.
const MARK: usize = 64 << 10;
/// How much a client's socket holds.
const SOCKET: usize = 8 << 10;
/// A message that goes past the cork, and one that collects in it.
const LONG: usize = 40 << 10;
const SHORT: usize = 1000;
/// How much more than the mark and one message may wait: the cork, and room for a short message.
const CORK: usize = CORK_BYTES + 150;
const CORK_BYTES: usize = 4 << 10;

/// Sends what it is asked for, in the way it is asked for, and notes what happens.
#[derive(Default)]
struct Producer {
    notes: Rc<RefCell<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    /// The most that was seen to wait, and what waited at the end of the last callback.
    most: usize,
    last: usize,
    /// What waited when `on_backlog_low` was called.
    low: Vec<usize>,
    closed: Vec<CloseReason>,
    /// What waits in `on_close`.
    at_end: Option<usize>,
}

/// What a session has to send when its backlog is low.
#[derive(Default)]
struct Next(Option<Order>);

/// So many messages of so many bytes.
#[derive(Clone, Copy)]
struct Order {
    count: usize,
    bytes: usize,
}

impl Order {
    fn read(words: &[&str]) -> Order {
        Order { count: words[0].parse().unwrap(), bytes: words[1].parse().unwrap() }
    }
}

impl Producer {
    fn send(&mut self, cx: &mut Context<'_, Self>, order: Order) {
        for number in 0..order.count {
            let mut text = format!("{number:06}");
            text.push_str(&"x".repeat(order.bytes - text.len()));
            match number % 2 {
                0 => cx.send_text(&text),
                _ => cx.send_text_parts([text[..3].into(), text[3..].into()]),
            }
            let mut notes = self.notes.borrow_mut();
            notes.last = cx.waiting_bytes();
            notes.most = notes.most.max(notes.last);
        }
    }
}

impl Application for Producer {
    type Session = Next;
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let words: Vec<&str> = text.split(' ').collect();
        match words[0] {
            "now" => self.send(cx, Order::read(&words[1..])),
            "later" => {
                cx.session_mut().0 = Some(Order::read(&words[1..]));
                cx.set_timer(Duration::from_millis(50), 1).unwrap();
            }
            "elsewhere" => {
                let order = Order::read(&words[1..]);
                cx.offload(|| (), move |producer, cx, ()| producer.send(cx, order)).unwrap();
            }
            // A chain of jobs, each of which sends one message and off-loads the next.
            "chain" => chain(cx, Order::read(&words[1..])),
            "low" => cx.session_mut().0 = Some(Order::read(&words[1..])),
            "close" => {
                self.send(cx, Order { count: 1, bytes: LONG });
                cx.close(4000, "as asked");
                self.send(cx, Order { count: 100, bytes: LONG });
            }
            // Messages to another connection, all of them in one callback.
            "tell" => {
                let Order { count, bytes } = Order::read(&words[1..]);
                let words = "b".repeat(bytes);
                (0..count).for_each(|_| cx.send_text_to(Recipient::session("slow"), &words));
            }
            "all" => cx.broadcast_text(&"b".repeat(words[1].parse().unwrap())),
            _ => cx.send_text(text),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, _key: u64) {
        if let Some(order) = cx.session_mut().0.take() {
            self.send(cx, order);
        }
    }

    fn on_backlog_low(&mut self, cx: &mut Context<'_, Self>) {
        self.notes.borrow_mut().low.push(cx.waiting_bytes());
        if let Some(order) = cx.session_mut().0.take() {
            self.send(cx, order);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        // Goes nowhere, and takes no memory either.
        self.send(cx, Order { count: 1000, bytes: LONG });
        let mut notes = self.notes.borrow_mut();
        notes.at_end = Some(cx.waiting_bytes());
        notes.closed.push(reason);
    }
}

fn chain(cx: &mut Context<'_, Producer>, order: Order) {
    if let Some(count) = order.count.checked_sub(1) {
        let next = move |producer: &mut Producer, cx: &mut Context<'_, Producer>, ()| {
            producer.send(cx, Order { count: 1, bytes: order.bytes });
            chain(cx, Order { count, ..order });
        };
        cx.offload(|| (), next).unwrap();
    }
}

fn config() -> Config {
    let limits = Limits { cork_bytes: CORK_BYTES, ..Limits::default() };
    Config { workers: NonZeroUsize::MIN, max_send_buffer: MARK, limits, ..Config::default() }
}

/// A server, what its application noted, and a bystander.
fn stage() -> (TestServer<Producer>, Rc<RefCell<Notes>>, TestClient<Producer>) {
    stage_with(config())
}

fn stage_with(config: Config) -> (TestServer<Producer>, Rc<RefCell<Notes>>, TestClient<Producer>) {
    let notes = Rc::<RefCell<Notes>>::default();
    let copy = notes.clone();
    let server = TestServer::with_config(config, move |_| Producer { notes: copy.clone() });
    let bystander = server.connect("session_id=bystander");
    (server, notes, bystander)
}

fn narrow(server: &TestServer<Producer>) -> TestClient<Producer> {
    server.request().query("session_id=slow").receive_buffer(SOCKET).connect().unwrap()
}

const SLOW: CloseReason = CloseReason { code: 1008, side: Side::Server };

/// All that a client gets from now on: the numbers of the messages, and how it ended.
fn rest(client: &TestClient<Producer>) -> (Vec<usize>, Option<(u16, String)>) {
    let (mut numbers, mut end) = (Vec::new(), None);
    while let Some(received) = client.receive() {
        assert_eq!(end, None, "something came behind the Close");
        match received {
            Received::Text(text) => numbers.push(text[..6].parse().unwrap()),
            Received::Binary(_) => panic!("not sent"),
            Received::Closed { code, reason } => end = Some((code, reason)),
        }
    }
    (numbers, end)
}

fn slow_consumer() -> Option<(u16, String)> {
    Some((1008, "slow consumer".to_owned()))
}

/// Has a peer that reads nothing sent a hundred times what may wait, and sees to it that it does not.
fn flood(how: &str, count: usize, bytes: usize) {
    let (server, notes, bystander) = stage();
    let slow = narrow(&server);
    slow.stop_reading();
    match how {
        "posted" => post_to_slow(&server, Order { count, bytes }),
        _ => slow.send_text(&format!("{how} {count} {bytes}")),
    }
    server.advance(Duration::from_secs(1));
    let most = notes.borrow().most;
    assert!(most > MARK, "{how} {bytes}: {most}: the mark was reached");
    assert!(most <= MARK + CORK + bytes + 14, "{how} {bytes}: {most} bytes waited");
    assert_eq!(notes.borrow().closed, [SLOW], "{how} {bytes}");
    assert_eq!(notes.borrow().at_end, Some(0), "nothing can be said any more");
    bystander.send_text("still there");
    assert_eq!(bystander.text(), "still there");
    // Its socket's buffer, a beginning of what was sent without a hole, and the Close.
    slow.resume_reading();
    let (numbers, end) = rest(&slow);
    if how != "chain" {
        assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "{how} {bytes}: a hole");
    }
    assert!(numbers.len() < count && numbers.len() * bytes > MARK / 2, "{how} {bytes}");
    assert_eq!(end, slow_consumer(), "{how} {bytes}");
    assert_eq!(slow.try_send_text("hello?"), Err(ConnectionClosed));
    assert_eq!(slow.try_send_binary(b"hello?"), Err(ConnectionClosed));
    server.advance(Duration::from_secs(10));
    assert!(server.metrics().contains("revolve_connections{reactor=\"0\"} 1\n"));
    assert_eq!(notes.borrow().low, Vec::<usize>::new(), "it is not told of a peer that has closed");
}

/// Has another thread's post send.
fn post_to_slow(server: &TestServer<Producer>, order: Order) {
    let post = move |producer: &mut Producer, cx: &mut Context<'_, Producer>| {
        producer.send(cx, order);
    };
    server.remote().post_to(Recipient::session("slow"), post).unwrap();
}

#[test]
fn a_loop_of_replies_is_bounded() {
    flood("now", 1000, LONG);
    flood("now", 10_000, SHORT);
    flood("now", 100_000, 100);
}

#[test]
fn what_a_timer_sends_is_bounded() {
    flood("later", 1000, LONG);
    flood("later", 10_000, SHORT);
    flood("later", 100_000, 100);
}

#[test]
fn what_follows_a_job_is_bounded() {
    flood("elsewhere", 1000, LONG);
    flood("elsewhere", 10_000, SHORT);
    flood("elsewhere", 100_000, 100);
}

#[test]
fn what_a_post_sends_is_bounded() {
    flood("posted", 1000, LONG);
    flood("posted", 10_000, SHORT);
    flood("posted", 100_000, 100);
}

#[test]
fn a_chain_of_jobs_is_bounded() {
    flood("chain", 1000, 200_000);
    flood("chain", 1000, LONG);
    flood("chain", 10_000, SHORT);
}

#[test]
fn a_close_that_was_asked_for_does_not_let_more_be_queued() {
    let (server, notes, _bystander) = stage();
    let slow = narrow(&server);
    slow.stop_reading();
    slow.send_text("close");
    assert!(notes.borrow().most <= MARK + CORK + LONG + 14, "{}", notes.borrow().most);
    assert_eq!(notes.borrow().closed, [SLOW]);
    slow.resume_reading();
    assert_eq!(rest(&slow).1, slow_consumer());
}

#[test]
fn one_message_of_any_size_is_nobodys_fault() {
    for how in ["now", "later", "elsewhere"] {
        let (server, notes, _bystander) = stage();
        let slow = narrow(&server);
        slow.stop_reading();
        slow.send_text(&format!("{how} 1 {}", 10 * MARK));
        server.advance(Duration::from_millis(100));
        assert!(notes.borrow().last > 9 * MARK && notes.borrow().closed.is_empty(), "{how}");
        slow.resume_reading();
        assert_eq!(rest(&slow), (vec![0], None), "{how}");
        assert_eq!(notes.borrow().low.len(), 1, "{how}");
    }
}

#[test]
fn a_peer_that_keeps_up_gets_any_amount() {
    let (server, notes, _bystander) = stage();
    // As much as a callback sends before the socket is full.
    let wide = server.request().receive_buffer(64 << 20).connect().unwrap();
    for (how, bytes) in [("now", LONG), ("now", SHORT), ("later", LONG), ("elsewhere", SHORT)] {
        wide.send_text(&format!("{how} 1000 {bytes}"));
        server.advance(Duration::from_secs(1));
        assert_eq!(rest(&wide), ((0..1000).collect(), None), "{how} {bytes}");
    }
    assert!(notes.borrow().low.is_empty() && notes.borrow().most <= CORK + LONG);
}

/// What others send to a peer that reads nothing, until it is closed.
fn overfeed(mut send: impl FnMut(&TestServer<Producer>, &TestClient<Producer>)) {
    let (server, notes, bystander) = stage();
    let slow = narrow(&server);
    slow.stop_reading();
    for _ in 0..100 {
        send(&server, &bystander);
    }
    server.advance(Duration::from_millis(100));
    assert_eq!(notes.borrow().closed, [SLOW]);
    bystander.send_text("still there");
    while bystander.text() != "still there" {}
    slow.resume_reading();
    let mut messages = 0;
    let end = loop {
        match slow.receive() {
            Some(Received::Text(text)) => messages += text.len() / LONG,
            other => break other,
        }
    };
    // The one that passes the mark is the last.
    assert_eq!(messages, 2);
    assert_eq!(end, Some(Received::Closed { code: 1008, reason: "slow consumer".into() }));
}

#[test]
fn a_broadcast_obeys_the_same_rule() {
    overfeed(|_, bystander| bystander.send_text(&format!("all {LONG}")));
}

#[test]
fn a_message_from_another_connection_obeys_the_same_rule() {
    overfeed(|_, bystander| bystander.send_text(&format!("tell 1 {LONG}")));
    // Many in one callback: the rest finds nobody.
    overfeed(|_, bystander| bystander.send_text(&format!("tell 10 {LONG}")));
}

#[test]
fn what_a_post_sends_to_others_obeys_the_same_rule() {
    overfeed(|server, _| {
        let post = |_: &mut Producer, cx: &mut ReactorContext<'_, Producer>| {
            cx.send_text_to(Recipient::session("slow"), &"b".repeat(LONG));
        };
        server.remote().post(0, post).unwrap();
        server.advance(Duration::ZERO);
    });
    overfeed(|server, _| {
        let post = |_: &mut Producer, cx: &mut ReactorContext<'_, Producer>| {
            cx.send_text_to_all(&"b".repeat(LONG));
        };
        server.remote().post(0, post).unwrap();
        server.advance(Duration::ZERO);
    });
    overfeed(|server, _| {
        // One that is posted for it when it has closed finds nobody, too.
        post_to_slow(server, Order { count: 1, bytes: LONG });
        server.advance(Duration::ZERO);
    });
}

/// One reply to each message is never too much: a peer that is slow is not heard, and that is all.
#[test]
fn a_peer_that_answers_for_itself_is_throttled_and_not_closed() {
    for bytes in [100, SHORT, LONG, 3 * MARK] {
        let (server, notes, _bystander) = stage();
        let slow = narrow(&server);
        slow.stop_reading();
        for _ in 0..2000 {
            slow.send_text(&format!("now 1 {bytes}"));
        }
        let most = notes.borrow().most;
        assert!(most > MARK && most <= MARK + CORK + bytes + 14, "{bytes}: {most}");
        server.advance(Duration::from_secs(10));
        assert!(notes.borrow().closed.is_empty(), "{bytes}");
        slow.resume_reading();
        let (numbers, end) = rest(&slow);
        assert!(numbers.len() == 2000 && end.is_none(), "{bytes}: {} {end:?}", numbers.len());
        let low = &notes.borrow().low;
        assert!(!low.is_empty() && low.iter().all(|waits| *waits <= MARK / 2), "{bytes}: {low:?}");
    }
}

// --- on_backlog_low ------------------------------------------------------------------------------

#[test]
fn a_backlog_that_falls_is_told_once() {
    let (server, notes, _bystander) = stage();
    let slow = narrow(&server);
    let lows = || notes.borrow().low.len();
    // Up to the mark, and not above it.
    slow.stop_reading();
    slow.send_text(&format!("now 1 {}", MARK - 20));
    slow.resume_reading();
    assert_eq!((rest(&slow).0.len(), lows()), (1, 0));
    for excursion in 1..=5 {
        slow.stop_reading();
        slow.send_text(&format!("now 1 {}", MARK + SOCKET + 1));
        server.advance(Duration::from_secs(5));
        assert_eq!(lows(), excursion - 1, "not while it waits");
        slow.resume_reading();
        assert_eq!((rest(&slow).0.len(), lows()), (1, excursion));
    }
    // What the callback sends may be above the mark again.
    slow.send_text(&format!("low 1 {}", 2 * MARK));
    slow.stop_reading();
    slow.send_text(&format!("now 1 {}", 2 * MARK));
    slow.resume_reading();
    assert_eq!((rest(&slow).0.len(), lows()), (2, 7));
    assert!(notes.borrow().closed.is_empty());
}

/// Sends numbers until more than the mark waits, and goes on when it has left.
struct Numbers {
    mark: usize,
}

impl Numbers {
    fn go_on(&self, cx: &mut Context<'_, Self>) {
        while *cx.session() < 50_000 && cx.waiting_bytes() <= self.mark {
            *cx.session_mut() += 1;
            let number = cx.session().to_string();
            cx.send_text(&number);
        }
    }
}

impl Application for Numbers {
    type Session = u32;
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        self.go_on(cx);
    }

    fn on_backlog_low(&mut self, cx: &mut Context<'_, Self>) {
        self.go_on(cx);
    }
}

/// Whatever fits into the mark, the cork and the socket: who stops above the mark is told to go on.
#[test]
fn a_producer_that_stops_above_the_mark_is_told_to_go_on() {
    for mark in [1 << 10, 4 << 10, 64 << 10] {
        for cork_bytes in [500, 4 << 10, 64 << 10] {
            for room in [700, 6000, 64 << 10, 1 << 20] {
                let limits = Limits { cork_bytes, ..Limits::default() };
                let config = Config { max_send_buffer: mark, limits, ..config() };
                let server = TestServer::with_config(config, move |_| Numbers { mark });
                let client = server.request().receive_buffer(room).connect().unwrap();
                client.send_text("go");
                let mut last = 0;
                while let Some(Received::Text(number)) = client.receive() {
                    last += 1;
                    assert_eq!(number, last.to_string());
                }
                assert_eq!(last, 50_000, "mark {mark}, cork {cork_bytes}, socket {room}");
            }
        }
    }
}

#[test]
fn what_it_sends_is_bounded() {
    for (count, bytes) in [(1000, LONG), (10_000, SHORT), (100_000, 100)] {
        let (server, notes, _bystander) = stage();
        let slow = narrow(&server);
        slow.send_text(&format!("low {count} {bytes}"));
        slow.stop_reading();
        slow.send_text(&format!("now 1 {}", 2 * MARK));
        notes.borrow_mut().most = 0;
        slow.resume_reading();
        let notes = notes.borrow();
        assert!(notes.most > MARK && notes.most <= MARK + CORK + bytes + 14, "{}", notes.most);
        assert_eq!((&notes.closed[..], notes.low.len()), (&[SLOW][..], 1));
        assert_eq!(rest(&slow).1, slow_consumer());
    }
}

#[test]
fn one_that_is_not_read_is_told_as_well() {
    // Parked: it waits for as many jobs as it may.
    let limits = Limits { offloads_per_connection: 1, ..config().limits };
    let (server, notes, _bystander) = stage_with(Config { limits, ..config() });
    server.hold_jobs();
    let slow = narrow(&server);
    slow.stop_reading();
    slow.send_text(&format!("now 1 {}", MARK + SOCKET / 2));
    slow.send_text("elsewhere 1 10");
    slow.send_text(&format!("now 1 {}", 2 * MARK));
    assert_eq!(server.held_jobs(), 1, "and the third message is not heard");
    slow.resume_reading();
    // The third one is heard when the job is done.
    assert_eq!((rest(&slow).0.len(), notes.borrow().low.len()), (1, 0), "not above the mark yet");
    slow.stop_reading();
    server.run_job(0);
    slow.resume_reading();
    assert_eq!((rest(&slow).0.len(), notes.borrow().low.len()), (2, 1));
    // Above the mark, and parked by what it said in the same visit.
    slow.stop_reading();
    let both = [format!("now 1 {}", 2 * MARK), "elsewhere 1 10".to_owned()];
    slow.send_text(&both[1]);
    server.run_job(0);
    slow.send_text(&both[0]);
    slow.resume_reading();
    assert_eq!((rest(&slow).0.len(), notes.borrow().low.len()), (2, 2));
    assert!(notes.borrow().closed.is_empty());
}

#[test]
fn one_that_is_closing_is_not_told() {
    let (server, notes, _bystander) = stage();
    let slow = narrow(&server);
    slow.stop_reading();
    slow.send_text(&format!("now 1 {}", 2 * MARK));
    server.shut_down();
    slow.resume_reading();
    assert_eq!(rest(&slow).1.map(|(code, _)| code), Some(1001));
    assert_eq!(notes.borrow().low.len(), 0);
    server.advance(Duration::from_secs(1));
    assert!(server.has_ended());
}

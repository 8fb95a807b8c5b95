//! A reactor that is held up (a callback that blocks) or flooded with hand-overs: its mailbox is full.
//! The others' clients must not notice, and what waits must be bounded, refused in time, or delivered.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use revolve::config::{Config, Limits};
use revolve::session::owner_of;

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, frame, upgrade};
use super::pieces::faults::Faults;
use super::pieces::machine::Machine;
use super::pieces::recorder::{Log, Recorder, assert_as_planned};
use super::pieces::streams::Wire;

const WORKERS: usize = 3;
/// The one that gets no turn.
const HELD_UP: usize = 0;
/// The one whose clients are looked at.
const BUSY: usize = 1;
const TEXT: u8 = 0x81;

struct Stage {
    machine: Machine<Recorder>,
    chance: Chance,
    clients: Vec<(Line, Vec<Heard>)>,
}

impl Stage {
    fn new(limits: Limits) -> Stage {
        Stage::with_pings(limits, None)
    }

    fn with_pings(limits: Limits, ping: Option<Duration>) -> Stage {
        let config = Arc::new(Config {
            workers: NonZeroUsize::new(WORKERS).expect("three"),
            ws_ping_interval: ping,
            ws_ping_timeout: ping,
            access_log: false,
            limits,
            ..Config::default()
        });
        let log = Rc::new(RefCell::new(Log::default()));
        let machine = Machine::new(&config, 2, 5, Faults::default(), |start| Recorder {
            reactor: start.reactor(),
            log: log.clone(),
        });
        Stage { machine, chance: Chance(5), clients: Vec::new() }
    }

    /// A client of the busy reactor that asks for a session of `owner`'s; its place among the clients.
    fn connect(&mut self, owner: usize) -> usize {
        let at = self.clients.len();
        let names = (0..).map(|n| format!("c{at}n{n}"));
        let name = names.into_iter().find(|name| owner_of(name, WORKERS) == owner);
        let line = Line::new(SocketAddr::from(([127, 0, 0, 1], at as u16 + 1)), Wire::new(9000, 0));
        line.say(&upgrade(&format!("?session_id={}", name.expect("one in three is"))));
        self.machine.connect(BUSY, &line.wire, line.address);
        self.clients.push((line, Vec::new()));
        at
    }

    fn say(&mut self, at: usize, word: &[u8]) {
        let bytes = frame(TEXT, word, &mut self.chance);
        self.clients[at].0.say(&bytes);
    }

    /// Turns of all but the one that is held up, until they have nothing to do.
    fn turns(&mut self) -> usize {
        for turns in 0.. {
            let mut acted = self.machine.net.borrow_mut().run_jobs();
            for shard in (0..WORKERS).filter(|&shard| shard != HELD_UP) {
                acted |= self.machine.turn_if_woken(shard);
            }
            for (line, heard) in &mut self.clients {
                acted |= line.act(usize::MAX, &mut self.chance, heard);
            }
            if !acted {
                return turns;
            }
            assert!(turns < 1000, "they spin");
        }
        unreachable!()
    }

    /// A bystander says something, and has its answer within a turn or two.
    fn ask(&mut self, at: usize) {
        let before = self.clients[at].0.counts.len();
        self.say(at, b"hello");
        self.machine.turn_if_woken(BUSY);
        let (line, heard) = &mut self.clients[at];
        line.act(usize::MAX, &mut self.chance, heard);
        assert_eq!(line.counts.len(), before + 1, "a bystander waits");
    }

    fn status(&self, at: usize) -> Option<u16> {
        self.clients[at].1.iter().find_map(|heard| match heard {
            Heard::Response(status, _) => Some(*status),
            _ => None,
        })
    }

    fn waiting(&self, at: usize) -> bool {
        self.status(at).is_none() && self.clients[at].0.wire.borrow().registered.is_some()
    }
}

#[test]
fn hand_overs_to_it_wait_where_they_are_and_nobody_else_does() {
    let mut stage = Stage::new(Limits::default());
    let bystander = stage.connect(BUSY);
    stage.turns();
    stage.ask(bystander);
    // Two find room in the box.
    let many: Vec<usize> = (0..50).map(|_| stage.connect(HELD_UP)).collect();
    let elsewhere: Vec<usize> = (0..50).map(|_| stage.connect(2)).collect();
    stage.turns();
    for round in 0..40 {
        stage.ask(bystander);
        stage.machine.now += Duration::from_millis(1);
        stage.turns();
        assert_eq!(many.iter().filter(|&&at| stage.waiting(at)).count(), 48, "{round}");
    }
    for &at in &elsewhere {
        assert_eq!(stage.status(at), Some(101), "another reactor's session");
    }
    // One is gone, and one has only ended its half.
    stage.clients[many[10]].0.wire.borrow_mut().reset();
    stage.clients[many[11]].0.wire.borrow_mut().end();
    stage.turns();
    // Its turns come again: everybody is handed over, in order, and answered.
    while stage.machine.turn_if_woken(HELD_UP) {
        stage.turns();
        stage.machine.now += Duration::from_millis(1);
    }
    stage.turns();
    let answered = many.iter().filter(|&&at| stage.status(at) == Some(101)).count();
    assert_eq!(answered, 49, "all but the one that is gone");
    assert_as_planned();
}

#[test]
fn who_waits_too_long_is_told_and_a_drain_tells_the_others() {
    let mut stage = Stage::new(Limits::default());
    let bystander = stage.connect(BUSY);
    let early: Vec<usize> = (0..6).map(|_| stage.connect(HELD_UP)).collect();
    stage.turns();
    stage.machine.now += Duration::from_secs(11);
    stage.turns();
    let told = early.iter().filter(|&&at| stage.status(at) == Some(503)).count();
    assert_eq!(told, 4, "two are in the box");
    let page = stage.machine.status.metrics_page(stage.machine.now);
    assert!(page.contains("revolve_rejected_total{reactor=\"1\",reason=\"owner_busy\"} 4"));
    stage.ask(bystander);
    let late: Vec<usize> = (0..5).map(|_| stage.connect(HELD_UP)).collect();
    stage.turns();
    assert!(late.iter().all(|&at| stage.waiting(at)));
    stage.machine.shut_down();
    stage.turns();
    assert!(late.iter().all(|&at| stage.waiting(at)), "that one may have something to say before");
    // Nobody waits for its words for long.
    stage.machine.now += Duration::from_secs(1);
    stage.turns();
    assert!(late.iter().all(|&at| stage.status(at) == Some(503)), "told");
    assert!(stage.clients[bystander].1.contains(&Heard::Close(1001)));
    assert_as_planned();
}

#[test]
fn who_broadcasts_waits_and_who_does_not_goes_on() {
    let mut stage = Stage::new(Limits { frames_per_turn: 1, ..Limits::default() });
    let bystander = stage.connect(BUSY);
    let chatty: Vec<usize> = (0..5).map(|_| stage.connect(BUSY)).collect();
    let elsewhere = stage.connect(2);
    stage.turns();
    for round in 0..40 {
        for &at in &chatty {
            stage.say(at, b"all");
        }
        stage.ask(bystander);
        stage.turns();
        stage.machine.now += Duration::from_millis(1);
        // The box takes two; then each has one under way that is not delivered.
        let told = stage.clients[elsewhere].0.wire.borrow().down.len();
        assert!(told < 2000, "{round}: more than the limit is under way");
    }
    let heard = |stage: &Stage, at: usize| {
        let is_broadcast =
            |heard: &&Heard| matches!(heard, Heard::Text(text) if text.starts_with("all"));
        stage.clients[at].1.iter().filter(is_broadcast).count()
    };
    assert!(heard(&stage, elsewhere) <= 2 + chatty.len(), "{}", heard(&stage, elsewhere));
    // Its turns come again, and everything is delivered everywhere.
    for _ in 0..2000 {
        stage.machine.turn_if_woken(HELD_UP);
        stage.turns();
        stage.machine.now += Duration::from_millis(1);
    }
    for at in [bystander, elsewhere, chatty[0]] {
        assert_eq!(heard(&stage, at), 40 * chatty.len());
    }
    assert_as_planned();
}

#[test]
fn jobs_of_the_others_are_answered() {
    let mut stage = Stage::new(Limits::default());
    let (bystander, mine) = (stage.connect(BUSY), stage.connect(HELD_UP));
    stage.turns();
    while stage.machine.turn_if_woken(HELD_UP) {
        stage.turns();
    }
    for _ in 0..8 {
        stage.say(mine, b"job");
    }
    stage.machine.turn_if_woken(HELD_UP);
    for _ in 0..10 {
        stage.connect(HELD_UP);
        stage.say(bystander, b"job");
        stage.turns();
    }
    let answers = |heard: &Heard| matches!(heard, Heard::Text(text) if text.starts_with("job "));
    assert_eq!(stage.clients[bystander].1.iter().filter(|heard| answers(heard)).count(), 10);
    assert_as_planned();
}

/// Nobody reads them, so only their edges can tell.
#[test]
fn who_waits_and_resets_is_let_go_of_at_once() {
    let mut stage = Stage::new(Limits { frames_per_turn: 1, ..Limits::default() });
    let broadcaster = stage.connect(BUSY);
    stage.turns();
    for _ in 0..6 {
        stage.say(broadcaster, b"all");
    }
    let handed_over = stage.connect(HELD_UP);
    stage.turns();
    for at in [broadcaster, handed_over] {
        stage.clients[at].0.wire.borrow_mut().reset();
        stage.turns();
        assert!(stage.clients[at].0.wire.borrow().closed);
    }
    assert_as_planned();
}

/// Review: a connection that ends while it waits for the owner is handed over all the same, if the
/// owner has room in the turn in which it ended: its backlog is gone, its socket is not, and the 101
/// stands behind a hole.
#[test]
fn who_has_ended_is_not_handed_over() {
    let limits = Limits { send_stall: Duration::from_secs(3), ..Limits::default() };
    let mut stage = Stage::new(limits);
    // Two fill the box.
    for _ in 0..2 {
        stage.connect(HELD_UP);
    }
    stage.turns();
    let name = (0..).map(|n| format!("late{n}")).find(|name| owner_of(name, WORKERS) == HELD_UP);
    let deaf = Line::new(SocketAddr::from(([127, 0, 0, 1], 999)), Wire::new(100, 0));
    deaf.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    deaf.say(&upgrade(&format!("?session_id={}", name.expect("one in three is"))));
    stage.machine.connect(BUSY, &deaf.wire, deaf.address);
    stage.turns();
    assert_eq!(deaf.wire.borrow().down.len(), 100, "the rest of the first answer waits");
    // The owner has room again in the moment in which the backlog has stood for too long.
    stage.machine.now += Duration::from_millis(3100);
    assert!(stage.machine.turn_if_woken(HELD_UP));
    assert!(stage.machine.turn_if_woken(BUSY));
    while stage.machine.turn_if_woken(HELD_UP) {}
    let mut wire = deaf.wire.borrow_mut();
    assert!(wire.closed, "cut, and handed over: {:?}", wire.registered);
    let _ = wire.receive(usize::MAX);
    assert_as_planned();
}

/// Review: while so much mail waits that nobody is read, nobody may be judged by what it did not say.
#[test]
fn who_is_not_read_is_not_judged() {
    let second = Duration::from_secs(1);
    let limits = Limits { mails_waiting_most: 1, ..Limits::default() };
    let mut stage = Stage::with_pings(limits, Some(second));
    let bystander = stage.connect(BUSY);
    let chatty: Vec<usize> = (0..5).map(|_| stage.connect(BUSY)).collect();
    stage.turns();
    for &at in &chatty {
        stage.say(at, b"all");
    }
    stage.turns();
    // The other reactor hangs for six seconds; this client answers each ping at once.
    for _ in 0..120 {
        stage.machine.now += Duration::from_millis(50);
        stage.turns();
    }
    assert!(!stage.clients[bystander].1.contains(&Heard::Close(1011)), "it answered every ping");
    assert_as_planned();
}

/// Review: answers of off-loaded jobs are taken before all other mail and out of the same share, so as
/// long as a turn's share of them is there (by default as many as may be under way), nobody who is
/// handed over gets in.
#[test]
fn answers_do_not_starve_other_mail() {
    let mut stage = Stage::new(Limits { mails_per_turn: 1, ..Limits::default() });
    let asker = stage.connect(BUSY);
    stage.turns();
    let at = stage.clients.len();
    let name = (0..).map(|n| format!("x{n}")).find(|name| owner_of(name, WORKERS) == BUSY);
    let line = Line::new(SocketAddr::from(([127, 0, 0, 1], at as u16 + 1)), Wire::new(9000, 0));
    line.say(&upgrade(&format!("?session_id={}", name.expect("one in three is"))));
    stage.machine.connect(2, &line.wire, line.address);
    stage.clients.push((line, Vec::new()));
    // Two jobs are always under way, one of which is done in each turn.
    stage.say(asker, b"job");
    stage.machine.turn_if_woken(BUSY);
    for _ in 0..100 {
        stage.say(asker, b"job");
        stage.machine.net.borrow_mut().run_job(0);
        stage.machine.turn_if_woken(2);
        stage.machine.turn_if_woken(BUSY);
        for (line, heard) in &mut stage.clients {
            line.act(usize::MAX, &mut stage.chance, heard);
        }
    }
    assert_eq!(stage.status(at), Some(101), "a hundred turns, and not handed over");
    assert_as_planned();
}

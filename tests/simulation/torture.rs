//! Nth-call torture: one conversation, from the accept to the drain, in which a call of the
//! shards fails; each call, in each way in which it can fail.
//!
//! The conversation is played once without a failure. That tells how many calls of each kind there
//! are, and what every guest hears. Then it is played again for each of them. A failure that a
//! kernel takes back (a signal, a mailbox without room) must change nothing that anybody hears; one
//! that costs a connection costs that one alone, and its guest comes back, learns from the head of
//! the 101 how far it was counted, and goes on from there. In the end every session has exactly the
//! count of what its guest said, and the shards hold nothing.
//!
//! To replay the one that fails: the test prints `REVOLVE_STRIKE=…`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use revolve::config::{Config, Limits};
use revolve::session::owner_of;

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, frame, upgrade};
use super::pieces::faults::{self, Call, Fault, Faults, Strike};
use super::pieces::machine::Machine;
use super::pieces::recorder::{Log, Recorder};
use super::pieces::streams::Wire;
use super::pieces::veil;

const SHARDS: usize = 2;

/// Pairs of failures that are tried, of some millions.
const PAIRS: usize = 2000;

/// Every way in which each call can fail, and whether nobody may notice.
#[rustfmt::skip]
const WAYS: [(Call, Fault, bool); 39] = [
    (Call::Accept, Fault::Errno(faults::EINTR), true),
    (Call::Accept, Fault::Later, true),
    (Call::Accept, Fault::Errno(faults::EMFILE), true),
    (Call::Accept, Fault::Errno(faults::ENFILE), true),
    (Call::Accept, Fault::Errno(faults::ENOBUFS), true),
    (Call::Accept, Fault::Errno(faults::ENOMEM), true),
    (Call::Accept, Fault::Errno(faults::EPERM), true),
    (Call::Accept, Fault::Errno(faults::EPROTO), true),
    (Call::Accept, Fault::Errno(faults::ENETDOWN), true),
    (Call::Accept, Fault::Errno(faults::EHOSTUNREACH), true),
    (Call::Accept, Fault::Errno(faults::ECONNABORTED), false),
    (Call::Register, Fault::Errno(faults::ENOMEM), false),
    (Call::Register, Fault::Errno(faults::ENOSPC), false),
    (Call::Deregister, Fault::Errno(faults::ENOENT), false),
    (Call::Deregister, Fault::Errno(faults::EBADF), false),
    (Call::Read, Fault::Errno(faults::EINTR), true),
    (Call::Read, Fault::Later, true),
    (Call::Read, Fault::OneByte, true),
    (Call::Read, Fault::Zero, false),
    (Call::Read, Fault::Errno(faults::ECONNRESET), false),
    (Call::Read, Fault::Errno(faults::ETIMEDOUT), false),
    (Call::Read, Fault::Errno(faults::EHOSTUNREACH), false),
    (Call::Read, Fault::Errno(faults::ENOBUFS), false),
    (Call::Read, Fault::Errno(faults::ENOMEM), false),
    (Call::Write, Fault::Errno(faults::EINTR), true),
    (Call::Write, Fault::Later, true),
    (Call::Write, Fault::OneByte, true),
    (Call::Write, Fault::Zero, false),
    (Call::Write, Fault::Errno(faults::EPIPE), false),
    (Call::Write, Fault::Errno(faults::ECONNRESET), false),
    (Call::Write, Fault::Errno(faults::ETIMEDOUT), false),
    (Call::Write, Fault::Errno(faults::ENOBUFS), false),
    (Call::Write, Fault::Errno(faults::EIO), false),
    (Call::HalfClose, Fault::Errno(faults::ENOTCONN), false),
    (Call::HalfClose, Fault::Errno(faults::ENOBUFS), false),
    (Call::Send, Fault::Full, true),
    (Call::Offload, Fault::Full, false),
    (Call::Random, Fault::Errno(faults::EIO), false),
    (Call::Random, Fault::Errno(faults::ENOSYS), false),
];

/// How often in a row: once; three times; and from then on for good, where one can live with it.
fn runs_of(fault: Fault, is_harmless: bool) -> &'static [u64] {
    match fault {
        Fault::OneByte => &[1, 3, u32::MAX as u64],
        Fault::Full => &[1, 3, 40],
        _ if is_harmless => &[1, 3],
        _ => &[1],
    }
}

thread_local! {
    /// Whether there is TLS between the guests and the shards: for one test, on its thread.
    static IS_ENCRYPTED: Cell<bool> = const { Cell::new(false) };
}

/// A name that a given shard owns.
fn name(of: &str, owner: usize) -> String {
    let mut names = (0..).map(|number| format!("{of}{number}"));
    names.find(|name| owner_of(name, SHARDS) == owner).expect("names do not end")
}

/// Someone with a session, over as many connections as it takes.
struct Guest {
    name: &'static str,
    /// The listener it connects to.
    at: usize,
    session: Option<String>,
    /// Messages it has said, or wants to have said.
    said: u64,
    /// The newest count it knows.
    counted: u64,
    line: Line,
    /// Everything heard, over all connections.
    heard: Vec<Heard>,
    is_present: bool,
    is_deaf: bool,
}

impl Guest {
    /// Reads, answers, and remembers what it learns; whether there was anything.
    fn listen(&mut self, chance: &mut Chance) -> bool {
        let Guest { line, heard, counted, session, .. } = self;
        let acted = line.act(usize::MAX, chance, heard);
        *counted = line.counts.last().copied().unwrap_or(0).max(*counted);
        if let Some(Heard::Response(101, Some(count))) =
            heard.iter().rfind(|heard| matches!(heard, Heard::Response(101, _)))
        {
            *counted = (*counted).max(*count);
        }
        if line.hearing.session.is_some() {
            session.clone_from(&line.hearing.session);
        }
        acted
    }
}

struct Scene {
    machine: Machine<Recorder>,
    log: Rc<RefCell<Log>>,
    faults: Faults,
    chance: Chance,
    guests: Vec<Guest>,
    /// Connections of those who have no session, or have been replaced.
    others: Vec<(&'static str, Line, Vec<Heard>)>,
    ports: u16,
    /// Connections that guests had to make beyond the script's.
    returns: usize,
}

/// What a run is compared by.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    heard: BTreeMap<&'static str, Vec<Heard>>,
    /// The counts before the drain.
    sessions: BTreeMap<String, u64>,
    /// What was heard in the drain.
    farewells: BTreeMap<&'static str, Vec<Heard>>,
}

fn config() -> Config {
    Config {
        workers: NonZeroUsize::new(SHARDS).expect("two"),
        ws_max_size: 4096,
        // A record adds 22 bytes to each short reply, and what waits is counted with them.
        max_send_buffer: if IS_ENCRYPTED.get() { 4096 } else { 1024 },
        access_log: false,
        // More than there are: only so are places counted, of which none may be lost.
        limit_concurrency: NonZeroUsize::new(100),
        limits: Limits {
            receive_buffer_bytes: 400,
            head_bytes: 300,
            request_body_bytes: 100,
            target_bytes: 100,
            frames_per_turn: 7,
            requests_per_turn: 2,
            cork_bytes: 64,
            flush_bytes_per_turn: 100,
            accepts_per_turn: 2,
            mails_per_turn: 2,
            broadcast_slice: 2,
            goodbyes_per_turn: 2,
            broadcasts_queued: 2,
            offloads_per_connection: 2,
            events_per_poll: 2,
            alarms_per_turn: 1,
            expiries_per_turn: 1,
            timers_per_turn: 1,
            mails_waiting_most: 2,
            look_slice: 2,
            overdue_ticks: 1,
            ..Limits::default()
        },
        ..Config::default()
    }
}

impl Scene {
    fn new(strikes: &[Strike]) -> Scene {
        let faults = Faults::new(strikes);
        let log = Rc::new(RefCell::new(Log::default()));
        let machine = Machine::new(&Arc::new(config()), 2, 1, faults.clone(), |start| Recorder {
            reactor: start.reactor(),
            log: log.clone(),
        });
        if IS_ENCRYPTED.get() {
            machine.net.borrow_mut().tls = veil::server();
        }
        Scene {
            machine,
            log,
            faults,
            chance: Chance(5),
            guests: Vec::new(),
            others: Vec::new(),
            ports: 0,
            returns: 0,
        }
    }

    // ---- what guests do ----

    fn connect(&mut self, at: usize, room: usize, first_words: &[u8]) -> Line {
        self.ports += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports));
        let line = Line::new(address, Wire::new(room, 0));
        if IS_ENCRYPTED.get() {
            line.encrypt(self.ports.is_multiple_of(2));
        }
        line.say(first_words);
        self.machine.connect(at, &line.wire, address);
        line
    }

    /// A guest arrives, and says `messages` in the packet of its request.
    fn join(
        &mut self,
        name: &'static str,
        at: usize,
        session: Option<String>,
        before: &[u8],
        messages: u64,
    ) -> usize {
        let mut words = before.to_vec();
        // For those with a name a job decides.
        let query = session
            .as_ref()
            .map_or("?hello=1".to_owned(), |id| format!("?session_id={id}&later=yes"));
        words.extend(upgrade(&query));
        words.extend(self.messages(messages));
        let line = self.connect(at, 20_000, &words);
        let (heard, counted) = (Vec::new(), 0);
        self.guests.push(Guest {
            name,
            at,
            session,
            said: messages,
            counted,
            line,
            heard,
            is_present: true,
            is_deaf: false,
        });
        self.guests.len() - 1
    }

    fn messages(&mut self, count: u64) -> Vec<u8> {
        (0..count).flat_map(|_| frame(0x81, b"one more", &mut self.chance)).collect()
    }

    fn say(&mut self, guest: usize, messages: u64) {
        let words = self.messages(messages);
        self.guests[guest].said += messages;
        self.guests[guest].line.say(&words);
    }

    fn say_raw(&mut self, guest: usize, first: u8, payload: &[u8]) {
        let words = frame(first, payload, &mut self.chance);
        self.guests[guest].line.say(&words);
    }

    /// Comes back after its connection ended, or over it, on another listener perhaps.
    fn come_back(&mut self, guest: usize, at: usize) {
        let session = self.guests[guest].session.clone();
        let query = session.map_or("?hello=1".to_owned(), |id| format!("?session_id={id}&hello=1"));
        let line = self.connect(at, 20_000, &upgrade(&query));
        let Guest { name, line: former, is_present, .. } = &mut self.guests[guest];
        *is_present = true;
        let former = std::mem::replace(former, line);
        self.others.push((name, former, Vec::new()));
    }

    /// Someone without a session.
    fn stranger(&mut self, name: &'static str, at: usize, words: &[u8]) {
        let line = self.connect(at, 20_000, words);
        self.others.push((name, line, Vec::new()));
    }

    // ---- time ----

    /// Everyone acts until nobody has anything to do.
    fn quiet(&mut self) {
        let Scene { machine, guests, others, chance, .. } = self;
        let net = machine.net.clone();
        machine.quiet(|| {
            let mut acted = false;
            for guest in guests.iter_mut().filter(|guest| !guest.is_deaf) {
                acted |= guest.listen(chance);
            }
            for (_, line, heard) in others.iter_mut() {
                acted |= line.act(usize::MAX, chance, heard);
            }
            acted | net.borrow_mut().run_jobs()
        });
    }

    /// The end of a step: time enough for every pause to pass and for nothing else.
    fn step(&mut self) {
        self.pause();
        // Whoever has lost its connection comes back, and says what was not counted.
        for _ in 0..8 {
            let mut content = true;
            for guest in 0..self.guests.len() {
                content &= self.is_content(guest);
            }
            if content {
                return;
            }
            self.pause();
        }
        let state = |guest: &Guest| (guest.name, guest.said, guest.counted, guest.line.is_cut());
        panic!("not content: {:?}", self.guests.iter().map(state).collect::<Vec<_>>());
    }

    fn pause(&mut self) {
        for _ in 0..5 {
            self.quiet();
            self.machine.now += Duration::from_millis(110);
        }
        self.quiet();
        let lines = self.guests.iter().map(|guest| &guest.line);
        for line in lines.chain(self.others.iter().map(|(_, line, _)| line)) {
            let wire = line.wire.borrow();
            assert!(!(wire.fin && wire.registered.is_some()), "an end went unnoticed");
        }
    }

    /// Whether a guest has all it is due; if not, it does something about it.
    fn is_content(&mut self, guest: usize) -> bool {
        let Guest { name, at, said, counted, line, is_present, is_deaf, .. } = &self.guests[guest];
        if !is_present || *is_deaf {
            return true;
        }
        assert!(counted <= said, "{name}: {counted} counted, {said} said");
        if line.is_cut() {
            let at = *at;
            self.returns += 1;
            self.come_back(guest, at);
            return false;
        }
        assert!(line.hearing.is_open, "{name}: no answer");
        if counted == said {
            return true;
        }
        // Everything has been answered that arrived on this connection.
        assert!(self.returns > 0, "{name}: replies are missing");
        let missing = said - counted;
        self.say(guest, missing);
        self.guests[guest].said -= missing;
        false
    }

    // ---- the conversation ----

    fn play(&mut self) -> Account {
        // Everything in one packet: a page, the request, two messages.
        let page = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        let ada = self.join("ada", 0, Some(name("a", 0)), page, 2);
        self.step();
        // Handed over, in both directions, with a message on the way.
        let bea = self.join("bea", 1, Some(name("b", 0)), b"", 1);
        let dan = self.join("dan", 0, Some(name("d", 1)), b"", 0);
        self.step();
        // A session of the server's own naming.
        let cyd = self.join("cyd", 1, None, b"", 0);
        self.step();
        self.say(cyd, 1);
        // A message in fragments, with a ping between them.
        self.guests[ada].said += 1;
        self.say_raw(ada, 0x01, b"in three");
        self.say_raw(ada, 0x89, b"are you there");
        self.say_raw(ada, 0x00, b" ");
        self.say_raw(ada, 0x80, b"parts");
        self.say(dan, 20);
        self.step();
        // To everyone, from one shard and from the other.
        self.say_raw(bea, 0x81, b"all");
        self.step();
        self.say_raw(dan, 0x81, b"all");
        self.step();
        // A second connection of the same session, over the other listener.
        self.come_back(ada, 1);
        self.step();
        self.say(ada, 2);
        self.step();
        // Three jobs, more than may be under way at once.
        for _ in 0..3 {
            self.say_raw(bea, 0x81, b"job");
        }
        self.step();
        // Pings, and their pongs.
        self.machine.now += Duration::from_secs(21);
        self.step();
        self.slow_reader();
        self.strangers();
        // Three ends: in good order, in mid-frame, and none at all.
        self.say_raw(cyd, 0x81, b"quit");
        self.guests[cyd].is_present = false;
        self.step();
        self.guests[dan].is_present = false;
        let half = self.messages(1);
        self.guests[dan].line.say(&half[..half.len() - 3]);
        self.step();
        let leave = self.guests[dan].line.wire.clone();
        if !leave.borrow().fin && !leave.borrow().reset {
            leave.borrow_mut().end();
        }
        let gone = self.guests[bea].line.wire.clone();
        gone.borrow_mut().reset();
        self.guests[bea].is_present = false;
        self.step();
        for (guest, at) in [(dan, 1), (bea, 0), (cyd, 0)] {
            self.come_back(guest, at);
            self.step();
            self.say(guest, 1);
        }
        self.step();
        self.check_sessions();
        let (heard, sessions) = (self.take_heard(), self.sessions());
        self.leave();
        let mut farewells = self.take_heard();
        for words in farewells.values_mut() {
            // A message on its way when the server said Close may be counted or not; the next
            // server will tell.
            words.retain(|heard| !matches!(heard, Heard::Text(_)));
        }
        Account { heard, sessions, farewells }
    }

    fn take_heard(&mut self) -> BTreeMap<&'static str, Vec<Heard>> {
        let guests = self.guests.iter_mut().map(|guest| (guest.name, &mut guest.heard));
        let others = self.others.iter_mut().map(|(name, _, heard)| (*name, heard));
        let mut all = BTreeMap::new();
        for (name, heard) in guests.chain(others) {
            let all: &mut Vec<Heard> = all.entry(name).or_default();
            all.append(heard);
            // When they come is a matter of the clock.
            all.retain(|heard| *heard != Heard::Ping);
        }
        all
    }

    /// One that says much and hears nothing, until it does.
    fn slow_reader(&mut self) {
        let eve = self.join("eve", 1, Some(name("e", 1)), b"", 1);
        self.step();
        self.guests[eve].is_deaf = true;
        self.say(eve, 400);
        self.step();
        self.guests[eve].is_deaf = false;
        self.step();
    }

    /// Pages, nonsense, and a head that is never finished.
    fn strangers(&mut self) {
        let page = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
        self.stranger("hal", 0, page.as_bytes());
        self.stranger("fay", 1, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        self.stranger("gus", 0, b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET ");
        self.stranger("ivy", 1, b"GET /ws/chat/ HTTP/1.1\r\nHos");
        self.step();
        if let Some((_, line, _)) = self.others.iter().find(|(name, ..)| *name == "hal") {
            let wire = line.wire.clone();
            let is_there = !wire.borrow().fin && !wire.borrow().reset;
            if is_there {
                wire.borrow_mut().end();
            }
        }
        self.machine.now += Duration::from_secs(11);
        self.step();
        for (name, line, _) in &self.others {
            assert!(line.wire.borrow().closed, "{name}: no deadline ended it");
        }
    }

    /// What is in the tables.
    fn sessions(&self) -> BTreeMap<String, u64> {
        self.machine.shards().flat_map(|shard| shard.session_counts()).collect()
    }

    /// Every session is where it belongs and has the count of what was said.
    fn check_sessions(&self) {
        self.log.borrow().check_sessions(&self.machine);
        let mut sessions = self.sessions();
        for Guest { name, session, said, .. } in &self.guests {
            let session = session.as_ref().expect("it was told");
            assert_eq!(sessions.remove(session), Some(*said), "{name}: another count");
        }
        // Cyd may have been counted under a name that never reached her.
        assert!(sessions.is_empty() || self.returns > 0, "sessions of nobody: {sessions:?}");
    }

    /// The drain, with replies in flight and a connection that has just asked for an upgrade.
    fn leave(&mut self) {
        for guest in 0..self.guests.len() {
            self.say(guest, 1);
        }
        self.stranger("jay", 1, &upgrade(""));
        self.machine.shut_down();
        for _ in 0..60 {
            self.quiet();
            if self.machine.has_ended() {
                break;
            }
            self.machine.now += Duration::from_millis(250);
        }
        self.quiet();
        self.machine.check_released();
        let log = self.log.borrow();
        assert_eq!(log.opens, log.closes, "each open has its close");
        assert_eq!(log.admitted, log.opens + log.not_opened, "accepted: it opens, or it does not");
        assert_eq!(log.ledger.speakers().count(), 0, "somebody still speaks for a session");
        let lines = self.guests.iter().map(|guest| &guest.line);
        for line in lines.chain(self.others.iter().map(|(_, line, _)| line)) {
            let given = log.given.get(&line.address).cloned().unwrap_or_default();
            assert!(given.starts_with(&line.counts), "{:?} of {given:?}", line.counts);
        }
    }
}

/// Plays it with failures and checks what must be true of any run.
fn play(strikes: &[Strike]) -> (Account, Scene) {
    let mut scene = Scene::new(strikes);
    let account = scene.play();
    let struck = scene.faults.struck();
    assert!(scene.returns <= struck, "{} came back after {struck} failures", scene.returns);
    (account, scene)
}

/// One failure: which of [`WAYS`], and where.
#[derive(Debug, Clone, Copy)]
struct FaultSite {
    way: usize,
    nth: u64,
    times: u64,
}

impl FaultSite {
    fn strike(self) -> Strike {
        let (call, fault, _) = WAYS[self.way];
        Strike { call, nth: self.nth, times: self.times, fault }
    }

    fn is_harmless(self) -> bool {
        WAYS[self.way].2
    }
}

/// Plays it with these failures; says how to replay it if that goes wrong.
fn strike(places: &[FaultSite], undisturbed: &Account) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let strikes: Vec<Strike> = places.iter().map(|place| place.strike()).collect();
        let (mut account, scene) = play(&strikes);
        assert!(scene.faults.struck() > 0, "it never came to that call");
        if places.iter().all(|place| place.is_harmless()) {
            assert_eq!(scene.returns, 0, "somebody lost the connection");
            // Jay's request has just come when the drain begins, and a request that comes later yet, or
            // for which there is no descriptor, is not waited for.
            account.farewells.insert("jay", undisturbed.farewells["jay"].clone());
            for (name, heard) in &undisturbed.heard {
                assert_eq!(&account.heard[name], heard, "{name} heard other things");
            }
            assert_eq!(account.farewells, undisturbed.farewells);
            assert_eq!(account.sessions, undisturbed.sessions);
        }
    }));
    if let Err(panic) = outcome {
        let texts =
            places.iter().map(|FaultSite { way, nth, times }| format!("{way},{nth},{times}"));
        let texts: Vec<String> = texts.collect();
        eprintln!(
            "\nfailed with {:?}",
            places.iter().map(|place| place.strike()).collect::<Vec<_>>()
        );
        eprintln!("REVOLVE_STRIKE={} cargo test --test simulation alone", texts.join(":"));
        resume_unwind(panic);
    }
}

/// Fails the calls of some kinds one by one.
fn torture(calls: &[Call]) {
    let (undisturbed, scene) = play(&[]);
    let mut runs = 0;
    for (way, (call, fault, is_harmless)) in WAYS.into_iter().enumerate() {
        if !calls.contains(&call) {
            continue;
        }
        let count = scene.faults.calls(call);
        assert!(count > 0, "the conversation has no {call:?}");
        for &times in runs_of(fault, is_harmless) {
            for nth in 0..count {
                strike(&[FaultSite { way, nth, times }], &undisturbed);
                runs += 1;
            }
        }
    }
    println!("{calls:?}: {runs} runs");
}

#[test]
fn every_read_fails_once() {
    torture(&[Call::Read]);
}

#[test]
fn every_write_fails_once() {
    torture(&[Call::Write, Call::HalfClose]);
}

#[test]
fn every_other_call_fails_once() {
    torture(&[Call::Accept, Call::Register, Call::Deregister, Call::Send, Call::Random]);
}

#[test]
fn every_job_fails_once() {
    torture(&[Call::Offload]);
}

/// What one failure leaves behind must not be what the next one trips over.
#[test]
fn any_two_calls_fail() {
    let (undisturbed, scene) = play(&[]);
    let chance = &mut Chance(2);
    for _ in 0..PAIRS {
        let place = |chance: &mut Chance| {
            let way = chance.within(0, WAYS.len() - 1);
            let nth = chance.within(0, scene.faults.calls(WAYS[way].0) as usize - 1) as u64;
            FaultSite { way, nth, times: 1 }
        };
        strike(&[place(chance), place(chance)], &undisturbed);
    }
}

/// The same, with TLS between the guests and the shards.
#[cfg(feature = "tls")]
mod encrypted {
    use super::*;

    #[test]
    fn every_read_fails_once() {
        IS_ENCRYPTED.set(true);
        torture(&[Call::Read]);
    }

    #[test]
    fn every_write_fails_once() {
        IS_ENCRYPTED.set(true);
        torture(&[Call::Write, Call::HalfClose]);
    }

    #[test]
    fn every_other_call_fails_once() {
        IS_ENCRYPTED.set(true);
        torture(&[Call::Accept, Call::Register, Call::Deregister, Call::Send, Call::Offload]);
    }

    /// As `alone`, for these.
    #[test]
    fn alone() {
        IS_ENCRYPTED.set(true);
        super::alone();
    }
}

/// The failure that `REVOLVE_STRIKE` names, as the other tests print it.
#[test]
fn alone() {
    let Ok(text) = std::env::var("REVOLVE_STRIKE") else { return };
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"));
    let place = |text: &str| match text.split(',').map(number).collect::<Vec<u64>>()[..] {
        [way, nth, times] => FaultSite { way: way as usize, nth, times },
        _ => panic!("{text:?} is no place: WAY,NTH,TIMES"),
    };
    let places: Vec<FaultSite> = text.split(':').map(place).collect();
    strike(&places, &play(&[]).0);
}

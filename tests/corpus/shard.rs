//! Whole shards, whose clients and whose kernel do what the input says: who connects where, what
//! it says in which pieces, who reads, what time it is, which shard turns, and which system call
//! fails how. The model is the simulation's recorder; what must be true in the end is checked here.
//!
//! Input: four bytes of configuration, then steps of three bytes, some followed by words.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use revolve::config::{Config, Limits};

use super::simulation::chance::Chance;
use super::simulation::client_bytes::{Heard, Line, frame, upgrade};
use super::simulation::faults::{self, Call, Fault, Faults, Strike};
use super::simulation::machine::Machine;
use super::simulation::recorder::{Log, Recorder, hide_planned_panics};
use super::simulation::streams::Wire;

/// Clients and steps of one input: more would only make it slow.
const CLIENTS_MOST: usize = 10;
const STEPS_MOST: usize = 400;

pub(crate) fn run(data: &[u8]) {
    static HIDE: Once = Once::new();
    HIDE.call_once(hide_planned_panics);
    let Some((&[shards, sizes, shares, times], steps)) = data.split_first_chunk() else { return };
    let mut stage = Stage::new(usize::from(shards % 3) + 1, sizes, shares, times);
    let mut input = Input { bytes: steps };
    for _ in 0..STEPS_MOST {
        let Some((&[what, who, how], rest)) = input.bytes.split_first_chunk() else { break };
        input.bytes = rest;
        stage.step(what, usize::from(who), how, &mut input);
    }
    stage.finish();
}

struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }
}

struct Client {
    line: Line,
    /// Said, and not yet on its way.
    pending: Vec<u8>,
    /// Messages that get a count in reply.
    asked: usize,
    heard: Vec<Heard>,
    /// It asked for a WebSocket, and for nothing else.
    has_asked: bool,
    /// What it sends makes no sense, so what comes back may not be understood.
    is_wild: bool,
    /// It has said something after which not every message is answered.
    is_leaving: bool,
}

struct Stage {
    machine: Machine<Recorder>,
    log: Rc<RefCell<Log>>,
    faults: Faults,
    chance: Chance,
    clients: Vec<Client>,
    is_over: bool,
}

fn config(shards: usize, sizes: u8, shares: u8, times: u8) -> Config {
    let of = |byte: u8, shift: u8, choices: [usize; 2]| choices[usize::from(byte >> shift & 1)];
    Config {
        workers: NonZeroUsize::new(shards).unwrap_or(NonZeroUsize::MIN),
        ws_max_size: of(sizes, 0, [4096, 300]),
        max_send_buffer: of(sizes, 1, [1024, 4096]),
        max_sessions: of(sizes, 2, [1_000_000, 3]),
        limit_concurrency: NonZeroUsize::new(of(sizes, 3, [0, 3])),
        session_ttl: Duration::from_secs(of(times, 0, [3600, 2]) as u64),
        timeout_graceful_shutdown: Duration::from_secs(of(times, 1, [10, 1]) as u64),
        timeout_handshake: Duration::from_secs(of(times, 4, [10, 40]) as u64),
        ws_ping_interval: (times >> 2 & 1 == 0).then_some(Duration::from_secs(20)),
        access_log: false,
        limits: Limits {
            receive_buffer_bytes: of(sizes, 4, [1024, 256]),
            head_bytes: 250,
            request_body_bytes: 6,
            target_bytes: 100,
            cork_bytes: of(sizes, 5, [5000, 16]),
            flush_bytes_per_turn: of(sizes, 6, [100_000, 10]),
            frames_per_turn: of(shares, 0, [8, 1]),
            requests_per_turn: of(shares, 1, [3, 1]),
            accepts_per_turn: of(shares, 2, [4, 1]),
            mails_per_turn: of(shares, 3, [4, 1]),
            mails_waiting_most: of(shares, 3, [1000, 2]),
            broadcast_slice: of(shares, 4, [8, 1]),
            goodbyes_per_turn: of(shares, 4, [8, 1]),
            broadcasts_queued: of(shares, 5, [8, 1]),
            alarms_per_turn: of(shares, 6, [8, 1]),
            expiries_per_turn: of(shares, 7, [8, 1]),
            timers_per_turn: of(shares, 6, [8, 1]),
            look_slice: of(shares, 4, [8, 1]),
            events_per_poll: of(shares, 2, [1024, 2]),
            overdue_ticks: of(times, 5, [20, 1]) as u8,
            ..Limits::default()
        },
        ..Config::default()
    }
}

const ERRNOS: [i32; 12] = [
    faults::EINTR,
    faults::EINTR,
    faults::ECONNRESET,
    faults::EPIPE,
    faults::EMFILE,
    faults::ENFILE,
    faults::ENOBUFS,
    faults::ENOMEM,
    faults::ECONNABORTED,
    faults::ENOTCONN,
    faults::EPERM,
    faults::ENOENT,
];

impl Stage {
    fn new(shards: usize, sizes: u8, shares: u8, times: u8) -> Stage {
        let config = config(shards, sizes, shares, times);
        let log = Rc::new(RefCell::new(Log::default()));
        log.borrow_mut().forgets = config.max_sessions < 100 || config.session_ttl.as_secs() < 100;
        let faults = Faults::default();
        let capacity = usize::from(times >> 3 & 1) + 1;
        let config = Arc::new(config);
        let machine = Machine::new(&config, capacity, 3, faults.clone(), |start| Recorder {
            reactor: start.reactor(),
            log: log.clone(),
        });
        let (chance, clients) = (Chance(0), Vec::new());
        Stage { machine, log, faults, chance, clients, is_over: false }
    }

    fn step(&mut self, what: u8, who: usize, how: u8, input: &mut Input<'_>) {
        match what % 16 {
            0 if self.clients.len() < CLIENTS_MOST => self.connect(who, how),
            0 | 1 => self.speak(who, |client, _| client.ask(how)),
            2..=4 => self.speak(who, |client, chance| client.converse(how, chance)),
            5 => {
                let words = input.take(usize::from(how % 64)).to_vec();
                self.speak(who, |client, _| {
                    client.pending.extend_from_slice(&words);
                    client.is_wild = true;
                });
            }
            6 => self.speak(who, |client, _| _ = client.send(usize::from(how))),
            7 => self.speak(who, |client, chance| _ = client.listen(usize::from(how), chance)),
            8..=10 => {
                let at = who % self.machine.len();
                self.machine.turn_if_woken(at);
            }
            11 => {
                self.machine.now += Duration::from_millis([1, 50, 900, 6000][who % 4]);
            }
            12 | 13 => self.strike(who, how),
            14 => self.speak(who, |client, _| client.leave(how.is_multiple_of(4))),
            // The end seldom comes early.
            _ if who == 255 && !self.is_over => {
                self.is_over = true;
                self.machine.shut_down();
            }
            _ => {}
        }
    }

    /// Lets one client act, if there are any.
    fn speak(&mut self, who: usize, act: impl FnOnce(&mut Client, &mut Chance)) {
        if let Some(at) = who.checked_rem(self.clients.len()) {
            act(&mut self.clients[at], &mut self.chance);
        }
    }

    fn connect(&mut self, at: usize, how: u8) {
        let port = self.clients.len() as u16 + 1;
        let room = [20_000, 300, 64, 1][usize::from(how % 4)];
        let line = Line::new(SocketAddr::from(([127, 0, 0, 1], port)), Wire::new(room, 0));
        self.machine.connect(at % self.machine.len(), &line.wire, line.address);
        self.clients.push(Client {
            line,
            pending: Vec::new(),
            asked: 0,
            heard: Vec::new(),
            has_asked: false,
            is_wild: false,
            is_leaving: false,
        });
    }

    fn strike(&mut self, who: usize, how: u8) {
        let call = [
            Call::Accept,
            Call::Register,
            Call::Deregister,
            Call::Read,
            Call::Write,
            Call::HalfClose,
            Call::Send,
            Call::Random,
        ][who % 8];
        let errno = Fault::Errno(ERRNOS[usize::from(how) / 8 % ERRNOS.len()]);
        let fault = match (call, how % 8) {
            (Call::Read | Call::Write | Call::Accept, 0 | 1) => Fault::Later,
            (Call::Read | Call::Write, 2 | 3) => Fault::OneByte,
            (Call::Read | Call::Write, 4) => Fault::Zero,
            (Call::Send, _) => Fault::Full,
            _ => errno,
        };
        let times = [1, 1, 2, 5][who / 8 % 4];
        self.faults.plan(Strike { call, nth: who as u64 / 32, times, fault });
    }

    /// Everyone acts until nobody has anything to do.
    fn quiet(&mut self) {
        let Stage { machine, clients, chance, .. } = self;
        let net = machine.net.clone();
        machine.quiet(|| {
            let mut acted = net.borrow_mut().run_jobs();
            for client in clients.iter_mut() {
                acted |= client.send(usize::MAX);
                acted |= client.listen(usize::MAX, chance);
            }
            acted
        });
    }

    fn finish(mut self) {
        if !self.is_over {
            self.quiet();
            for Client { line, .. } in &self.clients {
                let wire = line.wire.borrow();
                let is_held = wire.registered.is_some();
                assert!(!(is_held && wire.fin), "{}: its end went unnoticed", line.address);
            }
            for _ in 0..40 {
                self.quiet();
                self.machine.now += Duration::from_secs(3);
            }
            self.quiet();
            self.check_at_rest();
            self.machine.shut_down();
        }
        for _ in 0..60 {
            self.quiet();
            if self.machine.has_ended() {
                break;
            }
            self.machine.now += Duration::from_millis(500);
        }
        self.quiet();
        self.machine.check_released();
        let log = self.log.borrow();
        assert_eq!(log.opens, log.closes, "each open has its close");
        assert_eq!(log.ledger.speakers().count(), 0, "somebody still speaks for a session");
        for client in self.clients.iter().filter(|client| !client.is_wild) {
            let told = &client.line.counts;
            let given = log.given.get(&client.line.address).cloned().unwrap_or_default();
            assert!(given.starts_with(told), "{told:?} of {given:?}");
        }
    }

    /// What must be true when time enough has passed, and nothing is under way.
    fn check_at_rest(&self) {
        assert!(self.machine.net.borrow().queues.iter().all(|queue| queue.is_empty()));
        let log = self.log.borrow();
        for Client { line, asked, heard, has_asked, is_wild, is_leaving, .. } in &self.clients {
            assert!(line.hearing.is_open || line.is_cut() || *is_wild, "no deadline ended it");
            let is_plain = !is_wild && !is_leaving && !line.is_cut();
            if is_plain && *has_asked {
                assert_eq!(line.counts.len(), *asked, "{}: replies are missing", line.address);
                for (&reactor, &sent) in &log.broadcasts {
                    let before = log.broadcasts_before[&line.address].get(&reactor);
                    check_broadcasts(heard, reactor, before.copied().unwrap_or(0), sent);
                }
            }
        }
        log.check_sessions(&self.machine);
    }
}

/// Every broadcast of a reactor since the connection opened was heard, in order; of those under way
/// at that moment some may have been.
fn check_broadcasts(heard: &[Heard], reactor: usize, before: u64, sent: u64) {
    let prefix = format!("all {reactor} ");
    let number = |heard: &Heard| match heard {
        Heard::Text(text) => text.strip_prefix(&prefix)?.parse().ok(),
        _ => None,
    };
    let got: Vec<u64> = heard.iter().filter_map(number).collect();
    let first = got.first().copied().unwrap_or(before + 1).min(before + 1);
    assert_eq!(got, (first..=sent).collect::<Vec<u64>>(), "broadcasts of {reactor}");
}

impl Client {
    /// A request: mostly for a WebSocket, once.
    fn ask(&mut self, how: u8) {
        let query = match how % 8 {
            0 => String::new(),
            1 => "?session_id=&hello=1".to_owned(),
            2 => {
                self.pending.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
                return;
            }
            name => format!("?hello=1&session_id=s{name}"),
        };
        self.is_wild |= self.has_asked;
        self.has_asked = true;
        self.pending.extend(upgrade(&query));
    }

    /// A frame, or what a client says in several.
    fn converse(&mut self, how: u8, chance: &mut Chance) {
        if !self.has_asked {
            self.is_wild = true;
        }
        let size = [0, 1, 125, 126, 200, 290][usize::from(how) / 16 % 6];
        let words = &[b'x'; 300][..size];
        let mut say =
            |first: u8, payload: &[u8]| self.pending.extend(frame(first, payload, chance));
        match how % 16 {
            0..=5 => say(0x81, words),
            6 => say(0x82, words),
            7 => {
                say(0x01, words);
                say(0x89, b"there?");
                say(0x80, b"");
            }
            8 => say(0x89, &words[..size.min(125)]),
            9 => say(0x8a, b""),
            10 | 11 => say(0x81, b"all"),
            12 => say(0x81, b"quit"),
            13 => say(0x88, &1000u16.to_be_bytes()),
            14 => say(0x81, b"panic"),
            _ => say(0xc1, words),
        }
        match how % 16 {
            0..=7 => self.asked += 1,
            12.. => self.is_leaving = true,
            _ => {}
        }
    }

    /// Puts so many bytes of what it has to say on the wire; whether there were any.
    fn send(&mut self, most: usize) -> bool {
        let count = most.min(self.pending.len());
        if count == 0 {
            return false;
        }
        let piece: Vec<u8> = self.pending.drain(..count).collect();
        self.line.say(&piece);
        true
    }

    /// Reads; whether there was anything. Only between two frames of its own, or its answer to a
    /// ping would stand in the middle of one.
    fn listen(&mut self, most: usize, chance: &mut Chance) -> bool {
        if !self.pending.is_empty() {
            return false;
        }
        if !self.is_wild {
            return self.line.act(most, chance, &mut self.heard);
        }
        let mut wire = self.line.wire.borrow_mut();
        let got = !wire.receive(most).is_empty();
        let says_goodbye = wire.server_fin && !wire.fin && !wire.reset && !wire.closed;
        if says_goodbye {
            wire.end();
        }
        got || says_goodbye
    }

    fn leave(&mut self, by_reset: bool) {
        let mut wire = self.line.wire.borrow_mut();
        if by_reset {
            wire.reset();
        } else if !wire.fin && !wire.reset {
            wire.end();
        }
        self.is_leaving = true;
    }
}

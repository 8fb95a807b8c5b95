//! The whole process is stopped for minutes (SIGSTOP, a suspended machine, a frozen cgroup). Every peer
//! says in time what it owes, and the kernel keeps it; then every deadline is overdue at once. Nobody
//! may be told that it was late: what is there is heard first, however few edges a poll tells at once.

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

const TEXT: u8 = 0x81;

/// What a client has under way when the process stops, what it does meanwhile, and what it must hear
/// when the process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owes {
    /// The pong to a ping, behind other messages.
    Pong,
    /// The second half of a request head.
    Head,
    /// Another request on a connection that is kept.
    Request,
    /// The end of a message.
    Message,
    /// The answer to our Close, behind other messages.
    Echo,
    /// To read what it was sent.
    Reading,
    /// To cancel a timer of the application's.
    Timer,
    /// To come back to its session, whose time ends meanwhile.
    Return,
}

const ALL: [Owes; 8] = [
    Owes::Pong,
    Owes::Head,
    Owes::Request,
    Owes::Message,
    Owes::Echo,
    Owes::Reading,
    Owes::Timer,
    Owes::Return,
];

struct Client {
    owes: Owes,
    line: Line,
    heard: Vec<Heard>,
    name: String,
}

struct Stage {
    machine: Machine<Recorder>,
    clients: Vec<Client>,
    chance: Chance,
}

/// A name whose session the reactor owns to which the client will connect, or another one does.
fn name(number: usize, workers: usize) -> String {
    format!("s{number}x{workers}")
}

impl Stage {
    fn new(seed: u64) -> Stage {
        let mut chance = Chance(seed);
        let workers = chance.within(1, 2);
        let config = Arc::new(Config {
            workers: NonZeroUsize::new(workers).expect("one at least"),
            ws_max_size: 4096,
            max_send_buffer: 1024,
            session_ttl: Duration::from_secs(60),
            ws_ping_interval: Some(Duration::from_secs(2)),
            access_log: false,
            limits: Limits {
                receive_buffer_bytes: chance.pick(&[512, 8192]),
                head_bytes: 300,
                request_body_bytes: 200,
                target_bytes: 100,
                frames_per_turn: chance.pick(&[1, 4, 4096]),
                events_per_poll: chance.pick(&[1, 2, 5, 1024]),
                accepts_per_turn: chance.within(1, 3),
                alarms_per_turn: chance.pick(&[1, 512]),
                timers_per_turn: chance.pick(&[1, 512]),
                ..Limits::default()
            },
            ..Config::default()
        });
        let log = Rc::new(RefCell::new(Log::default()));
        log.borrow_mut().forgets = true;
        let machine = Machine::new(&config, 3, seed, Faults::default(), |start| Recorder {
            reactor: start.reactor(),
            log: log.clone(),
        });
        Stage { machine, clients: Vec::new(), chance }
    }

    fn dial(&mut self, number: usize) -> Line {
        let address = SocketAddr::from(([127, 0, 0, 1], number as u16 + 1));
        let line = Line::new(address, Wire::new(2000, 0));
        let at = self.chance.within(0, self.machine.len() - 1);
        self.machine.connect(at, &line.wire, line.address);
        line
    }

    /// Everybody reads and answers, but who owes something else.
    fn quiet(&mut self) {
        let Stage { machine, clients, chance } = self;
        machine.quiet(|| {
            let mut acted = false;
            for client in clients.iter_mut() {
                acted |= client.line.act(usize::MAX, chance, &mut client.heard);
            }
            acted
        });
    }

    /// The same, but nobody reads or answers anything any more.
    fn unanswered(&mut self) {
        self.machine.quiet(|| false);
    }

    fn say(&mut self, at: usize, words: &[&[u8]]) {
        for word in words {
            let bytes = frame(TEXT, word, &mut self.chance);
            self.clients[at].line.say(&bytes);
        }
    }

    fn begin(&mut self, owes: Owes) {
        let number = self.clients.len();
        let line = self.dial(number);
        let name = name(number, self.machine.len());
        let request = upgrade(&format!("?session_id={name}"));
        match owes {
            Owes::Head => line.say(&request[..50]),
            Owes::Request => line.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
            _ => line.say(&request),
        }
        self.clients.push(Client { owes, line, heard: Vec::new(), name });
    }

    /// What is under way when the process stops.
    fn prepare(&mut self, at: usize) {
        match self.clients[at].owes {
            Owes::Pong | Owes::Head | Owes::Request => {}
            Owes::Message => {
                let bytes = frame(0x01, b"the beginning", &mut self.chance);
                self.clients[at].line.say(&bytes);
            }
            Owes::Echo => self.say(at, &[b"quit"]),
            // More than the wire and the backlog take.
            Owes::Reading => (0..1000).for_each(|_| self.say(at, &[b"x"])),
            Owes::Timer => self.say(at, &[b"timer 1 7000"]),
            Owes::Return => {
                self.say(at, &[b"x"]);
                self.clients[at].line.wire.borrow_mut().end();
            }
        }
    }

    /// What it does while the process stands still.
    fn act_meanwhile(&mut self, at: usize) {
        let chance = &mut self.chance;
        let Client { owes, line, heard, name } = &mut self.clients[at];
        match owes {
            Owes::Head => line.say(&upgrade(&format!("?session_id={name}"))[50..]),
            Owes::Request => line.say(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
            Owes::Message => line.say(&frame(0x80, b"the end", chance)),
            Owes::Timer => line.say(&frame(TEXT, b"timer 1 0", chance)),
            Owes::Pong | Owes::Echo => {
                // Before it has read that it is asked: these were on their way.
                (0..150).for_each(|_| line.say(&frame(TEXT, b"y", chance)));
            }
            Owes::Reading | Owes::Return => {}
        }
        // It answers pings, and our Close.
        while line.act(usize::MAX, chance, heard) {}
        if *owes == Owes::Return {
            let name = name.clone();
            let again = self.dial(at + 1000);
            again.say(&upgrade(&format!("?session_id={name}")));
            self.clients[at].line = again;
            self.clients[at].heard.clear();
        }
    }

    fn check(&self, at: usize) {
        let Client { owes, line, heard, .. } = &self.clients[at];
        let closes: Vec<_> = heard.iter().filter(|h| matches!(h, Heard::Close(_))).collect();
        let refused = heard.iter().any(|h| matches!(h, Heard::Response(400.., _)));
        assert!(!refused && !line.wire.borrow().reset, "{owes:?}: {heard:?}");
        match owes {
            Owes::Echo => {
                assert_eq!(closes, [&Heard::Close(1000)], "{heard:?}");
                let wire = line.wire.borrow();
                assert!(wire.closed && wire.up.is_empty(), "its echo was not read: {wire:?}");
            }
            _ => assert!(closes.is_empty(), "{owes:?}: {heard:?}"),
        }
        match owes {
            Owes::Request => assert_eq!(heard[..], [const { Heard::Response(200, None) }; 2]),
            Owes::Return => assert_eq!(heard[0], Heard::Response(101, Some(1))),
            Owes::Message => assert_eq!(line.counts, [1]),
            Owes::Pong => assert_eq!(line.counts.len(), 150),
            Owes::Reading => assert_eq!(line.counts.len(), 1000),
            Owes::Timer => {
                assert!(!heard.contains(&Heard::Text("timer 1".to_owned())), "{heard:?}");
            }
            Owes::Head => assert!(line.hearing.is_open, "{heard:?}"),
            Owes::Echo => {}
        }
    }
}

#[test]
fn nobody_is_judged_before_it_is_heard() {
    let mut handed_over = 0;
    for seed in 0..150 {
        let mut stage = Stage::new(seed);
        for _ in 0..stage.chance.within(8, 24) {
            let owes = stage.chance.pick(&ALL);
            stage.begin(owes);
        }
        let kept = |owes: Owes| owes != Owes::Head && owes != Owes::Request;
        stage.quiet();
        // The first ping, which nobody answers yet.
        for at in 0..stage.clients.len() {
            if kept(stage.clients[at].owes) {
                stage.prepare(at);
            }
        }
        stage.unanswered();
        stage.machine.now += Duration::from_millis(4900);
        stage.unanswered();
        // So long that everything is overdue: a head, a kept connection, a ping and its pong, a
        // message, a Close, a backlog, a timer, a session.
        let pause = Duration::from_secs(stage.chance.pick(&[30, 70, 3600]));
        for at in 0..stage.clients.len() {
            stage.act_meanwhile(at);
        }
        stage.machine.now += pause;
        stage.quiet();
        stage.machine.now += Duration::from_secs(3);
        stage.quiet();
        for at in 0..stage.clients.len() {
            stage.check(at);
            let client = &stage.clients[at];
            handed_over += owner_of(&client.name, stage.machine.len());
        }
        assert_as_planned();
    }
    assert!(handed_over > 0, "sessions of several reactors");
}

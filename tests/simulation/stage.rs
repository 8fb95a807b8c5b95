//! A machine and clients that are moved by hand, for what is looked at one thing at a time (`parked`,
//! `pending`).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use revolve::config::Config;

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, frame, upgrade};
use super::pieces::faults::Faults;
use super::pieces::machine::Machine;
use super::pieces::recorder::{Log, Recorder, assert_as_planned, hide_planned_panics};
use super::pieces::streams::Wire;

pub struct Stage {
    pub machine: Machine<Recorder>,
    pub faults: Faults,
    pub log: Rc<RefCell<Log>>,
    pub clients: Vec<(Line, Vec<Heard>)>,
}

impl Stage {
    pub fn new(config: Config) -> Stage {
        hide_planned_panics();
        let config = Arc::new(Config { access_log: false, ..config });
        let (log, faults) = (Rc::new(RefCell::new(Log::default())), Faults::default());
        let machine = Machine::new(&config, 8, 1, faults.clone(), |start| Recorder {
            reactor: start.reactor(),
            log: log.clone(),
        });
        Stage { machine, faults, log, clients: Vec::new() }
    }

    /// A client of reactor 0 with this query, which says these words as soon as it may; its number.
    pub fn connect(&mut self, query: &str, words: &[&str]) -> usize {
        let number = self.clients.len();
        let address = SocketAddr::from(([127, 0, 0, 1], number as u16 + 1));
        let line = Line::new(address, Wire::new(20_000, 0));
        line.say(&upgrade(query));
        self.machine.connect(0, &line.wire, line.address);
        self.clients.push((line, Vec::new()));
        self.say(number, words);
        self.turns();
        number
    }

    /// What it says comes in one piece.
    pub fn say(&mut self, number: usize, words: &[&str]) {
        let frames = words.iter().map(|word| frame(0x81, word.as_bytes(), &mut Chance(1)));
        let bytes: Vec<u8> = frames.flatten().collect();
        self.clients[number].0.say(&bytes);
    }

    /// All that happens by itself: no job returns.
    pub fn turns(&mut self) {
        let clients = &mut self.clients;
        self.machine.quiet(|| {
            let mut acted = false;
            for (line, heard) in clients.iter_mut() {
                acted |= line.act(usize::MAX, &mut Chance(1), heard);
            }
            acted
        });
    }

    /// The job that was off-loaded as number `index` of those under way returns.
    pub fn job(&mut self, index: usize) {
        self.machine.net.borrow_mut().run_job(index);
        self.turns();
    }

    pub fn jobs(&self) -> usize {
        self.machine.net.borrow().jobs.len()
    }

    pub fn pass(&mut self, time: Duration) {
        self.machine.now += time;
        self.turns();
    }

    /// Everyone leaves, every job returns, and nothing is held.
    pub fn end(mut self) {
        self.machine.shut_down();
        self.turns();
        self.machine.net.borrow_mut().run_jobs();
        self.turns();
        self.pass(Duration::from_secs(200));
        self.machine.check_released();
        assert_eq!(self.log.borrow().opens, self.log.borrow().closes);
        assert_as_planned();
    }
}

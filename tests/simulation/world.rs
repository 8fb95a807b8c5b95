//! The world of one seed: shards, their hosts, the clients, and time; and what must be true of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revolve::config::{Config, Limits};
use revolve::host::Host;
use revolve::mailbox::Mail;
use revolve::metrics::ServerStatus;
use revolve::session::owner_of;
use revolve::shard::Shard;
use revolve::token::ConnectionId;

use super::Chance;
use super::clients::{Client, Ending, Heard, Manner};
use super::recorder::{Log, Recorder};
use super::streams::{Edges, Scripted, Wire};

/// How often the interesting things happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    turns: u64,
    messages: u64,
    hand_overs: u64,
    takeovers: u64,
    resumes: u64,
    broadcasts: u64,
    throttled: u64,
    full_boxes: u64,
    lost: u64,
    panics: u64,
    cut: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.turns += other.turns;
        self.messages += other.messages;
        self.hand_overs += other.hand_overs;
        self.takeovers += other.takeovers;
        self.resumes += other.resumes;
        self.broadcasts += other.broadcasts;
        self.throttled += other.throttled;
        self.full_boxes += other.full_boxes;
        self.lost += other.lost;
        self.panics += other.panics;
        self.cut += other.cut;
    }

    pub fn assert_rich(&self) {
        let all = [
            self.messages,
            self.hand_overs,
            self.takeovers,
            self.resumes,
            self.broadcasts,
            self.throttled,
            self.full_boxes,
            self.lost,
            self.panics,
            self.cut,
        ];
        assert!(
            all.iter().all(|&seen| seen >= 20),
            "the seeds no longer reach everything: {self:?}"
        );
    }
}

type Parcelled = Mail<Scripted>;

/// What the hosts of all shards share: accept queues and mailboxes.
#[derive(Default)]
struct Net {
    queues: Vec<VecDeque<(Scripted, SocketAddr)>>,
    listening: Vec<bool>,
    /// An edge on a listener that has not been delivered.
    arrivals: Vec<bool>,
    boxes: Vec<VecDeque<Parcelled>>,
    wakes: Vec<bool>,
    box_capacity: usize,
    ended: Vec<bool>,
    registrations: Vec<i64>,
    /// Accepts that fail before the next one succeeds.
    accept_errors: VecDeque<i32>,
    random: u64,
    full_boxes: u64,
}

struct SimHost {
    shard: usize,
    net: Rc<RefCell<Net>>,
}

impl Host for SimHost {
    type Stream = Scripted;

    fn accept(&mut self) -> io::Result<(Scripted, SocketAddr)> {
        let mut net = self.net.borrow_mut();
        if net.queues[self.shard].is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(errno) = net.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        net.queues[self.shard].pop_front().ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn stop_listening(&mut self) {
        self.net.borrow_mut().listening[self.shard] = false;
        self.net.borrow_mut().queues[self.shard].clear();
    }

    fn register(&mut self, stream: &mut Scripted, id: ConnectionId) -> io::Result<()> {
        assert!(stream.0.borrow().registered.is_none(), "registered twice");
        stream.0.borrow_mut().register(self.shard, id);
        self.net.borrow_mut().registrations[self.shard] += 1;
        Ok(())
    }

    fn deregister(&mut self, stream: &mut Scripted) -> io::Result<()> {
        let left = stream.0.borrow_mut().registered.take();
        assert_eq!(left.map(|(shard, _)| shard), Some(self.shard));
        self.net.borrow_mut().registrations[self.shard] -= 1;
        Ok(())
    }

    fn send(&mut self, reactor: usize, mail: Parcelled) -> Result<(), Parcelled> {
        assert_ne!(reactor, self.shard, "mail to oneself");
        let mut net = self.net.borrow_mut();
        if net.ended[reactor] {
            // To nobody: a channel without a receiver drops what is put into it.
            return Ok(());
        }
        if net.boxes[reactor].len() >= net.box_capacity {
            net.full_boxes += 1;
            return Err(mail);
        }
        net.boxes[reactor].push_back(mail);
        net.wakes[reactor] = true;
        Ok(())
    }

    fn receive(&mut self) -> Option<Parcelled> {
        self.net.borrow_mut().boxes[self.shard].pop_front()
    }

    fn random(&mut self, room: &mut [u8]) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        let mut chance = Chance(net.random);
        room.fill_with(|| chance.next() as u8);
        net.random = chance.0;
        Ok(())
    }
}

struct Station {
    shard: Shard<Recorder, SimHost>,
    host: SimHost,
    /// When its poll returns without an event.
    wakes_at: Option<Instant>,
    /// Wires registered here, for counting.
    ended: bool,
}

struct World {
    chance: Chance,
    now: Instant,
    stations: Vec<Station>,
    clients: Vec<Client>,
    net: Rc<RefCell<Net>>,
    log: Rc<RefCell<Log>>,
    status: Arc<ServerStatus>,
    turns: u64,
    trace: bool,
}

fn config(chance: &mut Chance, workers: usize) -> Config {
    Config {
        workers: NonZeroUsize::new(workers).expect("one at least"),
        ws_max_size: 4096,
        max_send_buffer: chance.pick(&[1024, 2048, 16_384]),
        max_sessions: chance.pick(&[1_000_000, 1_000_000, 12]),
        session_ttl: Duration::from_secs(chance.pick(&[3600, 3600, 2])),
        timeout_graceful_shutdown: Duration::from_secs(chance.pick(&[1, 10])),
        access_log: false,
        limits: Limits {
            receive_buffer_bytes: chance.pick(&[256, 1024, 8192]),
            head_bytes: 250,
            target_bytes: 100,
            frames_per_turn: chance.within(1, 9),
            requests_per_turn: chance.within(1, 3),
            cork_bytes: chance.pick(&[16, 200, 5000]),
            flush_bytes_per_turn: chance.pick(&[10, 500, 100_000]),
            accepts_per_turn: chance.within(1, 4),
            mails_per_turn: chance.within(1, 3),
            alarms_per_turn: chance.within(1, 3),
            expiries_per_turn: chance.within(1, 3),
            broadcast_slice: chance.within(1, 5),
            broadcasts_queued: chance.within(1, 6),
            // Longer than the bustle: clients there are slow, and are not to be let down for it.
            close_timeout: Duration::from_secs(90),
            send_stall: Duration::from_secs(90),
            linger: Duration::from_secs(90),
            ..Limits::default()
        },
        ..Config::default()
    }
}

pub fn run(seed: u64, trace: bool) -> Totals {
    let mut chance = Chance(seed);
    let workers = chance.within(1, 4);
    let mut config = config(&mut chance, workers);
    // A head must fit where it is collected.
    config.limits.receive_buffer_bytes = config.limits.receive_buffer_bytes.max(256);
    let log = Rc::new(RefCell::new(Log::default()));
    log.borrow_mut().forgets = config.max_sessions < 100 || config.session_ttl.as_secs() < 100;
    let config = Arc::new(config);
    let status = Arc::new(ServerStatus::new(workers, Arc::default()));
    let now = Instant::now();
    let net = Rc::new(RefCell::new(Net {
        queues: (0..workers).map(|_| VecDeque::new()).collect(),
        listening: vec![true; workers],
        arrivals: vec![false; workers],
        boxes: (0..workers).map(|_| VecDeque::new()).collect(),
        wakes: vec![false; workers],
        ended: vec![false; workers],
        box_capacity: chance.within(1, 3),
        registrations: vec![0; workers],
        random: seed,
        ..Net::default()
    }));
    let stations = (0..workers)
        .map(|number| {
            let recorder = Recorder { reactor: number, log: log.clone() };
            let shard = Shard::new(number, config.clone(), status.clone(), recorder, now);
            let host = SimHost { shard: number, net: net.clone() };
            Station { shard, host, wakes_at: None, ended: false }
        })
        .collect();
    let clients = Vec::new();
    let mut world = World { chance, now, stations, clients, net, log, status, turns: 0, trace };
    world.bustle();
    world.settle();
    world.check_attentive();
    world.drain();
    world.totals()
}

impl World {
    /// Clients come, talk and go in random order, while time passes now and then.
    fn bustle(&mut self) {
        let steps = self.chance.within(200, 900);
        for _ in 0..steps {
            match self.chance.within(0, 99) {
                0..=7 => self.connect(),
                8..=60 => self.some_client_acts(),
                61..=96 => self.some_shard_turns(),
                97 => {
                    let errno = self.chance.pick(&[4, 103, 24]); // EINTR, ECONNABORTED, EMFILE
                    self.net.borrow_mut().accept_errors.push_back(errno);
                }
                _ => {
                    let step = self.chance.pick(&[1, 60, 900, 6000]);
                    self.now += Duration::from_millis(step);
                }
            }
        }
    }

    fn connect(&mut self) {
        let number = self.clients.len() as u16 + 1;
        let manner = match self.chance.within(0, 99) {
            0..=79 => Manner::Talks,
            80..=84 => Manner::NeverReads,
            85..=89 => Manner::Silent,
            90..=94 => Manner::Garbage,
            _ => Manner::Browses,
        };
        let session = self.chance.percent(75).then(|| {
            let name = self.chance.within(0, 5);
            format!("s{name}")
        });
        let client = Client::new(number, manner, session, &mut self.chance);
        let at = self.chance.within(0, self.stations.len() - 1);
        let mut net = self.net.borrow_mut();
        net.queues[at].push_back((Scripted(client.wire.clone()), client.address));
        net.arrivals[at] = true;
        drop(net);
        self.clients.push(client);
    }

    fn some_client_acts(&mut self) {
        if !self.clients.is_empty() {
            let at = self.chance.within(0, self.clients.len() - 1);
            if self.clients[at].is_busy() {
                self.clients[at].act(&mut self.chance);
            }
        }
    }

    fn some_shard_turns(&mut self) {
        let at = self.chance.within(0, self.stations.len() - 1);
        self.turn_if_woken(at);
    }

    /// Gives a shard its turn, if a poll would return: for an event, or because its time is up.
    fn turn_if_woken(&mut self, at: usize) -> bool {
        let station = &mut self.stations[at];
        if station.ended {
            return false;
        }
        let mut woken = station.wakes_at.is_some_and(|when| when <= self.now);
        let mut net = self.net.borrow_mut();
        if std::mem::take(&mut net.arrivals[at]) && net.listening[at] {
            station.shard.note_listener();
            woken = true;
        }
        if std::mem::take(&mut net.wakes[at]) {
            station.shard.note_mail();
            woken = true;
        }
        drop(net);
        for client in &self.clients {
            let mut wire = client.wire.borrow_mut();
            let Some((shard, id)) = wire.registered else { continue };
            if shard == at && wire.edges.any() {
                let Edges { readable, writable, read_closed } = wire.take_edges();
                station.shard.note_connection(id, readable, writable, read_closed);
                woken = true;
            }
        }
        if !woken {
            return false;
        }
        station.shard.turn(self.now, &mut station.host);
        self.turns += 1;
        if station.shard.outcome().is_some() {
            station.ended = true;
            self.net.borrow_mut().ended[at] = true;
            // The receiver goes with its reactor, and what it had not read with it.
            let unread = std::mem::take(&mut self.net.borrow_mut().boxes[at]);
            drop(unread);
        }
        station.wakes_at = station.shard.timeout(self.now).map(|sleep| self.now + sleep);
        if self.trace {
            println!("turn {} of shard {at} at {:?}", self.turns, station.wakes_at);
        }
        if !station.ended {
            station.shard.invariants();
        }
        let held = self.status.reactor(at).connections.get() as i64;
        let watched = |client: &&Client| {
            client.wire.borrow().registered.is_some_and(|(shard, _)| shard == at)
        };
        assert_eq!(
            self.clients.iter().filter(watched).count() as i64,
            held,
            "slab = registrations"
        );
        true
    }

    /// Everyone acts until nobody has anything to do without time passing.
    fn quiet(&mut self) {
        for round in 0.. {
            let mut acted = false;
            assert!(round < 20_000, "the world does not come to rest");
            for at in 0..self.clients.len() {
                if self.clients[at].is_busy() {
                    if round > 19_998 {
                        println!("busy: {:?}", self.clients[at]);
                    }
                    self.clients[at].act(&mut self.chance);
                    acted = true;
                }
            }
            for at in 0..self.stations.len() {
                acted |= self.turn_if_woken(at);
            }
            // A shard that retries a full mailbox in a millisecond is not at rest.
            let retries = |station: &Station| {
                let soon = self.now + Duration::from_millis(2);
                !station.ended && station.wakes_at.is_some_and(|when| when <= soon)
            };
            if !acted {
                if !self.stations.iter().any(retries) {
                    return;
                }
                self.now += Duration::from_millis(1);
            }
        }
    }

    /// Lets time pass until all deadlines that can pass have passed.
    fn settle(&mut self) {
        self.quiet();
        self.check_at_rest();
        for _ in 0..100 {
            self.quiet();
            self.now += Duration::from_secs(3);
        }
        self.quiet();
        for client in &self.clients {
            let has_let_down = match client.manner {
                Manner::Silent | Manner::NeverReads => true,
                _ => client.ending == Ending::FallSilent,
            };
            // Someone who asked for nothing is answered by nothing but the deadline.
            let is_gone = client.wire.borrow().closed;
            assert!(!has_let_down || is_gone, "{}: no deadline ended it", client.address);
        }
    }

    /// What must have happened without any time passing.
    fn check_at_rest(&self) {
        let pauses: u64 =
            (0..self.stations.len()).map(|at| self.status.reactor(at).accept_pauses.get()).sum();
        let is_accepted = self.net.borrow().queues.iter().all(VecDeque::is_empty);
        assert!(is_accepted || pauses > 0, "someone waits to be accepted");
        for client in &self.clients {
            let wire = client.wire.borrow();
            let was_accepted = wire.registered.is_some();
            assert!(!(was_accepted && wire.fin), "{}: its end went unnoticed", client.address);
        }
    }

    /// What must be true of those who stayed and listened, while all is quiet.
    fn check_attentive(&self) {
        let log = self.log.borrow();
        for client in &self.clients {
            self.check_client(client, &log);
            if !client.is_attentive() || client.has_closed() {
                continue;
            }
            if client.was_refused() {
                continue;
            }
            assert!(client.is_open(), "{}: no answer", client.address);
            let asked = client.asked;
            assert_eq!(client.counts().len(), asked, "{}: replies are missing", client.address);
            for (&reactor, &sent) in &log.broadcasts {
                let got = client.broadcasts_of(reactor);
                // Those under way when it opened may or may not have reached it; from then on it
                // got every one.
                let before = &log.broadcasts_before[&client.address];
                let owed = before.get(&reactor).copied().unwrap_or(0) + 1;
                let first = got.first().copied().unwrap_or(owed).min(owed);
                let expected: Vec<u64> = (first..=sent).collect();
                assert_eq!(got, expected, "{}: broadcasts of {reactor}", client.address);
            }
        }
        for (at, station) in self.stations.iter().enumerate() {
            for (id, count) in station.shard.session_counts() {
                assert_eq!(owner_of(&id, self.stations.len()), at, "a session in the wrong table");
                assert_eq!(log.counts.get(&id).copied().unwrap_or(0), count);
            }
        }
        if !log.forgets {
            for (id, &count) in &log.counts {
                let owner = &self.stations[owner_of(id, self.stations.len())].shard;
                let kept = owner.session_counts().contains(&(id.clone(), count));
                assert!(kept, "session {id} was lost");
            }
        }
    }

    /// Whatever a client heard must be what the application gave it: all of it or a beginning.
    fn check_client(&self, client: &Client, log: &Log) {
        if client.manner == Manner::Talks {
            assert!(client.is_welcome(), "{}: a good request was refused", client.address);
        }
        let told = client.counts();
        let given = log.given.get(&client.address).cloned().unwrap_or_default();
        assert!(given.starts_with(&told), "{}: {told:?} of {given:?}", client.address);
        for &reactor in log.broadcasts.keys() {
            let got = client.broadcasts_of(reactor);
            let is_gapless = got.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(is_gapless, "{}: broadcasts of {reactor}: {got:?}", client.address);
        }
        let said_bye = client.heard.contains(&Heard::Text("bye".to_owned()));
        if said_bye && client.ending == Ending::Quit {
            // Every message before it was answered before it.
            assert_eq!(told.len(), client.asked, "{}: quit overtook a reply", client.address);
        }
        if let Some(Heard::Response(101, Some(start))) =
            client.heard.iter().find(|heard| matches!(heard, Heard::Response(101, _)))
            && let Some(first) = told.first()
        {
            assert_eq!(*first, start + 1, "{}: the head told another count", client.address);
        }
    }

    /// Shuts down, and checks that everything ends.
    fn drain(&mut self) {
        // Some are in mid-sentence when it begins.
        for _ in 0..self.chance.within(0, 5) {
            self.connect();
        }
        for _ in 0..self.chance.within(0, 40) {
            self.some_client_acts();
            self.some_shard_turns();
        }
        for at in 0..self.stations.len() {
            self.net.borrow_mut().boxes[at].push_back(Mail::Shutdown);
            self.net.borrow_mut().wakes[at] = true;
        }
        for _ in 0..30 {
            self.quiet();
            if self.stations.iter().all(|station| station.ended) {
                break;
            }
            self.now += Duration::from_millis(500);
        }
        self.quiet();
        assert!(self.stations.iter().all(|station| station.ended), "a shard did not end");
        self.net.borrow_mut().queues.iter_mut().for_each(VecDeque::clear);
        for client in &self.clients {
            assert!(client.wire.borrow().closed, "{}: a socket leaked", client.address);
        }
        let log = self.log.borrow();
        assert_eq!(log.opens, log.closes, "each open has its close");
        for client in &self.clients {
            self.check_client(client, &log);
            let wire: &Wire = &client.wire.borrow();
            if client.is_owed_a_close() && !wire.reset {
                assert!(client.has_closed(), "{}: no Close {client:?}", client.address);
            }
        }
    }

    fn totals(&self) -> Totals {
        let sum = |cell: fn(&revolve::metrics::ReactorMetrics) -> u64| {
            (0..self.stations.len()).map(|at| cell(self.status.reactor(at))).sum()
        };
        let outcomes = self.stations.iter().filter_map(|station| station.shard.outcome());
        let is_slow = |client: &&Client| client.manner == Manner::NeverReads;
        Totals {
            turns: self.turns,
            messages: sum(|r| r.messages.get()),
            hand_overs: sum(|r| r.hand_overs_in.get()),
            takeovers: sum(|r| r.takeovers.get()),
            resumes: sum(|r| r.resumes.get()),
            broadcasts: self.log.borrow().broadcasts.values().sum(),
            throttled: self.clients.iter().filter(is_slow).count() as u64,
            full_boxes: self.net.borrow().full_boxes,
            lost: self.clients.iter().filter(|client| client.wire.borrow().reset).count() as u64,
            panics: sum(|r| r.panics.get()),
            cut: outcomes.map(|outcome| outcome.cut).sum(),
        }
    }
}

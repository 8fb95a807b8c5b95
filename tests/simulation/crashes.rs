//! A server that crashes and starts again, with another number of reactors: shards, gate, store and disk together.
//!
//! Clients count under a few ids, through whatever happens: connections that are lost, takeovers, sessions that are
//! forgotten. The file store stands on the simulated disk, which loses what was not synced. Now and then the process is
//! killed, the power goes, or the server drains; then the next one starts on what the disk has. For each id what is
//! recovered must lie between what its clients were told and what they have sent; and no count is ever told twice.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use revolve::application::Storing;
use revolve::config::{Config, Limits};
use revolve::observe::slab_map::SlotState;
use revolve::store::record::{Entry, decode};
use revolve::store::{Batch, BatchLimits, FileStore, Opening, Options, Recovered, Store};
use revolve::testing::simulated_disk::{Lie, SimulatedDisk};
use revolve::{Application, Context, Message, SavedState};

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, frame, upgrade, watch};
use super::pieces::faults::Faults;
use super::pieces::machine::{BEGINNING_MS, Machine};
use super::pieces::streams::Wire;

/// Sessions that clients speak for.
const IDS: usize = 6;

/// Small, so that a few batches fill a segment.
const OPTIONS: Options = Options {
    segment_bytes: 4096,
    batch: BatchLimits { batch_bytes: 1024, state_bytes: 200 },
    ttl_ms: u64::MAX,
    compaction_bytes: 1500,
};

/// Counts; its state is always three times the count.
struct Tally;

impl Application for Tally {
    type Session = u64;
    type Connection = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        assert_eq!(*cx.session(), 3 * cx.count(), "the state is that of the count");
        cx.send_text(&format!("open {}", cx.count()));
    }

    /// Counts once more, and says goodbye.
    fn on_timer(&mut self, cx: &mut Context<'_, Self>, _key: u64) {
        count(cx);
        cx.close(4000, "time is up");
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text("forget") => {
                cx.forget_session();
                cx.send_text("forgotten");
            }
            Message::Text("last") => {
                count(cx);
                cx.close(4001, "as you wish");
            }
            Message::Text("later") => {
                let _ = cx.set_timer(Duration::from_millis(20), 0);
            }
            // Of its state alone, for once.
            Message::Text("touch") => *cx.session_mut() += 0,
            _ => count(cx),
        }
    }

    fn save(state: &u64) -> Option<SavedState> {
        Some(SavedState { version: 1, bytes: state.to_le_bytes().to_vec() })
    }

    fn load(saved: &SavedState) -> u64 {
        assert_eq!(saved.version, 1);
        u64::from_le_bytes(saved.bytes[..].try_into().expect("eight bytes"))
    }
}

fn count(cx: &mut Context<'_, Tally>) {
    let count = cx.count_message();
    *cx.session_mut() = 3 * count;
    cx.send_text(&count.to_string());
}

/// What is known of the sessions of one id.
#[derive(Debug, Default)]
struct Known {
    /// Messages sent since it was last known to be forgotten.
    sent: u64,
    /// Counts that were told since then.
    told: HashSet<u64>,
    most_told: u64,
    /// What was written, and what was synced.
    written: u64,
    synced: u64,
    /// Whether it may have been forgotten since then.
    may_be_forgotten: bool,
}

/// What the store promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// All that clients were told.
    Told,
    /// All that was written, or, after a power loss, synced.
    Written,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    PowerLoss,
    Drained,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Totals {
    starts: u64,
    told: u64,
    recovered: u64,
    /// Counts that were sent, or even stored, and of which no client has heard.
    untold: u64,
    lost: u64,
    refused: u64,
    compactions: u64,
    forgotten: u64,
}

struct Client {
    id: usize,
    line: Line,
    heard: Vec<Heard>,
    counts: usize,
    leaves: bool,
}

struct World {
    chance: Chance,
    disk: SimulatedDisk,
    store: Option<FileStore<SimulatedDisk>>,
    machine: Machine<Tally>,
    storing: Storing,
    promise: Promise,
    clients: Vec<Client>,
    known: BTreeMap<usize, Known>,
    /// Sessions that the shards have not been given yet.
    to_recover: Option<Vec<Recovered>>,
    /// Shards of which the batch is written and not answered.
    written: Vec<usize>,
    connections: u16,
    /// What was found that must not be: the first of it.
    found: Option<String>,
    totals: Totals,
}

fn config(chance: &mut Chance) -> Arc<Config> {
    Arc::new(Config {
        workers: NonZeroUsize::new(chance.within(1, 4)).expect("one at least"),
        access_log: false,
        ws_ping_interval: None,
        store_timeout: Duration::from_secs(86_400),
        limits: Limits {
            frames_per_turn: chance.within(1, 9),
            cork_bytes: chance.pick(&[16, 5000]),
            mails_per_turn: chance.within(1, 3),
            restores_per_turn: chance.within(1, 3),
            stored_state_bytes: OPTIONS.batch.state_bytes,
            store_batch_bytes: OPTIONS.batch.batch_bytes,
            ..Limits::default()
        },
        ..Config::default()
    })
}

fn name(id: usize) -> String {
    format!("s{id}")
}

fn start(chance: &mut Chance, storing: Storing, wall_clock_ms: u64) -> Machine<Tally> {
    let seed = chance.next();
    let machine =
        Machine::storing(&config(chance), (4, storing), seed, Faults::default(), |_| Tally);
    machine.net.borrow_mut().beginning_ms = wall_clock_ms;
    machine
}

impl World {
    fn new(seed: u64, storing: Storing, promise: Promise, lie: Lie) -> World {
        let mut chance = Chance(seed);
        let disk = SimulatedDisk::new(chance.next());
        disk.lie(lie);
        let machine = start(&mut chance, storing, BEGINNING_MS);
        let mut world = World {
            chance,
            disk,
            store: None,
            machine,
            storing,
            promise,
            clients: Vec::new(),
            known: (0..IDS).map(|id| (id, Known::default())).collect(),
            to_recover: None,
            written: Vec::new(),
            connections: 0,
            found: None,
            totals: Totals::default(),
        };
        world.open(BEGINNING_MS, None);
        world
    }

    /// Opens the store, and looks at what it has kept.
    fn open(&mut self, now_ms: u64, end: Option<End>) {
        self.disk = self.disk.restarted();
        let opening = Opening { options: OPTIONS, now_ms, repair: false };
        let (store, recovery) = match FileStore::open(self.disk.clone(), opening) {
            Ok(opened) => opened,
            Err(error) => {
                self.found.get_or_insert_with(|| error.to_string());
                self.to_recover = Some(Vec::new());
                return;
            }
        };
        self.store = Some(store);
        self.totals.starts += 1;
        self.totals.recovered += recovery.sessions.len() as u64;
        if let Some(end) = end {
            self.check(&recovery.sessions, end);
        }
        self.to_recover = Some(recovery.sessions);
    }

    fn check(&mut self, sessions: &[Recovered], end: End) {
        for (&id, known) in &mut self.known {
            let found = sessions.iter().find(|found| found.record.id.text().as_str() == name(id));
            let count = found.map_or(0, |found| found.record.count);
            let least = match (self.promise, end) {
                _ if known.may_be_forgotten => 0,
                (Promise::Told, _) => known.most_told,
                (Promise::Written, End::Drained) => known.most_told,
                (Promise::Written, End::Killed) => known.written,
                (Promise::Written, End::PowerLoss) => known.synced,
            };
            let range = least..=known.sent;
            if !range.contains(&count) {
                let text = || format!("{id}: {count} is not in {range:?}: {known:?}");
                self.found.get_or_insert_with(text);
            }
            self.totals.untold += u64::from(count > known.most_told);
            self.totals.lost += u64::from(count < known.most_told && !known.may_be_forgotten);
            (known.written, known.synced) = (count, count);
            // From here on what counts is what is there.
            known.told.retain(|&told| told <= count);
            known.most_told = known.most_told.min(count);
            known.may_be_forgotten = false;
        }
    }

    fn step(&mut self) {
        match self.chance.within(0, 99) {
            0..=2 => self.connect(),
            3..=46 => self.some_client_acts(),
            47..=83 => {
                let at = self.chance.within(0, self.machine.len() - 1);
                self.machine.turn_if_woken(at);
            }
            84..=88 => self.write_some(),
            89..=93 => self.sync(),
            94 => self.upkeep(),
            95..=96 => {
                self.recover();
            }
            _ => self.machine.now += Duration::from_millis(self.chance.within(1, 50) as u64),
        }
    }

    fn recover(&mut self) {
        if let Some(sessions) = self.to_recover.take() {
            self.machine.recover(sessions);
        }
    }

    fn connect(&mut self) {
        let id = self.chance.within(0, IDS - 1);
        self.connections += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], self.connections));
        let room = self.chance.pick(&[40, 20_000]);
        let line = Line::new(address, Wire::new(room, self.chance.within(0, 2)));
        line.say(&upgrade(&format!("?session_id={}", name(id))));
        let at = self.chance.within(0, self.machine.len() - 1);
        self.machine.connect(at, &line.wire, address);
        self.clients.push(Client { id, line, heard: Vec::new(), counts: 0, leaves: false });
    }

    fn some_client_acts(&mut self) {
        let Some(last) = self.clients.len().checked_sub(1) else { return };
        let at = self.chance.within(0, last);
        if self.clients[at].line.is_cut() {
            self.clients.swap_remove(at);
            return;
        }
        match self.chance.within(0, 9) {
            0..=4 => self.read(at),
            5..=8 => self.say(at),
            _ if self.chance.percent(30) => {
                let client = self.clients.swap_remove(at);
                match self.chance.percent(50) {
                    true => client.line.wire.borrow_mut().end_if_open(),
                    false => client.line.wire.borrow_mut().reset(),
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let known = self.known.get_mut(&client.id).expect("one of them");
        if client.leaves || !client.line.hearing.is_open {
            return;
        }
        if self.chance.percent(2) {
            client.line.say(&frame(0x81, b"forget", &mut self.chance));
            client.leaves = true;
            known.may_be_forgotten = true;
            return;
        }
        for _ in 0..self.chance.within(1, 3) {
            let word: &[u8] = match self.chance.within(0, 19) {
                0 => b"last",
                1 => b"later",
                2 => b"touch",
                _ => b"count",
            };
            client.line.say(&frame(0x81, word, &mut self.chance));
            known.sent += u64::from(word != b"touch");
        }
    }

    fn read(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let known = self.known.get_mut(&client.id).expect("one of them");
        client.line.act(
            self.chance.pick(&[3, 50, usize::MAX]),
            &mut self.chance,
            &mut client.heard,
        );
        for heard in client.heard.drain(..) {
            match heard {
                Heard::Text(text) if text == "forgotten" => {
                    self.totals.forgotten += 1;
                    client.line.wire.borrow_mut().end_if_open();
                }
                // What a hello tells was told by somebody, or is stored all the same.
                Heard::Text(text) if text.starts_with("open ") => {
                    let count = text[5..].parse().expect("a count");
                    known.most_told = known.most_told.max(count);
                }
                Heard::Response(503, _) => self.totals.refused += 1,
                _ => {}
            }
        }
        for &count in &client.line.counts[client.counts..] {
            self.totals.told += 1;
            // After it may have been forgotten a session of the same id may count anew.
            let is_new = known.told.insert(count);
            let may_repeat = self.promise == Promise::Written || known.may_be_forgotten;
            if !is_new && !may_repeat {
                self.found.get_or_insert_with(|| format!("{}: {count} was told twice", client.id));
            }
            known.most_told = known.most_told.max(count);
        }
        client.counts = client.line.counts.len();
    }

    /// The store writes what the shards have sent it.
    fn write_some(&mut self) {
        let net = self.machine.net.clone();
        let mut net = net.borrow_mut();
        let now_ms = net.wall_clock_ms(self.machine.now);
        let waiting = |shard: &usize| !self.written.contains(shard);
        let shards: Vec<usize> =
            net.batches.iter().map(|(shard, _)| *shard).filter(waiting).collect();
        let Some(store) = &mut self.store else { return };
        for shard in shards {
            let Some(place) = net.batches.iter().position(|(other, _)| *other == shard) else {
                continue;
            };
            for piece in &mut net.batches[place].1.pieces {
                store.append(piece, now_ms).expect("the disk is sound");
                note_written(piece, &mut self.known);
            }
            match self.storing {
                Storing::BehindReplies => drop(net.store_batch(place)),
                _ => self.written.push(shard),
            }
        }
    }

    fn sync(&mut self) {
        let Some(store) = &mut self.store else { return };
        store.sync().expect("the disk is sound");
        self.known.values_mut().for_each(|known| known.synced = known.written);
        let mut net = self.machine.net.borrow_mut();
        for shard in self.written.drain(..) {
            let place = net.batches.iter().position(|(other, _)| *other == shard);
            drop(place.map(|place| net.store_batch(place)));
        }
    }

    fn upkeep(&mut self) {
        let now_ms = self.machine.net.borrow().wall_clock_ms(self.machine.now);
        let Some(store) = &mut self.store else { return };
        let jobs = Store::upkeep(store, now_ms);
        jobs.into_iter().flatten().for_each(|job| job());
        self.totals.compactions = self.totals.compactions.max(store.figures().compactions);
    }

    /// The server ends, and the next one starts.
    fn restart(&mut self) {
        let end = self.chance.pick(&[End::Killed, End::PowerLoss, End::PowerLoss, End::Drained]);
        if end == End::Drained {
            self.drain();
        }
        let now_ms = self.machine.net.borrow().wall_clock_ms(self.machine.now);
        // What is on its way to a client may reach it.
        (0..self.clients.len()).for_each(|at| self.read_all(at));
        self.machine.crash();
        self.clients.clear();
        match end {
            End::Killed => self.disk.kill(),
            End::PowerLoss => self.disk.crash(),
            End::Drained => {
                if let Some(store) = self.store.take() {
                    store.close(now_ms).expect("the disk is sound");
                }
            }
        }
        (self.store, self.written) = (None, Vec::new());
        let now_ms = now_ms + self.chance.within(0, 10_000) as u64;
        self.machine = start(&mut self.chance, self.storing, now_ms);
        self.open(now_ms, Some(end));
    }

    fn read_all(&mut self, at: usize) {
        for _ in 0..1000 {
            let before = self.clients[at].line.wire.borrow().down.len();
            if before == 0 {
                return;
            }
            self.read(at);
        }
    }

    fn drain(&mut self) {
        self.recover();
        self.machine.shut_down();
        for _ in 0..10_000 {
            if self.machine.has_ended() && self.machine.net.borrow().batches.is_empty() {
                return;
            }
            for at in 0..self.machine.len() {
                self.machine.turn_if_woken(at);
            }
            (0..self.clients.len()).for_each(|at| self.read(at));
            self.write_some();
            self.sync();
            self.machine.now += Duration::from_millis(20);
        }
        panic!("the drain does not end");
    }
}

/// What was written is what is recovered, unless it is lost.
fn note_written(piece: &Batch, known: &mut BTreeMap<usize, Known>) {
    let mut entries = piece.entries();
    while let Some(entry) = decode(&mut entries).expect("what was encoded") {
        let (id, count) = match entry {
            Entry::Save(saved) => (saved.id, saved.count),
            Entry::Forget { id, .. } => (id, 0),
            other => panic!("{other:?} is not a reactor's to write"),
        };
        let id: usize = id.text().as_str()[1..].parse().expect("one of ours");
        known.get_mut(&id).expect("one of them").written = count;
    }
}

/// What has happened.
///
/// # Errors
///
/// What the clients of one id have found.
fn run(seed: u64, storing: Storing, promise: Promise, lie: Lie) -> Result<Totals, String> {
    let mut world = World::new(seed, storing, promise, lie);
    for _ in 0..world.chance.within(3, 8) {
        if world.chance.percent(70) {
            world.recover();
        }
        for _ in 0..world.chance.within(50, 2500) {
            world.step();
        }
        world.restart();
        if world.found.is_some() {
            break;
        }
    }
    world.found.map_or(Ok(world.totals), Err)
}

fn run_all(storing: Storing, promise: Promise) -> Totals {
    let mut all = Totals::default();
    let seeds = super::number_from("REVOLVE_SEEDS").unwrap_or(super::SEEDS / 2);
    let one = super::number_from("REVOLVE_SEED");
    for seed in one.map_or(0..seeds, |one| one..one + 1) {
        let totals = run(seed, storing, promise, Lie::None);
        let totals = totals.unwrap_or_else(|found| panic!("seed {seed} of {storing:?}: {found}"));
        all.starts += totals.starts;
        all.told += totals.told;
        all.recovered += totals.recovered;
        all.untold += totals.untold;
        all.lost += totals.lost;
        all.refused += totals.refused;
        all.compactions += totals.compactions;
        all.forgotten += totals.forgotten;
    }
    println!("{all:?}");
    all
}

/// A run in which nothing happens proves nothing.
fn assert_rich(totals: &Totals) {
    let Totals { starts, told, recovered, untold, refused, compactions, forgotten, .. } = *totals;
    let all = [starts, told, recovered, untold, refused, compactions, forgotten];
    assert!(all.iter().all(|&seen| seen >= 20), "the seeds no longer reach everything: {totals:?}");
}

#[test]
fn what_clients_were_told_is_there_after_a_crash() {
    let totals = run_all(Storing::BeforeReplies, Promise::Told);
    assert_rich(&totals);
    assert_eq!(totals.lost, 0);
}

#[test]
fn replies_that_do_not_wait_lose_what_was_not_written() {
    let totals = run_all(Storing::BehindReplies, Promise::Written);
    assert_rich(&totals);
    assert!(totals.lost >= 20, "{totals:?}");
}

/// The same without the gate, and on a disk that does not sync: then the clients must find what is lost.
#[test]
fn without_the_gate_or_without_a_sync_clients_were_told_what_is_lost() {
    let found = |storing, lie| {
        let fails = |seed: &u64| run(*seed, storing, Promise::Told, lie).is_err();
        (0..20).filter(fails).count()
    };
    assert_eq!(found(Storing::BeforeReplies, Lie::None), 0);
    assert!(found(Storing::BehindReplies, Lie::None) >= 15);
    assert!(found(Storing::BeforeReplies, Lie::SyncData) >= 15);
}

/// A machine of which the store has a batch and does not answer.
fn waiting() -> (Machine<Tally>, Line) {
    let config = Config { workers: NonZeroUsize::MIN, access_log: false, ..Config::default() };
    let how = (4, Storing::BeforeReplies);
    let mut machine = Machine::storing(&Arc::new(config), how, 1, Faults::default(), |_| Tally);
    machine.recover(Vec::new());
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut line = Line::new(address, Wire::new(20_000, 0));
    line.say(&upgrade("?session_id=a"));
    machine.connect(0, &line.wire, address);
    turns(&mut machine, &mut line);
    line.say(&frame(0x81, b"count", &mut Chance(1)));
    turns(&mut machine, &mut line);
    assert_eq!(machine.net.borrow().batches.len(), 1);
    (machine, line)
}

fn turns(machine: &mut Machine<Tally>, line: &mut Line) {
    machine.quiet(|| line.act(usize::MAX, &mut Chance(1), &mut Vec::new()));
}

/// So much time passes as it does for a process that runs.
fn pass(machine: &mut Machine<Tally>, line: &mut Line, seconds: u64) {
    for _ in 0..10 * seconds {
        machine.now += Duration::from_millis(100);
        turns(machine, line);
    }
}

#[test]
fn a_store_has_its_time_and_once_more_after_the_process_was_stopped() {
    let (mut machine, mut line) = waiting();
    pass(&mut machine, &mut line, 29);
    assert!(!machine.has_ended());
    pass(&mut machine, &mut line, 2);
    assert!(machine.has_ended() && line.counts.is_empty());

    let (mut machine, mut line) = waiting();
    machine.now += Duration::from_secs(1000);
    turns(&mut machine, &mut line);
    pass(&mut machine, &mut line, 29);
    assert!(!machine.has_ended());
    drop(machine.net.borrow_mut().store_batch(0));
    pass(&mut machine, &mut line, 5);
    assert!(!machine.has_ended() && line.counts == [1]);
}

/// What a watcher was told last: the states of the first reactor's slots.
fn slots_shown(machine: &mut Machine<Tally>, watcher: &mut Line) -> Vec<u64> {
    let mut heard = Vec::new();
    for _ in 0..12 {
        machine.now += Duration::from_millis(100);
        machine.quiet(|| watcher.act(usize::MAX, &mut Chance(1), &mut heard));
    }
    let Some(Heard::Text(text)) = heard.pop() else { panic!("{heard:?}") };
    assert!(text.contains("\"store\":{\"commits\":"), "{text}");
    let (_, runs) = text.split_once("\"runs\":[").expect("a slab is shown");
    let runs = runs.split_once(']').expect("they end").0.split(',');
    let run = |text: &str| text.parse::<u64>().expect("a number");
    runs.map(run).flat_map(|run| (0..run >> 3).map(move |_| run & 7)).collect()
}

#[test]
fn a_reply_that_is_held_shows_on_the_live_page() {
    let (mut machine, mut line) = waiting();
    let address = SocketAddr::from(([127, 0, 0, 1], 2));
    let mut watcher = Line::new(address, Wire::new(20_000, 0));
    watcher.say(&watch());
    machine.connect(0, &watcher.wire, address);
    turns(&mut machine, &mut watcher);
    let [open, watching, held] =
        [SlotState::Open, SlotState::Watching, SlotState::Held].map(|state| state as u64);
    assert_eq!(slots_shown(&mut machine, &mut watcher), [held, watching]);
    while !machine.net.borrow().batches.is_empty() {
        drop(machine.net.borrow_mut().store_batch(0));
        turns(&mut machine, &mut line);
    }
    assert_eq!(line.counts, [1]);
    assert_eq!(slots_shown(&mut machine, &mut watcher), [open, watching]);
}

//! Several nodes, each of several shards, on one store: sessions that are claimed, taken over, and never counted twice.
//!
//! Clients count under a few ids, on whichever node. Requests and answers are delayed, connections to the store cut, nodes
//! are paused, killed and drained, notices are lost, batches given up, the store is flushed. A session's state has a number
//! of its own (its *life*), so what a session counts that was made anew is told apart from what an older one of its id has.
//!
//! The ledger: no count of a life is told twice, by whichever nodes; none is told that is not stored; and when it comes
//! back, it has all that was told. At the end, when everything has arrived, each session has one client at the most, and
//! that one can count; each upgrade has had its answer; and every node drains with nothing held.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use revolve::application::Storing;
use revolve::config::{Config, Limits, SessionIds};
use revolve::store::{Claim, Claimed, Outcome, State};
use revolve::{Acceptance, Application, Context, Message, Refusal, SavedState, Upgrade};

use super::arbiter::{Arbiter, Link, Notice, Request, Rules, notify};
use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, frame, upgrade};
use super::pieces::faults::Faults;
use super::pieces::machine::Machine;
use super::pieces::streams::Wire;

/// Sessions that clients name.
const IDS: usize = 5;

/// Seeds without one of the rules.
const SABOTAGED: u64 = 60;

const TTL: Duration = Duration::from_secs(3600);

thread_local! {
    static LIVES: Cell<u64> = const { Cell::new(0) };
}

/// The state of a session: which one it is, and three times its count.
#[derive(Debug)]
struct Life {
    number: u64,
    thrice: u64,
}

impl Default for Life {
    fn default() -> Life {
        LIVES.set(LIVES.get() + 1);
        Life { number: LIVES.get(), thrice: 0 }
    }
}

/// Counts.
#[derive(Default)]
struct Tally {
    /// Upgrades that it has accepted and that were refused all the same.
    not_opened: u64,
    /// The counts that it has seen before it accepted.
    seen: Vec<Option<u64>>,
}

impl Application for Tally {
    type Session = Life;
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        fn accepted(upgrade: &Upgrade<'_, Tally>) -> Acceptance<Tally> {
            let mut accepted =
                upgrade.accept().otherwise(|tally: &mut Tally, _| tally.not_opened += 1);
            if upgrade.parameter("look").is_some() {
                let seen = upgrade.session_count();
                accepted = accepted.then(move |_, cx| {
                    let count = cx.count();
                    assert!(seen.map_or(count == 0, |seen| seen <= count), "{seen:?}, {count}");
                });
            }
            if upgrade.parameter("share").is_some() { accepted.share() } else { accepted }
        }
        if upgrade.parameter("guarded").is_some() {
            self.seen.push(upgrade.session_count());
            if upgrade.session_count() == Some(7) {
                return Err(Refusal::new::<403>("not yours"));
            }
        }
        match upgrade.parameter("later") {
            Some(_) => upgrade.defer(|| (), |_, upgrade, ()| Ok(accepted(upgrade))),
            None => Ok(accepted(upgrade)),
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        assert_eq!(cx.session().thrice, 3 * cx.count(), "the state is that of the count");
        cx.send_text(&format!("open {} {}", cx.session().number, cx.count()));
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
                cx.close(4002, "as you wish");
            }
            Message::Text("later") => {
                let _ = cx.set_timer(Duration::from_millis(20), 0);
            }
            _ => count(cx),
        }
    }

    fn save(state: &Life) -> Option<SavedState> {
        let bytes = [state.number.to_le_bytes(), state.thrice.to_le_bytes()].concat();
        Some(SavedState { version: 1, bytes })
    }

    fn load(saved: &SavedState) -> Life {
        let (number, thrice) = saved.bytes.split_at(8);
        let number_of = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Life { number: number_of(number), thrice: number_of(thrice) }
    }
}

fn count(cx: &mut Context<'_, Tally>) {
    let count = cx.count_message();
    cx.session_mut().thrice = 3 * count;
    let text = format!("{} {count}", cx.session().number);
    cx.send_text(&text);
}

/// What is known of the sessions of one id.
#[derive(Debug, Default)]
struct Known {
    /// What was told: life and count.
    told: BTreeSet<(u64, u64)>,
    /// Whether it may have been forgotten, or is lost: then another life may follow.
    may_be_gone: bool,
    /// Whether one was forgotten: who shared it goes on with it, and others have the next one.
    is_forgotten: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    None,
    /// The store takes commits of whoever had the session before.
    NoFence,
    /// Replies leave before the store has what they say.
    EarlyAnswers,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Totals {
    told: u64,
    resumed: u64,
    /// Clients of which another one has the session now, and those that the store has failed.
    taken_over: u64,
    sent_away: u64,
    unavailable: u64,
    overtaken: u64,
    refused: u64,
    regenerated: u64,
    hand_overs: u64,
    evictions: u64,
    forgotten: u64,
    crashes: u64,
    drains: u64,
    flushes: u64,
    cuts: u64,
    late: u64,
    refreshed: u64,
}

struct Client {
    node: usize,
    line: Line,
    heard: Vec<Heard>,
    leaves: bool,
    shares: bool,
    /// The life of its session, by what it was told first.
    life: u64,
    /// What had been told of the session that it names when it came.
    knew: Option<(String, u64, u64)>,
}

struct Node {
    machine: Machine<Tally>,
    link: Link,
    is_paused: bool,
    /// Its thread goes on while its reactors stand still.
    has_live_thread: bool,
}

struct World {
    chance: Chance,
    sabotage: Sabotage,
    arbiter: Arbiter,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    known: BTreeMap<String, Known>,
    notices: Vec<Notice>,
    /// What was sent over connections that are no more.
    late: Vec<(u8, u8, Request)>,
    connections: u16,
    policy: SessionIds,
    /// The last life of which the store may have lost what it had: anything may be told of it.
    lost_through: u64,
    found: Option<String>,
    totals: Totals,
}

fn start(chance: &mut Chance, policy: SessionIds) -> Machine<Tally> {
    let config = Config {
        workers: NonZeroUsize::new(chance.within(1, 3)).expect("one at least"),
        access_log: false,
        ws_ping_interval: None,
        session_ids: policy,
        session_ttl: TTL,
        max_sessions: chance.pick(&[1, 1000]),
        timeout_handshake: Duration::from_secs(86_400),
        limits: Limits {
            frames_per_turn: chance.within(1, 9),
            cork_bytes: chance.pick(&[16, 5000]),
            mails_per_turn: chance.within(1, 3),
            expiries_per_turn: chance.within(1, 3),
            store_batch_bytes: 1024,
            stored_state_bytes: 200,
            ..Limits::default()
        },
        ..Config::default()
    };
    let seed = chance.next();
    Machine::storing(&Arc::new(config), (4, Storing::Shared), seed, Faults::default(), |_| {
        Tally::default()
    })
}

impl World {
    fn new(seed: u64, sabotage: Sabotage) -> World {
        let mut chance = Chance(seed);
        let policy =
            chance.pick(&[SessionIds::Any, SessionIds::Any, SessionIds::Any, SessionIds::Issued]);
        let rules = Rules { fence: sabotage != Sabotage::NoFence, ..Rules::ALL };
        let count = chance.within(2, 3);
        let mut world = World {
            chance,
            sabotage,
            arbiter: Arbiter::new(rules, TTL),
            nodes: Vec::new(),
            clients: Vec::new(),
            known: BTreeMap::new(),
            notices: Vec::new(),
            late: Vec::new(),
            connections: 0,
            policy,
            lost_through: 0,
            found: None,
            totals: Totals::default(),
        };
        for number in 0..count {
            let node = world.start_node(number);
            world.nodes.push(node);
        }
        world
    }

    fn start_node(&mut self, number: usize) -> Node {
        let mut machine = start(&mut self.chance, self.policy);
        if let Some(other) = self.nodes.first() {
            machine.now = other.machine.now;
        }
        let link = Link::new(number as u8, self.sabotage == Sabotage::EarlyAnswers);
        Node { machine, link, is_paused: false, has_live_thread: false }
    }

    fn step(&mut self) {
        let at = self.chance.within(0, self.nodes.len() - 1);
        match self.chance.within(0, 999) {
            0..=19 => self.connect(),
            20..=379 => self.some_client_acts(),
            380..=599 => {
                for _ in 0..self.chance.within(1, 4) {
                    self.turn(at);
                }
            }
            600..=899 => {
                for _ in 0..self.chance.within(1, 12) {
                    self.carry(at);
                }
            }
            900..=939 => self.notice(),
            940..=959 => {
                let ms = self.chance.within(1, 50) as u64;
                self.pass(Duration::from_millis(ms));
            }
            960..=969 => self.arrive_late(),
            970..=975 => {
                self.totals.cuts += 1;
                let late = self.nodes[at].link.cut();
                self.late.extend(late);
            }
            976..=981 => self.give_up(at),
            982..=986 => {
                let is_away = self.chance.percent(15);
                self.set_away(at, is_away);
            }
            987..=995 => {
                let is_paused = self.chance.percent(25);
                let has_live_thread = self.chance.percent(50);
                let node = &mut self.nodes[at];
                (node.is_paused, node.has_live_thread) = (is_paused, has_live_thread);
            }
            996..=997 => self.restart(at),
            998 if self.chance.percent(30) => self.flush(),
            _ => {}
        }
    }

    fn give_up(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let mut net = node.machine.net.borrow_mut();
        node.link.give_up(&mut net, Some(&mut self.chance));
    }

    fn set_away(&mut self, at: usize, is_away: bool) {
        let node = &mut self.nodes[at];
        node.link.is_away = is_away;
        node.machine.status.note_store_away(is_away);
        if !is_away {
            return;
        }
        let mut net = node.machine.net.borrow_mut();
        if self.chance.percent(50) {
            node.link.give_up(&mut net, None);
        }
    }

    fn turn(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if node.is_paused {
            return false;
        }
        let shard = self.chance.within(0, node.machine.len() - 1);
        node.machine.turn_if_woken(shard)
    }

    /// Something moves between a node and the store.
    fn carry(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if node.is_paused && !node.has_live_thread {
            return false;
        }
        let now = node.machine.now;
        let mut net = node.machine.net.borrow_mut();
        match self.chance.within(0, 2) {
            0 => node.link.take(&mut net),
            1 => node.link.deliver(&mut self.arbiter, now, &mut self.notices),
            _ => node.link.receive(&mut net),
        }
    }

    /// A notice arrives, or is lost.
    fn notice(&mut self) {
        let Some(last) = self.notices.len().checked_sub(1) else { return };
        let at = self.chance.within(0, last);
        let (node, takeover) = self.notices.swap_remove(at);
        if self.chance.percent(70) {
            let node = &mut self.nodes[usize::from(node)];
            notify(takeover, node.machine.len(), &mut node.machine.net.borrow_mut());
        }
    }

    /// What was sent over a former connection arrives, or never will.
    fn arrive_late(&mut self) {
        let Some(last) = self.late.len().checked_sub(1) else { return };
        let at = self.chance.within(0, last);
        let (node, attempt, request) = self.late.remove(at);
        if self.chance.percent(70) {
            self.totals.late += 1;
            let now = self.nodes[0].machine.now;
            let (_, notice) = self.arbiter.execute((node, attempt), &request, now);
            self.notices.extend(notice);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.nodes.iter_mut().for_each(|node| node.machine.now += time);
    }

    fn connect(&mut self) {
        let known: Vec<&String> = self.known.keys().collect();
        let query = match self.chance.within(0, 9) {
            0 => String::new(),
            1..=4 if !known.is_empty() => {
                let id = known[self.chance.within(0, known.len() - 1)];
                format!("?session_id={id}")
            }
            _ => format!("?session_id=s{}", self.chance.within(0, IDS - 1)),
        };
        let named = query.strip_prefix("?session_id=");
        let knew = named.and_then(|id| {
            let &(life, count) = self.known.get(id)?.told.last()?;
            Some((id.to_owned(), life, count))
        });
        let is_later = self.chance.percent(15);
        let shares = self.chance.percent(15);
        let looks = self.chance.percent(40);
        let more = [(is_later, "&later=1"), (shares, "&share=1"), (looks, "&look=1")];
        let more: String = more.iter().filter(|(is_so, _)| *is_so).map(|(_, more)| *more).collect();
        let query = if query.is_empty() { format!("?a=1{more}") } else { format!("{query}{more}") };
        self.connections += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], self.connections));
        let room = self.chance.pick(&[40, 20_000]);
        let line = Line::new(address, Wire::new(room, self.chance.within(0, 2)));
        line.say(&upgrade(&query));
        let node = self.chance.within(0, self.nodes.len() - 1);
        let machine = &mut self.nodes[node].machine;
        let at = self.chance.within(0, machine.len() - 1);
        machine.connect(at, &line.wire, address);
        self.clients.push(Client {
            node,
            line,
            heard: Vec::new(),
            leaves: false,
            shares,
            life: 0,
            knew,
        });
    }

    fn some_client_acts(&mut self) {
        let Some(last) = self.clients.len().checked_sub(1) else { return };
        let at = self.chance.within(0, last);
        if self.clients[at].line.is_cut() {
            self.read_all(at);
            self.clients.swap_remove(at);
            return;
        }
        match self.chance.within(0, 9) {
            0..=4 => {
                let most = self.chance.pick(&[3, 50, usize::MAX]);
                self.read(at, most);
            }
            5..=8 => self.say(at),
            _ if self.chance.percent(25) => {
                let client = self.clients.swap_remove(at);
                match self.chance.percent(50) {
                    true => client.line.wire.borrow_mut().end_if_open(),
                    false => client.line.wire.borrow_mut().reset(),
                }
            }
            _ => {
                let net = self.nodes[self.clients[at].node].machine.net.clone();
                net.borrow_mut().run_jobs();
            }
        }
    }

    fn say(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(id) = client.line.hearing.session.clone().filter(|_| !client.leaves) else {
            return;
        };
        if self.chance.percent(2) {
            client.line.say(&frame(0x81, b"forget", &mut self.chance));
            client.leaves = true;
            let known = self.known.entry(id).or_default();
            (known.may_be_gone, known.is_forgotten) = (true, true);
            return;
        }
        for _ in 0..self.chance.within(1, 3) {
            let word: &[u8] = match self.chance.within(0, 19) {
                0 => b"last",
                1 => b"later",
                _ => b"count",
            };
            client.line.say(&frame(0x81, word, &mut self.chance));
        }
    }

    fn clients_of(&self, node: usize) -> Vec<usize> {
        (0..self.clients.len()).filter(|&at| self.clients[at].node == node).collect()
    }

    fn read_all(&mut self, at: usize) {
        for _ in 0..1000 {
            if !self.read(at, usize::MAX) {
                return;
            }
        }
    }

    fn read(&mut self, at: usize, most: usize) -> bool {
        let client = &mut self.clients[at];
        let has_read = client.line.act(most, &mut self.chance, &mut client.heard);
        let heard: Vec<Heard> = client.heard.drain(..).collect();
        let session = client.line.hearing.session.clone();
        for heard in heard {
            match heard {
                Heard::Response(503, _) => self.totals.unavailable += 1,
                Heard::Response(409, _) => self.totals.overtaken += 1,
                Heard::Close(4001) => self.totals.taken_over += 1,
                Heard::Close(1013) => self.totals.sent_away += 1,
                Heard::Text(text) if text == "forgotten" => {
                    self.totals.forgotten += 1;
                    self.clients[at].line.wire.borrow_mut().end_if_open();
                }
                Heard::Text(text) => {
                    let id = session.as_deref().expect("it is open");
                    let mut words = text.split(' ');
                    let mut next = || words.next().expect("a word").to_owned();
                    let first = next();
                    let is_hello = first == "open";
                    let life = if is_hello { next() } else { first };
                    let told = (life.parse().expect("a number"), next().parse().expect("a count"));
                    if is_hello {
                        self.clients[at].life = told.0;
                    }
                    let knew = self.clients[at].knew.take().filter(|_| is_hello);
                    let is_there =
                        |id: &str| self.known.get(id).is_some_and(|known| !known.may_be_gone);
                    let knew = knew.filter(|(id, ..)| is_there(id));
                    self.hear(id, told, (is_hello, knew.map(|(_, life, count)| (life, count))));
                }
                _ => {}
            }
        }
        has_read
    }

    /// A client is told a count of a life.
    fn hear(
        &mut self,
        id: &str,
        (life, count): (u64, u64),
        (is_hello, knew): (bool, Option<(u64, u64)>),
    ) {
        let known = self.known.entry(id.to_owned()).or_default();
        let lost_through = self.lost_through;
        // It may be heard of for the first time.
        known.may_be_gone |= life <= lost_through;
        let mut complain = |what: &str| {
            if life <= lost_through {
                return;
            }
            self.found.get_or_insert_with(|| format!("{id}: life {life}, {count}: {what}"));
        };
        if is_hello {
            self.totals.resumed += u64::from(count > 0);
            if knew.is_some_and(|knew| knew.0 != life || knew.1 > count) {
                complain("another session, or an older one");
            }
        } else {
            self.totals.told += 1;
            // Behind a FLUSHALL who has missed a takeover may forget the session, and goes on with what it forgot.
            let is_forgotten = known.is_forgotten && self.totals.flushes > 0;
            if !known.told.insert((life, count)) && !is_forgotten {
                complain("told twice");
            }
        }
        let stored = self.arbiter.stored(id);
        let stored_life = stored.and_then(|(_, state)| {
            Some(u64::from_le_bytes(state?.bytes[..8].try_into().expect("eight bytes")))
        });
        let is_stored = count == 0
            || stored.is_some_and(|(stored, _)| stored >= count) && stored_life == Some(life);
        if !is_stored && !known.may_be_gone {
            complain("it is not stored");
        }
    }

    /// What of it is stored is all that was told.
    fn check_stored(&mut self) {
        for (id, known) in &self.known {
            let Some(&(life, count)) = known.told.last() else { continue };
            if life <= self.lost_through {
                continue;
            }
            let stored = self.arbiter.stored(id).map_or(0, |(count, _)| count);
            if stored < count && !known.may_be_gone {
                self.found.get_or_insert_with(|| {
                    format!("{id}: life {life}: {count}, and {stored} is stored")
                });
            }
        }
    }

    /// A node ends, and starts again under its name.
    fn restart(&mut self, at: usize) {
        if self.chance.percent(30) {
            self.totals.drains += 1;
            self.nodes[at].is_paused = false;
            self.set_away(at, false);
            self.drain(at);
        } else {
            self.totals.crashes += 1;
        }
        // What is on its way to a client may reach it.
        for client in self.clients_of(at) {
            self.read_all(client);
        }
        self.clients.retain(|client| client.node != at);
        let mut node = self.start_node(at);
        std::mem::swap(&mut self.nodes[at], &mut node);
        self.count(&node.machine);
        node.machine.crash();
        self.late.extend(node.link.into_late());
    }

    fn count(&mut self, machine: &Machine<Tally>) {
        self.totals.hand_overs += machine.sum(|reactor| reactor.hand_overs_in.get());
        self.totals.evictions += machine.sum(|reactor| reactor.evictions.get());
    }

    /// A node goes away in good order.
    fn drain(&mut self, at: usize) {
        self.nodes[at].machine.shut_down();
        for _ in 0..5000 {
            let machine = &self.nodes[at].machine;
            if machine.has_ended() && machine.net.borrow().batches.is_empty() {
                return;
            }
            self.settle_node(at);
            for client in self.clients_of(at) {
                self.read(client, usize::MAX);
            }
            self.nodes[at].machine.now += Duration::from_millis(20);
        }
        panic!("the drain does not end");
    }

    /// Everything of a node that can move moves, once. Whether anything did.
    fn settle_node(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        let now = node.machine.now;
        let mut has_moved = false;
        for shard in 0..node.machine.len() {
            has_moved |= node.machine.turn_if_woken(shard);
        }
        let mut net = node.machine.net.borrow_mut();
        has_moved |= net.run_jobs();
        has_moved |= node.link.take(&mut net);
        while node.link.deliver(&mut self.arbiter, now, &mut self.notices) {
            has_moved = true;
        }
        while node.link.receive(&mut net) {
            has_moved = true;
        }
        has_moved
    }

    /// All that is under way arrives.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            let mut has_moved = false;
            for at in 0..self.nodes.len() {
                has_moved |= self.settle_node(at);
            }
            for at in 0..self.clients.len() {
                has_moved |= self.read(at, usize::MAX);
            }
            if self.sabotage == Sabotage::None {
                for (node, takeover) in std::mem::take(&mut self.notices) {
                    let node = &mut self.nodes[usize::from(node)];
                    notify(takeover, node.machine.len(), &mut node.machine.net.borrow_mut());
                    has_moved = true;
                }
            }
            if !has_moved {
                let soon = |node: &Node| {
                    let wakes_at = node.machine.wakes_at();
                    wakes_at.is_some_and(|at| at <= node.machine.now + Duration::from_millis(2))
                };
                if !self.nodes.iter().any(soon) {
                    return;
                }
                self.pass(Duration::from_millis(1));
            }
        }
        panic!("it does not come to rest");
    }

    /// Nothing is paused, away or lost any more.
    fn calm(&mut self) {
        for at in 0..self.nodes.len() {
            self.nodes[at].is_paused = false;
            self.nodes[at].link.is_away = false;
            self.nodes[at].machine.status.note_store_away(false);
        }
        while !self.late.is_empty() {
            self.arrive_late();
        }
        self.settle();
    }

    /// FLUSHALL. Those who have sessions go on as if nothing had happened. What was told before, and what is under way,
    /// proves nothing any more; if nothing is, the same lives are told of from there.
    fn flush(&mut self) {
        let lost_through = match self.chance.percent(50) {
            true => {
                self.calm();
                0
            }
            false => LIVES.get(),
        };
        self.totals.flushes += 1;
        self.arbiter.flush();
        self.lost_through = self.lost_through.max(lost_through);
        for known in self.known.values_mut() {
            known.told.clear();
            known.may_be_gone = true;
        }
    }

    /// When everything has arrived.
    fn end(&mut self) {
        self.calm();
        let commits = |world: &World| -> u64 { world.arbiter.regenerated + world.arbiter.refused };
        let before = commits(self);
        // Whoever was not told of a takeover is, when its session is stored again.
        for _ in 0..26 {
            self.pass(TTL / 64);
            self.settle();
        }
        self.totals.refreshed += commits(self) - before;
        let mut live: BTreeMap<(String, u64), Vec<usize>> = BTreeMap::new();
        for at in 0..self.clients.len() {
            let line = &self.clients[at].line;
            let is_answered = line.hearing.is_open || line.is_over || line.wire.borrow().closed;
            if !is_answered {
                self.found.get_or_insert_with(|| "an upgrade was not answered".to_owned());
            }
            let is_live = line.hearing.is_open && !line.is_cut() && !line.wire.borrow().fin;
            if is_live && !self.clients[at].leaves {
                let id = line.hearing.session.clone().expect("it is open");
                let is_forgotten = self.known.get(&id).is_some_and(|known| known.is_forgotten);
                let life = if is_forgotten { self.clients[at].life } else { 0 };
                live.entry((id, life)).or_default().push(at);
            }
        }
        for ((id, _), clients) in &live {
            let first = self.clients[clients[0]].node;
            let is_one = clients.iter().all(|&at| self.clients[at].node == first)
                && clients.iter().filter(|&&at| !self.clients[at].shares).count() <= 1;
            if !is_one {
                self.found.get_or_insert_with(|| format!("{id}: two have it"));
            }
        }
        if self.found.is_some() {
            return;
        }
        for at in live.into_values().flatten() {
            let told = self.totals.told;
            let client = &self.clients[at];
            client.line.say(&frame(0x81, b"count", &mut self.chance));
            self.settle();
            if self.totals.told != told + 1 {
                self.found.get_or_insert_with(|| "who counts is not answered".to_owned());
            }
        }
        self.check_stored();
        for at in 0..self.nodes.len() {
            let waiting = self.nodes[at].machine.sum(|reactor| reactor.waits_for_store.get());
            assert_eq!(waiting, 0, "something is held");
            self.drain(at);
            self.nodes[at].machine.check_released();
            let Totals { hand_overs, evictions, .. } = &mut self.totals;
            *hand_overs += self.nodes[at].machine.sum(|reactor| reactor.hand_overs_in.get());
            *evictions += self.nodes[at].machine.sum(|reactor| reactor.evictions.get());
        }
        (self.totals.refused, self.totals.regenerated) =
            (self.arbiter.refused, self.arbiter.regenerated);
    }
}

/// What has happened.
///
/// # Errors
///
/// What the ledger has found.
fn run(seed: u64, sabotage: Sabotage) -> Result<Totals, String> {
    // A seed is the same whichever came before it: numbers of lives are in what is sent.
    LIVES.set(0);
    let mut world = World::new(seed, sabotage);
    for _ in 0..world.chance.within(500, 4000) {
        world.step();
        if let Some(found) = world.found {
            return Err(found);
        }
    }
    world.end();
    world.found.map_or(Ok(world.totals), Err)
}

#[test]
fn no_count_is_told_twice_and_none_is_lost_whatever_happens_between_the_nodes() {
    let seeds = super::number_from("REVOLVE_SEEDS").unwrap_or(super::SEEDS / 2);
    let one = super::number_from("REVOLVE_SEED");
    if one.is_some() {
        super::trace_capture::listen(|shard, line| println!("{shard}: {line}"));
    }
    let mut all = Totals::default();
    for seed in one.map_or(0..seeds, |one| one..one + 1) {
        let totals = match catch_unwind(AssertUnwindSafe(|| run(seed, Sabotage::None))) {
            Ok(totals) => totals.unwrap_or_else(|found| panic!("seed {seed}: {found}")),
            Err(panic) => {
                eprintln!("seed {seed} failed");
                std::panic::resume_unwind(panic);
            }
        };
        all.add(&totals);
    }
    println!("{seeds} seeds: {all:?}");
    if one.is_none() {
        all.assert_rich();
    }
}

#[test]
fn a_seed_of_several_nodes_replays_to_the_letter() {
    assert_eq!(run(3, Sabotage::None), run(3, Sabotage::None));
}

/// A node of one shard, and a client of which the session is claimed: the store does not answer.
fn claiming(query: &str, more: &[u8]) -> (Machine<Tally>, Line) {
    let config = Config { workers: NonZeroUsize::MIN, access_log: false, ..Config::default() };
    let how = (4, Storing::Shared);
    let make = |_| Tally::default();
    let mut machine = Machine::storing(&Arc::new(config), how, 1, Faults::default(), make);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut line = Line::new(address, Wire::new(20_000, 0));
    line.say(&[&upgrade(query), more].concat());
    machine.connect(0, &line.wire, address);
    turns(&mut machine, &mut line);
    let claims = machine.net.borrow().batches[0].1.claims.len();
    assert_eq!((claims, line.hearing.is_open, line.is_over), (1, false, false));
    (machine, line)
}

fn turns(machine: &mut Machine<Tally>, line: &mut Line) -> Vec<Heard> {
    let mut heard = Vec::new();
    machine.quiet(|| line.act(usize::MAX, &mut Chance(1), &mut heard));
    heard
}

/// The batch under way ends so, with what is claimed in it.
fn settle_batch(machine: &mut Machine<Tally>, is_stored: bool) {
    settle_batch_with(machine, is_stored, 0);
}

/// The same. Of each session that is claimed the store has this count.
fn settle_batch_with(machine: &mut Machine<Tally>, is_stored: bool, count: u64) {
    let mut net = machine.net.borrow_mut();
    let (shard, batch) = net.batches.remove(0);
    let number = batch.number;
    let claimed = |claim: Claim| Claimed {
        token: claim.token,
        generation: number + 1,
        former: 0,
        count,
        state: (count > 0).then(|| {
            let bytes = [5_u64.to_le_bytes(), (3 * count).to_le_bytes()].concat();
            State { version: 1, bytes: bytes.into() }
        }),
        is_known: count > 0,
    };
    let outcome = match is_stored {
        true => Outcome::Stored {
            number,
            taken_over: Vec::new(),
            regenerated: Vec::new(),
            claimed: batch.claims.into_iter().map(claimed).collect(),
        },
        false => Outcome::Unavailable { number },
    };
    net.settle(shard, outcome);
}

#[test]
fn what_comes_behind_an_upgrade_is_heard_when_its_session_is_claimed() {
    let (mut machine, mut line) = claiming("?session_id=a", &frame(0x81, b"count", &mut Chance(1)));
    settle_batch(&mut machine, true);
    let heard = turns(&mut machine, &mut line);
    assert!(matches!(heard[0], Heard::Response(101, _)) && heard.len() == 2, "{heard:?}");
    // The count is held.
    settle_batch(&mut machine, true);
    let heard = turns(&mut machine, &mut line);
    assert!(matches!(&heard[..], [Heard::Text(text)] if text.ends_with(" 1")), "{heard:?}");
}

/// The application has not seen the session of another node when it is asked first.
#[test]
fn the_application_is_asked_again_about_a_session_that_comes_from_the_store() {
    let count = frame(0x81, b"count", &mut Chance(1));
    // Who looks at none, accepts, and may not have what is found then.
    let (mut machine, mut line) = claiming("?session_id=a&guarded=1", &count);
    settle_batch_with(&mut machine, true, 7);
    assert!(matches!(turns(&mut machine, &mut line)[..], [Heard::Response(403, _)]));
    assert_eq!(machine.application_mut(0).seen, [None, Some(7)]);
    assert_eq!(machine.application_mut(0).not_opened, 1, "what it had accepted first");
    // Who may. What it has said behind its request is heard once.
    let (mut machine, mut line) = claiming("?session_id=a&guarded=1", &count);
    settle_batch_with(&mut machine, true, 6);
    let mut heard = turns(&mut machine, &mut line);
    while !machine.net.borrow().batches.is_empty() {
        settle_batch(&mut machine, true);
        heard.extend(turns(&mut machine, &mut line));
    }
    assert!(matches!(heard[..], [Heard::Response(101, _), Heard::Text(_), Heard::Text(_)]));
    assert!(matches!(&heard[2], Heard::Text(text) if text == "5 7"), "{heard:?}");
    assert_eq!(machine.application_mut(0).seen, [None, Some(6)]);
    // There is none: as it has seen.
    let (mut machine, mut line) = claiming("?session_id=a&guarded=1", &count);
    settle_batch(&mut machine, true);
    assert!(matches!(turns(&mut machine, &mut line)[..], [Heard::Response(101, _), ..]));
    assert_eq!(machine.application_mut(0).seen, [None]);
    // Who does not look is not asked again.
    let (mut machine, mut line) = claiming("?session_id=a", &count);
    settle_batch_with(&mut machine, true, 7);
    assert!(matches!(turns(&mut machine, &mut line)[..], [Heard::Response(101, _), ..]));
    assert_eq!(machine.application_mut(0).not_opened, 0);
}

/// It is here, and another node has had it meanwhile; and the claim is lost again before it is asked.
#[test]
fn the_application_is_asked_again_about_a_session_that_was_here() {
    let (mut machine, mut line) = claiming("?session_id=a&guarded=1", b"");
    settle_batch_with(&mut machine, true, 3);
    turns(&mut machine, &mut line);
    let address = SocketAddr::from(([127, 0, 0, 1], 2));
    let mut other = Line::new(address, Wire::new(20_000, 0));
    other.say(&upgrade("?session_id=a&guarded=1"));
    machine.connect(0, &other.wire, address);
    assert!(turns(&mut machine, &mut other).is_empty());
    settle_batch_with(&mut machine, true, 7);
    assert!(matches!(turns(&mut machine, &mut other)[..], [Heard::Response(403, _)]));
    assert_eq!(turns(&mut machine, &mut line), [Heard::Close(4001)]);
    assert_eq!(machine.application_mut(0).seen, [None, Some(3), Some(3), Some(7)]);
}

/// One that waits has an outcome, whatever comes; and what the application took for it is given back.
#[test]
fn an_upgrade_whose_claim_is_not_answered_has_an_end() {
    type End = fn(&mut Machine<Tally>, &mut Line);
    let ends: [(End, u16); 4] = [
        (|machine, _| settle_batch(machine, false), 503),
        (|machine, _| machine.now += Config::default().timeout_handshake, 503),
        (|machine, _| machine.shut_down(), 503),
        (|_, line| line.wire.borrow_mut().reset(), 0),
    ];
    for (end, status) in ends {
        let (mut machine, mut line) = claiming("?session_id=a", b"");
        end(&mut machine, &mut line);
        let heard = turns(&mut machine, &mut line);
        assert_eq!(!heard.is_empty(), status > 0);
        assert!(heard.iter().all(|heard| *heard == Heard::Response(status, None)), "{heard:?}");
        assert_eq!(machine.application_mut(0).not_opened, 1);
        // A late answer changes nothing.
        if !machine.net.borrow().batches.is_empty() {
            settle_batch(&mut machine, true);
        }
        assert!(turns(&mut machine, &mut line).is_empty());
        assert_eq!(machine.sum(|reactor| reactor.connections.get()), 0);
        assert_eq!(machine.application_mut(0).not_opened, 1);
        assert_eq!(machine.shards().map(|shard| shard.session_counts().len()).sum::<usize>(), 0);
    }
}

#[test]
fn while_the_store_is_away_upgrades_are_refused_at_once_and_idle_clients_stay() {
    let (mut machine, mut line) = claiming("?session_id=a", b"");
    settle_batch(&mut machine, true);
    turns(&mut machine, &mut line);
    assert!(line.hearing.is_open);
    machine.status.note_store_away(true);
    let address = SocketAddr::from(([127, 0, 0, 1], 2));
    let mut other = Line::new(address, Wire::new(20_000, 0));
    other.say(&upgrade(""));
    machine.connect(0, &other.wire, address);
    assert_eq!(turns(&mut machine, &mut other), [Heard::Response(503, None)]);
    assert!(machine.net.borrow().batches.is_empty() && !line.is_cut());
    // Who counts now is told that it is to come again, and nothing else.
    line.say(&frame(0x81, b"count", &mut Chance(1)));
    assert!(turns(&mut machine, &mut line).is_empty());
    settle_batch(&mut machine, false);
    assert_eq!(turns(&mut machine, &mut line), [Heard::Close(1013)]);
}

/// The same without the fence, and with replies that do not wait: then the ledger must find it.
#[test]
fn without_the_fence_or_the_gate_counts_are_told_twice_or_lost() {
    let found = |sabotage| {
        // An application that finds the state of another count has found it too.
        let run = |seed| catch_unwind(AssertUnwindSafe(|| run(seed, sabotage)));
        (0..SABOTAGED).filter(|&seed| !matches!(run(seed), Ok(Ok(_)))).count()
    };
    assert_eq!(found(Sabotage::None), 0);
    let (no_fence, early) = (found(Sabotage::NoFence), found(Sabotage::EarlyAnswers));
    println!("of {SABOTAGED}: {no_fence} without the fence, {early} with replies that do not wait");
    assert!(no_fence >= 12 && early >= 40, "{no_fence} and {early} of {SABOTAGED}");
}

impl Totals {
    fn all(&mut self) -> [&mut u64; 17] {
        let Totals {
            told,
            resumed,
            taken_over,
            sent_away,
            unavailable,
            overtaken,
            refused,
            regenerated,
            hand_overs,
            evictions,
            forgotten,
            crashes,
            drains,
            flushes,
            cuts,
            late,
            refreshed,
        } = self;
        [
            told,
            resumed,
            taken_over,
            sent_away,
            unavailable,
            overtaken,
            refused,
            regenerated,
            hand_overs,
            evictions,
            forgotten,
            crashes,
            drains,
            flushes,
            cuts,
            late,
            refreshed,
        ]
    }

    fn add(&mut self, other: &Totals) {
        let mut other = other.clone();
        for (sum, seen) in self.all().into_iter().zip(other.all()) {
            *sum += *seen;
        }
    }

    /// A run in which nothing happens proves nothing.
    fn assert_rich(&mut self) {
        let text = format!("{self:?}");
        let is_rich = self.all().into_iter().all(|seen| *seen >= 20);
        assert!(is_rich, "the seeds no longer reach everything: {text}");
    }
}

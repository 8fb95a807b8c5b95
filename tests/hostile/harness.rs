//! One shard at the default settings, strangers who may do to it what they like, and bystanders who
//! talk to it all the while. No socket, no clock: streams are of memory (`revolve::testing::wire`), time
//! is a number, and how long a bystander waits is counted in turns.
//!
//! A turn is taken whether or not a poll would have returned: with bystanders it always would.
//! After each of them the shard's invariants are checked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use revolve::application::Hosted;
use revolve::environment::Environment;
use revolve::http::Rejection;
use revolve::mailbox::Mail;
use revolve::observe::metrics::ReactorMetrics;
use revolve::offload::Job;
use revolve::server_status::ServerStatus;
use revolve::shard::Shard;
use revolve::store::CommitBatch;
use revolve::tasks::TaskOrder;
use revolve::token::{LocalId, Peer};
use revolve::transport::listener::Accepted;
use revolve::{Application, Config, Counter, Echo};

use crate::client::{self, PING, PONG, TEXT, frame, metric, upgrade};
use revolve::testing::wire::{Scripted, Wire};

/// What the kernel keeps for a stream's direction, so that a peer who reads nothing soon has a
/// backlog: small, so that tests are quick.
pub(crate) const ROOM: usize = 64 << 10;

/// How many bystanders there are.
pub(crate) const BYSTANDERS: usize = 8;

/// An application of the daemon, and what it answers.
pub(crate) trait Talks: Application {
    /// Whether it counts messages, so that sessions are worth keeping.
    const COUNTS: bool;

    fn make() -> Self;

    /// What it answers to the `nth` message of a session.
    fn reply(said: &str, nth: u64) -> String;
}

impl Talks for Counter {
    const COUNTS: bool = true;

    fn make() -> Self {
        Counter::new(Some(Duration::from_secs(30)))
    }

    fn reply(_said: &str, nth: u64) -> String {
        format!("{{\"count\": {nth}}}")
    }
}

impl Talks for Echo {
    const COUNTS: bool = false;

    fn make() -> Self {
        Echo
    }

    fn reply(said: &str, _nth: u64) -> String {
        said.to_owned()
    }
}

/// The defaults, on one reactor.
pub(crate) fn defaults() -> Config {
    Config { workers: NonZeroUsize::MIN, access_log: false, ..Config::default() }
}

/// The shard's surroundings.
#[derive(Default)]
pub(crate) struct Gate {
    queue: VecDeque<(Scripted, Peer)>,
    has_arrivals: bool,
    random: u64,
}

impl Environment for Gate {
    type Stream = Scripted;

    fn accept(&mut self) -> io::Result<Accepted<Scripted>> {
        self.queue.pop_front().map(Accepted::from).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn stop_listening(&mut self) {
        self.queue.clear();
    }

    fn register(&mut self, stream: &mut Scripted, id: LocalId) -> io::Result<()> {
        stream.0.borrow_mut().register(0, id);
        Ok(())
    }

    fn deregister(&mut self, _stream: &mut Scripted) -> io::Result<()> {
        panic!("one reactor hands nothing over")
    }

    fn send(&mut self, _reactor: usize, _mail: Mail<Scripted>) -> Result<(), Mail<Scripted>> {
        panic!("one reactor has nobody to write to")
    }

    fn wake(&mut self, _reactor: usize) {}

    fn has_room(&self, _reactor: usize) -> bool {
        true
    }

    fn receive(&mut self) -> Option<Mail<Scripted>> {
        None
    }

    fn clock(&mut self) -> Instant {
        panic!("nobody here looks for slow turns")
    }

    fn wall_clock_ms(&mut self) -> u64 {
        0
    }

    fn offload(&mut self, job: Job) -> Result<(), Job> {
        Err(job)
    }

    fn enqueue(&mut self, order: TaskOrder) -> Result<(), TaskOrder> {
        Err(order)
    }

    fn commit(&mut self, _batch: CommitBatch) {
        panic!("no session is stored here")
    }

    fn random(&mut self, room: &mut [u8]) -> io::Result<()> {
        for byte in room {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (self.random >> 56) as u8;
        }
        Ok(())
    }
}

/// A connection's other end.
pub(crate) struct Stranger {
    pub(crate) wire: Rc<RefCell<Wire>>,
    /// Read and not yet looked at.
    pub(crate) heard: Vec<u8>,
}

impl Stranger {
    /// Sends, if there is still somebody to send to.
    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        let mut wire = self.wire.borrow_mut();
        if !wire.closed && !wire.fin && !wire.reset {
            wire.send(bytes.as_ref());
        }
    }

    /// Takes what has come.
    pub(crate) fn read(&mut self) -> &[u8] {
        let come = self.wire.borrow_mut().receive(usize::MAX);
        self.heard.extend(come);
        &self.heard
    }

    /// What has come so far, as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.read()).into_owned()
    }

    /// The next whole frame that has come: its first byte and its payload.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        self.read();
        self.frame_heard()
    }

    /// The same, of what has been taken.
    pub(crate) fn frame_heard(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, ..] = self.heard[..] else { return None };
        let (start, length) = match second {
            126 => (4, u16::from_be_bytes(self.heard.get(2..4)?.try_into().unwrap()).into()),
            127 => (10, u64::from_be_bytes(self.heard.get(2..10)?.try_into().unwrap()) as usize),
            short => (2, usize::from(short)),
        };
        if self.heard.len() < start + length {
            return None;
        }
        let payload = self.heard.drain(..start + length).skip(start).collect();
        Some((first, payload))
    }

    /// Waits for nothing: the next frame must have come, and be a Close with this code.
    #[track_caller]
    pub(crate) fn closed_with(&mut self, code: u16) -> String {
        let (first, payload) = self.frame().expect("a Close has come");
        assert_eq!(first, client::CLOSE, "{payload:?}");
        assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), code);
        String::from_utf8(payload[2..].to_vec()).unwrap()
    }

    /// The server has let go of its end.
    pub(crate) fn is_released(&self) -> bool {
        self.wire.borrow().closed
    }

    /// The server has ended its half.
    pub(crate) fn is_half_closed(&self) -> bool {
        self.wire.borrow().server_fin
    }

    /// Ends its half.
    pub(crate) fn hang_up(&self) {
        let mut wire = self.wire.borrow_mut();
        if !wire.closed && !wire.fin && !wire.reset {
            wire.end();
        }
    }

    /// Vanishes.
    pub(crate) fn reset(&self) {
        let mut wire = self.wire.borrow_mut();
        if !wire.closed {
            wire.reset();
        }
    }

    /// How much of what it sent nobody has read.
    pub(crate) fn unread_by_server(&self) -> usize {
        self.wire.borrow().up.len()
    }
}

/// One who behaves: says something, waits for the reply, says the next thing.
struct Bystander {
    stranger: Stranger,
    said: u64,
    asked_at: u64,
}

pub(crate) struct Harness<A: Talks> {
    pub(crate) shard: Shard<A, Gate>,
    pub(crate) status: Arc<ServerStatus>,
    pub(crate) now: Instant,
    pub(crate) config: Arc<Config>,
    gate: Gate,
    begin: Instant,
    turns: u64,
    wires: Vec<Rc<RefCell<Wire>>>,
    bystanders: Vec<Bystander>,
    /// How many turns each reply took.
    waits: Vec<u64>,
    connected: u32,
}

impl<A: Talks> Harness<A> {
    /// At the default settings.
    pub(crate) fn new() -> Self {
        Harness::with(defaults())
    }

    pub(crate) fn with(config: Config) -> Self {
        let config = Arc::new(config);
        let now = Instant::now();
        let status = Arc::new(ServerStatus::new(1, Rejection::LABELS, Arc::default()));
        let shard =
            Shard::start(0, config.clone(), status.clone(), Hosted::alone(A::make()), now).unwrap();
        let mut harness = Harness {
            shard,
            status,
            now,
            config,
            gate: Gate::default(),
            begin: now,
            turns: 0,
            wires: Vec::new(),
            bystanders: Vec::new(),
            waits: Vec::new(),
            connected: 0,
        };
        for n in 0..BYSTANDERS {
            let stranger = harness.open(&format!("session_id=bystander-{n}"));
            harness.bystanders.push(Bystander { stranger, said: 0, asked_at: 0 });
        }
        harness.ask();
        harness
    }

    /// A connection that waits to be accepted.
    pub(crate) fn connect(&mut self) -> Stranger {
        self.connected += 1;
        // Each from an address of its own, unless the test says otherwise.
        self.connect_from(IpAddr::from((0x0a00_0000 + self.connected).to_be_bytes()))
    }

    pub(crate) fn connect_from(&mut self, address: IpAddr) -> Stranger {
        let wire = Rc::new(RefCell::new(Wire::new(ROOM, 0)));
        let peer = SocketAddr::new(address, 1024).into();
        self.gate.queue.push_back((Scripted(wire.clone()), peer));
        self.gate.has_arrivals = true;
        self.wires.push(wire.clone());
        Stranger { wire, heard: Vec::new() }
    }

    /// An open WebSocket.
    #[track_caller]
    pub(crate) fn open(&mut self, query: &str) -> Stranger {
        let mut stranger = self.connect();
        stranger.send(upgrade(query));
        // It is accepted; and its edge is delivered.
        self.turns(2);
        let head = stranger.text();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head}");
        stranger.heard.clear();
        stranger
    }

    /// One that has sent a message and got its reply.
    #[track_caller]
    pub(crate) fn open_and_talk(&mut self, query: &str) -> Stranger {
        let mut stranger = self.open(query);
        stranger.send(frame(TEXT, "hello"));
        self.turn();
        assert_eq!(stranger.frame(), Some((TEXT, A::reply("hello", 1).into_bytes())));
        stranger
    }

    /// Tells the shard to go away.
    pub(crate) fn shut_down(&mut self) {
        self.status.begin_drain(self.now);
        self.shard.note_mail();
    }

    pub(crate) fn metrics(&self) -> &ReactorMetrics {
        self.status.reactor(0)
    }

    /// A sum of the page.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        metric(&self.status.metrics_page(self.now), name, label)
    }

    /// Time since the harness began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.begin
    }

    /// A turn, a millisecond after the last one; then the bystanders read, and say the next thing.
    pub(crate) fn turn(&mut self) {
        self.turn_after(Duration::from_millis(1));
    }

    /// A turn that takes no time worth mentioning.
    pub(crate) fn quick_turn(&mut self) {
        self.turn_after(Duration::from_micros(1));
    }

    fn turn_after(&mut self, time: Duration) {
        self.turn_of_the_shard(time);
        self.listen();
        self.ask();
    }

    fn turn_of_the_shard(&mut self, time: Duration) {
        self.now += time;
        self.turns += 1;
        if std::mem::take(&mut self.gate.has_arrivals) {
            self.shard.note_listener();
        }
        self.wires.retain(|wire| !wire.borrow().closed);
        for wire in &self.wires {
            let mut wire = wire.borrow_mut();
            let Some((_, id)) = wire.registered else { continue };
            if wire.edge.any() {
                let edge = wire.take_edge();
                self.shard.note_connection(id, edge);
            }
        }
        self.shard.turn(self.now, &mut self.gate);
        self.shard.invariants();
    }

    /// So many turns, a millisecond apart.
    pub(crate) fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    /// So much time, a turn every tick of the timer wheel.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.turn_after(revolve::connection::timer_wheel::TICK.min(until - self.now));
        }
    }

    /// Turns until the shard has drained and ended; bystanders answer its Close and leave.
    #[track_caller]
    pub(crate) fn leave(&mut self) {
        self.turn_of_the_shard(Duration::from_millis(1));
        let bystanders = std::mem::take(&mut self.bystanders);
        for _ in 0..100 {
            for bystander in &bystanders {
                bystander.stranger.send(client::close(1001));
                bystander.stranger.hang_up();
            }
            self.turn_of_the_shard(Duration::from_millis(20));
            if self.shard.outcome().is_some() {
                return;
            }
        }
        panic!("it does not end");
    }

    fn ask(&mut self) {
        for bystander in &mut self.bystanders {
            if bystander.asked_at == 0 {
                bystander.said += 1;
                bystander.asked_at = self.turns;
                bystander.stranger.send(frame(TEXT, format!("{}", bystander.said)));
            }
        }
    }

    fn listen(&mut self) {
        for bystander in &mut self.bystanders {
            while let Some((first, payload)) = bystander.stranger.frame() {
                match first {
                    PING => bystander.stranger.send(frame(PONG, payload)),
                    _ if payload.starts_with(b"{\"ts\"") => {}
                    _ => {
                        let text = String::from_utf8(payload).unwrap();
                        let said = bystander.said;
                        assert_eq!((first, text), (TEXT, A::reply(&said.to_string(), said)));
                        self.waits.push(self.turns - bystander.asked_at);
                        bystander.asked_at = 0;
                    }
                }
            }
        }
    }

    /// Forgets how long bystanders have waited so far: the test's own preparations are over.
    pub(crate) fn begin_watch(&mut self) {
        self.waits.clear();
    }

    /// Of a hundred replies, ninety-nine came in the very turn that followed the question; and
    /// nobody is still waiting.
    #[track_caller]
    pub(crate) fn bystanders_went_on(&mut self) {
        self.turn();
        self.waits.sort_unstable();
        assert!(self.waits.len() >= 5 * BYSTANDERS, "{} replies prove nothing", self.waits.len());
        let p99 = self.waits[(self.waits.len() - 1) * 99 / 100];
        let most = self.waits[self.waits.len() - 1];
        assert!(p99 <= 1, "p99 of {p99} turns in {} replies, {most} at most", self.waits.len());
        let waiting = self.bystanders.iter().map(|b| self.turns - b.asked_at).max();
        assert!(waiting <= Some(1), "one still waits, for {waiting:?} turns");
    }

    /// Nobody is left but the bystanders: slots, sessions and buffers of all others were given back.
    #[track_caller]
    pub(crate) fn only_bystanders_are_left(&self) {
        let metrics = self.metrics();
        let left = BYSTANDERS as u64;
        assert_eq!(metrics.connections.get(), left, "slots");
        assert_eq!(metrics.websockets.get(), left, "WebSockets");
        assert_eq!(metrics.sessions_live.get(), left, "live sessions");
        assert_eq!(self.shard.held_bytes(), 0, "bytes held for connections that are idle");
        assert_eq!(metrics.panics.get(), 0);
    }
}

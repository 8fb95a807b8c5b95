//! A crowd: a shard in memory with as many open connections as are asked for, each with its session.
//!
//! A process may have some thousand descriptors; in memory a million connections are no more than their
//! slots. Here is what such a crowd can do, one turn at a time: open, talk, be sent a broadcast, be pinged,
//! leave, be told goodbye. Counts nothing itself: `scale` says what is counted.
//!
//! Time stands still in a turn and between turns, but where a step lets it pass. So what falls due for one
//! connection falls due for all of them at once.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use revolve::application::{Application, Context, Hosted, Message};
use revolve::config::Config;
use revolve::http::Rejection;
use revolve::server_status::ServerStatus;
use revolve::shard::{DrainOutcome, Shard};
use revolve::token::LocalId;
use revolve::transport::Edge;

use crate::cases::client_frame;
use crate::turn::{Quiet, REQUEST, Traffic};

/// What each connection says, and what makes the application say something to all.
const MESSAGE: &[u8] = b"sixteen bytes ..";
const TO_ALL: &[u8] = b"all";

/// How long a session waits for its client: longer than the first hints in the wheel take, and shorter
/// than a connection may be silent.
const TTL: Duration = Duration::from_secs(15);

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";
const WATCH: &[u8] = b"GET /ws/stats HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Counts, as the default application does, and says to all what one asks it to.
struct Chorus;

impl Application for Chorus {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        if matches!(message, Message::Text("all")) {
            return cx.broadcast_text(r#"{"ts": "2026-11-26T12:00:00.000000"}"#);
        }
        let count = cx.count_message();
        cx.send_text_parts([r#"{"count": "#.into(), count.into(), "}".into()]);
    }
}

/// What becomes of a connection when the poll has reported it.
const READABLE: Edge =
    Edge { readable: true, writable: true, read_closed: false, urgent: false, reset: false };

/// The shard and its connections.
pub(crate) struct Crowd {
    shard: Shard<Chorus, Quiet>,
    host: Quiet,
    traffic: Rc<Traffic>,
    config: Arc<Config>,
    status: Arc<ServerStatus>,
    registered: Rc<RefCell<Vec<LocalId>>>,
    /// Those that are there, in the order of their slots.
    connections: Vec<LocalId>,
    /// How many have done what is being done by all.
    at: usize,
    beginning: Instant,
    now: Instant,
    said: [&'static [u8]; 3],
}

impl Crowd {
    /// Nobody yet; there is room for the ids of so many.
    pub(crate) fn new(connections: usize) -> Self {
        let traffic = Rc::new(Traffic { input: Cell::new(REQUEST), ..Traffic::default() });
        // Touched, so that it is no part of what is weighed later.
        let mut room = vec![LocalId::new(0, std::num::NonZeroU32::MAX); connections + 2];
        room.clear();
        let registered = Rc::new(RefCell::new(room));
        let host = Quiet::new(&traffic, &registered);
        let config = Config {
            workers: NonZeroUsize::MIN,
            access_log: false,
            session_ttl: TTL,
            max_sessions: 2 * connections + 1,
            ..Config::default()
        };
        let status = Arc::new(ServerStatus::new(1, Rejection::LABELS, Arc::new(AtomicU64::new(0))));
        let (now, application) = (Instant::now(), Hosted::alone(Chorus));
        let config = Arc::new(config);
        let shard = Shard::start(0, Arc::clone(&config), Arc::clone(&status), application, now);
        let Ok(shard) = shard else { panic!("its application starts") };
        let leak = |payload| &*Vec::leak(client_frame(0x81, payload));
        // The echo of our Close.
        let close = &*Vec::leak(client_frame(0x88, &1001u16.to_be_bytes()));
        let said = [leak(MESSAGE), leak(TO_ALL), close];
        let connections = Vec::new();
        Crowd {
            shard,
            host,
            traffic,
            config,
            status,
            registered,
            connections,
            at: 0,
            beginning: now,
            now,
            said,
        }
    }

    /// One turn, and the next timeout; whether there is to be another turn at once.
    pub(crate) fn turn(&mut self) -> bool {
        self.shard.turn(self.now, &mut self.host);
        self.shard.timeout(self.now) == Some(Duration::ZERO)
    }

    /// All turns that follow at once.
    pub(crate) fn settle(&mut self) {
        while self.turn() {}
    }

    // ---- they come ----

    /// So many are in the accept queue.
    pub(crate) fn come(&mut self, connections: usize) {
        self.traffic.input.set(REQUEST);
        self.host.queue = connections;
        self.shard.note_listener();
        self.at = self.registered.borrow().len();
    }

    /// Who was accepted in the last turn sends its request, and more are accepted; whether more are to come.
    pub(crate) fn open_some(&mut self) -> bool {
        let accepted = self.registered.borrow().len();
        for at in self.at..accepted {
            let id = self.registered.borrow()[at];
            self.shard.note_connection(id, READABLE);
        }
        self.at = accepted;
        self.turn();
        self.registered.borrow().len() > self.at || self.host.queue > 0
    }

    /// All have come.
    pub(crate) fn note_all_open(&mut self, connections: usize) {
        self.connections = std::mem::take(&mut *self.registered.borrow_mut());
        assert_eq!(self.connections.len(), connections);
        assert_eq!(self.status.reactor(0).websockets.get(), connections as u64);
        assert_eq!(self.status.reactor(0).sessions_live.get(), connections as u64);
    }

    /// One more that is none of the crowd and sends `request`. It is spoken for with [`Self::again`].
    fn guest(&mut self, request: &'static [u8]) -> LocalId {
        self.come(1);
        self.turn();
        self.traffic.input.set(request);
        let id = self.registered.borrow_mut().pop().expect("it was accepted");
        self.again(id);
        self.settle();
        id
    }

    /// Who asks for the metrics: has done it once.
    pub(crate) fn scraper(&mut self) -> LocalId {
        let id = self.guest(SCRAPE);
        assert!(self.traffic.written.get() > 2000, "it has the metrics");
        id
    }

    /// Who watches the live page: has seen its first frame.
    pub(crate) fn watcher(&mut self) -> LocalId {
        self.guest(WATCH)
    }

    /// A guest says the same once more, and gets its answer.
    pub(crate) fn again(&mut self, id: LocalId) {
        let before = self.traffic.written.get();
        self.shard.note_connection(id, READABLE);
        self.turn();
        assert!(self.traffic.written.get() > before, "it was answered");
    }

    /// A guest leaves.
    pub(crate) fn dismiss(&mut self, id: LocalId) {
        self.traffic.input.set(&[]);
        self.shard.note_connection(id, Edge { read_closed: true, ..READABLE });
        self.settle();
    }

    // ---- what they do ----

    /// From here on each of those who speak sends a message.
    pub(crate) fn prepare_messages(&mut self) {
        self.traffic.input.set(self.said[0]);
    }

    /// `talkers` of them, as far from each other as can be, have a message each.
    pub(crate) fn some_talk(&mut self, talkers: usize) {
        let (before, apart) = (self.traffic.writes.get(), self.connections.len() / talkers);
        for at in 0..talkers {
            self.shard.note_connection(self.connections[at * apart], READABLE);
        }
        self.turn();
        assert_eq!(self.traffic.writes.get() - before, talkers, "each was answered");
    }

    /// All are about to do one thing.
    pub(crate) fn begin(&mut self) {
        self.at = 0;
    }

    /// The next of them, as many as one poll reports, have something to say; whether there are more.
    pub(crate) fn next_talk(&mut self) -> bool {
        self.next(READABLE)
    }

    fn next(&mut self, edge: Edge) -> bool {
        let end = self.connections.len().min(self.at + 1024);
        for id in &self.connections[self.at..end] {
            self.shard.note_connection(*id, edge);
        }
        self.at = end;
        self.turn();
        end < self.connections.len()
    }

    /// One of them has something to be said to all.
    pub(crate) fn ask_for_broadcast(&mut self) {
        self.traffic.input.set(self.said[1]);
        self.shard.note_connection(self.connections[0], READABLE);
    }

    /// The peers have ended their halves.
    pub(crate) fn prepare_leaving(&mut self) {
        self.traffic.input.set(&[]);
        self.at = 0;
    }

    /// The next of them leave; whether there are more.
    pub(crate) fn next_leave(&mut self) -> bool {
        self.next(Edge { read_closed: true, ..READABLE })
    }

    /// So many of them do not take part in what is done now: they are set aside, and are those that stay.
    pub(crate) fn set_aside(&mut self, stay: usize) -> Vec<LocalId> {
        let apart = self.connections.len() / stay;
        // The last slot is among them.
        (0..stay).rev().map(|at| self.connections.remove((at + 1) * apart - 1)).collect()
    }

    /// They are all that are there now.
    pub(crate) fn only(&mut self, stayed: Vec<LocalId>) {
        self.connections = stayed;
        let open = self.status.reactor(0).websockets.get();
        assert_eq!(open, self.connections.len() as u64);
    }

    /// From here on, who is heard answers our Close.
    pub(crate) fn prepare_echoes(&mut self) {
        self.traffic.input.set(self.said[2]);
        self.at = 0;
    }

    // ---- what happens ----

    /// So much time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// It is so much later than in the beginning.
    pub(crate) fn until(&mut self, time: Duration) {
        self.now = self.beginning + time;
    }

    /// The server goes away.
    pub(crate) fn begin_drain(&mut self) {
        self.status.begin_drain(self.now);
        self.shard.note_mail();
    }

    /// How it went, once it is over.
    pub(crate) fn outcome(&self) -> Option<DrainOutcome> {
        self.shard.outcome()
    }

    // ---- what is known ----

    /// How long things take here.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    /// Writes so far.
    pub(crate) fn writes(&self) -> usize {
        self.traffic.writes.get()
    }

    /// Whether a look at the reactors is under way.
    pub(crate) fn is_looking(&self) -> bool {
        self.shard.timeout(self.now) == Some(Duration::ZERO)
    }

    /// Sessions without a connection.
    pub(crate) fn parked(&self) -> u64 {
        self.status.reactor(0).sessions_detached.get()
    }
}

//! Tests of an [`Application`] without sockets, threads or waiting.
//!
//! A [`TestServer`] has the very shards that a server has, and in place of a kernel a network in
//! memory. Whatever a client does takes effect before the call returns; time passes when it is told
//! to, and then everything that it brings about happens in order: timers, heartbeats, pings, expiry.
//!
//! ```
//! use std::time::Duration;
//! use revolve::testing::{Received, TestServer};
//! use revolve::{Application, Context, Message};
//!
//! /// Counts, and closes a connection that has said nothing for a minute.
//! struct Tally;
//!
//! impl Application for Tally {
//!     type Session = ();
//!     type Connection = ();
//!     fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
//!         let count = cx.count_message();
//!         cx.send_text(&count.to_string());
//!         let _ = cx.set_timer(Duration::from_secs(60), 0);
//!     }
//!     fn on_timer(&mut self, cx: &mut Context<'_, Self>, _key: u64) {
//!         cx.close(4000, "idle");
//!     }
//! }
//!
//! let server = TestServer::new(|_| Tally);
//! let ann = server.connect("session_id=ann");
//! ann.send_text("hello");
//! assert_eq!(ann.text(), "1");
//!
//! // Her connection breaks; her session waits for her, on whichever reactor.
//! ann.disconnect();
//! let ann = server.connect("session_id=ann");
//! ann.send_text("hello again");
//! assert_eq!(ann.text(), "2");
//!
//! server.advance(Duration::from_secs(59));
//! assert_eq!(ann.receive(), None);
//! server.advance(Duration::from_secs(2));
//! assert_eq!(ann.receive(), Some(Received::Closed { code: 4000, reason: "idle".into() }));
//! ```
//!
//! A client that reads nothing for a while ([`TestClient::stop_reading`]) shows what an application does
//! when more waits than a socket takes.
//!
//! Off-loaded jobs are run at once, on the test's own thread; [`TestServer::hold_jobs`] keeps them until they are asked
//! for, in any order. One that is never run is a job that never returns. Tasks for workers of Celery and RQ go nowhere:
//! the test is the worker ([`TestServer::set_worker`], [`TestServer::finish_task`]), wherever [`Config::broker`] is
//! set.
//!
//! [`faults`] can be planned on a [`wire`]; of wires, shards and `held_tasks` the [`machine`] is built, and on that the
//! test kit, whose other end is in `client`. revolve's own simulation, torture and fuzz target are built of them too.
//! `store` keeps sessions from one server to the next. Without a server, `simulated_disk` is what the file store is
//! tested on.
//!
//! Next: [`crate::testing::faults`]: what can go wrong.

mod client;
mod store;

#[cfg(not(feature = "internals"))]
#[expect(dead_code, reason = "revolve's own tests use the rest")]
mod faults;
#[cfg(feature = "internals")]
pub mod faults;
#[cfg(not(feature = "internals"))]
mod held_tasks;
#[cfg(feature = "internals")]
pub mod held_tasks;
#[cfg(not(feature = "internals"))]
#[expect(dead_code, reason = "revolve's own tests use the rest")]
mod machine;
#[cfg(feature = "internals")]
pub mod machine;
#[cfg(feature = "internals")]
pub mod simulated_disk;
#[cfg(not(feature = "internals"))]
#[expect(dead_code, reason = "revolve's own tests use the rest")]
mod wire;
#[cfg(feature = "internals")]
pub mod wire;

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::application::{Application, ReactorStart, Remote, Storing};
use crate::config::{Config, StoreSync};
use crate::tasks::{Task, TaskOutcome};

use client::Line;
pub use client::{
    ConnectionClosed, Received, Refused, TestClient, TestExchange, TestHttpRequest, TestRequest,
    TestResponse, TestUpgrade,
};
use faults::Faults;
use machine::Machine;
pub use store::TestStore;

/// Rounds in which everybody acts, after which nobody will ever come to rest.
const ROUNDS_MOST: usize = 100_000;

/// A server in memory. Clones are the same server.
pub struct TestServer<A: Application>(Rc<RefCell<World<A>>>);

impl<A: Application> Clone for TestServer<A> {
    fn clone(&self) -> Self {
        TestServer(self.0.clone())
    }
}

impl<A: Application> fmt::Debug for TestServer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer").finish_non_exhaustive()
    }
}

/// What does tasks in a test.
type Worker = Box<dyn FnMut(&Task) -> TaskOutcome>;

struct World<A: Application> {
    ws_path: String,
    machine: Machine<A>,
    lines: Vec<Line>,
    holds_jobs: bool,
    worker: Option<Worker>,
    store: Option<TestStore>,
    holds_store: bool,
}

impl<A: Application> TestServer<A> {
    /// A server with two reactors and otherwise the default [`Config`].
    ///
    /// # Panics
    ///
    /// As [`Self::with_config`].
    #[must_use]
    pub fn new(make: impl Fn(ReactorStart<A>) -> A) -> Self {
        let workers = const { NonZeroUsize::new(2).unwrap() };
        TestServer::with_config(Config { workers, ..Config::default() }, make)
    }

    /// A server with this configuration, in which address, port, backlog and store mean nothing.
    ///
    /// # Panics
    ///
    /// If a setting is out of its bounds.
    #[must_use]
    #[track_caller]
    pub fn with_config(config: Config, make: impl Fn(ReactorStart<A>) -> A) -> Self {
        TestServer::start(config, None, make)
    }

    /// A server that has the sessions of this store, and stores there what changes. [`Config::store_sync`] says whether
    /// replies wait for that; [`Config::store`] means nothing.
    ///
    /// ```
    /// use revolve::testing::{TestServer, TestStore};
    /// use revolve::{Config, Counter};
    ///
    /// let store = TestStore::new();
    /// let start = || TestServer::with_store(Config::default(), &store, |_| Counter::new(None));
    ///
    /// let server = start();
    /// let ann = server.connect("session_id=ann");
    /// ann.send_text("hello");
    /// assert_eq!(ann.text(), r#"{"count": 1}"#);
    ///
    /// // What is not stored was never answered, and may be lost.
    /// server.hold_store();
    /// ann.send_text("hello again");
    /// assert_eq!(ann.receive(), None);
    /// server.crash();
    ///
    /// let ann = start().connect("session_id=ann");
    /// ann.send_text("where was I?");
    /// assert_eq!(ann.text(), r#"{"count": 2}"#);
    /// ```
    ///
    /// # Panics
    ///
    /// If a setting is out of its bounds.
    #[must_use]
    #[track_caller]
    pub fn with_store(
        config: Config,
        store: &TestStore,
        make: impl Fn(ReactorStart<A>) -> A,
    ) -> Self {
        TestServer::start(config, Some(store.clone()), make)
    }

    #[track_caller]
    fn start(
        config: Config,
        store: Option<TestStore>,
        make: impl Fn(ReactorStart<A>) -> A,
    ) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        let ws_path = config.ws_path.clone();
        let storing = match (&store, config.store_sync) {
            (None, _) => Storing::Nothing,
            (Some(_), StoreSync::Always) => Storing::BeforeReplies,
            (Some(_), StoreSync::Every(_)) => Storing::BehindReplies,
        };
        let network = (config.limits.mailbox_capacity, storing);
        let ttl = config.session_ttl;
        let mut machine = Machine::storing(&Arc::new(config), network, 1, Faults::default(), make);
        if let Some(store) = &store {
            let (sessions, now_ms) = store.open(ttl);
            machine.net.borrow_mut().beginning_ms = now_ms;
            machine.recover(sessions);
        }
        let (lines, worker, holds_jobs, holds_store) = (Vec::new(), None, false, false);
        let world = World { ws_path, machine, lines, holds_jobs, worker, store, holds_store };
        let server = TestServer(Rc::new(RefCell::new(world)));
        server.settle();
        server
    }

    /// From now on what has changed waits for [`Self::release_store`], and so do the replies that depend on it. To the
    /// server its disk is slow: after [`Config::store_timeout`] it ends.
    pub fn hold_store(&self) {
        self.0.borrow_mut().holds_store = true;
    }

    /// Stores what has waited, and whatever changes from now on.
    pub fn release_store(&self) {
        self.0.borrow_mut().holds_store = false;
        self.settle();
    }

    /// Everything ends where it stands, as if the process were killed: no callback is called, no client is told, and
    /// what is not stored is lost. Clients see the end of their stream.
    pub fn crash(&self) {
        let mut world = self.0.borrow_mut();
        world.tell_time();
        world.machine.crash();
        drop(world);
        self.settle();
    }

    /// Opens a WebSocket; `query` is what stands behind the question mark.
    ///
    /// # Panics
    ///
    /// If it is refused. [`Self::request`] is for those who expect that.
    #[track_caller]
    pub fn connect(&self, query: &str) -> TestClient<A> {
        match self.request().query(query).connect() {
            Ok(client) => client,
            Err(refused) => panic!("the upgrade was refused: {refused:?}"),
        }
    }

    /// An upgrade to be: with headers, subprotocols, another path.
    pub fn request(&self) -> TestRequest<A> {
        TestRequest::new(self.clone())
    }

    /// A plain request to be: its target is a path, with a query or without one.
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::Echo;
    ///
    /// let server = TestServer::new(|_| Echo);
    /// let response = server.http_request("GET", "/healthz").send();
    /// assert_eq!((response.status, response.text()), (200, r#"{"status": "ok"}"#));
    /// assert_eq!(response.header("content-type"), Some("application/json"));
    /// assert_eq!(server.http_request("POST", "/orders").body("two teas").send().status, 404);
    /// ```
    pub fn http_request(&self, method: &str, target: &str) -> TestHttpRequest<A> {
        TestHttpRequest::new(self.clone(), method, target)
    }

    /// Lets so much time pass. What it brings about happens when it is due, one after the other.
    pub fn advance(&self, time: Duration) {
        let end = self.now() + time;
        self.settle();
        loop {
            let next = self.0.borrow().wakes_at();
            let next = next.map_or(end, |next| next.clamp(self.now(), end));
            self.0.borrow_mut().machine.now = next;
            self.settle();
            if next == end {
                return;
            }
        }
    }

    /// What time it is in there.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.borrow().machine.now
    }

    /// From now on off-loaded jobs wait for [`Self::run_job`]. To the server each has begun and has not
    /// returned yet: so when its client has gone, it is given up after
    /// [`crate::Limits::offload_orphan_timeout`].
    pub fn hold_jobs(&self) {
        self.0.borrow_mut().holds_jobs = true;
    }

    /// How many jobs wait, those included that were given up.
    #[must_use]
    pub fn held_jobs(&self) -> usize {
        self.0.borrow().machine.net.borrow().jobs.len()
    }

    /// Runs the job at this place in the order of off-loading, 0 being the first of those that wait. What
    /// one returns that was given up is dropped.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[track_caller]
    pub fn run_job(&self, index: usize) {
        let held = self.held_jobs();
        assert!(index < held, "job {index} of {held}");
        self.0.borrow().machine.net.borrow_mut().run_job(index);
        self.settle();
    }

    /// From now on this does what is enqueued ([`crate::Context::enqueue`]), in the order in which it comes. Without a
    /// worker tasks wait for [`Self::finish_task`], and time out when their time is over. It must not call this server.
    pub fn set_worker(&self, worker: impl FnMut(&Task) -> TaskOutcome + 'static) {
        self.0.borrow_mut().worker = Some(Box::new(worker));
        self.settle();
    }

    /// The tasks that wait, in the order in which they came. One that nobody waits for any more is taken back, and not
    /// among them, unless it outlives its connection.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        let world = self.0.borrow();
        let net = world.machine.net.borrow();
        net.tasks.iter().map(|held| held.task.clone()).collect()
    }

    /// The task at this place in [`Self::tasks`] has ended like this.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[track_caller]
    pub fn finish_task(&self, index: usize, outcome: TaskOutcome) {
        let waiting = self.0.borrow().machine.net.borrow().tasks.len();
        assert!(index < waiting, "task {index} of {waiting}");
        self.0.borrow().machine.net.borrow_mut().finish_task(index, outcome);
        self.settle();
    }

    /// The way in for other threads. What is posted happens in the next call that lets anything happen:
    /// `advance(Duration::ZERO)` for instance.
    #[must_use]
    pub fn remote(&self) -> Remote<A> {
        self.0.borrow().machine.remote.clone()
    }

    /// Calls `look` with the application of this reactor.
    ///
    /// # Panics
    ///
    /// If there is no such reactor, and if `look` calls this server.
    #[track_caller]
    pub fn application<R>(&self, reactor: usize, look: impl FnOnce(&mut A) -> R) -> R {
        let mut world = self.0.borrow_mut();
        let reactors = world.machine.len();
        assert!(reactor < reactors, "reactor {reactor} of {reactors}");
        look(world.machine.application_mut(reactor))
    }

    /// The page that `/metrics` would show: the server's own metrics, and the application's.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.0.borrow().machine.status.metrics_page(self.now())
    }

    /// Begins the drain, as SIGTERM does: clients are told goodbye (1001). It lasts until they have
    /// answered, which these do, and until jobs that wait have been run or given up; or until time is up.
    pub fn shut_down(&self) {
        self.0.borrow_mut().machine.shut_down();
        self.settle();
    }

    /// Whether it has drained: then everything is closed. A reactor that is done waits for the others,
    /// so this takes a moment to pass.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.borrow().machine.has_ended()
    }

    /// Everyone acts until nobody has anything to do without time passing.
    fn settle(&self) {
        let mut world = self.0.borrow_mut();
        for _ in 0..ROUNDS_MOST {
            if !world.round() {
                return;
            }
        }
        panic!("this server does not come to rest: does a callback cause itself?");
    }
}

impl<A: Application> World<A> {
    fn round(&mut self) -> bool {
        let mut acted = false;
        for shard in 0..self.machine.len() {
            acted |= self.machine.turn_if_woken(shard);
        }
        acted |= !self.holds_jobs && self.machine.net.borrow_mut().run_jobs();
        acted |= self.machine.net.borrow_mut().expire_tasks(self.machine.now);
        acted |= self.do_tasks();
        acted |= !self.holds_store && self.store_changes();
        for line in &mut self.lines {
            acted |= line.listen();
        }
        acted
    }

    /// Has the worker do what was enqueued; whether there was anything.
    fn do_tasks(&mut self) -> bool {
        let Some(worker) = &mut self.worker else { return false };
        let mut net = self.machine.net.borrow_mut();
        let has_tasks = !net.tasks.is_empty();
        while let Some(held) = net.tasks.first() {
            let outcome = worker(&held.task);
            net.finish_task(0, outcome);
        }
        has_tasks
    }

    /// When something happens even if nobody does anything.
    fn wakes_at(&self) -> Option<Instant> {
        let net = self.machine.net.borrow();
        let tasks = net.tasks.iter().map(|held| held.deadline).min();
        self.machine.wakes_at().into_iter().chain(tasks).min()
    }

    /// Stores what has been sent to the store; whether there was anything.
    fn store_changes(&mut self) -> bool {
        let Some(store) = &self.store else { return false };
        let mut net = self.machine.net.borrow_mut();
        let now_ms = net.wall_clock_ms(self.machine.now);
        let has_stored = !net.batches.is_empty();
        while !net.batches.is_empty() {
            store.take(&net.store_batch(0), now_ms);
        }
        has_stored
    }

    fn tell_time(&self) {
        if let Some(store) = &self.store {
            store.note_time(self.machine.net.borrow().wall_clock_ms(self.machine.now));
        }
    }

    /// A socket to this reactor, or to each in its turn.
    fn dial(&mut self, reactor: Option<usize>, peer: Option<SocketAddr>, room: usize) -> usize {
        let index = self.lines.len();
        let reactors = self.machine.len();
        let reactor = reactor.unwrap_or(index % reactors);
        assert!(reactor < reactors, "reactor {reactor} of {reactors}");
        let port = 50_000 + (index % 15_000) as u16;
        let peer = peer.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
        let line = Line::new(room);
        self.machine.connect(reactor, line.wire(), peer);
        self.lines.push(line);
        index
    }
}

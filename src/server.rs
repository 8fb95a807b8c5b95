//! A server: its listeners, a thread for each reactor, and the handle that ends them.
//!
//! Nothing here is global, so a process can hold several servers. Called by the daemon and by programs
//! that embed revolve.
//!
//! Next: [`crate::testing`]: the same without a kernel.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Poll, Registry};

use crate::application::{Application, Hosted, ReactorStart, Remote, Wake};
use crate::config::{Address, Config, Limits, StoreLocation};
use crate::contained::{Contained, Panicked, guard};
use crate::http::Rejection;
use crate::live_settings::LiveSettings;
use crate::liveness::Liveness;
use crate::mailbox::{MailSender, Mailbox, mailbox};
use crate::offload::pool::{Pool, PoolLimits};
use crate::reactor::{LISTENER, MAILBOX, OsEnvironment, Reactor, SLEEP_TIMER, Task};
use crate::serve_error::ServeError;
use crate::server_status::ServerStatus;
use crate::server_store::{NoStore, ReactorEnds, ServerStore, StoreAccessError, UnopenedStore};
use crate::server_tasks::ServerTasks;
use crate::server_tls::Certificates;
use crate::shard::{DrainOutcome, Shard};
use crate::sleep_timer::SleepTimer;
use crate::store::thread::CommitSender;
use crate::tasks::thread::{BrokerThread, OrderSender};
use crate::token::Entrance;
use crate::transport::listener::Listeners;
use crate::transport::socket::Socket;
use crate::transport::tls::TlsAcceptor;

/// The way to a running server: [`Server::builder`].
#[derive(Debug, Clone, Copy)]
pub struct Server;

impl Server {
    /// A server with the default [`Config`].
    pub fn builder() -> Builder {
        Builder { config: Config::default(), log_lines_dropped: Arc::default() }
    }
}

/// Settings of a server that is not yet running.
///
/// ```
/// use revolve::{Echo, Server};
///
/// let server = Server::builder().port(0).workers(2).serve(|_| Echo)?;
/// println!("listening on {}", server.addresses()[0]);
/// server.shutdown();
/// assert_eq!(server.join().cut, 0);
/// # Ok::<(), revolve::ServeError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a server runs once `serve` is called"]
pub struct Builder {
    config: Config,
    log_lines_dropped: Arc<AtomicU64>,
}

impl Builder {
    /// All settings at once.
    pub fn config(self, config: Config) -> Self {
        Builder { config, ..self }
    }

    /// Where to listen, instead of at the addresses so far: TCP addresses and Unix sockets.
    pub fn listen(mut self, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.config.listen = addresses.into_iter().collect();
        self
    }

    /// The host of the TCP addresses. Default 127.0.0.1.
    pub fn host(mut self, host: IpAddr) -> Self {
        self.tcp_addresses().for_each(|address| address.set_ip(host));
        self
    }

    /// The port of the TCP addresses; 0 picks one. Default 8000.
    pub fn port(mut self, port: u16) -> Self {
        self.tcp_addresses().for_each(|address| address.set_port(port));
        self
    }

    fn tcp_addresses(&mut self) -> impl Iterator<Item = &mut SocketAddr> {
        self.config.listen.iter_mut().filter_map(|address| match address {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) | Address::Inherited(_) => None,
        })
    }

    /// How many reactors; 0 counts as 1. Default: one a core.
    pub fn workers(mut self, workers: usize) -> Self {
        self.config.workers = NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN);
        self
    }

    /// The path of the WebSocket endpoint. Default `/ws/chat/`.
    pub fn ws_path(mut self, path: impl Into<String>) -> Self {
        self.config.ws_path = path.into();
        self
    }

    /// Where sessions are stored, so that they outlive the process. Default: nowhere.
    /// [`Application::save`] and [`Application::load`] are about their state.
    ///
    /// ```
    /// use revolve::{Echo, Server, StoreLocation};
    ///
    /// # let directory = std::env::temp_dir().join(format!("revolve-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory).unwrap();
    /// let store = StoreLocation::File(directory.clone());
    /// let server = Server::builder().port(0).store(store).serve(|_| Echo)?;
    /// server.shutdown();
    /// assert_eq!(server.join().store_failure, None);
    /// # std::fs::remove_dir_all(&directory).unwrap();
    /// # Ok::<(), revolve::ServeError>(())
    /// ```
    pub fn store(mut self, location: StoreLocation) -> Self {
        self.config.store = location;
        self
    }

    /// Where a logger counts the lines it dropped, to be shown on `/metrics`.
    pub fn dropped_log_lines(mut self, count: Arc<AtomicU64>) -> Self {
        self.log_lines_dropped = count;
        self
    }

    /// Binds the addresses and starts a thread a reactor, each with an application that `make` makes there; it is told
    /// which reactor that is, and how threads reach it. Returns once all of them are made, and have had their
    /// `on_start`: none serves before. With a store ([`Self::store`]) it returns when that is read; until then upgrades
    /// get 503.
    ///
    /// # Errors
    ///
    /// A setting out of its bounds, an address that cannot be had, a system out of descriptors or
    /// threads, a store that cannot be opened, or an application that panicked. Then nothing is left running.
    pub fn serve<A, F>(self, make: F) -> Result<ServerHandle<A>, ServeError>
    where
        A: Application,
        F: Fn(ReactorStart<A>) -> A + Send + Sync + 'static,
    {
        self.config.validate().map_err(ServeError::Config)?;
        let config = Arc::new(self.config);
        let workers = config.workers.get();
        let Bound { listeners, listening, tls } = Bound::bind(&config)?;
        let status =
            Arc::new(ServerStatus::new(workers, Rejection::LABELS, self.log_lines_dropped));
        status.note_tls(tls);
        status.note_limit(config.limit_concurrency);
        let sockets = Sockets::open_all(listeners, &config.limits).map_err(ServeError::Start)?;
        let trigger = ShutdownTrigger::new(&sockets, status.clone());
        let pool = Arc::new(Pool::new(PoolLimits::of(&config), status.pool().clone(), Task::run));
        let make = Arc::new(Contained::new(make));
        let (remote, posts) = Remote::new(config.limits.mailbox_capacity, trigger.wakes());
        let mut store = UnopenedStore::of(&config, &status);
        let tasks = trigger.start_tasks(&config)?;
        let mut starts = Vec::with_capacity(workers);
        let (report, reports) = mpsc::channel();
        let mut threads = Vec::with_capacity(workers);
        for ((number, sockets), posts) in sockets.into_iter().enumerate().zip(posts) {
            let birth = ReactorStart { reactor: number, remote: remote.clone() };
            let remote = remote.clone();
            let ReactorEnds { storing, commits, recovered } =
                UnopenedStore::next_ends(&mut store, &config);
            let args = ReactorArgs {
                number,
                config: config.clone(),
                status: status.clone(),
                trigger: trigger.clone(),
                pool: pool.clone(),
                commits,
                orders: tasks.orders(),
            };
            let (start, is_started) = mpsc::channel();
            starts.push(start);
            let gate = Gate { report: report.clone(), is_started };
            let make = make.clone();
            let thread =
                thread::Builder::new().name(format!("reactor-{number}")).spawn(move || {
                    let make = || Hosted {
                        application: make.get()(birth),
                        posts,
                        remote,
                        storing,
                        recovered,
                    };
                    args.run(sockets, make, gate)
                });
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    end_unstarted(starts, threads);
                    return Err(ServeError::Start(error));
                }
            }
        }
        // None serves before all have an application.
        drop(report);
        if reports.iter().take(workers).any(|made| made.is_err()) {
            end_unstarted(starts, threads);
            return Err(ServeError::Application);
        }
        // One that has gone says why when it is joined.
        starts.iter().for_each(|start| start.send(()).unwrap_or(()));
        let (first, broker) = (config.clone(), tasks.into_thread());
        ServerHandle { listening, threads, trigger, remote, first, store: None, broker }
            .open_store(store, &config)
    }
}

/// All that a server listens on.
struct Bound {
    /// Of each reactor.
    listeners: Vec<Listeners>,
    listening: Listening,
    tls: Option<Arc<TlsAcceptor>>,
}

/// Where it listens, with the ports that it got.
#[derive(Debug)]
struct Listening {
    addresses: Vec<Address>,
    plain: Vec<Address>,
    admin: Option<Address>,
}

impl Bound {
    fn bind(config: &Config) -> Result<Bound, ServeError> {
        let Certificates(tls) = Certificates::load(&config.tls).map_err(ServeError::Tls)?;
        let (backlog, workers) = (config.backlog, config.workers.get());
        let bind = |addresses: &[Address]| Listeners::bind(addresses, backlog, workers);
        let (mut listeners, addresses) = bind(&config.listen)
            .map_err(|(address, error)| ServeError::Listen { address, error })?;
        let (own, plain) = bind(&config.listen_plain)
            .map_err(|(address, error)| ServeError::Plain { address, error })?;
        let (of_operators, mut admin) = bind(config.admin.as_slice())
            .map_err(|(address, error)| ServeError::Admin { address, error })?;
        for (all, (plain, admin)) in listeners.iter_mut().zip(own.into_iter().zip(of_operators)) {
            all.add(plain, Entrance::Public, false);
            all.add(admin, Entrance::Admin, config.admin_tls);
            all.speak_tls_by(tls.clone());
        }
        let listening = Listening { addresses, plain, admin: admin.pop() };
        Ok(Bound { listeners, listening, tls })
    }
}

/// What a reactor is made of that can fail, opened before any thread starts.
struct Sockets {
    poll: Poll,
    sleep_timer: SleepTimer,
    registry: Registry,
    listeners: Listeners,
    sender: MailSender<Socket>,
    mailbox: Mailbox<Socket>,
}

impl Sockets {
    /// Those of all reactors.
    fn open_all(listeners: Vec<Listeners>, limits: &Limits) -> io::Result<Vec<Sockets>> {
        let open = |listeners| Sockets::open(listeners, limits);
        let sockets = listeners.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
        // One descriptor more than the reactors have, or not a single client could be let in.
        if let Some(sockets) = sockets.first() {
            drop(sockets.registry.try_clone()?);
        }
        Ok(sockets)
    }

    fn open(mut listeners: Listeners, limits: &Limits) -> io::Result<Sockets> {
        let poll = Poll::new()?;
        listeners.register(poll.registry(), LISTENER)?;
        let answers = limits.offloads_per_reactor + limits.tasks_per_reactor;
        let capacity = limits.mailbox_capacity;
        let (sender, mailbox) = mailbox(capacity, answers, poll.registry(), MAILBOX)?;
        let sleep_timer = SleepTimer::new(poll.registry(), SLEEP_TIMER)?;
        let registry = poll.registry().try_clone()?;
        Ok(Sockets { poll, sleep_timer, registry, listeners, sender, mailbox })
    }
}

/// Ends the reactors that wait at their gates, and waits until their sockets are closed.
fn end_unstarted(
    starts: Vec<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<io::Result<DrainOutcome>>>,
) {
    drop(starts);
    threads.into_iter().for_each(|thread| drop(thread.join()));
}

/// How a reactor that is made waits for the others.
struct Gate {
    /// Whether its application was made.
    report: mpsc::Sender<Result<(), Panicked>>,
    /// Something comes when all were; the end, if one was not.
    is_started: mpsc::Receiver<()>,
}

/// What a reactor's thread needs to know of its server.
struct ReactorArgs {
    number: usize,
    config: Arc<Config>,
    status: Arc<ServerStatus>,
    trigger: ShutdownTrigger,
    pool: Arc<Pool<Task>>,
    commits: Option<CommitSender>,
    orders: Option<OrderSender>,
}

impl ReactorArgs {
    fn run<A: Application>(
        self,
        sockets: Sockets,
        make: impl FnOnce() -> Hosted<A>,
        gate: Gate,
    ) -> io::Result<DrainOutcome> {
        // A reactor that dies takes its sessions with it. The others must not go on as if nothing
        // had happened: clients of the dead one would wait for ever.
        let _guard = EndWithMe(&self.trigger);
        let Sockets { poll, sleep_timer, registry, listeners, mailbox, .. } = sockets;
        let senders = self.trigger.senders.to_vec();
        let environment = OsEnvironment {
            registry,
            listeners,
            mailbox,
            senders,
            number: self.number,
            pool: self.pool,
            commits: self.commits,
            orders: self.orders,
        };
        let now = Instant::now();
        let slow_turn = self.config.slow_turn.unwrap_or(Duration::MAX);
        let events_per_poll = self.config.limits.events_per_poll;
        let shard = guard(make).and_then(|hosted| {
            Shard::start(self.number, self.config, self.status.clone(), hosted, now)
        });
        let _ = gate.report.send(shard.as_ref().map(|_| ()).map_err(|error| *error));
        let Ok(shard) = shard else { return Ok(DrainOutcome::default()) };
        if gate.is_started.recv().is_err() {
            return Ok(DrainOutcome::default());
        }
        let reactor = Reactor { poll, sleep_timer, shard, environment, slow_turn, events_per_poll };
        let outcome = reactor.run(self.status.reactor(self.number));
        if let Err(error) = &outcome {
            log::error!(reactor = self.number; "a reactor ended: {error}");
        }
        outcome
    }
}

/// Shuts the server down when it is dropped; after a regular end that changes nothing.
struct EndWithMe<'a>(&'a ShutdownTrigger);

impl Drop for EndWithMe<'_> {
    fn drop(&mut self) {
        self.0.begin();
    }
}

/// Starts the shutdown of a server, from any thread.
#[derive(Debug, Clone)]
pub struct ShutdownTrigger {
    senders: Arc<[MailSender<Socket>]>,
    status: Arc<ServerStatus>,
}

impl ShutdownTrigger {
    fn new(sockets: &[Sockets], status: Arc<ServerStatus>) -> ShutdownTrigger {
        let senders = sockets.iter().map(|sockets| sockets.sender.clone()).collect();
        ShutdownTrigger { senders, status }
    }

    /// What speaks with the broker, if there is one: it answers those that this wakes.
    fn start_tasks(&self, config: &Config) -> Result<ServerTasks, ServeError> {
        ServerTasks::start(config, &self.status, &self.senders).map_err(ServeError::Start)
    }

    /// What ends the sleep of each reactor.
    fn wakes(&self) -> impl Iterator<Item = Wake> {
        let senders = self.senders.iter().cloned();
        senders.map(|sender| -> Wake { Box::new(move || sender.wake()) })
    }

    /// Begins the drain, and returns at once, whatever the reactors are busy with. Further calls change
    /// nothing.
    pub fn begin(&self) {
        if self.status.draining_since().is_some() {
            return;
        }
        // From here on `/readyz` says 503, whichever reactor is asked.
        self.status.begin_drain(Instant::now());
        // That it has begun is a shared value. Each reactor reads it when it is woken.
        self.senders.iter().for_each(MailSender::wake);
    }
}

/// How a server ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// WebSockets that were closed in good order during the drain.
    pub closed: u64,
    /// WebSockets that were cut: they did not answer our Close, or its time was up.
    pub cut: u64,
    /// How long the drain took.
    pub duration: Duration,
    /// Reactors that panicked instead of draining. Not 0 is a defect of revolve's: what an application
    /// panics over ends a connection at most.
    pub panicked: usize,
    /// Reactors that the system failed: their poll could not be waited for.
    pub failed: usize,
    /// Why sessions could not be stored any more, in one line; then the server has ended because of that, at once, and
    /// no client was told of anything that is not stored ([`crate::StoreSync::Always`]). The log has said it.
    pub store_failure: Option<String>,
}

/// A running server of this application. Dropping the handle leaves it running.
pub struct ServerHandle<A: Application> {
    listening: Listening,
    threads: Vec<JoinHandle<io::Result<DrainOutcome>>>,
    trigger: ShutdownTrigger,
    remote: Remote<A>,
    /// The settings of its start.
    first: Arc<Config>,
    store: Option<ServerStore>,
    broker: Option<BrokerThread>,
}

impl<A: Application> fmt::Debug for ServerHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("listening", &self.listening).finish_non_exhaustive()
    }
}

impl<A: Application> ServerHandle<A> {
    /// Where it listens: [`Config::listen`], with the ports that it got.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.listening.addresses
    }

    /// Where it listens without TLS beside those: [`Config::listen_plain`], with the ports that it got.
    #[must_use]
    pub fn plain_addresses(&self) -> &[Address] {
        &self.listening.plain
    }

    /// Where operators ask: [`Config::admin`], with the port that it got.
    #[must_use]
    pub fn admin_address(&self) -> Option<&Address> {
        self.listening.admin.as_ref()
    }

    /// Begins the drain, and returns at once: no new connections, 1001 to everyone, an end when
    /// all have answered or `timeout_graceful_shutdown` has passed.
    pub fn shutdown(&self) {
        self.trigger.begin();
    }

    /// Something that can call for the drain from elsewhere: a signal handler's thread.
    #[must_use]
    pub fn shutdown_trigger(&self) -> ShutdownTrigger {
        self.trigger.clone()
    }

    /// The way to its settings, from any thread.
    #[must_use]
    pub fn live_settings(&self) -> LiveSettings {
        let ShutdownTrigger { senders, status } = self.trigger.clone();
        LiveSettings { senders, status, first: self.first.clone() }
    }

    /// Something that looks whether its reactors turn, for a watchdog.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let ShutdownTrigger { senders, status } = self.trigger.clone();
        Liveness::new(senders, status)
    }

    /// The way to its reactors and connections, from any thread.
    #[must_use]
    pub fn remote(&self) -> Remote<A> {
        self.remote.clone()
    }

    /// The certificates that it shows, which can be loaded anew ([`Config::tls`]).
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        Certificates(self.trigger.status.tls().cloned())
    }

    /// The page that `/metrics` shows.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.trigger.status.metrics_page(Instant::now())
    }

    /// Whether all reactors have ended. If one dies the others drain, so this comes true without a call
    /// for the drain only after that.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
            && self.store.as_ref().is_none_or(ServerStore::has_ended)
    }

    /// Waits for the end.
    pub fn join(self) -> Summary {
        let mut summary = Summary::default();
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(outcome)) => {
                    summary.closed += outcome.closed;
                    summary.cut += outcome.cut;
                    summary.duration = summary.duration.max(outcome.duration);
                }
                Ok(Err(_)) => summary.failed += 1,
                Err(_) => summary.panicked += 1,
            }
        }
        let status = &self.trigger.status;
        if let Some(store) = self.store {
            store.join(status);
        }
        if let Some(broker) = self.broker {
            broker.join();
        }
        summary.store_failure = status.store_failure().map(str::to_owned);
        summary
    }

    /// Opens the store, if there is to be one, and gives the reactors what it had. If it cannot be opened, they end.
    fn open_store(
        mut self,
        store: Option<UnopenedStore>,
        config: &Config,
    ) -> Result<Self, ServeError> {
        let Some(store) = store else { return Ok(self) };
        let ShutdownTrigger { senders, status } = &self.trigger;
        match store.open(config, status, senders) {
            Ok(store) => {
                self.store = Some(store);
                Ok(self)
            }
            Err(why) => {
                status.give_up_store();
                senders.iter().for_each(MailSender::wake);
                self.join();
                Err(match why {
                    NoStore::Open(error) => ServeError::Store(StoreAccessError::new(error)),
                    NoStore::Away(why) => ServeError::Store(StoreAccessError::of_line(why)),
                    NoStore::Thread(error) => ServeError::Start(error),
                })
            }
        }
    }
}

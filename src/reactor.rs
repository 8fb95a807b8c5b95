//! The event loop: one thread, one poll, one shard.
//!
//! [`Reactor::run`] is the loop; [`OsEnvironment`] is the shard's environment, made of real sockets. What
//! happens in a turn is `shard/`'s. Called by `server.rs`, on a thread of its own.
//!
//! Invariant: all events of a poll are noted before the first is acted on.
//!
//! Next: [`crate::server_store`]: what the reactors of a server need of a store.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::application::Application;
use crate::connection::timer_wheel::TICK;
use crate::environment::Environment;
use crate::mailbox::{Mail, MailSender, Mailbox};
use crate::observe::metrics::ReactorMetrics;
use crate::offload::Job;
use crate::offload::pool::{Pool, TaskEnd};
use crate::shard::{DrainOutcome, Shard};
use crate::sleep_timer::SleepTimer;
use crate::store::CommitBatch;
use crate::store::thread::{CommitSender, now_ms};
use crate::tasks::TaskOrder;
use crate::tasks::thread::OrderSender;
use crate::token::LocalId;
use crate::transport::Edge;
use crate::transport::listener::{Accepted, Listeners};
use crate::transport::socket::Socket;

/// The token of all listeners. Like the mailbox's it has generation 0, which no connection has.
pub const LISTENER: Token = Token(0);
/// The mailbox's token.
pub const MAILBOX: Token = Token(1);
/// The sleep timer's.
pub const SLEEP_TIMER: Token = Token(2);

/// Both directions, registered once and never changed: mio is edge-triggered, so an interest that is
/// always there costs nothing. And urgent data, where the poll can report it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Where the poll cannot report urgent data, there may always be some: no short read means empty.
const URGENT_IS_UNTOLD: bool = !cfg!(any(target_os = "linux", target_os = "android"));

/// A shard, and the poll that feeds it.
pub struct Reactor<A: Application> {
    /// Where readiness comes from.
    pub poll: Poll,
    /// What ends the sleep when nothing comes from there.
    pub sleep_timer: SleepTimer,
    /// What happens then.
    pub shard: Shard<A, OsEnvironment>,
    /// Sockets, mail, randomness, threads.
    pub environment: OsEnvironment,
    /// A turn that takes at least this long is to be accounted for.
    pub slow_turn: Duration,
    /// Events that a poll tells at most ([`crate::config::Limits::events_per_poll`]).
    pub events_per_poll: usize,
}

impl<A: Application> Reactor<A> {
    /// Turns until the shard has drained.
    ///
    /// # Errors
    ///
    /// When the poll itself fails, which leaves nothing to be done.
    pub fn run(mut self, metrics: &ReactorMetrics) -> io::Result<DrainOutcome> {
        let mut events = Events::with_capacity(self.events_per_poll);
        let mut now = Instant::now();
        loop {
            let timeout = self.shard.timeout(now);
            let polled = self.poll.poll(&mut events, self.sleep_timer.time_out(now, timeout));
            let woken = Instant::now();
            metrics.asleep_ns.add(nanoseconds(now, woken));
            match polled {
                Ok(()) => {}
                // A signal, or the end of a SIGSTOP, ended the sleep, and nothing was reported. The
                // edges come first, before any deadline is judged by the time that has passed.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    now = woken;
                    continue;
                }
                Err(error) => return Err(error),
            }
            metrics.turn(self.note_all(&events) as u64);
            if timeout.is_some_and(|timeout| woken.duration_since(now) > timeout + TICK) {
                self.poll_again(&mut events)?;
            }
            self.shard.turn(woken, &mut self.environment);
            let done = Instant::now();
            let took = done.saturating_duration_since(woken);
            metrics.turn_took(took);
            if took >= self.slow_turn {
                self.shard.note_slow_turn(took, done);
            }
            self.shard.tell_turn(now, woken, done);
            now = done;
            if let Some(outcome) = self.shard.outcome() {
                return Ok(outcome);
            }
        }
    }

    /// The loop woke late, so the process may have been stopped after the kernel had reported its
    /// events and before the clock was read. Then bytes that came in between are not reported, and
    /// deadlines would be judged without them. A poll that begins now reports them.
    #[cold]
    fn poll_again(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(Duration::ZERO)) {
            Ok(()) => {
                self.note_all(events);
                Ok(())
            }
            // It reported nothing, so there may be an edge for every connection.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.shard.note_full_poll(0);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down all events of a poll; how many of them tell of readiness.
    #[inline(always)]
    fn note_all(&mut self, events: &Events) -> usize {
        let (mut told, mut ready, mut edges) = (0, 0, 0);
        for event in events {
            told += 1;
            if event.token() == SLEEP_TIMER {
                self.sleep_timer.fired();
                continue;
            }
            ready += 1;
            edges += usize::from(self.note(event));
        }
        match told < self.events_per_poll {
            true => self.shard.note_whole_poll(),
            false => self.shard.note_full_poll(edges),
        }
        ready
    }

    /// Writes down what the kernel said. Acting on it is for the turn: so the order of events in
    /// one poll decides nothing, and no event of this poll is left when a connection ends in the turn.
    /// Whether it was about a connection.
    fn note(&mut self, event: &Event) -> bool {
        match event.token() {
            LISTENER => {
                self.shard.note_listener();
                false
            }
            MAILBOX => {
                self.environment.mailbox.opened();
                self.shard.note_mail();
                false
            }
            token => {
                if let Some(id) = LocalId::from_token(token) {
                    // The next read returns the error: a reset shows up as `ECONNRESET`, in order
                    // behind the bytes that came before it. One that is not read ends at once.
                    let edge = Edge {
                        readable: event.is_readable() || event.is_error(),
                        writable: event.is_writable(),
                        read_closed: event.is_read_closed() || event.is_error(),
                        urgent: event.is_priority() || URGENT_IS_UNTOLD,
                        reset: event.is_error(),
                    };
                    self.shard.note_connection(id, edge);
                }
                true
            }
        }
    }
}

fn nanoseconds(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_nanos() as u64
}

/// Real sockets, real mail, the system's randomness.
pub struct OsEnvironment {
    /// Where sockets are registered: the poll's own.
    pub registry: Registry,
    /// Empty from the end of the last call on.
    pub listeners: Listeners,
    /// Mail for this reactor.
    pub mailbox: Mailbox<Socket>,
    /// The way to every reactor, by number.
    pub senders: Vec<MailSender<Socket>>,
    /// Which of them is this one.
    pub number: usize,
    /// Threads for what must not be run here.
    pub pool: Arc<Pool<Task>>,
    /// The way to the store, if there is one.
    pub commits: Option<CommitSender>,
    /// The way to the broker, if there is one.
    pub orders: Option<OrderSender>,
}

/// A job, and the way back to its reactor.
#[derive(Debug)]
pub struct Task {
    job: Job,
    back: MailSender<Socket>,
}

impl Task {
    /// Runs the job and sends its value back, for which there is always room, unless the reactor has
    /// given it up.
    pub fn run(self) -> TaskEnd {
        match self.job.run() {
            Some(finished) => {
                self.back.send_answer(finished);
                TaskEnd::Told
            }
            None => TaskEnd::Late,
        }
    }
}

impl Environment for OsEnvironment {
    type Stream = Socket;

    fn accept(&mut self) -> io::Result<Accepted<Socket>> {
        self.listeners.accept()
    }

    fn stop_listening(&mut self) {
        self.listeners.close();
    }

    fn register(&mut self, stream: &mut Socket, id: LocalId) -> io::Result<()> {
        self.registry.register(stream, id.token(), INTEREST)
    }

    fn deregister(&mut self, stream: &mut Socket) -> io::Result<()> {
        self.registry.deregister(stream)
    }

    fn send(&mut self, reactor: usize, mail: Mail<Socket>) -> Result<(), Mail<Socket>> {
        self.senders[reactor].send(mail)
    }

    fn wake(&mut self, reactor: usize) {
        self.senders[reactor].wake();
    }

    fn has_room(&self, reactor: usize) -> bool {
        self.senders[reactor].has_room()
    }

    fn receive(&mut self) -> Option<Mail<Socket>> {
        self.mailbox.receive()
    }

    fn clock(&mut self) -> Instant {
        Instant::now()
    }

    fn offload(&mut self, job: Job) -> Result<(), Job> {
        let back = self.senders[self.number].clone();
        self.pool.take(Task { job, back }).map_err(|task| task.job)
    }

    fn enqueue(&mut self, order: TaskOrder) -> Result<(), TaskOrder> {
        match &self.orders {
            Some(orders) => orders.send(self.number, order),
            None => Err(order),
        }
    }

    fn wall_clock_ms(&mut self) -> u64 {
        now_ms()
    }

    fn commit(&mut self, batch: CommitBatch) {
        // A shard without a store has nothing to commit.
        if let Some(commits) = &self.commits {
            commits.send(self.number, batch);
        }
    }

    fn random(&mut self, room: &mut [u8]) -> io::Result<()> {
        getrandom::fill(room).map_err(io::Error::other)
    }
}

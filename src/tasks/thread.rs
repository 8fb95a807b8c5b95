//! The broker's thread: it takes the reactors' orders, turns the link, and sends results home.
//!
//! One thread for all reactors, with a poll of its own: orders wake it, and so does each socket. In a turn it takes all
//! that has come, and what follows leaves in one write for each connection: so a batch grows with the load. Connecting
//! waits, and so is done by a thread that lives as long as that takes. Knows no mailbox: it is given a closure with
//! which to answer. Made by `server_tasks.rs`.
//!
//! Invariant: nothing in here waits but the poll, so no deadline is missed because a broker does not answer.
//!
//! Next: [`crate::application`]: what runs on a reactor.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use mio::{Events, Poll, Token, Waker};

use super::in_flight::{InFlight, InFlightOptions, Now};
use super::link::{self, Link, Made};
use super::metrics::TaskMetrics;
use super::order::TaskOrder;
use super::outcome::TaskId;
use crate::contained::guard;
use crate::offload::Finished;
use crate::resp::availability::Availability;
use crate::resp::backoff::{self, Backoff};
use crate::resp::{ConnectionError, ServerAddress};

const WAKER: Token = Token(0);

/// How often is looked whether somebody still waits for a task, while there are any.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The longest sleep.
const SLEEP_MOST: Duration = Duration::from_secs(1);

/// For how long the thread goes on when the server has ended: what is to be revoked then takes a round trip.
const GOODBYE: Duration = Duration::from_secs(1);

/// Which broker, and what bounds the tasks that it gets.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where it is, and who we are there.
    pub address: ServerAddress,
    /// Tasks of all reactors at once.
    pub tasks_most: usize,
    /// For how long one may wait for the broker.
    pub send_timeout: Duration,
    /// Bytes of a result that are kept.
    pub result_bytes_most: usize,
}

/// Sends a result to this reactor.
pub type TellResult = Box<dyn Fn(usize, Finished) + Send>;

/// What ends the thread's sleep: once for all that has come since it has looked.
#[derive(Debug)]
struct Alarm {
    waker: Waker,
    is_raised: AtomicBool,
}

impl Alarm {
    /// Behind what was put into a channel: so whoever lowers it finds that.
    fn raise(&self) {
        if !self.is_raised.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            log::warn!("cannot wake the thread of the broker: {error}");
        }
    }

    fn lower(&self) {
        self.is_raised.swap(false, Ordering::AcqRel);
    }
}

/// Whether the thread takes orders. So that none is forgotten when it ends though reactors go on, which is a defect.
#[derive(Debug, Default)]
struct Gate {
    is_closed: AtomicBool,
    /// Reactors that have looked, and have not sent yet.
    passing: AtomicUsize,
}

impl Gate {
    fn pass<R>(&self, send: impl FnOnce(bool) -> R) -> R {
        self.passing.fetch_add(1, Ordering::SeqCst);
        let sent = send(!self.is_closed.load(Ordering::SeqCst));
        self.passing.fetch_sub(1, Ordering::SeqCst);
        sent
    }

    /// From when this returns nothing is sent any more.
    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        while self.passing.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    }
}

/// A reactor's way to the thread.
#[derive(Debug)]
pub struct OrderSender {
    /// There until it is dropped.
    orders: Option<Sender<(usize, TaskOrder)>>,
    alarm: Arc<Alarm>,
    gate: Arc<Gate>,
}

impl OrderSender {
    /// Sends an order of this reactor.
    ///
    /// # Errors
    ///
    /// The order itself, when as many wait as may be, or the thread has ended.
    pub fn send(&self, reactor: usize, order: TaskOrder) -> Result<(), TaskOrder> {
        let Some(orders) = &self.orders else { return Err(order) };
        let sent = self.gate.pass(|is_open| match is_open {
            true => orders.try_send((reactor, order)).map_err(|error| error.into_inner().1),
            false => Err(order),
        });
        sent.inspect(|()| self.alarm.raise())
    }
}

impl Clone for OrderSender {
    fn clone(&self) -> Self {
        let (alarm, gate) = (self.alarm.clone(), self.gate.clone());
        OrderSender { orders: self.orders.clone(), alarm, gate }
    }
}

impl Drop for OrderSender {
    /// When the last one has gone, the thread ends: so it looks, behind that.
    fn drop(&mut self) {
        self.orders = None;
        self.alarm.raise();
    }
}

/// The running thread.
#[derive(Debug)]
pub struct BrokerThread {
    thread: JoinHandle<()>,
    /// Ends with the thread.
    has_ended: Receiver<()>,
}

impl BrokerThread {
    /// Starts it, and connects when that can be done. The way to it is cloned for each reactor.
    ///
    /// # Errors
    ///
    /// When the system has no threads or descriptors left, or no randomness.
    pub fn start(
        options: BrokerOptions,
        metrics: Arc<TaskMetrics>,
        tell: TellResult,
    ) -> io::Result<(OrderSender, BrokerThread)> {
        metrics.note_use();
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let alarm = Arc::new(Alarm { waker, is_raised: AtomicBool::new(false) });
        let (orders, received) = bounded(options.tasks_most);
        let gate = Arc::<Gate>::default();
        let in_flight = InFlightOptions {
            database: options.address.database(),
            most: options.tasks_most,
            send_timeout: options.send_timeout,
            result_bytes_most: options.result_bytes_most,
            reply_to: random_id()?,
        };
        let broker = Broker {
            tasks: InFlight::new(in_flight, metrics.clone()),
            connecting: Connecting::new(options.address.clone(), alarm.clone()),
            options,
            metrics,
            tell,
            poll,
            alarm: alarm.clone(),
            orders: received,
            link: None,
            looked: Instant::now(),
            has_more: false,
            complaints: Availability::default(),
            gate: gate.clone(),
        };
        let (running, has_ended) = bounded::<()>(0);
        let thread = thread::Builder::new().name("tasks".to_owned()).spawn(move || {
            let _running = running;
            match guard(move || broker.run()) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("tasks: the thread of the broker has ended: {error}"),
                Err(_) => log::error!("tasks: the thread of the broker panicked"),
            }
        })?;
        Ok((OrderSender { orders: Some(orders), alarm, gate }, BrokerThread { thread, has_ended }))
    }

    /// Waits, when no [`OrderSender`] is left, until it has ended.
    pub fn join(self) {
        // A moment more than it takes: nothing that may hang is called in there.
        if self.has_ended.recv_timeout(2 * GOODBYE).is_err_and(|error| error.is_disconnected()) {
            let _ = self.thread.join();
        }
    }
}

fn random_id() -> io::Result<TaskId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(TaskId::from_random(bytes))
}

fn now() -> Now {
    Now { at: Instant::now(), wall: SystemTime::now() }
}

/// What is being done to get a link.
struct Connecting {
    address: ServerAddress,
    alarm: Arc<Alarm>,
    /// Where a thread that connects answers, while there is one.
    answer: Option<Receiver<Result<Made, ConnectionError>>>,
    backoff: Backoff,
}

impl Connecting {
    fn new(address: ServerAddress, alarm: Arc<Alarm>) -> Connecting {
        Connecting { address, alarm, answer: None, backoff: Backoff::new(Instant::now()) }
    }

    /// Starts the next attempt, if it is time, and none is under way.
    fn begin(&mut self, now: Instant) {
        if self.answer.is_some() || now < self.backoff.next() {
            return;
        }
        let (sender, answer) = bounded(1);
        let (address, alarm) = (self.address.clone(), self.alarm.clone());
        let spawned = thread::Builder::new().name("tasks-connect".to_owned()).spawn(move || {
            let _ = sender.send(link::connect(&address));
            alarm.raise();
        });
        match spawned {
            Ok(_) => self.answer = Some(answer),
            Err(error) => {
                log::warn!("tasks: no thread to connect with: {error}");
                self.backoff.put_off(now);
            }
        }
    }

    /// What has come of the attempt under way, once that is known.
    fn outcome(&mut self) -> Option<Result<Made, ConnectionError>> {
        let outcome = match self.answer.as_ref()?.try_recv() {
            Ok(outcome) => outcome,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(ConnectionError::Unusable),
        };
        self.answer = None;
        Some(outcome)
    }
}

/// The thread's own.
struct Broker {
    tasks: InFlight,
    connecting: Connecting,
    options: BrokerOptions,
    metrics: Arc<TaskMetrics>,
    tell: TellResult,
    poll: Poll,
    alarm: Arc<Alarm>,
    orders: Receiver<(usize, TaskOrder)>,
    link: Option<Link>,
    /// When was looked last whether somebody still waits.
    looked: Instant,
    /// Whether the link may have more to be read.
    has_more: bool,
    /// What was said of refusals, so that it is not said of each.
    complaints: Availability,
    gate: Arc<Gate>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Drop for Broker {
    /// However the thread has ended: nobody waits for it in vain.
    fn drop(&mut self) {
        self.gate.close();
        let (now, why) = (now(), "the thread of the broker has ended");
        while let Ok((reactor, order)) = self.orders.try_recv() {
            self.tasks.receive(reactor, order, TaskId::NONE, now);
            self.tasks.fail_all(why, now);
        }
        self.tasks.fail_all(why, now);
        self.answer();
    }
}

impl Broker {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(16);
        let mut availability = Availability::default();
        let mut ends_by = None;
        loop {
            match self.poll.poll(&mut events, Some(self.sleep())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.alarm.lower(),
            }
            let now = now();
            if self.take_orders(now)? && ends_by.is_none() {
                self.tasks.abandon_all(now);
                ends_by = Some(now.at + GOODBYE);
            }
            self.connect(&mut availability, now);
            self.turn_link(&mut availability, now);
            self.answer();
            let is_done = self.tasks.is_empty() && self.tasks.unanswered_commands() == 0;
            if ends_by.is_some_and(|by| is_done || by <= now.at) {
                return Ok(());
            }
        }
    }

    fn sleep(&self) -> Duration {
        if self.has_more {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let mut sleep = if self.tasks.is_empty() { SLEEP_MOST } else { LOOK_EVERY };
        if self.link.is_none() && self.connecting.answer.is_none() {
            sleep = sleep.min(self.connecting.backoff.next().saturating_duration_since(now));
        }
        let look = self.tasks.next_look().map(|at| at.saturating_duration_since(now));
        look.map_or(sleep, |look| sleep.min(look))
    }

    /// Takes what has come; whether nothing will any more.
    fn take_orders(&mut self, now: Now) -> io::Result<bool> {
        loop {
            match self.orders.try_recv() {
                Ok((reactor, order)) => {
                    let id = random_id();
                    let known = *id.as_ref().unwrap_or(&TaskId::NONE);
                    // Without one the thread ends, and answers what it has.
                    self.tasks.receive(reactor, order, known, now);
                    id?;
                }
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Ok(true),
            }
        }
    }

    fn connect(&mut self, availability: &mut Availability, now: Now) {
        if self.link.is_some() {
            return;
        }
        let made = self.connecting.outcome().map(|made| {
            let (most, registry) = (self.options.result_bytes_most, self.poll.registry());
            made.and_then(|made| Link::new(made, most, registry, now.at))
        });
        match made {
            None => self.connecting.begin(now.at),
            Some(Ok(link)) => {
                self.link = Some(link);
                self.metrics.connections.add(1);
                self.metrics.is_available.set(1);
                self.tasks.connected(now);
                if availability.note(true, "", now.at) {
                    log::info!("tasks: {}: it serves", self.options.address);
                }
            }
            Some(Err(error)) => {
                self.connecting.backoff.put_off(now.at);
                self.tasks.cannot_connect(&error.to_string());
                self.tell_away(&error, availability, now.at);
            }
        }
    }

    fn turn_link(&mut self, availability: &mut Availability, now: Now) {
        if now.at.saturating_duration_since(self.looked) >= LOOK_EVERY {
            self.looked = now.at;
            self.tasks.look_for_abandoned(now);
        }
        let read = self.link.as_mut().map(|link| link.read(&mut self.tasks, now));
        self.tasks.look(now);
        let Some((link, read)) = self.link.as_mut().zip(read) else { return };
        let turned = read.and_then(|has_more| {
            link.watch(&mut self.tasks, now.at)?;
            link.write(&mut self.tasks, now)?;
            Ok(has_more)
        });
        if let Some(complaint) = self.tasks.take_complaint()
            && self.complaints.note(false, &complaint, now.at)
        {
            log::warn!("tasks: {}: {complaint}", self.options.address);
        }
        match turned {
            Ok(has_more) => self.has_more = has_more,
            Err(error) => {
                // One that fails at once is made again the more seldom.
                if link.age(now.at) > backoff::MOST {
                    self.connecting.backoff.note_success();
                }
                (self.link, self.has_more) = (None, false);
                self.metrics.is_available.set(0);
                self.tasks.disconnected(&error.to_string(), now);
                self.connecting.backoff.put_off(now.at);
                self.tell_away(&error, availability, now.at);
            }
        }
    }

    fn tell_away(&self, error: &ConnectionError, availability: &mut Availability, now: Instant) {
        let why = error.to_string();
        if availability.note(false, &why, now) {
            let address = &self.options.address;
            log::warn!("tasks: {address}: {why}; tasks wait, and none is sent until it serves");
        }
    }

    fn answer(&mut self) {
        for (reactor, finished) in self.tasks.take_answers() {
            (self.tell)(reactor, finished);
        }
    }
}

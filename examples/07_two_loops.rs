//! Step 7 of 7: two loops, a waker, and a socket that is handed over.
//!
//! ```text
//! cargo run --example 07_two_loops                      # a port can follow
//! cargo run --example 07_two_loops -- 9107 forget-input
//! nc 127.0.0.1 9107        # the first line is a name; each further line is counted under it
//! ```
//!
//! Two threads, each with a poll and connections of its own. Every name has one *owner*, computed
//! from the name, and only the owner counts for it: so the counts need no lock. Loop 0 accepts all
//! connections. One whose name belongs to loop 1 is sent there as a [`Handoff`], through a bounded
//! channel. A thread that sleeps in `poll` does not look at a channel, so the sender also wakes it.
//! A wake is an edge: two wakes may be told as one, so the receiver takes mail until there is none.
//!
//! A handoff holds the bytes that were read already. Registering the socket with the other poll
//! reports what is in the *socket*, and those bytes are not in it any more. With `forget-input` they
//! stay behind: `printf 'a\nhello\n' | nc 127.0.0.1 9107` gets no answer.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const MAIL: Token = Token(usize::MAX - 1);
const CONNECTIONS_MAX: usize = 1000;
const SHARE: usize = 4096;

/// A connection on its way to the loop that owns its name.
struct Handoff {
    stream: TcpStream,
    /// Read, and not taken: from the name's first byte on.
    received: Vec<u8>,
}

/// The way to another loop: a channel, and what makes that loop look into it.
struct Sender {
    handoffs: SyncSender<Handoff>,
    waker: Arc<Waker>,
}

struct Connection {
    stream: TcpStream,
    name: Option<Vec<u8>>,
    /// Read, and not taken.
    received: Vec<u8>,
    backlog: Vec<u8>,
    is_queued: bool,
}

enum Rest {
    Blocked,
    Spent,
    /// The name belongs to this other loop.
    Elsewhere,
}

struct Loop {
    number: usize,
    poll: Poll,
    listener: Option<TcpListener>,
    mail: Receiver<Handoff>,
    other: Sender,
    /// Handoffs that found the channel full.
    outbox: VecDeque<Handoff>,
    connections: Slab<Connection>,
    ready: Vec<usize>,
    counts: HashMap<Vec<u8>, u64>,
    forgets_input: bool,
}

fn owner(name: &[u8]) -> usize {
    name.iter().map(|&byte| usize::from(byte)).sum::<usize>() % 2
}

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9107".to_owned()).parse()?;
    let forgets_input = std::env::args().nth(2).is_some_and(|word| word == "forget-input");
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    println!("tcp://{} (Ctrl-C ends it)", listener.local_addr()?);
    let polls = [Poll::new()?, Poll::new()?];
    polls[0].registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut senders, mut boxes) = (Vec::new(), Vec::new());
    for poll in &polls {
        // Bounded: a loop that is held up must not make the other one's memory grow.
        let (handoffs, mail) = sync_channel(64);
        senders.push(Sender { handoffs, waker: Arc::new(Waker::new(poll.registry(), MAIL)?) });
        boxes.push(mail);
    }
    senders.reverse(); // to each loop the way to the other one
    let mut listener = Some(listener);
    let mut threads = Vec::new();
    for (number, ((poll, mail), other)) in polls.into_iter().zip(boxes).zip(senders).enumerate() {
        let (listener, outbox) = (listener.take(), VecDeque::new());
        let (connections, ready, counts) = (Slab::new(), Vec::new(), HashMap::new());
        let mut this = Loop {
            number,
            poll,
            listener,
            mail,
            other,
            outbox,
            connections,
            ready,
            counts,
            forgets_input,
        };
        threads.push(thread::spawn(move || this.run()));
    }
    for thread in threads {
        thread.join().map_err(|_| "a loop panicked")??;
    }
    Ok(())
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut this_turn = Vec::new();
        loop {
            // The other loop does not tell when its channel has room again, so that is tried.
            let retry = (!self.outbox.is_empty()).then_some(Duration::from_millis(1));
            let timeout = if self.ready.is_empty() { retry } else { Some(Duration::ZERO) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    MAIL => {
                        while let Ok(handoff) = self.mail.try_recv() {
                            self.adopt(handoff);
                        }
                    }
                    Token(key) => self.enqueue(key),
                }
            }
            std::mem::swap(&mut self.ready, &mut this_turn);
            for key in this_turn.drain(..) {
                let Some(connection) = self.connections.get_mut(key) else { continue };
                connection.is_queued = false;
                match connection.visit(self.number, &mut self.counts) {
                    Ok(Rest::Blocked) => {}
                    Ok(Rest::Spent) => self.enqueue(key),
                    Ok(Rest::Elsewhere) => self.hand_over(key),
                    Err(why) => {
                        println!("loop {} #{key}: {why}", self.number);
                        self.connections.remove(key);
                    }
                }
            }
            self.send_outbox();
        }
    }

    fn enqueue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.ready.push(key);
        }
    }

    /// Empties the accept queue, as step 3 does.
    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => self.adopt(Handoff { stream, received: Vec::new() }),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => return eprintln!("cannot accept: {error}"),
                },
            }
        }
    }

    /// Takes a connection in, accepted or handed over: one way for both.
    fn adopt(&mut self, Handoff { mut stream, received }: Handoff) {
        if self.connections.len() == CONNECTIONS_MAX {
            return;
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        let place = self.connections.vacant_entry();
        let key = place.key();
        if let Err(error) = self.poll.registry().register(&mut stream, Token(key), both) {
            return eprintln!("cannot watch a connection: {error}");
        }
        let has_input = !received.is_empty();
        let (name, backlog, is_queued) = (None, Vec::new(), false);
        place.insert(Connection { stream, name, received, backlog, is_queued });
        // No edge will come for bytes that were read already.
        if has_input {
            self.enqueue(key);
        }
    }

    /// Here the connection is forgotten at once; its token finds no connection from now on.
    fn hand_over(&mut self, key: usize) {
        let Connection { mut stream, mut received, .. } = self.connections.remove(key);
        if let Err(error) = self.poll.registry().deregister(&mut stream) {
            return eprintln!("cannot hand a connection over: {error}");
        }
        println!("loop {} #{key}: handed over, with {} bytes", self.number, received.len());
        if self.forgets_input {
            received.clear();
        }
        self.outbox.push_back(Handoff { stream, received });
    }

    fn send_outbox(&mut self) {
        while let Some(handoff) = self.outbox.pop_front() {
            match self.other.handoffs.try_send(handoff) {
                // First the handoff, then the wake: the other way round, the other loop might look
                // between the two, find nothing, and sleep.
                Ok(()) => {
                    if let Err(error) = self.other.waker.wake() {
                        eprintln!("cannot wake the other loop: {error}");
                    }
                }
                Err(TrySendError::Full(handoff)) => return self.outbox.push_front(handoff),
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }
}

impl Connection {
    fn visit(&mut self, number: usize, counts: &mut HashMap<Vec<u8>, u64>) -> io::Result<Rest> {
        let mut share = SHARE;
        loop {
            while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                match &self.name {
                    // The name stays in front of what is handed over: it is read again there.
                    None if owner(&self.received[..end]) != number => return Ok(Rest::Elsewhere),
                    None => self.name = Some(self.received.drain(..=end).take(end).collect()),
                    Some(name) => {
                        self.received.drain(..=end);
                        let count = counts.entry(name.clone()).or_default();
                        *count += 1;
                        let name = String::from_utf8_lossy(name);
                        let answer = format!("{name}: {count}, by loop {number}\n");
                        self.backlog.extend_from_slice(answer.as_bytes());
                    }
                }
            }
            match self.step(&mut share) {
                Ok(()) if share == 0 && self.backlog.is_empty() => return Ok(Rest::Spent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Rest::Blocked),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// One write, if something waits; else one read, out of the share.
    fn step(&mut self, share: &mut usize) -> io::Result<()> {
        if !self.backlog.is_empty() {
            match self.stream.write(&self.backlog)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => drop(self.backlog.drain(..count)),
            }
        } else if self.received.len() >= SHARE {
            return Err(io::Error::other("a line is too long"));
        } else {
            let mut buffer = [0; SHARE];
            match self.stream.read(&mut buffer[..*share])? {
                0 => return Err(io::Error::other("has left")),
                count => {
                    *share -= count;
                    self.received.extend_from_slice(&buffer[..count]);
                }
            }
        }
        Ok(())
    }
}

// What is still wrong with it, and where it is put right:
//
// - Loop 0 accepts for both. With SO_REUSEPORT each loop has a listener: src/transport/listener.rs.
// - A handoff that waits for room has no deadline. There the connection stays in its slab until there
//   is room: `Waiting` in src/connection/mod.rs, `wait_for_owner` in src/shard/deliveries.rs.
// - Each handoff wakes, even a loop that is awake. `WakeFlag` in src/mailbox.rs saves the call.
// - Mail has no share: a hundred handoffs are adopted before any connection is served. `mails_per_turn`
//   in src/config/limits.rs.
// - A count lives for ever. `expire` in src/session/table.rs; and the older of two connections under one
//   name is not closed: `Displaced` in src/shard/runtime.rs.
// - No client is told when the process ends: src/shard/drain.rs.
//
// From here on it is the real thing: docs/learning.md has the order in which to read it.

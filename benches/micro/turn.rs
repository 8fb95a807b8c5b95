//! A shard in memory: its connections read a script and write into a count, its host has no kernel.
//!
//! What a turn costs without the system's part: noting the edges, the turn, the next timeout. The
//! stream copies a message into the receive buffer, as the kernel would in its own time, so a few
//! instructions of each figure are the bench's. `crowd` stands on the same streams and host.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use revolve::application::{Application, Hosted};
use revolve::config::Config;
use revolve::environment::Environment;
use revolve::http::Rejection;
use revolve::mailbox::Mail;
use revolve::offload::Job;
use revolve::server_status::ServerStatus;
use revolve::shard::Shard;
use revolve::store::CommitBatch;
use revolve::tasks::TaskOrder;
use revolve::token::{LocalId, Peer};
use revolve::transport::listener::Accepted;
use revolve::transport::{Edge, Stream};

pub(crate) const REQUEST: &[u8] =
    b"GET /ws/chat/ HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// What all streams share: what each read returns, whole, and what the server has done.
#[derive(Default)]
pub(crate) struct Traffic {
    /// Nothing: then the peers have ended their halves.
    pub(crate) input: Cell<&'static [u8]>,
    pub(crate) reads: Cell<usize>,
    pub(crate) writes: Cell<usize>,
    pub(crate) written: Cell<usize>,
}

/// A socket that has the same thing to say each time it is asked, and room for every answer.
pub(crate) struct Wire(Rc<Traffic>);

impl io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = self.0.input.get();
        self.0.reads.set(self.0.reads.get() + 1);
        buffer[..input.len()].copy_from_slice(input);
        Ok(input.len())
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.writes.set(self.0.writes.get() + 1);
        self.0.written.set(self.0.written.get() + bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Wire {
    fn peek(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("nobody hangs up")
    }

    fn half_close(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_both(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        self.0.writes.set(self.0.writes.get() + 1);
        self.0.written.set(self.0.written.get() + first.len() + second.len());
        Ok(first.len() + second.len())
    }
}

/// Surroundings of which only the accept queue has anything in it.
pub(crate) struct Quiet {
    traffic: Rc<Traffic>,
    /// Connections that are still to be accepted.
    pub(crate) queue: usize,
    pub(crate) registered: Rc<RefCell<Vec<LocalId>>>,
    random: u64,
}

impl Quiet {
    /// With nobody in the accept queue; `registered` gets who has been accepted.
    pub(crate) fn new(traffic: &Rc<Traffic>, registered: &Rc<RefCell<Vec<LocalId>>>) -> Self {
        let (traffic, registered) = (Rc::clone(traffic), Rc::clone(registered));
        Quiet { traffic, queue: 0, registered, random: 1 }
    }
}

impl Environment for Quiet {
    type Stream = Wire;

    fn accept(&mut self) -> io::Result<Accepted<Wire>> {
        let peer: Peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)).into();
        self.queue = self.queue.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        Ok((Wire(Rc::clone(&self.traffic)), peer).into())
    }

    fn stop_listening(&mut self) {}

    fn register(&mut self, _: &mut Wire, id: LocalId) -> io::Result<()> {
        self.registered.borrow_mut().push(id);
        Ok(())
    }

    fn deregister(&mut self, _: &mut Wire) -> io::Result<()> {
        Ok(())
    }

    fn send(&mut self, _: usize, _: Mail<Wire>) -> Result<(), Mail<Wire>> {
        unreachable!("there is one reactor")
    }

    fn wake(&mut self, _reactor: usize) {}

    fn has_room(&self, _reactor: usize) -> bool {
        true
    }

    fn receive(&mut self) -> Option<Mail<Wire>> {
        None
    }

    fn clock(&mut self) -> Instant {
        unreachable!("nobody looks for slow turns")
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

    fn commit(&mut self, _: CommitBatch) {
        unreachable!("no session is stored here")
    }

    fn random(&mut self, room: &mut [u8]) -> io::Result<()> {
        for byte in room {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (self.random >> 56) as u8;
        }
        Ok(())
    }
}

/// A shard with open connections.
pub(crate) struct Turns<A: Application> {
    shard: Shard<A, Quiet>,
    host: Quiet,
    traffic: Rc<Traffic>,
    connections: Vec<LocalId>,
    now: Instant,
}

impl<A: Application> Turns<A> {
    /// `connections` of them, each of which says `batch` whenever it is readable.
    pub(crate) fn new(application: A, connections: usize, batch: Vec<u8>) -> Self {
        let traffic = Rc::new(Traffic { input: Cell::new(REQUEST), ..Traffic::default() });
        let registered = Rc::new(RefCell::new(Vec::new()));
        let mut host = Quiet::new(&traffic, &registered);
        host.queue = connections;
        let config = Config { workers: NonZeroUsize::MIN, access_log: false, ..Config::default() };
        let status = Arc::new(ServerStatus::new(1, Rejection::LABELS, Arc::new(AtomicU64::new(0))));
        let now = Instant::now();
        let shard = Shard::start(0, Arc::new(config), status, Hosted::alone(application), now);
        let Ok(shard) = shard else { panic!("its application starts") };
        let mut turns = Turns { shard, host, traffic, connections: Vec::new(), now };
        turns.shard.note_listener();
        while registered.borrow().len() < connections {
            turns.shard.turn(now, &mut turns.host);
        }
        turns.connections = registered.borrow().clone();
        turns.run(1);
        assert!(turns.traffic.written.get() > connections * 100, "each got its 101");
        turns.traffic.input.set(Vec::leak(batch));
        turns
    }

    /// Turns in which each connection is readable once.
    pub(crate) fn run(&mut self, turns: usize) {
        let before = self.traffic.reads.get();
        for _ in 0..turns {
            self.now += Duration::from_micros(100);
            for &id in &self.connections {
                let edge = Edge { readable: true, writable: true, ..Edge::default() };
                self.shard.note_connection(id, edge);
            }
            self.shard.turn(self.now, &mut self.host);
            std::hint::black_box(self.shard.timeout(self.now));
        }
        // What the system would be asked for: one read and one write for each edge.
        let edges = turns * self.connections.len();
        assert_eq!(self.traffic.reads.get() - before, edges, "one read an edge");
        assert_eq!(self.traffic.writes.get(), self.traffic.reads.get(), "one write a read");
    }

    /// Bytes of all answers so far.
    pub(crate) fn written(&self) -> usize {
        self.traffic.written.get()
    }
}

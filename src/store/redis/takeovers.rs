//! The thread that hears which sessions other nodes have claimed.
//!
//! So that a client that has moved on is let go of at once. What is published while the connection is away is lost, and
//! is found out by the next commit of the session, which is refused: no promise rests on what is heard here. A server
//! that is gone without a word is found out by PING. Once this node listens, it asks whether another process does under
//! the same name: each of them hears what is meant for the other, and neither is told of takeovers by the other.
//! Started by `requests`.
//!
//! Invariant: what is told was published on this node's channel, and names a session and a generation.
//!
//! Next: `requests`: the thread that asks.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::RedisOptions;
use super::link::connect_options;
use crate::contained::guard;
use crate::resp::{Connection, ConnectionError, Event, Pipeline, Reply, Subscriber};
use crate::session::{SessionId, owner_of};
use crate::store::claim::Takeover;
use crate::store::metrics::StoreMetrics;

/// For how long one wait is: so late an end is noticed.
const SLICE: Duration = Duration::from_millis(100);

/// After so long a silence the server is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(2);

/// After so long a silence it is not.
const SILENCE_MOST: Duration = Duration::from_secs(6);

/// For how long a connection may be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two attempts to connect.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Whom to tell: the reactor that has the session, if this node has it.
pub type TellTakeover = Box<dyn Fn(usize, Takeover) + Send>;

/// What the thread works with.
pub struct Takeovers {
    /// Which Redis.
    pub options: RedisOptions,
    /// So many there are.
    pub reactors: usize,
    /// Whom to tell.
    pub tell: TellTakeover,
    /// Who counts.
    pub metrics: Arc<StoreMetrics>,
    /// Set when the thread is to end.
    pub is_over: Arc<AtomicBool>,
}

impl fmt::Debug for Takeovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeovers").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Takeovers {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system has no threads left.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("store-takeovers".to_owned()).spawn(move || {
            if guard(|| self.run()).is_err() {
                log::error!("store: takeovers by other nodes are not heard any more: it panicked");
            }
        })
    }

    fn run(&self) {
        let mut done = Done::default();
        while !self.is_over() {
            match self.listen(&mut done) {
                Ok(()) => return,
                // Whether Redis can be had at all is told elsewhere; that it refuses us this is not.
                Err(ConnectionError::Refused { command: "SUBSCRIBE", error }) if !done.is_told => {
                    done.is_told = true;
                    log::warn!(
                        "store: {}: takeovers by other nodes are noticed late: SUBSCRIBE is refused: {error}",
                        self.options.address
                    );
                }
                Err(_) => {}
            }
            let until = Instant::now() + AGAIN_AFTER;
            while !self.is_over() && Instant::now() < until {
                thread::sleep(SLICE);
            }
        }
    }

    /// Listens on one connection, until it fails or the thread is to end.
    fn listen(&self, done: &mut Done) -> Result<(), ConnectionError> {
        let options = connect_options(&self.options, "takeovers", CONNECT_TIMEOUT);
        let mut subscriber = Subscriber::connect(&self.options.address, &options)?;
        subscriber.subscribe(&[self.options.channel()])?;
        let (mut heard, mut asked) = (Instant::now(), Instant::now());
        while !self.is_over() {
            match subscriber.next_event(SLICE)? {
                Some(Event::Subscribed(_)) if !done.has_looked => {
                    done.has_looked = self.look_for_namesake().is_ok();
                    heard = Instant::now();
                }
                Some(event) => {
                    heard = Instant::now();
                    self.take(&event);
                }
                None if heard.elapsed() > SILENCE_MOST => return Err(ConnectionError::TimedOut),
                None if heard.elapsed() > PING_AFTER && asked.elapsed() > PING_AFTER => {
                    asked = Instant::now();
                    subscriber.ping()?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Warns if another process listens as this node. Asked behind our own subscription, so that of two that start
    /// together one sees the other; and at the start alone, because later our own former connection may still be
    /// counted. No more than a warning: an older process of this name may be about to end, and no count depends on the
    /// name.
    fn look_for_namesake(&self) -> Result<(), ConnectionError> {
        let RedisOptions { address, node, .. } = &self.options;
        let options = connect_options(&self.options, "name", CONNECT_TIMEOUT);
        let mut pipeline = Pipeline::new();
        pipeline.push(["PUBSUB", "NUMSUB", &self.options.channel()]);
        let replies = Connection::connect(address, &options)?.exchange(&pipeline)?;
        // A user that may not ask is not told.
        let count = replies.first().and_then(Reply::array).and_then(|answer| answer.get(1));
        match count.and_then(Reply::integer) {
            Some(2..) => log::warn!(
                "store: {address}: another process is node {node} too: unless it is about to end, give one of them \
                 another --node; until then clients that move between the two are noticed late"
            ),
            Some(_) => log::debug!("store: {address}: nobody else is node {node}"),
            None => log::debug!("store: {address}: PUBSUB NUMSUB is refused"),
        }
        Ok(())
    }

    fn take(&self, event: &Event) {
        let Event::Message { payload, .. } = event else { return };
        // Whoever may publish may write anything.
        let Some(takeover) = takeover(payload) else { return };
        self.metrics.shared.note_takeover();
        let reactor = owner_of(takeover.id.text().as_str(), self.reactors);
        (self.tell)(reactor, takeover);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// What is done once in the life of a process.
#[derive(Debug, Default)]
struct Done {
    /// That SUBSCRIBE is refused was told.
    is_told: bool,
    /// Whether another process has our name was asked.
    has_looked: bool,
}

/// What a message says.
fn takeover(payload: &[u8]) -> Option<Takeover> {
    let (generation, id) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(Takeover { id: SessionId::parse(id).ok()?, generation: generation.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_a_generation_and_a_session() {
        let found = takeover(b"1764190000000000 abc").unwrap();
        assert_eq!((found.generation, found.id), (1_764_190_000_000_000, id("abc")));
        for payload in [&b"5"[..], b"5 ", b"abc 5", b"5 a b", b"-5 a", b"", b"5 \xff"] {
            assert_eq!(takeover(payload), None, "{payload:?}");
        }
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }
}

//! revolve: a WebSocket session server on hand-written mio reactors.
//!
//! Each worker is one thread with one event loop, a slab of non-blocking connections and the
//! sessions it owns; nothing is shared. A session is found from its id alone, so a client that
//! reconnects finds its count whichever reactor the kernel gives it to: its connection is handed
//! over to the owner, whole.
//!
//! ```
//! use revolve::{Application, Context, Message, Server};
//!
//! /// Answers each message with how many this session has sent, over all its connections.
//! struct Tally;
//!
//! impl Application for Tally {
//!     type Session = ();
//!     fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
//!         let count = cx.count_message();
//!         cx.send_text(&format!("number {count}"));
//!     }
//! }
//!
//! let server = Server::builder().port(0).serve(|| Tally)?;
//! server.shutdown();
//! server.join();
//! # Ok::<(), revolve::ServeError>(())
//! ```
//!
//! # A turn
//!
//! Everything that a server does, it does in a turn of one of its reactors:
//!
//! ```text
//!        poll.poll(events, timeout)      asleep, until an edge, mail, or the clock
//!                    │
//!        for event in events: note it    readiness is written down, not acted on:
//!                    │                   the order of events decides nothing
//!        shard.turn(now)                 busy, and every step has a bound
//!          1  take_mail                  hand-overs, broadcasts, answers of off-loaded jobs
//!          2  accept                     a share of the accept queue
//!          3  visit each that is ready   once, whatever the number of its reasons:
//!          │    flush                      what it has not taken yet
//!          │    read                       once, into the one receive buffer
//!          │    take                       frame → message → application → cork
//!          │    write                      the cork, once
//!          │    rest                       why it stops, and so what wakes it
//!          4  fire_timers                pings, deadlines, the application's timers
//!          5  fan_out                    a slice of the broadcast under way
//!          6  look                       if somebody watches: a slice of a picture
//!          7  sweep                      in a drain: a slice of goodbyes
//!          8  send_mail                  what found a full mailbox before
//!          9  reap                       let go of who has ended
//!         10  end_drain                  if nothing is left
//!                    │
//!                    └── again; without sleeping, if anybody had to stop at its share
//! ```
//!
//! mio's contract is behind all of it. [Draining readiness]: an edge is told once, so whoever stops
//! before `WouldBlock` must remember that there is more. [Spurious events]: one may be told for
//! nothing, so every visit must bear to find nothing. Of the first we have made a type,
//! [`connection::Rest`], and a sentence: **a connection never rests without a waker**. Of the
//! second, a habit: a visit looks, whatever it was told.
//!
//! To watch turns happen, start the program with `--log-level trace`: each tells its story.
//!
//! # The tour
//!
//! If event loops are new to you, start with `docs/learning.md`: seven small programs, from
//! `examples/01_blocking_echo.rs` to `07_two_loops.rs`, and a reading order. Each program ends with
//! what is still wrong with it, and where in here that is put right. Then read this, in order; every
//! module ends its first page with the way to the next. A module uses only those above it: a test
//! checks that.
//!
//! Before the first byte, all bounds in one place:
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | every setting and bound, each with its reason |
//!
//! From bytes to messages, without a socket in sight:
//!
//! | module | what it is |
//! |---|---|
//! | [`protocol`] | sans-IO: request heads, the handshake, frames, messages, the endpoint's states |
//!
//! What connections are called, what waits for them, and what outlives them:
//!
//! | module | what it is |
//! |---|---|
//! | [`token`] | the name of a connection: slot and generation; its peer |
//! | [`out_buffer`] | bytes that wait for one socket |
//! | [`line`](mod@line) | one socket: its readiness, its reads and writes |
//! | [`session`] | ids, who owns them, and one reactor's table of them |
//!
//! What is to happen later, or elsewhere; and the application, which asks for it:
//!
//! | module | what it is |
//! |---|---|
//! | [`timer`] | a coarse, lazy timer wheel |
//! | [`appointments`] | the timers that applications have set |
//! | [`offload`] | work that must not hold a reactor, and the threads that do it |
//! | [`application`] | what runs on a reactor, and the context through which it answers |
//! | [`wall_clock`] | the wall-clock time, within the years that its texts can hold |
//! | [`counter`], [`echo`] | the two applications that the daemon has |
//!
//! Why a connection stops, and what wakes it. If you read one of these, read [`connection`]:
//!
//! | module | what it is |
//! |---|---|
//! | [`ready`] | who has something to do this turn |
//! | [`door`] | how many sockets are inside, in all and from each address |
//! | [`session_rate`] | how many new sessions each address has made lately |
//! | [`picture`] | what a slab's slots are doing, small enough for mail |
//! | [`connection`] | a line and an endpoint; why a connection stopped: `Rest` |
//! | [`connections`] | the slab; no way to reach a slot's former tenant |
//!
//! How a reactor that shares nothing deals with the rest of the world:
//!
//! | module | what it is |
//! |---|---|
//! | [`mailbox`] | the only way into a reactor from outside |
//! | [`metrics`] | what is counted, and the page that shows it |
//! | [`page`] | the live page, who may see it, and the figures that it shows |
//! | [`http`] | health, readiness, metrics, the page, refusals |
//! | [`host`] | what a shard asks of its surroundings |
//!
//! The turn, and the loop around it:
//!
//! | module | what it is |
//! |---|---|
//! | [`shard`] | all that one thread owns, and its turn |
//! | [`memory`] | the most memory that all this can take, term by term |
//! | [`listener`] | sockets that share a port |
//! | [`reactor`] | the event loop |
//! | [`server`] | bind, one thread a reactor, drain, join |
//!
//! And the same without a kernel:
//!
//! | module | what it is |
//! |---|---|
//! | [`testing`] | an application's tests, without sockets, threads or waiting |
//!
//! The modules are public so that readers, tests, benches and fuzzers can reach the parts. What
//! follows semantic versioning is what is named at the root of the crate, [`config`], and
//! [`testing`] itself.
//!
//! # The lexicon
//!
//! - **reactor**: a thread, its poll and its shard. **shard**: all that it owns, without the poll.
//! - **turn**: sleep, note what is ready, act on it a share each, let go of what ended.
//! - **readiness**, **edge**, **token**, **interest**, **drain**, **spurious**: as mio uses them.
//! - **visit**: one connection's share of a turn. **rest**: what it does between two.
//! - **cork**: where the replies of one readable event collect, to leave in one write.
//! - **backlog**: what the socket did not take; above the **high-water mark** we stop reading from
//!   that peer (**backpressure**) until it falls below the **low-water mark**.
//! - **off-loading**: having work done on another thread; its **answer** comes back to the reactor. A
//!   connection that waits for as many answers as it may is **parked**: not read.
//! - **waiting**: what a connection does that is to be handed over, or has broadcast something, while a
//!   mailbox is full: not read. **congested**: so much waits that nobody on the reactor is read.
//! - **owner**: the reactor on which a session lives. **hand-over**: moving a connection there.
//! - **takeover**: a newer connection displacing the older one of its session.
//! - **watcher**: a connection on `/ws/stats`, told once a second what the reactors do. **look**: one
//!   reactor asking all for a picture of their slabs.
//! - **mailbox**, **waker**: how another thread's words get into a turn.
//! - **half-close**, **linger**: ending our half of a stream, and reading on for a moment.
//! - **deadline**: when to look again whatever happens. **timer wheel**: the hints about when.
//! - **story**: what a turn tells of itself at trace level.
//!
//! [Draining readiness]: https://docs.rs/mio/1/mio/struct.Poll.html#draining-readiness
//! [Spurious events]: https://docs.rs/mio/1/mio/struct.Poll.html#spurious-events
//!
//! Next: [`crate::config`], where the tour begins.

pub mod application;
pub mod appointments;
pub mod config;
pub mod connection;
pub mod connections;
pub mod counter;
pub mod door;
pub mod echo;
pub mod host;
pub mod http;
pub mod line;
pub mod listener;
pub mod mailbox;
pub mod memory;
pub mod metrics;
pub mod offload;
pub mod out_buffer;
pub mod page;
pub mod picture;
pub mod protocol;
pub mod reactor;
pub mod ready;
pub mod server;
pub mod session;
pub mod session_rate;
pub mod shard;
pub mod testing;
pub mod timer;
pub mod token;
pub mod wall_clock;

pub use application::{
    Acceptance, Application, CloseReason, Context, InvalidField, Message, ReactorContext, Refusal,
    Side, Subprotocol, Upgrade,
};
pub use appointments::TooManyTimers;
pub use config::{
    AllowedOrigins, Config, ConfigError, Limits, Origin, PageFor, SessionIds, SessionRate,
    Subprotocols,
};
pub use counter::Counter;
pub use echo::Echo;
pub use offload::PoolFull;
pub use server::{Builder, ServeError, Server, ServerHandle, ShutdownTrigger, Summary};

/// The examples in the documents compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those for embedders.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;

//! revolve: a WebSocket session server on hand-written mio reactors.
//!
//! Each worker is one thread with one event loop, a slab of non-blocking connections and the
//! sessions it owns; nothing is shared. Which reactor owns a session follows from the session's id
//! alone. A client that reconnects finds its count again, whichever reactor accepts it: the connection
//! is handed over to the owner, whole.
//!
//! ```
//! use revolve::{Application, Context, Message, Server};
//!
//! /// Answers each message with how many this session has sent, over all its connections.
//! struct Tally;
//!
//! impl Application for Tally {
//!     type Session = ();
//!     type Connection = ();
//!     fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
//!         let count = cx.count_message();
//!         cx.send_text(&format!("number {count}"));
//!     }
//! }
//!
//! let server = Server::builder().port(0).serve(|_| Tally)?;
//! server.shutdown();
//! server.join();
//! # Ok::<(), revolve::ServeError>(())
//! ```
//!
//! # A turn
//!
//! Everything that a server does happens in a turn of one of its reactors:
//!
//! ```text
//!        poll.poll(events, …)            asleep, until an edge, mail, or the sleep timer
//!                    │
//!        for event in events: note it    readiness is written down, not acted on:
//!                    │                   the order of events decides nothing
//!        shard.turn(now)                 busy, and every step has a bound
//!          1  take_mail                  hand-overs, broadcasts, answers of off-loaded jobs
//!          │  forward_commands             what the callbacks have for others, and their jobs
//!          2  take_posts                 what other threads and reactors want done
//!          3  accept                     a share of the accept queue
//!          4  visit each that is ready   once, whatever the number of its reasons:
//!          │    flush                      its backlog; tell the application if that is low
//!          │    read                       once, into the one receive buffer
//!          │    take                       frame → message → application → cork
//!          │    write                      the cork, once unless it gets full
//!          │    settle                     why it stops, and so what wakes it
//!          │    forward_commands           the jobs and messages for others that it asked for
//!          5  expire_sessions            a share of the sessions whose time is over
//!          6  fire_alarms                pings and deadlines
//!          7  fire_application_timers    the application's timers
//!          8  fan_out                    a slice of the broadcast under way
//!          9  look                       while there are watchers: a slice of a slab map
//!         10  sweep                      in a drain: a slice of goodbyes
//!         11  forward_commands           those of steps 5 to 10
//!         12  send_mail                  what found a full mailbox before
//!         13  reap                       free the slots of connections that have ended
//!         14  end_drain                  if nothing is left
//!         15  trim, publish              free what a large message left; write the figures
//!                    │
//!                    └── again; without sleeping, if a share or a slice was used up
//! ```
//!
//! mio's contract is behind all of it. [Draining readiness]: an edge is reported once, so code that
//! stops before `WouldBlock` must remember that there is more. Here this is a type,
//! [`connection::Rest`], and a rule: **a connection never rests without a waker**. [Spurious events]:
//! an edge may be reported for nothing. So a visit looks, whatever the edge said, and must work when it
//! finds nothing.
//!
//! To watch turns happen, start the program with `--log-level trace`: each turn prints what it did.
//!
//! # The tour
//!
//! If event loops are new to you, start with `docs/learning.md`: seven small programs, from
//! `examples/01_blocking_echo.rs` to `07_two_loops.rs`, and a reading order. Each program ends with
//! what is still wrong with it, and where in here that is put right. Then read this, in order; every
//! module ends its first page with the way to the next. A module uses only those above it: a test
//! checks that.
//!
//! From bytes to messages, without a socket and without a server:
//!
//! | module | what it is |
//! |---|---|
//! | [`protocol`] | sans-IO: request heads, the handshake, frames, messages, the endpoint's states |
//!
//! The protocol of Redis, which is another one, and has nothing to do with the first:
//!
//! | module | what it is |
//! |---|---|
//! | [`resp`] | a client of Redis, for threads that may wait |
//!
//! The settings and bounds of the server around it, in one place:
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | every setting and bound, each with its reason |
//!
//! One connection: its name, its socket, its session; why it stops, and what wakes it. If you read one
//! of these, read [`connection`]:
//!
//! | module | what it is |
//! |---|---|
//! | [`token`] | the name of a connection: slot and generation; its peer |
//! | [`transport`] | one socket: its readiness, reads and writes; listeners; how many sockets there may be |
//! | [`contained`] | code and values of the application, so that a panic of theirs does no harm |
//! | [`inbox`] | a bounded channel that keeps nothing when its receiver is gone |
//! | [`one_writer_cell`] | a number that one thread writes and any other reads |
//! | [`session`] | ids, who owns them, and one reactor's table of them |
//! | [`store`] | the log in which sessions outlive the process, or the Redis in which they do; the thread that writes |
//! | [`connection`] | a transport and an endpoint; why a connection stopped: `Rest`; the slab, the ready queue, the timer wheel |
//!
//! The application, and what it can ask for:
//!
//! | module | what it is |
//! |---|---|
//! | [`json`] | JSON as text: a string of it, and what others wrote |
//! | [`wall_clock`] | the wall-clock time, within the years that its texts can hold |
//! | [`offload`] | work that must not hold a reactor, and the threads that do it |
//! | [`tasks`] | work for workers of Celery and RQ, and the thread that speaks with their broker |
//! | [`application`] | what runs on a reactor, and the context through which it answers |
//! | [`apps`] | the applications that the daemon has |
//!
//! How a reactor that shares nothing deals with everything outside of it:
//!
//! | module | what it is |
//! |---|---|
//! | [`observe`] | the map of a slab, the metrics, the live page |
//! | [`server_status`] | what the reactors do share: what they count, limits over all of them, the drain |
//! | [`mailbox`] | the only way into a reactor from outside |
//! | [`http`] | health, readiness, metrics, the page, responses of the application, refusals |
//! | [`environment`] | what a shard asks of its surroundings |
//!
//! The turn, and the loop around it:
//!
//! | module | what it is |
//! |---|---|
//! | [`shard`] | all that one thread owns, and its turn |
//! | [`memory`] | the most memory that all this can take, term by term |
//! | [`sleep_timer`] | what ends a sleep in which nothing happens |
//! | [`reactor`] | the event loop |
//! | [`server_store`] | what the reactors of a server need of a store, opening it, its end |
//! | [`server_tasks`] | what the reactors of a server need of a broker |
//! | [`live_settings`] | changing the settings of a running server |
//! | [`liveness`] | whether its reactors still turn |
//! | [`server_tls`] | the certificates of a server, and loading them anew |
//! | [`serve_error`] | why a server did not start |
//! | [`server`] | bind, one thread a reactor, drain, join |
//!
//! And the same without a kernel:
//!
//! | module | what it is |
//! |---|---|
//! | [`testing`] | an application's tests, without sockets, threads or waiting |
//!
//! The other modules are private, so plain `cargo doc` leaves their pages out. `cargo doc --open
//! --document-private-items` shows the whole tour.
//!
//! # The API
//!
//! What is public is the API, and follows semantic versioning: what is named at the root of the
//! crate, and the modules [`config`], [`memory`], [`testing`] and [`wall_clock`]. The feature
//! `internals` makes all modules public, for the tests, benches and fuzz targets of revolve itself.
//! Semantic versioning does not cover what it opens.
//!
//! # The lexicon
//!
//! - **reactor**: a thread, its poll and its shard. **shard**: all that the thread owns, without the
//!   poll.
//! - **part**: one of the values that make up a shard: connections, runtime, deliveries, lifecycle,
//!   watchers. **observer**: it records what the parts do, for the log, and decides nothing.
//! - **turn**: sleep, note what is ready, act on it, free what ended. **step**: one of the things that a
//!   turn does, in a fixed order. **share**, **slice**: how much a connection or a step may do in a turn.
//! - **readiness**, **edge**, **token**, **interest**, **spurious**: as mio uses them.
//! - **visit**: one connection's share of a turn. **rest**: why it stopped, and so what wakes it.
//!   **settle**: to end what was done for a connection: choose its rest, set its alarm.
//! - **cork**: where the replies of a visit collect, to leave in one write. **aside**: where bytes stand
//!   that are written to a connection outside of its visit. **tail**: input that a connection keeps for
//!   its next visit.
//! - **backlog**: what the socket did not take; above the **high-water mark** we stop reading from
//!   that peer (**backpressure**) until it falls to the **low-water mark**: it is **throttled**. What waits
//!   for a peer is its backlog and what stands in the cork for it. A backlog that was above the one mark
//!   and has fallen to the other is **low** (as in WebRTC's `bufferedamountlow`). **slow consumer**: a
//!   peer that is sent more than may wait for it, or takes nothing for too long: it is closed.
//! - **off-loading**: having work done on another thread; its **answer** comes back to the reactor. A
//!   connection that waits for as many answers as it may is **parked**: not read. A job whose connection
//!   has gone is an **orphan**. An orphan that runs for too long is **given up**: its slot is free, its
//!   thread is not.
//! - **task**: what a worker of Celery or RQ is to do; its **broker** is the Redis between the two. **revoked**, **taken
//!   back**: no worker begins it any more. **abandoned**: nobody here waits for its result.
//! - **waiting**: a connection that is to be handed over, while the owner's mailbox is full; or that has
//!   sent something to others, while too much is under way: not read. **congested**: so much waits that no
//!   connection of the reactor is read.
//! - **owner**: the reactor on which a session lives. **hand-over**: moving a connection there.
//! - **pending**: an upgrade that the application has accepted and that has no session yet.
//! - **takeover**: a newer connection displacing the older ones of its session. **sharing**: it joins them
//!   instead.
//! - **permit**: a socket's right to be held, where sockets are limited. **place**: the right of its
//!   WebSocket to be open, under `--limit-concurrency`; the permit holds it.
//! - **watcher**: a connection on `/ws/stats`, told once a second what the reactors do. **look**: one
//!   reactor asking all for a map of their slabs.
//! - **direct**: a message or a close for one connection, from another one. **post**: a closure that another
//!   thread or reactor wants run on a reactor.
//! - **mailbox**: how another reactor's words get into a turn. **waker**: what ends the sleep for them;
//!   of a connection, what brings it back to be visited.
//! - **store**: where sessions outlive the process. **batch**, **commit**: the sessions that a reactor has
//!   changed, on their way there. **held**: bytes that must not leave before a session is stored; their
//!   connection is **committing**, and not read.
//! - **half-close**, **linger**: ending our half of a stream, and reading on for a moment.
//! - **deadline**: when to look again whatever happens. **alarm**: an entry in the **timer wheel**, a
//!   hint to look at a connection then.
//! - **drain**: the shutdown: no new connections, a goodbye to all, an end when they have left. (mio's
//!   "draining readiness", reading until `WouldBlock`, is not meant.)
//! - **trace**: what a turn tells of itself at trace level.
//!
//! [Draining readiness]: https://docs.rs/mio/1/mio/struct.Poll.html#draining-readiness
//! [Spurious events]: https://docs.rs/mio/1/mio/struct.Poll.html#spurious-events
//!
//! Next: [`crate::protocol`], where the tour begins.

// Without `internals` most `pub` items are unreachable, and are meant to be.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]
// The tour links private modules. Where those have no pages, their names are plain text.
#![allow(rustdoc::private_intra_doc_links)]

// API.
pub mod config;
pub mod memory;
pub mod testing;
pub mod wall_clock;

// Not API. The tests, benches and fuzz targets reach these with the feature `internals`.
#[cfg(not(feature = "internals"))]
mod application;
#[cfg(feature = "internals")]
pub mod application;
#[cfg(not(feature = "internals"))]
mod apps;
#[cfg(feature = "internals")]
pub mod apps;
#[cfg(not(feature = "internals"))]
mod connection;
#[cfg(feature = "internals")]
pub mod connection;
#[cfg(not(feature = "internals"))]
mod contained;
#[cfg(feature = "internals")]
pub mod contained;
#[cfg(not(feature = "internals"))]
mod environment;
#[cfg(feature = "internals")]
pub mod environment;
#[cfg(not(feature = "internals"))]
mod http;
#[cfg(feature = "internals")]
pub mod http;
#[cfg(not(feature = "internals"))]
mod inbox;
#[cfg(feature = "internals")]
pub mod inbox;
#[cfg(not(feature = "internals"))]
mod json;
#[cfg(feature = "internals")]
pub mod json;
#[cfg(not(feature = "internals"))]
mod live_settings;
#[cfg(feature = "internals")]
pub mod live_settings;
#[cfg(not(feature = "internals"))]
mod liveness;
#[cfg(feature = "internals")]
pub mod liveness;
#[cfg(not(feature = "internals"))]
mod mailbox;
#[cfg(feature = "internals")]
pub mod mailbox;
#[cfg(not(feature = "internals"))]
mod observe;
#[cfg(feature = "internals")]
pub mod observe;
#[cfg(not(feature = "internals"))]
mod offload;
#[cfg(feature = "internals")]
pub mod offload;
#[cfg(not(feature = "internals"))]
mod one_writer_cell;
#[cfg(feature = "internals")]
pub mod one_writer_cell;
#[cfg(not(feature = "internals"))]
mod protocol;
#[cfg(feature = "internals")]
pub mod protocol;
#[cfg(not(feature = "internals"))]
mod reactor;
#[cfg(feature = "internals")]
pub mod reactor;
#[cfg(not(feature = "internals"))]
#[allow(dead_code, reason = "a whole client, of which the store uses most")]
mod resp;
#[cfg(feature = "internals")]
pub mod resp;
#[cfg(not(feature = "internals"))]
mod serve_error;
#[cfg(feature = "internals")]
pub mod serve_error;
#[cfg(not(feature = "internals"))]
mod server;
#[cfg(feature = "internals")]
pub mod server;
#[cfg(not(feature = "internals"))]
mod server_status;
#[cfg(feature = "internals")]
pub mod server_status;
#[cfg(not(feature = "internals"))]
mod server_store;
#[cfg(feature = "internals")]
pub mod server_store;
#[cfg(not(feature = "internals"))]
mod server_tasks;
#[cfg(feature = "internals")]
pub mod server_tasks;
#[cfg(not(feature = "internals"))]
mod server_tls;
#[cfg(feature = "internals")]
pub mod server_tls;
#[cfg(not(feature = "internals"))]
mod session;
#[cfg(feature = "internals")]
pub mod session;
#[cfg(not(feature = "internals"))]
mod shard;
#[cfg(feature = "internals")]
pub mod shard;
#[cfg(not(feature = "internals"))]
mod sleep_timer;
#[cfg(feature = "internals")]
pub mod sleep_timer;
#[cfg(not(feature = "internals"))]
mod store;
#[cfg(feature = "internals")]
pub mod store;
#[cfg(not(feature = "internals"))]
mod tasks;
#[cfg(feature = "internals")]
pub mod tasks;
#[cfg(not(feature = "internals"))]
mod token;
#[cfg(feature = "internals")]
pub mod token;
#[cfg(not(feature = "internals"))]
mod transport;
#[cfg(feature = "internals")]
pub mod transport;

pub use application::timers::{SetTimerError, TooManyTimers};
pub use application::{
    Acceptance, AnswerFollows, Application, CloseReason, Context, CounterMetric, GaugeMetric,
    HttpRequest, HttpResponse, InvalidMetric, JobHandle, Message, NoResponse, OpenedRequest,
    PostError, ReactorContext, ReactorStart, Recipient, Refusal, Remote, SavedState, Side,
    Subprotocol, TextPart, Upgrade,
};
pub use apps::counter::Counter;
pub use apps::echo::Echo;
pub use apps::tasks::{TaskWorkers, Tasks};
pub use config::{
    Address, AllowedOrigins, ClientCertificates, Config, ConfigError, Inherited, InvalidField,
    Limits, Origin, PageFor, ProxyHeaders, ResponseFields, SessionIds, SessionRate, StoreLocation,
    StoreSync, Subprotocols, TlsFiles, TrustedProxies, UnixPath,
};
pub use json::{JsonError, JsonString};
pub use live_settings::LiveSettings;
pub use liveness::Liveness;
pub use offload::{Cancellation, PoolFull};
pub use resp::{AddressError, ServerAddress};
pub use serve_error::ServeError;
pub use server::{Builder, Server, ServerHandle, ShutdownTrigger, Summary};
pub use server_store::{StoreAccessError, StoreCheck, check_store, dump_store};
pub use server_tls::Certificates;
pub use session::{EndedSession, SessionEnd, owner_of};
pub use tasks::{
    CeleryTask, EnqueueError, InvalidTask, RqTask, Task, TaskId, TaskOutcome, TaskResult,
};
pub use token::{ConnectionId, InvalidConnectionId, IpPeer, Peer};
pub use transport::tls::{ShownCertificate, TlsError};

/// The examples in the documents compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those for embedders.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;

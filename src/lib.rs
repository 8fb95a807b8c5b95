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
//! # The map
//!
//! In reading order; a module uses only those above it, and a test sees to that.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | every setting and bound, each with its reason |
//! | [`protocol`] | sans-IO: request heads, the handshake, frames, messages, the endpoint's states |
//! | [`token`] | the name of a connection: slot and generation |
//! | [`out_buffer`] | bytes that wait for one socket |
//! | [`session`] | ids, who owns them, and one reactor's table of them |
//! | [`application`] | what runs on a reactor, and the context through which it answers |
//! | [`counter`], [`echo`] | the two applications that the daemon has |
//! | [`timer`] | a coarse, lazy timer wheel |
//! | [`ready`] | who has something to do this turn |
//! | [`door`] | how many sockets are inside, in all and from each address |
//! | [`connection`] | a stream, an endpoint, their readiness; why a connection stopped: `Rest` |
//! | [`connections`] | the slab; no way to reach a slot's former tenant |
//! | [`mailbox`] | the only way into a reactor from outside |
//! | [`metrics`] | what is counted, and the page that shows it |
//! | [`http`] | health, readiness, metrics, refusals |
//! | [`host`] | what a shard asks of its surroundings |
//! | [`shard`] | all that one thread owns, and its turn |
//! | [`memory`] | the most memory that all this can take, term by term |
//! | [`listener`] | sockets that share a port |
//! | [`reactor`] | the event loop |
//! | [`server`] | bind, one thread a reactor, drain, join |
//!
//! The modules are public so that readers, tests, benches and fuzzers can reach the parts. What
//! follows semantic versioning is what is named at the root of the crate, and [`config`].
//!
//! # The lexicon
//!
//! - **reactor**: a thread, its poll and its shard. **shard**: all that it owns, without the poll.
//! - **turn**: sleep, note what is ready, act on it a share each, let go of what ended.
//! - **readiness**, **edge**, **token**, **interest**, **drain**: as mio uses them.
//! - **cork**: where the replies of one readable event collect, to leave in one write.
//! - **backlog**: what the socket did not take; above the **high-water mark** we stop reading from
//!   that peer (**backpressure**) until it falls below the **low-water mark**.
//! - **owner**: the reactor on which a session lives. **hand-over**: moving a connection there.
//! - **takeover**: a newer connection displacing the older one of its session.
//! - **mailbox**, **waker**: how another thread's words get into a turn.
//! - **half-close**, **linger**: ending our half of a stream, and reading on for a moment.
//! - **deadline**: when to look again whatever happens. **timer wheel**: the hints about when.

pub mod application;
pub mod config;
pub mod connection;
pub mod connections;
pub mod counter;
pub mod door;
pub mod echo;
pub mod host;
pub mod http;
pub mod listener;
pub mod mailbox;
pub mod memory;
pub mod metrics;
pub mod out_buffer;
pub mod protocol;
pub mod reactor;
pub mod ready;
pub mod server;
pub mod session;
pub mod shard;
pub mod timer;
pub mod token;

pub use application::{Application, CloseReason, Context, Message, ReactorContext, Side};
pub use config::{AllowedOrigins, Config, ConfigError, Limits, Origin, SessionIds};
pub use counter::Counter;
pub use echo::Echo;
pub use server::{Builder, ServeError, Server, ServerHandle, ShutdownTrigger, Summary};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

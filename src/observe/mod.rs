//! What can be seen of a server from outside: numbers, the map of a slab, what a turn did, which
//! callback made it slow, and the live page.
//!
//! [`slab_map`] is what a reactor tells others of its connections; [`metrics`] is what is counted, and
//! the page of it; [`store_metrics`], [`task_metrics`] and [`tls_metrics`] are the page's parts about the
//! store, tasks for workers and TLS. [`page`] is the live page, and `watchers` are the connections that it has here;
//! `snapshot` and `turn_trace` describe a turn, and `slow_turn` finds out which callback held it up.
//! Nothing here decides anything about a connection, and nothing knows the shard, which calls it.
//!
//! **The trace of a turn.** At trace level every turn prints what it did. A visit is described from
//! outside: the shard is compared before and after it, and the frames are read once more from the
//! receive buffer, where their headers still stand. So there is no hook on the path of a message, and
//! without a trace a turn costs one load of the log level. The simulation compares what is told with
//! what the simulated sockets took.
//!
//! **The live page.** A connection to `/ws/stats` is `Attachment::Watching`: pings, deadlines,
//! backpressure and drain as for others, but no session and no application. While a shard has watchers
//! it asks the other reactors once a second (`Mail::Look`) for a map of their slabs, taken 4,096 slots a
//! turn (`Mail::Seen`). A reactor is not asked again before it has answered. One JSON frame is made of
//! the maps and the metrics, for each watcher that has taken the last one. Without watchers this costs
//! two comparisons a turn. `page/admission.rs` decides who may see it.
//!
//! Next: [`crate::observe::slab_map`]: all connections at one look.

pub mod metrics;
pub mod page;
pub mod slab_map;
pub(crate) mod slow_turn;
pub(crate) mod snapshot;
pub mod store_metrics;
pub mod task_metrics;
pub mod tls_metrics;
pub(crate) mod turn_trace;
pub(crate) mod watchers;

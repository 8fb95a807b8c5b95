//! What can be seen of a server from outside: numbers, the map of a slab, what a turn did, which
//! callback made it slow, and the live page.
//!
//! [`slab_map`] is what a reactor tells others of its connections; [`metrics`] is what is counted, and
//! the page of it. [`page`] is the live page, and `watchers` are the connections that it has here;
//! `snapshot` and `turn_trace` describe a turn, and `slow_turn` finds out which callback held it up. Nothing here decides
//! anything about a connection, and nothing knows the shard, which calls it.
//!
//! Next: [`crate::observe::slab_map`]: all connections at one look.

pub mod metrics;
pub mod page;
pub mod slab_map;
pub(crate) mod slow_turn;
pub(crate) mod snapshot;
pub(crate) mod turn_trace;
pub(crate) mod watchers;

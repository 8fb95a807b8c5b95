//! What can be seen of a server from outside: numbers, the map of a slab, and the live page.
//!
//! [`slab_map`] is what a reactor tells others of its connections; [`metrics`] is what is counted, and
//! the page of it; [`page`] is the live page. Nothing here decides anything about a connection. What a
//! turn tells of itself is in `shard/`, where it happens.
//!
//! Next: [`crate::observe::slab_map`]: all connections at one look.

pub mod metrics;
pub mod page;
pub mod slab_map;

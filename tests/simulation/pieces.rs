//! What the seeded world and the torture (`main.rs`) are made of, and the fuzz target for shards: the
//! library's own machine of memory, and an application and words to try it with.

pub mod chance;
pub mod client_bytes;
pub mod ledger;
pub mod recorder;
pub mod veil;

pub use revolve::testing::{faults, machine, wire as streams};

//! What a scripted machine is made of: shards on streams, queues and mailboxes of memory. The
//! seeded world and the torture (`main.rs`) run on it, and so does the fuzz target for shards.

pub mod chance;
pub mod faults;
pub mod machine;
pub mod recorder;
pub mod speech;
pub mod streams;

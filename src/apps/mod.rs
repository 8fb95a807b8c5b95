//! The two applications that the daemon has.
//!
//! [`counter`] counts each session's messages; [`echo`] sends every message back, for stress tools.
//! They use what every embedder can use, and nothing else.
//!
//! Next: [`crate::apps::counter`], a whole application in fifty lines.

pub mod counter;
pub mod echo;

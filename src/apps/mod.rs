//! The applications that the daemon has.
//!
//! All tell of a session when it opens, in `hello`. [`counter`] counts each session's messages; [`echo`] sends every
//! message back, for stress tools; [`tasks`] hands tasks to workers of Celery or RQ. They use what every embedder can
//! use, and nothing else.
//!
//! Next: `hello`: the count in the 101, and the first message.

pub mod counter;
pub mod echo;
mod hello;
pub mod tasks;

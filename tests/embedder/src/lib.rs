//! What an embedder can reach of revolve: its API, and nothing else.
//!
//! The examples of `docs/embedding.md` and those of `examples/` that use revolve must compile here. What
//! follows must not, unless the feature `internals` is on: `tests/run` compiles it both ways, so a path that no
//! longer exists is found.
#![cfg_attr(not(feature = "internals"), doc = "```compile_fail")]
#![cfg_attr(feature = "internals", doc = "```")]
//! use revolve::shard::Shard;
//! ```
#![cfg_attr(not(feature = "internals"), doc = "```compile_fail")]
#![cfg_attr(feature = "internals", doc = "```")]
//! use revolve::protocol::head;
//! ```
#![cfg_attr(not(feature = "internals"), doc = "```compile_fail")]
#![cfg_attr(feature = "internals", doc = "```")]
//! use revolve::testing::machine::Machine;
//! ```

/// The examples in the document for embedders.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
struct Embedding;

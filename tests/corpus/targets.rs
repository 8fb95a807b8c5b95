//! What each fuzz target does with an input, for whoever calls it: the fuzzer (`fuzz/`), or
//! `cargo test` with the corpus that the fuzzer found. A target panics
//! if the product does what it must not.

#[cfg(feature = "deflate")]
pub(crate) mod deflate;
pub(crate) mod frames;
pub(crate) mod head;
pub(crate) mod proxy;
pub(crate) mod resp;
pub(crate) mod session;
pub(crate) mod shard;
pub(crate) mod store;
pub(crate) mod tasks;
#[cfg(feature = "tls")]
pub(crate) mod tls;

#[allow(dead_code, reason = "its seeded conversations are for its own test")]
#[path = "../oracle/comparison.rs"]
mod oracle;

#[allow(dead_code, unreachable_pub, reason = "some of it is for the simulation's own tests")]
#[path = "../simulation/pieces.rs"]
mod simulation;

/// A target takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its folder in `fuzz/corpus`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    #[cfg(feature = "deflate")]
    ("deflate", deflate::run),
    ("frames", frames::run),
    ("head", head::run),
    ("proxy", proxy::run),
    ("resp", resp::run),
    ("session", session::run),
    ("shard", shard::run),
    ("store", store::run),
    ("tasks", tasks::run),
    #[cfg(feature = "tls")]
    ("tls", tls::run),
];

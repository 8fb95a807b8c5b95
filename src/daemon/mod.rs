//! The parts of the `revolve` program: the `logger`, its `arguments`, sockets that were `passed` to
//! it, its `certificates`, where it is `listening`, what else it `inherited` from its parent, and how much memory is `available`.
//!
//! They belong to the program and not to the library, because nothing in the library may be global.
//! Called by `main.rs`.
//!
//! Next: `logger`: where all lines of the log go.

pub(crate) mod arguments;
pub(crate) mod available;
pub(crate) mod certificates;
pub(crate) mod inherited;
pub(crate) mod listening;
pub(crate) mod logger;
pub(crate) mod passed;

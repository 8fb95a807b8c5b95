//! The parts of the `revolve` program: `arguments`, what it `inherited` from its parent, how much
//! memory is `available`, and the `logger`.
//!
//! They belong to the program and not to the library, because nothing in the library may be global.
//! Called by `main.rs`.
//!
//! Next: `arguments`: what can be asked of it.

pub(crate) mod arguments;
pub(crate) mod available;
pub(crate) mod inherited;
pub(crate) mod logger;

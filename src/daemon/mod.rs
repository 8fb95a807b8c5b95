//! The parts of the `revolve` program: the `log_output`, the `logger`, the `config_file`, its `arguments`, sockets that
//! were `passed` to it, its `certificates`, where it is `listening`, what else it `inherited` from its parent, which
//! `supervisor` watches it, what of the machine is `available`, what `shortages` follow from that, its `introduction`,
//! `reloading` at SIGHUP, and `checking`, which only says what would be done.
//!
//! They belong to the program and not to the library, because nothing in the library may be global.
//! Called by `main.rs`.
//!
//! Next: `log_output`: where the log goes.

pub(crate) mod arguments;
pub(crate) mod available;
pub(crate) mod certificates;
pub(crate) mod checking;
pub(crate) mod config_file;
pub(crate) mod inherited;
pub(crate) mod introduction;
pub(crate) mod listening;
pub(crate) mod log_output;
pub(crate) mod logger;
pub(crate) mod passed;
pub(crate) mod reloading;
pub(crate) mod shortages;
pub(crate) mod supervisor;

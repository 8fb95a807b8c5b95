//! Sessions: what outlives a connection, under an id that says who owns it.
//!
//! [`id`] is the name of a session, and pure; [`rate`] bounds how many an address may create; [`ended`] is
//! what is left of a session that is no more; `one` is a session, `index` finds it by its id, and `sharers`
//! are the connections of one that has several; `keyed_hash` is that of an id; [`table`] is one reactor's share
//! of all sessions, `invariants` what holds of it, `stored` what of it goes to a store; [`ownership`] is by what a
//! session is this node's, and [`changes`] what the store has not been sent.
//!
//! Next: [`crate::session::id`]: what it is called.

pub mod changes;
pub mod ended;
pub mod id;
mod index;
mod invariants;
mod keyed_hash;
mod one;
pub mod ownership;
pub mod rate;
mod sharers;
pub mod stored;
pub mod table;

pub use changes::Changes;
pub use ended::{EndedSession, SessionEnd};
pub use id::{BadSessionId, IdSource, SessionId, SessionSlot, owner_of};
pub use one::Session;
pub use ownership::Ownership;
pub use sharers::Joining;
pub use table::{Attached, NotAttached, SessionTable};

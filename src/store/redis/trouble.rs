//! Why Redis has not done what it was asked, in one line that an operator can act on.
//!
//! The connection is given up then, and what is unanswered is sent again on the next one; but for what is wrong with one
//! batch alone, and would be so again. Values only. Made by `calls`, `unanswered` and `link`.
//!
//! Next: `calls`: a batch, as calls of the scripts.

use std::fmt;

use crate::resp::ConnectionError;
use crate::resp::reply::ErrorKind;

/// What is wrong.
#[derive(Debug)]
pub enum Trouble {
    /// The connection, or what was answered on it.
    Connection(ConnectionError),
    /// It is done, and not safe from a failover.
    TooFewReplicas {
        /// So many have it.
        have: u64,
        /// So many should (`--store-replicas`).
        wanted: u32,
    },
}

impl Trouble {
    /// Whether it is what one call has met, and not the server: a key that is of another type, say.
    #[must_use]
    pub fn is_of_one_call(&self) -> bool {
        match self {
            Trouble::Connection(ConnectionError::Refused { error, .. }) => {
                error.kind() == ErrorKind::Other
            }
            _ => false,
        }
    }
}

impl From<ConnectionError> for Trouble {
    fn from(error: ConnectionError) -> Self {
        Trouble::Connection(error)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connection(error) => error.fmt(f),
            Trouble::TooFewReplicas { have, wanted } => {
                write!(f, "{have} of {wanted} replicas have acknowledged (--store-replicas)")
            }
        }
    }
}

impl std::error::Error for Trouble {}

//! What can go wrong with a connection, each in one line that an operator can act on.
//!
//! After any of these the connection is of no use, but for [`ConnectionError::Refused`] of a single call, which the
//! server has answered and gone on. Whether a command that was sent has been done is not known then: it may be done later,
//! when the bytes that are under way arrive.
//!
//! Next: `connection`: commands and their answers.

use std::fmt;
use std::io;

use super::decoder::Malformed;
use super::reply::{ErrorKind, ServerError};

/// Why there is no answer.
#[derive(Debug)]
pub enum ConnectionError {
    /// There is no connection to be had.
    Connect(io::Error),
    /// The stream has failed.
    Io(io::Error),
    /// There was no answer in time.
    TimedOut,
    /// The server has ended the connection.
    Closed,
    /// What came is no reply.
    Malformed(Malformed),
    /// A reply has come that nobody asked for, or another one than the command has.
    Unexpected,
    /// The server has refused this command.
    Refused {
        /// Its name.
        command: &'static str,
        /// What the server says.
        error: ServerError,
    },
    /// It has failed before.
    Unusable,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionError::Connect(error) => write!(f, "no connection: {error}"),
            ConnectionError::Io(error) => write!(f, "the connection has failed: {error}"),
            ConnectionError::TimedOut => f.write_str("no answer in time"),
            ConnectionError::Closed => f.write_str("the server has closed the connection"),
            ConnectionError::Malformed(malformed) => write!(f, "is this Redis? {malformed}"),
            ConnectionError::Unexpected => f.write_str("is this Redis? a reply belongs to nothing"),
            ConnectionError::Refused { command, error } => {
                write!(f, "{command} is refused: {error}")?;
                advice(error.kind()).map_or(Ok(()), |advice| write!(f, " ({advice})"))
            }
            ConnectionError::Unusable => f.write_str("the connection has failed before"),
        }
    }
}

impl std::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConnectionError::Connect(error) | ConnectionError::Io(error) => Some(error),
            ConnectionError::Malformed(malformed) => Some(malformed),
            _ => None,
        }
    }
}

/// What to do about an error of a server, where that is known.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NotAuthenticated => "check user and password in the address of the server",
        ErrorKind::NotPermitted => "give the user the right to it, with ACL SETUSER",
        ErrorKind::ReadOnly => "this server is a replica: connect to the primary",
        ErrorKind::MasterDown => "this server is a replica without its primary",
        ErrorKind::OutOfMemory => "raise maxmemory of the server",
        ErrorKind::NotPersisting => "see the log of the server: its disk, probably",
        ErrorKind::NoReplicas => "too few replicas follow: see min-replicas-to-write of the server",
        ErrorKind::Busy => "a script of somebody runs for too long: end it with SCRIPT KILL",
        ErrorKind::Loading => "it has just started: wait",
        ErrorKind::NoScript | ErrorKind::Other => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_one_line_that_says_what_to_do_where_that_is_known() {
        let refused = |line: &str| ConnectionError::Refused {
            command: "PING",
            error: ServerError::from_line(line.as_bytes()),
        };
        for (error, said) in [
            (ConnectionError::Connect(io::ErrorKind::ConnectionRefused.into()), "no connection: "),
            (ConnectionError::TimedOut, "in time"),
            (ConnectionError::Malformed(Malformed::Kind(b'H')), "begins with 'H'"),
            (refused("NOAUTH Authentication required."), "required. (check user and password"),
            (refused("OOM x"), "raise maxmemory"),
            (refused("ERR unknown"), "PING is refused: ERR unknown"),
        ] {
            let text = error.to_string();
            assert!(text.contains(said) && !text.contains('\n'), "{text}");
        }
        assert!(refused("ERR unknown").to_string().ends_with("unknown"));
    }
}

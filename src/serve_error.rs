//! Why a server did not start, and what to change.
//!
//! Types and texts alone; `server.rs` makes them. Read by the daemon and by programs that embed revolve.
//!
//! Invariant: each is one line, and where something is known that helps, the line says it.
//!
//! Next: [`crate::server`], which starts one reactor a core.

use std::fmt;
use std::io;

use crate::config::{Address, ConfigError};
use crate::server_store::StoreAccessError;
use crate::transport::tls::TlsError;

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting is out of its bounds.
    Config(ConfigError),
    /// The address cannot be listened on.
    Listen {
        /// Which one.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The same of [`crate::Config::listen_plain`].
    Plain {
        /// Which one.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The same of [`crate::Config::admin`].
    Admin {
        /// Which one.
        address: Address,
        /// What the system said.
        error: io::Error,
    },
    /// The system has no descriptors or no threads left.
    Start(io::Error),
    /// A certificate or a key cannot be used ([`crate::Config::tls`]): a line that names the file.
    Tls(TlsError),
    /// The store cannot be opened ([`crate::Config::store`]): a line that names the file, and says what to do.
    Store(StoreAccessError),
    /// The application panicked while it was made, or in `on_start`. The panic hook has said where.
    Application,
}

/// What to do about it.
const OUT_OF_DESCRIPTORS: &str =
    "too few file descriptors; raise their hard limit (ulimit -n) or choose fewer --workers";

/// Whether the process has as many descriptors open as it may. (EMFILE, which has no
/// `io::ErrorKind`, is 24 on each Unix with epoll or kqueue.)
fn is_out_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error() == Some(24)
}

/// `option` names the port.
fn tcp_advice(error: io::ErrorKind, option: &str) -> Option<String> {
    Some(match error {
        io::ErrorKind::AddrInUse => {
            format!("the port is in use; choose another with --{option}, or 0 for a free one")
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose another with --host".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a privilege; choose another with --{option}")
        }
        _ => return None,
    })
}

fn unix_advice(error: io::ErrorKind) -> Option<&'static str> {
    Some(match error {
        io::ErrorKind::AddrInUse => "another process listens there; choose another path with --uds",
        io::ErrorKind::AlreadyExists => {
            "what is there is no socket, and stays; choose another path with --uds"
        }
        io::ErrorKind::NotFound => {
            "there is no such directory; make it, or choose another with --uds"
        }
        io::ErrorKind::NotADirectory => {
            "a part of it is no directory; choose another path with --uds"
        }
        io::ErrorKind::PermissionDenied => {
            "no permission for its directory, or for the socket that is there"
        }
        _ => return None,
    })
}

fn cannot_listen(
    f: &mut fmt::Formatter<'_>,
    address: &Address,
    error: &io::Error,
    option: &str,
) -> fmt::Result {
    let advice = match address {
        _ if is_out_of_descriptors(error) => Some(OUT_OF_DESCRIPTORS.to_owned()),
        Address::Tcp(_) => tcp_advice(error.kind(), option),
        Address::Unix(_) => unix_advice(error.kind()).map(str::to_owned),
        Address::Inherited(_) => None,
    };
    match advice {
        Some(advice) => write!(f, "cannot listen on {address}: {advice}"),
        None => write!(f, "cannot listen on {address}: {error}"),
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Config(error) => error.fmt(f),
            ServeError::Listen { address, error } => cannot_listen(f, address, error, "port"),
            ServeError::Plain { address, error } => cannot_listen(f, address, error, "plain-port"),
            ServeError::Admin { address, error } if is_out_of_descriptors(error) => {
                write!(f, "cannot listen on {address} for --admin: {OUT_OF_DESCRIPTORS}")
            }
            ServeError::Admin { address, error } => {
                write!(f, "cannot listen on {address} for --admin: {error}")
            }
            ServeError::Start(error) if is_out_of_descriptors(error) => {
                write!(f, "cannot start: {OUT_OF_DESCRIPTORS}")
            }
            ServeError::Start(error) => write!(f, "cannot start: {error}"),
            ServeError::Tls(error) => error.fmt(f),
            ServeError::Store(error) => error.fmt(f),
            ServeError::Application => f.write_str("cannot start: the application panicked"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Config(error) => Some(error),
            ServeError::Listen { error, .. }
            | ServeError::Plain { error, .. }
            | ServeError::Admin { error, .. }
            | ServeError::Start(error) => Some(error),
            ServeError::Tls(error) => Some(error),
            ServeError::Store(error) => Some(error),
            ServeError::Application => None,
        }
    }
}

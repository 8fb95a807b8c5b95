//! Where a server listens.
//!
//! Binds nothing; `transport/listener.rs` does. Used by the code that makes a [`crate::Config`].
//!
//! Next: `bounds`: the range of each setting.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a path of a Unix socket has to be, as the end of a sentence.
pub const UNIX_PATH_ALLOWED: &str = if cfg!(any(target_os = "linux", target_os = "android")) {
    "a path of 1 to 107 bytes, or such a path, a colon and an octal mode from 000 to 777"
} else {
    "a path of 1 to 103 bytes, or such a path, a colon and an octal mode from 000 to 777"
};

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port; 0 picks a free one, and all addresses with port 0 get the same. `::` takes IPv4 in too,
    /// unless an IPv4 address of the list has that port.
    Tcp(SocketAddr),
    /// A Unix socket, which is made there and removed by the drain.
    Unix(UnixPath),
    /// A socket that listens already.
    Inherited(Inherited),
}

/// A TCP or Unix socket that listens already, such as one that a supervisor passes to the process. The
/// first reactor accepts what comes, and deals it out to all. A clone is the same socket.
#[derive(Debug, Clone)]
pub struct Inherited {
    socket: Arc<OwnedFd>,
    name: Arc<str>,
}

impl Inherited {
    /// This socket, which errors call by this name: the descriptor's number, mostly. Whether it listens
    /// is looked at when the server starts.
    pub fn new(socket: OwnedFd, name: impl Into<Arc<str>>) -> Inherited {
        Inherited { socket: Arc::new(socket), name: name.into() }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PartialEq for Inherited {
    fn eq(&self, other: &Inherited) -> bool {
        Arc::ptr_eq(&self.socket, &other.socket)
    }
}

impl Eq for Inherited {}

/// The path of a Unix socket, and who may connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixPath {
    /// Where it is made.
    pub path: PathBuf,
    /// The mode of its file. Without one it is what the umask of the process leaves of 777.
    pub mode: Option<u32>,
}

impl UnixPath {
    /// Whether a socket can be made there with that mode.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        is_unix_path(&self.path) && self.mode.is_none_or(|mode| mode <= MODE_MOST)
    }

    /// Reads a path, or a path, a colon and three or four octal digits: the mode of the file. `None` if
    /// there is no such mode.
    #[must_use]
    pub fn parse(text: &str) -> Option<UnixPath> {
        let Some((path, digits)) = text.rsplit_once(':').filter(|(_, end)| is_mode(end)) else {
            return Some(PathBuf::from(text).into());
        };
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= MODE_MOST)?;
        Some(UnixPath { path: PathBuf::from(path), mode: Some(mode) })
    }
}

/// Read, write and execute, for all. The other bits mean nothing to a socket.
const MODE_MOST: u32 = 0o777;

/// Three or four digits behind the last colon were meant as a mode.
fn is_mode(text: &str) -> bool {
    matches!(text.len(), 3 | 4) && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for UnixPath {
    /// As [`UnixPath::parse`] reads it. What would break a line is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.to_string_lossy().escape_debug())?;
        self.mode.map_or(Ok(()), |mode| write!(f, ":{mode:03o}"))
    }
}

impl From<PathBuf> for UnixPath {
    fn from(path: PathBuf) -> UnixPath {
        UnixPath { path, mode: None }
    }
}

impl Address {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) | Address::Inherited(_) => None,
        }
    }
}

/// Whether the kernel has room for this path (`sun_path`). An empty one would be no path.
fn is_unix_path(path: &Path) -> bool {
    !path.as_os_str().is_empty() && net::SocketAddr::from_pathname(path).is_ok()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl From<UnixPath> for Address {
    fn from(path: UnixPath) -> Address {
        Address::Unix(path)
    }
}

impl From<Inherited> for Address {
    fn from(inherited: Inherited) -> Address {
        Address::Inherited(inherited)
    }
}

impl From<TcpListener> for Address {
    fn from(listener: TcpListener) -> Address {
        let number = listener.as_raw_fd().to_string();
        Inherited::new(listener.into(), number).into()
    }
}

impl From<net::UnixListener> for Address {
    fn from(listener: net::UnixListener) -> Address {
        let number = listener.as_raw_fd().to_string();
        Inherited::new(listener.into(), number).into()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Unix(path.into())
    }
}

impl fmt::Display for Address {
    /// The TCP address; or `unix:` and the path, of which what would break a line is escaped; or which
    /// descriptor it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Inherited(inherited) => {
                write!(f, "descriptor {}", inherited.name.escape_debug())
            }
            Address::Unix(UnixPath { path, .. }) => {
                write!(f, "unix:{}", path.to_string_lossy().escape_debug())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_as_long_as_the_kernel_has_room_for() {
        let most = if cfg!(target_os = "linux") { 107 } else { 103 };
        for (length, is_allowed) in [(0, false), (1, true), (most, true), (most + 1, false)] {
            let path = PathBuf::from("a".repeat(length));
            assert_eq!(is_unix_path(&path), is_allowed, "{length}");
        }
        assert!(UNIX_PATH_ALLOWED.contains(&most.to_string()));
        assert!(!is_unix_path(Path::new("a\0b")) && !is_unix_path(Path::new("\0b")));
    }

    #[test]
    fn a_mode_stands_behind_the_last_colon() {
        let read = |text: &str| {
            UnixPath::parse(text).map(|UnixPath { path, mode }| (path.display().to_string(), mode))
        };
        let with = |path: &str, mode| Some((path.to_owned(), mode));
        for (text, expected) in [
            ("/run/a.sock", with("/run/a.sock", None)),
            ("/run/a.sock:660", with("/run/a.sock", Some(0o660))),
            ("/run/a.sock:0600", with("/run/a.sock", Some(0o600))),
            ("/run/a.sock:000", with("/run/a.sock", Some(0))),
            ("/run/a:b.sock:777", with("/run/a:b.sock", Some(0o777))),
            // A path whose end reads like a mode is written with its mode behind it.
            ("/run/a:660:600", with("/run/a:660", Some(0o600))),
            ("/run/a:b", with("/run/a:b", None)),
            ("/run/a:66", with("/run/a:66", None)),
            ("/run/a:00660", with("/run/a:00660", None)),
            ("/run/a:", with("/run/a:", None)),
            ("", with("", None)),
            ("/run/a:688", None),
            ("/run/a:1777", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
            if let Some(path) = UnixPath::parse(text) {
                assert_eq!(UnixPath::parse(&path.to_string()), Some(path), "{text}");
            }
        }
    }
}

//! Where a server listens.
//!
//! Binds nothing; `transport/listener.rs` does. Used by the code that makes a [`crate::Config`].
//!
//! Next: `bounds`: the range of each setting.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net;
use std::path::{Path, PathBuf};

/// What a path of a Unix socket has to be, as the end of a sentence.
pub const UNIX_PATH_ALLOWED: &str = if cfg!(any(target_os = "linux", target_os = "android")) {
    "a path of 1 to 107 bytes"
} else {
    "a path of 1 to 103 bytes"
};

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP port; 0 picks a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket, which is made there and removed by the drain. Who may connect is
    /// decided by the umask of the process.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

/// Whether the kernel has room for this path (`sun_path`). An empty one would be no path.
pub(super) fn is_unix_path(path: &Path) -> bool {
    !path.as_os_str().is_empty() && net::SocketAddr::from_pathname(path).is_ok()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl fmt::Display for Address {
    /// The TCP address, or `unix:` and the path, of which what would break a line is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.to_string_lossy().escape_debug()),
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
}

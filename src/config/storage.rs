//! Where sessions are stored, and when a reply may leave: `--store`, `--store-sync`; and the names that a node has there.
//!
//! Values only. Opens nothing: `server_store.rs` does.
//!
//! Invariant: what is shown can be read again, but for a password, which is never shown.
//!
//! Next: `live`: what a running server takes anew.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::resp::{AddressError, ServerAddress};

/// What `--store` takes, as the end of a sentence.
pub const STORE_ALLOWED: &str =
    "none, a directory such as file:/var/lib/revolve, or a Redis such as redis://host:6379/0";

/// What `--store-prefix` takes, as the end of a sentence.
pub const STORE_PREFIX_ALLOWED: &str = "at most 64 printable ASCII characters, without spaces";

/// What `--node` takes, as the end of a sentence.
pub const NODE_ALLOWED: &str = "a name of 1 to 64 of the characters A-Z a-z 0-9 . _ -";

/// How long a Redis may take to answer, if nothing else is said: a client waits for it.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// The shortest time to live with a Redis. A session that is attached is stored again before a third of it has passed.
pub const REDIS_TTL_LEAST: Duration = Duration::from_secs(10);

pub(super) fn is_prefix(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) fn is_node(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Where sessions are stored, so that they outlive the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreLocation {
    /// In memory alone: they end with the process.
    #[default]
    None,
    /// In a log in this directory, which has to be there. A directory has one server at a time.
    File(PathBuf),
    /// In this Redis, which several servers share: on any of them a client finds its session.
    Redis(ServerAddress),
}

impl StoreLocation {
    /// Reads `none`, `file:` and a directory, or the address of a Redis: `redis://[user:password@]host[:port][/database]`
    /// or `unix:` and the path of its socket.
    #[must_use]
    pub fn parse(text: &str) -> Option<StoreLocation> {
        if text.eq_ignore_ascii_case("none") {
            return Some(StoreLocation::None);
        }
        match text.strip_prefix("file:") {
            Some(directory) => {
                let location = StoreLocation::File(PathBuf::from(directory));
                location.is_valid().then_some(location)
            }
            None => ServerAddress::parse(text).ok().map(StoreLocation::Redis),
        }
    }

    /// What is wrong with a text that was to be the address of a Redis. The text itself must not be shown: it may have a
    /// password.
    #[must_use]
    pub fn why_no_address(text: &str) -> Option<AddressError> {
        let is_meant = text.contains("://") || text.contains('@') || text.starts_with("unix:");
        if is_meant { ServerAddress::parse(text).err() } else { None }
    }

    /// Whether other servers may have the same sessions.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, StoreLocation::Redis(_))
    }

    pub(crate) fn is_valid(&self) -> bool {
        match self {
            StoreLocation::None | StoreLocation::Redis(_) => true,
            StoreLocation::File(directory) => !directory.as_os_str().is_empty(),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreLocation::None => f.write_str("none"),
            StoreLocation::File(directory) => write!(f, "file:{}", directory.display()),
            StoreLocation::Redis(address) => address.fmt(f),
        }
    }
}

/// When what was stored is safe from a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreSync {
    /// Before anybody is told of it: a reply leaves when its session is on the disk.
    #[default]
    Always,
    /// So long after it was written at the most, and replies do not wait. A loss of power costs what was not synced; the
    /// end of the process costs what was not written, which is what the last turns have changed.
    Every(Duration),
}

impl fmt::Display for StoreSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreSync::Always => f.write_str("always"),
            StoreSync::Every(time) => write!(f, "{}", time.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in ["none", "file:/var/lib/revolve", "file:a:b", "redis://h:7/2", "unix:/r.sock"] {
            let location = StoreLocation::parse(text).unwrap();
            assert_eq!(location.to_string(), text);
        }
        assert_eq!(StoreLocation::parse("NONE"), Some(StoreLocation::None));
        for text in ["", "file:", "/var/lib/revolve", "redis:localhost", "rediss://localhost"] {
            assert_eq!(StoreLocation::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_password_is_neither_shown_nor_repeated() {
        let location = StoreLocation::parse("redis://me:hunter2@host").unwrap();
        assert_eq!(location.to_string(), "redis://me@host:6379/0");
        assert!(!format!("{location:?}").contains("hunter2"));
        for text in ["redis://:hunter2@h:x", "Redis://:hunter2@h", "hunter2@h", "unix://:hunter2"] {
            assert_eq!(StoreLocation::parse(text), None);
            let why = StoreLocation::why_no_address(text).unwrap().to_string();
            assert!(!why.contains("hunter2"), "{why}");
        }
        assert_eq!(StoreLocation::why_no_address("/var/lib/revolve"), None);
    }
}

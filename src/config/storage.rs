//! Where sessions are stored, and when a reply may leave: `--store`, `--store-sync`.
//!
//! Values only. Opens nothing: `server_store.rs` does.
//!
//! Invariant: what is shown can be read again.
//!
//! Next: `tls`: from which files TLS is made.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What `--store` takes, as the end of a sentence.
pub const STORE_ALLOWED: &str = "none or a directory such as file:/var/lib/revolve";

/// Where sessions are stored, so that they outlive the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreLocation {
    /// In memory alone: they end with the process.
    #[default]
    None,
    /// In a log in this directory, which has to be there. A directory has one server at a time.
    File(PathBuf),
}

impl StoreLocation {
    /// Reads `none`, or `file:` and a directory.
    #[must_use]
    pub fn parse(text: &str) -> Option<StoreLocation> {
        if text.eq_ignore_ascii_case("none") {
            return Some(StoreLocation::None);
        }
        let location = StoreLocation::File(PathBuf::from(text.strip_prefix("file:")?));
        location.is_valid().then_some(location)
    }

    pub(crate) fn is_valid(&self) -> bool {
        match self {
            StoreLocation::None => true,
            StoreLocation::File(directory) => !directory.as_os_str().is_empty(),
        }
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreLocation::None => f.write_str("none"),
            StoreLocation::File(directory) => write!(f, "file:{}", directory.display()),
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
        for text in ["none", "file:/var/lib/revolve", "file:a:b"] {
            let location = StoreLocation::parse(text).unwrap();
            assert_eq!(location.to_string(), text);
        }
        assert_eq!(StoreLocation::parse("NONE"), Some(StoreLocation::None));
        for text in ["", "file:", "/var/lib/revolve", "redis://localhost"] {
            assert_eq!(StoreLocation::parse(text), None, "{text}");
        }
    }
}

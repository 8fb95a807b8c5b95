//! Sockets that the parent has passed: those that `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` tell of
//! (sd_listen_fds(3)), and descriptor 0.
//!
//! To make a number into a descriptor that is owned takes unsafe code, which the crate `listenfd` has; a
//! number that nobody vouches for stays a number. Opens nothing. Called by `listening.rs`, and by `main.rs`
//! before anything else is opened.
//!
//! Invariant: a descriptor is owned by this module, or by who has taken it, and no child inherits it.
//!
//! Next: `certificates`: what is told of them.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::process;

use listenfd::ListenFd;
use revolve::config::{Address, Inherited};

use crate::daemon::arguments::Passing;

/// Sockets at most; a number above it is a mistake, and would take memory.
const MOST: usize = 1024;

/// What systemd's protocol begins to count from.
const FIRST: usize = 3;

/// Sockets that were passed and have not been taken.
pub(crate) struct Passed {
    sockets: ListenFd,
    first: usize,
    /// As many as there are sockets, or fewer.
    names: Vec<String>,
}

impl Passed {
    /// Those that the environment tells of, if it tells them to this process. Called while there is one
    /// thread, because the variables are removed: they are not for children.
    ///
    /// # Errors
    ///
    /// The line that says that `LISTEN_FDS` is no number of sockets: they are there, and would be passed over.
    pub(crate) fn from_environment() -> Result<Passed, String> {
        let text = |name: &str| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        let told = count_told(
            text("LISTEN_FDS").as_deref(),
            text("LISTEN_PID").as_deref(),
            process::id(),
        )?;
        let first = text("LISTEN_FDS_FIRST_FD").and_then(|text| text.parse().ok());
        let names = text("LISTEN_FDNAMES").unwrap_or_default();
        Ok(Passed {
            first: first.unwrap_or(FIRST),
            sockets: if told > 0 { ListenFd::from_env() } else { ListenFd::empty() },
            names: names.split(':').map(str::to_owned).collect(),
        })
    }

    /// All of them.
    pub(crate) fn take_all(&mut self) -> Result<Vec<Address>, String> {
        (0..self.sockets.len()).filter_map(|index| self.take_at(index).transpose()).collect()
    }

    /// How many have not been taken.
    pub(crate) fn left(&mut self) -> usize {
        // Taking a bare number owns nothing.
        (0..self.sockets.len())
            .filter(|&index| matches!(self.sockets.take_raw_fd(index), Ok(Some(_))))
            .count()
    }

    /// The one with this number, or all with this name.
    pub(crate) fn take(&mut self, which: &Passing) -> Result<Vec<Address>, String> {
        let found = match which {
            Passing::Number(0) => return standard_input().map(|address| vec![address]),
            Passing::Number(number) => match number.checked_sub(self.first) {
                Some(index) => self.take_at(index)?.into_iter().collect(),
                None => Vec::new(),
            },
            Passing::Name(name) => (0..self.sockets.len())
                .filter(|&index| self.names.get(index) == Some(name))
                .collect::<Vec<_>>()
                .into_iter()
                .filter_map(|index| self.take_at(index).transpose())
                .collect::<Result<_, _>>()?,
        };
        if found.is_empty() {
            return Err(format!(
                "cannot listen on descriptor {which}: it was not passed; --fd takes 0, and what LISTEN_FDS \
                 and LISTEN_PID tell of"
            ));
        }
        Ok(found)
    }

    fn take_at(&mut self, index: usize) -> Result<Option<Address>, String> {
        // Of either family: what it is not is not taken.
        if let Ok(taken) = self.sockets.take_unix_listener(index) {
            return Ok(taken.map(Address::from));
        }
        self.sockets.take_tcp_listener(index).map(|taken| taken.map(Address::from)).map_err(|_| {
            let number = self.first + index;
            format!("cannot listen on descriptor {number}: it is no stream socket that listens")
        })
    }
}

/// How many sockets `LISTEN_FDS` tells the process `own` of. Without `LISTEN_PID` it is meant, too: some who pass
/// sockets do not know the number of the process yet.
fn count_told(count: Option<&str>, pid: Option<&str>, own: u32) -> Result<usize, String> {
    let Some(count) = count.filter(|count| !count.is_empty()) else { return Ok(0) };
    if pid.is_some_and(|pid| !pid.is_empty() && pid.parse() != Ok(own)) {
        return Ok(0);
    }
    match count.parse() {
        Ok(told) if told <= MOST => Ok(told),
        _ => Err(format!("LISTEN_FDS: {count:?} is not a number of sockets from 0 to {MOST}")),
    }
}

/// Descriptor 0, as inetd and a unit with `StandardInput=socket` pass it.
fn standard_input() -> Result<Address, String> {
    let owned: io::Result<_> = io::stdin().as_fd().try_clone_to_owned();
    owned
        .map(|socket| Inherited::new(socket, "0").into())
        .map_err(|error| format!("cannot listen on descriptor 0: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_of_by_a_number_to_one_process() {
        for (count, pid, told) in [
            (None, None, Ok(0)),
            (None, Some("7"), Ok(0)),
            (Some(""), Some("7"), Ok(0)),
            (Some("0"), Some("7"), Ok(0)),
            (Some("2"), Some("7"), Ok(2)),
            (Some("2"), None, Ok(2)),
            (Some("2"), Some(""), Ok(2)),
            (Some("1024"), Some("7"), Ok(1024)),
            (Some("2"), Some("8"), Ok(0)),
            (Some("2"), Some("seven"), Ok(0)),
            // Not for this process, so not its mistake.
            (Some("x"), Some("8"), Ok(0)),
            (Some("x"), Some("7"), Err("\"x\"")),
            (Some("-1"), None, Err("\"-1\"")),
            (Some("1025"), Some("7"), Err("\"1025\"")),
            (Some("99999999999999999999"), Some("7"), Err("\"99999999999999999999\"")),
        ] {
            let line =
                |text| format!("LISTEN_FDS: {text} is not a number of sockets from 0 to 1024");
            assert_eq!(count_told(count, pid, 7), told.map_err(line), "{count:?} {pid:?}");
        }
    }
}

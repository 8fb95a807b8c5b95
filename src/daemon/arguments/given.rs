//! What was given for each option: the texts, and where each of them stands; and the settings that they make.
//!
//! Reads no argument, no variable and no file. Called by `from_file` and `daemon/arguments/mod.rs`, which
//! fill it, and by `effective` and `changes`, which show it.
//!
//! Invariant: [`Settings::config`] is valid.
//!
//! Next: `from_file`: what a file gives.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};

use revolve::ServerAddress;
use revolve::config::{Address, REDIS_TIMEOUT, StoreLocation};

use super::options::OPTIONS;
use super::row::{NotAllowed, Row};
use super::settings::{App, Settings};
use super::usage::{UsageError, bad_value};

/// What one option was given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// `--port`, `REVOLVE_PORT`, or a file and a line.
    pub(super) source: String,
    /// One, or more where each adds to those before.
    pub(super) texts: Vec<Text>,
}

#[derive(Debug, Clone)]
pub(super) struct Text {
    /// How an error names it.
    pub(super) place: String,
    pub(super) text: OsString,
}

impl Given {
    /// By a flag or a variable.
    pub(super) fn by(name: String, text: OsString) -> Given {
        Given { source: name.clone(), texts: vec![Text { place: name, text }] }
    }
}

/// What was given for all options, and what that makes.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// In the order of the options.
    pub(super) given: Vec<Option<Given>>,
    pub(crate) settings: Settings,
}

impl Loaded {
    /// Finds out what the texts mean.
    ///
    /// # Errors
    ///
    /// The first text that is no value of its option.
    pub(super) fn new(given: Vec<Option<Given>>) -> Result<Loaded, UsageError> {
        let mut settings = Settings::default();
        for (row, given) in OPTIONS.iter().zip(&given) {
            for Text { place, text } in given.iter().flat_map(|given| &given.texts) {
                set(row, &mut settings, text).map_err(|NotAllowed| refusal(row, place, text))?;
            }
        }
        complete(&mut settings);
        check_tasks(&settings)?;
        settings.config.validate().map_err(|error| {
            let index = OPTIONS.iter().position(|row| row.name == error.option);
            match index.and_then(|index| given[index].as_ref()).map(|given| &given.texts[..]) {
                Some([one]) => bad_value(&one.place, &one.text, error.allowed),
                Some([first, ..]) => {
                    bad_value(&first.place, OsStr::new(&error.value), error.allowed)
                }
                // A default of this machine, such as the number of its cores.
                _ => UsageError(error.to_string()),
            }
        })?;
        Ok(Loaded { given, settings })
    }
}

/// Puts together what several options say.
fn complete(settings: &mut Settings) {
    let usual = match settings.config.store.is_shared() {
        true => REDIS_TIMEOUT,
        false => settings.config.store_timeout,
    };
    settings.config.store_timeout = settings.store_timeout.unwrap_or(usual);
    // To ask what a host's name stands for is not done here; a path is checked now.
    if let Some(path) = &settings.uds {
        settings.config.listen = vec![path.clone().into()];
    }
    // The same of a port without TLS: whether it can be of use does not depend on the host.
    let plain = settings.plain_port.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    settings.config.listen_plain.extend(plain.map(Address::from));
}

/// Whether the application that hands tasks to workers has all that it needs.
fn check_tasks(settings: &Settings) -> Result<(), UsageError> {
    if settings.app != App::Tasks {
        return Ok(());
    }
    let missing = if settings.config.broker.is_none() {
        "--broker: a Redis such as redis://host:6379/0"
    } else if settings.tasks.names.is_empty() {
        "--task-names: the tasks that clients may have done"
    } else {
        return Ok(());
    };
    Err(UsageError(format!("--app tasks needs {missing}")))
}

/// What is wrong with the value of an option. An address of a Redis is not repeated: it may have a password.
fn refusal(row: &Row, place: &str, text: &OsStr) -> UsageError {
    if row.name == "store"
        && let Some(why) = StoreLocation::why_no_address(&text.to_string_lossy())
    {
        return UsageError(format!("{place}: {why}"));
    }
    if row.name == "broker"
        && let Err(why) = ServerAddress::parse(&text.to_string_lossy())
    {
        return UsageError(format!("{place}: {why}"));
    }
    bad_value(place, text, &row.allowed())
}

fn set(row: &Row, settings: &mut Settings, text: &OsStr) -> Result<(), NotAllowed> {
    (row.set)(settings, text.to_str().ok_or(NotAllowed)?)
}

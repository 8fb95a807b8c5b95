//! What the server would do, without doing it: `--check-config`.
//!
//! Looks up what names stand for, and whether directories are there, and reads certificates; binds nothing, opens no store,
//! and writes nothing. Called by `main.rs`.
//!
//! This is the last file of the tour.

use std::path::Path;

use log::Level;
use revolve::config::{Address, Config};
use revolve::{Certificates, StoreLocation};

use super::arguments::Settings;
use super::certificates;
use super::introduction::Introduction;
use super::listening;
use super::passed::Passed;
use super::shortages::Machine;

/// What it would say at its start.
///
/// # Errors
///
/// The line that says what would keep it from starting.
pub(crate) fn check(
    settings: &Settings,
    passed: Result<Passed, String>,
    machine: &Machine,
) -> Result<Vec<(Level, String)>, String> {
    let Settings { config, app, heartbeat, .. } = settings;
    let (listen, listen_plain) = listening::addresses(settings, &mut passed?)?;
    let config = &Config { listen, listen_plain, ..config.clone() };
    config.validate().map_err(|error| error.to_string())?;
    for address in config.listen.iter().chain(&config.listen_plain).chain(&config.admin) {
        if let Address::Unix(unix) = address {
            look_for_directory_of(&unix.path)?;
        }
    }
    if let StoreLocation::File(directory) = &config.store
        && !directory.is_dir()
    {
        let directory = directory.display();
        return Err(format!("cannot open the store: {directory} is no directory; make it first"));
    }
    if let Some(path) = &settings.log_file {
        look_for_directory_of(path)?;
    }
    let certificates = Certificates::load(&config.tls).map_err(|error| error.to_string())?;
    let admin = config.admin.as_ref();
    let introduction = Introduction {
        config,
        app: *app,
        heartbeat: *heartbeat,
        listening: &config.listen,
        plain: &config.listen_plain,
        admin,
        machine,
    };
    let mut lines = introduction.lines();
    lines.extend(certificates::lines(&certificates));
    Ok(lines)
}

fn look_for_directory_of(path: &Path) -> Result<(), String> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match directory.filter(|directory| !directory.is_dir()) {
        None => Ok(()),
        Some(directory) => {
            Err(format!("there is no directory {}; make it first", directory.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const MACHINE: Machine =
        Machine { cores: None, descriptors: None, accept_queue: Some(1), memory: None };

    fn checked(set: impl FnOnce(&mut Settings)) -> Result<Vec<(Level, String)>, String> {
        let mut settings = Settings { port: 7, ..Settings::default() };
        set(&mut settings);
        check(&settings, Passed::from_environment(), &MACHINE)
    }

    #[test]
    fn it_says_what_it_would_at_its_start_with_the_warnings() {
        let lines = checked(|_| {}).unwrap();
        assert!(lines[1].1.starts_with("listening on 127.0.0.1:7: ws://127.0.0.1:7/ws/chat/"));
        let warnings: Vec<_> = lines.iter().filter(|(level, _)| *level == Level::Warn).collect();
        assert_eq!(warnings.len(), 1, "{lines:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_one_line() {
        let nowhere = || PathBuf::from("/nonexistent/revolve");
        let line = checked(|s| s.uds = Some(nowhere().into())).unwrap_err();
        assert_eq!(line, "there is no directory /nonexistent; make it first");
        let line = checked(|s| s.config.admin = Some(nowhere().into())).unwrap_err();
        assert_eq!(line, "there is no directory /nonexistent; make it first");
        let line = checked(|s| s.config.store = StoreLocation::File(nowhere())).unwrap_err();
        assert!(line.starts_with("cannot open the store: /nonexistent/revolve"), "{line}");
        let line = checked(|s| s.log_file = Some(nowhere())).unwrap_err();
        assert_eq!(line, "there is no directory /nonexistent; make it first");
        checked(|s| s.log_file = Some(PathBuf::from("here.log"))).unwrap();
        checked(|s| s.uds = Some(PathBuf::from("here.sock").into())).unwrap();
        let line = check(&Settings::default(), Err("LISTEN_FDS".to_owned()), &MACHINE).unwrap_err();
        assert_eq!(line, "LISTEN_FDS");
    }
}

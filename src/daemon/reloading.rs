//! SIGHUP: reads the options again, and has the server take what can change.
//!
//! Reads no file itself; what can change, the table of options says. Runs on the thread that waits for signals.
//! Called by `main.rs`.
//!
//! Invariant: what cannot be used changes nothing, and the server runs on.
//!
//! Next: `checking`: what would be done, without doing it.

use std::fmt::Display;
use std::path::Path;

use revolve::LiveSettings;
use revolve::config::Address;

use super::arguments::{Changes, Loaded, UsageError, changes};
use super::logger::{FLUSH_TIMEOUT, LogQueue};
use super::shortages::{Machine, shortages};

/// What it takes to change the settings of a running server.
pub(crate) struct Reloading {
    /// What holds.
    pub(crate) now: Loaded,
    pub(crate) settings: LiveSettings,
    pub(crate) log: LogQueue,
    pub(crate) machine: Machine,
    pub(crate) listening: Vec<Address>,
}

impl Reloading {
    /// Takes what was read now.
    pub(crate) fn reload(&mut self, newer: Result<Loaded, UsageError>) {
        let merged = newer.and_then(|newer| changes(&self.now, newer));
        match merged {
            Ok(merged) => self.take(merged),
            Err(error) => self.keep(&error),
        }
    }

    /// Opens the log file anew, if there is one: whoever rotates it has moved it away.
    pub(crate) fn reopen_log(&self) {
        if let Some(path) = &self.now.settings.log_file {
            self.open_log(path);
        }
    }

    fn keep(&self, error: &dyn Display) {
        self.reopen_log();
        log::error!("SIGHUP: the settings stay as they are: {error}");
    }

    fn take(&mut self, merged: Changes) {
        let Changes { loaded, changed, kept } = merged;
        if let Err(error) = self.settings.change(&loaded.settings.config) {
            return self.keep(&error);
        }
        let was_short = self.shortages();
        let level = self.now.settings.log_level;
        self.now = loaded;
        self.reopen_log();
        // What changes is told at the level that tells more, so that it is told.
        self.log.set_level(level.max(self.now.settings.log_level));
        for line in &changed {
            log::info!("SIGHUP: {line}");
        }
        for line in &kept {
            log::warn!("SIGHUP: {line}");
        }
        if changed.is_empty() && kept.is_empty() {
            log::info!("SIGHUP: the settings have not changed");
        }
        for line in self.shortages().iter().filter(|line| !was_short.contains(line)) {
            log::warn!("{line}");
        }
        self.log.set_level(self.now.settings.log_level);
    }

    fn shortages(&self) -> Vec<String> {
        shortages(&self.now.settings.config, &self.listening, &self.machine)
    }

    fn open_log(&self, path: &Path) {
        match self.log.reopen(path, FLUSH_TIMEOUT) {
            Ok(()) => {}
            Err(error) => log::error!(
                "SIGHUP: cannot open the log file {}: {error}; the log stays where it is",
                path.display()
            ),
        }
    }
}

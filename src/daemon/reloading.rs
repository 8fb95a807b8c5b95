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
use super::introduction::new_shortages;
use super::logger::{FLUSH_TIMEOUT, LogQueue};
use super::shortages::Machine;

/// Whom its lines come from: the program.
const TARGET: &str = "revolve";

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
        if let Some(path) = &self.now.settings.log_file
            && let Err(error) = self.open_log(path)
        {
            log::error!(target: TARGET, "SIGHUP: {error}; the log stays where it is");
        }
    }

    fn keep(&self, error: &dyn Display) {
        self.reopen_log();
        log::error!(target: TARGET, "SIGHUP: the settings stay as they are: {error}");
    }

    fn take(&mut self, merged: Changes) {
        let Changes { loaded, changed, kept } = merged;
        // Another file of the log is opened first: if it cannot be, or the server refuses the rest, `keep` goes back to
        // the one that was.
        let log_file = &loaded.settings.log_file;
        let is_moved = *log_file != self.now.settings.log_file;
        if let Some(path) = log_file.as_deref().filter(|_| is_moved)
            && let Err(error) = self.open_log(path)
        {
            return self.keep(&error);
        }
        if let Err(error) = self.settings.change(&loaded.settings.config) {
            return self.keep(&error);
        }
        let before = std::mem::replace(&mut self.now, loaded);
        if !is_moved {
            self.reopen_log();
        }
        // What changes is told at the level that tells more, so that it is told.
        let level = before.settings.log_level.max(self.now.settings.log_level);
        self.log.set_level(level);
        for line in &changed {
            log::info!(target: TARGET, "SIGHUP: {line}");
        }
        for line in &kept {
            log::warn!(target: TARGET, "SIGHUP: {line}");
        }
        if changed.is_empty() && kept.is_empty() {
            log::info!(target: TARGET, "SIGHUP: the settings have not changed");
        }
        let configs = (&before.settings.config, &self.now.settings.config);
        for line in new_shortages(configs, &self.listening, &self.machine) {
            log::warn!(target: TARGET, "{line}");
        }
        self.log.set_level(self.now.settings.log_level);
    }

    fn open_log(&self, path: &Path) -> Result<(), String> {
        let opened = self.log.reopen(path, FLUSH_TIMEOUT);
        opened.map_err(|error| format!("cannot open the log file {}: {error}", path.display()))
    }
}

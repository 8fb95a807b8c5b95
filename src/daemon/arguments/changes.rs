//! What another reading of the options has changed: which of it a running server takes, and what is told of each.
//!
//! Reads and changes nothing. Called by `reloading`, at SIGHUP.
//!
//! Invariant: what results is valid, and differs from what held only in options that can change.
//!
//! Next: `passed`: sockets that listen already.

use super::effective::{is_unset, without_password};
use super::given::Loaded;
use super::options::OPTIONS;
use super::row::{Live, Row};
use super::settings::Settings;
use super::usage::UsageError;

/// What is to hold from now on, and what is to be told.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) loaded: Loaded,
    /// A line for each option that changes.
    pub(crate) changed: Vec<String>,
    /// A line for each that would, if that were possible.
    pub(crate) kept: Vec<String>,
}

/// From what held to what was read now.
///
/// # Errors
///
/// What could change does not go together with what cannot.
pub(crate) fn changes(now: &Loaded, newer: Loaded) -> Result<Changes, UsageError> {
    let (mut changed, mut kept) = (Vec::new(), Vec::new());
    let settings = [&now.settings, &newer.settings];
    let mut given = Vec::with_capacity(OPTIONS.len());
    for (row, (old, new)) in OPTIONS.iter().zip(now.given.iter().zip(&newer.given)) {
        let [was, is] = settings.map(|settings| (row.show)(settings));
        if was == is {
            given.push(new.clone());
            continue;
        }
        let source = new.as_ref().map_or("the default", |given| &given.source);
        let [was, is] = [was, is].map(|shown| without_password(&shown));
        if can_change(row, settings) {
            changed.push(format!("--{} is {is} now ({source}); it was {was}", row.name));
            given.push(new.clone());
        } else {
            kept.push(format!("--{} stays {was}; {is} ({source}) needs a restart", row.name));
            given.push(old.clone());
        }
    }
    Ok(Changes { loaded: Loaded::new(given)?, changed, kept })
}

fn can_change(row: &Row, settings: [&Settings; 2]) -> bool {
    match row.live {
        Live::Yes => true,
        Live::No => false,
        Live::WhereSet => settings.iter().all(|settings| !is_unset(row, &(row.show)(settings))),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Command, parse};
    use super::*;

    fn loaded(args: &[&str], text: &str) -> Loaded {
        let args = [&["--config", "f"], args].concat();
        match parse(args.iter().map(OsString::from), std::iter::empty(), |_| Ok(text.to_owned())) {
            Ok(Command::Run(loaded)) => *loaded,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn told(args: &[&str], before: &str, after: &str) -> (Vec<String>, Vec<String>) {
        let Changes { changed, kept, .. } =
            changes(&loaded(args, before), loaded(args, after)).unwrap();
        (changed, kept)
    }

    #[test]
    fn each_change_is_told_with_its_place_and_what_was_before() {
        let (changed, kept) = told(
            &["--backlog", "7"],
            "log-level = 'info'\nlimit-per-ip = 1\nworkers = 1\nlimit-concurrency = 5",
            "\nlog-level = 'debug'\nworkers = 2\nbacklog = 9\nlimit-concurrency = 6",
        );
        assert_eq!(
            changed,
            [
                "--limit-concurrency is 6 now (f:5); it was 5",
                "--limit-per-ip is none now (the default); it was 1",
                "--log-level is debug now (f:2); it was info",
            ]
        );
        assert_eq!(kept, ["--workers stays 1; 2 (f:3) needs a restart"]);
        assert_eq!(told(&[], "port = 1", "# moved\nport = 1"), (vec![], vec![]));
    }

    #[test]
    fn what_can_be_replaced_is_not_switched_on_or_off() {
        for (before, after) in [("", "limit-concurrency = 1"), ("log-file = 'a'", "")] {
            let (changed, kept) = told(&[], before, after);
            assert_eq!((changed.len(), kept.len()), (0, 1), "{kept:?}");
        }
        let (changed, _) = told(&[], "log-file = 'a'", "log-file = 'b'");
        assert_eq!(changed, ["--log-file is b now (f:1); it was a"]);
    }

    #[test]
    fn what_cannot_change_is_kept_and_the_rest_is_taken() {
        let (before, after) = ("workers = 1\nport = 1", "workers = 2\nport = 2\npage = false");
        let first = loaded(&[], before);
        let Changes { loaded: second, .. } = changes(&first, loaded(&[], after)).unwrap();
        assert_eq!((second.settings.config.workers.get(), second.settings.port), (1, 1));
        assert!(!second.settings.config.page);
        // And the same again says the same of what is kept, and nothing else.
        let Changes { changed, kept, .. } = changes(&second, loaded(&[], after)).unwrap();
        assert_eq!((changed.len(), kept.len()), (0, 2));
    }

    /// Of the options that are settings of the library, those that it takes while it runs are those that
    /// are said to.
    #[test]
    fn the_library_takes_what_is_said_to_change() {
        let (before, after) = super::super::configured::two_of_all();
        let (before, after) = (loaded(&[], before).settings, loaded(&[], after).settings);
        let config = before.config.with_live_of(&after.config);
        let taken = Settings { config, ..before.clone() };
        for row in OPTIONS {
            let [was, wanted, is] = [&before, &after, &taken].map(|settings| (row.show)(settings));
            // These are no settings of the library.
            if ["config", "log-level", "log-file"].contains(&row.name) || was == wanted {
                continue;
            }
            let expected = if row.live == Live::No { was } else { wanted };
            assert_eq!(is, expected, "{}", row.name);
        }
    }
}

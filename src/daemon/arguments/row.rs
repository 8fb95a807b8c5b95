//! What an option is: its name, what follows it, what it sets, and whether a running server takes it anew.
//!
//! Types alone: which options there are, `options` says.
//!
//! Next: `ssl`: some of them.

use super::settings::Settings;
use super::values::words;

/// What the name of each variable begins with.
pub(super) const PREFIX: &str = "REVOLVE_";

/// What people write for yes and no, in unit files, compose files and charts.
pub(super) const TRUTHS: [(&str, bool); 8] = [
    ("true", true),
    ("false", false),
    ("yes", true),
    ("no", false),
    ("on", true),
    ("off", false),
    ("1", true),
    ("0", false),
];

/// A text that is no value of its option.
pub(super) struct NotAllowed;

/// Puts a value into its place, if the text was one.
pub(super) fn store<T>(place: &mut T, value: Option<T>) -> Result<(), NotAllowed> {
    *place = value.ok_or(NotAllowed)?;
    Ok(())
}

/// One option.
pub(super) struct Row {
    /// Heading in the help; rows of a group stand together.
    pub(super) group: &'static str,
    /// Without the dashes; the variable's name is made from it.
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    pub(super) about: &'static str,
    pub(super) live: Live,
    /// Puts a text into its place.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), NotAllowed>,
    pub(super) show: fn(&Settings) -> String,
}

/// Whether a running server takes a new value (on SIGHUP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Live {
    Yes,
    /// Another value in the place of a value: it is not switched on or off.
    WhereSet,
    No,
}

/// What follows an option.
pub(super) enum Takes {
    /// A value: its name in the help, and what ends the sentence "… is not".
    Value(&'static str, &'static str),
    /// The same, and each time that it is given adds to the times before.
    Values(&'static str, &'static str),
    /// One of these words.
    Word { of: &'static [&'static str] },
    /// `true` or `false`, as Uvicorn's has, or another of [`TRUTHS`]; alone it is true.
    Truth,
    /// Nothing: `--name` is true, `--no-name` is false. In the environment one of [`TRUTHS`].
    Nothing,
}

impl Row {
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase().replace('-', "_"))
    }

    pub(super) fn allowed(&self) -> String {
        match &self.takes {
            Takes::Value(_, allowed) | Takes::Values(_, allowed) => (*allowed).to_owned(),
            Takes::Word { of } => listed(of),
            Takes::Truth | Takes::Nothing => listed(&words(&TRUTHS)),
        }
    }

    pub(super) fn negation(&self) -> Option<String> {
        matches!(self.takes, Takes::Nothing).then(|| format!("--no-{}", self.name))
    }

    /// The left column of the help.
    pub(super) fn usage(&self) -> String {
        match &self.takes {
            Takes::Value(metavar, _) | Takes::Values(metavar, _) => {
                format!("--{} {metavar}", self.name)
            }
            Takes::Word { of } if of.len() > 2 => format!("--{} WORD", self.name),
            Takes::Word { of } => format!("--{} {}", self.name, of.join("|")),
            Takes::Truth => format!("--{} [true|false]", self.name),
            Takes::Nothing => format!("--{0}, --no-{0}", self.name),
        }
    }
}

/// `a, b or c`.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => words.concat(),
    }
}

//! What is said about the command line: the help, the version, and why a line cannot be followed.
//!
//! Texts only, drawn from the table of options. Prints nothing. Called by the files behind it, and by
//! `daemon/arguments/mod.rs`.
//!
//! Next: `completions`: what shells are told.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};

use super::options::OPTIONS;
use super::row::{PREFIX, Row, Takes, listed};
use super::settings::Settings;
use super::values::words;

/// Columns of the help, and where its right half begins.
pub(super) const WIDTH: usize = 80;
const COLUMN: usize = 28;

/// Something that can be asked for besides the options of the table.
pub(super) struct Other {
    pub(super) name: &'static str,
    pub(super) short: Option<&'static str>,
    /// Nothing, or one of these words.
    pub(super) takes: &'static [&'static str],
    pub(super) about: &'static str,
}

impl Other {
    const fn new(name: &'static str, about: &'static str) -> Other {
        Other { name, short: None, takes: &[], about }
    }
}

/// The shells that can be told what there is to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) const SHELLS: [(&str, Shell); 3] =
    [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

pub(super) static OTHERS: [Other; 6] = [
    Other { short: Some("-h"), ..Other::new("--help", "Print this") },
    Other { short: Some("-V"), ..Other::new("--version", "Print version, commit and features") },
    Other::new("--check-config", "Say what would be done, and do nothing of it"),
    Other::new("--print-config", "Print what holds and where it comes from, as TOML"),
    Other {
        takes: &words(&SHELLS),
        ..Other::new("--completions", "Print what a shell needs to complete options")
    },
    Other::new("--man", "Print the manual page: revolve --man | man -l -"),
];

/// What stands behind `store`, and before a directory.
pub(super) const COMMANDS: [(&str, &str); 2] = [
    ("check", "Say whether the store in DIR can be read"),
    ("dump", "Print its sessions, one JSON object a line"),
];

pub(super) fn help() -> String {
    let mut out = format!(
        "revolve {}: WebSocket sessions that count and resume, one event loop a core\n\n\
         Usage: revolve [OPTION]...\n       revolve store check|dump DIR\n",
        env!("CARGO_PKG_VERSION")
    );
    let defaults = Settings::default();
    for rows in OPTIONS.chunk_by(|a, b| a.group == b.group) {
        let _ = write!(out, "\n{}\n", rows[0].group);
        for row in rows {
            let words = match row.takes {
                Takes::Word { of } if of.len() > 2 => format!(": {}", listed(of)),
                _ => String::new(),
            };
            let about = format!("{}{words} [{}]", row.about, (row.show)(&defaults));
            push_entry(&mut out, &row.usage(), &about);
        }
    }
    out.push_str("\nOther\n");
    for Other { name, short, takes, about } in &OTHERS {
        let short = short.map_or(String::new(), |short| format!("{short}, "));
        let words = if takes.is_empty() { String::new() } else { format!(" {}", takes.join("|")) };
        push_entry(&mut out, &format!("{short}{name}{words}"), about);
    }
    for (command, about) in COMMANDS {
        push_entry(&mut out, &format!("store {command} DIR"), about);
    }
    out.push_str(
        "\nIn brackets: the default. SECS: seconds, fractions allowed. All of the above can\n\
         stand in the environment, as REVOLVE_WS_MAX_SIZE=65536, and what is on or off as\n\
         REVOLVE_PAGE=off, 0, no or false; a flag wins over it, and it over --config.\n\
         \n\
         Examples\n  \
           revolve                         (ws://127.0.0.1:8000/ws/chat/ counts messages)\n  \
           revolve --host 0.0.0.0 --session-ids issued --limit-concurrency 50000\n  \
           REVOLVE_LOG_FORMAT=json revolve --app echo --port 9001 --no-access-log\n",
    );
    out
}

/// The default of an option, where it is to be the same on all machines.
pub(super) fn default_of(row: &Row, defaults: &Settings) -> String {
    match row.name {
        // The number of cores is this machine's.
        "workers" => "one a core".to_owned(),
        _ => (row.show)(defaults),
    }
}

/// Which build this is: one line.
pub(super) fn version() -> String {
    let mut features = vec!["daemon"];
    features.extend(cfg!(feature = "deflate").then_some("deflate"));
    features.extend(cfg!(feature = "tls").then_some("tls"));
    // Set by build.rs, for a release.
    version_of(option_env!("BUILT_FROM_COMMIT"), &features)
}

pub(super) fn version_of(commit: Option<&str>, features: &[&str]) -> String {
    let commit = commit.map_or("no commit known".to_owned(), |commit| format!("commit {commit}"));
    let features = features.join(", ");
    format!("revolve {} ({commit}; features: {features})\n", env!("CARGO_PKG_VERSION"))
}

/// One option in the help; a long one has the left column's line to itself.
fn push_entry(out: &mut String, usage: &str, about: &str) {
    let mut line = format!("  {usage:<width$}", width = COLUMN - 2);
    if line.len() > COLUMN {
        let _ = writeln!(out, "{line}");
        line = " ".repeat(COLUMN);
    }
    for (index, word) in about.split(' ').enumerate() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = " ".repeat(COLUMN);
        } else if index > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// Why the command line cannot be followed: one line, without the program's name.
#[derive(Debug)]
pub(crate) struct UsageError(pub(super) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn bad_value(place: &str, value: &OsStr, allowed: &str) -> UsageError {
    UsageError(format!("{place}: {value:?} is not {allowed}"))
}

pub(super) fn unknown_option(typed: &str) -> UsageError {
    let known = OPTIONS.iter().flat_map(|row| [Some(format!("--{}", row.name)), row.negation()]);
    let known = known.flatten().chain(OTHERS.iter().map(|other| other.name.to_owned()));
    unknown("option", typed, nearest(typed, "--", known))
}

/// An option that a file has, at this place.
pub(super) fn unknown_key(place: &str, typed: &str) -> UsageError {
    let negated = OPTIONS.iter().find(|row| row.negation() == Some(format!("--{typed}")));
    let nearest = match negated {
        Some(row) => Some(row.name.to_owned()),
        None => nearest(typed, "", OPTIONS.iter().map(|row| row.name.to_owned())),
    };
    let UsageError(line) = unknown("option", typed, nearest);
    UsageError(format!("{place}: {line}"))
}

pub(super) fn unknown_variable(typed: &str) -> UsageError {
    let nearest = nearest(typed, PREFIX, OPTIONS.iter().map(Row::variable));
    unknown("environment variable", typed, nearest)
}

fn unknown(what: &str, typed: &str, nearest: Option<String>) -> UsageError {
    let hint = nearest.map_or(String::new(), |name| format!(" (did you mean {name}?)"));
    UsageError(format!("unknown {what} {}{hint}; see --help", typed.escape_debug()))
}

/// The known name that was probably meant: the one with the fewest typing errors, if they are
/// few, or one of which a part was typed.
fn nearest(typed: &str, prefix: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let core = typed.trim_start_matches(prefix);
    let part = |name: &String| core.len() >= 3 && name[prefix.len()..].contains(core);
    known
        .map(|name| (typing_errors(typed, &name), name))
        .filter(|(errors, name)| *errors <= 1 + core.len() / 4 || part(name))
        .min()
        .map(|(_, name)| name)
}

/// Letters to insert, delete or replace to get from one word to the other (Levenshtein), two
/// rows of the table at a time.
fn typing_errors(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut row = vec![index + 1];
        for (column, other) in to.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != *other);
            row.push(replaced.min(above[column + 1] + 1).min(row[column] + 1));
        }
        above = row;
    }
    above[to.len()]
}

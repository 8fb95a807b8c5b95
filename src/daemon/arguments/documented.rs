//! docs/options.md lists every option, and nothing else: a test.
//!
//! Reads the document; prints nothing. Knows an option's spelling, default and values from the table.

use std::collections::BTreeSet;

use super::options::OPTIONS;
use super::row::{Live, Row, Takes};
use super::settings::Settings;
use super::usage::{OTHERS, default_of};

/// The first three cells of an option's row in the document, and the heading above it.
fn documented(row: &Row, defaults: &Settings) -> String {
    let usage = row.usage().replace('|', "\\|");
    let default = default_of(row, defaults);
    let allowed = match row.takes {
        Takes::Nothing => "–".to_owned(),
        Takes::Value(..) | Takes::Values(..) | Takes::Word { .. } | Takes::Truth => row.allowed(),
    };
    format!("{}: | `{usage}` | {default} | {allowed} |", row.group)
}

#[test]
fn the_document_has_every_option_with_its_default_and_its_values_and_no_other() {
    let text = include_str!("../../../docs/options.md");
    let defaults = Settings::default();
    let wanted: Vec<String> = OPTIONS.iter().map(|row| documented(row, &defaults)).collect();
    let mut found = Vec::new();
    let mut heading = "";
    for line in text.lines() {
        if let Some(group) = line.strip_prefix("## ") {
            heading = group;
        }
        if line.starts_with("| `") {
            // An escaped pipe is a part of its cell.
            let ends: Vec<usize> = line
                .match_indices('|')
                .map(|(at, _)| at)
                .filter(|&at| at == 0 || !line[..at].ends_with('\\'))
                .collect();
            assert_eq!(ends.len(), 5, "four cells: {line}");
            found.push(format!("{heading}: {}", &line[..=ends[3]]));
            let meaning = line[ends[3] + 1..ends[4]].trim();
            assert!(!meaning.is_empty(), "what does it mean? {line}");
        }
    }
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    // Options that are mentioned elsewhere in the document are there.
    for (at, _) in text.match_indices("--") {
        let name: String =
            text[at + 2..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        let is_known = ["", "features"].contains(&name.as_str())
            || OTHERS.iter().any(|other| other.name.strip_prefix("--") == Some(&name))
            || name.chars().all(|c| c == '-')
            || OPTIONS
                .iter()
                .any(|row| row.name == name || row.negation() == Some(format!("--{name}")));
        assert!(is_known, "there is no --{name}");
    }
}

#[test]
fn the_options_that_change_while_it_runs_are_listed() {
    let text = include_str!("../../../docs/operations.md");
    let (_, list) = text.split_once("\nThese change: ").expect("a list");
    let list = list.split('.').next().unwrap_or_default();
    let listed: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let live = OPTIONS.iter().filter(|row| row.live != Live::No);
    let live: Vec<String> = live.map(|row| format!("--{}", row.name)).collect();
    assert_eq!(listed, live.iter().map(String::as_str).collect());
    let (_, exceptions) = text.split_once("Of these\n").expect("a sentence");
    let exceptions = exceptions.split('.').next().unwrap_or_default();
    for row in OPTIONS {
        let is_there = exceptions.contains(&format!("`--{}`", row.name));
        assert_eq!(is_there, row.live == Live::WhereSet, "{}", row.name);
    }
}

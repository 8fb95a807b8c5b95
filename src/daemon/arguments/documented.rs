//! docs/options.md lists every option, and nothing else: a test.
//!
//! Reads the document; prints nothing. Knows an option's spelling, default and values from the table.

use super::options::OPTIONS;
use super::row::{Row, Takes};
use super::settings::Settings;

/// The first three cells of an option's row in the document, and the heading above it.
fn documented(row: &Row, defaults: &Settings) -> String {
    let usage = row.usage().replace('|', "\\|");
    // The number of cores is this machine's; the document says what it is the number of.
    let shown = (row.show)(defaults);
    let default = shown.rsplit(", ").next().unwrap_or_default();
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
        let is_known = ["", "help", "version", "features"].contains(&name.as_str())
            || name.chars().all(|c| c == '-')
            || OPTIONS
                .iter()
                .any(|row| row.name == name || row.negation() == Some(format!("--{name}")));
        assert!(is_known, "there is no --{name}");
    }
}

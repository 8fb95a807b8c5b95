//! What holds of each option and where it comes from, as a file that `--config` reads again: `--print-config`.
//!
//! Passwords in URLs are hidden. Prints nothing itself. Called by `daemon/arguments/mod.rs`.
//!
//! Next: `changes`: what another reading has changed.

use std::fmt::Write as _;

use super::given::{Given, Loaded};
use super::options::OPTIONS;
use super::row::{Row, Takes};

/// All options in their order. What was not given stands in a comment: read again it is the default again, which may be
/// this machine's, as the number of its cores.
pub(super) fn to_toml(loaded: &Loaded) -> String {
    let mut out = String::new();
    let mut group = "";
    for (row, given) in OPTIONS.iter().zip(&loaded.given) {
        if row.group != group {
            let _ = writeln!(out, "{}# {}", if group.is_empty() { "" } else { "\n" }, row.group);
            group = row.group;
        }
        let shown = (row.show)(&loaded.settings);
        let _ = match given {
            // A file cannot name another.
            Some(given) if row.name == "config" => {
                writeln!(out, "# config: {}, {}", quoted(&shown), given.source)
            }
            Some(given) => {
                writeln!(out, "{} = {}  # {}", row.name, value(row, given, shown), given.source)
            }
            None if matches!(row.takes, Takes::Truth | Takes::Nothing) => {
                writeln!(out, "# {} = {}  # default", row.name, is_on(&shown))
            }
            None if is_unset(row, &shown) => writeln!(out, "# {}: {shown}, default", row.name),
            None if is_number(row, &shown) => writeln!(out, "# {} = {shown}  # default", row.name),
            None => writeln!(out, "# {} = {}  # default", row.name, quoted(&shown)),
        };
    }
    out
}

/// The value of an option that was given, as TOML.
fn value(row: &Row, given: &Given, shown: String) -> String {
    match row.takes {
        Takes::Truth | Takes::Nothing => is_on(&shown).to_string(),
        Takes::Values(..) => {
            let texts = given.texts.iter().map(|text| quoted(&text.text.to_string_lossy()));
            format!("[{}]", texts.collect::<Vec<_>>().join(", "))
        }
        _ if is_number(row, &shown) => shown,
        _ => quoted(&shown),
    }
}

fn is_on(shown: &str) -> bool {
    matches!(shown, "true" | "on")
}

/// Whether it stands without quotes: a number, and not a word that an option of numbers takes too.
fn is_number(row: &Row, shown: &str) -> bool {
    matches!(row.takes, Takes::Value("N" | "SECS" | "BYTES" | "auto|SECS", _))
        && shown.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether what is shown is a word for there being none, and no value that one can set.
pub(super) fn is_unset(row: &Row, shown: &str) -> bool {
    !matches!(row.takes, Takes::Word { .. }) && matches!(shown, "none" | "any")
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let text = &without_password(text);
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `scheme://name:***@host`.
pub(super) fn without_password(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| matches!(c, '/' | '?' | '#' | ',') || c.is_whitespace());
        let (authority, behind) = after.split_at(end.unwrap_or(after.len()));
        match authority
            .rsplit_once('@')
            .and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
        {
            Some((user, host)) => out.push_str(&format!("{user}:***@{host}")),
            None => out.push_str(authority),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden_and_nothing_else_is() {
        for (text, shown) in [
            ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
            ("redis://:secret@host", "redis://:***@host"),
            ("a://u:p@w@h,b://u:p:q@h?x", "a://u:***@h,b://u:***@h?x"),
            ("https://example.com:8443/a:b@c", "https://example.com:8443/a:b@c"),
            ("redis://user@host", "redis://user@host"),
            ("file:/var/lib/a:b@c", "file:/var/lib/a:b@c"),
            ("", ""),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }

    #[test]
    fn a_text_is_quoted_as_toml_has_it() {
        assert_eq!(quoted("a\"b\\c\n\u{7f}é"), r#""a\"b\\c\u000A\u007Fé""#);
    }
}

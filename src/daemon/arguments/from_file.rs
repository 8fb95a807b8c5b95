//! From a file of options to what is given: a key is an option's name, and its value has the type of the option.
//!
//! What a value means is the table's, as with flags. Called by `daemon/arguments/mod.rs`, which has read the file.
//!
//! Invariant: an error names file and line.
//!
//! Next: `effective`: what holds, and where it comes from.

use std::ffi::OsString;
use std::path::Path;

use super::given::{Given, Text};
use super::options::OPTIONS;
use super::row::{Row, Takes};
use super::toml::{self, Entry, Scalar, Value};
use super::usage::{UsageError, unknown_key};

/// What the file of this path and text gives to each option.
///
/// # Errors
///
/// What is no TOML, no option, or of the wrong type.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Option<Given>>, UsageError> {
    let file = path.to_string_lossy();
    let file = file.escape_debug();
    let entries = toml::read(text)
        .map_err(|fault| UsageError(format!("{file}:{}: {}", fault.line, fault.why)))?;
    let mut given: Vec<Option<Given>> = OPTIONS.iter().map(|_| None).collect();
    for Entry { key, line, value } in entries {
        let source = format!("{file}:{line}");
        let Some(index) = OPTIONS.iter().position(|row| row.name == key) else {
            return Err(unknown_key(&source, &key));
        };
        let row = &OPTIONS[index];
        if row.name == "config" {
            return Err(UsageError(format!("{source}: config: a file cannot name another")));
        }
        let wrong = |line| UsageError(format!("{file}:{line}: {}: {}", row.name, expected(row)));
        let place = |line| format!("{file}:{line}: {}", row.name);
        let texts: Vec<Text> = match value {
            Value::One(scalar) => {
                let text = text_of(scalar, row, line).map_err(wrong)?;
                vec![Text { place: place(line), text: text.into() }]
            }
            Value::List(scalars) if allows(row).is_list => {
                let texts = scalars.into_iter().map(|(line, scalar)| {
                    let text = text_of(scalar, row, line).map_err(wrong)?;
                    Ok(Text { place: place(line), text: text.into() })
                });
                let texts = texts.collect::<Result<Vec<_>, UsageError>>()?;
                joined(texts, row, place(line))
            }
            Value::List(_) => return Err(wrong(line)),
        };
        // An empty array of what may be given several times is given no time.
        if !texts.is_empty() {
            given[index] = Some(Given { source, texts });
        }
    }
    Ok(given)
}

/// Types that a value of an option may have.
struct Allowed {
    text: bool,
    number: bool,
    truth: bool,
    is_list: bool,
}

/// What its option shows in the help decides: `N` and `SECS` are numbers.
fn allows(row: &Row) -> Allowed {
    let none = Allowed { text: false, number: false, truth: false, is_list: false };
    match row.takes {
        Takes::Truth | Takes::Nothing => Allowed { truth: true, ..none },
        // Some words are numbers.
        Takes::Word { of } => {
            let number = of.iter().any(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            Allowed { text: true, number, ..none }
        }
        Takes::Value("N" | "SECS" | "BYTES", _) => Allowed { number: true, ..none },
        Takes::Value("N[/SECS]" | "always|MS" | "auto|SECS", _) => {
            Allowed { text: true, number: true, ..none }
        }
        Takes::Value("LIST", _) => Allowed { text: true, is_list: true, ..none },
        Takes::Value(..) => Allowed { text: true, ..none },
        Takes::Values("N", _) => Allowed { text: true, number: true, is_list: true, ..none },
        Takes::Values(..) => Allowed { text: true, is_list: true, ..none },
    }
}

/// What the value has to be, for an error.
fn expected(row: &Row) -> String {
    let Allowed { text, number, truth, is_list } = allows(row);
    let one = match (text, number, truth) {
        (true, false, _) => "a text in quotes",
        (true, true, _) => "a number, or a text in quotes",
        (false, true, _) => "a number, without quotes",
        _ => "true or false, without quotes",
    };
    let several = if is_list { ", or an array of such" } else { "" };
    format!("the value has to be {one}{several}")
}

/// The text that a flag would have; the line, if the type is wrong.
fn text_of(scalar: Scalar, row: &Row, line: usize) -> Result<String, usize> {
    let allowed = allows(row);
    match scalar {
        Scalar::Text(text) if allowed.text => Ok(text),
        Scalar::Number(text) if allowed.number => Ok(text),
        Scalar::Truth(truth) if allowed.truth => Ok(truth.to_string()),
        _ => Err(line),
    }
}

/// Several texts stay so where a flag may be given several times; else they are the parts of one list.
fn joined(texts: Vec<Text>, row: &Row, place: String) -> Vec<Text> {
    if matches!(row.takes, Takes::Values(..)) {
        return texts;
    }
    let parts: Vec<OsString> = texts.into_iter().map(|text| text.text).collect();
    vec![Text { place, text: parts.join(",".as_ref()) }]
}

//! Text as a string of JSON.
//!
//! Makes no other JSON: what an application says is its own. Called by whoever writes JSON, applications too.
//!
//! Invariant: whatever the text is, what is written is one JSON string.
//!
//! Next: `value`: JSON that others wrote.

use std::fmt::{self, Write};

/// Writes a text as a JSON string, with its quotes (RFC 8259 7).
///
/// What a page of HTML could take for markup is escaped too, so a page that shows the JSON as HTML all the
/// same does not run it (CWE-79).
///
/// ```
/// use revolve::JsonString;
///
/// let name = "Ann \"the\nQueen\"";
/// let json = format!(r#"{{"name": {}}}"#, JsonString(name));
/// assert_eq!(json, r#"{"name": "Ann \"the\nQueen\""}"#);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct JsonString<'a>(pub &'a str);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                // These two must be escaped, and control characters.
                '"' | '\\' => {
                    f.write_char('\\')?;
                    f.write_char(c)?;
                }
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    write!(f, "\\u{:04x}", u32::from(c))?;
                }
                _ => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::JsonString;

    #[test]
    fn whatever_is_in_a_text_it_is_one_string_that_reads_as_the_text() {
        for text in ["", "ß", "a \"b\" \\ c", "\n\r\t\0\x1f\x7f", "</script>&", "\u{2028}\u{2029}𝄞"]
        {
            let json = JsonString(text).to_string();
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
            assert!(!json.contains(['<', '>', '&', '\n', '\u{2028}']), "{json}");
        }
    }
}

//! A Lua script and the name by which a server knows it: the SHA-1 of its text.
//!
//! A server forgets its scripts when it restarts, when it is told to (SCRIPT FLUSH), and when a replica takes over. Then
//! it answers NOSCRIPT, and has run nothing. One call alone is sent again with the text
//! ([`crate::resp::Connection::run`]). In a pipeline that would be wrong: what stands behind the call has been done by
//! then, a WAIT that was to wait for it, say. There the caller loads the scripts, and sends the whole pipeline again,
//! which must be safe to do.
//!
//! Invariant: the name is that of the text.
//!
//! Next: `pipeline`: commands on their way.

use std::fmt;

use sha1_smol::Sha1;

/// A script.
#[derive(Clone)]
pub struct Script {
    text: &'static str,
    name: Box<str>,
}

impl Script {
    /// The script with this text.
    #[must_use]
    pub fn new(text: &'static str) -> Script {
        Script { text, name: Sha1::from(text).digest().to_string().into() }
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &'static str {
        self.text
    }

    /// Its name: 40 hexadecimal digits.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.name)
    }
}

/// How a call names its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calling {
    /// EVALSHA: the server should know it.
    ByName,
    /// EVAL: with the text.
    WithText,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_the_sha1_of_its_text() {
        // What SCRIPT LOAD answers to these.
        for (text, name) in [
            ("return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
            ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ] {
            let script = Script::new(text);
            assert_eq!((script.name(), script.text()), (name, text));
            assert_eq!(format!("{script:?}"), format!("Script({name})"));
        }
    }
}

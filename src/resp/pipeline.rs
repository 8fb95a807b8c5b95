//! Commands on their way to a server, one behind the other.
//!
//! Sans-IO: bytes, and how many replies they will bring. A command is an array of strings, each with its length, so
//! nothing in it needs to be escaped. Called by `connection` and by whoever has commands for it.
//!
//! Invariant: each command says how many parts it has, and has them.
//!
//! Next: `address`: where the server is.

use std::fmt;
use std::io::Write;

use super::script::{Calling, Script};

/// Commands, encoded.
#[derive(Clone, Default)]
pub struct Pipeline {
    bytes: Vec<u8>,
    commands: usize,
    /// The parts of the command that is being written: how many there are is told before them.
    parts: Parts,
}

/// The parts of one command, in their order: its name, then its arguments.
#[derive(Clone, Default)]
pub struct Parts {
    bytes: Vec<u8>,
    count: usize,
}

impl Parts {
    /// Appends a part.
    pub fn add(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        header(&mut self.bytes, b'$', part.len());
        self.bytes.extend_from_slice(part);
        self.bytes.extend_from_slice(b"\r\n");
        self.count += 1;
    }

    /// Appends a number.
    pub fn add_number(&mut self, number: u64) {
        header(&mut self.bytes, b'$', number.checked_ilog10().map_or(1, |log| log as usize + 1));
        decimal(&mut self.bytes, number);
        self.bytes.extend_from_slice(b"\r\n");
        self.count += 1;
    }
}

impl Pipeline {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Pipeline {
        Pipeline::default()
    }

    /// Appends a command.
    pub fn push<P: AsRef<[u8]>>(&mut self, parts: impl IntoIterator<Item = P>) {
        self.push_with(|command| parts.into_iter().for_each(|part| command.add(part)));
    }

    /// Appends a command of which this writes the parts. One without parts would get no reply, so it is none.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Parts)) {
        self.parts.bytes.clear();
        self.parts.count = 0;
        write(&mut self.parts);
        if self.parts.count > 0 {
            header(&mut self.bytes, b'*', self.parts.count);
            self.bytes.extend_from_slice(&self.parts.bytes);
            self.commands += 1;
        }
    }

    /// Appends a call of a script with so many keys; this writes them, and behind them the arguments.
    pub fn push_script(
        &mut self,
        script: &Script,
        calling: Calling,
        keys: usize,
        write: impl FnOnce(&mut Parts),
    ) {
        self.push_with(|command| {
            match calling {
                Calling::ByName => {
                    command.add("EVALSHA");
                    command.add(script.name());
                }
                Calling::WithText => {
                    command.add("EVAL");
                    command.add(script.text());
                }
            }
            command.add_number(keys as u64);
            write(command);
        });
    }

    /// Appends a command that makes a script known.
    pub fn push_load(&mut self, script: &Script) {
        self.push(["SCRIPT", "LOAD", script.text()]);
    }

    /// Empties it; its storage stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.commands = 0;
    }

    /// How many commands there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commands
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// As they are sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Pipeline {
    /// Without the content: it may have a password, or sessions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({} commands, {} bytes)", self.commands, self.bytes.len())
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({}, {} bytes)", self.count, self.bytes.len())
    }
}

fn header(bytes: &mut Vec<u8>, kind: u8, count: usize) {
    bytes.push(kind);
    decimal(bytes, count as u64);
    bytes.extend_from_slice(b"\r\n");
}

fn decimal(bytes: &mut Vec<u8>, number: u64) {
    // A vector takes all that is written.
    let _ = write!(bytes, "{number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_strings() {
        let mut pipeline = Pipeline::new();
        pipeline.push(["GET", "a"]);
        pipeline.push([&b"SET"[..], b"\r\n\x00", b""]);
        pipeline.push_with(|command| {
            command.add("EXPIRE");
            command.add_number(u64::MAX);
        });
        let first = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
        let second = "*3\r\n$3\r\nSET\r\n$3\r\n\r\n\x00\r\n$0\r\n\r\n";
        let third = "*2\r\n$6\r\nEXPIRE\r\n$20\r\n18446744073709551615\r\n";
        assert_eq!(pipeline.as_bytes(), [first, second, third].concat().as_bytes());
        assert_eq!((pipeline.len(), pipeline.is_empty()), (3, false));
        pipeline.clear();
        assert_eq!((pipeline.len(), pipeline.as_bytes(), pipeline.is_empty()), (0, &b""[..], true));
    }

    #[test]
    fn no_parts_are_no_command() {
        let mut pipeline = Pipeline::new();
        pipeline.push::<&str>([]);
        pipeline.push_with(|_| {});
        assert!(pipeline.is_empty() && pipeline.as_bytes().is_empty());
    }

    #[test]
    fn a_script_is_called_by_name_or_with_its_text() {
        let script = Script::new("return 1");
        let mut pipeline = Pipeline::new();
        for calling in [Calling::ByName, Calling::WithText] {
            pipeline.push_script(&script, calling, 1, |call| {
                call.add("key");
                call.add("argument");
            });
        }
        pipeline.push_load(&script);
        let rest = "$1\r\n1\r\n$3\r\nkey\r\n$8\r\nargument\r\n";
        let by_name = format!("*5\r\n$7\r\nEVALSHA\r\n$40\r\n{}\r\n{rest}", script.name());
        let with_text = format!("*5\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n{rest}");
        let load = "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n";
        assert_eq!(pipeline.as_bytes(), [&by_name, &with_text, load].concat().as_bytes());
        assert_eq!(pipeline.len(), 3);
    }

    #[test]
    fn what_is_sent_is_not_shown() {
        let mut pipeline = Pipeline::new();
        pipeline.push(["AUTH", "hunter2"]);
        assert_eq!(format!("{pipeline:?}"), "Pipeline(1 commands, 27 bytes)");
        assert!(!format!("{:?}", pipeline.parts).contains("hunter2"));
    }
}

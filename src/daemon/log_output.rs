//! Where the log goes: stderr, or a file, which can be opened anew.
//!
//! Buffers nothing: what is written is the system's. Called by `logger`, on its writer thread.
//!
//! Invariant: a file that cannot be opened leaves the one that is open.
//!
//! Next: `logger`: where all lines of the log go.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Stderr, Write};
use std::path::{Path, PathBuf};

/// What the log's writer asks of it.
pub(crate) trait Output: Write + fmt::Display {
    /// Whether it is the terminal's, or a supervisor's.
    fn is_stderr(&self) -> bool;

    /// Opens the file of this path, and writes there from now on.
    fn reopen(&mut self, path: PathBuf) -> io::Result<()>;

    /// A line could not be written.
    fn note_failure(&mut self, error: &io::Error);
}

/// Where the log of the program goes.
#[derive(Debug)]
pub(crate) enum LogOutput {
    Stderr(Stderr),
    File {
        file: File,
        path: PathBuf,
        /// Whether stderr was told that it takes nothing.
        is_told: bool,
    },
}

impl LogOutput {
    /// The file of this path, behind what is in it; or stderr.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<LogOutput> {
        let Some(path) = path else { return Ok(LogOutput::Stderr(io::stderr())) };
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(LogOutput::File { file, path: path.to_owned(), is_told: false })
    }
}

impl Output for LogOutput {
    fn is_stderr(&self) -> bool {
        matches!(self, LogOutput::Stderr(_))
    }

    fn reopen(&mut self, path: PathBuf) -> io::Result<()> {
        *self = LogOutput::open(Some(&path))?;
        Ok(())
    }

    /// The log cannot tell that it cannot be written, so stderr does: once, until something was written again.
    fn note_failure(&mut self, error: &io::Error) {
        if let LogOutput::File { is_told, .. } = self
            && !std::mem::replace(is_told, true)
        {
            let _ = writeln!(io::stderr(), "revolve: cannot write to {self}: {error}");
        }
    }
}

impl fmt::Display for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogOutput::Stderr(_) => f.write_str("stderr"),
            LogOutput::File { path, .. } => write!(f, "the log file {}", path.display()),
        }
    }
}

impl Write for LogOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            LogOutput::Stderr(stderr) => stderr.write(bytes),
            LogOutput::File { file, is_told, .. } => {
                let written = file.write(bytes)?;
                *is_told = false;
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            LogOutput::Stderr(stderr) => stderr.flush(),
            LogOutput::File { file, .. } => file.flush(),
        }
    }
}

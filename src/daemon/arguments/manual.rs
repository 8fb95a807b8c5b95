//! The manual page: `--man`, in roff, as man(7) has it.
//!
//! Drawn from the table of options; only what no option says stands here. Without a date: it would be this machine's
//! clock's, or grow old. Prints nothing. Called by `daemon/arguments/mod.rs`.
//!
//! Next: `given`: what was given for each option.

use std::fmt::Write as _;

use super::options::OPTIONS;
use super::row::{Live, PREFIX, Row, Takes};
use super::settings::Settings;
use super::usage::{COMMANDS, OTHERS, default_of};

/// Above the options.
const BEFORE: &str = r#".SH NAME
revolve \- WebSocket sessions that count and resume, one event loop a core
.SH SYNOPSIS
.B revolve
.RI [ OPTION ]...
.br
.B revolve store check
.I DIR
.br
.B revolve store dump
.I DIR
.SH DESCRIPTION
.B revolve
serves WebSockets.
Each core runs one event loop, and the loops share nothing.
Each message is answered with the running count of its session.
A client that reconnects with its session id finds its count again.
.PP
Without options it listens on 127.0.0.1, port 8000, and its WebSocket is at /ws/chat/.
On the same port are /healthz, /readyz, /metrics and, for this machine alone, a live page at /.
It logs to standard error and stays in the foreground.
.SH OPTIONS
Every option can also be set in the environment, and in a file that
.B \-\-config
names.
An option on the command line wins over the environment, and the environment over the file.
.I SECS
are seconds, and may have fractions.
"#;

/// Behind them.
const AFTER: &str = r#".SH SIGNALS
.TP
.B SIGTERM\fR, \fBSIGINT
Drain: every client is told to leave (1001), and the server ends when all have left or
.B \-\-timeout\-graceful\-shutdown
is over.
A second one ends the process at once.
.TP
.B SIGHUP
Read the file of options again, and take what a running server can take;
open the log file and load the certificates anew.
.SH EXIT STATUS
.TP
.B 0
It has served and drained, or printed what was asked for.
.TP
.B 1
The environment does not allow it, such as a port that is in use, or a store or a reactor has failed.
.TP
.B 2
An option, a variable or the file of options is wrong.
.TP
.BI 128+ n
Ended by a second signal
.IR n .
.SH EXAMPLES
Count messages on all addresses, under ids that clients cannot choose:
.PP
.RS
.EX
revolve \-\-host 0.0.0.0 \-\-session\-ids issued \-\-limit\-concurrency 50000
.EE
.RE
.PP
Keep sessions across restarts:
.PP
.RS
.EX
revolve \-\-store file:/var/lib/revolve
.EE
.RE
.PP
Say what a file of options would do, and do nothing of it:
.PP
.RS
.EX
revolve \-\-config /etc/revolve/revolve.toml \-\-check\-config
.EE
.RE
"#;

/// All of it.
pub(super) fn page() -> String {
    let mut out = format!(".TH REVOLVE 1 \"\" \"revolve {}\"\n", env!("CARGO_PKG_VERSION"));
    out.push_str(BEFORE);
    let defaults = Settings::default();
    for rows in OPTIONS.chunk_by(|a, b| a.group == b.group) {
        let _ = writeln!(out, ".SS {}", rows[0].group);
        rows.iter().for_each(|row| push_option(&mut out, row, &defaults));
    }
    out.push_str(".SS Other\n");
    for other in &OTHERS {
        let spellings: Vec<String> =
            other.short.into_iter().chain([other.name]).map(bold).collect();
        let words = match other.takes {
            [] => String::new(),
            words => {
                format!(" {}", words.iter().map(|word| bold(word)).collect::<Vec<_>>().join("|"))
            }
        };
        push_entry(&mut out, &format!("{}{words}", spellings.join(", ")), &[sentence(other.about)]);
    }
    out.push_str(".SH COMMANDS\n");
    for (command, about) in COMMANDS {
        let usage = format!("{} {}", bold(&format!("store {command}")), italic("DIR"));
        push_entry(&mut out, &usage, &[sentence(about)]);
    }
    let _ = writeln!(
        out,
        ".SH ENVIRONMENT\n.TP\n{}\nEach option, by its name in capitals with \\(lq_\\(rq for \\(lq\\-\\(rq:\n{} is {}.\n\
         For what is on or off the value is true or false, yes or no, on or off, 1 or 0.\n\
         An empty variable counts as unset.",
        bold(&format!("{PREFIX}...")),
        bold("--ws-max-size 65536"),
        bold("REVOLVE_WS_MAX_SIZE=65536"),
    );
    out.push_str(AFTER);
    out
}

fn push_option(out: &mut String, row: &Row, defaults: &Settings) {
    let plain = format!("--{}", row.name);
    let usage = match row.takes {
        Takes::Value(of, _) | Takes::Values(of, _) => format!("{} {}", bold(&plain), italic(of)),
        Takes::Word { of } => {
            let words: Vec<String> = of.iter().map(|word| bold(word)).collect();
            format!("{} {}", bold(&plain), words.join("|"))
        }
        Takes::Truth => format!("{} [{}|{}]", bold(&plain), bold("true"), bold("false")),
        Takes::Nothing => format!("{}, {}", bold(&plain), bold(&format!("--no-{}", row.name))),
    };
    let mut texts = vec![sentence(row.about)];
    if let Takes::Value(_, allowed) | Takes::Values(_, allowed) = row.takes {
        texts.push(sentence(&format!("Value: {allowed}")));
    }
    texts.push(sentence(&format!("Default: {}", default_of(row, defaults))));
    match row.live {
        Live::Yes => texts.push("Changes at SIGHUP.".to_owned()),
        Live::WhereSet => texts.push("Changes at SIGHUP where it was set.".to_owned()),
        Live::No => {}
    }
    push_entry(out, &usage, &texts);
}

/// A term, and under it these sentences, a line each.
fn push_entry(out: &mut String, usage: &str, texts: &[String]) {
    let _ = writeln!(out, ".TP\n{usage}\n{}", texts.join("\n"));
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escaped(text))
}

/// With a full stop, as a line of text.
fn sentence(text: &str) -> String {
    let text = escaped(text);
    // A line that begins with one of these would be a request.
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{text}.")
}

/// What roff would take for its own: backslashes; hyphens, which it would break lines at and print as others; quotes and
/// accents, which it would print as others.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\(rs"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '^' => out.push_str("\\(ha"),
            '`' => out.push_str("\\(ga"),
            '~' => out.push_str("\\(ti"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_place_value_and_default() {
        let page = page();
        let defaults = Settings::default();
        for row in OPTIONS {
            let name = escaped(&format!("--{}", row.name));
            assert_eq!(page.matches(&format!("\n.TP\n\\fB{name}\\fR")).count(), 1, "{}", row.name);
            assert!(page.contains(&sentence(row.about)), "{}", row.name);
            let default = sentence(&format!("Default: {}", default_of(row, &defaults)));
            assert!(page.contains(&default), "{default}");
        }
        for row in OPTIONS.iter().filter_map(Row::negation) {
            assert!(page.contains(&bold(&row)), "{row}");
        }
    }

    #[test]
    fn nothing_of_it_is_this_machines() {
        let page = page();
        assert!(page.contains("Default: one a core."));
        assert!(page.is_ascii(), "a terminal may have no other letters");
    }

    #[test]
    fn what_roff_takes_for_its_own_is_escaped() {
        assert_eq!(escaped(r"a\b-c'd^`~"), r"a\(rsb\-c\(aqd\(ha\(ga\(ti");
        assert_eq!(sentence(".TH"), r"\&.TH.");
    }
}

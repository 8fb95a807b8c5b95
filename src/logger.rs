//! The process's logger: records of the `log` crate become lines on stderr, text or JSON.
//!
//! It limits no rate and chooses no words; the library does. `main.rs` installs it, once; the
//! `log` macros call it from any thread; one thread of its own writes.
//!
//! Invariant: only the writer thread touches stderr, so nothing that stderr does (a full pipe, a
//! closed one) reaches the thread that logs. A line is written whole, or it is counted as dropped.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// Lines that wait for the writer. 8192: the closing lines of a drain of some thousand
/// connections come in a few milliseconds, faster than a terminal takes them. The slots are under
/// one MiB.
const QUEUE_LINES: usize = 8192;

/// Bytes of one message, and of one value behind it; the rest is cut. It bounds what a stuck
/// stderr can hold in memory, at 8192 lines of it.
const TEXT_BYTES: usize = 4096;

/// Pause before a stderr in non-blocking mode (a shared terminal or pipe can be) is tried again.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// Time that a caller of [`log::Log::flush`] waits for the writer at most.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people: `2026-11-23T12:00:00.123Z INFO  [revolve] message key=value`.
    Text,
    /// For programs: one object a line.
    Json,
}

/// The way to the writer thread.
#[derive(Debug, Clone)]
pub(crate) struct LogQueue {
    mails: Sender<Mail>,
    dropped: Arc<AtomicU64>,
}

/// What the writer thread receives.
#[derive(Debug)]
enum Mail {
    Line(Line),
    /// Answered when everything before it is written.
    Flush(Sender<()>),
}

/// A record that owns what it says.
#[derive(Debug)]
struct Line {
    time: SystemTime,
    level: Level,
    target: Cow<'static, str>,
    /// As it was logged, but for its length; escaped by the writer.
    message: Cow<'static, str>,
    /// The key-values, already in the logger's format.
    fields: String,
}

/// Makes this logger the process's and starts its writer thread.
///
/// # Errors
///
/// No thread to be had, or the process has a logger.
pub(crate) fn install(level: LevelFilter, format: Format) -> io::Result<LogQueue> {
    let (mails, incoming) = bounded(QUEUE_LINES);
    let queue = LogQueue { mails, dropped: Arc::new(AtomicU64::new(0)) };
    let writer = Writer::new(io::stderr(), format, level, Arc::clone(&queue.dropped));
    thread::Builder::new().name("revolve-log".to_owned()).spawn(move || writer.run(&incoming))?;
    log::set_boxed_logger(Box::new(Logger { queue: queue.clone(), level, format }))
        .map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(queue)
}

/// From here on a panic is one error line of the log instead of several lines on stderr.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        // The writer panics only where simple_logger meets a stderr that failed. It catches that
        // and counts it; to log it would be to go round in a circle.
        if IS_WRITER.try_with(Cell::get).unwrap_or(false) {
            return;
        }
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        let thread = thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        match panic.location() {
            Some(place) => log::error!(thread; "panic at {place}: {text}"),
            None => log::error!(thread; "panic: {text}"),
        }
    }));
}

thread_local! {
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

impl LogQueue {
    /// The number of lines that were not written, as it stands and as it grows.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until all that was logged before is written, but no longer than `timeout`. False
    /// when that was not enough.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let (written, wait) = bounded(1);
        self.mails.send_deadline(Mail::Flush(written), deadline).is_ok()
            && wait.recv_deadline(deadline).is_ok()
    }

    /// Never waits: a line for which there is no room is counted and gone.
    fn offer(&self, line: Line) {
        if self.mails.try_send(Mail::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the `log` macros call.
#[derive(Debug)]
struct Logger {
    queue: LogQueue,
    level: LevelFilter,
    format: Format,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.queue.offer(Line::new(record, self.format));
        }
    }

    fn flush(&self) {
        self.queue.flush(FLUSH_TIMEOUT);
    }
}

impl Line {
    fn new(record: &Record<'_>, format: Format) -> Line {
        let message = match record.args().as_str() {
            Some(fixed) => Cow::Borrowed(fixed),
            None => Cow::Owned(Cut::from(record.args())),
        };
        // The macros' default target is the module's path, which lives as long as the program.
        let target = match record.module_path_static() {
            Some(path) if path == record.target() => Cow::Borrowed(path),
            _ => Cow::Owned(record.target().to_owned()),
        };
        let mut fields = Fields { text: String::new(), format };
        // `Fields` returns no error, and a source that does has lost its own values only.
        let _ = record.key_values().visit(&mut fields);
        let time = SystemTime::now();
        Line { time, level: record.level(), target, message, fields: fields.text }
    }
}

/// Formats up to [`TEXT_BYTES`] and stops the formatting there.
struct Cut(String);

impl Cut {
    fn from(value: &dyn fmt::Display) -> String {
        let mut cut = Cut(String::new());
        // The only errors are our own full stop and a `Display` that gives up: what there is stays.
        let _ = write!(cut, "{value}");
        cut.0
    }
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(room) = TEXT_BYTES.checked_sub(self.0.len()) else { return Err(fmt::Error) };
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        // Reaches over the limit in any case, so that nothing can follow it.
        self.0.push('…');
        self.0.extend(std::iter::repeat_n('.', TEXT_BYTES.saturating_sub(self.0.len())));
        Err(fmt::Error)
    }
}

/// Key-values behind a message: `,"key":1` or ` key=1`.
struct Fields {
    text: String,
    format: Format,
}

impl Fields {
    /// Numbers, booleans, null: the same in both formats.
    fn bare(&mut self, value: &dyn fmt::Display) -> Result<(), kv::Error> {
        // Writing to a String does not fail.
        let _ = write!(self.text, "{value}");
        Ok(())
    }

    fn string(&mut self, value: &dyn fmt::Display) -> Result<(), kv::Error> {
        let value = Cut::from(value);
        match self.format {
            Format::Json => push_json(&mut self.text, &value),
            Format::Text => push_value(&mut self.text, &value),
        }
        Ok(())
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let key = key.as_str();
        match self.format {
            Format::Json => {
                self.text.push(',');
                // An object has each key once, and these four are ours.
                let taken = matches!(key, "time" | "level" | "message" | "target");
                push_json(&mut self.text, &Cow::from(if taken { format!("{key}_") } else { key.to_owned() }));
                self.text.push(':');
            }
            Format::Text => {
                self.text.push(' ');
                push_escaped(&mut self.text, key);
                self.text.push('=');
            }
        }
        value.visit(self)
    }
}

impl VisitValue<'_> for Fields {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.string(&value)
    }
    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.bare(&"null")
    }
    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.bare(&value)
    }
    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.bare(&value)
    }
    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // JSON has no word for infinity or not-a-number.
        if value.is_finite() { self.bare(&value) } else { self.string(&value) }
    }
    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.bare(&value)
    }
    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.string(&value)
    }
}

/// The writer thread: everything that touches stderr.
struct Writer<W> {
    out: W,
    format: Format,
    level: LevelFilter,
    text: SimpleLogger,
    dropped: Arc<AtomicU64>,
    /// Drops that the log itself has told of.
    told: u64,
    /// True exactly when the last line was cut short; the next one then starts with a line feed.
    torn: bool,
    /// The line being built; kept for its memory.
    buffer: String,
}

impl<W: Write> Writer<W> {
    fn new(out: W, format: Format, level: LevelFilter, dropped: Arc<AtomicU64>) -> Self {
        let text = SimpleLogger::new().with_level(LevelFilter::Trace);
        Writer { out, format, level, text, dropped, told: 0, torn: false, buffer: String::new() }
    }

    fn run(mut self, mails: &Receiver<Mail>) {
        IS_WRITER.set(true);
        for mail in mails {
            match mail {
                Mail::Line(line) if self.write(&line).is_err() => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                // Told when stderr takes lines again and has caught up: once a jam, not once a line.
                Mail::Line(_) if mails.is_empty() => self.tell_drops(),
                Mail::Line(_) => {}
                Mail::Flush(written) => {
                    // A full or closed answer channel: who asked has stopped waiting.
                    let _ = written.try_send(());
                }
            }
        }
    }

    /// The hole in the log, said in the log.
    fn tell_drops(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let new = dropped.wrapping_sub(self.told);
        if new == 0 || self.level < LevelFilter::Warn {
            return;
        }
        let line = Line {
            time: SystemTime::now(),
            level: Level::Warn,
            target: Cow::Borrowed("revolve"),
            message: Cow::Owned(format!("{new} log lines dropped: stderr did not take them")),
            fields: String::new(),
        };
        if self.write(&line).is_ok() {
            self.told = dropped;
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        if self.torn {
            buffer.push('\n');
        }
        let done = match self.format {
            Format::Json => {
                push_json_line(&mut buffer, line);
                self.put(buffer.as_bytes())
            }
            Format::Text => self.write_text(&mut buffer, line),
        };
        // A rare long line must not keep its memory for ever.
        buffer.shrink_to(TEXT_BYTES);
        self.buffer = buffer;
        done
    }

    /// The time is ours, the rest is simple_logger's. Its `eprintln!` panics on an error: our own
    /// write of the time meets a closed stderr first, and what slips through is caught.
    fn write_text(&mut self, buffer: &mut String, line: &Line) -> io::Result<()> {
        let _ = write!(buffer, "{} ", humantime::format_rfc3339_millis(line.time));
        self.put(buffer.as_bytes())?;
        buffer.clear();
        push_escaped(buffer, &line.message);
        buffer.push_str(&line.fields);
        let text = &self.text;
        panic::catch_unwind(AssertUnwindSafe(|| {
            text.log(
                &Record::builder()
                    .level(line.level)
                    .target(&line.target)
                    .args(format_args!("{buffer}"))
                    .build(),
            );
        }))
        .map_err(|_| {
            self.torn = true;
            io::Error::other("stderr failed in the middle of a line")
        })
    }

    /// Writes all of it, waiting if it must: this thread may.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut begun = self.torn;
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => {
                    self.torn = begun;
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(written) => {
                    begun = true;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(WOULD_BLOCK_PAUSE);
                }
                Err(error) => {
                    self.torn = begun;
                    return Err(error);
                }
            }
        }
        self.torn = false;
        Ok(())
    }
}

/// `{"time":…,"level":…,"message":…,"target":…` and the key-values, closed and ended.
fn push_json_line(out: &mut String, line: &Line) {
    let time = humantime::format_rfc3339_micros(line.time);
    // Neither the time nor the level has anything to escape.
    let _ = write!(out, r#"{{"time":"{time}","level":"{}","message":"#, line.level);
    push_json(out, &line.message);
    out.push_str(r#","target":"#);
    push_json(out, &line.target);
    out.push_str(&line.fields);
    out.push_str("}\n");
}

/// Whether a character acts on a terminal or a line reader instead of being shown: C0, DEL, C1,
/// the Unicode line ends, and the overrides of the writing direction.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// For the eye: what steers is spelled out (`\n`, `\u{1b}`), all else stays, backslashes too,
/// because the library has escaped what came from a peer already.
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// A value in text: bare if it reads as one word, else in quotes, where a quote and a backslash
/// are escaped too; so a value cannot pass for another field.
fn push_value(out: &mut String, text: &str) {
    if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || steers(c)) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if steers(c) || matches!(c, '"' | '\\') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

/// A JSON string (RFC 8259 section 7). More is escaped than must be: a log is also read with `cat`.
fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All that steers lies below U+10000: four digits, no surrogates.
            c if steers(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

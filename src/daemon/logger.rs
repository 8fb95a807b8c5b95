//! The process's logger: records of the `log` crate become lines on stderr or in a file, text or JSON.
//!
//! It limits no rate and chooses no words; the library does. `main.rs` installs it, once; the
//! `log` macros call it from any thread; one thread of its own writes.
//!
//! Invariant: while the server runs, the writer thread alone touches what is logged to, so nothing that that
//! does (a full pipe, a closed one, a full disk) reaches the thread that logs. A line is written whole, or it is
//! counted as dropped.
//!
//! Next: `config_file`: where options may stand.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use revolve::wall_clock;
use simple_logger::SimpleLogger;

use super::log_output::{LogOutput, Output};

/// Lines that wait for the writer. 8192: the closing lines of a drain of some thousand
/// connections come in a few milliseconds, faster than a terminal takes them. The slots are under
/// one MiB.
const QUEUE_LINES: usize = 8192;

/// Bytes of one message, and of one value behind it; the rest is cut. So the messages that wait
/// for a stuck stderr hold at most 32 MiB, whatever peers send.
const TEXT_BYTES: usize = 4096;

/// Pause before a stderr in non-blocking mode (a shared terminal or pipe can be) is tried again.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// Whom the lines come from that no module of the library logs.
const TARGET: &str = "revolve";

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
    level: SharedLevel,
}

/// The least level that is logged; it may change.
#[derive(Debug, Clone)]
struct SharedLevel(Arc<AtomicUsize>);

impl SharedLevel {
    fn new(level: LevelFilter) -> SharedLevel {
        SharedLevel(Arc::new(AtomicUsize::new(level as usize)))
    }

    fn takes(&self, level: Level) -> bool {
        level as usize <= self.0.load(Ordering::Relaxed)
    }
}

/// How far the log was written when a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All that was logged before is written.
    All,
    /// The time was too short, or there is no writer any more.
    NotAll,
}

/// What the writer thread receives.
#[derive(Debug)]
enum Mail {
    Line(Line),
    /// Answered when everything before it is written.
    Flush(Sender<()>),
    /// To the file of this path from now on. Answered when it is open, or with why it is not.
    Reopen(PathBuf, Sender<io::Result<()>>),
}

/// A record that owns what it says.
#[derive(Debug)]
struct Line {
    /// From [`wall_clock`], so that it can be written.
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
pub(crate) fn install(
    level: LevelFilter,
    format: Format,
    output: LogOutput,
) -> io::Result<LogQueue> {
    let (mails, incoming) = bounded(QUEUE_LINES);
    let level_here = SharedLevel::new(level);
    let queue = LogQueue { mails, dropped: Arc::default(), level: level_here };
    let writer = Writer::new(output, format, &queue);
    thread::Builder::new().name("revolve-log".to_owned()).spawn(move || writer.run(&incoming))?;
    log::set_boxed_logger(Box::new(Logger { queue: queue.clone(), format }))
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
            Some(place) => log::error!(target: TARGET, thread; "panic at {place}: {text}"),
            None => log::error!(target: TARGET, thread; "panic: {text}"),
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

    /// Waits until all that was logged before is written, but no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) -> Flushed {
        let deadline = Instant::now() + timeout;
        let (written, wait) = bounded(1);
        let is_asked = self.mails.send_deadline(Mail::Flush(written), deadline).is_ok();
        match is_asked && wait.recv_deadline(deadline).is_ok() {
            true => Flushed::All,
            false => Flushed::NotAll,
        }
    }

    /// From now on this is the least level.
    pub(crate) fn set_level(&self, level: LevelFilter) {
        self.level.0.store(level as usize, Ordering::Relaxed);
        log::set_max_level(level);
    }

    /// Opens the file of this path, anew if it is open: what is logged from now on stands there, what was logged before
    /// where it was to be. Waits for that, but no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// Why it is not open. Then all stays as it is.
    pub(crate) fn reopen(&self, path: &Path, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let (opened, wait) = bounded(1);
        let mail = Mail::Reopen(path.to_owned(), opened);
        let is_asked = self.mails.send_deadline(mail, deadline).is_ok();
        match is_asked.then(|| wait.recv_deadline(deadline)) {
            Some(Ok(result)) => result,
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
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
    format: Format,
}

impl Log for Logger {
    /// Traces are revolve's own. What the crates below it trace, a line for every bit of a frame's
    /// header among it, would drown them.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = metadata.target().starts_with(TARGET);
        self.queue.level.takes(metadata.level()) && (is_ours || metadata.level() < Level::Trace)
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
        let time = wall_clock::now();
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
        self.0.push('…');
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
                match key {
                    "time" | "level" | "message" | "target" => {
                        push_json(&mut self.text, &format!("{key}_"));
                    }
                    _ => push_json(&mut self.text, key),
                }
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

/// The writer thread: everything that touches what is logged to.
struct Writer<W> {
    out: W,
    format: Format,
    level: SharedLevel,
    text: SimpleLogger,
    dropped: Arc<AtomicU64>,
    /// Drops that the log itself has told of.
    told: u64,
    /// True exactly when the last line was cut short; the next one then starts with a line feed.
    torn: bool,
    /// The line being built; kept for its memory.
    buffer: String,
}

impl<W: Output> Writer<W> {
    fn new(out: W, format: Format, queue: &LogQueue) -> Self {
        let text = SimpleLogger::new().with_level(LevelFilter::Trace);
        let (dropped, level) = (queue.dropped(), queue.level.clone());
        Writer { out, format, level, text, dropped, told: 0, torn: false, buffer: String::new() }
    }

    fn run(mut self, mails: &Receiver<Mail>) {
        IS_WRITER.set(true);
        for mail in mails {
            match mail {
                Mail::Line(line) => match self.write(&line) {
                    // Told when the output has caught up: once a jam, not once a line.
                    Ok(()) if mails.is_empty() => self.tell_drops(),
                    Ok(()) => {}
                    Err(error) => {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                        self.out.note_failure(&error);
                    }
                },
                // Who asked may have stopped waiting.
                Mail::Flush(written) => written.try_send(()).unwrap_or_default(),
                Mail::Reopen(path, opened) => {
                    let result = self.out.reopen(path);
                    // Another file begins with a line of its own.
                    self.torn &= result.is_err();
                    let _ = opened.try_send(result);
                }
            }
        }
    }

    /// The hole in the log, said in the log.
    fn tell_drops(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let new = dropped.wrapping_sub(self.told);
        if new == 0 || !self.level.takes(Level::Warn) {
            return;
        }
        let line = Line {
            time: wall_clock::now(),
            level: Level::Warn,
            target: Cow::Borrowed(TARGET),
            message: Cow::Owned(format!("{new} log lines dropped: {} did not take them", self.out)),
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
            Format::Text if self.out.is_stderr() => self.write_text(&mut buffer, line),
            Format::Text => {
                push_text_line(&mut buffer, line);
                self.put(buffer.as_bytes())
            }
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

/// As `simple_logger` writes it to stderr, behind the time.
fn push_text_line(out: &mut String, line: &Line) {
    let time = humantime::format_rfc3339_millis(line.time);
    let _ = write!(out, "{time} {:<5} [{}] ", line.level, line.target);
    push_escaped(out, &line.message);
    out.push_str(&line.fields);
    out.push('\n');
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Takes so many bytes, then fails in the way given, once; then takes all.
    struct Fails(Vec<u8>, usize, Option<io::ErrorKind>);

    impl Write for Fails {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = bytes.len().min(self.1.saturating_sub(self.0.len()));
            match self.2 {
                Some(_) if room > 0 => {
                    self.0.extend_from_slice(&bytes[..room]);
                    Ok(room)
                }
                Some(kind) => {
                    self.2 = None;
                    Err(kind.into())
                }
                None => {
                    self.0.extend_from_slice(bytes);
                    Ok(bytes.len())
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl fmt::Display for Fails {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the sink")
        }
    }

    impl Output for &mut Fails {
        fn is_stderr(&self) -> bool {
            false
        }
        fn reopen(&mut self, _: PathBuf) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn note_failure(&mut self, _: &io::Error) {}
    }

    fn line(message: &'static str) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_796_040_000_123_456),
            level: Level::Info,
            target: Cow::Borrowed("revolve"),
            message: Cow::Borrowed(message),
            fields: String::new(),
        }
    }

    fn json(line: &Line) -> String {
        let mut out = String::new();
        push_json_line(&mut out, line);
        out
    }

    fn logger(format: Format, lines: usize) -> (Logger, Receiver<Mail>) {
        let (mails, incoming) = bounded(lines);
        let level = SharedLevel::new(LevelFilter::Info);
        let queue = LogQueue { mails, dropped: Arc::default(), level };
        (Logger { queue, format }, incoming)
    }

    /// What becomes of one record on its way to the writer.
    fn fields(format: Format, pairs: &[(&str, Value<'_>)]) -> String {
        let record = Record::builder().args(format_args!("m")).key_values(&pairs).build();
        Line::new(&record, format).fields
    }

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        push_escaped(&mut out, text);
        out
    }

    #[test]
    fn a_json_line_is_one_object_with_time_level_message_target() {
        let expected = concat!(
            r#"{"time":"2026-11-30T12:00:00.123456Z","level":"INFO","#,
            r#""message":"two \"words\"","target":"revolve"}"#,
            "\n"
        );
        assert_eq!(json(&line("two \"words\"")), expected);
    }

    #[test]
    fn json_escapes_all_that_is_not_shown() {
        let mut out = String::new();
        push_json(
            &mut out,
            "\0\u{8}\t\n\r\u{1b}[31m\u{7f}\u{85}\u{9f}\u{2028}\u{2029}\u{202e}\\\" é😀",
        );
        assert_eq!(
            out,
            concat!(
                r#""\u0000\u0008\t\n\r\u001b[31m\u007f\u0085\u009f"#,
                r#"\u2028\u2029\u202e\\\" é😀""#
            )
        );
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            out.clear();
            push_json(&mut out, c.encode_utf8(&mut [0; 4]));
            assert!(!out.contains(|c: char| c.is_control()), "{out:?}");
        }
    }

    #[test]
    fn key_values_keep_their_type_in_json() {
        let pairs = [
            ("connection", Value::from(u64::MAX)),
            ("delta", Value::from(-3_i32)),
            ("seconds", Value::from(0.25)),
            ("rate", Value::from(f64::NAN)),
            ("resumed", Value::from(true)),
            ("session", Value::from("a\"b\n")),
            ("none", Value::null()),
            ("time", Value::from(1)),
            ("large", Value::from_display(&u128::MAX)),
        ];
        assert_eq!(
            fields(Format::Json, &pairs),
            concat!(
                r#","connection":18446744073709551615,"delta":-3,"seconds":0.25,"rate":"NaN""#,
                r#","resumed":true,"session":"a\"b\n","none":null,"time_":1"#,
                r#","large":"340282366920938463463374607431768211455""#
            )
        );
    }

    #[test]
    fn key_values_stand_behind_a_text_message_and_cannot_forge_another() {
        let pairs = [
            ("connection", Value::from(7)),
            ("path", Value::from("/ws/chat/?a=1\\u{1b}")),
            ("agent", Value::from("x code=1000 \"\\\u{1b}")),
            ("empty", Value::from("")),
        ];
        assert_eq!(
            fields(Format::Text, &pairs),
            concat!(
                r#" connection=7 path=/ws/chat/?a=1\u{1b}"#,
                r#" agent="x code=1000 \"\\\u{1b}" empty="""#
            )
        );
    }

    #[test]
    fn text_escapes_what_steers_a_terminal_and_leaves_backslashes() {
        assert_eq!(escaped("a\nb\u{1b}[2J\u{9b}\u{2029}"), r"a\nb\u{1b}[2J\u{9b}\u{2029}");
        assert_eq!(escaped(r"C:\x \u{1b} é"), r"C:\x \u{1b} é");
    }

    #[test]
    fn a_full_queue_counts_and_does_not_wait() {
        let (logger, incoming) = logger(Format::Text, 2);
        let begun = Instant::now();
        for _ in 0..5 {
            logger.log(&Record::builder().level(Level::Info).args(format_args!("m")).build());
        }
        let flushed = logger.queue.flush(Duration::from_millis(20));
        assert_eq!(flushed, Flushed::NotAll, "nobody writes");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(logger.queue.dropped().load(Ordering::Relaxed), 3);
        drop(incoming);
        logger.log(&Record::builder().level(Level::Info).args(format_args!("m")).build());
        assert_eq!(logger.queue.dropped().load(Ordering::Relaxed), 4);
        let flushed = logger.queue.flush(Duration::from_secs(60));
        assert_eq!(flushed, Flushed::NotAll, "nobody ever will");
    }

    #[test]
    fn a_record_below_the_level_goes_nowhere() {
        let (logger, incoming) = logger(Format::Text, 2);
        logger.log(&Record::builder().level(Level::Debug).args(format_args!("m")).build());
        assert!(incoming.is_empty());
    }

    #[test]
    fn a_message_is_cut_at_a_character() {
        for odd in ["", "x", "xx"] {
            let text = format!("{odd}{}", "€".repeat(TEXT_BYTES));
            let cut = Cut::from(&format_args!("{text}{text}"));
            assert!((TEXT_BYTES..TEXT_BYTES + 4).contains(&cut.len()), "{}", cut.len());
            assert!(cut.ends_with("€…") && text.starts_with(&cut[..cut.len() - 3]));
        }
        assert_eq!(Cut::from(&"x".repeat(TEXT_BYTES)).len(), TEXT_BYTES);
    }

    #[test]
    fn flush_waits_for_what_was_logged_before_it() {
        let (logger, incoming) = logger(Format::Json, 16);
        let sink = Box::leak(Box::new(Fails(Vec::new(), 0, None)));
        let writer = Writer::new(sink, Format::Json, &logger.queue);
        let thread = thread::spawn(move || writer.run(&incoming));
        logger.log(&Record::builder().level(Level::Info).args(format_args!("m")).build());
        assert_eq!(logger.queue.flush(Duration::from_secs(60)), Flushed::All);
        drop(logger);
        thread.join().expect("the writer ends with its queue");
    }

    #[test]
    fn a_failed_write_is_counted_told_once_and_does_not_tear_the_next_line() {
        let (logger, incoming) = logger(Format::Json, 16);
        for _ in 0..3 {
            logger.queue.offer(line("m"));
        }
        let dropped = logger.queue.dropped();
        let mut sink = Fails(Vec::new(), 9, Some(io::ErrorKind::BrokenPipe));
        let writer = Writer::new(&mut sink, Format::Json, &logger.queue);
        drop(logger);
        writer.run(&incoming);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        let written = String::from_utf8(sink.0).expect("UTF-8");
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[0], r#"{"time":""#);
        assert_eq!(format!("{}\n", lines[1]), json(&line("m")));
        assert_eq!(format!("{}\n", lines[2]), json(&line("m")));
        assert!(lines[3].contains(r#""message":"1 log lines dropped:"#), "{written}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_stderr_that_would_block_is_waited_for() {
        let mut sink = Fails(Vec::new(), 9, Some(io::ErrorKind::WouldBlock));
        let (logger, _incoming) = logger(Format::Json, 1);
        let mut writer = Writer::new(&mut sink, Format::Json, &logger.queue);
        assert!(writer.write(&line("m")).is_ok());
        assert_eq!(sink.0, json(&line("m")).into_bytes());
    }
    #[test]
    fn a_file_is_opened_anew_between_two_lines() {
        let directory = std::env::temp_dir().join(format!("revolve-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, rotated) = (directory.join("log"), directory.join("log.1"));
        let (logger, incoming) = logger(Format::Text, 64);
        let output = LogOutput::open(Some(&path)).unwrap();
        let writer = Writer::new(output, Format::Text, &logger.queue);
        let thread = thread::spawn(move || writer.run(&incoming));
        logger.queue.offer(line("one"));
        assert_eq!(logger.queue.flush(Duration::from_secs(60)), Flushed::All);
        std::fs::rename(&path, &rotated).unwrap();
        logger.queue.offer(line("two"));
        logger.queue.reopen(&path, Duration::from_secs(60)).unwrap();
        logger.queue.offer(line("three\nlines"));
        // What cannot be opened leaves the log where it is.
        let nowhere = logger.queue.reopen(&directory, Duration::from_secs(60));
        assert!(nowhere.is_err());
        logger.queue.offer(line("four"));
        drop(logger);
        thread.join().unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        let line = |text| format!("2026-11-30T12:00:00.123Z INFO  [revolve] {text}\n");
        assert_eq!(read(&rotated), line("one") + &line("two"));
        assert_eq!(read(&path), line("three\\nlines") + &line("four"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_level_can_change() {
        let (logger, incoming) = logger(Format::Text, 4);
        let debug = || {
            let record = Record::builder().level(Level::Debug).args(format_args!("m")).build();
            logger.log(&record);
            incoming.len()
        };
        assert_eq!(debug(), 0);
        logger.queue.set_level(LevelFilter::Debug);
        assert_eq!(debug(), 1);
        logger.queue.set_level(LevelFilter::Error);
        assert_eq!(debug(), 1);
    }
}

//! Captures what shards tell of their turns at trace level, on threads that listen.
//!
//! A process has one log, and a thread runs one test: so each hears its own world and no other.

use std::cell::RefCell;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// A shard, and a line.
type Tell = dyn FnMut(&str, &str);

struct Listener {
    /// Is told at once: the shard, and a line.
    tell: Box<Tell>,
    /// What nobody has taken yet.
    heard: Vec<String>,
}

struct TraceCapture;

impl Log for TraceCapture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_trace = metadata.level() == Level::Trace && metadata.target() == "revolve::turn";
        is_trace && LISTENER.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let shard = record.key_values().get("reactor".into()).map(|shard| shard.to_string());
        let line = record.args().to_string();
        LISTENER.with_borrow_mut(|listener| {
            if let Some(Listener { tell, heard }) = listener {
                tell(&shard.unwrap_or_default(), &line);
                heard.push(line);
            }
        });
    }

    fn flush(&self) {}
}

/// From here on this thread hears.
pub fn listen(tell: impl FnMut(&str, &str) + 'static) {
    // Whoever was first has set it.
    let _ = log::set_logger(&TraceCapture);
    log::set_max_level(LevelFilter::Trace);
    LISTENER.set(Some(Listener { tell: Box::new(tell), heard: Vec::new() }));
}

/// Nobody hears any more: a log that might be heard costs the other tests something.
pub fn stop() {
    log::set_max_level(LevelFilter::Off);
    LISTENER.set(None);
}

/// The lines since the last time; `None` if nobody listens.
pub fn take() -> Option<Vec<String>> {
    LISTENER.with_borrow_mut(|listener| {
        listener.as_mut().map(|listener| std::mem::take(&mut listener.heard))
    })
}

//! A server with a store on a real directory: what a restart finds, what keeps it from starting, and its end when the
//! store fails. Crashes are `tests/foreign`'s and `tests/simulation`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::{Running, TEXT, config, frame, get};
use revolve::{
    Application, Config, Context, Counter, Message, ReactorStart, SavedState, ServeError, Server,
    StoreLocation, StoreSync, check_store, dump_store,
};

/// A directory that goes with its test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("revolve-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn stored(&self, workers: usize) -> Config {
        Config { store: StoreLocation::File(self.0.clone()), ..config(workers) }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn count(number: u64) -> String {
    format!("{{\"count\": {number}}}")
}

#[test]
fn a_restart_finds_counts_with_any_number_of_workers() {
    let directory = Directory::new();
    let ids = ["ann", "bob", "cyd", "dan"];
    for (restart, workers) in [1, 4, 2, 3].into_iter().enumerate() {
        for sync in [StoreSync::Always, StoreSync::Every(Duration::from_millis(5))] {
            let store_sync = sync;
            let server = Running::counter(Config { store_sync, ..directory.stored(workers) });
            let before = 2 * restart as u64 + u64::from(sync != StoreSync::Always);
            for id in ids {
                let mut raw = server.open(&format!("session_id={id}"));
                raw.send(frame(TEXT, "hello"));
                assert_eq!(raw.text(), count(before + 1), "{id} with {workers} workers");
            }
            assert_eq!(server.shut_down().store_failure, None);
        }
    }
    let check = check_store(directory.path()).unwrap();
    assert!(!check.is_damaged() && check.sessions() == 4, "{check}");
    let mut lines = Vec::new();
    assert_eq!(dump_store(directory.path(), &mut lines).unwrap(), None);
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.matches("\"count\":8").count(), 4, "{lines}");
}

/// Keeps the last word of each session.
struct Words;

impl Application for Words {
    type Session = String;
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        if let Message::Text(word) = message {
            let before = std::mem::replace(cx.session_mut(), word.to_owned());
            cx.send_text(&before);
        }
    }

    fn save(word: &String) -> Option<SavedState> {
        assert_ne!(word, "panic", "planned");
        Some(SavedState { version: 3, bytes: word.clone().into_bytes() })
    }

    fn load(saved: &SavedState) -> String {
        assert_eq!(saved.version, 3);
        String::from_utf8(saved.bytes.clone()).unwrap()
    }
}

fn words(_: ReactorStart<Words>) -> Words {
    Words
}

#[test]
fn what_an_application_saves_comes_back_and_what_cannot_be_saved_begins_anew() {
    let directory = Directory::new();
    let say = |id: &str, word: &str| {
        let server = Running::new(directory.stored(2), words);
        let mut raw = server.open(&format!("session_id={id}"));
        raw.send(frame(TEXT, word));
        let before = raw.text();
        drop(raw);
        server.shut_down();
        before
    };
    assert_eq!(say("a", "one"), "");
    assert_eq!(say("a", "two"), "one");
    assert_eq!(say("a", &"x".repeat(65 << 10)), "two");
    assert_eq!(say("a", "three"), "", "it was too large");
    assert_eq!(say("a", "panic"), "three");
    assert_eq!(say("a", "four"), "");
    assert_eq!(say("a", "five"), "four");
}

#[test]
fn a_store_has_one_owner_and_what_keeps_it_from_opening_is_one_line() {
    let directory = Directory::new();
    let serve = |config: Config| {
        let error = Server::builder().config(config).serve(|_| Counter::new(None)).map(drop);
        let Err(ServeError::Store(error)) = error else { panic!("{error:?}") };
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line:?}");
        line
    };
    let server = Running::counter(directory.stored(2));
    let line = serve(directory.stored(1));
    assert!(line.contains("revolve.lock: another process has this store open"), "{line}");
    server.shut_down();
    let missing = directory.path().join("missing");
    let elsewhere = Config { store: StoreLocation::File(missing.clone()), ..config(1) };
    let line = serve(elsewhere);
    assert!(line.contains(missing.to_str().unwrap()) && line.contains("mkdir"), "{line}");
    // The end of the first has freed it.
    Running::counter(directory.stored(1)).shut_down();
}

#[test]
fn metrics_tell_of_the_store_where_there_is_one() {
    let directory = Directory::new();
    let server = Running::counter(directory.stored(2));
    let mut raw = server.open("session_id=ann");
    raw.send(frame(TEXT, "hello"));
    assert_eq!(raw.text(), count(1));
    server.wait_for("revolve_store_syncs_total", "", 1);
    server.wait_for("revolve_store_sessions_total", "", 1);
    assert!(server.metrics().contains("revolve_store_held_total{reactor=\"1\"}"));
    let mut probe = server.connect();
    probe.send(get("/readyz"));
    assert_eq!(probe.response().head.status, 200);
    server.shut_down();
    let server = Running::counter(config(2));
    assert!(!server.metrics().contains("revolve_store"));
    server.shut_down();
}

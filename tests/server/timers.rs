//! Timers of applications on a real reactor, and turns that take too long. What the wheel does to
//! the tick, and what becomes of timers when connections end, the simulation tests.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use super::client::{Running, config, eventually, get};
use revolve::{
    Application, Config, Context, HttpRequest, HttpResponse, Message, NoResponse, ReactorContext,
};

/// Answers each message a moment later, and tells all of the time of day.
struct Slowly;

const BEAT: u64 = u64::MAX;

impl Application for Slowly {
    type Session = Vec<String>;
    type Connection = ();

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        cx.set_timer(Duration::from_millis(20), BEAT).unwrap();
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        assert_eq!(key, BEAT);
        cx.send_text_to_all("beat");
        cx.set_timer(Duration::from_millis(20), BEAT).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let key = cx.session().len() as u64;
        cx.session_mut().push(text.to_owned());
        cx.set_timer(Duration::from_millis(30), key).unwrap();
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, key: u64) {
        let text = cx.session()[key as usize].clone();
        cx.send_text(&text);
        if text == "bye" {
            cx.close(4000, "as timed");
        }
    }
}

#[test]
fn timers_fire_on_a_reactor_that_has_nothing_else_to_do() {
    let server = Running::new(config(2), |_| Slowly);
    let mut raw = server.open("");
    for _ in 0..3 {
        assert_eq!(raw.text(), "beat");
    }
    raw.say("one");
    raw.say("two");
    raw.say("bye");
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let text = raw.text();
        if text != "beat" {
            answers.push(text);
        }
    }
    assert_eq!(answers, ["one", "two", "bye"]);
    assert_eq!(raw.close(), (4000, "as timed".to_owned()));
}

#[test]
fn a_turn_for_a_timer_alone_has_no_event() {
    let server = Running::new(config(1), |_| Slowly);
    // Beats only: this client is told of them, and says nothing.
    let mut raw = server.open("");
    for _ in 0..30 {
        assert_eq!(raw.text(), "beat");
    }
    let turns = server.metric("revolve_events_per_turn_bucket", r#"le="0""#);
    // One may come together with the upgrade.
    assert!(turns >= 25, "{turns} turns without an event");
}

// --- slow turns ------------------------------------------------------------------------------

/// Holds its reactor for as many milliseconds as it is told.
struct Rude;

impl Application for Rude {
    type Session = ();
    type Connection = ();

    fn on_request(
        &mut self,
        _: &mut ReactorContext<'_, Self>,
        _: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        thread::sleep(Duration::from_millis(80));
        Ok(HttpResponse::empty::<204>())
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        thread::sleep(Duration::from_millis(text.parse().unwrap()));
        cx.send_text(&cx.connection_id().to_string());
    }
}

/// Warnings of this process.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listening;

impl log::Log for Listening {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn listen() {
    // Whichever test comes first.
    let _ = log::set_logger(&Listening);
    log::set_max_level(log::LevelFilter::Warn);
}

#[test]
fn a_callback_that_blocks_is_counted_and_named() {
    listen();
    let config = Config { slow_turn: Some(Duration::from_millis(40)), ..config(1) };
    let server = Running::new(config, |_| Rude);
    let mut raw = server.open("");
    raw.say("80");
    let name = raw.text();
    // The log has the reactor in a field of its own.
    let (_, id) = name.split_once('/').unwrap();
    eventually("the slow turn is counted", || server.metric("revolve_slow_turns_total", "") > 0);
    let named = format!("on_message of connection {id} held the reactor for ");
    eventually("a name in the log", || {
        WARNINGS.lock().unwrap().iter().any(|line| line.contains(&named))
    });
    let longest = server.metrics();
    let longest = longest.lines().find(|line| line.starts_with("revolve_longest_turn_seconds{"));
    let seconds: f64 = longest.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(seconds >= 0.08, "{seconds}");
}

#[test]
fn a_plain_request_that_blocks_is_named_too() {
    listen();
    let config = Config { slow_turn: Some(Duration::from_millis(40)), ..config(1) };
    let server = Running::new(config, |_| Rude);
    let mut raw = server.connect();
    raw.send(get("/slow"));
    assert_eq!(raw.head().status, 204);
    eventually("a name in the log", || {
        let is_it = |line: &String| line.contains("on_request of connection ");
        WARNINGS.lock().unwrap().iter().any(is_it)
    });
}

// --- timers that panic -----------------------------------------------------------------------

/// Has two timers that panic at every beat: one is set anew before, the other would be after.
struct Stumbling;

const CAREFUL: u64 = 7001;
const CARELESS: u64 = 7002;

impl Application for Stumbling {
    type Session = ();
    type Connection = ();

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        for key in [CAREFUL, CARELESS] {
            cx.set_timer(Duration::from_millis(20), key).unwrap();
        }
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        if key == CAREFUL {
            cx.set_timer(Duration::from_millis(20), key).unwrap();
        }
        cx.send_text_to_all("beat");
        panic!("{key}, on purpose");
    }

    fn on_message(&mut self, _cx: &mut Context<'_, Self>, _message: Message<'_>) {}
}

#[test]
fn a_reactor_timer_that_panicked_is_set_again_or_reported_dead() {
    listen();
    let server = Running::new(config(1), |_| Stumbling);
    let mut raw = server.open("");
    for _ in 0..5 {
        assert_eq!(raw.text(), "beat", "the careful one goes on");
    }
    let said = |part: &str| {
        let warnings = WARNINGS.lock().unwrap();
        warnings.iter().filter(|line| line.starts_with(part)).count()
    };
    assert_eq!(said("timer 7002 of reactor 0 will not fire again"), 1);
    assert_eq!(said("timer 7001 of reactor 0"), 0);
}

//! The default application: each message is answered with its session's running count.
//!
//! Byte for byte what the Django service sends. It uses nothing that an embedder could not.
//!
//! Next: [`crate::apps::echo`], a shorter one.

use std::time::Duration;

use super::hello;
use crate::application::{
    Acceptance, Application, Context, Message, ReactorContext, Refusal, Upgrade,
};
use crate::wall_clock;

/// The key of its timer.
const HEARTBEAT: u64 = 0;

/// Counts messages, says goodbye on `quit`, and tells the time at every heartbeat.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    heartbeat: Option<Duration>,
}

impl Counter {
    /// With a heartbeat every so often, or none.
    #[must_use]
    pub fn new(heartbeat: Option<Duration>) -> Self {
        Counter { heartbeat }
    }
}

impl Application for Counter {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        hello::accept(upgrade)
    }

    #[inline]
    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        if let Message::Text(text) = message
            && is_quit(text)
        {
            cx.send_text_parts([
                r#"{"bye": true, "total": "#.into(),
                cx.count().into(),
                "}".into(),
            ]);
            cx.close(1000, "quit command received");
            return;
        }
        let count = cx.count_message();
        cx.send_text_parts([r#"{"count": "#.into(), count.into(), "}".into()]);
    }

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        self.await_heartbeat(cx);
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, _key: u64) {
        // First of all: whatever happens below, there is a next beat. From now and not from the beat
        // that was due: a reactor that was held up skips beats, it does not make up for them.
        self.await_heartbeat(cx);
        let time = humantime::format_rfc3339_micros(wall_clock::now()).to_string();
        // Python's `isoformat()` of a naive UTC time, which the Django service sends, has no Z.
        cx.send_text_to_all(&format!(r#"{{"ts": "{}"}}"#, time.trim_end_matches('Z')));
    }
}

impl Counter {
    fn await_heartbeat(self, cx: &mut ReactorContext<'_, Self>) {
        if let Some(interval) = self.heartbeat {
            // The only timer that it has, so there is room for it.
            let _ = cx.set_timer(interval, HEARTBEAT);
        }
    }
}

/// `quit`, trailing white space allowed: some clients send a line with its newline.
#[inline]
fn is_quit(text: &str) -> bool {
    text.starts_with("quit") && text.trim_end() == "quit"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quit_is_quit_with_white_space_behind_it_and_nothing_else() {
        for (text, expected) in [
            ("quit", true),
            ("quit\n", true),
            ("quit \r\n", true),
            (" quit", false),
            ("quits", false),
        ] {
            assert_eq!(is_quit(text), expected, "{text:?}");
        }
    }
}

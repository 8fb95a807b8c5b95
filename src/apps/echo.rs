//! The echo application: text and binary come back unchanged. The target for stress tools and
//! conformance suites.
//!
//! Next: [`crate::observe`]: how a server is looked at.

use crate::application::{Application, Context, Message};

/// Answers each message with itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Application for Echo {
    type Session = ();

    #[inline]
    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text(text) => cx.send_text(text),
            Message::Binary(bytes) => cx.send_binary(bytes),
        }
    }
}

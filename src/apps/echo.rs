//! The echo application: text and binary come back unchanged. The target for stress tools and
//! conformance suites.
//!
//! Next: [`crate::apps::tasks`], for what takes long.

use super::hello;
use crate::application::{Acceptance, Application, Context, Message, Refusal, Upgrade};

/// Answers each message with itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Application for Echo {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        hello::accept(upgrade)
    }

    #[inline]
    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text(text) => cx.send_text(text),
            Message::Binary(bytes) => cx.send_binary(bytes),
        }
    }
}

//! A connection that listens: messages that others publish.
//!
//! A connection that has subscribed can do nothing else in RESP2, so it is one of its own. What is published while it
//! is away is lost, and so is what a server drops because we read too slowly: whoever listens must be able to do
//! without. A server that is gone without a word is found out by PING only. Called by the threads of a store.
//!
//! Invariant: what is returned came in this order, and nothing between was left out while the connection lasted.
//!
//! Next: `evented`: the same for a thread with a poll.

use std::time::{Duration, Instant};

use super::address::ServerAddress;
use super::connection::{ConnectOptions, Connection};
use super::error::ConnectionError;
use super::pipeline::Pipeline;
use super::reply::Reply;

/// A connection that listens.
#[derive(Debug)]
pub struct Subscriber(Connection);

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It listens to this channel now: what is published from now on comes.
    Subscribed(Vec<u8>),
    /// It does not any more.
    Unsubscribed(Vec<u8>),
    /// Somebody has published this there.
    Message {
        /// Where.
        channel: Vec<u8>,
        /// What.
        payload: Vec<u8>,
    },
    /// The server is still there.
    Pong,
}

impl Subscriber {
    /// Connects, as [`Connection::connect`]. It listens to nothing yet.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn connect(
        address: &ServerAddress,
        options: &ConnectOptions,
    ) -> Result<Subscriber, ConnectionError> {
        Connection::connect(address, options).map(Subscriber)
    }

    /// Asks to listen to these. [`Event::Subscribed`] follows for each.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn subscribe<C: AsRef<[u8]>>(&mut self, channels: &[C]) -> Result<(), ConnectionError> {
        self.ask("SUBSCRIBE", channels)
    }

    /// Asks not to listen to these any more. [`Event::Unsubscribed`] follows for each.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn unsubscribe<C: AsRef<[u8]>>(&mut self, channels: &[C]) -> Result<(), ConnectionError> {
        self.ask("UNSUBSCRIBE", channels)
    }

    /// Asks whether the server is still there, once it listens to something. [`Event::Pong`] follows.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn ping(&mut self) -> Result<(), ConnectionError> {
        let mut pipeline = Pipeline::new();
        pipeline.push(["PING"]);
        self.0.send(&pipeline, Instant::now() + self.0.reply_timeout())
    }

    fn ask<C: AsRef<[u8]>>(&mut self, name: &str, channels: &[C]) -> Result<(), ConnectionError> {
        // Without channels UNSUBSCRIBE would mean all.
        if channels.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        pipeline.push_with(|command| {
            command.add(name);
            channels.iter().for_each(|channel| command.add(channel));
        });
        self.0.send(&pipeline, Instant::now() + self.0.reply_timeout())
    }

    /// What comes next; `None` if nothing does for so long.
    ///
    /// # Errors
    ///
    /// If the connection fails, or the server refuses what it was asked: then it is of no use.
    pub fn next_event(&mut self, wait: Duration) -> Result<Option<Event>, ConnectionError> {
        let Some(reply) = self.0.receive(Instant::now() + wait)? else { return Ok(None) };
        match reply {
            Reply::Error(error) => {
                self.0.failed(ConnectionError::Refused { command: "SUBSCRIBE", error })
            }
            // A server that we have not subscribed at yet answers PING as to anybody.
            Reply::Simple(word) if word == b"PONG" => Ok(Some(Event::Pong)),
            Reply::Array(elements) => match event(elements) {
                Some(event) => Ok(Some(event)),
                None => self.0.failed(ConnectionError::Unexpected),
            },
            _ => self.0.failed(ConnectionError::Unexpected),
        }
    }
}

/// What three strings mean: its kind, its channel, and the message or how many channels are left.
fn event(elements: Vec<Reply>) -> Option<Event> {
    let mut elements = elements.into_iter();
    let kind = string(elements.next()?)?;
    let channel = string(elements.next()?)?;
    let rest = elements.next();
    if elements.next().is_some() {
        return None;
    }
    match (kind.as_slice(), rest) {
        (b"message", Some(Reply::Bulk(payload))) => Some(Event::Message { channel, payload }),
        (b"subscribe", Some(Reply::Integer(_))) => Some(Event::Subscribed(channel)),
        (b"unsubscribe", Some(Reply::Integer(_))) => Some(Event::Unsubscribed(channel)),
        (b"pong", None) => Some(Event::Pong),
        _ => None,
    }
}

fn string(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Bulk(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::decoder::Decoder;

    fn event_of(bytes: &str) -> Option<Event> {
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(bytes.as_bytes());
        match decoder.next_reply() {
            Ok(Some(Reply::Array(elements))) => event(elements),
            other => panic!("{bytes:?}: {other:?}"),
        }
    }

    #[test]
    fn each_event_is_told_from_its_reply() {
        let channel = || b"ch".to_vec();
        for (bytes, expected) in [
            ("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", Event::Subscribed(channel())),
            ("*3\r\n$11\r\nunsubscribe\r\n$2\r\nch\r\n:0\r\n", Event::Unsubscribed(channel())),
            (
                "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nx\r\n",
                Event::Message { channel: channel(), payload: b"x".to_vec() },
            ),
            ("*2\r\n$4\r\npong\r\n$0\r\n\r\n", Event::Pong),
        ] {
            assert_eq!(event_of(bytes), Some(expected), "{bytes:?}");
        }
        for bytes in [
            "*0\r\n",
            "*1\r\n$4\r\npong\r\n",
            "*3\r\n$4\r\npong\r\n$0\r\n\r\n:1\r\n",
            "*2\r\n$7\r\nmessage\r\n$2\r\nch\r\n",
            "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n:1\r\n",
            "*3\r\n$7\r\nmessage\r\n:2\r\n$1\r\nx\r\n",
            "*3\r\n+message\r\n$2\r\nch\r\n$1\r\nx\r\n",
            "*4\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nx\r\n:1\r\n",
            "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$2\r\nch\r\n$1\r\nx\r\n",
        ] {
            assert_eq!(event_of(bytes), None, "{bytes:?}");
        }
    }
}

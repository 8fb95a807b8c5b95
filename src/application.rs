//! What runs on a reactor: the [`Application`] trait, and the [`Context`] through which it answers.
//!
//! A context writes replies straight into the cork and notes wishes (close, broadcast); the shard
//! grants them when the callback has returned. No callback ever gets hold of a connection or of
//! the loop, so nothing re-enters it. Called by the shard; implemented by `counter.rs`, `echo.rs`
//! and whoever embeds the server.
//!
//! Invariant: the cork only ever holds whole frames of ours.
//!
//! Next: [`crate::counter`], a whole one in forty lines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::protocol::deflate::Packing;
use crate::protocol::frame;
pub use crate::protocol::message::Message;
use crate::session::Session;
use crate::token::{ConnectionId, Peer};

/// The behaviour of a server. Each reactor makes a value of its own, on its own thread: state in
/// it needs no lock, is shared with nothing, and need not be `Send`.
///
/// A callback runs inside a turn: while it runs, no other connection of its reactor is served.
/// One that panics ends its own connection with 1011 and nothing else.
///
/// ```
/// use revolve::{Application, Context, Message};
///
/// struct Shout;
/// impl Application for Shout {
///     type Session = ();
///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
///         match message {
///             Message::Text(text) => cx.send_text(&text.to_uppercase()),
///             Message::Binary(_) => cx.close(1003, "text only, please"),
///         }
///     }
/// }
/// ```
pub trait Application: Sized + 'static {
    /// What a session holds besides its count. It outlives connections, for the session's time to
    /// live, and stays on its reactor.
    type Session: Default + 'static;

    /// A WebSocket has opened, or a session has come back ([`Context::is_resumed`]).
    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let _ = cx;
    }

    /// A message has arrived.
    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>);

    /// The WebSocket is over: exactly once for each `on_open`. What is sent from here goes nowhere.
    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        let _ = (cx, reason);
    }

    /// How often [`Self::on_tick`] is called; asked once, at the start.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }

    /// The interval has passed, on this reactor.
    fn on_tick(&mut self, cx: &mut ReactorContext<'_>, now: Instant) {
        let _ = (cx, now);
    }
}

/// Which side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The peer.
    Client,
    /// We.
    Server,
}

impl Side {
    /// What metrics and the log call it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseReason {
    /// The code of the first Close (RFC 6455 7.4); 1005 for one without a code, 1006 for a
    /// connection that was lost without any.
    pub code: u16,
    /// Who said it, or who was lost.
    pub side: Side,
}

/// A frame for many: encoded once, shared by all reactors.
pub(crate) type Broadcast = Arc<[u8]>;

/// What callbacks have asked for in this visit.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// The close asked for, if any.
    pub(crate) close: Option<(CloseCode, String)>,
    /// To every open connection of the server.
    pub(crate) to_all: Vec<Broadcast>,
    /// To every open connection of this reactor.
    pub(crate) to_reactor: Vec<Broadcast>,
}

/// One connection, as its application sees it for the length of a callback.
pub struct Context<'a, A: Application> {
    pub(crate) session: &'a mut Session<A::Session>,
    pub(crate) cork: &'a mut Vec<u8>,
    /// How to say things deflated, if that was agreed on.
    pub(crate) packing: Option<Packing<'a>>,
    pub(crate) wishes: &'a mut Wishes,
    pub(crate) connection: ConnectionId,
    pub(crate) peer: &'a Peer,
    pub(crate) is_resumed: bool,
}

impl<A: Application> Context<'_, A> {
    /// Sends a text message. It leaves with everything else that this readable event causes, in
    /// one write.
    #[inline]
    pub fn send_text(&mut self, text: &str) {
        self.send(Data::Text, text.as_bytes());
    }

    /// Sends the parts as one text message, without joining them first.
    #[inline(always)]
    pub fn send_text_parts<const N: usize>(&mut self, parts: [&str; N]) {
        if let Some(packing) = &mut self.packing {
            return packing.encode(Data::Text, &parts.map(str::as_bytes), self.cork);
        }
        let length = parts.iter().map(|part| part.len()).sum();
        frame::encode_header(OpCode::Data(Data::Text), length, self.cork);
        for part in parts {
            self.cork.extend_from_slice(part.as_bytes());
        }
    }

    /// Sends a binary message.
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send(Data::Binary, bytes);
    }

    #[inline]
    fn send(&mut self, kind: Data, payload: &[u8]) {
        match &mut self.packing {
            None => frame::encode(OpCode::Data(kind), payload, self.cork),
            Some(packing) => packing.encode(kind, &[payload], self.cork),
        }
    }

    /// Closes once what was sent before has left. Messages still to come are not delivered.
    ///
    /// `code` is one that RFC 6455 7.4 lets an endpoint send, 4000 to 4999 for your own; another
    /// becomes 1011. Of `reason` the first 123 bytes are sent.
    pub fn close(&mut self, code: u16, reason: &str) {
        let code = CloseCode::from(code);
        debug_assert!(code.is_allowed(), "a code that must not be sent");
        let code = if code.is_allowed() { code } else { CloseCode::Error };
        self.wishes.close.get_or_insert_with(|| (code, reason.to_owned()));
    }

    /// Sends a text message to every open connection of the server, this one included, each in
    /// the order of its reactor. Encoded once.
    pub fn broadcast_text(&mut self, text: &str) {
        self.wishes.to_all.push(encoded(Data::Text, text.as_bytes()));
    }

    /// Sends a binary message to every open connection of the server.
    pub fn broadcast_binary(&mut self, bytes: &[u8]) {
        self.wishes.to_all.push(encoded(Data::Binary, bytes));
    }

    /// Counts one message of the session, and returns the count. It survives the connection.
    #[inline]
    pub fn count_message(&mut self) -> u64 {
        self.session.count_message()
    }

    /// How many messages the session has counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.session.count()
    }

    /// The session's state.
    #[must_use]
    pub fn session(&self) -> &A::Session {
        self.session.state()
    }

    /// The session's state, to change: a session touched so is kept after the connection, as one
    /// that has counted is.
    pub fn session_mut(&mut self) -> &mut A::Session {
        self.session.state_mut()
    }

    /// The session's id. It is a secret: who knows it can take the session over.
    #[must_use]
    pub fn session_id(&self) -> String {
        self.session.id().text().as_str().to_owned()
    }

    /// Whether the session was there before this connection.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The peer's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        (*self.peer).into()
    }

    /// The connection's name, unique on its reactor: what the log calls it.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.connection
    }
}

/// A reactor, as its application sees it in [`Application::on_tick`].
pub struct ReactorContext<'a> {
    pub(crate) wishes: &'a mut Wishes,
    pub(crate) reactor: usize,
}

impl ReactorContext<'_> {
    /// Sends a text message to every open connection of this reactor: one encoding, and a slice
    /// of the connections a turn, so that the loop never stalls on it.
    pub fn send_text_to_all(&mut self, text: &str) {
        self.wishes.to_reactor.push(encoded(Data::Text, text.as_bytes()));
    }

    /// Sends a binary message to every open connection of this reactor.
    pub fn send_binary_to_all(&mut self, bytes: &[u8]) {
        self.wishes.to_reactor.push(encoded(Data::Binary, bytes));
    }

    /// Which reactor this is, from 0.
    #[must_use]
    pub fn reactor(&self) -> usize {
        self.reactor
    }
}

fn encoded(kind: Data, payload: &[u8]) -> Broadcast {
    let mut frame = Vec::with_capacity(frame::MAX_HEADER + payload.len());
    frame::encode(OpCode::Data(kind), payload, &mut frame);
    frame.into()
}

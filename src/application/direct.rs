//! What callbacks send to one other connection: a message, or a close.
//!
//! The connection is named, or the session for which one may speak; it may be on any reactor. Finds and
//! writes to nobody: it notes what is to be sent, and the shard sends it when the callback has returned.
//! Called by applications, through `Context` and `ReactorContext`.
//!
//! Invariant: a frame to one connection is encoded once, where it is sent.
//!
//! Next: `remote`: the same from other threads.

use std::collections::TryReserveError;

use tungstenite::protocol::frame::coding::{CloseCode, Data};

use super::{Application, Broadcast, Commands, Context, ReactorContext, encoded, sendable};
use crate::session::SessionId;
use crate::token::ConnectionId;

/// Whom a message, a close or a post is for: a connection, or whichever connection speaks for a session
/// when it gets there.
///
/// ```
/// use revolve::{Application, Context, Message, Recipient};
///
/// /// `ann:hello` says hello to the one who speaks for the session `ann`.
/// struct Whisper;
///
/// impl Application for Whisper {
///     type Session = ();
///     type Connection = ();
///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
///         match text.split_once(':') {
///             Some((session, words)) => cx.send_text_to(Recipient::session(session), words),
///             None => cx.send_text("to whom?"),
///         }
///     }
/// }
///
/// let server = revolve::testing::TestServer::new(|_| Whisper);
/// let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
/// bob.send_text("ann:hello");
/// assert_eq!(ann.text(), "hello");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(pub(crate) To);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    Connection(ConnectionId),
    Session(SessionId),
    /// A text that is no session's id.
    Nobody,
}

impl Recipient {
    /// Whoever speaks for the session with this id ([`Context::session_id`]) when it gets there: all of those
    /// who share it ([`crate::Acceptance::share`]). A text that is no session's id is nobody's.
    #[must_use]
    pub fn session(id: &str) -> Recipient {
        Recipient(SessionId::parse(id).map_or(To::Nobody, To::Session))
    }
}

impl From<ConnectionId> for Recipient {
    fn from(id: ConnectionId) -> Recipient {
        Recipient(To::Connection(id))
    }
}

/// What one connection is to be sent.
#[derive(Debug)]
pub struct Direct {
    pub(crate) to: Recipient,
    pub(crate) what: Directed,
}

/// A frame, or the end.
#[derive(Debug)]
pub(crate) enum Directed {
    Frame(Broadcast),
    Close(CloseCode, String),
}

impl<A: Application> Commands<A> {
    fn send_to(
        &mut self,
        to: Recipient,
        kind: Data,
        payload: &[u8],
    ) -> Result<(), TryReserveError> {
        let what = Directed::Frame(encoded(kind, payload)?);
        self.direct(Direct { to, what });
        Ok(())
    }

    fn close_other(&mut self, to: Recipient, code: u16, reason: &str) {
        let what = Directed::Close(sendable(code), reason.to_owned());
        self.direct(Direct { to, what });
    }

    fn direct(&mut self, direct: Direct) {
        self.directs.push(direct);
        self.has_outgoing = true;
    }
}

impl<A: Application> Context<'_, A> {
    /// Sends a text message to one connection, on whichever reactor it is: a [`ConnectionId`], or
    /// [`Recipient::session`].
    ///
    /// What one connection sends so to another arrives in its order, and at most once. If there is nobody
    /// (any more), it is dropped, and counted in `revolve_undelivered_total`. It may arrive before a
    /// broadcast that was made earlier. A peer for which more than [`Config::max_send_buffer`] waits gets 1008
    /// instead, as with a broadcast. If there is no memory for the message, it is not sent and *this* connection
    /// ends (1013).
    ///
    /// [`Config::max_send_buffer`]: crate::Config::max_send_buffer
    pub fn send_text_to(&mut self, to: impl Into<Recipient>, text: &str) {
        self.send_to(to.into(), Data::Text, text.as_bytes());
    }

    /// Sends a binary message to one connection, as [`Self::send_text_to`] does.
    pub fn send_binary_to(&mut self, to: impl Into<Recipient>, bytes: &[u8]) {
        self.send_to(to.into(), Data::Binary, bytes);
    }

    fn send_to(&mut self, to: Recipient, kind: Data, payload: &[u8]) {
        if self.commands.send_to(to, kind, payload).is_err() {
            self.run_out_of_memory();
        }
    }

    /// Closes one connection, on whichever reactor it is, behind what it has been sent so far. `code` and
    /// `reason` are as in [`Self::close`]. Its [`Application::on_close`] is called. If there is nobody, that
    /// is counted as a message for nobody is.
    pub fn close_other(&mut self, to: impl Into<Recipient>, code: u16, reason: &str) {
        self.commands.close_other(to.into(), code, reason);
    }
}

impl<A: Application> ReactorContext<'_, A> {
    /// Sends a text message to one connection, as [`Context::send_text_to`] does. If there is no memory for
    /// it, it is dropped, and the log says so.
    pub fn send_text_to(&mut self, to: impl Into<Recipient>, text: &str) {
        self.send_to(to.into(), Data::Text, text.as_bytes());
    }

    /// Sends a binary message to one connection.
    pub fn send_binary_to(&mut self, to: impl Into<Recipient>, bytes: &[u8]) {
        self.send_to(to.into(), Data::Binary, bytes);
    }

    fn send_to(&mut self, to: Recipient, kind: Data, payload: &[u8]) {
        if self.commands.send_to(to, kind, payload).is_err() {
            self.note_out_of_memory(payload.len());
        }
    }

    /// Closes one connection, as [`Context::close_other`] does.
    pub fn close_other(&mut self, to: impl Into<Recipient>, code: u16, reason: &str) {
        self.commands.close_other(to.into(), code, reason);
    }
}

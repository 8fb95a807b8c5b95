//! What is kept for each open connection on behalf of the application: its own state, and the request, if
//! it wants that.
//!
//! A connection for which nothing was asked has no entry, so an application that uses neither pays nothing.
//! Calls no callback. Asked through `Context`; emptied by the shard when a connection closes.
//!
//! Invariant: an entry is of an open connection.
//!
//! Next: `direct`: what is for one other connection.

use std::fmt;

use super::{Application, Context};
use crate::connection::by_slot::BySlot;
use crate::contained::Contained;
use crate::token::LocalId;

/// What a WebSocket was opened with ([`Context::request`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedRequest {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) subprotocol: Option<String>,
}

impl OpenedRequest {
    /// The path of the target, as sent: not decoded, and `..` is two dots.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands behind the first `?` of the target, as sent; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The subprotocol that was agreed on, if any was.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }
}

struct Entry<A: Application> {
    of: LocalId,
    state: Option<Contained<A::Connection>>,
    request: Option<Box<OpenedRequest>>,
}

/// What is kept for the connections of one reactor.
pub(crate) struct Kept<A: Application>(BySlot<Entry<A>>);

impl<A: Application> Default for Kept<A> {
    fn default() -> Self {
        Kept(BySlot::default())
    }
}

impl<A: Application> fmt::Debug for Kept<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("connections", &self.0.len()).finish_non_exhaustive()
    }
}

impl<A: Application> Kept<A> {
    fn entry(&mut self, id: LocalId) -> &mut Entry<A> {
        let new = || Entry { of: id, state: None, request: None };
        let entry = self.0.get_or_insert_with(id.index, new);
        debug_assert!(entry.of == id, "what was kept for the former connection is forgotten");
        entry
    }

    fn state_mut(&mut self, id: LocalId) -> &mut A::Connection {
        self.entry(id).state.get_or_insert_with(|| Contained::new(Default::default())).get_mut()
    }

    /// Keeps the request of a connection that is about to open.
    pub(crate) fn keep_request(&mut self, id: LocalId, request: Box<OpenedRequest>) {
        self.entry(id).request = Some(request);
    }

    /// Lets go of all that is kept for a connection, which has closed.
    #[inline]
    pub(crate) fn forget(&mut self, id: LocalId) {
        if !self.0.is_empty() && self.0.get(id.index).is_some_and(|entry| entry.of == id) {
            self.0.remove(id.index);
        }
    }

    /// The connections for which something is kept.
    pub(crate) fn connections(&self) -> impl Iterator<Item = LocalId> {
        self.0.iter().map(|(_, entry)| entry.of)
    }
}

impl<A: Application> Context<'_, A> {
    /// The connection's own state, beside that of its session: it begins as `Default` when it is first
    /// asked for, and is dropped behind [`Application::on_close`].
    ///
    /// ```
    /// use revolve::{Acceptance, Application, Context, Message, Refusal, Upgrade};
    ///
    /// /// Numbers the messages of each connection, and names its room.
    /// struct Rooms;
    ///
    /// #[derive(Default)]
    /// struct Seat {
    ///     room: String,
    ///     messages: u64,
    /// }
    ///
    /// impl Application for Rooms {
    ///     type Session = ();
    ///     type Connection = Seat;
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         let room = upgrade.parameter("room").unwrap_or_default().into_owned();
    ///         Ok(upgrade.accept().then(move |_, cx| cx.connection_mut().room = room))
    ///     }
    ///
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
    ///         let seat = cx.connection_mut();
    ///         seat.messages += 1;
    ///         let text = format!("{} in {}", seat.messages, seat.room);
    ///         cx.send_text(&text);
    ///     }
    /// }
    ///
    /// let server = revolve::testing::TestServer::new(|_| Rooms);
    /// let ann = server.connect("room=kitchen");
    /// ann.send_text("hello");
    /// assert_eq!(ann.text(), "1 in kitchen");
    /// ```
    pub fn connection_mut(&mut self) -> &mut A::Connection {
        self.commands.kept.state_mut(self.connection)
    }

    /// What the WebSocket was opened with: path, query and subprotocol. `None` unless the upgrade was
    /// accepted with [`crate::Acceptance::keep_request`].
    #[must_use]
    pub fn request(&self) -> Option<&OpenedRequest> {
        self.commands.kept.0.get(self.connection.index)?.request.as_deref()
    }
}

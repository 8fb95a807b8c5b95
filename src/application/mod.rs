//! What runs on a reactor: the [`Application`] trait, and the [`Context`] through which it answers.
//!
//! A context writes replies straight into the cork, the longest ones past it, and notes commands
//! (close, broadcast, timer); the shard applies them when the callback has returned, or when their
//! time has come. No callback ever gets hold of a connection or of the loop, so nothing re-enters
//! it. Called by the shard; implemented by `apps/` and by programs that embed the server. The parts
//! are `admission`, `jobs`, `direct`, `remote` and `timers`.
//!
//! Invariant: the cork only ever holds whole frames of ours.
//!
//! Next: `admission`: which upgrades are accepted. Then `jobs`, `direct`, `remote`, and `timers`.

mod admission;
mod direct;
mod jobs;
mod remote;
pub mod timers;

use std::collections::TryReserveError;
use std::fmt;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::application::timers::{ApplicationTimers, TooManyTimers};
use crate::config::Limits;
use crate::offload::PoolFull;
use crate::protocol::deflate::{DeflateWriter, Deflation};
use crate::protocol::frame;
pub use crate::protocol::message::Message;
use crate::session::{EndedSession, Session};
use crate::token::{ConnectionId, LocalId, Peer};
use crate::transport::Outlet;

pub use admission::{Acceptance, InvalidField, Refusal, Subprotocol, Upgrade};
pub(crate) use admission::{Answer, Deferred, ForUpgrade, Terms};
pub use direct::{Direct, Recipient};
pub(crate) use direct::{Directed, To};
pub(crate) use jobs::{Due, Jobs, Owner};
pub(crate) use remote::Post;
pub use remote::{Hosted, PostError, Posts, ReactorStart, Remote, Wake};

/// The behaviour of a server. Each reactor makes a value of its own, on its own thread: state in
/// it needs no lock, is shared with nothing, and need not be `Send`.
///
/// A callback runs inside a turn: while it runs, no other connection of its reactor is served. So
/// it must not wait for anything: what may take long goes to [`Context::offload`]. One that panics
/// ends its own connection with 1011 and nothing else.
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
    /// live, and stays on its reactor. A type of more than 16 KiB does not compile: put what is large into
    /// a `Box` or a `Vec`.
    type Session: Default + 'static;

    /// The reactor begins, before its first connection. What it does of its own accord starts here,
    /// with a timer.
    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        let _ = cx;
    }

    /// A client asks for a WebSocket: may it open, and in which subprotocol? Asked on the reactor that
    /// owns the session, before the 101, and before an older connection of the session is displaced.
    ///
    /// ```
    /// # use revolve::{Application, Context, Message};
    /// use revolve::{Acceptance, Refusal, Upgrade};
    ///
    /// struct Members;
    ///
    /// impl Application for Members {
    ///     type Session = Option<String>;
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         let name = match upgrade.cookie("member") {
    ///             Some(name) => name.to_owned(),
    ///             None => return Err(Refusal::new::<403>("members only")),
    ///         };
    ///         let owner = upgrade.session().and_then(Option::as_ref);
    ///         if owner.is_some_and(|owner| *owner != name) {
    ///             return Err(Refusal::new::<403>("somebody else's session"));
    ///         }
    ///         let subprotocol = upgrade.choose_subprotocol(&["chat.v2", "chat.v1"]);
    ///         Ok(upgrade
    ///             .accept()
    ///             .subprotocol(subprotocol)
    ///             .then(move |_, cx| *cx.session_mut() = Some(name)))
    ///     }
    /// #   fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The refusal, which is sent; the connection closes behind it.
    #[inline]
    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        Ok(upgrade.accept())
    }

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

    /// A timer of this connection is due ([`Context::set_timer`]).
    fn on_timer(&mut self, cx: &mut Context<'_, Self>, key: u64) {
        let _ = (cx, key);
    }

    /// A timer of this reactor is due ([`ReactorContext::set_timer`]). It is not set any more: a
    /// heartbeat sets it anew.
    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        let _ = (cx, key);
    }

    /// A session is no more: exactly once for each that ceases to be while the server runs, when nobody
    /// speaks for it any more and its id names it no longer. What was put elsewhere on its behalf (a place in
    /// a room, a row in a data base) can be let go of here. [`crate::SessionEnd`] has the reasons.
    ///
    /// Where a connection's close ends it, [`Self::on_close`] comes first. A takeover ends no session. One that
    /// a deferred upgrade waits for ([`Upgrade::defer`]) ends when that waits no more. Sessions that are there
    /// when the server ends, with or without a connection, are dropped without this call; a shutdown closes
    /// connections, so the call comes for those sessions that are not kept without one.
    ///
    /// Sessions whose time is over at one moment end a share in each turn ([`Limits::expiries_per_turn`]), and
    /// later if the reactor is congested. A panic in here is counted and logged, and ends nothing.
    ///
    /// ```
    /// use revolve::{Application, Context, EndedSession, Message, ReactorContext, SessionEnd};
    ///
    /// /// Says who is gone for good.
    /// struct Lobby;
    ///
    /// impl Application for Lobby {
    ///     type Session = String;
    ///
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         if let Message::Text(name) = message {
    ///             *cx.session_mut() = name.to_owned();
    ///         }
    ///     }
    ///
    ///     fn on_session_end(
    ///         &mut self,
    ///         cx: &mut ReactorContext<'_, Self>,
    ///         session: EndedSession<String>,
    ///     ) {
    ///         if session.reason() == SessionEnd::Expired {
    ///             cx.send_text_to_all(&format!("{} will not come back", session.state()));
    ///         }
    ///     }
    /// }
    ///
    /// # use revolve::Config;
    /// let config = Config { workers: std::num::NonZeroUsize::MIN, ..Config::default() };
    /// let ttl = config.session_ttl;
    /// let server = revolve::testing::TestServer::with_config(config, |_| Lobby);
    /// let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
    /// ann.send_text("Ann");
    /// ann.disconnect();
    /// server.advance(ttl + std::time::Duration::from_secs(2));
    /// assert_eq!(bob.text(), "Ann will not come back");
    /// ```
    #[inline]
    fn on_session_end(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        session: EndedSession<Self::Session>,
    ) {
        let _ = (cx, session);
    }
}

/// Tells of wrong use by the application, once each: it has a documented outcome, the same in all builds.
pub(crate) fn tell_misuse(told: &Once, what: fmt::Arguments<'_>) {
    told.call_once(|| log::error!("wrong use by the application, told once: {what}"));
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
    pub(crate) fn label(self) -> &'static str {
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

/// A message that is written as it is, past the cork, which it would more than half fill: 32 KiB. To
/// copy that costs as much as the write that is saved.
pub(crate) const LONG: usize = 32 << 10;

/// A frame for many: encoded once, shared by all reactors. (In a `Vec`, of which the allocation can
/// be refused; an `Arc` of bytes would copy them, too.)
pub(crate) type Broadcast = Arc<Vec<u8>>;

/// What callbacks have asked for and not yet been granted: a close when the callback has returned,
/// a broadcast in the same turn, a timer when its time has come, a job when it is done.
#[derive(Debug)]
pub(crate) struct Commands<A: Application> {
    /// Which reactor this is.
    reactor: usize,
    /// When this turn began.
    pub(crate) now: Instant,
    /// Set with `close` and with `forgets_session`, and when the connection waits for as many jobs as it may:
    /// then what was commanded is done before more is read from it.
    pub(crate) pause: bool,
    /// Set with `to_all` and `directs`, and when jobs wait to leave for the pool.
    pub(crate) has_outgoing: bool,
    /// The close asked for, if any.
    pub(crate) close: Option<(CloseCode, String)>,
    /// Whether the session of the connection is to be forgotten. It is, even if the callback panicked behind
    /// that.
    pub(crate) forgets_session: bool,
    /// To every open connection of the server.
    pub(crate) to_all: Vec<Broadcast>,
    /// To every open connection of this reactor.
    pub(crate) to_reactor: Vec<Broadcast>,
    /// To one connection each.
    pub(crate) directs: Vec<Direct>,
    /// The timers set.
    pub(crate) timers: ApplicationTimers,
    /// The jobs off-loaded.
    pub(crate) jobs: Jobs<A>,
    /// Bytes that have left past the cork in this turn, and are not counted yet.
    pub(crate) past_cork: u64,
    /// Set with `close`, if that is for want of memory.
    pub(crate) is_out_of_memory: bool,
}

impl<A: Application> Commands<A> {
    pub(crate) fn new(reactor: usize, now: Instant, limits: &Limits) -> Self {
        Commands {
            reactor,
            now,
            pause: false,
            has_outgoing: false,
            close: None,
            forgets_session: false,
            to_all: Vec::new(),
            to_reactor: Vec::new(),
            directs: Vec::new(),
            timers: ApplicationTimers::new(now, limits),
            jobs: Jobs::new(limits),
            past_cork: 0,
            is_out_of_memory: false,
        }
    }

    /// Forgets that a close was asked for: something else has ended the connection.
    pub(crate) fn forget_close(&mut self) {
        (self.close, self.pause, self.is_out_of_memory) = (None, false, false);
    }
}

/// One connection, as its application sees it for the length of a callback.
pub struct Context<'a, A: Application> {
    pub(crate) session: &'a mut Session<A::Session>,
    pub(crate) cork: &'a mut Vec<u8>,
    /// Where the longest messages leave past the cork; nowhere, when nothing can be said any more.
    pub(crate) outlet: Option<&'a mut dyn Outlet>,
    /// How to say things deflated, if that was agreed on.
    pub(crate) deflate_writer: Option<DeflateWriter<'a>>,
    pub(crate) commands: &'a mut Commands<A>,
    pub(crate) connection: LocalId,
    pub(crate) peer: &'a Peer,
    pub(crate) is_resumed: bool,
}

impl<A: Application> Context<'_, A> {
    /// Sends a text message. It leaves with everything else that this readable event causes, in
    /// one write; one of 32 KiB or more leaves at once, with what was said before it. If there is no
    /// memory for what the socket does not take, this connection ends (1013), and no other.
    #[inline]
    pub fn send_text(&mut self, text: &str) {
        self.send(Data::Text, text.as_bytes());
    }

    /// Sends the parts as one text message, without joining them first.
    #[inline(always)]
    pub fn send_text_parts<const N: usize>(&mut self, parts: [&str; N]) {
        let length = parts.iter().map(|part| part.len()).sum();
        if self.deflate_writer.is_some() || length > frame::MAX_SHORT {
            return self.send_long_parts(&parts.map(str::as_bytes), length);
        }
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
        match &mut self.deflate_writer {
            _ if payload.len() >= LONG => self.send_long(kind, payload),
            None => frame::encode(OpCode::Data(kind), payload, self.cork),
            Some(deflate_writer) => deflate_writer.encode(kind, &[payload], self.cork),
        }
    }

    /// Sends past the cork, with all that stands in it; deflated into the cork, if that was agreed on
    /// and makes it smaller.
    #[cold]
    fn send_long(&mut self, kind: Data, payload: &[u8]) {
        if let Some(deflate_writer) = &mut self.deflate_writer
            && deflate_writer.encode_smaller(kind, &[payload], self.cork) == Deflation::Appended
        {
            return;
        }
        let Some(outlet) = &mut self.outlet else { return };
        let before = self.cork.len();
        frame::encode_header(OpCode::Data(kind), payload.len(), self.cork);
        match outlet.send_past(self.cork, payload) {
            Ok(sent) => self.commands.past_cork += sent as u64,
            Err(sent) => {
                self.commands.past_cork += sent as u64;
                match before.checked_sub(sent) {
                    // Nothing of this frame has left, so it is as if it had never been.
                    Some(of_earlier) => self.cork.truncate(of_earlier),
                    None => outlet.cut(),
                }
                self.run_out_of_memory();
            }
        }
    }

    /// Sends parts that need the longer form of a header, or may be worth deflating.
    #[cold]
    fn send_long_parts(&mut self, parts: &[&[u8]], length: usize) {
        let kind = Data::Text;
        if let Some(deflate_writer) = &mut self.deflate_writer
            && deflate_writer.encode_smaller(kind, parts, self.cork) == Deflation::Appended
        {
            return;
        }
        if self.cork.try_reserve(frame::MAX_HEADER + length).is_err() {
            return self.run_out_of_memory();
        }
        frame::encode_header(OpCode::Data(kind), length, self.cork);
        parts.iter().for_each(|part| self.cork.extend_from_slice(part));
    }

    /// A reply can be neither sent nor kept, so its connection ends, and no other.
    #[cold]
    fn run_out_of_memory(&mut self) {
        let reason = || (CloseCode::Again, frame::OUT_OF_MEMORY.to_owned());
        self.commands.close.get_or_insert_with(reason);
        (self.commands.pause, self.commands.is_out_of_memory) = (true, true);
    }

    /// Closes once what was sent before has left. Messages still to come are not delivered.
    ///
    /// `code` is one that RFC 6455 7.4 lets an endpoint send, 4000 to 4999 for your own; another
    /// becomes 1011, and the log tells of the first. Of `reason` the first 123 bytes are sent. What this
    /// callback sends after it still leaves before the Close; of several calls the first counts.
    pub fn close(&mut self, code: u16, reason: &str) {
        let code = sendable(code);
        self.commands.close.get_or_insert_with(|| (code, reason.to_owned()));
        self.commands.pause = true;
    }

    /// Sends a text message to every open connection of the server, this one included, each in
    /// the order of its reactor. Encoded once. If there is no memory for that, it is not sent and
    /// this connection ends (1013).
    pub fn broadcast_text(&mut self, text: &str) {
        self.broadcast(Data::Text, text.as_bytes());
    }

    /// Sends a binary message to every open connection of the server.
    pub fn broadcast_binary(&mut self, bytes: &[u8]) {
        self.broadcast(Data::Binary, bytes);
    }

    fn broadcast(&mut self, kind: Data, payload: &[u8]) {
        match encoded(kind, payload) {
            Ok(frame) => self.commands.to_all.push(frame),
            Err(_) => return self.run_out_of_memory(),
        }
        self.commands.has_outgoing = true;
    }

    /// Has [`Application::on_timer`] called with `key`, once, when `after` has passed: at the first
    /// tick of 50 ms at or behind it. A timer that is set already with this key is set anew. All
    /// are forgotten when the WebSocket closes.
    ///
    /// What a timer's callback sends counts as a broadcast does: a peer whose send buffer it finds
    /// full is closed with 1008.
    ///
    /// # Errors
    ///
    /// When the connection has [`Limits::timers_per_connection`] of them.
    pub fn set_timer(&mut self, after: Duration, key: u64) -> Result<(), TooManyTimers> {
        self.commands.timers.set(self.connection, key, after, self.commands.now)
    }

    /// Forgets a timer; whether it was set.
    pub fn cancel_timer(&mut self, key: u64) -> bool {
        self.commands.timers.cancel(self.connection, key)
    }

    /// Runs `job` on a thread of its own kind, so that it may wait for as long as it likes, and
    /// then `done` here, with what it returned.
    ///
    /// What one connection off-loads is answered in the order in which it was off-loaded, even if
    /// the jobs finish in another. If the WebSocket has closed by then, `done` is dropped and not
    /// called; `job` is run all the same. While a connection waits for
    /// [`Limits::offloads_per_connection`] of them, no more is read from it: with 1 there, each
    /// message is answered before the next one is heard. One that panics ends its connection with
    /// 1011. A server that drains waits for the jobs under way, within the time of its drain.
    ///
    /// ```
    /// use revolve::{Application, Context, Message};
    ///
    /// struct Fibonacci;
    /// impl Application for Fibonacci {
    ///     type Session = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
    ///         let Ok(n) = text.parse() else { return cx.send_text("a number, please") };
    ///         let taken = cx.offload(
    ///             move || fibonacci(n),
    ///             |_, cx, number| cx.send_text(&number.to_string()),
    ///         );
    ///         if taken.is_err() {
    ///             cx.send_text("too busy, try again");
    ///         }
    ///     }
    /// }
    ///
    /// fn fibonacci(n: u8) -> u64 {
    ///     if n < 2 { u64::from(n) } else { fibonacci(n - 1) + fibonacci(n - 2) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When the reactor has [`Limits::offloads_per_reactor`] jobs under way; nothing waits for
    /// room.
    pub fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<(), PoolFull> {
        self.commands.jobs.add(self.connection, job, done)?;
        self.commands.has_outgoing = true;
        self.commands.pause |= self.commands.jobs.is_busy(self.connection);
        Ok(())
    }

    /// When this turn began. Costs nothing, and is virtual in a test.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.commands.now
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

    /// Forgets the session, as at a logout: when this callback has returned, the id names it no more. Who asks
    /// for that id gets a new session (under the same id, with [`crate::SessionIds::Any`]), and takes
    /// nothing over.
    ///
    /// This connection goes on with the state and the count until it closes; then the session ends
    /// ([`crate::SessionEnd::Forgotten`]) and is not kept. To end both, call [`Self::close`] besides.
    /// To call it twice is as to call it once. In [`Application::on_close`] it works too, also where a newer
    /// connection takes the session over: that one then opens with a new session, whatever count its 101 tells.
    ///
    /// A deferred upgrade that waits for the session ([`Upgrade::defer`]) waits on, but not for that
    /// session: its `done` finds none, and if it accepts, the connection opens with a new one.
    /// [`Recipient::session`] does not find the session any more; by its [`ConnectionId`] the connection is
    /// still reached.
    ///
    /// ```
    /// use revolve::{Application, Context, Message};
    ///
    /// /// Remembers what each session has said, until it says `logout`.
    /// struct Notes;
    ///
    /// impl Application for Notes {
    ///     type Session = String;
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         match message {
    ///             Message::Text("logout") => {
    ///                 cx.forget_session();
    ///                 cx.close(1000, "logged out");
    ///             }
    ///             Message::Text(note) => cx.session_mut().push_str(note),
    ///             Message::Binary(_) => {}
    ///         }
    ///     }
    /// }
    ///
    /// let server = revolve::testing::TestServer::new(|_| Notes);
    /// let ann = server.connect("session_id=ann");
    /// ann.send_text("a secret");
    /// ann.send_text("logout");
    /// let next = server.connect("session_id=ann");
    /// assert_eq!(next.header("X-Session-Resumed"), Some("false".to_owned()));
    /// ```
    pub fn forget_session(&mut self) {
        (self.commands.forgets_session, self.commands.pause) = (true, true);
    }

    /// Whether the session was there before this connection.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        *self.peer
    }

    /// The connection's name, unique in the server.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        ConnectionId::new(self.commands.reactor, self.connection)
    }

    /// Which reactor this is, from 0.
    #[must_use]
    pub fn reactor(&self) -> usize {
        self.commands.reactor
    }
}

/// A reactor, as its application sees it when no connection is concerned.
pub struct ReactorContext<'a, A: Application> {
    pub(crate) commands: &'a mut Commands<A>,
}

impl<A: Application> ReactorContext<'_, A> {
    /// Sends a text message to every open connection of this reactor: one encoding, and a slice
    /// of the connections a turn, so that the loop never stalls on it.
    pub fn send_text_to_all(&mut self, text: &str) {
        self.send_to_all(Data::Text, text.as_bytes());
    }

    /// Sends a binary message to every open connection of this reactor.
    pub fn send_binary_to_all(&mut self, bytes: &[u8]) {
        self.send_to_all(Data::Binary, bytes);
    }

    fn send_to_all(&mut self, kind: Data, payload: &[u8]) {
        match encoded(kind, payload) {
            Ok(frame) => self.commands.to_reactor.push(frame),
            Err(_) => self.note_out_of_memory(payload.len()),
        }
    }

    /// A message for others cannot be encoded, and no connection of theirs is to blame.
    #[cold]
    fn note_out_of_memory(&self, bytes: usize) {
        log::error!(
            reactor = self.commands.reactor;
            "out of memory: a message of {bytes} bytes was dropped"
        );
    }

    /// Has [`Application::on_reactor_timer`] called with `key`, once, when `after` has passed. A
    /// timer that is set already with this key is set anew.
    ///
    /// # Errors
    ///
    /// When the reactor has [`Limits::timers_per_reactor`] of them.
    pub fn set_timer(&mut self, after: Duration, key: u64) -> Result<(), TooManyTimers> {
        self.commands.timers.set_for_reactor(key, after, self.commands.now)
    }

    /// Forgets a timer; whether it was set.
    pub fn cancel_timer(&mut self, key: u64) -> bool {
        self.commands.timers.cancel_for_reactor(key)
    }

    /// Runs `job` on a thread of its own kind, and then `done` here, as [`Context::offload`] does.
    ///
    /// # Errors
    ///
    /// When the reactor has [`Limits::offloads_per_reactor`] jobs under way.
    pub fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<(), PoolFull> {
        self.commands.jobs.add_for_reactor(job, done)?;
        self.commands.has_outgoing = true;
        Ok(())
    }

    /// When this turn began.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.commands.now
    }

    /// Which reactor this is, from 0.
    #[must_use]
    pub fn reactor(&self) -> usize {
        self.commands.reactor
    }
}

/// The close code that is sent where an application asks for this one.
fn sendable(code: u16) -> CloseCode {
    let code = CloseCode::from(code);
    // RFC 6455 7.4.1: a client says 1010 of a server, never the other way round.
    if frame::may_be_sent(code) && code != CloseCode::Extension {
        return code;
    }
    static TOLD: Once = Once::new();
    let code = u16::from(code);
    tell_misuse(&TOLD, format_args!("close({code}, …): a server must not send this code"));
    CloseCode::Error
}

fn encoded(kind: Data, payload: &[u8]) -> Result<Broadcast, TryReserveError> {
    let mut frame = Vec::new();
    frame.try_reserve_exact(frame::MAX_HEADER + payload.len())?;
    frame::encode(OpCode::Data(kind), payload, &mut frame);
    Ok(Arc::new(frame))
}

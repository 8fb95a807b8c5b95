//! What runs on a reactor: the [`Application`] trait, and the [`Context`] through which it answers.
//!
//! A context writes replies straight into the cork, the longest ones past it, and notes commands (close, broadcast,
//! timer); the shard applies them when the callback has returned, or when their time has come. No callback ever gets
//! hold of a connection or of the loop, so nothing re-enters it. Called by the shard; implemented by `apps/` and by
//! programs that embed the server. The parts are `text_part`, `long_way`, `request`, `response`, `metrics`, `question`,
//! `admission`, `deferral`, `jobs`, `offloading`, `enqueueing`, //! `kept`, `direct`, `remote` and `timers`.
//!
//! Invariant: the cork only ever holds whole frames of ours, behind what is left of one that has begun to
//! leave.
//!
//! Next: `text_part`: what a text message is joined of.

mod admission;
mod deferral;
mod direct;
mod enqueueing;
mod jobs;
mod kept;
mod long_way;
mod metrics;
mod offloading;
mod question;
mod remote;
mod request;
mod response;
mod text_part;
pub mod timers;

use std::collections::TryReserveError;
use std::fmt;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::application::timers::{ApplicationTimers, SetTimerError, TooManyTimers};
use crate::config::{Config, Limits};
use crate::protocol::deflate::DeflateWriter;
use crate::protocol::frame;
pub use crate::protocol::message::Message;
use crate::session::{EndedSession, Session};
use crate::token::{ConnectionId, LocalId, Peer};
use crate::transport::Outlet;

pub use admission::{Acceptance, Refusal, Subprotocol, Upgrade};
pub(crate) use admission::{
    Answer, Decision, Deferred, ForUpgrade, KeepRequest, NotOpening, Seen, Terms,
};
pub use direct::{Direct, Recipient};
pub(crate) use direct::{Directed, To};
pub use jobs::JobHandle;
pub(crate) use jobs::{Due, Jobs, Look, Owner, Whose};
pub(crate) use kept::Kept;
pub use kept::OpenedRequest;
use long_way::{Allowance, LONG, LongWay, has_room};
pub(crate) use long_way::{Ending, NotQueued, storage_of_cork};
pub(crate) use metrics::ApplicationMetrics;
pub use metrics::{CounterMetric, GaugeMetric, InvalidMetric};
pub(crate) use question::Question;
pub(crate) use question::{Returned, Undo};
pub(crate) use remote::{ForRecipient, Post, PostOutbox};
pub use remote::{Hosted, PostError, Posts, ReactorStart, Remote, Storing, Wake};
pub use request::HttpRequest;
pub(crate) use request::{RequestBody, RequestHead};
pub use response::{AnswerFollows, HttpResponse, NoResponse};
pub(crate) use response::{Caching, ResponseContent, TEXT, reason_phrase};
use text_part::BEHIND_MOST;
pub use text_part::TextPart;

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
///     type Connection = ();
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

    /// What a connection holds besides its session's state ([`Context::connection_mut`]): it ends with the
    /// connection. `()` costs nothing, and so does one that is not used.
    type Connection: Default + 'static;

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
    ///     type Connection = ();
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

    /// Whether [`Self::on_request`] reads the content of requests. Without it, a request with content is
    /// passed to `on_request` when its head has come, with an empty [`HttpRequest::body`], and its
    /// connection closes behind the response. With it, the server waits for the content first.
    ///
    /// It is a constant, so that a server whose application reads none never waits for any, nor keeps it.
    const READS_BODIES: bool = false;

    /// A plain request has come, for a path that is none of the server's own (`/`, `/healthz`, `/readyz`,
    /// `/metrics`, `/ws/stats`) and does not lead to the WebSocket. Answered on the reactor that has the
    /// connection. Any method comes here: HEAD, which gets what GET gets, without the content; and
    /// OPTIONS, so that a preflight of other origins' pages can be answered.
    ///
    /// Under [`Self::READS_BODIES`] a request comes here when its content is whole, of at most
    /// [`crate::Limits::request_body_bytes`] bytes; beyond that it gets 413, without a `Content-Length`
    /// 411, and 408 if it takes longer than [`crate::Config::timeout_handshake`]. A client that sent
    /// `Expect: 100-continue` is told to go on.
    ///
    /// [`crate::Config::allowed_origins`] is about WebSockets. A page of another origin may send requests
    /// that come here: where that matters, look at [`HttpRequest::header`] `Origin`.
    ///
    /// A panic is a 500: the connection closes, and nothing else ends. During the shutdown requests are
    /// answered as long as their connection is served.
    ///
    /// ```
    /// # use revolve::{Application, Context, Message};
    /// use revolve::{HttpRequest, HttpResponse, NoResponse, ReactorContext};
    ///
    /// struct Shop {
    ///     orders: Vec<String>,
    /// }
    ///
    /// impl Application for Shop {
    ///     type Session = ();
    ///     type Connection = ();
    ///     const READS_BODIES: bool = true;
    ///
    ///     fn on_request(
    ///         &mut self,
    ///         cx: &mut ReactorContext<'_, Self>,
    ///         request: &HttpRequest<'_>,
    ///     ) -> Result<HttpResponse, NoResponse> {
    ///         match (request.method(), request.path()) {
    ///             ("GET" | "HEAD", "/orders") => {
    ///                 Ok(HttpResponse::json::<200>(format!("{{\"count\": {}}}", self.orders.len())))
    ///             }
    ///             ("POST", "/orders") => match request.body_text() {
    ///                 None | Some("") => Ok(HttpResponse::json_error::<400>("an order is a text")),
    ///                 Some(order) => {
    ///                     self.orders.push(order.to_owned());
    ///                     cx.broadcast_text(&format!("a new order: {order}"));
    ///                     Ok(HttpResponse::empty::<201>())
    ///                 }
    ///             },
    ///             // RFC 9110 15.5.6: a 405 names the methods that there are.
    ///             (_, "/orders") => {
    ///                 Ok(HttpResponse::text::<405>("GET or POST").header("Allow", "GET, HEAD, POST")?)
    ///             }
    ///             _ => Err(NoResponse::NotFound),
    ///         }
    ///     }
    /// #   fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Why there is no response. By default there is nothing at any such path, which is a 404.
    fn on_request(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        let _ = (cx, request);
        Err(NoResponse::NotFound)
    }

    /// A WebSocket has opened, or a session has come back ([`Context::is_resumed`]).
    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let _ = cx;
    }

    /// A message has arrived.
    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>);

    /// The WebSocket is over: exactly once for each `on_open`. The session is still there, and changes
    /// to it are kept. Of the commands of the context:
    ///
    /// - what is sent goes nowhere, and [`Context::close`] does nothing;
    /// - broadcasts are sent, to all others;
    /// - [`Context::set_timer`] is an error, and [`Context::cancel_timer`] finds the timers that were set;
    /// - off-loaded jobs are run, to save the session, say, and a drain waits for them; what was to
    ///   follow them is dropped. So [`Context::offload_cancellable`] is of no use here: to its job, nobody
    ///   waits. If this is called because the time of a drain is up, the process may end before a job.
    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        let _ = (cx, reason);
    }

    /// A timer of this connection is due ([`Context::set_timer`]).
    fn on_timer(&mut self, cx: &mut Context<'_, Self>, key: u64) {
        let _ = (cx, key);
    }

    /// What waited for this peer was more than [`Config::max_send_buffer`], the high-water mark, and has
    /// fallen to half of that, the low-water mark. Called once each time that happens, before further
    /// messages are heard, and not for a connection that has closed or is closing. What it sends obeys the
    /// rule at [`Context::send_text`].
    ///
    /// A producer sends until it is above the mark, and goes on in here:
    ///
    /// ```
    /// # use std::time::Duration;
    /// use revolve::testing::TestServer;
    /// use revolve::{Application, Config, Context, Message};
    ///
    /// /// Sends each client that asks so many numbers, as fast as it takes them.
    /// struct Numbers;
    ///
    /// const LAST: u32 = 300_000;
    ///
    /// fn go_on(cx: &mut Context<'_, Numbers>) {
    ///     while *cx.session() < LAST && cx.waiting_bytes() <= cx.high_water_mark() {
    ///         *cx.session_mut() += 1;
    ///         let number = cx.session().to_string();
    ///         cx.send_text(&number);
    ///     }
    /// }
    ///
    /// impl Application for Numbers {
    ///     type Session = u32; // the last number sent
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
    ///         go_on(cx);
    ///     }
    ///     fn on_backlog_low(&mut self, cx: &mut Context<'_, Self>) {
    ///         go_on(cx);
    ///     }
    /// }
    ///
    /// let config = Config { max_send_buffer: 64 << 10, ..Config::default() };
    /// let server = TestServer::with_config(config, |_| Numbers);
    /// let client = server.connect("");
    /// client.send_text("go");
    /// for number in 1..=LAST {
    ///     assert_eq!(client.text(), number.to_string());
    /// }
    /// ```
    fn on_backlog_low(&mut self, cx: &mut Context<'_, Self>) {
        let _ = cx;
    }

    /// The shutdown begins on this reactor: before the first client is told goodbye (1001). What is sent to
    /// connections from here reaches them before that, and so does what was broadcast before the shutdown, on
    /// whichever reactor; but for a reactor that a callback holds up, the others wait a second at most.
    /// [`ReactorContext::set_goodbye`] says what the goodbye says.
    ///
    /// ```
    /// use revolve::{Application, Context, Message, ReactorContext};
    ///
    /// struct Polite;
    /// impl Application for Polite {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         if let Message::Text("shut down, please") = message {
    ///             cx.shut_down();
    ///         }
    ///     }
    ///     fn on_drain(&mut self, cx: &mut ReactorContext<'_, Self>) {
    ///         cx.send_text_to_all("please finish your sentence");
    ///         cx.set_goodbye("back in five minutes");
    ///     }
    /// }
    ///
    /// use revolve::testing::{Received, TestServer};
    /// let server = TestServer::new(|_| Polite);
    /// let ann = server.connect("");
    /// ann.send_text("shut down, please");
    /// assert_eq!(ann.text(), "please finish your sentence");
    /// let goodbye = Received::Closed { code: 1001, reason: "back in five minutes".into() };
    /// assert_eq!(ann.receive(), Some(goodbye));
    /// ```
    fn on_drain(&mut self, cx: &mut ReactorContext<'_, Self>) {
        let _ = cx;
    }

    /// A timer of this reactor is due ([`ReactorContext::set_timer`]). It is not set any more: a
    /// heartbeat sets it anew.
    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        let _ = (cx, key);
    }

    /// What the store ([`crate::Builder::store`]) is to keep of a session's state; nothing, by default: then a session
    /// comes back after a restart with its count, and a state that is new.
    ///
    /// Called for a session whose state was lent out to be changed, when the turn ends in which that was. It sees
    /// nothing else of the application, so it can be called for any session at any time. At most
    /// [`Limits::stored_state_bytes`]; of a state that is larger, or over which it panics, nothing is stored, and the
    /// log says so.
    #[must_use]
    fn save(state: &Self::Session) -> Option<SavedState> {
        let _ = state;
        None
    }

    /// The state of a session that comes back from the store: what [`Self::save`] has written, in this version of the
    /// program or in another one.
    #[must_use]
    fn load(saved: &SavedState) -> Self::Session {
        let _ = saved;
        Self::Session::default()
    }

    /// A session is no more: exactly once for each that ceases to be, when nobody
    /// speaks for it any more and its id names it no longer. What was put elsewhere on its behalf (a place in
    /// a room, a row in a data base) can be let go of here. [`crate::SessionEnd`] has the reasons.
    ///
    /// Where a connection's close ends it, [`Self::on_close`] comes first. A takeover ends no session. One that
    /// a deferred upgrade waits for ([`Upgrade::defer`]) ends when that waits no more. At a shutdown the sessions
    /// that are left end when all connections of their reactor are closed ([`crate::SessionEnd::ServerEnded`]),
    /// and the server waits, within the time of its drain, for jobs that are off-loaded here.
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
    ///     type Connection = ();
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

/// A session's state as an application has written it, for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedState {
    /// How the bytes are to be read: the application's own numbering.
    pub version: u32,
    /// The state.
    pub bytes: Vec<u8>,
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

/// A frame for many: encoded once, shared by all reactors. (In a `Vec`, of which the allocation can
/// be refused; an `Arc` of bytes would copy them, too.)
pub(crate) type Broadcast = Arc<Vec<u8>>;

/// What callbacks have asked for and not yet been granted: a close when the callback has returned,
/// a broadcast in the same turn, a timer when its time has come, a job when it is done.
#[derive(Debug)]
pub(crate) struct Commands<A: Application> {
    /// Which reactor this is.
    reactor: usize,
    /// How many there are.
    reactors: usize,
    /// When this turn began.
    pub(crate) now: Instant,
    /// Set with `close` and with `forgets_session`, and when the connection waits for as many jobs as it may:
    /// then what was commanded is done before more is read from it.
    pub(crate) pause: bool,
    /// Set with `to_all`, `directs`, `posts` and `shut_down`, and when jobs wait to leave for the pool.
    pub(crate) has_outgoing: bool,
    /// How the connection ends, if it does.
    pub(crate) ending: Option<Ending>,
    /// Whether the session of the connection is to be forgotten. It is, even if the callback panicked behind
    /// that.
    pub(crate) forgets_session: bool,
    /// To every open connection of the server.
    pub(crate) to_all: Vec<Broadcast>,
    /// To every open connection of this reactor.
    pub(crate) to_reactor: Vec<Broadcast>,
    /// To one connection each.
    pub(crate) directs: Vec<Direct>,
    /// To one reactor each.
    pub(crate) posts: Vec<(usize, Post<A>)>,
    /// The timers set.
    pub(crate) timers: ApplicationTimers,
    /// How large the arguments of a task may be; `None` if there is no broker.
    pub(crate) task_bytes: Option<usize>,
    /// The jobs off-loaded.
    pub(crate) jobs: Jobs<A>,
    /// The response to the plain request under way, if it comes later.
    pub(crate) deferred_response: Option<Deferred<A>>,
    /// What is kept for open connections.
    pub(crate) kept: Kept<A>,
    /// Bytes that have left past the cork in this turn, and are not counted yet.
    pub(crate) past_cork: u64,
    /// Whether a connection is opening, and its `on_open` was not called yet: if its callback panics, it has no
    /// `on_close` either.
    pub(crate) is_before_open: bool,
    /// The shutdown, if it was asked for.
    pub(crate) shut_down: bool,
    /// What clients are to be told in the goodbye, if that was said.
    pub(crate) goodbye: Option<String>,
    /// How much one callback may queue.
    allowance: Allowance,
}

impl<A: Application> Commands<A> {
    pub(crate) fn new(reactor: usize, now: Instant, config: &Config) -> Self {
        let limits: &Limits = &config.limits;
        Commands {
            reactor,
            reactors: config.workers.get(),
            now,
            pause: false,
            has_outgoing: false,
            ending: None,
            forgets_session: false,
            to_all: Vec::new(),
            to_reactor: Vec::new(),
            directs: Vec::new(),
            posts: Vec::new(),
            timers: ApplicationTimers::new(now, limits),
            task_bytes: config.broker.is_some().then_some(limits.task_bytes),
            jobs: Jobs::new(reactor, limits),
            deferred_response: None,
            kept: Kept::default(),
            past_cork: 0,
            is_before_open: false,
            shut_down: false,
            goodbye: None,
            allowance: Allowance::of(config),
        }
    }

    /// Which reactor this is, and how many there are.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.reactor, self.reactors)
    }

    fn shut_down(&mut self) {
        self.shut_down = true;
        self.has_outgoing = true;
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
    ///
    /// What a peer has not taken is bounded. A peer for which more than the high-water mark
    /// ([`Config::max_send_buffer`]) waits is not heard. If something is sent to it all the same (by a timer,
    /// a post, behind an off-loaded job, in a broadcast), it is closed with 1008 "slow consumer", and what that
    /// callback sends is not queued. Within one callback, a message is queued if what waits before it is no
    /// more than the mark and [`Limits::cork_bytes`]; if it is more by 150 bytes, the peer is closed in the same
    /// way, and neither that message nor what the callback sends after it is queued. How long a message is does
    /// not count until the next one is to be queued behind it. So the first reply to a message is always queued.
    ///
    /// This costs a short message nothing: it is looked at only when the storage for replies is full.
    ///
    /// [`Self::waiting_bytes`] tells how much waits, [`Application::on_backlog_low`] that most of it has left.
    #[inline]
    pub fn send_text(&mut self, text: &str) {
        self.send(Data::Text, text.as_bytes());
    }

    /// Sends the parts as one text message, without joining them first: texts, and numbers ([`TextPart`]).
    #[inline(always)]
    pub fn send_text_parts<const N: usize>(&mut self, parts: [TextPart<'_>; N]) {
        let length_most: usize = parts.iter().map(|part| part.length_most()).sum();
        if self.deflate_writer.is_some() || length_most > frame::MAX_SHORT {
            let texts = parts.map(TextPart::text);
            return self.long_way().send_parts(Data::Text, &texts.each_ref().map(|t| t.as_bytes()));
        }
        // Room for the longest of the short ones: to compare with a constant costs nothing more than the
        // check that it stands for, of storage for the header.
        if !has_room(self.cork, frame::MAX_SHORT) && !self.long_way().make_room_for_a_short_one() {
            return;
        }
        // What a number writes behind itself for a moment has the room that a short header leaves of a long one's.
        const { assert!(BEHIND_MOST <= frame::MAX_HEADER - 2) };
        let begin = self.cork.len();
        frame::encode_header(OpCode::Data(Data::Text), 0, self.cork);
        for part in parts {
            part.append(self.cork);
        }
        frame::set_short_length(self.cork, begin);
    }

    /// Sends a binary message.
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send(Data::Binary, bytes);
    }

    #[inline]
    fn send(&mut self, kind: Data, payload: &[u8]) {
        let is_plain = self.deflate_writer.is_none();
        match payload.len() {
            LONG.. => self.long_way().send_long(kind, payload),
            short if is_plain && has_room(self.cork, short) => {
                frame::encode(OpCode::Data(kind), payload, self.cork);
            }
            _ => self.long_way().send_parts(kind, &[payload]),
        }
    }

    /// The way of a message that is not simply appended to the cork.
    #[inline(always)]
    fn long_way(&mut self) -> LongWay<'_, A> {
        let outlet = self.outlet.as_mut().map(|outlet| &mut **outlet as &mut dyn Outlet);
        LongWay {
            cork: self.cork,
            outlet,
            deflate_writer: self.deflate_writer.as_mut().map(DeflateWriter::reborrow),
            commands: self.commands,
        }
    }

    /// What was to be sent can be neither sent nor kept, so this connection ends, and no other.
    #[cold]
    fn run_out_of_memory(&mut self) {
        self.long_way().run_out_of_memory();
    }

    /// Closes once what was sent before has left. Messages still to come are not delivered. In
    /// [`Application::on_close`] it does nothing.
    ///
    /// `code` is one that RFC 6455 7.4 lets an endpoint send, 4000 to 4999 for your own (4001 is the server's: a
    /// session was taken over); another becomes 1011, and the log tells of the first. Of `reason` the first 123 bytes
    /// are sent. What this callback sends after it still leaves before the Close; of several calls the first counts.
    pub fn close(&mut self, code: u16, reason: &str) {
        let code = sendable(code);
        self.commands.ending.get_or_insert_with(|| Ending::Asked(code, reason.to_owned()));
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
    /// A peer whose send buffer a timer's callback finds full, and to which it sends more, is closed with
    /// 1008 ([`Self::send_text`] has the rule).
    ///
    /// # Errors
    ///
    /// [`SetTimerError::TooMany`] when the connection has [`Limits::timers_per_connection`] of them;
    /// [`SetTimerError::Closed`] in [`Application::on_close`], and behind [`Self::close`]: then the timer
    /// could never fire.
    pub fn set_timer(&mut self, after: Duration, key: u64) -> Result<(), SetTimerError> {
        if self.is_over() {
            return Err(SetTimerError::Closed);
        }
        Ok(self.commands.timers.set(self.connection, key, after, self.commands.now)?)
    }

    /// Whether this is the last callback of the connection but for its `on_close`, or that itself.
    fn is_over(&self) -> bool {
        self.outlet.is_none() || self.commands.ending.is_some()
    }

    /// Forgets a timer; whether it was set.
    pub fn cancel_timer(&mut self, key: u64) -> bool {
        self.commands.timers.cancel(self.connection, key)
    }

    /// Sets a timer of this reactor, as [`ReactorContext::set_timer`] does: it does not end with the
    /// connection. For what is to happen when this client has been away for a while, for instance.
    ///
    /// # Errors
    ///
    /// When the reactor has [`Limits::timers_per_reactor`] of them.
    pub fn set_reactor_timer(&mut self, after: Duration, key: u64) -> Result<(), TooManyTimers> {
        self.commands.timers.set_for_reactor(key, after, self.commands.now)
    }

    /// Forgets a timer of this reactor; whether it was set.
    pub fn cancel_reactor_timer(&mut self, key: u64) -> bool {
        self.commands.timers.cancel_for_reactor(key)
    }

    /// Begins the shutdown of the server, as [`crate::ServerHandle::shutdown`] does, and returns at once.
    pub fn shut_down(&mut self) {
        self.commands.shut_down();
    }

    /// How many bytes were sent to this peer that its socket has not taken: 0 while it takes all that it is
    /// offered. From when it does not, what this callback has sent is among them. 0, too, where nothing can be
    /// said any more, as in [`Application::on_close`].
    ///
    /// An application that has much to send compares it with [`Self::high_water_mark`], and stops above
    /// that ([`Application::on_backlog_low`] has an example).
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        match &self.outlet {
            // What stands in the cork meanwhile was not offered yet. To count it would stop who compares, and
            // nobody would have him go on: it leaves without having waited.
            Some(outlet) if !outlet.takes_more() => outlet.backlog_bytes() + self.cork.len(),
            _ => 0,
        }
    }

    /// How many bytes may wait for a peer before it is not read any more ([`Config::max_send_buffer`]).
    #[must_use]
    pub fn high_water_mark(&self) -> usize {
        self.commands.allowance.high_water_mark
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
    ///     type Connection = ();
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
    /// assert_eq!(next.header("X-Session-Resumed"), Some("false"));
    /// ```
    pub fn forget_session(&mut self) {
        (self.commands.forgets_session, self.commands.pause) = (true, true);
    }

    /// How many connections speak for the session, this one included: more than one only if they share it
    /// ([`Acceptance::share`]). In [`Application::on_close`] this one still counts.
    #[must_use]
    pub fn session_connections(&self) -> usize {
        self.session.connections()
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

    /// How many reactors the server has.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.commands.reactors
    }
}

/// A reactor, as its application sees it when no connection is concerned.
pub struct ReactorContext<'a, A: Application> {
    pub(crate) commands: &'a mut Commands<A>,
    /// Those of the whole server.
    pub(crate) metrics: &'a ApplicationMetrics,
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
        if let Some(frame) = self.encoded(kind, payload) {
            self.commands.to_reactor.push(frame);
        }
    }

    /// Sends a text message to every open connection of the server, as [`Context::broadcast_text`]
    /// does. If there is no memory for that, it is not sent, and the log tells so.
    pub fn broadcast_text(&mut self, text: &str) {
        self.broadcast(Data::Text, text.as_bytes());
    }

    /// Sends a binary message to every open connection of the server.
    pub fn broadcast_binary(&mut self, bytes: &[u8]) {
        self.broadcast(Data::Binary, bytes);
    }

    fn broadcast(&mut self, kind: Data, payload: &[u8]) {
        if let Some(frame) = self.encoded(kind, payload) {
            self.commands.to_all.push(frame);
            self.commands.has_outgoing = true;
        }
    }

    fn encoded(&self, kind: Data, payload: &[u8]) -> Option<Broadcast> {
        let frame = encoded(kind, payload);
        if frame.is_err() {
            self.note_out_of_memory(payload.len());
        }
        frame.ok()
    }

    /// Registers a counter of the application's, which `/metrics` shows behind the server's own: a sample
    /// for each reactor that has registered it, with the label `reactor`. A second call with the same name
    /// on this reactor returns the same cell. Keep the handle: to register takes a lock, to count takes
    /// none.
    ///
    /// ```
    /// # use revolve::{Application, Context, Message};
    /// use revolve::{CounterMetric, ReactorContext};
    ///
    /// #[derive(Default)]
    /// struct Shop {
    ///     orders: Option<CounterMetric>,
    /// }
    ///
    /// impl Application for Shop {
    ///     type Session = ();
    ///     type Connection = ();
    ///
    ///     fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
    ///         match cx.counter("shop_orders_total", "Orders taken.") {
    ///             Ok(orders) => self.orders = Some(orders),
    ///             Err(error) => eprintln!("{error}"),
    ///         }
    ///     }
    ///
    ///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {
    ///         if let Some(orders) = &self.orders {
    ///             orders.add(1);
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The name is none, or the server's, or taken by another kind or help; or there are 256 names already.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> Result<CounterMetric, InvalidMetric> {
        self.metrics.counter(self.commands.reactor, name, help)
    }

    /// Registers a gauge of the application's, as [`Self::counter`] does a counter.
    ///
    /// # Errors
    ///
    /// As those of [`Self::counter`]; but the name may end in anything.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
    ) -> Result<GaugeMetric, InvalidMetric> {
        self.metrics.gauge(self.commands.reactor, name, help)
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

    /// Begins the shutdown of the server, as [`crate::ServerHandle::shutdown`] does, and returns at once.
    pub fn shut_down(&mut self) {
        self.commands.shut_down();
    }

    /// What the clients of this reactor are told in the Close of the shutdown (1001), instead of "server is
    /// going away". Of `reason` the first 123 bytes are sent. Those who have been told goodbye already are
    /// not told again.
    pub fn set_goodbye(&mut self, reason: &str) {
        self.commands.goodbye = Some(reason.to_owned());
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

    /// How many reactors the server has.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.commands.reactors
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

//! Admission: what an upgrade asks, and what an application can answer before the 101 or later.
//!
//! [`Upgrade`] lends out the request; an application that does not look at it pays nothing. The answers
//! cannot say what HTTP forbids: a refusal has a status of 400 or more, a subprotocol is one that
//! was offered, a header field is one line and none of the handshake's own. Writes no response;
//! `shard/upgrade.rs` and `http` do.
//!
//! Invariant: no text of a request gets into the head of a response but a subprotocol that was offered,
//! which is a token, and through a field that the application adds itself, and then not a byte that ends
//! a line.
//!
//! Next: `deferral`: answers that come later.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::Once;
use std::time::Instant;

use super::question::{Ask, Undo};
use super::request::{HttpRequest, RequestHead, text};
use super::response::{
    HttpResponse, NoResponse, TEXT, check_content_type, error_in_json, reason_phrase,
};
use super::{Application, Context, OpenedRequest, ReactorContext, tell_misuse};
use crate::config::{InvalidField, Subprotocols, push_field};
use crate::contained::Contained;
use crate::offload::{Value, Work};
use crate::protocol::head::Request;
use crate::session::{Joining, Session, SessionId};
use crate::tasks::Task;
use crate::token::Peer;
use crate::transport::tls::ClientCertificate;

/// A request for a WebSocket that is in order, as [`Application::on_upgrade`] sees it.
pub struct Upgrade<'a, A: Application> {
    pub(crate) request: &'a Request<'a, 'a>,
    pub(crate) peer: Peer,
    pub(crate) certificate: Option<ClientCertificate<'a>>,
    pub(crate) now: Instant,
    pub(crate) session_id: Option<&'a SessionId>,
    pub(crate) session: Option<&'a Session<A::Session>>,
    /// Whether the application has looked at the session, or found that there is none.
    pub(crate) has_looked: Cell<bool>,
    pub(crate) reactor: usize,
    pub(crate) reactors: usize,
}

/// What an application has seen of the session when it accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It has not looked.
    Nothing,
    /// That there is none here.
    None,
    /// The one that was here.
    Session,
}

impl<'a, A: Application> Upgrade<'a, A> {
    fn head(&self) -> RequestHead<'a> {
        RequestHead(self.request)
    }

    /// The path of the target, as sent: not decoded, and `..` is two dots.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.head().path()
    }

    /// What stands behind the first `?` of the target, as sent; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        self.head().query()
    }

    /// The first parameter of the query with this name, percent-decoded (RFC 3986 2.1). `None` if
    /// there is none, if it is not percent-encoded text, or what it decodes to is no UTF-8.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.head().parameter(name)
    }

    /// The first header field with this name, in whatever case. `None` if there is none, or if it is
    /// no UTF-8; [`Self::raw_headers`] has that one too.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head().header(name)
    }

    /// The header fields of which the values are UTF-8, in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.head().headers()
    }

    /// All header fields, in the order sent. A value may have any bytes above ASCII (RFC 9110 5.5:
    /// they are opaque), so it need not be UTF-8; control characters, tabs aside, it has not.
    pub fn raw_headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.head().raw_headers()
    }

    /// The value of a cookie (RFC 6265 5.4), as sent; `None` if that is no UTF-8. What other cookies
    /// are does not matter.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.head().cookie(name)
    }

    /// The subprotocols that the client offers (RFC 6455 1.9), the one it likes best first.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> {
        let fields = self.head().values("sec-websocket-protocol");
        // A name is a token (RFC 6455 4.1), so what is no UTF-8 is none.
        fields
            .flat_map(|value| value.split(|&byte| byte == b','))
            .filter_map(|name| text(name.trim_ascii()))
            .filter(|name| !name.is_empty())
    }

    /// The first of `spoken`, in which the one that the server likes best comes first, that the
    /// client offers too. With none in common the WebSocket may still open, without a subprotocol;
    /// browsers close one that they did offer some for.
    #[must_use]
    pub fn choose_subprotocol(&self, spoken: &[&'static str]) -> Option<Subprotocol> {
        let offered = |name: &&&'static str| self.subprotocols().any(|offer| offer == **name);
        spoken.iter().find(offered).map(|name| Subprotocol(name))
    }

    /// The id of the session that the client names, if it names one. Whether it gets that one is
    /// for [`crate::SessionIds`] to say.
    #[must_use]
    pub fn session_id(&self) -> Option<String> {
        self.session_id.map(|id| id.text().as_str().to_owned())
    }

    /// The state of the session that the client names, if there is one: so a session can be kept
    /// from those who merely know its id, before an older connection is displaced.
    ///
    /// Where several machines share the sessions this is the session as this machine has it: `None` while another one
    /// has it. If the application looks at that or at [`Self::session_count`], accepts, and the session comes from
    /// another machine, it is asked once more, with the session; what it has accepted before is given back
    /// ([`Acceptance::otherwise`]). By then the older connection on the other machine has been displaced.
    #[must_use]
    pub fn session(&self) -> Option<&'a A::Session> {
        self.look().map(Session::state)
    }

    fn look(&self) -> Option<&'a Session<A::Session>> {
        self.has_looked.set(true);
        self.session
    }

    fn seen(&self) -> Seen {
        match (self.has_looked.get(), self.session) {
            (false, _) => Seen::Nothing,
            (true, None) => Seen::None,
            (true, Some(_)) => Seen::Session,
        }
    }

    /// How many messages that session has counted ([`Context::count_message`]); `None` if it is not
    /// there. Then the connection opens with a new session, which has counted none.
    ///
    /// The connection opens with this count, so a header field can tell it: no message is heard between
    /// here and the 101. Only the connection that this one displaces has its
    /// [`Application::on_close`] called in between. What is counted there is missing here.
    #[must_use]
    pub fn session_count(&self) -> Option<u64> {
        self.look().map(Session::count)
    }

    /// Yes. The [`Acceptance`] can say more.
    pub fn accept(&self) -> Acceptance<A> {
        Acceptance::default()
    }

    /// Whose certificate the client has shown, as text (RFC 4514) such as `CN=Ada,O=Example,C=DE`; one of
    /// [`crate::TlsFiles::ca_certs`] vouches for it. `None` if it has shown none, or was not asked for one
    /// ([`crate::ClientCertificates`]).
    #[must_use]
    pub fn client_subject(&self) -> Option<&'a str> {
        self.certificate.map(ClientCertificate::subject)
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// When this turn began.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Which reactor this is, from 0.
    #[must_use]
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// How many reactors the server has.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.reactors
    }
}

impl<A: Application> fmt::Debug for Upgrade<'_, A> {
    /// Without query and headers: there are secrets in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("path", &self.path())
            .field("peer", &format_args!("{}", self.peer))
            .finish_non_exhaustive()
    }
}

/// A subprotocol that a client has offered: only [`Upgrade::choose_subprotocol`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subprotocol(&'static str);

impl Subprotocol {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }
}

type Opening<A> = Contained<Box<dyn FnOnce(&mut A, &mut Context<'_, A>)>>;

/// What follows an upgrade that was accepted and does not open.
pub(crate) type NotOpening<A> = Contained<Box<dyn FnOnce(&mut A, &mut ReactorContext<'_, A>)>>;

/// What follows a job that decides an upgrade.
pub(crate) type ForUpgrade<A> = Contained<Box<DecideUpgrade<A>>>;

type DecideUpgrade<A> =
    dyn FnOnce(&mut A, &Upgrade<'_, A>, Value) -> Result<Acceptance<A>, Refusal>;

/// What follows a job that decides a plain request.
pub(crate) type ForRequest<A> = Contained<Box<DecideRequest<A>>>;

type DecideRequest<A> = dyn FnOnce(
    &mut A,
    &mut ReactorContext<'_, A>,
    &HttpRequest<'_>,
    Value,
) -> Result<HttpResponse, NoResponse>;

/// A request that is decided later.
pub(crate) struct Deferred<A: Application> {
    pub(crate) source: Source<A>,
    pub(crate) decision: Decision<A>,
}

impl<A: Application> fmt::Debug for Deferred<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").finish_non_exhaustive()
    }
}

/// Where the value comes from by which it is decided.
pub(crate) enum Source<A: Application> {
    /// From a thread of the pool.
    Job(Work),
    /// From that reactor.
    Reactor(usize, Ask<A>),
    /// From a worker.
    Worker(Box<Task>),
}

/// What follows when the value is there.
pub(crate) enum Decision<A: Application> {
    OfUpgrade(ForUpgrade<A>),
    OfPlain(ForRequest<A>),
}

/// Yes ([`Upgrade::accept`]), with what else is to be said in the 101, and what is to be done behind
/// it; or that the answer comes later ([`Upgrade::defer`], [`Upgrade::ask`]), to which nothing can be added
/// here.
#[must_use]
pub struct Acceptance<A: Application>(pub(crate) Answer<A>);

/// What an application that does not refuse has answered.
pub(crate) enum Answer<A: Application> {
    Now(Terms<A>),
    Later(Deferred<A>),
}

/// How a WebSocket is to be opened.
pub(crate) struct Terms<A: Application> {
    pub(crate) subprotocol: Option<Cow<'static, str>>,
    /// Whole lines.
    pub(crate) fields: String,
    pub(crate) opening: Option<Opening<A>>,
    pub(crate) not_opening: Option<NotOpening<A>>,
    pub(crate) request: KeepRequest,
    pub(crate) joining: Joining,
    pub(crate) seen: Seen,
}

/// Whether a connection is to keep the request that opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeepRequest {
    No,
    /// Yes, and this is to be filled with it.
    Asked,
    Kept(Box<OpenedRequest>),
}

impl<A: Application> Default for Terms<A> {
    fn default() -> Self {
        Terms {
            subprotocol: None,
            fields: String::new(),
            opening: None,
            not_opening: None,
            request: KeepRequest::No,
            joining: Joining::TakesOver,
            seen: Seen::Nothing,
        }
    }
}

impl<A: Application> Default for Acceptance<A> {
    fn default() -> Self {
        Acceptance(Answer::Now(Terms::default()))
    }
}

impl<A: Application> Acceptance<A> {
    pub(crate) fn later(deferred: Deferred<A>) -> Self {
        Acceptance(Answer::Later(deferred))
    }

    /// What there is to add to; nothing, if the answer comes later.
    fn terms(&mut self, what: &str) -> Option<&mut Terms<A>> {
        match &mut self.0 {
            Answer::Now(terms) => Some(terms),
            Answer::Later(_) => {
                static TOLD: Once = Once::new();
                let what = format_args!("{what}() adds nothing to an answer that comes later");
                tell_misuse(&TOLD, what);
                None
            }
        }
    }

    /// In this subprotocol; `None` leaves it to [`crate::Config::ws_subprotocols`], and so does one that
    /// this client has not offered, of which the log tells once.
    pub fn subprotocol(mut self, chosen: Option<Subprotocol>) -> Self {
        if let Some(terms) = self.terms("subprotocol") {
            terms.subprotocol = chosen.map(|chosen| Cow::Borrowed(chosen.name()));
        }
        self
    }

    /// With a header field in the 101.
    ///
    /// # Errors
    ///
    /// [`InvalidField`], which as a [`Refusal`] is a 500; so `?` does what is right.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidField> {
        if let Some(terms) = self.terms("header") {
            push_field(name, value, &mut terms.fields)?;
        }
        Ok(self)
    }

    /// Has the connection share the session that it asks for with those who have it, instead of taking it over
    /// from them: three tabs of one user, say, which count together and see the same state. Without this, they
    /// are closed (4001) before it opens.
    ///
    /// Who comes last decides: a connection that shares joins also one that did not say so, and one that does
    /// not say so displaces all. They are on one reactor, so their callbacks never run at the same time. What
    /// is sent to [`crate::Recipient::session`] reaches all of them. The session lives on with its last
    /// connection; [`Context::session_connections`] tells how many there are. One session has
    /// [`crate::Limits::connections_per_session`] of them at most; one more is refused with 429. Each takes a
    /// place of its own under `limit_concurrency`.
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{Acceptance, Application, Context, Message, Recipient, Refusal, Upgrade};
    ///
    /// /// What is written in one tab stands in all.
    /// struct Notes;
    ///
    /// impl Application for Notes {
    ///     type Session = String;
    ///     type Connection = ();
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         Ok(upgrade.accept().share())
    ///     }
    ///
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
    ///         cx.session_mut().push_str(text);
    ///         let (all_tabs, note) = (Recipient::session(&cx.session_id()), cx.session().clone());
    ///         cx.send_text_to(all_tabs, &note);
    ///     }
    /// }
    ///
    /// let server = TestServer::new(|_| Notes);
    /// let (first, second) = (server.connect("session_id=ann"), server.connect("session_id=ann"));
    /// first.send_text("milk");
    /// second.send_text(", bread");
    /// for tab in [first, second] {
    ///     assert_eq!((tab.text(), tab.text()), ("milk".to_owned(), "milk, bread".to_owned()));
    /// }
    /// ```
    pub fn share(mut self) -> Self {
        if let Some(terms) = self.terms("share") {
            terms.joining = Joining::Shares;
        }
        self
    }

    /// Has the connection keep its request, for [`Context::request`]: some hundred bytes and the text of
    /// path and query, which the limits on targets bound.
    pub fn keep_request(mut self) -> Self {
        if let Some(terms) = self.terms("keep_request") {
            terms.request = KeepRequest::Asked;
        }
        self
    }

    /// Takes to the open connection what was found out here: `opening` is called right before
    /// [`Application::on_open`].
    pub fn then(mut self, opening: impl FnOnce(&mut A, &mut Context<'_, A>) + 'static) -> Self {
        if let Some(terms) = self.terms("then") {
            terms.opening = Some(Contained::new(Box::new(opening)));
        }
        self
    }

    /// Undoes what was done here, if the WebSocket does not open after all: the server is full, say, and
    /// answers 503 (`docs/protocol.md` has the list), or the client has connected again meanwhile, and
    /// this request gets 409. Exactly one of the two is called: `not_opening`, or [`Application::on_open`] (with
    /// what stands in [`Self::then`] before it; if that panics, `not_opening`).
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{
    ///     Acceptance, Application, CloseReason, Config, Context, Message, Refusal, Upgrade,
    /// };
    ///
    /// /// Has so many seats.
    /// struct Theatre {
    ///     seats: u32,
    /// }
    ///
    /// impl Application for Theatre {
    ///     type Session = ();
    ///     type Connection = ();
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         let Some(left) = self.seats.checked_sub(1) else {
    ///             return Err(Refusal::new::<409>("sold out"));
    ///         };
    ///         self.seats = left;
    ///         Ok(upgrade.accept().otherwise(|theatre, _| theatre.seats += 1))
    ///     }
    ///
    ///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    ///
    ///     fn on_close(&mut self, _: &mut Context<'_, Self>, _: CloseReason) {
    ///         self.seats += 1;
    ///     }
    /// }
    ///
    /// let workers = std::num::NonZeroUsize::MIN;
    /// let config = Config { workers, limit_concurrency: Some(workers), ..Config::default() };
    /// let server = TestServer::with_config(config, |_| Theatre { seats: 2 });
    /// let ann = server.connect("");
    /// assert_eq!(server.request().connect().unwrap_err().status, 503);
    /// assert_eq!(server.application(0, |theatre| theatre.seats), 1);
    /// ```
    pub fn otherwise(
        mut self,
        not_opening: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) + 'static,
    ) -> Self {
        if let Some(terms) = self.terms("otherwise") {
            terms.not_opening = Some(Contained::new(Box::new(not_opening)));
        }
        self
    }
}

impl<A: Application> Terms<A> {
    /// What was taken on other reactors for this upgrade is given back there, if the WebSocket does not open.
    pub(crate) fn undo_unless_open(&mut self, undos: Vec<Undo<A>>) {
        let otherwise = self.not_opening.take();
        let not_opening = move |application: &mut A, cx: &mut ReactorContext<'_, A>| {
            // First: what the application does here may panic.
            undos.into_iter().for_each(|undo| cx.commands.undo(undo));
            if let Some(otherwise) = otherwise.and_then(Contained::into_inner) {
                otherwise(application, cx);
            }
        };
        self.not_opening = Some(Contained::new(Box::new(not_opening)));
    }

    /// Sees to the subprotocol: without one of the application's choice, that which the settings choose.
    pub(crate) fn complete(&mut self, upgrade: &Upgrade<'_, A>, subprotocols: &Subprotocols) {
        self.seen = upgrade.seen();
        // RFC 6455 4.2.2: only what this client offers may be chosen, not what another one did.
        if let Some(chosen) = &self.subprotocol
            && !upgrade.subprotocols().any(|offered| offered == chosen)
        {
            static TOLD: Once = Once::new();
            let what = format_args!("the subprotocol {chosen} was not offered, and is not chosen");
            tell_misuse(&TOLD, what);
            self.subprotocol = None;
        }
        if self.subprotocol.is_none() {
            let chosen = subprotocols.choose(|| upgrade.subprotocols());
            self.subprotocol = chosen.map(|name| name.to_owned().into());
        }
        if self.request == KeepRequest::Asked {
            let (path, query) = (upgrade.path().to_owned(), upgrade.query().to_owned());
            let subprotocol = self.subprotocol.as_deref().map(str::to_owned);
            self.request = KeepRequest::Kept(Box::new(OpenedRequest { path, query, subprotocol }));
        }
    }
}

impl<A: Application> fmt::Debug for Acceptance<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Acceptance");
        if let Answer::Now(terms) = &self.0 {
            text.field("subprotocol", &terms.subprotocol);
        }
        text.finish_non_exhaustive()
    }
}

/// No, with a status and a text that says why.
///
/// ```
/// use revolve::Refusal;
///
/// let fixed = Refusal::new::<403>("members only");
/// let room = 7;
/// let made = Refusal::new::<404>(format!("there is no room {room}"));
/// let for_programs = Refusal::json_error::<409>("the room is full");
/// ```
///
/// A status that is no error cannot be refused with:
///
/// ```compile_fail
/// let refusal = revolve::Refusal::new::<200>("fine");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: Reason,
    /// Whole lines.
    pub(crate) fields: String,
}

/// The content of a refusal.
#[derive(Debug, Clone)]
pub(crate) enum Reason {
    /// A line for a person: plain text, and its end is not there yet.
    Line(Cow<'static, str>),
    /// Of this type, and sent as it is.
    Typed { kind: Cow<'static, str>, text: Cow<'static, str> },
}

impl Reason {
    /// What it says.
    pub(crate) fn text(&self) -> &str {
        match self {
            Reason::Line(text) | Reason::Typed { text, .. } => text,
        }
    }

    /// Its type, and the bytes that are sent.
    pub(crate) fn content(&self) -> (&str, Cow<'_, str>) {
        match self {
            Reason::Line(text) => (TEXT, Cow::Owned(format!("{text}\n"))),
            Reason::Typed { kind, text } => (kind, Cow::Borrowed(text)),
        }
    }
}

impl Refusal {
    /// With `STATUS`, from 400 to 599. The connection closes behind it.
    ///
    /// `reason` is the content of the response, plain text, and gets a line end. Text of the request may
    /// stand in it, if the application puts it there: the content of a response ends where its length says.
    pub fn new<const STATUS: u16>(reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal::with_reason::<STATUS>(Reason::Line(reason.into()))
    }

    /// With `STATUS`, and a text that is JSON already: `application/json`. It is sent as it is, and not
    /// checked.
    pub fn json<const STATUS: u16>(json: impl Into<Cow<'static, str>>) -> Self {
        let kind = "application/json".into();
        Refusal::with_reason::<STATUS>(Reason::Typed { kind, text: json.into() })
    }

    /// With `STATUS`, and `{"error": "…"}`, in which `message` is escaped.
    pub fn json_error<const STATUS: u16>(message: &str) -> Self {
        Refusal::json::<STATUS>(error_in_json(message))
    }

    fn with_reason<const STATUS: u16>(reason: Reason) -> Self {
        const { assert!(STATUS >= 400 && STATUS <= 599, "a refusal has a status from 400 to 599") };
        Refusal { status: STATUS, reason, fields: String::new() }
    }

    /// With content of another type than plain text, `text/html; charset=utf-8` say. The text is sent as
    /// it is, without a line end.
    ///
    /// # Errors
    ///
    /// [`InvalidField::Value`], if the type could not stand in a head.
    pub fn content_type(
        mut self,
        content_type: impl Into<Cow<'static, str>>,
    ) -> Result<Self, InvalidField> {
        let kind = content_type.into();
        check_content_type(&kind)?;
        let (Reason::Line(text) | Reason::Typed { text, .. }) = self.reason;
        self.reason = Reason::Typed { kind, text };
        Ok(self)
    }

    /// With a header field: `WWW-Authenticate`, `Retry-After`.
    ///
    /// # Errors
    ///
    /// [`InvalidField`], which as a [`Refusal`] is a 500; so `?` does what is right.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidField> {
        push_field(name, value, &mut self.fields)?;
        Ok(self)
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase of the status.
    pub(crate) fn phrase(&self) -> &'static str {
        reason_phrase(self.status).unwrap_or("Refused")
    }
}

impl From<InvalidField> for Refusal {
    fn from(error: InvalidField) -> Refusal {
        log::error!("an upgrade is refused with 500: {error}");
        Refusal::new::<500>("internal error")
    }
}

#[cfg(test)]
mod tests {
    use super::super::HttpResponse;
    use super::*;
    use crate::apps::echo::Echo;
    use crate::config::Config;
    use crate::protocol::ProtocolLimits;
    use crate::protocol::head::header_slots;

    fn look<T>(target: &str, fields: &str, look: impl FnOnce(&Upgrade<'_, Echo>) -> T) -> T {
        look_at(target, fields.as_bytes(), look)
    }

    fn look_at<T>(target: &str, fields: &[u8], look: impl FnOnce(&Upgrade<'_, Echo>) -> T) -> T {
        let line = format!("GET {target} HTTP/1.1\r\nHost: a\r\n");
        let head = [line.as_bytes(), fields, b"\r\n"].concat();
        let mut slots = header_slots();
        let request =
            Request::parse(&head, &mut slots, &ProtocolLimits::from(&Config::default())).unwrap();
        let peer = Peer::Unix;
        let now = Instant::now();
        look(&Upgrade {
            has_looked: Cell::new(false),
            request: &request,
            peer,
            certificate: None,
            now,
            session_id: None,
            session: None,
            reactor: 0,
            reactors: 1,
        })
    }

    #[test]
    fn parameters_are_decoded_and_the_first_counts() {
        for (query, expected) in [
            ("token=a", Some("a")),
            ("x=1&token=a%20b&token=c", Some("a b")),
            ("token=gr%C3%BCezi", Some("grüezi")),
            ("token=a+b", Some("a+b")),
            ("token", Some("")),
            ("token=%0D%0AX: y", Some("\r\nX: y")),
            ("tokens=a", None),
            ("token=%F", None),
            ("token=%zz", None),
            ("token=%FF", None),
            ("", None),
        ] {
            let target = format!("/ws?{}", query.replace(' ', "%20"));
            let found =
                look(&target, "", |upgrade| upgrade.parameter("token").map(Cow::into_owned));
            assert_eq!(found.as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn headers_and_cookies_are_found_in_any_case() {
        let fields = "AUTHORIZATION: Bearer x\r\nCookie: a=1; sid=s%20id; b\r\ncookie: c=3\r\n";
        look("/ws", fields, |upgrade| {
            assert_eq!(upgrade.header("Authorization"), Some("Bearer x"));
            assert_eq!(upgrade.header("x"), None);
            assert_eq!(upgrade.cookie("sid"), Some("s%20id"));
            assert_eq!(upgrade.cookie("c"), Some("3"));
            assert_eq!((upgrade.cookie("id"), upgrade.cookie("b")), (None, None));
            assert_eq!(upgrade.headers().count(), 4);
        });
    }

    #[test]
    fn bytes_above_ascii_are_lent_out_as_they_are_and_hide_nothing_else() {
        let fields = b"Cookie: a=\xff; city=M\xc3\xbcnchen; sid=7\r\nUser-Agent: caf\xe9\r\n\
                       User-Agent: second\r\nX-Name: Z\xc3\xbcrich\r\n\
                       Sec-WebSocket-Protocol: v\xff, v1\xc2\xa0, v2\r\n";
        look_at("/ws", fields, |upgrade| {
            assert_eq!(upgrade.cookie("sid"), Some("7"));
            assert_eq!(upgrade.cookie("city"), Some("M\u{fc}nchen"));
            assert_eq!(upgrade.cookie("a"), None);
            assert_eq!(upgrade.header("x-name"), Some("Z\u{fc}rich"));
            // Not the second one: that would be to skip what another reader takes.
            assert_eq!(upgrade.header("user-agent"), None);
            assert_eq!(upgrade.headers().filter(|(name, _)| *name == "User-Agent").count(), 1);
            let agents = upgrade.raw_headers().filter(|(name, _)| *name == "User-Agent");
            let agents: Vec<_> = agents.map(|(_, value)| value).collect();
            assert_eq!(agents, [&b"caf\xe9"[..], b"second"]);
            // A no-break space is no white space of HTTP's (RFC 9110 5.6.3).
            assert_eq!(upgrade.subprotocols().collect::<Vec<_>>(), ["v1\u{a0}", "v2"]);
            assert!(upgrade.choose_subprotocol(&["v1"]).is_none());
        });
    }

    #[test]
    fn the_servers_preference_decides_among_what_is_offered() {
        let fields = "Sec-WebSocket-Protocol: v1 ,v3\r\nSec-WebSocket-Protocol: v2,,\r\n";
        look("/ws", fields, |upgrade| {
            assert_eq!(upgrade.subprotocols().collect::<Vec<_>>(), ["v1", "v3", "v2"]);
            let chosen =
                |spoken: &[&'static str]| upgrade.choose_subprotocol(spoken).map(Subprotocol::name);
            assert_eq!(chosen(&["v4", "v2", "v1"]), Some("v2"));
            assert_eq!(chosen(&["V1"]), None, "names are case-sensitive");
            assert_eq!(chosen(&[]), None);
        });
        look("/ws", "", |upgrade| assert_eq!(upgrade.choose_subprotocol(&["v1"]), None));
    }

    #[test]
    fn no_field_ends_a_line_or_frames_the_response() {
        for (name, value, expected) in [
            ("Set-Cookie", "a=b; HttpOnly", Ok(())),
            ("X-Empty", "", Ok(())),
            ("X", "a\r\nSet-Cookie: b", Err(InvalidField::Value)),
            ("X", "a\nb", Err(InvalidField::Value)),
            ("X", "a\0b", Err(InvalidField::Value)),
            ("X", "grüezi", Err(InvalidField::Value)),
            ("X: y\r\nZ", "a", Err(InvalidField::Name)),
            ("X Y", "a", Err(InvalidField::Name)),
            ("", "a", Err(InvalidField::Name)),
            ("connection", "keep-alive", Err(InvalidField::Reserved)),
            ("Content-Length", "5", Err(InvalidField::Reserved)),
            ("Sec-WebSocket-Extensions", "permessage-deflate", Err(InvalidField::Reserved)),
            ("X-Session-ID", "mine", Err(InvalidField::Reserved)),
            ("X-Session-Resumed", "true", Err(InvalidField::Reserved)),
            ("X-Session-Count", "1", Ok(())),
        ] {
            let accepted = Acceptance::<Echo>::default().header(name, value).map(drop);
            assert_eq!(accepted, expected, "{name:?}: {value:?}");
            let refused = Refusal::new::<403>("no").header(name, value).map(drop);
            assert_eq!(refused, expected, "{name:?}: {value:?}");
            let answered = HttpResponse::empty::<200>().header(name, value).map(drop);
            assert_eq!(answered, expected, "{name:?}: {value:?}");
        }
    }

    #[test]
    fn a_refusal_says_its_text_in_its_type() {
        let html = Refusal::new::<403>("<p>no</p>").content_type("text/html").unwrap();
        for (refusal, kind, text) in [
            (Refusal::new::<403>("no"), TEXT, "no\n"),
            (Refusal::new::<404>(format!("no room {}", 7)), TEXT, "no room 7\n"),
            (Refusal::json::<409>(r#"{"full": true}"#), "application/json", r#"{"full": true}"#),
            (
                Refusal::json_error::<409>("\"full\""),
                "application/json",
                r#"{"error": "\"full\""}"#,
            ),
            (html, "text/html", "<p>no</p>"),
        ] {
            let (found, content) = refusal.reason.content();
            assert_eq!((found, &*content), (kind, text));
        }
        let split =
            Refusal::new::<403>("no").content_type("text/html\r\nSet-Cookie: a=b").map(drop);
        assert_eq!(split, Err(InvalidField::Value));
        assert_eq!(Refusal::new::<403>("no").content_type("").map(drop), Err(InvalidField::Value));
    }
}

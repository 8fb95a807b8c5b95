//! The clients of a [`TestServer`]: tungstenite's, and plain requests, at the other end of a wire.
//!
//! Next: `store`: what outlives a server.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error as WsError, Message, WebSocket};

use super::TestServer;
use super::wire::Wire;
use crate::application::Application;
use crate::protocol::head::MAX_HEADERS;

/// How much a client's end takes without being read, if its request does not say: what a real socket
/// buffers.
const ROOM: usize = 1 << 20;

/// Name and value of a header field.
type Field = (String, String);

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The end.
    Closed {
        /// The code of the server's Close; 1005 if it had none, 1006 if there was no Close.
        code: u16,
        /// The text in it.
        reason: String,
    },
}

/// An answer that is not 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status code.
    pub status: u16,
    /// The fields of its head, in order.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub body: String,
}

/// A message could not be sent: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionClosed;

impl fmt::Display for ConnectionClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closed")
    }
}

impl Error for ConnectionClosed {}

impl Refused {
    /// The first header field with this name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }
}

fn field<'a>(headers: &'a [Field], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// The response to a plain request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResponse {
    /// The status code.
    pub status: u16,
    /// The fields of its head, in order.
    pub headers: Vec<(String, String)>,
    /// Its content.
    pub body: Vec<u8>,
}

impl TestResponse {
    /// The first header field with this name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    /// The content as text.
    ///
    /// # Panics
    ///
    /// If it is no UTF-8.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.body) {
            Ok(text) => text,
            Err(error) => panic!("the content is no text: {error}"),
        }
    }
}

/// One client's end of a wire.
#[derive(Debug)]
pub(super) struct Line {
    wire: Rc<RefCell<Wire>>,
    socket: Option<WebSocket<ClientEnd>>,
    received: VecDeque<Received>,
    state: State,
}

/// Whether a client reads what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reads,
    /// It has stopped: what comes stays in the socket's buffer, and behind that with the server.
    IsDeaf,
    /// Nothing more comes.
    IsOver,
}

impl Line {
    pub(super) fn new(room: usize) -> Self {
        let wire = Rc::new(RefCell::new(Wire::new(room, 0)));
        Line { wire, socket: None, received: VecDeque::new(), state: State::Reads }
    }

    pub(super) fn wire(&self) -> &Rc<RefCell<Wire>> {
        &self.wire
    }

    /// Reads what has come, and answers pings and a Close; whether there was anything.
    pub(super) fn listen(&mut self) -> bool {
        // Most clients have heard nothing, and there may be thousands.
        let has_come = {
            let wire = self.wire.borrow();
            wire.has_output() || wire.has_ended()
        };
        has_come && self.hear()
    }

    /// The same, with what was read already: what came behind the head of the response.
    fn hear(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let waiting = self.wire.borrow().down.len();
        let mut has_heard = false;
        while self.state == State::Reads {
            let received = match socket.read() {
                Ok(Message::Text(text)) => Received::Text(text.as_str().to_owned()),
                Ok(Message::Binary(bytes)) => Received::Binary(bytes.to_vec()),
                Ok(Message::Close(close)) => {
                    let (code, reason) = close.map_or((1005, String::new()), |close| {
                        (close.code.into(), close.reason.as_str().to_owned())
                    });
                    Received::Closed { code, reason }
                }
                Ok(_) => {
                    has_heard = true;
                    continue;
                }
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.state = State::IsOver;
                    self.wire.borrow_mut().end_if_open();
                    let was_told = matches!(self.received.back(), Some(Received::Closed { .. }));
                    if was_told {
                        return true;
                    }
                    Received::Closed { code: 1006, reason: String::new() }
                }
            };
            has_heard = true;
            self.received.push_back(received);
        }
        // The answer to a ping or to a Close.
        let _ = socket.flush();
        // Part of a message makes room for its rest.
        has_heard || self.wire.borrow().down.len() < waiting
    }
}

/// The bytes of a wire, for tungstenite.
#[derive(Debug)]
struct ClientEnd(Rc<RefCell<Wire>>);

impl io::Read for ClientEnd {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let bytes = wire.receive(room.len());
        if bytes.is_empty() && !wire.has_ended() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        room[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl io::Write for ClientEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.closed || wire.fin || wire.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        wire.send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An upgrade that was not sent yet.
#[must_use = "nothing is sent before `connect`"]
pub struct TestRequest<A: Application> {
    server: TestServer<A>,
    path: String,
    query: String,
    fields: String,
    peer: Option<SocketAddr>,
    reactor: Option<usize>,
    receive_buffer: usize,
}

impl<A: Application> TestRequest<A> {
    pub(super) fn new(server: TestServer<A>) -> Self {
        let path = server.0.borrow().ws_path.trim_end_matches('*').to_owned();
        let (query, fields) = (String::new(), String::new());
        TestRequest { server, path, query, fields, peer: None, reactor: None, receive_buffer: ROOM }
    }

    /// Another path than the server's own.
    pub fn path(self, path: &str) -> Self {
        TestRequest { path: path.to_owned(), ..self }
    }

    /// What stands behind the question mark.
    pub fn query(self, query: &str) -> Self {
        TestRequest { query: query.to_owned(), ..self }
    }

    /// One more header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.fields, "{name}: {value}\r\n");
        self
    }

    /// The subprotocols offered, the one liked best first.
    pub fn subprotocols(self, offered: &[&str]) -> Self {
        self.header("Sec-WebSocket-Protocol", &offered.join(", "))
    }

    /// Where it comes from.
    pub fn peer(self, peer: SocketAddr) -> Self {
        TestRequest { peer: Some(peer), ..self }
    }

    /// Which reactor accepts it; else each does in its turn. A session that is named is served by its owner
    /// in the end ([`crate::owner_of`]), and a new one where it was accepted.
    pub fn reactor(self, reactor: usize) -> Self {
        TestRequest { reactor: Some(reactor), ..self }
    }

    /// How many bytes wait in the client's socket until it reads them. 1 MiB, if this is not said. Beyond
    /// it they wait with the server: [`Context::waiting_bytes`](crate::Context::waiting_bytes).
    pub fn receive_buffer(self, bytes: usize) -> Self {
        TestRequest { receive_buffer: bytes, ..self }
    }

    /// Sends it.
    ///
    /// # Errors
    ///
    /// What was answered if not 101.
    ///
    /// # Panics
    ///
    /// If nothing was answered: the server has ended, or the answer waits for a job. [`Self::begin`] is for
    /// those who expect that.
    #[track_caller]
    pub fn connect(self) -> Result<TestClient<A>, Refused> {
        self.begin().answer()
    }

    /// Sends it, and waits for no answer: it may have to wait for a job ([`crate::Upgrade::defer`],
    /// [`TestServer::hold_jobs`]).
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{Acceptance, Application, Context, Message, Refusal, Upgrade};
    ///
    /// struct Slow;
    ///
    /// impl Application for Slow {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         upgrade.defer(|| (), |_, upgrade, ()| Ok(upgrade.accept()))
    ///     }
    ///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    /// }
    ///
    /// let server = TestServer::new(|_| Slow);
    /// server.hold_jobs();
    /// let upgrade = server.request().begin();
    /// assert!(!upgrade.is_answered());
    /// server.run_job(0);
    /// assert!(upgrade.answer().is_ok());
    /// ```
    ///
    /// # Panics
    ///
    /// If the server has ended.
    #[track_caller]
    pub fn begin(self) -> TestUpgrade<A> {
        let TestRequest { server, path, query, fields, peer, reactor, receive_buffer } = self;
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let head = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        let line = server.0.borrow_mut().dial(reactor, peer, receive_buffer);
        let wire = server.0.borrow().lines[line].wire.clone();
        assert!(!wire.borrow().closed, "the server has ended");
        wire.borrow_mut().send(head.as_bytes());
        server.settle();
        TestUpgrade { server, line }
    }
}

/// An upgrade that was sent ([`TestRequest::begin`]). Dropped, its client waits on.
#[must_use = "whether it was accepted is in its answer"]
pub struct TestUpgrade<A: Application> {
    server: TestServer<A>,
    line: usize,
}

impl<A: Application> TestUpgrade<A> {
    /// Whether there is an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.server.settle();
        self.wire().borrow().has_output()
    }

    /// The client resets its connection.
    pub fn disconnect(self) {
        self.wire().borrow_mut().reset();
        self.server.settle();
    }

    fn wire(&self) -> Rc<RefCell<Wire>> {
        self.server.0.borrow().lines[self.line].wire.clone()
    }

    /// The answer.
    ///
    /// # Errors
    ///
    /// What was answered if not 101.
    ///
    /// # Panics
    ///
    /// If there is none yet.
    #[track_caller]
    pub fn answer(self) -> Result<TestClient<A>, Refused> {
        let wire = self.wire();
        let TestUpgrade { server, line } = self;
        let mut answer = Vec::new();
        // Through a small buffer it comes in pieces.
        let (length, status, headers) = loop {
            server.settle();
            let more = wire.borrow_mut().receive(usize::MAX);
            answer.extend_from_slice(&more);
            match response(&answer) {
                Some(found) => break found,
                None if more.is_empty() => {
                    panic!("no answer to the upgrade: {:?}", String::from_utf8_lossy(&answer));
                }
                None => {}
            }
        };
        let rest = answer[length..].to_vec();
        if status != 101 {
            let body = String::from_utf8_lossy(&rest).into_owned();
            wire.borrow_mut().end_if_open();
            server.settle();
            return Err(Refused { status, headers, body });
        }
        // What the server sends is not the kit's to bound.
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let config = config.max_message_size(None).max_frame_size(None);
        let end = ClientEnd(wire);
        let socket = WebSocket::from_partially_read(end, rest, Role::Client, Some(config));
        let mut world = server.0.borrow_mut();
        world.lines[line].socket = Some(socket);
        world.lines[line].hear();
        drop(world);
        server.settle();
        Ok(TestClient { server, line, headers })
    }
}

/// A plain request that was not sent yet.
#[must_use = "nothing is sent before `send`"]
pub struct TestHttpRequest<A: Application> {
    server: TestServer<A>,
    method: String,
    target: String,
    fields: String,
    body: Vec<u8>,
    peer: Option<SocketAddr>,
    reactor: Option<usize>,
}

impl<A: Application> TestHttpRequest<A> {
    pub(super) fn new(server: TestServer<A>, method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        TestHttpRequest {
            server,
            method,
            target,
            fields: String::new(),
            body: Vec::new(),
            peer: None,
            reactor: None,
        }
    }

    /// One more header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.fields, "{name}: {value}\r\n");
        self
    }

    /// With content, of which the length is told in `Content-Length`.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        TestHttpRequest { body: body.into(), ..self }
    }

    /// Where it comes from.
    pub fn peer(self, peer: SocketAddr) -> Self {
        TestHttpRequest { peer: Some(peer), ..self }
    }

    /// Which reactor accepts and answers it; else each does in its turn.
    pub fn reactor(self, reactor: usize) -> Self {
        TestHttpRequest { reactor: Some(reactor), ..self }
    }

    /// Sends it on a connection of its own, which ends behind the response.
    ///
    /// # Panics
    ///
    /// If nothing was answered: the request was not whole, the response waits for a job, or the server has
    /// ended. If there is no such reactor.
    #[track_caller]
    pub fn send(self) -> TestResponse {
        self.begin().answer()
    }

    /// Sends it, and waits for no answer: it may have to wait for a job
    /// ([`ReactorContext::respond_later`](crate::ReactorContext::respond_later), [`TestServer::hold_jobs`]).
    ///
    /// # Panics
    ///
    /// If the server has ended. If there is no such reactor.
    #[track_caller]
    pub fn begin(self) -> TestExchange<A> {
        let TestHttpRequest { server, method, target, fields, body, peer, reactor } = self;
        let length = match body.is_empty() {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}{fields}\r\n");
        let line = server.0.borrow_mut().dial(reactor, peer, ROOM);
        let wire = server.0.borrow().lines[line].wire.clone();
        assert!(!wire.borrow().closed, "the server has ended");
        wire.borrow_mut().send(&[head.as_bytes(), &body].concat());
        server.settle();
        TestExchange { server, wire }
    }
}

/// A plain request that was sent ([`TestHttpRequest::begin`]). Dropped, its client waits on.
#[must_use = "what came of it is in its answer"]
pub struct TestExchange<A: Application> {
    server: TestServer<A>,
    wire: Rc<RefCell<Wire>>,
}

impl<A: Application> TestExchange<A> {
    /// Whether there is an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.server.settle();
        self.wire.borrow().has_output()
    }

    /// The client resets its connection.
    pub fn disconnect(self) {
        self.wire.borrow_mut().reset();
        self.server.settle();
    }

    /// The response. The connection ends behind it.
    ///
    /// # Panics
    ///
    /// If there is none yet.
    #[track_caller]
    pub fn answer(self) -> TestResponse {
        let TestExchange { server, wire } = self;
        let mut answer = Vec::new();
        loop {
            server.settle();
            let more = wire.borrow_mut().receive(usize::MAX);
            if more.is_empty() {
                break;
            }
            answer.extend(more);
        }
        wire.borrow_mut().end_if_open();
        server.settle();
        // RFC 9110 15.2: what is only informational comes before the response.
        let mut rest = &answer[..];
        loop {
            let Some((length, status, headers)) = response(rest) else {
                panic!("no answer to the request: {:?}", String::from_utf8_lossy(&answer));
            };
            rest = &rest[length..];
            if status >= 200 {
                return TestResponse { status, headers, body: rest.to_vec() };
            }
        }
    }
}

/// Length, status and fields of the response head that `bytes` begin with.
fn response(bytes: &[u8]) -> Option<(usize, u16, Vec<Field>)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let fields = head.headers.iter().map(|field| (field.name.to_owned(), text(field.value)));
    Some((length, head.code?, fields.collect()))
}

/// An open WebSocket's client. Dropped, it stays connected, and answers pings: leaving is
/// [`Self::close`] or [`Self::disconnect`].
pub struct TestClient<A: Application> {
    server: TestServer<A>,
    line: usize,
    headers: Vec<Field>,
}

// Not derived: that would ask the same of the application. With it, `unwrap_err` works on an upgrade.
impl<A: Application> fmt::Debug for TestClient<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").field("line", &self.line).finish_non_exhaustive()
    }
}

impl<A: Application> TestClient<A> {
    /// Sends a text message.
    ///
    /// # Panics
    ///
    /// If the connection is closed.
    #[track_caller]
    pub fn send_text(&self, text: &str) {
        self.send(Message::text(text));
    }

    /// Sends a binary message.
    ///
    /// # Panics
    ///
    /// If the connection is closed.
    #[track_caller]
    pub fn send_binary(&self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec()));
    }

    /// Sends a text message, if the connection is not closed.
    ///
    /// # Errors
    ///
    /// It is closed: nothing was sent.
    pub fn try_send_text(&self, text: &str) -> Result<(), ConnectionClosed> {
        self.try_send(Message::text(text))
    }

    /// Sends a binary message, if the connection is not closed.
    ///
    /// # Errors
    ///
    /// It is closed: nothing was sent.
    pub fn try_send_binary(&self, bytes: &[u8]) -> Result<(), ConnectionClosed> {
        self.try_send(Message::binary(bytes.to_vec()))
    }

    #[track_caller]
    fn send(&self, message: Message) {
        if let Err(error) = self.try_send(message) {
            panic!("cannot send: {error}");
        }
    }

    fn try_send(&self, message: Message) -> Result<(), ConnectionClosed> {
        let sent = self.with(|line| line.socket.as_mut().map(|socket| socket.send(message)));
        if !matches!(sent, Some(Ok(()))) {
            return Err(ConnectionClosed);
        }
        self.server.settle();
        Ok(())
    }

    /// Reads no more: what the server sends fills the socket's buffer ([`TestRequest::receive_buffer`]), and
    /// then waits with the server. What had been read before can still be had from [`Self::receive`]. Pings
    /// are not answered meanwhile.
    pub fn stop_reading(&self) {
        self.with(|line| {
            if line.state == State::Reads {
                line.state = State::IsDeaf;
            }
        });
    }

    /// Reads on: all that waits, before this returns, and whatever comes.
    pub fn resume_reading(&self) {
        self.with(|line| {
            if line.state == State::IsDeaf {
                line.state = State::Reads;
            }
        });
        self.server.settle();
    }

    /// What has come next, if anything has.
    #[must_use]
    pub fn receive(&self) -> Option<Received> {
        self.with(|line| line.received.pop_front())
    }

    /// The text message that has come next.
    ///
    /// # Panics
    ///
    /// If nothing has come, or something else.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> String {
        match self.receive() {
            Some(Received::Text(text)) => text,
            other => panic!("not a text message, but {other:?}"),
        }
    }

    /// The code with which the connection has ended ([`Received::Closed`]), if it has and that was not
    /// received yet. What came before it can still be received.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        self.with(|line| match line.received.back() {
            Some(Received::Closed { code, .. }) => Some(*code),
            _ => None,
        })
    }

    /// Says Close and waits for the answer.
    pub fn close(&self, code: u16, reason: &str) {
        let close = CloseFrame { code: code.into(), reason: reason.into() };
        self.with(|line| {
            if let Some(socket) = &mut line.socket {
                // One that is closed already stays closed.
                let _ = socket.close(Some(close));
            }
        });
        self.server.settle();
    }

    /// Vanishes without a word, as a crashed host does.
    pub fn disconnect(&self) {
        self.with(|line| {
            line.state = State::IsOver;
            line.wire.borrow_mut().reset();
        });
        self.server.settle();
    }

    /// A field of the 101.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.headers, name)
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> String {
        self.header("X-Session-Id").unwrap_or_default().to_owned()
    }

    fn with<T>(&self, look: impl FnOnce(&mut Line) -> T) -> T {
        look(&mut self.server.0.borrow_mut().lines[self.line])
    }
}

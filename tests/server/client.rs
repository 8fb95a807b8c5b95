//! What the tests share: a server that ends with its test, a client that speaks bytes, and
//! tungstenite's client. Asserts nothing of its own but that an answer comes. Used by every
//! module of `tests/server.rs`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Once;
use std::time::{Duration, Instant};
use std::{panic, thread};

use revolve::{
    Address, Application, Config, Counter, Echo, LiveSettings, Liveness, ReactorStart, Server,
    ServerHandle, ShutdownTrigger, Summary,
};
use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::handshake::client::Response as Upgraded;
use tungstenite::{Message, WebSocket};

/// How long an answer may take on a machine that has other things to do. Never how long one does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Where the WebSocket is.
pub(crate) const PATH: &str = "/ws/chat/";

/// The defaults on a free port, with so many reactors, in a hurry to end.
pub(crate) fn config(workers: usize) -> Config {
    Config {
        listen: vec![on_port(0)],
        workers: NonZeroUsize::new(workers).unwrap(),
        timeout_graceful_shutdown: Duration::from_secs(2),
        access_log: false,
        ..Config::default()
    }
}

/// A port of the loopback address; 0 is a free one.
pub(crate) fn on_port(port: u16) -> Address {
    SocketAddr::from(([127, 0, 0, 1], port)).into()
}

/// Waits for what happens on its own.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Keeps panics on reactors, which some applications here are made for, out of the output.
pub(crate) fn quiet_reactors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_reactor = |name: &str| name.starts_with("reactor-");
            if !thread::current().name().is_some_and(is_reactor) {
                loud(info);
            }
        }));
    });
}

// --- the server ------------------------------------------------------------------------------

/// The handle of a server, whichever application that has.
pub(crate) trait Handle: Send + Sync {
    fn shutdown(&self);
    fn trigger(&self) -> ShutdownTrigger;
    fn metrics(&self) -> String;
    fn live_settings(&self) -> LiveSettings;
    fn liveness(&self) -> Liveness;
    fn join(self: Box<Self>) -> Summary;
}

impl<A: Application> Handle for ServerHandle<A> {
    fn shutdown(&self) {
        ServerHandle::shutdown(self);
    }

    fn trigger(&self) -> ShutdownTrigger {
        self.shutdown_trigger()
    }

    fn metrics(&self) -> String {
        ServerHandle::metrics(self)
    }

    fn live_settings(&self) -> LiveSettings {
        ServerHandle::live_settings(self)
    }

    fn liveness(&self) -> Liveness {
        ServerHandle::liveness(self)
    }

    fn join(self: Box<Self>) -> Summary {
        ServerHandle::join(*self)
    }
}

/// A server that ends with its test.
pub(crate) struct Running {
    handle: Option<Box<dyn Handle>>,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn new<A: Application>(
        config: Config,
        make: impl Fn(ReactorStart<A>) -> A + Send + Sync + 'static,
    ) -> Running {
        let handle = Server::builder().config(config).serve(make).unwrap();
        Running { address: handle.addresses()[0].tcp().unwrap(), handle: Some(Box::new(handle)) }
    }

    /// One that counts, without heartbeats.
    pub(crate) fn counter(config: Config) -> Running {
        Running::new(config, |_| Counter::new(None))
    }

    pub(crate) fn echo(config: Config) -> Running {
        Running::new(config, |_| Echo)
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect(&self) -> Raw {
        Raw::new(TcpStream::connect(self.address).unwrap())
    }

    /// A connection whose window is small, so that what it does not read soon stands still.
    pub(crate) fn connect_narrow(&self) -> Raw {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Raw::new(socket.into())
    }

    /// An open WebSocket, `query` being what stands behind the question mark.
    pub(crate) fn open(&self, query: &str) -> Raw {
        self.open_with_head(query).0
    }

    /// The same, with the head of the 101.
    pub(crate) fn open_with_head(&self, query: &str) -> (Raw, Head) {
        let mut raw = self.connect();
        raw.send(upgrade(query));
        let head = raw.head();
        assert_eq!(head.status, 101, "{head:?}");
        (raw, head)
    }

    /// Asks for a WebSocket that is refused.
    pub(crate) fn refused(&self, query: &str) -> Response {
        let mut raw = self.connect();
        raw.send(upgrade(query));
        let response = raw.response();
        raw.at_end();
        response
    }

    /// tungstenite's client.
    pub(crate) fn client(&self, query: &str) -> (WebSocket<TcpStream>, Upgraded) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}{PATH}?{query}", self.address);
        tungstenite::client(url, stream).unwrap()
    }

    /// The sum of a metric's samples whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        metric(&self.metrics(), name, label)
    }

    pub(crate) fn metrics(&self) -> String {
        self.handle().metrics()
    }

    /// Waits until a metric's sum is `value`. How many sessions there are, left early or expired is told at the end of a
    /// turn, and may come behind what else the turn has changed: that a WebSocket is gone does not say that they are told.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, label: &str, value: u64) {
        eventually(&format!("{name}{{{label}}} = {value}"), || self.metric(name, label) == value);
    }

    pub(crate) fn handle(&self) -> &dyn Handle {
        &**self.handle.as_ref().unwrap()
    }

    /// Ends it and tells how it went.
    pub(crate) fn shut_down(mut self) -> Summary {
        let handle = self.handle.take().unwrap();
        handle.shutdown();
        handle.join()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown();
            // A test that failed has said why; it must not also hang.
            if !thread::panicking() {
                assert_eq!(handle.join().panicked, 0, "every reactor ended in good order");
            }
        }
    }
}

/// The sum of the samples called `name` whose labels contain `label`, on a page of metrics.
pub(crate) fn metric(page: &str, name: &str, label: &str) -> u64 {
    let samples = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(label)
    });
    let mut values = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    let first = values.next().unwrap_or_else(|| panic!("no {name} with {label}"));
    first + values.sum::<u64>()
}

// --- bytes -----------------------------------------------------------------------------------

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// An upgrade, `query` being what stands behind the question mark.
pub(crate) fn upgrade(query: &str) -> String {
    format!(
        "GET {PATH}?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The two to ten bytes that begin a frame with this first byte; `mask` is the bit of a client.
fn frame_header(first: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(mask | length as u8),
        126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes
}

/// A client's frame, masked. `first` holds FIN and the opcode.
pub(crate) fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x0f, 0xf0, 0x55, 0xaa];
    let payload = payload.as_ref();
    let mut bytes = frame_header(first, payload.len(), 0x80);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A server's frame, as it must look.
pub(crate) fn plain_frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = frame_header(first, payload.len(), 0);
    bytes.extend(payload);
    bytes
}

/// The payload of a Close.
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A client's Close.
pub(crate) fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, close_payload(code, ""))
}

/// Head of a response.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Head {
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.filter(|line| !line.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Head { status, fields: fields.collect() }
    }

    /// Value of a field, by its name in small letters; empty if there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut values = self.fields.iter().filter(|(known, _)| known == name);
        let value = values.next().map_or("", |(_, value)| value);
        assert!(values.next().is_none(), "{name} stands there twice");
        value
    }

    /// What the 101 says of the session: its id, whether it was there, its count.
    pub(crate) fn session(&self) -> (&str, bool, u64) {
        let resumed = match self.field("x-session-resumed") {
            "true" => true,
            "false" => false,
            other => panic!("X-Session-Resumed: {other:?}"),
        };
        (self.field("x-session-id"), resumed, self.field("x-session-count").parse().unwrap())
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: String,
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

/// A client that says exactly what a test tells it to.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(stream: TcpStream) -> Raw {
        stream.set_nodelay(true).unwrap();
        Raw::patient(stream)
    }

    /// By a Unix socket: std's type for TCP reads and writes that too.
    pub(crate) fn of_unix(socket: OwnedFd) -> Raw {
        Raw::patient(socket.into())
    }

    fn patient(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Raw { stream, unread: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a text message.
    #[track_caller]
    pub(crate) fn say(&mut self, text: &str) {
        self.send(frame(TEXT, text));
    }

    /// Reads until `count` bytes are there.
    #[track_caller]
    fn need(&mut self, count: usize) {
        while self.unread.len() < count {
            assert!(self.more(), "the stream ended; unread: {:?}", lossy(&self.unread));
        }
    }

    /// One read; false at the end of the stream.
    #[track_caller]
    fn more(&mut self) -> bool {
        let mut room = [0; 16 << 10];
        match self.stream.read(&mut room) {
            Ok(count) => {
                self.unread.extend_from_slice(&room[..count]);
                count > 0
            }
            Err(error) => panic!("no answer: {error}; unread: {:?}", lossy(&self.unread)),
        }
    }

    #[track_caller]
    fn take(&mut self, count: usize) -> Vec<u8> {
        self.need(count);
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// The next bytes must be these.
    #[track_caller]
    pub(crate) fn exactly(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let got = self.take(expected.len());
        assert_eq!(lossy(&got), lossy(expected));
        assert_eq!(got, expected);
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> Head {
        let mut end = None;
        while end.is_none() {
            end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if end.is_none() {
                self.need(self.unread.len() + 1);
            }
        }
        let head = self.take(end.unwrap() + 4);
        Head::parse(std::str::from_utf8(&head).unwrap())
    }

    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        let head = self.head();
        let length = head.field("content-length").parse().unwrap();
        let body = String::from_utf8(self.take(length)).unwrap();
        Response { head, body }
    }

    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        let header = self.take(2);
        assert_eq!(header[1] & 0x80, 0, "a server does not mask");
        let length = match header[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.take(8).try_into().unwrap()) as usize,
            short => short.into(),
        };
        Frame { first: header[0], payload: self.take(length) }
    }

    /// The next frame must be text.
    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        let Frame { first, payload } = self.frame();
        assert_eq!(first, TEXT, "{}", lossy(&payload));
        String::from_utf8(payload).unwrap()
    }

    /// The next frame must be a Close: its code and reason.
    #[track_caller]
    pub(crate) fn close(&mut self) -> (u16, String) {
        let Frame { first, payload } = self.frame();
        assert_eq!(first, CLOSE, "{}", lossy(&payload));
        let (code, reason) = payload.split_at(2);
        (u16::from_be_bytes(code.try_into().unwrap()), String::from_utf8(reason.to_vec()).unwrap())
    }

    /// The server has ended its half, and nothing stands before that.
    #[track_caller]
    pub(crate) fn at_end(&mut self) {
        let ended = self.unread.is_empty() && !self.more();
        assert!(ended, "more came: {:?}", lossy(&self.unread));
    }

    /// The connection is over, one way or the other: what came before is of no interest.
    #[track_caller]
    pub(crate) fn gone(mut self) {
        let mut room = [0; 64 << 10];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let is_patience = matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    );
                    return assert!(!is_patience, "still there");
                }
            }
        }
    }

    /// The same connection a second time, for a thread that writes while this one reads.
    pub(crate) fn twin(&self) -> Raw {
        Raw { stream: self.stream.try_clone().unwrap(), unread: Vec::new() }
    }

    /// Says nothing more, and goes on listening.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Vanishes with a reset, as a crashed host does.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Sends `bytes` over and over, for as long as the other side takes them and `most` is not
    /// reached; returns how many it took. Reads nothing.
    pub(crate) fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        let mut taken = 0;
        // Full for this long means that nobody reads at the other end: buffers of the kernel do
        // not drain by themselves.
        self.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        while taken < most {
            match self.stream.write(&bytes[taken % bytes.len()..]) {
                Ok(count) => taken += count,
                Err(_) => break,
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        taken
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}

// --- tungstenite's client --------------------------------------------------------------------

/// What the 101 says of the session.
pub(crate) fn session_of(response: &Upgraded) -> (String, bool, u64) {
    let field = |name| response.headers()[name].to_str().unwrap();
    let resumed = field("x-session-resumed") == "true";
    (field("x-session-id").to_owned(), resumed, field("x-session-count").parse().unwrap())
}

/// Sends one message to a counter and returns the count that it answers with.
#[track_caller]
pub(crate) fn count_of(client: &mut WebSocket<TcpStream>) -> u64 {
    client.send(Message::text("hello")).unwrap();
    let reply = client.read().unwrap();
    let digits = reply.to_text().unwrap().trim_start_matches(r#"{"count": "#);
    digits.trim_end_matches('}').parse().unwrap()
}

//! What each side makes of a conversation, in one language: [`ours`] from the sans-IO endpoint,
//! [`theirs`] from tungstenite's server side over a scripted stream. Compares nothing.

use std::io::{self, Read, Write};
use std::time::Instant;

use revolve::config::Config;
use revolve::protocol::ProtocolLimits;
use revolve::protocol::endpoint::{Discarded, Endpoint, Event};
use revolve::protocol::frame::Violation;
use revolve::protocol::message::{Message, Received, Receiver, Scratch};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, WebSocket, error::ProtocolError};

use super::conversation::Conversation;
use super::frames::FrameFacts;

/// Something that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream was over before anything else happened.
    Lost,
    /// A Close came, as it stood in the frame.
    Closed { code: Option<u16>, reason: String },
    /// A rule was broken: the code to close with.
    Failed(u16),
}

/// What was said in return, without the Close that tells of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Pong(Vec<u8>),
    /// The reason in it is nobody's business: RFC 6455 5.5.1 asks for the code at most.
    Close(Option<u16>),
}

/// One side's view.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) seen: Vec<Seen>,
    pub(crate) replies: Vec<Reply>,
    pub(crate) end: End,
}

/// Where we saw a rule broken.
#[derive(Debug)]
pub(crate) struct Breach {
    pub(crate) violation: Violation,
    /// The first byte of the stream that had not been taken.
    pub(crate) at: usize,
}

/// The bytes that have arrived and not been taken, as a connection keeps them between two visits.
#[derive(Default)]
struct Tail {
    bytes: Vec<u8>,
    /// Bytes of the stream before it.
    taken: usize,
}

impl Tail {
    fn drop_front(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.taken += count;
        // The invariant of `message.rs`: what is left is less than a header or a control frame.
        assert!(self.bytes.len() < 14 + 125, "{} bytes are left over", self.bytes.len());
    }
}

fn limits(conversation: &Conversation) -> ProtocolLimits {
    ProtocolLimits {
        message_bytes: conversation.max_size,
        ..ProtocolLimits::from(&Config::default())
    }
}

/// Our view, from the receiver, and the endpoint's, which must be the same.
pub(crate) fn ours(conversation: &Conversation) -> (Verdict, Option<Breach>) {
    let (seen, end, breach) = receive(conversation);
    let (events, replies, endpoint_end) = converse(conversation);
    let expected: Vec<_> = seen.iter().map(as_event).collect();
    assert_eq!(events, expected, "receiver and endpoint disagree");
    assert_eq!(endpoint_end, end_as_event(&end), "receiver and endpoint disagree");
    (Verdict { seen, replies, end }, breach)
}

fn receive(conversation: &Conversation) -> (Vec<Seen>, End, Option<Breach>) {
    let mut receiver = Receiver::default();
    let mut scratch = Scratch::default();
    let mut tail = Tail::default();
    let mut seen = Vec::new();
    let now = Instant::now();
    let max_size = conversation.max_size;
    let mut arrived = 0;
    for piece in conversation.pieces() {
        tail.bytes.extend_from_slice(piece);
        arrived += piece.len();
        let mut at = 0;
        loop {
            match receiver.next(&mut tail.bytes, &mut at, &mut scratch, max_size, now) {
                Ok(None) => break,
                Ok(Some(Received::Message(Message::Text(text)))) => {
                    seen.push(Seen::Text(text.to_owned()));
                }
                Ok(Some(Received::Message(Message::Binary(bytes)))) => {
                    seen.push(Seen::Binary(bytes.to_vec()));
                }
                Ok(Some(Received::Ping(payload))) => seen.push(Seen::Ping(payload.to_vec())),
                Ok(Some(Received::Pong)) => seen.push(Seen::Pong),
                Ok(Some(Received::Inflating)) => panic!("nothing is deflated here"),
                Ok(Some(Received::Close(close))) => {
                    let code = (close.code != CloseCode::Status).then(|| close.code.into());
                    let reason = close.reason.to_owned();
                    return (seen, End::Closed { code, reason }, None);
                }
                Err(violation) => {
                    let end = End::Failed(violation.close_code().into());
                    return (seen, end, Some(Breach { violation, at: tail.taken + at }));
                }
            }
        }
        tail.drop_front(at);
        // Nothing is reserved for what has only been announced; growth may double.
        assert!(receiver.held_bytes() <= 2 * arrived, "memory for bytes that have not come");
    }
    (seen, End::Lost, None)
}

/// What an endpoint's caller gets to know of something seen.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Message(Vec<u8>),
    Control,
}

fn as_event(seen: &Seen) -> Heard {
    match seen {
        Seen::Text(text) => Heard::Message(text.clone().into_bytes()),
        Seen::Binary(bytes) => Heard::Message(bytes.clone()),
        Seen::Ping(_) | Seen::Pong => Heard::Control,
    }
}

fn end_as_event(end: &End) -> Result<Option<u16>, u16> {
    match end {
        End::Lost => Ok(None),
        End::Closed { code, .. } => Ok(Some(code.unwrap_or(CloseCode::Status.into()))),
        End::Failed(code) => Err(*code),
    }
}

type Talk = (Vec<Heard>, Vec<Reply>, Result<Option<u16>, u16>);

fn converse(conversation: &Conversation) -> Talk {
    let limits = limits(conversation);
    let now = Instant::now();
    let mut endpoint = Endpoint::new(now);
    endpoint.open(None, now, &limits);
    let Endpoint::Open(open) = &mut endpoint else { panic!("it was opened") };
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let mut scratch = Scratch::default();
    let mut tail = Tail::default();
    for piece in conversation.pieces() {
        tail.bytes.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match open.next(&mut tail.bytes, &mut at, &mut scratch, &limits, now, &mut out) {
                Ok(None) => break,
                Ok(Some(Event::Message(message))) => {
                    heard.push(Heard::Message(message.as_bytes().to_vec()));
                }
                Ok(Some(Event::Control)) => heard.push(Heard::Control),
                Ok(Some(Event::Inflating)) => panic!("nothing is deflated here"),
                Ok(Some(Event::PeerClosed(code))) => {
                    return (heard, replies(&out), Ok(Some(code.into())));
                }
                Err(violation) => {
                    return (heard, replies(&out), Err(violation.close_code().into()));
                }
            }
        }
        tail.drop_front(at);
    }
    (heard, replies(&out), Ok(None))
}

/// Reads a server's frames with the layout alone: whole, final, unmasked, in the shortest form.
fn replies(written: &[u8]) -> Vec<Reply> {
    FrameFacts::all(written)
        .map(|frame| {
            assert!(frame.is_whole && frame.is_final() && !frame.is_padded(), "{frame:?}");
            assert_eq!(written[frame.starts + 1] & 0x80, 0, "a server does not mask (5.1)");
            match frame.first {
                0x8a => Reply::Pong(frame.payload),
                0x88 => Reply::Close(frame.payload.first_chunk().map(|c| u16::from_be_bytes(*c))),
                other => panic!("a reply that starts with {other:#x}"),
            }
        })
        .collect()
}

/// A stream that serves the pieces one by one, with `WouldBlock` in between, takes whatever is
/// written, and ends.
pub(crate) struct Script<'a> {
    pieces: Vec<&'a [u8]>,
    has_blocked: bool,
    pub(crate) written: Vec<u8>,
}

impl<'a> Script<'a> {
    pub(crate) fn new(pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        // Empty ones would read as the end of the stream. The last one first: `pop` is cheap.
        let mut pieces: Vec<_> = pieces.filter(|piece| !piece.is_empty()).collect();
        pieces.reverse();
        Script { pieces, has_blocked: false, written: Vec::new() }
    }
}

impl Read for Script<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.has_blocked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let Some(mut piece) = self.pieces.pop() else { return Ok(0) };
        let count = piece.read(buffer)?;
        if piece.is_empty() {
            self.has_blocked = false;
        } else {
            self.pieces.push(piece);
        }
        Ok(count)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(conversation: &Conversation) -> WebSocket<Script<'_>> {
    let config = WebSocketConfig::default()
        // The default buffer is cleared at each read, 128 KiB of it.
        .read_buffer_size(4096)
        .max_message_size(Some(conversation.max_size))
        .max_frame_size(Some(conversation.max_size));
    WebSocket::from_raw_socket(Script::new(conversation.pieces()), Role::Server, Some(config))
}

/// Tungstenite's view. It says nothing about its errors to the peer (field.md, T1), so the code
/// is ours to choose from their kind, as everyone who uses it has to.
pub(crate) fn theirs(conversation: &Conversation) -> Verdict {
    let mut socket = tungstenite(conversation);
    let mut seen = Vec::new();
    let mut closed = None;
    let end = loop {
        match socket.read() {
            Ok(tungstenite::Message::Text(text)) => seen.push(Seen::Text(text.to_string())),
            Ok(tungstenite::Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(tungstenite::Message::Ping(payload)) => seen.push(Seen::Ping(payload.to_vec())),
            Ok(tungstenite::Message::Pong(_)) => seen.push(Seen::Pong),
            Ok(tungstenite::Message::Close(frame)) => closed = Some(frame),
            Ok(tungstenite::Message::Frame(_)) => panic!("reading yields no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Said once the answer to the peer's Close has been written.
            Err(Error::ConnectionClosed) => {
                let frame = closed.expect("a Close was seen");
                let (code, reason) = match frame {
                    Some(frame) => (Some(frame.code.into()), frame.reason.to_string()),
                    None => (None, String::new()),
                };
                break End::Closed { code, reason };
            }
            Err(error) => break failure(&error),
        }
    };
    Verdict { seen, replies: replies(&socket.get_ref().written), end }
}

fn failure(error: &Error) -> End {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Lost,
        Error::Protocol(_) => End::Failed(1002),
        Error::Utf8(_) => End::Failed(1007),
        Error::Capacity(_) => End::Failed(1009),
        other => panic!("tungstenite: {other}"),
    }
}

/// Whether the peer's half of the closing is over, for an endpoint that has said Close at once.
pub(crate) fn ours_after_our_close(conversation: &Conversation) -> bool {
    let limits = limits(conversation);
    let now = Instant::now();
    let mut endpoint = Endpoint::new(now);
    let mut out = Vec::new();
    endpoint.open(None, now, &limits);
    endpoint.close(CloseCode::Away, "", now, &limits, &mut out);
    let mut scratch = Scratch::default();
    let mut tail = Tail::default();
    for piece in conversation.pieces() {
        tail.bytes.extend_from_slice(piece);
        let mut at = 0;
        let discarded = endpoint.discard(&mut tail.bytes, &mut at, &mut scratch, &limits, now);
        if discarded == Discarded::UpToNextState {
            return true;
        }
        tail.drop_front(at);
    }
    false
}

/// The same of tungstenite.
pub(crate) fn theirs_after_our_close(conversation: &Conversation) -> bool {
    let mut socket = tungstenite(conversation);
    let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
    socket.close(Some(close)).expect("the script takes everything");
    loop {
        match socket.read() {
            Ok(tungstenite::Message::Close(_)) => return true,
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return failure(&error) != End::Lost,
        }
    }
}

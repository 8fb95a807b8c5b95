//! One case of the table: what a client sends, and what an echo server must make of it. Built in
//! the order of the conversation, so that a case reads as one. Runs nothing.

use crate::wire::{self, Reply};

/// A good opening handshake but for its last empty line; the key is that of RFC 6455 1.3.
const HEAD: &str = "GET /ws/chat/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n";

/// How a case ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The WebSocket is still open.
    Open,
    /// The client's Close came and was answered.
    Closed,
    /// The server saw a rule broken and said Close with this code.
    Failed(u16),
    /// There was no WebSocket: the response had this status and this in its head.
    Refused(u16, &'static str),
}

/// A case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// A number of Autobahn's where the case is Autobahn's, else a word and a number. What stands
    /// behind a slash tells variants of a case apart.
    pub(crate) id: String,
    /// A key of the table of clauses.
    pub(crate) clause: &'static str,
    pub(crate) what: String,
    /// The request.
    pub(crate) head: String,
    pub(crate) max_size: usize,
    /// Whether the server says Close (1001) as soon as the WebSocket is open.
    pub(crate) server_closes: bool,
    /// The client's frames up to the byte that decides how it ends: neither earlier nor later.
    pub(crate) sent: Vec<u8>,
    /// What the client sends behind that; it must change nothing.
    pub(crate) after: Vec<u8>,
    /// Of a server that speaks permessage-deflate: what it must answer to the offer, if anything.
    pub(crate) deflate: Option<Option<String>>,
    /// What the server must have sent in the end.
    pub(crate) replies: Vec<Reply>,
    pub(crate) end: End,
}

/// Begins a case.
pub(crate) fn case(id: impl Into<String>, clause: &'static str, what: impl Into<String>) -> Case {
    Case {
        id: id.into(),
        clause,
        what: what.into(),
        head: format!("{HEAD}\r\n"),
        max_size: 16 << 20,
        server_closes: false,
        sent: Vec::new(),
        after: Vec::new(),
        deflate: None,
        replies: Vec::new(),
        end: End::Open,
    }
}

impl Case {
    /// With this limit for a message.
    pub(crate) fn limit(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// With this field in the request.
    pub(crate) fn with_field(mut self, field: &str) -> Self {
        self.head = format!("{HEAD}{field}\r\n\r\n");
        self
    }

    /// To a server that speaks permessage-deflate, without an offer.
    pub(crate) fn without_offer(mut self) -> Self {
        self.deflate = Some(None);
        self
    }

    /// With this offer, to a server that speaks permessage-deflate and agrees to this.
    pub(crate) fn with_offer(self, offer: &str, agreed: Option<&str>) -> Self {
        let mut case = self.with_field(&format!("Sec-WebSocket-Extensions: {offer}"));
        case.deflate = Some(agreed.map(str::to_owned));
        case
    }

    /// Whether the server speaks permessage-deflate.
    pub(crate) fn server_deflates(&self) -> bool {
        self.deflate.is_some()
    }

    /// With that part of the request replaced.
    pub(crate) fn with_head(mut self, find: &str, put: &str) -> Self {
        assert!(self.head.contains(find), "{find:?} is in the request");
        self.head = self.head.replacen(find, put, 1);
        self
    }

    /// The client sends these bytes.
    pub(crate) fn sends(mut self, bytes: impl AsRef<[u8]>) -> Self {
        assert_eq!(self.end, End::Open, "{}: what comes now is `then`", self.id);
        self.sent.extend_from_slice(bytes.as_ref());
        self
    }

    /// The client sends these frames.
    pub(crate) fn sends_all(self, frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        frames.into_iter().fold(self, Case::sends)
    }

    /// The server has sent this next.
    pub(crate) fn hears(mut self, reply: Reply) -> Self {
        self.replies.push(reply);
        self
    }

    /// The echo of a text message, deflated.
    pub(crate) fn hears_deflated(self, text: impl Into<String>) -> Self {
        self.hears(Reply::Deflated(Box::new(Reply::Text(text.into()))))
    }

    /// The echo of a text message.
    pub(crate) fn hears_text(self, text: impl Into<String>) -> Self {
        self.hears(Reply::Text(text.into()))
    }

    /// The echo of a binary message.
    pub(crate) fn hears_binary(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.hears(Reply::Binary(bytes.into()))
    }

    pub(crate) fn hears_pong(self, payload: impl Into<Vec<u8>>) -> Self {
        self.hears(Reply::Pong(payload.into()))
    }

    /// A message there and back.
    pub(crate) fn echoes_text(self, text: &str) -> Self {
        self.sends(wire::text(text)).hears_text(text)
    }

    /// A message there and back.
    pub(crate) fn echoes_binary(self, bytes: &[u8]) -> Self {
        self.sends(wire::binary(bytes)).hears_binary(bytes)
    }

    /// The client sends a frame that is wrong, and its `nth` byte, counted from 1, shows it: the
    /// server fails the connection there, with this code.
    pub(crate) fn breaks(mut self, code: u16, frame: impl AsRef<[u8]>, nth: usize) -> Self {
        let (before, behind) = frame.as_ref().split_at(nth);
        self = self.sends(before).hears(Reply::Close(Some(code)));
        self.end = End::Failed(code);
        self.then(behind)
    }

    /// The same, with the frame's last byte.
    pub(crate) fn breaks_when_whole(self, code: u16, frame: impl AsRef<[u8]>) -> Self {
        let nth = frame.as_ref().len();
        self.breaks(code, frame, nth)
    }

    /// The client sends this Close, and the server answers with its code.
    pub(crate) fn closes(mut self, frame: impl AsRef<[u8]>, code: Option<u16>) -> Self {
        self = self.sends(frame);
        if !self.server_closes {
            self = self.hears(Reply::Close(code));
        }
        self.end = End::Closed;
        self
    }

    /// What the client sends when all is decided.
    pub(crate) fn then(mut self, bytes: impl AsRef<[u8]>) -> Self {
        assert_ne!(self.end, End::Open, "{}: nothing is decided yet", self.id);
        self.after.extend_from_slice(bytes.as_ref());
        self
    }

    /// The server says Close first.
    pub(crate) fn after_the_servers_close(mut self) -> Self {
        self.server_closes = true;
        self.hears(Reply::Close(Some(1001)))
    }

    /// After the server's Close: the client's frame is wrong at its `nth` byte. There is nothing
    /// left to say.
    pub(crate) fn breaks_silently(mut self, frame: impl AsRef<[u8]>, nth: usize) -> Self {
        let (before, behind) = frame.as_ref().split_at(nth);
        self = self.sends(before);
        self.end = End::Closed;
        self.then(behind)
    }

    /// The request is refused with this status, and this stands in the response's head.
    pub(crate) fn refused_with(mut self, status: u16, field: &'static str) -> Self {
        self.end = End::Refused(status, field);
        self
    }

    /// Checks the head of a response. An opened WebSocket has the accept key of the RFC's
    /// example, and neither a subprotocol nor an extension, whatever was offered (4.2.2, 9.1), but
    /// for the one that the case names.
    pub(crate) fn check_head(&self, head: &str) -> Result<(), String> {
        let wanted: &[&str] = match self.end {
            End::Refused(_, field) => &[field],
            _ => &[
                "HTTP/1.1 101 Switching Protocols\r\n",
                "\r\nUpgrade: websocket\r\n",
                "\r\nConnection: Upgrade\r\n",
                "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            ],
        };
        let status = match self.end {
            End::Refused(status, _) => status,
            _ => 101,
        };
        if !head.starts_with(&format!("HTTP/1.1 {status} ")) {
            return Err(format!("not {status}: {head:?}"));
        }
        if let Some(missing) = wanted.iter().find(|wanted| !head.contains(**wanted)) {
            return Err(format!("{missing:?} is missing: {head:?}"));
        }
        let mut head = head.to_owned();
        if let (Some(Some(agreed)), 101) = (&self.deflate, status) {
            let field = format!("\r\nSec-WebSocket-Extensions: {agreed}\r\n");
            if !head.contains(&field) {
                return Err(format!("{field:?} is missing: {head:?}"));
            }
            head = head.replacen(&field, "\r\n", 1);
        }
        let lower = head.to_lowercase();
        for unwanted in ["\r\nsec-websocket-extensions:", "\r\nsec-websocket-protocol:"] {
            if lower.contains(unwanted) {
                return Err(format!("{unwanted:?} was agreed to: {head:?}"));
            }
        }
        Ok(())
    }
}

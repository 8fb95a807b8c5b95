//! What a client says and hears, as bytes: a request, frames, and the reading of what comes back.
//!
//! It reads like a real one: response head, then frames. It knows nothing of the server but its
//! bytes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::chance::Chance;
#[cfg(feature = "deflate")]
use super::recorder::LARGEST;
use super::streams::Wire;
use super::veil::Veil;

/// What came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Status of a response, and the count it told.
    Response(u16, Option<u64>),
    Text(String),
    Close(u16),
    Ping,
}

/// The request of a client that wants a WebSocket.
pub fn upgrade(query: &str) -> Vec<u8> {
    upgrade_at(&format!("/ws/chat/{query}"))
}

/// The request of a client that wants to be told what the reactors do.
pub fn watch() -> Vec<u8> {
    upgrade_at("/ws/stats")
}

fn upgrade_at(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// A plain request that the application answers with the sum of its content's bytes; and that sum. Now
/// and then its client waits to be told to go on, but not for ever.
pub fn sum_request(chance: &mut Chance) -> (Vec<u8>, u64) {
    let length = chance.pick(&[0, 1, 5, 59, 60]);
    let content: Vec<u8> = (0..length).map(|_| chance.next() as u8).collect();
    let expect = if chance.percent(20) { "Expect: 100-continue\r\n" } else { "" };
    let later = chance.pick(&["", "", "", "?later=job", "?later=asks"]);
    let head =
        format!("POST /sum{later} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{expect}\r\n");
    let sum = content.iter().copied().map(u64::from).sum();
    ([head.as_bytes(), &content].concat(), sum)
}

fn mask_of(chance: &mut Chance) -> [u8; 4] {
    (chance.next() as u32).to_ne_bytes()
}

/// A client's frame, masked.
pub fn frame(first: u8, payload: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        medium => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
    }
    let mask = mask_of(chance);
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What a deflated message says (RFC 7692 7.2.2).
#[cfg(feature = "deflate")]
fn inflated(mut payload: Vec<u8>) -> Vec<u8> {
    payload.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut out = Vec::with_capacity(LARGEST + 100);
    let mut stream = flate2::Decompress::new(false);
    stream.decompress_vec(&payload, &mut out, flate2::FlushDecompress::Sync).expect("it inflates");
    assert_eq!(stream.total_in(), payload.len() as u64, "longer than any message");
    out
}

/// What has come from the server and has not been understood yet.
#[derive(Debug, Default)]
pub struct Hearing {
    unread: Vec<u8>,
    /// From here on there are frames.
    pub is_open: bool,
    /// The session that the 101 named.
    pub session: Option<String>,
}

impl Hearing {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next thing that is there whole.
    pub fn next_heard(&mut self) -> Option<Heard> {
        if !self.is_open {
            return self.next_response();
        }
        let [first, second, ..] = self.unread[..] else { return None };
        let (start, length) = match second {
            0..=125 => (2, usize::from(second)),
            126 => {
                let bytes = [*self.unread.get(2)?, *self.unread.get(3)?];
                (4, usize::from(u16::from_be_bytes(bytes)))
            }
            _ => panic!("a frame longer than any reply: {second}"),
        };
        if self.unread.len() < start + length {
            return None;
        }
        let payload: Vec<u8> = self.unread.drain(..start + length).skip(start).collect();
        Some(match first {
            0x81 => Heard::Text(String::from_utf8(payload).expect("text is UTF-8")),
            #[cfg(feature = "deflate")]
            0xc1 => Heard::Text(String::from_utf8(inflated(payload)).expect("text is UTF-8")),
            0x88 => Heard::Close(u16::from_be_bytes([payload[0], payload[1]])),
            0x89 => Heard::Ping,
            0x8a => return self.next_heard(),
            _ => panic!("a frame that the server must not send: {first:x}"),
        })
    }

    fn next_response(&mut self) -> Option<Heard> {
        let end = self.unread.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.unread[..end].to_vec()).expect("heads are ASCII");
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|v| v.trim().parse().ok())
        };
        let length: u64 = field("Content-Length:").unwrap_or(0);
        if (self.unread.len() as u64) < end as u64 + length {
            return None;
        }
        self.unread.drain(..end + length as usize);
        let status = head[9..12].parse().expect("a status");
        if status == 101 {
            self.is_open = true;
            self.session = head
                .lines()
                .find_map(|line| line.strip_prefix("X-Session-Id: "))
                .map(str::to_owned);
        }
        Some(Heard::Response(status, field("X-Session-Count:")))
    }
}

/// A client's end of a connection.
#[derive(Debug)]
pub struct Line {
    pub address: SocketAddr,
    pub wire: Rc<RefCell<Wire>>,
    pub hearing: Hearing,
    /// Refused, or told Close.
    pub is_over: bool,
    /// Counts heard on this connection.
    pub counts: Vec<u64>,
    /// What is between it and the wire, if it is encrypted.
    veil: RefCell<Option<Veil>>,
}

impl Line {
    pub fn new(address: SocketAddr, wire: Wire) -> Line {
        let (wire, hearing) = (Rc::new(RefCell::new(wire)), Hearing::default());
        Line {
            address,
            wire,
            hearing,
            is_over: false,
            counts: Vec::new(),
            veil: RefCell::new(None),
        }
    }

    /// It is encrypted, by TLS 1.2 or 1.3.
    pub fn encrypt(&self, is_old: bool) {
        self.wire.borrow_mut().is_encrypted = true;
        *self.veil.borrow_mut() = Veil::new(is_old, false);
    }

    /// Says something, if anybody can still hear it.
    pub fn say(&self, bytes: &[u8]) {
        match &mut *self.veil.borrow_mut() {
            None => self.send(bytes),
            Some(veil) => {
                veil.say(bytes);
                self.send(&veil.take(usize::MAX));
            }
        }
    }

    fn send(&self, bytes: &[u8]) {
        let mut wire = self.wire.borrow_mut();
        if !wire.fin && !wire.reset && !wire.closed {
            wire.send(bytes);
        }
    }

    /// Whether nothing more is to be had from it.
    pub fn is_cut(&self) -> bool {
        let wire = self.wire.borrow();
        self.is_over || wire.closed || wire.reset
    }

    /// Reads up to `most` bytes and answers what must be; whether there was anything.
    pub fn act(&mut self, most: usize, chance: &mut Chance, heard: &mut Vec<Heard>) -> bool {
        let mut wire = self.wire.borrow_mut();
        let mut bytes = wire.receive(most);
        if bytes.is_empty() {
            let says_goodbye = wire.server_fin && !wire.fin && !wire.reset && !wire.closed;
            if says_goodbye {
                wire.end();
            }
            return says_goodbye;
        }
        drop(wire);
        if let Some(veil) = &mut *self.veil.borrow_mut() {
            bytes = veil.hear(&bytes);
            self.send(&veil.take(usize::MAX));
        }
        self.hearing.feed(&bytes);
        while let Some(next) = self.hearing.next_heard() {
            match &next {
                Heard::Ping => self.say(&frame(0x8a, b"", chance)),
                Heard::Close(code) => {
                    self.say(&frame(0x88, &code.to_be_bytes(), chance));
                    self.is_over = true;
                }
                Heard::Response(400.., _) => self.is_over = true,
                Heard::Text(text) => self.counts.extend(text.parse::<u64>()),
                Heard::Response(..) => {}
            }
            heard.push(next);
        }
        true
    }
}

//! A case against the sans-IO core: head, handshake, endpoint and frames, put together as the
//! shard does it, around an echo. No sockets, no shard, no sessions; the bytes come in whatever
//! pieces the caller cuts.

use std::time::Instant;

use revolve::config::Config;
use revolve::http::{self, Body, Rejection};
use revolve::protocol::ProtocolLimits;
use revolve::protocol::deflate::{self, DeflateParams, DeflateWriter, Deflater};
use revolve::protocol::endpoint::{Closing, Discarded, Endpoint, Event, QueueLeft, Unread};
use revolve::protocol::frame;
use revolve::protocol::handshake::{self, Accept};
use revolve::protocol::head::{self, Request};
use revolve::protocol::message::{Message, Scratch};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use crate::case::{Case, End};
use crate::wire;

/// What inflating may cost at a time, as in [`revolve::config::Limits`]; any will do.
const INFLATE_SHARE: usize = 512 << 10;

/// The server's side of one connection.
struct EchoServer<'c> {
    case: &'c Case,
    limits: ProtocolLimits,
    endpoint: Endpoint,
    tail: Vec<u8>,
    scratch: Scratch,
    deflater: Deflater,
    written: Vec<u8>,
    has_half_closed: bool,
    now: Instant,
}

impl<'c> EchoServer<'c> {
    fn new(case: &'c Case) -> Self {
        let now = Instant::now();
        let limits = ProtocolLimits {
            message_bytes: case.max_size,
            ..ProtocolLimits::from(&Config::default())
        };
        EchoServer {
            case,
            deflater: Deflater::new(&limits),
            limits,
            endpoint: Endpoint::new(now),
            tail: Vec::new(),
            scratch: Scratch::default(),
            written: Vec::new(),
            has_half_closed: false,
            now,
        }
    }

    /// Takes what has arrived as far as it goes; what is written leaves at once.
    fn receive(&mut self, piece: &[u8]) {
        self.scratch.grant_share(INFLATE_SHARE);
        self.tail.extend_from_slice(piece);
        let mut at = 0;
        while self.step(&mut at) {}
        self.tail.drain(..at);
        // Our half ends with a half-close, or with all of the connection.
        let left = self.endpoint.queue_has_left(Unread::Nothing, self.now, &self.limits);
        self.has_half_closed |=
            left == QueueLeft::HalfClose || matches!(self.endpoint, Endpoint::Closed);
    }

    /// One thing from the input; false when no whole one is left.
    fn step(&mut self, at: &mut usize) -> bool {
        let EchoServer { case, limits, endpoint, tail, scratch, deflater, written, now, .. } = self;
        let (now, limits) = (*now, &*limits);
        match endpoint {
            Endpoint::Handshaking(handshaking) => {
                let judged = match handshaking.head_end(&mut tail[*at..], now, limits) {
                    Ok(None) => return false,
                    Ok(Some(length)) => {
                        let head = &tail[*at..*at + length];
                        judge(head, limits, case.server_deflates()).inspect(|_| *at += length)
                    }
                    Err(error) => Err(error.into()),
                };
                match judged {
                    Ok((accept, params)) => {
                        handshake::begin_response(&accept, written);
                        if let Some(params) = params {
                            params.write_field(written);
                        }
                        handshake::end_response(written);
                        endpoint.open(params, now, limits);
                        if case.server_closes {
                            endpoint.close(CloseCode::Away, "", now, limits, written);
                        }
                    }
                    Err(rejection) => {
                        http::refuse(rejection, Body::Sent, &Config::default(), written);
                        endpoint.finish(now, limits);
                    }
                }
                true
            }
            Endpoint::Open(open) => match open.next(tail, at, scratch, limits, now, written) {
                Ok(Some(Event::Message(message))) => {
                    let kind = match message {
                        Message::Text(_) => Data::Text,
                        Message::Binary(_) => Data::Binary,
                    };
                    let payload = message.as_bytes();
                    match DeflateWriter::new(open.params(), deflater) {
                        Some(mut deflate_writer) => {
                            deflate_writer.encode(kind, &[payload], written)
                        }
                        None => frame::encode(OpCode::Data(kind), payload, written),
                    }
                    true
                }
                Ok(Some(Event::Control)) => true,
                Ok(Some(Event::Inflating)) => {
                    scratch.grant_share(INFLATE_SHARE);
                    true
                }
                Ok(Some(Event::PeerClosed(_))) => {
                    endpoint.part(now, limits);
                    true
                }
                Ok(None) => false,
                Err(violation) => {
                    let (code, reason) = (violation.close_code(), violation.reason());
                    endpoint.fail(code, reason, now, limits, written);
                    true
                }
            },
            Endpoint::Closing(_) => {
                endpoint.discard(tail, at, scratch, limits, now) == Discarded::UpToNextState
            }
            Endpoint::Pending(_) | Endpoint::Closed => false,
        }
    }

    /// Whether the client can still change how it ends.
    fn is_undecided(&self) -> bool {
        matches!(
            self.endpoint,
            Endpoint::Handshaking(_)
                | Endpoint::Open(_)
                | Endpoint::Closing(Closing::AwaitingEcho { .. })
        )
    }

    /// Compares what became of it with what the case says.
    fn check(&self) -> Result<(), String> {
        let case = self.case;
        let head = self.written.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, rest) = self.written.split_at(head.ok_or("no response")? + 4);
        case.check_head(&String::from_utf8_lossy(head))?;
        if !matches!(case.end, End::Refused(..)) {
            let replies = wire::read_replies(rest);
            if replies != case.replies {
                return Err(format!("heard {replies:x?}, not {:x?}", case.replies));
            }
        }
        let is_open = case.end == End::Open;
        if self.is_undecided() != is_open || self.has_half_closed == is_open {
            return Err(format!("it ended as {:?}", self.endpoint));
        }
        Ok(())
    }
}

fn judge(
    head: &[u8],
    limits: &ProtocolLimits,
    deflates: bool,
) -> Result<(Accept, Option<DeflateParams>), Rejection> {
    let mut slots = head::header_slots();
    let request = Request::parse(head, &mut slots, limits)?;
    let accept = handshake::judge(&request)?;
    Ok((accept, if deflates { deflate::negotiate(&request)? } else { None }))
}

/// All that the client of a case sends.
pub(crate) fn stream(case: &Case) -> Vec<u8> {
    [case.head.as_bytes(), &case.sent, &case.after].concat()
}

/// Runs a case in these pieces.
pub(crate) fn run<'p>(
    case: &Case,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<(), String> {
    let mut server = EchoServer::new(case);
    pieces.into_iter().for_each(|piece| server.receive(piece));
    server.check()
}

/// Runs a case byte by byte, and sees to it that the byte that decides is the one that the case
/// names, and that nothing behind it changes anything.
pub(crate) fn run_byte_by_byte(case: &Case) -> Result<(), String> {
    let mut server = EchoServer::new(case);
    let up_to = [case.head.as_bytes(), &case.sent].concat();
    for (number, byte) in up_to.chunks(1).enumerate() {
        if !server.is_undecided() {
            let sent = number.saturating_sub(case.head.len());
            return Err(format!("decided after {sent} of {} bytes", case.sent.len()));
        }
        server.receive(byte);
    }
    server.check()?;
    let written = server.written.len();
    for byte in case.after.chunks(1) {
        server.receive(byte);
    }
    if server.written.len() != written {
        return Err("what came when all was decided was answered".to_owned());
    }
    server.check()
}

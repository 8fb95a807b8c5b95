//! Request heads, from the first byte to the response.
//!
//! Input: a byte of style (bit 0: limits that a short input can reach), a byte that says how large
//! the pieces are, then what a client sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use revolve::config::{Config, Limits};
use revolve::http::{self, Body, Persistence, Rejection, Route};
use revolve::protocol::ProtocolLimits;
use revolve::protocol::endpoint::Endpoint;
use revolve::protocol::handshake;
use revolve::protocol::head::{self, HeadError, Request};
use revolve::server_status::ServerStatus;
use revolve::session::SessionId;
use tungstenite::handshake::derive_accept_key;

/// What is known of a head when all has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Incomplete,
    Refused(HeadError),
    /// So many bytes.
    Whole(usize),
}

pub(crate) fn run(data: &[u8]) {
    let Some((&[style, piece], sent)) = data.split_first_chunk() else { return };
    let mut config = Config::default();
    if style & 1 == 1 {
        config.limits = Limits { head_bytes: 120, target_bytes: 24, ..config.limits };
    }
    // An empty line or more may stand before the request.
    let sent = &sent[head::leading_empty_lines(sent)..];
    let at_once = find(sent, sent.len().max(1), &ProtocolLimits::from(&config));
    let in_pieces = find(sent, usize::from(piece).max(1), &ProtocolLimits::from(&config));
    let (at_once, read) = at_once;
    let (in_pieces, read_in_pieces) = in_pieces;
    check_read(sent, &read);
    let answered = match at_once {
        Found::Whole(length) => {
            assert_eq!(read[..length], read_in_pieces[..length]);
            answer(&read[..length], &config)
        }
        Found::Refused(error) => Err(error.into()),
        Found::Incomplete => Ok(()),
    };
    match (at_once, in_pieces) {
        _ if at_once == in_pieces => {}
        // The line is too long before its end has come; with its end, another reason may be found.
        (Found::Whole(_) | Found::Refused(_), Found::Refused(_)) if answered.is_err() => {}
        _ => panic!("at once {at_once:?}, {answered:?}; in pieces {in_pieces:?}"),
    }
    if let Err(rejection) = answered {
        for content in [Body::Sent, Body::Omitted] {
            let mut out = Vec::new();
            http::refuse(rejection, content, &Config::default(), &mut out);
            check_response(&out, content);
        }
    }
}

/// Looks for the end of the head as a connection does: whenever some more bytes have come. And what
/// stands in the receive buffer afterwards.
fn find(sent: &[u8], piece: usize, limits: &ProtocolLimits) -> (Found, Vec<u8>) {
    let mut received = sent.to_vec();
    let found = find_in(&mut received, piece, limits);
    (found, received)
}

/// The only byte that may have been changed is a minor version at the end of the first line.
fn check_read(sent: &[u8], read: &[u8]) {
    let changed: Vec<usize> = (0..sent.len()).filter(|&at| sent[at] != read[at]).collect();
    let [at] = changed[..] else { return assert!(changed.is_empty(), "{changed:?}") };
    assert_eq!(sent.iter().position(|&byte| byte == b'\r'), Some(at + 1));
    assert!(sent[..at].ends_with(b"HTTP/1.") && matches!(sent[at], b'2'..=b'9'));
    assert_eq!(read[at], b'1');
}

fn find_in(sent: &mut [u8], piece: usize, limits: &ProtocolLimits) -> Found {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(now);
    let Endpoint::Handshaking(handshaking) = &mut endpoint else { panic!("it is new") };
    let mut arrived = 0;
    while arrived < sent.len() {
        arrived = (arrived + piece).min(sent.len());
        match handshaking.head_end(&mut sent[..arrived], now, limits) {
            Ok(None) => {}
            Ok(Some(length)) => {
                assert!(length <= arrived && length <= limits.head_bytes);
                assert!(sent[..length].ends_with(b"\r\n\r\n"));
                return Found::Whole(length);
            }
            Err(error) => return Found::Refused(error),
        }
    }
    assert!(sent.len() < limits.head_bytes, "so much, and still no answer");
    Found::Incomplete
}

/// Answers a whole head as a shard does, up to the session.
fn answer(head: &[u8], config: &Config) -> Result<(), Rejection> {
    let mut slots = head::header_slots();
    let request = Request::parse(head, &mut slots, &ProtocolLimits::from(config))?;
    check_request(&request, config);
    let peer = SocketAddr::from(([127, 0, 0, 1], 4711)).into();
    if request.method == "OPTIONS" {
        let mut out = Vec::new();
        let persistence = http::tell_methods(&request, peer, config, &mut out)?;
        assert_eq!(persistence == Persistence::KeepAlive, request.keeps_alive());
        check_response(&out, Body::Sent);
        return Ok(());
    }
    let route = Route::of(&request, peer, config)?;
    if !matches!(route, Route::WebSocket | Route::Figures) {
        let status = ServerStatus::new(1, Rejection::LABELS, Arc::default());
        let mut out = Vec::new();
        let persistence = route.respond(&request, &status, config, Instant::now(), &mut out)?;
        assert_eq!(persistence == Persistence::KeepAlive, request.keeps_alive());
        let content = if request.method == "HEAD" { Body::Omitted } else { Body::Sent };
        check_response(&out, content);
        return Ok(());
    }
    let accept = handshake::judge(&request)?;
    let mut keys = request.values("sec-websocket-key");
    let key = keys.next().expect("an upgrade has a key");
    assert_eq!(accept.as_bytes(), derive_accept_key(key).as_bytes());
    assert!(keys.next().is_none() && request.method == "GET" && !request.http_1_0);
    assert!(!request.host.is_empty());
    let mut out = Vec::new();
    handshake::begin_response(&accept, &mut out);
    handshake::end_response(&mut out);
    check_response(&out, Body::Sent);
    SessionId::from_query(request.query)?;
    Ok(())
}

fn check_request(request: &Request<'_, '_>, config: &Config) {
    let is_asterisk = request.path == "*" && request.method == "OPTIONS";
    assert!(is_asterisk || (request.path.starts_with('/') && !request.path.contains('?')));
    let target = request.path.len() + request.query.len();
    assert!(target <= config.limits.target_bytes + 1, "a path that is left out is a slash");
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(is_plain(request.path) && is_plain(request.query) && is_plain(request.method));
    for header in request.headers {
        assert!(is_plain(header.name) && !header.name.is_empty());
        let is_opaque = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | 0x80..);
        assert!(header.value.iter().all(is_opaque));
    }
    assert!(request.http_1_0 || request.values("host").count() == 1);
    assert!(request.host.iter().all(u8::is_ascii_graphic));
}

/// A response is one that any client can read, and is exactly as long as it says.
fn check_response(bytes: &[u8], content: Body) {
    let mut slots = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut slots);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else {
        panic!("no response: {:?}", bytes.escape_ascii().to_string());
    };
    let body = bytes.len() - head;
    let length = response.headers.iter().find(|header| header.name == "Content-Length");
    match (response.code, length) {
        (Some(101), None) => assert_eq!(body, 0),
        (Some(200..), Some(length)) => {
            let said = std::str::from_utf8(length.value).expect("digits");
            assert!(body.to_string() == said || (content == Body::Omitted && body == 0));
        }
        other => panic!("{other:?}"),
    }
}

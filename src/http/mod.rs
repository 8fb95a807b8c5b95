//! Plain HTTP on the same port: health, readiness, metrics, the live page, and how the application's
//! responses and refusals look.
//!
//! Writes whole responses to a buffer and decides nothing about the connection but whether it is
//! kept. `rejection` is the table of the server's own reasons to refuse. Called by the shard with a
//! parsed request, or with the reason why there is none.
//!
//! Invariant: no text of a request ever stands in a response of the server's own (CVE-2020-7695,
//! CVE-2018-1000164). In an application's it may stand in the content, and in fields that are one line.
//!
//! Next: [`crate::http::rejection`]: why a request is refused.

pub mod rejection;

use std::collections::TryReserveError;
use std::time::Instant;

use crate::application::{
    Caching, HttpRequest, HttpResponse, Refusal, RequestBody, ResponseContent, TEXT, reason_phrase,
};
use crate::config::Config;
use crate::observe::page;
use crate::protocol::head::{Content, Request};
use crate::server_status::ServerStatus;
use crate::token::{Entrance, Visitor};
use crate::wall_clock;

pub use rejection::Rejection;

/// What the plain routes answer, as an `Allow` field lists it.
const PLAIN_METHODS: &str = "GET, HEAD, OPTIONS";

/// The same of the WebSocket paths.
const WEBSOCKET_METHODS: &str = "GET, OPTIONS";

/// RFC 9110 15.2.1: what a client is told that waits before it sends its content.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// No cache may keep the response: it is of this moment.
const NO_STORE: &str = "Cache-Control: no-store\r\n";

/// Whether a response has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It has.
    Sent,
    /// "The server MUST NOT send content" in the response to a HEAD (RFC 9110 9.3.2).
    Omitted,
}

/// What becomes of a connection behind a response (RFC 9112 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// It waits for a further request.
    KeepAlive,
    /// It closes.
    Close,
}

impl Persistence {
    /// What a request that is served asks for.
    fn of(request: &Request<'_, '_>) -> Persistence {
        if request.keeps_alive() { Persistence::KeepAlive } else { Persistence::Close }
    }
}

/// What a request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The WebSocket endpoint.
    WebSocket,
    /// `/healthz`: the process answers.
    Health,
    /// `/readyz`: it takes new connections.
    Ready,
    /// `/metrics`.
    Metrics,
    /// `/`: the live page, for whom [`page::admit`] admits.
    Page,
    /// `/ws/stats`: the page's figures, a WebSocket without a session.
    Figures,
}

impl Route {
    /// Where a request leads, if its path leads anywhere, and this peer may go there.
    ///
    /// The WebSocket path also leads there without its last slash; one that ends in `/*` takes in
    /// every path that begins with what stands before the asterisk, except those of the other routes.
    /// Where it takes in `/`, that path has two meanings. A request that asks for a WebSocket gets one.
    /// Any other gets the live page, or, if the page is not for this peer, what a plain request to the
    /// WebSocket path gets.
    ///
    /// With an admin address the other routes lead there and nowhere else, and the WebSocket does not.
    ///
    /// # Errors
    ///
    /// No such path, or why the page and its figures are not for this peer.
    pub fn of(
        request: &Request<'_, '_>,
        visitor: Visitor,
        config: &Config,
    ) -> Result<Route, Rejection> {
        let peer = visitor.peer;
        let is_websocket = leads_to_websocket(request.path, visitor, config);
        match Route::served(request.path, visitor, config) {
            None if is_websocket => Ok(Route::WebSocket),
            None => Err(Rejection::NotFound),
            Some(Route::Page) if is_websocket => {
                let is_page = !request.has_token("upgrade", "websocket")
                    && page::admit(request, peer, config).is_ok();
                Ok(if is_page { Route::Page } else { Route::WebSocket })
            }
            Some(route @ (Route::Page | Route::Figures)) => {
                page::admit(request, peer, config)?;
                Ok(route)
            }
            Some(Route::Metrics) if !config.metrics => Err(Rejection::NotFound),
            Some(route) => Ok(route),
        }
    }

    /// Appends the response to a request for one of the plain routes, and tells what becomes of the
    /// connection.
    ///
    /// # Errors
    ///
    /// A method other than GET and HEAD, or content.
    pub fn respond(
        self,
        request: &Request<'_, '_>,
        status: &ServerStatus,
        config: &Config,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Persistence, Rejection> {
        let content = match request.method {
            "GET" => Body::Sent,
            "HEAD" => Body::Omitted,
            _ => return Err(Rejection::MethodNotAllowed(PLAIN_METHODS)),
        };
        if request.has_body() {
            return Err(Rejection::UnexpectedBody);
        }
        let is_ready =
            status.draining_since().is_none() && !status.is_recovering() && !status.is_store_away();
        let persistence = Persistence::of(request);
        let text;
        let (line, kind, body) = match self {
            Route::Health => ("200 OK", "application/json", r#"{"status": "ok"}"#),
            Route::Ready if is_ready => ("200 OK", "application/json", r#"{"ready": true}"#),
            Route::Ready => ("503 Service Unavailable", "application/json", r#"{"ready": false}"#),
            Route::Metrics => {
                text = status.metrics_page(now);
                ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text.as_str())
            }
            Route::Page => {
                text = page::html(&config.ws_path);
                ("200 OK", "text/html; charset=utf-8", text.as_str())
            }
            Route::WebSocket | Route::Figures => return Err(Rejection::UpgradeRequired),
        };
        let guards = if self == Route::Page { page::FIELDS } else { "" };
        let fields = [guards, connection_field(request, persistence)].concat();
        Response::new(line, kind, &fields, body).write(content, config, out);
        Ok(persistence)
    }

    /// The same, where this visitor is.
    fn served(path: &str, visitor: Visitor, config: &Config) -> Option<Route> {
        let is_here = config.admin.is_none() || visitor.entrance == Entrance::Admin;
        is_here.then(|| Route::fixed(path))?
    }

    /// What stands at a path whatever the settings are.
    fn fixed(path: &str) -> Option<Route> {
        match path {
            "/" => Some(Route::Page),
            "/healthz" => Some(Route::Health),
            "/readyz" => Some(Route::Ready),
            "/metrics" => Some(Route::Metrics),
            page::FIGURES_PATH => Some(Route::Figures),
            _ => None,
        }
    }
}

fn leads_to_websocket(path: &str, visitor: Visitor, config: &Config) -> bool {
    visitor.entrance == Entrance::Public && is_in(path, &config.ws_path)
}

fn is_in(path: &str, ws_path: &str) -> bool {
    path == ws_path
        || ws_path.strip_suffix('/') == Some(path)
        || ws_path.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// Appends the response to an OPTIONS request: which methods its target has (RFC 9110 9.3.7), or, for
/// `*`, which ones the server has. Tells what becomes of the connection.
///
/// `/` is answered to every peer, whether or not there is a page. A load balancer that is given no path
/// asks for it (HAProxy sends `OPTIONS / HTTP/1.0`), and the answer tells nothing of the page.
///
/// # Errors
///
/// No such path, not for this peer, or content.
pub fn tell_methods(
    request: &Request<'_, '_>,
    visitor: Visitor,
    config: &Config,
    out: &mut Vec<u8>,
) -> Result<Persistence, Rejection> {
    let is_websocket = leads_to_websocket(request.path, visitor, config);
    let methods = match Route::served(request.path, visitor, config) {
        None if request.path == "*" => PLAIN_METHODS,
        None if is_websocket => WEBSOCKET_METHODS,
        // Where there is no page for anybody: see above.
        None if request.path == "/" => "OPTIONS",
        None => return Err(Rejection::NotFound),
        Some(Route::Figures) => {
            page::admit(request, visitor.peer, config)?;
            WEBSOCKET_METHODS
        }
        Some(Route::Page) if !config.page => {
            if is_websocket {
                WEBSOCKET_METHODS
            } else {
                "OPTIONS"
            }
        }
        Some(Route::Metrics) if !config.metrics => return Err(Rejection::NotFound),
        Some(_) => PLAIN_METHODS,
    };
    if request.has_body() {
        return Err(Rejection::UnexpectedBody);
    }
    let allow = format!("Allow: {methods}\r\n");
    // 200 and not 204: old clients wait for a length, which a 204 must not have (RFC 9110 8.6).
    let persistence = Persistence::of(request);
    let fields = [&allow, connection_field(request, persistence)].concat();
    let response = Response { kind: None, ..Response::new("200 OK", TEXT, &fields, "") };
    response.write(Body::Sent, config, out);
    Ok(persistence)
}

/// The `Connection` field of the response to a request that is served.
fn connection_field(request: &Request<'_, '_>, persistence: Persistence) -> &'static str {
    match persistence {
        Persistence::Close => "Connection: close\r\n",
        Persistence::KeepAlive if request.http_1_0 => "Connection: keep-alive\r\n",
        Persistence::KeepAlive => "",
    }
}

/// Appends the response for a request that is refused. The connection closes after it.
pub fn refuse(rejection: Rejection, content: Body, config: &Config, out: &mut Vec<u8>) {
    let body = format!("{}\n", rejection.advice());
    let (line, fields) = (rejection.status(), rejection.fields());
    Response::new(line, TEXT, &fields, &body).write(content, config, out);
}

/// Appends the response for an upgrade that the application refuses. The connection closes after it.
pub fn refuse_upgrade(refusal: &Refusal, config: &Config, out: &mut Vec<u8>) {
    let line = format!("{} {}", refusal.status, refusal.phrase());
    let fields = format!("Connection: close\r\n{}", refusal.fields);
    let (kind, body) = refusal.reason.content();
    // An upgrade is a GET, so the response may have content.
    Response::new(&line, kind, &fields, &body).write(Body::Sent, config, out);
}

/// Whether a request for this path is the application's to answer: it is none of the server's own,
/// whether or not that is switched off or leads somewhere here, and does not lead to the WebSocket.
#[must_use]
pub fn leads_to_application(path: &str, visitor: Visitor, config: &Config) -> bool {
    // An OPTIONS for `*` asks about the server (RFC 9110 9.3.7).
    let is_nobodys = Route::fixed(path).is_none() && !is_in(path, &config.ws_path) && path != "*";
    is_nobodys && visitor.entrance == Entrance::Public
}

/// How many bytes of content an application is given with this request, if it reads any.
///
/// # Errors
///
/// They are more than the limit, or a transfer coding hides how many they are. RFC 9112 6.3 lets a server
/// refuse the latter with 411. The connection closes, so what the content would mean as a request does
/// not matter.
pub fn content_length(request: &Request<'_, '_>, config: &Config) -> Result<usize, Rejection> {
    match request.content {
        Content::None => Ok(0),
        Content::Coded => Err(Rejection::LengthRequired),
        Content::Length(length) => match usize::try_from(length) {
            Ok(length) if length <= config.limits.request_body_bytes => Ok(length),
            _ => Err(Rejection::BodyTooLarge),
        },
    }
}

/// Appends the application's response to a request, and tells what becomes of the connection. It closes
/// behind content that nobody has read (RFC 9112 9.3).
///
/// # Errors
///
/// There is no memory for it. Then nothing is appended.
pub fn respond(
    asked: &HttpRequest<'_>,
    response: &HttpResponse,
    config: &Config,
    out: &mut Vec<u8>,
) -> Result<Persistence, TryReserveError> {
    let request = asked.head.0;
    let persistence = match asked.body {
        RequestBody::Whole(_) => Persistence::of(request),
        RequestBody::Unread => Persistence::Close,
    };
    let line =
        format!("{} {}", response.status, reason_phrase(response.status).unwrap_or_default());
    let fields = [connection_field(request, persistence), &response.fields].concat();
    let (kind, body) = match &response.content {
        ResponseContent::Impossible => (None, None),
        ResponseContent::Empty => (None, Some(&[][..])),
        ResponseContent::Bytes { kind, bytes } => (Some(&**kind), Some(&**bytes)),
    };
    let caching = match response.caching {
        Caching::Forbidden => NO_STORE,
        Caching::Chosen => "",
    };
    let content = if request.method == "HEAD" { Body::Omitted } else { Body::Sent };
    let response = Response { line: &line, kind, caching, fields: &fields, body };
    // The server's own pages have bounds; this has none but the application's.
    let lengths = [
        kind.map_or(0, str::len),
        fields.len(),
        config.response_fields.lines().len(),
        body.map_or(0, <[u8]>::len),
    ];
    out.try_reserve(RESPONSE_HEAD_BYTES + lengths.iter().sum::<usize>())?;
    response.write(content, config, out);
    Ok(persistence)
}

/// What else stands in a response's head, at most: a status line, Date, Cache-Control, the name of its
/// content type, and a length of 20 digits.
const RESPONSE_HEAD_BYTES: usize = 256;

/// A response, but for the fields that all of them have.
struct Response<'a> {
    /// Status code and reason phrase.
    line: &'a str,
    /// The type of the content, if there is any.
    kind: Option<&'a str>,
    /// A whole line, or nothing.
    caching: &'static str,
    /// Whole lines.
    fields: &'a str,
    /// `None` where there is not even a length (RFC 9110 8.6).
    body: Option<&'a [u8]>,
}

impl<'a> Response<'a> {
    /// One of the server's own, or a refusal.
    fn new(line: &'a str, kind: &'a str, fields: &'a str, body: &'a str) -> Self {
        let (kind, body) = (Some(kind), Some(body.as_bytes()));
        Response { line, kind, caching: NO_STORE, fields, body }
    }

    fn write(&self, content: Body, config: &Config, out: &mut Vec<u8>) {
        let Response { line, caching, fields, .. } = self;
        // RFC 9110 6.6.1: a server with a clock sends Date.
        let date = httpdate::fmt_http_date(wall_clock::now());
        let kind = self.kind.map_or(String::new(), |kind| format!("Content-Type: {kind}\r\n"));
        let length =
            self.body.map_or(String::new(), |body| format!("Content-Length: {}\r\n", body.len()));
        let more = config.response_fields.lines();
        let head =
            format!("HTTP/1.1 {line}\r\nDate: {date}\r\n{kind}{length}{caching}{fields}{more}\r\n");
        out.extend_from_slice(head.as_bytes());
        if let (Body::Sent, Some(body)) = (content, self.body) {
            out.extend_from_slice(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RESERVED_PATHS;
    use crate::protocol::ProtocolLimits;
    use crate::protocol::head::header_slots;
    use crate::token::Peer;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn answer(request: &str, status: &ServerStatus) -> (String, Option<Persistence>) {
        let mut slots = header_slots();
        let request = Request::parse(
            request.as_bytes(),
            &mut slots,
            &ProtocolLimits::from(&Config::default()),
        )
        .unwrap();
        let config = Config::default();
        let route =
            Route::of(&request, HERE.parse::<SocketAddr>().unwrap().into(), &config).unwrap();
        let mut out = Vec::new();
        let answered = route.respond(&request, status, &config, Instant::now(), &mut out);
        if let Err(rejection) = answered {
            refuse(rejection, Body::Sent, &config, &mut out);
        }
        (String::from_utf8(out).unwrap(), answered.ok())
    }

    const HERE: &str = "127.0.0.1:50000";
    const THERE: &str = "192.0.2.7:50000";

    /// Where a request with these fields leads, from this peer.
    fn route(path: &str, fields: &str, peer: &str, config: &Config) -> Result<Route, Rejection> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let mut slots = header_slots();
        let request =
            Request::parse(head.as_bytes(), &mut slots, &ProtocolLimits::from(&Config::default()))
                .unwrap();
        Route::of(&request, peer.parse::<SocketAddr>().unwrap().into(), config)
    }

    fn with_path(ws_path: &str) -> Config {
        let config = Config { ws_path: ws_path.to_owned(), ..Config::default() };
        config.validate().unwrap();
        config
    }

    #[test]
    fn routes() {
        let at = |path: &str, ws_path: &str| route(path, "", HERE, &with_path(ws_path));
        assert_eq!(at("/ws/chat/", "/ws/chat/"), Ok(Route::WebSocket));
        assert_eq!(at("/ws/chat", "/ws/chat/"), Ok(Route::WebSocket));
        assert_eq!(at("/ws/chat/", "/ws/chat"), Err(Rejection::NotFound));
        assert_eq!(at("/ws/chat//", "/ws/chat/"), Err(Rejection::NotFound));
        assert_eq!(at("/", "/ws/chat/"), Ok(Route::Page));
        assert_eq!(at("/ws/stats", "/ws/chat/"), Ok(Route::Figures));
        assert_eq!(at("//", "/ws/chat/"), Err(Rejection::NotFound));
        for below in ["/rooms/", "/rooms/42", "/rooms/a/b"] {
            assert_eq!(at(below, "/rooms/*"), Ok(Route::WebSocket), "{below}");
            assert_eq!(at(below, "/*"), Ok(Route::WebSocket), "{below}");
        }
        assert_eq!(at("/rooms", "/rooms/*"), Err(Rejection::NotFound));
        assert_eq!(at("/room/1", "/rooms/*"), Err(Rejection::NotFound));
        assert_eq!(at("/healthz", "/*"), Ok(Route::Health));
        assert_eq!(at("/ws/stats", "/*"), Ok(Route::Figures));
    }

    #[test]
    fn with_an_admin_address_each_path_is_at_one_of_the_two() {
        let admin = Some(SocketAddr::from(([127, 0, 0, 1], 9)).into());
        let at = |path: &str, entrance, ws_path: &str, method: &str| {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let config = Config { admin: admin.clone(), ..with_path(ws_path) };
            let mut slots = header_slots();
            let limits = ProtocolLimits::from(&config);
            let request = Request::parse(head.as_bytes(), &mut slots, &limits).unwrap();
            let visitor = Visitor { peer: Peer::Unix, entrance };
            if method == "OPTIONS" {
                tell_methods(&request, visitor, &config, &mut Vec::new()).map(|_| None)
            } else {
                Route::of(&request, visitor, &config).map(Some)
            }
        };
        let own = [
            ("/", Route::Page),
            ("/healthz", Route::Health),
            ("/readyz", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/ws/stats", Route::Figures),
        ];
        for (path, route) in own {
            for (method, found) in [("GET", Some(route)), ("OPTIONS", None)] {
                assert_eq!(at(path, Entrance::Admin, "/chat", method), Ok(found), "{path}");
                assert_eq!(at(path, Entrance::Admin, "/*", method), Ok(found), "{path}");
                let is_root = path == "/" && method == "OPTIONS";
                let public = if is_root { Ok(None) } else { Err(Rejection::NotFound) };
                assert_eq!(at(path, Entrance::Public, "/chat", method), public, "{path}");
            }
            let at_root = at(path, Entrance::Public, "/*", "GET");
            assert_eq!(at_root, Ok(Some(Route::WebSocket)), "{path} is no other's there");
        }
        assert_eq!(at("/chat", Entrance::Public, "/chat", "GET"), Ok(Some(Route::WebSocket)));
        for method in ["GET", "OPTIONS"] {
            let refused = Err(Rejection::NotFound);
            assert_eq!(at("/chat", Entrance::Admin, "/chat", method), refused);
            assert_eq!(at("/rooms/1", Entrance::Admin, "/*", method), refused);
        }
        // What is the application's is so for the public alone.
        let config = Config { admin, ..Config::default() };
        for (entrance, expected) in [(Entrance::Public, true), (Entrance::Admin, false)] {
            let visitor = Visitor { peer: Peer::Unix, entrance };
            assert_eq!(leads_to_application("/notes", visitor, &config), expected);
            assert!(!leads_to_application("/metrics", visitor, &config));
        }
    }

    #[test]
    fn the_root_is_a_websocket_for_who_asks_for_one_and_a_page_for_the_others() {
        let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
        for ws_path in ["/", "/*"] {
            let config = with_path(ws_path);
            let off = Config { page: false, ..config.clone() };
            for peer in [HERE, THERE] {
                assert_eq!(route("/", upgrade, peer, &config), Ok(Route::WebSocket), "{peer}");
                assert_eq!(route("/", upgrade, peer, &off), Ok(Route::WebSocket), "{peer}");
                assert_eq!(route("/", "", peer, &off), Ok(Route::WebSocket), "{peer}: 426");
            }
            assert_eq!(route("/", "", HERE, &config), Ok(Route::Page));
            assert_eq!(route("/", "Upgrade: h2c\r\n", HERE, &config), Ok(Route::Page));
            assert_eq!(route("/", "", THERE, &config), Ok(Route::WebSocket), "426");
        }
        // Elsewhere nothing has changed.
        let config = with_path("/chat");
        assert_eq!(route("/", upgrade, HERE, &config), Ok(Route::Page));
        assert_eq!(route("/", "", THERE, &config), Err(Rejection::NotForPeer));
    }

    #[test]
    fn metrics_can_be_switched_off() {
        for ws_path in ["/ws/chat/", "/*"] {
            let config = Config { metrics: false, ..with_path(ws_path) };
            assert_eq!(route("/metrics", "", HERE, &config), Err(Rejection::NotFound));
            assert_eq!(route("/ws/stats", "", HERE, &config), Ok(Route::Figures));
        }
    }

    #[test]
    fn the_reserved_paths_are_those_that_are_fixed() {
        for path in RESERVED_PATHS {
            assert!(Route::fixed(path).is_some(), "{path}");
        }
        // And the page's, which shares its path.
        let routes = RESERVED_PATHS.iter().filter_map(|path| Route::fixed(path)).count() + 1;
        let all = [Route::Health, Route::Ready, Route::Metrics, Route::Page, Route::Figures];
        assert_eq!(routes, all.len());
    }

    #[test]
    fn readiness_follows_the_drain() {
        let status = ServerStatus::new(1, Rejection::LABELS, Arc::default());
        let get = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
        let (ready, persistence) = answer(get, &status);
        assert!(ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.ends_with("{\"ready\": true}"));
        assert_eq!(persistence, Some(Persistence::KeepAlive));
        status.expect_shared_store();
        assert!(answer(get, &status).0.starts_with("HTTP/1.1 503 "));
        status.note_store_away(false);
        assert!(answer(get, &status).0.starts_with("HTTP/1.1 200 "));
        status.begin_drain(Instant::now());
        let (draining, _) = answer(get, &status);
        assert!(draining.starts_with("HTTP/1.1 503 "), "{draining}");
        assert!(draining.ends_with("{\"ready\": false}"));
    }

    #[test]
    fn head_has_the_length_and_not_the_body() {
        let status = ServerStatus::new(1, Rejection::LABELS, Arc::default());
        let (head, _) = answer("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", &status);
        assert!(head.contains("Content-Length: 16\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn refusals_say_what_to_change() {
        let status = ServerStatus::new(1, Rejection::LABELS, Arc::default());
        let (post, persistence) = answer("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", &status);
        assert!(
            post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n")
        );
        assert_eq!(persistence, None);
        let (plain, _) = answer("GET /ws/chat HTTP/1.1\r\nHost: a\r\n\r\n", &status);
        assert!(plain.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{plain}");
    }

    #[test]
    fn options_names_the_methods_of_a_path() {
        let off = Config { page: false, ..Config::default() };
        let both = Config { ws_path: "/".to_owned(), ..Config::default() };
        let bare = Config { page: false, metrics: false, ..both.clone() };
        let elsewhere = SocketAddr::from(([192, 0, 2, 7], 1)).into();
        let answer = |target: &str, fields: &str, config: &Config| {
            let head = format!("OPTIONS {target} HTTP/1.1\r\n{fields}\r\n\r\n");
            let mut slots = header_slots();
            let request = Request::parse(
                head.as_bytes(),
                &mut slots,
                &ProtocolLimits::from(&Config::default()),
            )
            .unwrap();
            let mut out = Vec::new();
            let persistence = tell_methods(&request, elsewhere, config, &mut out)?;
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"));
            assert!(text.contains("\r\nContent-Length: 0\r\n"), "{text}");
            let closes = persistence == Persistence::Close;
            assert_eq!(text.contains("Connection: close"), closes);
            let allow = text.split("\r\nAllow: ").nth(1).unwrap();
            Ok(allow.split("\r\n").next().unwrap().to_owned())
        };
        let on = Config::default();
        for (target, config, expected) in [
            ("*", &on, Ok("GET, HEAD, OPTIONS")),
            ("http://a", &on, Ok("GET, HEAD, OPTIONS")),
            ("/", &on, Ok("GET, HEAD, OPTIONS")),
            ("/", &off, Ok("OPTIONS")),
            ("/healthz", &on, Ok("GET, HEAD, OPTIONS")),
            ("/metrics?x", &on, Ok("GET, HEAD, OPTIONS")),
            ("/ws/chat/", &on, Ok("GET, OPTIONS")),
            ("/ws/chat", &on, Ok("GET, OPTIONS")),
            ("/ws/stats", &on, Err(Rejection::NotForPeer)),
            ("/ws/stats", &off, Err(Rejection::NotFound)),
            ("/", &both, Ok("GET, HEAD, OPTIONS")),
            ("/", &bare, Ok("GET, OPTIONS")),
            ("/metrics", &bare, Err(Rejection::NotFound)),
            ("/nowhere", &on, Err(Rejection::NotFound)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(answer(target, "Host: a", config), expected, "{target}");
        }
        let close = answer("/", "Host: a\r\nConnection: close", &on);
        assert_eq!(close, Ok("GET, HEAD, OPTIONS".to_owned()));
        let content = answer("/", "Host: a\r\nContent-Length: 1", &on);
        assert_eq!(content, Err(Rejection::UnexpectedBody));
    }

    #[test]
    fn an_old_client_may_ask_to_be_kept() {
        let status = ServerStatus::new(1, Rejection::LABELS, Arc::default());
        let old = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let (text, persistence) = answer(old, &status);
        assert!(text.contains("\r\nConnection: keep-alive\r\n"));
        assert_eq!(persistence, Some(Persistence::KeepAlive));
    }

    #[test]
    fn what_is_nobodys_is_the_applications() {
        for (ws_path, path, expected) in [
            ("/ws/chat/", "/notes", true),
            ("/ws/chat/", "/ws/chat//", true),
            ("/ws/chat/", "//", true),
            ("/ws/chat/", "/ws/chat", false),
            ("/ws/chat/", "*", false),
            ("/rooms/*", "/rooms", true),
            ("/rooms/*", "/rooms/7", false),
            ("/*", "/notes", false),
        ] {
            let config = with_path(ws_path);
            let visitor = SocketAddr::from(([127, 0, 0, 1], 1)).into();
            let leads = leads_to_application(path, visitor, &config);
            assert_eq!(leads, expected, "{path} at {ws_path}");
        }
        let off = Config { metrics: false, page: false, ..Config::default() };
        for path in RESERVED_PATHS.into_iter().chain(["/"]) {
            let visitor = SocketAddr::from(([127, 0, 0, 1], 1)).into();
            assert!(!leads_to_application(path, visitor, &off), "{path} stays the server's");
        }
    }

    #[test]
    fn an_applications_response_is_framed_by_the_server() {
        use crate::application::RequestHead;
        let respond_to = |head: &str, body: RequestBody<'_>, response: &HttpResponse| {
            let mut slots = header_slots();
            let limits = ProtocolLimits::from(&Config::default());
            let request = Request::parse(head.as_bytes(), &mut slots, &limits).unwrap();
            let asked = HttpRequest { head: RequestHead(&request), body, peer: Peer::Unix };
            let mut out = Vec::new();
            let persistence = respond(&asked, response, &Config::default(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let lines = text.split("\r\n").filter(|line| !line.starts_with("Date: "));
            (lines.collect::<Vec<_>>().join("|"), persistence)
        };
        let (get, head) =
            ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n");
        let whole = RequestBody::Whole(b"");
        let text = HttpResponse::text::<200>("hello").header("X-A", "b").unwrap();
        let fields =
            "Content-Type: text/plain; charset=utf-8|Content-Length: 5|Cache-Control: no-store";
        for (request, body, response, expected, persistence) in [
            (
                get,
                whole,
                &text,
                format!("HTTP/1.1 200 OK|{fields}|X-A: b||hello"),
                Persistence::KeepAlive,
            ),
            (
                head,
                whole,
                &text,
                format!("HTTP/1.1 200 OK|{fields}|X-A: b||"),
                Persistence::KeepAlive,
            ),
            (
                get,
                RequestBody::Unread,
                &text,
                format!("HTTP/1.1 200 OK|{fields}|Connection: close|X-A: b||hello"),
                Persistence::Close,
            ),
            (
                get,
                whole,
                &HttpResponse::empty::<204>(),
                "HTTP/1.1 204 No Content|Cache-Control: no-store||".to_owned(),
                Persistence::KeepAlive,
            ),
            (
                get,
                whole,
                &HttpResponse::empty::<205>(),
                // RFC 9110 15.3.6: without content, and told so.
                "HTTP/1.1 205 Reset Content|Content-Length: 0|Cache-Control: no-store||".to_owned(),
                Persistence::KeepAlive,
            ),
            (
                get,
                whole,
                &HttpResponse::empty::<299>().header("Cache-Control", "private").unwrap(),
                // RFC 9112 4: the space stands there without a phrase too.
                "HTTP/1.1 299 |Content-Length: 0|Cache-Control: private||".to_owned(),
                Persistence::KeepAlive,
            ),
        ] {
            assert_eq!(respond_to(request, body, response), (expected, persistence));
        }
    }
}

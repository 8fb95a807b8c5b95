//! Plain HTTP on the same port: health, readiness, metrics, the live page, and how a refusal looks.
//!
//! Writes whole responses to a buffer and decides nothing about the connection but whether it is
//! kept. Called by the shard with a parsed request, or with the reason why there is none.
//!
//! Invariant: no text of a request ever stands in a response (CVE-2020-7695, CVE-2018-1000164).
//!
//! Next: [`crate::host`]: what is left to be asked of the world.

use std::time::{Instant, SystemTime};

use crate::application::Refusal;
use crate::config::Config;
use crate::metrics::ServerStatus;
use crate::page;
use crate::protocol::head::{Rejection, Request};

/// What a path leads to.
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
    /// Where `path` leads, if anywhere. The WebSocket path also leads there without its last
    /// slash; one that ends in `/*` takes in every path that begins with what stands before the
    /// asterisk, except those of the other routes.
    #[must_use]
    pub fn of(path: &str, ws_path: &str) -> Option<Route> {
        match path {
            _ if path == ws_path || ws_path.strip_suffix('/') == Some(path) => {
                Some(Route::WebSocket)
            }
            "/healthz" => Some(Route::Health),
            "/readyz" => Some(Route::Ready),
            "/metrics" => Some(Route::Metrics),
            "/" => Some(Route::Page),
            page::FIGURES_PATH => Some(Route::Figures),
            _ => {
                let prefix = ws_path.strip_suffix('*')?;
                path.starts_with(prefix).then_some(Route::WebSocket)
            }
        }
    }
}

/// Appends the response to a request for one of the plain routes; whether the connection is kept.
///
/// # Errors
///
/// A method other than GET and HEAD, or content.
pub fn respond(
    route: Route,
    request: &Request<'_, '_>,
    status: &ServerStatus,
    config: &Config,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<bool, Rejection> {
    let with_body = match request.method {
        "GET" => true,
        "HEAD" => false,
        _ => return Err(Rejection::MethodNotAllowed("GET, HEAD")),
    };
    if request.has_body {
        return Err(Rejection::UnexpectedBody);
    }
    let is_ready = status.draining_since().is_none();
    let keeps = request.keeps_alive();
    let text;
    let (line, kind, body) = match route {
        Route::Health => ("200 OK", "application/json", r#"{"status": "ok"}"#),
        Route::Ready if is_ready => ("200 OK", "application/json", r#"{"ready": true}"#),
        Route::Ready => ("503 Service Unavailable", "application/json", r#"{"ready": false}"#),
        Route::Metrics => {
            text = status.render(now);
            ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text.as_str())
        }
        Route::Page => {
            text = page::html(&config.ws_path);
            ("200 OK", "text/html; charset=utf-8", text.as_str())
        }
        Route::WebSocket | Route::Figures => return Err(Rejection::UpgradeRequired),
    };
    let connection = match (keeps, request.http_1_0) {
        (false, _) => "Connection: close\r\n",
        (true, true) => "Connection: keep-alive\r\n",
        (true, false) => "",
    };
    let guards = if route == Route::Page { page::FIELDS } else { "" };
    write_response(line, kind, &[guards, connection], body, with_body, out);
    Ok(keeps)
}

/// Appends the response for a request that is refused. The connection closes after it.
/// `with_body` is false for a HEAD: "the server MUST NOT send content" (RFC 9110 9.3.2).
pub fn refuse(rejection: Rejection, with_body: bool, out: &mut Vec<u8>) {
    let mut fields = String::from("Connection: close\r\n");
    match rejection {
        // RFC 9110 15.5.6: a 405 names the methods that there are.
        Rejection::MethodNotAllowed(methods) => {
            fields.push_str("Allow: ");
            fields.push_str(methods);
            fields.push_str("\r\n");
        }
        // RFC 9110 15.5.22: a 426 says what to upgrade to; RFC 6455 4.4: and in which version.
        Rejection::UpgradeRequired | Rejection::VersionNotOffered => {
            fields = "Connection: close, Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\n"
                .to_owned();
        }
        // RFC 9110 15.6.4, RFC 6585 4: when to come back.
        Rejection::LimitConcurrency
        | Rejection::LimitPerIp
        | Rejection::NoSessionId
        | Rejection::Draining
        | Rejection::TooManyWatchers
        | Rejection::OwnerBusy => {
            fields.push_str("Retry-After: 1\r\n");
        }
        Rejection::LimitSessionsPerIp { retry_after } => {
            for part in ["Retry-After: ", itoa::Buffer::new().format(retry_after), "\r\n"] {
                fields.push_str(part);
            }
        }
        _ => {}
    }
    let body = format!("{}\n", rejection.advice());
    let kind = "text/plain; charset=utf-8";
    write_response(rejection.status(), kind, &[&fields], &body, with_body, out);
}

/// Appends the response for an upgrade that the application refuses. The connection closes after it.
pub fn turn_away(refusal: &Refusal, out: &mut Vec<u8>) {
    let line = format!("{} {}", refusal.status, refusal.phrase());
    let fields = format!("Connection: close\r\n{}", refusal.fields);
    let body = format!("{}\n", refusal.reason);
    // An upgrade is a GET, so the response may have content.
    write_response(&line, "text/plain; charset=utf-8", &[&fields], &body, true, out);
}

fn write_response(
    line: &str,
    kind: &str,
    fields: &[&str],
    body: &str,
    with_body: bool,
    out: &mut Vec<u8>,
) {
    // RFC 9110 6.6.1: a server with a clock sends Date.
    let date = httpdate::fmt_http_date(SystemTime::now());
    let length = body.len();
    let fields = fields.concat();
    let head = format!(
        "HTTP/1.1 {line}\r\nDate: {date}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\n{fields}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    if with_body {
        out.extend_from_slice(body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::protocol::head::header_slots;
    use std::sync::Arc;

    fn answer(request: &str, status: &ServerStatus) -> (String, Option<bool>) {
        let mut slots = header_slots();
        let request = Request::parse(request.as_bytes(), &mut slots, &Limits::default()).unwrap();
        let route = Route::of(request.path, "/ws/chat/").unwrap();
        let mut out = Vec::new();
        let config = Config::default();
        let kept = match respond(route, &request, status, &config, Instant::now(), &mut out) {
            Ok(kept) => Some(kept),
            Err(rejection) => {
                refuse(rejection, true, &mut out);
                None
            }
        };
        (String::from_utf8(out).unwrap(), kept)
    }

    #[test]
    fn routes() {
        assert_eq!(Route::of("/ws/chat/", "/ws/chat/"), Some(Route::WebSocket));
        assert_eq!(Route::of("/ws/chat", "/ws/chat/"), Some(Route::WebSocket));
        assert_eq!(Route::of("/ws/chat/", "/ws/chat"), None);
        assert_eq!(Route::of("/ws/chat//", "/ws/chat/"), None);
        assert_eq!(Route::of("/", "/ws/chat/"), Some(Route::Page));
        assert_eq!(Route::of("/ws/stats", "/ws/chat/"), Some(Route::Figures));
        // What the operator chose stands above what we did.
        assert_eq!(Route::of("/ws/stats", "/ws/stats/"), Some(Route::WebSocket));
        assert_eq!(Route::of("//", "/ws/chat/"), None);
        for below in ["/rooms/", "/rooms/42", "/rooms/a/b"] {
            assert_eq!(Route::of(below, "/rooms/*"), Some(Route::WebSocket), "{below}");
            assert_eq!(Route::of(below, "/*"), Some(Route::WebSocket), "{below}");
        }
        assert_eq!(Route::of("/rooms", "/rooms/*"), None);
        assert_eq!(Route::of("/room/1", "/rooms/*"), None);
        assert_eq!(Route::of("/healthz", "/*"), Some(Route::Health));
    }

    #[test]
    fn readiness_follows_the_drain() {
        let status = ServerStatus::new(1, Arc::default());
        let get = "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
        let (ready, kept) = answer(get, &status);
        assert!(ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.ends_with("{\"ready\": true}"));
        assert_eq!(kept, Some(true));
        status.begin_drain(Instant::now());
        let (draining, _) = answer(get, &status);
        assert!(draining.starts_with("HTTP/1.1 503 "), "{draining}");
        assert!(draining.ends_with("{\"ready\": false}"));
    }

    #[test]
    fn head_has_the_length_and_not_the_body() {
        let status = ServerStatus::new(1, Arc::default());
        let (head, _) = answer("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", &status);
        assert!(head.contains("Content-Length: 16\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn refusals_say_what_to_change() {
        let status = ServerStatus::new(1, Arc::default());
        let (post, kept) = answer("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", &status);
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"));
        assert_eq!(kept, None);
        let (plain, _) = answer("GET /ws/chat HTTP/1.1\r\nHost: a\r\n\r\n", &status);
        assert!(plain.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{plain}");
    }

    #[test]
    fn an_old_client_may_ask_to_be_kept() {
        let status = ServerStatus::new(1, Arc::default());
        let old = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        let (text, kept) = answer(old, &status);
        assert!(text.contains("\r\nConnection: keep-alive\r\n"));
        assert_eq!(kept, Some(true));
    }
}

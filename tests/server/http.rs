//! Plain HTTP on the same port: the endpoints, refusals, and connections that serve many requests.

use revolve::Config;

use super::client::{PATH, Running, config, get, upgrade};

#[test]
fn the_endpoints_answer() {
    let server = Running::counter(config(2));
    let mut raw = server.connect();
    for (path, body) in [
        ("/healthz", r#"{"status": "ok"}"#),
        ("/readyz", r#"{"ready": true}"#),
        ("/healthz?probe=1", r#"{"status": "ok"}"#),
    ] {
        raw.send(get(path));
        let response = raw.response();
        assert_eq!((response.head.status, response.body.as_str()), (200, body));
        assert_eq!(response.head.field("content-type"), "application/json");
        assert!(response.head.field("date").ends_with(" GMT"));
        assert_eq!(response.head.field("connection"), "");
    }
    raw.send(get("/metrics"));
    let response = raw.response();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!((response.head.status, response.head.field("content-type")), (200, kind));
    assert!(response.body.contains("\nws_active_connections 0\n"), "{}", response.body);
}

#[test]
fn head_is_get_without_the_body() {
    let server = Running::counter(config(1));
    let mut raw = server.connect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        raw.send(get(path).replace("GET", "HEAD"));
        let head = raw.head();
        assert_eq!(head.status, 200);
        assert!(head.field("content-length").parse::<usize>().unwrap() > 0);
    }
    // Had one of them sent a body, this answer would not be found where it is.
    raw.send(get("/healthz"));
    assert_eq!(raw.response().body, r#"{"status": "ok"}"#);
}

#[test]
fn a_refusal_of_head_has_no_body_either() {
    // RFC 9110 9.3.2: "the server MUST NOT send content in the response" to HEAD.
    let server = Running::counter(config(1));
    for (path, status) in [("/nowhere", 404), ("/ws/chat/", 405)] {
        let mut raw = server.connect();
        raw.send(get(path).replace("GET", "HEAD"));
        assert_eq!(raw.head().status, status);
        raw.at_end();
    }
}

#[test]
fn other_methods_are_405_and_told_which_there_are() {
    let server = Running::counter(config(1));
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW", "get", "options"] {
        for path in ["/healthz", "/metrics"] {
            let mut raw = server.connect();
            raw.send(get(path).replace("GET", method));
            let response = raw.response();
            assert_eq!(response.head.status, 405, "{method} {path}");
            assert_eq!(response.head.field("allow"), "GET, HEAD, OPTIONS");
            assert_eq!(response.head.field("connection"), "close");
            raw.at_end();
        }
    }
}

#[test]
fn unknown_paths_are_404_and_the_websocket_path_is_426() {
    let server = Running::counter(config(1));
    for path in ["//", "/nowhere", "/healthz/", "/HEALTHZ", "/ws/chat//", "/..", "/%68ealthz"] {
        let mut raw = server.connect();
        raw.send(get(path));
        let response = raw.response();
        assert_eq!((response.head.status, response.body.as_str()), (404, "no such path\n"));
        raw.at_end();
    }
    for path in ["/ws/chat/", "/ws/chat", "/ws/chat/?session_id=a"] {
        let mut raw = server.connect();
        raw.send(get(path));
        let head = raw.response().head;
        assert_eq!((head.status, head.field("upgrade")), (426, "websocket"));
        assert_eq!(head.field("connection"), "close, Upgrade");
        assert_eq!(head.field("sec-websocket-version"), "13");
        raw.at_end();
    }
    assert_eq!(server.metric("revolve_rejected_total", "not_found"), 7);
    assert_eq!(server.metric("revolve_rejected_total", "upgrade_required"), 3);
}

#[test]
fn the_websocket_may_be_at_the_root_which_is_the_page_for_everyone_else() {
    for ws_path in ["/", "/*"] {
        for page in [true, false] {
            let server =
                Running::counter(Config { ws_path: ws_path.to_owned(), page, ..config(2) });
            // On whichever reactor it is read: the first is handed over to the second, or not.
            for id in ["a", "b", "c", "d"] {
                let mut raw = server.connect();
                raw.send(upgrade(&format!("session_id={id}")).replace(PATH, "/"));
                assert_eq!(raw.head().status, 101, "{ws_path}");
                raw.say("hello");
                assert_eq!(raw.text(), r#"{"count": 1}"#);
            }
            for method in ["GET", "HEAD", "POST"] {
                let mut raw = server.connect();
                raw.send(get("/").replace("GET", method));
                let head = raw.head();
                let (status, allow) = match (method, page) {
                    ("POST", true) => (405, "GET, HEAD, OPTIONS"),
                    ("GET", false) => (426, ""),
                    (_, false) => (405, "GET, OPTIONS"),
                    (_, true) => (200, ""),
                };
                assert_eq!((head.status, head.field("allow")), (status, allow), "{method} {page}");
            }
            let mut raw = server.connect();
            raw.send(get("/healthz"));
            assert_eq!(raw.response().head.status, 200);
        }
    }
}

#[test]
fn metrics_that_are_switched_off_are_404_and_counted_all_the_same() {
    let server = Running::counter(Config { metrics: false, ..config(1) });
    for request in [get("/metrics"), upgrade("").replace(PATH, "/metrics")] {
        let mut raw = server.connect();
        raw.send(request);
        assert_eq!(raw.response().head.status, 404);
        raw.at_end();
    }
    assert_eq!(server.metric("revolve_rejected_total", "not_found"), 2);
    // The page's figures come from the same counters, and are there.
    let mut raw = server.connect();
    raw.send(upgrade("").replace(PATH, "/ws/stats"));
    assert_eq!(raw.head().status, 101);
    assert!(raw.text().contains(r#""accepts":3,"#));
}

#[test]
fn what_is_not_http_is_400() {
    let server = Running::counter(config(1));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET /healthz HTTP/1.1\nHost: a\n\n",
        b"GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET http://u@other/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        b"\0",
    ] {
        let mut raw = server.connect();
        raw.send(bytes);
        assert_eq!(raw.response().head.status, 400, "{:?}", String::from_utf8_lossy(bytes));
        raw.at_end();
    }
    for (bytes, status) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(5000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(17_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101)), 431),
    ] {
        let mut raw = server.connect();
        raw.send(&bytes);
        assert_eq!(raw.response().head.status, status, "{}", &bytes[..20]);
        raw.at_end();
    }
}

#[test]
fn two_hundred_requests_may_be_pipelined() {
    let server = Running::counter(config(2));
    let mut raw = server.connect();
    let requests: String = (0..200)
        .map(|n| match n % 3 {
            0 => get("/healthz"),
            1 => "\r\n".to_owned() + &get("/readyz"),
            _ => get("/healthz").replace("GET", "HEAD"),
        })
        .collect();
    raw.send(requests);
    for n in 0..200 {
        match n % 3 {
            0 => assert_eq!(raw.response().body, r#"{"status": "ok"}"#, "{n}"),
            1 => assert_eq!(raw.response().body, r#"{"ready": true}"#, "{n}"),
            _ => assert_eq!(raw.head().status, 200, "{n}"),
        }
    }
    // The connection is kept, and ends when it is asked to; what stands behind is not answered.
    let last = get("/healthz").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    raw.send(get("/readyz") + &last + &get("/readyz"));
    assert_eq!(raw.response().body, r#"{"ready": true}"#);
    let response = raw.response();
    assert_eq!(response.body, r#"{"status": "ok"}"#);
    assert_eq!(response.head.field("connection"), "close");
    raw.at_end();
}

#[test]
fn http_1_0_closes_unless_it_asks_to_be_kept() {
    let server = Running::counter(config(1));
    let mut raw = server.connect();
    raw.send("GET /healthz HTTP/1.0\r\n\r\n");
    let response = raw.response();
    assert_eq!((response.head.status, response.head.field("connection")), (200, "close"));
    raw.at_end();
    let mut raw = server.connect();
    for _ in 0..3 {
        raw.send("GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let response = raw.response();
        assert_eq!((response.head.status, response.head.field("connection")), (200, "keep-alive"));
    }
}

#[test]
fn a_request_with_its_end_of_stream_gets_its_answer() {
    // printf 'GET …' | nc
    let server = Running::counter(config(4));
    for _ in 0..20 {
        let mut raw = server.connect();
        raw.send(get("/healthz"));
        raw.half_close();
        assert_eq!(raw.response().body, r#"{"status": "ok"}"#);
        raw.at_end();
        let mut raw = server.connect();
        raw.send(get("/metrics").repeat(100));
        raw.half_close();
        for _ in 0..100 {
            assert_eq!(raw.response().head.status, 200);
        }
        raw.at_end();
    }
    server.wait_for("revolve_connections", "", 0);
}

#[test]
fn no_text_of_a_request_stands_in_a_response() {
    let server = Running::counter(config(1));
    let mut raw = server.connect();
    raw.send(get("/smuggled\"<script>?smuggled").replace("localhost", "smuggled"));
    let response = raw.response();
    assert_eq!(response.head.status, 404);
    assert!(!format!("{response:?}").contains("smuggled"));
}

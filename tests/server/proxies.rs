//! Proxies that say for whom they speak: by the PROXY protocol and by header fields; who is believed, and
//! what the client's address counts for.

use std::num::NonZeroUsize;

use revolve::{
    Acceptance, Application, Config, Context, HttpRequest, HttpResponse, Message, NoResponse,
    ProxyHeaders, ReactorContext, Refusal, SessionRate, TrustedProxies, Upgrade,
};

use super::client::{Raw, Running, config, get, upgrade};

/// Tells who its peer is: to an upgrade in a field, to a plain request, and to an open WebSocket.
struct Mirror;

impl Application for Mirror {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        Ok(upgrade.accept().header("X-Peer", &upgrade.peer().to_string())?)
    }

    fn on_request(
        &mut self,
        _: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        Ok(HttpResponse::text::<200>(request.peer().to_string()))
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        cx.send_text(&cx.peer().to_string());
    }
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";

fn v2(octets: [u8; 4]) -> Vec<u8> {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [&fixed[..], &octets, &[192, 0, 2, 1, 0xdc, 0x04, 1, 0xbb]].concat()
}

fn nobody() -> TrustedProxies {
    TrustedProxies::parse("192.0.2.99").unwrap()
}

/// An upgrade with these fields besides.
fn with_fields(query: &str, fields: &str) -> String {
    upgrade(query).replacen("\r\n\r\n", &format!("\r\n{fields}\r\n\r\n"), 1)
}

/// Who the server says that its peer is, three times.
fn peer_of(mut raw: Raw) -> String {
    let head = raw.head();
    assert_eq!(head.status, 101, "{head:?}");
    raw.say("who am I?");
    let told = raw.text();
    assert_eq!(head.field("x-peer"), told);
    told
}

#[test]
fn a_header_of_either_version_says_who_the_peer_is_wherever_it_is_cut() {
    let server = Running::new(Config { proxy_protocol: true, ..config(3) }, |_| Mirror);
    for (header, expected) in
        [(V1.to_vec(), "192.0.2.7:56324"), (v2([192, 0, 2, 8]), "192.0.2.8:56324")]
    {
        // A named session may be another reactor's: the address goes there with the connection.
        for name in ["a", "b", "c", "d"] {
            let request = upgrade(&format!("session_id={name}"));
            let mut raw = server.connect();
            raw.send([&header[..], request.as_bytes()].concat());
            assert_eq!(peer_of(raw), expected);
        }
        for cut in 1..header.len() {
            let mut raw = server.connect();
            raw.send(&header[..cut]);
            raw.send([&header[cut..], upgrade("").as_bytes()].concat());
            assert_eq!(peer_of(raw), expected, "cut at {cut}");
        }
        let mut raw = server.connect();
        for byte in [&header[..], upgrade("").as_bytes()].concat() {
            raw.send([byte]);
        }
        assert_eq!(peer_of(raw), expected);
    }
    // It stands once, before the first request.
    let mut raw = server.connect();
    raw.send([V1, get("/who").as_bytes()].concat());
    assert_eq!(raw.response().body, "192.0.2.7:56324");
    raw.send(get("/who"));
    assert_eq!(raw.response().body, "192.0.2.7:56324");
    raw.send([V1, get("/who").as_bytes()].concat());
    assert_eq!(raw.response().head.status, 505);
}

#[test]
fn a_proxy_may_speak_for_itself_and_has_to_say_so() {
    let server = Running::new(Config { proxy_protocol: true, ..config(1) }, |_| Mirror);
    let mut raw = server.connect();
    raw.send(["PROXY UNKNOWN\r\n".to_owned(), get("/who")].concat());
    assert!(raw.response().body.starts_with("127.0.0.1:"));
    for bad in
        [get("/who").into_bytes(), b"PROXY TCP5 \r\n".to_vec(), b"\r\n\r\n\0\r\nQUIT\nX".to_vec()]
    {
        let mut raw = server.connect();
        raw.send(bad);
        assert_eq!(raw.response().head.status, 400);
        raw.at_end();
    }
    server.wait_for("revolve_rejected_total", "reason=\"bad_proxy_header\"", 3);
}

#[test]
fn from_elsewhere_nothing_is_believed() {
    for proxy_headers in [ProxyHeaders::XForwardedFor, ProxyHeaders::Forwarded] {
        let config = Config {
            proxy_protocol: true,
            proxy_headers,
            forwarded_allow_ips: nobody(),
            ..config(2)
        };
        let server = Running::new(config, |_| Mirror);
        // They are no HTTP; the one looks like a request in another version of it.
        for (header, status) in [(V1.to_vec(), 505), (v2([192, 0, 2, 7]), 400)] {
            let mut raw = server.connect();
            raw.send([&header[..], get("/who").as_bytes()].concat());
            assert_eq!(raw.response().head.status, status);
        }
        let mut raw = server.connect();
        raw.send(with_fields("", "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7"));
        assert!(peer_of(raw).starts_with("127.0.0.1:"));
    }
}

#[test]
fn each_request_says_who_sends_it() {
    let config = Config { proxy_headers: ProxyHeaders::XForwardedFor, ..config(3) };
    let server = Running::new(config, |_| Mirror);
    let who = |fields: &str| get("/who").replacen("\r\n\r\n", &format!("\r\n{fields}\r\n\r\n"), 1);
    let mut raw = server.connect();
    for (fields, expected) in [
        ("X-Forwarded-For: 192.0.2.7", "192.0.2.7:0"),
        ("X-Forwarded-For: 1.1.1.1, 192.0.2.8, 127.0.0.9", "192.0.2.8:0"),
        ("X-Forwarded-For: 2001:db8::7", "[2001:db8::7]:0"),
        ("Forwarded: for=192.0.2.7", "127.0.0.1:"),
        ("X-Forwarded-For: unknown", "127.0.0.1:"),
        ("X-Nothing: 192.0.2.7", "127.0.0.1:"),
        ("X-Forwarded-For: 192.0.2.9", "192.0.2.9:0"),
    ] {
        raw.send(who(fields));
        let told = raw.response().body;
        assert!(told.starts_with(expected), "{fields}: {told}");
    }
    // On the same connection, and on whichever reactor the session lives.
    for name in ["a", "b", "c", "d"] {
        let mut raw = server.connect();
        raw.send(who("X-Forwarded-For: 192.0.2.7"));
        assert_eq!(raw.response().body, "192.0.2.7:0");
        raw.send(with_fields(&format!("session_id={name}"), "X-Forwarded-For: 192.0.2.8"));
        assert_eq!(peer_of(raw), "192.0.2.8:0");
    }
}

#[test]
fn the_clients_address_is_the_one_that_is_limited() {
    let by_protocol = Config { proxy_protocol: true, ..config(2) };
    let by_field = Config { proxy_headers: ProxyHeaders::XForwardedFor, ..config(2) };
    for (config, is_protocol) in [(by_protocol, true), (by_field, false)] {
        let limit_per_ip = NonZeroUsize::new(2);
        let server = Running::new(Config { limit_per_ip, ..config }, |_| Mirror);
        let ask = |last: u8| {
            let mut raw = server.connect();
            match is_protocol {
                true => raw.send([&v2([192, 0, 2, last])[..], upgrade("").as_bytes()].concat()),
                false => raw.send(with_fields("", &format!("X-Forwarded-For: 192.0.2.{last}"))),
            }
            let status = raw.head().status;
            (raw, status)
        };
        let mut held = Vec::new();
        for last in [7, 8, 9] {
            for expected in [101, 101, 429] {
                let (raw, status) = ask(last);
                assert_eq!(status, expected, "192.0.2.{last}");
                held.push(raw);
            }
        }
        assert_eq!(server.metric("revolve_rejected_total", "reason=\"limit_per_ip\""), 3);
        // Who has left makes room.
        drop(held);
        server.wait_for("revolve_websockets", "", 0);
        assert_eq!(ask(7).1, 101);
    }
}

#[test]
fn new_sessions_are_counted_by_the_clients_address() {
    let rate = SessionRate {
        sessions: const { std::num::NonZeroU32::new(1).unwrap() },
        window: SessionRate::WINDOW,
    };
    let config = Config {
        proxy_headers: ProxyHeaders::Forwarded,
        limit_sessions_per_ip: Some(rate),
        ..config(2)
    };
    let server = Running::new(config, |_| Mirror);
    for (node, status) in [("192.0.2.7", 101), ("192.0.2.7", 429), ("192.0.2.8", 101)] {
        let mut raw = server.connect();
        raw.send(with_fields("", &format!("Forwarded: for={node};proto=https")));
        assert_eq!(raw.head().status, status, "{node}");
    }
}

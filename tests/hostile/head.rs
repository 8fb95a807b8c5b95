//! What comes instead of a request: too slow, too large, malformed, another protocol.

use std::time::Duration;

use crate::client::{TEXT, frame, get, plain_frame, upgrade};
use crate::harness::{BYSTANDERS, Harness, Stranger, Talks};

with_both_applications! {
    silence_is_closed_and_half_a_head_is_408,
    a_byte_now_and_then_moves_no_deadline,
    two_thousand_half_open_handshakes,
    what_is_no_request_has_its_answer,
    the_same_byte_by_byte,
    what_is_unusual_and_in_order_gets_in,
    what_is_asked_unusually_is_answered,
    random_bytes_never_get_in,
    behind_an_upgrade_come_frames_and_behind_a_refusal_nothing,
}

const HANDSHAKE: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(5);
/// Deadlines are looked at every 50 ms.
const TICK: Duration = Duration::from_millis(100);

fn silence_is_closed_and_half_a_head_is_408<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut silent = harness.connect();
    // Empty lines before a request are no part of it (RFC 9112 2.2).
    let mut hesitant = harness.connect();
    hesitant.send("\r\n\r\n\r");
    let mut begun = harness.connect();
    begun.send("G");
    let mut half = harness.connect();
    half.send(&upgrade("")[..60]);
    harness.turn();
    harness.begin_watch();
    harness.pass(HANDSHAKE - TICK);
    for stranger in [&mut silent, &mut hesitant, &mut begun, &mut half] {
        assert_eq!(stranger.text(), "", "the deadline has not come");
    }
    harness.pass(2 * TICK);
    for stranger in [&mut silent, &mut hesitant] {
        assert!(stranger.text().is_empty() && stranger.is_released());
    }
    for stranger in [&mut begun, &mut half] {
        assert!(stranger.text().starts_with("HTTP/1.1 408 "), "{}", stranger.text());
        assert!(stranger.is_half_closed() && !stranger.is_released());
    }
    assert_eq!(harness.metrics().silent.get(), 2);
    assert_eq!(harness.metric("revolve_rejected_total", "head_timeout"), 2);
    assert_eq!(harness.metric("revolve_rejected_total", ""), 2);
    // They stay deaf, and are let go of all the same.
    harness.pass(LINGER);
    assert!(begun.is_released() && half.is_released());
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn a_byte_now_and_then_moves_no_deadline<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut dripping = harness.connect();
    let head = upgrade("");
    for byte in head.as_bytes() {
        dripping.send([*byte]);
        harness.pass(Duration::from_millis(200));
        if dripping.is_half_closed() {
            break;
        }
    }
    let late = harness.elapsed();
    assert!(late >= HANDSHAKE && late <= HANDSHAKE + Duration::from_millis(500), "{late:?}");
    assert!(dripping.text().starts_with("HTTP/1.1 408 "));
    // What it goes on to send is thrown away and buys no time.
    for _ in 0..LINGER.as_millis() / 200 + 1 {
        dripping.send("x");
        harness.pass(Duration::from_millis(200));
    }
    assert!(dripping.is_released());
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

/// Slowloris.
fn two_thousand_half_open_handshakes<A: Talks>() {
    const MANY: usize = 2000;
    let mut harness = Harness::<A>::new();
    let half = upgrade(&format!("session_id={}", "a".repeat(100)));
    let half = &half[..half.len() - 3];
    harness.begin_watch();
    let mut strangers: Vec<_> = (0..MANY).map(|_| harness.connect()).collect();
    strangers.iter().for_each(|stranger| stranger.send(half));
    // 64 are accepted in a turn.
    harness.turns(MANY / 64 + 2);
    assert_eq!(harness.metrics().connections.get(), (MANY + BYSTANDERS) as u64);
    // Each holds what it has sent, to the byte.
    assert_eq!(harness.shard.held_bytes(), MANY * half.len());
    harness.pass(HANDSHAKE + TICK);
    // They are all due at once, and are looked at 512 a turn.
    harness.turns(MANY / 512 + 1);
    assert_eq!(harness.metric("revolve_rejected_total", "head_timeout"), MANY as u64);
    for stranger in &mut strangers {
        assert!(stranger.text().starts_with("HTTP/1.1 408 "));
    }
    harness.pass(LINGER + TICK);
    harness.turns(MANY / 512 + 1);
    assert!(strangers.iter().all(Stranger::is_released));
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

trait Replaced {
    fn replaced(self, find: &str, put: &str) -> Self;
}

impl Replaced for Vec<u8> {
    fn replaced(self, find: &str, put: &str) -> Vec<u8> {
        let text = String::from_utf8(self).unwrap();
        assert!(text.contains(find), "{find:?}");
        text.replacen(find, put, 1).into_bytes()
    }
}

/// A good upgrade with something else in one place.
fn put(find: &str, put: &str) -> Vec<u8> {
    upgrade("").into_bytes().replaced(find, put)
}

/// A good upgrade with one more field.
fn field(field: &[u8]) -> Vec<u8> {
    let good = upgrade("");
    let (head, _) = good.split_at(good.len() - 2);
    [head.as_bytes(), field, b"\r\n\r\n"].concat()
}

/// What is sent, the status that answers it, and under which reason it is counted.
fn table() -> Vec<(Vec<u8>, u16, &'static str)> {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let many = "X: y\r\n".repeat(101);
    vec![
        // Too large.
        (field(format!("X: {}", "x".repeat(17_000)).as_bytes()), 431, "head_too_large"),
        (field(many.trim_end().as_bytes()), 431, "too_many_headers"),
        (put("/ws/chat/", &format!("/{}", "x".repeat(5000))), 414, "target_too_long"),
        (put("/ws/chat/", &format!("/{}", "x".repeat(20_000))), 414, "target_too_long"),
        // A list of 15,000 items is gone through once (CVE-2021-32640), and means nothing here.
        (
            [
                put(key, "").strip_suffix(b"\r\n").unwrap(),
                format!("Sec-WebSocket-Protocol: {}\r\n\r\n", ", ".repeat(7000)).as_bytes(),
            ]
            .concat(),
            400,
            "bad_key",
        ),
        // Malformed.
        (b"GET /ws/chat/ HTTP/1.1\nHost: a\n\n".to_vec(), 400, "malformed_head"),
        (put("\r\nHost", "\nHost"), 400, "malformed_head"),
        (put("\r\nHost", "\r\rHost"), 400, "malformed_head"),
        (put("localhost", "local\0host"), 400, "malformed_head"),
        (put("localhost", "local\x07host"), 400, "malformed_head"),
        (field(b"X: a\r\n b"), 400, "malformed_head"),
        (field(b"X : a"), 400, "malformed_head"),
        (field(b": a"), 400, "malformed_head"),
        (put("GET ", "GET  "), 400, "malformed_head"),
        (put("/ws/chat/", "ws/chat/"), 400, "malformed_head"),
        (put("/ws/chat/", "*"), 400, "malformed_head"),
        // Bytes that are no ASCII: in a method, in the target, in a name.
        (put("/ws/chat/", "/caf\u{e9}"), 400, "malformed_head"),
        (field("S\u{e9}c: a".as_bytes()), 400, "malformed_head"),
        (field(b"A: \xff\r\n\xff: a"), 400, "malformed_head"),
        (field(b"A: b\r\n \xff"), 400, "malformed_head"),
        (put("GET", "G\u{c9}T"), 400, "malformed_head"),
        // And control characters beside such bytes, where those may be.
        (field(b"X: \xe9\x00"), 400, "malformed_head"),
        (field(b"X: \xe9\x1b[31m"), 400, "malformed_head"),
        (field(b"X: \xe9\x7f"), 400, "malformed_head"),
        (field(b"X: \xe9\nY: z"), 400, "malformed_head"),
        // Whose request this is must be clear.
        (put("Host: localhost\r\n", ""), 400, "bad_host"),
        (put("Host: localhost\r\n", "Host: localhost\r\nHost: localhost\r\n"), 400, "bad_host"),
        (put("localhost", ""), 400, "bad_host"),
        (put("localhost", "a b"), 400, "bad_host"),
        (put("localhost", "user@localhost"), 400, "bad_host"),
        (put("localhost", "localhost:http"), 400, "bad_host"),
        (put("localhost", "m\u{fc}nchen"), 400, "bad_host"),
        (put("localhost", "[fe80::1%]"), 400, "bad_host"),
        (put("/ws/chat/", "http://user@localhost/ws/chat/"), 400, "bad_host"),
        (put("/ws/chat/", "http:///ws/chat/"), 400, "bad_host"),
        (put("/ws/chat/", "ws://?session_id=a"), 400, "bad_host"),
        (put("/ws/chat/", "ftp://localhost/ws/chat/"), 400, "malformed_head"),
        (put("Host: localhost", "Host: ").replaced("/ws/chat/", "//"), 404, "not_found"),
        // And how far it reaches.
        (field(b"Content-Length: 5"), 400, "unexpected_body"),
        (field(b"Content-Length: 5\r\nContent-Length: 6"), 400, "unexpected_body"),
        (field(b"Content-Length: +5"), 400, "unexpected_body"),
        (field(b"Content-Length: 0, 5"), 400, "unexpected_body"),
        (field(b"Transfer-Encoding: chunked"), 400, "unexpected_body"),
        (field(b"Content-Length: 0\r\nTransfer-Encoding: chunked"), 400, "unexpected_body"),
        // Something else.
        (put("HTTP/1.1", "HTTP/1.0"), 505, "http_version"),
        (put("HTTP/1.1", "HTTP/2.0"), 505, "http_version"),
        (put("HTTP/1.1", "HTTP/2.2"), 505, "http_version"),
        (put("HTTP/1.1", "HTTP/1.12"), 400, "malformed_head"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505, "http_version"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400, "tls_on_plain"),
        (b"\x05\x01\x00".to_vec(), 400, "malformed_head"),
        (b"\0".to_vec(), 400, "malformed_head"),
        (get("/admin").into_bytes(), 404, "not_found"),
        (put("GET", "POST"), 405, "method_not_allowed"),
        (get("/ws/chat/").into_bytes(), 426, "upgrade_required"),
        // No handshake.
        (put("Version: 13", "Version: 8"), 426, "version_not_offered"),
        (put("Version: 13", "Version: 13, 8"), 426, "version_not_offered"),
        (put("Sec-WebSocket-Version: 13\r\n", ""), 426, "version_not_offered"),
        (put("Upgrade: websocket", "Upgrade: h2c"), 426, "upgrade_required"),
        (put("Connection: Upgrade", "Connection: close"), 400, "bad_upgrade"),
        (put(key, ""), 400, "bad_key"),
        (put(key, &key.repeat(2)), 400, "bad_key"),
        (put("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), 400, "bad_key"),
        (put("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), 400, "bad_key"),
        (put("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=$"), 400, "bad_key"),
        // No session.
        (upgrade("session_id=%00").into_bytes(), 400, "bad_session_id"),
        (upgrade("session_id=a%0d%0ab").into_bytes(), 400, "bad_session_id"),
    ]
}

/// Sends each in steps of so many bytes and checks the answer, its count, and the release.
fn answers<A: Talks>(step: usize) {
    for (bytes, status, reason) in table() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let mut harness = Harness::<A>::new();
        harness.begin_watch();
        let mut stranger = harness.connect();
        for piece in bytes.chunks(step) {
            stranger.send(piece);
            harness.quick_turn();
        }
        harness.turn();
        let answer = stranger.text();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n{answer}");
        assert!(answer.contains("\r\nConnection: close"), "{answer}");
        let version = answer.contains("\r\nSec-WebSocket-Version: 13\r\n");
        assert_eq!(version, status == 426, "{shown}\n{answer}");
        assert_eq!(answer.matches("\r\nDate: ").count(), 1, "one answer:\n{answer}");
        assert!(stranger.is_half_closed());
        assert_eq!(harness.metric("revolve_rejected_total", reason), 1, "{shown}");
        assert_eq!(harness.metric("revolve_rejected_total", ""), 1, "{shown}");
        stranger.hang_up();
        harness.turns(5);
        assert!(stranger.is_released(), "{shown}");
        harness.only_bystanders_are_left();
        harness.bystanders_went_on();
    }
}

fn what_is_no_request_has_its_answer<A: Talks>() {
    answers::<A>(usize::MAX);
}

fn the_same_byte_by_byte<A: Talks>() {
    answers::<A>(1);
}

/// Upgrades that other servers refuse, and that break no rule.
fn what_is_unusual_and_in_order_gets_in<A: Talks>() {
    for head in [
        // RFC 9110 5.5: bytes above ASCII are opaque in a value.
        field("Cookie: city=M\u{fc}nchen; sid=7".as_bytes()),
        field(b"User-Agent: caf\xe9"),
        field(b"CF-IPCity: S\xe3o Paulo"),
        field(b"Sec-WebSocket-Protocol: \xff\xfe"),
        field(b"Origin: \x80"),
        field(b"X: \x80\t\xff"),
        field(&[b"X: ".to_vec(), vec![0xe9; 8000]].concat()),
        // RFC 9112 3.2.2: "a server MUST accept the absolute-form".
        put("/ws/chat/", "ws://127.0.0.1/ws/chat/"),
        put("/ws/chat/", "http://localhost:80/ws/chat/"),
        put("/ws/chat/", "WSS://LOCALHOST:443/ws/chat/"),
        // "MUST ignore the received Host header field".
        put("/ws/chat/", "https://elsewhere.example/ws/chat"),
        put("/ws/chat/", "ws://a/ws/chat/").replaced("Host: localhost", "Host: "),
        put("localhost", "[fe80::1%25eth0]:8000"),
        put("localhost", "[fe80::1%eth0]:8000"),
        // RFC 9110 2.5.
        put("HTTP/1.1", "HTTP/1.2"),
        // RFC 4648 3.5.
        put("dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEC=="),
        put("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
    ] {
        let shown = String::from_utf8_lossy(&head[..head.len().min(300)]).into_owned();
        for step in [usize::MAX, 1] {
            let mut harness = Harness::<A>::new();
            harness.begin_watch();
            let mut stranger = harness.connect();
            for piece in [&head[..], &frame(TEXT, "hi")].concat().chunks(step) {
                stranger.send(piece);
                harness.quick_turn();
            }
            harness.turn();
            assert!(stranger.text().starts_with("HTTP/1.1 101 "), "{shown}\n{}", stranger.text());
            assert!(stranger.read().ends_with(&plain_frame(TEXT, A::reply("hi", 1))), "{shown}");
            stranger.hang_up();
            harness.turns(5);
            harness.only_bystanders_are_left();
            harness.bystanders_went_on();
        }
    }
}

/// The same for what is no upgrade: a balancer's probes, for the most part.
fn what_is_asked_unusually_is_answered<A: Talks>() {
    let close = "\r\nConnection: close\r\n";
    for (request, status, field) in [
        ("OPTIONS / HTTP/1.0\r\n\r\n", 200, "\r\nAllow: GET, HEAD, OPTIONS\r\n"),
        ("OPTIONS / HTTP/1.0\r\n\r\n", 200, close),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200, "\r\nAllow: GET, HEAD, OPTIONS\r\n"),
        ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", 200, "\r\nContent-Length: 0\r\n"),
        ("OPTIONS /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200, "\r\nContent-Length: 0\r\n"),
        ("OPTIONS /ws/chat/ HTTP/1.1\r\nHost: a\r\n\r\n", 200, "\r\nAllow: GET, OPTIONS\r\n"),
        ("OPTIONS /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, close),
        ("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200, ""),
        ("GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n", 200, ""),
        ("GET http://a/healthz HTTP/1.0\r\n\r\n", 200, close),
        ("GET HTTPS://a:443/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""),
        ("GET /healthz HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 200, ""),
        ("GET /ws/chat/ HTTP/1.1\r\nHost:\r\n\r\n", 426, "\r\nUpgrade: websocket\r\n"),
        ("GET ws://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", 403, close),
    ] {
        for step in [usize::MAX, 1] {
            let mut harness = Harness::<A>::new();
            harness.begin_watch();
            let mut stranger = harness.connect();
            for piece in request.as_bytes().chunks(step) {
                stranger.send(piece);
                harness.quick_turn();
            }
            harness.turn();
            let answer = stranger.text();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
            assert!(answer.contains(field), "{request}\n{answer}");
            // What keeps a connection keeps it: the next request is answered too.
            let kept = !answer.contains("\r\nConnection: close");
            assert_eq!(stranger.is_half_closed(), !kept, "{request}\n{answer}");
            stranger.hang_up();
            harness.turns(5);
            harness.only_bystanders_are_left();
            harness.bystanders_went_on();
        }
    }
}

fn random_bytes_never_get_in<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let letters: Vec<u8> = (b' '..=b'~').chain(*b"\r\n\r\n\t").collect();
    let mut strangers = Vec::new();
    for round in 0..400 {
        let length = 1 + random() % 6000;
        // Of all bytes, of those that a head may have, and a head with some of its bytes changed.
        let bytes: Vec<u8> = match round % 3 {
            0 => (0..length).map(|_| random() as u8).collect(),
            1 => (0..length).map(|_| letters[random() % letters.len()]).collect(),
            _ => {
                let mut bytes = upgrade("session_id=a").into_bytes();
                for _ in 0..1 + random() % 3 {
                    let at = random() % bytes.len();
                    bytes[at] = random() as u8 | 0x80;
                }
                bytes
            }
        };
        let stranger = harness.connect();
        stranger.send(&bytes);
        strangers.push(stranger);
    }
    harness.pass(HANDSHAKE + LINGER + 2 * TICK);
    for stranger in &mut strangers {
        let answer = stranger.text();
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
        assert!(stranger.is_released());
    }
    assert_eq!(harness.metric("revolve_rejected_total", ""), strangers.len() as u64);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

fn behind_an_upgrade_come_frames_and_behind_a_refusal_nothing<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut eager = harness.connect();
    eager.send([upgrade("").into_bytes(), frame(TEXT, "at once")].concat());
    let mut refused = harness.connect();
    let behind = [frame(TEXT, "at once"), get("/healthz").into_bytes()].concat();
    refused.send([upgrade("session_id=%20").into_bytes(), behind.clone()].concat());
    // Behind a plain request comes another one; behind one that is refused there, nothing.
    let mut pipelined = harness.connect();
    pipelined.send(get("/healthz") + &get("/healthz") + &get("/nowhere") + &get("/healthz"));
    harness.turns(2);
    let reply = plain_frame(TEXT, A::reply("at once", 1));
    assert!(eager.read().ends_with(&reply), "{}", eager.text());
    let answer = refused.text();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1").count() == 1);
    let answers = pipelined.text();
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|text| &text[..3]).collect();
    assert_eq!(statuses, ["200", "200", "404"]);
    // Nor is it ever taken up later.
    refused.send(&behind);
    harness.turns(3);
    assert_eq!(refused.text(), answer);
    assert_eq!(harness.metrics().websockets.get(), 1 + BYSTANDERS as u64);
    for stranger in [&eager, &refused, &pipelined] {
        stranger.hang_up();
    }
    harness.turns(5);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

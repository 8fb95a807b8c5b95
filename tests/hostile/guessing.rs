//! Session ids as a way in, and text of a peer's as a way into the log or the page of metrics.

use std::collections::BTreeSet;

use crate::client::{TEXT, frame, get, upgrade};
use crate::daemon::Daemon;
use crate::harness::{BYSTANDERS, Harness, Talks, defaults};
use revolve::{Config, SessionIds};

with_both_applications! {
    odd_ids_are_400,
    a_guess_looks_and_costs_like_no_id_at_all,
}

fn odd_ids_are_400<A: Talks>() {
    let mut harness = Harness::<A>::new();
    harness.begin_watch();
    let long = "a".repeat(129);
    let ids = [
        "%00",
        "%0a",
        "%0d%0aX-Evil:%201",
        "%1b[31m",
        "%7f",
        "%22",
        "%27%20OR%201=1",
        "%3Cscript%3E",
        "..%2f..%2fetc",
        "%ff",
        "%c3%a9",
        "%e2%80%ae",
        "a b".split(' ').next().unwrap(),
        "a%20b",
        "a+b",
        "a=b",
        "a/b",
        "a\\b",
        "a{b}",
        "a,b",
        "$(x)",
        "`x`",
        "%",
        "%2",
        "%g0",
        "%%30",
        &long,
    ];
    for (number, id) in ids.iter().enumerate() {
        let mut stranger = harness.connect();
        stranger.send(upgrade(&format!("session_id={id}")));
        harness.turns(2);
        let answer = stranger.text();
        if *id == "a" {
            // The one among them that is none: or this test could not fail.
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{id}: {answer}");
            assert!(
                answer.ends_with("session_id takes 1 to 128 characters of A-Z a-z 0-9 - . _ ~\n")
            );
            assert!(!answer.contains("Evil") && !answer.contains(&"a".repeat(20)), "{answer}");
        }
        stranger.hang_up();
        harness.turns(4);
        assert!(stranger.is_released(), "{number}");
        harness.only_bystanders_are_left();
    }
    assert_eq!(harness.metric("revolve_rejected_total", "bad_session_id"), ids.len() as u64 - 1);
    assert_eq!(harness.metrics().sessions_detached.get(), 0);
    harness.bystanders_went_on();
}

/// What a 101 looks like when its id is taken out, and the id.
fn shape(answer: &str) -> (String, String) {
    let id = answer.split("X-Session-Id: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let id = id.expect("a 101 says which session it is").to_owned();
    (answer.replace(&id, &"*".repeat(id.len())), id)
}

fn a_guess_looks_and_costs_like_no_id_at_all<A: Talks>() {
    let config = Config { session_ids: SessionIds::Issued, ..defaults() };
    let mut harness = Harness::<A>::with(config);
    harness.begin_watch();
    let mut victim = harness.connect();
    victim.send(upgrade(""));
    harness.turns(2);
    let (plain, secret) = shape(&victim.text());
    victim.heard.clear();
    let (known, last) = secret.split_at(21);
    // All but the last character are right; only the first is; nothing is; it is of another kind.
    let near = format!("{known}{}", if last == "A" { "Q" } else { "A" });
    let guesses = [near, format!("{}{}", &secret[..1], "A".repeat(21)), "A".repeat(22), "x".into()];
    let held = harness.metrics().takeovers.get();
    for guess in guesses {
        let mut guesser = harness.connect();
        guesser.send(upgrade(&format!("session_id={guess}")));
        // No turn more than it takes without an id.
        harness.turns(2);
        let (answer, id) = shape(&guesser.text());
        assert_eq!(answer, plain);
        assert!(answer.contains("X-Session-Resumed: false\r\nX-Session-Count: 0\r\n"));
        assert!(id != guess && id != secret, "a fresh id");
        guesser.reset();
        harness.turns(2);
        assert_eq!(harness.metrics().websockets.get(), 1 + BYSTANDERS as u64);
    }
    // Nobody was displaced, and no count was touched.
    assert_eq!(harness.metrics().takeovers.get(), held);
    victim.send(frame(TEXT, "mine"));
    harness.turn();
    assert_eq!(victim.frame(), Some((TEXT, A::reply("mine", 1).into_bytes())));
    victim.reset();
    harness.turns(2);
    harness.only_bystanders_are_left();
    assert_eq!(harness.metrics().sessions_detached.get(), u64::from(A::COUNTS));
    harness.bystanders_went_on();
}

/// The samples of a page, without their values.
fn samples(page: &str) -> BTreeSet<String> {
    page.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Everything that a peer can say in text, said with bytes that would do harm in a log.
fn inject(daemon: &Daemon) -> String {
    let harm = "evil\u{1b}[2J\u{7}\n{\"level\":\"ERROR\"} evil=1 \"";
    let encoded = "evil%1b%5b2J%0a%7b%22level%22%3a%22ERROR%22%7d";
    for request in [
        get(&format!("/{harm}")),
        get(&format!("/{encoded}")),
        get("/healthz").replace("localhost", "evil\u{1b}"),
        get("/healthz").replace("GET", "EVIL"),
        get("/metrics?evil=\"}"),
        upgrade(encoded),
        upgrade(&format!("session_id={encoded}")),
        upgrade("").replace("localhost\r\n", "localhost\r\nOrigin: https://evil.example\r\n"),
        upgrade("").replace("localhost\r\n", "localhost\r\nUser-Agent: evil code=1000 \"\r\n"),
        harm.to_owned(),
    ] {
        let mut raw = daemon.connect();
        raw.send(request);
        raw.half_close();
        raw.gone();
    }
    // Values may have any bytes above ASCII, the C1 controls in UTF-8 among them, and what is no UTF-8.
    let head = upgrade("");
    let (line, rest) = head.split_once("\r\n").unwrap();
    for name in ["Origin", "User-Agent", "Cookie", "Sec-WebSocket-Protocol", "X-Forwarded-For"] {
        for value in [&b"evil\xc2\x9b2J"[..], b"evil\xff\xfe\x80", b"\xe2\x80\xaeevil"] {
            let field = [format!("\r\n{name}: ").as_bytes(), value, b"\r\n"].concat();
            let mut raw = daemon.connect();
            raw.send([line.as_bytes(), &field, rest.as_bytes()].concat());
            raw.half_close();
            raw.gone();
        }
    }
    // In an open one: as a message, as the reason of a Close, as an id that is in order.
    let mut raw = daemon.open("session_id=evil-0123456789-secret");
    raw.send(frame(TEXT, harm));
    assert!(raw.text().contains("count"));
    raw.send(frame(0x88, [&[0x0f, 0xa1][..], b"evil\x1b[2J"].concat()));
    raw.gone();
    let mut probe = daemon.connect();
    let page = daemon.wait_for(&mut probe, "revolve_connections", |n| n == 1);
    assert!(!page.contains("evil"), "{page}");
    page
}

#[test]
fn log_and_metrics_cannot_be_written_to() {
    for format in ["text", "json"] {
        let options = ["--workers", "1", "--log-level", "debug", "--log-format", format];
        let origins = ["--allowed-origins", "https://good.example"];
        let daemon = Daemon::start(None, &[&options[..], &origins].concat());
        let mut probe = daemon.connect();
        let before = samples(&daemon.page(&mut probe));
        drop(probe);
        let after = samples(&inject(&daemon));
        assert_eq!(before, after, "no peer adds a sample");
        let log = daemon.stop();
        let refused = log.lines().filter(|line| line.contains("refused: ")).count();
        assert!(refused >= 6, "{log}");
        for line in log.lines() {
            assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
            match format {
                "json" => {
                    let object: serde_json::Value = serde_json::from_str(line).unwrap();
                    assert!(object["time"].is_string() && object["level"] != "ERROR", "{line}");
                }
                _ => assert!(line.starts_with("20") && line.contains("Z "), "{line:?}"),
            }
            // Of an id eight characters are told, and of the rest of what they say nothing.
            // But for the origin of a page that may not connect, which is told as such.
            let line = line.replace("evil-012", "");
            let origin = ["origin=https://evil.example", r#""origin":"https://evil.example""#];
            assert!(!origin.iter().fold(line, |l, o| l.replace(o, "")).contains("evil"), "{log}");
        }
        assert!(log.contains("evil-012") && !log.contains("evil-0123"), "{log}");
    }
}

//! Pages of other sites: `--allowed-origins`.

use std::time::Instant;

use crate::client::upgrade;
use crate::daemon::Daemon;
use crate::harness::{BYSTANDERS, Harness, Talks, defaults};
use revolve::{AllowedOrigins, Config, Origin};

with_both_applications! {
    a_page_from_elsewhere_is_403,
    by_default_any_page_may,
}

fn from(origin: &str) -> String {
    let field = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
    upgrade("").replace("Host: localhost\r\n", &format!("Host: localhost\r\n{field}"))
}

fn a_page_from_elsewhere_is_403<A: Talks>() {
    let origins = [
        "https://example.com",
        "http://localhost:3000",
        "null",
        "file://",
        "https://*.example.org",
        "https://*.example.org:8443",
    ];
    let origins = origins.map(|text| Origin::parse(text).unwrap());
    let allowed_origins = AllowedOrigins::Only(origins.to_vec());
    let mut harness = Harness::<A>::with(Config { allowed_origins, ..defaults() });
    harness.begin_watch();
    let mut refused = 0;
    for (origin, allowed) in [
        ("https://example.com", true),
        ("https://EXAMPLE.com", true),
        ("http://localhost:3000", true),
        ("null", true),
        ("file://", true),
        ("https://chat.example.org", true),
        ("https://a.b.example.org", true),
        ("https://chat.example.org:8443", true),
        ("https://example.org", false),
        ("https://evilexample.org", false),
        ("https://chat.example.org:8444", false),
        ("https://evil.example/.example.org", false),
        ("https://evil.example:80.example.org", false),
        ("file:///etc/passwd", false),
        // No browser: it could have sent anything.
        ("", true),
        ("https://example.com.evil.example", false),
        ("https://evil.example", false),
        ("http://example.com", false),
        ("https://example.com:8443", false),
        ("http://localhost", false),
        ("NULL, https://example.com", false),
        ("https://example.com\r\nOrigin: https://evil.example", false),
    ] {
        let mut stranger = harness.connect();
        stranger.send(from(origin));
        harness.turns(2);
        let answer = stranger.text();
        let status = if allowed { "101" } else { "403" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}\n{answer}");
        assert!(!answer.contains("evil"), "nothing is sent back: {answer}");
        refused += u64::from(!allowed);
        assert_eq!(harness.metric("revolve_rejected_total", "origin_not_allowed"), refused);
        stranger.hang_up();
        harness.turns(4);
        assert!(stranger.is_released());
        harness.only_bystanders_are_left();
    }
    harness.bystanders_went_on();
}

fn by_default_any_page_may<A: Talks>() {
    let mut harness = Harness::<A>::new();
    for origin in ["https://anywhere.example", "null", "nonsense"] {
        let mut stranger = harness.connect();
        stranger.send(from(origin));
        harness.turns(2);
        assert!(stranger.text().starts_with("HTTP/1.1 101 "), "{origin}");
        stranger.reset();
        harness.turns(2);
    }
    assert_eq!(harness.metrics().websockets.get(), BYSTANDERS as u64);
}

/// At the default level, so that whoever has forgotten an origin finds it; and no flood of them, and
/// nothing in them, can harm the log.
#[test]
fn a_refused_origin_host_or_key_is_told_once_a_second() {
    const EACH: usize = 50;
    let options = ["--workers", "1", "--allowed-origins", "https://good.example"];
    let daemon = Daemon::start(None, &options);
    let begin = Instant::now();
    let long = format!("https://{}.example", "x".repeat(300));
    let refused = [
        (from("https://evil.example/\\\" reason=none"), 403),
        (from(&long), 403),
        (upgrade("").replace("Host: localhost", "Host: local host"), 400),
        (upgrade("").replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (upgrade("").replace("Connection: Upgrade", "Connection: close"), 400),
    ];
    for (request, status) in &refused {
        for _ in 0..EACH {
            let mut raw = daemon.connect();
            raw.send(request);
            assert_eq!(raw.head().status, *status, "{request}");
        }
    }
    let seconds = begin.elapsed().as_secs() as usize;
    let log = daemon.stop();
    let told = |reason: &str| {
        let reason = format!(" reason={reason} ");
        log.lines().filter(|line| line.contains(&reason)).collect::<Vec<_>>()
    };
    for reason in ["origin_not_allowed", "bad_host", "bad_key", "bad_upgrade"] {
        let lines = told(reason);
        // One a second, so one more than seconds have passed, and the one that was begun.
        assert!((1..=2 + seconds).contains(&lines.len()), "{reason}: {log}");
    }
    let origin = r#"origin="https://evil.example/\\\\\\\" reason=none""#;
    assert!(told("origin_not_allowed")[0].contains(origin), "{log}");
    assert!(told("origin_not_allowed")[0].contains("; --allowed-origins names those"), "{log}");
    assert!(told("bad_host")[0].contains(r#"host="local host""#), "{log}");
    assert!(log.lines().all(|line| !line.contains(&"x".repeat(200))), "{log}");
}

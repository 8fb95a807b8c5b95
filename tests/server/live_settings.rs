//! Settings that change while the server runs: what holds from then on, and for whom; and that nobody is disturbed.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::client::{Raw, Running, close, config, eventually, get, upgrade};
use revolve::{AllowedOrigins, Config, Origin};

/// An upgrade from a page of this origin, and the status of its answer.
fn status_for(server: &Running, origin: &str) -> u16 {
    let mut raw = server.connect();
    let request = upgrade("").replace("Host:", &format!("Origin: {origin}\r\nHost:"));
    raw.send(request);
    raw.head().status
}

/// Changes them, and waits until each reactor has begun a turn with what they are then: one that is in the middle of a turn
/// accepts by the former ones.
fn change(server: &Running, change: impl FnOnce(&mut Config)) {
    let settings = server.handle().live_settings();
    let mut config = (*settings.config()).clone();
    change(&mut config);
    settings.change(&config).unwrap();
    let mut liveness = server.handle().liveness();
    for _ in 0..2 {
        eventually("each reactor turns", || liveness.look());
    }
}

fn only(origin: &str) -> AllowedOrigins {
    AllowedOrigins::Only(vec![Origin::parse(origin).unwrap()])
}

fn limit(most: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(most)
}

#[test]
fn origins_hold_for_the_next_upgrade_on_every_reactor_and_nobody_is_cut_off() {
    let server = Running::counter(config(4));
    let mut early: Vec<Raw> = (0..8).map(|n| server.open(&format!("session_id=e-{n}"))).collect();
    assert_eq!(status_for(&server, "https://a.example"), 101);
    for (allowed, a, b) in [("https://b.example", 403, 101), ("https://a.example", 101, 403)] {
        change(&server, |config| config.allowed_origins = only(allowed));
        for _ in 0..20 {
            assert_eq!(status_for(&server, "https://a.example"), a);
            assert_eq!(status_for(&server, "https://b.example"), b);
        }
    }
    for raw in &mut early {
        raw.say("hello");
        assert_eq!(raw.text(), "{\"count\": 1}");
    }
}

#[test]
fn limits_hold_from_the_next_connection_on() {
    let server = Running::counter(Config { limit_concurrency: limit(1), ..config(2) });
    let first = server.open("");
    assert_eq!(server.refused("").head.status, 503);
    change(&server, |config| config.limit_concurrency = limit(3));
    let more = [server.open(""), server.open("")];
    assert_eq!(server.refused("").head.status, 503);
    // Nobody is thrown out by a lower one.
    change(&server, |config| config.limit_concurrency = limit(1));
    drop(more);
    server.wait_for("ws_active_connections", "", 1);
    assert_eq!(server.refused("").head.status, 503);
    drop(first);
    server.wait_for("ws_active_connections", "", 0);
    server.open("");
}

/// A socket that came while none were counted has no permit: what bounds it would not hold.
#[test]
fn a_limit_of_all_connections_is_not_switched_on_or_off() {
    let server = Running::counter(config(1));
    change(&server, |config| config.limit_concurrency = limit(1));
    assert_eq!(server.handle().live_settings().config().limit_concurrency, None);
    let _all = [(); 3].map(|()| server.open(""));
    let server = Running::counter(Config { limit_concurrency: limit(1), ..config(1) });
    change(&server, |config| config.limit_concurrency = None);
    assert_eq!(server.handle().live_settings().config().limit_concurrency, limit(1));
}

#[test]
fn a_limit_of_addresses_can_be_switched_on_and_off() {
    let server = Running::counter(config(2));
    let early = [server.open(""), server.open("")];
    change(&server, |config| config.limit_per_ip = limit(1));
    // Who was there before is not counted.
    let counted = server.open("");
    assert_eq!(server.refused("").head.status, 429);
    drop(early);
    server.wait_for("ws_active_connections", "", 1);
    assert_eq!(server.refused("").head.status, 429);
    change(&server, |config| config.limit_per_ip = None);
    let more = [server.open(""), server.open("")];
    drop((counted, more));
    server.wait_for("revolve_connections", "", 0);
    change(&server, |config| config.limit_per_ip = limit(1));
    let _one = server.open("");
}

#[test]
fn header_fields_page_and_metrics_change_on_connections_that_are_open() {
    let server = Running::counter(config(1));
    let mut open_before = server.connect();
    let mut ask = |path: &str| {
        open_before.send(get(path));
        open_before.response().head
    };
    let status_of = |path: &str| {
        let mut raw = server.connect();
        raw.send(get(path));
        raw.head().status
    };
    assert_eq!((ask("/metrics").status, status_of("/")), (200, 200));
    change(&server, |config| {
        config.metrics = false;
        config.page = false;
        config.response_fields.add_line("X-Colour: green").unwrap();
    });
    assert_eq!(ask("/healthz").field("x-colour"), "green");
    assert_eq!(ask("/metrics").status, 404);
    assert_eq!(status_of("/"), 404);
    change(&server, |config| config.metrics = true);
    assert_eq!((status_of("/metrics"), status_of("/")), (200, 404));
}

#[test]
fn what_cannot_change_stays_and_what_is_wrong_changes_nothing() {
    let server = Running::counter(config(2));
    let settings = server.handle().live_settings();
    let before = settings.config();
    let other = Config {
        workers: limit(7).unwrap(),
        ws_max_size: 1,
        session_ttl: Duration::ZERO,
        max_send_buffer: 4096,
        allowed_origins: only("https://a.example"),
        ..(*before).clone()
    };
    settings.change(&other).unwrap();
    let now = settings.config();
    assert_eq!(now.allowed_origins, other.allowed_origins);
    let fixed = |config: &Config| {
        (config.workers, config.ws_max_size, config.session_ttl, config.max_send_buffer)
    };
    assert_eq!(fixed(&now), fixed(&before));
    let wrong = Config {
        allowed_origins: AllowedOrigins::Any,
        drain_over: now.timeout_graceful_shutdown,
        ..(*now).clone()
    };
    assert_eq!(settings.change(&wrong).unwrap_err().option, "drain-over");
    assert_eq!(settings.config().allowed_origins, other.allowed_origins);
    assert_eq!(status_for(&server, "https://b.example"), 403);
}

#[test]
fn messages_are_answered_while_settings_change_without_end() {
    let server = Running::counter(config(2));
    let mut raws: Vec<Raw> = (0..4).map(|n| server.open(&format!("session_id=t-{n}"))).collect();
    let settings = server.handle().live_settings();
    let mut configs = [(*settings.config()).clone(), (*settings.config()).clone()];
    configs[1].allowed_origins = only("https://a.example");
    configs[1].limit_per_ip = limit(3);
    for count in 1..=300 {
        settings.change(&configs[count % 2]).unwrap();
        for raw in &mut raws {
            raw.say("hello");
        }
        settings.change(&configs[(count + 1) % 2]).unwrap();
        for raw in &mut raws {
            assert_eq!(raw.text(), format!("{{\"count\": {count}}}"));
        }
    }
    for raw in &mut raws {
        raw.send(close(1000));
        assert_eq!(raw.close().0, 1000);
    }
}

/// The drain has the times of when it begins.
#[test]
fn the_times_of_the_drain_can_be_changed_before_it() {
    let server = Running::counter(config(1));
    change(&server, |config| config.timeout_graceful_shutdown = Duration::ZERO);
    let raw = server.open("");
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut), (0, 1), "it had no time to answer");
    drop(raw);
}

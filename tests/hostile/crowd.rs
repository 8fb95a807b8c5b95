//! Too many: from one address, in all, or at the wrong time. Refusals are sent if
//! there is room to tell them, and take nothing from those inside.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::client::{self, Raw, Running, TEXT, frame, get, upgrade};
use crate::harness::{BYSTANDERS, Harness, Stranger, Talks, defaults};
use revolve::{Config, Limits, SessionIds, SessionRate};

with_both_applications! {
    one_address_has_its_limit,
    half_open_handshakes_of_one_address_hold_no_more_than_twice_its_limit,
    one_address_cannot_flush_the_table_of_sessions,
    a_full_house_still_answers_probes_and_holds_no_more_than_it_says,
    a_server_that_leaves_says_when_to_come_back,
}

fn limited(limit: usize) -> Config {
    Config { limit_per_ip: NonZeroUsize::new(limit), ..defaults() }
}

/// What an upgrade from this address is answered with; empty if with nothing at all.
fn asks<A: Talks>(harness: &mut Harness<A>, address: &str) -> (Stranger, String) {
    let mut stranger = harness.connect_from(address.parse().unwrap());
    stranger.send(upgrade(""));
    harness.turns(2);
    let answer = stranger.text();
    (stranger, answer)
}

fn one_address_has_its_limit<A: Talks>() {
    let mut harness = Harness::<A>::with(limited(3));
    harness.begin_watch();
    // Mapped, an IPv4 address is still the same one.
    let mut inside = Vec::new();
    for address in ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"] {
        let (stranger, answer) = asks(&mut harness, address);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        inside.push(stranger);
    }
    // Three more are told, and have a moment to read it.
    let mut refused = Vec::new();
    for _ in 0..3 {
        let (stranger, answer) = asks(&mut harness, "192.0.2.1");
        assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(stranger.is_half_closed() && !stranger.is_released());
        refused.push(stranger);
    }
    // For any more there is nothing.
    for _ in 0..20 {
        let (stranger, answer) = asks(&mut harness, "192.0.2.1");
        assert_eq!(answer, "");
        assert!(stranger.is_released());
    }
    assert_eq!(harness.metric("revolve_rejected_total", "limit_per_ip"), 23);
    assert_eq!(harness.metrics().connections.get(), (BYSTANDERS + 6) as u64);
    // It is nobody else's limit.
    let (other, answer) = asks(&mut harness, "192.0.2.2");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // Of IPv6 the first 64 bits count.
    for host in 1..=3 {
        let (stranger, answer) = asks(&mut harness, &format!("2001:db8::{host}"));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        inside.push(stranger);
    }
    let (stranger, answer) = asks(&mut harness, "2001:db8::ffff:ffff:ffff:ffff");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    refused.push(stranger);
    let (neighbour, answer) = asks(&mut harness, "2001:db8:0:1::1");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // The refused are gone when they have read it; who leaves makes room for one.
    refused.iter().for_each(Stranger::hang_up);
    harness.turns(2);
    assert!(refused.iter().all(Stranger::is_released));
    inside.remove(0).reset();
    harness.turns(2);
    let (stranger, answer) = asks(&mut harness, "192.0.2.1");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    inside.push(stranger);
    let (stranger, answer) = asks(&mut harness, "192.0.2.1");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    stranger.reset();
    inside.iter().chain([&other, &neighbour]).for_each(Stranger::reset);
    harness.turns(2);
    harness.only_bystanders_are_left();
    // Nothing is kept of those who have left.
    assert_eq!(harness.status.connection_limiter().counts(), (BYSTANDERS, BYSTANDERS));
    harness.bystanders_went_on();
}

fn half_open_handshakes_of_one_address_hold_no_more_than_twice_its_limit<A: Talks>() {
    let mut harness = Harness::<A>::with(limited(10));
    harness.begin_watch();
    let mut strangers = Vec::new();
    // Whoever is let go of is replaced at once, for longer than all deadlines.
    for _ in 0..20 * 20 {
        for _ in 0..10 {
            let stranger = harness.connect_from("192.0.2.1".parse().unwrap());
            stranger.send("GET ");
            strangers.push(stranger);
        }
        harness.pass(Duration::from_millis(50));
        let held = harness.metrics().connections.get() as usize - BYSTANDERS;
        assert!(held <= 20, "{held} sockets");
        strangers.retain(|stranger| !stranger.is_released());
    }
    strangers.iter().for_each(Stranger::reset);
    harness.turns(2);
    harness.only_bystanders_are_left();
    harness.bystanders_went_on();
}

/// A field of a response.
#[track_caller]
fn field<'a>(response: &'a str, name: &str) -> &'a str {
    let lines = response.lines().take_while(|line| !line.is_empty());
    let mut fields = lines.filter_map(|line| line.split_once(": "));
    fields.find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}: {response}")).1
}

/// Makes sessions as fast as it can, counts a message in each and leaves, so many times; returns the
/// answers.
fn flood_of_sessions<A: Talks>(harness: &mut Harness<A>, times: usize) -> Vec<String> {
    let mut answers = Vec::new();
    let mut strangers = Vec::new();
    for number in 0..times {
        let stranger = harness.connect_from("192.0.2.1".parse().unwrap());
        stranger.send(upgrade(""));
        stranger.send(frame(TEXT, "hello"));
        strangers.push(stranger);
        if number % 10 == 9 {
            harness.turns(3);
            for mut stranger in strangers.drain(..) {
                answers.push(stranger.text());
                stranger.reset();
            }
            harness.turn();
        }
    }
    answers
}

fn one_address_cannot_flush_the_table_of_sessions<A: Talks>() {
    for limit in [None, Some(20)] {
        let mut harness = Harness::<A>::with(Config {
            max_sessions: 100,
            session_ids: SessionIds::Issued,
            limit_sessions_per_ip: limit
                .and_then(NonZeroU32::new)
                .map(|sessions| SessionRate { sessions, window: Duration::from_secs(60) }),
            ..defaults()
        });
        let mut victim = harness.connect();
        victim.send(upgrade(""));
        harness.turns(2);
        let id = field(&victim.text(), "X-Session-Id").to_owned();
        victim.send(frame(TEXT, "mine"));
        harness.turn();
        victim.reset();
        harness.turns(2);
        assert_eq!(harness.metrics().sessions_detached.get(), u64::from(A::COUNTS));
        harness.begin_watch();
        let answers = flood_of_sessions(&mut harness, 1000);
        let made = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 101 ")).count();
        let refused = answers
            .iter()
            .filter(|answer| answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"))
            .inspect(|answer| {
                // One more every three seconds; the flood takes less than one.
                assert!(["3", "2"].contains(&field(answer, "Retry-After")), "{answer}");
            })
            .count();
        let expected = limit.map_or(1000, |limit| limit as usize);
        assert_eq!((made, refused), (expected, 1000 - expected));
        let evicted = if A::COUNTS && limit.is_none() { 1001 - 100 } else { 0 };
        assert_eq!(harness.metric("revolve_evictions_total", "table_full"), evicted);
        assert_eq!(
            harness.metric("revolve_rejected_total", "limit_sessions_per_ip"),
            refused as u64
        );
        // Whoever was away comes back to what it had.
        let mut back = harness.connect();
        back.send(upgrade(&format!("session_id={id}")));
        harness.turns(2);
        let is_there = A::COUNTS && limit.is_some();
        assert_eq!(field(&back.text(), "X-Session-Resumed"), is_there.to_string());
        back.reset();
        harness.turns(2);
        harness.only_bystanders_are_left();
        harness.bystanders_went_on();
    }
}

fn a_full_house_still_answers_probes_and_holds_no_more_than_it_says<A: Talks>() {
    // Room for the bystanders and two more.
    let limit = BYSTANDERS + 2;
    let mut harness = Harness::<A>::with(Config {
        limit_concurrency: NonZeroUsize::new(limit),
        limits: Limits { socket_margin: 5, ..Limits::default() },
        ..defaults()
    });
    let most = harness.config.most_sockets().unwrap();
    assert_eq!((most.admitted, most.refused), (2 * limit + 5, 2 * limit + 10));
    harness.begin_watch();
    let _inside = [harness.open(""), harness.open("")];
    let (refused, answer) = asks(&mut harness, "192.0.2.1");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 1\r\n"));
    refused.hang_up();
    harness.turns(2);
    let mut probe = harness.connect();
    probe.send(get("/readyz"));
    harness.turns(2);
    assert!(probe.text().starts_with("HTTP/1.1 200 "), "full, and ready for who has a session");
    // Half-open handshakes fill the rest of the house.
    let halves: Vec<_> = (0..most.admitted - limit - 1).map(|_| harness.connect()).collect();
    harness.turns(2);
    let mut told = Vec::new();
    for _ in 0..most.refused - most.admitted {
        let mut stranger = harness.connect();
        harness.turns(2);
        assert!(stranger.text().starts_with("HTTP/1.1 503 "), "{}", stranger.text());
        told.push(stranger);
    }
    for _ in 0..20 {
        let mut stranger = harness.connect();
        harness.turns(2);
        assert!(stranger.text().is_empty() && stranger.is_released());
    }
    assert_eq!(harness.metrics().connections.get(), most.refused as u64);
    // And a probe on its kept connection is answered throughout.
    probe.send(get("/healthz"));
    harness.turn();
    assert!(probe.text().contains("{\"status\": \"ok\"}"));
    assert_eq!(harness.metric("revolve_rejected_total", "limit_concurrency"), 1 + 5 + 20);
    // Their deadlines make room.
    harness.pass(Duration::from_millis(15_200));
    assert!(halves.iter().chain(&told).all(Stranger::is_released));
    let (_, answer) = asks(&mut harness, "192.0.2.1");
    assert!(answer.starts_with("HTTP/1.1 503 "), "as a WebSocket still: {answer}");
    harness.bystanders_went_on();
}

fn a_server_that_leaves_says_when_to_come_back<A: Talks>() {
    let mut harness = Harness::<A>::new();
    let mut kept = harness.connect();
    kept.send(get("/healthz"));
    harness.turns(2);
    kept.read();
    kept.heard.clear();
    let mut late = harness.connect();
    late.send(upgrade(""));
    harness.shut_down();
    kept.send(upgrade("session_id=a"));
    harness.leave();
    for stranger in [&mut kept, &mut late] {
        let answer = stranger.text();
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(stranger.is_half_closed());
    }
    assert_eq!(harness.metric("revolve_rejected_total", "draining"), 2);
}

/// An open or refused WebSocket from another address of the loopback network.
fn from(server: SocketAddr, address: [u8; 4], query: &str) -> (Raw, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(IpAddr::from(address), 0).into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let mut raw = Raw::new(TcpStream::from(socket));
    raw.send(upgrade(query));
    let status = raw.head().status;
    (raw, status)
}

#[test]
fn the_limit_of_an_address_is_exact_over_all_reactors_and_through_hand_overs() {
    const LIMIT: usize = 20;
    let config = Config { limit_per_ip: NonZeroUsize::new(LIMIT), ..client::config(4) };
    let server = Running::counter(config);
    let (here, there) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    for round in 0..3 {
        // Chosen ids, so that three of four are handed over.
        let mut inside: Vec<_> = (0..LIMIT)
            .map(|n| {
                let (raw, status) = from(server.address, here, &format!("session_id={round}-{n}"));
                assert_eq!(status, 101, "round {round}, {n}");
                raw
            })
            .collect();
        for _ in 0..LIMIT {
            assert_eq!(from(server.address, here, "").1, 429);
        }
        let (mut other, status) = from(server.address, there, "");
        assert_eq!(status, 101, "another address");
        for raw in inside.iter_mut().chain([&mut other]) {
            raw.send(frame(TEXT, "x"));
            assert_eq!(raw.text(), r#"{"count": 1}"#);
        }
        // All leave; so all may come back.
        drop((inside, other));
        server.wait_for("revolve_connections", "", 0);
    }
    assert_eq!(server.metric("revolve_rejected_total", "limit_per_ip"), 3 * LIMIT as u64);
    assert!(server.metric("revolve_hand_overs_in_total", "") > LIMIT as u64);
}

//! Two daemons on one Redis: a client finds its session on either of them, and nobody else counts it.

use std::io::{self, ErrorKind};
use std::net::TcpStream;

use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Error, Message, WebSocket};

use crate::daemon::{Daemon, get};
use crate::node::PATIENCE;
use crate::server::{Redis, ask, ok};

type Client = WebSocket<MaybeTlsStream<TcpStream>>;

/// A client of this session.
fn client(address: &str) -> Client {
    try_client(address).unwrap_or_else(|error| panic!("{error}"))
}

fn try_client(address: &str) -> Result<Client, Error> {
    let (client, _) = tungstenite::connect(format!("ws://{address}/ws/chat/?session_id=s"))?;
    if let MaybeTlsStream::Plain(stream) = client.get_ref() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    Ok(client)
}

/// What a message is answered with: the count.
fn count(client: &mut Client) -> u64 {
    client.send(Message::text("x")).unwrap();
    loop {
        if let Message::Text(text) = client.read().unwrap()
            && let Some((_, rest)) = text.split_once("\"count\":")
        {
            let digits: String = rest.trim().chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().unwrap();
        }
    }
}

/// The code with which it is closed.
fn closed(client: &mut Client) -> u16 {
    loop {
        match client.read() {
            Ok(Message::Close(Some(frame))) => return frame.code.into(),
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                panic!("{}", io::Error::from(ErrorKind::TimedOut))
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Daemons that serve, and their addresses.
fn two(redis: &Redis) -> [(Daemon, String); 2] {
    let store = format!("redis://{}:6379/0", redis.host());
    ["a", "b"].map(|name| {
        let mut daemon = Daemon::start(&store, &["--node", name, "--store-wait", "no"]);
        let address = daemon.address();
        (daemon, address)
    })
}

#[test]
fn a_client_finds_its_count_on_either_and_the_older_connection_is_closed() {
    let redis = Redis::start(&[]);
    let [(mut a, on_a), (mut b, on_b)] = two(&redis);
    let mut expected = 0;
    let mut older = client(&on_a);
    for round in 0..20 {
        for _ in 0..3 {
            expected += 1;
            assert_eq!(count(&mut older), expected, "round {round}");
        }
        let mut newer = client([&on_b, &on_a][round % 2]);
        expected += 1;
        assert_eq!(count(&mut newer), expected, "round {round}");
        assert_eq!(closed(&mut older), 4001, "round {round}");
        older = newer;
    }
    for address in [&on_a, &on_b] {
        assert!(get(address, "/metrics").contains("\nrevolve_store_available 1\n"));
    }
    assert_eq!(a.end().code(), Some(0), "{:#?}", a.said);
    assert_eq!(b.end().code(), Some(0), "{:#?}", b.said);
}

#[test]
fn while_redis_hangs_nobody_is_served_and_afterwards_everybody() {
    let redis = Redis::start(&[]);
    let [(mut a, on_a), (_b, on_b)] = two(&redis);
    let mut first = client(&on_a);
    assert_eq!(count(&mut first), 1);
    redis.signal("-STOP");
    first.send(Message::text("x")).unwrap();
    assert_eq!(closed(&mut first), 1013);
    a.wait_for("upgrades get 503");
    match try_client(&on_a) {
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    redis.signal("-CONT");
    a.wait_for(": it serves");
    let mut second = client(&on_a);
    let next = count(&mut second);
    // The message that had no answer may have been counted.
    assert!((2..=3).contains(&next), "{next}");
    let mut connection = redis.connect();
    let killed = ask(&mut connection, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(killed.integer().is_some());
    assert_eq!(count(&mut second), next + 1);
    assert_eq!(ask(&mut connection, &["SCRIPT", "FLUSH"]), ok());
    assert_eq!(count(&mut second), next + 2);
    assert_eq!(count(&mut client(&on_b)), next + 3);
}

#[test]
fn a_node_warns_if_another_process_has_its_name() {
    let redis = Redis::start(&[]);
    let store = format!("redis://{}:6379/0", redis.host());
    let start = |name: &str| {
        Daemon::start(&store, &["--node", name, "--store-wait", "no", "--log-level", "debug"])
    };
    let [mut first, mut other] = ["a", "b"].map(&start);
    for (daemon, name) in [(&mut first, "a"), (&mut other, "b")] {
        daemon.wait_for(&format!("nobody else is node {name}"));
    }
    let mut namesake = start("a");
    namesake.wait_for("another process is node a too");
    // Nothing depends on it: counts go on.
    let mut older = client(&first.address());
    assert_eq!(count(&mut older), 1);
    let mut newer = client(&namesake.address());
    assert_eq!(count(&mut newer), 2);
    older.send(Message::text("x")).unwrap();
    assert_eq!(closed(&mut older), 4001);
    assert_eq!(count(&mut newer), 3);
    // Its drain waits for nobody.
    drop((older, newer));
    // A process that takes the place of one that has ended is no namesake.
    for daemon in [&mut first, &mut namesake] {
        assert_eq!(daemon.end().code(), Some(0), "{:#?}", daemon.said);
    }
    start("a").wait_for("nobody else is node a");
}

//! Unix sockets: beside a TCP port and alone, spread over the reactors, under every limit but those
//! of addresses; and what becomes of the file.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use revolve::{Address, Application, Config, Context, Counter, Message, Peer, ServeError, Server};

use super::client::{Raw, Running, close, config, get, on_port, upgrade};

/// A path that no other test has; short enough for every system.
fn path() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("revolve-{}-{number}.sock", process::id()))
}

/// The same server on a free port and on a path.
fn on_both(workers: usize) -> (Config, PathBuf) {
    let path = path();
    let listen = vec![on_port(0), Address::from(path.clone())];
    (Config { listen, ..config(workers) }, path)
}

/// A connection by way of the path that has said nothing yet.
fn connect(path: &PathBuf) -> Raw {
    Raw::of_unix(OwnedFd::from(UnixStream::connect(path).unwrap()))
}

fn open(path: &PathBuf, query: &str) -> Raw {
    let mut raw = connect(path);
    raw.send(upgrade(query));
    let head = raw.head();
    assert_eq!(head.status, 101, "{head:?}");
    raw
}

#[test]
fn a_session_is_the_same_whichever_way_its_client_comes() {
    let (config, path) = on_both(3);
    let server = Running::counter(config);
    for (n, name) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        let query = format!("session_id={name}");
        let mut raw = open(&path, &query);
        raw.say("hello");
        assert_eq!(raw.text(), r#"{"count": 1}"#, "{n}");
        // The older one is displaced across the two.
        let mut newer = server.open(&query);
        assert_eq!(raw.close().0, 4001);
        newer.say("hello");
        assert_eq!(newer.text(), r#"{"count": 2}"#);
        let mut again = open(&path, &query);
        assert_eq!(newer.close().0, 4001);
        again.say(&"x".repeat(200_000));
        assert_eq!(again.text(), r#"{"count": 3}"#);
    }
}

#[test]
fn one_listener_feeds_all_reactors() {
    let (config, path) = on_both(3);
    let server = Running::counter(config);
    let raws: Vec<_> = (0..30).map(|_| open(&path, "")).collect();
    for reactor in 0..3 {
        server.wait_for("revolve_websockets", &format!("reactor=\"{reactor}\""), 10);
    }
    assert_eq!(server.metric("revolve_hand_overs_out_total", ""), 20);
    assert_eq!(server.metric("revolve_hand_overs_in_total", ""), 20);
    assert_eq!(server.metric("revolve_accepts_total", "reactor=\"0\""), 30);
    drop(raws);
    server.wait_for("revolve_websockets", "", 0);
}

#[test]
fn a_drain_says_goodbye_and_the_file_is_gone() {
    let (config, path) = on_both(2);
    let server = Running::counter(config);
    let mut raws: Vec<_> = (0..8).map(|_| open(&path, "")).collect();
    assert!(path.exists());
    server.handle().shutdown();
    for raw in &mut raws {
        assert_eq!(raw.close().0, 1001);
        raw.send(close(1001));
        raw.at_end();
    }
    let summary = server.shut_down();
    assert_eq!((summary.closed, summary.cut, summary.panicked), (8, 0, 0));
    assert!(!path.exists());
}

#[test]
fn limits_of_addresses_are_not_for_it_and_all_others_are() {
    let (config, path) = on_both(2);
    let server = Running::counter(Config {
        limit_per_ip: NonZeroUsize::new(1),
        limit_sessions_per_ip: Some(revolve::SessionRate {
            sessions: const { std::num::NonZeroU32::new(1).unwrap() },
            window: revolve::SessionRate::WINDOW,
        }),
        limit_concurrency: NonZeroUsize::new(4),
        ..config
    });
    let _raws: Vec<_> = (0..4).map(|_| open(&path, "")).collect();
    let mut fifth = connect(&path);
    fifth.send(upgrade(""));
    assert_eq!(fifth.response().head.status, 503);
    let _first = server.connect();
    // Each reactor has a queue of its own: the second one could be accepted first.
    server.wait_for("revolve_accepts_total", "", 6);
    assert_eq!(server.connect().response().head.status, 429);
}

#[test]
fn the_page_is_for_this_machine_and_so_for_it() {
    let (config, path) = on_both(2);
    let _server = Running::counter(config);
    let mut raw = connect(&path);
    for (request, status) in [
        (get("/"), 200),
        (get("/metrics"), 200),
        (get("/readyz"), 200),
        // A proxy has spoken for somebody.
        (get("/").replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"), 403),
    ] {
        raw.send(request);
        assert_eq!(raw.response().head.status, status);
    }
}

/// Tells its peer who it is.
struct Mirror;

impl Application for Mirror {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _: Message<'_>) {
        assert_eq!((cx.peer(), cx.peer().address()), (Peer::Unix, None));
        cx.send_text(&cx.peer().to_string());
    }
}

#[test]
fn alone_it_needs_no_port_and_its_peer_has_no_address() {
    let path = path();
    let listen = [Address::from(path.clone())];
    let server =
        Server::builder().config(config(2)).listen(listen.clone()).serve(|_| Mirror).unwrap();
    assert_eq!(server.addresses(), listen);
    let mut raw = open(&path, "");
    raw.say("who am I?");
    assert_eq!(raw.text(), "unix:");
    server.shutdown();
    assert_eq!(server.join().panicked, 0);
}

#[test]
fn a_path_that_cannot_be_had_is_one_clear_line() {
    let (config, path) = on_both(1);
    let server = Running::counter(config.clone());
    let said = |path: PathBuf| {
        let listen = vec![on_port(0), Address::from(path)];
        let builder = Server::builder().config(Config { listen, ..config.clone() });
        let error = builder.serve(|_| Counter::new(None)).expect_err("must be refused");
        assert!(matches!(error, ServeError::Listen { .. }));
        error.to_string()
    };
    let shown = path.display();
    assert_eq!(
        said(path.clone()),
        format!(
            "cannot listen on unix:{shown}: another process listens there; choose another path \
             with --uds"
        )
    );
    open(&path, "");
    let file = path.with_extension("txt");
    fs::write(&file, "").unwrap();
    assert!(
        said(file.clone())
            .ends_with(": what is there is no socket, and stays; choose another path with --uds")
    );
    fs::remove_file(file).unwrap();
    let nowhere = said(path.join("s"));
    assert!(
        nowhere.ends_with(": a part of it is no directory; choose another path with --uds"),
        "{nowhere}"
    );
    let nowhere = said(path.with_extension("d").join("s"));
    assert!(nowhere.ends_with("no such directory; make it, or choose another with --uds"));
    server.shut_down();
}

//! The admin address: what is served there, what is not, and what no longer is where everybody asks.

use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use revolve::{Address, Config, Counter, ServeError, Server, ServerHandle, UnixPath};

use super::client::{PATH, Raw, config, get, on_port, upgrade};

fn serve(config: Config) -> ServerHandle<Counter> {
    Server::builder().config(config).serve(|_| Counter::new(None)).unwrap()
}

fn connect(address: &Address) -> Raw {
    Raw::new(TcpStream::connect(address.tcp().unwrap()).unwrap())
}

fn status(mut raw: Raw, request: String) -> u16 {
    raw.send(request);
    raw.response().head.status
}

#[test]
fn operators_ask_there_and_nobody_elsewhere() {
    let config = Config { admin: Some(on_port(0)), ..config(2) };
    let server = serve(config);
    let (public, admin) = (&server.addresses()[0], server.admin_address().unwrap());
    assert_ne!(public.tcp().unwrap().port(), admin.tcp().unwrap().port());
    for path in ["/", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(connect(admin), get(path)), 200, "{path}");
        assert_eq!(status(connect(public), get(path)), 404, "{path}");
    }
    let figures = upgrade("").replace(&format!("{PATH}?"), "/ws/stats?");
    assert_eq!(status(connect(public), figures.clone()), 404);
    let mut watcher = connect(admin);
    watcher.send(figures);
    assert_eq!(watcher.head().status, 101);
    assert_eq!(status(connect(admin), upgrade("")), 404, "no WebSocket is there");
    let mut client = connect(public);
    client.send(upgrade("session_id=a"));
    assert_eq!(client.head().status, 101);
    client.say("hello");
    assert_eq!(client.text(), r#"{"count": 1}"#);
    server.shutdown();
    assert_eq!(server.join().panicked, 0);
}

#[test]
fn it_is_a_path_as_well_and_no_limit_of_addresses_shuts_it() {
    let path: PathBuf = std::env::temp_dir().join(format!("revolve-admin-{}", std::process::id()));
    let unix = UnixPath { path: path.clone(), mode: Some(0o600) };
    for admin in [Address::from(unix), on_port(0)] {
        let limit_per_ip = NonZeroUsize::new(1);
        let server = serve(Config { admin: Some(admin), limit_per_ip, ..config(3) });
        let ask = || match server.admin_address().unwrap() {
            Address::Unix(_) => Raw::of_unix(OwnedFd::from(UnixStream::connect(&path).unwrap())),
            tcp => connect(tcp),
        };
        let mut held = connect(&server.addresses()[0]);
        held.send(upgrade(""));
        assert_eq!(held.head().status, 101);
        // The reactors have queues of their own, so which comes second is not known; one is refused.
        assert_eq!(status(connect(&server.addresses()[0]), upgrade("")), 429);
        let askers: Vec<_> = (0..6).map(|_| ask()).collect();
        for asker in askers {
            assert_eq!(status(asker, get("/readyz")), 200);
        }
        server.shutdown();
        assert_eq!(server.join().panicked, 0);
        assert!(!path.exists());
    }
}

#[test]
fn an_address_that_cannot_be_had_is_one_line() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = Address::from(holder.local_addr().unwrap());
    let config = Config { admin: Some(admin.clone()), ..config(1) };
    let builder = Server::builder().config(config);
    let error = builder.serve(|_| Counter::new(None)).expect_err("must be refused");
    assert!(matches!(error, ServeError::Admin { .. }));
    let line = error.to_string();
    assert!(line.starts_with(&format!("cannot listen on {admin} for --admin: ")), "{line}");
}

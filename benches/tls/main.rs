//! What TLS costs: CPU time a message and a handshake, and memory an idle connection, beside plain sockets and beside
//! tokio-rustls with tokio-tungstenite (`benches/peers/src/bin/tls-tokio.rs`), in one run; handshakes beside nginx too,
//! which has OpenSSL and answers a plain request.
//!
//!     cargo build --release --manifest-path benches/peers/Cargo.toml --bin tls-tokio
//!     TLS_PEER=benches/peers/target/release/tls-tokio NGINX_PROGRAM=/usr/sbin/nginx \
//!         cargo bench --features tls --bench tls
//!
//! Every server is a process of its own with one thread, and an echo; what is counted is that process's CPU time. The
//! client is rustls's, in this process. All take the ECDSA certificate of the tests. Compare figures within one run only.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use revolve::config::{Config, TlsFiles};
use revolve::{Echo, Server};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::{Message, WebSocket};

const ROUNDS: usize = 5;
const IDLE: usize = 1000;

fn path(name: &str) -> String {
    format!("{}/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The server in a process of its own: it says its port, and ends with its standard input.
fn serve(encrypted: bool) {
    let files = |name: &str| if encrypted { vec![path(name).into()] } else { Vec::new() };
    let (certfiles, keyfiles) = (files("ecdsa.pem"), files("ecdsa.key"));
    let tls = TlsFiles { certfiles, keyfiles, ..TlsFiles::default() };
    let config = Config { tls, access_log: false, ..Config::default() };
    let builder = Server::builder().config(config).port(0).workers(1);
    let server = builder.serve(|_| Echo).unwrap();
    println!("{}", server.addresses()[0].tcp().unwrap().port());
    let _ = std::io::stdin().read(&mut [0; 1]);
    server.shutdown();
    server.join();
}

struct Peer {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    encrypted: bool,
}

impl Peer {
    fn start(name: &'static str, command: &mut Command, encrypted: bool) -> Peer {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap()));
        Peer { name, child, address, encrypted }
    }

    /// One worker that answers 200 to all, and has tickets but no cache, as the others.
    fn start_nginx(program: &str, folder: &std::path::Path) -> Peer {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let (at, certificate, key) = (folder.display(), path("ecdsa.pem"), path("ecdsa.key"));
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .concat();
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error; \
             events {{ worker_connections 1024; }} \
             http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port} ssl; \
             ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_cache off; \
             ssl_protocols TLSv1.2 TLSv1.3; location / {{ return 200 ok; }} }} }}"
        );
        fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        let child = command.arg("-e").arg(folder.join("error")).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let give_up = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < give_up, "nginx does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Peer { name: "nginx, TLS", child, address, encrypted: true }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// CPU time so far, of all its threads, in nanoseconds.
    fn cpu_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |task: &std::path::Path| {
            let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default()
        };
        tasks.map(|task| of(&task.unwrap().path())).sum()
    }

    fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Line {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Line {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Line::Plain(stream) => stream.read(room),
            Line::Encrypted(stream) => stream.read(room),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Line::Plain(stream) => stream.write(bytes),
            Line::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Line::Plain(stream) => stream.flush(),
            Line::Encrypted(stream) => stream.flush(),
        }
    }
}

fn client(resumes: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("ca.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

fn dial(peer: &Peer, config: &Arc<ClientConfig>) -> Line {
    let stream = TcpStream::connect(peer.address).unwrap();
    stream.set_nodelay(true).unwrap();
    if !peer.encrypted {
        return Line::Plain(stream);
    }
    let session = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
    Line::Encrypted(Box::new(StreamOwned::new(session, stream)))
}

fn open(peer: &Peer, config: &Arc<ClientConfig>) -> WebSocket<Line> {
    tungstenite::client("ws://localhost/ws/chat/", dial(peer, config)).unwrap().0
}

/// CPU time of the server for this, in nanoseconds.
fn cost(peer: &Peer, work: impl FnOnce()) -> u64 {
    let before = peer.cpu_ns();
    work();
    thread::sleep(Duration::from_millis(20));
    peer.cpu_ns() - before
}

fn exchange(sockets: &mut [WebSocket<Line>], messages: usize, rounds: usize) {
    for _ in 0..rounds {
        for socket in &mut *sockets {
            for _ in 0..messages {
                socket.write(Message::text("sixteen letters.")).unwrap();
            }
            socket.flush().unwrap();
        }
        for socket in &mut *sockets {
            for _ in 0..messages {
                socket.read().unwrap();
            }
        }
    }
}

/// Connections that send one plain request, hear its answer and go; CPU microseconds each.
fn requests(peer: &Peer, config: &Arc<ClientConfig>, count: usize) -> f64 {
    let ns = cost(peer, || {
        for _ in 0..count {
            let mut line = dial(peer, config);
            let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            line.write_all(request).unwrap();
            let mut answer = Vec::new();
            // Who says no close_notify is no worse here.
            let _ = line.read_to_end(&mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    });
    ns as f64 / count as f64 / 1000.0
}

/// Connections that upgrade and go; CPU microseconds each.
fn visits(peer: &Peer, config: &Arc<ClientConfig>, count: usize) -> f64 {
    let ns = cost(peer, || {
        for _ in 0..count {
            drop(open(peer, config));
        }
    });
    ns as f64 / count as f64 / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    match env::args().nth(1).as_deref() {
        Some("serve-plain") => return serve(false),
        Some("serve-tls") => return serve(true),
        _ => {}
    }
    let own = env::current_exe().unwrap();
    let mut peers = vec![
        Peer::start("revolve, plain", Command::new(&own).arg("serve-plain"), false),
        Peer::start("revolve, TLS", Command::new(&own).arg("serve-tls"), true),
    ];
    if let Ok(program) = env::var("TLS_PEER") {
        let mut command = Command::new(program);
        command.args([path("ecdsa.pem"), path("ecdsa.key")]);
        peers.push(Peer::start("tokio-rustls", &mut command, true));
    }
    let (fresh, resuming) = (client(false), client(true));
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    // Round by round, one server after the other: what else the machine does, all of them feel.
    let measured = |peers: &[&Peer], of: &dyn Fn(&Peer) -> f64| -> Vec<f64> {
        let mut found = vec![Vec::new(); peers.len()];
        for _ in 0..ROUNDS {
            for (peer, found) in peers.iter().zip(&mut found) {
                found.push(of(peer));
            }
        }
        found.into_iter().map(median).collect()
    };
    let all: Vec<&Peer> = peers.iter().collect();
    let mut row = |name, of: &dyn Fn(&Peer) -> f64| rows.push((name, measured(&all, of)));
    row("ping-pong, 1 connection, 16 B: CPU µs a message", &|peer| {
        let mut sockets = [open(peer, &fresh)];
        cost(peer, || exchange(&mut sockets, 1, 5000)) as f64 / 5e6
    });
    row("64 connections × 16 messages of 16 B: CPU µs a message", &|peer| {
        let mut sockets: Vec<_> = (0..64).map(|_| open(peer, &fresh)).collect();
        cost(peer, || exchange(&mut sockets, 16, 50)) as f64 / (64.0 * 16.0 * 50.0) / 1e3
    });
    row("echo of 1 MiB: CPU µs", &|peer| {
        let mut socket = open(peer, &fresh);
        let message = Message::binary(vec![7; 1 << 20]);
        let ns = cost(peer, || {
            for _ in 0..20 {
                socket.send(message.clone()).unwrap();
                socket.read().unwrap();
            }
        });
        ns as f64 / 2e4
    });
    row("connect, upgrade, go, full handshake: CPU µs", &|peer| visits(peer, &fresh, 300));
    row("the same, resumed: CPU µs", &|peer| visits(peer, &resuming, 300));
    let mut idle = Vec::new();
    for peer in &peers {
        // Once to have the allocator and the tables grown.
        drop((0..IDLE).map(|_| open(peer, &fresh)).collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(300));
        let before = peer.resident();
        let sockets: Vec<_> = (0..IDLE).map(|_| open(peer, &fresh)).collect();
        thread::sleep(Duration::from_millis(300));
        let again: Vec<_> = (0..IDLE).map(|_| open(peer, &fresh)).collect();
        thread::sleep(Duration::from_millis(300));
        idle.push((peer.resident() - before) as f64 / IDLE as f64);
        drop((sockets, again));
    }
    rows.push(("idle connection, resident: bytes", idle));
    print_table(&all, &rows);
    if let Ok(program) = env::var("NGINX_PROGRAM") {
        let folder = env::temp_dir().join(format!("revolve-bench-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let nginx = Peer::start_nginx(&program, &folder);
        // tokio-rustls answers upgrades alone.
        let web = [&peers[0], &peers[1], &nginx];
        let row = |name, config| (name, measured(&web, &|peer| requests(peer, config, 300)));
        let rows = [
            row("connect, GET, go, full handshake: CPU µs", &fresh),
            row("the same GET, resumed: CPU µs", &resuming),
        ];
        print_table(&web, &rows);
        drop(nginx);
        fs::remove_dir_all(&folder).unwrap();
    }
}

fn print_table(peers: &[&Peer], rows: &[(&str, Vec<f64>)]) {
    let names: Vec<_> = peers.iter().map(|peer| peer.name).collect();
    println!("| | {} |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(names.len()));
    for (name, values) in rows {
        let cell = |value: &f64| format!("{value:.2} ({:.2}×)", value / values[0]);
        let cells: Vec<_> = values.iter().map(cell).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

//! TLS over real sockets: rustls as client, tungstenite within. Certificates by name, of clients, and loaded anew;
//! tickets; what is not TLS; and a proxy's header in front. Other people's clients are `tests/foreign`'s.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use revolve::{
    Acceptance, Application, ClientCertificates, Config, Context, Counter, Echo, Limits, Message,
    ProxyHeaders, Refusal, ServeError, Server, TlsFiles, Upgrade,
};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion, version,
};
use tungstenite::{Message as Said, WebSocket};

use super::client::{PATH, PATIENCE, Running, config, eventually, get, upgrade};

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{}/tests/tls/certificates/{name}", env!("CARGO_MANIFEST_DIR")))
}

/// The files of these pairs.
fn files(pairs: &[&str]) -> TlsFiles {
    TlsFiles {
        certfiles: pairs.iter().map(|pair| path(&format!("{pair}.pem"))).collect(),
        keyfiles: pairs.iter().map(|pair| path(&format!("{pair}.key"))).collect(),
        ..TlsFiles::default()
    }
}

fn encrypted(workers: usize, tls: TlsFiles) -> Config {
    Config { tls, ..config(workers) }
}

/// A client of the tests' authority, with a certificate perhaps.
fn client_of(
    versions: &[&'static SupportedProtocolVersion],
    certificate: Option<&str>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(path(&format!("{name}.pem"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(path(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    // Who is to resume says so.
    config.resumption = Resumption::disabled();
    config
}

fn client() -> ClientConfig {
    client_of(&[&version::TLS13, &version::TLS12], None)
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn over(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Stream {
    let name = name.to_owned().try_into().unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream)
}

/// After the handshake, or what came of it.
fn shaken(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<Stream, io::Error> {
    let mut stream = over(tcp(address), config, name);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

fn open(stream: Stream, query: &str) -> WebSocket<Stream> {
    let url = format!("ws://localhost{PATH}?{query}");
    tungstenite::client(url, stream).unwrap().0
}

/// The answer to a request that closes the connection.
fn answer(mut stream: Stream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    // An error, if close_notify is missing.
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn closing(path: &str) -> String {
    get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

/// Of the certificate that a client was shown.
fn subject_of(stream: &Stream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

fn der(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(path(&format!("{name}.pem"))).unwrap().to_vec()
}

#[test]
fn messages_of_any_size_go_both_ways_in_both_versions() {
    for pair in ["ecdsa", "rsa", "ed25519"] {
        let running = Running::echo(encrypted(2, files(&[pair])));
        for version in [&version::TLS13, &version::TLS12] {
            let config = Arc::new(client_of(&[version], None));
            let stream = shaken(running.address, &config, "localhost").unwrap();
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
            let mut socket = open(stream, "");
            for length in [0, 1, 125, 126, 16_384, 16_385, 70_000, 1_000_000] {
                let message = Said::binary(vec![length as u8; length]);
                socket.send(message.clone()).unwrap();
                assert_eq!(socket.read().unwrap(), message);
            }
            // Many that wait on both sides.
            for number in 0..2000 {
                socket.write(Said::text(number.to_string())).unwrap();
            }
            socket.flush().unwrap();
            for number in 0..2000 {
                assert_eq!(socket.read().unwrap(), Said::text(number.to_string()));
            }
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
            // Ok, and not an error: the server has said close_notify.
            let stream = socket.get_mut();
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        }
    }
}

#[test]
fn a_request_gets_its_answer_and_an_orderly_end() {
    let running = Running::echo(encrypted(1, files(&["ecdsa"])));
    let mut config = client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let stream = shaken(running.address, &config, "localhost").unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let text = answer(stream, &closing("/healthz")).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let stream = shaken(running.address, &config, "127.0.0.1").unwrap();
    let text = answer(stream, &closing("/nowhere")).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
    // RFC 7301 3.2: nothing in common.
    let mut config = client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let failed = shaken(running.address, &Arc::new(config), "localhost").unwrap_err();
    assert!(failed.to_string().contains("NoApplicationProtocol"), "{failed}");
    running.wait_for("revolve_tls_failures_total", "", 1);
}

#[test]
fn a_connection_that_is_kept_alive_ends_with_close_notify() {
    let config =
        Config { timeout_keep_alive: Duration::from_millis(50), ..encrypted(1, files(&["ecdsa"])) };
    let running = Running::echo(config);
    let mut stream = shaken(running.address, &Arc::new(client()), "localhost").unwrap();
    stream.write_all(get("/healthz").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[test]
fn a_session_resumes_on_any_reactor_and_is_handed_over() {
    let running = Running::counter(encrypted(3, files(&["ecdsa"])));
    for version in [&version::TLS13, &version::TLS12] {
        let mut config = client_of(&[version], None);
        config.resumption = Resumption::in_memory_sessions(8);
        let config = Arc::new(config);
        let before = running.metric("revolve_tls_handshakes_total", "full");
        let mut resumed = 0;
        for at in 0..24_u64 {
            let stream = shaken(running.address, &config, "localhost").unwrap();
            let kind = stream.conn.handshake_kind();
            resumed += u64::from(kind == Some(HandshakeKind::Resumed));
            // One of three sessions, each on a reactor of its own or not: most are handed over.
            let mut socket =
                open(stream, &format!("session_id={version:?}{}", at % 3).replace(' ', ""));
            socket.send(Said::text("one more")).unwrap();
            let count = format!("{{\"count\": {}}}", at / 3 + 1);
            assert_eq!(socket.read().unwrap(), Said::text(count));
            socket.close(None).unwrap();
            while socket.read().is_ok() {}
        }
        assert_eq!(resumed, 23, "all but the first");
        let full = running.metric("revolve_tls_handshakes_total", "full") - before;
        assert_eq!(full, 1);
    }
    assert_eq!(running.metric("revolve_tls_handshakes_total", "resumed"), 46);
    assert!(running.metric("revolve_hand_overs_in_total", "") > 0);
}

#[test]
fn the_certificate_is_that_of_the_name_that_is_asked_for() {
    let running = Running::echo(encrypted(1, files(&["ecdsa", "one", "wild", "rsa"])));
    let shown = |config: ClientConfig, name: &str| {
        subject_of(&shaken(running.address, &Arc::new(config), name).unwrap())
    };
    assert_eq!(shown(client(), "one.test"), der("one"));
    assert_eq!(shown(client(), "a.two.test"), der("wild"));
    assert_eq!(shown(client(), "localhost"), der("ecdsa"));
    // Without SNI, as for an address: the first.
    assert_eq!(shown(client(), "127.0.0.1"), der("ecdsa"));
    // A name that nobody has: the first again, which the client does not take.
    let unknown = shaken(running.address, &Arc::new(client()), "three.test").unwrap_err();
    assert!(unknown.to_string().contains("not valid for name"), "{unknown}");
    // A client that knows RSA alone.
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| format!("{suite:?}").contains("ECDHE_RSA"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("ca.pem")).unwrap()).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = shaken(running.address, &Arc::new(old), "localhost").unwrap();
    let suite = stream.conn.negotiated_cipher_suite().unwrap();
    assert!(format!("{suite:?}").contains("ECDHE_RSA"), "{suite:?}");
    assert_eq!(subject_of(&stream), der("rsa"));
}

/// Answers with whose certificate it was.
struct Named;

impl Application for Named {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        match upgrade.client_subject() {
            Some(subject) => Ok(upgrade.accept().header("X-Subject", subject)?),
            None => Err(Refusal::new::<403>("whose are you?")),
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
        cx.send_text("yes");
    }
}

#[test]
fn the_subject_of_a_clients_certificate_reaches_the_application() {
    let demand = |cert_reqs| {
        let ca_certs = Some(path("ca.pem"));
        Running::new(encrypted(2, TlsFiles { ca_certs, cert_reqs, ..files(&["ecdsa"]) }), |_| Named)
    };
    for version in [&version::TLS13, &version::TLS12] {
        let with = |certificate| {
            let mut config = client_of(&[version], certificate);
            config.resumption = Resumption::in_memory_sessions(8);
            Arc::new(config)
        };
        let ask = |running: &Running, config: &Arc<ClientConfig>, query: &str| {
            // The server judges the certificate behind the client's end of a handshake.
            let mut stream = over(tcp(running.address), config, "localhost");
            stream.write_all(upgrade(query).as_bytes())?;
            let mut head = vec![0; 1000];
            let count = stream.read(&mut head)?;
            io::Result::Ok(String::from_utf8_lossy(&head[..count]).into_owned())
        };
        for cert_reqs in [ClientCertificates::Optional, ClientCertificates::Required] {
            let running = demand(cert_reqs);
            let ada = with(Some("client"));
            // A session of each reactor, and the second one resumes: the subject goes along.
            for query in ["session_id=a", "session_id=b", "session_id=c"] {
                let head = ask(&running, &ada, query).unwrap();
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                let field = r#"X-Subject: CN=Ada \"L\",OU=a\+b,O=Example\, Inc.,C=DE"#;
                assert!(head.contains(field), "{head}");
            }
            let stranger = ask(&running, &with(Some("stranger")), "").unwrap_err();
            assert!(stranger.to_string().contains("alert"), "{stranger}");
            let nobody = ask(&running, &with(None), "");
            match cert_reqs {
                ClientCertificates::Required => {
                    let error = nobody.unwrap_err().to_string();
                    let wanted = match version.version {
                        rustls::ProtocolVersion::TLSv1_3 => "CertificateRequired",
                        _ => "alert",
                    };
                    assert!(error.contains(wanted), "{error}");
                }
                _ => assert!(nobody.unwrap().starts_with("HTTP/1.1 403 ")),
            }
        }
    }
}

#[test]
fn text_on_a_port_for_tls_is_answered_in_text() {
    let running = Running::echo(encrypted(1, files(&["ecdsa"])));
    for request in ["GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "GET ", "P", "HEAD / HTTP/1.1\r\n"]
    {
        let mut raw = running.connect();
        raw.send(request);
        let head = raw.head();
        assert_eq!(head.status, 400, "{request:?}");
    }
    let response = running.refused("");
    assert_eq!(response.head.status, 400);
    assert!(response.body.contains("this port speaks TLS"), "{}", response.body);
    assert_eq!(running.metric("revolve_rejected_total", "plain_on_tls"), 5);
    // What is neither gets an alert.
    let mut stream = tcp(running.address);
    stream.write_all(&[0x80, 0x2e, 1, 0, 2, 0, 21, 0, 0]).unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!((alert[0], alert.len()), (21, 7), "{alert:?}");
    running.wait_for("revolve_tls_failures_total", "", 1);
}

#[test]
fn a_handshake_on_a_port_without_tls_is_counted_as_that() {
    let running = Running::echo(config(1));
    let failed = shaken(running.address, &Arc::new(client()), "localhost").unwrap_err();
    assert!(failed.to_string().contains("corrupt"), "{failed}");
    running.wait_for("revolve_rejected_total", "tls_on_plain", 1);
}

#[test]
fn certificates_are_loaded_anew_and_a_bad_file_keeps_the_old_one() {
    let folder = std::env::temp_dir().join(format!("revolve-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (certfile, keyfile) = (folder.join("a.pem"), folder.join("a.key"));
    let copy = |pair: &str| {
        fs::copy(path(&format!("{pair}.pem")), &certfile).unwrap();
        fs::copy(path(&format!("{pair}.key")), &keyfile).unwrap();
    };
    copy("ecdsa");
    let (certfiles, keyfiles) = (vec![certfile.clone()], vec![keyfile.clone()]);
    let tls = TlsFiles { certfiles, keyfiles, ..TlsFiles::default() };
    let server = Server::builder().config(encrypted(2, tls)).serve(|_| Echo).unwrap();
    let address = server.addresses()[0].tcp().unwrap();
    let mut config = client();
    config.resumption = Resumption::in_memory_sessions(8);
    let (fresh, config) = (Arc::new(client()), Arc::new(config));
    let first = shaken(address, &fresh, "localhost").unwrap();
    assert_eq!(subject_of(&first), der("ecdsa"));
    let mut open_since = open(first, "");
    answer(shaken(address, &config, "localhost").unwrap(), &closing("/healthz")).unwrap();

    copy("renewed");
    let certificates = server.certificates();
    assert!(certificates.are_used());
    certificates.reload().unwrap();
    assert_eq!(certificates.shown()[0].subject, "CN=localhost,O=renewed");
    assert_eq!(subject_of(&shaken(address, &fresh, "localhost").unwrap()), der("renewed"));
    // The key for tickets has stayed.
    let again = shaken(address, &config, "localhost").unwrap();
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));

    fs::write(&keyfile, "nothing").unwrap();
    let error = certificates.reload().unwrap_err().to_string();
    let wanted = format!("--ssl-keyfile {}: has no private key", keyfile.display());
    assert!(error.starts_with(&wanted), "{error}");
    fs::copy(path("one.key"), &keyfile).unwrap();
    let error = certificates.reload().unwrap_err().to_string();
    assert!(error.contains("is not the key of the certificate in "), "{error}");
    assert_eq!(subject_of(&shaken(address, &fresh, "localhost").unwrap()), der("renewed"));
    // Who was there all along still is.
    open_since.send(Said::text("still")).unwrap();
    assert_eq!(open_since.read().unwrap(), Said::text("still"));
    let page = server.metrics();
    let line = format!(
        "revolve_tls_certificate_expiry_seconds{{file=\"{}\"}} 4733510400",
        certfile.display()
    );
    assert!(page.lines().any(|found| found == line), "{page}");
    drop(open_since);
    server.shutdown();
    assert_eq!(server.join().panicked, 0);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_told_in_one_line() {
    let line = |tls: TlsFiles| {
        let failed = Server::builder().config(encrypted(1, tls)).serve(|_| Echo);
        match failed.map(|_| ()).unwrap_err() {
            ServeError::Tls(error) => error.to_string(),
            other => panic!("{other}"),
        }
    };
    let of = |certfile: &str, keyfile: &str| {
        let (certfiles, keyfiles) = (vec![path(certfile)], vec![path(keyfile)]);
        TlsFiles { certfiles, keyfiles, ..TlsFiles::default() }
    };
    for (files, option, file, what) in [
        (of("nobody.pem", "ecdsa.key"), "certfile", "nobody.pem", "No such file or directory"),
        (of("ecdsa.key", "ecdsa.key"), "certfile", "ecdsa.key", "has no certificate"),
        (of("ecdsa.pem", "nobody.key"), "keyfile", "nobody.key", "No such file or directory"),
        (of("ecdsa.pem", "ecdsa.pem"), "keyfile", "ecdsa.pem", "has no private key"),
        (of("ecdsa.pem", "encrypted.key"), "keyfile", "encrypted.key", "passphrase"),
        (of("ecdsa.pem", "rsa.key"), "keyfile", "rsa.key", "is not the key of the certificate"),
        (of("ecdsa.pem", "renewed.key"), "keyfile", "renewed.key", "is not the key"),
        (
            TlsFiles {
                ca_certs: Some(path("rsa.key")),
                cert_reqs: ClientCertificates::Required,
                ..files(&["ecdsa"])
            },
            "ca-certs",
            "rsa.key",
            "has no certificate",
        ),
    ] {
        let line = line(files);
        let begin = format!("--ssl-{option} {}: ", path(file).display());
        assert!(line.starts_with(&begin) && line.contains(what), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
    // The key may stand with the certificate; and an expired one is the operator's to know of.
    let both = TlsFiles { certfiles: vec![path("both.pem")], ..TlsFiles::default() };
    for tls in [both, files(&["expired"])] {
        let running = Running::echo(encrypted(1, tls));
        drop(running);
    }
}

#[test]
fn a_proxys_header_comes_before_the_handshake() {
    let config = Config { proxy_protocol: true, ..encrypted(2, files(&["ecdsa"])) };
    let running = Running::counter(config);
    let client = Arc::new(client());
    for pause in [false, true] {
        let mut stream = tcp(running.address);
        stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n").unwrap();
        if pause {
            // The header alone; else the hello may come with it.
            let open = || running.metric("revolve_connections", "");
            eventually("its connection", || open() > 0);
        }
        let mut socket = open(over(stream, &client, "localhost"), "session_id=a");
        socket.send(Said::text("one more")).unwrap();
        assert!(socket.read().unwrap().is_text());
    }
    // In one packet: the header, and a hello behind it.
    let mut session = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
    let mut packet = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n".to_vec();
    session.write_tls(&mut packet).unwrap();
    let mut stream = tcp(running.address);
    stream.write_all(&packet).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    stream.write_all(closing("/healthz").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    // Without the header there is no handshake.
    let refused = shaken(running.address, &Arc::new(self::client()), "localhost").unwrap_err();
    assert!(refused.to_string().contains("corrupt"), "{refused}");
    running.wait_for("revolve_rejected_total", "bad_proxy_header", 1);
}

#[test]
fn a_storm_of_handshakes_and_of_half_handshakes_lets_others_talk() {
    let limits = Limits { handshakes_per_turn: 2, ..Limits::default() };
    let config = Config {
        limits,
        timeout_handshake: Duration::from_secs(2),
        ..encrypted(1, files(&["ecdsa"]))
    };
    let running = Running::echo(config);
    let client = Arc::new(client());
    let mut talker = open(shaken(running.address, &client, "localhost").unwrap(), "");
    let address = running.address;
    let storm = std::thread::spawn(move || {
        let mut halves = Vec::new();
        for _ in 0..200 {
            let mut hello = Vec::new();
            let name = "localhost".try_into().unwrap();
            let mut session = ClientConnection::new(client.clone(), name).unwrap();
            session.write_tls(&mut hello).unwrap();
            let mut stream = tcp(address);
            stream.write_all(&hello).unwrap();
            halves.push((session, stream));
        }
        // Half of them go on, and get their answer.
        for (session, stream) in halves.drain(..100) {
            let stream = StreamOwned::new(session, stream);
            assert!(answer(stream, &closing("/healthz")).unwrap().starts_with("HTTP/1.1 200 "));
        }
        // The others say nothing more, and are let go of.
        for (_, mut stream) in halves {
            while !matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {}
        }
    });
    let mut rounds = 0;
    while !storm.is_finished() {
        talker.send(Said::text("still")).unwrap();
        assert_eq!(talker.read().unwrap(), Said::text("still"));
        rounds += 1;
    }
    storm.join().unwrap();
    assert!(rounds > 0);
    assert_eq!(running.metric("revolve_tls_handshakes_total", "full"), 101);
    running.wait_for("revolve_connections", "", 1);
}

#[test]
fn with_a_limit_on_connections_the_next_one_is_closed_without_an_answer() {
    let config = Config {
        limit_per_ip: std::num::NonZeroUsize::new(1),
        proxy_headers: ProxyHeaders::Off,
        ..encrypted(1, files(&["ecdsa"]))
    };
    let running = Running::echo(config);
    let client = Arc::new(client());
    let first = shaken(running.address, &client, "localhost").unwrap();
    shaken(running.address, &client, "localhost").unwrap_err();
    assert_eq!(running.metric("revolve_rejected_total", "limit_per_ip"), 1);
    drop(first);
    running.wait_for("revolve_connections", "", 0);
    shaken(running.address, &client, "localhost").unwrap();
}

#[test]
fn a_drain_says_goodbye_and_close_notify() {
    let running = Running::new(encrypted(2, files(&["ecdsa"])), |_| Counter::new(None));
    let mut socket = open(shaken(running.address, &Arc::new(client()), "localhost").unwrap(), "");
    running.handle().shutdown();
    let closed = socket.read().unwrap();
    let Said::Close(Some(frame)) = closed else { panic!("{closed}") };
    assert_eq!(u16::from(frame.code), 1001);
    while socket.read().is_ok() {}
    assert_eq!(socket.get_mut().read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(running.shut_down().cut, 0);
}

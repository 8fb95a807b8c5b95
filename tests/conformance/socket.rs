//! A case against a running server with the echo application, over a socket of the loopback
//! device. Waits at most [`PATIENCE`] for anything, so that a server that says nothing fails the
//! case instead of hanging it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use revolve::{Config, Echo, Server, ServerHandle};

use crate::case::{Case, End};
use crate::wire::{self, Reply};

const PATIENCE: Duration = Duration::from_secs(10);

fn serve(case: &Case) -> ServerHandle<Echo> {
    let config = Config {
        ws_max_size: case.max_size,
        ws_per_message_deflate: case.server_deflates(),
        access_log: false,
        ..Config::default()
    };
    Server::builder().config(config).port(0).workers(2).serve(|_| Echo).expect("a server")
}

/// One server for each limit that the cases ask for, with compression and without.
#[derive(Default)]
pub(crate) struct Servers(BTreeMap<(usize, bool), ServerHandle<Echo>>);

impl Servers {
    /// Runs a case; `pipelined`: the frames leave with the request, in one write.
    pub(crate) fn run(&mut self, case: &Case, pipelined: bool) -> Result<(), String> {
        if case.server_closes {
            return run_on_a_closing_server(case);
        }
        let server =
            self.0.entry((case.max_size, case.server_deflates())).or_insert_with(|| serve(case));
        let mut client = Client::connect(server.addresses()[0].tcp().expect("a port"));
        let frames = [&case.sent[..], &case.after].concat();
        if pipelined {
            client.send(&[case.head.as_bytes(), &frames].concat());
            case.check_head(&client.read_head()?)?;
        } else {
            client.send(case.head.as_bytes());
            case.check_head(&client.read_head()?)?;
            client.send(&frames);
        }
        if let End::Refused(..) = case.end {
            // The rest is the body.
            return client.read_to_end();
        }
        for expected in &case.replies {
            client.expect(expected)?;
        }
        if case.end == End::Open {
            // It is, if it still closes as one closes.
            client.send(&wire::close(1000, "still here"));
            client.expect(&Reply::Close(Some(1000)))?;
        }
        client.expect_end()
    }

    pub(crate) fn shut_down(self) {
        for server in self.0.into_values() {
            server.shutdown();
            assert_eq!(server.join().panicked, 0);
        }
    }
}

/// The server's Close is that of its own shutdown; so it is a server of its own.
fn run_on_a_closing_server(case: &Case) -> Result<(), String> {
    let server = serve(case);
    let mut client = Client::connect(server.addresses()[0].tcp().expect("a port"));
    client.send(case.head.as_bytes());
    case.check_head(&client.read_head()?)?;
    server.shutdown();
    for expected in &case.replies {
        client.expect(expected)?;
    }
    client.send(&[&case.sent[..], &case.after].concat());
    if case.end == End::Open {
        client.send(&wire::close(1001, ""));
    }
    client.expect_end()?;
    drop(client);
    let summary = server.join();
    if summary.panicked != 0 || summary.cut != 0 {
        return Err(format!("{summary:?}"));
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client { stream, received: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Reads once; false at the end of the stream.
    fn read(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 1 << 16];
        let count = self.stream.read(&mut buffer).map_err(|error| format!("reading: {error}"))?;
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    fn read_head(&mut self) -> Result<String, String> {
        loop {
            let end = self.received.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).map_err(|error| error.to_string());
            }
            if !self.read()? {
                return Err("no response".to_owned());
            }
        }
    }

    fn expect(&mut self, expected: &Reply) -> Result<(), String> {
        loop {
            if let Some((reply, length)) = wire::read_reply(&self.received) {
                self.received.drain(..length);
                return match reply == *expected {
                    true => Ok(()),
                    false => Err(format!("heard {reply:x?}, not {expected:x?}")),
                };
            }
            if !self.read()? {
                return Err(format!("the stream ended before {expected:x?}"));
            }
        }
    }

    fn read_to_end(&mut self) -> Result<(), String> {
        while self.read()? {}
        Ok(())
    }

    /// The server has half-closed, and said nothing more.
    fn expect_end(&mut self) -> Result<(), String> {
        self.read_to_end()?;
        match self.received.is_empty() {
            true => Ok(()),
            false => Err(format!("more than was expected: {:x?}", self.received)),
        }
    }
}

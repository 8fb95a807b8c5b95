//! What the peers have in common: arguments, the listener, the line that tells the address, accepting.
//!
//! It holds no WebSocket code: that is what the peers are compared by. Each program in `src/bin/`
//! calls it at its start; `cargo bench --bench load` starts the programs and reads their one line.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::time::Duration;

use mio::{Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

/// What the load bench may ask of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Send every message back unchanged, instead of counting it.
    pub echo: bool,
    /// Send a constant text to every connection this often (the floor only).
    pub heartbeat: Option<Duration>,
}

impl Options {
    /// Reads `--echo` and `--heartbeat SECONDS`; anything else ends the program with a usage line.
    pub fn from_arguments() -> Self {
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--echo" => options.echo = true,
                "--heartbeat" => {
                    let seconds = arguments.next().and_then(|text| text.parse().ok());
                    options.heartbeat = Some(Duration::from_secs(seconds.unwrap_or_else(usage)));
                }
                _ => usage(),
            }
        }
        options
    }

    /// The read buffer a tungstenite stream gets. Its documentation says 4 KiB for many connections
    /// and 128 KiB for a high read load; each scenario is one of the two, and each gets its best.
    pub fn read_buffer(&self) -> usize {
        if self.echo { 128 * 1024 } else { 4 * 1024 }
    }
}

fn usage<T>() -> T {
    eprintln!("usage: [--echo] [--heartbeat SECONDS]");
    std::process::exit(2)
}

/// Listens on a free port of 127.0.0.1 and says which, in the form that the bench looks for.
///
/// `TCP_NODELAY` is set here once: on Linux an accepted socket inherits it from its listener, so no
/// peer pays a system call a connection for it.
pub fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    let mut out = io::stdout();
    writeln!(out, "listening on ws://{}/ws/chat/", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}

/// Accepts all that wait, for the peers that are an epoll loop: each is watched under its place in the slab, as
/// what `make` makes of it.
pub fn accept_all<C>(
    listener: &mio::net::TcpListener,
    poll: &Poll,
    all: &mut Slab<C>,
    make: impl Fn(mio::net::TcpStream) -> C,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let entry = all.vacant_entry();
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(entry.key()), interest)?;
                entry.insert(make(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The counter's reply, `{"count": N}`, without the formatting machinery.
pub fn count_text(count: u64) -> String {
    let mut text = String::with_capacity(11 + 20);
    push_count(&mut text, count);
    text
}

/// The same behind what `text` holds, for a library that takes a reply by reference.
pub fn push_count(text: &mut String, count: u64) {
    let mut digits = itoa::Buffer::new();
    text.push_str("{\"count\": ");
    text.push_str(digits.format(count));
    text.push('}');
}

//! Step 1 of 7: the obvious server. One thread; read, write, read, write.
//!
//! ```text
//! cargo run --example 01_blocking_echo   # a port can follow: … 01_blocking_echo -- 9101
//! nc 127.0.0.1 9101                      # in a second terminal; what you type comes back
//! nc 127.0.0.1 9101                      # in a third: connected, and not answered
//! ```
//!
//! It is correct, and every line says what happens. It is also asleep in `read` on behalf of one
//! client while the others wait: the kernel has accepted them, this program has not.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9101".to_owned()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("tcp://{} (Ctrl-C ends it)", listener.local_addr()?);
    loop {
        // Whatever goes wrong with one client is that client's: here, on to the next.
        match listener.accept().and_then(|(stream, _)| echo(stream)) {
            Ok(bytes) => println!("{bytes} bytes, and gone"),
            Err(error) => eprintln!("lost a connection: {error}"),
        }
    }
}

/// Sends everything back until the client has said all it wanted to; returns how much that was.
fn echo(mut stream: TcpStream) -> io::Result<usize> {
    let (mut buffer, mut total) = ([0; 4096], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                stream.write_all(&buffer[..count])?;
                total += count;
            }
            // A signal came in between (EINTR); nothing was read and nothing is lost.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

// What is still wrong with it, and where it is put right:
//
// - One client at a time. A thread for each would help until there are ten thousand of them; one
//   thread that sleeps on *all* of them is the next step: 02_tiny_loop.rs, and src/reactor.rs.
// - A client that says nothing holds the server for ever: nothing here has a deadline.
//   src/connection/timer_wheel.rs, and the deadlines in src/protocol/endpoint.rs.
// - So does one that sends and never reads: `write_all` waits for it. src/transport/out_buffer.rs.
// - It ends when it is killed, in the middle of whatever it was saying. src/shard/drain.rs.

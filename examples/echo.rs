//! The smallest server: whatever you send comes back.
//!
//! ```text
//! cargo run --example echo            # or with a port: cargo run --example echo -- 9001
//! websocat ws://127.0.0.1:9001/echo   # in a second terminal
//! ```
//!
//! It runs until you press Enter, or until stdin closes: that works on every system and needs no
//! signal handling. It keeps nothing of a session; `chat.rs` does.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::env;
use std::error::Error;
use std::io;

use revolve::{Application, Context, Message, Server};

struct Echo;

impl Application for Echo {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        match message {
            Message::Text(text) => cx.send_text(text),
            Message::Binary(bytes) => cx.send_binary(bytes),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let port = env::args().nth(1).unwrap_or("9001".to_owned()).parse()?;
    // One thread a core, each with an event loop and an `Echo` of its own.
    let server = Server::builder().port(port).ws_path("/echo").serve(|_| Echo)?;
    println!("ws://{}/echo (Enter ends it)", server.addresses()[0]);

    io::stdin().read_line(&mut String::new())?;
    // Everyone is told goodbye (1001) and given time to answer.
    server.shutdown();
    server.join();
    Ok(())
}

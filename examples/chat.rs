//! A chat: what one says all hear, whichever reactor serves them.
//!
//! ```text
//! cargo run --example chat            # or with a port: cargo run --example chat -- 9002
//! websocat "ws://127.0.0.1:9002/chat?session_id=ann-4711"   # once for each who takes part
//! ```
//!
//! `/nick NAME` says who you are. The name belongs to your session: come back under the same id,
//! and you still have it. The server runs until you press Enter, or until stdin closes. It keeps
//! no history and asks for no password: who knows an id can speak for it.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use revolve::{Application, CloseReason, Config, Context, Message, Server};

pub(crate) struct Chat;

impl Application for Chat {
    type Session = Option<String>; // the nick
    type Connection = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let verb = if cx.is_resumed() { "is back" } else { "joined" };
        cx.broadcast_text(&format!("* {} {verb}", nick(cx)));
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only, please") };
        match text.strip_prefix("/nick ").map(str::trim) {
            None => cx.broadcast_text(&format!("{}: {text}", nick(cx))),
            Some("") => cx.send_text("* a nick has at least one letter"),
            Some(new) => {
                cx.broadcast_text(&format!("* {} is now {new}", nick(cx)));
                *cx.session_mut() = Some(new.to_owned());
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _reason: CloseReason) {
        cx.broadcast_text(&format!("* {} left", nick(cx)));
    }
}

fn nick(cx: &Context<'_, Chat>) -> String {
    let port = cx.peer().address().map_or(0, |address| address.port());
    cx.session().clone().unwrap_or_else(|| format!("guest-{port}"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("9002".to_owned()).parse()?;
    // Everyone gets a copy of every message, so none may be large.
    let config = Config { ws_path: "/chat".to_owned(), ws_max_size: 4096, ..Config::default() };
    let server = Server::builder().config(config).port(port).serve(|_| Chat)?;
    println!("ws://{}/chat (Enter ends it)", server.addresses()[0]);
    std::io::stdin().read_line(&mut String::new())?;
    server.shutdown();
    server.join();
    Ok(())
}

//! Work that takes long, done elsewhere: the largest prime factor of whatever number you send.
//!
//! ```text
//! cargo run --example offload            # or with a port: cargo run --example offload -- 9003
//! websocat ws://127.0.0.1:9003/factor    # 4611686014132420609 takes seconds; 12, from elsewhere, not
//! ```
//!
//! A handler that did the sums itself would hold every connection of its reactor. Here each of them runs on
//! a thread of the pool, and what it found comes back to the connection that asked, in the order of
//! asking. The server runs until you press Enter, or until stdin closes.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use revolve::{Application, Config, Context, Message, Server};

pub(crate) struct Factor;

impl Application for Factor {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only, please") };
        let Ok(number) = text.trim().parse() else { return cx.send_text("a number, please") };
        let taken = cx.offload(
            // Runs elsewhere, so it takes along what it needs, and nothing of `self` or `cx`.
            move || largest_factor(number),
            // Runs here, when that is done; is dropped if the connection has closed by then.
            move |_, cx, factor| cx.send_text(&format!("{number}: {factor}")),
        );
        if taken.is_err() {
            cx.send_text("too busy, try again");
        }
    }
}

fn largest_factor(mut number: u64) -> u64 {
    let mut divisor = 2;
    while divisor <= number / divisor {
        if number.is_multiple_of(divisor) { number /= divisor } else { divisor += 1 }
    }
    number
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("9003".to_owned()).parse()?;
    let config = Config { ws_path: "/factor".to_owned(), ..Config::default() };
    let server = Server::builder().config(config).port(port).serve(|_| Factor)?;
    println!("ws://{}/factor (Enter ends it)", server.addresses()[0]);
    std::io::stdin().read_line(&mut String::new())?;
    server.shutdown();
    server.join();
    Ok(())
}

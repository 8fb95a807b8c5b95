//! Notifications to one user, in all tabs, from a thread that is none of the server's.
//!
//! ```text
//! cargo run --example notifications      # or with a port: cargo run --example notifications -- 9011
//! websocat "ws://127.0.0.1:9011/notifications?session_id=ann-4711"    # once for each tab
//! curl -d "your order has left" http://127.0.0.1:9012/ann-4711        # the next port, or the one printed
//! ```
//!
//! The tabs of a user share one session. The second port stands for a web application that has its own threads
//! and knows whom to tell: it reads one request after the other, and posts to the session, wherever that lives. The
//! server runs until you press Enter, or until stdin closes.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use revolve::{
    Acceptance, Application, Config, Context, Message, PostError, Recipient, Refusal, Remote,
    Server, Upgrade, owner_of,
};

pub(crate) struct Notifications;

impl Application for Notifications {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        Ok(upgrade.accept().share())
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let tabs = format!("tab {}", cx.session_connections());
        cx.send_text(&tabs);
    }

    /// What one tab says, that a message was read for instance, the others are to know.
    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only, please") };
        let all_tabs = Recipient::session(&cx.session_id());
        cx.send_text_to(all_tabs, text);
    }
}

/// Tells a user who is there, from any thread.
fn notify(remote: &Remote<Notifications>, user: &str, text: String) -> Result<(), PostError> {
    let all_tabs = Recipient::session(user);
    remote.post(owner_of(user, remote.reactors()), move |_, cx| cx.send_text_to(all_tabs, &text))
}

/// `POST /USER` with a text, and HTTP as little as will do.
fn serve_request(stream: &TcpStream, remote: &Remote<Notifications>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream).take(16 << 10);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap_or(0);
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    let user = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let status = match notify(remote, user, body) {
        Ok(()) => "202 Accepted",
        Err(_) => "503 Service Unavailable", // that reactor has much to do, or the server has ended
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).unwrap_or("9011".to_owned()).parse()?;
    let config = Config { ws_path: "/notifications".to_owned(), ..Config::default() };
    let server = Server::builder().config(config).port(port).serve(|_| Notifications)?;
    let web_port = if port == 0 { 0 } else { port + 1 };
    let web = TcpListener::bind((Ipv4Addr::LOCALHOST, web_port))?;
    println!("ws://{}/notifications (Enter ends it)", server.addresses()[0]);
    println!("http://{}/", web.local_addr()?);
    let remote = server.remote();
    thread::spawn(move || {
        for stream in web.incoming().flatten() {
            let _ = serve_request(&stream, &remote);
        }
    });
    std::io::stdin().read_line(&mut String::new())?;
    server.shutdown();
    server.join();
    Ok(())
}

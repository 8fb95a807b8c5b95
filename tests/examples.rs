//! The examples, run as whoever copies them will run them: as programs of their own, spoken to by
//! a WebSocket client, ended by the end of their stdin. The ladder of `01_…` to `07_…` is spoken to
//! in `examples/ladder.rs`.
//!
//! Builds nothing: `cargo test` builds the examples, and `cargo test --test examples` alone does
//! not (then `cargo build --examples` first).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::{Message, WebSocket};

/// A directory of its own beside this file.
mod examples {
    mod ladder;
}

/// How long an answer may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running example. Ends with its test, whatever that comes to.
struct Example {
    process: Child,
    url: String,
}

impl Example {
    /// Starts it on a free port and waits for the URL that it prints.
    fn start(name: &str) -> Example {
        Example::start_with(name, &[])
    }

    /// The same, with further arguments behind the port.
    fn start_with(name: &str, arguments: &[&str]) -> Example {
        Example::launch(name, arguments).0
    }

    /// The same, with what else it prints.
    fn start_telling(name: &str) -> (Example, mpsc::Receiver<String>) {
        Example::launch(name, &[])
    }

    fn launch(name: &str, arguments: &[&str]) -> (Example, mpsc::Receiver<String>) {
        // This test is target/<profile>/deps/examples-<hash>.
        let executable = env::current_exe().unwrap();
        let profile = executable.ancestors().nth(2).unwrap();
        let program =
            profile.join("examples").join(name).with_extension(env::consts::EXE_EXTENSION);
        let mut process = Command::new(&program)
            .arg("0")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error} (cargo build --examples makes it)", program.display())
            });
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            // Reads on, so that the example never writes to a closed pipe.
            for line in stdout.lines() {
                let _ = told.send(line.unwrap());
            }
        });
        let mut example = Example { process, url: String::new() };
        let line = lines.recv_timeout(PATIENCE).expect("it prints where it listens");
        example.url = line.split(' ').next().unwrap().to_owned();
        (example, lines)
    }

    /// A connection that says nothing yet.
    fn dial(&self) -> TcpStream {
        let address = self.url.split_once("://").unwrap().1.split('/').next().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn connect(&self, query: &str) -> WebSocket<TcpStream> {
        let stream = self.dial();
        tungstenite::client(format!("{}{query}", self.url), stream).unwrap().0
    }

    /// Closes its stdin, and waits for it to end.
    fn end(mut self) -> ExitStatus {
        drop(self.process.stdin.take());
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end with its stdin");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads until somebody says this: what others say meanwhile may come first.
#[track_caller]
fn hear(client: &mut WebSocket<TcpStream>, expected: &str) {
    let mut heard = Vec::new();
    loop {
        match client.read() {
            Ok(Message::Text(text)) if text == expected => return,
            Ok(other) => heard.push(other),
            Err(error) => panic!("{expected:?} never came ({error}), but {heard:?}"),
        }
    }
}

fn close(mut client: WebSocket<TcpStream>) {
    client.close(None).unwrap();
    while client.read().is_ok() {}
}

#[test]
fn echo() {
    let example = Example::start("echo");
    assert!(example.url.ends_with("/echo"), "{}", example.url);
    let mut client = example.connect("");
    for message in [Message::text("grüezi"), Message::binary(vec![0, 159, 255]), Message::text("")]
    {
        client.send(message.clone()).unwrap();
        assert_eq!(client.read().unwrap(), message);
    }
    close(client);
    assert!(example.end().success());
}

#[test]
fn chat() {
    let example = Example::start("chat");
    assert!(example.url.ends_with("/chat"), "{}", example.url);
    let mut ann = example.connect("?session_id=ann-4711");
    let ann_guest = format!("guest-{}", ann.get_ref().local_addr().unwrap().port());
    hear(&mut ann, &format!("* {ann_guest} joined"));
    let mut bob = example.connect("?session_id=bob-4711");
    let bob_guest = format!("guest-{}", bob.get_ref().local_addr().unwrap().port());
    for client in [&mut ann, &mut bob] {
        hear(client, &format!("* {bob_guest} joined"));
    }
    ann.send("hello".into()).unwrap();
    for client in [&mut ann, &mut bob] {
        hear(client, &format!("{ann_guest}: hello"));
    }
    ann.send("/nick  Ann ".into()).unwrap();
    for client in [&mut ann, &mut bob] {
        hear(client, &format!("* {ann_guest} is now Ann"));
    }
    bob.send("/nick ".into()).unwrap();
    hear(&mut bob, "* a nick has at least one letter");
    close(ann);
    hear(&mut bob, "* Ann left");
    // The name is the session's: it was kept, and nobody had to tell it again.
    let mut ann = example.connect("?session_id=ann-4711");
    for client in [&mut ann, &mut bob] {
        hear(client, "* Ann is back");
    }
    ann.send("/me waves".into()).unwrap();
    for client in [&mut ann, &mut bob] {
        hear(client, "Ann: /me waves");
    }
    ann.send(Message::binary(vec![1])).unwrap();
    hear(&mut bob, "* Ann left");
    while ann.read().is_ok() {}
    close(bob);
    assert!(example.end().success());
}

#[test]
fn offload() {
    let example = Example::start("offload");
    assert!(example.url.ends_with("/factor"), "{}", example.url);
    let mut client = example.connect("");
    // The first takes longest, and is answered first all the same.
    for number in ["1000006000009", "12", "x", "97"] {
        client.send(number.into()).unwrap();
    }
    let mut answers = Vec::new();
    while answers.len() < 4 {
        answers.push(client.read().unwrap().into_text().unwrap().as_str().to_owned());
    }
    // What is said at once, without a job, need not wait for one.
    let here = answers.iter().position(|answer| answer == "a number, please").unwrap();
    answers.remove(here);
    assert_eq!(answers, ["1000006000009: 1000003", "12: 3", "97: 97"]);
    close(client);
    assert!(example.end().success());
}

/// Without a Redis: `tests/tasks` has one, and workers.
#[test]
fn tasks() {
    let example = Example::start_with("tasks", &["redis://127.0.0.1:1/0"]);
    assert!(example.url.ends_with("/reports"), "{}", example.url);
    let mut client = example.connect("");
    for (said, heard) in [
        ("a few", "how many pages, please?"),
        ("30", "not sent: no connection: Connection refused (os error 111)"),
    ] {
        client.send(said.into()).unwrap();
        let answer = client.read().unwrap().into_text().unwrap();
        let answer = if cfg!(target_os = "linux") { answer.as_str() } else { heard };
        assert_eq!(answer, heard);
    }
    close(client);
    assert!(example.end().success());
}

#[test]
fn rooms() {
    let example = Example::start("rooms");
    assert!(example.url.ends_with("/rooms/kitchen"), "{}", example.url);
    let refused = tungstenite::client(&example.url, example.dial());
    let Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) = refused
    else {
        panic!("nobody is let in without a name");
    };
    assert_eq!(response.status(), 400);
    // As many connections as find a way to each reactor: whoever serves whom, all are in one room.
    let names: Vec<String> = (0..8).map(|n| format!("guest{n}")).collect();
    let mut guests: Vec<_> =
        names.iter().map(|name| example.connect(&format!("?name={name}"))).collect();
    let all = format!("here: {}", names.join(", "));
    guests.iter_mut().for_each(|guest| hear(guest, &all));
    let pantry = example.url.replace("kitchen", "pantry");
    let mut elsewhere =
        tungstenite::client(format!("{pantry}?name=Zoe"), example.dial()).unwrap().0;
    hear(&mut elsewhere, "here: Zoe");
    for (guest, name) in guests.iter_mut().zip(&names) {
        guest.send(format!("I am {name}").into()).unwrap();
    }
    // All hear the same, in one order.
    let mut said = guests.iter_mut().map(|guest| {
        let texts = (0..8).map(|_| guest.read().unwrap().into_text().unwrap().to_string());
        texts.collect::<Vec<_>>()
    });
    let first = said.next().unwrap();
    assert!(said.all(|texts| texts == first), "they heard different things");
    let mut sorted = first.clone();
    sorted.sort();
    let expected: Vec<String> = names.iter().map(|name| format!("{name}: I am {name}")).collect();
    assert_eq!(sorted, expected);
    close(guests.pop().unwrap());
    let left = format!("here: {}", names[..7].join(", "));
    guests.iter_mut().for_each(|guest| hear(guest, &left));
    elsewhere.send("nobody but me".into()).unwrap();
    assert_eq!(elsewhere.read().unwrap(), Message::text("Zoe: nobody but me"));
    guests.into_iter().for_each(close);
    close(elsewhere);
    assert!(example.end().success());
}

#[test]
fn notifications() {
    let (example, lines) = Example::start_telling("notifications");
    let web = lines.recv_timeout(PATIENCE).unwrap();
    let web = web.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut tabs: Vec<_> = (0..3).map(|_| example.connect("?session_id=ann-4711")).collect();
    let mut bob = example.connect("?session_id=bob-4711");
    for (n, tab) in (1..).zip(&mut tabs) {
        hear(tab, &format!("tab {n}"));
    }
    hear(&mut bob, "tab 1");
    for (user, text) in [("ann-4711", "your order has left"), ("nobody", "hello?")] {
        let mut stream = TcpStream::connect(&web).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = text.len();
        let request =
            format!("POST /{user} HTTP/1.1\r\nHost: a\r\ncontent-length: {length}\r\n\r\n{text}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
    tabs.iter_mut().for_each(|tab| hear(tab, "your order has left"));
    tabs[1].send("read".into()).unwrap();
    tabs.iter_mut().for_each(|tab| assert_eq!(tab.read().unwrap(), Message::text("read")));
    bob.send("mine".into()).unwrap();
    assert_eq!(bob.read().unwrap(), Message::text("mine"));
    tabs.into_iter().chain([bob]).for_each(close);
    assert!(example.end().success());
}

/// What an upgrade is refused with: the status, and the text.
fn refusal(example: &Example, query: &str) -> (u16, String) {
    match tungstenite::client(format!("{}{query}", example.url), example.dial()) {
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8(body).unwrap())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{query} was let in"),
    }
}

#[test]
fn admission() {
    let example = Example::start("admission");
    let mut ann = example.connect("?token=ann-s3cret&session_id=hers");
    ann.send("hello".into()).unwrap();
    assert_eq!(ann.read().unwrap(), Message::text("ann, your message 1: hello"));
    for (query, status, error) in [
        ("", 401, "send a token"),
        ("?token=ann-guessed", 401, "this token is not valid"),
        ("?token=bob-s3cret&session_id=hers", 403, "not your session"),
        ("?token=nobody-s3cret", 503, "the tokens cannot be checked now"),
    ] {
        let (told, text) = refusal(&example, query);
        assert_eq!(told, status, "{query}");
        assert!(text.contains(error), "{query}: {text}");
    }
    // None of these has disturbed her, and she may come back.
    ann.send("still here".into()).unwrap();
    assert_eq!(ann.read().unwrap(), Message::text("ann, your message 2: still here"));
    let mut again = example.connect("?token=ann-s3cret&session_id=hers");
    again.send("back".into()).unwrap();
    assert_eq!(again.read().unwrap(), Message::text("ann, your message 3: back"));
    close(again);
    assert!(example.end().success());
}

#[test]
fn one_that_is_told_to_end_says_goodbye() {
    let example = Example::start("chat");
    let mut client = example.connect("");
    let address = client.get_ref().peer_addr().unwrap();
    let waiting = thread::spawn(move || {
        loop {
            match client.read().unwrap() {
                Message::Close(close) => return u16::from(close.unwrap().code),
                Message::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(example.end().success());
    assert_eq!(waiting.join().unwrap(), 1001);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn each_is_short_enough_to_be_read_at_once() {
    let most = [
        ("echo", 60),
        ("chat", 60),
        ("offload", 60),
        ("rooms", 100),
        ("admission", 100),
        ("notifications", 100),
    ];
    for (name, most) in most {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let text = fs::read_to_string(path.with_extension("rs")).unwrap();
        assert!(text.starts_with("//! "), "{name} says what it is");
        assert!(text.lines().count() < most, "{name} has {} lines", text.lines().count());
    }
}

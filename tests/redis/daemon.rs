//! The daemon and a Redis that is not there when it starts, or not for long: what it says, and that nobody reads a password.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::node::PATIENCE;
use crate::server::Redis;

const PASSWORD: &str = "hunter2";

pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
}

impl Daemon {
    /// One whose store is named by the environment, as it should be where there is a password.
    pub(crate) fn start(store: &str, options: &[&str]) -> Daemon {
        let mut child = Command::new(env!("CARGO_BIN_EXE_revolve"))
            .env("REVOLVE_STORE", store)
            .args(["--port", "0", "--workers", "2"])
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (teller, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).all(|line| teller.send(line).is_ok())
        });
        Daemon { child, lines, said: Vec::new() }
    }

    /// The next line in which this stands.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push(line.clone()),
                Err(error) => panic!("no {text:?}: {error}; {:#?}", self.said),
            }
            if let Some(line) = self.said.last().filter(|line| line.contains(text)) {
                return line.clone();
            }
        }
    }

    /// Its address, whether it has told it already or not.
    pub(crate) fn address(&mut self) -> String {
        const TOLD: &str = "listening on ";
        let told = self.said.iter().find(|line| line.contains(TOLD)).cloned();
        let line = told.unwrap_or_else(|| self.wait_for(TOLD));
        let (_, rest) = line.split_once(TOLD).expect("it is there");
        rest.split_once(": ").expect("an address, and more").0.to_owned()
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().is_ok_and(|s| s.success()));
        self.ended()
    }

    /// Waits for its end, and reads the rest.
    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end: {:#?}", self.said),
            }
            thread::sleep(Duration::from_millis(10));
        };
        self.said.extend(self.lines.iter());
        for line in &self.said {
            assert!(!line.contains(PASSWORD), "{line}");
        }
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // If it has ended, there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(!answer.contains(PASSWORD));
    answer
}

fn is_ready(address: &str) -> bool {
    get(address, "/readyz").starts_with("HTTP/1.1 200 ")
}

#[test]
fn it_waits_for_its_redis_and_says_so_and_serves_when_it_is_there() {
    let mut redis = Redis::start(&["--requirepass", PASSWORD]);
    redis.end();
    let store = format!("redis://:{PASSWORD}@{}:6379/0", redis.host());
    let mut daemon = Daemon::start(&store, &["--node", "web-1"]);
    let address = daemon.address();
    for _ in 0..2 {
        daemon.wait_for("no connection");
        assert!(!is_ready(&address));
    }
    assert!(get(&address, "/metrics").contains("\nrevolve_store_available 0\n"));
    redis.start_again();
    daemon.wait_for(": it serves");
    assert!(is_ready(&address));
    assert!(get(&address, "/metrics").contains("\nrevolve_store_available 1\n"));
    // It goes away, and comes back.
    redis.end();
    daemon.wait_for("no connection");
    assert!(!is_ready(&address));
    redis.start_again();
    daemon.wait_for(": it serves");
    assert!(is_ready(&address));
    assert_eq!(daemon.end().code(), Some(0), "{:#?}", daemon.said);
}

#[test]
fn it_does_not_start_without_its_redis_if_it_is_not_to_wait() {
    let redis = Redis::start(&["--requirepass", PASSWORD]);
    for (credentials, why) in
        [("", "NOAUTH"), (":other@", "AUTH is refused: WRONGPASS"), (":hunter2@", "")]
    {
        let store = format!("redis://{credentials}{}:6379", redis.host());
        let mut daemon = Daemon::start(&store, &["--store-wait", "no"]);
        if why.is_empty() {
            daemon.address();
            assert_eq!(daemon.end().code(), Some(0), "{:#?}", daemon.said);
            continue;
        }
        assert_eq!(daemon.ended().code(), Some(1), "{:#?}", daemon.said);
        let is_it = |line: &&String| line.contains("WARN") || line.starts_with("revolve: ");
        let complaints: Vec<&String> = daemon.said.iter().filter(is_it).collect();
        assert_eq!(complaints.len(), 1, "{:#?}", daemon.said);
        assert!(complaints[0].starts_with("revolve: redis://"), "{complaints:?}");
        assert!(complaints[0].contains(why), "{complaints:?}");
    }
}

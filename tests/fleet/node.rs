//! A daemon at a fixed address, which can be ended in every way and started again.
//!
//! What it says goes to a file, of which a failing test shows the end. Started by the tests; ends with the value.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::{own_host, wait_until};

/// The port of every node, as in the configurations of the balancers.
pub(crate) const PORT: [u16; 2] = [8001, 8002];

/// The field of each response that tells which node it is from.
pub(crate) const NAME_FIELD: &str = "x-node";

/// Who claims to be in front of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// A PROXY header comes first.
    Proxy,
    /// X-Forwarded-For.
    Fields,
}

impl Front {
    fn options(self) -> &'static [&'static str] {
        match self {
            Front::Proxy => &["--proxy-protocol"],
            Front::Fields => &["--proxy-headers", "x-forwarded-for"],
        }
    }

    /// What a connection begins with that comes to a node directly.
    pub(crate) fn preamble(self) -> &'static str {
        match self {
            Front::Proxy => "PROXY TCP4 127.0.0.1 127.0.0.1 40000 8001\r\n",
            Front::Fields => "",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) host: String,
    pub(crate) port: u16,
    front: Front,
    options: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Node {
    /// The first or the second one, on the Redis at this host, with these options besides.
    pub(crate) fn start(place: usize, redis: &str, front: Front, options: &[&str]) -> Node {
        let (name, host) = (["a", "b"][place], own_host());
        let log = std::env::temp_dir().join(format!("revolve-fleet-{host}.log"));
        // What a process of the same number has left.
        let _ = fs::remove_file(&log);
        let mut all: Vec<String> =
            ["--workers", "2", "--timeout-graceful-shutdown", "3", "--no-access-log"]
                .map(str::to_owned)
                .into();
        all.extend(["--store".to_owned(), format!("redis://{redis}:6379/0")]);
        all.extend(["--node".to_owned(), name.to_owned()]);
        all.extend(["--header".to_owned(), format!("{NAME_FIELD}:{name}")]);
        all.extend(front.options().iter().chain(options).map(|&option| option.to_owned()));
        let port = PORT[place];
        let child = spawn(&host, port, &all, &log);
        let node = Node { name, host, port, front, options: all, log, child };
        node.wait_until_ready(true);
        node
    }

    /// Starts it again, where it was.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.host, self.port, &self.options, &self.log);
        self.wait_until_ready(true);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    pub(crate) fn wait_until_ready(&self, is_ready: bool) {
        let name = self.name;
        wait_until(&format!("{name} ready: {is_ready}"), || self.is_ready() == is_ready);
    }

    /// What it answers, if it answers.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let (preamble, host) = (self.front.preamble(), &self.host);
        let request =
            format!("{preamble}GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A number of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics").unwrap_or_default();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {name}");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("a node ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn spawn(host: &str, port: u16, options: &[String], log: &PathBuf) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("a file for its log");
    Command::new(env!("CARGO_BIN_EXE_revolve"))
        .args(["--host", host, "--port", &port.to_string()])
        .args(options)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the daemon starts")
}

impl Drop for Node {
    fn drop(&mut self) {
        // SIGKILL ends a stopped one too. If it has ended, there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            println!("{}:\n{}", self.name, lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        let _ = fs::remove_file(&self.log);
    }
}

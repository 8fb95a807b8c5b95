//! The daemon as a process: its limits, its memory, its processor time, its log. Asserts nothing of
//! its own but that it starts, and ends as it should. Ends nothing but what it started.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{PATIENCE, Raw, get, metric};

/// A running daemon. Ends with its test.
pub(crate) struct Daemon {
    process: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts it on a free port, with at most so many descriptors.
    pub(crate) fn start(descriptors: Option<usize>, options: &[&str]) -> Daemon {
        // The limit is the shell's to set: a process can lower its own only with a system call
        // that Rust's library does not have.
        let limit = descriptors.map_or(String::new(), |most| format!("ulimit -n {most} && "));
        let mut process = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_revolve")])
            .args(["--port", "0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let (mut head, mut address) = (Vec::new(), None);
        while address.is_none() {
            assert!(stderr.read_until(b'\n', &mut head).unwrap() > 0, "it ended: {}", shown(&head));
            let text = shown(&head);
            let found = text.split("listening on ").nth(1).and_then(|rest| rest.split(": ").next());
            address = found.and_then(|address| address.parse().ok());
        }
        let log = Arc::new(Mutex::new(head));
        let lines = log.clone();
        // Reads on, so that the daemon never waits for us.
        let reader = thread::spawn(move || {
            let mut room = [0; 1 << 16];
            while let Ok(count @ 1..) = stderr.read(&mut room) {
                lines.lock().unwrap().extend_from_slice(&room[..count]);
            }
        });
        Daemon { process, address: address.unwrap(), log, reader: Some(reader) }
    }

    pub(crate) fn connect(&self) -> Raw {
        Raw::new(TcpStream::connect(self.address).unwrap())
    }

    /// An open WebSocket.
    pub(crate) fn open(&self, query: &str) -> Raw {
        let mut raw = self.connect();
        raw.send(crate::client::upgrade(query));
        assert_eq!(raw.head().status, 101);
        raw
    }

    /// The page of metrics, asked for on this connection.
    pub(crate) fn page(&self, raw: &mut Raw) -> String {
        raw.send(get("/metrics"));
        raw.response().body
    }

    /// Waits until a metric's sum is so, looking on this connection.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        raw: &mut Raw,
        name: &str,
        is_so: impl Fn(u64) -> bool,
    ) -> String {
        let begin = Instant::now();
        loop {
            let page = self.page(raw);
            if is_so(metric(&page, name, "")) {
                return page;
            }
            assert!(begin.elapsed() < 3 * PATIENCE, "{name} is {}", metric(&page, name, ""));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> usize {
        self.of_its_status("VmRSS:")
    }

    /// The most that its resident memory has been, in bytes.
    pub(crate) fn resident_most(&self) -> usize {
        self.of_its_status("VmHWM:")
    }

    fn of_its_status(&self, field: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    /// The processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of_task = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.flatten().filter_map(of_task).sum())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// What it has written to its log so far.
    pub(crate) fn log(&self) -> String {
        shown(&self.log.lock().unwrap())
    }

    /// Tells it to stop, waits for it, and returns all of its log.
    pub(crate) fn stop(mut self) -> String {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let status = self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("panic"), "{log}");
        log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Of no effect after `stop`.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

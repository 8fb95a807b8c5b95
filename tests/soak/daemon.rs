//! The daemon under the soak: a process of its own, so that its memory and its descriptors are
//! nobody else's.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Time that anything here may take: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    pub(crate) fn start(options: &[(&str, String)]) -> Daemon {
        let mut child = Command::new(env!("CARGO_BIN_EXE_revolve"))
            .args(["--port", "0", "--no-access-log"])
            .args(options.iter().flat_map(|(name, value)| [*name, value]))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").expect("text");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let (address, _) = rest.split_once(": ").expect("an address, and more");
                break address.parse().expect("an address");
            }
        };
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let heard = complaints.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // That the machine is small for these options says nothing about the run.
                let shortages =
                    ["memory: that is more than", "] workers: ", "] descriptors: ", "] backlog: "];
                let is_about_limits = shortages.iter().any(|shortage| line.contains(shortage));
                let is_bad = ["ERROR", "WARN", "panicked"].iter().any(|word| line.contains(word));
                if is_bad && !is_about_limits {
                    heard.lock().unwrap().push(line);
                }
            }
        });
        Daemon { child, address, complaints }
    }

    /// Warnings and worse, so far.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS");
        let kib = line.trim().trim_end_matches(" kB").trim();
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The metrics once all but the scraper's own connection are gone.
    pub(crate) fn quiet_metrics(&self) -> Metrics {
        let begun = Instant::now();
        loop {
            let metrics = self.metrics();
            if metrics.sum("revolve_connections") <= 1 && metrics.sum("ws_active_connections") == 0
            {
                // And that one is gone too before anybody counts descriptors.
                thread::sleep(Duration::from_secs(1));
                return metrics;
            }
            assert!(begun.elapsed() < PATIENCE, "connections stay: {:?}", metrics.0);
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn metrics(&self) -> Metrics {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let mut sums = HashMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let family = name.split('{').next().unwrap_or(name).to_owned();
            *sums.entry(family).or_default() += value;
        }
        Metrics(sums)
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        let _ = self.child.wait();
    }

    /// Asks it to end; its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(told.success());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(50));
        }
        None
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page of metrics, each family summed over its labels.
pub(crate) struct Metrics(HashMap<String, f64>);

impl Metrics {
    pub(crate) fn sum(&self, family: &str) -> u64 {
        *self.0.get(family).unwrap_or_else(|| panic!("no {family} on the page")) as u64
    }
}

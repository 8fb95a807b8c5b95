//! A real `redis-server`, on a loopback address of its own and on a Unix socket, with an empty folder.
//!
//! An address of its own: whatever runs beside this, the port is free there. Starts and ends one process each; a test that
//! fails ends it too.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use revolve::resp::{ConnectOptions, Connection, Pipeline, Reply, ServerAddress};

/// For how long a server may start: no test is about that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers that this process has started.
static STARTED: AtomicU8 = AtomicU8::new(1);

pub(crate) struct Redis {
    child: Child,
    host: String,
    folder: PathBuf,
    options: Vec<String>,
}

fn spawn(host: &str, folder: &Path, options: &Vec<String>) -> Child {
    Command::new("redis-server")
        .args(["--bind", host, "--port", "6379", "--unixsocket", "redis.sock"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--logfile", "redis.log", "--dir", ".", "--repl-diskless-sync-delay", "0"])
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed: tests/run --only redis installs it")
}

impl Redis {
    /// Starts one with these options besides, and waits until it listens.
    pub(crate) fn start(options: &[&str]) -> Redis {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = std::process::id().to_be_bytes();
        let host = format!("127.{}.{low}.{number}", 64 + high % 64);
        let folder = std::env::temp_dir().join(format!("revolve-redis-{high}-{low}-{number}"));
        // What a process of the same number has left.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for the server");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let child = spawn(&host, &folder, &options);
        let mut server = Redis { child, host, folder, options };
        server.wait_until_it_listens();
        server
    }

    /// Starts it again, where it was, with what it has on the disk.
    pub(crate) fn start_again(&mut self) {
        self.end();
        let _ = fs::remove_file(self.socket());
        self.child = spawn(&self.host, &self.folder, &self.options);
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        self.wait_until(|server| {
            let is_bound = TcpStream::connect((server.host.as_str(), 6379)).is_ok();
            is_bound && server.socket().exists()
        });
    }

    /// Waits for something about this server that nobody announces.
    pub(crate) fn wait_until(&mut self, mut is_so: impl FnMut(&Redis) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            let has_ended = self.child.try_wait().expect("it is our child");
            if has_ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default();
                panic!("redis-server: {has_ended:?}\n{log}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// With `user:password@` before the host, and `/1` behind the port.
    pub(crate) fn address(&self, credentials: &str, database: &str) -> ServerAddress {
        address(&format!("redis://{credentials}{}:6379{database}", self.host))
    }

    pub(crate) fn unix_address(&self) -> ServerAddress {
        address(&format!("unix:{}", self.socket().display()))
    }

    pub(crate) fn connect(&self) -> Connection {
        connect(&self.address("", ""))
    }

    /// Ends it, without a word.
    pub(crate) fn end(&mut self) {
        // SIGKILL ends a stopped one too. If it has ended already, there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {name}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn address(text: &str) -> ServerAddress {
    ServerAddress::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Times that only a server that does not answer meets.
pub(crate) fn options() -> ConnectOptions {
    ConnectOptions {
        connect_timeout: PATIENCE,
        reply_timeout: PATIENCE,
        client_name: "revolve-test".to_owned(),
        reply_bytes_most: 8 << 20,
    }
}

pub(crate) fn connect(address: &ServerAddress) -> Connection {
    Connection::connect(address, &options()).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// What one command is answered with.
pub(crate) fn ask(connection: &mut Connection, command: &[&str]) -> Reply {
    let mut pipeline = Pipeline::new();
    pipeline.push(command);
    let replies =
        connection.exchange(&pipeline).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    replies.into_iter().next().expect("one reply to one command")
}

pub(crate) fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.into())
}

pub(crate) fn ok() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

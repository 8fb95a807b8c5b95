//! The servers under measurement: where they come from, how they are built, started and ended.
//!
//! It knows no scenario. A server is a child process on a core of its own; dropping its `Running`
//! kills it, and the kernel kills it when the bench dies in any other way. `main.rs` builds the
//! list, `scenarios.rs` starts the servers.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Result;
use crate::cpu::Cores;

/// What a server is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The limit: constant replies, masked echoes. Ratios are to it.
    Floor,
    Revolve,
    /// A published crate in a small program of `benches/peers/`.
    Peer,
    /// uvicorn with Django Channels.
    Reference,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// For `--servers` and the file of results.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    program: PathBuf,
}

/// The servers that are not to be had, and why.
pub(crate) type Absent = Vec<(&'static str, String)>;

/// How a scenario wants its server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flavour<'a> {
    pub(crate) echo: bool,
    /// Reactors; 0 means one. Only revolve has them.
    pub(crate) workers: usize,
    /// Seconds between heartbeats; `None` leaves the server's default.
    pub(crate) heartbeat: Option<u64>,
    /// Seconds between pings; `None` leaves the server's default.
    pub(crate) ping: Option<u64>,
    /// Only revolve has one.
    pub(crate) store: Option<Store<'a>>,
    /// Its address; only revolve has a store there, and then no other.
    pub(crate) redis: Option<&'a str>,
}

/// A store: where, and when replies leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store<'a> {
    pub(crate) directory: &'a Path,
    /// As `--store-sync` takes it.
    pub(crate) sync: &'a str,
}

/// The names that `--servers` takes, in the order of every table.
pub(crate) const NAMES: &[(&str, Kind)] = &[
    ("floor", Kind::Floor),
    ("revolve", Kind::Revolve),
    ("tungstenite", Kind::Peer),
    ("fastwebsockets", Kind::Peer),
    ("tokio-websockets", Kind::Peer),
    ("tokio-tungstenite", Kind::Peer),
    ("sockudo-ws", Kind::Peer),
    ("uvicorn+channels", Kind::Reference),
];

/// Builds or installs the wanted servers. The second list names those that are absent, and why.
pub(crate) fn prepare(
    wanted: &[&str],
    revolve: Option<PathBuf>,
    say: &dyn Fn(String),
) -> Result<(Vec<Server>, Absent)> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let chosen: Vec<_> = NAMES.iter().filter(|(name, _)| wanted.contains(name)).collect();
    let peers = target.join("peers");
    if chosen.iter().any(|(_, kind)| matches!(kind, Kind::Floor | Kind::Peer)) {
        say("building the peers (benches/peers, release) …".into());
        build_peers(&peers)?;
    }
    let (mut servers, mut absent) = (Vec::new(), Vec::new());
    for &&(name, kind) in &chosen {
        let program = match kind {
            Kind::Floor | Kind::Peer => Ok(peers.join("release").join(name)),
            Kind::Revolve => find_revolve(&target, revolve.clone()),
            Kind::Reference => {
                say("installing uvicorn and Channels from PyPI …".into());
                install_reference(&target.join("reference"))
            }
        };
        match program.and_then(|path| Ok(fs::canonicalize(path)?)) {
            // A Python in a virtual environment finds it by the name it was called by.
            Ok(_) if kind == Kind::Reference => {
                let program = std::path::absolute(target.join("reference/bin/python"))?;
                servers.push(Server { name, kind, program });
            }
            Ok(program) => servers.push(Server { name, kind, program }),
            Err(error) => absent.push((name, error.to_string())),
        }
    }
    Ok((servers, absent))
}

fn build_peers(target: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--manifest-path", "benches/peers/Cargo.toml", "--target-dir"])
        .arg(target)
        .stdin(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err("the peers do not build".into()) }
}

/// The daemon that cargo built for this bench, or the one of a `cargo build --release`.
fn find_revolve(target: &Path, told: Option<PathBuf>) -> Result<PathBuf> {
    let built = option_env!("CARGO_BIN_EXE_revolve").map(PathBuf::from);
    let path = told.or(built).unwrap_or_else(|| target.join("release/revolve"));
    if path.is_file() { Ok(path) } else { Err("it is not built".into()) }
}

/// A virtual environment with the reference stack; made once, and again when its list changes.
fn install_reference(home: &Path) -> Result<PathBuf> {
    let list = fs::read_to_string("benches/peers/reference/requirements.txt")?;
    let (python, stamp) = (home.join("bin/python"), home.join("installed.txt"));
    if python.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == list) {
        return Ok(python);
    }
    let run = |command: &mut Command, what: &str| -> Result<()> {
        let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{what}: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(format!("{what}: {last}").into())
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(home), "python3 -m venv")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    run(pip.args(["-r", "benches/peers/reference/requirements.txt"]), "pip install")?;
    fs::write(stamp, list)?;
    Ok(python)
}

impl Server {
    /// Starts it on its core and waits until it has told its address.
    pub(crate) fn start(&self, flavour: Flavour<'_>, cores: Option<Cores>) -> Result<Running> {
        let mut command = launcher(cores);
        command.arg(&self.program).args(self.arguments(flavour));
        // A setting of the user's shell must not change what is measured.
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("REVOLVE_")) {
            command.env_remove(name);
        }
        command.env("REFERENCE_MODE", if flavour.echo { "echo" } else { "counter" });
        command.env("PYTHONDONTWRITEBYTECODE", "1");

        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.name))?;
        // The command holds the pipe's other end; while it lives the reader sees no end of file.
        drop(command);
        let (sender, receiver) = mpsc::channel();
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let lines = Arc::clone(&said);
        std::thread::spawn(move || listen_to(reader, &sender, &lines));
        let mut running = Running { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), said };
        match receiver.recv_timeout(Duration::from_secs(20)) {
            Ok(address) => running.address = address,
            Err(_) => return Err(format!("{} did not start{}", self.name, running.words()).into()),
        }
        Ok(running)
    }

    fn arguments(&self, flavour: Flavour<'_>) -> Vec<String> {
        let mut list: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| list.extend(words.iter().map(|word| (*word).to_owned()));
        match self.kind {
            Kind::Floor | Kind::Peer => {
                if flavour.echo {
                    add(&["--echo"]);
                }
                if let (Kind::Floor, Some(seconds @ 1..)) = (self.kind, flavour.heartbeat) {
                    add(&["--heartbeat", &seconds.to_string()]);
                }
            }
            Kind::Revolve => {
                add(&["--host", "127.0.0.1", "--port", "0", "--no-access-log"]);
                add(&["--workers", &flavour.workers.max(1).to_string()]);
                add(&["--app", if flavour.echo { "echo" } else { "counter" }]);
                if let Some(seconds) = flavour.heartbeat {
                    add(&["--heartbeat", &seconds.to_string()]);
                }
                if let Some(seconds) = flavour.ping {
                    add(&["--ws-ping-interval", &seconds.to_string()]);
                }
                if let Some(Store { directory, sync }) = flavour.store {
                    let directory = directory.display();
                    add(&["--store", &format!("file:{directory}"), "--store-sync", sync]);
                }
                if let Some(address) = flavour.redis {
                    add(&["--store", address, "--store-wait", "no"]);
                }
            }
            Kind::Reference => {
                add(&["-m", "uvicorn", "application:application", "--no-access-log"]);
                add(&["--app-dir", "benches/peers/reference", "--lifespan", "off"]);
                add(&["--host", "127.0.0.1", "--port", "0", "--backlog", "4096"]);
                if let Some(seconds) = flavour.ping {
                    // It has no switch: a year is never.
                    let seconds = if seconds == 0 { 31_536_000 } else { seconds };
                    add(&["--ws-ping-interval", &seconds.to_string()]);
                }
            }
        }
        list
    }
}

/// The start of a command line that pins a program to the servers' core and ties its life to ours.
///
/// `setpriv --pdeathsig` asks the kernel to kill the child when its parent is gone, whatever ended
/// it: a signal handler could not promise that.
pub(crate) fn launcher(cores: Option<Cores>) -> Command {
    let tied = ["/usr/bin/setpriv", "/bin/setpriv"].iter().any(|path| Path::new(path).exists());
    let core = cores.map(|cores| cores.server.to_string());
    let mut command = Command::new(if tied {
        "setpriv"
    } else if core.is_some() {
        "taskset"
    } else {
        "env"
    });
    if tied {
        command.args(["--pdeathsig", "KILL"]);
    }
    if let Some(core) = core {
        if tied {
            command.arg("taskset");
        }
        command.args(["-c", &core]);
    }
    command
}

/// A started server. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its last lines, for an error message.
    pub(crate) fn words(&self) -> String {
        let said = self.said.lock().unwrap();
        said.iter().map(|line| format!("\n    | {line}")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what a server prints to its end, so that a full pipe never blocks it.
fn listen_to(reader: PipeReader, address: &Sender<SocketAddr>, said: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(reader).split(b'\n').map_while(std::result::Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Some(found) = address_in(&line) {
            let _ = address.send(found);
        }
        let mut said = said.lock().unwrap();
        if said.len() == 12 {
            said.pop_front();
        }
        said.push_back(line);
    }
}

/// The address in a line like `listening on ws://127.0.0.1:40123/ws/chat/`.
fn address_in(line: &str) -> Option<SocketAddr> {
    // Not that of a Redis, which a line may name before.
    let kinds = ["ws://127.0.0.1:", "http://127.0.0.1:"];
    let rest = kinds.iter().find_map(|kind| Some(&line[line.find(kind)? + kind.len()..]))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(SocketAddr::from(([127, 0, 0, 1], digits.parse().ok().filter(|&port| port > 0)?)))
}

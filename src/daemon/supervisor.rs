//! What systemd, or whoever speaks its protocol, is told of the service: sd_notify(3).
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names; where there is none, nothing is told. A supervisor that takes
//! nothing is waited for a second, and no error is made of it. Called by `main.rs`, and by a thread of its own
//! for the watchdog.
//!
//! Invariant: the watchdog is fed exactly while every reactor turns.
//!
//! Next: `available`: how much memory there is.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use revolve::Liveness;

/// Time that a supervisor may take for a datagram. Signals wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to a supervisor, if there is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervisor(Option<Arc<Line>>);

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Supervisor {
    /// The one of the environment.
    pub(crate) fn from_environment() -> Supervisor {
        match env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) {
            Some(address) => Supervisor::at(&address),
            None => Supervisor::default(),
        }
    }

    fn at(address: &OsStr) -> Supervisor {
        let line = address_of(address).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Line { socket, address })
        });
        match line {
            Ok(line) => Supervisor(Some(Arc::new(line))),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET: {address:?} cannot be written to: {error}");
                Supervisor::default()
            }
        }
    }

    /// It serves.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its settings anew; [`Self::ready`] ends that.
    pub(crate) fn reloading(&self) {
        // systemd.service(5), Type=notify-reload: the time, so that it knows which reload has ended.
        let now = match clock_gettime(ClockId::CLOCK_MONOTONIC) {
            Ok(time) => Duration::from(time).as_micros(),
            Err(_) => return,
        };
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reading the settings anew"));
    }

    /// It drains.
    pub(crate) fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}"));
    }

    fn tell(&self, state: &str) {
        if let Some(Line { socket, address }) = self.0.as_deref()
            && let Err(error) = socket.send_to_addr(state.as_bytes(), address)
        {
            log::debug!("the supervisor did not take {state:?}: {error}");
        }
    }

    /// Starts the thread that feeds the watchdog, if the environment asks for it.
    ///
    /// # Errors
    ///
    /// No thread to be had.
    pub(crate) fn watch(&self, liveness: Liveness) -> io::Result<()> {
        let text = |name: &str| env::var(name).ok();
        let every = watchdog_time(
            text("WATCHDOG_USEC").as_deref(),
            text("WATCHDOG_PID").as_deref(),
            process::id(),
        );
        match every.filter(|_| self.0.is_some()) {
            Some(every) => self.feed(liveness, every),
            None => Ok(()),
        }
    }

    fn feed(&self, mut liveness: Liveness, every: Duration) -> io::Result<()> {
        let supervisor = self.clone();
        let mut was_alive = true;
        let feed = move || {
            loop {
                thread::sleep(every);
                let is_alive = liveness.look();
                if is_alive {
                    supervisor.tell("WATCHDOG=1");
                } else if was_alive {
                    log::error!(
                        "a reactor has not turned for {} s: the watchdog is not fed",
                        every.as_secs_f64()
                    );
                }
                was_alive = is_alive;
            }
        };
        thread::Builder::new().name("revolve-watch".to_owned()).spawn(feed).map(drop)
    }
}

/// A path, or the name of an abstract socket behind an at sign.
fn address_of(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(text),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        [b'@', name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
        }
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

/// How often the watchdog is fed: sd_watchdog_enabled(3) says in half of the time that it has.
fn watchdog_time(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let time = Duration::from_micros(microseconds?.parse().ok()?) / 2;
    (!time.is_zero()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use revolve::{Echo, Server};
    use std::path::PathBuf;

    /// A socket where a supervisor listens.
    fn socket(name: &str) -> (UnixDatagram, PathBuf) {
        let path = env::temp_dir().join(format!("revolve-{name}-{}", process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (socket, path)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut room = [0; 512];
        let length = socket.recv(&mut room).unwrap();
        String::from_utf8(room[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_one_datagram() {
        let (socket, path) = socket("states");
        let supervisor = Supervisor::at(path.as_os_str());
        supervisor.ready("serves");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serves");
        supervisor.reloading();
        let text = heard(&socket);
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let time = time.strip_suffix("\nSTATUS=reading the settings anew").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
        supervisor.stopping("drains");
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=drains");
        // Whoever has gone is not missed.
        drop(socket);
        supervisor.ready("serves");
        std::fs::remove_file(path).unwrap();
        supervisor.ready("serves");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_stands_behind_an_at_sign() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("revolve-notify-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Supervisor::at(format!("@{name}").as_ref()).ready("serves");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serves");
    }

    #[test]
    fn what_is_no_address_of_ours_is_nobody() {
        for text in ["vsock:2:1234", "relative", "/nul\0"] {
            assert!(Supervisor::at(text.as_ref()).0.is_none(), "{text:?}");
        }
        let long = format!("/{}", "a".repeat(200));
        assert!(Supervisor::at(long.as_ref()).0.is_none());
        Supervisor::default().ready("to nobody");
    }

    #[test]
    fn the_watchdog_is_one_programs_and_fed_twice_in_its_time() {
        for (time, pid, every) in [
            (None, None, None),
            (None, Some("7"), None),
            (Some("2000000"), None, Some(Duration::from_secs(1))),
            (Some("2000000"), Some("7"), Some(Duration::from_secs(1))),
            (Some("2000000"), Some("8"), None),
            (Some("2000000"), Some("x"), None),
            (Some("x"), Some("7"), None),
            (Some("0"), Some("7"), None),
        ] {
            assert_eq!(watchdog_time(time, pid, 7), every, "{time:?} {pid:?}");
        }
    }

    /// What stops it, `tests/server/held_up.rs` shows.
    #[test]
    fn a_server_that_turns_feeds_the_watchdog() {
        let (socket, path) = socket("watchdog");
        let server = Server::builder().port(0).workers(2).serve(|_| Echo).unwrap();
        let supervisor = Supervisor::at(path.as_os_str());
        supervisor.feed(server.liveness(), Duration::from_millis(20)).unwrap();
        for _ in 0..5 {
            assert_eq!(heard(&socket), "WATCHDOG=1");
        }
        server.shutdown();
        server.join();
        std::fs::remove_file(path).unwrap();
    }
}

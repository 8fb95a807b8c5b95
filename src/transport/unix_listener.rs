//! Listening under a path: a Unix socket and its file.
//!
//! The file outlives a process that was killed, so a file that is there may belong to a running server
//! or to a dead one: an attempt to connect tells which. Who may connect is decided by the file's mode: the
//! one that was asked for, or what the process's umask leaves of 0777. Called by `listener.rs`.
//!
//! Invariant: nothing is removed but a socket's file that no process listens on, and at the end our own.
//!
//! Next: [`crate::transport::listener`]: the same, for every kind of address.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{self, Path, PathBuf};
use std::thread;
use std::time::Duration;

use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix};

use crate::config::UnixPath;
use crate::transport::socket;

/// How often the lock on the directory is tried, a millisecond apart.
const ATTEMPTS: u32 = 200;

/// A listening Unix socket. Dropping it removes its file, if the path still leads to that, and closes it.
#[derive(Debug)]
pub struct UnixListener {
    // Dropped in this order: a client finds a server or no file, never a file without a server.
    _file: SocketFile,
    listener: mio::net::UnixListener,
}

impl UnixListener {
    /// Listens there. The file of a server that is gone is replaced.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if a server listens there, `AlreadyExists` if there is something other than a socket,
    /// `InvalidInput` if the path is too long, and what `bind(2)` and `listen(2)` say.
    pub fn bind(at: &UnixPath, backlog: u32) -> io::Result<UnixListener> {
        let path = at.path.as_path();
        let absolute = path::absolute(path)?;
        let _lock = lock_directory(&absolute);
        let socket = socket::open(AddressFamily::UNIX, None)?;
        // As it was given: made absolute it may be longer than an address can be.
        let address = address_of(path)?;
        if let Err(error) = rustix::net::bind(&socket, &address) {
            if error != Errno::ADDRINUSE {
                return Err(error.into());
            }
            remove_stale(&absolute, &address)?;
            rustix::net::bind(&socket, &address)?;
        }
        let file = SocketFile::at(absolute)?;
        if let Some(mode) = at.mode {
            // Before it listens: until then nobody can connect, whatever the umask has left.
            fs::set_permissions(&file.path, Permissions::from_mode(mode))?;
        }
        rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let listener = net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(UnixListener { _file: file, listener: mio::net::UnixListener::from_std(listener) })
    }

    /// The next connection in the queue.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none, and what `accept(2)` says.
    pub fn accept(&self) -> io::Result<socket::Socket> {
        self.listener.accept().map(|(stream, _)| stream.into())
    }

    /// Asks for an edge under `token` when there is a connection.
    ///
    /// # Errors
    ///
    /// When the kernel has no room for it.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.listener, token, Interest::READABLE)
    }
}

/// # Errors
///
/// `InvalidInput` if it is too long, or has a byte that no path has.
fn address_of(path: &Path) -> io::Result<SocketAddrUnix> {
    // std asks for room for the NUL, which not every program that is to connect can do without.
    net::SocketAddr::from_pathname(path)?;
    Ok(SocketAddrUnix::new(path)?)
}

/// Removes the file that is in the way, if a server has left it: it is a socket's, and refuses
/// connections.
///
/// # Errors
///
/// As those of [`UnixListener::bind`] for what else is there.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    // Not through a symbolic link: what it points to is not ours to judge.
    let is_socket = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let probe = socket::open(AddressFamily::UNIX, None)?;
    // A server whose queue is full would let a blocking probe wait.
    rustix::io::ioctl_fionbio(&probe, true)?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(error @ (Errno::ACCESS | Errno::PERM)) => Err(error.into()),
        // It answers, or its queue is full (EAGAIN), or it is a socket of another type (EPROTOTYPE).
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Has one server at a time look, remove, bind and listen in a directory, until the lock is dropped.
/// Without it, of two servers that start at the same instant, one could take the other's file for stale:
/// between `bind` and `listen` that refuses connections, too.
///
/// `None` if the directory cannot be locked, or if another process keeps its lock for all attempts: then
/// nothing is done about that instant.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent()?;
    // To open a FIFO would wait for a writer of it.
    if !directory.is_dir() {
        return None;
    }
    let directory = File::open(directory).ok()?;
    for _ in 0..ATTEMPTS {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

/// The file of a listening socket, removed when it is dropped.
#[derive(Debug)]
struct SocketFile {
    /// Absolute: the process may change its directory.
    path: PathBuf,
    /// [`identity`] of the file that is ours.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: PathBuf) -> io::Result<SocketFile> {
        let identity = identity(&fs::symlink_metadata(&path)?);
        Ok(SocketFile { path, identity })
    }
}

/// What tells a file from every other that is there at the same time.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed our file meanwhile, and another server may have the path now. (The
        // inode of its file is another one: the kernel gives ours to no other file while we hold the
        // socket.)
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, SockAddr, Socket, Type};
    use std::os::unix::net::{UnixDatagram, UnixListener as StdListener, UnixStream};
    use std::sync::Barrier;

    /// A directory of one test, removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("revolve-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Directory(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("s")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn bind(path: &Path, backlog: u32) -> io::Result<UnixListener> {
        UnixListener::bind(&path.to_owned().into(), backlog)
    }

    fn refused(path: &Path) -> io::ErrorKind {
        bind(path, 16).expect_err("must be refused").kind()
    }

    #[test]
    fn the_file_is_there_while_it_listens() {
        let directory = Directory::new("while");
        let path = directory.path();
        let listener = bind(&path, 16).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().is_ok());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn the_file_has_the_mode_that_was_asked_for() {
        let directory = Directory::new("mode");
        let path = directory.path();
        for mode in [0o600, 0o777, 0o000] {
            let at = UnixPath { path: path.clone(), mode: Some(mode) };
            let _listener = UnixListener::bind(&at, 16).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_servers_file_is_replaced_and_a_living_ones_is_not() {
        let directory = Directory::new("stale");
        let path = directory.path();
        // std's listener leaves its file, as a process does that is killed.
        drop(StdListener::bind(&path).unwrap());
        let first = bind(&path, 1).unwrap();
        assert_eq!(refused(&path), io::ErrorKind::AddrInUse);
        // A server whose queue is full is a living one, too.
        let mut queued = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            if client.connect(&SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            queued.push(client);
        }
        assert_eq!(refused(&path), io::ErrorKind::AddrInUse);
        assert!(first.accept().is_ok(), "it was not disturbed");
    }

    #[test]
    fn what_is_no_server_of_ours_stays() {
        let directory = Directory::new("foreign");
        let path = directory.path();
        fs::write(&path, "kept").unwrap();
        assert_eq!(refused(&path), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        // A link is not followed, whatever it leads to: here to a dead server's file.
        let (stale, link) = (directory.0.join("stale"), directory.0.join("link"));
        drop(StdListener::bind(&stale).unwrap());
        std::os::unix::fs::symlink(&stale, &link).unwrap();
        assert_eq!(refused(&link), io::ErrorKind::AlreadyExists);
        assert!(stale.exists() && link.is_symlink());
        let datagrams = directory.0.join("datagrams");
        let _datagrams = UnixDatagram::bind(&datagrams).unwrap();
        assert_eq!(refused(&datagrams), io::ErrorKind::AddrInUse);
        assert!(datagrams.exists());
        assert_eq!(refused(&directory.0), io::ErrorKind::AlreadyExists);
        assert_eq!(refused(&directory.0.join("none/s")), io::ErrorKind::NotFound);
        // 108 bytes are Linux's most, with the NUL.
        assert_eq!(refused(Path::new(&"s".repeat(108))), io::ErrorKind::InvalidInput);
        assert_eq!(refused(&path.join("s")), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn a_file_that_another_server_was_given_meanwhile_stays() {
        let directory = Directory::new("meanwhile");
        let path = directory.path();
        let first = bind(&path, 16).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&path, 16).unwrap();
        drop(first);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(second.accept().is_ok());
    }

    #[test]
    fn of_two_servers_that_ask_at_one_moment_one_gets_the_path() {
        let directory = Directory::new("moment");
        let path = directory.path();
        let start = Barrier::new(2);
        let ask = || {
            start.wait();
            let outcome = bind(&path, 16);
            // The one that got the path keeps it until the other has asked.
            start.wait();
            outcome
        };
        for round in 0..200 {
            drop(StdListener::bind(&path).unwrap());
            let (one, other) = thread::scope(|scope| {
                let other = scope.spawn(ask);
                (ask(), other.join().unwrap())
            });
            let (won, lost) = match (one, other) {
                (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
                (one, other) => panic!("round {round}: {one:?} and {other:?}"),
            };
            assert_eq!(lost.kind(), io::ErrorKind::AddrInUse, "round {round}");
            let _client = UnixStream::connect(&path).unwrap();
            assert!(won.accept().is_ok(), "round {round}");
        }
    }
}

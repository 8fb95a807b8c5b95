//! HAProxy and nginx, with the configurations of `packaging/`, in which only addresses are others.
//!
//! Started by the tests; ends with the value.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::node::Node;
use crate::{own_host, wait_until};

/// Where clients connect, in both configurations.
pub(crate) const PORT: u16 = 8000;

#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) host: String,
    folder: PathBuf,
    child: Child,
}

impl Balancer {
    pub(crate) fn haproxy(nodes: &[&Node]) -> Balancer {
        let host = own_host();
        let text = configuration("haproxy/revolve.cfg", &host, "bind :8000", nodes);
        let text = replaced(&text, "127.0.0.1:8404", &format!("{host}:8404"));
        let folder = folder(&host);
        fs::write(folder.join("revolve.cfg"), text).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", "revolve.cfg"]);
        Balancer::start(command, host, folder)
    }

    pub(crate) fn nginx(nodes: &[&Node]) -> Balancer {
        let host = own_host();
        let text = configuration("nginx/revolve.conf", &host, "listen 8000", nodes);
        let folder = folder(&host);
        fs::write(folder.join("revolve.conf"), text).unwrap();
        // What Debian's nginx.conf says around it. Whatever it writes, it writes here.
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {what};\n"))
            .concat();
        let around = format!(
            "daemon off;\npid nginx.pid;\nerror_log stderr crit;\nworker_rlimit_nofile 8192;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\naccess_log off;\n{temporary}include revolve.conf;\n}}\n"
        );
        fs::write(folder.join("nginx.conf"), around).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).args(["-e", "stderr", "-c", "nginx.conf"]);
        Balancer::start(command, host, folder)
    }

    fn start(mut command: Command, host: String, folder: PathBuf) -> Balancer {
        // Debian has them where only root looks.
        let path = std::env::var("PATH").unwrap_or_default();
        let child = command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .spawn()
            .expect("it is installed: tests/run --only fleet installs it");
        let mut balancer = Balancer { host, folder, child };
        wait_until("the balancer listens", || {
            let ended = balancer.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{command:?}: {ended:?}");
            TcpStream::connect((balancer.host.as_str(), PORT)).is_ok()
        });
        balancer
    }

    /// What HAProxy thinks of a node.
    pub(crate) fn state_of(&self, name: &str) -> Option<String> {
        let mut stream = TcpStream::connect((self.host.as_str(), 8404)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET /;csv HTTP/1.0\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        let names = page.lines().find(|line| line.starts_with("# pxname"))?;
        let column = names.split(',').position(|field| field == "status")?;
        let line = page.lines().find(|line| line.starts_with(&format!("revolve,{name},")))?;
        line.split(',').nth(column).map(str::to_owned)
    }

    pub(crate) fn wait_until_in(&self, name: &str, is_in: bool) {
        wait_until(&format!("{name} is in: {is_in}"), || {
            let state = self.state_of(name);
            state.is_some_and(|state| if is_in { state == "UP" } else { state == "DOWN" })
        });
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Not SIGKILL: nginx has processes of its own to end.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder(host: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("revolve-balancer-{host}"));
    // What a process of the same number has left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the balancer");
    folder
}

/// A file of `packaging/`, for these addresses.
fn configuration(name: &str, host: &str, listening: &str, nodes: &[&Node]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let (word, _) = listening.split_once(' ').expect("a word and an address");
    text = replaced(&text, &format!("\n    {listening}"), &format!("\n    {word} {host}:{PORT}"));
    for node in nodes {
        let (host, port) = (&node.host, node.port);
        text = replaced(&text, &format!("127.0.0.1:{port}"), &format!("{host}:{port}"));
    }
    text
}

/// With this replaced, which has to be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?}");
    text.replace(from, to)
}

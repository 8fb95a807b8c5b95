//! The file of options, and what `--print-config` says: tests.
//!
//! Reads no file: its text is given. What TOML is, `toml` tests.

use std::ffi::OsString;
use std::io;

use super::options::OPTIONS;
use super::row::{Row, Takes};
use super::settings::Settings;
use super::{Command, UsageError, parse};

const FILE: &str = "/etc/revolve.toml";

fn parsed(args: &[&str], env: &[(&str, &str)], text: &'static str) -> Result<Command, UsageError> {
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let args = ["--config", FILE].iter().chain(args).map(OsString::from);
    parse(args, env, |path| {
        assert_eq!(path.to_str(), Some(FILE));
        Ok(text.to_owned())
    })
}

fn settings(args: &[&str], env: &[(&str, &str)], text: &'static str) -> Settings {
    match parsed(args, env, text) {
        Ok(Command::Run(loaded)) => loaded.settings,
        other => panic!("{text}: {other:?}"),
    }
}

fn printed(args: &[&str], env: &[(&str, &str)], text: &'static str) -> String {
    match parsed(&[args, &["--print-config"]].concat(), env, text) {
        Ok(Command::Print(text)) => text,
        other => panic!("{text}: {other:?}"),
    }
}

fn error(text: &'static str) -> String {
    let line = parsed(&[], &[], text).expect_err(text).to_string();
    assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    line.strip_prefix(FILE).unwrap_or_else(|| panic!("{line} names no file")).to_owned()
}

fn shown(name: &str, settings: &Settings) -> String {
    let row = OPTIONS.iter().find(|row| row.name == name).expect(name);
    (row.show)(settings)
}

/// A value for each option but `config` and those of TLS, of each type that it may have.
const ALL: &str = r#"
host = ["127.0.0.1", "::1, localhost"]
port = 9000
uds = "/run/revolve.sock:660"
fd = [3, "http"]
admin = "unix:/run/admin.sock"
workers = 3
backlog = 1_000
ws-path = "/chat"
ws-max-size = 65536
ws-per-message-deflate = false
ws-ping-interval = 0.5
ws-ping-timeout = 0
allowed-origins = ["https://example.com", "null"]
ws-subprotocols = 'chat.v2,chat'
app = "Echo"
heartbeat = 1.25
offload-threads = 1
slow-turn-ms = 0
session-ids = "issued"
session-ttl = 0
max-sessions = 10
store = "file:/var/lib/revolve"
store-sync = 50
store-timeout = 1.5
store-repair = true
store-wait = false
store-prefix = "chat:"
store-replicas = 1
node = "blue"
broker = "redis://host"
broker-timeout = 0.5
task-names = ["w.add", "w.fail, w.nap"]
task-workers = "rq"
task-queue = "low"
task-timeout = 10
limit-concurrency = 100
limit-per-ip = 20
limit-sessions-per-ip = "100/2.5"
timeout-handshake = 0.1
timeout-keep-alive = 75
max-send-buffer = 1024
proxy-protocol = true
proxy-headers = "forwarded"
forwarded-allow-ips = ["10.0.0.0/8", "unix"]
page = false
page-for = "any"
metrics = false
header = ["X-A: 1, 2", 'X-B: "3"']
timeout-graceful-shutdown = 1
drain-over = 0.5
log-level = "trace"
log-format = "json"
log-file = "/var/log/revolve.log"
access-log = false
"#;

/// Two files that differ in all.
pub(super) fn two_of_all() -> (&'static str, &'static str) {
    ("limit-concurrency = 5\nlog-file = 'a'\n", ALL)
}

/// They are refused without each other, and in a build without TLS.
#[cfg(feature = "tls")]
#[test]
fn the_options_of_tls_can_stand_in_the_file() {
    let set = settings(
        &[],
        &[],
        "ssl-certfile = ['a.pem', 'b.pem']\nssl-keyfile = ['a.key', 'b.key']\nssl-ca-certs = 'ca.pem'\nssl-cert-reqs = 2\n\
         plain-port = 80\nplain-fd = [3, 'plain']\nadmin = '[::1]:9'\nssl-admin = true\n",
    );
    let names: Vec<_> =
        OPTIONS.iter().filter(|row| row.group == "TLS").map(|row| row.name).collect();
    let shown: Vec<_> = names.iter().map(|name| shown(name, &set)).collect();
    assert_eq!(shown, ["a.pem,b.pem", "a.key,b.key", "ca.pem", "2", "80", "3,plain", "on"]);
}

#[test]
fn every_option_can_stand_in_the_file() {
    let set = settings(&[], &[], ALL);
    let names = ALL.lines().filter_map(|line| Some(line.split_once(" = ")?.0));
    let options = || OPTIONS.iter().filter(|row| row.group != "TLS");
    let wanted: Vec<&str> = options().map(|row| row.name).collect();
    assert_eq!(["config"].into_iter().chain(names).collect::<Vec<_>>(), wanted);
    let defaults = Settings::default();
    for row in options().filter(|row| row.name != "ws-per-message-deflate") {
        assert_ne!((row.show)(&set), (row.show)(&defaults), "{}", row.name);
    }
    assert_eq!(shown("host", &set), "127.0.0.1,::1,localhost");
    assert_eq!(shown("fd", &set), "3,http");
    assert_eq!(shown("allowed-origins", &set), "https://example.com,null");
    assert_eq!(shown("backlog", &set), "1000");
    assert_eq!(shown("header", &set), r#"X-A: 1, 2, X-B: "3""#);
    // What can be a number or a word can be either.
    assert_eq!(shown("store-sync", &settings(&[], &[], "store-sync = 'always'")), "always");
    assert_eq!(
        shown("limit-sessions-per-ip", &settings(&[], &[], "limit-sessions-per-ip = 7")),
        "7/60"
    );
    assert_eq!(shown("host", &settings(&[], &[], "host = []")), "127.0.0.1");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let text = "port = 1\nheader = ['A: 1', 'B: 2']\npage = false\n";
    let env = [("REVOLVE_PORT", "2"), ("REVOLVE_PAGE", "")];
    assert_eq!(settings(&[], &[], text).port, 1);
    assert_eq!(settings(&[], &env, text).port, 2);
    assert_eq!(settings(&["--port", "3"], &env, text).port, 3);
    assert!(!settings(&[], &env, text).config.page, "an empty variable is none");
    assert!(settings(&["--page"], &env, text).config.page);
    // All of one hides all of another.
    assert_eq!(shown("header", &settings(&["--header", "C: 3"], &[], text)), "C: 3");
    // What is hidden is not looked at, so that a flag can mend it; but it is an option's.
    assert_eq!(settings(&["--port", "3"], &[], "port = 99999").port, 3);
    parsed(&["--port", "3"], &[], "prot = 1").expect_err("no option");
    // The file itself can be named by a variable.
    let env = [(OsString::from("REVOLVE_CONFIG"), OsString::from("a"))];
    let by_variable = parse(std::iter::empty(), env.into_iter(), |_| Ok("port = 7".to_owned()));
    let Ok(Command::Run(loaded)) = by_variable else { panic!("{by_variable:?}") };
    assert_eq!(loaded.settings.port, 7);
}

#[test]
fn a_mistake_is_named_with_file_line_and_option() {
    for (text, line) in [
        ("\n\nport = 99999", ":3: port: \"99999\" is not a number from 0 to 65535"),
        ("port = -1", ":1: port: \"-1\" is not a number from 0 to 65535"),
        ("workers = 0", ":1: workers: \"0\" is not a number from 1 to 1024"),
        (
            "ws-path = '/healthz'",
            ":1: ws-path: \"/healthz\" is not free: /healthz, /readyz, /metrics and /ws/stats have answers of their own",
        ),
        ("port = '8000'", ":1: port: the value has to be a number, without quotes"),
        ("port = true", ":1: port: the value has to be a number, without quotes"),
        ("port = [1]", ":1: port: the value has to be a number, without quotes"),
        ("page = 'off'", ":1: page: the value has to be true or false, without quotes"),
        ("page = 1", ":1: page: the value has to be true or false, without quotes"),
        ("app = 7", ":1: app: the value has to be a text in quotes"),
        ("host = 1", ":1: host: the value has to be a text in quotes, or an array of such"),
        (
            "host = [\n'::1',\ntrue]",
            ":3: host: the value has to be a text in quotes, or an array of such",
        ),
        ("store-sync = true", ":1: store-sync: the value has to be a number, or a text in quotes"),
        ("app = 'chat'", ":1: app: \"chat\" is not counter, echo or tasks"),
        (
            "header = [\n'A: 1',\n'B']",
            ":3: header: \"B\" is not a header field such as X-Robots-Tag:noindex that is not the server's own, and all of them together at most 2048 bytes",
        ),
        ("prot = 1", ":1: unknown option prot (did you mean port?); see --help"),
        (
            "\nws_max_size = 1",
            ":2: unknown option ws_max_size (did you mean ws-max-size?); see --help",
        ),
        ("no-page = true", ":1: unknown option no-page (did you mean page?); see --help"),
        ("'a\tb' = 1", ":1: unknown option a\\tb; see --help"),
        ("config = 'x'", ":1: config: a file cannot name another"),
        ("port = 1\nport = 2", ":2: \"port\" is set on line 1 already"),
        ("[log]\nlevel = 'info'", ":1: tables are not supported; options stand without a heading"),
        ("log-level = info", ":1: info is not true or false; a text stands in quotes"),
    ] {
        assert_eq!(error(text), line, "{text}");
    }
    let args = ["--config", "no such"].map(OsString::from);
    let gone = parse(args.into_iter(), std::iter::empty(), |_| Err(io::ErrorKind::NotFound.into()));
    let line = gone.expect_err("no file").to_string();
    assert_eq!(line, "--config: cannot read \"no such\": entity not found");
}

/// The file of what is printed sets the same.
fn read_again(printed: &str) -> Settings {
    let args = ["--config", "x"].map(OsString::from).into_iter();
    match parse(args, std::iter::empty(), |_| Ok(printed.to_owned())) {
        Ok(Command::Run(loaded)) => loaded.settings,
        other => panic!("{printed}: {other:?}"),
    }
}

#[test]
fn what_is_printed_can_be_read_again() {
    let flags = ["--host", "::1", "--host", "localhost", "--header", "A: \"b\\c\"", "--fd", "3"];
    let env = [("REVOLVE_STORE_SYNC", "always"), ("REVOLVE_PAGE", "NO"), ("REVOLVE_WORKERS", "2")];
    for (args, env, text) in [
        (&[][..], &[][..], ""),
        (&[], &[], ALL),
        (&flags, &env, ALL),
        (&["--ws-subprotocols", "none", "--uds", "none"], &[], ""),
    ] {
        let (set, printed) = (settings(args, env, text), printed(args, env, text));
        let again = read_again(&printed);
        for row in OPTIONS.iter().filter(|row| row.name != "config") {
            assert_eq!((row.show)(&again), (row.show)(&set), "{}:\n{printed}", row.name);
        }
        assert_eq!(again.hosts, set.hosts);
        assert_eq!(again.passed, set.passed);
    }
}

/// A default is a comment, and what one may make of it by taking the sign away is that default.
#[test]
fn what_is_printed_of_a_default_is_a_comment_that_can_be_a_line() {
    let printed = printed(&[], &[], "");
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains("  # default")).collect();
    assert!(lines.len() > 30, "{printed}");
    let text: String = lines.iter().map(|line| format!("{}\n", &line[2..])).collect();
    let (again, defaults) = (read_again(&text), Settings::default());
    let is_known = |row: &&Row| row.name != "config";
    for row in OPTIONS.iter().filter(is_known) {
        assert_eq!((row.show)(&again), (row.show)(&defaults), "{}", row.name);
        let is_there = |line: &str| line[2..].starts_with(&format!("{} = ", row.name));
        let is_unset = printed.contains(&format!("\n# {}: ", row.name));
        assert!(lines.iter().copied().any(is_there) != is_unset, "{}", row.name);
    }
}

#[test]
fn what_is_printed_says_where_it_comes_from() {
    let printed = printed(
        &["--log-level", "debug", "--no-metrics"],
        &[("REVOLVE_BACKLOG", "7")],
        "\nport = 9000\nlog-level = 'info'\n",
    );
    for line in [
        "# config: \"/etc/revolve.toml\", --config",
        "port = 9000  # /etc/revolve.toml:2",
        "backlog = 7  # REVOLVE_BACKLOG",
        "log-level = \"debug\"  # --log-level",
        "metrics = false  # --no-metrics",
        "# uds: none, default",
        "# page = true  # default",
        "# ws-ping-interval = 20  # default",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}:\n{printed}");
    }
    for row in OPTIONS {
        let begins =
            [format!("{} = ", row.name), format!("# {} = ", row.name), format!("# {}: ", row.name)];
        let lines =
            printed.lines().filter(|line| begins.iter().any(|begin| line.starts_with(begin)));
        assert_eq!(lines.count(), 1, "{}", row.name);
        if matches!(row.takes, Takes::Nothing) {
            assert!(!printed.contains(&format!("no-{} =", row.name)));
        }
    }
}

/// The file that docs/operations.md shows is one.
#[test]
fn the_documented_file_can_be_read() {
    let text = include_str!("../../../docs/operations.md");
    let (_, file) = text.split_once("```toml\n").expect("a file");
    let (file, _) = file.split_once("```").expect("its end");
    let set = read_again(file);
    assert_eq!((set.port, set.hosts.len(), set.config.page), (9000, 2, false));
}

//! The command line, the `REVOLVE_…` environment and a file of options, read into plain values.
//!
//! It reads nothing itself and prints nothing: what it is given comes in as iterators, and the file through a
//! function; what it has to say goes out as values. `main.rs` calls [`parse`] at the start, and again at each SIGHUP.
//!
//! Its files, each of which uses only those before it: `values`: what a text means; `settings`: what is set; `row`:
//! what an option is; `ssl`, `tasks` and `proxies`: those of TLS, of tasks and of proxies; `options`: all of them, the
//! one table; `toml`: the part of TOML that a file has; `usage`: what is said; `completions`: what shells are told;
//! `manual`: the manual page; `given`: what was given; `from_file`: by a file; `effective`: what holds, for
//! `--print-config`; `changes`: what another reading has changed.
//!
//! Invariant: a flag wins over the environment, the environment over the file, and [`Settings::config`] is valid.
//!
//! Next: `values`: what the texts of options mean.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use lexopt::{Arg, Parser};

mod changes;
mod completions;
#[cfg(test)]
mod configured;
#[cfg(test)]
mod documented;
mod effective;
mod from_file;
mod given;
mod manual;
mod options;
mod proxies;
mod row;
mod settings;
mod ssl;
mod tasks;
mod toml;
mod usage;
mod values;

pub(crate) use changes::{Changes, changes};
use given::Given;
pub(crate) use given::Loaded;
use options::OPTIONS;
use row::{PREFIX, Row, Takes, listed};
pub(crate) use settings::{App, Settings, TaskSettings};
pub(crate) use usage::UsageError;
use usage::{SHELLS, bad_value, help, unknown_option, unknown_variable, version};
use values::words;
pub(crate) use values::{Host, Passing, seconds};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<Loaded>),
    /// To say what would be done.
    Check(Box<Loaded>),
    /// To look at a store.
    Look(LookAtStore, PathBuf),
    /// The text to print: the help, a manual, completions, which build this is, or what holds.
    Print(String),
}

/// What is looked for in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookAtStore {
    /// Whether it can be read.
    Check,
    /// Every session of it.
    Dump,
}

/// What is to be done with the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Run,
    Check,
    Print,
}

/// Reads the arguments (without the program's name), the environment, and the file that one of these names.
///
/// # Errors
///
/// The first thing that does not mean anything; the value that a flag hides of the environment, or these two of the
/// file, is not looked at.
pub(crate) fn parse(
    args: impl Iterator<Item = OsString>,
    env: impl Iterator<Item = (OsString, OsString)>,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Command, UsageError> {
    // Texts first, meanings later: so the last flag wins, a flag wins over the environment, and
    // help is there whatever the environment says.
    let mut given: Vec<Option<Given>> = OPTIONS.iter().map(|_| None).collect();
    let mut purpose = Purpose::Run;
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|error| UsageError(error.to_string()))? {
        let name = match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Print(help())),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Print(version())),
            Arg::Long("man") => return Ok(Command::Print(manual::page())),
            Arg::Long("completions") => return parse_shell(&mut parser),
            Arg::Short(letter) => return Err(unknown_option(&format!("-{letter}"))),
            Arg::Long(name) => format!("--{name}"),
            Arg::Value(value) if value == "store" => return parse_store(&mut parser),
            Arg::Value(value) => {
                let line = format!("unexpected argument {value:?}; only options are allowed");
                return Err(UsageError(format!("{line}, see --help")));
            }
        };
        let asked = match name.as_str() {
            "--check-config" => Purpose::Check,
            "--print-config" => Purpose::Print,
            _ => {
                take_flag(name, &mut parser, &mut given)?;
                continue;
            }
        };
        refuse_value(&name, &mut parser)?;
        purpose = asked;
    }
    take_variables(env, &mut given)?;
    if let Some(index) = OPTIONS.iter().position(|row| row.name == "config")
        && let Some(file) = &given[index]
    {
        let in_file = read_file(file, read)?;
        for (given, in_file) in given.iter_mut().zip(in_file) {
            *given = given.take().or(in_file);
        }
    }
    let loaded = Box::new(Loaded::new(given)?);
    Ok(match purpose {
        Purpose::Run => Command::Run(loaded),
        Purpose::Check => Command::Check(loaded),
        Purpose::Print => Command::Print(effective::to_toml(&loaded)),
    })
}

/// A flag of the table, with what follows it.
fn take_flag(
    name: String,
    parser: &mut Parser,
    given: &mut [Option<Given>],
) -> Result<(), UsageError> {
    let Some((index, row, spelling)) = find(&name) else { return Err(unknown_option(&name)) };
    let value = match row.takes {
        Takes::Nothing => {
            refuse_value(&name, parser)?;
            OsString::from(match spelling {
                Spelling::Plain => "true",
                Spelling::Negated => "false",
            })
        }
        Takes::Truth => {
            let is_word = |arg: &OsStr| !arg.as_encoded_bytes().starts_with(b"-");
            let word = |parser: &mut Parser| parser.try_raw_args()?.next_if(is_word);
            let value = parser.optional_value().or_else(|| word(parser));
            value.unwrap_or_else(|| OsString::from("true"))
        }
        _ => parser.value().map_err(|_| {
            UsageError(format!("{name}: the value is missing; it must be {}", row.allowed()))
        })?,
    };
    let new = Given::by(name, value);
    match (&mut given[index], &row.takes) {
        (Some(given), Takes::Values(..)) => given.texts.extend(new.texts),
        (given, _) => *given = Some(new),
    }
    Ok(())
}

fn refuse_value(name: &str, parser: &mut Parser) -> Result<(), UsageError> {
    match parser.optional_value() {
        Some(value) => Err(bad_value(name, &value, "allowed: it takes none")),
        None => Ok(()),
    }
}

/// The variables of options that no flag has set.
fn take_variables(
    env: impl Iterator<Item = (OsString, OsString)>,
    given: &mut [Option<Given>],
) -> Result<(), UsageError> {
    for (name, value) in env {
        let name = name.to_string_lossy().into_owned();
        // An empty one counts as unset: compose files and unit files write `NAME=${NAME}`.
        if !name.starts_with(PREFIX) || value.is_empty() || is_service_link(&name, &value) {
            continue;
        }
        let Some(index) = OPTIONS.iter().position(|row| row.variable() == name) else {
            return Err(unknown_variable(&name));
        };
        given[index].get_or_insert_with(|| Given::by(name, value));
    }
    Ok(())
}

/// What the file gives that `--config` names.
fn read_file(
    file: &Given,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Vec<Option<Given>>, UsageError> {
    let Some(text) = file.texts.last() else { return Ok(Vec::new()) };
    let path = Path::new(&text.text);
    let content = read(path)
        .map_err(|error| UsageError(format!("{}: cannot read {path:?}: {error}", text.place)))?;
    from_file::read(path, &content)
}

/// What follows `--completions`.
fn parse_shell(parser: &mut Parser) -> Result<Command, UsageError> {
    const NAME: &str = "--completions";
    let allowed = listed(&words(&SHELLS));
    let value = parser
        .value()
        .map_err(|_| UsageError(format!("{NAME}: the value is missing; it must be {allowed}")))?;
    match value.to_str().and_then(completions::shell) {
        Some(shell) => Ok(Command::Print(completions::script(shell))),
        None => Err(bad_value(NAME, &value, &allowed)),
    }
}

/// `store check DIR`, `store dump DIR`: options and environment have no say in these.
fn parse_store(parser: &mut Parser) -> Result<Command, UsageError> {
    const USAGE: &str = "revolve store takes check or dump, and a directory; see --help";
    let mut words = Vec::new();
    while let Some(arg) = parser.next().map_err(|error| UsageError(error.to_string()))? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Print(help())),
            Arg::Value(word) => words.push(word),
            _ => return Err(UsageError(USAGE.to_owned())),
        }
    }
    match words.as_slice() {
        [what, directory] if what == "check" => {
            Ok(Command::Look(LookAtStore::Check, directory.into()))
        }
        [what, directory] if what == "dump" => {
            Ok(Command::Look(LookAtStore::Dump, directory.into()))
        }
        _ => Err(UsageError(USAGE.to_owned())),
    }
}

/// Which of its two names an option was given by.
#[derive(Clone, Copy)]
enum Spelling {
    Plain,
    /// `--no-name`.
    Negated,
}

/// By its name with the dashes: its place, itself, and which name that was.
fn find(name: &str) -> Option<(usize, &'static Row, Spelling)> {
    let plain = name.strip_prefix("--")?;
    OPTIONS.iter().enumerate().find_map(|(index, row)| {
        let negated = row.negation().is_some_and(|negation| negation == name);
        let spelling = if negated { Spelling::Negated } else { Spelling::Plain };
        (negated || plain == row.name).then_some((index, row, spelling))
    })
}

/// Kubernetes and Docker links give every container of a neighbourhood variables made from the
/// names of the services in it. One named `revolve` yields `REVOLVE_SERVICE_HOST`,
/// `REVOLVE_PORT_8000_TCP_ADDR` and even `REVOLVE_PORT=tcp://10.0.0.1:8000`, none of them meant
/// for us; to refuse them would be to refuse to start there.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let scheme = |scheme: &str| value.to_str().is_some_and(|value| value.starts_with(scheme));
    let of_port = name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP"));
    of_port
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && (scheme("tcp://") || scheme("udp://")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    use revolve::config::{
        AllowedOrigins, ClientCertificates, Config, FIELD_ALLOWED, NODE_ALLOWED, ORIGINS_ALLOWED,
        PROXIES_ALLOWED, STORE_ALLOWED, STORE_PREFIX_ALLOWED, SUBPROTOCOLS_ALLOWED, SessionRate,
        StoreLocation, StoreSync, Subprotocols, UNIX_PATH_ALLOWED, UnixPath, bounds,
    };

    use super::row::TRUTHS;
    use super::usage::WIDTH;
    use super::*;

    /// With an empty file under each name.
    fn parse(
        args: impl Iterator<Item = OsString>,
        env: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Command, UsageError> {
        super::parse(args, env, |_| Ok(String::new()))
    }

    fn parsed(args: &[&str], env: &[(&str, &str)]) -> Result<Command, UsageError> {
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        parse(args.iter().map(OsString::from), env)
    }

    fn settings(args: &[&str], env: &[(&str, &str)]) -> Settings {
        match parsed(args, env) {
            Ok(Command::Run(loaded)) => loaded.settings,
            other => panic!("{args:?} {env:?}: {other:?}"),
        }
    }

    fn error(args: &[&str], env: &[(&str, &str)]) -> String {
        let line = parsed(args, env).expect_err("must be refused").to_string();
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        line
    }

    /// A value other than the default for every option.
    const OTHER: &[(&str, &str)] = &[
        ("config", "/etc/revolve.toml"),
        ("host", "::1,localhost"),
        ("port", "0"),
        ("uds", "/run/revolve.sock:660"),
        ("fd", "3,http"),
        ("admin", "unix:/run/admin.sock:600"),
        ("workers", "1000"),
        ("backlog", "7"),
        ("ssl-certfile", "a.pem,b.pem"),
        ("ssl-keyfile", "a.key,b.key"),
        ("ssl-ca-certs", "ca.pem"),
        ("ssl-cert-reqs", "2"),
        ("plain-port", "8080"),
        ("plain-fd", "4,plain"),
        ("ssl-admin", "true"),
        ("ws-path", "/chat"),
        ("ws-max-size", "65536"),
        ("ws-per-message-deflate", "true"),
        ("ws-ping-interval", "0.5"),
        ("ws-ping-timeout", "0"),
        ("allowed-origins", "https://example.com,http://localhost:3000,null"),
        ("ws-subprotocols", "chat.v2,chat"),
        ("app", "echo"),
        ("heartbeat", "1.25"),
        ("offload-threads", "1"),
        ("slow-turn-ms", "0"),
        ("session-ids", "issued"),
        ("session-ttl", "0"),
        ("max-sessions", "10"),
        ("store", "file:/var/lib/revolve"),
        ("store-sync", "50"),
        ("store-timeout", "1.5"),
        ("store-repair", "true"),
        ("store-wait", "false"),
        ("store-prefix", "chat:"),
        ("store-replicas", "1"),
        ("node", "web-1"),
        ("broker", "redis://host:6379/3"),
        ("broker-timeout", "0.5"),
        ("task-names", "w.add,w.fail"),
        ("task-workers", "rq"),
        ("task-queue", "low"),
        ("task-timeout", "2.5"),
        ("limit-concurrency", "100"),
        ("limit-per-ip", "20"),
        ("limit-sessions-per-ip", "100/2.5"),
        ("timeout-handshake", "0.1"),
        ("timeout-keep-alive", "75"),
        ("max-send-buffer", "1024"),
        ("proxy-protocol", "true"),
        ("proxy-headers", "forwarded"),
        ("forwarded-allow-ips", "10.0.0.0/8,unix"),
        ("page", "false"),
        ("page-for", "any"),
        ("metrics", "false"),
        ("header", "X-Robots-Tag: noindex"),
        ("timeout-graceful-shutdown", "0"),
        ("drain-over", "2.5"),
        ("log-level", "trace"),
        ("log-format", "json"),
        ("log-file", "/var/log/revolve.log"),
        ("access-log", "false"),
    ];

    fn shown(row: &Row, settings: &Settings) -> String {
        match (row.show)(settings).as_str() {
            "off" => "false".to_owned(),
            "on" => "true".to_owned(),
            text => text.to_owned(),
        }
    }

    #[test]
    fn every_option_can_be_set_by_flag_and_by_variable() {
        assert_eq!(OTHER.len(), OPTIONS.len());
        let defaults = Settings::default();
        for (row, (name, other)) in OPTIONS.iter().zip(OTHER) {
            assert_eq!(row.name, *name);
            if *name == "ws-per-message-deflate" && !cfg!(feature = "deflate") {
                continue;
            }
            // They are refused without each other, and in a build without TLS.
            if row.group == "TLS" {
                continue;
            }
            assert_ne!(shown(row, &defaults), *other, "{name}");
            let flag = match row.takes {
                Takes::Nothing => vec![vec![format!("--no-{name}")]],
                _ => vec![
                    vec![format!("--{name}={other}")],
                    vec![format!("--{name}"), (*other).to_owned()],
                ],
            };
            for args in flag {
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let set = settings(&args, &[]);
                assert_eq!(shown(row, &set), *other, "{args:?}");
                for untouched in OPTIONS.iter().filter(|untouched| untouched.name != *name) {
                    assert_eq!((untouched.show)(&set), (untouched.show)(&defaults), "{args:?}");
                }
            }
            let set = settings(&[], &[(&row.variable(), other)]);
            assert_eq!(shown(row, &set), *other, "{}", row.variable());
        }
    }

    #[test]
    fn a_unix_socket_replaces_host_and_port() {
        let listen = |args: &[&str]| settings(args, &[]).config.listen;
        let unix = |mode| UnixPath { path: "a.sock".into(), mode }.into();
        assert_eq!(listen(&["--uds", "a.sock", "--port", "1"]), [unix(None)]);
        assert_eq!(listen(&["--uds", "a.sock:660"]), [unix(Some(0o660))]);
        let long = format!("/{}", "a".repeat(108));
        let line = error(&[&format!("--uds={long}")], &[]);
        assert_eq!(line, format!("--uds: {long:?} is not {UNIX_PATH_ALLOWED}"));
        assert_eq!(error(&["--uds="], &[]), format!("--uds: \"\" is not {UNIX_PATH_ALLOWED}"));
    }

    #[test]
    fn the_application_for_tasks_needs_a_broker_and_names() {
        let line = error(&["--app=tasks"], &[]);
        assert_eq!(line, "--app tasks needs --broker: a Redis such as redis://host:6379/0");
        let broker = ("REVOLVE_BROKER", "redis://me:hunter2@host");
        let line = error(&["--app=Tasks"], &[broker]);
        assert_eq!(line, "--app tasks needs --task-names: the tasks that clients may have done");
        let names = "--task-names=w.add, w.fail";
        let set = settings(&["--app=tasks", names, "--task-queue=AUTO"], &[broker]);
        assert_eq!((set.app, set.tasks.queue), (App::Tasks, None));
        assert_eq!(set.tasks.names, ["w.add", "w.fail"]);
        let line = error(&["--broker=redis://:hunter2@h:x"], &[]);
        assert!(line.starts_with("--broker: ") && !line.contains("hunter2"), "{line}");
        for value in ["0", "-1", "86401"] {
            let line = error(&[&format!("--task-timeout={value}")], &[]);
            assert!(line.ends_with("is not a time from 0.001 to 86400 seconds"), "{line}");
        }
    }

    #[test]
    fn certificates_and_keys_are_lists_and_go_together() {
        let given = ["--ssl-certfile=a.pem,b.pem", "--ssl-keyfile=a.key", "--ssl-keyfile=b.key"];
        let required = ["--ssl-ca-certs=ca.pem", "--ssl-cert-reqs=2"];
        let plain = ["--plain-port=8080", "--plain-fd=4,plain", "--admin=[::1]:9", "--ssl-admin"];
        let args = [&given[..], &required[..], &plain[..]].concat();
        if !cfg!(feature = "tls") {
            let why = "available in this build: it needs the cargo feature \"tls\"";
            return assert_eq!(
                error(&args, &[]),
                format!("--ssl-certfile: \"a.pem,b.pem\" is not {why}")
            );
        }
        let files = settings(&args, &[]).config.tls;
        assert_eq!(files.certfiles, ["a.pem", "b.pem"].map(PathBuf::from));
        assert_eq!(files.keyfiles, ["a.key", "b.key"].map(PathBuf::from));
        assert_eq!(files.ca_certs, Some("ca.pem".into()));
        assert_eq!(files.cert_reqs, ClientCertificates::Required);
        for row in OPTIONS.iter().filter(|row| row.group == "TLS") {
            let (_, wanted) = OTHER.iter().find(|(name, _)| *name == row.name).unwrap();
            assert_eq!(shown(row, &settings(&args, &[])), *wanted);
        }
        let line = error(&given[..2], &[]);
        assert_eq!(line, "--ssl-keyfile: \"a.key\" is not one path for each of --ssl-certfile");
        for list in ["", "a.pem,", ",a.pem"] {
            let line = error(&["--ssl-certfile", list], &[]);
            assert!(line.starts_with(&format!("--ssl-certfile: {list:?} is not a list")), "{line}");
        }
    }

    #[test]
    fn hosts_are_a_list_and_each_further_option_adds_to_it() {
        let hosts = |args: &[&str], env: &[(&str, &str)]| {
            settings(args, env).hosts.iter().map(Host::to_string).collect::<Vec<_>>()
        };
        let env = [("REVOLVE_HOST", "192.0.2.1, localhost")];
        assert!(hosts(&[], &[]).is_empty());
        assert_eq!(hosts(&[], &env), ["192.0.2.1", "localhost"]);
        // A flag wins over all of the environment.
        assert_eq!(
            hosts(&["--host", "::1", "--host=a.b,0.0.0.0"], &env),
            ["::1", "a.b", "0.0.0.0"]
        );
    }

    #[test]
    fn header_fields_stand_in_the_order_of_the_options() {
        let set = settings(&["--header", "X-A:1", "--header=X-B: 2", "--header", "X-A:3"], &[]);
        assert_eq!(set.config.response_fields.to_string(), "X-A: 1, X-B: 2, X-A: 3");
        let long = format!("--header=X-A:{}", "a".repeat(1500));
        assert_eq!(
            error(&[&long, &long], &[]),
            format!("--header: \"3014 bytes\" is not {FIELD_ALLOWED}")
        );
    }

    #[test]
    fn a_number_of_sessions_alone_is_for_a_minute() {
        for (text, shown) in [("100", "100/60"), ("100/60", "100/60"), ("1/86400", "1/86400")] {
            let set = settings(&["--limit-sessions-per-ip", text], &[]);
            let rate = set.config.limit_sessions_per_ip.expect("is set");
            assert_eq!(rate.to_string(), shown);
        }
        let about = find("--limit-sessions-per-ip").expect("known").1.about;
        let unsaid = format!("({} if not said)", SessionRate::WINDOW.as_secs());
        assert!(about.contains(&unsaid), "{about}");
    }

    #[test]
    fn compression_is_asked_for_with_a_word_or_without_one() {
        let name = "--ws-per-message-deflate";
        let off: [&[&str]; 3] =
            [&[], &[name, "false"], &["--ws-per-message-deflate=false", "--port=1"]];
        for args in off {
            assert!(!settings(args, &[]).config.ws_per_message_deflate, "{args:?}");
        }
        let on: [&[&str]; 4] =
            [&[name], &[name, "true"], &[name, "--port", "1"], &["--ws-per-message-deflate=true"]];
        for args in on {
            if cfg!(feature = "deflate") {
                assert!(settings(args, &[]).config.ws_per_message_deflate, "{args:?}");
            } else {
                let why = "available in this build: it needs the cargo feature \"deflate\"";
                assert_eq!(error(args, &[]), format!("{name}: \"true\" is not {why}"));
            }
        }
        assert_eq!(error(&[name, "maybe"], &[]), format!("{name}: \"maybe\" is not {TRUTH}"));
    }

    const ADMIN: &str = "an address with a port such as 127.0.0.1:9000, or unix: and a path such as \
                         unix:/run/admin.sock:600";
    const PASSED: &str = "a list of descriptors and their names such as 3,http";
    const HOSTS: &str = "a list of IP addresses and names such as 127.0.0.1,::1,localhost";
    const TRUTH: &str = "true, false, yes, no, on, off, 1 or 0";

    #[test]
    fn words_are_taken_in_any_case_and_truth_in_the_words_of_people() {
        for row in OPTIONS {
            let of: &[&str] = match row.takes {
                Takes::Word { of } => of,
                Takes::Truth | Takes::Nothing => &words(&TRUTHS),
                Takes::Value(..) | Takes::Values(..) => continue,
            };
            if row.name == "ws-per-message-deflate" && !cfg!(feature = "deflate") {
                continue;
            }
            // Refused without certificates.
            if ["ssl-cert-reqs", "ssl-admin"].contains(&row.name) {
                continue;
            }
            for word in of {
                // Refused without a broker.
                if (row.name, *word) == ("app", "tasks") {
                    continue;
                }
                let mut capital = word.to_uppercase();
                let plain = (row.show)(&settings(&[], &[(&row.variable(), word)]));
                for _ in 0..2 {
                    let by_variable = settings(&[], &[(&row.variable(), &capital)]);
                    assert_eq!((row.show)(&by_variable), plain, "{}={capital}", row.variable());
                    if !matches!(row.takes, Takes::Nothing) {
                        let by_flag = settings(&[&format!("--{}={capital}", row.name)], &[]);
                        assert_eq!((row.show)(&by_flag), plain, "--{}={capital}", row.name);
                    }
                    capital[1..].make_ascii_lowercase();
                }
            }
        }
        for (word, is_on) in TRUTHS {
            let set = settings(&[], &[("REVOLVE_PAGE", word), ("REVOLVE_ACCESS_LOG", word)]);
            assert_eq!((set.config.page, set.config.access_log), (is_on, is_on), "{word}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_the_last_flag_over_the_first() {
        let env = [("REVOLVE_PORT", "1"), ("REVOLVE_ACCESS_LOG", "false"), ("HOME", "/")];
        assert_eq!(settings(&[], &env).port, 1);
        assert_eq!(settings(&["--port", "2"], &env).port, 2);
        assert_eq!(settings(&["--port", "2", "--port=3"], &env).port, 3);
        assert!(!settings(&[], &env).config.access_log);
        assert!(settings(&["--access-log"], &env).config.access_log);
        assert!(!settings(&["--access-log", "--no-access-log"], &[]).config.access_log);
        // What is hidden is not looked at, so that a flag can mend it.
        assert_eq!(settings(&["--port", "2"], &[("REVOLVE_PORT", "x")]).port, 2);
    }

    #[test]
    fn zero_is_off_and_next_to_zero_is_not() {
        for name in ["--ws-ping-interval", "--ws-ping-timeout", "--heartbeat"] {
            for off in ["0", "0.0", "00", "0."] {
                let set = settings(&[name, off], &[]);
                let row = find(name).expect("known").1;
                assert_eq!((row.show)(&set), "0", "{name} {off}");
            }
            for bad in ["0.0000000001", "0.0005", "86401", "-1", "1e3", "inf", "NaN", ".", "", "1 "]
            {
                assert_eq!(
                    error(&[name, bad], &[]),
                    format!("{name}: {bad:?} is not 0 or a time from 0.001 to 86400 seconds")
                );
            }
        }
        assert_eq!(
            settings(&["--heartbeat", ".5"], &[]).heartbeat,
            Some(Duration::from_millis(500))
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_place_and_what_is_allowed() {
        let refused = [
            ("host", "300.1.1.1", HOSTS),
            ("host", "127.0.0.1:80", HOSTS),
            ("host", "not a host", HOSTS),
            ("host", "::1,", HOSTS),
            ("host", "-a", HOSTS),
            ("uds", "/run/s:999", UNIX_PATH_ALLOWED),
            ("forwarded-allow-ips", "10.0.0.1/8", PROXIES_ALLOWED),
            ("proxy-headers", "x-real-ip", "none, x-forwarded-for or forwarded"),
            ("admin", "9000", ADMIN),
            ("admin", "unix:", ADMIN),
            ("admin", "unix:/a:888", ADMIN),
            ("fd", "3,", PASSED),
            ("fd", "a:b", PASSED),
            ("fd", "99999999999", PASSED),
            ("port", "99999", "a number from 0 to 65535"),
            ("port", "-1", "a number from 0 to 65535"),
            ("port", "+1", "a number from 0 to 65535"),
            ("workers", "0", "a number from 1 to 1024"),
            ("workers", "1025", "a number from 1 to 1024"),
            ("backlog", "0", "a number from 1 to 65535"),
            ("ws-max-size", "99999999999999999999", "a size from 1 to 1073741824 bytes"),
            ("max-send-buffer", "007", "a size from 1024 to 1073741824 bytes"),
            ("max-sessions", "many", "a number from 1 to 2147483647"),
            ("limit-concurrency", "none", "a number of at least 1"),
            ("limit-per-ip", "0", "a number of at least 1"),
            ("limit-sessions-per-ip", "0", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "0/60", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "4294967296", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "100/0", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "100/0.5", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "100/86401", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "100/", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "/60", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "100/60/1", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("limit-sessions-per-ip", "100 / 60", bounds::LIMIT_SESSIONS_PER_IP.allowed),
            ("allowed-origins", "*", ORIGINS_ALLOWED),
            ("allowed-origins", "https://a,", ORIGINS_ALLOWED),
            ("allowed-origins", "https://a/index.html", ORIGINS_ALLOWED),
            ("session-ttl", "31536001", "a time from 0 to 31536000 seconds"),
            ("store", "/var/lib/revolve", STORE_ALLOWED),
            ("store", "file:", STORE_ALLOWED),
            ("header", "X-Robots-Tag", FIELD_ALLOWED),
            ("header", ":noindex", FIELD_ALLOWED),
            ("header", "X:a\r\nSet-Cookie: b", FIELD_ALLOWED),
            ("header", "Content-Length:0", FIELD_ALLOWED),
            ("store-sync", "0", bounds::STORE_SYNC.allowed),
            ("store-sync", "never", bounds::STORE_SYNC.allowed),
            ("store-timeout", "0.5", "a time from 1 to 86400 seconds"),
            ("store-prefix", "a b", STORE_PREFIX_ALLOWED),
            ("store-replicas", "17", bounds::STORE_REPLICAS.allowed),
            ("node", "a/b", NODE_ALLOWED),
            ("offload-threads", "0", "a number from 1 to 1024"),
            ("slow-turn-ms", "3600001", "0 or a number of milliseconds from 1 to 3600000"),
            ("session-ids", "some", "any or issued"),
            ("app", "echoes", "counter, echo or tasks"),
            ("ws-subprotocols", "chat,any", SUBPROTOCOLS_ALLOWED),
            ("ws-subprotocols", "a b", SUBPROTOCOLS_ALLOWED),
            ("timeout-keep-alive", "0", "a time from 0.001 to 86400 seconds"),
            ("log-level", "warn", "critical, error, warning, info, debug or trace"),
            ("log-format", "x\u{1b}\ny", "text or json"),
        ];
        for (name, value, allowed) in refused {
            let end = format!("{value:?} is not {allowed}");
            assert_eq!(error(&[&format!("--{name}"), value], &[]), format!("--{name}: {end}"));
            let variable = find(&format!("--{name}")).expect("known").1.variable();
            assert_eq!(error(&[], &[(&variable, value)]), format!("{variable}: {end}"));
        }
        assert_eq!(
            error(&[], &[("REVOLVE_ACCESS_LOG", "2")]),
            format!("REVOLVE_ACCESS_LOG: \"2\" is not {TRUTH}")
        );
        assert_eq!(error(&["--port="], &[]), "--port: \"\" is not a number from 0 to 65535");
    }

    #[test]
    fn the_address_of_a_redis_is_not_repeated_and_has_a_time_of_its_own() {
        for text in ["redis://:hunter2@host:x", "redis:hunter2@host", "rediss://:hunter2@host"] {
            let line = error(&["--store", text], &[]);
            assert!(line.starts_with("--store: ") && !line.contains("hunter2"), "{line}");
            let line = error(&[], &[("REVOLVE_STORE", text)]);
            assert!(line.starts_with("REVOLVE_STORE: ") && !line.contains("hunter2"), "{line}");
        }
        let timeout = |args: &[&str]| settings(args, &[]).config.store_timeout.as_secs_f64();
        assert_eq!(timeout(&[]), 30.0);
        assert_eq!(timeout(&["--store", "redis://host"]), 2.0);
        assert_eq!(timeout(&["--store", "redis://host", "--store-timeout", "5"]), 5.0);
        let short = error(&["--store", "redis://host", "--session-ttl", "9"], &[]);
        assert!(short.starts_with("--session-ttl: \"9\" is not at least 10 seconds"), "{short}");
    }

    #[test]
    fn the_bounds_named_here_are_those_of_the_config() {
        let defaults = Config::default;
        let day = Duration::from_secs(86_401);
        let many = std::num::NonZeroUsize::MAX;
        for config in [
            Config { ws_path: String::new(), ..defaults() },
            Config { workers: many, ..defaults() },
            Config { backlog: 0, ..defaults() },
            Config { ws_max_size: 0, ..defaults() },
            Config { max_send_buffer: 0, ..defaults() },
            Config { max_sessions: 0, ..defaults() },
            Config { ws_ping_interval: Some(day), ..defaults() },
            Config { ws_ping_timeout: Some(day), ..defaults() },
            Config { allowed_origins: AllowedOrigins::Only(Vec::new()), ..defaults() },
            Config { offload_threads: many, ..defaults() },
            Config { slow_turn: Some(day), ..defaults() },
            Config { session_ttl: 366 * day, ..defaults() },
            Config { store: StoreLocation::File(PathBuf::new()), ..defaults() },
            Config { store_sync: StoreSync::Every(day), ..defaults() },
            Config { store_timeout: day, ..defaults() },
            Config { store_prefix: " ".to_owned(), ..defaults() },
            Config { store_replicas: 17, ..defaults() },
            Config { node: Some(String::new()), ..defaults() },
            Config {
                limit_sessions_per_ip: Some(SessionRate {
                    sessions: std::num::NonZeroU32::MIN,
                    window: day,
                }),
                ..defaults()
            },
            Config { timeout_handshake: day, ..defaults() },
            Config { timeout_keep_alive: day, ..defaults() },
            Config { ws_subprotocols: Subprotocols::Listed(Vec::new()), ..defaults() },
            Config { timeout_graceful_shutdown: day, ..defaults() },
            Config { drain_over: Config::default().timeout_graceful_shutdown, ..defaults() },
        ] {
            let error = config.validate().expect_err("out of bounds");
            let (_, row, _) = find(&format!("--{}", error.option)).expect("an option of ours");
            assert_eq!(row.allowed(), error.allowed, "{}", row.name);
        }
    }

    #[test]
    fn unknown_options_and_variables_name_the_nearest() {
        for (typed, line) in [
            ("--prot", "unknown option --prot (did you mean --port?); see --help"),
            (
                "--ws_max_size",
                "unknown option --ws_max_size (did you mean --ws-max-size?); see --help",
            ),
            (
                "--no-acces-log",
                "unknown option --no-acces-log (did you mean --no-access-log?); see --help",
            ),
            (
                "--concurrency",
                "unknown option --concurrency (did you mean --limit-concurrency?); see --help",
            ),
            ("--halp", "unknown option --halp (did you mean --help?); see --help"),
            ("--daemonize", "unknown option --daemonize; see --help"),
            ("--x\u{1b}[2J", "unknown option --x\\u{1b}[2J; see --help"),
            ("-p", "unknown option -p; see --help"),
        ] {
            assert_eq!(error(&[typed], &[]), line);
        }
        assert_eq!(
            error(&[], &[("REVOLVE_PROT", "1")]),
            "unknown environment variable REVOLVE_PROT (did you mean REVOLVE_PORT?); see --help"
        );
        assert_eq!(
            error(&[], &[("REVOLVE_COLOUR_SCHEME", "1")]),
            "unknown environment variable REVOLVE_COLOUR_SCHEME; see --help"
        );
    }

    #[test]
    fn values_that_are_missing_needless_or_alone() {
        assert_eq!(
            error(&["--port"], &[]),
            "--port: the value is missing; it must be a number from 0 to 65535"
        );
        for (args, end) in [
            (&["--completions"][..], "the value is missing; it must be bash, zsh or fish"),
            (&["--completions", "tcsh"], "\"tcsh\" is not bash, zsh or fish"),
        ] {
            assert_eq!(error(args, &[]), format!("--completions: {end}"));
        }
        assert_eq!(
            error(&["--access-log=no"], &[]),
            "--access-log: \"no\" is not allowed: it takes none"
        );
        let alone = "unexpected argument \"serve\"; only options are allowed, see --help";
        assert_eq!(error(&["serve"], &[]), alone);
        assert_eq!(error(&["--port", "1", "--", "serve"], &[]), alone);
    }

    #[test]
    fn what_is_not_unicode_is_shown_escaped() {
        let bytes = || OsString::from_vec(b"\xff\x1b".to_vec());
        let none = || std::iter::empty();
        let line = |result: Result<Command, UsageError>| result.expect_err("refused").to_string();
        assert_eq!(
            line(parse([OsString::from("--app"), bytes()].into_iter(), none())),
            r#"--app: "\xFF\u{1b}" is not counter, echo or tasks"#
        );
        let env = [(OsString::from("REVOLVE_APP"), bytes())];
        assert_eq!(
            line(parse(std::iter::empty(), env.into_iter())),
            r#"REVOLVE_APP: "\xFF\u{1b}" is not counter, echo or tasks"#
        );
        assert_eq!(
            line(parse([bytes()].into_iter(), none())),
            r#"unexpected argument "\xFF\u{1b}"; only options are allowed, see --help"#
        );
        let name = OsString::from_vec(b"REVOLVE_\xff".to_vec());
        assert_eq!(
            line(parse(std::iter::empty(), [(name, bytes())].into_iter())),
            "unknown environment variable REVOLVE_\u{fffd}; see --help"
        );
        let name = OsString::from_vec(b"--\xff".to_vec());
        assert_eq!(
            line(parse([name].into_iter(), none())),
            "unknown option --\u{fffd}; see --help"
        );
    }

    #[test]
    fn variables_of_neighbours_and_empty_ones_are_not_ours() {
        let links = [
            ("REVOLVE_PORT", "tcp://10.0.0.1:8000"),
            ("REVOLVE_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("REVOLVE_SERVICE_HOST", "10.0.0.1"),
            ("REVOLVE_SERVICE_PORT_HTTP", "8000"),
            ("REVOLVE_HOST", ""),
            ("REVOLVER", "x"),
        ];
        assert_eq!(settings(&[], &links).config.listen, Config::default().listen);
        for row in OPTIONS {
            assert!(!is_service_link(&row.variable(), OsStr::new("1")), "{}", row.name);
        }
    }

    #[test]
    fn help_shows_every_option_with_its_default_in_few_columns() {
        let Ok(Command::Print(help)) = parsed(&["-h"], &[("REVOLVE_PORT", "x")]) else {
            panic!("no help");
        };
        let defaults = Settings::default();
        for row in OPTIONS {
            assert!(help.contains(&row.usage()), "{}", row.name);
            // A default may stand behind the fold of its line.
            let folded: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(folded.contains(&format!("[{}]", (row.show)(&defaults))), "{}", row.name);
        }
        for row in OPTIONS {
            assert_eq!(help.matches(&format!("\n\n{}\n", row.group)).count(), 1);
        }
        assert!(help.lines().all(|line| line.len() <= WIDTH), "{help}");
    }

    #[test]
    fn help_and_version_need_nothing_else_to_be_right() {
        let printed = |args: &[&str]| match parsed(args, &[("REVOLVE_X", "x")]) {
            Ok(Command::Print(text)) => text,
            other => panic!("{args:?}: {other:?}"),
        };
        assert_eq!(printed(&["--help"]), help());
        assert_eq!(printed(&["-h"]), help());
        assert_eq!(printed(&["--port", "x", "-V"]), version());
        assert_eq!(printed(&["--port", "x", "--man"]), manual::page());
        for (name, shell) in SHELLS {
            assert_eq!(printed(&["--completions", name]), completions::script(shell));
        }
        assert_eq!(printed(&["--version", "--prot"]), version());
    }

    #[test]
    fn the_version_is_one_line_with_commit_and_features() {
        let number = env!("CARGO_PKG_VERSION");
        for (commit, features, expected) in [
            (Some("0123456789ab"), &["daemon"][..], "commit 0123456789ab; features: daemon"),
            (
                Some("0123456789ab, changed"),
                &["daemon"],
                "commit 0123456789ab, changed; features: daemon",
            ),
            (None, &["daemon", "deflate"], "no commit known; features: daemon, deflate"),
        ] {
            let line = usage::version_of(commit, features);
            assert_eq!(line, format!("revolve {number} ({expected})\n"));
        }
        assert_eq!(version().contains("deflate"), cfg!(feature = "deflate"));
    }
}

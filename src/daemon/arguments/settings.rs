//! What the options set, and the words that stand for some of it.
//!
//! Values alone: which option sets which of them, the table of options says. Called by the table, and by
//! `main.rs` and its parts for what they are to do.
//!
//! Next: `row`: what an option is.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use revolve::TaskWorkers;
use revolve::config::{ClientCertificates, Config, PageFor, ProxyHeaders, SessionIds, UnixPath};

use super::values::{Host, Passing};
use crate::daemon::logger::Format;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Valid: [`Config::validate`] has passed it. Where it listens, `daemon/listening.rs` puts in.
    pub(crate) config: Config,
    /// Empty is 127.0.0.1.
    pub(crate) hosts: Vec<Host>,
    pub(crate) port: u16,
    /// Instead of hosts and port.
    pub(crate) uds: Option<UnixPath>,
    /// Instead of all three.
    pub(crate) passed: Vec<Passing>,
    /// Of the same hosts, without TLS.
    pub(crate) plain_port: Option<u16>,
    /// Without TLS, beside those.
    pub(crate) passed_plain: Vec<Passing>,
    /// `None` until all options are known: then what is right for the store.
    pub(crate) store_timeout: Option<Duration>,
    pub(crate) app: App,
    /// Of the application that hands tasks to workers.
    pub(crate) tasks: TaskSettings,
    /// Of the counter; `None` is off.
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) log_level: LevelFilter,
    pub(crate) log_format: Format,
    /// Instead of stderr.
    pub(crate) log_file: Option<PathBuf>,
    /// Where more options were read from.
    pub(crate) config_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            config: Config::default(),
            hosts: Vec::new(),
            port: 8000,
            uds: None,
            passed: Vec::new(),
            plain_port: None,
            passed_plain: Vec::new(),
            store_timeout: None,
            app: App::Counter,
            tasks: TaskSettings::default(),
            heartbeat: Some(Duration::from_secs(30)),
            log_level: LevelFilter::Info,
            log_format: Format::Text,
            log_file: None,
            config_file: None,
        }
    }
}

/// What clients may have done, and by whom.
#[derive(Debug, Clone)]
pub(crate) struct TaskSettings {
    pub(crate) names: Vec<String>,
    pub(crate) workers: TaskWorkers,
    /// `None` is the one that the workers have if nothing is said.
    pub(crate) queue: Option<String>,
    pub(crate) timeout: Duration,
}

impl Default for TaskSettings {
    fn default() -> Self {
        TaskSettings {
            names: Vec::new(),
            workers: TaskWorkers::Celery,
            queue: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Which application answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum App {
    Counter,
    Echo,
    Tasks,
}

pub(super) const APPS: [(&str, App); 3] =
    [("counter", App::Counter), ("echo", App::Echo), ("tasks", App::Tasks)];
pub(super) const WORKERS: [(&str, TaskWorkers); 2] =
    [("celery", TaskWorkers::Celery), ("rq", TaskWorkers::Rq)];
pub(super) const SESSION_IDS: [(&str, SessionIds); 2] =
    [("any", SessionIds::Any), ("issued", SessionIds::Issued)];
pub(super) const PAGE_FOR: [(&str, PageFor); 2] =
    [("loopback", PageFor::Loopback), ("any", PageFor::Any)];
pub(super) const PROXY_HEADERS: [(&str, ProxyHeaders); 3] = [
    ("none", ProxyHeaders::Off),
    ("x-forwarded-for", ProxyHeaders::XForwardedFor),
    ("forwarded", ProxyHeaders::Forwarded),
];
pub(super) const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];
/// Uvicorn's names. `log` has no level above error, so `critical` is a second name for it.
pub(super) const LEVELS: [(&str, LevelFilter); 6] = [
    ("critical", LevelFilter::Error),
    ("error", LevelFilter::Error),
    ("warning", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];
/// Python's `ssl.VerifyMode`, as numbers: Uvicorn's option takes these.
pub(super) const CERT_REQS: [(&str, ClientCertificates); 3] = [
    ("0", ClientCertificates::None),
    ("1", ClientCertificates::Optional),
    ("2", ClientCertificates::Required),
];

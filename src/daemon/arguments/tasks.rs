//! The rows of tasks in the table of options: the broker, and what clients may have done.
//!
//! Values alone. Called by `options`, which has them in its table.
//!
//! Next: `proxies`: those of proxies.

use revolve::ServerAddress;
use revolve::config::bounds;

use super::row::{Live, NotAllowed, Row, Takes};
use super::settings;
use super::values::{auto_or_name, meant, names, seconds, time, word_for, words};

pub(super) const BROKER: Row = Row {
    group: "Tasks",
    name: "broker",
    takes: Takes::Value("ADDRESS", "a Redis such as redis://host:6379/0"),
    about: "The Redis from which workers of Celery or RQ take tasks",
    live: Live::No,
    set: |s, text| {
        s.config.broker = Some(ServerAddress::parse(text).map_err(|_| NotAllowed)?);
        Ok(())
    },
    show: |s| s.config.broker.as_ref().map_or("none".to_owned(), ServerAddress::to_string),
};

pub(super) const BROKER_TIMEOUT: Row = Row {
    group: "Tasks",
    name: "broker-timeout",
    takes: Takes::Value("SECS", bounds::BROKER_TIMEOUT.allowed),
    about: "Time a task waits for it to be there; then it is not sent",
    live: Live::No,
    set: |s, text| {
        s.config.broker_timeout = time(text).ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| seconds(s.config.broker_timeout),
};

pub(super) const NAMES: Row = Row {
    group: "Tasks",
    name: "task-names",
    takes: Takes::Values("LIST", "a list of names such as app.tasks.add,app.tasks.mail"),
    about: "The tasks that clients of --app tasks may have done; also given several times",
    live: Live::No,
    set: |s, text| {
        s.tasks.names.extend(names(text).ok_or(NotAllowed)?);
        Ok(())
    },
    show: |s| match &s.tasks.names[..] {
        [] => "none".to_owned(),
        names => names.join(","),
    },
};

pub(super) const WORKERS: Row = Row {
    group: "Tasks",
    name: "task-workers",
    takes: Takes::Word { of: &words(&settings::WORKERS) },
    about: "Whose workers do them; RQ's need its JSON serializer",
    live: Live::No,
    set: |s, text| {
        s.tasks.workers = meant(&settings::WORKERS, text).ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| word_for(&settings::WORKERS, s.tasks.workers),
};

pub(super) const QUEUE: Row = Row {
    group: "Tasks",
    name: "task-queue",
    takes: Takes::Value("auto|NAME", "auto or a name of 1 to 255 bytes"),
    about: "Their queue; auto is celery, or default with RQ",
    live: Live::No,
    set: |s, text| {
        s.tasks.queue = auto_or_name(text).ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| s.tasks.queue.clone().unwrap_or("auto".to_owned()),
};

pub(super) const TIMEOUT: Row = Row {
    group: "Tasks",
    name: "task-timeout",
    takes: Takes::Value("SECS", bounds::BROKER_TIMEOUT.allowed),
    about: "Time in which a task has to have a result",
    live: Live::No,
    set: |s, text| {
        s.tasks.timeout = time(text)
            .filter(|time| bounds::BROKER_TIMEOUT.range.contains(time))
            .ok_or(NotAllowed)?;
        Ok(())
    },
    show: |s| seconds(s.tasks.timeout),
};

//! What a worker is to do: the name of a task, its arguments, and when it is of no use any more.
//!
//! Values only. A [`CeleryTask`] or an [`RqTask`] becomes a [`Task`] by its timeout, and only a `Task` can be handed to
//! [`crate::Context::enqueue`]: so none is sent that nobody would ever stop waiting for. Arguments are JSON, as text.
//! They are checked when the task is enqueued, because a worker that cannot read them drops the message, and says
//! nothing to us. Made by applications.
//!
//! Invariant: what has passed [`Task::check`] is a message that a worker can read.
//!
//! Next: `outcome`: what has become of it.

use std::fmt;
use std::time::Duration;

use crate::json::{JsonError, Kind, Value};

/// Bytes of the name of a task or a queue at most. Redis takes any; a name is in each message, and in each key.
const NAME_MOST: usize = 255;

/// The longest timeout: a day. Until then the task takes one of the slots of its reactor.
pub const TIMEOUT_MOST: Duration = Duration::from_secs(86_400);

/// What both kinds have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: String,
    pub(crate) kwargs: String,
    pub(crate) queue: String,
    pub(crate) expires: Option<Duration>,
}

impl Call {
    fn new(name: String, queue: &str) -> Call {
        let (args, kwargs) = ("[]".to_owned(), "{}".to_owned());
        Call { name, args, kwargs, queue: queue.to_owned(), expires: None }
    }
}

/// What Celery's messages have besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CeleryOptions {
    /// `None`: the queue's name.
    pub(crate) routing_key: Option<String>,
    pub(crate) priority: u8,
    pub(crate) countdown: Duration,
    pub(crate) soft_time_limit: Option<Duration>,
    pub(crate) time_limit: Option<Duration>,
}

/// Whose message it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protocol {
    Celery(CeleryOptions),
    Rq,
}

/// A task for a worker of Celery or RQ, as [`crate::Context::enqueue`] takes it.
///
/// ```
/// use std::time::Duration;
/// use revolve::Task;
///
/// let task = Task::celery("app.tasks.add").args_json("[2, 3]").timeout(Duration::from_secs(5));
/// assert_eq!(task.name(), "app.tasks.add");
/// let task = Task::rq("app.tasks.add").args_json("[2, 3]").timeout(Duration::from_secs(5));
/// assert_eq!(task.queue(), "default");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub(crate) protocol: Protocol,
    pub(crate) call: Call,
    pub(crate) timeout: Duration,
    pub(crate) outlives: bool,
}

impl Task {
    /// A task of Celery, by the name under which the workers know it: `app.tasks.add`.
    pub fn celery(name: impl Into<String>) -> CeleryTask {
        CeleryTask { call: Call::new(name.into(), "celery"), options: CeleryOptions::default() }
    }

    /// A job of RQ: the function that a worker imports, `app.tasks.add`. The workers must run with `--serializer json`.
    pub fn rq(function: impl Into<String>) -> RqTask {
        RqTask { call: Call::new(function.into(), "default") }
    }

    /// A worker does it even if the connection that has asked closes before. By default a task of which nobody waits
    /// for the result is taken back, if no worker has begun it. What is enqueued in
    /// [`crate::Application::on_close`] is sent only if it outlives its connection. If the broker cannot be had in
    /// time, a line in the log says so, since nobody else would hear of it.
    #[must_use]
    pub fn outlives_connection(self) -> Task {
        Task { outlives: true, ..self }
    }

    /// The name of the task, or of the function.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.call.name
    }

    /// The queue into which it goes.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.call.queue
    }

    /// The positional arguments: a JSON array.
    #[must_use]
    pub fn args(&self) -> &str {
        &self.call.args
    }

    /// The keyword arguments: a JSON object.
    #[must_use]
    pub fn kwargs(&self) -> &str {
        &self.call.kwargs
    }

    /// For how long the result is waited for.
    #[must_use]
    pub fn time_to_answer(&self) -> Duration {
        self.timeout
    }

    /// From when on no worker begins it any more.
    pub(crate) fn expires(&self) -> Duration {
        self.call.expires.unwrap_or(self.timeout)
    }

    /// Whether a worker could read it, and it is no larger than so many bytes.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub(crate) fn check(&self, bytes_most: usize) -> Result<(), InvalidTask> {
        let Call { name, args, kwargs, queue, expires } = &self.call;
        if !is_name(name) {
            return Err(InvalidTask::Name);
        }
        if !is_name(queue) {
            return Err(InvalidTask::Queue);
        }
        let bytes = args.len() + kwargs.len();
        if bytes > bytes_most {
            return Err(InvalidTask::TooLarge { bytes, most: bytes_most });
        }
        match Value::parse(args) {
            Ok(args) if args.kind() == Kind::Array => {}
            Ok(_) => return Err(InvalidTask::NoArray),
            Err(error) => return Err(InvalidTask::Arguments(error)),
        }
        match Value::parse(kwargs) {
            Ok(kwargs) if kwargs.kind() == Kind::Object => {}
            Ok(_) => return Err(InvalidTask::NoObject),
            Err(error) => return Err(InvalidTask::KeywordArguments(error)),
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MOST {
            return Err(InvalidTask::Timeout(self.timeout));
        }
        if expires.is_some_and(|expires| expires.is_zero() || expires > TIMEOUT_MOST) {
            return Err(InvalidTask::Expires);
        }
        match &self.protocol {
            Protocol::Celery(CeleryOptions { routing_key: Some(key), .. }) if !is_name(key) => {
                Err(InvalidTask::RoutingKey)
            }
            Protocol::Celery(options) if options.priority > 9 => {
                Err(InvalidTask::Priority(options.priority))
            }
            Protocol::Celery(options) if options.countdown >= self.expires() => {
                Err(InvalidTask::Countdown)
            }
            Protocol::Celery(_) | Protocol::Rq => Ok(()),
        }
    }
}

/// A name as it stands in keys and messages: no control characters, of which kombu makes separators.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MOST && !name.contains(char::is_control)
}

/// A task of Celery without a timeout: [`Task::celery`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it becomes a task by its timeout"]
pub struct CeleryTask {
    call: Call,
    options: CeleryOptions,
}

impl CeleryTask {
    /// The positional arguments: a JSON array. Default `[]`.
    pub fn args_json(mut self, args: impl Into<String>) -> Self {
        self.call.args = args.into();
        self
    }

    /// The keyword arguments: a JSON object. Default `{}`.
    pub fn kwargs_json(mut self, kwargs: impl Into<String>) -> Self {
        self.call.kwargs = kwargs.into();
        self
    }

    /// The queue. Default `celery`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.call.queue = queue.into();
        self
    }

    /// The routing key that the message tells the worker (`self.request.delivery_info`). Default: the queue's name. Redis
    /// routes nothing: the task goes into [`Self::queue`], whatever its key is.
    pub fn routing_key(mut self, key: impl Into<String>) -> Self {
        self.options.routing_key = Some(key.into());
        self
    }

    /// From 0 to 9, where Redis begins with the lowest; the workers tell 0, 3, 6 and 9 apart. Default 0.
    pub fn priority(mut self, priority: u8) -> Self {
        self.options.priority = priority;
        self
    }

    /// A worker that comes to it later than this does not begin it. Default: the timeout.
    pub fn expires(mut self, after: Duration) -> Self {
        self.call.expires = Some(after);
        self
    }

    /// No worker begins it earlier than this. Default: at once.
    pub fn countdown(mut self, after: Duration) -> Self {
        self.options.countdown = after;
        self
    }

    /// For how long it may run before `SoftTimeLimitExceeded` is raised in it. Default: the worker's own limit.
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.options.soft_time_limit = Some(limit);
        self
    }

    /// For how long it may run before its process is killed. Default: the worker's own limit.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = Some(limit);
        self
    }

    /// For how long its result is waited for: up to a day.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Task {
        let protocol = Protocol::Celery(self.options);
        Task { protocol, call: self.call, timeout, outlives: false }
    }
}

/// A job of RQ without a timeout: [`Task::rq`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it becomes a task by its timeout"]
pub struct RqTask {
    call: Call,
}

impl RqTask {
    /// The positional arguments: a JSON array. Default `[]`.
    pub fn args_json(mut self, args: impl Into<String>) -> Self {
        self.call.args = args.into();
        self
    }

    /// The keyword arguments: a JSON object. Default `{}`.
    pub fn kwargs_json(mut self, kwargs: impl Into<String>) -> Self {
        self.call.kwargs = kwargs.into();
        self
    }

    /// The queue. Default `default`.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.call.queue = queue.into();
        self
    }

    /// A worker that comes to it later than this does not begin it: RQ's `ttl`. Default: the timeout.
    pub fn expires(mut self, after: Duration) -> Self {
        self.call.expires = Some(after);
        self
    }

    /// For how long its result is waited for: up to a day. The worker ends a job that runs for longer: RQ's
    /// `job_timeout`.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Task {
        Task { protocol: Protocol::Rq, call: self.call, timeout, outlives: false }
    }
}

/// Why a task is none that a worker could do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidTask {
    /// Its name is none: 1 to 255 bytes, without control characters.
    Name,
    /// That of its queue is none.
    Queue,
    /// Its routing key is none.
    RoutingKey,
    /// The positional arguments are not JSON.
    Arguments(JsonError),
    /// They are JSON, and no array.
    NoArray,
    /// The keyword arguments are not JSON.
    KeywordArguments(JsonError),
    /// They are JSON, and no object.
    NoObject,
    /// The arguments are larger than they may be.
    TooLarge {
        /// So large they are together.
        bytes: usize,
        /// And so large they may be ([`crate::Limits::task_bytes`]).
        most: usize,
    },
    /// The timeout is not between 0 and a day.
    Timeout(Duration),
    /// It expires at once, or later than in a day.
    Expires,
    /// The priority is above 9.
    Priority(u8),
    /// It expires before the countdown ends.
    Countdown,
}

impl fmt::Display for InvalidTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidTask::Name => {
                f.write_str("a task's name has 1 to 255 bytes, no control characters")
            }
            InvalidTask::Queue => {
                f.write_str("a queue's name has 1 to 255 bytes, no control characters")
            }
            InvalidTask::RoutingKey => {
                f.write_str("a routing key has 1 to 255 bytes, no control characters")
            }
            InvalidTask::Arguments(error) => write!(f, "the arguments are {error}"),
            InvalidTask::NoArray => f.write_str("the arguments are not a JSON array"),
            InvalidTask::KeywordArguments(error) => write!(f, "the keyword arguments are {error}"),
            InvalidTask::NoObject => f.write_str("the keyword arguments are not a JSON object"),
            InvalidTask::TooLarge { bytes, most } => {
                write!(f, "the arguments have {bytes} bytes, and may have {most}")
            }
            InvalidTask::Timeout(timeout) => {
                write!(f, "the timeout is {timeout:?}, and must be above 0 and at most a day")
            }
            InvalidTask::Expires => {
                f.write_str("what it expires after must be above 0 and at most a day")
            }
            InvalidTask::Priority(priority) => {
                write!(f, "the priority is {priority}, and must be from 0 to 9")
            }
            InvalidTask::Countdown => f.write_str("it expires before its countdown ends"),
        }
    }
}

impl std::error::Error for InvalidTask {}

/// Why a task was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnqueueError {
    /// The server has no broker ([`crate::Config::broker`]).
    NoBroker,
    /// As many tasks are under way as the reactor may have ([`crate::Limits::tasks_per_reactor`]).
    Full {
        /// How many that are.
        most: usize,
    },
    /// It is none that a worker could do.
    Invalid(InvalidTask),
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnqueueError::NoBroker => {
                f.write_str("this server has no broker: set Config::broker, or --broker")
            }
            EnqueueError::Full { most } => {
                write!(f, "{most} tasks are under way already: try again later")
            }
            EnqueueError::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for EnqueueError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn add() -> CeleryTask {
        Task::celery("w.add").args_json("[2, 3]")
    }

    #[test]
    fn what_a_worker_could_not_read_is_refused_with_what_to_change() {
        use InvalidTask as Invalid;
        let not_json = |at| JsonError { at };
        for (task, expected) in [
            (Task::celery("").timeout(SECOND), Invalid::Name),
            (Task::celery("a\u{6}b").timeout(SECOND), Invalid::Name),
            (Task::rq("x".repeat(256)).timeout(SECOND), Invalid::Name),
            (add().queue("a\u{16}3").timeout(SECOND), Invalid::Queue),
            (add().routing_key("").timeout(SECOND), Invalid::RoutingKey),
            (add().args_json("[1,").timeout(SECOND), Invalid::Arguments(not_json(3))),
            (add().args_json("{}").timeout(SECOND), Invalid::NoArray),
            (add().kwargs_json("{a:1}").timeout(SECOND), Invalid::KeywordArguments(not_json(1))),
            (add().kwargs_json("[]").timeout(SECOND), Invalid::NoObject),
            (add().timeout(Duration::ZERO), Invalid::Timeout(Duration::ZERO)),
            (add().timeout(TIMEOUT_MOST + SECOND), Invalid::Timeout(TIMEOUT_MOST + SECOND)),
            (add().expires(Duration::ZERO).timeout(SECOND), Invalid::Expires),
            (add().priority(10).timeout(SECOND), Invalid::Priority(10)),
            (add().countdown(SECOND).timeout(SECOND), Invalid::Countdown),
            (
                add().args_json("[\"0123456789\"]").timeout(SECOND),
                Invalid::TooLarge { bytes: 16, most: 15 },
            ),
        ] {
            assert_eq!(task.check(15), Err(expected.clone()), "{task:?}");
            assert!(!expected.to_string().contains('\n'));
        }
        assert_eq!(add().timeout(SECOND).check(15), Ok(()));
        assert_eq!(Task::rq("jobs.add").timeout(TIMEOUT_MOST).check(15), Ok(()));
    }

    #[test]
    fn it_expires_with_its_timeout_unless_told_otherwise() {
        assert_eq!(add().timeout(SECOND).expires(), SECOND);
        assert_eq!(add().expires(2 * SECOND).timeout(SECOND).expires(), 2 * SECOND);
    }
}

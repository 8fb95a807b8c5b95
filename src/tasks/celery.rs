//! Celery's messages on Redis: a task, its revocation, and what a worker says of the result.
//!
//! Sans-IO: text in and out. The form is kombu's, of its transport on Redis, with protocol 2 of Celery's messages. All
//! headers and properties are there that Celery's own client writes: without `delivery_info` a worker drops its
//! connection, and the message with it. `tests/tasks` has what the real packages write. Called by `in_flight`.
//!
//! ```text
//!   <queue>                   a list, for priority 0; <queue>\x06\x163 and so on for the others
//!   celery-task-meta-<id>     the result: a key, and a channel on which the same is published
//!   /<db>.celery.pidbox       the channel of the workers' remote control
//! ```
//!
//! Invariant: a message is one line of JSON.
//!
//! Next: `inflate`: what RQ has deflated.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;

use super::outcome::{TaskId, TaskOutcome};
use super::task::{Call, CeleryOptions};
use crate::json::{JsonString, Kind, Value};

/// What the workers' logs show of arguments at most.
const SHOWN_MOST: usize = 1024;

/// What stands before the id in the key of a result.
const RESULT_PREFIX: &str = "celery-task-meta-";

/// What separates the name of a queue from its priority: kombu's.
const PRIORITY_SEPARATOR: &str = "\u{6}\u{16}";

/// Where the result of a task is stored, and published.
#[must_use]
pub fn result_key(id: TaskId) -> String {
    format!("{RESULT_PREFIX}{id}")
}

/// The task whose result is published on this channel.
#[must_use]
pub fn task_of(channel: &[u8]) -> Option<TaskId> {
    TaskId::parse(channel.strip_prefix(RESULT_PREFIX.as_bytes())?)
}

/// The list from which workers take it.
#[must_use]
pub(crate) fn queue_key(call: &Call, options: &CeleryOptions) -> String {
    // The steps that kombu tells apart.
    match options.priority / 3 * 3 {
        0 => call.queue.clone(),
        step => format!("{}{PRIORITY_SEPARATOR}{step}", call.queue),
    }
}

/// The channel on which workers hear that a task is revoked.
#[must_use]
pub fn control_channel(database: u32) -> String {
    format!("/{database}.celery.pidbox")
}

/// The message with a task. `tag` names it among all messages, and `reply_to` is this server.
#[must_use]
pub(crate) fn message(
    (call, options): (&Call, &CeleryOptions),
    (id, tag, reply_to): (TaskId, TaskId, TaskId),
    expires: Duration,
    now: SystemTime,
) -> String {
    let Call { name, args, kwargs, queue, .. } = call;
    let name = JsonString(name);
    let routing_key = JsonString(options.routing_key.as_ref().unwrap_or(queue));
    let body = format!(
        "[{args}, {kwargs}, {{\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}}]"
    );
    let eta = (!options.countdown.is_zero()).then(|| moment(now, options.countdown));
    let (eta, expires) = (or_null(eta), moment(now, expires));
    let (hard, soft) = (seconds(options.time_limit), seconds(options.soft_time_limit));
    let (args, kwargs) = (JsonString(shown(args)), JsonString(shown(kwargs)));
    let priority = options.priority;
    format!(
        "{{\"body\": \"{}\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", \
         \"headers\": {{\"lang\": \"py\", \"task\": {name}, \"id\": \"{id}\", \"shadow\": null, \"eta\": {eta}, \
         \"expires\": {expires}, \"group\": null, \"group_index\": null, \"retries\": 0, \
         \"timelimit\": [{hard}, {soft}], \"root_id\": \"{id}\", \"parent_id\": null, \"argsrepr\": {args}, \
         \"kwargsrepr\": {kwargs}, \"origin\": \"revolve\", \"ignore_result\": false, \
         \"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {{}}}}, \
         \"properties\": {{\"correlation_id\": \"{id}\", \"reply_to\": \"{reply_to}\", \"delivery_mode\": 2, \
         \"delivery_info\": {{\"exchange\": \"\", \"routing_key\": {routing_key}}}, \"priority\": {priority}, \
         \"body_encoding\": \"base64\", \"delivery_tag\": \"{tag}\"}}}}",
        BASE64.encode(body.as_bytes())
    )
}

/// The message by which workers are told not to begin a task.
#[must_use]
pub fn revocation(id: TaskId, tag: TaskId) -> String {
    let body = format!(
        "{{\"method\": \"revoke\", \"arguments\": {{\"task_id\": \"{id}\", \"terminate\": false, \"signal\": null}}, \
         \"destination\": null, \"pattern\": null, \"matcher\": null}}"
    );
    format!(
        "{{\"body\": \"{}\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", \
         \"headers\": {{\"clock\": 1, \"expires\": 0}}, \"properties\": {{\"delivery_mode\": 2, \
         \"delivery_info\": {{\"exchange\": \"celery.pidbox\", \"routing_key\": \"\"}}, \"priority\": 0, \
         \"body_encoding\": \"base64\", \"delivery_tag\": \"{tag}\"}}}}",
        BASE64.encode(body.as_bytes())
    )
}

/// What a worker says of a task; `None` while that is not over (it has begun, or is tried again).
#[must_use]
pub fn outcome(payload: &[u8]) -> Option<TaskOutcome> {
    let unreadable = |why: String| Some(TaskOutcome::Unreadable(why));
    let Ok(text) = std::str::from_utf8(payload) else { return unreadable("not UTF-8".to_owned()) };
    let meta = match Value::parse(text) {
        Ok(meta) => meta,
        Err(error) => return unreadable(error.to_string()),
    };
    let Some(status) = meta.member("status").and_then(Value::string) else {
        return unreadable("it has no status".to_owned());
    };
    let result = meta.member("result");
    match status.as_str() {
        "SUCCESS" => {
            let result = result.map_or("null", Value::text);
            Some(TaskOutcome::Success(result.to_owned()))
        }
        "FAILURE" => Some(failure(result, meta.member("traceback"))),
        "REVOKED" => Some(TaskOutcome::Revoked),
        _ => None,
    }
}

/// An exception: its class, and its arguments, of which there is one most of the time.
fn failure(result: Option<Value<'_>>, traceback: Option<Value<'_>>) -> TaskOutcome {
    let member = |name| result.and_then(|result| result.member(name));
    let kind = member("exc_type").and_then(Value::string);
    let message = match member("exc_message") {
        Some(said) if said.kind() == Kind::Array => {
            let mut message = String::new();
            for (number, argument) in said.elements().enumerate() {
                let separator = if number == 0 { "" } else { ", " };
                let argument = argument.string().unwrap_or_else(|| argument.text().to_owned());
                let _ = write!(message, "{separator}{argument}");
            }
            message
        }
        Some(said) => said.string().unwrap_or_else(|| said.text().to_owned()),
        // The last line of a traceback says what was raised.
        None => {
            let traceback = traceback.and_then(Value::string).unwrap_or_default();
            traceback.trim_end().lines().last().unwrap_or_default().to_owned()
        }
    };
    TaskOutcome::Failure { kind: kind.unwrap_or_else(|| "Exception".to_owned()), message }
}

/// A moment as Celery reads it, quoted: with an offset instead of a Z, which an older Python does not read.
fn moment(now: SystemTime, after: Duration) -> String {
    let text = humantime::format_rfc3339_micros(now + after).to_string();
    format!("\"{}+00:00\"", text.trim_end_matches('Z'))
}

fn or_null(text: Option<String>) -> String {
    text.unwrap_or_else(|| "null".to_owned())
}

fn seconds(limit: Option<Duration>) -> String {
    or_null(limit.map(|limit| limit.as_secs_f64().to_string()))
}

fn shown(arguments: &str) -> &str {
    &arguments[..arguments.floor_char_boundary(SHOWN_MOST)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tasks::Task;
    use crate::tasks::task::Protocol;

    /// What the real packages have written: `tests/tasks/record.py`.
    macro_rules! recorded {
        ($name:literal) => {
            [
                include_str!(concat!("../../tests/tasks/recorded/celery-5.7.0/", $name)),
                include_str!(concat!("../../tests/tasks/recorded/celery-5.5.3/", $name)),
            ]
        };
    }

    const ID: TaskId = TaskId::NONE;
    const NOW: Duration = Duration::from_micros(1_795_757_510_352_565);

    fn ours(task: &Task) -> (String, String) {
        let Protocol::Celery(options) = &task.protocol else { panic!("of Celery") };
        let now = SystemTime::UNIX_EPOCH + NOW;
        let message = message((&task.call, options), (ID, ID, ID), task.expires(), now);
        (queue_key(&task.call, options), message)
    }

    /// The members of a message by their place; a value that differs from message to message is its kind alone.
    fn shape(message: &str) -> BTreeMap<String, String> {
        fn add(place: &str, value: Value<'_>, shape: &mut BTreeMap<String, String>) {
            const DIFFERS: [&str; 14] = [
                ".body",
                ".id",
                ".root_id",
                ".eta",
                ".expires",
                ".argsrepr",
                ".kwargsrepr",
                ".origin",
                ".correlation_id",
                ".reply_to",
                ".delivery_tag",
                ".ignore_result",
                ".expiration",
                ".clock",
            ];
            let differs = DIFFERS.iter().any(|name| place.ends_with(name));
            if value.kind() == Kind::Object && value.members().count() > 0 {
                value
                    .members()
                    .for_each(|(name, value)| add(&format!("{place}.{name}"), value, shape));
            } else {
                let text = if differs { "differs" } else { value.text() };
                shape.insert(place.to_owned(), text.to_owned());
            }
        }
        let mut shape = BTreeMap::new();
        add("", Value::parse(message).unwrap(), &mut shape);
        // It is the broker's, which Redis does not know.
        shape.remove(".properties.expiration");
        shape
    }

    fn body(message: &str) -> String {
        let body = Value::parse(message).unwrap().member("body").unwrap().string().unwrap();
        String::from_utf8(BASE64.decode(body.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_message_has_what_celerys_own_client_writes() {
        for recorded in recorded!("message.txt") {
            let (queue, theirs) = recorded.trim_end().split_once('\n').unwrap();
            let task =
                Task::celery("w.add").args_json("[2, 3]").kwargs_json("{\"c\": \"\\u00fc\"}");
            let (key, message) = ours(&task.queue(queue).timeout(Duration::from_secs(30)));
            assert_eq!(key, queue);
            assert_eq!(shape(&message), shape(theirs));
            assert_eq!(body(&message), body(theirs));
        }
    }

    #[test]
    fn options_stand_where_celerys_own_client_writes_them() {
        for recorded in recorded!("message-options.txt") {
            let (queue, theirs) = recorded.trim_end().split_once('\n').unwrap();
            let task = Task::celery("w.add")
                .args_json("[2, 3]")
                .kwargs_json("{\"c\": \"\\u00fc\"}")
                .queue("options")
                .priority(7)
                .countdown(Duration::from_secs(5))
                .expires(Duration::from_secs(30))
                .time_limit(Duration::from_secs(9))
                .soft_time_limit(Duration::from_millis(4500))
                .timeout(Duration::from_secs(60));
            let (key, message) = ours(&task);
            assert_eq!(key, queue);
            assert_eq!(shape(&message), shape(theirs));
            let headers = Value::parse(&message).unwrap().member("headers").unwrap();
            let moment = |name| headers.member(name).unwrap().string().unwrap();
            assert_eq!(moment("eta"), "2026-11-27T05:31:55.352565+00:00");
            assert_eq!(moment("expires"), "2026-11-27T05:32:20.352565+00:00");
        }
    }

    #[test]
    fn a_routing_key_of_its_own_is_told_and_the_queue_stays() {
        let task = Task::celery("a").queue("low").routing_key("task.low").timeout(NOW);
        let (queue, message) = ours(&task);
        assert_eq!(queue, "low");
        let properties = Value::parse(&message).unwrap().member("properties").unwrap();
        let info = properties.member("delivery_info").unwrap();
        assert_eq!(info.member("routing_key").unwrap().string().unwrap(), "task.low");
    }

    #[test]
    fn the_queue_tells_apart_the_priorities_that_kombu_does() {
        let key = |priority| ours(&Task::celery("a").priority(priority).timeout(NOW)).0;
        let keys: Vec<_> = (0..=9).map(key).collect();
        let of = |step| format!("celery\u{6}\u{16}{step}");
        let plain = || "celery".to_owned();
        let (three, six, nine) = (of(3), of(6), of(9));
        let expected =
            [plain(), plain(), plain(), three.clone(), three.clone(), three, six.clone()];
        assert_eq!(keys[..7], expected);
        assert_eq!(keys[7..], [six.clone(), six, nine]);
    }

    #[test]
    fn a_revocation_has_what_celerys_own_client_writes() {
        for recorded in recorded!("revoke.txt") {
            let (channel, theirs) = recorded.trim_end().split_once('\n').unwrap();
            assert_eq!(control_channel(0), channel);
            let id = TaskId::from_random([0; 16]);
            let ours = revocation(id, id);
            assert_eq!(shape(&ours), shape(theirs));
            // An older client names the signal that is not sent.
            let theirs = body(theirs).replace("\"SIGTERM\"", "null");
            assert_eq!(body(&ours), theirs.replace("000000000001", "000000000000"));
        }
    }

    #[test]
    fn what_workers_have_answered_is_read() {
        let failure = |kind: &str, message: &str| TaskOutcome::Failure {
            kind: kind.to_owned(),
            message: message.to_owned(),
        };
        for (recorded, expected) in [
            (recorded!("success.txt"), TaskOutcome::Success("5".to_owned())),
            (recorded!("failure.txt"), failure("ValueError", "no ü \"x\"")),
            (recorded!("unknown.txt"), failure("NotRegistered", "w.unknown")),
            (recorded!("revoked.txt"), TaskOutcome::Revoked),
            (recorded!("nan.txt"), TaskOutcome::Unreadable("not JSON at byte 32".to_owned())),
        ] {
            for text in recorded {
                assert_eq!(outcome(text.as_bytes()), Some(expected.clone()), "{text}");
            }
        }
    }

    #[test]
    fn what_else_a_result_may_be_is_told_from_a_result() {
        let failure = |kind: &str, message: &str| {
            Some(TaskOutcome::Failure { kind: kind.to_owned(), message: message.to_owned() })
        };
        let unreadable = |why: &str| Some(TaskOutcome::Unreadable(why.to_owned()));
        for (text, expected) in [
            (r#"{"status": "STARTED", "result": {"pid": 1}}"#, None),
            (r#"{"status": "RETRY"}"#, None),
            (r#"{"status": "SUCCESS"}"#, Some(TaskOutcome::Success("null".to_owned()))),
            (
                r#"{"result": {"status": "FAILURE"}, "status": "SUCCESS"}"#,
                Some(TaskOutcome::Success(r#"{"status": "FAILURE"}"#.to_owned())),
            ),
            (
                r#"{"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_message": []}}"#,
                failure("KeyError", ""),
            ),
            (
                r#"{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": ["a", 2, null]}}"#,
                failure("E", "a, 2, null"),
            ),
            (
                r#"{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": "said"}}"#,
                failure("E", "said"),
            ),
            (
                r#"{"status": "FAILURE", "result": null, "traceback": "Trace\nE: no\n"}"#,
                failure("Exception", "E: no"),
            ),
            (r#"{"status": "FAILURE"}"#, failure("Exception", "")),
            (r#"{"status": 1}"#, unreadable("it has no status")),
            ("[]", unreadable("it has no status")),
            ("{", unreadable("not JSON at byte 1")),
        ] {
            assert_eq!(outcome(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(outcome(b"\xff"), unreadable("not UTF-8"));
    }

    #[test]
    fn a_channel_names_its_task() {
        let id = TaskId::from_random([7; 16]);
        assert_eq!(task_of(result_key(id).as_bytes()), Some(id));
        for channel in ["", "celery-task-meta-", "celery-task-meta-x", "other"] {
            assert_eq!(task_of(channel.as_bytes()), None);
        }
    }

    #[test]
    fn long_arguments_are_shown_in_part() {
        let long = format!("[\"{}\"]", "ü".repeat(2000));
        assert!(shown(&long).len() <= SHOWN_MOST && long.starts_with(shown(&long)));
    }
}

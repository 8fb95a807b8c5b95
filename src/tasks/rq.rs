//! RQ's commands: a job, taking it back, and what a worker says of the result.
//!
//! Sans-IO: commands are written into a pipeline, and replies are read. The workers must use RQ's JSON serializer: to
//! what is pickled no other language can say anything. RQ publishes nothing when a job is done, so its results are
//! asked for. `tests/tasks` has what the real package writes. Called by `in_flight`.
//!
//! ```text
//!   rq:queues           a set: the keys of all queues
//!   rq:queue:<queue>    a list of ids
//!   rq:job:<id>         a hash: what is to be done
//!   rq:results:<id>     a stream: how it has ended
//! ```
//!
//! Invariant: a job is written before its id is in a queue.
//!
//! Next: `metrics`: what is counted.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64;

use super::inflate::inflate;
use super::outcome::{TaskId, TaskOutcome};
use super::task::Call;
use crate::json::{JsonString, Value};
use crate::resp::{Pipeline, Reply};

/// For how long a worker keeps a result that nobody has fetched, beside the timeout: long enough for a Redis that was
/// away for a moment.
const KEPT: Duration = Duration::from_secs(60);

/// Bytes of a traceback at most.
const TRACEBACK_MOST: usize = 64 << 10;

/// The list of a queue's jobs.
#[must_use]
pub(crate) fn queue_key(call: &Call) -> String {
    format!("rq:queue:{}", call.queue)
}

/// The hash of a job.
#[must_use]
pub fn job_key(id: TaskId) -> String {
    format!("rq:job:{id}")
}

/// The stream of its results.
#[must_use]
pub fn results_key(id: TaskId) -> String {
    format!("rq:results:{id}")
}

/// How many commands put a job into its queue. The last one is answered with the replies to the others, of which the
/// last is the length of the queue.
pub const COMMANDS_A_JOB: usize = 6;

/// Appends the commands that put a job into its queue: all of them are done, or none is.
pub(crate) fn enqueue(
    call: &Call,
    id: TaskId,
    (expires, timeout): (Duration, Duration),
    now: SystemTime,
    pipeline: &mut Pipeline,
) {
    let (queue, job, ttl) = (queue_key(call), job_key(id), whole_seconds(expires));
    let data = format!("[{}, null, {}, {}]", JsonString(&call.name), call.args, call.kwargs);
    let now = humantime::format_rfc3339_micros(now).to_string();
    let description = format!("{}()", call.name);
    pipeline.push(["MULTI"]);
    pipeline.push(["SADD", "rq:queues", &queue]);
    pipeline.push_with(|command| {
        command.add("HSET");
        command.add(&job);
        for (field, value) in [
            ("created_at", now.as_str()),
            ("data", &data),
            ("success_callback_name", ""),
            ("failure_callback_name", ""),
            ("stopped_callback_name", ""),
            ("started_at", ""),
            ("ended_at", ""),
            ("last_heartbeat", ""),
            ("worker_name", ""),
            ("group_id", ""),
            ("origin", &call.queue),
            ("description", &description),
            ("enqueued_at", &now),
            ("status", "queued"),
        ] {
            command.add(field);
            command.add(value);
        }
        let kept = whole_seconds(timeout + KEPT);
        for (field, seconds) in [
            ("timeout", whole_seconds(timeout)),
            ("result_ttl", kept),
            ("failure_ttl", kept),
            ("ttl", ttl),
        ] {
            command.add(field);
            command.add_number(seconds);
        }
    });
    // A worker that comes to it later than this finds no job, and goes on to the next one.
    pipeline.push_with(|command| {
        command.add("EXPIRE");
        command.add(&job);
        command.add_number(ttl);
    });
    pipeline.push(["RPUSH", &queue, &id.to_string()]);
    pipeline.push(["EXEC"]);
}

/// Asks how the job has ended: its latest result, as RQ's own clients do.
pub fn read_result(id: TaskId, pipeline: &mut Pipeline) {
    pipeline.push(["XREVRANGE", &results_key(id), "+", "-", "COUNT", "1"]);
}

/// Takes the job out of its queue; the answer is 1 if no worker has taken it before.
pub(crate) fn take_back(call: &Call, id: TaskId, pipeline: &mut Pipeline) {
    pipeline.push(["LREM", &queue_key(call), "1", &id.to_string()]);
}

/// Forgets a job that was taken out of its queue.
pub fn forget(id: TaskId, pipeline: &mut Pipeline) {
    pipeline.push(["DEL", &job_key(id)]);
}

/// What the latest result says; `None` while there is none, or the job is to be tried again. A value of more than
/// `most` bytes is too large.
#[must_use]
pub fn outcome(reply: &Reply, most: usize) -> Option<TaskOutcome> {
    let entry = reply.array()?.first()?.array()?;
    let fields = entry.get(1)?.array()?;
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find(|pair| pair[0].bytes() == Some(name.as_bytes())).map(|pair| &pair[1])
    };
    match field("type")?.bytes()? {
        b"1" => Some(match field("return_value") {
            None => TaskOutcome::Success("null".to_owned()),
            Some(Reply::TooLong(bytes)) => TaskOutcome::TooLarge { bytes: bytes / 4 * 3 },
            Some(value) => returned(value.bytes().unwrap_or_default(), most),
        }),
        b"2" | b"5" => Some(failure(field("exc_string").and_then(Reply::bytes))),
        b"3" => Some(TaskOutcome::Revoked),
        _ => None,
    }
}

/// What the function has returned: base64 of JSON.
fn returned(base64: &[u8], most: usize) -> TaskOutcome {
    let json = BASE64.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(json) = json else {
        return TaskOutcome::Unreadable("not base64 of UTF-8".to_owned());
    };
    if json.len() > most {
        return TaskOutcome::TooLarge { bytes: json.len() };
    }
    match Value::parse(&json) {
        Ok(_) => TaskOutcome::Success(json),
        // A worker that pickles writes bytes that are no JSON.
        Err(error) => TaskOutcome::Unreadable(format!("{error} (--serializer json?)")),
    }
}

/// Behind the last place in a traceback stands what was raised, with its message, which may have several lines:
/// `ValueError: no`, or `rq.timeouts.JobTimeoutException: …`.
fn failure(exc_string: Option<&[u8]>) -> TaskOutcome {
    let traceback = exc_string
        .and_then(|base64| BASE64.decode(base64).ok())
        // What deflates to more than it is was not made by a worker, and costs time.
        .filter(|zlib| zlib.len() <= TRACEBACK_MOST)
        .and_then(|zlib| inflate(&zlib, TRACEBACK_MOST))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let line = raised(traceback.trim_end());
    let is_class = |text: &str| {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        !text.is_empty() && text.chars().all(is_part)
    };
    match line.split_once(": ") {
        Some((class, message)) if is_class(class) => {
            let kind = class.rsplit('.').next().unwrap_or(class).to_owned();
            TaskOutcome::Failure { kind, message: message.to_owned() }
        }
        None if is_class(line) => {
            let kind = line.rsplit('.').next().unwrap_or(line).to_owned();
            TaskOutcome::Failure { kind, message: String::new() }
        }
        _ => {
            let message = if line.is_empty() { "the worker says no more" } else { line };
            TaskOutcome::Failure { kind: "Exception".to_owned(), message: message.to_owned() }
        }
    }
}

/// What a traceback ends with, behind its frames: each has a line `  File "…"`, and lines of source that are indented.
fn raised(traceback: &str) -> &str {
    let behind = traceback.rfind("\n  File \"").map_or(0, |at| at + 1);
    let mut start = behind;
    for line in traceback[behind..].split_inclusive('\n') {
        if !line.starts_with([' ', '\n']) {
            break;
        }
        start += line.len();
    }
    &traceback[start..]
}

/// At least one: RQ counts whole seconds.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::resp::decoder::Decoder;
    use crate::tasks::Task;

    /// What the real packages have written: `tests/tasks/record.py`.
    macro_rules! recorded {
        ($name:literal) => {
            [
                include_str!(concat!("../../tests/tasks/recorded/rq-3.0.0/", $name)),
                include_str!(concat!("../../tests/tasks/recorded/rq-2.6.1/", $name)),
            ]
        };
    }

    const ID: TaskId = TaskId::NONE;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    /// The reply to `XREVRANGE` for an entry with these fields.
    fn entry(fields: Vec<Reply>) -> Reply {
        Reply::Array(vec![Reply::Array(vec![bulk("1-0"), Reply::Array(fields)])])
    }

    fn entry_of(recorded: &str) -> Reply {
        let fields = recorded.lines().flat_map(|line| {
            let (name, value) = line.split_once(' ').unwrap();
            [bulk(name), bulk(value)]
        });
        entry(fields.collect())
    }

    fn commands(pipeline: &Pipeline) -> Vec<Vec<String>> {
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(pipeline.as_bytes());
        let mut commands = Vec::new();
        while let Some(command) = decoder.next_reply().unwrap() {
            let parts = command.array().unwrap().iter();
            let text = |part: &Reply| String::from_utf8(part.bytes().unwrap().to_vec()).unwrap();
            commands.push(parts.map(text).collect());
        }
        commands
    }

    #[test]
    fn a_job_has_the_fields_that_rqs_own_client_writes() {
        let seconds = Duration::from_secs;
        let task = Task::rq("jobs.add").args_json("[2]").kwargs_json("{\"b\": 3}").queue("low");
        let task = task.timeout(Duration::from_millis(29_500));
        let mut pipeline = Pipeline::new();
        let times = (task.expires(), task.timeout);
        enqueue(&task.call, ID, times, SystemTime::UNIX_EPOCH + seconds(1), &mut pipeline);
        let commands = commands(&pipeline);
        assert_eq!(commands.len(), COMMANDS_A_JOB);
        assert_eq!(
            (&commands[0][..], &commands[5][..]),
            (&["MULTI".to_owned()][..], &["EXEC".to_owned()][..])
        );
        assert_eq!(commands[1], ["SADD", "rq:queues", "rq:queue:low"]);
        assert_eq!(commands[3], ["EXPIRE", &job_key(ID), "30"]);
        assert_eq!(commands[4], ["RPUSH", "rq:queue:low", &ID.to_string()], "at last");
        assert_eq!(commands[2][..2], ["HSET", &job_key(ID)]);
        let pairs: Vec<_> = commands[2][2..].chunks(2).collect();
        let fields: BTreeSet<&str> = pairs.iter().map(|pair| &*pair[0]).collect();
        assert_eq!(fields.len(), pairs.len(), "each once");
        for recorded in recorded!("job.txt") {
            assert_eq!(fields, recorded.lines().collect::<BTreeSet<_>>());
        }
        let field = |name: &str| pairs.iter().find(|pair| pair[0] == name).unwrap()[1].as_str();
        assert_eq!(field("data"), r#"["jobs.add", null, [2], {"b": 3}]"#);
        assert_eq!(field("created_at"), "1970-01-01T00:00:01.000000Z");
        assert_eq!((field("timeout"), field("ttl"), field("result_ttl")), ("30", "30", "90"));
    }

    #[test]
    fn what_workers_have_answered_is_read() {
        let failure = |kind: &str, message: &str| TaskOutcome::Failure {
            kind: kind.to_owned(),
            message: message.to_owned(),
        };
        let late = "Task exceeded maximum timeout value (1 seconds)";
        let unknown = "Invalid attribute name: unknown";
        for (recorded, expected) in [
            (recorded!("success.txt"), TaskOutcome::Success("5".to_owned())),
            (recorded!("none.txt"), TaskOutcome::Success("null".to_owned())),
            (recorded!("failure.txt"), failure("ValueError", "no ü \"x\"")),
            (recorded!("unknown.txt"), failure("ValueError", unknown)),
            (recorded!("timeout.txt"), failure("JobTimeoutException", late)),
        ] {
            for text in recorded {
                assert_eq!(outcome(&entry_of(text), 1 << 18), Some(expected.clone()), "{text}");
            }
        }
    }

    #[test]
    fn what_else_a_result_may_be_is_told_from_a_result() {
        let of = |kind: &str, more: Vec<Reply>| {
            outcome(&entry([vec![bulk("type"), bulk(kind)], more].concat()), 9)
        };
        let value =
            |value: &str| vec![bulk("return_value"), bulk(&BASE64.encode(value.as_bytes()))];
        assert_eq!(of("1", value("[1]")), Some(TaskOutcome::Success("[1]".to_owned())));
        assert!(matches!(of("1", value("\u{80}pickled")), Some(TaskOutcome::Unreadable(_))));
        let no_base64 = vec![bulk("return_value"), bulk("!")];
        assert!(matches!(of("1", no_base64), Some(TaskOutcome::Unreadable(_))));
        let long = vec![bulk("return_value"), Reply::TooLong(16)];
        assert_eq!(of("1", long), Some(TaskOutcome::TooLarge { bytes: 12 }));
        assert_eq!(of("1", value("123456789")), Some(TaskOutcome::Success("123456789".to_owned())));
        assert_eq!(of("1", value("1234567890")), Some(TaskOutcome::TooLarge { bytes: 10 }));
        for kind in ["2", "5"] {
            for more in [vec![], vec![bulk("exc_string"), Reply::TooLong(9)]] {
                let said = of(kind, more).unwrap().to_string();
                assert_eq!(said, "Exception: the worker says no more");
            }
        }
        assert_eq!(of("3", vec![]), Some(TaskOutcome::Revoked));
        assert_eq!(of("4", vec![]), None, "it is tried again");
        for reply in [Reply::Array(vec![]), Reply::Null, Reply::Integer(1), entry(vec![])] {
            assert_eq!(outcome(&reply, 9), None, "{reply:?}");
        }
    }

    #[test]
    fn what_stands_behind_the_frames_of_a_traceback_is_what_was_raised() {
        let said = |line: &str| {
            // Stored, not compressed: zlib's header, one last block, and no checksum.
            let length = (line.len() as u16).to_le_bytes();
            let complement = (!(line.len() as u16)).to_le_bytes();
            let zlib = [&[0x78, 1, 1][..], &length, &complement, line.as_bytes()].concat();
            failure(Some(BASE64.encode(&zlib).as_bytes())).to_string()
        };
        for (line, expected) in [
            (
                "Traceback (most recent call last):\n  File \"w.py\", line 1, in f\n    g()\n    ~^^\n  \
                 File \"w.py\", line 2, in g\n    raise MyError\na.b.MyError: x: y\n",
                "MyError: x: y",
            ),
            (
                "Traceback (most recent call last):\n  File \"w.py\", line 1, in f\n    g()\n\
                 p.ValidationError: 1 error\nx\n  a field is missing\n    For more visit https://a.test/\n",
                "ValidationError: 1 error\nx\n  a field is missing\n    For more visit https://a.test/",
            ),
            ("  File \"w.py\", line 1\n    x", "Exception: the worker says no more"),
            ("KeyError\n", "KeyError"),
            ("a.b.Quiet", "Quiet"),
            ("Job stopped by user.", "Exception: Job stopped by user."),
            ("no class: here", "Exception: no class: here"),
            ("", "Exception: the worker says no more"),
        ] {
            assert_eq!(said(line), expected);
        }
    }
}

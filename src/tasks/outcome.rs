//! What has become of a task, and under which id a worker has known it.
//!
//! Values only. Made by `in_flight`, and in tests by the kit; read by applications.
//!
//! Invariant: [`TaskOutcome::NotSent`] is said only of a task that no worker can ever do.
//!
//! Next: `order`: a task on its way from a reactor.

use std::fmt;

use data_encoding::HEXLOWER;

/// The id of a task: a UUID, as Celery and RQ make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId([u8; 16]);

impl TaskId {
    /// That of a task that has got none: the nil UUID.
    pub(crate) const NONE: TaskId = TaskId([0; 16]);

    /// The UUID (version 4) that these random bytes make.
    pub(crate) fn from_random(mut bytes: [u8; 16]) -> TaskId {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        TaskId(bytes)
    }

    /// The id that a text of 36 characters names.
    pub(crate) fn parse(text: &[u8]) -> Option<TaskId> {
        let digits: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'-').collect();
        let bytes = HEXLOWER.decode(&digits).ok()?;
        let id = TaskId(bytes.try_into().ok()?);
        (id.to_string().as_bytes() == text).then_some(id)
    }
}

/// 36 characters: `04c4a50e-aed0-4286-af6f-2c37060c53c6`.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = HEXLOWER.encode(&self.0);
        let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

/// What is known of a task that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskResult {
    /// Under which id the broker, the worker and their logs know it. All zeros for one that was refused at once.
    pub id: TaskId,
    /// What has become of it.
    pub outcome: TaskOutcome,
}

/// What has become of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskOutcome {
    /// The worker has done it: what it returned, as JSON.
    Success(String),
    /// The worker says that it has failed.
    Failure {
        /// The name of the exception's class: `ValueError`.
        kind: String,
        /// What the exception says.
        message: String,
    },
    /// It was revoked, by somebody else or because a worker came to it when it had expired.
    Revoked,
    /// There was no result in time. It was taken back, if no worker had begun it; one that has may go on.
    TimedOut,
    /// The worker has done it, and the result is larger than may be kept ([`crate::Limits::task_bytes`]).
    TooLarge {
        /// So large it is.
        bytes: usize,
    },
    /// The worker has done it, and what it says of the result cannot be read: it is not JSON, say.
    Unreadable(String),
    /// The broker could not be had, or has refused it: why. It was not sent, and no worker will ever do it.
    NotSent(String),
    /// The broker was lost while the task was being sent, and no result came in time: why. A worker may have done it,
    /// may yet do it, or may never hear of it. It was not sent a second time.
    MaybeSent(String),
}

/// The result, or what went wrong (`ValueError: no`). What an exception says may have several lines.
impl fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskOutcome::Success(json) => f.write_str(json),
            TaskOutcome::Failure { kind, message } if message.is_empty() => f.write_str(kind),
            TaskOutcome::Failure { kind, message } => write!(f, "{kind}: {message}"),
            TaskOutcome::Revoked => f.write_str("revoked"),
            TaskOutcome::TimedOut => f.write_str("no result in time"),
            TaskOutcome::TooLarge { bytes } => write!(f, "the result is too large: {bytes} bytes"),
            TaskOutcome::Unreadable(why) => write!(f, "the result cannot be read: {why}"),
            TaskOutcome::NotSent(why) => write!(f, "not sent: {why}"),
            TaskOutcome::MaybeSent(why) => write!(f, "perhaps not sent: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_4() {
        let id = TaskId::from_random([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let id = TaskId::from_random([0; 16]);
        assert_eq!(id.to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(TaskId::parse(id.to_string().as_bytes()), Some(id));
        for text in [
            "",
            "00000000-0000-4000-8000-00000000000",
            "000000000-000-4000-8000-000000000000",
            "00000000000040008000000000000000",
            "FFFFFFFF-ffff-4fff-bfff-ffffffffffff",
        ] {
            assert_eq!(TaskId::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_outcome_says_what_was_returned_or_went_wrong() {
        let failure = |kind: &str, message: &str| TaskOutcome::Failure {
            kind: kind.to_owned(),
            message: message.to_owned(),
        };
        for (outcome, said) in [
            (TaskOutcome::Success("[1]".to_owned()), "[1]"),
            (failure("ValueError", "no"), "ValueError: no"),
            (failure("KeyError", ""), "KeyError"),
            (TaskOutcome::TooLarge { bytes: 7 }, "the result is too large: 7 bytes"),
            (TaskOutcome::NotSent("away".to_owned()), "not sent: away"),
        ] {
            assert_eq!(outcome.to_string(), said);
        }
    }
}

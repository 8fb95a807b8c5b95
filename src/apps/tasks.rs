//! The application that hands tasks to workers of Celery or RQ: each message names one, and is answered with its
//! result.
//!
//! Clients may have done what the operator has listed, and nothing else. What workers answer comes in the order of the
//! messages, what is refused at once; a client that waits for as many as it may is not read
//! ([`crate::Limits::offloads_per_connection`]). It uses nothing that
//! an embedder could not; `examples/tasks.rs` is a shorter one.
//!
//! Invariant: each text message has one answer, which is one JSON object.
//!
//! Next: [`crate::observe`]: how a server is looked at.

use std::sync::Arc;
use std::time::Duration;

use super::hello;
use crate::application::{Acceptance, Application, Context, Message, Refusal, Upgrade};
use crate::json::{JsonString, Value};
use crate::tasks::{Task, TaskOutcome, TaskResult};

/// Whose workers do the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaskWorkers {
    /// Celery's.
    #[default]
    Celery,
    /// RQ's, with `--serializer json`.
    Rq,
}

/// Answers `{"task": "w.add", "args": [2, 3]}` with `{"task": "w.add", "id": "…", "result": 5}`, or with
/// `{…, "error": "ValueError: no"}`. `args` and `kwargs` may be left out.
#[derive(Debug, Clone)]
pub struct Tasks {
    names: Arc<[String]>,
    workers: TaskWorkers,
    queue: Option<Arc<str>>,
    timeout: Duration,
}

impl Tasks {
    /// For these tasks, each with so much time.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>, timeout: Duration) -> Tasks {
        let (workers, queue) = (TaskWorkers::default(), None);
        Tasks { names: names.into_iter().collect(), workers, queue, timeout }
    }

    /// Whose workers do them. Default Celery's.
    #[must_use]
    pub fn workers(self, workers: TaskWorkers) -> Tasks {
        Tasks { workers, ..self }
    }

    /// The queue of all of them. Default: the one that the workers have if nothing is said.
    #[must_use]
    pub fn queue(self, queue: &str) -> Tasks {
        Tasks { queue: Some(queue.into()), ..self }
    }

    /// The task that a message asks for, and its name, as far as that is known.
    fn read(&self, message: &str) -> Result<Task, (Option<String>, String)> {
        let value = Value::parse(message).map_err(|error| (None, error.to_string()))?;
        let Some(name) = value.member("task").and_then(Value::string) else {
            return Err((None, "an object with the name of a task is needed".to_owned()));
        };
        if !self.names.contains(&name) {
            return Err((Some(name), "clients may not have this done (--task-names)".to_owned()));
        }
        let args = value.member("args").map_or("[]", Value::text);
        let kwargs = value.member("kwargs").map_or("{}", Value::text);
        Ok(self.task(name, args, kwargs))
    }

    fn task(&self, name: String, args: &str, kwargs: &str) -> Task {
        match self.workers {
            TaskWorkers::Celery => {
                let task = Task::celery(name).args_json(args).kwargs_json(kwargs);
                match &self.queue {
                    Some(queue) => task.queue(&**queue).timeout(self.timeout),
                    None => task.timeout(self.timeout),
                }
            }
            TaskWorkers::Rq => {
                let task = Task::rq(name).args_json(args).kwargs_json(kwargs);
                match &self.queue {
                    Some(queue) => task.queue(&**queue).timeout(self.timeout),
                    None => task.timeout(self.timeout),
                }
            }
        }
    }
}

impl Application for Tasks {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        hello::accept(upgrade)
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(message) = message else {
            return cx.close(1003, "text messages only");
        };
        let task = match self.read(message) {
            Ok(task) => task,
            Err((name, error)) => return refuse(cx, name.as_deref(), &error),
        };
        let name = task.name().to_owned();
        let asked = name.clone();
        let taken = cx.enqueue(task, move |_, cx, result| answer(cx, &name, &result));
        if let Err(error) = taken {
            refuse(cx, Some(&asked), &error.to_string());
        }
    }
}

fn refuse(cx: &mut Context<'_, Tasks>, name: Option<&str>, error: &str) {
    let error = JsonString(error);
    let text = match name {
        Some(name) => format!(r#"{{"task": {}, "error": {error}}}"#, JsonString(name)),
        None => format!(r#"{{"error": {error}}}"#),
    };
    cx.send_text(&text);
}

fn answer(cx: &mut Context<'_, Tasks>, name: &str, TaskResult { id, outcome }: &TaskResult) {
    let name = JsonString(name);
    let text = match outcome {
        TaskOutcome::Success(json) => {
            format!(r#"{{"task": {name}, "id": "{id}", "result": {json}}}"#)
        }
        error => {
            // What the broker says is for the operator, whom the log tells.
            let error = match error {
                TaskOutcome::NotSent(_) => "not sent".to_owned(),
                TaskOutcome::MaybeSent(_) => "perhaps not sent".to_owned(),
                error => error.to_string(),
            };
            format!(r#"{{"task": {name}, "id": "{id}", "error": {}}}"#, JsonString(&error))
        }
    };
    cx.send_text(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::resp::ServerAddress;
    use crate::testing::{Received, TestServer};

    fn server(tasks: Tasks) -> TestServer<Tasks> {
        let broker = ServerAddress::parse("redis://127.0.0.1/0").ok();
        TestServer::with_config(Config { broker, ..Config::default() }, move |_| tasks.clone())
    }

    fn tasks() -> Tasks {
        Tasks::new(["w.add".to_owned(), "w.fail".to_owned()], Duration::from_secs(5))
    }

    #[test]
    fn a_message_names_a_task_and_is_answered_with_its_result() {
        let server = server(tasks());
        server.set_worker(|task| match task.name() {
            "w.add" => TaskOutcome::Success(format!("[{}, {}]", task.args(), task.kwargs())),
            _ => {
                TaskOutcome::Failure { kind: "ValueError".to_owned(), message: "\"no\"".to_owned() }
            }
        });
        let client = server.connect("");
        let id = "\"id\": \"00000000-0000-4000-8000-00000000000";
        for (message, answer) in [
            (r#"{"task": "w.add", "args": [2, 3]}"#, format!(r#"{{"task": "w.add", {id}1", "result": [[2, 3], {{}}]}}"#)),
            (r#"{"kwargs": {"b":1}, "task": "w.add"}"#, format!(r#"{{"task": "w.add", {id}2", "result": [[], {{"b":1}}]}}"#)),
            (r#"{"task": "w.fail"}"#, format!(r#"{{"task": "w.fail", {id}3", "error": "ValueError: \"no\""}}"#)),
            (r#"{"task": "os.system"}"#, r#"{"task": "os.system", "error": "clients may not have this done (--task-names)"}"#.to_owned()),
            (r#"{"task": "w.add", "args": 2}"#, r#"{"task": "w.add", "error": "the arguments are not a JSON array"}"#.to_owned()),
            (r#"{"task": 3}"#, r#"{"error": "an object with the name of a task is needed"}"#.to_owned()),
            ("w.add", r#"{"error": "not JSON at byte 0"}"#.to_owned()),
        ] {
            client.send_text(message);
            assert_eq!(client.text(), answer);
        }
        client.send_binary(b"x");
        let closed = Received::Closed { code: 1003, reason: "text messages only".into() };
        assert_eq!(client.receive(), Some(closed));
    }

    #[test]
    fn tasks_are_of_the_workers_and_the_queue_that_were_chosen() {
        for (tasks, expected) in [
            (tasks(), Task::celery("w.add").timeout(Duration::from_secs(5))),
            (tasks().queue("q"), Task::celery("w.add").queue("q").timeout(Duration::from_secs(5))),
            (tasks().workers(TaskWorkers::Rq), Task::rq("w.add").timeout(Duration::from_secs(5))),
            (
                tasks().workers(TaskWorkers::Rq).queue("q"),
                Task::rq("w.add").queue("q").timeout(Duration::from_secs(5)),
            ),
        ] {
            let server = server(tasks);
            server.connect("").send_text(r#"{"task": "w.add"}"#);
            assert_eq!(server.tasks(), [expected]);
        }
    }

    #[test]
    fn a_task_that_nobody_does_times_out() {
        let server = server(tasks());
        let client = server.connect("");
        client.send_text(r#"{"task": "w.add"}"#);
        assert_eq!(client.receive(), None);
        server.advance(Duration::from_secs(5));
        assert!(client.text().ends_with(r#""error": "no result in time"}"#));
        assert!(server.tasks().is_empty());
    }
}

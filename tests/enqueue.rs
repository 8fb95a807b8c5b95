//! Tasks for workers, as an application asks for them: their order, their limits, and what becomes of those that nobody
//! waits for. With the test kit, which is the worker; `tests/tasks` has real ones.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::time::Duration;

use revolve::testing::{Received, TestServer};
use revolve::{
    Application, CloseReason, Config, Context, EnqueueError, JobHandle, Limits, Message,
    ReactorContext, ServerAddress, Task, TaskOutcome, TaskResult,
};

const SECOND: Duration = Duration::from_secs(1);

/// Each message is a task of that name; a word before it says how it is asked for.
#[derive(Default)]
struct Desk {
    /// What the reactor's own tasks have come to.
    own: Vec<String>,
}

fn named(name: &str) -> Task {
    Task::celery(name).timeout(10 * SECOND)
}

fn tell(name: &str, result: &TaskResult) -> String {
    format!("{name}: {}", result.outcome)
}

impl Application for Desk {
    type Session = ();
    type Connection = Vec<JobHandle>;

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let (how, name) = text.split_once(' ').unwrap_or(("", text));
        let name = name.to_owned();
        let task = named(&name);
        let answer = move |_: &mut Self, cx: &mut Context<'_, Self>, result: TaskResult| {
            cx.send_text(&tell(&name, &result));
        };
        let taken = match how {
            "loose" => cx.enqueue_unordered(task, answer),
            "lasting" => cx.enqueue(task.outlives_connection(), answer),
            "panicking" => cx.enqueue(task, |_, _, _| std::panic::panic_any("as planned")),
            "job" => {
                let job = cx.offload(|| (), |_, cx, ()| cx.send_text("a job"));
                return assert!(job.is_ok());
            }
            "cancel" => {
                let handle = cx.connection_mut().remove(0);
                let was_awaited = cx.cancel_job(handle);
                return cx.send_text(&format!("cancelled: {was_awaited}"));
            }
            _ => cx.enqueue(task, answer),
        };
        match taken {
            Ok(handle) => cx.connection_mut().push(handle),
            Err(error) => cx.send_text(&error.to_string()),
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
        let nobody = |_: &mut Self, _: &mut Context<'_, Self>, _: TaskResult| unreachable!();
        let kept = cx.enqueue(named("farewell").outlives_connection(), nobody);
        assert!(kept.is_ok());
        assert!(cx.enqueue(named("lost"), nobody).is_ok());
    }

    fn on_drain(&mut self, cx: &mut ReactorContext<'_, Self>) {
        for name in ["one", "two"] {
            let keep = move |desk: &mut Self, _: &mut ReactorContext<'_, Self>, result| {
                desk.own.push(tell(name, &result));
            };
            let taken = match name {
                "one" => cx.enqueue(named(name), keep),
                _ => cx.enqueue_unordered(named(name), keep),
            };
            assert!(taken.is_ok());
        }
    }
}

fn config(limits: Limits) -> Config {
    let broker = ServerAddress::parse("redis://127.0.0.1/0").ok();
    Config { workers: NonZeroUsize::MIN, broker, limits, ..Config::default() }
}

fn server(limits: Limits) -> TestServer<Desk> {
    TestServer::with_config(config(limits), |_| Desk::default())
}

fn names(server: &TestServer<Desk>) -> Vec<String> {
    server.tasks().iter().map(|task| task.name().to_owned()).collect()
}

fn done(text: &str) -> TaskOutcome {
    TaskOutcome::Success(text.to_owned())
}

#[test]
fn answers_come_in_the_order_of_asking_with_those_of_jobs() {
    let server = server(Limits::default());
    let client = server.connect("");
    for text in ["a", "job x", "b", "loose c"] {
        client.send_text(text);
    }
    assert_eq!(names(&server), ["a", "b", "c"]);
    server.finish_task(2, done("3"));
    assert_eq!(client.text(), "c: 3", "it waits for nobody");
    server.finish_task(1, done("2"));
    assert_eq!(client.receive(), None, "it waits for the first");
    server.finish_task(0, done("1"));
    assert_eq!([client.text(), client.text(), client.text()], ["a: 1", "a job", "b: 2"]);
}

#[test]
fn what_becomes_of_a_task_is_told() {
    let server = server(Limits::default());
    let client = server.connect("");
    let failure = TaskOutcome::Failure { kind: "ValueError".to_owned(), message: "no".to_owned() };
    for (outcome, told) in [
        (failure, "a: ValueError: no"),
        (TaskOutcome::Revoked, "a: revoked"),
        (TaskOutcome::NotSent("away".to_owned()), "a: not sent: away"),
        (TaskOutcome::MaybeSent("lost".to_owned()), "a: perhaps not sent: lost"),
    ] {
        client.send_text("a");
        server.finish_task(0, outcome);
        assert_eq!(client.text(), told);
    }
    client.send_text("a");
    server.advance(10 * SECOND - Duration::from_millis(1));
    assert_eq!(client.receive(), None);
    server.advance(Duration::from_millis(1));
    assert_eq!(client.text(), "a: no result in time");
    client.send_text("panicking a");
    server.finish_task(0, done("1"));
    assert!(matches!(client.receive(), Some(Received::Closed { code: 1011, .. })));
}

#[test]
fn a_connection_that_waits_for_as_many_as_it_may_is_not_read() {
    let server = server(Limits { offloads_per_connection: 2, ..Limits::default() });
    let client = server.connect("");
    for text in ["a", "b", "c"] {
        client.send_text(text);
    }
    assert_eq!(names(&server), ["a", "b"]);
    server.finish_task(0, done("1"));
    assert_eq!(client.text(), "a: 1");
    assert_eq!(names(&server), ["b", "c"]);
}

#[test]
fn a_reactor_has_so_many_and_off_loaded_jobs_do_not_count_among_them() {
    let limits = Limits { tasks_per_reactor: 2, offloads_per_reactor: 1, ..Limits::default() };
    let server = server(limits);
    server.hold_jobs();
    let client = server.connect("");
    for text in ["a", "job x", "b", "c"] {
        client.send_text(text);
    }
    let full = EnqueueError::Full { most: 2 }.to_string();
    assert_eq!(client.text(), full);
    assert_eq!(names(&server), ["a", "b"]);
    server.finish_task(0, done("1"));
    server.run_job(0);
    client.send_text("d");
    assert_eq!(names(&server), ["b", "d"]);
}

#[test]
fn what_no_worker_could_read_is_refused_and_so_is_everything_without_a_broker() {
    let desk = server(Limits { task_bytes: 1, ..Limits::default() });
    let client = desk.connect("");
    client.send_text("a");
    assert_eq!(client.text(), "the arguments have 4 bytes, and may have 1");
    let config = Config { broker: None, ..config(Limits::default()) };
    let server = TestServer::with_config(config, |_| Desk::default());
    let client = server.connect("");
    client.send_text("a");
    assert_eq!(client.text(), EnqueueError::NoBroker.to_string());
}

#[test]
fn what_a_connection_has_asked_for_goes_with_it_unless_it_outlives_it() {
    let server = server(Limits { tasks_per_reactor: 4, ..Limits::default() });
    let client = server.connect("");
    client.send_text("a");
    client.send_text("lasting b");
    client.disconnect();
    assert_eq!(names(&server), ["b", "farewell"], "and what `on_close` has enqueued");
    // Their slots are free at once.
    let client = server.connect("");
    for text in ["c", "d", "e", "f"] {
        client.send_text(text);
    }
    assert_eq!(client.receive(), None, "none was refused");
    server.finish_task(0, done("1"));
    server.finish_task(0, done("2"));
    server.finish_task(0, done("3"));
    assert_eq!(client.text(), "c: 3", "nobody is told of the others");
}

#[test]
fn a_task_that_is_cancelled_is_taken_back_and_nothing_waits_for_it() {
    let server = server(Limits { offloads_per_connection: 4, ..Limits::default() });
    let client = server.connect("");
    for text in ["lasting a", "b"] {
        client.send_text(text);
    }
    server.finish_task(1, done("2"));
    client.send_text("cancel ");
    assert_eq!([client.text(), client.text()], ["cancelled: true", "b: 2"]);
    assert!(names(&server).is_empty(), "though it was to outlive its connection");
    client.send_text("cancel ");
    assert_eq!(client.text(), "cancelled: false", "it was answered");
}

#[test]
fn a_drain_waits_for_tasks_and_a_reactor_may_have_some_of_its_own() {
    let server = server(Limits::default());
    let client = server.connect("");
    client.send_text("a");
    server.shut_down();
    assert_eq!(names(&server), ["a", "one", "two"]);
    assert!(!server.has_ended());
    server.finish_task(0, done("1"));
    assert_eq!(client.text(), "a: 1");
    assert!(matches!(client.receive(), Some(Received::Closed { code: 1001, .. })));
    server.finish_task(1, done("3"));
    assert_eq!(server.application(0, |desk| desk.own.clone()), ["two: 3"]);
    server.finish_task(0, done("2"));
    assert_eq!(server.application(0, |desk| desk.own.clone()), ["two: 3", "one: 2"]);
    server.advance(SECOND);
    assert!(server.has_ended());
}

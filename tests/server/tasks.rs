//! Tasks for workers, by a broker that this test is: the thread with its two connections, and what it does when they are
//! cut. What is said is compared with the real packages elsewhere (`src/tasks/celery.rs`, `tests/tasks`).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::client::{Running, config, eventually, quiet_reactors};
use revolve::json::Value;
use revolve::resp::{Decoder, Reply};
use revolve::{Config, ServerAddress, Tasks};

/// What it knows, and whom it knows.
#[derive(Default)]
struct Known {
    connections: Vec<TcpStream>,
    listeners: HashMap<String, TcpStream>,
    stored: HashMap<String, String>,
    published: Vec<String>,
    pushed: Vec<String>,
}

/// A broker, and the worker behind it: what it does with a task, the task's name says.
struct Broker {
    address: ServerAddress,
    known: Arc<Mutex<Known>>,
}

impl Broker {
    fn start() -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("redis://{}/0", listener.local_addr().unwrap());
        let known = Arc::<Mutex<Known>>::default();
        let shared = known.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, known) = (stream.unwrap(), shared.clone());
                known.lock().unwrap().connections.push(stream.try_clone().unwrap());
                thread::spawn(move || serve(stream, &known));
            }
        });
        Broker { address: ServerAddress::parse(&address).unwrap(), known }
    }

    fn server(&self, names: &[&'static str], timeout: Duration) -> Running {
        quiet_reactors();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let config = Config { broker: Some(self.address.clone()), ..config(2) };
        Running::new(config, move |_| Tasks::new(names.clone(), timeout))
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn serve(mut stream: TcpStream, known: &Mutex<Known>) {
    let (mut decoder, mut room) = (Decoder::new(1 << 20), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut room) {
        decoder.feed(&room[..count]);
        while let Some(command) = decoder.next_reply().unwrap() {
            let text = |part: &Reply| String::from_utf8(part.bytes().unwrap().to_vec()).unwrap();
            let parts: Vec<String> = command.array().unwrap().iter().map(text).collect();
            let reply = answer(&parts, &stream, &mut known.lock().unwrap());
            if stream.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn answer(parts: &[String], stream: &TcpStream, known: &mut Known) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["PING"] => "+PONG\r\n".to_owned(),
        ["SUBSCRIBE", channel] => {
            known.listeners.insert(channel.to_owned(), stream.try_clone().unwrap());
            format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel))
        }
        ["UNSUBSCRIBE", channel] => {
            known.listeners.remove(channel);
            format!("*3\r\n{}{}:0\r\n", bulk("unsubscribe"), bulk(channel))
        }
        ["LPUSH", _, message] => {
            work(message, known);
            ":1\r\n".to_owned()
        }
        ["GET", key] => known.stored.get(key).map_or("$-1\r\n".to_owned(), |result| bulk(result)),
        ["PUBLISH", channel, _] => {
            known.published.push(channel.to_owned());
            ":1\r\n".to_owned()
        }
        _ => "+OK\r\n".to_owned(),
    }
}

fn work(message: &str, known: &mut Known) {
    let headers = Value::parse(message).unwrap().member("headers").unwrap();
    let header = |name| headers.member(name).unwrap().string().unwrap();
    let (id, task, args) = (header("id"), header("task"), header("argsrepr"));
    known.pushed.push(task.clone());
    let key = format!("celery-task-meta-{id}");
    let result = format!(r#"{{"status": "SUCCESS", "result": {args}}}"#);
    match task.as_str() {
        "echo" => {
            let event = format!("*3\r\n{}{}{}", bulk("message"), bulk(&key), bulk(&result));
            known.listeners[&key].try_clone().unwrap().write_all(event.as_bytes()).unwrap();
        }
        // The result is stored while nobody can hear of it.
        "cut" => {
            known.stored.insert(key, result);
            for stream in known.connections.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        "babble" => {
            let listener = known.listeners[&key].try_clone();
            listener.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            known.stored.insert(key, result);
        }
        _ => {}
    }
}

fn result_of(answer: &str) -> &str {
    let at = answer.rfind("\"result\": ").unwrap_or_else(|| panic!("{answer}"));
    answer[at + 10..].strip_suffix('}').unwrap()
}

#[test]
fn tasks_are_sent_and_results_come_back_in_order() {
    let broker = Broker::start();
    let server = broker.server(&["echo"], Duration::from_secs(60));
    let mut clients: Vec<_> = (0..10).map(|_| server.open("")).collect();
    for number in 0..20 {
        for client in &mut clients {
            client.say(&format!(r#"{{"task": "echo", "args": [{number}]}}"#));
        }
    }
    for client in &mut clients {
        for number in 0..20 {
            assert_eq!(result_of(&client.text()), format!("[{number}]"));
        }
    }
    server.wait_for("revolve_tasks_under_way", "", 0);
    // The broker's word that it has a task may come behind the worker's answer.
    server.wait_for("revolve_tasks_sent_total", "", 200);
    assert_eq!(server.metric("revolve_tasks_answered_total", "success"), 200);
    assert_eq!(server.metric("revolve_task_round_trip_seconds_count", ""), 200);
    eventually("nothing is listened to any more", || {
        broker.known.lock().unwrap().listeners.is_empty()
    });
}

#[test]
fn a_result_that_nobody_has_heard_of_is_read_and_nothing_is_sent_twice() {
    for task in ["cut", "babble"] {
        let broker = Broker::start();
        let server = broker.server(&["cut", "babble"], Duration::from_secs(60));
        let mut client = server.open("");
        client.say(&format!(r#"{{"task": "{task}", "args": [7]}}"#));
        assert_eq!(result_of(&client.text()), "[7]");
        assert_eq!(server.metric("revolve_broker_connections_total", ""), 2, "{task}");
        assert_eq!(broker.known.lock().unwrap().pushed, [task]);
    }
}

#[test]
fn what_nobody_waits_for_is_revoked_also_at_the_end() {
    let broker = Broker::start();
    let server = broker.server(&["never"], Duration::from_secs(60));
    let pushed = |count: usize| broker.known.lock().unwrap().pushed.len() == count;
    let published = || broker.known.lock().unwrap().published.clone();
    let mut client = server.open("");
    client.say(r#"{"task": "never"}"#);
    eventually("it is sent", || pushed(1));
    client.reset();
    eventually("it is revoked", || published() == ["/0.celery.pidbox"]);
    server.wait_for("revolve_tasks_under_way", "", 0);
    // A drain waits for tasks; this one's time is up at once.
    let mut client = server.open("");
    client.say(r#"{"task": "never"}"#);
    eventually("it is sent", || pushed(2));
    server.shut_down();
    assert_eq!(published().len(), 2, "before the server has ended");
}

#[test]
fn what_has_no_result_in_time_is_told_so() {
    let broker = Broker::start();
    let server = broker.server(&["never"], Duration::from_millis(50));
    let mut client = server.open("");
    client.say(r#"{"task": "never"}"#);
    assert!(client.text().ends_with(r#""error": "no result in time"}"#));
    assert_eq!(server.metric("revolve_tasks_answered_total", "timed_out"), 1);
}

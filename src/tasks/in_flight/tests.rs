//! The tasks under way against a model of the broker: by steps, and by chance with lost connections.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::offload::{JobId, Progress, unboxed};
use crate::resp::decoder::Decoder;
use crate::tasks::Task;
use crate::tasks::tracked::POLL_MOST;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn now_at(at: Instant) -> Now {
    Now { at, wall: SystemTime::UNIX_EPOCH + SECOND }
}

fn id(number: u8) -> TaskId {
    TaskId::from_random([number; 16])
}

fn order(number: u32, task: Task) -> (TaskOrder, Arc<Progress>) {
    let progress = Arc::<Progress>::default();
    let order = TaskOrder { id: JobId(number), task: Box::new(task), progress: progress.clone() };
    (order, progress)
}

fn celery(timeout: Duration) -> Task {
    Task::celery("w.add").timeout(timeout)
}

fn success(result: &str) -> Reply {
    Reply::Bulk(format!(r#"{{"status": "SUCCESS", "result": {result}}}"#).into_bytes())
}

/// The commands that a pipeline has, which is empty then.
fn drained(pipeline: &mut Pipeline) -> Vec<Vec<String>> {
    let mut decoder = Decoder::new(1 << 20);
    decoder.feed(pipeline.as_bytes());
    pipeline.clear();
    let mut commands = Vec::new();
    while let Some(command) = decoder.next_reply().unwrap() {
        let text = |part: &Reply| String::from_utf8(part.bytes().unwrap().to_vec()).unwrap();
        commands.push(command.array().unwrap().iter().map(text).collect());
    }
    commands
}

/// What [`Bench::results`] says of one that nobody waited for.
const RELEASED: &str = "released";

struct Bench {
    tasks: InFlight,
    at: Instant,
}

impl Bench {
    fn new(most: usize) -> Bench {
        let options = InFlightOptions {
            database: 3,
            most,
            send_timeout: 5 * SECOND,
            result_bytes_most: 1000,
            reply_to: TaskId::NONE,
        };
        Bench { tasks: InFlight::new(options, Arc::default()), at: Instant::now() }
    }

    fn now(&self) -> Now {
        now_at(self.at)
    }

    fn receive(&mut self, number: u8, task: Task) -> Arc<Progress> {
        let (order, progress) = order(number.into(), task);
        self.tasks.receive(0, order, id(number), self.now());
        progress
    }

    fn pass(&mut self, time: Duration) {
        self.at += time;
        self.tasks.look(self.now());
    }

    fn commands(&mut self) -> Vec<String> {
        let commands = drained(self.tasks.commands());
        // A message is not shown.
        commands
            .into_iter()
            .map(|mut parts| {
                if let Some(message) = parts.get_mut(2).filter(|part| part.starts_with('{')) {
                    *message = "…".to_owned();
                }
                parts.join(" ")
            })
            .collect()
    }

    fn listening(&mut self) -> Vec<String> {
        drained(self.tasks.listening()).into_iter().map(|parts| parts.join(" ")).collect()
    }

    /// The results so far, by the number of their job.
    fn results(&mut self) -> Vec<(u32, String)> {
        let results = self.tasks.take_answers().into_iter().map(|(_, finished)| {
            let result = unboxed(finished.value.unwrap());
            let said = result.map(|result: TaskResult| result.outcome.to_string());
            (finished.id.0, said.unwrap_or_else(|| RELEASED.to_owned()))
        });
        results.collect()
    }

    fn released(&mut self) -> Vec<u32> {
        let results = self.results().into_iter();
        results.map(|(number, said)| (said == RELEASED).then_some(number).expect(&said)).collect()
    }

    fn subscribed(&mut self, number: u8) {
        let channel = celery::result_key(id(number));
        self.tasks.subscribed(channel.as_bytes(), self.now());
    }

    fn published(&mut self, number: u8, reply: &Reply) {
        let channel = celery::result_key(id(number));
        self.tasks.published(channel.as_bytes(), reply, self.now());
    }

    fn replied(&mut self, reply: Reply) {
        assert_eq!(self.tasks.replied(&reply, now_at(self.at)), Ok(()));
    }
}

#[test]
fn a_task_is_sent_when_its_channel_is_listened_to_and_answered_by_what_is_published() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    let key = celery::result_key(id(1));
    assert_eq!(bench.listening(), [format!("SUBSCRIBE {key}")]);
    assert!(bench.commands().is_empty(), "not before it listens");
    bench.subscribed(1);
    assert_eq!(bench.commands(), ["LPUSH celery …"]);
    bench.replied(Reply::Integer(1));
    bench.published(1, &Reply::Bulk(br#"{"status": "STARTED"}"#.to_vec()));
    assert!(bench.results().is_empty(), "it goes on");
    bench.published(1, &success("[5]"));
    assert_eq!(bench.results(), [(1, "[5]".to_owned())]);
    assert_eq!(bench.listening(), [format!("UNSUBSCRIBE {key}")]);
    bench.published(1, &success("6"));
    assert!(bench.results().is_empty(), "once");
    assert_eq!((bench.tasks.len(), bench.tasks.next_look()), (0, None));
}

#[test]
fn a_result_may_be_faster_than_the_brokers_word_that_the_task_is_queued() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.subscribed(1);
    bench.published(1, &success("1"));
    assert_eq!(bench.results(), [(1, "1".to_owned())]);
    bench.replied(Reply::Integer(1));
    assert_eq!(bench.tasks.replied(&Reply::Null, bench.now()), Err(Unexpected));
}

#[test]
fn what_times_out_is_taken_back() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.receive(2, Task::rq("jobs.add").timeout(SECOND));
    bench.subscribed(1);
    let sent = bench.commands();
    assert_eq!((sent.len(), sent[6].as_str()), (7, "LPUSH celery …"));
    for _ in 0..7 {
        bench.replied(Reply::Integer(1));
    }
    bench.pass(SECOND);
    let mut results = bench.results();
    results.sort_unstable();
    let late = "no result in time".to_owned();
    assert_eq!(results, [(1, late.clone()), (2, late)]);
    let commands = bench.commands();
    let publishes = commands.iter().filter(|c| *c == "PUBLISH /3.celery.pidbox …").count();
    let removes = commands.iter().filter(|c| **c == format!("LREM rq:queue:default 1 {}", id(2)));
    assert_eq!((publishes, removes.count(), commands.len()), (1, 1, 2));
    bench.replied(Reply::Integer(1));
    bench.replied(Reply::Integer(1));
    assert_eq!(bench.commands(), [format!("DEL rq:job:{}", id(2))], "no worker has taken it");
}

#[test]
fn what_cannot_be_sent_is_told_in_time() {
    let mut bench = Bench::new(2);
    bench.tasks.cannot_connect("no connection: refused");
    bench.receive(1, celery(SECOND));
    bench.receive(2, celery(60 * SECOND));
    bench.receive(3, celery(SECOND));
    let full = "not sent: as many tasks are under way as may be".to_owned();
    assert_eq!(bench.results(), [(3, full)]);
    bench.pass(SECOND);
    let away = "not sent: no connection: refused".to_owned();
    assert_eq!(bench.results(), [(1, away.clone())]);
    bench.pass(4 * SECOND);
    assert_eq!(bench.results(), [(2, away)], "by the time that a task waits for its broker");
    bench.tasks.connected(bench.now());
    assert!(bench.listening().is_empty() && bench.commands().is_empty());
}

#[test]
fn a_broker_that_refuses_a_task_says_why() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.subscribed(1);
    let error = crate::resp::reply::ServerError::from_line(b"OOM command not allowed");
    bench.replied(Reply::Error(error));
    assert_eq!(bench.results(), [(1, "not sent: OOM command not allowed".to_owned())]);
}

#[test]
fn after_a_loss_results_are_read_and_nothing_is_sent_twice() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    for number in 1..=3 {
        bench.receive(number, celery(10 * SECOND));
    }
    // 1 is queued, 2 is on its way, 3 is not sent.
    bench.subscribed(1);
    bench.subscribed(2);
    bench.commands();
    bench.replied(Reply::Integer(1));
    bench.tasks.disconnected("the server has closed the connection", bench.now());
    bench.listening();
    bench.pass(SECOND);
    bench.tasks.connected(bench.now());
    assert_eq!(bench.listening().len(), 3);
    for number in 1..=3 {
        bench.subscribed(number);
    }
    let get = |number| format!("GET {}", celery::result_key(id(number)));
    assert_eq!(bench.commands(), [get(1), get(2), "LPUSH celery …".to_owned()]);
    bench.replied(success("1"));
    bench.replied(Reply::Null);
    bench.replied(Reply::Integer(1));
    assert_eq!(bench.results(), [(1, "1".to_owned())]);
    bench.pass(10 * SECOND);
    let unsure = "perhaps not sent: the server has closed the connection".to_owned();
    assert_eq!(bench.results(), [(2, unsure), (3, "no result in time".to_owned())]);
}

#[test]
fn a_result_that_is_too_large_is_an_error() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.subscribed(1);
    bench.published(1, &Reply::TooLong(70_000));
    assert_eq!(bench.results(), [(1, "the result is too large: 70000 bytes".to_owned())]);
    bench.receive(2, celery(SECOND));
    bench.subscribed(2);
    bench.published(2, &success(&"1".repeat(1000)));
    assert!(bench.results()[0].1.starts_with("the result is too large: 10"));
}

#[test]
fn results_of_rq_are_asked_for_the_more_seldom_the_longer_a_job_takes() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, Task::rq("jobs.add").timeout(100 * SECOND));
    let commands = bench.commands();
    assert_eq!((commands[0].as_str(), commands[5].as_str()), ("MULTI", "EXEC"));
    (0..6).for_each(|_| bench.replied(Reply::Integer(1)));
    let (began, mut looks) = (bench.at, Vec::new());
    while bench.at - began < 60 * SECOND {
        let Some(at) = bench.tasks.next_look() else { break };
        bench.pass(at - bench.at);
        if bench.commands().iter().any(|command| command.starts_with("XREVRANGE rq:results:")) {
            looks.push(at);
            bench.replied(Reply::Array(Vec::new()));
        }
    }
    assert!(looks.len() > 100, "{}", looks.len());
    let pauses: Vec<_> = looks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted_by(|a, b| a <= b || *b >= POLL_MOST / 2), "{pauses:?}");
    assert!((looks.len() as u32) < 400, "{}", looks.len());
    // While the answer to one is still to come, there is no other.
    bench.pass(SECOND);
    assert_eq!(bench.commands().len(), 1);
    bench.pass(20 * SECOND);
    assert!(bench.commands().is_empty());
    bench.tasks.disconnected("lost", bench.now());
    bench.tasks.connected(bench.now());
    bench.pass(SECOND);
    assert_eq!(bench.commands().len(), 1, "what was asked of a lost connection is asked again");
}

#[test]
fn what_the_broker_refuses_is_not_sent_and_is_told() {
    let error = || {
        let mut decoder = Decoder::new(1000);
        decoder.feed(b"-NOPERM no\r\n");
        decoder.next_reply().unwrap().unwrap()
    };
    let refused = |results: &[(u32, String)]| {
        assert!(results[0].1.starts_with("not sent: NOPERM no"), "{results:?}");
        assert_eq!(results.len(), 1);
    };
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.tasks.not_subscribed("NOPERM no", bench.now());
    refused(&bench.results());
    assert_eq!(bench.tasks.take_complaint().unwrap(), "SUBSCRIBE: NOPERM no");
    bench.receive(2, celery(SECOND));
    bench.subscribed(2);
    bench.replied(error());
    refused(&bench.results());
    assert!(bench.tasks.take_complaint().is_some());
    // A transaction of RQ: one command of it is refused, and so it is not begun; or the last one fails in it.
    for last in [error(), Reply::Array(vec![Reply::Integer(1), error()])] {
        bench.receive(3, Task::rq("jobs.add").timeout(SECOND));
        (0..5).for_each(|_| bench.replied(Reply::Integer(1)));
        bench.replied(last);
        refused(&bench.results());
    }
    bench.receive(4, Task::rq("jobs.add").timeout(SECOND));
    (0..5).for_each(|_| bench.replied(Reply::Integer(1)));
    bench.replied(Reply::Array(vec![Reply::Integer(1); 4]));
    bench.pass(10 * MS);
    bench.tasks.take_complaint();
    bench.replied(error());
    assert!(bench.results().is_empty());
    assert!(bench.tasks.take_complaint().is_some(), "nobody may look for its result");
}

#[test]
fn what_the_connections_do_not_take_waits_as_tasks_which_can_be_given_up() {
    let mut bench = Bench::new(99);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.tasks.flow(HIGH_WATER_MARK, bench.now());
    bench.subscribed(1);
    let (second, third) = (bench.receive(2, celery(SECOND)), bench.receive(3, celery(SECOND)));
    bench.receive(4, Task::rq("jobs.add").timeout(SECOND));
    assert!(bench.commands().is_empty());
    bench.listening();
    second.cancel();
    bench.tasks.look_for_abandoned(bench.now());
    bench.tasks.flow(HIGH_WATER_MARK, bench.now());
    assert!(bench.commands().is_empty());
    // In the moment in which it could go on.
    third.cancel();
    bench.tasks.flow(0, bench.now());
    let key = |number| celery::result_key(id(number));
    let listening = bench.listening();
    assert!(listening.contains(&format!("SUBSCRIBE {}", key(1))), "{listening:?}");
    assert!(!listening.contains(&format!("SUBSCRIBE {}", key(3))), "{listening:?}");
    assert_eq!(bench.commands().len(), rq::COMMANDS_A_JOB);
    bench.subscribed(1);
    assert_eq!(bench.commands(), ["LPUSH celery …"]);
    assert_eq!(bench.tasks.len(), 2);
}

#[test]
fn what_nobody_waits_for_is_taken_back_unless_it_outlives_its_connection() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    let progresses = [
        bench.receive(1, celery(SECOND)),
        bench.receive(2, celery(SECOND).outlives_connection()),
        bench.receive(3, celery(SECOND)),
        bench.receive(4, celery(SECOND).outlives_connection()),
    ];
    bench.subscribed(1);
    bench.subscribed(2);
    bench.commands();
    bench.replied(Reply::Integer(1));
    bench.replied(Reply::Integer(1));
    for progress in &progresses {
        progress.cancel();
    }
    bench.tasks.look_for_abandoned(bench.now());
    assert_eq!(
        bench.commands(),
        ["PUBLISH /3.celery.pidbox …"],
        "that was sent, and is not to go on"
    );
    bench.replied(Reply::Integer(1));
    assert_eq!(bench.tasks.len(), 1, "that is to be sent all the same");
    assert_eq!(bench.released(), [1, 2, 3]);
    bench.subscribed(4);
    assert_eq!(bench.commands(), ["LPUSH celery …"]);
    bench.replied(Reply::Integer(1));
    bench.pass(MS);
    bench.tasks.look_for_abandoned(bench.now());
    assert_eq!((bench.tasks.len(), bench.released()), (0, vec![4]));
    // One whose connection goes between the look and the broker's word.
    let early = bench.receive(7, celery(SECOND));
    early.cancel();
    bench.subscribed(7);
    assert!(bench.commands().is_empty() && bench.tasks.is_empty());
    let late = bench.receive(8, celery(SECOND));
    bench.subscribed(8);
    late.cancel();
    bench.replied(Reply::Integer(1));
    bench.pass(MS);
    bench.tasks.look_for_abandoned(bench.now());
    assert_eq!(bench.commands(), ["LPUSH celery …", "PUBLISH /3.celery.pidbox …"]);
    bench.replied(Reply::Integer(1));
    // One whose connection had gone before it came here.
    let (late, progress) = order(5, celery(SECOND).outlives_connection());
    progress.cancel();
    bench.tasks.receive(0, late, id(5), bench.now());
    assert_eq!(bench.commands(), ["LPUSH celery …"], "without listening");
    let (late, progress) = order(6, celery(SECOND));
    progress.cancel();
    bench.tasks.receive(0, late, id(6), bench.now());
    assert!(bench.commands().is_empty());
    assert_eq!(bench.released(), [7, 8, 6]);
    assert_eq!(bench.tasks.take_complaint(), None);
}

#[test]
fn one_that_outlives_its_connection_and_cannot_be_sent_is_complained_of() {
    let mut bench = Bench::new(9);
    bench.receive(1, celery(60 * SECOND).outlives_connection()).cancel();
    bench.receive(2, celery(60 * SECOND)).cancel();
    bench.tasks.look_for_abandoned(bench.now());
    assert_eq!(bench.released(), [2]);
    bench.pass(60 * SECOND);
    let [(1, told)] = &bench.results()[..] else { panic!("the first is not answered") };
    assert!(told.starts_with("not sent: "), "{told}");
    let complaint = bench.tasks.take_complaint();
    assert_eq!(complaint, Some(format!("w.add, which outlives its connection: {told}")));
    // Or perhaps it was.
    bench.tasks.connected(bench.now());
    bench.receive(3, celery(60 * SECOND).outlives_connection()).cancel();
    bench.subscribed(3);
    assert_eq!(bench.commands(), ["LPUSH celery …"]);
    bench.tasks.disconnected("lost", bench.now());
    bench.tasks.look_for_abandoned(bench.now());
    assert_eq!(bench.results(), [(3, "perhaps not sent: lost".to_owned())]);
    assert!(bench.tasks.take_complaint().is_some());
}

#[test]
fn at_the_end_all_is_taken_back_that_need_not_go_on() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.receive(2, celery(SECOND).outlives_connection());
    bench.receive(3, celery(SECOND));
    bench.subscribed(1);
    bench.commands();
    bench.tasks.abandon_all(bench.now());
    assert_eq!(bench.commands(), ["PUBLISH /3.celery.pidbox …"]);
    assert_eq!(bench.tasks.len(), 1, "the one that is to be sent");
}

#[test]
fn if_nobody_turns_it_any_more_all_are_answered() {
    let mut bench = Bench::new(9);
    bench.tasks.connected(bench.now());
    bench.receive(1, celery(SECOND));
    bench.receive(2, celery(SECOND));
    bench.subscribed(1);
    bench.tasks.fail_all("over", bench.now());
    let mut results = bench.results();
    results.sort_unstable();
    let told = ["perhaps not sent: over", "not sent: over"].map(str::to_owned);
    assert_eq!(results, [(1, told[0].clone()), (2, told[1].clone())]);
}

// ---- by chance ----

/// A xorshift generator: a seed decides everything.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// A Redis, and the workers behind it.
#[derive(Default)]
struct Model {
    /// Commands that have come and are not done, and replies that have not left.
    inbox: VecDeque<Vec<String>>,
    replies: VecDeque<Reply>,
    listening_inbox: VecDeque<Vec<String>>,
    subscribed: BTreeSet<String>,
    events: VecDeque<(String, Option<String>)>,
    /// Tasks that are in a queue, and how often each was put there.
    queued: Vec<String>,
    pushes: BTreeMap<String, u32>,
    /// Stored results, by key.
    results: BTreeMap<String, String>,
    done: BTreeSet<String>,
    /// The job that is put into its queue at EXEC.
    in_transaction: Option<String>,
    /// What was said to take tasks back.
    revocations: Vec<String>,
}

impl Model {
    fn lose_connections(&mut self, does_what_has_come: bool) {
        while does_what_has_come && !self.inbox.is_empty() {
            self.do_command();
        }
        self.inbox.clear();
        self.in_transaction = None;
        self.replies.clear();
        self.listening_inbox.clear();
        self.events.clear();
        self.subscribed.clear();
    }

    fn do_command(&mut self) {
        let Some(parts) = self.inbox.pop_front() else { return };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let reply = match parts[..] {
            ["LPUSH", "celery", message] => {
                let headers =
                    crate::json::Value::parse(message).unwrap().member("headers").unwrap();
                self.push(&headers.member("id").unwrap().string().unwrap());
                Reply::Integer(1)
            }
            ["RPUSH", "rq:queue:default", id] => {
                self.in_transaction = Some(id.to_owned());
                Reply::Simple("QUEUED".into())
            }
            ["EXEC"] => {
                let id = self.in_transaction.take().unwrap();
                self.push(&id);
                Reply::Array(vec![Reply::Integer(1); 4])
            }
            ["GET", key] => match self.results.get(key) {
                Some(result) => Reply::Bulk(result.clone().into_bytes()),
                None => Reply::Null,
            },
            ["XREVRANGE", key, ..] => match self.results.get(key) {
                Some(result) => {
                    let bulk = |text: &str| Reply::Bulk(text.into());
                    let fields = vec![bulk("type"), bulk("1"), bulk("return_value"), bulk(result)];
                    Reply::Array(vec![Reply::Array(vec![bulk("1-0"), Reply::Array(fields)])])
                }
                None => Reply::Array(Vec::new()),
            },
            ["LREM", _, _, id] => {
                self.revocations.push(id.to_owned());
                let before = self.queued.len();
                self.queued.retain(|queued| queued != id);
                Reply::Integer((before - self.queued.len()) as i64)
            }
            ["PUBLISH", _, message] => {
                self.revocations.push(message.to_owned());
                Reply::Integer(1)
            }
            ["MULTI" | "SADD" | "HSET" | "EXPIRE" | "PING" | "DEL", ..] => Reply::Integer(1),
            _ => panic!("{parts:?}"),
        };
        self.replies.push_back(reply);
    }

    fn push(&mut self, id: &str) {
        self.queued.push(id.to_owned());
        *self.pushes.entry(id.to_owned()).or_default() += 1;
    }

    fn listen(&mut self) {
        let Some(parts) = self.listening_inbox.pop_front() else { return };
        let channel = parts[1].clone();
        if parts[0] == "SUBSCRIBE" {
            self.subscribed.insert(channel.clone());
            self.events.push_back((channel, None));
        } else {
            self.subscribed.remove(&channel);
        }
    }

    /// A worker does one of the tasks, whichever.
    fn work(&mut self, chance: &mut Chance) {
        if self.queued.is_empty() {
            return;
        }
        let id = self.queued.remove(chance.below(self.queued.len() as u64) as usize);
        let result = format!(r#"{{"status": "SUCCESS", "result": "{id}"}}"#);
        let channel = format!("celery-task-meta-{id}");
        let in_base64 = data_encoding::BASE64.encode(format!("\"{id}\"").as_bytes());
        self.results.insert(format!("rq:results:{id}"), in_base64);
        self.results.insert(channel.clone(), result.clone());
        self.done.insert(id);
        if self.subscribed.contains(&channel) {
            self.events.push_back((channel, Some(result)));
        }
    }
}

/// What is known of an order.
struct Asked {
    deadline: Instant,
    progress: Arc<Progress>,
    id: TaskId,
    is_abandoned: bool,
    outlives: bool,
    /// `Some(None)` if it was only given its slot back.
    answer: Option<Option<TaskOutcome>>,
}

struct World {
    bench: Bench,
    model: Model,
    chance: Chance,
    is_connected: bool,
    /// Whether it stays so.
    is_steady: bool,
    asked: Vec<Asked>,
    most: usize,
    looked: Instant,
}

impl World {
    fn step(&mut self) {
        let now = self.bench.now();
        match self.chance.below(20) {
            0 => self.ask(),
            1..=6 => self.model.do_command(),
            7..=8 => self.model.listen(),
            9..=11 => self.deliver_reply(now),
            12..=13 => self.deliver_event(now),
            14..=15 => self.model.work(&mut self.chance),
            16 => self.abandon(),
            17 if !self.is_steady && self.chance.below(6) == 0 => self.change_connections(now),
            _ => self.let_time_pass(),
        }
        // Now and then a connection takes nothing for a while.
        let unsent = if self.chance.below(4) == 0 { HIGH_WATER_MARK } else { 0 };
        self.bench.tasks.flow(unsent, now);
        self.send();
        self.take_results();
        assert!(self.bench.tasks.len() <= self.most);
        assert_eq!(self.bench.tasks.tasks.len(), self.bench.tasks.by_id.len());
        assert_eq!(self.bench.tasks.tasks.len(), self.bench.tasks.due.len());
    }

    fn ask(&mut self) {
        let number = self.asked.len() as u32;
        let timeout = MS * (1 + self.chance.below(400) as u32);
        let task = match self.chance.below(3) {
            0 => Task::rq("jobs.add").timeout(timeout),
            _ => celery(timeout),
        };
        let outlives = self.chance.below(5) == 0;
        let task = if outlives { task.outlives_connection() } else { task };
        let (order, progress) = order(number, task);
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        let (id, deadline) = (TaskId::from_random(bytes), self.bench.at + timeout);
        let (is_abandoned, answer) = (false, None);
        self.asked.push(Asked { deadline, progress, id, is_abandoned, outlives, answer });
        self.bench.tasks.receive(0, order, id, self.bench.now());
    }

    fn send(&mut self) {
        let commands = drained(self.bench.tasks.commands());
        let listening = drained(self.bench.tasks.listening());
        assert!(self.is_connected || commands.is_empty() && listening.is_empty());
        self.model.inbox.extend(commands);
        self.model.listening_inbox.extend(listening);
    }

    fn deliver_reply(&mut self, now: Now) {
        if let Some(reply) = self.model.replies.pop_front() {
            assert_eq!(self.bench.tasks.replied(&reply, now), Ok(()));
        }
    }

    fn deliver_event(&mut self, now: Now) {
        match self.model.events.pop_front() {
            Some((channel, None)) => self.bench.tasks.subscribed(channel.as_bytes(), now),
            Some((channel, Some(payload))) => {
                let payload = Reply::Bulk(payload.into_bytes());
                self.bench.tasks.published(channel.as_bytes(), &payload, now);
            }
            None => {}
        }
    }

    fn abandon(&mut self) {
        let open = self.asked.iter_mut().filter(|a| a.answer.is_none() && !a.is_abandoned);
        let open: Vec<_> = open.collect();
        let Some(most) = (open.len() as u64).checked_sub(1) else { return };
        let at = self.chance.below(most + 1) as usize;
        if let Some(asked) = open.into_iter().nth(at) {
            asked.progress.cancel();
            asked.is_abandoned = true;
        }
    }

    fn change_connections(&mut self, now: Now) {
        if self.is_connected {
            self.model.lose_connections(self.chance.below(2) == 0);
            self.bench.tasks.disconnected("lost", now);
        } else {
            self.bench.tasks.connected(now);
        }
        self.is_connected = !self.is_connected;
    }

    fn let_time_pass(&mut self) {
        self.bench.pass(MS * self.chance.below(10) as u32);
        if self.bench.at - self.looked > 20 * MS {
            self.looked = self.bench.at;
            self.bench.tasks.look_for_abandoned(self.bench.now());
        }
    }

    fn take_results(&mut self) {
        for (_, finished) in self.bench.tasks.take_answers() {
            let asked = &mut self.asked[finished.id.0 as usize];
            assert!(asked.answer.is_none(), "once");
            let Some(result) = unboxed::<TaskResult>(finished.value.unwrap()) else {
                assert!(asked.is_abandoned, "{}: somebody waits", asked.id);
                asked.answer = Some(None);
                continue;
            };
            assert!(self.bench.at <= asked.deadline + 10 * MS, "in time");
            assert_eq!(result.id, asked.id);
            let id = asked.id.to_string();
            let pushes = self.model.pushes.get(&id).copied().unwrap_or(0);
            match &result.outcome {
                TaskOutcome::Success(json) => {
                    assert_eq!(*json, format!("\"{id}\""));
                    assert!(self.model.done.contains(&id), "a worker has done it");
                }
                TaskOutcome::NotSent(_) => assert_eq!(pushes, 0, "no worker will ever do it"),
                TaskOutcome::TimedOut => assert_eq!(pushes, 1),
                TaskOutcome::MaybeSent(_) => {}
                other => panic!("{other:?}"),
            }
            asked.answer = Some(Some(result.outcome));
        }
    }
}

#[test]
fn whatever_becomes_of_the_connections_each_task_has_one_answer_in_time_and_is_sent_once() {
    let (mut kinds, mut taken_back) = (HashMap::new(), 0);
    for seed in 1..=300 {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let most = 1 + chance.below(20) as usize;
        let bench = Bench::new(most);
        let looked = bench.at;
        let mut world = World {
            bench,
            model: Model::default(),
            chance,
            is_connected: false,
            is_steady: seed % 3 == 0,
            asked: Vec::new(),
            most,
            looked,
        };
        if world.is_steady {
            world.change_connections(world.bench.now());
        }
        for _ in 0..600 {
            world.step();
        }
        for _ in 0..100 {
            world.bench.pass(10 * MS);
            let now = world.bench.now();
            world.bench.tasks.flow(0, now);
            (0..20).for_each(|_| {
                world.model.do_command();
                world.deliver_reply(now);
            });
            world.bench.tasks.look_for_abandoned(now);
            world.send();
            world.take_results();
        }
        // One that outlives its connection may wait for a broker for longer than that.
        assert!(world.bench.tasks.is_empty(), "seed {seed}");
        for asked in &world.asked {
            assert!(asked.answer.is_some(), "seed {seed}: {}", asked.id);
            if let Some(Some(outcome)) = &asked.answer {
                *kinds.entry(std::mem::discriminant(outcome)).or_insert(0) += 1;
            }
        }
        let is_taken_back = |id: &str| world.model.revocations.iter().any(|said| said.contains(id));
        for asked in world.asked.iter().filter(|asked| world.is_steady && asked.is_abandoned) {
            let id = asked.id.to_string();
            let needs_not_go_on = !asked.outlives && !world.model.done.contains(&id);
            if needs_not_go_on && world.model.pushes.contains_key(&id) {
                assert!(is_taken_back(&id), "seed {seed}: {id} was sent for nobody");
                taken_back += 1;
            }
        }
        let pushes = world.model.pushes.values();
        assert!(pushes.into_iter().all(|&count| count == 1), "seed {seed}: sent twice");
    }
    assert_eq!(kinds.len(), 4, "each way to end was met");
    assert!(kinds.values().all(|&count| count > 20) && taken_back > 20, "{kinds:?}, {taken_back}");
}

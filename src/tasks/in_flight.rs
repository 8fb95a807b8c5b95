//! The tasks that are under way, of all reactors: what is to be said to the broker, and what its answers mean.
//!
//! Sans-IO: orders, replies, published results and times come in; commands and answers go out. There are two
//! connections to the broker, which come and go together: on one, commands are sent; the other listens for results. A
//! task of Celery is sent when the channel of its result is listened to, and not before. When the connections are made
//! anew, all channels are listened to again, and then the results are read that may have been published meanwhile. RQ
//! publishes nothing: its results are asked for, the more seldom the longer a job takes. Called by `thread`, and in the
//! tests by a model.
//!
//! What was sent and not acknowledged when the connections were lost is never sent again: a worker may have it.
//!
//! Invariant: a task is answered once, by its deadline; there are never more than `most`.
//!
//! Next: `link`: the two connections.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;

use super::metrics::TaskMetrics;
use super::order::TaskOrder;
use super::outcome::{TaskId, TaskOutcome, TaskResult};
use super::task::{Call, Protocol};
use super::tracked::{Stage, Tracked};
use super::{celery, rq};
use crate::offload::Finished;
use crate::resp::{Pipeline, Reply};
use crate::wall_clock;

/// Bytes of storage for what is to be sent that are kept when it has been.
const SPARE_MOST: usize = 64 << 10;

/// Bytes that wait for the broker to take them, above which no further task is sent: three of the largest messages.
/// What waits as a task can still be given up; what waits as bytes cannot.
const HIGH_WATER_MARK: usize = 1 << 20;

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub at: Instant,
    /// For the texts in messages.
    pub wall: SystemTime,
}

/// What bounds the tasks.
#[derive(Debug, Clone)]
pub struct InFlightOptions {
    /// The database of the broker, which stands in the names of Celery's channels.
    pub database: u32,
    /// Tasks of all reactors at once.
    pub most: usize,
    /// For how long one may wait for the broker ([`crate::Config::broker_timeout`]).
    pub send_timeout: Duration,
    /// Bytes of a result that are kept.
    pub result_bytes_most: usize,
    /// Who we are in messages.
    pub reply_to: TaskId,
}

/// What a command is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Something of no interest.
    Anything,
    /// Whether this task is in its queue.
    Push(TaskId),
    /// The stored result of this task of Celery.
    Result(TaskId),
    /// The latest result of this job of RQ.
    LatestResult(TaskId),
    /// Whether this job of RQ was taken out of its queue.
    Removal(TaskId),
}

/// A reply that belongs to no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected;

/// All tasks under way.
pub struct InFlight {
    options: InFlightOptions,
    metrics: Arc<TaskMetrics>,
    tasks: Slab<Tracked>,
    by_id: HashMap<TaskId, usize>,
    due: BTreeSet<(Instant, usize)>,
    is_connected: bool,
    /// Bytes that the connections have not taken yet.
    unsent: usize,
    /// Whether tasks wait though there are connections.
    has_waiting: bool,
    /// What the broker has refused last, and nobody was told of yet.
    complaint: Option<String>,
    /// Why it is not.
    away: String,
    expected: VecDeque<Expected>,
    commands: Pipeline,
    listening: Pipeline,
    answers: Vec<(usize, Finished)>,
}

impl InFlight {
    /// None yet, and no connections.
    #[must_use]
    pub fn new(options: InFlightOptions, metrics: Arc<TaskMetrics>) -> InFlight {
        InFlight {
            options,
            metrics,
            tasks: Slab::new(),
            by_id: HashMap::new(),
            due: BTreeSet::new(),
            is_connected: false,
            unsent: 0,
            has_waiting: false,
            complaint: None,
            away: "it was not connected to yet".to_owned(),
            expected: VecDeque::new(),
            commands: Pipeline::new(),
            listening: Pipeline::new(),
            answers: Vec::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// What is to be sent on the connection for commands: the caller empties it when it has.
    pub fn commands(&mut self) -> &mut Pipeline {
        &mut self.commands
    }

    /// What is to be sent on the connection that listens: the caller empties it when it has.
    pub fn listening(&mut self) -> &mut Pipeline {
        &mut self.listening
    }

    /// Both have been sent.
    pub fn sent(&mut self) {
        for pipeline in [&mut self.commands, &mut self.listening] {
            // The storage of a large batch does not stay.
            if pipeline.as_bytes().len() > SPARE_MOST {
                *pipeline = Pipeline::new();
            }
            pipeline.clear();
        }
    }

    /// What the broker has refused since this was asked last, in its words.
    pub fn take_complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// So many bytes wait to be sent. If that is little enough, tasks that have waited for this are begun.
    pub fn flow(&mut self, unsent: usize, now: Now) {
        self.unsent = unsent;
        if !self.has_waiting || !self.is_connected || self.is_congested() {
            return;
        }
        self.has_waiting = false;
        for key in self.keys() {
            if self.tasks[key].stage == Stage::Waiting {
                self.begin(key, now);
            }
        }
    }

    fn is_congested(&self) -> bool {
        self.unsent + self.commands.as_bytes().len() >= HIGH_WATER_MARK
    }

    /// Results for reactors.
    pub fn take_answers(&mut self) -> Vec<(usize, Finished)> {
        std::mem::take(&mut self.answers)
    }

    /// When [`Self::look`] has something to do, if nothing comes before.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Commands whose replies have not come.
    #[must_use]
    pub fn unanswered_commands(&self) -> usize {
        self.expected.len()
    }

    /// A reactor wants a task done, under this id.
    pub fn receive(&mut self, reactor: usize, order: TaskOrder, id: TaskId, now: Now) {
        if order.is_abandoned() && !order.goes_on() {
            return self.release(reactor, order);
        }
        if self.tasks.len() >= self.options.most {
            let why = "as many tasks are under way as may be".to_owned();
            return self.tell(reactor, order, id, TaskOutcome::NotSent(why), Duration::ZERO);
        }
        let deadline = now.at + order.task.timeout;
        let (stage, since) = (Stage::Waiting, now.at);
        let due = deadline;
        let tracked =
            Tracked { reactor, order, id, stage, since, deadline, due, is_asked_for: false };
        let key = self.tasks.insert(tracked);
        self.by_id.insert(id, key);
        self.due.insert((deadline, key));
        if self.is_connected {
            self.begin(key, now);
        } else {
            self.reschedule(key, now.at);
        }
        self.metrics.under_way.set(self.tasks.len() as u64);
    }

    /// Both connections are made.
    pub fn connected(&mut self, now: Now) {
        self.is_connected = true;
        for key in self.keys() {
            let tracked = &self.tasks[key];
            if tracked.stage == Stage::Waiting {
                self.begin(key, now);
            } else if tracked.is_of_celery() {
                self.listen("SUBSCRIBE", tracked.id);
            } else {
                self.reschedule(key, now.at);
            }
        }
    }

    /// The connections are lost, and with them all that was asked.
    pub fn disconnected(&mut self, why: &str, now: Now) {
        (self.is_connected, self.unsent) = (false, 0);
        why.clone_into(&mut self.away);
        self.expected.clear();
        self.commands.clear();
        self.listening.clear();
        for key in self.keys() {
            let tracked = &mut self.tasks[key];
            tracked.is_asked_for = false;
            match tracked.stage {
                Stage::Subscribing => tracked.stage = Stage::Waiting,
                Stage::Sending => tracked.stage = Stage::Unsure(why.to_owned()),
                Stage::Waiting | Stage::Queued | Stage::Unsure(_) => continue,
            }
            self.reschedule(key, now.at);
        }
    }

    /// Asks on both connections whether the broker is still there.
    pub fn ping(&mut self) {
        self.command(["PING"], Expected::Anything);
        self.listening.push(["PING"]);
    }

    /// They could not be made.
    pub fn cannot_connect(&mut self, why: &str) {
        why.clone_into(&mut self.away);
    }

    /// The channel is listened to from now on.
    pub fn subscribed(&mut self, channel: &[u8], now: Now) {
        let Some(key) = self.key_of_channel(channel) else { return };
        let tracked = &mut self.tasks[key];
        if tracked.stage == Stage::Subscribing {
            if self.is_congested() {
                self.wait(key, now);
            } else {
                self.send(key, now);
            }
        } else if tracked.may_be_sent() {
            // What was published while nobody listened is read.
            let id = tracked.id;
            self.command(["GET", &celery::result_key(id)], Expected::Result(id));
        }
    }

    /// The broker does not let us listen. It says so in the order of what it was asked; but whom it lets listen,
    /// depends on the user and not on the task.
    pub fn not_subscribed(&mut self, why: &str, now: Now) {
        self.complaint = Some(format!("SUBSCRIBE: {why}"));
        for key in self.keys() {
            if self.tasks[key].stage == Stage::Subscribing {
                self.finish(key, TaskOutcome::NotSent(why.to_owned()), now);
            }
        }
    }

    /// A worker has published this.
    pub fn published(&mut self, channel: &[u8], payload: &Reply, now: Now) {
        if let Some(key) = self.key_of_channel(channel) {
            self.take_result(key, payload, now);
        }
    }

    /// The next reply on the connection for commands.
    ///
    /// # Errors
    ///
    /// If it belongs to nothing: the connection is of no use then.
    pub fn replied(&mut self, reply: &Reply, now: Now) -> Result<(), Unexpected> {
        let expected = self.expected.pop_front().ok_or(Unexpected)?;
        if let (Reply::Error(error), false) = (reply, matches!(expected, Expected::Push(_))) {
            self.complaint = Some(error.to_string());
        }
        match expected {
            Expected::Anything => {}
            Expected::Push(id) => self.pushed(id, reply, now),
            Expected::Result(id) => {
                if let Some(&key) = self.by_id.get(&id) {
                    self.take_result(key, reply, now);
                }
            }
            Expected::LatestResult(id) => {
                let Some(&key) = self.by_id.get(&id) else { return Ok(()) };
                self.tasks[key].is_asked_for = false;
                if let Some(outcome) = rq::outcome(reply, self.options.result_bytes_most) {
                    self.finish(key, outcome, now);
                }
            }
            Expected::Removal(id) => {
                if reply.integer() == Some(1) {
                    rq::forget(id, &mut self.commands);
                    self.expected.push_back(Expected::Anything);
                }
            }
        }
        Ok(())
    }

    fn pushed(&mut self, id: TaskId, reply: &Reply, now: Now) {
        // RQ's commands are one transaction: the last of its replies is that to the push.
        let last = reply.array().and_then(<[Reply]>::last).unwrap_or(reply);
        let error = match (reply, last) {
            (Reply::Error(error), _) | (_, Reply::Error(error)) => Some(error.to_string()),
            _ => None,
        };
        match &error {
            Some(error) => self.complaint = Some(error.clone()),
            // A worker may have answered before the broker.
            None => self.metrics.sent.add(1),
        }
        let Some(&key) = self.by_id.get(&id) else { return };
        match error {
            Some(error) => self.finish(key, TaskOutcome::NotSent(error), now),
            None => self.tasks[key].stage = Stage::Queued,
        }
    }

    fn take_result(&mut self, key: usize, reply: &Reply, now: Now) {
        let outcome = match reply {
            Reply::Bulk(payload) if payload.len() > self.options.result_bytes_most => {
                Some(TaskOutcome::TooLarge { bytes: payload.len() })
            }
            Reply::Bulk(payload) => celery::outcome(payload),
            Reply::TooLong(bytes) => Some(TaskOutcome::TooLarge { bytes: *bytes }),
            _ => None,
        };
        if let Some(outcome) = outcome {
            self.finish(key, outcome, now);
        }
    }

    /// Nobody turns this any more, which is a defect: all are answered with what is known.
    pub fn fail_all(&mut self, why: &str, now: Now) {
        for key in self.keys() {
            let why = why.to_owned();
            let outcome = match self.tasks[key].may_be_sent() {
                true => TaskOutcome::MaybeSent(why),
                false => TaskOutcome::NotSent(why),
            };
            self.finish(key, outcome, now);
        }
    }

    /// Takes back those that nobody waits for any more.
    pub fn look_for_abandoned(&mut self, now: Now) {
        for key in self.keys() {
            let tracked = &self.tasks[key];
            if !tracked.order.is_abandoned() {
                continue;
            }
            match &tracked.stage {
                // Sent all the same, or on its way.
                Stage::Waiting | Stage::Subscribing | Stage::Sending if tracked.order.goes_on() => {
                }
                Stage::Unsure(why) if tracked.order.goes_on() => {
                    let outcome = TaskOutcome::MaybeSent(why.clone());
                    self.finish(key, outcome, now);
                }
                _ => self.let_go(key),
            }
        }
    }

    /// Does what is due by now.
    pub fn look(&mut self, now: Now) {
        while let Some(&(at, key)) = self.due.first()
            && at <= now.at
        {
            let tracked = &self.tasks[key];
            let is_over = tracked.deadline <= now.at;
            match &tracked.stage {
                Stage::Waiting | Stage::Subscribing => {
                    let why = if self.is_connected { "no answer in time" } else { &self.away };
                    let outcome = TaskOutcome::NotSent(why.to_owned());
                    self.finish(key, outcome, now);
                }
                Stage::Sending | Stage::Queued | Stage::Unsure(_) if !is_over => {
                    let id = tracked.id;
                    // One look at a time: a slow broker is not asked the faster.
                    if self.is_connected && !tracked.is_asked_for {
                        self.tasks[key].is_asked_for = true;
                        rq::read_result(id, &mut self.commands);
                        self.expected.push_back(Expected::LatestResult(id));
                    }
                    self.reschedule(key, now.at);
                }
                stage => {
                    let outcome = match stage {
                        Stage::Unsure(why) => TaskOutcome::MaybeSent(why.clone()),
                        Stage::Sending => TaskOutcome::MaybeSent("no answer in time".to_owned()),
                        _ => TaskOutcome::TimedOut,
                    };
                    self.take_back(key);
                    self.finish(key, outcome, now);
                }
            }
        }
    }

    /// The server ends: nobody waits for any of them.
    pub fn abandon_all(&mut self, now: Now) {
        for (_, tracked) in &self.tasks {
            tracked.order.progress.cancel();
        }
        self.look_for_abandoned(now);
    }

    fn keys(&self) -> Vec<usize> {
        self.tasks.iter().map(|(key, _)| key).collect()
    }

    fn key_of_channel(&self, channel: &[u8]) -> Option<usize> {
        self.by_id.get(&celery::task_of(channel)?).copied()
    }

    fn command<const N: usize>(&mut self, parts: [&str; N], expected: Expected) {
        self.commands.push(parts);
        self.expected.push_back(expected);
    }

    fn listen(&mut self, command: &str, id: TaskId) {
        self.listening.push([command, &celery::result_key(id)]);
    }

    /// The connections are there for a task that waits.
    fn begin(&mut self, key: usize, now: Now) {
        if self.is_congested() {
            return self.wait(key, now);
        }
        let tracked = &mut self.tasks[key];
        // Nobody will look at the result of one that was asked for by a connection that has gone.
        if !tracked.is_of_celery() || tracked.order.is_abandoned() {
            return self.send(key, now);
        }
        tracked.stage = Stage::Subscribing;
        let id = tracked.id;
        self.listen("SUBSCRIBE", id);
        self.reschedule(key, now.at);
    }

    /// Until the connections take more.
    fn wait(&mut self, key: usize, now: Now) {
        self.has_waiting = true;
        self.tasks[key].stage = Stage::Waiting;
        self.reschedule(key, now.at);
    }

    fn send(&mut self, key: usize, now: Now) {
        let tracked = &mut self.tasks[key];
        if tracked.order.is_abandoned() && !tracked.order.goes_on() {
            return self.let_go(key);
        }
        tracked.stage = Stage::Sending;
        let (id, task) = (tracked.id, &tracked.order.task);
        let waited = now.at - tracked.since;
        let expires = task.expires().saturating_sub(waited).max(Duration::from_millis(1));
        let wall = wall_clock::within_bounds(now.wall);
        match &task.protocol {
            Protocol::Celery(options) => {
                let queue = celery::queue_key(&task.call, options);
                let ids = (id, id, self.options.reply_to);
                let message = celery::message((&task.call, options), ids, expires, wall);
                self.commands.push(["LPUSH", &queue, &message]);
            }
            Protocol::Rq => {
                let times = (expires, task.timeout);
                rq::enqueue(&task.call, id, times, wall, &mut self.commands);
                let before = std::iter::repeat_n(Expected::Anything, rq::COMMANDS_A_JOB - 1);
                self.expected.extend(before);
            }
        }
        self.expected.push_back(Expected::Push(id));
        // It is not sent again, so nobody needs them any more.
        let Call { args, kwargs, .. } = &mut self.tasks[key].order.task.call;
        (*args, *kwargs) = (String::new(), String::new());
        self.reschedule(key, now.at);
    }

    /// Sees to it that no worker begins it, if that can be said now.
    fn take_back(&mut self, key: usize) {
        let tracked = &self.tasks[key];
        if !self.is_connected || !tracked.may_be_sent() {
            return;
        }
        let id = tracked.id;
        self.metrics.taken_back.add(1);
        match &tracked.order.task.protocol {
            Protocol::Celery(_) => {
                let channel = celery::control_channel(self.options.database);
                self.command(
                    ["PUBLISH", &channel, &celery::revocation(id, id)],
                    Expected::Anything,
                );
            }
            Protocol::Rq => {
                rq::take_back(&tracked.order.task.call, id, &mut self.commands);
                self.expected.push_back(Expected::Removal(id));
            }
        }
    }

    fn reschedule(&mut self, key: usize, now: Instant) {
        let tracked = &mut self.tasks[key];
        let due = tracked.next_look(self.options.send_timeout, now);
        self.due.remove(&(tracked.due, key));
        tracked.due = due;
        self.due.insert((due, key));
    }

    fn remove(&mut self, key: usize) -> Tracked {
        let tracked = self.tasks.remove(key);
        self.by_id.remove(&tracked.id);
        self.due.remove(&(tracked.due, key));
        if self.is_connected && tracked.is_of_celery() {
            self.listen("UNSUBSCRIBE", tracked.id);
        }
        self.metrics.under_way.set(self.tasks.len() as u64);
        tracked
    }

    fn finish(&mut self, key: usize, outcome: TaskOutcome, now: Now) {
        let Tracked { reactor, order, id, since, .. } = self.remove(key);
        self.tell(reactor, order, id, outcome, now.at - since);
    }

    fn tell(
        &mut self,
        reactor: usize,
        order: TaskOrder,
        id: TaskId,
        outcome: TaskOutcome,
        took: Duration,
    ) {
        self.metrics.note_outcome(&outcome, took);
        if let TaskOutcome::NotSent(_) | TaskOutcome::MaybeSent(_) = outcome
            && order.is_abandoned()
            && order.goes_on()
        {
            // Nobody else will hear of it.
            let name = order.task.name();
            self.complaint = Some(format!("{name}, which outlives its connection: {outcome}"));
        }
        self.answers.push((reactor, order.answer(TaskResult { id, outcome })));
    }

    /// Ends one that nobody waits for; workers are told to leave it, unless it outlives its connection.
    fn let_go(&mut self, key: usize) {
        if !self.tasks[key].order.goes_on() {
            self.take_back(key);
        }
        let Tracked { reactor, order, .. } = self.remove(key);
        self.release(reactor, order);
    }

    fn release(&mut self, reactor: usize, order: TaskOrder) {
        self.metrics.abandoned.add(1);
        self.answers.push((reactor, order.release()));
    }
}

#[cfg(test)]
mod tests;

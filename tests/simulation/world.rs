//! The world of one seed: a machine, its clients, and what must be true of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroUsize};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use revolve::application::Storing;
use revolve::config::{Config, InvalidField, Limits, ResponseFields, SessionIds, SessionRate};
use revolve::connection::timer_wheel;
use revolve::http::Rejection;
use revolve::offload::Job;
use revolve::{PostError, Recipient, ServerAddress, TaskOutcome};

use super::clients::{Client, Ending, Manner};
use super::pieces::chance::Chance;
use super::pieces::client_bytes::Heard;
use super::pieces::faults::{Call, Fault, Faults, Strike};
use super::pieces::machine::{Machine, Net};
use super::pieces::recorder::{LARGEST, Log, Recorder, assert_as_planned};
use super::pieces::streams::{Wire, Written};
use super::pieces::veil;
use super::stored::Stored;
use super::told;
use super::trace_capture;

/// The shortest time that a drain may take here.
const DRAIN_LEAST: Duration = Duration::from_secs(1);

/// How often the interesting things happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    turns: u64,
    messages: u64,
    hand_overs: u64,
    takeovers: u64,
    resumes: u64,
    broadcasts: u64,
    throttled: u64,
    full_boxes: u64,
    lost: u64,
    panics: u64,
    cut: u64,
    /// Frames of figures that watchers got, and those that told of every reactor.
    figures: u64,
    whole_figures: u64,
    timers: u64,
    heartbeats: u64,
    /// Answers to off-loaded jobs of connections, and of reactors.
    answers: u64,
    refreshes: u64,
    /// Jobs of connections that had left when they were done.
    orphans: u64,
    /// Answers that came out of order, as they may.
    overtakes: u64,
    /// Jobs that have seen that nobody waits for them; those that were given up; and those among them that
    /// returned later.
    cancelled: u64,
    given_up: u64,
    late: u64,
    /// Clients that had hung up while a job was under way for them, and were let go of before it
    /// returned; and those that were not, because something stood before their FIN.
    gone_before_their_jobs: u64,
    kept_for_what_they_said: u64,
    turned_away: u64,
    /// Upgrades that the application refused.
    refused: u64,
    /// Upgrades for which their address had made too many sessions.
    limited: u64,
    /// Upgrades that were decided by a job.
    deferred: u64,
    /// Upgrades that were not, because the job or what followed it failed, their time was over, or the
    /// server went away.
    undecided: u64,
    /// Jobs that were taken back, and questions that other reactors have answered.
    taken_back: u64,
    batches: u64,
    questions: u64,
    learned: u64,
    /// How often settings changed while all went on.
    changes: u64,
    /// What they had taken for upgrades that did not open.
    undone: u64,
    /// Those among them whose time was over, or for which there was no room.
    busy: u64,
    /// Plain requests that the application answered, and those whose content came too late.
    requests: u64,
    late_bodies: u64,
    /// Those among them whose session was opened by a newer request.
    overtaken: u64,
    /// Bursts, calls of `on_backlog_low`, and connections that ended with 1008.
    bursts: u64,
    lows: u64,
    overfed: u64,
    /// Messages from one client that reached another, and what was for one connection and found nobody.
    directs: u64,
    undelivered: u64,
    /// Clients that another one had closed.
    kicked: u64,
    /// Posts that ran, on reactors and for connections; and those that found a full box.
    posts: u64,
    posts_for_one: u64,
    full_post_boxes: u64,
    /// Posts of callbacks that ran, and turns after which some waited for room.
    passed: u64,
    passes_waited: u64,
    /// Connections that opened beside others of their session, and those for which that had too many.
    shared: u64,
    crowded: u64,
    /// Sessions that ended: their time over, early, or not kept.
    expired: u64,
    evicted: u64,
    not_kept: u64,
    forgotten: u64,
    /// What clients were told of them.
    obituaries: u64,
    with_server: u64,
    /// TLS handshakes in full, those that resumed a session, and those that failed; requests without TLS where it was
    /// expected.
    handshakes: u64,
    tls_resumed: u64,
    tls_failures: u64,
    plain_on_tls: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.turns += other.turns;
        self.messages += other.messages;
        self.hand_overs += other.hand_overs;
        self.takeovers += other.takeovers;
        self.resumes += other.resumes;
        self.broadcasts += other.broadcasts;
        self.throttled += other.throttled;
        self.full_boxes += other.full_boxes;
        self.lost += other.lost;
        self.panics += other.panics;
        self.cut += other.cut;
        self.figures += other.figures;
        self.whole_figures += other.whole_figures;
        self.timers += other.timers;
        self.heartbeats += other.heartbeats;
        self.answers += other.answers;
        self.refreshes += other.refreshes;
        self.orphans += other.orphans;
        self.overtakes += other.overtakes;
        self.cancelled += other.cancelled;
        self.given_up += other.given_up;
        self.late += other.late;
        self.gone_before_their_jobs += other.gone_before_their_jobs;
        self.kept_for_what_they_said += other.kept_for_what_they_said;
        self.turned_away += other.turned_away;
        self.refused += other.refused;
        self.limited += other.limited;
        self.deferred += other.deferred;
        self.undecided += other.undecided;
        self.taken_back += other.taken_back;
        self.batches += other.batches;
        self.questions += other.questions;
        self.learned += other.learned;
        self.changes += other.changes;
        self.undone += other.undone;
        self.busy += other.busy;
        self.requests += other.requests;
        self.late_bodies += other.late_bodies;
        self.overtaken += other.overtaken;
        self.bursts += other.bursts;
        self.lows += other.lows;
        self.overfed += other.overfed;
        self.directs += other.directs;
        self.undelivered += other.undelivered;
        self.kicked += other.kicked;
        self.posts += other.posts;
        self.posts_for_one += other.posts_for_one;
        self.full_post_boxes += other.full_post_boxes;
        self.passed += other.passed;
        self.passes_waited += other.passes_waited;
        self.shared += other.shared;
        self.crowded += other.crowded;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.not_kept += other.not_kept;
        self.forgotten += other.forgotten;
        self.obituaries += other.obituaries;
        self.with_server += other.with_server;
        self.handshakes += other.handshakes;
        self.tls_resumed += other.tls_resumed;
        self.tls_failures += other.tls_failures;
        self.plain_on_tls += other.plain_on_tls;
    }

    pub fn assert_rich(&self) {
        let all = [
            self.messages,
            self.hand_overs,
            self.takeovers,
            self.resumes,
            self.broadcasts,
            self.throttled,
            self.full_boxes,
            self.lost,
            self.panics,
            self.cut,
            self.figures,
            self.whole_figures,
            // A reactor that did not answer in time, or whose box was full.
            self.figures - self.whole_figures,
            self.timers,
            self.heartbeats,
            self.answers,
            self.refreshes,
            self.orphans,
            self.overtakes,
            self.cancelled,
            self.given_up,
            self.late,
            self.gone_before_their_jobs,
            self.kept_for_what_they_said,
            self.turned_away,
            self.refused,
            self.limited,
            self.deferred,
            self.undecided,
            self.taken_back,
            self.batches,
            self.questions,
            self.learned,
            self.changes,
            self.undone,
            self.busy,
            self.requests,
            self.late_bodies,
            self.overtaken,
            self.bursts,
            self.lows,
            self.overfed,
            self.directs,
            self.undelivered,
            self.kicked,
            self.posts,
            self.posts_for_one,
            self.full_post_boxes,
            self.passed,
            self.passes_waited,
            self.shared,
            self.crowded,
            self.expired,
            self.evicted,
            self.not_kept,
            self.forgotten,
            self.obituaries,
            self.with_server,
        ];
        assert!(
            all.iter().all(|&seen| seen >= 20),
            "the seeds no longer reach everything: {self:?}"
        );
        let tls = [self.handshakes, self.tls_resumed, self.tls_failures, self.plain_on_tls];
        assert!(
            !cfg!(feature = "tls") || tls.iter().all(|&seen| seen >= 20),
            "the seeds no longer reach all of TLS: {self:?}"
        );
    }
}

struct World {
    chance: Chance,
    /// The settings of the start.
    config: Arc<Config>,
    machine: Machine<Recorder>,
    faults: Faults,
    clients: Vec<Client>,
    log: Rc<RefCell<Log>>,
    storing: Storing,
    stored: Stored,
    /// Whether some clients speak TLS.
    is_encrypted: bool,
    /// By how much a timer may be late.
    late: Duration,
    /// Posts that boxes took for reactors, and those that found a full one.
    posted: u64,
    full_post_boxes: u64,
    passes_waited: u64,
    gone_before_their_jobs: u64,
    kept_for_what_they_said: u64,
}

thread_local! {
    /// Whether a job whose client has left returns when it has been given up, and not before.
    static STICKS: Cell<bool> = const { Cell::new(false) };
}

fn config(chance: &mut Chance, workers: usize) -> Config {
    Config {
        workers: NonZeroUsize::new(workers).expect("one at least"),
        ws_max_size: 4096,
        ws_per_message_deflate: cfg!(feature = "deflate"),
        max_send_buffer: chance.pick(&[1024, 2048, 16_384]),
        max_sessions: chance.pick(&[1_000_000, 1_000_000, 12]),
        // Rarely: all clients have one address.
        limit_sessions_per_ip: chance.percent(5).then(|| SessionRate {
            sessions: NonZeroU32::new(chance.within(1, 9) as u32).expect("one at least"),
            window: Duration::from_secs(chance.pick(&[1, 60])),
        }),
        session_ttl: Duration::from_secs(chance.pick(&[3600, 3600, 2, 0])),
        session_ids: chance.pick(&[SessionIds::Any, SessionIds::Any, SessionIds::Issued]),
        limit_concurrency: NonZeroUsize::new(chance.pick(&[0, 0, 0, 3])),
        timeout_graceful_shutdown: chance.pick(&[DRAIN_LEAST, 10 * DRAIN_LEAST]),
        drain_over: DRAIN_LEAST * chance.pick(&[0, 0, 300, 999]) / 1000,
        // Shorter and longer than the time to the first ping.
        timeout_handshake: Duration::from_secs(chance.pick(&[10, 40])),
        access_log: false,
        // Nobody connects to it here.
        broker: ServerAddress::parse("redis://127.0.0.1/0").ok(),
        // Nobody here has a disk that hangs.
        store_timeout: Duration::from_secs(86_400),
        limits: Limits {
            receive_buffer_bytes: chance.pick(&[256, 1024, 8192]),
            head_bytes: 300,
            request_body_bytes: 60,
            target_bytes: 100,
            frames_per_turn: chance.within(1, 9),
            requests_per_turn: chance.within(1, 3),
            cork_bytes: chance.pick(&[16, 200, 5000]),
            flush_bytes_per_turn: chance.pick(&[10, 500, 100_000]),
            accepts_per_turn: chance.within(1, 4),
            handshakes_per_turn: chance.within(1, 3),
            events_per_poll: chance.pick(&[1, 2, 7, 1024]),
            overdue_ticks: chance.within(0, 3) as u8,
            mails_per_turn: chance.within(1, 3),
            mails_waiting_most: chance.pick(&[1, 3, 1000]),
            alarms_per_turn: chance.within(1, 3),
            expiries_per_turn: chance.within(1, 3),
            broadcast_slice: chance.within(1, 5),
            broadcasts_queued: chance.within(1, 6),
            goodbyes_per_turn: chance.within(1, 4),
            watchers: chance.within(1, 3),
            look_slice: chance.within(1, 20),
            slab_map_slots: chance.pick(&[3, 1000]),
            inflate_per_turn: match cfg!(feature = "deflate") {
                true => chance.pick(&[50, 2000, 500_000]),
                false => Limits::default().inflate_per_turn,
            },
            timers_per_connection: chance.within(2, 3),
            connections_per_session: chance.within(1, 3),
            timers_per_turn: chance.within(1, 3),
            offloads_per_connection: chance.within(1, 3),
            offloads_per_reactor: chance.within(2, 12),
            tasks_per_reactor: chance.within(1, 6),
            offload_orphan_timeout: Duration::from_millis(chance.pick(&[0, 700, 30_000])),
            // Longer than the bustle: clients there are slow, and are not to be let down for it.
            close_timeout: Duration::from_secs(90),
            send_stall: Duration::from_secs(90),
            linger: Duration::from_secs(90),
            ..Limits::default()
        },
        ..Config::default()
    }
}

/// How much may wait for one peer: the mark, the storage of the cork, and one message.
fn waiting_most(config: &Config) -> usize {
    config.max_send_buffer + config.limits.cork_bytes + 150 + LARGEST + 14
}

/// Of the tasks under way, in whatever order, one ends: a worker has done it, or its time is over. Or the broker's
/// thread sees that nobody waits for some.
fn some_task_ends(net: &mut Net, chance: &mut Chance) -> bool {
    if chance.percent(50) && net.let_go_of_tasks() {
        return true;
    }
    let Some(last) = net.tasks.len().checked_sub(1) else { return false };
    let at = chance.within(0, last);
    let outcome = match chance.percent(80) {
        true => TaskOutcome::Success(net.tasks[at].task.args().to_owned()),
        false => TaskOutcome::TimedOut,
    };
    net.finish_task(at, outcome);
    true
}

/// Of the jobs and tasks under way, in whatever order: a thread takes one, or one returns.
fn some_job_goes_on(net: &mut Net, chance: &mut Chance) -> bool {
    let returns = |job: &Job| !STICKS.get() || !job.is_cancelled() || job.is_given_up();
    let jobs = net.jobs.iter().enumerate();
    let can_go_on = jobs.filter(|(_, (_, job))| !job.has_begun() || returns(job));
    let can_go_on: Vec<usize> = can_go_on.map(|(at, _)| at).collect();
    if can_go_on.is_empty() || !net.tasks.is_empty() && chance.percent(50) {
        return some_task_ends(net, chance);
    }
    let at = can_go_on[chance.within(0, can_go_on.len() - 1)];
    let has_begun = net.jobs[at].1.has_begun();
    net.jobs[at].1.begin();
    // A thread does not begin one that was taken back, and says so at once.
    if has_begun || !net.jobs[at].1.has_begun() {
        net.run_job(at);
    }
    true
}

/// What must be true of a turn when it is over.
fn check_turn(machine: &Machine<Recorder>, at: usize, before: Written) {
    check_told(machine, before);
    if let Some(shard) = machine.shards().nth(at)
        && let Some(outcome) = shard.outcome()
    {
        let has_waited = shard.awaited_jobs() == 0 || outcome.duration >= DRAIN_LEAST;
        assert!(has_waited, "a drain did not wait for a job");
    }
}

/// What is told of a turn is what happened, if somebody listens.
fn check_told(machine: &Machine<Recorder>, before: Written) {
    if let Some(lines) = trace_capture::take() {
        let now = machine.written();
        let (writes, bytes) = (now.writes - before.writes, now.bytes - before.bytes);
        let written = Written { writes, bytes };
        if let Some(what) = told::mismatch(&lines, written) {
            panic!("{what}: {written:?} in {lines:#?}");
        }
    }
}

pub fn run(seed: u64) -> Totals {
    let mut chance = Chance(seed);
    let workers = chance.within(1, 4);
    let mut config = config(&mut chance, workers);
    // A request must fit where it is collected.
    config.limits.receive_buffer_bytes = config.limits.receive_buffer_bytes.max(360);
    let log = Rc::new(RefCell::new(Log::default()));
    log.borrow_mut().mark = Some(config.max_send_buffer);
    log.borrow_mut().forgets = config.max_sessions < 100 || config.session_ttl.as_secs() < 100;
    log.borrow_mut().has_last_words = true;
    let config = Arc::new(config);
    let box_capacity = chance.within(1, 3);
    let storing = match chance.within(0, 9) {
        0..=4 => Storing::Nothing,
        5..=8 => Storing::BeforeReplies,
        _ => Storing::BehindReplies,
    };
    let how = (box_capacity, storing);
    let faults = Faults::default();
    let mut machine = Machine::storing(&config, how, seed, faults.clone(), |start| Recorder {
        reactor: start.reactor(),
        log: log.clone(),
    });
    machine.recover(Vec::new());
    let (checked, waiting_most) = (log.clone(), waiting_most(&config));
    machine.after_turn = Some(Rc::new(move |machine, at, before| {
        check_turn(machine, at, before);
        let shard = machine.shards().nth(at).expect("it has just turned");
        checked.borrow_mut().check_backlogs(shard.backlogs(), waiting_most);
    }));
    let is_encrypted = cfg!(feature = "tls") && chance.percent(50);
    if is_encrypted {
        machine.net.borrow_mut().tls = veil::server();
    }
    machine.net.borrow_mut().jobs_wait = true;
    STICKS.set(chance.percent(40));
    // Unread input may have put it off until the next tick; longer ago than that, it may not.
    let late = timer_wheel::TICK * (1 + u32::from(config.limits.overdue_ticks));
    let (gone_before_their_jobs, kept_for_what_they_said) = (0, 0);
    let clients = Vec::new();
    let mut world = World {
        chance,
        config,
        machine,
        faults,
        clients,
        log,
        storing,
        stored: Stored::default(),
        is_encrypted,
        late,
        posted: 0,
        full_post_boxes: 0,
        passes_waited: 0,
        gone_before_their_jobs,
        kept_for_what_they_said,
    };
    world.bustle();
    world.wait_for_no_store();
    world.wait_for_no_job();
    world.settle();
    world.check_attentive();
    world.drain();
    assert_as_planned();
    world.totals()
}

impl World {
    /// Clients come, talk and go in random order, while time passes now and then.
    fn bustle(&mut self) {
        let steps = self.chance.within(200, 900);
        for _ in 0..steps {
            if self.chance.percent(1) {
                self.some_setting_changes();
            }
            match self.chance.within(0, 99) {
                0..=7 => self.connect(),
                8..=57 => self.some_client_acts(),
                58..=60 => {
                    some_job_goes_on(&mut self.machine.net.borrow_mut(), &mut self.chance);
                }
                61..=91 => self.some_shard_turns(),
                92..=94 => {
                    self.stored.take_some(&mut self.machine.net.borrow_mut(), &mut self.chance);
                }
                95 => self.wait_for_no_store(),
                96 => self.some_thread_posts(),
                97 if self.chance.percent(30) => {
                    let (call, fault) = (Call::Enqueue, Fault::Full);
                    self.faults.plan(Strike { call, nth: 0, times: 1, fault });
                }
                97 => {
                    let errno = self.chance.pick(&[4, 103, 24]); // EINTR, ECONNABORTED, EMFILE
                    self.machine.net.borrow_mut().accept_errors.push_back(errno);
                }
                _ => {
                    let step = self.chance.pick(&[1, 60, 900, 6000]);
                    self.machine.now += Duration::from_millis(step);
                }
            }
        }
    }

    fn connect(&mut self) {
        let number = self.clients.len() as u16 + 1;
        let manner = match self.chance.within(0, 99) {
            0..=79 => Manner::Talks,
            80..=84 => Manner::NeverReads,
            85..=89 => Manner::Silent,
            90..=93 => Manner::Garbage,
            94..=96 => Manner::Watches,
            _ => Manner::Browses,
        };
        let live = self.log.borrow().ledger.live_ids();
        let session = self.chance.percent(75).then(|| match live.len() {
            // Where only issued ids are taken up, these are all there are to take over.
            most @ 1.. if self.chance.percent(20) => live[self.chance.within(0, most - 1)].clone(),
            _ => format!("s{}", self.chance.within(0, 5)),
        });
        let mut client = Client::new(number, manner, session, &mut self.chance);
        if self.is_encrypted && self.chance.percent(60) {
            client.encrypt(&mut self.chance);
        }
        let at = self.chance.within(0, self.machine.len() - 1);
        self.machine.connect(at, &client.wire, client.address);
        self.clients.push(client);
    }

    fn some_client_acts(&mut self) {
        if !self.clients.is_empty() {
            let at = self.chance.within(0, self.clients.len() - 1);
            if self.clients[at].is_busy() {
                self.clients[at].act(&mut self.chance);
            }
        }
    }

    /// Another thread posts something, now and then more than a box holds.
    fn some_thread_posts(&mut self) {
        let remote = self.machine.remote.clone();
        for _ in 0..self.chance.pick(&[1, 1, 5]) {
            let posted = if self.chance.percent(50) {
                let reactor = self.chance.within(0, self.machine.len() - 1);
                let posted = remote.post(reactor, move |recorder, cx| {
                    assert_eq!((recorder.reactor, cx.reactor()), (reactor, reactor));
                    recorder.log.borrow_mut().posts += 1;
                });
                self.posted += u64::from(posted.is_ok());
                posted
            } else {
                let session = format!("s{}", self.chance.within(0, 5));
                remote.post_to(Recipient::session(&session), move |recorder, cx| {
                    assert_eq!(cx.session_id(), session);
                    recorder.log.borrow_mut().posts_for_one += 1;
                    cx.send_text("a post");
                })
            };
            match posted {
                Ok(()) => {}
                Err(PostError::Full { .. }) => self.full_post_boxes += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Settings that no client here minds. Each reactor takes them when it is woken for it.
    fn some_setting_changes(&mut self) {
        let first = self.config.clone();
        let number = self.machine.status.config_changes() + 1;
        let times = [DRAIN_LEAST, 10 * DRAIN_LEAST];
        let timeout_graceful_shutdown = self.chance.pick(&times);
        let drain_over = DRAIN_LEAST * self.chance.pick(&[0, 500]) / 1000;
        let changed = self.machine.status.change_config(|now| {
            let mut newer = Config {
                timeout_graceful_shutdown,
                drain_over,
                response_fields: ResponseFields::default(),
                // These do not change.
                ws_max_size: 1,
                max_send_buffer: 1024,
                ..now.unwrap_or(&first).clone()
            };
            newer.response_fields.add("X-Change", &number.to_string())?;
            Ok::<_, InvalidField>(now.unwrap_or(&first).with_live_of(&newer))
        });
        changed.expect("a field");
        self.machine.wake_all();
    }

    fn some_shard_turns(&mut self) {
        let at = self.chance.within(0, self.machine.len() - 1);
        self.machine.turn_if_woken(at);
        let waiting: usize = self.machine.shards().map(|shard| shard.waiting_posts()).sum();
        self.passes_waited += u64::from(waiting > 0);
    }

    /// Everyone acts until nobody has anything to do without time passing.
    fn quiet(&mut self) {
        self.quiet_with(|net, chance, stored| {
            some_job_goes_on(net, chance) | stored.take_some(net, chance)
        });
    }

    /// Nothing is stored. Then nobody has heard of what is not.
    fn wait_for_no_store(&mut self) {
        if self.storing != Storing::BeforeReplies {
            return;
        }
        self.quiet_with(|net, chance, _| some_job_goes_on(net, chance));
        let log = self.log.borrow();
        for client in &self.clients {
            let Some(id) = log.ids.get(&client.address) else { continue };
            let told = client.counts().last().copied().unwrap_or(0);
            let is_safe =
                told == 0 || log.forgotten_ids.contains(id) || self.stored.may_be_known(id, told);
            assert!(is_safe, "{}: heard {told}, and that is not stored", client.address);
        }
    }

    /// No job goes on, and those who hang up meanwhile are let go of.
    fn wait_for_no_job(&mut self) {
        self.quiet_with(|net, chance, stored| stored.take_some(net, chance));
        let log = self.log.borrow();
        for client in &self.clients {
            let wire = client.wire.borrow();
            let is_held = wire.registered.is_some();
            assert!(!wire.reset || !is_held, "{}: its reset went unnoticed", client.address);
            let (asked, answered) = log.jobs.get(&client.address).copied().unwrap_or_default();
            let (loose, loosely) = log.loose.get(&client.address).cloned().unwrap_or_default();
            let waits = asked > answered || loose > loosely.len() as u64;
            let has_hung_up = waits && (wire.fin || wire.reset);
            self.gone_before_their_jobs += u64::from(has_hung_up && wire.closed);
            self.kept_for_what_they_said += u64::from(has_hung_up && is_held);
        }
    }

    fn quiet_with(&mut self, goes_on: impl Fn(&mut Net, &mut Chance, &mut Stored) -> bool) {
        let World { machine, clients, chance, stored, .. } = self;
        let net = machine.net.clone();
        machine.quiet(|| {
            let mut acted = false;
            for client in clients.iter_mut().filter(|client| client.is_busy()) {
                client.act(chance);
                acted = true;
            }
            acted | goes_on(&mut net.borrow_mut(), chance, stored)
        });
        let newest = self.machine.status.newer_config().1.unwrap_or_else(|| self.config.clone());
        for shard in self.machine.shards() {
            let fields = |config: &Config| config.response_fields.to_string();
            assert_eq!(fields(shard.config()), fields(&newest), "a shard has old settings");
            assert_eq!(shard.config().max_send_buffer, self.config.max_send_buffer);
        }
        let log = self.log.borrow();
        let is_overdue = |due: &Instant| *due + self.late <= self.machine.now;
        assert!(!log.timers.values().any(is_overdue), "a timer is late");
    }

    /// Lets time pass until all deadlines that can pass have passed.
    fn settle(&mut self) {
        self.quiet();
        self.check_at_rest();
        for _ in 0..100 {
            self.quiet();
            self.machine.now += Duration::from_secs(3);
        }
        self.quiet();
        for client in &self.clients {
            let has_let_down = match client.manner {
                Manner::Silent | Manner::NeverReads => true,
                _ => client.ending == Ending::FallSilent,
            };
            // Someone who asked for nothing is answered by nothing but the deadline.
            let is_gone = client.wire.borrow().closed;
            assert!(!has_let_down || is_gone, "{}: no deadline ended it", client.address);
        }
    }

    /// What must have happened without any time passing.
    fn check_at_rest(&self) {
        let pauses = self.machine.sum(|r| r.accept_pauses.get());
        let is_accepted = self.machine.net.borrow().queues.iter().all(VecDeque::is_empty);
        assert!(is_accepted || pauses > 0, "someone waits to be accepted");
        for client in &self.clients {
            let wire = client.wire.borrow();
            let was_accepted = wire.registered.is_some();
            assert!(!(was_accepted && wire.fin), "{}: its end went unnoticed", client.address);
            let is_heard = !was_accepted || wire.up.is_empty() || client.may_be_throttled();
            assert!(is_heard, "{}: what it said went unnoticed", client.address);
        }
    }

    /// What must be true of those who stayed and listened, while all is quiet.
    fn check_attentive(&self) {
        let log = self.log.borrow();
        for client in &self.clients {
            self.check_client(client, &log);
            if !client.is_attentive() || client.has_closed() {
                continue;
            }
            if client.was_refused() {
                continue;
            }
            assert!(client.is_open(), "{}: no answer", client.address);
            let asked = client.asked;
            assert_eq!(client.counts().len(), asked, "{}: replies are missing", client.address);
            let taken_back = log.taken_back.get(&client.address).map_or(0, BTreeSet::len);
            let answered = client.told("job ").len();
            assert_eq!(answered + taken_back, client.jobs, "{}: jobs", client.address);
            assert_eq!(
                client.told("myself ").len(),
                client.to_itself,
                "{}: to itself",
                client.address
            );
            let obituaries = log.obituaries.get(&client.address).copied().unwrap_or(0) as usize;
            assert_eq!(
                client.told("obituary ").len(),
                obituaries,
                "{}: obituaries",
                client.address
            );
            assert_eq!(client.told("loose ").len(), client.loose, "{}: jobs", client.address);
            let fired = log.fired.get(&client.address).map_or(0, Vec::len);
            assert_eq!(client.told("timer ").len(), fired, "{}: timers", client.address);
            for (&reactor, &sent) in &log.broadcasts {
                let got = client.broadcasts_of(reactor);
                // Those under way when it opened may or may not have reached it; from then on it
                // got every one.
                let before = &log.broadcasts_before[&client.address];
                let owed = before.get(&reactor).copied().unwrap_or(0) + 1;
                let first = got.first().copied().unwrap_or(owed).min(owed);
                let expected: Vec<u64> = (first..=sent).collect();
                assert_eq!(got, expected, "{}: broadcasts of {reactor}", client.address);
            }
        }
        assert_eq!(log.posts, self.posted, "posts that were taken and have not run");
        assert_eq!(log.passed, log.run, "posts of callbacks that have not run");
        assert!(log.seats.is_empty(), "taken for nobody: {:?}", log.seats);
        log.check_sessions(&self.machine);
        assert_eq!(log.rites.0, log.rites.1, "what sessions had off-loaded at their end");
        assert_eq!(log.timers.len(), 0, "a timer did not fire");
    }

    /// Whatever a client heard must be what the application gave it: all of it or a beginning.
    fn check_client(&self, client: &Client, log: &Log) {
        if client.manner == Manner::Talks {
            assert!(client.is_welcome(), "{}: a good request was refused", client.address);
        }
        assert!(client.was_told_its_sums(), "{}: another sum", client.address);
        let told = client.counts();
        let given = log.given.get(&client.address).cloned().unwrap_or_default();
        assert!(given.starts_with(&told), "{}: {told:?} of {given:?}", client.address);
        let looks: Vec<u64> = client.figures().map(|(look, _)| look).collect();
        assert!(looks.is_sorted_by(|a, b| a < b), "{}: looks {looks:?}", client.address);
        let fired = log.fired.get(&client.address).into_iter().flatten();
        let fired: Vec<String> = fired.map(u64::to_string).collect();
        assert!(fired.starts_with(&client.told("timer ")), "{}: timers", client.address);
        let answers = client.told("job ").into_iter().filter(|answer| answer != "refused");
        let taken_back = log.taken_back.get(&client.address);
        let is_awaited = |number: &u64| taken_back.is_none_or(|taken| !taken.contains(number));
        let mut in_order = (0..).filter(is_awaited).map(|number| number.to_string()).zip(answers);
        let has_its_order = in_order.all(|(expected, answer)| answer == expected);
        assert!(has_its_order, "{}: answers in the order of asking", client.address);
        let to_itself = client.told("myself ");
        let is_in_order = |(at, number): (usize, String)| number == (at + 1).to_string();
        assert!(
            to_itself.into_iter().enumerate().all(is_in_order),
            "{}: to itself",
            client.address
        );
        let directs = client.directs();
        for &(from, _) in &directs {
            let got = directs.iter().filter(|direct| direct.0 == from).map(|direct| direct.1);
            assert!(got.is_sorted_by(|a, b| a < b), "{}: {directs:?}", client.address);
        }
        let loose = client.told("loose ").into_iter().filter(|answer| answer != "refused");
        let mut loose: Vec<u64> = loose.filter_map(|answer| answer.parse().ok()).collect();
        let count = loose.len();
        loose.sort_unstable();
        loose.dedup();
        let given = log.loose.get(&client.address).map(|(_, answered)| answered);
        let is_given = |number: &u64| given.is_some_and(|given| given.contains(number));
        let is_right = loose.len() == count && loose.iter().all(is_given);
        assert!(is_right, "{}: answers in no order, each once", client.address);
        for &reactor in log.broadcasts.keys() {
            let got = client.broadcasts_of(reactor);
            let is_gapless = got.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(is_gapless, "{}: broadcasts of {reactor}: {got:?}", client.address);
        }
        // Who is told goodbye has heard what the application had to say before it.
        if client.manner == Manner::Talks
            && let Some(at) = client.heard.iter().position(|heard| *heard == Heard::Close(1001))
        {
            let last_words = Heard::Text("last words".to_owned());
            assert!(client.heard[..at].contains(&last_words), "{}: no last words", client.address);
        }
        let said_bye = client.heard.contains(&Heard::Text("bye".to_owned()));
        if said_bye && client.ending == Ending::Quit {
            // Every message before it was answered before it.
            assert_eq!(told.len(), client.asked, "{}: quit overtook a reply", client.address);
        }
        if let Some(Heard::Response(101, Some(start))) =
            client.heard.iter().find(|heard| matches!(heard, Heard::Response(101, _)))
            && let Some(first) = told.first()
            && !log.disappointed.contains(&client.address)
        {
            let is_next = *first == start + 1;
            let is_later = log.mates.contains(&client.address) && *first > *start;
            assert!(is_next || is_later, "{}: the head told another count", client.address);
        }
    }

    /// Shuts down, and checks that everything ends.
    fn drain(&mut self) {
        // Some are in mid-sentence when it begins.
        for _ in 0..self.chance.within(0, 8) {
            self.connect();
        }
        for _ in 0..self.chance.within(0, 100) {
            self.some_client_acts();
            self.some_shard_turns();
        }
        self.machine.shut_down();
        for _ in 0..30 {
            self.quiet();
            self.check_nobody_is_waited_for();
            if self.machine.has_ended() {
                break;
            }
            self.machine.now += Duration::from_millis(500);
        }
        self.quiet();
        self.machine.check_released();
        let held = self.machine.net.borrow().jobs.iter().filter(|(_, j)| j.is_given_up()).count();
        let given_up = self.machine.sum(|r| r.offloads_given_up.get());
        let late = self.machine.status.pool().late();
        assert_eq!(given_up, late + held as u64, "those that were given up return late, or never");
        let log = self.log.borrow();
        assert_eq!(log.opens, log.closes, "each open has its close");
        log.check_sessions(&self.machine);
        if self.storing == Storing::Nothing {
            assert!(log.ledger.is_empty(), "each session has its end");
        }
        self.check_stored();
        assert_eq!(log.admitted, log.opens + log.not_opened, "accepted: it opens, or it does not");
        assert_eq!(log.drains, self.machine.len(), "each reactor says that it drains, once");
        for client in &self.clients {
            self.check_client(client, &log);
            let wire: &Wire = &client.wire.borrow();
            if client.is_owed_a_close() && !wire.reset {
                assert!(client.has_closed(), "{}: no Close {client:?}", client.address);
            }
        }
    }

    /// All that is worth keeping is stored.
    fn check_stored(&self) {
        if self.storing == Storing::Nothing {
            return;
        }
        assert!(self.machine.net.borrow().batches.is_empty(), "a batch is under way");
        for shard in self.machine.shards() {
            for (id, count) in shard.session_counts() {
                assert_eq!(self.stored.count(&id), Some(count), "{id} is not stored as it is");
            }
        }
    }

    /// A drain that nobody holds up does not wait: without connections and jobs it is over when the
    /// shards have seen that of each other.
    fn check_nobody_is_waited_for(&mut self) {
        let held = self.machine.sum(|r| r.connections.get());
        let mut net = self.machine.net.borrow_mut();
        net.let_go_of_tasks();
        let is_idle = net.jobs.iter().all(|(_, job)| job.is_given_up())
            && net.tasks.iter().all(|held| held.order.is_none());
        drop(net);
        if held == 0 && is_idle {
            for _ in 0..5 {
                self.machine.now += Duration::from_millis(10);
                self.quiet();
            }
            assert!(self.machine.has_ended(), "a drain waits for nobody");
        }
    }

    fn totals(&self) -> Totals {
        let machine = &self.machine;
        let outcomes = machine.shards().filter_map(|shard| shard.outcome());
        let log = self.log.borrow();
        let is_slow = |client: &&Client| client.manner == Manner::NeverReads;
        Totals {
            turns: machine.turns,
            messages: machine.sum(|r| r.messages.get()),
            hand_overs: machine.sum(|r| r.hand_overs_in.get()),
            takeovers: machine.sum(|r| r.takeovers.get()),
            resumes: machine.sum(|r| r.resumes.get()),
            broadcasts: log.broadcasts.values().sum(),
            throttled: self.clients.iter().filter(is_slow).count() as u64,
            full_boxes: machine.net.borrow().full_boxes,
            lost: self.clients.iter().filter(|client| client.wire.borrow().reset).count() as u64,
            panics: machine.sum(|r| r.panics.get()),
            cut: outcomes.map(|outcome| outcome.cut).sum(),
            figures: self.clients.iter().map(|client| client.figures().count() as u64).sum(),
            whole_figures: {
                let all = machine.len();
                let whole = |client: &Client| client.figures().filter(|f| f.1 == all).count();
                self.clients.iter().map(|client| whole(client) as u64).sum()
            },
            timers: log.fired.values().map(|keys| keys.len() as u64).sum(),
            heartbeats: log.heartbeats,
            answers: log.jobs.values().map(|(_, answered)| answered).sum(),
            refreshes: log.refreshes,
            orphans: log.jobs.values().map(|(asked, answered)| asked - answered).sum(),
            overtakes: log.overtakes,
            cancelled: log.cancelled.load(Ordering::Relaxed),
            given_up: machine.sum(|r| r.offloads_given_up.get()),
            late: machine.status.pool().late(),
            gone_before_their_jobs: self.gone_before_their_jobs,
            kept_for_what_they_said: self.kept_for_what_they_said,
            turned_away: log.turned_away,
            refused: log.refused,
            deferred: log.deferred,
            undecided: log.undecided,
            batches: self.stored.batches,
            taken_back: log.taken_back.values().map(|taken| taken.len() as u64).sum(),
            questions: log.questions,
            learned: log.learned,
            changes: self.machine.status.config_changes(),
            undone: log.undone,
            busy: machine.sum(|r| r.rejections(Rejection::AdmissionBusy.index())),
            bursts: log.bursts,
            lows: log.lows,
            overfed: log.overfed,
            requests: log.requests,
            late_bodies: machine.sum(|r| r.rejections(Rejection::BodyTimeout.index())),
            overtaken: machine.sum(|r| r.rejections(Rejection::Overtaken.index())),
            directs: self.clients.iter().map(|client| client.directs().len() as u64).sum(),
            undelivered: machine.sum(|r| r.undelivered.get()),
            kicked: {
                let was_kicked = |client: &&Client| client.heard.contains(&Heard::Close(4010));
                self.clients.iter().filter(was_kicked).count() as u64
            },
            posts: log.posts,
            posts_for_one: log.posts_for_one,
            full_post_boxes: self.full_post_boxes,
            passed: log.run.values().sum(),
            passes_waited: self.passes_waited,
            shared: log.shared,
            crowded: machine.sum(|r| r.rejections(Rejection::LimitPerSession.index())),
            expired: log.ledger.expired,
            evicted: log.ledger.evicted,
            not_kept: log.ledger.not_kept,
            forgotten: log.ledger.forgotten,
            with_server: log.ledger.with_server,
            handshakes: machine.sum(|r| r.tls_handshakes.get()),
            tls_resumed: machine.sum(|r| r.tls_resumed.get()),
            tls_failures: machine.sum(|r| r.tls_failures.get()),
            plain_on_tls: machine.sum(|r| r.rejections(Rejection::PlainOnTls.index())),
            obituaries: {
                let told = |client: &Client| client.told("obituary ").len() as u64;
                self.clients.iter().map(told).sum()
            },
            limited: {
                let was_limited = |client: &&Client| {
                    client.heard.iter().any(|heard| matches!(heard, Heard::Response(429, _)))
                };
                self.clients.iter().filter(was_limited).count() as u64
            },
        }
    }
}

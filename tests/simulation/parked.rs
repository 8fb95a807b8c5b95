//! Jobs that do not return, one thing at a time: what becomes of their clients, of their slots, and of a
//! drain. (The seeds do the same in all combinations.)

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use revolve::config::{Config, Limits};

use super::pieces::client_bytes::Heard;
use super::pieces::faults::{self, Call, Fault, Strike};

use super::stage::Stage;

const SECOND: Duration = Duration::from_secs(1);

/// A reactor without pings, whose drain takes long.
fn set_stage(limits: Limits) -> Stage {
    let (workers, timeout_graceful_shutdown) = (NonZeroUsize::MIN, 100 * SECOND);
    let config = Config {
        workers,
        timeout_graceful_shutdown,
        ws_ping_interval: None,
        limits,
        ..Config::default()
    };
    let mut stage = Stage::new(config);
    // The reactor's own job, which its heartbeat asks for, is not what is looked at.
    stage.turns();
    stage
}

impl Stage {
    fn fin(&mut self, number: usize) {
        self.clients[number].0.wire.borrow_mut().end();
    }

    fn reset(&mut self, number: usize) {
        self.clients[number].0.wire.borrow_mut().reset();
        self.turns();
    }

    fn is_closed(&self, number: usize) -> bool {
        self.clients[number].0.wire.borrow().closed
    }

    fn texts(&self, number: usize) -> Vec<&str> {
        let texts = self.clients[number].1.iter().filter_map(|heard| match heard {
            Heard::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn said_goodbye(&self, number: usize) -> bool {
        self.clients[number].1.contains(&Heard::Close(1001))
    }

    fn given_up(&self) -> u64 {
        self.machine.sum(|r| r.offloads_given_up.get())
    }

    fn slots_taken(&self) -> u64 {
        self.machine.sum(|r| r.offloads_under_way.get())
    }
}

/// As many jobs as it may have is one.
fn one_at_a_time() -> Limits {
    Limits { offloads_per_connection: 1, ..Limits::default() }
}

#[test]
fn a_reset_ends_a_parked_connection_at_once() {
    for unread in [false, true] {
        let mut stage = set_stage(one_at_a_time());
        let number = stage.connect("", &[]);
        stage.say(number, &["job"]);
        stage.turns();
        if unread {
            stage.say(number, &["never heard"]);
            stage.turns();
        }
        stage.reset(number);
        assert!(stage.is_closed(number));
        assert_eq!(stage.log.borrow().closes, 1, "its job has not returned");
        let lost = stage.machine.status.reactor(0).closes();
        let lost: u64 = lost.filter(|(code, ..)| *code == "1006").map(|(.., count)| count).sum();
        assert_eq!(lost, 1);
        stage.end();
    }
}

#[test]
fn so_does_a_fin_behind_which_nothing_is_unread() {
    // Behind the job's own message, and in one piece with it.
    for later in [true, false] {
        let mut stage = set_stage(one_at_a_time());
        let number = stage.connect("", &[]);
        stage.say(number, &["count", "job"]);
        if later {
            stage.turns();
        }
        stage.fin(number);
        stage.turns();
        assert!(stage.is_closed(number), "later: {later}");
        assert_eq!(stage.log.borrow().closes, 1);
        stage.end();
    }
}

#[test]
fn what_stands_before_a_fin_is_heard_in_order_and_then_it_ends() {
    // In the socket, in the tail that a visit has left, and in both.
    for (with_the_job, behind) in [
        (vec!["job"], vec!["a", "b"]),
        (vec!["job", "a", "b"], vec![]),
        (vec!["job", "a"], vec!["b"]),
    ] {
        let mut stage = set_stage(one_at_a_time());
        let number = stage.connect("", &[]);
        stage.say(number, &with_the_job);
        stage.turns();
        stage.say(number, &behind);
        stage.fin(number);
        for _ in 0..3 {
            stage.turns();
            stage.pass(SECOND);
            assert!(!stage.is_closed(number), "something of it is not heard yet");
        }
        let peer = stage.clients[number].0.address;
        assert_eq!(stage.log.borrow().given.get(&peer), None);
        // The reactor's own jobs come behind it.
        stage.job(0);
        assert_eq!(stage.log.borrow().given[&peer], [1, 2]);
        assert!(stage.is_closed(number) && stage.log.borrow().closes == 1);
        assert_eq!(stage.texts(number), ["job 0", "1", "2"], "it could still be told");
        stage.end();
    }
}

#[test]
fn a_look_that_fails_is_made_again_or_ends_the_connection() {
    for fault in [Fault::Errno(faults::EINTR), Fault::Later, Fault::Errno(faults::ECONNRESET)] {
        let mut stage = set_stage(one_at_a_time());
        let number = stage.connect("", &[]);
        stage.say(number, &["job"]);
        stage.turns();
        stage.faults.plan(Strike { call: Call::Peek, nth: 0, times: 1, fault });
        stage.fin(number);
        stage.turns();
        assert!(stage.is_closed(number), "{fault:?}");
        assert_eq!(stage.faults.struck(), 1);
        stage.end();
    }
}

#[test]
fn a_client_that_awaits_the_answer_to_its_upgrade_is_let_go_of_when_it_resets() {
    let mut stage = set_stage(Limits::default());
    stage.connect("?later=yes", &[]);
    assert_eq!(stage.slots_taken(), 1);
    stage.reset(0);
    assert!(stage.is_closed(0));
    assert!(stage.machine.net.borrow().jobs[0].1.is_cancelled());
    stage.job(0);
    assert_eq!(stage.log.borrow().cancelled.load(Ordering::Relaxed), 1);
    stage.end();
}

#[test]
fn a_job_of_one_that_has_left_gives_its_slot_back_in_time() {
    let limits = Limits { offloads_per_reactor: 3, ..Limits::default() };
    let timeout = limits.offload_orphan_timeout;
    let mut stage = set_stage(limits);
    let (leaver, other) = (stage.connect("", &[]), stage.connect("", &[]));
    stage.say(leaver, &["job", "job", "job"]);
    stage.turns();
    // `on_close` finds no room for its own.
    stage.reset(leaver);
    stage.say(other, &["job"]);
    stage.turns();
    assert_eq!(stage.texts(other), ["job refused"]);
    stage.pass(timeout - SECOND / 10);
    assert_eq!((stage.given_up(), stage.slots_taken()), (0, 3));
    stage.pass(timeout / 4);
    assert_eq!(stage.given_up(), 3);
    stage.say(other, &["job"]);
    stage.turns();
    // They return after all: nobody is told, and the slot of the new one is not theirs.
    for _ in 0..3 {
        stage.job(0);
    }
    assert_eq!(stage.texts(other), ["job refused"]);
    let page = stage.machine.status.metrics_page(stage.machine.now);
    assert!(page.contains("\nrevolve_offloads_stuck 0\n"), "{page}");
    assert!(page.contains("\nrevolve_offloads_given_up_total{reactor=\"0\"} 3\n"), "{page}");
    while stage.texts(other).len() < 2 {
        stage.job(0);
    }
    assert_eq!(stage.texts(other), ["job refused", "job 0"]);
    stage.end();
}

#[test]
fn one_that_no_thread_has_taken_is_not_given_up_and_then_has_its_time() {
    let timeout = Limits::default().offload_orphan_timeout;
    let mut stage = set_stage(Limits::default());
    stage.machine.net.borrow_mut().jobs_wait = true;
    let leaver = stage.connect("", &[]);
    stage.reset(leaver);
    // What `on_close` saves waits for a thread.
    for _ in 0..10 {
        stage.pass(timeout);
    }
    assert_eq!(stage.given_up(), 0);
    stage.machine.net.borrow().jobs[0].1.begin();
    stage.pass(timeout / 2);
    stage.pass(timeout / 2 - SECOND);
    assert_eq!(stage.given_up(), 0, "it has run for less than its time");
    for _ in 0..3 {
        stage.pass(timeout);
    }
    assert_eq!(stage.given_up(), 1);
    stage.end();
}

#[test]
fn a_job_of_one_that_has_not_left_is_not_given_up() {
    let mut stage = set_stage(one_at_a_time());
    let number = stage.connect("", &[]);
    stage.say(number, &["job"]);
    stage.turns();
    for _ in 0..10 {
        stage.pass(Limits::default().offload_orphan_timeout);
    }
    assert_eq!(stage.given_up(), 0);
    stage.job(0);
    assert_eq!(stage.texts(number), ["job 0"]);
    stage.end();
}

#[test]
fn a_drain_waits_for_a_job_until_it_is_given_up() {
    let mut stage = set_stage(Limits::default());
    let leaver = stage.connect("", &[]);
    stage.reset(leaver);
    stage.machine.shut_down();
    stage.turns();
    for second in 0..40 {
        let may_end = second > 29;
        assert!(may_end || !stage.machine.has_ended(), "`on_close` may be saving something");
        // Those of the reactor's heartbeat have nobody that could leave: they return.
        while stage.jobs() > 1 {
            stage.job(1);
        }
        stage.pass(SECOND);
    }
    assert_eq!(stage.given_up(), 1);
    assert!(stage.machine.has_ended(), "its time was not up");
    stage.end();
}

#[test]
fn at_the_end_of_a_drain_whoever_is_still_open_is_told() {
    let mut stage = set_stage(one_at_a_time());
    let (parked, idle) = (stage.connect("", &[]), stage.connect("", &[]));
    stage.say(parked, &["job"]);
    stage.turns();
    stage.machine.shut_down();
    stage.turns();
    assert!(stage.said_goodbye(idle) && !stage.said_goodbye(parked));
    let jobs = stage.jobs();
    stage.pass(101 * SECOND);
    let why = "those of a heartbeat, of its `on_close`, and of the end of its session";
    assert_eq!(stage.jobs(), jobs + 3, "{why}");
    assert!(stage.machine.has_ended());
    stage.turns();
    assert!(stage.said_goodbye(parked), "{:?}", stage.clients[parked].1);
    // Its job sees that nobody waits.
    let jobs_cancelled = stage.machine.net.borrow().jobs.iter().all(|(_, job)| job.is_cancelled());
    assert!(jobs_cancelled);
    stage.end();
}

#[test]
fn an_answer_in_no_order_waits_for_none_and_none_for_it() {
    let mut stage = set_stage(Limits::default());
    let number = stage.connect("", &[]);
    stage.say(number, &["loose job", "job", "loose job", "job"]);
    stage.turns();
    stage.job(3);
    assert!(stage.texts(number).is_empty(), "an earlier one in order is under way");
    stage.job(2);
    assert_eq!(stage.texts(number), ["loose 1"]);
    stage.job(1);
    assert_eq!(stage.texts(number), ["loose 1", "job 0", "job 1"]);
    stage.job(0);
    assert_eq!(stage.texts(number), ["loose 1", "job 0", "job 1", "loose 0"]);
    stage.end();
}

#[test]
fn jobs_in_no_order_count_for_the_same_limit() {
    let mut stage = set_stage(Limits { offloads_per_connection: 2, ..Limits::default() });
    let number = stage.connect("", &[]);
    stage.say(number, &["loose job", "job", "count"]);
    stage.turns();
    assert!(stage.texts(number).is_empty(), "it waits for as many as it may");
    stage.job(0);
    assert_eq!(stage.texts(number), ["loose 0", "1"]);
    stage.end();
}

#[test]
fn a_job_sees_that_its_client_has_left() {
    let mut stage = set_stage(Limits::default());
    let number = stage.connect("", &[]);
    stage.say(number, &["loose job", "loose job"]);
    stage.turns();
    let seen = |stage: &Stage| stage.log.borrow().cancelled.load(Ordering::Relaxed);
    stage.job(0);
    assert_eq!(seen(&stage), 0);
    stage.reset(number);
    stage.job(0);
    assert_eq!(seen(&stage), 1);
    stage.end();
}

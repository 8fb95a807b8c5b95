//! Requests that the application decides by a job: what may happen to them while they wait, one thing at
//! a time. (The seeds do the same in all combinations, but let no job wait for long.)

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use revolve::config::{Config, Limits};
use revolve::connection::timer_wheel::TICK;
use revolve::session::owner_of;

use super::pieces::client_bytes::{Heard, Line, upgrade};
use super::pieces::streams::Wire;
use super::stage::Stage;

const WORKERS: usize = 2;

/// Two reactors that may forget sessions.
fn set_stage(config: Config) -> Stage {
    let workers = NonZeroUsize::new(WORKERS).expect("two");
    let stage = Stage::new(Config { workers, ..config });
    stage.log.borrow_mut().forgets = true;
    stage
}

impl Stage {
    /// A client with this query, which says `hello` as soon as it may.
    fn connect_with(&mut self, query: &str) -> usize {
        self.connect(query, &["hello"])
    }

    fn say_word(&mut self, number: usize, word: &str) {
        self.say(number, &[word]);
        self.turns();
    }

    /// The status that a client was told.
    fn status(&self, number: usize) -> Option<u16> {
        self.clients[number].1.iter().find_map(|heard| match heard {
            Heard::Response(status, _) => Some(*status),
            _ => None,
        })
    }

    fn counts(&self, number: usize) -> &[u64] {
        &self.clients[number].0.counts
    }

    fn closed(&self, number: usize) -> Option<u16> {
        self.clients[number].1.iter().find_map(|heard| match heard {
            Heard::Close(code) => Some(*code),
            _ => None,
        })
    }
}

/// A session of that reactor's.
fn name(owner: usize) -> String {
    let names = (0..).map(|n| format!("s{n}"));
    names.into_iter().find(|name| owner_of(name, WORKERS) == owner).expect("one in two is")
}

fn later(how: &str, owner: usize) -> String {
    format!("?session_id={}&later={how}", name(owner))
}

#[test]
fn the_answer_opens_or_refuses_and_what_was_said_early_counts_then() {
    let mut stage = set_stage(Config::default());
    // Here, and on the reactor to which it is handed over first.
    for owner in [0, 1] {
        let number = stage.connect_with(&later("again", owner));
        assert_eq!((stage.status(number), stage.jobs()), (None, 1));
        stage.job(0);
        assert_eq!((stage.status(number), stage.jobs()), (None, 1), "it asks once more");
        stage.job(0);
        assert_eq!(stage.status(number), Some(101));
        assert_eq!(stage.counts(number), [1]);
        stage.say_word(number, "hello");
        assert_eq!(stage.counts(number), [1, 2]);
    }
    for (how, status) in [("no", 403), ("fails", 500), ("panics", 500)] {
        let number = stage.connect_with(&format!("?later={how}"));
        assert_eq!(stage.status(number), None);
        stage.job(0);
        assert_eq!(stage.status(number), Some(status), "{how}");
    }
    stage.end();
}

#[test]
fn an_answer_that_is_late_is_not_waited_for() {
    let config = Config { timeout_handshake: Duration::from_secs(10), ..Config::default() };
    let mut stage = set_stage(config);
    let number = stage.connect_with(&later("yes", 0));
    stage.pass(Duration::from_secs(10) - TICK);
    assert_eq!(stage.status(number), None);
    stage.pass(3 * TICK);
    assert_eq!(stage.status(number), Some(503));
    // Nobody is called then.
    stage.job(0);
    assert_eq!(stage.log.borrow().opens, 0);
    stage.end();
}

#[test]
fn one_too_many_is_told_at_once() {
    let limits = Limits { offloads_per_reactor: 2, ..Limits::default() };
    let mut stage = set_stage(Config { limits, ..Config::default() });
    let numbers = [(); 3].map(|()| stage.connect_with("?later=yes"));
    assert_eq!(numbers.map(|number| stage.status(number)), [None, None, Some(503)]);
    stage.job(0);
    stage.job(0);
    assert_eq!(numbers.map(|number| stage.status(number)), [Some(101), Some(101), Some(503)]);
    stage.end();
}

#[test]
fn a_drain_does_not_wait_for_answers() {
    let mut stage = set_stage(Config::default());
    let numbers = [0, 1].map(|owner| stage.connect_with(&later("yes", owner)));
    stage.machine.shut_down();
    stage.turns();
    assert_eq!(numbers.map(|number| stage.status(number)), [Some(503), Some(503)]);
    assert_eq!(stage.jobs(), 2);
    // Nor for the jobs that nobody misses.
    stage.pass(Duration::from_secs(1));
    assert!(stage.machine.has_ended());
    stage.end();
}

#[test]
fn a_client_that_has_left_takes_nothing_over() {
    for resets in [false, true] {
        let mut stage = set_stage(Config::default());
        let older = stage.connect_with(&format!("?session_id={}", name(0)));
        assert_eq!(stage.counts(older), [1]);
        let newer = stage.connect_with(&later("yes", 0));
        match resets {
            true => stage.clients[newer].0.wire.borrow_mut().reset(),
            false => stage.clients[newer].0.wire.borrow_mut().end(),
        }
        stage.turns();
        stage.job(0);
        assert_eq!(stage.status(newer), (!resets).then_some(409));
        stage.say_word(older, "hello");
        assert_eq!((stage.counts(older), stage.closed(older)), (&[1, 2][..], None));
        stage.end();
    }
}

#[test]
fn an_older_connection_goes_on_until_the_answer() {
    let mut stage = set_stage(Config::default());
    let older = stage.connect_with(&format!("?session_id={}", name(1)));
    let newer = stage.connect_with(&later("yes", 1));
    stage.say_word(older, "hello");
    assert_eq!((stage.counts(older), stage.closed(older)), (&[1, 2][..], None));
    stage.job(0);
    assert_eq!((stage.status(newer), stage.closed(older)), (Some(101), Some(4001)));
    assert_eq!(stage.counts(newer), [3]);
    stage.end();
}

#[test]
fn of_several_requests_for_one_session_the_one_that_came_last_has_it() {
    // Answered in the order of asking, each displaces the one before it.
    let mut stage = set_stage(Config::default());
    let numbers = [(); 3].map(|()| stage.connect_with(&later("yes", 0)));
    (0..3).for_each(|_| stage.job(0));
    assert_eq!(numbers.map(|number| stage.status(number)), [Some(101); 3]);
    assert_eq!(numbers.map(|number| stage.closed(number)), [Some(4001), Some(4001), None]);
    stage.end();
    // The second is answered first: the first comes too late, and the third displaces it.
    let mut stage = set_stage(Config::default());
    let numbers = [(); 3].map(|()| stage.connect_with(&later("yes", 0)));
    stage.job(1);
    assert_eq!(numbers.map(|number| stage.status(number)), [Some(409), Some(101), None]);
    (0..2).for_each(|_| stage.job(0));
    assert_eq!(numbers.map(|number| stage.status(number)), [Some(409), Some(101), Some(101)]);
    assert_eq!(numbers.map(|number| stage.closed(number)), [None, Some(4001), None]);
    stage.end();
}

#[test]
fn a_session_waits_for_the_answer() {
    let ttl = Duration::from_secs(2);
    for session_ttl in [ttl, Duration::ZERO] {
        let mut stage = set_stage(Config { session_ttl, ..Config::default() });
        let older = stage.connect_with(&format!("?session_id={}", name(0)));
        let newer = stage.connect_with(&later("yes", 0));
        // The older one leaves, and its session's time would be over.
        stage.clients[older].0.wire.borrow_mut().end();
        stage.turns();
        stage.pass(3 * ttl);
        stage.job(0);
        assert_eq!((stage.status(newer), stage.counts(newer)), (Some(101), &[2][..]));
        stage.end();
        // If the answer is no, its time begins.
        let mut stage = set_stage(Config { session_ttl, ..Config::default() });
        let older = stage.connect_with(&format!("?session_id={}", name(0)));
        stage.connect_with(&later("no", 0));
        stage.clients[older].0.wire.borrow_mut().end();
        stage.turns();
        stage.pass(3 * ttl);
        let sessions =
            |stage: &Stage| stage.machine.shards().map(|s| s.session_counts().len()).sum::<usize>();
        assert_eq!(sessions(&stage), 1);
        stage.job(0);
        assert_eq!(sessions(&stage), usize::from(!session_ttl.is_zero()));
        // A process that was not turned for so long may have been stopped: sessions wait a second.
        (0..4).for_each(|_| stage.pass(ttl));
        assert_eq!(sessions(&stage), 0);
        stage.end();
    }
}

#[test]
fn a_request_that_is_refused_does_not_prolong_the_life_of_a_session() {
    let ttl = Duration::from_secs(2);
    let mut stage = set_stage(Config { session_ttl: ttl, ..Config::default() });
    let owner = stage.connect_with(&format!("?session_id={}", name(0)));
    stage.clients[owner].0.wire.borrow_mut().end();
    stage.turns();
    let sessions =
        |stage: &Stage| stage.machine.shards().map(|s| s.session_counts().len()).sum::<usize>();
    for _ in 0..10 {
        let stranger = stage.connect_with(&later("no", 0));
        stage.machine.net.borrow_mut().run_jobs();
        stage.turns();
        assert_eq!(stage.status(stranger), Some(403));
        stage.pass(ttl / 4);
    }
    assert_eq!(sessions(&stage), 0);
    stage.end();
}

#[test]
fn where_ids_are_issued_a_name_that_is_not_taken_up_overtakes_nobody() {
    let session_ids = revolve::SessionIds::Issued;
    let mut stage = set_stage(Config { session_ids, ..Config::default() });
    let numbers = [(); 2].map(|()| stage.connect_with(&later("yes", 0)));
    stage.job(1);
    stage.job(0);
    assert_eq!(numbers.map(|number| stage.status(number)), [Some(101); 2]);
    stage.end();
}

#[test]
fn a_session_that_began_meanwhile_waits_too() {
    let mut stage = set_stage(Config { session_ttl: Duration::ZERO, ..Config::default() });
    let first = stage.connect_with(&later("yes", 0));
    let second = stage.connect_with(&later("again", 0));
    stage.job(0);
    assert_eq!(stage.counts(first), [1]);
    // It asks once more, and the first one leaves.
    stage.job(0);
    stage.clients[first].0.wire.borrow_mut().end();
    stage.turns();
    stage.job(0);
    assert_eq!((stage.status(second), stage.counts(second)), (Some(101), &[2][..]));
    stage.end();
}

#[test]
fn who_waits_for_a_session_that_is_forgotten_opens_with_a_new_one() {
    let mut stage = set_stage(Config { session_ttl: Duration::ZERO, ..Config::default() });
    let older = stage.connect_with(&format!("?session_id={}", name(0)));
    let [refused, newer] = ["no", "again"].map(|how| stage.connect_with(&later(how, 0)));
    stage.say_word(older, "forget");
    // One that holds it no more ends, and one asks once more.
    (0..2).for_each(|_| stage.job(0));
    assert_eq!((stage.status(refused), stage.status(newer)), (Some(403), None));
    stage.job(0);
    assert_eq!((stage.status(newer), stage.counts(newer)), (Some(101), &[1][..]));
    stage.say_word(older, "hello");
    assert_eq!((stage.counts(older), stage.closed(older)), (&[1, 2][..], None));
    // The new one of that name is held like any other.
    let newest = stage.connect_with(&later("yes", 0));
    for number in [newer, older] {
        stage.clients[number].0.wire.borrow_mut().end();
        stage.turns();
    }
    stage.job(0);
    assert_eq!((stage.status(newest), stage.counts(newest)), (Some(101), &[2][..]));
    assert_eq!(stage.log.borrow().ledger.forgotten, 1);
    stage.end();
}

/// The connection that waits holds the session which began under the name meanwhile.
#[test]
fn who_waited_for_a_session_that_is_forgotten_waits_for_its_successor() {
    let mut stage = set_stage(Config { session_ttl: Duration::ZERO, ..Config::default() });
    let older = stage.connect_with(&format!("?session_id={}", name(0)));
    let first = stage.connect_with(&later("yes", 0));
    let last = stage.connect_with(&later("yes", 0));
    stage.say_word(older, "forget");
    stage.job(0);
    stage.clients[first].0.wire.borrow_mut().end();
    stage.turns();
    stage.job(0);
    assert_eq!((stage.status(last), stage.counts(last)), (Some(101), &[2][..]));
    assert_eq!(stage.counts(older), [1]);
    stage.end();
}

/// Its answer came, but so much waits for the client that it is not read: it is told why it ends.
#[test]
fn one_that_does_not_read_is_not_cut_without_a_word() {
    let limits = Limits { send_stall: Duration::from_secs(60), ..Limits::default() };
    let mut stage = set_stage(Config { max_send_buffer: 1024, limits, ..Config::default() });
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let line = Line::new(address, Wire::new(1000, 0));
    line.say(&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2));
    line.say(&upgrade("?later=yes"));
    stage.machine.connect(0, &line.wire, address);
    stage.machine.quiet(|| false);
    assert_eq!(stage.jobs(), 1);
    stage.machine.net.borrow_mut().run_jobs();
    stage.machine.quiet(|| false);
    stage.machine.now += Duration::from_secs(11);
    stage.machine.quiet(|| false);
    assert_eq!(stage.machine.sum(|cells| cells.silent.get()), 0);
    stage.clients.push((line, Vec::new()));
    stage.turns();
    let last = stage.clients[0].1.iter().rfind(|heard| matches!(heard, Heard::Response(..)));
    assert!(matches!(last, Some(Heard::Response(503, _))), "{last:?}");
    stage.end();
}

//! A drain whose goodbyes are spread over a time: who is told when, and that all else goes on meanwhile. (The seeds
//! do the same in all combinations.)

use std::num::NonZeroUsize;
use std::time::Duration;

use revolve::config::{Config, Limits};

use super::pieces::client_bytes::Heard;
use super::stage::Stage;

const SECOND: Duration = Duration::from_secs(1);

fn set_stage(drain_over: Duration, goodbyes_per_turn: usize) -> Stage {
    let config = Config {
        workers: NonZeroUsize::MIN,
        timeout_graceful_shutdown: 100 * SECOND,
        drain_over,
        ws_ping_interval: None,
        limits: Limits { goodbyes_per_turn, ..Limits::default() },
        ..Config::default()
    };
    let mut stage = Stage::new(config);
    stage.turns();
    stage
}

fn told(stage: &Stage) -> usize {
    let is_told = |heard: &[Heard]| heard.contains(&Heard::Close(1001));
    stage.clients.iter().filter(|(_, heard)| is_told(heard)).count()
}

#[test]
fn goodbyes_come_one_by_one_and_the_last_before_the_time_is_over() {
    // However many may be said in a turn.
    for goodbyes_per_turn in [1, 3, 1000] {
        let mut stage = set_stage(50 * SECOND, goodbyes_per_turn);
        for _ in 0..10 {
            stage.connect("", &[]);
        }
        stage.machine.shut_down();
        stage.turns();
        for second in 0..50 {
            assert_eq!(told(&stage), second / 5 + 1, "after {second} s");
            stage.pass(SECOND);
        }
        assert_eq!(told(&stage), 10);
        stage.end();
    }
}

#[test]
fn a_pause_of_the_process_is_caught_up_with() {
    let mut stage = set_stage(50 * SECOND, 2);
    for _ in 0..10 {
        stage.connect("", &[]);
    }
    stage.machine.shut_down();
    stage.turns();
    stage.pass(26 * SECOND);
    assert_eq!(told(&stage), 6);
    stage.pass(30 * SECOND);
    assert_eq!(told(&stage), 10);
    stage.end();
}

#[test]
fn who_has_not_been_told_is_served_and_who_leaves_is_not_waited_for() {
    let mut stage = set_stage(50 * SECOND, 1000);
    let [first, leaves, last] = [(); 3].map(|()| stage.connect("", &[]));
    stage.machine.shut_down();
    stage.turns();
    assert_eq!(told(&stage), 1);
    stage.say(last, &["count"]);
    stage.turns();
    assert!(stage.clients[last].1.contains(&Heard::Text("1".to_owned())), "it is served");
    stage.clients[leaves].0.wire.borrow_mut().reset();
    stage.turns();
    stage.pass(17 * SECOND);
    assert_eq!(told(&stage), 2, "the next in order has moved up");
    assert!(stage.clients[last].1.contains(&Heard::Close(1001)));
    assert!(stage.clients[first].1.contains(&Heard::Close(1001)));
    stage.end();
}

#[test]
fn the_end_of_the_drain_is_not_put_off() {
    let mut stage = set_stage(99 * SECOND, 1000);
    for _ in 0..3 {
        stage.connect("", &["job"]);
    }
    stage.machine.shut_down();
    stage.turns();
    stage.pass(100 * SECOND);
    assert!(stage.machine.has_ended());
    stage.end();
}

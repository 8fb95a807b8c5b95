//! A callback that blocks holds up its own reactor, and nothing else: not the other reactors' clients,
//! not the threads of the pool, and not the shutdown. (In every order of events: the simulation.)

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::client::{PATIENCE, Raw, Running, close, config, eventually, upgrade};
use super::gate::Gate;
use revolve::session::owner_of;
use revolve::{Config, Limits};

/// Two reactors whose mailboxes hold one mail, and a drain that nothing but its own time cuts short.
fn narrow() -> Config {
    let limits = Limits { mailbox_capacity: 1, ..Limits::default() };
    Config { limits, timeout_graceful_shutdown: Duration::from_secs(60), ..config(2) }
}

/// A client with a session of that reactor's, wherever the kernel let it land.
fn open_on(server: &Running, owner: usize, name: &str) -> Raw {
    let names = (0..).map(|n| format!("{name}-{n}"));
    let name = names.into_iter().find(|name| owner_of(name, 2) == owner).unwrap();
    server.open(&format!("session_id={name}"))
}

/// So many upgrades for sessions of reactor 0, accepted by reactor 1 for the most part.
fn crowd(server: &Running, many: usize) -> Vec<Raw> {
    let names = (0..).map(|n| format!("crowd-{n}")).filter(|name| owner_of(name, 2) == 0);
    let one = |name: String| {
        let mut raw = server.connect();
        raw.send(upgrade(&format!("session_id={name}")));
        raw
    };
    names.take(many).map(one).collect()
}

#[test]
fn the_clients_of_the_other_reactor_are_served() {
    let (server, gate) = Gate::serve(narrow());
    let mut keeper = open_on(&server, 0, "keeper");
    let mut bystander = open_on(&server, 1, "bystander");
    gate.hold(&mut keeper);
    let crowd = crowd(&server, 40);
    for _ in 0..50 {
        bystander.say("hello");
        assert_eq!(bystander.text(), "heard");
        bystander.say("job");
        assert_eq!(bystander.text(), "done");
    }
    gate.let_go();
    assert_eq!(keeper.text(), "heard");
    for mut raw in crowd {
        assert_eq!(raw.head().status, 101, "handed over in the end");
    }
}

#[test]
fn its_answers_do_not_hold_up_the_pool() {
    let (server, gate) = Gate::serve(narrow());
    let mut keeper = open_on(&server, 0, "keeper");
    let mut bystander = open_on(&server, 1, "bystander");
    // More jobs than the pool has threads, whose answers go to a reactor that takes none.
    let mut asking: Vec<_> = (0..8).map(|n| open_on(&server, 0, &format!("asking-{n}"))).collect();
    for raw in &mut asking {
        raw.say("job");
    }
    gate.hold(&mut keeper);
    let _crowd = crowd(&server, 10);
    for _ in 0..20 {
        bystander.say("job");
        assert_eq!(bystander.text(), "done");
    }
    gate.let_go();
    for raw in &mut asking {
        assert_eq!(raw.text(), "done");
    }
}

#[test]
fn the_shutdown_begins_at_once_and_everywhere() {
    let (server, gate) = Gate::serve(narrow());
    let mut keeper = open_on(&server, 0, "keeper");
    let mut bystander = open_on(&server, 1, "bystander");
    gate.hold(&mut keeper);
    let crowd = crowd(&server, 40);
    let (begun, has_begun) = channel();
    let trigger = server.handle().trigger();
    let begin = thread::spawn(move || {
        trigger.begin();
        trigger.begin();
        begun.send(()).unwrap();
    });
    has_begun.recv_timeout(PATIENCE).expect("it waits for the reactor that is held up");
    assert_eq!(bystander.close(), (1001, "server is going away".to_owned()));
    bystander.send(close(1001));
    bystander.at_end();
    gate.let_go();
    assert_eq!(keeper.text(), "heard");
    assert_eq!(keeper.close().0, 1001);
    keeper.send(close(1001));
    keeper.at_end();
    drop(crowd);
    begin.join().unwrap();
    assert_eq!(server.shut_down().cut, 0);
}

#[test]
fn a_watchdog_sees_it_and_that_it_is_over() {
    let (server, gate) = Gate::serve(config(2));
    let mut liveness = server.handle().liveness();
    let mut keeper = open_on(&server, 0, "keeper");
    // Reactors that have nothing to do turn because they are looked at.
    for _ in 0..3 {
        eventually("a turn of each", || liveness.look());
    }
    gate.hold(&mut keeper);
    // The turn that is held has begun before this look.
    liveness.look();
    for _ in 0..20 {
        assert!(!liveness.look(), "one of them stands still");
        thread::sleep(Duration::from_millis(1));
    }
    gate.let_go();
    assert_eq!(keeper.text(), "heard");
    eventually("a turn of each", || liveness.look());
    drop(keeper);
    server.shut_down();
    assert!(liveness.look() && liveness.look(), "who has ended is not missed");
}

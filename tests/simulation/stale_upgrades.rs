//! What a client left behind on one connection must not happen after it was told, on a newer one,
//! how far its session had counted. (The soak found it: a request with three messages lay in a busy
//! reactor's queue while its client, which had given up, was back and gone again elsewhere.)

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use revolve::config::Config;
use revolve::session::owner_of;

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, frame, upgrade};
use super::pieces::faults::Faults;
use super::pieces::machine::Machine;
use super::pieces::recorder::{Log, Recorder};
use super::pieces::streams::Wire;

#[test]
fn what_was_given_up_is_not_counted_later() {
    let workers = NonZeroUsize::new(2).expect("two");
    let config = Arc::new(Config { workers, access_log: false, ..Config::default() });
    let log = Rc::new(RefCell::new(Log::default()));
    let mut machine = Machine::new(&config, 8, 1, Faults::default(), |start| Recorder {
        reactor: start.reactor(),
        log: log.clone(),
    });
    let name = (0..).map(|n| format!("s{n}")).find(|name| owner_of(name, 2) == 0);
    let name = name.expect("every second one is");
    let chance = &mut Chance(1);
    let words = |messages: usize, chance: &mut Chance| {
        let mut words = upgrade(&format!("?session_id={name}"));
        (0..messages).for_each(|_| words.extend(frame(0x81, b"one more", chance)));
        words
    };
    let connect = |machine: &mut Machine<Recorder>, at, port, words: &[u8]| {
        let line = Line::new(SocketAddr::from(([127, 0, 0, 1], port)), Wire::new(20_000, 0));
        line.say(words);
        machine.connect(at, &line.wire, line.address);
        line
    };
    // It gives up on reactor 1, which has no turn to give.
    let mut past = connect(&mut machine, 1, 1, &words(3, chance));
    past.wire.borrow_mut().end();
    // It is back on the owner, counts once, and leaves.
    let mut newer = connect(&mut machine, 0, 2, &words(1, chance));
    let mut heard = Vec::new();
    while !heard.contains(&Heard::Text("1".to_owned())) {
        assert!(machine.turn_if_woken(0), "no reply");
        newer.act(usize::MAX, chance, &mut heard);
    }
    newer.wire.borrow_mut().end();
    while machine.turn_if_woken(0) {}
    // Now reactor 1 gets to it.
    let mut answer = Vec::new();
    machine.quiet(|| past.act(usize::MAX, chance, &mut answer));
    assert_eq!(answer, [Heard::Response(409, None)]);
    assert!(machine.shards().any(|shard| shard.session_counts() == [(name.clone(), 1)]));
    log.borrow().check_sessions(&machine);
}

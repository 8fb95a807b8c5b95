//! Connections from a listener that one shard alone has: it deals them out to all, each in its turn,
//! and serves those itself that another has no room for.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use revolve::config::Config;
use revolve::{Echo, Peer};

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Line, upgrade};
use super::pieces::faults::Faults;
use super::pieces::machine::Machine;
use super::pieces::streams::Wire;

const WORKERS: usize = 3;
/// The one with the listener.
const ACCEPTS: usize = 1;
/// The one that gets no turn at first.
const HELD_UP: usize = 0;
/// Mails that a box holds.
const CAPACITY: usize = 2;

fn connect(machine: &mut Machine<Echo>) -> Line {
    // The address is nobody's: a Unix peer has none.
    let line = Line::new(SocketAddr::from(([0, 0, 0, 0], 0)), Wire::new(9000, 0));
    line.say(&upgrade(""));
    machine.connect(ACCEPTS, &line.wire, Peer::Unix);
    line
}

fn statuses(lines: &mut [Line]) -> Vec<Option<u16>> {
    let status = |line: &mut Line| {
        let mut heard = Vec::new();
        line.act(usize::MAX, &mut Chance(1), &mut heard);
        heard.iter().find_map(|heard| match heard {
            Heard::Response(status, _) => Some(*status),
            _ => None,
        })
    };
    lines.iter_mut().map(status).collect()
}

#[test]
fn each_shard_gets_its_share_but_none_waits_for_a_full_mailbox() {
    let workers = NonZeroUsize::new(WORKERS).expect("three");
    let config = Arc::new(Config { workers, access_log: false, ..Config::default() });
    let mut machine = Machine::new(&config, CAPACITY, 1, Faults::default(), |_| Echo);
    let mut lines = Vec::new();
    for round in 0..4 {
        lines.extend((0..WORKERS).map(|_| connect(&mut machine)));
        // All but the one that is held up.
        while machine.turn_if_woken(ACCEPTS) | machine.turn_if_woken(2) {}
        let unheard =
            statuses(&mut lines[round * WORKERS..]).iter().filter(|s| s.is_none()).count();
        assert_eq!(unheard, usize::from(round < CAPACITY), "round {round}");
    }
    let open = |machine: &Machine<Echo>, at: usize| machine.status.reactor(at).websockets.get();
    assert_eq!([0, 1, 2].map(|at| open(&machine, at)), [0, 6, 4]);
    while machine.turn_if_woken(HELD_UP) {}
    assert_eq!([0, 1, 2].map(|at| open(&machine, at)), [2, 6, 4]);
    assert_eq!(machine.sum(|cells| cells.hand_overs_out.get()), 6);
    assert_eq!(machine.sum(|cells| cells.hand_overs_in.get()), 6);
    // In a drain the others may have ended, so nobody is sent to them.
    let mut late = [(); WORKERS].map(|()| connect(&mut machine));
    machine.shut_down();
    machine.turn_if_woken(ACCEPTS);
    assert_eq!(statuses(&mut late), [Some(503); WORKERS]);
    machine.quiet(|| {
        let mut acted = false;
        for line in lines.iter_mut().chain(&mut late) {
            acted |= line.act(usize::MAX, &mut Chance(1), &mut Vec::new());
        }
        acted
    });
    machine.now += config.timeout_graceful_shutdown;
    machine.quiet(|| false);
    machine.check_released();
}

/// A reactor that gets to them late, because a callback or a pause of the process held it up, hears them
/// before it judges them: they have spoken in time.
#[test]
fn one_that_waited_long_in_the_mailbox_is_heard_before_it_is_judged() {
    let workers = NonZeroUsize::new(WORKERS).expect("three");
    let config = Arc::new(Config { workers, access_log: false, ..Config::default() });
    let mut machine = Machine::new(&config, CAPACITY, 1, Faults::default(), |_| Echo);
    let mut lines = [(); WORKERS].map(|()| connect(&mut machine));
    while machine.turn_if_woken(ACCEPTS) | machine.turn_if_woken(2) {}
    machine.now += config.timeout_handshake + std::time::Duration::from_millis(1);
    while machine.turn_if_woken(HELD_UP) {}
    assert_eq!(statuses(&mut lines), [Some(101); WORKERS]);
    assert_eq!(machine.sum(|cells| cells.silent.get()), 0);
}

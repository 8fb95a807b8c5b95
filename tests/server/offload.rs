//! Off-loaded work on real threads: it holds nobody, comes back in order, and never gets lost.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::client::{PATIENCE, Running, TEXT, close, config, eventually, frame, quiet_reactors};
use revolve::{Application, Cancellation, CloseReason, Config, Context, Message};

/// Does what it is told, elsewhere: `wait N` until the test lets go of N, `panic`, `now`, or `watch`
/// until nobody waits for it; all else it answers here.
#[derive(Clone)]
struct Desk {
    gates: Arc<Vec<Receiver<()>>>,
    /// Where answers were called: by thread.
    answered_on: Arc<Mutex<Vec<String>>>,
    saved: Sender<()>,
    /// Jobs that have seen that nobody waits.
    cancelled: Sender<()>,
}

impl Desk {
    fn watch(&self, cx: &mut Context<'_, Self>) {
        let cancelled = self.cancelled.clone();
        let job = move |cancellation: &Cancellation| {
            let begin = Instant::now();
            while !cancellation.is_requested() {
                assert!(begin.elapsed() < 2 * PATIENCE, "it was never told");
                thread::sleep(Duration::from_millis(1));
            }
            let _ = cancelled.send(());
        };
        let taken = cx.offload_cancellable(job, |_, _, ()| panic!("it has left"));
        taken.unwrap();
    }
}

fn here() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

impl Application for Desk {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let Message::Text(text) = message else { return cx.close(1003, "text only") };
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let gate = match word {
            "wait" => Some(self.gates[rest.parse::<usize>().unwrap()].clone()),
            "panic" | "now" => None,
            "watch" => return self.watch(cx),
            _ => return cx.send_text(text),
        };
        let panics = word == "panic";
        let text = text.to_owned();
        let job = move || {
            assert!(!panics, "as asked");
            if let Some(gate) = gate {
                let _ = gate.recv_timeout(2 * PATIENCE);
            }
            (text, here())
        };
        let done =
            |desk: &mut Self, cx: &mut Context<'_, Self>, (text, there): (String, String)| {
                assert!(there.starts_with("offload-"), "the job was run on {there}");
                desk.answered_on.lock().unwrap().push(here());
                cx.send_text(&format!("done: {text}"));
            };
        if cx.offload(job, done).is_err() {
            cx.send_text("full");
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _reason: CloseReason) {
        let saved = self.saved.clone();
        let _ = cx.offload(move || saved.send(()), |_, _, _| panic!("it has left"));
    }
}

struct Office {
    server: Running,
    gates: Vec<Sender<()>>,
    answered_on: Arc<Mutex<Vec<String>>>,
    saves: Receiver<()>,
    cancels: Receiver<()>,
}

fn office(config: Config) -> Office {
    quiet_reactors();
    let (senders, gates): (Vec<_>, Vec<_>) = (0..8).map(|_| bounded(8)).unzip();
    let answered_on = Arc::<Mutex<Vec<String>>>::default();
    let ((saved, saves), (cancelled, cancels)) = (unbounded(), unbounded());
    let desk = Desk { gates: Arc::new(gates), answered_on: answered_on.clone(), saved, cancelled };
    let server = Running::new(config, move |_| desk.clone());
    Office { server, gates: senders, answered_on, saves, cancels }
}

#[test]
fn work_elsewhere_holds_nobody_here_and_is_answered_here() {
    let office = office(config(1));
    let mut worker = office.server.open("");
    let mut other = office.server.open("");
    worker.say("wait 0");
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    // The one reactor serves others, and the same connection's further messages too.
    for raw in [&mut other, &mut worker] {
        raw.say("hello");
        assert_eq!(raw.text(), "hello");
    }
    office.gates[0].send(()).unwrap();
    assert_eq!(worker.text(), "done: wait 0");
    assert_eq!(*office.answered_on.lock().unwrap(), ["reactor-0"]);
    office.server.wait_for("revolve_offloads_under_way", "", 0);
    assert_eq!(office.server.metric("revolve_offloads_total", ""), 1);
}

#[test]
fn answers_come_in_the_order_of_asking() {
    let office = office(config(1));
    let mut raw = office.server.open("");
    // Three jobs on four threads. The last ones are done long before the first.
    raw.send([frame(TEXT, "wait 0"), frame(TEXT, "wait 1"), frame(TEXT, "now")].concat());
    office.gates[1].send(()).unwrap();
    eventually("the second job begins", || office.gates[1].is_empty());
    raw.say("hello");
    assert_eq!(raw.text(), "hello", "no answer has overtaken the first");
    office.gates[0].send(()).unwrap();
    for text in ["done: wait 0", "done: wait 1", "done: now"] {
        assert_eq!(raw.text(), text);
    }
}

#[test]
fn a_job_that_panics_ends_its_connection_only() {
    let office = office(config(1));
    let mut witness = office.server.open("");
    let mut raw = office.server.open("");
    witness.say("wait 0");
    raw.send([frame(TEXT, "now"), frame(TEXT, "panic"), frame(TEXT, "now")].concat());
    assert_eq!(raw.text(), "done: now", "what came before it");
    assert_eq!(raw.close(), (1011, "internal error".to_owned()));
    raw.at_end();
    office.gates[0].send(()).unwrap();
    assert_eq!(witness.text(), "done: wait 0");
    assert_eq!(office.server.metric("revolve_panics_total", ""), 1);
    office.server.wait_for("revolve_offloads_under_way", "", 0);
}

#[test]
fn a_full_pool_is_an_answer() {
    let mut config = config(1);
    config.limits.offloads_per_reactor = 2;
    let office = office(config);
    let mut raw = office.server.open("");
    let jobs = ["wait 0", "wait 1", "now"].map(|text| frame(TEXT, text));
    raw.send(jobs.concat());
    assert_eq!(raw.text(), "full");
    office.gates[0].send(()).unwrap();
    assert_eq!(raw.text(), "done: wait 0");
    raw.say("now");
    office.gates[1].send(()).unwrap();
    assert_eq!(raw.text(), "done: wait 1");
    assert_eq!(raw.text(), "done: now");
}

#[test]
fn whoever_waits_for_as_much_as_it_may_is_not_heard() {
    let mut config = config(1);
    config.limits.offloads_per_connection = 1;
    let office = office(config);
    let mut raw = office.server.open("");
    let mut other = office.server.open("");
    raw.send([frame(TEXT, "wait 0"), frame(TEXT, "hello"), frame(TEXT, "wait 1")].concat());
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    raw.say("second packet");
    other.say("still served");
    assert_eq!(other.text(), "still served");
    assert_eq!(office.server.metric("revolve_messages_total", ""), 2);
    office.gates[0].send(()).unwrap();
    for text in ["done: wait 0", "hello"] {
        assert_eq!(raw.text(), text);
    }
    office.gates[1].send(()).unwrap();
    for text in ["done: wait 1", "second packet"] {
        assert_eq!(raw.text(), text);
    }
}

#[test]
fn silence_while_waiting_is_not_held_against_a_client() {
    let mut config = config(1);
    config.limits.offloads_per_connection = 1;
    config.ws_ping_interval = Some(Duration::from_millis(50));
    config.ws_ping_timeout = Some(Duration::from_millis(400));
    let office = office(config);
    let (mut client, _) = office.server.client("");
    client.send("wait 0".into()).unwrap();
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    // Whatever it answers to pings now, nobody would hear it.
    thread::sleep(Duration::from_millis(1000));
    office.gates[0].send(()).unwrap();
    loop {
        match client.read().unwrap() {
            tungstenite::Message::Ping(_) => {}
            message => break assert_eq!(message.to_text().unwrap(), "done: wait 0"),
        }
    }
}

#[test]
fn an_answer_to_one_that_has_left_is_dropped() {
    let office = office(config(1));
    let mut raw = office.server.open("session_id=worker");
    raw.say("wait 0");
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    raw.reset();
    office.saves.recv_timeout(PATIENCE).expect("what `on_close` off-loads is done");
    // The same session, another connection: the answer is not for this one.
    let mut raw = office.server.open("session_id=worker");
    office.gates[0].send(()).unwrap();
    office.server.wait_for("revolve_offloads_under_way", "", 0);
    raw.say("hello");
    assert_eq!(raw.text(), "hello");
    assert!(office.answered_on.lock().unwrap().is_empty());
}

#[test]
fn no_answer_is_lost_in_a_full_mailbox() {
    let mut config = config(2);
    config.limits.mailbox_capacity = 1;
    config.limits.mails_per_turn = 1;
    config.limits.offloads_per_connection = 64;
    let office = office(config);
    let mut clients: Vec<_> = (0..8).map(|_| office.server.open("")).collect();
    for raw in &mut clients {
        raw.send(frame(TEXT, "now").repeat(60));
    }
    let mut full = 0;
    for raw in &mut clients {
        for _ in 0..60 {
            match raw.text().as_str() {
                "done: now" => {}
                "full" => full += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    let taken = office.server.metric("revolve_offloads_total", "");
    assert_eq!(taken + full, 8 * 60, "each was answered once");
    office.server.wait_for("revolve_offloads_under_way", "", 0);
}

#[test]
fn a_drain_waits_for_answers_and_then_says_goodbye() {
    let office = office(Config { timeout_graceful_shutdown: PATIENCE, ..config(1) });
    let mut worker = office.server.open("");
    let mut idle = office.server.open("");
    worker.say("wait 0");
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    office.server.handle().shutdown();
    let goodbye = (1001, "server is going away".to_owned());
    assert_eq!(idle.close(), goodbye);
    idle.send(close(1001));
    idle.gone();
    worker.say("unheard");
    office.gates[0].send(()).unwrap();
    assert_eq!(worker.text(), "done: wait 0");
    assert_eq!(worker.close(), goodbye);
    worker.send(close(1001));
    worker.gone();
    let summary = office.server.shut_down();
    assert_eq!((summary.closed, summary.cut), (2, 0));
    assert_eq!(office.saves.try_iter().count(), 2, "each `on_close` had its job done");
}

#[test]
fn a_job_that_does_not_return_does_not_hold_the_end() {
    let office =
        office(Config { timeout_graceful_shutdown: Duration::from_millis(300), ..config(1) });
    let mut raw = office.server.open("");
    raw.say("wait 0");
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    let begin = Instant::now();
    let summary = office.server.shut_down();
    assert!(begin.elapsed() < PATIENCE);
    assert_eq!((summary.closed, summary.cut, summary.panicked), (0, 1, 0));
    assert_eq!(raw.close(), (1001, "server is going away".to_owned()), "told, and then cut");
    raw.at_end();
    drop(office.gates);
}

#[test]
fn stuck_jobs_do_not_stop_those_of_others() {
    let mut config = config(1);
    config.offload_threads = NonZeroUsize::MIN;
    config.limits.offload_stall = Duration::from_millis(10);
    config.limits.offload_idle = Duration::from_millis(10);
    config.limits.offload_threads_extra = 4;
    let office = office(config);
    let (mut stuck, mut other) = (office.server.open(""), office.server.open(""));
    stuck.send([frame(TEXT, "wait 0"), frame(TEXT, "wait 1")].concat());
    office.server.wait_for("revolve_offloads_under_way", "", 2);
    other.say("now");
    assert_eq!(other.text(), "done: now");
    assert_eq!(office.server.metric("revolve_offload_threads_most", ""), 5);
    assert!(office.server.metric("revolve_offload_threads", "") >= 2);
    office.gates[0].send(()).unwrap();
    office.gates[1].send(()).unwrap();
    for text in ["done: wait 0", "done: wait 1"] {
        assert_eq!(stuck.text(), text);
    }
    office.server.wait_for("revolve_offload_threads", "", 1);
}

#[test]
fn a_stuck_job_of_one_that_has_left_holds_no_slot() {
    let mut config = config(1);
    config.limits.offloads_per_reactor = 1;
    config.limits.offload_orphan_timeout = Duration::from_millis(20);
    let office = office(config);
    let (mut leaver, mut other) = (office.server.open(""), office.server.open(""));
    leaver.say("wait 0");
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    leaver.reset();
    office.server.wait_for("revolve_offloads_given_up_total", "", 1);
    assert_eq!(office.server.metric("revolve_offloads_stuck", ""), 1);
    other.say("now");
    assert_eq!(other.text(), "done: now");
    office.gates[0].send(()).unwrap();
    office.server.wait_for("revolve_offloads_stuck", "", 0);
    other.say("now");
    assert_eq!(other.text(), "done: now");
}

#[test]
fn a_client_that_is_not_read_and_hangs_up_is_let_go_of() {
    let mut config = config(1);
    config.limits.offloads_per_connection = 1;
    let office = office(config);
    for resets in [true, false] {
        let mut raw = office.server.open("");
        raw.say("wait 0");
        office.server.wait_for("revolve_offloads_under_way", "", 1);
        match resets {
            true => raw.reset(),
            false => raw.half_close(),
        }
        office.server.wait_for("revolve_websockets", "", 0);
        office.saves.recv_timeout(PATIENCE).expect("`on_close` was called");
        office.gates[0].send(()).unwrap();
        office.server.wait_for("revolve_offloads_under_way", "", 0);
    }
    // What is unread before the end is heard first.
    let mut raw = office.server.open("");
    raw.say("wait 0");
    office.server.wait_for("revolve_offloads_under_way", "", 1);
    raw.say("hello");
    raw.half_close();
    office.gates[0].send(()).unwrap();
    for text in ["done: wait 0", "hello"] {
        assert_eq!(raw.text(), text);
    }
    office.server.wait_for("revolve_websockets", "", 0);
}

#[test]
fn a_job_is_told_that_its_client_has_left_or_that_the_server_ends() {
    let office =
        office(Config { timeout_graceful_shutdown: Duration::from_millis(100), ..config(1) });
    let (mut leaver, mut stays) = (office.server.open(""), office.server.open(""));
    leaver.say("watch");
    stays.say("watch");
    office.server.wait_for("revolve_offloads_under_way", "", 2);
    leaver.reset();
    office.cancels.recv_timeout(PATIENCE).expect("its client has left");
    assert!(office.cancels.is_empty(), "the other one's is there");
    office.server.shut_down();
    office.cancels.recv_timeout(PATIENCE).expect("the server has ended");
}

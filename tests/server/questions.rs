//! A question to another reactor that is answered while who asked gives it up: two threads, at the same time.
//! (Everything else about questions is tested with the test kit and in the simulation.)

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::client::{PATIENCE, Raw, config, eventually, metric, upgrade};
use revolve::session::owner_of;
use revolve::{Acceptance, Application, Context, Message, Refusal, Server, Upgrade};

/// Its question to reactor 0 begins, and waits until it may end.
struct Asks {
    begun: Sender<()>,
    go: Arc<Mutex<Receiver<()>>>,
    undone: Sender<usize>,
}

impl Application for Asks {
    type Session = ();
    type Connection = ();

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let (begun, go, undone) = (self.begun.clone(), self.go.clone(), self.undone.clone());
        upgrade.ask_with_undo(
            0,
            move |_, _| {
                begun.send(()).unwrap();
                go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            },
            move |_, cx, ()| undone.send(cx.reactor()).unwrap(),
            |_, upgrade, ()| Ok(upgrade.accept()),
        )
    }

    fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
}

#[test]
fn what_it_takes_for_a_client_that_leaves_meanwhile_is_given_back_there() {
    let (begun, has_begun) = channel();
    let (may_end, go) = channel();
    let (undone, has_undone) = channel();
    let go = Arc::new(Mutex::new(go));
    let (begun, undone) = (Mutex::new(begun), Mutex::new(undone));
    let server = Server::builder().config(config(2)).serve(move |_| {
        let (begun, undone) = (begun.lock().unwrap().clone(), undone.lock().unwrap().clone());
        Asks { begun, go: go.clone(), undone }
    });
    let server = server.unwrap();
    let mut raw =
        Raw::new(std::net::TcpStream::connect(server.addresses()[0].tcp().unwrap()).unwrap());
    let name = (0..).map(|n| n.to_string()).find(|name| owner_of(name, 2) == 1).unwrap();
    raw.send(upgrade(&format!("session_id={name}")));
    has_begun.recv_timeout(PATIENCE).unwrap();
    raw.reset();
    let under_way = || metric(&server.metrics(), "revolve_offloads_under_way", "");
    eventually("its reactor gives it up", || under_way() == 0);
    may_end.send(()).unwrap();
    assert_eq!(has_undone.recv_timeout(PATIENCE), Ok(0));
    assert_eq!(metric(&server.metrics(), "revolve_panics_total", ""), 0);
    server.shutdown();
    server.join();
}

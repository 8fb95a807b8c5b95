//! Whether all reactors of a server still turn: for a watchdog.
//!
//! A reactor that a callback holds for ever serves nobody, and looks well from outside: its threads are there, and the
//! other reactors answer. Ends nothing and logs nothing; who asks decides. Called by the daemon, for systemd.
//!
//! Next: [`crate::server_tls`]: its certificates.

use std::sync::Arc;

use crate::mailbox::MailSender;
use crate::server_status::ServerStatus;
use crate::transport::socket::Socket;

/// Looks whether reactors turn.
#[derive(Debug)]
pub struct Liveness {
    senders: Arc<[MailSender<Socket>]>,
    status: Arc<ServerStatus>,
    /// Turns of each, at the last look.
    seen: Vec<u64>,
}

impl Liveness {
    pub(crate) fn new(senders: Arc<[MailSender<Socket>]>, status: Arc<ServerStatus>) -> Liveness {
        let mut liveness = Liveness { senders, status, seen: Vec::new() };
        liveness.seen = liveness.turns();
        liveness.wake_all();
        liveness
    }

    /// Whether each reactor has begun a turn since the last look (or since this was made), or has ended. Wakes all of
    /// them, so that by the next look one that sleeps has turned. Never waits.
    ///
    /// The time between two looks is what a turn may take.
    pub fn look(&mut self) -> bool {
        let turns = self.turns();
        let seen = std::mem::replace(&mut self.seen, turns);
        let mut pairs = self.senders.iter().zip(seen.iter().zip(&self.seen));
        let are_alive = pairs.all(|(sender, (before, now))| before != now || sender.is_closed());
        self.wake_all();
        are_alive
    }

    fn turns(&self) -> Vec<u64> {
        self.status.reactors().iter().map(|reactor| reactor.turns.get()).collect()
    }

    fn wake_all(&self) {
        self.senders.iter().for_each(MailSender::wake);
    }
}

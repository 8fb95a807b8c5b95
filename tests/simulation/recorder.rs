//! The application under simulation: it counts like the default one, and checks as it goes.
//!
//! Its log is the model: which client speaks for a session, and how far each session has counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use revolve::session::owner_of;
use revolve::{Application, CloseReason, Context, Message};

use super::machine::Machine;

/// What the application panics with when a client asks it to.
pub const PLANNED: &str = "a client asked for it";

/// Hides the panics that clients ask for, which are part of the plan; all others are printed.
pub fn hide_planned_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PLANNED) {
            print(info);
        }
    }));
}

/// What all shards of one run have seen.
#[derive(Debug, Default)]
pub struct Log {
    /// The client that speaks for a session now.
    pub live: HashMap<String, SocketAddr>,
    /// The last count of a session.
    pub counts: HashMap<String, u64>,
    /// The counts that were given to a client, in order.
    pub given: HashMap<SocketAddr, Vec<u64>>,
    /// Broadcasts sent, by reactor.
    pub broadcasts: HashMap<usize, u64>,
    /// How many of them there were when a client's connection opened.
    pub broadcasts_before: HashMap<SocketAddr, HashMap<usize, u64>>,
    pub opens: u64,
    pub closes: u64,
    /// Whether sessions may be forgotten in this run (expiry, a small table).
    pub forgets: bool,
}

/// One shard's application.
pub struct Recorder {
    pub reactor: usize,
    pub log: Rc<RefCell<Log>>,
}

impl Application for Recorder {
    type Session = ();

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let mut log = self.log.borrow_mut();
        log.opens += 1;
        let before = log.broadcasts.clone();
        log.broadcasts_before.insert(cx.peer(), before);
        let id = cx.session_id();
        let older = log.live.insert(id.clone(), cx.peer());
        assert_eq!(older, None, "two connections of one session");
        let known = log.counts.get(&id).copied().unwrap_or(0);
        if log.forgets && cx.count() == 0 {
            log.counts.remove(&id);
        } else {
            assert_eq!(cx.count(), known, "a session came back with another count");
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let mut log = self.log.borrow_mut();
        let id = cx.session_id();
        assert_eq!(log.live.get(&id), Some(&cx.peer()), "a displaced connection was heard");
        match message {
            Message::Text("quit") => {
                cx.send_text("bye");
                cx.close(1000, "quit");
            }
            Message::Text("panic") => std::panic::panic_any(PLANNED),
            Message::Text("all") => {
                let number = log.broadcasts.entry(self.reactor).or_default();
                *number += 1;
                cx.broadcast_text(&format!("all {} {number}", self.reactor));
            }
            _ => {
                let count = cx.count_message();
                let last = log.counts.insert(id, count).unwrap_or(0);
                assert_eq!(count, last + 1, "a count was skipped or repeated");
                log.given.entry(cx.peer()).or_default().push(count);
                cx.send_text(&format!("{count}"));
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, _reason: CloseReason) {
        let mut log = self.log.borrow_mut();
        log.closes += 1;
        let gone = log.live.remove(&cx.session_id());
        assert_eq!(gone, Some(cx.peer()), "a close for a connection that was not live");
    }
}

impl Machine<Recorder> {
    /// Every session is in its owner's table, with the count that was given last; and none is lost,
    /// unless this run forgets some.
    pub fn check_sessions(&self, log: &Log) {
        let mut kept = HashMap::new();
        for (at, shard) in self.shards().enumerate() {
            for (id, count) in shard.session_counts() {
                assert_eq!(owner_of(&id, self.len()), at, "a session in the wrong table");
                assert_eq!(log.counts.get(&id).copied().unwrap_or(0), count);
                kept.insert(id, count);
            }
        }
        for (id, count) in log.counts.iter().filter(|_| !log.forgets) {
            assert_eq!(kept.get(id), Some(count), "session {id} was lost");
        }
    }
}

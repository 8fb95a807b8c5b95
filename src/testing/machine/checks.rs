//! What must be true of a machine after a turn, and when it has ended.
//!
//! Looks, and changes nothing that a shard sees. Called by the machine, and by those who run one to its end.
//!
//! Next: `client`: the other end.

use std::collections::VecDeque;

use super::Machine;
use crate::application::Application;

impl<A: Application> Machine<A> {
    /// Under a limit each open WebSocket has a place, and nobody else has one.
    pub(super) fn check_places(&self) {
        let open = if self.is_limited { self.sum(|r| r.websockets.get()) } else { 0 };
        let taken = self.status.connection_limiter().places_taken();
        assert_eq!(taken as u64, open, "places = open WebSockets");
    }

    /// What must be true once every shard has gone: nothing is held, counted in, or waiting.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_released(&self) {
        assert!(self.has_ended(), "a shard did not end");
        self.net.borrow_mut().queues.iter_mut().for_each(VecDeque::clear);
        for (at, wire) in self.wires.iter().enumerate() {
            assert!(wire.borrow().closed, "wire {at}: a socket leaked");
        }
        assert_eq!(self.sum(|r| r.connections.get()), 0, "connections are still counted");
        assert_eq!(self.sum(|r| r.websockets.get()), 0, "WebSockets are still counted");
        assert_eq!(self.sum(|r| r.sessions_live.get()), 0, "sessions are still attached");
        self.check_places();
        assert_eq!(
            self.status.connection_limiter().counts(),
            (0, 0),
            "a permit was not given back"
        );
        let posts = self.net.borrow().boxes.iter().map(VecDeque::len).sum::<usize>();
        assert_eq!(posts, 0, "mail was left");
    }
}

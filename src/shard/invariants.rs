//! What must hold between turns, in one place.
//!
//! Next: [`crate::shard::snapshot`]: how a turn is watched without being touched.

use super::Shard;
use crate::application::Application;
use crate::connection::timer_wheel::Tick;
use crate::connection::{Attachment, Rest};
use crate::environment::Environment;
use crate::protocol::endpoint::Endpoint;
use crate::token::ConnectionId;

impl<A: Application, E: Environment> Shard<A, E> {
    /// Checks every invariant of the shard, connection by connection. Costs as much as there are
    /// connections: the simulation calls it after every turn.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn invariants(&self) {
        let (mut attached, mut watchers) = (0, 0);
        for connection in self.connections.iter() {
            let id = connection.id;
            assert!(self.ended.is_empty(), "the reaper has been");
            // The table at `Rest`: each stop has its waker.
            let has_unread = connection.transport.has_readable();
            match connection.rest {
                Rest::Blocked => {
                    assert!(!has_unread, "{id}: blocked, with something to read");
                    let is_inflating =
                        matches!(&connection.endpoint, Endpoint::Open(open) if open.is_inflating());
                    assert!(!is_inflating, "{id}: blocked, with a message to inflate");
                    assert!(
                        connection.transport.backlog.is_empty()
                            || !connection.transport.is_writable(),
                        "{id}: blocked, with something to write and room for it"
                    );
                }
                Rest::Spent => assert!(self.ready.contains(id), "{id}: spent and not queued"),
                Rest::Throttled => {
                    assert!(
                        connection.transport.backlog.len() > self.config.max_send_buffer / 2,
                        "{id}: throttled below the low-water mark"
                    );
                    assert!(
                        !connection.transport.is_writable(),
                        "{id}: throttled, with room to write"
                    );
                }
                Rest::Parked => {
                    assert!(self.commands.jobs.of(id) > 0, "{id}: parked, and no answer comes");
                    assert!(
                        connection.transport.backlog.is_empty()
                            || !connection.transport.is_writable()
                            || self.ready.contains(id),
                        "{id}: parked, with something to write and room for it"
                    );
                }
                Rest::Waiting => {
                    assert!(self.outbox.holds(id), "{id}: waits for nothing");
                    assert!(
                        connection.transport.backlog.is_empty()
                            || !connection.transport.is_writable()
                            || self.ready.contains(id),
                        "{id}: waiting, with something to write and room for it"
                    );
                }
                Rest::Ended => panic!("{id}: ended and not reaped"),
            }
            assert!(
                connection.reads_past() || !connection.is_amid_message(),
                "{id}: amid a message, and read as if it were not"
            );
            // A deadline stands behind every rest that has one to give.
            if let Some(deadline) = connection.deadline(&self.protocol_limits, &self.config) {
                // One that had passed already was entered at the wheel's next tick.
                let latest = self.wheel.tick_of(deadline) + 1;
                assert!(
                    connection
                        .alarm
                        .is_some_and(|tick| tick <= latest && self.is_alarm_set(id, tick)),
                    "{id}: a deadline without an alarm"
                );
            }
            // Exactly while open, it speaks for a session or watches.
            let has_session = matches!(connection.attachment, Attachment::Live(_));
            let watches = matches!(connection.attachment, Attachment::Watching);
            let is_open = matches!(connection.endpoint, Endpoint::Open(_));
            assert_eq!(has_session || watches, is_open, "{id}: a session while open");
            assert_eq!(self.watching.is_told(id), watches, "{id}: told while it watches");
            attached += usize::from(has_session);
            watchers += usize::from(watches);
            assert!(is_open || self.commands.jobs.of(id) == 0, "{id}: waits, and is not open");
        }
        assert_eq!(self.sessions.attached(), attached, "a connection for each attached session");
        assert_eq!(self.metrics.websockets.get(), attached as u64);
        self.watching.invariants(watchers);
        self.outbox.invariants();
        assert!(self.cork.is_empty() && self.aside.is_empty(), "what was said was sent");
        assert!(
            self.commands.close.is_none()
                && !self.commands.pause
                && self.commands.to_all.is_empty(),
            "commands were applied"
        );
        self.commands.jobs.invariants();
        self.commands.timers.invariants();
        for id in self.commands.timers.connections() {
            let is_open = self.connections.iter().any(|connection| {
                connection.id == id && matches!(connection.attachment, Attachment::Live(_))
            });
            assert!(is_open, "{id}: a timer outlived its connection");
        }
        self.sessions.invariants();
    }

    /// An alarm is in the wheel, or has gone off and waits for its share of a turn.
    fn is_alarm_set(&self, id: ConnectionId, tick: Tick) -> bool {
        self.wheel.holds(id.index, tick) || self.due.contains(&(id.index, tick))
    }
}

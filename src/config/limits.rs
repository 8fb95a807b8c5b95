//! What the design chose: a limit on everything that a peer, or the work of one turn, can grow.
//!
//! They are values and not constants so that a test can make them small; an operator has no options for
//! them. Each has its reason beside it. Reads nothing; used wherever there is something to bound.
//!
//! Invariant: after [`Limits::validate`] no step of a turn stalls for want of a share, and no sum or
//! allocation that is made of a limit overflows.
//!
//! Next: `origins`: which pages may connect.

use std::time::Duration;

use super::bounds::{self, Bounds};
use super::{ConfigError, refuse};

/// Shares of a turn, and other numbers of which none makes no progress.
const SHARE: Bounds<usize> =
    Bounds { range: 1..=i32::MAX as usize, allowed: "a number from 1 to 2147483647" };

/// Numbers of which none is a choice.
const COUNT: Bounds<usize> =
    Bounds { range: 0..=i32::MAX as usize, allowed: "a number from 0 to 2147483647" };

/// Queues for which room is made when the server starts.
const QUEUE: Bounds<usize> = Bounds { range: 1..=1 << 20, allowed: "a number from 1 to 1048576" };

/// The receive buffer: a control frame with its header must fit (139 bytes), and so must a head.
const BUFFER: Bounds<usize> =
    Bounds { range: 256..=1 << 24, allowed: "a size from 256 to 16777216 bytes" };

/// Connections of one session: how many there are stands in two bytes.
const SHARERS: Bounds<usize> =
    Bounds { range: 1..=u16::MAX as usize, allowed: "a number from 1 to 65535" };

/// Threads beside the usual ones.
const THREADS: Bounds<usize> = Bounds { range: 0..=1024, allowed: "a number from 0 to 1024" };

/// Other storage that each reactor has.
const STORAGE: Bounds<usize> =
    Bounds { range: 1..=1 << 24, allowed: "a size from 1 to 16777216 bytes" };

/// Bounds that no operator has asked to turn, each with its reason.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request head. 16 KiB: twice what browsers send with full cookies. Beyond: 431.
    pub head_bytes: usize,
    /// Bytes of a request's content that an application is given. 32 KiB: a form or a JSON document; it
    /// fits into the receive buffer behind the longest head, and must. Beyond: 413. What is larger is for
    /// a WebSocket.
    pub request_body_bytes: usize,
    /// Bytes of a request target. 4 KiB: a 128-character session id, percent-encoded, ten times
    /// over. Beyond: 414.
    pub target_bytes: usize,
    /// Bytes of the one receive buffer of a reactor, so also the most that is read from one
    /// connection in a turn, but for the rest of a long payload (`protocol::message::LONG_READ`). 64
    /// KiB fit the second-level cache beside the replies that they cause. There is room for a header
    /// besides, so that a message of 64 KiB is read at once, by a short read (unless the one before was
    /// longer: `connection::Intake`).
    pub receive_buffer_bytes: usize,
    /// Frames taken from one connection in a turn. 64 KiB of empty frames would be 10,922; this
    /// keeps the longest visit under a millisecond.
    pub frames_per_turn: usize,
    /// Requests answered to one connection in a turn; pipelining cannot hold a reactor.
    pub requests_per_turn: usize,
    /// Bytes of replies that collect before they are written, in mid-visit if need be. Of HTTP
    /// responses it is also the most in a turn: a page of metrics is a thousand messages' work.
    pub cork_bytes: usize,
    /// Bytes of backlog flushed to one connection in a turn, so that one fast reader of a long
    /// backlog does not hold the others.
    pub flush_bytes_per_turn: usize,
    /// Sockets that may be there beyond twice `--limit-concurrency`: for plain requests while all
    /// places are taken. As many again may be there to be told 503. 256: what health checks and a page
    /// of metrics need, with room.
    pub socket_margin: usize,
    /// Events taken from the kernel at once. 1024, which are 12 KiB; more are taken next turn, so that
    /// a turn stays a turn.
    pub events_per_poll: usize,
    /// Connections accepted in a turn: a storm of them leaves room for those that talk.
    pub accepts_per_turn: usize,
    /// Steps of TLS handshakes taken in a turn, two a connection. 8: with a key of ECDSA a millisecond, with one of RSA
    /// some five, in which those that talk wait.
    pub handshakes_per_turn: usize,
    /// Mails taken from the mailbox in a turn.
    pub mails_per_turn: usize,
    /// Mails a mailbox holds, and posts a box of posts. 1024. When it is full, connections that are to be handed over
    /// rest where they are, and so do those that have broadcast something; it is tried again each turn.
    pub mailbox_capacity: usize,
    /// Mails that may wait for room in other mailboxes; beyond it the reactor reads no connection. 4096:
    /// a mail for each message of one visit.
    pub mails_waiting_most: usize,
    /// Alarms looked at in a turn. Each may write a ping, some microseconds of system call, and
    /// connections that came at one moment are pinged at one moment. The others are served in between.
    pub alarms_per_turn: usize,
    /// Sessions forgotten in a turn: a million whose time ends at one moment take some 250 turns,
    /// and in each of them the others are served.
    pub expiries_per_turn: usize,
    /// Connections that a broadcast is written to in a turn: a heartbeat to 100,000 sockets takes
    /// 391 turns, and in each of them the others are served.
    pub broadcast_slice: usize,
    /// Connections told goodbye in a turn of a drain: replies in flight and echoes of our Close are
    /// served in between.
    pub goodbyes_per_turn: usize,
    /// Broadcasts that may be under way at once. Above half of it a connection that broadcasts is not
    /// read any more; at all of it no connection is.
    pub broadcasts_queued: usize,
    /// Connections that watch one reactor's `/ws/stats`. Beyond: 503. A handful of people look at a
    /// server at a time; each of them costs a frame of some kilobytes a second.
    pub watchers: usize,
    /// Time between two looks at the reactors while there are watchers. 1 s, as the page promises.
    pub look_interval: Duration,
    /// Slots of the slab that are looked at in a turn: cold memory, so 4,096 are some 0.3 ms.
    pub look_slice: usize,
    /// Slots that a slab map shows. 65,536: more could not be told apart on a screen, and a slab map
    /// at its worst, no two neighbours alike, stays below 400 KB.
    pub slab_map_slots: usize,
    /// What inflating may cost in one visit: bytes written, and bytes read sixteen times over. 512
    /// KiB: at most 3 ms, which only the most expensive input takes; 140 KiB of JSON, which take
    /// 0.2 ms. A message that needs more goes on in the next turn.
    pub inflate_per_turn: usize,
    /// Bytes below which a message goes plain, even where deflate is agreed on. 1024, as Node's `ws`: to
    /// deflate a shorter one takes 8 µs as well, and saves no packet, for both fit in one.
    pub deflate_bytes_least: usize,
    /// Windows (32 KiB, if the client does not ask for less) beyond which a message goes plain. 32, so
    /// a MiB: 3 ms of text, 15 ms at worst, and the whole reactor waits for it.
    pub deflate_windows_most: usize,
    /// Connections that may share one session ([`crate::Acceptance::share`]). 64: what is sent to a session is
    /// written to each of them, so by so much can a client multiply its messages.
    pub connections_per_session: usize,
    /// Timers that an application may have set for one connection. 32, so that a peer whose messages
    /// set them cannot make it hold more than a kilobyte.
    pub timers_per_connection: usize,
    /// Timers that an application may have set for one reactor. 64: they are looked through one by one. Many clocks,
    /// of games say, share one timer that goes off for the next of them.
    pub timers_per_reactor: usize,
    /// Applications' timers looked at in a turn: a hundred thousand that are due at once take
    /// 98 turns, and in each of them the others are served.
    pub timers_per_turn: usize,
    /// Bytes of a session's state that are stored at most. 64 KiB: a state is written whole whenever it has changed.
    pub stored_state_bytes: usize,
    /// Bytes of sessions that are stored in one piece. 1 MiB: a piece is one write and one checksum.
    pub store_batch_bytes: usize,
    /// Sessions that a reactor takes from the store in a turn, when it starts. 4,096: some 2 ms, and a million in two
    /// hundred turns.
    pub restores_per_turn: usize,
    /// Off-loaded jobs that one connection may wait for. 8; then no more is read from it until one is
    /// done. With 1, each message is answered before the next one is heard.
    pub offloads_per_connection: usize,
    /// Off-loaded jobs that one reactor may have under way, those included whose values wait for
    /// an earlier one. 256; beyond it the application is told so.
    pub offloads_per_reactor: usize,
    /// Threads that may be added to [`super::Config::offload_threads`] while each of them is held by a job
    /// and others wait. 60, so with the default 64 in all: each takes some 50 KiB of memory and two MiB of
    /// address space. More would hide jobs that never return, and fill up just the same.
    pub offload_threads_extra: usize,
    /// Time that off-loaded jobs may wait while no thread takes one; then a thread is added. 1 s: longer
    /// than a job should hold its thread, and short beside the time for which a client waits.
    pub offload_stall: Duration,
    /// Time that an added thread waits for another job before it ends. 30 s: what held the others may come
    /// again soon, and an idle thread costs little.
    pub offload_idle: Duration,
    /// Time that a job may run after its connection has gone; then its reactor gives it up, and what it
    /// returns is dropped. 30 s: what `on_close` saves into a slow data base is done by then, and what is
    /// not may never be.
    pub offload_orphan_timeout: Duration,
    /// Tasks for workers that one reactor may have under way. 1,024: they hold no thread here, and wait for longer than
    /// jobs do; beyond it the application is told so.
    pub tasks_per_reactor: usize,
    /// Bytes that the arguments of a task for a worker may have, and its result. 256 KiB: the arguments are kept until
    /// they are sent, so a reactor's take 256 MiB at most while the broker is away; and for more there are better
    /// places than a queue in Redis.
    pub task_bytes: usize,
    /// Time a peer has to answer our Close. 5 s; then the socket is closed without.
    pub close_timeout: Duration,
    /// Time we go on reading after our half-close, so that unread bytes do not turn into a reset
    /// that destroys our last words. 5 s, as nginx's `lingering_timeout`.
    pub linger: Duration,
    /// Bytes we throw away in that time. 64 MiB: a peer that gets 1009 in the middle of sending a
    /// message four times too large can finish sending, and then reads the 1009. (With 256 KiB, three of
    /// four senders of 16 MiB + 1 saw a reset instead.)
    pub linger_bytes: usize,
    /// Ticks of the timer wheel (50 ms) by which a deadline is put off while there is unread input. 20,
    /// so a second: the answer may stand behind megabytes in the kernel's buffer, and a peer that floods
    /// us must not put its deadline off for ever.
    pub overdue_ticks: u8,
    /// Time a backlog may stand without one byte leaving. 20 s; then 1008 "slow consumer".
    pub send_stall: Duration,
    /// Time an unfinished message may take, from its first frame's header. 60 s; then 1008.
    pub message_timeout: Duration,
    /// Time the listener pauses when the process is out of descriptors (EMFILE). 100 ms.
    pub accept_pause: Duration,
}

impl Limits {
    /// Checks every value that a type does not already bound.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_sizes()?;
        for (option, value) in [
            ("limits.frames_per_turn", self.frames_per_turn),
            ("limits.requests_per_turn", self.requests_per_turn),
            ("limits.flush_bytes_per_turn", self.flush_bytes_per_turn),
            ("limits.accepts_per_turn", self.accepts_per_turn),
            ("limits.handshakes_per_turn", self.handshakes_per_turn),
            ("limits.mails_per_turn", self.mails_per_turn),
            ("limits.mails_waiting_most", self.mails_waiting_most),
            ("limits.alarms_per_turn", self.alarms_per_turn),
            ("limits.expiries_per_turn", self.expiries_per_turn),
            ("limits.restores_per_turn", self.restores_per_turn),
            ("limits.broadcast_slice", self.broadcast_slice),
            ("limits.broadcasts_queued", self.broadcasts_queued),
            ("limits.goodbyes_per_turn", self.goodbyes_per_turn),
            ("limits.look_slice", self.look_slice),
            ("limits.slab_map_slots", self.slab_map_slots),
            ("limits.inflate_per_turn", self.inflate_per_turn),
            ("limits.timers_per_turn", self.timers_per_turn),
            // With none, a connection that has off-loaded something would never be read again.
            ("limits.offloads_per_connection", self.offloads_per_connection),
        ] {
            SHARE.check(option, value)?;
        }
        for (option, value) in [
            ("limits.socket_margin", self.socket_margin),
            ("limits.watchers", self.watchers),
            ("limits.deflate_bytes_least", self.deflate_bytes_least),
            ("limits.deflate_windows_most", self.deflate_windows_most),
            ("limits.timers_per_connection", self.timers_per_connection),
            ("limits.timers_per_reactor", self.timers_per_reactor),
            ("limits.linger_bytes", self.linger_bytes),
        ] {
            COUNT.check(option, value)?;
        }
        SHARERS.check("limits.connections_per_session", self.connections_per_session)?;
        for (option, value) in [
            ("limits.events_per_poll", self.events_per_poll),
            ("limits.mailbox_capacity", self.mailbox_capacity),
            ("limits.offloads_per_reactor", self.offloads_per_reactor),
            ("limits.tasks_per_reactor", self.tasks_per_reactor),
        ] {
            QUEUE.check(option, value)?;
        }
        for (option, value) in [
            ("limits.look_interval", self.look_interval),
            ("limits.offload_stall", self.offload_stall),
            ("limits.offload_idle", self.offload_idle),
            ("limits.offload_orphan_timeout", self.offload_orphan_timeout),
            ("limits.close_timeout", self.close_timeout),
            ("limits.linger", self.linger),
            ("limits.send_stall", self.send_stall),
            ("limits.message_timeout", self.message_timeout),
            ("limits.accept_pause", self.accept_pause),
        ] {
            bounds::UP_TO_A_DAY.check(option, value)?;
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        BUFFER.check("limits.receive_buffer_bytes", self.receive_buffer_bytes)?;
        STORAGE.check("limits.cork_bytes", self.cork_bytes)?;
        STORAGE.check("limits.target_bytes", self.target_bytes)?;
        STORAGE.check("limits.task_bytes", self.task_bytes)?;
        THREADS.check("limits.offload_threads_extra", self.offload_threads_extra)?;
        if !(1..=self.receive_buffer_bytes).contains(&self.head_bytes) {
            let allowed = "a size from 1 to that of limits.receive_buffer_bytes";
            return refuse("limits.head_bytes", &self.head_bytes, allowed);
        }
        // A request is whole when it stands in the receive buffer, and is kept there alone.
        if self.request_body_bytes > self.receive_buffer_bytes - self.head_bytes {
            let allowed =
                "a size from 0 to what limits.head_bytes leaves of limits.receive_buffer_bytes";
            return refuse("limits.request_body_bytes", &self.request_body_bytes, allowed);
        }
        let (batch, state) = (self.store_batch_bytes, self.stored_state_bytes);
        if !(4096..=4 << 20).contains(&batch) {
            return refuse("limits.store_batch_bytes", &batch, "a size from 4096 to 4194304 bytes");
        }
        // Of a batch with one session: its header, the longest id, and the numbers.
        if state > batch - 1024 {
            let allowed = "at most that of limits.store_batch_bytes without 1024";
            return refuse("limits.stored_state_bytes", &state, allowed);
        }
        // At 0 the reactor would spin: each look is at once due again, and so is each pause. So would
        // the thread that watches the pool.
        for (option, value) in [
            ("limits.look_interval", self.look_interval),
            ("limits.offload_stall", self.offload_stall),
            ("limits.accept_pause", self.accept_pause),
        ] {
            if value.is_zero() {
                return refuse(option, &0, "more than 0 seconds");
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes: 16 << 10,
            request_body_bytes: 32 << 10,
            target_bytes: 4 << 10,
            receive_buffer_bytes: (64 << 10) + 64,
            frames_per_turn: 4096,
            requests_per_turn: 64,
            cork_bytes: 64 << 10,
            flush_bytes_per_turn: 1 << 20,
            socket_margin: 256,
            events_per_poll: 1024,
            accepts_per_turn: 64,
            handshakes_per_turn: 8,
            mails_per_turn: 256,
            mailbox_capacity: 1024,
            mails_waiting_most: 4096,
            alarms_per_turn: 512,
            expiries_per_turn: 4096,
            broadcast_slice: 256,
            goodbyes_per_turn: 256,
            broadcasts_queued: 1024,
            watchers: 8,
            look_interval: Duration::from_secs(1),
            look_slice: 4096,
            slab_map_slots: 1 << 16,
            inflate_per_turn: 512 << 10,
            deflate_bytes_least: 1024,
            deflate_windows_most: 32,
            connections_per_session: 64,
            timers_per_connection: 32,
            timers_per_reactor: 64,
            timers_per_turn: 1024,
            offloads_per_connection: 8,
            offloads_per_reactor: 256,
            offload_threads_extra: 60,
            offload_stall: Duration::from_secs(1),
            offload_idle: Duration::from_secs(30),
            offload_orphan_timeout: Duration::from_secs(30),
            tasks_per_reactor: 1024,
            task_bytes: 256 << 10,
            stored_state_bytes: 64 << 10,
            store_batch_bytes: 1 << 20,
            restores_per_turn: 4096,
            close_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(5),
            linger_bytes: 64 << 20,
            overdue_ticks: 20,
            send_stall: Duration::from_secs(20),
            message_timeout: Duration::from_secs(60),
            accept_pause: Duration::from_millis(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way to set one of them.
    type Setter<T> = fn(&mut Limits, T);

    #[test]
    fn nothing_that_stalls_spins_or_overflows_is_valid() {
        assert_eq!(Limits::default().validate(), Ok(()));
        let zero_or_too_much: [(&str, Setter<usize>); 23] = [
            ("receive_buffer_bytes", |l, n| l.receive_buffer_bytes = n),
            ("head_bytes", |l, n| l.head_bytes = n),
            ("target_bytes", |l, n| l.target_bytes = n),
            ("cork_bytes", |l, n| l.cork_bytes = n),
            ("frames_per_turn", |l, n| l.frames_per_turn = n),
            ("requests_per_turn", |l, n| l.requests_per_turn = n),
            ("flush_bytes_per_turn", |l, n| l.flush_bytes_per_turn = n),
            ("events_per_poll", |l, n| l.events_per_poll = n),
            ("accepts_per_turn", |l, n| l.accepts_per_turn = n),
            ("handshakes_per_turn", |l, n| l.handshakes_per_turn = n),
            ("mails_per_turn", |l, n| l.mails_per_turn = n),
            ("mailbox_capacity", |l, n| l.mailbox_capacity = n),
            ("mails_waiting_most", |l, n| l.mails_waiting_most = n),
            ("alarms_per_turn", |l, n| l.alarms_per_turn = n),
            ("expiries_per_turn", |l, n| l.expiries_per_turn = n),
            ("broadcast_slice", |l, n| l.broadcast_slice = n),
            ("broadcasts_queued", |l, n| l.broadcasts_queued = n),
            ("goodbyes_per_turn", |l, n| l.goodbyes_per_turn = n),
            ("look_slice", |l, n| l.look_slice = n),
            ("inflate_per_turn", |l, n| l.inflate_per_turn = n),
            ("timers_per_turn", |l, n| l.timers_per_turn = n),
            ("offloads_per_connection", |l, n| l.offloads_per_connection = n),
            ("connections_per_session", |l, n| l.connections_per_session = n),
        ];
        let too_much: [(&str, Setter<usize>); 10] = [
            ("request_body_bytes", |l, n| l.request_body_bytes = n),
            ("socket_margin", |l, n| l.socket_margin = n),
            ("watchers", |l, n| l.watchers = n),
            ("timers_per_connection", |l, n| l.timers_per_connection = n),
            ("timers_per_reactor", |l, n| l.timers_per_reactor = n),
            ("offloads_per_reactor", |l, n| l.offloads_per_reactor = n),
            ("tasks_per_reactor", |l, n| l.tasks_per_reactor = n),
            ("task_bytes", |l, n| l.task_bytes = n),
            ("offload_threads_extra", |l, n| l.offload_threads_extra = n),
            ("linger_bytes", |l, n| l.linger_bytes = n),
        ];
        let wrong = zero_or_too_much.iter().map(|case| (case, 0));
        let wrong = wrong.chain(zero_or_too_much.iter().chain(&too_much).map(|c| (c, usize::MAX)));
        for ((name, set), value) in wrong {
            let mut limits = Limits::default();
            set(&mut limits, value);
            let error = limits.validate().expect_err(name);
            assert_eq!(
                (error.option, error.value),
                (&*format!("limits.{name}"), value.to_string())
            );
        }
    }

    #[test]
    fn times_are_added_to_the_clock_and_some_are_waited_for() {
        let times: [(&str, Setter<Duration>); 9] = [
            ("look_interval", |l, t| l.look_interval = t),
            ("accept_pause", |l, t| l.accept_pause = t),
            ("offload_stall", |l, t| l.offload_stall = t),
            ("offload_idle", |l, t| l.offload_idle = t),
            ("offload_orphan_timeout", |l, t| l.offload_orphan_timeout = t),
            ("close_timeout", |l, t| l.close_timeout = t),
            ("linger", |l, t| l.linger = t),
            ("send_stall", |l, t| l.send_stall = t),
            ("message_timeout", |l, t| l.message_timeout = t),
        ];
        for (number, (name, set)) in times.iter().enumerate() {
            let verdict = |time| {
                let mut limits = Limits::default();
                set(&mut limits, time);
                limits.validate().map_err(|error| error.option)
            };
            let refused = Err(&*format!("limits.{name}"));
            assert_eq!(verdict(Duration::MAX), refused);
            assert_eq!(verdict(Duration::ZERO), if number < 3 { refused } else { Ok(()) });
        }
    }
}

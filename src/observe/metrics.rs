//! What a server counts, and the page that shows it.
//!
//! Each reactor has cells of its own and is their only writer: a relaxed load and store, no lock,
//! no cache line that two threads write. A scrape reads all cells, and adds nothing to the turns of
//! the other reactors. Limits nothing: what is counted here decides about no connection.
//!
//! Invariant: label values come from closed sets, so no peer can grow the page.
//!
//! Next: [`crate::observe::store_metrics`]: those of the store.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::application::{CloseReason, Side};
use crate::offload::pool::PoolFigures;
use crate::one_writer_cell::Cell;

/// Close codes that have a label of their own; what else a peer may send falls into the last
/// three.
const CLOSE_LABELS: [&str; 18] = [
    "1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012",
    "1013", "1014", "4001", "3xxx", "4xxx", "other",
];

/// The codes that mean that something went wrong, where we were the ones to say so.
const ERROR_CODES: [u16; 7] = [1002, 1003, 1007, 1008, 1009, 1011, 1013];

fn close_label(code: u16) -> usize {
    match code {
        1000..=1003 => usize::from(code - 1000),
        1005..=1014 => usize::from(code - 1001),
        4001 => 14,
        3000..=3999 => 15,
        4000..=4999 => 16,
        _ => 17,
    }
}

/// Upper bounds of the histogram of events per turn.
const EVENT_BOUNDS: [u64; 6] = [0, 1, 4, 16, 64, 256];

/// One reactor's cells. Aligned so that no two reactors write to one cache line, or to two that
/// the prefetcher treats as one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ReactorMetrics {
    /// Sockets held now, of any kind.
    pub connections: Cell,
    /// WebSockets open now.
    pub websockets: Cell,
    /// Sessions with a connection.
    pub sessions_live: Cell,
    /// Sessions without.
    pub sessions_detached: Cell,
    /// Messages that reached the application.
    pub messages: Cell,
    /// Connections passed on: to the reactor that owns their session, or to the next in turn.
    pub hand_overs_out: Cell,
    /// Connections received so.
    pub hand_overs_in: Cell,
    /// Connections displaced by a newer one of the same session.
    pub takeovers: Cell,
    /// Upgrades that found their session.
    pub resumes: Cell,
    /// Sessions whose time to live passed.
    pub expiries: Cell,
    /// Sessions that left early, because the table was full.
    pub evictions: Cell,
    /// Bytes read from peers.
    pub bytes_in: Cell,
    /// Bytes queued for peers.
    pub bytes_out: Cell,
    /// Turns.
    pub turns: Cell,
    /// Time in the poll, in nanoseconds.
    pub asleep_ns: Cell,
    /// Time in turns, in nanoseconds.
    pub busy_ns: Cell,
    /// The longest of those times, in nanoseconds.
    pub longest_turn_ns: Cell,
    /// Turns that took longer than `--slow-turn-ms`.
    pub slow_turns: Cell,
    /// Connections accepted.
    pub accepts: Cell,
    /// Times the listener paused for want of descriptors.
    pub accept_pauses: Cell,
    /// Connections that said nothing in time, and were closed without an answer.
    pub silent: Cell,
    /// Connections that ended because there was no memory for them.
    pub out_of_memory: Cell,
    /// Applications' callbacks that panicked.
    pub panics: Cell,
    /// Jobs off-loaded.
    pub offloads: Cell,
    /// Jobs under way now.
    pub offloads_under_way: Cell,
    /// Messages, closes and posts for one connection that found nobody.
    pub undelivered: Cell,
    /// Jobs given up: they ran on for too long after their connection had gone.
    pub offloads_given_up: Cell,
    /// Upgrades that the application refused.
    pub refused: Cell,
    /// Replies that were held until their session was stored, and connections that wait for that now.
    pub replies_held: Cell,
    /// See `replies_held`.
    pub waits_for_store: Cell,
    /// TLS handshakes in full.
    pub tls_handshakes: Cell,
    /// TLS handshakes that resumed an earlier session.
    pub tls_resumed: Cell,
    /// TLS handshakes that failed.
    pub tls_failures: Cell,
    /// Readiness events that the poll returned.
    pub events: Cell,
    events_per_turn: [Cell; EVENT_BOUNDS.len() + 1],
    /// What `hand_overs_out` is made of, by destination. Not on the metrics page, which would grow
    /// with the square of the reactors.
    hand_overs_to: Box<[Cell]>,
    closed: [[Cell; CLOSE_LABELS.len()]; 2],
    /// Requests refused, by reason.
    rejected: Box<[Cell]>,
}

impl ReactorMetrics {
    /// One turn that began with `events` events.
    #[inline]
    pub fn turn(&self, events: u64) {
        self.turns.add(1);
        self.events.add(events);
        let bucket = EVENT_BOUNDS.iter().position(|&bound| events <= bound);
        self.events_per_turn[bucket.unwrap_or(EVENT_BOUNDS.len())].add(1);
    }

    /// One connection was passed on to the reactor `owner`.
    pub fn handed_over(&self, owner: usize) {
        self.hand_overs_out.add(1);
        self.hand_overs_to[owner].add(1);
    }

    /// How many were passed on to each reactor, by number.
    pub fn hand_overs_to(&self) -> impl Iterator<Item = u64> {
        self.hand_overs_to.iter().map(Cell::get)
    }

    /// How many WebSockets ended, by code and side.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, Side, u64)> {
        [Side::Client, Side::Server].into_iter().flat_map(|side| {
            let cells = CLOSE_LABELS.into_iter().zip(&self.closed[side as usize]);
            cells.map(move |(code, cell)| (code, side, cell.get()))
        })
    }

    /// It took so long.
    #[inline]
    pub fn turn_took(&self, took: Duration) {
        let nanoseconds = took.as_nanos() as u64;
        self.busy_ns.add(nanoseconds);
        if nanoseconds > self.longest_turn_ns.get() {
            self.longest_turn_ns.set(nanoseconds);
        }
    }

    /// One WebSocket ended.
    pub fn closed(&self, reason: CloseReason) {
        self.closed[reason.side as usize][close_label(reason.code)].add(1);
    }

    /// How many requests were refused for this reason.
    #[cfg(feature = "internals")]
    #[must_use]
    pub fn rejections(&self, reason: usize) -> u64 {
        self.rejected[reason].get()
    }

    /// One request was refused, for the reason of this number.
    pub fn rejected(&self, reason: usize) {
        self.rejected[reason].add(1);
    }
}

/// What all reactors of a server count, and what is counted once for all of them.
#[derive(Debug)]
pub struct ServerMetrics {
    reactors: Box<[Arc<ReactorMetrics>]>,
    /// The labels of the reasons for which requests are refused.
    reasons: &'static [&'static str],
    log_lines_dropped: Arc<AtomicU64>,
    pool: Arc<PoolFigures>,
}

impl ServerMetrics {
    /// For so many reactors, and requests refused for `reasons`; `log_lines_dropped` is the logger's.
    #[must_use]
    pub fn new(
        reactors: usize,
        reasons: &'static [&'static str],
        log_lines_dropped: Arc<AtomicU64>,
    ) -> Self {
        let cells = |count| (0..count).map(|_| Cell::default()).collect();
        let metrics = |_| {
            let (hand_overs_to, rejected) = (cells(reactors), cells(reasons.len()));
            Arc::new(ReactorMetrics { hand_overs_to, rejected, ..ReactorMetrics::default() })
        };
        let reactors = (0..reactors).map(metrics).collect();
        ServerMetrics { reactors, reasons, log_lines_dropped, pool: Arc::default() }
    }

    /// What the pool for off-loaded jobs tells of itself.
    #[must_use]
    pub fn pool(&self) -> &Arc<PoolFigures> {
        &self.pool
    }

    /// The cells of all reactors, by number.
    #[must_use]
    pub fn reactors(&self) -> &[Arc<ReactorMetrics>] {
        &self.reactors
    }

    /// The page, in Prometheus' text format 0.0.4
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>), of a server that has been
    /// draining for so long.
    #[must_use]
    pub fn render(&self, draining: Duration) -> String {
        let mut page = Page(String::with_capacity(8192));
        let sum = |cell: fn(&ReactorMetrics) -> &Cell| {
            self.reactors.iter().map(|reactor| cell(reactor).get()).sum::<u64>()
        };
        page.one("ws_active_connections", "gauge", "WebSockets open now.", sum(|r| &r.websockets));
        page.one(
            "ws_total_messages_total",
            "counter",
            "Messages received from clients.",
            sum(|r| &r.messages),
        );
        let errors = self.reactors.iter().map(|reactor| {
            ERROR_CODES
                .iter()
                .map(|&code| reactor.closed[Side::Server as usize][close_label(code)].get())
                .sum::<u64>()
        });
        page.one(
            "ws_error_count_total",
            "counter",
            "WebSockets that we ended because of an error: a broken rule, a limit, a lost pong, a panic.",
            errors.sum::<u64>(),
        );
        page.one(
            "ws_shutdown_duration_seconds",
            "gauge",
            "How long the server has been shutting down; 0 while it is not.",
            draining.as_secs_f64(),
        );
        page.one(
            "revolve_log_lines_dropped_total",
            "counter",
            "Log lines dropped because nobody read them fast enough.",
            self.log_lines_dropped.load(Ordering::Relaxed),
        );
        self.render_pool(&mut page);
        for (name, kind, help, cell) in FAMILIES {
            page.family(name, kind, help);
            for (number, reactor) in self.reactors.iter().enumerate() {
                page.sample(name, format_args!("reactor=\"{number}\""), cell(reactor).get());
            }
        }
        for (name, kind, help, cell) in SECONDS {
            page.family(name, kind, help);
            for (number, reactor) in self.reactors.iter().enumerate() {
                let seconds = Duration::from_nanos(cell(reactor).get()).as_secs_f64();
                page.sample(name, format_args!("reactor=\"{number}\""), seconds);
            }
        }
        self.render_events(&mut page);
        self.render_outcomes(&mut page);
        page.0
    }

    fn render_pool(&self, page: &mut Page) {
        page.one(
            "revolve_offload_threads",
            "gauge",
            "Threads for off-loaded jobs, those included that were added because jobs waited.",
            self.pool.threads(),
        );
        page.one(
            "revolve_offload_threads_most",
            "gauge",
            "Threads for off-loaded jobs that there may be.",
            self.pool.threads_most(),
        );
        let given_up = self.reactors.iter().map(|reactor| reactor.offloads_given_up.get());
        page.one(
            "revolve_offloads_stuck",
            "gauge",
            "Off-loaded jobs that were given up and still hold a thread.",
            given_up.sum::<u64>().saturating_sub(self.pool.late()),
        );
    }

    fn render_events(&self, page: &mut Page) {
        page.family(
            "revolve_events_per_turn",
            "histogram",
            "Events that the poll returned at once.",
        );
        for (number, reactor) in self.reactors.iter().enumerate() {
            let mut seen = 0;
            let bounds = EVENT_BOUNDS.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
            for (cell, bound) in reactor.events_per_turn.iter().zip(bounds) {
                seen += cell.get();
                let labels = format_args!("reactor=\"{number}\",le=\"{bound}\"");
                page.sample("revolve_events_per_turn_bucket", labels, seen);
            }
            let labels = format_args!("reactor=\"{number}\"");
            page.sample("revolve_events_per_turn_sum", labels, reactor.events.get());
            page.sample("revolve_events_per_turn_count", labels, seen);
        }
    }

    fn render_outcomes(&self, page: &mut Page) {
        page.family("revolve_evictions_total", "counter", "Sessions that left early, by reason.");
        for (number, reactor) in self.reactors.iter().enumerate() {
            // The one reason that there is: room for a newer one (`--max-sessions`).
            let labels = format_args!("reactor=\"{number}\",reason=\"table_full\"");
            page.sample("revolve_evictions_total", labels, reactor.evictions.get());
        }
        page.family("revolve_closed_total", "counter", "WebSockets ended, by close code and side.");
        for (number, reactor) in self.reactors.iter().enumerate() {
            for (code, side, count) in reactor.closes() {
                let side = side.label();
                let labels = format_args!("reactor=\"{number}\",code=\"{code}\",side=\"{side}\"");
                page.sample("revolve_closed_total", labels, count);
            }
        }
        page.family("revolve_rejected_total", "counter", "Requests refused, by reason.");
        for (number, reactor) in self.reactors.iter().enumerate() {
            for (reason, cell) in self.reasons.iter().zip(&reactor.rejected) {
                let labels = format_args!("reactor=\"{number}\",reason=\"{reason}\"");
                page.sample("revolve_rejected_total", labels, cell.get());
            }
            let labels = format_args!("reactor=\"{number}\",reason=\"application\"");
            page.sample("revolve_rejected_total", labels, reactor.refused.get());
        }
    }
}

/// Appends how many WebSockets there may be, to compare those that there are with.
pub fn render_limit(most: NonZeroUsize, out: &mut String) {
    let mut page = Page(std::mem::take(out));
    let help = "WebSockets that there may be, by --limit-concurrency.";
    page.one("revolve_websockets_most", "gauge", help, most);
    *out = page.0;
}

type CellOf = fn(&ReactorMetrics) -> &Cell;

/// Families with one sample a reactor: name, type, help, cell.
const FAMILIES: [(&str, &str, &str, CellOf); 24] = [
    ("revolve_connections", "gauge", "Sockets held.", |r| &r.connections),
    ("revolve_websockets", "gauge", "WebSockets open.", |r| &r.websockets),
    ("revolve_sessions_live", "gauge", "Sessions with a connection.", |r| &r.sessions_live),
    ("revolve_sessions_detached", "gauge", "Sessions without a connection.", |r| {
        &r.sessions_detached
    }),
    ("revolve_messages_total", "counter", "Messages received.", |r| &r.messages),
    ("revolve_hand_overs_out_total", "counter", "Connections passed to another reactor.", |r| {
        &r.hand_overs_out
    }),
    ("revolve_hand_overs_in_total", "counter", "Connections received from another reactor.", |r| {
        &r.hand_overs_in
    }),
    (
        "revolve_takeovers_total",
        "counter",
        "Connections displaced by a newer one of their session.",
        |r| &r.takeovers,
    ),
    ("revolve_resumes_total", "counter", "Upgrades that found their session.", |r| &r.resumes),
    ("revolve_expiries_total", "counter", "Sessions whose time to live passed.", |r| &r.expiries),
    ("revolve_bytes_in_total", "counter", "Bytes read from peers.", |r| &r.bytes_in),
    ("revolve_bytes_out_total", "counter", "Bytes queued for peers.", |r| &r.bytes_out),
    ("revolve_turns_total", "counter", "Turns of the event loop.", |r| &r.turns),
    ("revolve_slow_turns_total", "counter", "Turns longer than --slow-turn-ms.", |r| &r.slow_turns),
    ("revolve_accepts_total", "counter", "Connections accepted.", |r| &r.accepts),
    (
        "revolve_accept_pauses_total",
        "counter",
        "Times accepting paused because the process was out of descriptors or memory.",
        |r| &r.accept_pauses,
    ),
    (
        "revolve_undelivered_total",
        "counter",
        "Messages, closes and posts for one connection that found nobody.",
        |r| &r.undelivered,
    ),
    (
        "revolve_silent_total",
        "counter",
        "Connections closed because they sent nothing of a first request in time.",
        |r| &r.silent,
    ),
    (
        "revolve_out_of_memory_total",
        "counter",
        "Connections ended because there was no memory for what they sent or were sent.",
        |r| &r.out_of_memory,
    ),
    ("revolve_panics_total", "counter", "Application callbacks that panicked.", |r| &r.panics),
    ("revolve_offloads_total", "counter", "Jobs off-loaded.", |r| &r.offloads),
    ("revolve_offloads_under_way", "gauge", "Off-loaded jobs that are not yet answered.", |r| {
        &r.offloads_under_way
    }),
    (
        "revolve_offloads_given_up_total",
        "counter",
        "Off-loaded jobs that ran on for too long after their connection had gone.",
        |r| &r.offloads_given_up,
    ),
    ("revolve_events_total", "counter", "Readiness events received from the kernel.", |r| {
        &r.events
    }),
];

const SECONDS: [(&str, &str, &str, CellOf); 3] = [
    ("revolve_asleep_seconds_total", "counter", "Time spent waiting for events.", |r| &r.asleep_ns),
    ("revolve_busy_seconds_total", "counter", "Time spent in turns.", |r| &r.busy_ns),
    ("revolve_longest_turn_seconds", "gauge", "The longest turn since the start.", |r| {
        &r.longest_turn_ns
    }),
];

/// A page under way.
pub(super) struct Page(pub(super) String);

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: std::fmt::Arguments<'_>,
        value: impl std::fmt::Display,
    ) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    pub(super) fn one(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: impl std::fmt::Display,
    ) {
        self.family(name, kind, help);
        self.plain(name, value);
    }

    /// Times in a histogram: how many stayed under each bound and no other, those behind the last bound at the end, and what
    /// all of them took together.
    pub(super) fn histogram(
        &mut self,
        (name, help): (&str, &str),
        bounds: impl Iterator<Item = Duration>,
        counts: impl Iterator<Item = u64>,
        sum: Duration,
    ) {
        self.family(name, "histogram", help);
        let mut seen = 0;
        let bounds = bounds.map(|bound| bound.as_secs_f64().to_string());
        for (count, bound) in counts.zip(bounds.chain(["+Inf".to_owned()])) {
            seen += count;
            self.sample(&format!("{name}_bucket"), format_args!("le=\"{bound}\""), seen);
        }
        self.plain(&format!("{name}_sum"), sum.as_secs_f64());
        self.plain(&format!("{name}_count"), seen);
    }

    /// A sample without labels.
    pub(super) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_label() {
        for (code, label) in [
            (1000, "1000"),
            (1003, "1003"),
            (1005, "1005"),
            (1014, "1014"),
            (3000, "3xxx"),
            (4000, "4xxx"),
            (4001, "4001"),
            (4999, "4xxx"),
            (1004, "other"),
            (999, "other"),
            (u16::MAX, "other"),
        ] {
            assert_eq!(CLOSE_LABELS[close_label(code)], label, "{code}");
        }
    }

    #[test]
    fn the_page_counts_what_happened() {
        let metrics = ServerMetrics::new(2, &["bad_key"], Arc::new(AtomicU64::new(3)));
        let reactor = &metrics.reactors()[1];
        reactor.messages.add(5);
        reactor.turn(3);
        reactor.turn(1000);
        reactor.closed(CloseReason { code: 1009, side: Side::Server });
        reactor.closed(CloseReason { code: 1006, side: Side::Client });
        reactor.rejected(0);
        let page = metrics.render(Duration::ZERO);
        for line in [
            "# TYPE ws_total_messages_total counter",
            "ws_total_messages_total 5",
            "ws_error_count_total 1",
            "ws_shutdown_duration_seconds 0",
            "revolve_log_lines_dropped_total 3",
            "revolve_messages_total{reactor=\"1\"} 5",
            "revolve_events_per_turn_bucket{reactor=\"1\",le=\"4\"} 1",
            "revolve_events_per_turn_bucket{reactor=\"1\",le=\"+Inf\"} 2",
            "revolve_events_per_turn_sum{reactor=\"1\"} 1003",
            "revolve_closed_total{reactor=\"1\",code=\"1006\",side=\"client\"} 1",
            "revolve_rejected_total{reactor=\"1\",reason=\"bad_key\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }
}

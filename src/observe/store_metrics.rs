//! The part of the metrics page that tells of the store; nothing of it stands on the page of a server without one.
//!
//! Renders what the store's thread and the reactors have counted. Counts nothing. Called by `server_status.rs`.
//!
//! Invariant: label values come from closed sets, so no peer can grow the page.
//!
//! Next: [`crate::observe::task_metrics`]: the part about tasks for workers.

use std::sync::Arc;
use std::time::Duration;

use super::metrics::{Page, ReactorMetrics};
use crate::one_writer_cell::Cell;
use crate::store::metrics::{SYNC_BOUNDS_US, StoreMetrics};

type CellOf = fn(&StoreMetrics) -> &Cell;

/// Families with one sample: name, type, help, cell.
const FAMILIES: [(&str, &str, &str, CellOf); 8] = [
    ("revolve_store_commits_total", "counter", "Batches of reactors that were stored.", |s| {
        &s.commits
    }),
    ("revolve_store_sessions_total", "counter", "Sessions in these batches.", |s| &s.sessions),
    ("revolve_store_written_bytes_total", "counter", "Bytes of them in the log.", |s| &s.bytes),
    ("revolve_store_live_bytes", "gauge", "Bytes of live sessions at the last compaction.", |s| {
        &s.live_bytes
    }),
    ("revolve_store_segments", "gauge", "Segments of the log that are not compacted yet.", |s| {
        &s.segments
    }),
    ("revolve_store_compactions_total", "counter", "Compactions of the log.", |s| &s.compactions),
    ("revolve_store_recovered_sessions", "gauge", "Sessions that the start has found.", |s| {
        &s.recovered
    }),
    ("revolve_store_syncs_total", "counter", "Syncs, each for one batch or several.", |s| &s.syncs),
];

/// Families of a store that several machines share.
const SHARED_FAMILIES: [(&str, &str, &str, CellOf); 6] = [
    ("revolve_store_available", "gauge", "Whether the shared store serves.", |s| {
        &s.shared.is_available
    }),
    ("revolve_store_connections_total", "counter", "Connections made to it for batches.", |s| {
        &s.shared.connections
    }),
    ("revolve_store_claims_total", "counter", "Sessions that were claimed there.", |s| {
        &s.shared.claims
    }),
    (
        "revolve_store_refused_total",
        "counter",
        "Sessions of which nothing was stored, because another claim has them.",
        |s| &s.shared.refused,
    ),
    (
        "revolve_store_takeovers_total",
        "counter",
        "Takeovers of sessions by other nodes that were heard of.",
        |s| &s.shared.takeovers,
    ),
    ("revolve_store_unavailable_total", "counter", "Batches without an answer in time.", |s| {
        &s.shared.unavailable
    }),
];

/// Appends it.
pub fn render(store: &StoreMetrics, reactors: &[Arc<ReactorMetrics>], out: &mut String) {
    let mut page = Page(std::mem::take(out));
    for (name, kind, help, cell) in FAMILIES {
        page.one(name, kind, help, cell(store).get());
    }
    if store.shared.is_used.get() != 0 {
        for (name, kind, help, cell) in SHARED_FAMILIES {
            page.one(name, kind, help, cell(store).get());
        }
    }
    let seconds = Duration::from_nanos(store.recovery_ns.get()).as_secs_f64();
    page.one(
        "revolve_store_recovery_seconds",
        "gauge",
        "What the start took to find them.",
        seconds,
    );
    page.histogram(
        ("revolve_store_sync_seconds", "What a sync took; with Redis, a round trip."),
        SYNC_BOUNDS_US.iter().map(|&us| Duration::from_micros(us)),
        store.syncs_by_time(),
        Duration::from_nanos(store.sync_ns.get()),
    );
    let (name, waiting) = ("revolve_store_held_total", "revolve_store_waiting");
    page.family(name, "counter", "Replies that were held until their session was stored.");
    for (number, reactor) in reactors.iter().enumerate() {
        page.sample(name, format_args!("reactor=\"{number}\""), reactor.replies_held.get());
    }
    page.family(waiting, "gauge", "Connections whose replies are held now.");
    for (number, reactor) in reactors.iter().enumerate() {
        page.sample(waiting, format_args!("reactor=\"{number}\""), reactor.waits_for_store.get());
    }
    *out = page.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_of_syncs_by_their_time() {
        let store = StoreMetrics::default();
        store.note_recovery(12, Duration::from_millis(1500));
        for us in [90, 300, 301, 2_000_000] {
            store.note_sync(Duration::from_micros(us));
        }
        let mut page = String::from("before\n");
        render(&store, &[Arc::default()], &mut page);
        for line in [
            "before",
            "# TYPE revolve_store_sync_seconds histogram",
            "revolve_store_sync_seconds_bucket{le=\"0.0001\"} 1",
            "revolve_store_sync_seconds_bucket{le=\"0.0003\"} 2",
            "revolve_store_sync_seconds_bucket{le=\"0.0005\"} 3",
            "revolve_store_sync_seconds_bucket{le=\"1\"} 3",
            "revolve_store_sync_seconds_bucket{le=\"+Inf\"} 4",
            "revolve_store_sync_seconds_sum 2.000691",
            "revolve_store_sync_seconds_count 4",
            "revolve_store_recovered_sessions 12",
            "revolve_store_recovery_seconds 1.5",
            "revolve_store_waiting{reactor=\"0\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
        assert!(!page.contains("revolve_store_available"), "it is shared with nobody");
    }

    #[test]
    fn of_a_shared_store_the_page_tells_more() {
        let store = StoreMetrics::default();
        store.shared.note_use();
        let mut page = String::new();
        render(&store, &[], &mut page);
        for (name, ..) in SHARED_FAMILIES {
            assert!(page.lines().any(|line| line == format!("{name} 0")), "{name}\n{page}");
        }
    }
}

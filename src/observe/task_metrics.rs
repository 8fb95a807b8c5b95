//! The part of the metrics page that tells of tasks for workers; nothing of it stands on the page of a server without a
//! broker.
//!
//! Renders what the broker's thread has counted. Counts nothing. Called by `server_status.rs`.
//!
//! Invariant: label values come from closed sets, so no peer can grow the page.
//!
//! Next: [`crate::observe::tls_metrics`]: the part about TLS.

use std::time::Duration;

use super::metrics::Page;
use crate::one_writer_cell::Cell;
use crate::tasks::metrics::{OUTCOMES, ROUND_TRIP_BOUNDS_MS, TaskMetrics};

type CellOf = fn(&TaskMetrics) -> &Cell;

/// Families with one sample: name, type, help, cell.
const FAMILIES: [(&str, &str, &str, CellOf); 6] = [
    ("revolve_broker_available", "gauge", "Whether the broker serves.", |t| &t.is_available),
    ("revolve_broker_connections_total", "counter", "Times that it was connected to.", |t| {
        &t.connections
    }),
    ("revolve_tasks_sent_total", "counter", "Tasks that the broker has taken.", |t| &t.sent),
    ("revolve_tasks_under_way", "gauge", "Tasks that are not yet answered.", |t| &t.under_way),
    (
        "revolve_tasks_abandoned_total",
        "counter",
        "Tasks whose connection had gone, or has taken them back, before there was a result.",
        |t| &t.abandoned,
    ),
    (
        "revolve_tasks_taken_back_total",
        "counter",
        "Tasks that workers were told not to begin, because nobody waits for them.",
        |t| &t.taken_back,
    ),
];

/// Appends it.
pub fn render(tasks: &TaskMetrics, out: &mut String) {
    let mut page = Page(std::mem::take(out));
    for (name, kind, help, cell) in FAMILIES {
        page.one(name, kind, help, cell(tasks).get());
    }
    let name = "revolve_tasks_answered_total";
    page.family(name, "counter", "Tasks whose asker was told how they have ended.");
    for (outcome, cell) in OUTCOMES.iter().zip(&tasks.outcomes) {
        page.sample(name, format_args!("outcome=\"{outcome}\""), cell.get());
    }
    page.histogram(
        ("revolve_task_round_trip_seconds", "From the callback that asks to a worker's answer."),
        ROUND_TRIP_BOUNDS_MS.iter().map(|&ms| Duration::from_millis(ms)),
        tasks.round_trips(),
        Duration::from_nanos(tasks.round_trip_ns.get()),
    );
    *out = page.0;
}

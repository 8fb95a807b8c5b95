//! What `/ws/stats` tells once a second, as JSON: every reactor's counters, its slab as runs, and the store's counters.
//!
//! Counters are told as they stand; rates are the reader's to make, from two frames and the time
//! between them. They come from the cells that `/metrics` shows, under the same names. Called by
//! `shard/watching.rs`.
//!
//! Next: `watchers`: the connections that get it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::observe::metrics::ReactorMetrics;
use crate::observe::slab_map::SlabMap;
use crate::one_writer_cell::Cell;
use crate::store::metrics::{SharedMetrics, StoreMetrics};

type CellOf = fn(&ReactorMetrics) -> &Cell;

/// Numbers with one value a reactor: key and cell.
const NUMBERS: [(&str, CellOf); 15] = [
    ("connections", |r| &r.connections),
    ("websockets", |r| &r.websockets),
    ("sessions_live", |r| &r.sessions_live),
    ("sessions_detached", |r| &r.sessions_detached),
    ("messages", |r| &r.messages),
    ("turns", |r| &r.turns),
    ("events", |r| &r.events),
    ("bytes_in", |r| &r.bytes_in),
    ("bytes_out", |r| &r.bytes_out),
    ("accepts", |r| &r.accepts),
    ("resumes", |r| &r.resumes),
    ("takeovers", |r| &r.takeovers),
    ("hand_overs_in", |r| &r.hand_overs_in),
    ("hand_overs_out", |r| &r.hand_overs_out),
    ("waits_for_store", |r| &r.waits_for_store),
];

/// Times: in microseconds, which a reader whose numbers have 53 bits can add up for centuries.
const TIMES: [(&str, CellOf); 2] = [("busy_us", |r| &r.busy_ns), ("asleep_us", |r| &r.asleep_ns)];

type StoreCellOf = fn(&StoreMetrics) -> &Cell;

/// Numbers of the store: key and cell.
const STORE_NUMBERS: [(&str, StoreCellOf); 6] = [
    ("commits", |s| &s.commits),
    ("sessions", |s| &s.sessions),
    ("syncs", |s| &s.syncs),
    ("bytes", |s| &s.bytes),
    ("segments", |s| &s.segments),
    ("compactions", |s| &s.compactions),
];

/// The figures of all reactors, and of the store if there is one. `looks` counts the frames there have been, so that a
/// reader sees which it has missed; `slab_maps` come in the order of the reactors, `None` for one that has not
/// answered.
#[must_use]
pub fn json(
    reactors: &[Arc<ReactorMetrics>],
    store: Option<&StoreMetrics>,
    looks: u64,
    uptime: Duration,
    slab_maps: impl Iterator<Item = Option<SlabMap>>,
) -> String {
    let mut out = String::with_capacity(1024 * (1 + reactors.len()));
    let uptime = uptime.as_micros();
    let _ = write!(out, r#"{{"looks":{looks},"uptime_us":{uptime},"reactors":["#);
    for (number, (reactor, slab_map)) in reactors.iter().zip(slab_maps).enumerate() {
        out.push_str(if number == 0 { "{" } else { ",{" });
        for (key, cell) in NUMBERS {
            let _ = write!(out, r#""{key}":{},"#, cell(reactor).get());
        }
        for (key, cell) in TIMES {
            let _ = write!(out, r#""{key}":{},"#, cell(reactor).get() / 1000);
        }
        out.push_str(r#""hand_overs_to":"#);
        push_list(&mut out, reactor.hand_overs_to());
        out.push_str(r#","closed":"#);
        let closes = reactor.closes().filter(|(.., count)| *count > 0);
        push_list(
            &mut out,
            closes.map(|(code, side, n)| format!(r#"["{code}","{}",{n}]"#, side.label())),
        );
        match slab_map {
            Some(SlabMap { slots, runs, .. }) => {
                let _ = write!(out, r#","slots":{slots},"runs":"#);
                push_list(&mut out, runs.iter());
            }
            None => out.push_str(r#","slots":null,"runs":null"#),
        }
        out.push('}');
    }
    out.push_str(r#"],"store":"#);
    match store {
        Some(store) => push_store(&mut out, store),
        None => out.push_str("null"),
    }
    out.push('}');
    out
}

fn push_store(out: &mut String, store: &StoreMetrics) {
    out.push('{');
    for (key, cell) in STORE_NUMBERS {
        let _ = write!(out, r#""{key}":{},"#, cell(store).get());
    }
    let _ = write!(out, r#""sync_us":{},"shared":"#, store.sync_ns.get() / 1000);
    match store.shared.is_used.get() {
        0 => out.push_str("null"),
        _ => push_shared(out, &store.shared),
    }
    out.push('}');
}

/// What there is to tell of a store only if several machines share it.
fn push_shared(out: &mut String, shared: &SharedMetrics) {
    let _ = write!(
        out,
        r#"{{"available":{},"claims":{},"refused":{},"takeovers":{},"unavailable":{}}}"#,
        shared.is_available.get(),
        shared.claims.get(),
        shared.refused.get(),
        shared.takeovers.get(),
        shared.unavailable.get(),
    );
}

fn push_list(out: &mut String, items: impl Iterator<Item = impl std::fmt::Display>) {
    out.push('[');
    for (number, item) in items.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{item}");
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::{CloseReason, Side};
    use crate::observe::metrics::ServerMetrics;
    use crate::observe::slab_map::{SlabMapBuilder, SlotState};
    use serde_json::{Value, json};

    #[test]
    fn everything_is_where_the_page_looks_for_it() {
        let metrics = ServerMetrics::new(2, &[], Arc::default());
        metrics.reactors()[1].messages.add(5);
        metrics.reactors()[1].turn(3);
        metrics.reactors()[1].busy_ns.add(7_999);
        metrics.reactors()[1].handed_over(0);
        metrics.reactors()[1].waits_for_store.set(4);
        metrics.reactors()[0].closed(CloseReason { code: 4001, side: Side::Server });
        let mut builder = SlabMapBuilder::default();
        builder.push_run(SlotState::Open, 1);
        builder.push_run(SlotState::Open, 1);
        let slab_maps = [None, Some(builder.finish(1, 2))];
        let store = StoreMetrics::default();
        store.note_sync(Duration::from_micros(130));
        assert!(
            super::json(&[], Some(&store), 0, Duration::ZERO, [].into_iter())
                .contains(r#""shared":null}"#)
        );
        store.shared.note_use();
        let uptime = Duration::from_millis(1500);
        let text = super::json(metrics.reactors(), Some(&store), 9, uptime, slab_maps.into_iter());
        let found: Value = serde_json::from_str(&text).unwrap();
        let shared = json!({
            "available": 0, "claims": 0, "refused": 0, "takeovers": 0, "unavailable": 0
        });
        assert_eq!(found["store"]["shared"], shared);
        assert_eq!((&found["looks"], &found["uptime_us"]), (&json!(9), &json!(1_500_000)));
        let [first, second] = &found["reactors"].as_array().unwrap()[..] else { panic!("{text}") };
        assert_eq!(first["closed"], json!([["4001", "server", 1]]));
        assert_eq!((&first["runs"], &first["slots"]), (&Value::Null, &Value::Null));
        assert_eq!(second["runs"], json!([2 << 3 | 2]));
        assert_eq!(second["hand_overs_to"], json!([1, 0]));
        for (key, value) in [
            ("messages", 5),
            ("events", 3),
            ("turns", 1),
            ("busy_us", 7),
            ("slots", 2),
            ("waits_for_store", 4),
        ] {
            assert_eq!(second[key], json!(value), "{key}");
        }
        assert_eq!(
            (&found["store"]["syncs"], &found["store"]["sync_us"]),
            (&json!(1), &json!(130))
        );
    }

    #[test]
    fn a_reactor_of_ten_thousand_takes_little_room() {
        let metrics = ServerMetrics::new(1, &[], Arc::default());
        let mut builder = SlabMapBuilder::default();
        (0..10_000).for_each(|_| builder.push_run(SlotState::Open, 1));
        let slab_map = [Some(builder.finish(0, 10_000))];
        let text = super::json(metrics.reactors(), None, 1, Duration::ZERO, slab_map.into_iter());
        assert!(text.len() < 600, "{text}");
        assert!(text.ends_with(r#""store":null}"#), "{text}");
    }
}

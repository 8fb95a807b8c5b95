//! What an application counts itself: counters and gauges, a cell of each for each reactor.
//!
//! A handle is a cell: to add to it takes no lock, and it may be sent to other threads. All cells of a
//! server stand in one register, so every reactor that is asked for `/metrics` shows all of them. The
//! register is locked when a metric is registered and when the page is made, and at no other time.
//! Called by applications through [`super::ReactorContext`], and by the page of metrics.
//!
//! Invariant: a name stands for one kind and one help on all reactors, and no name, help or label is
//! made of what a peer sent: they are `&'static`.
//!
//! Next: `question`: what is asked of another reactor.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names that one server's applications may register. 256: the page has a sample a reactor for each of
/// them, so with 64 reactors it has 16,384 more lines, some 2 MiB, and takes some milliseconds of the turn
/// in which it is made.
const NAMES_MOST: usize = 256;

/// What the names of the server's own metrics begin with.
const SERVERS: [&str; 2] = ["revolve_", "ws_"];

/// One number, on cache lines of its own: those of other reactors are written at the same time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct MetricCell(AtomicU64);

/// A number that only grows, as [`super::ReactorContext::counter`] returns it. Clones are the same number.
#[derive(Debug, Clone)]
pub struct CounterMetric(Arc<MetricCell>);

impl CounterMetric {
    /// Adds. From whichever thread, and without a lock.
    pub fn add(&self, amount: u64) {
        self.0.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// What this reactor's cell holds.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, as [`super::ReactorContext::gauge`] returns it. Clones are the same
/// number.
#[derive(Debug, Clone)]
pub struct GaugeMetric(Arc<MetricCell>);

impl GaugeMetric {
    /// Sets it. From whichever thread, and without a lock.
    pub fn set(&self, value: i64) {
        self.0.0.store(value.cast_unsigned(), Ordering::Relaxed);
    }

    /// Adds, or, with a negative amount, takes away.
    pub fn add(&self, amount: i64) {
        self.0.0.fetch_add(amount.cast_unsigned(), Ordering::Relaxed);
    }

    /// What this reactor's cell holds.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.0.load(Ordering::Relaxed).cast_signed()
    }
}

/// Why a metric is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidMetric {
    /// The name is none: `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    Name(&'static str),
    /// The name of a counter does not end in `_total`.
    Suffix(&'static str),
    /// The name begins as those of the server's own metrics do: `revolve_` or `ws_`.
    Reserved(&'static str),
    /// The name is registered already, as another kind or with another help.
    Conflict(&'static str),
    /// As many names are registered as may be: 256 in a server.
    TooMany(&'static str),
}

impl fmt::Display for InvalidMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, fault) = match self {
            InvalidMetric::Name(name) => (name, "is no name: needed are letters, digits, _ and :"),
            InvalidMetric::Suffix(name) => (name, "is a counter, so its name must end in _total"),
            InvalidMetric::Reserved(name) => {
                (name, "begins as the server's own metrics do: revolve_ or ws_")
            }
            InvalidMetric::Conflict(name) => {
                (name, "is registered already, as another kind or with another help")
            }
            InvalidMetric::TooMany(name) => {
                return write!(
                    f,
                    "metric {}: {NAMES_MOST} names are registered already",
                    name.escape_debug()
                );
            }
        };
        write!(f, "metric {}: it {fault}", name.escape_debug())
    }
}

impl std::error::Error for InvalidMetric {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// The cells of one name.
#[derive(Debug)]
struct Family {
    kind: Kind,
    help: &'static str,
    /// By the reactor's number.
    cells: BTreeMap<usize, Arc<MetricCell>>,
}

/// The register of one server.
#[derive(Debug, Default)]
pub(crate) struct ApplicationMetrics(Mutex<BTreeMap<&'static str, Family>>);

impl ApplicationMetrics {
    /// The counter of this name on a reactor.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn counter(
        &self,
        reactor: usize,
        name: &'static str,
        help: &'static str,
    ) -> Result<CounterMetric, InvalidMetric> {
        if !name.ends_with("_total") {
            check_name(name)?;
            return Err(InvalidMetric::Suffix(name));
        }
        self.cell(reactor, name, Kind::Counter, help).map(CounterMetric)
    }

    /// The gauge of this name on a reactor.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn gauge(
        &self,
        reactor: usize,
        name: &'static str,
        help: &'static str,
    ) -> Result<GaugeMetric, InvalidMetric> {
        self.cell(reactor, name, Kind::Gauge, help).map(GaugeMetric)
    }

    fn cell(
        &self,
        reactor: usize,
        name: &'static str,
        kind: Kind,
        help: &'static str,
    ) -> Result<Arc<MetricCell>, InvalidMetric> {
        check_name(name)?;
        let mut families = self.lock();
        if !families.contains_key(name) && families.len() >= NAMES_MOST {
            return Err(InvalidMetric::TooMany(name));
        }
        let new = || Family { kind, help, cells: BTreeMap::new() };
        let family = families.entry(name).or_insert_with(new);
        if family.kind != kind || family.help != help {
            return Err(InvalidMetric::Conflict(name));
        }
        Ok(family.cells.entry(reactor).or_default().clone())
    }

    /// Appends all families, in the order of their names: in Prometheus' text format 0.0.4, with a
    /// sample for each reactor that has registered.
    pub(crate) fn render(&self, page: &mut String) {
        for (name, family) in &*self.lock() {
            let (help, kind) = (escaped(family.help), family.kind.label());
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (reactor, cell) in &family.cells {
                let value = cell.0.load(Ordering::Relaxed);
                let _ = match family.kind {
                    Kind::Counter => writeln!(page, "{name}{{reactor=\"{reactor}\"}} {value}"),
                    Kind::Gauge => {
                        let value = value.cast_signed();
                        writeln!(page, "{name}{{reactor=\"{reactor}\"}} {value}")
                    }
                };
            }
        }
    }

    /// Nothing that can panic happens under the lock, so it is never poisoned.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// <https://prometheus.io/docs/concepts/data_model/>, and not one of the server's own.
fn check_name(name: &'static str) -> Result<(), InvalidMetric> {
    let is_first = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b':');
    let is_name = name.bytes().next().is_some_and(is_first)
        && name.bytes().all(|b| is_first(b) || b.is_ascii_digit());
    if !is_name {
        return Err(InvalidMetric::Name(name));
    }
    match SERVERS.iter().any(|prefix| name.starts_with(prefix)) {
        true => Err(InvalidMetric::Reserved(name)),
        false => Ok(()),
    }
}

/// A help text on one line, as the format wants it.
fn escaped(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_on_a_reactor_is_one_cell() {
        let metrics = ApplicationMetrics::default();
        let orders = metrics.counter(0, "app_orders_total", "Orders taken.").unwrap();
        let again = metrics.counter(0, "app_orders_total", "Orders taken.").unwrap();
        let other = metrics.counter(3, "app_orders_total", "Orders taken.").unwrap();
        let depth = metrics.gauge(0, "app:depth", "Depth \\ of\nthe queue.").unwrap();
        orders.add(2);
        again.clone().add(3);
        other.add(7);
        depth.set(5);
        depth.add(-8);
        assert_eq!((orders.get(), again.get(), other.get(), depth.get()), (5, 5, 7, -3));
        let mut page = String::new();
        metrics.render(&mut page);
        let expected = "# HELP app:depth Depth \\\\ of\\nthe queue.\n# TYPE app:depth gauge\n\
                        app:depth{reactor=\"0\"} -3\n\
                        # HELP app_orders_total Orders taken.\n# TYPE app_orders_total counter\n\
                        app_orders_total{reactor=\"0\"} 5\napp_orders_total{reactor=\"3\"} 7\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn what_would_spoil_the_page_is_not_registered() {
        let metrics = ApplicationMetrics::default();
        metrics.counter(0, "a_total", "A.").unwrap();
        for (name, expected) in [
            ("", InvalidMetric::Name("")),
            ("9_total", InvalidMetric::Name("9_total")),
            ("a-b_total", InvalidMetric::Name("a-b_total")),
            ("a b", InvalidMetric::Name("a b")),
            ("a{x}_total", InvalidMetric::Name("a{x}_total")),
            ("a\n_total", InvalidMetric::Name("a\n_total")),
            ("ä_total", InvalidMetric::Name("ä_total")),
            ("orders", InvalidMetric::Suffix("orders")),
            ("revolve_orders_total", InvalidMetric::Reserved("revolve_orders_total")),
            ("ws_total_messages_total", InvalidMetric::Reserved("ws_total_messages_total")),
        ] {
            let error = metrics.counter(0, name, "Help.").unwrap_err();
            assert_eq!(error, expected);
            let line = error.to_string();
            assert!(!line.contains('\n') && line.starts_with("metric "), "{line}");
        }
        let conflict = InvalidMetric::Conflict("a_total");
        assert_eq!(metrics.gauge(0, "a_total", "A.").unwrap_err(), conflict);
        assert_eq!(metrics.counter(1, "a_total", "B.").unwrap_err(), conflict);
    }

    #[test]
    fn there_is_an_end_to_names() {
        let metrics = ApplicationMetrics::default();
        let names = |count: usize| (0..count).map(|n| &*format!("n{n}").leak());
        for name in names(NAMES_MOST) {
            metrics.gauge(0, name, "N.").unwrap();
        }
        assert_eq!(metrics.gauge(0, "more", "N.").unwrap_err(), InvalidMetric::TooMany("more"));
        assert!(metrics.gauge(1, "n7", "N.").is_ok(), "on another reactor it is no more names");
        assert!(InvalidMetric::TooMany("more").to_string().contains("256"));
    }
}

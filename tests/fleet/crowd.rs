//! Many clients at once, and what they have met altogether.
//!
//! A thread each. The tests wait for what they have done, never for a time. Called by the tests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::client::{Client, Door, End, Random};
use crate::ledger::Ledger;
use crate::wait_until;

/// What all of them have met.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Counts that were told.
    pub(crate) acknowledged: AtomicU64,
    /// Sessions that were found on another node than before.
    pub(crate) crossings: AtomicU64,
    /// Upgrades that were refused, and connections that ended with 1013.
    turned_away: AtomicU64,
    ends: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
}

impl Totals {
    pub(crate) fn note_end(&self, end: End) {
        if matches!(end, End::Refused(_) | End::Closed(1013)) {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        *self.ends.lock().unwrap().entry(format!("{end:?}")).or_default() += 1;
    }

    /// Of a connection that was left before.
    pub(crate) fn note_older_end(&self, end: End) {
        *self.ends.lock().unwrap().entry(format!("left, {end:?}")).or_default() += 1;
    }

    pub(crate) fn note_violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    fn assert_kept(&self) {
        // A copy: clients go on to note theirs while this panics.
        let violations = self.violations.lock().unwrap().clone();
        let count = violations.len();
        assert!(violations.is_empty(), "{count} of: {:#?}", &violations[..count.min(5)]);
    }
}

#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) totals: Arc<Totals>,
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Ledger>>,
}

/// What a crowd has come to.
#[derive(Debug)]
pub(crate) struct Sum {
    pub(crate) clients: usize,
    pub(crate) acknowledged: u64,
    /// Acknowledged, and lost by a failover.
    pub(crate) lost: u64,
    pub(crate) crossings: u64,
    ends: BTreeMap<String, u64>,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { clients, acknowledged, lost, crossings, ends } = self;
        write!(
            f,
            "{clients} clients, {acknowledged} counts acknowledged, {lost} lost, 0 twice; \
             {crossings} takeovers by another node; ends of connections: {ends:?}"
        )
    }
}

impl Sum {
    /// How many connections ended like this.
    pub(crate) fn ended(&self, how: &str) -> u64 {
        self.ends.get(how).copied().unwrap_or(0)
    }
}

impl Crowd {
    /// So many clients, each with a session of its own.
    pub(crate) fn start(count: usize, doors: Vec<Door>, may_lose: bool) -> Crowd {
        let (doors, totals) = (Arc::new(doors), Arc::<Totals>::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let clients = (0..count).map(|number| {
            let client = Client {
                id: format!("client-{number}"),
                doors: doors.clone(),
                totals: totals.clone(),
                may_lose,
                random: Random::new(number as u64 + 1),
                ledger: Ledger::default(),
                node: None,
                older: Vec::new(),
            };
            let is_over = is_over.clone();
            thread::spawn(move || client.live(&is_over))
        });
        Crowd { clients: clients.collect(), totals: totals.clone(), is_over: is_over.clone() }
    }

    /// Waits until so many more counts were acknowledged.
    pub(crate) fn count_on(&self, more: u64) {
        self.wait_for("counts", &self.totals.acknowledged, more);
    }

    /// Waits until so many more clients were turned away.
    pub(crate) fn wait_until_turned_away(&self, more: u64) {
        self.wait_for("turned away", &self.totals.turned_away, more);
    }

    fn wait_for(&self, what: &str, total: &AtomicU64, more: u64) {
        let wanted = total.load(Ordering::Relaxed) + more;
        wait_until(&format!("{more} more {what}"), || {
            self.totals.assert_kept();
            total.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Waits until sessions were found on another node so often, since the beginning.
    pub(crate) fn wait_for_crossings(&self, wanted: u64) {
        wait_until(&format!("{wanted} takeovers"), || {
            self.totals.assert_kept();
            self.totals.crossings.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends it: each client looks once more where its session stands.
    pub(crate) fn end(mut self) -> Sum {
        self.is_over.store(true, Ordering::Release);
        let ledgers: Vec<Ledger> =
            self.clients.drain(..).map(|client| client.join().expect("no panic")).collect();
        self.totals.assert_kept();
        Sum {
            clients: ledgers.len(),
            acknowledged: self.totals.acknowledged.load(Ordering::Relaxed),
            lost: ledgers.iter().map(|ledger| ledger.lost).sum(),
            crossings: self.totals.crossings.load(Ordering::Relaxed),
            ends: self.totals.ends.lock().unwrap().clone(),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Of a test that fails: its clients are not to go on.
        self.is_over.store(true, Ordering::Release);
    }
}

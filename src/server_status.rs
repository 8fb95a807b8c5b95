//! What all reactors of a server share: what each of them counts, the limits over all of them, and how
//! far the server has drained.
//!
//! The mailboxes and the pool for off-loaded jobs aside, reactors share nothing else. A message touches
//! the cells of its own reactor, and nothing else in here. The limits are asked at accept and close, when
//! a WebSocket opens and closes, and at a new session; the drain at a wake, at a request, and once a turn
//! while it lasts. Wakes no reactor: `server.rs` does that when a drain begins. Made by `server.rs`, read
//! and written by every shard.
//!
//! Invariant: a drain has one beginning, and is never taken back.
//!
//! Next: [`crate::mailbox`]: how other threads reach a reactor.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::application::ApplicationMetrics;
use crate::config::Config;
use crate::observe::metrics::{ReactorMetrics, ServerMetrics, render_limit};
use crate::observe::{store_metrics, task_metrics, tls_metrics};
use crate::offload::pool::PoolFigures;
use crate::session::rate::SessionRates;
use crate::store::metrics::StoreMetrics;
use crate::tasks::metrics::TaskMetrics;
use crate::transport::connection_limiter::ConnectionLimiter;
use crate::transport::tls::TlsAcceptor;

/// What all of a server's threads may see.
#[derive(Debug)]
pub struct ServerStatus {
    metrics: ServerMetrics,
    application_metrics: ApplicationMetrics,
    connection_limiter: Arc<ConnectionLimiter>,
    session_rates: SessionRates,
    draining_since: OnceLock<Instant>,
    /// Reactors that have sent all that their applications had to say about it.
    announced: AtomicUsize,
    drained: AtomicUsize,
    /// Reactors that do not have the sessions yet which a store had.
    unrestored: AtomicUsize,
    has_store: AtomicBool,
    /// Whether a store that several machines share does not answer.
    is_store_away: AtomicBool,
    store_metrics: Arc<StoreMetrics>,
    task_metrics: Arc<TaskMetrics>,
    store_failure: OnceLock<String>,
    /// Settings other than those of the start, and how often they have changed.
    newer_config: Mutex<Option<Arc<Config>>>,
    config_changes: AtomicU64,
    /// WebSockets that there may be, by the settings of the start.
    first_limit: OnceLock<NonZeroUsize>,
    /// Whose certificates the metrics tell of.
    tls: OnceLock<Arc<TlsAcceptor>>,
}

impl ServerStatus {
    /// For so many reactors. `reasons` are the labels under which refused requests are counted;
    /// `log_lines_dropped` is counted by the logger.
    #[must_use]
    pub fn new(
        reactors: usize,
        reasons: &'static [&'static str],
        log_lines_dropped: Arc<AtomicU64>,
    ) -> Self {
        ServerStatus {
            metrics: ServerMetrics::new(reactors, reasons, log_lines_dropped),
            application_metrics: ApplicationMetrics::default(),
            connection_limiter: Arc::default(),
            session_rates: SessionRates::default(),
            draining_since: OnceLock::new(),
            announced: AtomicUsize::new(0),
            drained: AtomicUsize::new(0),
            unrestored: AtomicUsize::new(0),
            has_store: AtomicBool::new(false),
            is_store_away: AtomicBool::new(false),
            store_metrics: Arc::default(),
            task_metrics: Arc::default(),
            store_failure: OnceLock::new(),
            newer_config: Mutex::default(),
            config_changes: AtomicU64::new(0),
            first_limit: OnceLock::new(),
            tls: OnceLock::new(),
        }
    }

    /// The cells of all reactors, by number.
    #[must_use]
    pub fn reactors(&self) -> &[Arc<ReactorMetrics>] {
        self.metrics.reactors()
    }

    /// The cells of one reactor.
    #[must_use]
    pub fn reactor(&self, reactor: usize) -> &Arc<ReactorMetrics> {
        &self.metrics.reactors()[reactor]
    }

    /// The page that `/metrics` shows.
    #[must_use]
    pub fn metrics_page(&self, now: Instant) -> String {
        let since = self.draining_since();
        let mut page = self.metrics.render(since.map_or(Duration::ZERO, |since| now - since));
        if let Some(most) = self.limit_concurrency() {
            render_limit(most, &mut page);
        }
        if let Some(store) = self.store() {
            store_metrics::render(store, self.reactors(), &mut page);
        }
        if self.task_metrics.is_used.get() != 0 {
            task_metrics::render(&self.task_metrics, &mut page);
        }
        if let Some(tls) = self.tls.get() {
            tls_metrics::render(&tls.shown(), self.reactors(), &mut page);
        }
        self.application_metrics.render(&mut page);
        page
    }

    /// The settings of the start bound its WebSockets so.
    pub fn note_limit(&self, most: Option<NonZeroUsize>) {
        most.into_iter().for_each(|most| _ = self.first_limit.set(most));
    }

    /// WebSockets that there may be now, if they are bounded.
    fn limit_concurrency(&self) -> Option<NonZeroUsize> {
        let newer = self.lock_newer_config().as_ref().map(|config| config.limit_concurrency);
        newer.unwrap_or_else(|| self.first_limit.get().copied())
    }

    /// The server speaks TLS, if there is one of these.
    pub fn note_tls(&self, acceptor: Option<Arc<TlsAcceptor>>) {
        acceptor.into_iter().for_each(|acceptor| _ = self.tls.set(acceptor));
    }

    /// What makes the server's TLS sessions, if it has any.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<TlsAcceptor>> {
        self.tls.get()
    }

    /// What the applications count themselves.
    pub(crate) fn application_metrics(&self) -> &ApplicationMetrics {
        &self.application_metrics
    }

    /// What the pool for off-loaded jobs tells of itself.
    #[must_use]
    pub fn pool(&self) -> &Arc<PoolFigures> {
        self.metrics.pool()
    }

    /// What bounds the sockets, of all addresses and of each, and the open WebSockets.
    #[must_use]
    pub fn connection_limiter(&self) -> &Arc<ConnectionLimiter> {
        &self.connection_limiter
    }

    /// How many sessions each address has made lately.
    #[must_use]
    pub fn session_rates(&self) -> &SessionRates {
        &self.session_rates
    }

    /// From now on the server is going away. A second call changes nothing.
    pub fn begin_drain(&self, now: Instant) {
        let _ = self.draining_since.set(now);
    }

    /// Since when the server has been going away, if it is.
    #[must_use]
    pub fn draining_since(&self) -> Option<Instant> {
        self.draining_since.get().copied()
    }

    /// A reactor has said what there was to be said before the first goodbye, and what it said to others is in their
    /// mailboxes. Whether it was the last.
    pub fn note_announced(&self) -> bool {
        self.announced.fetch_add(1, Ordering::AcqRel) + 1 == self.reactors().len()
    }

    /// Whether all reactors have. One that sees this sees also their mail.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire) >= self.reactors().len()
    }

    /// No reactor has its sessions yet: a store is to be read.
    pub fn expect_sessions(&self) {
        self.has_store.store(true, Ordering::Relaxed);
        self.unrestored.store(self.reactors().len(), Ordering::Release);
    }

    /// There is a store that several machines share. Until it has answered it is away.
    pub fn expect_shared_store(&self) {
        self.has_store.store(true, Ordering::Relaxed);
        self.note_store_away(true);
    }

    /// The store that several machines share does not answer, or does so again. No session begins or comes back while
    /// it is away, because none is claimed.
    pub fn note_store_away(&self, is_away: bool) {
        self.is_store_away.store(is_away, Ordering::Release);
    }

    /// Whether it does not.
    #[inline]
    #[must_use]
    pub fn is_store_away(&self) -> bool {
        self.is_store_away.load(Ordering::Acquire)
    }

    /// One more reactor has its sessions.
    pub fn note_restored(&self) {
        self.unrestored.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether sessions are still read from a store.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.unrestored.load(Ordering::Acquire) > 0
    }

    /// What the store's thread counts, if there is a store.
    #[must_use]
    pub fn store(&self) -> Option<&StoreMetrics> {
        self.has_store.load(Ordering::Relaxed).then_some(&*self.store_metrics)
    }

    /// What the store's thread counts, whether there is one or not.
    #[must_use]
    pub fn store_metrics(&self) -> &Arc<StoreMetrics> {
        &self.store_metrics
    }

    /// What the broker's thread counts, whether there is one or not.
    #[must_use]
    pub fn task_metrics(&self) -> &Arc<TaskMetrics> {
        &self.task_metrics
    }

    /// Nothing is stored any more. The log tells why, once. Wakes nobody.
    pub fn fail_store(&self, why: &str) {
        if self.store_failure.set(why.to_owned()).is_ok() {
            log::error!("the server ends, because sessions cannot be stored: {why}");
        }
    }

    /// The same of a store that was never open: whoever wanted to open it says why.
    pub fn give_up_store(&self) {
        let _ = self.store_failure.set("it was not opened".to_owned());
    }

    /// Why nothing is stored any more, if that is so.
    #[must_use]
    pub fn store_failure(&self) -> Option<&str> {
        self.store_failure.get().map(String::as_str)
    }

    /// How often the settings have changed. A reactor compares it when it is woken.
    #[must_use]
    pub fn config_changes(&self) -> u64 {
        self.config_changes.load(Ordering::Acquire)
    }

    /// The settings of now, if they are others than those of the start, and the number of their change.
    #[must_use]
    pub fn newer_config(&self) -> (u64, Option<Arc<Config>>) {
        let newer = self.lock_newer_config();
        (self.config_changes(), newer.clone())
    }

    /// Changes them to what `change` makes of those that there are, if that is something. Wakes nobody.
    ///
    /// # Errors
    ///
    /// What `change` returns.
    pub fn change_config<E>(
        &self,
        change: impl FnOnce(Option<&Config>) -> Result<Config, E>,
    ) -> Result<(), E> {
        let mut newer = self.lock_newer_config();
        *newer = Some(Arc::new(change(newer.as_deref())?));
        self.config_changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Held for a copy of a pointer, or while settings are compared; by no reactor during a message.
    fn lock_newer_config(&self) -> MutexGuard<'_, Option<Arc<Config>>> {
        // It is replaced whole, so it is whole whoever panicked.
        self.newer_config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more reactor has said goodbye to all its WebSockets, or has no time left for it. Each reactor
    /// calls it once.
    pub fn note_drained(&self) {
        self.drained.fetch_add(1, Ordering::Release);
    }

    /// Whether all reactors have drained. A reactor that sees this sees also the mail that they had sent
    /// before.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire) >= self.reactors().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_how_many_websockets_there_may_be_now() {
        let status = ServerStatus::new(1, &[], Arc::default());
        let told = || {
            let page = status.metrics_page(Instant::now());
            let line = page.lines().find_map(|l| l.strip_prefix("revolve_websockets_most "));
            line.map(str::to_owned)
        };
        assert_eq!(told(), None);
        status.note_limit(NonZeroUsize::new(5));
        assert_eq!(told().as_deref(), Some("5"));
        let newer = Config { limit_concurrency: NonZeroUsize::new(7), ..Config::default() };
        status.change_config::<()>(|_| Ok(newer)).unwrap();
        assert_eq!(told().as_deref(), Some("7"));
    }

    #[test]
    fn a_drain_has_one_beginning_and_is_over_when_all_have_said_so() {
        let (status, now) = (ServerStatus::new(2, &[], Arc::default()), Instant::now());
        let duration = |page: String| {
            let line = page.lines().find_map(|l| l.strip_prefix("ws_shutdown_duration_seconds "));
            line.map(str::to_owned)
        };
        assert_eq!(status.draining_since(), None);
        assert_eq!(duration(status.metrics_page(now)).as_deref(), Some("0"));
        status.begin_drain(now);
        status.begin_drain(now + Duration::from_secs(1));
        assert_eq!(status.draining_since(), Some(now));
        let page = status.metrics_page(now + Duration::from_millis(2500));
        assert_eq!(duration(page).as_deref(), Some("2.5"));
        status.note_drained();
        assert!(!status.is_drained(), "one of two");
        status.note_drained();
        assert!(status.is_drained());
    }
}

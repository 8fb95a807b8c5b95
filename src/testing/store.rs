//! A store in memory, which outlives a [`TestServer`](super::TestServer): for tests of what comes back after a restart.
//!
//! It has no disk and cannot fail; that the file store keeps what it promises is shown by revolve's own tests. Given to
//! a server by [`TestServer::with_store`](super::TestServer::with_store).
//!
//! Invariant: what a server was told is stored is there at the next start.
//!
//! Next: `simulated_disk`: what the file store is tested on.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::machine::BEGINNING_MS;
use crate::session::SessionId;
use crate::store::live::Live;
use crate::store::record::{Entry, Saved, decode};
use crate::store::recovery::sessions_of;
use crate::store::{Batch, Recovered};

/// Sessions that outlive a server. Clones are the same store.
#[derive(Debug, Clone)]
pub struct TestStore(Rc<RefCell<Kept>>);

#[derive(Debug)]
struct Kept {
    live: Live,
    /// What the wall clock says.
    now_ms: u64,
}

impl Default for TestStore {
    fn default() -> Self {
        TestStore::new()
    }
}

impl TestStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let kept = Kept { live: Live::default(), now_ms: BEGINNING_MS };
        TestStore(Rc::new(RefCell::new(kept)))
    }

    /// Lets so much time pass while no server runs.
    pub fn advance(&self, time: Duration) {
        self.0.borrow_mut().now_ms += time.as_millis() as u64;
    }

    /// What is stored of the count of this session, if it is stored.
    #[must_use]
    pub fn count(&self, session_id: &str) -> Option<u64> {
        let id = SessionId::parse(session_id).ok()?;
        self.0.borrow().live.find(&id).map(|entry| entry.record.count)
    }

    /// What a reactor has changed, in order.
    pub(super) fn take(&self, pieces: &[Batch], now_ms: u64) {
        let mut kept = self.0.borrow_mut();
        kept.now_ms = now_ms;
        for piece in pieces {
            let mut entries = piece.entries();
            while let Ok(Some(entry)) = decode(&mut entries) {
                kept.live.apply(entry, |_| true);
            }
        }
    }

    /// The server that has it is at this time.
    pub(super) fn note_time(&self, now_ms: u64) {
        self.0.borrow_mut().now_ms = now_ms;
    }

    /// What a start finds, and what the wall clock says then.
    pub(super) fn open(&self, ttl: Duration) -> (Vec<Recovered>, u64) {
        let kept = &mut *self.0.borrow_mut();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let sessions = sessions_of(std::mem::take(&mut kept.live), kept.now_ms, ttl_ms);
        for Recovered { record, .. } in &sessions {
            let state = record.state.as_ref().map(|state| (state.version, &*state.bytes));
            let (id, presence) = (record.id.clone(), record.presence);
            let (generation, count) = (record.generation, record.count);
            let saved = Saved { id, generation, count, state, presence, order: None };
            kept.live.apply(Entry::Save(saved), |_| true);
        }
        (sessions, kept.now_ms)
    }
}

//! What the store has of the sessions, and what may be known of them: no client hears a count that is not stored.

use std::collections::{HashMap, HashSet};

use revolve::store::Batch;
use revolve::store::record::{Entry, decode};

use super::pieces::chance::Chance;
use super::pieces::machine::Net;

/// What is safe.
#[derive(Debug, Default)]
pub struct Stored {
    counts: HashMap<String, u64>,
    /// Ids of which a session was forgotten: what was told of it may be more than what is stored now.
    gone: HashSet<String>,
    /// Batches, and sessions in them.
    pub batches: u64,
    pub sessions: u64,
}

impl Stored {
    fn take(&mut self, pieces: &[Batch]) {
        self.batches += 1;
        for piece in pieces {
            let mut entries = piece.entries();
            while let Some(entry) = decode(&mut entries).expect("what was encoded") {
                self.sessions += 1;
                match entry {
                    Entry::Save(saved) => {
                        let id = saved.id.text().as_str().to_owned();
                        // One that has expired is not forgotten, and then another one may have its id.
                        let before = self.counts.insert(id.clone(), saved.count);
                        if before.is_some_and(|before| before > saved.count) {
                            self.gone.insert(id);
                        }
                    }
                    Entry::Forget { id, .. } => {
                        let id = id.text().as_str().to_owned();
                        self.counts.remove(&id);
                        self.gone.insert(id);
                    }
                    other => panic!("{other:?} is not a reactor's to write"),
                }
            }
        }
    }

    /// The batch of one reactor is stored, if there is any.
    pub fn take_some(&mut self, net: &mut Net, chance: &mut Chance) -> bool {
        let Some(last) = net.batches.len().checked_sub(1) else { return false };
        let pieces = net.store_batch(chance.within(0, last));
        self.take(&pieces);
        true
    }

    /// Whether somebody may know that this session has counted so many.
    pub fn may_be_known(&self, id: &str, count: u64) -> bool {
        self.gone.contains(id) || self.counts.get(id).is_some_and(|&stored| count <= stored)
    }

    /// What is stored, in order; but for what has expired, which is not forgotten.
    pub fn count(&self, id: &str) -> Option<u64> {
        self.counts.get(id).copied()
    }
}

//! What a log must give back, by a model that is slower and plainer: the list of all batches that were sent.
//!
//! A recovery gives back a prefix of it. How long that is, the log says; that it is long enough and not too long, and that
//! the sessions are those of this prefix, is checked here.

use std::collections::BTreeMap;

use revolve::store::{Change, Presence, Record, Recovered, Recovery};

/// A batch that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub at_ms: u64,
    pub is_start: bool,
    pub changes: Vec<Change>,
}

/// All that was sent, and how much of it is safe.
#[derive(Debug, Default)]
pub struct Model {
    /// Batch n is at place n - 1.
    pub sent: Vec<Sent>,
    /// The last batch of which the store said that it is synced.
    pub acknowledged: u64,
    /// Of each session, what was acknowledged, and the greatest count that was ever sent.
    ledger: BTreeMap<String, Line>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Line {
    /// The count; `None` when it was forgotten.
    acknowledged: Option<u64>,
    sent: u64,
    /// Whether it was forgotten in a batch that is not acknowledged.
    is_forgotten_since: bool,
}

fn name(change: &Change) -> String {
    let id = match change {
        Change::Save(record) => &record.id,
        Change::Forget { id, .. } => id,
    };
    id.text().as_str().to_owned()
}

impl Model {
    pub fn send(&mut self, sent: Sent) {
        for change in &sent.changes {
            let line = self.ledger.entry(name(change)).or_default();
            match change {
                Change::Save(record) => line.sent = line.sent.max(record.count),
                Change::Forget { .. } => line.is_forgotten_since = true,
            }
        }
        self.sent.push(sent);
    }

    pub fn acknowledge(&mut self, through: u64) {
        assert!(through <= self.sent.len() as u64, "more is synced than was sent");
        for place in self.acknowledged..through {
            for change in self.sent[place as usize].changes.clone() {
                let line = self.ledger.entry(name(&change)).or_default();
                line.acknowledged = match change {
                    Change::Save(record) => Some(record.count),
                    Change::Forget { .. } => None,
                };
            }
        }
        self.acknowledged = self.acknowledged.max(through);
        let unacknowledged = &self.sent[self.acknowledged as usize..];
        for (id, line) in &mut self.ledger {
            let forgets =
                |change: &Change| matches!(change, Change::Forget { .. }) && name(change) == *id;
            line.is_forgotten_since =
                unacknowledged.iter().any(|sent| sent.changes.iter().any(forgets));
        }
    }

    /// The log ends behind this batch: what was sent behind it is gone.
    pub fn cut(&mut self, through: u64) {
        assert!(
            through >= self.acknowledged,
            "batch {} was synced, and the log ends at {through}",
            self.acknowledged
        );
        assert!(
            through <= self.sent.len() as u64,
            "the log ends at {through}, which was never sent"
        );
        self.sent.truncate(through as usize);
    }

    /// The sessions of the log at a time, in the order of leaving: records and the times at which they were left.
    pub fn sessions(&self, now_ms: u64, ttl_ms: u64) -> Vec<(Record, u64)> {
        let mut live: BTreeMap<String, (Record, u64)> = BTreeMap::new();
        let mut order = 0;
        for sent in &self.sent {
            if sent.is_start {
                order += 1;
                for (record, _) in live.values_mut() {
                    if record.presence == Presence::Attached {
                        record.presence = Presence::Left { at_ms: sent.at_ms };
                    }
                }
            }
            for change in &sent.changes {
                order += 1;
                match change {
                    Change::Save(record) => {
                        drop(live.insert(name(change), (record.clone(), order)))
                    }
                    Change::Forget { generation, .. } => {
                        let id = name(change);
                        if live.get(&id).is_some_and(|(record, _)| record.generation <= *generation)
                        {
                            live.remove(&id);
                        }
                    }
                }
            }
        }
        let now_ms = now_ms.max(self.sent.last().map_or(0, |sent| sent.at_ms));
        let mut sessions: Vec<(Record, u64, u64)> = live
            .into_values()
            .map(|(mut record, order)| {
                let left_at_ms = match record.presence {
                    Presence::Left { at_ms } => at_ms,
                    Presence::Attached => now_ms,
                };
                record.presence = Presence::Left { at_ms: left_at_ms };
                (record, left_at_ms, order)
            })
            .filter(|(_, left_at_ms, _)| now_ms.saturating_sub(*left_at_ms) < ttl_ms)
            .collect();
        sessions.sort_by_key(|(_, left_at_ms, order)| (*left_at_ms, *order));
        sessions.into_iter().map(|(record, left_at_ms, _)| (record, left_at_ms)).collect()
    }

    /// What was recovered is what the log must give back, and nothing that was acknowledged is missing.
    pub fn check(&self, recovery: &Recovery, now_ms: u64, ttl_ms: u64) {
        let recovered: Vec<(Record, u64)> = recovery
            .sessions
            .iter()
            .map(|Recovered { record, left_at_ms, .. }| (record.clone(), *left_at_ms))
            .collect();
        let expected = self.sessions(now_ms, ttl_ms);
        assert_eq!(
            recovered,
            expected,
            "other sessions than those of the log's {} batches",
            self.sent.len()
        );
        if ttl_ms < u64::MAX {
            return;
        }
        // The same once more, session by session, without a word of batches.
        let counts: BTreeMap<String, u64> = recovered
            .iter()
            .map(|(record, _)| (record.id.text().as_str().to_owned(), record.count))
            .collect();
        for (id, line) in &self.ledger {
            match (counts.get(id), line.acknowledged) {
                (Some(count), Some(acknowledged)) => assert!(
                    acknowledged <= *count && *count <= line.sent,
                    "{id}: {acknowledged} acknowledged, {count} recovered, {} sent",
                    line.sent
                ),
                (Some(count), None) => assert!(*count <= line.sent, "{id}: {count} recovered"),
                (None, Some(acknowledged)) => assert!(
                    line.is_forgotten_since,
                    "{id}: {acknowledged} acknowledged, and it is gone"
                ),
                (None, None) => {}
            }
        }
    }
}

//! The batches that wait for Redis, and until when each may.
//!
//! Sans-IO: batches, replies and times come in; a pipeline and outcomes go out. A reactor's second batch is written when its
//! first one is answered: so one commit of a session is under way at a time, also when a pipeline is sent again. Called by
//! `requests`.
//!
//! Invariant: each batch has one outcome.
//!
//! Next: `link`: the connection on which they go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::calls::{self, Call, Caller};
use super::trouble::Trouble;
use crate::resp::{ConnectionError, Pipeline, Reply};
use crate::store::batch::CommitBatch;
use crate::store::claim::Outcome;
use crate::store::record::Malformed;

/// A batch without an answer.
#[derive(Debug)]
struct Waiting {
    reactor: usize,
    batch: CommitBatch,
    deadline: Instant,
    /// Its calls in the pipeline that was written last; `None`, if it is not in there.
    calls: Option<Vec<Call>>,
}

/// All of them, in the order of coming.
#[derive(Debug, Default)]
pub struct Unanswered {
    waiting: VecDeque<Waiting>,
    /// How many replicas the pipeline that was written last waits for, if it does.
    replicas: Option<u32>,
}

/// What came of a pipeline.
#[derive(Debug)]
pub struct Settled {
    /// Of these reactors' batches.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Why others have none.
    pub trouble: Option<Trouble>,
    /// Why some of these were given up, though the server serves.
    pub given_up: Option<Trouble>,
}

impl Unanswered {
    /// Nothing.
    #[must_use]
    pub fn new() -> Unanswered {
        Unanswered::default()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Until when the first one may wait.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.deadline).min()
    }

    /// A reactor has sent a batch.
    pub fn receive(&mut self, reactor: usize, batch: CommitBatch, deadline: Instant) {
        self.waiting.push_back(Waiting { reactor, batch, deadline, calls: None });
    }

    /// Writes all that can be asked now, and behind it a WAIT, if replicas are to have it. How many changes that is.
    ///
    /// # Errors
    ///
    /// If a batch cannot be read.
    pub fn write(
        &mut self,
        caller: &Caller<'_>,
        now: Instant,
        pipeline: &mut Pipeline,
    ) -> Result<u64, Malformed> {
        pipeline.clear();
        let mut changes = 0;
        let until = self.next_deadline();
        let mut reactors = Vec::new();
        for waiting in &mut self.waiting {
            waiting.calls = None;
            if !reactors.contains(&waiting.reactor) {
                reactors.push(waiting.reactor);
                waiting.calls = Some(caller.write(&waiting.batch, pipeline)?);
                changes += waiting.batch.pieces.iter().map(|p| u64::from(p.changes())).sum::<u64>();
            }
        }
        let replicas = caller.options.replicas;
        self.replicas = (replicas > 0 && !pipeline.is_empty()).then_some(replicas);
        if let Some(until) = until.filter(|_| self.replicas.is_some()) {
            push_wait(pipeline, replicas, until.saturating_duration_since(now));
        }
        Ok(changes)
    }

    /// Takes the replies to the pipeline that was written last, all of them. Batches of which one call was refused go on
    /// waiting, and so do all, if too few replicas have it. One that would be refused again is given up: nobody knows what
    /// of it was stored.
    pub fn settle(&mut self, mut replies: Vec<Reply>) -> Settled {
        let mut settled = Settled { outcomes: Vec::new(), trouble: None, given_up: None };
        if let Some(wanted) = self.replicas.take() {
            settled.trouble = of_wait(replies.pop(), wanted).err();
        }
        let are_safe = settled.trouble.is_none();
        let mut replies = replies.into_iter();
        for mut waiting in std::mem::take(&mut self.waiting) {
            let Some(calls) = waiting.calls.take() else {
                self.waiting.push_back(waiting);
                continue;
            };
            let own: Vec<Reply> = replies.by_ref().take(calls.len()).collect();
            let number = waiting.batch.number;
            match calls::outcome(number, calls, own.into_iter()) {
                Ok(outcome) if are_safe => settled.outcomes.push((waiting.reactor, outcome)),
                Err(trouble) if trouble.is_of_one_call() => {
                    settled.given_up = Some(trouble);
                    settled.outcomes.push((waiting.reactor, Outcome::Unavailable { number }));
                }
                Ok(_) => self.waiting.push_back(waiting),
                Err(trouble) => {
                    settled.trouble = Some(trouble);
                    self.waiting.push_back(waiting);
                }
            }
        }
        if replies.next().is_some() {
            settled.trouble.get_or_insert(ConnectionError::Unexpected.into());
        }
        settled
    }

    /// Takes out those whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<(usize, Outcome)> {
        let mut expired = Vec::new();
        self.waiting.retain(|waiting| {
            let is_over = waiting.deadline <= now;
            if is_over {
                let number = waiting.batch.number;
                expired.push((waiting.reactor, Outcome::Unavailable { number }));
            }
            !is_over
        });
        expired
    }
}

/// Asks, behind what stands in a pipeline, whether so many replicas have it. The reply has to come within `time`, so that it
/// can say how many there are.
pub fn push_wait(pipeline: &mut Pipeline, replicas: u32, time: Duration) {
    // 0 would be for ever.
    let wait_ms = (time * 4 / 5).max(Duration::from_millis(1)).as_millis();
    pipeline.push(["WAIT", &replicas.to_string(), &wait_ms.to_string()]);
}

/// What the server has said to that.
///
/// # Errors
///
/// If too few replicas have it.
pub fn of_wait(reply: Option<Reply>, wanted: u32) -> Result<(), Trouble> {
    match reply {
        Some(Reply::Integer(have)) => {
            let have = u64::try_from(have).unwrap_or(0);
            if have >= u64::from(wanted) {
                return Ok(());
            }
            Err(Trouble::TooFewReplicas { have, wanted })
        }
        Some(Reply::Error(error)) => {
            Err(ConnectionError::Refused { command: "WAIT", error }.into())
        }
        _ => Err(ConnectionError::Unexpected.into()),
    }
}

#[cfg(test)]
mod tests;

//! A batch of a reactor, as calls of the scripts; and what their replies mean for it.
//!
//! Sans-IO: a batch and a pipeline come in, and later replies. Changes keep their order, and claims stand behind them, so
//! that a claim never overtakes a commit. Knows no time and no connection. Called by `unanswered`.
//!
//! Invariant: a batch has an outcome only if each of its calls was answered as the script answers.
//!
//! Next: `unanswered`: the batches that wait.

use super::RedisOptions;
use super::scripts::Scripts;
use super::trouble::Trouble;
use crate::resp::script::Calling;
use crate::resp::{ConnectionError, Pipeline, Reply};
use crate::session::SessionId;
use crate::store::batch::CommitBatch;
use crate::store::claim::{Claim, Claimed, Outcome};
use crate::store::record::{self, Entry, Malformed, Saved, State};

/// Sessions in one call at most. Nothing else runs in Redis meanwhile: it is some two milliseconds.
pub const SESSIONS_A_CALL: usize = 512;

/// For how long a tombstone stays. Longer than a kernel tries to deliver what a connection has sent that was cut: that is a
/// quarter of an hour.
pub const TOMBSTONE_MS: u64 = 3_600_000;

/// What is the same in all calls of a pipeline.
#[derive(Debug)]
pub struct Caller<'a> {
    /// Which Redis.
    pub options: &'a RedisOptions,
    /// What it runs.
    pub scripts: &'a Scripts,
    /// The number of the connection.
    pub attempt: u64,
}

/// One call on its way: how its reply is read.
#[derive(Debug)]
pub enum Call {
    /// These sessions.
    Commit(Vec<SessionId>),
    /// This one.
    Forget(SessionId),
    /// The claim with this token.
    Claim(u64),
}

impl Caller<'_> {
    /// Appends a batch; the calls that it took.
    ///
    /// # Errors
    ///
    /// If it cannot be read: a defect of whoever has made it.
    pub fn write(
        &self,
        batch: &CommitBatch,
        pipeline: &mut Pipeline,
    ) -> Result<Vec<Call>, Malformed> {
        let mut calls = Vec::new();
        for piece in &batch.pieces {
            let (mut entries, mut saved) = (piece.entries(), Vec::new());
            while let Some(entry) = record::decode(&mut entries)? {
                match entry {
                    Entry::Save(session) => saved.push(session),
                    // One session may be saved and then forgotten: what was saved goes first.
                    Entry::Forget { id, generation } => {
                        calls.extend(self.commit(&mut saved, pipeline));
                        calls.push(self.forget(id, generation, pipeline));
                    }
                    Entry::Start { .. } | Entry::Unknown => {}
                }
                if saved.len() == SESSIONS_A_CALL {
                    calls.extend(self.commit(&mut saved, pipeline));
                }
            }
            calls.extend(self.commit(&mut saved, pipeline));
        }
        calls.extend(batch.claims.iter().map(|claim| self.claim(claim, pipeline)));
        Ok(calls)
    }

    fn commit(&self, saved: &mut Vec<Saved<'_>>, pipeline: &mut Pipeline) -> Option<Call> {
        if saved.is_empty() {
            return None;
        }
        let options = self.options;
        pipeline.push_script(&self.scripts.commit, Calling::ByName, saved.len(), |call| {
            saved.iter().for_each(|session| call.add(options.key(&session.id)));
            call.add(&options.node);
            call.add_number(self.attempt);
            call.add_number(options.ttl_ms);
            call.add(options.channel_prefix());
            for session in saved.iter() {
                call.add(session.id.text().as_str());
                call.add_number(session.token);
                call.add_number(session.generation);
                call.add_number(session.count);
                match session.state {
                    Some((version, bytes)) => {
                        call.add_number(version.into());
                        call.add(bytes);
                    }
                    None => {
                        call.add("");
                        call.add("");
                    }
                }
            }
        });
        Some(Call::Commit(saved.drain(..).map(|session| session.id).collect()))
    }

    fn forget(&self, id: SessionId, generation: u64, pipeline: &mut Pipeline) -> Call {
        pipeline.push_script(&self.scripts.forget, Calling::ByName, 1, |call| {
            call.add(self.options.key(&id));
            call.add_number(generation);
            call.add_number(TOMBSTONE_MS);
        });
        Call::Forget(id)
    }

    fn claim(&self, claim: &Claim, pipeline: &mut Pipeline) -> Call {
        let options = self.options;
        pipeline.push_script(&self.scripts.claim, Calling::ByName, 1, |call| {
            call.add(options.key(&claim.id));
            call.add(&options.node);
            call.add_number(claim.token);
            call.add_number(self.attempt);
            call.add_number(options.ttl_ms);
            call.add(options.channel_prefix());
            call.add(claim.id.text().as_str());
        });
        Call::Claim(claim.token)
    }
}

/// What the replies to a batch of this number add up to; there are as many as calls.
///
/// # Errors
///
/// If one is an error, or none that its script has. Then nobody knows what of the batch was done.
pub fn outcome(
    number: u64,
    calls: Vec<Call>,
    replies: impl Iterator<Item = Reply>,
) -> Result<Outcome, Trouble> {
    let (mut taken_over, mut regenerated, mut claimed) = (Vec::new(), Vec::new(), Vec::new());
    let mut answered = 0;
    let expected = calls.len();
    for (call, reply) in calls.into_iter().zip(replies) {
        answered += 1;
        if let Reply::Error(error) = reply {
            return Err(ConnectionError::Refused { command: "EVALSHA", error }.into());
        }
        match call {
            Call::Commit(ids) => {
                let answers = of_array(reply, ids.len())?;
                for (id, answer) in ids.into_iter().zip(answers) {
                    match answer {
                        Reply::Integer(1) => {}
                        Reply::Integer(0) => taken_over.push(id),
                        answer => regenerated.push((id, number_of(&answer)?)),
                    }
                }
            }
            Call::Forget(id) => match reply.bytes() {
                Some(b"S") => {}
                Some(b"T") => taken_over.push(id),
                _ => return Err(ConnectionError::Unexpected.into()),
            },
            Call::Claim(token) => claimed.push(claimed_by(token, reply)?),
        }
    }
    if answered < expected {
        return Err(ConnectionError::Unexpected.into());
    }
    Ok(Outcome::Stored { number, taken_over, regenerated, claimed })
}

fn claimed_by(token: u64, reply: Reply) -> Result<Claimed, Trouble> {
    let mut fields = of_array(reply, 5)?.into_iter();
    let mut next = || fields.next().unwrap_or(Reply::Null);
    let (generation, former) = (number_of(&next())?, number_of(&next())?);
    let (count, version, state) = (next(), next(), next());
    let is_known = count != Reply::Null;
    let count = if is_known { number_of(&count)? } else { 0 };
    let state = match (version, state) {
        (Reply::Null, Reply::Null) => None,
        (Reply::Bulk(version), Reply::Bulk(_)) if version.is_empty() => None,
        (version, Reply::Bulk(bytes)) => {
            let version = u32::try_from(number_of(&version)?);
            let version = version.map_err(|_| ConnectionError::Unexpected)?;
            Some(State { version, bytes: bytes.into() })
        }
        _ => return Err(ConnectionError::Unexpected.into()),
    };
    Ok(Claimed { token, generation, former, count, state, is_known })
}

/// The elements, if there are so many.
fn of_array(reply: Reply, count: usize) -> Result<Vec<Reply>, Trouble> {
    match reply {
        Reply::Array(elements) if elements.len() == count => Ok(elements),
        _ => Err(ConnectionError::Unexpected.into()),
    }
}

/// A number that a script has returned as text: a double is not wide enough for all of them.
fn number_of(reply: &Reply) -> Result<u64, Trouble> {
    let text = match reply {
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    // Not what `parse` takes besides digits: a plus sign.
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| ConnectionError::Unexpected.into())
}

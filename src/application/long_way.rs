//! The way of a message that is not simply appended to the cork: a long one, one that may be deflated, and
//! one for which the cork has no room. And the bound of what one callback may queue for its peer, which is
//! looked at on this way only.
//!
//! A short message for which the cork's storage has room is appended to it, and nobody asks more
//! (`Context::send_text`). That bounds it: the storage is [`storage_of_cork`] when callbacks begin, and grows
//! no further than to what may wait. What is sent outside of a visit is looked at once more by the shard
//! (`shard/callbacks.rs`), where the backlog is known. Called by `Context`.
//!
//! Invariant: storage of the cork in which nothing stands may be filled.
//!
//! Next: `request`: what an application sees of a request.

use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

use super::{Application, Commands};
use crate::config::{Config, Limits};
use crate::protocol::deflate::{DeflateWriter, Deflation};
use crate::protocol::frame;
use crate::transport::Outlet;

/// A message that is written as it is, past the cork, which it would more than half fill: 32 KiB. To
/// copy that costs as much as the write that is saved.
pub(super) const LONG: usize = 32 << 10;

/// Bytes that the cork has storage for when callbacks begin: more than a full one by the longest of the
/// short messages. So a cork that has grown is full, and is written when the callback has returned.
pub(crate) fn storage_of_cork(limits: &Limits) -> usize {
    storage(limits.cork_bytes)
}

fn storage(cork_bytes: usize) -> usize {
    cork_bytes.saturating_add(frame::MAX_SHORT + frame::MAX_HEADER)
}

/// Whether a message with a payload of that length fits into the cork's storage.
#[inline(always)]
pub(super) fn has_room(cork: &Vec<u8>, length: usize) -> bool {
    cork.capacity() - cork.len() >= length + frame::MAX_HEADER
}

/// Gives back what the cork has grown by, if less stands in it than that was for: it is not to be filled
/// unasked.
fn trim(cork: &mut Vec<u8>, cork_bytes: usize) {
    if cork.len() < cork_bytes {
        cork.shrink_to(storage(cork_bytes));
    }
}

/// How a callback has ended its connection.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The application has asked for a close.
    Asked(CloseCode, String),
    /// A message could not be queued. What stands in the cork behind its first `kept` bytes was sent after
    /// that message, and is not to leave: it would hide the hole.
    NotQueued { why: NotQueued, kept: usize },
}

/// Why a message could not be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// There is no memory for it.
    OutOfMemory,
    /// Too much waits for its peer already.
    SlowConsumer,
}

/// How much one callback may queue for its peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Bytes in the cork from which on they are offered to the socket, before more is queued.
    cork_bytes: usize,
    pub(super) high_water_mark: usize,
}

impl Allowance {
    pub(super) fn of(config: &Config) -> Allowance {
        let cork_bytes = config.limits.cork_bytes;
        Allowance { cork_bytes, high_water_mark: config.max_send_buffer }
    }

    /// Bytes that may wait, in the backlog and the cork, when one more message is queued: the high-water
    /// mark, and a cork beyond it. That much may wait when a message of the peer's is heard
    /// (`shard/visit.rs`), so its first reply is always queued.
    fn waiting_most(self) -> usize {
        self.high_water_mark.saturating_add(self.cork_bytes)
    }
}

impl<A: Application> Commands<A> {
    /// A message could not be queued behind the first `kept` bytes of the cork. That outdoes a close that
    /// was asked for: what was to leave before it will not all leave.
    #[cold]
    pub(crate) fn end_unqueued(&mut self, why: NotQueued, kept: usize) {
        (self.ending, self.pause) = (Some(Ending::NotQueued { why, kept }), true);
    }

    /// Whether the cork has no more storage than a callback may fill unasked; or it has grown in another one
    /// for the same connection, and is still to be written.
    pub(crate) fn may_fill(&self, cork: &Vec<u8>) -> bool {
        let Allowance { cork_bytes, .. } = self.allowance;
        cork.len() >= cork_bytes || cork.capacity() <= storage(cork_bytes)
    }

    /// How the connection ends, if a callback has ended it. What was sent behind a message that could not
    /// be queued is taken out of the cork.
    pub(crate) fn take_ending(&mut self, cork: &mut Vec<u8>) -> Option<Ending> {
        self.pause = false;
        let ending = self.ending.take();
        if let Some(Ending::NotQueued { kept, .. }) = ending {
            cork.truncate(kept);
        }
        ending
    }
}

/// What the long way takes of a context. Lent piece by piece: a context of which the address is known
/// elsewhere must stand in memory, and to put it there took a visit 13 instructions.
pub(super) struct LongWay<'a, A: Application> {
    pub(super) cork: &'a mut Vec<u8>,
    pub(super) outlet: Option<&'a mut dyn Outlet>,
    pub(super) deflate_writer: Option<DeflateWriter<'a>>,
    pub(super) commands: &'a mut Commands<A>,
}

impl<A: Application> LongWay<'_, A> {
    /// Appends a message to the cork, deflated if that was agreed on and makes it smaller; if it may be
    /// queued.
    #[cold]
    #[inline(never)]
    pub(super) fn send_parts(mut self, kind: Data, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum();
        if !has_room(self.cork, length) && !self.make_room(length) {
            return;
        }
        match &mut self.deflate_writer {
            None => {
                frame::encode_header(OpCode::Data(kind), length, self.cork);
                parts.iter().for_each(|part| self.cork.extend_from_slice(part));
            }
            Some(deflate_writer) => {
                deflate_writer.encode(kind, parts, self.cork);
                // There was room for it as it is.
                trim(self.cork, self.commands.allowance.cork_bytes);
            }
        }
    }

    /// Sends past the cork, with all that stands in it; deflated into the cork, if that was agreed on
    /// and makes it smaller.
    #[cold]
    #[inline(never)]
    pub(super) fn send_long(mut self, kind: Data, payload: &[u8]) {
        // Room for the header: the payload goes past the cork.
        if !self.make_room(0) {
            return;
        }
        if let Some(deflate_writer) = &mut self.deflate_writer
            && deflate_writer.encode_smaller(kind, &[payload], self.cork) == Deflation::Appended
        {
            return;
        }
        let Some(outlet) = &mut self.outlet else { return };
        let before = self.cork.len();
        frame::encode_header(OpCode::Data(kind), payload.len(), self.cork);
        match outlet.send_past(self.cork, payload) {
            Ok(sent) => self.commands.past_cork += sent as u64,
            Err(sent) => {
                self.commands.past_cork += sent as u64;
                match before.checked_sub(sent) {
                    // Nothing of this frame has left, so it is as if it had never been.
                    Some(of_earlier) => self.cork.truncate(of_earlier),
                    None => outlet.cut(),
                }
                self.run_out_of_memory();
            }
        }
    }

    /// Sees to it that the cork has room for any short message, if one more message may be queued.
    #[cold]
    #[inline(never)]
    pub(super) fn make_room_for_a_short_one(mut self) -> bool {
        self.make_room(frame::MAX_SHORT)
    }

    /// Sees to it that the cork has room for a message of that length, if one more message may be queued.
    /// If too much waits for the peer, the connection ends. How long the message is does not count, for
    /// that is not its fault; it counts when the next one is to be queued behind it.
    fn make_room(&mut self, length: usize) -> bool {
        let cork_bytes = self.commands.allowance.cork_bytes;
        let waiting_most = self.commands.allowance.waiting_most();
        let Some(outlet) = &mut self.outlet else { return false };
        if matches!(self.commands.ending, Some(Ending::NotQueued { .. })) {
            return false;
        }
        if self.cork.len() >= cork_bytes {
            // What was not offered to the socket cannot be held against the peer.
            let (Ok(sent) | Err(sent)) = outlet.send_past(self.cork, &[]);
            self.commands.past_cork += sent as u64;
            trim(self.cork, cork_bytes);
        }
        let waiting = outlet.backlog_bytes() + self.cork.len();
        let Some(left) = waiting_most.checked_sub(waiting) else {
            self.commands.end_unqueued(NotQueued::SlowConsumer, self.cork.len());
            return false;
        };
        if !has_room(self.cork, length) {
            // Doubled, so that growing costs little, but with no room for more than may wait.
            let more = self.cork.len().min(left).max(length + frame::MAX_HEADER);
            if self.cork.try_reserve_exact(more).is_err() {
                self.run_out_of_memory();
                return false;
            }
        }
        true
    }

    /// A message can be neither sent nor kept, so its connection ends, and no other.
    #[cold]
    pub(super) fn run_out_of_memory(&mut self) {
        // Else it has ended already, and the cork is not the one that will leave.
        if self.outlet.is_some() {
            self.commands.end_unqueued(NotQueued::OutOfMemory, self.cork.len());
        }
    }
}

//! Frames become messages: order, reassembly, size, UTF-8, and the control frames in between.
//!
//! A message whose one frame lies whole in the receive buffer is handed out as a borrow of that
//! buffer, unmasked in place: the usual case costs no copy and no allocation. Only an unfinished
//! message owns memory, and only for bytes that have arrived: nothing is ever reserved for a
//! declared length (CVE-2022-35922), though it may be lent what an earlier message has left. A
//! deflated message is collected as it came and inflated when it is whole, into storage that the
//! reactor has once. Answers nothing and closes nothing; [`super::endpoint`] does.
//!
//! Invariant: what has been taken from the input is never looked at again, and what is left is
//! less than one frame header or one control frame, unless a message waits to be inflated.
//!
//! Next: [`crate::protocol::endpoint`], the states around it.

use std::time::Instant;

use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::deflate::{self, DeflateParams, Inflater, Inflation, Progress};
use super::frame::{self, FrameHead, Rsv1, ShortFrame, ShortRoom, Violation};
use super::reassembly::Reassembly;
use super::utf8;

/// Payload to come that is worth being read past the receive buffer: 16 KiB. Below that, the call
/// with two buffers costs more than the copy.
const LONG: usize = 16 << 10;

/// Storages that a reactor keeps for long messages, beside the one that was looked at last.
pub const SPARE_MOST: usize = 3;

/// Bytes of each at most, beside the half page that stays free before a message.
pub const SPARE_BYTES: usize = 1 << 20;

/// Payload read past the receive buffer in one visit: 1 MiB, a tenth of a millisecond. With half of
/// that the echo of a megabyte costs 281 µs of CPU instead of 264: what one connection has is taken
/// while it is warm.
pub const LONG_READ: usize = 1 << 20;

/// Payload that waits for its frame's end to be unmasked: 1 MiB, half of a second-level cache.
const UNMASKED_AT_ONCE: usize = 1 << 20;

/// A message as the application sees it, borrowed from the reactor's receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message (RFC 6455 5.6).
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The payload, whatever its type.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }
}

/// What a Close frame said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// The code; [`CloseCode::Status`] (1005) stands for a frame without one (RFC 6455 7.1.5).
    pub code: CloseCode,
    /// The reason, often empty.
    pub reason: &'a str,
}

/// One step through the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// A ping with its payload, to be echoed (RFC 6455 5.5.2).
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A Close.
    Close(CloseFrame<'a>),
    /// A message that inflates further at the next visit; what comes behind it waits.
    Inflating,
}

/// Room for messages that are not looked at where they arrived: the reactor's, lent to each
/// connection in its turn, so that none has to own it.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A short message, unmasked, with zeros behind it.
    short: ShortRoom,
    long: LongRoom,
}

#[derive(Debug, Default)]
struct LongRoom {
    /// A message that came in pieces, for as long as the caller looks at it.
    reassembly: Reassembly,
    /// Storage of earlier ones, for the next long ones: so these find memory that is warm, and need
    /// not double it as they grow.
    spare: Vec<Reassembly>,
    /// A message that came deflated, for as long as the caller looks at it.
    inflated: Vec<u8>,
    inflater: Inflater,
}

impl LongRoom {
    /// Takes a message that came in pieces, to be looked at. What was looked at before stays as spare
    /// storage, if it is of a size that is worth it.
    fn show(&mut self, message: Reassembly) -> &[u8] {
        let before = std::mem::replace(&mut self.reassembly, message);
        let is_worth_it = (LONG..=SPARE_BYTES).contains(&before.storage_bytes());
        if self.spare.len() < SPARE_MOST && is_worth_it {
            self.spare.push(before);
        }
        self.reassembly.bytes()
    }

    /// Empty storage for a long message: that of an earlier one, if there is any.
    fn storage(&mut self) -> Reassembly {
        // The one that was looked at last is the warmest.
        let mut storage = match self.reassembly.storage_bytes() {
            0 => self.spare.pop().unwrap_or_default(),
            _ => std::mem::take(&mut self.reassembly),
        };
        storage.clear();
        storage
    }
}

impl Scratch {
    /// Begins a connection's visit: inflating may cost it so much.
    #[inline]
    pub fn grant_share(&mut self, share: usize) {
        self.long.inflater.grant_share(share);
    }

    /// Gives storage beyond `most` bytes back: one large message must not be held for ever by each
    /// reactor it passed.
    pub fn trim(&mut self, most: usize) {
        if self.long.inflated.capacity() > most {
            self.long.inflated = Vec::new();
        }
        if self.long.reassembly.storage_bytes() > most {
            self.long.reassembly = Reassembly::default();
        }
    }
}

/// The receiving half of one connection. Eight bytes while no message is unfinished (and eight more
/// in a build that inflates, for the one byte of the parameters).
#[derive(Debug, Default)]
pub struct Receiver {
    unfinished: Option<Box<Unfinished>>,
    params: Option<DeflateParams>,
}

/// A message of which the end has not arrived.
#[derive(Debug)]
struct Unfinished {
    is_text: bool,
    data: Reassembly,
    /// How much of `data`, or of what it inflates to, is known to be UTF-8, if it is text.
    checked: usize,
    position: Position,
    since: Instant,
    /// Whether `data` is deflated, and how far it is inflated.
    deflated: Option<DeflateParams>,
    progress: Progress,
}

/// Where the next byte belongs.
#[derive(Debug)]
enum Position {
    /// Between two frames of the message.
    Boundary,
    /// In the payload of a frame. What came before `masked_from` bytes of the message is plain, and
    /// `mask` is for what comes after.
    Payload { remaining: u64, mask: [u8; 4], masked_from: usize, is_final: bool },
    /// Behind the message: it is whole, and has yet to be inflated.
    End,
}

/// Whether the payload of a frame under way is all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameEnd {
    Reached,
    ToCome,
}

impl Receiver {
    /// Of a connection that has agreed to this.
    #[must_use]
    pub fn new(params: Option<DeflateParams>) -> Self {
        Receiver { unfinished: None, params }
    }

    /// What was agreed on.
    #[must_use]
    pub fn params(&self) -> Option<DeflateParams> {
        self.params
    }

    /// When the unfinished message began, if there is one of which the peer has not sent the end.
    #[must_use]
    pub fn unfinished_since(&self) -> Option<Instant> {
        let unfinished = self.unfinished.as_ref()?;
        (!self.is_inflating()).then_some(unfinished.since)
    }

    /// Whether a message is whole and waits to be inflated.
    #[inline]
    #[must_use]
    pub fn is_inflating(&self) -> bool {
        self.params.is_some()
            && self
                .unfinished
                .as_ref()
                .is_some_and(|unfinished| matches!(unfinished.position, Position::End))
    }

    /// Whether [`Self::next`] may find something without any input.
    #[inline(always)]
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|unfinished| match unfinished.position {
            Position::End | Position::Payload { remaining: 0, .. } => true,
            // Text that was read past the input has yet to be checked.
            Position::Payload { .. } => unfinished.has_unchecked(),
            Position::Boundary => false,
        })
    }

    /// Lets others inflate: what has been inflated of a message here is dropped, and begun anew when
    /// this connection is visited again.
    pub fn yield_inflater(&mut self) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.progress.give_up();
        }
    }

    /// Counts an unfinished message's time from `now` on.
    pub fn restart_clock(&mut self, now: Instant) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.since = now;
        }
    }

    /// Bytes held for an unfinished message.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| {
            unfinished.data.storage_bytes() + unfinished.progress.held_bytes()
        })
    }

    /// Bytes that the payload of the frame under way still wants.
    #[must_use]
    pub fn owed_bytes(&self) -> u64 {
        match self.unfinished.as_ref().map(|unfinished| &unfinished.position) {
            Some(&Position::Payload { remaining, .. }) => remaining,
            Some(Position::Boundary | Position::End) | None => 0,
        }
    }

    /// Whether a message is unfinished.
    #[inline(always)]
    #[must_use]
    pub fn is_amid_message(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Where the payload of a long frame under way is to be read to, past the receive buffer; `None`
    /// if none is, or little of it is to come.
    pub fn payload_room(&mut self, max_size: usize) -> Option<&mut [u8]> {
        self.unfinished.as_mut()?.room(max_size)
    }

    /// So many bytes have been read to the [`Self::payload_room`]. What they make whole comes with
    /// the next call of [`Self::next`].
    pub fn note_read_payload(&mut self, count: usize) {
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.note_read(count);
        }
    }

    /// Takes the next message or control frame from `input[*at..]` and moves `at` behind it;
    /// `None` when the rest of the input holds no whole one.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke, at the first byte that shows it.
    pub fn next<'a>(
        &mut self,
        input: &'a mut [u8],
        at: &mut usize,
        scratch: &'a mut Scratch,
        max_size: usize,
        now: Instant,
    ) -> Result<Option<Received<'a>>, Violation> {
        if let Some(message) = self.take_short(input, at, &mut scratch.short, max_size) {
            return Ok(Some(Received::Message(message?)));
        }
        self.next_of_any_kind(input, at, &mut scratch.long, max_size, now)
    }

    /// The message that stands whole in one short frame at `input[*at..]`, outside any other; `None`
    /// if anything else stands there. [`Self::next`] begins with it; the shard, which takes very
    /// many, asks for it by itself.
    ///
    /// # Errors
    ///
    /// [`Violation::NotUtf8`], if it is text and is not.
    #[inline(always)]
    pub fn next_short<'a>(
        &self,
        input: &[u8],
        at: &mut usize,
        scratch: &'a mut Scratch,
        max_size: usize,
    ) -> Option<Result<Message<'a>, Violation>> {
        self.take_short(input, at, &mut scratch.short, max_size)
    }

    #[inline(always)]
    fn take_short<'a>(
        &self,
        input: &[u8],
        at: &mut usize,
        room: &'a mut ShortRoom,
        max_size: usize,
    ) -> Option<Result<Message<'a>, Violation>> {
        if self.unfinished.is_some() {
            return None;
        }
        let ShortFrame { is_text, padded, length } = frame::take_short(input, at, max_size, room)?;
        if !is_text {
            return Some(Ok(Message::Binary(&padded[..length])));
        }
        // What has zeros behind it is UTF-8 exactly if it is without, for zeros are ASCII. With 48 of them a
        // text of 16 bytes takes 34 instructions, and 124 if its characters have three bytes; without,
        // 45 and 182.
        Some(utf8::text(padded).map(|padded| Message::Text(&padded[..length])))
    }

    fn next_of_any_kind<'a>(
        &mut self,
        input: &'a mut [u8],
        at: &mut usize,
        room: &'a mut LongRoom,
        max_size: usize,
        now: Instant,
    ) -> Result<Option<Received<'a>>, Violation> {
        loop {
            if let Some(unfinished) = &mut self.unfinished
                && let Position::Payload { is_final, .. } = unfinished.position
            {
                let frame_end = unfinished.take_payload(&input[*at..], at, max_size)?;
                if frame_end == FrameEnd::Reached && is_final {
                    if unfinished.deflated.is_some() {
                        unfinished.position = Position::End;
                        return self.inflate(room, max_size).map(Some);
                    }
                    let is_text = unfinished.is_text;
                    let message = room.show(std::mem::take(&mut unfinished.data));
                    self.unfinished = None;
                    return deliver(is_text, message).map(Some);
                }
                unfinished.check_text()?;
                if frame_end == FrameEnd::ToCome {
                    return Ok(None);
                }
                unfinished.position = Position::Boundary;
            }
            if self.is_inflating() {
                return self.inflate(room, max_size).map(Some);
            }
            let rsv1 = if self.params.is_some() { Rsv1::Allowed } else { Rsv1::Forbidden };
            let Some(head) = frame::decode(&input[*at..], rsv1)? else { return Ok(None) };
            let start = *at + head.header_bytes;
            let is_whole = head.length <= (input.len() - start) as u64;
            let kind = match head.opcode {
                OpCode::Control(_) if !is_whole => return Ok(None),
                OpCode::Control(control) => {
                    return take_control(control, whole_payload(input, at, &head)).map(Some);
                }
                OpCode::Data(kind) => kind,
            };
            let deflated = if head.rsv1 { self.params } else { None };
            self.check_order_and_size(kind, &head, deflated, max_size)?;
            if self.unfinished.is_none() && head.is_final && is_whole {
                let payload = whole_payload(input, at, &head);
                let Some(params) = deflated else {
                    return deliver(kind == Data::Text, payload).map(Some);
                };
                let (LongRoom { inflater, inflated, .. }, mut progress) =
                    (room, Progress::default());
                return match inflater.advance(params, &mut progress, payload, max_size, inflated)? {
                    Inflation::Whole => deliver(kind == Data::Text, inflated).map(Some),
                    Inflation::InPart => {
                        let unfinished = Unfinished::new(kind, deflated, now);
                        self.keep_deflated(unfinished, payload, progress).map(Some)
                    }
                };
            }
            *at = start;
            let unfinished = self
                .unfinished
                .get_or_insert_with(|| Box::new(Unfinished::new(kind, deflated, now)));
            if head.length >= LONG as u64 && unfinished.data.is_empty() {
                unfinished.data = room.storage();
            }
            unfinished.begin_frame(&head);
        }
    }

    /// Keeps a message that came in one frame, and of which `progress` is inflated, until the next visit.
    fn keep_deflated(
        &mut self,
        mut unfinished: Unfinished,
        payload: &[u8],
        progress: Progress,
    ) -> Result<Received<'static>, Violation> {
        unfinished.make_room(payload.len(), 0)?;
        unfinished.data.push(payload);
        unfinished.position = Position::End;
        unfinished.progress = progress;
        self.unfinished = Some(Box::new(unfinished));
        Ok(Received::Inflating)
    }

    /// Inflates the message that is whole, as far as the share of this visit goes.
    #[cold]
    fn inflate<'a>(
        &mut self,
        room: &'a mut LongRoom,
        max_size: usize,
    ) -> Result<Received<'a>, Violation> {
        let LongRoom { inflater, inflated, .. } = room;
        if let Some(unfinished) = &mut self.unfinished
            && let Some(params) = unfinished.deflated
        {
            let Unfinished { progress, data, .. } = &mut **unfinished;
            return match inflater.advance(params, progress, data.bytes(), max_size, inflated)? {
                Inflation::Whole => {
                    let is_text = unfinished.is_text;
                    self.unfinished = None;
                    deliver(is_text, inflated)
                }
                Inflation::InPart => {
                    unfinished.check_text()?;
                    Ok(Received::Inflating)
                }
            };
        }
        debug_assert!(false, "only a deflated message waits at its end");
        Err(Violation::NotDeflate)
    }

    /// Drops the message that waits to be inflated, if one does.
    pub fn skip_inflating(&mut self) {
        if self.is_inflating() {
            self.unfinished = None;
        }
    }

    fn check_order_and_size(
        &self,
        kind: Data,
        head: &FrameHead,
        deflated: Option<DeflateParams>,
        max_size: usize,
    ) -> Result<(), Violation> {
        let (so_far, deflated) = match (&self.unfinished, kind) {
            (None, Data::Continue) => return Err(Violation::LoneContinuation),
            (None, _) => (0, deflated),
            (Some(unfinished), Data::Continue) => (unfinished.data.len(), unfinished.deflated),
            (Some(_), _) => return Err(Violation::InterleavedMessage),
        };
        let max_size = most_collected(deflated, max_size);
        // Compared as u64 and subtracted from what is left: a declared length of nearly 2^63
        // cannot overflow (CVE-2020-27813).
        if head.length > (max_size - so_far.min(max_size)) as u64 {
            return Err(Violation::TooBig);
        }
        Ok(())
    }
}

/// Bytes of a message's frames, for a limit of this size. What a deflated message is, is known when
/// it is inflated.
fn most_collected(deflated: Option<DeflateParams>, max_size: usize) -> usize {
    if deflated.is_some() { deflate::most_on_the_wire(max_size) } else { max_size }
}

impl Unfinished {
    fn new(kind: Data, deflated: Option<DeflateParams>, now: Instant) -> Self {
        Unfinished {
            is_text: kind == Data::Text,
            data: Reassembly::default(),
            checked: 0,
            position: Position::Boundary,
            since: now,
            deflated,
            progress: Progress::default(),
        }
    }

    fn make_room(&mut self, wanted: usize, most: usize) -> Result<(), Violation> {
        self.data.make_room(wanted, most).map_err(|_| Violation::OutOfMemory)
    }

    /// The payload of a frame comes next.
    fn begin_frame(&mut self, head: &FrameHead) {
        self.position = Position::Payload {
            remaining: head.length,
            mask: head.mask,
            masked_from: self.data.len(),
            is_final: head.is_final,
        };
    }

    /// Moves what is there of the current frame's payload to `data`.
    // Where it is inlined, a message that is whole pays three instructions for it.
    #[inline(never)]
    fn take_payload(
        &mut self,
        input: &[u8],
        at: &mut usize,
        max_size: usize,
    ) -> Result<FrameEnd, Violation> {
        let Position::Payload { remaining, is_final, .. } = self.position else {
            return Ok(FrameEnd::Reached);
        };
        let taken = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
        *at += taken;
        // Storage never passes what may still come, so it is at most twice what has arrived, and
        // never more than the limit, unless it is the reactor's, which is there in any case. The
        // header was checked against the limit, so `taken` is in bounds.
        let most = most_collected(self.deflated, max_size) - self.data.len();
        let to_come = if is_final { remaining } else { most as u64 };
        self.make_room(taken, usize::try_from(to_come).unwrap_or(most))?;
        self.data.push(&input[..taken]);
        Ok(self.note_joined(taken))
    }

    /// Where the payload of the frame under way goes, if so much of it is to come that it is worth
    /// being read there.
    fn room(&mut self, max_size: usize) -> Option<&mut [u8]> {
        let Position::Payload { remaining, is_final, .. } = self.position else { return None };
        if remaining < LONG as u64 || self.data.len().max(self.data.room_bytes()) < LONG {
            return None;
        }
        let remaining = usize::try_from(remaining).unwrap_or(usize::MAX);
        let most = most_collected(self.deflated, max_size) - self.data.len();
        // The storage doubles when it is full. If that fails, the payload is read into the receive
        // buffer, and the attempt to take it from there reports that there is no memory.
        self.make_room(1, if is_final { remaining } else { most }).ok()?;
        Some(self.data.room(remaining.min(LONG_READ)))
    }

    /// So many bytes of the payload have been read to where it goes.
    fn note_read(&mut self, count: usize) {
        self.data.fill(count);
        self.note_joined(count);
    }

    /// Whether it is looked at as it comes: text is, unless it has to be inflated first.
    fn is_checked(&self) -> bool {
        self.is_text && self.deflated.is_none()
    }

    /// Whether there is text that has not been looked at, or that ends in mid-character.
    fn has_unchecked(&self) -> bool {
        self.is_checked() && self.checked < self.data.len()
    }

    /// So many bytes of the payload have joined `data`. Unmasks what is to be looked at: of text all
    /// that is there, for it is checked as it comes; of anything else nothing before the frame's end, or
    /// a megabyte. The code that looks at it then, or sends it on, finds it in the cache, which what was
    /// unmasked on arrival has left by that time: 9 µs of an echoed megabyte's 288. What is longer does
    /// not fit there, and would hold the reactor up.
    fn note_joined(&mut self, count: usize) -> FrameEnd {
        let is_checked = self.is_checked();
        let Position::Payload { remaining, mask, masked_from, .. } = &mut self.position else {
            return FrameEnd::Reached;
        };
        *remaining -= count as u64;
        let masked = self.data.len() - *masked_from;
        if *remaining == 0 || is_checked || masked >= UNMASKED_AT_ONCE {
            frame::unmask(self.data.bytes_from(*masked_from), *mask);
            *mask = frame::rotated(*mask, masked);
            *masked_from += masked;
        }
        if *remaining == 0 { FrameEnd::Reached } else { FrameEnd::ToCome }
    }

    /// RFC 6455 8.1, at the first wrong byte: what has arrived must be the beginning of UTF-8.
    fn check_text(&mut self) -> Result<(), Violation> {
        if !self.is_text {
            return Ok(());
        }
        let so_far = match self.deflated {
            None => self.data.bytes(),
            Some(_) => self.progress.inflated(),
        };
        // It may be behind, if it had to be begun anew.
        let unchecked = so_far.get(self.checked..).unwrap_or_default();
        self.checked += utf8::whole_characters(unchecked)?;
        Ok(())
    }
}

/// The payload of a frame that is there whole, unmasked in place; moves `at` behind it.
#[inline]
fn whole_payload<'a>(input: &'a mut [u8], at: &mut usize, head: &FrameHead) -> &'a [u8] {
    let start = *at + head.header_bytes;
    *at = start + head.length as usize;
    let payload = &mut input[start..*at];
    frame::unmask(payload, head.mask);
    payload
}

#[inline]
fn deliver(is_text: bool, payload: &[u8]) -> Result<Received<'_>, Violation> {
    Ok(Received::Message(if is_text {
        Message::Text(utf8::text(payload)?)
    } else {
        Message::Binary(payload)
    }))
}

fn take_control(control: Control, payload: &[u8]) -> Result<Received<'_>, Violation> {
    Ok(match control {
        Control::Ping => Received::Ping(payload),
        Control::Pong => Received::Pong,
        // `decode` refuses the reserved ones, so this is Close.
        Control::Close | Control::Reserved(_) => Received::Close(close_frame(payload)?),
    })
}

/// RFC 6455 5.5.1 and 7.4: nothing, or a code that may be sent and a UTF-8 reason.
fn close_frame(payload: &[u8]) -> Result<CloseFrame<'_>, Violation> {
    match payload {
        [] => Ok(CloseFrame { code: CloseCode::Status, reason: "" }),
        [_] => Err(Violation::BadCloseCode),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !frame::may_be_sent(code) {
                return Err(Violation::BadCloseCode);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            Ok(CloseFrame { code, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 77, 177, 200];
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..=125 => bytes.push(0x80 | short as u8),
            medium @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        frame::unmask(&mut bytes[start..], mask);
        bytes
    }

    /// Feeds the stream in the given pieces, as a connection would, and prints what came out.
    fn outcome<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<String> {
        let mut receiver = Receiver::default();
        let mut scratch = Scratch::default();
        let mut seen = Vec::new();
        let mut tail = Vec::new();
        let now = Instant::now();
        for piece in pieces {
            tail.extend_from_slice(piece);
            let mut at = 0;
            loop {
                match receiver.next(&mut tail, &mut at, &mut scratch, MAX, now) {
                    Ok(Some(Received::Close(close))) => {
                        seen.push(format!("close {} {:?}", u16::from(close.code), close.reason));
                        return seen;
                    }
                    Ok(Some(received)) => seen.push(format!("{received:?}")),
                    Ok(None) => break,
                    Err(violation) => {
                        seen.push(format!("{violation:?}"));
                        return seen;
                    }
                }
            }
            tail.drain(..at);
            assert!(tail.len() < frame::MAX_HEADER + frame::MAX_SHORT, "the tail stays small");
        }
        seen
    }

    fn a_conversation() -> Vec<u8> {
        let mut stream = client_frame(0x81, "héllo".as_bytes());
        stream.extend(client_frame(0x82, &[0; 200]));
        stream.extend(client_frame(0x01, "split é".as_bytes()));
        stream.extend(client_frame(0x89, b"in between"));
        stream.extend(client_frame(0x00, b""));
        stream.extend(client_frame(0x80, b"!"));
        stream.extend(client_frame(0x8a, b""));
        stream.extend(client_frame(0x81, b""));
        stream.extend(client_frame(0x88, &[0x03, 0xe8, b'b', b'y', b'e']));
        stream
    }

    #[test]
    fn the_same_messages_wherever_the_stream_is_cut() {
        let stream = a_conversation();
        let whole = outcome([&stream[..]]);
        assert_eq!(whole.len(), 7);
        assert_eq!(whole[3], r#"Message(Text("split é!"))"#);
        assert_eq!(whole[6], "close 1000 \"bye\"");
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(outcome([left, right]), whole, "cut at {cut}");
        }
        assert_eq!(outcome(stream.chunks(1)), whole, "byte by byte");
    }

    #[test]
    fn every_rule_bites_wherever_the_stream_is_cut() {
        let text = |bytes: &[u8]| client_frame(0x81, bytes);
        let mut euro_broken = client_frame(0x01, &[0xe2, 0x82]);
        euro_broken.extend(client_frame(0x80, &[0x28]));
        let mut interleaved = client_frame(0x01, b"a");
        interleaved.extend(client_frame(0x81, b"b"));
        let mut sum_too_big = client_frame(0x02, &[0; 600]);
        sum_too_big.extend(client_frame(0x80, &[0; 401]));
        for (stream, expected) in [
            (text(&[0xff]), "NotUtf8"),
            (text(&[0xc0, 0x80]), "NotUtf8"),
            (text(&[0xed, 0xa0, 0x80]), "NotUtf8"),
            (text(&[0xe2, 0x82]), "NotUtf8"),
            (euro_broken, "NotUtf8"),
            (interleaved, "InterleavedMessage"),
            (client_frame(0x80, b"a"), "LoneContinuation"),
            (client_frame(0x82, &[0; 1001]), "TooBig"),
            (sum_too_big, "TooBig"),
            (client_frame(0x88, &[3]), "BadCloseCode"),
            (client_frame(0x88, &1005u16.to_be_bytes()), "BadCloseCode"),
            (client_frame(0x88, &[0x03, 0xe8, 0xff]), "NotUtf8"),
        ] {
            for cut in 0..=stream.len() {
                let (left, right) = stream.split_at(cut);
                assert_eq!(outcome([left, right]), [expected], "{stream:x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn wrong_text_is_seen_before_its_frame_ends() {
        let stream = client_frame(0x81, &[b"abc\xffdef".as_slice(), &[b'x'; 90]].concat());
        assert_eq!(outcome([&stream[..10]]), ["NotUtf8"]);
        assert_eq!(outcome([&stream[..9]]), Vec::<String>::new());
    }

    #[test]
    fn storage_follows_what_has_arrived_and_never_passes_the_limit() {
        const LIMIT: usize = 100_000;
        let now = Instant::now();
        // In fragments of a byte, and in one frame that arrives in pieces.
        for whole in [false, true] {
            let (mut receiver, mut scratch) = (Receiver::default(), Scratch::default());
            let mut header = vec![0x82, 0xff];
            header.extend_from_slice(&(LIMIT as u64).to_be_bytes());
            header.extend_from_slice(&[0; 4]);
            let (mut growths, mut before) = (0, 0);
            for arrived in 1..LIMIT {
                let mut input = match (whole, arrived) {
                    (true, 1) => [&header[..], b"x"].concat(),
                    (true, _) => b"x".to_vec(),
                    (false, 1) => client_frame(0x02, b"x"),
                    (false, _) => client_frame(0x00, b"x"),
                };
                let mut at = 0;
                let next = receiver.next(&mut input, &mut at, &mut scratch, LIMIT, now);
                assert_eq!(next, Ok(None));
                let held = receiver.held_bytes();
                assert!(held <= (2 * arrived).clamp(8, LIMIT), "{held} after {arrived}");
                growths += usize::from(held != before);
                before = held;
            }
            assert!(growths < 20, "{growths} growths");
        }
    }

    /// However much of a long payload is read where it goes, and however much comes by the buffer.
    #[test]
    fn a_payload_read_past_the_input_is_the_same_message() {
        const MAX: usize = 1 << 20;
        let now = Instant::now();
        let payload: Vec<u8> = (0..300_000u32).map(|n| (n * 7 + n / 251) as u8 & 0x7f).collect();
        let text = client_frame(0x81, b"behind");
        let mut scratch = Scratch::default();
        for (round, step) in [1usize, 3, 1000, 65_537, usize::MAX].into_iter().enumerate() {
            let kind = if round % 2 == 0 { 0x82 } else { 0x81 };
            let stream = [client_frame(kind, &payload), text.clone()].concat();
            let (mut receiver, mut seen, mut past) = (Receiver::default(), Vec::new(), 0);
            // The first read ends anywhere; then, in turn, one step of each kind.
            let mut input = stream[..40_001].to_vec();
            let mut rest = &stream[40_001..];
            loop {
                let mut at = 0;
                while let Some(received) =
                    receiver.next(&mut input, &mut at, &mut scratch, MAX, now).unwrap()
                {
                    let Received::Message(message) = received else { panic!("{received:?}") };
                    seen.push(message.as_bytes().to_vec());
                }
                assert!(!receiver.has_more());
                input.drain(..at);
                if rest.is_empty() {
                    break;
                }
                assert!(receiver.held_bytes() <= MAX);
                let held = receiver.held_bytes();
                if let Some(room) = receiver.payload_room(MAX) {
                    assert!(input.is_empty());
                    let count = room.len().min(step).min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    receiver.note_read_payload(count);
                    rest = &rest[count..];
                    past += count;
                    assert!(held >= LONG && receiver.held_bytes() <= payload.len());
                    // In small steps it would take for ever.
                    if step < 1000 && past % 7 != 0 {
                        continue;
                    }
                }
                let count = rest.len().min(if step < 1000 { 5001 } else { 701 });
                input.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
            }
            assert!(seen == [&payload[..], b"behind"], "round {round}");
            assert!(past > 0, "nothing went past the input");
        }
    }

    #[test]
    fn storage_of_one_long_message_takes_the_next() {
        let now = Instant::now();
        let stream = client_frame(0x82, &[7; 200_000]);
        let mut scratch = Scratch::default();
        let mut addresses = Vec::new();
        for _ in 0..3 {
            let mut receiver = Receiver::default();
            let (mut at, mut first) = (0, stream[..100_000].to_vec());
            assert_eq!(receiver.next(&mut first, &mut at, &mut scratch, 1 << 20, now), Ok(None));
            let (mut at, mut second) = (0, stream[100_000..].to_vec());
            let received = receiver.next(&mut second, &mut at, &mut scratch, 1 << 20, now);
            let Ok(Some(Received::Message(message))) = received else { panic!("{received:?}") };
            assert_eq!(message.as_bytes(), [7; 200_000]);
            addresses.push(message.as_bytes().as_ptr());
        }
        assert!(addresses[1..].iter().all(|at| *at == addresses[0]), "{addresses:?}");
        scratch.trim(1000);
        assert_eq!(scratch.long.reassembly.storage_bytes(), 0);
    }

    #[test]
    fn a_declared_length_reserves_nothing() {
        let mut receiver = Receiver::default();
        let mut header = vec![0x82, 0xff];
        header.extend_from_slice(&(1u64 << 29).to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        let (mut at, mut scratch) = (0, Scratch::default());
        let now = Instant::now();
        let next = receiver.next(&mut header, &mut at, &mut scratch, 1 << 30, now);
        assert_eq!(next, Ok(None));
        assert_eq!(receiver.held_bytes(), 0);
        assert_eq!(receiver.unfinished_since(), Some(now));
    }
}

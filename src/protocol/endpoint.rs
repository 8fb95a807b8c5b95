//! One connection's protocol state: Handshaking (→ Pending) → Open → Closing → Closed, as one enum.
//!
//! It is the only face of `protocol/` that a connection holds. It takes bytes and an `Instant`,
//! appends bytes to whatever the caller wants written, and names its next deadline. It has no
//! socket: that a flush ended, that the peer's stream ended, that a deadline passed, it is told.
//!
//! Invariant: the state only ever moves to the right, except that a request answered on a
//! kept-alive connection makes room for the next, and that a request of which the answer was awaited is
//! read again.
//!
//! Next: [`crate::resp`]: what is spoken to a server of Redis.

use std::time::Instant;

use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use super::deflate::DeflateParams;
use super::frame::{self, Violation};
use super::head::{self, HeadError, Part};
use super::limits::ProtocolLimits;
use super::message::{Message, Received, Receiver, Scratch};

/// The state, with what each state needs and nothing else.
#[derive(Debug)]
pub enum Endpoint {
    /// HTTP: waiting for a request head, the first or a further one.
    Handshaking(Handshaking),
    /// HTTP: a whole request for a WebSocket is there, and the answer to it is not known yet. Nothing
    /// more is read, and the request is kept as it came.
    Pending(Pending),
    /// A WebSocket, both directions open.
    Open(Open),
    /// Our Close or our last response is said. What is left is to send it, and to end the stream so that
    /// the peer can read it.
    Closing(Closing),
    /// Over. The socket can be let go of.
    Closed,
}

/// Waiting for a request.
#[derive(Debug)]
pub struct Handshaking {
    /// How much of it is there.
    progress: Progress,
    /// When waiting ends.
    deadline: Instant,
    /// Which request it is.
    which: Which,
}

/// How much of a request is there. A request stands in the receive buffer, of at most 16 MiB, so 32 bits
/// hold its lengths; with 64, each connection would take 8 bytes more.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// The beginning of its head, or nothing.
    Head {
        /// Bytes already looked at.
        scanned: u32,
        /// Where in the head they end.
        part: Part,
    },
    /// Its head of so many bytes, behind which so many of content are waited for.
    Content { head: u32, length: u32 },
}

/// Which request of its connection is waited for, or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    /// The connection has been answered before: then silence is not an error.
    Further,
    /// It is there, and is read once more because the answer to it has come.
    Answered,
}

/// Waiting for the answer to a request.
#[derive(Debug)]
pub struct Pending {
    /// When waiting ends.
    deadline: Instant,
}

/// An open WebSocket.
#[derive(Debug)]
pub struct Open {
    receiver: Receiver,
    liveness: Liveness,
}

/// Who has to speak next for the connection to count as alive.
#[derive(Debug, Clone, Copy)]
enum Liveness {
    /// Nobody: pings are off.
    Unwatched,
    /// We: a ping is due then.
    PingAt(Instant),
    /// The peer: its pong is due then.
    PongBy(Instant),
}

/// The stations of leaving.
#[derive(Debug)]
pub enum Closing {
    /// Our Close is on its way; the peer's is read for until then (RFC 6455 7.1.1).
    AwaitingEcho {
        /// Reads on: data still in flight comes before the Close.
        receiver: Receiver,
        /// Whether a ping of ours is unanswered.
        awaits_pong: bool,
        /// When waiting ends.
        by: Instant,
    },
    /// Nothing more will be said or heard: what is queued leaves, then our half of the stream.
    Flushing {
        /// When waiting for the peer to take it ends.
        by: Instant,
        /// Whether the peer has said Close as well: then nothing of its can come that a lingering
        /// would have to wait for.
        is_mutual: bool,
    },
    /// Our half is closed. What still arrives is thrown away, within bounds, so that closing the
    /// socket finds no unread byte, which would make the kernel send a reset that may overtake
    /// our last words.
    Lingering {
        /// When it ends.
        by: Instant,
        /// How much more is thrown away.
        bytes_left: usize,
    },
}

/// What is to be done when the queue of a connection has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueLeft {
    /// Nothing: it goes on, or it has ended.
    Nothing,
    /// Our half of the stream is to be closed.
    HalfClose,
}

/// Whether the socket may hold bytes that are not read yet: if it is closed then, the kernel sends a
/// reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It holds none.
    Nothing,
    /// It may hold some.
    Perhaps,
}

/// How much of the input was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// All of it.
    All,
    /// What came before the state changed. The rest is for the state that the endpoint has now.
    UpToNextState,
}

/// Where throwing input away stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At the end of what has come. More may come.
    InputEnd,
    /// At the peer's Close: both have said theirs.
    Close,
    /// Where its frames stop making sense, or where it is more than we are willing to throw away.
    Enough,
}

/// What an open connection's input held next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message for the application.
    Message(Message<'a>),
    /// A ping (answered) or a pong (noted).
    Control,
    /// A message of which the rest is inflated at the next visit.
    Inflating,
    /// The peer's Close, with its code; the answer is written, the endpoint is Closing.
    PeerClosed(CloseCode),
}

/// What a passed deadline means.
#[derive(Debug, PartialEq, Eq)]
pub enum TimeoutEvent {
    /// It had moved.
    None,
    /// A ping was written.
    Pinged,
    /// The request head is late.
    HeadLate,
    /// The content of a request is late.
    BodyLate,
    /// Nothing of a first request has come.
    Silent,
    /// The answer to a request is late.
    AnswerLate,
    /// A message is late.
    MessageLate(Violation),
    /// The pong is late.
    PongLate,
    /// There is nothing to wait for any more.
    Over,
}

impl Endpoint {
    /// A fresh connection that has until `deadline` to send its first request head.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Endpoint::Handshaking(Handshaking::new(deadline, Which::First))
    }

    /// After a 101: the next bytes are frames.
    pub fn open(&mut self, params: Option<DeflateParams>, now: Instant, limits: &ProtocolLimits) {
        debug_assert!(matches!(self, Endpoint::Handshaking(_)));
        let liveness = limits
            .ping_interval
            .map_or(Liveness::Unwatched, |interval| Liveness::PingAt(now + interval));
        *self = Endpoint::Open(Open { receiver: Receiver::new(params), liveness });
    }

    /// After a response that keeps the connection: the next bytes are another request.
    pub fn await_request(&mut self, now: Instant, limits: &ProtocolLimits) {
        debug_assert!(matches!(self, Endpoint::Handshaking(_)));
        let deadline = now + limits.keep_alive_timeout;
        *self = Endpoint::Handshaking(Handshaking::new(deadline, Which::Further));
    }

    /// The answer to the request is not known yet. It has as long as a request has to arrive.
    pub fn await_answer(&mut self, deadline: Instant) {
        debug_assert!(matches!(self, Endpoint::Handshaking(_)));
        *self = Endpoint::Pending(Pending { deadline });
    }

    /// The answer is known: the request is read again from its first byte.
    pub fn read_again(&mut self, now: Instant, limits: &ProtocolLimits) {
        debug_assert!(matches!(self, Endpoint::Pending(_)));
        let deadline = now + limits.handshake_timeout;
        *self = Endpoint::Handshaking(Handshaking::new(deadline, Which::Answered));
    }

    /// Says our Close and goes on reading for the peer's.
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        now: Instant,
        limits: &ProtocolLimits,
        out: &mut Vec<u8>,
    ) {
        let Endpoint::Open(open) = self else { return };
        frame::encode_close(code, reason, out);
        let receiver = std::mem::take(&mut open.receiver);
        let awaits_pong = open.awaits_pong();
        let by = now + limits.close_timeout;
        *self = Endpoint::Closing(Closing::AwaitingEcho { receiver, awaits_pong, by });
    }

    /// Says a Close that expects no answer, because the peer broke a rule or fell silent: what it
    /// sends from here on has no meaning (RFC 6455 7.1.7).
    pub fn fail(
        &mut self,
        code: CloseCode,
        reason: &str,
        now: Instant,
        limits: &ProtocolLimits,
        out: &mut Vec<u8>,
    ) {
        if let Endpoint::Open(_) = self {
            frame::encode_close(code, reason, out);
        }
        self.finish(now, limits);
    }

    /// Nothing more will be said: flush, half-close, linger.
    pub fn finish(&mut self, now: Instant, limits: &ProtocolLimits) {
        let by = now + limits.close_timeout;
        *self = Endpoint::Closing(Closing::Flushing { by, is_mutual: false });
    }

    /// Both sides have said Close: flush, and that is the end (RFC 6455 7.1.1: the server closes
    /// the connection, and first). Unless a ping of ours is unanswered: what a peer must not send
    /// after its Close are data frames (5.5.1), so its pong may still come.
    pub fn part(&mut self, now: Instant, limits: &ProtocolLimits) {
        let awaits_pong = match self {
            Endpoint::Open(open) => open.awaits_pong(),
            Endpoint::Closing(Closing::AwaitingEcho { awaits_pong, .. }) => *awaits_pong,
            _ => true,
        };
        let by = now + limits.close_timeout;
        *self = Endpoint::Closing(Closing::Flushing { by, is_mutual: !awaits_pong });
    }

    /// Reads past what the peer still sends in Closing, until its Close has come or it is enough.
    pub fn discard(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        scratch: &mut Scratch,
        limits: &ProtocolLimits,
        now: Instant,
    ) -> Discarded {
        let Endpoint::Closing(closing) = self else { return Discarded::All };
        match (closing.discard(input, at, scratch, limits, now), closing) {
            (Stop::InputEnd, _) => return Discarded::All,
            (Stop::Close, _) => self.part(now, limits),
            (Stop::Enough, Closing::Lingering { .. }) => {
                *self = Endpoint::Closed;
                return Discarded::All;
            }
            (Stop::Enough, _) => self.finish(now, limits),
        }
        Discarded::UpToNextState
    }

    /// Goes on to the next station when our queue is empty. Behind [`Closing::Flushing`] that is the
    /// half-close, which is the caller's to do; or the end, if both have said Close and nothing is
    /// unread, so that closing the socket cannot cause a reset. That saves two calls and two edges a
    /// connection.
    #[inline]
    pub fn queue_has_left(
        &mut self,
        unread: Unread,
        now: Instant,
        limits: &ProtocolLimits,
    ) -> QueueLeft {
        let Endpoint::Closing(Closing::Flushing { is_mutual, .. }) = self else {
            return QueueLeft::Nothing;
        };
        if *is_mutual && unread == Unread::Nothing {
            *self = Endpoint::Closed;
            return QueueLeft::Nothing;
        }
        let (by, bytes_left) = (now + limits.linger, limits.linger_bytes);
        *self = Endpoint::Closing(Closing::Lingering { by, bytes_left });
        QueueLeft::HalfClose
    }

    /// We read again after a time in which we did not, because the peer did not read either. What it
    /// may have said meanwhile, a pong or the end of a message, gets its whole time anew.
    pub fn listened_again(&mut self, now: Instant, limits: &ProtocolLimits) {
        self.note_alive(now, limits);
        if let Endpoint::Open(open) = self {
            open.receiver.restart_clock(now);
        }
    }

    /// The peer has sent part of a frame, in whose middle no pong can come (RFC 6455 5.5), or has taken
    /// bytes behind which our ping may wait. So it is alive, and the time for its pong begins anew. The
    /// time for the end of a message does not.
    pub fn note_alive(&mut self, now: Instant, limits: &ProtocolLimits) {
        if let Endpoint::Open(open) = self
            && let (Liveness::PongBy(_), Some(timeout)) = (open.liveness, limits.ping_timeout)
        {
            open.liveness = Liveness::PongBy(now + timeout);
        }
    }

    /// We do not read for a time, because the peer does not: what it has us inflate lets others by.
    pub fn stopped_listening(&mut self) {
        if let Endpoint::Open(Open { receiver, .. })
        | Endpoint::Closing(Closing::AwaitingEcho { receiver, .. }) = self
        {
            receiver.yield_inflater();
        }
    }

    /// Whether all has been said that belongs to an end in good order: both have said Close, or ours has
    /// left after which nothing of the peer's counts.
    #[must_use]
    pub fn has_parted(&self) -> bool {
        matches!(
            self,
            Endpoint::Closing(
                Closing::Flushing { is_mutual: true, .. } | Closing::Lingering { .. }
            ) | Endpoint::Closed
        )
    }

    /// Whether nothing more will be said than what is queued.
    #[must_use]
    pub fn is_flushing(&self) -> bool {
        matches!(self, Endpoint::Closing(Closing::Flushing { .. }))
    }

    /// When [`Self::on_deadline`] wants to be called. A late call costs punctuality and nothing
    /// else; an early one is a no-op.
    #[inline(always)]
    #[must_use]
    pub fn deadline(&self, limits: &ProtocolLimits) -> Option<Instant> {
        match self {
            Endpoint::Handshaking(handshaking) => Some(handshaking.deadline),
            Endpoint::Pending(pending) => Some(pending.deadline),
            Endpoint::Open(open) => open.deadline(limits),
            Endpoint::Closing(
                Closing::AwaitingEcho { by, .. }
                | Closing::Flushing { by, .. }
                | Closing::Lingering { by, .. },
            ) => Some(*by),
            Endpoint::Closed => None,
        }
    }

    /// Bytes held for an unfinished message.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match self {
            Endpoint::Open(Open { receiver, .. })
            | Endpoint::Closing(Closing::AwaitingEcho { receiver, .. }) => receiver.held_bytes(),
            _ => 0,
        }
    }

    /// Acts on what is due. A ping goes to `out`; everything else is the caller's to decide.
    pub fn on_deadline(
        &mut self,
        now: Instant,
        limits: &ProtocolLimits,
        out: &mut Vec<u8>,
    ) -> TimeoutEvent {
        if self.deadline(limits).is_none_or(|deadline| now < deadline) {
            return TimeoutEvent::None;
        }
        match self {
            // Silence between requests is how a kept-alive connection ends; a started head is late.
            Endpoint::Handshaking(Handshaking {
                which: Which::Further,
                progress: Progress::Head { scanned: 0, .. },
                ..
            })
            | Endpoint::Closing(_)
            | Endpoint::Closed => TimeoutEvent::Over,
            Endpoint::Pending(_)
            | Endpoint::Handshaking(Handshaking { which: Which::Answered, .. }) => {
                TimeoutEvent::AnswerLate
            }
            // It asked for nothing, so it is answered nothing: browsers open connections ahead of
            // need, and would take a 408 for the answer to their next request.
            Endpoint::Handshaking(handshaking) => match handshaking.progress {
                Progress::Head { scanned: 0, .. } => TimeoutEvent::Silent,
                Progress::Head { .. } => TimeoutEvent::HeadLate,
                Progress::Content { .. } => TimeoutEvent::BodyLate,
            },
            Endpoint::Open(open) => open.on_deadline(now, limits, out),
        }
    }
}

impl Handshaking {
    fn new(deadline: Instant, which: Which) -> Self {
        let progress = Progress::Head { scanned: 0, part: Part::default() };
        Handshaking { progress, deadline, which }
    }

    /// Looks for the end of a head in what has arrived of its request, `received` from the first byte on,
    /// and lowers a later minor version than we know ([`head::find_end`]). `None` if the head is not
    /// whole, nor the content that [`Self::await_content`] has told of.
    ///
    /// # Errors
    ///
    /// What the bytes so far already show.
    pub fn head_end(
        &mut self,
        received: &mut [u8],
        now: Instant,
        limits: &ProtocolLimits,
    ) -> Result<Option<usize>, HeadError> {
        let (scanned, part) = match &mut self.progress {
            Progress::Head { scanned, part } => (scanned, part),
            Progress::Content { head, length } => {
                let (head, length) = (*head as usize, *length as usize);
                return Ok((received.len() >= head + length).then_some(head));
            }
        };
        if self.which == Which::Further && *scanned == 0 && !received.is_empty() {
            // The clock of a further request starts with its first byte, and then does not stop.
            self.deadline = now + limits.handshake_timeout;
        }
        let end = head::find_end(received, *scanned as usize, part, limits)?;
        *scanned = received.len() as u32;
        Ok(end)
    }

    /// The head, of so many bytes, is whole, and behind it `length` bytes of content are waited for. The
    /// deadline stays: it is that of the whole request.
    pub fn await_content(&mut self, head: usize, length: usize) {
        debug_assert!(head + length <= u32::MAX as usize, "it fits into the receive buffer");
        self.progress = Progress::Content { head: head as u32, length: length as u32 };
    }
}

impl Open {
    /// The short message that stands next, if one does: [`Self::next`]'s usual case, for a caller that
    /// takes very many.
    ///
    /// # Errors
    ///
    /// As those of [`Self::next`].
    #[inline(always)]
    pub fn next_short<'a>(
        &self,
        input: &[u8],
        at: &mut usize,
        scratch: &'a mut Scratch,
        limits: &ProtocolLimits,
    ) -> Option<Result<Message<'a>, Violation>> {
        self.receiver.next_short(input, at, scratch, limits.message_bytes)
    }

    /// Whether a message is unfinished.
    #[inline(always)]
    #[must_use]
    pub fn is_amid_message(&self) -> bool {
        self.receiver.is_amid_message()
    }

    /// Where the payload of a long frame under way is to be read to; `None` if none is.
    pub fn payload_room(&mut self, limits: &ProtocolLimits) -> Option<&mut [u8]> {
        self.receiver.payload_room(limits.message_bytes)
    }

    /// So many bytes have been read to the [`Self::payload_room`]; [`Self::next`] says what of it.
    pub fn note_read_payload(&mut self, count: usize) {
        self.receiver.note_read_payload(count);
    }

    /// Takes the next thing from `input[*at..]`; `None` when no whole one is left. Answers to
    /// control frames are appended to `out`.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke; the caller answers with [`Endpoint::fail`].
    // Six arguments, because `input` and `at` in one struct cost instructions: 15 of an echo's 8,723
    // (`turn/echo-16KiB`) and 1 of a count's 548 (`turn/64x1`); and where this is inlined besides, 7 of
    // 255 (`turn/64x64`). Counted with `cargo bench --locked --bench micro -- --only turn/`.
    pub fn next<'a>(
        &mut self,
        input: &'a mut [u8],
        at: &mut usize,
        scratch: &'a mut Scratch,
        limits: &ProtocolLimits,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event<'a>>, Violation> {
        let received = self.receiver.next(input, at, scratch, limits.message_bytes, now)?;
        Ok(match received {
            Some(Received::Message(message)) => Some(Event::Message(message)),
            None => None,
            Some(Received::Inflating) => Some(Event::Inflating),
            Some(Received::Ping(payload)) => {
                // RFC 6455 5.5.3: the pong carries the ping's payload.
                frame::encode(OpCode::Control(Control::Pong), payload, out);
                Some(Event::Control)
            }
            Some(Received::Pong) => {
                // One that nobody asked for (5.5.3 allows it) changes nothing.
                if let (Liveness::PongBy(_), Some(interval)) = (self.liveness, limits.ping_interval)
                {
                    self.liveness = Liveness::PingAt(now + interval);
                }
                Some(Event::Control)
            }
            Some(Received::Close(close)) => {
                // 5.5.1: the answer typically echoes the code; a Close without one gets none.
                match close.code {
                    CloseCode::Status => frame::encode(OpCode::Control(Control::Close), b"", out),
                    code => frame::encode_close(code, "", out),
                }
                Some(Event::PeerClosed(close.code))
            }
        })
    }

    #[inline]
    fn message_deadline(&self, limits: &ProtocolLimits) -> Option<Instant> {
        self.receiver.unfinished_since().map(|since| since + limits.message_timeout)
    }

    #[inline]
    fn deadline(&self, limits: &ProtocolLimits) -> Option<Instant> {
        let alive = match self.liveness {
            Liveness::Unwatched => None,
            Liveness::PingAt(at) | Liveness::PongBy(at) => Some(at),
        };
        match (alive, self.message_deadline(limits)) {
            (alive, None) => alive,
            (Some(alive), Some(message)) => Some(alive.min(message)),
            (None, message) => message,
        }
    }

    fn on_deadline(
        &mut self,
        now: Instant,
        limits: &ProtocolLimits,
        out: &mut Vec<u8>,
    ) -> TimeoutEvent {
        if self.message_deadline(limits).is_some_and(|deadline| now >= deadline) {
            return TimeoutEvent::MessageLate(Violation::MessageTimeout);
        }
        match (self.liveness, limits.ping_interval) {
            (Liveness::PingAt(at), Some(interval)) if now >= at => {
                frame::encode(OpCode::Control(Control::Ping), b"", out);
                self.liveness = match limits.ping_timeout {
                    Some(timeout) => Liveness::PongBy(now + timeout),
                    None => Liveness::PingAt(now + interval),
                };
                TimeoutEvent::Pinged
            }
            // The pong may stand behind a message of which we have not made enough yet to go on.
            (Liveness::PongBy(by), _) if now >= by && self.is_inflating() => {
                self.liveness = Liveness::PongBy(now + limits.ping_timeout.unwrap_or_default());
                TimeoutEvent::None
            }
            (Liveness::PongBy(by), _) if now >= by => TimeoutEvent::PongLate,
            _ => TimeoutEvent::None,
        }
    }

    /// Bytes that the payload of the frame under way still wants.
    #[must_use]
    pub fn owed_bytes(&self) -> u64 {
        self.receiver.owed_bytes()
    }

    /// Whether a message is whole and waits to be inflated: it needs a visit, not an edge.
    #[inline]
    #[must_use]
    pub fn is_inflating(&self) -> bool {
        self.receiver.is_inflating()
    }

    /// Whether a message may be whole although there is no input: it was read past that, or is to be
    /// inflated.
    #[inline(always)]
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.receiver.has_more()
    }

    /// Whether a ping of ours is unanswered.
    fn awaits_pong(&self) -> bool {
        matches!(self.liveness, Liveness::PongBy(_))
    }

    /// What was agreed on about compression.
    #[must_use]
    pub fn params(&self) -> Option<DeflateParams> {
        self.receiver.params()
    }
}

impl Closing {
    /// Reads past what the peer still sends, and tells where that stops.
    fn discard(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        scratch: &mut Scratch,
        limits: &ProtocolLimits,
        now: Instant,
    ) -> Stop {
        match self {
            Closing::AwaitingEcho { receiver, awaits_pong, .. } => loop {
                match receiver.next(input, at, scratch, limits.message_bytes, now) {
                    Ok(Some(Received::Close(_))) => return Stop::Close,
                    Err(_) => return Stop::Enough,
                    Ok(Some(Received::Inflating)) => receiver.skip_inflating(),
                    Ok(Some(Received::Pong)) => *awaits_pong = false,
                    Ok(Some(Received::Message(_) | Received::Ping(_))) => {}
                    Ok(None) => return Stop::InputEnd,
                }
            },
            Closing::Flushing { .. } => {
                *at = input.len();
                Stop::InputEnd
            }
            Closing::Lingering { bytes_left, .. } => {
                *at = input.len();
                let enough = input.len() > *bytes_left;
                *bytes_left = bytes_left.saturating_sub(input.len());
                match enough {
                    true => Stop::Enough,
                    false => Stop::InputEnd,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a connection that we close, with a ping unanswered, when these frames come.
    fn after_our_close(frames: &[u8]) -> Endpoint {
        let limits = &ProtocolLimits::FOR_TESTS;
        let begin = Instant::now();
        let mut endpoint = Endpoint::new(begin);
        let (mut scratch, mut out) = (Scratch::default(), Vec::new());
        endpoint.open(None, begin, limits);
        let now = endpoint.deadline(limits).expect("a ping is due");
        assert_eq!(endpoint.on_deadline(now, limits, &mut out), TimeoutEvent::Pinged);
        endpoint.close(CloseCode::Away, "", now, limits, &mut out);
        let discarded = endpoint.discard(&mut frames.to_vec(), &mut 0, &mut scratch, limits, now);
        assert_eq!(discarded, Discarded::UpToNextState);
        endpoint.queue_has_left(Unread::Nothing, now, limits);
        endpoint
    }

    #[test]
    fn a_pong_before_the_echo_is_not_lingered_for() {
        let (pong, close) = ([0x8a, 0x80, 0, 0, 0, 0], [0x88, 0x80, 0, 0, 0, 0]);
        assert!(matches!(after_our_close(&[pong, close].concat()), Endpoint::Closed));
        let lingers = after_our_close(&close);
        assert!(matches!(lingers, Endpoint::Closing(Closing::Lingering { .. })), "{lingers:?}");
    }

    #[test]
    fn content_is_waited_for_until_the_deadline_of_its_request() {
        let limits = &ProtocolLimits::FOR_TESTS;
        let begin = Instant::now();
        let mut endpoint = Endpoint::new(begin + limits.handshake_timeout);
        let mut request = b"POST / HTTP/1.1\r\nHost: a\r\n\r\nabcGET".to_vec();
        let head = request.len() - 6;
        let Endpoint::Handshaking(handshaking) = &mut endpoint else { panic!("{endpoint:?}") };
        let end = handshaking.head_end(&mut request[..head + 1], begin, limits);
        assert_eq!(end, Ok(Some(head)));
        handshaking.await_content(head, 3);
        for (arrived, expected) in [(1, None), (2, None), (3, Some(head)), (6, Some(head))] {
            let end = handshaking.head_end(&mut request[..head + arrived], begin, limits);
            assert_eq!(end, Ok(expected), "{arrived} bytes of content");
        }
        let late = begin + limits.handshake_timeout;
        let mut out = Vec::new();
        assert_eq!(endpoint.on_deadline(late, limits, &mut out), TimeoutEvent::BodyLate);
        endpoint.await_request(late, limits);
        let silent = late + limits.keep_alive_timeout;
        assert_eq!(endpoint.on_deadline(silent, limits, &mut out), TimeoutEvent::Over);
    }
}

//! Where the two views of a conversation differ, and whether they may: the table [`EXCEPTIONS`] has
//! every difference that RFC 6455 allows, or that tungstenite's laxness explains. Draws no
//! conversations; called by the seeded test of this folder and by the fuzz target for frames.

use revolve::protocol::frame::Violation;

use super::conversation::Conversation;
use super::frames::FrameFacts;
use super::verdict::{self, Breach, End, Reply, Verdict};

/// Two views of one conversation that are not the same.
struct Dispute<'a> {
    conversation: &'a Conversation,
    ours: &'a Verdict,
    breach: Option<&'a Breach>,
    theirs: &'a Verdict,
}

/// A difference that is allowed.
pub(crate) struct Exception {
    pub(crate) name: &'static str,
    /// Why it is no defect of ours. "T" numbers are those of the measured facts about tungstenite.
    pub(crate) reason: &'static str,
    /// Exactly when it applies.
    applies: fn(&Dispute<'_>) -> bool,
}

/// All differences that are allowed.
pub(crate) const EXCEPTIONS: [Exception; 7] = [
    Exception {
        name: "padded length",
        reason: "5.2: \"the minimal number of bytes MUST be used\"; tungstenite takes any form (T7)",
        applies: |dispute| {
            dispute.we_failed_with(&[Violation::BadLength, Violation::LongControl])
                && dispute.their_view_begins_with_ours()
                && dispute.frame().is_some_and(|frame| frame.is_padded())
        },
    },
    Exception {
        name: "top bit of a length",
        reason: "5.2: \"the most significant bit MUST be 0\", so 1002; to tungstenite it is a \
                 length like any other, and too large: 1009 (T7)",
        applies: |dispute| {
            dispute.we_failed_with(&[Violation::BadLength])
                && dispute.they_failed_there_with(1009)
                && dispute.frame().is_some_and(|frame| frame.length >= Some(1 << 63))
        },
    },
    Exception {
        name: "early",
        reason: "8.1 and Autobahn 6.4 ask for failing fast; tungstenite judges a frame when it is \
                 whole (T6), and this one never is",
        applies: |dispute| {
            dispute.breach.is_some()
                && dispute.ours.seen == dispute.theirs.seen
                && dispute.theirs.end == End::Lost
                && dispute.frame().is_some_and(|frame| !frame.is_whole)
        },
    },
    Exception {
        name: "two rules at once",
        reason: "a frame that is too large and wrong besides, or a Close with a wrong code and a \
                 wrong reason: the RFC does not say which of the two to name",
        applies: |dispute| {
            let is_too_large = |frame: &FrameFacts| {
                frame.length.is_some_and(|length| length > dispute.conversation.max_size as u64)
            };
            let is_close = |frame: &FrameFacts| frame.is_whole && frame.first == 0x88;
            let code = if dispute.we_failed_with(&[Violation::BadCloseCode]) {
                dispute.frame().filter(is_close).map(|_| 1007)
            } else {
                dispute.frame().filter(is_too_large).map(|_| 1009)
            };
            dispute.ours.end == End::Failed(1002)
                && code.is_some_and(|code| dispute.they_failed_there_with(code))
        },
    },
    Exception {
        name: "forbidden close code",
        reason: "7.4: to tungstenite a good Close, which it answers with 1002 by itself (T8)",
        applies: |dispute| {
            let theirs = End::Closed { code: Some(1002), reason: "Protocol violation".to_owned() };
            dispute.we_failed_with(&[Violation::BadCloseCode])
                && dispute.ours.seen == dispute.theirs.seen
                && dispute.theirs.end == theirs
        },
    },
    Exception {
        name: "Bad Gateway",
        reason: "IANA's registry has 1014, so we echo it; tungstenite knows nothing of it, and answers \
                 with 1002",
        applies: |dispute| {
            let theirs = End::Closed { code: Some(1002), reason: "Protocol violation".to_owned() };
            matches!(dispute.ours.end, End::Closed { code: Some(1014), .. })
                && dispute.ours.replies.last() == Some(&Reply::Close(Some(1014)))
                && dispute.ours.seen == dispute.theirs.seen
                && dispute.theirs.end == theirs
        },
    },
    Exception {
        name: "control frame above the limit",
        reason: "our limit is for messages; tungstenite's is for frames, and a limit under 125 \
                 refuses control frames that 5.5 allows",
        applies: |dispute| {
            // Everything before that frame was right, so events and frames can be counted.
            let is_event = |frame: &FrameFacts| frame.is_control() || frame.is_final();
            let culprit = FrameFacts::all(&dispute.conversation.bytes)
                .filter(is_event)
                .nth(dispute.theirs.seen.len());
            dispute.theirs.end == End::Failed(1009)
                && dispute.ours.seen.starts_with(&dispute.theirs.seen)
                && culprit.is_some_and(|frame| {
                    let length = frame.length.unwrap_or(0);
                    frame.is_control()
                        && length <= 125
                        && length > dispute.conversation.max_size as u64
                })
        },
    },
];

impl Dispute<'_> {
    fn we_failed_with(&self, violations: &[Violation]) -> bool {
        self.breach.is_some_and(|breach| violations.contains(&breach.violation))
    }

    fn they_failed_there_with(&self, code: u16) -> bool {
        self.ours.seen == self.theirs.seen && self.theirs.end == End::Failed(code)
    }

    fn their_view_begins_with_ours(&self) -> bool {
        self.theirs.seen.starts_with(&self.ours.seen)
    }

    /// No exception excuses another answer to a ping that both sides saw.
    fn pongs_agree(&self) -> bool {
        let is_pong = |reply: &&Reply| matches!(reply, Reply::Pong(_));
        let ours = self.ours.replies.iter().filter(is_pong);
        let theirs = self.theirs.replies.iter().filter(is_pong);
        // As far as the shorter of the two goes.
        ours.zip(theirs).all(|(ours, theirs)| ours == theirs)
    }

    /// The frame in which we saw a rule broken. What a header shows is said with the header still
    /// untaken; what a payload shows, with some or all of it taken.
    fn frame(&self) -> Option<FrameFacts> {
        let Breach { violation, at } = self.breach?;
        let inside = match violation {
            Violation::NotUtf8 | Violation::BadCloseCode => at - 1,
            _ => *at,
        };
        FrameFacts::all(&self.conversation.bytes).find(|frame| frame.ends > inside as u64)
    }
}

/// Compares the two views of a conversation; tells how it ended, and which exception it needed.
pub(crate) fn compare(conversation: &Conversation) -> Result<(End, Option<&'static str>), String> {
    let (ours, breach) = verdict::ours(conversation);
    let theirs = verdict::theirs(conversation);
    if ours == theirs {
        // The same bytes once more, for a server that has said Close first (7.1.1): the same
        // frame ends it for both.
        let (we, they) = (
            verdict::ours_after_our_close(conversation),
            verdict::theirs_after_our_close(conversation),
        );
        if we != they {
            return Err(format!("after our Close: are we done? {we}; tungstenite? {they}"));
        }
        return Ok((ours.end, None));
    }
    let dispute = Dispute { conversation, ours: &ours, breach: breach.as_ref(), theirs: &theirs };
    match EXCEPTIONS.iter().find(|exception| (exception.applies)(&dispute)) {
        Some(exception) if dispute.pongs_agree() => Ok((ours.end, Some(exception.name))),
        _ => Err(format!(
            "ours:   {}\n  {breach:x?} in {}\ntheirs: {}\nlimit {}, cuts {:?}",
            abridged(&ours),
            dispute.frame().map_or_else(String::new, |frame| brief(&format!("{frame:x?}"))),
            abridged(&theirs),
            conversation.max_size,
            &conversation.cuts[..conversation.cuts.len().min(20)],
        )),
    }
}

fn abridged(verdict: &Verdict) -> String {
    let Verdict { seen, replies, end } = verdict;
    let seen: Vec<String> = seen.iter().map(|seen| brief(&format!("{seen:x?}"))).collect();
    let replies: Vec<String> = replies.iter().map(|reply| brief(&format!("{reply:x?}"))).collect();
    format!("{end:?}\n  seen: {}\n  replies: {}", seen.join(", "), replies.join(", "))
}

fn brief(text: &str) -> String {
    let cut = text.floor_char_boundary(100);
    if cut == text.len() {
        text.to_owned()
    } else {
        format!("{}… ({})", &text[..cut], text.len())
    }
}

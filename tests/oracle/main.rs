//! The oracle: the same client bytes, cut at random places, given to our endpoint and to
//! tungstenite's own server side, yield the same messages, the same answers and the same end,
//! wherever RFC 6455 leaves no choice. Where it leaves one, or tungstenite is laxer, the table
//! [`EXCEPTIONS`] says so, and nothing outside that table is let pass.
//!
//! It opens no sockets, knows no sessions and measures nothing. `cargo test` runs it; a seed that
//! fails prints itself and is run again, alone, with
//!
//! ```text
//! REVOLVE_SEED=17 cargo test --test oracle
//! ```
//!
//! `REVOLVE_SEEDS=1000000` draws that many instead of the usual number.

// A test tells its reader what it met, and panics where a server must not.
#![allow(clippy::expect_used, clippy::print_stdout)]

mod conversation;
mod frames;
mod random;
mod verdict;

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use revolve::protocol::frame::{self, Violation};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocket};

use conversation::Conversation;
use frames::FrameFacts;
use random::Random;
use verdict::{Breach, End, Reply, Script, Seen, Verdict};

/// Seeds that `cargo test` draws; from 0 on, so that a failure is the same for everyone.
const SEEDS: u64 = 4000;

/// Two views of one conversation that are not the same.
struct Dispute<'a> {
    conversation: &'a Conversation,
    ours: &'a Verdict,
    breach: Option<&'a Breach>,
    theirs: &'a Verdict,
}

/// A difference that is allowed.
struct Exception {
    name: &'static str,
    /// Why it is no defect of ours. "T" numbers are those of the measured facts about tungstenite.
    reason: &'static str,
    /// Exactly when it applies.
    applies: fn(&Dispute<'_>) -> bool,
}

/// All differences that are allowed.
const EXCEPTIONS: [Exception; 6] = [
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

/// Compares the two views of a seed's conversation; tells how it ended, and which exception it
/// needed.
fn compare(seed: u64) -> Result<(End, Option<&'static str>), String> {
    let conversation = Conversation::from_seed(seed);
    let (ours, breach) = verdict::ours(&conversation);
    let theirs = verdict::theirs(&conversation);
    if ours == theirs {
        // The same bytes once more, for a server that has said Close first (7.1.1): the same
        // frame ends it for both.
        let (we, they) = (
            verdict::ours_after_our_close(&conversation),
            verdict::theirs_after_our_close(&conversation),
        );
        if we != they {
            return Err(format!("after our Close: are we done? {we}; tungstenite? {they}"));
        }
        return Ok((ours.end, None));
    }
    let dispute = Dispute {
        conversation: &conversation,
        ours: &ours,
        breach: breach.as_ref(),
        theirs: &theirs,
    };
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

fn from_environment(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// Runs every seed, or the one asked for; a panic in one also says which it was.
fn for_each_seed(test: &str, seeds: u64, mut run: impl FnMut(u64) -> Result<(), String>) {
    let one = from_environment("REVOLVE_SEED");
    let seeds = from_environment("REVOLVE_SEEDS").unwrap_or(seeds);
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        let again = format!("{test}: replay with  REVOLVE_SEED={seed} cargo test --test oracle");
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(Ok(())) => {}
            Ok(Err(difference)) => panic!("{again}\n{difference}"),
            Err(panic) => {
                println!("{again}");
                resume_unwind(panic);
            }
        }
    }
}

#[test]
fn both_sides_agree() {
    let mut ends = BTreeMap::new();
    let mut exceptions: BTreeMap<&str, u64> = BTreeMap::new();
    for_each_seed("both_sides_agree", SEEDS, |seed| {
        let (end, exception) = compare(seed)?;
        let kind = match end {
            End::Lost => "stream ended".to_owned(),
            End::Closed { .. } => "closed by the peer".to_owned(),
            End::Failed(code) => format!("failed with {code}"),
        };
        *ends.entry(kind).or_insert(0u64) += 1;
        if let Some(name) = exception {
            *exceptions.entry(name).or_default() += 1;
        }
        Ok(())
    });
    println!("ends: {ends:?}\nexceptions: {exceptions:?}");
    if from_environment("REVOLVE_SEED").is_some() || from_environment("REVOLVE_SEEDS").is_some() {
        return;
    }
    // An oracle that is no longer asked anything hard agrees with everybody.
    for kind in [
        "stream ended",
        "closed by the peer",
        "failed with 1002",
        "failed with 1007",
        "failed with 1009",
    ] {
        assert!(ends.get(kind) >= Some(&(SEEDS / 50)), "too few seeds {kind}: {ends:?}");
    }
    for Exception { name, reason, .. } in EXCEPTIONS {
        assert!(exceptions.contains_key(name), "{name:?} is never needed; it says: {reason}");
    }
    let excused: u64 = exceptions.values().sum();
    assert!(excused < SEEDS / 5, "more excuses than comparisons: {exceptions:?}");
}

#[test]
fn tungstenites_client_reads_what_we_write() {
    for_each_seed("tungstenites_client_reads_what_we_write", 500, |seed| {
        let random = &mut Random::new(seed);
        let (mut written, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..random.below(12) {
            expected.push(write_something(&mut written, random));
        }
        let code = random.pick(&[1000, 1001, 1002, 1007, 1008, 1009, 1011, 4001]);
        let size = random.pick(&[0, 5, 123]);
        let reason = conversation::text(size, random);
        frame::encode_close(CloseCode::from(code), &reason, &mut written);

        let pieces = (written.len() / 100).max(1) + random.below(500);
        let mut client =
            WebSocket::from_raw_socket(Script::new(written.chunks(pieces)), Role::Client, None);
        let mut seen = Vec::new();
        let closed = loop {
            match client.read() {
                Ok(Message::Text(text)) => seen.push(Seen::Text(text.to_string())),
                Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
                Ok(Message::Ping(payload)) => seen.push(Seen::Ping(payload.to_vec())),
                Ok(Message::Pong(_)) => seen.push(Seen::Pong),
                Ok(Message::Close(frame)) => break frame.expect("it has a code"),
                Err(tungstenite::Error::Io(_)) => {}
                other => return Err(format!("{other:?} after {} messages", seen.len())),
            }
        };
        assert_eq!(seen, expected);
        assert_eq!((u16::from(closed.code), closed.reason.as_str()), (code, reason.as_str()));
        Ok(())
    });
}

fn write_something(written: &mut Vec<u8>, random: &mut Random) -> Seen {
    let size = random.pick(&[0, 1, 125, 126, 127, 300, 65_535, 65_536]);
    match random.below(5) {
        0 => {
            let payload = random.bytes(size.min(frame::MAX_SHORT));
            frame::encode(OpCode::Control(Control::Ping), &payload, written);
            Seen::Ping(payload)
        }
        1 => {
            frame::encode(OpCode::Control(Control::Pong), &random.bytes(size.min(125)), written);
            Seen::Pong
        }
        2 => {
            let payload = random.bytes(size);
            frame::encode(OpCode::Data(Data::Binary), &payload, written);
            Seen::Binary(payload)
        }
        3 => {
            let text = conversation::text(size, random);
            frame::encode(OpCode::Data(Data::Text), text.as_bytes(), written);
            Seen::Text(text)
        }
        // In parts behind one header, as the counter writes its reply.
        _ => {
            let text = conversation::text(size, random);
            frame::encode_header(OpCode::Data(Data::Text), text.len(), written);
            let middle = text.floor_char_boundary(text.len() / 2);
            written.extend_from_slice(&text.as_bytes()[..middle]);
            written.extend_from_slice(&text.as_bytes()[middle..]);
            Seen::Text(text)
        }
    }
}

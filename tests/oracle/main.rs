//! The oracle: the same client bytes, cut at random places, given to our endpoint and to
//! tungstenite's own server side, yield the same messages, the same answers and the same end,
//! wherever RFC 6455 leaves no choice. Where it leaves one, or tungstenite is laxer, the table in
//! `dispute.rs` says so, and nothing outside that table is let pass.
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

#[path = "comparison.rs"]
mod comparison;
#[cfg(feature = "deflate")]
mod deflated;

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use revolve::protocol::frame;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocket};

use comparison::conversation::{self, Conversation};
use comparison::dispute::{self, EXCEPTIONS, Exception};
use comparison::random::Random;
use comparison::verdict::{End, Script, Seen};

/// Seeds that `cargo test` draws; from 0 on, so that a failure is the same for everyone.
const SEEDS: u64 = 4000;

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
        let (end, exception) = dispute::compare(&Conversation::from_seed(seed))?;
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

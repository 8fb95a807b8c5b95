//! What is counted: each case prepares, and then does one thing a known number of times.
//!
//! Nothing here knows of callgrind; `main.rs` calls [`Case::work`] where it counts, and everything
//! else where it does not.

use std::fs;
use std::hint::black_box;
use std::io;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use revolve::application::{Application, Context, Message};
use revolve::config::{Config, SessionIds};
use revolve::connection::Connection;
use revolve::protocol::ProtocolLimits;
use revolve::protocol::frame::{self, FrameHead, Rsv1};
use revolve::protocol::handshake;
use revolve::protocol::head::{self, Part, Request};
use revolve::protocol::message::{Received, Receiver, Scratch};
use revolve::protocol::utf8;
use revolve::session::{Joining, SessionId, SessionTable};
use revolve::token::LocalId;
use revolve::transport::socket::Socket;
use revolve::{Counter, Echo};
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::Result;
use crate::turn::Turns;

/// A thing to be counted.
pub(crate) struct Case {
    /// For the table, `--only` and the baseline.
    pub(crate) name: String,
    /// How often the work does it.
    pub(crate) operations: u64,
    pub(crate) unit: &'static str,
    /// Makes ready; what it returns is the work.
    pub(crate) prepare: Box<dyn FnOnce() -> Work>,
}

type Work = Box<dyn FnMut()>;

/// The cases that are not counted but weighed, by [`weigh`].
pub(crate) const WEIGHED: [&str; 2] = ["connections/slot", "sessions/parked"];

/// All cases, in the order of the table.
pub(crate) fn all() -> Vec<Case> {
    let mut list = Vec::new();
    let mut add = |name: String, operations, unit, prepare: Box<dyn FnOnce() -> Work>| {
        list.push(Case { name, operations, unit, prepare });
    };
    for (what, prepare) in PER_SIZE {
        for (size, label) in SIZES {
            add(format!("{what}/{label}"), TIMES, "a frame", Box::new(move || prepare(size)));
        }
    }
    add("message/23B".into(), TIMES, "a frame", Box::new(|| message(23)));
    add("utf8/1KiB-of-umlauts".into(), TIMES, "a text", Box::new(|| utf8_of("ä", 1 << 10)));
    for (size, label) in SIZES {
        add(format!("utf8/{label}-of-語"), TIMES, "a text", Box::new(move || utf8_of("語", size)));
        add(
            format!("message/{label}-of-語"),
            TIMES,
            "a frame",
            Box::new(move || message_of("語", size)),
        );
    }
    add("head/parse".into(), TIMES, "a head", Box::new(|| parse_head(Until::Parsed)));
    add("head/parse-and-accept".into(), TIMES, "a head", Box::new(|| parse_head(Until::Accepted)));
    add("reply/count".into(), TURNS * TIMES, "a reply", Box::new(count_reply));
    for (connections, depth) in [(1, 1), (64, 1), (1000, 1), (64, 16), (64, 64)] {
        let messages = TURNS * connections as u64 * depth as u64;
        let prepare = move || turn(connections, depth);
        add(format!("turn/{connections}x{depth}"), messages, "a message", Box::new(prepare));
    }
    for (size, label) in [(16 << 10, "16KiB"), (64 << 10, "64KiB")] {
        add(format!("turn/echo-{label}"), TURNS * 16, "a message", Box::new(move || echo(size)));
    }
    add("sessions/lookup".into(), LOOKUPS, "a session", Box::new(look_up));
    add("sessions/insert".into(), LOOKUPS, "a session", Box::new(insert));
    add("sessions/expire".into(), SESSIONS as u64, "a session", Box::new(expire));
    for (name, many) in WEIGHED.into_iter().zip([1, SESSIONS as u64]) {
        add(name.into(), many, "bytes", Box::new(|| Box::new(|| ())));
    }
    list
}

/// A case that exists in every size.
type Sized = (&'static str, fn(usize) -> Work);

const PER_SIZE: [Sized; 5] = [
    ("message", message),
    ("header", header),
    ("unmask", unmask),
    ("utf8", |size| utf8_of("a", size)),
    ("encode", encode),
];
const SIZES: [(usize, &str); 3] = [(16, "16B"), (1 << 10, "1KiB"), (64 << 10, "64KiB")];
const TIMES: u64 = 100;
const TURNS: u64 = 20;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A final, masked frame, as a client sends it.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode_header(OpCode::Data(Data::Text), payload.len(), &mut bytes);
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    frame::unmask(&mut bytes[start..], MASK);
    bytes
}

fn message(size: usize) -> Work {
    message_of("a", size)
}

/// From the bytes of a frame to the text that an application sees.
fn message_of(pattern: &str, size: usize) -> Work {
    let text = pattern.repeat(size / pattern.len());
    let size = text.len();
    let mut input = client_frame(0x81, text.as_bytes()).repeat(TIMES as usize);
    let (mut receiver, mut scratch, now) =
        (Receiver::default(), Scratch::default(), Instant::now());
    Box::new(move || {
        let mut at = 0;
        for _ in 0..TIMES {
            let next = receiver.next(black_box(&mut input), &mut at, &mut scratch, 1 << 24, now);
            assert!(
                matches!(next, Ok(Some(Received::Message(message))) if message.as_bytes().len() == size)
            );
        }
    })
}

/// The general path: every header is one of a fragment, with its checks.
fn header(size: usize) -> Work {
    let input = client_frame(0x81, &vec![b'a'; size]);
    Box::new(move || {
        for _ in 0..TIMES {
            let head = frame::decode(black_box(&input), Rsv1::Forbidden);
            assert!(matches!(head, Ok(Some(FrameHead { length, .. })) if length == size as u64));
        }
    })
}

fn unmask(size: usize) -> Work {
    let mut payload = vec![b'a'; size];
    Box::new(move || {
        for _ in 0..TIMES {
            frame::unmask(black_box(&mut payload), black_box(MASK));
        }
    })
}

fn utf8_of(pattern: &str, size: usize) -> Work {
    let mut text = pattern.repeat(size / pattern.len()).into_bytes();
    // As a short message stands in its room (`frame::take_short`).
    text.resize(text.len().max(64), 0);
    Box::new(move || {
        for _ in 0..TIMES {
            assert!(utf8::text(black_box(&text)).is_ok());
        }
    })
}

fn encode(size: usize) -> Work {
    let payload = vec![b'a'; size];
    let mut out = Vec::with_capacity(2 * size + 64);
    Box::new(move || {
        for _ in 0..TIMES {
            out.clear();
            frame::encode(OpCode::Data(Data::Text), black_box(&payload), &mut out);
            black_box(&out);
        }
    })
}

/// What a browser sends.
const HEAD: &str = "GET /ws/chat/?session_id=Zm9vYmFyYmF6cXV4cXV1eA HTTP/1.1\r\n\
    Host: chat.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0\r\n\
    Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Sec-WebSocket-Version: 13\r\nOrigin: https://chat.example.org\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\nSec-Fetch-Site: same-origin\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\n\r\n";

/// How far a head is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Its end is looked for, and it is parsed.
    Parsed,
    /// It is judged as an upgrade, too.
    Accepted,
}

fn parse_head(until: Until) -> Work {
    let limits = ProtocolLimits::from(&Config::default());
    let mut received = HEAD.as_bytes().to_vec();
    Box::new(move || {
        for _ in 0..TIMES {
            let received = black_box(&mut received[..]);
            let end = head::find_end(received, 0, &mut Part::default(), &limits);
            assert_eq!(end, Ok(Some(received.len())));
            let mut slots = head::header_slots();
            let request = Request::parse(received, &mut slots, &limits);
            assert!(request.is_ok());
            if until == Until::Accepted {
                assert!(request.is_ok_and(|request| handshake::judge(&request).is_ok()));
            }
        }
    })
}

/// Says with one message what the counter says with a hundred.
struct Talkative;

impl Application for Talkative {
    type Session = ();
    type Connection = ();

    fn on_message(&mut self, cx: &mut Context<'_, Self>, _message: Message<'_>) {
        for _ in 0..TIMES {
            let count = cx.count_message();
            cx.send_text_parts([r#"{"count": "#.into(), count.into(), "}".into()]);
        }
    }
}

/// From counting a message to the frame in the cork. A hundredth of a turn is in it.
fn count_reply() -> Work {
    let mut turns = Turns::new(Talkative, 1, client_frame(0x81, b"sixteen bytes .."));
    turns.run(20);
    Box::new(move || {
        let before = turns.written();
        turns.run(TURNS as usize);
        assert!(turns.written() - before > (TURNS * TIMES) as usize * r#"..{"count": 1}"#.len());
    })
}

/// Whole turns: every connection has `depth` messages, and gets as many counts.
fn turn(connections: usize, depth: usize) -> Work {
    let batch = client_frame(0x81, b"sixteen bytes ..").repeat(depth);
    let mut turns = Turns::new(Counter::new(None), connections, batch);
    // Past the first digits of the count, and with every buffer warm.
    turns.run(200);
    Box::new(move || {
        let before = turns.written();
        turns.run(TURNS as usize);
        assert!(turns.written() > before);
    })
}

/// A frame that comes back: by the cork, or past it.
fn echo(size: usize) -> Work {
    let mut turns = Turns::new(Echo, 16, client_frame(0x82, &vec![7; size]));
    turns.run(2);
    let header = if size > usize::from(u16::MAX) { 10 } else { 4 };
    Box::new(move || {
        let before = turns.written();
        turns.run(TURNS as usize);
        assert_eq!(turns.written() - before, TURNS as usize * 16 * (size + header));
    })
}

/// The default of `--max-sessions`.
const SESSIONS: usize = 1_000_000;
const LOOKUPS: u64 = 10_000;
const TTL: Duration = Duration::from_secs(3600);

fn connection(number: u32) -> LocalId {
    let generation = NonZeroU32::MIN.saturating_add(number);
    LocalId::new(0, generation)
}

/// 22 characters, as the server issues them.
fn id(number: usize) -> SessionId {
    let mixed = (number as u128 + 1).wrapping_mul(0x2d99_787a_2d99_787a_9e37_79b9_7f4a_7c15);
    let text = data_encoding::BASE64URL_NOPAD.encode(&mixed.to_le_bytes());
    SessionId::parse(&text).expect("an id")
}

fn nobody() -> io::Result<SessionId> {
    Err(io::Error::other("no id has to be made up"))
}

/// A session is opened, counts a message and is left.
#[inline(always)]
fn park(table: &mut SessionTable<()>, id: &SessionId, now: Instant) {
    let who = connection(7);
    let attached =
        table.attach(Some(id), (who, Joining::TakesOver), now, nobody, drop).expect("a place");
    table.of_connection(attached.slot, who).expect("it is ours").count_message();
    table.detach(attached.slot, who, now, drop);
}

/// A table with so many parked sessions.
fn full_table(sessions: usize, now: Instant) -> SessionTable<()> {
    let mut table = SessionTable::new(2 * SESSIONS, TTL, SessionIds::Any, now);
    (0..sessions).for_each(|number| park(&mut table, &id(number), now));
    assert_eq!(table.detached(), sessions);
    table
}

/// A table that `scale` fills and empties.
pub(crate) struct Parked {
    table: SessionTable<()>,
    chosen: Vec<SessionId>,
    now: Instant,
}

impl Parked {
    /// None of so many sessions is there yet.
    pub(crate) fn new(most: usize, now: Instant) -> Self {
        let table = SessionTable::new(2 * most, TTL, SessionIds::Any, now);
        Parked { table, chosen: Vec::new(), now }
    }

    /// What follows is done with these.
    pub(crate) fn choose(&mut self, numbers: impl Iterator<Item = usize>) {
        self.chosen.clear();
        self.chosen.extend(numbers.map(id));
    }

    /// They are opened, count a message and are left.
    pub(crate) fn park(&mut self) -> bool {
        self.chosen.iter().for_each(|id| park(&mut self.table, id, self.now));
        true
    }

    /// They are resumed, and left again.
    pub(crate) fn resume(&mut self) -> bool {
        self.chosen.iter().for_each(|id| resume(&mut self.table, id, self.now));
        true
    }

    /// The time of all is over: `most` expire. Whether there are more.
    pub(crate) fn expire(&mut self, most: usize) -> bool {
        self.table.expire(self.now + TTL, most, drop);
        self.table.detached() > 0
    }
}

/// Bytes: of a connection's place in the slab, or of a million parked sessions by the kernel's
/// account.
pub(crate) fn weigh(name: &str) -> Result<u64> {
    if name == WEIGHED[0] {
        return Ok(size_of::<Connection<Socket>>() as u64);
    }
    let before = resident()?;
    let table = full_table(SESSIONS, Instant::now());
    let after = resident()?;
    drop(black_box(table));
    Ok(after - before)
}

/// What this process holds in memory, in bytes.
pub(crate) fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss")?;
    let kib = line.split_whitespace().next().ok_or("no Rss")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// A session is resumed, and left again.
#[inline(always)]
fn resume(table: &mut SessionTable<()>, id: &SessionId, now: Instant) {
    let attached = table
        .attach(Some(id), (connection(7), Joining::TakesOver), now, nobody, drop)
        .expect("a place");
    assert!(attached.resumed);
    table.detach(attached.slot, connection(7), now, drop);
}

/// Resumes, and leaves again: what a reconnect asks of the table.
fn look_up() -> Work {
    let now = Instant::now();
    let mut table = full_table(SESSIONS, now);
    let ids: Vec<SessionId> = (0..LOOKUPS as usize).map(|n| id(n * 97 % SESSIONS)).collect();
    Box::new(move || {
        for id in &ids {
            resume(&mut table, id, now);
        }
    })
}

/// New sessions in a full table, counted and parked.
fn insert() -> Work {
    // With a million, one of the index's stripes is about to grow in one run of twenty: its hash has another key each time.
    const MORE: usize = SESSIONS + SESSIONS / 5;
    let now = Instant::now();
    let mut table = full_table(MORE, now);
    let ids: Vec<SessionId> = (0..LOOKUPS as usize).map(|n| id(MORE + n)).collect();
    Box::new(move || {
        for id in &ids {
            park(&mut table, id, now);
        }
    })
}

/// All of them, at once.
fn expire() -> Work {
    let now = Instant::now();
    let mut table = full_table(SESSIONS, now);
    Box::new(move || {
        table.expire(now + TTL, usize::MAX, drop);
        assert_eq!(table.detached(), 0);
    })
}

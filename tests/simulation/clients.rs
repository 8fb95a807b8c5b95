//! The clients: what each sends, in which pieces, what it makes of the answers, and how it ends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::pieces::chance::Chance;
use super::pieces::client_bytes::{Heard, Hearing, frame, sum_request, upgrade, watch};
use super::pieces::recorder::LARGEST;
use super::pieces::streams::Wire;
use super::pieces::veil::Veil;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Sends its messages, waits for the replies, then ends as its `Ending` says.
    Talks,
    /// Talks, but never reads: the server must throttle it and then let go.
    NeverReads,
    /// Connects and says nothing.
    Silent,
    /// Sends random bytes.
    Garbage,
    /// Asks for pages, pipelined.
    Browses,
    /// Is told what the reactors do.
    Watches,
}

/// How a talking client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Quit,
    Close,
    /// FIN without a Close, perhaps in mid-frame.
    Leave,
    Reset,
    /// Stays until the server drains.
    Stay,
    /// Stays, but answers nothing from then on, not even pings.
    FallSilent,
    /// Makes the application panic.
    Panic,
    /// Makes a job panic.
    FailJob,
    /// Breaks a rule.
    Break,
}

#[derive(Debug)]
pub struct Client {
    pub address: SocketAddr,
    pub wire: Rc<RefCell<Wire>>,
    pub manner: Manner,
    pub ending: Ending,
    pub session: Option<String>,
    /// Bytes not yet on the wire.
    pending: Vec<u8>,
    hearing: Hearing,
    pub heard: Vec<Heard>,
    /// Counted messages sent, and all that get a reply.
    pub asked: usize,
    /// The sums that it has asked for in plain requests, in order.
    sums: Vec<u64>,
    /// Jobs that it had off-loaded.
    pub jobs: usize,
    /// Messages that it has sent to itself by way of its name.
    pub to_itself: usize,
    /// The same of those that are answered in no order.
    pub loose: usize,
    /// Whether it asks for more than it may take: then it may be closed for that.
    is_greedy: bool,
    ended: bool,
    /// What is between it and the wire, if it is encrypted.
    veil: Option<Veil>,
    /// It has said close_notify, or will not.
    has_said_goodbye: bool,
}

/// RSV1: the message is deflated.
const RSV1: u8 = 0x40;

/// A message as a client sends it deflated.
#[cfg(feature = "deflate")]
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut stream = flate2::Compress::new(flate2::Compression::fast(), false);
    let mut out = Vec::with_capacity(message.len() + 100);
    stream.compress_vec(message, &mut out, flate2::FlushCompress::Sync).expect("there is room");
    out.truncate(out.len() - 4);
    out
}

#[cfg(not(feature = "deflate"))]
fn deflated(_message: &[u8]) -> Vec<u8> {
    unreachable!("no server has agreed to it")
}

/// The request of a client that offers to deflate.
fn offering(upgrade: &[u8]) -> Vec<u8> {
    let head = upgrade.strip_suffix(b"\r\n").expect("a head ends with an empty line");
    [head, b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"].concat()
}

/// A message of some size, whole or in fragments, with a ping in between now and then.
fn message(deflates: bool, chance: &mut Chance) -> Vec<u8> {
    let length = chance.pick(&[0, 1, 5, 16, 16, 125, 126, 700]);
    let mut payload = vec![b'm'; length];
    let mut rsv1 = 0;
    if deflates && chance.percent(60) {
        payload = deflated(&payload.repeat(chance.pick(&[1, 1, 5])));
        rsv1 = RSV1;
    }
    let length = payload.len();
    if chance.percent(20) && length > 1 {
        let cut = chance.within(0, length);
        let mut bytes = frame(0x01 | rsv1, &payload[..cut], chance);
        if chance.percent(50) {
            bytes.extend(frame(0x89, b"are you there", chance));
        }
        bytes.extend(frame(0x80, &payload[cut..], chance));
        bytes
    } else {
        let first = chance.pick(&[0x81, 0x82]);
        frame(first | rsv1, &payload, chance)
    }
}

/// A frame of figures, as far as this world is interested in it: number of the look, and reactors
/// whose slab is shown.
fn figures(text: &str) -> Option<(u64, usize)> {
    let (look, rest) = text.strip_prefix("{\"looks\":")?.split_once(',')?;
    let is_whole = rest.ends_with(r#""store":null}"#) || rest.ends_with("}}");
    assert!(is_whole, "a frame is whole: {text}");
    Some((look.parse().ok()?, rest.matches("\"runs\":[").count()))
}

impl Client {
    pub fn new(
        number: u16,
        manner: Manner,
        session: Option<String>,
        chance: &mut Chance,
    ) -> Client {
        let wire = Wire::new(chance.pick(&[64, 300, 2000, 20_000]), chance.within(0, 2));
        let ending = chance.pick(&[
            Ending::Quit,
            Ending::Close,
            Ending::Leave,
            Ending::Reset,
            Ending::Stay,
            Ending::Stay,
            Ending::FallSilent,
            Ending::Panic,
            Ending::FailJob,
            Ending::Break,
        ]);
        let mut client = Client {
            address: SocketAddr::from(([127, 0, 0, 1], number)),
            wire: Rc::new(RefCell::new(wire)),
            manner,
            ending,
            session,
            pending: Vec::new(),
            hearing: Hearing::default(),
            heard: Vec::new(),
            asked: 0,
            sums: Vec::new(),
            jobs: 0,
            to_itself: 0,
            loose: 0,
            is_greedy: chance.percent(15),
            ended: false,
            veil: None,
            has_said_goodbye: true,
        };
        client.plan(number, chance);
        client
    }

    /// It is encrypted; or comes in where that is expected, and is not.
    pub fn encrypt(&mut self, chance: &mut Chance) {
        self.wire.borrow_mut().is_encrypted = true;
        let is_plain =
            self.manner == Manner::Garbage || self.manner == Manner::Browses && chance.percent(30);
        if !is_plain {
            self.veil = Veil::new(chance.percent(30), chance.percent(50));
            self.has_said_goodbye = chance.percent(30);
        }
    }

    /// Whether it has said all, and all of it has been sent.
    fn has_said_all(&self) -> bool {
        self.pending.is_empty() && self.veil.as_ref().is_none_or(|veil| veil.unsent() == 0)
    }

    /// Puts together all that it will say of its own accord.
    fn plan(&mut self, number: u16, chance: &mut Chance) {
        match self.manner {
            Manner::Silent => {}
            Manner::Garbage => {
                let length = chance.within(1, 3000);
                self.pending = (0..length).map(|_| chance.next() as u8).collect();
            }
            Manner::Browses => {
                for _ in 0..chance.within(1, 6) {
                    let path = chance.pick(&["/healthz", "/readyz", "/nowhere", "/ws/chat/"]);
                    let line = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    self.pending.extend_from_slice(line.as_bytes());
                }
                // What comes behind it is not read any more.
                let last = chance.pick(&[
                    "POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 61\r\n\r\nx",
                    "POST /sum HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n",
                    "POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\nunfinished",
                ]);
                self.pending.extend_from_slice(last.as_bytes());
            }
            Manner::Watches => {
                self.pending.extend(watch());
                match self.ending {
                    // Whoever watches has nothing to say.
                    Ending::Quit => self.pending.extend(frame(0x81, b"quit", chance)),
                    Ending::Close => {
                        self.pending.extend(frame(0x88, &1000u16.to_be_bytes(), chance));
                    }
                    Ending::Break => self.pending.extend(frame(0xc1, b"x", chance)),
                    _ => self.pending.extend(frame(0x89, b"still there", chance)),
                }
            }
            Manner::Talks | Manner::NeverReads => {
                if chance.percent(10) {
                    self.pending.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
                }
                while chance.percent(15) {
                    let (request, sum) = sum_request(chance);
                    self.pending.extend(request);
                    self.sums.push(sum);
                }
                if chance.percent(5) {
                    self.pending.extend_from_slice(b"POST /all HTTP/1.1\r\nHost: a\r\n\r\n");
                }
                let query = match &self.session {
                    Some(session) => format!("?session_id={session}"),
                    None => chance.pick(&["", "?session_id=", "?hello=1"]).to_owned(),
                };
                let later = chance.pick(&[
                    "yes",
                    "yes",
                    "yes",
                    "no",
                    "fails",
                    "panics",
                    "again",
                    "asks",
                    "asks",
                    "asks fails",
                ]);
                let entry = match chance.within(0, 99) {
                    0..=3 => "&entry=refused".to_owned(),
                    4..=23 => format!("&later={}", later.replace(' ', "%20")),
                    _ => String::new(),
                };
                let share =
                    if self.session.is_some() && chance.percent(30) { "&share=1" } else { "" };
                let mark = if !entry.is_empty() && query.is_empty() { "?" } else { "" };
                let deflates = cfg!(feature = "deflate") && chance.percent(50);
                let request = upgrade(&format!("{query}{mark}{entry}{share}"));
                self.pending.extend(if deflates { offering(&request) } else { request });
                let most = if self.manner == Manner::NeverReads { 300 } else { 12 };
                for _ in 0..chance.within(0, most) {
                    if chance.percent(8) {
                        self.pending.extend(frame(0x81, b"all", chance));
                    } else if chance.percent(15) {
                        self.jobs += 1;
                        let how: &[u8] = if chance.percent(40) { b"task" } else { b"job" };
                        self.pending.extend(frame(0x81, how, chance));
                    } else if chance.percent(5) {
                        self.pending.extend(frame(0x81, b"cancel", chance));
                    } else if chance.percent(3) {
                        self.pending.extend(frame(0x81, b"forget", chance));
                    } else if chance.percent(5) {
                        self.to_itself += 1;
                        self.pending.extend(frame(0x81, b"myself", chance));
                    } else if chance.percent(12) {
                        let to = chance.within(0, 5);
                        let text = match chance.within(0, 19) {
                            0 => format!("kick s{to}"),
                            1..=9 => format!("tell s{to}"),
                            // By the name of the connection, and this one may not have come yet.
                            _ => format!("tell {}", chance.within(1, usize::from(number) + 3)),
                        };
                        self.pending.extend(frame(0x81, text.as_bytes(), chance));
                    } else if chance.percent(6) {
                        let text = format!("pass {}", chance.pick(&[1, 1, 2, 9]));
                        self.pending.extend(frame(0x81, text.as_bytes(), chance));
                    } else if chance.percent(8) {
                        self.loose += 1;
                        self.pending.extend(frame(0x81, b"loose job", chance));
                    } else if chance.percent(15) {
                        let (key, after) = (chance.within(0, 3), chance.pick(&[0, 1, 400, 7000]));
                        let text = format!("timer {key} {after}");
                        self.pending.extend(frame(0x81, text.as_bytes(), chance));
                    } else if chance.percent(if self.is_greedy { 30 } else { 0 }) {
                        let how = chance.pick(&["burst", "burst", "chain"]);
                        let count = chance.pick(&[1, 1, 1, 2, 20, 100]);
                        let bytes = chance.pick(&[20, 700, 5000, LARGEST]);
                        let text = format!("{how} {count} {bytes}");
                        self.pending.extend(frame(0x81, text.as_bytes(), chance));
                    } else {
                        self.asked += 1;
                        let bytes = message(deflates, chance);
                        self.pending.extend(bytes);
                    }
                }
                match self.ending {
                    Ending::Quit => self.pending.extend(frame(0x81, b"quit", chance)),
                    Ending::Close => {
                        self.pending.extend(frame(0x88, &1000u16.to_be_bytes(), chance));
                    }
                    Ending::Panic => self.pending.extend(frame(0x81, b"panic", chance)),
                    Ending::FailJob => {
                        self.pending.extend(frame(0x81, b"failing job", chance));
                    }
                    Ending::Break if deflates && chance.percent(50) => {
                        // Larger than the limit, once it is inflated; or never whole.
                        let bomb = deflated(&[b'm'; 5000]);
                        let bytes = chance.pick(&[&bomb[..], &bomb[..10]]);
                        self.pending.extend(frame(0x82 | RSV1, bytes, chance));
                    }
                    Ending::Break => {
                        let broken = chance.pick(&[0xc1, 0x83, 0x80]);
                        self.pending.extend(frame(broken, b"x", chance));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether it has something to do that needs no answer first.
    pub fn is_busy(&self) -> bool {
        let wire = self.wire.borrow();
        !self.ended
            && !wire.reset
            && (!self.has_said_all()
                || (self.reads() && !wire.down.is_empty())
                || (self.wants_to_end() && !wire.fin)
                || (wire.server_fin && wire.down.is_empty())
                || wire.closed)
    }

    fn reads(&self) -> bool {
        let is_shaking_hands = self.veil.as_ref().is_some_and(Veil::is_shaking_hands);
        (self.manner != Manner::NeverReads || is_shaking_hands) && !self.is_mute()
    }

    fn is_mute(&self) -> bool {
        self.ending == Ending::FallSilent && self.has_said_all() && self.replies() >= self.asked
    }

    fn replies(&self) -> usize {
        let is_count =
            |heard: &&Heard| matches!(heard, Heard::Text(text) if text.parse::<u64>().is_ok());
        self.heard.iter().filter(is_count).count()
    }

    fn wants_to_end(&self) -> bool {
        self.has_said_all()
            && match self.ending {
                // In good order: every reply first. Some leave at once.
                Ending::Leave => self.replies() >= self.asked || self.asked.is_multiple_of(2),
                Ending::Reset => self.replies() >= self.asked / 2,
                _ => {
                    self.manner == Manner::Browses && self.asked == 0 && self.ending == Ending::Stay
                }
            }
            && self.manner != Manner::NeverReads
            && self.manner != Manner::Silent
    }

    /// Does one thing.
    pub fn act(&mut self, chance: &mut Chance) {
        let wire = self.wire.clone();
        let mut wire = wire.borrow_mut();
        if wire.reset || (wire.closed && (wire.down.is_empty() || !self.reads())) {
            self.ended = true;
            return;
        }
        if !self.has_said_all() && !wire.fin && !wire.closed && chance.percent(60) {
            let most = chance.pick(&[1, 3, 40, 400, 4000]);
            let mut piece: Vec<u8> = self.pending.drain(..most.min(self.pending.len())).collect();
            if let Some(veil) = &mut self.veil {
                if !piece.is_empty() {
                    veil.say(&piece);
                }
                piece = veil.take(chance.pick(&[1, 30, 400, 4000]));
            }
            // Urgent data is taken out of the stream, which leaves no hole there.
            if chance.percent(3) {
                wire.send_urgent();
            }
            wire.send(&piece);
            return;
        }
        if !wire.down.is_empty() && self.reads() {
            let most = chance.pick(&[1, 7, 100, 10_000]);
            let bytes = wire.receive(most);
            let has_ended = wire.fin;
            drop(wire);
            match &mut self.veil {
                Some(veil) => {
                    self.hearing.feed(&veil.hear(&bytes));
                    if has_ended {
                        drop(veil.take(usize::MAX));
                    }
                }
                // To garbage the answer is an alert, perhaps.
                None if self.manner == Manner::Garbage => {}
                None => self.hearing.feed(&bytes),
            }
            self.understand(chance);
            return;
        }
        self.check_goodbye(&wire);
        if (wire.server_fin && wire.down.is_empty()) || self.wants_to_end() {
            if self.ending == Ending::Reset {
                wire.reset();
                self.ended = true;
            } else if let Some(veil) = self.veil.as_mut().filter(|_| !self.has_said_goodbye) {
                self.has_said_goodbye = true;
                veil.say_goodbye();
            } else if !wire.fin {
                self.pending.clear();
                if let Some(veil) = &mut self.veil {
                    drop(veil.take(usize::MAX));
                }
                wire.end();
                // Having said all, it still reads until the server has ended its half too.
                self.ended = wire.server_fin;
            } else {
                self.ended = wire.server_fin;
            }
        }
    }

    /// Where the server has ended its half, and nothing of what it said is lost, close_notify stands before the end.
    fn check_goodbye(&self, wire: &Wire) {
        if let Some(veil) = &self.veil
            && wire.server_fin
            && !wire.closed
            && wire.down.is_empty()
            && self.reads()
        {
            let is_told = veil.has_heard_goodbye() || self.heard.is_empty();
            assert!(is_told, "{}: its end may be another's", self.address);
        }
    }

    fn understand(&mut self, chance: &mut Chance) {
        while let Some(heard) = self.hearing.next_heard() {
            match &heard {
                Heard::Ping if !self.is_mute() => {
                    let pong = frame(0x8a, b"", chance);
                    self.say(&pong);
                }
                Heard::Close(code) => {
                    let code = code.to_be_bytes();
                    let echo = frame(0x88, &code, chance);
                    self.say(&echo);
                }
                _ => {}
            }
            self.heard.push(heard);
        }
    }

    /// Says something in between, if it is between two frames of its own.
    fn say(&mut self, bytes: &[u8]) {
        if self.pending.is_empty() && !self.wire.borrow().fin {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// The counts it was told, in order.
    pub fn counts(&self) -> Vec<u64> {
        self.heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Text(text) => text.parse().ok(),
                _ => None,
            })
            .collect()
    }

    /// Whether the sums that it was told are those that it asked for: all of them, or the first.
    pub fn was_told_its_sums(&self) -> bool {
        let told = self.heard.iter().filter_map(|heard| match heard {
            Heard::Response(201, sum) => Some(*sum),
            _ => None,
        });
        let told: Vec<Option<u64>> = told.collect();
        let asked: Vec<Option<u64>> = self.sums.iter().copied().map(Some).collect();
        asked.starts_with(&told) && (told.len() == asked.len() || !self.is_open())
    }

    /// What follows this word in the texts it got, in order.
    pub fn told(&self, word: &str) -> Vec<String> {
        let behind = |heard: &Heard| match heard {
            Heard::Text(text) => text.strip_prefix(word).map(str::to_owned),
            _ => None,
        };
        self.heard.iter().filter_map(behind).collect()
    }

    /// What each other client has sent to it: the sender, and how many it had sent before to anybody.
    pub fn directs(&self) -> Vec<(u16, u64)> {
        let parts = self.told("direct ").into_iter();
        let parts = parts.filter_map(|text| {
            let (from, number) = text.split_once(' ')?;
            Some((from.parse().ok()?, number.parse().ok()?))
        });
        parts.collect()
    }

    /// The broadcasts it got from one reactor, in order.
    pub fn broadcasts_of(&self, reactor: usize) -> Vec<u64> {
        let prefix = format!("all {reactor} ");
        self.heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Text(text) => text.strip_prefix(&prefix)?.parse().ok(),
                _ => None,
            })
            .collect()
    }

    /// The frames of figures it was told: number of the look, and reactors whose slab is shown.
    pub fn figures(&self) -> impl Iterator<Item = (u64, usize)> {
        self.heard.iter().filter_map(|heard| match heard {
            Heard::Text(text) => figures(text),
            _ => None,
        })
    }

    /// Whether it is still there, listening, with nothing left to say.
    pub fn is_attentive(&self) -> bool {
        let wire = self.wire.borrow();
        self.manner == Manner::Talks
            && self.ending == Ending::Stay
            && self.has_said_all()
            && !wire.fin
            && !wire.reset
            && !wire.closed
    }

    /// Whether it may have stopped reading, so that it is not read either.
    pub fn may_be_throttled(&self) -> bool {
        self.manner == Manner::NeverReads || self.ending == Ending::FallSilent
    }

    /// Whether it neither left on its own nor stopped listening: then it is owed a Close.
    pub fn is_owed_a_close(&self) -> bool {
        let by_itself = [Ending::Leave, Ending::Reset, Ending::FallSilent];
        let listens = matches!(self.manner, Manner::Talks | Manner::Watches);
        listens && self.hearing.is_open && !by_itself.contains(&self.ending)
    }

    /// Whether it was taken in: it asked properly, so only a full house may refuse it.
    pub fn is_welcome(&self) -> bool {
        self.heard.iter().all(|heard| !matches!(heard, Heard::Response(400, _)))
    }

    pub fn is_open(&self) -> bool {
        self.hearing.is_open
    }

    pub fn was_refused(&self) -> bool {
        self.heard
            .iter()
            .any(|heard| matches!(heard, Heard::Response(403 | 408 | 409 | 429 | 500 | 503, _)))
    }

    pub fn has_closed(&self) -> bool {
        self.heard.iter().any(|heard| matches!(heard, Heard::Close(_)))
    }
}

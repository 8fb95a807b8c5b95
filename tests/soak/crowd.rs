//! All clients, on one poll: their sockets, their moods, and what they make of what they hear.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::person::{Person, Whim};
use super::simulation::client_bytes::{Heard, Hearing, frame, upgrade};

/// Time after which an answer is not late but missing: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(90);

/// Time without a look at the sockets after which a lost pong is our own fault.
const LATE: Duration = Duration::from_secs(super::PING_TIMEOUT / 5);

/// Acts between two looks at the sockets, so that nobody's pong waits for everybody's whims.
const ACTS_MOST: usize = 100;

/// What a connection is to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Current,
    /// A newer one has been made beside it.
    Former,
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    None,
    /// `quit` was said.
    Quit,
    /// Close was said, or heard.
    Close,
}

struct Line {
    stream: TcpStream,
    hearing: Hearing,
    out: Vec<u8>,
    person: usize,
    role: Role,
    /// The last count heard here.
    last: u64,
    /// Messages said here that have no reply yet.
    said: u64,
    is_open: bool,
    farewell: Farewell,
    stalls_until: Option<Instant>,
    has_stalled: bool,
    /// When it last heard something, or had nothing to wait for.
    content: Instant,
}

pub(crate) struct Crowd {
    server: SocketAddr,
    poll: Poll,
    people: Vec<Person>,
    /// The current connection of each.
    current: Vec<Option<usize>>,
    lines: Slab<Line>,
    /// When each acts next, while it mills.
    next_acts: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When the sockets were last looked at.
    looked: Instant,
    done: HashMap<&'static str, u64>,
}

impl Crowd {
    pub(crate) fn new(server: SocketAddr, clients: usize, seed: u64) -> Crowd {
        let people = (0..clients).map(|number| Person::new(number, seed)).collect();
        Crowd {
            server,
            poll: Poll::new().expect("a poll"),
            people,
            current: vec![None; clients],
            lines: Slab::new(),
            next_acts: BinaryHeap::new(),
            looked: Instant::now(),
            done: HashMap::new(),
        }
    }

    /// Everyone follows its whims for so long.
    pub(crate) fn mill(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.next_acts.clear();
        self.looked = Instant::now();
        for number in 0..self.people.len() {
            let at = Instant::now() + self.people[number].pause();
            self.next_acts.push(Reverse((at, number)));
        }
        while Instant::now() < end {
            let next = self.next_acts.peek().map_or(end, |Reverse((at, _))| *at);
            self.turn(next.saturating_duration_since(Instant::now()).min(Duration::from_secs(1)));
            let now = Instant::now();
            for _ in 0..ACTS_MOST {
                let Some(&Reverse((at, number))) = self.next_acts.peek() else { break };
                if at > now {
                    break;
                }
                self.next_acts.pop();
                self.act(number);
                let at = Instant::now() + self.people[number].pause();
                self.next_acts.push(Reverse((at, number)));
            }
        }
    }

    /// All leave.
    pub(crate) fn dismiss(&mut self) {
        let open: Vec<usize> = self.lines.iter().map(|(key, _)| key).collect();
        for key in open {
            self.drop_line(key);
        }
    }

    /// The server is there from now on. Nobody is connected.
    pub(crate) fn move_to(&mut self, server: SocketAddr) {
        assert!(self.lines.is_empty());
        self.server = server;
    }

    /// Each comes once more, hears its count, and leaves in good order: a hundred at a time.
    pub(crate) fn audit(&mut self) {
        let numbers: Vec<usize> = (0..self.people.len()).collect();
        self.looked = Instant::now();
        for numbers in numbers.chunks(100) {
            for &number in numbers {
                self.connect(number, 0);
            }
            let begun = Instant::now();
            while !self.lines.is_empty() {
                self.turn(Duration::from_millis(100));
                let opened: Vec<usize> = self
                    .lines
                    .iter()
                    .filter(|(_, line)| line.is_open && line.farewell == Farewell::None)
                    .map(|(key, _)| key)
                    .collect();
                for key in opened {
                    self.close(key);
                }
                assert!(begun.elapsed() < PATIENCE, "the audit does not end");
            }
        }
    }

    /// What has been done so far.
    pub(crate) fn tally(&self) -> String {
        let mut done: Vec<_> = self.done.iter().collect();
        done.sort();
        let texts = done.iter().map(|(what, count)| format!("{count} {what}"));
        texts.collect::<Vec<_>>().join(", ")
    }

    /// A soak in which something never happens proves little; how many such things there are.
    pub(crate) fn check_rich(&self) -> usize {
        let all = ["counts", "opens", "resumes", "vanished", "resets", "stalls", "takeovers"];
        let rest = ["quits", "closes", "displaced", "cut in mid-frame", "gave up"];
        let missing: Vec<_> = all
            .into_iter()
            .chain(rest)
            .filter(|what| self.done.get(what).copied().unwrap_or(0) == 0)
            .collect();
        if !missing.is_empty() {
            println!("FAILED  it never came to: {}", missing.join(", "));
        }
        missing.len()
    }

    /// The sum of all counts.
    pub(crate) fn counted(&self) -> u64 {
        self.people.iter().map(|person| person.acked).sum()
    }

    /// Sessions that the server has to keep.
    pub(crate) fn sessions(&self) -> u64 {
        self.people.iter().filter(|person| person.acked > 0).count() as u64
    }

    pub(crate) fn quits(&self) -> u64 {
        self.done.get("quits").copied().unwrap_or(0)
    }

    fn count(&mut self, what: &'static str, how_many: u64) {
        *self.done.entry(what).or_default() += how_many;
    }

    // ---- whims ----

    fn act(&mut self, number: usize) {
        let Some(key) = self.current[number] else {
            let first_words = self.people[number].chance.within(0, 6).saturating_sub(3) as u64;
            return self.connect(number, first_words);
        };
        let line = &mut self.lines[key];
        let now = Instant::now();
        if let Some(until) = line.stalls_until {
            if now < until {
                return;
            }
            line.stalls_until = None;
            line.content = now;
            return self.read(key);
        }
        if now > line.content + PATIENCE {
            let (said, open) = (line.said, line.is_open);
            self.people[number].fail(&format!("no answer to {said} messages (open: {open})"));
        }
        if !line.is_open {
            // Some lose patience before the answer comes.
            match self.people[number].chance.within(0, 9) {
                0 => self.leave(key, "gave up", false),
                1 => self.leave(key, "gave up", true),
                _ => {}
            }
            return;
        }
        if line.farewell != Farewell::None {
            return;
        }
        match self.people[number].whim() {
            Whim::Idle => {}
            Whim::Count(messages) => self.say(key, messages),
            Whim::Vanish => {
                if self.people[number].chance.percent(50) {
                    self.say_half(key);
                }
                self.leave(key, "vanished", false);
            }
            Whim::Reset => self.leave(key, "resets", true),
            Whim::Stall(time) => {
                self.people[number].note(format!("stalls for {time:?}"));
                let line = &mut self.lines[key];
                line.stalls_until = Some(now + time);
                line.has_stalled = true;
                self.count("stalls", 1);
                self.say(key, 5);
            }
            Whim::TakeOver => {
                self.count("takeovers", 1);
                self.lines[key].role = Role::Former;
                self.people[number].unsure += self.lines[key].said;
                self.connect(number, 0);
            }
            Whim::Quit => {
                self.count("quits", 1);
                self.lines[key].farewell = Farewell::Quit;
                let words = frame(0x81, b"quit", &mut self.people[number].chance);
                self.write(key, &words);
            }
            Whim::Close => {
                self.count("closes", 1);
                self.close(key);
            }
        }
    }

    fn connect(&mut self, number: usize, first_words: u64) {
        let person = &mut self.people[number];
        let hello = if person.chance.percent(50) { "&hello=1" } else { "" };
        let (query, first_words) = match &person.session {
            Some(session) => (format!("?session_id={session}{hello}"), first_words),
            // What would be counted under a name that it never learns is nobody's.
            None => (format!("?x=1{hello}"), 0),
        };
        person.note(format!("connects with {first_words} messages"));
        let mut stream = TcpStream::connect(self.server).expect("a socket");
        let entry = self.lines.vacant_entry();
        let key = entry.key();
        self.poll
            .registry()
            .register(&mut stream, Token(key), Interest::READABLE | Interest::WRITABLE)
            .expect("room in the poll");
        let mut out = upgrade(&query);
        for _ in 0..first_words {
            out.extend(frame(0x81, b"first", &mut person.chance));
        }
        entry.insert(Line {
            stream,
            hearing: Hearing::default(),
            out,
            person: number,
            role: Role::Current,
            last: 0,
            said: first_words,
            is_open: false,
            farewell: Farewell::None,
            stalls_until: None,
            has_stalled: false,
            content: Instant::now(),
        });
        self.current[number] = Some(key);
    }

    fn say(&mut self, key: usize, messages: u64) {
        let line = &mut self.lines[key];
        let person = &mut self.people[line.person];
        person.note(format!("says {messages}, after {} without a reply", line.said));
        if line.said == 0 {
            line.content = Instant::now();
        }
        line.said += messages;
        let chance = &mut person.chance;
        let mut words = Vec::new();
        for _ in 0..messages {
            let length = chance.pick(&[0, 1, 20, 125, 126, 300]);
            let text = &[b'm'; 300][..length];
            if chance.percent(10) {
                words.extend(frame(0x01, text, chance));
                words.extend(frame(0x89, b"there?", chance));
                words.extend(frame(0x80, text, chance));
            } else {
                words.extend(frame(0x82, text, chance));
            }
        }
        self.write(key, &words);
    }

    /// The beginning of a message that will not be finished.
    fn say_half(&mut self, key: usize) {
        self.count("cut in mid-frame", 1);
        let chance = &mut self.people[self.lines[key].person].chance;
        let words = frame(0x82, &[b'h'; 200], chance);
        let part = chance.within(1, words.len() - 1);
        self.write(key, &words[..part]);
    }

    fn close(&mut self, key: usize) {
        let number = self.lines[key].person;
        self.people[number].note("says Close".to_owned());
        self.lines[key].farewell = Farewell::Close;
        let words = frame(0x88, &1000u16.to_be_bytes(), &mut self.people[number].chance);
        self.write(key, &words);
    }

    fn leave(&mut self, key: usize, how: &'static str, by_reset: bool) {
        self.count(how, 1);
        let line = &self.lines[key];
        self.people[line.person].note(format!("{how} with {} without a reply", line.said));
        if by_reset {
            let _ = socket2::SockRef::from(&line.stream).set_linger(Some(Duration::ZERO));
        }
        self.drop_line(key);
    }

    /// Lets go of a connection, with whatever is under way on it.
    fn drop_line(&mut self, key: usize) {
        let mut line = self.lines.remove(key);
        let _ = self.poll.registry().deregister(&mut line.stream);
        if line.role == Role::Current {
            self.people[line.person].unsure += line.said;
            self.current[line.person] = None;
        }
    }

    // ---- sockets ----

    fn turn(&mut self, timeout: Duration) {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => outcome.expect("the poll works"),
        }
        let late = self.looked.elapsed().saturating_sub(timeout);
        self.looked = Instant::now();
        if late > LATE {
            // This machine had other things to do: whoever should have sent a pong did not.
            self.count("late looks", 1);
            self.lines.iter_mut().for_each(|(_, line)| line.has_stalled = true);
        }
        for event in &events {
            let key = event.token().0;
            if event.is_writable() && self.lines.contains(key) {
                self.write(key, b"");
            }
            if self.lines.contains(key) {
                self.read(key);
            }
        }
    }

    fn write(&mut self, key: usize, words: &[u8]) {
        let line = &mut self.lines[key];
        line.out.extend_from_slice(words);
        while !line.out.is_empty() {
            match line.stream.write(&line.out) {
                Ok(count) => _ = line.out.drain(..count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // `NotConnected`: not yet. Anything worse is heard by whoever reads.
                Err(_) => return,
            }
        }
    }

    fn read(&mut self, key: usize) {
        let mut buffer = [0; 16 << 10];
        loop {
            let line = &mut self.lines[key];
            if line.stalls_until.is_some() {
                return;
            }
            match line.stream.read(&mut buffer) {
                Ok(0) => return self.lost(key, "the stream ended"),
                Ok(count) => {
                    line.content = Instant::now();
                    line.hearing.feed(&buffer[..count]);
                    while let Some(heard) = self.lines[key].hearing.next_heard() {
                        self.hear(key, heard);
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => return,
                    _ => return self.lost(key, &error.to_string()),
                },
            }
        }
    }

    /// The server let go of a connection.
    fn lost(&mut self, key: usize, how: &str) {
        let line = &self.lines[key];
        let person = &mut self.people[line.person];
        person.note(format!("{:?}, {:?}: {how}", line.role, line.farewell));
        if line.role == Role::Current && line.farewell != Farewell::Close {
            person.fail(&format!("the connection ended without a Close: {how}"));
        }
        self.drop_line(key);
    }

    fn hear(&mut self, key: usize, heard: Heard) {
        match heard {
            Heard::Response(101, Some(count)) => self.opened(key, count),
            Heard::Response(status, _) => {
                let line = &self.lines[key];
                let person = &self.people[line.person];
                person.fail(&format!("{:?}: refused with {status}", line.role));
            }
            Heard::Ping => {
                let chance = &mut self.people[self.lines[key].person].chance;
                let pong = frame(0x8a, b"", chance);
                self.write(key, &pong);
            }
            Heard::Close(code) => self.closed(key, code),
            Heard::Text(text) => self.told(key, &text),
        }
    }

    fn opened(&mut self, key: usize, count: u64) {
        let line = &mut self.lines[key];
        line.is_open = true;
        line.last = count;
        let session = line.hearing.session.clone().expect("the head names it");
        let person = &mut self.people[line.person];
        if person.session.as_ref().is_some_and(|known| *known != session) {
            person.fail(&format!("given another session: {session}"));
        }
        person.session = Some(session);
        // One that was displaced before it opened learns a count that is already history.
        if line.role == Role::Current {
            person.opened(count);
        }
        self.count("opens", 1);
        self.count("resumes", u64::from(count > 0));
    }

    fn closed(&mut self, key: usize, code: u16) {
        let line = &mut self.lines[key];
        let person = &mut self.people[line.person];
        person.note(format!("{:?}: told {code}", line.role));
        let is_expected = match (code, line.role, line.farewell) {
            (4001, Role::Former, _) => true,
            (1000, _, Farewell::Quit | Farewell::Close) => {
                if line.said > 0 {
                    person.fail(&format!("{} messages before the end had no reply", line.said));
                }
                true
            }
            // It answered no ping while it stalled.
            (1011, ..) => line.has_stalled,
            _ => false,
        };
        if !is_expected {
            person.fail(&format!("closed with {code} as {:?}, {:?}", line.role, line.farewell));
        }
        let answers = line.farewell != Farewell::Close;
        line.farewell = Farewell::Close;
        let echo = frame(0x88, &code.to_be_bytes(), &mut person.chance);
        if code == 4001 {
            self.count("displaced", 1);
        }
        if answers {
            self.write(key, &echo);
        }
    }

    fn told(&mut self, key: usize, text: &str) {
        let line = &mut self.lines[key];
        let person = &mut self.people[line.person];
        let number = |prefix: &str| -> Option<u64> {
            text.strip_prefix(prefix)?.strip_suffix('}')?.parse().ok()
        };
        if let Some(count) = number(r#"{"count": "#) {
            if count != line.last + 1 || line.said == 0 {
                person.fail(&format!("told {count} after {}, {} said", line.last, line.said));
            }
            (line.last, line.said) = (count, line.said - 1);
            match line.role {
                Role::Current => person.acked = count,
                // Its successor is told how far it went, or has been told already.
                Role::Former if person.unsure > 0 && count > person.acked => {
                    person.acked = count;
                    person.unsure -= 1;
                }
                Role::Former => {
                    if count > person.acked {
                        person.fail(&format!("a displaced connection counted {count}"));
                    }
                }
            }
            self.count("counts", 1);
        } else if let Some(total) = number(r#"{"bye": true, "total": "#) {
            if (total, line.said, line.farewell) != (line.last, 0, Farewell::Quit) {
                person.fail(&format!("bye at {total}, after {}, {} open", line.last, line.said));
            }
        } else if text.starts_with(r#"{"session_id": "#) {
            let session = person.session.as_deref().unwrap_or_default();
            let count = line.last;
            let hello = |resumed: bool| {
                format!(r#"{{"session_id": "{session}", "count": {count}, "resumed": {resumed}}}"#)
            };
            if text != hello(true) && (count > 0 || text != hello(false)) {
                person.fail(&format!("hello: {text}"));
            }
        } else if !text.starts_with(r#"{"ts": "#) {
            person.fail(&format!("told {text:?}"));
        }
    }
}

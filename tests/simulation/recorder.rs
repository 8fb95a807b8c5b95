//! The application under simulation: it counts like the default one, and checks as it goes.
//!
//! Its log is the model: which client speaks for a session, which timers are set, and which jobs are under
//! way. Sessions are in the ledger.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use revolve::{
    Acceptance, Application, Cancellation, CloseReason, ConnectionId, Context, EndedSession,
    HttpRequest, HttpResponse, JobHandle, Message, NoResponse, Peer, ReactorContext, Recipient,
    Refusal, SetTimerError, Side, Task, TaskOutcome, TaskResult, Upgrade,
};

use super::ledger::{Ledger, Number};
use super::machine::Machine;

/// Every simulated client has an address, and no two have the same.
fn address(peer: Peer) -> SocketAddr {
    peer.address().expect("an address")
}

/// What the application panics with when a client asks it to.
pub const PLANNED: &str = "a client asked for it";

/// Whether a panic was seen that nobody had asked for. A shard catches those of its application,
/// and so also the assertions in here.
static UNPLANNED: AtomicBool = AtomicBool::new(false);

/// Hides the panics that clients ask for, which are part of the plan; all others are printed, and
/// remembered for [`assert_as_planned`].
pub fn hide_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&PLANNED) {
                UNPLANNED.store(true, Ordering::Relaxed);
                print(info);
            }
        }));
    });
}

/// Fails if the application found something amiss.
pub fn assert_as_planned() {
    assert!(!UNPLANNED.load(Ordering::Relaxed), "the application found something amiss");
}

/// Time between a reactor's heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(1300);

/// Bytes of a message that goes past the cork, and of the longest that is sent here.
pub const LARGEST: usize = 33 << 10;

/// How far a connection's backlog is from being told of, as far as it can be seen from outside.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Excursion {
    #[default]
    None,
    /// A callback has sent much. It may have been above the mark, and have left within the turn.
    Possible,
    /// A turn has ended with more than the mark waiting: `on_backlog_low` is owed.
    Owed,
}

/// What becomes of a session that a newer connection asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Handing {
    /// None is being taken over.
    #[default]
    Nothing,
    /// The session with this id and count.
    Over(String, u64),
    /// The older connection has had it forgotten: the newer one opens with a new one.
    Away,
}

/// What all shards of one run have seen.
#[derive(Debug, Default)]
pub struct Log {
    /// Which sessions there are.
    pub ledger: Ledger,
    /// What a client was told of sessions that had ended.
    pub obituaries: HashMap<SocketAddr, u64>,
    /// Jobs off-loaded for such sessions, and how many of them were answered.
    pub rites: (u64, u64),
    /// The id of a client's session; and the ids of which a session was forgotten, whose counts nobody vouches for.
    pub ids: HashMap<SocketAddr, String>,
    pub forgotten_ids: HashSet<String>,
    /// The counts that were given to a client, in order.
    pub given: HashMap<SocketAddr, Vec<u64>>,
    /// Broadcasts sent, by reactor.
    pub broadcasts: HashMap<usize, u64>,
    /// How many of them there were when a client's connection opened.
    pub broadcasts_before: HashMap<SocketAddr, HashMap<usize, u64>>,
    /// Plain requests that were answered.
    pub requests: u64,
    pub opens: u64,
    /// Who was let in and is about to open.
    entering: Option<SocketAddr>,
    /// Whether that one shares its session.
    is_sharing: bool,
    /// Connections that opened beside others of their session; and the clients that ever shared one: others
    /// counted in it too.
    pub shared: u64,
    pub mates: HashSet<SocketAddr>,
    handing: Handing,
    /// Upgrades that were accepted, and those of them that were refused after all.
    pub admitted: u64,
    pub not_opened: u64,
    /// Upgrades that were refused.
    pub refused: u64,
    /// Upgrades that were decided by a job, and those that the job's end has not decided.
    pub deferred: u64,
    pub undecided: u64,
    /// How many upgrades have been asked about, which is the name of each; and the latest that has
    /// opened a session.
    asked: u64,
    latest: HashMap<String, u64>,
    pub closes: u64,
    /// When each timer is due, by client and key.
    pub timers: HashMap<(SocketAddr, u64), Instant>,
    /// The keys of timers that fired, by client, in order.
    pub fired: HashMap<SocketAddr, Vec<u64>>,
    /// Jobs off-loaded for a client, and how many of them were answered.
    pub jobs: HashMap<SocketAddr, (u64, u64)>,
    /// Those of them that are not answered yet, in the order of asking; and those that it took back.
    pub awaited: HashMap<SocketAddr, VecDeque<(u64, JobHandle)>>,
    pub taken_back: HashMap<SocketAddr, BTreeSet<u64>>,
    /// Questions that were put to other reactors, and those of which the answer decided something.
    pub questions: u64,
    pub learned: u64,
    /// What questions have taken for upgrades that are not decided yet, and how much of it was given back.
    pub seats: HashSet<String>,
    pub undone: u64,
    /// Jobs off-loaded for a client whose answers come in no order, and which of them were answered.
    pub loose: HashMap<SocketAddr, (u64, BTreeSet<u64>)>,
    /// Answers to those that came before the answer to an ordered job that was asked for earlier.
    pub overtakes: u64,
    /// Jobs that have seen that nobody waits for them.
    pub cancelled: Arc<AtomicU64>,
    /// Jobs for which there was no room.
    pub turned_away: u64,
    /// Heartbeats of all reactors, and jobs of their own that were answered.
    pub heartbeats: u64,
    pub refreshes: u64,
    /// What each client's connection is called, or was.
    pub names: HashMap<SocketAddr, ConnectionId>,
    /// Messages that a client has sent to others, to itself, and closes that it has asked for.
    pub directs: HashMap<SocketAddr, u64>,
    pub to_itself: HashMap<SocketAddr, u64>,
    pub kicks: u64,
    /// Posts that ran on reactors, and for connections.
    pub posts: u64,
    pub posts_for_one: u64,
    /// What callbacks have posted, from which reactor to which, and what of it has run; and what waits for
    /// room.
    pub passed: HashMap<(usize, usize), u64>,
    pub run: HashMap<(usize, usize), u64>,
    /// Reactors that have begun to drain.
    pub drains: usize,
    /// Whether sessions that have counted may end in this run (expiry, a small table).
    pub forgets: bool,
    /// The high-water mark of this run, if [`Self::check_backlogs`] is called after each turn.
    pub mark: Option<usize>,
    /// Whose backlog is, or may be, above the mark.
    pub excursions: HashMap<SocketAddr, Excursion>,
    /// Calls of `on_backlog_low`.
    pub lows: u64,
    /// Bursts that were sent, and connections that ended with 1008.
    pub bursts: u64,
    pub overfed: u64,
    /// How many jobs are still to be asked for, each of which sends a burst.
    pub chains: HashMap<SocketAddr, u32>,
    /// Whether clients are told of sessions that have ended, and some connections have their session forgotten
    /// when they close.
    pub has_last_words: bool,
    /// Clients that were told the count of a session which was forgotten before they opened.
    pub disappointed: HashSet<SocketAddr>,
}

/// So many messages of so many bytes, as a client asks for them.
#[derive(Debug, Clone, Copy)]
struct Burst {
    count: usize,
    bytes: usize,
}

impl Burst {
    fn read(text: &str) -> Burst {
        let (count, bytes) = text.split_once(' ').expect("count and bytes");
        let (count, bytes) = (count.parse().expect("a number"), bytes.parse().expect("a number"));
        Burst { count, bytes }
    }
}

impl Log {
    /// Something is posted: its number on this way.
    fn pass(&mut self, from: usize, to: usize) -> u64 {
        let number = self.passed.entry((from, to)).or_default();
        *number += 1;
        *number
    }
}

/// One shard's application.
pub struct Recorder {
    pub reactor: usize,
    pub log: Rc<RefCell<Log>>,
}

impl Application for Recorder {
    type Session = Number;
    /// Whose connection it is.
    type Connection = Option<SocketAddr>;
    const READS_BODIES: bool = true;

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        cx.set_timer(HEARTBEAT, 7).expect("the only one");
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        assert_eq!(key, 7);
        self.log.borrow_mut().heartbeats += 1;
        cx.set_timer(HEARTBEAT, 7).expect("the only one");
        let number = self.log.borrow().heartbeats;
        let done = |recorder: &mut Self, _: &mut ReactorContext<'_, Self>, number: u64| {
            let mut log = recorder.log.borrow_mut();
            log.refreshes += 1;
            assert!(number <= log.heartbeats);
        };
        // Full is an answer too.
        let _ = match number % 3 {
            0 => cx.offload(move || number, done),
            1 => cx.offload_cancellable(move |_| number, done),
            _ => cx.offload_unordered(move |_| number, done),
        };
    }

    fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
        let log = self.log.clone();
        let mut log = log.borrow_mut();
        if upgrade.parameter("entry").as_deref() == Some("refused") {
            log.refused += 1;
            return Err(Refusal::new::<403>("as you wish"));
        }
        log.asked += 1;
        let asked = log.asked;
        let later = upgrade.parameter("later").unwrap_or_default().into_owned();
        log.undecided += u64::from(!later.is_empty());
        drop(log);
        if later.is_empty() {
            return self.admit(upgrade, asked, None);
        }
        self.decide_later(upgrade, asked, later)
    }

    fn on_request(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpResponse, NoResponse> {
        match (request.method(), request.path()) {
            ("POST" | "HEAD", "/sum") => {
                let sum: u64 = request.body().iter().copied().map(u64::from).sum();
                let peer = request.peer();
                let answer = move |recorder: &mut Self,
                                   _: &mut ReactorContext<'_, Self>,
                                   request: &HttpRequest<'_>,
                                   sum: u64| {
                    let body = request.body().iter().copied().map(u64::from);
                    assert_eq!((request.peer(), body.sum()), (peer, sum), "one request");
                    recorder.log.borrow_mut().requests += 1;
                    let answer = HttpResponse::text::<201>("it has content");
                    Ok(answer.header("X-Session-Count", &sum.to_string())?)
                };
                match request.parameter("later").as_deref() {
                    Some("job") => cx.respond_later(move || sum, answer),
                    Some("asks") => {
                        let other = (self.reactor + 1) % cx.reactors();
                        let question =
                            move |recorder: &mut Self, _: &mut ReactorContext<'_, Self>| {
                                assert_eq!(recorder.reactor, other, "another one was asked");
                                recorder.log.borrow_mut().questions += 1;
                                sum
                            };
                        cx.ask_to_respond(other, question, answer)
                    }
                    _ => answer(self, cx, request, sum),
                }
            }
            ("POST", "/all") => {
                let text = self.next_broadcast(&mut self.log.borrow_mut());
                cx.broadcast_text(&text);
                Ok(HttpResponse::empty::<202>())
            }
            (_, "/panic") => std::panic::panic_any(PLANNED),
            _ => Err(NoResponse::NotFound),
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self>) {
        let mut log = self.log.borrow_mut();
        log.opens += 1;
        assert_eq!(log.entering.take(), Some(address(cx.peer())), "who opens was let in");
        match std::mem::take(&mut log.handing) {
            Handing::Nothing => {}
            Handing::Over(id, count) => {
                let taken = (cx.session_id(), cx.count(), cx.is_resumed());
                assert_eq!(taken, (id, count, true), "a takeover hands the session over as it is");
            }
            Handing::Away => {
                assert!(!cx.is_resumed(), "what was forgotten is handed over");
                log.disappointed.insert(address(cx.peer()));
            }
        }
        assert_eq!(cx.reactor(), self.reactor);
        let peer = address(cx.peer());
        assert_eq!(cx.connection_mut().replace(peer), None, "it has another one's state");
        log.names.insert(address(cx.peer()), cx.connection_id());
        log.ids.insert(address(cx.peer()), cx.session_id());
        let before = log.broadcasts.clone();
        log.broadcasts_before.insert(address(cx.peer()), before);
        let told = (&*cx.session_id(), cx.count(), cx.is_resumed());
        let is_sharing = log.is_sharing;
        let speakers = log.ledger.open(*cx.session(), (peer, is_sharing), told);
        assert_eq!(cx.session_connections(), speakers, "who speaks for it");
        if speakers > 1 {
            log.shared += 1;
            let mates: Vec<_> = log.ledger.speakers_of(*cx.session()).collect();
            log.mates.extend(mates);
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let mut log = self.log.borrow_mut();
        assert_eq!(log.handing, Handing::Nothing, "a session was taken over by nobody");
        let peer = address(cx.peer());
        assert_eq!(*cx.connection_mut(), Some(peer), "it has another one's state");
        assert!(log.is_speaker(cx), "a displaced connection was heard");
        match message {
            Message::Text("forget") => {
                log.ledger.forget(*cx.session());
                log.forgotten_ids.insert(cx.session_id());
                cx.forget_session();
            }
            Message::Text("quit") => {
                cx.send_text("bye");
                cx.close(1000, "quit");
                assert_eq!(cx.set_timer(HEARTBEAT, 99), Err(SetTimerError::Closed));
            }
            Message::Text("job") => self.off_load(&mut log, cx),
            Message::Text("task") => self.enqueue(&mut log, cx),
            Message::Text("cancel") => self.take_back(&mut log, cx),
            Message::Text("loose job") => self.off_load_loose(&mut log, cx),
            Message::Text("failing job") => {
                let job = || -> () { std::panic::panic_any(PLANNED) };
                if cx.offload(job, |_, _, ()| panic!("it returned nothing")).is_err() {
                    log.turned_away += 1;
                    cx.close(4013, "no room to fail in");
                }
            }
            Message::Text(text) if text.starts_with("timer ") => {
                let (key, milliseconds) = text[6..].split_once(' ').expect("key and time");
                let key = key.parse().expect("a number");
                let after = Duration::from_millis(milliseconds.parse().expect("a number"));
                if after.is_zero() {
                    let was_set = cx.cancel_timer(key);
                    let known = log.timers.remove(&(address(cx.peer()), key));
                    assert_eq!(was_set, known.is_some(), "what is set is known");
                } else if cx.set_timer(after, key).is_ok() {
                    log.timers.insert((address(cx.peer()), key), cx.now() + after);
                } else {
                    assert!(
                        log.timers.keys().filter(|(peer, _)| *peer == address(cx.peer())).count()
                            > 1
                    );
                }
            }
            Message::Text(text) if text.starts_with("burst ") => {
                drop(log);
                self.burst(cx, Burst::read(&text[6..]));
            }
            Message::Text(text) if text.starts_with("chain ") => {
                let burst = Burst::read(&text[6..]);
                log.chains.insert(address(cx.peer()), 3);
                drop(log);
                self.burst_elsewhere(cx, burst);
            }
            Message::Text("myself") => {
                let number = log.to_itself.entry(address(cx.peer())).or_default();
                *number += 1;
                cx.send_text_to(cx.connection_id(), &format!("myself {number}"));
            }
            Message::Text(text) if text.starts_with("tell ") => {
                let from = address(cx.peer());
                let number = log.directs.entry(from).or_default();
                *number += 1;
                let words = format!("direct {} {number}", from.port());
                match text[5..].parse().ok().and_then(|port| log.name_of(port)) {
                    Some(name) => cx.send_text_to(name, &words),
                    None => cx.send_text_to(Recipient::session(&text[5..]), &words),
                }
            }
            Message::Text(text) if text.starts_with("pass ") => {
                for _ in 0..text[5..].parse().expect("a number") {
                    let to = log.passed.values().sum::<u64>() as usize % cx.reactors();
                    let number = log.pass(self.reactor, to);
                    let from = self.reactor;
                    cx.post(to, move |recorder, cx| recorder.note_pass(cx, from, number));
                }
            }
            Message::Text(text) if text.starts_with("kick ") => {
                log.kicks += 1;
                cx.close_other(Recipient::session(&text[5..]), 4010, "as somebody wished");
            }
            Message::Text("panic") => std::panic::panic_any(PLANNED),
            Message::Text("all") => {
                let text = self.next_broadcast(&mut log);
                cx.broadcast_text(&text);
            }
            _ => {
                let count = cx.count_message();
                log.ledger.count(*cx.session(), count);
                log.given.entry(address(cx.peer())).or_default().push(count);
                cx.send_text(&format!("{count}"));
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self>, reason: CloseReason) {
        let mut log = self.log.borrow_mut();
        let is_taken_over = (reason.code, reason.side) == (4001, Side::Server);
        // Of several that share a session each is displaced in turn.
        let is_free = is_taken_over || log.handing == Handing::Nothing;
        assert!(is_free, "a session was taken over by nobody");
        log.closes += 1;
        // Now and then its last wish is that all be forgotten.
        if log.has_last_words && log.closes.is_multiple_of(11) {
            log.ledger.forget(*cx.session());
            log.forgotten_ids.insert(cx.session_id());
            cx.forget_session();
        }
        if is_taken_over {
            let is_kept = log.ledger.is_named(*cx.session());
            log.handing =
                if is_kept { Handing::Over(cx.session_id(), cx.count()) } else { Handing::Away };
        }
        log.overfed += u64::from((reason.code, reason.side) == (1008, Side::Server));
        assert_eq!(cx.waiting_bytes(), 0, "nothing can be said any more");
        log.excursions.remove(&address(cx.peer()));
        let speakers = log.ledger.close(*cx.session(), address(cx.peer()));
        assert_eq!(cx.session_connections(), speakers, "who spoke for it");
        log.timers.retain(|(peer, _), _| *peer != address(cx.peer()));
        assert_eq!(cx.set_timer(HEARTBEAT, 99), Err(SetTimerError::Closed), "it cannot fire");
        // Last words for nobody: the drain waits for them all the same, and never calls back.
        let _ = cx.offload(|| (), |_, _, ()| panic!("an answer to one that has left"));
    }

    fn on_drain(&mut self, cx: &mut ReactorContext<'_, Self>) {
        let mut log = self.log.borrow_mut();
        log.drains += 1;
        log.ledger.may_end_with_server = true;
        drop(log);
        cx.send_text_to_all("last words");
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, key: u64) {
        let mut log = self.log.borrow_mut();
        let due =
            log.timers.remove(&(address(cx.peer()), key)).expect("a timer that is set, fires once");
        assert!(cx.now() >= due, "a timer fired early");
        assert!(log.is_speaker(cx), "for one that has left");
        log.fired.entry(address(cx.peer())).or_default().push(key);
        cx.send_text(&format!("timer {key}"));
        drop(log);
        if key == 3 {
            self.burst(cx, Burst { count: 2, bytes: 600 });
        }
    }

    fn on_backlog_low(&mut self, cx: &mut Context<'_, Self>) {
        let mut log = self.log.borrow_mut();
        let peer = address(cx.peer());
        assert!(log.is_speaker(cx), "for one that has left");
        if let Some(mark) = log.mark {
            assert!(cx.waiting_bytes() <= mark / 2, "told too early");
            let excursion = log.excursions.remove(&peer).unwrap_or_default();
            assert_ne!(excursion, Excursion::None, "told twice, or for nothing");
        }
        log.lows += 1;
        // Now and then it goes on, for a while.
        let goes_on = log.lows.is_multiple_of(3);
        drop(log);
        if goes_on {
            self.burst(cx, Burst { count: 3, bytes: 500 });
        }
    }

    fn on_session_end(
        &mut self,
        cx: &mut ReactorContext<'_, Self>,
        session: EndedSession<Self::Session>,
    ) {
        let mut log = self.log.borrow_mut();
        let is_handed = matches!(log.handing, Handing::Over(..));
        assert!(!is_handed, "a session ended while it was taken over");
        let forgets = log.forgets;
        log.ledger.end(&session, forgets);
        if log.has_last_words
            && let Some(name) = log.somebody().and_then(|client| log.name_of(client.port()))
        {
            let client = log.somebody().expect("the same");
            let number = log.obituaries.entry(client).or_default();
            *number += 1;
            cx.send_text_to(name, &format!("obituary {number}"));
        }
        let rite = cx.offload(|| (), |recorder, _, ()| recorder.log.borrow_mut().rites.1 += 1);
        log.rites.0 += u64::from(rite.is_ok());
        // Now and then it panics, when all is done.
        if log.ledger.ended().is_multiple_of(7) {
            std::panic::panic_any(PLANNED);
        }
    }
}

impl Recorder {
    /// Sends so many messages, whatever waits.
    fn burst(&mut self, cx: &mut Context<'_, Self>, burst: Burst) {
        let mut log = self.log.borrow_mut();
        log.bursts += 1;
        let payload = "b".repeat(burst.bytes);
        let (first, rest) = payload.split_at(burst.bytes / 2);
        for number in 0..burst.count {
            match number % 2 {
                0 => cx.send_text_parts([first.into(), rest.into()]),
                _ => cx.send_text(&payload),
            }
        }
        // Where it was above the mark, it may have fallen again before the turn was over.
        let excursion = log.excursions.entry(address(cx.peer())).or_default();
        if *excursion == Excursion::None {
            *excursion = Excursion::Possible;
        }
    }

    /// Has a job followed by a burst and the next job, three times.
    fn burst_elsewhere(&mut self, cx: &mut Context<'_, Self>, burst: Burst) {
        let next = move |recorder: &mut Self, cx: &mut Context<'_, Self>, ()| {
            recorder.burst(cx, burst);
            let left = {
                let mut log = recorder.log.borrow_mut();
                let left = log.chains.entry(address(cx.peer())).or_default();
                *left = left.saturating_sub(1);
                *left
            };
            if left > 0 {
                recorder.burst_elsewhere(cx, burst);
            }
        };
        // Full is an answer too.
        let _ = cx.offload(|| (), next);
    }

    /// A post from that reactor runs: it is the next one of its. Each second one goes on to the next reactor.
    fn note_pass(&mut self, cx: &mut ReactorContext<'_, Self>, from: usize, number: u64) {
        assert_eq!(cx.reactor(), self.reactor, "a post went astray");
        let mut log = self.log.borrow_mut();
        let run = log.run.entry((from, self.reactor)).or_default();
        *run += 1;
        assert_eq!(*run, number, "a post overtook another, or was lost");
        if number.is_multiple_of(2) {
            let (here, to) = (self.reactor, (self.reactor + 1) % cx.reactors());
            let number = log.pass(here, to);
            cx.post(to, move |recorder, cx| recorder.note_pass(cx, here, number));
        }
    }

    /// What is told to all next.
    fn next_broadcast(&self, log: &mut Log) -> String {
        let number = log.broadcasts.entry(self.reactor).or_default();
        *number += 1;
        format!("all {} {number}", self.reactor)
    }

    /// Says yes to the upgrade that was asked about as number `asked`.
    fn admit(
        &mut self,
        upgrade: &Upgrade<'_, Self>,
        asked: u64,
        seat: Option<String>,
    ) -> Result<Acceptance<Self>, Refusal> {
        self.log.borrow_mut().admitted += 1;
        let peer = address(upgrade.peer());
        let count = upgrade.session_count();
        let says_hello = upgrade.parameter("hello").as_deref() == Some("1");
        let told = count.unwrap_or(0).to_string();
        let is_sharing = upgrade.parameter("share").is_some();
        let acceptance = upgrade.accept().header("X-Session-Count", &told)?;
        let acceptance = if is_sharing { acceptance.share() } else { acceptance };
        let acceptance =
            acceptance.otherwise(|recorder, _| recorder.log.borrow_mut().not_opened += 1);
        Ok(acceptance.then(move |recorder, cx| {
            let mut log = recorder.log.borrow_mut();
            if let Some(seat) = seat {
                assert!(log.seats.remove(&seat), "a seat was given back, or twice");
            }
            let before = log.entering.replace(peer);
            assert_eq!(before, None, "somebody was let in, and did not open");
            let opens_with = cx.is_resumed().then(|| cx.count());
            let is_as_told = opens_with == count || log.handing == Handing::Away;
            assert!(is_as_told, "the head tells another count");
            log.is_sharing = is_sharing;
            let latest = log.latest.entry(cx.session_id()).or_default();
            assert!(is_sharing || *latest < asked, "a request displaced one that came later");
            *latest = asked.max(*latest);
            if says_hello {
                cx.send_text("hello");
            }
        }))
    }

    /// Has a job decide; it ends as `how` says.
    fn decide_later(
        &mut self,
        upgrade: &Upgrade<'_, Self>,
        asked: u64,
        how: String,
    ) -> Result<Acceptance<Self>, Refusal> {
        let (peer, query) = (address(upgrade.peer()), upgrade.query().to_owned());
        let (session, count) = (upgrade.session().copied(), upgrade.session_count());
        let cancelled = self.log.borrow().cancelled.clone();
        let asks = how.starts_with("asks");
        let done = move |recorder: &mut Self, upgrade: &Upgrade<'_, Self>, how: String| {
            assert_eq!((address(upgrade.peer()), upgrade.query()), (peer, &*query), "one request");
            let log = recorder.log.clone();
            let mut log = log.borrow_mut();
            // It may have counted on meanwhile, but it is there, unless it was forgotten.
            if session.is_some_and(|session| log.ledger.is_named(session)) {
                assert_eq!(upgrade.session().copied(), session, "a session did not wait");
                assert!(upgrade.session_count() >= count, "it has lost some of its count");
            }
            match how.as_str() {
                "panics" => std::panic::panic_any(PLANNED),
                "again" => {
                    drop(log);
                    return recorder.decide_later(upgrade, asked, "yes".to_owned());
                }
                _ => log.undecided -= 1,
            }
            log.deferred += 1;
            log.learned += u64::from(asks);
            if how == "no" {
                log.refused += 1;
                return Err(Refusal::new::<403>("as you wish"));
            }
            drop(log);
            recorder.admit(upgrade, asked, asks.then_some(how))
        };
        if asks {
            let other = (self.reactor + 1) % upgrade.reactors();
            let question = move |recorder: &mut Self, cx: &mut ReactorContext<'_, Self>| {
                assert_eq!((recorder.reactor, cx.reactor()), (other, other), "another was asked");
                recorder.log.borrow_mut().questions += 1;
                if how == "asks fails" {
                    std::panic::panic_any(PLANNED);
                }
                // Each takes a seat of its own, which opens or is given back.
                let mut log = recorder.log.borrow_mut();
                let seat = format!("seat {}", log.questions);
                log.seats.insert(seat.clone());
                seat
            };
            let undo = move |recorder: &mut Self, cx: &mut ReactorContext<'_, Self>, seat| {
                assert_eq!(cx.reactor(), other, "given back where it was taken");
                let mut log = recorder.log.borrow_mut();
                assert!(log.seats.remove(&seat), "a seat has opened, or was given back twice");
                log.undone += 1;
            };
            return upgrade.ask_with_undo(other, question, undo, done);
        }
        let job = move |cancellation: &Cancellation| {
            note_cancellation(cancellation, &cancelled);
            if how == "fails" {
                std::panic::panic_any(PLANNED);
            }
            how
        };
        upgrade.defer_cancellable(job, done)
    }

    /// The answer comes when it is there.
    fn off_load_loose(&self, log: &mut Log, cx: &mut Context<'_, Self>) {
        let peer = address(cx.peer());
        let number = log.loose.get(&peer).map_or(0, |(asked, _)| *asked);
        let ordered_before = log.jobs.get(&peer).map_or(0, |(asked, _)| *asked);
        let cancelled = log.cancelled.clone();
        let answer = move |recorder: &mut Self, cx: &mut Context<'_, Self>, was_cancelled: bool| {
            let mut log = recorder.log.borrow_mut();
            assert!(log.is_speaker(cx), "for one that has left");
            assert!(!was_cancelled, "nobody waited for it");
            let answered = log.jobs.get(&peer).map_or(0, |(_, answered)| *answered);
            log.overtakes += u64::from(answered < ordered_before);
            let is_first = log.loose.entry(peer).or_default().1.insert(number);
            assert!(is_first, "one answer to each");
            cx.send_text(&format!("loose {number}"));
        };
        let job = move |cancellation: &Cancellation| note_cancellation(cancellation, &cancelled);
        if cx.offload_unordered(job, answer).is_ok() {
            log.loose.entry(peer).or_default().0 += 1;
        } else {
            log.turned_away += 1;
            cx.send_text("loose refused");
        }
    }

    /// The job that was asked for first and is not answered is taken back.
    fn take_back(&self, log: &mut Log, cx: &mut Context<'_, Self>) {
        let peer = address(cx.peer());
        let Some((number, handle)) = log.awaited.get_mut(&peer).and_then(VecDeque::pop_front)
        else {
            return;
        };
        assert!(cx.cancel_job(handle), "it was not answered");
        assert!(!cx.cancel_job(handle), "it is gone");
        let is_first = log.taken_back.entry(peer).or_default().insert(number);
        assert!(is_first, "taken back twice");
    }

    /// The answers come in the order of asking. Every other one of the jobs can see that nobody waits.
    fn off_load(&self, log: &mut Log, cx: &mut Context<'_, Self>) {
        let (number, answer) = self.next_answer(log, cx);
        let cancelled = log.cancelled.clone();
        let taken = match number % 2 {
            0 => cx.offload(move || number, answer),
            _ => cx.offload_cancellable(
                move |cancellation| (number, note_cancellation(cancellation, &cancelled)),
                move |recorder, cx, (number, was_cancelled)| {
                    assert!(!was_cancelled, "nobody waited for it");
                    answer(recorder, cx, number);
                },
            ),
        };
        self.note_asked(log, cx, number, taken.ok());
    }

    /// A task for a worker, in the same order as jobs.
    fn enqueue(&self, log: &mut Log, cx: &mut Context<'_, Self>) {
        let (number, answer) = self.next_answer(log, cx);
        let args = format!("[{number}]");
        let task = Task::celery("w.number").args_json(&*args).timeout(Duration::from_secs(60));
        let taken = cx.enqueue(task, move |recorder, cx, result: TaskResult| {
            match result.outcome {
                TaskOutcome::Success(json) => assert_eq!(json, args, "another task's"),
                TaskOutcome::TimedOut | TaskOutcome::NotSent(_) => {}
                other => panic!("{other:?}"),
            }
            answer(recorder, cx, number);
        });
        self.note_asked(log, cx, number, taken.ok());
    }

    /// The number of what this connection asks for next in order, and what is done with the answer.
    fn next_answer(
        &self,
        log: &Log,
        cx: &Context<'_, Self>,
    ) -> (u64, impl Fn(&mut Self, &mut Context<'_, Self>, u64) + use<>) {
        let peer = address(cx.peer());
        let number = log.jobs.get(&peer).map_or(0, |(asked, _)| *asked);
        let answer = move |recorder: &mut Self, cx: &mut Context<'_, Self>, number: u64| {
            let mut log = recorder.log.borrow_mut();
            let log = &mut *log;
            assert!(log.is_speaker(cx), "for one that has left");
            let (asked, answered) = log.jobs.get_mut(&peer).expect("it has asked");
            *answered += 1;
            assert!(*answered <= *asked);
            let next = log.awaited.get_mut(&peer).and_then(VecDeque::pop_front);
            let next = next.map(|(number, _)| number);
            assert_eq!(next, Some(number), "answers come in the order of asking");
            cx.send_text(&format!("job {number}"));
        };
        (number, answer)
    }

    fn note_asked(
        &self,
        log: &mut Log,
        cx: &mut Context<'_, Self>,
        number: u64,
        taken: Option<JobHandle>,
    ) {
        let peer = address(cx.peer());
        if let Some(handle) = taken {
            log.jobs.entry(peer).or_default().0 += 1;
            log.awaited.entry(peer).or_default().push_back((number, handle));
        } else {
            log.turned_away += 1;
            cx.send_text("job refused");
        }
    }
}

/// What a job does that can see whether anybody waits for it: whether nobody does.
fn note_cancellation(cancellation: &Cancellation, cancelled: &AtomicU64) -> bool {
    let is_requested = cancellation.is_requested();
    cancelled.fetch_add(u64::from(is_requested), Ordering::Relaxed);
    is_requested
}

impl Log {
    /// The connection of the client on this port, which may have left.
    fn name_of(&self, port: u16) -> Option<ConnectionId> {
        self.names.get(&SocketAddr::from(([127, 0, 0, 1], port))).copied()
    }

    /// Whether this connection speaks for its session.
    fn is_speaker(&self, cx: &Context<'_, Recorder>) -> bool {
        self.ledger.is_speaker(*cx.session(), address(cx.peer()))
    }

    /// After each turn: what waits for each of a shard's connections is bounded, and the application has
    /// been told of each backlog that has fallen.
    pub fn check_backlogs(&mut self, backlogs: impl Iterator<Item = (Peer, usize)>, most: usize) {
        let Some(mark) = self.mark else { return };
        for (peer, waits) in backlogs {
            let peer = address(peer);
            assert!(waits <= most, "{peer}: {waits} bytes wait, and at most {most} may");
            let excursion = self.excursions.entry(peer).or_default();
            if waits > mark {
                *excursion = Excursion::Owed;
            } else if waits <= mark / 2 {
                assert_ne!(
                    *excursion,
                    Excursion::Owed,
                    "{peer}: {waits} wait, and it was not told"
                );
                *excursion = Excursion::None;
            }
        }
    }

    /// Every session is in its owner's table or has ended.
    pub fn check_sessions(&self, machine: &Machine<Recorder>) {
        self.ledger.check(machine);
    }

    /// A client that has a connection, whichever: the same for the same seed.
    fn somebody(&self) -> Option<SocketAddr> {
        self.ledger.speakers().min()
    }
}

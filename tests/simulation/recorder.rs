//! The application under simulation: it counts like the default one, and checks as it goes.
//!
//! Its log is the model: which client speaks for a session, which timers are set, and which jobs are under
//! way. Sessions are in the ledger.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use revolve::{
    Acceptance, Application, CloseReason, ConnectionId, Context, EndedSession, Message, Peer,
    ReactorContext, Recipient, Refusal, Side, Upgrade,
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
    /// The counts that were given to a client, in order.
    pub given: HashMap<SocketAddr, Vec<u64>>,
    /// Broadcasts sent, by reactor.
    pub broadcasts: HashMap<usize, u64>,
    /// How many of them there were when a client's connection opened.
    pub broadcasts_before: HashMap<SocketAddr, HashMap<usize, u64>>,
    pub opens: u64,
    /// Who was let in and is about to open.
    entering: Option<SocketAddr>,
    handing: Handing,
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
    /// Whether sessions that have counted may end in this run (expiry, a small table).
    pub forgets: bool,
    /// Whether clients are told of sessions that have ended, and some connections have their session forgotten
    /// when they close.
    pub has_last_words: bool,
    /// Clients that were told the count of a session which was forgotten before they opened.
    pub disappointed: HashSet<SocketAddr>,
}

/// One shard's application.
pub struct Recorder {
    pub reactor: usize,
    pub log: Rc<RefCell<Log>>,
}

impl Application for Recorder {
    type Session = Number;

    fn on_start(&mut self, cx: &mut ReactorContext<'_, Self>) {
        cx.set_timer(HEARTBEAT, 7).expect("the only one");
    }

    fn on_reactor_timer(&mut self, cx: &mut ReactorContext<'_, Self>, key: u64) {
        assert_eq!(key, 7);
        self.log.borrow_mut().heartbeats += 1;
        cx.set_timer(HEARTBEAT, 7).expect("the only one");
        let number = self.log.borrow().heartbeats;
        // Full is an answer too.
        let _ = cx.offload(
            move || number,
            |recorder, _cx, number| {
                let mut log = recorder.log.borrow_mut();
                log.refreshes += 1;
                assert!(number <= log.heartbeats);
            },
        );
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
        if later.is_empty() {
            return self.admit(upgrade, asked);
        }
        log.undecided += 1;
        drop(log);
        self.decide_later(upgrade, asked, later)
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
        log.names.insert(address(cx.peer()), cx.connection_id());
        let before = log.broadcasts.clone();
        log.broadcasts_before.insert(address(cx.peer()), before);
        let told = (&*cx.session_id(), cx.count(), cx.is_resumed());
        log.ledger.open(*cx.session(), address(cx.peer()), told);
    }

    fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
        let mut log = self.log.borrow_mut();
        assert_eq!(log.handing, Handing::Nothing, "a session was taken over by nobody");
        assert!(log.is_speaker(cx), "a displaced connection was heard");
        match message {
            Message::Text("forget") => {
                log.ledger.forget(*cx.session());
                cx.forget_session();
            }
            Message::Text("quit") => {
                cx.send_text("bye");
                cx.close(1000, "quit");
            }
            Message::Text("job") => self.off_load(&mut log, cx),
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
            Message::Text(text) if text.starts_with("kick ") => {
                log.kicks += 1;
                cx.close_other(Recipient::session(&text[5..]), 4010, "as somebody wished");
            }
            Message::Text("panic") => std::panic::panic_any(PLANNED),
            Message::Text("all") => {
                let number = log.broadcasts.entry(self.reactor).or_default();
                *number += 1;
                cx.broadcast_text(&format!("all {} {number}", self.reactor));
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
        assert_eq!(log.handing, Handing::Nothing, "a session was taken over by nobody");
        log.closes += 1;
        // Now and then its last wish is that all be forgotten.
        if log.has_last_words && log.closes.is_multiple_of(11) {
            log.ledger.forget(*cx.session());
            cx.forget_session();
        }
        if (reason.code, reason.side) == (4001, Side::Server) {
            let is_kept = log.ledger.is_named(*cx.session());
            log.handing =
                if is_kept { Handing::Over(cx.session_id(), cx.count()) } else { Handing::Away };
        }
        log.ledger.close(*cx.session(), address(cx.peer()));
        log.timers.retain(|(peer, _), _| *peer != address(cx.peer()));
        // Last words for nobody: the drain waits for them all the same, and never calls back.
        let _ = cx.offload(|| (), |_, _, ()| panic!("an answer to one that has left"));
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Self>, key: u64) {
        let mut log = self.log.borrow_mut();
        let due =
            log.timers.remove(&(address(cx.peer()), key)).expect("a timer that is set, fires once");
        assert!(cx.now() >= due, "a timer fired early");
        assert!(log.is_speaker(cx), "for one that has left");
        log.fired.entry(address(cx.peer())).or_default().push(key);
        cx.send_text(&format!("timer {key}"));
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
    /// Says yes to the upgrade that was asked about as number `asked`.
    fn admit(
        &mut self,
        upgrade: &Upgrade<'_, Self>,
        asked: u64,
    ) -> Result<Acceptance<Self>, Refusal> {
        let peer = address(upgrade.peer());
        let count = upgrade.session_count();
        let says_hello = upgrade.parameter("hello").as_deref() == Some("1");
        let told = count.unwrap_or(0).to_string();
        Ok(upgrade.accept().header("X-Session-Count", &told)?.then(move |recorder, cx| {
            let mut log = recorder.log.borrow_mut();
            let before = log.entering.replace(peer);
            assert_eq!(before, None, "somebody was let in, and did not open");
            let opens_with = cx.is_resumed().then(|| cx.count());
            let is_as_told = opens_with == count || log.handing == Handing::Away;
            assert!(is_as_told, "the head tells another count");
            let older = log.latest.insert(cx.session_id(), asked);
            assert!(older < Some(asked), "a request displaced one that came later");
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
        let job = move || {
            if how == "fails" {
                std::panic::panic_any(PLANNED);
            }
            how
        };
        upgrade.defer(job, move |recorder: &mut Self, upgrade, how| {
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
            if how == "no" {
                log.refused += 1;
                return Err(Refusal::new::<403>("as you wish"));
            }
            drop(log);
            recorder.admit(upgrade, asked)
        })
    }

    fn off_load(&self, log: &mut Log, cx: &mut Context<'_, Self>) {
        let number = log.jobs.get(&address(cx.peer())).map_or(0, |(asked, _)| *asked);
        let answer = |recorder: &mut Self, cx: &mut Context<'_, Self>, number: u64| {
            let mut log = recorder.log.borrow_mut();
            assert!(log.is_speaker(cx), "for one that has left");
            let (asked, answered) = log.jobs.get_mut(&address(cx.peer())).expect("it has asked");
            assert_eq!(number, *answered, "answers come in the order of asking");
            *answered += 1;
            assert!(*answered <= *asked);
            cx.send_text(&format!("job {number}"));
        };
        if cx.offload(move || number, answer).is_ok() {
            log.jobs.entry(address(cx.peer())).or_default().0 += 1;
        } else {
            log.turned_away += 1;
            cx.send_text("job refused");
        }
    }
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

    /// Every session is in its owner's table or has ended.
    pub fn check_sessions(&self, machine: &Machine<Recorder>) {
        self.ledger.check(machine);
    }

    /// A client that has a connection, whichever: the same for the same seed.
    fn somebody(&self) -> Option<SocketAddr> {
        self.ledger.speakers().min()
    }
}

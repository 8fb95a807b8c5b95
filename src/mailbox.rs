//! The only way into a reactor from outside: a bounded channel and a waker.
//!
//! Many senders, one receiver. A full box gives the mail back; what to do with it is the sender's
//! decision (a shard keeps it, and lets the connection that it is about wait). Answers of off-loaded
//! jobs have a box of their own, with room for as many as the reactor may have under way. So no thread
//! of the pool ever waits for a reactor that is held up; and what the store has stored is a number. What one that
//! several machines share says of a batch has a box with room for those that may be under way, and takeovers have
//! another. Wakes are coalesced: while one is on its way, a
//! further mail needs none. A wake without mail says that there is something new in what the reactors
//! share ([`crate::server_status::ServerStatus`]), the drain or other settings; or in the reactor's box of posts.
//!
//! Invariant: if there is mail and the receiver sleeps, a wake is on its way.
//!
//! Next: [`crate::http`]: the plain requests on the same port.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use mio::{Registry, Token, Waker};

use crate::application::{Broadcast, Direct};
use crate::inbox::{Inbox, InboxSender, NotSent, inbox};
use crate::observe::slab_map::SlabMap;
use crate::offload::Finished;
use crate::store::{Outcome, Takeover};
use crate::token::{Entrance, Peer};
use crate::transport::connection_limiter::Permit;
use crate::transport::tls::TlsSession;

/// A connection on its way to the reactor that owns its session, as a plain value: the socket,
/// what was read from it, and what has not been written. The owner reads the request again from
/// its bytes; that costs a microsecond and saves a second, owned form of a request.
#[derive(Debug)]
pub struct Handoff<S> {
    /// The socket, registered nowhere.
    pub stream: S,
    /// Who is at the other end.
    pub peer: Peer,
    /// Where it came in.
    pub entrance: Entrance,
    /// Everything read and not taken, from the request's first byte on.
    pub received: Vec<u8>,
    /// Responses to earlier requests that the socket has not taken yet.
    pub unsent: Vec<u8>,
    /// When the handshake has to be over.
    pub deadline: Instant,
    /// What is between the socket and the protocol, if it is encrypted.
    pub tls: Option<TlsSession>,
    /// Its permit among the sockets, if those are counted.
    pub permit: Option<Permit>,
}

/// What one reactor, or the server's handle, tells another.
#[derive(Debug)]
pub enum Mail<S> {
    /// A connection for a session that you own.
    HandOver(Handoff<S>),
    /// A frame for every open connection of yours.
    Broadcast(Broadcast),
    /// A message for one connection of yours, or its close.
    Direct(Direct),
    /// A job that you off-loaded is done.
    Finished(Finished),
    /// The store has this batch of yours.
    Stored(u64),
    /// How a batch of yours has ended in a store that several machines share.
    Settled(Outcome),
    /// Another node has one of your sessions.
    TakenOver(Takeover),
    /// Reactor `asker` has a watcher, and wants a map of your slab.
    Look {
        /// Who asks.
        asker: usize,
    },
    /// The map that you asked for.
    Seen(SlabMap),
}

/// The receiving end.
#[derive(Debug)]
pub struct Mailbox<S> {
    mails: Inbox<Mail<S>>,
    answers: Inbox<Finished>,
    stored: Arc<AtomicU64>,
    outcomes: Inbox<Outcome>,
    takeovers: Inbox<Takeover>,
    /// Whether there may be something in those two.
    looks: Cell<bool>,
    wake: Arc<WakeFlag<AtomicBool>>,
}

/// A sending end; cheap to clone.
#[derive(Debug)]
pub struct MailSender<S> {
    mails: InboxSender<Mail<S>>,
    answers: InboxSender<Finished>,
    /// The number of the batch that was stored, until that is received; 0 then. There is one under way at a time.
    /// [`SHARED`] if there is something in the two boxes that follow.
    stored: Arc<AtomicU64>,
    outcomes: InboxSender<Outcome>,
    takeovers: InboxSender<Takeover>,
    wake: Arc<WakeFlag<AtomicBool>>,
    waker: Arc<Waker>,
}

impl<S> Clone for MailSender<S> {
    fn clone(&self) -> Self {
        MailSender {
            mails: self.mails.clone(),
            answers: self.answers.clone(),
            stored: self.stored.clone(),
            outcomes: self.outcomes.clone(),
            takeovers: self.takeovers.clone(),
            wake: self.wake.clone(),
            waker: self.waker.clone(),
        }
    }
}

/// A mailbox of `capacity` mails, and `answers` of off-loaded jobs, whose waker fires `token` on
/// `registry`.
///
/// # Errors
///
/// When the system has no descriptor left for the waker.
pub fn mailbox<S>(
    capacity: usize,
    answers: usize,
    registry: &Registry,
    token: Token,
) -> io::Result<(MailSender<S>, Mailbox<S>)> {
    let (mail_sender, mails) = inbox(capacity);
    let (answer_sender, answers) = inbox(answers);
    let wake = Arc::new(WakeFlag::default());
    let waker = Arc::new(Waker::new(registry, token)?);
    let stored = Arc::new(AtomicU64::new(0));
    let (outcome_sender, outcomes) = inbox(OUTCOMES_MOST);
    let (takeover_sender, takeovers) = inbox(TAKEOVERS_MOST);
    let sender = MailSender {
        mails: mail_sender,
        answers: answer_sender,
        stored: stored.clone(),
        outcomes: outcome_sender,
        takeovers: takeover_sender,
        wake: wake.clone(),
        waker,
    };
    let looks = Cell::new(false);
    Ok((sender, Mailbox { mails, answers, stored, outcomes, takeovers, looks, wake }))
}

impl<S> MailSender<S> {
    /// Sends, and wakes the receiver. To a reactor that has ended nothing is sent, and the mail is
    /// dropped: a socket in it closes.
    ///
    /// # Errors
    ///
    /// The mail itself, when the box is full.
    pub fn send(&self, mail: Mail<S>) -> Result<(), Mail<S>> {
        match self.mails.send(mail) {
            Ok(()) => self.wake(),
            Err(NotSent::Full(mail)) => return Err(mail),
            Err(NotSent::Closed(_)) => {}
        }
        Ok(())
    }

    /// Whether the box has room now. Another sender may be faster.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.mails.is_full()
    }

    /// Whether the reactor has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.mails.is_closed()
    }

    /// Sends the answer of an off-loaded job, for which there is always room: the reactor has no
    /// more jobs under way than its box of answers holds, and one that it has given up sends none.
    pub fn send_answer(&self, finished: Finished) {
        let sent = self.answers.send(finished);
        debug_assert!(!matches!(sent, Err(NotSent::Full(_))), "more answers than jobs");
        if sent.is_ok() {
            self.wake();
        }
    }

    /// Tells the reactor that the store has its batch of this number. There is always room: it has one under way.
    pub fn send_stored(&self, number: u64) {
        self.stored.store(number, Ordering::Release);
        self.wake();
    }

    /// Tells the reactor how its batch has ended in a store that several machines share. There is always room: it has
    /// one under way, and the one with which it ends.
    pub fn send_outcome(&self, outcome: Outcome) {
        let sent = self.outcomes.send(outcome);
        debug_assert!(!matches!(sent, Err(NotSent::Full(_))), "more outcomes than batches");
        self.tell_of_shared();
    }

    /// Tells the reactor that another node has one of its sessions.
    ///
    /// # Errors
    ///
    /// The takeover itself, when too many wait there. If it is dropped, the next commit tells.
    pub fn send_takeover(&self, takeover: Takeover) -> Result<(), Takeover> {
        match self.takeovers.send(takeover) {
            Ok(()) => self.tell_of_shared(),
            Err(NotSent::Full(takeover)) => return Err(takeover),
            Err(NotSent::Closed(_)) => {}
        }
        Ok(())
    }

    /// Behind what was put into the box: so whoever takes the mark finds it.
    fn tell_of_shared(&self) {
        self.stored.store(SHARED, Ordering::Release);
        self.wake();
    }

    /// Wakes the receiver, so that it looks at what it shares with the sender. Never waits.
    pub fn wake(&self) {
        if self.wake.raise() == Raised::First
            && let Err(error) = self.waker.wake()
        {
            // An eventfd write fails only when its counter is full, which wakes all the same.
            log::warn!("cannot wake a reactor: {error}");
        }
    }
}

impl<S> Mailbox<S> {
    /// Called once when the waker has fired, before [`Self::receive`]: mail that comes later wakes
    /// anew.
    pub fn opened(&self) {
        self.wake.lower();
    }

    /// The next mail, if there is one.
    #[must_use]
    pub fn receive(&self) -> Option<Mail<S>> {
        if (self.stored.load(Ordering::Relaxed) != 0 || self.looks.get())
            && let Some(mail) = self.receive_from_store()
        {
            return Some(mail);
        }
        let answer = self.answers.receive().map(Mail::Finished);
        answer.or_else(|| self.mails.receive())
    }
}

/// In place of the number of a batch: there is something of a store that several machines share.
const SHARED: u64 = u64::MAX;

/// Batches of a reactor that may be under way: one, and the one with which it ends.
const OUTCOMES_MOST: usize = 2;

/// Takeovers that wait in a reactor's box at the most: 1024. The sender keeps what is more.
const TAKEOVERS_MOST: usize = 1024;

impl<S> Mailbox<S> {
    #[cold]
    fn receive_from_store(&self) -> Option<Mail<S>> {
        match self.stored.swap(0, Ordering::Acquire) {
            0 => {}
            // What comes from now on sets it anew.
            SHARED => self.looks.set(true),
            number => return Some(Mail::Stored(number)),
        }
        let outcome = self.outcomes.receive().map(Mail::Settled);
        let mail = outcome.or_else(|| self.takeovers.receive().map(Mail::TakenOver));
        self.looks.set(mail.is_some());
        mail
    }
}

/// What a [`WakeFlag`] is made of: an atomic of std's, or of the model checker's in its test.
trait Flag: Default {
    /// Sets the value, and returns the one before: a read-modify-write that acquires and releases.
    fn exchange(&self, value: bool) -> bool;
}

impl Flag for AtomicBool {
    #[inline]
    fn exchange(&self, value: bool) -> bool {
        self.swap(value, Ordering::AcqRel)
    }
}

/// What raising a [`WakeFlag`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raised {
    /// It was lowered: the caller is the one to wake the receiver.
    First,
    /// A wake is on its way already.
    Again,
}

/// Whether a wake is on its way that the receiver has not heard.
///
/// A sender puts its mail into the channel (or sets what is shared) and then raises the flag; the
/// receiver lowers the flag and then looks. Both are read-modify-writes of one atomic, so one comes
/// after the other: either the sender's comes later, finds the flag lowered, and wakes; or the
/// receiver's does, and acquires what the sender had done before.
#[derive(Debug, Default)]
struct WakeFlag<F>(F);

impl<F: Flag> WakeFlag<F> {
    #[inline]
    fn raise(&self) -> Raised {
        if self.0.exchange(true) { Raised::Again } else { Raised::First }
    }

    fn lower(&self) {
        self.0.exchange(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{Job, JobId, in_a_box};
    use crate::session::SessionId;
    use mio::{Events, Poll};
    use std::time::Duration;

    fn mail<S>() -> Mail<S> {
        Mail::Look { asker: 0 }
    }

    #[test]
    fn a_full_box_gives_the_mail_back_and_one_wake_serves_many() {
        let mut poll = Poll::new().unwrap();
        let (sender, mailbox) = mailbox::<()>(2, 1, poll.registry(), Token(0)).unwrap();
        assert!(sender.send(mail()).is_ok() && sender.has_room() && sender.send(mail()).is_ok());
        assert!(!sender.has_room() && sender.send(mail()).is_err());
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().count(), 1);
        mailbox.opened();
        assert!(mailbox.receive().is_some() && mailbox.receive().is_some());
        assert!(mailbox.receive().is_none());
        // And the next one wakes again, as does a wake without mail.
        for wake in [|sender: &MailSender<()>| sender.send(mail()).unwrap(), MailSender::wake] {
            mailbox.opened();
            wake(&sender);
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert_eq!(events.iter().count(), 1);
        }
        drop(mailbox);
        assert!(sender.send(mail()).is_ok(), "to nobody");
    }

    #[test]
    fn an_answer_finds_room_in_a_full_box() {
        let poll = Poll::new().unwrap();
        let (sender, mailbox) = mailbox::<()>(1, 1, poll.registry(), Token(0)).unwrap();
        sender.send(mail()).unwrap();
        let job = Job { id: JobId(0), work: in_a_box(|_| ()), progress: Arc::default() };
        sender.send_answer(job.run().unwrap());
        assert!(matches!(mailbox.receive(), Some(Mail::Finished(_))));
        assert!(matches!(mailbox.receive(), Some(Mail::Look { .. })));
    }

    #[test]
    fn what_a_shared_store_says_comes_in_order_and_a_full_box_gives_takeovers_back() {
        let poll = Poll::new().unwrap();
        let (sender, mailbox) = mailbox::<()>(1, 1, poll.registry(), Token(0)).unwrap();
        let takeover = |generation| Takeover { id: SessionId::parse("a").unwrap(), generation };
        sender.send(mail()).unwrap();
        for generation in 0..TAKEOVERS_MOST as u64 {
            sender.send_takeover(takeover(generation)).unwrap();
        }
        assert_eq!(sender.send_takeover(takeover(9)), Err(takeover(9)));
        sender.send_outcome(Outcome::Unavailable { number: 1 });
        sender.send_outcome(Outcome::Unavailable { number: 2 });
        let next = || match mailbox.receive() {
            Some(Mail::Settled(Outcome::Unavailable { number })) => ("batch", number),
            Some(Mail::TakenOver(takeover)) => ("takeover", takeover.generation),
            Some(Mail::Look { .. }) => ("mail", 0),
            other => panic!("{other:?}"),
        };
        assert_eq!([next(), next()], [("batch", 1), ("batch", 2)]);
        for generation in 0..TAKEOVERS_MOST as u64 {
            assert_eq!(next(), ("takeover", generation));
        }
        assert_eq!(next(), ("mail", 0));
        assert!(mailbox.receive().is_none());
        sender.send_takeover(takeover(7)).unwrap();
        assert_eq!(next(), ("takeover", 7));
        sender.send_stored(5);
        assert!(matches!(mailbox.receive(), Some(Mail::Stored(5))));
    }

    impl Flag for loom::sync::atomic::AtomicBool {
        fn exchange(&self, value: bool) -> bool {
            self.swap(value, Ordering::AcqRel)
        }
    }

    /// Every interleaving of two senders and a receiver that goes to sleep twice. What they share is
    /// written and read without any ordering of its own, so that the flag has to give it.
    #[test]
    fn no_wake_is_lost_in_any_interleaving() {
        use loom::sync::atomic::{AtomicBool, AtomicUsize};
        use loom::sync::{Arc, Notify};
        use loom::thread;

        struct Shared {
            flag: WakeFlag<AtomicBool>,
            said: [AtomicUsize; 2],
            waker: Notify,
        }

        loom::model(|| {
            let shared = Arc::new(Shared {
                flag: WakeFlag::default(),
                said: [AtomicUsize::new(0), AtomicUsize::new(0)],
                waker: Notify::new(),
            });
            let senders = [0, 1].map(|sender| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.said[sender].store(1, Ordering::Relaxed);
                    if shared.flag.raise() == Raised::First {
                        shared.waker.notify();
                    }
                })
            });
            // A lost wake is a receiver that sleeps for ever, which the model reports.
            let mut heard = 0;
            while heard < 2 {
                shared.waker.wait();
                shared.flag.lower();
                heard = shared.said.iter().map(|said| said.load(Ordering::Relaxed)).sum();
            }
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }
}

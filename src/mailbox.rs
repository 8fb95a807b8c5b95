//! The only way into a reactor from outside: a bounded channel and a waker.
//!
//! Many senders, one receiver. A full box gives the mail back; what to do with it is the sender's
//! decision (a shard keeps it and stops reading). Wakes are coalesced: while one is on its way, a
//! further mail needs none.
//!
//! Invariant: if there is mail and the receiver sleeps, a wake is on its way.
//!
//! Next: [`crate::metrics`]: how they learn something without asking.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mio::{Registry, Token, Waker};

use crate::application::Broadcast;
use crate::door::Place;
use crate::offload::Finished;
use crate::picture::Picture;

/// A connection on its way to the reactor that owns its session, as a plain value: the socket,
/// what was read from it, and what has not been written. The owner reads the request again from
/// its bytes; that costs a microsecond and saves a second, owned form of a request.
#[derive(Debug)]
pub struct Parcel<S> {
    /// The socket, registered nowhere.
    pub stream: S,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// Everything read and not taken, from the request's first byte on.
    pub received: Vec<u8>,
    /// Responses to earlier requests that the socket has not taken yet.
    pub unsent: Vec<u8>,
    /// When the handshake has to be over.
    pub deadline: Instant,
    /// Its place among the sockets, if those are counted.
    pub place: Option<Place>,
}

/// What one reactor, or the server's handle, tells another.
#[derive(Debug)]
pub enum Mail<S> {
    /// A connection for a session that you own.
    HandOver(Parcel<S>),
    /// A frame for every open connection of yours.
    Broadcast(Broadcast),
    /// A job that you off-loaded is done.
    Finished(Finished),
    /// Somebody watches on reactor `asker`: it wants a picture of your slab.
    Look {
        /// Who asks.
        asker: usize,
    },
    /// The picture that you asked for.
    Seen(Picture),
    /// Drain and end.
    Shutdown,
}

/// The receiving end.
#[derive(Debug)]
pub struct Mailbox<S> {
    receiver: Receiver<Mail<S>>,
    wake_pending: Arc<AtomicBool>,
}

/// A sending end; cheap to clone.
#[derive(Debug)]
pub struct MailSender<S> {
    sender: Sender<Mail<S>>,
    wake_pending: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl<S> Clone for MailSender<S> {
    fn clone(&self) -> Self {
        MailSender {
            sender: self.sender.clone(),
            wake_pending: self.wake_pending.clone(),
            waker: self.waker.clone(),
        }
    }
}

/// A mailbox of `capacity` mails whose waker fires `token` on `registry`.
///
/// # Errors
///
/// When the system has no descriptor left for the waker.
pub fn mailbox<S>(
    capacity: usize,
    registry: &Registry,
    token: Token,
) -> io::Result<(MailSender<S>, Mailbox<S>)> {
    let (sender, receiver) = bounded(capacity);
    let wake_pending = Arc::new(AtomicBool::new(false));
    let waker = Arc::new(Waker::new(registry, token)?);
    Ok((
        MailSender { sender, wake_pending: wake_pending.clone(), waker },
        Mailbox { receiver, wake_pending },
    ))
}

impl<S> MailSender<S> {
    /// Sends, and wakes the receiver. To a reactor that has ended nothing is sent, and the mail is
    /// dropped: a socket in it closes.
    ///
    /// # Errors
    ///
    /// The mail itself, when the box is full.
    pub fn send(&self, mail: Mail<S>) -> Result<(), Mail<S>> {
        match self.sender.try_send(mail) {
            Ok(()) => self.wake(),
            Err(TrySendError::Full(mail)) => return Err(mail),
            Err(TrySendError::Disconnected(_)) => {}
        }
        Ok(())
    }

    /// Sends, and waits for room if there is none. Not for a reactor: two that wait for each
    /// other's room would wait for ever.
    pub fn send_waiting(&self, mail: Mail<S>) {
        if self.sender.send(mail).is_ok() {
            self.wake();
        }
    }

    fn wake(&self) {
        // The mail is in the channel before the flag is looked at; `receive` clears the flag
        // before it looks at the channel. One of the two sees the other.
        if !self.wake_pending.swap(true, Ordering::AcqRel)
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
        self.wake_pending.swap(false, Ordering::AcqRel);
    }

    /// The next mail, if there is one.
    #[must_use]
    pub fn receive(&self) -> Option<Mail<S>> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    #[test]
    fn a_full_box_gives_the_mail_back_and_one_wake_serves_many() {
        let mut poll = Poll::new().unwrap();
        let (sender, mailbox) = mailbox::<()>(2, poll.registry(), Token(0)).unwrap();
        assert!(sender.send(Mail::Shutdown).is_ok() && sender.send(Mail::Shutdown).is_ok());
        assert!(matches!(sender.send(Mail::Shutdown), Err(Mail::Shutdown)));
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().count(), 1);
        mailbox.opened();
        assert!(mailbox.receive().is_some() && mailbox.receive().is_some());
        assert!(mailbox.receive().is_none());
        // And the next one wakes again.
        sender.send(Mail::Shutdown).unwrap();
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().count(), 1);
        drop(mailbox);
        assert!(sender.send(Mail::Shutdown).is_ok(), "to nobody");
    }

    #[test]
    fn whoever_may_wait_waits_for_room_or_for_the_end() {
        let poll = Poll::new().unwrap();
        let (sender, mailbox) = mailbox::<()>(1, poll.registry(), Token(0)).unwrap();
        let waiting = std::thread::spawn(move || {
            for _ in 0..100 {
                sender.send_waiting(Mail::Shutdown);
            }
        });
        // However fast the other side is, it gets nowhere but through here.
        for _ in 0..50 {
            while mailbox.receive().is_none() {
                std::thread::yield_now();
            }
        }
        drop(mailbox);
        waiting.join().unwrap();
    }
}

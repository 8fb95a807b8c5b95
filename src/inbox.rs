//! A bounded channel that keeps nothing when its receiver is gone.
//!
//! With crossbeam's channel alone, what was put in just before the receiver went lies there until the last sender goes
//! too: a socket in it stays open, and a thread that waits for an answer waits for ever. Here whoever comes too late
//! takes it out: the receiver as it goes, or the sender that sees that it has gone. Used by `mailbox` and by the posts
//! (`application/remote.rs`).
//!
//! Invariant: once the receiver is gone and each send has returned, the channel is empty.
//!
//! Next: [`crate::one_writer_cell`]: what metrics are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// The sending end; cheap to clone.
#[derive(Debug)]
pub struct InboxSender<T> {
    sender: Sender<T>,
    /// To take out what nobody else will.
    receiver: Receiver<T>,
    is_closed: Arc<AtomicBool>,
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        InboxSender {
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            is_closed: self.is_closed.clone(),
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Inbox<T> {
    receiver: Receiver<T>,
    is_closed: Arc<AtomicBool>,
}

/// Why something was not taken, and that itself.
#[derive(Debug)]
pub enum NotSent<T> {
    /// There is no room.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A channel with room for so many.
#[must_use]
pub fn inbox<T>(capacity: usize) -> (InboxSender<T>, Inbox<T>) {
    let (sender, receiver) = bounded(capacity);
    let is_closed = Arc::new(AtomicBool::new(false));
    let inbox = Inbox { receiver: receiver.clone(), is_closed: is_closed.clone() };
    (InboxSender { sender, receiver, is_closed }, inbox)
}

impl<T> InboxSender<T> {
    /// Puts something in, without waiting. If the receiver goes in this very moment, it is taken and dropped.
    ///
    /// # Errors
    ///
    /// What was to be sent.
    pub fn send(&self, value: T) -> Result<(), NotSent<T>> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(NotSent::Closed(value));
        }
        self.sender.try_send(value).map_err(|error| match error {
            TrySendError::Full(value) => NotSent::Full(value),
            TrySendError::Disconnected(value) => NotSent::Closed(value),
        })?;
        // Sequentially consistent with the receiver's store: if this does not see it, the receiver's last look finds
        // what was sent.
        if self.is_closed.load(Ordering::SeqCst) {
            empty(&self.receiver);
        }
        Ok(())
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Whether there is no room now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.sender.is_full()
    }
}

impl<T> Inbox<T> {
    /// The next, if there is one.
    #[must_use]
    pub fn receive(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Takes nothing more: what is there is dropped, and whoever sends is told.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        empty(&self.receiver);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.close();
    }
}

fn empty<T>(receiver: &Receiver<T>) {
    while receiver.try_recv().is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn what_is_sent_is_received_in_order_and_a_full_one_gives_it_back() {
        let (sender, inbox) = inbox(2);
        assert!(sender.send(1).is_ok() && sender.clone().send(2).is_ok());
        assert!(sender.is_full() && matches!(sender.send(3), Err(NotSent::Full(3))));
        assert_eq!([inbox.receive(), inbox.receive(), inbox.receive()], [Some(1), Some(2), None]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_closed_one_keeps_nothing_and_takes_nothing() {
        let (sender, inbox) = inbox(8);
        let value = Arc::new(());
        assert!(sender.send(value.clone()).is_ok());
        inbox.close();
        assert_eq!(Arc::strong_count(&value), 1);
        assert!(matches!(sender.send(value), Err(NotSent::Closed(_))));
    }

    #[test]
    fn whoever_is_too_late_keeps_nothing_there() {
        for _ in 0..300 {
            let (sender, inbox) = inbox(64);
            let (value, start) = (Arc::new(()), Arc::new(Barrier::new(3)));
            let threads = [(); 2].map(|()| {
                let (sender, value, start) = (sender.clone(), value.clone(), start.clone());
                thread::spawn(move || {
                    start.wait();
                    while sender.send(value.clone()).is_ok() {}
                })
            });
            start.wait();
            let _ = inbox.receive();
            drop(inbox);
            // A full one ends the loop too, but then there is nothing in it either, once it is closed.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(Arc::strong_count(&value), 1, "something is left");
        }
    }
}

//! How a callback off-loads work, and takes it back.
//!
//! Only notes what is asked for: the shard sends it to the pool when the callback has returned. Called by
//! applications.
//!
//! Invariant: what is noted here is sent, or ends its connection, in the same turn.
//!
//! Next: `enqueueing`: the same for workers of Celery and RQ.

use super::admission::Source;
use super::jobs::{Delivery, JobHandle, Owner};
use super::{Application, Commands, Context, ReactorContext};
#[cfg(doc)]
use crate::config::Limits;
use crate::offload::{Cancellation, PoolFull, in_a_box};

impl<A: Application> Commands<A> {
    /// Takes a job back; whether it was still to be answered. What waited behind it is looked at when the callback
    /// has returned.
    fn cancel_job(&mut self, owner: Owner, job: JobHandle) -> bool {
        let was_awaited = self.jobs.cancel(owner, job, self.now);
        self.has_outgoing |= was_awaited;
        was_awaited
    }
}

impl<A: Application> Context<'_, A> {
    /// Runs `job` on a thread of its own kind, so that it may wait for as long as it likes, and
    /// then `done` here, with what it returned.
    ///
    /// What one connection off-loads is answered in the order in which it was off-loaded, even if
    /// the jobs finish in another. If the WebSocket has closed by then, `done` is dropped and not
    /// called; `job` is run all the same. While a connection waits for
    /// [`Limits::offloads_per_connection`] of them, no more is read from it: with 1 there, each
    /// message is answered before the next one is heard. One that panics ends its connection with
    /// 1011; to answer it instead, let the job catch its panic ([`std::panic::catch_unwind`]), and return
    /// that it failed. A server that drains waits for the jobs under way, within the time of its drain.
    ///
    /// A job should return: its thread is held for as long as it runs. While all threads are, and other
    /// jobs wait, threads are added ([`Limits::offload_threads_extra`]). A job that runs on for
    /// [`Limits::offload_orphan_timeout`] after its connection has gone is given up: it counts for no
    /// limit any more, and no drain waits for it.
    ///
    /// ```
    /// use revolve::{Application, Context, Message};
    ///
    /// struct Fibonacci;
    /// impl Application for Fibonacci {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
    ///         let Ok(n) = text.parse() else { return cx.send_text("a number, please") };
    ///         let taken = cx.offload(
    ///             move || fibonacci(n),
    ///             |_, cx, number| cx.send_text(&number.to_string()),
    ///         );
    ///         if taken.is_err() {
    ///             cx.send_text("too busy, try again");
    ///         }
    ///     }
    /// }
    ///
    /// fn fibonacci(n: u8) -> u64 {
    ///     if n < 2 { u64::from(n) } else { fibonacci(n - 1) + fibonacci(n - 2) }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When the reactor has [`Limits::offloads_per_reactor`] jobs under way; nothing waits for
    /// room, and `job` is dropped ([`Self::offloads_left`] tells before).
    pub fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        self.off_load(Delivery::InOrder, move |_| job(), done)
    }

    /// [`Self::offload`] for a job that can end early: it is told whether anybody still waits for it.
    /// Nobody does when the WebSocket has closed, or the server has ended. What it returns then is
    /// dropped.
    ///
    /// ```
    /// use revolve::{Application, Context, Message};
    ///
    /// struct Primes;
    /// impl Application for Primes {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
    ///         let Ok(most) = text.parse::<u64>() else { return cx.send_text("a number, please") };
    ///         let taken = cx.offload_cancellable(
    ///             move |cancellation| {
    ///                 let is_prime = |n: &u64| (2..*n).all(|divisor| n % divisor != 0);
    ///                 // A client that has left costs no more than the number under way.
    ///                 let goes_on = |_: &u64| !cancellation.is_requested();
    ///                 (2..most).take_while(goes_on).filter(is_prime).count()
    ///             },
    ///             |_, cx, count| cx.send_text(&count.to_string()),
    ///         );
    ///         if taken.is_err() {
    ///             cx.send_text("too busy, try again");
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::offload`].
    pub fn offload_cancellable<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        self.off_load(Delivery::InOrder, job, done)
    }

    /// [`Self::offload`] without the order: `done` is called as soon as `job` has returned, whatever
    /// else this connection waits for, and no other answer waits for it. It counts for the same limits.
    /// The job is told whether anybody still waits for it, as with [`Self::offload_cancellable`].
    ///
    /// ```
    /// use revolve::{Application, Context, Message};
    /// # fn look_up(_: &str) -> String { String::new() }
    ///
    /// /// Answers each question when it can; the answer says to which it is.
    /// struct Library;
    /// impl Application for Library {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
    ///         let Some((number, question)) = text.split_once(' ') else { return };
    ///         let (number, question) = (number.to_owned(), question.to_owned());
    ///         let taken = cx.offload_unordered(
    ///             move |_| look_up(&question),
    ///             move |_, cx, answer| cx.send_text(&format!("{number} {answer}")),
    ///         );
    ///         if taken.is_err() {
    ///             cx.send_text("too busy, try again");
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::offload`].
    pub fn offload_unordered<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        self.off_load(Delivery::AtOnce, job, done)
    }

    /// Takes back a job that this connection has off-loaded: its `done` is dropped and not called, the answers
    /// behind it need not wait for it, and it counts no more for [`Limits::offloads_per_connection`]. A job that
    /// no thread has begun is not run; one that runs is told ([`Cancellation::is_requested`]), and may go on
    /// to its end. Whether it was still to be answered.
    ///
    /// A connection that has off-loaded as much as it may is not read, so it does not hear a client that wants
    /// to cancel: allow one more than you use.
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{Application, Context, JobHandle, Message};
    ///
    /// /// Searches one thing at a time: a new search replaces the one before it.
    /// struct Search;
    ///
    /// impl Application for Search {
    ///     type Session = ();
    ///     type Connection = Option<JobHandle>;
    ///
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return cx.close(1003, "text only") };
    ///         if let Some(former) = cx.connection_mut().take() {
    ///             cx.cancel_job(former);
    ///         }
    ///         let text = text.to_owned();
    ///         let taken = cx.offload(
    ///             move || format!("found {text}"),
    ///             |_, cx, found| cx.send_text(&found),
    ///         );
    ///         match taken {
    ///             Ok(handle) => *cx.connection_mut() = Some(handle),
    ///             Err(_) => cx.send_text("too busy, try again"),
    ///         }
    ///     }
    /// }
    ///
    /// let server = TestServer::new(|_| Search);
    /// server.hold_jobs();
    /// let client = server.connect("");
    /// client.send_text("lost");
    /// client.send_text("property");
    /// (0..server.held_jobs()).for_each(|_| server.run_job(0));
    /// assert_eq!(client.text(), "found property");
    /// ```
    pub fn cancel_job(&mut self, job: JobHandle) -> bool {
        self.commands.cancel_job(Owner::Connection(self.connection), job)
    }

    /// How many more jobs this callback may off-load ([`Limits::offloads_per_reactor`]): while it is not 0,
    /// [`Self::offload`] takes the job. So what a job is to own is moved into it only when it will be taken.
    ///
    /// ```
    /// # use revolve::{Application, Context, Message};
    /// # fn compress(bytes: Vec<u8>) -> Vec<u8> { bytes }
    /// struct Archive;
    /// impl Application for Archive {
    ///     type Session = Vec<u8>;
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Binary(bytes) = message else { return cx.close(1003, "binary only") };
    ///         cx.session_mut().extend_from_slice(bytes);
    ///         if cx.offloads_left() > 0 {
    ///             let all = std::mem::take(cx.session_mut());
    ///             let taken = cx.offload(move || compress(all), |_, cx, all| cx.send_binary(&all));
    ///             assert!(taken.is_ok());
    ///         }
    ///     }
    /// }
    /// # let server = revolve::testing::TestServer::new(|_| Archive);
    /// # let client = server.connect("");
    /// # client.send_binary(b"abc");
    /// # assert!(client.receive().is_some());
    /// ```
    #[must_use]
    pub fn offloads_left(&self) -> usize {
        self.commands.jobs.left()
    }

    fn off_load<T: Send + 'static>(
        &mut self,
        delivery: Delivery,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut Context<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        let source = Source::Job(in_a_box(job));
        let handle = self.commands.jobs.add(self.connection, delivery, source, done)?;
        self.commands.has_outgoing = true;
        self.commands.pause |= self.commands.jobs.is_busy(self.connection);
        Ok(handle)
    }
}

impl<A: Application> ReactorContext<'_, A> {
    /// Runs `job` on a thread of its own kind, and then `done` here, as [`Context::offload`] does.
    ///
    /// # Errors
    ///
    /// When the reactor has [`Limits::offloads_per_reactor`] jobs under way.
    pub fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        self.off_load(Delivery::InOrder, move |_| job(), done)
    }

    /// [`Self::offload`] for a job that can end early: it is told when the server has ended.
    ///
    /// # Errors
    ///
    /// As [`Self::offload`].
    pub fn offload_cancellable<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        self.off_load(Delivery::InOrder, job, done)
    }

    /// [`Self::offload`] without the order, as [`Context::offload_unordered`]: no answer waits for
    /// another one.
    ///
    /// # Errors
    ///
    /// As [`Self::offload`].
    pub fn offload_unordered<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        self.off_load(Delivery::AtOnce, job, done)
    }

    /// Takes back a job that this reactor has off-loaded, as [`Context::cancel_job`] does one of a connection.
    pub fn cancel_job(&mut self, job: JobHandle) -> bool {
        self.commands.cancel_job(Owner::Reactor, job)
    }

    /// How many more jobs this callback may off-load, as [`Context::offloads_left`].
    #[must_use]
    pub fn offloads_left(&self) -> usize {
        self.commands.jobs.left()
    }

    fn off_load<T: Send + 'static>(
        &mut self,
        delivery: Delivery,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + 'static,
    ) -> Result<JobHandle, PoolFull> {
        let source = Source::Job(in_a_box(job));
        let handle = self.commands.jobs.add_for_reactor(delivery, source, done)?;
        self.commands.has_outgoing = true;
        Ok(handle)
    }
}

//! The way to an application from other threads, and from the other reactors.
//!
//! A post is a closure that runs on a reactor, in one of its turns, with the application and a context. It
//! need not be about a message, and what it touches needs no lock. Each reactor has a box of posts beside
//! its mailbox: posts are let wait while the reactor cannot deliver what they may send, and mail never is.
//! A thread is told that a box is full; a callback is not: what it posts waits in the [`PostOutbox`] of its
//! reactor. Runs no post: the shard does. Made by `server.rs`, and by the test kit.
//!
//! Invariant: a post that was taken runs once, unless its recipient or its reactor is gone. The posts of one
//! reactor to another run in its order.
//!
//! Next: [`crate::application::timers`]: callbacks at a later time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::direct::Recipient;
use super::question::{ForReactor, Question, Undo};
use super::{Application, Commands, Context, ReactorContext, To};
use crate::contained::Contained;
use crate::inbox::{Inbox, InboxSender, NotSent, inbox};
use crate::offload::Finished;
use crate::session::owner_of;
use crate::store::Recovered;

/// What is to be done for one connection.
pub(crate) type ForRecipient<A> = Contained<Box<dyn FnOnce(&mut A, &mut Context<'_, A>) + Send>>;

/// What another thread wants done on a reactor.
pub(crate) enum Post<A: Application> {
    ToReactor(ForReactor<A>),
    To(Recipient, ForRecipient<A>),
    /// What another reactor wants to know.
    Question {
        asker: usize,
        question: Question<A>,
    },
    /// The answer to a question of this reactor's.
    Answer {
        finished: Finished,
        /// What is to be posted if nothing comes of it.
        undo: Option<Box<Undo<A>>>,
    },
}

impl<A: Application> Post<A> {
    fn to_reactor(
        post: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) + Send + 'static,
    ) -> Post<A> {
        Post::ToReactor(Contained::new(Box::new(post)))
    }
}

impl<A: Application> fmt::Debug for Post<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Post::ToReactor(_) => f.write_str("ToReactor"),
            Post::To(recipient, _) => f.debug_tuple("To").field(recipient).finish(),
            Post::Question { question, .. } => question.fmt(f),
            Post::Answer { finished, .. } => finished.fmt(f),
        }
    }
}

/// The posts that have come for a reactor: the receiving end.
pub struct Posts<A: Application>(Inbox<Post<A>>);

impl<A: Application> Posts<A> {
    /// The next one.
    pub(crate) fn next(&self) -> Option<Post<A>> {
        self.0.receive()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// No more is taken: who posts from now on is told that the reactor has ended.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// What callbacks of a reactor have posted, and what found a full box: it is sent when there is room.
pub(crate) struct PostOutbox<A: Application> {
    remote: Remote<A>,
    /// By destination.
    waiting: Box<[VecDeque<Post<A>>]>,
    /// How many these are: the shard asks in each turn.
    len: usize,
}

impl<A: Application> PostOutbox<A> {
    pub(crate) fn new(remote: Remote<A>) -> Self {
        let waiting = (0..remote.reactors()).map(|_| VecDeque::new()).collect();
        PostOutbox { remote, waiting, len: 0 }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sends a post, behind what is still waiting to be sent to that reactor.
    pub(crate) fn send(&mut self, reactor: usize, post: Post<A>) {
        self.waiting[reactor].push_back(post);
        self.len += 1;
        if self.waiting[reactor].len() == 1 {
            self.send_waiting_to(reactor);
        }
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn send_waiting(&mut self) {
        (0..self.waiting.len()).for_each(|reactor| self.send_waiting_to(reactor));
    }

    fn send_waiting_to(&mut self, reactor: usize) {
        while let Some(post) = self.waiting[reactor].pop_front() {
            if let Err((PostError::Full { .. }, post)) = self.remote.offer(reactor, post) {
                return self.waiting[reactor].push_front(post);
            }
            // It was taken; or that reactor has ended, and the post with it.
            self.len -= 1;
        }
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self) {
        self.waiting.iter_mut().for_each(VecDeque::clear);
        self.len = 0;
    }

    /// Checks that what is counted is there.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub(crate) fn invariants(&self) {
        assert_eq!(self.len, self.waiting.iter().map(VecDeque::len).sum::<usize>());
    }
}

impl<A: Application> Hosted<A> {
    /// An application to which nothing is posted: for tests.
    #[cfg(feature = "internals")]
    pub fn alone(application: A) -> Self {
        let remote = Remote(Arc::new([]));
        Hosted {
            application,
            posts: Posts(inbox(1).1),
            remote,
            storing: Storing::Nothing,
            recovered: None,
        }
    }
}

/// An application, and the ways to it and from it: what a shard is made of.
pub struct Hosted<A: Application> {
    /// The application.
    pub application: A,
    /// What other threads and reactors want done with it.
    pub posts: Posts<A>,
    /// The way to the reactors of its server.
    pub remote: Remote<A>,
    /// Whether its sessions are stored.
    pub storing: Storing,
    /// Where the sessions that were stored come in, once they are read; `None` if there are none to wait for.
    pub recovered: Option<Inbox<Vec<Recovered>>>,
}

/// Whether sessions are stored, and who waits for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storing {
    /// They are not.
    #[default]
    Nothing,
    /// A reply leaves when its session is stored.
    BeforeReplies,
    /// Nobody waits.
    BehindReplies,
}

/// Ends a reactor's sleep.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A reactor's box of posts: the sending end.
struct PostBox<A: Application> {
    posts: InboxSender<Post<A>>,
    wake: Wake,
}

/// The way to the reactors of a running server, from any thread ([`crate::ServerHandle::remote`]). Cheap to
/// clone.
///
/// Nothing here waits. A box that is full is an answer ([`PostError::Full`]), and so is a server that has
/// ended.
///
/// ```
/// use revolve::{Application, Context, Message, Recipient, Server};
///
/// struct News;
/// impl Application for News {
///     type Session = ();
///     type Connection = ();
///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
/// }
///
/// let server = Server::builder().port(0).serve(|_| News)?;
/// let remote = server.remote();
/// std::thread::spawn(move || {
///     // To one client, wherever it is; and to all, from one reactor.
///     remote.post_to(Recipient::session("ann"), |_, cx| cx.send_text("for you"))?;
///     remote.post_all(|_, cx| cx.send_text_to_all("for everybody"))
/// })
/// .join()
/// .unwrap()
/// .unwrap();
/// server.shutdown();
/// server.join();
/// # Ok::<(), revolve::ServeError>(())
/// ```
pub struct Remote<A: Application>(Arc<[PostBox<A>]>);

impl<A: Application> Clone for Remote<A> {
    fn clone(&self) -> Self {
        Remote(self.0.clone())
    }
}

impl<A: Application> fmt::Debug for Remote<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("reactors", &self.reactors()).finish_non_exhaustive()
    }
}

impl<A: Application> Remote<A> {
    /// Boxes of `capacity` posts, for the reactors that these wake; and their receiving ends.
    pub(crate) fn new(
        capacity: usize,
        wakes: impl IntoIterator<Item = Wake>,
    ) -> (Self, Vec<Posts<A>>) {
        let ends = wakes.into_iter().map(|wake| {
            let (posts, receiver) = inbox(capacity);
            (PostBox { posts, wake }, Posts(receiver))
        });
        let (boxes, receivers): (Vec<_>, Vec<_>) = ends.unzip();
        (Remote(boxes.into()), receivers)
    }

    /// How many reactors there are; their numbers begin at 0.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.0.len()
    }

    /// Has `post` run on a reactor, with its application. One sender's posts to a reactor run in its
    /// order. One that panics is counted and logged, and ends nothing. One that was taken and has not run when the
    /// reactor ends is dropped: so a thread that waits for its answer is told by what the post held (a channel's end).
    ///
    /// # Errors
    ///
    /// When that reactor's box is full, or it has ended; then the post is dropped.
    ///
    /// # Panics
    ///
    /// If there is no reactor with this number.
    pub fn post(
        &self,
        reactor: usize,
        post: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) + Send + 'static,
    ) -> Result<(), PostError> {
        self.put(reactor, Post::to_reactor(post))
    }

    /// Has `post` run on every reactor.
    ///
    /// # Errors
    ///
    /// The first reactor's; the post runs on all the others all the same.
    pub fn post_all(
        &self,
        post: impl Fn(&mut A, &mut ReactorContext<'_, A>) + Clone + Send + 'static,
    ) -> Result<(), PostError> {
        let posted = (0..self.reactors()).map(|reactor| self.post(reactor, post.clone()));
        // All of them, and not only those before the first error.
        posted.collect::<Vec<_>>().into_iter().collect()
    }

    /// Has `post` run for one connection, on whichever reactor it is, if there is one when it gets there: with
    /// its context, as a callback of its own. So one that panics ends that connection with 1011. What it sends
    /// counts as a broadcast does: a peer for which more than
    /// [`Config::max_send_buffer`](crate::Config::max_send_buffer) waits gets 1008 instead.
    ///
    /// Of several connections that share a session, it runs for the one that came last.
    ///
    /// If there is nobody (any more), the post is dropped there, and counted in
    /// `revolve_undelivered_total`.
    ///
    /// # Errors
    ///
    /// When that reactor's box is full, or it has ended; then the post is dropped.
    pub fn post_to(
        &self,
        to: impl Into<Recipient>,
        post: impl FnOnce(&mut A, &mut Context<'_, A>) + Send + 'static,
    ) -> Result<(), PostError> {
        let to = to.into();
        let reactor = reactor_of(&to, self.reactors());
        self.put(reactor, Post::To(to, Contained::new(Box::new(post))))
    }

    fn put(&self, reactor: usize, post: Post<A>) -> Result<(), PostError> {
        self.offer(reactor, post).map_err(|(error, _)| error)
    }

    /// Puts a post into a reactor's box, or gives it back.
    fn offer(&self, reactor: usize, post: Post<A>) -> Result<(), (PostError, Post<A>)> {
        let reactors = self.reactors();
        assert!(reactor < reactors, "reactor {reactor} of {reactors}");
        let to = &self.0[reactor];
        match to.posts.send(post) {
            Ok(()) => {
                (to.wake)();
                Ok(())
            }
            Err(NotSent::Full(post)) => Err((PostError::Full { reactor }, post)),
            Err(NotSent::Closed(post)) => Err((PostError::Ended, post)),
        }
    }
}

/// Where a recipient is, if anywhere. An id of another server's may name a reactor that this one has not: any one
/// counts it.
fn reactor_of(to: &Recipient, reactors: usize) -> usize {
    let reactor = match &to.0 {
        To::Connection(id) => id.reactor(),
        To::Session(id) => owner_of(id.text().as_str(), reactors),
        To::Nobody => 0,
    };
    if reactor < reactors { reactor } else { 0 }
}

impl<A: Application> Commands<A> {
    fn post_to(
        &mut self,
        to: Recipient,
        post: impl FnOnce(&mut A, &mut Context<'_, A>) + Send + 'static,
    ) {
        let reactor = reactor_of(&to, self.reactors);
        self.post(reactor, Post::To(to, Contained::new(Box::new(post))));
    }

    /// Gives back what a question has taken.
    pub(super) fn undo(&mut self, undo: Undo<A>) {
        self.post(undo.reactor, Post::ToReactor(undo.post));
    }

    fn post(&mut self, reactor: usize, post: Post<A>) {
        let reactors = self.reactors;
        assert!(reactor < reactors, "reactor {reactor} of {reactors}");
        self.posts.push((reactor, post));
        self.has_outgoing = true;
    }

    fn post_all(
        &mut self,
        post: impl Fn(&mut A, &mut ReactorContext<'_, A>) + Clone + Send + 'static,
    ) {
        (0..self.reactors).for_each(|reactor| self.post(reactor, Post::to_reactor(post.clone())));
    }
}

impl<A: Application> Context<'_, A> {
    /// Has `post` run on a reactor of this server, this one or another, with the application there. So what is
    /// about a room, a game, an account lives on one reactor, of which every other one knows the number
    /// ([`crate::owner_of`] of its name, and [`Self::reactors`]), and needs no lock.
    ///
    /// It runs in a later turn, once, unless that reactor has ended. What one reactor posts to another runs in
    /// its order, but it may overtake what was sent before with [`Self::send_text_to`] or a broadcast, and be
    /// overtaken by it. It is not refused when the other reactor has much to do: it waits here, and meanwhile
    /// this connection is not read, and when [`crate::Limits::mails_waiting_most`] wait, no other one here
    /// is. ([`Remote::post`] is for other threads: it has no connection that could wait, so it answers.)
    ///
    /// One that panics is counted and logged, and ends nothing: no connection has it. A post may post in its
    /// turn. One that posts more than one for each that runs has nobody who could wait
    /// for it: what it posts can grow without bound.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use revolve::{Application, Context, Message, owner_of};
    ///
    /// /// A board of scores: each name's score is kept on one reactor.
    /// #[derive(Default)]
    /// struct Scores(HashMap<String, u64>);
    ///
    /// impl Application for Scores {
    ///     type Session = ();
    ///     type Connection = ();
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(name) = message else { return cx.close(1003, "text only") };
    ///         let (name, me) = (name.to_owned(), cx.connection_id());
    ///         cx.post(owner_of(&name, cx.reactors()), move |scores, cx| {
    ///             let score = scores.0.entry(name).or_default();
    ///             *score += 1;
    ///             cx.send_text_to(me, &score.to_string());
    ///         });
    ///     }
    /// }
    ///
    /// let server = revolve::testing::TestServer::new(|_| Scores::default());
    /// let (ann, bob) = (server.connect(""), server.connect(""));
    /// ann.send_text("chess");
    /// assert_eq!(ann.text(), "1");
    /// bob.send_text("chess");
    /// assert_eq!(bob.text(), "2");
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no reactor with this number.
    pub fn post(
        &mut self,
        reactor: usize,
        post: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) + Send + 'static,
    ) {
        self.commands.post(reactor, Post::to_reactor(post));
    }

    /// Has `post` run on every reactor, this one included, as [`Self::post`] does on one.
    pub fn post_all(
        &mut self,
        post: impl Fn(&mut A, &mut ReactorContext<'_, A>) + Clone + Send + 'static,
    ) {
        self.commands.post_all(post);
    }

    /// Has `post` run for one connection, on whichever reactor it is, with its context, as [`Remote::post_to`] does,
    /// and in a later turn. So what one connection brings about changes another one's session; and a callback that has
    /// much to do goes on in a later turn, with a post to its own connection.
    ///
    /// It waits for room as [`Self::post`] does. If there is nobody (any more), it is dropped there, and counted in
    /// `revolve_undelivered_total`.
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{Application, Context, Message, Recipient};
    ///
    /// /// `bob 5` gives 5 points to bob, who is told how many he has.
    /// struct Points;
    ///
    /// impl Application for Points {
    ///     type Session = u64;
    ///     type Connection = ();
    ///
    ///     fn on_message(&mut self, cx: &mut Context<'_, Self>, message: Message<'_>) {
    ///         let Message::Text(text) = message else { return };
    ///         let Some((name, points)) = text.split_once(' ') else { return };
    ///         let Ok(points) = points.parse::<u64>() else { return };
    ///         cx.post_to(Recipient::session(name), move |_, cx| {
    ///             *cx.session_mut() += points;
    ///             let sum = cx.session().to_string();
    ///             cx.send_text(&sum);
    ///         });
    ///     }
    /// }
    ///
    /// let server = TestServer::new(|_| Points);
    /// let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
    /// ann.send_text("bob 5");
    /// ann.send_text("bob 2");
    /// assert_eq!((bob.text(), bob.text()), ("5".to_owned(), "7".to_owned()));
    /// ```
    pub fn post_to(
        &mut self,
        to: impl Into<Recipient>,
        post: impl FnOnce(&mut A, &mut Context<'_, A>) + Send + 'static,
    ) {
        self.commands.post_to(to.into(), post);
    }
}

impl<A: Application> ReactorContext<'_, A> {
    /// Has `post` run on a reactor of this server, as [`Context::post`] does. While it waits, no connection is
    /// held.
    ///
    /// # Panics
    ///
    /// If there is no reactor with this number.
    pub fn post(
        &mut self,
        reactor: usize,
        post: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) + Send + 'static,
    ) {
        self.commands.post(reactor, Post::to_reactor(post));
    }

    /// Has `post` run on every reactor, this one included, as [`Self::post`] does on one.
    pub fn post_all(
        &mut self,
        post: impl Fn(&mut A, &mut ReactorContext<'_, A>) + Clone + Send + 'static,
    ) {
        self.commands.post_all(post);
    }

    /// Has `post` run for one connection, as [`Context::post_to`] does. While it waits, no connection is held.
    pub fn post_to(
        &mut self,
        to: impl Into<Recipient>,
        post: impl FnOnce(&mut A, &mut Context<'_, A>) + Send + 'static,
    ) {
        self.commands.post_to(to.into(), post);
    }
}

/// Why a post was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PostError {
    /// That reactor has not run as many posts yet as its box holds ([`crate::Limits::mailbox_capacity`]).
    Full {
        /// Which one.
        reactor: usize,
    },
    /// The reactor has ended.
    Ended,
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostError::Full { reactor } => {
                write!(f, "the box of reactor {reactor} is full: try again later")
            }
            PostError::Ended => f.write_str("the server has ended"),
        }
    }
}

impl std::error::Error for PostError {}

/// What a reactor's application is made with.
#[derive(Debug)]
pub struct ReactorStart<A: Application> {
    pub(crate) reactor: usize,
    pub(crate) remote: Remote<A>,
}

impl<A: Application> ReactorStart<A> {
    /// The reactor's number, from 0.
    #[must_use]
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// The way to all reactors of this server, for threads of the application's own. What is posted before
    /// the server serves runs when it does.
    #[must_use]
    pub fn remote(&self) -> &Remote<A> {
        &self.remote
    }
}

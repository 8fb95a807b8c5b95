//! The way to an application from threads that are not its reactors'.
//!
//! A post is a closure that runs on a reactor, in one of its turns, with the application and a context. It
//! need not be about a message, and what it touches needs no lock. Each reactor has a box of posts beside
//! its mailbox: posts are let wait while the reactor cannot deliver what they may send, and mail never is.
//! Runs no post: the shard does. Made by `server.rs`, and by the test kit.
//!
//! Invariant: a post that was taken runs once, unless its recipient or its reactor is gone.
//!
//! Next: [`crate::application::timers`]: callbacks at a later time.

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::direct::Recipient;
use super::{Application, Context, ReactorContext, To};
use crate::contained::Contained;
use crate::session::owner_of;

type ForReactor<A> = Contained<Box<dyn FnOnce(&mut A, &mut ReactorContext<'_, A>) + Send>>;
type ForRecipient<A> = Contained<Box<dyn FnOnce(&mut A, &mut Context<'_, A>) + Send>>;

/// What another thread wants done on a reactor.
pub(crate) enum Post<A: Application> {
    ToReactor(ForReactor<A>),
    To(Recipient, ForRecipient<A>),
}

/// The posts that have come for a reactor: the receiving end.
pub struct Posts<A: Application>(Receiver<Post<A>>);

impl<A: Application> Posts<A> {
    /// The next one.
    pub(crate) fn next(&self) -> Option<Post<A>> {
        self.0.try_recv().ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<A: Application> Hosted<A> {
    /// An application to which nothing is posted: for tests.
    #[cfg(feature = "internals")]
    pub fn alone(application: A) -> Self {
        Hosted { application, posts: Posts(crossbeam_channel::never()) }
    }
}

/// An application, and the posts for it: what a shard is made of.
pub struct Hosted<A: Application> {
    /// The application.
    pub application: A,
    /// What other threads want done with it.
    pub posts: Posts<A>,
}

/// Ends a reactor's sleep.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A reactor's box of posts: the sending end.
struct PostBox<A: Application> {
    posts: Sender<Post<A>>,
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
            let (posts, receiver) = bounded(capacity);
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
    /// order.
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
        self.put(reactor, Post::ToReactor(Contained::new(Box::new(post))))
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

    /// Has `post` run for one connection, on whichever reactor it is: with its context, as a callback of
    /// its own. What it sends counts as a broadcast does: a peer that has not taken what it was sent
    /// before gets 1008 instead.
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
        let reactor = match &to.0 {
            To::Connection(id) => id.reactor(),
            To::Session(id) => owner_of(id.text().as_str(), self.reactors()),
            To::Nobody => 0,
        };
        // An id of another server's may name a reactor that this one has not: any one counts it.
        let reactor = if reactor < self.reactors() { reactor } else { 0 };
        self.put(reactor, Post::To(to, Contained::new(Box::new(post))))
    }

    fn put(&self, reactor: usize, post: Post<A>) -> Result<(), PostError> {
        let to = &self.0[reactor];
        match to.posts.try_send(post) {
            Ok(()) => {
                (to.wake)();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(PostError::Full { reactor }),
            Err(TrySendError::Disconnected(_)) => Err(PostError::Ended),
        }
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

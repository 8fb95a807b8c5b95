//! A question to another reactor: what travels there, and what comes back.
//!
//! For the reactor that asks it is a job like another one (`jobs`), but no thread does it: it travels as a
//! post, runs there with the application, and its value comes back as a post. So it waits for room as posts
//! do, and nothing is locked. What a question takes there is given back there, by a post, if nothing comes of
//! the answer. Sends nothing itself: the shard does.
//!
//! Invariant: a question that was taken is answered once, even if it panics, unless who asked has given it up
//! or its reactor has ended. One that has run without a panic is undone once, or what it was asked for has
//! come about, or one of the two reactors has ended.
//!
//! Next: `admission`: who may come in, and what is said to them.

use std::fmt;
use std::sync::Arc;

use super::{Application, ReactorContext};
use crate::contained::Contained;
use crate::offload::{JobId, Progress, Value, boxed};

/// What is to be done with an application.
pub(crate) type ForReactor<A> =
    Contained<Box<dyn FnOnce(&mut A, &mut ReactorContext<'_, A>) + Send>>;

type AskReactor<A> = dyn FnOnce(&mut A, &mut ReactorContext<'_, A>) -> Returned<A> + Send;

/// What a question returns.
pub(crate) struct Returned<A: Application> {
    pub(crate) value: Value,
    /// What gives back what it has taken, if it takes anything.
    pub(crate) undo: Option<ForReactor<A>>,
}

/// What is to be asked.
pub(crate) type Ask<A> = Contained<Box<AskReactor<A>>>;

/// What gives back what a question has taken, on the reactor that was asked.
pub(crate) struct Undo<A: Application> {
    pub(crate) reactor: usize,
    pub(crate) post: ForReactor<A>,
}

/// A question of which the answer is of any type.
pub(crate) fn asking<A: Application, T: Send + 'static>(
    question: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> T + Send + 'static,
) -> Ask<A> {
    Contained::new(Box::new(|application: &mut A, cx: &mut ReactorContext<'_, A>| Returned {
        value: boxed(question(application, cx)),
        undo: None,
    }))
}

/// A question that takes something, and what gives it back.
pub(crate) fn asking_with_undo<A: Application, T: Clone + Send + 'static>(
    question: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> T + Send + 'static,
    undo: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + Send + 'static,
) -> Ask<A> {
    Contained::new(Box::new(|application: &mut A, cx: &mut ReactorContext<'_, A>| {
        let value = question(application, cx);
        let taken = value.clone();
        let undo = move |application: &mut A, cx: &mut ReactorContext<'_, A>| {
            undo(application, cx, taken);
        };
        Returned { value: boxed(value), undo: Some(Contained::new(Box::new(undo))) }
    }))
}

/// A question on its way.
pub(crate) struct Question<A: Application> {
    /// Which job of the asking reactor this is.
    pub(crate) id: JobId,
    pub(crate) ask: Ask<A>,
    pub(crate) progress: Arc<Progress>,
}

impl<A: Application> fmt::Debug for Question<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Question").field(&self.id).finish()
    }
}

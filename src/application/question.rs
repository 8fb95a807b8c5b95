//! A question to another reactor: what travels there, and what comes back.
//!
//! For the reactor that asks it is a job like another one (`jobs`), but no thread does it: it travels as a
//! post, runs there with the application, and its value comes back as a post. So it waits for room as posts
//! do, and nothing is locked. Sends nothing itself: the shard does.
//!
//! Invariant: a question that was taken is answered once, even if it panics, unless who asked has given it up
//! or its reactor has ended.
//!
//! Next: `admission`: who may come in, and what is said to them.

use std::fmt;
use std::sync::Arc;

use super::{Application, ReactorContext};
use crate::contained::Contained;
use crate::offload::{JobId, Progress, Value, boxed};

type AskReactor<A> = dyn FnOnce(&mut A, &mut ReactorContext<'_, A>) -> Value + Send;

/// What is to be asked.
pub(crate) type Ask<A> = Contained<Box<AskReactor<A>>>;

/// A question of which the answer is of any type.
pub(crate) fn asking<A: Application, T: Send + 'static>(
    question: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> T + Send + 'static,
) -> Ask<A> {
    Contained::new(Box::new(|application: &mut A, cx: &mut ReactorContext<'_, A>| {
        boxed(question(application, cx))
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

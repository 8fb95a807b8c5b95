//! What other threads and reactors want done: posts, for this reactor or for one of its connections.
//!
//! Runs them with the application. Called by the turn, behind the mail.
//!
//! Invariant: while mail or broadcasts of this reactor wait for others no post runs, because what it sent could
//! not be delivered. Posts that wait for others keep none from running: two reactors that wait for each
//! other's boxes would wait for ever.
//!
//! Next: `relayed`: for whom a proxy speaks.

use super::direct::{Whereabouts, note_undelivered};
use super::parts::Parts;
use super::turn::Turn;
use crate::application::{Application, ForRecipient, Post, Question, Returned, Undo};
use crate::environment::Environment;
use crate::observe::slow_turn::Callback;
use crate::token::LocalId;

impl<A: Application, E: Environment> Parts<A, E> {
    /// Runs a share of the posts.
    #[inline]
    pub(super) fn take_posts(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        if self.deliveries.has_posts {
            self.run_posts(turn, env);
        }
    }

    #[cold]
    fn run_posts(&mut self, turn: &mut Turn<'_>, env: &mut E) {
        let limits = &turn.setup.config.limits;
        for _ in 0..limits.mails_per_turn {
            if self.deliveries.is_congested_by_mail(limits) {
                return;
            }
            let Some(post) = self.posts.next() else {
                self.deliveries.has_posts = false;
                return;
            };
            turn.begin_step(env);
            self.run_post(post, turn);
            turn.end_step(env);
            self.forward_commands(None, turn, env);
        }
    }

    fn run_post(&mut self, post: Post<A>, turn: &mut Turn<'_>) {
        match post {
            Post::ToReactor(post) => {
                let _ = self.call_for_reactor(turn.setup, |application, cx| {
                    if let Some(post) = post.into_inner() {
                        post(application, cx);
                    }
                });
                turn.observer.slow_turns.called(Callback::Post, 1, None);
            }
            Post::To(recipient, post) => match self.find(&recipient, turn) {
                Whereabouts::Here(id) => self.run_post_for(id, post, turn),
                // It runs once: for the one that came last.
                Whereabouts::AllOf(ids) => {
                    if let Some(&last) = ids.last() {
                        self.run_post_for(last, post, turn);
                    }
                }
                Whereabouts::Elsewhere(_) | Whereabouts::Nowhere => note_undelivered(turn),
            },
            Post::Question { asker, question } => self.answer_question(asker, question, turn),
            Post::Answer { finished, undo } => {
                self.take_answer(finished, undo.map(|undo| *undo), turn);
            }
        }
    }

    /// Another reactor wants to know something. A panic is told and counted by that one, whose request it
    /// costs. If that one has given up waiting, what was taken for it is given back.
    fn answer_question(&mut self, asker: usize, question: Question<A>, turn: &mut Turn<'_>) {
        let Question { id, ask, progress } = question;
        if progress.is_given_up() {
            return;
        }
        let answer = self.invoke_for_reactor(turn.setup, |application, cx| {
            ask.into_inner().map(|ask| ask(application, cx))
        });
        turn.observer.slow_turns.called(Callback::Post, 1, None);
        let (value, undo) = match answer.ok().flatten() {
            Some(Returned { value, undo }) => (Some(value), undo),
            None => (None, None),
        };
        match (progress.answer(id, value), undo) {
            (Some(finished), undo) => {
                let reactor = turn.setup.reactor;
                let undo = undo.map(|post| Box::new(Undo { reactor, post }));
                let answer = Post::Answer { finished, undo };
                self.deliveries.post_to_reactors(vec![(asker, answer)]);
            }
            (None, Some(undo)) => self.run_post(Post::ToReactor(undo), turn),
            (None, None) => {}
        }
    }

    fn run_post_for(&mut self, id: LocalId, post: ForRecipient<A>, turn: &mut Turn<'_>) {
        self.call_aside(id, Callback::Post, turn, |application, cx| {
            if let Some(post) = post.into_inner() {
                post(application, cx);
            }
        });
    }
}

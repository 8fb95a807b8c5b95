//! An answer to a request that comes later: who finds it out, and what decides then.
//!
//! For an upgrade ([`super::Upgrade::defer`], [`super::Upgrade::ask`]) and for a plain request
//! ([`ReactorContext::respond_later`], [`ReactorContext::ask_to_respond`]). Awaits nothing: the shard does
//! (`shard/awaiting.rs`), and reads the request again when the value has come.
//!
//! Invariant: what decides is called once with the value, or dropped.
//!
//! Next: `jobs`: what follows the work that is done elsewhere.

use super::admission::{
    Acceptance, Decision, Deferred, ForRequest, ForUpgrade, Refusal, Source, Upgrade,
};
use super::question::{Ask, asking, asking_with_undo};
use super::request::HttpRequest;
use super::response::{AnswerFollows, HttpResponse, NoResponse};
use super::{Application, ReactorContext};
use crate::contained::Contained;
use crate::offload::{Cancellation, Value, in_a_box, unboxed};

fn decides_upgrade<A: Application, T: Send + 'static>(
    done: impl FnOnce(&mut A, &Upgrade<'_, A>, T) -> Result<Acceptance<A>, Refusal> + 'static,
) -> Decision<A> {
    let done: ForUpgrade<A> = Contained::new(Box::new(
        move |application: &mut A, upgrade: &Upgrade<'_, A>, value: Value| match unboxed(value) {
            Some(value) => done(application, upgrade, value),
            None => Err(Refusal::new::<500>("internal error")),
        },
    ));
    Decision::OfUpgrade(done)
}

fn decides_request<A: Application, T: Send + 'static>(
    done: impl FnOnce(
        &mut A,
        &mut ReactorContext<'_, A>,
        &HttpRequest<'_>,
        T,
    ) -> Result<HttpResponse, NoResponse>
    + 'static,
) -> Decision<A> {
    let done: ForRequest<A> = Contained::new(Box::new(
        move |application: &mut A,
              cx: &mut ReactorContext<'_, A>,
              request: &HttpRequest<'_>,
              value: Value| match unboxed(value) {
            Some(value) => done(application, cx, request, value),
            None => Ok(HttpResponse::text::<500>("internal error\n")),
        },
    ));
    Decision::OfPlain(done)
}

impl<A: Application> Upgrade<'_, A> {
    /// The answer comes later: `job` runs on a thread of its own kind, so that it may wait for as long as
    /// it likes (a token is looked up in a data base, say), and then `done` here, with what it returned
    /// and with the same request. What `done` answers is the answer.
    ///
    /// Until then nothing has happened: an older connection of the session goes on, and the session that is
    /// asked for is kept, whatever its time to live. The connection is not read. What is in the way is answered
    /// with 503: more jobs than [`crate::Limits::offloads_per_reactor`] (all jobs of the reactor share it, so
    /// bound each address with `limit_per_ip`), an answer that takes longer than
    /// [`crate::Config::timeout_handshake`], or the shutdown; and with 409 if a newer request for the same
    /// session was accepted in between. Then `done` is not called. A job that panics is a 500. `done` may defer
    /// once more, or ask ([`Self::ask`]): all of it together has that time. So what an upgrade takes (a seat,
    /// say) is taken in `done`, and never before: only what `done` accepts is followed by `on_open` or by what
    /// stands in [`Acceptance::otherwise`].
    ///
    /// ```
    /// # use revolve::{Acceptance, Application, Context, Message, Refusal, Upgrade};
    /// # fn member_of(_token: &str) -> Option<String> { None }
    /// struct Members;
    ///
    /// impl Application for Members {
    ///     type Session = Option<String>;
    ///     type Connection = ();
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         let token = upgrade.parameter("token").unwrap_or_default().into_owned();
    ///         upgrade.defer(
    ///             move || member_of(&token),
    ///             |_, upgrade, member| match member {
    ///                 None => Err(Refusal::new::<403>("members only")),
    ///                 Some(name) => {
    ///                     Ok(upgrade.accept().then(|_, cx| *cx.session_mut() = Some(name)))
    ///                 }
    ///             },
    ///         )
    ///     }
    /// #   fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// None: it returns a [`Result`] so that `on_upgrade` can end with it.
    pub fn defer<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(&mut A, &Upgrade<'_, A>, T) -> Result<Acceptance<A>, Refusal> + 'static,
    ) -> Result<Acceptance<A>, Refusal> {
        self.defer_cancellable(move |_| job(), done)
    }

    /// [`Self::defer`] for a job that can end early: it is told whether anybody still waits for it
    /// ([`super::Context::offload_cancellable`] says more). Nobody does when the client has gone, when another
    /// answer was given in between, or when the server has ended.
    ///
    /// # Errors
    ///
    /// None, as [`Self::defer`].
    pub fn defer_cancellable<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Cancellation) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &Upgrade<'_, A>, T) -> Result<Acceptance<A>, Refusal> + 'static,
    ) -> Result<Acceptance<A>, Refusal> {
        let source = Source::Job(in_a_box(job));
        Ok(Acceptance::later(Deferred { source, decision: decides_upgrade(done) }))
    }

    /// The answer comes later, as with [`Self::defer`], but from a reactor of this server: `question` runs
    /// there, in one of its turns and with its application, and then `done` here. No thread waits for it, and
    /// nothing is locked. So what is counted over the whole server is kept on one reactor, and asked there.
    ///
    /// What `question` takes (a seat, say) is taken even if `done` is not called, because the client has left
    /// meanwhile. So let it look only; one that takes something is for [`Self::ask_with_undo`].
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{
    ///     Acceptance, Application, CloseReason, Config, Context, Message, Refusal, Upgrade,
    /// };
    ///
    /// /// Reactor 0 knows how many are here.
    /// #[derive(Default)]
    /// struct Crowd {
    ///     here: usize,
    /// }
    ///
    /// impl Application for Crowd {
    ///     type Session = ();
    ///     type Connection = ();
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         upgrade.ask(
    ///             0,
    ///             |crowd, _| crowd.here,
    ///             |_, upgrade, here| match here {
    ///                 0 | 1 => Ok(upgrade.accept()),
    ///                 _ => Err(Refusal::new::<503>("too crowded")),
    ///             },
    ///         )
    ///     }
    ///
    ///     fn on_open(&mut self, cx: &mut Context<'_, Self>) {
    ///         cx.post(0, |crowd, _| crowd.here += 1);
    ///     }
    ///
    ///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    ///
    ///     fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
    ///         cx.post(0, |crowd, _| crowd.here -= 1);
    ///     }
    /// }
    ///
    /// let workers = 3.try_into().unwrap();
    /// let server = TestServer::with_config(Config { workers, ..Config::default() }, |_| Crowd::default());
    /// let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
    /// assert_eq!(server.request().query("session_id=eve").connect().unwrap_err().status, 503);
    /// ann.disconnect();
    /// assert!(server.request().query("session_id=eve").connect().is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// None, as [`Self::defer`].
    ///
    /// # Panics
    ///
    /// If there is no reactor with this number; the client then gets 500.
    pub fn ask<T: Send + 'static>(
        &self,
        reactor: usize,
        question: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> T + Send + 'static,
        done: impl FnOnce(&mut A, &Upgrade<'_, A>, T) -> Result<Acceptance<A>, Refusal> + 'static,
    ) -> Result<Acceptance<A>, Refusal> {
        self.asks(reactor, asking(question), done)
    }

    /// [`Self::ask`] with a question that takes something there, and `undo`, which gives it back there: it gets a clone
    /// of what `question` has returned. `undo` runs once if `question` has run and the WebSocket does not open, for
    /// whatever reason: `done` refuses, or panics; the server refuses (`docs/protocol.md` has the list); the answer is
    /// late, or the client has left. If [`Application::on_open`] is called, it is dropped: from then on what was taken
    /// is [`Application::on_close`]'s to give back. Only a server that ends may drop it too.
    ///
    /// A `question` that panics is not undone. Where `done` asks once more, each question has its own `undo`.
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{
    ///     Acceptance, Application, CloseReason, Config, Context, Message, Refusal, Upgrade,
    /// };
    ///
    /// /// Reactor 0 counts the seats that are free.
    /// struct Theatre {
    ///     free: u32,
    /// }
    ///
    /// impl Application for Theatre {
    ///     type Session = ();
    ///     type Connection = ();
    ///
    ///     fn on_upgrade(&mut self, upgrade: &Upgrade<'_, Self>) -> Result<Acceptance<Self>, Refusal> {
    ///         upgrade.ask_with_undo(
    ///             0,
    ///             |theatre, _| match theatre.free.checked_sub(1) {
    ///                 None => false,
    ///                 Some(free) => {
    ///                     theatre.free = free;
    ///                     true
    ///                 }
    ///             },
    ///             |theatre, _, is_seated| theatre.free += u32::from(is_seated),
    ///             |_, upgrade, is_seated| match is_seated {
    ///                 true => Ok(upgrade.accept()),
    ///                 false => Err(Refusal::new::<503>("sold out")),
    ///             },
    ///         )
    ///     }
    ///
    ///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    ///
    ///     fn on_close(&mut self, cx: &mut Context<'_, Self>, _: CloseReason) {
    ///         cx.post(0, |theatre, _| theatre.free += 1);
    ///     }
    /// }
    ///
    /// // The server has room for fewer than the theatre.
    /// let workers = 2.try_into().unwrap();
    /// let config = Config { workers, limit_concurrency: Some(workers), ..Config::default() };
    /// let server = TestServer::with_config(config, |_| Theatre { free: 3 });
    /// let (ann, bob) = (server.connect("session_id=ann"), server.connect("session_id=bob"));
    /// assert_eq!(server.request().connect().unwrap_err().status, 503);
    /// assert_eq!(server.application(0, |theatre| theatre.free), 1);
    /// ann.disconnect();
    /// assert_eq!(server.application(0, |theatre| theatre.free), 2);
    /// ```
    ///
    /// # Errors
    ///
    /// None, as [`Self::defer`].
    ///
    /// # Panics
    ///
    /// If there is no reactor with this number; the client then gets 500.
    pub fn ask_with_undo<T: Clone + Send + 'static>(
        &self,
        reactor: usize,
        question: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> T + Send + 'static,
        undo: impl FnOnce(&mut A, &mut ReactorContext<'_, A>, T) + Send + 'static,
        done: impl FnOnce(&mut A, &Upgrade<'_, A>, T) -> Result<Acceptance<A>, Refusal> + 'static,
    ) -> Result<Acceptance<A>, Refusal> {
        self.asks(reactor, asking_with_undo(question, undo), done)
    }

    fn asks<T: Send + 'static>(
        &self,
        reactor: usize,
        ask: Ask<A>,
        done: impl FnOnce(&mut A, &Upgrade<'_, A>, T) -> Result<Acceptance<A>, Refusal> + 'static,
    ) -> Result<Acceptance<A>, Refusal> {
        assert!(reactor < self.reactors, "reactor {reactor} of {}", self.reactors);
        let source = Source::Reactor(reactor, ask);
        Ok(Acceptance::later(Deferred { source, decision: decides_upgrade(done) }))
    }
}

impl<A: Application> ReactorContext<'_, A> {
    /// The response to the plain request under way comes later: `job` runs on a thread of its own kind, so that
    /// it may wait for as long as it likes, and then `done` here, with what it returned and with the same
    /// request. What `done` answers is the response. Only for [`Application::on_request`], and for such a
    /// `done`, to return.
    ///
    /// Until then the connection is not read. The client gets 503 if as many jobs are under way as
    /// [`crate::Limits::offloads_per_reactor`] allows, if the response takes longer than
    /// [`crate::Config::timeout_handshake`], or when the server ends; then `done` is not called. A job that
    /// panics is a 500.
    ///
    /// ```
    /// use revolve::testing::TestServer;
    /// use revolve::{
    ///     Application, Context, HttpRequest, HttpResponse, Message, NoResponse, ReactorContext,
    /// };
    /// # fn look_up(_: &str) -> Option<u32> { Some(3) }
    ///
    /// struct Prices;
    ///
    /// impl Application for Prices {
    ///     type Session = ();
    ///     type Connection = ();
    ///
    ///     fn on_request(
    ///         &mut self,
    ///         cx: &mut ReactorContext<'_, Self>,
    ///         request: &HttpRequest<'_>,
    ///     ) -> Result<HttpResponse, NoResponse> {
    ///         let article = request.path().to_owned();
    ///         cx.respond_later(
    ///             move || look_up(&article),
    ///             |_, _, _, price| match price {
    ///                 Some(price) => Ok(HttpResponse::text::<200>(price.to_string())),
    ///                 None => Err(NoResponse::NotFound),
    ///             },
    ///         )
    ///     }
    ///
    ///     fn on_message(&mut self, _: &mut Context<'_, Self>, _: Message<'_>) {}
    /// }
    ///
    /// let server = TestServer::new(|_| Prices);
    /// assert_eq!(server.http_request("GET", "/milk").send().text(), "3");
    /// ```
    ///
    /// # Errors
    ///
    /// Always [`NoResponse::Follows`], so that `on_request` can end with it.
    pub fn respond_later<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(
            &mut A,
            &mut ReactorContext<'_, A>,
            &HttpRequest<'_>,
            T,
        ) -> Result<HttpResponse, NoResponse>
        + 'static,
    ) -> Result<HttpResponse, NoResponse> {
        self.follows(Source::Job(in_a_box(move |_| job())), decides_request(done))
    }

    /// The response comes later, as with [`Self::respond_later`], but from a reactor of this server:
    /// `question` runs there, in one of its turns and with its application, and then `done` here. To ask
    /// several, let `done` end with the question to the next.
    ///
    /// # Errors
    ///
    /// Always [`NoResponse::Follows`], so that `on_request` can end with it.
    ///
    /// # Panics
    ///
    /// If there is no reactor with this number; the client then gets 500.
    pub fn ask_to_respond<T: Send + 'static>(
        &mut self,
        reactor: usize,
        question: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> T + Send + 'static,
        done: impl FnOnce(
            &mut A,
            &mut ReactorContext<'_, A>,
            &HttpRequest<'_>,
            T,
        ) -> Result<HttpResponse, NoResponse>
        + 'static,
    ) -> Result<HttpResponse, NoResponse> {
        let reactors = self.reactors();
        assert!(reactor < reactors, "reactor {reactor} of {reactors}");
        self.follows(Source::Reactor(reactor, asking(question)), decides_request(done))
    }

    fn follows(
        &mut self,
        source: Source<A>,
        decision: Decision<A>,
    ) -> Result<HttpResponse, NoResponse> {
        self.commands.deferred_response = Some(Deferred { source, decision });
        Err(NoResponse::Follows(AnswerFollows(())))
    }
}

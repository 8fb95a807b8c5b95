//! The application, what it is lent, and the one place where it is called.
//!
//! Every callback runs inside of [`guard`], so that a panic ends a connection and not its reactor, and
//! every [`Context`] is made in [`Runtime::invoke`]. What a callback has commanded is taken out with
//! [`Runtime::next`]; doing it is for `closing` and `callbacks`. Touches no connection but the one that
//! it is given, and no socket but through that one's outlet. Called by each step in which the
//! application has a say.
//!
//! Invariant: every callback of the application runs inside of `guard`.
//!
//! Next: `shared_sessions`: what else becomes of them where several machines share them.

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;

use super::turn::{Setup, Turn};
use crate::application::{
    Acceptance, Answer, Application, Commands, Context, Ending, ForUpgrade, NotQueued,
    ReactorContext, Refusal, SavedState, Storing, Upgrade, storage_of_cork,
};
use crate::config::{Limits, Subprotocols};
use crate::contained::{Contained, Panicked, guard};
use crate::observe::slow_turn::Callback;
use crate::offload::Value;
use crate::protocol::deflate::{DeflateParams, DeflateWriter, Deflater};
use crate::protocol::frame;
use crate::protocol::head::Request;
use crate::protocol::message::Scratch;
use crate::session::{
    Attached, Changes, EndedSession, IdSource, Joining, NotAttached, Session, SessionEnd,
    SessionId, SessionSlot, SessionTable,
};
use crate::store::{Record, Recovered, State};
use crate::token::{LocalId, Peer};
use crate::transport::Outlet;
use crate::transport::tls::ClientCertificate;

/// The session that a connection is to have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// Any new one.
    New,
    /// The one that the client names.
    Named(&'a SessionId),
    /// A new one, under an id that was drawn before.
    Drawn(&'a SessionId),
}

impl<'a> Wanted<'a> {
    /// Its id, if that is known.
    pub(super) fn id(self) -> Option<&'a SessionId> {
        match self {
            Wanted::New => None,
            Wanted::Named(id) | Wanted::Drawn(id) => Some(id),
        }
    }
}

/// The application of a reactor, its sessions, and what its callbacks write to.
pub(super) struct Runtime<A: Application> {
    pub(super) application: Contained<A>,
    pub(super) sessions: SessionTable<A::Session>,
    pub(super) ids: IdSource,
    pub(super) commands: Commands<A>,
    /// What the store has not been sent; nothing, if there is none.
    pub(super) changes: Changes,
    pub(super) is_stored: bool,
    /// What a session had counted before the callback under way.
    counted: Option<u64>,

    // Storage that every connection uses in its turn, so that none has to own it.
    pub(super) cork: Vec<u8>,
    pub(super) scratch: Scratch,
    pub(super) deflater: Deflater,
}

/// Why a WebSocket stops being open.
pub(super) enum CloseCause {
    /// The peer's Close came and was answered.
    Answered(CloseCode),
    /// The stream ended, or broke, without one.
    Lost,
    /// We say Close, and wait for the peer's.
    Ours(CloseCode, Cow<'static, str>),
    /// A newer connection takes over what it holds: its session, and its place under the limit.
    Displaced,
    /// We say Close, and ignore what the peer still sends.
    Failed(CloseCode, Cow<'static, str>),
}

impl CloseCause {
    /// What a client is told when a callback for its connection panicked.
    pub(super) fn panicked() -> CloseCause {
        CloseCause::Failed(CloseCode::Error, "internal error".into())
    }

    /// What a client is told that does not read what it is sent.
    pub(super) fn slow_consumer() -> CloseCause {
        CloseCause::Failed(CloseCode::Policy, "slow consumer".into())
    }
}

/// The connection for which the application is called.
pub(super) struct Callee<'a> {
    pub(super) id: LocalId,
    pub(super) peer: &'a Peer,
    pub(super) session: SessionSlot,
    pub(super) is_resumed: bool,
    /// Where what it says goes, and how it is deflated; nowhere, when nothing can be said any more.
    pub(super) outlet: Option<(&'a mut dyn Outlet, Option<DeflateParams>)>,
}

/// The upgrade about which the application is asked.
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request<'a, 'a>,
    pub(super) session_id: Option<&'a SessionId>,
    pub(super) peer: Peer,
    pub(super) certificate: Option<ClientCertificate<'a>>,
}

/// What a callback led to.
pub(super) enum Next {
    /// The connection goes on.
    Continue,
    /// It is not to be read until one of its jobs is done.
    Park,
    /// It ends.
    Close(CloseCause),
}

impl<A: Application> Runtime<A> {
    pub(super) fn new(application: A, storing: Storing, setup: &Setup) -> Self {
        let is_stored = storing != Storing::Nothing;
        let Setup { reactor, beginning, config, .. } = setup;
        // A session that comes from the store was left before the shard began.
        let oldest = beginning.checked_sub(config.session_ttl).filter(|_| is_stored);
        // Each reactor bounds its own share; ids spread evenly, and nothing is shared to count.
        let capacity = config.sessions_of(*reactor);
        let (ttl, policy) = (config.session_ttl, config.session_ids);
        let mut sessions = SessionTable::new(capacity, ttl, policy, oldest.unwrap_or(*beginning));
        if storing.is_shared() {
            sessions.evict_late();
        }
        Runtime {
            application: Contained::new(application),
            sessions,
            ids: IdSource::new(*reactor, config.workers.get()),
            commands: Commands::new(*reactor, *beginning, config),
            changes: Changes::new(storing.is_shared()),
            is_stored,
            counted: None,
            cork: Vec::with_capacity(storage_of_cork(&config.limits)),
            scratch: Scratch::default(),
            deflater: Deflater::new(&setup.protocol_limits),
        }
    }

    /// The application, for a test to look at. No callback runs here.
    pub(super) fn application_mut(&mut self) -> &mut A {
        self.application.get_mut()
    }

    /// A turn begins. Says whether the time of a session is over, and if so tells the table the time.
    #[inline]
    pub(super) fn note_time(&mut self, now: Instant) -> bool {
        let has_expired = self.sessions.next_expiry().is_some_and(|at| at <= now);
        if has_expired {
            self.sessions.note_time(now);
        }
        has_expired
    }

    /// Calls the application for a connection; `None` if the session is not that connection's any
    /// more. A callback over many messages gets the storage in which they are unmasked and inflated.
    // Inlined into its callers: one of them is the path of a message.
    #[inline(always)]
    pub(super) fn invoke<R>(
        &mut self,
        callee: Callee<'_>,
        callback: impl FnOnce(&mut A, &mut Context<'_, A>, &mut Scratch) -> R,
    ) -> Option<Result<R, Panicked>> {
        let Callee { id, peer, session, is_resumed, outlet } = callee;
        let Runtime { application, sessions, commands, cork, scratch, deflater, .. } = self;
        let session = sessions.of_connection(session, id)?;
        let mut nowhere = Vec::new();
        let (cork, outlet, deflate_writer) = match outlet {
            Some((outlet, params)) => {
                debug_assert!(commands.may_fill(cork), "what the cork had grown by was given back");
                let outlet: &mut dyn Outlet = outlet;
                (cork, Some(outlet), DeflateWriter::new(params, deflater))
            }
            None => (&mut nowhere, None, None),
        };
        let connection = id;
        let mut cx: Context<'_, A> = Context {
            session,
            cork,
            outlet,
            deflate_writer,
            commands,
            connection,
            peer,
            is_resumed,
        };
        let application = application.get_mut();
        Some(guard(|| callback(application, &mut cx, scratch)))
    }

    /// A callback is called that may change the session of this connection, which is to be stored: for
    /// [`Self::note_change`].
    // Not inlined, as the other one: where nothing is stored, nothing of them is on the path.
    #[inline(never)]
    pub(super) fn note_count(&mut self, slot: SessionSlot, id: LocalId) {
        self.counted = self.sessions.in_slot(slot, id).map(Session::count);
    }

    /// It has returned.
    #[inline(never)]
    pub(super) fn note_change(&mut self, slot: SessionSlot, id: LocalId) {
        if let Some(before) = self.counted.take()
            && let Some(session) = self.sessions.of_connection(slot, id)
            && session.take_change(before)
        {
            self.changes.note(slot);
        }
    }

    /// Calls the application for no WebSocket in particular.
    pub(super) fn invoke_for_reactor<R>(
        &mut self,
        setup: &Setup,
        callback: impl FnOnce(&mut A, &mut ReactorContext<'_, A>) -> R,
    ) -> Result<R, Panicked> {
        let Runtime { application, commands, .. } = self;
        let application = application.get_mut();
        let mut cx = ReactorContext { commands, metrics: setup.status.application_metrics() };
        guard(|| callback(application, &mut cx))
    }

    /// Asks the application whether an upgrade is to be accepted, or, if the job is `done` that it had
    /// off-loaded for that, what follows from what the job returned. Where it chooses no subprotocol,
    /// `subprotocols` do.
    ///
    /// # Errors
    ///
    /// It panicked.
    pub(super) fn ask(
        &mut self,
        request: Asked<'_>,
        done: Option<(ForUpgrade<A>, Value)>,
        now: Instant,
        subprotocols: &Subprotocols,
    ) -> Result<Result<Answer<A>, Refusal>, Panicked> {
        let Asked { request, session_id, peer, certificate } = request;
        let Runtime { application, sessions, commands, .. } = self;
        let session = session_id.and_then(|id| sessions.peek(id, now));
        let (reactor, reactors) = commands.place();
        let has_looked = Cell::new(false);
        let upgrade = Upgrade {
            request,
            peer,
            certificate,
            now,
            session_id,
            session,
            has_looked,
            reactor,
            reactors,
        };
        let application = application.get_mut();
        let done = done.and_then(|(done, value)| Some((done.into_inner()?, value)));
        let answer = guard(|| match done {
            None => application.on_upgrade(&upgrade),
            Some((done, value)) => done(application, &upgrade, value),
        })?;
        Ok(answer.map(|Acceptance(mut answer)| {
            if let Answer::Now(terms) = &mut answer {
                terms.complete(&upgrade, subprotocols);
            }
            answer
        }))
    }

    /// What the callbacks that have just run for this connection led to.
    pub(super) fn next(&mut self, id: LocalId, turn: &mut Turn<'_>) -> Next {
        if !self.commands.pause {
            return Next::Continue;
        }
        let cause = match self.take_ending() {
            None if self.commands.jobs.is_busy(id) => return Next::Park,
            // The session was forgotten, and that has been done.
            None => return Next::Continue,
            Some(Ending::Asked(code, reason)) => CloseCause::Ours(code, reason.into()),
            Some(Ending::NotQueued { why: NotQueued::OutOfMemory, .. }) => {
                turn.note_out_of_memory(id);
                CloseCause::Ours(CloseCode::Again, frame::OUT_OF_MEMORY.into())
            }
            Some(Ending::NotQueued { why: NotQueued::SlowConsumer, .. }) => {
                CloseCause::slow_consumer()
            }
        };
        Next::Close(cause)
    }

    /// How the callbacks that have just run have ended their connection, if they have. Unless this is
    /// followed, something else has ended it.
    pub(super) fn take_ending(&mut self) -> Option<Ending> {
        self.commands.take_ending(&mut self.cork)
    }

    /// Attaches a connection to the session that it asked for, or to a new one of which the id comes
    /// from `random`.
    ///
    /// # Errors
    ///
    /// When `random` fails.
    pub(super) fn attach(
        &mut self,
        wanted: Wanted<'_>,
        connection: (LocalId, Joining),
        turn: &mut Turn<'_>,
        mut random: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> Result<Attached, NotAttached> {
        let Runtime { application, sessions, ids, commands, changes, is_stored, .. } = self;
        let (requested, drawn) = match wanted {
            Wanted::New => (None, None),
            Wanted::Named(id) => (Some(id), None),
            Wanted::Drawn(id) => (None, Some(id)),
        };
        let fresh = || drawn.cloned().map_or_else(|| ids.next(&mut random), Ok);
        let attached = sessions.attach(requested, connection, turn.now, fresh, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
        // Else it would be found expired after a restart, however long somebody speaks for it. A claim has told that.
        if let (Ok(Attached { slot, resumed: true }), true) = (&attached, *is_stored)
            && !changes.owned.is_shared()
        {
            changes.note(*slot);
        }
        attached
    }

    /// A session comes back from the store, behind those that were left before it.
    pub(super) fn restore(&mut self, recovered: Recovered, turn: &mut Turn<'_>) {
        let Recovered { record, age_ms, .. } = recovered;
        let Record { id, count, state, .. } = record;
        let age = Duration::from_millis(age_ms);
        let since = turn.now.checked_sub(age).unwrap_or(turn.setup.beginning);
        let _ = self.put_back((id, count), state, since, turn);
    }

    /// Makes a session of what was stored, left at `since`; `None` if the application panics over all of it.
    pub(super) fn put_back(
        &mut self,
        (id, count): (SessionId, u64),
        state: Option<State>,
        since: Instant,
        turn: &mut Turn<'_>,
    ) -> Option<SessionSlot> {
        let state = guard(|| match state {
            None => A::Session::default(),
            Some(State { version, bytes }) => A::load(&SavedState { version, bytes: bytes.into() }),
        });
        let state = match state.or_else(|_| {
            turn.note_lost_state(
                &id,
                "the application panicked over the stored state of a session, which begins with a new one",
            );
            guard(A::Session::default)
        }) {
            Ok(state) => state,
            // The store still has it.
            Err(_) => return None,
        };
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        sessions.restore((id, count), state, since, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        })
    }

    /// A connection lets go of its session.
    pub(super) fn detach(&mut self, slot: SessionSlot, connection: LocalId, turn: &mut Turn<'_>) {
        if self.is_stored {
            return self.detach_stored(slot, connection, turn);
        }
        let Runtime { application, sessions, commands, .. } = self;
        sessions.detach(slot, connection, turn.now, |ended| {
            tell_end(application, commands, ended, turn);
        });
    }

    /// The same where sessions are stored: apart, so that the other one stays as short as it is.
    #[inline(never)]
    fn detach_stored(&mut self, slot: SessionSlot, connection: LocalId, turn: &mut Turn<'_>) {
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        changes.note(slot);
        sessions.detach(slot, connection, turn.now, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
    }

    /// A newer connection takes the session of this one over.
    pub(super) fn displace(&mut self, slot: SessionSlot, connection: LocalId, turn: &mut Turn<'_>) {
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        if *is_stored {
            changes.note(slot);
        }
        sessions.displace(slot, connection, turn.now, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
    }

    /// A request that held a session waits no more.
    pub(super) fn release(&mut self, session: &SessionId, turn: &mut Turn<'_>) {
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        sessions.release(session, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
    }

    /// Lets `most` sessions expire whose time is over.
    pub(super) fn expire(&mut self, most: usize, turn: &mut Turn<'_>) {
        if self.is_stored {
            return self.expire_stored(most, turn);
        }
        let Runtime { application, sessions, commands, .. } = self;
        sessions.expire(turn.now, most, |ended| tell_end(application, commands, ended, turn));
    }

    /// The same with a store.
    #[inline(never)]
    fn expire_stored(&mut self, most: usize, turn: &mut Turn<'_>) {
        if self.changes.owned.is_shared() {
            return self.expire_shared(most, turn);
        }
        let Runtime { application, sessions, commands, changes, is_stored, .. } = self;
        sessions.expire(turn.now, most, |ended| {
            note_end(&ended, *is_stored, changes);
            tell_end(application, commands, ended, turn);
        });
    }

    /// Ends `most` sessions, because the server ends. Whether some are left.
    pub(super) fn end_sessions(&mut self, most: usize, turn: &mut Turn<'_>) -> bool {
        // Those that are stored go on.
        if self.is_stored {
            return false;
        }
        let Runtime { application, sessions, commands, .. } = self;
        sessions.end_all(most, |ended| tell_end(application, commands, ended, turn))
    }

    /// Gives back what the cork has grown by, once it was written: callbacks fill its storage unasked.
    #[inline]
    pub(super) fn trim_cork(&mut self, limits: &Limits) {
        if self.cork.capacity() > storage_of_cork(limits) {
            self.cork.shrink_to(storage_of_cork(limits));
        }
    }

    /// Gives storage back that one large message left behind.
    pub(super) fn trim(&mut self, kept_bytes: usize) {
        self.scratch.trim(kept_bytes);
        self.deflater.trim(kept_bytes);
    }
}

/// The store is to forget a session that has ended, unless that ends there by itself.
#[inline(always)]
pub(super) fn note_end<T>(ended: &EndedSession<T>, is_stored: bool, changes: &mut Changes) {
    if is_stored {
        note_stored_end(
            (ended.reason(), ended.was_worth_keeping()),
            ended.slot(),
            ended.id(),
            changes,
        );
    }
}

/// The same where sessions are stored: apart, so that the other one stays as short as it is.
#[inline(never)]
fn note_stored_end(
    (reason, was_worth_keeping): (SessionEnd, bool),
    slot: SessionSlot,
    id: &SessionId,
    changes: &mut Changes,
) {
    let is_to_be_told = match reason {
        // What was claimed is kept until the store is told; and what leaves early or late is only dropped here.
        reason if changes.owned.is_shared() => reason == SessionEnd::NotKept,
        SessionEnd::Evicted => true,
        // Kept nowhere, if there was nothing to be kept.
        SessionEnd::NotKept => was_worth_keeping,
        // The store reckons that itself, by when it was left; unless it was not sent that yet.
        SessionEnd::Expired => changes.has(slot),
        // The first was noted then, for its id may name another one by now; the others go on.
        SessionEnd::Forgotten | SessionEnd::Moved | SessionEnd::ServerEnded => false,
    };
    if is_to_be_told {
        changes.note_gone(slot, id);
    }
    changes.owned.remove(slot);
}

/// Tells the application of a session that has ended. With the default callback nothing is left of this but
/// the drop of the state.
#[inline(always)]
pub(super) fn tell_end<A: Application>(
    application: &mut Contained<A>,
    commands: &mut Commands<A>,
    ended: EndedSession<A::Session>,
    turn: &mut Turn<'_>,
) {
    let application = application.get_mut();
    let mut cx = ReactorContext { commands, metrics: turn.setup.status.application_metrics() };
    let outcome = guard(|| application.on_session_end(&mut cx, ended));
    turn.observer.slow_turns.called(Callback::SessionEnd, 1, None);
    if outcome.is_err() {
        note_reactor_panic(turn.setup);
    }
}

/// A callback, or what follows a job, panicked for no connection.
pub(super) fn note_reactor_panic(setup: &Setup) {
    setup.metrics.panics.add(1);
    log::error!(reactor = setup.reactor; "the application panicked, outside of any connection");
}

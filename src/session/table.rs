//! One reactor's share of all sessions: resume, takeover's fence, expiry, and the bound.
//!
//! Knows no sockets, and of connections only their ids. What can end sessions is given a closure that is
//! called with each of them, once it is out of the table. Called by the shard at open, message and close.
//!
//! Invariant: a session is reached by the connections alone that are attached to it: one, or several that
//! share it. One that nobody speaks for and that no request holds stands in the list of the detached, in the
//! order of leaving, exactly once. One that was forgotten is attached, and no id names it.
//!
//! Next: `invariants`: what holds between two calls.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use slab::Slab;

use super::ended::{EndedSession, SessionEnd};
use super::id::{ID_MOST, SessionId, SessionSlot};
use super::index::Index;
use super::keyed_hash::KeyedHash;
use super::one::{Session, Standing};
use super::sharers::{Joining, Sharers};
use crate::config::SessionIds;
use crate::contained::{Contained, guard};
use crate::token::LocalId;

/// If the oldest session is found this long overdue, the process is taken to have been stopped: 250 ms,
/// as much as a turn may take before it counts as slow.
const LATE: Duration = Duration::from_millis(250);

/// How long sessions wait then for clients who came back in time, and are still being accepted and
/// read.
const GRACE: Duration = Duration::from_secs(1);

/// What the state of a session may have at most in its own type, in bytes. It is made on a reactor's stack
/// and moved a few times: 16 KiB leave a stack of 2 MiB alone.
const STATE_MOST: usize = 16 << 10;

/// A session found or made for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Where it is.
    pub slot: SessionSlot,
    /// Whether it was there before.
    pub resumed: bool,
}

/// Why a connection got no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAttached {
    /// No fresh id can be made: the system has no randomness.
    NoId,
    /// The application panicked over the state of a new session.
    Panicked,
}

/// What the table has done so far, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableTotals {
    /// Detached sessions whose time was over.
    pub expired: u64,
    /// Detached sessions that left early, to make room.
    pub evicted: u64,
}

#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) session: Session<T>,
    pub(super) presence: Presence,
}

/// Whether a connection speaks for the session. In two steps, because an enum of three would need a word
/// for its tag, in each session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Presence {
    InUse(Use),
    /// With its neighbours in the list of the detached, older and newer.
    Detached {
        since: Stamp,
        older: Option<Link>,
        newer: Option<Link>,
    },
}

impl Presence {
    /// Whether a connection speaks for the session.
    pub(super) fn is_attached(self) -> bool {
        matches!(self, Presence::InUse(Use::Attached(_) | Use::Other(OtherUse::Shared)))
    }
}

const _: () = assert!(size_of::<Presence>() == 16, "the niches serve as tags");

/// Why a session that is not in the list is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    Attached(LocalId),
    Other(OtherUse),
}

/// The same, where no one connection speaks for it. In two steps for the same reason.
#[derive(Debug, Clone, Copy)]
pub(super) enum OtherUse {
    /// Two connections or more speak for it: [`SessionTable::sharers`] has them.
    Shared,
    /// It would be gone, but for a request that waits for its answer.
    Held(SessionEnd),
}

/// Nanoseconds from the table's beginning, plus one: a time in half the room of an `Instant`, and
/// none for the tag of [`Presence`].
pub(super) type Stamp = std::num::NonZeroU64;

/// A slab index plus one, so that an `Option` of it has no tag.
pub(super) type Link = std::num::NonZeroU32;

/// One reactor's sessions.
pub struct SessionTable<T> {
    pub(super) entries: Slab<Entry<T>>,
    /// Slab indices by hash of the id: the key is not stored a second time.
    pub(super) index: Index,
    /// Keyed, because clients may choose ids.
    pub(super) hasher: KeyedHash,
    pub(super) sharers: Sharers,
    pub(super) oldest: Option<Link>,
    pub(super) newest: Option<Link>,
    /// Those in the list.
    pub(super) detached: usize,
    pub(super) held: usize,
    pub(super) capacity: usize,
    /// The same, where those that are too many leave when the caller says so ([`Self::evict_oldest`]), and not at once.
    pub(super) late_capacity: usize,
    ttl: Duration,
    /// The same, for comparisons with stamps; as good as never if that is beyond all of them.
    ttl_nanos: u64,
    policy: SessionIds,
    beginning: Instant,
    /// A time, and its stamp.
    reckoned: (Instant, Stamp),
    totals: TableTotals,
    /// No session expires before then: the reactor had been stopped.
    grace: Option<Instant>,
    /// Ids that look-ups were compared with, byte by byte.
    #[cfg(test)]
    compared: std::cell::Cell<u64>,
}

impl<T: Default> SessionTable<T> {
    /// What a place in the table takes, in bytes: in the slab, and in the index, whose entries are
    /// five bytes and three eighths of which may be free.
    pub const SLOT_BYTES: usize = size_of::<Entry<T>>() + size_of::<usize>() + 8;

    /// What a session holds beside its place: a chosen id of the longest kind.
    pub const BESIDE_SLOT_BYTES: usize = ID_MOST + 16;

    /// An empty table that keeps at most `capacity` detached sessions, each for `ttl`. It knows no
    /// time before `beginning`.
    #[must_use]
    pub fn new(capacity: usize, ttl: Duration, policy: SessionIds, beginning: Instant) -> Self {
        const {
            assert!(
                size_of::<T>() <= STATE_MOST,
                "the state of a session is moved on the stack: put what is large into a Box or a Vec"
            );
        }
        SessionTable {
            entries: Slab::new(),
            index: Index::new(),
            hasher: KeyedHash::random(),
            sharers: Sharers::default(),
            oldest: None,
            newest: None,
            detached: 0,
            held: 0,
            capacity,
            late_capacity: usize::MAX,
            ttl,
            ttl_nanos: u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX),
            policy,
            beginning,
            reckoned: (beginning, Stamp::MIN),
            totals: TableTotals::default(),
            grace: None,
            #[cfg(test)]
            compared: std::cell::Cell::default(),
        }
    }

    /// Whether there is a session called `id`, with or without a connection.
    #[must_use]
    pub fn contains(&self, id: &SessionId) -> bool {
        self.find(id).is_some()
    }

    /// The connections that speak for `id` now, in the order of coming. They must be closed before another
    /// takes over ([`Self::displace`]), and the last of them not detached: the session goes from one to the
    /// other.
    #[must_use]
    pub fn connections_of(&self, id: &SessionId) -> &[LocalId] {
        self.find(id).map_or(&[], |slot| self.speakers_of(SessionSlot(slot)))
    }

    /// The session called `id`, if it is there: what [`Self::attach`] would find.
    #[must_use]
    pub fn peek(&self, id: &SessionId, now: Instant) -> Option<&Session<T>> {
        let found = self.find_live(id, now)?;
        Some(&self.entries[found as usize].session)
    }

    /// Gives `connection` the session it wants: the one called `id`, if there is one, alone or beside those
    /// who have it; else a new one, under that id or under one from `fresh`, as the policy says.
    ///
    /// # Errors
    ///
    /// If a fresh id is needed and there is no randomness to be had, or if the application panicked over
    /// the state of a new session.
    pub fn attach(
        &mut self,
        id: Option<&SessionId>,
        (connection, joining): (LocalId, Joining),
        now: Instant,
        fresh: impl FnOnce() -> io::Result<SessionId>,
        ended: impl FnMut(EndedSession<T>),
    ) -> Result<Attached, NotAttached> {
        // Reckoned once: to find the session, and to name a new one.
        let hash = id.map(|id| self.hash(id));
        if let Some(found) = id.zip(hash).and_then(|(id, hash)| self.find_by(hash, id)) {
            // Its time may be over although its turn to be forgotten has not come.
            let stamp = self.reckon(now);
            if self.is_due(found, stamp) && !self.waits(now) {
                self.end(found, SessionEnd::Expired, ended);
            } else {
                self.take_up(found, connection, joining);
                return Ok(Attached { slot: SessionSlot(found), resumed: true });
            }
        }
        self.make(id.zip(hash), connection, fresh)
    }

    /// A new session.
    // Not inlined: what it needs of stack and registers would cost a resume some fifteen instructions.
    #[inline(never)]
    fn make(
        &mut self,
        wanted: Option<(&SessionId, u64)>,
        connection: LocalId,
        fresh: impl FnOnce() -> io::Result<SessionId>,
    ) -> Result<Attached, NotAttached> {
        let (id, hash) = match (wanted, self.policy) {
            (Some((id, hash)), SessionIds::Any) => (id.clone(), hash),
            _ => {
                let id = fresh().map_err(|_| NotAttached::NoId)?;
                let hash = self.hash(&id);
                (id, hash)
            }
        };
        let state = Contained::new(guard(T::default).map_err(|_| NotAttached::Panicked)?);
        let session =
            Session { id, count: 0, standing: Standing::Opened, others: 0, holds: 0, state };
        let presence = Presence::InUse(Use::Attached(connection));
        let slot = self.entries.insert(Entry { session, presence });
        // `Config::validate` bounds the table at 2^31.
        let slot = slot as u32;
        let (entries, hasher) = (&self.entries, self.hasher);
        self.index.insert(hash, slot, |at| hasher.of(entries[at as usize].session.id.bytes()));
        Ok(Attached { slot: SessionSlot(slot), resumed: false })
    }

    /// A connection speaks for the session in `slot` from now on.
    #[inline(always)]
    fn take_up(&mut self, slot: u32, connection: LocalId, joining: Joining) {
        let presence = &mut self.entries[slot as usize].presence;
        if let Presence::Detached { older, newer, .. } = *presence {
            *presence = Presence::InUse(Use::Attached(connection));
            self.close_gap(older, newer);
        } else {
            self.join(slot, connection, joining);
        }
    }

    /// The same, of a session that is not in the list.
    fn join(&mut self, slot: u32, connection: LocalId, joining: Joining) {
        let Entry { session, presence } = &mut self.entries[slot as usize];
        let alone = match (*presence, joining) {
            (Presence::InUse(Use::Attached(first)), Joining::Shares) => Some(first),
            (Presence::InUse(Use::Other(OtherUse::Shared)), Joining::Shares) => None,
            (before, _) => {
                debug_assert!(session.others == 0, "others have it");
                let was_held = matches!(before, Presence::InUse(Use::Other(OtherUse::Held(_))));
                self.held -= usize::from(was_held);
                *presence = Presence::InUse(Use::Attached(connection));
                return;
            }
        };
        self.sharers.join(slot, alone, connection);
        *presence = Presence::InUse(Use::Other(OtherUse::Shared));
        // `Limits::connections_per_session` fits.
        session.others = session.others.saturating_add(1);
    }

    /// The session in `slot`, for its connections alone: a displaced connection gets `None`.
    #[inline]
    pub fn of_connection(
        &mut self,
        slot: SessionSlot,
        connection: LocalId,
    ) -> Option<&mut Session<T>> {
        let Entry { session, presence } = self.entries.get_mut(slot.0 as usize)?;
        let is_its = match presence {
            Presence::InUse(Use::Attached(owner)) => *owner == connection,
            Presence::InUse(Use::Other(OtherUse::Shared)) => self.sharers.has(slot.0, connection),
            _ => false,
        };
        is_its.then_some(session)
    }

    /// The same, to look at.
    #[must_use]
    pub fn in_slot(&self, slot: SessionSlot, connection: LocalId) -> Option<&Session<T>> {
        let Entry { session, presence } = self.entries.get(slot.0 as usize)?;
        let is_its = match presence {
            Presence::InUse(Use::Attached(owner)) => *owner == connection,
            Presence::InUse(Use::Other(OtherUse::Shared)) => self.sharers.has(slot.0, connection),
            _ => false,
        };
        is_its.then_some(session)
    }

    /// `connection` leaves. If it was the last one, its session's time to live begins, if it is worth keeping.
    /// Only here can it push another one out: a client that only connects, or stays, displaces no session.
    pub fn detach(
        &mut self,
        slot: SessionSlot,
        connection: LocalId,
        now: Instant,
        ended: impl FnMut(EndedSession<T>),
    ) {
        let Some(session) = self.in_slot(slot, connection) else {
            debug_assert!(false, "only the attached connection detaches");
            return;
        };
        if session.others == 0 {
            return self.leave(slot.0, now, ended);
        }
        let Entry { session, presence } = &mut self.entries[slot.0 as usize];
        session.others -= 1;
        if let Some(last) = self.sharers.leave(slot.0, connection) {
            *presence = Presence::InUse(Use::Attached(last));
        }
    }

    /// A request for the session called `id` waits for its answer: until [`Self::release`] the session
    /// neither expires nor makes room for another one. Whether there is such a session.
    pub fn hold(&mut self, id: &SessionId, now: Instant) -> bool {
        let Some(found) = self.find_live(id, now) else { return false };
        // It keeps its place in the list: to ask for a session in vain does not prolong its life.
        self.entries[found as usize].session.holds += 1;
        true
    }

    /// A request that held the session called `id` waits no more. If nothing but that has kept it, it
    /// goes.
    pub fn release(&mut self, id: &SessionId, ended: impl FnMut(EndedSession<T>)) {
        let Some(found) = self.find(id) else {
            debug_assert!(false, "a session that is held stays");
            return;
        };
        let entry = &mut self.entries[found as usize];
        entry.session.holds = entry.session.holds.saturating_sub(1);
        if let (Presence::InUse(Use::Other(OtherUse::Held(reason))), 0) =
            (entry.presence, entry.session.holds)
        {
            self.held -= 1;
            self.end(found, reason, ended);
        }
    }

    /// The session of `connection` is named by its id no more: who asks for that id gets another session. It
    /// goes on until its connection leaves. What has held it holds nothing from now on. Returns its id, unless
    /// it was forgotten before.
    pub fn forget(&mut self, slot: SessionSlot, connection: LocalId) -> Option<&SessionId> {
        let session = self.of_connection(slot, connection)?;
        if session.is_unnamed() {
            return None;
        }
        (session.standing, session.holds) = (Standing::Forgotten, 0);
        self.unname(slot.0);
        self.in_slot(slot, connection).map(Session::id)
    }

    /// A newer connection takes the session of `connection` over: it stays with the last of those who have it
    /// until [`Self::attach`] gives it to the newer one, so at no moment is it without a connection. One that
    /// was forgotten cannot be taken over: it ends with its last connection.
    pub fn displace(
        &mut self,
        slot: SessionSlot,
        connection: LocalId,
        now: Instant,
        ended: impl FnMut(EndedSession<T>),
    ) {
        let leaves = |session: &Session<T>| session.is_unnamed() || session.others > 0;
        if self.in_slot(slot, connection).is_some_and(leaves) {
            self.detach(slot, connection, now, ended);
        }
    }

    /// A session goes, unless a request holds it.
    pub(super) fn end(
        &mut self,
        slot: u32,
        reason: SessionEnd,
        mut ended: impl FnMut(EndedSession<T>),
    ) {
        if self.entries[slot as usize].session.holds > 0 {
            self.unlink(slot);
            self.entries[slot as usize].presence =
                Presence::InUse(Use::Other(OtherUse::Held(reason)));
            self.held += 1;
            return;
        }
        match reason {
            SessionEnd::Expired => self.totals.expired += 1,
            SessionEnd::Evicted => self.totals.evicted += 1,
            SessionEnd::NotKept
            | SessionEnd::Forgotten
            | SessionEnd::Moved
            | SessionEnd::ServerEnded => {}
        }
        let session = self.remove(slot);
        ended(session.into_ended(SessionSlot(slot), reason));
    }

    /// Nobody speaks for a session any more: its time to live begins, if it is to be kept.
    fn leave(&mut self, slot: u32, now: Instant, ended: impl FnMut(EndedSession<T>)) {
        let session = &self.entries[slot as usize].session;
        match session.standing {
            Standing::Forgotten => return self.end(slot, SessionEnd::Forgotten, ended),
            Standing::Disowned => return self.end(slot, SessionEnd::Moved, ended),
            Standing::Opened | Standing::Touched | Standing::Stored => {}
        }
        if !session.is_worth_keeping() || self.ttl.is_zero() {
            return self.end(slot, SessionEnd::NotKept, ended);
        }
        let since = self.reckon(now);
        self.stand_behind(slot, since, ended);
    }

    /// The session becomes the last in the list of the detached. If there are too many, the first goes.
    #[inline(always)]
    pub(super) fn stand_behind(
        &mut self,
        slot: u32,
        since: Stamp,
        ended: impl FnMut(EndedSession<T>),
    ) {
        let older = self.newest;
        self.entries[slot as usize].presence = Presence::Detached { since, older, newer: None };
        let link = Link::MIN.saturating_add(slot);
        match older {
            Some(older) => self.set_newer(older, Some(link)),
            None => self.oldest = Some(link),
        }
        self.newest = Some(link);
        self.detached += 1;
        if self.detached > self.capacity
            && let Some(oldest) = self.oldest
        {
            self.end(oldest.get() - 1, SessionEnd::Evicted, ended);
        }
    }

    /// Takes note of what time it is, before anybody asks for a session.
    ///
    /// If the time of the oldest is over long since, the whole process was stopped (a suspended machine,
    /// a frozen cgroup), and clients who came back in time are still to be accepted and read. So no
    /// session expires for another second.
    pub fn note_time(&mut self, now: Instant) {
        let Some(due) = self.oldest_expiry() else { return };
        let is_late = now.saturating_duration_since(due) >= LATE;
        // Not once more for sessions that were due before the last grace ended: they may be so many
        // that they expire over some time.
        if is_late && self.grace.is_none_or(|until| until < due) {
            self.grace = Some(now + GRACE);
        }
    }

    /// Forgets sessions whose time is over, `most` of them at the most: they may be a million that
    /// left at the same moment. What is left is due at once.
    pub fn expire(&mut self, now: Instant, most: usize, mut ended: impl FnMut(EndedSession<T>)) {
        if self.waits(now) {
            return;
        }
        let stamp = self.stamp(now);
        for _ in 0..most {
            match self.oldest.map(|link| link.get() - 1) {
                Some(oldest) if self.is_over(self.entries[oldest as usize].presence, stamp) => {
                    self.end(oldest, SessionEnd::Expired, &mut ended);
                }
                _ => {
                    self.grace = None;
                    return;
                }
            }
        }
    }

    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        // 64 bits last 584 years.
        let nanos = now.saturating_duration_since(self.beginning).as_nanos() as u64;
        Stamp::MIN.saturating_add(nanos)
    }

    pub(super) fn time(&self, stamp: Stamp) -> Instant {
        self.beginning + Duration::from_nanos(stamp.get() - 1)
    }

    /// The same; what it has reckoned last it knows. In one turn it is always the same time.
    #[inline]
    fn reckon(&mut self, now: Instant) -> Stamp {
        if now != self.reckoned.0 {
            self.reckoned = (now, self.stamp(now));
        }
        self.reckoned.1
    }

    #[inline]
    fn is_due(&self, slot: u32, now: Stamp) -> bool {
        let Entry { session, presence } = &self.entries[slot as usize];
        session.holds == 0 && self.is_over(*presence, now)
    }

    /// Whether the time of a session has run out. In stamps, which are compared with a subtraction. One that may stay for
    /// ever has `u64::MAX` nanoseconds, which no stamp reaches.
    #[inline]
    fn is_over(&self, presence: Presence, now: Stamp) -> bool {
        match presence {
            Presence::Detached { since, .. } => {
                now.get() - since.get().min(now.get()) >= self.ttl_nanos
            }
            Presence::InUse(_) => false,
        }
    }

    /// Whether nothing expires now, because the reactor had been stopped.
    fn waits(&self, now: Instant) -> bool {
        self.grace.is_some_and(|until| now < until)
    }

    fn expiry(&self, slot: u32) -> Option<Instant> {
        match self.entries[slot as usize].presence {
            // Far beyond any uptime an Instant may not reach; then it is as good as never.
            Presence::Detached { since, .. } => self.time(since).checked_add(self.ttl),
            Presence::InUse(_) => None,
        }
    }

    /// When [`Self::expire`] next has something to do.
    // Asked twice a turn: mostly of a table in which nothing can expire.
    #[inline]
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.oldest?;
        self.oldest_expiry().map(|due| self.grace.map_or(due, |until| until.max(due)))
    }

    fn oldest_expiry(&self) -> Option<Instant> {
        self.expiry(self.oldest?.get() - 1)
    }

    /// Sessions with a connection.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.entries.len() - self.detached()
    }

    /// Connections that speak for a session.
    #[must_use]
    pub fn speakers(&self) -> usize {
        self.attached() + self.sharers.others()
    }

    /// Sessions without one.
    #[must_use]
    pub fn detached(&self) -> usize {
        self.detached + self.held
    }

    /// What has left so far.
    #[must_use]
    pub fn totals(&self) -> TableTotals {
        self.totals
    }

    /// The id and the count of every session that an id names, in no order.
    #[cfg(feature = "internals")]
    pub fn counts(&self) -> impl Iterator<Item = (&SessionId, u64)> {
        let named = self.entries.iter().filter(|(_, entry)| !entry.session.is_unnamed());
        named.map(|(_, entry)| (&entry.session.id, entry.session.count))
    }

    /// Ends `most` sessions, in the order of leaving. No connection speaks for any, and no request holds one. Whether
    /// some are left.
    pub fn end_all(&mut self, most: usize, mut ended: impl FnMut(EndedSession<T>)) -> bool {
        debug_assert!(self.detached == self.entries.len(), "somebody has a session");
        for _ in 0..most {
            let Some(oldest) = self.oldest else { return false };
            self.end(oldest.get() - 1, SessionEnd::ServerEnded, &mut ended);
        }
        self.oldest.is_some()
    }

    pub(super) fn hash(&self, id: &SessionId) -> u64 {
        self.hasher.of(id.bytes())
    }

    /// An id is compared with those alone whose keyed hash begins as its own does, which nobody
    /// outside can aim at: how long a miss takes says nothing about the ids that there are.
    pub(super) fn find(&self, id: &SessionId) -> Option<u32> {
        self.find_by(self.hash(id), id)
    }

    #[inline(always)]
    pub(super) fn find_by(&self, hash: u64, id: &SessionId) -> Option<u32> {
        self.index.find(hash, |slot| {
            #[cfg(test)]
            self.compared.set(self.compared.get() + 1);
            self.entries[slot as usize].session.id == *id
        })
    }

    /// The session called `id`, if its time is not over.
    fn find_live(&self, id: &SessionId, now: Instant) -> Option<u32> {
        self.find(id).filter(|&found| !self.is_due(found, self.stamp(now)) || self.waits(now))
    }

    fn set_newer(&mut self, link: Link, to: Option<Link>) {
        if let Presence::Detached { newer, .. } =
            &mut self.entries[link.get() as usize - 1].presence
        {
            *newer = to;
        }
    }

    fn set_older(&mut self, link: Link, to: Option<Link>) {
        if let Presence::Detached { older, .. } =
            &mut self.entries[link.get() as usize - 1].presence
        {
            *older = to;
        }
    }

    /// Takes the session out of the list of the detached, if it is there.
    pub(super) fn unlink(&mut self, slot: u32) {
        let Presence::Detached { older, newer, .. } = self.entries[slot as usize].presence else {
            return;
        };
        self.close_gap(older, newer);
    }

    /// A session that stood between these two has left the list.
    #[inline(always)]
    fn close_gap(&mut self, older: Option<Link>, newer: Option<Link>) {
        match older {
            Some(older) => self.set_newer(older, newer),
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.set_older(newer, older),
            None => self.newest = older,
        }
        self.detached -= 1;
    }

    /// Takes the session out of the table.
    // Inlined into the end of a session, as the next one is: called, they cost each session that expires 50
    // instructions, because it is moved once more.
    #[inline(always)]
    fn remove(&mut self, slot: u32) -> Session<T> {
        self.unlink(slot);
        if !self.entries[slot as usize].session.is_unnamed() {
            self.unname(slot);
        }
        self.entries.remove(slot as usize).session
    }

    /// Takes the session out of the index.
    #[inline(always)]
    pub(super) fn unname(&mut self, slot: u32) {
        let hash = self.hash(&self.entries[slot as usize].session.id);
        self.index.remove(hash, slot);
    }
}

impl<T> fmt::Debug for SessionTable<T> {
    /// No ids: they are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable")
            .field("sessions", &self.entries.len())
            .field("detached", &self.detached)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn connection(generation: u32) -> LocalId {
        LocalId { index: 0, generation: NonZeroU32::new(generation).unwrap() }
    }

    fn alone(connection: LocalId) -> (LocalId, Joining) {
        (connection, Joining::TakesOver)
    }

    fn beside(connection: LocalId) -> (LocalId, Joining) {
        (connection, Joining::Shares)
    }

    fn table(capacity: usize, policy: SessionIds) -> SessionTable<()> {
        SessionTable::new(capacity, Duration::from_secs(10), policy, Instant::now())
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    fn fresh() -> io::Result<SessionId> {
        Ok(id("fresh"))
    }

    /// Opens, counts `messages`, and leaves.
    fn visit(table: &mut SessionTable<()>, name: &str, who: u32, messages: u64, now: Instant) {
        let attached =
            table.attach(Some(&id(name)), alone(connection(who)), now, fresh, drop).unwrap();
        let session = table.of_connection(attached.slot, connection(who)).unwrap();
        for _ in 0..messages {
            session.count_message();
        }
        table.detach(attached.slot, connection(who), now, drop);
        table.invariants();
    }

    #[test]
    fn several_share_a_session_and_it_lives_on_with_the_last_of_them() {
        let mut table = table(8, SessionIds::Any);
        let now = Instant::now();
        let first = table.attach(Some(&id("a")), alone(connection(1)), now, fresh, drop).unwrap();
        let slot = first.slot;
        for n in 2..=4 {
            let joined =
                table.attach(Some(&id("a")), beside(connection(n)), now, fresh, drop).unwrap();
            assert_eq!(joined, Attached { slot, resumed: true });
            table.invariants();
        }
        assert_eq!(table.connections_of(&id("a")), [1, 2, 3, 4].map(connection));
        assert_eq!((table.attached(), table.speakers()), (1, 4));
        for n in 1..=4 {
            let session = table.of_connection(slot, connection(n)).unwrap();
            assert_eq!((session.count_message(), session.connections()), (u64::from(n), 4));
        }
        assert!(table.of_connection(slot, connection(5)).is_none());
        table.detach(slot, connection(1), now, drop);
        assert!(table.in_slot(slot, connection(1)).is_none(), "it has left");
        assert_eq!(table.connections_of(&id("a")), [2, 3, 4].map(connection));
        // One takes it over: of the others the last keeps it until then.
        for n in 2..=4 {
            table.displace(slot, connection(n), now, drop);
            table.invariants();
            assert_eq!((table.attached(), table.detached()), (1, 0));
        }
        assert_eq!(table.connections_of(&id("a")), [connection(4)]);
        let taken = table.attach(Some(&id("a")), alone(connection(5)), now, fresh, drop).unwrap();
        assert_eq!(taken, first_again(slot));
        assert_eq!(table.of_connection(slot, connection(5)).unwrap().count(), 4);
        assert!(table.in_slot(slot, connection(4)).is_none(), "it was displaced");
        table.detach(slot, connection(5), now, drop);
        assert_eq!((table.speakers(), table.detached()), (0, 1));
        table.invariants();
    }

    fn first_again(slot: SessionSlot) -> Attached {
        Attached { slot, resumed: true }
    }

    #[test]
    fn a_shared_session_that_is_forgotten_ends_with_the_last_of_those_who_have_it() {
        let mut table = table(8, SessionIds::Any);
        let now = Instant::now();
        let slot =
            table.attach(Some(&id("a")), alone(connection(1)), now, fresh, drop).unwrap().slot;
        table.attach(Some(&id("a")), beside(connection(2)), now, fresh, drop).unwrap();
        assert!(table.forget(slot, connection(2)).is_some());
        table.invariants();
        // Who asks for the name now shares nothing.
        let other = table.attach(Some(&id("a")), beside(connection(3)), now, fresh, drop).unwrap();
        assert!(!other.resumed);
        let mut reasons = Vec::new();
        table.detach(slot, connection(1), now, |ended| reasons.push(ended.reason()));
        assert_eq!(reasons, []);
        table.displace(slot, connection(2), now, |ended| reasons.push(ended.reason()));
        assert_eq!(reasons, [SessionEnd::Forgotten]);
        table.invariants();
    }

    #[test]
    fn a_session_outlives_its_connection_and_not_its_time() {
        let mut table = table(10, SessionIds::Any);
        let now = Instant::now();
        visit(&mut table, "a", 1, 3, now);
        let resumed = table.attach(Some(&id("a")), alone(connection(2)), now, fresh, drop).unwrap();
        assert!(resumed.resumed);
        assert_eq!(table.of_connection(resumed.slot, connection(2)).unwrap().count(), 3);
        table.detach(resumed.slot, connection(2), now, drop);
        let later = now + Duration::from_secs(10);
        assert_eq!(table.next_expiry(), Some(later));
        table.expire(later, 1, drop);
        assert_eq!((table.detached(), table.totals().expired), (0, 1));
        assert!(
            !table
                .attach(Some(&id("a")), alone(connection(3)), later, fresh, drop)
                .unwrap()
                .resumed
        );
        table.invariants();
    }

    #[test]
    fn expiry_takes_a_slice_at_a_time_and_what_is_due_is_not_resumed() {
        let mut table = table(10, SessionIds::Any);
        let now = Instant::now();
        for (who, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            visit(&mut table, name, who as u32 + 1, 1, now);
        }
        let later = now + Duration::from_secs(10);
        table.expire(later, 2, drop);
        assert_eq!((table.detached(), table.totals().expired), (2, 2));
        assert_eq!(table.next_expiry(), Some(later), "the rest is due at once");
        assert!(
            !table
                .attach(Some(&id("d")), alone(connection(9)), later, fresh, drop)
                .unwrap()
                .resumed
        );
        table.expire(later, 10, drop);
        assert_eq!((table.attached(), table.detached(), table.totals().expired), (1, 0, 4));
        table.invariants();
    }

    #[test]
    fn who_came_back_during_a_pause_finds_the_session() {
        let now = Instant::now();
        let mut table = table(100, SessionIds::Any);
        for (who, name) in ["a", "b"].into_iter().enumerate() {
            visit(&mut table, name, who as u32 + 1, 1, now);
        }
        // Late, but within what a turn may take.
        let due = table.next_expiry().unwrap();
        table.note_time(due + LATE - Duration::from_nanos(1));
        assert_eq!(table.next_expiry(), Some(due));
        let woken = due + LATE;
        table.note_time(woken);
        table.expire(woken, 10, drop);
        assert!(table.peek(&id("a"), woken).is_some());
        assert!(
            table.attach(Some(&id("a")), alone(connection(3)), woken, fresh, drop).unwrap().resumed
        );
        assert_eq!(table.next_expiry(), Some(woken + GRACE));
        // That is given once.
        let over = woken + GRACE;
        table.note_time(over);
        table.expire(over, 10, drop);
        assert_eq!((table.detached(), table.totals().expired, table.next_expiry()), (0, 1, None));
        table.invariants();
    }

    #[test]
    fn a_miss_costs_the_same_however_near_it_is() {
        const MANY: u64 = 4000;
        let mut table = table(10, SessionIds::Any);
        let now = Instant::now();
        for n in 0..MANY {
            let named = id(&format!("a-name-that-somebody-chose-{n:010}"));
            table.attach(Some(&named), alone(connection(n as u32 + 1)), now, fresh, drop).unwrap();
        }
        let work = |form: &dyn Fn(u64) -> String, found: bool| {
            let before = table.compared.get();
            for n in 0..MANY {
                assert_eq!(!table.connections_of(&id(&form(n))).is_empty(), found);
            }
            table.compared.get() - before
        };
        let right = work(&|n| format!("a-name-that-somebody-chose-{n:010}"), true);
        // All but its last character is right; nothing is, not even its length.
        let near = work(&|n| format!("a-name-that-somebody-chose-{n:09}x"), false);
        let far = work(&|n| format!("{n}"), false);
        // What is compared at all is the eighth of a per cent of the table that shares seven bits
        // of the hash, in the few places where it looks: far less than once a miss.
        assert!(right >= MANY);
        for misses in [near, far] {
            assert!(misses < MANY / 2, "{misses} comparisons in {MANY} misses");
        }
    }

    #[test]
    fn the_displaced_connection_cannot_reach_the_session() {
        let mut table = table(10, SessionIds::Any);
        let now = Instant::now();
        let first = table.attach(Some(&id("a")), alone(connection(1)), now, fresh, drop).unwrap();
        table.of_connection(first.slot, connection(1)).unwrap().count_message();
        assert_eq!(table.connections_of(&id("a")), [connection(1)]);
        table.detach(first.slot, connection(1), now, drop);
        let second = table.attach(Some(&id("a")), alone(connection(2)), now, fresh, drop).unwrap();
        assert!(table.of_connection(first.slot, connection(1)).is_none());
        assert_eq!(table.of_connection(second.slot, connection(2)).unwrap().count_message(), 2);
    }

    #[test]
    fn one_that_never_counted_is_not_kept() {
        let mut table = table(10, SessionIds::Any);
        visit(&mut table, "a", 1, 0, Instant::now());
        assert_eq!(table.attached() + table.detached(), 0);
        let now = Instant::now();
        let mut stateful =
            SessionTable::<u8>::new(10, Duration::from_secs(1), SessionIds::Any, now);
        let attached =
            stateful.attach(Some(&id("b")), alone(connection(1)), now, fresh, drop).unwrap();
        *stateful.of_connection(attached.slot, connection(1)).unwrap().state_mut() = 7;
        stateful.detach(attached.slot, connection(1), now, drop);
        assert_eq!(stateful.detached(), 1, "its state was touched");
    }

    #[test]
    fn a_full_table_lets_the_longest_detached_go_and_nobody_else() {
        let mut table = table(3, SessionIds::Any);
        let now = Instant::now();
        for (who, name) in ["a", "b", "c"].into_iter().enumerate() {
            visit(&mut table, name, who as u32 + 1, 1, now);
        }
        // "a" comes back and leaves again: now "b" is the longest gone.
        visit(&mut table, "a", 9, 1, now);
        visit(&mut table, "d", 10, 1, now);
        assert_eq!(table.totals().evicted, 1);
        let mut names: Vec<String> =
            table.counts().map(|(id, count)| format!("{}{count}", id.text().as_str())).collect();
        names.sort();
        assert_eq!(names, ["a2", "c1", "d1"]);
        // Who comes and says nothing, however often and however many at once, displaces nobody.
        for who in 20..40 {
            visit(&mut table, "e", who, 0, now);
            table
                .attach(Some(&id(&format!("f{who}"))), alone(connection(who)), now, fresh, drop)
                .unwrap();
        }
        assert_eq!((table.attached(), table.detached()), (20, 3));
        assert_eq!(table.totals().evicted, 1);
        table.invariants();
    }

    #[test]
    fn strict_mode_takes_up_only_what_it_issued() {
        let mut table = table(10, SessionIds::Issued);
        let now = Instant::now();
        let attached =
            table.attach(Some(&id("chosen")), alone(connection(1)), now, fresh, drop).unwrap();
        assert!(!attached.resumed);
        let session = table.of_connection(attached.slot, connection(1)).unwrap();
        assert_eq!(session.id().text().as_str(), "fresh");
        session.count_message();
        table.detach(attached.slot, connection(1), now, drop);
        assert!(
            table
                .attach(Some(&id("fresh")), alone(connection(2)), now, fresh, drop)
                .unwrap()
                .resumed
        );
    }

    #[test]
    fn a_ttl_of_zero_keeps_nothing() {
        let now = Instant::now();
        let mut table = SessionTable::<()>::new(10, Duration::ZERO, SessionIds::Any, now);
        visit(&mut table, "a", 1, 1, now);
        assert_eq!(table.detached(), 0);
    }

    /// Review: the grace of one pause is never cleared if all who were overdue came back in it.
    #[test]
    fn sessions_wait_after_a_second_pause_too() {
        let mut table = table(10, SessionIds::Any);
        let second = Duration::from_secs(1);
        let mut now = Instant::now();
        visit(&mut table, "a", 1, 1, now);
        for who in 2..5 {
            // The process is stopped for a minute; the time to live is 10 s.
            now += 60 * second;
            table.note_time(now);
            table.expire(now, 100, drop);
            assert_eq!(table.totals().expired, 0, "pause {}", who - 1);
            // Its client was in the accept queue.
            visit(&mut table, "a", who, 1, now + second / 10);
            now += second / 10;
        }
    }

    #[test]
    fn a_session_that_is_held_neither_expires_nor_makes_room() {
        for ttl in [Duration::from_secs(10), Duration::ZERO] {
            let now = Instant::now();
            let mut table = SessionTable::<()>::new(1, ttl, SessionIds::Any, now);
            assert!(!table.hold(&id("a"), now), "there is none");
            // Held while it has a connection, and by two.
            let attached =
                table.attach(Some(&id("a")), alone(connection(1)), now, fresh, drop).unwrap();
            table.of_connection(attached.slot, connection(1)).unwrap().count_message();
            assert!(table.hold(&id("a"), now) && table.hold(&id("a"), now));
            table.detach(attached.slot, connection(1), now, drop);
            table.invariants();
            assert_eq!((table.attached(), table.detached()), (0, 1));
            // It would have made room for this one.
            visit(&mut table, "b", 2, 1, now);
            let later = now + Duration::from_secs(60);
            table.expire(later, 10, drop);
            table.invariants();
            assert_eq!(table.peek(&id("a"), later).map(Session::count), Some(1));
            assert!(!table.contains(&id("b")) || ttl.is_zero());
            // It is as good as any other for the next connection.
            let attached =
                table.attach(Some(&id("a")), alone(connection(4)), later, fresh, drop).unwrap();
            assert!(attached.resumed);
            table.release(&id("a"), drop);
            table.detach(attached.slot, connection(4), later, drop);
            table.invariants();
            assert!(table.contains(&id("a")));
            // Nobody holds it any more: it lives as long as any other does.
            table.release(&id("a"), drop);
            table.invariants();
            assert_eq!(table.contains(&id("a")), !ttl.is_zero());
            assert_eq!(table.next_expiry().is_some(), !ttl.is_zero());
        }
    }

    #[test]
    fn to_hold_a_session_in_vain_does_not_prolong_its_life() {
        let mut table = table(2, SessionIds::Any);
        let now = Instant::now();
        visit(&mut table, "a", 1, 1, now);
        visit(&mut table, "b", 2, 1, now);
        // Neither its time nor its place in the queue is another one.
        assert!(table.hold(&id("a"), now + Duration::from_secs(9)));
        table.release(&id("a"), drop);
        assert_eq!(table.next_expiry(), Some(now + Duration::from_secs(10)));
        visit(&mut table, "c", 3, 1, now);
        assert!(!table.contains(&id("a")) && table.contains(&id("b")));
        // One that would have gone meanwhile goes when it is let go of.
        assert!(table.hold(&id("b"), now));
        visit(&mut table, "d", 4, 1, now);
        assert!(table.contains(&id("b")));
        table.release(&id("b"), drop);
        assert!(!table.contains(&id("b")));
        assert_eq!(table.totals().evicted, 2);
        assert!(table.hold(&id("c"), now));
        let later = now + Duration::from_secs(10);
        table.expire(later, 10, drop);
        assert_eq!((table.detached(), table.totals().expired), (1, 1), "d is gone");
        table.release(&id("c"), drop);
        assert_eq!((table.detached(), table.totals().expired), (0, 2));
        table.invariants();
    }

    #[test]
    fn one_that_is_forgotten_has_no_name_and_ends_with_its_connection() {
        let mut table = table(10, SessionIds::Any);
        let now = Instant::now();
        let older = table.attach(Some(&id("a")), alone(connection(1)), now, fresh, drop).unwrap();
        table.of_connection(older.slot, connection(1)).unwrap().count_message();
        assert!(table.hold(&id("a"), now));
        assert_eq!(table.forget(older.slot, connection(2)), None, "a stranger");
        assert_eq!(table.forget(older.slot, connection(1)), Some(&id("a")));
        assert_eq!(table.forget(older.slot, connection(1)), None);
        table.invariants();
        assert!(!table.contains(&id("a")) && !table.hold(&id("a"), now));
        assert_eq!((table.connections_of(&id("a")).len(), table.attached()), (0, 1));
        // It goes on beside the new one of that name.
        let newer = table.attach(Some(&id("a")), alone(connection(2)), now, fresh, drop).unwrap();
        assert!(!newer.resumed);
        assert_eq!(table.of_connection(older.slot, connection(1)).unwrap().count_message(), 2);
        assert_eq!(table.of_connection(newer.slot, connection(2)).unwrap().count_message(), 1);
        table.invariants();
        let mut ended = Vec::new();
        table.detach(older.slot, connection(1), now, |session| {
            ended.push((session.session_id(), session.count(), session.reason()));
        });
        assert_eq!(ended, [("a".to_owned(), 2, SessionEnd::Forgotten)]);
        assert_eq!(table.connections_of(&id("a")), [connection(2)]);
        table.invariants();
    }
}

//! The slab of connections: ids to connections and back, and no way to reach a slot's former
//! tenant. Of that one only the alarm is left, for the next.
//!
//! Called by the shard.
//!
//! Invariant: an id finds the connection it was made for, or nothing.
//!
//! Next: [`crate::mailbox`]: how other threads get a word in.

use std::num::NonZeroU32;

use slab::Slab;

use crate::connection::Connection;
use crate::line::Stream;
use crate::timer::Tick;
use crate::token::ConnectionId;

/// All connections of one reactor.
#[derive(Debug)]
pub struct Connections<S> {
    slab: Slab<Connection<S>>,
    generation: NonZeroU32,
    /// By slot, what was entered in the timer wheel for its former tenant.
    left_alarms: Vec<Option<Tick>>,
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Connections { slab: Slab::new(), generation: NonZeroU32::MIN, left_alarms: Vec::new() }
    }
}

impl<S: Stream> Connections<S> {
    /// Adds the connection that `make` makes of its id.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Connection<S>) -> ConnectionId {
        let entry = self.slab.vacant_entry();
        // A process has far fewer than 2^32 descriptors.
        let id = ConnectionId { index: entry.key() as u32, generation: self.generation };
        // After 2^32 connections generations come round; none of that age is still referred to.
        self.generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        entry.insert(make(id));
        id
    }

    /// The connection called `id`, unless it has gone.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<S>> {
        let connection = self.slab.get_mut(id.index as usize)?;
        // The slot is the index: what is left to compare is the tenant.
        (connection.id.generation == id.generation).then_some(connection)
    }

    /// Takes it out.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection<S>> {
        let alarm = self.get_mut(id)?.alarm;
        let index = id.index as usize;
        if index >= self.left_alarms.len() {
            self.left_alarms.resize(index + 1, None);
        }
        self.left_alarms[index] = alarm;
        self.slab.try_remove(index)
    }

    /// The alarm that the former tenant of this slot left behind, which may have gone off since.
    pub fn take_left_alarm(&mut self, id: ConnectionId) -> Option<Tick> {
        self.left_alarms.get_mut(id.index as usize)?.take()
    }

    /// The connection that lives in a slot now.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Connection<S>> {
        self.slab.get(index)
    }

    /// Who lives in a slot now.
    #[must_use]
    pub fn tenant(&self, index: usize) -> Option<ConnectionId> {
        self.at(index).map(|connection| connection.id)
    }

    /// One more than the highest slot in use: where a walk over the slots ends.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slab.iter().next_back().map_or(0, |(index, _)| index + 1)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<S>> {
        self.slab.iter().map(|(_, connection)| connection)
    }
}

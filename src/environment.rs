//! What a shard asks of its surroundings: every effect that is not the reading and writing of a
//! stream.
//!
//! The reactor implements it with the kernel, the simulation with a script. So a shard has no
//! poll, no listener, no channel and no random generator of its own, and a seed decides all that
//! happens to it.
//!
//! Next: [`crate::shard`], where all of this comes together.

use std::io;
use std::time::Instant;

use crate::mailbox::Mail;
use crate::offload::Job;
use crate::store::CommitBatch;
use crate::tasks::TaskOrder;
use crate::token::LocalId;
use crate::transport::Stream;
use crate::transport::listener::Accepted;

/// The surroundings of one shard.
pub trait Environment {
    /// The sockets.
    type Stream: Stream;

    /// The next connection in the accept queue; of several queues, each in its turn.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none; whatever `accept(2)` says.
    fn accept(&mut self) -> io::Result<Accepted<Self::Stream>>;

    /// Stops listening, for good.
    fn stop_listening(&mut self);

    /// Asks for edges of `stream`, in both directions, under the token of `id`: once in its life
    /// on this reactor.
    ///
    /// # Errors
    ///
    /// When the kernel has no room for it.
    fn register(&mut self, stream: &mut Self::Stream, id: LocalId) -> io::Result<()>;

    /// Asks for no more edges, because the stream moves to another reactor. (One that is closed
    /// needs none: the kernel forgets a closed socket, and a call is saved.)
    ///
    /// # Errors
    ///
    /// When the kernel does not know it.
    fn deregister(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Sends mail to another reactor.
    ///
    /// # Errors
    ///
    /// The mail itself, when that reactor's mailbox is full.
    fn send(&mut self, reactor: usize, mail: Mail<Self::Stream>) -> Result<(), Mail<Self::Stream>>;

    /// Wakes a reactor, this one too, so that it looks at what all share.
    fn wake(&mut self, reactor: usize);

    /// Whether another reactor's mailbox has room now. Another sender may be faster.
    fn has_room(&self, reactor: usize) -> bool;

    /// The next mail for this reactor, if there is one.
    fn receive(&mut self) -> Option<Mail<Self::Stream>>;

    /// The time. What happens in a turn depends only on the time at which the turn began, which it is
    /// given. The clock itself is read only while the shard looks for the callback that makes turns
    /// slow.
    fn clock(&mut self) -> Instant;

    /// The time by the wall clock, in milliseconds of 1970: what the store's records tell. Read once a batch.
    fn wall_clock_ms(&mut self) -> u64;

    /// Takes a job that is not to be run here. Mail tells when it is done.
    ///
    /// # Errors
    ///
    /// The job itself, when the pool cannot run it.
    fn offload(&mut self, job: Job) -> Result<(), Job>;

    /// Takes a task for a worker. Mail tells what has become of it.
    ///
    /// # Errors
    ///
    /// The order itself, when the broker's thread has no room for it, or there is none.
    fn enqueue(&mut self, order: TaskOrder) -> Result<(), TaskOrder>;

    /// Passes changed sessions on to the store. Mail tells when they are safe: until then no other batch is sent, but
    /// for the one with which a shard ends.
    fn commit(&mut self, batch: CommitBatch);

    /// Fills `room` from a generator that nobody can predict: session ids come from it.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    fn random(&mut self, room: &mut [u8]) -> io::Result<()>;
}

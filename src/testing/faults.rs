//! Failures that a script has planned: which call fails (the first of its kind, the second, …), and how.
//!
//! Every call that a shard makes of its streams and its environment is counted here, so a run without
//! faults tells how many calls there are that can fail. Knows nothing of what a failure does to a
//! stream; the stream does.
//!
//! Next: [`crate::testing::wire`]: what two ends are joined by.

use std::cell::RefCell;
use std::rc::Rc;

/// What a shard asks of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// The next connection of the accept queue.
    Accept,
    /// Asking for a stream's edges.
    Register,
    /// Asking for no more of them.
    Deregister,
    /// Reading a stream.
    Read,
    /// Looking at what a read would return.
    Peek,
    /// Writing to it.
    Write,
    /// Ending our half of it.
    HalfClose,
    /// Mail to another reactor.
    Send,
    /// A job for the pool.
    Offload,
    /// A task for a worker.
    Enqueue,
    /// Randomness.
    Random,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An errno.
    Errno(i32),
    /// `EAGAIN` although there is something, or room: it comes a moment later, with its edge.
    Later,
    /// One byte of many; the others come, or find room, a moment later.
    OneByte,
    /// 0: a write that takes nothing; a read that says that the peer is gone, in mid-sentence.
    Zero,
    /// No room in the mailbox, in the pool, or at the broker.
    Full,
}

// Linux's numbers; what a shard sees of them is `io::ErrorKind`.

/// Operation not permitted.
pub const EPERM: i32 = 1;
/// No such file or directory.
pub const ENOENT: i32 = 2;
/// Interrupted system call.
pub const EINTR: i32 = 4;
/// Input/output error.
pub const EIO: i32 = 5;
/// Bad file descriptor.
pub const EBADF: i32 = 9;
/// Cannot allocate memory.
pub const ENOMEM: i32 = 12;
/// Too many open files in system.
pub const ENFILE: i32 = 23;
/// Too many open files.
pub const EMFILE: i32 = 24;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// Broken pipe.
pub const EPIPE: i32 = 32;
/// Function not implemented.
pub const ENOSYS: i32 = 38;
/// Protocol error.
pub const EPROTO: i32 = 71;
/// Network is down.
pub const ENETDOWN: i32 = 100;
/// Software caused connection abort.
pub const ECONNABORTED: i32 = 103;
/// Connection reset by peer.
pub const ECONNRESET: i32 = 104;
/// No buffer space available.
pub const ENOBUFS: i32 = 105;
/// Transport endpoint is not connected.
pub const ENOTCONN: i32 = 107;
/// Connection timed out.
pub const ETIMEDOUT: i32 = 110;
/// No route to host.
pub const EHOSTUNREACH: i32 = 113;

/// A handle on the plan of one run; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults(Rc<RefCell<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    calls: [u64; 11],
    strikes: Vec<Strike>,
    struck: usize,
}

/// A planned failure.
#[derive(Debug, Clone, Copy)]
pub struct Strike {
    /// What fails.
    pub call: Call,
    /// Which call of that kind is the first to fail, counted from 0.
    pub nth: u64,
    /// How many fail from there on.
    pub times: u64,
    /// How.
    pub fault: Fault,
}

impl Faults {
    /// So many failures; [`Faults::default`] has none.
    #[must_use]
    pub fn new(strikes: &[Strike]) -> Faults {
        let strikes = strikes.to_vec();
        Faults(Rc::new(RefCell::new(Plan { strikes, ..Plan::default() })))
    }

    /// Adds a failure to a run under way: the next call of its kind is number 0.
    pub fn plan(&self, strike: Strike) {
        let mut plan = self.0.borrow_mut();
        let nth = strike.nth + plan.calls[strike.call as usize];
        plan.strikes.push(Strike { nth, ..strike });
    }

    /// Counts a call, and says how it fails, if it does.
    #[must_use]
    pub fn strike(&self, call: Call) -> Option<Fault> {
        let mut plan = self.0.borrow_mut();
        let number = plan.calls[call as usize];
        plan.calls[call as usize] += 1;
        let strike = plan.strikes.iter().find(|strike| {
            strike.call == call && (strike.nth..strike.nth + strike.times).contains(&number)
        });
        let fault = strike.map(|strike| strike.fault);
        plan.struck += usize::from(fault.is_some());
        fault
    }

    /// Calls of a kind so far.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.0.borrow().calls[call as usize]
    }

    /// Failures so far.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.0.borrow().struck
    }
}

//! Failures that a script has planned: which call fails, the how-manieth of its kind, and how.
//!
//! Every call that a shard makes of its streams and its host is counted here, so a run without
//! faults tells how many places there are to strike. Knows nothing of what a failure does to a
//! stream; the stream does.

use std::cell::RefCell;
use std::rc::Rc;

/// What a shard asks of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Accept,
    Register,
    Deregister,
    Read,
    Write,
    HalfClose,
    Send,
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
    /// No room in the mailbox.
    Full,
}

// Linux's numbers; what a shard sees of them is `io::ErrorKind`.
pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const EIO: i32 = 5;
pub const EBADF: i32 = 9;
pub const ENOMEM: i32 = 12;
pub const ENFILE: i32 = 23;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;
pub const EPIPE: i32 = 32;
pub const ENOSYS: i32 = 38;
pub const EPROTO: i32 = 71;
pub const ENETDOWN: i32 = 100;
pub const ECONNABORTED: i32 = 103;
pub const ECONNRESET: i32 = 104;
pub const ENOBUFS: i32 = 105;
pub const ENOTCONN: i32 = 107;
pub const ETIMEDOUT: i32 = 110;
pub const EHOSTUNREACH: i32 = 113;

/// A handle on the plan of one run; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults(Rc<RefCell<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    calls: [u64; 8],
    strikes: Vec<Strike>,
    struck: usize,
}

/// A planned failure.
#[derive(Debug, Clone, Copy)]
pub struct Strike {
    pub call: Call,
    /// Which call of that kind is the first to fail, counted from 0.
    pub nth: u64,
    /// How many fail from there on.
    pub times: u64,
    pub fault: Fault,
}

impl Faults {
    pub fn new(strikes: &[Strike]) -> Faults {
        let strikes = strikes.to_vec();
        Faults(Rc::new(RefCell::new(Plan { strikes, ..Plan::default() })))
    }

    /// Adds a failure to a run under way: the next call of its kind is number 0.
    #[allow(
        dead_code,
        reason = "the fuzz target for shards plans as it goes; the torture does not"
    )]
    pub fn plan(&self, strike: Strike) {
        let mut plan = self.0.borrow_mut();
        let nth = strike.nth + plan.calls[strike.call as usize];
        plan.strikes.push(Strike { nth, ..strike });
    }

    /// Counts a call, and says how it fails, if it does.
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
    pub fn calls(&self, call: Call) -> u64 {
        self.0.borrow().calls[call as usize]
    }

    /// Failures so far.
    pub fn struck(&self) -> usize {
        self.0.borrow().struck
    }
}

//! What this process inherits from its parent and a server cannot use as it is: a mask of blocked
//! signals, and a soft limit of descriptors that is lower than it need be.
//!
//! Both are changed once, at the start. Installs no signal handler; only reports the limit.
//! Called by `main.rs`.
//!
//! Next: `supervisor`: who watches it.

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// The most descriptors that macOS grants where it says that there is no limit (`OPEN_MAX`).
const FALLBACK: rlim_t = 10_240;

/// Lets these signals through on the calling thread, and on each that it starts from then on.
///
/// A mask survives `execve`, so a parent that blocks signals (in a thread that waits for them, say)
/// leaves its child deaf to SIGTERM. Called once there are handlers: a signal that is pending is
/// delivered before this returns.
///
/// # Errors
///
/// A number that is no signal's.
pub(crate) fn unblock(signals: &[i32]) -> io::Result<()> {
    let mut set = SigSet::empty();
    for &number in signals {
        set.add(Signal::try_from(number)?);
    }
    Ok(set.thread_unblock()?)
}

/// Raises the soft limit of descriptors to the hard one, and returns what holds now; `None` if
/// there is no limit, or the system does not tell.
///
/// The soft limit is low (1024 on most systems) for the sake of programs that use `select(2)`, which
/// cannot handle larger descriptors; we poll. The hard limit is the administrator's, and stays.
pub(crate) fn raise_descriptor_limit() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        // What cannot be raised stays: the limit is in the memory line of the log.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(FALLBACK).max(soft), hard);
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft == nix::sys::resource::RLIM_INFINITY { None } else { usize::try_from(soft).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let limit = raise_descriptor_limit();
        let (soft, still_hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(still_hard, hard);
        if cfg!(target_os = "linux") {
            assert_eq!(soft, hard);
        }
        assert!(limit.is_none_or(|limit| limit as rlim_t == soft));
    }

    #[test]
    fn a_blocked_signal_is_let_through_and_others_stay_blocked() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR1);
        blocked.add(Signal::SIGWINCH);
        // The mask is this thread's, which ends with the test.
        blocked.thread_block().unwrap();
        unblock(&[Signal::SIGUSR1 as i32]).unwrap();
        let mask = SigSet::thread_get_mask().unwrap();
        assert!(!mask.contains(Signal::SIGUSR1) && mask.contains(Signal::SIGWINCH));
        assert!(unblock(&[0]).is_err());
    }
}

//! What the operating system knows about a server: CPU time, memory, switches; and which core runs
//! what.
//!
//! It reads `/proc` and calls `taskset` and `prlimit` of util-linux, so it is Linux only and needs no
//! unsafe code. It measures nothing by itself: the scenarios take the differences.

use std::fs;
use std::process::{Command, Stdio};

use crate::Result;

/// A reading of one process, all its threads together. Two of them make a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Time on a core, user and system. The kernel adds to it when a thread leaves its core, so it
    /// is exact while the server sleeps: the scenarios let it fall asleep before they read.
    pub(crate) run_ns: u64,
    /// Time ready to run without a core: other programs had it. It tells a disturbed run.
    pub(crate) wait_ns: u64,
    /// Times it went to sleep by itself: turns of an event loop that found nothing more to do.
    pub(crate) sleeps: u64,
}

impl Reading {
    /// Reads every thread of `pid`. `utime` and `stime` would be simpler, but are counted in ticks.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut sum = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let text = fs::read_to_string(task.join("schedstat"))?;
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(run)), Some(Ok(wait))) = (numbers.next(), numbers.next()) else {
                return Err("/proc/PID/task/TID/schedstat does not look as expected".into());
            };
            sum.run_ns += run;
            sum.wait_ns += wait;
            let status = fs::read_to_string(task.join("status"))?;
            sum.sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(sum)
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(before.run_ns),
            wait_ns: self.wait_ns.saturating_sub(before.wait_ns),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

/// Resident and anonymous memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let bytes = |name| field(&text, name).map(|kib| kib * 1024);
        match (bytes("Rss:"), bytes("Anonymous:")) {
            (Some(resident), Some(anonymous)) => Ok(Self { resident, anonymous }),
            _ => Err("/proc/PID/smaps_rollup does not look as expected".into()),
        }
    }
}

/// The first number on the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Which core the client keeps to, and which the servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

impl Cores {
    /// The first and the last of the cores that we may use; none on a machine with a single one.
    pub(crate) fn choose() -> Result<Option<Self>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let mut cores = Vec::new();
        for range in list.unwrap_or("0").trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            cores.extend(first.parse::<usize>()?..=last.parse::<usize>()?);
        }
        match (cores.first(), cores.last()) {
            (Some(&client), Some(&server)) if client != server => Ok(Some(Self { client, server })),
            _ => Ok(None),
        }
    }

    /// Keeps this program (all its threads) on the client's core.
    pub(crate) fn settle(self) -> Result<()> {
        let (core, pid) = (self.client.to_string(), std::process::id().to_string());
        quietly(Command::new("taskset").args(["-a", "-c", "-p", &core, &pid]))
    }
}

/// Raises the limit of open files to what the system allows; the children inherit it.
pub(crate) fn raise_file_limit() -> Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    let mut numbers = line.split_whitespace().skip(3);
    let (Some(soft), Some(hard)) = (numbers.next(), numbers.next()) else { return Ok(()) };
    if soft == hard {
        return Ok(());
    }
    let pid = std::process::id().to_string();
    quietly(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={hard}:{hard}")]))
}

/// How many files this program may have open at once.
pub(crate) fn file_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(3).and_then(|text| text.parse().ok()).unwrap_or(1024)
}

fn quietly(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let name = command.get_program().to_string_lossy().into_owned();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} failed ({status})").into()),
        Err(error) => Err(format!("{name} of util-linux is needed: {error}").into()),
    }
}

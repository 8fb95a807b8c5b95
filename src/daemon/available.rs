//! How much memory this process may use: the machine's, or less if a control group says so; and how many connections
//! may wait to be accepted.
//!
//! Reads what Linux tells in `/proc` and `/sys/fs/cgroup`; elsewhere it knows nothing and says so.
//! Compares nothing. Called by `shortages`.
//!
//! Next: `shortages`: what there is too little of.

use std::fs;

/// The memory there is, in bytes, and who says so; `None` if nobody does.
pub(crate) fn memory() -> Option<Available> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| fs::read_to_string(file).ok());
    least(machine, limits)
}

/// Connections that the kernel lets wait for one listener at most, if it tells.
pub(crate) fn accept_queue() -> Option<usize> {
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// A limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) bytes: usize,
    /// "this machine" or "this control group".
    pub(crate) of: &'static str,
}

/// `MemTotal:       16384000 kB`
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The files that may limit this process, for the text of `/proc/self/cgroup`.
///
/// A group is limited by each group above it, so all of them are looked at. In a container the path
/// may be the host's, and what is mounted only the container's part: then the files of the longer
/// paths are missing, and the one at the root is the container's.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        // `0::/path` (version 2), `9:memory:/path` (version 1): see cgroups(7).
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{mount}{path}/{file}"));
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    files
}

/// The least of all. A limit that is no number is none (`max`), and so is one of 0.
fn least(machine: Option<usize>, limits: impl Iterator<Item = String>) -> Option<Available> {
    let groups = limits.filter_map(|text| text.trim().parse().ok()).filter(|&bytes| bytes > 0);
    let group = groups.min().map(|bytes| Available { bytes, of: "this control group" });
    let machine = machine.map(|bytes| Available { bytes, of: "this machine" });
    // Version 1 writes "no limit" as a number far above what any machine has.
    machine.into_iter().chain(group).min_by_key(|available| available.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_as_linux_writes_it() {
        let text = "MemTotal:        8147880 kB\nMemFree:          218904 kB\n";
        assert_eq!(total(text), Some(8_147_880 * 1024));
        for none in ["", "MemTotal: many kB", "MemTotal: 1", "MemFree: 1 kB"] {
            assert_eq!(total(none), None, "{none}");
        }
    }

    #[test]
    fn a_group_is_limited_by_those_above_it() {
        assert_eq!(
            limit_files("0::/system.slice/revolve.service\n"),
            [
                "/sys/fs/cgroup/system.slice/revolve.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        let version_1 = "12:cpu,cpuacct:/docker/ab\n9:memory:/docker/ab\n1:name=systemd:/x:y\n";
        assert_eq!(
            limit_files(version_1),
            [
                "/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        for none in ["", "nonsense", "1:cpu:/", "::"] {
            let files = limit_files(none);
            assert!(files.is_empty() || none == "::", "{files:?}");
        }
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = Available { bytes: 1000, of: "this machine" };
        let group = |bytes| Some(Available { bytes, of: "this control group" });
        let found = |machine: Option<Available>, limits: &[&str]| {
            least(machine.map(|m| m.bytes), limits.iter().map(|text| (*text).to_owned()))
        };
        assert_eq!(found(Some(machine), &["max\n", "max\n"]), Some(machine));
        assert_eq!(found(Some(machine), &["max\n", "512\n", "900\n"]), group(512));
        assert_eq!(found(Some(machine), &["9223372036854771712\n"]), Some(machine));
        assert_eq!(found(Some(machine), &["0\n", "-1\n", "x", ""]), Some(machine));
        assert_eq!(found(None, &["512"]), group(512));
        assert_eq!(found(None, &["max"]), None);
    }

    #[test]
    fn linux_tells() {
        if cfg!(target_os = "linux") {
            assert!(memory().unwrap().bytes > 1 << 20);
            // A container may hide it.
            assert!(accept_queue().is_none_or(|most| most > 0));
        }
    }
}

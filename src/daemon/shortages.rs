//! What the machine allows less of than the options ask for: one line each, with the command that mends it.
//!
//! The server runs all the same. Memory is not here, because its line needs the bound (`introduction`). Knows of
//! the machine what it is told. Called by `introduction`.
//!
//! Next: `introduction`: what the program says of itself.

use revolve::config::{Address, Config};

use super::available::{self, Available};

/// Descriptors of each reactor, and of the process besides: its poll twice, waker, sleep timer and listener, and the
/// log's.
const PER_REACTOR: usize = 5;
const PER_PROCESS: usize = 8;

/// What the machine has and allows; `None` where it does not tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// That this process may use at once.
    pub(crate) cores: Option<usize>,
    /// That this process may have open.
    pub(crate) descriptors: Option<usize>,
    /// Connections that wait to be accepted, for each listener.
    pub(crate) accept_queue: Option<usize>,
    pub(crate) memory: Option<Available>,
}

impl Machine {
    /// This one. How many descriptors there may be is known by who has raised their limit.
    pub(crate) fn look(descriptors: Option<usize>) -> Machine {
        Machine {
            cores: std::thread::available_parallelism().ok().map(usize::from),
            descriptors,
            accept_queue: available::accept_queue(),
            memory: available::memory(),
        }
    }
}

/// The lines.
pub(crate) fn shortages(config: &Config, listening: &[Address], machine: &Machine) -> Vec<String> {
    [
        of_cores(config, machine),
        of_descriptors(config, machine),
        of_queue(config, listening, machine),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_cores(config: &Config, machine: &Machine) -> Option<String> {
    let (workers, cores) = (config.workers.get(), machine.cores?);
    (workers > cores).then(|| {
        format!(
            "workers: {workers} reactors share the {cores} cores that this process may use, and take turns on them; \
             start with --workers {cores}, or allow more cores (systemd: CPUQuota=, AllowedCPUs=)"
        )
    })
}

fn of_descriptors(config: &Config, machine: &Machine) -> Option<String> {
    let (limit, descriptors) = (config.limit_concurrency?, machine.descriptors?);
    let own = PER_PROCESS.saturating_add(config.workers.get().saturating_mul(PER_REACTOR));
    let asked = config.most_sockets()?.refused.saturating_add(own);
    (asked > descriptors).then(|| {
        format!(
            "descriptors: --limit-concurrency {limit} asks for {asked}, and {descriptors} are allowed; raise their \
             hard limit first: ulimit -n {asked} (systemd: LimitNOFILE={asked})"
        )
    })
}

fn of_queue(config: &Config, listening: &[Address], machine: &Machine) -> Option<String> {
    let (backlog, most) = (config.backlog as usize, machine.accept_queue?);
    // The queue of a socket that was passed is its maker's.
    let is_ours = listening.iter().any(|address| !matches!(address, Address::Inherited(_)));
    (is_ours && backlog > most).then(|| {
        format!(
            "backlog: the kernel cuts --backlog {backlog} to {most}; raise its limit first: \
             sysctl -w net.core.somaxconn={backlog}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    const ENOUGH: Machine =
        Machine { cores: Some(64), descriptors: None, accept_queue: Some(4096), memory: None };

    fn config(workers: usize, limit: Option<usize>, backlog: u32) -> Config {
        let workers = NonZeroUsize::new(workers).unwrap();
        let limit_concurrency = limit.and_then(NonZeroUsize::new);
        Config { workers, limit_concurrency, backlog, ..Config::default() }
    }

    fn lines(config: &Config, machine: &Machine) -> Vec<String> {
        shortages(config, &config.listen, machine)
    }

    #[test]
    fn where_nothing_is_short_or_told_nothing_is_said() {
        let untold = Machine { cores: None, descriptors: None, accept_queue: None, memory: None };
        for machine in [ENOUGH, untold] {
            assert_eq!(lines(&config(64, Some(1_000_000), 4096), &machine), [""; 0]);
        }
        let few = Machine { descriptors: Some(100), ..ENOUGH };
        assert_eq!(lines(&config(1, None, 1), &few), [""; 0], "connections have no limit");
    }

    #[test]
    fn more_workers_than_cores_are_told_from_the_first_on() {
        let machine = Machine { cores: Some(2), ..ENOUGH };
        assert_eq!(lines(&config(2, None, 1), &machine), [""; 0]);
        let [line] = &lines(&config(3, None, 1), &machine)[..] else { panic!("one line") };
        assert!(line.starts_with("workers: 3 reactors share the 2 cores"), "{line}");
        assert!(line.contains("--workers 2"), "{line}");
    }

    #[test]
    fn descriptors_are_reckoned_with_what_is_refused_and_what_is_ours() {
        let config = config(2, Some(100), 1);
        let asked = 2 * 100 + 2 * config.limits.socket_margin + 18;
        let with = |descriptors| Machine { descriptors: Some(descriptors), ..ENOUGH };
        assert_eq!(lines(&config, &with(asked)), [""; 0]);
        let [line] = &lines(&config, &with(asked - 1))[..] else { panic!("one line") };
        let wanted = format!("asks for {asked}, and {} are allowed", asked - 1);
        assert!(line.contains(&wanted) && line.contains(&format!("ulimit -n {asked}")), "{line}");
    }

    #[test]
    fn a_cut_backlog_is_told_where_the_queue_is_ours() {
        let machine = Machine { accept_queue: Some(128), ..ENOUGH };
        assert_eq!(lines(&config(1, None, 128), &machine), [""; 0]);
        let config = config(1, None, 129);
        let [line] = &lines(&config, &machine)[..] else { panic!("one line") };
        assert!(line.ends_with("sysctl -w net.core.somaxconn=129"), "{line}");
        let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(shortages(&config, &[Address::from(passed)], &machine), [""; 0]);
    }
}

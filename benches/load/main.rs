//! `cargo bench --bench load`: what a message, a connection and an idle connection cost, against the
//! floor of this machine and against what a user would pick instead.
//!
//! Each server is a child process on a core of its own, driven from the other core by one light
//! client that checks every reply. The main figure is the server's CPU time as the kernel counts it,
//! not throughput: on a shared machine throughput tells more about the neighbours. The runs of the
//! servers are interleaved (A B C A B C …), so that a disturbance meets all of them, and ratios are
//! taken within a round.
//!
//! It needs Linux and util-linux (`taskset`), and Python for the reference stack; a server that is
//! not to be had is named and left out. It does not count instructions: that is `micro`'s.
//!
//! Files: `servers` builds and starts them, `client` is the load, `pacing` and `reconnects` are two
//! forms of it, `scenarios` and `storm` say what is asked, `cpu` reads the kernel's figures, `report`
//! keeps and prints the results, `picture` draws them. `durability` is a run of its own: revolve with
//! and without a store, beside Redis; and so is `shared`: sessions in Redis.

// A bench is a program for a terminal, and a broken assumption should end it loudly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
// The lints of the library: nothing here is anybody's API.
#![allow(missing_docs)]

mod client;
mod cpu;
mod durability;
mod pacing;
mod picture;
mod reconnects;
mod report;
mod scenarios;
mod servers;
mod shared;
mod storm;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use report::Report;
use scenarios::{SCENARIOS, Scenario, Setting};
use servers::{NAMES, Server};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
usage: cargo bench --bench load -- [OPTIONS]

  --list               the scenarios and servers, and what they are
  --only NAME[,NAME]   these scenarios; a beginning is enough (pingpong, text, storm)
  --servers LIST       these servers (floor,revolve,sockudo-ws)
  --repetitions N      rounds over the servers (5; with --quick 1)
  --quick              shorter runs, one round: a look, not a result
  --revolve PATH       this daemon instead of the one that cargo built
  --output DIR         where the results go
  --write-docs         put the table of the last complete run into docs/performance.md
  --render             no runs: draw and write the last results again
  --store              revolve without a store, with one, and Redis that syncs each write; nothing else
  --redis              revolve with its sessions in Redis, and takeovers between two nodes; nothing else

A complete run writes benches/results/latest.{json,md,svg}; any other run leaves them alone and
writes to target/load/. So do --store and --redis, unless they have --write-docs: then the table goes to
benches/results/store.md and into docs/durability.md, or to redis.md there and into docs/redis.md.";

/// The results that are committed, and those that are not.
const COMMITTED: &str = "benches/results";
const SCRATCH: &str = "target/load";

/// The document that shows the committed results.
const DOCUMENT: &str = "docs/performance.md";

#[derive(Debug, Default)]
struct Options {
    only: Vec<String>,
    servers: Vec<String>,
    repetitions: Option<usize>,
    quick: bool,
    list: bool,
    revolve: Option<PathBuf>,
    output: Option<PathBuf>,
    write_docs: bool,
    render: bool,
    store: bool,
    redis: bool,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
        let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match argument.as_str() {
            // Cargo's word to every bench.
            "--bench" => {}
            "--only" => options.only = list(value()?),
            "--servers" => options.servers = list(value()?),
            "--repetitions" => options.repetitions = Some(value()?.parse::<usize>()?.max(1)),
            "--revolve" => options.revolve = Some(value()?.into()),
            "--output" => options.output = Some(value()?.into()),
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--write-docs" => options.write_docs = true,
            "--render" => options.render = true,
            "--store" => options.store = true,
            "--redis" => options.redis = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0)
            }
            _ => return Err(format!("unknown option {argument}\n\n{USAGE}").into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    if options.list {
        return list();
    }
    // Cargo starts a bench in its package's directory; everything below is named from there.
    if !Path::new("benches/load").is_dir() {
        return Err("start it with `cargo bench --bench load`".into());
    }
    if options.store {
        return measure_store(options, "store.md", "docs/durability.md", durability::measure);
    }
    if options.redis {
        return measure_store(options, "redis.md", "docs/redis.md", shared::measure);
    }
    let scenarios = pick(SCENARIOS, &options.only, |scenario| scenario.name)?;
    let wanted: Vec<&str> =
        pick(NAMES, &options.servers, |(name, _)| name)?.iter().map(|(name, _)| *name).collect();
    let complete = !options.quick && scenarios.len() == SCENARIOS.len();
    let complete = complete && wanted.len() == NAMES.len();
    let output = options.output.clone().unwrap_or_else(|| match complete || options.render {
        true => COMMITTED.into(),
        false => scratch(),
    });
    if !options.render {
        let report = measure(options, &scenarios, &wanted)?;
        report.print();
        report.save(&output)?;
    }
    let report = Report::load(&output)?;
    report.write_table(&output)?;
    picture::draw(&report, &output.join("latest.svg"))?;
    println!("\nwritten: {}/latest.{{json,md,svg}}", output.display());
    if options.write_docs {
        report::write_docs(&Path::new(COMMITTED).join("latest.md"), Path::new(DOCUMENT))?;
        println!("{DOCUMENT} holds the table of {COMMITTED}/latest.md");
    }
    Ok(())
}

fn list() -> Result<()> {
    println!("scenarios:");
    for scenario in SCENARIOS {
        println!("  {:<18} {}", scenario.name, scenario.about);
    }
    println!("servers:");
    for (name, kind) in NAMES {
        println!("  {name:<18} {kind:?}");
    }
    Ok(())
}

/// What a store costs: a table, and with `--write-docs` the document that shows it.
fn measure_store(
    options: &Options,
    file: &str,
    document: &str,
    measure: fn(&Server, Setting, usize, &Path) -> Result<String>,
) -> Result<()> {
    let say = |text: String| eprintln!("{text}");
    let (servers, absent) = servers::prepare(&["revolve"], options.revolve.clone(), &say)?;
    let [revolve] = &servers[..] else { return Err(format!("no revolve: {absent:?}").into()) };
    cpu::raise_file_limit()?;
    let cores = cpu::Cores::choose()?;
    if let Some(cores) = cores {
        cores.settle()?;
    }
    let setting = Setting { cores, quick: options.quick };
    let rounds = options.repetitions.unwrap_or(if options.quick { 1 } else { 5 });
    let scratch = scratch();
    let table = measure(revolve, setting, rounds, &scratch)?;
    println!("{table}");
    let place = if options.write_docs { COMMITTED.into() } else { scratch };
    std::fs::create_dir_all(&place)?;
    std::fs::write(place.join(file), &table)?;
    if options.write_docs {
        report::write_docs(&place.join(file), Path::new(document))?;
    }
    Ok(())
}

fn scratch() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(SCRATCH), |target| PathBuf::from(target).join("load"))
}

/// Those of `all` that are `wanted`: by name, or by the beginning of a name. All when nothing is.
fn pick<'a, T>(
    all: &'a [T],
    wanted: &[String],
    name: impl Fn(&'a T) -> &'static str,
) -> Result<Vec<&'a T>> {
    if wanted.is_empty() {
        return Ok(all.iter().collect());
    }
    let mut picked = vec![false; all.len()];
    for word in wanted {
        let exact = all.iter().position(|item| name(item) == word);
        let begins = |at: &usize| name(&all[*at]).starts_with(word.as_str());
        let found: Vec<usize> = match exact {
            Some(at) => vec![at],
            None => (0..all.len()).filter(begins).collect(),
        };
        if found.is_empty() {
            return Err(format!("there is no {word}; see --list").into());
        }
        found.into_iter().for_each(|at| picked[at] = true);
    }
    Ok(all.iter().zip(picked).filter_map(|(item, picked)| picked.then_some(item)).collect())
}

/// Runs everything, round by round, and gathers the figures.
fn measure(options: &Options, scenarios: &[&Scenario], wanted: &[&str]) -> Result<Report> {
    let bar = progress_bar();
    let say = |text: String| {
        bar.set_message(text.clone());
        if bar.is_hidden() {
            eprintln!("{text}");
        }
    };
    let (servers, absent) = servers::prepare(wanted, options.revolve.clone(), &say)?;
    for (name, reason) in &absent {
        say(format!("{name} is absent: {reason}"));
    }
    cpu::raise_file_limit()?;
    let cores = cpu::Cores::choose()?;
    match cores {
        Some(cores) => cores.settle()?,
        None => say("one core for all: client and server disturb each other".into()),
    }
    let setting = Setting { cores, quick: options.quick };
    let rounds = options.repetitions.unwrap_or(if options.quick { 1 } else { 5 });
    let mut report = Report::new(&servers, &absent, rounds, options.quick);
    let pairs = |scenario: &Scenario, servers: &[Server]| {
        servers.iter().filter(|server| scenario.applies_to(server)).count()
    };
    let runs: usize =
        scenarios.iter().map(|s| pairs(s, &servers) * rounds.min(s.repetitions)).sum();
    bar.set_length(runs as u64);
    bar.enable_steady_tick(Duration::from_secs(1));
    for scenario in scenarios {
        for round in 0..rounds.min(scenario.repetitions) {
            for server in servers.iter().filter(|server| scenario.applies_to(server)) {
                bar.set_message(format!("{}, round {}: {}", scenario.name, round + 1, server.name));
                let outcome = scenario.run(server, setting);
                if let Err(error) = &outcome {
                    bar.suspend(|| eprintln!("{} {}: {error}", scenario.name, server.name));
                }
                report.add(scenario, server, round, outcome);
                bar.inc(1);
            }
        }
        if bar.is_hidden() {
            eprintln!("{}: done", scenario.name);
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left {eta})  {msg}");
    bar.set_style(style.expect("the template is right"));
    bar
}

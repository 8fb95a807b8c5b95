//! `cargo bench --bench micro`: how many instructions each part of the path of a message takes.
//!
//! Instructions, not time: the same binary executes the same number of them on a loaded machine as on
//! a quiet one, so a change of three percent is a change and not the weather. The bench runs itself
//! under valgrind's callgrind, once a case, and counts inside [`counted`] only, so that preparing
//! costs nothing. Then it compares with the committed baseline, and fails when a case has got more
//! than three percent worse. It also fails when something costs more among twenty thousand connections
//! than among a few; `-- --scale` says what it costs among a million.
//!
//! It needs valgrind. It does not measure what the kernel costs, or caches: that is `load`'s.
//!
//! Files: `cases` says what is counted, `turn` is a shard in memory, `scale` says what is counted of a
//! `crowd`, which is one with many connections, and `scale_page` shows it; `callgrind` counts, `baseline`
//! compares, `daemon` counts the instructions a message of the daemon itself.

// A bench is a program for a terminal, and a broken assumption should end it loudly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
// The lints of the library: nothing here is anybody's API.
#![allow(missing_docs)]

mod baseline;
mod callgrind;
mod cases;
mod crowd;
mod daemon;
mod scale;
mod scale_page;
mod turn;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baseline::{Baseline, Count};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
usage: cargo bench --bench micro -- [OPTIONS]

  --list         the cases
  --only TEXT    the cases with that in their name
  --renew        make the counts of this run the baseline (benches/micro/baseline.txt)
  --scale        a million connections and ten million sessions instead: takes some minutes
  --write-docs   with that: show the tables in docs/performance.md
  --daemon       the daemon under callgrind instead: instructions a message, by thread
  --revolve PATH this daemon instead of the one that cargo built

Exits with 1 when a case is more than 3 % worse than the baseline, or costs more among many connections
than among few.";

/// What the bench says to itself: do this one case, here and now.
const CASE: &str = "--case";

#[derive(Default)]
struct Options {
    only: String,
    case: Option<String>,
    scene: Option<(String, usize)>,
    list: bool,
    renew: bool,
    daemon: bool,
    scale: bool,
    write_docs: bool,
    revolve: Option<PathBuf>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("micro: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            // Cargo's word to every bench.
            "--bench" => {}
            "--only" => options.only = value()?,
            CASE => options.case = Some(value()?),
            scale::SCENE => options.scene = Some((value()?, value()?.parse()?)),
            "--revolve" => options.revolve = Some(value()?.into()),
            "--list" => options.list = true,
            "--renew" => options.renew = true,
            "--scale" => options.scale = true,
            "--write-docs" => options.write_docs = true,
            "--daemon" => options.daemon = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                std::process::exit(0)
            }
            _ => return Err(format!("unknown option {argument}\n\n{USAGE}").into()),
        }
    }
    Ok(options)
}

/// Fails when something has got worse.
fn run(options: &Options) -> Result<ExitCode> {
    if let Some(name) = &options.case {
        let case = cases::all().into_iter().find(|case| case.name == *name);
        let mut work = (case.ok_or("there is no such case")?.prepare)();
        counted(&mut work);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some((name, size)) = &options.scene {
        scale::play(name, *size)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cases = cases::all().into_iter().filter(|case| case.name.contains(&options.only));
    if options.list {
        cases.for_each(|case| println!("{:<24} {}", case.name, case.unit));
        scale::SMALL.iter().for_each(|(name, size)| println!("{name}-{size}/…"));
        return Ok(ExitCode::SUCCESS);
    }
    // Cargo starts a bench in its package's directory; the baseline is named from there.
    if !Path::new("benches/micro").is_dir() {
        return Err("start it with `cargo bench --bench micro`".into());
    }
    let toolchain = callgrind::toolchain()?;
    if options.daemon {
        return daemon::measure(options.revolve.clone()).map(|()| ExitCode::SUCCESS);
    }
    if options.scale {
        let page = scale_page::measure(&toolchain)?;
        println!("{page}");
        if options.write_docs {
            scale_page::write(&page)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut counts = Vec::new();
    for case in cases {
        let total = match case.name.as_str() {
            name if cases::WEIGHED.contains(&name) => cases::weigh(name)?,
            name => callgrind::count(&[CASE, name], "*micro*counted*")?,
        };
        let each = total as f64 / case.operations as f64;
        counts.push(Count { name: case.name, each, unit: case.unit });
    }
    counts.append(&mut scale::small(&options.only)?);
    let before = Baseline::load()?;
    let is_complete = options.only.is_empty();
    let worse = before.compare(&counts, &toolchain, is_complete) + scale::judge(&counts);
    if options.renew {
        before.renewed(counts, toolchain, is_complete).save()?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if worse == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where callgrind counts, and nowhere else. Not inlined, because it is found by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Something must follow, or the call becomes a jump and the function is left too early.
    std::hint::black_box(());
}

//! The fuzz targets without a fuzzer: each runs on the corpus that is committed under
//! `fuzz/corpus`, so that whatever the fuzzer once reached stays reached, and whatever it once
//! broke stays mended. Finds nothing new; `tests/run --only fuzz` does.
//!
//! One input alone: `REVOLVE_INPUT=fuzz/corpus/head/0123… cargo test --all-features --test corpus`

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "targets.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// Bytes of the whole corpus at most: it is read by people who clone, and run by everyone's tests.
const CORPUS_MOST: u64 = 320 << 10;

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut inputs: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    inputs.sort();
    inputs
}

fn replay(target: &str, run: targets::Target, input: &Path) {
    let bytes = fs::read(input).unwrap_or_else(|error| panic!("{input:?}: {error}"));
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&bytes))) {
        eprintln!(
            "{target}: replay with  REVOLVE_INPUT={} cargo test --all-features --test corpus",
            input.display()
        );
        resume_unwind(panic);
    }
}

#[test]
fn what_was_reached_once_holds() {
    if let Some(input) = std::env::var_os("REVOLVE_INPUT").map(PathBuf::from) {
        // The folder of an input is named after its target, in the corpus and among the artifacts.
        let is_for = |target: &str| input.components().any(|part| part.as_os_str() == target);
        let (name, run) = targets::TARGETS
            .iter()
            .copied()
            .find(|(target, _)| is_for(target))
            .unwrap_or_else(|| panic!("{input:?} does not say for which target it is"));
        return replay(name, run, &input);
    }
    let mut bytes = 0;
    for &(target, run) in targets::TARGETS {
        let inputs = inputs(target);
        for input in &inputs {
            bytes += fs::metadata(input).expect("it was listed").len();
            replay(target, run, input);
        }
        println!("{target}: {} inputs", inputs.len());
        assert!(inputs.len() > 20, "{target}: the corpus has shrunk to {}", inputs.len());
    }
    println!("{bytes} bytes");
    assert!(bytes <= CORPUS_MOST, "the corpus has grown to {bytes} bytes");
}

//! Tells the program which commit it is built from, for `revolve --version`.
//!
//! Only for a release build of the daemon: anything else would be compiled anew after each commit for
//! nothing. A package from a registry says its commit in a file of cargo's, whoever builds without git in the
//! environment, a checkout through git; of anything else no commit is known, and that is no error. Reads no
//! clock, no host and no path, so the same sources make the same program.

#![allow(clippy::print_stdout)] // That is how a build script talks to cargo.

use std::env;
use std::fs;
use std::process::Command;

/// The files that decide what the program is.
const SOURCES: [&str; 4] = ["src", "build.rs", "Cargo.toml", "Cargo.lock"];

/// Under this name the program finds it; and so a build without git, in a container say, is told it.
const VARIABLE: &str = "BUILT_FROM_COMMIT";

/// Hexadecimal digits of a commit that are told.
const DIGITS: usize = 12;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_release || env::var_os("CARGO_FEATURE_DAEMON").is_none() {
        return;
    }
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    if let Some(commit) = packaged().or_else(told).or_else(checked_out) {
        // Not REVOLVE_…: `cargo run` passes it on, and the program takes those for options.
        println!("cargo:rustc-env={VARIABLE}={commit}");
    }
}

/// What `cargo package` has written: `{"git": {"sha1": "…", "dirty": true}, …}`.
fn packaged() -> Option<String> {
    let info = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, value) = info.split_once("\"sha1\"")?;
    let commit = value.split('"').nth(1)?;
    named(commit, info.contains("\"dirty\": true"))
}

/// By whoever builds it.
fn told() -> Option<String> {
    named(env::var(VARIABLE).ok()?.trim(), false)
}

/// The checkout that this folder is the top of; one further up is somebody else's.
fn checked_out() -> Option<String> {
    let told = git(&["rev-parse", "--show-prefix", "HEAD"])?;
    let commit = told.strip_prefix('\n')?;
    // Grows with each commit and each change of the branch.
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?.trim());
    for file in SOURCES {
        println!("cargo:rerun-if-changed={file}");
    }
    let is_clean = git(&[&["diff", "--quiet", "HEAD", "--"][..], &SOURCES].concat()).is_some();
    named(commit.trim(), !is_clean)
}

/// What git says in this folder; cargo runs this in the package's. `None` if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

fn named(commit: &str, is_changed: bool) -> Option<String> {
    let is_commit = commit.len() >= DIGITS && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let changed = if is_changed { ", changed" } else { "" };
    is_commit.then(|| format!("{}{changed}", &commit[..DIGITS]))
}

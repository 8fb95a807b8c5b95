//! Runs a program under valgrind's callgrind and reads how many instructions it executed.
//!
//! The same everywhere: the environment is empty, so the stack begins at the same place, and glibc is
//! told not to pick its copying functions by the processor at hand.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Result;

/// Copies by `rep movsb` are counted by the byte, and from which size on glibc uses them depends on
/// the processor: never.
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffffffff:\
    glibc.cpu.x86_rep_stosb_threshold=0x7fffffffffffffff:\
    glibc.cpu.x86_non_temporal_threshold=0x7fffffffffffffff";

/// What decides how many instructions a source becomes: compiler and target, the vectors with which UTF-8 is
/// checked, C library, valgrind.
pub(crate) fn toolchain() -> Result<String> {
    let first_line = |command: &mut Command| -> Option<String> {
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
    };
    let valgrind = first_line(Command::new("valgrind").arg("--version"))
        .ok_or("valgrind is needed (Debian: apt-get install valgrind)")?;
    let rustc = first_line(Command::new("rustc").arg("--version")).unwrap_or_default();
    let libc = first_line(Command::new("getconf").arg("GNU_LIBC_VERSION")).unwrap_or_default();
    Ok(format!("{rustc}, {} with {}, {libc}, {valgrind}", std::env::consts::ARCH, vectors()))
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    match (is_x86_feature_detected!("avx2"), is_x86_feature_detected!("sse4.2")) {
        (true, _) => "avx2",
        (false, true) => "sse4.2",
        (false, false) => "none",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    "its own"
}

/// Where the traces go.
pub(crate) fn scratch() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let scratch = std::path::absolute(target.join("micro"))?;
    fs::create_dir_all(&scratch)?;
    Ok(scratch)
}

/// A command line that begins with valgrind; the program and its arguments are the caller's to add.
pub(crate) fn command(trace: &std::path::Path, options: &[&str]) -> Command {
    let mut command = Command::new("valgrind");
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(trace);
    command.arg("--tool=callgrind").arg(out).args(options);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("GLIBC_TUNABLES", TUNABLES);
    command.stdin(Stdio::null());
    command
}

/// Runs this very program with `arguments` and counts inside the function that `pattern` names.
pub(crate) fn count(arguments: &[&str], pattern: &str) -> Result<u64> {
    let (_, trace) = run(arguments, &[&format!("--toggle-collect={pattern}")])?;
    match total(&trace) {
        Some(total @ 1..) => Ok(total),
        _ => Err(format!("nothing was counted in {pattern}: are the symbols stripped?").into()),
    }
}

/// The same for each call of the function `name` by itself, in order; and what the program has printed.
pub(crate) fn count_calls(arguments: &[&str], name: &str) -> Result<(String, Vec<u64>)> {
    let inside = format!("--toggle-collect={name}");
    // This one takes a name and no pattern.
    let each = format!("--dump-after={name}");
    // By function and not by line, because there is a part for each of some thousand calls.
    let options = [&*inside, &each, "--combine-dumps=yes", "--dump-line=no", "--compress-pos=no"];
    let (printed, trace) = run(arguments, &options)?;
    let mut calls: Vec<u64> = totals(&trace).collect();
    // The last part is what the program did after the last call: nothing was counted there.
    calls.pop().filter(|&rest| rest == 0).ok_or("more was counted than the calls")?;
    Ok((printed, calls))
}

/// What the program prints, and the trace.
fn run(arguments: &[&str], options: &[&str]) -> Result<(String, String)> {
    let trace = scratch()?.join(format!("callgrind.{}", std::process::id()));
    let output = command(&trace, &["--collect-atstart=no"])
        .args(options)
        .arg(std::env::current_exe()?)
        .args(arguments)
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}\n{text}", arguments.join(" "), output.status).into());
    }
    let text = fs::read_to_string(&trace)?;
    fs::remove_file(&trace)?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), text))
}

/// The total of a trace.
pub(crate) fn total(trace: &str) -> Option<u64> {
    totals(trace).next()
}

/// Those of its parts.
fn totals(trace: &str) -> impl Iterator<Item = u64> {
    trace.lines().filter_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

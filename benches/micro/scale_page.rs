//! The tables of `--scale`: what the large scenes cost, beside what the small ones do.
//!
//! Writes `benches/results/scale.md` and shows it in docs/performance.md between two markers;
//! `tests/performance.rs` checks that the two agree. Counts nothing: `scale` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::Result;
use crate::scale::{self, Figure, LARGE, MANY};

const PATH: &str = "benches/results/scale.md";
const DOCUMENT: &str = "docs/performance.md";
const MARKERS: [&str; 2] = ["<!-- scale:begin -->", "<!-- scale:end -->"];

/// The figures of a scene, by its name and size.
type Played = BTreeMap<(&'static str, usize), BTreeMap<String, Figure>>;

/// Plays the large scenes, and returns the page.
pub(crate) fn measure(toolchain: &str) -> Result<String> {
    let mut played = Played::new();
    for (name, size) in LARGE {
        eprintln!("{name} of {}", thousands(size as u64));
        played.insert((name, size), scale::count(name, size)?.1);
    }
    let mut page = bytes()?;
    page.push_str(&crowd(&played)?);
    page.push_str(&peak(&played)?);
    page.push_str(&sessions(&played)?);
    writeln!(page, "`cargo bench --bench micro -- --scale --write-docs`, {toolchain}")?;
    Ok(page)
}

/// Writes the page, and into the document.
pub(crate) fn write(page: &str) -> Result<()> {
    fs::write(PATH, page)?;
    let document = fs::read_to_string(DOCUMENT)?;
    let [begin, end] = MARKERS;
    let (before, rest) = document.split_once(begin).ok_or("no place for the tables")?;
    let (_, after) = rest.split_once(end).ok_or("no end of the place for the tables")?;
    fs::write(DOCUMENT, format!("{before}{begin}\n{}\n{end}{after}", page.trim()))?;
    println!("{PATH} and {DOCUMENT} are written");
    Ok(())
}

/// 1234567 as 1,234,567.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rounded(each: f64) -> String {
    thousands(each.round() as u64)
}

/// What the kernel says that they take.
fn bytes() -> Result<String> {
    let (connections, left) = (MANY as f64, scale::weights("peak", MANY)?);
    let between = |weights: &BTreeMap<String, u64>, from: &str, to: &str| -> Result<f64> {
        let at = |when: &str| weights.get(when).copied().ok_or("a weight is missing");
        Ok(at(to)?.saturating_sub(at(from)?) as f64)
    };
    let parked = scale::weights("sessions", 10 * MANY)?;
    let sessions = 10.0 * connections;
    let mut page = String::from("| held by the process | bytes each |\n|---|--:|\n");
    for (what, bytes) in [
        (
            "1,000,000 open connections, each with its session",
            between(&left, "before", "heard")? / connections,
        ),
        (
            "the same after all but ten have left; their sessions are parked",
            between(&left, "before", "left")? / connections,
        ),
        (
            "the same after the sessions have expired",
            between(&left, "before", "expired")? / connections,
        ),
        ("10,000,000 parked sessions", between(&parked, "before", "parked")? / sessions),
        ("the same after all have expired", between(&parked, "before", "expired")? / sessions),
    ] {
        writeln!(page, "| {what} | {bytes:.1} |")?;
    }
    page.push('\n');
    Ok(page)
}

/// The steps of a table, and what each is called in it.
type Rows = [(&'static str, &'static str)];

const CROWD: [(&str, &str); 11] = [
    ("open", "a connection is accepted and opened, all at once"),
    ("all-talk", "a message, all at once"),
    ("talk", "a message, 64 talk"),
    ("broadcast", "a broadcast, a recipient"),
    ("alarm", "an alarm that comes too early, all at once"),
    ("ping", "a ping, all at once"),
    ("goodbye", "a goodbye in a drain"),
    ("echo", "the answer to it"),
    ("empty", "a turn without anything to do"),
    ("scrape", "a page of metrics"),
    ("look", "a look of the live page, which shows 65,536 slots"),
];

const LEAVING: [(&str, &str); 3] = [
    ("leave", "a connection leaves, its session is parked"),
    ("vacant-alarm", "an alarm of a connection that has left, all at once"),
    ("expire", "a session expires, all at once"),
];

const PEAK: [(&str, &str); 7] = [
    ("talk", "a message"),
    ("broadcast", "a broadcast, a recipient"),
    ("empty", "a turn without anything to do"),
    ("scrape", "a page of metrics"),
    ("look", "a look of the live page, which shows 65,536 slots"),
    ("goodbye", "a goodbye in a drain"),
    ("echo", "the answer to it"),
];

const SESSIONS: [(&str, &str); 3] = [
    ("park", "a session is opened and left, 1,024 a turn"),
    ("resume", "a session is found, resumed and left again"),
    ("expire", "a session expires, all at once"),
];

fn of<'a>(played: &'a Played, scene: (&'static str, usize), step: &str) -> Result<&'a Figure> {
    let figures = played.get(&scene).ok_or("a scene is missing")?;
    Ok(figures.get(step).ok_or("a step is missing")?)
}

fn crowd(played: &Played) -> Result<String> {
    let scenes = [("crowd", 64), ("crowd", MANY)];
    let heads = ["instructions", "64 connections", "1,000,000", "longest turn of the million"];
    let mut page = beside(played, scenes, heads, &CROWD)?;
    let mut alone = String::from("| instructions | 1,000,000 | longest turn |\n|---|--:|--:|\n");
    for (step, what) in LEAVING {
        let Figure { each, longest, .. } = of(played, ("peak", MANY), step)?;
        writeln!(alone, "| {what} | {} | {} |", rounded(*each), thousands(*longest))?;
    }
    page.push_str(&alone);
    page.push('\n');
    Ok(page)
}

fn peak(played: &Played) -> Result<String> {
    let scenes = [("few", 10), ("peak", MANY)];
    let heads = ["instructions", "ten connections", "ten of 1,000,000", "longest turn of these"];
    beside(played, scenes, heads, &PEAK)
}

fn sessions(played: &Played) -> Result<String> {
    let scenes = [("sessions", 1000), ("sessions", 10 * MANY)];
    let heads = ["instructions", "1,000 sessions", "10,000,000", "longest turn of these"];
    beside(played, scenes, heads, &SESSIONS)
}

/// A table of steps in two scenes.
fn beside(
    played: &Played,
    [small, large]: [(&'static str, usize); 2],
    [what, few, many, longest]: [&str; 4],
    rows: &Rows,
) -> Result<String> {
    let mut page = format!("| {what} | {few} | {many} | ratio | {longest} |\n");
    page.push_str("|---|--:|--:|--:|--:|\n");
    for (step, what) in rows {
        let (one, other) = (of(played, small, step)?, of(played, large, step)?);
        let ratio = other.each / one.each;
        let (one, each) = (rounded(one.each), rounded(other.each));
        let longest = thousands(other.longest);
        writeln!(page, "| {what} | {one} | {each} | {ratio:.2} | {longest} |")?;
    }
    page.push('\n');
    Ok(page)
}

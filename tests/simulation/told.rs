//! What a turn tells of its writes (`src/observe/turn_trace.rs`), compared with what the wires were given.

use std::ops::RangeInclusive;

use super::pieces::streams::Written;

/// Says a number of bytes before one of these words.
const BYTES_BEFORE: [&str; 2] = [" in one write", " written"];

/// What is not true in the lines of one turn, if something is not.
///
/// Bytes: what is told as written is what the wires took, as closely as sizes are told (three digits
/// from 10 kB on). Calls: each "in one write" was one, unless something is told that says nothing of
/// their number.
pub fn mismatch(lines: &[String], written: Written) -> Option<&'static str> {
    // Of a crowded turn only the number of lines is told.
    let is_crowded = lines.last().is_some_and(|line| line.starts_with("  and "));
    let told: Vec<RangeInclusive<u64>> = lines.iter().flat_map(|line| sizes(line)).collect();
    let least: u64 = told.iter().map(RangeInclusive::start).sum();
    let most: u64 = told.iter().map(RangeInclusive::end).sum();
    if written.bytes < least {
        return Some("more bytes are told than were written");
    }
    if written.bytes > most && !is_crowded {
        return Some("fewer bytes are told than were written");
    }

    let count = |what: &str| lines.iter().map(|line| line.matches(what).count()).sum::<usize>();
    // As many writes as it took; and a write that failed, or two.
    let is_vague = is_crowded || count(" written") > 0 || count("lost") > 0;
    let singles = count(" in one write");
    if singles > written.writes {
        return Some("more writes are told than were made");
    }
    (singles < written.writes && !is_vague).then_some("fewer writes are told than were made")
}

/// The sizes that stand before the words for writing, each with what rounding leaves open.
fn sizes(line: &str) -> Vec<RangeInclusive<u64>> {
    let before = |word: &&str| {
        let ends = line.match_indices(*word).map(|(at, _)| &line[..at]).collect::<Vec<_>>();
        ends.into_iter()
    };
    BYTES_BEFORE.iter().flat_map(before).map(size_at_end).collect()
}

fn size_at_end(text: &str) -> RangeInclusive<u64> {
    let mut words = text.rsplit(' ');
    let unit = words.next().unwrap_or_default();
    let number = words.next().unwrap_or_default();
    let (scale, open) = match unit {
        "B" => (1, 0),
        "kB" => (1_000, 50),
        "MB" => (1_000_000, 50_000),
        _ => panic!("no size: {text:?}"),
    };
    let number: f64 = number.parse().unwrap_or_else(|_| panic!("no size: {text:?}"));
    let bytes = (number * f64::from(scale)).round() as u64;
    bytes.saturating_sub(open)..=bytes + open
}

#[test]
fn what_is_not_true_is_found() {
    let check = |line: &str, writes, bytes| {
        mismatch(&[line.to_owned()], Written { writes, bytes }).is_none()
    };
    let line = "turn 1: #1.1 readable: 9 B read; 14 B in one write; blocked";
    assert!(check(line, 1, 14));
    assert!(!check(line, 1, 13) && !check(line, 1, 15) && !check(line, 2, 14));
    let line = "turn 1: #1.1 alarm: closed by us: 1008; 66.9 kB written; ended";
    assert!(check(line, 3, 66_900) && check(line, 1, 66_949));
    assert!(!check(line, 0, 0) && !check(line, 1, 67_000));
    let line = "turn 1: #1.1 alarm: lost; 66.9 kB discarded; ended";
    assert!(check(line, 1, 0) && check(line, 0, 0) && !check(line, 1, 1));
    let line = "turn 1: a broadcast of 14 B to slots 0 to 3 of 4: 42 B written";
    assert!(check(line, 3, 42) && !check(line, 3, 56));
}

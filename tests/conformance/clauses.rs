//! The clauses that the cases stand for, those of RFC 6455 and behind them those of RFC 7692, and
//! the table of clauses and cases that README.md of this folder shows. Runs no case.

use std::fmt::Write;

use crate::case::Case;

/// Clause (with a topic, where one has many) and what it asks for, in the order of the RFC.
pub(crate) const CLAUSES: [(&str, &str); 25] = [
    ("4.2.1", "what is no opening handshake is refused, with a status that says why"),
    ("4.2.2", "the 101 proves the key, and agrees to nothing that the server does not speak"),
    ("4.4", "another version than 13: 426, with the version that is spoken"),
    ("5.1", "a client masks every frame; one that does not: 1002 at the second byte"),
    ("5.2 RSV", "a reserved bit without an extension: 1002 at the first byte"),
    ("5.2 opcode", "a reserved opcode: 1002 at the first byte"),
    ("5.2 length", "the shortest form, its top bit 0; else 1002 at the end of the header"),
    ("5.3", "unmasking, whatever the mask and the length"),
    ("5.4", "fragments become one message, control frames pass in between; else 1002"),
    ("5.5", "a control frame is whole and has at most 125 bytes; else 1002 at the header"),
    ("5.5.1", "a Close is answered with its code; nothing behind it counts"),
    ("5.5.2", "each ping gets a pong with its payload, in order"),
    ("5.5.3", "a pong that nobody asked for changes nothing"),
    ("5.6", "text and bytes of every size come back unchanged"),
    ("7.1.1", "after our own Close: reading on for the client's, answering nothing"),
    ("7.4.1", "close codes that may be sent, and those that may not: 1002"),
    ("7.4.2", "ranges of close codes that may be used, and those that may not: 1002"),
    ("8.1", "text that is not UTF-8: 1007 at the first byte that shows it"),
    (
        "9.1",
        "an extension not spoken is not agreed to, and a frame that uses it all the same: 1002",
    ),
    ("10.4", "a message above the limit: 1009 at the header that tells, or while it inflates"),
    ("7692 6", "RSV1 on the first frame of a message, and there alone; else 1002 at that byte"),
    ("7692 7.1", "the first good offer is taken; one with a parameter that is not is declined"),
    ("7692 7.1.2", "every window from 2^8 to 2^15 is honoured, and none else agreed to"),
    ("7692 7.2.1", "our messages, deflated where that makes them smaller"),
    ("7692 7.2.2", "deflated messages, of whatever blocks; what does not inflate: 1007"),
];

/// What stands between the markers in README.md.
pub(crate) fn table(cases: &[Case]) -> String {
    let mut table = String::from("| clause | what | cases |\n|---|---|---|\n");
    for &(clause, what) in &CLAUSES {
        let of_clause = cases.iter().filter(|case| case.clause == clause);
        let ids = ranges(of_clause.map(|case| case.id.as_str()));
        assert!(!ids.is_empty(), "no case for {clause}");
        let _ = writeln!(table, "| {clause} | {what} | {ids} |");
    }
    table
}

/// `1.1.1, 1.1.2, 1.1.3, a.1` as `1.1.1–3, a.1`; variants (behind a slash) count once.
fn ranges<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut ids: Vec<(&str, u32)> = ids
        .map(|id| {
            let id = id.split('/').next().unwrap_or(id);
            let (group, number) = id.rsplit_once('.').expect("an id has a number");
            (group, number.parse().expect("an id ends in a number"))
        })
        .collect();
    // As a reader counts: 9.1.2 before 9.1.10, numbers before words.
    ids.sort_by_key(|(group, number)| {
        let part = |part: &'a str| (part.parse().unwrap_or(u32::MAX), part);
        (group.split('.').map(part).collect::<Vec<_>>(), *number)
    });
    ids.dedup();
    let mut text = String::new();
    for run in ids.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1) {
        let ((group, first), (_, last)) = (run[0], run[run.len() - 1]);
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = match first == last {
            true => write!(text, "{comma}{group}.{first}"),
            false => write!(text, "{comma}{group}.{first}–{last}"),
        };
    }
    text
}

#[test]
fn neighbours_are_joined() {
    let ids = ["1.1.1", "a.4", "1.10.1", "1.1.3/a", "1.1.3/b", "1.1.2", "1.2.1", "1.2.3", "a.5"];
    assert_eq!(ranges(ids.into_iter()), "1.1.1–3, 1.2.1, 1.2.3, 1.10.1, a.4–5");
}

//! Conformance to RFC 6455: a table of cases in the spirit of Autobahn's groups 1 to 10, for
//! machines that have no Autobahn. Each says what a client sends and what an echo server makes of
//! it, and is driven through the sans-IO core whole, byte by byte and cut at every position, and
//! over a socket against a running server. What the bytes mean is written down in `wire.rs` with
//! nothing of the crate under test. The cases of RFC 7692 need a server that can compress, and are
//! run in a build with the feature `deflate`.
//!
//! Hostile HTTP, timeouts and load are tested elsewhere. `cargo test` runs it,
//! `cargo test --test conformance` alone; the table of clauses that README.md of this folder shows is
//! printed when it does not.

// A test tells its reader what it met, and panics where a server must not.
#![allow(clippy::expect_used, clippy::print_stdout)]

mod case;
mod cases;
mod clauses;
mod closing;
mod deflate;
mod endpoint;
mod sizes;
mod socket;
mod utf8;
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use case::Case;

/// Streams up to this length are also cut at each of their positions.
const SHORT: usize = 1000;

/// Longer streams than this are not driven byte by byte, but in pieces of [`PIECES`].
const LONG: usize = 150_000;

/// None of them divides another, or a power of two.
const PIECES: [usize; 3] = [61, 997, 65_537];

/// Runs all cases and tells of all that failed, not of the first alone.
fn for_each_case(mut run: impl FnMut(&Case) -> Result<(), String>) {
    let failures: Vec<String> = cases::all()
        .iter()
        .filter(|case| cfg!(feature = "deflate") || !case.server_deflates())
        .filter_map(|case| {
            let error = run(case).err()?;
            Some(format!("{} ({}, {}): {error}", case.id, case.clause, case.what))
        })
        .collect();
    assert!(failures.is_empty(), "{} failed\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn whole() {
    for_each_case(|case| endpoint::run(case, [&endpoint::stream(case)[..]]));
}

#[test]
fn byte_by_byte() {
    for_each_case(|case| {
        let stream = endpoint::stream(case);
        if stream.len() <= LONG {
            return endpoint::run_byte_by_byte(case);
        }
        PIECES.iter().try_for_each(|&size| endpoint::run(case, stream.chunks(size)))
    });
}

#[test]
fn cut_at_every_position() {
    for_each_case(|case| {
        let stream = endpoint::stream(case);
        let ends = if stream.len() <= SHORT { stream.len() } else { 0 };
        (0..ends).try_for_each(|cut| {
            let (left, right) = stream.split_at(cut);
            endpoint::run(case, [left, right]).map_err(|error| format!("cut at {cut}: {error}"))
        })
    });
}

#[test]
fn over_a_socket() {
    let mut servers = socket::Servers::default();
    for_each_case(|case| {
        servers.run(case, false)?;
        servers.run(case, true).map_err(|error| format!("in one write with the request: {error}"))
    });
    servers.shut_down();
}

#[test]
fn every_case_is_one_of_a_clause() {
    let cases = cases::all();
    let mut ids = BTreeSet::new();
    for case in &cases {
        assert!(ids.insert(&case.id), "two cases are called {}", case.id);
        let is_known = clauses::CLAUSES.iter().any(|(clause, _)| *clause == case.clause);
        assert!(is_known, "{} is one of {}, which is no clause", case.id, case.clause);
    }
    println!("{} cases", cases.len());
}

/// Between these lines README.md of this folder has the table.
const DOCUMENT: &str = "tests/conformance/README.md";
const BEGIN: &str = "<!-- conformance:begin -->";
const END: &str = "<!-- conformance:end -->";

#[test]
fn the_document_shows_the_table() {
    let table = clauses::table(&cases::all());
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-table.md");
    fs::write(&copy, &table).expect("the target directory can be written to");
    let copy = copy.display();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let text = fs::read_to_string(file).expect(DOCUMENT);
    let shown = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let Some((shown, _)) = shown else {
        panic!("{DOCUMENT} has no {BEGIN} … {END}; what belongs there is in {copy}");
    };
    assert!(
        shown.trim() == table.trim(),
        "the table in {DOCUMENT} is not that of the cases, which is in {copy}:\n\n{table}"
    );
}

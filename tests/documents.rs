//! The documents lead somewhere: every link in them resolves, every path that they name exists, and
//! every name that `docs/learning.md` says is in a file is in that file. README.md and
//! ARCHITECTURE.md keep to their length.
//!
//! Reads Markdown as text: links are `](target)`, paths are backticked. What the documents say about
//! options, figures and conformance is checked where those are: `src/daemon/arguments/documented.rs`,
//! `tests/performance.rs`, `tests/conformance`, `tests/hostile`.
#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a document has at most: what is read first has to be short.
const LENGTHS: [(&str, usize); 2] = [("README.md", 150), ("ARCHITECTURE.md", 285)];

/// Folders of the repository, with which a path in backticks begins.
const FOLDERS: [&str; 7] =
    ["src/", "tests/", "examples/", "benches/", "docs/", "fuzz/", "packaging/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, by its path from the root, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(PathBuf::from).into();
    for folder in ["docs", "tests/conformance", "tests/hostile"] {
        let entries = fs::read_dir(root().join(folder)).expect(folder);
        let files = entries.map(|entry| Path::new(folder).join(entry.expect(folder).file_name()));
        paths.extend(files.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("a document can be read");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// What is in backticks on a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).any(|found| found == wanted)
}

#[test]
fn what_is_read_first_is_short() {
    for (name, most) in LENGTHS {
        let text = fs::read_to_string(root().join(name)).expect(name);
        let lines = text.lines().count();
        assert!(lines <= most, "{name} has {lines} lines, {most} at most");
    }
}

#[test]
fn every_link_resolves() {
    let mut count = 0;
    for (path, text) in documents() {
        let prose = prose(&text);
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            count += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let folder = path.parent().unwrap_or(Path::new(""));
            let target = match file {
                "" => root().join(&path),
                file => root().join(folder).join(file),
            };
            assert!(target.exists(), "{}: there is no {link}", path.display());
            if !fragment.is_empty() {
                let text = fs::read_to_string(&target).expect("a link with # leads to a text");
                assert!(has_anchor(&text, fragment), "{}: nothing at {link}", path.display());
            }
        }
    }
    assert!(count > 40, "only {count} links were found");
}

#[test]
fn every_path_that_is_named_exists() {
    let mut count = 0;
    for (path, text) in documents() {
        for named in prose(&text).lines().flat_map(quoted) {
            let is_path = FOLDERS.iter().any(|folder| named.starts_with(folder));
            if is_path && !named.contains([' ', '*', '…', ':']) {
                count += 1;
                assert!(root().join(named).exists(), "{}: no {named}", path.display());
            }
        }
    }
    assert!(count > 60, "only {count} paths were found");
}

/// In tables of docs/learning.md: "`name` in `file`", and cells of names behind a cell that links a
/// file.
#[test]
fn every_name_is_in_its_file() {
    let text = fs::read_to_string(root().join("docs/learning.md")).expect("docs/learning.md");
    let holds = |file: &str, name: &str| {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        let name = name.rsplit("::").next().unwrap_or_default();
        assert!(source.contains(name), "docs/learning.md: there is no {name} in {file}");
    };
    let mut count = 0;
    for line in prose(&text).lines() {
        let parts: Vec<&str> = line.split('`').collect();
        for window in parts.windows(3) {
            if let [name, " in ", file] = window
                && file.starts_with("src/")
            {
                holds(file, name);
                count += 1;
            }
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for pair in cells.windows(2) {
            // One link alone: a cell with two leaves open which file has the name.
            let links: Vec<&str> = pair[0].split("](../").skip(1).collect();
            if let [link] = links[..]
                && let Some(file) = link.split(')').next().filter(|file| file.starts_with("src/"))
            {
                for name in quoted(pair[1]) {
                    holds(file, name);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 40, "only {count} names were found");
}

/// Every question of the index has a file to open, a name to search for in it, and a second place.
#[test]
fn the_index_answers_in_two_steps() {
    let text = fs::read_to_string(root().join("docs/learning.md")).expect("docs/learning.md");
    let (_, index) = text.split_once("\n## Question → file\n").expect("an index");
    let index = index.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = index.lines().filter(|line| line.contains("? |")).collect();
    assert!(rows.len() >= 10, "{} questions", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [_, file, names, then] = cells[..] else { panic!("four cells: {row}") };
        assert!(file.contains("](../src/"), "{row}");
        assert!(quoted(names).count() >= 1 && quoted(then).count() == 2, "{row}");
    }
}

#[test]
fn anchors_are_made_as_github_makes_them() {
    assert_eq!(anchor("Question → file"), "question--file");
    assert_eq!(anchor("`Rest`: why a connection stops"), "rest-why-a-connection-stops");
    assert!(has_anchor("# A\n\n## The live page\n", "the-live-page"));
    assert!(!has_anchor("text\n", "text"));
}

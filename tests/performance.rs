//! The benchmark figures in docs/performance.md and docs/durability.md are the committed ones.
//!
//! `cargo bench --bench load -- --write-docs` puts `benches/results/latest.md` between two markers of
//! docs/performance.md; `cargo bench --bench micro -- --scale --write-docs` puts `scale.md` between two others; `cargo
//! bench --bench load -- --store --write-docs` puts `store.md` into docs/durability.md, and --redis `redis.md` into docs/redis.md. This
//! test fails when they differ, or when the markers are gone, or when the README compares other figures. It measures nothing;
//! without committed results it asks for the markers only.

use std::fs;
use std::path::Path;

/// What the two markers are called that stand around a table.
const LOAD: &str = "bench";
const SCALE: &str = "scale";

/// What stands between the markers; an error says what is wrong with them.
fn embedded<'a>(document: &'a str, name: &str) -> Result<&'a str, String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    for marker in [&begin, &end] {
        match document.matches(marker.as_str()).count() {
            1 => {}
            count => return Err(format!("the document has {count} times {marker}, not once")),
        }
    }
    let (_, rest) = document.split_once(&begin).ok_or("unreachable")?;
    let (table, _) = rest.split_once(&end).ok_or("the document has its markers in reverse")?;
    Ok(table.trim())
}

#[test]
fn the_document_shows_the_committed_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (performance, durability) = ("docs/performance.md", "docs/durability.md");
    for (document, name, file, command) in [
        (performance, LOAD, "latest.md", "cargo bench --bench load -- --render --write-docs"),
        (performance, SCALE, "scale.md", "cargo bench --bench micro -- --scale --write-docs"),
        (durability, LOAD, "store.md", "cargo bench --bench load -- --store --write-docs"),
        ("docs/redis.md", LOAD, "redis.md", "cargo bench --bench load -- --redis --write-docs"),
    ] {
        let text = fs::read_to_string(root.join(document)).expect(document);
        let table = embedded(&text, name).unwrap_or_else(|wrong| panic!("{document}: {wrong}"));
        let path = root.join("benches/results").join(file);
        let Ok(committed) = fs::read_to_string(path) else { continue };
        assert!(
            table == committed.trim(),
            "{document} does not show benches/results/{file}: {command}"
        );
    }
    for file in ["latest.json", "latest.svg"] {
        let has_results = root.join("benches/results/latest.md").is_file();
        assert!(!has_results || root.join("benches/results").join(file).is_file(), "{file}");
    }
}

/// Each number of a thousand and more that the README tells of the store stands in the committed table.
#[test]
fn the_readme_tells_committed_figures_of_the_store() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let told = embedded(&readme, "stored").unwrap_or_else(|wrong| panic!("README.md: {wrong}"));
    let table = fs::read_to_string(root.join("benches/results/store.md")).expect("the table");
    let mut numbers = 0;
    for word in told.split_whitespace() {
        let Some(number) = word.contains(',').then(|| word.replace(',', "")) else { continue };
        if number.parse::<u64>().is_ok_and(|number| number >= 1000) {
            assert!(
                table.contains(&format!("| {number} ")),
                "{word} is not in benches/results/store.md"
            );
            numbers += 1;
        }
    }
    assert!(numbers >= 4, "{told}");
}

/// The cells of a table's row.
fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// What the README says of revolve and of Channels is what the committed table says of them.
#[test]
fn the_readme_compares_committed_figures() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let (_, rest) = readme.split_once("<!-- compared:begin -->").expect("README.md compares");
    let (compared, _) = rest.split_once("<!-- compared:end -->").expect("README.md compares");
    let Ok(committed) = fs::read_to_string(root.join("benches/results/latest.md")) else { return };
    let rows: Vec<Vec<&str>> =
        committed.lines().filter(|line| line.starts_with("| ")).map(cells).collect();
    let column = |server: &str| rows[0].iter().position(|name| *name == server).expect("a server");
    let (ours, theirs) = (column("revolve"), column("uvicorn+channels"));
    let mut compared: Vec<Vec<&str>> = compared.trim().lines().skip(2).map(cells).collect();
    assert!(compared.len() >= 5, "the README compares hardly anything");
    for shown in &mut compared {
        let row = rows.iter().find(|row| row[..2] == shown[..2]);
        let row = row.unwrap_or_else(|| panic!("nothing measured is called {:?}", &shown[..2]));
        // Behind the figure stands its ratio to the floor.
        let figure = |at: usize| row[at].split(' ').next().unwrap_or_default();
        assert_eq!(shown[2..], [figure(ours), figure(theirs)], "{}", shown[0]);
    }
}

#[test]
fn missing_markers_are_noticed() {
    let whole = "a <!-- bench:begin -->\nt\n<!-- bench:end --> b";
    assert_eq!(embedded(whole, LOAD), Ok("t"));
    assert!(embedded(whole, SCALE).is_err());
    assert!(embedded("no markers", LOAD).is_err());
    assert!(embedded("<!-- bench:begin --> only one", LOAD).is_err());
    assert!(embedded("<!-- bench:end --> <!-- bench:begin -->", LOAD).is_err());
}

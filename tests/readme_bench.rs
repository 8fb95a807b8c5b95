//! The README's benchmark figures are the committed ones.
//!
//! `cargo bench --bench load -- --write-readme` puts `benches/results/latest.md` between two markers
//! of README.md. This test fails when the two differ, or when the markers are gone. It measures
//! nothing; without committed results it asks for the markers only.

use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// What stands between the markers; an error says what is wrong with them.
fn embedded(readme: &str) -> Result<&str, String> {
    for marker in [BEGIN, END] {
        match readme.matches(marker).count() {
            1 => {}
            count => return Err(format!("README.md has {count} times {marker}, not once")),
        }
    }
    let (_, rest) = readme.split_once(BEGIN).ok_or("unreachable")?;
    let (table, _) = rest.split_once(END).ok_or("README.md has its bench markers in reverse")?;
    Ok(table.trim())
}

#[test]
fn readme_shows_the_committed_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let table = embedded(&readme).unwrap_or_else(|wrong| panic!("{wrong}"));
    let Ok(committed) = fs::read_to_string(root.join("benches/results/latest.md")) else { return };
    assert!(
        table == committed.trim(),
        "README.md does not show benches/results/latest.md: \
         cargo bench --bench load -- --render --write-readme"
    );
    for file in ["latest.json", "latest.svg"] {
        assert!(root.join("benches/results").join(file).is_file(), "benches/results/{file}");
    }
}

#[test]
fn missing_markers_are_noticed() {
    assert_eq!(embedded("a <!-- bench:begin -->\nt\n<!-- bench:end --> b"), Ok("t"));
    assert!(embedded("no markers").is_err());
    assert!(embedded("<!-- bench:begin --> only one").is_err());
    assert!(embedded("<!-- bench:end --> <!-- bench:begin -->").is_err());
}

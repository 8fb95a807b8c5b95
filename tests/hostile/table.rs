//! The table in README.md of this folder names tests that there are, and every test of this directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- hostile:begin -->";
const END: &str = "<!-- hostile:end -->";

fn read(file: impl AsRef<Path>) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What is called a test in these sources: whatever stands behind `#[test]`, or in the list of
/// cases that run with both applications.
fn tests_of(module: &str) -> BTreeSet<String> {
    let text = read(format!("tests/hostile/{module}.rs"));
    let listed = text.split("with_both_applications! {").nth(1).and_then(|s| s.split('}').next());
    let listed = listed.unwrap_or("").split(',').map(str::trim).filter(|name| !name.is_empty());
    let marked = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
    listed.chain(marked).map(str::to_owned).collect()
}

#[test]
fn the_document_names_every_test() {
    let text = read("tests/hostile/README.md");
    let table = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (table, _) = table.expect("README.md has the table");
    let named: BTreeSet<(String, String)> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|name| name.rsplit_once("::"))
        .map(|(module, test)| (module.to_owned(), test.to_owned()))
        .collect();
    let modules = [
        "bombs",
        "bound",
        "crowd",
        "deaf",
        "descriptors",
        "floods",
        "frames",
        "guessing",
        "head",
        "origins",
        "vanish",
    ];
    for module in modules {
        for test in tests_of(module) {
            let is_named = named.contains(&(module.to_owned(), test.clone()));
            assert!(is_named, "{module}::{test} is not in the table");
        }
    }
    for (module, test) in named {
        match modules.contains(&module.as_str()) {
            true => assert!(tests_of(&module).contains(&test), "there is no {module}::{test}"),
            // Of tests/server, of the simulation and of the unit tests it names some.
            false => {
                let path = module.replace("::", "/");
                let places = ["tests/server/.rs", "tests/simulation/.rs", "src/.rs", "src//mod.rs"]
                    .map(|place| place.replacen("/.rs", &format!("/{path}.rs"), 1))
                    .map(|place| place.replacen("//", &format!("/{path}/"), 1));
                let found = places.iter().any(|place| {
                    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
                    let text = fs::read_to_string(file).unwrap_or_default();
                    text.contains(&format!("fn {test}("))
                });
                assert!(found, "there is no {module}::{test}");
            }
        }
    }
}

//! The house rules that a compiler does not know, read off the sources: the map of modules in
//! `src/lib.rs` is complete and every arrow in it points upward, as in each folder; each file says what it is, leads to
//! the next, is short enough to be read at a sitting, as are its functions, and names things by what they
//! are; what is public is API; nothing is `unsafe`.
//!
//! It reads text, not Rust: comments and literals are blanked first, and what is left is simple
//! enough. It knows no types and expands no macros. `cargo test` runs it; a rule that is broken is
//! told with file and line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the daemon, which stand on the whole library and in nobody's map.
const DAEMON: [&str; 2] = ["main", "daemon"];

/// The modules that are API. With what `lib.rs` re-exports they are all that follows semantic versioning,
/// and all that another crate reaches without the feature `internals`.
const API: [&str; 4] = ["config", "memory", "testing", "wall_clock"];

/// What stands above a module that is public for the tests, benches and fuzz targets alone.
const INTERNAL: &str = "#[cfg(feature = \"internals\")]";

/// Lines of code that a file may have at most; comments, empty lines and tests do not count.
const LINES_MAX: usize = 500;

/// Lines of code that a function may have at most.
const FUNCTION_LINES_MAX: usize = 70;

/// Arguments that a function may have at most besides `self`.
const ARGUMENTS_MAX: usize = 5;

/// The functions that are longer, or have more arguments, with today's figures. A figure may only
/// fall: one that has fallen is written down here, and one within the bound is taken out. The comment
/// at `next` says what five arguments cost there, and how that was counted.
const TOO_LONG: [(&str, usize); 0] = [];
const TOO_MANY_ARGUMENTS: [(&str, usize); 1] = [("protocol/endpoint.rs: next", 6)];

/// Fields that a shard, and each of its parts, may have at most.
const FIELDS_MAX: usize = 12;

/// Words that say nothing about what a thing is.
const SAYS_NOTHING: [&str; 4] = ["process_", "manager", "helper", "utils"];

/// Names of another crate that have such a word in them: rustls's only ways in.
const OTHERS_NAMES: [&str; 2] = ["process_tls_records", "process_new_packets"];

/// One file under `src/`.
struct Source {
    /// Relative to `src/`.
    name: String,
    /// As it stands there.
    text: String,
    /// The same, with blanks for comments and literals.
    code: String,
    /// The same again, with blanks for what is compiled for tests alone.
    shipped: String,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Source {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        let code = without_comments_and_literals(&text);
        let shipped = without_tests(&code);
        Source { name, text, code, shipped }
    }

    /// `["shard", "visit"]` for `shard/visit.rs`; nothing for `lib.rs`.
    fn module(&self) -> Vec<&str> {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }

    fn is_the_daemons(&self) -> bool {
        self.module().first().is_some_and(|module| DAEMON.contains(module))
    }
}

fn source_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All files under `src/` but those that are compiled for tests alone.
fn sources() -> Vec<Source> {
    let root = source_directory();
    let (mut directories, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
        for path in entries.map_while(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::read(&root, &path));
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    let test_files: BTreeSet<String> = sources.iter().flat_map(test_files_of).collect();
    sources.retain(|source| !test_files.contains(&source.name));
    assert!(sources.len() > 20, "these are not all: {}", sources.len());
    sources
}

/// The files that a source declares for tests alone: `#[cfg(test)] mod tests;`.
fn test_files_of(source: &Source) -> Vec<String> {
    let declared = |code: &str| -> BTreeSet<String> {
        code.lines()
            .filter_map(|line| line.trim().strip_suffix(';')?.split_once("mod "))
            .map(|(_, module)| module.to_owned())
            .collect()
    };
    let directory = source.module().join("/");
    let in_tests = &declared(&source.code) - &declared(&source.shipped);
    in_tests.iter().map(|module| format!("{directory}/{module}.rs")).collect()
}

/// The modules in the order of the map in `lib.rs`: what stands in brackets in the first column
/// of its table.
fn map(lib: &str) -> Vec<String> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")?.split('|').next());
    let names = rows.flat_map(|first| first.split("[`").skip(1));
    names.filter_map(|name| Some(name.split_once("`]")?.0.to_owned())).collect()
}

fn lib() -> Source {
    Source::read(&source_directory(), &source_directory().join("lib.rs"))
}

// ---- reading Rust, roughly ----

/// Blanks comments, strings and characters; line breaks stay where they are.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let is_in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if next == '"' {
            string(rest, 1)
        } else if next == '\'' {
            character(rest)
        } else if !is_in_word && (rest.starts_with("b\"") || rest.starts_with("c\"")) {
            string(rest, 2)
        } else if !is_in_word && rest.starts_with("b'") {
            1 + character(&rest[1..])
        } else if !is_in_word {
            raw_string(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
            code.extend(rest[..skipped].chars().map(blank));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Length of the comment, with those inside of it.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let step = match text.as_bytes().get(at..) {
            Some([b'/', b'*', ..]) => {
                depth += 1;
                2
            }
            Some([b'*', b'/', ..]) => {
                depth -= 1;
                2
            }
            Some([_, ..]) => 1,
            _ => return text.len(),
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
}

/// Length of the string of which the opening quote is the last of its first `opening` bytes.
fn string(text: &str, opening: usize) -> usize {
    let mut at = opening;
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Length of the character literal; 0 for a lifetime or a label.
fn character(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some(_)) => {
            // The escaped one may be a quote itself.
            characters.find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Length of the raw string (`r"…"`, `br#"…"#`); 0 if there is none here.
fn raw_string(text: &str) -> usize {
    let Some(begin) = ["r", "br", "cr"].iter().find_map(|begin| text.strip_prefix(begin)) else {
        return 0;
    };
    let hashes = begin.len() - begin.trim_start_matches('#').len();
    let Some(inside) = begin[hashes..].strip_prefix('"') else { return 0 };
    let closing = format!("\"{}", "#".repeat(hashes));
    let opened = text.len() - inside.len();
    inside.find(&closing).map_or(text.len(), |at| opened + at + closing.len())
}

/// Blanks each item under `#[cfg(test)]`: to its semicolon, or to its closing brace.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(begin) = rest.find(MARK) {
        shipped.push_str(&rest[..begin]);
        let mut depth = 0;
        let end = rest[begin..].char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && matches!(c, '}' | ';')).then_some(begin + at + 1)
        });
        let end = end.unwrap_or(rest.len());
        shipped.extend(rest[begin..end].chars().filter(|&c| c == '\n'));
        rest = &rest[end..];
    }
    shipped.push_str(rest);
    shipped
}

/// Names in the code, with the byte at which each begins.
fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at + code[at..].find(is_part)?;
        let length = code[begin..].find(|c| !is_part(c)).unwrap_or(code.len() - begin);
        at = begin + length;
        Some((begin, &code[begin..at]))
    })
}

fn line(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}

/// What follows each `crate::` or `super::` in a source, from the crate's root: with the byte at
/// which it begins, `["config", "Limits"]` for `crate::config::Limits`. Braces make several.
fn paths(source: &Source) -> Vec<(usize, Vec<String>)> {
    let code = &source.shipped;
    let mut paths = Vec::new();
    for (at, name) in identifiers(code) {
        let is_first = !code[..at].trim_end().ends_with("::");
        if !is_first || !matches!(name, "crate" | "super") {
            continue;
        }
        // `super` in `shard/visit.rs` is `shard`; in `shard/mod.rs`, as in `connection/ready.rs`, the root.
        let mut base: Vec<String> = source.module().iter().map(|part| part.to_string()).collect();
        let mut rest = &code[at..];
        if let Some(behind) = rest.strip_prefix("crate") {
            base.clear();
            rest = behind.trim_start();
        } else {
            while let Some(behind) = rest.strip_prefix("super") {
                base.pop();
                rest = behind.trim_start();
                rest = match rest.strip_prefix("::") {
                    Some(behind) if behind.trim_start().starts_with("super") => behind.trim_start(),
                    _ => rest,
                };
            }
        }
        // Without `::` it is a visibility: `pub(crate)`, `pub(super)`.
        if let Some(tree) = rest.strip_prefix("::") {
            paths.extend(leaves(tree, &base).into_iter().map(|path| (at, path)));
        }
    }
    paths
}

/// The paths of a use tree that begins here, each behind `base`.
fn leaves(tree: &str, base: &[String]) -> Vec<Vec<String>> {
    let tree = tree.trim_start();
    if let Some(inside) = tree.strip_prefix('{') {
        let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
        for (at, c) in inside.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    let item = inside[begin..at].trim();
                    if !item.is_empty() {
                        found.extend(leaves(item, base));
                    }
                    begin = at + 1;
                    if c == '}' {
                        return found;
                    }
                }
                _ => {}
            }
        }
        return found;
    }
    let Some((0, name)) = identifiers(tree).next() else { return vec![base.to_vec()] };
    let path = [base, &[name.to_owned()]].concat();
    match tree[name.len()..].trim_start().strip_prefix("::") {
        Some(rest) => leaves(rest, &path),
        None => vec![path],
    }
}

/// A function of a source: its name, lines of code, and arguments besides `self`.
struct Function<'a> {
    name: &'a str,
    lines: usize,
    arguments: usize,
}

fn functions(source: &Source) -> Vec<Function<'_>> {
    let code = &source.shipped;
    let mut functions = Vec::new();
    for (at, _) in identifiers(code).filter(|(_, word)| *word == "fn") {
        // `fn(u8)` is a type.
        let Some((name_at, name)) = identifiers(&code[at + 2..]).next() else { continue };
        if !code[at + 2..at + 2 + name_at].trim().is_empty() {
            continue;
        }
        let behind = &code[at + 2 + name_at + name.len()..];
        let (arguments, length) = signature(behind);
        let rest = &behind[length..];
        let body = match rest.find(['{', ';']) {
            Some(open) if rest[open..].starts_with('{') => open + braced(&rest[open..]),
            // Declared by a trait.
            _ => continue,
        };
        let text = &code[at..at + 2 + name_at + name.len() + length + body];
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        functions.push(Function { name, lines, arguments });
    }
    functions
}

/// How many arguments stand in the parentheses, `self` left out, and where those end. Generic
/// parameters may stand before them.
fn signature(code: &str) -> (usize, usize) {
    let (mut angles, mut depth, mut arguments, mut is_blank) = (0, 0, 0, true);
    let mut begin = None;
    for (at, c) in code.char_indices() {
        let is_arrow = c == '>' && code[..at].ends_with(['-', '=']);
        match c {
            '<' => angles += 1,
            '>' if !is_arrow => angles -= 1,
            '(' | '[' | '{' => {
                depth += 1;
                if depth == 1 && angles == 0 && begin.is_none() {
                    begin = Some(at + 1);
                    continue;
                }
            }
            ')' | ']' | '}' => {
                depth -= 1;
                if let (0, 0, Some(begin)) = (depth, angles, begin) {
                    let first = code[begin..at].split([',', ':']).next().unwrap_or_default();
                    let has_self = identifiers(first).any(|(_, word)| word == "self");
                    return (arguments + usize::from(!is_blank) - usize::from(has_self), at + 1);
                }
            }
            ',' if depth == 1 && angles == 0 => {
                arguments += usize::from(!is_blank);
                is_blank = true;
                continue;
            }
            _ => {}
        }
        is_blank &= c.is_whitespace() || begin.is_none();
    }
    (arguments, code.len())
}

/// The length of what begins with a brace and ends with the one that closes it.
fn braced(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// What is over a bound must be in the list of exceptions with its figure, and nothing else.
fn ratchet(
    found: impl Iterator<Item = (String, usize)>,
    exceptions: &[(&str, usize)],
    what: &str,
) -> Vec<String> {
    let listed: BTreeSet<(String, usize)> =
        exceptions.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect();
    let found: BTreeSet<(String, usize)> = found.collect();
    let new = found.difference(&listed).map(|(name, is)| format!("{name} has {is} {what}"));
    let gone =
        listed.difference(&found).map(|(name, was)| format!("{name} has no longer {was} {what}"));
    new.chain(gone).collect()
}

fn no_complaints(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

// ---- the rules ----

#[test]
fn the_map_is_complete() {
    let map = map(&lib().text);
    let mapped: BTreeSet<&str> = map.iter().map(String::as_str).collect();
    assert_eq!(map.len(), mapped.len(), "a module stands in the map twice: {map:?}");
    let sources = sources();
    let files: BTreeSet<&str> = sources
        .iter()
        .filter(|source| !source.is_the_daemons())
        .filter_map(|source| source.module().first().copied())
        .collect();
    let missing: Vec<_> = files.difference(&mapped).collect();
    let invented: Vec<_> = mapped.difference(&files).collect();
    assert!(missing.is_empty(), "not in the map of lib.rs: {missing:?}");
    assert!(invented.is_empty(), "in the map of lib.rs, but not in src/: {invented:?}");
}

#[test]
fn arrows_point_upward_in_the_map() {
    let map = map(&lib().text);
    let place = |module: &str| map.iter().position(|mapped| mapped == module);
    let mut complaints = Vec::new();
    let mut arrows = 0;
    for source in sources().iter().filter(|source| !source.is_the_daemons()) {
        // lib.rs stands below everything: it re-exports.
        let module = source.module();
        let Some(own) = module.first().and_then(|module| place(module)) else { continue };
        for (at, path) in paths(source) {
            let used = path.first().map_or("", String::as_str);
            let whither = match place(used) {
                Some(there) if there <= own => {
                    arrows += 1;
                    continue;
                }
                Some(_) => "which stands below it in the map",
                // A name at the root is a re-export: it hides where the arrow goes.
                None => "which is no module of the map",
            };
            let line = line(&source.shipped, at);
            complaints.push(format!("src/{}:{line} uses {used}, {whither}", source.name));
        }
    }
    no_complaints(complaints);
    assert!(arrows > 50, "hardly anything uses anything: is it being read right?");
}

/// `tests/embedder` shows that a compiler agrees.
#[test]
fn what_is_public_is_api() {
    let lib = lib();
    let sources = sources();
    let of_the_api =
        |source: &&Source| source.module().first().is_some_and(|module| API.contains(module));
    let mut complaints = Vec::new();
    let mut opened = BTreeSet::new();
    for source in sources.iter().filter(of_the_api).chain([&lib]) {
        let mut above = "";
        for line in source.text.lines().map(str::trim) {
            if let Some((_, module)) =
                identifiers(line.strip_prefix("pub mod ").unwrap_or("")).next()
            {
                let is_api = match source.name.as_str() {
                    "lib.rs" => API.contains(&module),
                    "config.rs" => module == "bounds",
                    _ => false,
                };
                if is_api == (above == INTERNAL) {
                    let should = if is_api { "is API" } else { "is not API, and not internal" };
                    complaints.push(format!("src/{}: {module} {should}", source.name));
                }
                opened.insert(module);
            }
            above = line;
        }
    }
    no_complaints(complaints);
    let map = map(&lib.text);
    let hidden: Vec<_> = map.iter().filter(|module| !opened.contains(module.as_str())).collect();
    assert!(hidden.is_empty(), "no test can reach {hidden:?}");
}

#[test]
fn what_is_named_at_the_root_is_documented() {
    const KINDS: [&str; 5] = ["struct", "enum", "trait", "fn", "const"];
    let sources = sources();
    let lib = lib();
    let exports = lib.code.split("pub use ").skip(1).flat_map(|tree| leaves(tree, &[]));
    let names: Vec<String> = exports.filter_map(|path| path.last().cloned()).collect();
    assert!(names.len() > 20, "hardly anything is re-exported: is it being read right?");
    let mut complaints = Vec::new();
    for name in names {
        let is_definition = |line: &&str| {
            let line = line.strip_prefix("pub ").unwrap_or_default();
            let (kind, rest) = line.split_once(' ').unwrap_or_default();
            KINDS.contains(&kind) && identifiers(rest).next() == Some((0, &*name))
        };
        let mut definitions = 0;
        for source in sources.iter().filter(|source| !source.is_the_daemons()) {
            let mut is_documented = false;
            for line in source.text.lines() {
                if is_definition(&line) {
                    definitions += 1;
                    if !is_documented {
                        complaints.push(format!("src/{}: {name} has no ///", source.name));
                    }
                }
                is_documented = line.starts_with("///") || is_documented && line.starts_with("#[");
            }
        }
        if definitions == 0 {
            complaints.push(format!("src/lib.rs re-exports {name}, which is defined nowhere"));
        }
    }
    no_complaints(complaints);
}

/// Each folder has an order of its own, that in which its first page introduces the parts: a part uses
/// those that are introduced before it.
#[test]
fn arrows_point_upward_in_each_folder() {
    let sources = sources();
    let pages = sources.iter().filter(|source| source.name.ends_with("/mod.rs"));
    let (mut complaints, mut arrows) = (Vec::new(), 0);
    for page in pages {
        let folder = page.module();
        let is_in_folder = |source: &&Source| source.module().starts_with(&folder);
        let is_part = |part: &str| {
            sources.iter().any(|source| {
                source.module().starts_with(&folder)
                    && source.module().get(folder.len()) == Some(&part)
            })
        };
        let introduced =
            |part: &str| page.text.find(&format!("`{part}`")).filter(|_| is_part(part));
        for source in sources.iter().filter(is_in_folder) {
            let module = source.module();
            let Some(own) = module.get(folder.len()) else { continue };
            assert!(introduced(own).is_some(), "{} does not introduce {own}", page.name);
            for (at, path) in paths(source) {
                let is_inside = path.len() > folder.len() && path[..folder.len()] == folder[..];
                // A name of the folder itself, which its page defines or passes on.
                let Some(place) = is_inside.then(|| introduced(&path[folder.len()])).flatten()
                else {
                    continue;
                };
                arrows += 1;
                if Some(place) > introduced(own) {
                    let (line, used) = (line(&source.shipped, at), &path[folder.len()]);
                    complaints
                        .push(format!("src/{}:{line} uses {used}, introduced later", source.name));
                }
            }
        }
    }
    no_complaints(complaints);
    assert!(arrows > 80, "hardly any part uses another: {arrows}");
}

/// The steps of a turn are methods of one type, in many files, so no import shows who calls whom: a
/// step calls those that its folder's page introduces before it, and itself.
#[test]
fn a_step_of_the_turn_calls_none_behind_it() {
    const STEPS: &str = "> Parts<A, E> {";
    let sources = sources();
    let page = sources.iter().find(|source| source.name == "shard/mod.rs");
    let page = page.unwrap_or_else(|| panic!("there is no shard/mod.rs"));
    // The page itself, which is the turn, stands behind all.
    let place = |source: &Source| match source.module().get(1) {
        Some(part) => page.text.find(&format!("`{part}`")),
        None => Some(usize::MAX),
    };
    let in_shard: Vec<&Source> =
        sources.iter().filter(|source| source.name.starts_with("shard/")).collect();
    let blocks = |source: &'_ Source| -> Vec<(usize, usize)> {
        let code = &source.shipped;
        let begins = code.match_indices(STEPS).map(|(at, _)| at + STEPS.len() - 1);
        begins.map(|at| (at, at + braced(&code[at..]))).collect()
    };
    let mut defined: Vec<(&str, &Source)> = Vec::new();
    for source in &in_shard {
        for (begin, end) in blocks(source) {
            let words: Vec<&str> =
                identifiers(&source.shipped[begin..end]).map(|(_, word)| word).collect();
            let names = words.windows(2).filter(|pair| pair[0] == "fn").map(|pair| pair[1]);
            defined.extend(names.map(|name| (name, *source)));
        }
    }
    let (mut complaints, mut calls) = (Vec::new(), 0);
    for source in &in_shard {
        for (begin, end) in blocks(source) {
            let code = &source.shipped[begin..end];
            for (at, _) in code.match_indices("self.") {
                let called = identifiers(&code[at + 5..]).next().map_or("", |(_, name)| name);
                let Some((_, there)) = defined.iter().find(|(name, _)| *name == called) else {
                    continue;
                };
                if !code[at + 5 + called.len()..].starts_with('(') {
                    continue;
                }
                calls += 1;
                if place(there) > place(source) {
                    let line = line(&source.shipped, begin + at);
                    complaints.push(format!(
                        "src/{}:{line} calls {called} of {}, introduced later",
                        source.name, there.name
                    ));
                }
            }
        }
    }
    no_complaints(complaints);
    assert!(defined.len() > 60 && calls > 80, "{} steps, {calls} calls", defined.len());
}

/// A signature says what a step may touch only as long as the parts are small.
#[test]
fn a_shard_is_made_of_owned_parts() {
    let sources = sources();
    let mut complaints = Vec::new();
    let mut found = 0;
    for source in sources.iter().filter(|source| source.name.starts_with("shard/")) {
        for (at, _) in source.shipped.match_indices("struct ") {
            let Some(open) = source.shipped[at..].find(['{', ';', '(']) else { continue };
            if !source.shipped[at + open..].starts_with('{') {
                continue;
            }
            let body = &source.shipped[at + open..];
            let body = &body[..braced(body)];
            let name = identifiers(&source.shipped[at + 7..]).next().map_or("", |(_, name)| name);
            // One colon that is not a path's stands behind the name of each field.
            let fields = body.replace("::", "").matches(": ").count();
            found += 1;
            if fields > FIELDS_MAX {
                complaints.push(format!("src/{}: {name} has {fields} fields", source.name));
            }
        }
    }
    no_complaints(complaints);
    assert!(found > 8, "{found} structs");
}

/// The tour leads through every file: the map's modules in its order, each folder's parts in the
/// order in which its first page introduces them, and the daemon behind them.
#[test]
fn each_file_leads_to_the_next() {
    let sources = sources();
    let map = map(&lib().text);
    let modules = map.iter().map(String::as_str).chain(DAEMON);
    let mut tour = vec!["lib.rs"];
    for module in modules {
        let name = |source: &&Source| source.module().join("/");
        let page = sources.iter().find(|source| name(source) == module);
        let page = page.unwrap_or_else(|| panic!("there is no src/{module}"));
        tour.push(&page.name);
        let parts = sources.iter().filter(|source| source.name.starts_with(&format!("{module}/")));
        let mut parts: Vec<_> = parts.filter(|part| part.name != page.name).collect();
        let place = |part: &str, page: &Source| {
            let introduced = page.text.find(&format!("`{part}`"));
            introduced.unwrap_or_else(|| panic!("src/{} does not introduce {part}", page.name))
        };
        parts.sort_by_key(|part| {
            let path = part.module();
            // A folder in the folder: its page, then the parts that that one introduces.
            let inner = path.get(2).map(|inner| {
                let page = sources.iter().find(|source| source.module() == path[..2]);
                place(inner, page.unwrap_or_else(|| panic!("src/{} has no page", part.name)))
            });
            (place(path[1], page), inner)
        });
        tour.extend(parts.iter().map(|part| part.name.as_str()));
    }
    assert_eq!(tour.len(), sources.len(), "some file is not on the tour: {tour:#?}");
    let mut complaints = Vec::new();
    for (here, there) in tour.iter().zip(&tour[1..]) {
        let source = sources.iter().find(|source| source.name == **here);
        let text = source.map_or("", |source| &source.text);
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let last_paragraph = head.rsplit(|line| *line == "//!").next().unwrap_or_default();
        let next = last_paragraph.join(" ").replace("//! ", "");
        let next = next.strip_prefix("Next: ");
        let module = there.trim_end_matches(".rs").trim_end_matches("/mod");
        // A page of the documentation, or a file: a part of a folder that is private has no page,
        // and to rustdoc the daemon is another crate.
        let is_named = next.is_some_and(|next| {
            next.contains(&format!("[`crate::{}`]", module.replace('/', "::")))
                || next.contains(&format!("`{there}`"))
                || next.contains(&format!("`{}`", module.rsplit('/').next().unwrap_or(module)))
        });
        if !is_named {
            complaints.push(format!(
                "src/{here}: the last paragraph of its head is not Next: … `{module}`"
            ));
        }
    }
    no_complaints(complaints);
}

#[test]
fn each_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//!"));
    no_complaints(silent.map(|source| format!("src/{} begins without //!", source.name)).collect());
}

#[test]
fn each_file_can_be_read_at_a_sitting() {
    let length =
        |source: &Source| source.shipped.lines().filter(|line| !line.trim().is_empty()).count();
    let long = sources().into_iter().filter(|source| length(source) >= LINES_MAX);
    no_complaints(
        long.map(|source| format!("src/{} has {} lines of code", source.name, length(&source)))
            .collect(),
    );
}

#[test]
fn functions_are_short_and_have_few_arguments() {
    let sources = sources();
    let all: Vec<(String, Function<'_>)> = sources
        .iter()
        .flat_map(|source| functions(source).into_iter().map(move |function| (source, function)))
        .map(|(source, function)| (format!("{}: {}", source.name, function.name), function))
        .collect();
    assert!(all.len() > 500, "hardly any functions: are they being read right?");
    let long = all.iter().filter(|(_, function)| function.lines > FUNCTION_LINES_MAX);
    let long = long.map(|(name, function)| (name.clone(), function.lines));
    let mut complaints = ratchet(long, &TOO_LONG, "lines of code");
    let wide = all.iter().filter(|(_, function)| function.arguments > ARGUMENTS_MAX);
    let wide = wide.map(|(name, function)| (name.clone(), function.arguments));
    complaints.extend(ratchet(wide, &TOO_MANY_ARGUMENTS, "arguments"));
    no_complaints(complaints);
}

#[test]
fn functions_are_measured() {
    let read = |code: &str| {
        let source = Source {
            name: String::new(),
            text: String::new(),
            code: String::new(),
            shipped: code.to_owned(),
        };
        let functions = functions(&source);
        functions.iter().map(|f| (f.name.to_owned(), f.lines, f.arguments)).collect::<Vec<_>>()
    };
    let one = |code: &str| read(code).into_iter().next().map(|(_, lines, count)| (lines, count));
    assert_eq!(one("fn a() {}"), Some((1, 0)));
    assert_eq!(one("fn a(&mut self) {\n\n    b();\n}"), Some((3, 0)));
    assert_eq!(one("fn a(self, b: u8, c: (u8, u8),\n) {\n}"), Some((3, 2)));
    assert_eq!(one("fn a<F: Fn(u8, u8) -> u8>(b: F, c: [u8; 3]) -> u8 { 1 }"), Some((1, 2)));
    assert_eq!(one("fn a(b: HashMap<u8, u8>, c: impl Fn(u8) -> u8) {}"), Some((1, 2)));
    assert_eq!(one("fn a(A { b, c }: A, d: u8) {}"), Some((1, 2)));
    assert_eq!(one("fn a(b: u8);"), None, "it has no body");
    assert_eq!(read("type A = fn(u8);\nfn b() { if c { d } }\nfn e() {}").len(), 2);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut complaints = Vec::new();
    for source in sources() {
        let mut names: Vec<(usize, &str)> = identifiers(&source.code).collect();
        names.push((0, &source.name));
        for (at, name) in names {
            let lower = name.to_lowercase();
            let is_ours = !OTHERS_NAMES.contains(&name);
            if is_ours && SAYS_NOTHING.iter().any(|word| lower.contains(word)) {
                complaints.push(format!("src/{}:{} {name}", source.name, line(&source.code, at)));
            }
        }
    }
    no_complaints(complaints);
}

#[test]
fn nothing_is_unsafe() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (at, name) in identifiers(&source.code) {
            // The lint that forbids it is called `unsafe_code`, which is another word.
            if name == "unsafe" {
                complaints.push(format!("src/{}:{}", source.name, line(&source.code, at)));
            }
        }
    }
    no_complaints(complaints);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap_or_default();
    let is_forbidden = manifest.contains("unsafe_code = \"forbid\"")
        || lib().code.contains("#![forbid(unsafe_code)]");
    assert!(is_forbidden, "unsafe_code is not forbidden");
}

// ---- whether it reads right ----

#[test]
fn comments_and_literals_are_blanked() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d\n */ e", "a                \n    e"),
        (r#"a("b \" c", d)"#, r"a(        , d)"),
        (r##"a(r#"b " c"#, br"d\", e)"##, r"a(          ,      , e)"),
        (r"a('b', '\'', '\\', b'\n', 'c)", r"a(   ,     ,     ,      , 'c)"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        (r#"for r in bar"b""#, "for r in bar   "),
        ("'é' '\u{10ffff}' x", "        x"),
    ] {
        // The width of a blank does not matter, where the lines are does.
        let words = |text: &str| -> Vec<String> {
            text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        assert_eq!(words(&without_comments_and_literals(text)), words(code), "{text}");
    }
}

#[test]
fn what_is_for_tests_is_left_out() {
    let code = "a\n#[cfg(test)]\nmod tests { fn f() { g(); }\n }\nb\n#[cfg(test)] use c::d;\ne";
    assert_eq!(without_tests(code), "a\n\n\n\nb\n\ne");
}

#[test]
fn paths_are_followed_to_the_root() {
    let code = "use crate::{a, b::{self, c as d}, e::*};\n\
                use super::f::G;\nuse super::super::h;\n\
                pub(crate) fn i() { crate::j::k::<u8>(); self::super::l() }";
    let source = |name: &str| Source {
        name: name.to_owned(),
        text: String::new(),
        code: String::new(),
        shipped: code.to_owned(),
    };
    let found = |name: &str| -> Vec<String> {
        paths(&source(name)).into_iter().map(|(_, path)| path.join("::")).collect()
    };
    let common = ["a", "b::self", "b::c", "e"];
    let deep = [&common[..], &["shard::f::G", "h", "j::k"]].concat();
    assert_eq!(found("shard/visit.rs"), deep);
    assert_eq!(paths(&source("ready.rs"))[4].1, ["f", "G"]);
}

#[test]
fn the_map_is_read_from_its_table() {
    let text = "//! | module | what |\n//! |---|---|\n//! | [`a`] | uses [`x`] |\n\
                //! | [`b`], [`c`] | both |\n//! [`d`] is prose\n";
    assert_eq!(map(text), ["a", "b", "c"]);
}

//! The documents cite tests, and what they cite is there. Owns how a citation is written and where it is looked for;
//! reads text alone, and starts nothing.
//!
//! A citation stands in backticks: `file::name`, with the crate before it where it is not one of the domain's or of
//! `e2e` (`agent-core pod::name`), or a name alone, of at least three words. A name may be cut with `…`, and `*` stands for
//! whatever is in a file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The documents that say which test shows what.
const CITING: [&str; 3] = ["docs/semantics.md", "docs/simulation.md", "docs/checkers.md"];

/// How many cases part A has, and how many invariants part D: the numbers that tests and comments cite.
const CASES: u32 = 197;
const INVARIANTS: u32 = 56;

/// A name alone with fewer is a word of the code.
const BARE_NAME_UNDERSCORES_MIN: usize = 2;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a directory that end so, by their paths from the project's top.
fn files_below(directory: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(directory)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                let path = path.strip_prefix(root()).expect("it is below the top");
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// A test: where it is, as citations say it, and what it is called.
#[derive(Debug, PartialEq)]
struct Test {
    crate_name: String,
    modules: Vec<String>,
    name: String,
}

/// The tests of a file: functions below a `#[test]` or `#[tokio::test]`.
fn tests_of(path: &str, text: &str) -> Vec<Test> {
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    let (crate_name, place, rest) = match parts.as_slice() {
        ["crates", name, place, rest @ ..] => (*name, *place, rest),
        ["tests", place, rest @ ..] => ("e2e", *place, rest),
        _ => return Vec::new(),
    };
    let modules = rest.iter().filter(|part| !["mod", "main", "lib"].contains(part)).map(|part| (*part).to_owned());
    let mut modules: Vec<String> = modules.collect();
    // Those of a source file are in its module of that name.
    if place == "src" && modules.last().is_none_or(|last| last != "tests") {
        modules.push("tests".to_owned());
    }
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            found.push(Test { crate_name: crate_name.to_owned(), modules: modules.clone(), name });
            is_test = false;
        }
    }
    found
}

/// Every test of the project.
fn tests() -> Vec<Test> {
    let files = files_below("crates", ".rs").into_iter().chain(files_below("tests", ".rs"));
    files.flat_map(|path| tests_of(&path, &read(&root().join(&path)))).collect()
}

/// What a citation asks for.
#[derive(Debug, PartialEq)]
struct Citation<'a> {
    crate_name: Option<&'a str>,
    path: Vec<&'a str>,
}

impl<'a> Citation<'a> {
    /// `None` for backticked text that cites no test.
    fn parse(text: &'a str) -> Option<Self> {
        let (crate_name, path) = match text.split_once(' ') {
            Some((name, path)) if path.contains("::") => (Some(name), path),
            Some(_) => return None,
            None => (None, text),
        };
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_…*:".contains(c);
        let is_name = path.contains("::") || path.matches('_').count() >= BARE_NAME_UNDERSCORES_MIN;
        (is_name && path.chars().all(is_word)).then(|| Self { crate_name, path: path.split("::").collect() })
    }

    fn is_met_by(&self, test: &Test) -> bool {
        let full: Vec<&str> = test.modules.iter().map(String::as_str).chain([test.name.as_str()]).collect();
        if let ([name], None) = (self.path.as_slice(), self.crate_name) {
            return matches(name, &test.name);
        }
        let (path, is_of_crate) = match (self.crate_name, self.path.as_slice()) {
            (Some(name), path) => (path, test.crate_name == name),
            (None, ["e2e", path @ ..]) => (path, test.crate_name == "e2e" && full.first() == Some(&"e2e")),
            (None, path) => (path, test.crate_name == "domain"),
        };
        let full = if test.crate_name == "e2e" { &full[1..] } else { &full[..] };
        is_of_crate && path.len() <= full.len() && path.iter().zip(full).all(|(pattern, part)| matches(pattern, part))
    }
}

/// Whether a text fits a pattern in which `…` and `*` stand for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split(['…', '*']);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut is_whole = true;
    for piece in pieces {
        is_whole = piece.is_empty();
        let Some(at) = rest.find(piece) else { return false };
        rest = if is_whole { rest } else { &rest[at + piece.len()..] };
        is_whole |= rest.is_empty();
    }
    is_whole && (rest.is_empty() || pattern.ends_with(['…', '*']))
}

/// What stands in backticks on a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// What is wrong, a line for each, and empty if all is well.
fn complaints(check: impl Fn(&str, &str) -> Vec<String>) -> String {
    let mut said = String::new();
    for document in CITING {
        for (index, line) in read(&root().join(document)).lines().enumerate() {
            for wrong in check(document, line) {
                writeln!(said, "{document}:{}: {wrong}", index + 1).expect("text takes text");
            }
        }
    }
    said
}

#[test]
fn every_test_that_a_document_cites_is_there() {
    let tests = tests();
    assert!(!tests.is_empty(), "no tests were found below {}", root().display());
    let missing = complaints(|_, line| {
        let cited = quoted(line).filter_map(|text| Some((text, Citation::parse(text)?)));
        let missing = cited.filter(|(_, citation)| !tests.iter().any(|test| citation.is_met_by(test)));
        missing.map(|(text, _)| format!("there is no test `{text}`: name the one that shows this now")).collect()
    });
    assert!(missing.is_empty(), "\n{missing}");
}

#[test]
fn every_case_that_is_called_done_names_its_test() {
    let silent = complaints(|document, line| {
        let is_done = document == "docs/semantics.md" && line.starts_with("| A") && line.contains("✓");
        let is_shown = quoted(line).any(|text| text == "invariants" || Citation::parse(text).is_some());
        let row = line.split('|').nth(1).unwrap_or_default().trim();
        (is_done && !is_shown)
            .then(|| format!("{row} is called done, and no test is named for it"))
            .into_iter()
            .collect()
    });
    assert!(silent.is_empty(), "\n{silent}");
}

#[test]
fn every_file_of_code_that_a_document_names_is_there() {
    let files = [files_below("crates", ".rs"), files_below("tests", ".rs")].concat();
    let missing = complaints(|_, line| {
        let named = quoted(line).filter(|text| text.ends_with(".rs") && !text.contains(' '));
        let missing = named.filter(|name| {
            let end = format!("/{}", name.trim_start_matches("../"));
            !files.iter().any(|file| format!("/{file}").ends_with(&end))
        });
        missing.map(|name| format!("there is no file `{name}`")).collect()
    });
    assert!(missing.is_empty(), "\n{missing}");
}

/// The cells of a row of a table, if a line is one.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

#[test]
fn every_mistake_that_the_simulator_found_is_shown_again() {
    let corpus = read(&root().join("crates/sim/corpus/seeds.txt"));
    let is_kept = |seed: &str| corpus.lines().any(|line| line.split_whitespace().next() == Some(seed));
    let text = read(&root().join("docs/simulation.md"));
    let (_, found) = text.split_once("| bug | found by | mended | shown again by |").expect("there is a table of them");
    let rows: Vec<_> = found.lines().skip(2).map_while(cells).collect();
    assert!(!rows.is_empty());
    for row in rows {
        let [bug, _, _, shown] = row.as_slice() else { panic!("{row:?}") };
        let is_test = quoted(shown).any(|text| Citation::parse(text).is_some());
        let is_seed = shown.strip_prefix("seed ").is_some_and(is_kept);
        assert!(is_test || is_seed, "docs/simulation.md: {shown:?} is neither a test nor a seed of the corpus: {bug}");
    }
}

#[test]
fn every_checker_is_in_its_file() {
    let text = read(&root().join("docs/checkers.md"));
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).filter_map(cells).collect();
    assert!(!rows.is_empty());
    for row in rows {
        let [name, _, _, file, _] = row.as_slice() else { panic!("{row:?}") };
        let code = read(&root().join("crates/sim/src/checker").join(file.trim_matches('`')));
        let word = format!("\"{}\"", name.trim_matches('`'));
        assert!(code.contains(&word), "docs/checkers.md: {file} has no checker {name}");
    }
}

/// The numbers in a text, each after this word or after the one before it; ranges (`D11 to D13`, `A4-36 to 41`) with all
/// that is between.
fn numbers(text: &str, word: &str) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut is_range = false;
    for part in text.split([' ', ',', ';', '.', ':', '(', ')', '|', '/', '"', '-']).filter(|part| !part.is_empty()) {
        match part.strip_prefix(word).and_then(|number| number.parse().ok()) {
            Some(number) => {
                let first = found.last().map_or(number, |last| if is_range { last + 1 } else { number });
                found.extend(first..=number);
                is_range = false;
            }
            None => is_range = part == "to",
        }
    }
    found
}

#[test]
fn every_row_is_there_once() {
    let text = read(&root().join("docs/semantics.md"));
    let firsts: Vec<_> = text.lines().filter_map(cells).map(|cells| cells[0]).collect();
    let is_of_part_a = |cell: &&str| cell.starts_with('A') && cell.contains('-');
    let mut cases: Vec<u32> = firsts.iter().copied().filter(is_of_part_a).flat_map(|cell| numbers(cell, "")).collect();
    cases.sort_unstable();
    assert_eq!(cases, (1..=CASES).collect::<Vec<_>>());
    let is_of_part_d = |cell: &&str| cell.starts_with('D');
    let mut promises: Vec<u32> =
        firsts.iter().copied().filter(is_of_part_d).flat_map(|cell| numbers(cell, "D")).collect();
    promises.sort_unstable();
    assert_eq!(promises, (1..=INVARIANTS).collect::<Vec<_>>());
}

#[test]
fn every_invariant_that_the_property_test_is_said_to_check_is_checked() {
    let checked = numbers(&read(&root().join("crates/domain/tests/invariants.rs")), "D");
    let text = read(&root().join("docs/semantics.md"));
    let mut missing = String::new();
    for after in text.split("`invariants").skip(1) {
        // What is said of it ends where something else is cited.
        let said = after.split_once('`').map_or("", |(_, said)| said.split(['`', '\n']).next().unwrap_or_default());
        for number in numbers(said, "D").into_iter().filter(|number| !checked.contains(number)) {
            writeln!(missing, "D{number} is not spoken of in crates/domain/tests/invariants.rs")
                .expect("text takes text");
        }
    }
    assert!(missing.is_empty(), "\n{missing}");
}

#[test]
fn citations_say_where_and_may_be_cut() {
    let test = |path: &str, name: &str| {
        let mut found = tests_of(path, &format!("#[test]\nfn {name}() {{"));
        found.pop().expect("it is a test")
    };
    let of_domain = test("crates/domain/tests/set.rs", "pods_come_one_by_one");
    let of_source = test("crates/dns/src/answer.rs", "that_there_is_nothing_is_said");
    let of_whole = test("tests/tests/e2e/refusal.rs", "a_link_is_cut");
    for (text, test, is_met) in [
        ("set::pods_come_one_by_one", &of_domain, true),
        ("set::pods_come…", &of_domain, true),
        ("set::…one_by_one", &of_domain, true),
        ("set::*", &of_domain, true),
        ("pods_come…by_one", &of_domain, true),
        ("domain set::pods_come_one_by_one", &of_domain, true),
        ("set::pods_come", &of_domain, false),
        ("rollout::pods_come_one_by_one", &of_domain, false),
        ("agent set::pods_come_one_by_one", &of_domain, false),
        ("dns answer::tests", &of_source, true),
        ("dns answer::tests::that_there…", &of_source, true),
        ("answer::tests::that_there…", &of_source, false),
        ("e2e::refusal", &of_whole, true),
        ("e2e::refusal::a_link_is_cut", &of_whole, true),
        ("e2e::names", &of_whole, false),
    ] {
        let citation = Citation::parse(text).unwrap_or_else(|| panic!("`{text}` is a citation"));
        assert_eq!(citation.is_met_by(test), is_met, "`{text}` of {test:?}");
    }
    for text in ["fsGroup", "env.valueFrom", "holdfast sim --seed 1", "batch_append", "HOLDFAST_A_B_C"] {
        assert_eq!(Citation::parse(text), None, "`{text}`");
    }
    assert_eq!(tests_of("crates/domain/tests/set.rs", "fn a_helper_of_tests() {"), []);
    assert_eq!(numbers("D1 to D3, D5 (D7)", "D"), [1, 2, 3, 5, 7]);
    assert_eq!(numbers("A4-36 to 38, 41", ""), [36, 37, 38, 41]);
}

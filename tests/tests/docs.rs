//! The tables of the documentation name tests: each of them is there.

#![allow(clippy::unwrap_used, reason = "this is how a test fails, in its helpers too")]

use std::path::{Path, PathBuf};

/// Pages whose tables end in a column of tests, and more tests than this many.
const PAGES: [(&str, usize); 6] = [
    ("filter.md", 10),
    ("sources.md", 15),
    ("failure-modes.md", 20),
    ("ways-in.md", 20),
    ("upgrade.md", 5),
    ("observer.md", 1),
];
/// Where tests are.
const ROOMS: [&str; 5] = ["agent", "common", "pam-module", "tests", "xtask"];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names in the last column of a page's tables whose header there is "test".
fn named(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_table = false;
    for line in page.lines() {
        let last = line
            .strip_prefix('|')
            .and_then(|row| row.trim_end().trim_end_matches('|').split('|').next_back());
        match last.map(str::trim) {
            None => in_table = false,
            Some("test") => in_table = true,
            Some(cell) if in_table => {
                names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
            }
            Some(_) => {}
        }
    }
    names
}

#[test]
fn every_test_that_a_table_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for room in ROOMS {
        rust_files(&root.join(room), &mut files);
    }
    let sources: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for (page, least) in PAGES {
        let names = named(&std::fs::read_to_string(root.join("docs").join(page)).unwrap());
        assert!(names.len() > least, "{page}: the tables are not found any more");
        let gone: Vec<&String> =
            names.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
        assert!(gone.is_empty(), "docs/{page} names tests that are not there: {gone:?}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Snapshots of text that a program generates from the definition of its command line.
//!
//! The tests of several programs include this file.

use expect_test::ExpectFile;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Compares a text with its snapshot. `comment` starts a comment in the text's language.
pub fn check(comment: &str, text: &str, snapshot: ExpectFile) {
    let mut expected = format!("{comment} SPDX-License-Identifier: MIT OR Apache-2.0\n");
    for line in text.lines() {
        // Pages have the version, which the help of each command is compared without.
        let line = line.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        writeln!(expected, "{}", line.trim_end()).unwrap();
    }
    snapshot.assert_eq(&expected);
}

/// Compares all manual pages in a directory, by their names, with their snapshot.
pub fn check_pages(directory: &Path, snapshot: ExpectFile) {
    let pages = fs::read_dir(directory).unwrap();
    let mut pages: Vec<_> = pages.map(|page| page.unwrap().path()).collect();
    pages.sort();
    let mut all = String::new();
    for path in pages {
        let name = path.file_name().unwrap().to_str().unwrap();
        let page = fs::read_to_string(&path).unwrap();
        write!(all, "\n.\\\" {name}\n{page}").unwrap();
    }
    check(".\\\"", &all, snapshot);
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Snapshots of everything that is generated from the command line's definition, so that a review shows
//! each change of it. `UPDATE_EXPECT=1 cargo test --test command_line` writes them anew.

mod common;

use common::*;
use expect_test::{expect_file, ExpectFile};
use std::fmt::Write;
use std::fs;

/// Compares a text with its snapshot. `comment` starts a comment in the text's language.
fn check(comment: &str, text: &str, snapshot: ExpectFile) {
    let mut expected = format!("{comment} SPDX-License-Identifier: MIT OR Apache-2.0\n");
    for line in text.lines() {
        // Pages have the version, which the help of each command is compared without.
        let line = line.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        writeln!(expected, "{}", line.trim_end()).unwrap();
    }
    snapshot.assert_eq(&expected);
}

/// Returns the help of a command, which is as wide as wide terminals show it.
fn help(arguments: &[&str]) -> String {
    let mut command = puzzlefs();
    command.args(arguments).env("COLUMNS", "100");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_is_as_reviewed() {
    let main = help(&["--help"]);
    let listed = main.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.split_whitespace().next());
    let mut all = format!("# puzzlefs --help\n{main}");
    for name in names.filter(|name| *name != "help") {
        for flag in ["-h", "--help"] {
            let text = help(&[name, flag]);
            write!(all, "\n# puzzlefs {name} {flag}\n{text}").unwrap();
        }
    }
    check("#", &all, expect_file!["snapshots/help.txt"]);
}

#[test]
fn pages_are_as_reviewed() {
    let scratch = tempfile::tempdir().unwrap();
    says(&["man", scratch.path().to_str().unwrap()]);
    let pages = fs::read_dir(scratch.path()).unwrap();
    let mut pages: Vec<_> = pages.map(|page| page.unwrap().path()).collect();
    pages.sort();
    let mut all = String::new();
    for path in pages {
        let name = path.file_name().unwrap().to_str().unwrap();
        let page = fs::read_to_string(&path).unwrap();
        write!(all, "\n.\\\" {name}\n{page}").unwrap();
    }
    check(".\\\"", &all, expect_file!["snapshots/pages.roff"]);
}

#[test]
fn completions_are_as_reviewed() {
    for (shell, snapshot) in [
        ("bash", expect_file!["snapshots/completions.bash"]),
        ("fish", expect_file!["snapshots/completions.fish"]),
        ("zsh", expect_file!["snapshots/completions.zsh"]),
    ] {
        check("#", &says(&["completions", shell]), snapshot);
    }
}

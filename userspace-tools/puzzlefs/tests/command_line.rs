// SPDX-License-Identifier: MIT OR Apache-2.0

//! Snapshots of everything that is generated from the command line's definition, so that a review shows
//! each change of it. `UPDATE_EXPECT=1 cargo test command_line` writes them anew.

use crate::common::snapshot::{check, check_pages};
use crate::common::*;
use expect_test::expect_file;
use std::fmt::Write;

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
    check_pages(scratch.path(), expect_file!["snapshots/pages.roff"]);
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

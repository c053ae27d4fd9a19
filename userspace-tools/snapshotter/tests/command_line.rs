// SPDX-License-Identifier: MIT OR Apache-2.0

//! Snapshots of the help and the manual pages, so that a review shows each change of the command line.
//! `UPDATE_EXPECT=1 cargo test --test command_line` writes them anew.

#[path = "../../puzzlefs/tests/common/snapshot.rs"]
mod snapshot;

use expect_test::expect_file;
use snapshot::{check, check_pages};
use std::fmt::Write;
use std::fs::File;
use std::process::Command;

fn says(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puzzlefs-snapshotter"));
    command.args(arguments).env("COLUMNS", "100");
    // The help shows the values of these.
    command.env_remove("CONTAINERD_NAMESPACE");
    command.env_remove("CONTAINERD_ADDRESS");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_is_as_reviewed() {
    let mut all = String::new();
    for arguments in [
        &["--help"][..],
        &["serve", "-h"],
        &["serve", "--help"],
        &["import", "-h"],
        &["import", "--help"],
    ] {
        let shown = arguments.join(" ");
        let help = says(arguments);
        write!(all, "\n# puzzlefs-snapshotter {shown}\n{help}").unwrap();
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
fn a_full_standard_error_is_no_panic() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_puzzlefs-snapshotter"));
    command.args(["import", "/nonexistent:tag", "name"]);
    let output = command.stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! A snapshot of the help. `UPDATE_EXPECT=1 cargo test --test command_line` writes it anew.

use expect_test::expect_file;
use std::fs::File;
use std::process::Command;

#[test]
fn help_is_as_reviewed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mount-puzzlefs"));
    let output = command.arg("--help").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let help = format!("# SPDX-License-Identifier: MIT OR Apache-2.0\n{help}");
    expect_file!["snapshots/help.txt"].assert_eq(&help);
}

#[test]
fn a_full_output_is_reported() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let helper = || Command::new(env!("CARGO_BIN_EXE_mount-puzzlefs"));
    let output = helper().arg("--help").stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard output: cannot write"), "{said}");
    // The status reports wrong usage, even if the message cannot be written.
    let output = helper().stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

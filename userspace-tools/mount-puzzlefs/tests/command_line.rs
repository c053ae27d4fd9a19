// SPDX-License-Identifier: MIT OR Apache-2.0

//! A snapshot of the help. `UPDATE_EXPECT=1 cargo test --test command_line` writes it anew.

use expect_test::expect_file;
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

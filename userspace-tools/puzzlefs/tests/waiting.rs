// SPDX-License-Identifier: MIT OR Apache-2.0

//! The helpers that other tests wait with.

use crate::common::*;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut looks = 0;
    let mut third = || {
        looks += 1;
        looks == 3
    };
    wait_within(Duration::from_secs(100), &mut third).unwrap();
    wait_within(Duration::ZERO, &mut || true).unwrap();
    wait_within(Duration::from_millis(1), &mut || false).unwrap_err();
}

fn build_command(scratch: &Path) -> Command {
    let tree = scratch.join("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), "contents").unwrap();
    let mut command = puzzlefs();
    let image = reference(&scratch.join("store"), "t");
    command.args(["build", "-q"]).arg(tree).arg(image);
    command
}

#[test]
fn a_paused_command_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let mut paused = false;
    let output = Pause::at("written").during(&mut build_command(scratch.path()), || {
        assert_eq!(leftovers(&scratch.path().join("store")).len(), 1);
        paused = true;
    });
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(paused);
    check_store(&scratch.path().join("store"));
}

#[test]
fn a_point_that_is_not_reached_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let pause = Pause::nth("committed", 2);
    let mut command = build_command(scratch.path());
    let mut child = pause.spawn(command.stderr(Stdio::null()));
    assert!(pause.reached(&mut child).is_none());
    assert!(finish(child).status.success());
}

/// What no test's socket answers is no pause.
#[test]
fn a_command_whose_test_has_ended_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("no-socket");
    let mut command = build_command(scratch.path());
    command.env("PUZZLEFS_TEST_PAUSE", format!("any:1:{}", socket.display()));
    assert!(output(&mut command).status.success());
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the command says where something is wrong: with the words that it was given, or with
//! whoever is to be told.

use crate::common::*;
use puzzlefs_lib::oci::{self, Descriptor};
use puzzlefs_lib::Digest;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

fn tree_and_store(scratch: &Path) -> (String, String) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "contents").unwrap();
    build(&tree, &store, "t", 1);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    (text(&tree), text(&store))
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn nobody_to_be_told_is_no_reason_to_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = tree_and_store(scratch.path());
    let image = format!("{store}:t");
    let nothing = format!("{store}:nothing");
    // The remark on what matches nothing comes after the tag is set.
    for (arguments, wanted) in [
        (&["list", "/nonexistent"][..], 1),
        (&["ls", &nothing], 1),
        (&["ls", "no-reference"], 2),
        (&["build", &tree, &image, "--exclude", "no-such-name"], 0),
    ] {
        let output = puzzlefs().args(arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(wanted), "{arguments:?}");
    }
}

#[test]
fn an_output_that_takes_no_more_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, store) = tree_and_store(scratch.path());
    let image = format!("{store}:t");
    for arguments in [
        &["ls", &image][..],
        &["ls", &image, "-R", "--json"],
        &["cat", &image, "file"],
        &["diff", &image, &image, "--json"],
        &["verify", &store],
        &["completions", "bash"],
    ] {
        let mut command = puzzlefs();
        let command = command.args(arguments).stdout(full());
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = stderr(&output);
        let wanted = "puzzlefs: standard output: cannot write to it: No space left";
        assert!(said.starts_with(wanted), "{arguments:?}: {said}");
    }
}

#[test]
fn what_is_in_a_store_cannot_move_the_cursor_of_who_reads_a_message() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, store) = tree_and_store(scratch.path());
    let manifest = Descriptor::new(oci::MANIFEST, Digest::of(b"nothing"), 7);
    let manifest = manifest.annotated(oci::REF_NAME, "\u{1b}[2Jtag\n");
    put_in_index(Path::new(&store), manifest);
    let said = fails(&["ls", &format!("{store}:nothing")]);
    assert!(said.contains("\\u{1b}[2Jtag\\n"), "{said}");
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    let output = run(&["verify", &store]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\\u{1b}[2Jtag\\n"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn misspelt_words_make_no_store() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = tree_and_store(scratch.path());
    let new = scratch.path().join("new");
    let image = format!("{}:t", new.display());
    let nothing = scratch.path().join("nothing");
    let nothing = nothing.to_str().unwrap();
    for arguments in [
        &["build", nothing, &image][..],
        &["import", nothing, &image],
        &["build", "--format=3", &tree, &image, "--base", "t"],
        &["copy", &format!("{store}:nothing"), &image],
    ] {
        fails(arguments);
        assert!(!new.exists(), "{arguments:?}");
    }
}

#[test]
fn a_store_and_an_image_are_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, store) = tree_and_store(scratch.path());
    let usage = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        stderr(&output)
    };
    for command in ["list", "du", "gc"] {
        let said = usage(&[command, &format!("{store}:t")]);
        let wanted = format!("give the store alone, {store}\n");
        assert!(said.ends_with(&wanted), "{said}");
    }
    for command in ["verify", "enable-verity"] {
        let said = usage(&[command, "/nonexistent"]);
        let wanted = "puzzlefs: cannot use '/nonexistent': neither a directory nor <oci-dir>:<tag>";
        assert!(said.starts_with(wanted), "{said}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Another tool changes the index of a store, without our lock, while a command of ours does.

use crate::common::*;
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NAME: &str = "org.opencontainers.image.ref.name";

/// A store with the tags `old` and `kept`, and another tree to build.
fn store(scratch: &Path) -> (PathBuf, PathBuf) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(100_000, 1)).unwrap();
    build(&tree, &store, "old", 1);
    says(&["tag", &reference(&store, "old"), "kept"]);
    fs::write(tree.join("file"), noise(100_000, 2)).unwrap();
    (tree, store)
}

fn index(store: &Path) -> Value {
    serde_json::from_slice(&fs::read(store.join("index.json")).unwrap()).unwrap()
}

/// The tags of an index, and the digests of what they name.
fn tags(store: &Path) -> BTreeMap<String, String> {
    let index = index(store);
    let manifests = index["manifests"].as_array().unwrap().iter();
    let tags = manifests.map(|manifest| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&manifest["annotations"][NAME]),
            text(&manifest["digest"]),
        )
    });
    tags.collect()
}

/// Replaces the index by a rename, as most tools do.
fn replace(store: &Path, index: &Value) {
    let new = store.join("index.theirs");
    fs::write(&new, index.to_string()).unwrap();
    fs::rename(new, store.join("index.json")).unwrap();
}

/// Adds a tag for the image that `kept` names, and removes no other.
fn tag_theirs(store: &Path, tag: &str) {
    let mut index = index(store);
    let manifests = index["manifests"].as_array_mut().unwrap();
    let kept = manifests.iter().find(|m| m["annotations"][NAME] == "kept");
    let mut theirs = kept.unwrap().clone();
    theirs["annotations"][NAME] = json!(tag);
    manifests.push(theirs);
    replace(store, &index);
}

fn command(arguments: &[&str]) -> Command {
    let mut command = puzzlefs();
    command.args(arguments);
    command
}

/// The points between a command's reading of the index and its replacing it.
const MOMENTS: [&str; 2] = ["locked", "replacing"];

#[test]
fn what_another_tool_adds_stays() {
    for point in MOMENTS {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, store) = store(scratch.path());
        let from = scratch.path().join("from");
        build(&tree, &from, "copied", 1);
        let (tree, old) = (tree.to_str().unwrap(), reference(&store, "old"));
        let (built, copied) = (reference(&store, "built"), reference(&store, "copied"));
        let elsewhere = reference(&from, "copied");
        for (number, arguments) in [
            &["build", "-q", tree, &built][..],
            &["copy", "-q", &elsewhere, &copied],
            &["tag", &old, "tagged"],
            &["untag", &old],
        ]
        .into_iter()
        .enumerate()
        {
            let theirs = format!("theirs{number}");
            let act = || tag_theirs(&store, &theirs);
            let output = Pause::at(point).during(&mut command(arguments), act);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        let found: Vec<_> = tags(&store).into_keys().collect();
        let theirs = ["theirs0", "theirs1", "theirs2", "theirs3"];
        let wanted = [&["built", "copied", "kept", "tagged"][..], &theirs].concat();
        assert_eq!(found, wanted, "{point}");
        assert_eq!(leftovers(&store), [""; 0]);
        check_store(&store);
    }
}

#[test]
fn what_another_tool_removes_or_moves_stays_so() {
    for point in MOMENTS {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, store) = store(scratch.path());
        let before = tags(&store);
        let built = reference(&store, "built");
        let mut build = command(&["build", "-q", tree.to_str().unwrap(), &built]);
        let output = Pause::at(point).during(&mut build, || {
            let mut index = index(&store);
            let manifests = index["manifests"].as_array_mut().unwrap();
            manifests.retain(|manifest| manifest["annotations"][NAME] == "kept");
            index["annotations"] = json!({"of": "theirs"});
            replace(&store, &index);
        });
        assert!(output.status.success(), "{}", stderr(&output));
        let after = tags(&store);
        assert_eq!(after.keys().collect::<Vec<_>>(), ["built", "kept"]);
        assert_eq!(after["kept"], before["kept"]);
        assert_eq!(index(&store)["annotations"]["of"], "theirs");
    }
}

/// The tag that a command needs is gone, or the whole index is.
#[test]
fn what_cannot_be_done_any_more_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, store) = store(scratch.path());
    let untag = || command(&["untag", &reference(&store, "old")]);
    let refused = |output: Output, wanted: &str| {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
        assert_eq!(leftovers(&store), [""; 0]);
    };
    let whole = index(&store);
    let mut less = whole.clone();
    less["manifests"].as_array_mut().unwrap().remove(0);
    let output = Pause::at("replacing").during(&mut untag(), || replace(&store, &less));
    refused(output, "no image is tagged 'old'");
    assert_eq!(index(&store), less);

    replace(&store, &whole);
    let output = Pause::at("replacing").during(&mut untag(), || {
        fs::remove_file(store.join("index.json")).unwrap();
    });
    refused(output, "no image is tagged 'old'");
    assert!(!store.join("index.json").exists());

    // A tool that writes into the file itself, and is not done.
    replace(&store, &whole);
    let output = Pause::at("replacing").during(&mut untag(), || {
        fs::write(store.join("index.json"), r#"{"schemaVersion":2,"#).unwrap();
    });
    refused(output, "index.json: not an OCI image index");
    let text = fs::read_to_string(store.join("index.json")).unwrap();
    assert_eq!(text, r#"{"schemaVersion":2,"#);
}

#[test]
fn the_first_index_may_be_anothers() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, full) = store(scratch.path());
    let store = scratch.path().join("new");
    let mut build = command(&[
        "build",
        "-q",
        tree.to_str().unwrap(),
        &reference(&store, "ours"),
    ]);
    let mut theirs = index(&full);
    theirs["manifests"] = json!([]);
    theirs["annotations"] = json!({"of": "theirs"});
    let output = Pause::at("replacing").during(&mut build, || replace(&store, &theirs));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(index(&store)["annotations"]["of"], "theirs");
    assert_eq!(tags(&store).into_keys().collect::<Vec<_>>(), ["ours"]);
    check_store(&store);
}

#[test]
fn a_sweep_removes_nothing_by_an_old_index() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, store) = store(scratch.path());
    let whole = index(&store);
    says(&["untag", &reference(&store, "old")]);
    says(&["untag", &reference(&store, "kept")]);
    let blobs = || fs::read_dir(store.join("blobs/sha256")).unwrap().count();
    let before = blobs();
    let mut gc = command(&["gc", store.to_str().unwrap()]);
    let output = Pause::at("marked").during(&mut gc, || replace(&store, &whole));
    assert_eq!(output.status.code(), Some(1));
    let wanted = "index.json: another tool changed it";
    assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    assert_eq!(blobs(), before);
    says(&["verify", "-q", store.to_str().unwrap()]);
    says(&["gc", store.to_str().unwrap()]);
    assert_eq!(blobs(), before);
}

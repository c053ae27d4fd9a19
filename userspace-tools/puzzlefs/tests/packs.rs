// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands on images of format 4 that are killed at every point leave a store whose images are whole.

use crate::common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree of small files, of which only one differs from version to version.
fn tree(parent: &Path, version: u64) -> PathBuf {
    let tree = parent.join(format!("tree{version}"));
    fs::create_dir_all(&tree).unwrap();
    for file in 0..6 {
        fs::write(tree.join(file.to_string()), noise(20_000, file)).unwrap();
    }
    fs::write(tree.join("own"), noise(50_000, 1000 + version)).unwrap();
    tree
}

fn build_packed(tree: &Path, store: &Path, tag: &str) {
    let output = build_with(&["--format=4", "--source-date-epoch=0"], tree, store, tag);
    assert!(output.status.success(), "{}", stderr(&output));
}

fn command(arguments: &[&str]) -> Command {
    let mut command = puzzlefs();
    command.args(arguments);
    command
}

/// Kills a command at each of its points, one after the other. `prepare` comes before each attempt, and
/// `check` after it. Returns the names of the points.
fn kill_everywhere(
    mut command: impl FnMut() -> Command,
    mut prepare: impl FnMut(),
    mut check: impl FnMut(&str),
) -> Vec<String> {
    const POINTS_MAX: u64 = 200;
    let mut points = Vec::new();
    for number in 1..POINTS_MAX {
        prepare();
        let pause = Pause::nth("any", number);
        let mut child = pause.spawn(&mut command());
        let Some(paused) = pause.reached(&mut child) else {
            let output = finish(child);
            assert!(output.status.success(), "{}", stderr(&output));
            check("the end");
            return points;
        };
        points.push(paused.point.clone());
        child.kill().unwrap();
        finish(child);
        drop(paused);
        check(&points[points.len() - 1]);
    }
    panic!("more than {POINTS_MAX} points: {points:?}");
}

/// Asserts that a store has no fault, and that these images are whole.
fn assert_whole(store: &Path, tags: &[&str], point: &str) {
    let output = command(&["verify", "--json", store.to_str().unwrap()])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["faults"], serde_json::json!([]), "{point}");
    let whole = report["packed"].as_array().unwrap().iter();
    let whole: Vec<&str> = whole
        .filter(|image| image["whole"] == true)
        .filter_map(|image| image["image"].as_str())
        .collect();
    for tag in tags {
        let names = |image: &&str| image.split(", ").any(|name| name == *tag);
        assert!(whole.iter().any(names), "{tag} after {point}: {report}");
    }
}

#[test]
fn killed_builds() {
    let scratch = memory_scratch();
    let store = scratch.path().join("store");
    build_packed(&tree(scratch.path(), 0), &store, "first");
    let target = reference(&store, "second");
    let mut version = 0;
    let points = kill_everywhere(
        || {
            // A pack that a killed builder has left is used by the next one.
            version += 1;
            let tree = tree(scratch.path(), version);
            let mut command = command(&["build", "-q", "--format=4"]);
            command.arg(tree).arg(&target);
            command
        },
        || (),
        |point| assert_whole(&store, &["first"], point),
    );
    for point in [
        "created",
        "written",
        "named",
        "table",
        "catalogue",
        "catalogued",
        "replaced",
    ] {
        assert!(points.iter().any(|at| at == point), "{point}: {points:?}");
    }
    assert_whole(&store, &["first", "second"], "all");
}

#[test]
fn killed_collections() {
    let scratch = memory_scratch();
    let (store, before) = (scratch.path().join("store"), scratch.path().join("before"));
    let name = store.to_str().unwrap();
    // A pack of which a part is needed, and one that is dead.
    build_packed(&tree(scratch.path(), 0), &before, "old");
    build_packed(&tree(scratch.path(), 1), &before, "kept");
    build_packed(&tree(scratch.path(), 2), &before, "dead");
    for tag in ["old", "dead"] {
        says(&["untag", &reference(&before, tag)]);
    }
    let points = kill_everywhere(
        || command(&["gc", "--max-dead=0", name]),
        || {
            let _ = fs::remove_dir_all(&store);
            let copied = Command::new("cp")
                .arg("-a")
                .args([&before, &store])
                .status();
            assert!(copied.unwrap().success());
        },
        |point| {
            assert_whole(&store, &["kept"], point);
            says(&["gc", "--max-dead=0", name]);
            assert_whole(&store, &["kept"], point);
        },
    );
    let index = ["table", "catalogue", "catalogued"];
    let pack = [
        "staging",
        "created",
        "written",
        "synced",
        "named",
        "committed",
    ];
    let removed = ["removed"; 4];
    let wanted = [
        &["marked"][..],
        // The manifests and configurations of the two images.
        &removed,
        &index,
        &["removed"],
        &pack,
        &index,
        &["recipe", "removed"],
    ];
    assert_eq!(points, wanted.concat());
}

#[test]
fn killed_repacks_and_copies() {
    let scratch = memory_scratch();
    let (store, target) = (scratch.path().join("store"), scratch.path().join("target"));
    build_packed(&tree(scratch.path(), 0), &store, "first");
    build_packed(&tree(scratch.path(), 1), &store, "second");
    build_packed(&tree(scratch.path(), 2), &target, "there");
    let (image, copy) = (reference(&store, "second"), reference(&target, "copy"));
    kill_everywhere(
        || command(&["copy", "-q", &image, &copy]),
        || (),
        |point| assert_whole(&target, &["there"], point),
    );
    assert_whole(&target, &["there", "copy"], "all");
    kill_everywhere(
        || command(&["complete", "--new-manifest", &copy]),
        || (),
        |point| assert_whole(&target, &["there", "copy"], point),
    );
    kill_everywhere(
        || command(&["repack", &image]),
        || (),
        |point| assert_whole(&store, &["first", "second"], point),
    );
    says(&["gc", store.to_str().unwrap()]);
    assert_whole(&store, &["first", "second"], "gc");
}

#[test]
fn killed_rebuilds_of_the_index() {
    let scratch = memory_scratch();
    let store = scratch.path().join("store");
    build_packed(&tree(scratch.path(), 0), &store, "first");
    let points = kill_everywhere(
        || command(&["reindex", "-q", store.to_str().unwrap()]),
        || (),
        |point| assert_whole(&store, &["first"], point),
    );
    assert_eq!(points, ["table", "catalogue", "catalogued"]);
}

#[test]
fn a_lost_index_is_rebuilt() {
    let scratch = memory_scratch();
    let store = scratch.path().join("store");
    let name = store.to_str().unwrap();
    build_packed(&tree(scratch.path(), 0), &store, "first");
    fs::remove_dir_all(store.join(".puzzlefs/chunks")).unwrap();
    let said = says(&["verify", name]);
    assert!(said.contains("1 pack is not listed"), "{said}");
    assert_whole(&store, &["first"], "the loss");
    let said = says(&["reindex", name]);
    assert!(said.contains("in 1 pack"), "{said}");
    assert_whole(&store, &["first"], "reindex");
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images built on another one.

use crate::common::*;
use puzzlefs_lib::reader::ImageReader;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Builds on an image, and fails unless the result is the tree.
fn build_on(tree: &Path, store: &Path, base: &str, tag: &str) -> Value {
    let output = build_with(
        &["--format=3", "--base", base, "--jobs", "2"],
        tree,
        store,
        tag,
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let report = serde_json::from_slice(&output.stdout).unwrap();
    assert_same(&image_inventory(store, tag), &directory_inventory(tree));
    let output = puzzlefs()
        .arg("verify")
        .arg(reference(store, tag))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    report
}

/// The inodes of the topmost layer, and the number of layers.
fn top(store: &Path, tag: &str) -> (u32, u32) {
    let (store, image) = open_v3(store, tag);
    let reader = ImageReader::new(&store, &image).unwrap();
    let metadata = reader.metadata();
    (metadata.layer_len(0).unwrap(), metadata.layers().unwrap())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn only_what_differs_is_in_the_layer() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let full = build_v3(&tree, &store, "base", 2);

    let same = build_on(&tree, &store, "base", "same");
    assert_eq!(top(&store, "same"), (0, 2));
    assert_eq!(number(&same["new_blobs"]), 0);
    assert_eq!(same["bytes"], full["bytes"]);

    // One directory's time, the file, and what is gone.
    fs::write(tree.join("small/7"), "changed").unwrap();
    fs::remove_file(tree.join("small/8")).unwrap();
    let one = build_on(&tree, &store, "same", "one");
    assert_eq!(top(&store, "one"), (3, 3));
    assert_eq!(number(&one["new_bytes"]), 7);

    // An owner or a time is no reason to store the contents again.
    set_mtime(&tree.join("large"), 1, 1);
    let time = build_on(&tree, &store, "one", "time");
    assert_eq!(top(&store, "time"), (1, 4));
    assert_eq!(number(&time["new_blobs"]), 0);

    let again = build_on(&tree, &store, "one", "again");
    assert_eq!(again["manifest_digest"], time["manifest_digest"]);
}

#[test]
fn every_sort_of_change() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    build_v3(&tree, &store, "base", 2);
    let path = |name: &str| tree.join(name);
    // A file becomes a directory, a directory a file, a link another.
    fs::remove_file(path("sizes/1")).unwrap();
    fs::create_dir(path("sizes/1")).unwrap();
    fs::write(path("sizes/1/inside"), "new").unwrap();
    fs::remove_dir_all(path("zeros")).unwrap();
    fs::write(path("zeros"), "file").unwrap();
    fs::remove_file(path("special/link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", path("special/link")).unwrap();
    // Of many names of an inode, one goes, one is a file of its own, one comes.
    fs::remove_file(path("links/0")).unwrap();
    fs::remove_file(path("links/2")).unwrap();
    fs::write(path("links/2"), "alone").unwrap();
    fs::hard_link(path("sizes/4097"), path("links/another")).unwrap();
    // Two files become one, a directory moves, two files change places.
    fs::remove_file(path("same/large")).unwrap();
    fs::hard_link(path("large"), path("same/large")).unwrap();
    fs::rename(path("deep/0"), path("deep/moved")).unwrap();
    fs::rename(path("small/1"), path("small/x")).unwrap();
    fs::rename(path("small/2"), path("small/1")).unwrap();
    fs::rename(path("small/x"), path("small/2")).unwrap();
    fs::remove_dir(path("special/empty")).unwrap();
    build_on(&tree, &store, "base", "t");
    check_store(&store);

    let target = scratch.path().join("target");
    extract(&store, "t", &target);
    assert_same(&directory_inventory(&target), &directory_inventory(&tree));
}

/// Layer upon layer of changes drawn at random.
#[test]
fn layer_upon_layer() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    build_v3(&tree, &store, "0", 1);
    let mut choices = noise(100_000, 42).into_iter().map(usize::from);
    let mut draw = |below: usize| choices.next().unwrap() % below;
    for layer in 1..=15 {
        for _ in 0..12 {
            let name = |draw: &mut dyn FnMut(usize) -> usize| -> PathBuf {
                (0..=draw(3)).map(|_| format!("{}", draw(4))).collect()
            };
            let (one, other) = (tree.join(name(&mut draw)), tree.join(name(&mut draw)));
            // What cannot be done in this tree is not done.
            let _ = match draw(6) {
                0 => fs::create_dir_all(&one),
                1 | 2 => fs::write(&one, noise(draw(200) * 500, draw(50) as u64)),
                3 => fs::remove_dir_all(&one).or_else(|_| fs::remove_file(&one)),
                4 => fs::rename(&one, &other),
                _ => fs::hard_link(&one, &other),
            };
        }
        build_on(&tree, &store, &format!("{}", layer - 1), &layer.to_string());
    }
    assert_eq!(top(&store, "15").1, 16);
}

#[test]
fn a_base_that_is_not_there() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    build_v3(&tree, &store, "base", 1);
    let output = build_with(&["--format=3", "--base", "bass"], &tree, &store, "t");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("the tags are: base"),
        "{}",
        stderr(&output)
    );
}

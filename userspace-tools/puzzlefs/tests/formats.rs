// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of one tree in both formats, which every command shows alike.

mod common;

use common::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The tags of the images: of format 3, and of format 4 with and without compression.
const TAGS: [&str; 3] = ["three", "raw", "zstd"];

/// Builds a tree in both formats.
fn build_all(tree: &Path, store: &Path) {
    for (tag, options) in TAGS.into_iter().zip([
        ["--format=3", "--compress=0"],
        ["--format=4", "--compress=0"],
        ["--format=4", "--compress=3"],
    ]) {
        let output = build_with(&options, tree, store, tag);
        assert!(output.status.success(), "{tag}: {}", stderr(&output));
    }
}

/// A tree with something of everything, a directory and a file whose lists are long, and links.
fn tree_and_store(scratch: &Path) -> (PathBuf, PathBuf) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    make_tree(&tree, false);
    fs::create_dir(tree.join("many")).unwrap();
    for number in 0..3000 {
        fs::write(tree.join(format!("many/{number}")), number.to_string()).unwrap();
    }
    fs::write(
        tree.join("text"),
        "some words and some more. ".repeat(20_000),
    )
    .unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    for part in 0..1500_u64 {
        sparse
            .write_all_at(&part.to_le_bytes(), part << 14)
            .unwrap();
    }
    sparse.set_len((1500 << 14) + 5).unwrap();
    symlink("many/77", tree.join("link")).unwrap();
    symlink("loop", tree.join("loop")).unwrap();
    fs::set_permissions(tree.join("many/5"), fs::Permissions::from_mode(0o640)).unwrap();
    build_all(&tree, &store);
    (tree, store)
}

/// Runs a command on each image, and compares what it prints.
#[track_caller]
fn same_output(store: &Path, before: &[&str], after: &[&str]) -> String {
    let said = TAGS.map(|tag| {
        let image = reference(store, tag);
        let output = run(&[before, &[&image], after].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        // Not all names are text.
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    assert!(!said[0].is_empty());
    for (tag, other) in TAGS.iter().zip(&said) {
        // Not by `assert_eq`, which would print megabytes.
        assert!(other == &said[0], "{before:?} {after:?} of {tag} differs");
    }
    said[0].clone()
}

/// The lines of `ls --json`, without the numbers of inodes, which differ between formats.
fn listed(store: &Path, tag: &str) -> Vec<Value> {
    let said = says(&["ls", "-R", "--json", &reference(store, tag)]);
    let lines = said.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        assert!(line.as_object_mut().unwrap().remove("ino").is_some());
        line
    });
    lines.collect()
}

#[test]
fn every_command_shows_the_same_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = tree_and_store(scratch.path());

    let all = same_output(&store, &["ls", "-lR"], &[]);
    assert!(all.lines().count() > 3300);
    same_output(&store, &["ls"], &["/many"]);
    assert!(same_output(&store, &["ls", "-l"], &["many/5"]).starts_with("-rw-r-----"));
    same_output(&store, &["ls"], &["link"]);
    let expected = listed(&store, TAGS[0]);
    for tag in &TAGS[1..] {
        assert!(listed(&store, tag) == expected, "{tag}");
    }

    assert_eq!(
        same_output(&store, &["cat"], &["link", "/many/../many/2999"]),
        "772999"
    );
    same_output(&store, &["cat"], &["text"]);
    for (path, message) in [
        ("many", "not a regular file"),
        ("loop", "too many symbolic links"),
        ("many/3000", "no such file"),
        ("text/x", "not a directory"),
    ] {
        for tag in TAGS {
            let said = fails(&["cat", &reference(&store, tag), path]);
            assert!(said.contains(message), "{said}");
        }
    }

    // An archive depends on nothing but the tree.
    let mut archives = Vec::new();
    for tag in TAGS {
        let archive = scratch.path().join(tag).with_extension("tar");
        let image = reference(&store, tag);
        says(&["export", "--quiet", "-o", archive.to_str().unwrap(), &image]);
        archives.push(fs::read(&archive).unwrap());
    }
    assert!(archives[0].len() > 1500 << 14);
    assert!(archives.iter().all(|archive| *archive == archives[0]));

    let wanted = directory_inventory(&tree);
    for tag in TAGS {
        let target = scratch.path().join(format!("extracted-{tag}"));
        extract(&store, tag, &target);
        assert_same(&directory_inventory(&target), &wanted);
        assert_eq!(blocks(&target.join("zeros/full")), 0, "zeros stay holes");
    }
}

/// The number of blocks of 512 bytes that a file takes.
fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    path.metadata().unwrap().blocks()
}

#[test]
fn an_exported_image_has_the_same_layer() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    fs::write(tree.join("usr/bin/tool"), "tool").unwrap();
    build_all(&tree, &store);
    let layout = scratch.path().join("layout");
    let mut layers = BTreeMap::new();
    for tag in TAGS {
        let to = format!("{}:{tag}", layout.display());
        let image = reference(&store, tag);
        let report = says(&["export", "--quiet", "--json", "--oci", &to, &image]);
        let report: Value = serde_json::from_str(&report).unwrap();
        layers.insert(report["layer_digest"].to_string(), tag);
        let digest = report["manifest_digest"].as_str().unwrap();
        let manifest = layout.join("blobs").join(digest.replace(':', "/"));
        let manifest = fs::read_to_string(manifest).unwrap();
        assert!(!manifest.contains("io.puzzlefs.root"), "{manifest}");
    }
    assert_eq!(layers.len(), 1, "{layers:?}");
}

#[test]
fn a_damaged_chunk_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("damaged"), vec![b'd'; 300_000]).unwrap();
    fs::write(tree.join("whole"), vec![b'w'; 200_000]).unwrap();
    let options = ["--format=4", "--compress=0"];
    assert!(build_with(&options, &tree, &store, "t").status.success());
    let blobs = fs::read_dir(store.join("blobs/sha256")).unwrap();
    let mut changed = 0;
    for blob in blobs {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(64).position(|bytes| bytes == [b'd'; 64]) {
            bytes[at] = b'x';
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&path, bytes).unwrap();
            changed += 1;
        }
    }
    assert_eq!(changed, 1);
    let image = reference(&store, "t");
    let said = fails(&["cat", &image, "damaged"]);
    assert!(said.contains("SHA-256"), "{said}");
    assert_eq!(says(&["cat", &image, "whole"]).len(), 200_000);
    let target = scratch.path().join("target");
    let said = fails(&["extract", "--quiet", &image, target.to_str().unwrap()]);
    assert!(said.contains("SHA-256"), "{said}");
}

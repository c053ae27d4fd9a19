// SPDX-License-Identifier: MIT OR Apache-2.0

//! The same tree gives the same bytes.

use crate::common::*;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Options for each format. A fresh build does not reuse packs of the store.
const FORMATS: [&[&str]; 2] = [&["--format=3"], &["--format=4", "--fresh"]];

fn manifest(format: &[&str], tree: &Path, store: &Path, jobs: usize) -> String {
    let jobs = format!("--jobs={jobs}");
    let output = build_with(&[format, &[&jobs]].concat(), tree, store, "t");
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["manifest_digest"].as_str().unwrap().to_owned()
}

#[test]
fn neither_jobs_nor_directory_order_nor_stores_matter() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    make_tree(&path("one"), false);
    make_tree(&path("two"), true);
    for format in FORMATS {
        let path = |name: &str| path(&format!("{name}{}", format[0]));
        let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
        let wanted = manifest(format, &one, &path("store1"), 1);
        for jobs in [1, 2, 3, 16] {
            let store = path(&format!("store-{jobs}"));
            assert_eq!(manifest(format, &two, &store, jobs), wanted, "{jobs} jobs");
        }
        // Nor what the store holds already.
        assert_eq!(manifest(format, &two, &path("store1"), 2), wanted);
        let names = |store: &str| {
            let entries = fs::read_dir(path(store).join("blobs/sha256")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("store-1"), names("store-16"));
        let index = |store: &str| fs::read(path(store).join("index.json")).unwrap();
        assert_eq!(index("store-1"), index("store-16"));
    }
}

#[test]
#[ignore = "needs a tmpfs on /dev/shm"]
fn the_filesystem_does_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    // A tmpfs lists a directory in another order than other filesystems do.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    for tree in [scratch.path().join("tree"), memory.path().join("tree")] {
        fs::create_dir(&tree).unwrap();
        for number in 0..200 {
            let path = tree.join(format!("{}", number * 7919 % 1000));
            fs::write(&path, noise(3_000, number)).unwrap();
            set_mtime(&path, 1, 0);
        }
        set_mtime(&tree, 1, 0);
    }
    let store = scratch.path().join("store");
    for format in FORMATS {
        let wanted = manifest(format, &scratch.path().join("tree"), &store, 2);
        let found = manifest(format, &memory.path().join("tree"), &store, 2);
        assert_eq!(found, wanted, "{format:?}");
    }
}

#[test]
fn holes_and_zeros_are_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    make_sparse_and_full(&path("sparse"), &path("full"));
    for format in FORMATS {
        let wanted = manifest(format, &path("sparse"), &path("store"), 1);
        let found = manifest(format, &path("full"), &path("store"), 1);
        assert_eq!(found, wanted, "{format:?}");
    }
}

#[test]
fn a_small_change_brings_little_that_is_new() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_changing(&tree);
    build(&tree, &store, "t", 2);
    build_v3(&tree, &store, "t", 2);
    change_little(&tree);
    for report in [
        build(&tree, &store, "t", 2),
        build_v3(&tree, &store, "t", 2),
    ] {
        // At most the chunk at the start and the next, and the packs around one file.
        assert!(report["new_bytes"].as_u64().unwrap() < 1 << 20, "{report}");
    }
}

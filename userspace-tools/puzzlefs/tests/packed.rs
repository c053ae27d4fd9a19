// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of format 4, built by the program.

use crate::common::*;
use puzzlefs_lib::{Digest, Store};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds an image of format 4 with further options.
fn build_packed(options: &[&str], tree: &Path, store: &Path, tag: &str) -> Value {
    let options = [&["--format=4"], options].concat();
    let output = build_with(&options, tree, store, tag);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Reads the manifest of a tag.
fn manifest(store: &Path, tag: &str) -> Value {
    let digest = Store::open(store).unwrap().index().unwrap();
    let digest = digest.find(tag).unwrap().digest.replace(':', "/");
    serde_json::from_slice(&fs::read(store.join("blobs").join(digest)).unwrap()).unwrap()
}

#[test]
fn images_are_the_trees_that_they_were_built_from() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let wanted = directory_inventory(&tree);
    for (options, tag) in [(&[][..], "zstd"), (&["--compress=0"][..], "raw")] {
        let report = build_packed(options, &tree, &store, tag);
        assert_eq!(report["format"], 4);
        assert_same(&wanted, &image_inventory(&store, tag));
    }
}

#[test]
fn jobs_directory_order_and_stores_do_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    make_tree(&path("one"), false);
    make_tree(&path("two"), true);
    let wanted = build_packed(&["--jobs=1"], &path("one"), &path("store"), "t");
    for jobs in [1, 2, 3, 16] {
        let store = path(&format!("store-{jobs}"));
        let report = build_packed(&[&format!("--jobs={jobs}")], &path("two"), &store, "t");
        assert_eq!(
            report["manifest_digest"], wanted["manifest_digest"],
            "{jobs} jobs"
        );
    }
    // The same again brings nothing new.
    let again = build_packed(&[], &path("two"), &path("store"), "again");
    assert_eq!(again["manifest_digest"], wanted["manifest_digest"]);
    assert_eq!(
        (&again["new_chunks"], &again["new_blobs"]),
        (&0.into(), &0.into())
    );
    assert_eq!(again["shared_chunks"], wanted["new_chunks"]);

    // A store with a part of the tree has the same root in the end, and other packs unless the build is
    // fresh.
    build_packed(&[], &path("one/small"), &path("other"), "part");
    let shared = build_packed(&[], &path("one"), &path("other"), "t");
    assert_eq!(shared["rootfs_digest"], wanted["rootfs_digest"]);
    assert_ne!(shared["manifest_digest"], wanted["manifest_digest"]);
    let fresh = build_packed(&["--fresh"], &path("one"), &path("other"), "fresh");
    assert_eq!(fresh["manifest_digest"], wanted["manifest_digest"]);
    assert_eq!(fresh["shared_chunks"], 0);
    for tag in ["t", "fresh"] {
        assert_same(
            &image_inventory(&path("store"), "t"),
            &image_inventory(&path("other"), tag),
        );
    }
}

#[test]
fn holes_and_zeros_are_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    make_sparse_and_full(&path("sparse"), &path("full"));
    let wanted = build_packed(&[], &path("sparse"), &path("store"), "t");
    let full = build_packed(&[], &path("full"), &path("store"), "t");
    assert_eq!(full["manifest_digest"], wanted["manifest_digest"]);
    // Zeros are not stored.
    assert!(wanted["new_bytes"].as_u64().unwrap() < 600_000, "{wanted}");
    assert_same(
        &directory_inventory(&path("full")),
        &image_inventory(&path("store"), "t"),
    );
}

#[test]
fn a_small_change_brings_little_that_is_new() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_changing(&tree);
    build_packed(&[], &tree, &store, "t");
    change_little(&tree);
    let report = build_packed(&[], &tree, &store, "t");
    // At most the chunk at the start and the next, the bundles around one file, and a block.
    assert!(report["new_bytes"].as_u64().unwrap() < 1 << 20, "{report}");
    assert_eq!(report["new_blobs"], 1);
}

/// Other tools see an ordinary image: a configuration whose `diff_ids` are its layers.
#[test]
fn the_manifest_is_that_of_an_ordinary_image() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let report = build_packed(&["--cmd=/bin/sh"], &tree, &store, "t");
    let manifest = manifest(&store, "t");
    let root = &manifest["annotations"]["io.puzzlefs.root"];
    assert_eq!(*root, report["rootfs_digest"]);
    let layers = manifest["layers"].as_array().unwrap();
    let mut digests = Vec::new();
    for layer in layers {
        assert_eq!(
            layer["mediaType"],
            "application/vnd.oci.image.layer.puzzlefs.pack.v1"
        );
        let digest = layer["digest"].as_str().unwrap();
        let pack = fs::read(store.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(Digest::of(&pack).to_oci(), digest);
        assert_eq!(layer["size"], pack.len());
        digests.push(layer["digest"].clone());
    }
    let config = &manifest["config"];
    assert_eq!(
        config["mediaType"],
        "application/vnd.oci.image.config.v1+json"
    );
    let digest = config["digest"].as_str().unwrap().replace(':', "/");
    let config: Value =
        serde_json::from_slice(&fs::read(store.join("blobs").join(digest)).unwrap()).unwrap();
    assert_eq!(config["rootfs"]["type"], "layers");
    assert_eq!(config["rootfs"]["diff_ids"], Value::Array(digests));
    assert_eq!(config["config"]["Cmd"][0], "/bin/sh");
    check_store(&store);
}

#[test]
fn options_of_the_other_format_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    for (options, wanted) in [
        (&["--format=3", "--fresh"][..], "--fresh is for --format 4"),
        (&["--format=3", "--parent=t"], "--parent is for --format 4"),
        (
            &["-z", "--frame-size=4K"],
            "--frame-size is for --format 3; in format 4, each chunk is one frame",
        ),
        (
            &["--base=t"],
            "--base is for --format 3; images of format 4 have no layers",
        ),
        (&["--format=5"], "there are the versions 3 and 4"),
    ] {
        let output = build_with(options, &tree, &store, "t");
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    }
    assert!(!store.exists());
}

/// Interrupted at any point, a build leaves a store in which the images before it can be read.
#[test]
fn killed_builds_leave_stores_that_work() {
    let scratch = memory_scratch();
    let path = |name: &str| scratch.path().join(name);
    let tree = path("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..3 {
        fs::write(tree.join(format!("small{number}")), noise(9_000, number)).unwrap();
    }
    fs::write(tree.join("large"), noise(300_000, 99)).unwrap();
    build_packed(&[], &tree, &path("store"), "first");
    let first = directory_inventory(&tree);
    fs::write(tree.join("large"), noise(300_000, 100)).unwrap();
    let second = directory_inventory(&tree);
    let mut reached = Vec::new();
    for point in 1.. {
        let store = path(&format!("store{point}"));
        let mut copy = Command::new("cp");
        copy.arg("-r").args([path("store"), store.clone()]);
        assert!(copy.status().unwrap().success());
        let pause = Pause::nth("any", point);
        let mut command = puzzlefs();
        command.args(["build", "-q", "--format=4"]);
        command.arg(&tree).arg(reference(&store, "second"));
        let mut builder = pause.spawn(&mut command);
        let Some(paused) = pause.reached(&mut builder) else {
            assert!(finish(builder).status.success());
            break;
        };
        builder.kill().unwrap();
        reached.push(paused.point.clone());
        assert!(!finish(builder).status.success());
        drop(paused);
        assert_same(&first, &image_inventory(&store, "first"));
        // The next build completes the work.
        build_packed(&[], &tree, &store, "second");
        assert_same(&second, &image_inventory(&store, "second"));
        assert_eq!(leftovers(&store), [""; 0]);
        check_store(&store);
        fs::remove_dir_all(&store).unwrap();
    }
    for point in [
        "staging",
        "read",
        "synced",
        "named",
        "committed",
        "table",
        "catalogue",
        "catalogued",
        "locked",
        "replacing",
    ] {
        assert!(reached.iter().any(|at| at == point), "{point}: {reached:?}");
    }
}

/// Builders that run at once do not lose each other's chunks.
#[test]
fn builders_run_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let trees: Vec<PathBuf> = (0..4u64)
        .map(|number| {
            let tree = scratch.path().join(format!("tree{number}"));
            fs::create_dir(&tree).unwrap();
            fs::write(tree.join("same"), noise(5 << 20, 1)).unwrap();
            fs::write(tree.join("own"), noise(200_000, 10 + number)).unwrap();
            tree
        })
        .collect();
    std::thread::scope(|scope| {
        for (number, tree) in trees.iter().enumerate() {
            let store = &store;
            scope.spawn(move || build_packed(&[], tree, store, &format!("t{number}")));
        }
    });
    for (number, tree) in trees.iter().enumerate() {
        let tag = format!("t{number}");
        assert_same(&directory_inventory(tree), &image_inventory(&store, &tag));
    }
    check_store(&store);
}

/// A build onto a full disk fails, and leaves the images of the store.
#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_is_told_and_the_store_stays_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    let (first, second) = (scratch.path().join("first"), scratch.path().join("second"));
    for directory in [&disk, &first, &second] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(first.join("file"), noise(300_000, 1)).unwrap();
    fs::write(second.join("file"), noise(1_000_000, 2)).unwrap();
    with_mount("tmpfs", c"size=4M", &disk, || {
        let store = disk.join("store");
        build_packed(&[], &first, &store, "first");
        let wanted = directory_inventory(&first);
        let filler = disk.join("filler");
        let mut failures = 0;
        for pages in (0..).step_by(8) {
            let stat = rustix::fs::statvfs(&disk).unwrap();
            let free = (stat.f_bavail * stat.f_frsize) as usize;
            fs::write(&filler, vec![1; free - 4096 * pages.min(free / 4096)]).unwrap();
            let output = build_with(&["--format=4"], &second, &store, "second");
            fs::remove_file(&filler).unwrap();
            assert_eq!(leftovers(&store), [""; 0]);
            assert_same(&wanted, &image_inventory(&store, "first"));
            if output.status.success() {
                break;
            }
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("No space left on device"), "{said}");
            failures += 1;
        }
        assert!(failures > 20, "{failures}");
        assert_same(
            &directory_inventory(&second),
            &image_inventory(&store, "second"),
        );
    });
}

/// A converted image is the one that is built from the same tree.
#[test]
fn conversions_keep_the_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let three = build_v3(&tree, &store, "three", 2);
    let four = build_packed(&["--cmd=/bin/sh"], &tree, &store, "four");
    let convert = |arguments: &[&str]| -> Value {
        let said = says(&[&["convert", "--json"], arguments].concat());
        serde_json::from_str(&said).unwrap()
    };
    let (from, to) = (reference(&store, "three"), reference(&store, "converted"));
    let converted = convert(&[&from, &to, "--format=4"]);
    assert_eq!(converted["rootfs_digest"], four["rootfs_digest"]);
    assert_same(
        &directory_inventory(&tree),
        &image_inventory(&store, "converted"),
    );

    // In place, and back.
    let (from, to) = (reference(&store, "four"), reference(&store, "back"));
    let back = convert(&[&from, &to, "--format=3"]);
    assert_eq!(back["rootfs_digest"], three["rootfs_digest"]);
    assert!(manifest(&store, "back")["annotations"]["io.puzzlefs.root"].is_null());
    let again = convert(&[&to, "--format=4"]);
    assert_eq!(again["rootfs_digest"], four["rootfs_digest"]);
    // The configuration goes along.
    assert_eq!(again["manifest_digest"], four["manifest_digest"]);
    assert_eq!(
        manifest(&store, "back")["annotations"]["io.puzzlefs.root"],
        four["rootfs_digest"]
    );
    check_store(&store);
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs copy` brings an image to another store, whole or not at all.

use crate::common::*;
use puzzlefs_lib::Digest;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes a tree of one file, and a store with an image of it, `t`.
fn one_file(scratch: &Path) -> (PathBuf, PathBuf) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(200_000, 1)).unwrap();
    build_v3(&tree, &store, "t", 1);
    (tree, store)
}

fn copy(image: &str, target: &str) -> Value {
    serde_json::from_str(&says(&["copy", "--json", image, target])).unwrap()
}

#[test]
fn only_what_is_missing_is_copied() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, from, to) = (path("tree"), path("from"), path("to"));
    make_tree(&tree, false);
    let first = build_v3(&tree, &from, "first", 2);
    fs::write(tree.join("more"), noise(150_000, 700)).unwrap();
    build_v3(&tree, &from, "second", 2);

    let copied = copy(&reference(&from, "first"), to.to_str().unwrap());
    assert_eq!(copied["manifest_digest"], first["manifest_digest"]);
    assert_eq!(copied["shared_blobs"], 0);
    assert_eq!(copied["new_blobs"], check_store(&to));
    assert_same(
        &image_inventory(&from, "first"),
        &image_inventory(&to, "first"),
    );

    // Of the second, what is new is the file, the metadata and the manifest.
    let copied = copy(&reference(&from, "second"), &reference(&to, "other"));
    let new = copied["new_bytes"].as_u64().unwrap();
    let (store, image) = open_v3(&from, "second");
    let manifest = store.blob_size(&image.manifest_digest).unwrap().unwrap();
    assert_eq!(new, 150_000 + image.rootfs_size + manifest);
    assert_same(
        &image_inventory(&from, "second"),
        &image_inventory(&to, "other"),
    );
    assert_eq!(
        copy(&reference(&from, "second"), &reference(&to, "other"))["new_blobs"],
        0
    );
    says(&["verify", "-q", to.to_str().unwrap()]);
    assert_eq!(leftovers(&to), [""; 0]);

    // The shared blob of zeros takes no more space than it did.
    let zeros = Digest::of(&vec![0; 1 << 20]).to_hex();
    let zeros = fs::metadata(to.join("blobs/sha256").join(zeros)).unwrap();
    assert_eq!((zeros.len(), zeros.blocks()), (1 << 20, 0));

    let by_digest = format!(
        "{}@{}",
        from.display(),
        first["manifest_digest"].as_str().unwrap()
    );
    let refused = run(&["copy", &by_digest, to.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("give a tag for the copy"));
    copy(&by_digest, &reference(&to, "by-digest"));
}

#[test]
fn damage_does_not_travel() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, from, to) = (path("tree"), path("from"), path("to"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(200_000, 1)).unwrap();
    build_v3(&tree, &from, "t", 1);
    let (store, image) = open_v3(&from, "t");
    let data = Digest::from_oci(&image.data_blobs().next().unwrap().digest).unwrap();
    let blob = store.blob_path(&data);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    for (contents, wanted) in [
        (&bad[..], "the blob is damaged: its contents have sha256"),
        (&good[1..], "the blob is damaged: it has"),
    ] {
        fs::write(&blob, contents).unwrap();
        let said = fails(&["copy", &reference(&from, "t"), &reference(&to, "t")]);
        assert!(
            said.contains(&blob.display().to_string()) && said.contains(wanted),
            "{said}"
        );
        assert_eq!(
            puzzlefs_lib::Store::open(&to)
                .unwrap()
                .index()
                .unwrap()
                .tags(),
            [""; 0]
        );
        assert!(!to.join("blobs/sha256").join(data.to_hex()).exists());
        assert_eq!(leftovers(&to), [""; 0]);
    }
    fs::write(&blob, &good).unwrap();
    copy(&reference(&from, "t"), &reference(&to, "t"));
    check_store(&to);
}

/// A blob that is there, has the right size and is damaged all the same.
#[test]
fn what_is_damaged_in_the_target_is_replaced_if_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, from, to) = (path("tree"), path("from"), path("to"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(200_000, 1)).unwrap();
    build_v3(&tree, &from, "t", 1);
    copy(&reference(&from, "t"), &reference(&to, "t"));
    let (store, image) = open_v3(&to, "t");
    let digests = image.manifest.layers.iter().chain([&image.manifest.config]);
    let digests = digests.map(|blob| Digest::from_oci(&blob.digest).unwrap());
    let damage = |path: &std::path::Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let mut damaged = 0;
    for digest in digests.chain([image.manifest_digest]) {
        damage(&store.blob_path(&digest));
        damaged += 1;
    }
    let arguments = [
        "copy",
        "--json",
        &reference(&from, "t"),
        &reference(&to, "t"),
    ];
    let copied: Value = serde_json::from_str(&says(&arguments)).unwrap();
    assert_eq!(copied["new_blobs"], 0);
    let copied = says(&[&arguments[..], &["--check"]].concat());
    let copied: Value = serde_json::from_str(&copied).unwrap();
    assert_eq!(
        (&copied["new_blobs"], &copied["shared_blobs"]),
        (&damaged.into(), &0.into())
    );
    says(&["verify", "-q", to.to_str().unwrap()]);
    check_store(&to);

    // Where both are damaged, nothing is taken away.
    let data = Digest::from_oci(&image.data_blobs().next().unwrap().digest).unwrap();
    let blob = store.blob_path(&data);
    damage(&blob);
    damage(&open_v3(&from, "t").0.blob_path(&data));
    let said = fails(&[
        "copy",
        "--check",
        &reference(&from, "t"),
        &reference(&to, "t"),
    ]);
    assert!(said.contains("the blob is damaged here, too"), "{said}");
    assert!(blob.exists());
}

/// A build takes what the store has for what its name says, unless it is told to look.
#[test]
fn what_is_damaged_is_replaced_by_a_build_if_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = one_file(scratch.path());
    let (opened, image) = open_v3(&store, "t");
    for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
        let blob = opened.blob_path(&Digest::from_oci(&blob.digest).unwrap());
        let mut bytes = fs::read(&blob).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&blob, bytes).unwrap();
    }
    let verify = || run(&["verify", store.to_str().unwrap()]).status.success();
    assert_eq!(build_v3(&tree, &store, "t", 1)["new_blobs"], 0);
    assert!(!verify());
    let output = build_with(&["--format=3", "--check"], &tree, &store, "t");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["new_blobs"], image.data_blobs().count(), "{report}");
    assert!(verify());
}

/// Whoever reads what a copy says may be gone.
#[test]
fn a_copy_that_nobody_hears_of_is_one() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    build(&path("tree"), &path("from"), "t", 1);
    let mut gone = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let writer = gone.stdin.take().unwrap();
    finish(gone);
    let mut command = puzzlefs();
    let command = command.args(["copy", "--json", &reference(&path("from"), "t")]);
    let status = command.arg(path("to")).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    says(&["ls", &reference(&path("to"), "t")]);
}

/// What is read by the tools is what the digests say, or nothing.
#[test]
fn damage_is_neither_extracted_nor_shown() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (_, store) = one_file(scratch.path());
    let image = reference(&store, "t");
    assert_eq!(run(&["cat", &image, "file"]).stdout, noise(200_000, 1));
    let (opened, found) = open_v3(&store, "t");
    let last = found.data_blobs().last().unwrap();
    let blob = opened.blob_path(&Digest::from_oci(&last.digest).unwrap());
    let mut bytes = fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&blob, bytes).unwrap();
    for arguments in [
        &["cat", &image, "file"][..],
        &["extract", &image, path("target").to_str().unwrap()],
    ] {
        let said = fails(arguments);
        let wanted = format!("{}: the blob is damaged: ", blob.display());
        assert!(said.contains(&wanted), "{said}");
    }
}

/// All PuzzleFS images of a store, under their tags, at once or not at all.
#[test]
fn all_images_of_a_store_are_copied() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, from) = one_file(scratch.path());
    fs::write(tree.join("more"), noise(150_000, 2)).unwrap();
    build_v3(&tree, &from, "second", 1);
    says(&["tag", &reference(&from, "second"), "twin"]);
    // An image of another format stays where it is.
    let image = reference(&from, "t");
    says(&[
        "export",
        "-q",
        "--oci",
        &reference(&from, "ordinary"),
        &image,
    ]);
    let (from, to) = (from.to_str().unwrap().to_owned(), path("to"));
    build(&tree, &to, "own", 1);
    let output = run(&["copy", "--all", "--json", &from, to.to_str().unwrap()]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("left out 1 image of other formats: ordinary"),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tags: Vec<_> = report["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["tag"])
        .collect();
    assert_eq!(tags, ["second", "t", "twin"]);
    assert_eq!(report["left_out"], serde_json::json!(["ordinary"]));
    for tag in ["t", "second", "twin"] {
        assert_same(
            &image_inventory(Path::new(&from), tag),
            &image_inventory(&to, tag),
        );
    }
    let list = says(&["list", to.to_str().unwrap()]);
    assert!(
        list.contains("own ") && !list.contains("ordinary"),
        "{list}"
    );
    says(&["verify", "-q", to.to_str().unwrap()]);
    // A second time, there is nothing to do.
    let again: Value = serde_json::from_str(&says(&[
        "copy",
        "--all",
        "--json",
        &from,
        to.to_str().unwrap(),
    ]))
    .unwrap();
    assert_eq!(again["new_blobs"], 0);
    let refused = run(&["copy", "--all", &from, &reference(&to, "x")]);
    assert_eq!(refused.status.code(), Some(2));

    // A blob of one image is damaged: no tag is set.
    let (store, second) = open_v3(Path::new(&from), "second");
    let blob = Digest::from_oci(&second.data_blobs().last().unwrap().digest).unwrap();
    let size = store.blob_size(&blob).unwrap().unwrap();
    fs::write(store.blob_path(&blob), noise(size as usize, 9)).unwrap();
    let new = path("new");
    let said = fails(&["copy", "--all", &from, new.to_str().unwrap()]);
    assert!(said.contains("the blob is damaged"), "{said}");
    assert_eq!(says(&["list", new.to_str().unwrap()]), "");
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of one tree in both formats, which every command shows alike; and malformed ones of format 4.

use crate::common::*;
use puzzlefs_lib::oci::{self, Descriptor, Manifest};
use puzzlefs_lib::tree::ImageTree;
use puzzlefs_lib::{Digest, Selector, Store};
use puzzlefs_test_support::v4;
use puzzlefs_test_support::v4::image::{Content, Cut, ModelInode};
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

/// Puts an image of format 4 into a new store, in loose chunks.
fn put_chunks(path: &Path, inodes: &[ModelInode]) -> Store {
    let store = Store::create(path).unwrap();
    let image = v4::image::build(inodes, Cut::LARGE, |_, content| {
        *Digest::of(content).as_bytes()
    });
    for (_, content) in &image.chunks {
        put_blob(path, content);
    }
    let root = Digest::of(&image.root().1);
    let mut manifest = Manifest::new(Vec::new());
    manifest
        .annotations
        .insert("io.puzzlefs.root".to_owned(), root.to_hex());
    let text = manifest.to_json();
    let digest = put_blob(path, &text);
    let descriptor = Descriptor::new(oci::MANIFEST, digest, text.len() as u64);
    put_in_index(path, descriptor.annotated(oci::REF_NAME, "t"));
    store
}

fn directory(parent: usize, entries: &[(&str, usize)]) -> ModelInode {
    let entries = entries
        .iter()
        .map(|(name, inode)| (name.as_bytes().to_vec(), *inode));
    ModelInode {
        inode: v4::inode(v4::DIR),
        parent,
        xattrs: BTreeMap::new(),
        content: Content::Entries(entries.collect()),
    }
}

/// Goes through an image. Returns the number of its entries, and the error that ends it.
fn visit(store: &Store) -> (usize, Option<String>) {
    let root = store.any_root(&Selector::Tag("t".to_owned())).unwrap();
    let tree = ImageTree::new(store, &root).unwrap();
    let mut entries = 0;
    let visited = tree.visit(&tree.root().unwrap(), |_, _| {
        entries += 1;
        Ok(())
    });
    (entries, visited.err().map(|e| e.to_string()))
}

#[test]
fn a_directory_in_two_places_ends_a_walk() {
    let scratch = tempfile::tempdir().unwrap();
    let inodes = [
        directory(0, &[("a", 1)]),
        directory(0, &[("b", 0), ("c", 0)]),
    ];
    let (entries, error) = visit(&put_chunks(scratch.path(), &inodes));
    assert_eq!(entries, 2);
    let error = error.unwrap();
    assert!(error.contains("directory 1 is in two places"), "{error}");
    let image = reference(scratch.path(), "t");
    let target = scratch.path().join("target");
    for arguments in [
        vec!["ls", "-R", &image],
        vec!["extract", &image, target.to_str().unwrap()],
        vec!["export", "-o", "/dev/null", &image],
    ] {
        let said = fails(&arguments);
        assert!(said.contains("directory 1 is in two places"), "{said}");
    }
    // A path may lead through it.
    assert_eq!(says(&["ls", &image, "a/b/a/c"]), "a\n");
}

#[test]
fn the_depth_of_a_walk_is_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let chain = |len: usize| {
        let mut inodes: Vec<_> = (0..len)
            .map(|number| directory(number.saturating_sub(1), &[("d", number + 1)]))
            .collect();
        inodes.push(directory(len - 1, &[]));
        inodes
    };
    let store = put_chunks(&scratch.path().join("deep"), &chain(16_383));
    assert_eq!(visit(&store), (16_383, None));
    let store = put_chunks(&scratch.path().join("deeper"), &chain(17_000));
    let (entries, error) = visit(&store);
    assert_eq!(entries, 16_384);
    let error = error.unwrap();
    assert!(error.contains("more than 16384 levels"), "{error}");
}

#[test]
fn a_malformed_chunk_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let mut inodes = [directory(0, &[("a", 1)]), directory(0, &[])];
    inodes[1].inode.links = 0;
    let store = put_chunks(scratch.path(), &inodes);
    let root = store.any_root(&Selector::Tag("t".to_owned())).unwrap();
    let tree = ImageTree::new(&store, &root).unwrap();
    let error = tree.root().err().unwrap().to_string();
    assert!(
        error.contains("malformed metadata: inode 1: the link count is 0"),
        "{error}"
    );
    assert!(error.starts_with("cannot read chunk "), "{error}");
    let said = fails(&["ls", &reference(scratch.path(), "t")]);
    assert!(said.contains("the link count is 0"), "{said}");
}

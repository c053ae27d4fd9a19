// SPDX-License-Identifier: MIT OR Apache-2.0

//! The options that leave something out or change it on the way.

use crate::common::*;
use rustix::fs::XattrFlags;
use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

/// Builds a tree with these options and gives the inventory of the image.
fn built(scratch: &Path, options: &[&str]) -> Inventory {
    let store = scratch.join("store");
    let output = build_with(options, &scratch.join("tree"), &store, "t");
    assert!(output.status.success(), "{}", stderr(&output));
    check_store(&store);
    image_inventory(&store, "t")
}

fn paths(inventory: &Inventory) -> Vec<&str> {
    let paths = inventory.keys();
    paths.map(|path| path.to_str().unwrap()).collect()
}

fn file(inventory: &Inventory) -> &Seen {
    &inventory[&PathBuf::from("file")]
}

fn scratch() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("tree")).unwrap();
    fs::write(scratch.path().join("tree/file"), "contents").unwrap();
    scratch
}

#[test]
fn excluded_names_are_as_if_they_were_not_there() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    for directory in ["keep", "drop/deep", "keep/drop"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
        fs::write(tree.join(directory).join("a.o"), directory).unwrap();
        fs::write(tree.join(directory).join("a.c"), directory).unwrap();
    }
    fs::hard_link(tree.join("keep/a.o"), tree.join("keep/b.c")).unwrap();
    for from_root in ["/drop/", "./drop/"] {
        let options = ["--exclude", "*.o", "--exclude", from_root];
        let inventory = built(scratch.path(), &options);
        assert_eq!(
            paths(&inventory),
            [
                "",
                "file",
                "keep",
                "keep/a.c",
                "keep/b.c",
                "keep/drop",
                "keep/drop/a.c"
            ]
        );
        assert_eq!(inventory[&PathBuf::new()].nlink, 3);
        // A file of which one name is left out is there, by its other.
        assert_eq!(inventory[&PathBuf::from("keep/b.c")].nlink, 1);
    }

    let output = build_with(
        &["--exclude", "*.c", "--exclude", "a.*", "--exclude", "a.d"],
        &tree,
        &scratch.path().join("store"),
        "t",
    );
    let message = stderr(&output);
    assert!(
        message.contains("--exclude 'a.d': there is nothing"),
        "{message}"
    );
    assert_eq!(
        message.matches("nothing that matches").count(),
        1,
        "{message}"
    );
    let output = build_with(
        &["--exclude", "a["],
        &tree,
        &scratch.path().join("store"),
        "t",
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn owners() {
    let scratch = scratch();
    let inventory = built(scratch.path(), &["--owner", "0:4000000000"]);
    let owners = inventory.values().map(|seen| seen.owner);
    assert_eq!(owners.collect::<Vec<_>>(), [(0, 4_000_000_000); 2]);
}

#[test]
#[ignore = "needs root"]
fn owners_are_mapped() {
    needs_root();
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    lchown(&tree, Some(100_000), Some(100_000)).unwrap();
    lchown(tree.join("file"), Some(100_007), Some(5)).unwrap();
    let maps = ["--uid-map", "100000:0:65536", "--gid-map", "100000:0:65536"];
    let output = build_with(&maps, &tree, &scratch.path().join("store"), "t");
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message.contains("tree/file: no --gid-map has group 5"),
        "{message}"
    );
    let mut maps = maps.to_vec();
    maps.extend(["--gid-map", "5:5:1"]);
    let inventory = built(scratch.path(), &maps);
    assert_eq!(inventory[&PathBuf::new()].owner, (0, 0));
    assert_eq!(file(&inventory).owner, (7, 5));
}

#[test]
fn what_no_rule_can_be_is_wrong_usage() {
    let scratch = scratch();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    for (options, wanted) in [
        (
            &["--uid-map=0:100:10", "--uid-map=9:200:1"][..],
            "--uid-map: 9 is in two ranges",
        ),
        (&["--owner=4294967295:0"], "two numbers up to 4294967294"),
        (&["--xattrs="], "the pattern is empty"),
        (&["--exclude="], "the pattern is empty"),
        (&["--source-date-epoch="], "seconds since 1970"),
    ] {
        let output = build_with(options, &tree, &store, "t");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn times_are_clamped() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    fs::write(tree.join("older"), "").unwrap();
    set_mtime(&tree.join("older"), 999_999_999, 999_999_999);
    set_mtime(&tree.join("file"), 1_000_000_000, 1);
    set_mtime(&tree, 2_000_000_000, 0);
    let expected = |inventory: &Inventory| {
        assert_eq!(file(inventory).mtime, (1_000_000_000, 0));
        assert_eq!(inventory[&PathBuf::new()].mtime, (1_000_000_000, 0));
        let older = &inventory[&PathBuf::from("older")];
        assert_eq!(older.mtime, (999_999_999, 999_999_999));
    };
    expected(&built(
        scratch.path(),
        &["--source-date-epoch", "1000000000"],
    ));
    let build = |value: &str| {
        let output = puzzlefs()
            .env("SOURCE_DATE_EPOCH", value)
            .arg("build")
            .arg(&tree)
            .arg(reference(&scratch.path().join("store"), "e"))
            .output();
        output.unwrap().status.code()
    };
    assert_eq!(build("1000000000"), Some(0));
    expected(&image_inventory(&scratch.path().join("store"), "e"));
    assert_eq!(build("yesterday"), Some(2));
}

#[test]
#[ignore = "needs extended attributes"]
fn xattrs_are_selected() {
    let scratch = scratch();
    let path = scratch.path().join("tree/file");
    for name in ["user.one", "user.two"] {
        rustix::fs::setxattr(&path, name, b"1", XattrFlags::empty()).unwrap();
    }
    let names = |options: &[&str]| {
        let inventory = built(scratch.path(), options);
        let names = file(&inventory).xattrs.keys();
        let names = names.map(|name| String::from_utf8(name.clone()).unwrap());
        names
            .filter(|name| name.starts_with("user."))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["user.one", "user.two"]);
    assert!(names(&["--no-xattrs"]).is_empty());
    assert_eq!(names(&["--xattrs", "*.one"]), ["user.one"]);
    assert_eq!(names(&["--xattrs", "!user.one"]), ["user.two"]);
}

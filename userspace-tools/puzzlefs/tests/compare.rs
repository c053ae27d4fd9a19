// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `du` and `diff` say of images that share much.

use crate::common::*;
use puzzlefs_lib::oci::{self, Descriptor};
use serde_json::{json, Value};
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&says(arguments)).unwrap()
}

/// The sizes of the blobs in a store, added up.
fn stored(store: &Path) -> u64 {
    let blobs = fs::read_dir(store.join("blobs/sha256")).unwrap();
    blobs
        .map(|blob| blob.unwrap().metadata().unwrap().len())
        .sum()
}

#[test]
fn du_adds_up() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = (path("tree"), path("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("common"), noise(500_000, 1)).unwrap();
    fs::write(tree.join("own"), noise(100_000, 2)).unwrap();
    build_v3(&tree, &store, "a", 1);
    build_v3(&tree, &path("alone-a"), "t", 1);
    fs::write(tree.join("own"), noise(70_000, 3)).unwrap();
    build_v3(&tree, &store, "b", 1);
    build_v3(&tree, &path("alone-b"), "t", 1);
    says(&["tag", &reference(&store, "b"), "c"]);
    put_blob(&store, &noise(1234, 9));

    let usage = json_of(&["du", "--json", store.to_str().unwrap()]);
    assert_eq!(usage["bytes"], stored(&store));
    assert_eq!(usage["unreferenced_bytes"], 1234);
    assert_eq!(usage["unreferenced_blobs"], 1);
    let images = usage["images"].as_array().unwrap();
    assert_eq!(images[0]["tags"], json!(["a"]));
    assert_eq!(images[1]["tags"], json!(["b", "c"]));
    for (image, alone) in [(&images[0], "alone-a"), (&images[1], "alone-b")] {
        assert_eq!(image["bytes"], stored(&path(alone)), "{image}");
        let parts = ["unique_bytes", "shared_bytes"].map(|part| image[part].as_u64().unwrap());
        assert_eq!(parts.iter().sum::<u64>(), image["bytes"], "{image}");
        // The common file, and the configuration.
        assert_eq!(parts[1], 500_002, "{image}");
    }
    let said = says(&["du", store.to_str().unwrap()]);
    assert!(
        said.contains("  b, c\n") && said.contains("1.2 KiB in 1 blob, unreferenced"),
        "{said}"
    );

    // An image of another kind counts too; one that cannot be read is told.
    let layer = put_blob(&store, b"a layer");
    let config = put_blob(&store, b"a config");
    let manifest = json!({"schemaVersion": 2, "config": Descriptor::new("c", config, 8),
        "layers": [Descriptor::new("l", layer, 7)]});
    let manifest = put_blob(&store, manifest.to_string().as_bytes());
    let size = fs::metadata(store.join("blobs/sha256").join(manifest.to_hex()))
        .unwrap()
        .len();
    let manifest = Descriptor::new(oci::MANIFEST, manifest, size);
    put_in_index(&store, manifest.annotated(oci::REF_NAME, "other"));
    let usage = json_of(&["du", "--json", store.to_str().unwrap()]);
    assert_eq!(usage["unreferenced_bytes"], 1234);
    assert_eq!(usage["images"][2]["unique_bytes"], size + 15);
    let gone = puzzlefs_lib::Digest::of(b"gone");
    let nothing = Descriptor::new(oci::MANIFEST, gone, 4);
    put_in_index(&store, nothing);
    let said = fails(&["du", store.to_str().unwrap()]);
    let wanted = format!("blobs/sha256/{gone}: No such file");
    assert!(said.contains("cannot open the blob "), "{said}");
    assert!(said.contains(&wanted), "{said}");
}

/// Images of format 4 take their chunks, wherever these are.
#[test]
fn du_counts_chunks() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("common"), noise(500_000, 1)).unwrap();
    for (tag, size) in [("a", 100_000), ("b", 70_000)] {
        fs::write(tree.join("own"), noise(size, size as u64)).unwrap();
        let options = ["--format=4", "--compress=0"];
        let output = build_with(&options, &tree, &store, tag);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let of = |image: &Value, field: &str| image[field].as_u64().unwrap();
    let usage = json_of(&["du", "--json", store.to_str().unwrap()]);
    assert_eq!(usage["bytes"], stored(&store));
    assert_eq!(of(&usage, "unreferenced_bytes"), 0);
    assert_eq!(of(&usage, "dead_chunks"), 0);
    let images = usage["images"].as_array().unwrap();
    for (image, size) in images.iter().zip([100_000, 70_000]) {
        assert_eq!(of(image, "shared_bytes"), 500_000, "{image}");
        let unique = of(image, "unique_bytes");
        assert_eq!(of(image, "bytes"), unique + 500_000, "{image}");
        assert!((size..size + 5_000).contains(&unique), "{image}");
    }

    // The pack of the first image has chunks that the second one needs.
    says(&["untag", &reference(&store, "a")]);
    let usage = json_of(&["du", "--json", store.to_str().unwrap()]);
    let freed = of(&usage, "unreferenced_bytes") + of(&usage, "dead_chunk_bytes");
    assert_eq!(freed, of(&images[0], "unique_bytes"));
    assert!(of(&usage, "dead_chunk_bytes") > 100_000);
    let said = says(&["du", store.to_str().unwrap()]);
    assert!(said.contains(" chunks of packs, unreferenced\n"), "{said}");
}

#[test]
fn diff_names_what_differs() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    for directory in ["same", "goes/deep", "turns"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::write(tree.join("same/file"), noise(300_000, 1)).unwrap();
    fs::write(tree.join("goes/deep/file"), "x").unwrap();
    fs::write(tree.join("edited"), noise(1 << 20, 2)).unwrap();
    fs::write(tree.join("mode"), "m").unwrap();
    symlink("one", tree.join("link")).unwrap();
    fs::write(tree.join("name"), "n").unwrap();
    for name in ["name-kept", "name-parted"] {
        fs::hard_link(tree.join("name"), tree.join(name)).unwrap();
    }
    fs::write(tree.join("name-joined"), "n").unwrap();
    let time = |path: &str| set_mtime(&tree.join(path), 1_000_000, 0);
    let times = || {
        ["", "same", "same/file", "edited", "mode"]
            .into_iter()
            .for_each(time)
    };
    times();
    time("link");
    build_formats(&tree, &store, "old");

    let mut edited = noise(1 << 20, 2);
    edited[600_000] ^= 1;
    fs::write(tree.join("edited"), &edited).unwrap();
    fs::set_permissions(tree.join("mode"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    symlink("two", tree.join("link")).unwrap();
    fs::remove_dir_all(tree.join("goes")).unwrap();
    fs::remove_dir(tree.join("turns")).unwrap();
    fs::write(tree.join("turns"), "now a file").unwrap();
    fs::create_dir(tree.join("comes")).unwrap();
    fs::copy(tree.join("same/file"), tree.join("comes/copy")).unwrap();
    for name in ["name-parted", "name-joined"] {
        fs::remove_file(tree.join(name)).unwrap();
    }
    fs::write(tree.join("name-parted"), "n").unwrap();
    fs::hard_link(tree.join("name"), tree.join("name-joined")).unwrap();
    times();
    time("link");
    build_formats(&tree, &store, "new");

    for (old, new) in [("old-3", "new-3"), ("old-4", "new-4"), ("old-3", "new-4")] {
        let (old, new) = (reference(&store, old), reference(&store, new));
        let found = json_of(&["diff", "--json", &old, &new]);
        assert_eq!(
            changes(&found),
            [
                "added comes ",
                "added comes/copy ",
                "changed edited contents",
                "removed goes ",
                "removed goes/deep ",
                "removed goes/deep/file ",
                "changed link target",
                "changed mode mode",
                "changed name-joined links",
                "changed name-parted links",
                "changed turns type,mode",
            ]
        );
        assert_eq!(
            (&found["added"], &found["removed"], &found["changed"]),
            (&json!(2), &json!(3), &json!(6))
        );
        let same = says(&["diff", &old, &old]);
        assert!(
            same.starts_with("0 added, 0 removed, 0 changed; "),
            "{same}"
        );
        let text = says(&["diff", &old, &new]);
        assert!(text.contains("M link (target)\n"), "{text}");
    }
    for format in ["3", "4"] {
        let [old, new] = ["old", "new"].map(|tag| reference(&store, &format!("{tag}-{format}")));
        let found = json_of(&["diff", "--json", &old, &new]);
        let of = |path: &str, field: &str| {
            let mut changes = found["changes"].as_array().unwrap().iter();
            changes.find(|change| change["path"] == path).unwrap()[field]
                .as_u64()
                .unwrap()
        };
        // A copy of what was there is nothing new; of the edited file one chunk is.
        assert_eq!(of("comes/copy", "shared_bytes"), 300_000);
        assert_eq!(of("edited", "bytes"), 1 << 20);
        let new_bytes = of("edited", "bytes") - of("edited", "shared_bytes");
        assert!((1..=600_000).contains(&new_bytes), "{new_bytes}");
    }
}

/// Builds an image of each format.
fn build_formats(tree: &Path, store: &Path, tag: &str) {
    for format in ["3", "4"] {
        let options = ["--format", format, "--compress=0"];
        let output = build_with(&options, tree, store, &format!("{tag}-{format}"));
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

/// The changes, each with its attributes except the time.
fn changes(found: &Value) -> Vec<String> {
    let changes = found["changes"].as_array().unwrap().iter().map(|change| {
        let what = change["what"].as_array().into_iter().flatten();
        let what: Vec<_> = what
            .map(|word| word.as_str().unwrap())
            .filter(|word| *word != "mtime")
            .collect();
        let [path, change] = ["path", "change"].map(|field| change[field].as_str().unwrap());
        format!("{change} {path} {}", what.join(","))
    });
    changes.collect()
}

/// Images of format 4 with many blocks differ in the same paths as those of format 3.
#[test]
fn diff_finds_the_differences_between_many_blocks() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    let file = |directory: usize, file: usize| tree.join(format!("{directory}/sub/{file}"));
    // Files of one directory fill about a chunk, so that a change leaves most blocks as they are.
    for directory in 0..100 {
        fs::create_dir_all(tree.join(format!("{directory}/sub"))).unwrap();
        for number in 0..30 {
            let seed = (directory * 100 + number) as u64;
            fs::write(file(directory, number), noise(2000, seed)).unwrap();
        }
        // One inode has names in two directories.
        if directory == 33 {
            fs::hard_link(file(directory - 1, 7), file(directory, 70)).unwrap();
        }
    }
    build_formats(&tree, &store, "0");
    let edits: [&dyn Fn(); 5] = [
        &|| fs::write(file(60, 9), noise(2000, 1 << 20)).unwrap(),
        &|| fs::write(file(0, 100), "added").unwrap(),
        &|| fs::remove_dir_all(tree.join("99")).unwrap(),
        &|| fs::set_permissions(tree.join("7/sub"), PermissionsExt::from_mode(0o700)).unwrap(),
        &|| {
            fs::remove_file(file(33, 70)).unwrap();
            fs::write(file(33, 70), noise(2000, 3207)).unwrap();
        },
    ];
    for (number, edit) in (1..).zip(edits) {
        edit();
        build_formats(&tree, &store, &number.to_string());
        let of = |format: &str| {
            let images =
                [number - 1, number].map(|tag| reference(&store, &format!("{tag}-{format}")));
            json_of(&["diff", "--json", &images[0], &images[1]])
        };
        let (old, new) = (of("3"), of("4"));
        assert_eq!(changes(&old), changes(&new), "{number}");
        assert!(!changes(&new).is_empty(), "{number}");
    }
}

/// Compressed or cut otherwise, a tree is the same.
#[test]
fn diff_compares_contents_and_not_how_they_are_stored() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    build_twins(&[], &["-z", "--chunk-size=16K"], &tree, &store);
    let found = json_of(&[
        "diff",
        "--json",
        &reference(&store, "raw"),
        &reference(&store, "zstd"),
    ]);
    assert_eq!(found["changes"], json!([]));
    assert!(found["shared_chunks"].as_u64() < found["chunks"].as_u64());
}

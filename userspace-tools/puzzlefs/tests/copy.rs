// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs copy` brings an image to another store, whole or not at all.

mod common;

use common::*;
use puzzlefs_lib::Digest;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;

fn copy(image: &str, target: &str) -> Value {
    serde_json::from_str(&says(&["copy", "--json", image, target])).unwrap()
}

#[test]
fn only_what_is_missing_is_copied() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, from, to) = (path("tree"), path("from"), path("to"));
    make_tree(&tree, false);
    let first = build(&tree, &from, "first", 2);
    fs::write(tree.join("more"), noise(150_000, 700)).unwrap();
    build(&tree, &from, "second", 2);

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
    let (store, image) = open(&from, "second");
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
    build(&tree, &from, "t", 1);
    let (store, image) = open(&from, "t");
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

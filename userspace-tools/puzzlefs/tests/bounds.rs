// SPDX-License-Identifier: MIT OR Apache-2.0

//! Trees that are large in some way, built in memory that is not.

use crate::common::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Builds a tree with a limit of the address space, in kilobytes, as `ulimit -v` counts it. Returns the
/// bytes that the builder reads.
fn build_within(kilobytes: u64, format: &str, tree: &Path, store: &Path) -> u64 {
    let mut command = Command::new("sh");
    command
        .args(["-euc", r#"ulimit -v "$1"; shift; exec "$@""#, "sh"])
        // Otherwise the C library sets 64 MB of addresses aside for a thread that allocates while
        // another one does, which is by chance.
        .env("MALLOC_ARENA_MAX", "1")
        .arg(kilobytes.to_string())
        .arg(env!("CARGO_BIN_EXE_puzzlefs"))
        .args(["build", "-q", "--jobs=2", "--format", format])
        .arg(tree)
        .arg(reference(store, format));
    let (output, bytes) = output_and_bytes(&mut command);
    assert!(output.status.success(), "{}", stderr(&output));
    bytes.read
}

#[test]
fn a_hundred_gigabytes_of_hole() {
    const SIZE: u64 = 100 << 30;
    let scratch = memory_scratch();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    let file = File::create_new(tree.join("sparse")).unwrap();
    file.set_len(SIZE).unwrap();
    let data = noise(100_000, 1);
    for at in [0, SIZE / 2 + 4096, SIZE - data.len() as u64] {
        file.write_all_at(&data, at).unwrap();
    }
    let inspected = ["3", "4"].map(|format| {
        let read = build_within(300 << 10, format, &tree, &store);
        assert!(read < 8 << 20, "{read} bytes were read");
        let inspected = says(&["inspect", "--json", &reference(&store, format), "sparse"]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["size"], SIZE);
        inspected
    });
    let extents = |format: usize| inspected[format - 3]["extents"].as_array().unwrap();
    let zeros = puzzlefs_lib::Digest::of(&vec![0; 1 << 20]).to_hex();
    let file = File::open(tree.join("sparse")).unwrap();
    let (mut at, mut stored) = (0, 0);
    for extent in extents(3) {
        let number = |key: &str| extent[key].as_u64().unwrap();
        let blob = extent["blob"].as_str().unwrap();
        assert_eq!(number("offset"), at);
        let length = number("bytes");
        if blob != zeros {
            let mut bytes = [vec![0; length as usize], vec![0; length as usize]];
            file.read_exact_at(&mut bytes[0], at).unwrap();
            let blob = File::open(store.join("blobs/sha256").join(blob)).unwrap();
            blob.read_exact_at(&mut bytes[1], number("blob_offset"))
                .unwrap();
            assert!(bytes[0] == bytes[1], "at {at}");
            stored += length;
        }
        at += length;
    }
    assert_eq!(at, SIZE);
    // The three pieces of data, each widened to the grid that zeros are looked for on.
    assert!((300_000..600_000).contains(&stored), "{stored}");
    let (mut at, mut stored) = (0, 0);
    for extent in extents(4) {
        assert_eq!(extent["offset"], at);
        let length = extent["bytes"].as_u64().unwrap();
        if extent["hole"] != true {
            stored += length;
        }
        at += length;
    }
    assert_eq!(at, SIZE);
    assert!((300_000..600_000).contains(&stored), "{stored}");
}

#[test]
fn many_small_files() {
    const FILES: u64 = 20_000;
    let scratch = memory_scratch();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    let data = noise(FILES as usize + 3000, 1);
    for number in 0..FILES {
        let directory = tree.join((number / 1000).to_string());
        fs::create_dir_all(&directory).unwrap();
        let bytes = &data[number as usize..][..3000];
        fs::write(directory.join(number.to_string()), bytes).unwrap();
    }
    // 60 MB of data; and a kilobyte of metadata a file.
    for format in ["3", "4"] {
        build_within((70 << 10) + FILES, format, &tree, &store);
        let inspected = says(&["inspect", "--json", &reference(&store, format)]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["files"], FILES);
    }
    says(&["verify", store.to_str().unwrap()]);
}

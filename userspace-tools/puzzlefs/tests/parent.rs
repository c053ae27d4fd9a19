// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds that reuse the chunks of an earlier image give the image that they give without it.

use crate::common::*;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Text that zstd makes smaller.
fn text(size: usize, seed: u64) -> Vec<u8> {
    let digits = noise(size / 2 + 1, seed).into_iter();
    let mut text: Vec<u8> = digits
        .flat_map(|byte| format!("{byte:02x}").into_bytes())
        .collect();
    text.truncate(size);
    text
}

/// A tree and a store with an image of it, under the tag `t`.
struct Case {
    scratch: TempDir,
    /// The number of chunks of the first image.
    chunks: u64,
}

impl Case {
    fn new(options: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut case = Case { scratch, chunks: 0 };
        fs::create_dir_all(case.tree().join("directory")).unwrap();
        for number in 0..60 {
            let name = format!("directory/{number:02}");
            fs::write(case.tree().join(name), text(9_000, number)).unwrap();
        }
        fs::write(case.tree().join("large"), text(1 << 20, 100)).unwrap();
        // Chunks that zstd does not make smaller are raw.
        fs::write(case.tree().join("noise"), noise(1 << 19, 101)).unwrap();
        let report = case.build(options);
        assert_eq!(report["reused_chunks"], 0);
        case.chunks = number(&report, "new_chunks");
        assert!(case.chunks > 12, "{report}");
        case
    }

    fn tree(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn build(&self, options: &[&str]) -> Value {
        build_packed(options, &self.tree(), &self.store(), "t")
    }

    /// Builds with options, and asserts that the image is that of the tree.
    fn rebuild(&self, options: &[&str]) -> Value {
        let report = self.build(options);
        let level = options
            .iter()
            .filter(|option| option.starts_with("--compress"));
        let fresh: Vec<&str> = level.copied().chain(["--fresh"]).collect();
        let store = tempfile::tempdir_in(&self.scratch).unwrap();
        let fresh = build_packed(&fresh, &self.tree(), store.path(), "t");
        assert_eq!(report["rootfs_digest"], fresh["rootfs_digest"], "{report}");
        let target = store.path().join("extracted");
        says(&[
            "extract",
            "-q",
            &reference(&self.store(), "t"),
            target.to_str().unwrap(),
        ]);
        assert_same(
            &directory_inventory(&self.tree()),
            &directory_inventory(&target),
        );
        report
    }

    /// The blobs of the store, with their sizes.
    fn blobs(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(self.store().join("blobs/sha256")).unwrap();
        let entries = entries.map(|entry| entry.unwrap());
        entries
            .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
            .collect()
    }
}

fn build_packed(options: &[&str], tree: &Path, store: &Path, tag: &str) -> Value {
    let options = [&["--format=4"], options].concat();
    let output = build_with(&options, tree, store, tag);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_unchanged_tree_is_not_compressed_again() {
    let case = Case::new(&[]);
    for jobs in ["--jobs=1", "--jobs=3", "--jobs=16"] {
        let report = case.rebuild(&[jobs]);
        assert_eq!(number(&report, "reused_chunks"), case.chunks, "{report}");
        assert_eq!(number(&report, "new_chunks"), 0);
        assert_eq!(number(&report, "parent_faults"), 0);
        assert!(report.get("remarks").is_none(), "{report}");
    }
    for none in ["--parent=none", "--fresh"] {
        assert_eq!(case.rebuild(&[none])["reused_chunks"], 0);
    }
}

#[test]
fn changes_cost_the_chunks_around_them() {
    let case = Case::new(&[]);
    fs::write(case.tree().join("directory/30"), text(9_001, 1_000)).unwrap();
    let mut large = text(1 << 20, 100);
    large.splice(1_000..1_000, *b"an insertion");
    fs::write(case.tree().join("large"), large).unwrap();
    let report = case.rebuild(&[]);
    let reused = number(&report, "reused_chunks");
    // The bundle of the file and the next, the chunk with the insertion and the next.
    assert!(
        reused + 4 >= case.chunks && reused < case.chunks,
        "{report}"
    );
}

#[test]
fn a_file_that_moves_has_the_same_chunks() {
    let case = Case::new(&[]);
    let (from, to) = (
        case.tree().join("large"),
        case.tree().join("directory/moved"),
    );
    fs::rename(from, to).unwrap();
    let report = case.rebuild(&[]);
    assert!(number(&report, "reused_chunks") < case.chunks, "{report}");
    assert_eq!(number(&report, "new_chunks"), 0);
}

/// The parent has chunks of the same lengths at the same places, for files of the same size and time. So
/// only a comparison of contents finds the difference.
#[test]
fn a_forged_parent_changes_nothing() {
    let case = Case::new(&[]);
    let names = ["directory/07", "large", "noise"];
    let mut contents = Vec::new();
    for name in names {
        let path = case.tree().join(name);
        let mut content = fs::read(&path).unwrap();
        contents.push(content.clone());
        // Cuts do not depend on the first bytes of a chunk.
        content[10] ^= 1;
        fs::write(&path, content).unwrap();
        set_mtime(&path, 1_000_000, 0);
    }
    case.build(&["--fresh"]);
    for (name, content) in names.iter().zip(contents) {
        let path = case.tree().join(name);
        fs::write(&path, content).unwrap();
        set_mtime(&path, 1_000_000, 0);
    }
    let report = case.rebuild(&[]);
    // The times end other bundles than those of the first image.
    let chunks = number(&report, "new_chunks") + number(&report, "shared_chunks");
    assert_eq!(number(&report, "reused_chunks"), chunks - 3, "{report}");
}

#[test]
fn a_parent_of_another_compression_is_not_used() {
    let case = Case::new(&["--compress=9"]);
    let report = case.rebuild(&[]);
    assert_eq!(report["reused_chunks"], 0);
    let remark = report["remarks"][0].as_str().unwrap();
    assert!(
        remark.contains("level 9") && remark.contains("level 3"),
        "{remark}"
    );
    // Now the tag names an image of this compression.
    assert_eq!(number(&case.rebuild(&[]), "reused_chunks"), case.chunks);
    // Nothing is compressed in a raw image, before and after.
    let raw = case.rebuild(&["--compress=0"]);
    assert_eq!(raw["reused_chunks"], 0);
    assert!(raw.get("remarks").is_none(), "{raw}");
    assert!(case.rebuild(&[]).get("remarks").is_none());
}

#[test]
fn the_parent_can_be_another_image() {
    let case = Case::new(&[]);
    let tagged = build_packed(&["--parent=t"], &case.tree(), &case.store(), "other");
    assert_eq!(number(&tagged, "reused_chunks"), case.chunks);
    let digest = format!("--parent={}", tagged["manifest_digest"].as_str().unwrap());
    assert_eq!(
        number(&case.rebuild(&[&digest]), "reused_chunks"),
        case.chunks
    );
    let new_tag = build_packed(&[], &case.tree(), &case.store(), "another");
    assert_eq!(new_tag["reused_chunks"], 0);
    let missing = ["--format=4", "--parent=missing"];
    let output = build_with(&missing, &case.tree(), &case.store(), "t");
    assert!(!output.status.success());
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
}

/// The last chunk of each pack has other bytes.
#[test]
fn damaged_chunks_are_stored_again() {
    let case = Case::new(&[]);
    let mut damaged = 0;
    for (path, size) in case.blobs() {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut footer = [0; 16];
        if size < 16 || file.read_exact_at(&mut footer, size - 16).is_err() {
            continue;
        }
        if footer.starts_with(b"PZFSPACK") {
            let chunks = u32::from_le_bytes(footer[12..].try_into().unwrap());
            let end = size - 16 - 36 * u64::from(chunks);
            // The metadata is in the first pack, and data follows it.
            file.write_all_at(b"damage", end - (1 << 19) - 100_000)
                .unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let report = case.rebuild(&[]);
    assert_eq!(number(&report, "parent_faults"), 1, "{report}");
    assert_eq!(number(&report, "reused_chunks"), case.chunks - 1);
    assert_eq!(number(&report, "new_chunks"), 1);
    let remark = report["remarks"][0].as_str().unwrap();
    assert!(remark.contains("cannot be read"), "{remark}");
}

#[test]
fn a_parent_without_its_packs_is_not_used() {
    let case = Case::new(&[]);
    for (path, _) in case.blobs() {
        let bytes = fs::read(&path).unwrap();
        if !bytes.starts_with(b"{") {
            fs::remove_file(path).unwrap();
        }
    }
    let report = case.rebuild(&[]);
    assert_eq!(report["reused_chunks"], 0);
    assert!(
        report["remarks"][0].as_str().unwrap().contains("parent t"),
        "{report}"
    );
}

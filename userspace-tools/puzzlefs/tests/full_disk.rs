// SPDX-License-Identifier: MIT OR Apache-2.0

//! A filesystem that runs full under a builder.

mod common;

use common::*;
use std::fs;
use std::path::Path;

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_is_told_and_the_store_stays_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    with_mount("tmpfs", c"size=4M", &disk, || {
        fill_and_build(scratch.path(), &disk);
    });
}

fn fill_and_build(scratch: &Path, disk: &Path) {
    let (first, second) = (scratch.join("first"), scratch.join("second"));
    fs::create_dir(&first).unwrap();
    fs::write(first.join("file"), noise(300_000, 1)).unwrap();
    fs::create_dir(&second).unwrap();
    for number in 0..64 {
        let path = second.join(format!("small{number}"));
        fs::write(path, noise(8_000, 10 + number)).unwrap();
    }
    fs::write(second.join("large"), noise(1_000_000, 2)).unwrap();
    let store = disk.join("store");
    build(&first, &store, "first", 1);

    // Whether a build succeeds where so many pages are left; and that all is well if it does not.
    let filler = disk.join("filler");
    let builds = |pages: usize| {
        let stat = rustix::fs::statvfs(disk).unwrap();
        let free = (stat.f_bavail * stat.f_frsize) as usize;
        fs::write(&filler, vec![1; free - pages * 4096]).unwrap();
        let output = try_build(&second, &store, "second", 2);
        assert_eq!(leftovers(&store), [""; 0]);
        says(&["verify", store.to_str().unwrap()]);
        let success = output.status.success();
        if !success {
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("No space left on device"), "{said}");
            assert!(said.contains(disk.to_str().unwrap()), "{said}");
            assert!(said.contains("'puzzlefs gc' frees"), "{said}");
            fails(&["resolve", &reference(&store, "second")]);
        }
        fs::remove_file(&filler).unwrap();
        if success {
            says(&["untag", &reference(&store, "second")]);
        }
        says(&["gc", store.to_str().unwrap()]);
        success
    };
    // How much it needs.
    let (mut too_few, mut enough) = (0, 600);
    while enough - too_few > 1 {
        let pages = (too_few + enough) / 2;
        if builds(pages) {
            enough = pages
        } else {
            too_few = pages
        }
    }
    assert!(too_few > 350, "{too_few} pages are too few");
    // Where it is less by little, the last steps fail: the metadata, the manifest, the index.
    for pages in too_few - 16..too_few {
        assert!(!builds(pages), "{pages} pages, and {too_few} are too few");
    }
    assert_same(
        &directory_inventory(&first),
        &image_inventory(&store, "first"),
    );
}

/// What is extracted is no store's: nothing that `gc` could free.
#[test]
#[ignore = "needs root, to mount"]
fn an_extraction_onto_a_full_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    fs::create_dir(path("disk")).unwrap();
    fs::write(path("tree/file"), noise(2 << 20, 1)).unwrap();
    build(&path("tree"), &path("store"), "t", 1);
    with_mount("tmpfs", c"size=1M", &path("disk"), || {
        let target = path("disk/target");
        let image = reference(&path("store"), "t");
        let said = fails(&["extract", &image, target.to_str().unwrap()]);
        let wanted = format!(
            "cannot write {}: No space left on device (os error 28); make room and extract into \
             a new directory: the files extracted so far remain",
            target.join("file").display()
        );
        assert!(said.contains(&wanted), "{said}");
        assert!(target.join("file").exists());
    });
}

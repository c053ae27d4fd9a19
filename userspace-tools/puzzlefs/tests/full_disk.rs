// SPDX-License-Identifier: MIT OR Apache-2.0

//! A filesystem that runs full under a command.

use crate::common::*;
use puzzlefs_lib::Store;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// A store on a small disk, copied from elsewhere before each attempt of a command.
struct SmallDisk<'a> {
    disk: &'a Path,
    /// The directory whose files the disk has at first.
    pristine: &'a Path,
}

/// The space of an attempt that certainly suffices, in pages.
const PAGES_MAX: usize = 700;
/// The attempts in which the last steps of a command fail.
const LAST: usize = 8;

impl SmallDisk<'_> {
    fn store(&self) -> PathBuf {
        self.disk.join("store")
    }

    /// Makes the disk as it was, but for so many free pages.
    fn reset(&self, pages: usize) {
        for entry in fs::read_dir(self.disk).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.pristine).arg(self.store());
        assert!(copy.status().unwrap().success());
        let stat = rustix::fs::statvfs(self.disk).unwrap();
        let free = (stat.f_bavail * stat.f_frsize) as usize;
        fs::write(self.filler(), vec![1; free - pages * 4096]).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.disk.join("filler")
    }

    /// Runs a command with so many free pages. If it fails, it says so, the store has no fault, and the
    /// command succeeds once there is room. Returns true if it succeeds at once.
    fn attempt(&self, arguments: &[&str], pages: usize) -> bool {
        self.reset(pages);
        let store = self.store();
        let before = tags(&store);
        let output = run(arguments);
        let what = format!("{arguments:?} with {pages} pages");
        self.assert_whole(&what);
        let success = output.status.success();
        if !success {
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(said.contains("No space left on device"), "{what}: {said}");
            assert!(said.contains(self.disk.to_str().unwrap()), "{what}: {said}");
            assert!(said.contains("'puzzlefs gc' frees"), "{what}: {said}");
            assert_eq!(tags(&store), before, "{what}");
            fs::remove_file(self.filler()).unwrap();
            says(arguments);
            self.assert_whole(&what);
        }
        success
    }

    /// Asserts that the store has no fault, and nothing that is half-written.
    fn assert_whole(&self, what: &str) {
        let store = self.store();
        let rest: Vec<String> = leftovers(&store)
            .into_iter()
            .filter(|name| name != "recipes")
            .collect();
        assert_eq!(rest, [""; 0], "{what}");
        for directory in ["chunks", "recipes"] {
            let Ok(names) = fs::read_dir(store.join(".puzzlefs").join(directory)) else {
                continue;
            };
            for name in names {
                let name = name.unwrap().file_name().into_string().unwrap();
                assert!(!name.ends_with(".new"), "{what}: {name}");
            }
        }
        if let Ok(catalogue) = fs::read(store.join(".puzzlefs/chunks/catalogue")) {
            let tables = u32::from_le_bytes(catalogue[28..32].try_into().unwrap());
            let files = fs::read_dir(store.join(".puzzlefs/chunks"))
                .unwrap()
                .count();
            assert_eq!(files, tables as usize + 1, "{what}: files of the index");
            says(&["verify", store.to_str().unwrap()]);
        }
    }

    /// Runs a command with too little room for each of its last steps. It needs at least so many pages.
    fn fill(&self, arguments: &[&str], least: usize) {
        let (mut too_few, mut enough) = (0, PAGES_MAX);
        assert!(
            !self.attempt(arguments, too_few),
            "{arguments:?} needs no room"
        );
        while enough - too_few > 1 {
            let pages = (too_few + enough) / 2;
            if self.attempt(arguments, pages) {
                enough = pages;
            } else {
                too_few = pages;
            }
        }
        assert!(enough >= least, "{arguments:?} needs {enough} pages");
        for pages in enough.saturating_sub(LAST)..too_few {
            assert!(!self.attempt(arguments, pages), "{arguments:?}: {pages}");
        }
    }
}

fn tags(store: &Path) -> Vec<String> {
    Store::open(store).unwrap().index().unwrap().tags()
}

/// A tree with small and large files, some of them the version's own.
fn versioned(parent: &Path, version: u64) -> PathBuf {
    let tree = parent.join(format!("tree{version}"));
    fs::create_dir(&tree).unwrap();
    for file in 0..10 {
        fs::write(tree.join(file.to_string()), noise(20_000, file)).unwrap();
    }
    fs::write(tree.join("own"), noise(400_000, 1000 + version)).unwrap();
    tree
}

fn build_format(format: &str, tree: &Path, store: &Path, tag: &str) {
    let output = build_with(&[format, "--source-date-epoch=0"], tree, store, tag);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Does something with a store of two versions in format 4, and one in format 3, and a small disk.
fn on_a_small_disk(prepare: impl FnOnce(&Path), act: impl FnOnce(&SmallDisk, &Path) + Send) {
    let scratch = tempfile::tempdir().unwrap();
    let (disk, pristine) = (scratch.path().join("disk"), scratch.path().join("pristine"));
    fs::create_dir(&disk).unwrap();
    for (version, tag) in ["old", "kept"].into_iter().enumerate() {
        let tree = versioned(scratch.path(), version as u64);
        build_format("--format=4", &tree, &pristine, tag);
    }
    prepare(&pristine);
    with_mount("tmpfs", c"size=8M", &disk, || {
        let small = SmallDisk {
            disk: &disk,
            pristine: &pristine,
        };
        act(&small, scratch.path());
    });
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_a_collection() {
    let prepare = |store: &Path| {
        says(&["untag", &reference(store, "old")]);
    };
    on_a_small_disk(prepare, |small, _| {
        let store = small.store();
        // The 200 KB that the rest needs of the old version's pack are written before that is removed.
        small.fill(&["gc", "--max-dead=0", store.to_str().unwrap()], 40);
    });
}

/// A collection on a disk without any room frees it: what builders have left, and blobs of no image.
#[test]
#[ignore = "needs root, to mount"]
fn a_collection_needs_no_room_to_make_room() {
    let prepare = |store: &Path| {
        put_blob(store, &noise(500_000, 5));
        let stale = store.join(".puzzlefs/staging-killed");
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join("blob"), noise(500_000, 6)).unwrap();
        // A pack that the index need not list any more, which takes room to write.
        let tree = store.with_file_name("own");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), noise(300_000, 7)).unwrap();
        build_format("--format=4", &tree, store, "own");
        says(&["untag", &reference(store, "own")]);
        says(&["untag", &reference(store, "old")]);
    };
    on_a_small_disk(prepare, |small, _| {
        small.reset(0);
        let store = small.store();
        says(&["gc", "--max-dead=0", store.to_str().unwrap()]);
        small.assert_whole("gc on a full disk");
        assert_eq!(tags(&store), ["kept"]);
    });
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_a_repack() {
    on_a_small_disk(
        |_| (),
        |small, _| small.fill(&["repack", &reference(&small.store(), "kept")], 140),
    );
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_a_completion() {
    let prepare = |store: &Path| {
        says(&["untag", &reference(store, "old")]);
        says(&["gc", "--max-dead=0", store.to_str().unwrap()]);
    };
    on_a_small_disk(prepare, |small, _| {
        small.fill(
            &[
                "complete",
                "--new-manifest",
                &reference(&small.store(), "kept"),
            ],
            1,
        );
    });
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_a_copy() {
    on_a_small_disk(
        |_| (),
        |small, scratch| {
            let other = scratch.join("other");
            build_format("--format=4", &versioned(scratch, 2), &other, "t");
            let target = reference(&small.store(), "copied");
            small.fill(&["copy", "-q", &reference(&other, "t"), &target], 100);
        },
    );
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_a_conversion() {
    on_a_small_disk(
        |_| (),
        |small, scratch| {
            let other = scratch.join("other");
            build_format("--format=3", &versioned(scratch, 2), &other, "t");
            let (image, target) = (reference(&other, "t"), reference(&small.store(), "new"));
            small.fill(&["convert", "-q", "--format=4", &image, &target], 100);
            let image = reference(&small.store(), "kept");
            small.fill(&["convert", "-q", "--format=3", &image], 100);
        },
    );
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_an_import() {
    on_a_small_disk(
        |_| (),
        |small, scratch| {
            let (other, layout) = (scratch.join("other"), scratch.join("layout"));
            build_format("--format=4", &versioned(scratch, 2), &other, "t");
            let image = reference(&other, "t");
            let layout = reference(&layout, "t");
            says(&["export", "--oci", &layout, &image]);
            let target = reference(&small.store(), "imported");
            small.fill(&["import", "-q", "--format=4", &layout, &target], 100);
        },
    );
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_under_a_rebuild_of_the_index() {
    let prepare = |store: &Path| fs::remove_dir_all(store.join(".puzzlefs/chunks")).unwrap();
    on_a_small_disk(prepare, |small, _| {
        small.fill(&["reindex", "-q", small.store().to_str().unwrap()], 2);
    });
}

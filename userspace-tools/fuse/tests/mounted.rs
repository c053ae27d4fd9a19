// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mounts images over FUSE in this process, and compares the mounts with the trees.

use puzzlefs_fuse::Image;
use puzzlefs_lib::builder::{self, BuildOptions, Format};
use puzzlefs_lib::mount::{self, Options};
use puzzlefs_lib::oci::{self, Descriptor, Manifest};
use puzzlefs_lib::{Digest, Error, ImageRef, Progress, Result, Selector, Store};
use puzzlefs_test_support::{dir, image, inode, Mode};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A mount that a thread serves. Dropping it unmounts the image.
struct Served {
    directory: PathBuf,
    reported: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Served {
    fn new(store: &Path, tag: &str, directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        let image = Image::open(&reference(store, tag), directory, options("")).unwrap();
        let reported = Arc::new(Mutex::new(Vec::new()));
        let reports = Arc::clone(&reported);
        let mount = image.mount(move |error| reports.lock().unwrap().push(error.to_string()));
        let mount = mount.unwrap();
        Served {
            directory: directory.to_owned(),
            reported,
            thread: Some(thread::spawn(|| mount.serve())),
        }
    }

    /// Unmounts the image, and returns the errors that were reported.
    fn end(mut self) -> Vec<String> {
        mount::unmount(&self.directory, true).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
        self.reported.lock().unwrap().clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = mount::unmount(&self.directory, true);
        }
    }
}

fn reference(store: &Path, tag: &str) -> ImageRef {
    ImageRef {
        store: store.to_owned(),
        selector: Selector::Tag(tag.to_owned()),
    }
}

fn options(list: &str) -> Options {
    Options::parse(&[list.into()]).unwrap()
}

fn build(tree: &Path, store: &Path) {
    build_format(tree, store, Format::V3);
}

fn build_format(tree: &Path, store: &Path, format: Format) {
    let store = Store::create(store).unwrap();
    let mut options = BuildOptions::new("image");
    options.format = format;
    options.compression = None;
    builder::build(tree, &store, &options, &Progress::default()).unwrap();
}

/// Returns the type, permissions, size, links and content of each file of a tree, by its path.
fn files(root: &Path) -> BTreeMap<PathBuf, (u32, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                target.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().to_owned();
            let links = if metadata.is_dir() {
                0
            } else {
                metadata.nlink()
            };
            found.insert(name, (metadata.mode(), links, content));
        }
    }
    found
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_mount_is_the_tree() {
    check_mount(Format::V3);
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_mount_of_format_4_is_the_tree() {
    check_mount(Format::V4);
}

fn check_mount(format: Format) {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir_all(tree.join("a/b")).unwrap();
    let large: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(tree.join("a/large"), &large).unwrap();
    fs::write(tree.join("a/b/small"), "contents").unwrap();
    fs::write(tree.join("empty"), "").unwrap();
    fs::hard_link(tree.join("a/b/small"), tree.join("link")).unwrap();
    symlink("a/b/small", tree.join("symlink")).unwrap();
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o4711)).unwrap();
    for number in 0..500 {
        fs::write(tree.join(format!("a/b/{number}")), number.to_string()).unwrap();
    }
    build_format(&tree, &store, format);

    let mounted = Served::new(&store, "image", &scratch.path().join("mnt"));
    let wanted = files(&tree);
    assert_eq!(wanted.len(), 507);
    // Not by `assert_eq`, which would print megabytes.
    assert!(files(&mounted.directory) == wanted);
    let file = File::open(mounted.directory.join("a/large")).unwrap();
    for at in [3_999_999, 0, 1_234_567] {
        let mut part = vec![0; 100_000.min(large.len() - at)];
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert!(part == large[at..at + part.len()], "from {at}");
    }
    let missing = File::open(mounted.directory.join("a/none")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let new = File::create(mounted.directory.join("new")).unwrap_err();
    assert_eq!(new.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
    drop(file);
    assert_eq!(mounted.end(), [""; 0]);
}

/// Puts an image into a store that no builder would make.
fn put_image(store: &Path, metadata: &[u8]) {
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(store.join("blobs/sha256").join(digest.to_hex()), bytes).unwrap();
        Descriptor::new(media_type, digest, bytes.len() as u64)
    };
    put("", oci::EMPTY_CONTENT);
    let manifest = Manifest::new(vec![put(oci::ROOTFS, metadata)]);
    let manifest = put(oci::MANIFEST, &manifest.to_json()).annotated(oci::REF_NAME, "image");
    let mut index = Store::open(store).unwrap().index().unwrap();
    index.manifests = vec![manifest];
    let index = serde_json::to_vec(&index).unwrap();
    fs::write(store.join("index.json"), index).unwrap();
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_malformed_inode_is_euclean_and_costs_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    Store::create(&store).unwrap();
    let malformed = image(vec![
        dir(1, &[("empty", 2), ("link", 3), ("sub", 4)]),
        inode(2, Mode::File(vec![])),
        // It has no target.
        inode(3, Mode::Lnk),
        dir(4, &[("dangling", 9)]),
    ]);
    put_image(&store, malformed.build(None).as_slice());

    let mounted = Served::new(&store, "image", &scratch.path().join("mnt"));
    // Twice: the kernel has looked the names up in between, and asks for fewer attributes.
    for _ in 0..2 {
        let entries = fs::read_dir(&mounted.directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["empty", "link", "sub"]);
        assert_malformed(&mounted);
    }
    assert_eq!(fs::read(mounted.directory.join("empty")).unwrap(), b"");
    let reported = mounted.end();
    for wanted in ["inode 9", "inode 3: the symbolic link's target"] {
        let found = reported.iter().any(|report| report.contains(wanted));
        assert!(found, "{wanted}: {reported:?}");
    }
}

/// The two names of malformed inodes cannot be examined.
fn assert_malformed(mounted: &Served) {
    for name in ["link", "sub/dangling"] {
        let error = mounted.directory.join(name).symlink_metadata().unwrap_err();
        let euclean = Some(Errno::UCLEAN.raw_os_error());
        assert_eq!(error.raw_os_error(), euclean, "{name}: {error}");
    }
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_damaged_blob_is_eio() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), vec![1; 100_000]).unwrap();
    build(&tree, &store);
    let blob = Digest::of(&vec![1; 100_000]).to_hex();
    fs::remove_file(store.join("blobs/sha256").join(blob)).unwrap();
    let mounted = Served::new(&store, "image", &scratch.path().join("mnt"));
    let error = fs::read(mounted.directory.join("file")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert!(!mounted.end().is_empty());
}

#[test]
fn unusable_images_options_and_mount_points_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    build(&tree, &store);
    let open = |tag: &str, directory: &Path, list: &str| {
        let opened = Image::open(&reference(&store, tag), directory, options(list));
        opened.map(|_| ()).unwrap_err()
    };
    let missing = scratch.path().join("missing");
    for (tag, directory) in [("none", &tree), ("image", &missing)] {
        let error = open(tag, directory, "");
        assert!(!matches!(error, Error::Usage(_)), "{tag}: {error}");
    }
    for list in ["verify=digest", "share"] {
        let error = open("image", &tree, list);
        assert!(matches!(error, Error::Usage(_)), "{list}: {error}");
    }
    open("image", &tree, "digest=0");
    Image::open(&reference(&store, "image"), &tree, options("nodev")).unwrap();
}

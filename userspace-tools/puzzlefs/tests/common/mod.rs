// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the integration tests share: making trees, running the command, and comparing what is
//! in a directory with what is in an image.

#![allow(missing_docs)]

pub mod layout;
pub mod snapshot;
pub mod tar;
mod wait;

pub use wait::*;

use puzzlefs_lib::oci::{self, Descriptor, Manifest};
use puzzlefs_lib::tree::{find_any_image, AnyImage, FileData, ImageTree, TreeInode};
use puzzlefs_lib::{find_image, Digest, ImageRef, Selector, Store};
use puzzlefs_schema::image::Versions;
use puzzlefs_schema::{Kind, Order};
pub use puzzlefs_test_support::noise;
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags, CWD};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

/// A directory in memory where that can be: `syncfs` would wait for all that others write to a disk, and what
/// a killed program leaves is the same on either.
pub fn memory_scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_path_buf()
    } else {
        std::env::temp_dir()
    };
    tempfile::tempdir_in(parent).unwrap()
}

pub fn puzzlefs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_puzzlefs"))
}

/// Copies the program, for users without any right to its own directory.
///
/// A process of its own writes the copy. If a test wrote it, a program that another thread starts at
/// that time would inherit the open file, and the copy could not be executed until then (ETXTBSY).
pub fn copy_program(to: &Path) {
    let mut command = Command::new("cp");
    let copied = command.arg(env!("CARGO_BIN_EXE_puzzlefs")).arg(to).status();
    assert!(copied.unwrap().success());
}

/// Runs `puzzlefs build`, which must succeed, and gives what `--json` printed.
pub fn build(tree: &Path, store: &Path, tag: &str, jobs: usize) -> serde_json::Value {
    let output = try_build(tree, store, tag, jobs);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `puzzlefs build --format=3`, which must succeed, and gives what `--json` printed.
pub fn build_v3(tree: &Path, store: &Path, tag: &str, jobs: usize) -> serde_json::Value {
    let output = build_with(
        &["--format=3", "--jobs", &jobs.to_string()],
        tree,
        store,
        tag,
    );
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn try_build(tree: &Path, store: &Path, tag: &str, jobs: usize) -> Output {
    build_with(&["--jobs", &jobs.to_string()], tree, store, tag)
}

/// Runs `puzzlefs build` with these options.
pub fn build_with(options: &[&str], tree: &Path, store: &Path, tag: &str) -> Output {
    let mut command = puzzlefs();
    let command = command.args(["build", "--json"]).args(options);
    output(command.arg(tree).arg(reference(store, tag)))
}

pub fn reference(store: &Path, tag: &str) -> String {
    format!("{}:{tag}", store.display())
}

/// A number of a report of `--json`.
#[track_caller]
pub fn number(report: &serde_json::Value, field: &str) -> u64 {
    report[field].as_u64().unwrap()
}

/// Makes a tree of files that cannot be compressed: 40 small ones, and one of `large` bytes.
pub fn make_noise(tree: &Path, large: usize) {
    fs::create_dir_all(tree.join("more")).unwrap();
    for number in 0..40 {
        let name = format!("more/{number}");
        fs::write(tree.join(name), noise(30_000 + number, number as u64)).unwrap();
    }
    fs::write(tree.join("large"), noise(large, 1000)).unwrap();
}

/// Compares the image `t` of two stores. The second one is whole, and has nothing but images.
#[track_caller]
pub fn assert_arrived(from: &Path, to: &Path) {
    assert_same(&image_inventory(from, "t"), &image_inventory(to, "t"));
    says(&["verify", "-q", to.to_str().unwrap()]);
    assert_eq!(leftovers(to), [""; 0]);
}

/// Checks that a store is whole, and has no image `t`.
#[track_caller]
pub fn assert_not_arrived(store: &Path) {
    let store = store.to_str().unwrap();
    let listed = says(&["list", store]);
    assert!(!listed.contains(" t"), "{listed}");
    says(&["verify", "-q", store]);
}

/// Returns the message of a command, which must have failed with status 1.
#[track_caller]
pub fn failure(run: &Output) -> String {
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    stderr(run)
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails unless root runs the test: such a test is ignored unless it is asked for.
pub fn needs_root() {
    assert!(is_root(), "only root can run this test");
}

/// A tree with something of everything. The order in which its files are made can be turned
/// round: what the filesystem makes of that must not show in an image.
pub fn make_tree(root: &Path, backwards: bool) {
    fs::create_dir_all(root).unwrap();
    let mut steps: Vec<Box<dyn Fn()>> = Vec::new();
    let file = |name: &str, contents: Vec<u8>| {
        let path = root.join(name);
        Box::new(move || {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &contents).unwrap();
        })
    };
    for size in [
        0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 262_143, 262_144, 262_145,
    ] {
        steps.push(file(&format!("sizes/{size}"), noise(size, size as u64)));
    }
    steps.push(file("large", noise(3 << 20, 77)));
    steps.push(file("same/large", noise(3 << 20, 77)));
    for number in 0..300usize {
        let size = 1 + number * number % 9000;
        steps.push(file(
            &format!("small/{number}"),
            noise(size, number as u64 % 250),
        ));
    }
    steps.push(file("zeros/full", vec![0; 1_000_000]));
    let mut holes = noise(2 << 20, 5);
    holes[300_000..1_500_000].fill(0);
    steps.push(file("zeros/inside", holes));
    let mut ends = vec![0; 700_001];
    ends[350_000] = 1;
    steps.push(file("zeros/around", ends));
    steps.push(file("zeros/small", vec![0; 20_000]));
    let path = root.join("zeros/sparse");
    steps.push(Box::new(move || {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.write_all_at(b"in the middle", 20_000_001).unwrap();
        file.set_len(33_000_000).unwrap();
    }));
    let names: Vec<Vec<u8>> = vec![
        vec![b'x'; 255],
        (1..128).filter(|&byte| byte != b'/').collect(),
        (128..=255).collect(),
        b" ".to_vec(),
        b"-rf".to_vec(),
        b"...".to_vec(),
        b"new\nline".to_vec(),
    ];
    for name in names {
        let path = root.join("names").join(OsStr::from_bytes(&name));
        steps.push(Box::new(move || {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.file_name().unwrap().as_bytes()).unwrap();
        }));
    }
    let deep = (0..200).fold(root.join("deep"), |path, level| {
        path.join(format!("{level}"))
    });
    steps.push(Box::new(move || {
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("bottom"), "down here").unwrap();
    }));
    let path = root.to_path_buf();
    steps.push(Box::new(move || {
        let special = path.join("special");
        fs::create_dir_all(special.join("empty")).unwrap();
        std::os::unix::fs::symlink("../large", special.join("link")).unwrap();
        std::os::unix::fs::symlink("t".repeat(4095), special.join("long-link")).unwrap();
        let node = |name: &str, kind: FileType, device: u64| {
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(CWD, special.join(name), kind, mode, device).unwrap();
        };
        node("fifo", FileType::Fifo, 0);
        node("socket", FileType::Socket, 0);
        if is_root() {
            node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
            node(
                "high",
                FileType::BlockDevice,
                rustix::fs::makedev(4000, 1_000_000),
            );
        }
    }));
    if backwards {
        steps.reverse();
    }
    steps.iter().for_each(|step| step());

    fs::create_dir_all(root.join("links/sub")).unwrap();
    let first = root.join("sizes/4097");
    for number in 0..40 {
        let sub = if number % 2 == 0 {
            "links"
        } else {
            "links/sub"
        };
        fs::hard_link(&first, root.join(sub).join(format!("{number}"))).unwrap();
    }
    fs::hard_link(root.join("special/fifo"), root.join("links/fifo")).unwrap();

    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    if is_root() {
        std::os::unix::fs::lchown(root.join("sizes/1"), Some(1234), Some(4_000_000_000)).unwrap();
        std::os::unix::fs::lchown(root.join("special/link"), Some(99), Some(98)).unwrap();
    }
    mode("sizes/1", 0o6755);
    mode("sizes/4095", 0o000);
    mode("special/empty", 0o1777);
    mode("small", 0o2711);
    set_xattrs(root);
    set_times(root);
}

/// Sets attributes of each name space, as far as filesystem and privileges let.
fn set_xattrs(root: &Path) {
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(name), key, value, XattrFlags::empty()).is_ok()
    };
    set("large", "user.one", b"1");
    set("large", "user.empty", b"");
    set("large", "user.binary", &noise(1000, 3));
    set("small", "user.directory", b"yes");
    set("same/large", "trusted.t", b"trust");
    set("special/link", "trusted.of-link", b"link");
    set("sizes/65536", "security.other", b"s");
    // A POSIX ACL: user::rw-, user:77:r--, group::r--, mask::r--, other::---.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, 77),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    set("sizes/65537", "system.posix_acl_access", &acl);
}

/// Gives every name a time of its own that depends on its path alone.
fn set_times(path: &Path) {
    fn visit(path: &Path, relative: &Path) {
        let metadata = fs::symlink_metadata(path).unwrap();
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name();
                visit(&path.join(&name), &relative.join(&name));
            }
        }
        // All names of an inode give the same.
        let bytes = relative.as_os_str().as_bytes();
        let hash = match metadata.nlink() {
            1 => bytes.iter().fold(7i64, |hash, &byte| {
                (hash * 31 + i64::from(byte)) % 1_000_003
            }),
            _ if metadata.is_dir() => bytes.len() as i64,
            _ => 4711,
        };
        set_mtime(path, hash * 1999 - 100_000_000, hash * 997 % 1_000_000_000);
    }
    visit(path, Path::new(""));
}

/// What can be seen of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: String,
    pub permissions: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub nlink: u64,
    pub size: u64,
    /// The contents' digest, or the target.
    pub contents: String,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the inode.
    pub first_name: PathBuf,
}

pub type Inventory = BTreeMap<PathBuf, Seen>;

/// Takes the inventory of a directory, by the standard library.
pub fn directory_inventory(root: &Path) -> Inventory {
    let mut inventory = Inventory::new();
    let mut firsts = HashMap::new();
    let mut pending = vec![PathBuf::new()];
    let mut paths = Vec::new();
    while let Some(relative) = pending.pop() {
        let metadata = fs::symlink_metadata(root.join(&relative)).unwrap();
        if metadata.is_dir() {
            for entry in fs::read_dir(root.join(&relative)).unwrap() {
                pending.push(relative.join(entry.unwrap().file_name()));
            }
        }
        paths.push((relative, metadata));
    }
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    for (relative, metadata) in paths {
        let path = root.join(&relative);
        let kind = FileType::from_raw_mode(metadata.mode());
        let device = metadata.rdev();
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let mut contents = String::new();
        let mut size = 0;
        let kind = match kind {
            FileType::RegularFile => {
                let mut bytes = Vec::new();
                File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
                size = bytes.len() as u64;
                contents = Digest::of(&bytes).to_hex();
                "file".to_owned()
            }
            FileType::Directory => "directory".to_owned(),
            FileType::Symlink => {
                contents = format!("{:?}", fs::read_link(&path).unwrap());
                "symlink".to_owned()
            }
            FileType::CharacterDevice => format!("chr {device:?}"),
            FileType::BlockDevice => format!("blk {device:?}"),
            FileType::Fifo => "fifo".to_owned(),
            FileType::Socket => "socket".to_owned(),
            FileType::Unknown => panic!("{}", path.display()),
        };
        let first_name = firsts
            .entry((metadata.dev(), metadata.ino()))
            .or_insert_with(|| relative.clone())
            .clone();
        let seen = Seen {
            kind,
            permissions: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            nlink: metadata.nlink(),
            size,
            contents,
            xattrs: xattrs(&path),
            first_name,
        };
        inventory.insert(relative, seen);
    }
    inventory
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let Ok(size) = rustix::fs::llistxattr(path, &mut names) else {
        return BTreeMap::new();
    };
    let names = names[..size].split(|&byte| byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let size = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..size].to_vec())
        })
        .collect()
}

/// Opens an image of any format, by its tag.
pub fn open(store: &Path, tag: &str) -> (Store, AnyImage) {
    let reference = ImageRef::parse(OsStr::new(&reference(store, tag))).unwrap();
    find_any_image(&reference).unwrap()
}

/// Opens an image of format 3, by its tag.
pub fn open_v3(store: &Path, tag: &str) -> (Store, puzzlefs_lib::Image) {
    let reference = ImageRef::parse(OsStr::new(&reference(store, tag))).unwrap();
    find_image(&reference).unwrap()
}

/// Takes the inventory of an image of any format, by the reader that the kernel has.
pub fn image_inventory(store: &Path, tag: &str) -> Inventory {
    let store = Store::open(store).unwrap();
    let root = store.any_root(&Selector::Tag(tag.to_owned())).unwrap();
    let tree = ImageTree::new(&store, &root).unwrap();
    if let Some(reader) = tree.v3() {
        reader.metadata().check_order().unwrap();
    }
    let mut inodes = vec![(PathBuf::new(), tree.root().unwrap())];
    let root = tree.root().unwrap();
    tree.visit(&root, |path, link| {
        let inode = tree.open(&link.link)?;
        inodes.push((OsStr::from_bytes(path).into(), inode));
        Ok(())
    })
    .unwrap();
    inodes.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut inventory, mut firsts) = (Inventory::new(), HashMap::new());
    for (path, inode) in inodes {
        if let (Some(reader), Versions::V3(at)) = (tree.v3(), tree.link(&inode).place) {
            if tree.kind(&inode).unwrap() == Kind::Dir {
                let order = reader.metadata().dir_at(at).unwrap().order();
                assert_eq!(order, Ok(Order::Sorted), "{}", path.display());
            }
        }
        let ino = tree.ino(&inode);
        let first_name = firsts.entry(ino).or_insert_with(|| path.clone()).clone();
        inventory.insert(path, seen(&tree, &inode, first_name));
    }
    inventory
}

fn seen(tree: &ImageTree<'_>, inode: &TreeInode, first_name: PathBuf) -> Seen {
    let stat = tree.stat(inode).unwrap();
    let (mut contents, mut size) = (String::new(), 0);
    let kind = match stat.kind {
        Kind::File => {
            let mut bytes = Vec::new();
            let give = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok(())
            };
            let mut data = FileData::checked();
            tree.read_file(inode, &mut data, give).unwrap();
            size = stat.size;
            assert_eq!(size, bytes.len() as u64, "{}", first_name.display());
            contents = Digest::of(&bytes).to_hex();
            "file".to_owned()
        }
        Kind::Dir => "directory".to_owned(),
        Kind::Symlink => {
            let target = tree.symlink_target(inode).unwrap();
            contents = format!("{:?}", OsStr::from_bytes(target));
            "symlink".to_owned()
        }
        Kind::Chr { major, minor } => format!("chr {:?}", (major, minor)),
        Kind::Blk { major, minor } => format!("blk {:?}", (major, minor)),
        Kind::Fifo => "fifo".to_owned(),
        Kind::Sock => "socket".to_owned(),
        other => panic!("{}: {other:?}", first_name.display()),
    };
    Seen {
        kind,
        permissions: stat.permissions.into(),
        owner: (stat.uid, stat.gid),
        mtime: (stat.mtime.seconds, stat.mtime.nanoseconds.into()),
        nlink: stat.links.unwrap().into(),
        size,
        contents,
        xattrs: tree.xattrs(inode).unwrap().into_iter().collect(),
        first_name,
    }
}

/// Fails with the differences of two inventories.
pub fn assert_same(left: &Inventory, right: &Inventory) {
    let mut differences = Vec::new();
    for path in left.keys().chain(right.keys()) {
        if left.get(path) != right.get(path) {
            differences.push(format!(
                "{path:?}: {:?} != {:?}",
                left.get(path),
                right.get(path)
            ));
        }
    }
    differences.dedup();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Fails unless every blob of a store has the contents that its name says, the blobs of every
/// tag are there, and nothing unfinished lies about.
pub fn check_store(path: &Path) -> usize {
    let mut blobs = 0;
    for entry in fs::read_dir(path.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let name = entry.file_name();
        assert_eq!(
            Digest::of(&bytes).to_hex().as_str(),
            name,
            "{}",
            path.display()
        );
        blobs += 1;
    }
    let store = Store::open(path).unwrap();
    let index = store.index().unwrap();
    for tag in index.tags() {
        let digest = Digest::from_oci(&index.find(&tag).unwrap().digest).unwrap();
        let (manifest, _) = store.manifest(&digest).unwrap();
        for layer in manifest.layers.iter().chain([&manifest.config]) {
            let digest = Digest::from_oci(&layer.digest).unwrap();
            assert_eq!(
                store.blob_size(&digest).unwrap(),
                Some(layer.size),
                "{tag}: {digest}"
            );
        }
    }
    blobs
}

/// What lies in a store's directory for unfinished work.
pub fn leftovers(store: &Path) -> Vec<String> {
    let names = fs::read_dir(store.join(".puzzlefs")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| {
            !name.ends_with(".lock")
                && !["chunks", "fetches", "imports", "recipes"].contains(&&**name)
        })
        .collect()
}

/// Runs the command with these arguments.
pub fn run(arguments: &[&str]) -> Output {
    output(puzzlefs().args(arguments))
}

/// Runs a command that must succeed, and gives its standard output.
pub fn says(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail, and gives its message.
pub fn fails(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    stderr(&output)
}

/// Extracts an image.
pub fn extract(store: &Path, tag: &str, target: &Path) {
    let image = reference(store, tag);
    let output = output(puzzlefs().arg("extract").arg(image).arg(target));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Makes a tree with a file that compresses, and two images of it with these options: `raw` and, compressed
/// with further options, `zstd`.
pub fn build_twins(options: &[&str], zstd: &[&str], tree: &Path, store: &Path) {
    make_tree(tree, false);
    let text = "some words and some more. ".repeat(20_000);
    fs::write(tree.join("text"), text).unwrap();
    for (tag, more) in [("raw", &["--compress=0"][..]), ("zstd", zstd)] {
        let output = build_with(&[options, more].concat(), tree, store, tag);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

/// Puts a blob into a store, under its right name.
pub fn put_blob(store: &Path, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    fs::write(store.join("blobs/sha256").join(digest.to_hex()), bytes).unwrap();
    digest
}

/// Puts a descriptor into the index of a store, as other tools do.
pub fn put_in_index(store: &Path, descriptor: Descriptor) {
    let mut index = Store::open(store).unwrap().index().unwrap();
    index.manifests.push(descriptor);
    let index = serde_json::to_vec(&index).unwrap();
    fs::write(store.join("index.json"), index).unwrap();
}

/// Puts an image into a store, also one that no builder would make.
pub fn put_image(store: &Path, tag: &str, blobs: &[Digest], image: &puzzlefs_test_support::Image) {
    put_metadata(store, tag, blobs, image.build(None).as_slice());
}

/// Puts an image into a store, made of these bytes as its metadata.
pub fn put_metadata(store: &Path, tag: &str, blobs: &[Digest], bytes: &[u8]) {
    let descriptor = |media_type: &str, digest: Digest| {
        let path = store.join("blobs/sha256").join(digest.to_hex());
        Descriptor::new(media_type, digest, fs::metadata(path).unwrap().len())
    };
    let verity = puzzlefs_lib::verity::digest(bytes).to_hex();
    let metadata = descriptor(oci::ROOTFS, put_blob(store, bytes));
    let mut layers = vec![metadata.annotated(oci::VERITY_ROOT_HASH, verity)];
    layers.extend(blobs.iter().map(|blob| descriptor(oci::FILEDATA, *blob)));
    put_blob(store, oci::EMPTY_CONTENT);
    let manifest = put_blob(store, &Manifest::new(layers).to_json());
    let manifest = descriptor(oci::MANIFEST, manifest).annotated(oci::REF_NAME, tag);
    put_in_index(store, manifest);
}

/// Does something with a filesystem in memory mounted, for it and what it runs only. Root alone can.
#[allow(deprecated)] // What replaces it is unsafe for the sake of descriptors, which stay shared here.
pub fn with_mount(fs_type: &str, options: &CStr, target: &Path, act: impl FnOnce() + Send) {
    needs_root();
    let run = || {
        rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        rustix::mount::mount(fs_type, target, fs_type, MountFlags::empty(), options).unwrap();
        act();
    };
    // The thread's mounts end with it.
    thread::scope(|scope| scope.spawn(run).join()).unwrap();
}

/// Makes a tree of a sparse file, and one of the same file without holes.
pub fn make_sparse_and_full(sparse: &Path, full: &Path) {
    let size = 4_000_000;
    for tree in [sparse, full] {
        fs::create_dir(tree).unwrap();
        let name = tree.join("file");
        let file = File::create(&name).unwrap();
        if tree == full {
            file.write_all_at(&vec![0; size], 0).unwrap();
        }
        file.set_len(size as u64).unwrap();
        // Data that begins and ends off the grid.
        file.write_all_at(&noise(300_000, 1), 1_234_567).unwrap();
        file.write_all_at(&noise(100, 2), 3_900_000).unwrap();
        drop(file);
        set_mtime(&name, 1, 0);
        set_mtime(tree, 1, 0);
    }
}

/// Makes a tree of 500 small files and a large one.
pub fn make_changing(tree: &Path) {
    fs::create_dir(tree).unwrap();
    for number in 0..500 {
        fs::write(tree.join(format!("{number:03}")), noise(4_000, number)).unwrap();
    }
    fs::write(tree.join("large"), noise(8 << 20, 1_000)).unwrap();
}

/// Changes a small file of a tree of [`make_changing`], and inserts bytes into the large one.
pub fn change_little(tree: &Path) {
    fs::write(tree.join("250"), noise(4_100, 5_000)).unwrap();
    let mut large = noise(100, 5_001);
    large.extend(noise(8 << 20, 1_000));
    fs::write(tree.join("large"), large).unwrap();
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs mount` and `puzzlefs umount`, as far as a host without the kernel module can tell: over
//! FUSE, and what is said where something is amiss. Cases in a guest test the rest.

use crate::common::*;
use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount over FUSE, unmounted when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts an image.
    fn new(image: &str, directory: &Path, options: &[&str]) -> Self {
        needs_root();
        fs::create_dir_all(directory).unwrap();
        let mut arguments = vec!["mount", "--fuse"];
        arguments.extend(options);
        says(&[&arguments[..], &[image, directory.to_str().unwrap()]].concat());
        Mounted(directory.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", self.0.to_str().unwrap()]);
    }
}

/// Makes a store with an image of one file, `image`; gives it, and where to mount the image.
fn one_file(scratch: &Path) -> (PathBuf, PathBuf) {
    one_file_of("4", scratch)
}

/// Makes a store with an image of a format that has one file, and gives the mount point.
fn one_file_of(format: &str, scratch: &Path) -> (PathBuf, PathBuf) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(300_000, 1)).unwrap();
    let output = build_with(&["--format", format], &tree, &store, "image");
    assert!(output.status.success(), "{}", stderr(&output));
    (store, scratch.join("mnt"))
}

/// Unmounts what no test uses any more. A process that another test is about to start has a copy of
/// all open files until it is started, and the mount is busy for as long.
fn umount(directory: &Path) {
    wait_until("the mount is not busy", || {
        let output = run(&["umount", directory.to_str().unwrap()]);
        let said = stderr(&output);
        let done = output.status.success();
        assert!(done || said.contains("busy"), "{said}");
        done
    });
}

/// Everything that find, bsdtar and getfattr see of a tree, by lines.
fn seen_by_others(tree: &Path) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../qemu-test/inventory");
    let output = output(Command::new(script).arg(tree));
    assert!(output.status.success(), "{}", stderr(&output));
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    seen.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root, /dev/fuse, bsdtar and getfattr"]
fn over_fuse_an_image_is_its_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let whole = seen_by_others(&tree);
    build_v3(&tree, &store, "plain", 2);
    let compressed = build_with(&["--compress"], &tree, &store, "compressed");
    assert!(compressed.status.success(), "{}", stderr(&compressed));
    fs::remove_file(tree.join("small/7")).unwrap();
    fs::write(tree.join("small/8"), "another").unwrap();
    fs::remove_dir_all(tree.join("sizes")).unwrap();
    fs::create_dir(tree.join("sizes")).unwrap();
    let layers = build_with(&["--format=3", "--base", "plain"], &tree, &store, "layers");
    assert!(layers.status.success(), "{}", stderr(&layers));
    let changed = seen_by_others(&tree);
    assert_ne!(whole, changed);
    for (tag, source) in [
        ("plain", &whole),
        ("compressed", &whole),
        ("layers", &changed),
    ] {
        let mnt = scratch.path().join(tag);
        let mounted = Mounted::new(&reference(&store, tag), &mnt, &[]);
        assert_eq!(&seen_by_others(&mnt), source, "{tag}");
        // In another order, and not from the start.
        let path = mnt.join("large");
        let (file, wanted) = (File::open(&path).unwrap(), fs::read(&path).unwrap());
        for at in [3_000_000, 0, 1_234_567, 65_535, 2_999_999] {
            let mut found = vec![0; 100_000.min(wanted.len() - at)];
            file.read_exact_at(&mut found, at as u64).unwrap();
            assert!(found == wanted[at..at + found.len()], "{tag} from {at}");
        }
        let errno = |result: std::io::Result<File>| result.unwrap_err().raw_os_error();
        let erofs = Some(rustix::io::Errno::ROFS.raw_os_error());
        assert_eq!(errno(File::create(mnt.join("new"))), erofs);
        assert_eq!(errno(File::options().append(true).open(&path)), erofs);
        drop(file);
        umount(&mnt);
        assert!(fs::read_dir(&mnt).unwrap().next().is_none());
        drop(mounted);
    }
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn hard_links_and_missing_names() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("one"), "contents").unwrap();
    fs::hard_link(tree.join("one"), tree.join("sub/two")).unwrap();
    symlink("../one", tree.join("sub/link")).unwrap();
    build(&tree, &store, "image", 1);
    let mnt = scratch.path().join("mnt");
    let _mounted = Mounted::new(&reference(&store, "image"), &mnt, &["-o", "nosuid"]);
    let stat = |name: &str| fs::metadata(mnt.join(name)).unwrap();
    assert_eq!(stat("one").ino(), stat("sub/two").ino());
    assert_eq!(stat("one").nlink(), 2);
    assert_eq!(fs::read(mnt.join("sub/link")).unwrap(), b"contents");
    for _ in 0..2 {
        assert!(!mnt.join("sub/three").exists());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(mnt.to_str().unwrap()));
    let line = line.unwrap();
    assert!(line.contains(" fuse.puzzlefs ro,nosuid,"), "{line}");
    assert!(line.contains("store@sha256:"), "{line}");
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn what_is_mounted_over_fuse_is_kept_by_gc() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, mnt) = one_file(scratch.path());
    let mounted = Mounted::new(&reference(&store, "image"), &mnt, &[]);
    says(&["untag", &reference(&store, "image")]);
    let gc = || says(&["gc", "--json", store.to_str().unwrap()]);
    gc();
    assert!(fs::read(mnt.join("file")).unwrap() == noise(300_000, 1));
    drop(mounted);
    assert!(!gc().contains("\"removed_blobs\":0"));
}

/// Serves the image of [`one_file`], and waits until it is mounted.
fn in_the_foreground(store: &Path, mnt: &Path) -> Child {
    let mut server = puzzlefs()
        .args(["mount", "--fuse", "-f", &reference(store, "image")])
        .arg(mnt)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the image is mounted", || {
        assert!(server.try_wait().unwrap().is_none());
        mnt.join("file").exists()
    });
    server
}

/// Waits for a process to end, and gives its exit status and what it said.
fn end(child: Child) -> (Option<i32>, String) {
    let output = finish(child);
    (output.status.code(), stderr(&output))
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn in_the_foreground_a_signal_unmounts() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, mnt) = one_file_of("3", scratch.path());
    needs_root();
    fs::create_dir(&mnt).unwrap();
    let mut child = in_the_foreground(&store, &mnt);
    // A blob that is not there is an error for who reads it, and told.
    let blobs = fs::read_dir(store.join("blobs/sha256")).unwrap();
    let largest = blobs.map(|blob| blob.unwrap().path());
    let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len());
    let largest = largest.unwrap();
    fs::rename(&largest, scratch.path().join("away")).unwrap();
    let error = fs::read(mnt.join("file")).unwrap_err();
    let eio = rustix::io::Errno::IO.raw_os_error();
    assert_eq!(error.raw_os_error(), Some(eio));
    fs::rename(scratch.path().join("away"), &largest).unwrap();
    assert!(fs::read(mnt.join("file")).unwrap() == noise(300_000, 1));

    let id = rustix::process::Pid::from_child(&child);
    // Once is enough, if it is not busy; see `umount`.
    wait_until("the server unmounts and ends", || {
        let ended = child.try_wait().unwrap().is_some();
        ended || rustix::process::kill_process(id, rustix::process::Signal::INT).is_err()
    });
    let (code, said) = end(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(largest.to_str().unwrap()), "{said}");
    assert!(!mnt.join("file").exists());
}

/// A server that notices late that it has been unmounted.
#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_server_leaves_a_newer_mount_alone() {
    use rustix::process::{kill_process, Pid, Signal};
    let scratch = tempfile::tempdir().unwrap();
    let (store, mnt) = one_file(scratch.path());
    needs_root();
    fs::create_dir(&mnt).unwrap();
    let first = in_the_foreground(&store, &mnt);
    let id = Pid::from_child(&first);
    kill_process(id, Signal::STOP).unwrap();
    umount(&mnt);
    let _second = Mounted::new(&reference(&store, "image"), &mnt, &[]);
    kill_process(id, Signal::CONT).unwrap();
    let (code, said) = end(first);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(mnt.join("file")).unwrap() == noise(300_000, 1));
}

#[test]
fn what_cannot_be_mounted_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    build(&tree, &store, "image", 1);
    let image = reference(&store, "image");
    let mnt = scratch.path().join("mnt");
    let no_such = scratch.path().join("none");
    let (mnt, no_such) = (mnt.to_str().unwrap(), no_such.to_str().unwrap());
    fs::create_dir(mnt).unwrap();
    let zeros = "0".repeat(64);
    let other = reference(&store, "other");
    let digest = format!("digest={zeros}");
    for (arguments, code, wanted) in [
        (&["--fuse", &image, no_such][..], 1, "No such file"),
        (&["--fuse", &other, mnt], 1, "no image is tagged 'other'"),
        (&["--fuse", "nothing", mnt], 2, "<oci-dir>:<tag>"),
        (&["--fuse", &image, mnt, "-o", &digest], 1, "not the image"),
        (&["--fuse", &image, mnt, "-o", "some=1"], 2, "'some'"),
        (
            &["--fuse", &image, mnt, "--verify=digest"],
            2,
            "verify=fsverity",
        ),
        (&[&image, mnt, "-o", "remount"], 2, "mount(8)"),
        (&[&image, mnt, "-o", "rootfs=1"], 2, "not by options"),
        (&["-f", &image, mnt], 2, "--fuse"),
        (&[&image, no_such], 1, "mount point"),
        (&[&image, no_such, "--writable"], 1, "mount point"),
    ] {
        let output = run(&[&["mount"], arguments].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    assert!(!fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .contains(mnt));
}

#[test]
#[ignore = "needs root"]
fn without_the_module_fuse_is_recommended() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let (store, mnt) = one_file(scratch.path());
    fs::create_dir(&mnt).unwrap();
    let (image, mnt) = (reference(&store, "image"), mnt.to_str().unwrap());
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    if known.contains("puzzlefs") {
        says(&["mount", &image, mnt]);
        assert!(fs::read(Path::new(mnt).join("file")).unwrap() == noise(300_000, 1));
        return umount(Path::new(mnt));
    }
    for more in [&[][..], &["--writable"]] {
        let said = fails(&[&["mount", &image, mnt], more].concat());
        let wanted = "does not know file system type 'puzzlefs'";
        assert!(said.contains(wanted), "{said}");
        assert!(said.contains("'puzzlefs mount --fuse'"), "{said}");
    }
    // Nothing stays behind; other mount points' may be there.
    let digest = puzzlefs_lib::Digest::of(mnt.as_bytes()).to_hex();
    let mut left = fs::read_dir("/run/puzzlefs").unwrap();
    assert!(!left.any(|entry| digest.starts_with(entry.unwrap().file_name().to_str().unwrap())));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(mnt));
}

/// Where it never is: each read would fail.
#[test]
#[ignore = "needs a tmpfs on /dev/shm"]
fn what_fs_verity_does_not_check_is_not_mounted_by_it() {
    // A tmpfs never has fs-verity.
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let (store, mnt) = one_file_of("3", scratch.path());
    fs::create_dir(&mnt).unwrap();
    let (image, mnt) = (reference(&store, "image"), mnt.to_str().unwrap());
    let said = fails(&["mount", "--fuse", "--verify=fsverity", &image, mnt]);
    let wanted = "fs-verity is not enabled on it; 'puzzlefs enable-verity' does that";
    assert!(said.contains(wanted), "{said}");
    assert!(!fs::read_to_string("/proc/self/mounts")
        .unwrap()
        .contains(mnt));
}

#[test]
fn what_is_not_ours_stays_mounted() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().to_str().unwrap();
    let output = run(&["umount", path]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("nothing is mounted there"),
        "{output:?}"
    );
    let said = fails(&["umount", "/proc"]);
    assert!(
        said.contains("a mount of type proc, and none of PuzzleFS"),
        "{said}"
    );
    let said = fails(&["umount", "/no/such"]);
    assert!(said.contains("/no/such"), "{said}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images that hold overlayfs' own markers, as the storage of a container engine does, under the
//! overlays of writable mounts. A case in a guest does the same by the kernel module.

use crate::common::*;
use rustix::fs::{makedev, mknodat, FileType, Mode, XattrFlags, CWD};
use std::fs;
use std::path::{Path, PathBuf};

/// A mount, unmounted when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(options: &[&str], image: &str, directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let first = ["mount", "--fuse"];
        says(&[&first[..], options, &[image, directory.to_str().unwrap()]].concat());
        Mounted(directory.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", self.0.to_str().unwrap()]);
    }
}

/// Makes a tree with every attribute of overlayfs that there is.
fn storage(tree: &Path) {
    fs::create_dir_all(tree.join("store/dir")).unwrap();
    for name in ["kept", "meta", "white", "store/dir/file"] {
        fs::write(tree.join(name), "").unwrap();
    }
    fs::write(tree.join("store/dir/file"), "contents").unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        rustix::fs::setxattr(tree.join(name), attribute, value, XattrFlags::empty()).unwrap();
    };
    set("kept", "user.overlay.opaque", b"y");
    set("kept", "user.overlay.overlay.opaque", b"y");
    set("kept", "trusted.other", b"1");
    set("meta", "trusted.overlay.metacopy", b"");
    set("meta", "trusted.overlay.redirect", b"/kept");
    set("white", "trusted.overlay.whiteout", b"");
    set("white", "trusted.overlay.overlay.whiteout", b"2");
    set("store/dir", "trusted.overlay.opaque", b"y");
    set("store", "trusted.overlay.opaque", b"x");
    set("", "trusted.overlay.origin", b"root");
    set("store/dir/file", "trusted.overlay.nlink", b"U+1");
}

#[test]
#[ignore = "needs root"]
fn a_writable_mount_shows_the_markers_of_an_image() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    needs_root();
    storage(&path("tree"));
    build(&path("tree"), &path("store"), "t", 1);
    let image = reference(&path("store"), "t");
    let wanted = image_inventory(&path("store"), "t");
    let upper = format!("--writable={}", path("upper").display());
    fs::create_dir(path("upper")).unwrap();
    for options in [&["--writable"][..], &[&upper], &[&upper]] {
        let mounted = Mounted::new(options, &image, &path("mnt"));
        let mut found = directory_inventory(&path("mnt"));
        // An overlay counts the links of directories in its own way.
        for (path, seen) in &mut found {
            if seen.kind == "directory" {
                seen.nlink = wanted[path].nlink;
            }
        }
        assert_same(&found, &wanted);
        drop(mounted);
    }
    // A change keeps them.
    let mounted = Mounted::new(&["--writable"], &image, &path("mnt"));
    fs::write(path("mnt/meta"), "more").unwrap();
    fs::write(path("mnt/store/dir/new"), "more").unwrap();
    let found = directory_inventory(&path("mnt"));
    for name in ["meta", "store/dir", "store", "white"] {
        let name = Path::new(name);
        assert_eq!(
            found[name].xattrs,
            wanted[name].xattrs,
            "{}",
            name.display()
        );
    }
    drop(mounted);
    // Without an overlay, they are as the image has them, too.
    let mounted = Mounted::new(&[], &image, &path("mnt"));
    assert_same(&directory_inventory(&path("mnt")), &wanted);
    drop(mounted);
}

#[test]
#[ignore = "needs root"]
fn no_overlay_is_made_that_would_hide_something() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    needs_root();
    fs::create_dir_all(path("tree/a/b")).unwrap();
    fs::create_dir_all(path("mnt")).unwrap();
    fs::write(path("tree/a/file"), "contents").unwrap();
    let device = |name: &str, kind: FileType, major: u32, minor: u32| {
        let mode = Mode::from_raw_mode(0o600);
        mknodat(
            CWD,
            path("tree").join(name),
            kind,
            mode,
            makedev(major, minor),
        )
        .unwrap();
    };
    device("a/null", FileType::CharacterDevice, 1, 3);
    device("a/zero-minor", FileType::CharacterDevice, 1, 0);
    device("a/zero-major", FileType::CharacterDevice, 0, 3);
    device("a/block", FileType::BlockDevice, 0, 0);
    build(&path("tree"), &path("store"), "harmless", 1);
    device("a/b/deleted", FileType::CharacterDevice, 0, 0);
    device("a/b/gone", FileType::CharacterDevice, 0, 0);
    build_v3(&path("tree"), &path("store"), "devices", 1);
    fs::remove_file(path("tree/a/b/deleted")).unwrap();
    fs::remove_file(path("tree/a/b/gone")).unwrap();
    let options = ["--format=3", "--base=devices"];
    let layer = build_with(&options, &path("tree"), &path("store"), "hidden");
    assert!(layer.status.success(), "{}", stderr(&layer));
    let mnt = path("mnt");
    let mount = |tag: &str| {
        let image = reference(&path("store"), tag);
        run(&[
            "mount",
            "--fuse",
            "--writable",
            &image,
            mnt.to_str().unwrap(),
        ])
    };
    for tag in ["harmless", "hidden"] {
        let output = mount(tag);
        assert!(output.status.success(), "{tag}: {}", stderr(&output));
        let _mounted = Mounted(mnt.clone());
        assert_eq!(fs::read(mnt.join("a/file")).unwrap(), b"contents");
        assert!(mnt.join("a/zero-major").symlink_metadata().is_ok());
    }
    let output = mount("devices");
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let wanted = "overlayfs hides a character device 0:0: /a/b/deleted; mount it read-only";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(
        fs::read_dir(&mnt).unwrap().count(),
        0,
        "something is mounted"
    );
    // Read-only, it is there.
    let image = reference(&path("store"), "devices");
    let _mounted = Mounted::new(&[], &image, &mnt);
    assert!(mnt.join("a/b/deleted").symlink_metadata().is_ok());
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is built is what was there: read back through `puzzlefs-schema` and compared.

use crate::common::*;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::reader::ImageReader;
use puzzlefs_lib::tree::{FileData, ImageTree};
use puzzlefs_lib::{oci, verity, Digest};
use rustix::fs::{Mode, OFlags, SeekFrom, XattrFlags};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

#[test]
fn a_tree_is_read_back_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let report = build(&tree, &store, "t", 2);
    let source = directory_inventory(&tree);
    assert_same(&source, &image_inventory(&store, "t"));
    check_store(&store);
    assert_eq!(leftovers(&store), [""; 0]);

    let inodes: std::collections::HashSet<_> =
        source.values().map(|seen| &seen.first_name).collect();
    assert_eq!(report["entries"], source.len() - 1);
    assert_eq!(report["inodes"], inodes.len());

    // And out again: as root everything is restored.
    let target = scratch.path().join("target");
    extract(&store, "t", &target);
    assert_same(&source, &directory_inventory(&target));
}

/// What the tree of all tests leaves out without these, every test passes over in silence.
#[test]
#[ignore = "needs root and extended attributes"]
fn the_tree_of_all_tests_has_devices_owners_and_attributes() {
    let scratch = tempfile::tempdir().unwrap();
    make_tree(scratch.path(), false);
    let inventory = directory_inventory(scratch.path());
    let seen = |name: &str| &inventory[Path::new(name)];
    let keys = |name: &str| {
        let keys = seen(name).xattrs.keys();
        let keys = keys.map(|key| String::from_utf8(key.clone()).unwrap());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(seen("special/high").kind, "blk (4000, 1000000)");
    assert_eq!(seen("sizes/1").owner, (1234, 4_000_000_000));
    assert_eq!(keys("large"), ["user.binary", "user.empty", "user.one"]);
    assert_eq!(keys("same/large"), ["trusted.t"]);
    assert_eq!(keys("special/link"), ["trusted.of-link"]);
    assert_eq!(keys("sizes/65536"), ["security.other"]);
    assert_eq!(keys("sizes/65537"), ["system.posix_acl_access"]);
}

#[test]
fn the_fs_verity_chain_is_complete() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store_path) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let report = build_v3(&tree, &store_path, "t", 2);
    let (store, image) = open_v3(&store_path, "t");
    let read = |digest: &Digest| fs::read(store.blob_path(digest)).unwrap();
    let manifest_verity = verity::digest(&read(&image.manifest_digest)).to_hex();
    assert_eq!(report["manifest_verity"], manifest_verity);
    assert_eq!(
        image.rootfs_verity,
        Some(verity::digest(&read(&image.rootfs)))
    );
    let reader = ImageReader::new(&store, &image).unwrap();
    let mut layers = image.manifest.layers.iter();
    assert_eq!(layers.next().unwrap().media_type, oci::ROOTFS);
    let metadata = reader.metadata();
    assert_eq!(metadata.verity_len().unwrap() as usize, layers.len());
    for layer in layers {
        assert_eq!(layer.media_type, oci::FILEDATA);
        let digest = Digest::from_oci(&layer.digest).unwrap();
        let recorded = metadata
            .verity(&puzzlefs_schema::Digest::new(digest.0))
            .unwrap();
        let recorded = Digest(*recorded.unwrap().as_bytes());
        assert_eq!(recorded, verity::digest(&read(&digest)), "{digest}");
    }
}

#[test]
fn a_compressed_tree_is_read_back_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let tree = path("tree");
    make_tree(&tree, false);
    let text: Vec<_> = (0..200_000).map(|number| number.to_string()).collect();
    let text = text.join(" ");
    fs::write(tree.join("text"), &text).unwrap();
    // What compression leaves as it is, and what it makes of something else.
    let raw = build_v3(&tree, &path("raw"), "t", 2);
    let source = directory_inventory(&tree);
    let mut manifests = Vec::new();
    for (store, options) in [
        ("default", &["--format=3", "--compress", "--jobs", "1"][..]),
        ("again", &["--format=3", "-z", "--jobs", "7"]),
        (
            "small",
            &[
                "--format=3",
                "--compress=1",
                "--frame-size=4K",
                "--chunk-size=16K",
            ],
        ),
    ] {
        let output = build_with(options, &tree, &path(store), "t");
        assert!(output.status.success(), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let saved = raw["new_bytes"].as_u64().unwrap() - report["new_bytes"].as_u64().unwrap();
        assert!(saved > text.len() as u64 / 2, "{store}: {saved} saved");
        assert_same(&source, &image_inventory(&path(store), "t"));
        check_store(&path(store));
        manifests.push(report["manifest_digest"].clone());

        let (store, image) = open_v3(&path(store), "t");
        let reader = ImageReader::new(&store, &image).unwrap();
        for layer in &image.manifest.layers[1..] {
            assert_eq!(layer.media_type, oci::FILEDATA_ZSTD);
            let digest = Digest::from_oci(&layer.digest).unwrap();
            let recorded = reader
                .metadata()
                .verity(&puzzlefs_schema::Digest::new(digest.0))
                .unwrap();
            let blob = fs::read(store.blob_path(&digest)).unwrap();
            assert_eq!(recorded.unwrap().as_bytes(), &verity::digest(&blob).0);
        }
    }
    assert_eq!(manifests[0], manifests[1]);

    for wrong in [
        &["--compress=20"][..],
        &["--compress", "--frame-size=5K"],
        &["--frame-size=64K"],
        &["--chunk-size=512K"],
    ] {
        let output = build_with(wrong, &tree, &path("default"), "t");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn duplicates_cost_one_copy() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let mut bytes = 0;
    for number in 0..10 {
        for (name, size) in [("small", 5_000), ("middle", 60_000), ("large", 2_000_000)] {
            fs::write(tree.join(format!("{name}{number}")), noise(size, 1)).unwrap();
            // Neighbours that differ.
            fs::write(
                tree.join(format!("{name}{number}+")),
                noise(3_000, 100 + number),
            )
            .unwrap();
            bytes += size;
        }
    }
    let store = scratch.path().join("store");
    let report = build_v3(&tree, &store, "t", 2);
    // The noise of one seed begins the same whatever its length; still one copy of each file.
    assert_eq!(report["new_bytes"], bytes / 10 + 10 * 3_000);
    build(&tree, &store, "t", 2);
    let said = says(&["inspect", "--json", &reference(&store, "t")]);
    let image: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(image["data_bytes"], bytes / 10 + 10 * 3_000);
}

#[test]
fn the_holes_of_a_huge_file_are_neither_read_nor_written() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store_path) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    let size = 5 << 30;
    let marks = [0u64, 1_000_003, (4 << 30) + 12_345, size - 7];
    let file = File::create(tree.join("sparse")).unwrap();
    file.set_len(size).unwrap();
    for (number, at) in marks.into_iter().enumerate() {
        file.write_all_at(&noise(7, number as u64), at).unwrap();
    }
    drop(file);
    let mut command = puzzlefs();
    command.args(["build", "--json", "--jobs=2"]).arg(&tree);
    let (output, bytes) = output_and_bytes(command.arg(reference(&store_path, "t")));
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(bytes.read < 8 << 20, "{} bytes were read", bytes.read);
    let written = bytes.written;
    assert!(written < 8 << 20, "{written} bytes were written");
    assert_eq!(report["bytes"], size);
    assert!(report["chunks"].as_u64().unwrap() < 6_000, "{report}");
    assert!(report["new_bytes"].as_u64().unwrap() < 3 << 20, "{report}");

    let (store, image) = open(&store_path, "t");
    let reader = ImageTree::new(&store, &image.root).unwrap();
    let file = reader.resolve(b"sparse", LastLink::Keep).unwrap();
    let (mut at, mut found) = (0u64, Vec::new());
    let zeros = vec![0; 1 << 20];
    reader
        .read_file(&file, &mut FileData::checked(), |piece| {
            if piece != &zeros[..piece.len()] {
                let bytes = (at..).zip(piece.iter().copied());
                found.extend(bytes.filter(|(_, byte)| *byte != 0));
            }
            at += piece.len() as u64;
            Ok(())
        })
        .unwrap();
    assert_eq!(at, size);
    let wanted = marks.into_iter().enumerate().flat_map(|(number, mark)| {
        let bytes = (mark..).zip(noise(7, number as u64));
        bytes.filter(|(_, byte)| *byte != 0).collect::<Vec<_>>()
    });
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(found, wanted);

    // And out again: of what is a hole nothing is written, and little is read.
    let target = scratch.path().join("target");
    let mut command = puzzlefs();
    command.arg("extract").arg(reference(&store_path, "t"));
    let (output, bytes) = output_and_bytes(command.arg(&target));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(bytes.read < 32 << 20, "{} bytes were read", bytes.read);
    let file = File::open(target.join("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    let (mut at, mut found, mut written) = (0, Vec::new(), 0);
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
        written += at - data;
        assert!(written < 8 << 20, "{written}");
        let mut bytes = vec![0; (at - data) as usize];
        file.read_exact_at(&mut bytes, data).unwrap();
        found.extend((data..).zip(bytes).filter(|(_, byte)| *byte != 0));
    }
    assert_eq!(found, wanted);
}

#[test]
fn paths_longer_than_path_max() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open(&tree, flags, Mode::empty()).unwrap();
    let name = "d".repeat(250);
    for _ in 0..60 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
    let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, "file", create, Mode::RWXU).unwrap();
    File::from(file).write_all(b"far down").unwrap();
    let report = build(&tree, &store, "t", 2);
    assert_eq!(report["entries"], 61);
    assert_eq!(report["bytes"], 8);
    let target = scratch.path().join("target");
    extract(&store, "t", &target);
    assert_eq!(
        build(&target, &store, "again", 2)["manifest_digest"],
        report["manifest_digest"]
    );
}

#[test]
fn the_store_in_the_tree_is_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("file"), "x").unwrap();
    let store = scratch.path().join("store");
    for _ in 0..2 {
        let output = try_build(scratch.path(), &store, "t", 1);
        assert!(
            stderr(&output).contains("it is the store"),
            "{}",
            stderr(&output)
        );
        let inventory = image_inventory(&store, "t");
        assert_eq!(inventory.len(), 3, "{inventory:?}");
        says(&["verify", &reference(&store, "t")]);
    }
    let said = stderr(&try_build(&store, &store, "t", 1));
    assert!(
        said.contains("it is the store that the image is for"),
        "{said}"
    );
}

#[test]
#[ignore = "needs root, to mount"]
fn a_mount_point_in_the_tree_is_left_empty() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    let mount_point = tree.join("mount");
    fs::create_dir_all(&mount_point).unwrap();
    with_mount("tmpfs", c"size=1M", &mount_point, || {
        fs::create_dir(mount_point.join("sub")).unwrap();
        let output = build_with(&["-x"], &tree, &store, "t");
        let said = stderr(&output);
        assert!(said.contains("on another file system"), "{said}");
        assert_eq!(image_inventory(&store, "t").len(), 2);
        says(&["verify", &reference(&store, "t")]);
    });
}

/// Directories that share their entries would be extracted as far more than the image has.
#[test]
// Pointers are put together of fields that are shifted: bare, that reads better.
#[allow(clippy::precedence)]
fn extract_takes_no_more_entries_than_the_metadata_has_room_for() {
    const DIRECTORIES: u64 = 30;
    const ENTRIES: u64 = 100;
    // A message by hand: no builder shares a list. Pointers are kind, offset, and sizes.
    let pointer = |at: usize, to: usize, kind: u64, sizes: u64| {
        kind | ((to - at - 1) as u64) << 2 | sizes << 32
    };
    let mut words = vec![0u64; 7];
    words[0] = pointer(0, 1, 0, 1 | 2 << 16);
    words[1] = 3;
    words[2] = pointer(2, 4, 1, 7 | 1 << 3);
    words[4] = 1 << 2 | 1 << 48;
    // Inode 1 is the root, the last one a FIFO that all entries of all other directories name.
    let inodes = DIRECTORIES + 2;
    words[5] = pointer(5, 6, 1, 7 | (inodes * 5) << 3);
    words[6] = inodes << 2 | 3 << 32 | 2 << 48;
    words.resize(7 + inodes as usize * 5, 0);
    let mut directory = |count: u64, ino: &dyn Fn(u64) -> u64| {
        let at = words.len();
        let list = at + 2;
        words.extend([0, pointer(at + 1, list, 1, 7 | (count * 2) << 3)]);
        words.push(count << 2 | 1 << 32 | 1 << 48);
        words.resize(list + 1 + count as usize * 3, 0);
        for number in 0..count as usize {
            let (entry, name) = (
                list + 1 + number * 2,
                list + 1 + count as usize * 2 + number,
            );
            words[entry] = ino(number as u64);
            words[entry + 1] = pointer(entry + 1, name, 1, 2 | 3 << 3);
            let digits = format!("{number:03}");
            words[name] = digits
                .bytes()
                .rev()
                .fold(0, |word, digit| word << 8 | u64::from(digit));
        }
        at
    };
    let root = directory(DIRECTORIES, &|number| number + 2);
    let shared = directory(ENTRIES, &|_| inodes);
    for ino in 1..=inodes {
        let at = 2 + ino as usize * 5;
        words[at] = ino;
        if ino == inodes {
            words[at + 1] = 1;
        } else {
            words[at + 1] = 3 | 0o755 << 16;
            let to = if ino == 1 { root } else { shared };
            words[at + 3] = pointer(at + 3, to, 0, 1 | 1 << 16);
        }
    }
    let table = [(words.len() as u64) << 32];
    let bytes: Vec<u8> = table
        .iter()
        .chain(&words)
        .flat_map(|word| word.to_le_bytes())
        .collect();

    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    build(&tree, &store, "sound", 1);
    put_metadata(&store, "shared", &[], &bytes);
    let target = scratch.path().join("target");
    let said = fails(&[
        "extract",
        &reference(&store, "shared"),
        target.to_str().unwrap(),
    ]);
    assert!(
        said.contains("more entries than the metadata can hold"),
        "{said}"
    );
    let made = |directory: &std::path::Path| std::fs::read_dir(directory).unwrap().count();
    assert!(made(&target.join("029")) > 0 && made(&target.join("000")) == 0);
}

/// What is extracted into a directory that gives all that is made in it an access control list.
#[test]
#[ignore = "needs root and access control lists"]
fn no_list_of_the_directory_around_it_is_extracted() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    make_tree(&path("tree"), false);
    build(&path("tree"), &path("store"), "t", 2);
    fs::create_dir(path("around")).unwrap();
    // user::rwx, user:77:rwx, group::r-x, mask::rwx, other::r-x.
    let mut list = vec![2, 0, 0, 0];
    let none = u32::MAX;
    for (tag, permissions, id) in [
        (1u16, 7u16, none),
        (2, 7, 77),
        (4, 5, none),
        (16, 7, none),
        (32, 5, none),
    ] {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    let name = "system.posix_acl_default";
    rustix::fs::setxattr(path("around"), name, &list, XattrFlags::empty()).unwrap();
    let target = path("around/made/target");
    let arguments = ["extract", "--json", &reference(&path("store"), "t")];
    let output = puzzlefs().args(arguments).arg(&target).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let inventory = directory_inventory(&target);
    assert_eq!(report["entries"], inventory.len() - 1);
    assert_same(&inventory, &image_inventory(&path("store"), "t"));
}

#[test]
fn an_extraction_can_be_interrupted() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    for number in 0..3 {
        fs::write(path("tree").join(number.to_string()), "contents").unwrap();
    }
    build(&path("tree"), &path("store"), "t", 2);
    let mut command = puzzlefs();
    let image = reference(&path("store"), "t");
    command.args(["extract", &image]).arg(path("target"));
    let pause = Pause::at("extracted");
    let mut child = pause.spawn(command.stderr(std::process::Stdio::piped()));
    let paused = pause.reached(&mut child).unwrap();
    paused.interrupt(&child, rustix::process::Signal::TERM);
    let output = finish(child);
    assert!(path("target/0").exists() && !path("target/2").exists());
    assert_eq!(output.status.code(), Some(130));
    let said = stderr(&output);
    assert_eq!(
        said,
        "puzzlefs: interrupted; the files extracted so far remain\n"
    );
}

/// A filesystem may not have extended attributes. What was for one more user only is then not for
/// the group.
#[test]
#[ignore = "needs root, to mount, and extended attributes"]
fn attributes_that_cannot_be_set_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("tree/directory")).unwrap();
    fs::create_dir(path("disk")).unwrap();
    fs::write(path("tree/file"), "contents").unwrap();
    fs::write(path("tree/directory/list"), "contents").unwrap();
    let entries = [(1u16, 6u16), (2, 7), (4, 4), (16, 7), (32, 0)].map(|(tag, permissions)| {
        let id = if tag == 2 { 77 } else { u32::MAX }.to_le_bytes();
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id].concat()
    });
    let list = [&[2, 0, 0, 0][..], &entries.concat()].concat();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        rustix::fs::setxattr(path(name), attribute, value, XattrFlags::empty()).unwrap();
    };
    set("tree/file", "user.a", b"b");
    set("tree/directory/list", "system.posix_acl_access", &list);
    build(&path("tree"), &path("store"), "t", 1);
    assert_eq!(
        image_inventory(&path("store"), "t")[Path::new("directory/list")].permissions,
        0o670
    );
    with_mount("ramfs", c"", &path("disk"), || {
        let target = path("disk/target");
        let arguments = ["extract", "--json", &reference(&path("store"), "t")];
        let output = puzzlefs().args(arguments).arg(&target).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for (what, file, name) in [
            ("extended attributes", "file", "user.a"),
            (
                "access control lists",
                "directory/list",
                "system.posix_acl_access",
            ),
        ] {
            let file = target.join(file);
            let wanted = format!(
                "cannot set {what} of 1 inode: {}: {name}: Operation not supported",
                file.display()
            );
            assert!(said.contains(&wanted), "{said}");
        }
        assert!(said.contains("extracted, but for 2 refusals"), "{said}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["no_xattrs"], &report["entries"]),
            (&2.into(), &3.into())
        );
        let made = directory_inventory(&target);
        assert_eq!(made[Path::new("directory/list")].permissions, 0o640);
        assert_eq!(made[Path::new("file")].size, 8);
    });
}

/// An ordinary user gets all but the devices, and is told.
#[test]
#[ignore = "needs root and extended attributes"]
fn devices_are_left_out_where_they_cannot_be_made() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, path("tree/null"), kind, mode, device).unwrap();
    fs::hard_link(path("tree/null"), path("tree/other")).unwrap();
    fs::write(path("tree/zfile"), "contents").unwrap();
    // One in which its owner may look nothing up, once it is made.
    fs::create_dir(path("tree/locked")).unwrap();
    fs::write(path("tree/locked/file"), "contents").unwrap();
    fs::set_permissions(path("tree/locked"), PermissionsExt::from_mode(0o600)).unwrap();
    set_mtime(&path("tree/locked"), 1000, 7);
    set_mtime(&path("tree"), 2000, 0);
    build(&path("tree"), &path("store"), "t", 1);
    // An attribute that is root's alone.
    let options = XattrFlags::empty();
    rustix::fs::setxattr(path("tree/zfile"), "trusted.a", b"b", options).unwrap();
    let exclude = ["--exclude=null", "--exclude=other"];
    assert!(build_with(&exclude, &path("tree"), &path("store"), "xattr")
        .status
        .success());
    // A user without any right to the program's own directory runs a copy of it.
    let program = path("puzzlefs");
    copy_program(&program);
    let open =
        |name: &Path, mode| fs::set_permissions(name, PermissionsExt::from_mode(mode)).unwrap();
    open(scratch.path(), 0o777);
    let extract = |tag: &str, target: &str| {
        let mut command = std::process::Command::new(&program);
        let image = reference(&path("store"), tag);
        let command = command.args(["extract", &image]).arg(path(target));
        command.uid(65534).gid(65534).output().unwrap()
    };
    let output = extract("t", "target");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("cannot make 2 devices: "), "{said}");
    assert!(
        said.contains("cannot set the owner of 4 inodes: "),
        "{said}"
    );
    assert!(said.contains("extracted, but for 2 refusals"), "{said}");
    assert_eq!(fs::read(path("target/zfile")).unwrap(), b"contents");
    assert!(!path("target/null").exists());
    let made = directory_inventory(&path("target"));
    assert_eq!(made[Path::new("locked")].permissions, 0o600);
    assert_eq!(made[Path::new("locked")].mtime, (1000, 7));
    assert_eq!(made[Path::new("")].mtime, (2000, 0));

    let output = extract("xattr", "another");
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let wanted = format!(
        "cannot set extended attributes of 1 inode: {}: trusted.a: Operation not permitted",
        path("another/zfile").display()
    );
    assert!(said.contains(&wanted), "{said}");
}

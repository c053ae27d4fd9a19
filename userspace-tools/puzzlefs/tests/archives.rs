// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of tar archives: as two programs write them, and as nobody should.

mod common;

use common::*;
use puzzlefs_lib::builder::{self, BuildOptions};
use puzzlefs_lib::{Progress, Store};
use rustix::fs::XattrFlags;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Makes an archive of a directory.
fn pack(program: &str, options: &[&str], tree: &Path, archive: &Path) {
    let output = Command::new(program)
        .args(options)
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(tree)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

fn compress(program: &str, archive: &Path) -> PathBuf {
    let output = Command::new(program)
        .arg("-c")
        .arg(archive)
        .output()
        .unwrap();
    assert!(output.status.success());
    let path = archive.with_extension(program);
    fs::write(&path, output.stdout).unwrap();
    path
}

fn digest(source: &Path, store: &Path) -> String {
    let report = build(source, store, "t", 2);
    report["manifest_digest"].as_str().unwrap().to_owned()
}

/// The tree of all tests, without the socket, which tar leaves out, and the second name of the
/// named pipe, which it makes another one of.
fn tree(scratch: &Path) -> PathBuf {
    let tree = scratch.join("tree");
    make_tree(&tree, false);
    fs::remove_file(tree.join("special/socket")).unwrap();
    fs::remove_file(tree.join("links/fifo")).unwrap();
    tree
}

#[test]
#[ignore = "needs root"]
fn a_directory_and_its_archive_give_the_same_image() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = (tree(scratch.path()), path("store"));
    let wanted = digest(&tree, &store);
    let inventory = image_inventory(&store, "t");
    let archive = path("a.tar");
    let posix = ["--format=posix", "--acls", "--xattrs", "--xattrs-include=*"];
    for sparse in [None, Some("0.0"), Some("0.1"), Some("1.0")] {
        let version = sparse.map(|version| format!("--sparse-version={version}"));
        let mut options = posix.to_vec();
        options.extend(version.as_deref());
        options.extend(version.is_some().then_some("--sparse"));
        pack("tar", &options, &tree, &archive);
        let found = digest(&archive, &store);
        assert_same(&image_inventory(&store, "t"), &inventory);
        assert_eq!(found, wanted, "sparse {sparse:?}");
    }
    for program in ["gzip", "zstd"] {
        assert_eq!(digest(&compress(program, &archive), &store), wanted);
    }
    // As pzstd writes it: a frame to be skipped comes first.
    let frames = fs::read(compress("zstd", &archive)).unwrap();
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size";
    fs::write(path("p.tar.zst"), [&skipped[..], &frames].concat()).unwrap();
    assert_eq!(digest(&path("p.tar.zst"), &store), wanted);
    check_store(&store);

    let output = puzzlefs()
        .args(["build", "--json", "-"])
        .arg(reference(&store, "stdin"))
        .stdin(File::open(&archive).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_same(
        &image_inventory(&store, "stdin"),
        &image_inventory(&store, "t"),
    );
}

#[test]
#[ignore = "needs root and bsdtar"]
fn what_bsdtar_writes() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = (tree(scratch.path()), path("store"));
    // It writes the seconds and the nanoseconds of a time before 1970 as two numbers.
    let inventory = |tag: &str| {
        let mut inventory = image_inventory(&store, tag);
        for seen in inventory.values_mut().filter(|seen| seen.mtime.0 < 0) {
            seen.mtime = (0, 0);
        }
        inventory
    };
    // The mode that it writes for a file with a list has the group's own permissions, where the
    // kernel shows the mask.
    let list = [
        (1, 7, NONE),
        (2, 6, 77),
        (4, 4, NONE),
        (16, 6, NONE),
        (32, 1, NONE),
    ];
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(tree.join("large"), name, value, XattrFlags::empty()).unwrap();
    };
    set("system.posix_acl_access", &acl(&list));
    set("user.short", b"\0\xff");
    build(&tree, &store, "directory", 2);
    let archive = path("a.tar");
    for header in ["ALL", "SCHILY", "LIBARCHIVE"] {
        let header = format!("--options=pax:xattrheader={header}");
        pack("bsdtar", &["--format=pax", &header], &tree, &archive);
        build(&archive, &store, "archive", 2);
        assert_same(&inventory("archive"), &inventory("directory"));
    }
}

/// Of GNU's own format, which has whole seconds and no attributes.
#[test]
#[ignore = "needs root"]
fn gnu_format() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = (tree(scratch.path()), path("store"));
    let long = tree.join("n".repeat(200)).join("m".repeat(200));
    fs::create_dir_all(&long).unwrap();
    std::os::unix::fs::symlink("l".repeat(300), long.join("link")).unwrap();
    fs::hard_link(tree.join("large"), long.join("another")).unwrap();
    build(&tree, &store, "directory", 2);
    let mut wanted = image_inventory(&store, "directory");
    for seen in wanted.values_mut() {
        seen.mtime.1 = 0;
        seen.xattrs.clear();
    }
    for options in [&["--format=gnu"][..], &["--format=gnu", "--sparse"]] {
        pack("tar", options, &tree, &path("a.tar"));
        build(&path("a.tar"), &store, "t", 2);
        assert_same(&image_inventory(&store, "t"), &wanted);
    }
}

/// A header block with its checksum.
fn header(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000007\0");
    put(116, "0000010\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000144\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut member = header(name, b'0', contents.len() as u64, "");
    member.extend_from_slice(contents);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body..)
            .find(|length| length - length.to_string().len() == body)
            .unwrap();
        text.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    let mut member = file("pax", &text);
    let head = header("pax", b'x', text.len() as u64, "");
    member[..512].copy_from_slice(&head);
    member
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Builds an image of these bytes; from a file or from the standard input is the same.
fn try_archive(scratch: &Path, bytes: &[u8]) -> Output {
    let path = scratch.join("a.tar");
    fs::write(&path, bytes).unwrap();
    let output = try_build(&path, &scratch.join("store"), "t", 1);
    let piped = puzzlefs()
        .args(["build", "--json", "-"])
        .arg(reference(&scratch.join("store"), "t"))
        .stdin(Stdio::from(File::open(&path).unwrap()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), piped.status.code());
    output
}

fn built(members: &[Vec<u8>]) -> Inventory {
    let scratch = tempfile::tempdir().unwrap();
    let output = try_archive(scratch.path(), &archive(members));
    assert!(output.status.success(), "{}", stderr(&output));
    image_inventory(&scratch.path().join("store"), "t")
}

fn paths(inventory: &Inventory) -> Vec<&str> {
    let paths = inventory.keys();
    paths.map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn members_in_any_order() {
    let inventory = built(&[
        file("/a/./b//file", b"one"),
        file("a/b/file", b"two"),
        header("a/other", b'1', 3, "./a/b/file"),
        header("usr/lib/", b'5', 0, ""),
        header("lib", b'2', 0, "usr/lib"),
        file("lib/there", b"through the link"),
        header("up", b'2', 0, "../../../usr"),
        file("up/stays/inside", b""),
        header("a/b", b'5', 0, ""),
        file("gone/with/all", b""),
        file("gone", b""),
        header("fifo", b'6', 0, ""),
        header("null", b'3', 0, ""),
        // Directories by their slash, as some archivers write them.
        file("slash/", b""),
        header("slash/old/", 0, 0, ""),
        file("slash/old/file", b""),
    ]);
    assert_eq!(
        paths(&inventory),
        [
            "",
            "a",
            "a/b",
            "a/b/file",
            "a/other",
            "fifo",
            "gone",
            "lib",
            "null",
            "slash",
            "slash/old",
            "slash/old/file",
            "up",
            "usr",
            "usr/lib",
            "usr/lib/there",
            "usr/stays",
            "usr/stays/inside"
        ]
    );
    let seen = |path: &str| &inventory[&PathBuf::from(path)];
    assert_eq!(seen("").permissions, 0o755);
    assert_eq!((seen("a").owner, seen("a").permissions), ((0, 0), 0o755));
    assert_eq!(
        (seen("a/b").owner, seen("a/b").permissions),
        ((7, 8), 0o644)
    );
    assert_eq!(seen("a/b/file").mtime, (100, 0));
    assert_eq!((seen("a/b/file").size, seen("a/b/file").nlink), (3, 2));
    assert_eq!(seen("a/other").first_name, Path::new("a/b/file"));
    assert_eq!(seen("gone").kind, "file");
    assert_eq!(seen("lib").permissions, 0o777);
}

/// A PAX record says of a link, too, how much follows; and what ends with a slash may have contents.
#[test]
fn contents_that_belong_to_no_file() {
    let mut link = header("link", b'1', 3, "file");
    link.extend_from_slice(&[b'x'; 512]);
    let inventory = built(&[
        file("file", b"one"),
        pax(&[("size", "3")]),
        link,
        file("slash/", b"what directories do not have"),
        file("last", b"two"),
    ]);
    assert_eq!(paths(&inventory), ["", "file", "last", "link", "slash"]);
    let seen = |path: &str| &inventory[&PathBuf::from(path)];
    assert_eq!(seen("link").first_name, Path::new("file"));
    assert_eq!((seen("link").size, seen("last").size), (3, 3));
    assert_eq!(seen("slash").kind, "directory");
}

#[test]
fn pax_records() {
    let inventory = built(&[
        pax(&[
            ("path", &format!("{}/long", "d".repeat(200))),
            ("mtime", "-1.5"),
            ("uid", "4000000000"),
            ("SCHILY.xattr.user.a", "with\nnewline"),
            ("SCHILY.xattr.com.apple.provenance", "x"),
        ]),
        file("short", b"contents"),
        file("next", b""),
    ]);
    let seen = &inventory[&PathBuf::from("d".repeat(200)).join("long")];
    assert_eq!(seen.mtime, (-2, 500_000_000));
    assert_eq!(seen.owner, (4_000_000_000, 8));
    let xattrs: Vec<_> = seen.xattrs.iter().collect();
    assert_eq!(xattrs, [(&b"user.a".to_vec(), &b"with\nnewline".to_vec())]);
    assert!(inventory[&PathBuf::from("next")].xattrs.is_empty());
}

/// The id of an entry of an access control list that is for no user or group of its own.
const NONE: u32 = u32::MAX;

/// The attribute of an access control list.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

/// As the kernel has it: what a list says of the mode is the mode, and one that says no more is
/// none.
#[test]
fn lists_and_modes_agree() {
    let inventory = built(&[
        pax(&[(
            "SCHILY.acl.access",
            "user::rwx,user:9:rw-,group::r--,mask::rw-,other::--x",
        )]),
        file("list", b""),
        pax(&[("SCHILY.acl.access", "user::rwx,group::r-x,other::---")]),
        file("none", b""),
        pax(&[("SCHILY.acl.access", ""), ("SCHILY.acl.default", "")]),
        file("empty", b""),
    ]);
    let list = &inventory[Path::new("list")];
    let wanted = acl(&[
        (1, 7, NONE),
        (2, 6, 9),
        (4, 4, NONE),
        (16, 6, NONE),
        (32, 1, NONE),
    ]);
    assert_eq!(list.permissions, 0o761);
    assert_eq!(list.xattrs[&b"system.posix_acl_access"[..]], wanted);
    let none = &inventory[Path::new("none")];
    assert_eq!((none.permissions, none.xattrs.len()), (0o750, 0));
    assert!(inventory[Path::new("empty")].xattrs.is_empty());
}

#[test]
fn what_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut damaged = archive(&[file("a", b"x"), file("b", b"y")]);
    damaged[1024] = b'c';
    let sparse = |size: &str, map: &str| {
        let records = [("GNU.sparse.size", size), ("GNU.sparse.map", map)];
        archive(&[pax(&records), header("s", b'0', 0, "")])
    };
    for (bytes, wanted) in [
        (
            archive(&[file("a/../../etc/passwd", b"x")]),
            "'..' in a path",
        ),
        (archive(&[header("a", b'1', 0, "../b")]), "'..' in a path"),
        (
            archive(&[header("a", b'1', 0, "b")]),
            "hard link to 'b', which is not there",
        ),
        (
            archive(&[file("a", b""), file("a/b", b"")]),
            "'a' in its path is not a directory",
        ),
        (
            archive(&[header("a", b'2', 0, "a"), file("a/b", b"")]),
            "too many symbolic links",
        ),
        (
            archive(&[header("a", b'2', 0, "")]),
            "symbolic link without a target",
        ),
        (
            archive(&[header(".", b'0', 0, "")]),
            "the root, which has to be a directory",
        ),
        (
            archive(&[header("a", b'Z', 0, "")]),
            "a type that is not known, 'Z'",
        ),
        (
            archive(&[pax(&[("uid", "4294967295")]), file("a", b"")]),
            "no user's or group's number",
        ),
        (
            archive(&[pax(&[("path", &"n".repeat(256))]), file("a", b"")]),
            "more than 255 bytes",
        ),
        (archive(&[header("a", b'0', 1 << 32, "")]), "truncated"),
        (
            archive(&[header("a", b'x', 1 << 32, "")]),
            "PAX header of 4294967296 bytes",
        ),
        (
            archive(&[header("a", b'L', 1 << 32, "")]),
            "name of 4294967296 bytes",
        ),
        (sparse("9000000000000000000", ""), "malformed number"),
        (
            sparse("9000000000000000000", "0,0"),
            "more than 8 TiB of holes",
        ),
        (sparse("10", "0,5"), "more or less data"),
        (file("a", b"x"), "truncated"),
        (damaged, "header before byte 1536 is damaged"),
        (noise(4096, 1), "neither a directory nor a tar archive"),
        (
            Vec::new(),
            "too short for a tar archive: truncated, or none",
        ),
        (
            b"text".to_vec(),
            "too short for a tar archive: truncated, or none",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), "truncated"),
        (b"\xfd7zXZ\0\0\0".to_vec(), "compressed with xz"),
        (b"LZIP\x01\0\0\0".to_vec(), "compressed with lzip"),
    ] {
        let output = try_archive(scratch.path(), &bytes);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{wanted}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(wanted),
            "{wanted}: {}",
            stderr(&output)
        );
    }
    let files = fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(files, 2, "the archive and the store");
}

/// Whatever is changed in an archive, there is an image or an error.
#[test]
fn damaged_archives() {
    // In memory, where there is no wait for a disk at the end of each build.
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let scratch = scratch.unwrap();
    let store = Store::create(&scratch.path().join("store")).unwrap();
    let whole = archive(&[
        header("d/", b'5', 0, ""),
        pax(&[
            ("SCHILY.xattr.user.a", "b"),
            ("mtime", "1.5"),
            ("size", "3"),
        ]),
        file("d/a", b"abc"),
        header("d/link", b'1', 0, "d/a"),
        pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.realsize", "100000"),
        ]),
        file("s", &[&b"1\n4096\n5\n"[..], &[0; 503], b"abcde"].concat()),
    ]);
    let path = scratch.path().join("a.tar");
    let options = BuildOptions::new("t");
    let attempt = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        builder::build(&path, &store, &options, &Progress::default()).is_ok()
    };
    assert!(attempt(&whole));
    for end in (0..whole.len() - 1024).step_by(256) {
        assert!(!attempt(&whole[..end]), "{end}");
    }
    let choices = noise(3 * 250, 9);
    let mut refused = 0;
    for choice in choices.chunks_exact(3) {
        let mut bytes = whole.clone();
        let at = usize::from(choice[0]) * 256 + usize::from(choice[1]);
        let at = at % bytes.len();
        bytes[at] = choice[2];
        // With a right checksum, it is the other fields that are looked at.
        for block in bytes.chunks_exact_mut(512) {
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        refused += u32::from(!attempt(&bytes));
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn an_archive_of_much_is_read_in_little_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    let size = 300 << 20;
    let out = File::create(&path).unwrap();
    out.write_all_at(&header("large", b'0', size, ""), 0)
        .unwrap();
    out.write_all_at(&noise(1 << 20, 3), 512 + (100 << 20))
        .unwrap();
    out.set_len(512 + size + 1024).unwrap();
    let command = "ulimit -v 262144; exec \"$0\" build -j 1 --json - \"$1\"";
    let output = Command::new("sh")
        .args(["-c", command])
        .arg(env!("CARGO_BIN_EXE_puzzlefs"))
        .arg(reference(&scratch.path().join("store"), "t"))
        .stdin(File::open(&path).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

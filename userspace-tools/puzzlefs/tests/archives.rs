// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of tar archives: as two programs write them, and as nobody should.

use crate::common::tar::{archive, file, global_pax, header, member, pax};
use crate::common::*;
use puzzlefs_lib::builder::{self, BuildOptions};
use puzzlefs_lib::{Digest, Progress, Store};
use rustix::fs::XattrFlags;
use std::fs::{self, File};
use std::io::Write;
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
    let [.., xz, bzip2] = compressed(&fs::read(&archive).unwrap());
    for (name, bytes) in [xz, bzip2] {
        fs::write(path("compressed"), bytes).unwrap();
        assert_eq!(digest(&path("compressed"), &store), wanted, "{name}");
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

/// The bytes, compressed in each way.
fn compressed(bytes: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
    bzip2.write_all(bytes).unwrap();
    [
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::encode_all(bytes, 1).unwrap()),
        ("xz", liblzma::encode_all(bytes, 1).unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
    ]
}

/// Builds an image with these options, and returns its paths and the messages.
fn remarked(options: &[&str], bytes: &[u8]) -> (Vec<String>, String) {
    let scratch = memory_scratch();
    let path = scratch.path().join("a.tar");
    fs::write(&path, bytes).unwrap();
    let store = scratch.path().join("store");
    let output = build_with(options, &path, &store, "t");
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = stderr(&output);
    let remarks = report["remarks"].as_array().map_or(0, Vec::len);
    assert_eq!(remarks, said.lines().count(), "{said}");
    let inventory = image_inventory(&store, "t");
    let paths = paths(&inventory).into_iter().skip(1);
    let said = said.replace(path.to_str().unwrap(), "FILE");
    (paths.map(str::to_owned).collect(), said)
}

/// What GNU tar takes is taken. Nothing but zeros is ignored in silence.
#[test]
fn data_behind_an_archive() {
    let (one, two) = (file("one", b"1"), file("two", b"2"));
    let [first, second] = [&one, &two].map(|member| archive(std::slice::from_ref(member)));
    let zeros = [0; 10_000];
    let check = |options: &[&str], parts: &[&[u8]], wanted: &[&str], remark: &str| {
        let whole = parts.concat();
        let (paths, said) = remarked(options, &whole);
        assert_eq!(paths, wanted);
        match remark {
            "" => assert_eq!(said, ""),
            remark => assert!(said.contains(remark), "{remark}: {said}"),
        }
        assert!(said.lines().count() <= 1, "{said}");
        // The same of a compressed archive, which is read from beginning to end.
        for (name, bytes) in compressed(&whole) {
            assert_eq!(
                remarked(options, &bytes),
                (paths.clone(), said.clone()),
                "{name}"
            );
        }
    };
    check(&[], &[&first], &["one"], "");
    check(&[], &[&first, &zeros], &["one"], "");
    check(&[], &[&zeros], &[], "");
    let another = "ignored 2048 bytes behind the end of the archive, at byte 2048: another \
                   archive begins there; --ignore-zeros reads that, too\n";
    check(&[], &[&first, &second], &["one"], another);
    check(&["--ignore-zeros"], &[&first, &second], &["one", "two"], "");
    check(
        &["--ignore-zeros"],
        &[&first, &zeros[..5120], &second, &zeros[..512]],
        &["one", "two"],
        "",
    );
    let garbage = "ignored 8 bytes behind the end of the archive, at byte 2048: no archive";
    check(&[], &[&first, b"garbage\n"], &["one"], garbage);
    let later = "ignored 8 bytes behind the end of the archive, at byte 12048: no archive";
    check(&[], &[&first, &zeros, b"garbage\n"], &["one"], later);
    // One zero block.
    let zero = &zeros[..512];
    check(&[], &[&one, zero], &["one"], "one zero block marks the end");
    check(
        &[],
        &[&one, &zeros[..600]],
        &["one"],
        "one zero block marks the end",
    );
    let (paths, said) = remarked(&[], &[&one, zero, &second].concat());
    assert_eq!(paths, ["one"]);
    assert!(said.contains("one zero block marks the end"), "{said}");
    assert!(said.contains("ignored 2048 bytes behind the end of the archive, at byte 1536"));
    check(
        &["--ignore-zeros"],
        &[&one, zero, &second],
        &["one", "two"],
        "",
    );
    check(&["--ignore-zeros"], &[&one, zero], &["one"], "");
    // None: the archive may be cut short, unless the user says that it is not.
    let scratch = memory_scratch();
    let output = try_archive(scratch.path(), &one);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("its end is not marked; if it is whole"),
        "{said}"
    );
    assert!(said.contains("--ignore-zeros"), "{said}");
    check(&["--ignore-zeros"], &[&one], &["one"], "");
    // What fills the last block may be missing then, and nothing else.
    for end in [513, 700] {
        check(&["--ignore-zeros"], &[&one[..end]], &["one"], "");
    }
    fs::write(scratch.path().join("cut"), &one[..512]).unwrap();
    let cut = scratch.path().join("cut");
    let output = build_with(
        &["--ignore-zeros"],
        &cut,
        &scratch.path().join("store"),
        "t",
    );
    assert!(
        stderr(&output).contains("one: it is truncated"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn data_behind_compressed_data() {
    let first = archive(&[file("one", b"1")]);
    let second = archive(&[file("two", b"2")]);
    let halves = first.split_at(700);
    let whole = compressed(&first);
    for (at, (name, bytes)) in whole.iter().enumerate() {
        let part = |bytes: &[u8]| compressed(bytes)[at].1.clone();
        let check = |options: &[&str], parts: &[&[u8]], wanted: &[&str], remark: &str| {
            let (paths, said) = remarked(options, &parts.concat());
            assert_eq!(paths, wanted, "{name}");
            match remark {
                "" => assert_eq!(said, "", "{name}"),
                remark => assert!(said.contains(remark), "{name}: {remark}: {said}"),
            }
        };
        check(&[], &[bytes, &[0; 1000]], &["one"], "");
        check(&[], &[bytes, &[0; 1001]], &["one"], "");
        let garbage = "ignored 8 bytes of garbage behind the compressed data";
        check(&[], &[bytes, b"garbage\n"], &["one"], garbage);
        check(&[], &[bytes, &[0; 512], b"garbage\n"], &["one"], garbage);
        check(&[], &[&part(halves.0), &part(halves.1)], &["one"], "");
        let two = part(&second);
        check(
            &[],
            &[bytes, &two],
            &["one"],
            "ignored 2048 bytes behind the end",
        );
        check(&["--ignore-zeros"], &[bytes, &two], &["one", "two"], "");
    }
    // What begins as another stream and is none is an error, as to gzip.
    let scratch = memory_scratch();
    for (name, bytes) in whole {
        let cut = [&bytes[..], &bytes[..bytes.len() / 2]].concat();
        let output = try_archive(scratch.path(), &cut);
        assert_eq!(output.status.code(), Some(1), "{name}");
    }
}

/// A frame of zstd's, of raw blocks, whose window is of so many bits.
fn zstd_frame(window_log: u8, contents: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
    let blocks = contents.chunks(1000);
    let last = blocks.len();
    for (number, block) in blocks.enumerate() {
        let head = u32::from(number + 1 == last) | ((block.len() as u32) << 3);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

#[test]
fn large_windows_of_zstd() {
    let bytes = archive(&[file("one", b"1")]);
    for window_log in [27, 28, 31] {
        let (paths, said) = remarked(&[], &zstd_frame(window_log, &bytes));
        assert_eq!((paths.join(" ").as_str(), said.as_str()), ("one", ""));
    }
    let scratch = memory_scratch();
    let output = try_archive(scratch.path(), &zstd_frame(32, &bytes));
    assert_eq!(output.status.code(), Some(1));
}

/// A plain archive is one, whatever the name of its first member begins with.
#[test]
fn names_like_magic_numbers() {
    for name in ["BZh1", "070701", "PK\x03\x04", "hsqs", "LZIP", "7z", "{"] {
        let (paths, said) = remarked(&[], &archive(&[file(name, b"1")]));
        assert_eq!((&*paths[0], &*said), (name, ""));
    }
}

/// POSIX: they are regular files.
#[test]
fn members_of_unknown_types() {
    let members = [
        member("unknown", b'Z', b"contents"),
        file("known", b"1"),
        member("another", b'A', b""),
        pax(&[("path", "long"), ("mtime", "5")]),
        member("short", b'?', b"2"),
    ];
    let inventory = built(&members);
    assert_eq!(
        paths(&inventory),
        ["", "another", "known", "long", "unknown"]
    );
    let unknown = &inventory[Path::new("unknown")];
    assert_eq!((&*unknown.kind, unknown.size), ("file", 8));
    assert_eq!(unknown.contents, Digest::of(b"contents").to_hex());
    assert_eq!(inventory[Path::new("long")].mtime, (5, 0));
    let (_, said) = remarked(&[], &archive(&members));
    let wanted =
        "unknown: unknown type flag 'Z', taken as a regular file (3 such members in all)\n";
    assert!(said.ends_with(wanted), "{said}");
    assert_eq!(said.lines().count(), 1);
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

/// A header for all members does not end the one for the next member.
#[test]
fn global_records() {
    let inventory = built(&[
        pax(&[("path", "real"), ("SCHILY.xattr.user.a", "own")]),
        global_pax(&[
            ("comment", "c"),
            ("uid", "5"),
            ("SCHILY.xattr.user.a", "all"),
        ]),
        file("short", b"1"),
        file("next", b""),
        // A record without a value takes back the one for all.
        pax(&[("uid", ""), ("mtime", "9")]),
        global_pax(&[("gid", "6"), ("mtime", "3"), ("SCHILY.xattr.user.b", "all")]),
        member("long", b'L', b"from/gnu\0"),
        global_pax(&[("comment", "c")]),
        file("short", b""),
        file("last", b""),
    ]);
    assert_eq!(
        paths(&inventory),
        ["", "from", "from/gnu", "last", "next", "real"]
    );
    let seen = |path: &str| {
        let seen = &inventory[Path::new(path)];
        let xattrs = seen
            .xattrs
            .values()
            .map(|value| value.escape_ascii().to_string());
        let xattrs: Vec<_> = xattrs.collect();
        (seen.owner, seen.mtime.0, xattrs.join(" "))
    };
    assert_eq!(seen("real"), ((5, 8), 100, "own".to_owned()));
    assert_eq!(seen("next"), ((5, 8), 100, "all".to_owned()));
    assert_eq!(seen("from/gnu"), ((7, 6), 9, "all all".to_owned()));
    assert_eq!(seen("last"), ((5, 6), 3, "all all".to_owned()));
}

/// As Python's tarfile writes them of a float.
#[test]
fn times_with_exponents() {
    let inventory = built(&[
        pax(&[("mtime", "1e-05")]),
        file("small", b""),
        pax(&[("mtime", "1.5e+09")]),
        file("large", b""),
    ]);
    assert_eq!(inventory[Path::new("small")].mtime, (0, 10_000));
    assert_eq!(inventory[Path::new("large")].mtime, (1_500_000_000, 0));
}

/// Headers without end for one member, or for all of them, take no memory without end.
#[test]
fn many_headers_for_one_member() {
    let scratch = memory_scratch();
    let value = "v".repeat(60_000);
    for (kind, wanted) in [(b'x', "PAX header of 60"), (b'g', "too many records")] {
        let headers = (0..200).map(|number| {
            let key = format!("SCHILY.xattr.user.{number}");
            let mut header = pax(&[(&key, &value)]);
            let head = self::header("pax", kind, 60_000 + key.len() as u64 + 8, "");
            header[..512].copy_from_slice(&head);
            header
        });
        let mut members: Vec<_> = headers.collect();
        members.push(file("a", b""));
        let output = try_archive(scratch.path(), &archive(&members));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    }
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
            "hard link to 'b', which does not exist before it",
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
            "symbolic link with an invalid target",
        ),
        (
            archive(&[header(".", b'0', 0, "")]),
            "the root must be a directory",
        ),
        (
            archive(&[pax(&[("mtime", "yesterday")]), file("named", b"")]),
            "named: 'yesterday' is not a time in seconds",
        ),
        (
            archive(&[pax(&[("path", "long"), ("uid", "x")]), file("a", b"")]),
            "long: a PAX header has a malformed number",
        ),
        (
            archive(&[member("pax", b'x', b"1 a=b\n"), file("named", b"")]),
            "named: a PAX header is damaged",
        ),
        (
            archive(&[file("a", b""), global_pax(&[("gid", "x")]), file("b", b"")]),
            "a global PAX header, at byte 512: a PAX header has a malformed number",
        ),
        (
            archive(&[header("a", b'M', 0, "")]),
            "a: begins in another volume",
        ),
        (
            archive(&[pax(&[("uid", "4294967295")]), file("a", b"")]),
            "a: 4294967295 is not a valid user or group ID",
        ),
        (
            archive(&[pax(&[("path", &"n".repeat(256))]), file("a", b"")]),
            "more than 255 bytes",
        ),
        (
            archive(&[header("a", b'0', 1 << 32, "")]),
            "a: it is truncated",
        ),
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
        (
            [
                pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]),
                header("map", b'0', 5000, ""),
            ]
            .concat(),
            ": map: it is truncated",
        ),
        (
            damaged,
            "the header before byte 1536, behind 'a', is damaged",
        ),
        (noise(4096, 1), "neither a directory nor a tar archive"),
        (
            Vec::new(),
            "too short for a tar archive: truncated, or another format",
        ),
        (
            b"text".to_vec(),
            "too short for a tar archive: truncated, or another format",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), "truncated"),
        (b"\xfd7zXZ\0\0\0".to_vec(), "truncated"),
        (b"BZh91AY&SY".to_vec(), "truncated"),
        (b"PK\x03\x04".to_vec(), "it is a zip archive"),
        (b"070701".to_vec(), "it is a cpio archive"),
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

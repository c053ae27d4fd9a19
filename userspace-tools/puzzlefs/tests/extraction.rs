// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extraction into targets that refuse something, and of parts of an image.

use crate::common::*;
use rustix::fs::XattrFlags;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A store, and a directory around it.
struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Scratch {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn image(&self) -> String {
        reference(&self.path("store"), "t")
    }

    /// Builds the image from a directory or an archive.
    fn build(&self, source: &str) {
        build(&self.path(source), &self.path("store"), "t", 1);
    }

    /// Extracts the image with `--json`, by a program that has these first words.
    fn extract_by(&self, words: &[&str], image: &str, target: &Path) -> (Output, Value) {
        let (program, options) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command
            .args(options)
            .args(["extract", "--json", image])
            .arg(target);
        let output = output(&mut command);
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output, report)
    }

    fn extract(&self, target: &Path) -> (Output, Value) {
        self.extract_by(&[env!("CARGO_BIN_EXE_puzzlefs")], &self.image(), target)
    }
}

/// The refusals of a kind in a report: their number, and the first paths.
fn refused(report: &Value, kind: &str) -> (u64, Vec<String>) {
    let all = report["refused"].as_array().unwrap();
    let Some(refusal) = all.iter().find(|refusal| refusal["kind"] == kind) else {
        return (0, Vec::new());
    };
    let first = refusal["first"].as_array().unwrap().iter();
    let first = first.map(|first| first["path"].as_str().unwrap().to_owned());
    (refusal["count"].as_u64().unwrap(), first.collect())
}

/// The header of a member of a tar archive.
fn header(name: &str, kind: u8, size: usize, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000640\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000001750\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A file has more names than ext4 gives an inode. What one filesystem links, another copies.
#[test]
fn links_beyond_the_limit_become_copies() {
    const LINKS: usize = 66_000;
    let scratch = Scratch::new();
    let mut archive = header("first", b'0', 1, "");
    archive.extend([b'x'; 1].iter().chain([0; 511].iter()));
    for number in 0..LINKS {
        archive.extend(header(&format!("l/{number:05}"), b'1', 0, "first"));
    }
    archive.extend(header("zz/after", b'0', 0, ""));
    archive.extend([0; 1024]);
    fs::write(scratch.path("archive"), archive).unwrap();
    scratch.build("archive");
    let target = scratch.path("target");
    let (output, report) = scratch.extract(&target);
    let (copies, first) = refused(&report, "link");
    let mut inodes = std::collections::BTreeSet::new();
    let mut links = 0;
    for entry in fs::read_dir(target.join("l")).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.mtime(), metadata.len()),
            (0o640, 1000, 1)
        );
        inodes.insert(metadata.ino());
        links += 1;
    }
    assert_eq!(links, LINKS);
    inodes.insert(fs::metadata(target.join("first")).unwrap().ino());
    assert_eq!(fs::metadata(target.join("zz/after")).unwrap().mtime(), 1000);
    // An inode takes more links after a copy: so there are few copies.
    assert_eq!(inodes.len() as u64, copies + 1);
    let said = stderr(&output);
    if copies == 0 {
        return assert!(output.status.success(), "{said}");
    }
    assert!(copies < 10, "{copies}");
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("so copies were made: "), "{said}");
    assert!(said.contains("Too many links"), "{said}");
    assert!(first[0].starts_with(target.join("l/6").to_str().unwrap()));
}

/// The largest value is larger than what most filesystems take.
#[test]
fn a_large_attribute_is_refused_alone() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("tree/zz")).unwrap();
    for name in ["a", "pic", "zz/file"] {
        fs::write(scratch.path("tree").join(name), "contents").unwrap();
    }
    // The source may refuse it too, so a record of an archive has it.
    let value = "v".repeat(60_000);
    let record = |text: String| {
        let length = (1..).find(|n| format!("{n} {text}\n").len() == *n).unwrap();
        format!("{length} {text}\n")
    };
    let records = record("mtime=5.5".to_owned())
        + &record(format!("SCHILY.xattr.user.large={value}"))
        + &record("SCHILY.xattr.user.small=1".to_owned());
    let mut archive = header("pax", b'x', records.len(), "");
    archive.extend(records.as_bytes());
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive.extend(header("pic", b'0', 0, ""));
    archive.extend(header("zz/", b'5', 0, ""));
    archive.extend(header("zz/file", b'0', 0, ""));
    archive.extend([0; 1024]);
    fs::write(scratch.path("archive"), archive).unwrap();
    scratch.build("archive");
    // The kernel decides the same without us.
    let probe = scratch.path("probe");
    fs::write(&probe, "").unwrap();
    let set = rustix::fs::setxattr(&probe, "user.large", value.as_bytes(), XattrFlags::empty());
    let target = scratch.path("target");
    let (output, report) = scratch.extract(&target);
    let said = stderr(&output);
    let (count, first) = refused(&report, "xattr");
    match set {
        Ok(()) => assert_eq!((output.status.code(), count), (Some(0), 0), "{said}"),
        Err(errno) => {
            assert_eq!((output.status.code(), count), (Some(1), 1), "{said}");
            assert_eq!(first, [target.join("pic").to_str().unwrap()]);
            let cause = std::io::Error::from(errno);
            let wanted = format!("pic: user.large of 60000 bytes: {cause}");
            assert!(said.contains(&wanted), "{said}");
            assert!(said.contains("but for 1 refusal"), "{said}");
            assert!(
                !said.contains("make room"),
                "a full disk was suspected: {said}"
            );
        }
    }
    let made = directory_inventory(&target);
    let pic = &made[Path::new("pic")];
    assert_eq!((pic.permissions, pic.mtime), (0o640, (5, 500_000_000)));
    if set != Err(rustix::io::Errno::NOTSUP) {
        assert_eq!(pic.xattrs[&b"user.small"[..]], b"1");
    }
    assert_eq!(made[Path::new("zz")].mtime, (1000, 0));
    assert_eq!(made[Path::new("zz/file")].permissions, 0o640);
}

/// A file that is larger than allowed is left out, without a part of it, and the rest is whole.
#[test]
fn a_file_that_is_too_large_is_refused_alone() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("tree/sub")).unwrap();
    fs::write(scratch.path("tree/sub/large"), noise(1 << 20, 1)).unwrap();
    fs::write(scratch.path("tree/sub/after"), "contents").unwrap();
    fs::hard_link(scratch.path("tree/sub/large"), scratch.path("tree/zz")).unwrap();
    let sub = scratch.path("tree/sub");
    fs::set_permissions(&sub, PermissionsExt::from_mode(0o555)).unwrap();
    set_mtime(&sub, 1234, 5);
    scratch.build("tree");
    let script = "trap '' XFSZ; ulimit -f 200; exec \"$@\"";
    let words = ["bash", "-c", script, "bash", env!("CARGO_BIN_EXE_puzzlefs")];
    let target = scratch.path("target");
    let (output, report) = scratch.extract_by(&words, &scratch.image(), &target);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(refused(&report, "file").0, 2, "{said}");
    assert!(
        said.contains("sub/large: cannot write it: File too large"),
        "{said}"
    );
    assert_eq!(report["entries"], 2);
    let made = directory_inventory(&target);
    assert_eq!(made.len(), 3);
    assert_eq!(made[Path::new("sub/after")].size, 8);
    let sub = &made[Path::new("sub")];
    assert_eq!((sub.permissions, sub.mtime), (0o555, (1234, 5)));
}

/// A filesystem without room for another inode is full: to go on would only fail for each file.
#[test]
#[ignore = "needs root"]
fn a_filesystem_without_inodes_is_full() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("tree")).unwrap();
    fs::create_dir_all(scratch.path("disk")).unwrap();
    for number in 0..100 {
        fs::write(scratch.path("tree").join(number.to_string()), "").unwrap();
    }
    scratch.build("tree");
    with_mount("tmpfs", c"nr_inodes=40", &scratch.path("disk"), || {
        let (output, report) = scratch.extract(&scratch.path("disk/target"));
        let said = stderr(&output);
        assert_eq!((output.status.code(), report), (Some(1), Value::Null));
        assert!(said.contains("No space left on device"), "{said}");
        assert!(
            said.contains("make room and extract into a new directory"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    });
}

#[test]
fn a_part_of_an_image() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("tree/usr/bin")).unwrap();
    fs::write(scratch.path("tree/usr/bin/program"), "program").unwrap();
    fs::hard_link(
        scratch.path("tree/usr/bin/program"),
        scratch.path("tree/usr/bin/other"),
    )
    .unwrap();
    fs::hard_link(
        scratch.path("tree/usr/bin/program"),
        scratch.path("tree/outside"),
    )
    .unwrap();
    symlink("usr/bin", scratch.path("tree/bin")).unwrap();
    symlink("program", scratch.path("tree/usr/bin/link")).unwrap();
    fs::set_permissions(
        scratch.path("tree/usr/bin"),
        PermissionsExt::from_mode(0o711),
    )
    .unwrap();
    set_mtime(&scratch.path("tree/usr/bin"), 77, 0);
    scratch.build("tree");
    let mut number = 0;
    let mut extract = |path: &str| {
        number += 1;
        let target = scratch.path(&format!("target{number}"));
        let image = format!("{}:{path}", scratch.image());
        let words = [env!("CARGO_BIN_EXE_puzzlefs")];
        let (output, _) = scratch.extract_by(&words, &image, &target);
        (target, output)
    };
    for path in ["/usr/bin", "usr/bin/", "/bin/", "/usr/../bin/."] {
        let (target, output) = extract(path);
        assert!(output.status.success(), "{path}: {}", stderr(&output));
        let made = directory_inventory(&target);
        let names: Vec<_> = made.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["", "link", "other", "program"], "{path}");
        assert_eq!(made[Path::new("")].mtime, (77, 0));
        assert_eq!(made[Path::new("")].permissions, 0o711);
        assert_eq!(made[Path::new("program")].nlink, 2);
    }
    for (path, name) in [
        ("/bin/program", "program"),
        ("outside", "outside"),
        ("/bin", "bin"),
    ] {
        let (target, output) = extract(path);
        assert!(output.status.success(), "{path}: {}", stderr(&output));
        let made: Vec<_> = fs::read_dir(&target).unwrap().collect();
        assert_eq!(made.len(), 1, "{path}");
        let file = target.join(name);
        let is_link = fs::symlink_metadata(&file)
            .unwrap()
            .file_type()
            .is_symlink();
        assert_eq!(is_link, name == "bin", "{path}");
        if !is_link {
            assert_eq!(fs::read(&file).unwrap(), b"program");
            assert_eq!(fs::metadata(&file).unwrap().nlink(), 1);
        }
    }
    let (target, output) = extract("/usr/none");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no such file or directory in the image"));
    assert!(!target.exists(), "a directory was made for nothing");
}

/// A filesystem without attributes and lists: each kind is reported once, however many files have them.
#[test]
#[ignore = "needs root"]
fn each_kind_of_refusal_is_reported_once() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("tree")).unwrap();
    fs::create_dir(scratch.path("disk")).unwrap();
    for number in 0..10 {
        let path = scratch.path("tree").join(number.to_string());
        fs::write(&path, "").unwrap();
        rustix::fs::setxattr(&path, "user.a", b"b", XattrFlags::empty()).unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        scratch.path("tree/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    scratch.build("tree");
    with_mount("ramfs", c"", &scratch.path("disk"), || {
        let target = scratch.path("disk/target");
        let (output, report) = scratch.extract(&target);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(report["no_xattrs"], 10);
        assert_eq!(report["entries"], 11);
        let (count, first) = refused(&report, "xattr");
        assert_eq!((count, first.len()), (10, 3));
        assert_eq!(
            said.matches("cannot set extended attributes of 10 inodes")
                .count(),
            1,
            "{said}"
        );
        assert!(said.contains(", and 7 more"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        let fifo = fs::symlink_metadata(target.join("fifo")).unwrap();
        assert!(fifo.file_type().is_fifo());
    });
}

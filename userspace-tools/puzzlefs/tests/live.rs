// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of trees that others write to, and of trees that cannot be read as a whole.

use crate::common::*;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A tree of a few files, and a store beside it.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new(files: &[(&str, usize)]) -> Self {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        for (name, size) in files {
            let path = scratch.path("tree").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, noise(*size, *size as u64)).unwrap();
        }
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, options: &[&str], tag: &str) -> Command {
        let mut command = puzzlefs();
        command
            .args(["build", "--json"])
            .args(options)
            .arg(self.path("tree"))
            .arg(reference(&self.path("store"), tag));
        command
    }

    /// The root of the image that the tree gives now, into another store.
    fn quiet_digest(&self) -> Value {
        build(&self.path("tree"), &self.path("quiet"), "t", 1)["rootfs_digest"].clone()
    }
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A file that changes between the walk and its end is read again. The image is the one of the tree as
/// it is in the end, down to the digest.
#[test]
fn a_changed_file_is_read_again() {
    // The fifth piece that is read is in the middle of the large file.
    for (name, size, point, number) in [
        ("small", 5_000, "tree", 1),
        ("small", 5_000, "read", 1),
        ("large", 3_000_000, "tree", 1),
        ("large", 3_000_000, "read", 5),
    ] {
        let scratch = Scratch::new(&[(name, size), ("z/other", 4_000)]);
        let change = || {
            let path = scratch.path("tree").join(name);
            let mut contents = noise(size, 77);
            contents.extend_from_slice(b"and more");
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        };
        // Another thread would read the file in the middle of the change.
        let jobs = if point == "read" {
            &["1"][..]
        } else {
            &["1", "3"]
        };
        for jobs in jobs {
            let options = ["--retry-changed=1", "--jobs", jobs];
            let tag = format!("jobs{jobs}");
            let output =
                Pause::nth(point, number).during(&mut scratch.command(&options, &tag), change);
            let built = report(&output);
            assert_eq!(built["read_again"], 1, "{name} at {point}");
            assert_eq!(
                built["rootfs_digest"],
                scratch.quiet_digest(),
                "{name} at {point}"
            );
            fs::write(scratch.path("tree").join(name), noise(size, 1)).unwrap();
        }
        says(&["verify", "-q", scratch.path("store").to_str().unwrap()]);
        // Without the option it is an error.
        let output = Pause::nth(point, number).during(&mut scratch.command(&[], "no"), change);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("changed while it was being read"));
    }
}

/// What disappears, or becomes another kind or size of file, is found by another walk.
#[test]
fn a_tree_that_changes_is_walked_again() {
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 5] = [
        ("a file vanishes", |path| fs::remove_file(path).unwrap()),
        ("a file becomes a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a small file becomes large", |path| {
            fs::write(path, noise(3_000_000, 5)).unwrap()
        }),
        ("a file becomes empty", |path| fs::write(path, "").unwrap()),
        ("a directory vanishes", |path| {
            fs::remove_dir_all(path.parent().unwrap()).unwrap()
        }),
    ];
    for (what, change) in changes {
        let scratch = Scratch::new(&[("a", 5_000), ("sub/file", 6_000), ("z", 7_000)]);
        let path = scratch.path("tree/sub/file");
        let options = ["--retry-changed=1"];
        let mut command = scratch.command(&options, "t");
        let output = Pause::at("tree").during(&mut command, || change(&path));
        assert_eq!(
            report(&output)["rootfs_digest"],
            scratch.quiet_digest(),
            "{what}"
        );
        assert_eq!(leftovers(&scratch.path("store")), [""; 0]);
        says(&["verify", "-q", scratch.path("store").to_str().unwrap()]);
    }
}

/// Every problem of a tree is reported at once, the first ten in full.
#[test]
#[ignore = "needs root"]
fn problems_are_listed_together() {
    needs_root();
    let names: Vec<String> = (0..25).map(|number| format!("file{number:02}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (&**name, 3_000)).collect();
    let scratch = Scratch::new(&files);
    fs::write(scratch.path("tree/zz-readable"), "contents").unwrap();
    for name in &names {
        let path = scratch.path("tree").join(name);
        fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
    }
    let said = |options: &[&str]| {
        let output = as_nobody(&scratch, options);
        (output.status.code(), stderr(&output), output.stdout)
    };
    let (status, problems, _) = said(&[]);
    assert_eq!(status, Some(1), "{problems}");
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!(lines.len(), 11, "{problems}");
    for (number, line) in lines[..10].iter().enumerate() {
        let wanted = format!("tree/file{number:02}: Permission denied");
        assert!(
            line.contains("cannot open ") && line.contains(&wanted),
            "{problems}"
        );
    }
    assert_eq!(lines[10], "puzzlefs: and 15 problems more");

    let (status, problems, printed) = said(&["--skip-unreadable"]);
    assert_eq!(status, Some(0), "{problems}");
    let built: Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(
        (&built["unreadable"], &built["entries"]),
        (&25.into(), &1.into())
    );
    assert_eq!(problems.lines().count(), 11, "{problems}");
    assert!(problems.ends_with("left out: 15 more\n"), "{problems}");
}

/// Builds the tree as another user.
fn as_nobody(scratch: &Scratch, options: &[&str]) -> Output {
    output(&mut command_of_nobody(scratch, options))
}

/// The command that builds the tree as another user: a copy of the program, with a store in a directory
/// of his.
fn command_of_nobody(scratch: &Scratch, options: &[&str]) -> Command {
    let program = scratch.path("puzzlefs");
    if !program.exists() {
        copy_program(&program);
        let open = |path: &Path| {
            fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        };
        open(scratch.0.path());
    }
    let mut command = Command::new(program);
    command
        .args(["build", "--json", "--jobs=1"])
        .args(options)
        .arg(scratch.path("tree"))
        .arg(reference(&scratch.path("of-nobody"), "t"))
        .uid(65534)
        .gid(65534);
    command
}

/// Directories that cannot be listed are empty in the image, files that cannot be read are missing, and
/// everything else is there.
#[test]
#[ignore = "needs root"]
fn unreadable_parts_are_left_out() {
    needs_root();
    let scratch = Scratch::new(&[
        ("a", 10),
        ("locked/inside", 20),
        ("open/secret", 30),
        ("open/z", 40),
    ]);
    fs::hard_link(scratch.path("tree/open/z"), scratch.path("tree/zz")).unwrap();
    for name in ["locked", "open/secret"] {
        let path = scratch.path("tree").join(name);
        fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
    }
    let refused = as_nobody(&scratch, &[]);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("cannot open "), "{said}");
    assert!(said.contains("locked: Permission denied"), "{said}");
    let output = as_nobody(&scratch, &["--skip-unreadable"]);
    let said = stderr(&output);
    assert_eq!(report(&output)["unreadable"], 2);
    for name in ["locked", "open/secret"] {
        let line = said.lines().find(|line| line.contains(name));
        assert!(
            line.is_some_and(|line| line.contains("left out: ")),
            "{said}"
        );
    }
    let inventory = image_inventory(&scratch.path("of-nobody"), "t");
    let names: Vec<_> = inventory
        .keys()
        .map(|path| path.to_str().unwrap())
        .collect();
    assert_eq!(names, ["", "a", "locked", "open", "open/z", "zz"]);
    assert_eq!(inventory[Path::new("zz")].nlink, 2);
}

/// A file that becomes unreadable after the walk is left out like one that always was.
#[test]
#[ignore = "needs root"]
fn what_becomes_unreadable_is_left_out() {
    needs_root();
    let build = |options: &[&str]| {
        let scratch = Scratch::new(&[("a", 10), ("secret", 30_000), ("z", 40)]);
        let mut command = command_of_nobody(&scratch, options);
        let output = Pause::at("tree").for_everybody().during(&mut command, || {
            let path = scratch.path("tree/secret");
            fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
        });
        (scratch, output)
    };
    let (scratch, output) = build(&["--skip-unreadable"]);
    assert_eq!(report(&output)["unreadable"], 1);
    let said = stderr(&output);
    let line = said.lines().find(|line| line.contains("secret"));
    assert!(
        line.is_some_and(|line| line.contains("left out: ")),
        "{said}"
    );
    let inventory = image_inventory(&scratch.path("of-nobody"), "t");
    let names: Vec<_> = inventory
        .keys()
        .map(|path| path.to_str().unwrap())
        .collect();
    assert_eq!(names, ["", "a", "z"]);
    let (_scratch, output) = build(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("secret: Permission denied"));
}

/// A base does not change any of it.
#[test]
fn on_a_base_a_changed_file_is_read_again() {
    let scratch = Scratch::new(&[("a", 5_000), ("b", 300_000)]);
    report(&output(&mut scratch.command(&["--format=3"], "base")));
    fs::write(scratch.path("tree/b"), noise(300_000, 9)).unwrap();
    let options = ["--format=3", "--retry-changed=2", "--base=base"];
    let mut command = scratch.command(&options, "top");
    let changed = Pause::at("tree").during(&mut command, || {
        fs::write(scratch.path("tree/b"), noise(300_000, 10)).unwrap();
    });
    report(&changed);
    assert_same(
        &image_inventory(&scratch.path("store"), "top"),
        &directory_inventory(&scratch.path("tree")),
    );
}

#[test]
fn an_archive_is_not_live() {
    let scratch = Scratch::new(&[("a", 10)]);
    fs::write(scratch.path("archive"), [0; 1024]).unwrap();
    let archive = scratch.path("archive");
    for option in ["--skip-unreadable", "--retry-changed=1"] {
        let image = reference(&scratch.path("store"), "t");
        let output = run(&["build", option, archive.to_str().unwrap(), &image]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("are for directories"));
    }
}

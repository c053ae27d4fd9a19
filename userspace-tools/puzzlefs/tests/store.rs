// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store stays whole, whatever happens to its builders.

mod common;

use common::*;
use puzzlefs_lib::Store;
use rustix::process::{kill_process, Pid, Signal};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn tags(store: &Path) -> Vec<String> {
    Store::open(store).unwrap().index().unwrap().tags()
}

fn spawn(tree: &Path, store: &Path, tag: &str) -> Child {
    puzzlefs()
        .args(["build", "-q"])
        .arg(tree)
        .arg(reference(store, tag))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_tag_moves_and_others_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "one").unwrap();
    let one = build(&tree, &store, "a", 1);
    build(&tree, &store, "b", 1);
    fs::write(tree.join("file"), "two").unwrap();
    let two = build(&tree, &store, "a", 1);
    assert_ne!(one["manifest_digest"], two["manifest_digest"]);
    assert_eq!(tags(&store), ["a", "b"]);
    assert_eq!(
        open(&store, "a").1.manifest_digest.to_oci(),
        two["manifest_digest"]
    );
    assert_eq!(
        open(&store, "b").1.manifest_digest.to_oci(),
        one["manifest_digest"]
    );
    check_store(&store);

    let run = |arguments: &[&str]| puzzlefs().args(arguments).output().unwrap();
    let resolved = run(&["resolve", &reference(&store, "a")]);
    let rootfs = String::from_utf8(resolved.stdout).unwrap();
    assert_eq!(rootfs.trim_end(), two["rootfs_digest"]);
    let digest = two["manifest_digest"].as_str().unwrap();
    let resolved = run(&["resolve", &format!("{}@{digest}", store.display())]);
    assert_eq!(resolved.stdout, rootfs.as_bytes());
    let missing = run(&["resolve", &reference(&store, "c")]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("no image is tagged 'c'; the tags are: a, b"));
    assert_eq!(run(&["resolve", "no-tag"]).status.code(), Some(2));
}

#[test]
fn only_stores_and_empty_directories_are_written_to() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let home = scratch.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("letter"), "dear").unwrap();
    let refused = try_build(&tree, &home, "t", 1);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("neither empty nor an OCI image layout"));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    let missing = try_build(
        &scratch.path().join("none"),
        &scratch.path().join("s"),
        "t",
        1,
    );
    assert_eq!(missing.status.code(), Some(1));
    let wanted = format!(
        "puzzlefs: {}: cannot open the directory or archive to build from: \
         No such file or directory (os error 2)\n",
        scratch.path().join("none").display()
    );
    assert_eq!(stderr(&missing), wanted);
}

#[test]
fn builders_at_the_same_time() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let tree = scratch.path().join("tree");
    make_tree(&tree, false);
    let builders: Vec<Child> = (0..6)
        .map(|number| spawn(&tree, &store, &format!("t{number}")))
        .collect();
    for builder in builders {
        let output = builder.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(tags(&store), ["t0", "t1", "t2", "t3", "t4", "t5"]);
    check_store(&store);
    assert_eq!(leftovers(&store), [""; 0]);
    assert_same(&directory_inventory(&tree), &image_inventory(&store, "t3"));
}

#[test]
fn an_interrupted_builder_cleans_up() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    // Enough to be at it for a while.
    for number in 0..40 {
        fs::write(tree.join(format!("{number}")), noise(4 << 20, number)).unwrap();
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let builder = spawn(&tree, &store, "t");
        while !fs::read_dir(store.join(".puzzlefs")).is_ok_and(|entries| entries.count() > 0) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        kill_process(Pid::from_child(&builder), signal).unwrap();
        let output = builder.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(stderr(&output).contains("interrupted; nothing was tagged"));
        assert_eq!(leftovers(&store), [""; 0]);
        assert_eq!(tags(&store), [""; 0]);
    }
}

/// Input that does not come, and such that does not end.
#[test]
fn a_builder_that_waits_for_its_input_can_be_interrupted() {
    let scratch = tempfile::tempdir().unwrap();
    let (pipe, store) = (scratch.path().join("pipe"), scratch.path().join("store"));
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let interrupted = |input: &Path, stdin: Stdio| {
        let image = reference(&store, "t");
        let mut command = puzzlefs();
        let command = command.args(["build", "--quiet"]).arg(input).arg(image);
        let builder = command.stdin(stdin).stderr(Stdio::piped()).spawn().unwrap();
        while !fs::read_dir(store.join(".puzzlefs")).is_ok_and(|entries| entries.count() > 0) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(20));
        kill_process(Pid::from_child(&builder), Signal::TERM).unwrap();
        let output = builder.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(leftovers(&store), [""; 0]);
    };
    interrupted(&pipe, Stdio::null());
    let both = fs::File::options().read(true).write(true).open(&pipe);
    interrupted(Path::new("-"), Stdio::from(both.unwrap()));
    interrupted(Path::new("/dev/zero"), Stdio::null());
}

/// Builds a tree while `disturb` goes on in it, until a build notices, and gives its message.
///
/// A build may well not notice: where nothing happened between its two looks.
fn build_disturbed(tree: &Path, store: &Path, disturb: impl Fn() + Sync) -> String {
    for attempt in 0..50 {
        let tag = format!("t{attempt}");
        let stop = AtomicBool::new(false);
        let output = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    disturb();
                }
            });
            let output = try_build(tree, store, &tag, 2);
            stop.store(true, Ordering::Relaxed);
            output
        });
        assert_eq!(leftovers(store), [""; 0]);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
            assert!(!tags(store).contains(&tag));
            return stderr(&output);
        }
    }
    panic!("no build noticed");
}

fn tree_of_small_files(tree: &Path) {
    fs::create_dir(tree).unwrap();
    for number in 0..200 {
        fs::write(tree.join(format!("{number}")), noise(5_000, number)).unwrap();
    }
}

#[test]
fn a_file_that_changes_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    for size in [1_000, 4 << 20] {
        let tree = scratch.path().join(format!("tree{size}"));
        // Its own: what the one before tagged stays there.
        let store = scratch.path().join(format!("store{size}"));
        tree_of_small_files(&tree);
        let path = tree.join("the-log");
        fs::write(&path, noise(size, 1)).unwrap();
        let said = build_disturbed(&tree, &store, || {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"x").unwrap();
        });
        assert!(
            said.contains("the-log: changed while it was being read"),
            "{said}"
        );
    }
}

#[test]
fn a_file_that_vanishes_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    tree_of_small_files(&tree);
    let (one, other) = (tree.join("here"), scratch.path().join("elsewhere"));
    fs::write(&one, noise(100_000, 1)).unwrap();
    let said = build_disturbed(&tree, &scratch.path().join("store"), || {
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    });
    assert!(
        said.contains("here: changed while it was being read"),
        "{said}"
    );
}

#[test]
fn damage_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "contents").unwrap();
    build(&tree, &store, "t", 1);
    let image = open(&store, "t").1;
    let inspect = || {
        let output = puzzlefs()
            .arg("inspect")
            .arg(reference(&store, "t"))
            .output()
            .unwrap();
        (output.status.code(), stderr(&output))
    };
    assert_eq!(inspect(), (Some(0), String::new()));
    let blob = |digest: puzzlefs_lib::Digest| store.join("blobs/sha256").join(digest.to_hex());
    for digest in [image.rootfs, image.manifest_digest] {
        let good = fs::read(blob(digest)).unwrap();
        let mut bad = good.clone();
        bad[40] ^= 1;
        fs::write(blob(digest), &bad).unwrap();
        let (code, said) = inspect();
        assert_eq!(code, Some(1));
        assert!(
            said.contains("the blob is damaged: its contents have sha256"),
            "{said}"
        );
        fs::write(blob(digest), &good[1..]).unwrap();
        let (_, said) = inspect();
        assert!(said.contains("the blob is damaged: it has"), "{said}");
        fs::remove_file(blob(digest)).unwrap();
        assert_eq!(inspect().0, Some(1));
        fs::write(blob(digest), &good).unwrap();
    }
    // A builder that finds a blob of the wrong size makes it good.
    let data = image.data_blobs().next().unwrap();
    let data = puzzlefs_lib::Digest::from_oci(&data.digest).unwrap();
    fs::write(blob(data), "torn").unwrap();
    build(&tree, &store, "t", 1);
    check_store(&store);
}

/// As some tools write what is empty.
#[test]
fn null_is_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    build(&tree, &store, "a", 1);
    let index = store.join("index.json");
    let null = r#"{"schemaVersion":2,"mediaType":null,"annotations":null,"manifests":null}"#;
    fs::write(&index, null).unwrap();
    assert_eq!(says(&["list", store.to_str().unwrap()]), "");
    build(&tree, &store, "b", 1);
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let mut untagged = text["manifests"][0].clone();
    untagged["annotations"] = serde_json::Value::Null;
    text["manifests"].as_array_mut().unwrap().push(untagged);
    fs::write(&index, text.to_string()).unwrap();
    says(&["verify", store.to_str().unwrap()]);
    says(&["gc", store.to_str().unwrap()]);
    says(&["ls", &reference(&store, "b")]);
}

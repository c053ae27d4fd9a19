// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store stays whole, whatever happens to its builders.

use crate::common::*;
use puzzlefs_lib::Store;
use rustix::process::{kill_process, Pid, Signal};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn tags(store: &Path) -> Vec<String> {
    Store::open(store).unwrap().index().unwrap().tags()
}

fn build_command(tree: &Path, store: &Path, tag: &str) -> Command {
    let mut command = puzzlefs();
    command.args(["build", "-q"]).arg(tree);
    command.arg(reference(store, tag)).stderr(Stdio::piped());
    command
}

fn spawn(tree: &Path, store: &Path, tag: &str) -> Child {
    build_command(tree, store, tag).spawn().unwrap()
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
        open(&store, "a").1.root.manifest_digest().to_oci(),
        two["manifest_digest"]
    );
    assert_eq!(
        open(&store, "b").1.root.manifest_digest().to_oci(),
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
        "puzzlefs: cannot open the directory or archive to build from {}: \
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
        let output = finish(builder);
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
    for number in 0..4 {
        fs::write(tree.join(format!("{number}")), noise(1 << 20, number)).unwrap();
    }
    for point in ["staging", "tree", "read", "created", "written"] {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let pause = Pause::at(point);
            let mut builder = pause.spawn(&mut build_command(&tree, &store, "t"));
            let paused = pause.reached(&mut builder).unwrap();
            paused.interrupt(&builder, signal);
            let output = finish(builder);
            assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
            assert!(stderr(&output).contains("interrupted; nothing was tagged"));
            assert_eq!(leftovers(&store), [""; 0]);
            assert_eq!(tags(&store), [""; 0]);
        }
    }
}

/// A builder in the middle of its input, which does not come or does not end.
#[test]
fn a_builder_that_waits_for_its_input_can_be_interrupted() {
    let scratch = tempfile::tempdir().unwrap();
    let (pipe, store) = (scratch.path().join("pipe"), scratch.path().join("store"));
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    // Open for both, so that opening it does not wait and no reader finds its end.
    let open = || File::options().read(true).write(true).open(&pipe).unwrap();
    let interrupted = |input: &Path, stdin: Stdio, reads: &dyn Fn(&Child) -> bool| {
        let mut command = build_command(input, &store, "t");
        let builder = command.stdin(stdin).spawn().unwrap();
        wait_until("the builder reads its input", || reads(&builder));
        kill_process(Pid::from_child(&builder), Signal::TERM).unwrap();
        let output = finish(builder);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(leftovers(&store), [""; 0]);
    };
    let mut writer = open();
    let has_read = |_: &Child| rustix::io::ioctl_fionread(open()).unwrap() == 0;
    writer.write_all(b"x").unwrap();
    interrupted(&pipe, Stdio::null(), &has_read);
    writer.write_all(b"x").unwrap();
    interrupted(Path::new("-"), Stdio::from(open()), &has_read);
    let zeros = Path::new("/dev/zero");
    interrupted(zeros, Stdio::null(), &|builder| {
        let files = fs::read_dir(format!("/proc/{}/fd", builder.id())).unwrap();
        let mut files = files.flatten().flat_map(|file| fs::read_link(file.path()));
        files.any(|file| file == zeros)
    });
}

/// The points at which a tree changes: after the builder has found its files, and after it has read
/// the first of them.
const MOMENTS: [&str; 2] = ["tree", "read"];

/// Builds a tree that changes at a point, which the builder must notice. Returns its message.
fn build_disturbed(point: &str, tree: &Path, store: &Path, disturb: impl Fn()) -> String {
    let output = Pause::at(point).during(&mut build_command(tree, store, "t"), disturb);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(leftovers(store), [""; 0]);
    assert_eq!(tags(store), [""; 0]);
    stderr(&output)
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
        tree_of_small_files(&tree);
        let path = tree.join("the-log");
        fs::write(&path, noise(size, 1)).unwrap();
        for point in MOMENTS {
            let said = build_disturbed(point, &tree, &scratch.path().join("store"), || {
                let mut file = OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(b"x").unwrap();
            });
            let wanted = "the-log: changed while it was being read";
            assert!(said.contains(wanted), "{point}: {said}");
        }
    }
}

#[test]
fn a_file_that_vanishes_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    tree_of_small_files(&tree);
    let (one, other) = (tree.join("here"), scratch.path().join("elsewhere"));
    let leaves = || fs::rename(&one, &other).unwrap();
    let returns = || {
        leaves();
        fs::rename(&other, &one).unwrap();
    };
    for disturb in [&leaves as &dyn Fn(), &returns] {
        for point in MOMENTS {
            fs::write(&one, noise(100_000, 1)).unwrap();
            let said = build_disturbed(point, &tree, &store, disturb);
            let wanted = "here: changed while it was being read";
            assert!(said.contains(wanted), "{point}: {said}");
        }
    }
}

#[test]
fn damage_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "contents").unwrap();
    build_v3(&tree, &store, "t", 1);
    let image = open_v3(&store, "t").1;
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
    build_v3(&tree, &store, "t", 1);
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

// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs export`: archives that other programs agree with, and ordinary OCI images.

use crate::common::*;
use serde_json::{json, Value};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes the tree of all tests without a second name of the named pipe, because tar(1) makes another
/// pipe of it, and an image of it.
fn tree(scratch: &Path) -> (PathBuf, PathBuf) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    make_tree(&tree, false);
    fs::remove_file(tree.join("special/socket")).unwrap();
    set_mtime(&tree.join("special"), 12, 345_678_901);
    build(&tree, &store, "t", 2);
    (tree, store)
}

fn export(store: &Path, options: &[&str], archive: &Path) -> Value {
    let image = reference(store, "t");
    let archive = archive.to_str().unwrap();
    let first = ["export", "--json", "-o", archive];
    let arguments = [&first[..], options, &[&image]].concat();
    serde_json::from_str(&says(&arguments)).unwrap()
}

/// An archive is the image again: the builder's own digest says so, also for what no program shows.
#[test]
#[ignore = "needs root and extended attributes"]
fn an_archive_gives_the_same_image_again() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (_, store) = tree(scratch.path());
    let wanted = image_inventory(&store, "t");
    let digest = open(&store, "t").1.root.manifest_digest().to_oci();
    for (compression, magic) in [
        ("none", &b"./"[..]),
        ("gzip", b"\x1f\x8b"),
        ("zstd", b"\x28\xb5"),
    ] {
        let archive = path(compression);
        let report = export(&store, &["--compress", compression], &archive);
        assert_eq!(report["entries"], wanted.len() - 1);
        assert_eq!(report["sockets"], 0);
        let bytes = fs::read(&archive).unwrap();
        assert!(
            bytes.starts_with(magic) || bytes.starts_with(b"PaxHeader"),
            "{compression}"
        );
        // The same once more, and on standard output.
        let (again, image) = (path("again"), reference(&store, "t"));
        export(&store, &["--compress", compression], &again);
        assert!(fs::read(&again).unwrap() == bytes, "{compression}");
        let printed = run(&["export", "-q", "--compress", compression, &image]);
        assert!(
            printed.stdout == bytes && printed.status.success(),
            "{compression}"
        );
        let rebuilt = build(&archive, &path("another"), compression, 2);
        assert_same(&image_inventory(&path("another"), compression), &wanted);
        assert_eq!(rebuilt["manifest_digest"], digest);
    }
}

/// GNU tar finds no difference to the tree, and bsdtar makes the tree of it.
#[test]
#[ignore = "needs root, bsdtar and extended attributes"]
fn other_programs_read_an_archive() {
    needs_root();
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = tree(scratch.path());
    let archive = path("archive");
    export(&store, &[], &archive);
    let compared = output(
        Command::new("tar")
            .arg("-df")
            .arg(&archive)
            .arg("-C")
            .arg(&tree),
    );
    // A long name that is not UTF-8 needs a record that tar ignores.
    let said = stderr(&compared);
    let said = said
        .lines()
        .filter(|line| !line.ends_with("keyword 'hdrcharset'"));
    let said: Vec<&str> = said.collect();
    assert!(compared.status.success() && said.is_empty(), "{said:?}");
    assert_eq!(compared.stdout, b"");
    let wanted = directory_inventory(&tree);
    let list = output(Command::new("tar").args(["-tf", archive.to_str().unwrap()]));
    assert_eq!(
        list.stdout.iter().filter(|&&byte| byte == b'\n').count(),
        wanted.len()
    );
    for program in [
        &[
            "tar",
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
        ][..],
        &["bsdtar", "--numeric-owner"],
    ] {
        let made = path(&format!("made-by-{}", program[0]));
        fs::create_dir(&made).unwrap();
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg("-xpf")
            .arg(&archive)
            .arg("-C")
            .arg(&made);
        let extracted = output(&mut command);
        assert!(
            extracted.status.success(),
            "{program:?}: {}",
            stderr(&extracted)
        );
        let mut found = directory_inventory(&made);
        let mut wanted = wanted.clone();
        for inventory in [&mut found, &mut wanted] {
            for seen in inventory.values_mut() {
                // bsdtar restores no attribute of other name spaces, and adds the fraction of a time
                // before 1970 instead of subtracting it.
                if program[0] == "bsdtar" {
                    seen.xattrs.retain(|name, _| name.starts_with(b"user."));
                    seen.mtime = seen.mtime.max((0, 0));
                }
            }
        }
        if program[0] == "bsdtar" {
            // It does not restore the time of the directory that it extracts into.
            let root = Path::new("");
            found.get_mut(root).unwrap().mtime = wanted[root].mtime;
        }
        assert_same(&found, &wanted);
    }
}

/// The fields of a header cannot hold these times, ids, names and targets.
#[test]
fn extreme_values_survive() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/file"), "contents").unwrap();
    let deep = (0..15).fold(path("tree"), |path, _| path.join("ä".repeat(100)));
    fs::create_dir_all(&deep).unwrap();
    std::os::unix::fs::symlink("t".repeat(300), path("tree/link")).unwrap();
    fs::hard_link(path("tree/file"), deep.join("hard")).unwrap();
    set_mtime(&path("tree/file"), -2, 500_000_000);
    set_mtime(&path("tree/link"), 5_000_000_000, 1);
    let options = ["--owner=4000000000:3000000"];
    assert!(build_with(&options, &path("tree"), &path("store"), "t")
        .status
        .success());
    let wanted = image_inventory_without_contents(&path("store"));
    let image = reference(&path("store"), "t");
    let mut exporter = puzzlefs()
        .args(["export", "-q", &image])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut builder = puzzlefs();
    builder.args(["build", "-q", "-", &reference(&path("store"), "again")]);
    builder.stdin(exporter.stdout.take().unwrap());
    let built = builder.output().unwrap();
    assert!(built.status.success(), "{}", stderr(&built));
    assert!(exporter.wait().unwrap().success());
    let digest = |tag: &str| *open(&path("store"), tag).1.root.manifest_digest();
    assert_eq!(digest("t"), digest("again"));
    assert_eq!(wanted, 18);
}

/// The number of entries of the image `t`.
fn image_inventory_without_contents(store: &Path) -> usize {
    let list = says(&["ls", "-R", &reference(store, "t")]);
    list.lines().count()
}

#[test]
fn a_part_of_an_image() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("tree/usr/bin")).unwrap();
    fs::write(path("tree/usr/bin/program"), "program").unwrap();
    fs::write(path("tree/other"), "").unwrap();
    build(&path("tree"), &path("store"), "t", 1);
    let names = |part: &str| {
        let archive = path("archive");
        let image = format!("{}:{part}", reference(&path("store"), "t"));
        says(&["export", "-q", "-o", archive.to_str().unwrap(), &image]);
        let list = output(Command::new("tar").args(["-tf", archive.to_str().unwrap()]));
        String::from_utf8(list.stdout).unwrap()
    };
    assert_eq!(names("/usr"), "./\nbin/\nbin/program\n");
    assert_eq!(names("/usr/bin/program"), "program\n");
    assert_eq!(names("/"), "./\nother\nusr/\nusr/bin/\nusr/bin/program\n");
}

#[test]
fn a_failed_export_leaves_the_file_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/a"), noise(300_000, 1)).unwrap();
    fs::write(path("tree/b"), noise(300_000, 2)).unwrap();
    UnixListener::bind(path("tree/socket")).unwrap();
    build_v3(&path("tree"), &path("store"), "t", 1);
    let (archive, image) = (path("archive"), reference(&path("store"), "t"));
    fs::write(&archive, "old").unwrap();
    let (store, found) = open_v3(&path("store"), "t");
    let blob = found.data_blobs().last().unwrap();
    let blob = store.blob_path(&puzzlefs_lib::Digest::from_oci(&blob.digest).unwrap());
    let sound = fs::read(&blob).unwrap();
    fs::write(&blob, noise(sound.len(), 3)).unwrap();
    let said = fails(&["export", "-q", "-o", archive.to_str().unwrap(), &image]);
    assert!(said.contains("the blob is damaged"), "{said}");
    assert_eq!(fs::read(&archive).unwrap(), b"old");
    let layout = path("layout");
    let said = fails(&["export", "-q", "--oci", layout.to_str().unwrap(), &image]);
    assert!(said.contains("the blob is damaged"), "{said}");
    assert_eq!(
        fs::read_dir(layout.join("blobs/sha256")).unwrap().count(),
        0
    );
    assert_eq!(leftovers(&layout), [""; 0]);
    // Nothing but what was there: the names of the directory tell of a temporary file.
    let mut names: Vec<_> = fs::read_dir(scratch.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["archive", "layout", "store", "tree"]);
    fs::write(&blob, sound).unwrap();
    let output = run(&["export", "-o", archive.to_str().unwrap(), &image]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("left out 1 socket: socket"),
        "{}",
        stderr(&output)
    );
    // A device is written to.
    says(&["export", "-q", "-o", "/dev/null", &image]);
    let full = run(&["export", "-q", "-o", "/dev/full", &image]);
    assert_eq!(full.status.code(), Some(1));
    assert!(
        stderr(&full).contains("No space left on device"),
        "{}",
        stderr(&full)
    );
    for wrong in [
        &["export", "--json", &image][..],
        &["export", "--oci", "layout", "-o", "file", &image],
        &["export", "--platform", "linux/amd64", &image],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// Reads a JSON blob of a layout.
fn blob(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    let bytes = fs::read(path).unwrap();
    assert_eq!(descriptor["size"], bytes.len());
    serde_json::from_slice(&bytes).unwrap()
}

/// The manifest and the configuration of the image of a tag.
fn configuration(layout: &Path, tag: &str) -> (Value, Value) {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let is_wanted =
        |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
    let manifest = blob(layout, manifests.iter().find(is_wanted).unwrap());
    let config = blob(layout, &manifest["config"]);
    (manifest, config)
}

#[test]
fn an_ordinary_image_is_imported_again() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("tree/etc")).unwrap();
    fs::write(path("tree/etc/file"), noise(200_000, 1)).unwrap();
    fs::hard_link(path("tree/etc/file"), path("tree/hard")).unwrap();
    set_mtime(&path("tree/etc"), 77, 88);
    build(&path("tree"), &path("store"), "t", 1);
    let image = reference(&path("store"), "t");
    let wanted = image_inventory(&path("store"), "t");
    let layout = path("layout");
    for (options, kind, tag) in [
        (&[][..], "tar+gzip", "t"),
        (&["--compress=zstd"], "tar+zstd", "zstd"),
        (
            &["--compress=none", "--platform=linux/arm/v7"],
            "tar",
            "plain",
        ),
    ] {
        let target = match tag {
            "t" => layout.to_str().unwrap().to_owned(),
            tag => reference(&layout, tag),
        };
        let first = ["export", "--json", "--oci", &target];
        let report: Value =
            serde_json::from_str(&says(&[&first[..], options, &[&image]].concat())).unwrap();
        let (manifest, config) = configuration(&layout, tag);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        let layer = &manifest["layers"][0];
        let media_type = format!("application/vnd.oci.image.layer.v1.{kind}");
        assert_eq!(layer["mediaType"], media_type.as_str());
        assert_eq!(layer["digest"], report["layer_digest"]);
        assert_eq!(layer["size"], report["layer_bytes"]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([report["diff_id"]]));
        assert_eq!(config["os"], "linux");
        if tag == "plain" {
            assert_eq!(
                (&config["architecture"], &config["variant"]),
                (&json!("arm"), &json!("v7"))
            );
            assert_eq!(layer["digest"], report["diff_id"]);
            continue;
        }
        let source = reference(&layout, tag);
        says(&["import", "-q", &source, &reference(&path("again"), tag)]);
        assert_same(&image_inventory(&path("again"), tag), &wanted);
    }
    // Beside PuzzleFS images, and never in the place of the image itself.
    let store = path("store");
    let said = fails(&["export", "--oci", store.to_str().unwrap(), &image]);
    assert!(
        said.contains("names the image itself; give another tag"),
        "{said}"
    );
    says(&["export", "-q", "--oci", &reference(&store, "oci"), &image]);
    let tags = says(&["list", store.to_str().unwrap()]);
    assert!(
        tags.contains("oci ") && tags.contains("(not a PuzzleFS image)"),
        "{tags}"
    );
    says(&["verify", "-q", store.to_str().unwrap()]);
    says(&["ls", &image]);
}

/// The configuration of an imported image survives, and its history tells of no layers that are gone.
#[test]
fn configuration_and_history_are_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/file"), "contents").unwrap();
    build(&path("tree"), &path("store"), "t", 1);
    // An ordinary image with a configuration of its own, by an export that is changed.
    let layout = path("layout");
    says(&[
        "export",
        "-q",
        "--oci",
        layout.to_str().unwrap(),
        &reference(&path("store"), "t"),
    ]);
    let (mut manifest, mut config) = configuration(&layout, "t");
    config["created"] = json!("2026-01-02T03:04:05Z");
    config["config"] = json!({"Env": ["A=B"], "Entrypoint": ["/file"], "Labels": {"x": "y"}});
    config["history"] = json!([{"created_by": "one"}, {"created_by": "two", "empty_layer": true}]);
    let digest = put_blob(&layout, &serde_json::to_vec(&config).unwrap());
    manifest["config"]["digest"] = json!(digest.to_oci());
    manifest["config"]["size"] = json!(serde_json::to_vec(&config).unwrap().len());
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let descriptor = puzzlefs_lib::oci::Descriptor::new(
        puzzlefs_lib::oci::MANIFEST,
        put_blob(&layout, &bytes),
        bytes.len() as u64,
    );
    put_in_index(
        &layout,
        descriptor.annotated(puzzlefs_lib::oci::REF_NAME, "changed"),
    );
    let store = reference(&path("store"), "imported");
    says(&["import", "-q", &reference(&layout, "changed"), &store]);
    says(&["export", "-q", "--oci", &reference(&layout, "back"), &store]);
    let (_, back) = configuration(&layout, "back");
    for key in ["created", "config", "os", "architecture"] {
        assert_eq!(back[key], config[key], "{key}");
    }
    let history = back["history"].as_array().unwrap();
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true);
    assert_eq!((history.len(), layers.count()), (3, 1));
    assert_eq!(history[0]["created_by"], "one");
    assert_eq!(history[2]["created_by"], "puzzlefs export");
}

#[test]
fn a_layer_holds_no_names_of_whiteouts() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("tree/sub")).unwrap();
    fs::write(path("tree/sub/.wh.file"), "contents").unwrap();
    build(&path("tree"), &path("store"), "t", 1);
    let (image, layout) = (reference(&path("store"), "t"), path("layout"));
    let said = fails(&["export", "--oci", layout.to_str().unwrap(), &image]);
    assert!(
        said.contains("sub/.wh.file: cannot be in a layer"),
        "{said}"
    );
    let archive = path("archive");
    says(&["export", "-q", "-o", archive.to_str().unwrap(), &image]);
    build(&archive, &path("store"), "again", 1);
    assert!(image_inventory(&path("store"), "again").contains_key(Path::new("sub/.wh.file")));
}

/// An export to a layout and a copy of all images end at once, and leave nothing.
#[test]
fn an_interruption_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/file"), noise(300_000, 1)).unwrap();
    build(&path("tree"), &path("store"), "t", 1);
    let image = reference(&path("store"), "t");
    let store = path("store").to_str().unwrap().to_owned();
    let layout = path("layout").to_str().unwrap().to_owned();
    for (arguments, what) in [
        (["export", "--oci", &layout, &image], "nothing was exported"),
        (["copy", "--all", &store, &layout], "nothing was tagged"),
    ] {
        let pause = Pause::at("staging");
        let mut command = puzzlefs();
        command.args(arguments).stderr(Stdio::piped());
        let mut child = pause.spawn(&mut command);
        let paused = pause.reached(&mut child).unwrap();
        paused.interrupt(&child, rustix::process::Signal::TERM);
        let output = finish(child);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(stderr(&output), format!("puzzlefs: interrupted; {what}\n"));
        assert_eq!(
            fs::read_dir(path("layout/blobs/sha256")).unwrap().count(),
            0
        );
        assert_eq!(leftovers(&path("layout")), [""; 0]);
        assert_eq!(says(&["list", &layout]), "");
    }
}

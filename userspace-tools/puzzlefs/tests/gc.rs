// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs gc` removes what no image needs, and nothing else, whoever is at work.

use crate::common::*;
use puzzlefs_lib::oci::{self, Descriptor};
use puzzlefs_lib::Digest;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn gc(store: &Path) -> Value {
    let said = says(&["gc", "--json", store.to_str().unwrap()]);
    serde_json::from_str(&said).unwrap()
}

fn blobs(store: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(store.join("blobs/sha256")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A store with two images that share much, and what is left of a third.
fn store_to_sweep(scratch: &Path) -> PathBuf {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    make_tree(&tree, false);
    build_v3(&tree, &store, "kept", 2);
    build_v3(&tree, &scratch.join("alone"), "kept", 1);
    fs::write(tree.join("more"), noise(200_000, 500)).unwrap();
    build_v3(&tree, &store, "untagged", 2);
    fs::remove_file(tree.join("more")).unwrap();
    store
}

#[test]
fn what_no_image_needs_is_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_to_sweep(scratch.path());
    let path = store.to_str().unwrap();
    assert_eq!(gc(&store)["removed_blobs"], 0);
    let before = blobs(&store);
    let kept = image_inventory(&store, "kept");
    let stray = put_blob(&store, b"stray").to_hex();
    says(&["untag", &reference(&store, "untagged")]);
    fs::create_dir(store.join(".puzzlefs/staging-dead")).unwrap();
    fs::write(store.join(".puzzlefs/staging-dead/blob"), "x").unwrap();

    let dry = says(&["gc", "--dry-run", path]);
    assert!(dry.contains(&stray), "{dry}");
    assert_eq!(blobs(&store).len(), before.len() + 1);
    let found = gc(&store);
    let after = blobs(&store);
    assert!(found["removed_bytes"].as_u64().unwrap() > 200_000);
    assert_eq!(found["removed_blobs"], before.len() + 1 - after.len());
    assert_eq!(found["removed_staging"], 1);
    assert_eq!(
        dry.lines().count() as u64,
        found["removed_blobs"].as_u64().unwrap() + 2
    );
    assert!(!after.contains(&stray) && leftovers(&store).is_empty());
    says(&["verify", "-q", path]);
    assert_same(&kept, &image_inventory(&store, "kept"));
    // Exactly what a store of its own would have.
    assert!(after == blobs(&scratch.path().join("alone")));
}

/// Puts a document of another tool into a store.
fn document(store: &Path, media_type: &str, document: &Value) -> Descriptor {
    let text = document.to_string();
    Descriptor::new(
        media_type,
        put_blob(store, text.as_bytes()),
        text.len() as u64,
    )
}

#[test]
fn images_of_other_kinds_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_to_sweep(scratch.path());
    let blob = |text: &str| {
        let digest = put_blob(&store, text.as_bytes());
        Descriptor::new("application/octet-stream", digest, text.len() as u64)
    };
    let manifest = |media_type: &str, name: &str, subject: Option<&Descriptor>| {
        document(
            &store,
            media_type,
            &json!({
                "schemaVersion": 2, "subject": subject,
                "config": blob(&format!("config of {name}")),
                "layers": [blob(&format!("layer 1 of {name}")), blob(&format!("layer 2 of {name}"))],
            }),
        )
    };
    let docker = "application/vnd.docker.distribution.manifest";
    let subject = manifest(oci::MANIFEST, "subject", None);
    let plain = manifest(oci::MANIFEST, "plain", Some(&subject));
    let absent = Descriptor::new(oci::MANIFEST, Digest::of(b"another platform"), 16);
    let inner = manifest(&format!("{docker}.v2+json"), "inner", None);
    let list = json!({"schemaVersion": 2, "manifests": [inner, absent]});
    let list = document(&store, &format!("{docker}.list.v2+json"), &list);
    let nested = json!({"schemaVersion": 2, "manifests": [list]});
    let nested = document(&store, oci::INDEX, &nested);
    let all = blobs(&store);
    put_in_index(&store, plain);
    put_in_index(&store, nested.annotated(oci::REF_NAME, "nested"));
    assert_eq!(gc(&store)["removed_blobs"], 0);
    assert_eq!(blobs(&store), all);
    // Without their entries, all fourteen go.
    let mut index = puzzlefs_lib::Store::open(&store).unwrap().index().unwrap();
    index.manifests.truncate(2);
    fs::write(
        store.join("index.json"),
        serde_json::to_vec(&index).unwrap(),
    )
    .unwrap();
    assert_eq!(gc(&store)["removed_blobs"], 14);
}

#[test]
fn what_cannot_be_followed_stops_the_sweep() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_to_sweep(scratch.path());
    let path = store.to_str().unwrap();
    put_blob(&store, b"stray");
    let all = blobs(&store);
    let index = fs::read(store.join("index.json")).unwrap();
    let refuses = |wanted: &str| {
        for arguments in [&["gc", path][..], &["gc", "-n", path]] {
            let said = fails(arguments);
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        assert_eq!(blobs(&store), all);
        fs::write(store.join("index.json"), &index).unwrap();
    };
    let known = Digest::of(b"stray");
    put_in_index(&store, Descriptor::new("application/x-odd", known, 5));
    refuses("its type, 'application/x-odd', is not known here");
    put_in_index(&store, Descriptor::new(oci::MANIFEST, known, 5));
    refuses(&format!("{known}: not a '{}'", oci::MANIFEST));
    put_in_index(&store, Descriptor::new(oci::INDEX, known, 5));
    refuses(&format!("{known}: not a '{}'", oci::INDEX));
    let none = Digest::of(b"none");
    put_in_index(&store, Descriptor::new(oci::MANIFEST, none, 4));
    let blob = store.join("blobs/sha256").join(none.to_hex());
    refuses(&format!(
        "cannot open the blob {}: No such file",
        blob.display()
    ));
    let mut other = Descriptor::new(oci::MANIFEST, known, 5);
    other.digest = "sha512:00".to_owned();
    put_in_index(&store, other);
    refuses("'sha512:00' is not a sha256 digest");
    fs::write(store.join("index.json"), r#"{"schemaVersion":2}"#).unwrap();
    refuses("not an OCI image index: it is JSON, but a field is missing");
    let (_, image) = open_v3(&store, "kept");
    let by_digest = format!("{}@{}", store.display(), image.manifest_digest.to_oci());
    let tree = scratch.path().join("tree");
    let kept = reference(&store, "kept");
    for (unknown, wanted) in [
        (
            r#"{"schemaVersion":3,"manifests":[]}"#,
            "index.json: version 3 of an index is not known",
        ),
        (
            r#"{"schemaVersion":2,"mediaType":"application/x-odd","manifests":[]}"#,
            "index.json: its type is 'application/x-odd', not one of an index",
        ),
    ] {
        fs::write(store.join("index.json"), unknown).unwrap();
        let output = run(&["verify", path]);
        assert!(String::from_utf8_lossy(&output.stdout).contains(wanted));
        // Nor is it for us to be rewritten.
        for arguments in [
            &["build", tree.to_str().unwrap(), &kept][..],
            &["copy", &by_digest, &kept],
            &["tag", &by_digest, "another"],
            &["untag", &kept],
        ] {
            let said = fails(arguments);
            assert!(said.contains(wanted), "{arguments:?}: {said}");
        }
        assert_eq!(
            fs::read(store.join("index.json")).unwrap(),
            unknown.as_bytes()
        );
        refuses(wanted);
    }
    fs::remove_file(store.join("index.json")).unwrap();
    refuses("missing: nothing says which blobs are needed");

    // Both of a PuzzleFS image's: the manifest, and the metadata.
    for digest in [image.manifest_digest, image.rootfs] {
        let blob = store.join("blobs/sha256").join(digest.to_hex());
        let good = fs::read(&blob).unwrap();
        let mut bad = good.clone();
        bad[50] ^= 1;
        fs::write(&blob, bad).unwrap();
        refuses(&format!("{digest}: the blob is damaged"));
        fs::write(&blob, good).unwrap();
    }
    assert_eq!(gc(&store)["removed_blobs"], 1);
}

/// A builder that waits for the rest of its archive, having found in the store what no image needs
/// any more: a sweep waits for it.
#[test]
fn a_builder_at_work_keeps_what_it_found() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("large"), noise(3 << 20, 1)).unwrap();
    build_v3(&tree, &store, "first", 1);
    says(&["untag", &reference(&store, "first")]);
    let archive = scratch.path().join("tar");
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    let archive = fs::read(archive).unwrap();
    let (begin, end) = archive.split_at(archive.len() - 512);

    let mut builder = puzzlefs();
    let builder = builder.args([
        "build",
        "--format=3",
        "--json",
        "-",
        &reference(&store, "second"),
    ]);
    let mut builder = builder
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = builder.stdin.take().unwrap();
    input.write_all(begin).unwrap();
    // From here on, the builder keeps sweeps off.
    wait_until("the builder is at work", || leftovers(&store).len() == 1);

    let path = store.to_str().unwrap();
    let said = fails(&["gc", "--no-wait", path]);
    assert!(
        said.contains("builders use the store; nothing was removed"),
        "{said}"
    );
    let mut sweeper = puzzlefs();
    let sweeper = sweeper.args(["gc", "--json", path]);
    let mut sweeper = sweeper
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the sweep waits for the builder", || {
        assert!(sweeper.try_wait().unwrap().is_none(), "it did not wait");
        waits_for_a_lock(&sweeper)
    });
    input.write_all(end).unwrap();
    drop(input);
    let built: Value = serde_json::from_slice(&finish(builder).stdout).unwrap();
    assert_eq!(built["shared_bytes"], 3 << 20);
    let swept = finish(sweeper);
    assert!(
        stderr(&swept).contains("waiting for builders"),
        "{}",
        stderr(&swept)
    );
    // What is left of the first image is its manifest and its metadata, or nothing.
    let swept: Value = serde_json::from_slice(&swept.stdout).unwrap();
    assert!(
        swept["removed_bytes"].as_u64().unwrap() < 100_000,
        "{swept}"
    );
    says(&["verify", "-q", path]);
    assert!(run(&["cat", &reference(&store, "second"), "large"]).stdout == noise(3 << 20, 1));
}

/// Builders and sweeps at once, some of them killed: each image that got its tag is whole.
#[test]
fn sweeps_among_builders() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let trees: Vec<_> = (0..3u64)
        .map(|number| {
            let tree = scratch.path().join(format!("tree{number}"));
            fs::create_dir(&tree).unwrap();
            // Each has something of its neighbours.
            for file in 0..12 {
                let seed = (number + file) % 12;
                fs::write(
                    tree.join(format!("{file}")),
                    noise(100_000 + seed as usize, seed),
                )
                .unwrap();
            }
            tree
        })
        .collect();
    build(&trees[0], &store, "t0", 1);
    let command = |arguments: &[&str]| -> Command {
        let mut command = puzzlefs();
        command.args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let spawn = |arguments: &[&str]| -> Child { command(arguments).spawn().unwrap() };
    let path = store.to_str().unwrap();
    for round in 0..25usize {
        // Its blobs are nobody's, until a builder finds them again.
        let tag = format!("t{}", round % 3);
        let _ = run(&["untag", &reference(&store, &tag)]);
        let tree = |number: usize| trees[(round + number) % 3].to_str().unwrap();
        let images = [0, 1].map(|number| reference(&store, &format!("t{}", (round + number) % 3)));
        let builders = [0, 1].map(|n| spawn(&["build", "-q", "-j1", tree(n), &images[n]]));
        // Each fifth one is killed before it removes the first blob, or the second, and so on.
        let pause = match round % 5 {
            4 if round == 4 => Pause::at("marked"),
            4 => Pause::nth("removed", round as u64 / 5),
            _ => Pause::nth("marked", u64::MAX),
        };
        let mut sweeper = pause.spawn(&mut command(&["gc", path]));
        if round % 5 == 4 {
            let paused = pause.reached(&mut sweeper);
            sweeper.kill().unwrap();
            drop(paused);
        }
        for builder in builders {
            let output = finish(builder);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        let swept = finish(sweeper);
        assert!(
            round % 5 == 4 || swept.status.success(),
            "{}",
            stderr(&swept)
        );
        says(&["verify", "-q", path]);
    }
    gc(&store);
    says(&["verify", "-q", path]);
    assert_eq!(leftovers(&store), [""; 0]);
}

#[test]
fn what_a_sweep_has_begun_to_remove_gets_no_tag() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_to_sweep(scratch.path());
    let (_, image) = open_v3(&store, "untagged");
    let by_digest = format!("{}@{}", store.display(), image.manifest_digest.to_oci());
    says(&["untag", &reference(&store, "untagged")]);
    let data = Digest::from_oci(&image.data_blobs().next().unwrap().digest).unwrap();
    fs::remove_file(store.join("blobs/sha256").join(data.to_hex())).unwrap();
    let said = fails(&["tag", &by_digest, "again"]);
    assert!(
        said.contains(&format!("{data}: the blob is missing")),
        "{said}"
    );
}

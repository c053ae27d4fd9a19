// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stores that another tool has filled with images of format 4: they have no chunk index, or one that does
//! not list all packs. Each command works as on a store of ours.

use crate::common::*;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A store with the images `first` and `second`, which share most chunks, and the trees of them.
struct Stores {
    scratch: tempfile::TempDir,
}

/// The state of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Written by our commands.
    Own,
    /// Copied by another tool.
    Foreign,
    /// The same, and no chunk index can be written.
    Locked,
    /// Another tool has copied the second image into a store of ours that has the first.
    Mixed,
}

impl Stores {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let stores = Stores { scratch };
        let (tree, own) = (stores.path("tree"), stores.path("own"));
        fs::create_dir_all(tree.join("sub")).unwrap();
        for file in 0..20 {
            let size = 1 + 5000 * file as usize;
            fs::write(tree.join(format!("sub/{file}")), noise(size, file)).unwrap();
        }
        fs::write(tree.join("large"), noise(3 << 20, 100)).unwrap();
        build(&tree, &own, "first", 2);
        says_in(&["cp", "-a", path(&own), path(&stores.path("before"))]);
        let second = stores.path("tree2");
        says_in(&["cp", "-a", path(&tree), path(&second)]);
        fs::write(second.join("sub/19"), noise(70_000, 200)).unwrap();
        build(&second, &own, "second", 2);
        stores
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Makes the store in a state, at the same path each time.
    fn make(&self, state: State) -> PathBuf {
        let (own, store) = (self.path("own"), self.path("store"));
        let _ = fs::remove_dir_all(&store);
        if state == State::Own {
            says_in(&["cp", "-a", path(&own), path(&store)]);
            return store;
        }
        if state == State::Mixed {
            says_in(&["cp", "-a", path(&self.path("before")), path(&store)]);
        }
        fs::create_dir_all(store.join("blobs/sha256")).unwrap();
        for part in ["oci-layout", "index.json", "blobs/."] {
            let to = if part == "blobs/." { "blobs" } else { "." };
            says_in(&["cp", "-a", path(&own.join(part)), path(&store.join(to))]);
        }
        if state == State::Locked {
            fs::create_dir_all(store.join(".puzzlefs/chunks.lock")).unwrap();
        }
        store
    }

    /// Runs a command on the store in each state. Asserts that it succeeds and that the outcomes are equal.
    fn compare(&self, states: &[State], act: impl Fn(&Path) -> String) {
        let wanted = act(&self.make(State::Own));
        for state in states {
            assert_eq!(act(&self.make(*state)), wanted, "{state:?}");
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs another program, which must succeed.
fn says_in(command: &[&str]) {
    let status = Command::new(command[0]).args(&command[1..]).status();
    assert!(status.unwrap().success(), "{command:?}");
}

/// Runs a command with `--json`, which must succeed. Leaves out fields that differ from run to run.
fn json(arguments: &[&str]) -> Value {
    let said = says(&[arguments, &["--json"]].concat());
    let mut value: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    if let Some(object) = value.as_object_mut() {
        for field in ["seconds", "unlisted_packs"] {
            object.remove(field);
        }
    }
    value
}

const READ: [State; 3] = [State::Foreign, State::Locked, State::Mixed];
const WRITTEN: [State; 2] = [State::Foreign, State::Mixed];

#[test]
fn reading() {
    let stores = Stores::new();
    let out = stores.path("out");
    let read: [&[&str]; 10] = [
        &["ls", "-R", "second"],
        &["cat", "second", "/sub/19"],
        &["inspect", "second", "--json"],
        &["inspect", "second", "/sub/19", "--json"],
        &["inspect", "second", "/large", "--json"],
        &["diff", "first", "second", "--json"],
        &["du", "store", "--json"],
        &["list", "store", "--json"],
        &["export", "second"],
        &["resolve", "second"],
    ];
    for arguments in read {
        stores.compare(&READ, |store| {
            let named: Vec<String> = arguments
                .iter()
                .map(|argument| match *argument {
                    "store" => path(store).to_owned(),
                    "first" | "second" => reference(store, argument),
                    other => other.to_owned(),
                })
                .collect();
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            let output = run(&named);
            assert!(output.status.success(), "{named:?}: {}", stderr(&output));
            assert_eq!(stderr(&output), "", "{named:?}");
            format!("{:?}", output.stdout)
        });
    }
    stores.compare(&READ, |store| {
        let _ = fs::remove_dir_all(&out);
        extract(store, "second", &out);
        format!("{:?}", directory_inventory(&out))
    });
    stores.compare(&READ, |store| {
        let image = reference(store, "second");
        format!(
            "{} {}",
            json(&["verify", path(store)]),
            json(&["verify", &image])
        )
    });
    for options in [&[][..], &["--format=3"]] {
        stores.compare(&READ, |store| {
            let _ = fs::remove_dir_all(&out);
            let (from, to) = (reference(store, "second"), reference(&out, "t"));
            says(&[&["convert", "-q"], options, &[&from, &to]].concat());
            format!("{:?}", image_inventory(&out, "t"))
        });
    }
    stores.compare(&READ, |store| {
        let _ = fs::remove_dir_all(&out);
        let (from, to) = (reference(store, "second"), reference(&out, "t"));
        let copied = json(&["copy", &from, &to]);
        check_store(&out);
        copied.to_string()
    });
}

/// No reading command has written anything.
#[test]
fn reading_writes_nothing() {
    let stores = Stores::new();
    let store = stores.make(State::Foreign);
    for arguments in [["ls", "-R"], ["verify", "-q"], ["inspect", "--json"]] {
        says(&[&arguments[..], &[&reference(&store, "second")]].concat());
    }
    assert!(!store.join(".puzzlefs").exists());
}

#[test]
fn writing() {
    let stores = Stores::new();
    let tree = stores.path("tree2");
    fs::write(tree.join("new"), noise(60_000, 300)).unwrap();
    // The chunks of both images are found, and each is in the index afterwards.
    let whole = |store: &Path| {
        let report = says(&["verify", "--json", path(store)]);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["unlisted_packs"], 0, "{report}");
        let mut images = report["packed"].as_array().unwrap().iter();
        assert!(images.all(|image| image["whole"] == true), "{report}");
    };
    stores.compare(&WRITTEN, |store| {
        let mut built = build(&tree, store, "second", 2);
        whole(store);
        built["seconds"].take();
        assert!(built["shared_chunks"].as_u64().unwrap() > 20, "{built}");
        built.to_string()
    });
    for command in ["complete", "repack"] {
        stores.compare(&WRITTEN, |store| {
            let report = json(&[command, &reference(store, "second")]);
            check_store(store);
            report.to_string()
        });
    }
    stores.compare(&WRITTEN, |store| {
        says(&["untag", &reference(store, "first")]);
        let before = json(&["gc", "--dry-run", path(store)]);
        let report = json(&["gc", "--max-dead=0", path(store)]);
        whole(store);
        format!("{before} {report}")
    });
    stores.compare(&WRITTEN, |store| {
        let (from, to) = (
            reference(&stores.path("own"), "second"),
            reference(store, "copy"),
        );
        let report = json(&["copy", &from, &to]);
        whole(store);
        report.to_string()
    });
    stores.compare(&WRITTEN, |store| {
        says(&["tag", &reference(store, "second"), "third"])
    });
    stores.compare(&WRITTEN, |store| {
        let image = reference(store, "second");
        says(&[
            "convert",
            "-q",
            "--compress=0",
            &image,
            &reference(store, "raw"),
        ]);
        whole(store);
        format!("{:?}", image_inventory(store, "raw"))
    });
}

/// Chunks of a pack that no manifest lists any more stay with the image that needs them.
#[test]
fn collecting_keeps_unlisted_packs_that_are_needed() {
    let stores = Stores::new();
    let store = stores.make(State::Own);
    says(&["untag", &reference(&store, "first")]);
    says(&["gc", "--max-dead=0", path(&store)]);
    let wanted = image_inventory(&store, "second");
    fs::remove_dir_all(store.join(".puzzlefs")).unwrap();
    assert_same(&wanted, &image_inventory(&store, "second"));
    says(&["gc", "--dry-run", path(&store)]);
    for _ in 0..2 {
        says(&["gc", "--max-dead=0", path(&store)]);
        assert_same(&wanted, &image_inventory(&store, "second"));
    }
    says(&["verify", "-q", path(&store)]);
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn mounting_over_fuse() {
    needs_root();
    let stores = Stores::new();
    let mnt = stores.path("mnt");
    fs::create_dir(&mnt).unwrap();
    stores.compare(&READ, |store| {
        says(&["mount", "--fuse", &reference(store, "second"), path(&mnt)]);
        let inventory = format!("{:?}", directory_inventory(&mnt));
        says(&["umount", "--lazy", path(&mnt)]);
        inventory
    });
}

/// Before the first release, layers had other media types.
#[test]
fn images_with_early_media_types_are_read() {
    let stores = Stores::new();
    let own = stores.path("own");
    let path_of = |digest: &str| own.join("blobs").join(digest.replace(':', "/"));
    let mut index: Value =
        serde_json::from_slice(&fs::read(own.join("index.json")).unwrap()).unwrap();
    for image in index["manifests"].as_array_mut().unwrap() {
        let old = path_of(image["digest"].as_str().unwrap());
        let manifest = fs::read_to_string(&old).unwrap();
        let early = manifest.replace("vnd.oci.image.layer.puzzlefs.", "vnd.puzzlefs.");
        assert_ne!(early, manifest);
        let digest = puzzlefs_lib::Digest::of(early.as_bytes()).to_oci();
        fs::write(path_of(&digest), &early).unwrap();
        image["digest"] = digest.into();
        image["size"] = early.len().into();
        fs::remove_file(old).unwrap();
    }
    fs::write(own.join("index.json"), index.to_string()).unwrap();
    let store = path(&own);
    says(&["gc", store]);
    says(&["verify", "-q", store]);
    let copy = reference(&stores.path("copy"), "second");
    says(&["copy", "--whole-packs", &reference(&own, "second"), &copy]);
    assert_same(
        &image_inventory(&own, "second"),
        &image_inventory(&stores.path("copy"), "second"),
    );
}

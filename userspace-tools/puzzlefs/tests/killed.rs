// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builders that are killed at any moment, beside one that is not, leave a store that is whole.

mod common;

use common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BUILDS: u64 = 200;

/// What is drawn at random: again the same with `PUZZLEFS_SEED`.
fn seed() -> u64 {
    let seed = match std::env::var("PUZZLEFS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    };
    println!("PUZZLEFS_SEED={seed}");
    seed
}

/// The `number`th of a sequence of fractions.
fn fraction(seed: u64, number: u64) -> f64 {
    let bytes = noise(8, seed.wrapping_mul(BUILDS).wrapping_add(number));
    f64::from(u32::from_le_bytes(bytes[4..].try_into().unwrap())) / f64::from(u32::MAX)
}

/// A tree of small and large files, some of them in no other tree.
fn tree(parent: &Path, number: u64) -> PathBuf {
    let tree = parent.join("tree");
    fs::create_dir_all(tree.join("small")).unwrap();
    for file in 0..20 {
        fs::write(tree.join(format!("small/{file}")), noise(2_000, file)).unwrap();
    }
    fs::write(tree.join("small/own"), noise(30_000, number + 1_000)).unwrap();
    fs::write(tree.join("same"), noise(60_000, 99)).unwrap();
    fs::write(tree.join("own"), noise(60_000, number + 2_000)).unwrap();
    tree
}

#[test]
fn two_hundred_killed_builds() {
    let scratch = memory_scratch();
    let store = scratch.path().join("store");
    let (one, other) = (scratch.path().join("one"), scratch.path().join("other"));
    let start = Instant::now();
    build(&tree(&one, BUILDS), &store, "first", 1);
    let whole_build = start.elapsed();
    let seed = seed();

    let stop = AtomicBool::new(false);
    let mut killed = 0;
    let (others, done) = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut builds = 0;
            while builds == 0 || !stop.load(Ordering::Relaxed) {
                builds += 1;
                build(&tree(&other, 10 * BUILDS + builds), &store, "beside", 2);
            }
            builds
        });
        let mut done = Vec::new();
        for number in 0..BUILDS {
            let tree = tree(&one, number);
            let tag = format!("t{number}");
            let mut builder = puzzlefs()
                .args(["build", "-q", "--source-date-epoch=0"])
                .arg(&tree)
                .arg(reference(&store, &tag))
                .stderr(Stdio::inherit())
                .spawn()
                .unwrap();
            thread::sleep(whole_build.mul_f64(1.3 * fraction(seed, number)));
            builder.kill().unwrap();
            match builder.wait().unwrap().success() {
                true => done.push(tag),
                false => killed += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
        (beside.join().unwrap(), done)
    });
    println!("{killed} killed, {} done, {others} beside them", done.len());
    assert!(killed > BUILDS / 10, "{killed}");

    // Every fault would be told, of the images and of blobs that none has.
    says(&["verify", store.to_str().unwrap()]);
    let store_now = puzzlefs_lib::Store::open(&store).unwrap();
    let tags = store_now.index().unwrap().tags();
    for tag in done.iter().map(String::as_str).chain(["first", "beside"]) {
        assert!(tags.iter().any(|known| known == tag), "{tag} in {tags:?}");
    }
    // Who is killed after the last step was done with all of them: it is the image that a builder
    // makes that is left alone.
    for tag in tags.iter().filter(|tag| tag.starts_with('t')) {
        let number = tag[1..].parse().unwrap();
        let again = build_small(&tree(&one, number), &scratch.path().join("other-store"));
        let digest = open(&store, tag).1.manifest_digest.to_oci();
        assert_eq!(again["manifest_digest"], digest, "{tag}");
    }

    kill_a_builder_at_work(scratch.path(), &store);
    build(&tree(&one, 0), &store, "last", 2);
    assert_eq!(leftovers(&store), [""; 0]);
    kill_a_builder_at_work(scratch.path(), &store);
    says(&["gc", store.to_str().unwrap()]);
    assert_eq!(leftovers(&store), [""; 0]);
    check_store(&store);
}

fn build_small(tree: &Path, store: &Path) -> serde_json::Value {
    let output = build_with(&["--source-date-epoch=0"], tree, store, "t");
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Leaves what a killed builder leaves.
fn kill_a_builder_at_work(scratch: &Path, store: &Path) {
    let tree = scratch.join("large");
    fs::create_dir_all(&tree).unwrap();
    for number in 0..8 {
        let bytes = noise(1 << 20, 77 + number);
        fs::write(tree.join(number.to_string()), bytes).unwrap();
    }
    let mut builder = puzzlefs()
        .args(["build", "-q"])
        .arg(&tree)
        .arg(reference(store, "killed"))
        .spawn()
        .unwrap();
    let has_staged = || {
        let staging = fs::read_dir(store.join(".puzzlefs")).unwrap().flatten();
        let staging = staging.filter_map(|entry| fs::read_dir(entry.path()).ok());
        staging.flatten().count() > 0
    };
    while !has_staged() {
        thread::sleep(Duration::from_micros(100));
    }
    builder.kill().unwrap();
    assert!(!builder.wait().unwrap().success());
    assert_eq!(leftovers(store).len(), 1);
}

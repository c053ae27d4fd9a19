// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builders that are killed at every point, beside one that is not, leave a store that is whole.

use crate::common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const BUILDS: u64 = 200;

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

fn build_command(tree: &Path, store: &Path, tag: &str) -> Command {
    let mut command = puzzlefs();
    command.args(["build", "-q", "--source-date-epoch=0"]);
    command.arg(tree).arg(reference(store, tag));
    command
}

#[test]
fn two_hundred_killed_builds() {
    let scratch = memory_scratch();
    let store = scratch.path().join("store");
    let (one, other) = (scratch.path().join("one"), scratch.path().join("other"));
    build(&tree(&one, BUILDS), &store, "first", 1);

    let stop = AtomicBool::new(false);
    let mut killed = Vec::new();
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
        // The next point to kill a builder at; and whether that is while it is paused there, or some
        // time after it goes on.
        let (mut point, mut paused_there) = (1, true);
        for number in 0..BUILDS {
            let tag = format!("t{number}");
            let pause = Pause::nth("any", point);
            let mut builder = pause.spawn(&mut build_command(&tree(&one, number), &store, &tag));
            match pause.reached(&mut builder) {
                Some(paused) if paused_there => {
                    builder.kill().unwrap();
                    killed.push(paused.point.clone());
                    point += 1;
                }
                Some(paused) => {
                    drop(paused);
                    builder.kill().unwrap();
                    point += 1;
                }
                // There are fewer points: once more from the first one.
                None => (point, paused_there) = (1, !paused_there),
            }
            if finish(builder).status.success() {
                done.push(tag);
            }
        }
        stop.store(true, Ordering::Relaxed);
        (beside.join().unwrap(), done)
    });
    println!(
        "{} killed while paused, {} done, {others} beside them",
        killed.len(),
        done.len()
    );
    for point in [
        "staging",
        "read",
        "written",
        "named",
        "locked",
        "replacing",
        "replaced",
    ] {
        assert!(killed.iter().any(|at| at == point), "{point}: {killed:?}");
    }

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
        let digest = open(&store, tag).1.root.digest().to_hex();
        assert_eq!(again["rootfs_digest"], digest, "{tag}");
    }

    kill_a_builder_at_work(scratch.path(), &store);
    build(&tree(&one, 0), &store, "last", 2);
    assert_eq!(leftovers(&store), [""; 0]);
    kill_a_builder_at_work(scratch.path(), &store);
    // Packs that images list are kept, although they have chunks of killed builds.
    says(&["gc", "--max-dead=100", store.to_str().unwrap()]);
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
    let pause = Pause::at("created");
    let mut command = build_command(&tree, store, "killed");
    let mut builder = pause.spawn(command.stdout(Stdio::null()));
    let paused = pause.reached(&mut builder).unwrap();
    builder.kill().unwrap();
    assert!(!finish(builder).status.success());
    drop(paused);
    assert_eq!(leftovers(store).len(), 1);
}

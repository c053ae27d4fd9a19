// SPDX-License-Identifier: MIT OR Apache-2.0

//! A tar archive, perhaps compressed, that an image is built from, or that is an image archive.

use crate::random::Random;
use crate::Mutate;
use puzzlefs_lib::builder::{build, BuildOptions};
use puzzlefs_lib::import::{import, ImportSource};
use puzzlefs_lib::tree::ImageTree;
use puzzlefs_lib::verify::verify_image;
use puzzlefs_lib::{Progress, Selector, Store};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const BLOCK: usize = 512;

/// Maximum sum of the sizes of an archive's files, because sparse files can be larger than memory.
const CONTENTS_MAX: u64 = 4 << 20;

/// Builds an image of an archive, and, if it can be built, reads it back: whatever an archive
/// says, the image is right.
pub fn run(data: &[u8]) {
    let scratch = crate::scratch();
    let archive = scratch.path().join("archive");
    std::fs::write(&archive, data).expect("the archive is written");
    let store = Store::create(&scratch.path().join("store")).expect("a store is made");
    let options = BuildOptions::new("fuzz");
    let built = limited(|progress| build(&archive, &store, &options, progress));
    if built.is_ok() {
        check_image(&store);
    }
    // As an image archive, whose paths are resolved.
    if !MANIFESTS.iter().any(|name| contains(data, name)) {
        return;
    }
    let source = ImportSource {
        path: archive,
        tag: None,
        platform: None,
    };
    if limited(|progress| import(&source, &store, &options, progress)).is_ok() {
        check_image(&store);
    }
}

/// The files that an image archive has one of.
const MANIFESTS: [&[u8]; 2] = [b"index.json", b"manifest.json"];

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// Runs a build that is stopped where it comes upon more contents than there is time for.
pub(crate) fn limited<T>(build: impl FnOnce(&Progress) -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Progress::new(Arc::clone(&stop));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Relaxed) {
                stop.store(progress.bytes_found() > CONTENTS_MAX, Relaxed);
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let result = build(&progress);
        done.store(true, Relaxed);
        watcher.thread().unpark();
        result
    })
}

/// Verifies the image that was built.
pub(crate) fn check_image(store: &Store) {
    let selector = Selector::Tag("fuzz".to_owned());
    let verified = verify_image(store, &selector, 1, &Progress::default());
    let verified = verified.expect("the image can be read");
    assert_eq!(verified.faults, []);
    let root = store.any_root(&selector).expect("the image is there");
    let tree = ImageTree::new(store, &root).expect("its metadata is right");
    let root = tree.root().expect("it has a root directory");
    let visited = tree.visit(&root, |_, entry| tree.open(&entry.link).map(drop));
    visited.expect("all of it can be visited");
}

/// Changes an archive, and mostly makes the checksums of its headers right again.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, mutate: Mutate) -> usize {
    let mut random = Random(seed.into());
    let blocks = size / BLOCK;
    let mut size = size;
    match random.below(8) {
        // A member, or what goes with one, somewhere else.
        0 if blocks > 1 => {
            let (at, other) = (random.below(blocks) * BLOCK, random.below(blocks) * BLOCK);
            data.copy_within(other..other + BLOCK, at);
        }
        1 if blocks > 0 && size + BLOCK <= max_size => {
            let at = random.below(blocks) * BLOCK;
            data.copy_within(at..size, at + BLOCK);
            size += BLOCK;
        }
        // A header's type.
        2 if blocks > 0 => {
            let at = random.below(blocks) * BLOCK + 156;
            data[at] = b"0123456789xgLKVSDMNZ\0"[random.below(21)];
        }
        _ => size = mutate(data, size, max_size),
    }
    if random.below(8) != 0 {
        fix_checksums(&mut data[..size]);
    }
    size
}

fn fix_checksums(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if header == [0; BLOCK] {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().filter(|byte| byte.is_ascii_digit());
        let data = digits.fold(0, |size: usize, digit| {
            size.wrapping_mul(8).wrapping_add(usize::from(digit - b'0'))
        });
        at = at.saturating_add(data.div_ceil(BLOCK).saturating_mul(BLOCK));
        if at > archive.len() {
            return;
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! PuzzleFS: a read-only filesystem that mounts OCI image layouts of content-addressed chunks.
//!
//! | module | content |
//! | --- | --- |
//! | `misuse` | uses of `vfs` that the compiler must refuse |
//! | `ops` | the VFS-facing filesystem: options, superblocks, inodes, directories, attributes |
//! | `tree` | metadata: the tree of an image of any version, the cache of metadata chunks |
//! | `fill` | maps a request to pieces and folios |
//! | `codec` | raw, zstd, digest, chunks: stored bytes in, verified content out |
//! | `store` | the directory of blobs, open blobs, the chunk index |
//! | `io` | buffers, direct reads, the pool of workspaces |
//! | `base` | ranges, limits, faults, counters, events of tracepoints |
//! | `ports` | the kernel's zstd, SHA-256 and XXH64 behind the interfaces of crates; tracepoints |
//! | `vfs` | safe abstractions of the kernel's objects |
//!
//! A module uses only those below it; `qemu-test/check-arrows` checks that. The crate
//! `puzzlefs_schema`, which userspace compiles too, parses metadata. All `unsafe` code of the
//! module is in `ports` and `vfs`.
//!
//! # Locking
//!
//! The file that owns a lock states at its top which data it protects. [`vfs`] has the order of the
//! kernel's locks. Above `vfs`:
//!
//! - No lock is taken under another, except for the spinlock of [`codec::frame_cache`] inside the
//!   mutex of a frame's slot.
//! - Memory reclaim takes the locks of [`codec::frame_cache`], [`io::pool`], `store::open_blobs`
//!   and `tree::v4::chunk_cache`. Therefore no memory is allocated under them.
//! - No lock but the mutex of a slot, under which a frame is decompressed, is held for longer than
//!   a walk through a short list. None is held during I/O.

#![deny(unsafe_code)]

use ops::PuzzleFs;
use vfs::prelude::*;

mod base;
mod codec;
mod fill;
mod io;
#[cfg(vfs_misuse)]
mod misuse;
mod ops;
#[allow(unsafe_code)]
mod ports;
mod store;
mod tree;
#[allow(unsafe_code)]
mod vfs;

module! {
    type: PuzzleFsModule,
    name: "puzzlefs",
    authors: ["The PuzzleFS authors"],
    description: "PuzzleFS: mounts OCI image layouts of content-addressed chunks",
    license: "GPL",
    alias: ["fs-puzzlefs"],
}

/// The module.
type PuzzleFsModule = vfs::Registration<PuzzleFs>;

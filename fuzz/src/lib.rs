// SPDX-License-Identifier: MIT OR Apache-2.0

//! A function for each reader of untrusted bytes, which must return for any bytes, and for some readers a
//! mutator that gets past their framing.
//!
//! The programs in `fuzz_targets/` hand them to libFuzzer; `tests/replay.rs` calls them with the
//! corpus. Documentation/reliability.md explains how to run them, and lists results.

#![warn(missing_docs)]

pub mod archive;
pub mod compressed;
pub mod layout;
pub mod metadata;
pub mod mountinfo;
mod random;
pub mod seek_table;
pub mod v4;

/// libFuzzer's own mutator: changes the first so many bytes in place, and says how many there are
/// then.
pub type Mutate = fn(&mut [u8], usize, usize) -> usize;

/// A function that must return, whatever the bytes are.
pub type Target = fn(&[u8]);

/// All targets by their names, which are those of the programs and of the corpora.
pub const TARGETS: [(&str, Target); 15] = [
    ("metadata", metadata::run),
    ("seek_table", seek_table::run),
    ("compressed", compressed::run),
    ("archive", archive::run),
    ("layout", layout::run),
    ("mountinfo", mountinfo::run),
    ("v4_chunk", v4::run_chunk),
    ("v4_root", v4::run_root),
    ("v4_block_list", v4::run_block_list),
    ("v4_block", v4::run_block),
    ("v4_list_block", v4::run_list_block),
    ("v4_tree", v4::run_tree),
    ("v4_pack", v4::run_pack),
    ("v4_page", v4::run_page),
    ("v4_catalogue", v4::run_catalogue),
];

/// A directory that goes with the process, in memory where there is room.
fn scratch() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory
        .or_else(|_| tempfile::tempdir())
        .expect("a directory can be made")
}

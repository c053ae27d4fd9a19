// SPDX-License-Identifier: MIT OR Apache-2.0

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| puzzlefs_fuzz::v4::run_tree(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    puzzlefs_fuzz::v4::mutate_tree(data, size, max_size, seed, fuzzer_mutate)
});

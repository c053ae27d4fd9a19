// SPDX-License-Identifier: GPL-2.0

//! Bindings for the headers that the kernel crate leaves out; made by `bindgen` from
//! `bindings_helper.h`.

#![allow(
    // A lint that newer compilers have.
    unknown_lints,
    unnecessary_transmutes,
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use kernel::{bindings::*, ffi};
use pin_init::MaybeZeroable;

include!(env!("PUZZLEFS_PORTS_BINDINGS"));

// SPDX-License-Identifier: MIT OR Apache-2.0

//! What several programs here call in the C library, whose declarations no crate is fetched for.

#![allow(dead_code, reason = "each of them uses some")]

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

extern "C" {
    pub fn mmap(
        at: *mut c_void,
        len: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        offset: c_long,
    ) -> *mut c_void;
    pub fn munmap(at: *mut c_void, len: usize) -> c_int;
    pub fn madvise(at: *mut c_void, len: usize, advice: c_int) -> c_int;
    pub fn posix_fadvise(fd: c_int, offset: c_long, len: c_long, advice: c_int) -> c_int;
    pub fn splice(
        from: c_int,
        from_offset: *mut c_long,
        to: c_int,
        to_offset: *mut c_long,
        len: usize,
        flags: c_uint,
    ) -> isize;
    pub fn sendfile(to: c_int, from: c_int, offset: *mut c_long, count: usize) -> isize;
    pub fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    pub fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    pub fn getrusage(who: c_int, usage: *mut Rusage) -> c_int;
    pub fn _exit(status: c_int) -> !;
}
/// The `struct rusage` of 64-bit Linux.
#[repr(C)]
#[derive(Default)]
pub struct Rusage {
    times_and_counts: [c_long; 16],
    pub ru_nvcsw: c_long,
    pub ru_nivcsw: c_long,
}
pub const RUSAGE_SELF: c_int = 0;
pub const RUSAGE_CHILDREN: c_int = -1;
pub const PROT_READ: c_int = 1;
pub const MAP_SHARED: c_int = 1;
pub const MAP_PRIVATE: c_int = 2;
pub const MADV_POPULATE_READ: c_int = 22;
pub const O_CLOEXEC: c_int = 0o2000000;
pub const F_SETPIPE_SZ: c_int = 1031;
pub const FADV_WILLNEED: c_int = 3;
pub const SIGBUS: c_int = 7;

// SPDX-License-Identifier: MIT OR Apache-2.0

//! The limits of the format, and those of its readers.

/// The number of the root directory's inode.
pub const ROOT_INO: u64 = 1;

/// The version of the format that this crate reads.
pub const MANIFEST_VERSION: u64 = 3;

/// The largest number of layers of an image that is read.
///
/// The format has no limit. The search for an inode and the merging of a directory take time in
/// proportion to the layers. Container runtimes stop at about half of this number.
pub const MAX_LAYERS: u32 = 256;

/// The largest length of a name in a directory, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// The largest length of a symbolic link's target, in bytes.
pub const MAX_SYMLINK_LEN: usize = 4095;

/// The largest length of the name of an extended attribute, in bytes, its prefix included.
pub const MAX_XATTR_NAME_LEN: usize = 255;

/// The largest length of the value of an extended attribute, in bytes.
pub const MAX_XATTR_VALUE_LEN: usize = 65536;

/// The largest size of a file, in bytes: the largest signed offset of the kernel.
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;

// SPDX-License-Identifier: MIT OR Apache-2.0

//! fs-verity's ioctls behind safe functions, for the one kind of Merkle tree that PuzzleFS images
//! have digests of: SHA-256, blocks of 4096 bytes, no salt and no signature.
//!
//! Follows `Documentation/filesystems/fsverity.rst` and `include/uapi/linux/fsverity.h` of the
//! kernel.

use rustix::fd::AsFd;
use rustix::io::{Errno, Result};
use rustix::ioctl::{ioctl, opcode, Setter, Updater};

/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u16 = 1;
/// The size of a block of the Merkle tree, in bytes.
const BLOCK: u32 = 4096;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// `struct fsverity_digest`, with room for the longest digest that there is.
#[repr(C)]
struct DigestArg {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

/// `FS_IOC_ENABLE_VERITY`: `_IOW('f', 133, struct fsverity_enable_arg)`.
const ENABLE: rustix::ioctl::Opcode = opcode::write::<EnableArg>(b'f', 133);
/// `FS_IOC_MEASURE_VERITY`: `_IOWR('f', 134, struct fsverity_digest)`, whose size is that of its two
/// numbers: the digest is an array without a length.
const MEASURE: rustix::ioctl::Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// Enables fs-verity on a file, which makes it read-only for good. The kernel reads all of it. The
/// file is open for reading, nobody has it open for writing, and the caller may write to it.
///
/// # Errors
///
/// Among others: `EXIST` where it is enabled already, `OPNOTSUPP` where the filesystem does not have
/// the feature enabled, `NOTTY` where its type has none.
pub fn enable(file: impl AsFd) -> Result<()> {
    let arg = EnableArg {
        version: 1,
        hash_algorithm: SHA256.into(),
        block_size: BLOCK,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // SAFETY: This opcode takes a pointer to the type that it was made of, and reads it. The
    // pointers in it are null, and of no length.
    #[allow(unsafe_code)]
    unsafe {
        ioctl(file, Setter::<ENABLE, EnableArg>::new(arg))
    }
}

/// The fs-verity digest of a file, which the kernel checks every read of it against; `None` where
/// fs-verity is not enabled on it, or not with SHA-256, or its filesystem has none.
///
/// Whether the Merkle tree has the blocks that PuzzleFS wants shows in the digest.
///
/// # Errors
///
/// Those of the filesystem.
pub fn measure(file: impl AsFd) -> Result<Option<[u8; 32]>> {
    let mut arg = DigestArg {
        algorithm: 0,
        size: 64,
        digest: [0; 64],
    };
    // SAFETY: This opcode takes a pointer to the two numbers, the second of which says how many bytes
    // may be written after them: those of the array. It writes nothing but these.
    #[allow(unsafe_code)]
    let measured = unsafe { ioctl(file, Updater::<MEASURE, DigestArg>::new(&mut arg)) };
    match measured {
        Ok(()) if (arg.algorithm, arg.size) == (SHA256, 32) => {
            Ok(arg.digest.first_chunk::<32>().copied())
        }
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_kernels_header() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(ENABLE, 0x4080_6685);
        assert_eq!(MEASURE, 0xc004_6686);
    }

    #[test]
    fn files_without() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(measure(&file), Ok(None));
        assert_eq!(enable(&file), Err(Errno::NOTTY));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! The fs-verity digest of a file, computed in userspace.
//!
//! Follows `Documentation/filesystems/fsverity.rst` of the kernel for sha256, 4096-byte blocks
//! and no salt: the data is hashed block by block, the hashes are packed into blocks that are
//! hashed in turn, up to one block, whose hash is the root; the digest is the sha256 of the
//! descriptor that holds the root hash and the size of the data.

use crate::model::digest::Digest;
use sha2::{Digest as _, Sha256};

/// The size of a block of the Merkle tree and of the data, in bytes.
const BLOCK: usize = 4096;
/// The hashes that one block holds.
const FANOUT: usize = BLOCK / 32;

/// The fs-verity digest of a file whose contents are `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Computes the fs-verity digest of contents that come in pieces.
///
/// It keeps one unfinished block a level of the Merkle tree: at most eight for any file.
#[derive(Default)]
pub struct Hasher {
    size: u64,
    /// The data that does not fill a block yet.
    partial: Vec<u8>,
    /// For each level of the tree, from the data upwards, the hashes of an unfinished block.
    levels: Vec<Vec<[u8; 32]>>,
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the contents.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if !self.partial.is_empty() {
            let taken = bytes.len().min(BLOCK - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.partial.len() < BLOCK {
                return;
            }
            let hash = Sha256::digest(&self.partial).into();
            self.partial.clear();
            self.push(0, hash);
        }
        let mut blocks = bytes.chunks_exact(BLOCK);
        for block in &mut blocks {
            self.push(0, Sha256::digest(block).into());
        }
        self.partial.extend_from_slice(blocks.remainder());
    }

    /// The digest of all that was taken.
    pub fn finish(mut self) -> Digest {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK, 0);
            let hash = Sha256::digest(&self.partial).into();
            self.push(0, hash);
        }
        Self::descriptor(self.size, self.root())
    }

    /// Adds a hash to `level`, closing the level's block when it is full.
    fn push(&mut self, level: usize, hash: [u8; 32]) {
        if level == self.levels.len() {
            self.levels.push(Vec::with_capacity(FANOUT));
        }
        // The full block is closed when one more hash arrives, not before: a level that ends
        // up as one full block must not start another level above the root.
        if self.levels[level].len() == FANOUT {
            let block = Self::block_hash(&self.levels[level]);
            self.levels[level].clear();
            self.push(level + 1, block);
        }
        self.levels[level].push(hash);
    }

    /// Closes the levels from the data upwards. All zeros for an empty file, as the kernel has it.
    fn root(&mut self) -> [u8; 32] {
        let mut level = 0;
        while level < self.levels.len() {
            let top = level + 1 == self.levels.len();
            if top && self.levels[level].len() == 1 {
                return self.levels[level][0];
            }
            let block = Self::block_hash(&self.levels[level]);
            self.push(level + 1, block);
            level += 1;
        }
        [0; 32]
    }

    /// The hash of a block of hashes, filled up with zeros.
    fn block_hash(hashes: &[[u8; 32]]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for hash in hashes {
            hasher.update(hash);
        }
        hasher.update(&[0; BLOCK][hashes.len() * 32..]);
        hasher.finalize().into()
    }

    /// The digest of `struct fsverity_descriptor`.
    fn descriptor(size: u64, root: [u8; 32]) -> Digest {
        let mut descriptor = [0u8; 256];
        descriptor[0] = 1; // version
        descriptor[1] = 1; // hash algorithm: FS_VERITY_HASH_ALG_SHA256
        descriptor[2] = 12; // log2 of the block size
        descriptor[8..16].copy_from_slice(&size.to_le_bytes());
        descriptor[16..48].copy_from_slice(&root);
        Digest::of(&descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of `fsverity digest` (fsverity-utils 1.5) for the first bytes of [`pattern`].
    const VECTORS: [(usize, &str); 11] = [
        (
            0,
            "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
        ),
        (
            1,
            "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551",
        ),
        (
            4095,
            "b37a93497ff6ed2821409ced1dc20f4c1002cc361adf2f22ec444a22c06fe857",
        ),
        (
            4096,
            "87a706bdba32be89a173dc11d6a91c08165b4dcfcf743988c94595e82934a41a",
        ),
        (
            4097,
            "a4320d7c02e4663ab5e68f9c4104442b495b42611587610eeff876aa21e8c8bb",
        ),
        (
            128 * 4096,
            "576e4054c203aa6b1289c14e6b30a2e80fab133e57ef28f679d7cbc179d3a4ff",
        ),
        (
            128 * 4096 + 1,
            "224b5c7d7bce1476f46a7825f79169e3167141ca9fd7676f17ee6ed0c66511cd",
        ),
        (
            5 * 1024 * 1024 + 123,
            "6701a03f7c3a9078f25aa1280c4590e475063af672ea12657b8c2ef6968d0bbe",
        ),
        (
            16 * 1024 * 1024,
            "4334c95a2400567270be7f0f0969e357bb772cdb32ee4a3a9d34ecb2108cc05e",
        ),
        (
            128 * 128 * 4096,
            "fa539cad1bdd769e9e63b77eb8a4a8d8cb68d206fe41b560341b923c2aa82885",
        ),
        (
            128 * 128 * 4096 + 1,
            "217193f7c69c60208e61024352418609e2f030d68eadc34a9db8ef4c75ad395c",
        ),
    ];

    fn pattern(size: usize) -> Vec<u8> {
        (0..size)
            .map(|at| (at.wrapping_mul(7).wrapping_add((at >> 12) * 13)) as u8)
            .collect()
    }

    #[test]
    fn agrees_with_fsverity_utils() {
        let data = pattern(128 * 128 * 4096 + 1);
        for (size, wanted) in VECTORS {
            assert_eq!(digest(&data[..size]).to_hex(), wanted, "{size} bytes");
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let data = pattern(130 * 4096 + 77);
        let wanted = digest(&data);
        for piece in [1, 1000, 4095, 4096, 4097, 9000] {
            let mut hasher = Hasher::new();
            data.chunks(piece).for_each(|bytes| hasher.update(bytes));
            assert_eq!(hasher.finish(), wanted, "pieces of {piece}");
        }
    }
}

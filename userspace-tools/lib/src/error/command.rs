// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures of commands on images and stores.

use super::Error;
use crate::model::digest::Digest;
use crate::model::oci;
use crate::model::reference::Selector;
use std::path::PathBuf;

/// A failure of a command on images and stores.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The directory to extract into contains files.
    #[error("cannot extract into {}: not empty; give a new directory", .path.display())]
    TargetNotEmpty {
        /// The path of the directory.
        path: PathBuf,
    },
    /// An inode of the image has a type that this version does not know.
    #[error("cannot write {}: the image says nothing of its type", .path.display())]
    UnknownFileType {
        /// The path of the file.
        path: PathBuf,
    },
    /// The tag for an exported image names the PuzzleFS image that it is made of.
    #[error(
        "cannot export to {}: '{tag}' names the image itself; give another tag, <oci-dir>:<tag>",
        .store.display())]
    ExportOverItself {
        /// The path of the layout.
        store: PathBuf,
        /// The tag.
        tag: String,
    },
    /// Container tools would take a file name for a whiteout.
    #[error(
        "cannot export {}: cannot be in a layer of a container image, because its name means that \
         another file was removed; export a tar archive, or build the image without the file",
        .path.display())]
    WhiteoutName {
        /// The path of the file in the image.
        path: PathBuf,
    },
    /// The configuration of the image cannot be exported.
    #[error("cannot export {}: the configuration is malformed: {cause}", .path.display())]
    Configuration {
        /// The path of the configuration.
        path: PathBuf,
        /// The cause.
        cause: serde_json::Error,
    },
    /// A copy shall replace a damaged blob by one that is damaged as well.
    #[error(
        "cannot copy {}: the blob is damaged here, too: its contents have sha256 {found}",
        .path.display())]
    DamagedInBoth {
        /// The path of the blob in the source.
        path: PathBuf,
        /// The digest of its contents.
        found: Digest,
    },
    /// A store with blobs has no index, so every blob would look unused.
    #[error(
        "cannot remove blobs by {}: missing: nothing says which blobs are needed, so none was removed",
        .path.display())]
    NoIndex {
        /// The path of the index.
        path: PathBuf,
    },
    /// The index changed while the blobs that it needs were found.
    #[error(
        "cannot remove blobs by {}: another tool changed it while the needed blobs were found; \
         nothing was removed", .path.display())]
    IndexChanged {
        /// The path of the index.
        path: PathBuf,
    },
    /// A manifest lists packs and does not name the root of its image.
    #[error(
        "cannot use {}: the annotation '{}' is not the digest of a root",
        .path.display(), oci::ROOT)]
    NoRoot {
        /// The path of the manifest.
        path: PathBuf,
    },
    /// Packs that a manifest lists cannot be built again.
    #[error(
        "cannot complete {} by its manifest: {}; 'puzzlefs copy --whole-packs' from a store that has them \
         restores packs, and 'puzzlefs complete --new-manifest' lists other packs in a new manifest",
        .image, Lost(.packs))]
    PacksLost {
        /// The image.
        image: Selector,
        /// The packs.
        packs: Vec<LostPack>,
    },
    /// Not all blobs that the images need are known.
    #[error(
        "cannot remove blobs of {}: nothing was removed, because what these need is not known: {}. \
         Repair them, or untag them", .store.display(), Joined(.causes))]
    NeedsUnknown {
        /// The path of the store.
        store: PathBuf,
        /// The causes.
        causes: Vec<Error>,
    },
    /// The manifest has no digest to verify the metadata blob against.
    #[error(
        "cannot verify {}: the manifest has no fs-verity digest of the metadata blob: the image \
         cannot be verified; build it again", .path.display())]
    NoRootVerity {
        /// The path of the manifest.
        path: PathBuf,
    },
    /// fs-verity is not enabled in the filesystem.
    #[error(
        "cannot enable fs-verity in {}: fs-verity is not enabled in the filesystem that the store is \
         on: for ext4, do so by 'tune2fs -O verity DEVICE' and mount it again; the kernel needs \
         CONFIG_FS_VERITY", .store.display())]
    VerityDisabled {
        /// The path of the store.
        store: PathBuf,
    },
    /// The filesystem has no fs-verity.
    #[error(
        "cannot enable fs-verity in {}: the filesystem of the store does not know fs-verity: put the \
         store on ext4, f2fs or btrfs", .store.display())]
    VerityUnsupported {
        /// The path of the store.
        store: PathBuf,
    },
    /// The filesystem has larger blocks than fs-verity shall have.
    #[error(
        "cannot enable fs-verity in {}: the filesystem of the store cannot have fs-verity with blocks \
         of 4096 bytes, as images want it: it takes a filesystem whose own blocks are not smaller, for \
         ext4 'mkfs.ext4 -b 4096 -O verity'", .store.display())]
    VerityBlockSize {
        /// The path of the store.
        store: PathBuf,
    },
}

/// A pack that cannot be built again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPack {
    /// The digest of the pack.
    pub pack: Digest,
    /// The part that is missing.
    pub cause: PackLoss,
}

/// The part of a pack that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackLoss {
    /// The store has no recipe of the pack.
    #[error("the store has no recipe of it")]
    Recipe,
    /// The recipe makes a pack of another size.
    #[error("its recipe makes a pack of {found} bytes instead of {wanted}")]
    Size {
        /// The size of the pack that the recipe makes.
        found: u64,
        /// The size in the manifest.
        wanted: u64,
    },
    /// The recipe makes another pack of the same size.
    #[error("its recipe makes the pack {found}")]
    OtherPack {
        /// The digest of that pack.
        found: Digest,
    },
    /// The store lacks chunks of the pack.
    #[error("the store lacks {count} of its chunks, the first being {first}")]
    Chunks {
        /// The first chunk that is missing.
        first: Digest,
        /// The number of chunks that are missing.
        count: u64,
    },
}

/// Packs that cannot be built again, in one message.
struct Lost<'a>(&'a [LostPack]);

impl std::fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, LostPack { pack, cause }) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}cannot rebuild the pack {pack}: {cause}")?;
        }
        Ok(())
    }
}

/// Errors in one message.
struct Joined<'a>(&'a [Error]);

impl std::fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0

//! Copies the layers of another image.

use super::structures::{
    put_additional, put_chunk, put_device, put_dir, InodeRecord, Mode, DIR_ENTRY, FILE_CHUNK,
    INODE, INODE_VECTOR, XATTR,
};
use crate::build::delta::Base;
use crate::error::{Error, Result};
use crate::image::encoding::{At, Message, Size, TooLarge};
use crate::model::digest::Digest;
use capnp::message::ReaderOptions;
use puzzlefs_schema::metadata_capnp as wire;
use std::collections::{BTreeMap, HashSet};

/// Copies the layers of another image beneath a place for one more, which is returned.
///
/// Fields that this version of the schema does not know are not copied.
pub(super) fn layers(
    base: &Base<'_>,
    message: &mut Message,
    metadatas: At,
) -> Result<At, CopyError> {
    let mut bytes = base.reader.bytes();
    // `LayerCopy` bounds the work.
    let options = ReaderOptions {
        traversal_limit_in_words: None,
        ..ReaderOptions::new()
    };
    let below = capnp::serialize::read_message_from_flat_slice(&mut bytes, options)?;
    let below = below
        .get_root::<wire::rootfs::Reader<'_>>()?
        .get_metadatas()?;
    let mut copy = LayerCopy {
        message,
        left: base.reader.bytes().len() / 8,
        seen: HashSet::new(),
    };
    let layers = copy.list(metadatas, below.len() as usize + 1, INODE_VECTOR)?;
    for (at, layer) in (layers + 1..).zip(below) {
        copy.layer(at, layer)?;
    }
    Ok(layers)
}

/// Returns the fs-verity digests of another image.
pub(super) fn verities(base: &Base<'_>) -> Result<BTreeMap<Digest, Digest>> {
    let metadata = base.reader.metadata();
    let mut verities = BTreeMap::new();
    for index in 0..base.reader.checked(metadata.verity_len())? {
        let (blob, verity) = base.reader.checked(metadata.verity_at(index))?;
        verities.insert(Digest(*blob.as_bytes()), Digest(*verity.as_bytes()));
    }
    Ok(verities)
}

/// The cause that layers cannot be copied.
pub(super) enum CopyError {
    Malformed(capnp::Error),
    /// The same data is in many places.
    Repeats,
    TooLarge,
}

impl From<capnp::Error> for CopyError {
    fn from(error: capnp::Error) -> Self {
        CopyError::Malformed(error)
    }
}

impl From<capnp::NotInSchema> for CopyError {
    fn from(kind: capnp::NotInSchema) -> Self {
        CopyError::Malformed(kind.into())
    }
}

impl From<TooLarge> for CopyError {
    fn from(_: TooLarge) -> Self {
        CopyError::TooLarge
    }
}

impl CopyError {
    /// Returns the error that reports it. `segment` makes the one of a message that is too large.
    pub fn explain(self, base: &Base<'_>, segment: impl Fn(TooLarge) -> Error) -> Error {
        match self {
            CopyError::Malformed(error) => base.reader.malformed_by(error.to_string()),
            CopyError::Repeats => base
                .reader
                .malformed_by("its lists are shared, and would not fit if they were copied"),
            CopyError::TooLarge => segment(TooLarge),
        }
    }
}

/// Copies layers to a message.
///
/// A message may have the same list in many places, and its copy would be larger. Therefore no more
/// elements are copied, and no more words of data that is seen for the first time, than the message
/// has words.
struct LayerCopy<'m> {
    message: &'m mut Message,
    left: usize,
    /// The addresses and lengths of the data that was copied.
    seen: HashSet<(usize, usize)>,
}

impl LayerCopy<'_> {
    fn take(&mut self, words: usize) -> Result<(), CopyError> {
        self.left = self.left.checked_sub(words).ok_or(CopyError::Repeats)?;
        Ok(())
    }

    fn list(&mut self, pointer: At, len: usize, size: Size) -> Result<At, CopyError> {
        self.take(len)?;
        Ok(self.message.list(pointer, len, size)?)
    }

    fn data(&mut self, pointer: At, data: &[u8]) -> Result<(), CopyError> {
        if self.seen.insert((data.as_ptr() as usize, data.len())) {
            self.take(data.len().div_ceil(8))?;
        }
        Ok(self.message.data(pointer, data)?)
    }

    fn layer(&mut self, at: At, layer: wire::inode_vector::Reader<'_>) -> Result<(), CopyError> {
        let inodes = layer.get_inodes()?;
        let list = self.list(at, inodes.len() as usize, INODE)?;
        for (at, inode) in inodes.iter().enumerate() {
            self.inode(list + at * INODE.words(), inode)?;
        }
        Ok(())
    }

    fn inode(&mut self, at: At, inode: wire::inode::Reader<'_>) -> Result<(), CopyError> {
        use wire::inode::mode::Which;
        let which = inode.get_mode().which()?;
        let copy = InodeRecord {
            ino: inode.get_ino(),
            mode: match which {
                Which::Unknown(()) => Mode::Unknown,
                Which::Fifo(()) => Mode::Fifo,
                Which::Chr(_) => Mode::CharDevice,
                Which::Dir(_) => Mode::Directory,
                Which::Blk(_) => Mode::BlockDevice,
                Which::File(_) => Mode::File,
                Which::Lnk(()) => Mode::Symlink,
                Which::Sock(()) => Mode::Socket,
                Which::Wht(()) => Mode::Whiteout,
            },
            uid: inode.get_uid(),
            gid: inode.get_gid(),
            permissions: inode.get_permissions(),
            mtime_seconds: inode.get_mtime_seconds(),
            mtime_nanoseconds: inode.get_mtime_nanoseconds(),
            size: inode.get_size(),
            nlink: inode.get_nlink(),
        };
        let to = copy.put(self.message, at);
        match which {
            Which::Chr(device) => {
                let device = device?;
                let (major, minor) = (device.get_major(), device.get_minor());
                put_device(self.message, to.mode, major, minor)?;
            }
            Which::Blk(device) => {
                let device = device?;
                let (major, minor) = (device.get_major(), device.get_minor());
                put_device(self.message, to.mode, major, minor)?;
            }
            Which::Dir(dir) => self.dir(to.mode, dir?)?,
            Which::File(chunks) => self.chunks(to.mode, chunks?)?,
            _ => {}
        }
        self.additional(to.additional, inode.get_additional()?)
    }

    fn dir(&mut self, at: At, dir: wire::dir::Reader<'_>) -> Result<(), CopyError> {
        let entries = dir.get_entries()?;
        let len = entries.len() as usize;
        self.take(len)?;
        let list = put_dir(self.message, at, len, dir.get_look_below())?;
        for (at, entry) in entries.iter().enumerate() {
            let at = list + at * DIR_ENTRY.words();
            self.message.set(at, entry.get_ino());
            self.data(at + 1, entry.get_name()?)?;
        }
        Ok(())
    }

    fn chunks(
        &mut self,
        at: At,
        chunks: capnp::struct_list::Reader<'_, wire::file_chunk::Owned>,
    ) -> Result<(), CopyError> {
        let list = self.list(at, chunks.len() as usize, FILE_CHUNK)?;
        for (at, chunk) in chunks.iter().enumerate() {
            let at = list + at * FILE_CHUNK.words();
            let blob = chunk.get_blob()?;
            let (offset, compressed) = (blob.get_offset(), blob.get_compressed());
            let digest = put_chunk(self.message, at, chunk.get_len(), offset, compressed)?;
            self.data(digest, blob.get_digest()?)?;
        }
        Ok(())
    }

    fn additional(
        &mut self,
        at: At,
        additional: wire::inode_additional::Reader<'_>,
    ) -> Result<(), CopyError> {
        let xattrs = additional.get_xattrs()?;
        let target = additional.get_symlink_target()?;
        let to = put_additional(self.message, at, !xattrs.is_empty(), !target.is_empty())?;
        if let Some(to) = to.target {
            self.data(to, target)?;
        }
        if let Some(to) = to.xattrs {
            let list = self.list(to, xattrs.len() as usize, XATTR)?;
            for (at, xattr) in xattrs.iter().enumerate() {
                let at = list + at * XATTR.words();
                self.data(at, xattr.get_key()?)?;
                self.data(at + 1, xattr.get_val()?)?;
            }
        }
        Ok(())
    }
}
